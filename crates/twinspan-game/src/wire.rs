//! The channels of the game on a session.

use twinspan_reliable::{Channel, Delivery, StreamId};

/// Client to server, 60 a second: the newest inputs and the few before them. Late ones are welcome,
/// because the world puts inputs in order and drops what it has: sequencing them here would turn
/// reordering into loss.
pub const INPUT: Channel = Channel { delivery: Delivery::Unreliable, stream: StreamId::INPUT };
/// Server to client, 20 a second: the state of the area of interest. Every part stands alone, so
/// parts are not dropped for being older than another part of the same state.
pub const STATE: Channel = Channel { delivery: Delivery::Unreliable, stream: StreamId::STATE };
/// Both ways: what must arrive, once and in order.
pub const EVENTS: Channel = Channel { delivery: Delivery::Ordered, stream: StreamId::EVENTS };

/// Ticks in one state period: 60 Hz simulation, 20 Hz state.
pub(crate) const TICKS_PER_STATE: u32 = 3;
