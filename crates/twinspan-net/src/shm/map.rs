//! Memory that processes share: sealed memfds, mapped for writing by their owner and for reading by
//! others.
#![expect(unsafe_code, reason = "mappings are raw memory; all else goes through words and slices")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    fstatfs, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::line::Look;

/// The most that one segment takes.
pub const SEGMENT_BYTES_MAX: usize = 1 << 30;
/// What a segment's owner seals: it neither shrinks under who reads it (which would end the reader
/// by a signal) nor grows, nobody else can map it for writing, and no part of it is given back.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);
/// `f_type` of memory files; a file of another system may end its reader by a signal.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Why another process's segment cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// It is no sealed memory file.
    #[error("the segment is not a sealed memory file; its owner is another program or version")]
    NotSealed,
    /// It is not as long as its owner said.
    #[error("the segment has {have} bytes where {want} were announced")]
    Length {
        /// Bytes of the file.
        have: u64,
        /// Bytes that it should have.
        want: u64,
    },
    /// The operating system refused.
    #[error("cannot map a segment: {0}")]
    Os(#[from] io::Error),
}

/// A mapping, undone when dropped.
struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is memory of the whole process; what is done with it goes through atomics, or
// through the unsafe functions below, whose callers answer for it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, bytes: usize, protection: ProtFlags) -> io::Result<Self> {
        // What is ours is there already. What is another's is touched as it is read: its file may
        // have holes, which are filled for us.
        let own = protection.contains(ProtFlags::WRITE);
        let flags = if own { MapFlags::SHARED | MapFlags::POPULATE } else { MapFlags::SHARED };
        // SAFETY: the address is left to the kernel, so no memory in use is touched, and no
        // reference to the new mapping exists yet.
        let at = unsafe { mmap(ptr::null_mut(), bytes, protection, flags, fd, 0) }?;
        let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, bytes })
    }

    /// The first `count` words; none when there are fewer.
    fn words(&self, count: usize) -> &[AtomicU64] {
        if count > self.bytes / size_of::<AtomicU64>() {
            return &[];
        }
        // SAFETY: the mapping is at least `count` words long, starts on a page boundary, and lives
        // as long as `self`. Its bytes are initialised: the kernel gave zeroes. Others may write to
        // them at any time, which is what atomics are for. For a mapping without the right to
        // write, callers (`View`) hand out loads only.
        unsafe { slice::from_raw_parts(self.at.as_ptr().cast(), count) }
    }

    /// Where `offset` lies, if `length` bytes of the mapping follow.
    fn place(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        (end <= self.bytes).then(|| self.at.as_ptr().wrapping_add(offset))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `mmap` with this very length and is undone only here;
        // references into it borrow `self`.
        let undone = unsafe { munmap(self.at.as_ptr().cast::<c_void>(), self.bytes) };
        debug_assert!(undone.is_ok(), "a mapping of ours can be undone");
    }
}

/// A segment of this process, which alone writes to it.
pub(super) struct Segment {
    mapping: Mapping,
    file: OwnedFd,
}

impl Segment {
    /// A zeroed segment, all of whose memory is there from the start: it is now that there is too
    /// little, and not at some later store.
    pub(super) fn create(name: &str, bytes: usize) -> io::Result<Self> {
        if bytes == 0 || bytes > SEGMENT_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            // A kernel before 6.3 does not know the flag.
            Err(rustix::io::Errno::INVAL) => memfd_create(name, flags)?,
            other => other?,
        };
        ftruncate(&file, bytes as u64)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let mapping = Mapping::new(file.as_fd(), bytes, protection)?;
        fcntl_add_seals(&file, SEALS)?;
        Ok(Self { mapping, file })
    }

    /// What is sent to others, who can only read.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The first `count` words; none when there are fewer.
    pub(super) fn words(&self, count: usize) -> &[AtomicU64] {
        self.mapping.words(count)
    }

    /// Bytes of the segment for writing.
    ///
    /// # Safety
    /// For as long as the slice lives nobody else has a reference into these bytes, words included,
    /// and no other process is promised that they stay as they are.
    #[expect(clippy::mut_from_ref, reason = "the caller answers for there being one")]
    pub(super) unsafe fn slice_mut(&self, offset: usize, length: usize) -> Option<&mut [u8]> {
        let at = self.mapping.place(offset, length)?;
        // SAFETY: `place` found the bytes within the mapping, which is writable and initialised and
        // lives as long as `self`; the caller promises that they are not shared.
        Some(unsafe { slice::from_raw_parts_mut(at, length) })
    }
}

/// A word of another process's segment: it can be looked at.
#[repr(transparent)]
pub(super) struct Seen(AtomicU64);

impl Look for Seen {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    #[inline]
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// Another process's segment, for reading. Whatever it says may be wrong, and change at any time.
pub(super) struct View {
    mapping: Mapping,
}

impl View {
    /// Maps a file that came from another process; `bytes` is how long it must be.
    pub(super) fn open(file: BorrowedFd<'_>, bytes: u64) -> Result<Self, ViewError> {
        let seals = fcntl_get_seals(file).map_err(|_| ViewError::NotSealed)?;
        let system = fstatfs(file).map_err(io::Error::from)?;
        if !seals.contains(SEALS) || system.f_type as u64 != TMPFS_MAGIC {
            return Err(ViewError::NotSealed);
        }
        let have = u64::try_from(fstat(file).map_err(io::Error::from)?.st_size).unwrap_or(0);
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if have != bytes || have == 0 || length > SEGMENT_BYTES_MAX {
            return Err(ViewError::Length { have, want: bytes });
        }
        Ok(Self { mapping: Mapping::new(file, length, ProtFlags::READ)? })
    }

    /// The first `count` words; none when there are fewer.
    pub(super) fn words(&self, count: usize) -> &[Seen] {
        let words = self.mapping.words(count);
        // SAFETY: `Seen` is a transparent wrapper of the same atomic word.
        unsafe { slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    /// Asks for the line at `offset`, which is about to be read: it comes while other things are done.
    #[inline]
    pub(super) fn fetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(at) = self.mapping.place(offset, 1) {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: `at` lies within the mapping, and a prefetch changes nothing but caches.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast_const().cast()) };
        }
    }

    /// Bytes of the segment.
    ///
    /// # Safety
    /// The owner of the segment keeps to the protocol and does not write to these bytes while the
    /// slice lives. One that does not keep to it changes what is read, which is why the bytes are
    /// given out only as plain data, of which any value is good.
    pub(super) unsafe fn slice(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let at = self.mapping.place(offset, length)?;
        // SAFETY: `place` found the bytes within the mapping, which is readable and initialised and
        // lives as long as `self`; the caller promises that nobody writes.
        Some(unsafe { slice::from_raw_parts(at, length) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_the_owner_writes_others_read() {
        let segment = Segment::create("test", 8_192).unwrap();
        segment.words(1_024)[3].store(7, Ordering::Relaxed);
        let view = View::open(segment.file(), 8_192).unwrap();
        assert_eq!(view.words(1_024)[3].load(Ordering::Relaxed), 7);
        assert!(segment.words(1_025).is_empty() && view.words(1_025).is_empty());
        // SAFETY: nobody writes in this test.
        assert!(unsafe { view.slice(8_000, 193) }.is_none());
        // SAFETY: as above.
        assert!(unsafe { view.slice(usize::MAX, 2) }.is_none());
    }

    #[test]
    fn a_segment_can_neither_shrink_nor_be_written_by_others() {
        let segment = Segment::create("test", 4_096).unwrap();
        assert!(ftruncate(segment.file(), 0).is_err());
        assert!(ftruncate(segment.file(), 8_192).is_err());
        assert!(Mapping::new(segment.file(), 4_096, ProtFlags::READ | ProtFlags::WRITE).is_err());
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(fallocate(segment.file(), hole, 0, 4_096).is_err());
    }

    #[test]
    fn files_that_could_vanish_under_the_reader_are_refused() {
        let bare = memfd_create("bare", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&bare, 4_096).unwrap();
        assert!(matches!(View::open(bare.as_fd(), 4_096), Err(ViewError::NotSealed)));
        let null = File::open("/dev/null").unwrap();
        assert!(matches!(View::open(null.as_fd(), 4_096), Err(ViewError::NotSealed)));
        let segment = Segment::create("test", 4_096).unwrap();
        for bytes in [0, 4_095, 8_192, u64::MAX] {
            let error = View::open(segment.file(), bytes).map(|_| ()).unwrap_err();
            assert!(matches!(error, ViewError::Length { .. }), "{error}");
        }
    }

    #[test]
    fn a_segment_has_a_greatest_size() {
        for bytes in [0, SEGMENT_BYTES_MAX + 1] {
            assert!(Segment::create("test", bytes).is_err());
        }
    }
}
