//! What a circuit does with a packet that came.

use twinspan_core::number::{Sighting, Window};
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{
    CloseCircuit, CompletePingCheck, CrossedRegion, EnableSimulator, OpenCircuit, PacketAck,
    PacketAckRef, StartPingCheck, TeleportFinish,
};
use twinspan_lludp::{
    Flags, Frame, Message, MessageId, MessageRef, SEQUENCE_BITS, Sequence, Trust, layout,
};

use super::{Circuit, LossMeter};
use crate::config::{ACKS_PER_PACKET_MAX, Config, NUMBERS_REMEMBERED, Role};
use crate::message::{CircuitEvent, CloseReason, Outcome, Received, Sink, Taken};
use crate::order::{Place, Reorder};
use crate::shared::{Shared, Spare};

/// How long a message that found no room after its order was made waits for the next try.
const ROOM_RETRY: core::time::Duration = core::time::Duration::from_millis(10);

/// Numbers until they begin anew.
const ROUND: u64 = 1 << SEQUENCE_BITS;

/// A packet, looked at.
#[derive(Clone, Copy)]
struct Packet<'a> {
    frame: &'a Frame<'a>,
    id: MessageId,
    number: u64,
}

impl Packet<'_> {
    const fn is_reliable(&self) -> bool {
        self.frame.flags.has(Flags::RELIABLE)
    }

    const fn is_resent(&self) -> bool {
        self.frame.flags.has(Flags::RESENT)
    }
}

impl Circuit {
    /// Takes a packet of `len` bytes. Its acks count whatever the rest of it is.
    //= lludp 6.1
    pub(crate) fn handle(
        &mut self,
        now: Timestamp,
        len: usize,
        frame: &Frame<'_>,
        shared: &mut Shared,
        sink: &mut dyn Sink,
    ) {
        self.stats.packets_in += 1;
        self.stats.bytes_in += len as u64;
        self.heard_at = now;
        // The packet that opens a circuit can acknowledge only what another one sent.
        let opens = !self.heard && shared.config.role == Role::Simulator;
        if !self.heard {
            self.heard = true;
            self.pings.begin(now);
            shared.events.push_back(CircuitEvent::Heard { addr: self.addr });
        }
        for ack in frame.acks.iter().filter(|_| !opens) {
            self.on_ack(now, ack, shared);
        }
        let Ok(id) = frame.id() else {
            self.stats.malformed += 1;
            return;
        };
        // The first one counts as one round on: what was sent before it, and is late, may be from
        // before the numbers began anew, and has a place below it then.
        let first = || ROUND + u64::from(frame.sequence.0);
        let expected = self.window.largest().map_or_else(first, |last| last + 1);
        let number = frame.sequence.widen(expected);
        if !self.is_plausible(number) {
            self.stats.far_jumps += 1;
            return;
        }
        let packet = Packet { frame, id, number };
        match id {
            PacketAck::ID | StartPingCheck::ID | CompletePingCheck::ID | CloseCircuit::ID => {
                self.on_control(now, packet, shared);
            }
            _ => self.on_message(now, packet, shared, sink),
        }
    }

    /// Whether a number may be believed. One far ahead of all others would make everything that
    /// comes after it look old, so a forged one could stop the circuit: the next packet has to
    /// agree with it.
    //= lludp 6.3
    fn is_plausible(&mut self, number: u64) -> bool {
        let near = self.window.largest().is_none_or(|last| number <= last + NUMBERS_REMEMBERED);
        let agrees = self.far.is_some_and(|far| number.abs_diff(far) <= NUMBERS_REMEMBERED);
        self.far = if near || agrees { None } else { Some(number) };
        near || agrees
    }

    fn on_ack(&mut self, now: Timestamp, ack: Sequence, shared: &mut Shared) {
        let number = ack.widen(self.next);
        if number < self.first {
            // Of the circuit before this one, whose messages have their outcome.
            return;
        }
        match self.engine.handle_ack_one(now, number) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(flight) = self.flights.remove(number) {
                    self.stats.acked += 1;
                    let outcome = Outcome::Acked { elapsed: flight.elapsed(now) };
                    shared.tell(self.addr, flight.delivery, outcome);
                }
            }
            Err(_) => self.stats.acks_unknown += 1,
        }
    }

    /// Messages of the circuit itself. Repeats do no harm, so they are not looked for: some
    /// simulators send their first ack outside their count.
    fn on_control(&mut self, now: Timestamp, packet: Packet<'_>, shared: &mut Shared) {
        let mut acks = [Sequence(0); ACKS_PER_PACKET_MAX];
        let mut count = 0;
        let Ok(payload) = packet.frame.open(&mut shared.space) else {
            self.stats.malformed += 1;
            return;
        };
        let body = payload.body;
        let read = match packet.id {
            PacketAck::ID => PacketAckRef::decode_ref(body).map(|(read, _)| {
                count = read.packets.len();
                acks.iter_mut().zip(read.packets).for_each(|(ack, of)| *ack = Sequence(of.id));
            }),
            StartPingCheck::ID => StartPingCheck::decode(body)
                .map(|(ping, _)| self.pings.on_ping(ping.ping_id.ping_id)),
            CompletePingCheck::ID => CompletePingCheck::decode(body)
                .map(|(pong, _)| self.on_pong(now, pong.ping_id.ping_id)),
            _ => {
                self.over = Some(CloseReason::Peer);
                Ok(())
            }
        };
        if read.is_err() {
            self.stats.malformed += 1;
            return;
        }
        acks.iter().take(count).for_each(|ack| self.on_ack(now, *ack, shared));
        self.keep(now, packet, &shared.config);
    }

    fn on_pong(&mut self, now: Timestamp, id: u8) {
        if let Some(rtt) = self.pings.on_pong(now, id) {
            self.stats.pongs_in += 1;
            self.engine.on_rtt_sample(now, rtt, core::time::Duration::ZERO);
        }
    }

    /// The packet is taken: its number is known from now on, and its ack waits to leave.
    fn keep(&mut self, now: Timestamp, packet: Packet<'_>, config: &Config) {
        let fresh = self.window.commit(packet.number) == Sighting::Fresh;
        // What comes as a resend was lost, or its ack was: to count it would hide every loss of what
        // is sent reliably, which is nearly all that regions send.
        if fresh && !packet.is_resent() {
            self.loss.on_packet(packet.number);
        }
        if packet.is_reliable() {
            if fresh {
                self.stats.reliable_in += 1;
            }
            if fresh && !packet.is_resent() {
                self.patience.on_first(now, packet.number);
            }
            let delay = self.patience.ack_delay(now, config, self.engine.rtt());
            // As it came: a peer that never wraps waits for all 32 bits.
            self.acks.push(now, delay, packet.frame.sequence);
        }
    }

    /// It had come before: its ack was lost, or is still on its way, or waited for too long.
    fn ack_again(&mut self, now: Timestamp, packet: Packet<'_>, config: &Config) {
        if packet.is_reliable() {
            if packet.is_resent() {
                self.patience.on_resend(now, packet.number);
            }
            self.acks.push(now, config.ack_delay, packet.frame.sequence);
        }
    }

    /// A peer that begins to count anew sends numbers that came on the circuit before this one, and
    /// not as resends: what was known of them is forgotten. One that counts on is believed to. What
    /// came on this circuit says nothing: a resend may overtake what it repeats.
    //= lludp 6.1
    fn settle_numbers(&mut self, packet: Packet<'_>) {
        if packet.is_resent() {
            return;
        }
        let Some(before) = self.before.take() else { return };
        if before.look(packet.number) != Sighting::Fresh {
            self.window = Window::default();
            self.loss = LossMeter::default();
            self.order = None;
        }
    }

    //= lludp 6.2
    fn on_message(
        &mut self,
        now: Timestamp,
        packet: Packet<'_>,
        shared: &mut Shared,
        sink: &mut dyn Sink,
    ) {
        self.settle_numbers(packet);
        match self.window.look(packet.number) {
            Sighting::Fresh => {}
            Sighting::Repeat => {
                self.stats.duplicates_in += 1;
                return self.ack_again(now, packet, &shared.config);
            }
            Sighting::TooOld => {
                self.stats.too_old_in += 1;
                return self.ack_again(now, packet, &shared.config);
            }
        }
        if is_refused(packet.id, shared.config.role) {
            self.stats.refused += 1;
            return self.keep(now, packet, &shared.config);
        }
        if packet.is_reliable() && !self.acks.has_room() {
            self.stats.no_room_in += 1;
            return;
        }
        let ordered = shared.is_ordered(packet.id);
        let Shared { config, spare, space, .. } = shared;
        let Ok(payload) = packet.frame.open(space) else {
            self.stats.malformed += 1;
            return;
        };
        let place = if ordered { self.place(now, packet, config) } else { Place::Next };
        if place == Place::Later {
            if !self.hold(now, packet, payload.body, (config, spare), sink) {
                self.stats.no_room_in += 1;
                return;
            }
        } else {
            let late = place == Place::Late;
            let message = Received {
                from: self.addr,
                id: packet.id,
                body: payload.body,
                number: packet.number,
                reliable: packet.is_reliable(),
                late,
            };
            if sink.on_message(now, message) == Taken::NoRoom {
                self.stats.no_room_in += 1;
                return;
            }
            self.stats.messages_in += 1;
            self.stats.out_of_order += u64::from(late);
        }
        self.keep(now, packet, config);
        self.release(now, (&*config, spare), sink);
    }

    /// Where a message belongs whose order was asked for.
    fn place(&mut self, now: Timestamp, packet: Packet<'_>, config: &Config) -> Place {
        let first = self.window.largest().map_or(packet.number, |last| last + 1);
        let order = self.order.get_or_insert_with(|| Box::new(Reorder::new(first)));
        if let Some(largest) = self.window.largest() {
            let came = |number| self.window.look(number) != Sighting::Fresh;
            order.on_packet(now, config.order_hold, largest, came);
        }
        order.place(packet.number)
    }

    /// Keeps a message until older ones came; false when there is no room.
    fn hold(
        &mut self,
        now: Timestamp,
        packet: Packet<'_>,
        body: &[u8],
        (config, spare): (&Config, &mut Spare),
        sink: &mut dyn Sink,
    ) -> bool {
        let full = |order: &Reorder| order.len() >= config.ordered_messages_max;
        if self.order.as_deref().is_some_and(full) {
            self.release_one(now, true, spare, sink);
        }
        let Some(order) = self.order.as_deref_mut().filter(|order| !full(order)) else {
            return false;
        };
        let mut kept = spare.take();
        kept.extend_from_slice(body);
        let what = (packet.number, packet.id, packet.is_reliable());
        order.hold(now, config.order_hold, what, kept);
        self.stats.held += 1;
        true
    }

    /// Hands on the messages whose turn it is.
    pub(crate) fn release(
        &mut self,
        now: Timestamp,
        (config, spare): (&Config, &mut Spare),
        sink: &mut dyn Sink,
    ) {
        loop {
            let Some(order) = self.order.as_deref_mut().filter(|order| order.len() > 0) else {
                return;
            };
            if let Some(largest) = self.window.largest() {
                let came = |number| self.window.look(number) != Sighting::Fresh;
                order.on_packet(now, config.order_hold, largest, came);
            }
            if !self.release_one(now, false, spare, sink) {
                return;
            }
        }
    }

    /// Hands on the oldest message that waits, if it is its turn or there must be room.
    fn release_one(
        &mut self,
        now: Timestamp,
        full: bool,
        spare: &mut Spare,
        sink: &mut dyn Sink,
    ) -> bool {
        let Some(order) = self.order.as_deref_mut() else { return false };
        let Some(held) = order.ready(now, full) else { return false };
        let message = Received {
            from: self.addr,
            id: held.id,
            body: &held.body,
            number: held.number,
            reliable: held.reliable,
            late: false,
        };
        if sink.on_message(now, message) == Taken::NoRoom {
            // Its ack may have left: it is kept and tried again.
            order.put_off(now.after(ROOM_RETRY));
            return false;
        }
        if let Some(body) = order.pop() {
            spare.put(body);
        }
        self.stats.messages_in += 1;
        true
    }
}

/// Whether a message must not come this way: four never travel over UDP, and simulators take none
/// that only simulators may send.
//= lludp 6.4
fn is_refused(id: MessageId, role: Role) -> bool {
    match id {
        OpenCircuit::ID | EnableSimulator::ID | CrossedRegion::ID | TeleportFinish::ID => true,
        _ if role == Role::Viewer => false,
        _ => layout(id).is_some_and(|layout| layout.trust == Trust::Trusted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_lludp::messages::{ChatFromSimulator, ChatFromViewer};
    use twinspan_lludp::{Deprecation, LAYOUTS};

    #[test]
    fn messages_that_may_not_come_over_udp_are_those_of_the_layouts() {
        for layout in LAYOUTS {
            let refused = layout.deprecation == Deprecation::UdpRefused;
            assert_eq!(is_refused(layout.id, Role::Viewer), refused, "{}", layout.name);
        }
    }

    #[test]
    fn a_simulator_takes_no_orders_from_viewers() {
        assert!(is_refused(ChatFromSimulator::ID, Role::Simulator));
        assert!(!is_refused(ChatFromViewer::ID, Role::Simulator));
        assert!(!is_refused(ChatFromSimulator::ID, Role::Viewer));
    }
}
