//! The engine of planned faults: which strike, and what is remembered of them.

mod hosts;
mod local;
mod marks;
mod pieces;
mod segments;
mod slots;
mod troubles;
mod weather;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::random::{draw, unit};
use twinspan_core::time::Timestamp;

use crate::plan::{Coordinates, FAULTS_RECORDED_MAX, Fault, FaultPlan, Place};
use crate::slab::Key;
use crate::trace::TraceKind;
use crate::world::{HostId, State};

pub use hosts::{HostPanic, Start};
pub use marks::{Mark, MarkCount};

pub(crate) use hosts::Boots;
pub(crate) use local::{SendStrikes, Supply};
pub(crate) use marks::Marks;
pub(crate) use segments::{DiskCall, DiskStrikes, SegmentStrikes};
pub(crate) use slots::Garbage;
pub(crate) use troubles::Ending;
pub use troubles::TROUBLES_MAX;
pub(crate) use troubles::Troubles;
pub(crate) use weather::{Kinds, Leaving, OnArrival, Weather};

/// What befalls links and hosts begins at multiples of this.
pub const SLOT: Duration = Duration::from_millis(100);

/// Connections that are struck as a whole and remembered at the same time.
const STRUCK_MAX: usize = 256;

/// How often a planned kind may strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// With each datagram, piece, call, look-up or evaluation.
    Each,
    /// In each slot, everywhere.
    World,
    /// In each slot, at each host.
    Host,
    /// In each slot, at each host that can start again.
    Boot,
    /// In each slot, at each direction of a link.
    Link,
    /// In each slot, at each pair of hosts with links.
    Pair,
    /// In each slot, at each box of the topology that translates addresses or lets in what was asked
    /// for.
    Box,
}

/// How often a kind may strike; `None` for what no plan can ask for.
pub(crate) const fn scope(kind: FaultKind) -> Option<Scope> {
    use FaultKind as K;
    Some(match kind {
        K::PartitionSplit | K::ClogSwizzle => Scope::World,
        K::PartitionOneWay | K::Bandwidth | K::Bufferbloat | K::Flap | K::Oversize => Scope::Link,
        K::PartitionPair => Scope::Pair,
        K::ClogSend | K::ClogReceive | K::Rebind | K::Pause | K::SlowCpu => Scope::Host,
        K::ClockForward | K::ClockBack | K::ClockDrift | K::OutOfFds => Scope::Host,
        K::OutOfBuffers | K::SlowConsumer | K::SpuriousWake | K::TaskOrder => Scope::Host,
        K::Crash | K::GracefulStop | K::RestartEmpty | K::RestartOld => Scope::Boot,
        K::Loss | K::Duplicate | K::Reorder | K::ReceiveDrop | K::LossBurst => Scope::Each,
        K::DuplicateLate | K::DelaySpike | K::BitFlip | K::ByteRun | K::Truncate => Scope::Each,
        K::Unreachable | K::Spoof | K::Replay => Scope::Each,
        K::ShortSend | K::SendStall | K::NoBuffers | K::RunRefused => Scope::Each,
        K::ConnectRefuse | K::BacklogFull | K::StreamReset | K::ShortRead => Scope::Each,
        K::ShortWrite | K::ConnectHang | K::AcceptExhausted | K::EarlyEnd => Scope::Each,
        K::HalfOpen | K::HalfClose | K::ZeroWindow => Scope::Each,
        K::NameUnknown | K::NameFailure | K::NameTimeout | K::NameStale => Scope::Each,
        K::Buggify | K::Knob | K::Rekey => Scope::Each,
        K::SegmentLoss | K::SegmentDuplicate | K::SegmentReorder => Scope::Each,
        K::SegmentDamage | K::EcnMark => Scope::Each,
        K::ProxyRefuse | K::ProxyDrop => Scope::Each,
        K::TornWrite | K::SyncFailure | K::CorruptRead => Scope::Each,
        K::DiskFull | K::DiskStall => Scope::Each,
        K::NameTruncated | K::NameForged => Scope::Each,
        K::TopicTorn | K::TopicHolder | K::TopicStall | K::TopicMemory => Scope::Each,
        K::NatTimeout | K::NatRebind => Scope::Box,
        // Jitter, rates, queues and absence follow from other things; the rest is done by hand.
        _ => return None,
    })
}

/// Whether a [`FaultPlan`] can ask for faults of this kind. The others follow from conditions,
/// limits and what is done by hand.
pub const fn is_planned(kind: FaultKind) -> bool {
    scope(kind).is_some()
}

/// The draws of one fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    bits: u64,
}

impl Strike {
    /// 64 bits for the purpose `what`.
    pub(crate) fn draw(self, what: u64) -> u64 {
        draw(self.bits, &[what])
    }

    /// Below `bound`; 0 when that is 0.
    pub(crate) fn below(self, what: u64, bound: u64) -> u64 {
        ((u128::from(self.draw(what)) * u128::from(bound)) >> 64) as u64
    }

    /// From `least` to `most`, each doubling as likely as another.
    pub(crate) fn duration(self, what: u64, least: Duration, most: Duration) -> Duration {
        let mut doublings = 0_u32;
        while doublings < 31 && least * (2 << doublings) <= most {
            doublings += 1;
        }
        let whole = least * (1 << self.below(what, u64::from(doublings) + 1));
        let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        let rest = Duration::from_nanos(self.below(what ^ (1 << 32), nanos));
        (whole + rest).min(most)
    }
}

/// Where a run's faults come from.
enum Source {
    Off,
    Drawn(Box<[f64; FaultKind::ALL.len()]>),
    Listed {
        /// Sorted, for looking up.
        each: Vec<Coordinates>,
        /// Kinds of which there is any.
        kinds: Kinds,
        /// Those of slots, by slot, kind and place.
        slots: Vec<Fault>,
        /// The first of them that is to come.
        next: usize,
    },
}

/// The engine's state.
pub(crate) struct Chaos {
    /// Whether there is or was a plan: without one, nothing here is looked at.
    pub(crate) is_on: bool,
    key: u64,
    source: Source,
    log: Vec<Fault>,
    log_max: usize,
    pub(crate) unrecorded: u64,
    /// The next slot.
    slot: u64,
    pub(crate) troubles: Troubles,
    /// What is remembered of each flow, by its index.
    flows: Vec<weather::FlowMemory>,
    /// What a box on the way makes of a host's ports.
    rebinds: BTreeMap<IpAddr, u64>,
    /// Sockets by their outer addresses.
    inner: BTreeMap<SocketAddr, SocketAddr>,
    pub(crate) boots: Boots,
    pub(crate) marks: Marks,
    /// Tasks that wait until their host runs on.
    held: Vec<(HostId, Key)>,
    /// Connections that are struck as a whole and still try, by what their draws are keyed by.
    struck: Vec<(FaultKind, u64)>,
    /// The host whose task is polled.
    pub(crate) polled: Option<HostId>,
}

impl Chaos {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            is_on: false,
            key: draw(seed, &[u64::from(u32::MAX)]),
            source: Source::Off,
            log: Vec::new(),
            log_max: FAULTS_RECORDED_MAX,
            unrecorded: 0,
            slot: 0,
            troubles: Troubles::default(),
            flows: Vec::new(),
            rebinds: BTreeMap::new(),
            inner: BTreeMap::new(),
            boots: Boots::default(),
            marks: Marks::default(),
            held: Vec::new(),
            struck: Vec::new(),
            polled: None,
        }
    }

    /// Follows `plan` from now on.
    pub(crate) fn follow(&mut self, now: Timestamp, plan: FaultPlan) {
        self.is_on = true;
        self.slot = slot_after(now);
        self.source = match plan {
            FaultPlan::None => Source::Off,
            FaultPlan::Drawn(rates) => {
                let mut table = Box::new([0.0; FaultKind::ALL.len()]);
                for (kind, rate) in rates.iter() {
                    if let Some(slot) = table.get_mut(kind.index()) {
                        *slot = rate;
                    }
                }
                Source::Drawn(table)
            }
            FaultPlan::Listed(faults) => {
                let mut kinds = Kinds::default();
                faults.iter().for_each(|fault| kinds.add(fault.kind));
                let is_each = |fault: &&Fault| scope(fault.kind) == Some(Scope::Each);
                let mut each: Vec<_> =
                    faults.iter().filter(is_each).map(Fault::coordinates).collect();
                each.sort_unstable();
                let mut slots = faults;
                slots.retain(|fault| scope(fault.kind).is_some_and(|scope| scope != Scope::Each));
                slots.sort_unstable_by(|a, b| {
                    (a.number, a.kind, &a.place).cmp(&(b.number, b.kind, &b.place))
                });
                slots.dedup();
                let next = slots.partition_point(|fault| fault.number < self.slot);
                Source::Listed { each, kinds, slots, next }
            }
        };
    }

    /// No fault strikes from now on.
    fn rest(&mut self) {
        self.source = Source::Off;
    }

    /// Writes down no more than so many.
    pub(crate) fn keep_at_most(&mut self, faults: usize) {
        self.log_max = faults.min(FAULTS_RECORDED_MAX);
    }

    /// The faults that struck, and were not too many to write down.
    pub(crate) fn written_down(&self) -> &[Fault] {
        &self.log
    }

    /// Whether faults of a kind may strike at all.
    pub(crate) fn can(&self, kind: FaultKind) -> bool {
        match &self.source {
            Source::Off => false,
            Source::Drawn(rates) => rates.get(kind.index()).is_some_and(|rate| *rate > 0.0),
            Source::Listed { kinds, .. } => kinds.has(kind),
        }
    }

    /// Whether a fault strikes there and then. It depends on nothing else.
    fn decide(&self, (kind, place, number): Coordinates) -> Option<Strike> {
        let bits = || draw(self.key, &[kind.index() as u64, place, number]);
        let strikes = match &self.source {
            Source::Off => false,
            Source::Drawn(rates) => {
                let rate = rates.get(kind.index()).copied().unwrap_or_default();
                rate > 0.0 && unit(bits()) < rate
            }
            Source::Listed { each, kinds, .. } => {
                kinds.has(kind) && each.binary_search(&(kind, place, number)).is_ok()
            }
        };
        strikes.then(|| self.strike_of((kind, place, number)))
    }

    /// The draws of a fault that strikes.
    fn strike_of(&self, (kind, place, number): Coordinates) -> Strike {
        let bits = draw(self.key, &[kind.index() as u64, place, number]);
        Strike { bits: draw(bits, &[1]) }
    }

    /// Whether a connection was struck when it was first tried.
    pub(crate) fn is_struck(&self, kind: FaultKind, connection: u64) -> bool {
        !matches!(self.source, Source::Off) && self.struck.contains(&(kind, connection))
    }

    /// Remembers a struck connection; of very many, the last ones.
    pub(crate) fn remember_struck(&mut self, kind: FaultKind, connection: u64) {
        if self.struck.len() >= STRUCK_MAX {
            self.struck.remove(0);
        }
        self.struck.push((kind, connection));
    }

    fn write_down(&mut self, fault: Fault) {
        if self.log.len() < self.log_max {
            self.log.push(fault);
        } else {
            self.unrecorded += 1;
        }
    }
}

/// The first slot that begins after `now`.
fn slot_after(now: Timestamp) -> u64 {
    let slot_ns = SLOT.as_nanos() as u64;
    now.as_nanos() / slot_ns + 1
}

/// When a slot begins.
fn slot_start(slot: u64) -> Timestamp {
    Timestamp::from_nanos(slot.saturating_mul(SLOT.as_nanos() as u64))
}

impl State {
    /// Whether a fault strikes; if so it is counted as injected and written down. The trace has what
    /// comes of it, so that a fault that changes nothing does not change the trace.
    pub(crate) fn strike(
        &mut self,
        coordinates: Coordinates,
        place: impl FnOnce() -> Place,
    ) -> Option<Strike> {
        let strike = self.chaos.decide(coordinates)?;
        self.note_strike(coordinates, place());
        Some(strike)
    }

    fn note_strike(&mut self, (kind, _, number): Coordinates, place: Place) {
        self.chaos.write_down(Fault { kind, number, place });
        self.faults.inject(kind);
    }

    /// Ends all planned faults; what they did to links and clocks is undone. The hosts that are
    /// down start again when the next events are handled.
    pub(crate) fn heal_faults(&mut self, now: Timestamp) {
        if self.chaos.is_on {
            self.chaos.rest();
            self.chaos.heal_flows();
            self.chaos.rebinds.clear();
            self.chaos.troubles.end_all(now);
            self.trace.record(now, TraceKind::FaultsHealed, [0; 4]);
        }
    }
}
