//! Streams of bytes: TCP as the seam has it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::AcceptError;

/// Questions after a keep-alive that stay without an answer until a peer counts as gone.
pub const KEEPALIVE_PROBES_MAX: u32 = 4;
/// The least that Linux takes apart: its times are whole seconds, the pause between questions too.
const KEEPALIVE_MIN: Duration = Duration::from_secs(4);
/// Connections that a listener keeps until they are accepted, unless it is asked for others.
pub const BACKLOG_DEFAULT: u32 = 1_024;

/// What a stream or a listener is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Whether small writes leave at once instead of waiting for the ack of those before (Nagle).
    /// On by default.
    pub nodelay: bool,
    /// How long [`connect`](crate::NetworkProvider::connect) waits for an answer, 10 s by default.
    /// The operating system may give up earlier.
    pub connect_timeout: Duration,
    /// Wanted receive buffer, in bytes; 0, the default, leaves it to the side.
    pub receive_buffer_bytes: usize,
    /// Wanted send buffer, in bytes; 0, the default, leaves it to the side.
    pub send_buffer_bytes: usize,
    /// Connections that wait to be accepted, [`BACKLOG_DEFAULT`] by default; the operating system
    /// may keep fewer. Who connects to a full listener hangs or is refused.
    pub backlog: u32,
    /// After how long a silence the peer is asked whether it is there, where nothing is owed: one that
    /// went without a word is found out. Four questions a quarter of that time apart stay without an
    /// answer, then the connection has timed out. `None`, the default, leaves it to the side, which
    /// rarely asks at all. Operating systems count in whole seconds, one at least.
    pub keepalive: Option<Duration>,
    /// How long what was sent may stay unacknowledged, or a shut window unopened by a peer that says
    /// nothing, before the connection has timed out. `None`, the default, leaves it to the side. Where
    /// the operating system knows no such limit, its own holds.
    pub give_up: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            connect_timeout: Duration::from_secs(10),
            receive_buffer_bytes: 0,
            send_buffer_bytes: 0,
            backlog: BACKLOG_DEFAULT,
            keepalive: None,
            give_up: None,
        }
    }
}

impl TcpOptions {
    /// Asks a socket of the operating system for the sizes and the patience that the options name;
    /// refusals leave the system's own.
    pub fn ask_of(&self, socket: &SockRef<'_>) {
        if self.receive_buffer_bytes > 0 {
            let _ = socket.set_recv_buffer_size(self.receive_buffer_bytes);
        }
        if self.send_buffer_bytes > 0 {
            let _ = socket.set_send_buffer_size(self.send_buffer_bytes);
        }
        if let Some(after) = self.keepalive {
            let after = after.max(KEEPALIVE_MIN);
            let asked = TcpKeepalive::new().with_time(after).with_interval(after / 4);
            #[cfg(not(windows))]
            let asked = asked.with_retries(KEEPALIVE_PROBES_MAX);
            let _ = socket.set_tcp_keepalive(&asked);
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(limit) = self.give_up {
            let _ = socket.set_tcp_user_timeout(Some(limit));
        }
    }
}

/// One end of a connection.
///
/// It reads and writes with tokio's traits, so that what is made for those (TLS, HTTP, codecs) works
/// on every side of the seam. `poll_shutdown` closes the way out; the way in stays open (half-close).
///
/// Errors are [`io::Error`]s whose kinds agree on all sides:
///
/// * [`ConnectionReset`](io::ErrorKind::ConnectionReset): the peer cut the connection;
/// * [`BrokenPipe`](io::ErrorKind::BrokenPipe): a write after the way out was shut down, or to a peer
///   who closed its end;
/// * [`TimedOut`](io::ErrorKind::TimedOut): what was sent stayed unacknowledged for too long, or the
///   peer did not answer when it was [asked](TcpOptions::keepalive) whether it is there.
///
/// What was received before is read first. A broken connection tells its error once; then reads find
/// the end of the stream and writes a broken pipe.
///
/// Dropping a stream closes it and what was written is still delivered, but where received bytes
/// were not read the peer sees a reset, as TCP demands.
pub trait TcpStream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// The address of this end.
    fn local_addr(&self) -> SocketAddr;

    /// The address of the other end.
    fn peer_addr(&self) -> SocketAddr;

    /// Changes whether small writes leave at once.
    ///
    /// # Errors
    /// What the operating system says, for instance when the connection is gone.
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()>;

    /// Ends the connection at once: the peer sees a reset, and what was not delivered is lost.
    fn abort(self);
}

/// Where connections come in.
pub trait TcpListener: 'static {
    /// The streams it gives.
    type Stream: TcpStream;

    /// The address it listens on.
    fn local_addr(&self) -> SocketAddr;

    /// Takes the connection that has waited longest.
    ///
    /// # Errors
    /// [`AcceptError`]; after [`AcceptError::Exhausted`] the listener is as good as before, and who
    /// tries again at once keeps a processor busy.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Stream, AcceptError>>;

    /// Waits for the next connection.
    ///
    /// # Errors
    /// As [`poll_accept`](Self::poll_accept).
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    fn accept(&mut self) -> impl Future<Output = Result<Self::Stream, AcceptError>> {
        poll_fn(|cx| self.poll_accept(cx))
    }
}
