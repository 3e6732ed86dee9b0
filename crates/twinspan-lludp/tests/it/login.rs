//! The packets of a real login.

use std::collections::BTreeMap;

use twinspan_lludp::{
    AnyMessage, Encoder, Flags, Frame, PAYLOAD_BYTES_MAX, Sequence, Tail, ZeroCoding, append_acks,
    write_packet,
};

/// Every datagram of the capture.
pub(crate) fn datagrams() -> Vec<Vec<u8>> {
    let lines = include_str!("../../testdata/login.txt").lines();
    let hex = lines.filter_map(|line| line.strip_prefix("> ").or(line.strip_prefix("< ")));
    hex.map(|hex| {
        let pairs = hex.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        pairs.map(byte).collect()
    })
    .collect()
}

#[test]
fn every_packet_is_written_again_to_the_byte() {
    let (mut names, mut tails) = (BTreeMap::<_, u32>::new(), Vec::new());
    for datagram in datagrams() {
        let frame = Frame::parse(&datagram).unwrap();
        let mut space = [0; PAYLOAD_BYTES_MAX];
        let payload = frame.open(&mut space).unwrap();
        let (message, tail) = AnyMessage::decode(payload.id, payload.body).unwrap();
        if tail != Tail::Exact {
            tails.push((message.layout().name.as_ref(), tail == Tail::Absent(1)));
        }

        let layout = message.layout();
        let mut plain = vec![0; PAYLOAD_BYTES_MAX];
        let number = payload.id.wire_bytes();
        plain[..number].copy_from_slice(&payload.id.wire().to_be_bytes()[4 - number..]);
        let len = message.encode_with(tail, &mut plain[number..]).unwrap();
        plain.truncate(number + len);
        let zero = frame.flags.has(Flags::ZERO_CODED);
        let coding = if zero { ZeroCoding::Always } else { ZeroCoding::Never };
        let mut out = [0; 2 * PAYLOAD_BYTES_MAX];
        let mut len =
            write_packet(&mut out, frame.flags, frame.sequence, 0, &plain, coding).unwrap();
        if frame.flags.has(Flags::ACKS) {
            let acks: Vec<Sequence> = frame.acks.iter().collect();
            len = append_acks(&mut out, len, &acks).unwrap();
        }
        assert_eq!(out[..len], datagram, "{message:?}");

        // As we would send it: it says the same.
        let len = Encoder::default().any(&mut out, frame.flags, frame.sequence, &message).unwrap();
        // Simulators zero-code what the layout does not ask for.
        assert!(len <= datagram.len() || zero && !layout.zero_coded, "{message:?}");
        let mut space = [0; PAYLOAD_BYTES_MAX];
        let again = Frame::parse(&out[..len]).unwrap();
        let again = again.open(&mut space).unwrap();
        assert_eq!(AnyMessage::decode(again.id, again.body), Ok((message, Tail::Exact)));
        *names.entry(layout.name.as_ref()).or_default() += 1;
    }
    // The simulator knows nothing of attachments there.
    assert_eq!(tails, [("AvatarAppearance", true)]);
    assert_eq!(names.values().sum::<u32>(), 140);
    assert_eq!(names.len(), 24);
    assert_eq!((names["PacketAck"], names["ImprovedTerseObjectUpdate"]), (57, 26));
}

#[test]
fn what_the_packets_say_is_read() {
    let all: Vec<AnyMessage> = datagrams()
        .iter()
        .map(|datagram| {
            let mut space = [0; PAYLOAD_BYTES_MAX];
            let payload = Frame::parse(datagram).unwrap().open(&mut space).unwrap();
            AnyMessage::decode(payload.id, payload.body).unwrap().0
        })
        .collect();
    let handshake = all.iter().find_map(|message| match message {
        AnyMessage::RegionHandshake(handshake) => Some(handshake),
        _ => None,
    });
    let handshake = handshake.unwrap();
    assert_eq!(handshake.region_info.sim_name.as_text(), Ok("Alpha"));
    assert_eq!(handshake.region_info.water_height, 20.0);
    assert_eq!(handshake.region_info.sim_owner.to_string(), "11111111-2222-3333-4444-555555555555");
    assert_eq!(handshake.region_info4[0].region_protocols, 1 << 63);
    let arrived = all.iter().find_map(|message| match message {
        AnyMessage::AgentMovementComplete(arrived) => Some(arrived),
        _ => None,
    });
    let data = arrived.unwrap().data;
    assert_eq!((data.position.x, data.position.y), (128.0, 128.0));
    assert_eq!(data.region_handle, 256_000 << 32 | 256_000);
    let AnyMessage::UseCircuitCode(opened) = &all[0] else { panic!("{:?}", all[0]) };
    assert_eq!(opened.circuit_code.code, 43_608_812);
}
