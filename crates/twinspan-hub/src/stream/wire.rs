//! Frames of a stream: what two ends of one topic say to each other in order.
//!
//! //= hub 9.2

use twinspan_topic::{GREETING_BYTES_MAX, Greeting, GreetingError};

/// Bytes in front of each frame: its length in the low 29 bits, its kind in the high three.
pub(crate) const HEAD_BYTES: usize = 4;
/// The longest body of a frame.
pub(crate) const BODY_BYTES_MAX: usize = (1 << LENGTH_BITS) - 1;
/// The longest frame that is neither a message nor a greeting.
pub(super) const CONTROL_BYTES_MAX: usize = HEAD_BYTES + CREDIT_BYTES;
/// The longest body of a greeting.
pub(super) const HELLO_BYTES_MAX: usize = GREETING_BYTES_MAX + STANDING_BYTES;

const LENGTH_BITS: u32 = 29;
const NUMBER_BYTES: usize = 8;
const CREDIT_BYTES: usize = 24;
/// What a greeting on a stream has behind the shared part.
const STANDING_BYTES: usize = 56;

// Every message that may be published fits a frame, packed too.
const _: () =
    assert!(super::MESSAGE_BYTES_MAX + crate::compress::PACKED_HEAD_BYTES <= BODY_BYTES_MAX);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message as it is.
    Message,
    /// A message that was packed.
    Packed,
    /// The number of the next message, where it is not one more than that of the one before.
    Next,
    /// What was received, and how much more may come.
    Credit,
    /// A number that is to come back.
    Ping,
    /// It comes back.
    Pong,
    /// The last frame: why.
    End,
    /// The first frame.
    Hello,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Message,
        Self::Packed,
        Self::Next,
        Self::Credit,
        Self::Ping,
        Self::Pong,
        Self::End,
        Self::Hello,
    ];

    const fn number(self) -> u32 {
        match self {
            Self::Message => 0,
            Self::Packed => 1,
            Self::Next => 2,
            Self::Credit => 3,
            Self::Ping => 4,
            Self::Pong => 5,
            Self::End => 6,
            Self::Hello => 7,
        }
    }
}

/// The head of a frame whose body has so many bytes, at most [`BODY_BYTES_MAX`].
pub(crate) const fn head(kind: Kind, body: usize) -> [u8; HEAD_BYTES] {
    (kind.number() << LENGTH_BITS | body as u32 & BODY_BYTES_MAX as u32).to_le_bytes()
}

/// The kind of a frame and the length of its body; every head means something.
pub(crate) fn parse_head(head: [u8; HEAD_BYTES]) -> (Kind, usize) {
    let word = u32::from_le_bytes(head);
    let kind = Kind::ALL.get((word >> LENGTH_BITS) as usize).copied().unwrap_or(Kind::End);
    (kind, word as usize & BODY_BYTES_MAX)
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EndReason {
    /// The peer left the topic.
    Left,
    /// The peer does not agree about the topic, its type, its reliability or its compression.
    Disagreement,
    /// The peer says that this side broke the rules.
    Violation,
    /// The peer has as many others as it may.
    Full,
    /// The same peer came by another connection.
    Replaced,
    /// Nothing was heard for too long.
    Silent,
    /// Nobody there has the topic.
    NoTopic,
}

impl EndReason {
    const TOLD: [Self; 7] = [
        Self::Left,
        Self::Disagreement,
        Self::Violation,
        Self::Full,
        Self::Replaced,
        Self::Silent,
        Self::NoTopic,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Left => 0,
            Self::Disagreement => 1,
            Self::Violation => 2,
            Self::Full => 3,
            Self::Replaced => 4,
            Self::Silent => 5,
            Self::NoTopic => 6,
        }
    }
}

/// How much a receiver has and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    /// The number of the message that is wanted next: all before it are here.
    pub(crate) received: u64,
    /// So many messages may be sent on this stream in all.
    pub(crate) messages: u64,
    /// So many bytes of messages, with their heads, may be sent on this stream in all.
    pub(crate) bytes: u64,
}

/// Where a peer stands: behind the shared part of a greeting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What stands for the speaker's dictionary; 0 for none.
    pub(crate) dictionary: u64,
    /// Messages that the speaker keeps for who receives them late.
    pub(crate) depth: u32,
    /// The publisher whose messages the speaker took before; zeros for none.
    pub(crate) publisher: [u8; 16],
    /// How much the speaker takes; `received` says which message of that publisher it wants next.
    pub(crate) credit: Credit,
}

/// The first frame in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) greeting: Greeting,
    pub(crate) standing: Standing,
}

/// A frame that is no message, or the head of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Next(u64),
    Credit(Credit),
    Ping(u64),
    Pong(u64),
    End(EndReason),
}

/// Why a frame is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// A frame has another length than its kind.
    #[error("a frame of {0:?} has another length")]
    Length(&'static str),
    /// A field has a value without a meaning.
    #[error("a frame's {0} means nothing")]
    Field(&'static str),
    /// A frame came where its kind has no place.
    #[error("a frame of {0:?} has no place there")]
    Place(&'static str),
    /// The greeting is none.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// More came than was allowed.
    #[error("more came than was allowed")]
    Credit,
    /// A number that comes went back.
    #[error("a number went back")]
    Number,
}

fn words<const N: usize>(body: &[u8], kind: &'static str) -> Result<[u64; N], FrameError> {
    if body.len() != N * NUMBER_BYTES {
        return Err(FrameError::Length(kind));
    }
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(body.as_chunks::<NUMBER_BYTES>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(words)
}

impl Frame {
    /// Reads the body of a frame that is neither a message nor a greeting.
    ///
    /// # Errors
    /// [`FrameError`] names what is wrong.
    pub(crate) fn parse(kind: Kind, body: &[u8]) -> Result<Self, FrameError> {
        match kind {
            Kind::Next => words(body, "next").map(|[number]| Self::Next(number)),
            Kind::Ping => words(body, "ping").map(|[number]| Self::Ping(number)),
            Kind::Pong => words(body, "pong").map(|[number]| Self::Pong(number)),
            Kind::Credit => {
                let [received, messages, bytes] = words(body, "credit")?;
                Ok(Self::Credit(Credit { received, messages, bytes }))
            }
            Kind::End => {
                let [number] = *body else { return Err(FrameError::Length("end")) };
                let reason = EndReason::TOLD.get(usize::from(number));
                reason.copied().map(Self::End).ok_or(FrameError::Field("reason"))
            }
            Kind::Message | Kind::Packed => Err(FrameError::Place("message")),
            Kind::Hello => Err(FrameError::Place("hello")),
        }
    }

    /// Appends the frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Next(number) => write_words(Kind::Next, &[number], out),
            Self::Ping(number) => write_words(Kind::Ping, &[number], out),
            Self::Pong(number) => write_words(Kind::Pong, &[number], out),
            Self::Credit(Credit { received, messages, bytes }) => {
                write_words(Kind::Credit, &[received, messages, bytes], out);
            }
            Self::End(reason) => {
                out.extend_from_slice(&head(Kind::End, 1));
                out.push(reason.number());
            }
        }
    }
}

fn write_words(kind: Kind, words: &[u64], out: &mut Vec<u8>) {
    out.extend_from_slice(&head(kind, words.len() * NUMBER_BYTES));
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

impl Hello {
    /// Appends the frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&head(Kind::Hello, 0));
        self.greeting.write(out);
        let Standing { dictionary, depth, publisher, credit } = self.standing;
        out.extend_from_slice(&dictionary.to_le_bytes());
        out.extend_from_slice(&depth.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&publisher);
        for word in [credit.received, credit.messages, credit.bytes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let body = out.len() - start - HEAD_BYTES;
        if let Some(place) = out.get_mut(start..start + HEAD_BYTES) {
            place.copy_from_slice(&head(Kind::Hello, body));
        }
    }

    /// Reads the body of a greeting's frame.
    ///
    /// # Errors
    /// [`FrameError`] names what is wrong.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, FrameError> {
        let (greeting, rest) = Greeting::parse(body)?;
        let Ok(rest) = <&[u8; STANDING_BYTES]>::try_from(rest) else {
            return Err(FrameError::Length("hello"));
        };
        let mut words = rest.as_chunks::<NUMBER_BYTES>().0.iter().map(|it| u64::from_le_bytes(*it));
        let mut word = || words.next().unwrap_or_default();
        let (dictionary, depth) = (word(), word());
        let depth = u32::try_from(depth).map_err(|_| FrameError::Field("reserved byte"))?;
        let mut publisher = [0; 16];
        for half in publisher.as_chunks_mut::<NUMBER_BYTES>().0 {
            *half = word().to_le_bytes();
        }
        let credit = Credit { received: word(), messages: word(), bytes: word() };
        if publisher == [0; 16] && credit.received != 0 {
            return Err(FrameError::Field("message wanted"));
        }
        Ok(Self { greeting, standing: Standing { dictionary, depth, publisher, credit } })
    }
}

/// The first frame of a stream, read to its last byte and not beyond.
#[derive(Debug, Default)]
pub(crate) struct Door {
    bytes: Vec<u8>,
    have: usize,
}

impl Door {
    /// Where the next bytes belong: never more than the frame still needs.
    ///
    /// # Errors
    /// [`FrameError`] where the first frame is no greeting.
    pub(crate) fn space(&mut self) -> Result<&mut [u8], FrameError> {
        let need = match self.bytes.first_chunk::<HEAD_BYTES>() {
            Some(head) if self.have >= HEAD_BYTES => match parse_head(*head) {
                (Kind::Hello, body) if body <= HELLO_BYTES_MAX => HEAD_BYTES + body,
                (Kind::Hello, _) => return Err(FrameError::Length("hello")),
                // A peer that cannot take us says so in place of a greeting.
                (Kind::End, 1) => HEAD_BYTES + 1,
                _ => return Err(FrameError::Place("something else")),
            },
            _ => HEAD_BYTES,
        };
        self.bytes.resize(need, 0);
        Ok(self.bytes.get_mut(self.have..).unwrap_or_default())
    }

    /// So many bytes were put there. The greeting, once it is whole.
    ///
    /// # Errors
    /// [`FrameError`] where it is none; [`Opened::End`] is an end that was told.
    pub(crate) fn filled(&mut self, count: usize) -> Result<Option<Opened>, FrameError> {
        self.have = (self.have + count).min(self.bytes.len());
        let Some((head, body)) = self.bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let (kind, length) = parse_head(*head);
        if self.have < HEAD_BYTES + length || body.len() < length {
            // What can never be one is told at once.
            return if self.have == HEAD_BYTES { self.space().map(|_| None) } else { Ok(None) };
        }
        let body = body.get(..length).unwrap_or_default();
        match kind {
            Kind::Hello => Ok(Some(Opened::Hello(Box::new(Hello::parse(body)?)))),
            _ => match Frame::parse(kind, body)? {
                Frame::End(reason) => Ok(Some(Opened::End(reason))),
                _ => Err(FrameError::Place("something else")),
            },
        }
    }
}

/// What stood at the beginning of a stream.
#[derive(Debug)]
pub(crate) enum Opened {
    Hello(Box<Hello>),
    End(EndReason),
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_have_their_golden_bytes() {
        let credit = Credit { received: 1, messages: 0x0203, bytes: u64::MAX };
        let golden: [(Frame, &[u8]); 6] = [
            (Frame::Next(0x0102), &[8, 0, 0, 0x40, 2, 1, 0, 0, 0, 0, 0, 0]),
            (
                Frame::Credit(credit),
                &[
                    24, 0, 0, 0x60, 1, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0, 0xff, 0xff,
                    0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ],
            ),
            (Frame::Ping(7), &[8, 0, 0, 0x80, 7, 0, 0, 0, 0, 0, 0, 0]),
            (Frame::Pong(7), &[8, 0, 0, 0xa0, 7, 0, 0, 0, 0, 0, 0, 0]),
            (Frame::End(EndReason::Left), &[1, 0, 0, 0xc0, 0]),
            (Frame::End(EndReason::Silent), &[1, 0, 0, 0xc0, 5]),
        ];
        for (frame, bytes) in golden {
            let mut out = Vec::new();
            frame.write(&mut out);
            assert_eq!(out, bytes, "{frame:?}");
            assert!(out.len() <= CONTROL_BYTES_MAX);
            let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().unwrap();
            let (kind, length) = parse_head(*head);
            assert_eq!(length, body.len());
            assert_eq!(Frame::parse(kind, body), Ok(frame));
        }
        assert_eq!(head(Kind::Message, 0x0a_0b0c), [0x0c, 0x0b, 0x0a, 0]);
        assert_eq!(head(Kind::Packed, 1), [1, 0, 0, 0x20]);
        assert_eq!(head(Kind::Hello, 1), [1, 0, 0, 0xe0]);
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_named() {
        for (kind, body, error) in [
            (Kind::Next, &[0; 7][..], FrameError::Length("next")),
            (Kind::Ping, &[0; 9], FrameError::Length("ping")),
            (Kind::Pong, &[], FrameError::Length("pong")),
            (Kind::Credit, &[0; 23], FrameError::Length("credit")),
            (Kind::End, &[], FrameError::Length("end")),
            (Kind::End, &[7], FrameError::Field("reason")),
            (Kind::Message, &[], FrameError::Place("message")),
            (Kind::Hello, &[], FrameError::Place("hello")),
        ] {
            assert_eq!(Frame::parse(kind, body), Err(error));
        }
    }

    /// Reads a stream's first frame from pieces of these lengths.
    fn open(bytes: &[u8], pieces: &[usize]) -> Result<(usize, Option<Opened>), FrameError> {
        let mut door = Door::default();
        let mut pieces = pieces.iter().copied().cycle();
        let mut used = 0;
        loop {
            let space = door.space()?;
            let rest = &bytes[used..];
            let count = space.len().min(rest.len()).min(pieces.next().unwrap_or(1).max(1));
            if count == 0 {
                return Ok((used, None));
            }
            space[..count].copy_from_slice(&rest[..count]);
            used += count;
            if let Some(opened) = door.filled(count)? {
                return Ok((used, Some(opened)));
            }
        }
    }

    #[test]
    fn a_door_takes_the_first_frame_and_no_byte_of_the_next() {
        let mut bytes = Vec::new();
        let hello = super::super::test_hello(3, "a/b");
        hello.write(&mut bytes);
        let length = bytes.len();
        bytes.extend_from_slice(b"what follows");
        for pieces in [&[1][..], &[1_000], &[3, 7]] {
            match open(&bytes, pieces) {
                Ok((used, Some(Opened::Hello(read)))) => {
                    assert_eq!((used, *read), (length, hello.clone()));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(open(&bytes[..length - 1], &[50]), Ok((_, None))));
        let refusal = [1, 0, 0, 0xc0, 3];
        assert!(matches!(open(&refusal, &[9]), Ok((5, Some(Opened::End(EndReason::Full))))));
        for (bytes, error) in [
            (head(Kind::Message, 4), FrameError::Place("something else")),
            (head(Kind::End, 2), FrameError::Place("something else")),
            (head(Kind::Hello, HELLO_BYTES_MAX + 1), FrameError::Length("hello")),
        ] {
            assert_eq!(open(&bytes, &[9]).unwrap_err(), error);
        }
    }

    #[test]
    fn a_greeting_says_where_its_speaker_stands() {
        let hello = super::super::test_hello(9, "sensor/imu");
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        let standing = &bytes[bytes.len() - STANDING_BYTES..];
        let mut golden = [7_u64.to_le_bytes(), 256_u64.to_le_bytes()].concat();
        golden.extend_from_slice(&[0xbb; 16]);
        for word in [5_u64, 300, 1 << 20] {
            golden.extend_from_slice(&word.to_le_bytes());
        }
        assert_eq!(standing, golden);
        let body = &bytes[HEAD_BYTES..];
        assert_eq!(Hello::parse(body), Ok(hello));
        assert_eq!(Hello::parse(&body[..body.len() - 1]), Err(FrameError::Length("hello")));
        let mut wrong = body.to_vec();
        let at = body.len() - STANDING_BYTES + 12;
        wrong[at] = 1;
        assert_eq!(Hello::parse(&wrong), Err(FrameError::Field("reserved byte")));
        wrong[at] = 0;
        wrong[at + 4..at + 20].fill(0);
        assert_eq!(Hello::parse(&wrong), Err(FrameError::Field("message wanted")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_first_frame_or_name_a_reason(
            data in prop::collection::vec(any::<u8>(), 0..400),
            changes in prop::collection::vec((0_usize..120, any::<u8>()), 0..4),
            piece in 1_usize..50,
        ) {
            let _ = open(&data, &[piece]);
            let mut good = Vec::new();
            super::super::test_hello(1, "t").write(&mut good);
            for (at, value) in changes {
                if let Some(byte) = good.get_mut(at) {
                    *byte = value;
                }
            }
            if let Ok((_, Some(Opened::Hello(hello)))) = open(&good, &[piece]) {
                let mut again = Vec::new();
                hello.write(&mut again);
                prop_assert_eq!(again, good);
            }
        }
    }
}
