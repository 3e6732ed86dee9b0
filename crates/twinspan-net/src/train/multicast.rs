//! Sockets of a multicast group: several of one machine share its port, and hear each other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{InterfaceIndexOrAddress, Socket};
use twinspan_provider::UdpOptions;

use crate::port::unbound;
use crate::sys;

/// The interface of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulticastInterface {
    /// The one with this address.
    Address(Ipv4Addr),
    /// The one with this number.
    Index(u32),
}

/// How a group is joined. What is sent comes back to this machine, this process included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// By which interface; the system's choice without one.
    pub interface: Option<MulticastInterface>,
    /// How many networks datagrams may pass: 1 for this one alone.
    pub hops: u8,
}

/// Opens a socket that is bound to a group's address, so that nothing else comes to it, and joins.
pub(super) fn open(
    local: SocketAddr,
    options: &UdpOptions,
    multicast: &Multicast,
) -> io::Result<Socket> {
    let socket = unbound(local, options)?;
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    let hops = u32::from(multicast.hops);
    match local.ip() {
        IpAddr::V4(group) => {
            let interface = multicast.interface.unwrap_or(MulticastInterface::Index(0));
            let which = match interface {
                MulticastInterface::Address(address) => InterfaceIndexOrAddress::Address(address),
                MulticastInterface::Index(index) => InterfaceIndexOrAddress::Index(index),
            };
            socket.join_multicast_v4_n(&group, &which)?;
            match interface {
                MulticastInterface::Address(address) => socket.set_multicast_if_v4(&address)?,
                MulticastInterface::Index(0) => {}
                MulticastInterface::Index(index) => sys::multicast_by(socket.as_fd(), index)?,
            }
            socket.set_multicast_ttl_v4(hops)?;
            socket.set_multicast_loop_v4(true)?;
        }
        IpAddr::V6(group) => {
            let index = match (multicast.interface, local) {
                (Some(MulticastInterface::Index(index)), _) => index,
                (Some(MulticastInterface::Address(_)), _) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "a group of IPv6 takes the name of an interface",
                    ));
                }
                (None, SocketAddr::V6(local)) => local.scope_id(),
                (None, SocketAddr::V4(_)) => 0,
            };
            socket.join_multicast_v6(&group, index)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(hops)?;
            socket.set_multicast_loop_v6(true)?;
        }
    }
    Ok(socket)
}
