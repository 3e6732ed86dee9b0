//! Round-trip time, as RFC 6298 and RFC 9002 (section 5) estimate it.

use core::time::Duration;

use crate::backoff::nanos;

/// Least worth of the variation unless set, so that a constant RTT does not fire timers by a clock tick.
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);

/// Latest, least and smoothed round-trip time, its variation, and the resend timeout from them.
#[derive(Clone, Debug)]
pub struct RttEstimator {
    latest: u64,
    min: u64,
    smoothed: u64,
    variation: u64,
    samples: u64,
    rto_initial: u64,
    rto_min: u64,
    rto_max: u64,
    granularity: u64,
}

impl RttEstimator {
    /// Without samples; timeouts are `rto_initial` until the first, then within the two bounds.
    pub fn new(rto_initial: Duration, rto_min: Duration, rto_max: Duration) -> Self {
        Self {
            latest: 0,
            min: 0,
            smoothed: 0,
            variation: 0,
            samples: 0,
            rto_initial: nanos(rto_initial),
            rto_min: nanos(rto_min),
            rto_max: nanos(rto_max),
            granularity: nanos(GRANULARITY),
        }
    }

    /// The same with another [`Config::granularity`](crate::Config::granularity).
    #[must_use]
    pub fn with_granularity(self, granularity: Duration) -> Self {
        Self { granularity: nanos(granularity), ..self }
    }

    /// Takes in one round trip. `delay` is how long the peer says that it kept the answer; it is
    /// believed only as far as the rest does not fall below the least RTT seen.
    pub fn on_sample(&mut self, rtt: Duration, delay: Duration) {
        let rtt = nanos(rtt);
        let delay = nanos(delay);
        self.latest = rtt;
        self.samples = self.samples.saturating_add(1);
        if self.samples == 1 {
            self.min = rtt;
            self.smoothed = rtt;
            self.variation = rtt / 2;
            return;
        }
        self.min = self.min.min(rtt);
        let adjusted = if rtt - self.min >= delay { rtt - delay } else { rtt };
        let off = self.smoothed.abs_diff(adjusted);
        self.variation = weighted(self.variation, 3, off);
        self.smoothed = weighted(self.smoothed, 7, adjusted);
    }

    /// The last round trip, the peer's delay included; zero before the first sample.
    pub const fn latest(&self) -> Duration {
        Duration::from_nanos(self.latest)
    }

    /// The least round trip; zero before the first sample.
    pub const fn min(&self) -> Duration {
        Duration::from_nanos(self.min)
    }

    /// The smoothed round trip; zero before the first sample.
    pub const fn smoothed(&self) -> Duration {
        Duration::from_nanos(self.smoothed)
    }

    /// The mean deviation from the smoothed round trip; zero before the first sample.
    pub const fn variation(&self) -> Duration {
        Duration::from_nanos(self.variation)
    }

    /// How many samples there were.
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// How long to wait for an ack before sending again, the peer's ack delay not included.
    pub fn rto(&self) -> Duration {
        Duration::from_nanos(self.rto_ns())
    }

    pub(crate) const fn smoothed_ns(&self) -> u64 {
        self.smoothed
    }

    /// How long after its sending a packet is asked after that nothing has overtaken, `least` at least.
    pub(crate) fn probe_ns(&self, least: u64) -> u64 {
        let slack = self.variation.saturating_mul(2).max(self.granularity);
        self.smoothed.saturating_add(slack).max(least).min(self.rto_max)
    }

    pub(crate) fn rto_ns(&self) -> u64 {
        if self.samples == 0 {
            return self.rto_initial;
        }
        let slack = self.variation.saturating_mul(4).max(self.granularity);
        self.smoothed.saturating_add(slack).max(self.rto_min).min(self.rto_max)
    }

    /// By how much packets of one path may change places: twice what the round trip varies by, and
    /// no less than RFC 9002 waits for (section 6.1.2).
    pub(crate) fn reordered_ns(&self) -> u64 {
        self.variation.saturating_mul(2).max(self.smoothed / 8).max(self.granularity)
    }

    /// How long after its sending a packet overtaken by an acknowledged one counts as lost:
    /// 9/8 of the larger of the latest and the smoothed RTT (RFC 9002, section 6.1.2).
    pub(crate) fn overtaken_ns(&self) -> u64 {
        let rtt = self.latest.max(self.smoothed);
        rtt.saturating_add(rtt / 8).max(self.granularity)
    }
}

/// What is kept of an estimator while it is not used: microseconds, saturating at 71 minutes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ParkedRtt {
    latest: u32,
    min: u32,
    smoothed: u32,
    variation: u32,
    samples: u32,
}

impl ParkedRtt {
    pub(crate) const fn samples(&self) -> u32 {
        self.samples
    }

    pub(crate) const fn smoothed(&self) -> Duration {
        Duration::from_micros(self.smoothed as u64)
    }
}

impl RttEstimator {
    pub(crate) fn park(&self) -> ParkedRtt {
        let micros = |nanos: u64| u32::try_from(nanos.div_ceil(1_000)).unwrap_or(u32::MAX);
        ParkedRtt {
            latest: micros(self.latest),
            min: micros(self.min),
            smoothed: micros(self.smoothed),
            variation: micros(self.variation),
            samples: u32::try_from(self.samples).unwrap_or(u32::MAX),
        }
    }

    pub(crate) const fn resume(&mut self, parked: ParkedRtt) {
        self.latest = parked.latest as u64 * 1_000;
        self.min = parked.min as u64 * 1_000;
        self.smoothed = parked.smoothed as u64 * 1_000;
        self.variation = parked.variation as u64 * 1_000;
        self.samples = parked.samples as u64;
    }
}

/// `(weight * old + new) / (weight + 1)` without overflow.
fn weighted(old: u64, weight: u64, new: u64) -> u64 {
    let sum = u128::from(old) * u128::from(weight) + u128::from(new);
    u64::try_from(sum / u128::from(weight + 1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn estimator() -> RttEstimator {
        RttEstimator::new(250 * MS, 10 * MS, 3_000 * MS)
    }

    #[test]
    fn the_first_sample_sets_everything() {
        let mut rtt = estimator();
        assert_eq!(rtt.rto(), 250 * MS);
        rtt.on_sample(100 * MS, 20 * MS);
        assert_eq!((rtt.latest(), rtt.min(), rtt.smoothed()), (100 * MS, 100 * MS, 100 * MS));
        assert_eq!(rtt.variation(), 50 * MS);
        assert_eq!(rtt.rto(), 300 * MS);
    }

    #[test]
    fn later_samples_are_weighted_an_eighth_and_a_quarter() {
        let mut rtt = estimator();
        rtt.on_sample(100 * MS, Duration::ZERO);
        rtt.on_sample(180 * MS, Duration::ZERO);
        assert_eq!(rtt.smoothed(), 110 * MS);
        assert_eq!(rtt.variation(), Duration::from_micros(57_500));
        assert_eq!(rtt.rto(), 340 * MS);
    }

    #[test]
    fn an_ack_delay_is_believed_down_to_the_least_rtt() {
        let mut rtt = estimator();
        rtt.on_sample(100 * MS, Duration::ZERO);
        rtt.on_sample(120 * MS, 20 * MS);
        assert_eq!(rtt.smoothed(), 100 * MS);
        // 120 - 60 would be below the least RTT: a liar, so the whole sample counts.
        rtt.on_sample(120 * MS, 60 * MS);
        assert_eq!(rtt.smoothed(), Duration::from_micros(102_500));
    }

    #[test]
    fn the_timeout_keeps_its_bounds() {
        let mut rtt = estimator();
        for _ in 0..100 {
            rtt.on_sample(MS, Duration::ZERO);
        }
        assert_eq!(rtt.rto(), 10 * MS);
        rtt.on_sample(Duration::MAX, Duration::MAX);
        assert_eq!(rtt.rto(), 3_000 * MS);
    }

    proptest! {
        #[test]
        fn no_sample_overflows(samples: Vec<(u64, u64)>) {
            let mut rtt = estimator();
            for (sample, delay) in samples {
                rtt.on_sample(Duration::from_nanos(sample), Duration::from_nanos(delay));
                prop_assert!(rtt.rto() >= 10 * MS && rtt.rto() <= 3_000 * MS);
                prop_assert!(rtt.min() <= rtt.latest());
                let _overtaken = rtt.overtaken_ns();
            }
        }
    }
}
