//! Pings in both directions: round trips and signs of life.

use core::time::Duration;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use crate::config::PINGS_IN_FLIGHT_MAX;

/// Answers that may wait to leave: a peer that asks faster is answered its latest.
const PONGS_WAITING_MAX: usize = 8;

/// The pings of one circuit.
#[derive(Debug)]
pub(crate) struct Pings {
    next_id: u8,
    /// When the next one leaves; never before the peer was heard.
    at: Timestamp,
    /// Those without an answer, oldest first.
    flying: [Option<(u8, Timestamp)>; PINGS_IN_FLIGHT_MAX],
    pongs: [u8; PONGS_WAITING_MAX],
    pongs_waiting: usize,
}

impl Pings {
    pub(crate) const fn new() -> Self {
        Self {
            next_id: 0,
            at: Timestamp::NEVER,
            flying: [None; PINGS_IN_FLIGHT_MAX],
            pongs: [0; PONGS_WAITING_MAX],
            pongs_waiting: 0,
        }
    }

    /// The peer is there: the first ping leaves now, for resends depend on the round trip.
    pub(crate) const fn begin(&mut self, now: Timestamp) {
        self.at = now;
    }

    /// When a ping or an answer is to leave.
    pub(crate) const fn due(&self) -> Timestamp {
        if self.pongs_waiting > 0 { Timestamp::START } else { self.at }
    }

    /// The id of a ping that leaves now, if one is due.
    pub(crate) fn take_ping(
        &mut self,
        now: Timestamp,
        interval: Duration,
        random: &mut Stream,
    ) -> Option<u8> {
        if self.at > now {
            return None;
        }
        // A twentieth more or less, so that circuits opened together do not ping together.
        let tenth = interval / 10;
        let tenth_ns = u64::try_from(tenth.as_nanos()).unwrap_or(u64::MAX - 1);
        let jitter = Duration::from_nanos(random.below(tenth_ns + 1));
        self.at = now.after((interval - tenth / 2).saturating_add(jitter));
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        // The oldest gives way: its answer would tell of a time long past.
        if self.flying.iter().all(Option::is_some) {
            self.flying.rotate_left(1);
            if let Some(last) = self.flying.last_mut() {
                *last = None;
            }
        }
        if let Some(free) = self.flying.iter_mut().find(|place| place.is_none()) {
            *free = Some((id, now));
        }
        Some(id)
    }

    /// An answer came: the round trip, unless its ping is unknown. Older pings are forgotten.
    pub(crate) fn on_pong(&mut self, now: Timestamp, id: u8) -> Option<Duration> {
        let index = self.flying.iter().position(|ping| ping.is_some_and(|(of, _)| of == id))?;
        let (_, at) = self.flying.get(index).copied().flatten()?;
        self.flying.iter_mut().take(index + 1).for_each(|ping| *ping = None);
        self.flying.rotate_left(index + 1);
        Some(now.since(at))
    }

    /// The peer asks.
    pub(crate) fn on_ping(&mut self, id: u8) {
        if self.pongs_waiting == PONGS_WAITING_MAX {
            self.pongs.rotate_left(1);
            self.pongs_waiting -= 1;
        }
        if let Some(place) = self.pongs.get_mut(self.pongs_waiting) {
            *place = id;
            self.pongs_waiting += 1;
        }
    }

    /// An answer that is to leave.
    pub(crate) fn take_pong(&mut self) -> Option<u8> {
        let left = self.pongs_waiting.checked_sub(1)?;
        let [id, ..] = self.pongs;
        self.pongs.rotate_left(1);
        self.pongs_waiting = left;
        Some(id)
    }

    /// Pings without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.flying.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    #[test]
    fn pings_keep_their_interval_with_a_little_jitter() {
        let mut random = Stream::new(1, "ping", 0);
        let mut pings = Pings::new();
        assert_eq!(
            (pings.due(), pings.take_ping(at(9), INTERVAL, &mut random)),
            (Timestamp::NEVER, None)
        );
        pings.begin(at(1));
        for id in 0..200 {
            let now = pings.due();
            assert_eq!(pings.take_ping(now, INTERVAL, &mut random), Some(id));
            let wait = pings.due().since(now).as_millis();
            assert!((4_750..=5_250).contains(&wait), "{wait}");
        }
        assert_eq!(pings.in_flight(), PINGS_IN_FLIGHT_MAX);
    }

    #[test]
    fn an_answer_tells_the_round_trip_once() {
        let mut random = Stream::new(1, "ping", 0);
        let mut pings = Pings::new();
        pings.begin(at(0));
        for second in [0, 10, 20] {
            pings.take_ping(at(second), INTERVAL, &mut random).unwrap();
        }
        assert_eq!(pings.on_pong(at(21), 1), Some(Duration::from_secs(11)));
        assert_eq!((pings.on_pong(at(21), 1), pings.on_pong(at(21), 0)), (None, None));
        assert_eq!(pings.on_pong(at(22), 2), Some(Duration::from_secs(2)));
        assert_eq!((pings.on_pong(at(22), 77), pings.in_flight()), (None, 0));
    }

    #[test]
    fn answers_are_bounded_and_the_latest_stay() {
        let mut pings = Pings::new();
        (0..100).for_each(|id| pings.on_ping(id));
        assert_eq!(pings.due(), Timestamp::START);
        let answers: Vec<u8> = std::iter::from_fn(|| pings.take_pong()).collect();
        assert_eq!(answers, [92, 93, 94, 95, 96, 97, 98, 99]);
    }
}
