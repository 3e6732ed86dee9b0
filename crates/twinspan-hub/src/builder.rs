//! Options of a hub.

use std::marker::PhantomData;
use std::time::Duration;

use twinspan_net::shm::{
    Access, Echo, LatencyGuard, Namesakes, Policy, Roles, TopicConfig, Wait, is_topic_taken, join,
};

use crate::endpoint::{Endpoint, Scheme};
use crate::error::BuildError;
use crate::hub::Hub;
use crate::payload::Payload;
use crate::report::{Compression, Transport, TransportReport};

/// The longest message of types whose length varies, unless asked for otherwise.
const MESSAGE_BYTES_DEFAULT: usize = 64 << 10;
/// The largest alignment of values in shared memory: that of a block.
const ALIGN_MAX: usize = 4_096;

/// Options of a hub; [`build`](Self::build) makes it.
#[derive(Clone, Debug)]
pub struct HubBuilder<T> {
    endpoint: String,
    transport: Option<Transport>,
    message_bytes_max: usize,
    depth: u32,
    pool_blocks: Option<u32>,
    history: u32,
    policy: Policy,
    wait: Wait,
    publish_timeout: Duration,
    roles: Roles,
    echo: Echo,
    access: Access,
    namesakes: Namesakes,
    type_version: u32,
    asks_for_guard: bool,
    batch_size: Option<u32>,
    compression: Compression,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> HubBuilder<T> {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            transport: None,
            message_bytes_max: MESSAGE_BYTES_DEFAULT,
            depth: 256,
            pool_blocks: None,
            history: 0,
            policy: Policy::default(),
            wait: Wait::default(),
            publish_timeout: Duration::from_secs(5),
            roles: Roles::default(),
            echo: Echo::default(),
            access: Access::default(),
            namesakes: Namesakes::default(),
            type_version: 0,
            asks_for_guard: false,
            batch_size: None,
            compression: Compression::None,
            payload: PhantomData,
        }
    }

    /// Takes this road or none.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The longest message of a type whose length varies; 64 KiB unless set, 256 MiB at most. Plain
    /// data has its own length.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Messages that wait for a slow subscriber: 256 unless set, rounded up to a power of two,
    /// 65,536 at most.
    #[must_use]
    pub fn depth(mut self, messages: u32) -> Self {
        self.depth = messages;
        self
    }

    /// Blocks for messages too long for their slots; 8 MiB of them, 8 to 32, unless set; 64 at most.
    #[must_use]
    pub fn pool_blocks(mut self, blocks: u32) -> Self {
        self.pool_blocks = Some(blocks);
        self
    }

    /// Keeps so many messages for who joins late, and wants so many when joining; 0 unless set.
    #[must_use]
    pub fn history(mut self, messages: u32) -> Self {
        self.history = messages;
        self
    }

    /// What happens when this subscriber falls behind.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How to wait.
    #[must_use]
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// How long publishing waits for a subscriber that blocks the topic; 5 s unless set.
    #[must_use]
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// Publishes alone, or receives alone.
    #[must_use]
    pub fn roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        self
    }

    /// Hears itself too, or not.
    #[must_use]
    pub fn echo(mut self, echo: Echo) -> Self {
        self.echo = echo;
        self
    }

    /// Lets the members of a group take part too; both sides must say so.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// What to do about another user's topic of the same name.
    #[must_use]
    pub fn namesakes(mut self, namesakes: Namesakes) -> Self {
        self.namesakes = namesakes;
        self
    }

    /// Tells apart versions of a type whose fields changed while its size did not; 0 unless set.
    #[must_use]
    pub fn type_version(mut self, version: u32) -> Self {
        self.type_version = version;
        self
    }

    /// Asks for a [`LatencyGuard`] for as long as the hub lives; whether it was granted stands in
    /// the report.
    #[must_use]
    pub fn latency_guard(mut self) -> Self {
        self.asks_for_guard = true;
        self
    }

    /// Messages sent at once on roads over the network.
    #[must_use]
    pub fn batch_size(mut self, messages: u32) -> Self {
        self.batch_size = Some(messages);
        self
    }

    /// Compression on roads over the network.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Joins the topic.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong and what to do.
    pub fn build(self) -> Result<Hub<T>, BuildError> {
        let endpoint: Endpoint = self.endpoint.parse()?;
        let reason = choose(&endpoint, self.transport)?;
        let identity = T::identity(self.type_version);
        if identity.align as usize > ALIGN_MAX {
            return Err(BuildError::Align(identity.align as usize));
        }
        let topic = endpoint.topic.unwrap_or_else(|| topic_of(&identity.name));
        let bytes = T::BYTES.unwrap_or(self.message_bytes_max);
        let config = TopicConfig {
            slots: self.depth,
            blocks: self.pool_blocks,
            history: self.history,
            policy: self.policy,
            wait: self.wait,
            room_wait: self.publish_timeout,
            roles: self.roles,
            echo: self.echo,
            access: self.access,
            namesakes: self.namesakes,
            ..TopicConfig::new(topic.clone(), identity, bytes)
        };
        let joined = join(&config)?;
        let mut notes = Vec::new();
        if self.batch_size.is_some() {
            notes.push("batch_size has no effect in shared memory".to_owned());
        }
        if self.compression != Compression::None {
            notes.push("compression is off: nothing is sent".to_owned());
        }
        let guard = self.asks_for_guard.then(LatencyGuard::request);
        let guard = match guard {
            Some(Ok(guard)) => {
                notes.push("the latency guard was granted".to_owned());
                Some(guard)
            }
            Some(Err(error)) => {
                notes.push(format!("the latency guard was not granted: {error}"));
                None
            }
            None => None,
        };
        let report = TransportReport { transport: Transport::SharedMemory, reason, notes };
        Ok(Hub::assemble(topic, joined, report, guard))
    }
}

/// What leads to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The road.
    pub transport: Transport,
    /// Why this one.
    pub reason: String,
    /// Whether anybody takes part in the topic now; `None` where the type's name is to be the topic.
    pub is_taken: Option<bool>,
}

/// Tells which road leads to an endpoint, without taking it.
///
/// # Errors
/// [`BuildError`] where none does.
pub fn explain(endpoint: &Endpoint) -> Result<Explained, BuildError> {
    let reason = choose(endpoint, None)?;
    let is_taken = endpoint.topic.as_deref().map(is_topic_taken).transpose()?;
    Ok(Explained { transport: Transport::SharedMemory, reason, is_taken })
}

/// Why shared memory is the road; an error where another one would have to be.
pub(crate) fn choose(endpoint: &Endpoint, asked: Option<Transport>) -> Result<String, BuildError> {
    let leads = |road: Transport, scheme: Scheme| {
        matches!(
            (road, scheme),
            (Transport::SharedMemory, Scheme::Shm)
                | (Transport::IoUring | Transport::BatchUdp, Scheme::Udp)
                | (Transport::Tcp, Scheme::Tcp)
                | (Transport::Quic, Scheme::Quic)
        )
    };
    if let (Some(road), Some(scheme)) = (asked, endpoint.scheme)
        && !leads(road, scheme)
    {
        return Err(BuildError::Road { road, scheme });
    }
    match (asked, endpoint.scheme) {
        (Some(Transport::SharedMemory), _) => Ok("it was asked for".to_owned()),
        (None, None) => Ok("a bare topic is one of this machine".to_owned()),
        (None, Some(Scheme::Shm)) => Ok("the endpoint begins with shm://".to_owned()),
        (Some(road), _) => Err(BuildError::NotBuilt { road }),
        (None, Some(Scheme::Udp)) => Err(BuildError::NotBuilt { road: Transport::BatchUdp }),
        (None, Some(Scheme::Tcp)) => Err(BuildError::NotBuilt { road: Transport::Tcp }),
        (None, Some(Scheme::Quic)) => Err(BuildError::NotBuilt { road: Transport::Quic }),
    }
}

/// A type's name as a topic: letters that topics do not have become `_`.
fn topic_of(name: &str) -> String {
    let good = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    name.chars().map(good).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(endpoint: &str, asked: Option<Transport>) -> String {
        match choose(&endpoint.parse().unwrap(), asked) {
            Ok(reason) => reason,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_road_is_a_function_of_the_endpoint_and_the_wish() {
        assert_eq!(chosen("a", None), "a bare topic is one of this machine");
        assert_eq!(chosen("shm://a", None), "the endpoint begins with shm://");
        assert_eq!(chosen("a", Some(Transport::SharedMemory)), "it was asked for");
        for (endpoint, asked, road) in [
            ("a", Some(Transport::IoUring), "io_uring"),
            ("udp://h:1", None, "batched UDP"),
            ("udp://h:1", Some(Transport::IoUring), "io_uring"),
            ("tcp://h:1", None, "TCP"),
            ("quic://h:1", None, "QUIC"),
        ] {
            let text = chosen(endpoint, asked);
            assert!(text.contains(&format!("the road {road} is not built yet")), "{text}");
        }
        let text = chosen("udp://h:1", Some(Transport::SharedMemory));
        assert_eq!(text, "shared memory does not lead to udp://: leave out one of the two");
    }

    #[test]
    fn a_type_s_name_is_a_topic() {
        assert_eq!(topic_of("Pair<Imu, [u8; 3]>"), "Pair_Imu___u8__3__");
    }
}
