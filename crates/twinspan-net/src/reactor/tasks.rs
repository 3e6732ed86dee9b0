//! The tasks of one reactor and the wakers that may travel to other threads.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::letters::{Flag, Letters};

/// A task's place and the generation that tells it from earlier users of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskKey {
    index: usize,
    generation: u64,
}

impl TaskKey {
    /// The future that `block_on` was given.
    pub(super) const MAIN: Self = Self { index: usize::MAX, generation: 0 };
}

/// Tasks to be polled, first in, first out.
type ReadyQueue = Rc<RefCell<VecDeque<TaskKey>>>;

thread_local! {
    /// The reactor that runs on this thread now: wakes of its tasks need no lock.
    static RUNNING: RefCell<Option<(Arc<Mailbox>, ReadyQueue)>> = const { RefCell::new(None) };
}

/// Where wakes from other threads arrive.
pub(super) struct Mailbox {
    letters: Letters<TaskKey>,
    /// Written once per emptying of the letters; the reactor's epoll set has it, edge-triggered.
    bell: OwnedFd,
}

impl Mailbox {
    fn put(&self, key: TaskKey) {
        if self.letters.put(key) {
            // Nothing can be done about a failure, and none can occur: an eventfd refuses a write
            // only when its 64-bit counter would overflow.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}

/// What a waker of one task points to.
struct TaskSignal {
    key: TaskKey,
    /// Raised while the key is in a queue, so that it is there once.
    woken: Flag,
    mailbox: Arc<Mailbox>,
}

impl TaskSignal {
    fn send(&self) {
        if !self.woken.raise() {
            return;
        }
        // The thread-local is gone while a thread ends: then the mailbox takes it.
        let local = RUNNING.try_with(|running| match &*running.borrow() {
            Some((mailbox, ready)) if Arc::ptr_eq(mailbox, &self.mailbox) => {
                ready.borrow_mut().push_back(self.key);
                true
            }
            _ => false,
        });
        if local != Ok(true) {
            self.mailbox.put(self.key);
        }
    }
}

impl Wake for TaskSignal {
    fn wake(self: Arc<Self>) {
        self.send();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.send();
    }
}

/// A future with its waker, made once per task.
struct Job {
    future: Pin<Box<dyn Future<Output = ()>>>,
    signal: Arc<TaskSignal>,
    waker: Waker,
}

enum State {
    Free,
    Waiting(Box<Job>),
    /// Its job is on the stack of `run`.
    Polled,
    /// Cancelled while polled; `run` drops the job.
    Cancelled,
}

struct Slot {
    generation: u64,
    /// For the eyes of who debugs.
    name: &'static str,
    state: State,
}

/// All tasks of a reactor.
pub(super) struct Tasks {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    generations: Cell<u64>,
    ready: ReadyQueue,
    mailbox: Arc<Mailbox>,
    /// The mailbox's letters, taken out while they are read, to keep both allocations.
    taken: RefCell<Vec<TaskKey>>,
}

impl Tasks {
    pub(super) fn new(bell: OwnedFd) -> Self {
        let mailbox = Arc::new(Mailbox { letters: Letters::new(), bell });
        Self {
            slots: RefCell::default(),
            free: RefCell::default(),
            generations: Cell::new(0),
            ready: ReadyQueue::default(),
            mailbox,
            taken: RefCell::default(),
        }
    }

    /// What is readable when another thread woke a task.
    pub(super) fn bell(&self) -> &OwnedFd {
        &self.mailbox.bell
    }

    /// Adds a task that is ready to run.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + 'static,
    ) -> TaskKey {
        let generation = self.generations.get() + 1;
        self.generations.set(generation);
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or(slots.len());
        let key = TaskKey { index, generation };
        let signal = self.signal(key);
        let waker = Waker::from(Arc::clone(&signal));
        let job = Box::new(Job { future: Box::pin(future), signal, waker });
        let slot = Slot { generation, name, state: State::Waiting(job) };
        match slots.get_mut(index) {
            Some(free) => *free = slot,
            None => slots.push(slot),
        }
        self.ready.borrow_mut().push_back(key);
        key
    }

    /// A signal for a task whose first turn is already queued.
    fn signal(&self, key: TaskKey) -> Arc<TaskSignal> {
        let mailbox = Arc::clone(&self.mailbox);
        Arc::new(TaskSignal { key, woken: Flag::raised(), mailbox })
    }

    /// Queues the main future's first turn and returns what marks its turns and its waker.
    pub(super) fn main(&self) -> MainSignal {
        let signal = self.signal(TaskKey::MAIN);
        self.ready.borrow_mut().push_back(TaskKey::MAIN);
        MainSignal { waker: Waker::from(Arc::clone(&signal)), signal }
    }

    /// Tasks that are ready now.
    pub(super) fn ready_len(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Takes the first of the ready tasks.
    pub(super) fn next_ready(&self) -> Option<TaskKey> {
        self.ready.borrow_mut().pop_front()
    }

    /// Polls a task once; one that has ended or was cancelled is passed over.
    pub(super) fn run(&self, key: TaskKey) {
        let Some(mut job) = self.begin(key) else { return };
        job.signal.woken.lower();
        let outcome = job.future.as_mut().poll(&mut Context::from_waker(&job.waker));
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key.index) else { return };
        if outcome.is_pending() && matches!(slot.state, State::Polled) {
            slot.state = State::Waiting(job);
            return;
        }
        slot.state = State::Free;
        self.free.borrow_mut().push(key.index);
        // What the future owned may cancel or wake other tasks when dropped.
        drop(slots);
        drop(job);
    }

    fn begin(&self, key: TaskKey) -> Option<Box<Job>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key.index).filter(|slot| slot.generation == key.generation)?;
        if !matches!(slot.state, State::Waiting(_)) {
            return None;
        }
        match std::mem::replace(&mut slot.state, State::Polled) {
            State::Waiting(job) => Some(job),
            _ => None,
        }
    }

    /// Ends a task, wherever it stands; ended ones are left alone.
    pub(super) fn cancel(&self, key: TaskKey) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key.index).filter(|slot| slot.generation == key.generation);
        let Some(slot) = slot else { return };
        let state = match slot.state {
            State::Waiting(_) => std::mem::replace(&mut slot.state, State::Free),
            State::Polled => std::mem::replace(&mut slot.state, State::Cancelled),
            State::Free | State::Cancelled => return,
        };
        let State::Waiting(job) = state else { return };
        self.free.borrow_mut().push(key.index);
        // What the future owned may cancel or wake other tasks when dropped.
        drop(slots);
        drop(job);
    }

    /// Queues the tasks that other threads woke.
    pub(super) fn read_mailbox(&self) {
        let mut taken = self.taken.borrow_mut();
        self.mailbox.letters.take(&mut taken);
        self.ready.borrow_mut().extend(taken.drain(..));
    }

    /// Makes this the reactor of the calling thread until the guard is dropped.
    pub(super) fn enter(&self) -> Entered {
        let here = Some((Arc::clone(&self.mailbox), Rc::clone(&self.ready)));
        Entered { before: RUNNING.with(|running| running.replace(here)) }
    }

    /// The names of the tasks that have not ended.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let slots = self.slots.borrow();
        let living = slots.iter().filter(|slot| !matches!(slot.state, State::Free));
        living.map(|slot| slot.name).collect()
    }
}

/// Marks the turns of the main future.
pub(super) struct MainSignal {
    signal: Arc<TaskSignal>,
    waker: Waker,
}

impl MainSignal {
    /// Polls the main future once.
    pub(super) fn poll<F: Future>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        self.signal.woken.lower();
        future.poll(&mut Context::from_waker(&self.waker))
    }
}

/// Gives the thread back to the reactor that ran on it before, if any.
pub(super) struct Entered {
    before: Option<(Arc<Mailbox>, ReadyQueue)>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        // At the end of a thread there is nothing left to give back to.
        let _ = RUNNING.try_with(|running| running.replace(before));
    }
}
