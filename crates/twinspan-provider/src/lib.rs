//! The seam: what a driver may ask of the world, so that the same driver runs on real and on
//! simulated networks.
//!
//! One value of an [`Env`] stands for one node or one shard of a node. It and everything that comes
//! from it stay on their thread; what users hold of a running system is `Send + Sync` and made by
//! that system. Streams (TCP) and names join [`NetworkProvider`] as further associated types.
#![forbid(unsafe_code)]

mod conditioned;
#[cfg(feature = "conformance")]
pub mod conformance;
mod drive;
mod error;
mod tokio_env;

use std::future::Future;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;

pub use conditioned::{Conditioned, ConditionedEnv, LinkControl};
pub use drive::{Machine, drive};
pub use error::{BindError, UdpError};
pub use tokio_env::{OsSecrets, TokioEnv, TokioTask, TokioTimer, TokioUdp};

/// Time: a clock that starts at [`Timestamp::START`] and timers on it.
pub trait TimeProvider {
    /// A timer of this clock.
    type Timer: Timer;

    /// The present moment.
    fn now(&self) -> Timestamp;

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;
}

/// One deadline that can be moved. A driver keeps one for all that it waits for.
pub trait Timer: Unpin {
    /// Sets the deadline, or takes it away.
    fn set(&mut self, at: Option<Timestamp>);

    /// Ready from the deadline on, until the timer is set again; pending for ever when unset.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Randomness: named streams for behaviour, a secret source for keys.
pub trait RandomProvider {
    /// The stream `name`, number `instance`. Draw `k` of it depends on the run's seed, the name, the
    /// instance and `k` alone.
    fn stream(&self, name: &'static str, instance: u64) -> Stream;

    /// A source of key material: the operating system in production, a keyed stream in simulation.
    fn secrets(&self) -> Box<dyn SecretSource>;
}

/// Tasks on this node's own thread.
pub trait TaskProvider {
    /// What stops the task when dropped.
    type Task: 'static;

    /// Runs `future` on this thread until it ends or the returned handle is dropped.
    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> Self::Task;
}

/// The network: datagram sockets.
pub trait NetworkProvider {
    /// A bound datagram socket.
    type Udp: UdpSocket;

    /// Binds a datagram socket; port 0 asks for any free one.
    ///
    /// # Errors
    /// [`BindError`] names the address and why it cannot be had.
    ///
    /// # Cancel safety
    /// Dropping the future binds nothing.
    fn bind_udp(
        &self,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> impl Future<Output = Result<Self::Udp, BindError>>;
}

/// What a datagram socket is asked for.
#[derive(Clone, Copy, Debug)]
pub struct UdpOptions {
    /// Wanted kernel receive buffer, in bytes; [`SocketReport`] says what was granted.
    pub receive_buffer_bytes: usize,
    /// Wanted kernel send buffer, in bytes.
    pub send_buffer_bytes: usize,
    /// Packet buffers in the socket's pool, for both directions together.
    pub pool_packets: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { receive_buffer_bytes: 8 << 20, send_buffer_bytes: 4 << 20, pool_packets: 1_024 }
    }
}

/// What a datagram socket really got and did.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketReport {
    /// How datagrams move, for people: "recvmmsg/sendmmsg", "recvfrom/sendto", "simulated".
    pub path: &'static str,
    /// Granted kernel receive buffer, in bytes of payload accounting as the kernel reports it.
    pub receive_buffer_bytes: usize,
    /// Granted kernel send buffer, in bytes.
    pub send_buffer_bytes: usize,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
    /// Datagrams that the kernel refused to send and that were dropped.
    pub send_errors: u64,
    /// Receive calls that failed without ending the socket (an ICMP answer, for instance).
    pub receive_errors: u64,
}

/// A datagram socket that takes and gives batches of owned, pooled packets.
pub trait UdpSocket: 'static {
    /// The address it is bound to.
    fn local_addr(&self) -> SocketAddr;

    /// Where its packet buffers come from; sent packets must come from here too.
    fn pool(&self) -> &PacketPool;

    /// Appends received datagrams to `batch`, up to its room and the free buffers of the pool, and
    /// returns how many. Pending when nothing is there.
    ///
    /// # Errors
    /// [`UdpError`] when the socket is of no further use. Passing troubles are counted instead.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>>;

    /// Sends datagrams from the front of `batch` and returns how many left it. Pending when the
    /// kernel takes none now; what it refuses for good is dropped and counted.
    ///
    /// # Errors
    /// [`UdpError`] when the socket is of no further use.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>>;

    /// What it got and did so far.
    fn report(&self) -> SocketReport;
}

/// All of the seam in one value.
pub trait Env:
    TimeProvider + RandomProvider + TaskProvider + NetworkProvider + Clone + 'static
{
}

impl<T> Env for T where
    T: TimeProvider + RandomProvider + TaskProvider + NetworkProvider + Clone + 'static
{
}
