//! What players did, counted.

use super::super::admission::MalformedCounts;
use crate::measure::Latency;

/// What players did and what became of it.
#[derive(Debug, Default)]
pub struct PlayerStats {
    /// Players that entered the world.
    pub joined: u64,
    /// Players that left it.
    pub left: u64,
    /// Players among those that entered who had been lost and found their entities again.
    pub returned: u64,
    /// Input messages taken.
    pub inputs: u64,
    /// Input messages that the numbers of those taken call for: what is missing was lost, or
    /// overtaken and of no more use.
    pub inputs_expected: u64,
    /// Input messages over the rate limit.
    pub inputs_flooding: u64,
    /// Messages that could not be decoded or came on a channel that clients do not use.
    pub malformed: u64,
    /// The same by what was wrong with them.
    pub malformed_by: MalformedCounts,
    /// Ticks in which a player's claimed position was not where authority put it.
    pub corrected: u64,
    /// Times that a client found its replica wrong and was told everything anew.
    pub keyframes_wanted: u64,
    /// Players closed for claims that no honest client makes.
    pub lying: u64,
    /// Reliable messages taken from clients.
    pub reliable_received: u64,
    /// Reliable messages handed to sessions.
    pub reliable_sent: u64,
    /// Actions whose number was not the one after the last: a broken promise of the channel.
    pub actions_out_of_order: u64,
    /// Actions over the rate limit.
    pub actions_flooding: u64,
    /// Actions that took effect.
    pub actions_applied: u64,
    /// Actions that the rules refused.
    pub actions_refused: u64,
    /// One-way latency of inputs, from the slot they were scheduled for.
    pub up: Latency,
}

impl Clone for PlayerStats {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Copies without allocating.
    fn clone_from(&mut self, source: &Self) {
        let mut up = core::mem::replace(&mut self.up, Latency::EMPTY);
        up.clone_from(&source.up);
        let Self { joined, left, returned, inputs, inputs_expected, inputs_flooding, .. } = *source;
        let Self {
            malformed,
            malformed_by,
            corrected,
            keyframes_wanted,
            lying,
            reliable_received,
            reliable_sent,
            ..
        } = *source;
        let Self { actions_out_of_order, actions_flooding, .. } = *source;
        let Self { actions_applied, actions_refused, .. } = *source;
        *self = Self {
            joined,
            left,
            returned,
            inputs,
            inputs_expected,
            inputs_flooding,
            malformed,
            malformed_by,
            corrected,
            keyframes_wanted,
            lying,
            reliable_received,
            reliable_sent,
            actions_out_of_order,
            actions_flooding,
            actions_applied,
            actions_refused,
            up,
        };
    }
}

impl PlayerStats {
    /// Adds what others counted.
    pub fn add(&mut self, other: &Self) {
        let Self { joined, left, returned, inputs, inputs_expected, inputs_flooding, .. } = other;
        let Self { malformed, malformed_by, corrected, keyframes_wanted, lying, .. } = other;
        let Self { reliable_received, reliable_sent, actions_out_of_order, .. } = other;
        let Self { actions_flooding, actions_applied, actions_refused, up, .. } = other;
        self.joined += joined;
        self.left += left;
        self.returned += returned;
        self.inputs += inputs;
        self.inputs_expected += inputs_expected;
        self.inputs_flooding += inputs_flooding;
        self.malformed += malformed;
        self.malformed_by.add(malformed_by);
        self.corrected += corrected;
        self.keyframes_wanted += keyframes_wanted;
        self.lying += lying;
        self.reliable_received += reliable_received;
        self.reliable_sent += reliable_sent;
        self.actions_out_of_order += actions_out_of_order;
        self.actions_flooding += actions_flooding;
        self.actions_applied += actions_applied;
        self.actions_refused += actions_refused;
        self.up.add(up);
    }
}
