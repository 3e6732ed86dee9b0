//! An allocator that counts the calls of each thread, for tests of steady states here and elsewhere.
//!
//! The trait of allocators asks for `unsafe`; the libraries that forbid it keep to that.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// How often this thread asked for memory.
pub(crate) fn calls() -> u64 {
    CALLS.with(Cell::get)
}

/// Bytes that this thread asked for and has not given back.
#[allow(dead_code, reason = "not every test that shares this file asks")]
pub(crate) fn held_bytes() -> i64 {
    HELD.with(Cell::get)
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(calls: u64, bytes: i64) {
    // A thread that is ending has no counter any more and is no test.
    let _ended = CALLS.try_with(|counted| counted.set(counted.get() + calls));
    let _ended = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every method hands its arguments unchanged to the system's allocator, which keeps the
// contract; counting allocates nothing, for the counter is a constant-initialised plain cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: `at` came from `alloc` above, so from the system, with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as for `dealloc`; the caller's promises about `size` are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}
