//! Channels: what a message is promised, and which stream it belongs to.

/// Delivery class. The numbers are the two high bits of a channel's byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Delivery {
    /// Sent once; may be lost, may overtake. The one class without message numbers.
    Unreliable = 0,
    /// Sent once; delivered only when newer than everything delivered before.
    Sequenced = 1,
    /// Resent until acknowledged; delivered exactly once, as soon as it is whole.
    Unordered = 2,
    /// Resent until acknowledged; delivered exactly once, in the order of sending.
    Ordered = 3,
}

impl Delivery {
    /// The class that the low two bits of `bits` name.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Unreliable,
            1 => Self::Sequenced,
            2 => Self::Unordered,
            _ => Self::Ordered,
        }
    }

    /// The two bits of the class.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Whether messages of this class are resent until the peer has them.
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::Unordered | Self::Ordered)
    }

    /// Whether messages of this class carry a message number: all but [`Delivery::Unreliable`].
    pub const fn is_numbered(self) -> bool {
        !matches!(self, Self::Unreliable)
    }
}

/// A stream, 0 to 63. Streams of different classes with one number are different channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u8);

impl StreamId {
    /// The protocol's own messages. Reliable ones are outside credit, few and short: see
    /// [`CONTROL_MESSAGES_AHEAD_MAX`](crate::CONTROL_MESSAGES_AHEAD_MAX).
    pub const CONTROL: Self = Self(0);
    /// What players do.
    pub const INPUT: Self = Self(1);
    /// What the world looks like.
    pub const STATE: Self = Self(2);
    /// What happened.
    pub const EVENTS: Self = Self(3);
    /// What may wait: sent after everything else.
    pub const BULK: Self = Self(4);
    /// How many streams a class has.
    pub const COUNT: u8 = 64;

    /// Stream `number`, or `None` above 63.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The number of the stream.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A delivery class and a stream; each numbers its own messages from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// What its messages are promised.
    pub delivery: Delivery,
    /// Which stream of that class.
    pub stream: StreamId,
}

impl Channel {
    /// The channel on `stream` with class `delivery`.
    pub const fn new(delivery: Delivery, stream: StreamId) -> Self {
        Self { delivery, stream }
    }

    /// The byte on the wire: class in bits 7 and 6, stream in bits 5 to 0.
    pub const fn to_byte(self) -> u8 {
        (self.delivery.bits() << 6) | self.stream.0
    }

    /// The channel of a byte; every byte is one.
    pub const fn from_byte(byte: u8) -> Self {
        Self { delivery: Delivery::from_bits(byte >> 6), stream: StreamId(byte & 0x3f) }
    }

    /// Whether credit covers this channel: reliable, and not the control stream. Were control
    /// messages charged, two ends without credit could never tell each other of new credit.
    pub const fn is_charged(self) -> bool {
        self.delivery.is_reliable() && self.stream.0 != StreamId::CONTROL.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_one_channel_and_back() {
        for byte in 0..=u8::MAX {
            assert_eq!(Channel::from_byte(byte).to_byte(), byte);
        }
    }

    #[test]
    fn channels_have_their_golden_bytes() {
        for (delivery, stream, byte) in [
            (Delivery::Unreliable, StreamId::STATE, 0x02),
            (Delivery::Sequenced, StreamId::INPUT, 0x41),
            (Delivery::Unordered, StreamId::EVENTS, 0x83),
            (Delivery::Ordered, StreamId::CONTROL, 0xc0),
            (Delivery::Ordered, StreamId::BULK, 0xc4),
        ] {
            assert_eq!(Channel::new(delivery, stream).to_byte(), byte);
        }
    }

    #[test]
    fn streams_end_at_63() {
        assert_eq!(StreamId::new(63).map(StreamId::get), Some(63));
        assert_eq!(StreamId::new(64), None);
    }

    #[test]
    fn credit_covers_reliable_streams_but_control() {
        assert!(Channel::new(Delivery::Ordered, StreamId::BULK).is_charged());
        assert!(!Channel::new(Delivery::Ordered, StreamId::CONTROL).is_charged());
        assert!(!Channel::new(Delivery::Sequenced, StreamId::STATE).is_charged());
    }
}
