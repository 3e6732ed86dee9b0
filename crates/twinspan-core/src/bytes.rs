//! Bounds-checked reading and writing of wire bytes, varints and zigzag.
//!
//! ```
//! use twinspan_core::bytes::{ReadError, Reader, Writer};
//!
//! let mut packet = [0; 8];
//! let mut writer = Writer::new(&mut packet);
//! writer.u16(0x0102)?;
//! writer.varint(300)?;
//! let mut reader = Reader::new(writer.written());
//! assert_eq!(reader.u16(), Ok(0x0102));
//! assert_eq!(reader.varint(), Ok(300));
//! assert_eq!(reader.u8(), Err(ReadError::Short { have: 0, need: 1 }));
//! # Ok::<(), twinspan_core::bytes::NoRoom>(())
//! ```

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes end before the value does.
    Short {
        /// Bytes that were there.
        have: usize,
        /// Bytes that were needed.
        need: usize,
    },
    /// A varint goes on past ten bytes or past 64 bits.
    VarintTooLong,
}

impl core::fmt::Display for ReadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short { have, need } => write!(f, "{have} bytes left where {need} are needed"),
            Self::VarintTooLong => write!(f, "varint does not fit 64 bits"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Reads wire values from the front of a slice. Little-endian unless the name says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`ReadError::Short`] when fewer are left; nothing is consumed then.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(ReadError::Short { have: self.rest.len(), need: N });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// The next `count` bytes, borrowed.
    ///
    /// # Errors
    /// [`ReadError::Short`] when fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(ReadError::Short { have: self.rest.len(), need: count });
        };
        self.rest = rest;
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`ReadError::Short`] at the end.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`ReadError::Short`] when fewer are left.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`ReadError::Short`] when fewer are left.
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`ReadError::Short`] when fewer are left.
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A varint: seven bits a byte, low bits first, the high bit says that more follow.
    ///
    /// # Errors
    /// [`ReadError::Short`] when it does not end, [`ReadError::VarintTooLong`] past 64 bits.
    pub fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(ReadError::VarintTooLong);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ReadError::VarintTooLong)
    }
}

/// Writes wire values into a fixed slice; a value that does not fit is refused whole.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

/// The slice has no room for the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl core::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no room left in the packet")
    }
}

impl core::error::Error for NoRoom {}

impl<'a> Writer<'a> {
    /// Writes from the first byte of `out`.
    pub const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub const fn room(&self) -> usize {
        self.out.len() - self.len
    }

    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        self.out.get(..self.len).unwrap_or_default()
    }

    /// Takes back everything past `len` bytes; a longer `len` changes nothing.
    pub const fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
        }
    }

    /// Overwrites bytes written before, from `offset` on.
    ///
    /// # Errors
    /// [`NoRoom`] when that range was not written.
    pub fn patch(&mut self, offset: usize, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.len).ok_or(NoRoom)?;
        self.out.get_mut(offset..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`NoRoom`], and nothing is written.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = self.len.checked_add(bytes.len()).ok_or(NoRoom)?;
        self.out.get_mut(self.len..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends one byte.
    ///
    /// # Errors
    /// [`NoRoom`], and nothing is written.
    pub fn u8(&mut self, value: u8) -> Result<(), NoRoom> {
        self.put(&[value])
    }

    /// Appends two bytes.
    ///
    /// # Errors
    /// [`NoRoom`], and nothing is written.
    pub fn u16(&mut self, value: u16) -> Result<(), NoRoom> {
        self.put(&value.to_le_bytes())
    }

    /// Appends four bytes.
    ///
    /// # Errors
    /// [`NoRoom`], and nothing is written.
    pub fn u32(&mut self, value: u32) -> Result<(), NoRoom> {
        self.put(&value.to_le_bytes())
    }

    /// Appends eight bytes.
    ///
    /// # Errors
    /// [`NoRoom`], and nothing is written.
    pub fn u64(&mut self, value: u64) -> Result<(), NoRoom> {
        self.put(&value.to_le_bytes())
    }

    /// Appends a varint, see [`Reader::varint`].
    ///
    /// # Errors
    /// [`NoRoom`], and nothing is written.
    pub fn varint(&mut self, mut value: u64) -> Result<(), NoRoom> {
        let mut bytes = [0_u8; 10];
        let mut len = 0;
        for byte in &mut bytes {
            len += 1;
            *byte = (value & 0x7f) as u8 | 0x80;
            value >>= 7;
            if value == 0 {
                *byte &= 0x7f;
                break;
            }
        }
        self.put(bytes.get(..len).unwrap_or_default())
    }
}

/// Bytes that [`Writer::varint`] takes for `value`.
pub const fn varint_len(value: u64) -> usize {
    match 64 - value.leading_zeros() {
        0 => 1,
        bits => bits.div_ceil(7) as usize,
    }
}

/// Maps small negative and positive numbers to small unsigned ones.
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The reverse of [`zigzag`].
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varints_have_their_golden_bytes() {
        for (value, bytes) in [
            (0_u64, &[0_u8][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = [0; 10];
            let mut writer = Writer::new(&mut out);
            writer.varint(value).unwrap();
            assert_eq!(writer.written(), bytes);
            assert_eq!(varint_len(value), bytes.len());
        }
    }

    #[test]
    fn an_endless_varint_is_named() {
        assert_eq!(Reader::new(&[0x80; 11]).varint(), Err(ReadError::VarintTooLong));
        let past_64_bits = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&past_64_bits).varint(), Err(ReadError::VarintTooLong));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(ReadError::Short { have: 0, need: 1 }));
    }

    #[test]
    fn a_value_without_room_writes_nothing() {
        let mut out = [0; 3];
        let mut writer = Writer::new(&mut out);
        writer.u16(1).unwrap();
        assert_eq!(writer.u16(2), Err(NoRoom));
        assert_eq!(writer.len(), 2);
        assert_eq!(writer.patch(1, &[9, 9]), Err(NoRoom));
    }

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = [0; 10];
            let mut writer = Writer::new(&mut out);
            writer.varint(value).unwrap();
            prop_assert_eq!(writer.len(), varint_len(value));
            prop_assert_eq!(Reader::new(writer.written()).varint(), Ok(value));
        }

        #[test]
        fn any_bytes_read_or_name_a_reason(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() && reader.varint().is_ok() {}
        }

        #[test]
        fn zigzag_round_trips(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
