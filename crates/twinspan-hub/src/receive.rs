//! Ways to receive: at once, waiting, for a time, as a task, one after the other.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use twinspan_net::lock;
use twinspan_net::shm::{Taken, deadline_in, ring};

use crate::error::RecvError;
use crate::hub::{Hub, Receiving};
use crate::payload::{DecodeError, Payload};

/// A value with what is known of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<T> {
    /// The value.
    pub value: T,
    /// A number that stands for its publisher, drawn when that joined.
    pub publisher: u64,
    /// Its number among the messages of that publisher, from 0.
    pub number: u64,
    /// Messages of that publisher that were missed between the one before and this one.
    pub lost: u64,
}

impl<T: Payload> Receiving<T> {
    fn message(&mut self, taken: Taken) -> Result<Message<T>, RecvError> {
        let value = T::decode(&mut self.inbox)?;
        let Taken { publisher, number, lost, .. } = taken;
        Ok(Message { value, publisher, number, lost })
    }

    #[inline]
    fn try_message(&mut self) -> Result<Option<Message<T>>, RecvError> {
        let taken = self.inlet.try_take(&mut self.inbox);
        taken.map(|taken| self.message(taken)).transpose()
    }

    /// Takes what is there, as long as there are places for it.
    fn try_fill(&mut self, values: &mut [T]) -> Result<usize, (usize, RecvError)> {
        let Self { inlet, inbox } = self;
        for (count, value) in values.iter_mut().enumerate() {
            if inlet.try_take(inbox).is_none() {
                return Ok(count);
            }
            T::decode_into(inbox, value).map_err(|error| (count, error.into()))?;
        }
        Ok(values.len())
    }
}

impl<T: Payload> Hub<T> {
    /// Receives a value of another process's, waiting for one. Values of one publisher come in order;
    /// publishers take turns.
    ///
    /// # Errors
    /// [`RecvError`] says why there is none.
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_message().map(|message| message.value)
    }

    /// The same with what is known of its way.
    ///
    /// # Errors
    /// [`RecvError`] says why there is none.
    pub fn recv_message(&self) -> Result<Message<T>, RecvError> {
        let mut side = lock(self.receiving().ok_or(RecvError::NoSubscriber)?);
        loop {
            let Receiving { inlet, inbox } = &mut *side;
            if let Some(taken) = inlet.take(inbox, None) {
                return side.message(taken);
            }
        }
    }

    /// Receives a value in place of another, whose memory is used again where that is possible.
    ///
    /// # Errors
    /// [`RecvError`] says why there is none.
    pub fn recv_into(&self, value: &mut T) -> Result<(), RecvError> {
        let mut side = lock(self.receiving().ok_or(RecvError::NoSubscriber)?);
        let Receiving { inlet, inbox } = &mut *side;
        while inlet.take(inbox, None).is_none() {}
        Ok(T::decode_into(inbox, value)?)
    }

    /// The same, waiting for so long; false when none came, and the value is as it was.
    ///
    /// # Errors
    /// [`RecvError`] says why a value that is there cannot be had.
    pub fn recv_into_timeout(&self, value: &mut T, timeout: Duration) -> Result<bool, RecvError> {
        let mut side = lock(self.receiving().ok_or(RecvError::NoSubscriber)?);
        let Receiving { inlet, inbox } = &mut *side;
        if inlet.take(inbox, deadline_in(timeout)).is_none() {
            return Ok(false);
        }
        T::decode_into(inbox, value)?;
        Ok(true)
    }

    /// Receives as many values as there are, and as many as `values` has places for, waiting for the
    /// first one alone. Their memory is used again where that is possible; those behind the number that
    /// comes back are as they were. Many at once cost less than one at a time.
    ///
    /// # Errors
    /// How many were received, and [`RecvError`] for the one after them.
    pub fn recv_all(&self, values: &mut [T]) -> Result<usize, (usize, RecvError)> {
        let side = self.receiving().ok_or((0, RecvError::NoSubscriber))?;
        let Some((first, rest)) = values.split_first_mut() else { return Ok(0) };
        let mut side = lock(side);
        let Receiving { inlet, inbox } = &mut *side;
        while inlet.take(inbox, None).is_none() {}
        T::decode_into(inbox, first).map_err(|error| (0, error.into()))?;
        side.try_fill(rest).map(|count| count + 1).map_err(|(count, error)| (count + 1, error))
    }

    /// The same without waiting: 0 when there is no value, and while another thread is receiving.
    ///
    /// # Errors
    /// How many were received, and [`RecvError`] for the one after them.
    pub fn try_recv_all(&self, values: &mut [T]) -> Result<usize, (usize, RecvError)> {
        let side = self.receiving().ok_or((0, RecvError::NoSubscriber))?;
        match side.try_lock() {
            Ok(mut side) => side.try_fill(values),
            Err(std::sync::TryLockError::Poisoned(side)) => side.into_inner().try_fill(values),
            Err(std::sync::TryLockError::WouldBlock) => Ok(0),
        }
    }

    /// Receives a value if there is one; `None` too while another thread is receiving.
    ///
    /// # Errors
    /// [`RecvError`] says why a value that is there cannot be had.
    #[inline]
    pub fn try_recv(&self) -> Result<Option<T>, RecvError> {
        Ok(self.try_recv_message()?.map(|message| message.value))
    }

    /// The same with what is known of its way.
    ///
    /// # Errors
    /// [`RecvError`] says why a value that is there cannot be had.
    #[inline]
    pub fn try_recv_message(&self) -> Result<Option<Message<T>>, RecvError> {
        let side = self.receiving().ok_or(RecvError::NoSubscriber)?;
        // A thread that panicked while it received left nothing half done.
        match side.try_lock() {
            Ok(mut side) => side.try_message(),
            Err(std::sync::TryLockError::Poisoned(side)) => side.into_inner().try_message(),
            Err(std::sync::TryLockError::WouldBlock) => Ok(None),
        }
    }

    /// Receives a value if there is one, for an epoll of one's own: else the hub's
    /// [`fd`](Self::fd) becomes readable with the next, and the error is
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), as runtimes want it. Any number of tasks may wait so,
    /// and one that is dropped has taken nothing; while a thread waits in `recv` the descriptor is
    /// readable. Such a thread may take what wakes a task that began to wait before, but on UDP.
    ///
    /// On UDP the task moves the road on by itself so, with one wake-up where
    /// [`recv_async`](Self::recv_async) takes two:
    ///
    /// ```
    /// use tokio::io::Interest;
    /// use tokio::io::unix::AsyncFd;
    /// use twinspan_hub::Hub;
    ///
    /// async fn next(hub: &Hub<u64>) -> std::io::Result<u64> {
    ///     let fd = hub.fd().expect("it receives").try_clone_to_owned()?;
    ///     // SAFETY: the descriptor is its own and stays open. Once for many values.
    ///     let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
    ///     fd.async_io(Interest::READABLE, |_| hub.recv_nonblocking()).await
    /// }
    /// ```
    ///
    /// # Errors
    /// `WouldBlock` when there is none; any other carries a [`RecvError`].
    pub fn recv_nonblocking(&self) -> io::Result<T> {
        self.take_or_arm(T::decode)
    }

    /// The same in place of another value, whose memory is used again where that is possible; where there
    /// is an error it is as it was, or spoilt where that is a [`RecvError::Decode`].
    ///
    /// # Errors
    /// As of [`recv_nonblocking`](Self::recv_nonblocking).
    pub fn recv_into_nonblocking(&self, value: &mut T) -> io::Result<()> {
        self.take_or_arm(|inbox| T::decode_into(inbox, value))
    }

    fn take_or_arm<R>(
        &self,
        decode: impl FnOnce(&mut T::Inbox) -> Result<R, DecodeError>,
    ) -> io::Result<R> {
        let none = || io::Error::from(io::ErrorKind::WouldBlock);
        let side = self.receiving().ok_or(RecvError::NoSubscriber).map_err(io::Error::other)?;
        let mut side = match side.try_lock() {
            Ok(side) => side,
            Err(std::sync::TryLockError::Poisoned(side)) => side.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                // Another has it, and may leave something: look again.
                if let Some(bell) = &self.bell {
                    ring(bell);
                }
                return Err(none());
            }
        };
        let Receiving { inlet, inbox } = &mut *side;
        inlet.take_or_arm(inbox).ok_or_else(none)?;
        decode(inbox).map_err(|error| io::Error::other(RecvError::from(error)))
    }

    /// Receives a value, waiting for one for so long; `None` when none came.
    ///
    /// # Errors
    /// [`RecvError`] says why a value that is there cannot be had.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>, RecvError> {
        Ok(self.recv_timeout_message(timeout)?.map(|message| message.value))
    }

    /// The same with what is known of its way.
    ///
    /// # Errors
    /// [`RecvError`] says why a value that is there cannot be had.
    pub fn recv_timeout_message(&self, timeout: Duration) -> Result<Option<Message<T>>, RecvError> {
        let mut side = lock(self.receiving().ok_or(RecvError::NoSubscriber)?);
        let Receiving { inlet, inbox } = &mut *side;
        let taken = inlet.take(inbox, deadline_in(timeout));
        taken.map(|taken| side.message(taken)).transpose()
    }

    /// Receives a value as a task, on any runtime. A thread of the hub wakes it, which costs a second
    /// wake-up: for less latency wait in a thread, or see
    /// [`recv_nonblocking`](Self::recv_nonblocking). While a thread waits in `recv` the task is polled
    /// again and again.
    ///
    /// # Cancel safety
    /// A future that is dropped has taken nothing.
    pub const fn recv_async(&self) -> Recv<'_, T> {
        Recv { hub: self }
    }

    /// Values one after the other, waiting for each; it does not end.
    pub const fn iter(&self) -> Iter<'_, T> {
        Iter { hub: self }
    }

    /// Values one after the other for a task; it does not end.
    pub const fn stream(&self) -> Messages<'_, T> {
        Messages { hub: self }
    }

    /// Receives as a task in place of another value, whose memory is used again where that is
    /// possible; otherwise as [`recv_async`](Self::recv_async).
    ///
    /// # Cancel safety
    /// A future that is dropped has taken nothing.
    pub const fn recv_into_async<'a>(&'a self, value: &'a mut T) -> RecvInto<'a, T> {
        RecvInto { hub: self, value }
    }

    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        self.poll_side(cx, |side| Ok(side.try_message()?.map(|message| message.value)))
    }

    /// Ready with what `take` finds; else its task is woken by the next message.
    fn poll_side<R>(
        &self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Receiving<T>) -> Result<Option<R>, RecvError>,
    ) -> Poll<Result<R, RecvError>> {
        let Some(side) = self.receiving() else {
            return Poll::Ready(Err(RecvError::NoSubscriber));
        };
        let mut side = match side.try_lock() {
            Ok(side) => side,
            Err(std::sync::TryLockError::Poisoned(side)) => side.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        let mut found = take(&mut side)?;
        if found.is_none() {
            side.inlet.wake(cx.waker());
            // Once more: what came before the waker was left woke nobody.
            found = take(&mut side)?;
        }
        found.map_or(Poll::Pending, |found| Poll::Ready(Ok(found)))
    }
}

/// The future of [`Hub::recv_async`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct Recv<'a, T: Payload> {
    hub: &'a Hub<T>,
}

impl<T: Payload> Future for Recv<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.hub.poll_recv(cx)
    }
}

/// The future of [`Hub::recv_into_async`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct RecvInto<'a, T: Payload> {
    hub: &'a Hub<T>,
    value: &'a mut T,
}

impl<T: Payload> Future for RecvInto<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { hub, value } = self.get_mut();
        hub.poll_side(cx, |side| match side.try_fill(std::slice::from_mut(&mut **value)) {
            Ok(count) => Ok((count > 0).then_some(())),
            Err((_, error)) => Err(error),
        })
    }
}

/// The stream of [`Hub::stream`].
#[derive(Debug)]
#[must_use = "a stream does nothing until it is polled"]
pub struct Messages<'a, T: Payload> {
    hub: &'a Hub<T>,
}

impl<T: Payload> Stream for Messages<'_, T> {
    type Item = Result<T, RecvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.hub.poll_recv(cx).map(Some)
    }
}

/// The iterator of [`Hub::iter`].
#[derive(Debug)]
pub struct Iter<'a, T: Payload> {
    hub: &'a Hub<T>,
}

impl<T: Payload> Iterator for Iter<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.hub.recv())
    }
}

impl<'a, T: Payload> IntoIterator for &'a Hub<T> {
    type Item = Result<T, RecvError>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}
