//! Streams and listeners on a reactor.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use twinspan_provider::{
    AcceptError, AsyncRead, AsyncWrite, BindError, ConnectError, ReadBuf, TcpListener, TcpOptions,
    TcpStream, Timer,
};

use crate::reactor::{Reactor, ReactorTimer, Source, Wants};

/// Connections that ended before they were accepted and that one call passes over before it lets
/// others run.
const ENDED_PER_CALL_MAX: usize = 16;

/// A socket in a reactor's epoll set, taken out when dropped.
struct Registered<S: AsFd> {
    socket: S,
    source: Rc<Source>,
    reactor: Rc<Reactor>,
}

impl<S: AsFd> Registered<S> {
    fn new(reactor: &Rc<Reactor>, socket: S) -> io::Result<Self> {
        let source = reactor.add_source(socket.as_fd(), Wants::Datagrams)?;
        Ok(Self { socket, source, reactor: Rc::clone(reactor) })
    }

    /// Tries `call` until it does not find the socket empty; pending when nothing is there.
    fn poll_in<T>(
        &self,
        cx: &Context<'_>,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if !self.source.readable() {
                self.source.await_readable(cx.waker());
                return Poll::Pending;
            }
            if !self.reactor.may_receive(cx) {
                return Poll::Pending;
            }
            match call(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.source.drained(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// Tries `call` until it does not find the socket full; pending when there is no room.
    fn poll_out<T>(
        &self,
        cx: &Context<'_>,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if !self.source.writable() {
                self.source.await_writable(cx.waker());
                return Poll::Pending;
            }
            if !self.reactor.may_receive(cx) {
                return Poll::Pending;
            }
            if self.source.awaits_room() {
                self.reactor.send_unblocked(self.socket.as_fd(), &self.source)?;
            }
            match call(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.reactor.send_blocked(self.socket.as_fd(), &self.source)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl<S: AsFd> Drop for Registered<S> {
    fn drop(&mut self) {
        self.reactor.remove_source(self.socket.as_fd(), &self.source);
    }
}

fn new_socket(address: SocketAddr, options: &TcpOptions) -> io::Result<Socket> {
    let socket = stream_socket(address, options)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket as the options want it, whose calls block.
pub(crate) fn stream_socket(address: SocketAddr, options: &TcpOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // An address means one family; who wants both asks for both.
        socket.set_only_v6(true)?;
    }
    // What is accepted inherits it all.
    options.ask_of(&SockRef::from(&socket));
    Ok(socket)
}

/// Shuts the way out; a broken connection has none left to shut.
pub(crate) fn shut_way_out(socket: &SockRef<'_>) -> io::Result<()> {
    match socket.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}

/// One end of a connection on a reactor.
pub struct ReactorTcp {
    inner: Registered<std::net::TcpStream>,
    local: SocketAddr,
    peer: SocketAddr,
}

impl ReactorTcp {
    pub(crate) async fn connect(
        reactor: &Rc<Reactor>,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<Self, ConnectError> {
        let mut timer = ReactorTimer::new(Rc::clone(reactor));
        timer.set(Some(reactor.now().after(options.connect_timeout)));
        let outcome = match Self::begin(reactor, peer, options) {
            Ok(connecting) => poll_fn(|cx| match connecting.poll_connected(cx) {
                Poll::Pending if timer.poll_expired(cx).is_ready() => {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                outcome => outcome,
            })
            .await
            .and_then(|()| connecting.finish(options)),
            Err(error) => Err(error),
        };
        outcome.map_err(|error| ConnectError::from_io(peer, error))
    }

    fn begin(
        reactor: &Rc<Reactor>,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> io::Result<Connecting> {
        let socket = new_socket(peer, options)?;
        match socket.connect(&peer.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            outcome => outcome?,
        }
        let inner = Registered::new(reactor, std::net::TcpStream::from(socket))?;
        // Room to send is what the end of the handshake looks like.
        reactor.send_blocked(inner.socket.as_fd(), &inner.source)?;
        Ok(Connecting(inner))
    }

    fn wrap(inner: Registered<std::net::TcpStream>, options: &TcpOptions) -> io::Result<Self> {
        inner.socket.set_nodelay(options.nodelay)?;
        let (local, peer) = (inner.socket.local_addr()?, inner.socket.peer_addr()?);
        Ok(Self { inner, local, peer })
    }
}

/// A connection that is being made.
struct Connecting(Registered<std::net::TcpStream>);

impl Connecting {
    fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Self(inner) = self;
        inner.poll_out(cx, |socket| match socket.take_error()? {
            Some(error) => Err(error),
            None => match socket.peer_addr() {
                // Woken for nothing.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                outcome => outcome.map(|_| ()),
            },
        })
    }

    fn finish(self, options: &TcpOptions) -> io::Result<ReactorTcp> {
        ReactorTcp::wrap(self.0, options)
    }
}

impl AsyncRead for ReactorTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let room = buffer.initialize_unfilled();
        let read = self.inner.poll_in(cx, |mut socket| socket.read(room));
        read.map_ok(|bytes| buffer.advance(bytes))
    }
}

impl AsyncWrite for ReactorTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_out(cx, |mut socket| socket.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shut_way_out(&SockRef::from(&self.inner.socket)))
    }
}

impl TcpStream for ReactorTcp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.inner.socket.set_nodelay(nodelay)
    }

    fn abort(self) {
        // Where the system refuses, the connection ends in the usual way.
        let _ = SockRef::from(&self.inner.socket).set_linger(Some(Duration::ZERO));
    }
}

impl fmt::Debug for ReactorTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, peer, .. } = self;
        let mut shown = f.debug_struct("ReactorTcp");
        shown.field("local", local).field("peer", peer).finish_non_exhaustive()
    }
}

/// Where connections come in on a reactor.
pub struct ReactorListener {
    inner: Registered<std::net::TcpListener>,
    local: SocketAddr,
    options: TcpOptions,
}

impl ReactorListener {
    pub(crate) fn bind(
        reactor: &Rc<Reactor>,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<Self, BindError> {
        let bound = || {
            let socket = new_socket(local, options)?;
            // Former connections that have not quite ended do not hold the port.
            socket.set_reuse_address(true)?;
            socket.bind(&local.into())?;
            socket.listen(i32::try_from(options.backlog.max(1)).unwrap_or(i32::MAX))?;
            let inner = Registered::new(reactor, std::net::TcpListener::from(socket))?;
            Ok(Self { local: inner.socket.local_addr()?, inner, options: *options })
        };
        bound().map_err(|error| BindError::from_io(local, error))
    }

    fn wrap(&self, socket: std::net::TcpStream) -> io::Result<ReactorTcp> {
        socket.set_nonblocking(true)?;
        ReactorTcp::wrap(Registered::new(&self.inner.reactor, socket)?, &self.options)
    }
}

impl TcpListener for ReactorListener {
    type Stream = ReactorTcp;

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReactorTcp, AcceptError>> {
        for _ in 0..ENDED_PER_CALL_MAX {
            let accepted = match self.inner.poll_in(cx, std::net::TcpListener::accept) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((socket, _))) => self.wrap(socket),
                Poll::Ready(Err(error)) => Err(error),
            };
            if let Some(settled) = AcceptError::settle(accepted) {
                return Poll::Ready(settled);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for ReactorListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorListener").field("local", &self.local).finish_non_exhaustive()
    }
}
