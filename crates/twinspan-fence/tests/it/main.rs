//! The fence from outside: planted leaks are caught and named, honest work passes.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests fail as tests do, by panicking"
)]

mod honest;
mod planted;
