//! Joining a topic: what is asked for, what can go wrong, and the participant that comes of it.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::greet::{GreetingError, Identity, Policy, digest};
use super::keeper::{Keeper, KeeperParts};
use super::layout::{
    BLOCKS_MAX, Geometry, LayoutError, SLOTS_MAX, SUBSCRIBER_WORDS, subscriber_head,
};
use super::map::{Segment, ViewError};
use super::meet::{self, Access, PARTICIPANTS_MAX, TOPIC_BYTES_MAX, TakenBy};
use super::prompt::ShortTurns;
use super::publisher::Publisher;
use super::shared::{NOT_STARTED, Parts, Shared};
use super::subscriber::Subscriber;
use super::wait::{self, Wait};
use crate::threads::lock;

/// Bytes of the pool that the default number of blocks aims at.
const POOL_BYTES: usize = 8 << 20;
/// The fewest blocks that the default gives, and the most.
const BLOCKS_DEFAULT: std::ops::RangeInclusive<usize> = 8..=32;
/// How often somebody who waits for subscribers looks.
const JOIN_LOOK: Duration = Duration::from_micros(200);
/// The stack of a keeper's thread, which calls little.
const KEEPER_STACK_BYTES: usize = 256 << 10;

/// Which sides a participant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roles {
    /// It publishes and receives.
    #[default]
    Both,
    /// It publishes.
    Publisher,
    /// It receives.
    Subscriber,
}

/// Whether a participant hears itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// It hears others only.
    #[default]
    Off,
    /// It hears itself too.
    On,
}

/// What to do about a topic of the same name that belongs to another user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namesakes {
    /// Refuse to join, so that nobody waits for messages that never come.
    #[default]
    Refuse,
    /// Have a topic of one's own beside it.
    Ignore,
}

/// What is asked for of a topic.
#[derive(Clone, Debug)]
pub struct TopicConfig {
    /// Its name: 1 to 80 letters, digits and `_-./:`.
    pub topic: String,
    /// What it carries.
    pub identity: Identity,
    /// The longest message that this side publishes, and takes: longer ones of others are counted as
    /// corrupt.
    pub message_bytes: usize,
    /// Messages of up to so many bytes lie in their slots where longer ones than 4,096 are possible.
    pub inline_bytes: usize,
    /// Messages that the ring of this side's publisher holds, 2 to 65,536; rounded up to a power of two.
    pub slots: u32,
    /// Blocks for long messages; `None` for 8 MiB of them, 8 to 32.
    pub blocks: Option<u32>,
    /// Messages kept for those who join late, and wanted when joining.
    pub history: u32,
    /// What happens when this subscriber falls behind.
    pub policy: Policy,
    /// How both sides wait.
    pub wait: Wait,
    /// How long a publisher waits for a subscriber that blocks it.
    pub room_wait: Duration,
    /// How long joining waits for participants that do not answer.
    pub join_wait: Duration,
    /// Which sides there are.
    pub roles: Roles,
    /// Whether it hears itself.
    pub echo: Echo,
    /// Who else may take part.
    pub access: Access,
    /// What to do about another user's topic of this name.
    pub namesakes: Namesakes,
}

impl TopicConfig {
    /// The defaults for a topic whose messages have up to `message_bytes`.
    pub fn new(topic: impl Into<String>, identity: Identity, message_bytes: usize) -> Self {
        Self {
            topic: topic.into(),
            identity,
            message_bytes,
            inline_bytes: 240,
            slots: 256,
            blocks: None,
            history: 0,
            policy: Policy::default(),
            wait: Wait::default(),
            room_wait: Duration::from_secs(5),
            join_wait: Duration::from_secs(1),
            roles: Roles::default(),
            echo: Echo::default(),
            access: Access::default(),
            namesakes: Namesakes::default(),
        }
    }

    /// The sizes of the publisher's segment.
    fn geometry(&self, identity: u64) -> Option<Geometry> {
        let few = POOL_BYTES / self.message_bytes.max(1);
        let default = few.clamp(*BLOCKS_DEFAULT.start(), *BLOCKS_DEFAULT.end()) as u32;
        // Two more than are kept: one that is written and one that is read.
        let blocks = self.blocks.unwrap_or(default.max(self.history.saturating_add(2)));
        let geometry =
            Geometry::new(self.message_bytes, self.inline_bytes, self.slots, blocks, identity)?;
        let kept = u64::from(self.history);
        let fits = kept < geometry.slots()
            && (geometry.blocks() == 0 || kept + 2 <= u64::from(geometry.blocks()));
        fits.then_some(geometry)
    }
}

/// Why a topic cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The name is none.
    #[error("`{0}` is no topic: use 1 to {TOPIC_BYTES_MAX} letters, digits and _-./:")]
    Topic(String),
    /// Sizes are outside their limits.
    #[error(
        "these sizes are not possible: up to 256 MiB a message, {SLOTS_MAX} messages, {BLOCKS_MAX} \
         blocks (two more than the history) and 1 GiB together"
    )]
    Sizes,
    /// The topic carries something else.
    #[error("topic `{topic}` carries {theirs}, not {ours}: use one type, or another topic")]
    AnotherType {
        /// The topic.
        topic: String,
        /// What it carries.
        theirs: String,
        /// What this side means.
        ours: String,
    },
    /// The topic belongs to another user.
    #[error(
        "topic `{topic}` belongs to user {uid}: run as that user, share a group with it on both \
         sides, or choose another topic"
    )]
    AnotherUser {
        /// The topic.
        topic: String,
        /// The user, by number.
        uid: u32,
    },
    /// Somebody of the topic speaks another version of the protocol.
    #[error(
        "topic `{topic}` is spoken otherwise by who is there: {source}, or choose another topic"
    )]
    AnotherVersion {
        /// The topic.
        topic: String,
        /// What it says.
        source: GreetingError,
    },
    /// A publisher's memory is none that this program can read.
    #[error(
        "a publisher of topic `{topic}` has memory that cannot be read: {source}; stop it, or choose another \
         topic"
    )]
    Segment {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// All places are taken.
    #[error(
        "topic `{0}` has {PARTICIPANTS_MAX} participants already, the most that it can have: stop \
         some of them, or choose another topic"
    )]
    Full(String),
    /// There is no memory for the segment.
    #[error("no memory for a segment of {bytes} bytes: {source}; choose fewer or shorter messages")]
    Memory {
        /// Bytes of the segment.
        bytes: usize,
        /// What the operating system says.
        source: io::Error,
    },
    /// The kernel is too old, or the container forbids what is needed.
    #[error(
        "this system gives no sealed memory files: {0}; take Linux 5.1 or newer, allow memfd_create in \
         the container, or take udp://127.0.0.1"
    )]
    NotHere(#[source] io::Error),
    /// The operating system refused something else.
    #[error("cannot join: {0}")]
    Os(#[from] io::Error),
}

/// Why a publisher's memory cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// It is no memory that another process can be trusted with.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Its head is another version's, or impossible.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It is of another type than its owner said.
    #[error("the segment is of another type than its owner said")]
    Type,
}

/// A participant of a topic: its place, where others find it, and the thread that greets them.
///
/// It leaves when it and its receiving side are dropped, and the last sample that is held.
pub struct Member {
    keeping: Arc<Keeping>,
    place: u8,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The keeper's thread, which ends with the last one who needs it: a sample that is held is only
/// safe while its publisher sees that we are there.
pub(super) struct Keeping {
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        meet::ring(&self.shared.keeper_bell);
        if let Some(thread) = self.thread.take() {
            // A keeper that panicked has let go of its place too.
            let _ = thread.join();
        }
    }
}

/// What joining gives.
#[derive(Debug)]
pub struct Joined {
    /// The participant.
    pub member: Member,
    /// Its publishing side.
    pub publisher: Option<Publisher>,
    /// Its receiving side.
    pub subscriber: Option<Subscriber>,
}

/// Joins a topic of this machine, and waits until those who are there know it.
///
/// # Errors
/// [`JoinError`] says what is wrong and what to do.
pub fn join(config: &TopicConfig) -> Result<Joined, JoinError> {
    check_topic(&config.topic)?;
    let identity = config.identity.clone().cut();
    let geometry = config.geometry(digest(&identity)).ok_or(JoinError::Sizes)?;
    // Others answer, and this thread waits for them: nobody's turn is to be in between.
    let _turns = ShortTurns::take();
    let (publishes, receives) =
        (config.roles != Roles::Subscriber, config.roles != Roles::Publisher);
    let outbox = publishes.then(|| outbox(&config.topic, geometry)).transpose()?;
    let inbox = receives.then(|| inbox(&config.topic)).transpose()?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
    let history = u64::from(config.history);
    let parts = Parts { id, identity, policy: config.policy, history, outbox, inbox };
    let shared = Arc::new(Shared::new(parts)?);
    let Some((place, listener)) = meet::take_place(&config.topic)? else {
        return Err(JoinError::Full(config.topic.clone()));
    };
    if config.wait == Wait::Adaptive {
        wait::calibrate();
    }
    let keeper = Keeper::new(KeeperParts {
        shared: Arc::clone(&shared),
        listener,
        place,
        topic: config.topic.clone(),
        echo: config.echo,
        access: config.access,
        namesakes: config.namesakes,
    });
    let thread = thread::Builder::new().name("hub-keeper".into()).stack_size(KEEPER_STACK_BYTES);
    let thread = Some(thread.spawn(move || keeper.run())?);
    let keeping = Arc::new(Keeping { shared: Arc::clone(&shared), thread });
    let member = Member { keeping: Arc::clone(&keeping), place };
    member.wait_until_known(config.join_wait)?;
    let publisher =
        publishes.then(|| Publisher::new(Arc::clone(&shared), config.wait, config.room_wait));
    let subscriber =
        receives.then(|| Subscriber::new(keeping, config.wait, geometry.message_bytes()));
    Ok(Joined { member, publisher: publisher.flatten(), subscriber: subscriber.flatten() })
}

fn check_topic(topic: &str) -> Result<(), JoinError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte);
    if (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && topic.bytes().all(is_good) {
        Ok(())
    } else {
        Err(JoinError::Topic(topic.escape_default().take(100).collect()))
    }
}

fn outbox(topic: &str, geometry: Geometry) -> Result<(Arc<Segment>, Geometry), JoinError> {
    let segment = segment(topic, geometry.bytes())?;
    for (word, value) in segment.words(geometry.words()).iter().zip(geometry.to_words()) {
        word.store(value, Ordering::Relaxed);
    }
    Ok((segment, geometry))
}

fn inbox(topic: &str) -> Result<Arc<Segment>, JoinError> {
    let segment = segment(topic, SUBSCRIBER_WORDS * 8)?;
    for (word, value) in segment.words(SUBSCRIBER_WORDS).iter().zip(subscriber_head()) {
        word.store(value, Ordering::Relaxed);
    }
    Ok(segment)
}

fn segment(topic: &str, bytes: usize) -> Result<Arc<Segment>, JoinError> {
    let made = Segment::create(&format!("twinspan.hub/{topic}"), bytes);
    made.map(Arc::new).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput
        | io::ErrorKind::Unsupported
        | io::ErrorKind::PermissionDenied => JoinError::NotHere(source),
        _ => JoinError::Memory { bytes, source },
    })
}

/// Whether anybody takes part in a topic of this machine.
///
/// # Errors
/// [`JoinError`] when the topic is no name or the operating system refuses to look.
pub fn is_topic_taken(topic: &str) -> Result<bool, JoinError> {
    check_topic(topic)?;
    Ok(meet::is_taken(topic)?)
}

/// Whose participants a topic of this machine has, as the kernel names them; `None` where it has none.
///
/// # Errors
/// [`JoinError`] when the topic is no name or the operating system refuses to look.
pub fn topic_taken_by(topic: &str) -> Result<Option<TakenBy>, JoinError> {
    check_topic(topic)?;
    Ok(meet::taken_by(topic)?)
}

impl Member {
    /// Waits until everybody who was there has answered.
    fn wait_until_known(&self, limit: Duration) -> Result<(), JoinError> {
        let joining = lock(&self.keeping.shared.joining);
        let waited =
            self.keeping.shared.joined.wait_timeout_while(joining, limit, |now| !now.is_over);
        // Who has not answered until now is stopped or busy, and is met when it comes back.
        let (mut joining, _) = waited.unwrap_or_else(PoisonError::into_inner);
        joining.error.take().map_or(Ok(()), Err)
    }

    /// The place at which others find it, from 0.
    pub const fn place(&self) -> u8 {
        self.place
    }

    /// Subscribers that hear this participant now: what is published from now on comes to them.
    pub fn subscribers(&self) -> usize {
        // One that has not said where it begins would begin behind a message of before that.
        self.keeping.shared.readers.count(|reader| reader.cursor() != NOT_STARTED)
    }

    /// Waits until so many subscribers hear this participant; false when there are fewer at the end.
    pub fn wait_for_subscribers(&self, count: usize, timeout: Duration) -> bool {
        let deadline = wait::deadline_in(timeout);
        while self.subscribers() < count {
            if deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline) {
                return false;
            }
            thread::sleep(JOIN_LOOK);
        }
        true
    }

    /// Publishers that this participant hears now, and those that are gone but were not heard out.
    pub fn publishers(&self) -> usize {
        self.keeping.shared.writers.len()
    }

    /// Publishers that went and were forgotten before their last messages were taken: more than
    /// eight at a time.
    pub fn forgotten(&self) -> u64 {
        self.keeping.shared.forgotten.load(Ordering::Relaxed)
    }

    /// Greetings that could not be read so far, and what was wrong with the last of them.
    pub fn refused(&self) -> (u64, Option<GreetingError>) {
        *lock(&self.keeping.shared.refused)
    }
}
