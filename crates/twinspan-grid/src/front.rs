//! The grid's HTTP as a service on a node: the desk with a clock.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_http::{ServerRequest, ServerResponse, Service};
use twinspan_provider::{Env, Timer};

use crate::desk::{Answer, Desk, Waiting};
use crate::grid::Grid;

/// A grid and its desk, for all tasks of a node's thread.
pub(crate) struct Shared {
    pub(crate) grid: Rc<RefCell<Grid>>,
    pub(crate) desk: RefCell<Desk>,
}

impl Shared {
    /// Hands on what the grid has for event queues.
    pub(crate) fn collect(&self) {
        self.desk.borrow_mut().collect(&mut self.grid.borrow_mut());
    }
}

/// Answers requests over HTTP.
pub(crate) struct Front<E> {
    env: E,
    shared: Rc<Shared>,
    /// How long a poll waits for events.
    hold: Duration,
}

impl<E: Env> Front<E> {
    pub(crate) const fn new(env: E, shared: Rc<Shared>, hold: Duration) -> Self {
        Self { env, shared, hold }
    }

    /// Waits for events, for as long as a poll may.
    async fn wait(&self, waiting: Waiting) -> ServerResponse {
        let mut timer = self.env.timer();
        timer.set(Some(self.env.now().after(self.hold)));
        poll_fn(|cx| {
            let mut desk = self.shared.desk.borrow_mut();
            if let Some(response) = desk.poll_answer(waiting, cx.waker()) {
                return Poll::Ready(response);
            }
            timer.poll_expired(cx).map(|()| desk.poll_empty())
        })
        .await
    }
}

impl<E: Env> Service for Front<E> {
    /// # Cancel safety
    /// Dropping it, as when the connection breaks, takes no event from a queue that was not told.
    async fn call(self: Rc<Self>, request: ServerRequest) -> ServerResponse {
        let times = (self.env.now(), self.env.wall().unix_seconds());
        let answer = {
            let mut desk = self.shared.desk.borrow_mut();
            desk.request(&mut self.shared.grid.borrow_mut(), times, &request)
        };
        match answer {
            Answer::Now(response) => response,
            Answer::Later(waiting) => self.wait(waiting).await,
        }
    }
}
