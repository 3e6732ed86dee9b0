//! Players, a relay and a server in one simulated network.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, UdpOptions, drive,
};
use twinspan_relay::{
    PortConfig, PortStats, Relay, RelayConfig, RelayPort, SideDrops, TrunkKey, TwoSided,
};
use twinspan_session::TokenIssuer;
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};

use crate::parts::{Echo, Player, token};

/// Where the server takes clients directly.
pub(crate) const DIRECT: SocketAddr = at(1, 7_700);
/// Where the server takes relays.
pub(crate) const PORT: SocketAddr = at(1, 7_800);
/// Where clients find the relay.
pub(crate) const RELAY: SocketAddr = at(2, 7_700);
/// From where the relay speaks to the server.
pub(crate) const TRUNK: SocketAddr = at(2, 7_800);

pub(crate) const fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, last)), port)
}

pub(crate) fn key() -> TrunkKey {
    TrunkKey::from_bytes([9; 32])
}

pub(crate) type Shared<M> = Rc<RefCell<M>>;

pub(crate) fn shared<M>(machine: M) -> Shared<M> {
    Rc::new(RefCell::new(machine))
}

pub(crate) struct Rig {
    pub(crate) sim: Sim,
    pub(crate) server: Shared<Echo>,
    pub(crate) relay: Shared<Relay>,
    pub(crate) players: Vec<Shared<Player>>,
    pub(crate) port: Rc<Cell<PortStats>>,
    pub(crate) sides: Rc<Cell<SideDrops>>,
    pub(crate) issuer: TokenIssuer,
    pub(crate) config: RelayConfig,
    tasks: Vec<SimTask>,
    seed: u64,
}

impl Rig {
    /// A server with a port for the relay, and the relay.
    pub(crate) fn new(
        seed: u64,
        conditions: Conditions,
        change: impl FnOnce(&mut RelayConfig),
    ) -> Self {
        let mut sim = Sim::new(SimConfig { seed, conditions, ..SimConfig::default() });
        let env = sim.host("server", PORT.ip());
        let (echo, issuer) = Echo::new(seed, env.secrets());
        let mut config = RelayConfig::new(PORT, key());
        change(&mut config);
        let relay_env = sim.host("relay", RELAY.ip());
        let relay = Relay::new(config.clone(), relay_env.secrets().as_mut()).unwrap();
        let mut rig = Self {
            sim,
            server: shared(echo),
            relay: shared(relay),
            players: Vec::new(),
            port: Rc::default(),
            sides: Rc::default(),
            issuer,
            config,
            tasks: Vec::new(),
            seed,
        };
        rig.run_server(&env);
        rig.run_relay(&relay_env);
        rig
    }

    fn run_server(&mut self, env: &SimEnv) {
        let (env, mut machine) = (env.clone(), Rc::clone(&self.server));
        let told = shared(None);
        let tell = Rc::clone(&told);
        self.tasks.push(env.clone().spawn("server", async move {
            let options = UdpOptions::default();
            let direct = env.bind_udp(DIRECT, &options).await.unwrap();
            let trunk = env.bind_udp(PORT, &options).await.unwrap();
            let config = PortConfig::new(vec![at(9, 9), TRUNK], key());
            let mut port = RelayPort::new(Some(direct), trunk, &config).unwrap();
            *tell.borrow_mut() = Some(port.stats());
            drive(&env, &mut port, &mut machine).await.unwrap();
        }));
        self.sim.run_for(Duration::ZERO);
        self.port = told.take().unwrap();
    }

    fn run_relay(&mut self, env: &SimEnv) {
        let (env, mut machine) = (env.clone(), Rc::clone(&self.relay));
        let told = shared(None);
        let tell = Rc::clone(&told);
        self.tasks.push(env.clone().spawn("relay", async move {
            let options = UdpOptions::default();
            let open = env.bind_udp(RELAY, &options).await.unwrap();
            let trunk = env.bind_udp(TRUNK, &options).await.unwrap();
            let mut socket = TwoSided::new(Some(open), trunk, &[PORT]);
            *tell.borrow_mut() = Some(socket.drops());
            // It ends when the host is stopped.
            let _ = drive(&env, &mut socket, &mut machine).await;
        }));
        self.sim.run_for(Duration::ZERO);
        self.sides = told.take().unwrap();
    }

    /// Stops the relay as a power cut does and starts another that knows nothing.
    pub(crate) fn restart_relay(&mut self, down: Duration) {
        assert!(self.sim.stop_host(RELAY.ip()));
        self.sim.run_for(down);
        let env = self.sim.host("relay", RELAY.ip());
        let relay = Relay::new(self.config.clone(), env.secrets().as_mut()).unwrap();
        self.relay = shared(relay);
        self.run_relay(&env);
    }

    /// A player at `address` that sends `count` messages through whoever is at `server`.
    pub(crate) fn add_player(&mut self, address: SocketAddr, server: SocketAddr, count: u64) {
        let user = self.players.len() as u64 + 1;
        let env = self.sim.host(&format!("host of {address}"), address.ip());
        let token = token(&self.issuer, user, server);
        let player = shared(Player::new(&token, count, env.secrets(), self.seed + user));
        self.players.push(Rc::clone(&player));
        self.launch(&env, address, player);
    }

    /// Moves a player to another socket of its host.
    pub(crate) fn rebind(&mut self, player: usize, address: SocketAddr) {
        let env = self.sim.host(&format!("host of {address}"), address.ip());
        // Its task is the one after those of the server and the relay.
        drop(self.tasks.remove(2 + player));
        let machine = Rc::clone(&self.players[player]);
        self.launch(&env, address, machine);
    }

    /// Drives `machine` over a socket at `address`.
    pub(crate) fn launch<M: Machine + 'static>(
        &mut self,
        env: &SimEnv,
        address: SocketAddr,
        mut machine: M,
    ) {
        let env = env.clone();
        self.tasks.push(env.clone().spawn("machine", async move {
            let mut socket = env.bind_udp(address, &UdpOptions::default()).await.unwrap();
            // It ends when the host is stopped.
            let _ = drive(&env, &mut socket, &mut machine).await;
        }));
    }

    /// Sends these datagrams from `from`, ten a millisecond, and returns what is heard there.
    pub(crate) fn inject(
        &mut self,
        from: SocketAddr,
        datagrams: Vec<(SocketAddr, Vec<u8>)>,
    ) -> Shared<Injector> {
        let env = self.sim.host(&format!("host of {from}"), from.ip());
        let injector = shared(Injector { waiting: datagrams, ..Injector::default() });
        self.launch(&env, from, Rc::clone(&injector));
        injector
    }

    /// Runs until `holds`, for a minute at most.
    pub(crate) fn wait(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = self.sim.now().after(Duration::from_secs(60));
        while !holds(self) {
            assert!(self.sim.now() < until, "waited for {what}: {:?}", self.relay.borrow());
            self.sim.run_for(Duration::from_millis(10));
        }
    }

    pub(crate) fn all_served(&self) -> bool {
        self.players.iter().all(|player| player.borrow().is_served())
    }
}

/// Sends what it was given and keeps what comes.
#[derive(Default)]
pub(crate) struct Injector {
    waiting: Vec<(SocketAddr, Vec<u8>)>,
    next_at: Timestamp,
    pub(crate) heard: Vec<Vec<u8>>,
}

impl Injector {
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Machine for Injector {
    fn handle_datagrams(&mut self, _now: Timestamp, received: &mut DatagramBatch) {
        self.heard.extend(received.iter().map(|datagram| datagram.packet.to_vec()));
    }

    fn handle_timeout(&mut self, _now: Timestamp) {}

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        if now < self.next_at {
            return;
        }
        for _ in 0..10 {
            let Some((peer, bytes)) = self.waiting.pop() else { return };
            let mut packet = pool.take().unwrap();
            assert!(packet.fill(&bytes));
            assert!(out.push(Datagram { peer, at: now, packet }).is_ok());
        }
        self.next_at = now.after(Duration::from_millis(1));
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        (!self.waiting.is_empty()).then_some(self.next_at)
    }
}
