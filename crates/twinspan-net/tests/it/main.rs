//! The real transports on real sockets of this machine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not see as such"
)]

#[cfg(target_os = "linux")]
mod allocations;
#[path = "../../../twinspan-reliable/tests/it/counting.rs"]
mod counting;
#[cfg(target_os = "linux")]
mod group;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod reactor;
#[cfg(target_os = "linux")]
mod shm;
#[cfg(target_os = "linux")]
mod udp;
#[cfg(target_os = "linux")]
mod uring;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use twinspan_net::ReactorEnv;
use twinspan_provider::{ConditionedEnv, LinkControl, conformance};

/// Ends a test early for lack of what it needs, unless `TWINSPAN_REQUIRE_PEERS` is 1: then it fails.
#[cfg(target_os = "linux")]
fn skip(reason: &str) {
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
    println!("skipped: {reason}");
}

#[test]
fn the_reactor_conforms_over_ipv4() {
    let env = ReactorEnv::new(Some(1)).unwrap();
    env.block_on(conformance::all(&env, IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

#[test]
fn the_reactor_conforms_over_ipv6() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let env = ReactorEnv::new(Some(1)).unwrap();
    env.block_on(conformance::all(&env, IpAddr::V6(Ipv6Addr::LOCALHOST)));
}

#[test]
fn a_clean_link_around_the_reactor_echoes() {
    let reactor = ReactorEnv::new(Some(1)).unwrap();
    let env = ConditionedEnv::new(reactor.clone(), LinkControl::new());
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    reactor.block_on(async {
        conformance::batches_are_echoed(&env, ip).await;
        conformance::what_cannot_be_sent_is_counted(&env, ip).await;
    });
}
