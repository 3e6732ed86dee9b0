//! Two ends, a bad line between them, and what the engine promises all the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this file is tests, its helpers too")]

mod allocations;
mod counting;
mod fresh;
mod fresh_test;
mod line;
mod lludp;
mod lludp_test;
