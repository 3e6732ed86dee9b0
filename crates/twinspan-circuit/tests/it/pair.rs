//! A viewer's circuits, a simulator's, and the line between them, in virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::{
    Admission, CircuitEvent, Circuits, Config, DeliveryId, Outcome, Received, SendOptions, Sink,
    Taken,
};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{ChatFromSimulator, ChatFromViewer, UseCircuitCode};
use twinspan_lludp::{Message, Var2};

pub(crate) const VIEWER: usize = 0;
pub(crate) const SIMULATOR: usize = 1;
pub(crate) const CODE: u32 = 7_777;

/// What the line does to each datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) delay_ms: f64,
    pub(crate) jitter_ms: f64,
}

pub(crate) const CLEAN: Conditions =
    Conditions { loss: 0.0, duplicate: 0.0, delay_ms: 20.0, jitter_ms: 0.0 };

/// What arrived at one end.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Number in the message, and how often it came.
    pub(crate) numbers: BTreeMap<u32, u32>,
    /// In the order of arrival.
    pub(crate) order: Vec<u32>,
    pub(crate) others: Vec<twinspan_lludp::MessageId>,
    /// Messages that find no room before any is taken.
    pub(crate) refuse: u32,
}

impl Sink for Inbox {
    fn on_message(&mut self, _now: Timestamp, message: Received<'_>) -> Taken {
        if self.refuse > 0 {
            self.refuse -= 1;
            return Taken::NoRoom;
        }
        let text = match message.id {
            ChatFromViewer::ID => ChatFromViewer::decode(message.body).unwrap().0.chat_data.message,
            ChatFromSimulator::ID => {
                ChatFromSimulator::decode(message.body).unwrap().0.chat_data.message
            }
            other => {
                self.others.push(other);
                return Taken::Yes;
            }
        };
        let number = u32::from_be_bytes(text.bytes()[..4].try_into().unwrap());
        *self.numbers.entry(number).or_default() += 1;
        self.order.push(number);
        Taken::Yes
    }

    fn on_stranger(&mut self, _: Timestamp, _: SocketAddr, ask: &UseCircuitCode) -> Admission {
        if ask.circuit_code.code == CODE { Admission::Open } else { Admission::Refuse }
    }
}

/// Chat that carries a number and some weight.
pub(crate) fn chat_up(number: u32, bytes: usize) -> ChatFromViewer {
    let mut chat = ChatFromViewer::default();
    chat.chat_data.message = weight(number, bytes);
    chat
}

pub(crate) fn chat_down(number: u32, bytes: usize) -> ChatFromSimulator {
    let mut chat = ChatFromSimulator::default();
    chat.chat_data.message = weight(number, bytes);
    chat
}

fn weight(number: u32, bytes: usize) -> Var2 {
    let mut text = number.to_be_bytes().to_vec();
    text.resize(4 + bytes, 0x55);
    Var2::new(text).unwrap()
}

pub(crate) fn addr(end: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, end as u8 + 1], 9_000))
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ends: [Circuits; 2],
    pub(crate) inboxes: [Inbox; 2],
    pub(crate) outcomes: [BTreeMap<DeliveryId, Outcome>; 2],
    pub(crate) closed: [u32; 2],
    pub(crate) conditions: Conditions,
    pub(crate) now: Timestamp,
    /// Datagrams on their way, by time and order of sending: to which end.
    wire: BTreeMap<(Timestamp, u64), (usize, Vec<u8>)>,
    sent: u64,
    random: Stream,
    pub(crate) cut: bool,
    /// Everything that left either end, on its way or lost.
    pub(crate) left: Vec<Departed>,
}

/// A datagram that left.
#[derive(Clone, Debug)]
pub(crate) struct Departed {
    pub(crate) at: Timestamp,
    pub(crate) end: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Pair {
    pub(crate) fn new(configs: [Config; 2], conditions: Conditions, seed: u64) -> Self {
        let [viewer, simulator] = configs;
        let circuits =
            |config, instance| Circuits::new(config, Stream::new(seed, "ends", instance)).unwrap();
        Self {
            ends: [circuits(viewer, 0), circuits(simulator, 1)],
            inboxes: [Inbox::default(), Inbox::default()],
            outcomes: [BTreeMap::new(), BTreeMap::new()],
            closed: [0; 2],
            conditions,
            now: Timestamp::START.after(Duration::from_secs(1)),
            wire: BTreeMap::new(),
            sent: 0,
            random: Stream::new(seed, "line", 0),
            cut: false,
            left: Vec::new(),
        }
    }

    /// Two ends with usual settings that know each other.
    pub(crate) fn connected(configs: [Config; 2], conditions: Conditions, seed: u64) -> Self {
        let mut pair = Self::new(configs, conditions, seed);
        pair.connect();
        pair
    }

    pub(crate) fn connect(&mut self) {
        self.ends[VIEWER].open(self.now, addr(SIMULATOR)).unwrap();
        let mut hello = UseCircuitCode::default();
        hello.circuit_code.code = CODE;
        let options = SendOptions::CRITICAL.within(Duration::from_secs(60));
        self.ends[VIEWER].send(self.now, addr(SIMULATOR), &hello, options).unwrap();
        let end = self.now.after(Duration::from_secs(60));
        while !self.ends[VIEWER].is_heard(addr(SIMULATOR)) {
            assert!(self.now < end, "no circuit");
            self.run_for(Duration::from_millis(10));
        }
    }

    fn transmit(&mut self, end: usize) {
        let mut out = [0; 1_500];
        while let Some((to, len)) = self.ends[end].poll_transmit(self.now, &mut out) {
            assert_eq!(to, addr(1 - end));
            assert!(len <= self.ends[end].config().datagram_bytes_max);
            self.left.push(Departed { at: self.now, end, bytes: out[..len].to_vec() });
            let copies = 1 + u32::from(self.random.chance(self.conditions.duplicate));
            for _ in 0..copies {
                let lost = self.random.chance(self.conditions.loss) || self.cut;
                let delay = self.conditions.delay_ms
                    + self.random.between(0.0, self.conditions.jitter_ms.max(0.001));
                if !lost {
                    let at = self.now.after(Duration::from_nanos((delay * 1e6) as u64));
                    self.sent += 1;
                    self.wire.insert((at, self.sent), (1 - end, out[..len].to_vec()));
                }
            }
        }
        while let Some(event) = self.ends[end].poll_event() {
            match event {
                CircuitEvent::Delivery { id, outcome, .. } => {
                    let before = self.outcomes[end].insert(id, outcome);
                    assert_eq!(before, None, "an outcome is told once");
                }
                CircuitEvent::Closed { .. } => self.closed[end] += 1,
                _ => {}
            }
        }
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now.after(duration));
    }

    pub(crate) fn run_until(&mut self, until: Timestamp) {
        loop {
            for end in [VIEWER, SIMULATOR] {
                self.transmit(end);
            }
            let timers = self.ends.iter().map(Circuits::poll_timeout);
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let next = timers.chain(arrival).min().unwrap();
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.wire.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, bytes) = entry.remove();
                let from = addr(1 - to);
                self.ends[to].handle_datagram(self.now, from, &bytes, &mut self.inboxes[to]);
            }
            for (end, inbox) in self.ends.iter_mut().zip(&mut self.inboxes) {
                end.handle_timeout(self.now, inbox);
            }
        }
    }

    /// Runs until nothing waits for an outcome, for `limit` at most.
    pub(crate) fn settle(&mut self, limit: Duration) {
        let end = self.now.after(limit);
        while self.now < end && !self.is_settled() {
            self.run_for(Duration::from_millis(20));
        }
    }

    fn is_settled(&self) -> bool {
        self.ends.iter().enumerate().all(|(end, circuits)| {
            let peer = addr(1 - end);
            circuits.unacknowledged(peer) == 0 && circuits.waiting(peer) == 0
        })
    }
}
