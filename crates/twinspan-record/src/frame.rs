//! The bytes of a file's head and of a frame's head, both ways.

use crc32c::{crc32c, crc32c_append};

/// Bytes of a file's head.
pub const HEAD_BYTES: usize = 32;
/// Bytes of a frame's head; the payload follows.
pub const FRAME_HEAD_BYTES: usize = 24;
/// The longest payload of a frame, 1 MiB: what a reader holds at a time.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The layout that this crate writes and reads.
pub const VERSION: u16 = 1;

/// What a file begins with. The end of line and the end-of-file mark in it show at once when a file
/// went through a transfer that changes text.
const FILE_MAGIC: [u8; 8] = *b"TSREC\r\n\x1a";
/// What a frame begins with: rare in text and in small numbers, so that a search finds it quickly.
pub(crate) const FRAME_MAGIC: [u8; 4] = [0xf5, 0x7e, 0xa3, 0x91];

/// What the frames of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Purpose(pub u16);

impl Purpose {
    /// What was received or sent, in order.
    pub const RECORDING: Self = Self(1);
    /// States to begin again from.
    pub const CHECKPOINT: Self = Self(2);
}

/// The head of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHead {
    /// What the frames are.
    pub purpose: Purpose,
    /// Which file this is. Give each file its own, at random where strangers' bytes are recorded:
    /// the checksums of frames depend on it.
    pub id: u64,
}

/// Why a file cannot be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It ends before its head does.
    #[error("the file has {have} bytes, its head alone has {HEAD_BYTES}")]
    Short {
        /// Bytes that were there.
        have: usize,
    },
    /// It does not begin as a record file does.
    #[error("the file is not a record file: it begins otherwise")]
    Magic,
    /// It has a layout of another version.
    #[error("the file has layout {version}, this program reads {VERSION}")]
    Version {
        /// The version it names.
        version: u16,
    },
    /// The head's checksum is wrong.
    #[error("the head of the file is damaged: its checksum is {found:#010x}, not {wanted:#010x}")]
    Damaged {
        /// The checksum in the file.
        found: u32,
        /// The checksum of the bytes.
        wanted: u32,
    },
}

impl FileHead {
    /// The head as bytes.
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let (text, sum) = bytes.split_at_mut(HEAD_BYTES - 4);
        let fields = FILE_MAGIC
            .into_iter()
            .chain(VERSION.to_le_bytes())
            .chain(self.purpose.0.to_le_bytes())
            .chain(self.id.to_le_bytes());
        for (place, byte) in text.iter_mut().zip(fields) {
            *place = byte;
        }
        sum.copy_from_slice(&crc32c(text).to_le_bytes());
        bytes
    }

    /// Reads a head. The eight reserved bytes may hold anything.
    ///
    /// # Errors
    /// [`HeadError`] names what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let short = HeadError::Short { have: bytes.len() };
        let (text, _) = bytes.split_at_checked(HEAD_BYTES - 4).ok_or(short)?;
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(short)?;
        let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, p0, p1, rest @ ..] = *bytes;
        let [i0, i1, i2, i3, i4, i5, i6, i7, _, _, _, _, _, _, _, _, s0, s1, s2, s3] = rest;
        if [m0, m1, m2, m3, m4, m5, m6, m7] != FILE_MAGIC {
            return Err(HeadError::Magic);
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(HeadError::Version { version });
        }
        let (found, wanted) = (u32::from_le_bytes([s0, s1, s2, s3]), crc32c(text));
        if found != wanted {
            return Err(HeadError::Damaged { found, wanted });
        }
        let purpose = Purpose(u16::from_le_bytes([p0, p1]));
        Ok(Self { purpose, id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]) })
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Bytes of the payload.
    pub(crate) len: u32,
    /// Which frame of the file this is, from 0.
    pub(crate) number: u64,
    /// CRC32C of the payload.
    pub(crate) payload_crc: u32,
}

impl FrameHead {
    pub(crate) fn of(number: u64, payload: &[u8], len: u32) -> Self {
        Self { len, number, payload_crc: crc32c(payload) }
    }

    /// The head of a frame that stands `offset` bytes into file `id`.
    pub(crate) fn to_bytes(self, id: u64, offset: u64) -> [u8; FRAME_HEAD_BYTES] {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        let (text, sum) = bytes.split_at_mut(FRAME_HEAD_BYTES - 4);
        let fields = FRAME_MAGIC
            .into_iter()
            .chain(self.len.to_le_bytes())
            .chain(self.number.to_le_bytes())
            .chain(self.payload_crc.to_le_bytes());
        for (place, byte) in text.iter_mut().zip(fields) {
            *place = byte;
        }
        sum.copy_from_slice(&head_crc(text, id, offset).to_le_bytes());
        bytes
    }

    /// The head at the front of `bytes`, which stand `offset` bytes into file `id`; `None` where
    /// there is none.
    pub(crate) fn parse(bytes: &[u8], id: u64, offset: u64) -> Option<Self> {
        let bytes: &[u8; FRAME_HEAD_BYTES] = bytes.first_chunk()?;
        let [m0, m1, m2, m3, l0, l1, l2, l3, rest @ ..] = *bytes;
        let [n0, n1, n2, n3, n4, n5, n6, n7, c0, c1, c2, c3, s0, s1, s2, s3] = rest;
        if [m0, m1, m2, m3] != FRAME_MAGIC {
            return None;
        }
        let (text, _) = bytes.split_at(FRAME_HEAD_BYTES - 4);
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let found = u32::from_le_bytes([s0, s1, s2, s3]);
        let good = found == head_crc(text, id, offset) && len as usize <= FRAME_BYTES_MAX;
        good.then_some(Self {
            len,
            number: u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
            payload_crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    pub(crate) fn fits(&self, payload: &[u8]) -> bool {
        crc32c(payload) == self.payload_crc
    }
}

fn head_crc(text: &[u8], id: u64, offset: u64) -> u32 {
    let place = crc32c_append(crc32c(&id.to_le_bytes()), &offset.to_le_bytes());
    crc32c_append(place, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_head_that_cannot_be_is_named() {
        let good = FileHead { purpose: Purpose::CHECKPOINT, id: 7 }.to_bytes();
        assert_eq!(FileHead::parse(&good), Ok(FileHead { purpose: Purpose::CHECKPOINT, id: 7 }));
        assert_eq!(FileHead::parse(&good[..31]), Err(HeadError::Short { have: 31 }));
        let mut bad = good;
        bad[0] ^= 1;
        assert_eq!(FileHead::parse(&bad), Err(HeadError::Magic));
        let mut bad = good;
        bad[8] = 9;
        assert_eq!(FileHead::parse(&bad), Err(HeadError::Version { version: 9 }));
        for byte in 10..HEAD_BYTES {
            let mut bad = good;
            bad[byte] ^= 0x10;
            let found = FileHead::parse(&bad);
            assert!(matches!(found, Err(HeadError::Damaged { .. })), "byte {byte}: {found:?}");
        }
    }

    #[test]
    fn a_frame_elsewhere_or_of_another_file_is_none() {
        let head = FrameHead::of(3, b"payload", 7);
        let bytes = head.to_bytes(1, 100);
        assert_eq!(FrameHead::parse(&bytes, 1, 100), Some(head));
        assert_eq!(FrameHead::parse(&bytes, 1, 101), None);
        assert_eq!(FrameHead::parse(&bytes, 2, 100), None);
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_none() {
        let len = FRAME_BYTES_MAX as u32 + 1;
        let bytes = FrameHead { len, number: 0, payload_crc: 0 }.to_bytes(1, 32);
        assert_eq!(FrameHead::parse(&bytes, 1, 32), None);
    }
}
