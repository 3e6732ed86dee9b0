//! Where the server and its admission filter meet.

use core::net::IpAddr;

use twinspan_admission::{Door, Signal};
use twinspan_core::time::Timestamp;
use twinspan_session::{CloseReason, Gate, HandshakeFault, UserId};
use twinspan_world::InputError;
use twinspan_world::event::EventError;

/// The filter's door as the endpoint asks it.
pub(super) struct DoorGate<'a>(pub(super) &'a mut Door);

impl Gate for DoorGate<'_> {
    fn allow_handshake(&mut self, now: Timestamp, source: IpAddr) -> bool {
        self.0.allow_handshake(now, source)
    }

    fn allow_user(&mut self, now: Timestamp, user: UserId) -> bool {
        self.0.allow_user(now, user.0)
    }

    fn on_failure(&mut self, now: Timestamp, source: IpAddr, _: HandshakeFault) {
        self.0.on_failure(now, source);
    }
}

/// What a session that a rule ends is told.
pub(super) const fn reason_of(cause: Signal) -> CloseReason {
    match cause {
        Signal::Malformed => CloseReason::ProtocolViolation,
        Signal::Flooding => CloseReason::Flooding,
        Signal::Movement => CloseReason::PositionLie,
        Signal::Action => CloseReason::Kicked,
    }
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Short,
    Trailing,
    Kind,
    Value,
    Channel,
}

impl From<InputError> for Fault {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Short(_) => Self::Short,
            InputError::Trailing { .. } => Self::Trailing,
            _ => Self::Value,
        }
    }
}

impl From<EventError> for Fault {
    fn from(error: EventError) -> Self {
        match error {
            EventError::Short(_) => Self::Short,
            EventError::Trailing { .. } => Self::Trailing,
            EventError::Kind { .. } => Self::Kind,
            _ => Self::Value,
        }
    }
}

/// Messages that could not be decoded, by what was wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MalformedCounts {
    /// They end too soon.
    pub short: u64,
    /// Bytes follow their end.
    pub trailing: u64,
    /// Nothing has this number.
    pub kind: u64,
    /// A field has a value that it cannot have.
    pub value: u64,
    /// They came on a channel that clients do not use.
    pub channel: u64,
}

impl MalformedCounts {
    /// Adds what others counted.
    pub const fn add(&mut self, other: &Self) {
        let Self { short, trailing, kind, value, channel } = *other;
        self.short += short;
        self.trailing += trailing;
        self.kind += kind;
        self.value += value;
        self.channel += channel;
    }

    pub(super) const fn count(&mut self, fault: Fault) {
        match fault {
            Fault::Short => self.short += 1,
            Fault::Trailing => self.trailing += 1,
            Fault::Kind => self.kind += 1,
            Fault::Value => self.value += 1,
            Fault::Channel => self.channel += 1,
        }
    }

    /// Every cause by name, with its count.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Self { short, trailing, kind, value, channel } = *self;
        [
            ("short", short),
            ("trailing", trailing),
            ("kind", kind),
            ("value", value),
            ("channel", channel),
        ]
        .into_iter()
    }
}
