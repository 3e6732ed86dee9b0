//! Hosts stop and start.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_core::packet::DatagramBatch;
use twinspan_provider::{
    BindError, NetworkProvider, RandomProvider, TaskProvider, UdpError, UdpOptions, UdpSocket,
};
use twinspan_sim::{Sim, SimConfig};

use crate::echo::{Echo, MS, PORT, World, ip, start};

#[test]
fn a_stopped_host_drops_its_tasks_and_sockets() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let held = Rc::new(Cell::new(0));
    let inside = Rc::clone(&held);
    let inner = env.clone();
    let _task = env.spawn("holds", async move {
        let local = SocketAddr::new(inner.ip(), PORT);
        let _socket = inner.bind_udp(local, &UdpOptions::default()).await.unwrap();
        inside.set(1);
        pending::<()>().await;
        inside.set(2);
    });
    sim.run_for(MS);
    assert_eq!(held.get(), 1);
    assert!(sim.stop_host(ip(1)));
    assert_eq!(Rc::strong_count(&held), 1);
    assert!(!sim.stop_host(ip(1)), "it is stopped already");
    let faults = sim.faults();
    let kind = FaultKind::HostStop;
    assert_eq!((faults.injected(kind), faults.effect(kind)), (1, 2));
}

#[test]
fn a_socket_that_outlives_its_host_says_so() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let inner = env.clone();
    let limit = Duration::from_secs(1);
    let mut socket = sim
        .block_on(&env, limit, async move {
            let local = SocketAddr::new(inner.ip(), PORT);
            inner.bind_udp(local, &UdpOptions::default()).await.unwrap()
        })
        .unwrap();
    let other = sim.host("other", ip(2));
    let outcome = Rc::new(RefCell::new(None));
    let told = Rc::clone(&outcome);
    // Held by a task of another host, which waits for it when it goes.
    let _task = other.spawn("waits", async move {
        let mut batch = DatagramBatch::new(1);
        let received = poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await;
        let sent = poll_fn(|cx| socket.poll_send(cx, &mut batch)).await;
        *told.borrow_mut() = Some((received, sent));
    });
    sim.run_for(MS);
    assert!(outcome.borrow().is_none());
    sim.stop_host(ip(1));
    sim.run_for(MS);
    let outcome = outcome.take().unwrap();
    assert!(matches!(outcome, (Err(UdpError::HostStopped), Err(UdpError::HostStopped))));
}

#[test]
fn the_environment_of_a_stopped_host_is_dead_even_after_a_new_start() {
    let mut sim = Sim::new(SimConfig::default());
    let old = sim.host("node", ip(1));
    sim.stop_host(ip(1));
    let new = sim.host("node", ip(1));
    let ran = Rc::new(Cell::new(false));
    let told = Rc::clone(&ran);
    let _task = old.spawn("never", async move { told.set(true) });
    let local = SocketAddr::new(ip(1), PORT);
    let bound = sim.block_on(&new, MS, async move {
        old.bind_udp(local, &UdpOptions::default()).await.map(|_| ())
    });
    assert!(matches!(bound, Some(Err(BindError::Os { .. }))));
    assert!(!ran.get());
    assert_eq!(Rc::strong_count(&ran), 1);
}

#[test]
fn a_host_that_starts_again_serves_again() {
    let conditions = Conditions { delay: MS, ..Conditions::CLEAN };
    let mut world = World::new(SimConfig { conditions, ..SimConfig::default() }, 1, 300);
    world.sim.run_for(500 * MS);
    let before = world.received(0).len();
    world.sim.stop_host(ip(1));
    world.sim.run_for(500 * MS);
    assert!(world.received(0).len() <= before + 1);
    assert!(world.sim.faults().effect(FaultKind::Unbound) > 40);
    let again = Rc::new(RefCell::new(Echo::default()));
    let env = world.sim.host("server", ip(1));
    world.tasks.push(start(&env, PORT, &again));
    world.sim.run_for(500 * MS);
    assert!(again.borrow().echoed > 40);
    assert!(world.received(0).len() > before + 40);
}

#[test]
fn streams_depend_on_the_seed_and_the_host_and_secrets_never_repeat() {
    let draw = |seed, last| {
        let mut sim = Sim::new(SimConfig { seed, ..SimConfig::default() });
        // Others before it change nothing.
        sim.host("other", ip(100));
        let env = sim.host("node", ip(last));
        let mut secret = [0; 32];
        env.secrets().fill(&mut secret);
        (env.stream("walk", 0).next_u64(), secret)
    };
    assert_eq!(draw(1, 1), draw(1, 1));
    assert_ne!(draw(1, 1), draw(2, 1));
    assert_ne!(draw(1, 1), draw(1, 2));
    let mut sim = Sim::new(SimConfig::default());
    let mut secrets = Vec::new();
    for _ in 0..3 {
        let env = sim.host("node", ip(1));
        let mut secret = [0; 32];
        env.secrets().fill(&mut secret);
        secrets.push(secret);
        sim.stop_host(ip(1));
    }
    secrets.sort_unstable();
    secrets.dedup();
    assert_eq!(secrets.len(), 3);
}

#[test]
fn a_dropped_simulation_lets_go_of_everything() {
    let world = World::new(SimConfig::default(), 3, 50);
    let World { mut sim, server, clients, tasks } = world;
    sim.run_for(100 * MS);
    drop(sim);
    assert_eq!(Rc::strong_count(&server), 1);
    assert!(clients.iter().all(|client| Rc::strong_count(client) == 1));
    drop(tasks);
}
