//! Every message: its layout, random instances, bodies that are cut or go on.

use std::collections::BTreeSet;

use proptest::prelude::*;
use twinspan_core::random::Stream;
use twinspan_lludp::messages::{
    ChatFromViewer, ImprovedInstantMessage, MapBlockReply, PacketAck, RegionHandshake,
    TeleportFinish, UseCircuitCode,
};
use twinspan_lludp::{
    AnyMessage, DecodeError, Deprecation, EncodeError, Frequency, LAYOUTS, Message, MessageId,
    MessageLayout, PAYLOAD_BYTES_MAX, Quantity, Tail, Trust, Uuid, Var1, Var2, layout,
};

use crate::random;

fn encoded(message: &AnyMessage, tail: Tail<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0; PAYLOAD_BYTES_MAX];
    let len = message.encode_with(tail, &mut out)?;
    out.truncate(len);
    Ok(out)
}

fn count(which: impl Fn(&MessageLayout) -> bool) -> usize {
    LAYOUTS.iter().filter(|layout| which(layout)).count()
}

#[test]
fn there_are_as_many_of_each_kind_as_the_protocol_has() {
    assert_eq!(LAYOUTS.len(), 483);
    let of = |frequency| count(|layout| layout.id.frequency() == frequency);
    assert_eq!(
        [Frequency::High, Frequency::Medium, Frequency::Low, Frequency::Fixed].map(of),
        [32, 17, 431, 3]
    );
    assert_eq!(count(|layout| layout.trust == Trust::Trusted), 218);
    assert_eq!(count(|layout| layout.zero_coded), 189);
    let so = |deprecation| count(|layout| layout.deprecation == deprecation);
    assert_eq!(
        [Deprecation::UdpDeprecated, Deprecation::Deprecated, Deprecation::UdpRefused].map(so),
        [17, 5, 4]
    );
    let blocks: Vec<_> = LAYOUTS.iter().flat_map(|layout| layout.blocks.iter()).collect();
    assert_eq!(blocks.len(), 904);
    let of = |quantity| blocks.iter().filter(|block| block.quantity == quantity).count();
    assert_eq!(of(Quantity::Single) + of(Quantity::Optional), 690);
    assert_eq!((of(Quantity::Variable), of(Quantity::Multiple(4))), (210, 3));
    assert_eq!(of(Quantity::Multiple(2)), 1);
    assert_eq!(blocks.iter().map(|block| block.fields.len()).sum::<usize>(), 2_983);
}

#[test]
fn numbers_and_names_are_unique_and_found() {
    let names: BTreeSet<_> = LAYOUTS.iter().map(|layout| &layout.name).collect();
    assert_eq!(names.len(), LAYOUTS.len());
    for one in LAYOUTS {
        assert_eq!(layout(one.id), Some(one), "{}", one.name);
    }
    assert_eq!(layout(MessageId::high(254).unwrap()), None);
    let unknown = AnyMessage::decode(MessageId::low(9_999).unwrap(), &[]);
    let error = unknown.unwrap_err().to_string();
    assert_eq!(error, "no message is numbered low 9999; load a template that has it");
}

#[test]
fn random_instances_of_every_message_round_trip_to_the_byte() {
    let mut random = Stream::new(1, "bodies", 0);
    for layout in LAYOUTS {
        for _ in 0..20 {
            let body = random::body(layout, &mut random);
            let (message, tail) = AnyMessage::decode(layout.id, &body).unwrap();
            assert_eq!((message.id(), tail), (layout.id, Tail::Exact));
            assert_eq!(encoded(&message, tail), Ok(body), "{message:?}");
        }
    }
}

#[test]
fn bytes_behind_a_message_are_kept() {
    let mut random = Stream::new(2, "bodies", 0);
    for layout in LAYOUTS {
        let mut body = random::body(layout, &mut random);
        body.extend([1, 2, 3]);
        let (message, tail) = AnyMessage::decode(layout.id, &body).unwrap();
        assert_eq!(tail, Tail::Extra(&[1, 2, 3]), "{}", layout.name);
        assert_eq!(encoded(&message, tail), Ok(body), "{message:?}");
    }
}

#[test]
fn a_body_cut_anywhere_names_the_field_or_ends_before_variable_blocks() {
    let mut random = Stream::new(3, "bodies", 0);
    for layout in LAYOUTS {
        let body = random::body(layout, &mut random);
        for cut in 0..body.len() {
            match AnyMessage::decode(layout.id, &body[..cut]) {
                Ok((message, tail)) => {
                    let mut last = layout.blocks.iter().rev();
                    match tail {
                        Tail::Absent(absent) => assert!(
                            last.by_ref()
                                .take(absent.into())
                                .all(|block| block.quantity == Quantity::Variable),
                            "{message:?}"
                        ),
                        Tail::Exact => panic!("{} of {} bytes: {message:?}", cut, body.len()),
                        Tail::Extra(_) => panic!("cut and longer: {message:?}"),
                    }
                    assert_eq!(encoded(&message, tail).unwrap(), body[..cut], "{message:?}");
                }
                Err(DecodeError::Short(short)) => {
                    assert_eq!(short.message, layout.name);
                    assert!(short.have < short.need, "{short}");
                    let block = layout.blocks.iter().find(|block| block.name == short.block);
                    let known = block.unwrap().fields.iter().any(|field| field.name == short.field);
                    assert!(known || short.field == "count", "{short}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_cut_body_says_where() {
    let body = [&[0; 32][..], &[5, 0, b'H', b'i']].concat();
    assert_eq!(
        ChatFromViewer::decode(&body).unwrap_err().to_string(),
        "ChatFromViewer ends in ChatData[0].Message: 4 bytes left where 7 are needed"
    );
    assert_eq!(
        PacketAck::decode(&[2, 0, 0, 0, 0, 1]).unwrap_err().to_string(),
        "PacketAck ends in Packets[1].ID: 1 bytes left where 4 are needed"
    );
}

#[test]
fn golden_bodies_both_ways() {
    let ack = PacketAck { packets: vec![Default::default(); 2] };
    let mut body = [0xAA; 16];
    assert_eq!(ack.encode(&mut body), Ok(9));
    assert_eq!(body[..10], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0xAA]);

    let mut chat = ChatFromViewer::default();
    chat.agent_data.agent_id = Uuid::from_u128(0xB1);
    chat.chat_data.message = Var2::text("Hi").unwrap();
    chat.chat_data.r#type = 1;
    chat.chat_data.channel = -2;
    let golden = [&[0; 15][..], &[0xB1], &[0; 16], b"\x03\0Hi\0\x01\xFE\xFF\xFF\xFF"].concat();
    let mut body = [0; 64];
    let len = chat.encode(&mut body).unwrap();
    assert_eq!(body[..len], golden);
    assert_eq!(ChatFromViewer::decode(&golden), Ok((chat, Tail::Exact)));
}

#[test]
fn an_older_handshake_without_its_last_block_is_legal() {
    let mut handshake = RegionHandshake::default();
    handshake.region_info.sim_name = Var1::text("Alpha").unwrap();
    let mut body = vec![0; 400];
    let len = handshake.encode(&mut body).unwrap();
    // The count of RegionInfo4.
    let (read, tail) = RegionHandshake::decode(&body[..len - 1]).unwrap();
    assert_eq!((&read, tail), (&handshake, Tail::Absent(1)));
    let mut again = vec![0; 400];
    assert_eq!(read.encode_with(tail, &mut again), Ok(len - 1));
    // What was put in since is not lost.
    handshake.region_info4.push(Default::default());
    assert_eq!(handshake.encode_with(tail, &mut again), Ok(len + 16));
}

#[test]
fn a_block_more_is_kept_as_it_came() {
    // What OpenSimulator adds to this message.
    let mut reply = vec![0; 64];
    let len = MapBlockReply::default().encode(&mut reply).unwrap();
    reply.truncate(len);
    reply.push(0);
    let (message, tail) = MapBlockReply::decode(&reply).unwrap();
    assert_eq!(tail, Tail::Extra(&[0]));
    let mut out = [0; 64];
    let len = message.encode_with(tail, &mut out).unwrap();
    assert_eq!(out[..len], reply);
}

#[test]
fn servers_may_leave_out_the_estate_of_an_instant_message() {
    let mut im =
        ImprovedInstantMessage { estate_block: Some(Default::default()), ..Default::default() };
    let mut body = [0; 200];
    let whole = im.encode(&mut body).unwrap();
    im.estate_block = None;
    let short = im.encode(&mut body).unwrap();
    // Four bytes of the estate, and the count of the block behind it.
    assert_eq!(short, whole - 5);
    let (read, tail) = ImprovedInstantMessage::decode(&body[..short]).unwrap();
    assert_eq!((&read, tail), (&im, Tail::Absent(1)));
    let mut again = [0; 200];
    assert_eq!(read.encode_with(tail, &mut again), Ok(short));
    assert_eq!(again, body);
    im.meta_data.push(Default::default());
    assert_eq!(im.encode(&mut body), Err(EncodeError::Gap));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let ack = PacketAck { packets: vec![Default::default(); 256] };
    let mut body = [0; 2_000];
    assert_eq!(ack.encode(&mut body), Err(EncodeError::TooManyBlocks { count: 256 }));
    assert_eq!(PacketAck::default().encode(&mut []), Err(EncodeError::NoRoom));
    assert_eq!(ChatFromViewer::default().encode(&mut [0; 38]), Err(EncodeError::NoRoom));
}

#[test]
fn secrets_appear_in_no_debug_output() {
    let mut opened = UseCircuitCode::default();
    opened.circuit_code.code = 43_608_812;
    opened.circuit_code.session_id = Uuid::from_u128(0x9ab1_7533);
    let text = format!("{opened:?}");
    assert!(text.contains("SessionID: (hidden)") && !text.contains("43608812"), "{text}");
    assert!(!text.contains("9ab17533"), "{text}");
    let mut arrived = TeleportFinish::default();
    arrived.info.seed_capability = Var2::text("http://sim/cap/secret").unwrap();
    let text = format!("{:?}", AnyMessage::from(arrived));
    assert!(text.contains("SeedCapability: (hidden)") && !text.contains("cap/secret"), "{text}");
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_name_a_reason(
        index in 0..LAYOUTS.len(),
        body in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..300),
    ) {
        match AnyMessage::decode(LAYOUTS[index].id, &body) {
            Ok((message, tail)) => {
                let out = encoded(&message, tail).unwrap();
                prop_assert_eq!(out.len(), body.len());
                let (again, _) = AnyMessage::decode(LAYOUTS[index].id, &out).unwrap();
                prop_assert_eq!(encoded(&again, tail).unwrap(), out);
            }
            Err(error) => prop_assert!(matches!(error, DecodeError::Short(_)), "{error}"),
        }
    }
}
