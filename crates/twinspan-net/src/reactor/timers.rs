//! The deadlines of one reactor: a heap whose entries know their place, so that moving one deadline
//! allocates nothing.

use std::task::Waker;

use twinspan_core::time::Timestamp;

/// Branches of the heap: four keep the children of a node in one or two cache lines.
const ARITY: usize = 4;
/// The place of a deadline that is not in the heap.
const NOWHERE: usize = usize::MAX;

/// A deadline's entry in the heap.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When, and for equal moments in which order they were set.
    order: (Timestamp, u64),
    slot: usize,
}

/// One timer's state.
#[derive(Debug)]
struct Slot {
    /// Where its entry is in the heap, or [`NOWHERE`].
    place: usize,
    waker: Option<Waker>,
}

/// The deadlines of all timers of a reactor.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    sequence: u64,
}

impl Timers {
    /// A new timer without a deadline.
    pub(super) fn insert(&mut self) -> usize {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        self.slots.push(Slot { place: NOWHERE, waker: None });
        // Room for each timer in both lists now, so that neither grows later.
        self.heap.reserve(self.slots.len() - self.heap.len());
        self.free.reserve(self.slots.len() - self.free.len());
        self.slots.len() - 1
    }

    /// Takes a timer away for good; `slot` may be given out again. Returns its waker, to be dropped
    /// by the caller where that can do no harm.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Waker> {
        self.clear(slot);
        self.free.push(slot);
        self.slots.get_mut(slot).and_then(|slot| slot.waker.take())
    }

    /// Takes the deadline of a timer away.
    pub(super) fn clear(&mut self, slot: usize) {
        let Some(place) = self.place(slot) else { return };
        self.take_entry(place);
    }

    /// Sets when to wake whom.
    pub(super) fn set(&mut self, slot: usize, at: Timestamp, waker: &Waker) {
        self.sequence += 1;
        let order = (at, self.sequence);
        let known = self.place(slot);
        let Some(state) = self.slots.get_mut(slot) else { return };
        match &mut state.waker {
            Some(kept) => kept.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        match known {
            // The same deadline again keeps its turn.
            Some(place) if self.order(place).is_some_and(|(known_at, _)| known_at == at) => {}
            Some(place) => {
                if let Some(entry) = self.heap.get_mut(place) {
                    entry.order = order;
                }
                self.settle(place);
            }
            None => {
                self.heap.push(Entry { order, slot });
                self.settle(self.heap.len() - 1);
            }
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.order(0).map(|(at, _)| at)
    }

    /// Takes the earliest deadline that has come at `now` and returns who waits for it.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<Waker> {
        while self.next().is_some_and(|at| at <= now) {
            let slot = self.take_entry(0)?;
            if let Some(waker) = self.slots.get_mut(slot).and_then(|slot| slot.waker.take()) {
                return Some(waker);
            }
        }
        None
    }

    fn place(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).map(|slot| slot.place).filter(|place| *place != NOWHERE)
    }

    fn order(&self, place: usize) -> Option<(Timestamp, u64)> {
        self.heap.get(place).map(|entry| entry.order)
    }

    /// Takes the entry at `place` out of the heap and returns its timer.
    fn take_entry(&mut self, place: usize) -> Option<usize> {
        if place >= self.heap.len() {
            return None;
        }
        let entry = self.heap.swap_remove(place);
        if let Some(slot) = self.slots.get_mut(entry.slot) {
            slot.place = NOWHERE;
        }
        if place < self.heap.len() {
            self.settle(place);
        }
        Some(entry.slot)
    }

    /// Moves the entry at `place`, which may be out of order, to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.order(place) < self.order((place - 1) / ARITY) {
            self.swap(place, (place - 1) / ARITY);
            place = (place - 1) / ARITY;
        }
        loop {
            let first = place * ARITY + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            let least = children.min_by_key(|child| self.order(*child));
            let Some(child) = least.filter(|child| self.order(*child) < self.order(place)) else {
                break;
            };
            self.swap(place, child);
            place = child;
        }
        self.note_place(place);
    }

    fn swap(&mut self, left: usize, right: usize) {
        self.heap.swap(left, right);
        self.note_place(left);
        self.note_place(right);
    }

    fn note_place(&mut self, place: usize) {
        let Some(slot) = self.heap.get(place).map(|entry| entry.slot) else { return };
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.place = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use twinspan_core::random::Stream;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A long random run against an ordered map with one waker per timer.
    #[test]
    fn the_heap_agrees_with_an_ordered_map() {
        const TIMERS: usize = 64;
        let mut random = Stream::new(11, "timers", 0);
        let mut timers = Timers::default();
        let counts: Vec<Arc<Count>> = (0..TIMERS).map(|_| Arc::new(Count::default())).collect();
        let slots: Vec<usize> = (0..TIMERS).map(|_| timers.insert()).collect();
        let mut model: BTreeMap<(Timestamp, u64), usize> = BTreeMap::new();
        let mut sequence = 0;
        let mut now = Timestamp::START;
        for _ in 0..20_000 {
            let index = random.below(TIMERS as u64) as usize;
            match random.below(4) {
                0 => {
                    timers.clear(slots[index]);
                    model.retain(|_, owner| *owner != index);
                }
                1 | 2 => {
                    let at = Timestamp::from_nanos(now.as_nanos() + random.below(200));
                    timers.set(slots[index], at, &Waker::from(Arc::clone(&counts[index])));
                    let same = model.iter().any(|(key, owner)| *owner == index && key.0 == at);
                    if !same {
                        model.retain(|_, owner| *owner != index);
                        sequence += 1;
                        model.insert((at, sequence), index);
                    }
                }
                _ => {
                    now = Timestamp::from_nanos(now.as_nanos() + random.below(20));
                    while let Some(waker) = timers.expire(now) {
                        let (key, owner) = model.pop_first().unwrap();
                        assert!(key.0 <= now);
                        let before = counts[owner].0.load(Ordering::Relaxed);
                        waker.wake();
                        assert_eq!(counts[owner].0.load(Ordering::Relaxed), before + 1);
                    }
                }
            }
            assert_eq!(timers.next(), model.first_key_value().map(|(key, _)| key.0));
        }
    }

    #[test]
    fn a_removed_timer_is_given_out_again_without_a_deadline() {
        let mut timers = Timers::default();
        let slot = timers.insert();
        timers.set(slot, Timestamp::START, Waker::noop());
        assert!(timers.remove(slot).is_some());
        assert_eq!(timers.next(), None);
        assert_eq!(timers.insert(), slot);
        assert!(timers.expire(Timestamp::NEVER).is_none());
    }
}
