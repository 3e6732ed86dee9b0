//! The relay: it hides where servers are, and lets their players share a few flows.
//!
//! Clients speak to a relay as they would to a server; the token names its address and they know no
//! other. Towards the server the relay lengthens each datagram by a trailer that names the client
//! (`docs/spec/relay.md`), so all clients share the flow between the two, and neither end keeps
//! anything that a restart could lose. Sessions stay sealed from end to end: a relay has no keys.
//!
//! [`Relay`] is the machine, run over a [`TwoSided`] socket; [`start`] runs one on a thread. A
//! server puts a [`RelayPort`] in the place of its socket.
//!
//! ```
//! use twinspan_core::random::Stream;
//! use twinspan_relay::{Relay, RelayConfig, TrunkKey};
//!
//! # fn main() -> Result<(), twinspan_relay::RelayConfigError> {
//! // Production takes secrets from the operating system; a stream stands in here.
//! let mut secrets = Stream::new(1, "secrets", 0);
//! let key = TrunkKey::new(&mut secrets);
//! let config = RelayConfig::new(([10, 0, 0, 1], 7_800).into(), key);
//! let relay = Relay::new(config, &mut secrets)?;
//! assert!(relay.table_bytes() < 2 << 20, "and it stays as it is");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(all(feature = "bench", target_os = "linux"))]
pub mod bench;
mod config;
mod error;
mod frame;
mod gate;
mod key;
mod links;
mod port;
mod real;
mod relay;
mod runs;
mod stats;
mod two_sided;

pub use config::{PADDING_MAX, PEERS_MAX, PortConfig, RelayConfig, TrunkKeys};
pub use error::{RelayConfigError, RelayError};
pub use frame::{
    FrameError, INNER_BYTES_MAX, INNER_BYTES_MIN, PADDING_BYTES_MAX, TRAILER_V4_BYTES,
    TRAILER_V6_BYTES, client_of, decode, encode, fuzz, relayed_address, trailer_bytes,
};
pub use key::{Direction, TAG_BYTES, TrunkKey, TrunkTag, TrunkTags};
pub use links::LINKS_LIMIT;
pub use port::{PortKeys, PortStats, RelayPort};
pub use real::{Place, RelayHandle, RelayOptions, RelayReport, start, trunk_options};
pub use relay::{Relay, RelayEvent};
pub use stats::{RelayDrops, RelayStats};
pub use two_sided::{SideDrops, TwoSided};
