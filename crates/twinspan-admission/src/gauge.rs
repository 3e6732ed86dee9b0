//! A rate and a burst in eight bytes: when what was spent will have been earned again.

use core::time::Duration;

use twinspan_core::time::Timestamp;

/// Nanoseconds of one second.
const SECOND: u64 = 1_000_000_000;

/// How much may pass: so many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// What one costs, in nanoseconds of earning.
    cost: u64,
    /// The most that can be owed.
    limit: u64,
}

impl Allowance {
    /// `per_second` above 0, `burst` at least 1: the settings' ranges say so, and what is out of
    /// them is brought to their ends.
    pub(crate) fn new(per_second: f64, burst: u64) -> Self {
        // A float cast saturates.
        let cost = ((SECOND as f64 / per_second.max(1e-6)) as u64).max(1);
        Self { cost, limit: cost.saturating_mul(burst.max(1)) }
    }

    /// The same at so many times the cost.
    #[must_use]
    pub(crate) const fn dearer(self, times: u64) -> Self {
        Self { cost: self.cost.saturating_mul(times), limit: self.limit }
    }

    /// How long it takes until nothing is owed any more, at most.
    #[cfg(test)]
    pub(crate) const fn memory(self) -> Duration {
        Duration::from_nanos(self.limit)
    }
}

/// When what was spent will have been earned again: the whole state of a bucket.
///
/// A gauge in the past is as good as a new one, so forgetting such a gauge changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauge(u64);

impl Gauge {
    /// Whether it is as good as a new one.
    pub(crate) const fn is_idle(self, now: Timestamp) -> bool {
        self.0 <= now.as_nanos()
    }

    /// What is owed.
    pub(crate) const fn owed(self, now: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.as_nanos()))
    }

    /// Whether one more may pass.
    pub(crate) const fn has_room(self, now: Timestamp, allowance: Allowance) -> bool {
        let owed = self.0.saturating_sub(now.as_nanos());
        owed.saturating_add(allowance.cost) <= allowance.limit
    }

    /// Takes one; false, and nothing is taken, when there is none.
    pub(crate) fn take(&mut self, now: Timestamp, allowance: Allowance) -> bool {
        let has_room = self.has_room(now, allowance);
        if has_room {
            self.spend(now, allowance);
        }
        has_room
    }

    /// Takes one whether there is one or not; what is owed ends at the allowance's limit, so that
    /// however much was taken it is earned again in bounded time.
    pub(crate) fn spend(&mut self, now: Timestamp, allowance: Allowance) {
        let owed = self.0.saturating_sub(now.as_nanos()).saturating_add(allowance.cost);
        self.0 = now.as_nanos().saturating_add(owed.min(allowance.limit));
    }
}

/// Points against somebody that decay evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score(u64);

impl Score {
    /// The score now, in points.
    pub(crate) fn points(self, now: Timestamp, decay: Decay) -> f64 {
        self.0.saturating_sub(now.as_nanos()) as f64 / decay.point as f64
    }

    /// Whether it is above so many points.
    pub(crate) const fn is_above(self, now: Timestamp, decay: Decay, points: u32) -> bool {
        self.0.saturating_sub(now.as_nanos()) > decay.point.saturating_mul(points as u64)
    }

    /// Adds points; the score ends at `most`, so that it decays in bounded time.
    pub(crate) fn add(&mut self, now: Timestamp, decay: Decay, points: u32, most: u32) {
        let before = self.0.saturating_sub(now.as_nanos());
        let after = before.saturating_add(decay.point.saturating_mul(u64::from(points)));
        let most = decay.point.saturating_mul(u64::from(most));
        self.0 = now.as_nanos().saturating_add(after.min(most));
    }
}

/// How long a point stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decay {
    /// Nanoseconds in which one point decays.
    point: u64,
}

impl Decay {
    /// So many points a second, above 0.
    pub(crate) fn new(per_second: f64) -> Self {
        // A float cast saturates.
        Self { point: ((SECOND as f64 / per_second.max(1e-6)) as u64).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let allowance = Allowance::new(10.0, 20);
        let mut gauge = Gauge::default();
        assert_eq!((0..50).filter(|_| gauge.take(at(5), allowance)).count(), 20);
        assert_eq!((0..50).filter(|_| gauge.take(at(305), allowance)).count(), 3);
        assert!(!gauge.is_idle(at(305)));
        assert!(gauge.is_idle(at(305).after(allowance.memory())));
    }

    #[test]
    fn time_that_runs_backwards_earns_nothing() {
        let allowance = Allowance::new(1.0, 1);
        let mut gauge = Gauge::default();
        assert!(gauge.take(at(9_000), allowance));
        assert!(!gauge.take(at(0), allowance));
        assert!(!gauge.take(at(9_000), allowance));
    }

    #[test]
    fn a_score_decays_evenly_and_ends_at_its_most() {
        let decay = Decay::new(10.0);
        let mut score = Score::default();
        score.add(at(0), decay, 30, 100);
        assert!(score.is_above(at(0), decay, 29) && !score.is_above(at(0), decay, 30));
        assert!((score.points(at(1_000), decay) - 20.0).abs() < 1e-9);
        for _ in 0..100 {
            score.add(at(1_000), decay, u32::MAX, 100);
        }
        assert!((score.points(at(1_000), decay) - 100.0).abs() < 1e-9);
        assert!(!score.is_above(at(11_000), decay, 0));
    }

    /// The bucket as one would write it with fractions.
    struct Model {
        tokens: f64,
        at: f64,
    }

    proptest! {
        #[test]
        fn a_gauge_is_a_token_bucket(
            per_second in 1_u32..1_000,
            burst in 1_u64..100,
            waits in prop::collection::vec(0_u64..2_000, 1..200),
        ) {
            let allowance = Allowance::new(f64::from(per_second), burst);
            let cost = (SECOND as f64 / f64::from(per_second)) as u64;
            let mut gauge = Gauge::default();
            let mut model = Model { tokens: burst as f64, at: 0.0 };
            let mut now = 0;
            for wait in waits {
                // Whole costs and halves, so that no rounding decides.
                now += wait * cost / 2;
                let passed = (now as f64 - model.at) / cost as f64;
                model.tokens = (model.tokens + passed).min(burst as f64);
                model.at = now as f64;
                let wanted = model.tokens >= 1.0 - 1e-3;
                if wanted {
                    model.tokens -= 1.0;
                }
                prop_assert_eq!(gauge.take(Timestamp::from_nanos(now), allowance), wanted);
            }
        }

        #[test]
        fn nothing_overflows(
            per_second in prop::num::f64::ANY,
            burst: u64,
            times in prop::collection::vec(any::<u64>(), 1..50),
        ) {
            let allowance = Allowance::new(per_second, burst).dearer(4);
            let decay = Decay::new(per_second);
            let (mut gauge, mut score) = (Gauge::default(), Score::default());
            for nanos in times {
                let now = Timestamp::from_nanos(nanos);
                gauge.take(now, allowance);
                gauge.spend(now, allowance);
                score.add(now, decay, u32::MAX, u32::MAX);
                prop_assert!(score.points(now, decay) >= 0.0);
            }
        }
    }
}
