//! What two hubs say of themselves when they meet over a network.
//!
//! //= hub 7.2

use twinspan_core::identity::{Form, Identity, NAME_BYTES_MAX, cut};

const MAGIC: [u8; 4] = *b"TwHb";
const VERSION: u8 = 1;
/// Bytes before the names.
const FIXED_BYTES: usize = 52;
/// The longest name of a topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 80;
/// The longest greeting.
pub const GREETING_BYTES_MAX: usize =
    FIXED_BYTES + TOPIC_BYTES_MAX + NAME_BYTES_MAX + DICTIONARY_BYTES;
/// Bytes of what stands for a dictionary, behind the names.
const DICTIONARY_BYTES: usize = size_of::<u64>();
/// The most messages that who joins late may want.
pub const HISTORY_MAX: u32 = 65_536;

const PUBLISHES: u8 = 1;
const RECEIVES: u8 = 2;
const RELIABLE: u8 = 1;
const HAS_DICTIONARY: u8 = 2;
/// Compressions fill half a byte.
const COMPRESSIONS_BITS: u32 = 4;

/// Compressions, a bit of four for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compressions(pub u8);

impl Compressions {
    /// LZ4.
    pub const LZ4: Self = Self(1);
    /// Zstandard.
    pub const ZSTD: Self = Self(2);
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether all of `others` are among them.
    pub const fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

/// What a hub says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// A random number that stands for the hub, drawn when it was built.
    pub id: [u8; 16],
    /// Whether it publishes.
    pub publishes: bool,
    /// Whether it receives.
    pub receives: bool,
    /// Whether lost messages are sent again on this topic.
    pub reliable: bool,
    /// The longest message that it takes.
    pub message_bytes_max: u32,
    /// How many messages of those before it came it wants, up to [`HISTORY_MAX`].
    pub history: u32,
    /// What it can undo.
    pub compressions: Compressions,
    /// What its messages may be packed with. Unless that is none, each begins with a byte that says
    /// whether it is.
    pub packs: Compressions,
    /// The number that stands for the dictionary of its Zstandard; 0 for none.
    pub dictionary: u64,
    /// The topic: 1 to 80 letters, digits and `_-./:`.
    pub topic: String,
    /// What it carries.
    pub identity: Identity,
}

/// Why a greeting is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// It ends too early.
    #[error("a greeting is shorter than it says")]
    Short,
    /// It is of another protocol.
    #[error("a greeting is of another protocol")]
    Magic,
    /// It is of another version.
    #[error("a greeting has version {0}, this program {VERSION}: use one version")]
    Version(u8),
    /// A field has a value without a meaning.
    #[error("a greeting's {0} means nothing")]
    Field(&'static str),
}

/// How a topic is sealed at the other end, where that is not as here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Sealing {
    /// It is sealed there, and not here.
    #[error("it is sealed: give this end the topic's key too")]
    Sealed,
    /// It is not sealed there.
    #[error("it is not sealed: give that end the topic's key too")]
    Clear,
    /// It is sealed with another key.
    #[error("it is sealed with another key: give both ends the same")]
    Key,
}

impl Sealing {
    pub(crate) const ALL: [Self; 3] = [Self::Sealed, Self::Clear, Self::Key];
}

/// Why two hubs cannot speak with each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// The topics differ.
    #[error("its topic is `{0}`: use one topic at both ends")]
    Topic(String),
    /// The types differ.
    #[error("it carries {0}: use one type, or another topic")]
    Type(Identity),
    /// One is reliable, and the other is not.
    #[error("it is {}: say the same at both ends", if *.0 { "reliable" } else { "best effort" })]
    Reliability(bool),
    /// One is sealed, and the other is not, or with another key.
    #[error(transparent)]
    Sealing(Sealing),
    /// What one packs, the other cannot undo.
    #[error("one end cannot undo the other's compression: give both the same dictionary, or none")]
    Compression,
}

impl Greeting {
    /// Appends the greeting. Names that are too long are cut.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { identity, topic, .. } = self;
        let (mut topic, mut name) = (topic.clone(), identity.name.clone());
        cut(&mut topic, TOPIC_BYTES_MAX);
        cut(&mut name, NAME_BYTES_MAX);
        let form = Form::ALL.iter().position(|form| *form == identity.form);
        let form = form.map_or(0, |at| at as u8 + 1);
        let roles =
            if self.publishes { PUBLISHES } else { 0 } | if self.receives { RECEIVES } else { 0 };
        let flags = if self.reliable { RELIABLE } else { 0 }
            | if self.dictionary != 0 { HAS_DICTIONARY } else { 0 };
        let compressions = self.compressions.0 | self.packs.0 << COMPRESSIONS_BITS;
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, form, roles, flags]);
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&identity.align.to_le_bytes());
        out.extend_from_slice(&identity.bytes.to_le_bytes());
        out.extend_from_slice(&identity.version.to_le_bytes());
        out.extend_from_slice(&self.message_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.history.min(HISTORY_MAX).to_le_bytes());
        // Both lengths were cut to what fits a byte.
        out.extend_from_slice(&[compressions, topic.len() as u8, name.len() as u8, 0]);
        out.extend_from_slice(topic.as_bytes());
        out.extend_from_slice(name.as_bytes());
        if self.dictionary != 0 {
            out.extend_from_slice(&self.dictionary.to_le_bytes());
        }
    }

    /// Reads a greeting, and returns what is behind it.
    ///
    /// # Errors
    /// [`GreetingError`] names what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), GreetingError> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
            return Err(GreetingError::Short);
        };
        let word = |at: usize| {
            let bytes = fixed.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let [m0, m1, m2, m3, version, form, roles, flags, ..] = *fixed;
        let [compressions, topic_bytes, name_bytes, zero] = word(48).to_le_bytes();
        if [m0, m1, m2, m3] != MAGIC {
            return Err(GreetingError::Magic);
        }
        if version != VERSION {
            return Err(GreetingError::Version(version));
        }
        if zero != 0 {
            return Err(GreetingError::Field("reserved byte"));
        }
        if roles & !(PUBLISHES | RECEIVES) != 0 {
            return Err(GreetingError::Field("role"));
        }
        if flags & !(RELIABLE | HAS_DICTIONARY) != 0 {
            return Err(GreetingError::Field("flag"));
        }
        let form = usize::from(form).wrapping_sub(1);
        let form = *Form::ALL.get(form).ok_or(GreetingError::Field("form"))?;
        let history = word(44);
        if history > HISTORY_MAX {
            return Err(GreetingError::Field("history"));
        }
        let (topic_bytes, name_bytes) = (usize::from(topic_bytes), usize::from(name_bytes));
        if topic_bytes > TOPIC_BYTES_MAX || name_bytes > NAME_BYTES_MAX {
            return Err(GreetingError::Field("length of a name"));
        }
        let (topic, rest) = rest.split_at_checked(topic_bytes).ok_or(GreetingError::Short)?;
        let (name, rest) = rest.split_at_checked(name_bytes).ok_or(GreetingError::Short)?;
        let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./:".contains(byte);
        let topic = str::from_utf8(topic)
            .ok()
            .filter(|text| !text.is_empty() && text.as_bytes().iter().all(is_good));
        let topic = topic.ok_or(GreetingError::Field("topic"))?.to_owned();
        let name = str::from_utf8(name).map_err(|_| GreetingError::Field("name"))?.to_owned();
        let (dictionary, rest) = if flags & HAS_DICTIONARY == 0 {
            (0, rest)
        } else {
            let (number, rest) = rest.split_first_chunk().ok_or(GreetingError::Short)?;
            let number = u64::from_le_bytes(*number);
            if number == 0 {
                return Err(GreetingError::Field("dictionary"));
            }
            (number, rest)
        };
        let mut id = [0; 16];
        id.copy_from_slice(fixed.get(8..24).ok_or(GreetingError::Short)?);
        let bytes = u64::from(word(28)) | u64::from(word(32)) << 32;
        let identity = Identity { form, bytes, align: word(24), version: word(36), name };
        let greeting = Self {
            id,
            publishes: roles & PUBLISHES != 0,
            receives: roles & RECEIVES != 0,
            reliable: flags & RELIABLE != 0,
            message_bytes_max: word(40),
            history,
            compressions: Compressions(compressions & ((1 << COMPRESSIONS_BITS) - 1)),
            packs: Compressions(compressions >> COMPRESSIONS_BITS),
            dictionary,
            topic,
            identity,
        };
        Ok((greeting, rest))
    }

    /// Whether both can take part in one topic.
    ///
    /// # Errors
    /// [`Disagreement`] with what the other one says.
    pub fn agrees_with(&self, other: &Self) -> Result<(), Disagreement> {
        if self.topic != other.topic {
            return Err(Disagreement::Topic(other.topic.clone()));
        }
        if self.identity != other.identity {
            return Err(Disagreement::Type(other.identity.clone()));
        }
        if self.reliable != other.reliable {
            return Err(Disagreement::Reliability(other.reliable));
        }
        if !(self.is_undone_by(other) && other.is_undone_by(self)) {
            return Err(Disagreement::Compression);
        }
        Ok(())
    }

    /// Whether another hub, if it receives, undoes what this one packs, if it publishes.
    fn is_undone_by(&self, other: &Self) -> bool {
        let has_words = self.packs.contain(Compressions::ZSTD) && self.dictionary != 0;
        !(self.publishes && other.receives)
            || other.compressions.contain(self.packs)
                && (!has_words || self.dictionary == other.dictionary)
    }

    /// Whether each of its messages begins with a byte that says how it is packed.
    pub(crate) fn is_packed(&self) -> bool {
        self.packs != Compressions::NONE
    }

    /// The longest message that this hub takes of one that packs, or not: what is not worth packing
    /// has a byte more.
    pub(crate) const fn longest(&self, is_packed: bool) -> usize {
        self.message_bytes_max as usize + is_packed as usize
    }

    /// The number that stands for this hub in messages.
    pub fn publisher(&self) -> u64 {
        publisher_of(self.id)
    }
}

/// The first eight bytes of a hub's id, which stand for it in messages.
pub const fn publisher_of(id: [u8; 16]) -> u64 {
    let [i0, i1, i2, i3, i4, i5, i6, i7, ..] = id;
    u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7])
}

#[cfg(test)]
pub(crate) fn example() -> Greeting {
    Greeting {
        id: *b"0123456789abcdef",
        publishes: true,
        receives: true,
        reliable: false,
        message_bytes_max: 65_536,
        history: 3,
        compressions: Compressions::LZ4,
        packs: Compressions::NONE,
        dictionary: 0,
        topic: "sensor/imu".into(),
        identity: Identity {
            form: Form::Plain,
            bytes: 48,
            align: 8,
            version: 2,
            name: "Imu".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_greeting_has_its_golden_bytes() {
        let mut bytes = Vec::new();
        example().write(&mut bytes);
        let golden: [&[u8]; 10] = [
            b"TwHb\x01\x01\x03\x00",
            b"0123456789abcdef",
            &[8, 0, 0, 0],
            &[48, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[0, 0, 1, 0],
            &[3, 0, 0, 0],
            &[1, 10, 3, 0],
            b"sensor/imu",
            b"Imu",
        ];
        assert_eq!(bytes, golden.concat());
        bytes.push(9);
        assert_eq!(Greeting::parse(&bytes), Ok((example(), &[9][..])));
        let packing = Greeting { packs: Compressions::ZSTD, dictionary: 258, ..example() };
        let mut packed = Vec::new();
        packing.write(&mut packed);
        let mut golden = golden.concat();
        (golden[7], golden[48]) = (2, 0x21);
        golden.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(packed, golden);
        assert_eq!(Greeting::parse(&packed), Ok((packing, &[][..])));
        packed[golden.len() - 8..].fill(0);
        assert_eq!(Greeting::parse(&packed), Err(GreetingError::Field("dictionary")));
        assert_eq!(Greeting::parse(&packed[..golden.len() - 1]), Err(GreetingError::Short));
    }

    #[test]
    fn what_one_packs_the_other_undoes() {
        let packs = |packs, dictionary| Greeting { packs, dictionary, ..example() };
        let (lz4, zstd, none) = (Compressions::LZ4, Compressions::ZSTD, Compressions::NONE);
        let both = Compressions(3);
        let undoes =
            |theirs, dictionary| Greeting { compressions: theirs, ..packs(none, dictionary) };
        for (ours, theirs, is_good) in [
            (packs(none, 0), undoes(none, 0), true),
            (packs(lz4, 0), undoes(lz4, 0), true),
            (packs(lz4, 0), undoes(zstd, 0), false),
            (packs(zstd, 0), undoes(both, 7), true),
            (packs(zstd, 7), undoes(both, 7), true),
            (packs(zstd, 7), undoes(both, 0), false),
            (packs(zstd, 7), undoes(both, 8), false),
            (packs(lz4, 0), Greeting { receives: false, ..undoes(none, 0) }, true),
            (Greeting { publishes: false, ..packs(lz4, 0) }, undoes(none, 0), true),
        ] {
            let expected = if is_good { Ok(()) } else { Err(Disagreement::Compression) };
            assert_eq!(ours.agrees_with(&theirs), expected, "{ours:?} {theirs:?}");
            assert_eq!(theirs.agrees_with(&ours), expected, "{theirs:?} {ours:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut good = Vec::new();
        example().write(&mut good);
        for (at, value, error) in [
            (0, 0, GreetingError::Magic),
            (4, 2, GreetingError::Version(2)),
            (5, 4, GreetingError::Field("form")),
            (6, 4, GreetingError::Field("role")),
            (7, 4, GreetingError::Field("flag")),
            (46, 2, GreetingError::Field("history")),
            (49, 81, GreetingError::Field("length of a name")),
            (51, 1, GreetingError::Field("reserved byte")),
            (52, b' ', GreetingError::Field("topic")),
            (62, 0xff, GreetingError::Field("name")),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(Greeting::parse(&bytes), Err(error), "byte {at}");
        }
        assert_eq!(Greeting::parse(&good[..good.len() - 1]), Err(GreetingError::Short));
    }

    #[test]
    fn those_who_differ_are_told_in_what() {
        let ours = example();
        assert_eq!(ours.agrees_with(&ours), Ok(()));
        let theirs = Greeting { topic: "b".into(), ..example() };
        assert_eq!(ours.agrees_with(&theirs), Err(Disagreement::Topic("b".into())));
        let theirs = Greeting { reliable: true, ..example() };
        let error = ours.agrees_with(&theirs).unwrap_err();
        assert_eq!(error.to_string(), "it is reliable: say the same at both ends");
        let mut theirs = example();
        theirs.identity.version = 7;
        let text = ours.agrees_with(&theirs).unwrap_err().to_string();
        assert!(text.contains("Imu of 48 bytes aligned to 8, version 7"), "{text}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_greeting_or_name_a_reason(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            begins_well: bool,
        ) {
            if begins_well {
                let mut good = Vec::new();
                example().write(&mut good);
                let from = bytes.len().min(24);
                let to = good.len().min(bytes.len().max(8));
                bytes.splice(..from, good[..to].iter().copied());
            }
            if let Ok((greeting, rest)) = Greeting::parse(&bytes) {
                let mut again = Vec::new();
                greeting.write(&mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
