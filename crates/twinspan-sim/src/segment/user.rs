//! What the user of an end by segments asks for: connect, read, write, shut, go.

use std::io;
use std::task::{Context, Poll};

use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;
use twinspan_provider::ReadBuf;

use super::connection::Phase;
use crate::slab::Key;
use crate::streams::stopped;
use crate::timer::keep_waker;
use crate::trace::TraceKind;
use crate::world::State;

impl State {
    /// Whether a connection was made.
    pub(crate) fn poll_segments_connected(
        &mut self,
        key: Key,
        cx: &Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        let Some(conn) = self.segments.conns.get_mut(key) else {
            return Poll::Ready(Err(stopped()));
        };
        if let Some(kind) = conn.machine.take_error() {
            return Poll::Ready(Err(kind.into()));
        }
        if !matches!(conn.machine.phase(), Phase::SynSent | Phase::SynReceived) {
            return Poll::Ready(Ok(()));
        }
        keep_waker(&mut conn.writer.waker, cx);
        conn.writer.is_armed = true;
        Poll::Pending
    }

    /// Reads what has come.
    pub(crate) fn read_segments(
        &mut self,
        now: Timestamp,
        key: Key,
        cx: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(conn) = self.segments.conns.get_mut(key) else {
            return Poll::Ready(Err(stopped()));
        };
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let there = conn.machine.ready().min(buffer.remaining());
        if there == 0 {
            if conn.machine.peer_has_ended() {
                return Poll::Ready(Ok(()));
            }
            if let Some(kind) = conn.machine.take_error() {
                return Poll::Ready(Err(kind.into()));
            }
            if conn.machine.phase() == Phase::Closed {
                return Poll::Ready(Ok(()));
            }
            keep_waker(&mut conn.reader.waker, cx);
            conn.reader.is_armed = true;
            return Poll::Pending;
        }
        let len = conn.short(there, FaultKind::ShortRead, self.config.short_stream);
        let (calls, way) = (conn.calls, conn.way());
        if len < there {
            self.faults.inject(FaultKind::ShortRead);
            self.faults.observe(FaultKind::ShortRead);
        }
        let len = if self.chaos.is_on {
            self.shorten(FaultKind::ShortRead, way, (calls, len))
        } else {
            len
        };
        let Some(conn) = self.segments.conns.get_mut(key) else {
            return Poll::Ready(Err(stopped()));
        };
        let room = buffer.initialize_unfilled_to(len);
        let read = conn.machine.read(now, room);
        buffer.advance(read);
        self.trace.record(now, TraceKind::StreamRead, [conn.key, read as u64, 0, 0]);
        self.flush(now, key);
        Poll::Ready(Ok(()))
    }

    /// Takes bytes to be sent.
    pub(crate) fn write_segments(
        &mut self,
        now: Timestamp,
        key: Key,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(conn) = self.segments.conns.get_mut(key) else {
            return Poll::Ready(Err(stopped()));
        };
        if let Some(kind) = conn.machine.take_error() {
            return Poll::Ready(Err(kind.into()));
        }
        if conn.machine.phase() == Phase::Closed || conn.machine.is_shut() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = conn.machine.room().min(bytes.len());
        if room == 0 {
            keep_waker(&mut conn.writer.waker, cx);
            conn.writer.is_armed = true;
            return Poll::Pending;
        }
        let len = conn.short(room, FaultKind::ShortWrite, self.config.short_stream);
        let (calls, way) = (conn.calls, conn.way());
        if len < room {
            self.faults.inject(FaultKind::ShortWrite);
            self.faults.observe(FaultKind::ShortWrite);
        }
        let len = if self.chaos.is_on {
            self.shorten(FaultKind::ShortWrite, way, (calls, len))
        } else {
            len
        };
        let Some(conn) = self.segments.conns.get_mut(key) else {
            return Poll::Ready(Err(stopped()));
        };
        conn.machine.write(bytes.get(..len).unwrap_or_default());
        self.trace.record(now, TraceKind::StreamWrite, [conn.key, len as u64, 0, 0]);
        self.flush(now, key);
        Poll::Ready(Ok(len))
    }

    /// Ends the way out.
    pub(crate) fn shut_segments(&mut self, now: Timestamp, key: Key) -> io::Result<()> {
        let Some(conn) = self.segments.conns.get_mut(key) else { return Err(stopped()) };
        if conn.machine.shut() {
            self.trace.record(now, TraceKind::StreamShut, [conn.key, 0, 0, 0]);
            self.flush(now, key);
        }
        Ok(())
    }

    pub(crate) fn set_segments_nodelay(
        &mut self,
        now: Timestamp,
        key: Key,
        nodelay: bool,
    ) -> io::Result<()> {
        let Some(conn) = self.segments.conns.get_mut(key) else { return Err(stopped()) };
        conn.machine.set_nodelay(nodelay);
        self.flush(now, key);
        Ok(())
    }

    /// The user lets go of an end: what was written is still delivered, unless bytes that came were
    /// not read.
    pub(crate) fn close_segments(&mut self, now: Timestamp, key: Key) {
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        self.trace.record(now, TraceKind::StreamClosed, [conn.key, 0, 0, 0]);
        conn.is_held = false;
        if conn.machine.is_open() && conn.machine.ready() == 0 {
            conn.machine.abandon(now);
        } else {
            conn.machine.abort();
        }
        self.flush(now, key);
    }

    /// Ends a connection at once, with a reset.
    pub(crate) fn abort_segments(&mut self, now: Timestamp, key: Key) {
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        conn.is_held = false;
        conn.machine.abort();
        self.flush(now, key);
    }
}
