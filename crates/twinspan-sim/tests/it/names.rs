//! Names and wall clocks of simulated hosts.

use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_provider::{
    NetworkProvider, OffloadError, RESOLVE_TIMEOUT, ResolveError, Resolved, TaskProvider,
    TimeProvider, UdpOptions, UdpSocket,
};
use twinspan_sim::{FaultPlan, NameFailure, Rates, Sim, SimConfig, SimEnv, serve_names};

use crate::echo::{MS, ip};

const MINUTE: Duration = Duration::from_secs(60);

/// Asks once; the answer and how long it took.
fn ask(
    sim: &mut Sim,
    env: &SimEnv,
    name: &'static str,
) -> (Result<Resolved, ResolveError>, Duration) {
    let inner = env.clone();
    let asked = async move {
        let began = inner.now();
        let answer = inner.resolve(name, 80).await;
        (answer, inner.now().since(began))
    };
    sim.block_on(env, MINUTE, asked).unwrap()
}

#[test]
fn a_name_in_the_table_has_its_addresses_and_their_time() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    sim.set_name("Server.example", &[ip(7), ip(8)], MINUTE);
    let (answer, took) = ask(&mut sim, &env, "server.EXAMPLE.");
    let answer = answer.unwrap();
    assert_eq!(answer.addresses, [(ip(7), 80).into(), (ip(8), 80).into()]);
    assert_eq!((answer.ttl, took), (Some(MINUTE), 5 * MS));
    let (unknown, _) = ask(&mut sim, &env, "other.example");
    assert!(matches!(unknown, Err(ResolveError::NotFound { .. })));
}

#[test]
fn each_failure_of_a_name_has_its_kind_its_time_and_its_effect() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    for (failure, kind, took) in [
        (NameFailure::Unknown, FaultKind::NameUnknown, 5 * MS),
        (NameFailure::ServerFailure, FaultKind::NameFailure, 5 * MS),
        (NameFailure::Timeout, FaultKind::NameTimeout, RESOLVE_TIMEOUT),
    ] {
        sim.set_name("a.example", &[ip(7)], MINUTE);
        assert!(ask(&mut sim, &env, "a.example").0.is_ok());
        assert_eq!(sim.faults().effect(kind), 0);
        sim.fail_name("a.example", failure);
        let (answer, waited) = ask(&mut sim, &env, "a.example");
        let is_right = match answer {
            Err(ResolveError::NotFound { .. }) => failure == NameFailure::Unknown,
            Err(ResolveError::ServerFailure { .. }) => failure == NameFailure::ServerFailure,
            Err(ResolveError::TimedOut { .. }) => failure == NameFailure::Timeout,
            _ => false,
        };
        assert!(is_right, "{failure:?}");
        assert_eq!(waited, took);
        assert_eq!((sim.faults().injected(kind), sim.faults().effect(kind)), (1, 1));
    }
}

#[test]
fn seeds_fail_names_in_all_three_ways() {
    let mut sim = Sim::new(SimConfig { name_failure: 0.5, ..SimConfig::default() });
    let env = sim.host("node", ip(1));
    sim.set_name("a.example", &[ip(7)], MINUTE);
    let good = (0..60).filter(|_| ask(&mut sim, &env, "a.example").0.is_ok()).count();
    assert!((15..45).contains(&good), "{good}");
    for kind in [FaultKind::NameUnknown, FaultKind::NameFailure, FaultKind::NameTimeout] {
        assert!(sim.faults().effect(kind) > 0, "{}", kind.name());
    }
}

#[test]
fn each_host_has_a_wall_clock_of_its_own() {
    let mut sim = Sim::new(SimConfig::default());
    let (one, other) = (sim.host("one", ip(1)), sim.host("other", ip(2)));
    let began = one.wall();
    assert_eq!(began, SimConfig::default().wall_start);
    sim.run_for(MINUTE);
    assert_eq!((one.wall().since(began), other.wall()), (MINUTE, one.wall()));
    let before = sim.trace_hash();
    assert!(sim.step_wall(ip(2), -10_000_000_000));
    assert!(!sim.step_wall(ip(3), 1));
    assert_ne!(sim.trace_hash(), before);
    assert_eq!(one.wall().since(other.wall()), Duration::from_secs(10));
    assert_eq!(one.now(), other.now());
}

#[test]
fn a_stopped_host_asks_for_nothing_and_does_nothing() {
    let mut sim = Sim::new(SimConfig::default());
    let (old, new) = (sim.host("old", ip(1)), sim.host("new", ip(2)));
    sim.stop_host(ip(1));
    let outcome = sim.block_on(&new, MINUTE, async move {
        (old.resolve("a.example", 1).await, old.offload("work", || 1).await)
    });
    let (name, work) = outcome.unwrap();
    assert!(matches!(name, Err(ResolveError::Offload { source: OffloadError::HostStopped, .. })));
    assert_eq!(work, Err(OffloadError::HostStopped));
}

/// A name server on host 53, and who asks it.
fn by_wire(config: SimConfig) -> (Sim, SimEnv) {
    let mut sim = Sim::new(config);
    sim.boot("names", ip(53), |env, _| serve_names(&env));
    sim.set_name_server(Some(ip(53)));
    sim.set_name("server.example", &[ip(7), ip(8)], MINUTE);
    let env = sim.host("node", ip(1));
    sim.run_for(MS);
    (sim, env)
}

fn near() -> SimConfig {
    let conditions = Conditions { delay: 20 * MS, ..Conditions::CLEAN };
    SimConfig { conditions, ..SimConfig::default() }
}

#[test]
fn a_name_is_asked_for_over_the_network_where_there_is_a_name_server() {
    let (mut sim, env) = by_wire(near());
    let v6 = "fd00::7".parse().unwrap();
    sim.set_name("both.example", &[v6, ip(9)], 2 * MINUTE);
    let (answer, took) = ask(&mut sim, &env, "Server.EXAMPLE.");
    let answer = answer.unwrap();
    assert_eq!(answer.addresses, [(ip(7), 80).into(), (ip(8), 80).into()]);
    assert_eq!((answer.ttl, took), (Some(MINUTE), 40 * MS), "a round trip");
    let (answer, _) = ask(&mut sim, &env, "both.example");
    assert_eq!(answer.unwrap().addresses, [(ip(9), 80).into(), (v6, 80).into()]);
    let (unknown, took) = ask(&mut sim, &env, "other.example");
    assert!(matches!(unknown, Err(ResolveError::NotFound { .. })));
    assert_eq!(took, 40 * MS);
    let (none, took) = ask(&mut sim, &env, "localhost");
    assert!(none.is_ok() && took.is_zero(), "nobody is asked");
}

#[test]
fn a_name_server_that_fails_or_is_silent_is_told_apart() {
    for (failure, time) in [
        (NameFailure::Unknown, 40 * MS),
        (NameFailure::ServerFailure, 40 * MS),
        (NameFailure::Timeout, RESOLVE_TIMEOUT),
    ] {
        let (mut sim, env) = by_wire(near());
        sim.fail_name("server.example", failure);
        let (answer, took) = ask(&mut sim, &env, "server.example");
        let told = match answer.unwrap_err() {
            ResolveError::NotFound { .. } => NameFailure::Unknown,
            ResolveError::ServerFailure { .. } => NameFailure::ServerFailure,
            ResolveError::TimedOut { .. } => NameFailure::Timeout,
            other => panic!("{other}"),
        };
        assert_eq!((told, took), (failure, time));
    }
    let (mut sim, env) = by_wire(near());
    sim.stop_host(ip(53));
    let (answer, took) = ask(&mut sim, &env, "server.example");
    assert!(matches!(answer, Err(ResolveError::TimedOut { .. })));
    assert_eq!(took, RESOLVE_TIMEOUT);
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let (mut sim, env) = by_wire(near());
    sim.partition(ip(1), ip(53));
    let inner = env.clone();
    let told = std::rc::Rc::new(std::cell::RefCell::new(None));
    let kept = std::rc::Rc::clone(&told);
    let _asks = env.spawn("asks", async move {
        let began = inner.now();
        let answer = inner.resolve("server.example", 80).await;
        *kept.borrow_mut() = Some((answer.is_ok(), inner.now().since(began)));
    });
    sim.run_for(500 * MS);
    sim.heal_all();
    sim.run_for(3 * MINUTE);
    // The second question leaves after a second.
    assert_eq!(*told.borrow(), Some((true, 1_040 * MS)));
}

#[test]
fn an_answer_that_is_too_long_for_a_datagram_comes_over_a_stream() {
    let (mut sim, env) = by_wire(near());
    let many: Vec<_> = (100..132).map(ip).collect();
    sim.set_name("many.example", &many, MINUTE);
    let (answer, took) = ask(&mut sim, &env, "many.example");
    let wanted: Vec<_> = many.iter().map(|ip| (*ip, 80).into()).collect();
    assert_eq!(answer.unwrap().addresses, wanted);
    assert_eq!(took, 120 * MS, "a datagram, a handshake and an exchange");
}

#[test]
fn an_answer_cut_short_by_a_fault_and_a_forged_one_change_no_result() {
    for (kind, took_wanted) in
        [(FaultKind::NameTruncated, 200 * MS), (FaultKind::NameForged, 40 * MS)]
    {
        let (mut sim, env) = by_wire(near());
        sim.plan_faults(FaultPlan::Drawn(Rates::new().with(kind, 1.0)));
        let (answer, took) = ask(&mut sim, &env, "server.example");
        assert_eq!(answer.unwrap().addresses, [(ip(7), 80).into(), (ip(8), 80).into()]);
        assert_eq!(took, took_wanted, "{}", kind.name());
        assert_eq!((sim.faults().injected(kind), sim.faults().effect(kind)), (2, 2));
    }
}

#[test]
fn a_stream_that_a_name_server_does_not_serve_is_a_failing_server() {
    let (mut sim, env) = by_wire(near());
    let many: Vec<_> = (100..132).map(ip).collect();
    sim.set_name("many.example", &many, MINUTE);
    let rates = Rates::new().with(FaultKind::ConnectRefuse, 1.0);
    sim.plan_faults(FaultPlan::Drawn(rates));
    let (answer, _) = ask(&mut sim, &env, "many.example");
    assert!(matches!(answer, Err(ResolveError::ServerFailure { .. })), "{answer:?}");
}

#[test]
fn a_question_that_nobody_understands_is_passed_over() {
    let (mut sim, env) = by_wire(near());
    let inner = env.clone();
    let _noise = env.spawn("noise", async move {
        let local = std::net::SocketAddr::new(ip(1), 0);
        let mut socket = inner.bind_udp(local, &UdpOptions::default()).await.unwrap();
        let mut out = DatagramBatch::new(1);
        for bytes in [&b""[..], b"what?", &[0xff; 600]] {
            let mut packet = socket.pool().take().unwrap();
            assert!(packet.fill(bytes));
            let peer = std::net::SocketAddr::new(ip(53), 53);
            out.push(Datagram { peer, at: inner.now(), packet }).unwrap();
            std::future::poll_fn(|cx| socket.poll_send(cx, &mut out)).await.unwrap();
        }
    });
    sim.run_for(MINUTE);
    assert!(ask(&mut sim, &env, "server.example").0.is_ok());
}
