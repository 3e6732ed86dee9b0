//! The ruler: real servers under open-loop load, beside a floor that is as bare as can be.
//!
//! `world::run` starts three processes one after the other or side by side, each a hidden command
//! of the program that calls it: the server as users run it, a load generator, and the floor. It
//! pins them and counts their system calls, which it knows how to do on Linux alone.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod assembly;
#[cfg(target_os = "linux")]
pub mod child;
#[cfg(target_os = "linux")]
pub mod clock;
pub mod error;
#[cfg(target_os = "linux")]
pub mod flood;
#[cfg(target_os = "linux")]
pub mod floor;
#[cfg(target_os = "linux")]
pub mod generator;
#[cfg(target_os = "linux")]
pub mod hub;
pub mod lines;
#[cfg(target_os = "linux")]
pub mod loss;
pub mod memory;
#[cfg(target_os = "linux")]
pub mod plan;
pub mod process;
#[cfg(target_os = "linux")]
mod proxy;
#[cfg(target_os = "linux")]
pub mod realism;
#[cfg(target_os = "linux")]
pub mod server;
#[cfg(target_os = "linux")]
pub mod sim;
#[cfg(target_os = "linux")]
mod simulated;
pub mod stolen;
#[cfg(target_os = "linux")]
pub mod summary;
#[cfg(target_os = "linux")]
pub mod transport;
#[cfg(target_os = "linux")]
pub mod world;

pub use error::BenchError;
#[cfg(target_os = "linux")]
pub use summary::Summary;
#[cfg(target_os = "linux")]
pub use world::Options;
