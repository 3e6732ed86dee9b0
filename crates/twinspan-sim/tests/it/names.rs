//! Names and wall clocks of simulated hosts.

use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_provider::{
    NetworkProvider, OffloadError, RESOLVE_TIMEOUT, ResolveError, Resolved, TaskProvider,
    TimeProvider,
};
use twinspan_sim::{NameFailure, Sim, SimConfig, SimEnv};

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
