//! Limits and times of sessions.

use core::time::Duration;
use std::cell::RefCell;
use std::sync::{Arc, Weak};

use crate::error::ConfigError;
use crate::frames::FRAME_HEAD_BYTES_MAX;
use crate::header::{HEADER_BYTES, PACKET_BYTES_LIMIT, PACKET_BYTES_MAX};
use crate::header_protection::HeaderProtection;
use crate::key_config::KeyConfig;
use crate::keys::Means;
use crate::resume_config::ResumeConfig;
use twinspan_core::aead::{AeadSuite, TAG_BYTES};
use twinspan_core::steer::Steering;

/// Limits and times of an endpoint or a client.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// The reliability engine's part. `frame_head_bytes` is set by the session.
    pub reliable: twinspan_reliable::Config,
    /// Sessions that a server holds, 1 to 1,048,576. Closing ones count until they are gone.
    pub sessions_max: usize,
    /// Handshakes between ACCEPT and confirmation, 1 to 65,536, each of 512 bytes; the oldest gives
    /// way.
    pub handshakes_max: usize,
    /// Spent tokens that are remembered until they expire, 1 to 16,777,216. When full, new
    /// sessions are refused.
    pub spent_tokens_max: usize,
    /// Handshake answers that wait to be sent, 1 to 65,536; past it HELLOs are dropped.
    pub answers_max: usize,
    /// HELLOs without a cookie that are answered a second, 16 to 1,000,000. An eighth of them whosever
    /// they are, the rest only with a token that opens, and each token's but a few times a second; the
    /// excess is dropped before anything is computed for it. What it takes of a core: answering one
    /// costs some 3 us with its send, looking at a token 1 us.
    pub hello_answers_per_second: u32,
    /// Packets that a server takes a second from one session, whatever is in them, 100 to
    /// 10,000,000; five seconds' worth may come at once. A session with more is closed as flooding.
    pub packets_in_per_second: u32,
    /// The same for control frames, 10 to 1,000,000. The first CREDIT of a packet does not count.
    pub control_in_per_second: u32,
    /// A peer that was not heard for so long is gone, 100 ms to 10 min.
    pub idle_timeout: Duration,
    /// An end that sent nothing for so long sends a keep-alive, 10 ms to 5 min, ± a fifth; less
    /// than half of `idle_timeout`.
    pub keepalive_interval: Duration,
    /// How long a handshake may take, 100 ms to 2 min.
    pub handshake_deadline: Duration,
    /// Wait before a client repeats its first HELLO, 10 ms to 10 s.
    pub hello_interval: Duration,
    /// Longest wait between two HELLOs, `hello_interval` to 1 min.
    pub hello_interval_max: Duration,
    /// How long an ack of one-time messages waits for a packet to ride in, at most 1 s.
    pub lazy_ack_delay: Duration,
    /// Bytes of the longest packet that paths are searched for, 1,200 to 1,452; 1,200: no search.
    pub packet_bytes_max: u16,
    /// How long a queued message may wait for others to share its packet, at most 1 s; 0: not at
    /// all. A packet that leaves anyway takes it along, and so does one that is full.
    pub flush_delay: Duration,
    /// Between the repeats of a CLOSE, at most 10 s.
    pub close_interval: Duration,
    /// How long a closed session's slot and id stay taken after its peer was last heard, at most
    /// 1 min.
    pub close_linger: Duration,
    /// How long they stay taken at most, `close_linger` to 1 min: while packets come, CLOSE is
    /// repeated.
    pub close_linger_max: Duration,
    /// The rule by which packets reach this server's shard among its node's, and the shard: the
    /// server chooses connection ids that the rule sends here. `None`: there are no others.
    pub steering: Option<(Steering, u16)>,
    /// Whether packet numbers are skipped at random, so that acks of what never arrived show.
    pub skip_numbers: bool,
    /// When packet keys change.
    pub keys: KeyConfig,
    /// How long a lost session may be resumed.
    pub resume: ResumeConfig,
    /// Whether packet headers are hidden.
    pub header_protection: HeaderProtection,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            reliable: twinspan_reliable::Config::default(),
            sessions_max: 16_384,
            handshakes_max: 1_024,
            spent_tokens_max: 262_144,
            answers_max: 1_024,
            hello_answers_per_second: 32_000,
            packets_in_per_second: 1_000,
            control_in_per_second: 100,
            idle_timeout: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(5),
            handshake_deadline: Duration::from_secs(10),
            hello_interval: Duration::from_millis(250),
            hello_interval_max: Duration::from_millis(500),
            lazy_ack_delay: Duration::from_millis(100),
            packet_bytes_max: PACKET_BYTES_LIMIT as u16,
            flush_delay: Duration::ZERO,
            close_interval: Duration::from_millis(100),
            close_linger: Duration::from_millis(500),
            close_linger_max: Duration::from_secs(3),
            steering: None,
            skip_numbers: true,
            keys: KeyConfig::default(),
            resume: ResumeConfig::default(),
            header_protection: HeaderProtection::default(),
        }
    }
}

/// The longest frame body that fits a packet of its own without an ack block.
const FRAGMENT_BYTES_MAX: usize =
    PACKET_BYTES_MAX - HEADER_BYTES - TAG_BYTES - FRAME_HEAD_BYTES_MAX;

impl SessionConfig {
    /// Checks every field that has a range. Constructors call it.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of range and the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.reliable.check()?;
        self.keys.check()?;
        self.resume.check()?;
        let fragment = self.reliable.fragment_bytes_max;
        count("reliable.fragment_bytes_max", fragment, 1..=FRAGMENT_BYTES_MAX, "1 to 1163")?;
        let longest = usize::from(self.packet_bytes_max);
        let range = PACKET_BYTES_MAX..=PACKET_BYTES_LIMIT;
        count("packet_bytes_max", longest, range, "1200 to 1452")?;
        count("sessions_max", self.sessions_max, 1..=1 << 20, "1 to 1048576")?;
        count("handshakes_max", self.handshakes_max, 1..=1 << 16, "1 to 65536")?;
        count("spent_tokens_max", self.spent_tokens_max, 1..=1 << 24, "1 to 16777216")?;
        count("answers_max", self.answers_max, 1..=1 << 16, "1 to 65536")?;
        let answers = self.hello_answers_per_second as usize;
        count("hello_answers_per_second", answers, 16..=1_000_000, "16 to 1000000")?;
        let packets = self.packets_in_per_second as usize;
        count("packets_in_per_second", packets, 100..=10_000_000, "100 to 10000000")?;
        let control = self.control_in_per_second as usize;
        count("control_in_per_second", control, 10..=1_000_000, "10 to 1000000")?;
        if let Some((steering, shard)) = self.steering
            && shard >= steering.shards()
        {
            let (name, value) = ("steering (shard)", u128::from(shard));
            return Err(ConfigError::OutOfRange {
                name,
                value,
                range: "below its number of shards",
            });
        }
        let half = self.idle_timeout.as_millis() / 2;
        let least_life = 2 * (self.idle_timeout + self.resume.window).as_millis();
        for (name, value, least, most, range) in [
            ("idle_timeout (ms)", self.idle_timeout, 100, 600_000, "100 to 600000"),
            ("keepalive_interval (ms)", self.keepalive_interval, 10, 300_000, "10 to 300000"),
            (
                "keepalive_interval (ms)",
                self.keepalive_interval,
                0,
                half.saturating_sub(1),
                "less than half of idle_timeout",
            ),
            (
                "resume.lifetime (ms)",
                self.resume.lifetime,
                least_life,
                u128::MAX,
                "at least twice idle_timeout and resume.window together",
            ),
            ("handshake_deadline (ms)", self.handshake_deadline, 100, 120_000, "100 to 120000"),
            ("hello_interval (ms)", self.hello_interval, 10, 10_000, "10 to 10000"),
            (
                "hello_interval_max (ms)",
                self.hello_interval_max,
                self.hello_interval.as_millis(),
                60_000,
                "hello_interval to 60000",
            ),
            ("lazy_ack_delay (ms)", self.lazy_ack_delay, 0, 1_000, "0 to 1000"),
            ("flush_delay (ms)", self.flush_delay, 0, 1_000, "0 to 1000"),
            ("close_interval (ms)", self.close_interval, 1, 10_000, "1 to 10000"),
            ("close_linger (ms)", self.close_linger, 0, 60_000, "0 to 60000"),
            (
                "close_linger_max (ms)",
                self.close_linger_max,
                self.close_linger.as_millis(),
                60_000,
                "close_linger to 60000",
            ),
        ] {
            let value = value.as_millis();
            if !(least..=most).contains(&value) {
                return Err(ConfigError::OutOfRange { name, value, range });
            }
        }
        Ok(())
    }
}

/// How much of its rate a packet and a control frame of a client use up.
pub(crate) struct IntakeCosts {
    pub(crate) packet: Duration,
    pub(crate) control: Duration,
}

impl IntakeCosts {
    pub(crate) fn new(packets_per_second: u32, control_per_second: u32) -> Self {
        let second = Duration::from_secs(1);
        Self {
            packet: second / packets_per_second.max(1),
            control: second / control_per_second.max(1),
        }
    }
}

thread_local! {
    /// What the last end of this thread was made with. Of thousands of clients of a fleet or a
    /// simulation each is an end of its own, and all are made with the same.
    static LAST: RefCell<Weak<Common>> = const { RefCell::new(Weak::new()) };
}

/// What all sessions of one end share, and the next ends of the thread that are set up alike.
pub(crate) struct Common {
    pub(crate) config: SessionConfig,
    pub(crate) suites: Arc<dyn AeadSuite>,
    pub(crate) intake: IntakeCosts,
}

impl Common {
    /// What keys are made with.
    pub(crate) fn means(&self) -> Means<'_> {
        Means { suite: self.suites.as_ref(), config: &self.config.keys }
    }

    pub(crate) fn new(mut config: SessionConfig, suites: Arc<dyn AeadSuite>) -> Arc<Self> {
        config.reliable.frame_head_bytes = FRAME_HEAD_BYTES_MAX;
        let last = LAST.with_borrow(Weak::upgrade);
        let same = last.filter(|last| last.config == config && Arc::ptr_eq(&last.suites, &suites));
        if let Some(same) = same {
            return same;
        }
        let intake = IntakeCosts::new(config.packets_in_per_second, config.control_in_per_second);
        let new = Arc::new(Self { config, suites, intake });
        LAST.set(Arc::downgrade(&new));
        new
    }
}

fn count(
    name: &'static str,
    value: usize,
    allowed: core::ops::RangeInclusive<usize>,
    range: &'static str,
) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { name, value: value as u128, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_legal() {
        assert_eq!(SessionConfig::default().check(), Ok(()));
        assert_eq!(FRAGMENT_BYTES_MAX, 1_163);
    }

    #[test]
    fn ends_of_a_thread_that_are_set_up_alike_share_their_settings() {
        let suites: Arc<dyn AeadSuite> = Arc::new(crate::CryptoSuite::AES_FIRST);
        let config = SessionConfig::default();
        let one = Common::new(config.clone(), Arc::clone(&suites));
        assert!(Arc::ptr_eq(&one, &Common::new(config.clone(), Arc::clone(&suites))));
        let other = SessionConfig { sessions_max: 3, ..config.clone() };
        let other = Common::new(other, Arc::clone(&suites));
        assert_eq!((one.config.sessions_max, other.config.sessions_max), (config.sessions_max, 3));
        let suites: Arc<dyn AeadSuite> = Arc::new(crate::CryptoSuite::AES_FIRST);
        let again = Common::new(other.config.clone(), suites);
        assert!(!Arc::ptr_eq(&other, &again), "their suites are others");
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_range() {
        let config = SessionConfig { sessions_max: 0, ..SessionConfig::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "session setting sessions_max is 0; choose 1 to 1048576"
        );
        let keepalive_interval = Duration::from_secs(10);
        let config = SessionConfig { keepalive_interval, ..SessionConfig::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "session setting keepalive_interval (ms) is 10000; choose less than half of idle_timeout"
        );
        let steering = Some((Steering::new(1, 4), 4));
        let config = SessionConfig { steering, ..SessionConfig::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "session setting steering (shard) is 4; choose below its number of shards"
        );
        let mut config = SessionConfig::default();
        config.reliable.fragment_bytes_max = 1_164;
        assert!(config.check().is_err());
        config.reliable.fragment_bytes_max = 0;
        assert!(matches!(config.check(), Err(ConfigError::Reliable(_))));
    }
}
