//! Acks that wait for a packet to ride in, or for enough company to leave alone.

use core::time::Duration;
use std::collections::VecDeque;

use twinspan_core::time::Timestamp;
use twinspan_lludp::{
    Flags, HEADER_BYTES, Message, Sequence, acks_that_fit, append_acks, messages::PacketAck,
};

use crate::config::{ACKS_PER_PACKET_MAX, ACKS_WAITING_MAX};

/// Room that is kept when a burst is over.
const KEPT: usize = 64;
/// Header, message number and count of a `PacketAck`.
const HEAD: usize = HEADER_BYTES + 4 + 1;

/// The acks of one circuit.
#[derive(Debug)]
pub(crate) struct AckQueue {
    waiting: VecDeque<Sequence>,
    /// When they leave alone at the latest; never while none waits.
    due: Timestamp,
}

impl AckQueue {
    pub(crate) const fn new() -> Self {
        Self { waiting: VecDeque::new(), due: Timestamp::NEVER }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < ACKS_WAITING_MAX
    }

    /// A reliable packet came. The first of a row sets the time; a full packet waits no longer.
    pub(crate) fn push(&mut self, now: Timestamp, delay: Duration, sequence: Sequence) {
        if !self.has_room() {
            return;
        }
        self.waiting.push_back(sequence);
        let full = self.waiting.len() >= ACKS_PER_PACKET_MAX;
        self.due = self.due.min(if full { now } else { now.after(delay) });
    }

    /// When acks leave alone.
    pub(crate) const fn due(&self) -> Timestamp {
        self.due
    }

    /// Appends as many as fit behind the packet of `len` bytes in `out`, and returns the new length
    /// and how many.
    pub(crate) fn append(&mut self, out: &mut [u8], len: usize, datagram: usize) -> (usize, usize) {
        let count = acks_that_fit(len, datagram.min(out.len())).min(self.waiting.len());
        if count == 0 {
            return (len, 0);
        }
        let acks = self.waiting.make_contiguous().get(..count).unwrap_or_default();
        let Ok(len) = append_acks(out, len, acks) else { return (len, 0) };
        self.forget(count);
        (len, count)
    }

    /// Writes a `PacketAck` under this number; returns its length and how many acks it has, or
    /// `None` when there are none or no room.
    pub(crate) fn pack(
        &mut self,
        out: &mut [u8],
        sequence: Sequence,
        datagram: usize,
    ) -> Option<(usize, usize)> {
        let room = datagram.min(out.len()).checked_sub(HEAD)? / 4;
        let count = self.waiting.len().min(ACKS_PER_PACKET_MAX).min(room);
        if count == 0 {
            return None;
        }
        let len = HEAD + 4 * count;
        let (head, body) = out.get_mut(..len)?.split_first_chunk_mut::<HEAD>()?;
        let [s0, s1, s2, s3] = sequence.0.to_be_bytes();
        let [m0, m1, m2, m3] = PacketAck::ID.wire().to_be_bytes();
        *head = [Flags::NONE.byte(), s0, s1, s2, s3, 0, m0, m1, m2, m3, count as u8];
        for (place, ack) in body.as_chunks_mut().0.iter_mut().zip(&self.waiting) {
            // In the body they are little-endian, other than behind a packet.
            *place = ack.0.to_le_bytes();
        }
        self.forget(count);
        Some((len, count))
    }

    fn forget(&mut self, count: usize) {
        self.waiting.drain(..count);
        if self.waiting.is_empty() {
            self.due = Timestamp::NEVER;
            if self.waiting.capacity() > 16 * KEPT {
                self.waiting.shrink_to(KEPT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_lludp::{Frame, MessageRef, PAYLOAD_BYTES_MAX, messages::PacketAckRef};

    const DELAY: Duration = Duration::from_millis(100);

    fn queue(count: u32) -> AckQueue {
        let mut acks = AckQueue::new();
        (0..count).for_each(|number| acks.push(Timestamp::START, DELAY, Sequence(number)));
        acks
    }

    #[test]
    fn a_packet_of_acks_has_golden_bytes() {
        let mut acks = queue(0);
        acks.push(Timestamp::START, DELAY, Sequence(0x0001_0203));
        acks.push(Timestamp::START, DELAY, Sequence(7));
        let mut out = [0; 64];
        let (len, count) = acks.pack(&mut out, Sequence(9), 1_200).unwrap();
        assert_eq!(count, 2);
        assert_eq!(
            out[..len],
            [0, 0, 0, 0, 9, 0, 0xFF, 0xFF, 0xFF, 0xFB, 2, 3, 2, 1, 0, 7, 0, 0, 0]
        );
        assert_eq!((acks.due(), acks.pack(&mut out, Sequence(9), 1_200)), (Timestamp::NEVER, None));
    }

    #[test]
    fn acks_wait_their_time_unless_a_packet_is_full() {
        let acks = queue(254);
        assert_eq!(acks.due(), Timestamp::START.after(DELAY));
        assert_eq!(queue(255).due(), Timestamp::START);
    }

    #[test]
    fn a_burst_leaves_in_full_packets() {
        let mut acks = queue(5_000);
        let (mut out, mut space) = ([0; 1_200], [0; PAYLOAD_BYTES_MAX]);
        let (mut seen, mut packets) = (Vec::new(), 0);
        while let Some((len, _)) = acks.pack(&mut out, Sequence(1), 1_200) {
            packets += 1;
            let payload = Frame::parse(&out[..len]).unwrap().open(&mut space).unwrap();
            let (read, _) = PacketAckRef::decode_ref(payload.body).unwrap();
            seen.extend(read.packets.iter().map(|packet| packet.id));
        }
        assert_eq!((packets, seen), (20, (0..5_000).collect::<Vec<u32>>()));
        assert!(acks.waiting.capacity() <= 16 * KEPT, "the room of the burst is given back");
    }

    #[test]
    fn they_ride_behind_a_packet_as_far_as_they_fit() {
        let mut acks = queue(10);
        let mut out = [0; 64];
        out[6] = 1;
        // Seven bytes of packet, one of count: 24 bytes are left for acks.
        let (len, count) = acks.append(&mut out, 7, 32);
        assert_eq!((len, count), (32, 6));
        let frame = Frame::parse(&out[..len]).unwrap();
        assert_eq!(frame.acks.iter().map(|ack| ack.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(acks.append(&mut out, 30, 32), (30, 0));
        assert_eq!(acks.append(&mut out, 7, 1_200).1, 4);
    }

    #[test]
    fn they_are_bounded() {
        let acks = queue(20_000);
        assert!(!acks.has_room());
        assert_eq!(acks.waiting.len(), ACKS_WAITING_MAX);
    }
}
