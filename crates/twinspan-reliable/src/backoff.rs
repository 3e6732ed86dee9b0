//! Exponential backoff with jitter.

use core::time::Duration;

use twinspan_core::random::Stream;

/// Waits that double up to a limit, each lengthened by a random part so that peers who failed
/// together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    jitter_ppm: u32,
    level: u32,
}

impl Backoff {
    /// Starts at `initial`, doubles up to `max`; up to `jitter_fraction` (0 to 1, others are
    /// clamped) of each wait is added to it.
    pub fn new(initial: Duration, max: Duration, jitter_fraction: f64) -> Self {
        Self { initial, max, jitter_ppm: parts_per_million(jitter_fraction), level: 0 }
    }

    /// The next wait: `min(initial * 2^n, max)` on call `n` (from 0) plus jitter.
    pub fn next_delay(&mut self, random: &mut Stream) -> Duration {
        let base = doubled(nanos(self.initial), self.level, nanos(self.max));
        self.level = self.level.saturating_add(1);
        Duration::from_nanos(spread(base, self.jitter_ppm, random.next_u64()))
    }

    /// Waits drawn since the start or the last reset.
    pub const fn attempts(&self) -> u32 {
        self.level
    }

    /// Starts over at `initial`: something worked.
    pub const fn reset(&mut self) {
        self.level = 0;
    }
}

/// The duration in nanoseconds, saturating.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A fraction as millionths, clamped to 0 to 1; not a number is 0.
pub(crate) fn parts_per_million(fraction: f64) -> u32 {
    // The cast saturates and turns NaN into 0.
    (fraction.clamp(0.0, 1.0) * 1e6) as u32
}

/// `base * 2^level`, at most `max` (but never below `base` when that is larger already).
pub(crate) fn doubled(base: u64, level: u32, max: u64) -> u64 {
    base.saturating_mul(1_u64.checked_shl(level).unwrap_or(u64::MAX)).min(max.max(base))
}

/// `base` plus a part of it, at most `ppm` millionths, picked by 64 random bits.
pub(crate) fn spread(base: u64, ppm: u32, random: u64) -> u64 {
    let most = u128::from(base) * u128::from(ppm) / 1_000_000;
    let extra = (u128::from(random) * (most + 1)) >> 64;
    base.saturating_add(u64::try_from(extra).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over() {
        let mut random = Stream::new(1, "backoff", 0);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 0.0);
        let waits: Vec<u128> =
            (0..6).map(|_| backoff.next_delay(&mut random).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.attempts(), 6);
        backoff.reset();
        assert_eq!(backoff.next_delay(&mut random).as_millis(), 100);
    }

    #[test]
    fn jitter_only_lengthens_and_by_no_more_than_its_fraction() {
        let mut random = Stream::new(2, "backoff", 0);
        let (mut least, mut most) = (u64::MAX, 0);
        for _ in 0..2_000 {
            let delay = spread(1_000_000, parts_per_million(0.25), random.next_u64());
            assert!((1_000_000..=1_250_000).contains(&delay));
            least = least.min(delay);
            most = most.max(delay);
        }
        assert!(least < 1_005_000 && most > 1_245_000);
    }

    #[test]
    fn extreme_waits_do_not_overflow() {
        let mut random = Stream::new(3, "backoff", 0);
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX, 1.0);
        for _ in 0..200 {
            assert_eq!(backoff.next_delay(&mut random), Duration::from_nanos(u64::MAX));
        }
        assert_eq!(parts_per_million(f64::NAN), 0);
        assert_eq!(parts_per_million(7.0), 1_000_000);
    }
}
