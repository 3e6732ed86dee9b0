//! A relay on a thread between real sockets of this machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_net::ReactorEnv;
use twinspan_provider::{
    BindError, Machine, NetworkProvider, RandomProvider, TaskProvider, TimeProvider, Timer,
    UdpOptions, UdpSocket, drive,
};
use twinspan_relay::{
    PortConfig, RelayConfig, RelayConfigError, RelayError, RelayOptions, RelayPort, start,
    trunk_options,
};

use crate::parts::{Echo, Player, token};
use crate::rig::{key, shared};

const ANY: &str = "127.0.0.1:0";
const PLAYERS: u64 = 20;
const MESSAGES: u64 = 30;

/// Ends when somebody says so.
struct Until<M>(M, Arc<AtomicBool>);

impl<M: Machine> Machine for Until<M> {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.0.handle_datagrams(now, received);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.0.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.0.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.0.poll_timeout()
    }

    fn is_done(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

/// A free port of this machine; another process may take it, which then shows as an error.
fn free() -> std::net::SocketAddr {
    std::net::UdpSocket::bind(ANY).unwrap().local_addr().unwrap()
}

#[test]
fn sessions_pass_through_real_sockets() {
    let trunk = free();
    let (told_tx, told_rx) = mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let server = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let env = ReactorEnv::new(Some(1)).unwrap();
            env.clone().block_on(async {
                let (echo, issuer) = Echo::new(1, env.secrets());
                let socket = env.bind_udp(ANY.parse().unwrap(), &trunk_options()).await.unwrap();
                let config = PortConfig::new(vec![trunk], key());
                let mut port = RelayPort::new(None, socket, &config).unwrap();
                told_tx.send((port.local_addr(), issuer)).unwrap();
                let mut machine = Until(echo, stop);
                drive(&env, &mut port, &mut machine).await.unwrap();
                let stats = port.stats().get();
                (machine.0.peers.len() as u64, stats)
            })
        }
    });
    let (port, issuer) = told_rx.recv().unwrap();
    let mut options = RelayOptions::new(ANY.parse().unwrap(), RelayConfig::new(port, key()));
    options.trunk = Some(trunk);
    let relay = start(options).unwrap();
    assert_eq!(relay.trunk_address(), trunk);

    let env = ReactorEnv::new(Some(2)).unwrap();
    env.clone().block_on(async {
        let mut players = Vec::new();
        let mut tasks = Vec::new();
        for user in 1..=PLAYERS {
            let token = token(&issuer, user, relay.address());
            let player = shared(Player::new(&token, MESSAGES, env.secrets(), user));
            players.push(player.clone());
            let env = env.clone();
            tasks.push(env.clone().spawn("player", async move {
                let options = UdpOptions { pool_packets: 64, ..UdpOptions::default() };
                let mut socket = env.bind_udp(ANY.parse().unwrap(), &options).await.unwrap();
                let mut player = player;
                drive(&env, &mut socket, &mut player).await.unwrap();
            }));
        }
        let mut timer = env.timer();
        while !players.iter().all(|player| player.borrow().is_served()) {
            let closed = players.iter().find_map(|player| player.borrow().closed);
            assert_eq!(closed, None, "{:?}", relay.report());
            timer.set(Some(env.now().after(Duration::from_millis(5))));
            std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        }
    });
    stop.store(true, Ordering::Relaxed);
    // A datagram wakes the server, so that it sees that it is to stop.
    let waker = std::net::UdpSocket::bind(ANY).unwrap();
    waker.send_to(&[0], port).unwrap();
    let report = relay.stop().unwrap();
    let (sessions, port) = server.join().unwrap();
    assert_eq!(sessions, PLAYERS);
    let stats = report.stats;
    assert_eq!(stats.drops.total(), 0, "{stats:?}");
    assert_eq!(stats.links_begun, PLAYERS);
    assert!(stats.to_server >= port.relayed_in && port.relayed_in >= PLAYERS * MESSAGES / 2);
    assert!(port.relayed_out >= stats.to_clients);
    assert_eq!(report.trunk.packets_out, stats.to_server);
    assert_eq!(report.clients.packets_out, stats.to_clients);
}

#[test]
fn what_cannot_be_had_is_named() {
    let config = RelayConfig::new(free(), key());
    let mut bad = RelayOptions::new(ANY.parse().unwrap(), config.clone());
    bad.config.servers.clear();
    assert!(matches!(start(bad).err(), Some(RelayError::Config(RelayConfigError::NoPeer))));
    let taken = std::net::UdpSocket::bind(ANY).unwrap();
    let address = taken.local_addr().unwrap();
    let both = RelayOptions::new(address, config.clone());
    let error = start(both).err();
    assert!(matches!(error, Some(RelayError::Listen(BindError::Taken(at))) if at == address));
    let mut trunk = RelayOptions::new(ANY.parse().unwrap(), config);
    trunk.trunk = Some(address);
    let error = start(trunk).err();
    assert!(matches!(error, Some(RelayError::Trunk(BindError::Taken(at))) if at == address));
}
