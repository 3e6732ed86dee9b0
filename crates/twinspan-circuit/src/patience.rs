//! How long acks may wait for a packet to ride in before the peer would send again.

use core::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_reliable::RttEstimator;

use crate::config::Config;

/// Packets whose arrival is remembered: a resend tells how long its sender waited.
const REMEMBERED: usize = 16;
/// Nobody is known to send again before this time, whatever the round trip.
const RESEND_MIN: Duration = Duration::from_millis(250);
/// Simulators wait for so many round trips before they send again.
const RESEND_ROUND_TRIPS: u32 = 5;
/// However long the round trip: messages of handshakes leave again after so long.
const RESEND_MAX: Duration = Duration::from_millis(500);
/// Timers are coarse at both ends.
const SLACK: Duration = Duration::from_millis(50);
/// A resend that was seen counts for so long: the peer measures its round trips anew.
const SEEN_FOR: Duration = Duration::from_secs(60);

/// What one circuit knows about its peer's resends.
#[derive(Debug)]
pub(crate) struct Patience {
    /// Reliable packets that came for the first time and not as resends, and when.
    first: [(u64, Timestamp); REMEMBERED],
    next: usize,
    /// The shortest time after which something came again though it had come.
    seen: Duration,
    /// Until when that counts.
    seen_until: Timestamp,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Self {
            first: [(u64::MAX, Timestamp::START); REMEMBERED],
            next: 0,
            seen: Duration::MAX,
            seen_until: Timestamp::START,
        }
    }

    /// A reliable packet came, and not as a resend.
    pub(crate) fn on_first(&mut self, now: Timestamp, number: u64) {
        if let Some(place) = self.first.get_mut(self.next) {
            *place = (number, now);
        }
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// A packet that had come before came again as a resend.
    pub(crate) fn on_resend(&mut self, now: Timestamp, number: u64) {
        let came = self.first.iter().find(|(of, _)| *of == number);
        let Some(waited) = came.map(|(_, at)| now.since(*at)) else { return };
        // It may be a later one of several, so the shortest counts.
        if self.seen_until <= now || waited < self.seen {
            self.seen = waited;
        }
        self.seen_until = now.after(SEEN_FOR);
    }

    /// How long an ack may wait: [`Config::ack_delay`] always, and longer, up to
    /// [`Config::ack_delay_max`], where it reaches the peer before that would send again.
    pub(crate) fn ack_delay(
        &self,
        now: Timestamp,
        config: &Config,
        rtt: &RttEstimator,
    ) -> Duration {
        if rtt.samples() == 0 {
            return config.ack_delay;
        }
        let round_trip = rtt.smoothed();
        let usual = round_trip.saturating_mul(RESEND_ROUND_TRIPS).clamp(RESEND_MIN, RESEND_MAX);
        let resend = if now < self.seen_until { usual.min(self.seen) } else { usual };
        let way =
            round_trip.saturating_add(rtt.variation().saturating_mul(2)).saturating_add(SLACK);
        resend.saturating_sub(way).min(config.ack_delay_max).max(config.ack_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_millis(ms))
    }

    /// An estimator that has seen this round trip often.
    fn rtt(round_trip: Duration) -> RttEstimator {
        let mut rtt = RttEstimator::new(MS, MS, MS);
        (0..200).for_each(|_| rtt.on_sample(round_trip, Duration::ZERO));
        rtt
    }

    fn delay(patience: &Patience, now: Timestamp, round_trip: Duration) -> u128 {
        patience.ack_delay(now, &Config::default(), &rtt(round_trip)).as_millis()
    }

    #[test]
    fn acks_wait_longest_where_peers_are_patient_and_near() {
        let patience = Patience::new();
        let none = RttEstimator::new(MS, MS, MS);
        assert_eq!(patience.ack_delay(at(0), &Config::default(), &none), 100 * MS);
        // Five round trips are the peer's patience, one of them the ack's way, 50 ms slack.
        for (round_trip, longest) in [(1, 199), (40, 160), (80, 270), (100, 350), (200, 250)] {
            assert_eq!(delay(&patience, at(0), round_trip * MS), longest, "at {round_trip} ms");
        }
        assert_eq!(delay(&patience, at(0), 400 * MS), 100, "as soon as ever on long ways");
        let short = Config { ack_delay_max: 120 * MS, ..Config::default() };
        assert_eq!(patience.ack_delay(at(0), &short, &rtt(80 * MS)), 120 * MS);
    }

    #[test]
    fn a_round_trip_that_varies_leaves_less() {
        let mut varied = rtt(80 * MS);
        varied.on_sample(160 * MS, Duration::ZERO);
        // Smoothed 90 ms, 20 ms off: 450 - 90 - 40 - 50.
        let delay = Patience::new().ack_delay(at(0), &Config::default(), &varied);
        assert_eq!(delay, 270 * MS);
    }

    #[test]
    fn a_peer_that_sends_again_soon_is_answered_sooner_for_a_minute() {
        let mut patience = Patience::new();
        patience.on_first(at(0), 7);
        patience.on_first(at(10), 8);
        patience.on_resend(at(290), 8);
        patience.on_resend(at(290), 9);
        assert_eq!(delay(&patience, at(300), 80 * MS), 150);
        patience.on_resend(at(700), 7);
        assert_eq!(delay(&patience, at(701), 80 * MS), 150, "the shortest counts");
        patience.on_first(at(900), 10);
        patience.on_resend(at(1_000), 10);
        assert_eq!(delay(&patience, at(1_001), 80 * MS), 100, "no sooner than ever");
        assert_eq!(delay(&patience, at(60_999), 80 * MS), 100);
        assert_eq!(delay(&patience, at(61_000), 80 * MS), 270);
        patience.on_first(at(70_000), 11);
        patience.on_resend(at(70_300), 11);
        assert_eq!(delay(&patience, at(70_301), 80 * MS), 170, "what is past counts no more");
    }

    #[test]
    fn what_came_long_ago_is_forgotten() {
        let mut patience = Patience::new();
        (0..=REMEMBERED as u64).for_each(|number| patience.on_first(at(number), number));
        patience.on_resend(at(100), 0);
        assert_eq!(delay(&patience, at(101), 80 * MS), 270);
        patience.on_resend(at(101), 1);
        assert_eq!(delay(&patience, at(102), 80 * MS), 100);
    }
}
