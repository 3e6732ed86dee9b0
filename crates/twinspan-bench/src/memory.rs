//! What the program's allocator did, as far as the program has one that counts.
//!
//! A library cannot choose the allocator. A program that wants `allocations_in_steady_state` and
//! bytes per connection installs one that calls [`note_taken`] and [`note_given`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters that any thread raises; each stands alone, so relaxed order is enough.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES_TAKEN: AtomicU64 = AtomicU64::new(0);
static BYTES_GIVEN: AtomicU64 = AtomicU64::new(0);
static COUNTS: AtomicBool = AtomicBool::new(false);

/// Begins to count. Until then nothing is: most commands have no use for it.
pub fn begin() {
    COUNTS.store(true, Ordering::Relaxed);
}

/// Memory of `bytes` was taken from the allocator.
#[inline]
pub fn note_taken(bytes: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES_TAKEN.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Memory of `bytes` was given back to the allocator.
#[inline]
pub fn note_given(bytes: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        BYTES_GIVEN.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What was counted up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Times that memory was taken.
    pub allocations: u64,
    /// Bytes that are out: negative when what was taken before [`begin`] was given back.
    pub live_bytes: i64,
}

impl Memory {
    /// What was counted so far; `None` where nobody counts.
    pub fn now() -> Option<Self> {
        let allocations = ALLOCATIONS.load(Ordering::Relaxed);
        let (taken, given) =
            (BYTES_TAKEN.load(Ordering::Relaxed), BYTES_GIVEN.load(Ordering::Relaxed));
        // A process that counts has allocated before it asks.
        (allocations > 0)
            .then_some(Self { allocations, live_bytes: taken.wrapping_sub(given).cast_signed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_is_what_was_taken_less_what_was_given_back() {
        note_taken(5);
        assert_eq!(Memory::now(), None, "nothing is counted before the beginning");
        begin();
        note_taken(100);
        note_taken(20);
        note_given(30);
        let seen = Memory::now().unwrap();
        assert_eq!(seen, Memory { allocations: 2, live_bytes: 90 });
    }
}
