//! The blocks of a publisher for long messages: which are free, lent to the application, published,
//! or taken back and perhaps still read.
#![expect(unsafe_code, reason = "blocks are slices of shared memory")]

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::BLOCKS_MAX;
use super::map::Segment;

const _: () = assert!(BLOCKS_MAX <= u64::BITS, "a bit for each block that was given back");

/// Bytes of blocks that take turns, where there are as many: more than a core's own cache mostly has,
/// and less than the one that cores share.
const IN_TURN_BYTES: usize = 2 << 20;
/// Blocks that take turns at least: one that is written and one that is read.
const IN_TURN_MIN: usize = 2;

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
pub(super) struct Pool {
    states: Vec<State>,
    /// The first so many blocks take turns.
    in_turn: u32,
    /// Those of them that are free; the one that was freed first is taken first. The others' lines leave
    /// the cache of the core that read them meanwhile, which costs less than to take them from there.
    free: VecDeque<u32>,
    /// Other free blocks, taken when none of those is known to be free: more memory than the cores' shared
    /// cache is the better for.
    reserve: Vec<u32>,
    lender: Arc<Lender>,
    /// The lender of a block that was published, for the next one: to count references takes longer.
    spare: Option<Arc<Lender>>,
    published: usize,
}

/// What blocks that are lent share with their pool.
struct Lender {
    segment: Arc<Segment>,
    /// Blocks that the application gave back unpublished, a bit each.
    returned: AtomicU64,
}

impl Pool {
    /// The blocks of a segment, of `block_bytes` each, all of them free.
    pub(super) fn new(segment: &Arc<Segment>, blocks: u32, block_bytes: usize) -> Self {
        let returned = AtomicU64::new(0);
        let in_turn = (IN_TURN_BYTES / block_bytes.max(1)).max(IN_TURN_MIN);
        let in_turn = in_turn.min(blocks as usize) as u32;
        Self {
            states: vec![State::Free; blocks as usize],
            in_turn,
            free: (0..in_turn).collect(),
            reserve: (in_turn..blocks).rev().collect(),
            lender: Arc::new(Lender { segment: Arc::clone(segment), returned }),
            spare: None,
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
        if state == State::Free && index < self.in_turn {
            self.free.push_back(index);
        } else if state == State::Free {
            self.reserve.push(index);
        }
    }

    /// Takes a free block.
    pub(super) fn take(&mut self) -> Option<u32> {
        // A look first: to change the word costs more, and there is seldom anything.
        let mut returned = match self.lender.returned.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.lender.returned.swap(0, Ordering::Acquire),
        };
        while returned != 0 {
            self.set(returned.trailing_zeros(), State::Free);
            returned &= returned - 1;
        }
        let index = self.free.pop_front().or_else(|| self.reserve.pop())?;
        self.set(index, State::Lent);
        Some(index)
    }

    /// Whether fewer than half of the blocks that take turns are known to be free.
    pub(super) fn is_low(&self) -> bool {
        self.free.len() * 2 < self.in_turn as usize
    }

    /// A block is the message `number` from now on. Returns its index.
    pub(super) fn publish(&mut self, mut block: Block, number: u64) -> u32 {
        let index = block.index;
        self.spare = block.lender.take();
        self.set(index, State::Published(number));
        index
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
    pub(super) fn lend(&mut self, index: u32, offset: usize, length: usize) -> Block {
        let lender = self.spare.take().unwrap_or_else(|| Arc::clone(&self.lender));
        Block { index, offset, length, lender: Some(lender) }
    }

    /// Whether a block is one of these.
    pub(super) fn has(&self, block: &Block) -> bool {
        block.lender.as_ref().is_some_and(|lender| Arc::ptr_eq(lender, &self.lender))
    }
}

/// A block of shared memory that is being filled; dropped, it goes back to its pool.
pub struct Block {
    index: u32,
    offset: usize,
    length: usize,
    /// Where it is given back; `None` once it was published.
    lender: Option<Arc<Lender>>,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(lender) = &self.lender else { return &[] };
        // SAFETY: the pool lends a block to one `Block` at a time, and no subscriber holds it: it
        // was freed after a look at all holds that came after the last message in it had been taken
        // back. The slice borrows `self`, so no exclusive one exists beside it.
        unsafe { lender.segment.slice_mut(self.offset, self.length) }.unwrap_or_default()
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Some(lender) = &self.lender else { return &mut [] };
        // SAFETY: as in `deref`; the slice borrows `self` exclusively.
        unsafe { lender.segment.slice_mut(self.offset, self.length) }.unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(lender) = &self.lender {
            // The release orders what was written to the block before its next use.
            lender.returned.fetch_or(1 << (self.index % u64::BITS), Ordering::Release);
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

    fn pool(blocks: u32) -> Pool {
        let segment = Segment::create("test", blocks as usize * 4_096).unwrap();
        Pool::new(&Arc::new(segment), blocks, 4_096)
    }

    fn lend(pool: &mut Pool) -> Option<Block> {
        let index = pool.take()?;
        Some(pool.lend(index, index as usize * 4_096, 4_096))
    }

    #[test]
    fn the_block_that_was_freed_first_is_taken_first() {
        let mut pool = pool(3);
        let (first, second) = (lend(&mut pool).unwrap(), lend(&mut pool).unwrap());
        assert!(pool.is_low());
        assert_eq!((pool.publish(first, 10), pool.publish(second, 11)), (0, 1));
        assert_eq!(pool.published_below(11).collect::<Vec<_>>(), [10]);
        pool.loosen(10);
        assert!(pool.is_used() && pool.has_loose());
        assert_eq!(pool.free_loose(|number| number == 10), 0, "it is held");
        assert_eq!(pool.free_loose(|_| false), 1);
        assert!(!pool.is_low());
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(2), Some(0), None));
        pool.loosen(11);
        assert!(!pool.is_used());
    }

    #[test]
    fn of_large_blocks_few_take_turns_and_the_others_are_a_reserve() {
        let segment = Arc::new(Segment::create("test", 4_096).unwrap());
        for (block_bytes, in_turn) in [(64 << 10, 8), (512 << 10, 4), (1 << 20, 2), (256 << 20, 2)]
        {
            assert_eq!(Pool::new(&segment, 8, block_bytes).in_turn, in_turn);
        }
        let mut pool = Pool::new(&segment, 4, 1 << 20);
        let taken: Vec<_> = (0..5).map(|_| pool.take()).collect();
        assert_eq!(taken, [Some(0), Some(1), Some(2), Some(3), None]);
        for index in [3, 1, 0] {
            pool.set(index, State::Free);
        }
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(1), Some(0), Some(3)));
        let none = Pool::new(&segment, 0, 0);
        assert!(none.free.is_empty() && none.reserve.is_empty() && !none.is_low());
    }

    #[test]
    fn a_block_that_is_dropped_comes_back_and_one_that_was_published_does_not() {
        let mut pool = pool(2);
        let mut block = lend(&mut pool).unwrap();
        block.fill(7);
        assert_eq!(block.len(), 4_096);
        drop(block);
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(1), Some(0), None));
        let block = pool.lend(0, 0, 100);
        assert_eq!(pool.publish(block, 1), 0);
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn a_block_belongs_to_its_pool_before_and_after_another_was_published() {
        let (mut ours, mut theirs) = (pool(3), pool(3));
        for number in 0..2 {
            let (block, other) = (lend(&mut ours).unwrap(), lend(&mut theirs).unwrap());
            assert!(ours.has(&block) && !ours.has(&other) && !theirs.has(&block));
            ours.publish(block, number);
        }
    }
}
