//! What processes say to each other when they meet at a topic: packets of a local socket.
//!
//! //= hub 3

pub use twinspan_core::identity::{Form, Identity, NAME_BYTES_MAX};

const MAGIC: [u8; 4] = *b"TwSh";
const VERSION: u8 = 1;
/// Bytes of a packet before the name of the type.
const FIXED_BYTES: usize = 64;
/// The longest packet.
pub(super) const GREETING_BYTES_MAX: usize = FIXED_BYTES + NAME_BYTES_MAX;

/// A number that stands for what a topic carries, in the head of a segment.
pub(super) fn digest(identity: &Identity) -> u64 {
    let greeting = Greeting::new(Kind::Call, [0; 16], identity.clone());
    xxhash_rust::xxh3::xxh3_64(&greeting.to_bytes())
}

/// What happens when a subscriber is as far behind as a publisher's ring is long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The oldest message gives way, and the subscriber learns how many it missed.
    #[default]
    Overwrite,
    /// The publisher waits, for a time that it sets.
    Block,
    /// The new message is dropped, for all subscribers, and the publisher is told.
    DropNew,
}

impl Policy {
    const ALL: [Self; 3] = [Self::Overwrite, Self::Block, Self::DropNew];
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A subscriber asks a publisher for its messages. With its segment, its bell, and its bell for
    /// tasks.
    Attach,
    /// A publisher asks a participant to attach.
    Call,
    /// A publisher's answer to `Attach`. With its segment and its bell.
    Welcome,
    /// An answer to `Attach` or `Call`: the types differ.
    AnotherType,
    /// An answer to `Attach`: there is nobody who publishes, or no room.
    Nothing,
    /// An answer to `Call`: it is done, as far as it can be.
    Done,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Attach, Self::Call, Self::Welcome, Self::AnotherType, Self::Nothing, Self::Done];

    /// Descriptors that come with the packet.
    pub(super) const fn descriptors(self) -> usize {
        match self {
            Self::Attach => 3,
            Self::Welcome => 2,
            _ => 0,
        }
    }
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) kind: Kind,
    /// Who speaks: a random number that a participant draws once.
    pub(super) id: [u8; 16],
    pub(super) policy: Policy,
    /// `Attach`: which of the subscriber's cursors is for this publisher.
    pub(super) lane: u8,
    /// `Call`: the place at which the caller can be found.
    pub(super) place: u8,
    /// `Welcome`: bytes of the segment.
    pub(super) segment_bytes: u64,
    pub(super) identity: Identity,
}

/// Why a packet is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// It is shorter or longer than it says.
    #[error("a greeting has another length than it says")]
    Length,
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

impl Greeting {
    pub(super) const fn new(kind: Kind, id: [u8; 16], identity: Identity) -> Self {
        let policy = Policy::Overwrite;
        Self { kind, id, policy, lane: 0, place: 0, segment_bytes: 0, identity }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let identity = &self.identity;
        let name = identity.name.as_bytes();
        let code = |at: Option<usize>| at.map_or(0, |at| at as u8 + 1);
        let kind = code(Kind::ALL.iter().position(|kind| *kind == self.kind));
        let form = code(Form::ALL.iter().position(|form| *form == identity.form));
        let policy = code(Policy::ALL.iter().position(|policy| *policy == self.policy));
        // Names are at most NAME_BYTES_MAX long, which fits a byte.
        let name_bytes = name.len() as u8;
        let mut bytes = Vec::with_capacity(FIXED_BYTES + name.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, kind, form, policy]);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&[self.lane, self.place, name_bytes, 0]);
        bytes.extend_from_slice(&identity.align.to_le_bytes());
        bytes.extend_from_slice(&identity.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.segment_bytes.to_le_bytes());
        bytes.extend_from_slice(&identity.version.to_le_bytes());
        bytes.resize(FIXED_BYTES, 0);
        bytes.extend_from_slice(name);
        bytes
    }

    /// Reads a packet; bytes that are written as 0 must be 0.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, GreetingError> {
        let Some((fixed, name)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
            return Err(GreetingError::Length);
        };
        let word = |at: usize| {
            let bytes = fixed.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let [m0, m1, m2, m3, version, kind, form, policy, ..] = *fixed;
        let [lane, place, name_bytes, zero] = word(24).to_le_bytes();
        if [m0, m1, m2, m3] != MAGIC {
            return Err(GreetingError::Magic);
        }
        if version != VERSION {
            return Err(GreetingError::Version(version));
        }
        if usize::from(name_bytes) != name.len() || name.len() > NAME_BYTES_MAX {
            return Err(GreetingError::Length);
        }
        let tail = fixed.get(52..).unwrap_or_default();
        if zero != 0 || tail.iter().any(|byte| *byte != 0) {
            return Err(GreetingError::Field("reserved byte"));
        }
        let nth = |code: u8| usize::from(code).wrapping_sub(1);
        let kind = *Kind::ALL.get(nth(kind)).ok_or(GreetingError::Field("kind"))?;
        let form = *Form::ALL.get(nth(form)).ok_or(GreetingError::Field("form"))?;
        let policy = *Policy::ALL.get(nth(policy)).ok_or(GreetingError::Field("policy"))?;
        let name = str::from_utf8(name).map_err(|_| GreetingError::Field("name"))?;
        let mut id = [0; 16];
        id.copy_from_slice(fixed.get(8..24).ok_or(GreetingError::Length)?);
        let identity = Identity {
            form,
            bytes: long(32),
            align: word(28),
            version: word(48),
            name: name.to_owned(),
        };
        Ok(Self { kind, id, policy, lane, place, segment_bytes: long(40), identity })
    }
}

/// Good greetings of every kind, for fuzz bodies to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |(at, kind): (usize, &Kind)| {
        let form = Form::ALL.get(at % Form::ALL.len()).copied().unwrap_or(Form::Bytes);
        let name = "Imu".repeat(at);
        let identity = Identity { form, bytes: 48 << at, align: 8, version: at as u32, name };
        let mut greeting = Greeting::new(*kind, [at as u8; 16], identity);
        greeting.policy = Policy::ALL.get(at % Policy::ALL.len()).copied().unwrap_or_default();
        (greeting.lane, greeting.place) = (at as u8, 63 - at as u8);
        greeting.segment_bytes = 12_288 << at;
        greeting.to_bytes()
    };
    Kind::ALL.iter().enumerate().map(seed).collect()
}

/// Any bytes are a greeting or name a reason; one that was read is written the same.
pub fn fuzz(data: &[u8]) -> String {
    let result = Greeting::parse(data);
    if let Ok(greeting) = &result {
        assert_eq!(greeting.to_bytes(), data, "what was read is not what is written");
    }
    format!("{result:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> Identity {
        Identity { form: Form::Plain, bytes: 48, align: 8, version: 3, name: "Imu".into() }
    }

    fn attach() -> Greeting {
        let mut greeting = Greeting::new(Kind::Attach, [9; 16], identity());
        greeting.policy = Policy::Block;
        greeting.lane = 5;
        greeting
    }

    #[test]
    fn a_greeting_has_its_golden_bytes() {
        let mut golden = b"TwSh\x01\x01\x01\x02".to_vec();
        golden.extend_from_slice(&[9; 16]);
        golden.extend_from_slice(&[5, 0, 3, 0, 8, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
        golden.extend_from_slice(&[0; 12]);
        golden.extend_from_slice(b"Imu");
        assert_eq!(attach().to_bytes(), golden);
        assert_eq!(Greeting::parse(&golden), Ok(attach()));
        for kind in Kind::ALL {
            let mut greeting = Greeting::new(kind, [1; 16], identity());
            greeting.segment_bytes = 0x1234_5678_9abc;
            greeting.place = 63;
            assert_eq!(Greeting::parse(&greeting.to_bytes()), Ok(greeting));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = attach().to_bytes();
        for (at, value, error) in [
            (0, b'X', GreetingError::Magic),
            (4, 2, GreetingError::Version(2)),
            (5, 7, GreetingError::Field("kind")),
            (5, 0, GreetingError::Field("kind")),
            (6, 4, GreetingError::Field("form")),
            (7, 4, GreetingError::Field("policy")),
            (26, 4, GreetingError::Length),
            (27, 1, GreetingError::Field("reserved byte")),
            (63, 1, GreetingError::Field("reserved byte")),
            (64, 0xff, GreetingError::Field("name")),
        ] {
            let mut wrong = good.clone();
            wrong[at] = value;
            assert_eq!(Greeting::parse(&wrong), Err(error), "byte {at}");
        }
        for length in 0..good.len() {
            assert_eq!(Greeting::parse(&good[..length]), Err(GreetingError::Length));
        }
    }

    #[test]
    fn identities_that_differ_have_other_digests() {
        let ours = identity();
        for theirs in [
            Identity { form: Form::Postcard, ..ours.clone() },
            Identity { bytes: 56, ..ours.clone() },
            Identity { align: 4, ..ours.clone() },
            Identity { version: 4, ..ours.clone() },
            Identity { name: "Pose".into(), ..ours.clone() },
        ] {
            assert_ne!(digest(&theirs), digest(&ours), "{theirs}");
        }
        assert_eq!(digest(&ours), digest(&identity()));
        assert_eq!(ours.to_string(), "Imu of 48 bytes aligned to 8, version 3");
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let identity = Identity { name: "ä".repeat(70), ..identity() }.cut();
        assert_eq!(identity.name.len(), 128);
        let identity = Identity { name: format!("a{}", "ä".repeat(70)), ..identity }.cut();
        assert_eq!(identity.name.len(), 127);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_greeting_or_name_a_reason(
            data in prop::collection::vec(any::<u8>(), 0..220),
            changes in prop::collection::vec((0_usize..67, any::<u8>()), 0..4),
        ) {
            fuzz(&data);
            let mut good = attach().to_bytes();
            for (at, value) in changes {
                good[at] = value;
            }
            fuzz(&good);
        }
    }
}
