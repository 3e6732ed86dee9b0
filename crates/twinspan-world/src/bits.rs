//! Bits packed into bytes, the first bit lowest.

use twinspan_core::bytes::ReadError;

/// Appends bits to a vector whose room was taken before.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Bits that are not in `out` yet; fewer than 64.
    waiting: u128,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, waiting: 0, count: 0 }
    }

    /// Appends the low `bits` of `value`, at most 64; what is above them must be zero.
    #[inline]
    pub(crate) fn push(&mut self, value: u64, bits: u32) {
        debug_assert!(bits <= 64 && (bits == 64 || value >> bits == 0));
        self.waiting |= u128::from(value) << self.count;
        self.count += bits;
        if self.count >= 64 {
            self.out.extend_from_slice(&(self.waiting as u64).to_le_bytes());
            self.waiting >>= 64;
            self.count -= 64;
        }
    }

    /// Appends the low `bits` of `value`, at most 128.
    pub(crate) fn push_wide(&mut self, value: u128, bits: u32) {
        if bits <= 64 {
            return self.push(value as u64, bits);
        }
        self.push(value as u64, 64);
        self.push((value >> 64) as u64, bits - 64);
    }

    /// Fills the last byte with zeros.
    pub(crate) fn finish(self) {
        let bytes = self.waiting.to_le_bytes();
        let whole = self.count.div_ceil(8) as usize;
        self.out.extend_from_slice(bytes.get(..whole).unwrap_or_default());
    }
}

/// Collects up to 128 bits, to be appended again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) bits: u128,
    pub(crate) count: u32,
}

impl Packed {
    /// Appends the low `bits` of `value`; beyond 128 bits in all nothing fits.
    pub(crate) fn push(&mut self, value: u64, bits: u32) {
        debug_assert!(self.count + bits <= 128 && (bits == 64 || value >> bits == 0));
        self.bits |= u128::from(value).checked_shl(self.count).unwrap_or(0);
        self.count += bits;
    }
}

/// Reads bits from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits that were read.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits that are left, those that fill the last byte among them.
    pub(crate) const fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    /// The next `bits`, at most 57.
    pub(crate) fn read(&mut self, bits: u32) -> Result<u64, ReadError> {
        debug_assert!(bits <= 57);
        if (bits as usize) > self.left() {
            let have = self.left() / 8;
            return Err(ReadError::Short { have, need: (bits as usize).div_ceil(8) });
        }
        let from = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match from.first_chunk::<8>() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => from.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        let value = (word >> (self.at % 8)) & ((1 << bits) - 1);
        self.at += bits as usize;
        Ok(value)
    }

    /// One bit.
    pub(crate) fn flag(&mut self) -> Result<bool, ReadError> {
        Ok(self.read(1)? != 0)
    }

    /// What follows the byte in which the last bit lies.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at.div_ceil(8)..).unwrap_or_default()
    }
}

/// The `bits` low bits of `value` as a number with a sign.
pub(crate) const fn signed(value: u64, bits: u32) -> i64 {
    let shift = 64 - bits;
    ((value << shift) as i64) >> shift
}

/// The `bits` low bits of a number with a sign.
pub(crate) const fn unsigned(value: i64, bits: u32) -> u64 {
    (value as u64) & (u64::MAX >> (64 - bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_have_these_bytes() {
        let mut out = Vec::new();
        let mut writer = BitWriter::new(&mut out);
        writer.push(0b1, 1);
        writer.push(0b010, 3);
        writer.push(0xabc, 12);
        writer.push(0b11, 2);
        writer.finish();
        assert_eq!(out, [0xc5, 0xab, 0x03]);
        let mut reader = BitReader::new(&out);
        assert_eq!(reader.read(1), Ok(1));
        assert_eq!(reader.read(3), Ok(0b010));
        assert_eq!(reader.read(12), Ok(0xabc));
        assert_eq!(reader.read(2), Ok(3));
        assert_eq!(reader.left(), 6);
        assert_eq!(reader.read(7), Err(ReadError::Short { have: 0, need: 1 }));
        assert!(reader.rest().is_empty());
    }

    #[test]
    fn numbers_with_a_sign_survive() {
        for value in [-8, -1, 0, 7] {
            assert_eq!(signed(unsigned(value, 4), 4), value);
        }
    }

    proptest! {
        #[test]
        fn what_was_pushed_is_read(
            values in proptest::collection::vec((any::<u64>(), 1_u32..=57), 0..60), shift in 0..16_usize,
        ) {
            let cut = |value: u64, bits: u32| value & ((1 << bits) - 1);
            let mut out = vec![0x5a; shift];
            let mut writer = BitWriter::new(&mut out);
            for (value, bits) in &values {
                writer.push(cut(*value, *bits), *bits);
            }
            writer.finish();
            let mut reader = BitReader::new(&out[shift..]);
            for (value, bits) in &values {
                prop_assert_eq!(reader.read(*bits), Ok(cut(*value, *bits)));
            }
            prop_assert!(reader.left() < 8);
        }
    }
}
