//! Slots that are used again and do not move, in a table that gives back what a rare burst made it take.

use twinspan_core::need::Need;

use crate::buffers::make_room;

/// The end of a list of slots.
pub(crate) const NONE: u32 = u32::MAX;

/// What a [`Table`] has: while it is free it names the next free one.
pub(crate) trait Slot {
    fn link(&self) -> u32;
    fn set_link(&mut self, link: u32);
}

/// Slots that are used again and do not move while they are in use.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<T>,
    /// The first free slot below `kept`.
    free: u32,
    /// The first free one of the others, which are used again only when there is no other.
    spare: u32,
    /// Slots from here on are given back as soon as all of them are free; [`NONE`] when none shall be.
    kept: u32,
    spare_count: u32,
    used: u32,
    need: Need,
}

impl<T: Slot> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            spare: NONE,
            kept: NONE,
            spare_count: 0,
            used: 0,
            need: Need::new(),
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)
    }

    /// Puts an item into a free slot; the first one makes room for `first`. The caller limits how many
    /// there are.
    pub(crate) fn put(&mut self, item: T, first: usize) -> u32 {
        self.used += 1;
        self.need.note(self.used as usize);
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let index = core::mem::replace(&mut self.free, slot.link());
            *slot = item;
            return index;
        }
        if let Some(slot) = self.slots.get_mut(self.spare as usize) {
            let index = core::mem::replace(&mut self.spare, slot.link());
            *slot = item;
            self.spare_count -= 1;
            return index;
        }
        make_room(&mut self.slots, first);
        self.slots.push(item);
        (self.slots.len() - 1) as u32
    }

    /// Frees a slot that is in use.
    pub(crate) fn release(&mut self, index: u32) {
        self.link_free(index);
        self.used -= 1;
        if self.spare_count > 0 {
            self.give_back();
        }
    }

    fn link_free(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        let is_spare = index >= self.kept;
        let list = if is_spare { &mut self.spare } else { &mut self.free };
        slot.set_link(core::mem::replace(list, index));
        self.spare_count += u32::from(is_spare);
    }

    /// A period ended: what was not needed is given back, now or when its last slot is free.
    pub(crate) fn fit(&mut self, first: usize) {
        let room = self.need.turn(self.used as usize, first);
        let is_large = self.slots.capacity() > room;
        if !is_large && self.kept == NONE {
            return;
        }
        self.kept = if is_large { u32::try_from(room).unwrap_or(NONE) } else { NONE };
        self.spare_count = 0;
        for list in [&mut self.free, &mut self.spare].map(|list| core::mem::replace(list, NONE)) {
            let mut index = list;
            while let Some(slot) = self.slots.get(index as usize) {
                let next = slot.link();
                self.link_free(index);
                index = next;
            }
        }
        self.give_back();
    }

    /// Gives the slots from `kept` on back if all of them are free.
    fn give_back(&mut self) {
        let kept = self.kept as usize;
        if self.kept != NONE && self.slots.len().saturating_sub(kept) == self.spare_count as usize {
            self.slots.truncate(kept);
            self.slots.shrink_to(kept);
            (self.spare, self.spare_count, self.kept) = (NONE, 0, NONE);
        }
    }

    /// All slots, the free ones too, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> &[T] {
        &self.slots
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug)]
    struct Item {
        value: u32,
        link: u32,
    }

    impl Slot for Item {
        fn link(&self) -> u32 {
            self.link
        }

        fn set_link(&mut self, link: u32) {
            self.link = link;
        }
    }

    const fn item(value: u32) -> Item {
        Item { value, link: NONE }
    }

    #[test]
    fn slots_that_were_needed_once_are_given_back_when_their_last_one_is_free() {
        let mut table = Table::new();
        let all: Vec<u32> = (0..20).map(|value| table.put(item(value), 4)).collect();
        assert_eq!(table.slots.capacity(), 32);
        // One of the last stays.
        all.iter().filter(|index| **index != 18).for_each(|index| table.release(*index));
        (0..3).for_each(|_| table.fit(4));
        assert_eq!((table.slots.capacity(), table.kept, table.spare_count), (32, 4, 15));
        // What comes now does not take what shall be given back, while there is other room.
        let few: Vec<u32> = (0..4).map(|value| table.put(item(value), 4)).collect();
        assert!(few.iter().all(|index| *index < 4), "{few:?}");
        let spare = table.put(item(7), 4);
        assert!(spare >= 4 && table.slots.capacity() == 32, "used again before anybody is asked");
        table.release(spare);
        table.release(18);
        assert_eq!((table.slots.len(), table.slots.capacity(), table.kept), (4, 4, NONE));
        assert_eq!((table.put(item(9), 4), table.slots.capacity()), (4, 8));
    }

    #[test]
    fn what_is_needed_in_every_period_is_never_given_back() {
        let mut table = Table::new();
        for _ in 0..10 {
            let all: Vec<u32> = (0..20).map(|value| table.put(item(value), 4)).collect();
            all.iter().for_each(|index| table.release(*index));
            assert_eq!(table.slots.capacity(), 32);
            table.fit(4);
        }
        assert_eq!((table.slots.capacity(), table.kept), (32, NONE));
    }

    proptest! {
        #[test]
        fn a_table_agrees_with_a_list(steps in prop::collection::vec((0_u8..40, any::<prop::sample::Index>()), 1..400)) {
            let mut table = Table::new();
            let mut model: Vec<(u32, u32)> = Vec::new();
            for (number, (step, which)) in (0..).zip(steps) {
                match step {
                    0 => table.fit(1),
                    // Fills and empties in turn.
                    _ if (number / 60_u32).is_multiple_of(2) == (step < 28) => {
                        let index = table.put(item(number), 1);
                        prop_assert!(model.iter().all(|(other, _)| *other != index));
                        model.push((index, number));
                    }
                    _ if !model.is_empty() => {
                        let (index, _) = model.swap_remove(which.index(model.len()));
                        table.release(index);
                    }
                    _ => {}
                }
                for (index, value) in &model {
                    prop_assert_eq!(table.get(*index).map(|slot| slot.value), Some(*value));
                }
                prop_assert_eq!(table.used as usize, model.len());
            }
            model.iter().for_each(|(index, _)| table.release(*index));
            (0..3).for_each(|_| table.fit(1));
            prop_assert_eq!((table.slots.len() <= 1, table.slots.capacity() <= 1), (true, true));
        }
    }
}
