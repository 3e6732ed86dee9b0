//! The grid in the simulator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this file is tests, its helpers too"
)]

mod files;
mod seeds;
mod served;
mod visitor;

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_grid::scenario::{CircuitReport, CircuitScenario, FirstNumbers};

fn run(seed: u64) -> CircuitReport {
    let duration = Duration::from_secs(30);
    CircuitScenario { clients: 4, duration, seed, ..CircuitScenario::default() }.run().unwrap()
}

#[test]
fn every_promise_of_circuits_holds_over_12_seeds() {
    let (mut journeys, mut failures, mut acked, mut failed, mut resends) = (0, 0, 0, 0, 0);
    let (mut lost, mut wraps, mut direct, mut crossings) = (0, 0, 0, 0);
    for seed in 1..=12 {
        let report = run(seed);
        assert_eq!(report.broken, [""; 0], "seed {seed}");
        assert_eq!(report.connected, 4, "seed {seed}");
        journeys += report.teleports + report.crossings;
        crossings += report.crossings;
        failures += report.travel_failures;
        acked += report.reliable_acked;
        failed += report.reliable_failed;
        resends += report.viewers.resends_out + report.regions.resends_out;
        lost += report.associations_lost;
        wraps += report.wraps;
        direct += u32::from(report.proxied == 0);
    }
    // The promises were put to the test: people travelled, failed to, and messages were lost.
    assert!(journeys > 50, "{journeys} journeys");
    assert!(crossings > 0, "nobody crossed a border");
    assert!(failures > 10, "{failures} failures");
    assert!(acked > 5_000, "{acked} messages acknowledged");
    assert!(failed > 0, "no message failed");
    assert!(resends > 500, "{resends} resends");
    assert!(lost > 0, "no association with the proxy was lost");
    assert!(wraps > 50, "packet numbers began anew in {wraps} circuits");
    assert!((1..12).contains(&direct), "{direct} seeds without a proxy");
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
    for proxied in [0, 2] {
        let scenario = CircuitScenario {
            clients: 4,
            duration: Duration::from_secs(1),
            seed: 1,
            conditions,
            proxied: Some(proxied),
            ..CircuitScenario::default()
        };
        let report = scenario.run().unwrap();
        assert_eq!(report.broken, [""; 0]);
        assert_eq!((report.reliable_failed, report.logins), (0, 4));
        assert_eq!(report.viewers.resends_out + report.regions.resends_out, 0);
        assert_eq!((report.associations, report.associations_lost), (u64::from(proxied), 0));
    }
}

#[test]
fn promises_hold_for_players_whose_proxy_loses_refuses_dies_and_comes_back() {
    let (mut made, mut lost, mut logins, mut acked) = (0, 0, 0, 0);
    for seed in 101..=106 {
        let scenario = CircuitScenario {
            clients: 4,
            duration: Duration::from_secs(60),
            seed,
            proxied: Some(3),
            ..CircuitScenario::default()
        };
        let report = scenario.run().unwrap();
        assert_eq!(report.broken, [""; 0], "seed {seed}");
        assert_eq!((report.connected, report.proxied), (4, 3), "seed {seed}");
        made += report.associations;
        lost += report.associations_lost;
        logins += report.logins - 4;
        acked += report.reliable_acked;
    }
    assert!(lost > 10 && made > lost, "{made} associations made, {lost} lost");
    // Regions know agents by their addresses: who had another one logged in again.
    assert!(logins > 5 && acked > 1_000, "{logins} more logins, {acked} messages acknowledged");
}

#[test]
fn numbers_begin_anew_at_both_ends_without_a_word_lost_or_heard_twice() {
    let numbers = FirstNumbers::before_wrap(40, 30);
    assert_eq!((numbers.players, numbers.regions), ((1 << 24) - 40, (1 << 24) - 30));
    let scenario = CircuitScenario {
        clients: 4,
        duration: Duration::from_secs(12),
        seed: 7,
        conditions: Some(Conditions {
            loss: 0.2,
            duplicate: 0.1,
            reorder: 0.2,
            ..Conditions::WIFI
        }),
        proxied: Some(0),
        numbers: Some(numbers),
    };
    let report = scenario.run().unwrap();
    assert_eq!(report.broken, [""; 0]);
    // Each player's circuit to its region, and each region's to each of its players.
    assert!(report.wraps >= 8, "{} circuits", report.wraps);
    let usual = FirstNumbers::before_wrap(0, 0);
    let report = CircuitScenario { numbers: Some(usual), ..scenario }.run().unwrap();
    assert_eq!((report.broken, report.wraps), (Vec::new(), 0));
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
            proxied: Some(0),
            ..CircuitScenario::default()
        };
        took.extend(scenario.run().unwrap().first_object);
    }
    took.sort_unstable();
    assert!(took.len() >= 100);
    let p95 = took[took.len() * 95 / 100];
    println!("first object seen: p50 {:?}, p95 {p95:?}", took[took.len() / 2]);
    assert!(p95 < Duration::from_secs(3), "{p95:?}");
}
