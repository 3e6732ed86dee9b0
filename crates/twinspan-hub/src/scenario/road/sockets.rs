//! Simulated streams, as the carrier has sockets of this machine.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_provider::{
    AsyncRead, AsyncWrite, ConnectError, NetworkProvider, ReadBuf, TcpListener, TcpOptions,
};
use twinspan_sim::{SimEnv, SimListener, SimTcp};

use super::Bell;
use crate::stream::carrier::{Heed, Ready, Sockets};

/// How long a connection may take; the carrier gives it up before.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that a task moves on, which is woken.
pub(crate) trait Woken: Sockets {
    /// What wakes it when there is something to do.
    fn bell(&self) -> &Rc<Bell>;

    /// Whether anything was done since this was asked last: there may be more, of which nobody tells.
    fn take_progress(&mut self) -> bool;
}

/// Simulated streams.
pub(crate) struct SimSockets {
    env: SimEnv,
    listener: Option<SimListener>,
    bell: Rc<Bell>,
    /// The streams have places below this.
    places: usize,
    has_moved: Cell<bool>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<SimTcp, ConnectError>>>>;

/// A simulated connection.
pub(crate) enum SimStream {
    Connecting(Connecting),
    Up(SimTcp),
    Failed,
}

impl SimSockets {
    pub(super) fn new(env: &SimEnv, listener: Option<SimListener>, bell: Rc<Bell>) -> Self {
        Self { env: env.clone(), listener, bell, places: 0, has_moved: Cell::new(false) }
    }

    /// The outcome of a call that does not wait.
    fn outcome<T>(&self, polled: Poll<io::Result<T>>) -> io::Result<T> {
        match polled {
            Poll::Ready(outcome) => {
                self.has_moved.set(self.has_moved.get() || outcome.is_ok());
                outcome
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Woken for SimSockets {
    fn bell(&self) -> &Rc<Bell> {
        &self.bell
    }

    fn take_progress(&mut self) -> bool {
        self.has_moved.take()
    }
}

impl Sockets for SimSockets {
    type Stream = SimStream;

    fn begin_connecting(&mut self, address: SocketAddr) -> io::Result<SimStream> {
        let env = self.env.clone();
        let options = TcpOptions { connect_timeout: CONNECT_TIMEOUT, ..TcpOptions::default() };
        let connecting = async move { env.connect(address, &options).await };
        // It is polled in the next turn.
        self.has_moved.set(true);
        Ok(SimStream::Connecting(Box::pin(connecting)))
    }

    fn is_made(&mut self, stream: &mut SimStream) -> io::Result<bool> {
        let SimStream::Connecting(connecting) = stream else {
            return Ok(matches!(stream, SimStream::Up(_)));
        };
        let waker = self.bell.waker();
        match connecting.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(made) => {
                self.has_moved.set(true);
                *stream = SimStream::Failed;
                *stream = SimStream::Up(made.map_err(io::Error::other)?);
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    fn accept(&mut self) -> io::Result<SimStream> {
        let waker = self.bell.waker();
        let Some(listener) = &mut self.listener else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let accepted = listener.poll_accept(&mut Context::from_waker(&waker));
        let has_failed = matches!(accepted, Poll::Ready(Err(_)));
        twinspan_core::sometimes!(has_failed, "accepting failed for a while");
        self.outcome(accepted.map_ok(SimStream::Up).map_err(io::Error::other))
    }

    fn heed_listener(&mut self, _is_heeded: bool) {}

    fn watch(&mut self, place: usize, _stream: &SimStream, _heed: Heed) -> io::Result<()> {
        self.places = self.places.max(place + 1);
        Ok(())
    }

    fn heed(&mut self, _place: usize, _stream: &SimStream, _heed: Heed) -> io::Result<()> {
        Ok(())
    }

    fn ready(&mut self, ready: &mut Vec<Ready>) {
        ready.push(Ready::Listener);
        ready.extend((0..self.places).map(Ready::Stream));
    }

    fn read(&mut self, stream: &mut SimStream, space: &mut [u8]) -> io::Result<usize> {
        let SimStream::Up(stream) = stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let waker = self.bell.waker();
        let mut buffer = ReadBuf::new(space);
        let read = Pin::new(stream).poll_read(&mut Context::from_waker(&waker), &mut buffer);
        let count = buffer.filled().len();
        self.outcome(read.map_ok(|()| count))
    }

    fn write(&mut self, stream: &mut SimStream, pieces: &[&[u8]; 3]) -> io::Result<usize> {
        let SimStream::Up(stream) = stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let waker = self.bell.waker();
        let piece = pieces.iter().find(|piece| !piece.is_empty()).copied().unwrap_or_default();
        let written = Pin::new(stream).poll_write(&mut Context::from_waker(&waker), piece);
        self.outcome(written)
    }

    fn shut(&mut self, stream: &mut SimStream) {
        let waker = self.bell.waker();
        if let SimStream::Up(stream) = stream {
            // Who is gone already hears nothing of it.
            let _ = Pin::new(stream).poll_shutdown(&mut Context::from_waker(&waker));
        }
    }

    fn close(&mut self) {
        self.listener = None;
    }
}
