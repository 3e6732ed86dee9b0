//! Limits and times of circuits.

use core::time::Duration;

use twinspan_lludp::{DATAGRAM_BYTES_SENT_MAX, HEADER_BYTES};
use twinspan_reliable::ResendIdentity;

/// Which end of its circuits this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A viewer: it opens circuits, and takes messages that only simulators may send.
    Viewer,
    /// A simulator: strangers open circuits with a valid `UseCircuitCode`, and messages that only
    /// simulators may send are dropped.
    Simulator,
}

/// Circuits that one set holds at most, whatever its configuration says.
pub const CIRCUITS_MAX: usize = 1 << 16;
/// Acks that wait in one circuit; past it reliable packets are not taken, and so come again.
pub const ACKS_WAITING_MAX: usize = 8_192;
/// Acks of one `PacketAck`: its blocks are counted by a byte.
pub const ACKS_PER_PACKET_MAX: usize = 255;
/// Packet numbers that a circuit remembers behind the largest that came: each is taken once.
pub const NUMBERS_REMEMBERED: u64 = 16_384;
/// How far behind the newest packet one that waits for its ack may fall; then it is given up, for
/// the peer might no longer know whether it came.
pub const NUMBERS_IN_FLIGHT_SPAN: u64 = NUMBERS_REMEMBERED / 2;
/// Reliable packets of one circuit that are in flight.
pub const IN_FLIGHT_MAX: usize = 1_024;
/// Events that may wait to be taken before nothing more can be sent.
pub const EVENTS_WAITING_MAX: usize = 16_384;
/// Messages of one [`send_reliable`](crate::Circuits::send_reliable).
pub const GROUP_MESSAGES_MAX: usize = 64;
/// Messages whose order somebody may ask for.
pub const ORDERED_MESSAGES_MAX: usize = 32;
/// Pings that may be unanswered at a time.
pub const PINGS_IN_FLIGHT_MAX: usize = 4;

/// Limits and times of a set of circuits.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// Circuits at a time, 1 to [`CIRCUITS_MAX`].
    pub circuits_max: usize,
    /// The number of the first packet of a circuit. Tests begin close to the wrap at 2^24.
    pub first_number: u64,
    /// Longest datagram that is sent, acks included: 256 to 1,500. A proxy's header comes off it.
    pub datagram_bytes_max: usize,
    /// Messages that wait to leave one circuit. 1 to 65,536.
    pub queued_messages_max: usize,
    /// Bytes of these. At least one datagram.
    pub queued_bytes_max: usize,
    /// Bytes of reliable packets in flight of one circuit.
    pub in_flight_bytes_max: usize,
    /// How long acks may wait for a packet to ride in, whatever the peer is like. At most 2 s.
    pub ack_delay: Duration,
    /// How long they may wait where that is soon enough for the peer not to send again, as far as
    /// is known of its round trip and its resends. From `ack_delay` to 2 s.
    pub ack_delay_max: Duration,
    /// How long the peer is thought to keep its acks: it lengthens resend timeouts. Simulators
    /// look after their acks only every half second.
    pub peer_ack_delay: Duration,
    /// Resend timeout before the first round trip was measured.
    pub rto_initial: Duration,
    /// Shortest resend timeout.
    pub rto_min: Duration,
    /// Longest resend timeout, backoff included, jitter not.
    pub rto_max: Duration,
    /// How long a reliable message is tried unless its sender says otherwise.
    pub delivery_timeout: Duration,
    /// Time between the first resends of a handshake's message.
    pub critical_interval: Duration,
    /// How many of its resends keep to that; later ones back off.
    pub critical_quick_resends: u32,
    /// How often a handshake's message leaves again at most.
    pub critical_resends_max: u32,
    /// How often other reliable messages leave again at most.
    pub resends_max: u32,
    /// Time between pings; a random 5 % is added or taken off.
    pub ping_interval: Duration,
    /// Silence of the peer after which a circuit is over.
    pub silence_max: Duration,
    /// How long messages whose order was asked for wait for older ones.
    pub order_hold: Duration,
    /// Messages that wait so in one circuit, 1 to 1,024.
    pub ordered_messages_max: usize,
    /// Bits a second of each class of throttle at first; see [`Rates`](crate::Rates).
    pub rates: crate::Rates,
    /// Bits a second that a peer may ask for in all.
    pub rate_total_max: f32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            role: Role::Viewer,
            circuits_max: 64,
            first_number: 1,
            datagram_bytes_max: DATAGRAM_BYTES_SENT_MAX,
            queued_messages_max: 2_048,
            queued_bytes_max: 1 << 20,
            in_flight_bytes_max: 512_000,
            ack_delay: Duration::from_millis(100),
            ack_delay_max: Duration::from_millis(400),
            peer_ack_delay: Duration::from_millis(500),
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(250),
            // A message has 5 s: longer waits would leave it two or three chances.
            rto_max: Duration::from_millis(1_500),
            delivery_timeout: Duration::from_secs(5),
            critical_interval: Duration::from_millis(500),
            critical_quick_resends: 6,
            critical_resends_max: 16,
            resends_max: 8,
            ping_interval: Duration::from_secs(5),
            silence_max: Duration::from_secs(60),
            order_hold: Duration::from_millis(250),
            ordered_messages_max: 64,
            rates: crate::Rates::UNLIMITED,
            rate_total_max: 10_240_000.0,
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
        /// What it is; of times in milliseconds.
        value: u64,
        /// Least legal value.
        min: u64,
        /// Greatest legal value.
        max: u64,
    },
    /// Resend timeouts must be `0 < rto_min <= rto_initial <= rto_max`.
    #[error("rto_min, rto_initial and rto_max are not in this order above zero, reorder them")]
    RtoOrder,
    /// The limit of the rates must be a number above zero.
    #[error("rate_total_max is no number above zero, set it to 10240000 or so")]
    RateTotal,
}

impl Config {
    /// What a simulator uses: viewers collect acks for a tenth of a second, or for as long as five
    /// round trips allow; many circuits are open, and each keeps to rates that its viewer asks for.
    pub fn simulator() -> Self {
        Self {
            role: Role::Simulator,
            circuits_max: 1_024,
            peer_ack_delay: Duration::from_millis(200),
            rates: crate::Rates::of_total(1_024_000.0),
            ..Self::default()
        }
    }

    /// Checks every field that has a range.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of range and the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let day = 86_400_000;
        let datagram = self.datagram_bytes_max as u64;
        for (field, value, min, max) in [
            ("circuits_max", self.circuits_max as u64, 1, CIRCUITS_MAX as u64),
            ("first_number", self.first_number, 0, 1 << 40),
            ("datagram_bytes_max", datagram, 256, 1_500),
            ("queued_messages_max", self.queued_messages_max as u64, 1, 65_536),
            ("queued_bytes_max", self.queued_bytes_max as u64, datagram, 1 << 30),
            ("in_flight_bytes_max", self.in_flight_bytes_max as u64, datagram, 1 << 30),
            ("ack_delay", ms(self.ack_delay), 0, 2_000),
            ("ack_delay_max", ms(self.ack_delay_max), ms(self.ack_delay), 2_000),
            ("peer_ack_delay", ms(self.peer_ack_delay), 0, 10_000),
            ("delivery_timeout", ms(self.delivery_timeout), 1, day),
            ("critical_interval", ms(self.critical_interval), 10, 60_000),
            ("critical_resends_max", u64::from(self.critical_resends_max), 0, 100),
            ("resends_max", u64::from(self.resends_max), 0, 100),
            ("ping_interval", ms(self.ping_interval), 100, day),
            ("silence_max", ms(self.silence_max), 1_000, day),
            ("order_hold", ms(self.order_hold), 1, 60_000),
            ("ordered_messages_max", self.ordered_messages_max as u64, 1, 1_024),
        ] {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::OutOfRange { field, value, min, max });
            }
        }
        let ordered = self.rto_min <= self.rto_initial && self.rto_initial <= self.rto_max;
        if self.rto_min.is_zero() || !ordered {
            return Err(ConfigError::RtoOrder);
        }
        if !self.rate_total_max.is_finite() || self.rate_total_max <= 0.0 {
            return Err(ConfigError::RateTotal);
        }
        Ok(())
    }

    /// Longest message with its number: what a datagram has beside its header.
    pub const fn message_bytes_max(&self) -> usize {
        self.datagram_bytes_max - HEADER_BYTES
    }

    /// What the reliability engine is told.
    pub(crate) fn engine(&self) -> twinspan_reliable::Config {
        twinspan_reliable::Config {
            identity: ResendIdentity::SameNumber,
            fragment_bytes_max: self.datagram_bytes_max,
            frame_head_bytes: 0,
            message_bytes_max: self.datagram_bytes_max,
            queued_messages_max: IN_FLIGHT_MAX,
            queued_bytes_max: self.in_flight_bytes_max,
            in_flight_frames_max: IN_FLIGHT_MAX,
            credit_bytes: u64::MAX,
            rto_initial: self.rto_initial,
            rto_min: self.rto_min,
            rto_max: self.rto_max,
            ack_delay_max: self.peer_ack_delay,
            // Circuits count for themselves, by message, before the engine would give up a peer.
            attempts_max: 1_000,
            recycled_bytes_max: 4_096,
            ..twinspan_reliable::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_begin_legal() {
        for config in [Config::default(), Config::simulator()] {
            assert_eq!(config.check(), Ok(()));
            assert_eq!(config.engine().check(), Ok(()));
        }
    }

    #[test]
    fn a_wrong_field_is_named() {
        let config = Config { datagram_bytes_max: 9_000, ..Config::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "datagram_bytes_max is 9000, set it to 256..=1500"
        );
        let config = Config { rto_min: Duration::from_secs(9), ..Config::default() };
        assert_eq!(config.check(), Err(ConfigError::RtoOrder));
        let config = Config { rate_total_max: f32::NAN, ..Config::default() };
        assert_eq!(config.check(), Err(ConfigError::RateTotal));
    }
}
