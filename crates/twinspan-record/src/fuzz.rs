//! Fuzz bodies: what holds for any bytes.

use twinspan_core::fuzz::{Body, digest};

use crate::{
    Entry, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FileHead, HEAD_BYTES, Purpose, RecordReader,
};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] = &[("record-file", fuzz_file)];

/// Any bytes are a record file or name a reason; a reader ends, and tells every byte exactly once.
pub fn fuzz_file(data: &[u8]) -> u64 {
    // The same behind a good head, so that the frames are reached.
    let mut file = FileHead { purpose: Purpose::RECORDING, id: 0 }.to_bytes().to_vec();
    file.extend_from_slice(data);
    digest(&(walk(data), walk(&file)))
}

fn walk(file: &[u8]) -> u64 {
    let mut reader = match RecordReader::open(file) {
        Ok(reader) => reader,
        Err(error) => return digest(&error),
    };
    let mut result = digest(&reader.head());
    let mut at = HEAD_BYTES as u64;
    while let Ok(Some(entry)) = reader.next_entry() {
        result = digest(&(result, entry));
        match entry {
            Entry::Frame { payload, .. } => {
                assert!(payload.len() <= FRAME_BYTES_MAX, "a payload over the limit");
                at += (FRAME_HEAD_BYTES + payload.len()) as u64;
            }
            Entry::Damaged { offset, bytes } | Entry::Torn { offset, bytes } => {
                assert!(offset == at && bytes > 0, "bytes were told twice or not at all");
                at += bytes;
            }
        }
    }
    assert_eq!(at, file.len() as u64, "a reader stopped early");
    assert!(reader.tail().good_bytes <= at, "a tail behind the end");
    result
}
