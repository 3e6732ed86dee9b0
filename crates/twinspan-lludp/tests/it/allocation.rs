//! What fills the wire asks the allocator for nothing.

use twinspan_lludp::content::{LayerReader, PatchSize, object_updates};
use twinspan_lludp::messages::{
    AgentUpdate, ImprovedTerseObjectUpdateRef, LayerDataRef, ObjectUpdateRef, PacketAckRef,
};
use twinspan_lludp::{
    AnyMessage, Encoder, Frame, Message, MessageRef, PAYLOAD_BYTES_MAX, append_acks,
};

use crate::counting::calls;
use crate::login::datagrams;

#[test]
fn packets_are_taken_apart_and_hot_messages_decoded_without_allocation() {
    let datagrams = datagrams();
    let mut space = [0; PAYLOAD_BYTES_MAX];
    let (mut decoded, before) = (0, calls());
    for datagram in &datagrams {
        let frame = Frame::parse(datagram).unwrap();
        assert!(frame.acks.iter().count() < 256);
        let payload = frame.open(&mut space).unwrap();
        let body = payload.body;
        decoded += match frame.id().unwrap() {
            AgentUpdate::ID => usize::from(AgentUpdate::decode(body).is_ok()),
            twinspan_lludp::messages::PacketAck::ID => {
                PacketAckRef::decode_ref(body).unwrap().0.packets.iter().count()
            }
            twinspan_lludp::messages::ImprovedTerseObjectUpdate::ID => {
                ImprovedTerseObjectUpdateRef::decode_ref(body).unwrap().0.object_data.iter().count()
            }
            twinspan_lludp::messages::ObjectUpdate::ID => {
                ObjectUpdateRef::decode_ref(body).unwrap().0.object_data.iter().count()
            }
            twinspan_lludp::messages::LayerData::ID => {
                usize::from(LayerDataRef::decode_ref(body).is_ok())
            }
            _ => 0,
        };
    }
    assert_eq!(calls() - before, 0);
    assert!(decoded > 80, "{decoded}");
}

#[test]
fn messages_are_written_without_allocation() {
    let messages: Vec<_> = datagrams()
        .iter()
        .map(|datagram| {
            let mut space = [0; PAYLOAD_BYTES_MAX];
            let frame = Frame::parse(datagram).unwrap();
            let payload = frame.open(&mut space).unwrap();
            let message = AnyMessage::decode(payload.id, payload.body).unwrap().0;
            (frame.flags, frame.sequence, message)
        })
        .collect();
    let (mut encoder, mut out) = (Encoder::default(), [0; 2_000]);
    let before = calls();
    for (flags, sequence, message) in &messages {
        let len = encoder.any(&mut out, *flags, *sequence, message).unwrap();
        append_acks(&mut out, len, &[*sequence; 9]).unwrap();
    }
    assert_eq!(calls() - before, 0);
}

#[test]
fn objects_and_terrain_are_read_without_allocation() {
    let datagrams = datagrams();
    let mut space = [0; PAYLOAD_BYTES_MAX];
    let mut heights = [0.0; PatchSize::HEIGHTS_MAX];
    // Tables are made once, and used for ever.
    let mut count = |counts: bool| {
        let (mut objects, mut patches) = (0, 0);
        for datagram in &datagrams {
            let frame = Frame::parse(datagram).unwrap();
            let payload = frame.open(&mut space).unwrap();
            let done = object_updates(payload.id, payload.body, |_, update| {
                objects += usize::from(update.is_ok());
            });
            assert!(done.is_none_or(|done| done.is_ok()));
            if payload.id == twinspan_lludp::messages::LayerData::ID {
                let (layer, _) = LayerDataRef::decode_ref(payload.body).unwrap();
                let mut reader = LayerReader::new(layer.layer_data.data.bytes()).unwrap();
                while reader.next_patch(&mut heights).unwrap().is_some() {
                    patches += 1;
                }
            }
        }
        assert!(!counts || objects > 20 && patches > 100, "{objects} {patches}");
    };
    count(true);
    let before = calls();
    count(false);
    assert_eq!(calls() - before, 0);
}
