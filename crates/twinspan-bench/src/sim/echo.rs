//! Machines under the drive loop: clients send at 60 Hz, one host sends back.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::{Machine, NetworkProvider, TaskProvider, UdpOptions, drive};
use twinspan_sim::{Sim, SimConfig};

use super::{ECHO_CLIENTS, Measured, ROUGH, SEED, meter};

/// From one datagram of a client to the next: 60 Hz.
const INTERVAL: Duration = Duration::from_nanos(16_666_667);
const PAYLOAD_BYTES: usize = 100;
/// Time before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// With a server, sends to it at an interval; without one, sends back what comes.
struct Node {
    server: Option<SocketAddr>,
    next_at: Timestamp,
    due: bool,
    waiting: VecDeque<Datagram>,
}

impl Machine for Node {
    fn handle_datagrams(&mut self, _now: Timestamp, received: &mut DatagramBatch) {
        while self.server.is_none()
            && let Some(datagram) = received.pop()
        {
            self.waiting.push_back(datagram);
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.due = true;
        self.next_at = now.after(INTERVAL);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while out.room() > 0
            && let Some(datagram) = self.waiting.pop_front()
        {
            if out.push(datagram).is_err() {
                return;
            }
        }
        if let Some(peer) = self.server
            && std::mem::take(&mut self.due)
            && let Some(mut packet) = pool.take()
        {
            packet.set_len(PAYLOAD_BYTES);
            if out.push(Datagram { peer, at: now, packet }).is_err() {
                self.due = true;
            }
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.server.is_some().then_some(self.next_at)
    }
}

pub(super) fn run(time: Duration) -> Measured {
    let mut sim = Sim::new(SimConfig { seed: SEED, conditions: ROUGH, ..SimConfig::default() });
    let server_ip = IpAddr::from([10, 0, 1, 0]);
    let mut tasks = Vec::new();
    for number in 0..=ECHO_CLIENTS {
        let is_server = number == 0;
        let ip = if is_server { server_ip } else { IpAddr::from([10, 0, 0, number]) };
        let env = sim.host(if is_server { "server" } else { "client" }, ip);
        let mut node = Node {
            server: (!is_server).then_some(SocketAddr::new(server_ip, 4_000)),
            next_at: Timestamp::from_nanos(u64::from(number) * 160_003),
            due: false,
            waiting: VecDeque::new(),
        };
        let inner = env.clone();
        tasks.push(env.spawn("node", async move {
            let local = SocketAddr::new(ip, if is_server { 4_000 } else { 0 });
            // Without a socket there are no events, which the figure shows.
            if let Ok(mut socket) = inner.bind_udp(local, &UdpOptions::default()).await {
                let _ = drive(&inner, &mut socket, &mut node).await;
            }
        }));
    }
    sim.run_for(WARM_UP);
    let measured = meter(&mut sim, time);
    drop(tasks);
    measured
}
