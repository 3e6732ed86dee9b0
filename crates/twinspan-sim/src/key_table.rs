//! A table from keys that are drawn already to places in another table.

/// Places at first.
const ROOM_MIN: usize = 64;

/// Finds a place by a key of 64 even bits, with one look at memory where a tree takes five. It has no
/// order, and nobody goes through it.
#[derive(Default)]
pub(crate) struct KeyTable {
    /// A key lies at the place that its low bits name, or behind it where there is no gap between. The
    /// length is a power of two, and a quarter is free.
    slots: Vec<Option<Entry>>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    key: u64,
    value: u32,
}

impl KeyTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn home(&self, key: u64) -> usize {
        // On a machine of 32 bits the table is shorter than what is cut off.
        key as usize & (self.slots.len() - 1)
    }

    /// Where a key is, or the free place where it would be; `None` in a table without places.
    fn find(&self, key: u64) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(key);
        // There are free places, so this ends.
        while self.slots.get(at)?.as_ref().is_some_and(|entry| entry.key != key) {
            at = (at + 1) & (self.slots.len() - 1);
        }
        Some(at)
    }

    pub(crate) fn get(&self, key: u64) -> Option<u32> {
        let entry = self.slots.get(self.find(key)?)?.as_ref()?;
        Some(entry.value)
    }

    pub(crate) fn insert(&mut self, key: u64, value: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        if let Some(at) = self.find(key)
            && let Some(slot) = self.slots.get_mut(at)
        {
            self.len += usize::from(slot.is_none());
            *slot = Some(Entry { key, value });
        }
    }

    fn grow(&mut self) {
        let room = (self.slots.len() * 2).max(ROOM_MIN);
        let old = std::mem::replace(&mut self.slots, vec![None; room]);
        for entry in old.into_iter().flatten() {
            if let Some(at) = self.find(entry.key)
                && let Some(slot) = self.slots.get_mut(at)
            {
                *slot = Some(entry);
            }
        }
    }

    /// Takes a key out; those that lie behind it for its sake move up.
    pub(crate) fn remove(&mut self, key: u64) {
        let Some(mut gap) = self.find(key) else { return };
        if self.slots.get_mut(gap).and_then(Option::take).is_none() {
            return;
        }
        self.len -= 1;
        let mask = self.slots.len() - 1;
        let mut at = (gap + 1) & mask;
        while let Some(entry) = self.slots.get(at).copied().flatten() {
            let home = self.home(entry.key);
            // Whether the gap lies on its way from home, around the end of the table too.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.slots.swap(gap, at);
                gap = at;
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a tree, with keys that share their low bits.
        #[test]
        fn a_table_finds_what_a_tree_finds(
            calls in proptest::collection::vec((any::<bool>(), 0_u64..40, any::<u32>()), 1..400),
            spread in prop_oneof![Just(1_u64), Just(1 << 20), Just(61)],
        ) {
            let (mut table, mut tree) = (KeyTable::default(), BTreeMap::new());
            for (adds, number, value) in calls {
                let key = number * spread;
                if adds {
                    table.insert(key, value);
                    tree.insert(key, value);
                } else {
                    table.remove(key);
                    tree.remove(&key);
                }
                prop_assert_eq!(table.len(), tree.len());
                for number in 0..40 {
                    prop_assert_eq!(table.get(number * spread), tree.get(&(number * spread)).copied());
                }
            }
        }
    }
}
