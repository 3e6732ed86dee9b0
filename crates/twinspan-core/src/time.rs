//! Time as an argument: nanoseconds since a run began.

use core::fmt;
use core::time::Duration;

/// A moment, in nanoseconds since the run began.
///
/// Machines take it as an argument and never read a clock. It covers 584 years; arithmetic
/// saturates at both ends, so hostile durations cannot wrap it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment the run began.
    pub const START: Self = Self(0);
    /// Later than any moment a run reaches; the deadline of something that never happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Microseconds since the start, rounded down.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// This moment plus `duration`, saturating at [`Timestamp::NEVER`].
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration_nanos(duration)))
    }

    /// This moment minus `duration`, saturating at [`Timestamp::START`].
    #[must_use]
    pub const fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration_nanos(duration)))
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// The duration in nanoseconds, saturating at `u64::MAX`.
const fn duration_nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::NEVER.after(Duration::from_secs(1)), Timestamp::NEVER);
        assert_eq!(Timestamp::START.before(Duration::from_secs(1)), Timestamp::START);
        assert_eq!(Timestamp::START.after(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp::START.since(Timestamp::from_nanos(5)), Duration::ZERO);
    }

    #[test]
    fn a_moment_prints_as_seconds() {
        assert_eq!(Timestamp::from_nanos(1_500_000_000).to_string(), "1.500000000s");
    }
}
