//! Twinspan: one real-time networking stack for shared worlds.
//!
//! Each system is a feature and a module; the default is [`game`], a world server and its client:
//!
//! ```
#![doc = include_str!("../examples/quickstart.rs")]
//! ```
#![cfg_attr(
    all(feature = "real", feature = "sim"),
    doc = "\nOne application, here and in simulation:\n\n```"
)]
#![cfg_attr(all(feature = "real", feature = "sim"), doc = include_str!("../examples/both_worlds.rs"))]
#![cfg_attr(all(feature = "real", feature = "sim"), doc = "```")]
#![forbid(unsafe_code)]

pub use twinspan_core as core;
pub use twinspan_provider as provider;

/// The game system: sealed UDP sessions, a world server, its client, bots.
#[cfg(feature = "game")]
pub mod game {
    pub use twinspan_game::*;
    pub use twinspan_session as session;
    pub use twinspan_session::UserId;
    pub use twinspan_world as world;
}

/// Typed messages between processes of one machine.
#[cfg(feature = "hub")]
pub mod hub {
    pub use twinspan_hub::*;
}

/// The viewer system: a client for Second Life and OpenSimulator, for viewers, bots and tools.
#[cfg(feature = "viewer")]
pub mod viewer {
    pub use twinspan_viewer::*;
}

/// This machine's own network: [`run`](real::run) starts an application on it.
#[cfg(feature = "real")]
pub mod real {
    pub use twinspan_net::*;
}

/// The simulated network: [`run`](sim::run) starts the same application in it.
#[cfg(feature = "sim")]
pub mod sim {
    pub use twinspan_sim::*;
}

/// Typed messages of the application: FlatBuffers, verified on read; see the example `trade`.
#[cfg(feature = "game")]
pub mod messages {
    pub use twinspan_messages::*;

    /// What messages travel on.
    pub mod channel {
        pub use twinspan_reliable::{Channel, Delivery, StreamId};
    }
}

/// Compiles and runs what the README shows.
#[cfg(all(doctest, feature = "game", feature = "hub"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
