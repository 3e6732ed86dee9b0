//! Fuzz bodies: what holds for any datagrams and events, in any order and at any time.

mod agent;
mod circuits;
mod script;

use twinspan_core::fuzz::Body;

pub use script::{Action, Step, WAITS_MS, peer_addr, steps, wait_of, write_step};

/// Every body by its name.
pub const TARGETS: &[(&str, Body)] =
    &[("circuit-datagrams", circuits::fuzz_datagrams), ("circuit-agent", agent::fuzz_agent)];
