//! A live server under mutated datagrams.

use std::time::Duration;

use twinspan_game::scenario::Protection;
use twinspan_game::scenario::hostile::{HostileReport, HostileScenario, KIND_NAMES};

fn run(scenario: &HostileScenario) -> HostileReport {
    let mut seen = 0;
    let report = scenario.run(&mut |done| seen = done).unwrap();
    assert_eq!(seen, scenario.datagrams);
    assert_eq!(report.broken, Vec::<String>::new());
    assert_eq!(report.datagrams.iter().sum::<u64>(), scenario.datagrams);
    report
}

#[test]
fn a_server_under_hostile_datagrams_neither_panics_nor_grows_nor_fails_its_players() {
    let report = run(&HostileScenario {
        datagrams: 400_000,
        per_second: 40_000,
        ..HostileScenario::default()
    });
    for (kind, count) in KIND_NAMES.iter().zip(report.datagrams) {
        assert!(count > 0, "nothing was {kind}");
    }
    // What was tried reached what it was meant for.
    let dropped =
        |cause| report.drops.iter().find(|(name, _)| *name == cause).map_or(0, |(_, count)| *count);
    for cause in
        ["short", "malformed", "unknown_connection", "replayed", "not_authentic", "bad_mac1"]
    {
        assert!(dropped(cause) > 100, "{cause}: {:?}", report.drops);
    }
    assert!(report.malformed > 1_000, "{report:?}");
    assert!(report.violations > 20 && report.traitor_sessions > 20, "{report:?}");
    assert!(report.visitors >= 1 && report.states_checked > 10_000, "{report:?}");
    assert!(report.virtual_time > Duration::from_secs(40));
}

#[test]
fn the_same_holds_under_the_real_ciphers_and_is_a_function_of_the_seed() {
    let scenario = HostileScenario {
        datagrams: 40_000,
        per_second: 20_000,
        protection: Protection::Real,
        ..HostileScenario::default()
    };
    let report = run(&scenario);
    assert_eq!(report, run(&scenario));
    assert_ne!(report, run(&HostileScenario { seed: 2, ..scenario }));
}
