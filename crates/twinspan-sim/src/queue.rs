//! The queue of events, in two implementations that must agree.

use twinspan_core::time::Timestamp;
use twinspan_core::wheel::{Full, TimerHandle, TimerHeap, TimerQueue, TimerWheel};

/// What keeps the events of a simulation in order. The order is the same, and so is every run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueKind {
    /// The timing wheel: fast.
    #[default]
    Wheel,
    /// A plain binary heap: slower with many events, and there to check the wheel by.
    Heap,
}

/// One of the two.
pub(crate) enum Queue<T> {
    /// Apart, as it is large.
    Wheel(Box<TimerWheel<T>>),
    Heap(TimerHeap<T>),
}

impl<T> Queue<T> {
    pub(crate) fn new(kind: QueueKind, limit: usize) -> Self {
        match kind {
            QueueKind::Wheel => Self::Wheel(Box::new(TimerWheel::new(limit))),
            QueueKind::Heap => Self::Heap(TimerHeap::new(limit)),
        }
    }

    pub(crate) fn insert(&mut self, at: Timestamp, value: T) -> Result<TimerHandle, Full<T>> {
        match self {
            Self::Wheel(wheel) => wheel.insert(at, value),
            Self::Heap(heap) => heap.insert(at, value),
        }
    }

    pub(crate) fn cancel(&mut self, handle: TimerHandle) -> Option<T> {
        match self {
            Self::Wheel(wheel) => wheel.cancel(handle),
            Self::Heap(heap) => heap.cancel(handle),
        }
    }

    pub(crate) fn pop_before(&mut self, now: Timestamp) -> Option<(Timestamp, T)> {
        match self {
            Self::Wheel(wheel) => wheel.pop_before(now),
            Self::Heap(heap) => heap.pop_before(now),
        }
    }

    /// Wishes for the memory of the event that comes after so many others.
    pub(crate) fn prefetch(&self, after: usize) {
        if let Self::Wheel(wheel) = self {
            wheel.prefetch(after);
        }
    }

    /// The event that comes after so many others, if that is known.
    pub(crate) fn upcoming(&self, after: usize) -> Option<&T> {
        match self {
            Self::Wheel(wheel) => wheel.upcoming(after),
            Self::Heap(_) => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Wheel(wheel) => wheel.is_empty(),
            Self::Heap(heap) => heap.is_empty(),
        }
    }
}
