//! The ruler: real servers under open-loop load, beside a floor that is as bare as can be.
//!
//! [`world::run`] starts three processes one after the other or side by side, each a hidden command
//! of the program that calls it: the server as users run it, a load generator, and the floor.
#![forbid(unsafe_code)]

pub mod assembly;
pub mod child;
pub mod clock;
pub mod error;
pub mod flood;
pub mod floor;
pub mod generator;
pub mod lines;
pub mod loss;
pub mod memory;
pub mod plan;
pub mod process;
pub mod server;
pub mod stolen;
pub mod summary;
pub mod transport;
pub mod world;

pub use error::BenchError;
pub use summary::Summary;
pub use world::Options;
