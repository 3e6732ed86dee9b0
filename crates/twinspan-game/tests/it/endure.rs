//! A long run under faults that never cease: memory is flat once everything has been as full as it gets.

use std::time::Duration;

use twinspan_game::scenario::{Protection, WorldScenario};

use crate::counting::held_bytes;

#[test]
fn memory_is_flat_under_endless_faults() {
    let scenario = WorldScenario {
        clients: 3,
        duration: Duration::from_mins(32),
        protection: Protection::Tag,
        ..WorldScenario::default()
    };
    let mut held = Vec::with_capacity(64);
    let report = scenario.run_long(|_| held.push(held_bytes())).unwrap();
    assert_eq!(report.broken, Vec::<String>::new());
    assert_eq!(held.len(), 32);
    let mean = |part: &[i64]| part.iter().sum::<i64>() / part.len() as i64;
    let (early, late) = (mean(&held[14..20]), mean(&held[26..32]));
    println!("{early} bytes up to the twentieth minute, {late} from the twenty-fifth on");
    // Twelve minutes of faults written down would be three percent. What still fills up are the links to
    // those from whom forged datagrams seem to come, 256 of them at most.
    assert!(late <= early + early / 50, "{held:?}");
}
