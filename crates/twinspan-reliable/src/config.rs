//! Limits and times of the engine, and the knobs with which tests switch mechanisms off.

use core::fmt;
use core::time::Duration;

use crate::StreamId;
use crate::rtt::GRANULARITY;

/// Fragments that one message may be cut into; the set of those that arrived is one word.
pub const FRAGMENTS_PER_MESSAGE_MAX: usize = 64;

/// How far a reliable channel may run ahead of its oldest unfinished message, in messages.
///
/// Both ends keep to it: the sender holds back what would go further, the receiver calls it a
/// violation. It is far below 2^15, so 16 bits on the wire always widen to the right number.
pub const MESSAGES_AHEAD_MAX: u64 = 1_024;

/// [`MESSAGES_AHEAD_MAX`] for the control stream, which is outside credit.
pub const CONTROL_MESSAGES_AHEAD_MAX: u64 = 64;

/// Reliable control messages queued or in flight. They have a limit of their own, beside
/// [`Config::queued_messages_max`]: two ends whose queues are full of messages that wait for credit
/// could else never tell each other of new credit.
pub const CONTROL_MESSAGES_QUEUED_MAX: usize = 2 * CONTROL_MESSAGES_AHEAD_MAX as usize;

/// Longest reliable message on the control stream, in bytes; such messages have no fragments.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 512;

/// What each reliable frame costs of credit beside its payload.
///
/// Without it, empty messages that arrive ahead of their turn would be held for nothing.
pub const FRAME_CHARGE_BYTES: u64 = 128;

/// Credit that both ends start with, in charged bytes.
pub const CREDIT_BYTES: u64 = 262_144;

/// Bytes that may leave at once whatever the pace is.
pub const BURST_BYTES_MIN: u64 = 9_600;

/// Levels of priority.
pub const PRIORITIES: usize = 8;

/// How urgent each stream's reliable messages are: 0 most, 7 least.
///
/// Urgent ones leave first; while they keep coming, every sixteenth frame is a less urgent one's.
/// Unless set, bulk has level 7, events 2 and the others 3.
#[derive(Clone, PartialEq, Eq)]
// Every sender has one: a word for each bit of the levels, and in it a bit for each stream.
pub struct Priorities([u64; 3]);

// Three bits are a level, and a word has a bit for each stream.
const _: () = assert!(PRIORITIES == 1 << 3);

impl Priorities {
    /// The level of a stream.
    pub fn get(&self, stream: StreamId) -> u8 {
        let [low, middle, high] = self.0;
        let bit = |word: u64| (word >> (stream.get() % 64) & 1) as u8;
        bit(low) | bit(middle) << 1 | bit(high) << 2
    }

    /// Sets the level of a stream; above 7 counts as 7.
    #[must_use]
    pub fn with(mut self, stream: StreamId, level: u8) -> Self {
        let level = level.min(PRIORITIES as u8 - 1);
        let bit = 1 << (stream.get() % 64);
        for (place, word) in self.0.iter_mut().enumerate() {
            *word = if level >> place & 1 == 1 { *word | bit } else { *word & !bit };
        }
        self
    }
}

impl Default for Priorities {
    fn default() -> Self {
        // Level 3.
        Self([u64::MAX, u64::MAX, 0]).with(StreamId::EVENTS, 2).with(StreamId::BULK, 7)
    }
}

impl fmt::Debug for Priorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = (0_u8..64).filter_map(StreamId::new).map(|id| (id.get(), self.get(id)));
        f.debug_map().entries(levels.filter(|(_, level)| *level != 3)).finish()
    }
}

/// How a frame that was lost travels again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResendIdentity {
    /// Under a new packet number, with whatever else there is to say. For sealed sessions: a
    /// nonce never repeats, and a replay window drops copies.
    FreshNumber,
    /// Alone in its packet and under the number that it had (Second Life's UDP does this). An ack
    /// then does not say which copy arrived, so RTT comes from pings only.
    SameNumber,
}

/// Switches for tests that show that each mechanism is needed. Production leaves the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Whether lost frames travel again.
    pub resend: bool,
    /// Whether what arrives twice is delivered once.
    pub suppress_duplicates: bool,
    /// Whether an ack of a number never sent is an error. Switched off, such acks are believed.
    pub validate_acks: bool,
    /// Whether reliable frames wait for room in the congestion window and for their pace.
    pub congestion: bool,
    /// Makes an [`AckTracker`](crate::AckTracker) lie: it acknowledges this many numbers past the
    /// largest that arrived.
    pub ack_ahead: u64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            resend: true,
            suppress_duplicates: true,
            validate_acks: true,
            congestion: true,
            ack_ahead: 0,
        }
    }
}

/// Limits and times of one connection's engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How lost frames travel again.
    pub identity: ResendIdentity,
    /// Longest body of a frame; longer messages are cut. 1 to 65,536.
    pub fragment_bytes_max: usize,
    /// What the caller's frame head takes at most;
    /// [`Sender::poll_frame`](crate::Sender::poll_frame) counts it against the room.
    pub frame_head_bytes: usize,
    /// Longest message, at most 64 fragments.
    pub message_bytes_max: usize,
    /// Reliable messages queued or in flight, those of the control stream not counted.
    pub queued_messages_max: usize,
    /// Bytes of these messages, and apart from them of unreliable ones.
    pub queued_bytes_max: usize,
    /// Queued messages of the unreliable classes; past it the oldest are dropped.
    pub loose_messages_max: usize,
    /// Reliable frames in flight, 1 to 1,024. The control stream is outside it.
    pub in_flight_frames_max: usize,
    /// Charged bytes that the receiver is willing to hold undelivered, and the credit that the
    /// sender starts with. `u64::MAX`: no credit at all, for protocols without it.
    pub credit_bytes: u64,
    /// Incomplete messages of the sequenced class that the receiver holds.
    pub partial_messages_max: usize,
    /// Bytes of those, with [`FRAME_CHARGE_BYTES`] for each fragment.
    pub partial_bytes_max: usize,
    /// How long an incomplete sequenced message is kept after its first fragment.
    pub partial_deadline: Duration,
    /// Resend timeout before the first RTT sample.
    pub rto_initial: Duration,
    /// Shortest resend timeout.
    pub rto_min: Duration,
    /// Longest resend timeout, backoff included, jitter not.
    pub rto_max: Duration,
    /// How often one frame may be resent before the connection is dead.
    pub attempts_max: u32,
    /// How much is added to a resend timeout at most, as a fraction of it; 0 to 1.
    pub jitter_fraction: f64,
    /// How long an ack may wait for company. Both ends assume the same.
    pub ack_delay_max: Duration,
    /// Packets that want an ack, after which it waits no longer. At least 1.
    pub ack_packets_max: u32,
    /// How long a packet given up as lost is remembered, so that a late ack still counts.
    pub late_ack_window: Duration,
    /// By how much round trips are taken to vary at least, and the least time for which an overtaken
    /// packet is waited for; above zero. Short where packets keep their order.
    pub granularity: Duration,
    /// Least time after which the oldest packet in flight is asked after, the peer's ack delay not
    /// included; above zero.
    pub probe_min: Duration,
    /// Packets that leave again when they are asked after, 1 at least. Acks that are late though
    /// nothing was lost cost so many; where several were lost, the ack of the first tells of the rest.
    pub probe_packets_max: u32,
    /// Bytes that may leave at once ahead of the pace, 9,600 to a megabyte: as many as the pace earns in
    /// a quarter of a millisecond, 9,600 in any case. Queues on the path must bear them.
    pub burst_bytes_max: u64,
    /// How urgent the streams' reliable messages are.
    pub priorities: Priorities,
    /// Bytes of idle buffers that each half keeps for reuse.
    pub recycled_bytes_max: usize,
    /// For tests.
    pub knobs: Knobs,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: ResendIdentity::FreshNumber,
            fragment_bytes_max: 1_100,
            frame_head_bytes: 8,
            message_bytes_max: 65_536,
            queued_messages_max: 1_024,
            queued_bytes_max: 262_144,
            loose_messages_max: 64,
            in_flight_frames_max: 256,
            credit_bytes: CREDIT_BYTES,
            partial_messages_max: 4,
            partial_bytes_max: 131_072,
            partial_deadline: Duration::from_secs(2),
            rto_initial: Duration::from_millis(250),
            rto_min: Duration::from_millis(50),
            rto_max: Duration::from_secs(3),
            attempts_max: 32,
            jitter_fraction: 0.25,
            ack_delay_max: Duration::from_millis(25),
            ack_packets_max: 16,
            late_ack_window: Duration::from_secs(2),
            granularity: GRANULARITY,
            probe_min: Duration::from_millis(10),
            probe_packets_max: u32::MAX,
            burst_bytes_max: BURST_BYTES_MIN,
            priorities: Priorities::default(),
            recycled_bytes_max: 8_192,
            knobs: Knobs::default(),
        }
    }
}

/// A field of [`Config`] is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The field must lie within these bounds.
    #[error("{field} is {value}, set it to {min}..={max}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// Least legal value.
        min: u64,
        /// Greatest legal value.
        max: u64,
    },
    /// Resend timeouts must be `0 < rto_min <= rto_initial <= rto_max`, `probe_min` and `granularity`
    /// above zero.
    #[error(
        "rto_min, rto_initial and rto_max are not in this order above zero, or probe_min or granularity is zero: \
         reorder them"
    )]
    RtoOrder,
    /// `jitter_fraction` must be a number from 0 to 1.
    #[error("jitter_fraction is not within 0 to 1, set it to 0.25 or so")]
    Jitter,
}

impl Config {
    /// Checks every field that has a range.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of range and the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let message_max = FRAGMENTS_PER_MESSAGE_MAX.saturating_mul(self.fragment_bytes_max);
        let whole_message = (self.message_bytes_max as u64)
            .saturating_add(FRAGMENTS_PER_MESSAGE_MAX as u64 * FRAME_CHARGE_BYTES);
        let most = u64::from(u32::MAX);
        let attempts = u64::from(self.attempts_max);
        let ack_packets = u64::from(self.ack_packets_max);
        for (field, value, min, max) in [
            ("fragment_bytes_max", self.fragment_bytes_max as u64, 1, 65_536),
            ("frame_head_bytes", self.frame_head_bytes as u64, 0, 256),
            ("message_bytes_max", self.message_bytes_max as u64, 1, message_max as u64),
            ("queued_messages_max", self.queued_messages_max as u64, 1, 1 << 20),
            ("queued_bytes_max", self.queued_bytes_max as u64, 1, most),
            ("loose_messages_max", self.loose_messages_max as u64, 1, 4_096),
            ("in_flight_frames_max", self.in_flight_frames_max as u64, 1, 1_024),
            // Two messages can be half-way at once, one of the bulk stream and one of the others.
            // The quarter that may be consumed without a word and those two must leave room, or
            // both would stop for ever.
            ("credit_bytes", self.credit_bytes, whole_message.saturating_mul(3), u64::MAX),
            ("partial_messages_max", self.partial_messages_max as u64, 1, 64),
            ("partial_bytes_max", self.partial_bytes_max as u64, 1, most),
            ("attempts_max", attempts, 1, 1_000),
            ("ack_packets_max", ack_packets, 1, 1_024),
            ("probe_packets_max", u64::from(self.probe_packets_max), 1, most),
            ("burst_bytes_max", self.burst_bytes_max, BURST_BYTES_MIN, 1 << 20),
            ("recycled_bytes_max", self.recycled_bytes_max as u64, 0, most),
        ] {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::OutOfRange { field, value, min, max });
            }
        }
        let ordered = self.rto_min <= self.rto_initial && self.rto_initial <= self.rto_max;
        let is_zero = [self.rto_min, self.probe_min, self.granularity].contains(&Duration::ZERO);
        if is_zero || !ordered {
            return Err(ConfigError::RtoOrder);
        }
        if !(0.0..=1.0).contains(&self.jitter_fraction) {
            return Err(ConfigError::Jitter);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_legal() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn every_stream_has_the_level_that_it_was_given_and_no_other() {
        let ids: Vec<_> = (0..64).filter_map(StreamId::new).collect();
        assert_eq!(ids.len(), 64);
        let mut priorities = Priorities::default();
        for (id, level) in ids.iter().zip((0..8).cycle()) {
            priorities = priorities.with(*id, level);
        }
        let levels: Vec<_> = ids.iter().map(|id| priorities.get(*id)).collect();
        let expected: Vec<u8> = (0..8).cycle().take(64).collect();
        assert_eq!(levels, expected);
        let changed = priorities.clone().with(StreamId::EVENTS, 200);
        assert_eq!(changed.get(StreamId::EVENTS), 7);
        assert_eq!(
            format!("{:?}", Priorities::default()),
            format!("{{{}: 2, {}: 7}}", StreamId::EVENTS.get(), StreamId::BULK.get())
        );
    }

    #[test]
    fn a_wrong_field_is_named() {
        let config = Config { in_flight_frames_max: 0, ..Config::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "in_flight_frames_max is 0, set it to 1..=1024"
        );
        let config = Config { message_bytes_max: 70_401, ..Config::default() };
        assert!(config.check().unwrap_err().to_string().starts_with("message_bytes_max"));
        let config = Config { rto_min: Duration::from_secs(9), ..Config::default() };
        assert_eq!(config.check(), Err(ConfigError::RtoOrder));
        let config = Config { jitter_fraction: f64::NAN, ..Config::default() };
        assert_eq!(config.check(), Err(ConfigError::Jitter));
    }
}
