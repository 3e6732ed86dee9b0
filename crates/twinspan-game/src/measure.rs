//! Latency histograms with three significant digits and a fixed size.

use core::time::Duration;

use hdrhistogram::Histogram;
use twinspan_core::time::Timestamp;

/// The longest latency that is told apart, in nanoseconds; longer ones count as this.
const LONGEST_NANOS: u64 = 60_000_000_000;

/// A histogram of durations from 1 µs to 60 s; recording never allocates.
#[derive(Debug)]
pub struct Latency {
    histogram: Option<Histogram<u32>>,
}

/// What a summary shows of a [`Latency`], in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// Half of the samples are no longer than this.
    pub p50_ms: f64,
    /// 99 % of the samples are no longer than this.
    pub p99_ms: f64,
    /// 99.9 % of the samples are no longer than this.
    pub p999_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        // The bounds are constants that the constructor accepts; without a histogram nothing would
        // be recorded and the percentiles would read zero, which a test rules out.
        Self { histogram: Histogram::new_with_bounds(1_000, LONGEST_NANOS, 3).ok() }
    }
}

impl Clone for Latency {
    fn clone(&self) -> Self {
        Self { histogram: self.histogram.clone() }
    }

    /// Copies without allocating.
    fn clone_from(&mut self, source: &Self) {
        self.clear();
        self.add(source);
    }
}

impl Latency {
    /// One that records nothing and takes no room, for the moment in which another is lent out.
    pub(crate) const EMPTY: Self = Self { histogram: None };

    /// Records one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(LONGEST_NANOS);
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(nanos.min(LONGEST_NANOS));
        }
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// How many of the durations were no longer than `most`, as near as three digits tell.
    pub fn count_up_to(&self, most: Duration) -> u64 {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.as_ref().map_or(0, |histogram| histogram.count_between(0, nanos))
    }

    /// The sum of all durations, as near as three digits tell.
    pub fn sum(&self) -> Duration {
        let nanos = self.histogram.as_ref().map_or(0.0, |histogram| {
            if histogram.is_empty() { 0.0 } else { histogram.mean() * histogram.len() as f64 }
        });
        // A float cast saturates.
        Duration::from_nanos(nanos as u64)
    }

    /// Adds all that `other` recorded.
    pub fn add(&mut self, other: &Self) {
        if let (Some(histogram), Some(other)) = (&mut self.histogram, &other.histogram) {
            // Both have the same bounds, so the addition cannot be refused.
            let _ = histogram.add(other);
        }
    }

    /// Takes away all that `earlier`, a copy of this one from before, recorded.
    pub fn subtract(&mut self, earlier: &Self) {
        if let (Some(histogram), Some(earlier)) = (&mut self.histogram, &earlier.histogram) {
            // Refused where `earlier` has samples that this one lacks: it was no copy.
            let _ = histogram.subtract(earlier);
        }
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        if let Some(histogram) = &mut self.histogram {
            histogram.reset();
        }
    }

    /// The duration that a `quantile` (0 to 1) of the samples does not exceed, in microseconds.
    pub fn micros_at(&self, quantile: f64) -> f64 {
        self.histogram.as_ref().map_or(0.0, |histogram| {
            if histogram.is_empty() {
                return 0.0;
            }
            histogram.value_at_quantile(quantile) as f64 / 1_000.0
        })
    }

    /// The percentiles that summaries show.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50_ms: self.micros_at(0.5) / 1_000.0,
            p99_ms: self.micros_at(0.99) / 1_000.0,
            p999_ms: self.micros_at(0.999) / 1_000.0,
        }
    }
}

/// The low 32 bits of a moment in microseconds, as messages carry it.
pub const fn wire_micros(at: Timestamp) -> u32 {
    at.as_micros() as u32
}

/// How long before `now` the moment was whose low 32 bits of microseconds are `wire`.
///
/// Right for moments up to 35 minutes ago; `None` when it lies in the future, which only a peer
/// with another clock or with a lie can send.
pub const fn elapsed_since_wire(now: Timestamp, wire: u32) -> Option<Duration> {
    let behind = wire_micros(now).wrapping_sub(wire);
    if behind > u32::MAX / 2 { None } else { Some(Duration::from_micros(behind as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_what_was_recorded() {
        let mut latency = Latency::default();
        for ms in 1..=1_000 {
            latency.record(Duration::from_millis(ms));
        }
        let seen = latency.percentiles();
        assert_eq!(latency.count(), 1_000);
        assert!((seen.p50_ms - 500.0).abs() < 1.0, "{seen:?}");
        assert!((seen.p99_ms - 990.0).abs() < 2.0, "{seen:?}");
        assert!((seen.p999_ms - 999.0).abs() < 2.0, "{seen:?}");
    }

    #[test]
    fn a_histogram_counts_up_to_a_bound_and_sums() {
        let mut latency = Latency::default();
        assert_eq!((latency.count_up_to(Duration::MAX), latency.sum()), (0, Duration::ZERO));
        [1, 2, 3, 100].into_iter().for_each(|ms| latency.record(Duration::from_millis(ms)));
        assert_eq!(latency.count_up_to(Duration::from_millis(3)), 3);
        assert_eq!(latency.count_up_to(Duration::from_micros(10)), 0);
        assert_eq!(latency.count_up_to(Duration::from_secs(3_600)), 4);
        assert!((latency.sum().as_secs_f64() - 0.106).abs() < 0.000_2, "{:?}", latency.sum());
    }

    #[test]
    fn what_came_since_a_copy_is_what_is_left() {
        let mut latency = Latency::default();
        latency.record(Duration::from_millis(900));
        let earlier = latency.clone();
        (0..100).for_each(|_| latency.record(Duration::from_millis(2)));
        latency.subtract(&earlier);
        assert_eq!(latency.count(), 100);
        assert!(latency.percentiles().p999_ms < 2.1);
    }

    #[test]
    fn a_wire_moment_survives_the_wrap_of_its_32_bits() {
        let sent = Timestamp::from_nanos((u64::from(u32::MAX) - 5) * 1_000);
        let now = sent.after(Duration::from_micros(20));
        assert_eq!(elapsed_since_wire(now, wire_micros(sent)), Some(Duration::from_micros(20)));
    }

    #[test]
    fn a_moment_in_the_future_has_no_age() {
        let now = Timestamp::from_nanos(5_000_000);
        assert_eq!(elapsed_since_wire(now, 6_000), None);
    }
}
