//! Servers and clients on threads of their own, over real UDP.

mod client;
mod server;

pub use client::{ClientHandle, ConnectError, View, connect, connect_with};
pub use server::{ServeError, ServerHandle, Traffic, serve, serve_with_messages};
