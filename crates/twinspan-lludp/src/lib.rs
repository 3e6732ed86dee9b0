//! Second Life UDP: packets, zero-coding, every message as a typed struct, and what fields hold.
#![forbid(unsafe_code)]

mod borrowed;
pub mod content;
mod dynamic;
mod field;
mod frame;
mod layout;
mod macros;
mod message;
#[rustfmt::skip]
pub mod messages;
mod number;
mod packet;
mod template;
mod wire;
mod zero;

#[cfg(any(test, feature = "bench"))]
pub mod bench;
#[cfg(feature = "fuzz")]
pub mod fuzz;

pub use borrowed::{AgentUpdateRef, BlockRef, BlocksIter, BlocksOf, BlocksRef, MessageRef};
pub use dynamic::{DynamicBlocks, DynamicMessage, Value};
pub use field::{
    Field, FieldRef, Port, Quaternion, TooLong, ValueRef, Var1, Var1Ref, Var2, Var2Ref, Variable,
    VariableRef, Vector3, Vector3d, Vector4,
};
pub use frame::{
    ACKS_APPENDED_MAX, Acks, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_SENT_MAX, Flags, Frame, FrameError,
    HEADER_BYTES, OpenError, PACKET_BYTES_MIN, PAYLOAD_BYTES_MAX, Payload, SEQUENCE_BITS, Sequence,
    WriteError, ZeroCoding, acks_that_fit, append_acks, write_packet,
};
pub use layout::{
    BlockLayout, Deprecation, FieldKind, FieldLayout, MessageLayout, Quantity, ShortBody, Trust,
};
pub use message::{Block, Blocks, DecodeError, Fields, Message, layout};
pub use messages::{AnyMessage, LAYOUTS};
pub use number::{Frequency, MessageId, MessageIdError};
pub use packet::Encoder;
pub use template::{
    BLOCKS_PER_MESSAGE_MAX, FIELDS_PER_BLOCK_MAX, NAME_BYTES_MAX, TEMPLATE_BYTES_MAX,
    TEMPLATE_MESSAGES_MAX, Template, TemplateError,
};
pub use uuid::Uuid;
pub use wire::{EncodeError, Reader, Short, Tail, Writer};
pub use zero::{ExpandError, compress, expand};
