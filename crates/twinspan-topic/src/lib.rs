//! The hub's topics over a network, as pure machines.
//!
//! A [`Node`] is one hub's side of a topic over datagrams: it meets others, packs messages into
//! chunks and datagrams, and puts what comes into an [`Inbox`]. It has no socket and no clock. A
//! driver hands it what came, sends what [`Node::poll_transmit`] writes, and calls
//! [`Node::handle_timeout`] when [`Node::poll_timeout`] says so. [`Greeting`] is what hubs say of
//! themselves on every road over the network.
//!
//! ```
//! use std::net::SocketAddr;
//! use twinspan_core::{random::Stream, time::Timestamp};
//! use twinspan_topic::{
//!     Compressions, Form, Greeting, Identity, Inbox, Node, NodeConfig, NodeSide,
//! };
//!
//! let identity = Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name: "text".into() };
//! let hub = |id: u8| Greeting {
//!     id: [id; 16],
//!     publishes: true,
//!     receives: true,
//!     reliable: true,
//!     message_bytes_max: 1_000,
//!     history: 0,
//!     compressions: Compressions::NONE,
//!     packs: Compressions::NONE,
//!     dictionary: 0,
//!     topic: "greetings".into(),
//!     identity: identity.clone(),
//! };
//! let node = |id: u8, side| {
//!     let config = NodeConfig::new(hub(id), side);
//!     let inbox = Inbox::new(config.inbox_limits());
//!     (Node::new(config, Timestamp::START, &mut Stream::new(1, "secrets", u64::from(id))), inbox)
//! };
//! let here: SocketAddr = ([10, 0, 0, 1], 9_000).into();
//! let there: SocketAddr = ([10, 0, 0, 2], 9_000).into();
//! let (mut listener, mut heard) = node(1, NodeSide::Listen);
//! let (mut caller, mut answers) = node(2, NodeSide::Connect(here));
//! let now = Timestamp::START;
//! caller.handle_timeout(now);
//! let mut datagram = [0; 1_500];
//! for _ in 0..4 {
//!     while let Some(sent) = caller.poll_transmit(now, &mut datagram) {
//!         listener.handle_datagram(now, there, &datagram[..sent.bytes], &mut heard);
//!     }
//!     while let Some(sent) = listener.poll_transmit(now, &mut datagram) {
//!         caller.handle_datagram(now, here, &datagram[..sent.bytes], &mut answers);
//!     }
//!     if caller.subscribers() == 1 && caller.published() == 0 {
//!         assert_eq!(caller.publish(b"hello"), Ok(0));
//!         caller.flush();
//!     }
//! }
//! let mut message = Vec::new();
//! assert!(heard.take(&mut message).is_some_and(|taken| taken.lost == 0));
//! assert_eq!(message, b"hello");
//! ```
#![forbid(unsafe_code)]

mod calling;
mod chunk;
mod config;
mod cookie;
mod door;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod greet;
mod inbox;
mod link;
mod node;
mod probe;
#[cfg(test)]
mod tests;
mod wire;

pub use chunk::ChunkError;
pub use config::{ConfigError, LINKS_MAX, NodeConfig, NodeSide, PIECES_PAST_MAX, Seal};
pub use door::{Door, Places, steering_program};
pub use greet::{
    Compressions, Disagreement, GREETING_BYTES_MAX, Greeting, GreetingError, HISTORY_MAX, Sealing,
    TOPIC_BYTES_MAX, publisher_of,
};
pub use inbox::{Inbox, InboxLimits, InboxStats, Overflow, copy_to};
pub use node::{Ended, Event, Node, NodeStats, Refusal, Sent};
pub use probe::{Dialect, Offer, OfferedRoads, PROBE_BYTES, Probed, Prober, ProberConfig};
pub use twinspan_core::aead::Cipher;
pub use twinspan_core::identity::{Form, Identity, NAME_BYTES_MAX};
pub use twinspan_core::taken::{Room, Taken};
pub use twinspan_session::KeyConfig;
pub use twinspan_session::link::SharedKey;
pub use wire::{EndReason, WireError};
