//! A UDP socket that moves datagrams in batches, many per system call.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketBuf, PacketPool};
use twinspan_provider::{BindError, SocketReport, Timer, UdpError, UdpOptions, UdpSocket};

use crate::reactor::{Calls, Reactor, ReactorTimer, Source};
use crate::sys::CALL_DATAGRAMS_MAX;

/// Packets offered to the kernel by a receive call at least. A socket that gets little offers
/// little, so that a thousand quiet sockets do not each hold buffers for a flood.
const OFFER_MIN: usize = 2;
/// Passing errors that one receive call reads away before it lets others run.
const ERRORS_PER_CALL_MAX: usize = 16;
/// When to look again after the pool had no free buffer: nothing announces that one came back.
const POOL_RETRY: Duration = Duration::from_millis(1);

/// Packets on their way into a receive call.
pub(crate) struct Spares(Vec<PacketBuf>);

impl Spares {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(CALL_DATAGRAMS_MAX))
    }
}

/// A UDP socket on a reactor, with batched system calls.
///
/// Don't-fragment is set on its datagrams, forged path-MTU messages are ignored, and an IPv6 socket
/// takes IPv6 only. Polling it makes sense inside the reactor's `block_on` alone.
pub struct BatchUdp {
    socket: Socket,
    source: Rc<Source>,
    reactor: Rc<Reactor>,
    local: SocketAddr,
    pool: PacketPool,
    /// Packets that the next receive call offers to the kernel.
    offer: usize,
    pool_retry: ReactorTimer,
    report: SocketReport,
}

/// What one receive call did.
enum Took {
    /// Datagrams left the kernel, wanted or not.
    Datagrams(usize),
    /// The call failed and the socket lives.
    Trouble,
    /// Nothing is there.
    Nothing,
    /// The pool has no free buffer.
    NoBuffer,
}

impl BatchUdp {
    pub(crate) fn bind(
        reactor: Rc<Reactor>,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<Self, BindError> {
        open(local, options)
            .and_then(|(socket, bound)| Self::wrap(reactor, socket, bound, options.pool_packets))
            .map_err(|error| BindError::from_io(local, error))
    }

    /// Puts a prepared socket under the reactor.
    fn wrap(
        reactor: Rc<Reactor>,
        socket: Socket,
        local: SocketAddr,
        pool_packets: usize,
    ) -> io::Result<Self> {
        let source = reactor.add_source(socket.as_fd())?;
        let report = SocketReport {
            path: "recvmmsg/sendmmsg",
            receive_buffer_bytes: socket.recv_buffer_size().unwrap_or(0),
            send_buffer_bytes: socket.send_buffer_size().unwrap_or(0),
            ..SocketReport::default()
        };
        Ok(Self {
            socket,
            source,
            local,
            pool: PacketPool::new(pool_packets),
            offer: OFFER_MIN,
            pool_retry: ReactorTimer::new(Rc::clone(&reactor)),
            reactor,
            report,
        })
    }

    /// One receive call for at most `room` datagrams.
    fn receive(&mut self, batch: &mut DatagramBatch, room: usize) -> Result<Took, UdpError> {
        let reactor = Rc::clone(&self.reactor);
        let Calls { headers, spares: Spares(spares) } = &mut *reactor.calls.borrow_mut();
        let wanted = self.offer.min(room).min(CALL_DATAGRAMS_MAX);
        spares.extend(std::iter::from_fn(|| self.pool.take()).take(wanted));
        let offered = spares.len();
        if offered == 0 {
            return Ok(Took::NoBuffer);
        }
        let outcome = headers.receive(self.socket.as_fd(), spares);
        let count = match outcome {
            Ok(count) => count,
            Err(error) => {
                spares.clear();
                return self.receive_failed(error);
            }
        };
        let at = reactor.now();
        for (index, mut packet) in spares.drain(..).take(count).enumerate() {
            let received = headers.received(index);
            let Some(received) = received.filter(|received| !received.cut) else {
                self.report.receive_errors += 1;
                continue;
            };
            let Some(peer) = received.peer else {
                self.report.receive_errors += 1;
                continue;
            };
            packet.set_len(received.length);
            self.report.packets_in += 1;
            self.report.bytes_in += received.length as u64;
            // `room` was the batch's: this one fits.
            let refused = batch.push(Datagram { peer, at, packet });
            debug_assert!(refused.is_ok(), "more datagrams than the batch has room for");
        }
        self.adapt(offered, count);
        Ok(Took::Datagrams(count))
    }

    /// Offers more after a call that filled all it was offered, less after one that left over half.
    fn adapt(&mut self, offered: usize, count: usize) {
        if count < offered {
            // A short count means that the queue is empty: another call now would only say so. An
            // error that ended the batch early is read with what arrives next.
            self.source.drained();
            if count * 2 < self.offer {
                self.offer = (self.offer / 2).max(OFFER_MIN);
            }
        } else if offered == self.offer {
            self.offer = (self.offer * 2).min(CALL_DATAGRAMS_MAX);
        }
    }

    fn receive_failed(&mut self, error: io::Error) -> Result<Took, UdpError> {
        match Failure::of_receive(&error) {
            Failure::Again => {
                self.source.drained();
                Ok(Took::Nothing)
            }
            Failure::Interrupted => Ok(Took::Trouble),
            Failure::Passing => {
                self.report.receive_errors += 1;
                Ok(Took::Trouble)
            }
            Failure::Fatal => Err(UdpError::Os(error)),
        }
    }

    /// One send call from the front of `batch`; what it sent or refused has left the batch then.
    fn send(&mut self, batch: &mut DatagramBatch) -> Result<(), UdpError> {
        let outcome = {
            let calls = &mut *self.reactor.calls.borrow_mut();
            calls.headers.send(self.socket.as_fd(), batch.iter())
        };
        let error = match outcome {
            Ok(sent) => {
                for datagram in std::iter::from_fn(|| batch.pop()).take(sent) {
                    self.report.packets_out += 1;
                    self.report.bytes_out += datagram.packet.len() as u64;
                }
                return Ok(());
            }
            Err(error) => error,
        };
        match Failure::of_send(&error) {
            Failure::Again => self.reactor.send_blocked(self.socket.as_fd(), &self.source)?,
            Failure::Interrupted => {}
            Failure::Passing => {
                // The error is about the first datagram; those behind it may go elsewhere.
                self.report.send_errors += 1;
                drop(batch.pop());
            }
            Failure::Fatal => return Err(UdpError::Os(error)),
        }
        Ok(())
    }
}

impl UdpSocket for BatchUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn pool(&self) -> &PacketPool {
        &self.pool
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        // Datagrams that were cut count against this call too: a flood of them must not hold it.
        let mut left = batch.room();
        let mut errors_left = ERRORS_PER_CALL_MAX;
        if left == 0 {
            return Poll::Ready(Ok(0));
        }
        // A quiet socket takes nothing from the task's share: a task may wait for any number.
        if self.source.readable() && !self.reactor.may_receive(cx) {
            return Poll::Pending;
        }
        while left > 0 && errors_left > 0 && self.source.readable() {
            match self.receive(batch, left)? {
                Took::Datagrams(count) => left -= count.min(left),
                Took::Trouble => errors_left -= 1,
                Took::Nothing => {}
                Took::NoBuffer => break,
            }
        }
        let count = batch.len() - before;
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        if !self.source.readable() {
            self.source.await_readable(cx.waker());
        } else if left == 0 || errors_left == 0 {
            cx.waker().wake_by_ref();
        } else {
            self.pool_retry.set(Some(self.reactor.now().after(POOL_RETRY)));
            // Pending: the moment has just been set in the future. Were it not, the task is woken.
            if self.pool_retry.poll_expired(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        if self.source.writable() && self.source.awaits_room() {
            self.reactor.send_unblocked(self.socket.as_fd(), &self.source)?;
        }
        while !batch.is_empty() && self.source.writable() {
            self.send(batch)?;
        }
        let count = before - batch.len();
        if count > 0 || batch.is_empty() {
            return Poll::Ready(Ok(count));
        }
        self.source.await_writable(cx.waker());
        Poll::Pending
    }

    fn report(&self) -> SocketReport {
        self.report
    }
}

impl Drop for BatchUdp {
    fn drop(&mut self) {
        self.reactor.remove_source(self.socket.as_fd(), &self.source);
    }
}

impl fmt::Debug for BatchUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchUdp")
            .field("local", &self.local)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// What a failed call means for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Nothing to receive, or no room to send, now.
    Again,
    /// A signal came first; the call is repeated.
    Interrupted,
    /// One datagram, or the news of one, was lost.
    Passing,
    /// The socket is of no further use.
    Fatal,
}

impl Failure {
    fn of_receive(error: &io::Error) -> Self {
        match error.raw_os_error() {
            // Repeating these would fail for ever.
            Some(libc::EINVAL | libc::ENOTCONN) => Self::Fatal,
            _ => Self::of_send(error),
        }
    }

    /// What the network or the other end can cause is passing: routes vanish, firewalls refuse,
    /// addresses are wrong, queues are full, a datagram is longer than the interface takes.
    fn of_send(error: &io::Error) -> Self {
        match error.raw_os_error() {
            // The same number as EWOULDBLOCK on Linux.
            Some(libc::EAGAIN) => Self::Again,
            Some(libc::EINTR) => Self::Interrupted,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::ENOSYS) | None => Self::Fatal,
            Some(_) => Self::Passing,
        }
    }
}

/// Opens, prepares and binds a socket, and says where it is bound.
fn open(local: SocketAddr, options: &UdpOptions) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        // An address means one family; who wants both binds both.
        socket.set_only_v6(true)?;
    }
    forbid_fragments(&socket, local);
    enlarge(&socket, options);
    socket.bind(&local.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(local);
    Ok((socket, bound))
}

/// Sets don't-fragment and ignores what ICMP says of the path's MTU, which anybody can forge. Where
/// the system refuses, datagrams may be fragmented, and nothing else changes.
fn forbid_fragments(socket: &Socket, local: SocketAddr) {
    let _ = match local {
        SocketAddr::V4(_) => {
            sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::PROBE)
        }
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::PROBE)
        }
    };
}

/// Asks for the wanted buffers, past the system's limit where privileges allow it. What was granted
/// is read back for the report, so refusals need no handling here.
fn enlarge(socket: &Socket, options: &UdpOptions) {
    // The kernel takes an int and doubles it.
    const BYTES_MAX: usize = (i32::MAX / 2) as usize;
    let receive = options.receive_buffer_bytes.min(BYTES_MAX);
    if sockopt::set_socket_recv_buffer_size_force(socket, receive).is_err() {
        let _ = socket.set_recv_buffer_size(receive);
    }
    let send = options.send_buffer_bytes.min(BYTES_MAX);
    if sockopt::set_socket_send_buffer_size_force(socket, send).is_err() {
        let _ = socket.set_send_buffer_size(send);
    }
}

#[cfg(test)]
mod tests;
