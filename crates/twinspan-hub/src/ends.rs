//! What one side of a topic saw of the ends of its links, for scenarios that ask whether the other side
//! saw them too.

#[cfg(feature = "scenarios")]
use std::collections::VecDeque;

use twinspan_topic::EndReason;

/// Ends that are kept until somebody asks.
#[cfg(feature = "scenarios")]
const ENDS_MAX: usize = 1_024;

/// One end, as one side saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairEnd {
    /// The number that stands for the other side as a publisher.
    pub(crate) peer: u64,
    /// Why, where that is known.
    pub(crate) reason: Option<EndReason>,
    /// The number of the other's message that was to come next, where its messages come no more.
    pub(crate) expected: Option<u64>,
    /// The number of this side's next message, where the other was given up.
    pub(crate) published: Option<u64>,
}

/// Ends that nobody asked for yet; nothing without scenarios.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    #[cfg(feature = "scenarios")]
    list: VecDeque<PairEnd>,
}

impl Ends {
    /// Keeps one for who asks; the oldest give way.
    #[cfg(feature = "scenarios")]
    pub(crate) fn note(&mut self, end: PairEnd) {
        if self.list.len() >= ENDS_MAX {
            self.list.pop_front();
        }
        self.list.push_back(end);
    }

    /// Nobody asks.
    #[cfg(not(feature = "scenarios"))]
    pub(crate) fn note(&mut self, end: PairEnd) {
        let PairEnd { peer, reason, expected, published } = end;
        let _ = (peer, reason, expected, published);
    }

    /// All of them, once.
    #[cfg(feature = "scenarios")]
    pub(crate) fn take(&mut self) -> Vec<PairEnd> {
        self.list.drain(..).collect()
    }
}
