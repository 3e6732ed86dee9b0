//! Streams and listeners on tokio.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;

use super::TokioEnv;
use crate::{AcceptError, ConnectError, TcpListener, TcpOptions, TcpStream};

/// One end of a connection on tokio.
pub struct TokioTcp {
    stream: tokio::net::TcpStream,
    local: SocketAddr,
    peer: SocketAddr,
}

impl TokioTcp {
    pub(super) async fn connect(
        env: &TokioEnv,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<Self, ConnectError> {
        let connecting = async {
            let socket = if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            options.ask_of(&SockRef::from(&socket));
            Self::wrap(socket.connect(peer).await?, options)
        };
        let timeout = {
            let _context = env.inner.runtime.enter();
            tokio::time::timeout(options.connect_timeout, connecting)
        };
        let outcome = timeout.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(|error| ConnectError::from_io(peer, error))
    }

    fn wrap(stream: tokio::net::TcpStream, options: &TcpOptions) -> io::Result<Self> {
        stream.set_nodelay(options.nodelay)?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { stream, local, peer })
    }
}

impl AsyncRead for TokioTcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TokioTcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            // There is no way out of a broken connection left to shut.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                Poll::Ready(Ok(()))
            }
            outcome => outcome,
        }
    }
}

impl TcpStream for TokioTcp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    fn abort(self) {
        // Where the system refuses, the connection ends in the usual way.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl fmt::Debug for TokioTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, peer, .. } = self;
        f.debug_struct("TokioTcp").field("local", local).field("peer", peer).finish_non_exhaustive()
    }
}

/// Where connections come in on tokio.
pub struct TokioListener {
    listener: tokio::net::TcpListener,
    local: SocketAddr,
    options: TcpOptions,
}

impl TokioListener {
    pub(super) fn bind(
        env: &TokioEnv,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if local.is_ipv6() {
            // An address means one family; who wants both listens on both.
            socket.set_only_v6(true)?;
        }
        // On Windows the option would let two programs listen on one port.
        if cfg!(unix) {
            socket.set_reuse_address(true)?;
        }
        // Accepted connections inherit it all.
        options.ask_of(&SockRef::from(&socket));
        socket.bind(&local.into())?;
        socket.listen(i32::try_from(options.backlog.max(1)).unwrap_or(i32::MAX))?;
        let _context = env.inner.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(socket.into())?;
        Ok(Self { local: listener.local_addr()?, listener, options: *options })
    }
}

impl TcpListener for TokioListener {
    type Stream = TokioTcp;

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<TokioTcp, AcceptError>> {
        loop {
            let accepted = match self.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((stream, _))) => TokioTcp::wrap(stream, &self.options),
                Poll::Ready(Err(error)) => Err(error),
            };
            if let Some(settled) = AcceptError::settle(accepted) {
                return Poll::Ready(settled);
            }
        }
    }
}

impl fmt::Debug for TokioListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioListener").field("local", &self.local).finish_non_exhaustive()
    }
}
