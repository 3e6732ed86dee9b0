//! The calendar's time, as a number that a simulator can make.

use std::time::{Duration, SystemTime};

/// Nanoseconds since the Unix epoch, up to the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    /// The first moment of 1970, UTC.
    pub const EPOCH: Self = Self(0);

    /// The moment `nanos` nanoseconds after [`WallTime::EPOCH`].
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since [`WallTime::EPOCH`].
    pub const fn unix_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since [`WallTime::EPOCH`].
    pub const fn unix_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The moment `duration` later, or the last there is.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` it is; zero when it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// What the system's clock says.
    pub fn of_system() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::EPOCH.after(since.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_add_up_and_hold_at_the_ends() {
        let second = Duration::from_secs(1);
        let later = WallTime::EPOCH.after(second);
        assert_eq!((later.unix_nanos(), later.unix_seconds()), (1_000_000_000, 1));
        assert_eq!(
            (later.since(WallTime::EPOCH), WallTime::EPOCH.since(later)),
            (second, Duration::ZERO)
        );
        let last = WallTime::from_unix_nanos(u64::MAX);
        assert_eq!(last.after(second), last);
    }
}
