//! Golden bytes of packets' texts, round trips, and what the parser refuses.

use super::*;
use proptest::prelude::*;

const STATE: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);
const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const INPUT: Channel = Channel::new(Delivery::Unreliable, StreamId::INPUT);

fn header(built: Built) -> Header {
    Header { connection: 1, channel: built.channel, flags: built.flags, number: 1 }
}

/// Builds a packet and gives its header and its text.
fn build(work: impl FnOnce(&mut PacketBuilder<'_>)) -> (Header, Vec<u8>) {
    let mut room = [0xee; 2_048];
    let mut builder = PacketBuilder::new(&mut room).unwrap();
    work(&mut builder);
    let built = builder.finish();
    (header(built), room[HEADER_BYTES..built.len].to_vec())
}

fn frames<'a>(header: &Header, text: &'a [u8]) -> Result<Vec<WireFrame<'a>>, Violation> {
    let (_, mut text) = Text::parse(header, text)?;
    let mut frames = Vec::new();
    while let Some(frame) = text.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

fn ack(largest: u64, numbers: &[u64]) -> Ack {
    let mut ack = Ack::single(largest, Duration::from_micros(160));
    for number in numbers {
        let bit = largest - 1 - number;
        ack.bits[(bit / 64) as usize] |= 1 << (bit % 64);
    }
    ack
}

#[test]
fn a_single_frame_has_its_golden_bytes() {
    let (header, text) = build(|builder| {
        builder.push(STATE, Some(0x1_0203), None, b"abc").unwrap();
    });
    assert_eq!((header.channel, header.flags), (0x42, 0));
    assert_eq!(text, [0x03, 0x02, b'a', b'b', b'c']);
    let frame = WireFrame { channel: STATE, number: 0x0203, fragment: None, body: b"abc" };
    assert_eq!(frames(&header, &text), Ok(vec![frame]));
}

#[test]
fn an_unreliable_frame_carries_no_number() {
    let (header, text) = build(|builder| builder.push(INPUT, None, None, b"abc").unwrap());
    assert_eq!((header.channel, header.flags), (0x01, 0));
    assert_eq!(text, b"abc");
    let (header, text) = build(|builder| builder.push(INPUT, None, None, b"").unwrap());
    assert_eq!(frames(&header, &text).unwrap().len(), 1, "an empty message is a message");
}

#[test]
fn a_fragment_has_its_golden_bytes() {
    let fragment = Some(Fragment { index: 2, last: 5 });
    let (header, text) = build(|builder| {
        builder.push(EVENTS, Some(7), fragment, b"abc").unwrap();
    });
    assert_eq!((header.channel, header.flags), (0xc3, flag::FRAG));
    assert_eq!(text, [7, 0, 2, 5, b'a', b'b', b'c']);
    let frame = WireFrame { channel: EVENTS, number: 7, fragment, body: b"abc" };
    assert_eq!(frames(&header, &text), Ok(vec![frame]));
}

#[test]
fn a_bundle_with_acks_has_its_golden_bytes() {
    let fragment = Some(Fragment { index: 0, last: 1 });
    let (header, text) = build(|builder| {
        builder.push_ack(&ack(0x1_0000_0105, &[0x1_0000_0104, 0x1_0000_00fb]), 0).unwrap();
        builder.push(STATE, Some(9), None, b"abc").unwrap();
        builder.push(EVENTS, Some(7), fragment, b"de").unwrap();
        builder.push(CONTROL_ONCE, None, None, &[1]).unwrap();
    });
    assert_eq!((header.channel, header.flags), (0, flag::ACK | flag::BUNDLE));
    let expected = [
        &[0x05, 0x01, 0x00, 0x00, 10, 0, 2, 0b0000_0001, 0b0000_0010][..],
        &[5 << 1, 0x42, 9, 0, b'a', b'b', b'c'],
        &[6 << 1 | 1, 0xc3, 7, 0, 0, 1, b'd', b'e'],
        &[1 << 1, 0x00, 1],
    ];
    assert_eq!(text, expected.concat());
    let (block, _) = Text::parse(&header, &text).unwrap();
    let delay = Duration::from_micros(160);
    assert_eq!(block, Some(AckBlock { largest_low: 0x105, delay, bitmap: &[1, 2] }));
    let frames = frames(&header, &text).unwrap();
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[0].body, b"abc");
    assert_eq!(frames[1].fragment, fragment);
    assert_eq!(frames[2].channel, CONTROL_ONCE);
}

#[test]
fn control_messages_have_their_golden_bytes() {
    let offer = [&[9, 1][..], &[7; 32]].concat();
    let answer = [&[9, 2][..], &[8; 32]].concat();
    let ticket = [&[13][..], &[5; RENEWAL_BYTES]].concat();
    for (control, channel, bytes) in [
        (Control::Ticket(Renewal(&[5; RENEWAL_BYTES])), CONTROL_SURE, &ticket[..]),
        (Control::Rekey(Rekey::Offer([7; 32])), CONTROL_SURE, &offer),
        (Control::Rekey(Rekey::Answer([8; 32])), CONTROL_SURE, &answer),
        (Control::Ping, CONTROL_ONCE, &[1]),
        (Control::Close { reason: 33 }, CONTROL_ONCE, &[2, 33]),
        (Control::Credit { total: 0x0102 }, CONTROL_SURE, &[3, 2, 1, 0, 0, 0, 0, 0, 0]),
        (Control::Time { nanos: 0x0304 }, CONTROL_ONCE, &[4, 4, 3, 0, 0, 0, 0, 0, 0]),
        (Control::PathChallenge { token: *b"question" }, CONTROL_ONCE, b"\x05question"),
        (Control::PathResponse { token: *b"question" }, CONTROL_ONCE, b"\x06question"),
        (
            Control::NewIds { ids: [1, 2, 0x0403] },
            CONTROL_SURE,
            &[7, 1, 0, 0, 0, 2, 0, 0, 0, 3, 4, 0, 0],
        ),
        (
            Control::OwnIds {
                pairs: [(1, 2), (3, 0x0504), (0, 0)]
                    .map(|(server, client)| IdPair { server, client }),
            },
            CONTROL_SURE,
            &[14, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (Control::RetireId { id: 0x0a0b_0c0d }, CONTROL_SURE, &[8, 0x0d, 0x0c, 0x0b, 0x0a]),
    ] {
        assert_eq!(control.to_bytes().as_slice(), bytes);
        assert_eq!(Control::parse(channel, bytes), Ok(control));
        let other = if channel == CONTROL_ONCE { CONTROL_SURE } else { CONTROL_ONCE };
        assert_eq!(Control::parse(other, bytes), Err(Violation), "class");
        assert_eq!(Control::parse(channel, &[bytes, &[0]].concat()), Err(Violation), "length");
        assert_eq!(Control::parse(channel, &bytes[..bytes.len() - 1]), Err(Violation));
    }
    assert_eq!(Control::Padding.to_bytes().as_slice(), [12]);
    assert_eq!(Control::parse(CONTROL_ONCE, &[12, 0, 0]), Ok(Control::Padding), "of any length");
    for kind in (0..=u8::MAX).filter(|kind| !(1..=4).contains(kind) && *kind != 12) {
        assert_eq!(Control::parse(CONTROL_ONCE, &[kind]), Err(Violation), "kind {kind}");
    }
}

#[test]
fn an_ack_reaches_back_no_further_than_asked() {
    let all = ack(200, &(0..200).collect::<Vec<_>>());
    for (from, bytes) in [(0, 25), (1, 25), (192, 1), (199, 1), (200, 0), (300, 0)] {
        let (_, text) = build(|builder| builder.push_ack(&all, from).unwrap());
        assert_eq!(text.len(), 7 + bytes, "from {from}");
    }
    let gap = ack(200, &[100]);
    let (_, text) = build(|builder| builder.push_ack(&gap, 150).unwrap());
    assert_eq!(text.len(), 7, "zero bytes at the end are left out");
}

#[test]
fn a_packet_with_neither_ack_nor_frame_is_a_violation() {
    let plain = Header { connection: 1, channel: 0, flags: 0, number: 1 };
    assert_eq!(Text::parse(&plain, &[]).err(), Some(Violation));
    let bundle = Header { flags: flag::BUNDLE, ..plain };
    assert_eq!(Text::parse(&bundle, &[]).err(), Some(Violation));
    let ack = Header { flags: flag::ACK, ..plain };
    assert_eq!(frames(&ack, &[1, 0, 0, 0, 0, 0, 0]), Ok(Vec::new()), "an ack alone is fine");
    assert_eq!(Text::parse(&ack, &[1, 0, 0, 0, 0, 0, 129]).err(), Some(Violation), "long bitmap");
    assert_eq!(Text::parse(&ack, &[1, 0, 0, 0, 0, 0, 1]).err(), Some(Violation), "short bitmap");
}

#[test]
fn the_unreliable_class_has_no_fragments() {
    let header = Header { connection: 1, channel: 1, flags: flag::FRAG, number: 1 };
    assert_eq!(frames(&header, &[0, 0, 0, 1, 9]), Err(Violation));
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let (header, text) = build(|builder| {
        assert_eq!(builder.push(STATE, Some(1), None, &[7; 1_169]), Err(NoRoom));
        builder.push(STATE, Some(1), None, &[7; 1_100]).unwrap();
        assert_eq!(builder.room(), 65);
        assert_eq!(builder.push(EVENTS, Some(1), None, &[8; 62]), Err(NoRoom));
        builder.push(EVENTS, Some(1), None, &[8; 61]).unwrap();
        assert_eq!(builder.push(INPUT, None, None, &[]), Err(NoRoom));
    });
    assert_eq!(text.len(), 1_170);
    let frames = frames(&header, &text).unwrap();
    assert_eq!((frames[0].body, frames[1].body), (&[7; 1_100][..], &[8; 61][..]));
}

fn any_frame() -> impl Strategy<Value = (Channel, u64, Option<Fragment>, Vec<u8>)> {
    let fragment = prop::option::of((0_u8..4, 4_u8..64));
    (any::<u8>(), any::<u64>(), fragment, prop::collection::vec(any::<u8>(), 0..200)).prop_map(
        |(channel, number, fragment, body)| {
            let channel = Channel::from_byte(channel);
            let fragment = fragment.filter(|_| channel.delivery.is_numbered());
            (channel, number, fragment.map(|(index, last)| Fragment { index, last }), body)
        },
    )
}

proptest! {
    #[test]
    fn what_was_built_is_parsed(
        sent in prop::collection::vec(any_frame(), 1..12),
        acked in prop::option::of(prop::collection::vec(any::<u64>(), 16)),
    ) {
        let mut written = 0;
        let (header, text) = build(|builder| {
            if let Some(words) = &acked {
                let bits = core::array::from_fn(|index| words[index]);
                let ack = Ack { bits, ..Ack::single(1 << 40, Duration::ZERO) };
                builder.push_ack(&ack, 0).unwrap();
            }
            for (channel, number, fragment, body) in &sent {
                let number = channel.delivery.is_numbered().then_some(*number);
                if builder.push(*channel, number, *fragment, body).is_err() {
                    break;
                }
                written += 1;
            }
        });
        prop_assume!(written > 0);
        prop_assert!(text.len() <= PACKET_BYTES_MAX - HEADER_BYTES - TAG_BYTES);
        let alone_and_empty = written == 1 && sent[0].0.to_byte() == 0 && sent[0].3.is_empty();
        prop_assume!(!alone_and_empty);
        let parsed = frames(&header, &text).unwrap();
        prop_assert_eq!(parsed.len(), written);
        for (parsed, (channel, number, fragment, body)) in parsed.iter().zip(&sent) {
            let number = if channel.delivery.is_numbered() { *number as u16 } else { 0 };
            let expected = WireFrame { channel: *channel, number, fragment: *fragment, body };
            prop_assert_eq!(parsed, &expected);
        }
    }

    #[test]
    fn any_bytes_parse_or_are_a_violation(
        channel: u8,
        flags: u8,
        text in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bundle = flags & flag::BUNDLE != 0;
        let channel = if bundle { 0 } else { channel };
        let header = Header { connection: 1, channel, flags, number: 1 };
        let _ = frames(&header, &text);
        let _ = Control::parse(CONTROL_ONCE, &text);
        let _ = Control::parse(CONTROL_SURE, &text);
    }
}
