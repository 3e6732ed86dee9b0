//! A viewer against grids: a good one in both worlds, and hostile ones in the simulator.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of tests fail as tests do, by panicking"
)]

mod bot;
mod burst;
mod client;
#[cfg(unix)]
#[path = "../../../twinspan-http/tests/it/daemons.rs"]
mod daemons;
mod degrees;
mod ends;
mod examples;
mod files;
mod forged;
mod grid;
#[path = "../../../twinspan-http/tests/it/hand_proxy.rs"]
mod hand_proxy;
mod hostile;
mod login;
mod meshes;
mod opensim;
#[cfg(unix)]
mod peers;
mod pool;
mod rig;
mod six;
mod throttle;
mod troubles;
