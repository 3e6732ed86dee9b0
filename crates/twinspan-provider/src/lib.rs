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
//! that system.
//!
//! Streams are [`TcpStream`]s and [`TcpListener`]s, with tokio's traits for reading and writing;
//! [`NetworkProvider::resolve`] turns names into addresses. All errors are typed, and of the same
//! kind on every side: one conformance suite holds it.
#![forbid(unsafe_code)]

mod around;
mod conditioned;
#[cfg(feature = "conformance")]
pub mod conformance;
mod disk;
pub mod dns;
mod drive;
mod error;
mod names;
mod stream;
mod tokio_env;
mod topic;
mod wall;

use std::future::Future;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;

pub use around::Around;
pub use conditioned::{Conditioned, ConditionedEnv, LinkControl};
pub use disk::{
    DISK_CALL_BYTES_MAX, Disk, DiskError, DiskFile, FILE_BYTES_MAX, FILE_NAME_BYTES_MAX,
    FolderDisk, FolderFile, OpenMode, check_disk_call, check_file_name,
};
pub use drive::{Machine, drive};
pub use error::{AcceptError, BindError, ConnectError, OffloadError, ResolveError, UdpError};
pub use names::{
    ADDRESSES_PER_NAME_MAX, RESOLVE_TIMEOUT, Resolved, resolve_by_system, resolve_special,
};
pub use stream::{BACKLOG_DEFAULT, KEEPALIVE_PROBES_MAX, TcpListener, TcpOptions, TcpStream};
/// What streams read and write with.
pub use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
pub use tokio_env::{
    OsSecrets, TokioEnv, TokioListener, TokioTask, TokioTcp, TokioTimer, TokioUdp, run,
};
pub use topic::{
    TOPIC_HOLDS_MAX, TopicInbox, TopicJoinError, TopicMessage, TopicOptions, TopicOutbox,
    TopicPolicy, TopicProvider, TopicPublishError, TopicSample, TopicTakeError, publish_patiently,
};
pub use wall::WallTime;

/// Tokio's side of the seam, by the name that it has beside `SimNetworkProvider` of `twinspan-sim`.
pub type TokioNetworkProvider = TokioEnv;

/// Time: a clock that starts at [`Timestamp::START`] and timers on it.
pub trait TimeProvider {
    /// A timer of this clock.
    type Timer: Timer;

    /// The present moment.
    fn now(&self) -> Timestamp;

    /// The calendar's moment as this node sees it. It may step in either direction and be wrong:
    /// no deadline or order belongs on it.
    fn wall(&self) -> WallTime;

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

    /// Does work that blocks or takes long where it holds nobody up: on another thread, or inline in
    /// simulation. At most [`OFFLOADS_MAX`] pieces of a node are under way at a time.
    ///
    /// # Errors
    /// [`OffloadError`] when it cannot be begun, or panicked.
    ///
    /// # Cancel safety
    /// Work that has begun goes on when the future is dropped; what it gives is dropped then.
    fn offload<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, OffloadError>>;
}

/// Pieces of work that one node has under way off its thread.
pub const OFFLOADS_MAX: usize = 64;

/// The network: datagram sockets, streams and names.
pub trait NetworkProvider {
    /// A bound datagram socket.
    type Udp: UdpSocket;

    /// One end of a connection.
    type Tcp: TcpStream;

    /// Where connections come in.
    type Listener: TcpListener<Stream = Self::Tcp>;

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

    /// Connects to `peer`.
    ///
    /// # Errors
    /// [`ConnectError`] names the address and why there is no connection.
    ///
    /// # Cancel safety
    /// Dropping the future gives up; the peer may have seen a connection that ends at once.
    fn connect(
        &self,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> impl Future<Output = Result<Self::Tcp, ConnectError>>;

    /// Listens on `local`; port 0 asks for any free one. A port whose former connections have not
    /// quite ended can be had.
    ///
    /// # Errors
    /// [`BindError`] names the address and why it cannot be had.
    ///
    /// # Cancel safety
    /// Dropping the future listens nowhere.
    fn listen(
        &self,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> impl Future<Output = Result<Self::Listener, BindError>>;

    /// The addresses of the host `name`, each with `port`. Addresses in digits stand for themselves.
    ///
    /// # Errors
    /// [`ResolveError`] names the name and why it stands for nothing.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the answer.
    fn resolve(
        &self,
        name: &str,
        port: u16,
    ) -> impl Future<Output = Result<Resolved, ResolveError>>;
}

/// Which calls move the datagrams of a socket: the rungs of a ladder, dearest first.
///
/// A rung asked for by name is had or the bind fails; which rungs there are depends on the side of
/// the seam and on the kernel. The simulated side has one path and takes any choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoPath {
    /// What the side does without being asked, unmeasured: batches where it has them.
    #[default]
    Usual,
    /// The cheapest by a short measurement over loopback, once per process.
    Measured,
    /// One call per datagram.
    Plain,
    /// Many datagrams per call.
    Batch,
    /// A completion ring that the kernel fills: io_uring.
    Ring,
}

/// Whether the kernel splits or joins the datagrams of one peer for a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offload {
    /// Not asked for, or unknown to this side of the seam.
    #[default]
    Off,
    /// In use.
    On,
    /// Asked for and refused by the kernel or the device, at once or later.
    Refused,
}

/// What one rung of the ladder cost in the start-up measurement, in nanoseconds of processor time
/// per received datagram; `None` where it was not measured or cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCosts {
    /// One call per datagram.
    pub plain_ns: Option<u32>,
    /// Many datagrams per call.
    pub batch_ns: Option<u32>,
    /// A completion ring.
    pub ring_ns: Option<u32>,
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
    /// How datagrams move.
    pub path: IoPath,
    /// Whether datagrams of equal length that follow one another to one peer are handed to the
    /// kernel as one, which splits them below the routing layer (GSO). On by default; who receives
    /// sees no difference.
    pub segment_sends: bool,
    /// Whether the kernel may hand over datagrams of one peer that followed one another as one, to
    /// be split here (GRO). Off by default: it pays where many datagrams share few peers, and costs
    /// a copy of each.
    pub coalesce_receives: bool,
    /// Whether datagrams leave as ones that routers may mark instead of dropping them (ECT(0) of RFC
    /// 3168), and those that come tell whether they were marked
    /// ([`PacketBuf::ecn`](twinspan_core::packet::PacketBuf::ecn)). Off by default: whoever asks for
    /// it slows down for a mark as for a loss. The report says whether the side can do it.
    pub ecn: bool,
    /// How long datagrams may gather in the kernel once all that had come was received, before
    /// they are looked for again; deadlines are met meanwhile. Zero, the default: not at all, each
    /// datagram wakes. At most 5 ms are used. The whole thread sleeps, so other sockets and wakes
    /// from other threads may wait as long; sides that cannot do it ignore it, and the report says
    /// what is in force.
    pub gather: Duration,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 4 << 20,
            pool_packets: 1_024,
            path: IoPath::Usual,
            segment_sends: true,
            coalesce_receives: false,
            ecn: false,
            gather: Duration::ZERO,
        }
    }
}

/// What a datagram socket really got and did.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketReport {
    /// How datagrams move, for people: "recvmmsg/sendmmsg", "recvfrom/sendto", "simulated".
    pub path: &'static str,
    /// Why it is that path, for people; empty where there is no choice.
    pub path_reason: &'static str,
    /// What the start-up measurement said of each path, where there was one.
    pub path_costs: PathCosts,
    /// Whether runs of sent datagrams are split by the kernel.
    pub segmentation: Offload,
    /// Whether runs of received datagrams are joined by the kernel.
    pub coalescing: Offload,
    /// Whether datagrams leave as ones that routers may mark, and marks are read.
    pub ecn: bool,
    /// How long datagrams gather between two looks for them; zero when each one wakes.
    pub gather: Duration,
    /// Whether datagrams leave whole or not at all, as the search for a path's longest packet needs;
    /// else a router may cut them up, and a path looks wider than it is.
    pub never_fragments: bool,
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
    /// System calls that received, those that found nothing included; 0 where nobody counts.
    pub calls_in: u64,
    /// System calls that sent, those that found no room included; 0 where nobody counts.
    pub calls_out: u64,
    /// Sent datagrams that travelled in a run which the kernel split.
    pub packets_segmented: u64,
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
