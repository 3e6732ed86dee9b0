//! One world on several cores, in the simulator: what is promised for one holds for many.

use std::time::Duration;

use twinspan_game::scenario::{Protection, WorldReport, WorldScenario};

fn on_three_cores(seed: u64) -> WorldReport {
    let scenario = WorldScenario {
        clients: 24,
        duration: Duration::from_secs(4),
        seed,
        protection: Protection::Tag,
        cores: 3,
        ..WorldScenario::default()
    };
    let report = scenario.run().unwrap();
    assert_eq!(report.broken, Vec::<String>::new(), "seed {seed}");
    report
}

#[test]
fn every_promise_holds_on_three_cores() {
    for seed in 1..=8 {
        let report = on_three_cores(seed);
        assert_eq!(report.connected, 24);
        assert_eq!(report.reliable_sent, report.reliable_delivered);
        // Every seventh datagram came to a wrong core and was handed on.
        let links = report.links;
        assert!(links.strays > 1_000, "{links:?}");
        assert_eq!(links.strays_dropped + links.inputs_dropped + links.words_dropped, 0);
        assert_eq!(links.images_missed + links.images_refused, 0, "{links:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_on_three_cores() {
    let (first, again, other) = (on_three_cores(3), on_three_cores(3), on_three_cores(4));
    assert_eq!((first.trace_hash, first.events), (again.trace_hash, again.events));
    assert_ne!(first.trace_hash, other.trace_hash);
}
