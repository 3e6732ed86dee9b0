//! Servers and clients on threads of their own, over real UDP.

use std::time::Instant;

use twinspan_session::CryptoSuite;

mod client;
mod cores;
mod door;
mod server;
mod tap;
#[cfg(target_os = "linux")]
mod woken;

pub use client::{ClientHandle, ConnectError, View, connect, connect_with};
pub use door::RelayDoor;
pub use server::{
    GATHER, ServeError, ServeOptions, ServerFigures, ServerHandle, Traffic, serve, serve_with,
};

/// The ciphers of this machine, ordered by what they cost here: measured in a few milliseconds.
pub fn measured_suite() -> CryptoSuite {
    let began = Instant::now();
    CryptoSuite::measure(&mut || began.elapsed())
}
