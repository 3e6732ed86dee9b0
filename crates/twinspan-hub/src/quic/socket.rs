//! The UDP socket below QUIC: datagrams come joined and leave in runs where the kernel can.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use crate::port::Place;
use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::{Domain, SockRef, Type};
use twinspan_net::datagrams_dropped;

use crate::effect::{Helped, SettingReport};

/// Bytes of a buffer that one run of datagrams is received into.
const RUN_BYTES: usize = 64 << 10;
/// Runs received by one call.
const RUNS: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };
/// Bytes of a run that leaves by one call, all its datagrams together: what IPv4 can carry in one.
/// The kernel drops a longer run as a whole, and quinn's machine knows datagrams, not bytes.
const RUN_BYTES_MAX: usize = 65_507;

/// A datagram that came.
pub(super) struct Came {
    pub(super) from: SocketAddr,
    pub(super) to: Option<std::net::IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: BytesMut,
}

/// A socket, and what its kernel can do.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
    /// Bytes of its buffers: to receive, and to send.
    granted: [usize; 2],
    /// Runs of several datagrams that the kernel refused for good.
    refused: Cell<u64>,
    /// At the port of who listens, until the socket is closed.
    place: Option<Place>,
}

impl Socket {
    /// Binds, at the wildcard of IPv6 for both families, asks for buffers, and gives what was granted:
    /// receive and send.
    pub(super) fn bind(address: SocketAddr, buffers: usize) -> io::Result<(Self, [usize; 2])> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        Self::around(socket.into(), buffers)
    }

    /// The same with a socket that is bound.
    pub(super) fn around(socket: UdpSocket, buffers: usize) -> io::Result<(Self, [usize; 2])> {
        socket.set_nonblocking(true)?;
        {
            let asked = SockRef::from(&socket);
            // Refusals leave the system's own, which are read back.
            let _ = asked.set_recv_buffer_size(buffers);
            let _ = asked.set_send_buffer_size(buffers);
        }
        let granted = {
            let asked = SockRef::from(&socket);
            [asked.recv_buffer_size()?, asked.send_buffer_size()?]
        };
        let state = UdpSocketState::new((&socket).into())?;
        let buffer = vec![0; RUNS * RUN_BYTES];
        Ok((Self { socket, state, buffer, granted, refused: Cell::new(0), place: None }, granted))
    }

    /// Keeps its place at a port for as long as it lives.
    pub(super) fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Datagrams of so many bytes that may leave as one run.
    pub(super) fn run_max(&self, datagram: u16) -> usize {
        let fit = RUN_BYTES_MAX / usize::from(datagram.max(1));
        self.state.max_gso_segments().min(fit).max(1)
    }

    /// Runs of several datagrams that the kernel refused for good, and so lost.
    #[cfg(test)]
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// What became of the buffers that were asked for.
    pub(super) fn buffers(&self, asked: usize) -> SettingReport {
        let [receive, send] = self.granted;
        let dropped = datagrams_dropped(self.socket.as_fd());
        let (helped, figure) = match dropped {
            Ok(0) => (Helped::Unknown, "no datagram was without room".to_owned()),
            Ok(count) => (Helped::No, format!("{count} datagrams found no room all the same")),
            Err(error) => (Helped::Unknown, format!("the system does not tell of drops: {error}")),
        };
        SettingReport {
            name: "socket_buffer_bytes",
            asked: asked.to_string(),
            effective: format!("{receive} to receive and {send} to send"),
            helped,
            figure,
        }
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Receives with one call; true when more may be there.
    pub(super) fn receive(&mut self, mut on_datagram: impl FnMut(Came)) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); RUNS];
        let mut slices = self.buffer.chunks_exact_mut(RUN_BYTES).map(IoSliceMut::new);
        let mut buffers: [IoSliceMut<'_>; RUNS] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let count = match self.state.recv((&self.socket).into(), &mut buffers, &mut metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // What an earlier datagram met on its way (ICMP) is not this socket's end.
            Err(error) if is_passing(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        for (meta, buffer) in metas.iter().zip(&buffers).take(count) {
            // One piece of memory for a run, which its datagrams share.
            let mut run = BytesMut::from(buffer.get(..meta.len).unwrap_or_default());
            while !run.is_empty() {
                let bytes = run.split_to(meta.stride.max(1).min(run.len()));
                let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                on_datagram(Came { from: folded(meta.addr), to: meta.dst_ip, ecn, bytes });
            }
        }
        Ok(count == RUNS)
    }

    /// Sends a run; false when there is no room now. What the kernel refuses for good is dropped, as
    /// on a network: a single datagram may be one that asks how long they may be.
    pub(super) fn send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let run = quinn_udp::Transmit {
            destination: unfolded(transmit.destination),
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: bytes.get(..transmit.size).unwrap_or_default(),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.try_send((&self.socket).into(), &run) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                if run.segment_size.is_some_and(|it| it < run.contents.len()) {
                    self.refused.set(self.refused.get().saturating_add(1));
                }
                true
            }
            Ok(()) => true,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An address without its interface, which quinn's tokens forget: that of a cable (`fe80::/10`) has it in
/// the second of its three empty groups and the one behind that, where no address of a cable has anything
/// (RFC 4291, 2.5.6). Another one is as it was.
pub(super) fn folded(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(it) if it.scope_id() != 0 && is_of_cable(*it.ip()) => {
            let [a, b, 0, 0, rest @ ..] = it.ip().segments() else { return address };
            let scope = it.scope_id();
            let [c, d, e, f] = rest;
            let ip = Ipv6Addr::from([a, b, (scope >> 16) as u16, scope as u16, c, d, e, f]);
            SocketAddrV6::new(ip, it.port(), it.flowinfo(), 0).into()
        }
        _ => address,
    }
}

/// The same with its interface again.
fn unfolded(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(it) if it.scope_id() == 0 && is_of_cable(*it.ip()) => {
            let [a, b, high, low, c, d, e, f] = it.ip().segments();
            let scope = u32::from(high) << 16 | u32::from(low);
            let ip = Ipv6Addr::from([a, b, 0, 0, c, d, e, f]);
            SocketAddrV6::new(ip, it.port(), it.flowinfo(), scope).into()
        }
        _ => address,
    }
}

const fn is_of_cable(ip: Ipv6Addr) -> bool {
    ip.is_unicast_link_local()
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_a_cable_s_address_is_kept_in_it() {
        for (text, scope, within) in [
            ("fe80::1", 7, "fe80:0:0:7::1"),
            ("fe80::a:b:c:d", 0x1_0002, "fe80:0:1:2:a:b:c:d"),
            ("fd00::1", 7, "fd00::1"),
            ("::1", 0, "::1"),
        ] {
            let address = SocketAddrV6::new(text.parse().unwrap(), 9, 0, scope);
            let folded = folded(address.into());
            assert_eq!(folded.ip().to_string(), within.parse::<Ipv6Addr>().unwrap().to_string());
            assert_eq!(unfolded(folded), SocketAddr::V6(address));
        }
        let v4 = SocketAddr::from(([169, 254, 1, 2], 9));
        assert_eq!((folded(v4), unfolded(v4)), (v4, v4));
        // One that nobody may have is left alone.
        let odd = SocketAddr::from(SocketAddrV6::new("fe80:0:1::1".parse().unwrap(), 9, 0, 7));
        assert_eq!(folded(odd), odd);
    }
}
