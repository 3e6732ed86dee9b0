//! Many seeds of one scenario: which promises broke, which faults had effects, which marks were met.

use std::collections::BTreeMap;

use twinspan_core::chaos::SiteKind;
use twinspan_core::link::{FaultFamily, FaultKind};

use crate::scenario::{Case, Scenario, Verdict};

/// Failing runs that a sweep keeps to be told; further ones are counted.
pub const FAILURES_MAX: usize = 16;
/// From so many seeds on, a sweep in which a fault, a pair of families or a mark never showed has
/// failed. Fewer seeds may miss one by chance.
pub const COVERAGE_SEEDS_MIN: u64 = 1_000;

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The run again, as text.
    pub options: String,
    /// How many planned faults struck.
    pub faults: usize,
    /// What broke.
    pub broken: Vec<String>,
}

/// How one kind of fault showed in a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindReport {
    /// Runs in which it was injected.
    pub runs_injected: u64,
    /// Runs in which it had an effect.
    pub runs_effect: u64,
    /// How often it was injected in all of them.
    pub injected: u64,
    /// How often it had an effect.
    pub effect: u64,
}

/// What a sweep found.
#[derive(Clone, Debug, Default)]
pub struct SweepReport {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Runs.
    pub seeds: u64,
    /// Runs that broke a promise.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// Events in all runs.
    pub events: u64,
    /// Each kind that the scenario stands, or that showed.
    pub kinds: BTreeMap<FaultKind, KindReport>,
    /// Runs in which two families both had effects, for each two that the scenario stands or that
    /// showed.
    pub pairs: BTreeMap<(FaultFamily, FaultFamily), u64>,
    /// Marks by name: how often each was met, and how often it held.
    pub marks: BTreeMap<&'static str, (u64, u64)>,
    /// The longest time from the healing until all had settled.
    pub settled_after_max: std::time::Duration,
    /// What should have shown and never did: faults, pairs of families, marks. It is a failure of
    /// the sweep from [`COVERAGE_SEEDS_MIN`] seeds on.
    pub never: Vec<String>,
}

impl SweepReport {
    /// Whether every promise was kept and, in a sweep that is long enough, everything showed.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && (self.never.is_empty() || self.seeds < COVERAGE_SEEDS_MIN)
    }

    fn add(&mut self, seed: u64, verdict: Verdict) {
        self.seeds += 1;
        self.events += verdict.events;
        self.settled_after_max = self.settled_after_max.max(verdict.settled_after);
        let mut families = [false; FaultFamily::ALL.len()];
        for (kind, injected, effect) in verdict.faults.iter() {
            if injected == 0 && effect == 0 {
                continue;
            }
            let report = self.kinds.entry(kind).or_default();
            report.runs_injected += u64::from(injected > 0);
            report.runs_effect += u64::from(effect > 0);
            report.injected += injected;
            report.effect += effect;
            if let Some(family) = families.get_mut(kind.family().index()) {
                *family |= effect > 0;
            }
        }
        let shown: Vec<_> =
            FaultFamily::ALL.into_iter().zip(families).filter(|(_, shown)| *shown).collect();
        for (at, (one, _)) in shown.iter().enumerate() {
            for (other, _) in shown.iter().skip(at + 1) {
                *self.pairs.entry((*one, *other)).or_default() += 1;
            }
        }
        for mark in &verdict.marks {
            if mark.site.kind != SiteKind::Buggify {
                let (met, held) = self.marks.entry(mark.site.name).or_default();
                *met += mark.met;
                *held += mark.held;
            }
        }
        if !verdict.is_kept() {
            self.failed += 1;
            if self.failures.len() < FAILURES_MAX {
                let Verdict { options, struck, broken, .. } = verdict;
                self.failures.push(Failure { seed, options, faults: struck.len(), broken });
            }
        }
    }

    /// What should have shown and did not.
    fn judge(&mut self, scenario: &dyn Scenario) {
        let kinds = scenario.kinds();
        for kind in &kinds {
            if self.kinds.get(kind).is_none_or(|report| report.effect == 0) {
                self.never.push(format!("fault {} had no effect", kind.name()));
            }
        }
        for (one, other) in family_pairs(&kinds) {
            if self.pairs.get(&(one, other)).is_none_or(|runs| *runs == 0) {
                let (one, other) = (one.name(), other.name());
                self.never.push(format!("families {one} and {other} had no effect together"));
            }
        }
        for name in scenario.marks() {
            if self.marks.get(name).is_none_or(|(_, held)| *held == 0) {
                self.never.push(format!("mark \"{name}\" was not met"));
            }
        }
    }
}

/// Each two families that kinds are of, in the order of [`FaultFamily::ALL`].
pub fn family_pairs(kinds: &[FaultKind]) -> Vec<(FaultFamily, FaultFamily)> {
    let has = |family: &FaultFamily| kinds.iter().any(|kind| kind.family() == *family);
    let families: Vec<_> = FaultFamily::ALL.into_iter().filter(has).collect();
    let after = |at: usize| families.iter().skip(at + 1).copied();
    let pairs = families.iter().enumerate();
    pairs.flat_map(|(at, one)| after(at).map(|other| (*one, other))).collect()
}

/// Runs a scenario with each of `seeds` until `goes_on` says no; it is asked after each run, with the
/// seed and what there is so far.
pub fn sweep(
    scenario: &dyn Scenario,
    seeds: impl IntoIterator<Item = u64>,
    mut goes_on: impl FnMut(u64, &SweepReport) -> bool,
) -> SweepReport {
    let mut report = SweepReport { scenario: scenario.name(), ..SweepReport::default() };
    let kinds = scenario.kinds();
    report.pairs.extend(family_pairs(&kinds).into_iter().map(|pair| (pair, 0)));
    report.kinds.extend(kinds.into_iter().map(|kind| (kind, KindReport::default())));
    for seed in seeds {
        report.add(seed, scenario.play(&Case::drawn(scenario, seed)));
        if !goes_on(seed, &report) {
            break;
        }
    }
    report.judge(scenario);
    report
}

/// Between which shares the true share lies with 95 % confidence when `hits` of `runs` showed it
/// (Wilson's score interval, which is right for few runs and rare hits, too).
pub fn wilson(hits: u64, runs: u64) -> (f64, f64) {
    /// Standard deviations on either side that hold 95 %.
    const Z: f64 = 1.959_963_984_540_054;
    if runs == 0 {
        return (0.0, 1.0);
    }
    let (hits, runs) = (hits.min(runs) as f64, runs as f64);
    let share = hits / runs;
    let middle = share + Z * Z / (2.0 * runs);
    let spread = Z * (share * (1.0 - share) / runs + Z * Z / (4.0 * runs * runs)).sqrt();
    let scale = 1.0 + Z * Z / runs;
    (((middle - spread) / scale).max(0.0), ((middle + spread) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use twinspan_core::chaos::Site;
    use twinspan_core::link::FaultCounters;

    use super::*;
    use crate::chaos::MarkCount;
    use crate::scenario::Watch;

    static MARK: Site = Site { kind: SiteKind::Sometimes, name: "rare", file: "here", line: 1 };

    /// Runs whose outcome is told: odd seeds have losses, even ones sends that took a part; a crash
    /// is injected in all of them and changes nothing.
    struct Told {
        /// From which seed on a run has effects of both families.
        both_from: u64,
        /// The same for the effect of the crash.
        crash_from: u64,
        /// The same for the mark.
        mark_from: u64,
    }

    const ALL_SHOW: Told = Told { both_from: 7, crash_from: 7, mark_from: 7 };

    impl Scenario for Told {
        fn name(&self) -> &'static str {
            "told"
        }

        fn kinds(&self) -> Vec<FaultKind> {
            vec![FaultKind::Loss, FaultKind::ShortSend, FaultKind::Crash]
        }

        fn marks(&self) -> &'static [&'static str] {
            &["rare"]
        }

        fn play_watched(&self, case: &Case, _: &mut dyn Watch) -> Verdict {
            let seed = case.options.seed;
            let mut faults = FaultCounters::default();
            let mut strike = |kind, has_effect| {
                faults.inject(kind);
                if has_effect {
                    faults.observe(kind);
                }
            };
            strike(FaultKind::Crash, seed >= self.crash_from);
            let both = seed >= self.both_from;
            strike(FaultKind::Loss, both || seed & 1 == 1);
            strike(FaultKind::ShortSend, both || seed & 1 == 0);
            Verdict {
                options: case.options.to_string(),
                trace_hash: seed,
                events: 10,
                virtual_time: Duration::ZERO,
                settled_after: Duration::from_millis(seed),
                faults,
                struck: Vec::new(),
                unrecorded: 0,
                marks: vec![MarkCount {
                    site: &MARK,
                    met: 1,
                    held: (seed >= self.mark_from).into(),
                }],
                broken: if seed == 13 { vec!["bad luck".into()] } else { Vec::new() },
            }
        }
    }

    #[test]
    fn every_fault_and_pair_that_a_scenario_stands_is_reported_and_missed() {
        const NEVER: u64 = u64::MAX;
        let (crash, pair, mark) = (
            "fault crash had no effect",
            "families datagram and local_io had no effect together",
            "mark \"rare\" was not met",
        );
        let beside = ["datagram", "local_io"];
        for (told, missing) in [
            (Told { both_from: NEVER, ..ALL_SHOW }, pair),
            (Told { mark_from: NEVER, ..ALL_SHOW }, mark),
            (Told { crash_from: NEVER, ..ALL_SHOW }, crash),
        ] {
            let few = sweep(&told, 14..20, |_, _| true);
            // By chance a short one misses things.
            assert_eq!((few.is_good(), few.never.is_empty()), (true, false));
            let report = sweep(&told, 14..14 + COVERAGE_SEEDS_MIN, |_, _| true);
            let names: Vec<_> =
                report.pairs.keys().map(|(one, other)| [one.name(), other.name()]).collect();
            assert_eq!(names, [["datagram", "host"], beside, ["host", "local_io"]]);
            assert_eq!(report.kinds.len(), 3);
            assert_eq!(report.kinds[&FaultKind::Crash].injected, COVERAGE_SEEDS_MIN);
            let told: Vec<_> = report.never.iter().map(String::as_str).collect();
            assert!(told.contains(&missing), "{told:?}");
            assert!(!report.is_good(), "{told:?}");
        }
        let report = sweep(&ALL_SHOW, 14..14 + COVERAGE_SEEDS_MIN, |_, _| true);
        assert!(report.is_good() && report.never.is_empty(), "{:?}", report.never);
    }

    #[test]
    fn failures_are_counted_and_a_sweep_ends_when_it_is_told() {
        let report = sweep(&ALL_SHOW, 0..COVERAGE_SEEDS_MIN, |_, report| report.failed == 0);
        assert_eq!((report.seeds, report.failed, report.is_good()), (14, 1, false));
        let failure = &report.failures[0];
        assert_eq!((failure.seed, failure.broken.as_slice()), (13, &["bad luck".to_owned()][..]));
        assert_eq!(report.settled_after_max, Duration::from_millis(13));
    }

    #[test]
    fn intervals_are_as_in_the_tables() {
        // Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
        let near = |(low, high): (f64, f64), (a, b): (f64, f64)| {
            assert!((low - a).abs() < 5e-5 && (high - b).abs() < 5e-5, "{low} {high}");
        };
        near(wilson(81, 263), (0.2553, 0.3662));
        near(wilson(15, 148), (0.0624, 0.1605));
        near(wilson(0, 20), (0.0, 0.1611));
        near(wilson(1, 29), (0.0061, 0.1718));
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert_eq!(wilson(5, 5).1, 1.0);
    }
}
