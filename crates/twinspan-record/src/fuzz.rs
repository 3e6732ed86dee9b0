//! Fuzz bodies: what holds for any bytes.

use crate::{Entry, FRAME_BYTES_MAX, FileHead, HEAD_BYTES, Purpose, RecordReader};

/// Any bytes are a record file or name a reason; a reader ends, and tells every byte exactly once.
pub fn fuzz_file(data: &[u8]) {
    walk(data);
    // The same behind a good head, so that the frames are reached.
    let mut file = FileHead { purpose: Purpose::RECORDING, id: 0 }.to_bytes().to_vec();
    file.extend_from_slice(data);
    walk(&file);
}

fn walk(file: &[u8]) {
    let Ok(mut reader) = RecordReader::open(file) else { return };
    let mut at = HEAD_BYTES as u64;
    let mut last = None;
    while let Ok(Some(entry)) = reader.next_entry() {
        match entry {
            Entry::Frame { number, payload } => {
                assert!(payload.len() <= FRAME_BYTES_MAX, "a payload over the limit");
                at += (crate::FRAME_HEAD_BYTES + payload.len()) as u64;
                last = Some(number);
            }
            Entry::Damaged { offset, bytes } | Entry::Torn { offset, bytes } => {
                assert!(offset == at && bytes > 0, "bytes were told twice or not at all");
                at += bytes;
            }
        }
    }
    assert_eq!(at, file.len() as u64, "a reader stopped early");
    assert!(reader.tail().good_bytes <= at, "a tail behind the end, last frame {last:?}");
}
