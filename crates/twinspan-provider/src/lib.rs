//! The seam: what a driver may ask of the world, so that the same driver runs on real and on
//! simulated networks.
//!
//! A protocol is a [`Machine`]: datagrams and deadlines in, datagrams and the next deadline out.
//! [`drive()`] runs it over a socket of any [`Env`]: tokio's here, the reactor's of `twinspan-net`,
//! or a simulated host's of `twinspan-sim`. A function that binds and drives is written once:
//!
//! ```
//! use std::net::SocketAddr;
//! use std::time::Duration;
//! use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
//! use twinspan_core::time::Timestamp;
//! use twinspan_provider::{Env, Machine, TokioEnv, UdpOptions, UdpSocket, drive};
//!
//! /// Sends a ping every 10 ms until anything comes.
//! struct Ping {
//!     peer: SocketAddr,
//!     next_at: Timestamp,
//!     heard: bool,
//! }
//!
//! impl Machine for Ping {
//!     fn handle_datagrams(&mut self, _now: Timestamp, _received: &mut DatagramBatch) {
//!         self.heard = true;
//!     }
//!
//!     fn handle_timeout(&mut self, _now: Timestamp) {}
//!
//!     fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
//!         if self.is_done() || now < self.next_at {
//!             return;
//!         }
//!         // Also when no buffer is free: then the next one is tried.
//!         self.next_at = now.after(Duration::from_millis(10));
//!         let Some(mut packet) = pool.take() else { return };
//!         if packet.fill(b"ping") {
//!             // A full batch gives it back, and it is lost as on a network.
//!             drop(out.push(Datagram { peer: self.peer, at: now, packet }));
//!         }
//!     }
//!
//!     fn poll_timeout(&self) -> Option<Timestamp> {
//!         Some(self.next_at)
//!     }
//!
//!     fn is_done(&self) -> bool {
//!         self.heard
//!     }
//! }
//!
//! /// Pings itself, on whichever side of the seam.
//! async fn run<E: Env>(env: E, local: SocketAddr) -> Result<u64, Box<dyn std::error::Error>> {
//!     let mut socket = env.bind_udp(local, &UdpOptions::default()).await?;
//!     let peer = socket.local_addr();
//!     let mut machine = Ping { peer, next_at: env.now(), heard: false };
//!     drive(&env, &mut socket, &mut machine).await?;
//!     Ok(socket.report().packets_in)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let env = TokioEnv::new(None)?;
//! let heard = env.block_on(run(env.clone(), "127.0.0.1:0".parse()?))?;
//! assert!(heard >= 1);
//! # Ok(())
//! # }
//! ```
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
    /// returns how many: 0 only when `batch` has no room. Pending when nothing is there, and while
    /// the pool is empty; a socket then looks again by itself after a moment.
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
