//! What a grid tells and counts.

use twinspan_circuit::{DeliveryId, Outcome, QueueEvent};

use crate::config::RegionId;

/// What a grid has to tell.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GridEvent {
    /// Somebody is in a region from now on.
    Arrived {
        /// Who, by circuit code.
        code: u32,
        /// Where.
        region: RegionId,
        /// From where; `None` at login.
        from: Option<RegionId>,
    },
    /// Somebody said something that is for everybody or for scripts.
    Chat {
        /// Who, by circuit code.
        code: u32,
        /// Where.
        region: RegionId,
        /// What.
        text: String,
        /// The channel; 0 is heard by people.
        channel: i32,
    },
    /// A journey came to nothing.
    TravelFailed {
        /// Whose, by circuit code.
        code: u32,
        /// Where to.
        to: RegionId,
    },
    /// Somebody is gone.
    Left {
        /// Who, by the circuit code that he had.
        code: u32,
        /// What he was called.
        name: String,
        /// Whether he said goodbye.
        asked: bool,
    },
    /// What became of messages sent by [`Grid::send_reliable`](crate::Grid::send_reliable).
    Delivery {
        /// Which region sent it.
        region: RegionId,
        /// What sending gave.
        id: DeliveryId,
        /// What became of them.
        outcome: Outcome,
    },
}

/// Something for an event queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// For whom, by circuit code.
    pub code: u32,
    /// On the queue of which region.
    pub region: RegionId,
    /// What.
    pub event: QueueEvent,
}

/// Counters of a grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GridStats {
    /// Messages that no region acts on, or that speak for somebody else.
    pub unused: u64,
    /// Words at a wrong time or in a wrong region.
    pub stale: u64,
    /// What could not be sent or told, because too much waited already.
    pub dropped: u64,
}
