//! The kinds of faults, and how often each was injected and was seen to have an effect.

/// What can happen to datagrams and to what carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FaultKind {
    /// A link lost it.
    Loss,
    /// Jitter made it later than the link's delay.
    Delay,
    /// It came a second time.
    Duplicate,
    /// It lagged; the effect is that one sent later came before it.
    Reorder,
    /// It waited for the link's limited rate.
    Rate,
    /// A queue on the way was full.
    QueueDrop,
    /// Its ends were cut off from one another: injected per cut, effect per datagram stopped.
    Partition,
    /// The queue of the socket that it came to was full.
    ReceiveDrop,
    /// Nobody has the address that it was for.
    Unbound,
    /// A host was stopped: injected per stop, effect per task and socket that it took along.
    HostStop,
    /// A socket took only a part of the batch that it was given.
    ShortSend,
    /// A socket took nothing for a while.
    SendStall,
    /// A listener that was there refused a connection.
    ConnectRefuse,
    /// A connection met a listener whose backlog was full.
    BacklogFull,
    /// A connection was cut on its way: the effect is that an end saw it.
    StreamReset,
    /// A read from a stream gave only a part of what had come.
    ShortRead,
    /// A write to a stream took only a part of what there was room for.
    ShortWrite,
    /// A name that there is was answered as unknown.
    NameUnknown,
    /// The name servers failed.
    NameFailure,
    /// The name servers did not answer.
    NameTimeout,
}

impl FaultKind {
    /// All kinds, each at its index.
    pub const ALL: [Self; 20] = [
        Self::Loss,
        Self::Delay,
        Self::Duplicate,
        Self::Reorder,
        Self::Rate,
        Self::QueueDrop,
        Self::Partition,
        Self::ReceiveDrop,
        Self::Unbound,
        Self::HostStop,
        Self::ShortSend,
        Self::SendStall,
        Self::ConnectRefuse,
        Self::BacklogFull,
        Self::StreamReset,
        Self::ShortRead,
        Self::ShortWrite,
        Self::NameUnknown,
        Self::NameFailure,
        Self::NameTimeout,
    ];

    /// The position in [`FaultKind::ALL`]; recorded seeds depend on it, so new kinds go last.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that summaries use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Rate => "rate",
            Self::QueueDrop => "queue_drop",
            Self::Partition => "partition",
            Self::ReceiveDrop => "receive_drop",
            Self::Unbound => "unbound",
            Self::HostStop => "host_stop",
            Self::ShortSend => "short_send",
            Self::SendStall => "send_stall",
            Self::ConnectRefuse => "connect_refuse",
            Self::BacklogFull => "backlog_full",
            Self::StreamReset => "stream_reset",
            Self::ShortRead => "short_read",
            Self::ShortWrite => "short_write",
            Self::NameUnknown => "name_unknown",
            Self::NameFailure => "name_failure",
            Self::NameTimeout => "name_timeout",
        }
    }
}

/// How often each fault was injected, and how often its effect was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    counts: [Count; FaultKind::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    injected: u64,
    effect: u64,
}

impl FaultCounters {
    /// How often `kind` was injected.
    pub fn injected(&self, kind: FaultKind) -> u64 {
        self.count(kind).injected
    }

    /// How often an effect of `kind` was seen.
    pub fn effect(&self, kind: FaultKind) -> u64 {
        self.count(kind).effect
    }

    /// Counts one injection.
    pub fn inject(&mut self, kind: FaultKind) {
        if let Some(count) = self.counts.get_mut(kind.index()) {
            count.injected += 1;
        }
    }

    /// Counts one effect.
    pub fn observe(&mut self, kind: FaultKind) {
        if let Some(count) = self.counts.get_mut(kind.index()) {
            count.effect += 1;
        }
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(other.counts) {
            count.injected += other.injected;
            count.effect += other.effect;
        }
    }

    /// Every kind with how often it was injected and had an effect, in the order of
    /// [`FaultKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64, u64)> {
        FaultKind::ALL.into_iter().zip(self.counts).map(|(kind, c)| (kind, c.injected, c.effect))
    }

    fn count(&self, kind: FaultKind) -> Count {
        self.counts.get(kind.index()).copied().unwrap_or_default()
    }
}
