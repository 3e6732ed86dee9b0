//! Scenarios: a system under test, what it promises, and one run of it under planned faults.
//!
//! A [`Hosted`] system starts its hosts and says when all has settled and which promises were broken;
//! that makes it a [`Scenario`]: faults strike for a while, then all is healed, and within a stated
//! time everything must have settled. [`sweep`](crate::sweep) runs many seeds, [`shrink`](crate::shrink::shrink)
//! finds the few faults that matter.

mod board;
mod echo;
mod partition;
mod planted;
mod vault;

use std::cell::RefCell;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::{FaultCounters, FaultKind};
use twinspan_core::time::Timestamp;

use crate::chaos::{MarkCount, is_planned};
use crate::config::SimConfig;
use crate::plan::{Fault, FaultPlan};
use crate::sim::Sim;
use crate::swarm::{Options, OptionsError};
use crate::trace::TraceEvent;

pub use board::{BOARD_KINDS, Board};
pub use echo::Echo;
pub(crate) use echo::{sleep, within};
pub use partition::Partition;
pub use planted::Planted;
pub use vault::Vault;

/// How often a run looks whether all has settled.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Broken promises of a run that are told.
const BROKEN_TOLD_MAX: usize = 20;

/// What can be run under planned faults, as often as there are seeds.
///
/// A scenario holds no state of a run, so that runs may be on threads of their own, such as those
/// behind the fence of `twinspan-fence`.
pub trait Scenario: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// The kinds of faults that it keeps its promises under.
    fn kinds(&self) -> Vec<FaultKind>;

    /// Names of `sometimes!` that must hold, and of `reachable!` that must be met, in a sweep.
    fn marks(&self) -> &'static [&'static str];

    /// One run.
    fn play(&self, case: &Case) -> Verdict {
        self.play_watched(case, &mut Unwatched)
    }

    /// One run that `watch` is shown. It calls [`Watch::begin`] before anything has happened,
    /// [`Watch::look`] now and then if that is wanted, and [`Watch::end`] when all is over.
    fn play_watched(&self, case: &Case, watch: &mut dyn Watch) -> Verdict;
}

/// Is shown a run from outside, such as to write it down. What it does is no part of the run.
pub trait Watch {
    /// Given the simulation before anything has happened in it: for [`Sim::watch_trace`],
    /// [`Sim::set_tape`] and [`Sim::set_queue`].
    fn begin(&mut self, sim: &mut Sim) {
        let _ = sim;
    }

    /// Whether [`Watch::look`] is to be called.
    fn looks(&self) -> bool {
        false
    }

    /// Shown what the system on each host is like, in words.
    fn look(&mut self, hosts: &mut dyn Iterator<Item = (IpAddr, String)>) {
        let _ = hosts;
    }

    /// Given the simulation as it ended.
    fn end(&mut self, sim: &Sim) {
        let _ = sim;
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}

/// A system of simulated hosts.
pub trait Hosted: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// The kinds of faults that it keeps its promises under.
    fn kinds(&self) -> Vec<FaultKind>;

    /// Names of `sometimes!` that must hold, and of `reachable!` that must be met, in a sweep.
    fn marks(&self) -> &'static [&'static str] {
        &[]
    }

    /// What the simulation is like; as the options say, unless the system needs it otherwise.
    fn config(&self, options: &Options) -> SimConfig {
        options.config()
    }

    /// Virtual time under faults.
    fn fault_time(&self) -> Duration {
        Duration::from_secs(3)
    }

    /// Virtual time after the healing in which everything must settle.
    fn settle_time(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Starts hosts and tasks. The plan of faults is in force already.
    fn start(&self, sim: &mut Sim, options: &Options) -> Box<dyn Running>;
}

impl<H: Hosted> Scenario for H {
    fn name(&self) -> &'static str {
        Hosted::name(self)
    }

    fn kinds(&self) -> Vec<FaultKind> {
        Hosted::kinds(self)
    }

    fn marks(&self) -> &'static [&'static str] {
        Hosted::marks(self)
    }

    fn play_watched(&self, case: &Case, watch: &mut dyn Watch) -> Verdict {
        let mut sim = Sim::new(self.config(&case.options));
        watch.begin(&mut sim);
        sim.plan_faults(case.plan());
        let running = self.start(&mut sim, &case.options);
        let heal_at = sim.now().after(self.fault_time());
        while watch.looks() && sim.now() < heal_at {
            watch.look(&mut running.states().into_iter());
            sim.run_until(sim.now().after(LOOK_INTERVAL).min(heal_at));
        }
        sim.run_until(heal_at);
        sim.heal_faults();
        let healed_at = sim.now();
        let deadline = healed_at.after(self.settle_time());
        while !running.is_settled() && sim.now() < deadline {
            if watch.looks() {
                watch.look(&mut running.states().into_iter());
            }
            sim.run_for(LOOK_INTERVAL);
        }
        let mut broken = running.broken();
        if !running.is_settled() {
            let time = self.settle_time();
            broken.push(format!("{} {time:?} after the healing", running.unsettled()));
        }
        let settled_after = sim.now().since(healed_at);
        watch.end(&sim);
        // Goes before the simulation, whose tasks it may share things with.
        drop(running);
        Verdict::of(&sim, case, settled_after, broken)
    }
}

/// A scenario in progress.
pub trait Running {
    /// Whether everything that was asked for has come about.
    fn is_settled(&self) -> bool;

    /// What has not, for people: "2 of 40 requests are not answered".
    fn unsettled(&self) -> String;

    /// Promises that were broken so far.
    fn broken(&self) -> Vec<String>;

    /// What the system on each host is like, in words, for [`Watch::look`].
    fn states(&self) -> Vec<(IpAddr, String)> {
        Vec::new()
    }
}

/// What one run is asked to be.
#[derive(Clone, Debug)]
pub struct Case {
    /// Sizes, times and rates.
    pub options: Options,
    /// These faults and no others, in place of those that the rates would draw.
    pub faults: Option<Vec<Fault>>,
}

impl Case {
    /// The run of a seed in a sweep over `scenario`.
    pub fn drawn(scenario: &dyn Scenario, seed: u64) -> Self {
        Self { options: Options::drawn(seed, &scenario.kinds()), faults: None }
    }

    /// A run that was printed: its options, and its faults one by one.
    ///
    /// # Errors
    /// [`CaseError`] says which text is wrong and why.
    pub fn listed(options: &str, faults: &[&str]) -> Result<Self, CaseError> {
        let options = options.parse().map_err(CaseError::Options)?;
        let read = |line: &&str| {
            let wrong = |error| CaseError::Fault { line: (*line).to_owned(), error };
            line.parse().map_err(wrong)
        };
        let faults = faults.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { options, faults: Some(faults) })
    }

    /// What strikes in it.
    pub fn plan(&self) -> FaultPlan {
        match &self.faults {
            Some(faults) => FaultPlan::Listed(faults.clone()),
            None => FaultPlan::Drawn(self.options.rates.clone()),
        }
    }
}

/// Why a printed run cannot be read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CaseError {
    /// The options.
    Options(OptionsError),
    /// A fault.
    Fault {
        /// The text.
        line: String,
        /// What is wrong with it.
        error: crate::plan::FaultError,
    },
}

impl std::fmt::Display for CaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Options(error) => error.fmt(f),
            Self::Fault { line, error } => write!(f, "\"{line}\": {error}"),
        }
    }
}

impl std::error::Error for CaseError {}

/// What a run was like.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// All options, those that were drawn included: the run again, as text.
    pub options: String,
    /// Hash over every event.
    pub trace_hash: u64,
    /// How many there were.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// Of it, from the healing until all had settled.
    pub settled_after: Duration,
    /// How often each fault was injected and had an effect.
    pub faults: FaultCounters,
    /// The planned faults that struck, in order.
    pub struck: Vec<Fault>,
    /// Those beyond what can be written down; a run with any cannot be given its list again.
    pub unrecorded: u64,
    /// Marks that were met.
    pub marks: Vec<MarkCount>,
    /// Promises that were broken; empty when all is well.
    pub broken: Vec<String>,
}

impl Verdict {
    /// Puts a run's outcome together: what the simulation knows, and the promises that the scenario
    /// found broken. Panics and broken `always!` are added to those.
    pub fn of(sim: &Sim, case: &Case, settled_after: Duration, broken: Vec<String>) -> Self {
        let mut broken = broken;
        broken.extend(sim.panics().iter().map(ToString::to_string));
        broken.extend(sim.broken_marks().iter().map(ToString::to_string));
        if broken.len() > BROKEN_TOLD_MAX {
            let untold = broken.len() - BROKEN_TOLD_MAX;
            broken.truncate(BROKEN_TOLD_MAX);
            broken.push(format!("and {untold} more"));
        }
        Self {
            options: case.options.to_string(),
            trace_hash: sim.trace_hash(),
            events: sim.events(),
            virtual_time: sim.now().since(Timestamp::START),
            settled_after,
            faults: sim.faults(),
            struck: sim.struck(),
            unrecorded: sim.faults_unrecorded(),
            marks: sim.marks(),
            broken,
        }
    }

    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty()
    }
}

/// Events that [`events_between`] tells at most: the first ones.
pub const EVENTS_TOLD_MAX: usize = 65_536;

/// What happened in a run from one moment to another, before the end, an event to a line and in words:
/// a mark that did not hold and a panic say when that was, and this says what led to it.
pub fn events_between(
    scenario: &dyn Scenario,
    case: &Case,
    times: Range<Timestamp>,
) -> Vec<String> {
    let mut telling = Telling { times, events: Rc::default(), lines: Vec::new() };
    scenario.play_watched(case, &mut telling);
    telling.lines
}

/// Keeps events, and tells them in words when all that they may name is known.
struct Telling {
    times: Range<Timestamp>,
    events: Rc<RefCell<Vec<Kept>>>,
    lines: Vec<String>,
}

/// An event: what it is, and its further values.
type Kept = (TraceEvent<'static>, Vec<u64>);

impl Watch for Telling {
    fn begin(&mut self, sim: &mut Sim) {
        let (times, events) = (self.times.clone(), Rc::clone(&self.events));
        sim.watch_trace(0..u64::MAX, move |event| {
            let events = &mut *events.borrow_mut();
            if times.contains(&event.at) && events.len() < EVENTS_TOLD_MAX {
                events.push((TraceEvent { values: &[], ..*event }, event.values.to_vec()));
            }
        });
    }

    fn end(&mut self, sim: &Sim) {
        let legend = sim.trace_legend();
        let events = self.events.take();
        let whole = events.iter().map(|(event, values)| TraceEvent { values, ..*event });
        self.lines = whole.map(|event| legend.describe(&event)).collect();
    }
}

/// The scenarios of this crate.
pub fn all() -> [&'static dyn Scenario; 4] {
    [&Echo, &Partition, &Vault, &Planted]
}

/// Kinds that befall disks, boxes that translate addresses, proxies and segments of streams: those of
/// the scenario [`Vault`], which has them all.
pub const VAULT_KINDS: &[FaultKind] = &[
    FaultKind::SegmentLoss,
    FaultKind::SegmentDuplicate,
    FaultKind::SegmentReorder,
    FaultKind::SegmentDamage,
    FaultKind::EcnMark,
    FaultKind::NatTimeout,
    FaultKind::NatRebind,
    FaultKind::ProxyRefuse,
    FaultKind::ProxyDrop,
    FaultKind::TornWrite,
    FaultKind::SyncFailure,
    FaultKind::CorruptRead,
    FaultKind::DiskFull,
    FaultKind::DiskStall,
];

/// Every kind that a plan can ask for, but for `without`.
pub fn planned_kinds(without: &[FaultKind]) -> Vec<FaultKind> {
    let kinds = FaultKind::ALL.into_iter();
    kinds.filter(|kind| is_planned(*kind) && !without.contains(kind)).collect()
}
