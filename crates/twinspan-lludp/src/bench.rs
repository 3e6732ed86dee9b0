//! The packets of a real login, to measure the codec with; whoever reads a clock calls this.

use crate::messages::{
    AgentUpdate, ImprovedTerseObjectUpdateRef, LayerDataRef, ObjectUpdateCachedRef,
    ObjectUpdateCompressedRef, ObjectUpdateRef, PacketAckRef,
};
use crate::{
    AnyMessage, DATAGRAM_BYTES_MAX, Encoder, Flags, Frame, Message, MessageRef, PAYLOAD_BYTES_MAX,
    Payload, Sequence,
};

/// Packets as they travelled, and their messages.
#[derive(Debug)]
pub struct Traffic {
    datagrams: Vec<Vec<u8>>,
    messages: Vec<(Flags, AnyMessage)>,
    encoder: Encoder,
    space: Box<[u8; PAYLOAD_BYTES_MAX]>,
    out: Box<[u8; DATAGRAM_BYTES_MAX]>,
}

impl Traffic {
    /// The packets of the login in `testdata/login.txt`; `None` if one of them cannot be read.
    pub fn login() -> Option<Self> {
        let lines = include_str!("../testdata/login.txt").lines();
        let hex = lines.filter_map(|line| line.strip_prefix("> ").or(line.strip_prefix("< ")));
        Self::new(hex.map(bytes).collect::<Option<_>>()?)
    }

    /// These packets; `None` if one of them cannot be read.
    pub fn new(datagrams: Vec<Vec<u8>>) -> Option<Self> {
        let mut space = Box::new([0; PAYLOAD_BYTES_MAX]);
        let mut messages = Vec::with_capacity(datagrams.len());
        for datagram in &datagrams {
            let frame = Frame::parse(datagram).ok()?;
            let payload = frame.open(&mut space).ok()?;
            let (message, _) = AnyMessage::decode(payload.id, payload.body).ok()?;
            messages.push((frame.flags.without(Flags::ZERO_CODED), message));
        }
        let out = Box::new([0; DATAGRAM_BYTES_MAX]);
        Some(Self { datagrams, messages, encoder: Encoder::default(), space, out })
    }

    /// How many packets there are.
    pub const fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Bytes of all packets.
    pub fn bytes(&self) -> usize {
        self.datagrams.iter().map(Vec::len).sum()
    }

    /// Takes every packet apart and decodes its message, borrowing where a message can. Returns how
    /// many could be decoded.
    pub fn decode(&mut self) -> usize {
        let space = &mut *self.space;
        let decoded = self.datagrams.iter().filter(|datagram| {
            let Ok(frame) = Frame::parse(datagram) else { return false };
            frame.open(space).is_ok_and(|payload| borrowed(&payload))
        });
        decoded.count()
    }

    /// The same, without borrowing.
    pub fn decode_owned(&mut self) -> usize {
        let space = &mut *self.space;
        let decoded = self.datagrams.iter().filter(|datagram| {
            let Ok(frame) = Frame::parse(datagram) else { return false };
            let Ok(payload) = frame.open(space) else { return false };
            let message = AnyMessage::decode(payload.id, payload.body);
            core::hint::black_box(&message).is_ok()
        });
        decoded.count()
    }

    /// Writes every message as a packet, zero-coded where that is worth it. Returns how many were
    /// written.
    pub fn encode(&mut self) -> usize {
        let Self { messages, encoder, out, .. } = self;
        let written = messages.iter().zip(0..).filter(|((flags, message), number)| {
            let len = encoder.any(out.as_mut_slice(), *flags, Sequence(*number), message);
            core::hint::black_box(&out);
            len.is_ok()
        });
        written.count()
    }
}

/// Decodes a message and touches what it has.
#[inline]
fn borrowed(payload: &Payload<'_>) -> bool {
    fn hold<T>(decoded: &Result<T, crate::DecodeError>) -> bool {
        core::hint::black_box(decoded).is_ok()
    }
    const ACK: u32 = crate::messages::PacketAck::ID.wire();
    const TERSE: u32 = crate::messages::ImprovedTerseObjectUpdate::ID.wire();
    const LAYER: u32 = crate::messages::LayerData::ID.wire();
    const OBJECT: u32 = crate::messages::ObjectUpdate::ID.wire();
    const CACHED: u32 = crate::messages::ObjectUpdateCached::ID.wire();
    const COMPRESSED: u32 = crate::messages::ObjectUpdateCompressed::ID.wire();
    const AGENT: u32 = AgentUpdate::ID.wire();
    match payload.id.wire() {
        ACK => hold(&PacketAckRef::decode_ref(payload.body)),
        TERSE => hold(&ImprovedTerseObjectUpdateRef::decode_ref(payload.body)),
        LAYER => hold(&LayerDataRef::decode_ref(payload.body)),
        OBJECT => hold(&ObjectUpdateRef::decode_ref(payload.body)),
        CACHED => hold(&ObjectUpdateCachedRef::decode_ref(payload.body)),
        COMPRESSED => hold(&ObjectUpdateCompressedRef::decode_ref(payload.body)),
        AGENT => hold(&AgentUpdate::decode(payload.body)),
        _ => hold(&AnyMessage::decode(payload.id, payload.body)),
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_the_login_is_measured() {
        let mut traffic = Traffic::login().unwrap();
        assert_eq!((traffic.len(), traffic.bytes()), (140, 21_680));
        assert_eq!([traffic.decode(), traffic.decode_owned(), traffic.encode()], [140, 140, 140]);
    }
}
