//! What the hub's ruler is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinspan_hub::{SealCipher, Transport, Wait};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Half a round trip.
    Latency,
    /// Messages and bits a second.
    Throughput,
    /// What a subscriber costs that hears nothing.
    Idle,
}

/// How much of a message is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Touch {
    /// All of it is written, and all of it read.
    All,
    /// All of it is written, and its first word read.
    Written,
    /// Its first word is written and read.
    First,
}

impl Touch {
    /// As the summary says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Written => "written",
            Self::First => "first",
        }
    }
}

/// How both ends wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HubWait {
    /// They spin.
    Spin,
    /// They spin for a while, then sleep.
    Adaptive,
    /// They sleep.
    Block,
    /// As tasks.
    Async,
}

impl HubWait {
    /// As the summary says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
            Self::Block => "block",
            Self::Async => "async",
        }
    }

    pub(super) const fn wait(self) -> Wait {
        match self {
            Self::Spin => Wait::Spin,
            Self::Adaptive => Wait::Adaptive,
            Self::Block | Self::Async => Wait::Block,
        }
    }
}

/// Which road is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HubRoad {
    /// Shared memory.
    Shm,
    /// UDP in batches.
    Udp,
    /// UDP over a completion ring.
    Uring,
    /// TCP.
    Tcp,
    /// QUIC.
    Quic,
}

impl HubRoad {
    /// As the summary says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Udp => "udp",
            Self::Uring => "uring",
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }

    /// Whether its messages go in datagrams of the hub's own.
    pub const fn is_udp(self) -> bool {
        matches!(self, Self::Udp | Self::Uring)
    }

    /// What the hub calls it.
    pub(super) const fn transport(self) -> Transport {
        match self {
            Self::Shm => Transport::SharedMemory,
            Self::Udp => Transport::BatchUdp,
            Self::Uring => Transport::IoUring,
            Self::Tcp => Transport::Tcp,
            Self::Quic => Transport::Quic,
        }
    }

    /// The scheme of its endpoints.
    pub(super) const fn scheme(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Udp | Self::Uring => "udp",
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }
}

/// How datagrams are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seal {
    /// With AES-128-GCM.
    Aes,
    /// With ChaCha20-Poly1305.
    Chacha,
}

impl Seal {
    pub(super) const fn cipher(self) -> SealCipher {
        match self {
            Self::Aes => SealCipher::Aes128Gcm,
            Self::Chacha => SealCipher::ChaCha20Poly1305,
        }
    }
}

/// What to measure and how.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HubOptions {
    /// The road.
    pub road: HubRoad,
    /// Whether lost messages are sent again, on UDP.
    pub reliable: bool,
    /// Whether messages go in datagrams and not by the stream, on QUIC.
    pub best_effort: bool,
    /// Share of the datagrams that are dropped at their arrival, 0 to 1.
    pub loss: f64,
    /// How datagrams are sealed, on UDP; not at all without.
    pub seal: Option<Seal>,
    /// What is measured.
    pub mode: Mode,
    /// Bytes of a message.
    pub size: usize,
    /// How both ends wait.
    pub wait: HubWait,
    /// Time between two messages; zero for none.
    pub gap: Duration,
    /// Messages published at once, and taken at once.
    pub batch: usize,
    /// Whether to ask for the latency guard.
    pub guard: bool,
    /// Whether messages are written and read in shared memory.
    pub loan: bool,
    /// How much of a message is written and read.
    pub touch: Touch,
    /// Subscribers at addresses of their own that each message goes to, on UDP.
    pub destinations: usize,
    /// Whether the ends are in two network namespaces with a veth pair between them.
    pub netns: bool,
    /// How long to measure, hub and floor together.
    pub time: Duration,
}

impl HubOptions {
    /// Whether the road loses nothing.
    pub const fn loses_nothing(&self) -> bool {
        self.reliable || !self.road.is_udp() && !self.best_effort
    }

    pub(super) const fn is_latency(&self) -> bool {
        matches!(self.mode, Mode::Latency)
    }
}
