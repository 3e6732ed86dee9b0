//! Counters of circuits.

/// What one circuit did since it was opened, or all of a set did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CircuitStats {
    /// Datagrams that came and were packets.
    pub packets_in: u64,
    /// Bytes of these.
    pub bytes_in: u64,
    /// Datagrams that left.
    pub packets_out: u64,
    /// Bytes of these.
    pub bytes_out: u64,
    /// Messages handed on.
    pub messages_in: u64,
    /// Messages that left, resends not counted.
    pub messages_out: u64,
    /// Reliable packets taken, repeats not counted.
    pub reliable_in: u64,
    /// Reliable messages that left for the first time.
    pub reliable_out: u64,
    /// Packets that left again.
    pub resends_out: u64,
    /// Packets that came again: acknowledged again where reliable, and handed on once.
    pub duplicates_in: u64,
    /// Packets too far behind the newest to be known: acknowledged where reliable, not handed on.
    pub too_old_in: u64,
    /// Reliable messages that the peer acknowledged.
    pub acked: u64,
    /// Reliable messages given up.
    pub given_up: u64,
    /// `PacketAck` datagrams that left.
    pub packet_acks_out: u64,
    /// Acks that left in them.
    pub acks_packed: u64,
    /// Acks that rode behind other packets.
    pub acks_piggybacked: u64,
    /// Acks of numbers that were never sent.
    pub acks_unknown: u64,
    /// Packets that broke the format behind their header.
    pub malformed: u64,
    /// Messages that must not come this way: over UDP at all, or from a viewer.
    pub refused: u64,
    /// Packets that found no room: of the consumer, or for their ack.
    pub no_room_in: u64,
    /// Packets whose number jumped far ahead and that nothing followed yet.
    pub far_jumps: u64,
    /// Unreliable messages dropped because too many waited to leave.
    pub dropped_out: u64,
    /// Messages held back for older ones.
    pub held: u64,
    /// Of these, those that came or were handed on after newer ones.
    pub out_of_order: u64,
    /// Pings that left.
    pub pings_out: u64,
    /// Pings that were answered.
    pub pongs_in: u64,
}

impl CircuitStats {
    /// Adds the counters of another circuit.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.fields_mut().into_iter().zip(other.clone().fields_mut()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    const fn fields_mut(&mut self) -> [&mut u64; 26] {
        [
            &mut self.packets_in,
            &mut self.bytes_in,
            &mut self.packets_out,
            &mut self.bytes_out,
            &mut self.messages_in,
            &mut self.messages_out,
            &mut self.reliable_in,
            &mut self.reliable_out,
            &mut self.resends_out,
            &mut self.duplicates_in,
            &mut self.too_old_in,
            &mut self.acked,
            &mut self.given_up,
            &mut self.packet_acks_out,
            &mut self.acks_packed,
            &mut self.acks_piggybacked,
            &mut self.acks_unknown,
            &mut self.malformed,
            &mut self.refused,
            &mut self.no_room_in,
            &mut self.far_jumps,
            &mut self.dropped_out,
            &mut self.held,
            &mut self.out_of_order,
            &mut self.pings_out,
            &mut self.pongs_in,
        ]
    }
}

/// What a set of circuits dropped before it reached any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrangerStats {
    /// Datagrams that were no packets.
    pub malformed: u64,
    /// Packets from addresses without a circuit, that ask for none.
    pub unknown: u64,
    /// Packets that asked for a circuit and were refused.
    pub refused: u64,
    /// Of these, those for which the table was full.
    pub table_full: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_summed() {
        let mut one = CircuitStats::default();
        assert_eq!(size_of::<CircuitStats>(), one.fields_mut().len() * size_of::<u64>());
        for (value, field) in (1..).zip(one.fields_mut()) {
            *field = value;
        }
        let mut sum = one;
        sum.add(&one);
        assert_eq!((sum.packets_in, sum.pongs_in, sum.acked), (2, 52, 24));
    }
}
