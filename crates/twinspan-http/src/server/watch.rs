//! Watches over one connection of a server: whose turn it is, and until when.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use twinspan_core::time::Timestamp;
use twinspan_provider::{AsyncRead, AsyncWrite, Env, ReadBuf};

use super::{ServerConfig, http_date};

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Waiting for a request.
    Idle,
    /// A head has begun.
    Head,
    /// A body comes.
    Body,
    /// The service is at work: no limit of ours.
    Service,
    /// A response goes out, and not all of it was handed over.
    Response,
    /// All of a response was handed over, and leaves.
    Leaving,
}

/// Whose turn it is on a connection, and until when.
pub(super) struct Watch<E> {
    env: E,
    head_timeout: Duration,
    body_timeout: Duration,
    response_timeout: Duration,
    idle_timeout: Duration,
    turn: Cell<Turn>,
    deadline: Cell<Option<Timestamp>>,
}

impl<E: Env> Watch<E> {
    /// For a connection that has just come: its first request may not be long in coming.
    pub(super) fn new(env: E, config: &ServerConfig) -> Self {
        let deadline = Cell::new(Some(env.now().after(config.head_timeout)));
        Self {
            env,
            head_timeout: config.head_timeout,
            body_timeout: config.body_timeout,
            response_timeout: config.response_timeout,
            idle_timeout: config.idle_timeout,
            turn: Cell::new(Turn::Idle),
            deadline,
        }
    }

    /// When the connection is cut off.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.deadline.get()
    }

    /// The node's date.
    pub(super) fn date(&self) -> Option<HeaderValue> {
        http_date(self.env.wall().unix_seconds())
    }

    fn begin(&self, turn: Turn, limit: Option<Duration>) {
        self.turn.set(turn);
        self.deadline.set(limit.map(|limit| self.env.now().after(limit)));
    }

    pub(super) fn body_begins(&self) {
        self.begin(Turn::Body, Some(self.body_timeout));
    }

    pub(super) fn service_begins(&self) {
        self.begin(Turn::Service, None);
    }

    pub(super) fn response_begins(&self) {
        self.begin(Turn::Response, Some(self.response_timeout));
    }

    pub(super) fn response_taken(&self) {
        if self.turn.get() == Turn::Response {
            // The deadline stays.
            self.turn.set(Turn::Leaving);
        }
    }

    fn bytes_came(&self) {
        if self.turn.get() == Turn::Idle {
            self.begin(Turn::Head, Some(self.head_timeout));
        }
    }

    fn all_left(&self) {
        if self.turn.get() == Turn::Leaving {
            self.begin(Turn::Idle, Some(self.idle_timeout));
        }
    }
}

/// A stream that tells its watch what comes and goes.
pub(super) struct Watched<S, E> {
    inner: S,
    watch: Rc<Watch<E>>,
}

impl<S, E> Watched<S, E> {
    pub(super) fn new(inner: S, watch: Rc<Watch<E>>) -> Self {
        Self { inner, watch }
    }
}

impl<S: AsyncRead + Unpin, E: Env> AsyncRead for Watched<S, E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.watch.bytes_came();
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin, E: Env> AsyncWrite for Watched<S, E> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    /// Called when nothing waits to be written any more.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        if let Poll::Ready(Ok(())) = outcome {
            self.watch.all_left();
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
