//! The command as a whole: what it prints and returns, and its page in a real browser.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of tests fail as tests do, by panicking"
)]

mod bench;
mod command;
#[cfg(unix)]
#[path = "../../../twinspan-http/tests/it/daemons.rs"]
mod daemons;
mod demo;
mod grid;
mod grid_flags;
#[cfg(target_os = "linux")]
mod hub;
mod input;
mod lludp;
mod page;
mod proxy;
mod real_page;
mod relay;
mod serve;
mod sim;
mod sim_planned;
mod tls_front;
mod tshark;
mod verify;
mod viewer;
mod viewer_flags;
mod viewer_roads;
mod webdriver;
