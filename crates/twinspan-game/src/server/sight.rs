//! What one client's state is made of, and how many bytes it may have.

use twinspan_session::SessionKey;
use twinspan_world::{Baselines, EntityId, StateHeader, Subscriptions, TICK_HZ};

use super::flow::Flow;
use super::shard::PACKET_OVERHEAD_BYTES;

/// What of an [`Outlook`] a state surely touches: all of it.
pub(super) const OUTLOOK_BYTES_USED: usize = size_of::<Outlook>();

/// What is kept of one player for its states alone; what is used most comes first.
#[repr(C)]
pub(super) struct Outlook {
    pub(super) session: SessionKey,
    pub(super) entity: EntityId,
    pub(super) allowance: Allowance,
    pub(super) flow: Flow,
    pub(super) subscriptions: Subscriptions,
    pub(super) baselines: Baselines,
}

/// What a state for one player is made of.
pub(super) struct Sight<'a> {
    pub(super) header: StateHeader,
    pub(super) subscriptions: &'a Subscriptions,
    pub(super) baselines: &'a mut Baselines,
    /// Bytes that the state may have.
    pub(super) budget: usize,
}

/// Bytes of state that a client may be sent: so many a second, a quarter of a second's worth at
/// once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) per_second: u32,
    /// In bytes; below zero after a header went that was not earned.
    left: i64,
    /// The tick up to which bytes were earned.
    earned_at: u32,
}

/// A quarter of a second.
const ALLOWANCE_TICKS: u32 = TICK_HZ / 4;
/// Two states and a half.
const BURST_TICKS: u32 = TICK_HZ / 8;

impl Allowance {
    pub(super) const fn new(per_second: u32) -> Self {
        Self { per_second, left: per_second as i64 / 4, earned_at: 0 }
    }

    /// The bytes that a state of `tick` may have, less what its packet adds. `limit` is what the path
    /// bears in a second.
    pub(super) fn at(&mut self, tick: u32, limit: u32) -> usize {
        let ticks = tick.saturating_sub(self.earned_at).min(ALLOWANCE_TICKS);
        self.earned_at = tick;
        let per_second = i64::from(self.per_second.min(limit));
        // Where the path is the limit, what comes at once waits on it.
        let kept = if limit < self.per_second { BURST_TICKS } else { ALLOWANCE_TICKS };
        let most = per_second * i64::from(kept) / i64::from(TICK_HZ);
        // Small rates earn whole bytes over a state's three ticks or more.
        let earned = per_second * i64::from(ticks) / i64::from(TICK_HZ);
        self.left = (self.left + earned).min(most);
        let packets = 1 + self.left.max(0) as usize / PACKET_BYTES;
        (self.left.max(0) as usize).saturating_sub(packets * PACKET_OVERHEAD_BYTES)
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.left -= bytes as i64;
    }
}

/// Bytes of state in a full packet.
const PACKET_BYTES: usize = 700;
