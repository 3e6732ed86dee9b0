//! Two ends of circuits over a line that loses, repeats and delays.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this file is tests, its helpers too")]

mod allocations;
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
mod hostile;
mod numbers;
mod pair;
mod promises;
mod throttles;
mod wire;
