//! Shared memory: topics that processes of one machine publish to and read from.
//!
//! Each publisher has a ring of messages in a memory file of its own, which it alone can write; each
//! subscriber has its cursors in another. They meet at sockets with abstract names, so nothing is
//! left behind by a process that was killed. [`join()`] gives both sides of a participant; the typed
//! handle that users hold stands above it, in `twinspan-hub`.
//!
//! ```
//! use twinspan_net::shm::{Form, Identity, TopicConfig, join};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let topic = format!("doc/shm/{}", std::process::id());
//! let identity = Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name: "text".into() };
//! let config = TopicConfig::new(topic, identity, 100);
//! let (left, right) = (join(&config)?, join(&config)?);
//! let (mut out, mut inbox) = (left.publisher.ok_or("it publishes")?, right.subscriber.ok_or("it receives")?);
//! out.publish(b"hello")?;
//! let mut text = Vec::new();
//! let taken = inbox.take(&mut text, None);
//! assert_eq!((text.as_slice(), taken.map(|taken| taken.lost)), (b"hello".as_slice(), Some(0)));
//! # Ok(())
//! # }
//! ```

mod bare;
mod greet;
mod join;
mod keeper;
mod layout;
mod line;
mod map;
mod meet;
mod pipe;
mod pool;
mod prompt;
mod publisher;
mod seam;
mod shared;
mod sleeper;
mod subscriber;
#[cfg(test)]
mod tests;
mod wait;

pub use bare::{BareRing, End};
pub use greet::{
    Form, GreetingError, Identity, NAME_BYTES_MAX, Policy, fuzz as fuzz_greeting,
    seeds as greeting_seeds,
};
pub use join::{
    Echo, JoinError, Joined, Member, Namesakes, Roles, SegmentError, TopicConfig, is_topic_taken,
    join, topic_taken_by,
};
pub use layout::{
    BLOCKS_MAX, Geometry, HOLDS_MAX, INLINE_BYTES_MAX, LAYOUT_VERSION, LayoutError,
    MESSAGE_BYTES_MAX, PEERS_MAX, SLOTS_MAX, fuzz as fuzz_segment,
};
pub use map::{SEGMENT_BYTES_MAX, ViewError};
pub use meet::{Access, PARTICIPANTS_MAX, TOPIC_BYTES_MAX, TakenBy, bell, quiet, ring};
pub use pipe::{PIPE_BYTES, Pipe, PipeListener};
pub use pool::Block;
pub use publisher::{PublishError, Publisher, PublisherStats};
pub use seam::{MachineInbox, MachineOutbox, MachineTopics};
pub use subscriber::{Got, Held, Subscriber, SubscriberStats, TooManyHeld};
pub use twinspan_core::taken::{Room, Taken};
pub use wait::{
    GuardError, LatencyGuard, Wait, calibrate, deadline_in, measure_wake_cost, sleep_on,
    sleep_on_either, spin, spin_limit, wake_cost, wake_costs_on, watch, watcher,
};
