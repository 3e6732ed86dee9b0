//! Packets in flight when a resend keeps its number: one message a packet, each with its own timer.

use std::collections::VecDeque;

use twinspan_core::need::{Need, fit_ring};
use twinspan_core::time::Timestamp;

use super::frames::NONE;
use super::store::Key;
use super::{Leaving, Shared};
use crate::AckError;

/// A packet with a reliable message that the peer has not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    key: Key,
    tag: u32,
    counted: bool,
    /// When it must leave again; never while it waits for that.
    due: Timestamp,
}

/// The flights, by number. Acks name numbers one by one, so there is no window to fall out of.
#[derive(Debug)]
pub(super) struct Same {
    flights: VecDeque<Flight>,
    need: Need,
    /// No flight is due before.
    next_due: Timestamp,
}

impl Same {
    pub(super) fn new() -> Self {
        let (flights, need) = (VecDeque::new(), Need::new());
        Self { flights, need, next_due: Timestamp::NEVER }
    }

    /// A period ended: what was not needed is given back.
    pub(super) fn fit(&mut self) {
        fit_ring(&mut self.flights, &mut self.need);
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.flights.binary_search_by_key(&number, |flight| flight.number).ok()
    }

    /// A packet left for the first time: its number is not below `shared.numbers.next()`.
    pub(super) fn on_sent(&mut self, now: Timestamp, leaving: Leaving, shared: &mut Shared) {
        shared.numbers.advance(leaving.number);
        if let Some((node, _)) = shared.frames.get(leaving.head) {
            let Leaving { number, tag, .. } = leaving;
            let due = now.after(shared.resend_delay_of(node.key));
            shared.outbox.set_packet(node.key, number);
            let counted = node.counted;
            self.flights.push_back(Flight { number, key: node.key, tag, counted, due });
            self.need.note(self.flights.len());
            self.next_due = self.next_due.min(due);
        }
        if leaving.head != NONE {
            shared.frames.release(leaving.head);
        }
    }

    /// A packet left again under the number it had.
    pub(super) fn on_resent(&mut self, now: Timestamp, leaving: Leaving, shared: &mut Shared) {
        let found = self.find(leaving.number);
        if let Some((node, _)) = shared.frames.get(leaving.head) {
            match found.and_then(|index| self.flights.get_mut(index)) {
                Some(flight) => {
                    flight.due = now.after(shared.resend_delay_of(node.key));
                    self.next_due = self.next_due.min(flight.due);
                }
                // Acknowledged between poll and sending.
                None => shared.outbox.release_flight(node.counted),
            }
        }
        shared.frames.release(leaving.head);
    }

    /// The peer acknowledges one packet; returns its tag when that is news.
    pub(super) fn handle_ack(
        &mut self,
        number: u64,
        shared: &mut Shared,
    ) -> Result<Option<u32>, AckError> {
        if shared.validate_acks && !shared.numbers.was_sent(number) {
            return Err(AckError::NeverSent { number });
        }
        let Some(flight) = self.find(number).and_then(|index| self.flights.remove(index)) else {
            return Ok(None);
        };
        if flight.due != Timestamp::NEVER {
            shared.outbox.release_flight(flight.counted);
        }
        shared.stats.packets_acked += 1;
        shared.outbox.on_frame_acked(flight.key, 0, &mut shared.stats);
        if self.flights.is_empty() {
            self.next_due = Timestamp::NEVER;
        }
        Ok(Some(flight.tag))
    }

    /// When the packet leaves again; never while it waits for that, `None` once it is over.
    pub(super) fn due(&self, number: u64) -> Option<Timestamp> {
        self.find(number).and_then(|index| self.flights.get(index)).map(|flight| flight.due)
    }

    /// Lets the packet leave again at `at` unless it does before.
    pub(super) fn hasten(&mut self, number: u64, at: Timestamp) {
        let flight = self.find(number).and_then(|index| self.flights.get_mut(index));
        if let Some(flight) = flight.filter(|flight| flight.due != Timestamp::NEVER) {
            flight.due = flight.due.min(at);
            self.next_due = self.next_due.min(flight.due);
        }
    }

    /// The lowest number in flight.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.flights.front().map(|flight| flight.number)
    }

    /// Gives a packet up: it does not leave again, and an ack of it is of no interest.
    pub(super) fn abandon(&mut self, number: u64, shared: &mut Shared) -> Option<u32> {
        let flight = self.find(number).and_then(|index| self.flights.remove(index))?;
        if flight.due != Timestamp::NEVER {
            shared.outbox.release_flight(flight.counted);
        }
        shared.outbox.abandon(flight.key);
        if self.flights.is_empty() {
            self.next_due = Timestamp::NEVER;
        }
        Some(flight.tag)
    }

    pub(super) const fn poll_timeout(&self) -> Timestamp {
        self.next_due
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, shared: &mut Shared) {
        if self.next_due > now {
            return;
        }
        self.next_due = Timestamp::NEVER;
        for flight in &mut self.flights {
            if flight.due <= now {
                flight.due = Timestamp::NEVER;
                shared.outbox.release_flight(flight.counted);
                shared.outbox.on_frame_lost(flight.key, 0);
                shared.stats.packets_lost += 1;
                shared.stats.timeouts += 1;
            } else {
                self.next_due = self.next_due.min(flight.due);
            }
        }
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.flights.capacity() * size_of::<Flight>()
    }
}
