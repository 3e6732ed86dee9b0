//! A UDP socket that moves datagrams in batches, many per system call.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::{BindError, SocketReport, Timer, UdpError, UdpOptions, UdpSocket};

use crate::port::{Gave, Port, Took};
use crate::reactor::{Reactor, ReactorTimer, Source, Wants};

/// Passing errors that one receive call reads away before it lets others run.
const ERRORS_PER_CALL_MAX: usize = 16;
/// When to look again after the pool had no free buffer: nothing announces that one came back.
const POOL_RETRY: Duration = Duration::from_millis(1);
/// The longest that datagrams are let gather, whatever the options say.
const GATHER_MAX: Duration = Duration::from_millis(5);

/// A UDP socket on a reactor, with batched system calls.
///
/// Don't-fragment is set on its datagrams, forged path-MTU messages are ignored, and an IPv6 socket
/// takes IPv6 only. Polling it makes sense inside the reactor's `block_on` alone.
pub struct BatchUdp {
    port: Port,
    source: Rc<Source>,
    /// Where room to send is announced: `source` itself but for a socket whose datagrams come
    /// through another descriptor.
    room: Rc<Source>,
    reactor: Rc<Reactor>,
    /// Wakes the reader when the pool may have a buffer again, or when enough may have gathered.
    retry: ReactorTimer,
    gather: Duration,
    /// Until when the thread is not woken to receive, so that datagrams gather.
    hold_until: Timestamp,
    /// [`Reactor::sleeps`] when that was decided.
    held_in: u64,
}

impl BatchUdp {
    pub(crate) fn bind(
        reactor: Rc<Reactor>,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<Self, BindError> {
        let port = Port::bind(local, options)?;
        Self::wrap(reactor, port, options).map_err(|error| BindError::from_io(local, error))
    }

    /// Puts a prepared socket under the reactor.
    pub(crate) fn wrap(
        reactor: Rc<Reactor>,
        mut port: Port,
        options: &UdpOptions,
    ) -> io::Result<Self> {
        let source = reactor.add_source(port.wait_fd(), Wants::Datagrams)?;
        let room = if port.waits_apart() {
            match reactor.add_source(port.fd(), Wants::Room) {
                Ok(room) => room,
                Err(error) => {
                    reactor.remove_source(port.wait_fd(), &source);
                    return Err(error);
                }
            }
        } else {
            Rc::clone(&source)
        };
        let gather = options.gather.min(GATHER_MAX);
        port.report_mut().gather = gather;
        let retry = ReactorTimer::new(Rc::clone(&reactor));
        Ok(Self {
            port,
            source,
            room,
            reactor,
            retry,
            gather,
            hold_until: Timestamp::START,
            held_in: 0,
        })
    }

    /// One receive call for at most `room` datagrams.
    fn receive(&mut self, batch: &mut DatagramBatch, room: usize) -> Result<Took, UdpError> {
        let reactor = &*self.reactor;
        let calls = &mut *reactor.calls.borrow_mut();
        let took = self.port.receive(calls, batch, room, || reactor.now())?;
        if self.port.drained() {
            self.source.drained();
        }
        Ok(took)
    }

    /// Whether datagrams are still let gather; then `cx` is woken when they no longer are. What
    /// gathering saves is the waking: a thread that slept and is awake for any reason takes them.
    fn holds(&mut self, cx: &mut Context<'_>) -> bool {
        if self.gather.is_zero() || self.hold_until <= self.reactor.now() {
            return false;
        }
        if self.held_in != self.reactor.sleeps() {
            self.retry.set(None);
            return false;
        }
        self.retry.set(Some(self.hold_until));
        if self.retry.poll_expired(cx).is_ready() {
            return false;
        }
        self.reactor.hold(self.hold_until);
        true
    }
}

impl UdpSocket for BatchUdp {
    fn local_addr(&self) -> SocketAddr {
        self.port.local_addr()
    }

    fn pool(&self) -> &PacketPool {
        self.port.pool()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        // Datagrams that were cut count against this call too: a flood of them must not hold it.
        let mut left = batch.room();
        let mut errors_left = ERRORS_PER_CALL_MAX;
        if left == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.holds(cx) {
            return Poll::Pending;
        }
        // A quiet socket takes nothing from the task's share: a task may wait for any number.
        if self.source.readable() && !self.reactor.may_receive(cx) {
            return Poll::Pending;
        }
        while left > 0 && errors_left > 0 && self.source.readable() {
            match self.receive(batch, left)? {
                Took::Datagrams(count) => left -= count.min(left),
                Took::Trouble => errors_left -= 1,
                Took::Nothing => {}
                Took::NoBuffer => break,
            }
        }
        let count = batch.len() - before;
        if count > 0 {
            if !self.gather.is_zero() && !self.source.readable() {
                self.hold_until = self.reactor.now().after(self.gather);
                self.held_in = self.reactor.sleeps();
            }
            return Poll::Ready(Ok(count));
        }
        if !self.source.readable() {
            self.source.await_readable(cx.waker());
        } else if left == 0 || errors_left == 0 {
            cx.waker().wake_by_ref();
        } else {
            self.retry.set(Some(self.reactor.now().after(POOL_RETRY)));
            // Pending: the moment has just been set in the future. Were it not, the task is woken.
            if self.retry.poll_expired(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        if self.room.writable() && self.room.awaits_room() {
            self.reactor.send_unblocked(self.port.fd(), &self.room)?;
        }
        while !batch.is_empty() && self.room.writable() {
            let gave = self.port.send(&mut self.reactor.calls.borrow_mut(), batch)?;
            if gave == Gave::NoRoom {
                self.reactor.send_blocked(self.port.fd(), &self.room)?;
            }
        }
        let count = before - batch.len();
        if count > 0 || batch.is_empty() {
            return Poll::Ready(Ok(count));
        }
        self.room.await_writable(cx.waker());
        Poll::Pending
    }

    fn report(&self) -> SocketReport {
        self.port.report()
    }
}

impl Drop for BatchUdp {
    fn drop(&mut self) {
        self.reactor.remove_source(self.port.wait_fd(), &self.source);
        if self.port.waits_apart() {
            self.reactor.remove_source(self.port.fd(), &self.room);
        }
    }
}

impl fmt::Debug for BatchUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchUdp")
            .field("local", &self.port.local_addr())
            .field("report", &self.port.report())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
