//! The rolling hash at regular numbers of events, so that two runs that differ need to be looked at
//! in one place only.

use std::ops::Range;

/// Events from one checkpoint to the next, until there are too many checkpoints.
pub const CHECKPOINT_EVENTS: u64 = 1 << 14;
/// Checkpoints that are kept. When there are so many, every second one is given up, and from then on
/// they are twice as far apart.
pub const CHECKPOINTS_MAX: usize = 1_024;

/// The hash of a trace after every so many events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceCheckpoints {
    every: u64,
    /// After `every` events, after twice as many, and so on.
    hashes: Vec<u64>,
}

impl Default for TraceCheckpoints {
    fn default() -> Self {
        Self { every: CHECKPOINT_EVENTS, hashes: Vec::new() }
    }
}

impl TraceCheckpoints {
    /// Those that somebody wrote down; `None` when `every` is no distance that there is.
    pub fn from_parts(every: u64, hashes: Vec<u64>) -> Option<Self> {
        let fits = every.is_power_of_two() && every >= CHECKPOINT_EVENTS;
        (fits && hashes.len() <= CHECKPOINTS_MAX).then_some(Self { every, hashes })
    }

    /// Events from one to the next: [`CHECKPOINT_EVENTS`], doubled as often as was needed.
    pub fn every(&self) -> u64 {
        self.every
    }

    /// The hashes, the first after [`every`](Self::every) events.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// With how many events the next one is taken.
    pub(crate) fn next(&self) -> u64 {
        self.every * (self.hashes.len() as u64 + 1)
    }

    /// Takes the hash if it is the time to.
    pub(crate) fn take(&mut self, events: u64, hash: u64) {
        if events != self.next() {
            return;
        }
        self.hashes.push(hash);
        if self.hashes.len() == CHECKPOINTS_MAX {
            let mut index = 0_usize;
            self.hashes.retain(|_| {
                index += 1;
                index.is_multiple_of(2)
            });
            self.every *= 2;
        }
    }

    fn after(&self, events: u64) -> Option<u64> {
        let index = (events / self.every).checked_sub(1)?;
        self.hashes.get(usize::try_from(index).ok()?).copied()
    }

    /// The numbers of events, counted from 0, among which the first is that two traces of different
    /// hashes differ in. One of the two may end within.
    pub fn first_difference(&self, other: &Self) -> Range<u64> {
        let every = self.every.max(other.every);
        let mut same = 0;
        loop {
            let next = same + every;
            match (self.after(next), other.after(next)) {
                (Some(left), Some(right)) if left == right => same = next,
                // The shorter one ends, or both differ, before the next checkpoint.
                _ => return same..next,
            }
        }
    }
}
