//! What a link is like, in numbers that people set.

use core::fmt;
use core::time::Duration;

/// The longest delay and the longest jitter.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// The smallest queue of a link with a limited rate: one packet must fit.
pub const QUEUE_BYTES_MIN: u64 = 2_048;

/// What one direction of a path does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Share of datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// How long every datagram takes, up to [`DELAY_MAX`].
    pub delay: Duration,
    /// How much longer a datagram may take, evenly from nothing to this, up to [`DELAY_MAX`].
    pub jitter: Duration,
    /// Share of datagrams that arrive a second time, 0 to 1.
    pub duplicate: f64,
    /// Share of datagrams that lag so that later ones may overtake them, 0 to 1.
    pub reorder: f64,
    /// Bytes of payload that pass in a second; 0 for no limit.
    pub rate_bytes_per_s: u64,
    /// Bytes that wait for their turn at most when there is a rate; what comes on top is dropped.
    /// At least [`QUEUE_BYTES_MIN`].
    pub queue_bytes_max: u64,
}

impl Conditions {
    /// Nothing is lost and nothing takes time.
    pub const CLEAN: Self = Self {
        loss: 0.0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        duplicate: 0.0,
        reorder: 0.0,
        rate_bytes_per_s: 0,
        queue_bytes_max: 256 << 10,
    };

    /// A home network at a busy hour.
    pub const WIFI: Self = Self {
        loss: 0.01,
        delay: Duration::from_millis(8),
        jitter: Duration::from_millis(12),
        duplicate: 0.001,
        reorder: 0.002,
        ..Self::CLEAN
    };

    /// A telephone on the move.
    pub const MOBILE: Self = Self {
        loss: 0.03,
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(40),
        duplicate: 0.002,
        reorder: 0.01,
        rate_bytes_per_s: 1 << 20,
        queue_bytes_max: 128 << 10,
    };

    /// The presets and their names.
    pub const PRESETS: [(&'static str, Self); 3] =
        [("clean", Self::CLEAN), ("wifi", Self::WIFI), ("mobile", Self::MOBILE)];

    /// The preset of this name.
    pub fn preset(name: &str) -> Option<Self> {
        Self::PRESETS.into_iter().find(|(known, _)| *known == name).map(|(_, preset)| preset)
    }

    /// Whether every field is in its range.
    ///
    /// # Errors
    /// [`ConditionsError`] names the first field that is not.
    pub fn check(&self) -> Result<(), ConditionsError> {
        let shares =
            [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)];
        for (field, share) in shares {
            // Written so that what is not a number is refused as well.
            if !(0.0..=1.0).contains(&share) {
                return Err(ConditionsError::Share { field, is: share });
            }
        }
        for (field, duration) in [("delay", self.delay), ("jitter", self.jitter)] {
            if duration > DELAY_MAX {
                return Err(ConditionsError::Duration { field, is: duration });
            }
        }
        if self.rate_bytes_per_s > 0 && self.queue_bytes_max < QUEUE_BYTES_MIN {
            return Err(ConditionsError::Queue { is: self.queue_bytes_max });
        }
        Ok(())
    }

    /// The same with each field held to its range; a share that is not a number becomes 0.
    #[must_use]
    pub fn clamped(self) -> Self {
        let share = |share: f64| if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        Self {
            loss: share(self.loss),
            delay: self.delay.min(DELAY_MAX),
            jitter: self.jitter.min(DELAY_MAX),
            duplicate: share(self.duplicate),
            reorder: share(self.reorder),
            rate_bytes_per_s: self.rate_bytes_per_s,
            queue_bytes_max: self.queue_bytes_max.max(QUEUE_BYTES_MIN),
        }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self::CLEAN
    }
}

/// Which field of [`Conditions`] is out of its range.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConditionsError {
    /// A share that is not a number from 0 to 1.
    Share {
        /// The field's name.
        field: &'static str,
        /// What it is.
        is: f64,
    },
    /// A duration that is too long.
    Duration {
        /// The field's name.
        field: &'static str,
        /// What it is.
        is: Duration,
    },
    /// A queue that not even one packet fits.
    Queue {
        /// Its size in bytes.
        is: u64,
    },
}

impl fmt::Display for ConditionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { field, is } => {
                write!(f, "{field} is {is}; it is a share from 0 to 1")
            }
            Self::Duration { field, is } => {
                write!(f, "{field} is {is:?}; it is {DELAY_MAX:?} at most")
            }
            Self::Queue { is } => write!(
                f,
                "queue_bytes_max is {is}; with a rate it is {QUEUE_BYTES_MIN} bytes at least"
            ),
        }
    }
}

impl core::error::Error for ConditionsError {}
