//! The UDP socket below QUIC: datagrams come joined and leave in runs where the kernel can.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use crate::port::Place;
use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::SockRef;

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
    /// Runs of several datagrams that the kernel refused for good.
    refused: Cell<u64>,
    /// At the port of who listens, until the socket is closed.
    place: Option<Place>,
}

impl Socket {
    /// Binds, asks for buffers, and gives what was granted: receive and send.
    pub(super) fn bind(address: SocketAddr, buffers: usize) -> io::Result<(Self, [usize; 2])> {
        Self::around(UdpSocket::bind(address)?, buffers)
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
        Ok((Self { socket, state, buffer, refused: Cell::new(0), place: None }, granted))
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
                on_datagram(Came { from: meta.addr, to: meta.dst_ip, ecn, bytes });
            }
        }
        Ok(count == RUNS)
    }

    /// Sends a run; false when there is no room now. What the kernel refuses for good is dropped, as
    /// on a network: a single datagram may be one that asks how long they may be.
    pub(super) fn send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let run = quinn_udp::Transmit {
            destination: transmit.destination,
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
