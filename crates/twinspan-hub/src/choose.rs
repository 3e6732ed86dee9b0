//! Which road leads to an endpoint, and which end of it this hub is.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::endpoint::{Endpoint, Scheme};
use crate::error::BuildError;
use crate::measure::{at_port, canonical, reachable};
use crate::report::Transport;
use crate::road::Side;

/// Addresses of one host that are looked at.
const ADDRESSES_MAX: usize = 8;

/// A road and why it is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) road: Transport,
    pub(crate) reason: String,
}

/// Which road leads to an endpoint: a function of the endpoint and of what was asked for.
pub(crate) fn choose(endpoint: &Endpoint, asked: Option<Transport>) -> Result<Choice, BuildError> {
    let leads = |road: Transport, scheme: Scheme| {
        matches!(
            (road, scheme),
            (Transport::SharedMemory, Scheme::Shm)
                | (Transport::IoUring | Transport::BatchUdp, Scheme::Udp)
                | (Transport::Tcp, Scheme::Tcp)
                | (Transport::Quic, Scheme::Quic)
                | (
                    Transport::SharedMemory
                        | Transport::BatchUdp
                        | Transport::Tcp
                        | Transport::Quic,
                    Scheme::Hub
                )
        )
    };
    if let (Some(road), Some(scheme)) = (asked, endpoint.scheme)
        && !leads(road, scheme)
    {
        return Err(BuildError::Road { road, scheme });
    }
    let is_memory = |road| road == Transport::SharedMemory;
    let (road, reason) = match (asked, endpoint.scheme) {
        (Some(road), Some(_)) => (road, "it was asked for".to_owned()),
        (Some(road), None) if is_memory(road) => (road, "it was asked for".to_owned()),
        (Some(road), None) => {
            (road, "it was asked for, and the hubs of a bare topic find each other".to_owned())
        }
        (None, None) => (Transport::SharedMemory, "a bare topic is one of this machine".to_owned()),
        (None, Some(scheme)) => {
            let road = match scheme {
                Scheme::Shm => Transport::SharedMemory,
                Scheme::Udp => Transport::BatchUdp,
                Scheme::Tcp => Transport::Tcp,
                Scheme::Quic => Transport::Quic,
                // Until it was found out which is best.
                Scheme::Hub => Transport::BatchUdp,
            };
            (road, format!("the endpoint begins with {scheme}://"))
        }
    };
    Ok(Choice { road, reason })
}

/// Where an endpoint is, and which end of the road this hub is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) side: Side,
    /// Whether the host is a multicast group, of which all are equal members.
    pub(crate) is_group: bool,
    pub(crate) reason: String,
}

/// Finds the addresses of an endpoint's host, and the end that this hub is.
pub(crate) fn place(endpoint: &Endpoint, asked: Option<Side>) -> Result<Place, BuildError> {
    let Some((host, port)) = &endpoint.host else {
        return Err(BuildError::NoHost { road: Transport::BatchUdp });
    };
    let failed = |source| BuildError::Resolve { host: host.clone(), source };
    let found = (host.as_str(), *port).to_socket_addrs().map_err(failed)?;
    let mut addresses: Vec<_> = found.take(ADDRESSES_MAX).map(canonical).collect();
    let Some(first) = addresses.first().copied() else {
        return Err(failed(io::ErrorKind::NotFound.into()));
    };
    let (side, reason) = side(first, asked, is_own);
    if side == Side::Connect && *port == 0 {
        let (setting, range) = ("the port", "the one at which the other end listens");
        return Err(BuildError::Setting { setting, value: "0".to_owned(), range });
    }
    if side == Side::Connect {
        // Who connects to a wildcard means this machine.
        addresses.iter_mut().for_each(|address| *address = reachable(*address));
    }
    let is_group = first.ip().is_multicast();
    Ok(Place { addresses, side, is_group, reason: reason.to_owned() })
}

/// Which end a hub is: a function of the address, of what was asked for, and of whether the address
/// is one of this machine.
fn side(
    address: SocketAddr,
    asked: Option<Side>,
    is_own: impl FnOnce(SocketAddr) -> bool,
) -> (Side, &'static str) {
    if address.ip().is_multicast() {
        return (Side::Listen, "it takes part in a group: the host is a multicast address");
    }
    match asked {
        Some(Side::Listen) => (Side::Listen, "it listens: asked for"),
        Some(Side::Connect) => (Side::Connect, "it connects: asked for"),
        None if address.ip().is_unspecified() => (Side::Listen, "it listens: the host is any"),
        None if is_own(address) => (Side::Listen, "it listens: the host is this machine"),
        None => (Side::Connect, "it connects: the host is another machine"),
    }
}

/// Whether an address is one of this machine: only to those can a socket be bound.
pub(crate) fn is_own(address: SocketAddr) -> bool {
    UdpSocket::bind(at_port(address, 0)).is_ok()
}

/// Where who has the port of a wildcard is reached on a road, on any of them without one. Of the
/// wildcard of IPv6 that is by IPv4 where IPv6 has the port free.
pub(crate) fn occupant(address: SocketAddr, road: Option<Transport>) -> SocketAddr {
    let is_free = |kind| {
        let bind = || {
            let socket = Socket::new(Domain::IPV6, kind, None)?;
            socket.set_only_v6(true)?;
            // What is left of connections keeps a listener out without it, and no listener in.
            socket.set_reuse_address(kind == Type::STREAM)?;
            socket.bind(&address.into())
        };
        bind().is_ok()
    };
    let kinds: &[Type] = match road {
        None => &[Type::STREAM, Type::DGRAM],
        Some(Transport::Tcp) => &[Type::STREAM],
        Some(_) => &[Type::DGRAM],
    };
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    if is_any && kinds.iter().all(|kind| is_free(*kind)) {
        return (Ipv4Addr::LOCALHOST, address.port()).into();
    }
    reachable(address)
}

/// A type's name as a topic: letters that topics do not have become `_`.
pub(crate) fn topic_of(name: &str) -> String {
    let good = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    name.chars().map(good).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(endpoint: &str, asked: Option<Transport>) -> String {
        match choose(&endpoint.parse().unwrap(), asked) {
            Ok(Choice { road, reason }) => format!("{road}: {reason}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_road_is_a_function_of_the_endpoint_and_the_wish() {
        let asked = Some(Transport::SharedMemory);
        assert_eq!(chosen("a", None), "shared memory: a bare topic is one of this machine");
        assert_eq!(chosen("shm://a", None), "shared memory: the endpoint begins with shm://");
        assert_eq!(chosen("a", asked), "shared memory: it was asked for");
        assert_eq!(chosen("udp://h:1", None), "batched UDP: the endpoint begins with udp://");
        assert_eq!(chosen("tcp://h:1", None), "TCP: the endpoint begins with tcp://");
        assert_eq!(chosen("quic://h:1", None), "QUIC: the endpoint begins with quic://");
        let asked = Some(Transport::BatchUdp);
        assert_eq!(chosen("udp://h:1", asked), "batched UDP: it was asked for");
        let asked = Some(Transport::IoUring);
        assert_eq!(chosen("udp://h:1", asked), "io_uring: it was asked for");
        assert_eq!(
            chosen("a", Some(Transport::BatchUdp)),
            "batched UDP: it was asked for, and the hubs of a bare topic find each other"
        );
        let text = chosen("udp://h:1", Some(Transport::SharedMemory));
        assert_eq!(text, "shared memory does not lead to udp://: leave out one of the two");
    }

    #[test]
    fn who_listens_is_a_function_of_the_address_and_the_wish() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let told = |address, asked, own: bool| side(at(address), asked, |_| own).0;
        assert_eq!(told("0.0.0.0:1", None, false), Side::Listen);
        assert_eq!(told("[::]:1", None, false), Side::Listen);
        assert_eq!(told("10.0.0.1:1", None, true), Side::Listen);
        assert_eq!(told("10.0.0.1:1", None, false), Side::Connect);
        assert_eq!(told("10.0.0.1:1", Some(Side::Connect), true), Side::Connect);
        assert_eq!(told("10.0.0.1:1", Some(Side::Listen), false), Side::Listen);
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        assert!(is_own(SocketAddr::from(([127, 0, 0, 1], 9))));
        // An address for documentation is nobody's.
        assert!(!is_own(SocketAddr::from(([192, 0, 2, 1], 9))));
    }

    #[test]
    fn a_type_s_name_is_a_topic() {
        assert_eq!(topic_of("Pair<Imu, [u8; 3]>"), "Pair_Imu___u8__3__");
    }
}
