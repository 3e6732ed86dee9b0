//! Errors of sessions, one enum per operation.

use crate::reason::CloseReason;

/// Which setting cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting is out of its range.
    #[error("session setting {name} is {value}; choose {range}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u128,
        /// What it may be.
        range: &'static str,
    },
    /// The reliability engine's part cannot be.
    #[error(transparent)]
    Reliable(#[from] twinspan_reliable::ConfigError),
    /// The suite offers no cipher.
    #[error("the cipher suite offers no cipher; give one that offers at least one")]
    NoCipher,
}

/// Why a token cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It has not the length of a token.
    #[error("connect token has {have} bytes where {need} are needed; copy all of it")]
    Length {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// It does not begin as a token does.
    #[error("this is no connect token, or one of another version; ask for a new one")]
    NotAToken,
    /// A character is not a hexadecimal digit.
    #[error("connect token has a character that is no hexadecimal digit; copy it again")]
    NotHexadecimal,
    /// It was changed or cut on its way.
    #[error("connect token is damaged; copy it again")]
    Damaged,
}

/// Why a client cannot move to another address of its own will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The session is not set up yet.
    #[error("no session is established; wait for it, then move")]
    NotConnected,
    /// The session is closing or closed.
    #[error("the session is closed: {0}")]
    Closed(CloseReason),
    /// Every id in reserve is used; the server sends new ones within a round trip.
    #[error("no connection id is in reserve; wait a round trip, or move under the id in use")]
    NoSpareId,
}

/// Why a client cannot come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComeBackError {
    /// The session is there, or being set up.
    #[error("the session was not lost; go on with it")]
    NotLost,
    /// The session ended so that it cannot be resumed.
    #[error("the session ended for good: {0}; connect with a token")]
    Ended(CloseReason),
    /// The server gave no ticket.
    #[error("there is no ticket; connect with a token")]
    NoTicket,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The session does not exist any more, or is not set up yet.
    #[error("no session is established; wait for it or connect again")]
    NotConnected,
    /// The session is closing or closed.
    #[error("the session is closed: {0}")]
    Closed(CloseReason),
    /// The control stream belongs to the protocol.
    #[error("stream 0 carries the protocol's own frames; use streams 1 to 63")]
    ControlStream,
    /// `write_packet` takes messages that are sent once.
    #[error("write_packet takes unreliable and sequenced messages; queue the others with send")]
    NotOneTime,
    /// The message does not fit one packet.
    #[error("the message does not fit one packet; write at most message_room() bytes")]
    NoRoom,
    /// The queue does not take it.
    #[error(transparent)]
    Queue(#[from] twinspan_reliable::SendError),
}
