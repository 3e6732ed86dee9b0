//! Threads for handlers, so that one that blocks holds back nobody else.
//!
//! A handler has a thread for as long as it runs, and none while it waits: those that wait for
//! something are bounded by their number alone, those that block by the number of threads.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use super::Job;

/// Handlers of one client that may run, or block, at the same time; further ones wait for a thread.
/// A handler that awaits something has none meanwhile, and does not count.
pub const HANDLERS_AT_ONCE_MAX: usize = 64;
/// How long handlers that block are waited for at the end.
const END_GRACE: Duration = Duration::from_millis(200);

/// Runs handlers on threads of their own, with tokio's clock and sockets at hand.
#[derive(Debug)]
pub(crate) struct HandlerPool {
    starter: JobStarter,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Ends what waits.
    ended: watch::Sender<bool>,
}

/// Begins jobs of a pool.
#[derive(Clone, Debug)]
pub(crate) struct JobStarter {
    handle: Handle,
    ended: watch::Receiver<bool>,
}

impl HandlerPool {
    /// A pool whose threads come and go with the work.
    ///
    /// # Errors
    /// What the operating system says when it gives no thread or no descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(HANDLERS_AT_ONCE_MAX)
            .thread_name("twinspan-handler")
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (ended, waits) = watch::channel(false);
        let thread =
            std::thread::Builder::new().name("twinspan-handlers".into()).spawn(move || {
                // Clocks and sockets of all handlers turn here. An error means that nobody is left.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_timeout(END_GRACE);
            })?;
        let starter = JobStarter { handle, ended: waits };
        Ok(Self { starter, stop: Some(stop), thread: Some(thread), ended })
    }

    pub(crate) fn starter(&self) -> JobStarter {
        self.starter.clone()
    }
}

impl JobStarter {
    /// Begins a job on a thread of its own.
    pub(crate) fn start(&self, job: Job) {
        let (work, mut ended) = (job.work, self.ended.clone());
        let work = Box::pin(async move {
            tokio::select! {
                () = work => {}
                // Also when the pool is gone.
                _ = ended.wait_for(|ended| *ended) => {}
            }
        });
        let state = Mutex::new(State::Idle(work));
        Arc::new(Task { handle: self.handle.clone(), state }).wake();
    }
}

/// What a job has left to do.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a job is.
enum State {
    /// It waits for something, without a thread.
    Idle(Work),
    /// It waits for a thread.
    Ready(Work),
    /// It has a thread. Whether it was woken meanwhile.
    Runs { again: bool },
    /// It is through.
    Over,
}

/// A job that runs whenever it is woken, each time on some thread of the pool.
struct Task {
    handle: Handle,
    state: Mutex<State>,
}

impl Task {
    /// Held for a change of state alone: no user's code runs under it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_for_thread(self: Arc<Self>) {
        let handle = self.handle.clone();
        let turn = Turn(Some(self));
        // Its end is of no interest: a handler's panic is caught within.
        drop(handle.spawn_blocking(move || turn.take()));
    }

    fn run(self: Arc<Self>) {
        let mut state = self.state();
        let mut work = match std::mem::replace(&mut *state, State::Runs { again: false }) {
            State::Ready(work) => work,
            other => {
                *state = other;
                return;
            }
        };
        drop(state);
        let waker = Waker::from(Arc::clone(&self));
        let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            // It goes without the lock: it is the user's.
            drop(work);
            *self.state() = State::Over;
            return;
        }
        let mut state = self.state();
        let woken = matches!(*state, State::Runs { again: true });
        *state = if woken { State::Ready(work) } else { State::Idle(work) };
        drop(state);
        if woken {
            // Behind those that wait for a thread already.
            self.ask_for_thread();
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Over) {
            State::Idle(work) => {
                *state = State::Ready(work);
                drop(state);
                self.ask_for_thread();
            }
            State::Runs { .. } => *state = State::Runs { again: true },
            other => *state = other,
        }
    }
}

/// A job's turn on a thread. One that never comes, for the pool is gone, ends the job: what it has
/// is dropped, and wakes nobody any more.
struct Turn(Option<Arc<Task>>);

impl Turn {
    fn take(mut self) {
        if let Some(task) = self.0.take() {
            task.run();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            let left = std::mem::replace(&mut *task.state(), State::Over);
            // Without the lock: it is the user's.
            drop(left);
        }
    }
}

impl Drop for HandlerPool {
    fn drop(&mut self) {
        self.ended.send_replace(true);
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // It panics in no case; if it did, the end is as good.
            let _ = thread.join();
        }
    }
}
