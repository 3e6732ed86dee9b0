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

/// Lets the allocator keep the memory that it is given back, for the rest of this process.
///
/// To give memory back to the kernel it reads a clock now and then. Behind the fence that is a leak
/// like any other, and a simulation that frees and takes is quicker without it.
pub(crate) fn keep_memory() {
    // SAFETY: sets a number; the option is one that the allocator knows.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

/// The number of `mi_option_purge_delay` in the version of mimalloc that is built here: it stands
/// right before that of `use_numa_nodes`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;
