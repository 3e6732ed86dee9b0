//! Sets of recent numbers as bits: a ring over the last 1,024, and one that closes up from below.

use std::collections::VecDeque;

use twinspan_core::prefetch;

/// Numbers that a [`BitRings`] covers at most.
pub(crate) const SPAN: u64 = 1_024;
/// Numbers that it covers until it is [widened](BitRings::widen).
pub(crate) const SPAN_FIRST: u64 = 256;

const WORDS: usize = (SPAN / 64) as usize;
const WORDS_FIRST: usize = (SPAN_FIRST / 64) as usize;

/// Sets of numbers within one moving window; number `n` has bit `n % span` of each set.
///
/// What the sets say of a number lies side by side, so that a question to all of them costs one
/// cache line. The owner knows where the window lies and clears numbers as they enter it.
#[derive(Clone, Debug)]
pub(crate) struct BitRings<const SETS: usize> {
    /// A few packets in flight are all that most of ten thousand sessions have.
    few: [[u64; SETS]; WORDS_FIRST],
    many: Option<Box<[[u64; SETS]; WORDS]>>,
}

impl<const SETS: usize> BitRings<SETS> {
    pub(crate) const fn new() -> Self {
        Self { few: [[0; SETS]; WORDS_FIRST], many: None }
    }

    /// Numbers in the window.
    pub(crate) const fn span(&self) -> u64 {
        if self.many.is_some() { SPAN } else { SPAN_FIRST }
    }

    /// From now on the window has [`SPAN`] numbers; those of the window so far, which ends before
    /// `end`, are kept.
    pub(crate) fn widen(&mut self, end: u64) {
        if self.many.is_some() {
            return;
        }
        let few = self.clone();
        self.many = Some(Box::new([[0; SETS]; WORDS]));
        for number in end.saturating_sub(SPAN_FIRST)..end {
            for set in (0..SETS).filter(|set| few.contains(*set, number)) {
                self.insert(set, number);
            }
        }
    }

    fn words(&self) -> &[[u64; SETS]] {
        match &self.many {
            Some(many) => many.as_slice(),
            None => &self.few,
        }
    }

    fn words_mut(&mut self) -> &mut [[u64; SETS]] {
        match &mut self.many {
            Some(many) => many.as_mut_slice(),
            None => &mut self.few,
        }
    }

    /// The word of a number, as it is counted without end, and its bit.
    const fn place(number: u64) -> (u64, u64) {
        (number / 64, 1 << (number % 64))
    }

    fn word(&self, set: usize, index: u64) -> u64 {
        let words = self.words();
        // How many there are is a power of two.
        let sets = words.get(index as usize & (words.len() - 1));
        sets.and_then(|sets| sets.get(set)).copied().unwrap_or(0)
    }

    fn word_mut(&mut self, set: usize, index: u64) -> Option<&mut u64> {
        let words = self.words_mut();
        let place = index as usize & (words.len() - 1);
        words.get_mut(place)?.get_mut(set)
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
        for bits in self.words_mut().iter_mut().filter_map(|sets| sets.get_mut(set)) {
            *bits = 0;
        }
    }

    /// The 64 numbers from `low` up, `low` in bit 0.
    pub(crate) fn run(&self, set: usize, low: u64) -> u64 {
        let (word, shift) = (low / 64, low % 64);
        let first = self.word(set, word) >> shift;
        if shift == 0 {
            return first;
        }
        first | self.word(set, word.wrapping_add(1)) << (64 - shift)
    }

    /// Wishes for what is known of the numbers around `number`.
    pub(crate) fn prefetch(&self, number: u64) {
        let words = self.words();
        if let Some(sets) = words.get(Self::place(number).0 as usize & (words.len() - 1)) {
            prefetch::value(sets);
        }
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.many.as_ref().map_or(0, |many| size_of_val(&**many))
    }
}

/// A set of numbers that is full below [`DoneSet::base`]; it keeps bits only from there up.
#[derive(Clone, Debug, Default)]
pub(crate) struct DoneSet {
    /// Every number below is in the set, this one is not.
    base: u64,
    /// Bits of the numbers from `base & !63` up, those below the base set. Few channels ever have
    /// more of them than fit here.
    near: [u64; 2],
    /// And of the numbers after those.
    #[expect(clippy::box_collection, reason = "8 bytes of each of thousands of sessions, not 32")]
    far: Option<Box<VecDeque<u64>>>,
}

impl DoneSet {
    /// The least number that is not in the set.
    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    /// The word with the bit of a number that is not below the base.
    fn word(&self, number: u64) -> u64 {
        let index = (number / 64 - self.base / 64) as usize;
        let word = match index.checked_sub(self.near.len()) {
            None => self.near.get(index),
            Some(index) => self.far.as_ref().and_then(|far| far.get(index)),
        };
        word.copied().unwrap_or(0)
    }

    /// Whether `number` is in the set.
    pub(crate) fn contains(&self, number: u64) -> bool {
        number < self.base || self.word(number) >> (number % 64) & 1 == 1
    }

    /// Whether there is nothing in it above its base.
    pub(crate) fn is_closed(&self) -> bool {
        let [first, second] = self.near;
        let far = self.far.iter().flat_map(|far| far.iter());
        first >> (self.base % 64) == 0 && second == 0 && far.into_iter().all(|word| *word == 0)
    }

    /// Moves the base up to `number`, as if everything below were in the set.
    pub(crate) fn raise(&mut self, number: u64) {
        if number > self.base {
            self.base = number;
            self.near = [(1 << (number % 64)) - 1, 0];
            if let Some(far) = &mut self.far {
                far.clear();
            }
        }
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.far.as_ref().map_or(0, |far| size_of_val(&**far) + far.capacity() * 8)
    }

    /// Adds `number`; the caller keeps it within a window above the base, so memory is bounded.
    pub(crate) fn insert(&mut self, number: u64) {
        if number < self.base {
            return;
        }
        let index = (number / 64 - self.base / 64) as usize;
        let bit = 1 << (number % 64);
        match index.checked_sub(self.near.len()) {
            None => {
                if let Some(word) = self.near.get_mut(index) {
                    *word |= bit;
                }
            }
            Some(index) => {
                let far = self.far.get_or_insert_default();
                if far.len() <= index {
                    far.resize(index + 1, 0);
                }
                if let Some(word) = far.get_mut(index) {
                    *word |= bit;
                }
            }
        }
        loop {
            let [first, second] = self.near;
            let ones = u64::from(first.trailing_ones());
            self.base = self.base / 64 * 64 + ones;
            if ones < 64 {
                break;
            }
            let next = self.far.as_mut().and_then(|far| far.pop_front());
            self.near = [second, next.unwrap_or(0)];
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
        fn a_window_that_widens_keeps_what_is_in_it(
            end in 0_u64..5_000, back in prop::collection::btree_set(1_u64..=256, 0..100),
        ) {
            let mut rings = BitRings::<2>::new();
            let members: BTreeSet<u64> =
                back.iter().filter_map(|back| end.checked_sub(*back)).collect();
            members.iter().for_each(|number| rings.insert(1, *number));
            for span in [SPAN_FIRST, SPAN, SPAN] {
                prop_assert_eq!(rings.span(), span);
                // Of the wide window only what was in the narrow one is known.
                for number in end.saturating_sub(SPAN_FIRST)..end {
                    prop_assert_eq!(rings.contains(1, number), members.contains(&number));
                    prop_assert!(!rings.contains(0, number));
                }
                for number in end..end + span - SPAN_FIRST {
                    prop_assert!(!rings.contains(1, number));
                }
                rings.widen(end);
            }
        }

        #[test]
        fn a_done_set_takes_no_memory_for_the_64_numbers_after_its_base(
            base in 0_u64..300, order in Just((1_u64..=64).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut done = DoneSet::default();
            done.raise(base);
            prop_assert!(done.is_closed());
            order.iter().for_each(|offset| done.insert(base + offset));
            prop_assert_eq!((done.base(), done.heap_bytes()), (base, 0));
            done.insert(base);
            prop_assert_eq!((done.base(), done.heap_bytes()), (base + 65, 0));
            prop_assert!(done.is_closed());
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
                prop_assert_eq!(done.is_closed(), model.last().is_none_or(|last| *last < base));
                prop_assert!(done.far.as_ref().is_none_or(|far| far.len() <= 6));
            }
        }
    }
}
