//! Which road a hub took, and why.

use std::fmt;

/// A road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Memory that processes of one machine share.
    SharedMemory,
    /// UDP over a completion ring.
    IoUring,
    /// UDP in batches.
    BatchUdp,
    /// TCP.
    Tcp,
    /// QUIC.
    Quic,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SharedMemory => "shared memory",
            Self::IoUring => "io_uring",
            Self::BatchUdp => "batched UDP",
            Self::Tcp => "TCP",
            Self::Quic => "QUIC",
        })
    }
}

/// How messages are compressed on roads over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The road that a hub took, and what became of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportReport {
    /// The road.
    pub transport: Transport,
    /// Why this one.
    pub reason: String,
    /// What else happened: settings that have no effect here, a guard that was granted or not.
    pub notes: Vec<String>,
}

impl fmt::Display for TransportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.transport, self.reason)?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}
