//! One circuit: packets of one peer in both directions.

mod receive;
mod transmit;

use core::net::SocketAddr;
use core::time::Duration;

use twinspan_core::number::Window;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::{Channel, Delivery, Sender, StreamId};

use crate::acks::AckQueue;
use crate::config::{Config, NUMBERS_REMEMBERED};
use crate::flight::Flights;
use crate::message::{CircuitEvent, CloseReason, Outcome, Retry};
use crate::order::Reorder;
use crate::patience::Patience;
use crate::ping::Pings;
use crate::queue::{Outgoing, Queues};
use crate::shared::Shared;
use crate::stats::CircuitStats;
use crate::throttle::{Rates, Throttles};

/// Words of the window that sees each number once.
const WINDOW_WORDS: usize = (NUMBERS_REMEMBERED / 64) as usize;
/// Handshakes: few, short, and outside the limits of the others.
const CRITICAL: Channel = Channel::new(Delivery::Unordered, StreamId::CONTROL);
/// Everything else that is reliable.
const ORDINARY: Channel = Channel::new(Delivery::Unordered, StreamId::EVENTS);
/// Packets over which a share of loss means something.
const LOSS_PACKETS_MIN: u64 = 20;

/// One circuit. It routes between its parts; the set that holds it gives it space to work in.
#[derive(Debug)]
pub(crate) struct Circuit {
    addr: SocketAddr,
    /// Reliable packets until they are acknowledged.
    engine: Sender,
    /// What the engine does not know of them.
    flights: Flights,
    /// The number of the next packet, and of the first of this circuit.
    next: u64,
    first: u64,
    queues: Queues,
    throttles: Throttles,
    acks: AckQueue,
    /// How long they may wait.
    patience: Patience,
    /// Acks are due, and the packets that leave are too long to take any along.
    acks_starve: bool,
    pings: Pings,
    /// Numbers that came.
    window: Window<WINDOW_WORDS>,
    /// Those that came on a circuit before this one, until it is known whether the peer counts on
    /// or begins anew.
    before: Option<Box<Window<WINDOW_WORDS>>>,
    /// A number far ahead of all others: the next packet says whether to believe it.
    far: Option<u64>,
    order: Option<Box<Reorder>>,
    loss: LossMeter,
    silence_max: Duration,
    /// When anything last came; when it was opened, before that.
    heard_at: Timestamp,
    heard: bool,
    /// Why it is over.
    over: Option<CloseReason>,
    stats: CircuitStats,
    jitter: Stream,
}

/// What outlasts a circuit: the numbers of both directions, and how far away its peer was.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    next: u64,
    came: Window<WINDOW_WORDS>,
    rtt: Option<Duration>,
}

impl Numbers {
    /// Those of two addresses that have had no circuit.
    pub(crate) fn new(first: u64) -> Self {
        Self { next: first, came: Window::default(), rtt: None }
    }

    /// The smoothed round trip that the circuit ended with.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

/// The share of the peer's packets that did not come, over a period.
#[derive(Clone, Copy, Debug, Default)]
struct LossMeter {
    /// The first number of the period.
    from: Option<u64>,
    came: u64,
}

impl LossMeter {
    fn on_packet(&mut self, number: u64) {
        let from = *self.from.get_or_insert(number);
        self.came += u64::from(number >= from);
    }

    /// The share, 0 to 1, and begins a new period; `None`, and the period goes on, while it means
    /// little.
    fn take(&mut self, largest: Option<u64>) -> Option<f64> {
        let (from, next) = (self.from?, largest? + 1);
        let expected = next.checked_sub(from).filter(|span| *span >= LOSS_PACKETS_MIN)?;
        let lost = expected.saturating_sub(self.came);
        *self = Self { from: Some(next), came: 0 };
        Some(lost as f64 / expected as f64)
    }
}

impl Circuit {
    /// A circuit that goes on with these numbers.
    pub(crate) fn new(
        now: Timestamp,
        addr: SocketAddr,
        numbers: Numbers,
        config: &Config,
        jitter: Stream,
    ) -> Self {
        let mut jitter = jitter;
        let engine_jitter = Stream::new(jitter.next_u64(), "resend", 0);
        Self {
            addr,
            engine: Sender::new(&config.engine(), engine_jitter),
            flights: Flights::new(),
            next: numbers.next,
            first: numbers.next,
            queues: Queues::new(),
            throttles: Throttles::new(&config.rates),
            acks: AckQueue::new(),
            patience: Patience::new(),
            acks_starve: false,
            pings: Pings::new(),
            before: numbers.came.largest().map(|_| Box::new(numbers.came.clone())),
            window: numbers.came,
            far: None,
            order: None,
            loss: LossMeter::default(),
            silence_max: config.silence_max,
            heard_at: now,
            heard: false,
            over: None,
            stats: CircuitStats::default(),
            jitter,
        }
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The number that the next packet will have.
    pub(crate) const fn next_number(&self) -> u64 {
        self.next
    }

    /// What a later circuit to this address goes on with.
    pub(crate) fn numbers(&self) -> Numbers {
        // One more may leave with the last word.
        Numbers { next: self.next + 1, came: self.window.clone(), rtt: self.rtt() }
    }

    pub(crate) const fn stats(&self) -> &CircuitStats {
        &self.stats
    }

    pub(crate) const fn over(&self) -> Option<CloseReason> {
        self.over
    }

    pub(crate) const fn is_heard(&self) -> bool {
        self.heard
    }

    /// The smoothed round trip of pings, once there was one.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let rtt = self.engine.rtt();
        (rtt.samples() > 0).then(|| rtt.smoothed())
    }

    pub(crate) fn pings_in_flight(&self) -> usize {
        self.pings.in_flight()
    }

    /// When acks leave alone; never while none waits.
    pub(crate) const fn acks_due(&self) -> Timestamp {
        self.acks.due()
    }

    /// The acks that have not left, when it ends.
    pub(crate) const fn take_acks(&mut self) -> AckQueue {
        core::mem::replace(&mut self.acks, AckQueue::new())
    }

    /// Reliable messages without an outcome.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.flights.len()
    }

    /// Messages that wait to leave, and their bytes.
    pub(crate) const fn waiting(&self) -> (usize, usize) {
        (self.queues.len(), self.queues.bytes())
    }

    pub(crate) fn set_rates(&mut self, rates: &Rates) {
        self.throttles.set(rates);
    }

    pub(crate) const fn rates(&self) -> Rates {
        self.throttles.rates()
    }

    pub(crate) const fn set_silence_max(&mut self, silence_max: Duration) {
        self.silence_max = silence_max;
    }

    pub(crate) fn take_loss(&mut self) -> Option<f64> {
        self.loss.take(self.window.largest())
    }

    /// Queues a message for which there is room. In a full queue an unreliable one takes the place
    /// of an older one; false when there is none.
    pub(crate) fn enqueue(&mut self, message: Outgoing, shared: &mut Shared) -> bool {
        let config = &shared.config;
        let fits = |queues: &Queues| {
            queues.len() < config.queued_messages_max
                && queues.bytes() + message.packet.len() <= config.queued_bytes_max
        };
        while !fits(&self.queues) {
            if message.retry.is_reliable() {
                shared.recycle(message.packet);
                return false;
            }
            self.stats.dropped_out += 1;
            let Some(old) = self.queues.drop_unreliable(message.throttle) else {
                shared.recycle(message.packet);
                return false;
            };
            shared.spare.put(old.packet);
        }
        self.queues.push(message);
        true
    }

    /// Time has passed: what is overdue is given up, and so is a silent peer.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, shared: &mut Shared) {
        self.expire(now, shared);
        if self.over.is_none() && self.silent_at() <= now {
            self.over = Some(CloseReason::Silence);
        }
    }

    fn silent_at(&self) -> Timestamp {
        self.heard_at.after(self.silence_max)
    }

    /// Gives up what is overdue.
    fn expire(&mut self, now: Timestamp, shared: &mut Shared) {
        while let Some(flight) = self.flights.pop_overdue(now, self.next) {
            self.engine.abandon(flight.number);
            self.stats.given_up += 1;
            let outcome = Outcome::TimedOut { resends: Some(flight.resends) };
            shared.tell(self.addr, flight.delivery, outcome);
        }
        while let Some(message) = self.queues.pop_overdue(now) {
            self.stats.given_up += 1;
            shared.tell(self.addr, message.delivery, Outcome::TimedOut { resends: None });
            shared.recycle(message.packet);
        }
    }

    /// The circuit is over: everything that was sent gets its outcome.
    pub(crate) fn close(mut self, reason: CloseReason, shared: &mut Shared) -> CircuitStats {
        while let Some(flight) = self.flights.pop() {
            self.stats.given_up += 1;
            shared.tell(self.addr, flight.delivery, Outcome::Closed);
        }
        while let Some(message) = self.queues.pop_any() {
            self.stats.given_up += u64::from(message.retry.is_reliable());
            shared.tell(self.addr, message.delivery, Outcome::Closed);
            shared.recycle(message.packet);
        }
        shared.events.push_back(CircuitEvent::Closed { addr: self.addr, reason });
        self.stats
    }

    /// When something is to be done though nothing comes.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        let engine = &self.engine;
        let resends = match engine.lost_waiting() {
            0 => Timestamp::NEVER,
            _ => self.throttles.open_at(crate::throttle::ThrottleClass::Resend),
        };
        let fresh = self.queues.open_at(&self.throttles, |message| may_leave(engine, message));
        let held = self.order.as_ref().map_or(Timestamp::NEVER, |order| order.poll_timeout());
        [
            self.flights.poll_timeout(),
            self.queues.poll_timeout(),
            self.acks.due(),
            self.pings.due(),
            engine.poll_timeout().unwrap_or(Timestamp::NEVER),
            resends,
            fresh,
            held,
        ]
        .into_iter()
        .fold(self.silent_at(), Timestamp::min)
    }
}

/// Which of the engine's channels a message takes.
fn channel_of(retry: Retry, len: usize) -> Channel {
    let short = len <= twinspan_reliable::CONTROL_MESSAGE_BYTES_MAX;
    if retry == Retry::Critical && short { CRITICAL } else { ORDINARY }
}

/// Whether a message may leave as far as the limits in flight go.
fn may_leave(engine: &Sender, message: &Outgoing) -> bool {
    let len = message.packet.len();
    !message.retry.is_reliable() || engine.would_leave(channel_of(message.retry, len), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_what_did_not_come() {
        let mut loss = LossMeter::default();
        assert_eq!(loss.take(None), None);
        for number in (100..200).filter(|number| number % 4 != 0 || *number == 100) {
            loss.on_packet(number);
        }
        // 24 of 100 are missing.
        assert_eq!(loss.take(Some(199)), Some(0.24));
        // A straggler of the former period changes nothing.
        loss.on_packet(104);
        assert_eq!(loss.take(Some(218)), None, "19 packets mean little");
        (200..220).for_each(|number| loss.on_packet(number));
        assert_eq!(loss.take(Some(219)), Some(0.0));
    }
}
