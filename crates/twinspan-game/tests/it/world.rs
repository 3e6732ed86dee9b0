//! The world scenario, seed after seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use twinspan_game::scenario::{WorldReport, WorldScenario};
use twinspan_reliable::Knobs;

use crate::rig::Rig;

/// Seeds of the sweep.
const SEEDS: u64 = 200;

fn replay(seed: u64) -> String {
    format!("twinspan sim run --scenario world --clients 20 --seconds 10 --seed {seed}")
}

/// Behind the fence: neither the world nor the simulator calls out.
fn run(scenario: &WorldScenario) -> WorldReport {
    let report = twinspan_fence::guard(|| scenario.run());
    report.expect("it calls nobody").expect("the scenario's settings are legal")
}

#[test]
fn every_promise_holds_over_200_seeds() {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            let report = run(&WorldScenario { seed, ..WorldScenario::default() });
            assert!(report.broken.is_empty(), "{}: {:#?}", replay(seed), report.broken);
            assert_eq!(report.connected, 20, "{}", replay(seed));
            assert!(report.reliable_per_client_min >= 100, "{}: {report:?}", replay(seed));
            assert_eq!(report.reliable_sent, report.reliable_delivered, "{}", replay(seed));
            assert!(report.states_checked > 20_000, "{}: {report:?}", replay(seed));
            for wanted in ["loss", "delay", "duplicate", "reorder"] {
                let seen = report.faults.iter().find(|(name, ..)| *name == wanted);
                let effect = seen.map_or(0, |(_, _, effect)| *effect);
                assert!(effect > 0, "{}: {wanted} had no effect", replay(seed));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
}

/// A short run, for tests that need many.
fn short(knobs: Knobs) -> WorldReport {
    run(&WorldScenario { duration: Duration::from_secs(4), knobs, ..WorldScenario::default() })
}

#[test]
fn the_short_run_is_green_with_every_mechanism_on() {
    assert_eq!(short(Knobs::default()).broken, Vec::<String>::new());
}

#[test]
fn without_resend_it_turns_red() {
    let broken = short(Knobs { resend: false, ..Knobs::default() }).broken;
    assert!(broken.iter().any(|line| line.contains("reliable messages")), "{broken:#?}");
}

#[test]
fn without_duplicate_suppression_it_turns_red() {
    let broken = short(Knobs { suppress_duplicates: false, ..Knobs::default() }).broken;
    assert!(broken.iter().any(|line| line.contains("reliable messages")), "{broken:#?}");
}

#[test]
fn without_ack_validation_it_turns_red() {
    let broken = short(Knobs { validate_acks: false, ..Knobs::default() }).broken;
    assert!(broken.iter().any(|line| line.contains("never sent")), "{broken:#?}");
}

#[test]
fn a_spoilt_replica_is_repaired_within_a_second_and_a_half() {
    let mut rig = Rig::new(|_| {});
    rig.run_for(Duration::from_secs(3));
    rig.bots.iter().for_each(|bot| bot.borrow_mut().rest());
    rig.run_for(Duration::from_secs(2));
    let victim = rig.bots[0].clone();
    assert!(victim.borrow_mut().client_mut().spoil_replica());
    rig.run_unchecked_for(Duration::from_millis(1_500));
    let stats = *victim.borrow().client().stats();
    assert_eq!((stats.replica_mismatches, stats.keyframes_wanted), (1, 1));
    assert_eq!(rig.server.borrow().player_stats().keyframes_wanted, 1);
    rig.assert_honest_unharmed();
}
