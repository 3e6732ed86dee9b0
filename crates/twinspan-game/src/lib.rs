//! The world server and its client: tick loop, admission, replication and bots.
//!
//! [`Server`], [`Client`], [`Bot`] and [`Fleet`] are machines that [`twinspan_provider::drive`] runs
//! over real or simulated sockets. [`serve`] and [`connect`] run them on threads of their own over
//! real UDP; with the feature `scenarios`, its module `scenario` runs them in the simulator.
#![forbid(unsafe_code)]

mod bot;
mod client;
mod config;
mod error;
mod fleet;
mod measure;
mod real;
#[cfg(feature = "scenarios")]
pub mod scenario;
mod server;
#[cfg(test)]
mod table;
mod wire;

pub use bot::{Bot, BotConfig};
pub use client::{Client, ClientMessageStats, ClientStats, Intent, Notice, StateSample};
pub use config::{ClientConfig, ServerConfig, session_defaults};
pub use error::{ClientError, SendMessageError, ServerError};
pub use fleet::{Ages, Fleet};
pub use measure::{Latency, Percentiles, elapsed_since_wire, wire_micros};
pub use real::{
    ClientHandle, ConnectError, GATHER, RelayDoor, ServeError, ServeOptions, ServerFigures,
    ServerHandle, Traffic, View, connect, connect_with, measured_suite, serve, serve_with,
};
pub use server::{
    EntityRow, InterestRow, LinkStats, MalformedCounts, MessageContext, MessageStats, PlayerStats,
    ReliableCounts, Server, ServerKeys, ServerMessages, ServerStats, SessionRow, ShardedServer,
    StatsSnapshot, WorldSnapshot,
};
pub use wire::{EVENTS, INPUT, STATE};
