//! Whether packing pays: by what it saves and what it costs, asked again now and then.

use std::time::Duration;

/// Messages of a trial.
const TRIAL_MESSAGES: u32 = 16;
/// Messages after which packing that is on is judged again.
const WINDOW_MESSAGES: u32 = 256;
/// Messages that are left alone behind the first trial that failed; twice as many behind each further.
const REST_MIN: u32 = 256;
/// The most that are left alone.
const REST_MAX: u32 = 65_536;
/// What a saved byte is worth: the time that it takes on a link of 1 Gbit/s.
const WORTH_NS_PER_BYTE: u128 = 8;
/// A packed message is at most so many hundredths of what it was, else the reader's work is wasted.
const KEPT_PERCENT_MAX: u64 = 95;

/// Decides which messages packing is tried on.
#[derive(Debug)]
pub(super) struct Judge {
    state: State,
    /// How long the next rest is.
    rest: u32,
    tried: u32,
    before: u64,
    after: u64,
    cost: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Trial,
    On,
    /// So many messages are left alone.
    Rest(u32),
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            state: State::Trial,
            rest: REST_MIN,
            tried: 0,
            before: 0,
            after: 0,
            cost: Duration::ZERO,
        }
    }
}

impl Judge {
    /// Whether to try the next message.
    pub(super) fn tries(&mut self) -> bool {
        match &mut self.state {
            State::Trial | State::On => true,
            State::Rest(1) => {
                self.state = State::Trial;
                // The one that ends the rest is left alone too.
                false
            }
            State::Rest(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Whether packing is on or on trial.
    pub(super) const fn is_on(&self) -> bool {
        !matches!(self.state, State::Rest(_))
    }

    /// Takes note of one message that was tried; true when packing was just found not to pay.
    pub(super) fn judge(&mut self, before: usize, after: usize, cost: Duration) -> bool {
        self.tried += 1;
        self.before += before as u64;
        self.after += after as u64;
        self.cost += cost;
        let enough = if self.state == State::On { WINDOW_MESSAGES } else { TRIAL_MESSAGES };
        if self.tried < enough {
            return false;
        }
        let pays = self.pays();
        (self.tried, self.before, self.after, self.cost) = (0, 0, 0, Duration::ZERO);
        if pays {
            (self.state, self.rest) = (State::On, REST_MIN);
        } else {
            self.state = State::Rest(self.rest);
            self.rest = (self.rest * 2).min(REST_MAX);
        }
        !pays
    }

    fn pays(&self) -> bool {
        let saved = self.before.saturating_sub(self.after);
        self.after * 100 <= self.before * KEPT_PERCENT_MAX
            && self.cost.as_nanos() <= u128::from(saved) * WORTH_NS_PER_BYTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges messages of 1,000 bytes until the trial or the window is over.
    fn until_judged(judge: &mut Judge, after: usize, cost: Duration) -> (u32, bool) {
        for count in 1..=WINDOW_MESSAGES {
            assert!(judge.tries());
            let went_off = judge.judge(1_000, after, cost);
            if judge.tried == 0 {
                return (count, went_off);
            }
        }
        unreachable!("a window ends");
    }

    #[test]
    fn what_saves_much_at_little_cost_stays_on() {
        let mut judge = Judge::default();
        assert_eq!(until_judged(&mut judge, 500, Duration::from_micros(4)), (16, false));
        assert_eq!(until_judged(&mut judge, 500, Duration::from_micros(4)), (256, false));
        assert!(judge.is_on());
    }

    #[test]
    fn what_saves_little_or_costs_much_goes_off() {
        for (after, cost) in [
            (951, Duration::ZERO),
            (1_000, Duration::ZERO),
            // 500 bytes are worth 4 us.
            (500, Duration::from_nanos(4_001)),
        ] {
            let mut judge = Judge::default();
            assert_eq!(until_judged(&mut judge, after, cost), (16, true), "{after} {cost:?}");
            assert!(!judge.is_on());
        }
        let mut judge = Judge::default();
        assert_eq!(until_judged(&mut judge, 950, Duration::ZERO), (16, false));
    }

    #[test]
    fn it_is_tried_again_after_rests_that_grow_to_a_limit() {
        let mut judge = Judge::default();
        let mut rests = Vec::new();
        for _ in 0..11 {
            assert_eq!(until_judged(&mut judge, 1_000, Duration::ZERO), (16, true));
            let mut rest = 0;
            while !judge.tries() {
                rest += 1;
            }
            rests.push(rest);
            // The look that found the end of the rest was the first of the trial.
            judge.state = State::Trial;
        }
        let expected =
            [256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 65_536, 65_536];
        assert_eq!(rests, expected);
        // Success makes the next rest short again.
        assert_eq!(until_judged(&mut judge, 100, Duration::ZERO), (16, false));
        assert_eq!(until_judged(&mut judge, 1_000, Duration::ZERO), (256, true));
        assert_eq!(judge.state, State::Rest(256));
    }
}
