//! What goes into circuits and comes out of them: messages, results, and who takes them.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::UseCircuitCode;
use twinspan_lludp::{EncodeError, MessageId};

use crate::config::GROUP_MESSAGES_MAX;
use crate::throttle::ThrottleClass;

/// How a message is cared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Sent once, without an ack.
    Unreliable,
    /// Sent once, with an ack: only for its result.
    Once,
    /// Sent again with growing waits until it is acknowledged, its budget spent or its time over.
    Ordinary,
    /// A handshake's message: the first resends follow one another in short, even steps.
    Critical,
}

impl Retry {
    /// Whether the peer is asked for an ack.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Unreliable)
    }
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// How it is cared for.
    pub retry: Retry,
    /// Which rate it keeps to; `None` leaves before everything that has one.
    pub throttle: Option<ThrottleClass>,
    /// How long it is tried; `None` as the configuration has it.
    pub timeout: Option<Duration>,
}

impl SendOptions {
    /// Sent once, at once.
    pub const UNRELIABLE: Self = Self { retry: Retry::Unreliable, throttle: None, timeout: None };
    /// Sent until it is acknowledged, at the rate of [`ThrottleClass::Task`].
    pub const RELIABLE: Self =
        Self { retry: Retry::Ordinary, throttle: Some(ThrottleClass::Task), timeout: None };
    /// A handshake's message.
    pub const CRITICAL: Self = Self { retry: Retry::Critical, throttle: None, timeout: None };

    /// The same at the rate of a class.
    #[must_use]
    pub const fn at_rate_of(mut self, class: ThrottleClass) -> Self {
        self.throttle = Some(class);
        self
    }

    /// The same for no longer than this.
    #[must_use]
    pub const fn within(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// Names what was sent reliably until its outcome is known; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub(crate) u64);

/// What became of reliable messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer acknowledged all of them.
    Acked {
        /// From the first sending of the one that was acknowledged last.
        elapsed: Duration,
    },
    /// One was not acknowledged in its time, or however often it was sent. It may have arrived.
    TimedOut {
        /// How often it had left again; `None` when it never left.
        resends: Option<u32>,
    },
    /// The circuit ended before all were acknowledged. They may have arrived.
    Closed,
}

/// Why a circuit is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This end closed it.
    Local,
    /// The peer sent `CloseCircuit`.
    Peer,
    /// Nothing came for [`Config::silence_max`](crate::Config::silence_max).
    Silence,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "closed at this end",
            Self::Peer => "closed by the peer",
            Self::Silence => "the peer fell silent",
        })
    }
}

/// What a set of circuits has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitEvent {
    /// The first packet came from the peer: it is there.
    Heard {
        /// The peer.
        addr: SocketAddr,
    },
    /// What became of reliable messages.
    Delivery {
        /// The peer.
        addr: SocketAddr,
        /// What [`send_reliable`](crate::Circuits::send_reliable) gave.
        id: DeliveryId,
        /// What became of them.
        outcome: Outcome,
    },
    /// The circuit is over and gone. It comes after the outcomes of all that was sent.
    Closed {
        /// The peer.
        addr: SocketAddr,
        /// Why.
        reason: CloseReason,
    },
}

/// A message that came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// Which message.
    pub id: MessageId,
    /// Its body, expanded.
    pub body: &'a [u8],
    /// The number of its packet, which never wraps here: the first one that came counts 2^24 more
    /// than it has, so that those sent before it are below it whenever numbers began anew.
    pub number: u64,
    /// Whether the sender asked for an ack.
    pub reliable: bool,
    /// Whether it was asked for in order and comes after a newer one all the same.
    pub late: bool,
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies may hold secrets: their length alone is shown.
        f.debug_struct("Received")
            .field("from", &self.from)
            .field("id", &self.id)
            .field("number", &self.number)
            .field("reliable", &self.reliable)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What who takes messages says to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is kept or done. Its ack may leave.
    Yes,
    /// There is no room for it now. It is not acknowledged, so a reliable one comes again.
    NoRoom,
}

/// What who takes messages says to somebody who asks for a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The code is right: a circuit is opened.
    Open,
    /// The code is right, and who asks had a circuit at another address: one is opened that goes on
    /// with that one's numbers. Where a box or a proxy on the way gave him another address he does
    /// not know of it: numbers that began anew would be repeats to him, and what he sends again
    /// would be news here.
    Continue {
        /// Where he was.
        former: SocketAddr,
    },
    /// It is not: nothing is kept and nothing answered.
    Refuse,
}

/// Takes what circuits receive.
///
/// It is called while datagrams are taken in and must be quick: put what needs work into a queue.
/// The ack of a message does not wait for that work, only for the place in the queue.
pub trait Sink {
    /// A message came. One packet is handed on once, unless the answer is [`Taken::NoRoom`].
    fn on_message(&mut self, now: Timestamp, message: Received<'_>) -> Taken;

    /// Somebody without a circuit asks for one; only simulators are asked.
    fn on_stranger(&mut self, now: Timestamp, from: SocketAddr, ask: &UseCircuitCode) -> Admission {
        let _ = (now, from, ask);
        Admission::Refuse
    }
}

impl<F: FnMut(Timestamp, Received<'_>) -> Taken> Sink for F {
    fn on_message(&mut self, now: Timestamp, message: Received<'_>) -> Taken {
        self(now, message)
    }
}

/// Why a circuit was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenCircuitError {
    /// There is a circuit to this address already.
    #[error("there is a circuit to {addr} already, use it or close it first")]
    Exists {
        /// The address.
        addr: SocketAddr,
    },
    /// As many circuits are open as the configuration allows.
    #[error("{max} circuits are open, close one or raise circuits_max")]
    Full {
        /// How many are allowed.
        max: usize,
    },
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no circuit to this address.
    #[error("there is no circuit to {addr}, open one")]
    NoCircuit {
        /// The address.
        addr: SocketAddr,
    },
    /// The agent is in no region.
    #[error("the agent is in no region, wait for its arrival")]
    NoRegion,
    /// As much waits to leave already as the configuration allows.
    #[error("{messages} messages with {bytes} bytes wait to leave, wait or send less")]
    Full {
        /// Messages that wait.
        messages: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The message is longer than a datagram.
    #[error("a message of more than {max} bytes, send it in parts")]
    TooLong {
        /// Bytes that a message may have.
        max: usize,
    },
    /// No messages, or more of them than are sent at a time.
    #[error("{count} messages at a time, send 1 to {GROUP_MESSAGES_MAX}")]
    Count {
        /// How many were given.
        count: usize,
    },
    /// Too many outcomes wait to be taken.
    #[error("{waiting} events were not taken, poll for events")]
    EventsWaiting {
        /// Events that wait.
        waiting: usize,
    },
    /// The message cannot be written.
    #[error("the message cannot be written: {0}")]
    Message(#[from] EncodeError),
}
