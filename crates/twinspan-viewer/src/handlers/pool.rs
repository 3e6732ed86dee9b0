//! Threads for handlers, so that one that blocks holds back nobody else.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use super::Job;

/// Handlers of one client that work at the same time; further ones wait for a thread.
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
        let (handle, mut ended) = (self.handle.clone(), self.ended.clone());
        let work = job.work;
        // Its end is of no interest: a handler's panic is caught within.
        drop(self.handle.spawn_blocking(move || {
            handle.block_on(async {
                tokio::select! {
                    () = work => {}
                    // Also when the pool is gone.
                    _ = ended.wait_for(|ended| *ended) => {}
                }
            });
        }));
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
