//! What every message can do.

use core::fmt;

use crate::field::{Field, ValueRef};
use crate::layout::{BlockLayout, FieldLayout, MessageLayout, Quantity, ShortBody};
use crate::messages::{AnyMessage, LAYOUTS};
use crate::number::MessageId;
use crate::wire::{EncodeError, Reader, Short, Tail, Writer};

/// Fields whose values let somebody act for an agent; `Debug` does not show them.
const SECRETS: &[&str] = &[
    "CircuitCode",
    "Code",
    "Digest",
    "Password",
    "SecureSessionID",
    "SeedCapability",
    "SessionID",
    "Token",
];

/// Why a body is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body ends before the message does.
    #[error(transparent)]
    Short(Box<ShortBody>),
    /// No message has this number.
    #[error("no message is numbered {id}; load a template that has it")]
    Unknown {
        /// The number.
        id: MessageId,
    },
}

/// The fields of a block, for tools that do not know its type.
pub trait Fields: fmt::Debug {
    /// Tells name and value of each field, in the order of the layout.
    fn visit(&self, sink: &mut dyn FnMut(&'static str, ValueRef<'_>));
}

/// One block.
pub trait Block: Fields + Clone + Default + PartialEq {
    /// What it consists of.
    const FIELDS: &'static [FieldLayout];
    /// The fewest bytes that it takes.
    const BYTES_MIN: usize;

    /// Reads it from the front.
    ///
    /// # Errors
    /// [`Short`] when the body ends within it.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short>;

    /// Writes it.
    ///
    /// # Errors
    /// [`EncodeError`]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;
}

/// All blocks of one name: a block, one that may be left out, an array of them, or a vector.
pub trait Blocks: Sized {
    /// How many there are.
    const QUANTITY: Quantity;
    /// What each consists of.
    const FIELDS: &'static [FieldLayout];

    /// Reads them from the front.
    ///
    /// # Errors
    /// [`Short`] when the body ends within one.
    fn read_all(reader: &mut Reader<'_>) -> Result<Self, Short>;

    /// Writes them.
    ///
    /// # Errors
    /// [`EncodeError`]
    fn write_all(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// Tells each of them.
    fn each(&self, sink: &mut dyn FnMut(&dyn Fields));
}

impl<B: Block> Blocks for B {
    const QUANTITY: Quantity = Quantity::Single;
    const FIELDS: &'static [FieldLayout] = B::FIELDS;

    #[inline]
    fn read_all(reader: &mut Reader<'_>) -> Result<Self, Short> {
        B::read(reader)
    }

    #[inline]
    fn write_all(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.fixed_block()?;
        self.write(writer)
    }

    fn each(&self, sink: &mut dyn FnMut(&dyn Fields)) {
        sink(self);
    }
}

//= lludp 4.5
impl<B: Block> Blocks for Option<B> {
    const QUANTITY: Quantity = Quantity::Optional;
    const FIELDS: &'static [FieldLayout] = B::FIELDS;

    fn read_all(reader: &mut Reader<'_>) -> Result<Self, Short> {
        if reader.rest().is_empty() { Ok(None) } else { B::read(reader).map(Some) }
    }

    fn write_all(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        let Some(block) = self else {
            writer.leave_out();
            return Ok(());
        };
        writer.fixed_block()?;
        block.write(writer)
    }

    fn each(&self, sink: &mut dyn FnMut(&dyn Fields)) {
        self.iter().for_each(|block| sink(block));
    }
}

impl<B: Block, const N: usize> Blocks for [B; N]
where
    Self: Default,
{
    const QUANTITY: Quantity = Quantity::Multiple(N as u8);
    const FIELDS: &'static [FieldLayout] = B::FIELDS;

    fn read_all(reader: &mut Reader<'_>) -> Result<Self, Short> {
        let mut blocks = Self::default();
        for block in &mut blocks {
            *block = B::read(reader)?;
        }
        Ok(blocks)
    }

    fn write_all(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.fixed_block()?;
        self.iter().try_for_each(|block| block.write(writer))
    }

    fn each(&self, sink: &mut dyn FnMut(&dyn Fields)) {
        self.iter().for_each(|block| sink(block));
    }
}

impl<B: Block> Blocks for Vec<B> {
    const QUANTITY: Quantity = Quantity::Variable;
    const FIELDS: &'static [FieldLayout] = B::FIELDS;

    #[inline]
    fn read_all(reader: &mut Reader<'_>) -> Result<Self, Short> {
        // The count is no more than the bytes that are there allow.
        let count = reader.count(B::BYTES_MIN)?;
        let mut blocks = Self::with_capacity(count);
        for _ in 0..count {
            blocks.push(B::read(reader)?);
        }
        Ok(blocks)
    }

    #[inline]
    fn write_all(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.count(self.len())?;
        self.iter().try_for_each(|block| block.write(writer))
    }

    fn each(&self, sink: &mut dyn FnMut(&dyn Fields)) {
        self.iter().for_each(|block| sink(block));
    }
}

/// A message.
///
/// ```
/// use twinspan_lludp::messages::{StartPingCheck, StartPingCheckPingID};
/// use twinspan_lludp::{Message, Tail};
///
/// let ping = StartPingCheck { ping_id: StartPingCheckPingID { ping_id: 7, oldest_unacked: 258 } };
/// let mut body = [0; 16];
/// let len = ping.encode(&mut body)?;
/// assert_eq!(body[..len], [7, 2, 1, 0, 0]);
/// assert_eq!(StartPingCheck::decode(&body[..len])?, (ping, Tail::Exact));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Message: Clone + Default + PartialEq + fmt::Debug {
    /// Name, number, and what it consists of.
    const LAYOUT: MessageLayout;
    /// Its name, as the protocol has it.
    const NAME: &'static str;
    /// Its number.
    const ID: MessageId;
    /// Whether senders zero-code it where that makes it shorter.
    const ZERO_CODED: bool;

    /// Reads its blocks.
    ///
    /// # Errors
    /// [`Short`] when the body ends within one.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short>;

    /// Writes its blocks.
    ///
    /// # Errors
    /// [`EncodeError`]
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// Tells the name of each block with its fields, in the order of the layout.
    fn visit(&self, sink: &mut dyn FnMut(&'static str, &dyn Fields));

    /// Decodes a body, and says how it ends.
    ///
    /// # Errors
    /// [`DecodeError::Short`] names the field that is cut.
    //= lludp 4.1
    #[inline]
    fn decode(body: &[u8]) -> Result<(Self, Tail<'_>), DecodeError> {
        let mut reader = Reader::new(body);
        match Self::read(&mut reader) {
            Ok(message) => Ok((message, reader.tail())),
            Err(Short) => Err(short_of::<Self>(body)),
        }
    }

    /// Encodes into `out` and returns the length.
    ///
    /// # Errors
    /// [`EncodeError`]
    #[inline]
    fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.encode_with(Tail::Exact, out)
    }

    /// Encodes into `out` with the end that [`decode`](Self::decode) told, and returns the length.
    ///
    /// # Errors
    /// [`EncodeError`]
    #[inline]
    fn encode_with(&self, tail: Tail<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(out);
        self.write(&mut writer)?;
        writer.end(tail)?;
        Ok(writer.len())
    }
}

/// Walks the layout to name what is cut.
#[cold]
pub(crate) fn short_of<M: Message>(body: &[u8]) -> DecodeError {
    short(Some(&M::LAYOUT), body)
}

#[cold]
fn short(layout: Option<&MessageLayout>, body: &[u8]) -> DecodeError {
    let found = layout.and_then(|layout| layout.shortage(body));
    // A body that is cut for one of the two readers of it is cut for the other.
    debug_assert!(found.is_some(), "a body is cut, and the layout does not say where");
    DecodeError::Short(Box::new(found.unwrap_or_default()))
}

/// One entry of a message's layout.
pub(crate) const fn block_layout<B: Blocks>(name: &'static str) -> BlockLayout {
    BlockLayout {
        name: std::borrow::Cow::Borrowed(name),
        quantity: B::QUANTITY,
        fields: std::borrow::Cow::Borrowed(B::FIELDS),
    }
}

/// One entry of a block's layout.
pub(crate) const fn field_layout<F: Field>(name: &'static str) -> FieldLayout {
    FieldLayout { name: std::borrow::Cow::Borrowed(name), kind: F::KIND }
}

/// `Debug` of a block: every field but the secret ones.
pub(crate) fn debug_block(
    name: &str,
    block: &dyn Fields,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut shown = f.debug_struct(name);
    block.visit(&mut |field, value| {
        match value {
            _ if SECRETS.contains(&field) => shown.field(field, &format_args!("(hidden)")),
            ValueRef::Bytes(bytes) => {
                shown.field(field, &format_args!("b\"{}\"", bytes.escape_ascii()))
            }
            value => shown.field(field, &Bare(value)),
        };
    });
    shown.finish()
}

/// A value without the name of its type.
struct Bare<'a>(ValueRef<'a>);

impl fmt::Debug for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ValueRef::U8(value) => write!(f, "{value}"),
            ValueRef::S8(value) => write!(f, "{value}"),
            ValueRef::Bool(value) => write!(f, "{value}"),
            ValueRef::U16(value) => write!(f, "{value}"),
            ValueRef::S16(value) => write!(f, "{value}"),
            ValueRef::U32(value) => write!(f, "{value}"),
            ValueRef::S32(value) => write!(f, "{value}"),
            ValueRef::U64(value) => write!(f, "{value}"),
            ValueRef::F32(value) => write!(f, "{value:?}"),
            ValueRef::F64(value) => write!(f, "{value:?}"),
            ValueRef::Uuid(value) => write!(f, "{value}"),
            ValueRef::Vector3(v) => write!(f, "({:?}, {:?}, {:?})", v.x, v.y, v.z),
            ValueRef::Vector3d(v) => write!(f, "({:?}, {:?}, {:?})", v.x, v.y, v.z),
            ValueRef::Vector4(v) => write!(f, "({:?}, {:?}, {:?}, {:?})", v.x, v.y, v.z, v.w),
            ValueRef::Quaternion(q) => write!(f, "({:?}, {:?}, {:?})", q.x, q.y, q.z),
            ValueRef::Ip(value) => write!(f, "{value}"),
            ValueRef::Port(value) => write!(f, "{}", value.0),
            ValueRef::Bytes(value) => write!(f, "b\"{}\"", value.escape_ascii()),
        }
    }
}

/// `Debug` of a message: its blocks.
pub(crate) fn debug_message<M: Message>(message: &M, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut shown = f.debug_struct(M::NAME);
    message.visit(&mut |name, block| {
        shown.field(name, &block);
    });
    shown.finish()
}

impl AnyMessage {
    /// Decodes the body of the message with this number, and says how it ends.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode(id: MessageId, body: &[u8]) -> Result<(Self, Tail<'_>), DecodeError> {
        let mut reader = Reader::new(body);
        match Self::read(id, &mut reader) {
            Some(Ok(message)) => Ok((message, reader.tail())),
            Some(Err(Short)) => Err(short(layout(id), body)),
            None => Err(DecodeError::Unknown { id }),
        }
    }

    /// Encodes into `out` and returns the length.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.encode_with(Tail::Exact, out)
    }

    /// Encodes into `out` with the end that [`decode`](Self::decode) told, and returns the length.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub fn encode_with(&self, tail: Tail<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut writer = Writer::new(out);
        self.write(&mut writer)?;
        writer.end(tail)?;
        Ok(writer.len())
    }

    /// What it consists of.
    pub fn layout(&self) -> &'static MessageLayout {
        // Every message has one.
        layout(self.id()).unwrap_or(&LAYOUTS[0])
    }
}

/// What the message with this number consists of; `None` when there is no such message.
pub fn layout(id: MessageId) -> Option<&'static MessageLayout> {
    let index = LAYOUTS.binary_search_by_key(&id, |layout| layout.id).ok()?;
    LAYOUTS.get(index)
}
