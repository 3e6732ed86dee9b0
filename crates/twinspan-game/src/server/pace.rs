//! How often states are made: less often while ticks overrun, because nothing else may suffer.

use twinspan_session::SessionKey;
use twinspan_world::TICK_HZ;

use crate::wire::TICKS_PER_STATE;

/// Ticks over which lateness is judged: a second.
const WINDOW_TICKS: u32 = TICK_HZ;
/// Late ticks of a window that call for fewer states: a stall of half a second does not.
const LATE_TICKS_MAX: u32 = 45;
/// Windows without hardly a late tick after which there are more states again.
const CALM_WINDOWS: u32 = 5;
/// Late ticks of a calm window.
const CALM_TICKS_MAX: u32 = 2;
/// The most state periods from one state of a client to its next: 20, 10, 6.7 Hz.
const FACTOR_MAX: u8 = 3;

/// The state rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    factor: u8,
    ticks: u32,
    late: u32,
    calm: u32,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { factor: 1, ticks: 0, late: 0, calm: 0 }
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

    /// A tick was late, or took too long.
    pub(super) const fn on_late(&mut self) {
        self.late += 1;
    }

    /// A tick is run or skipped.
    pub(super) const fn on_tick(&mut self) {
        self.ticks += 1;
        if self.ticks < WINDOW_TICKS {
            return;
        }
        if self.late >= LATE_TICKS_MAX {
            self.calm = 0;
            if self.factor < FACTOR_MAX {
                self.factor += 1;
            }
        } else if self.late > CALM_TICKS_MAX {
            self.calm = 0;
        } else {
            self.calm += 1;
        }
        if self.calm == CALM_WINDOWS {
            self.calm = 0;
            if self.factor > 1 {
                self.factor -= 1;
            }
        }
        (self.ticks, self.late) = (0, 0);
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
}
