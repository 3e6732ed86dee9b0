//! One model of an imperfect path, for the simulator, the demo's panel and proxies alike.
//!
//! ```
//! use twinspan_core::link::{Conditions, Fate, FaultCounters, Link};
//! use twinspan_core::time::Timestamp;
//!
//! let mut link = Link::new(7, 1);
//! link.set_conditions(Conditions::WIFI);
//! let mut counters = FaultCounters::default();
//! match link.admit(Timestamp::START, 0, 0, 100, &mut counters) {
//!     Fate::Arrives { first, copy } => assert!(copy.is_none_or(|copy| copy.at > first.at)),
//!     Fate::Lost(cause) => println!("lost: {}", cause.name()),
//! }
//! ```

mod conditions;
mod faults;

use core::time::Duration;
use std::collections::BTreeMap;

pub use conditions::{Conditions, ConditionsError, DELAY_MAX, QUEUE_BYTES_MIN};
pub use faults::{FaultCounters, FaultFamily, FaultKind};

use crate::random::{draw, unit};
use crate::time::Timestamp;

/// How far beyond the jitter a reordered datagram may lag: two intervals of a 20 Hz flow, so that
/// what was sent later does overtake it.
pub const REORDER_LAG_MAX: Duration = Duration::from_millis(100);
/// How far beyond the jitter the second copy of a datagram may lag behind the first.
pub const DUPLICATE_LAG_MAX: Duration = Duration::from_millis(20);
/// Flows of one link whose order is kept at the same time; those beyond it may be reordered by
/// jitter. A flow with nothing on the way does not count.
pub const FLOWS_MAX: usize = 65_536;
/// How long a link with [`FLOWS_MAX`] busy flows waits before it looks again for one that is not.
const FLOWS_SWEEP_INTERVAL: Duration = Duration::from_millis(10);

/// The least by which a lost piece of a stream is late: the time in which its sender learns of it.
pub const STREAM_RESEND_MIN: Duration = Duration::from_millis(10);
/// How late a piece of a stream is that is lost again and again: this long, doubled each time.
const STREAM_RESEND_TIMEOUT: Duration = Duration::from_millis(200);
/// Losses of one piece of a stream in a row, after which the link gives it up.
pub const STREAM_ATTEMPTS_MAX: u64 = 8;

/// One direction of a path between two ends.
///
/// What happens to a datagram is a function of (key, link, flow, number) and of what the link is
/// like at that moment: no draw depends on how many others were made. Only the rate is shared by
/// the flows.
///
/// Jitter alone never reorders a flow: a datagram that would overtake its predecessor arrives with
/// it, as on a real path with one queue. Reordering is a fault of its own.
#[derive(Clone, Debug)]
pub struct Link {
    /// Made from the run's key and the link's id.
    key: u64,
    conditions: Conditions,
    /// When the bottleneck has sent all that it took.
    idle_at: Timestamp,
    flows: Flows,
    /// When flows with nothing on the way may next be looked for.
    sweep_at: Timestamp,
}

/// What a link remembers of one flow.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Nothing that keeps its place arrives before this.
    ordered_at: Timestamp,
    /// When the last of everything on the way arrives.
    busy_until: Timestamp,
    /// One more than the highest number that arrived.
    arrived: u64,
}

/// The flows of one link, by their keys. Nearly always there is one, which lies with the link.
#[derive(Clone, Debug, Default)]
struct Flows {
    first: Option<(u64, Flow)>,
    more: BTreeMap<u64, Flow>,
}

impl Flows {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    fn get_mut(&mut self, key: u64) -> Option<&mut Flow> {
        match &mut self.first {
            Some((known, flow)) if *known == key => Some(flow),
            _ => self.more.get_mut(&key),
        }
    }

    fn contains(&self, key: u64) -> bool {
        self.first.is_some_and(|(known, _)| known == key) || self.more.contains_key(&key)
    }

    fn get_or_add(&mut self, key: u64) -> &mut Flow {
        let Self { first, more } = self;
        if first.is_none_or(|(known, _)| known != key)
            && (first.is_some() || more.contains_key(&key))
        {
            return more.entry(key).or_default();
        }
        &mut first.get_or_insert_with(|| (key, Flow::default())).1
    }

    fn remove(&mut self, key: u64) {
        self.first = self.first.filter(|(known, _)| *known != key);
        self.more.remove(&key);
    }

    fn retain(&mut self, mut keep: impl FnMut(&Flow) -> bool) {
        self.first = self.first.filter(|(_, flow)| keep(flow));
        self.more.retain(|_, flow| keep(flow));
    }
}

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, perhaps twice. Of two datagrams that arrive at one moment, the one that was
    /// admitted first goes first.
    Arrives {
        /// The datagram.
        first: Arrival,
        /// Its second copy; not before the first.
        copy: Option<Arrival>,
    },
    /// It does not arrive.
    Lost(FaultKind),
}

impl Fate {
    /// When it arrives: no, one or two times.
    pub fn arrivals(self) -> impl Iterator<Item = Arrival> {
        let (first, copy) = match self {
            Self::Arrives { first, copy } => (Some(first), copy),
            Self::Lost(_) => (None, None),
        };
        first.into_iter().chain(copy)
    }
}

/// One arrival of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Timestamp,
    /// The datagram's number within its flow.
    pub number: u64,
    marks: Marks,
}

impl Arrival {
    /// Whether it is the second copy of a datagram.
    pub fn is_copy(&self) -> bool {
        self.marks.copy
    }

    /// An arrival of datagram `number` that no fault of a [`Link`] lies behind.
    pub const fn plain(at: Timestamp, number: u64) -> Self {
        let marks = Marks { delay: false, rate: false, reorder: false, copy: false };
        Self { at, number, marks }
    }
}

/// Which faults lie behind an arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    delay: bool,
    rate: bool,
    reorder: bool,
    copy: bool,
}

impl Link {
    /// Link number `id` of a run with `key`, as yet [`Conditions::CLEAN`].
    pub fn new(key: u64, id: u64) -> Self {
        Self {
            key: draw(key, &[id]),
            conditions: Conditions::CLEAN,
            idle_at: Timestamp::START,
            flows: Flows::default(),
            sweep_at: Timestamp::START,
        }
    }

    /// What the link is like.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Changes what the link is like from now on, held to the range of each field as
    /// [`Conditions::clamped`] does; what is on the way is not touched.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions.clamped();
    }

    /// Decides the fate of datagram `number` of `flow`, which has `bytes` bytes and is sent now.
    ///
    /// Counts what was injected, and the effect of what does not arrive. The effects on what does
    /// arrive are counted by [`Link::arrived`].
    pub fn admit(
        &mut self,
        now: Timestamp,
        flow: u64,
        number: u64,
        bytes: usize,
        counters: &mut FaultCounters,
    ) -> Fate {
        let draws = Draws { key: draw(self.key, &[flow, number]) };
        let conditions = self.conditions;
        let lost = draws.chance(FaultKind::Loss, conditions.loss);
        if lost {
            counters.inject(FaultKind::Loss);
        }
        let Some(sent_at) = self.pass_bottleneck(now, bytes) else {
            counters.inject(FaultKind::QueueDrop);
            counters.observe(FaultKind::QueueDrop);
            return Fate::Lost(FaultKind::QueueDrop);
        };
        // A lost datagram has used the bottleneck: it is lost behind it.
        if lost {
            counters.observe(FaultKind::Loss);
            return Fate::Lost(FaultKind::Loss);
        }
        let mut marks = Marks { rate: sent_at > now, ..Marks::default() };
        if marks.rate {
            counters.inject(FaultKind::Rate);
        }
        let jitter = draws.up_to(FaultKind::Delay, conditions.jitter);
        if !jitter.is_zero() {
            marks.delay = true;
            counters.inject(FaultKind::Delay);
        }
        let mut untracked = Flow::default();
        let flow = self.flow(flow, now).unwrap_or(&mut untracked);
        let mut at = sent_at.after(conditions.delay).after(jitter).max(flow.ordered_at);
        if draws.chance(FaultKind::Reorder, conditions.reorder) {
            marks.reorder = true;
            counters.inject(FaultKind::Reorder);
            // Those behind it do not wait for it.
            at = at.after(draws.lag(FaultKind::Reorder, conditions.jitter + REORDER_LAG_MAX));
        } else {
            flow.ordered_at = at;
        }
        let first = Arrival { at, number, marks };
        flow.busy_until = flow.busy_until.max(at);
        let copy = draws.chance(FaultKind::Duplicate, conditions.duplicate).then(|| {
            counters.inject(FaultKind::Duplicate);
            let lag = draws.lag(FaultKind::Duplicate, conditions.jitter + DUPLICATE_LAG_MAX);
            let at = at.after(lag);
            flow.busy_until = flow.busy_until.max(at);
            Arrival { at, number, marks: Marks { copy: true, ..Marks::default() } }
        });
        Fate::Arrives { first, copy }
    }

    /// Decides when piece `number` of the stream `flow`, of `bytes` bytes and sent now, arrives;
    /// `None` when it is lost [`STREAM_ATTEMPTS_MAX`] times in a row.
    ///
    /// A stream's ends resend what is lost and put it in order, so to it loss is lateness: the time
    /// of a round trip first, of a timeout that doubles when lost again. It waits for a limited rate
    /// and is not dropped there, because its sender holds back; nothing comes twice or out of order.
    pub fn admit_stream(
        &mut self,
        now: Timestamp,
        flow: u64,
        number: u64,
        bytes: usize,
        counters: &mut FaultCounters,
    ) -> Option<Arrival> {
        let draws = Draws { key: draw(self.key, &[flow, number]) };
        let conditions = self.conditions;
        let mut late = Duration::ZERO;
        for attempt in 0..=STREAM_ATTEMPTS_MAX {
            let again = Draws { key: draw(draws.key, &[attempt]) };
            if !again.chance(FaultKind::Loss, conditions.loss) {
                break;
            }
            counters.inject(FaultKind::Loss);
            counters.observe(FaultKind::Loss);
            late += match attempt {
                0 => (conditions.delay * 2).max(STREAM_RESEND_MIN),
                STREAM_ATTEMPTS_MAX => return None,
                // Doubled a few times at most.
                _ => STREAM_RESEND_TIMEOUT * (1 << attempt),
            };
        }
        let mut marks = Marks::default();
        let rate = u128::from(conditions.rate_bytes_per_s);
        let mut sent_at = now;
        if rate > 0 {
            let nanos = (bytes as u128 * 1_000_000_000).div_ceil(rate);
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            self.idle_at = self.idle_at.max(now).after(Duration::from_nanos(nanos));
            sent_at = self.idle_at;
            marks.rate = true;
            counters.inject(FaultKind::Rate);
        }
        let jitter = draws.up_to(FaultKind::Delay, conditions.jitter);
        if !jitter.is_zero() {
            marks.delay = true;
            counters.inject(FaultKind::Delay);
        }
        let mut untracked = Flow::default();
        let flow = self.flow(flow, now).unwrap_or(&mut untracked);
        let at = sent_at.after(conditions.delay).after(jitter).after(late).max(flow.ordered_at);
        flow.ordered_at = at;
        flow.busy_until = flow.busy_until.max(at);
        Some(Arrival { at, number, marks })
    }

    /// Told that an arrival took place, in the order in which they do: counts the effects that were
    /// seen. A reordered datagram counts when one with a higher number arrived before it.
    pub fn arrived(&mut self, flow: u64, arrival: &Arrival, counters: &mut FaultCounters) {
        let Marks { delay, rate, reorder, copy } = arrival.marks;
        if delay {
            counters.observe(FaultKind::Delay);
        }
        if rate {
            counters.observe(FaultKind::Rate);
        }
        if copy {
            counters.observe(FaultKind::Duplicate);
        }
        let Some(flow) = self.flows.get_mut(flow) else { return };
        if reorder && flow.arrived > arrival.number {
            counters.observe(FaultKind::Reorder);
        }
        flow.arrived = flow.arrived.max(arrival.number.saturating_add(1));
    }

    /// Forgets a flow of which nothing is on its way.
    pub fn forget(&mut self, flow: u64) {
        self.flows.remove(flow);
    }

    /// When the bottleneck has sent this datagram; `None` when its queue has no room.
    fn pass_bottleneck(&mut self, now: Timestamp, bytes: usize) -> Option<Timestamp> {
        const NANOS: u128 = 1_000_000_000;
        let rate = u128::from(self.conditions.rate_bytes_per_s);
        if rate == 0 {
            return Some(now);
        }
        let bytes = bytes as u128;
        let waiting = self.idle_at.since(now).as_nanos() * rate / NANOS;
        if waiting + bytes > u128::from(self.conditions.queue_bytes_max) {
            return None;
        }
        let nanos = (bytes * NANOS).div_ceil(rate);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.idle_at = self.idle_at.max(now).after(Duration::from_nanos(nanos));
        Some(self.idle_at)
    }

    /// What is known of a flow; `None` when too many are busy.
    fn flow(&mut self, flow: u64, now: Timestamp) -> Option<&mut Flow> {
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains(flow) {
            if now < self.sweep_at {
                return None;
            }
            self.sweep_at = now.after(FLOWS_SWEEP_INTERVAL);
            // A flow with nothing on the way has no order to keep.
            self.flows.retain(|flow| flow.busy_until > now);
            if self.flows.len() >= FLOWS_MAX {
                return None;
            }
        }
        Some(self.flows.get_or_add(flow))
    }
}

/// The draws of one datagram, each by its own coordinate.
struct Draws {
    key: u64,
}

/// Apart from the kinds' own draws: how far a chosen datagram lags.
const LAG: u64 = 1 << 32;

impl Draws {
    fn chance(&self, kind: FaultKind, probability: f64) -> bool {
        probability > 0.0 && unit(draw(self.key, &[kind.index() as u64])) < probability
    }

    /// Evenly from nothing to `limit`.
    fn up_to(&self, kind: FaultKind, limit: Duration) -> Duration {
        self.duration(kind.index() as u64, limit)
    }

    /// Evenly from 1 ns to `limit`.
    fn lag(&self, kind: FaultKind, limit: Duration) -> Duration {
        self.duration(LAG + kind.index() as u64, limit).max(Duration::from_nanos(1))
    }

    fn duration(&self, coordinate: u64, limit: Duration) -> Duration {
        if limit.is_zero() {
            return Duration::ZERO;
        }
        let choices = limit.as_nanos() + 1;
        let chosen = (u128::from(draw(self.key, &[coordinate])) * choices) >> 64;
        Duration::from_nanos(u64::try_from(chosen).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
