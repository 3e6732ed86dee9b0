//! Messages as long as they can be: every variable field and every number of blocks at its most.

use twinspan_core::random::Stream;
use twinspan_lludp::messages::ObjectUpdate;
use twinspan_lludp::{
    ACKS_APPENDED_MAX, AnyMessage, DATAGRAM_BYTES_MAX, EncodeError, Encoder, ExpandError, Flags,
    Frame, FrameError, HEADER_BYTES, LAYOUTS, Message, OpenError, PAYLOAD_BYTES_MAX, Sequence,
    Tail, Var2, WriteError, ZeroCoding, append_acks, write_packet,
};

use crate::random::{self, Growth};

/// Room for any body whose largest part is as large as its count or length can say.
const BODY_BYTES: usize = 200_000;

/// A body again, from what was decoded.
fn again(message: &AnyMessage, tail: Tail<'_>, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; body.len() + 256];
    let len = message.encode_with(tail, &mut out).unwrap();
    out.truncate(len);
    out
}

#[test]
fn every_field_and_number_of_blocks_round_trips_at_its_most() {
    let mut random = Stream::new(21, "bodies", 0);
    // Of fields those of 255 bytes at most, and the longer ones.
    let (mut blocks, mut fields) = (0, [0; 2]);
    for layout in LAYOUTS {
        for growth in random::growths(layout) {
            let (body, grown) = random::long_body(layout, growth, BODY_BYTES, &mut random);
            match growth {
                Growth::Blocks(_) => {
                    assert_eq!(grown, 255, "{}", layout.name);
                    blocks += 1;
                }
                Growth::Field(block, field) => {
                    let kind = layout.blocks[block].fields[field].kind;
                    assert_eq!(Some(grown), random::bytes_max(kind), "{}", layout.name);
                    fields[usize::from(grown > 255)] += 1;
                }
            }
            let (message, tail) = AnyMessage::decode(layout.id, &body).unwrap();
            assert_eq!((message.id(), tail), (layout.id, Tail::Exact), "{}", layout.name);
            assert!(again(&message, tail, &body) == body, "{}: {growth:?}", layout.name);
            // What is behind it is still told apart.
            let longer = [&body[..], &[1, 2, 3]].concat();
            let (message, tail) = AnyMessage::decode(layout.id, &longer).unwrap();
            assert_eq!(tail, Tail::Extra(&[1, 2, 3]), "{}", layout.name);
            assert!(again(&message, tail, &longer) == longer, "{}: {growth:?}", layout.name);
            // And a byte less is a field that is cut, or blocks of none.
            if let Ok((message, tail)) = AnyMessage::decode(layout.id, &body[..body.len() - 1]) {
                assert!(matches!(tail, Tail::Absent(_)), "{}: {tail:?}", layout.name);
                assert!(again(&message, tail, &body) == body[..body.len() - 1], "{}", layout.name);
            }
            let mut small = vec![0; body.len() - 1];
            let (message, tail) = AnyMessage::decode(layout.id, &body).unwrap();
            assert_eq!(message.encode_with(tail, &mut small), Err(EncodeError::NoRoom));
        }
    }
    // All that there are in the protocol.
    assert_eq!((blocks, fields), (210, [289, 70]));
}

/// A packet that fills what a datagram may be, with as many acks behind it.
struct Full {
    datagram: Vec<u8>,
    acks: Vec<Sequence>,
    flags: Flags,
    sequence: Sequence,
}

fn acks_of(random: &mut Stream, count: usize) -> Vec<Sequence> {
    (0..count).map(|_| Sequence(random.next_u32())).collect()
}

fn full(
    random: &mut Stream,
    acks: usize,
    write: impl FnOnce(&mut [u8], Flags, Sequence) -> usize,
) -> Full {
    let sequence = Sequence(random.next_u32() & 0x00FF_FFFF);
    let flags = [Flags::NONE, Flags::RELIABLE, Flags::RELIABLE.with(Flags::RESENT)]
        [random.below(3) as usize];
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    let mut len = write(&mut datagram, flags, sequence);
    let acks = acks_of(random, acks);
    if !acks.is_empty() {
        len = append_acks(&mut datagram, len, &acks).unwrap();
    }
    datagram.truncate(len);
    Full { datagram, acks, flags, sequence }
}

impl Full {
    /// Takes the packet apart and compares all that it holds.
    fn holds(&self, message: &AnyMessage, body: &[u8]) -> Flags {
        let frame = Frame::parse(&self.datagram).unwrap();
        assert_eq!(frame.flags.has(Flags::RELIABLE), self.flags.has(Flags::RELIABLE));
        assert_eq!(frame.flags.has(Flags::RESENT), self.flags.has(Flags::RESENT));
        assert_eq!(frame.flags.has(Flags::ACKS), !self.acks.is_empty());
        assert_eq!(frame.sequence, self.sequence);
        assert_eq!(frame.acks.iter().collect::<Vec<_>>(), self.acks);
        assert_eq!(frame.id(), Ok(message.id()));
        let mut space = [0; PAYLOAD_BYTES_MAX];
        let payload = frame.open(&mut space).unwrap();
        assert_eq!((payload.id, payload.extra), (message.id(), &[][..]));
        assert!(payload.body == body, "{message:?}");
        let (read, tail) = AnyMessage::decode(payload.id, payload.body).unwrap();
        assert_eq!(tail, Tail::Exact);
        assert!(again(&read, tail, body) == body, "{message:?}");
        frame.flags
    }
}

#[test]
fn packets_as_long_as_a_datagram_round_trip_with_their_acks() {
    let mut random = Stream::new(22, "bodies", 0);
    let mut encoder = Encoder::default();
    let (mut coded, mut packets, mut longest) = (0, 0, 0);
    for layout in LAYOUTS {
        for growth in random::growths(layout) {
            let acks = [0, 1, ACKS_APPENDED_MAX][random.below(3) as usize];
            let behind = if acks == 0 { 0 } else { 4 * acks + 1 };
            let number = layout.id.wire_bytes();
            let room = DATAGRAM_BYTES_MAX - HEADER_BYTES - number - behind;
            let (body, _) = random::long_body(layout, growth, room, &mut random);
            let (message, _) = AnyMessage::decode(layout.id, &body).unwrap();
            let packet = full(&mut random, acks, |out, flags, sequence| {
                encoder.any(out, flags, sequence, &message).unwrap()
            });
            let flags = packet.holds(&message, &body);
            coded += u32::from(flags.has(Flags::ZERO_CODED));
            packets += 1;
            longest = longest.max(packet.datagram.len());
        }
    }
    assert_eq!(longest, DATAGRAM_BYTES_MAX);
    assert!(coded > 100 && packets > coded, "{coded} of {packets} packets were zero-coded");
}

#[test]
fn packets_that_are_zero_coded_in_any_case_round_trip_with_their_acks() {
    let mut random = Stream::new(23, "bodies", 0);
    for layout in LAYOUTS {
        for growth in random::growths(layout) {
            let acks = [0, 1, ACKS_APPENDED_MAX][random.below(3) as usize];
            let behind = if acks == 0 { 0 } else { 4 * acks + 1 };
            let number = layout.id.wire_bytes();
            // A zero alone becomes two bytes.
            let room = (DATAGRAM_BYTES_MAX - HEADER_BYTES - behind) / 2 - number;
            let (body, _) = random::long_body(layout, growth, room, &mut random);
            let (message, _) = AnyMessage::decode(layout.id, &body).unwrap();
            let plain = [&layout.id.wire().to_be_bytes()[4 - number..], &body].concat();
            let packet = full(&mut random, acks, |out, flags, sequence| {
                write_packet(out, flags, sequence, 0, &plain, ZeroCoding::Always).unwrap()
            });
            let flags = packet.holds(&message, &body);
            assert!(flags.has(Flags::ZERO_CODED), "{}: {growth:?}", layout.name);
        }
    }
}

#[test]
fn a_byte_more_than_a_payload_may_have_is_refused_by_both_ends() {
    let mut space = [0; PAYLOAD_BYTES_MAX];
    let mut out = [0; DATAGRAM_BYTES_MAX];
    for (bytes, opened) in [
        (PAYLOAD_BYTES_MAX, Ok(PAYLOAD_BYTES_MAX - 1)),
        (PAYLOAD_BYTES_MAX + 1, Err(ExpandError::TooLong { limit: PAYLOAD_BYTES_MAX })),
    ] {
        let mut plain = vec![0; bytes];
        plain[0] = 1;
        let len = write_packet(&mut out, Flags::NONE, Sequence(1), 0, &plain, ZeroCoding::Always)
            .unwrap();
        let payload = Frame::parse(&out[..len]).unwrap().open(&mut space);
        let len = payload.map(|payload| payload.body.len());
        assert_eq!(len, opened.map_err(OpenError::ZeroCoding), "{bytes} bytes");
    }
    // Number, 17 bytes of the region, count and fields of one object.
    let empty = ObjectUpdate { object_data: vec![Default::default()], ..Default::default() };
    let fewest = 1 + empty.encode(&mut out).unwrap();
    let mut encoder = Encoder::default();
    for (more, fits) in [(0, true), (1, false)] {
        let mut update = empty.clone();
        update.object_data[0].data = Var2::new(vec![0; PAYLOAD_BYTES_MAX - fewest + more]).unwrap();
        let written = encoder.packet(&mut out, Flags::NONE, Sequence(1), &update);
        let no_room = Err(WriteError::NoRoom { room: PAYLOAD_BYTES_MAX });
        assert_eq!(written.is_ok(), fits, "{written:?}");
        assert!(fits || written == no_room, "{written:?}");
    }
    let long = Frame::parse(&[0; DATAGRAM_BYTES_MAX + 1]);
    assert_eq!(long, Err(FrameError::Long { have: DATAGRAM_BYTES_MAX + 1 }));
}
