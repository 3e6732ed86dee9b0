//! Bits one after the other, the high ones of a byte first; numbers of more than eight bits have
//! their low byte first.

use crate::wire::Short;

/// Reads bits.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bit, counted from the first of the first byte.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next number of up to 32 bits.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Short> {
        if self.at + count as usize > self.bytes.len() * 8 {
            return Err(Short);
        }
        let (mut number, mut left, mut shift) = (0, count, 0);
        while left > 0 {
            let part = left.min(8);
            number |= self.part(part) << shift;
            shift += 8;
            left -= part;
        }
        Ok(number)
    }

    /// Up to eight bits, which are there.
    #[inline]
    fn part(&mut self, count: u32) -> u32 {
        let byte = |at: usize| u32::from(self.bytes.get(at).copied().unwrap_or_default());
        let (first, skipped) = (self.at / 8, (self.at % 8) as u32);
        let both = byte(first) << 8 | byte(first + 1);
        self.at += count as usize;
        both >> (16 - skipped - count) & ((1 << count) - 1)
    }
}

/// Writes bits.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are free.
    free: u32,
}

impl BitWriter {
    /// Bytes that were begun.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes the low bits of a number.
    pub(super) fn put(&mut self, number: u32, count: u32) {
        let (mut number, mut left) = (number, count);
        while left > 0 {
            let part = left.min(8);
            self.part(number & ((1 << part) - 1), part);
            number = number.checked_shr(8).unwrap_or_default();
            left -= part;
        }
    }

    /// Writes up to eight bits.
    fn part(&mut self, bits: u32, count: u32) {
        if self.free == 0 {
            self.bytes.push(0);
            self.free = 8;
        }
        let now = count.min(self.free);
        let later = count - now;
        self.free -= now;
        if let Some(last) = self.bytes.last_mut() {
            *last |= ((bits >> later) << self.free) as u8;
        }
        if later > 0 {
            self.part(bits & ((1 << later) - 1), later);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_their_golden_bits() {
        let mut bits = BitWriter::default();
        bits.put(0b101, 3);
        // The low byte first, then the two high bits.
        bits.put(0x2FF, 10);
        bits.put(1, 1);
        bits.put(0x0102_0304, 32);
        let bytes = bits.into_bytes();
        assert_eq!(bytes[..2], [0b1011_1111, 0b1111_0100]);
        let mut bits = BitReader::new(&bytes);
        for (count, number) in [(3, 0b101), (10, 0x2FF), (1, 1), (32, 0x0102_0304)] {
            assert_eq!(bits.take(count), Ok(number));
        }
        assert_eq!(bits.take(3), Err(Short));
    }

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop::collection::vec((any::<u32>(), 1_u32..=32), 0..40)) {
            let mask = |number: u32, count: u32| (u64::from(number) & ((1_u64 << count) - 1)) as u32;
            let mut bits = BitWriter::default();
            for (number, count) in &numbers {
                bits.put(mask(*number, *count), *count);
            }
            let bytes = bits.into_bytes();
            let mut bits = BitReader::new(&bytes);
            for (number, count) in &numbers {
                prop_assert_eq!(bits.take(*count), Ok(mask(*number, *count)));
            }
        }
    }
}
