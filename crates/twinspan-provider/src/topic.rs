//! Topics in memory that processes of one machine share: the seam's channel of messages.
//!
//! Who publishes writes into memory of its own, and waits for nobody unless a subscriber asked for
//! that; who subscribes reads the memory of all publishers, each one's messages in order. The real
//! side is `twinspan_net::shm`, the simulated one `SimEnv` of `twinspan-sim`; one suite holds both to
//! the same promises.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::{TimeProvider, Timer};

/// Samples that one subscriber may hold at the same time.
pub const TOPIC_HOLDS_MAX: usize = 15;
/// How long who waits for a subscriber's room waits until it looks again.
const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// What happens when a subscriber falls behind by as many messages as a publisher's memory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicPolicy {
    /// The oldest message gives way, and the subscriber learns how many it missed.
    #[default]
    Overwrite,
    /// The publisher has no room, and waits if it wants to.
    Block,
    /// The new message is dropped, for all subscribers, and the publisher is told.
    DropNew,
}

/// What is asked of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicOptions {
    /// The longest message that this side publishes, and takes: longer ones of others are skipped and
    /// count as missed.
    pub message_bytes: usize,
    /// Messages of up to so many bytes lie in their slots where longer ones than 4,096 are possible;
    /// longer ones take a block each.
    pub inline_bytes: usize,
    /// Messages that a publisher's memory holds; rounded up to a power of two.
    pub slots: u32,
    /// Blocks for long messages.
    pub blocks: u32,
    /// Messages kept for those who join late, and wanted when joining; half the slots at most.
    pub history: u32,
    /// What happens when this subscriber falls behind.
    pub policy: TopicPolicy,
}

impl TopicOptions {
    /// The usual sizes for messages of up to `message_bytes`.
    pub fn new(message_bytes: usize) -> Self {
        let policy = TopicPolicy::default();
        Self { message_bytes, inline_bytes: 240, slots: 256, blocks: 16, history: 0, policy }
    }
}

/// What is known of a message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicMessage {
    /// A number that stands for its publisher.
    pub publisher: u64,
    /// Its number among the messages of that publisher, from 0.
    pub number: u64,
    /// Messages of that publisher that were missed between the one before and this one.
    pub lost: u64,
}

/// Why a topic cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicJoinError {
    /// The name is none.
    #[error("`{0}` is no topic: use 1 to 80 letters, digits and _-./:")]
    Name(String),
    /// Sizes are outside their limits.
    #[error("these sizes of a topic are not possible; ask for fewer or shorter messages")]
    Sizes,
    /// All places are taken.
    #[error("topic `{0}` has as many participants as it can have")]
    Full(String),
    /// There is no memory for it.
    #[error("no memory for topic `{0}`; choose fewer or shorter messages")]
    Memory(String),
    /// The machine has no such memory, or forbids it.
    #[error("topics in shared memory cannot be had here: {0}")]
    Unavailable(String),
    /// The host that it was to be joined on was stopped.
    #[error("the host of the topic was stopped")]
    HostStopped,
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicPublishError {
    /// It is longer than the topic's messages may be.
    #[error("a message of {have} bytes does not fit: this topic's have {max} at most")]
    TooLong {
        /// Bytes of the message.
        have: usize,
        /// The most that there may be.
        max: usize,
    },
    /// A subscriber whose policy is to drop new messages has no room.
    #[error("dropped: a subscriber that wants the oldest messages is full")]
    Dropped,
    /// A subscriber whose policy is to block has no room.
    #[error("a subscriber that blocks this topic is full; try again, stop it, or let it overwrite")]
    Full,
    /// All blocks are held by subscribers.
    #[error("all blocks are in use: drop samples sooner, or ask for more blocks")]
    Exhausted,
    /// The process was killed, or its host stopped: join again.
    #[error("the publisher's process is gone")]
    Gone,
}

/// Why nothing can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicTakeError {
    /// All places for samples that are held are taken.
    #[error("{TOPIC_HOLDS_MAX} samples are held already, the most that one handle can: drop some")]
    TooManyHeld,
    /// The process was killed, or its host stopped: join again.
    #[error("the subscriber's process is gone")]
    Gone,
}

/// What is known of a message, and the sample where it is held instead of copied.
pub type TopicSample<H> = (TopicMessage, Option<H>);

/// Where topics of one machine are joined.
pub trait TopicProvider {
    /// The side that publishes.
    type Outbox: TopicOutbox;
    /// The side that receives.
    type Inbox: TopicInbox;

    /// Becomes a publisher of a topic; those who subscribe know of it when this returns.
    ///
    /// # Errors
    /// [`TopicJoinError`] says what is wrong and what to do.
    fn publish_to(
        &self,
        topic: &str,
        options: &TopicOptions,
    ) -> Result<Self::Outbox, TopicJoinError>;

    /// Becomes a subscriber of a topic; those who publish know of it when this returns.
    ///
    /// # Errors
    /// [`TopicJoinError`] says what is wrong and what to do.
    fn subscribe_to(
        &self,
        topic: &str,
        options: &TopicOptions,
    ) -> Result<Self::Inbox, TopicJoinError>;
}

/// The publishing side of a topic. Dropped, it leaves; what it published is still taken by those who
/// were there.
pub trait TopicOutbox: 'static {
    /// Publishes a copy of a message, without waiting, and returns its number, from 0.
    ///
    /// # Errors
    /// [`TopicPublishError`] says why nobody gets it.
    fn try_publish(&mut self, message: &[u8]) -> Result<u64, TopicPublishError>;
}

/// The receiving side of a topic. Dropped, it leaves, and holds back no publisher any more.
pub trait TopicInbox: 'static {
    /// A long message that its publisher keeps for as long as this lives.
    type Held: AsRef<[u8]> + 'static;

    /// Takes a message without waiting, copied to `room`: each publisher's in order, publishers in
    /// turn.
    ///
    /// # Errors
    /// [`TopicTakeError::Gone`].
    fn try_take(&mut self, room: &mut Vec<u8>) -> Result<Option<TopicMessage>, TopicTakeError>;

    /// The same, but a message that lies in a block is left where it is.
    ///
    /// # Errors
    /// [`TopicTakeError`].
    fn try_hold(
        &mut self,
        room: &mut Vec<u8>,
    ) -> Result<Option<TopicSample<Self::Held>>, TopicTakeError>;

    /// Takes a message as [`try_take`](Self::try_take) does, or wakes the task when there may be one.
    ///
    /// # Errors
    /// [`TopicTakeError::Gone`].
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut Vec<u8>,
    ) -> Poll<Result<TopicMessage, TopicTakeError>>;
}

/// Publishes a message; waits for up to `room_wait` for a subscriber that blocks the topic.
///
/// # Errors
/// As [`TopicOutbox::try_publish`]; [`TopicPublishError::Full`] when the time is up.
///
/// # Cancel safety
/// The message is published or not; dropping the future says no which where it was polled last.
pub async fn publish_patiently<E: TimeProvider>(
    env: &E,
    outbox: &mut impl TopicOutbox,
    message: &[u8],
    room_wait: Duration,
) -> Result<u64, TopicPublishError> {
    let limit = env.now().after(room_wait);
    let mut timer = env.timer();
    loop {
        match outbox.try_publish(message) {
            Err(TopicPublishError::Full) if env.now() < limit => {}
            outcome => return outcome,
        }
        timer.set(Some(env.now().after(ROOM_LOOK_INTERVAL).min(limit)));
        poll_fn(|cx| timer.poll_expired(cx)).await;
    }
}
