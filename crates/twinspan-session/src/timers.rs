//! One deadline for each of many slots: an indexed heap that allocates only when it grows.

use twinspan_core::time::Timestamp;

/// Children of a node; four keep the heap shallow and its siblings in one cache line.
const ARITY: usize = 4;
const NOWHERE: u32 = u32::MAX;

/// What is known of a slot.
#[derive(Clone, Copy, Debug)]
struct Place {
    due: Timestamp,
    /// Where it is in the heap.
    place: u32,
}

impl Place {
    const NONE: Self = Self { due: Timestamp::NEVER, place: NOWHERE };
}

/// The deadline of every slot that has one.
///
/// A deadline that moves back, as those of a busy session do with every packet, is noted and no more:
/// the heap learns of it when the slot comes to its top, and nobody else does.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// A moment that is not after the slot's deadline, and the slot; ties break by slot, so that the
    /// order is the same in every run.
    heap: Vec<(Timestamp, u32)>,
    places: Vec<Place>,
}

impl Timers {
    /// A slot and a moment before which no deadline comes.
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
        self.places.get(slot as usize).filter(|known| known.place != NOWHERE).map(|known| known.due)
    }

    /// Sets the deadline of a slot.
    pub(crate) fn arm(&mut self, slot: u32, at: Timestamp) {
        let index = slot as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, Place::NONE);
        }
        let Some(known) = self.places.get_mut(index) else { return };
        known.due = at;
        let place = known.place as usize;
        if known.place == NOWHERE {
            let place = self.heap.len();
            known.place = place as u32;
            self.heap.push((at, slot));
            self.rise(place);
        } else if let Some(node) = self.heap.get_mut(place).filter(|node| at < node.0) {
            node.0 = at;
            self.rise(place);
        }
    }

    /// Takes the slot's deadline away.
    pub(crate) fn disarm(&mut self, slot: u32) {
        let Some(known) = self.places.get_mut(slot as usize) else { return };
        let place = core::mem::replace(known, Place::NONE).place;
        if place == NOWHERE {
            return;
        }
        let place = place as usize;
        self.heap.swap_remove(place);
        if let Some((_, moved)) = self.heap.get(place).copied() {
            self.put(moved, place);
            self.rise(place);
            self.sink(place);
        }
    }

    /// Takes a slot whose deadline has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        while let Some(top) = self.heap.first_mut().filter(|(at, _)| *at <= now) {
            let slot = top.1;
            let due = self.places.get(slot as usize).map_or(top.0, |known| known.due);
            if due <= now {
                self.disarm(slot);
                return Some(slot);
            }
            top.0 = due;
            self.sink(0);
        }
        None
    }

    fn put(&mut self, slot: u32, place: usize) {
        if let Some(known) = self.places.get_mut(slot as usize) {
            known.place = place as u32;
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
    fn a_later_deadline_replaces_an_earlier_one() {
        let mut timers = Timers::default();
        timers.arm(3, at(10));
        timers.arm(3, at(20));
        assert_eq!(timers.of(3), Some(at(20)));
        assert_eq!(timers.pop_due(at(19)), None);
        assert_eq!(timers.first(), Some((at(20), 3)), "the heap has learned");
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
                        model.insert(slot, time);
                    }
                    2 => {
                        timers.disarm(slot);
                        model.remove(&slot);
                    }
                    _ => match timers.pop_due(time) {
                        Some(slot) => {
                            let due = model.remove(&slot);
                            prop_assert!(due.is_some_and(|due| due <= time));
                        }
                        None => prop_assert!(model.values().all(|due| *due > time)),
                    },
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert!((0..12).all(|slot| timers.of(slot) == model.get(&slot).copied()));
                let first = timers.first().map(|(at, _)| at);
                prop_assert!(first <= model.values().min().copied());
                prop_assert_eq!(first.is_some(), !model.is_empty());
            }
        }
    }
}
