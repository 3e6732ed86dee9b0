//! Tests of packets.

use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn written(frame: &Frame<'_>, plain: &[u8], coding: ZeroCoding) -> Vec<u8> {
    let mut out = [0; 2 * DATAGRAM_BYTES_MAX];
    let (flags, sequence) = (frame.flags, frame.sequence);
    let mut len =
        write_packet(&mut out, flags, sequence, frame.extra_bytes, plain, coding).unwrap();
    if frame.flags.has(Flags::ACKS) {
        let acks: Vec<_> = frame.acks.iter().collect();
        len = append_acks(&mut out, len, &acks).unwrap();
    }
    out[..len].to_vec()
}

#[test]
fn a_plain_packet_of_a_login_is_taken_apart_and_written_again() {
    // UseCircuitCode, reliable, number 0.
    let datagram = bytes(
        "40 00000000 00 ffff0003 ec6a9902 9ab17533932242668f25a617bb12d5e4 \
         000000000000400080000000000000b1",
    );
    let frame = Frame::parse(&datagram).unwrap();
    assert_eq!(frame.flags, Flags::RELIABLE);
    assert_eq!((frame.sequence, frame.acks.len()), (Sequence(0), 0));
    let mut space = [0; PAYLOAD_BYTES_MAX];
    let payload = frame.open(&mut space).unwrap();
    assert_eq!(Some(payload.id), MessageId::low(3));
    assert_eq!(frame.id(), Ok(payload.id));
    assert_eq!(payload.body.len(), 36);
    // The code is little-endian.
    assert_eq!(payload.body[..4], 43_608_812_u32.to_le_bytes());
    assert_eq!(written(&frame, &datagram[6..], ZeroCoding::Never), datagram);
}

#[test]
fn a_zero_coded_packet_is_expanded_with_its_number() {
    // RegionHandshakeReply (low 149) with zeros inside; two acks, big-endian.
    let coded = bytes("c0 00000203 00 ffff 0001 95 00ff 0005 07 00010203 00fffffe 02");
    let frame = Frame::parse(&bytes("d0 00000203 00 ffff 0001 95 0020 07 00000005 01000000 02"))
        .map(|frame| frame.acks.iter().map(|ack| ack.0).collect::<Vec<_>>());
    assert_eq!(frame.unwrap(), [5, 0x0100_0000]);
    // Without the flag the same bytes are payload.
    assert!(Frame::parse(&coded).unwrap().acks.is_empty());

    let datagram = bytes("d0 00000203 00 ffff 0001 95 0020 07 00000005 00000006 02");
    let frame = Frame::parse(&datagram).unwrap();
    assert_eq!(frame.id(), Ok(MessageId::low(149).unwrap()));
    let mut space = [0; PAYLOAD_BYTES_MAX];
    let payload = frame.open(&mut space).unwrap();
    assert_eq!(payload.id, MessageId::low(149).unwrap());
    assert_eq!(payload.body, [&[0; 32][..], &[7]].concat());
    let plain = [&[0xFF, 0xFF, 0, 0x95][..], payload.body].concat();
    assert_eq!(written(&frame, &plain, ZeroCoding::IfShorter), datagram);
    assert_eq!(written(&frame, &plain, ZeroCoding::Always), datagram);
}

#[test]
fn the_extra_header_lies_between_number_and_body() {
    let datagram = bytes("00 00000001 02 01 aabb 09 00000000");
    let frame = Frame::parse(&datagram).unwrap();
    let mut space = [0; PAYLOAD_BYTES_MAX];
    let payload = frame.open(&mut space).unwrap();
    assert_eq!((payload.extra, payload.body), (&[0xAA, 0xBB][..], &[9, 0, 0, 0, 0][..]));
    let cut = bytes("00 00000001 06 01 aabb");
    let error = OpenError::Extra { have: 2, need: 6 };
    assert_eq!(Frame::parse(&cut).unwrap().open(&mut space), Err(error));
}

#[test]
fn the_number_is_seen_through_any_zero_coding() {
    let number = |hex| Frame::parse(&bytes(hex)).unwrap().id();
    assert_eq!(number("80 00000000 00 ffff 0001 0300 0507"), Ok(MessageId::low(3).unwrap()));
    // What is wrong further on is not looked at.
    assert_eq!(number("80 00000000 00 0104050607080900"), Ok(MessageId::high(1).unwrap()));
    assert_eq!(number("80 00000000 00 ffff 00"), Err(OpenError::ZeroCoding(ExpandError::NoCount)));
    assert_eq!(number("80 00000000 00 ffff"), Err(MessageIdError { have: 2, need: 4 }.into()));
    // A run so long that nothing else is in the first bytes: number 0, which no message has.
    assert_eq!(number("80 00000000 00 0000000000000000 01").unwrap().number(), 0);
}

#[test]
fn datagrams_that_are_no_packets_are_named() {
    assert_eq!(Frame::parse(&[]), Err(FrameError::Short { have: 0 }));
    assert_eq!(Frame::parse(&[0; 6]), Err(FrameError::Short { have: 6 }));
    assert_eq!(Frame::parse(&[0; 8_193]), Err(FrameError::Long { have: 8_193 }));
    // Acks may not take the last byte of the payload.
    let with_acks = |count, payload: usize| {
        let mut datagram = vec![0x10, 0, 0, 0, 0, 0];
        datagram.resize(6 + payload + 4, 1);
        datagram.push(count);
        Frame::parse(&datagram).map(|frame| (frame.payload.len(), frame.acks.len()))
    };
    assert_eq!(with_acks(1, 1), Ok((1, 1)));
    assert_eq!(with_acks(1, 0), Err(FrameError::Acks { count: 1, have: 11 }));
    assert_eq!(with_acks(255, 1), Err(FrameError::Acks { count: 255, have: 12 }));
    assert_eq!(with_acks(0, 1), Ok((5, 0)));
}

#[test]
fn zero_coding_is_chosen_only_where_it_is_shorter() {
    let mut out = [0; 64];
    let mut coded = |plain: &[u8]| {
        let (flags, number) = (Flags::RELIABLE, Sequence(1));
        let len = write_packet(&mut out, flags, number, 0, plain, ZeroCoding::IfShorter).unwrap();
        (Flags::from_byte(out[0]).has(Flags::ZERO_CODED), len - HEADER_BYTES)
    };
    assert_eq!(coded(&[1, 0, 2]), (false, 3));
    assert_eq!(coded(&[1, 0, 0, 2]), (false, 4));
    assert_eq!(coded(&[1, 0, 0, 0, 2]), (true, 4));
    assert_eq!(coded(&[1]), (false, 1));
}

#[test]
fn packets_that_do_not_fit_are_refused() {
    let mut out = [0; 10];
    let no_room = Err(WriteError::NoRoom { room: 10 });
    let mut write =
        |plain: &[u8], coding| write_packet(&mut out, Flags::NONE, Sequence(0), 0, plain, coding);
    assert_eq!(write(&[1; 5], ZeroCoding::Never), no_room);
    assert_eq!(write(&[1; 5], ZeroCoding::IfShorter), no_room);
    assert_eq!(write(&[1; 5], ZeroCoding::Always), no_room);
    // Longer than the space, but not when coded.
    assert_eq!(write(&[0; 200], ZeroCoding::IfShorter), Ok(8));
    assert_eq!(append_acks(&mut out, 8, &[Sequence(1)]), no_room);
    assert_eq!(out[0], 0x80);
    let many = [Sequence(0); 256];
    assert_eq!(append_acks(&mut out, 8, &many), Err(WriteError::TooManyAcks { count: 256 }));
}

#[test]
fn acks_fill_a_datagram_and_no_more() {
    let mut out = [0; DATAGRAM_BYTES_SENT_MAX];
    let fit = acks_that_fit(1_000, DATAGRAM_BYTES_SENT_MAX);
    assert_eq!(fit, 49);
    assert_eq!(append_acks(&mut out, 1_000, &vec![Sequence(9); fit]), Ok(1_197));
    assert_eq!(acks_that_fit(7, DATAGRAM_BYTES_SENT_MAX), 255);
    assert_eq!(acks_that_fit(1_200, DATAGRAM_BYTES_SENT_MAX), 0);
    assert_eq!(acks_that_fit(2_000, DATAGRAM_BYTES_SENT_MAX), 0);
}

#[test]
fn sequence_numbers_wrap_at_24_bits() {
    assert_eq!(Sequence::of(0x0100_0000), Sequence(0));
    assert_eq!(Sequence::of(0x01FF_FFFF), Sequence(0x00FF_FFFF));
    assert_eq!(Sequence(0).widen(0x00FF_FFF0), 0x0100_0000);
    assert_eq!(Sequence(0x00FF_FFFF).widen(0x0100_0005), 0x00FF_FFFF);
    // A peer that does not wrap means the same.
    assert_eq!(Sequence(0x0100_0003).widen(0x0100_0000), 0x0100_0003);
    assert_eq!(Sequence(0x0100_0003).widen(0x0200_0000), 0x0200_0003);
}

#[test]
fn flags_have_letters() {
    assert_eq!(Flags::from_byte(0xF3).to_string(), "ZRSA");
    assert_eq!(Flags::NONE.to_string(), "");
    assert!(!Flags::RELIABLE.has(Flags::RELIABLE.with(Flags::RESENT)));
}

proptest! {
    #[test]
    fn any_bytes_parse_or_name_a_reason(
        flags: u8,
        rest in proptest::collection::vec(prop_oneof![Just(0_u8), Just(0xFF), any::<u8>()], 0..80),
    ) {
        let datagram = [&[flags][..], &rest].concat();
        let Ok(frame) = Frame::parse(&datagram) else { return Ok(()) };
        let mut space = [0; PAYLOAD_BYTES_MAX];
        match frame.open(&mut space) {
            Ok(payload) => prop_assert_eq!(frame.id(), Ok(payload.id)),
            Err(OpenError::Id(error)) => prop_assert_eq!(frame.id(), Err(error.into())),
            Err(_) => {}
        }
        if !frame.flags.has(Flags::ZERO_CODED) {
            prop_assert_eq!(written(&frame, frame.payload, ZeroCoding::Never), datagram);
        }
    }

    #[test]
    fn what_is_written_parses_to_itself(
        flags in any::<u8>().prop_map(|byte| Flags::from_byte(byte & 0x60)),
        sequence: u32,
        plain in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 5..90),
        acks in proptest::collection::vec(any::<u32>().prop_map(Sequence), 0..20),
        coding in prop_oneof![Just(ZeroCoding::Never), Just(ZeroCoding::IfShorter), Just(ZeroCoding::Always)],
    ) {
        let mut out = [0; 600];
        let mut len = write_packet(&mut out, flags, Sequence(sequence), 0, &plain, coding).unwrap();
        if !acks.is_empty() {
            len = append_acks(&mut out, len, &acks).unwrap();
        }
        let frame = Frame::parse(&out[..len]).unwrap();
        prop_assert_eq!(frame.sequence, Sequence(sequence));
        prop_assert_eq!(frame.acks.iter().collect::<Vec<_>>(), acks);
        let mut space = [0; PAYLOAD_BYTES_MAX];
        let payload = frame.open(&mut space).unwrap();
        prop_assert!(plain.ends_with(payload.body));
        prop_assert_eq!(frame.id(), Ok(payload.id));
    }
}
