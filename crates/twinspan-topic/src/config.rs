//! Limits and times of a node.

use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_reliable::{BURST_BYTES_MIN, Config as EngineConfig, ResendIdentity};
use twinspan_session::link::SharedKey;
use twinspan_session::{CryptoSuite, KeyConfig};

use crate::greet::Greeting;
use crate::inbox::{InboxLimits, Overflow};
use crate::probe::Offer;
use crate::wire::{DATA_HEAD_BYTES, DATA_PARTS_BYTES, FRAME_HEAD_BYTES, SEALING_BYTES};

/// Others that one node speaks with.
pub const LINKS_MAX: usize = 64;
/// Pieces of one message that may wait past [`NodeConfig::chunks_max`], so that one of 64 KiB is not
/// kept beside its pieces.
pub const PIECES_PAST_MAX: usize = 64;
/// Reliable chunks that wait for one link or are in flight to it.
pub(crate) const CHUNKS_UNACKNOWLEDGED_MAX: usize = 1_024;
/// Charged bytes of reliable chunks that a link may bring before its messages are taken.
const CREDIT_BYTES: u64 = 2 << 20;
/// The most bytes that leave at once, where the path is fast.
const BURST_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the inbox above which no more credit is given.
const INBOX_BYTES_MAX: usize = 4 << 20;
/// The fewest messages that an inbox holds: a datagram alone can bring hundreds.
const INBOX_MESSAGES_MIN: u64 = 2_048;

/// Which end a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSide {
    /// Others come to it.
    Listen,
    /// It goes to this address, again and again while nobody is there.
    Connect(SocketAddr),
    /// It answers probes with its [`offer`](NodeConfig::offer), and lets nobody in: what it offers is
    /// elsewhere.
    ProbesOnly,
    /// It and all others of its kind send to this multicast address, and hear what was sent there. Best
    /// effort, and not sealed.
    Group(SocketAddr),
}

/// What a topic is sealed with.
#[derive(Clone, Debug)]
pub struct Seal {
    /// What all who take part were given.
    pub key: SharedKey,
    /// How packets are protected; who connects decides it for the link.
    pub cipher: Cipher,
    /// When the keys of a link change. No fresh keys are exchanged on links: `exchange_interval` is of
    /// no effect.
    pub keys: KeyConfig,
}

impl Seal {
    /// The cipher that costs this processor least, and the usual times of keys.
    pub fn new(key: SharedKey) -> Self {
        let cipher = CryptoSuite::detect().ciphers().first().copied();
        Self { key, cipher: cipher.unwrap_or(Cipher::Aes128Gcm), keys: KeyConfig::default() }
    }
}

/// Limits and times of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// What it says of itself. Its history is what it keeps, and what it wants.
    pub greeting: Greeting,
    /// Which end it is.
    pub side: NodeSide,
    /// The longest datagram, 512 to 9,000 bytes.
    pub datagram_bytes_max: usize,
    /// Chunks that wait to be sent before publishing is refused, 1 to 1,024; the pieces of one message
    /// may be [`PIECES_PAST_MAX`] more.
    pub chunks_max: usize,
    /// Messages that wait to be taken on a best-effort topic; at least 2,048 do.
    pub depth: u32,
    /// What happens to more of them.
    pub overflow: Overflow,
    /// How long nothing is said before a sign of life is.
    pub keepalive_interval: Duration,
    /// How long nothing is heard before the other one is given up.
    pub silence_max: Duration,
    /// How long an answer to a hello is waited for at first; the wait doubles up to 2 s.
    pub hello_interval: Duration,
    /// How long after the last of some messages their number is said once more, so that the loss of
    /// the last is known.
    pub tail_interval: Duration,
    /// What it tells who probes for it.
    pub offer: Offer,
    /// What the topic is sealed with, if it is.
    pub seal: Option<Seal>,
    /// Nothing is published to all: each link is a pipe for one hub alone, which begins anew with each
    /// link ([`Node::send_to`](crate::Node::send_to)). The topic is reliable.
    pub is_piped: bool,
}

/// A field of [`NodeConfig`] is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, set it to {min}..={max}")]
pub struct ConfigError {
    /// Which field.
    pub field: &'static str,
    /// What it is.
    pub value: usize,
    /// Least legal value.
    pub min: usize,
    /// Greatest legal value.
    pub max: usize,
}

impl NodeConfig {
    /// The defaults.
    pub const fn new(greeting: Greeting, side: NodeSide) -> Self {
        Self {
            greeting,
            side,
            datagram_bytes_max: 1_200,
            chunks_max: 64,
            depth: 256,
            overflow: Overflow::DropOldest,
            keepalive_interval: Duration::from_secs(2),
            silence_max: Duration::from_secs(10),
            hello_interval: Duration::from_millis(100),
            tail_interval: Duration::from_millis(20),
            offer: Offer::NONE,
            seal: None,
            is_piped: false,
        }
    }

    /// Checks every field that has a range.
    ///
    /// # Errors
    /// [`ConfigError`] names the field and the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let is_group = matches!(self.side, NodeSide::Group(_));
        for (field, value, min, max) in [
            ("datagram_bytes_max", self.datagram_bytes_max, 512, 9_000),
            ("chunks_max", self.chunks_max, 1, 1_024),
            ("reliable, of a group,", usize::from(is_group && self.greeting.reliable), 0, 0),
            ("seal, of a group,", usize::from(is_group && self.seal.is_some()), 0, 0),
            ("packs, of a group,", usize::from(is_group && self.greeting.is_packed()), 0, 0),
            (
                "dictionary, of a group,",
                usize::from(is_group && self.greeting.dictionary != 0),
                0,
                0,
            ),
            ("message_bytes_max", self.greeting.message_bytes_max as usize, 0, 256 << 20),
        ] {
            if !(min..=max).contains(&value) {
                return Err(ConfigError { field, value, min, max });
            }
        }
        Ok(())
    }

    /// The longest chunk: what fits a datagram whatever else is in it but an ack.
    pub(crate) const fn chunk_bytes_max(&self) -> usize {
        let sealing = if self.seal.is_some() { SEALING_BYTES } else { 0 };
        self.datagram_bytes_max - DATA_HEAD_BYTES - DATA_PARTS_BYTES - FRAME_HEAD_BYTES - sealing
    }

    /// What the node's inbox shall hold. On a reliable topic credit is its bound, and nothing is
    /// dropped.
    pub fn inbox_limits(&self) -> InboxLimits {
        let longest = self.greeting.message_bytes_max as usize;
        let bytes_max = INBOX_BYTES_MAX.max(longest.saturating_mul(2));
        let messages_max = u64::from(self.depth).max(INBOX_MESSAGES_MIN);
        if self.greeting.reliable {
            return InboxLimits { messages_max: u64::MAX, bytes_max, overflow: Overflow::Keep };
        }
        InboxLimits { messages_max, bytes_max, overflow: self.overflow }
    }

    /// The reliability engine of one link.
    pub(crate) fn engine(&self) -> EngineConfig {
        let chunk = self.chunk_bytes_max();
        let batch_bytes = (self.chunks_max * self.datagram_bytes_max) as u64;
        EngineConfig {
            identity: ResendIdentity::FreshNumber,
            fragment_bytes_max: chunk,
            frame_head_bytes: FRAME_HEAD_BYTES,
            message_bytes_max: chunk,
            queued_messages_max: CHUNKS_UNACKNOWLEDGED_MAX,
            queued_bytes_max: CHUNKS_UNACKNOWLEDGED_MAX * chunk,
            in_flight_frames_max: CHUNKS_UNACKNOWLEDGED_MAX,
            credit_bytes: CREDIT_BYTES,
            rto_initial: Duration::from_millis(100),
            rto_min: Duration::from_millis(10),
            rto_max: Duration::from_secs(1),
            ack_delay_max: Duration::from_millis(1),
            ack_packets_max: 32,
            recycled_bytes_max: 4 << 20,
            // A batch, which is a call to the kernel.
            burst_bytes_max: batch_bytes.clamp(BURST_BYTES_MIN, BURST_BYTES_MAX),
            // An ack that was lost holds a full window back for no longer than this.
            probe_min: Duration::from_millis(1),
            // Networks of hubs are near, and a round trip may be 30 us.
            granularity: Duration::from_micros(200),
            // A subscriber whose thread had to wait is late with its acks, and has everything.
            probe_packets_max: 1,
            ..EngineConfig::default()
        }
    }
}
