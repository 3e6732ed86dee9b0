//! A shard of a node whose streams and datagrams move over io_uring.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use twinspan_provider::{
    AcceptError, Around, AsyncRead, AsyncWrite, BindError, ConnectError, IoPath, NetworkProvider,
    ReadBuf, ResolveError, Resolved, TaskProvider, TcpListener, TcpOptions, TcpStream, Timer,
    UdpOptions,
};

use crate::reactor::{Reactor, ReactorEnv, ReactorTask, ReactorTimer, Wants};
use crate::sys::{Done, OpKey, StreamRing};
use crate::tcp::{shut_way_out, stream_socket};
use crate::udp::BatchUdp;

/// Bytes of one receive and of one send.
const BUFFER_BYTES: usize = 32 << 10;
/// Connections that ended before they were accepted and that one call passes over before it lets
/// others run.
const ENDED_PER_CALL_MAX: usize = 16;
/// How long what was written before a stream was dropped may stay undelivered.
const LEFT_BEHIND_MAX: Duration = Duration::from_secs(60);

/// Why there is no io_uring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UringError {
    /// The kernel has no completion rings of the kind that is needed, or forbids them.
    #[error("no io_uring here (Linux 6.1 has what is needed): {0}; use ReactorEnv")]
    Unavailable(#[source] io::Error),
    /// The shard itself cannot be had.
    #[error("cannot begin a shard: {0}")]
    Os(#[source] io::Error),
}

/// A [`ReactorEnv`] whose streams connect, accept, read and write by a completion ring, and whose
/// datagrams are received by one ([`IoPath::Ring`]) unless the options ask for another path.
///
/// Clones are the same shard. A stream reads and writes by way of 32 KiB each way that the kernel has
/// been lent, so a write is done when the bytes were taken over, and its error is told by the next
/// call.
#[derive(Clone)]
pub struct UringEnv {
    env: ReactorEnv,
    ring: Rc<StreamRing>,
    /// Takes completions; ends with the last clone.
    _pump: Rc<ReactorTask>,
}

impl UringEnv {
    /// A shard whose time starts now. Without a seed the operating system draws one.
    ///
    /// # Errors
    /// [`UringError`] says what is missing.
    pub fn new(seed: Option<u64>) -> Result<Self, UringError> {
        let ring = Rc::new(StreamRing::new().map_err(UringError::Unavailable)?);
        let env = ReactorEnv::new(seed).map_err(UringError::Os)?;
        let bell = Bell::new(&env, &ring).map_err(UringError::Os)?;
        let pump = env.spawn("completions", async move {
            poll_fn(|cx| bell.poll(cx)).await;
        });
        Ok(Self { env, ring, _pump: Rc::new(pump) })
    }

    /// As [`ReactorEnv::block_on`].
    ///
    /// # Panics
    /// When called from within itself.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.env.block_on(future)
    }
}

impl fmt::Debug for UringEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringEnv").field("env", &self.env).finish_non_exhaustive()
    }
}

/// What the kernel rings when there are completions, in the reactor's set.
struct Bell {
    ring: Rc<StreamRing>,
    reactor: Rc<Reactor>,
    source: Rc<crate::reactor::Source>,
}

impl Bell {
    fn new(env: &ReactorEnv, ring: &Rc<StreamRing>) -> io::Result<Self> {
        let reactor = Rc::clone(&env.reactor);
        let source = reactor.add_source(ring.fd(), Wants::Datagrams)?;
        Ok(Self { ring: Rc::clone(ring), reactor, source })
    }

    /// Takes completions; never done.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.source.readable() {
            // Before the look: what is completed after it rings again.
            self.source.drained();
            self.ring.quiet();
            self.ring.look();
        }
        self.source.await_readable(cx.waker());
        Poll::Pending
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.reactor.remove_source(self.ring.fd(), &self.source);
    }
}

/// One end of a connection over io_uring.
pub struct UringTcp {
    ring: Rc<StreamRing>,
    reactor: Rc<Reactor>,
    socket: Rc<OwnedFd>,
    local: SocketAddr,
    peer: SocketAddr,
    /// Received bytes, from `from` to `to`, while no receive is under way.
    inbox: Box<[u8]>,
    from: usize,
    to: usize,
    receiving: Option<OpKey>,
    outbox: Box<[u8]>,
    sending: Option<(OpKey, usize)>,
    /// What broke the connection, until it was told.
    error: Option<io::Error>,
    /// Nothing more can be sent.
    is_broken: bool,
    /// Nothing more comes.
    has_ended: bool,
    is_shut: bool,
}

impl UringTcp {
    async fn connect(
        env: &UringEnv,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<Self, ConnectError> {
        let reactor = &env.env.reactor;
        let mut timer = ReactorTimer::new(Rc::clone(reactor));
        timer.set(Some(reactor.now().after(options.connect_timeout)));
        let begin = || {
            let socket: OwnedFd = stream_socket(peer, options)?.into();
            let socket = Rc::new(socket);
            let ring = Rc::clone(&env.ring);
            let op = ring.connect(&socket, peer)?;
            Ok::<_, io::Error>((Connecting { ring, op: Some(op) }, socket))
        };
        let outcome = match begin() {
            Ok((mut connecting, socket)) => {
                let connected = poll_fn(|cx| match connecting.poll(cx) {
                    Poll::Pending if timer.poll_expired(cx).is_ready() => {
                        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                    }
                    outcome => outcome,
                });
                connected.await.and_then(|()| Self::wrap(&env.ring, reactor, socket, options))
            }
            Err(error) => Err(error),
        };
        outcome.map_err(|error| ConnectError::from_io(peer, error))
    }

    fn wrap(
        ring: &Rc<StreamRing>,
        reactor: &Rc<Reactor>,
        socket: Rc<OwnedFd>,
        options: &TcpOptions,
    ) -> io::Result<Self> {
        let known = SockRef::from(&*socket);
        known.set_tcp_nodelay(options.nodelay)?;
        let named = |name: socket2::SockAddr| name.as_socket().ok_or(io::ErrorKind::NotConnected);
        let (local, peer) = (named(known.local_addr()?)?, named(known.peer_addr()?)?);
        Ok(Self {
            ring: Rc::clone(ring),
            reactor: Rc::clone(reactor),
            socket,
            local,
            peer,
            inbox: Box::default(),
            from: 0,
            to: 0,
            receiving: None,
            outbox: Box::default(),
            sending: None,
            error: None,
            is_broken: false,
            has_ended: false,
            is_shut: false,
        })
    }

    /// Something broke the connection: the next call tells, once.
    fn break_with(&mut self, error: io::Error) {
        if !self.is_broken {
            self.is_broken = true;
            self.error = Some(error);
        }
    }

    /// Takes what a receive came to, if one is under way.
    fn settle_receive(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(op) = self.receiving else { return Poll::Ready(()) };
        let done = ready!(self.ring.poll(op, cx));
        self.receiving = None;
        match done {
            Ok(Done::Moved(bytes, length)) => {
                (self.inbox, self.from, self.to) = (bytes, 0, length);
                self.has_ended = length == 0;
            }
            Ok(_) => {}
            Err(error) => {
                self.has_ended = true;
                self.break_with(error);
            }
        }
        Poll::Ready(())
    }

    /// Waits until what was written is with the kernel.
    fn settle_send(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some((op, wanted)) = self.sending else { return Poll::Ready(()) };
        let done = ready!(self.ring.poll(op, cx));
        self.sending = None;
        match done {
            Ok(Done::Moved(bytes, length)) => {
                self.outbox = bytes;
                if length < wanted {
                    // The kernel sends all of it unless the connection broke on the way.
                    self.break_with(io::ErrorKind::ConnectionReset.into());
                }
            }
            Ok(_) => {}
            Err(error) => self.break_with(error),
        }
        Poll::Ready(())
    }
}

/// Memory of the size that operations have.
fn buffer(kept: &mut Box<[u8]>) -> Box<[u8]> {
    let bytes = std::mem::take(kept);
    if bytes.len() == BUFFER_BYTES { bytes } else { vec![0; BUFFER_BYTES].into_boxed_slice() }
}

/// A connection that is being made.
struct Connecting {
    ring: Rc<StreamRing>,
    op: Option<OpKey>,
}

impl Connecting {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(op) = self.op else { return Poll::Ready(Err(io::ErrorKind::NotFound.into())) };
        let done = ready!(self.ring.poll(op, cx));
        self.op = None;
        Poll::Ready(done.map(|_| ()))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(op) = self.op.take() {
            self.ring.abandon(op);
        }
    }
}

impl AsyncRead for UringTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer_of_caller: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer_of_caller.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.reactor.may_receive(cx) {
            return Poll::Pending;
        }
        loop {
            if this.from < this.to {
                let there = this.inbox.get(this.from..this.to).unwrap_or_default();
                let part = there.get(..buffer_of_caller.remaining()).unwrap_or(there);
                buffer_of_caller.put_slice(part);
                this.from += part.len();
                return Poll::Ready(Ok(()));
            }
            if this.has_ended {
                return Poll::Ready(this.error.take().map_or(Ok(()), Err));
            }
            if this.receiving.is_none() {
                let bytes = buffer(&mut this.inbox);
                this.receiving = Some(this.ring.receive(&this.socket, bytes)?);
            }
            ready!(this.settle_receive(cx));
        }
    }
}

impl AsyncWrite for UringTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.reactor.may_receive(cx) {
            return Poll::Pending;
        }
        ready!(this.settle_send(cx));
        // A receive that has failed meanwhile knows what a send would not find any more.
        if this.receiving.is_some_and(|op| this.ring.is_done(op)) {
            ready!(this.settle_receive(cx));
        }
        if let Some(error) = this.error.take() {
            return Poll::Ready(Err(error));
        }
        if this.is_broken || this.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut room = buffer(&mut this.outbox);
        let length = bytes.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
        }
        let op = this.ring.send(&this.socket, room, length)?;
        this.sending = Some((op, length));
        // Most sends are done at once, and then their error is told at once.
        if this.settle_send(cx).is_ready()
            && let Some(error) = this.error.take()
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.settle_send(cx));
        Poll::Ready(this.error.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.settle_send(cx));
        this.is_shut = true;
        // What was written last is lost: nobody may take that for a good end.
        if let Some(error) = this.error.take() {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(shut_way_out(&SockRef::from(&*this.socket)))
    }
}

impl TcpStream for UringTcp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        SockRef::from(&*self.socket).set_tcp_nodelay(nodelay)
    }

    fn abort(self) {
        // Where the system refuses, the connection ends in the usual way.
        let socket = SockRef::from(&*self.socket);
        let _ = socket.set_linger(Some(Duration::ZERO));
        // What is being sent holds the socket open until the way out is over.
        if self.sending.is_some() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for UringTcp {
    fn drop(&mut self) {
        let socket = SockRef::from(&*self.socket);
        if self.from < self.to {
            // Bytes that came were not read: the peer sees a reset, as TCP demands.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        if let Some(op) = self.receiving.take() {
            self.ring.abandon(op);
        }
        if let Some((op, _)) = self.sending.take() {
            // It goes on by itself, for a time.
            let _ = socket.set_tcp_user_timeout(Some(LEFT_BEHIND_MAX));
            self.ring.abandon(op);
        }
    }
}

impl fmt::Debug for UringTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, peer, .. } = self;
        f.debug_struct("UringTcp").field("local", local).field("peer", peer).finish_non_exhaustive()
    }
}

/// Where connections come in over io_uring.
pub struct UringListener {
    ring: Rc<StreamRing>,
    reactor: Rc<Reactor>,
    socket: Rc<OwnedFd>,
    local: SocketAddr,
    options: TcpOptions,
    accepting: Option<OpKey>,
}

impl UringListener {
    fn bind(env: &UringEnv, local: SocketAddr, options: &TcpOptions) -> Result<Self, BindError> {
        let bound = || {
            let socket = stream_socket(local, options)?;
            // Former connections that have not quite ended do not hold the port.
            socket.set_reuse_address(true)?;
            socket.bind(&local.into())?;
            socket.listen(i32::try_from(options.backlog.max(1)).unwrap_or(i32::MAX))?;
            let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let (ring, reactor) = (Rc::clone(&env.ring), Rc::clone(&env.env.reactor));
            let socket = Rc::new(OwnedFd::from(socket));
            Ok(Self { ring, reactor, socket, local: bound, options: *options, accepting: None })
        };
        bound().map_err(|error: io::Error| BindError::from_io(local, error))
    }
}

impl TcpListener for UringListener {
    type Stream = UringTcp;

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<UringTcp, AcceptError>> {
        for _ in 0..ENDED_PER_CALL_MAX {
            if !self.reactor.may_receive(cx) {
                return Poll::Pending;
            }
            let accepted = match self.accepting {
                Some(op) => {
                    let done = ready!(self.ring.poll(op, cx));
                    self.accepting = None;
                    done
                }
                None => match self.ring.accept(&self.socket) {
                    Ok(op) => {
                        self.accepting = Some(op);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let stream = accepted.and_then(|done| match done {
                Done::Accepted(socket) => {
                    UringTcp::wrap(&self.ring, &self.reactor, Rc::new(socket), &self.options)
                }
                _ => Err(io::ErrorKind::InvalidData.into()),
            });
            if let Some(settled) = AcceptError::settle(stream) {
                return Poll::Ready(settled);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for UringListener {
    fn drop(&mut self) {
        if let Some(op) = self.accepting.take() {
            self.ring.abandon(op);
        }
    }
}

impl fmt::Debug for UringListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringListener").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Around for UringEnv {
    type Inner = ReactorEnv;

    fn env(&self) -> &ReactorEnv {
        &self.env
    }
}

impl NetworkProvider for UringEnv {
    type Udp = BatchUdp;
    type Tcp = UringTcp;
    type Listener = UringListener;

    async fn bind_udp(
        &self,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<BatchUdp, BindError> {
        let path = if options.path == IoPath::Usual { IoPath::Ring } else { options.path };
        self.env.bind_udp(local, &UdpOptions { path, ..*options }).await
    }

    async fn connect(
        &self,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<UringTcp, ConnectError> {
        UringTcp::connect(self, peer, options).await
    }

    async fn listen(
        &self,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<UringListener, BindError> {
        UringListener::bind(self, local, options)
    }

    async fn resolve(&self, name: &str, port: u16) -> Result<Resolved, ResolveError> {
        self.env.resolve(name, port).await
    }
}
