//! Numbers that never wrap inside and travel truncated, and the window that sees each one once.
//!
//! ```
//! use twinspan_core::number::{ReplayWindow, Sighting, widen};
//!
//! let mut window = ReplayWindow::default();
//! // 16 bits travelled; number 65,536 is the one expected next.
//! let number = widen(0x0001, 16, 0x1_0000);
//! assert_eq!(number, 0x1_0001);
//! // Looked at before its packet authenticates, committed after.
//! assert_eq!(window.look(number), Sighting::Fresh);
//! assert_eq!(window.commit(number), Sighting::Fresh);
//! assert_eq!(window.look(number), Sighting::Repeat);
//! ```

/// Widens the low `bits` bits of a number to the value nearest to `near`.
///
/// `near` is the number expected next; `bits` is 1 to 63. The result is right while the true number
/// is within half of `2^bits` of `near` (RFC 9000, appendix A.3, does the same).
pub const fn widen(low: u64, bits: u32, near: u64) -> u64 {
    let span = 1_u64 << bits;
    let half = span / 2;
    let candidate = (near & !(span - 1)) | (low & (span - 1));
    if candidate.saturating_add(half) <= near && candidate <= u64::MAX - span {
        candidate + span
    } else if candidate > near.saturating_add(half) && candidate >= span {
        candidate - span
    } else {
        candidate
    }
}

/// What a [`Window`] says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Not seen yet.
    Fresh,
    /// Seen before.
    Repeat,
    /// So far behind the largest that the window no longer knows.
    TooOld,
}

/// Remembers which of the last `64 * WORDS` numbers were seen.
///
/// Looking and committing are two calls, because a number counts only once its packet has
/// authenticated: a forged high number must not move the window.
#[derive(Clone, Debug)]
pub struct Window<const WORDS: usize> {
    /// Bit `number % (64 * WORDS)`.
    seen: [u64; WORDS],
    /// One past the largest committed number; 0 when there is none yet.
    next: u64,
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self { seen: [0; WORDS], next: 0 }
    }
}

impl<const WORDS: usize> Window<WORDS> {
    /// How many numbers the window covers.
    pub const SPAN: u64 = 64 * WORDS as u64;

    const fn place(number: u64) -> (usize, u64) {
        let bit = number % Self::SPAN;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    /// The largest committed number.
    pub const fn largest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// What the window says of `number`, without changing it.
    pub fn look(&self, number: u64) -> Sighting {
        if number >= self.next {
            return Sighting::Fresh;
        }
        if self.next - number > Self::SPAN {
            return Sighting::TooOld;
        }
        let (word, bit) = Self::place(number);
        match self.seen.get(word) {
            Some(bits) if bits & bit == 0 => Sighting::Fresh,
            _ => Sighting::Repeat,
        }
    }

    /// Marks `number` as seen and says what it was before. `u64::MAX` is always too old.
    pub fn commit(&mut self, number: u64) -> Sighting {
        if number == u64::MAX {
            return Sighting::TooOld;
        }
        let sighting = self.look(number);
        if sighting != Sighting::Fresh {
            return sighting;
        }
        if number >= self.next {
            self.advance(number);
        }
        let (word, bit) = Self::place(number);
        if let Some(bits) = self.seen.get_mut(word) {
            *bits |= bit;
        }
        Sighting::Fresh
    }

    /// The `64 * WORDS` numbers before the largest, bit `i` of the whole (bit `i % 64` of word
    /// `i / 64`) for `largest - 1 - i`, as acknowledgements name them. The last bit is 0: its number
    /// is outside the window.
    pub fn before_largest(&self) -> [u64; WORDS] {
        let mut bits = [0; WORDS];
        let Some(largest) = self.largest() else { return bits };
        for (word, index) in bits.iter_mut().zip(0_u64..) {
            // The 64 numbers that end with `high`; below 0 there are none.
            let Some(high) = largest.checked_sub(1 + 64 * index) else { break };
            let low = high.saturating_sub(63);
            *word = self.run(low).reverse_bits() >> (63 - (high - low));
        }
        if let Some(last) = bits.last_mut() {
            *last &= u64::MAX >> 1;
        }
        bits
    }

    /// The 64 numbers from `low` up, `low` in bit 0, whatever lies outside the window.
    fn run(&self, low: u64) -> u64 {
        let bit = low % Self::SPAN;
        let (word, shift) = ((bit / 64) as usize, bit % 64);
        let at = |word: usize| self.seen.get(word % WORDS).copied().unwrap_or(0);
        let first = at(word) >> shift;
        if shift == 0 { first } else { first | at(word + 1) << (64 - shift) }
    }

    /// Whether `number` was committed and is still inside the window.
    pub fn contains(&self, number: u64) -> bool {
        number < self.next && self.look(number) == Sighting::Repeat
    }

    fn advance(&mut self, number: u64) {
        let skipped = number - self.next;
        if skipped >= Self::SPAN {
            self.seen = [0; WORDS];
        } else {
            for gone in self.next..=number {
                let (word, bit) = Self::place(gone);
                if let Some(bits) = self.seen.get_mut(word) {
                    *bits &= !bit;
                }
            }
        }
        self.next = number + 1;
    }
}

/// The replay window of a sealed session: 1,024 numbers.
pub type ReplayWindow = Window<16>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn widening_picks_the_nearest() {
        assert_eq!(widen(0x0001, 16, 0x1_0000), 0x1_0001);
        assert_eq!(widen(0xffff, 16, 0x1_0000), 0xffff);
        assert_eq!(widen(0x0000, 16, 0xffff), 0x1_0000);
        assert_eq!(widen(5, 16, 0), 5);
        assert_eq!(widen(0xffff, 16, 0), 0xffff);
    }

    #[test]
    fn a_forged_number_that_is_only_looked_at_moves_nothing() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.commit(1), Sighting::Fresh);
        assert_eq!(window.look(1 << 40), Sighting::Fresh);
        assert_eq!(window.look(2), Sighting::Fresh);
        assert_eq!(window.commit(2), Sighting::Fresh);
        assert_eq!(window.commit(1), Sighting::Repeat);
    }

    #[test]
    fn the_window_covers_1_024_numbers() {
        let mut window = ReplayWindow::default();
        window.commit(1_023);
        assert_eq!(window.look(0), Sighting::Fresh);
        window.commit(1_024);
        assert_eq!(window.look(0), Sighting::TooOld);
    }

    proptest! {
        #[test]
        fn widening_recovers_a_close_number(number in 0_u64..1 << 62, off in -30_000_i64..30_000) {
            let near = number.saturating_add_signed(off);
            prop_assert_eq!(widen(number & 0xffff, 16, near), number);
        }

        #[test]
        fn the_numbers_before_the_largest_agree_with_the_window(
            numbers in prop::collection::vec(0_u64..400, 1..300),
        ) {
            let mut window = Window::<2>::default();
            for number in numbers {
                window.commit(number);
                let (bits, largest) = (window.before_largest(), window.largest().unwrap());
                for bit in 0..128 {
                    let named = bits[bit / 64] >> (bit % 64) & 1 == 1;
                    let number = largest.checked_sub(1 + bit as u64);
                    prop_assert_eq!(named, number.is_some_and(|number| window.contains(number)));
                }
            }
        }

        #[test]
        fn the_window_agrees_with_a_set(numbers in prop::collection::vec(0_u64..400, 1..300)) {
            let mut window = Window::<2>::default();
            let mut model = BTreeSet::new();
            for number in numbers {
                let oldest = model.last().map_or(0, |last: &u64| (last + 1).saturating_sub(128));
                let expected = if number < oldest {
                    Sighting::TooOld
                } else if model.contains(&number) {
                    Sighting::Repeat
                } else {
                    Sighting::Fresh
                };
                prop_assert_eq!(window.commit(number), expected);
                if expected == Sighting::Fresh {
                    model.insert(number);
                }
            }
        }
    }
}
