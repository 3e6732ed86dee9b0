//! Servers and clients on threads of their own, over real UDP.

use std::time::Instant;

use twinspan_core::aead::Cipher;
use twinspan_session::{CipherOrderError, CryptoSuite};

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

/// The ciphers in the order of somebody's choice, or measured where there is none.
fn suite_of(order: &[Cipher]) -> Result<CryptoSuite, CipherOrderError> {
    if order.is_empty() { Ok(measured_suite()) } else { CryptoSuite::in_order(order) }
}

/// The ciphers of this machine, ordered by what they cost here: measured in a few milliseconds.
pub fn measured_suite() -> CryptoSuite {
    let began = Instant::now();
    CryptoSuite::measure(&mut || began.elapsed())
}
