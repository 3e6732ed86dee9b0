//! Messages as values, for layouts that are known at run time alone.

use core::net::Ipv4Addr;

use uuid::Uuid;

use crate::field::{Port, Quaternion, ValueRef, Vector3, Vector3d, Vector4};
use crate::layout::{BlockLayout, Quantity};
use crate::message::DecodeError;
use crate::number::MessageId;
use crate::template::Template;
use crate::wire::{EncodeError, Tail, Writer};

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named as its type")]
pub enum Value {
    U8(u8),
    S8(i8),
    Bool(bool),
    U16(u16),
    S16(i16),
    U32(u32),
    S32(i32),
    U64(u64),
    F32(f32),
    F64(f64),
    Uuid(Uuid),
    Vector3(Vector3),
    Vector3d(Vector3d),
    Vector4(Vector4),
    Quaternion(Quaternion),
    Ip(Ipv4Addr),
    Port(Port),
    /// Fields of fixed and of variable length.
    Bytes(Vec<u8>),
}

macro_rules! values {
    ($($kind:ident)*) => {
        impl From<ValueRef<'_>> for Value {
            fn from(value: ValueRef<'_>) -> Self {
                match value {
                    $(ValueRef::$kind(value) => Self::$kind(value),)*
                    ValueRef::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
                }
            }
        }

        impl Value {
            /// The same, borrowed.
            pub fn as_ref(&self) -> ValueRef<'_> {
                match self {
                    $(Self::$kind(value) => ValueRef::$kind(*value),)*
                    Self::Bytes(bytes) => ValueRef::Bytes(bytes),
                }
            }
        }
    };
}

values! {
    U8 S8 Bool U16 S16 U32 S32 U64 F32 F64 Uuid Vector3 Vector3d Vector4 Quaternion Ip Port
}

/// All blocks of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicBlocks {
    /// The name.
    pub name: String,
    /// Each with the values of its fields, in the order of the layout.
    pub items: Vec<Vec<Value>>,
}

/// A message as values. It says what its fields are; for names of fields it knows its layout's.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicMessage {
    /// The number.
    pub id: MessageId,
    /// The name.
    pub name: String,
    /// Every block of the layout, in its order.
    pub blocks: Vec<DynamicBlocks>,
    /// The names of the fields of each block.
    fields: Vec<Vec<String>>,
}

impl DynamicMessage {
    /// The value of a field.
    pub fn value(&self, block: &str, item: usize, field: &str) -> Option<&Value> {
        let index = self.blocks.iter().position(|blocks| blocks.name == block)?;
        let field = self.fields.get(index)?.iter().position(|name| name == field)?;
        self.blocks.get(index)?.items.get(item)?.get(field)
    }

    /// The names of the fields of a block.
    pub fn fields(&self, block: &str) -> Option<&[String]> {
        let index = self.blocks.iter().position(|blocks| blocks.name == block)?;
        self.fields.get(index).map(Vec::as_slice)
    }
}

impl Template {
    /// Decodes the body of the message with this number, and says how it ends.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub fn decode<'a>(
        &self,
        id: MessageId,
        body: &'a [u8],
    ) -> Result<(DynamicMessage, Tail<'a>), DecodeError> {
        let layout = self.layout(id).ok_or(DecodeError::Unknown { id })?;
        let empty =
            |block: &BlockLayout| DynamicBlocks { name: block.name.to_string(), items: Vec::new() };
        let mut blocks: Vec<DynamicBlocks> = layout.blocks.iter().map(empty).collect();
        let walked = layout.walk(body, &mut |index, value| {
            let Some(blocks) = blocks.get_mut(index) else { return };
            match (value, blocks.items.last_mut()) {
                (None, _) => blocks.items.push(Vec::new()),
                (Some(value), Some(item)) => item.push(value.into()),
                // A value comes behind the beginning of its block.
                (Some(_), None) => {}
            }
        });
        let reader = walked.map_err(|short| DecodeError::Short(Box::new(short)))?;
        let names =
            |block: &BlockLayout| block.fields.iter().map(|field| field.name.to_string()).collect();
        let fields = layout.blocks.iter().map(names).collect();
        let message = DynamicMessage { id, name: layout.name.to_string(), blocks, fields };
        Ok((message, reader.tail()))
    }

    /// Encodes into `out` with a tail and returns the length.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub fn encode(
        &self,
        message: &DynamicMessage,
        tail: Tail<'_>,
        out: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let unknown = EncodeError::Mismatch { wanted: "another message" };
        let layout = self.layout(message.id).ok_or(unknown)?;
        if layout.blocks.len() != message.blocks.len() {
            return Err(EncodeError::Mismatch { wanted: "another number of blocks" });
        }
        let mut writer = Writer::new(out);
        for (block, blocks) in layout.blocks.iter().zip(&message.blocks) {
            write_blocks(block, &blocks.items, &mut writer)?;
        }
        writer.end(tail)?;
        Ok(writer.len())
    }
}

fn write_blocks(
    block: &BlockLayout,
    items: &[Vec<Value>],
    writer: &mut Writer<'_>,
) -> Result<(), EncodeError> {
    match (block.quantity, items.len()) {
        (Quantity::Single | Quantity::Optional, 1) => writer.fixed_block()?,
        (Quantity::Optional, 0) => writer.leave_out(),
        (Quantity::Multiple(count), have) if have == usize::from(count) => writer.fixed_block()?,
        (Quantity::Variable, count) => writer.count(count)?,
        _ => return Err(EncodeError::Mismatch { wanted: "another number of blocks of one name" }),
    }
    for item in items {
        if item.len() != block.fields.len() {
            return Err(EncodeError::Mismatch { wanted: "another number of fields" });
        }
        for (field, value) in block.fields.iter().zip(item) {
            value.as_ref().write(field.kind, writer)?;
        }
    }
    Ok(())
}
