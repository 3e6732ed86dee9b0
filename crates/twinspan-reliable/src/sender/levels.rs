//! Reliable messages that wait for their turn, by priority.

use super::store::Queue;
use crate::{PRIORITIES, Priorities};

/// Frames of higher levels that may leave, one after the other, while a lower one waits.
const PASSED_MAX: u8 = 16;

/// Messages of several fragments that may be half-way at once: credit makes room for so many.
const HALF_WAY_MAX: u8 = 2;

/// A queue for each level, most urgent first.
///
/// Urgent ones leave first, yet every sixteenth frame goes to who waited longest behind them, so
/// that nobody waits for ever.
#[derive(Debug)]
pub(super) struct Levels {
    pub(super) queues: [Queue; PRIORITIES],
    passed: [u8; PRIORITIES],
    half_way: u8,
    of: Priorities,
}

impl Levels {
    pub(super) fn new(of: &Priorities) -> Self {
        let queues = core::array::from_fn(|_| Queue::new());
        Self { queues, passed: [0; PRIORITIES], half_way: 0, of: of.clone() }
    }

    /// The level of a stream's messages.
    pub(super) fn of(&self, stream: crate::StreamId) -> usize {
        usize::from(self.of.get(stream))
    }

    pub(super) fn queue(&self, level: usize) -> Option<&Queue> {
        self.queues.get(level)
    }

    pub(super) fn queue_mut(&mut self, level: usize) -> Option<&mut Queue> {
        self.queues.get_mut(level)
    }

    /// The levels with messages, in the order in which they are asked for a frame.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let mut waiting = 0_u8;
        let mut starved = 0_u8;
        for (level, (queue, passed)) in self.queues.iter().zip(&self.passed).enumerate() {
            waiting |= u8::from(!queue.is_empty()) << level;
            starved |= u8::from(*passed >= PASSED_MAX) << level;
        }
        bits(waiting & starved).chain(bits(waiting & !starved))
    }

    /// Whether a message of several fragments may begin to leave.
    pub(super) const fn may_begin(&self) -> bool {
        self.half_way < HALF_WAY_MAX
    }

    /// A frame of this level leaves; `begins` and `ends` say whether it is the first or the last of
    /// a message of several.
    pub(super) fn on_taken(&mut self, level: usize, begins: bool, ends: bool) {
        self.half_way += u8::from(begins);
        self.half_way = self.half_way.saturating_sub(u8::from(ends));
        for (other, (passed, queue)) in self.passed.iter_mut().zip(&self.queues).enumerate() {
            if other == level || queue.is_empty() {
                *passed = 0;
            } else if other > level {
                *passed = passed.saturating_add(1);
            }
        }
    }
}

/// The levels of a set, lowest first.
fn bits(mut set: u8) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let level = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (level < PRIORITIES).then_some(level)
    })
}
