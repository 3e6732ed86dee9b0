//! What leaves: packets with acks, messages and whatever else there is to say.

use twinspan_core::aead::TAG_BYTES;
use twinspan_core::bytes::{NoRoom, Writer};
use twinspan_core::time::Timestamp;
use twinspan_reliable::{Ack, Channel, StreamId};

use super::engine::{Engine, IN_USE};
use super::{Connection, Phase, SKIP_LEAST, SKIP_SPREAD, spread};
use crate::bulk::is_bulk;
use crate::error::SendError;
use crate::frames::{Built, CONTROL_ONCE, Control, PacketBuilder};
use crate::header::{Header, flag};
use crate::protection::Role;
use crate::reason::CloseReason;

/// What to seal a packet with beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sealing {
    pub(super) acked: Option<u64>,
    pub(super) flags: u8,
    pub(super) tag: u32,
    /// Its loss says nothing of how much the path bears.
    pub(super) is_probe: bool,
}

impl Connection {
    /// Queues a message.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        channel: Channel,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        self.check_sendable(channel)?;
        let config = &self.common.config;
        let engine = self.desk.live(now, &config.reliable, &mut self.jitter);
        engine.in_use_until = now.after(IN_USE);
        let Engine { sender, scratch, .. } = &mut *engine;
        if is_bulk(channel) {
            scratch.pack(bytes, |packed| sender.send(now, channel, packed))?;
        } else {
            sender.send(now, channel, bytes)?;
        }
        engine.wait_for_company(now, config.flush_delay, bytes.len());
        Ok(())
    }

    fn check_sendable(&self, channel: Channel) -> Result<(), SendError> {
        match self.close_reason() {
            Some(reason) => Err(SendError::Closed(reason)),
            None if channel.stream == StreamId::CONTROL => Err(SendError::ControlStream),
            None if self.keys.is_worn() => Err(SendError::Closed(CloseReason::KeyWornOut)),
            None => Ok(()),
        }
    }

    /// Whether [`build`](Self::build) has something to say.
    pub(crate) fn wants_transmit(&self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Open => {
                let due = self.ready || self.ping_due || self.desk.wants_to_send(now);
                let due = due || self.wants_mtu_probe(now);
                due && !self.keys.is_worn()
            }
            Phase::Closing(_) => self.ready,
            Phase::Closed(_) => false,
        }
    }

    /// Writes and seals the next packet at the front of `room` and returns its length.
    pub(crate) fn build(&mut self, now: Timestamp, room: &mut [u8]) -> Option<usize> {
        if !self.wants_transmit(now) {
            return None;
        }
        if let Phase::Closing(closing) = self.phase {
            return self.build_close(now, closing, room);
        }
        if self.wants_mtu_probe(now)
            && let Some(len) = self.build_mtu_probe(now, room)
        {
            return Some(len);
        }
        if let Some(engine) = self.desk.working() {
            engine.send_credit(now);
        }
        let mut builder = PacketBuilder::within(room, usize::from(self.mtu.current()))?;
        let acked = self.push_ack(now, &mut builder);
        let mut flags = 0;
        if self.ping_due {
            let control = match self.role {
                Role::Client => Control::Ping,
                Role::Server => Control::Time { nanos: now.as_nanos() },
            };
            // It is two or nine bytes behind an ack block: there is always room.
            let _ = builder.push(CONTROL_ONCE, None, None, control.to_bytes().as_slice());
            if self.probe {
                flags |= flag::PROBE;
            }
        }
        self.push_responses(&mut builder);
        flags |= self.ask(now);
        self.fill(now, &mut builder);
        if builder.is_empty() {
            // Nothing was due after all; an ack that waits stays wanted.
            self.ready = false;
            return None;
        }
        let built = builder.finish();
        self.seal(now, built, Sealing { acked, flags, ..Sealing::default() }, room)
    }

    /// Writes and seals one packet now: ack block, the message that `write` writes, queued frames.
    pub(crate) fn write_packet(
        &mut self,
        now: Timestamp,
        channel: Channel,
        tag: u32,
        room: &mut [u8],
        write: &mut dyn FnMut(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<usize, SendError> {
        self.check_sendable(channel)?;
        if channel.delivery.is_reliable() {
            return Err(SendError::NotOneTime);
        }
        let limit = usize::from(self.mtu.current());
        let mut builder = PacketBuilder::within(room, limit).ok_or(SendError::NoRoom)?;
        let acked = self.push_ack(now, &mut builder);
        let numbered = channel.delivery.is_numbered();
        let engine = self.desk.live(now, &self.common.config.reliable, &mut self.jitter);
        engine.in_use_until = now.after(IN_USE);
        let number = numbered.then(|| engine.sender.next_number(channel));
        let mut write = |out: &mut Writer<'_>| {
            if is_bulk(channel) {
                out.u8(0)?;
            }
            write(out)
        };
        builder.write(channel, number, &mut write).map_err(|NoRoom| SendError::NoRoom)?;
        let flags = self.ask(now);
        self.fill(now, &mut builder);
        let built = builder.finish();
        self.seal(now, built, Sealing { acked, tag, flags, ..Sealing::default() }, room)
            .ok_or(SendError::Closed(CloseReason::KeyWornOut))
    }

    /// The flag of a packet that asks for an ack at once, when it shall.
    fn ask(&mut self, now: Timestamp) -> u8 {
        let asks = self.desk.working().is_some_and(|engine| engine.sender.take_ask(now));
        if asks { flag::PROBE } else { 0 }
    }

    /// Puts the ack block in when something arrived since the last; says what it acknowledges.
    fn push_ack(&mut self, now: Timestamp, builder: &mut PacketBuilder<'_>) -> Option<u64> {
        if !self.ack_wanted {
            return None;
        }
        let bits = self.replay.before_largest();
        let mut ack = Ack { largest: self.replay.largest()?, delay: self.acks.delay(now), bits };
        ack.lie(self.common.config.reliable.knobs.ack_ahead);
        builder.push_ack(&ack, self.coverage.from()).ok()?;
        Some(ack.largest)
    }

    /// Appends queued frames while they fit.
    fn fill(&mut self, now: Timestamp, builder: &mut PacketBuilder<'_>) {
        let Some(engine) = self.desk.working() else { return };
        engine.on_flush();
        while let Some(frame) = engine.sender.poll_frame(now, builder.room()) {
            // The engine keeps to the room it was given. Were it wrong, the frame would count as
            // sent and be resent when no ack comes.
            if builder.push(frame.channel, frame.number, frame.fragment, frame.body).is_err() {
                break;
            }
        }
    }

    /// Gives the packet its number, header and tag, and notes that it left. `None` when there is no
    /// key to seal it with: nothing leaves, and the connection ends with its next time-out, which is
    /// due at once.
    pub(super) fn seal(
        &mut self,
        now: Timestamp,
        built: Built,
        sealing: Sealing,
        room: &mut [u8],
    ) -> Option<usize> {
        let number = self.take_number();
        let Built { len, channel, flags, has_frames } = built;
        let phase = self.keys.advance(self.common.means(), now, number);
        let flags = flags | sealing.flags | phase;
        let len = len + TAG_BYTES;
        let header = Header { connection: self.aim.id_for(len), channel, flags, number };
        let packet = room.get_mut(..len).unwrap_or_default();
        if let Some(place) = packet.first_chunk_mut() {
            *place = header.to_bytes();
        }
        self.keys.seal(self.common.means(), number, packet)?;
        let eliciting = has_frames && matches!(self.phase, Phase::Open) && !sealing.is_probe;
        if eliciting || sealing.tag != 0 || sealing.is_probe {
            let engine = self.desk.live(now, &self.common.config.reliable, &mut self.jitter);
            engine.sender.on_sent(now, number, sealing.tag, len, eliciting);
        } else {
            self.desk.on_sent_quiet(now, number, len);
        }
        if let Some(largest) = sealing.acked {
            self.acks.on_ack_sent();
            self.coverage.on_ack_sent(number, largest);
            self.ack_wanted = false;
            self.lazy_ack_at = Timestamp::NEVER;
        }
        if matches!(self.phase, Phase::Open) {
            self.ready = self.ack_is_due(now) || self.desk.has_responses();
        }
        if self.ping_due {
            self.keepalive_wait = spread(self.common.config.keepalive_interval, &mut self.jitter);
        }
        // Whatever leaves keeps the path alive; only a probe insists on its answer.
        if !self.probe || flags & flag::PROBE != 0 {
            self.ping_due = false;
            self.probe = false;
        }
        if self.keys.take_ask() {
            self.probe();
        }
        self.spoke_at = now;
        self.traffic.packets_out += 1;
        self.traffic.bytes_out += len as u64;
        Some(len)
    }

    pub(super) fn take_number(&mut self) -> u64 {
        if self.common.config.skip_numbers && self.next_number == self.skip_at {
            self.skipped = self.next_number;
            self.next_number += 1;
            self.skip_at = self.next_number + SKIP_LEAST + self.skips.below(SKIP_SPREAD);
        }
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}
