//! Tests through the public API alone: both ends of a lossy link, and what they cost.
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is test code")]

mod alignment;
mod allocation;
mod convergence;
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
mod feed;
mod link;
mod quantisation;
mod walkers;
