//! Packets: header, extra header, payload, appended acks.

use core::fmt;

use twinspan_core::number::widen;

use crate::number::{MessageId, MessageIdError};
use crate::wire::EncodeError;
use crate::zero::{ExpandError, compress, expand, expand_head};

/// Flags, sequence number and the length of the extra header.
pub const HEADER_BYTES: usize = 6;
/// The smallest packet: a header and a message number of one byte.
pub const PACKET_BYTES_MIN: usize = HEADER_BYTES + 1;
/// The longest datagram that is taken.
pub const DATAGRAM_BYTES_MAX: usize = 8_192;
/// The longest datagram that should be sent, acks included.
pub const DATAGRAM_BYTES_SENT_MAX: usize = 1_200;
/// The longest payload once expanded: message number, extra header and body.
pub const PAYLOAD_BYTES_MAX: usize = 8_192;
/// Acks behind a packet: their count is one byte.
pub const ACKS_APPENDED_MAX: usize = 255;
/// The bits of a sequence number that count.
pub const SEQUENCE_BITS: u32 = 24;

/// Bytes of an ack behind a packet.
const ACK_BYTES: usize = 4;
/// The first byte of a packet.
//= lludp 1.2
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// The payload is zero-coded.
    pub const ZERO_CODED: Self = Self(0x80);
    /// The receiver is asked for an ack.
    pub const RELIABLE: Self = Self(0x40);
    /// The packet was sent before, under the same number.
    pub const RESENT: Self = Self(0x20);
    /// Acks follow the payload.
    pub const ACKS: Self = Self(0x10);

    /// Flags from their byte; the low four bits mean nothing and are kept.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// Their byte.
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

/// A letter for each: `Z`, `R`, `S` (sent again), `A`.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (Self::ZERO_CODED, "Z"),
            (Self::RELIABLE, "R"),
            (Self::RESENT, "S"),
            (Self::ACKS, "A"),
        ];
        letters
            .iter()
            .filter(|(flag, _)| self.has(*flag))
            .try_for_each(|(_, name)| f.write_str(name))
    }
}

/// The sequence number of a packet, as it travels.
///
/// Only the low 24 bits count, but a peer that never wraps sends more and waits for acks of what it
/// sent: so all 32 are kept, and numbers are compared by [`Sequence::widen`].
//= lludp 1.3
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sequence(pub u32);

impl Sequence {
    /// What travels for a number that never wraps.
    pub const fn of(number: u64) -> Self {
        Self((number & ((1 << SEQUENCE_BITS) - 1)) as u32)
    }

    /// The number that never wraps and lies nearest to `near`, the one expected next.
    pub const fn widen(self, near: u64) -> u64 {
        widen(self.0 as u64, SEQUENCE_BITS, near)
    }
}

/// Why a datagram is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Shorter than the smallest packet.
    #[error("{have} bytes, a packet has {PACKET_BYTES_MIN} at least")]
    Short {
        /// Bytes that were there.
        have: usize,
    },
    /// Longer than what is taken.
    #[error("{have} bytes, more than the {DATAGRAM_BYTES_MAX} that are taken")]
    Long {
        /// Bytes that were there.
        have: usize,
    },
    /// The acks that the last byte counts leave no packet before them.
    #[error("{count} acks do not fit behind a packet in {have} bytes")]
    Acks {
        /// Acks that the last byte counts.
        count: usize,
        /// Bytes of the datagram.
        have: usize,
    },
}

/// Why a payload could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The zero-coding is broken, or expands to too much.
    #[error("zero-coded payload: {0}")]
    ZeroCoding(#[from] ExpandError),
    /// The payload ends within the message number.
    #[error(transparent)]
    Id(#[from] MessageIdError),
    /// The payload ends within the extra header.
    #[error("{have} bytes where the extra header takes {need}")]
    Extra {
        /// Bytes that were there.
        have: usize,
        /// Bytes of the extra header.
        need: usize,
    },
}

/// One packet, taken apart without copying.
///
/// ```
/// use twinspan_lludp::{Flags, Frame, MessageId, PAYLOAD_BYTES_MAX};
///
/// // A PacketAck that acknowledges packet 0.
/// let datagram = [0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFB, 1, 0, 0, 0, 0];
/// let frame = Frame::parse(&datagram)?;
/// assert_eq!(frame.flags, Flags::NONE);
/// let mut space = [0; PAYLOAD_BYTES_MAX];
/// let payload = frame.open(&mut space)?;
/// assert_eq!(Some(payload.id), MessageId::fixed(0xFFFF_FFFB));
/// assert_eq!(payload.body, [1, 0, 0, 0, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the first byte says.
    pub flags: Flags,
    /// The number of the packet.
    pub sequence: Sequence,
    /// The length of the extra header, which lies between message number and body.
    pub extra_bytes: u8,
    /// Message number, extra header and body, zero-coded if the flag says so.
    pub payload: &'a [u8],
    /// Packets that the sender has received.
    pub acks: Acks<'a>,
}

impl<'a> Frame<'a> {
    /// Takes a datagram apart.
    ///
    /// # Errors
    /// [`FrameError`] when it is no packet.
    //= lludp 1.1
    pub fn parse(datagram: &'a [u8]) -> Result<Self, FrameError> {
        let have = datagram.len();
        if have > DATAGRAM_BYTES_MAX {
            return Err(FrameError::Long { have });
        }
        let Some((head, rest)) = datagram.split_first_chunk::<HEADER_BYTES>() else {
            return Err(FrameError::Short { have });
        };
        let [flags, s0, s1, s2, s3, extra_bytes] = *head;
        let flags = Flags::from_byte(flags);
        let (payload, acks) =
            if flags.has(Flags::ACKS) { Acks::split(rest, have)? } else { (rest, Acks::default()) };
        if payload.is_empty() {
            return Err(FrameError::Short { have });
        }
        let sequence = Sequence(u32::from_be_bytes([s0, s1, s2, s3]));
        Ok(Self { flags, sequence, extra_bytes, payload, acks })
    }

    /// The message number alone, without the space that [`open`](Self::open) takes.
    ///
    /// # Errors
    /// [`OpenError::Id`] and [`OpenError::ZeroCoding`].
    pub fn id(&self) -> Result<MessageId, OpenError> {
        if !self.flags.has(Flags::ZERO_CODED) {
            return Ok(MessageId::parse(self.payload)?.0);
        }
        let mut head = [0; MessageId::BYTES_MAX];
        let plain = expand_head(self.payload, &mut head)?;
        Ok(MessageId::parse(plain)?.0)
    }

    /// Expands the payload where it is zero-coded, and takes it apart. `space` is used for that
    /// alone.
    ///
    /// # Errors
    /// [`OpenError`] when the payload is cut or does not expand.
    pub fn open<'s>(&self, space: &'s mut [u8; PAYLOAD_BYTES_MAX]) -> Result<Payload<'s>, OpenError>
    where
        'a: 's,
    {
        let plain = if self.flags.has(Flags::ZERO_CODED) {
            expand(self.payload, space)?
        } else {
            self.payload
        };
        let (id, rest) = MessageId::parse(plain)?;
        let need = usize::from(self.extra_bytes);
        let Some((extra, body)) = rest.split_at_checked(need) else {
            return Err(OpenError::Extra { have: rest.len(), need });
        };
        Ok(Payload { id, extra, body })
    }
}

/// What a packet carries, expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Which message.
    pub id: MessageId,
    /// The extra header; nothing is known to use it.
    pub extra: &'a [u8],
    /// The message.
    pub body: &'a [u8],
}

/// The acks behind a packet: numbers in big-endian order, other than those of the message
/// `PacketAck`.
//= lludp 1.4
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Acks<'a> {
    chunks: &'a [[u8; ACK_BYTES]],
}

impl<'a> Acks<'a> {
    /// Splits what follows a header into payload and acks; `have` is the datagram's length.
    fn split(rest: &'a [u8], have: usize) -> Result<(&'a [u8], Self), FrameError> {
        let Some((count, before)) = rest.split_last() else {
            return Err(FrameError::Short { have });
        };
        let count = usize::from(*count);
        let payload_bytes = before.len().checked_sub(ACK_BYTES * count).filter(|bytes| *bytes > 0);
        let Some((payload, acks)) = payload_bytes.and_then(|bytes| before.split_at_checked(bytes))
        else {
            return Err(FrameError::Acks { count, have });
        };
        Ok((payload, Self { chunks: acks.as_chunks().0 }))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Each of them, in the order of the packet.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Sequence> + use<'a> {
        self.chunks.iter().map(|chunk| Sequence(u32::from_be_bytes(*chunk)))
    }
}

impl fmt::Debug for Acks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|sequence| sequence.0)).finish()
    }
}

/// When a payload is zero-coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCoding {
    /// Never: the payload leaves as it is.
    Never,
    /// Where it becomes shorter; only messages that ask for it are tried.
    IfShorter,
    /// In any case, as some peers do. To write a packet again as it was.
    Always,
}

/// Why a packet could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The packet is longer than the space for it.
    #[error("a packet does not fit {room} bytes")]
    NoRoom {
        /// Bytes that there were.
        room: usize,
    },
    /// The message cannot be written.
    #[error(transparent)]
    Message(#[from] EncodeError),
    /// More acks than a packet can count.
    #[error("{count} acks, a packet counts {ACKS_APPENDED_MAX} at most")]
    TooManyAcks {
        /// How many were given.
        count: usize,
    },
}

/// Writes a header without acks and returns the space behind it.
pub(crate) fn write_head(
    out: &mut [u8],
    flags: Flags,
    sequence: Sequence,
    extra_bytes: u8,
) -> Result<&mut [u8], WriteError> {
    let no_room = WriteError::NoRoom { room: out.len() };
    let (head, rest) = out.split_first_chunk_mut::<HEADER_BYTES>().ok_or(no_room)?;
    let [s0, s1, s2, s3] = sequence.0.to_be_bytes();
    *head = [flags.without(Flags::ACKS).byte(), s0, s1, s2, s3, extra_bytes];
    Ok(rest)
}

/// Writes a header with `plain` behind it, an expanded payload, and returns the length. The flag of
/// zero-coding is set as it turns out; that of acks is set by [`append_acks`].
///
/// # Errors
/// [`WriteError::NoRoom`].
pub fn write_packet(
    out: &mut [u8],
    flags: Flags,
    sequence: Sequence,
    extra_bytes: u8,
    plain: &[u8],
    coding: ZeroCoding,
) -> Result<usize, WriteError> {
    let no_room = WriteError::NoRoom { room: out.len() };
    let rest = write_head(out, flags, sequence, extra_bytes)?;
    let coded = match coding {
        ZeroCoding::Never => None,
        ZeroCoding::IfShorter => {
            // One byte less than the plain payload: what is no shorter does not fit.
            let shorter = plain.len().saturating_sub(1).min(rest.len());
            compress(plain, rest.get_mut(..shorter).ok_or(no_room)?)
        }
        ZeroCoding::Always => Some(compress(plain, rest).ok_or(no_room)?),
    };
    let (flags, len) = if let Some(len) = coded {
        (flags.with(Flags::ZERO_CODED), len)
    } else {
        rest.get_mut(..plain.len()).ok_or(no_room)?.copy_from_slice(plain);
        (flags.without(Flags::ZERO_CODED), plain.len())
    };
    if let Some(first) = out.first_mut() {
        *first = flags.without(Flags::ACKS).byte();
    }
    Ok(HEADER_BYTES + len)
}

/// Appends acks to the packet of `len` bytes at the front of `out`, sets its flag and returns the new
/// length. Acks are never zero-coded. A packet has acks appended once.
///
/// # Errors
/// [`WriteError`]; the packet is as before then.
pub fn append_acks(out: &mut [u8], len: usize, acks: &[Sequence]) -> Result<usize, WriteError> {
    let count = acks.len();
    let Ok(count_byte) = u8::try_from(count) else {
        return Err(WriteError::TooManyAcks { count });
    };
    let no_room = WriteError::NoRoom { room: out.len() };
    let end = len.saturating_add(ACK_BYTES * count);
    let space = out.get_mut(len..=end).ok_or(no_room)?;
    let (numbers, last) = space.split_at_mut(ACK_BYTES * count);
    for (place, ack) in numbers.as_chunks_mut().0.iter_mut().zip(acks) {
        *place = ack.0.to_be_bytes();
    }
    last.fill(count_byte);
    if let Some(flags) = out.first_mut() {
        *flags |= Flags::ACKS.byte();
    }
    Ok(end + 1)
}

/// The number of acks that fit behind a packet of `packet_bytes` in a datagram of `datagram_bytes`.
pub const fn acks_that_fit(packet_bytes: usize, datagram_bytes: usize) -> usize {
    let room = datagram_bytes.saturating_sub(packet_bytes).saturating_sub(1) / ACK_BYTES;
    if room < ACKS_APPENDED_MAX { room } else { ACKS_APPENDED_MAX }
}

#[cfg(test)]
mod tests;
