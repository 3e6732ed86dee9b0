//! Agreement with another implementation's codec: that of Hippolyzer.

use serde_json::Value as Json;
use twinspan_core::random::Stream;
use twinspan_lludp::{
    AnyMessage, DATAGRAM_BYTES_MAX, Deprecation, Encoder, FieldKind, Flags, Frame, HEADER_BYTES,
    LAYOUTS, MessageLayout, PAYLOAD_BYTES_MAX, Quantity, Sequence, Template, Trust, ValueRef,
};

pub(crate) use crate::hippolyzer::Peer;
use crate::{login, random};

/// Random instances of each message.
const INSTANCES: u64 = 6;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same words as the peer's.
fn words(value: ValueRef<'_>) -> String {
    let floats = |parts: &[f64]| {
        let bits = parts.iter().map(|part| format!("{:016x}", part.to_bits()));
        bits.collect::<Vec<_>>().join(" ")
    };
    match value {
        ValueRef::U8(value) => value.to_string(),
        ValueRef::S8(value) => value.to_string(),
        ValueRef::Bool(value) => u8::from(value).to_string(),
        ValueRef::U16(value) => value.to_string(),
        ValueRef::S16(value) => value.to_string(),
        ValueRef::U32(value) => value.to_string(),
        ValueRef::S32(value) => value.to_string(),
        ValueRef::U64(value) => value.to_string(),
        ValueRef::F32(value) => floats(&[value.into()]),
        ValueRef::F64(value) => floats(&[value]),
        ValueRef::Uuid(value) => value.to_string(),
        ValueRef::Vector3(v) => floats(&[v.x, v.y, v.z].map(f64::from)),
        ValueRef::Vector3d(v) => floats(&[v.x, v.y, v.z]),
        ValueRef::Vector4(v) => floats(&[v.x, v.y, v.z, v.w].map(f64::from)),
        ValueRef::Quaternion(q) => floats(&[q.x, q.y, q.z].map(f64::from)),
        ValueRef::Ip(value) => value.to_string(),
        ValueRef::Port(value) => value.0.to_string(),
        ValueRef::Bytes(bytes) => hex(bytes),
        _ => panic!("a new value: {value:?}"),
    }
}

/// Every value of a message by the name of its place.
fn values(message: &AnyMessage) -> Json {
    let mut found = Vec::new();
    let mut last = ("", 0);
    message.visit(&mut |block, fields| {
        let index = if last.0 == block { last.1 + 1 } else { 0 };
        last = (block, index);
        fields.visit(&mut |field, value| {
            found.push(serde_json::json!([format!("{block}[{index}].{field}"), words(value)]));
        });
    });
    found.into()
}

/// Lets the peer read a packet and write it again, and compares all that it says.
fn agree(peer: &mut Peer, datagram: &[u8], message: &AnyMessage) {
    let answer = peer.ask(&hex(datagram));
    assert_eq!(answer["name"], message.layout().name.as_ref());
    assert_eq!(answer["values"], values(message), "{message:?}");
    assert_eq!(answer["hex"], hex(datagram), "{message:?}");
}

#[test]
fn random_instances_of_every_message_agree_both_ways() {
    let Some(mut peer) = Peer::open("peer.py") else { return };
    let mut random = Stream::new(11, "bodies", 0);
    let (mut encoder, mut coded) = (Encoder::default(), 0);
    for layout in LAYOUTS {
        for number in 0..INSTANCES {
            let body = random::body(layout, &mut random);
            let (message, _) = AnyMessage::decode(layout.id, &body).unwrap();
            let mut out = vec![0; 2 * PAYLOAD_BYTES_MAX];
            let flags = if number % 2 == 0 { Flags::RELIABLE } else { Flags::NONE };
            let sequence = Sequence(number as u32 * 1_000);
            let len = encoder.any(&mut out, flags, sequence, &message).unwrap();
            coded += u32::from(Frame::parse(&out[..len]).unwrap().flags.has(Flags::ZERO_CODED));
            agree(&mut peer, &out[..len], &message);
        }
    }
    assert!(coded > 100, "{coded} packets were zero-coded");
}

#[test]
fn the_longest_messages_agree_both_ways() {
    let Some(mut peer) = Peer::open("peer.py") else { return };
    let mut random = Stream::new(13, "bodies", 0);
    let (mut encoder, mut coded, mut longest) = (Encoder::default(), 0, 0);
    for layout in LAYOUTS {
        for growth in random::growths(layout) {
            let room = DATAGRAM_BYTES_MAX - HEADER_BYTES - layout.id.wire_bytes();
            let (body, _) = random::long_body(layout, growth, room, &mut random);
            let (message, _) = AnyMessage::decode(layout.id, &body).unwrap();
            let mut out = vec![0; DATAGRAM_BYTES_MAX];
            let len = encoder.any(&mut out, Flags::RELIABLE, Sequence(7), &message).unwrap();
            coded += u32::from(Frame::parse(&out[..len]).unwrap().flags.has(Flags::ZERO_CODED));
            longest = longest.max(len);
            agree(&mut peer, &out[..len], &message);
        }
    }
    assert_eq!(longest, DATAGRAM_BYTES_MAX);
    assert!(coded > 100, "{coded} packets were zero-coded");
}

#[test]
fn the_packets_of_a_login_mean_the_same_to_both() {
    let Some(mut peer) = Peer::open("peer.py") else { return };
    let mut compared = 0;
    for datagram in login::datagrams() {
        let mut space = [0; PAYLOAD_BYTES_MAX];
        let payload = Frame::parse(&datagram).unwrap().open(&mut space).unwrap();
        let (message, tail) = AnyMessage::decode(payload.id, payload.body).unwrap();
        if tail == twinspan_lludp::Tail::Exact {
            agree(&mut peer, &datagram, &message);
            compared += 1;
        }
    }
    assert_eq!(compared, 139);
}

#[test]
fn every_message_consists_of_the_same() {
    let Some(mut peer) = Peer::open("peer.py") else { return };
    let answer = peer.ask("templates");
    let theirs = answer["messages"].as_array().unwrap();
    assert_eq!(theirs.len(), LAYOUTS.len());
    for theirs in theirs {
        let name = theirs["name"].as_str().unwrap();
        let ours = LAYOUTS.iter().find(|layout| layout.name == name);
        assert_eq!(described(ours.unwrap()), *theirs, "{name}");
    }
}

/// A layout in the peer's words.
fn described(layout: &MessageLayout) -> Json {
    let wire = layout.id.wire().to_be_bytes();
    let blocks = layout.blocks.iter().map(|block| {
        let (kind, number) = match block.quantity {
            Quantity::Single | Quantity::Optional => (0, 0),
            Quantity::Multiple(count) => (1, count),
            Quantity::Variable => (2, 0),
        };
        let fields = block.fields.iter().map(|field| {
            let (kind, size) = kind_of(field.kind);
            serde_json::json!([field.name, kind, size])
        });
        serde_json::json!([block.name, kind, number, fields.collect::<Vec<_>>()])
    });
    serde_json::json!({
        "name": layout.name,
        "frequency": layout.id.frequency().name().to_uppercase(),
        "number": hex(&wire[4 - layout.id.wire_bytes()..]),
        "trusted": layout.trust == Trust::Trusted,
        "zero": layout.zero_coded,
        "deprecation": match layout.deprecation {
            Deprecation::None => "NOTDEPRECATED",
            Deprecation::Deprecated => "DEPRECATED",
            Deprecation::UdpDeprecated => "UDPDEPRECATED",
            Deprecation::UdpRefused => "UDPBLACKLISTED",
        },
        "blocks": blocks.collect::<Vec<_>>(),
    })
}

/// A type in the peer's words, and the size that it names with it.
fn kind_of(kind: FieldKind) -> (String, i32) {
    let name = match kind {
        FieldKind::Uuid => "LLUUID".into(),
        FieldKind::Vector3 | FieldKind::Vector3d | FieldKind::Vector4 | FieldKind::Quaternion => {
            format!("LL{kind:?}")
        }
        FieldKind::Ip => "IP_ADDR".into(),
        FieldKind::Port => "IP_PORT".into(),
        FieldKind::Fixed(bytes) => return ("MVT_FIXED".into(), bytes.into()),
        FieldKind::Variable1 => return ("MVT_VARIABLE".into(), 1),
        FieldKind::Variable2 => return ("MVT_VARIABLE".into(), 2),
        kind => format!("{kind:?}").to_uppercase(),
    };
    (format!("MVT_{name}"), kind.bytes_min() as i32)
}

#[test]
fn a_template_read_at_run_time_is_the_one_built_in() {
    let Some(mut peer) = Peer::open("peer.py") else { return };
    let answer = peer.ask("templates");
    let template = Template::parse(answer["text"].as_str().unwrap()).unwrap();
    let mut builtin: Vec<MessageLayout> = LAYOUTS.to_vec();
    for block in builtin.iter_mut().flat_map(|layout| layout.blocks.to_mut()) {
        if block.quantity == Quantity::Optional {
            block.quantity = Quantity::Single;
        }
    }
    assert_eq!(template.messages(), builtin);
    // And its values are the same that the structs have.
    let mut random = Stream::new(12, "bodies", 0);
    for layout in LAYOUTS {
        let body = random::body(layout, &mut random);
        let (dynamic, tail) = template.decode(layout.id, &body).unwrap();
        let (message, _) = AnyMessage::decode(layout.id, &body).unwrap();
        let mut found = Vec::new();
        for blocks in &dynamic.blocks {
            for (index, item) in blocks.items.iter().enumerate() {
                for (field, value) in dynamic.fields(&blocks.name).unwrap().iter().zip(item) {
                    let place = format!("{}[{index}].{field}", blocks.name);
                    found.push(serde_json::json!([place, words(value.as_ref())]));
                }
            }
        }
        assert_eq!(Json::from(found), values(&message), "{message:?}");
        let mut out = [0; PAYLOAD_BYTES_MAX];
        let len = template.encode(&dynamic, tail, &mut out).unwrap();
        assert_eq!(out[..len], body, "{message:?}");
    }
}
