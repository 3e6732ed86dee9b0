//! A hierarchical timing wheel that is exact to the nanosecond.
//!
//! ```
//! use twinspan_core::time::Timestamp;
//! use twinspan_core::wheel::TimerWheel;
//!
//! let mut wheel = TimerWheel::new(16);
//! let late = wheel.insert(Timestamp::from_nanos(9), "late")?;
//! wheel.insert(Timestamp::from_nanos(5), "early")?;
//! assert_eq!(wheel.cancel(late), Some("late"));
//! let due = wheel.pop_before(Timestamp::from_nanos(9));
//! assert_eq!(due, Some((Timestamp::from_nanos(5), "early")));
//! # Ok::<(), twinspan_core::wheel::Full<&str>>(())
//! ```

mod heap;

use core::cmp::Reverse;
use core::fmt;
use std::collections::BinaryHeap;

pub use heap::TimerHeap;

use crate::prefetch;
use crate::time::Timestamp;

/// The finest slot is 2^16 ns, about 66 µs, wide. In a simulation of a thousand hosts ten events are
/// due in one, so that who looks ahead finds some.
const SLOT_BITS: u32 = 16;
/// Each level has 2^8 slots.
const LEVEL_BITS: u32 = 8;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Levels that cover all 64 bits of a time.
const LEVELS: usize = 6;
const _: () = assert!(SLOT_BITS + LEVELS as u32 * LEVEL_BITS >= u64::BITS);
/// No entry.
const NONE: u32 = u32::MAX;
/// Cancelled references that may lie about before they are swept.
const STALE_MIN: usize = 64;

/// A queue of values by (time, order of insertion), which may be cancelled.
///
/// Two that keep this order are the [`TimerWheel`], for use, and the [`TimerHeap`], which is slower and
/// plain enough to check the other by.
pub trait TimerQueue<T> {
    /// Adds a value that is due at `at`, which may lie in the past.
    ///
    /// # Errors
    /// [`Full`] gives the value back when the limit is reached.
    fn insert(&mut self, at: Timestamp, value: T) -> Result<TimerHandle, Full<T>>;

    /// Takes a value out before its time; `None` when it has left already.
    fn cancel(&mut self, handle: TimerHandle) -> Option<T>;

    /// Takes the first value that is due at or before `now`.
    fn pop_before(&mut self, now: Timestamp) -> Option<(Timestamp, T)>;

    /// Values in the queue.
    fn len(&self) -> usize;

    /// Whether the queue is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> TimerQueue<T> for TimerWheel<T> {
    fn insert(&mut self, at: Timestamp, value: T) -> Result<TimerHandle, Full<T>> {
        Self::insert(self, at, value)
    }

    fn cancel(&mut self, handle: TimerHandle) -> Option<T> {
        Self::cancel(self, handle)
    }

    fn pop_before(&mut self, now: Timestamp) -> Option<(Timestamp, T)> {
        Self::pop_before(self, now)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }
}

/// A queue of values by (time, order of insertion).
///
/// Insertion and cancellation take constant time; a slot is sorted when its time comes. Nothing is
/// allocated once the queue has been as full as it gets.
pub struct TimerWheel<T> {
    entries: Vec<Entry<T>>,
    /// First of the free entries.
    free: u32,
    len: usize,
    limit: usize,
    next_sequence: u64,
    /// The number of the finest slot whose entries are being given out.
    cursor: u64,
    levels: [Level; LEVELS],
    /// What was in the slot at the cursor, last first.
    sorted: Vec<Reference>,
    /// What was inserted at or before the slot at the cursor since.
    early: BinaryHeap<Reverse<Reference>>,
    /// Cancelled ones in `sorted` and `early`.
    stale: usize,
}

/// Names an entry of a wheel; of no use once the entry has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerHandle {
    index: u32,
    sequence: u64,
}

/// The wheel is as full as it may get; holds the value that found no room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timing wheel is full; raise its limit or insert less")
    }
}

impl<T> core::error::Error for Full<T> {}

struct Entry<T> {
    at: u64,
    /// The order of insertion; tells a reused entry from the one before.
    sequence: u64,
    /// Neighbours in the slot; of a free entry, `next` is the next free one.
    next: u32,
    previous: u32,
    place: Place,
    value: Option<T>,
}

/// Where an entry is linked.
#[derive(Clone, Copy)]
enum Place {
    Free,
    Slot {
        level: u8,
        slot: u8,
    },
    /// In `sorted` or `early`, by reference.
    Current,
}

/// An entry and what it is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    at: u64,
    sequence: u64,
    index: u32,
}

struct Level {
    /// Which slots hold something.
    occupied: [u64; SLOTS / 64],
    heads: [u32; SLOTS],
}

impl Level {
    const EMPTY: Self = Self { occupied: [0; SLOTS / 64], heads: [NONE; SLOTS] };

    fn first_occupied(&self) -> Option<u8> {
        let (word, bits) = (0_u8..).zip(self.occupied).find(|(_, bits)| *bits != 0)?;
        // Four words of 64 bits: the sum is at most 255.
        Some(word * 64 + bits.trailing_zeros() as u8)
    }

    fn head(&self, slot: u8) -> u32 {
        self.heads.get(usize::from(slot)).copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, slot: u8, head: u32) {
        if let Some(old) = self.heads.get_mut(usize::from(slot)) {
            *old = head;
        }
        if let Some(bits) = self.occupied.get_mut(usize::from(slot / 64)) {
            let bit = 1 << (slot % 64);
            *bits = if head == NONE { *bits & !bit } else { *bits | bit };
        }
    }
}

impl<T> TimerWheel<T> {
    /// An empty wheel that holds at most `limit` values, and at most 2^32 - 2.
    pub fn new(limit: usize) -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            len: 0,
            limit: limit.min(NONE as usize - 1),
            next_sequence: 0,
            cursor: 0,
            levels: [const { Level::EMPTY }; LEVELS],
            sorted: Vec::new(),
            early: BinaryHeap::new(),
            stale: 0,
        }
    }

    /// Values in the wheel.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the wheel is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most values that it may hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Adds a value that is due at `at`, which may lie in the past.
    ///
    /// # Errors
    /// [`Full`] gives the value back when the limit is reached.
    pub fn insert(&mut self, at: Timestamp, value: T) -> Result<TimerHandle, Full<T>> {
        if self.len >= self.limit {
            return Err(Full(value));
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let at = at.as_nanos();
        let entry = Entry {
            at,
            sequence,
            next: NONE,
            previous: NONE,
            place: Place::Free,
            value: Some(value),
        };
        let index = self.store(entry);
        self.len += 1;
        self.link(index, false);
        Ok(TimerHandle { index, sequence })
    }

    /// Takes a value out before its time; `None` when it has left already.
    pub fn cancel(&mut self, handle: TimerHandle) -> Option<T> {
        let entry = self.entries.get(handle.index as usize)?;
        if entry.sequence != handle.sequence {
            return None;
        }
        match entry.place {
            Place::Free => return None,
            Place::Slot { level, slot } => self.unlink(handle.index, level, slot),
            Place::Current => self.stale += 1,
        }
        let value = self.release(handle.index);
        if self.stale > STALE_MIN && self.stale > (self.sorted.len() + self.early.len()) / 2 {
            self.sweep();
        }
        value
    }

    /// Takes the first value that is due at or before `now`.
    pub fn pop_before(&mut self, now: Timestamp) -> Option<(Timestamp, T)> {
        let now = now.as_nanos();
        loop {
            let from_sorted = match (self.sorted.last(), self.early.peek()) {
                (Some(sorted), Some(Reverse(early))) => sorted < early,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => {
                    if !self.advance(now) {
                        return None;
                    }
                    continue;
                }
            };
            let first = if from_sorted {
                self.sorted.last().copied()
            } else {
                self.early.peek().map(|Reverse(early)| *early)
            }?;
            let live = self.is_live(&first);
            if live && first.at > now {
                return None;
            }
            if from_sorted {
                self.sorted.pop();
            } else {
                self.early.pop();
            }
            if !live {
                self.stale -= 1;
                continue;
            }
            let value = self.release(first.index)?;
            return Some((Timestamp::from_nanos(first.at), value));
        }
    }

    /// Wishes for the memory of the value that comes after so many others, if it is near.
    pub fn prefetch(&self, after: usize) {
        let place = self.sorted.len().checked_sub(after + 1);
        if let Some(reference) = place.and_then(|place| self.sorted.get(place))
            && let Some(entry) = self.entries.get(reference.index as usize)
        {
            prefetch::value(entry);
        }
    }

    /// The value that comes after so many others, if it is near: perhaps not the one that does, for
    /// who looks ahead and loses nothing when he is wrong.
    pub fn upcoming(&self, after: usize) -> Option<&T> {
        let place = self.sorted.len().checked_sub(after + 1)?;
        let reference = self.sorted.get(place).filter(|reference| self.is_live(reference))?;
        self.entries.get(reference.index as usize)?.value.as_ref()
    }

    /// When the first value is due. Looks through one slot, so it is dearer than popping.
    pub fn peek_time(&self) -> Option<Timestamp> {
        let sorted = self.sorted.iter().rev().find(|one| self.is_live(one));
        let early = self.early.iter().filter(|one| self.is_live(&one.0)).map(|one| &one.0).min();
        let current = match (sorted, early) {
            (Some(sorted), Some(early)) => Some(sorted.at.min(early.at)),
            (Some(one), None) | (None, Some(one)) => Some(one.at),
            (None, None) => None,
        };
        current.or_else(|| self.first_in_slots()).map(Timestamp::from_nanos)
    }

    fn first_in_slots(&self) -> Option<u64> {
        let (level, slot) =
            self.levels.iter().find_map(|level| Some((level, level.first_occupied()?)))?;
        let mut index = level.head(slot);
        let mut first = None;
        while let Some(entry) = self.entries.get(index as usize) {
            first = Some(first.map_or(entry.at, |first: u64| first.min(entry.at)));
            index = entry.next;
        }
        first
    }

    /// Moves the cursor to the next slot that holds something and begins by `now`, and brings what
    /// is in it nearer; false when there is none.
    fn advance(&mut self, now: u64) -> bool {
        let found = (0_u8..)
            .zip(&self.levels)
            .find_map(|(number, level)| Some((number, level.first_occupied()?)));
        let Some((level, slot)) = found else { return false };
        // All in a level agree with the cursor in the digits above it, and lie beyond it here.
        let shift = u32::from(level) * LEVEL_BITS;
        let digits_above = match shift + LEVEL_BITS {
            above if above < u64::BITS => self.cursor >> above << above,
            _ => 0,
        };
        let cursor = digits_above | u64::from(slot) << shift;
        if cursor << SLOT_BITS > now {
            return false;
        }
        self.cursor = cursor;
        let Some(slots) = self.levels.get_mut(usize::from(level)) else { return false };
        let mut index = slots.head(slot);
        slots.set_head(slot, NONE);
        while let Some(entry) = self.entries.get(index as usize) {
            let next = entry.next;
            self.link(index, true);
            index = next;
        }
        self.sorted.sort_unstable_by(|left, right| right.cmp(left));
        true
    }

    /// Links an entry where its time belongs; `draining` when the cursor's own slot is being filled
    /// and will be sorted.
    fn link(&mut self, index: u32, draining: bool) {
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        let number = entry.at >> SLOT_BITS;
        if number <= self.cursor {
            entry.place = Place::Current;
            let reference = Reference { at: entry.at, sequence: entry.sequence, index };
            if draining {
                self.sorted.push(reference);
            } else {
                self.early.push(Reverse(reference));
            }
            return;
        }
        // The level of the highest digit in which the time differs from the cursor.
        let level = (number ^ self.cursor).ilog2() / LEVEL_BITS;
        let slot = (number >> (level * LEVEL_BITS)) as u8;
        let Some(slots) = self.levels.get_mut(level as usize) else { return };
        let head = slots.head(slot);
        slots.set_head(slot, index);
        entry.place = Place::Slot { level: level as u8, slot };
        entry.previous = NONE;
        entry.next = head;
        if let Some(head) = self.entries.get_mut(head as usize) {
            head.previous = index;
        }
    }

    fn unlink(&mut self, index: u32, level: u8, slot: u8) {
        let Some(entry) = self.entries.get(index as usize) else { return };
        let (next, previous) = (entry.next, entry.previous);
        if let Some(next) = self.entries.get_mut(next as usize) {
            next.previous = previous;
        }
        if let Some(previous) = self.entries.get_mut(previous as usize) {
            previous.next = next;
        } else if let Some(slots) = self.levels.get_mut(usize::from(level)) {
            slots.set_head(slot, next);
        }
    }

    fn store(&mut self, entry: Entry<T>) -> u32 {
        let index = self.free;
        if let Some(reused) = self.entries.get_mut(index as usize) {
            self.free = reused.next;
            *reused = entry;
            return index;
        }
        self.entries.push(entry);
        // The limit is below 2^32.
        (self.entries.len() - 1) as u32
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        entry.place = Place::Free;
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        entry.value.take()
    }

    fn is_live(&self, reference: &Reference) -> bool {
        is_live(&self.entries, reference)
    }

    /// Forgets cancelled references, so that setting and cancelling for ever stays bounded.
    fn sweep(&mut self) {
        let entries = &self.entries;
        self.sorted.retain(|one| is_live(entries, one));
        let mut early = core::mem::take(&mut self.early).into_vec();
        early.retain(|one| is_live(entries, &one.0));
        self.early = BinaryHeap::from(early);
        self.stale = 0;
    }
}

fn is_live<T>(entries: &[Entry<T>], reference: &Reference) -> bool {
    entries.get(reference.index as usize).is_some_and(|entry| {
        entry.sequence == reference.sequence && matches!(entry.place, Place::Current)
    })
}

impl<T> fmt::Debug for TimerWheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerWheel").field("len", &self.len).field("limit", &self.limit).finish()
    }
}

#[cfg(test)]
mod tests;
