//! The grid in the simulator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this file is tests, its helpers too"
)]

mod seeds;
mod served;
mod visitor;

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_grid::scenario::{CircuitReport, CircuitScenario};

fn run(seed: u64) -> CircuitReport {
    let scenario =
        CircuitScenario { clients: 4, duration: Duration::from_secs(30), seed, conditions: None };
    scenario.run().unwrap()
}

#[test]
fn every_promise_of_circuits_holds_over_12_seeds() {
    let (mut journeys, mut failures, mut acked, mut failed, mut resends) = (0, 0, 0, 0, 0);
    for seed in 1..=12 {
        let report = run(seed);
        assert_eq!(report.broken, [""; 0], "seed {seed}");
        assert_eq!(report.connected, 4, "seed {seed}");
        journeys += report.teleports + report.crossings;
        failures += report.travel_failures;
        acked += report.reliable_acked;
        failed += report.reliable_failed;
        resends += report.viewers.resends_out + report.regions.resends_out;
    }
    // The promises were put to the test: people travelled, failed to, and messages were lost.
    assert!(journeys > 50, "{journeys} journeys");
    assert!(failures > 10, "{failures} failures");
    assert!(acked > 5_000, "{acked} messages acknowledged");
    assert!(failed > 0, "no message failed");
    assert!(resends > 500, "{resends} resends");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let [one, again, other] = [3, 3, 4].map(|seed| run(seed).trace_hash);
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[test]
fn without_faults_nothing_fails_and_nothing_leaves_again() {
    let conditions = Some(Conditions { delay: Duration::from_millis(20), ..Conditions::CLEAN });
    let scenario =
        CircuitScenario { clients: 4, duration: Duration::from_secs(1), seed: 1, conditions };
    let report = scenario.run().unwrap();
    assert_eq!(report.broken, [""; 0]);
    assert_eq!((report.reliable_failed, report.logins), (0, 4));
    assert_eq!(report.viewers.resends_out + report.regions.resends_out, 0);
}

#[test]
fn the_first_object_is_seen_within_3_seconds_at_20_percent_loss() {
    let mut took = Vec::new();
    for seed in 1..=10 {
        let conditions = Conditions {
            loss: 0.2,
            delay: Duration::from_millis(40),
            jitter: Duration::from_millis(20),
            ..Conditions::CLEAN
        };
        let scenario = CircuitScenario {
            clients: 10,
            duration: Duration::from_secs(4),
            seed,
            conditions: Some(conditions),
        };
        took.extend(scenario.run().unwrap().first_object);
    }
    took.sort_unstable();
    assert!(took.len() >= 100);
    let p95 = took[took.len() * 95 / 100];
    println!("first object seen: p50 {:?}, p95 {p95:?}", took[took.len() / 2]);
    assert!(p95 < Duration::from_secs(3), "{p95:?}");
}
