//! A plain heap that keeps the order of the wheel, to check the wheel by.

use core::cmp::Reverse;
use core::fmt;
use std::collections::BinaryHeap;

use super::{Full, STALE_MIN, TimerHandle, TimerQueue};
use crate::time::Timestamp;

/// A queue of values by (time, order of insertion) that has nothing in common with the
/// [`TimerWheel`](super::TimerWheel) but that order.
///
/// What is cancelled leaves a reference behind until its time comes.
pub struct TimerHeap<T> {
    /// Time, order of insertion, and where the value is.
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// Each with the order of insertion of what it holds or held last.
    values: Vec<(u64, Option<T>)>,
    free: Vec<u32>,
    limit: usize,
    next_sequence: u64,
}

impl<T> TimerHeap<T> {
    /// An empty heap that holds at most `limit` values, and at most 2^32 - 2.
    pub fn new(limit: usize) -> Self {
        Self {
            order: BinaryHeap::new(),
            values: Vec::new(),
            free: Vec::new(),
            limit: limit.min(u32::MAX as usize - 1),
            next_sequence: 0,
        }
    }

    fn take(&mut self, index: u32, sequence: u64) -> Option<T> {
        let (known, value) = self.values.get_mut(index as usize)?;
        if *known != sequence {
            return None;
        }
        let value = value.take()?;
        self.free.push(index);
        Some(value)
    }
}

impl<T> TimerQueue<T> for TimerHeap<T> {
    fn insert(&mut self, at: Timestamp, value: T) -> Result<TimerHandle, Full<T>> {
        if self.len() >= self.limit {
            return Err(Full(value));
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.values.push((sequence, None));
            // The limit is below 2^32.
            (self.values.len() - 1) as u32
        });
        if let Some(slot) = self.values.get_mut(index as usize) {
            *slot = (sequence, Some(value));
        }
        self.order.push(Reverse((at.as_nanos(), sequence, index)));
        Ok(TimerHandle { index, sequence })
    }

    fn cancel(&mut self, handle: TimerHandle) -> Option<T> {
        let value = self.take(handle.index, handle.sequence);
        // Setting and cancelling for ever stays bounded.
        if self.order.len() > 2 * self.len() + STALE_MIN {
            let values = &self.values;
            self.order.retain(|Reverse((_, sequence, index))| is_live(values, *sequence, *index));
        }
        value
    }

    fn pop_before(&mut self, now: Timestamp) -> Option<(Timestamp, T)> {
        while let Some(Reverse((at, sequence, index))) = self.order.peek().copied() {
            if is_live(&self.values, sequence, index) && at > now.as_nanos() {
                return None;
            }
            self.order.pop();
            if let Some(value) = self.take(index, sequence) {
                return Some((Timestamp::from_nanos(at), value));
            }
        }
        None
    }

    fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }
}

fn is_live<T>(values: &[(u64, Option<T>)], sequence: u64, index: u32) -> bool {
    let slot = values.get(index as usize);
    slot.is_some_and(|(known, value)| *known == sequence && value.is_some())
}

impl<T> fmt::Debug for TimerHeap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerHeap").field("len", &self.len()).finish_non_exhaustive()
    }
}
