//! What a connection says about paths and ids: challenges, their answers, ids in reserve.

use twinspan_core::bytes::Writer;
use twinspan_core::time::Timestamp;

use super::sending::Sealing;
use super::{Connection, Phase};
use crate::frames::{
    CONTROL_ONCE, CONTROL_SURE, Control, IdPair, PADDING, PacketBuilder, SPARE_IDS,
};
use crate::header::flag;
use crate::mtu::Mtu;
use crate::route::{Aim, Token};
use crate::ticket::Renewal;

/// Bytes of a packet that carries a challenge alone.
pub(crate) const CHALLENGE_BYTES: usize =
    crate::header::HEADER_BYTES + 1 + 8 + twinspan_core::aead::TAG_BYTES;

/// Answers to challenges that wait for a packet. The peer asks on two paths at once, at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Responses {
    tokens: [Token; 2],
    count: u8,
}

impl Responses {
    /// Past two, the oldest is forgotten: it will be asked for again.
    pub(super) const fn push(&mut self, token: Token) {
        let [first, second] = self.tokens;
        match self.count {
            0 => self.tokens = [token, second],
            1 => self.tokens = [first, token],
            _ => self.tokens = [second, token],
        }
        if self.count < 2 {
            self.count += 1;
        }
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = Token> + use<> {
        let count = usize::from(core::mem::take(&mut self.count));
        self.tokens.into_iter().take(count)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Connection {
    /// Whether the packet that authenticated last has the highest number of all.
    pub(crate) const fn is_newest(&self) -> bool {
        self.newest
    }

    /// Writes and seals a packet that challenges an address, and nothing else.
    pub(crate) fn build_challenge(
        &mut self,
        now: Timestamp,
        token: Token,
        room: &mut [u8],
    ) -> Option<usize> {
        if !matches!(self.phase, Phase::Open) {
            return None;
        }
        let mut builder = PacketBuilder::new(room)?;
        let control = Control::PathChallenge { token }.to_bytes();
        builder.push(CONTROL_ONCE, None, None, control.as_slice()).ok()?;
        let built = builder.finish();
        self.seal(now, built, Sealing::default(), room)
    }

    /// The peer wants to know whether its packets reach us.
    pub(super) fn on_challenge(&mut self, now: Timestamp, token: Token) {
        let config = &self.common.config.reliable;
        self.desk.live(now, config, &mut self.jitter).responses.push(token);
        self.ready = true;
    }

    /// Puts the answers that wait into a packet.
    pub(super) fn push_responses(&mut self, builder: &mut PacketBuilder<'_>) {
        let Some(engine) = self.desk.working() else { return };
        for token in engine.responses.take() {
            let control = Control::PathResponse { token }.to_bytes();
            // There are two at most, of nine bytes, at the front of a packet.
            let _ = builder.push(CONTROL_ONCE, None, None, control.as_slice());
        }
    }

    /// Queues a control message that must arrive; false when too many wait.
    fn send_sure(&mut self, now: Timestamp, control: Control<'_>) -> bool {
        let config = &self.common.config.reliable;
        let engine = self.desk.live(now, config, &mut self.jitter);
        engine.sender.send(now, CONTROL_SURE, control.to_bytes().as_slice()).is_ok()
    }

    /// Tells the client which ids it has in reserve from now on.
    pub(crate) fn send_ids(&mut self, now: Timestamp, ids: [u32; SPARE_IDS]) -> bool {
        self.send_sure(now, Control::NewIds { ids })
    }

    /// By which ids the other end is addressed from now on.
    pub(crate) const fn aim(&mut self, aim: Aim) {
        self.aim = aim;
    }

    /// Tells the server which ids of the client go with those in reserve.
    pub(crate) fn send_own_ids(&mut self, now: Timestamp, pairs: [IdPair; SPARE_IDS]) -> bool {
        matches!(self.phase, Phase::Open) && self.send_sure(now, Control::OwnIds { pairs })
    }

    /// Sends a ticket that takes the place of the one so far; the number by which
    /// [`has_arrived`](Self::has_arrived) knows it, `None` when too many messages wait.
    pub(crate) fn send_ticket(&mut self, now: Timestamp, renewal: Renewal<'_>) -> Option<u64> {
        if !matches!(self.phase, Phase::Open) || !self.send_sure(now, Control::Ticket(renewal)) {
            return None;
        }
        let next = self.desk.sender()?.next_message(CONTROL_SURE);
        next.checked_sub(1)
    }

    /// Whether the peer has this control message. An engine is parked once it has all of them.
    pub(crate) fn has_arrived(&self, number: u64) -> bool {
        self.desk.sender().is_none_or(|sender| sender.is_done(CONTROL_SURE, number))
    }

    /// Goes on under another id, and tells the server that the one so far is free.
    pub(crate) fn change_id(&mut self, now: Timestamp, id: u32) -> bool {
        if !matches!(self.phase, Phase::Open)
            || !self.send_sure(now, Control::RetireId { id: self.aim.id })
        {
            return false;
        }
        self.aim = Aim::at(id);
        self.on_path_changed(now);
        // Something must reach the server from the new address.
        self.probe();
        true
    }

    /// Whether the length of packets is to be probed: not while the session is idle.
    pub(super) fn wants_mtu_probe(&self, now: Timestamp) -> bool {
        self.mtu.next_at() <= now && self.desk.is_in_use(now)
    }

    /// Writes and seals a packet that is longer than any before, of a PING's worth.
    pub(super) fn build_mtu_probe(&mut self, now: Timestamp, room: &mut [u8]) -> Option<usize> {
        let size = usize::from(self.mtu.poll(now)?);
        let mut builder = PacketBuilder::within(room, size)?;
        let mut padding = |out: &mut Writer<'_>| {
            out.u8(PADDING)?;
            while out.room() > 0 {
                out.u8(0)?;
            }
            Ok(())
        };
        builder.write(CONTROL_ONCE, None, &mut padding).ok()?;
        let built = builder.finish();
        let sealing = Sealing { flags: flag::PROBE, is_probe: true, ..Sealing::default() };
        let len = self.seal(now, built, sealing, room)?;
        self.mtu.on_probe(now, self.next_number - 1);
        Some(len)
    }

    /// Bytes that a message written with [`write_packet`](Self::write_packet) can surely have on
    /// this path.
    pub(crate) const fn message_room(&self) -> usize {
        let longer = self.mtu.current() as usize - crate::header::PACKET_BYTES_MAX;
        super::message_room() + longer
    }

    /// What was known of the path is of another one.
    pub(crate) fn on_path_changed(&mut self, now: Timestamp) {
        self.mtu = Mtu::new(now, self.common.config.packet_bytes_max);
        let config = &self.common.config.reliable;
        self.desk.live(now, config, &mut self.jitter).sender.on_path_changed();
    }
}
