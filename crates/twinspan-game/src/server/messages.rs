//! Typed messages at the server: handlers by type, and what they send.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use twinspan_core::time::Timestamp;
use twinspan_messages::{
    Encoded, Encoder, Incoming, Message, Refusals, RefuseError, RegisterError, Registry,
};
use twinspan_reliable::Channel;
use twinspan_session::{SessionKey, UserId};
use twinspan_world::{EntityId, World};

use super::admission::Fault;
use crate::error::SendMessageError;

/// Messages that handlers may send while one batch of datagrams is handled.
pub(crate) const WAITING_MAX: usize = 4_096;
/// Bytes of these messages.
pub(crate) const WAITING_BYTES_MAX: usize = 1 << 20;
/// Typed messages that a player may send in a second unless told otherwise.
const PER_SECOND_MAX: u32 = 60;
/// Bytes of them.
const BYTES_PER_SECOND_MAX: u32 = 64 << 10;

/// What becomes of one type's messages.
type Handler = Box<dyn FnMut(&mut MessageContext<'_>, &Incoming<'_>) + Send>;

/// The typed messages of a server: which there are, and what becomes of each.
///
/// ```
/// use std::sync::Arc;
/// use twinspan_game::{MessageContext, ServerMessages};
/// use twinspan_messages::{Limits, Registry};
///
/// let registry = Arc::new(Registry::new(Limits::default()));
/// let messages = ServerMessages::new(registry).with_rate(20, 16_384);
/// // messages.on::<Chat>(|context, chat| { /* ... */ })
/// # drop(messages);
/// ```
pub struct ServerMessages {
    registry: Arc<Registry>,
    /// Index: [`Incoming::type_index`].
    handlers: Vec<Option<Handler>>,
    per_second_max: u32,
    bytes_per_second_max: u32,
}

impl fmt::Debug for ServerMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMessages").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl ServerMessages {
    /// No handlers yet; messages without one are refused.
    pub fn new(registry: Arc<Registry>) -> Self {
        let mut handlers = Vec::new();
        handlers.resize_with(registry.len(), || None);
        Self {
            registry,
            handlers,
            per_second_max: PER_SECOND_MAX,
            bytes_per_second_max: BYTES_PER_SECOND_MAX,
        }
    }

    /// How many messages, and how many bytes of them, a player may send in a second: what is over
    /// is dropped and held against it as flooding. At first 60 and 65,536. Rules of the admission
    /// filter for the user's streams count beside it; their `kind` is the low byte of the type's
    /// number.
    #[must_use]
    pub const fn with_rate(mut self, messages: u32, bytes: u32) -> Self {
        self.per_second_max = messages;
        self.bytes_per_second_max = bytes;
        self
    }

    /// Lets `handler` have the messages of type `T`; a handler that was there before is replaced.
    ///
    /// # Errors
    /// [`RegisterError::Unregistered`] when the registry does not have the type.
    pub fn on<T: Message>(
        mut self,
        mut handler: impl FnMut(&mut MessageContext<'_>, T::Ref<'_>) + Send + 'static,
    ) -> Result<Self, RegisterError> {
        let unregistered = RegisterError::Unregistered { name: T::SCHEMA.name };
        let place = self.registry.index_of(TypeId::of::<T>()).ok_or(unregistered)?;
        if let Some(slot) = self.handlers.get_mut(place) {
            *slot = Some(Box::new(move |context, incoming| {
                if let Some(message) = incoming.read::<T>() {
                    handler(context, message);
                }
            }));
        }
        Ok(self)
    }
}

/// What a server counted of typed messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageStats {
    /// Handed to their handlers.
    pub received: u64,
    /// Refused, by reason.
    pub refused: Refusals,
    /// Over the rate.
    pub flooding: u64,
    /// Of shadowed players: taken, and shown to nobody.
    pub shadowed: u64,
    /// Handed to sessions, once for each receiver.
    pub sent: u64,
    /// Not sent: the receiver's queue was full or its session was ending.
    pub unsent: u64,
}

impl MessageStats {
    /// Adds what others counted.
    pub const fn add(&mut self, other: &Self) {
        let Self { received, refused, flooding, shadowed, sent, unsent } = *other;
        self.received += received;
        self.refused.add(&refused);
        self.flooding += flooding;
        self.shadowed += shadowed;
        self.sent += sent;
        self.unsent += unsent;
    }
}

/// What a player used up of its rate in the present second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    second: u64,
    messages: u32,
    bytes: u32,
}

/// Where a player's session is: in which shard, and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) shard: u16,
    pub(super) session: SessionKey,
}

impl Seat {
    /// In a server of one shard.
    pub(super) const fn alone(session: SessionKey) -> Self {
        Self { shard: 0, session }
    }
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
enum To {
    Seat(Seat),
    All,
}

/// A message that waits to be handed to its sessions.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    to: To,
    channel: Channel,
    from: usize,
    until: usize,
}

/// What handlers sent, in order.
#[derive(Debug, Default)]
struct Outbox {
    encoder: Encoder,
    bytes: Vec<u8>,
    waiting: Vec<Waiting>,
}

impl Outbox {
    fn push<T: Message>(
        &mut self,
        registry: &Registry,
        to: To,
        message: &T,
    ) -> Result<(), SendMessageError> {
        let encoded = registry.encode(message, &mut self.encoder)?;
        let from = self.bytes.len();
        let until = from + encoded.bytes.len();
        if self.waiting.len() == WAITING_MAX || until > WAITING_BYTES_MAX {
            return Err(SendMessageError::Full);
        }
        self.bytes.extend_from_slice(encoded.bytes);
        self.waiting.push(Waiting { to, channel: encoded.channel, from, until });
        Ok(())
    }
}

/// What a handler is given beside the message.
pub struct MessageContext<'a> {
    now: Timestamp,
    from: (Seat, UserId, EntityId),
    world: &'a World,
    registry: &'a Registry,
    seats: &'a BTreeMap<UserId, Seat>,
    outbox: &'a mut Outbox,
}

impl fmt::Debug for MessageContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageContext").field("user", &self.from.1).finish_non_exhaustive()
    }
}

impl MessageContext<'_> {
    /// The time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Who sent the message, as its token says.
    pub const fn user(&self) -> UserId {
        self.from.1
    }

    /// The sender's entity.
    pub const fn entity(&self) -> EntityId {
        self.from.2
    }

    /// The world, to be looked at.
    pub const fn world(&self) -> &World {
        self.world
    }

    /// Sends `message` back, on the channel of its type.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent.
    pub fn reply<T: Message>(&mut self, message: &T) -> Result<(), SendMessageError> {
        self.outbox.push(self.registry, To::Seat(self.from.0), message)
    }

    /// Sends `message` to the player that is `user`.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent, or the user is not there.
    pub fn send<T: Message>(&mut self, user: UserId, message: &T) -> Result<(), SendMessageError> {
        let seat = *self.seats.get(&user).ok_or(SendMessageError::NotHere { user })?;
        self.outbox.push(self.registry, To::Seat(seat), message)
    }

    /// Sends `message` to all players.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent.
    pub fn send_all<T: Message>(&mut self, message: &T) -> Result<(), SendMessageError> {
        self.outbox.push(self.registry, To::All, message)
    }
}

/// The typed messages of a server that runs, at the world's side: handlers, and what they send.
pub(super) struct Typed {
    messages: ServerMessages,
    /// Ordered: broadcasts go out in this order.
    seats: BTreeMap<UserId, Seat>,
    outbox: Outbox,
}

impl Typed {
    pub(super) fn new(messages: ServerMessages) -> Self {
        Self { messages, seats: BTreeMap::new(), outbox: Outbox::default() }
    }

    /// What a shard needs of it.
    pub(super) fn gate(&self) -> TypedGate {
        let ServerMessages { registry, handlers, per_second_max, bytes_per_second_max } =
            &self.messages;
        TypedGate {
            registry: Arc::clone(registry),
            has_handler: handlers.iter().map(Option::is_some).collect(),
            per_second_max: *per_second_max,
            bytes_per_second_max: *bytes_per_second_max,
            stats: MessageStats::default(),
        }
    }

    pub(super) fn join(&mut self, user: UserId, seat: Seat) {
        self.seats.insert(user, seat);
    }

    pub(super) fn leave(&mut self, user: UserId, seat: Seat) {
        // A second session of the same user may have taken the place.
        if self.seats.get(&user) == Some(&seat) {
            self.seats.remove(&user);
        }
    }

    /// Hands a message that was checked to its handler.
    pub(super) fn receive(
        &mut self,
        now: Timestamp,
        from: (Seat, UserId, EntityId),
        incoming: &Incoming<'_>,
        world: &World,
    ) {
        let Self { messages: ServerMessages { registry, handlers, .. }, seats, outbox } = self;
        if let Some(Some(handler)) = handlers.get_mut(incoming.type_index()) {
            handler(&mut MessageContext { now, from, world, registry, seats, outbox }, incoming);
        }
    }

    /// The same for one that was checked on another thread, and that is not believed here.
    pub(super) fn receive_bytes(
        &mut self,
        now: Timestamp,
        from: (Seat, UserId, EntityId),
        (channel, bytes): (Channel, &[u8]),
        world: &World,
    ) {
        let registry = Arc::clone(&self.messages.registry);
        if let Ok(incoming) = registry.check(channel, bytes) {
            self.receive(now, from, &incoming, world);
        }
    }

    /// Gives what handlers sent to `send`, each with the one seat that it is for, or with none when
    /// it is for all.
    pub(super) fn hand_out(&mut self, mut send: impl FnMut(Option<Seat>, Channel, &[u8])) {
        let Outbox { bytes, waiting, .. } = &mut self.outbox;
        for Waiting { to, channel, from, until } in waiting.drain(..) {
            let seat = match to {
                To::Seat(seat) => Some(seat),
                To::All => None,
            };
            send(seat, channel, bytes.get(from..until).unwrap_or_default());
        }
        bytes.clear();
    }

    /// Gives what handlers sent to `send`, where all players are in one shard.
    pub(super) fn deliver(&mut self, send: &mut dyn FnMut(SessionKey, Channel, &[u8])) {
        let Self { outbox: Outbox { bytes, waiting, .. }, seats, .. } = self;
        for Waiting { to, channel, from, until } in waiting.drain(..) {
            let bytes = bytes.get(from..until).unwrap_or_default();
            match to {
                To::Seat(seat) => send(seat.session, channel, bytes),
                To::All => seats.values().for_each(|seat| send(seat.session, channel, bytes)),
            }
        }
        bytes.clear();
    }

    /// A message of the application itself, and whom it is for.
    pub(super) fn address<T: Message>(
        &mut self,
        user: UserId,
        message: &T,
    ) -> Result<(Seat, Encoded<'_>), SendMessageError> {
        let seat = *self.seats.get(&user).ok_or(SendMessageError::NotHere { user })?;
        let encoded = self.messages.registry.encode(message, &mut self.outbox.encoder)?;
        Ok((seat, encoded))
    }

    /// A message of the application itself for all players.
    pub(super) fn address_all<T: Message>(&mut self, message: &T) -> Result<(), SendMessageError> {
        self.outbox.push(&self.messages.registry, To::All, message)
    }
}

/// The typed messages of a server that runs, at a shard's side: which there are, how many a player
/// may send, and what was counted.
#[derive(Clone)]
pub(super) struct TypedGate {
    registry: Arc<Registry>,
    /// Index: [`Incoming::type_index`].
    has_handler: Vec<bool>,
    per_second_max: u32,
    bytes_per_second_max: u32,
    stats: MessageStats,
}

impl TypedGate {
    pub(super) const fn stats(&self) -> &MessageStats {
        &self.stats
    }

    /// Whether a message of so many bytes is within its sender's rate.
    pub(super) fn allows(&mut self, now: Timestamp, used: &mut Used, bytes: usize) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if used.second != second {
            *used = Used { second, ..Used::default() };
        }
        used.messages = used.messages.saturating_add(1);
        used.bytes = used.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let allowed =
            used.messages <= self.per_second_max && used.bytes <= self.bytes_per_second_max;
        self.stats.flooding += u64::from(!allowed);
        allowed
    }

    pub(super) const fn count_flooding(&mut self) {
        self.stats.flooding += 1;
    }

    pub(super) const fn count_shadowed(&mut self) {
        self.stats.shadowed += 1;
    }

    /// What a full queue does not take is dropped and counted: were its session closed, players could
    /// have each other thrown out by talking.
    pub(super) fn count_sent(&mut self, was_sent: bool) {
        self.stats.sent += u64::from(was_sent);
        self.stats.unsent += u64::from(!was_sent);
    }

    /// Checks a message that has a handler.
    pub(super) fn check<'a>(
        &mut self,
        channel: Channel,
        bytes: &'a [u8],
    ) -> Result<Incoming<'a>, Fault> {
        let incoming = self.registry.check(channel, bytes).map_err(|why| {
            self.stats.refused.count(&why);
            Fault::of(&why)
        })?;
        if self.has_handler.get(incoming.type_index()) != Some(&true) {
            self.stats.refused.unhandled += 1;
            return Err(Fault::Kind);
        }
        self.stats.received += 1;
        Ok(incoming)
    }
}

impl Fault {
    const fn of(why: &RefuseError) -> Self {
        match why {
            RefuseError::Short { .. } => Self::Short,
            RefuseError::Unknown { .. } => Self::Kind,
            RefuseError::Channel { .. } => Self::Channel,
            _ => Self::Value,
        }
    }
}
