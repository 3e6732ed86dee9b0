//! Where the server and its admission filter meet.

use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};

use twinspan_admission::{Door, Signal};
use twinspan_core::time::Timestamp;
use twinspan_session::{CloseReason, Gate, HandshakeFault, UserId};
use twinspan_world::InputError;
use twinspan_world::event::EventError;

/// The filter's door, and the room that there is, as the endpoint asks them.
pub(super) struct DoorGate<'a> {
    pub(super) door: &'a mut Door,
    /// The places that all shards share; none for a server on one core, whose endpoint knows its own.
    pub(super) places: Option<&'a Places>,
}

/// The places for players that the shards of a server share.
///
/// A shard takes one for each session that it sets up, before the session's token is spent. It is given
/// back by the world when the player has left it, and by the shard when the world was never asked: so
/// there are never fewer taken than there are players, and whoever got one finds room.
#[derive(Debug)]
pub(crate) struct Places {
    /// A number that stands alone: relaxed order is enough.
    taken: AtomicUsize,
    most: usize,
}

impl Places {
    pub(super) const fn new(most: usize) -> Self {
        Self { taken: AtomicUsize::new(0), most }
    }

    fn is_left(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.most
    }

    /// Takes one; one that `replaces` another, of a player who leaves next, also where none is left.
    pub(super) fn take(&self, replaces: bool) -> bool {
        let taken = |taken| (replaces || taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Gives one back.
    pub(super) fn give_back(&self) {
        let left = |taken: usize| taken.checked_sub(1);
        // With none taken there is none to give back.
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    /// How many are taken, for tests.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Gate for DoorGate<'_> {
    fn allow_handshake(&mut self, now: Timestamp, source: IpAddr) -> bool {
        self.door.allow_handshake(now, source)
    }

    fn allow_user(&mut self, now: Timestamp, user: UserId) -> bool {
        self.door.allow_user(now, user.0)
    }

    fn on_failure(&mut self, now: Timestamp, source: IpAddr, _: HandshakeFault) {
        self.door.on_failure(now, source);
    }

    fn has_room(&self) -> bool {
        self.places.is_none_or(Places::is_left)
    }

    fn take_room(&mut self, replaces: bool) -> bool {
        self.places.is_none_or(|places| places.take(replaces))
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
