//! The UDP socket below QUIC: datagrams come joined and leave in runs where the kernel can.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::SockRef;

/// Bytes of a buffer that one run of datagrams is received into.
const RUN_BYTES: usize = 64 << 10;
/// Runs received by one call.
const RUNS: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };

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
}

impl Socket {
    /// Binds, asks for buffers, and gives what was granted: receive and send.
    pub(super) fn bind(address: SocketAddr, buffers: usize) -> io::Result<(Self, [usize; 2])> {
        let socket = UdpSocket::bind(address)?;
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
        Ok((Self { socket, state, buffer: vec![0; RUNS * RUN_BYTES] }, granted))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Datagrams that may leave as one run.
    pub(super) fn run_max(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Receives what is there with one call; false when nothing was.
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
            let bytes = buffer.get(..meta.len).unwrap_or_default();
            for datagram in bytes.chunks(meta.stride.max(1)) {
                on_datagram(Came {
                    from: meta.addr,
                    to: meta.dst_ip,
                    ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                    bytes: BytesMut::from(datagram),
                });
            }
        }
        Ok(count > 0)
    }

    /// Sends a run; false when there is no room now. What the kernel refuses for good is dropped, as
    /// on a network.
    pub(super) fn send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let run = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: bytes.get(..transmit.size).unwrap_or_default(),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.send((&self.socket).into(), &run) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
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
