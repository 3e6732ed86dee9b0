//! Holds back a handler until those before it are done with a message.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Opens once and stays open.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    notify: Notify,
}

impl Gate {
    /// Opens it; true when that was needed.
    pub(crate) fn open(&self) -> bool {
        // Pairs with the Acquire of `is_open`; nothing else is told by it.
        let was = self.open.swap(true, Ordering::Release);
        self.notify.notify_waiters();
        !was
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until it is open.
    pub(crate) async fn opened(&self) {
        loop {
            let mut notified = pin!(self.notify.notified());
            // From here on no opening is missed.
            notified.as_mut().enable();
            if self.is_open() {
                return;
            }
            notified.await;
        }
    }
}

/// Opens a gate when it is dropped: whatever became of the message, it is done.
#[derive(Debug)]
pub(crate) struct Opener(pub(crate) Arc<Gate>);

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.open();
    }
}
