//! Whole files: golden bytes, torn writes at every byte, flipped bits, hostile payloads.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use twinspan_record::{
    AppendError, Entry, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FileHead, HEAD_BYTES, Purpose,
    ReadError, RecordReader, RecordWriter,
};

const HEAD: FileHead = FileHead { purpose: Purpose::RECORDING, id: 0x0102_0304_0506_0708 };

/// What a reader told, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Frame(u64, Vec<u8>),
    Damaged(u64, u64),
    Torn(u64, u64),
}

fn file_of(payloads: &[&[u8]]) -> Vec<u8> {
    let mut writer = RecordWriter::create(Vec::new(), HEAD).unwrap();
    for payload in payloads {
        writer.append(payload).unwrap();
    }
    writer.into_inner()
}

fn read(file: impl Read) -> Vec<Told> {
    let mut reader = RecordReader::open(file).unwrap();
    let mut told = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        told.push(match entry {
            Entry::Frame { number, payload } => Told::Frame(number, payload.to_vec()),
            Entry::Damaged { offset, bytes } => Told::Damaged(offset, bytes),
            Entry::Torn { offset, bytes } => Told::Torn(offset, bytes),
            _ => panic!("an entry that this test does not know"),
        });
    }
    assert!(reader.next_entry().unwrap().is_none(), "the end stays the end");
    told
}

/// Gives one byte at a time, as a pipe may.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(1);
        self.0.read(&mut out[..len])
    }
}

#[test]
fn a_file_has_its_golden_bytes() {
    //= record 1
    let mut golden = Vec::new();
    golden.extend(b"TSREC\r\n\x1a");
    golden.extend([1, 0]);
    golden.extend([1, 0]);
    golden.extend([8, 7, 6, 5, 4, 3, 2, 1]);
    golden.extend([0; 8]);
    golden.extend(0xf525_2023_u32.to_le_bytes());
    //= record 2
    golden.extend([0xf5, 0x7e, 0xa3, 0x91]);
    golden.extend([3, 0, 0, 0]);
    golden.extend([0; 8]);
    // CRC32C of "abc", then of the file's id, the place and the head.
    golden.extend(0x364b_3fb7_u32.to_le_bytes());
    golden.extend(0x7b36_bc93_u32.to_le_bytes());
    golden.extend(b"abc");
    let written = file_of(&[b"abc"]);
    assert_eq!(written, golden, "{written:02x?}");
    assert_eq!(read(golden.as_slice()), [Told::Frame(0, b"abc".to_vec())]);
}

#[test]
fn what_is_appended_is_read() {
    let long = vec![7; 100_000];
    let payloads: [&[u8]; 4] = [b"", b"x", &long, b"last"];
    let file = file_of(&payloads);
    let expected: Vec<Told> =
        (0..).zip(payloads).map(|(number, bytes)| Told::Frame(number, bytes.to_vec())).collect();
    assert_eq!(read(file.as_slice()), expected);
    assert_eq!(read(Drip(&file)), expected);
}

#[test]
fn the_longest_frame_is_read_and_a_longer_one_refused() {
    let full = vec![1; FRAME_BYTES_MAX];
    let mut writer = RecordWriter::create(Vec::new(), HEAD).unwrap();
    writer.append(&full).unwrap();
    let longer = vec![1; FRAME_BYTES_MAX + 1];
    let refused = writer.append(&longer);
    assert!(matches!(refused, Err(AppendError::TooLong { bytes: 1_048_577 })), "{refused:?}");
    writer.append(b"next").unwrap();
    let told = read(writer.into_inner().as_slice());
    assert_eq!(told, [Told::Frame(0, full), Told::Frame(1, b"next".to_vec())]);
}

#[test]
fn a_file_torn_at_any_byte_keeps_every_whole_frame_and_goes_on() {
    let payloads: [&[u8]; 3] = [b"one", b"", b"three"];
    let file = file_of(&payloads);
    let ends: Vec<usize> = payloads
        .iter()
        .scan(HEAD_BYTES, |end, payload| {
            *end += FRAME_HEAD_BYTES + payload.len();
            Some(*end)
        })
        .collect();
    for cut in HEAD_BYTES..=file.len() {
        let torn = &file[..cut];
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let good = if whole == 0 { HEAD_BYTES } else { ends[whole - 1] };
        let mut expected: Vec<Told> =
            (0..).zip(&payloads[..whole]).map(|(n, p)| Told::Frame(n, p.to_vec())).collect();
        let frames = expected.clone();
        if good < cut {
            expected.push(Told::Torn(good as u64, (cut - good) as u64));
        }
        assert_eq!(read(torn), expected, "cut at {cut}");

        let mut reader = RecordReader::open(torn).unwrap();
        while reader.next_entry().unwrap().is_some() {}
        let tail = reader.tail();
        assert_eq!((tail.good_bytes, tail.next_number), (good as u64, whole as u64));
        let mut writer = RecordWriter::resume(torn[..good].to_vec(), reader.head(), tail);
        writer.append(b"after the crash").unwrap();
        let mut resumed = frames;
        resumed.push(Told::Frame(whole as u64, b"after the crash".to_vec()));
        assert_eq!(read(writer.into_inner().as_slice()), resumed, "resumed at {cut}");
    }
}

#[test]
fn a_torn_head_names_how_much_is_there() {
    let file = file_of(&[]);
    for cut in 0..HEAD_BYTES {
        let error = RecordReader::open(&file[..cut]).unwrap_err();
        let text = format!("the file has {cut} bytes, its head alone has 32");
        assert_eq!(error.to_string(), text);
        assert!(matches!(error, ReadError::Head(_)));
    }
}

#[test]
fn a_flipped_bit_costs_only_its_frame() {
    let payloads: [&[u8]; 4] = [b"alpha", b"beta", b"", b"delta"];
    let file = file_of(&payloads);
    let mut from = HEAD_BYTES;
    for (hit, payload) in payloads.iter().enumerate() {
        let until = from + FRAME_HEAD_BYTES + payload.len();
        for bit in from * 8..until * 8 {
            let mut bad = file.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let told = read(bad.as_slice());
            let mut expected: Vec<Told> =
                (0..).zip(payloads).map(|(n, p)| Told::Frame(n, p.to_vec())).collect();
            let (at, bytes) = (from as u64, (until - from) as u64);
            expected[hit] = Told::Damaged(at, bytes);
            if hit == 3 && bit / 8 < from + FRAME_HEAD_BYTES {
                // With no good frame behind it a bad head may as well be a torn one.
                expected[hit] = Told::Torn(at, bytes);
            }
            assert_eq!(told, expected, "bit {bit}");
        }
        from = until;
    }
}

#[test]
fn a_copy_of_a_frame_within_a_payload_is_not_taken_for_one() {
    // The payload holds whole frames of a file like this one; the head before it is damaged, so
    // that the reader searches through it.
    let inner = file_of(&[b"not", b"mine"]);
    let mut file = file_of(&[&inner[HEAD_BYTES..], b"mine"]);
    file[HEAD_BYTES + 5] ^= 0xff;
    let bytes = (FRAME_HEAD_BYTES + inner.len() - HEAD_BYTES) as u64;
    let expected = [Told::Damaged(HEAD_BYTES as u64, bytes), Told::Frame(1, b"mine".to_vec())];
    assert_eq!(read(file.as_slice()), expected);
}

#[test]
fn a_failed_write_ends_the_writer() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writer = RecordWriter::create(Full(HEAD_BYTES + 30), HEAD).unwrap();
    assert!(matches!(writer.append(b"longer than six"), Err(AppendError::Write(_))));
    assert!(matches!(writer.append(b""), Err(AppendError::GivenUp)));
}

proptest! {
    #[test]
    fn damage_anywhere_leaves_the_frames_that_it_did_not_touch(
        sizes in proptest::collection::vec(0_usize..200, 1..12),
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), 1_u8..), 1..4),
    ) {
        let payloads: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect();
        let mut writer = RecordWriter::create(Vec::new(), HEAD).unwrap();
        let mut ends = Vec::new();
        for payload in &payloads {
            writer.append(payload).unwrap();
            ends.push(ends.last().unwrap_or(&HEAD_BYTES) + FRAME_HEAD_BYTES + payload.len());
        }
        let mut file = writer.into_inner();
        let mut touched = vec![false; payloads.len()];
        for (at, xor) in hits {
            let at = HEAD_BYTES + at.index(file.len() - HEAD_BYTES);
            file[at] ^= xor;
            touched[ends.partition_point(|end| *end <= at)] = true;
        }
        let told = read(file.as_slice());
        for (number, payload) in payloads.iter().enumerate() {
            let there = told.contains(&Told::Frame(number as u64, payload.clone()));
            // Two hits on one byte may undo each other.
            prop_assert!(there || touched[number], "frame {number} is lost");
        }
    }
}
