//! How often states are made: less often while ticks overrun, because nothing else may suffer.

use core::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_session::SessionKey;
use twinspan_world::{TICK_HZ, tick_duration};

use crate::wire::TICKS_PER_STATE;

/// Ticks over which lateness is judged: a second.
const WINDOW_TICKS: u32 = TICK_HZ;
/// Late ticks of a window that call for fewer states: a stall of half a second does not.
const LATE_TICKS_MAX: u32 = 45;
/// Windows with hardly a late tick after which there are more states again.
const CALM_WINDOWS: u32 = 5;
/// The most of them: how many are asked for doubles whenever more states were soon too many.
const CALM_WINDOWS_MAX: u32 = 80;
/// So many windows after it was tried, the higher rate has proved itself.
const PROVEN_WINDOWS: u32 = 10;
/// Late ticks of a calm window.
const CALM_TICKS_MAX: u32 = 2;
/// The most state periods from one state of a client to its next: 20, 10, 6.7 Hz.
const FACTOR_MAX: u8 = 3;

/// For how long every call must bring as many datagrams as fit before that means that more come than
/// are taken.
const PRESSED_AFTER: Duration = Duration::from_millis(50);

/// The state rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    factor: u8,
    ticks: u32,
    late: u32,
    calm: u32,
    /// Whether the present tick was late, took too long, or more came than was taken.
    is_strained: bool,
    /// Calm windows that are asked for.
    calm_needed: u32,
    /// Windows since there were more states again.
    tried: u32,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self {
            factor: 1,
            ticks: 0,
            late: 0,
            calm: 0,
            is_strained: false,
            calm_needed: CALM_WINDOWS,
            tried: PROVEN_WINDOWS,
        }
    }

    /// State periods from one state of a client to its next.
    pub(super) const fn factor(&self) -> u8 {
        self.factor
    }

    /// Ticks from one state of a client to its next.
    pub(super) const fn ticks_per_state(&self) -> u8 {
        self.factor * TICKS_PER_STATE as u8
    }

    /// Whether it is this client's turn in the state period of `tick`.
    pub(super) const fn is_turn(&self, tick: u32, session: SessionKey) -> bool {
        let period = (tick / TICKS_PER_STATE) as usize;
        (period + session.index()).is_multiple_of(self.factor as usize)
    }

    /// A tick was late, or took too long, or more comes than is taken.
    pub(super) const fn on_late(&mut self) {
        self.is_strained = true;
    }

    /// A tick is run or skipped.
    pub(super) const fn on_tick(&mut self) {
        self.ticks += 1;
        if core::mem::replace(&mut self.is_strained, false) {
            self.late += 1;
        }
        if self.ticks == WINDOW_TICKS {
            self.on_window();
            (self.ticks, self.late) = (0, 0);
        }
    }

    const fn on_window(&mut self) {
        self.tried = self.tried.saturating_add(1);
        if self.late >= LATE_TICKS_MAX {
            self.calm = 0;
            if self.factor < FACTOR_MAX {
                self.factor += 1;
                let doubled = self.calm_needed * 2;
                self.calm_needed = if self.tried > PROVEN_WINDOWS {
                    CALM_WINDOWS
                } else if doubled < CALM_WINDOWS_MAX {
                    doubled
                } else {
                    CALM_WINDOWS_MAX
                };
            }
        } else if self.late > CALM_TICKS_MAX {
            self.calm = 0;
        } else {
            self.calm += 1;
        }
        if self.calm == self.calm_needed && self.factor > 1 {
            self.calm = 0;
            self.factor -= 1;
            self.tried = 0;
        }
    }
}

/// Whether more datagrams come than are taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Press {
    /// The first and the last of the calls in a row that were full.
    full: Option<(Timestamp, Timestamp)>,
}

impl Press {
    pub(super) fn on_call(&mut self, now: Timestamp, is_full: bool) {
        let first = self.full.map_or(now, |(first, _)| first);
        self.full = is_full.then_some((first, now));
    }

    /// Whether it has lasted, up to a tick ago.
    pub(super) fn is_on(&self, now: Timestamp) -> bool {
        self.full.is_some_and(|(first, last)| {
            last.since(first) >= PRESSED_AFTER && now.since(last) < tick_duration()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pace: &mut Pace, seconds: u32, late_of_60: u32) -> u8 {
        for tick in 0..seconds * 60 {
            if tick % 60 < late_of_60 {
                pace.on_late();
            }
            pace.on_tick();
        }
        pace.factor()
    }

    #[test]
    fn a_second_of_overruns_halves_the_rate_and_calm_brings_it_back() {
        let mut pace = Pace::new();
        assert_eq!(run(&mut pace, 10, 44), 1, "a stall is no overload");
        assert_eq!(run(&mut pace, 1, 60), 2);
        assert_eq!(run(&mut pace, 1, 60), 3);
        assert_eq!(run(&mut pace, 9, 60), 3, "no slower than 6.7 Hz");
        assert_eq!(run(&mut pace, 4, 0), 3);
        assert_eq!(run(&mut pace, 1, 0), 2);
        assert_eq!(run(&mut pace, 30, 10), 2, "half calm changes nothing");
        assert_eq!(run(&mut pace, 5, 2), 1);
        assert_eq!(run(&mut pace, 60, 0), 1);
    }

    #[test]
    fn a_rate_that_was_soon_too_high_is_tried_less_and_less_often() {
        let mut pace = Pace::new();
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert_eq!(run(&mut pace, 1, 60), 2);
            let mut calm = 0;
            while run(&mut pace, 1, 0) == 2 {
                calm += 1;
            }
            waits.push(calm + 1);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 80]);
        run(&mut pace, 10, 0);
        assert_eq!(run(&mut pace, 1, 60), 2, "it held for ten seconds");
        assert_eq!(run(&mut pace, 4, 0), 2);
        assert_eq!(run(&mut pace, 1, 0), 1, "so it is tried soon again");
    }
}
