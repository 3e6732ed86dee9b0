//! The blocks of a publisher for long messages: which are free, lent to the application, published,
//! or taken back and perhaps still read.
#![expect(unsafe_code, reason = "blocks are slices of shared memory")]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::BLOCKS_MAX;
use super::map::Segment;

const _: () = assert!(BLOCKS_MAX <= u64::BITS, "a bit for each block that was given back");

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// The application fills it.
    Lent,
    /// It is the message of this number, and subscribers may begin to read it.
    Published(u64),
    /// It was the message of this number. Nobody begins to read it any more; who began before may
    /// still do.
    Loose(u64),
}

/// The states of all blocks.
#[derive(Debug)]
pub(super) struct Pool {
    states: Vec<State>,
    /// Free blocks; the one that was used last is taken first, for it is in the caches.
    free: Vec<u32>,
    /// Blocks that the application gave back unpublished, a bit each.
    returned: Arc<AtomicU64>,
    published: usize,
}

impl Pool {
    pub(super) fn new(blocks: u32) -> Self {
        Self {
            states: vec![State::Free; blocks as usize],
            free: (0..blocks).rev().collect(),
            returned: Arc::new(AtomicU64::new(0)),
            published: 0,
        }
    }

    /// Whether a block is published.
    #[inline]
    pub(super) const fn is_used(&self) -> bool {
        self.published > 0
    }

    fn set(&mut self, index: u32, state: State) {
        let Some(place) = self.states.get_mut(index as usize) else { return };
        let was = matches!(place, State::Published(_));
        let is = matches!(state, State::Published(_));
        *place = state;
        self.published = self.published + usize::from(is) - usize::from(was);
        if state == State::Free {
            self.free.push(index);
        }
    }

    /// Takes a free block.
    pub(super) fn take(&mut self) -> Option<u32> {
        let mut returned = self.returned.swap(0, Ordering::Acquire);
        while returned != 0 {
            self.set(returned.trailing_zeros(), State::Free);
            returned &= returned - 1;
        }
        let index = self.free.pop()?;
        self.set(index, State::Lent);
        Some(index)
    }

    pub(super) fn publish(&mut self, index: u32, number: u64) {
        self.set(index, State::Published(number));
    }

    /// The message `number` was overwritten in its slot, or taken back.
    pub(super) fn loosen(&mut self, number: u64) {
        let at = self.states.iter().position(|state| *state == State::Published(number));
        if let Some(at) = at {
            self.set(at as u32, State::Loose(number));
        }
    }

    /// Frees the loose blocks that nobody holds; returns how many.
    pub(super) fn free_loose(&mut self, is_held: impl Fn(u64) -> bool) -> usize {
        let mut count = 0;
        for index in 0..self.states.len() as u32 {
            match self.states.get(index as usize) {
                Some(State::Loose(number)) if !is_held(*number) => {
                    self.set(index, State::Free);
                    count += 1;
                }
                _ => {}
            }
        }
        count
    }

    pub(super) fn has_loose(&self) -> bool {
        self.states.iter().any(|state| matches!(state, State::Loose(_)))
    }

    /// The published messages that have blocks and lie below `end`.
    pub(super) fn published_below(&self, end: u64) -> impl Iterator<Item = u64> {
        self.states.iter().filter_map(move |state| match state {
            State::Published(number) if *number < end => Some(*number),
            _ => None,
        })
    }

    /// A block for the application, which [`take`](Self::take) has just marked as lent.
    pub(super) fn lend(
        &self,
        segment: &Arc<Segment>,
        index: u32,
        offset: usize,
        length: usize,
    ) -> Block {
        let returned = Arc::clone(&self.returned);
        Block { segment: Arc::clone(segment), index, offset, length, returned: Some(returned) }
    }
}

/// A block of shared memory that is being filled; dropped, it goes back to its pool.
pub struct Block {
    segment: Arc<Segment>,
    index: u32,
    offset: usize,
    length: usize,
    /// Where it is given back; `None` once it was published.
    returned: Option<Arc<AtomicU64>>,
}

impl Block {
    /// Its index, for who publishes it; it is not given back any more.
    pub(super) fn leave(mut self) -> (u32, usize) {
        self.returned = None;
        (self.index, self.length)
    }

    /// Whether it is of this segment.
    pub(super) fn is_of(&self, segment: &Arc<Segment>) -> bool {
        Arc::ptr_eq(&self.segment, segment)
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pool lends a block to one `Block` at a time, and no subscriber holds it: it
        // was freed after a look at all holds that came after the last message in it had been taken
        // back. The slice borrows `self`, so no exclusive one exists beside it.
        unsafe { self.segment.slice_mut(self.offset, self.length) }.unwrap_or_default()
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the slice borrows `self` exclusively.
        unsafe { self.segment.slice_mut(self.offset, self.length) }.unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(returned) = &self.returned {
            // The release orders what was written to the block before its next use.
            returned.fetch_or(1 << (self.index % u64::BITS), Ordering::Release);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("len", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_that_was_freed_last_is_taken_first() {
        let mut pool = Pool::new(3);
        assert_eq!((pool.take(), pool.take()), (Some(0), Some(1)));
        pool.publish(0, 10);
        pool.publish(1, 11);
        assert_eq!(pool.published_below(11).collect::<Vec<_>>(), [10]);
        pool.loosen(10);
        assert!(pool.is_used() && pool.has_loose());
        assert_eq!(pool.free_loose(|number| number == 10), 0, "it is held");
        assert_eq!(pool.free_loose(|_| false), 1);
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(0), Some(2), None));
        pool.loosen(11);
        assert!(!pool.is_used());
    }

    #[test]
    fn a_block_that_is_dropped_comes_back_and_one_that_was_published_does_not() {
        let segment = Arc::new(Segment::create("test", 8_192).unwrap());
        let mut pool = Pool::new(2);
        let first = pool.take().unwrap();
        let mut block = pool.lend(&segment, first, 0, 4_096);
        block.fill(7);
        assert_eq!(block.len(), 4_096);
        drop(block);
        assert_eq!(pool.take(), Some(first));
        let (index, length) = pool.lend(&segment, first, 0, 100).leave();
        assert_eq!((index, length), (first, 100));
        assert_eq!((pool.take(), pool.take()), (Some(1), None));
    }
}
