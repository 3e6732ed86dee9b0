//! What tables needed of late, so that what a rare burst made them take is given back.
//!
//! A table that only grows is as large as the worst moment of its life, and the longer the life the worse
//! that moment is. One that gives back at once asks the allocator in every burst. So each notes the most
//! that was needed at once, and once in a [period](PERIOD) is made as large as this one and the one before
//! it needed.
//!
//! ```
//! use std::collections::VecDeque;
//! use twinspan_core::need::{Need, Periods, fit_ring};
//! use twinspan_core::time::Timestamp;
//!
//! let (mut ring, mut need, mut periods) = (VecDeque::new(), Need::new(), Periods::new());
//! ring.push_back("a datagram");
//! need.note(ring.len());
//! if periods.has_ended(Timestamp::START) {
//!     fit_ring(&mut ring, &mut need);
//! }
//! ```

use core::time::Duration;
use std::collections::VecDeque;

use crate::time::Timestamp;

/// What was needed once is kept for as long at least, and for twice as long at most. So a rare burst asks
/// the allocator once in a quarter of an hour, and one that comes oftener never again.
pub const PERIOD: Duration = Duration::from_mins(15);

/// Places that a ring keeps in any case: those that its first item made.
const RING_FIRST: usize = 4;

/// Tells when a period is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Periods {
    /// When the present one ends; [`Timestamp::START`] before anybody asked.
    end: Timestamp,
}

impl Periods {
    /// No period has begun.
    pub const fn new() -> Self {
        Self { end: Timestamp::START }
    }

    /// Whether a period ended, which is said once. The first one begins when this is asked first.
    pub fn has_ended(&mut self, now: Timestamp) -> bool {
        if now < self.end {
            return false;
        }
        let is_first = self.end == Timestamp::START;
        self.end = now.after(PERIOD);
        !is_first
    }
}

/// The most that was needed at once, in this period and in the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    now: u16,
    before: u16,
}

impl Need {
    /// Nothing was needed.
    pub const fn new() -> Self {
        Self { now: 0, before: 0 }
    }

    /// So much is needed now.
    pub fn note(&mut self, len: usize) {
        self.now = self.now.max(counted(len));
    }

    /// A period ends while `len` are needed. Returns for how many there shall be room from now on: a
    /// power of two, as doubling makes it, and `first` at least; [`usize::MAX`] when 65,535 or more were
    /// needed, which is beyond counting.
    pub fn turn(&mut self, len: usize, first: usize) -> usize {
        self.note(len);
        let most = self.now.max(self.before);
        *self = Self { now: counted(len), before: self.now };
        if most == u16::MAX {
            return usize::MAX;
        }
        usize::from(most).next_power_of_two().max(first)
    }
}

fn counted(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// A period ended: the ring gives back what was not needed.
pub fn fit_ring<T>(ring: &mut VecDeque<T>, need: &mut Need) {
    let room = need.turn(ring.len(), RING_FIRST);
    if ring.capacity() > room {
        ring.shrink_to(room);
    }
}

/// The same for a list.
pub fn fit_list<T>(list: &mut Vec<T>, need: &mut Need, first: usize) {
    let room = need.turn(list.len(), first);
    if list.capacity() > room {
        list.shrink_to(room);
    }
}

/// Things that are used again, those that came back last first. So what nobody needs lies at the bottom.
#[derive(Debug)]
pub struct Idle<T> {
    items: Vec<T>,
    /// So many at the bottom have lain there for the whole of the present period.
    untouched: usize,
    need: Need,
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self { items: Vec::new(), untouched: 0, need: Need::new() }
    }
}

impl<T> Idle<T> {
    /// Nothing, with room for `room` things.
    pub fn with_room(room: usize) -> Self {
        Self { items: Vec::with_capacity(room), ..Self::default() }
    }

    /// Takes the one that came back last.
    pub fn take(&mut self) -> Option<T> {
        let item = self.items.pop();
        self.untouched = self.untouched.min(self.items.len());
        item
    }

    /// Takes one back. The caller limits how many there are.
    pub fn give(&mut self, item: T) {
        self.items.push(item);
        self.need.note(self.items.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A period ended: those that nobody took in it are dropped.
    pub fn fit(&mut self) {
        self.items.drain(..self.untouched);
        self.untouched = self.items.len();
        fit_list(&mut self.items, &mut self.need, RING_FIRST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_minute(minute: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_mins(minute))
    }

    #[test]
    fn periods_begin_with_the_first_question() {
        let mut periods = Periods::new();
        assert!(!periods.has_ended(at_minute(100)));
        assert!(!periods.has_ended(at_minute(114)));
        assert!(periods.has_ended(at_minute(115)));
        assert!(!periods.has_ended(at_minute(115)));
        assert!(periods.has_ended(at_minute(500)));
        assert!(!periods.has_ended(at_minute(514)));
    }

    #[test]
    fn a_need_is_remembered_for_one_more_period() {
        let mut need = Need::new();
        need.note(33);
        assert_eq!(need.turn(3, 4), 64);
        need.note(5);
        assert_eq!(need.turn(3, 4), 64);
        assert_eq!(need.turn(3, 4), 8);
        assert_eq!(need.turn(3, 4), 4);
        need.note(100_000);
        assert_eq!(need.turn(0, 4), usize::MAX);
        assert_eq!(need.turn(0, 4), usize::MAX);
        assert_eq!((need.turn(0, 4), need.turn(0, 1)), (4, 1));
    }

    #[test]
    fn a_ring_gives_back_what_it_did_not_need_for_two_periods() {
        let (mut ring, mut need) = (VecDeque::new(), Need::new());
        for number in 0..100 {
            ring.push_back(number);
            need.note(ring.len());
        }
        ring.truncate(10);
        // The period of the burst and the one after it.
        for _ in 0..2 {
            fit_ring(&mut ring, &mut need);
            assert_eq!(ring.capacity(), 128);
        }
        fit_ring(&mut ring, &mut need);
        assert_eq!((ring.capacity(), ring.len()), (16, 10));
        ring.clear();
        (0..3).for_each(|_| fit_ring(&mut ring, &mut need));
        assert_eq!(ring.capacity(), RING_FIRST);
    }

    #[test]
    fn what_nobody_takes_for_a_period_is_dropped() {
        let mut idle = Idle::with_room(2);
        (0..40).for_each(|number| idle.give(number));
        idle.fit();
        assert_eq!(idle.len(), 40, "all of them came in this period");
        for _ in 0..3 {
            let taken: Vec<_> = (0..3).filter_map(|_| idle.take()).collect();
            taken.into_iter().rev().for_each(|number| idle.give(number));
            idle.fit();
        }
        assert_eq!((idle.len(), idle.items.capacity()), (3, 4));
        assert_eq!([idle.take(), idle.take(), idle.take()], [Some(39), Some(38), Some(37)]);
        assert!(idle.is_empty() && idle.take().is_none());
    }

    #[test]
    fn a_list_that_is_always_needed_is_left_alone() {
        let (mut list, mut need) = (Vec::new(), Need::new());
        for _ in 0..5 {
            (0..9).for_each(|number| list.push(number));
            need.note(list.len());
            list.clear();
            fit_list(&mut list, &mut need, 1);
            assert_eq!(list.capacity(), 16);
        }
        (0..2).for_each(|_| fit_list(&mut list, &mut need, 1));
        assert_eq!(list.capacity(), 1);
    }
}
