//! When packet keys change.

use core::time::Duration;

use crate::error::ConfigError;

/// The least time between two exchanges of fresh keys: a client that wants them sooner has the server
/// pay for key agreements at a pace of its own.
pub(crate) const EXCHANGE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// When the keys of one direction give way to the next, session 5.6 and 5.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// Packets after which an end goes on to its next key, 4 to 2^23.
    pub rekey_packets: u64,
    /// Age at which an end goes on to its next key, 100 ms to 1 h.
    pub rekey_interval: Duration,
    /// Packets that one key seals at most, more than `rekey_packets`, at most 2^24. An end that
    /// cannot go on by then, because no packet under its key was acknowledged, closes.
    pub packets_max: u64,
    /// Age up to which a key seals, more than `rekey_interval`, at most 2 h. An end that cannot go
    /// on by then closes when it would send.
    pub age_max: Duration,
    /// How often the client has both ends mix fresh X25519 keys into their next secrets, 1 s to
    /// 1 day: who stole the secrets of before then reads no further.
    pub exchange_interval: Duration,
}

impl Default for KeyConfig {
    fn default() -> Self {
        Self {
            rekey_packets: 1 << 20,
            rekey_interval: Duration::from_secs(120),
            packets_max: 1 << 24,
            age_max: Duration::from_secs(180),
            exchange_interval: Duration::from_secs(600),
        }
    }
}

impl KeyConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let least = self.rekey_interval.as_millis().saturating_add(1);
        for (name, value, allowed, range) in [
            ("keys.rekey_packets", self.rekey_packets.into(), 4..=1 << 23, "4 to 8388608"),
            (
                "keys.packets_max",
                self.packets_max.into(),
                u128::from(self.rekey_packets) + 1..=1 << 24,
                "more than keys.rekey_packets, at most 16777216",
            ),
            (
                "keys.rekey_interval (ms)",
                self.rekey_interval.as_millis(),
                100..=3_600_000,
                "100 to 3600000",
            ),
            (
                "keys.age_max (ms)",
                self.age_max.as_millis(),
                least..=7_200_000,
                "more than keys.rekey_interval, at most 7200000",
            ),
            (
                "keys.exchange_interval (ms)",
                self.exchange_interval.as_millis(),
                EXCHANGE_INTERVAL_MIN.as_millis()..=86_400_000,
                "1000 to 86400000",
            ),
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
    fn the_hard_stops_lie_behind_the_ordinary_changes() {
        assert_eq!(KeyConfig::default().check(), Ok(()));
        let config = KeyConfig { packets_max: 1 << 20, ..KeyConfig::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "session setting keys.packets_max is 1048576; choose more than keys.rekey_packets, at \
             most 16777216"
        );
        let age_max = Duration::from_secs(120);
        assert!(KeyConfig { age_max, ..KeyConfig::default() }.check().is_err());
    }
}
