//! What a server counted.

use std::collections::VecDeque;

use twinspan_core::time::Timestamp;

use crate::measure::Latency;

/// Late ticks whose moment is kept for whoever asks why.
const LATE_TICKS_KEPT: usize = 1_024;

/// What a server counted.
#[derive(Debug)]
pub struct ServerStats {
    /// Ticks run.
    pub ticks: u64,
    /// Ticks that ended after the next one should have begun, or that were skipped.
    pub late_ticks: u64,
    /// Ticks left out after a stall.
    pub skipped_ticks: u64,
    /// How long ticks took, their sends in the first slot included.
    pub tick_time: Latency,
    /// When the last late ticks were scheduled.
    pub late_at: VecDeque<Timestamp>,
    /// State messages that the schedule asked for, those that were not sent among them.
    pub states_scheduled: u64,
    /// State messages that were not sent: their slot or their whole tick was missed. Of a state that
    /// was not begun nobody knows into how many messages it would have been cut: it counts as one.
    pub states_unsent: u64,
    /// Sum over all states of the entities in the client's area of interest, itself left out.
    pub visible_entities: u64,
    /// States over which `visible_entities` is summed.
    pub visible_samples: u64,
    /// Sampled checks that failed: of the world every 600 ticks, of buffers and of the packet numbers of
    /// one session in turn every tick; a defect of ours if ever above zero.
    pub invariants_broken: u64,
    /// Reliable messages that nobody had acknowledged when a drain closed the sessions.
    pub undelivered_at_end: u64,
}

impl Default for ServerStats {
    /// Nothing yet, and room for all late ticks: the first of them is no time to ask for it.
    fn default() -> Self {
        Self {
            ticks: 0,
            late_ticks: 0,
            skipped_ticks: 0,
            tick_time: Latency::default(),
            late_at: VecDeque::with_capacity(LATE_TICKS_KEPT),
            states_scheduled: 0,
            states_unsent: 0,
            visible_entities: 0,
            visible_samples: 0,
            invariants_broken: 0,
            undelivered_at_end: 0,
        }
    }
}

impl Clone for ServerStats {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Copies without allocating.
    fn clone_from(&mut self, source: &Self) {
        let mut tick_time = core::mem::replace(&mut self.tick_time, Latency::EMPTY);
        tick_time.clone_from(&source.tick_time);
        let mut late_at = core::mem::take(&mut self.late_at);
        late_at.clone_from(&source.late_at);
        let Self { ticks, late_ticks, skipped_ticks, states_scheduled, states_unsent, .. } =
            *source;
        let Self { visible_entities, visible_samples, invariants_broken, .. } = *source;
        let undelivered_at_end = source.undelivered_at_end;
        *self = Self {
            ticks,
            late_ticks,
            skipped_ticks,
            tick_time,
            late_at,
            states_scheduled,
            states_unsent,
            visible_entities,
            visible_samples,
            invariants_broken,
            undelivered_at_end,
        };
    }
}

impl ServerStats {
    /// Adds what others counted; of the moments of late ticks as many as are kept.
    pub fn add(&mut self, other: &Self) {
        let Self { ticks, late_ticks, skipped_ticks, tick_time, late_at, .. } = other;
        let Self { states_scheduled, states_unsent, visible_entities, visible_samples, .. } = other;
        let Self { invariants_broken, undelivered_at_end, .. } = other;
        self.ticks += ticks;
        self.late_ticks += late_ticks;
        self.skipped_ticks += skipped_ticks;
        self.tick_time.add(tick_time);
        let room = LATE_TICKS_KEPT - self.late_at.len().min(LATE_TICKS_KEPT);
        self.late_at.extend(late_at.iter().take(room));
        self.states_scheduled += states_scheduled;
        self.states_unsent += states_unsent;
        self.visible_entities += visible_entities;
        self.visible_samples += visible_samples;
        self.invariants_broken += invariants_broken;
        self.undelivered_at_end += undelivered_at_end;
    }

    /// A tick that was scheduled for this moment was late.
    pub(super) fn count_late(&mut self, scheduled: Timestamp) {
        self.late_ticks += 1;
        if self.late_at.len() == LATE_TICKS_KEPT {
            self.late_at.pop_front();
        }
        self.late_at.push_back(scheduled);
    }
}
