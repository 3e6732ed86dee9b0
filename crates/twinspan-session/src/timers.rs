//! One deadline for each of many slots: an indexed heap that allocates only when it grows.

use twinspan_core::time::Timestamp;

/// Children of a node; four keep the heap shallow and its siblings in one cache line.
const ARITY: usize = 4;
const NOWHERE: u32 = u32::MAX;

/// The earliest deadline of every slot that has one.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Deadline and slot; ties break by slot, so that the order is the same in every run.
    heap: Vec<(Timestamp, u32)>,
    /// Where each slot is in the heap.
    places: Vec<u32>,
}

impl Timers {
    /// The slot whose deadline comes first.
    pub(crate) fn first(&self) -> Option<(Timestamp, u32)> {
        self.heap.first().copied()
    }

    /// How many slots have a deadline.
    pub(crate) const fn len(&self) -> usize {
        self.heap.len()
    }

    /// The deadline of a slot.
    #[cfg(test)]
    pub(crate) fn of(&self, slot: u32) -> Option<Timestamp> {
        self.heap.get(self.place(slot)?).map(|(at, _)| *at)
    }

    /// Makes sure that the slot comes up at `at` or before. An earlier deadline stays: when it comes
    /// up, the slot is looked at and armed anew, which is cheaper than moving it with every packet.
    pub(crate) fn arm(&mut self, slot: u32, at: Timestamp) {
        if let Some(place) = self.place(slot) {
            if let Some(node) = self.heap.get_mut(place).filter(|node| at < node.0) {
                node.0 = at;
                self.rise(place);
            }
            return;
        }
        let index = slot as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, NOWHERE);
        }
        let place = self.heap.len();
        self.heap.push((at, slot));
        self.put(slot, place);
        self.rise(place);
    }

    /// Takes the slot's deadline away.
    pub(crate) fn disarm(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        if let Some(known) = self.places.get_mut(slot as usize) {
            *known = NOWHERE;
        }
        self.heap.swap_remove(place);
        if let Some((_, moved)) = self.heap.get(place).copied() {
            self.put(moved, place);
            self.rise(place);
            self.sink(place);
        }
    }

    /// Takes the first slot whose deadline has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        let (_, slot) = self.first().filter(|(at, _)| *at <= now)?;
        self.disarm(slot);
        Some(slot)
    }

    fn place(&self, slot: u32) -> Option<usize> {
        let place = *self.places.get(slot as usize)?;
        (place != NOWHERE).then_some(place as usize)
    }

    fn put(&mut self, slot: u32, place: usize) {
        if let Some(known) = self.places.get_mut(slot as usize) {
            *known = place as u32;
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.heap.get(parent) <= self.heap.get(place) {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let first = place * ARITY + 1;
            let last = (first + ARITY).min(self.heap.len());
            let Some(least) = (first..last).min_by_key(|child| self.heap.get(*child)) else {
                return;
            };
            if self.heap.get(place) <= self.heap.get(least) {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for place in [a, b] {
            if let Some((_, slot)) = self.heap.get(place).copied() {
                self.put(slot, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_later_deadline_does_not_replace_an_earlier_one() {
        let mut timers = Timers::default();
        timers.arm(3, at(10));
        timers.arm(3, at(20));
        assert_eq!(timers.of(3), Some(at(10)));
        timers.arm(3, at(5));
        assert_eq!(timers.first(), Some((at(5), 3)));
        assert_eq!(timers.pop_due(at(4)), None);
        assert_eq!(timers.pop_due(at(5)), Some(3));
        assert_eq!(timers.pop_due(at(99)), None);
    }

    proptest! {
        #[test]
        fn timers_agree_with_a_map(
            steps in prop::collection::vec((0_u8..4, 0_u32..12, 0_u64..50), 1..200),
        ) {
            let mut timers = Timers::default();
            let mut model = BTreeMap::<u32, Timestamp>::new();
            for (kind, slot, time) in steps {
                let time = at(time);
                match kind {
                    0 | 1 => {
                        timers.arm(slot, time);
                        let known = model.entry(slot).or_insert(time);
                        *known = (*known).min(time);
                    }
                    2 => {
                        timers.disarm(slot);
                        model.remove(&slot);
                    }
                    _ => {
                        let due = model.iter().map(|(slot, at)| (*at, *slot)).min();
                        let due = due.filter(|(at, _)| *at <= time).map(|(_, slot)| slot);
                        prop_assert_eq!(timers.pop_due(time), due);
                        due.map(|slot| model.remove(&slot));
                    }
                }
                let first = model.iter().map(|(slot, at)| (*at, *slot)).min();
                prop_assert_eq!(timers.first(), first);
            }
        }
    }
}
