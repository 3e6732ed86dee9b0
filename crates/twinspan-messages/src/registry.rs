//! Message types by number: what may be sent, on which channel, and what may be read.

use core::any::TypeId;
use core::fmt;

use planus::Builder;
use twinspan_reliable::{Channel, StreamId};

use crate::schema::Schema;
use crate::verify::{Limits, VerifyError, verify};

/// Bytes of a message's number, in front of it.
pub const ID_BYTES: usize = 2;
/// Types that one registry takes.
pub const TYPES_MAX: usize = 1_024;
/// The first stream that is the user's: those below are the protocol's and the game's.
pub const USER_STREAM_FIRST: u8 = 5;

/// The number of a message type. Both ends must mean the same by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u16);

/// A table of a schema as a Rust type. Generated: see `twinspan-messages-build`.
pub trait Message: Sized + 'static {
    /// Reads the message's fields where they lie.
    type Ref<'a>;

    /// What its bytes must look like.
    const SCHEMA: &'static Schema;

    /// A reader of verified bytes; `None` where they are none after all.
    fn read(bytes: &[u8]) -> Option<Self::Ref<'_>>;

    /// Writes the message and returns its bytes.
    fn write<'b>(&self, builder: &'b mut Builder) -> &'b [u8];
}

/// Why a type cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Another type has the number.
    #[error("message number {id} is already that of {name}", id = id.0)]
    IdTaken {
        /// The number.
        id: MessageId,
        /// Whose it is.
        name: &'static str,
    },
    /// The type has a number.
    #[error("{name} is already registered, as number {id}", id = id.0)]
    TypeTaken {
        /// The type.
        name: &'static str,
        /// Its number.
        id: MessageId,
    },
    /// The stream is the protocol's or the game's.
    #[error("stream {stream} is not the user's: take one from {USER_STREAM_FIRST} to 63")]
    Stream {
        /// The stream.
        stream: u8,
    },
    /// The type was not registered.
    #[error("{name} is not registered: register it before its handler")]
    Unregistered {
        /// The type.
        name: &'static str,
    },
    /// There are as many types as a registry takes.
    #[error("a registry takes at most {TYPES_MAX} types")]
    Full,
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Its type was not registered.
    #[error("{name} is not registered: register it on both ends")]
    Unregistered {
        /// The type.
        name: &'static str,
    },
    /// The other end would refuse it.
    #[error("the other end would refuse the message: {0}")]
    Refused(#[from] VerifyError),
}

/// Why received bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefuseError {
    /// They end before the message's number does.
    #[error("a message of {bytes} bytes has no number")]
    Short {
        /// Their count.
        bytes: usize,
    },
    /// The number is of no registered type.
    #[error("message number {id} is not registered", id = id.0)]
    Unknown {
        /// The number.
        id: MessageId,
    },
    /// The type travels on another channel.
    #[error("{name} does not travel on {channel:?}")]
    Channel {
        /// The type.
        name: &'static str,
        /// The channel that it came on.
        channel: Channel,
    },
    /// The bytes are not a message of the type.
    #[error("not a {name}: {why}")]
    Malformed {
        /// The type.
        name: &'static str,
        /// What is wrong.
        why: VerifyError,
    },
}

/// How many messages were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Without a number.
    pub short: u64,
    /// Of a type that is not registered.
    pub unknown: u64,
    /// On a channel that is not their type's.
    pub channel: u64,
    /// Longer, deeper or larger than the limits allow.
    pub over_limit: u64,
    /// Otherwise not what their schema says.
    pub malformed: u64,
    /// Of a type without a handler.
    pub unhandled: u64,
}

impl Refusals {
    /// Adds what others counted.
    pub const fn add(&mut self, other: &Self) {
        let Self { short, unknown, channel, over_limit, malformed, unhandled } = *other;
        self.short += short;
        self.unknown += unknown;
        self.channel += channel;
        self.over_limit += over_limit;
        self.malformed += malformed;
        self.unhandled += unhandled;
    }

    /// Counts one.
    pub const fn count(&mut self, why: &RefuseError) {
        let place = match why {
            RefuseError::Short { .. } => &mut self.short,
            RefuseError::Unknown { .. } => &mut self.unknown,
            RefuseError::Channel { .. } => &mut self.channel,
            RefuseError::Malformed {
                why:
                    VerifyError::TooLong { .. }
                    | VerifyError::TooDeep { .. }
                    | VerifyError::TooManyTables { .. }
                    | VerifyError::TooLarge { .. },
                ..
            } => &mut self.over_limit,
            RefuseError::Malformed { .. } => &mut self.malformed,
        };
        *place += 1;
    }

    /// All of them.
    pub const fn total(&self) -> u64 {
        let Self { short, unknown, channel, over_limit, malformed, unhandled } = *self;
        short + unknown + channel + over_limit + malformed + unhandled
    }
}

/// One registered type.
#[derive(Clone, Copy)]
struct Entry {
    id: MessageId,
    type_id: TypeId,
    channel: Channel,
    schema: &'static Schema,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} on {:?}", self.id.0, self.schema.name, self.channel)
    }
}

/// Message types by number. Both ends need the same one.
#[derive(Clone, Debug)]
pub struct Registry {
    /// By number.
    entries: Vec<Entry>,
    limits: Limits,
}

impl Registry {
    /// A registry without types.
    pub const fn new(limits: Limits) -> Self {
        Self { entries: Vec::new(), limits }
    }

    /// Gives type `T` the number `id`, to travel on `channel`.
    ///
    /// # Errors
    /// [`RegisterError`] when the number, the type or the stream is taken.
    pub fn register<T: Message>(
        &mut self,
        id: MessageId,
        channel: Channel,
    ) -> Result<&mut Self, RegisterError> {
        let name = T::SCHEMA.name;
        let stream = channel.stream.get();
        if stream < USER_STREAM_FIRST {
            return Err(RegisterError::Stream { stream });
        }
        if let Some(entry) = self.of_type::<T>() {
            return Err(RegisterError::TypeTaken { name, id: entry.id });
        }
        if self.entries.len() == TYPES_MAX {
            return Err(RegisterError::Full);
        }
        match self.place(id) {
            Ok(place) => {
                let name = self.entries.get(place).map_or(name, |entry| entry.schema.name);
                Err(RegisterError::IdTaken { id, name })
            }
            Err(place) => {
                let type_id = TypeId::of::<T>();
                self.entries.insert(place, Entry { id, type_id, channel, schema: T::SCHEMA });
                Ok(self)
            }
        }
    }

    fn place(&self, id: MessageId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id)
    }

    fn of_type<T: Message>(&self) -> Option<&Entry> {
        let type_id = TypeId::of::<T>();
        self.entries.iter().find(|entry| entry.type_id == type_id)
    }

    /// The place of a Rust type among the types by number, as [`Incoming::type_index`] has it.
    pub fn index_of(&self, type_id: TypeId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.type_id == type_id)
    }

    /// The number of type `T`.
    pub fn id_of<T: Message>(&self) -> Option<MessageId> {
        self.of_type::<T>().map(|entry| entry.id)
    }

    /// Registered types.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no type is registered.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The limits that messages must keep to.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether `stream` is the user's.
    pub const fn is_user_stream(stream: StreamId) -> bool {
        stream.get() >= USER_STREAM_FIRST
    }

    /// Writes `message` with its number in front. What was written is checked as the other end
    /// will check it.
    ///
    /// # Errors
    /// [`EncodeError`] when the type is not registered or the message breaks the limits.
    pub fn encode<'e, T: Message>(
        &self,
        message: &T,
        encoder: &'e mut Encoder,
    ) -> Result<Encoded<'e>, EncodeError> {
        let unregistered = EncodeError::Unregistered { name: T::SCHEMA.name };
        let entry = self.of_type::<T>().ok_or(unregistered)?;
        encoder.builder.clear();
        let body = message.write(&mut encoder.builder);
        verify(entry.schema, &self.limits, body)?;
        encoder.bytes.clear();
        encoder.bytes.extend_from_slice(&entry.id.0.to_le_bytes());
        encoder.bytes.extend_from_slice(body);
        Ok(Encoded { channel: entry.channel, bytes: &encoder.bytes })
    }

    /// Checks what came on `channel`.
    ///
    /// # Errors
    /// [`RefuseError`] says why it is not to be read; [`Refusals::count`] counts it.
    pub fn check<'a>(
        &self,
        channel: Channel,
        bytes: &'a [u8],
    ) -> Result<Incoming<'a>, RefuseError> {
        let short = RefuseError::Short { bytes: bytes.len() };
        let (id, body) = bytes.split_first_chunk::<ID_BYTES>().ok_or(short)?;
        let id = MessageId(u16::from_le_bytes(*id));
        let place = self.place(id).map_err(|_| RefuseError::Unknown { id })?;
        let entry = self.entries.get(place).ok_or(RefuseError::Unknown { id })?;
        let name = entry.schema.name;
        if entry.channel != channel {
            return Err(RefuseError::Channel { name, channel });
        }
        verify(entry.schema, &self.limits, body)
            .map_err(|why| RefuseError::Malformed { name, why })?;
        Ok(Incoming { id, type_id: entry.type_id, place, body })
    }
}

/// Buffers to write messages in, kept from one to the next.
#[derive(Debug, Default)]
pub struct Encoder {
    builder: Builder,
    bytes: Vec<u8>,
}

impl Encoder {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A message ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'e> {
    /// The channel of its type.
    pub channel: Channel,
    /// Its number and its bytes.
    pub bytes: &'e [u8],
}

/// A message that was checked.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    id: MessageId,
    type_id: TypeId,
    place: usize,
    body: &'a [u8],
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({}, {} bytes)", self.id.0, self.body.len())
    }
}

impl<'a> Incoming<'a> {
    /// The number of its type.
    pub const fn id(&self) -> MessageId {
        self.id
    }

    /// Which of the registry's types it is, counted from 0 by number: an index for tables of
    /// handlers.
    pub const fn type_index(&self) -> usize {
        self.place
    }

    /// Reads it as a `T`; `None` when it is of another type.
    pub fn read<T: Message>(&self) -> Option<T::Ref<'a>> {
        if self.type_id == TypeId::of::<T>() { T::read(self.body) } else { None }
    }

    /// Copies it into `out`, to be read later.
    pub fn keep(&self, out: &mut MessageBuf) {
        out.checked = Some((self.id, self.type_id, self.place));
        out.body.clear();
        out.body.extend_from_slice(self.body);
    }
}

/// A checked message of its own.
#[derive(Clone, Default)]
pub struct MessageBuf {
    checked: Option<(MessageId, TypeId, usize)>,
    body: Vec<u8>,
}

impl fmt::Debug for MessageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.incoming(), f)
    }
}

impl MessageBuf {
    /// The message; `None` in a buffer that was never filled.
    pub fn incoming(&self) -> Option<Incoming<'_>> {
        let (id, type_id, place) = self.checked?;
        Some(Incoming { id, type_id, place, body: &self.body })
    }

    /// Reads it as a `T`; `None` when it is of another type.
    pub fn read<T: Message>(&self) -> Option<T::Ref<'_>> {
        self.incoming()?.read::<T>()
    }

    /// Bytes that it holds.
    pub const fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether it holds no bytes.
    pub const fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}
