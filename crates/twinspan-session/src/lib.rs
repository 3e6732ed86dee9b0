//! Sealed game sessions: header, cookie, handshake, keys, replay window, endpoint.
//!
//! The protocol is written down in `docs/spec/session.md`; code cites it as `session 3.2`. Both ends
//! are machines: no socket, no clock, no thread, and randomness only from what they were given. A
//! server is an [`Endpoint`], a client a [`ClientSession`]; a login service makes the tokens that
//! let one in at the other with a [`TokenIssuer`].
//!
//! ```
//! use std::sync::Arc;
//! use twinspan_core::random::Stream;
//! use twinspan_session::{
//!     ClientSession, CryptoSuite, ServerIdentity, SessionConfig, TokenIssuer, TokenKey, UserId,
//! };
//!
//! # fn main() -> Result<(), twinspan_session::ConfigError> {
//! // Production takes secrets from the operating system; a stream stands in here.
//! let mut secrets = Stream::new(1, "secrets", 0);
//! let identity = ServerIdentity::new(&mut secrets);
//! let issuer = TokenIssuer::new(TokenKey::new(&mut secrets), identity.public_key());
//! let server = std::net::SocketAddr::from(([127, 0, 0, 1], 7_700));
//! let token = issuer.issue(&mut secrets, UserId(7), server, 2_000_000_000);
//!
//! let client = ClientSession::new(
//!     SessionConfig::default(),
//!     Arc::new(CryptoSuite::detect()),
//!     &token,
//!     server,
//!     Box::new(secrets),
//!     Stream::new(1, "jitter", 0),
//! )?;
//! assert_eq!(client.server_addr(), server);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod absent;
mod bulk;
mod client;
mod config;
mod connection;
mod cookie;
mod coverage;
mod endpoint;
mod error;
mod exchange;
mod frames;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gate;
mod handshakes;
mod header;
mod header_protection;
mod identity;
mod key_config;
mod keyring;
mod keys;
pub mod link;
#[cfg(feature = "load")]
mod load;
mod messages;
mod mtu;
mod noise;
mod protection;
mod reason;
mod resume_config;
mod route;
mod shedding;
mod stats;
mod suite;
mod ticket;
mod timers;
mod token;

#[cfg(test)]
mod tests;

pub use client::{ClientEvent, ClientSession, ClientState};
pub use config::SessionConfig;
pub use connection::message_room;
pub use endpoint::{Addressed, Endpoint, EndpointEvent, Resumed, SessionKey};
pub use error::{ComeBackError, ConfigError, MigrateError, SendError, TokenError};
pub use gate::{Gate, HandshakeFault, OpenGate};
pub use header::{HEADER_BYTES, PACKET_BYTES_LIMIT, PACKET_BYTES_MAX};
pub use header_protection::HeaderProtection;
pub use identity::{PublicKey, ServerIdentity, TokenKey, UserId};
pub use key_config::KeyConfig;
#[cfg(feature = "load")]
pub use load::{BareConnection, LOAD_OVERHEAD_BYTES, LoadClient, LoadNote};
pub use messages::{connection_id, handshake_nonce};
pub use reason::{CloseReason, RefuseReason};
pub use resume_config::ResumeConfig;
pub use stats::{
    ClientStats, CloseCounts, DropCounts, EndpointStats, FlowStats, PacketNumbers, PathStats,
    SessionStats,
};
pub use suite::{CipherOrderError, CryptoSuite};
pub use ticket::ResumeTicket;
pub use token::{ConnectToken, TOKEN_BYTES, TokenIssuer};
