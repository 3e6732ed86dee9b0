//! The program's allocator, counted while a measurement asks for it.
//!
//! mimalloc, because it asks the kernel for huge pages: what a packet touches of its session lies in
//! as many places as there are sessions, and finding the pages cost a tenth of the server's time.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

use twinspan_bench::memory::{note_given, note_taken};

/// mimalloc, which tells what it does.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to that allocator with the arguments it came with, and its answer
// is passed on; the counters are atomics that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_taken(layout.size());
        // SAFETY: the caller keeps the promises of this very call.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_taken(layout.size());
        // SAFETY: the caller keeps the promises of this very call.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note_given(layout.size());
        // SAFETY: the caller keeps the promises of this very call.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note_given(layout.size());
        note_taken(size);
        // SAFETY: the caller keeps the promises of this very call.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}
