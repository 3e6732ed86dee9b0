//! What leaves an endpoint: packets of its sessions, and answers to handshakes.

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;

use super::Endpoint;

/// Which part of what is sent at once the answers of handshakes have, where they want it: one in so
/// many.
const ANSWERS_SHARE: usize = 4;

impl Endpoint {
    /// Appends packets to send until `out` is full, `pool` is empty or nothing is left. Sessions
    /// leave a quarter of the room to the answers of handshakes that wait, so that a busy server
    /// still lets somebody in.
    pub fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let spared = self.answers.len().min(share_of(out.room()));
        self.transmit_sessions(now, pool, out, spared);
        self.transmit_answers(now, pool, out);
    }

    /// Sends what sessions have to send, but for the last `spared` places of `out`.
    fn transmit_sessions(
        &mut self,
        now: Timestamp,
        pool: &PacketPool,
        out: &mut DatagramBatch,
        spared: usize,
    ) {
        while let Some(slot) = self.dirty.front().copied() {
            if !self.transmit_challenges(now, slot, pool, out, spared)
                || !self.transmit(now, slot, pool, out, spared)
            {
                return;
            }
            self.dirty.pop_front();
            // It is not asked again whether it wants to send: one that wants to and cannot would keep
            // this loop turning.
            if let Some((_, session)) = self.at(slot) {
                session.queued = false;
                let deadline = session.deadline();
                self.timers.arm(slot, deadline);
            }
        }
    }

    fn transmit_answers(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while let Some(answer) = self.answers.front() {
            let Some(mut packet) = pool.take().filter(|_| out.room() > 0) else { return };
            if packet.fill(answer.bytes()) {
                self.stats.packets_out += 1;
                self.stats.bytes_out += packet.len() as u64;
                if out.push(Datagram { peer: answer.peer, at: now, packet }).is_err() {
                    return;
                }
            }
            self.answers.pop_front();
        }
    }

    /// Sends what a session has to send; false when there was no room for all of it but `spared`.
    fn transmit(
        &mut self,
        now: Timestamp,
        slot: u32,
        pool: &PacketPool,
        out: &mut DatagramBatch,
        spared: usize,
    ) -> bool {
        let place = self.slots.get_mut(slot as usize);
        let Some(session) = place.and_then(|place| place.session.as_deref_mut()) else {
            return true;
        };
        while session.connection.wants_transmit(now) {
            let Some(mut packet) = pool.take().filter(|_| out.room() > spared) else {
                return false;
            };
            session.connection.aim(session.route.aim());
            let Some(len) = session.connection.build(now, packet.room_mut()) else { break };
            packet.set_len(len);
            self.stats.packets_out += 1;
            self.stats.bytes_out += len as u64;
            let peer = session.route.destination(len);
            if out.push(Datagram { peer, at: now, packet }).is_err() {
                return false;
            }
        }
        true
    }
}

/// How much of so much room is for answers: where there is one place only, none.
fn share_of(room: usize) -> usize {
    (room / ANSWERS_SHARE).max(usize::from(room > 1))
}
