//! A small Second Life grid: regions with circuits, neighbours, chat, teleports and crossings.
//!
//! [`Grid`] is one machine for all its regions. Login tells it whom to expect
//! ([`Grid::admit`]); from then on it speaks to viewers over UDP, and gives out what belongs on
//! their event queues ([`Grid::poll_queue`]). [`RegionMachine`] drives one region over a socket of
//! any side of the seam.
#![forbid(unsafe_code)]

mod door;
mod grid;
mod machine;
mod reply;
#[cfg(feature = "scenarios")]
pub mod scenario;
mod travel;

pub use grid::{
    AdmitError, Grid, GridConfig, GridError, GridEvent, GridStats, Guest, QUEUE_EVENTS_MAX, Queued,
    REGIONS_MAX, RegionConfig, RegionId, SESSIONS_MAX,
};
pub use machine::RegionMachine;
/// What circuits count.
pub use twinspan_circuit::CircuitStats;
