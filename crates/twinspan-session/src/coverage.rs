//! How far back an ack must reach: what the peer is known to know need not be told again.

/// One of our packets that carried an ack, watched until the peer acknowledges it.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// Our packet's number.
    number: u64,
    /// The largest number that its ack block named.
    largest: u64,
    /// The least number up to `largest` that arrived after it had left.
    late: Option<u64>,
}

/// Below which number the peer knows what arrived.
///
/// Without this every ack of a long session would carry its whole bitmap of 128 bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    from: u64,
    watched: Option<Watched>,
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
        if let Some(watched) = self.watched.as_mut().filter(|watched| number <= watched.largest) {
            watched.late = Some(watched.late.map_or(number, |late| late.min(number)));
        }
    }

    /// Our packet `number` left with an ack whose largest number is `largest`.
    pub(crate) const fn on_ack_sent(&mut self, number: u64, largest: u64) {
        if self.watched.is_none() {
            self.watched = Some(Watched { number, largest, late: None });
        }
    }

    /// The peer acknowledged our packet `number`.
    pub(crate) fn on_acked(&mut self, number: u64) {
        if let Some(watched) = self.watched.filter(|watched| watched.number == number) {
            let next = watched.largest.saturating_add(1);
            self.from = watched.late.map_or(next, |late| late.min(next));
            self.watched = None;
        }
    }

    /// The peer's ack that names our packet `largest` as the largest was worked off.
    pub(crate) fn on_ack_done(&mut self, largest: u64) {
        let lost = |watched: &Watched| watched.number.saturating_add(OVERTAKEN_MAX) < largest;
        if self.watched.as_ref().is_some_and(lost) {
            self.watched = None;
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
