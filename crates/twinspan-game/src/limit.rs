//! A token bucket: so many a second, a second's worth at once.

use twinspan_core::time::Timestamp;

/// Counts in nanoseconds of earned time, so that no rounding favours anybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// What one token costs.
    cost_nanos: u64,
    earned_nanos: u64,
    filled_at: Timestamp,
}

/// The most that can be earned: one second.
const EARNED_MAX: u64 = 1_000_000_000;

impl Bucket {
    /// A full bucket of `per_second` tokens; 0 is taken as 1.
    pub(crate) fn new(now: Timestamp, per_second: u32) -> Self {
        let cost_nanos = EARNED_MAX / u64::from(per_second.max(1));
        Self { cost_nanos, earned_nanos: EARNED_MAX, filled_at: now }
    }

    /// Takes one token; false when there is none.
    pub(crate) fn take(&mut self, now: Timestamp) -> bool {
        let passed = now.since(self.filled_at).as_nanos().min(u128::from(EARNED_MAX)) as u64;
        self.filled_at = self.filled_at.max(now);
        self.earned_nanos = (self.earned_nanos + passed).min(EARNED_MAX);
        let enough = self.earned_nanos >= self.cost_nanos;
        if enough {
            self.earned_nanos -= self.cost_nanos;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn a_second_s_worth_passes_at_once_and_then_the_rate() {
        let mut bucket = Bucket::new(Timestamp::START, 10);
        let passed = (0..20).filter(|_| bucket.take(Timestamp::START)).count();
        assert_eq!(passed, 10);
        let later = Timestamp::START.after(Duration::from_millis(300));
        let passed = (0..20).filter(|_| bucket.take(later)).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn time_that_runs_backwards_earns_nothing() {
        let late = Timestamp::START.after(Duration::from_secs(9));
        let mut bucket = Bucket::new(late, 1);
        assert!(bucket.take(late));
        assert!(!bucket.take(Timestamp::START));
        assert!(!bucket.take(late));
    }
}
