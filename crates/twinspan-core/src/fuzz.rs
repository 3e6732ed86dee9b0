//! What fuzz bodies share: digests of results, alignments, mutations.
//!
//! A fuzz body is a plain function `fn(&[u8]) -> u64` in the library whose decoder it tries. It
//! asserts what must hold for any bytes and returns a digest of what they were decoded to, so that
//! [`at_every_alignment`] can tell whether the place of the bytes in memory changes the result.

use core::fmt::{self, Debug, Write};

use xxhash_rust::xxh3::Xxh3Default;

use crate::random::Stream;

/// A fuzz body.
pub type Body = fn(&[u8]) -> u64;

/// The number of alignments that a decoder is tried at: that of the widest load of a processor.
pub const ALIGNMENTS: usize = 16;
/// Changes that one mutation makes at most.
const CHANGES_MAX: u64 = 6;

struct Sink(Xxh3Default);

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// A number that stands for `value`, as its `Debug` text has it.
pub fn digest(value: &impl Debug) -> u64 {
    let mut sink = Sink(Xxh3Default::new());
    // The sink takes everything.
    let _ = write!(sink, "{value:?}");
    sink.0.digest()
}

/// Runs `body` on a copy of `data` at each of the [`ALIGNMENTS`] and returns the one result.
///
/// # Panics
/// When the results differ: the decoder depends on where bytes lie.
pub fn at_every_alignment(data: &[u8], body: Body) -> u64 {
    let mut space = vec![0_u8; data.len() + 2 * ALIGNMENTS];
    let first = space.as_ptr().align_offset(ALIGNMENTS);
    let mut results = (0..ALIGNMENTS).map(|shift| {
        let at = first + shift;
        let place = space.get_mut(at..at + data.len()).unwrap_or_default();
        place.copy_from_slice(data);
        assert_eq!(place.as_ptr() as usize % ALIGNMENTS, shift, "the copy lies elsewhere");
        body(place)
    });
    let one = results.next().unwrap_or_default();
    assert!(results.all(|other| other == one), "the result depends on the alignment");
    one
}

/// Changes bytes at random, as a function of a seed.
#[derive(Clone, Debug)]
pub struct Mutator {
    random: Stream,
}

impl Mutator {
    /// A mutator; different instances make different changes.
    pub fn new(seed: u64, instance: u64) -> Self {
        Self { random: Stream::new(seed, "mutations", instance) }
    }

    /// The stream that it draws from.
    pub const fn random(&mut self) -> &mut Stream {
        &mut self.random
    }

    /// Changes `bytes` in place, a few times: flips and sets bits and bytes, small numbers,
    /// stretches copied from `other`. Cheap: a few draws and no allocation.
    pub fn change(&mut self, bytes: &mut [u8], other: &[u8]) {
        for _ in 0..=self.random.below(CHANGES_MAX) {
            let len = bytes.len() as u64;
            if len == 0 {
                return;
            }
            let draw = self.random.next_u64();
            let at = (draw >> 32) % len;
            let Some(rest) = bytes.get_mut(at as usize..) else { return };
            let Some(first) = rest.first_mut() else { return };
            match draw & 7 {
                0..=2 => *first ^= 1 << (draw >> 8 & 7),
                3 => *first = (draw >> 8) as u8,
                4 => *first = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x10, 0x40][(draw >> 8 & 7) as usize],
                5 => *first = first.wrapping_add(1),
                6 => *first = first.wrapping_sub(1),
                _ => {
                    let from = (draw >> 8 & 0xffff) as usize % other.len().max(1);
                    let count = (draw >> 24 & 0x1f) as usize + 1;
                    let source = other.get(from..).unwrap_or_default();
                    rest.iter_mut().zip(source).take(count).for_each(|(out, byte)| *out = *byte);
                }
            }
        }
    }

    /// A changed copy of `seed`, perhaps shorter or longer, at most `bytes_max` long.
    pub fn mutate(&mut self, seed: &[u8], other: &[u8], bytes_max: usize) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        match self.random.below(8) {
            0 => bytes.truncate(self.random.below(seed.len() as u64 + 1) as usize),
            1 => {
                let from = self.random.below(other.len() as u64 + 1) as usize;
                let at = self.random.below(seed.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(other.get(from..).unwrap_or_default());
            }
            2 => {
                let count = self.random.below(40);
                bytes.extend((0..count).map(|_| self.random.next_u64() as u8));
            }
            _ => {}
        }
        bytes.truncate(bytes_max);
        self.change(&mut bytes, other);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_looks_at_its_address_is_caught() {
        assert_eq!(at_every_alignment(b"abc", |data| data.len() as u64), 3);
        let by_address = |data: &[u8]| data.as_ptr() as u64 % 2;
        assert!(std::panic::catch_unwind(|| at_every_alignment(b"abc", by_address)).is_err());
    }

    #[test]
    fn mutations_are_a_function_of_the_seed() {
        let (seed, other) = ([7; 50], [9; 60]);
        let all = |number| {
            let mut mutator = Mutator::new(number, 0);
            (0..200).map(|_| mutator.mutate(&seed, &other, 80)).collect::<Vec<_>>()
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        assert!(all(1).iter().all(|bytes| bytes.len() <= 80));
        let lengths = all(1).iter().map(Vec::len).collect::<std::collections::BTreeSet<_>>();
        assert!(lengths.len() > 10, "{lengths:?}");
    }

    #[test]
    fn equal_values_have_equal_digests() {
        assert_eq!(digest(&Some("x")), digest(&Some("x")));
        assert_ne!(digest(&Some("x")), digest(&Some("y")));
    }
}
