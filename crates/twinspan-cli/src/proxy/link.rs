//! One direction of a way: the link model with the real clock.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use twinspan_core::link::{Arrival, Conditions, FaultCounters, Link};
use twinspan_core::time::Timestamp;

/// The clock of one proxy, as the link model counts time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::START.after(self.began.elapsed())
    }

    /// The runtime's own moment for one of the link's.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        self.began + at.since(Timestamp::START)
    }
}

/// A link that several flows share, and what it did to them.
#[derive(Clone)]
pub(super) struct SharedLink {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    link: Link,
    /// Datagrams or pieces so far, by flow.
    numbers: BTreeMap<u64, u64>,
    faults: FaultCounters,
    passed: u64,
}

impl SharedLink {
    pub(super) fn new(seed: u64, id: u64, conditions: Conditions) -> Self {
        let mut link = Link::new(seed, id);
        link.set_conditions(conditions);
        let (numbers, faults) = (BTreeMap::new(), FaultCounters::default());
        Self { inner: Rc::new(RefCell::new(Inner { link, numbers, faults, passed: 0 })) }
    }

    /// When a datagram of `flow` arrives: never, once or twice.
    pub(super) fn admit(&self, now: Timestamp, flow: u64, bytes: usize) -> Vec<Arrival> {
        let inner = &mut *self.inner.borrow_mut();
        let number = inner.next(flow);
        inner.link.admit(now, flow, number, bytes, &mut inner.faults).arrivals().collect()
    }

    /// When a piece of a stream arrives; `None` when the stream is broken off.
    pub(super) fn admit_piece(&self, now: Timestamp, flow: u64, bytes: usize) -> Option<Arrival> {
        let inner = &mut *self.inner.borrow_mut();
        let number = inner.next(flow);
        inner.link.admit_stream(now, flow, number, bytes, &mut inner.faults)
    }

    /// Told that something came through.
    pub(super) fn arrived(&self, flow: u64, arrival: &Arrival) {
        let inner = &mut *self.inner.borrow_mut();
        inner.passed += 1;
        inner.link.arrived(flow, arrival, &mut inner.faults);
    }

    /// A flow has ended; its number is forgotten.
    pub(super) fn forget(&self, flow: u64) {
        self.inner.borrow_mut().numbers.remove(&flow);
    }

    /// How much came through, and what befell it.
    pub(super) fn counts(&self) -> (u64, FaultCounters) {
        let inner = self.inner.borrow();
        (inner.passed, inner.faults)
    }
}

impl Inner {
    /// Flows are bounded by the clients of a way.
    fn next(&mut self, flow: u64) -> u64 {
        let number = self.numbers.entry(flow).or_default();
        *number += 1;
        *number - 1
    }
}

/// What waits for its time, the earliest first.
pub(super) struct Waiting<T> {
    heap: BinaryHeap<Reverse<Item<T>>>,
    pushed: u64,
    limit: usize,
}

struct Item<T> {
    at: Timestamp,
    /// Of two of one moment, the one that came first goes first.
    order: u64,
    value: T,
}

impl<T> Waiting<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0, limit }
    }

    /// Adds something; false when too much waits.
    pub(super) fn push(&mut self, at: Timestamp, value: T) -> bool {
        if self.heap.len() >= self.limit {
            return false;
        }
        self.pushed += 1;
        self.heap.push(Reverse(Item { at, order: self.pushed, value }));
        true
    }

    /// When the first of it is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(item)| item.at)
    }

    /// Takes the first of it that is due.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<T> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse(item)| item.value)
    }
}

impl<T> Ord for Item<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Item<T> {}

/// Waits until a moment of the link's time; for ever without one.
pub(super) async fn until(clock: Clock, at: Option<Timestamp>) {
    match at {
        // The runtime's timers are a millisecond coarse: a wait ends at most so much late.
        Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
        None => std::future::pending().await,
    }
}

/// How long nothing may come before a flow of datagrams is over.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_leaves_by_time_and_then_by_turn_and_is_bounded() {
        let at = Timestamp::from_nanos;
        let mut waiting = Waiting::new(3);
        assert!(waiting.push(at(5), 'b') && waiting.push(at(2), 'a') && waiting.push(at(5), 'c'));
        assert!(!waiting.push(at(1), 'd'), "there is no room");
        assert_eq!(waiting.next(), Some(at(2)));
        assert_eq!((waiting.pop(at(1)), waiting.pop(at(4))), (None, Some('a')));
        assert_eq!(
            [waiting.pop(at(5)), waiting.pop(at(5)), waiting.pop(at(5))],
            [Some('b'), Some('c'), None]
        );
    }
}
