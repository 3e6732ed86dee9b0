//! Typed messages at the server: handlers by type, and what they send.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use twinspan_core::time::Timestamp;
use twinspan_messages::{
    Encoder, Incoming, Message, Refusals, RefuseError, RegisterError, Registry,
};
use twinspan_reliable::Channel;
use twinspan_session::{Endpoint, SendError, SessionKey, UserId};
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

/// What a player used up of its rate in the present second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    second: u64,
    messages: u32,
    bytes: u32,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    pub(super) session: SessionKey,
    pub(super) user: UserId,
    pub(super) entity: EntityId,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug)]
enum To {
    Session(SessionKey),
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
    from: From,
    world: &'a World,
    registry: &'a Registry,
    sessions: &'a BTreeMap<UserId, SessionKey>,
    outbox: &'a mut Outbox,
}

impl fmt::Debug for MessageContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageContext").field("user", &self.from.user).finish_non_exhaustive()
    }
}

impl MessageContext<'_> {
    /// The time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Who sent the message, as its token says.
    pub const fn user(&self) -> UserId {
        self.from.user
    }

    /// The sender's entity.
    pub const fn entity(&self) -> EntityId {
        self.from.entity
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
        self.outbox.push(self.registry, To::Session(self.from.session), message)
    }

    /// Sends `message` to the player that is `user`.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent, or the user is not there.
    pub fn send<T: Message>(&mut self, user: UserId, message: &T) -> Result<(), SendMessageError> {
        let session = *self.sessions.get(&user).ok_or(SendMessageError::NotHere { user })?;
        self.outbox.push(self.registry, To::Session(session), message)
    }

    /// Sends `message` to all players.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent.
    pub fn send_all<T: Message>(&mut self, message: &T) -> Result<(), SendMessageError> {
        self.outbox.push(self.registry, To::All, message)
    }
}

/// The typed messages of a server that runs.
pub(super) struct Typed {
    messages: ServerMessages,
    /// Ordered: broadcasts go out in this order.
    sessions: BTreeMap<UserId, SessionKey>,
    outbox: Outbox,
    stats: MessageStats,
}

impl Typed {
    pub(super) fn new(messages: ServerMessages) -> Self {
        Self {
            messages,
            sessions: BTreeMap::new(),
            outbox: Outbox::default(),
            stats: MessageStats::default(),
        }
    }

    pub(super) const fn stats(&self) -> &MessageStats {
        &self.stats
    }

    pub(super) fn join(&mut self, user: UserId, session: SessionKey) {
        self.sessions.insert(user, session);
    }

    pub(super) fn leave(&mut self, user: UserId, session: SessionKey) {
        // A second session of the same user may have taken the place.
        if self.sessions.get(&user) == Some(&session) {
            self.sessions.remove(&user);
        }
    }

    /// Whether a message of so many bytes is within its sender's rate.
    pub(super) fn allows(&mut self, now: Timestamp, used: &mut Used, bytes: usize) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if used.second != second {
            *used = Used { second, ..Used::default() };
        }
        used.messages = used.messages.saturating_add(1);
        used.bytes = used.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let allowed = used.messages <= self.messages.per_second_max
            && used.bytes <= self.messages.bytes_per_second_max;
        self.stats.flooding += u64::from(!allowed);
        allowed
    }

    pub(super) const fn count_flooding(&mut self) {
        self.stats.flooding += 1;
    }

    pub(super) const fn count_shadowed(&mut self) {
        self.stats.shadowed += 1;
    }

    /// Checks a message and hands it to its handler.
    pub(super) fn receive(
        &mut self,
        now: Timestamp,
        from: From,
        (channel, bytes): (Channel, &[u8]),
        world: &World,
    ) -> Result<(), Fault> {
        let Self { messages: ServerMessages { registry, handlers, .. }, sessions, .. } = self;
        let incoming = registry.check(channel, bytes).map_err(|why| {
            self.stats.refused.count(&why);
            Fault::of(&why)
        })?;
        let Some(Some(handler)) = handlers.get_mut(incoming.type_index()) else {
            self.stats.refused.unhandled += 1;
            return Err(Fault::Kind);
        };
        self.stats.received += 1;
        let outbox = &mut self.outbox;
        handler(&mut MessageContext { now, from, world, registry, sessions, outbox }, &incoming);
        Ok(())
    }

    /// Hands what handlers sent to the sessions. What a full queue does not take is dropped and
    /// counted: were its session closed, players could have each other thrown out by talking.
    pub(super) fn flush(&mut self, now: Timestamp, endpoint: &mut Endpoint) {
        let Self { outbox: Outbox { bytes, waiting, .. }, sessions, stats, .. } = self;
        for Waiting { to, channel, from, until } in waiting.drain(..) {
            let bytes = bytes.get(from..until).unwrap_or_default();
            let mut send = |session| {
                let sent = endpoint.send(now, session, channel, bytes).is_ok();
                stats.sent += u64::from(sent);
                stats.unsent += u64::from(!sent);
            };
            match to {
                To::Session(session) => send(session),
                To::All => sessions.values().for_each(|session| send(*session)),
            }
        }
        bytes.clear();
    }

    /// Sends a message of the application itself.
    pub(super) fn send<T: Message>(
        &mut self,
        now: Timestamp,
        user: UserId,
        message: &T,
        endpoint: &mut Endpoint,
    ) -> Result<(), SendMessageError> {
        let session = *self.sessions.get(&user).ok_or(SendMessageError::NotHere { user })?;
        let encoded = self.messages.registry.encode(message, &mut self.outbox.encoder)?;
        match endpoint.send(now, session, encoded.channel, encoded.bytes) {
            Ok(()) => {
                self.stats.sent += 1;
                Ok(())
            }
            Err(SendError::NotConnected) => Err(SendMessageError::NotHere { user }),
            Err(error) => Err(SendMessageError::Session(error)),
        }
    }

    /// Sends a message of the application itself to all players.
    pub(super) fn send_all<T: Message>(
        &mut self,
        now: Timestamp,
        message: &T,
        endpoint: &mut Endpoint,
    ) -> Result<(), SendMessageError> {
        self.outbox.push(&self.messages.registry, To::All, message)?;
        self.flush(now, endpoint);
        Ok(())
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
