//! What a circuit has to send, most urgent first.

use twinspan_core::reachable;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{CompletePingCheck, StartPingCheck};
use twinspan_lludp::{Flags, HEADER_BYTES, Message, Sequence};

use super::{Circuit, channel_of, may_leave};
use crate::config::Config;
use crate::flight::Flight;
use crate::message::Retry;
use crate::queue::Outgoing;
use crate::shared::Shared;
use crate::throttle::ThrottleClass;

impl Circuit {
    /// Writes the next datagram into `out` and returns its length; `None` when nothing may leave
    /// now.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Timestamp,
        shared: &mut Shared,
        out: &mut [u8],
    ) -> Option<usize> {
        self.expire(now, shared);
        if let Some(id) = self.pings.take_pong() {
            let mut pong = CompletePingCheck::default();
            pong.ping_id.ping_id = id;
            return self.send_own(&pong, shared, out);
        }
        let config = &shared.config;
        if let Some(id) = self.pings.take_ping(now, config.ping_interval, &mut self.jitter) {
            self.stats.pings_out += 1;
            let mut ping = StartPingCheck::default();
            ping.ping_id.ping_id = id;
            ping.ping_id.oldest_unacked = Sequence::of(self.oldest_unacked()).0;
            return self.send_own(&ping, shared, out);
        }
        if self.acks_starve
            && let Some(len) = self.send_acks(&shared.config, out)
        {
            return Some(len);
        }
        let len = self.send_again(now, &shared.config, out);
        let len = len.or_else(|| self.send_next(now, shared, out));
        if len.is_some() {
            self.acks_starve = self.acks.due() <= now;
            return len;
        }
        if self.acks.due() <= now { self.send_acks(&shared.config, out) } else { None }
    }

    /// The lowest number that waits for its ack, or the last one sent.
    fn oldest_unacked(&self) -> u64 {
        self.flights.oldest().unwrap_or(self.next.saturating_sub(1))
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        if number > 0 && Sequence::of(number).0 == 0 {
            reachable!("the packet numbers of a circuit began anew");
        }
        number
    }

    /// Writes an unreliable message of the circuit itself.
    fn send_own<M: Message>(
        &mut self,
        message: &M,
        shared: &mut Shared,
        out: &mut [u8],
    ) -> Option<usize> {
        let sequence = Sequence::of(self.next);
        let len = shared.encoder.packet(out, Flags::NONE, sequence, message).ok()?;
        self.take_number();
        Some(self.finish(len, &shared.config, out))
    }

    fn send_acks(&mut self, config: &Config, out: &mut [u8]) -> Option<usize> {
        let sequence = Sequence::of(self.next);
        let (len, count) = self.acks.pack(out, sequence, config.datagram_bytes_max)?;
        self.take_number();
        self.acks_starve = false;
        self.stats.packet_acks_out += 1;
        self.stats.acks_packed += count as u64;
        self.stats.packets_out += 1;
        self.stats.bytes_out += len as u64;
        Some(len)
    }

    /// Appends acks and counts: the packet leaves.
    fn finish(&mut self, len: usize, config: &Config, out: &mut [u8]) -> usize {
        let (len, acks) = self.acks.append(out, len, config.datagram_bytes_max);
        self.stats.acks_piggybacked += acks as u64;
        self.stats.packets_out += 1;
        self.stats.bytes_out += len as u64;
        len
    }

    /// A packet that was lost, under its number.
    fn send_again(&mut self, now: Timestamp, config: &Config, out: &mut [u8]) -> Option<usize> {
        self.engine.handle_timeout(now);
        let open = self.throttles.open_at(ThrottleClass::Resend) <= now;
        if self.engine.lost_waiting() == 0 || !open {
            return None;
        }
        let frame = self.engine.poll_frame(now, usize::MAX)?;
        let number = frame.resend_of?;
        let len = write(out, frame.body, number, Flags::RESENT)?;
        self.engine.on_sent(now, number, 0, len, true);
        self.throttles.take(now, ThrottleClass::Resend, len);
        self.stats.resends_out += 1;
        self.plan_resend(now, number, true, config);
        Some(self.finish(len, config, out))
    }

    /// A message that leaves for the first time.
    fn send_next(&mut self, now: Timestamp, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        let engine = &self.engine;
        let message = self.queues.pop(now, &self.throttles, |next| may_leave(engine, next))?;
        let number = self.take_number();
        let sent = if message.retry.is_reliable() {
            self.first_sending(now, number, &message, out)
        } else {
            write(out, &message.packet, number, Flags::NONE)
        };
        if let (Some(class), Some(len)) = (message.throttle, sent) {
            self.throttles.take(now, class, len);
        }
        self.stats.messages_out += u64::from(sent.is_some());
        if message.retry.is_reliable() && sent.is_some() {
            self.stats.reliable_out += 1;
            self.flights.insert(Flight {
                number,
                retry: message.retry,
                sent_at: now,
                until: message.until,
                resends: 0,
                delivery: message.delivery,
            });
            self.plan_resend(now, number, false, &shared.config);
        }
        shared.recycle(message.packet);
        Some(self.finish(sent?, &shared.config, out))
    }

    /// Hands a message to the engine, which keeps it until its ack, and writes what it gives back.
    fn first_sending(
        &mut self,
        now: Timestamp,
        number: u64,
        message: &Outgoing,
        out: &mut [u8],
    ) -> Option<usize> {
        let channel = channel_of(message.retry, message.packet.len());
        let taken = self.engine.send(now, channel, &message.packet).is_ok();
        debug_assert!(taken, "the engine was asked before");
        let frame = self.engine.poll_new_frame(now, usize::MAX)?;
        let len = write(out, frame.body, number, Flags::NONE);
        self.engine.on_sent(now, number, 0, message.packet.len(), true);
        len
    }

    /// Decides when a packet that just left leaves again, or that it does not.
    fn plan_resend(&mut self, now: Timestamp, number: u64, again: bool, config: &Config) {
        let Some(flight) = self.flights.get_mut(number) else { return };
        flight.resends += u32::from(again);
        let (retry, resends) = (flight.retry, flight.resends);
        let budget = match retry {
            Retry::Unreliable | Retry::Once => 0,
            Retry::Ordinary => config.resends_max,
            Retry::Critical => config.critical_resends_max,
        };
        if retry == Retry::Critical && resends < config.critical_quick_resends {
            self.engine.hasten_resend(number, now.after(config.critical_interval));
        }
        if resends >= budget
            && let Some(at) = self.engine.resend_at(number)
        {
            // What would have been the next resend is the end.
            self.flights.give_up_by(number, at);
        }
    }
}

/// Copies a packet that was written with number 0 and gives it its number.
fn write(out: &mut [u8], packet: &[u8], number: u64, flags: Flags) -> Option<usize> {
    let space = out.get_mut(..packet.len())?;
    space.copy_from_slice(packet);
    let [first, s0, s1, s2, s3, _] = space.first_chunk_mut::<HEADER_BYTES>()?;
    *first |= flags.byte();
    [*s0, *s1, *s2, *s3] = Sequence::of(number).0.to_be_bytes();
    Some(packet.len())
}
