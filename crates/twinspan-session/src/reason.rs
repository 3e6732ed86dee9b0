//! Why a session ends and why a server refuses one.

use core::fmt;

/// Why a server does not take a client, session 3.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum RefuseReason {
    /// No slot is free.
    Full = 1,
    /// The token has expired.
    TokenExpired = 2,
    /// The token has set up a session before.
    TokenSpent = 3,
    /// The token is not for this server, or was changed.
    TokenInvalid = 4,
    /// No protocol version in common.
    Version = 5,
    /// No cipher in common.
    Suite = 6,
    /// The server is about to stop.
    Draining = 7,
    /// The user is let in no more, for a time or for good.
    Banned = 8,
    /// The resume ticket is good no longer: its session ended otherwise than by being lost, was
    /// lost too long ago, or was resumed before.
    Ticket = 9,
    /// One end requires an option that the other forbids.
    Options = 10,
}

impl RefuseReason {
    const ALL: [Self; 10] = [
        Self::Full,
        Self::TokenExpired,
        Self::TokenSpent,
        Self::TokenInvalid,
        Self::Version,
        Self::Suite,
        Self::Draining,
        Self::Banned,
        Self::Ticket,
        Self::Options,
    ];

    /// Whether it is about the token that the client brought, and so the client's fault.
    pub(crate) const fn is_about_token(self) -> bool {
        matches!(self, Self::TokenExpired | Self::TokenSpent | Self::TokenInvalid | Self::Ticket)
    }

    /// The reason with this number on the wire.
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// The name that people and summaries use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "refused: full",
            Self::TokenExpired => "refused: token expired",
            Self::TokenSpent => "refused: token spent",
            Self::TokenInvalid => "refused: token invalid",
            Self::Version => "refused: no common version",
            Self::Suite => "refused: no common cipher",
            Self::Draining => "refused: server is draining",
            Self::Banned => "refused: banned",
            Self::Ticket => "refused: ticket good no longer",
            Self::Options => "refused: options that exclude each other",
        }
    }
}

/// Why a session ended, session 8.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// One end was done.
    Normal,
    /// The server stops.
    ServerDraining,
    /// Nothing was heard for the idle time-out.
    IdleTimeout,
    /// The handshake did not end in time.
    HandshakeTimeout,
    /// The peer acknowledged a packet that was never sent.
    AckOfUnsent,
    /// The peer sent what the protocol forbids.
    ProtocolViolation,
    /// The peer sent too much.
    Flooding,
    /// The peer claimed positions it cannot have.
    PositionLie,
    /// What waits for the peer outgrew its limit.
    QueueOverflow,
    /// A person or a rule removed the peer.
    Kicked,
    /// A message was sent again and again without an ack.
    PeerUnresponsive,
    /// As many packets were sent under one key as may be.
    KeyWornOut,
    /// The client came back with its ticket: another session goes on in its place.
    Replaced,
    /// The server did not take the client.
    Refused(RefuseReason),
    /// A number that this version does not know.
    Other(u8),
}

/// What is added to a refusal's number.
const REFUSED: u8 = 32;

impl CloseReason {
    /// The number on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::ServerDraining => 1,
            Self::IdleTimeout => 2,
            Self::HandshakeTimeout => 3,
            Self::AckOfUnsent => 4,
            Self::ProtocolViolation => 5,
            Self::Flooding => 6,
            Self::PositionLie => 7,
            Self::QueueOverflow => 8,
            Self::Kicked => 9,
            Self::PeerUnresponsive => 10,
            Self::KeyWornOut => 11,
            Self::Replaced => 12,
            Self::Refused(reason) => REFUSED + reason as u8,
            Self::Other(number) => number,
        }
    }

    /// The reason with this number on the wire.
    pub fn from_wire(number: u8) -> Self {
        match number {
            0 => Self::Normal,
            1 => Self::ServerDraining,
            2 => Self::IdleTimeout,
            3 => Self::HandshakeTimeout,
            4 => Self::AckOfUnsent,
            5 => Self::ProtocolViolation,
            6 => Self::Flooding,
            7 => Self::PositionLie,
            8 => Self::QueueOverflow,
            9 => Self::Kicked,
            10 => Self::PeerUnresponsive,
            11 => Self::KeyWornOut,
            12 => Self::Replaced,
            other => number
                .checked_sub(REFUSED)
                .and_then(RefuseReason::from_wire)
                .map_or(Self::Other(other), Self::Refused),
        }
    }

    /// Whether a session that ended so was lost, not left: its client may come back with its ticket,
    /// or has, and a world keeps its place for a while.
    pub const fn may_resume(self) -> bool {
        matches!(
            self,
            Self::IdleTimeout | Self::PeerUnresponsive | Self::KeyWornOut | Self::Replaced
        )
    }

    /// The name that people and summaries use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ServerDraining => "server draining",
            Self::IdleTimeout => "idle timeout",
            Self::HandshakeTimeout => "handshake timeout",
            Self::AckOfUnsent => "acknowledged what was never sent",
            Self::ProtocolViolation => "protocol violation",
            Self::Flooding => "flooding",
            Self::PositionLie => "position lie",
            Self::QueueOverflow => "queue overflow",
            Self::Kicked => "kicked",
            Self::PeerUnresponsive => "peer unresponsive",
            Self::KeyWornOut => "key worn out",
            Self::Replaced => "replaced",
            Self::Refused(reason) => reason.name(),
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => write!(f, "reason {number}"),
            known => f.write_str(known.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_the_wire() {
        for number in 0..=u8::MAX {
            assert_eq!(CloseReason::from_wire(number).to_wire(), number);
        }
    }

    #[test]
    fn refusals_follow_at_32() {
        assert_eq!(CloseReason::Refused(RefuseReason::Full).to_wire(), 33);
        assert_eq!(CloseReason::from_wire(34), CloseReason::Refused(RefuseReason::TokenExpired));
        assert_eq!(CloseReason::from_wire(43), CloseReason::Other(43));
        assert_eq!(CloseReason::from_wire(10), CloseReason::PeerUnresponsive);
        assert_eq!(CloseReason::Other(99).to_string(), "reason 99");
    }
}
