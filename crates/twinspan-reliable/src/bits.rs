//! Sets of recent numbers as bits: a ring over the last 1,024, and one that closes up from below.

use std::collections::VecDeque;

use twinspan_core::prefetch;

/// Numbers that a [`BitRings`] covers.
pub(crate) const SPAN: u64 = 1_024;

const WORDS: usize = (SPAN / 64) as usize;

/// Sets of numbers within one moving window of [`SPAN`]; number `n` has bit `n % SPAN` of each set.
///
/// What the sets say of a number lies side by side, so that a question to all of them costs one
/// cache line. The owner knows where the window lies and clears numbers as they enter it.
#[derive(Clone, Debug)]
pub(crate) struct BitRings<const SETS: usize>([[u64; SETS]; WORDS]);

impl<const SETS: usize> BitRings<SETS> {
    pub(crate) const fn new() -> Self {
        Self([[0; SETS]; WORDS])
    }

    const fn place(number: u64) -> (usize, u64) {
        let bit = number % SPAN;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn word(&self, set: usize, index: usize) -> u64 {
        self.0.get(index).and_then(|sets| sets.get(set)).copied().unwrap_or(0)
    }

    fn word_mut(&mut self, set: usize, index: usize) -> Option<&mut u64> {
        self.0.get_mut(index)?.get_mut(set)
    }

    pub(crate) fn insert(&mut self, set: usize, number: u64) {
        let (word, bit) = Self::place(number);
        if let Some(bits) = self.word_mut(set, word) {
            *bits |= bit;
        }
    }

    pub(crate) fn remove(&mut self, set: usize, number: u64) {
        let (word, bit) = Self::place(number);
        if let Some(bits) = self.word_mut(set, word) {
            *bits &= !bit;
        }
    }

    pub(crate) fn contains(&self, set: usize, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.word(set, word) & bit != 0
    }

    pub(crate) fn clear(&mut self, set: usize) {
        for bits in self.0.iter_mut().filter_map(|sets| sets.get_mut(set)) {
            *bits = 0;
        }
    }

    /// The 64 numbers from `low` up, `low` in bit 0.
    pub(crate) fn run(&self, set: usize, low: u64) -> u64 {
        let bit = low % SPAN;
        let (word, shift) = ((bit / 64) as usize, bit % 64);
        let first = self.word(set, word) >> shift;
        if shift == 0 {
            return first;
        }
        first | self.word(set, (word + 1) % WORDS) << (64 - shift)
    }

    /// Wishes for what is known of the numbers around `number`.
    pub(crate) fn prefetch(&self, number: u64) {
        if let Some(sets) = self.0.get(Self::place(number).0) {
            prefetch::value(sets);
        }
    }
}

/// A set of numbers that is full below [`DoneSet::base`]; it keeps bits only from there up.
#[derive(Clone, Debug, Default)]
pub(crate) struct DoneSet {
    /// Every number below is in the set, this one is not.
    base: u64,
    /// Bits of the numbers from `base & !63` up.
    words: VecDeque<u64>,
}

impl DoneSet {
    /// The least number that is not in the set.
    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    /// Whether `number` is in the set.
    pub(crate) fn contains(&self, number: u64) -> bool {
        if number < self.base {
            return true;
        }
        let index = (number / 64 - self.base / 64) as usize;
        self.words.get(index).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Whether there is nothing in it above its base.
    pub(crate) fn is_closed(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
            || self.words.len() == 1
                && self.words.front().is_some_and(|word| word >> (self.base % 64) == 0)
    }

    /// Moves the base up to `number`, as if everything below were in the set.
    pub(crate) fn raise(&mut self, number: u64) {
        if number > self.base {
            self.base = number;
            self.words.clear();
        }
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.capacity() * 8
    }

    /// Adds `number`; the caller keeps it within a window above the base, so memory is bounded.
    pub(crate) fn insert(&mut self, number: u64) {
        if number < self.base {
            return;
        }
        if number == self.base && self.words.is_empty() {
            self.base += 1;
            return;
        }
        let index = (number / 64 - self.base / 64) as usize;
        while self.words.len() <= index {
            // The word of the base starts with everything below the base in it.
            let below = if self.words.is_empty() { (1 << (self.base % 64)) - 1 } else { 0 };
            self.words.push_back(below);
        }
        if let Some(word) = self.words.get_mut(index) {
            *word |= 1 << (number % 64);
        }
        while let Some(word) = self.words.front() {
            let ones = u64::from(word.trailing_ones());
            self.base = self.base / 64 * 64 + ones;
            if ones < 64 {
                break;
            }
            self.words.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_run_shows_the_64_numbers_from_its_low_end(
            low in 0_u64..5_000, members in prop::collection::btree_set(0_u64..64, 0..64),
        ) {
            let mut rings = BitRings::<2>::new();
            let mut expected = 0;
            for member in members {
                rings.insert(1, low + member);
                prop_assert!(rings.contains(1, low + member));
                expected |= 1 << member;
            }
            prop_assert_eq!(rings.run(1, low), expected);
            prop_assert_eq!(rings.run(0, low), 0);
        }

        #[test]
        fn a_done_set_agrees_with_a_set(offsets in prop::collection::vec(0_u64..200, 1..600)) {
            let mut done = DoneSet::default();
            let mut model = BTreeSet::new();
            for offset in offsets {
                let number = done.base() + offset;
                prop_assert_eq!(done.contains(number), model.contains(&number));
                done.insert(number);
                prop_assert!(done.contains(number));
                model.insert(number);
                let base = (0..).find(|number| !model.contains(number)).unwrap();
                prop_assert_eq!(done.base(), base);
                prop_assert!(done.words.len() <= 8);
            }
        }
    }
}
