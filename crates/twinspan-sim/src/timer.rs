//! Timers of virtual time, exact to the nanosecond.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use twinspan_core::time::Timestamp;
use twinspan_core::wheel::TimerHandle;
use twinspan_provider::Timer;

use crate::config::TIMERS_MAX;
use crate::slab::Key;
use crate::world::{Event, HostId, World};

/// What the world keeps of a timer.
pub(crate) struct TimerState {
    pub(crate) host: HostId,
    pub(crate) armed: Option<TimerHandle>,
    pub(crate) waker: Option<Waker>,
}

/// A timer of a simulated host.
pub struct SimTimer {
    world: Rc<World>,
    key: Key,
    at: Option<Timestamp>,
    /// Whether the world will wake for `at`.
    armed: bool,
}

impl SimTimer {
    pub(crate) fn new(world: &Rc<World>, host: HostId) -> Self {
        let mut state = world.state.borrow_mut();
        let timer = TimerState { host, armed: None, waker: None };
        let key = state.timers.insert_with(|_| timer);
        assert!(key.is_some(), "a simulation holds {TIMERS_MAX} timers at most; drop some first");
        Self { world: Rc::clone(world), key: key.unwrap_or(Key::NOWHERE), at: None, armed: false }
    }

    fn disarm(&mut self) {
        if !std::mem::take(&mut self.armed) {
            return;
        }
        let mut state = self.world.state.borrow_mut();
        let armed = state.timers.get_mut(self.key).and_then(|timer| timer.armed.take());
        if let Some(handle) = armed {
            state.wheel.cancel(handle);
        }
    }
}

impl Timer for SimTimer {
    fn set(&mut self, at: Option<Timestamp>) {
        if self.at != at {
            self.disarm();
            self.at = at;
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= self.world.now.get() {
            return Poll::Ready(());
        }
        if at == Timestamp::NEVER {
            return Poll::Pending;
        }
        let mut state = self.world.state.borrow_mut();
        let state = &mut *state;
        let Some(timer) = state.timers.get_mut(self.key) else { return Poll::Pending };
        keep_waker(&mut timer.waker, cx);
        if !self.armed {
            // The wheel has room for every timer that may exist.
            timer.armed = state.wheel.insert(at, Event::Timer(self.key)).ok();
            self.armed = timer.armed.is_some();
        }
        Poll::Pending
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.disarm();
        let removed = self.world.state.borrow_mut().timers.remove(self.key);
        // Its waker may hold the last of a task: dropped with the world free.
        drop(removed);
    }
}

impl std::fmt::Debug for SimTimer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimTimer").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Remembers whom to wake, without cloning when it is the same task again.
pub(crate) fn keep_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
