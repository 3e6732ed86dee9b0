//! Work on threads of its own, and its way back to the reactor.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use twinspan_provider::{OFFLOADS_MAX, OffloadError};

/// Where the result of one piece of work is left, for who waits for it.
struct Place<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    result: Option<Result<T, OffloadError>>,
    waker: Option<Waker>,
}

impl<T> Place<T> {
    fn leave(&self, result: Result<T, OffloadError>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.result = Some(result);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<T, OffloadError>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                inner.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// The pieces of work that one reactor has under way.
pub(super) struct Offloads {
    /// One handle for each, and one here.
    under_way: Arc<()>,
    /// Numbers the threads for the eyes of who debugs.
    begun: Cell<u64>,
}

impl Offloads {
    pub(super) fn new() -> Self {
        Self { under_way: Arc::new(()), begun: Cell::new(0) }
    }

    /// Does `work` on a thread of its own: names and files are asked for seldom, so that threads are
    /// not kept for them.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OffloadError> {
        let token = Arc::clone(&self.under_way);
        // This one and the one at home count too.
        if Arc::strong_count(&token) > OFFLOADS_MAX + 1 {
            return Err(OffloadError::Full);
        }
        self.begun.set(self.begun.get() + 1);
        let place = Arc::new(Place { inner: Mutex::new(Inner { result: None, waker: None }) });
        let told = Arc::clone(&place);
        let begun = thread::Builder::new().name(format!("{name} {}", self.begun.get()));
        let begun = begun.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            // Before who waits is told, so that he finds room.
            drop(token);
            told.leave(result.map_err(|_| OffloadError::Panicked));
        });
        if begun.is_err() {
            return Err(OffloadError::NoThread);
        }
        poll_fn(|cx| place.poll(cx.waker())).await
    }
}
