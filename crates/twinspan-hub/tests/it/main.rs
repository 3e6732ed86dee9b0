//! Hubs in one process, as users write them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not see as such"
)]
#![cfg(target_os = "linux")]

mod allocations;
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
mod quic;
mod roads;
mod tcp;
mod udp;
mod values;

use std::sync::atomic::{AtomicU64, Ordering};

/// A topic that no other test has.
fn topic() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test/hub/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
