//! A whole session by way of a SOCKS5 proxy at an IPv6 address: the grid and its regions are at IPv4
//! ones all the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use twinspan_provider::Env;
use twinspan_viewer::{ProxySettings, SessionSummary, ViewerConfig};

use crate::grid::whole_session;
use crate::hand_proxy::{HandProxy, Seen, has_ipv6};

async fn session<E: Env>(env: E) -> (SessionSummary, Seen) {
    let proxy = HandProxy::start(&env, Ipv6Addr::LOCALHOST.into(), Some(("me", "secret"))).await;
    let url = format!("socks5h://me:secret@{}", proxy.address);
    let proxies = ProxySettings::parse(&url).expect("a proxy");
    let config = ViewerConfig { proxies, ..ViewerConfig::default() };
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let summary = whole_session(env.clone(), env, ip, config).await;
    (summary, proxy.seen())
}

fn check((summary, seen): (SessionSummary, Seen)) {
    assert_eq!((summary.teleports, summary.decode_errors), (1, 0));
    assert!(summary.caps > 3 && summary.queue_messages > 0, "{summary:?}");
    assert_eq!((seen.associations, seen.to_ipv6, seen.unauthorized), (1, 0, 0), "{seen:?}");
    assert!(seen.connections > 2, "login and capabilities went the same way: {seen:?}");
    assert!(seen.to_ipv4 > 20 && seen.back > 20, "{seen:?}");
}

#[test]
fn a_proxy_at_an_ipv6_address_carries_a_session_in_the_simulator() {
    check(twinspan_sim::run(7, session).unwrap());
}

#[test]
fn a_proxy_at_an_ipv6_address_carries_a_session_on_loopback() {
    if has_ipv6() {
        check(twinspan_provider::run(session).unwrap());
    }
}
