//! What a run is like: its topics, sizes and times, drawn from its options.

use std::time::Duration;

use twinspan_sim::swarm::Options;
use twinspan_sim::{SimConfig, SimEnv, TcpMode};

use super::ledger::{MESSAGE_HEAD_BYTES, Promise};
use super::road::{End, HubConfig, greeting};
use crate::report::Compression;

/// Which road a topic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoadKind {
    Datagrams,
    Streams,
    Quic,
}

/// One topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicShape {
    kind: RoadKind,
    is_reliable: bool,
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
            .map(|topic| {
                let kind = options.size(&format!("road_{topic}"), topic % 3, 0..=2);
                let is_reliable = options.size(&format!("reliable_{topic}"), 1, 0..=1) == 1;
                let kind = match kind {
                    0 => RoadKind::Datagrams,
                    1 => RoadKind::Streams,
                    _ => RoadKind::Quic,
                };
                TopicShape { kind, is_reliable }
            })
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
            bytes_max: options.size("bytes_max", 4_000, MESSAGE_HEAD_BYTES as u64..=40_000),
            history: options.size("history", 8, 0..=64) as u32,
            depth: options.size("depth", 64, 1..=256) as u32,
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
            history: u64::from(self.history),
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
            for host in (0..self.hosts).filter(|host| *host != listener) {
                pairs.extend([(topic, listener, host), (topic, host, listener)]);
            }
        }
        pairs
    }

    /// What a hub is on a host.
    pub(super) fn hub(
        &self,
        env: &SimEnv,
        (topic, is_stranger): (usize, bool),
        end: End,
    ) -> HubConfig {
        let is_reliable = self.topics.get(topic).is_some_and(|topic| topic.is_reliable);
        let version = u32::from(is_stranger);
        // The range of an option holds both.
        let sizes = (self.bytes_max as u32, self.history);
        HubConfig {
            greeting: greeting(env, (topic, version), is_reliable, sizes),
            end,
            depth: env.knob("depth", u64::from(self.depth), 1..=256) as u32,
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
