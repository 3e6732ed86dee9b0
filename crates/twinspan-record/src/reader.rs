//! Reads frames, steps over damage, and finds where a torn file is to be cut.

use std::io::{self, Read};

use crate::frame::{
    FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FRAME_MAGIC, FileHead, FrameHead, HEAD_BYTES, HeadError,
};

/// What the buffer holds at most: one whole frame.
const BUFFER_BYTES: usize = FRAME_HEAD_BYTES + FRAME_BYTES_MAX;
/// How much is asked of the file at a time.
const READ_BYTES: usize = 64 << 10;

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read at all.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The system could not read it.
    #[error("the record file could not be read: {0}")]
    Read(#[from] io::Error),
}

/// What stands next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry<'a> {
    /// A whole frame.
    Frame {
        /// Which frame it is, from 0. A gap says how many frames were lost to damage before it.
        number: u64,
        /// What was appended.
        payload: &'a [u8],
    },
    /// Bytes that are no frame, with good frames or the end behind them.
    Damaged {
        /// Where they begin.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
    /// The file ends within a frame: the last thing told.
    Torn {
        /// Where the torn frame begins.
        offset: u64,
        /// How many bytes of it are there.
        bytes: u64,
    },
}

/// Where a writer may go on: known once [`RecordReader::next_entry`] told the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Bytes up to the end of the last whole frame; what follows is to be cut off.
    pub good_bytes: u64,
    /// The number of the next frame.
    pub next_number: u64,
}

/// Reads one record file, with a buffer of one frame whatever its size.
#[derive(Debug)]
pub struct RecordReader<R> {
    file: R,
    head: FileHead,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were used up.
    used: usize,
    /// Where the first byte that is not used up stands in the file.
    offset: u64,
    /// Whether the file has no more bytes than the buffer.
    at_end: bool,
    tail: Tail,
    /// Where the damage began that is being stepped over.
    damage_at: Option<u64>,
    torn_told: bool,
}

impl<R: Read> RecordReader<R> {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be read, or is not a record file.
    pub fn open(file: R) -> Result<Self, ReadError> {
        let mut reader = Self {
            file,
            head: FileHead { purpose: crate::Purpose(0), id: 0 },
            buffer: Vec::new(),
            used: 0,
            offset: 0,
            at_end: false,
            tail: Tail { good_bytes: HEAD_BYTES as u64, next_number: 0 },
            damage_at: None,
            torn_told: false,
        };
        reader.fill(HEAD_BYTES)?;
        reader.head = FileHead::parse(reader.rest())?;
        reader.skip(HEAD_BYTES);
        Ok(reader)
    }

    /// The file's head.
    pub const fn head(&self) -> FileHead {
        self.head
    }

    /// Where a writer may go on, as far as the file was read.
    pub const fn tail(&self) -> Tail {
        self.tail
    }

    /// What stands next; `None` at the end of the file.
    ///
    /// # Errors
    /// [`ReadError::Read`] when the system could not read.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, ReadError> {
        loop {
            self.fill(FRAME_HEAD_BYTES)?;
            let Some(head) = FrameHead::parse(self.rest(), self.head.id, self.offset) else {
                if self.rest().len() < FRAME_HEAD_BYTES {
                    return Ok(self.end());
                }
                self.step();
                continue;
            };
            // A good head behind damage: the damage is told first, the frame with the next call.
            if let Some(damage) = self.take_damage() {
                return Ok(Some(damage));
            }
            let whole = FRAME_HEAD_BYTES + head.len as usize;
            self.fill(whole)?;
            let Some(payload) = self.rest().get(FRAME_HEAD_BYTES..whole) else {
                return Ok(self.end());
            };
            let offset = self.offset;
            let fits = head.fits(payload);
            let from = self.used + FRAME_HEAD_BYTES;
            self.skip(whole);
            self.tail =
                Tail { good_bytes: self.offset, next_number: head.number.saturating_add(1) };
            if !fits {
                // The head was good, so its length was: only this frame is lost.
                return Ok(Some(Entry::Damaged { offset, bytes: whole as u64 }));
            }
            let payload = self.buffer.get(from..self.used).unwrap_or_default();
            return Ok(Some(Entry::Frame { number: head.number, payload }));
        }
    }

    /// Steps to the next place where a frame may begin.
    fn step(&mut self) {
        self.damage_at.get_or_insert(self.offset);
        let rest = self.rest();
        let [first, ..] = FRAME_MAGIC;
        // At least one byte on; where the magic's first byte is not in sight, past all of it.
        let behind = rest.get(1..).unwrap_or_default();
        let next = behind.iter().position(|byte| *byte == first).unwrap_or(behind.len()) + 1;
        self.skip(next.min(rest.len()));
    }

    fn take_damage(&mut self) -> Option<Entry<'static>> {
        let offset = self.damage_at.take()?;
        Some(Entry::Damaged { offset, bytes: self.offset - offset })
    }

    /// The file's end: whatever is left is a torn frame, with the damage before it.
    fn end(&mut self) -> Option<Entry<'static>> {
        let from = self.damage_at.take().unwrap_or(self.offset);
        let bytes = self.offset + self.rest().len() as u64 - from;
        if bytes == 0 || self.torn_told {
            return None;
        }
        self.torn_told = true;
        let left = self.rest().len();
        self.skip(left);
        Some(Entry::Torn { offset: from, bytes })
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.used += bytes;
        self.offset += bytes as u64;
    }

    /// Reads on until `wanted` bytes are there or the file ends; `wanted` is at most a frame.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        debug_assert!(wanted <= BUFFER_BYTES, "a frame's length was not checked");
        while self.rest().len() < wanted && !self.at_end {
            self.buffer.drain(..self.used);
            self.used = 0;
            let have = self.buffer.len();
            let room = READ_BYTES.min(BUFFER_BYTES.saturating_sub(have)).max(wanted - have);
            self.buffer.resize(have + room, 0);
            let place = self.buffer.get_mut(have..).unwrap_or_default();
            let read = loop {
                match self.file.read(place) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            let read_bytes = *read.as_ref().unwrap_or(&0);
            self.buffer.truncate(have + read_bytes.min(room));
            self.at_end = read? == 0;
        }
        Ok(())
    }
}
