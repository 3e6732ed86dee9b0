//! Tasks on one thread, run in an order drawn from the seed.

use std::any::Any;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use twinspan_core::link::FaultKind;
use twinspan_core::prefetch;
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;

use crate::chaos::Chaos;
use crate::config::{OnPanic, TASKS_MAX};
use crate::slab::{Key, Slab};
use crate::trace::TraceKind;
use crate::world::{HostId, State, World};

/// Polls between which time may stand still; more are tasks that wake one another for ever.
pub const POLLS_PER_MOMENT_MAX: u64 = 10_000_000;

/// All tasks, and which of them are ready.
pub(crate) struct Executor {
    pub(crate) tasks: Slab<Task>,
    /// Ready tasks by the priority drawn for this poll: which goes first is keyed by the task and
    /// its poll, so that one more task elsewhere does not reorder those two.
    ready: BinaryHeap<Reverse<(u64, Key)>>,
    /// What was woken since; swapped with the queue that wakers write to.
    woken: Vec<Key>,
}

pub(crate) struct Task {
    pub(crate) host: HostId,
    pub(crate) name: &'static str,
    /// `None` while it is being polled.
    body: Option<Body>,
    key: u64,
    polls: u64,
    /// What the meter knows it by.
    label: u64,
}

/// What is taken out of the table while it runs, so that the task may use the world.
pub(crate) struct Body {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
    shared: Arc<TaskWaker>,
    /// Told when the task has ended by itself.
    finished: Rc<Cell<bool>>,
}

/// Where wakers put the tasks that they wake. Wakers must be `Send`, hence the lock; it is never
/// contended, as all runs on one thread.
#[derive(Default)]
pub(crate) struct WakeQueue {
    keys: Mutex<Vec<Key>>,
}

impl WakeQueue {
    fn lock(&self) -> MutexGuard<'_, Vec<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWaker {
    queue: Arc<WakeQueue>,
    key: Key,
    queued: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The queue's lock orders everything; the flag only spares a second entry.
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.queue.lock().push(self.key);
        }
    }
}

impl Executor {
    pub(crate) fn new() -> Self {
        Self { tasks: Slab::new(TASKS_MAX), ready: BinaryHeap::new(), woken: Vec::new() }
    }

    /// The next task to poll, and its body.
    fn next(&mut self, queue: &WakeQueue, order: impl Fn(HostId) -> u64) -> Option<(Key, Body)> {
        std::mem::swap(&mut *queue.lock(), &mut self.woken);
        // Nearly always one is ready alone, and goes whatever its priority would be.
        if self.ready.is_empty()
            && let [key] = *self.woken.as_slice()
        {
            self.woken.clear();
            return self.take(key);
        }
        for key in self.woken.drain(..) {
            if let Some(task) = self.tasks.get(key) {
                let priority = draw(task.key, &[task.polls]) ^ order(task.host);
                self.ready.push(Reverse((priority, key)));
            }
        }
        while let Some(Reverse((_, key))) = self.ready.pop() {
            let taken = self.take(key);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// The body of a ready task, unless the task has ended or runs.
    fn take(&mut self, key: Key) -> Option<(Key, Body)> {
        let task = self.tasks.get_mut(key)?;
        let body = task.body.take()?;
        task.polls += 1;
        Some((key, body))
    }

    /// A task that was put off is ready again.
    pub(crate) fn wake(&mut self, key: Key) {
        if let Some(task) = self.tasks.get(key) {
            self.ready.push(Reverse((draw(task.key, &[task.polls]), key)));
        }
    }

    /// Gives a task back that was not polled after all.
    fn put_back(&mut self, key: Key, body: Body) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.body = Some(body);
        }
    }

    /// Wishes for what a task keeps between its turns.
    pub(crate) fn prefetch_body(&self, key: Key) {
        if let Some(body) = self.tasks.get(key).and_then(|task| task.body.as_ref()) {
            prefetch::value(&*body.future);
            prefetch::value(&*body.shared);
        }
    }

    /// Takes tasks out of the table; the caller drops them when the world is free.
    pub(crate) fn take_tasks(&mut self, wanted: impl Fn(&Task) -> bool) -> Vec<Task> {
        let keys = self.tasks.keys(wanted);
        keys.into_iter().filter_map(|key| self.tasks.remove(key)).collect()
    }
}

impl State {
    /// The next task to poll. A host's order may be another than usual.
    fn next_task(&mut self, now: Timestamp, queue: &WakeQueue) -> Option<(Key, Body)> {
        if !self.chaos.is_on {
            return self.executor.next(queue, |_| 0);
        }
        let (chaos, hosts): (&Chaos, _) = (&self.chaos, &self.hosts);
        let order = |host| hosts.get(host).map_or(0, |host| chaos.troubles.order(now, host.ip));
        let next = self.executor.next(queue, order)?;
        let host = self.executor.tasks.get(next.0).and_then(|task| self.hosts.get(task.host));
        // Where others are ready, its turn is what the fault made of it.
        if host.is_some_and(|host| self.chaos.troubles.order(now, host.ip) != 0)
            && !self.executor.ready.is_empty()
        {
            self.faults.observe(FaultKind::TaskOrder);
        }
        Some(next)
    }

    /// A task of a host was polled; on a slow one that takes time.
    fn task_polled(&mut self, now: Timestamp, host: HostId) {
        if let Some(ip) = self.hosts.get(host).map(|host| host.ip) {
            self.chaos.troubles.polled(now, ip);
        }
    }
}

impl World {
    /// Starts a task; one of a host that was stopped is dropped at once.
    pub(crate) fn spawn(
        self: &Rc<Self>,
        host: HostId,
        incarnation: u32,
        name: &'static str,
        future: Pin<Box<dyn Future<Output = ()>>>,
    ) -> SimTask {
        let finished = Rc::new(Cell::new(false));
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(owner) = state.hosts.running(host, incarnation) else {
            return SimTask { world: Rc::clone(self), key: Key::NOWHERE, finished };
        };
        owner.spawned += 1;
        let coordinates = [state.trace.words.hash(name), owner.spawned];
        let task_key = draw(owner.seed, &coordinates);
        let told = Rc::clone(&finished);
        let metered = state.metered.as_mut();
        let label = metered.map_or(0, |metered| metered.label(host, &owner.name, name));
        let key = state.executor.tasks.insert_with(|key| {
            let queue = Arc::clone(&self.wake_queue);
            let shared = Arc::new(TaskWaker { queue, key, queued: AtomicBool::new(false) });
            let waker = Waker::from(Arc::clone(&shared));
            let body = Some(Body { future, waker, shared, finished: told });
            Task { host, name, body, key: task_key, polls: 0, label }
        });
        assert!(key.is_some(), "a simulation holds {TASKS_MAX} tasks at most; end some first");
        let key = key.unwrap_or(Key::NOWHERE);
        if let Some(turn) = state.turn_mut(host) {
            turn.task = key;
        }
        let [name_hash, ordinal] = coordinates;
        let ids = [u64::from(host.0), name_hash, ordinal, u64::from(key.index)];
        state.trace.record(self.now.get(), TraceKind::Spawn, ids);
        if let Some(body) = state.executor.tasks.get(key).and_then(|task| task.body.as_ref()) {
            body.waker.wake_by_ref();
        }
        SimTask { world: Rc::clone(self), key, finished }
    }

    /// Polls ready tasks until none is.
    pub(crate) fn run_ready(self: &Rc<Self>) {
        let mut polls = 0_u64;
        while let Some((host, task)) = self.poll_one() {
            polls += 1;
            assert!(
                polls < POLLS_PER_MOMENT_MAX,
                "tasks wake one another for ever at {}: time cannot move on; the last was \"{task}\" \
                 of host \"{}\" (seed {})",
                self.now.get(),
                self.state.borrow().hosts.get(host).map_or("", |host| &host.name),
                self.config.seed,
            );
        }
    }

    /// Polls one ready task and names it; `None` when there is none.
    fn poll_one(self: &Rc<Self>) -> Option<(HostId, &'static str)> {
        let now = self.now.get();
        let mut state = self.state.borrow_mut();
        let (key, mut body) = state.next_task(now, &self.wake_queue)?;
        let named = state.executor.tasks.get(key).map(|task| (task.host, task.name))?;
        if state.chaos.is_on && state.put_off(now, key, named.0) {
            state.executor.put_back(key, body);
            return Some(named);
        }
        state.chaos.polled = Some(named.0);
        let ids = [u64::from(key.index), 0, 0, 0];
        state.trace.record(now, TraceKind::Poll, ids);
        if let Some(metered) = &state.metered
            && let Some(task) = state.executor.tasks.get(key)
        {
            metered.enter(task.label);
        }
        drop(state);
        body.shared.queued.store(false, Ordering::Relaxed);
        let poll = || body.future.as_mut().poll(&mut Context::from_waker(&body.waker));
        let outcome = catch_unwind(AssertUnwindSafe(poll));
        let mut state = self.state.borrow_mut();
        state.chaos.polled = None;
        if let Some(metered) = &state.metered {
            metered.leave();
        }
        if state.chaos.is_on {
            state.task_polled(now, named.0);
        }
        match outcome {
            Err(payload) => {
                drop(state);
                self.task_panicked((key, body), named, payload);
                return Some(named);
            }
            Ok(Poll::Pending) => {
                if let Some(task) = state.executor.tasks.get_mut(key) {
                    task.body = Some(body);
                    return Some(named);
                }
                // It was stopped while it ran: its body is dropped below.
            }
            Ok(Poll::Ready(())) => {
                body.finished.set(true);
                if state.executor.tasks.remove(key).is_some() {
                    state.trace.record(now, TraceKind::TaskEnd, ids);
                }
            }
        }
        // What the future holds may use the world while it is dropped.
        drop(state);
        drop(body);
        Some(named)
    }

    /// A panic is the crash of the task's host, or goes on with what the simulation knows of it.
    fn task_panicked(
        self: &Rc<Self>,
        (key, body): (Key, Body),
        named: (HostId, &'static str),
        payload: Box<dyn Any + Send>,
    ) {
        let now = self.now.get();
        let told = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let ids = [u64::from(key.index), u64::from(named.0.0), 0, 0];
            state.trace.record(now, TraceKind::Panic, ids);
            let told = state.note_panic(now, named, payload.as_ref());
            (state.executor.tasks.remove(key), told)
        };
        let (task, told) = told;
        drop((task, body));
        match (self.config.on_panic, told) {
            (OnPanic::CrashHost, Some(_)) => self.crash_for_panic(named.0),
            (_, Some(told)) => resume_unwind(Box::new(told.to_string())),
            (_, None) => resume_unwind(payload),
        }
    }

    fn abort(&self, key: Key) {
        let mut state = self.state.borrow_mut();
        let task = state.executor.tasks.remove(key);
        if task.is_some() {
            let ids = [u64::from(key.index), 0, 0, 0];
            state.trace.record(self.now.get(), TraceKind::Abort, ids);
        }
        // What the future holds may use the world while it is dropped.
        drop(state);
        drop(task);
    }
}

/// A task of a simulated host; dropping it stops the task.
#[must_use = "dropping it stops the task"]
pub struct SimTask {
    world: Rc<World>,
    key: Key,
    finished: Rc<Cell<bool>>,
}

impl SimTask {
    /// Whether the task has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }
}

impl Drop for SimTask {
    fn drop(&mut self) {
        self.world.abort(self.key);
    }
}

impl std::fmt::Debug for SimTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimTask").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
