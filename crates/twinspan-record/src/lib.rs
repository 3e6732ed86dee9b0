//! Append-only files of recordings and checkpoints: CRC32C a frame, a torn tail is cut, a bad frame
//! costs only itself.
//!
//! A file is a head of 32 bytes and frames, one behind the other. A frame's head has a checksum of
//! its own, which is seeded with the file's id and with the place where the frame stands: so a
//! reader trusts a length before it has seen the payload, finds the next frame behind a damaged one,
//! and never takes bytes *inside* a payload for a frame, even if somebody put a copy of one there.
//! `docs/spec/record.md` has the layout.
//!
//! ```
//! use twinspan_record::{Entry, FileHead, Purpose, RecordReader, RecordWriter};
//!
//! let head = FileHead { purpose: Purpose::RECORDING, id: 42 };
//! let mut writer = RecordWriter::create(Vec::new(), head)?;
//! writer.append(b"first")?;
//! writer.append(b"second")?;
//! let mut file = writer.into_inner();
//! file[32 + 24] ^= 1; // The first byte of the first payload.
//!
//! let mut reader = RecordReader::open(file.as_slice())?;
//! assert!(matches!(reader.next_entry()?, Some(Entry::Damaged { offset: 32, bytes: 29 })));
//! assert!(matches!(reader.next_entry()?, Some(Entry::Frame { number: 1, payload: b"second" })));
//! assert!(reader.next_entry()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod frame;
mod reader;
mod writer;

#[cfg(feature = "fuzz")]
pub mod fuzz;

pub use frame::{
    FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FileHead, HEAD_BYTES, HeadError, Purpose, VERSION,
};
pub use reader::{Entry, ReadError, RecordReader, Tail};
pub use writer::{AppendError, RecordWriter};
