//! A scenario over the driver: clients send at an interval, one server echoes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::{Env, Machine, TaskProvider, UdpError, UdpOptions, drive};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const PORT: u16 = 4_000;

/// Sends back what comes.
#[derive(Default)]
pub(crate) struct Echo {
    waiting: VecDeque<Datagram>,
    pub(crate) echoed: u64,
    pub(crate) batch_max: usize,
}

impl Machine for Echo {
    fn handle_datagrams(&mut self, _now: Timestamp, received: &mut DatagramBatch) {
        self.batch_max = self.batch_max.max(received.len());
        while let Some(datagram) = received.pop() {
            self.waiting.push_back(datagram);
        }
    }

    fn handle_timeout(&mut self, _now: Timestamp) {}

    fn poll_transmit(&mut self, _now: Timestamp, _pool: &PacketPool, out: &mut DatagramBatch) {
        while out.room() > 0 {
            let Some(datagram) = self.waiting.pop_front() else { return };
            self.echoed += 1;
            assert!(out.push(datagram).is_ok());
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}

/// Sends `burst` datagrams each `interval` and remembers what came back when.
pub(crate) struct Client {
    pub(crate) server: SocketAddr,
    pub(crate) interval: Duration,
    pub(crate) burst: u64,
    pub(crate) count: u64,
    pub(crate) sent: u64,
    due: u64,
    next_at: Timestamp,
    pub(crate) received: Vec<(u64, Timestamp)>,
}

impl Client {
    pub(crate) fn new(server: SocketAddr, interval: Duration, count: u64) -> Self {
        Self {
            server,
            interval,
            burst: 1,
            count,
            sent: 0,
            due: 0,
            next_at: Timestamp::START.after(interval),
            received: Vec::new(),
        }
    }
}

impl Machine for Client {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while let Some(datagram) = received.pop() {
            assert_eq!(datagram.peer, self.server);
            let number = datagram.packet.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            self.received.push((number.unwrap(), now));
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if now >= self.next_at && self.sent + self.due < self.count {
            self.due += self.burst;
            self.next_at = self.next_at.after(self.interval);
        }
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while self.due > 0 && out.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let mut bytes = [7; 100];
            bytes[..8].copy_from_slice(&self.sent.to_le_bytes());
            assert!(packet.fill(&bytes));
            assert!(out.push(Datagram { peer: self.server, at: now, packet }).is_ok());
            self.sent += 1;
            self.due -= 1;
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        (self.sent < self.count).then_some(self.next_at)
    }
}

/// Binds and drives a machine; generic over the side of the seam as real drivers are.
pub(crate) async fn serve<E: Env, M: Machine>(
    env: E,
    local: SocketAddr,
    mut machine: M,
) -> Result<(), UdpError> {
    let bound = env.bind_udp(local, &UdpOptions::default()).await;
    let mut socket = bound.expect("the address is free");
    drive(&env, &mut socket, &mut machine).await
}

pub(crate) fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

pub(crate) fn start<M: Machine + 'static>(
    env: &SimEnv,
    port: u16,
    machine: &Rc<RefCell<M>>,
) -> SimTask {
    let local = SocketAddr::new(env.ip(), port);
    let served = serve(env.clone(), local, Rc::clone(machine));
    env.spawn("serve", async move { served.await.expect("the host runs") })
}

/// A server at 10.0.0.1 and clients at the addresses after it.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) server: Rc<RefCell<Echo>>,
    pub(crate) clients: Vec<Rc<RefCell<Client>>>,
    pub(crate) tasks: Vec<SimTask>,
}

impl World {
    pub(crate) fn new(config: SimConfig, clients: u8, count: u64) -> Self {
        let mut sim = Sim::new(config);
        let server = Rc::new(RefCell::new(Echo::default()));
        let mut tasks = vec![start(&sim.host("server", ip(1)), PORT, &server)];
        let mut machines = Vec::new();
        for client in 0..clients {
            let machine = Client::new(SocketAddr::new(ip(1), PORT), 10 * MS, count);
            let machine = Rc::new(RefCell::new(machine));
            tasks.push(start(&sim.host("client", ip(client + 2)), 0, &machine));
            machines.push(machine);
        }
        Self { sim, server, clients: machines, tasks }
    }

    pub(crate) fn received(&self, client: usize) -> Vec<(u64, Timestamp)> {
        self.clients[client].borrow().received.clone()
    }
}

/// Everything that a link can do wrong, at once.
pub(crate) fn rough() -> Conditions {
    Conditions {
        loss: 0.2,
        delay: 20 * MS,
        jitter: 50 * MS,
        duplicate: 0.05,
        reorder: 0.05,
        rate_bytes_per_s: 100_000,
        queue_bytes_max: 4_096,
    }
}
