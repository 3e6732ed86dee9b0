//! The command as a whole: its page in a real browser.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of tests fail as tests do, by panicking"
)]

mod page;
mod webdriver;
