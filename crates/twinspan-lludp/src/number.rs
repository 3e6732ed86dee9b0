//! Message numbers: a message is known by a number of one, two or four bytes.

use core::fmt;

/// How often a message was thought to travel; it decides how many bytes its number takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frequency {
    /// One byte, 1 to 254.
    High,
    /// Two bytes, `FF` and 1 to 254.
    Medium,
    /// Four bytes, `FF FF` and 1 to 65,529.
    Low,
    /// Four bytes, `FFFFFFFA` to `FFFFFFFF`.
    Fixed,
}

impl Frequency {
    /// In small letters, as the description of the messages has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
            Self::Fixed => "fixed",
        }
    }
}

/// The first of the fixed numbers.
const FIXED_FIRST: u32 = 0xFFFF_FFFA;
/// What stands before the number of a message of medium frequency.
const MEDIUM: u32 = 0xFF00;
/// What stands before the number of a message of low frequency.
const LOW: u32 = 0xFFFF_0000;

/// The number of a message, as it travels: its bytes read as one big-endian number.
///
/// ```
/// use twinspan_lludp::{Frequency, MessageId};
///
/// let id = MessageId::low(148).unwrap();
/// assert_eq!(id.wire(), 0xFFFF_0094);
/// assert_eq!((id.frequency(), id.number()), (Frequency::Low, 148));
/// let (parsed, body) = MessageId::parse(&[0xFF, 0xFF, 0x00, 0x94, 7])?;
/// assert_eq!((parsed, body), (id, &[7][..]));
/// # Ok::<(), twinspan_lludp::MessageIdError>(())
/// ```
//= lludp 2.1
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u32);

/// The bytes end before the message number does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{have} bytes where the message number takes {need}")]
pub struct MessageIdError {
    /// Bytes that were there.
    pub have: usize,
    /// Bytes that the number takes.
    pub need: usize,
}

impl MessageId {
    /// The bytes of the longest number.
    pub const BYTES_MAX: usize = 4;

    /// The message of high frequency with this number, 1 to 254.
    pub const fn high(number: u8) -> Option<Self> {
        if number == 0 || number == 0xFF { None } else { Some(Self(number as u32)) }
    }

    /// The message of medium frequency with this number, 1 to 254.
    pub const fn medium(number: u8) -> Option<Self> {
        if number == 0 || number == 0xFF { None } else { Some(Self(MEDIUM | number as u32)) }
    }

    /// The message of low frequency with this number, 1 to 65,529.
    pub const fn low(number: u16) -> Option<Self> {
        let wire = LOW | number as u32;
        if number == 0 || wire >= FIXED_FIRST { None } else { Some(Self(wire)) }
    }

    /// The message with this fixed number, `FFFFFFFA` to `FFFFFFFF`.
    pub const fn fixed(number: u32) -> Option<Self> {
        if number < FIXED_FIRST { None } else { Some(Self(number)) }
    }

    /// The message with this frequency and number, if the number is one that the frequency has.
    pub const fn new(frequency: Frequency, number: u32) -> Option<Self> {
        match frequency {
            Frequency::High if number < 0xFF => Self::high(number as u8),
            Frequency::Medium if number < 0xFF => Self::medium(number as u8),
            Frequency::Low if number <= 0xFFFF => Self::low(number as u16),
            Frequency::Fixed => Self::fixed(number),
            _ => None,
        }
    }

    /// For tables whose numbers were checked when they were made.
    pub(crate) const fn from_wire(wire: u32) -> Self {
        Self(wire)
    }

    /// Its bytes as one big-endian number.
    pub const fn wire(self) -> u32 {
        self.0
    }

    /// Its frequency.
    pub const fn frequency(self) -> Frequency {
        match self.0 {
            0..MEDIUM => Frequency::High,
            MEDIUM..LOW => Frequency::Medium,
            LOW..FIXED_FIRST => Frequency::Low,
            FIXED_FIRST.. => Frequency::Fixed,
        }
    }

    /// Its number among those of its frequency; all 32 bits of a fixed one.
    pub const fn number(self) -> u32 {
        match self.frequency() {
            Frequency::High | Frequency::Fixed => self.0,
            Frequency::Medium => self.0 & 0xFF,
            Frequency::Low => self.0 & 0xFFFF,
        }
    }

    /// The bytes that it takes: 1, 2 or 4.
    pub const fn wire_bytes(self) -> usize {
        match self.frequency() {
            Frequency::High => 1,
            Frequency::Medium => 2,
            Frequency::Low | Frequency::Fixed => 4,
        }
    }

    /// Its bytes are the last [`wire_bytes`](Self::wire_bytes) of these.
    pub(crate) const fn to_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// Reads a number from the front and returns what follows it. Any number is taken, one that no
    /// message has too.
    ///
    /// # Errors
    /// [`MessageIdError`] when the bytes end within it.
    pub const fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), MessageIdError> {
        let (value, need, rest) = match bytes {
            [0xFF, 0xFF, high, low, rest @ ..] => {
                (LOW | (*high as u32) << 8 | *low as u32, 4, rest)
            }
            [0xFF, 0xFF, ..] => (0, 4, bytes),
            [0xFF, number, rest @ ..] => (MEDIUM | *number as u32, 2, rest),
            [0xFF] => (0, 2, bytes),
            [number, rest @ ..] => (*number as u32, 1, rest),
            [] => (0, 1, bytes),
        };
        if bytes.len() < need {
            return Err(MessageIdError { have: bytes.len(), need });
        }
        Ok((Self(value), rest))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.frequency() {
            Frequency::Fixed => write!(f, "fixed {:#X}", self.0),
            frequency => write!(f, "{} {}", frequency.name(), self.number()),
        }
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_have_their_golden_bytes() {
        for (id, bytes) in [
            (MessageId::high(1), &[0x01][..]),
            (MessageId::high(254), &[0xFE]),
            (MessageId::medium(6), &[0xFF, 0x06]),
            (MessageId::medium(254), &[0xFF, 0xFE]),
            (MessageId::low(3), &[0xFF, 0xFF, 0x00, 0x03]),
            (MessageId::low(0xFFF9), &[0xFF, 0xFF, 0xFF, 0xF9]),
            (MessageId::fixed(0xFFFF_FFFB), &[0xFF, 0xFF, 0xFF, 0xFB]),
        ] {
            let id = id.unwrap();
            assert_eq!(MessageId::parse(bytes), Ok((id, &[][..])), "{id}");
            assert_eq!(id.to_bytes()[4 - id.wire_bytes()..], *bytes, "{id}");
            assert_eq!(MessageId::new(id.frequency(), id.number()), Some(id));
        }
    }

    #[test]
    fn numbers_that_no_frequency_has_are_refused() {
        assert_eq!(MessageId::high(0), None);
        assert_eq!(MessageId::high(0xFF), None);
        assert_eq!(MessageId::medium(0xFF), None);
        assert_eq!(MessageId::low(0), None);
        assert_eq!(MessageId::low(0xFFFA), None);
        assert_eq!(MessageId::fixed(0xFFFF_FFF9), None);
        assert_eq!(MessageId::new(Frequency::High, 0x101), None);
        assert_eq!(MessageId::new(Frequency::Low, 0x1_0001), None);
    }

    #[test]
    fn a_cut_number_says_how_many_bytes_it_takes() {
        for (bytes, need) in
            [(&[][..], 1), (&[0xFF], 2), (&[0xFF, 0xFF], 4), (&[0xFF, 0xFF, 0x00], 4)]
        {
            let error = MessageIdError { have: bytes.len(), need };
            assert_eq!(MessageId::parse(bytes), Err(error));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_name_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..6)) {
            match MessageId::parse(&bytes) {
                Ok((id, rest)) => {
                    prop_assert_eq!(id.wire_bytes() + rest.len(), bytes.len());
                    let written = &id.to_bytes()[4 - id.wire_bytes()..];
                    prop_assert_eq!(written, &bytes[..id.wire_bytes()]);
                }
                Err(error) => prop_assert!(error.have < error.need),
            }
        }
    }
}
