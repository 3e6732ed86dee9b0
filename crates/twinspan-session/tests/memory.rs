//! What an idle session costs in memory, everything included. Alone in its program, because it
//! reads what the whole process takes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "this file is tests, its helpers too")]

mod farm;

use std::time::Duration;

use farm::{Farm, resident_bytes};
use twinspan_session::SessionConfig;

const SESSIONS: u64 = 10_000;

#[test]
fn an_idle_session_costs_at_most_2_kb_of_memory() {
    // Nobody is there to answer keep-alives.
    let config = SessionConfig {
        idle_timeout: Duration::from_secs(300),
        keepalive_interval: Duration::from_secs(100),
        ..SessionConfig::default()
    };
    let mut farm = Farm::new(config);
    // What clients and the library take once is behind us after the first.
    for index in 0..100 {
        drop(farm.connect(index));
    }
    farm.pass(Duration::from_millis(300));
    let before = resident_bytes();
    for index in 100..100 + SESSIONS {
        drop(farm.connect(index));
        // Whoever is idle is parked by and by.
        farm.pass(Duration::from_millis(5));
    }
    farm.pass(Duration::from_millis(300));
    assert_eq!(farm.endpoint.sessions().count() as u64, 100 + SESSIONS);
    let each = resident_bytes().saturating_sub(before) / SESSIONS as usize;
    println!("{each} bytes of memory for each idle session");
    assert!((600..=2_048).contains(&each), "{each}");
}
