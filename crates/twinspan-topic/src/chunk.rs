//! Chunks: what a datagram carries of a topic, several short messages or a piece of a long one.
//!
//! //= hub 8.4

/// Bytes of a chunk before its messages.
pub(crate) const HEAD_BYTES: usize = 8;
/// Bytes before each message.
pub(crate) const RECORD_BYTES: usize = 2;
/// Bytes of a chunk that is for one link alone before what it carries.
pub(crate) const PIPED_HEAD_BYTES: usize = HEAD_BYTES + RECORD_BYTES;
/// Bytes of a piece's chunk before the piece.
pub(crate) const PIECE_HEAD_BYTES: usize = HEAD_BYTES + 10;
/// Least bytes of a piece that is not the last: pieces of a message are counted in a set, whose size
/// this bounds.
pub(crate) const PIECE_BYTES_MIN: usize = 256;
/// Says that a chunk is a piece of a long message.
const IS_PIECE: u64 = 1 << 63;
/// Numbers of messages stay below this.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// A chunk that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk<'a> {
    /// Whole messages.
    Messages {
        /// The number of the first.
        first: u64,
        /// How many there are.
        count: u64,
        /// Each with its length before it.
        records: &'a [u8],
    },
    /// A piece of a long one.
    Piece(Piece<'a>),
}

/// A piece of a long message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// The message's number.
    pub(crate) number: u64,
    /// Bytes of the message.
    pub(crate) total: usize,
    /// Bytes of each piece but the last.
    pub(crate) unit: usize,
    /// Which piece it is, from 0.
    pub(crate) index: usize,
    pub(crate) bytes: &'a [u8],
}

/// Why a chunk is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// It ends too early.
    #[error("a chunk is shorter than it says")]
    Short,
    /// A piece that no message has.
    #[error("a chunk has a piece that no message has")]
    Piece,
    /// A number that no message has.
    #[error("a chunk has a number that no message has")]
    Number,
}

impl<'a> Chunk<'a> {
    /// Reads a chunk and walks through all of it.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ChunkError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(ChunkError::Short)?;
        let head = u64::from_le_bytes(*head);
        let number = head & !IS_PIECE;
        if number >= NUMBER_MAX {
            return Err(ChunkError::Number);
        }
        if head & IS_PIECE != 0 {
            return Self::parse_piece(number, rest);
        }
        let mut count = 0;
        let mut left = rest;
        while let Some((_, behind)) = next_record(left) {
            count += 1;
            left = behind;
        }
        if !left.is_empty() || count == 0 {
            return Err(ChunkError::Short);
        }
        Ok(Self::Messages { first: number, count, records: rest })
    }

    fn parse_piece(number: u64, rest: &'a [u8]) -> Result<Self, ChunkError> {
        let (head, bytes) = rest.split_first_chunk::<10>().ok_or(ChunkError::Short)?;
        let [t0, t1, t2, t3, u0, u1, i0, i1, i2, i3] = *head;
        let total = u32::from_le_bytes([t0, t1, t2, t3]) as usize;
        let unit = usize::from(u16::from_le_bytes([u0, u1]));
        let index = u32::from_le_bytes([i0, i1, i2, i3]) as usize;
        if unit < PIECE_BYTES_MIN {
            return Err(ChunkError::Piece);
        }
        let from = index.checked_mul(unit).filter(|from| *from < total);
        let wanted = from.map(|from| unit.min(total - from));
        if wanted != Some(bytes.len()) {
            return Err(ChunkError::Piece);
        }
        Ok(Self::Piece(Piece { number, total, unit, index, bytes }))
    }
}

/// The first message of some, and what is behind it; `None` where none is whole.
pub(crate) fn next_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = records.split_first_chunk::<RECORD_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

/// A chunk that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    pub(crate) bytes: Vec<u8>,
    /// The number of the first message.
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Packer {
    /// Appends a message with the number behind the one before; false when it does not fit.
    pub(crate) fn push(&mut self, number: u64, message: &[u8], bytes_max: usize) -> bool {
        if self.count == 0 {
            self.bytes.clear();
            self.bytes.extend_from_slice(&number.to_le_bytes());
            self.first = number;
        }
        let Ok(length) = u16::try_from(message.len()) else { return false };
        if self.bytes.len() + RECORD_BYTES + message.len() > bytes_max {
            return false;
        }
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(message);
        self.count += 1;
        true
    }

    /// The chunk, if it has a message; `spare` is what the next one is written to.
    pub(crate) fn seal(&mut self, spare: Vec<u8>) -> Option<Vec<u8>> {
        if self.count == 0 {
            return None;
        }
        self.count = 0;
        Some(core::mem::replace(&mut self.bytes, spare))
    }
}

/// Whether a message fits a chunk of `bytes_max` as a whole.
pub(crate) const fn fits(length: usize, bytes_max: usize) -> bool {
    HEAD_BYTES + RECORD_BYTES + length <= bytes_max
}

/// Writes the piece of a message that begins at `from`, and returns where the next one does.
pub(crate) fn write_piece(
    out: &mut Vec<u8>,
    number: u64,
    message: &[u8],
    index: u32,
    bytes_max: usize,
) -> usize {
    let unit = bytes_max.saturating_sub(PIECE_HEAD_BYTES).max(PIECE_BYTES_MIN);
    // Chunks are far below 64 KiB, and messages below 4 GiB.
    let (wire_unit, total) = (unit as u16, message.len() as u32);
    let from = index as usize * unit;
    let to = (from + unit).min(message.len());
    out.clear();
    out.extend_from_slice(&(number | IS_PIECE).to_le_bytes());
    out.extend_from_slice(&total.to_le_bytes());
    out.extend_from_slice(&wire_unit.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(message.get(from..to).unwrap_or_default());
    to
}

/// The number of the first message of a chunk that this side wrote.
pub(crate) fn number_of(chunk: &[u8]) -> u64 {
    let head = chunk.first_chunk::<HEAD_BYTES>();
    head.map_or(0, |head| u64::from_le_bytes(*head) & !IS_PIECE)
}

/// Writes a chunk of bytes that are for one link alone: one message, which is not empty.
pub(crate) fn write_piped(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    out.clear();
    out.extend_from_slice(&number.to_le_bytes());
    // A chunk is far shorter than 64 KiB.
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A long message that is put together.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    number: u64,
    total: usize,
    unit: usize,
    /// A bit for each piece that is there.
    got: Vec<u64>,
    missing: usize,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Begins with the message of a piece; what was there is dropped. Without memory of its own it
    /// takes that of `spare`.
    pub(crate) fn begin(&mut self, piece: &Piece<'_>, spare: impl FnOnce() -> Vec<u8>) {
        let pieces = piece.total.div_ceil(piece.unit);
        self.number = piece.number;
        self.total = piece.total;
        self.unit = piece.unit;
        self.missing = pieces;
        self.got.clear();
        self.got.resize(pieces.div_ceil(64), 0);
        if self.bytes.capacity() == 0 {
            self.bytes = spare();
        }
        self.bytes.clear();
    }

    /// The number of the message that is put together, if one is.
    pub(crate) const fn number(&self) -> Option<u64> {
        if self.missing > 0 { Some(self.number) } else { None }
    }

    /// Whether a piece belongs to the message that is put together.
    pub(crate) const fn takes(&self, piece: &Piece<'_>) -> bool {
        self.missing > 0
            && self.number == piece.number
            && self.total == piece.total
            && self.unit == piece.unit
    }

    /// Adds a piece; the message once it is whole.
    pub(crate) fn add(&mut self, piece: &Piece<'_>) -> Option<Vec<u8>> {
        let word = self.got.get_mut(piece.index / 64)?;
        let bit = 1 << (piece.index % 64);
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        let from = piece.index * self.unit;
        let to = from + piece.bytes.len();
        // Memory is taken for what came, up to the furthest piece, not for what was announced; the
        // announced length was checked against the longest message before.
        if self.bytes.len() == from {
            self.bytes.extend_from_slice(piece.bytes);
        } else {
            if self.bytes.len() < to {
                self.bytes.resize(to, 0);
            }
            self.bytes.get_mut(from..to)?.copy_from_slice(piece.bytes);
        }
        self.missing -= 1;
        (self.missing == 0).then(|| core::mem::take(&mut self.bytes))
    }

    /// Gives the message up.
    pub(crate) const fn drop_it(&mut self) {
        self.missing = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_have_their_golden_bytes() {
        let mut packer = Packer::default();
        assert!(packer.push(5, b"ab", 100) && packer.push(6, b"", 100));
        assert!(!packer.push(7, &[0; 90], 100));
        let chunk = packer.seal(Vec::new()).unwrap();
        assert_eq!(chunk, b"\x05\0\0\0\0\0\0\0\x02\0ab\0\0");
        let records = &chunk[8..];
        assert_eq!(Chunk::parse(&chunk), Ok(Chunk::Messages { first: 5, count: 2, records }));
        assert_eq!(packer.seal(Vec::new()), None);
        let mut out = Vec::new();
        let message: Vec<u8> = (0..300_u16).map(|at| at as u8).collect();
        assert_eq!(write_piece(&mut out, 9, &message, 1, 274), 300);
        let mut golden = b"\x09\0\0\0\0\0\0\x80\x2c\x01\0\0\0\x01\x01\0\0\0".to_vec();
        golden.extend(&message[256..]);
        assert_eq!((&out, number_of(&out)), (&golden, 9));
    }

    #[test]
    fn pieces_in_any_order_are_the_message() {
        let message: Vec<u8> = (0..5_000_u16).map(|at| (at * 7) as u8).collect();
        let mut pieces = Vec::new();
        let (mut at, mut index) = (0, 0);
        while at < message.len() {
            let mut out = Vec::new();
            at = write_piece(&mut out, 3, &message, index, 1_000);
            pieces.push(out);
            index += 1;
        }
        for order in [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]] {
            let mut assembly = Assembly::default();
            let mut wholes = Vec::new();
            for at in order {
                let Ok(Chunk::Piece(piece)) = Chunk::parse(&pieces[at]) else { panic!("no piece") };
                if !assembly.takes(&piece) {
                    assembly.begin(&piece, Vec::new);
                }
                wholes.extend(assembly.add(&piece));
                if at != 4 {
                    assert_eq!(assembly.add(&piece), None, "a piece counts once");
                }
            }
            assert_eq!((wholes, assembly.number()), (vec![message.clone()], None));
        }
    }

    #[test]
    fn impossible_pieces_are_refused() {
        let mut out = Vec::new();
        write_piece(&mut out, 1, &[7; 600], 0, 300);
        assert!(Chunk::parse(&out).is_ok());
        for (at, value) in [(9, 0), (12, 1), (14, 9), (13, 0)] {
            let mut bad = out.clone();
            bad[at] = value;
            assert_eq!(Chunk::parse(&bad), Err(ChunkError::Piece), "byte {at}");
        }
        assert_eq!(Chunk::parse(&out[..10]), Err(ChunkError::Short));
        let mut bad = out.clone();
        bad[7] |= 0x40;
        assert_eq!(Chunk::parse(&bad), Err(ChunkError::Number));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_chunk_or_name_a_reason(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Ok(Chunk::Messages { count, records, .. }) = Chunk::parse(&bytes) {
                let mut left = records;
                for _ in 0..count {
                    left = next_record(left).unwrap().1;
                }
                prop_assert!(left.is_empty());
            }
        }
    }
}
