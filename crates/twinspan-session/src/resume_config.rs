//! How long and how a lost session may be resumed.

use core::time::Duration;

use crate::error::ConfigError;

/// For how long a client whose session was lost may come back with its ticket, session 3.12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeConfig {
    /// How long after its session was lost a ticket is good, and how long after the start of a
    /// server the tickets of the run before are, 1 s to 10 min.
    pub window: Duration,
    /// How long after it was issued a ticket is good at the most, 1 min to 7 days, and at least
    /// twice the idle time-out and the window together. A session gets another ticket before half of
    /// that is over, so it does not bound how long sessions last.
    pub lifetime: Duration,
    /// Lost sessions whose tickets are remembered, 1 to 1,048,576; the one whose time is over first
    /// gives way.
    pub absent_max: usize,
}

impl Default for ResumeConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            lifetime: Duration::from_secs(24 * 3_600),
            absent_max: 16_384,
        }
    }
}

impl ResumeConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (name, value, allowed, range) in [
            ("resume.window (ms)", self.window.as_millis(), 1_000..=600_000, "1000 to 600000"),
            ("resume.lifetime (s)", self.lifetime.as_secs().into(), 60..=604_800, "60 to 604800"),
            ("resume.absent_max", self.absent_max as u128, 1..=1 << 20, "1 to 1048576"),
        ] {
            if !allowed.contains(&value) {
                return Err(ConfigError::OutOfRange { name, value, range });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_setting_is_named_with_its_range() {
        assert_eq!(ResumeConfig::default().check(), Ok(()));
        let config = ResumeConfig { window: Duration::ZERO, ..ResumeConfig::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "session setting resume.window (ms) is 0; choose 1000 to 600000"
        );
    }
}
