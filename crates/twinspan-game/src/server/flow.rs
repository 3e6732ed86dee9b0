//! How many bytes of state a client's path bears: less as soon as they queue up on the way.
//!
//! Congestion control below watches losses, and by the time that a long queue loses something every
//! state in it is old. This watches the round trip: what it takes longer than its least is time spent
//! in queues. Then, and when many packets are lost, a client gets less than arrived of late, and the
//! world tells it what matters most; when the queue is gone it gets more, step by step.

use core::time::Duration;

use twinspan_session::FlowStats;
use twinspan_world::TICK_HZ;

use super::shard::PACKET_OVERHEAD_BYTES;

/// Ticks between two looks at a client's path.
const LOOK_TICKS: u32 = TICK_HZ / 4;
/// The longest that packets may wait in queues, in microseconds: below it is jitter.
const QUEUE_MAX_US: u32 = 40_000;
/// Ticks after which the least round trip is forgotten, if it did not come again: twice that at most.
const LEAST_RTT_TICKS: u32 = 10 * TICK_HZ;
/// Of a hundred packets, how many may be lost before there must be fewer of them.
const LOST_MAX: u64 = 10;
/// Packets that must have been lost between two looks to say anything.
const LOST_MIN: u64 = 4;
/// The least that a client gets, in bytes a second: headers twenty times, and some news.
const LEAST_PER_SECOND: u64 = 4_000;
/// The least that it gets more at once, in bytes a second.
const STEP_MIN: u32 = 64;

/// What is known of one client's path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// Bytes a second; above every allowance while nothing limits them.
    limit: u32,
    looked_at: u32,
    /// What the path bore when it last bore no more.
    borne: u32,
    /// The least round trips of the present span and of the one before, in microseconds.
    least_us: [u32; 2],
    /// 0 before the first look.
    span_until: u32,
    /// What the session knows of its least round trip may be of another path.
    has_moved: bool,
    /// No judgement before: what was changed shows after a round trip.
    judge_from: u32,
    bytes_acked: u64,
    packets_acked: u64,
    packets_lost: u64,
}

impl Flow {
    pub(super) const fn new() -> Self {
        Self {
            limit: u32::MAX,
            looked_at: 0,
            borne: u32::MAX,
            least_us: [u32::MAX; 2],
            span_until: 0,
            has_moved: false,
            judge_from: 0,
            bytes_acked: 0,
            packets_acked: 0,
            packets_lost: 0,
        }
    }

    /// Bytes a second that the path bears; `u32::MAX` while no limit was met.
    pub(super) const fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether to [`look`](Self::look) in this tick.
    pub(super) const fn is_due(&self, tick: u32) -> bool {
        tick.wrapping_sub(self.looked_at) >= LOOK_TICKS
    }

    /// The client is elsewhere, and nothing is known of the way there.
    pub(super) const fn forget(&mut self) {
        let Self { looked_at, bytes_acked, packets_acked, packets_lost, .. } = *self;
        let new = Self { has_moved: true, ..Self::new() };
        *self = Self { looked_at, bytes_acked, packets_acked, packets_lost, ..new };
    }

    /// Takes in how packets fared; `most` is what the client would get on a path without limits.
    pub(super) fn look(&mut self, tick: u32, seen: &FlowStats, most: u32) {
        let is_first = self.span_until == 0;
        let ticks = tick.wrapping_sub(core::mem::replace(&mut self.looked_at, tick));
        let before = (self.bytes_acked, self.packets_acked, self.packets_lost);
        self.bytes_acked = seen.bytes_acked;
        self.packets_acked = seen.packets_acked;
        self.packets_lost = seen.packets_lost;
        let has_restarted = seen.packets_acked < before.1 || seen.packets_lost < before.2;
        if seen.rtt == Duration::ZERO || has_restarted {
            return;
        }
        let rtt_us = micros(seen.rtt);
        if is_first && !self.has_moved {
            self.least_us = [micros(seen.rtt_min), u32::MAX];
        }
        let queue_us = rtt_us - self.least(tick, rtt_us);
        if is_first {
            // What congestion control takes for safe on a path of which little is known.
            let safe = seen.budget_bytes_per_s.max(LEAST_PER_SECOND);
            let safe = u32::try_from(safe).unwrap_or(u32::MAX);
            self.limit = if safe < most { safe } else { u32::MAX };
            return;
        }
        if tick < self.judge_from {
            return;
        }
        let acked = seen.packets_acked - before.1;
        let lost = seen.packets_lost - before.2;
        let is_lossy = lost >= LOST_MIN && lost * 100 > (lost + acked) * LOST_MAX;
        let per_second = |count: u64| count * u64::from(TICK_HZ) / u64::from(ticks.max(1));
        let arrived = per_second(seen.bytes_acked.saturating_sub(before.0));
        // What packets add counts against the limit, too. Small limits are nearly all of it: without,
        // they would never look used. Greater ones would grow into the path's queue with it.
        let headers = if u64::from(self.limit) < 2 * LEAST_PER_SECOND { acked } else { 0 };
        let used = arrived + per_second(headers * PACKET_OVERHEAD_BYTES as u64);
        if queue_us > QUEUE_MAX_US || is_lossy {
            let less = Self::less_than(arrived, queue_us);
            // Where no queue forms, losses alone tell, and congestion control weighs those.
            let is_queue = queue_us > QUEUE_MAX_US;
            let less = if is_queue { less } else { less.max(seen.budget_bytes_per_s) };
            let less = u32::try_from(less.max(LEAST_PER_SECOND)).unwrap_or(u32::MAX);
            if less < self.limit.min(most) {
                self.limit = less;
                self.borne = u32::try_from(arrived).unwrap_or(u32::MAX);
            }
            let round_trip = u64::from(rtt_us) * u64::from(TICK_HZ) / 1_000_000;
            self.judge_from = tick.saturating_add(round_trip as u32 + LOOK_TICKS);
        } else if self.limit < most && used * 5 / 4 > u64::from(self.limit) {
            // What arrives as it leaves may be more: quickly where it is known to go well, slowly
            // around what the path bore before, quicker again when it bears clearly more now.
            let of = match (self.limit, self.borne) {
                (limit, borne) if limit < borne - borne / 8 => 8,
                (limit, borne) if limit < borne.saturating_add(borne / 4) => 48,
                _ => 16,
            };
            let step = self.limit / of;
            let more = self.limit.saturating_add(step.max(STEP_MIN));
            self.limit = if more < most { more } else { u32::MAX };
        }
    }

    /// So much less than arrived that the queue is gone in a second or little more.
    fn less_than(arrived: u64, queue_us: u32) -> u64 {
        arrived - arrived * u64::from(queue_us / 1_000).clamp(125, 500) / 1_000
    }

    /// The least round trip of late, this one included.
    fn least(&mut self, tick: u32, rtt_us: u32) -> u32 {
        let [now, before] = self.least_us;
        if tick >= self.span_until {
            self.least_us = [rtt_us, now];
            self.span_until = tick.saturating_add(LEAST_RTT_TICKS);
        } else {
            self.least_us = [now.min(rtt_us), before];
        }
        let [now, before] = self.least_us;
        now.min(before)
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
