//! Planned faults: each has an effect on its victim, their list gives the run again, sweeps find what
//! breaks and shrinking leaves what matters.

use twinspan_core::link::FaultKind;
use twinspan_sim::scenario::{Case, Echo, Partition, Planted, Scenario};
use twinspan_sim::shrink::shrink;
use twinspan_sim::sweep::sweep;
use twinspan_sim::victims::prove;

#[test]
fn each_fault_alone_changes_its_victim_and_has_an_effect_and_none_when_it_is_absent() {
    let failing: Vec<_> =
        FaultKind::ALL.into_iter().map(prove).filter(|proof| !proof.holds()).collect();
    assert!(failing.is_empty(), "{failing:#?}");
}

#[test]
fn the_catalogue_has_more_than_sixty_faults_of_seven_families() {
    assert!(FaultKind::ALL.len() > 60);
    let mut families: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.family()).collect();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), 7);
}

#[test]
fn a_run_given_its_own_faults_is_the_same_run() {
    for scenario in [&Echo as &dyn Scenario, &Partition] {
        for seed in 0..60 {
            let drawn = scenario.play(&Case::drawn(scenario, seed));
            let lines: Vec<_> = drawn.struck.iter().map(ToString::to_string).collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let listed = scenario.play(&Case::listed(&drawn.options, &lines).unwrap());
            let parted = drawn.struck.iter().zip(&listed.struck).position(|(a, b)| a != b);
            let at = parted.unwrap_or(drawn.struck.len().min(listed.struck.len()));
            assert_eq!(
                listed.struck.get(at),
                drawn.struck.get(at),
                "seed {seed} at {at}: {}",
                drawn.options
            );
            assert_eq!(listed.trace_hash, drawn.trace_hash, "seed {seed}");
            assert_eq!(listed.faults, drawn.faults, "seed {seed}");
        }
    }
}

#[test]
fn promises_are_kept_with_every_seed() {
    for scenario in [&Echo as &dyn Scenario, &Partition] {
        let report = sweep(scenario, 0..150, |_, _| true);
        assert_eq!(report.failed, 0, "{:#?}", report.failures);
    }
}

#[test]
fn a_defect_that_needs_two_of_a_thousand_faults_is_shrunk_to_them() {
    let case = |seed| {
        let rates = "loss=0.03 duplicate=0.3 reorder=0.3 spoof=0.3";
        let options = format!("seed={seed} {rates} messages=1200");
        Case { options: options.parse().unwrap(), faults: None }
    };
    let case = (1..100).map(case).find(|case| !Planted.play(case).is_kept()).unwrap();
    let shrunk = shrink(&Planted, &case).unwrap();
    assert!(shrunk.before >= 1_000, "{} faults", shrunk.before);
    assert!(shrunk.is_least);
    assert_eq!(shrunk.kinds(), [FaultKind::Loss; 2], "{:?}", shrunk.faults);
    // The test that it prints fails, and without either fault it does not.
    let lines: Vec<_> = shrunk.faults.iter().map(ToString::to_string).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let with = |lines: &[&str]| Planted.play(&Case::listed(&shrunk.options, lines).unwrap());
    assert_eq!(with(&lines).broken, shrunk.broken);
    assert!(with(&lines[..1]).is_kept());
    assert!(with(&lines[1..]).is_kept());
    let test = shrunk.regression_test("twinspan_sim::scenario::Planted");
    assert!(test.starts_with("#[test]\nfn planted_seed_"), "{test}");
    assert!(lines.iter().all(|line| test.contains(line)));
}
