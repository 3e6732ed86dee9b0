//! Streams and listeners of simulated hosts.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use twinspan_core::time::Timestamp;
use twinspan_provider::{
    AcceptError, AsyncRead, AsyncWrite, ConnectError, ReadBuf, TcpListener, TcpOptions, TcpStream,
    Timer,
};

use crate::slab::Key;
use crate::streams::{EndKey, stopped};
use crate::timer::SimTimer;
use crate::world::{HostId, State, World};

impl World {
    /// Does something with the streams, and drops afterwards what went with it.
    fn with_streams<T>(&self, work: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let outcome = work(&mut state, self.now.get());
        let dead = state.take_dead();
        // Its wakers may hold the last of a task: dropped with the world free.
        drop(state);
        drop(dead);
        outcome
    }
}

/// One end of a connection between simulated hosts.
///
/// It reads and writes as a real one does: a call may move only a part of what it could, bytes take
/// the time of the link, and a peer who does not read makes the writer wait. The end of a host that
/// was stopped says [`NetworkDown`](io::ErrorKind::NetworkDown); its peer hears nothing of it until
/// it sends something, and then a reset if the host runs again.
pub struct SimTcp {
    world: Rc<World>,
    key: EndKey,
    local: SocketAddr,
    peer: SocketAddr,
}

impl SimTcp {
    pub(crate) async fn connect(
        world: &Rc<World>,
        host: (HostId, u32),
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<Self, ConnectError> {
        let begun = world.with_streams(|state, now| state.connect(now, host, peer, options));
        let (key, local) = begun?;
        // From here on a drop takes it back.
        let stream = Self { world: Rc::clone(world), key, local, peer };
        let mut timer = SimTimer::new(world, host.0);
        timer.set(Some(world.now.get().after(options.connect_timeout)));
        let outcome = poll_fn(|cx| {
            let polled = world.with_streams(|state, _| match key {
                EndKey::Pieces(key) => state.poll_connected(key, cx),
                EndKey::Segments(key) => state.poll_segments_connected(key, cx),
            });
            if polled.is_pending() && timer.poll_expired(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            polled
        });
        outcome.await.map_err(|error| ConnectError::from_io(peer, error))?;
        Ok(stream)
    }
}

impl AsyncRead for SimTcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.world.with_streams(|state, now| match self.key {
            EndKey::Pieces(key) => state.read_stream(now, key, cx, buffer),
            EndKey::Segments(key) => state.read_segments(now, key, cx, buffer),
        })
    }
}

impl AsyncWrite for SimTcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.world.with_streams(|state, now| match self.key {
            EndKey::Pieces(key) => state.write_stream(now, key, cx, bytes),
            EndKey::Segments(key) => state.write_segments(now, key, cx, bytes),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.world.with_streams(|state, now| match self.key {
            EndKey::Pieces(key) => state.shut_stream(now, key),
            EndKey::Segments(key) => state.shut_segments(now, key),
        }))
    }
}

impl TcpStream for SimTcp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Small writes always leave at once where streams do not travel in segments.
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.world.with_streams(|state, now| match self.key {
            EndKey::Pieces(key) if state.streams.ends.get(key).is_some() => Ok(()),
            EndKey::Pieces(_) => Err(stopped()),
            EndKey::Segments(key) => state.set_segments_nodelay(now, key, nodelay),
        })
    }

    fn abort(self) {
        self.world.with_streams(|state, now| match self.key {
            EndKey::Pieces(key) => state.abort_stream(now, key),
            EndKey::Segments(key) => state.abort_segments(now, key),
        });
    }
}

impl Drop for SimTcp {
    fn drop(&mut self) {
        self.world.with_streams(|state, now| match self.key {
            EndKey::Pieces(key) => state.close_stream(now, key),
            EndKey::Segments(key) => state.close_segments(now, key),
        });
    }
}

impl std::fmt::Debug for SimTcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { local, peer, .. } = self;
        f.debug_struct("SimTcp").field("local", local).field("peer", peer).finish_non_exhaustive()
    }
}

/// Where connections to a simulated host come in.
pub struct SimListener {
    world: Rc<World>,
    key: Key,
    local: SocketAddr,
}

impl SimListener {
    pub(crate) fn new(world: &Rc<World>, key: Key, local: SocketAddr) -> Self {
        Self { world: Rc::clone(world), key, local }
    }
}

impl TcpListener for SimListener {
    type Stream = SimTcp;

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<SimTcp, AcceptError>> {
        let accepted = self.world.with_streams(|state, now| state.accept(now, self.key, cx));
        accepted.map_ok(|(key, local, peer)| {
            let world = Rc::clone(&self.world);
            SimTcp { world, key, local, peer }
        })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.world.with_streams(|state, now| state.unlisten(now, self.key));
    }
}

impl std::fmt::Debug for SimListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimListener").field("local", &self.local).finish_non_exhaustive()
    }
}
