//! How far back an ack must reach: what the peer is known to know need not be told again.

use twinspan_reliable::Ack;

/// One of our packets that carried an ack, watched until the peer acknowledges it.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// Our packet's number.
    number: u64,
    /// The largest number that its ack block named.
    largest: u64,
    /// The least number up to `largest` that arrived after it had left; `u64::MAX` for none.
    late: u64,
}

impl Watched {
    /// Number 0 is no packet's.
    const NONE: Self = Self { number: 0, largest: 0, late: u64::MAX };
}

impl Default for Watched {
    fn default() -> Self {
        Self::NONE
    }
}

/// Below which number the peer knows what arrived.
///
/// Without this every ack of a long session would carry its whole bitmap of 128 bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    from: u64,
    watched: Watched,
}

/// Packets of ours that may overtake the watched one before it is taken for lost.
const OVERTAKEN_MAX: u64 = 8;

impl Coverage {
    /// The least number that an ack must reach back to.
    pub(crate) const fn from(&self) -> u64 {
        self.from
    }

    /// The peer's packet `number` arrived.
    pub(crate) fn on_packet(&mut self, number: u64) {
        self.from = self.from.min(number);
        let watched = &mut self.watched;
        if watched.number != 0 && number <= watched.largest {
            watched.late = watched.late.min(number);
        }
    }

    /// Our packet `number` left with an ack whose largest number is `largest`.
    pub(crate) const fn on_ack_sent(&mut self, number: u64, largest: u64) {
        if self.watched.number == 0 {
            self.watched = Watched { number, largest, late: u64::MAX };
        }
    }

    /// The peer acknowledged our packet `number`.
    pub(crate) fn on_acked(&mut self, number: u64) {
        let Watched { number: watched, largest, late } = self.watched;
        if watched != 0 && watched == number {
            self.from = late.min(largest.saturating_add(1));
            self.watched = Watched::NONE;
        }
    }

    /// An ack came while no packet of ours was in flight but those that only acknowledge.
    pub(crate) fn on_quiet_ack(&mut self, ack: &Ack) {
        let watched = self.watched.number;
        if watched != 0 && ack.contains(watched) {
            self.on_acked(watched);
        }
        self.on_ack_done(ack.largest);
    }

    /// The peer's ack that names our packet `largest` as the largest was worked off.
    pub(crate) fn on_ack_done(&mut self, largest: u64) {
        let watched = self.watched.number;
        if watched != 0 && watched.saturating_add(OVERTAKEN_MAX) < largest {
            self.watched = Watched::NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_acked_ack_told_is_not_told_again() {
        let mut coverage = Coverage::default();
        (1..=10).for_each(|number| coverage.on_packet(number));
        assert_eq!(coverage.from(), 0);
        coverage.on_ack_sent(100, 10);
        coverage.on_packet(11);
        coverage.on_acked(99);
        assert_eq!(coverage.from(), 0);
        coverage.on_acked(100);
        assert_eq!(coverage.from(), 11);
    }

    #[test]
    fn a_late_packet_is_told_until_an_ack_of_it_arrived() {
        let mut coverage = Coverage::default();
        coverage.on_packet(10);
        coverage.on_ack_sent(100, 10);
        coverage.on_packet(4);
        coverage.on_acked(100);
        assert_eq!(coverage.from(), 4);
        coverage.on_ack_sent(101, 12);
        coverage.on_acked(101);
        assert_eq!(coverage.from(), 13);
        coverage.on_packet(7);
        assert_eq!(coverage.from(), 7);
    }

    #[test]
    fn a_lost_ack_is_no_longer_waited_for() {
        let mut coverage = Coverage::default();
        coverage.on_ack_sent(100, 10);
        coverage.on_ack_done(109);
        coverage.on_ack_sent(110, 20);
        coverage.on_acked(110);
        assert_eq!(coverage.from(), 21);
    }
}
