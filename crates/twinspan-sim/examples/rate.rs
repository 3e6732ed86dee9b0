//! Events per CPU-second of an echo through the driver: `cargo run --release --example rate`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::{Machine, NetworkProvider, TaskProvider, UdpOptions, drive};
use twinspan_sim::{Sim, SimConfig};

const CLIENTS: u8 = 100;
const INTERVAL: Duration = Duration::from_micros(16_667);

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
            packet.set_len(100);
            if out.push(Datagram { peer, at: now, packet }).is_err() {
                self.due = true;
            }
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.server.is_some().then_some(self.next_at)
    }
}

/// CPU time of this process, from the kernel's own accounting; 0 where there is none.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
    nanos.unwrap_or_default() / 1e9
}

fn main() {
    let conditions = Conditions {
        loss: 0.01,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(20),
        duplicate: 0.001,
        reorder: 0.01,
        ..Conditions::CLEAN
    };
    let mut sim = Sim::new(SimConfig { seed: 1, conditions, ..SimConfig::default() });
    let server_ip = IpAddr::from([10, 0, 1, 0]);
    let mut tasks = Vec::new();
    for number in 0..=CLIENTS {
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
            let Ok(mut socket) = inner.bind_udp(local, &UdpOptions::default()).await else {
                return;
            };
            if let Err(error) = drive(&inner, &mut socket, &mut node).await {
                println!("{error}");
            }
        }));
    }
    sim.run_for(Duration::from_secs(1));
    let (events, began) = (sim.events(), cpu_seconds());
    sim.run_for(Duration::from_secs(100));
    let (events, took) = (sim.events() - events, cpu_seconds() - began);
    println!(
        "{events} events, {:.2} million events per CPU-second, {:.0} times real time, hash {:016x}",
        events as f64 / took / 1e6,
        100.0 / took,
        sim.trace_hash()
    );
    drop(tasks);
}
