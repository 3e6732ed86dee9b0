//! What a packet's text holds: the ack block, frames, control frames.

use core::time::Duration;

use twinspan_core::aead::TAG_BYTES;
use twinspan_core::bytes::{NoRoom, ReadError, Reader, Writer, varint_len};
use twinspan_reliable::{Ack, Channel, Delivery, Fragment, StreamId};
use zeroize::Zeroizing;

use crate::exchange::Rekey;
use crate::header::{HEADER_BYTES, Header, PACKET_BYTES_MAX, flag};
use crate::ticket::{RENEWAL_BYTES, Renewal};

/// Most bytes before a frame's payload: length, channel, message number, fragment.
pub(crate) const FRAME_HEAD_BYTES_MAX: usize = BUNDLE_HEAD_BYTES_MAX + 4;
/// Most bytes that bundling adds to a frame.
const BUNDLE_HEAD_BYTES_MAX: usize = 3;
/// Bytes of an ack block without its bitmap.
const ACK_HEAD_BYTES: usize = 7;
/// Most bytes of the bitmap.
const BITMAP_BYTES_MAX: usize = 128;
/// Most bytes of an ack block.
pub(crate) const ACK_BLOCK_BYTES_MAX: usize = ACK_HEAD_BYTES + BITMAP_BYTES_MAX;
/// The unit of an ack's delay.
const DELAY_UNIT_US: u128 = 16;
/// The steps of REKEY.
const REKEY_OFFER: u8 = 1;
const REKEY_ANSWER: u8 = 2;

/// The kind of PADDING.
pub(crate) const PADDING: u8 = 12;

/// Connection ids that a client has in reserve.
pub(crate) const SPARE_IDS: usize = 3;

/// An id of the server's that a client has in reserve, and the client's own that goes with it: the
/// server addresses by the second who comes under the first. 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdPair {
    pub(crate) server: u32,
    pub(crate) client: u32,
}

/// Control messages that are sent once: PING, CLOSE, TIME, challenges of paths.
pub(crate) const CONTROL_ONCE: Channel = Channel::new(Delivery::Unreliable, StreamId::CONTROL);
/// Control messages that must arrive: CREDIT, REKEY, and those about ids.
pub(crate) const CONTROL_SURE: Channel = Channel::new(Delivery::Unordered, StreamId::CONTROL);

/// An authentic packet does not say what the specification allows: the peer is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation;

impl From<ReadError> for Violation {
    fn from(_: ReadError) -> Self {
        Self
    }
}

/// The frames of a packet in the making.
#[derive(Clone, Copy, Debug)]
enum Frames {
    None,
    /// In the header's channel, from this place to the end.
    One {
        at: usize,
        channel: Channel,
        fragment: bool,
    },
    Bundle,
}

/// Writes one packet: ack block, then frames; a second frame turns the first into a bundle.
#[derive(Debug)]
pub(crate) struct PacketBuilder<'a> {
    out: &'a mut [u8],
    len: usize,
    flags: u8,
    frames: Frames,
}

/// What became of a packet in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Built {
    /// Bytes of header and text.
    pub(crate) len: usize,
    pub(crate) channel: u8,
    pub(crate) flags: u8,
    pub(crate) has_frames: bool,
}

impl<'a> PacketBuilder<'a> {
    /// Writes into `room` behind a place for the header; `None` when not even a header fits.
    pub(crate) fn new(room: &'a mut [u8]) -> Option<Self> {
        Self::within(room, PACKET_BYTES_MAX)
    }

    /// The same for a packet of at most `packet` bytes.
    pub(crate) fn within(room: &'a mut [u8], packet: usize) -> Option<Self> {
        let end = room.len().min(packet).checked_sub(TAG_BYTES)?;
        let out = room.get_mut(..end).filter(|out| out.len() >= HEADER_BYTES)?;
        Some(Self { out, len: HEADER_BYTES, flags: 0, frames: Frames::None })
    }

    /// Whether there is nothing in it yet.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == HEADER_BYTES && matches!(self.frames, Frames::None)
    }

    /// Writes the ack block, whose bitmap reaches back to `from` at most; before any frame.
    pub(crate) fn push_ack(&mut self, ack: &Ack, from: u64) -> Result<(), NoRoom> {
        let wanted = ack.largest.saturating_sub(from).div_ceil(8);
        let bytes = usize::try_from(wanted).unwrap_or(usize::MAX);
        let bytes = bytes.min(ack.bitmap_bytes()).min(BITMAP_BYTES_MAX);
        // The last bytes may be zero where the bitmap goes on behind them.
        let bytes = (0..bytes).rev().find(|i| ack.bitmap_byte(*i) != 0).map_or(0, |i| i + 1);
        let units = ack.delay.as_micros() / DELAY_UNIT_US;
        let mut writer = Writer::new(self.out.get_mut(self.len..).unwrap_or_default());
        writer.u32(ack.largest as u32)?;
        writer.u16(u16::try_from(units).unwrap_or(u16::MAX))?;
        writer.u8(bytes as u8)?;
        for index in 0..bytes {
            writer.u8(ack.bitmap_byte(index))?;
        }
        self.len += writer.len();
        self.flags |= flag::ACK;
        Ok(())
    }

    /// Bytes for the next frame, with [`FRAME_HEAD_BYTES_MAX`] of them for its head.
    pub(crate) fn room(&self) -> usize {
        let left = self.out.len() - self.len;
        match self.frames {
            // Alone in its packet it needs no length and no channel.
            Frames::None => left + BUNDLE_HEAD_BYTES_MAX,
            Frames::One { at, fragment, .. } => {
                left.saturating_sub(bundle_head_len(self.len - at, fragment))
            }
            Frames::Bundle => left,
        }
    }

    /// Appends a frame; nothing changes when it does not fit.
    pub(crate) fn push(
        &mut self,
        channel: Channel,
        number: Option<u64>,
        fragment: Option<Fragment>,
        body: &[u8],
    ) -> Result<(), NoRoom> {
        let head = usize::from(number.is_some()) * 2 + usize::from(fragment.is_some()) * 2;
        let len = head + body.len();
        match self.frames {
            Frames::None => {
                self.frames = Frames::One { at: self.len, channel, fragment: fragment.is_some() };
                self.write_frame(number, fragment, body).inspect_err(|NoRoom| {
                    self.frames = Frames::None;
                })
            }
            Frames::One { at, channel: first, fragment: first_fragment } => {
                let moved = bundle_head_len(self.len - at, first_fragment);
                let added = bundle_head_len(len, fragment.is_some()) + len;
                if self.len + moved + added > self.out.len() {
                    return Err(NoRoom);
                }
                self.out.copy_within(at..self.len, at + moved);
                let first_len = self.len - at;
                self.write_bundle_head(at, first, first_len, first_fragment)?;
                self.len += moved;
                self.frames = Frames::Bundle;
                self.append(channel, number, fragment, body, len)
            }
            Frames::Bundle => self.append(channel, number, fragment, body, len),
        }
    }

    /// Lets the caller write a frame's payload in place; nothing changes when it does not fit.
    /// It must be the packet's first frame.
    pub(crate) fn write(
        &mut self,
        channel: Channel,
        number: Option<u64>,
        write: &mut dyn FnMut(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let at = self.len;
        let mut writer = Writer::new(self.out.get_mut(at..).unwrap_or_default());
        if let Some(number) = number {
            writer.u16(number as u16)?;
        }
        write(&mut writer)?;
        self.len += writer.len();
        self.frames = Frames::One { at, channel, fragment: false };
        Ok(())
    }

    fn append(
        &mut self,
        channel: Channel,
        number: Option<u64>,
        fragment: Option<Fragment>,
        body: &[u8],
        len: usize,
    ) -> Result<(), NoRoom> {
        let head = bundle_head_len(len, fragment.is_some());
        if self.len + head + len > self.out.len() {
            return Err(NoRoom);
        }
        self.write_bundle_head(self.len, channel, len, fragment.is_some())?;
        self.len += head;
        self.write_frame(number, fragment, body)
    }

    fn write_bundle_head(
        &mut self,
        at: usize,
        channel: Channel,
        len: usize,
        fragment: bool,
    ) -> Result<(), NoRoom> {
        let mut writer = Writer::new(self.out.get_mut(at..).unwrap_or_default());
        writer.varint(bundle_word(len, fragment))?;
        writer.u8(channel.to_byte())
    }

    fn write_frame(
        &mut self,
        number: Option<u64>,
        fragment: Option<Fragment>,
        body: &[u8],
    ) -> Result<(), NoRoom> {
        let mut writer = Writer::new(self.out.get_mut(self.len..).unwrap_or_default());
        if let Some(number) = number {
            writer.u16(number as u16)?;
        }
        if let Some(Fragment { index, last }) = fragment {
            writer.put(&[index, last])?;
        }
        writer.put(body)?;
        self.len += writer.len();
        Ok(())
    }

    /// Ends the packet's text.
    pub(crate) fn finish(self) -> Built {
        let (channel, flags) = match self.frames {
            Frames::None => (0, 0),
            Frames::One { channel, fragment: true, .. } => (channel.to_byte(), flag::FRAG),
            Frames::One { channel, .. } => (channel.to_byte(), 0),
            Frames::Bundle => (0, flag::BUNDLE),
        };
        let has_frames = !matches!(self.frames, Frames::None);
        Built { len: self.len, channel, flags: self.flags | flags, has_frames }
    }
}

const fn bundle_word(len: usize, fragment: bool) -> u64 {
    (len as u64) << 1 | fragment as u64
}

const fn bundle_head_len(len: usize, fragment: bool) -> usize {
    varint_len(bundle_word(len, fragment)) + 1
}

/// An ack block as it travels: its largest number is not widened yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AckBlock<'a> {
    pub(crate) largest_low: u32,
    pub(crate) delay: Duration,
    pub(crate) bitmap: &'a [u8],
}

/// A frame as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireFrame<'a> {
    pub(crate) channel: Channel,
    /// 0 where the class has no numbers.
    pub(crate) number: u16,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) body: &'a [u8],
}

/// The text of an authentic packet, read frame by frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    reader: Reader<'a>,
    form: TextForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextForm {
    Single { channel: Channel, fragment: bool },
    Bundle,
    End,
}

impl<'a> Text<'a> {
    /// Reads the ack block, session 6.1 and 7.1.
    pub(crate) fn parse(
        header: &Header,
        text: &'a [u8],
    ) -> Result<(Option<AckBlock<'a>>, Self), Violation> {
        let mut reader = Reader::new(text);
        let mut ack = None;
        if header.flags & flag::ACK != 0 {
            let largest_low = reader.u32()?;
            let delay = u64::from(reader.u16()?) * DELAY_UNIT_US as u64;
            let bytes = usize::from(reader.u8()?);
            if bytes > BITMAP_BYTES_MAX {
                return Err(Violation);
            }
            let bitmap = reader.take(bytes)?;
            ack = Some(AckBlock { largest_low, delay: Duration::from_micros(delay), bitmap });
        }
        let fragment = header.flags & flag::FRAG != 0;
        let form = if header.flags & flag::BUNDLE != 0 {
            TextForm::Bundle
        } else if reader.is_empty() && header.channel == 0 && !fragment {
            TextForm::End
        } else {
            TextForm::Single { channel: Channel::from_byte(header.channel), fragment }
        };
        if form == TextForm::End && ack.is_none() || form == TextForm::Bundle && reader.is_empty() {
            return Err(Violation);
        }
        Ok((ack, Self { reader, form }))
    }

    /// The next frame; `None` after the last.
    pub(crate) fn next_frame(&mut self) -> Result<Option<WireFrame<'a>>, Violation> {
        match self.form {
            TextForm::End => Ok(None),
            TextForm::Single { channel, fragment } => {
                self.form = TextForm::End;
                frame(channel, fragment, self.reader.rest()).map(Some)
            }
            TextForm::Bundle if self.reader.is_empty() => Ok(None),
            TextForm::Bundle => {
                let word = self.reader.varint()?;
                let channel = Channel::from_byte(self.reader.u8()?);
                let len = usize::try_from(word >> 1).map_err(|_| Violation)?;
                frame(channel, word & 1 == 1, self.reader.take(len)?).map(Some)
            }
        }
    }
}

fn frame(channel: Channel, fragment: bool, bytes: &[u8]) -> Result<WireFrame<'_>, Violation> {
    let mut reader = Reader::new(bytes);
    let numbered = channel.delivery.is_numbered();
    let number = if numbered { reader.u16()? } else { 0 };
    let fragment = match (fragment, numbered) {
        (false, _) => None,
        (true, true) => Some(Fragment { index: reader.u8()?, last: reader.u8()? }),
        // Without a number nothing could say what it is a part of.
        (true, false) => return Err(Violation),
    };
    Ok(WireFrame { channel, number, fragment, body: reader.rest() })
}

/// A control message, session 8.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control<'a> {
    Ping,
    Close {
        reason: u8,
    },
    Credit {
        total: u64,
    },
    Time {
        nanos: u64,
    },
    PathChallenge {
        token: [u8; 8],
    },
    PathResponse {
        token: [u8; 8],
    },
    /// Ids that the client may use later; 0 for none.
    NewIds {
        ids: [u32; SPARE_IDS],
    },
    RetireId {
        id: u32,
    },
    /// Zeros that make a probe as long as it shall be.
    Padding,
    Rekey(Rekey),
    /// The ticket that takes the place of the one so far.
    Ticket(Renewal<'a>),
    /// The client's ids beside those that it has in reserve.
    OwnIds {
        pairs: [IdPair; SPARE_IDS],
    },
}

/// Bytes of the longest control message.
const CONTROL_BYTES_MAX: usize = 1 + RENEWAL_BYTES;

/// A control message's bytes, wiped when they are dropped.
pub(crate) struct ControlBytes {
    bytes: Zeroizing<[u8; CONTROL_BYTES_MAX]>,
    len: usize,
}

impl ControlBytes {
    /// A body longer than [`CONTROL_BYTES_MAX`] - 1 is cut.
    fn new(kind: u8, body: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; CONTROL_BYTES_MAX]);
        let parts = core::iter::once(&kind).chain(body);
        bytes.iter_mut().zip(parts).for_each(|(out, byte)| *out = *byte);
        Self { bytes, len: CONTROL_BYTES_MAX.min(1 + body.len()) }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<'a> Control<'a> {
    pub(crate) fn to_bytes(self) -> ControlBytes {
        match self {
            Self::Ping => ControlBytes::new(1, &[]),
            Self::Close { reason } => ControlBytes::new(2, &[reason]),
            Self::Credit { total } => ControlBytes::new(3, &total.to_le_bytes()),
            Self::Time { nanos } => ControlBytes::new(4, &nanos.to_le_bytes()),
            Self::PathChallenge { token } => ControlBytes::new(5, &token),
            Self::PathResponse { token } => ControlBytes::new(6, &token),
            Self::NewIds { ids } => {
                let mut body = [0; 4 * SPARE_IDS];
                let places = body.chunks_exact_mut(4);
                places.zip(ids).for_each(|(place, id)| place.copy_from_slice(&id.to_le_bytes()));
                ControlBytes::new(7, &body)
            }
            Self::Padding => ControlBytes::new(PADDING, &[]),
            Self::RetireId { id } => ControlBytes::new(8, &id.to_le_bytes()),
            Self::Rekey(rekey) => {
                let (step, public) = match rekey {
                    Rekey::Offer(public) => (REKEY_OFFER, public),
                    Rekey::Answer(public) => (REKEY_ANSWER, public),
                };
                let mut body = [step; 33];
                body.iter_mut().skip(1).zip(public).for_each(|(out, byte)| *out = byte);
                ControlBytes::new(9, &body)
            }
            Self::OwnIds { pairs } => {
                let mut body = [0; 8 * SPARE_IDS];
                let ids = pairs.into_iter().flat_map(|pair| [pair.server, pair.client]);
                let places = body.chunks_exact_mut(4);
                places.zip(ids).for_each(|(place, id)| place.copy_from_slice(&id.to_le_bytes()));
                ControlBytes::new(14, &body)
            }
            Self::Ticket(Renewal(body)) => ControlBytes::new(13, body),
        }
    }

    /// Reads a control message that came on `channel`.
    pub(crate) fn parse(channel: Channel, bytes: &'a [u8]) -> Result<Self, Violation> {
        let mut reader = Reader::new(bytes);
        let control = match (reader.u8()?, channel) {
            (1, CONTROL_ONCE) => Self::Ping,
            (2, CONTROL_ONCE) => Self::Close { reason: reader.u8()? },
            (3, CONTROL_SURE) => Self::Credit { total: reader.u64()? },
            (4, CONTROL_ONCE) => Self::Time { nanos: reader.u64()? },
            (5, CONTROL_ONCE) => Self::PathChallenge { token: reader.u64()?.to_le_bytes() },
            (6, CONTROL_ONCE) => Self::PathResponse { token: reader.u64()?.to_le_bytes() },
            (7, CONTROL_SURE) => {
                let mut ids = [0; SPARE_IDS];
                for id in &mut ids {
                    *id = reader.u32()?;
                }
                Self::NewIds { ids }
            }
            (PADDING, CONTROL_ONCE) => {
                reader.rest();
                return Ok(Self::Padding);
            }
            (8, CONTROL_SURE) => Self::RetireId { id: reader.u32()? },
            (9, CONTROL_SURE) => Self::Rekey(match reader.u8()? {
                REKEY_OFFER => Rekey::Offer(reader.array()?),
                REKEY_ANSWER => Rekey::Answer(reader.array()?),
                _ => return Err(Violation),
            }),
            (14, CONTROL_SURE) => {
                let mut pairs = [IdPair::default(); SPARE_IDS];
                for pair in &mut pairs {
                    *pair = IdPair { server: reader.u32()?, client: reader.u32()? };
                }
                Self::OwnIds { pairs }
            }
            (13, CONTROL_SURE) => {
                let body = reader.rest().try_into().map_err(|_| Violation)?;
                return Ok(Self::Ticket(Renewal(body)));
            }
            _ => return Err(Violation),
        };
        if reader.is_empty() { Ok(control) } else { Err(Violation) }
    }
}

#[cfg(test)]
mod tests;
