//! Topics in shared memory as the seam has them, so that what uses them runs in a simulation too.

use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_provider::{
    TOPIC_HOLDS_MAX, TopicInbox, TopicJoinError, TopicMessage, TopicOptions, TopicOutbox,
    TopicPolicy, TopicProvider, TopicPublishError, TopicSample, TopicTakeError,
};

use super::layout::HOLDS_MAX;
use super::{
    Form, Got, Held, Identity, JoinError, Joined, Member, Policy, PublishError, Publisher, Roles,
    Subscriber, Taken, TopicConfig, Wait, join,
};

// One place is for copies.
const _: () = assert!(TOPIC_HOLDS_MAX == HOLDS_MAX - 1);

/// Topics of this machine: [`join()`] by the seam's trait. Messages are plain bytes.
///
/// ```
/// use twinspan_net::shm::MachineTopics;
/// use twinspan_provider::{TopicInbox, TopicOptions, TopicOutbox, TopicProvider};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let topic = &format!("doc/seam/{}", std::process::id());
/// let options = TopicOptions::new(100);
/// let mut inbox = MachineTopics.subscribe_to(topic, &options)?;
/// MachineTopics.publish_to(topic, &options)?.try_publish(b"hello")?;
/// let mut text = Vec::new();
/// assert!(inbox.try_take(&mut text)?.is_some_and(|taken| taken.lost == 0));
/// assert_eq!(text, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineTopics;

/// The publishing side of a topic of this machine.
#[derive(Debug)]
pub struct MachineOutbox {
    publisher: Publisher,
    /// Stays while the publisher does.
    _member: Member,
}

/// The receiving side of a topic of this machine.
#[derive(Debug)]
pub struct MachineInbox {
    subscriber: Subscriber,
    /// Stays while the subscriber does.
    _member: Member,
}

fn joined(topic: &str, options: &TopicOptions, roles: Roles) -> Result<Joined, TopicJoinError> {
    let name = "seam bytes".into();
    let identity = Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name };
    let policy = match options.policy {
        TopicPolicy::Overwrite => Policy::Overwrite,
        TopicPolicy::Block => Policy::Block,
        TopicPolicy::DropNew => Policy::DropNew,
    };
    let config = TopicConfig {
        inline_bytes: options.inline_bytes,
        slots: options.slots,
        blocks: Some(options.blocks),
        history: options.history,
        policy,
        // Who waits does so outside.
        wait: Wait::Block,
        room_wait: Duration::ZERO,
        roles,
        ..TopicConfig::new(topic, identity, options.message_bytes)
    };
    join(&config).map_err(|error| match error {
        JoinError::Topic(name) => TopicJoinError::Name(name),
        JoinError::Sizes => TopicJoinError::Sizes,
        JoinError::Full(name) => TopicJoinError::Full(name),
        JoinError::Memory { .. } => TopicJoinError::Memory(topic.to_owned()),
        other => TopicJoinError::Unavailable(other.to_string()),
    })
}

/// What joining promises and did not give.
fn missing() -> TopicJoinError {
    TopicJoinError::Unavailable("the side that was asked for is not there".to_owned())
}

impl TopicProvider for MachineTopics {
    type Outbox = MachineOutbox;
    type Inbox = MachineInbox;

    fn publish_to(
        &self,
        topic: &str,
        options: &TopicOptions,
    ) -> Result<MachineOutbox, TopicJoinError> {
        let Joined { member, publisher, .. } = joined(topic, options, Roles::Publisher)?;
        Ok(MachineOutbox { publisher: publisher.ok_or_else(missing)?, _member: member })
    }

    fn subscribe_to(
        &self,
        topic: &str,
        options: &TopicOptions,
    ) -> Result<MachineInbox, TopicJoinError> {
        let Joined { member, subscriber, .. } = joined(topic, options, Roles::Subscriber)?;
        Ok(MachineInbox { subscriber: subscriber.ok_or_else(missing)?, _member: member })
    }
}

impl TopicOutbox for MachineOutbox {
    fn try_publish(&mut self, message: &[u8]) -> Result<u64, TopicPublishError> {
        self.publisher.publish(message).map_err(|error| match error {
            PublishError::TooLong { have, max } => TopicPublishError::TooLong { have, max },
            PublishError::Dropped => TopicPublishError::Dropped,
            PublishError::Stalled { .. } => TopicPublishError::Full,
            // A copy is never in a loan of another publisher.
            PublishError::Exhausted | PublishError::Foreign => TopicPublishError::Exhausted,
        })
    }
}

const fn told(taken: &Taken) -> TopicMessage {
    TopicMessage { publisher: taken.publisher, number: taken.number, lost: taken.lost }
}

impl TopicInbox for MachineInbox {
    type Held = Held;

    fn try_take(&mut self, room: &mut Vec<u8>) -> Result<Option<TopicMessage>, TopicTakeError> {
        Ok(self.subscriber.try_take(room).as_ref().map(told))
    }

    fn try_hold(
        &mut self,
        room: &mut Vec<u8>,
    ) -> Result<Option<TopicSample<Held>>, TopicTakeError> {
        match self.subscriber.try_get(room) {
            Ok(None) => Ok(None),
            Ok(Some(Got::Copied(taken))) => Ok(Some((told(&taken), None))),
            Ok(Some(Got::Held(taken, held))) => Ok(Some((told(&taken), Some(held)))),
            Err(_) => Err(TopicTakeError::TooManyHeld),
        }
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut Vec<u8>,
    ) -> Poll<Result<TopicMessage, TopicTakeError>> {
        if let Some(taken) = self.subscriber.try_take(room) {
            return Poll::Ready(Ok(told(&taken)));
        }
        self.subscriber.wake(cx.waker());
        // What came before the waker was seen wakes nobody.
        match self.subscriber.try_take(room) {
            Some(taken) => Poll::Ready(Ok(told(&taken))),
            None => Poll::Pending,
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
