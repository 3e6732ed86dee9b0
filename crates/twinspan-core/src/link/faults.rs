//! The catalogue of faults, and how often each was injected and was seen to have an effect.

/// Where in a system a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FaultFamily {
    /// Single datagrams.
    Datagram,
    /// What carries them: links, and which hosts reach one another.
    Link,
    /// Streams and how they are made.
    Stream,
    /// Names.
    Name,
    /// Whole hosts and their clocks.
    Host,
    /// What the kernel of one host does with its sockets.
    LocalIo,
    /// The application itself.
    Application,
    /// What a host's disk does with what it is given.
    Disk,
}

impl FaultFamily {
    /// All families, each at its index.
    pub const ALL: [Self; 8] = [
        Self::Datagram,
        Self::Link,
        Self::Stream,
        Self::Name,
        Self::Host,
        Self::LocalIo,
        Self::Application,
        Self::Disk,
    ];

    /// The position in [`FaultFamily::ALL`]; recorded seeds depend on it, so new ones go last.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that summaries use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Datagram => "datagram",
            Self::Link => "link",
            Self::Stream => "stream",
            Self::Name => "name",
            Self::Host => "host",
            Self::LocalIo => "local_io",
            Self::Application => "application",
            Self::Disk => "disk",
        }
    }
}

/// Writes the catalogue's enum, table and look-ups from one row for each fault.
macro_rules! catalogue {
    ($($kind:ident $name:literal $family:ident $text:literal;)*) => {
        /// What can go wrong. `twinspan sim faults` prints the list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum FaultKind {
            $(#[doc = $text] $kind,)*
        }

        impl FaultKind {
            /// All kinds, each at its index.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$kind),*];

            /// The name that summaries use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Where it strikes.
            pub const fn family(self) -> FaultFamily {
                match self { $(Self::$kind => FaultFamily::$family,)* }
            }

            /// What it does, in a sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }
        }
    };
}

// Recorded seeds depend on the order: new rows go last.
catalogue! {
    Loss "loss" Datagram
        "A link lost it.";
    Delay "delay" Datagram
        "Jitter made it later than the link's delay.";
    Duplicate "duplicate" Datagram
        "It came a second time.";
    Reorder "reorder" Datagram
        "It lagged; the effect is that one sent later came before it.";
    Rate "rate" Link
        "It waited for the link's limited rate.";
    QueueDrop "queue_drop" Link
        "A queue on the way was full.";
    Partition "partition" Link
        "Its ends were cut off by hand: injected per cut, effect per datagram.";
    ReceiveDrop "receive_drop" LocalIo
        "The queue of the socket that it came to was full.";
    Unbound "unbound" Datagram
        "Nobody has the address that it was for.";
    HostStop "host_stop" Host
        "A host was stopped by hand: effect per task and socket it took along.";
    ShortSend "short_send" LocalIo
        "A socket took only a part of the batch that it was given.";
    SendStall "send_stall" LocalIo
        "A socket took nothing for a while (EAGAIN).";
    ConnectRefuse "connect_refuse" Stream
        "A listener that was there refused a connection.";
    BacklogFull "backlog_full" Stream
        "A connection met a listener whose backlog was full.";
    StreamReset "stream_reset" Stream
        "A connection was cut on its way: the effect is that an end saw it.";
    ShortRead "short_read" Stream
        "A read from a stream gave only a part of what had come.";
    ShortWrite "short_write" Stream
        "A write to a stream took only a part of what there was room for.";
    NameUnknown "name_unknown" Name
        "A name that there is was answered as unknown (NXDOMAIN).";
    NameFailure "name_failure" Name
        "The name servers failed (SERVFAIL).";
    NameTimeout "name_timeout" Name
        "The name servers did not answer.";
    LossBurst "loss_burst" Datagram
        "A link lost several in a row; the effect is each one lost.";
    DuplicateLate "duplicate_late" Datagram
        "It came a second time, up to two minutes later.";
    DelaySpike "delay_spike" Datagram
        "It was held for up to three seconds, with those behind it.";
    BitFlip "bit_flip" Datagram
        "One of its bits arrived changed.";
    ByteRun "byte_run" Datagram
        "Up to 16 of its bytes in a row arrived changed.";
    Truncate "truncate" Datagram
        "It arrived shorter than it was sent.";
    Oversize "oversize" Datagram
        "The path had become too narrow for it.";
    Unreachable "unreachable" Datagram
        "ICMP answered: it is lost, and the socket's next send fails.";
    Spoof "spoof" Datagram
        "A copy came from an address that did not send it.";
    Rebind "rebind" Datagram
        "A box on the way gave all sockets of a host other outer ports.";
    Replay "replay" Datagram
        "An earlier datagram of the flow came again, perhaps of a former session.";
    PartitionSplit "partition_split" Link
        "The hosts fell into two groups that do not reach one another.";
    PartitionOneWay "partition_one_way" Link
        "One host's datagrams to another went nowhere.";
    PartitionPair "partition_pair" Link
        "Two hosts did not reach one another, though both reached all others.";
    ClogSend "clog_send" Link
        "Nothing left a host until it all did.";
    ClogReceive "clog_receive" Link
        "Nothing reached a host until it all did.";
    ClogSwizzle "clog_swizzle" Link
        "Some hosts were clogged together and freed one after another.";
    Bandwidth "bandwidth" Link
        "A link became narrow, with a short queue.";
    Bufferbloat "bufferbloat" Link
        "A link became narrow, with a very long queue.";
    Flap "flap" Link
        "A link went down and up again in quick turns.";
    ConnectHang "connect_hang" Stream
        "Whoever wanted to connect got no answer, however often it tried.";
    AcceptExhausted "accept_exhausted" Stream
        "Accepting failed (EMFILE); the connection waits.";
    EarlyEnd "early_end" Stream
        "A stream ended in the middle of what was written.";
    HalfOpen "half_open" Stream
        "A connection was forgotten on its way: nothing of it arrives any more.";
    HalfClose "half_close" Stream
        "One way of a connection ended while the other goes on.";
    ZeroWindow "zero_window" Stream
        "The peer's window shut for up to three seconds.";
    NameStale "name_stale" Name
        "A name was answered with an address that is not, or no longer, its own.";
    Crash "crash" Host
        "A host lost power and started again with the state that it had kept.";
    GracefulStop "graceful_stop" Host
        "A host was asked to stop, was stopped after a time and started again.";
    RestartEmpty "restart_empty" Host
        "A host lost power and started again with no state.";
    RestartOld "restart_old" Host
        "A host lost power and started again with an old state.";
    Pause "pause" Host
        "A host stood still, as under SIGSTOP; the effect is each poll put off.";
    SlowCpu "slow_cpu" Host
        "Each poll on a host took milliseconds; the effect is each poll put off.";
    ClockForward "clock_forward" Host
        "A host's wall clock jumped forward; the effect is each look at it.";
    ClockBack "clock_back" Host
        "A host's wall clock jumped back; the effect is each look at it.";
    ClockDrift "clock_drift" Host
        "A host's wall clock drifted; the effect is each look at it.";
    OutOfFds "out_of_fds" Host
        "A host had no descriptors left for sockets.";
    OutOfBuffers "out_of_buffers" Host
        "A host had no buffers left for what came.";
    NoBuffers "no_buffers" LocalIo
        "A send failed for want of buffers (ENOBUFS), and the datagram is gone.";
    SlowConsumer "slow_consumer" LocalIo
        "What came was taken one at a time, with pauses.";
    SpuriousWake "spurious_wake" LocalIo
        "Sockets were said to be ready and had nothing.";
    Buggify "buggify" Application
        "A `buggify!` of the application said yes.";
    Knob "knob" Application
        "A setting had an unusual value.";
    TaskOrder "task_order" Application
        "A host's ready tasks ran in another order.";
    Rekey "rekey" Application
        "A `buggify!` whose name begins with `rekey` said yes.";
    Panic "panic" Application
        "A task panicked, and its host crashed: injected by the application.";
    SegmentLoss "segment_loss" Stream
        "A segment of a stream was lost on its way, and is for its sender to send again.";
    SegmentDuplicate "segment_duplicate" Stream
        "A segment of a stream came a second time.";
    SegmentReorder "segment_reorder" Stream
        "A segment of a stream lagged; the effect is that one sent later came before it.";
    SegmentDamage "segment_damage" Stream
        "A bit of a segment was turned: the checksum tells, and it is dropped where it comes.";
    EcnMark "ecn_mark" Link
        "A router marked a packet as one that met a queue (ECN), and none was there.";
    NatTimeout "nat_timeout" Link
        "A box forgot its mappings early; the effect is each packet that it let in no more.";
    NatRebind "nat_rebind" Link
        "A box started again: what is behind it has other outer ports from then on.";
    ProxyRefuse "proxy_refuse" Name
        "A SOCKS5 proxy refused a request, with any of the codes that there are.";
    ProxyDrop "proxy_drop" Name
        "A SOCKS5 proxy ended an association of datagrams.";
    TornWrite "torn_write" Disk
        "A write failed in the middle: a part of it is in the file.";
    SyncFailure "sync_failure" Disk
        "What was written could not be made durable, and was not.";
    CorruptRead "corrupt_read" Disk
        "A read gave a bit that is not what was written.";
    DiskFull "disk_full" Disk
        "A write found no room on the volume.";
    DiskStall "disk_stall" Disk
        "A call to a disk took up to three seconds.";
    TopicTorn "topic_torn" LocalIo
        "A process was killed in the middle of a message to a topic, which nobody ever reads.";
    TopicHolder "topic_holder" LocalIo
        "A process was killed while it held a sample of a topic, whose publisher gets its block back.";
    TopicStall "topic_stall" LocalIo
        "A subscriber of a topic took nothing for up to three seconds.";
    TopicMemory "topic_memory" LocalIo
        "There was no memory to join a topic.";
    NameTruncated "name_truncated" Name
        "A name server's answer did not fit a datagram; the effect is that it was asked for over a stream.";
    NameForged "name_forged" Name
        "An answer with the id of no question came first; the effect is that it was passed over.";
    RunRefused "run_refused" LocalIo
        "The kernel refused to split a run of datagrams (GSO): from then on they go one by one.";
}

impl FaultKind {
    /// The position in [`FaultKind::ALL`]; recorded seeds depend on it, so new kinds go last.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
/// How often each fault was injected, and how often its effect was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCounters {
    counts: [Count; FaultKind::ALL.len()],
}

impl Default for FaultCounters {
    fn default() -> Self {
        Self { counts: [Count { injected: 0, effect: 0 }; FaultKind::ALL.len()] }
    }
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
