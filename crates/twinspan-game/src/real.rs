//! Servers and clients on threads of their own, over real UDP.

mod client;
mod door;
mod server;

pub use client::{ClientHandle, ConnectError, View, connect, connect_with};
pub use door::RelayDoor;
pub use server::{
    ServeError, ServeOptions, ServerFigures, ServerHandle, Traffic, serve, serve_with,
};
