//! Appends frames to a file.

use std::io::{self, Write};

use crate::frame::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FileHead, FrameHead, HEAD_BYTES};
use crate::reader::Tail;

/// Why a frame could not be appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The payload is longer than a frame may be.
    #[error("a payload of {bytes} bytes does not fit a frame of at most {FRAME_BYTES_MAX}: cut it")]
    TooLong {
        /// Bytes of the payload.
        bytes: usize,
    },
    /// The file could not be written; it may end in a torn frame now, which a reader cuts off.
    #[error("the record file could not be written: {0}")]
    Write(#[from] io::Error),
    /// An earlier write failed: what would follow the torn frame has no known place.
    #[error("the record file was given up after a failed write: open it anew and cut its tail")]
    GivenUp,
}

/// Writes one record file.
///
/// Each frame goes out in two writes and is not buffered here: give it a [`io::BufWriter`] where
/// many small frames are written, and flush that.
#[derive(Debug)]
pub struct RecordWriter<W> {
    out: W,
    id: u64,
    offset: u64,
    number: u64,
    failed: bool,
}

impl<W: Write> RecordWriter<W> {
    /// Begins a new file.
    ///
    /// # Errors
    /// What the file's own writing says.
    pub fn create(mut out: W, head: FileHead) -> io::Result<Self> {
        out.write_all(&head.to_bytes())?;
        Ok(Self { out, id: head.id, offset: HEAD_BYTES as u64, number: 0, failed: false })
    }

    /// Goes on with a file that was read to its end: `out` must have been cut to
    /// [`Tail::good_bytes`] and stand there.
    pub const fn resume(out: W, head: FileHead, tail: Tail) -> Self {
        let Tail { good_bytes, next_number } = tail;
        Self { out, id: head.id, offset: good_bytes, number: next_number, failed: false }
    }

    /// Appends a frame and returns its number, counted from 0.
    ///
    /// # Errors
    /// [`AppendError`]; after a failed write the writer takes no more.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, AppendError> {
        if self.failed {
            return Err(AppendError::GivenUp);
        }
        let too_long = AppendError::TooLong { bytes: payload.len() };
        let Some(len) =
            u32::try_from(payload.len()).ok().filter(|_| payload.len() <= FRAME_BYTES_MAX)
        else {
            return Err(too_long);
        };
        let number = self.number;
        let head = FrameHead::of(number, payload, len).to_bytes(self.id, self.offset);
        self.failed = true;
        self.out.write_all(&head)?;
        self.out.write_all(payload)?;
        self.failed = false;
        self.offset += (FRAME_HEAD_BYTES + payload.len()) as u64;
        self.number += 1;
        Ok(number)
    }

    /// Hands what is buffered below to the file.
    ///
    /// # Errors
    /// What the file's own flush says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Frames so far, those of an earlier writer of the file included.
    pub const fn frames(&self) -> u64 {
        self.number
    }

    /// What it wrote to.
    pub fn into_inner(self) -> W {
        self.out
    }
}
