//! Which packet numbers were sent: what an ack is held against.

use crate::bits::{BitRings, SPAN};
use crate::{Ack, AckError};

/// Set of the numbers that were sent.
const SENT: usize = 0;
/// Set of the numbers that are open to an ack.
const OPEN: usize = 1;
/// Set of the numbers that are in flight.
const FLYING: usize = 2;

/// The last packet numbers, 1,024 at most, and which of them were used; skipped ones were not. Where
/// every packet has its own number, [`Fresh`](super::fresh::Fresh) notes here too which are open to an
/// ack and which are in flight.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SentNumbers {
    /// One past the largest number sent; 0 before the first.
    next: u64,
    /// Below this nothing is known: it was forgotten when the sender was parked.
    known_from: u64,
    rings: BitRings<3>,
}

impl SentNumbers {
    pub(crate) const fn new() -> Self {
        Self { next: 0, known_from: 0, rings: BitRings::new() }
    }

    /// Numbers below `next` were sent, as far as anybody still cares.
    pub(crate) const fn resumed(next: u64) -> Self {
        Self { next, known_from: next, rings: BitRings::new() }
    }

    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// How many numbers up to the next one are known at most.
    pub(crate) const fn span(&self) -> u64 {
        self.rings.span()
    }

    /// Knows of as many numbers as can be, from now on: more are open to an ack than usual.
    pub(crate) fn widen(&mut self) {
        if self.span() < SPAN {
            self.known_from = self.floor();
            self.rings.widen(self.next);
        }
    }

    /// The least number that is still known.
    pub(crate) const fn floor(&self) -> u64 {
        let within_ring = self.next.saturating_sub(self.rings.span());
        if within_ring > self.known_from { within_ring } else { self.known_from }
    }

    /// Notes that `number`, at least [`SentNumbers::next`], was sent and all between were skipped.
    pub(crate) fn advance(&mut self, number: u64) {
        if number - self.next >= self.rings.span() {
            self.rings.clear(SENT);
        } else {
            (self.next..number).for_each(|skipped| self.rings.remove(SENT, skipped));
        }
        self.rings.insert(SENT, number);
        self.next = number + 1;
    }

    /// An ack of the number is of interest from now on.
    pub(crate) fn open(&mut self, number: u64) {
        self.rings.insert(OPEN, number);
    }

    /// The number is in flight.
    pub(crate) fn fly(&mut self, number: u64) {
        self.rings.insert(FLYING, number);
    }

    /// The number is no longer in flight.
    pub(crate) fn land(&mut self, number: u64) {
        self.rings.remove(FLYING, number);
    }

    /// An ack of the number is of no more interest, and it is not in flight.
    pub(crate) fn close(&mut self, number: u64) {
        self.rings.remove(OPEN, number);
        self.rings.remove(FLYING, number);
    }

    /// Whether the number is open to an ack.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        self.rings.contains(OPEN, number)
    }

    /// Whether the number is in flight.
    pub(crate) fn is_flying(&self, number: u64) -> bool {
        self.rings.contains(FLYING, number)
    }

    /// Those of the 64 numbers from `low` up that are open to an ack.
    pub(crate) fn open_run(&self, low: u64) -> u64 {
        self.rings.run(OPEN, low)
    }

    /// Those of the 64 numbers from `low` up that are in flight.
    pub(crate) fn flying_run(&self, low: u64) -> u64 {
        self.rings.run(FLYING, low)
    }

    /// Wishes for what is known of the numbers around `number`.
    pub(crate) fn prefetch(&self, number: u64) {
        self.rings.prefetch(number);
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.rings.heap_bytes()
    }

    /// Whether the number was sent, as far as is still known.
    pub(crate) fn was_sent(&self, number: u64) -> bool {
        number < self.next && (number < self.floor() || self.rings.contains(SENT, number))
    }

    /// Whether an ack names only numbers that were sent.
    ///
    /// # Errors
    /// See [`AckError`].
    pub(crate) fn check(&self, ack: &Ack) -> Result<(), AckError> {
        if !self.was_sent(ack.largest) {
            return Err(AckError::NeverSent { number: ack.largest });
        }
        if reaches_below_zero(ack) {
            return Err(AckError::BelowZero { largest: ack.largest });
        }
        for (low, claimed) in runs(ack) {
            let known = within(low, self.floor(), self.next);
            let unsent = claimed & known & !self.rings.run(SENT, low);
            if unsent != 0 {
                let number = low + u64::from(unsent.trailing_zeros());
                return Err(AckError::NeverSent { number });
            }
        }
        Ok(())
    }
}

/// Whether the bitmap has bits for numbers below 0.
fn reaches_below_zero(ack: &Ack) -> bool {
    if ack.largest >= crate::ACK_BITS {
        return false;
    }
    let whole = (ack.largest / 64) as usize;
    ack.bits.iter().enumerate().skip(whole).any(|(index, word)| {
        let legal = if index == whole { ack.largest % 64 } else { 0 };
        word >> legal != 0
    })
}

/// The bitmap of an ack turned around: runs of 64 numbers, lowest run first, with the lowest number
/// of each in bit 0. Runs without a bit are left out.
pub(crate) fn runs(ack: &Ack) -> impl Iterator<Item = (u64, u64)> + use<> {
    let Ack { largest, bits, .. } = *ack;
    let used = bits.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    (0..used).rev().filter_map(move |index| {
        let word = *bits.get(index).filter(|word| **word != 0)?;
        let high = largest.checked_sub(1 + 64 * index as u64)?;
        // Bit 0 of the word is the highest number.
        match high.checked_sub(63) {
            Some(low) => Some((low, word.reverse_bits())),
            None => Some((0, word.reverse_bits() >> (63 - high))),
        }
    })
}

/// Those of the 64 numbers from `low` up that lie in `from..to`.
pub(crate) const fn within(low: u64, from: u64, to: u64) -> u64 {
    let cut = from.saturating_sub(low);
    let above = if cut >= 64 { 0 } else { u64::MAX << cut };
    let reach = to.saturating_sub(low);
    let below = if reach >= 64 { u64::MAX } else { (1 << reach) - 1 };
    above & below
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ack(numbers: &BTreeSet<u64>) -> Ack {
        let mut ack = Ack::single(*numbers.last().unwrap(), Duration::ZERO);
        for number in numbers {
            if let Some(bit) = (ack.largest - number).checked_sub(1) {
                ack.bits[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        ack
    }

    #[test]
    fn an_ack_below_zero_is_named() {
        let mut sent = SentNumbers::new();
        (0..100).for_each(|number| sent.advance(number));
        let mut claim = Ack::single(70, Duration::ZERO);
        claim.bits[1] = 1 << 5;
        assert_eq!(sent.check(&claim), Ok(()));
        claim.bits[1] = 1 << 6;
        assert_eq!(sent.check(&claim), Err(AckError::BelowZero { largest: 70 }));
    }

    proptest! {
        #[test]
        fn an_ack_is_right_when_all_its_numbers_were_sent(
            steps in prop::collection::vec(1_u64..4, 1..1_500),
            picks in prop::collection::btree_set(0_u64..900, 1..40),
            widens_after in 0_usize..300,
        ) {
            let mut sent = SentNumbers::new();
            let mut model = BTreeSet::new();
            let mut number = 0;
            for (index, step) in steps.into_iter().enumerate() {
                number += step;
                sent.advance(number);
                model.insert(number);
                if index == widens_after {
                    sent.widen();
                }
            }
            // What is no longer known is believed.
            let unknown = sent.floor();
            let claimed: BTreeSet<u64> =
                picks.iter().map(|back| number.saturating_sub(*back)).collect();
            let lie = claimed
                .iter()
                .find(|number| **number >= unknown && !model.contains(number));
            match sent.check(&ack(&claimed)) {
                Ok(()) => prop_assert_eq!(lie, None),
                Err(AckError::NeverSent { number }) => prop_assert!(
                    claimed.contains(&number) && !model.contains(&number)
                ),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }

        #[test]
        fn runs_name_the_numbers_of_the_ack(
            numbers in prop::collection::btree_set(0_u64..1_000, 1..50), add in 0_u64..2_000,
        ) {
            let numbers: BTreeSet<u64> = numbers.iter().map(|number| number + add).collect();
            let ack = ack(&numbers);
            let mut named: Vec<u64> = runs(&ack)
                .flat_map(|(low, run)| {
                    (0..64).filter(move |bit| run >> bit & 1 == 1).map(move |bit| low + bit)
                })
                .collect();
            named.push(ack.largest);
            prop_assert_eq!(named, numbers.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_mask_covers_a_range(low in 0_u64..300, from in 0_u64..300, to in 0_u64..300) {
            let mask = within(low, from, to);
            for bit in 0..64 {
                let inside = (from..to).contains(&(low + bit));
                prop_assert_eq!(mask >> bit & 1 == 1, inside);
            }
        }
    }
}
