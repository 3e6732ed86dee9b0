//! Connections that wait for a request, and requests that wait for a connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use twinspan_core::time::Timestamp;
use twinspan_provider::{Env, Timer};

use crate::error::HttpError;
use crate::link::Link;
use crate::target::Target;
use crate::transport::Transport;

/// What a connection can be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Any plain request, which the proxy is handed.
    Proxy,
    /// Requests to one server.
    Server { is_secure: bool, target: Target },
}

/// What the pool keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) idle_per_host_max: usize,
    pub(super) connections_max: usize,
    pub(super) requests_waiting_max: usize,
}

/// A connection, and its place among all.
pub(super) struct Pooled<E: Env> {
    pub(super) link: Link<Transport<E>>,
    pub(super) _place: Place<E>,
}

/// A place among the connections; it is free again when this is dropped.
pub(super) struct Place<E: Env> {
    pool: Weak<Pool<E>>,
}

impl<E: Env> Drop for Place<E> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let waker = {
                let mut state = pool.state.borrow_mut();
                state.open -= 1;
                state.first_waker()
            };
            waker.inspect(Waker::wake_by_ref);
        }
    }
}

/// What a request is given.
pub(super) enum Taken<E: Env> {
    /// A connection that had one before.
    Idle(Pooled<E>),
    /// A place for a new one.
    Place(Place<E>),
}

struct Idle<E: Env> {
    key: Key,
    pooled: Pooled<E>,
    until: Timestamp,
}

struct State<E: Env> {
    /// Without a request, the one that waits longest first.
    idle: VecDeque<Idle<E>>,
    /// Places that are taken.
    open: usize,
    /// Requests that wait, first come first served.
    waiting: VecDeque<(u64, Option<Waker>)>,
    tickets: u64,
    keeper: Option<Waker>,
}

impl<E: Env> State<E> {
    fn first_waker(&self) -> Option<Waker> {
        self.waiting.front().and_then(|(_, waker)| waker.clone())
    }
}

/// The connections of one client.
pub(super) struct Pool<E: Env> {
    state: RefCell<State<E>>,
    limits: Limits,
}

/// What the front of the queue gets.
enum Offer<E: Env> {
    Taken(Taken<E>),
    /// Another server's connection was closed to make room.
    Evicted(Idle<E>),
    Nothing,
}

impl<E: Env> Pool<E> {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            idle: VecDeque::new(),
            open: 0,
            waiting: VecDeque::new(),
            tickets: 0,
            keeper: None,
        };
        Self { state: RefCell::new(state), limits }
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.state.borrow().open
    }

    /// A connection for `key`, or a place for one; waits for either behind those who came before.
    pub(super) async fn take(
        pool: &Rc<Self>,
        key: &Key,
        may_be_used: bool,
    ) -> Result<Taken<E>, HttpError> {
        if pool.state.borrow().waiting.is_empty()
            && let Some(taken) = Self::try_take(pool, key, may_be_used)
        {
            return Ok(taken);
        }
        let ticket = pool.queue()?;
        poll_fn(|cx| {
            if !pool.is_first(&ticket, cx.waker()) {
                return Poll::Pending;
            }
            match Self::try_take(pool, key, may_be_used) {
                Some(taken) => Poll::Ready(Ok(taken)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// What there is for `key` now; closes another server's connection where that makes room.
    fn try_take(pool: &Rc<Self>, key: &Key, may_be_used: bool) -> Option<Taken<E>> {
        loop {
            match Self::offer(pool, key, may_be_used) {
                Offer::Taken(taken) => return Some(taken),
                // Dropping it frees its place.
                Offer::Evicted(idle) => drop(idle),
                Offer::Nothing => return None,
            }
        }
    }

    fn queue(self: &Rc<Self>) -> Result<Ticket<E>, HttpError> {
        let mut state = self.state.borrow_mut();
        if state.waiting.len() >= self.limits.requests_waiting_max {
            return Err(HttpError::Busy { limit: self.limits.requests_waiting_max });
        }
        let number = state.tickets;
        state.tickets += 1;
        state.waiting.push_back((number, None));
        Ok(Ticket { pool: Rc::clone(self), number })
    }

    /// Whether it is this one's turn; notes whom to wake.
    fn is_first(&self, ticket: &Ticket<E>, waker: &Waker) -> bool {
        let mut state = self.state.borrow_mut();
        let is_first = state.waiting.front().is_some_and(|(number, _)| *number == ticket.number);
        let place = state.waiting.iter_mut().find(|(number, _)| *number == ticket.number);
        if let Some((_, noted)) = place {
            *noted = Some(waker.clone());
        }
        is_first
    }

    fn offer(pool: &Rc<Self>, key: &Key, may_be_used: bool) -> Offer<E> {
        let mut state = pool.state.borrow_mut();
        if may_be_used {
            // The one used last is the one most likely to be there.
            let found = state.idle.iter().rposition(|idle| idle.key == *key);
            if let Some(idle) = found.and_then(|index| state.idle.remove(index)) {
                return Offer::Taken(Taken::Idle(idle.pooled));
            }
        }
        if state.open < pool.limits.connections_max {
            state.open += 1;
            return Offer::Taken(Taken::Place(Place { pool: Rc::downgrade(pool) }));
        }
        match state.idle.pop_front() {
            Some(idle) => Offer::Evicted(idle),
            None => Offer::Nothing,
        }
    }

    /// Keeps a connection for the next request, or closes it where there are enough.
    pub(super) fn put(&self, key: Key, pooled: Pooled<E>, until: Timestamp) {
        let limit = self.limits.idle_per_host_max;
        let (extra, wakers) = {
            let mut state = self.state.borrow_mut();
            let same = state.idle.iter().filter(|idle| idle.key == key).count();
            if same >= limit {
                (Some(pooled), [state.first_waker(), None])
            } else {
                state.idle.push_back(Idle { key, pooled, until });
                (None, [state.first_waker(), state.keeper.take()])
            }
        };
        drop(extra);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// A request's place in the queue; it leaves when this is dropped, and the next is woken.
struct Ticket<E: Env> {
    pool: Rc<Pool<E>>,
    number: u64,
}

impl<E: Env> Drop for Ticket<E> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.pool.state.borrow_mut();
            state.waiting.retain(|(number, _)| *number != self.number);
            state.first_waker()
        };
        waker.inspect(Waker::wake_by_ref);
    }
}

/// Closes connections whose servers closed them or that were not used for long; runs until it is
/// dropped.
pub(super) async fn keep<E: Env>(env: E, pool: Rc<Pool<E>>) {
    let mut timer = env.timer();
    poll_fn(|cx| {
        loop {
            let now = env.now();
            let (ended, next) = {
                let mut state = pool.state.borrow_mut();
                let mut ended = Vec::new();
                let mut index = 0;
                while let Some(idle) = state.idle.get_mut(index) {
                    if idle.until <= now || idle.pooled.link.poll_drive(cx).is_ready() {
                        ended.extend(state.idle.remove(index));
                    } else {
                        index += 1;
                    }
                }
                state.keeper = Some(cx.waker().clone());
                (ended, state.idle.iter().map(|idle| idle.until).min())
            };
            // Their places are free now; that borrows the pool.
            drop(ended);
            timer.set(next);
            if timer.poll_expired(cx).is_pending() {
                return Poll::<()>::Pending;
            }
        }
    })
    .await;
}
