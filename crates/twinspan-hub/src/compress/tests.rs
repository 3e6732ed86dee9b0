//! Tests of compression.

use proptest::prelude::*;

use super::*;

fn free() -> Duration {
    Duration::ZERO
}

fn packer(compression: Compression, dictionary: Option<&[u8]>) -> Packer {
    Packer::new(compression, dictionary, free).unwrap()
}

fn unpacked(unpacker: &mut Unpacker, packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let length = Unpacker::length(packed, 1 << 20)?;
    let mut place = vec![0; length];
    unpacker.unpack(packed, &mut place)?;
    Ok(place)
}

fn text(at: usize) -> Vec<u8> {
    format!("temperature {at}.5, rotation 0.{at}, acceleration 9.81; ").repeat(8).into_bytes()
}

#[test]
fn every_codec_packs_and_unpacks() {
    let dictionary = text(7);
    for (compression, dictionary, number) in [
        (Compression::Lz4, None, 1),
        (Compression::Zstd, None, 2),
        (Compression::Zstd, Some(dictionary.as_slice()), 3),
    ] {
        let mut packer = packer(compression, dictionary);
        let mut unpacker = Unpacker::new(dictionary);
        for at in 0..100 {
            let message = text(at);
            let packed = packer.pack(&message).unwrap().to_vec();
            assert_eq!(packed[0], number);
            assert_eq!(packed[1..5], u32::try_from(message.len()).unwrap().to_le_bytes());
            assert!(packed.len() * 2 < message.len(), "{} of {}", packed.len(), message.len());
            assert_eq!(unpacked(&mut unpacker, &packed), Ok(message));
        }
        let stats = packer.stats();
        assert_eq!((stats.packed, stats.plain, stats.times_off), (100, 0, 0));
        assert!(stats.is_on && stats.bytes_after * 2 < stats.bytes_before, "{stats}");
    }
}

#[test]
fn a_dictionary_makes_short_messages_shorter() {
    let short = b"temperature 3.5, rotation 0.3, acc".as_slice();
    assert_eq!(packer(Compression::Zstd, None).pack(short), None, "too short to look at");
    let dictionary = text(3);
    let mut packer = packer(Compression::Zstd, Some(&dictionary));
    let packed = packer.pack(short).unwrap().to_vec();
    assert!(packed.len() < short.len(), "{}", packed.len());
    let mut unpacker = Unpacker::new(Some(&dictionary));
    assert_eq!(unpacked(&mut unpacker, &packed), Ok(short.to_vec()));
    // Who has no dictionary, or another one, gets an error and no message.
    let error = UnpackError::Codec(3);
    assert_eq!(unpacked(&mut Unpacker::new(None), &packed), Err(error));
    let another = Unpacker::new(Some(&text(5)[5..]));
    assert_ne!(unpacked(&mut { another }, &packed), Ok(short.to_vec()));
}

#[test]
fn what_does_not_pay_goes_off_by_itself_and_is_tried_again() {
    let mut random = twinspan_core::random::Stream::new(1, "noise", 0);
    let mut noise = || (0..200).map(|_| random.next_u32() as u8).collect::<Vec<u8>>();
    let mut packer = packer(Compression::Lz4, None);
    for _ in 0..16 {
        assert_eq!(packer.pack(&noise()), None);
    }
    assert!(!packer.stats().is_on);
    assert_eq!(packer.stats().times_off, 1);
    // Though it would pay now, it is left alone for a while.
    let plain = (0..).take_while(|at| packer.pack(&text(*at)).is_none()).count();
    assert_eq!(plain, 256);
    for at in 0..100 {
        assert!(packer.pack(&text(at)).is_some());
    }
    assert!(packer.stats().is_on);
}

#[test]
fn what_costs_too_much_goes_off_though_it_saves() {
    fn slow() -> Duration {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NOW: AtomicU64 = AtomicU64::new(0);
        Duration::from_millis(NOW.fetch_add(1, Ordering::Relaxed))
    }
    let mut packer = Packer::new(Compression::Lz4, None, slow).unwrap();
    let packed = (0..100).filter(|at| packer.pack(&text(*at)).is_some()).count();
    assert_eq!(packed, 16, "the messages of the trial left packed");
    assert_eq!(packer.stats().packing, Duration::from_millis(16));
    assert!(packer.stats().to_string().contains("LZ4 (off, it did not pay): 16 of 100 messages"));
}

#[test]
fn what_was_not_asked_for_is_not_done() {
    let mut none = packer(Compression::None, None);
    assert_eq!((none.packs(), none.pack(&text(1))), (Packs::Nothing, None));
    assert_eq!(none.stats().to_string(), "no compression");
    let error = Packer::new(Compression::Lz4, Some(b"dictionary"), free).unwrap_err();
    assert!(matches!(error, CompressionError::Dictionary), "{error}");
    for bytes in [0, DICTIONARY_BYTES_MAX + 1] {
        let error = Packer::new(Compression::Zstd, Some(&vec![0; bytes]), free).unwrap_err();
        assert!(matches!(error, CompressionError::DictionaryBytes(it) if it == bytes), "{error}");
    }
}

#[test]
fn ends_compare_what_one_packs_and_the_other_undoes() {
    let ours = Unpacks::ours(Some(b"one"));
    let packs = |dictionary| packer(Compression::Zstd, dictionary).packs();
    assert!(ours.undoes(packs(None)) && ours.undoes(packs(Some(b"one"))));
    assert!(ours.undoes(Packs::Lz4) && ours.undoes(Packs::Nothing));
    assert!(!ours.undoes(packs(Some(b"two"))));
    assert!(!Unpacks::ours(None).undoes(packs(Some(b"one"))));
    let old = Unpacks { codecs: 1, dictionary: 0 };
    assert!(old.undoes(Packs::Lz4) && !old.undoes(packs(None)));
}

#[test]
fn what_would_unfold_too_far_is_refused_before_it_gets_room() {
    let packed = packer(Compression::Zstd, None).pack(&vec![0; 1 << 20]).unwrap().to_vec();
    assert!(packed.len() < 200);
    let error = UnpackError::Long { said: 1 << 20, most: 1_000 };
    assert_eq!(Unpacker::length(&packed, 1_000), Err(error));
    // A length that LZ4 cannot make from so few bytes.
    let bomb = [1, 0xff, 0xff, 0, 0, 9, 9];
    assert_eq!(
        Unpacker::length(&bomb, 1 << 20),
        Err(UnpackError::Long { said: 0xffff, most: 510 })
    );
    // A frame that makes more than its head says stops at the end of its place.
    let mut liar = packed;
    liar[1..5].copy_from_slice(&1_000_u32.to_le_bytes());
    assert_eq!(unpacked(&mut Unpacker::new(None), &liar), Err(UnpackError::Broken));
    liar[1..5].copy_from_slice(&((1 << 20) - 1_u32).to_le_bytes());
    assert_eq!(unpacked(&mut Unpacker::new(None), &liar), Err(UnpackError::Broken));
}

#[test]
fn what_is_no_packed_message_is_named() {
    let mut unpacker = Unpacker::new(None);
    assert_eq!(unpacked(&mut unpacker, &[1, 0, 0, 0]), Err(UnpackError::Short));
    for number in [0, 4, 255] {
        let error = UnpackError::Codec(number);
        assert_eq!(unpacked(&mut unpacker, &[number, 1, 0, 0, 0, 9]), Err(error));
    }
    let good = packer(Compression::Lz4, None).pack(&text(1)).unwrap().to_vec();
    let mut wrong = good.clone();
    wrong[1] -= 1;
    assert_eq!(unpacked(&mut unpacker, &wrong), Err(UnpackError::Broken));
    assert_eq!(unpacked(&mut unpacker, &good[..good.len() - 9]), Err(UnpackError::Broken));
    let mut place = vec![0; text(1).len() + 1];
    assert_eq!(unpacker.unpack(&good, &mut place), Err(UnpackError::Broken));
}

proptest! {
    #[test]
    fn any_bytes_unpack_within_their_bound_or_name_a_reason(
        number in 0_u8..5,
        length in 0_u32..5_000,
        body in prop::collection::vec(any::<u8>(), 0..300),
        changes in prop::collection::vec((5_usize..60, any::<u8>()), 0..4),
    ) {
        let dictionary = text(7);
        let mut unpacker = Unpacker::new(Some(&dictionary));
        let mut bytes = vec![number];
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&body);
        if let Ok(message) = unpacked(&mut unpacker, &bytes) {
            prop_assert_eq!(message.len(), length as usize);
        }
        for compression in [Compression::Lz4, Compression::Zstd] {
            let mut broken = packer(compression, None).pack(&text(1)).unwrap().to_vec();
            for (at, value) in &changes {
                if let Some(byte) = broken.get_mut(*at) {
                    *byte = *value;
                }
            }
            if let Ok(message) = unpacked(&mut unpacker, &broken) {
                prop_assert_eq!(message.len(), text(1).len());
            }
        }
    }
}
