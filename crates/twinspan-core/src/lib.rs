//! What every room shares: time, random streams, packet buffers, the AEAD suite trait, windows.
//!
//! Nothing here reads a clock, opens a socket or knows a protocol.

pub mod aead;
pub mod bytes;
pub mod chaos;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod identity;
pub mod link;
pub mod need;
pub mod number;
pub mod packet;
pub mod prefetch;
pub mod random;
pub mod steer;
pub mod taken;
pub mod time;
pub mod wheel;
