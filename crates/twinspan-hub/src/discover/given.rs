//! Peers that were given: where a hub listens so that it reaches them, and which of them count.
//!
//! //= hub 15.5

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::BuildError;
use crate::measure::reachable;
use crate::report::Transport;

/// Peers that are given at most.
pub(crate) const PEERS_GIVEN_MAX: usize = 64;

/// Peers that were given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given<'a> {
    pub(crate) peers: &'a [SocketAddr],
    /// Nobody else is spoken with: the hub is not announced, and hears no announcements.
    pub(crate) only: bool,
}

/// Whether one socket listens and goes to peers.
const fn has_one_socket(road: Transport) -> bool {
    matches!(road, Transport::BatchUdp | Transport::IoUring)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Where a hub listens unless told otherwise: at a free port of this machine alone. One socket that also
/// goes to other machines cannot be bound there: the system sends nothing from a loopback address to
/// them.
pub(crate) fn place_for(road: Transport, peers: &[SocketAddr]) -> SocketAddr {
    if !has_one_socket(road) {
        return SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    }
    let peers = || peers.iter().map(|peer| reachable(*peer));
    let is_far = peers().any(|peer| !is_loopback(peer.ip()));
    let [has_v4, has_v6] = [peers().any(|it| it.is_ipv4()), peers().any(|it| it.is_ipv6())];
    let ip: IpAddr = match (has_v4, has_v6) {
        // The wildcard of IPv6 has both families.
        (_, true) if is_far => Ipv6Addr::UNSPECIFIED.into(),
        (false, true) => Ipv6Addr::LOCALHOST.into(),
        _ if is_far => Ipv4Addr::UNSPECIFIED.into(),
        // Nobody but this machine is let in for two families.
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, 0)
}

/// Refuses peers that nothing can reach from where the hub is to listen.
pub(crate) fn check(
    road: Transport,
    bound: IpAddr,
    peers: &[SocketAddr],
    is_own: impl Fn(SocketAddr) -> bool,
) -> Result<(), BuildError> {
    if peers.len() > PEERS_GIVEN_MAX {
        let (setting, value) = ("the number of peers", peers.len().to_string());
        return Err(BuildError::Setting { setting, value, range: "64 at most" });
    }
    for peer in peers.iter().map(|peer| reachable(*peer)) {
        if peer.port() == 0 {
            let (setting, value) = ("a peer", peer.to_string());
            return Err(BuildError::Setting { setting, value, range: "an address with a port" });
        }
        let is_near = is_loopback(peer.ip()) || !is_loopback(bound) || is_own(peer);
        let is_of_family = peer.is_ipv4() == bound.is_ipv4() || bound == Ipv6Addr::UNSPECIFIED;
        if has_one_socket(road) && !(is_near && is_of_family) {
            return Err(BuildError::Unreachable { peer, bound });
        }
    }
    Ok(())
}

/// The peers that are gone to: each once, and without the hub itself, which may be in a list that all
/// have.
pub(crate) fn others(
    bound: SocketAddr,
    peers: &[SocketAddr],
    is_own: impl Fn(SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let mut others = Vec::new();
    for peer in peers.iter().map(|peer| reachable(*peer)) {
        let is_self = peer.port() == bound.port()
            && (peer.ip() == bound.ip() || bound.ip().is_unspecified() && is_own(peer));
        if !is_self && !others.contains(&peer) {
            others.push(peer);
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// Of the addresses of these tests one is this machine's.
    fn is_own(address: SocketAddr) -> bool {
        address.ip().is_loopback() || address.ip().to_string() == "10.0.0.1"
    }

    #[test]
    fn a_hub_listens_where_it_reaches_its_peers() {
        for (peers, udp) in [
            (&[][..], "127.0.0.1:0"),
            (&["127.0.0.1:9"], "127.0.0.1:0"),
            (&["0.0.0.0:9"], "127.0.0.1:0"),
            (&["[::1]:9"], "[::1]:0"),
            (&["10.0.0.2:9"], "0.0.0.0:0"),
            (&["127.0.0.1:9", "10.0.0.2:9"], "0.0.0.0:0"),
            (&["[fd00::2]:9"], "[::]:0"),
            (&["[::1]:9", "[fd00::2]:9"], "[::]:0"),
            (&["10.0.0.2:9", "[fd00::2]:9"], "[::]:0"),
            (&["[::ffff:10.0.0.2]:9"], "0.0.0.0:0"),
        ] {
            let peers = all(peers);
            for road in [Transport::BatchUdp, Transport::IoUring] {
                let place = place_for(road, &peers);
                assert_eq!(place.to_string(), udp, "{peers:?}");
                check(road, place.ip(), &peers, is_own).unwrap();
            }
            // These go to each peer from a socket of its own.
            for road in [Transport::Tcp, Transport::Quic] {
                assert_eq!(place_for(road, &peers).to_string(), "127.0.0.1:0");
                check(road, place_for(road, &peers).ip(), &peers, is_own).unwrap();
            }
        }
    }

    #[test]
    fn peers_that_nothing_reaches_are_refused() {
        for (bound, peers, is_good) in [
            ("127.0.0.1", &["10.0.0.2:9"][..], false),
            ("127.0.0.1", &["10.0.0.1:9"], true),
            ("127.0.0.1", &["[::1]:9"], false),
            ("::1", &["[fd00::2]:9"], false),
            ("0.0.0.0", &["10.0.0.2:9", "[fd00::2]:9"], false),
            ("10.0.0.1", &["10.0.0.2:9", "127.0.0.1:9"], true),
            ("::", &["[fd00::2]:9", "[::1]:9", "10.0.0.2:9"], true),
        ] {
            let (bound, peers) = (bound.parse().unwrap(), all(peers));
            let checked = check(Transport::BatchUdp, bound, &peers, is_own);
            match checked {
                Ok(()) => assert!(is_good, "{bound} {peers:?}"),
                Err(BuildError::Unreachable { peer, bound: told }) => {
                    assert!(
                        !is_good && peers.contains(&peer) && told == bound,
                        "{bound} {peers:?}"
                    );
                }
                Err(error) => panic!("{error}"),
            }
            check(Transport::Tcp, bound, &peers, is_own).unwrap();
        }
        let checked =
            check(Transport::Tcp, Ipv4Addr::LOCALHOST.into(), &all(&["10.0.0.2:0"]), is_own);
        assert!(matches!(checked, Err(BuildError::Setting { setting: "a peer", .. })));
    }

    #[test]
    fn each_is_gone_to_once_and_nobody_to_oneself() {
        let peers = all(&["10.0.0.1:7", "10.0.0.2:7", "127.0.0.1:7", "10.0.0.2:7", "10.0.0.1:8"]);
        for (bound, left) in [
            ("0.0.0.0:7", &["10.0.0.2:7", "10.0.0.1:8"][..]),
            ("10.0.0.1:7", &["10.0.0.2:7", "127.0.0.1:7", "10.0.0.1:8"]),
            ("127.0.0.1:9", &["10.0.0.1:7", "10.0.0.2:7", "127.0.0.1:7", "10.0.0.1:8"]),
        ] {
            assert_eq!(others(bound.parse().unwrap(), &peers, is_own), all(left), "{bound}");
        }
    }
}
