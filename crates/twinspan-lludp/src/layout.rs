//! What messages consist of, as values: for tools, for names in errors, for templates read at run
//! time.

use std::borrow::Cow;

use crate::field::ValueRef;
use crate::number::MessageId;
use crate::wire::{Reader, Short};

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldKind {
    /// One byte.
    U8,
    /// One byte with a sign.
    S8,
    /// One byte, 0 or 1.
    Bool,
    /// Two bytes, little-endian.
    U16,
    /// Two bytes, little-endian, with a sign.
    S16,
    /// Four bytes, little-endian.
    U32,
    /// Four bytes, little-endian, with a sign.
    S32,
    /// Eight bytes, little-endian.
    U64,
    /// A float.
    F32,
    /// A double.
    F64,
    /// Sixteen bytes, as printed.
    Uuid,
    /// Three floats.
    Vector3,
    /// Three doubles.
    Vector3d,
    /// Four floats.
    Vector4,
    /// Three floats of a rotation.
    Quaternion,
    /// Four bytes in network order.
    Ip,
    /// Two bytes in network order.
    Port,
    /// So many bytes.
    Fixed(u16),
    /// A length of one byte and as many bytes.
    Variable1,
    /// A length of two bytes, little-endian, and as many bytes.
    Variable2,
}

impl FieldKind {
    /// The fewest bytes that it takes.
    pub const fn bytes_min(self) -> usize {
        match self {
            Self::U8 | Self::S8 | Self::Bool | Self::Variable1 => 1,
            Self::U16 | Self::S16 | Self::Port | Self::Variable2 => 2,
            Self::U32 | Self::S32 | Self::F32 | Self::Ip => 4,
            Self::U64 | Self::F64 => 8,
            Self::Vector3 | Self::Quaternion => 12,
            Self::Uuid | Self::Vector4 => 16,
            Self::Vector3d => 24,
            Self::Fixed(bytes) => bytes as usize,
        }
    }

    /// Its name in the description of the messages; a fixed one is followed by its bytes there.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::S8 => "s8",
            Self::Bool => "bool",
            Self::U16 => "u16",
            Self::S16 => "s16",
            Self::U32 => "u32",
            Self::S32 => "s32",
            Self::U64 => "u64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Uuid => "uuid",
            Self::Vector3 => "v3",
            Self::Vector3d => "v3d",
            Self::Vector4 => "v4",
            Self::Quaternion => "quat",
            Self::Ip => "ip",
            Self::Port => "port",
            Self::Fixed(_) => "fix",
            Self::Variable1 => "var1",
            Self::Variable2 => "var2",
        }
    }
}

/// One field of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// Its name, as the protocol has it; unique in its block.
    pub name: Cow<'static, str>,
    /// Its type.
    pub kind: FieldKind,
}

/// How often a block comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Once, without a count.
    Single,
    /// Once, without a count; servers leave it out where the body ends before it.
    Optional,
    /// So often, without a count.
    Multiple(u8),
    /// As often as the byte before it says.
    Variable,
}

/// One block of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// Its name, as the protocol has it; unique in its message.
    pub name: Cow<'static, str>,
    /// How often it comes.
    pub quantity: Quantity,
    /// What each consists of.
    pub fields: Cow<'static, [FieldLayout]>,
}

impl BlockLayout {
    /// The fewest bytes that one of these blocks takes.
    pub fn bytes_min(&self) -> usize {
        bytes_min(&self.fields)
    }
}

/// The fewest bytes that these fields take.
pub(crate) const fn bytes_min(fields: &[FieldLayout]) -> usize {
    let (mut left, mut sum) = (fields, 0);
    while let [field, rest @ ..] = left {
        sum += field.kind.bytes_min();
        left = rest;
    }
    sum
}

/// Whose messages are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Only a simulator or another server may send it.
    Trusted,
    /// Anybody may.
    NotTrusted,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deprecation {
    /// In use.
    None,
    /// Out of use.
    Deprecated,
    /// Out of use over UDP.
    UdpDeprecated,
    /// Comes over the event queue alone: refused when it comes over UDP.
    UdpRefused,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageLayout {
    /// Its name, as the protocol has it.
    pub name: Cow<'static, str>,
    /// Its number.
    pub id: MessageId,
    /// Who may send it.
    pub trust: Trust,
    /// Whether senders zero-code it where that makes it shorter.
    pub zero_coded: bool,
    /// Whether it is still used.
    pub deprecation: Deprecation,
    /// What it consists of.
    pub blocks: Cow<'static, [BlockLayout]>,
}

/// Where a body ends too soon.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{message} ends in {block}[{item}].{field}: {have} bytes left where {need} are needed")]
pub struct ShortBody {
    /// The message.
    pub message: String,
    /// The block.
    pub block: String,
    /// Which of these blocks, from 0.
    pub item: usize,
    /// The field, or `count` before the first.
    pub field: String,
    /// Bytes that were there.
    pub have: usize,
    /// Bytes that the field takes, as far as they are known.
    pub need: usize,
}

impl MessageLayout {
    /// Finds out where `body` ends too soon; `None` when it does not.
    #[cold]
    pub(crate) fn shortage(&self, body: &[u8]) -> Option<ShortBody> {
        self.walk(body, &mut |_, _| {}).err()
    }

    /// Reads `body` and tells each value to `sink`: the index of its block, and the value or `None`
    /// where a block begins. Returns what follows the last block.
    ///
    /// # Errors
    /// [`ShortBody`]
    pub(crate) fn walk<'a>(
        &self,
        body: &'a [u8],
        sink: &mut dyn FnMut(usize, Option<ValueRef<'a>>),
    ) -> Result<Reader<'a>, ShortBody> {
        let mut reader = Reader::new(body);
        for (index, block) in self.blocks.iter().enumerate() {
            let short = |item, field: &str, have, need| ShortBody {
                message: self.name.to_string(),
                block: block.name.to_string(),
                item,
                field: field.to_owned(),
                have,
                need,
            };
            let count = match block.quantity {
                Quantity::Single => 1,
                Quantity::Optional => usize::from(!reader.rest().is_empty()),
                Quantity::Multiple(count) => usize::from(count),
                // Each field is checked on its own, to name the one that is cut.
                Quantity::Variable => {
                    let have = reader.rest().len();
                    reader.count(0).map_err(|Short| short(0, "count", have, 1))?
                }
            };
            for item in 0..count {
                sink(index, None);
                for field in block.fields.iter() {
                    let before = reader.rest();
                    let value = ValueRef::read(field.kind, &mut reader).map_err(|Short| {
                        let need = needed(field.kind, before);
                        short(item, &field.name, before.len(), need)
                    })?;
                    sink(index, Some(value));
                }
            }
        }
        Ok(reader)
    }
}

/// The bytes that a field takes at the front of `rest`.
fn needed(kind: FieldKind, rest: &[u8]) -> usize {
    let counted = match (kind, rest) {
        (FieldKind::Variable1, [len, ..]) => usize::from(*len),
        (FieldKind::Variable2, [low, high, ..]) => usize::from(u16::from_le_bytes([*low, *high])),
        _ => 0,
    };
    kind.bytes_min() + counted
}
