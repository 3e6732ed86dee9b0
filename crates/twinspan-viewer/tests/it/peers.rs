//! A whole session by way of Debian's `dante-server` and `tinyproxy`. A machine without them skips,
//! unless `TWINSPAN_REQUIRE_PEERS` is 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use twinspan_viewer::{ProxySettings, ViewerConfig};

use crate::daemons::{DANTE, Peer, TINYPROXY, end, has, library};
use crate::grid::whole_session;
use crate::hand_proxy::has_ipv6;

/// Logs in, talks, sits, walks, fetches and teleports, all of it through a proxy where that can be.
fn session(proxy: &str) {
    let proxies = ProxySettings::parse(proxy).unwrap();
    let config = ViewerConfig { proxies, ..ViewerConfig::default() };
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let run = twinspan_provider::run(|env| whole_session(env.clone(), env, ip, config));
    let summary = run.unwrap();
    assert_eq!((summary.teleports, summary.decode_errors), (1, 0));
    assert!(summary.caps > 3 && summary.queue_messages > 0, "{summary:?}");
}

#[test]
fn dante_carries_a_session() {
    if !has(DANTE, "dante-server") {
        return;
    }
    let peer = Peer::dante("viewer-dante", "none", false);
    session(&format!("socks5h://{}", peer.address));
    end(&peer.process);
}

#[test]
fn dante_carries_a_session_of_who_has_a_password() {
    if !has(DANTE, "dante-server") || !has(&library(), "libnss-wrapper") {
        return;
    }
    let peer = Peer::dante("viewer-dante-auth", "username", true);
    session(&format!("socks5://tester:secret@{}", peer.address));
}

#[test]
fn dante_at_an_ipv6_address_carries_a_session_with_a_password_and_without() {
    if !has(DANTE, "dante-server") || !has(&library(), "libnss-wrapper") || !has_ipv6() {
        return;
    }
    let ip = Ipv6Addr::LOCALHOST.into();
    let peer = Peer::dante_at(ip, "viewer-dante-six", "none", false);
    session(&format!("socks5h://{}", peer.address));
    drop(peer);
    let peer = Peer::dante_at(ip, "viewer-dante-six-auth", "username", true);
    session(&format!("socks5://tester:secret@{}", peer.address));
}

#[test]
fn tinyproxy_carries_the_requests_of_a_session() {
    if !has(TINYPROXY, "tinyproxy") {
        return;
    }
    for auth in ["", "BasicAuth tester secret"] {
        let peer = Peer::tinyproxy("viewer-tinyproxy", auth);
        let user = if auth.is_empty() { "" } else { "tester:secret@" };
        session(&format!("http://{user}{}", peer.address));
    }
}
