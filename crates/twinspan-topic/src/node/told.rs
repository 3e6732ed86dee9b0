//! What a node tells of what it did and what happened to it.

use std::net::SocketAddr;

use crate::greet::Disagreement;
use crate::wire::EndReason;

/// Why a message is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is longer than the topic's messages may be.
    #[error("a message of {have} bytes does not fit: this topic's have {max} at most")]
    TooLong {
        /// Bytes of the message.
        have: usize,
        /// The most that there may be.
        max: usize,
    },
    /// As much waits to be sent or acknowledged as may: send, or wait for the other ends.
    #[error("as much waits to be sent as may: try again when some of it has left")]
    Full,
}

/// Another hub that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Where it was.
    pub address: SocketAddr,
    /// The number that stands for it in messages.
    pub publisher: u64,
    /// Why.
    pub reason: EndReason,
    /// Reliable chunks that it may not have got.
    pub unacknowledged: usize,
    /// The number of its first message that did not come, where it had said where they begin.
    pub expected: Option<u64>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Another hub is there.
    Joined {
        /// Where it is.
        address: SocketAddr,
        /// The number that stands for it in messages.
        publisher: u64,
    },
    /// Another hub is gone.
    Ended(Ended),
    /// The hub that this one went to refuses.
    Refused {
        /// Where it is.
        address: SocketAddr,
        /// Why; `None` when it has no room for more.
        why: Option<Disagreement>,
    },
    /// This node refused another one that came to it.
    Declined {
        /// Where it is.
        address: SocketAddr,
        /// Why; `None` when there is no room for more.
        why: Option<Disagreement>,
    },
}

/// A datagram that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Whom it goes to.
    pub to: SocketAddr,
    /// Its length.
    pub bytes: usize,
}

/// What a node did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Messages published.
    pub published: u64,
    /// Datagrams that came.
    pub datagrams_in: u64,
    /// Datagrams that were written.
    pub datagrams_out: u64,
    /// Datagrams that cannot be read.
    pub malformed: u64,
    /// Data of nobody whom this node knows.
    pub unknown: u64,
    /// Chunks that came late or twice.
    pub stale: u64,
    /// Pieces of messages longer than this side takes.
    pub too_long: u64,
    /// Answers dropped because too many waited.
    pub replies_dropped: u64,
    /// Hubs that came.
    pub joined: u64,
    /// Hubs that said that they go.
    pub left: u64,
    /// Hubs that were given up: silent, or broke the protocol.
    pub ended: u64,
    /// Hubs that were refused, or that refused.
    pub refused: u64,
    /// Sealed datagrams that do not open, or that came before.
    pub unauthentic: u64,
}
