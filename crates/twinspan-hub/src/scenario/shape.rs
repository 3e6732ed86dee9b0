//! What a run is like: its topics, sizes and times, drawn from its options.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_sim::swarm::Options;
use twinspan_sim::{SimConfig, SimEnv, TcpMode};
use twinspan_topic::{Cipher, KeyConfig, Seal, SharedKey};

use super::ledger::{MESSAGE_HEAD_BYTES, Promise};
use super::road::{End, HubConfig, greeting};
use crate::report::Compression;

/// Messages that a publisher keeps at most.
const DEPTH_MAX: u32 = 256;

/// Which road a topic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoadKind {
    Datagrams,
    Streams,
    Quic,
}

/// How hubs on datagrams meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// One listens, and the others go there.
    Listener,
    /// All listen, and go to those whom they find by announcements.
    Found,
    /// None: what they send goes to a group.
    Group,
}

/// One topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicShape {
    kind: RoadKind,
    meeting: Meeting,
    is_reliable: bool,
    is_sealed: bool,
}

impl TopicShape {
    fn of(options: &Options, topic: u64) -> Self {
        let kind = match options.size(&format!("road_{topic}"), topic % 3, 0..=2) {
            0 => RoadKind::Datagrams,
            1 => RoadKind::Streams,
            _ => RoadKind::Quic,
        };
        let is_reliable = options.size(&format!("reliable_{topic}"), 1, 0..=1) == 1;
        let meeting = options.size(&format!("meeting_{topic}"), 0, 0..=2);
        let is_sealed = options.size(&format!("sealed_{topic}"), 0, 0..=1) == 1;
        let meeting = match meeting {
            1 if kind == RoadKind::Datagrams => Meeting::Found,
            2 if kind == RoadKind::Datagrams => Meeting::Group,
            _ => Meeting::Listener,
        };
        // What has links can be reliable, and sealed.
        let has_links = meeting != Meeting::Group;
        let is_sealed = is_sealed && has_links && kind == RoadKind::Datagrams;
        Self { kind, meeting, is_reliable: is_reliable && has_links, is_sealed }
    }
}

/// What makes a hub a stranger to its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strangeness {
    /// It carries another type.
    Type,
    /// It has another key, or one where there is none.
    Key,
    /// It has no key.
    NoKey,
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) hosts: usize,
    pub(super) topics: Vec<TopicShape>,
    /// Messages that each user publishes, before he says something now and then alone.
    pub(super) messages: u64,
    /// Messages of a burst, and how long there is none between two of them.
    pub(super) burst: u64,
    pub(super) interval: Duration,
    /// One host's users leave so long between two looks.
    pub(super) slow_host: usize,
    pub(super) slow: Duration,
    pub(super) has_stranger: bool,
    strangeness: Strangeness,
    /// Somebody lies to those who find each other.
    pub(super) has_liar: bool,
    cipher: Cipher,
    keys: KeyConfig,
    bytes_max: u64,
    history: u32,
    depth: u32,
    datagram_bytes: usize,
    pool: usize,
    compression: Compression,
    drops_oldest: bool,
    /// When the last host comes.
    late: Duration,
    datagram_silence: Duration,
    stream_silence: Duration,
    resume_timeout: Duration,
    idle_timeout: Duration,
}

/// What the simulation is like. Sockets hold some datagrams at least, and the network some more: where
/// two hosts speak at the same moments and one alone is heard, the other one is never heard again.
pub(super) fn simulation(options: &Options) -> SimConfig {
    let config = options.config();
    let is_cut = options.size("segments", 0, 0..=1) == 1;
    SimConfig {
        tcp: if is_cut { TcpMode::Segments } else { TcpMode::Streams },
        in_flight_max: config.in_flight_max.max(512),
        receive_queue_datagrams_max: config.receive_queue_datagrams_max.max(64),
        ..config
    }
}

impl Shape {
    pub(super) fn of(options: &Options) -> Self {
        let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
        let hosts = options.size("hosts", 3, 2..=4) as usize;
        let topics = (0..options.size("topics", 2, 1..=4))
            .map(|topic| TopicShape::of(options, topic))
            .collect();
        let compression = match options.size("compression", 1, 0..=2) {
            0 => Compression::None,
            1 => Compression::Lz4,
            _ => Compression::Zstd,
        };
        Self {
            hosts,
            topics,
            messages: options.size("messages", 40, 1..=120),
            burst: options.size("burst", 3, 1..=24),
            interval: options.time("interval_us", ms(40), ms(2)..=ms(200)),
            slow_host: options.size("slow_host", 4, 0..=4) as usize,
            slow: options.time("slow_us", ms(100), ms(5)..=ms(400)),
            has_stranger: options.size("strangers", 0, 0..=1) == 1,
            strangeness: match options.size("strangeness", 0, 0..=2) {
                0 => Strangeness::Type,
                1 => Strangeness::Key,
                _ => Strangeness::NoKey,
            },
            has_liar: options.size("liars", 0, 0..=1) == 1,
            cipher: match options.size("cipher", 0, 0..=2) {
                0 => Cipher::Aes128Gcm,
                1 => Cipher::Aes256Gcm,
                _ => Cipher::ChaCha20Poly1305,
            },
            keys: KeyConfig {
                rekey_packets: options.size("rekey_packets", 2_000, 4..=2_000),
                rekey_interval: options.time("rekey_us", seconds(120), ms(100)..=seconds(120)),
                ..KeyConfig::default()
            },
            bytes_max: options.size("bytes_max", 4_000, MESSAGE_HEAD_BYTES as u64..=40_000),
            history: options.size("history", 8, 0..=64) as u32,
            depth: options.size("depth", 64, 1..=u64::from(DEPTH_MAX)) as u32,
            datagram_bytes: options.size("datagram_bytes", 1_200, 512..=1_400) as usize,
            pool: options.size("pool_packets", 256, 64..=512) as usize,
            compression,
            drops_oldest: options.size("drops_oldest", 1, 0..=1) == 1,
            late: options.time("late_us", ms(1_500), Duration::ZERO..=ms(3_000)),
            datagram_silence: options.time("silence_us", seconds(10), ms(500)..=seconds(10)),
            stream_silence: options.time(
                "stream_silence_us",
                seconds(15),
                seconds(1)..=seconds(15),
            ),
            resume_timeout: options.time("resume_us", seconds(30), ms(500)..=seconds(30)),
            idle_timeout: options.time("idle_us", seconds(30), seconds(1)..=seconds(30)),
        }
    }

    pub(super) fn promises(&self) -> Vec<Promise> {
        let promise = |topic: &TopicShape| Promise {
            is_reliable: topic.is_reliable,
            is_sealed: topic.is_sealed,
            is_group: topic.meeting == Meeting::Group,
            // Who comes late to a group hears what comes.
            history: if topic.meeting == Meeting::Group { 0 } else { self.history.into() },
            // A setting of a host may be made another one.
            depth: u64::from(DEPTH_MAX),
            bytes_max: self.bytes_max,
        };
        self.topics.iter().map(promise).collect()
    }

    pub(super) const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(super) fn kind_of(&self, topic: usize) -> RoadKind {
        self.topics.get(topic).map_or(RoadKind::Datagrams, |topic| topic.kind)
    }

    pub(super) fn meeting_of(&self, topic: usize) -> Meeting {
        self.topics.get(topic).map_or(Meeting::Listener, |topic| topic.meeting)
    }

    /// Who listens; the others go there.
    pub(super) fn listener_of(&self, topic: usize) -> usize {
        match self.kind_of(topic) {
            // Topics of streams share a listening port.
            RoadKind::Streams => 0,
            _ => topic % self.hosts,
        }
    }

    /// When a host starts for the first time.
    pub(super) fn start_of(&self, host: usize) -> Duration {
        if host + 1 == self.hosts { self.late } else { Duration::ZERO }
    }

    /// Topic, publishing host, receiving host: who hears whom.
    pub(super) fn pairs(&self) -> Vec<(usize, usize, usize)> {
        let mut pairs = Vec::new();
        for topic in 0..self.topics.len() {
            let listener = self.listener_of(topic);
            let speaks = self.meeting_of(topic) == Meeting::Listener;
            for from in 0..self.hosts {
                for to in (0..self.hosts).filter(|to| *to != from) {
                    // Those who go to a listener do not hear each other.
                    if !speaks || from == listener || to == listener {
                        pairs.push((topic, from, to));
                    }
                }
            }
        }
        pairs
    }

    /// The key of a topic, for who is right there or strange.
    fn seal(&self, topic: usize, is_stranger: bool) -> Option<Seal> {
        let is_sealed = self.topics.get(topic).is_some_and(|topic| topic.is_sealed);
        let key = |byte| SharedKey::from_bytes([byte; 32]);
        let seal = |key| Seal { cipher: self.cipher, keys: self.keys.clone(), ..Seal::new(key) };
        let right = is_sealed.then(|| seal(key(7)));
        match self.strangeness {
            _ if !is_stranger => right,
            Strangeness::Type => right,
            Strangeness::Key => Some(seal(key(8))),
            Strangeness::NoKey => None,
        }
    }

    /// Whether a stranger carries another type: where it differs in nothing else.
    fn version_of(&self, topic: usize, is_stranger: bool) -> u32 {
        let is_sealed = self.topics.get(topic).is_some_and(|topic| topic.is_sealed);
        let differs = match self.strangeness {
            Strangeness::Type => false,
            // A group has no key at all, and on streams none is looked at.
            Strangeness::Key => {
                self.kind_of(topic) == RoadKind::Datagrams
                    && self.meeting_of(topic) != Meeting::Group
            }
            Strangeness::NoKey => is_sealed,
        };
        u32::from(is_stranger && !differs)
    }

    /// What a hub is on a host; `members` are those of the group, where it is in one.
    pub(super) fn hub(
        &self,
        env: &SimEnv,
        (topic, is_stranger): (usize, bool),
        (end, members): (End, Vec<SocketAddr>),
    ) -> HubConfig {
        let topic_shape = self.topics.get(topic);
        let is_reliable = topic_shape.is_some_and(|topic| topic.is_reliable);
        let version = self.version_of(topic, is_stranger);
        // The range of an option holds both.
        let sizes = (self.bytes_max as u32, self.history);
        let is_group = matches!(end, End::Group(..));
        HubConfig {
            greeting: greeting(env, (topic, version), is_reliable, sizes),
            end,
            members,
            is_sealed: topic_shape.is_some_and(|topic| topic.is_sealed),
            seal: self.seal(topic, is_stranger).filter(|_| !is_group),
            depth: env.knob("depth", u64::from(self.depth), 1..=u64::from(DEPTH_MAX)) as u32,
            batch_size: env.knob("batch_size", 64, 1..=256) as usize,
            datagram_bytes: self.datagram_bytes,
            pool: self.pool,
            compression: self.compression,
            drops_oldest: self.drops_oldest,
            datagram_silence: self.datagram_silence,
            stream_silence: self.stream_silence,
            resume_timeout: self.resume_timeout,
            idle_timeout: self.idle_timeout,
        }
    }
}
