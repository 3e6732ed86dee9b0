//! The trace hash: one number that two runs share only when every event was the same.

use twinspan_core::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::world::HostId;

/// What happened. Recorded hashes depend on the numbers, so new kinds go last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TraceKind {
    HostStart = 1,
    HostStop = 2,
    Spawn = 3,
    Poll = 4,
    TaskEnd = 5,
    Abort = 6,
    TimerFired = 7,
    Bind = 8,
    BindRefused = 9,
    Unbind = 10,
    Send = 11,
    Deliver = 12,
    Drop = 13,
    Partition = 14,
    Heal = 15,
    Conditions = 16,
    SendReady = 17,
    ReceiveRetry = 18,
    Note = 19,
    SendRefused = 20,
    Listen = 21,
    ListenRefused = 22,
    Unlisten = 23,
    Connect = 24,
    Accept = 25,
    Piece = 26,
    PieceArrived = 27,
    PieceLost = 28,
    StreamRead = 29,
    StreamWrite = 30,
    StreamShut = 31,
    StreamClosed = 32,
    StreamTimer = 33,
    Resolve = 34,
    Offload = 35,
    WallStep = 36,
    Hop = 37,
    HopSend = 38,
    HopDrop = 39,
    Topology = 40,
    Segment = 41,
    SegmentArrived = 42,
    SegmentLost = 43,
    SegmentTimer = 44,
    TcpMode = 45,
    /// All planned faults were ended.
    FaultsHealed = 46,
    /// A ready task waits until its host runs on.
    PutOff = 47,
    /// A task panicked, and its host crashes.
    Panic = 48,
}

/// By whom an event was caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Whoever holds the simulation.
    Outside,
    Host(HostId),
}

/// A rolling hash over all events so far.
pub(crate) struct Trace {
    hash: u64,
    events: u64,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        Self { hash: seed, events: 0 }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Adds one event.
    pub(crate) fn record(&mut self, at: Timestamp, kind: TraceKind, ids: [u64; 4]) {
        let [a, b, c, d] = ids;
        self.events += 1;
        self.fold([at.as_nanos(), kind as u64, a, b, c, d]);
    }

    /// Adds an event with any number of values; `id` says of what, `who` by whom.
    pub(crate) fn record_all(
        &mut self,
        at: Timestamp,
        kind: TraceKind,
        (id, who): (u64, Origin),
        values: &[u64],
    ) {
        let who = match who {
            Origin::Outside => 0,
            Origin::Host(HostId(host)) => u64::from(host) + 1,
        };
        self.record(at, kind, [id, values.len() as u64, who, 0]);
        for chunk in values.chunks(6) {
            let mut words = [0; 6];
            words.iter_mut().zip(chunk).for_each(|(word, value)| *word = *value);
            self.fold(words);
        }
    }

    fn fold(&mut self, words: [u64; 6]) {
        let mut bytes = [0; 48];
        for (out, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
        self.hash = xxh3_64_with_seed(&bytes, self.hash);
    }
}
