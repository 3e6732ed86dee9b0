//! When ticks are due, and which of them are late or left out.

use twinspan_core::time::Timestamp;
use twinspan_world::{TICK_HZ, tick_duration};

/// Ticks that are made up for after a stall; more are skipped, so that a long stall is not followed
/// by a burst of work that causes the next one.
const CATCH_UP_TICKS_MAX: u32 = 4;
/// The tick at which a server drains by itself, after 828 days: ticks have 32 bits on the wire, and
/// a quarter of an hour is enough to say good-bye.
const TICK_LAST: u32 = u32::MAX - 15 * 60 * TICK_HZ;

/// Turns for which a due tick lets the states of the one before go out first: some milliseconds, so
/// that a moment's lateness costs nobody a state.
const HELD_TURNS_MAX: u32 = 8;

/// A tick that is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct DueTick {
    pub(super) tick: u32,
    pub(super) scheduled: Timestamp,
    /// The next one should have begun: it is late however quick it is.
    pub(super) is_late: bool,
    /// Too many came due at once: it is left out.
    pub(super) is_skipped: bool,
    /// The numbers run out.
    pub(super) is_last: bool,
}

/// The world's time.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When tick 0 was scheduled; `None` until the first call.
    began_at: Option<Timestamp>,
    /// The tick to run next.
    next_tick: u32,
    /// Turns for which the due tick was held back.
    held: u32,
    /// Ticks of the present call that ran.
    in_call: u32,
    /// The last tick of the present call that ran, for [`Clock::on_elapsed`].
    ran: Option<DueTick>,
}

impl Clock {
    /// The moment of tick 0, unless there was one.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.began_at.get_or_insert(now);
        self.in_call = 0;
    }

    fn at(&self, tick: u32) -> Timestamp {
        self.began_at.unwrap_or_default().after(tick_duration().saturating_mul(tick))
    }

    /// When the next tick is due; `None` before the first call.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.began_at.map(|_| self.at(self.next_tick))
    }

    /// Whether the due tick waits for a turn: it replaces what states are made of, so those of the
    /// present tick that a late turn left over go out first.
    pub(super) fn holds(&mut self, now: Timestamp, leaves_states: bool) -> bool {
        let is_due = now >= self.at(self.next_tick);
        let is_held = is_due && leaves_states && self.held < HELD_TURNS_MAX;
        self.held = if is_held { self.held + 1 } else { 0 };
        is_held
    }

    /// The next tick that is due; it counts as run unless it is to be skipped.
    pub(super) fn next_due(&mut self, now: Timestamp) -> Option<DueTick> {
        let (tick, scheduled) = (self.next_tick, self.at(self.next_tick));
        if now < scheduled {
            return None;
        }
        self.next_tick = tick.wrapping_add(1);
        let due = DueTick {
            tick,
            scheduled,
            is_late: now >= scheduled.after(tick_duration()),
            is_skipped: self.in_call == CATCH_UP_TICKS_MAX,
            is_last: self.next_tick >= TICK_LAST,
        };
        if !due.is_skipped {
            self.in_call += 1;
            self.ran = Some(due);
        }
        Some(due)
    }

    /// The tick that the last call ran, when it ran one; its moment when it took too long and was
    /// not counted as late before.
    pub(super) fn on_elapsed(&mut self, ended: Timestamp) -> Option<Option<Timestamp>> {
        let DueTick { scheduled, is_late, .. } = self.ran.take()?;
        let is_over = !is_late && ended > scheduled.after(tick_duration());
        Some(is_over.then_some(scheduled))
    }

    /// Lets the ticks begin near their end, for a test.
    #[cfg(test)]
    pub(super) const fn skip_to_the_end(&mut self) {
        self.next_tick = TICK_LAST - 1;
    }
}
