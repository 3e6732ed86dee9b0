//! Reliable packets in flight: until when each is tried, how often, and whom its outcome concerns.

use core::time::Duration;
use std::collections::VecDeque;

use twinspan_core::time::Timestamp;

use crate::config::NUMBERS_IN_FLIGHT_SPAN;
use crate::message::{DeliveryId, Retry};

/// What is known of one packet beside its bytes, which the engine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) number: u64,
    pub(crate) retry: Retry,
    /// When it left first.
    pub(crate) sent_at: Timestamp,
    /// When it is given up.
    pub(crate) until: Timestamp,
    pub(crate) resends: u32,
    pub(crate) delivery: Option<DeliveryId>,
}

impl Flight {
    /// From its first sending.
    pub(crate) const fn elapsed(&self, now: Timestamp) -> Duration {
        now.since(self.sent_at)
    }
}

/// Packets in flight, by number. There are few enough to look through.
#[derive(Debug)]
pub(crate) struct Flights {
    flights: VecDeque<Flight>,
    /// No packet is given up before.
    next_until: Timestamp,
}

impl Flights {
    pub(crate) const fn new() -> Self {
        Self { flights: VecDeque::new(), next_until: Timestamp::NEVER }
    }

    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// A packet left for the first time; numbers only rise.
    pub(crate) fn insert(&mut self, flight: Flight) {
        self.next_until = self.next_until.min(flight.until);
        self.flights.push_back(flight);
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.flights.binary_search_by_key(&number, |flight| flight.number).ok()
    }

    /// One that leaves again.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Flight> {
        self.find(number).and_then(|index| self.flights.get_mut(index))
    }

    /// It is given up at `until`, if not before.
    pub(crate) fn give_up_by(&mut self, number: u64, until: Timestamp) {
        if let Some(flight) = self.get_mut(number) {
            flight.until = flight.until.min(until);
            let until = flight.until;
            self.next_until = self.next_until.min(until);
        }
    }

    /// One that is acknowledged.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Flight> {
        self.find(number).and_then(|index| self.flights.remove(index))
    }

    /// Any one, when all are given up.
    pub(crate) fn pop(&mut self) -> Option<Flight> {
        self.flights.pop_front()
    }

    /// One whose time is over, or that is so far behind `next`, the number that comes next, that the
    /// peer might take it for new twice or not at all.
    pub(crate) fn pop_overdue(&mut self, now: Timestamp, next: u64) -> Option<Flight> {
        let oldest = self.flights.front()?.number;
        if oldest + NUMBERS_IN_FLIGHT_SPAN < next {
            return self.flights.pop_front();
        }
        if self.next_until > now {
            return None;
        }
        let overdue = self.flights.iter().position(|flight| flight.until <= now);
        match overdue {
            Some(index) => self.flights.remove(index),
            None => {
                let least = self.flights.iter().map(|flight| flight.until).min();
                self.next_until = least.unwrap_or(Timestamp::NEVER);
                None
            }
        }
    }

    /// When to look for overdue ones; it may be early.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        if self.flights.is_empty() { Timestamp::NEVER } else { self.next_until }
    }

    /// The lowest number in flight.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.flights.front().map(|flight| flight.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(number: u64, until: u64) -> Flight {
        Flight {
            number,
            retry: Retry::Ordinary,
            sent_at: Timestamp::START,
            until: Timestamp::from_nanos(until),
            resends: 0,
            delivery: None,
        }
    }

    #[test]
    fn packets_are_given_up_when_their_time_is_over() {
        let mut flights = Flights::new();
        for (number, until) in [(1, 90), (4, 30), (6, 60)] {
            flights.insert(flight(number, until));
        }
        let at = Timestamp::from_nanos;
        assert_eq!(flights.poll_timeout(), at(30));
        assert!(flights.pop_overdue(at(29), 7).is_none());
        assert_eq!(flights.pop_overdue(at(60), 7).unwrap().number, 4);
        assert_eq!(flights.pop_overdue(at(60), 7).unwrap().number, 6);
        assert!(flights.pop_overdue(at(60), 7).is_none());
        assert_eq!((flights.poll_timeout(), flights.len()), (at(90), 1));
        flights.give_up_by(1, at(70));
        assert_eq!(flights.poll_timeout(), at(70));
        assert_eq!(flights.remove(1).unwrap().number, 1);
        assert_eq!((flights.poll_timeout(), flights.oldest()), (Timestamp::NEVER, None));
    }

    #[test]
    fn packets_far_behind_are_given_up_before_their_time() {
        let mut flights = Flights::new();
        flights.insert(flight(3, 1_000));
        let next = 3 + NUMBERS_IN_FLIGHT_SPAN;
        assert!(flights.pop_overdue(Timestamp::START, next).is_none());
        assert_eq!(flights.pop_overdue(Timestamp::START, next + 1).unwrap().number, 3);
    }
}
