//! A table whose keys stay stable and are never mistaken for those of a former entry.

use twinspan_core::prefetch;

/// Names an entry of a [`Slab`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) index: u32,
    generation: u32,
}

impl Key {
    /// The key of nothing.
    pub(crate) const NOWHERE: Self = Self { index: u32::MAX, generation: u32::MAX };
}

/// A table of at most `limit` entries.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit: limit.min(u32::MAX as usize) }
    }

    /// Adds what `make` builds for its own key; `None` when the table is full.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.limit => {
                self.slots.push(Slot { generation: 0, value: None });
                // The limit is below 2^32.
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let slot = self.slots.get_mut(index as usize)?;
        let key = Key { index, generation: slot.generation };
        slot.value = Some(make(key));
        Some(key)
    }

    /// Whether nothing more can be added.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.limit
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    /// Wishes for the memory of an entry.
    pub(crate) fn prefetch(&self, key: Key) {
        if let Some(slot) = self.slots.get(key.index as usize) {
            prefetch::value(slot);
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// All entries, by index.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    /// The keys of the entries that `wanted` picks, by index.
    pub(crate) fn keys(&self, mut wanted: impl FnMut(&T) -> bool) -> Vec<Key> {
        let chosen = (0..).zip(&self.slots).filter_map(move |(index, slot)| {
            let value = slot.value.as_ref()?;
            wanted(value).then_some(Key { index, generation: slot.generation })
        });
        chosen.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_former_entry_finds_nothing() {
        let mut slab = Slab::new(1);
        let old = slab.insert_with(|_| 'a').unwrap();
        assert_eq!(slab.insert_with(|_| 'b'), None);
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert_with(|_| 'c').unwrap();
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&'c'));
        assert_eq!(slab.get(Key::NOWHERE), None);
    }
}
