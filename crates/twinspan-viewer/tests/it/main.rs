//! A viewer against grids that mean no good.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of tests fail as tests do, by panicking"
)]

mod hostile;
mod rig;
