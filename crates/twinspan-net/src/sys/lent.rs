//! Memory that is lent to the kernel, and a ring's group of buffers that it receives into.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Zeroed memory that the kernel may write to, freed when dropped.
pub(super) struct Memory {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to this value alone, which reads and writes nothing by itself; who may
// use it follows from who has the value.
unsafe impl Send for Memory {}

impl Memory {
    pub(super) fn new(bytes: usize, align: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(bytes, align).map_err(io::Error::other)?;
        if bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the layout's size is not zero, as was just looked at.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) });
        Ok(Self { at: at.ok_or(io::ErrorKind::OutOfMemory)?, layout })
    }

    pub(super) const fn address(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `at` came from `alloc_zeroed` with this very layout and is freed only here.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}

/// A group of buffers of one length, and the ring of entries in which they are given to the kernel.
pub(super) struct Buffers {
    /// Entries that name free buffers, in whose first one is the tail.
    entries: Memory,
    memory: Memory,
    /// How many there are, a power of two as the kernel wants it.
    count: u16,
    /// Bytes of each, a multiple of 64.
    each: usize,
    /// Buffers given to the kernel so far, modulo 2^16.
    tail: u16,
}

impl Buffers {
    pub(super) fn new(count: u16, each: usize) -> io::Result<Self> {
        if !count.is_power_of_two() || !each.is_multiple_of(64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entries_bytes = usize::from(count) * mem::size_of::<BufRingEntry>();
        let entries = Memory::new(entries_bytes, rustix::param::page_size())?;
        let memory = Memory::new(usize::from(count) * each, 64)?;
        Ok(Self { entries, memory, count, each, tail: 0 })
    }

    /// Makes the group known to a ring, and gives it all buffers.
    ///
    /// # Safety
    /// This value lives until [`forget`](Self::forget) succeeded or the ring is gone, or for ever.
    pub(super) unsafe fn register(&mut self, ring: &IoUring, group: u16) -> io::Result<()> {
        let address = self.entries.address() as u64;
        // SAFETY: `address` is that of `count` zeroed entries on a page boundary, which the caller
        // keeps for as long as the kernel knows them.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(address, self.count, group, 0)?;
        }
        for buffer in 0..self.count {
            self.give(buffer);
        }
        Ok(())
    }

    /// Makes a ring forget the group. No request that uses it may be under way.
    pub(super) fn forget(ring: &IoUring, group: u16) -> io::Result<()> {
        ring.submitter().unregister_buf_ring(group)
    }

    pub(super) const fn has(&self, buffer: u16) -> bool {
        buffer < self.count
    }

    /// The bytes of a buffer; none of one that there is not.
    ///
    /// # Safety
    /// The kernel has handed the buffer back, and it was not given again since.
    pub(super) unsafe fn bytes(&self, buffer: u16) -> &[u8] {
        if !self.has(buffer) {
            return &[];
        }
        let at = self.memory.address().wrapping_add(usize::from(buffer) * self.each);
        // SAFETY: the buffer is below `count`, so these bytes lie within `memory`, which was zeroed;
        // the kernel does not write to it, as the caller promises, until `give` lends it again,
        // which needs `&mut self`.
        unsafe { slice::from_raw_parts(at, self.each) }
    }

    /// Lends a buffer to the kernel. Called once for each at the start, and then once for each
    /// completion that named it, so never for one that the kernel has.
    pub(super) fn give(&mut self, buffer: u16) {
        if !self.has(buffer) {
            return;
        }
        let base = self.entries.address().cast::<BufRingEntry>();
        let entry = base.wrapping_add(usize::from(self.tail & (self.count - 1)));
        let start = usize::from(buffer) * self.each;
        let address = self.memory.address().wrapping_add(start) as u64;
        // SAFETY: `entry` is one of the `count` entries at `base`, zeroed at first, so a value of
        // its type; at most `count` are lent at a time, so the kernel has read this one already. No
        // other reference to it exists.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(self.each as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the ring's first entry, initialised.
        let tail = unsafe { BufRingEntry::tail(base) }.cast_mut();
        // SAFETY: the tail lies in the first entry, aligned for a u16, lives as long as `entries`,
        // and is only ever written here, atomically, while the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail) };
        // Publishes the entry to the kernel, which reads the tail with acquire.
        tail.store(self.tail, Ordering::Release);
    }
}
