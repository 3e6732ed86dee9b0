//! A UDP socket without a reactor: the floor that everything above it is measured against.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::{BindError, SocketReport, UdpError, UdpOptions};

use crate::ReactorEnv;
use crate::port::{Calls, Gave, Port, Took};

/// A UDP socket that is asked for datagrams and waits only where it is told to, for benchmarks,
/// floors and programs with a loop of their own.
///
/// It moves datagrams with the very calls of [`BatchUdp`](crate::BatchUdp) and nothing around them,
/// so what a reactor, a session or a relay costs is the difference to it. Times of received
/// datagrams are [`ReactorEnv::clock_ns`]. `gather` of the options is not used: its loop decides.
///
/// A forwarder of one direction:
///
/// ```
/// use std::time::Duration;
/// use twinspan_core::packet::DatagramBatch;
/// use twinspan_net::BareSocket;
/// use twinspan_provider::UdpOptions;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut socket = BareSocket::bind("127.0.0.1:0".parse()?, &UdpOptions::default())?;
/// # let target = socket.local_addr();
/// # std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", target)?;
/// # let rounds = 3;
/// let mut batch = DatagramBatch::new(64);
/// for _ in 0..rounds {
///     socket.wait(Some(Duration::from_millis(10)))?;
///     while socket.recv(&mut batch)? > 0 {
///         batch.iter_mut().for_each(|datagram| datagram.peer = target);
///         // What finds no room in the kernel is dropped, as a network may.
///         socket.send(&mut batch)?;
///         batch.clear();
/// #       break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct BareSocket {
    port: Port,
    calls: Calls,
}

impl BareSocket {
    /// Binds a socket; port 0 asks for any free one.
    ///
    /// # Errors
    /// [`BindError`] names the address, or the path that cannot be had.
    pub fn bind(local: SocketAddr, options: &UdpOptions) -> Result<Self, BindError> {
        Ok(Self { port: Port::bind(local, options)?, calls: Calls::new() })
    }

    /// The address it is bound to.
    pub const fn local_addr(&self) -> SocketAddr {
        self.port.local_addr()
    }

    /// Where its packet buffers come from.
    pub const fn pool(&self) -> &PacketPool {
        self.port.pool()
    }

    /// Appends datagrams that have come, up to the room of `batch` and the free buffers, and
    /// returns how many: 0 when nothing is there.
    ///
    /// One system call moves up to 64 datagrams; the call is repeated while they fill what was
    /// offered and `batch` has room.
    ///
    /// # Errors
    /// [`UdpError`] when the socket is of no further use. Passing troubles are counted instead.
    pub fn recv(&mut self, batch: &mut DatagramBatch) -> Result<usize, UdpError> {
        let before = batch.len();
        let now = || Timestamp::from_nanos(ReactorEnv::clock_ns());
        // Datagrams that were cut count too: a flood of them must not hold the call.
        let mut left = batch.room();
        while left > 0 {
            match self.port.receive(&mut self.calls, batch, left, now)? {
                Took::Datagrams(count) => left -= count.min(left),
                Took::Trouble => left -= 1,
                Took::Nothing | Took::NoBuffer => break,
            }
            if self.port.drained() {
                break;
            }
        }
        Ok(batch.len() - before)
    }

    /// Sends from the front of `batch` until it is empty or the kernel has no room, and returns how
    /// many left it; what the kernel refuses for good is dropped and counted.
    ///
    /// # Errors
    /// [`UdpError`] when the socket is of no further use.
    pub fn send(&mut self, batch: &mut DatagramBatch) -> Result<usize, UdpError> {
        let before = batch.len();
        while !batch.is_empty() {
            if self.port.send(&mut self.calls, batch)? == Gave::NoRoom {
                break;
            }
        }
        Ok(before - batch.len())
    }

    /// Waits until something may be there to receive, for at most `timeout` (`None`: for ever), and
    /// returns whether there may. A signal ends the wait early.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        if self.port.must_not_wait() {
            return Ok(true);
        }
        let timeout = timeout.map(rustix::event::Timespec::try_from).and_then(Result::ok);
        let mut wanted = [PollFd::from_borrowed_fd(self.port.wait_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut wanted, timeout.as_ref()) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What it got and did so far.
    pub const fn report(&self) -> SocketReport {
        self.port.report()
    }
}

impl fmt::Debug for BareSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareSocket")
            .field("local", &self.port.local_addr())
            .field("report", &self.port.report())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
