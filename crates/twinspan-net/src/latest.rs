//! A place for the newest value from one thread to another: what was not taken in time gives way.
//!
//! ```
//! use std::sync::Arc;
//! use twinspan_net::latest;
//!
//! let (sender, receiver) = latest();
//! assert_eq!(sender.put(Arc::new(1)), None);
//! assert_eq!(sender.put(Arc::new(2)).as_deref(), Some(&1), "nobody has taken it");
//! assert_eq!(receiver.take().as_deref(), Some(&2));
//! assert_eq!(receiver.take(), None);
//! ```

use std::fmt;
use std::sync::Arc;

use crossbeam_utils::atomic::AtomicCell;

/// An atomic pointer, not a lock.
type Place<T> = AtomicCell<Option<Arc<T>>>;

const _: () = assert!(Place::<u8>::is_lock_free());

/// A place that is empty. Neither end ever waits for the other, and nothing is allocated for a value
/// but what holds it: who reuses values finds out by [`Arc::get_mut`] which ones nobody has.
pub fn latest<T: Send + Sync>() -> (LatestSender<T>, LatestReceiver<T>) {
    let place = Arc::new(Place::new(None));
    (LatestSender { place: Arc::clone(&place) }, LatestReceiver { place })
}

/// The end that values are put in at.
pub struct LatestSender<T> {
    place: Arc<Place<T>>,
}

impl<T: Send + Sync> LatestSender<T> {
    /// Puts a value there; returns the one before if nobody has taken it.
    pub fn put(&self, value: Arc<T>) -> Option<Arc<T>> {
        self.place.swap(Some(value))
    }
}

impl<T> fmt::Debug for LatestSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatestSender").finish_non_exhaustive()
    }
}

/// The end that values are taken at.
pub struct LatestReceiver<T> {
    place: Arc<Place<T>>,
}

impl<T: Send + Sync> LatestReceiver<T> {
    /// Takes the newest value, unless it was taken before.
    pub fn take(&self) -> Option<Arc<T>> {
        self.place.swap(None)
    }
}

impl<T> fmt::Debug for LatestReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatestReceiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_last_value_arrives_and_none_goes_back_in_time() {
        const COUNT: u64 = 100_000;
        let (sender, receiver) = latest();
        let writer = thread::spawn(move || {
            // Both halves of a value are written before it is put there.
            let mut values: Vec<_> = (0..4).map(|_| Arc::new((0, 0))).collect();
            let mut written = 0;
            while written < COUNT {
                let Some(free) = values.iter_mut().find_map(|value| Arc::get_mut(value)) else {
                    continue;
                };
                written += 1;
                *free = (written, !written);
                let newest = values.iter().find(|value| value.0 == written);
                sender.put(Arc::clone(newest.expect("it was just written")));
            }
        });
        let mut seen = 0;
        while seen < COUNT {
            let Some(value) = receiver.take() else {
                thread::yield_now();
                continue;
            };
            assert_eq!(value.0, !value.1);
            assert!(value.0 > seen, "{} after {seen}", value.0);
            seen = value.0;
        }
        writer.join().unwrap();
        assert_eq!(receiver.take(), None);
    }
}
