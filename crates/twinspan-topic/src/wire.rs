//! Datagrams of a topic: how they are read and written.
//!
//! //= hub 8.2

use core::time::Duration;

use twinspan_core::aead::Cipher;
use twinspan_reliable::Ack;
use twinspan_session::link::{HEAD_BYTES, MESSAGE_OVERHEAD_BYTES, OVERHEAD_BYTES};

use crate::greet::{Greeting, GreetingError, Sealing};
use crate::probe::{Offer, PROBE_BYTES};

const MAGIC: [u8; 4] = *b"TwHu";
const VERSION: u8 = 1;
const HELLO: u8 = 1;
const COOKIE: u8 = 2;
const WELCOME: u8 = 3;
const REFUSED: u8 = 4;
const DATA: u8 = 5;
const END: u8 = 6;
const RESET: u8 = 7;
const SEALED_HELLO: u8 = 8;
const SEALED_WELCOME: u8 = 9;
const SEALED: u8 = 10;
const MISMATCH: u8 = 11;
const GROUPED: u8 = 12;
const PROBE: u8 = 16;
const HERE: u8 = 17;

/// Where the token stands in kinds that have it behind two bytes, and in all others that have one.
pub(crate) const TOKEN_AT_FIRST: usize = 2;
pub(crate) const TOKEN_AT: usize = 8;
/// Kinds of the former.
pub(crate) const KINDS_WITH_TOKEN_FIRST: [u8; 4] = [DATA, END, RESET, SEALED];
/// What the first byte of each packet of QUIC has (RFC 9000, 17), and no kind.
pub(crate) const QUIC_BIT: u8 = 0x40;

/// Bytes of a cookie.
pub(crate) const COOKIE_BYTES: usize = 16;
/// Bytes of a probe behind its token, which are 0: the answer is shorter than what it answers.
const PROBE_FILL_BYTES: usize = PROBE_BYTES - 16;

/// Bytes of data before its parts.
pub(crate) const DATA_HEAD_BYTES: usize = 14;
/// Bytes that data has more when it is sealed: kind and flags inside, and a tag.
pub(crate) const SEALING_BYTES: usize = 2 + OVERHEAD_BYTES;
/// Bytes of the parts that may stand before a chunk in any datagram.
pub(crate) const DATA_PARTS_BYTES: usize = 16;
/// Bytes of a frame before its body.
pub(crate) const FRAME_HEAD_BYTES: usize = 5;
/// Bytes of an ack without its bitmap.
const ACK_FIXED_BYTES: usize = 7;
/// Delays of acks travel in these.
const DELAY_UNIT_US: u64 = 16;

const HAS_ACK: u8 = 1;
const HAS_START: u8 = 2;
const KNOWS_START: u8 = 4;
const HAS_NEXT: u8 = 8;
const HAS_CHUNK: u8 = 16;
const HAS_FRAMES: u8 = 32;
const ASKS: u8 = 64;

/// Bits of a datagram of a group that have another meaning than those of data.
const GROUP_LEAVES: u8 = 4;
const GROUP_GREETING: u8 = 32;

/// Why the other end goes, or why it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// It was closed.
    Closed,
    /// It came anew from the same place, or from another one.
    Replaced,
    /// Nothing was heard of it for too long, or it acknowledged nothing.
    Silent,
    /// It does not know us any more.
    Forgotten,
    /// It broke the protocol.
    Violation,
}

impl EndReason {
    const ALL: [Self; 5] =
        [Self::Closed, Self::Replaced, Self::Silent, Self::Forgotten, Self::Violation];
}

/// Why a datagram is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ends too early.
    #[error("a datagram is shorter than it says")]
    Short,
    /// It is longer than it says.
    #[error("a datagram is longer than it says")]
    Long,
    /// Its first byte says nothing.
    #[error("a datagram has kind {0}, which there is not")]
    Kind(u8),
    /// It is of another protocol.
    #[error("a datagram is of another protocol")]
    Magic,
    /// It is of another version.
    #[error("a datagram has version {0}, this program {VERSION}: use one version")]
    Version(u8),
    /// A field has a value without a meaning.
    #[error("a datagram's {0} means nothing")]
    Field(&'static str),
    /// Its greeting is none.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedFor {
    Disagreement,
    Full,
}

/// A datagram that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Hello {
        token: u64,
        cookie: [u8; COOKIE_BYTES],
        greeting: Greeting,
    },
    Cookie {
        token: u64,
        cookie: [u8; COOKIE_BYTES],
    },
    Welcome {
        token: u64,
        own_token: u64,
        greeting: Greeting,
    },
    Refused {
        token: u64,
        reason: RefusedFor,
        greeting: Greeting,
    },
    Data(Data<'a>),
    End {
        token: u64,
        reason: EndReason,
        next: u64,
    },
    Reset {
        token: u64,
    },
    /// Asks whether somebody listens, and how long the way is.
    Probe {
        token: u64,
    },
    /// Somebody does.
    Here {
        token: u64,
        offer: Offer,
    },
    SealedHello {
        token: u64,
        cookie: [u8; COOKIE_BYTES],
        cipher: Cipher,
        message: &'a [u8],
    },
    SealedWelcome {
        token: u64,
        message: &'a [u8],
    },
    /// All of a sealed datagram.
    Sealed {
        token: u64,
        bytes: &'a [u8],
    },
    Mismatch {
        token: u64,
        what: Sealing,
    },
    Grouped(Grouped<'a>),
}

/// A datagram for all of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grouped<'a> {
    /// Who sends it.
    pub(crate) publisher: u64,
    /// What stands for topic and type.
    pub(crate) tag: u64,
    /// The number of the next message; 0 beside a chunk, which has its own.
    pub(crate) next: u64,
    /// Whether it is the last.
    pub(crate) leaves: bool,
    pub(crate) body: GroupedBody<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupedBody<'a> {
    Nothing,
    Chunk(&'a [u8]),
    Greeting(Greeting),
}

impl<'a> Grouped<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (&[flags], rest) = split::<1>(bytes)?;
        let (publisher, rest) = long(rest)?;
        let (tag, rest) = long(rest)?;
        if flags == HAS_CHUNK {
            let body = GroupedBody::Chunk(rest);
            return Ok(Self { publisher, tag, next: 0, leaves: false, body });
        }
        const SAYS_NEXT: u8 = HAS_NEXT;
        const LEAVES: u8 = HAS_NEXT | GROUP_LEAVES;
        const GREETS: u8 = HAS_NEXT | GROUP_GREETING;
        let (next, rest) = long(rest)?;
        let body = match flags {
            SAYS_NEXT | LEAVES => GroupedBody::Nothing,
            GREETS => {
                let (greeting, behind) = Greeting::parse(rest)?;
                nothing_more(behind)?;
                if greeting.publisher() != publisher {
                    return Err(WireError::Field("publisher"));
                }
                let body = GroupedBody::Greeting(greeting);
                return Ok(Self { publisher, tag, next, leaves: false, body });
            }
            _ => return Err(WireError::Field("flag")),
        };
        nothing_more(rest)?;
        Ok(Self { publisher, tag, next, leaves: flags & GROUP_LEAVES != 0, body })
    }

    /// Writes the datagram; `None` where it does not fit.
    pub(crate) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = DataWriter { out, at: 0, flags: 0, flags_at: 1 };
        let is_written = writer.put(&[GROUPED, 0])
            && writer.put(&self.publisher.to_le_bytes())
            && writer.put(&self.tag.to_le_bytes());
        let is_whole = match &self.body {
            GroupedBody::Chunk(chunk) => writer.chunk(chunk),
            GroupedBody::Nothing => {
                writer.next(self.next);
                writer.flags |= if self.leaves { GROUP_LEAVES } else { 0 };
                writer.flags & HAS_NEXT != 0
            }
            GroupedBody::Greeting(greeting) => {
                writer.next(self.next);
                let mut bytes = Vec::new();
                greeting.write(&mut bytes);
                writer.flags |= GROUP_GREETING;
                writer.flags & HAS_NEXT != 0 && writer.put(&bytes)
            }
        };
        (is_written && is_whole).then(|| writer.finish())
    }
}

/// What a sealed datagram holds.
#[expect(clippy::large_enum_variant, reason = "one lives at a time, for a call")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inner<'a> {
    Data(Data<'a>),
    End { reason: EndReason, next: u64 },
}

/// What the answer to a sealed hello says inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome { own_token: u64 },
    Refused(RefusedFor),
}

impl Verdict {
    /// Appends the verdict and the greeting of who says it.
    pub(crate) fn write(&self, greeting: &Greeting, out: &mut Vec<u8>) {
        let (what, own_token) = match self {
            Self::Welcome { own_token } => (0, *own_token),
            Self::Refused(RefusedFor::Disagreement) => (1, 0),
            Self::Refused(RefusedFor::Full) => (2, 0),
        };
        out.push(what);
        out.extend_from_slice(&own_token.to_le_bytes());
        greeting.write(out);
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, Greeting), WireError> {
        let (&[what], rest) = split::<1>(bytes)?;
        let (own_token, rest) = long(rest)?;
        let (greeting, rest) = Greeting::parse(rest)?;
        nothing_more(rest)?;
        let verdict = match (what, own_token) {
            (0, own_token) => Self::Welcome { own_token },
            (1, 0) => Self::Refused(RefusedFor::Disagreement),
            (2, 0) => Self::Refused(RefusedFor::Full),
            _ => return Err(WireError::Field("verdict")),
        };
        Ok((verdict, greeting))
    }
}

impl<'a> Inner<'a> {
    /// Reads what a sealed datagram holds; token and number stand before it.
    pub(crate) fn parse(bytes: &'a [u8], token: u64, number: u64) -> Result<Self, WireError> {
        let (&[kind, what], rest) = split::<2>(bytes)?;
        match kind {
            // The low half, as in clear data.
            DATA => Data::parse_parts(what, token, number as u32, rest).map(Self::Data),
            END => {
                let (next, rest) = long(rest)?;
                nothing_more(rest)?;
                Ok(Self::End { reason: end_reason(what)?, next })
            }
            other => Err(WireError::Kind(other)),
        }
    }
}

/// A sealed datagram that ends a link, with room for its tag, and without number.
pub(crate) fn end_to_seal(token: u64, reason: EndReason, next: u64) -> Vec<u8> {
    let mut out = vec![SEALED, 0];
    out.extend_from_slice(&token.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let reason = EndReason::ALL.iter().position(|other| *other == reason);
    out.extend_from_slice(&[END, reason.map_or(0, |at| at as u8)]);
    out.extend_from_slice(&next.to_le_bytes());
    out.extend_from_slice(&[0; OVERHEAD_BYTES]);
    out
}

fn end_reason(what: u8) -> Result<EndReason, WireError> {
    EndReason::ALL.get(usize::from(what)).copied().ok_or(WireError::Field("reason"))
}

/// What nobody may change of a sealed hello before its message.
pub(crate) fn sealed_head(token: u64, cookie: &[u8; COOKIE_BYTES], cipher: Cipher) -> Vec<u8> {
    let mut out = vec![SEALED_HELLO, VERSION, cipher as u8, 0];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&token.to_le_bytes());
    out.extend_from_slice(cookie);
    out
}

/// What carries messages and all that belongs to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data<'a> {
    pub(crate) token: u64,
    /// The low half of the packet's number.
    pub(crate) number: u32,
    /// `largest` has its low half alone.
    pub(crate) ack: Option<Ack>,
    pub(crate) start: Option<u64>,
    pub(crate) knows_start: bool,
    pub(crate) next: Option<u64>,
    pub(crate) asks: bool,
    pub(crate) body: Body<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Nothing,
    Chunk(&'a [u8]),
    Frames(&'a [u8]),
}

fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), WireError> {
    bytes.split_first_chunk().ok_or(WireError::Short)
}

fn long(bytes: &[u8]) -> Result<(u64, &[u8]), WireError> {
    let (value, rest) = split::<8>(bytes)?;
    Ok((u64::from_le_bytes(*value), rest))
}

fn nothing_more(rest: &[u8]) -> Result<(), WireError> {
    if rest.is_empty() { Ok(()) } else { Err(WireError::Long) }
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (&[kind], rest) = split::<1>(bytes)?;
        match kind {
            DATA => Data::parse(rest).map(Self::Data),
            GROUPED => Grouped::parse(rest).map(Self::Grouped),
            END => {
                let (&[reason], rest) = split::<1>(rest)?;
                let (token, rest) = long(rest)?;
                let (next, rest) = long(rest)?;
                nothing_more(rest)?;
                Ok(Self::End { token, reason: end_reason(reason)?, next })
            }
            SEALED => {
                let (&[_bits], behind) = split::<1>(rest)?;
                let (token, _) = long(behind)?;
                if bytes.len() < HEAD_BYTES + SEALING_BYTES {
                    return Err(WireError::Short);
                }
                Ok(Self::Sealed { token, bytes })
            }
            RESET => {
                let (&[zero], rest) = split::<1>(rest)?;
                let (token, rest) = long(rest)?;
                nothing_more(rest)?;
                if zero == 0 { Ok(Self::Reset { token }) } else { Err(WireError::Field("zero")) }
            }
            HELLO | COOKIE | WELCOME | REFUSED | SEALED_HELLO | SEALED_WELCOME | MISMATCH
            | PROBE | HERE => Self::parse_meeting(kind, rest),
            other => Err(WireError::Kind(other)),
        }
    }

    fn parse_meeting(kind: u8, rest: &'a [u8]) -> Result<Self, WireError> {
        let (&[version, what, zero, m0, m1, m2, m3], rest) = split::<7>(rest)?;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(WireError::Magic);
        }
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let has_code = matches!(kind, REFUSED | SEALED_HELLO | MISMATCH);
        if zero != 0 || !has_code && what != 0 {
            return Err(WireError::Field("zero"));
        }
        let (token, rest) = long(rest)?;
        match kind {
            HELLO => {
                let (cookie, rest) = split::<COOKIE_BYTES>(rest)?;
                let (greeting, rest) = Greeting::parse(rest)?;
                nothing_more(rest)?;
                Ok(Self::Hello { token, cookie: *cookie, greeting })
            }
            COOKIE => {
                let (cookie, rest) = split::<COOKIE_BYTES>(rest)?;
                nothing_more(rest)?;
                Ok(Self::Cookie { token, cookie: *cookie })
            }
            WELCOME => {
                let (own_token, rest) = long(rest)?;
                let (greeting, rest) = Greeting::parse(rest)?;
                nothing_more(rest)?;
                Ok(Self::Welcome { token, own_token, greeting })
            }
            PROBE => {
                let (fill, rest) = split::<PROBE_FILL_BYTES>(rest)?;
                nothing_more(rest)?;
                let is_zero = fill.iter().all(|byte| *byte == 0);
                is_zero.then_some(Self::Probe { token }).ok_or(WireError::Field("zero"))
            }
            HERE => {
                let (fixed, rest) = split::<{ Offer::BYTES }>(rest)?;
                nothing_more(rest)?;
                let offer = Offer::parse(fixed).ok_or(WireError::Field("offer"))?;
                Ok(Self::Here { token, offer })
            }
            SEALED_HELLO => {
                let (cookie, message) = split::<COOKIE_BYTES>(rest)?;
                let cipher = Cipher::from_wire(what).filter(|cipher| cipher.encrypts());
                let cipher = cipher.ok_or(WireError::Field("cipher"))?;
                Self::long_enough(message)?;
                Ok(Self::SealedHello { token, cookie: *cookie, cipher, message })
            }
            SEALED_WELCOME => {
                Self::long_enough(rest)?;
                Ok(Self::SealedWelcome { token, message: rest })
            }
            MISMATCH => {
                nothing_more(rest)?;
                let what = Sealing::ALL.get(usize::from(what));
                Ok(Self::Mismatch { token, what: *what.ok_or(WireError::Field("reason"))? })
            }
            _ => {
                let reason = match what {
                    0 => RefusedFor::Disagreement,
                    1 => RefusedFor::Full,
                    _ => return Err(WireError::Field("reason")),
                };
                let (greeting, rest) = Greeting::parse(rest)?;
                nothing_more(rest)?;
                Ok(Self::Refused { token, reason, greeting })
            }
        }
    }

    fn long_enough(message: &[u8]) -> Result<(), WireError> {
        if message.len() < MESSAGE_OVERHEAD_BYTES { Err(WireError::Short) } else { Ok(()) }
    }

    /// Appends the datagram. Data has a [writer](DataWriter) of its own, and is left out here.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut meeting = |kind: u8, what: u8, token: u64| {
            out.extend_from_slice(&[kind, VERSION, what, 0]);
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&token.to_le_bytes());
        };
        match self {
            Self::Hello { token, cookie, greeting } => {
                meeting(HELLO, 0, *token);
                out.extend_from_slice(cookie);
                greeting.write(out);
            }
            Self::Cookie { token, cookie } => {
                meeting(COOKIE, 0, *token);
                out.extend_from_slice(cookie);
            }
            Self::Welcome { token, own_token, greeting } => {
                meeting(WELCOME, 0, *token);
                out.extend_from_slice(&own_token.to_le_bytes());
                greeting.write(out);
            }
            Self::Refused { token, reason, greeting } => {
                let what = if *reason == RefusedFor::Full { 1 } else { 0 };
                meeting(REFUSED, what, *token);
                greeting.write(out);
            }
            Self::End { token, reason, next } => {
                let reason = EndReason::ALL.iter().position(|other| other == reason);
                out.extend_from_slice(&[END, reason.map_or(0, |at| at as u8)]);
                out.extend_from_slice(&token.to_le_bytes());
                out.extend_from_slice(&next.to_le_bytes());
            }
            Self::Reset { token } => {
                out.extend_from_slice(&[RESET, 0]);
                out.extend_from_slice(&token.to_le_bytes());
            }
            Self::Probe { token } => {
                meeting(PROBE, 0, *token);
                out.extend_from_slice(&[0; PROBE_FILL_BYTES]);
            }
            Self::Here { token, offer } => {
                meeting(HERE, 0, *token);
                out.extend_from_slice(&offer.to_bytes());
            }
            Self::SealedHello { token, cookie, cipher, message } => {
                out.extend_from_slice(&sealed_head(*token, cookie, *cipher));
                out.extend_from_slice(message);
            }
            Self::SealedWelcome { token, message } => {
                meeting(SEALED_WELCOME, 0, *token);
                out.extend_from_slice(message);
            }
            Self::Mismatch { token, what } => {
                let what = Sealing::ALL.iter().position(|other| other == what);
                meeting(MISMATCH, what.map_or(0, |at| at as u8), *token);
            }
            Self::Sealed { bytes, .. } => out.extend_from_slice(bytes),
            // Those have writers of their own.
            Self::Data(_) | Self::Grouped(_) => {}
        }
    }
}

impl<'a> Data<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (&[flags], rest) = split::<1>(bytes)?;
        let (token, rest) = long(rest)?;
        let (number, rest) = split::<4>(rest)?;
        Self::parse_parts(flags, token, u32::from_le_bytes(*number), rest)
    }

    fn parse_parts(
        flags: u8,
        token: u64,
        number: u32,
        mut rest: &'a [u8],
    ) -> Result<Self, WireError> {
        let mut data = Self {
            token,
            number,
            ack: None,
            start: None,
            knows_start: flags & KNOWS_START != 0,
            next: None,
            asks: flags & ASKS != 0,
            body: Body::Nothing,
        };
        if flags & 0x80 != 0 {
            return Err(WireError::Field("flag"));
        }
        if flags & HAS_ACK != 0 {
            let (ack, behind) = parse_ack(rest)?;
            data.ack = Some(ack);
            rest = behind;
        }
        if flags & HAS_START != 0 {
            let (start, behind) = long(rest)?;
            data.start = Some(start);
            rest = behind;
        }
        if flags & HAS_NEXT != 0 {
            let (next, behind) = long(rest)?;
            data.next = Some(next);
            rest = behind;
        }
        data.body = match (flags & HAS_CHUNK != 0, flags & HAS_FRAMES != 0) {
            (false, false) => {
                nothing_more(rest)?;
                Body::Nothing
            }
            (true, false) => Body::Chunk(rest),
            (false, true) => Body::Frames(rest),
            (true, true) => return Err(WireError::Field("flag")),
        };
        Ok(data)
    }
}

fn parse_ack(bytes: &[u8]) -> Result<(Ack, &[u8]), WireError> {
    let (&[l0, l1, l2, l3, d0, d1, bitmap_bytes], rest) = split::<ACK_FIXED_BYTES>(bytes)?;
    let largest = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
    let delay = u64::from(u16::from_le_bytes([d0, d1])) * DELAY_UNIT_US;
    let bitmap = rest.split_at_checked(usize::from(bitmap_bytes)).ok_or(WireError::Short)?;
    let ack = Ack::from_bitmap(largest, Duration::from_micros(delay), bitmap.0);
    Ok((ack.ok_or(WireError::Field("bitmap"))?, bitmap.1))
}

/// A frame of the reliability engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) channel: u8,
    pub(crate) number: u16,
    pub(crate) body: &'a [u8],
}

/// The first frame of some, and what is behind it.
pub(crate) fn next_frame(bytes: &[u8]) -> Result<(Frame<'_>, &[u8]), WireError> {
    let (&[channel, n0, n1, b0, b1], rest) = split::<FRAME_HEAD_BYTES>(bytes)?;
    let length = usize::from(u16::from_le_bytes([b0, b1]));
    let (body, rest) = rest.split_at_checked(length).ok_or(WireError::Short)?;
    Ok((Frame { channel, number: u16::from_le_bytes([n0, n1]), body }, rest))
}

/// Writes data into a buffer, part by part in the order of its methods.
#[derive(Debug)]
pub(crate) struct DataWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    flags: u8,
    flags_at: usize,
}

impl<'a> DataWriter<'a> {
    /// Begins a datagram; `None` where not even its head fits.
    pub(crate) fn begin(out: &'a mut [u8], token: u64, number: u64) -> Option<Self> {
        let mut writer = Self { out, at: 0, flags: 0, flags_at: 1 };
        let is_written = writer.put(&[DATA, 0])
            && writer.put(&token.to_le_bytes())
            && writer.put(&(number as u32).to_le_bytes());
        is_written.then_some(writer)
    }

    /// Begins a datagram that will be sealed; behind it is room for the tag.
    pub(crate) fn begin_sealed(out: &'a mut [u8], token: u64) -> Option<Self> {
        let room = out.len().checked_sub(OVERHEAD_BYTES)?;
        let out = out.get_mut(..room)?;
        let mut writer = Self { out, at: 0, flags: 0, flags_at: HEAD_BYTES + 1 };
        // The number is put there by who seals it.
        let is_written = writer.put(&[SEALED, 0])
            && writer.put(&token.to_le_bytes())
            && writer.put(&[0; 4])
            && writer.put(&[DATA, 0]);
        is_written.then_some(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> bool {
        let Some(place) = self.out.get_mut(self.at..self.at + bytes.len()) else { return false };
        place.copy_from_slice(bytes);
        self.at += bytes.len();
        true
    }

    pub(crate) fn room(&self) -> usize {
        self.out.len() - self.at
    }

    /// Appends an ack if it leaves `keep` bytes.
    pub(crate) fn ack(&mut self, ack: &Ack, keep: usize) -> bool {
        let bitmap_bytes = ack.bitmap_bytes();
        if ACK_FIXED_BYTES + bitmap_bytes + keep > self.room() {
            return false;
        }
        let delay = ack.delay.as_micros() / u128::from(DELAY_UNIT_US);
        let delay = u16::try_from(delay).unwrap_or(u16::MAX);
        // At most 128 bytes.
        let bitmap = ack.bitmap();
        let is_written = self.put(&(ack.largest as u32).to_le_bytes())
            && self.put(&delay.to_le_bytes())
            && self.put(&[bitmap_bytes as u8])
            && self.put(bitmap.get(..bitmap_bytes).unwrap_or_default());
        self.flags |= if is_written { HAS_ACK } else { 0 };
        is_written
    }

    pub(crate) fn start(&mut self, start: u64) {
        if self.put(&start.to_le_bytes()) {
            self.flags |= HAS_START;
        }
    }

    pub(crate) fn knows_start(&mut self) {
        self.flags |= KNOWS_START;
    }

    pub(crate) fn next(&mut self, next: u64) {
        if self.put(&next.to_le_bytes()) {
            self.flags |= HAS_NEXT;
        }
    }

    pub(crate) fn asks(&mut self) {
        self.flags |= ASKS;
    }

    pub(crate) fn chunk(&mut self, chunk: &[u8]) -> bool {
        let is_written = self.put(chunk);
        self.flags |= if is_written { HAS_CHUNK } else { 0 };
        is_written
    }

    pub(crate) fn frame(&mut self, frame: Frame<'_>) -> bool {
        // Bodies are chunks, far shorter than 64 KiB.
        let length = frame.body.len() as u16;
        let is_written = self.room() >= FRAME_HEAD_BYTES + frame.body.len()
            && self.put(&[frame.channel])
            && self.put(&frame.number.to_le_bytes())
            && self.put(&length.to_le_bytes())
            && self.put(frame.body);
        self.flags |= if is_written { HAS_FRAMES } else { 0 };
        is_written
    }

    /// Ends the datagram, and returns its length.
    pub(crate) fn finish(self) -> usize {
        if let Some(flags) = self.out.get_mut(self.flags_at) {
            *flags = self.flags;
        }
        self.at
    }
}

#[cfg(test)]
mod tests;
