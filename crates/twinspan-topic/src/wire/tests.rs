use proptest::prelude::*;

use super::*;
use crate::greet::example;
use crate::probe::OfferedRoads;

#[test]
fn datagrams_have_their_golden_bytes() {
    let mut greeting = Vec::new();
    example().write(&mut greeting);
    let token = 0x0807_0605_0403_0201;
    let cookie = *b"the cookie bytes";
    let head =
        |kind: u8, what: u8| [&[kind, 1, what, 0][..], b"TwHu", &[1, 2, 3, 4, 5, 6, 7, 8]].concat();
    let greeted = example();
    let own_token = 9;
    for (packet, golden) in [
        (
            Packet::Hello { token, cookie, greeting: greeted.clone() },
            [&head(1, 0)[..], &cookie, &greeting].concat(),
        ),
        (Packet::Cookie { token, cookie }, [&head(2, 0)[..], &cookie].concat()),
        (
            Packet::Welcome { token, own_token, greeting: greeted.clone() },
            [&head(3, 0)[..], &[9, 0, 0, 0, 0, 0, 0, 0], &greeting].concat(),
        ),
        (
            Packet::Refused { token, reason: RefusedFor::Full, greeting: greeted },
            [&head(4, 1)[..], &greeting].concat(),
        ),
        (
            Packet::End { token, reason: EndReason::Silent, next: 258 },
            [&[6, 2][..], &[1, 2, 3, 4, 5, 6, 7, 8], &[2, 1, 0, 0, 0, 0, 0, 0]].concat(),
        ),
        (Packet::Reset { token }, [&[7, 0][..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat()),
        (
            Packet::SealedHello { token, cookie, cipher: Cipher::Aes256Gcm, message: &[7; 48] },
            [&head(8, 3)[..], &cookie, &[7; 48]].concat(),
        ),
        (Packet::SealedWelcome { token, message: &[7; 48] }, [&head(9, 0)[..], &[7; 48]].concat()),
        (Packet::Mismatch { token, what: Sealing::Key }, head(11, 2)),
        (Packet::Probe { token }, [&head(16, 0)[..], &[0; 32]].concat()),
        (
            Packet::Here {
                token,
                offer: Offer {
                    host: *b"a host's digest!",
                    roads: OfferedRoads(0b1011),
                    quic_port: 0x1234,
                },
            },
            [&head(17, 0)[..], b"a host's digest!", &[0b1011, 0, 0x34, 0x12]].concat(),
        ),
    ] {
        let has_end = !matches!(packet, Packet::SealedHello { .. } | Packet::SealedWelcome { .. });
        let mut bytes = Vec::new();
        packet.write(&mut bytes);
        assert_eq!(bytes, golden);
        assert_eq!(Packet::parse(&bytes), Ok(packet));
        if has_end {
            assert_eq!(Packet::parse(&[&bytes[..], &[0]].concat()), Err(WireError::Long));
        }
    }
}

#[test]
fn data_has_its_golden_bytes() {
    let mut out = [0; 100];
    let mut ack = Ack::single(0x1_0000_0005, Duration::from_micros(32));
    ack.bits[0] = 0b101;
    let mut writer = DataWriter::begin(&mut out, 7, 0x2_0000_0003).unwrap();
    assert!(writer.ack(&ack, 0));
    writer.start(4);
    writer.knows_start();
    writer.next(6);
    writer.asks();
    assert!(writer.frame(Frame { channel: 0xc3, number: 8, body: b"xy" }));
    let bytes = writer.finish();
    let golden: [&[u8]; 7] = [
        &[5, 0b110_1111, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0],
        &[5, 0, 0, 0, 2, 0, 1, 0b101],
        &[4, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 0, 0, 0, 0, 0, 0],
        &[0xc3, 8, 0],
        &[2, 0],
        b"xy",
    ];
    assert_eq!(out[..bytes], golden.concat());
    let Ok(Packet::Data(data)) = Packet::parse(&out[..bytes]) else { panic!("no data") };
    let ack = Some(Ack { largest: 5, ..ack });
    let body = Body::Frames(b"\xc3\x08\0\x02\0xy");
    let expected = Data {
        token: 7,
        number: 3,
        ack,
        start: Some(4),
        knows_start: true,
        next: Some(6),
        asks: true,
        body,
    };
    assert_eq!(data, expected);
    let Body::Frames(frames) = data.body else { panic!("no frames") };
    let frame = Frame { channel: 0xc3, number: 8, body: b"xy" };
    assert_eq!(next_frame(frames), Ok((frame, &[][..])));
}

#[test]
fn what_is_sealed_has_its_golden_bytes_inside() {
    let mut out = [0; 100];
    let mut writer = DataWriter::begin_sealed(&mut out, 7).unwrap();
    assert_eq!(writer.room(), 100 - 16 - 16);
    writer.next(6);
    let bytes = writer.finish();
    let golden: [&[u8]; 4] =
        [&[10, 0, 7, 0, 0, 0, 0, 0, 0, 0], &[0; 4], &[5, 8], &[6, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(out[..bytes], golden.concat());
    let inner = Inner::parse(&out[14..bytes], 7, 0x1_0000_0003);
    let Ok(Inner::Data(data)) = inner else { panic!("{inner:?}") };
    assert_eq!((data.token, data.number, data.next), (7, 3, Some(6)));
    let end = end_to_seal(7, EndReason::Violation, 258);
    let golden: [&[u8]; 5] =
        [&[10, 0, 7, 0, 0, 0, 0, 0, 0, 0], &[0; 4], &[6, 4], &[2, 1, 0, 0, 0, 0, 0, 0], &[0; 16]];
    assert_eq!(end, golden.concat());
    let inner = Inner::parse(&end[14..24], 7, 1);
    assert_eq!(inner, Ok(Inner::End { reason: EndReason::Violation, next: 258 }));
    assert_eq!(Inner::parse(&[7, 0], 7, 1), Err(WireError::Kind(7)));
    assert_eq!(
        Inner::parse(&[6, 9, 0, 0, 0, 0, 0, 0, 0, 0], 7, 1),
        Err(WireError::Field("reason"))
    );
    for verdict in [
        Verdict::Welcome { own_token: 9 },
        Verdict::Refused(RefusedFor::Full),
        Verdict::Refused(RefusedFor::Disagreement),
    ] {
        let mut bytes = Vec::new();
        verdict.write(&example(), &mut bytes);
        assert_eq!(Verdict::parse(&bytes), Ok((verdict, example())));
        bytes[0] = 3;
        assert_eq!(Verdict::parse(&bytes), Err(WireError::Field("verdict")));
    }
}

#[test]
fn what_goes_to_a_group_has_its_golden_bytes() {
    let mut greeting = Vec::new();
    example().write(&mut greeting);
    let publisher = example().publisher();
    let head = |flags: u8| [&[12, flags][..], b"01234567", &[9, 0, 0, 0, 0, 0, 0, 0]].concat();
    let next = [6, 1, 0, 0, 0, 0, 0, 0];
    let says = |next, leaves, body| Grouped { publisher, tag: 9, next, leaves, body };
    for (grouped, golden) in [
        (says(0, false, GroupedBody::Chunk(b"chunk")), [&head(16)[..], b"chunk"].concat()),
        (says(262, false, GroupedBody::Nothing), [&head(8)[..], &next].concat()),
        (says(262, true, GroupedBody::Nothing), [&head(12)[..], &next].concat()),
        (
            says(262, false, GroupedBody::Greeting(example())),
            [&head(40)[..], &next, &greeting].concat(),
        ),
    ] {
        let mut out = [0; 300];
        let bytes = grouped.write(&mut out).unwrap();
        assert_eq!(out[..bytes], golden);
        assert!(grouped.write(&mut out[..bytes - 1]).is_none(), "it does not fit");
        assert_eq!(Packet::parse(&golden), Ok(Packet::Grouped(grouped)));
    }
    let mut other = [&head(40)[..], &next, &greeting].concat();
    other[2] ^= 1;
    assert_eq!(Packet::parse(&other), Err(WireError::Field("publisher")));
    for flags in [0, 4, 24, 20, 32, 44, 48, 9, 128] {
        let bytes = [&head(flags)[..], &next].concat();
        assert_eq!(Packet::parse(&bytes), Err(WireError::Field("flag")), "{flags}");
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut out = [0; 20];
    assert!(DataWriter::begin(&mut out[..13], 1, 1).is_none());
    let mut writer = DataWriter::begin(&mut out, 1, 1).unwrap();
    let ack = Ack::single(1, Duration::ZERO);
    assert!(!writer.ack(&ack, 0) && !writer.chunk(&[0; 7]));
    assert!(!writer.frame(Frame { channel: 0, number: 0, body: &[0; 2] }));
    assert!(writer.chunk(&[1; 6]));
    assert_eq!(writer.finish(), 20);
    assert_eq!(out[1], HAS_CHUNK);
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(Packet::parse(&[]), Err(WireError::Short));
    assert_eq!(Packet::parse(&[0x45]), Err(WireError::Kind(0x45)));
    assert_eq!(Packet::parse(&[2, 1, 0, 0, b'T', b'w', b'H', b'x']), Err(WireError::Magic));
    assert_eq!(Packet::parse(b"\x02\x02\0\0TwHu"), Err(WireError::Version(2)));
    assert_eq!(Packet::parse(b"\x02\x01\x01\0TwHu"), Err(WireError::Field("zero")));
    let mut probe = Vec::new();
    Packet::Probe { token: 1 }.write(&mut probe);
    probe[40] = 1;
    assert_eq!(Packet::parse(&probe), Err(WireError::Field("zero")));
    let mut here = Vec::new();
    Packet::Here { token: 1, offer: Offer::default() }.write(&mut here);
    here[32] = 0x80;
    assert_eq!(Packet::parse(&here), Err(WireError::Field("offer")));
    let mut data = [0; 14];
    data[0] = 5;
    for (flags, error) in [
        (0x80, WireError::Field("flag")),
        (HAS_CHUNK | HAS_FRAMES, WireError::Field("flag")),
        (HAS_START, WireError::Short),
    ] {
        data[1] = flags;
        assert_eq!(Packet::parse(&data), Err(error));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_datagram_or_name_a_reason(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0_u8..19,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            let mut again = Vec::new();
            packet.write(&mut again);
            let is_other = matches!(packet, Packet::Data(_) | Packet::Grouped(_));
            prop_assert!(is_other || again == bytes);
            if let Packet::Data(Data { body: Body::Frames(mut rest), .. }) = packet {
                while let Ok((_, behind)) = next_frame(rest) {
                    prop_assert!(behind.len() < rest.len());
                    rest = behind;
                }
            }
        }
    }
}
