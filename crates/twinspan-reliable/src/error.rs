//! Why a message, an ack or a frame is refused.

use crate::Channel;

/// Why a message could not be queued. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// As many messages or bytes wait already as the configuration allows.
    #[error("{messages} messages with {bytes} bytes are unacknowledged, wait or give the peer up")]
    Full {
        /// Reliable messages queued or in flight.
        messages: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The message is longer than its channel allows.
    #[error("message of {len} bytes is longer than {max}, split it")]
    TooLong {
        /// Bytes of the message.
        len: usize,
        /// Bytes that the channel allows.
        max: usize,
    },
    /// The peer has not acknowledged a frame however often it was resent.
    #[error("connection is dead: the peer acknowledges nothing, close it")]
    Dead,
}

/// Why an ack is refused. The peer lies or is broken: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// It acknowledges a packet that was never sent, perhaps a number that was skipped on purpose.
    #[error("peer acknowledges packet {number}, which was never sent: close the connection")]
    NeverSent {
        /// The number.
        number: u64,
    },
    /// Its bitmap reaches below packet number 0.
    #[error("ack of {largest} reaches below packet number 0: close the connection")]
    BelowZero {
        /// The largest number of the ack.
        largest: u64,
    },
}

/// Why a frame is refused. The peer breaks the protocol: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer sends more than it has credit for.
    #[error("{charged} bytes charged where credit is {credit}: close the connection")]
    CreditExceeded {
        /// Charged bytes with this frame.
        charged: u64,
        /// Charged bytes that the peer may send in total.
        credit: u64,
    },
    /// The message is further ahead of the oldest unfinished one than a sender may go.
    #[error("message {number} of {channel:?} is too far ahead of {oldest}: close the connection")]
    TooFarAhead {
        /// Channel of the message.
        channel: Channel,
        /// Its number.
        number: u64,
        /// The oldest number that is unfinished.
        oldest: u64,
    },
    /// Indexes out of range, a piece that contradicts another, or pieces where there are none: in
    /// the unreliable class and on the reliable control stream.
    #[error("fragment {index} of 0..={last} of {channel:?} is impossible: close the connection")]
    BadFragment {
        /// Channel of the message.
        channel: Channel,
        /// Index of the piece.
        index: u8,
        /// Index of the last piece.
        last: u8,
    },
    /// The message is longer than its channel allows.
    #[error("message of {channel:?} has {len} bytes, more than {max}: close the connection")]
    TooLong {
        /// Channel of the message.
        channel: Channel,
        /// Bytes so far.
        len: usize,
        /// Bytes that the channel allows.
        max: usize,
    },
}
