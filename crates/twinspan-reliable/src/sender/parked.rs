//! What is kept of a sender that has nothing to do, so that idle connections cost little.

use core::time::Duration;

use twinspan_core::random::Stream;

use super::outbox::ParkedOutbox;
use super::sent::SentNumbers;
use super::{Packets, Sender};
use crate::Config;
use crate::congestion::Congestion;
use crate::rtt::ParkedRtt;

/// A [`Sender`] without its tables: message numbering, credit, the next packet number and what is
/// known of the round trip. Counters are not kept.
#[derive(Debug)]
pub struct ParkedSender {
    outbox: ParkedOutbox,
    next: u64,
    rtt: ParkedRtt,
}

impl ParkedSender {
    /// A sender that never sent, see [`Sender::new`].
    pub fn new(config: &Config) -> Self {
        Self { outbox: ParkedOutbox::new(config), next: 0, rtt: ParkedRtt::default() }
    }

    /// Packet `number`, which elicits nothing and carries no frame, left. It is not below
    /// [`next_packet`](Self::next_packet).
    pub const fn on_sent_quiet(&mut self, number: u64) {
        self.next = number.saturating_add(1);
    }

    /// One past the largest packet number that left: an ack of this or more is a lie.
    pub const fn next_packet(&self) -> u64 {
        self.next
    }

    /// What [`Sender::budget_bytes_per_second`] is after a pause, at this round trip.
    pub fn budget_bytes_per_second(rtt: Duration) -> u64 {
        Congestion::new().rate(u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The smoothed round-trip time, to the microsecond; `None` before the first sample.
    pub fn smoothed_rtt(&self) -> Option<Duration> {
        (self.rtt.samples() > 0).then(|| self.rtt.smoothed())
    }
}

impl Sender {
    /// Whether nothing waits, nothing is in flight and no ack is of interest:
    /// [`park`](Self::park) would lose nothing but counters and the chance to see that a packet
    /// was taken for lost too early.
    pub const fn is_quiet(&self) -> bool {
        let packets = match &self.packets {
            Packets::Fresh(fresh) => fresh.is_quiet(),
            Packets::Same(_) => false,
        };
        packets && self.shared.outbox.is_quiet() && !self.is_polled
    }

    /// One past the largest packet number that left.
    pub const fn next_packet(&self) -> u64 {
        self.shared.numbers.next()
    }

    /// What must be kept of a sender that [`is_quiet`](Self::is_quiet).
    pub fn park(&self) -> ParkedSender {
        ParkedSender {
            outbox: self.shared.outbox.park(),
            next: self.shared.numbers.next(),
            rtt: self.shared.rtt.park(),
        }
    }

    /// Goes on where a parked sender stopped. `config` is the one that it was made with.
    pub fn resume(config: &Config, jitter: Stream, parked: &ParkedSender) -> Self {
        let mut sender = Self::new(config, jitter);
        let shared = &mut sender.shared;
        shared.outbox.resume(&parked.outbox);
        shared.numbers = SentNumbers::resumed(parked.next);
        shared.rtt.resume(parked.rtt);
        sender
    }
}
