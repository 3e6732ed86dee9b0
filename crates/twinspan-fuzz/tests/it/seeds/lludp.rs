//! Packets of Second Life UDP.

use twinspan_lludp::{
    AnyMessage, Encoder, Flags, LAYOUTS, PAYLOAD_BYTES_MAX, Sequence, Var1, Var2, append_acks,
    compress, messages,
};

/// A message for each form that bodies have.
fn examples() -> Vec<AnyMessage> {
    let object = messages::ObjectUpdateObjectData {
        texture_entry: Var2::new([7; 40]).unwrap(),
        text: Var1::text("Hello").unwrap(),
        ..Default::default()
    };
    let update = messages::ObjectUpdate { object_data: vec![object; 2], ..Default::default() };
    let terse = messages::ImprovedTerseObjectUpdate {
        object_data: vec![Default::default(); 3],
        ..Default::default()
    };
    let mut chat = messages::ChatFromViewer::default();
    chat.chat_data.message = Var2::text("Hello").unwrap();
    let acks = messages::PacketAck { packets: vec![Default::default(); 5] };
    let im = messages::ImprovedInstantMessage::default();
    let update_agent = messages::AgentUpdate::default();
    let mut handshake = messages::RegionHandshake::default();
    handshake.region_info.sim_name = Var1::text("Alpha").unwrap();
    let near = messages::NeighborList::default();
    vec![
        update.into(),
        terse.into(),
        chat.into(),
        acks.into(),
        im.into(),
        update_agent.into(),
        handshake.into(),
        near.into(),
    ]
}

/// Whole packets: plain, zero-coded, with acks.
pub(super) fn packets() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::default();
    let written = examples().into_iter().zip(1..).map(|(message, number)| {
        let mut out = vec![0; 2_000];
        let flags = if number % 2 == 0 { Flags::RELIABLE } else { Flags::NONE };
        let mut len = encoder.any(&mut out, flags, Sequence(number), &message).unwrap();
        if number % 3 == 0 {
            len = append_acks(&mut out, len, &[Sequence(1), Sequence(0x0100_0000)]).unwrap();
        }
        out.truncate(len);
        out
    });
    written.collect()
}

/// Message numbers with their bodies.
pub(super) fn messages() -> Vec<Vec<u8>> {
    let written = examples().into_iter().map(|message| {
        let mut out = vec![0; PAYLOAD_BYTES_MAX];
        let id = message.id();
        let number = &id.wire().to_be_bytes()[4 - id.wire_bytes()..];
        let len = message.encode(&mut out).unwrap();
        [number, &out[..len]].concat()
    });
    assert!(LAYOUTS.len() > 400);
    written.collect()
}

/// Zero-coded payloads.
pub(super) fn payloads() -> Vec<Vec<u8>> {
    let mut coded: Vec<Vec<u8>> = messages()
        .iter()
        .map(|plain| {
            let mut out = vec![0; 2 * plain.len()];
            let len = compress(plain, &mut out).unwrap();
            out.truncate(len);
            out
        })
        .collect();
    coded.push(vec![1, 0, 0, 5, 2, 0, 255, 0, 1]);
    coded
}

/// Templates, each with a body behind a 0.
pub(super) fn templates() -> Vec<Vec<u8>> {
    let hello =
        b"// Any\nversion 2.0\n{ Hello High 200 Trusted Zerocoded\n{ Who Single { ID U32 } \
        { Name Variable 1 } }\n{ Rest Variable { Data Fixed 3 } } }\0\x01\0\0\0\x02Hi\x01abc";
    let bye =
        b"version 1 { Bye Fixed 0xFFFFFFFE NotTrusted Unencoded UDPDeprecated { Near Multiple 2 \
        { Port IPPORT } { Data Variable 2 } } }\0\x23\x28\x01\0a\x23\x28\x01\0b";
    vec![hello.to_vec(), bye.to_vec()]
}
