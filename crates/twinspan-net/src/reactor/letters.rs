//! How wakes cross threads: a flag that keeps a task in one queue once, and the letters that other
//! threads leave.

#[cfg(twinspan_loom)]
use loom::sync::{Mutex, atomic::AtomicBool};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
#[cfg(not(twinspan_loom))]
use std::sync::{Mutex, atomic::AtomicBool};

/// Whether a task is queued.
///
/// The release of the swap in [`raise`](Self::raise) publishes what the waker's thread did before;
/// the acquire of the swap in [`lower`](Self::lower), before each poll, reads it.
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn raised() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Raises the flag; false when it was raised already, and so the task is queued.
    pub(super) fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Lowers the flag, before the task is polled.
    pub(super) fn lower(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}

/// Keys left by other threads. Each key's flag keeps it here once, so the list is no longer than
/// there are tasks.
pub(super) struct Letters<K> {
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    keys: Vec<K>,
    rung: bool,
}

impl<K> Letters<K> {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner { keys: Vec::new(), rung: false }) }
    }

    /// Leaves a key; true when the bell must be rung, once per [`take`](Self::take).
    pub(super) fn put(&self, key: K) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.keys.push(key);
        !std::mem::replace(&mut inner.rung, true)
    }

    /// Takes all keys in exchange for the empty list `into`.
    pub(super) fn take(&self, into: &mut Vec<K>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(into, &mut inner.keys);
        inner.rung = false;
    }
}

#[cfg(all(test, twinspan_loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    struct Shared {
        flag: Flag,
        letters: Letters<u32>,
        /// Stands in for the eventfd, whose writes and reads the kernel makes one by one.
        bell: AtomicBool,
        done: AtomicUsize,
    }

    impl Shared {
        /// What a waker does on another thread, after its work.
        fn work_and_wake(&self) {
            self.done.fetch_add(1, Ordering::Relaxed);
            if self.flag.raise() && self.letters.put(7) {
                self.bell.swap(true, Ordering::AcqRel);
            }
        }

        /// One turn of the reactor: what the task saw, if it ran.
        fn turn(&self) -> Option<usize> {
            if !self.bell.swap(false, Ordering::AcqRel) {
                return None;
            }
            let mut keys = Vec::new();
            self.letters.take(&mut keys);
            assert!(keys.len() <= 1, "a task is queued once");
            keys.pop().map(|key| {
                assert_eq!(key, 7);
                self.flag.lower();
                self.done.load(Ordering::Relaxed)
            })
        }
    }

    /// Whatever the order, the task runs after the last wake and sees all that was done before it.
    #[test]
    fn no_wake_is_lost() {
        loom::model(|| {
            let shared = Arc::new(Shared {
                flag: Flag(AtomicBool::new(false)),
                letters: Letters::new(),
                bell: AtomicBool::new(false),
                done: AtomicUsize::new(0),
            });
            let wakers: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.work_and_wake())
                })
                .collect();
            let early = shared.turn();
            for waker in wakers {
                waker.join().unwrap();
            }
            let seen = shared.turn().or(early);
            assert_eq!(seen, Some(2), "the last run of the task saw both");
            assert_eq!(shared.turn(), None, "and it does not run for nothing");
        });
    }
}
