//! Typed application messages: FlatBuffers that are verified on read, and a registry of their types.
//!
//! A user writes a schema, `chat.fbs`, and has `twinspan-messages-build` make Rust types of it; the
//! types implement [`Message`]. Both ends put the same types into a [`Registry`], each with a
//! number and the channel that it travels on. What arrives is looked up, [verified](verify()) against
//! its schema within [`Limits`], and only then read; everything else is refused with a reason, and
//! [`Refusals`] counts the reasons. `docs/spec/messages.md` says what travels.
//!
//! ```
//! use twinspan_messages::{Encoder, Limits, MessageId, Registry};
//! use twinspan_reliable::{Channel, Delivery, StreamId};
//! # mod generated {
//! #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/generated.rs"));
//! # }
//! use generated::town::{Chat, ChatRef};
//!
//! let talk = StreamId::new(5).map(|stream| Channel::new(Delivery::Ordered, stream)).unwrap();
//! let mut registry = Registry::new(Limits::default());
//! registry.register::<Chat>(MessageId(1), talk)?;
//!
//! let mut encoder = Encoder::new();
//! let said = Chat { text: "well met".into(), ..Chat::default() };
//! let sent = registry.encode(&said, &mut encoder)?;
//! assert_eq!(sent.channel, talk);
//!
//! let received = registry.check(talk, sent.bytes)?;
//! let chat: ChatRef<'_> = received.read::<Chat>().unwrap();
//! assert_eq!(chat.text()?, "well met");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod registry;
pub mod schema;
mod verify;

#[cfg(feature = "fuzz")]
pub mod fuzz;

pub use planus;
pub use registry::{
    EncodeError, Encoded, Encoder, ID_BYTES, Incoming, Message, MessageBuf, MessageId, Refusals,
    RefuseError, RegisterError, Registry, TYPES_MAX, USER_STREAM_FIRST,
};
pub use verify::{DEPTH_LIMIT, Limits, VerifyError, verify};
