//! The trace hash: one number that two runs share only when every event was the same; its
//! checkpoints, and events that somebody watches.

mod checkpoints;
mod divergence;
mod event;
mod legend;

use std::ops::Range;

use twinspan_core::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::world::HostId;

pub use checkpoints::{CHECKPOINT_EVENTS, CHECKPOINTS_MAX, TraceCheckpoints};
pub use divergence::{Divergence, EVENTS_AFTER, EVENTS_BEFORE, first_difference};
pub use event::{EventKind, TraceEvent};
pub(crate) use legend::Words;
pub use legend::{TraceLegend, WORDS_MAX};

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
    Disk = 49,
    Topic = 50,
    /// A datagram that comes was marked by a router.
    Marked = 51,
    /// A socket's run of datagrams was refused.
    RunRefused = 52,
}

/// By whom an event was caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Whoever holds the simulation.
    Outside,
    Host(HostId),
}

/// What each event is shown to.
type Show = Box<dyn FnMut(&TraceEvent<'_>)>;

/// A rolling hash over all events so far.
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    /// With this many events there is more to do than to hash: a checkpoint, or somebody watches.
    attention_at: u64,
    checkpoints: TraceCheckpoints,
    watch: Option<(Range<u64>, Show)>,
    pub(crate) words: Words,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            hash: seed,
            events: 0,
            attention_at: CHECKPOINT_EVENTS,
            checkpoints: TraceCheckpoints::default(),
            watch: None,
            words: Words::default(),
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn checkpoints(&self) -> &TraceCheckpoints {
        &self.checkpoints
    }

    /// Shows `show` the events with these numbers, counted from 0.
    pub(crate) fn watch(&mut self, numbers: Range<u64>, show: Show) {
        self.watch = Some((numbers, show));
        self.pay_attention();
    }

    /// Adds one event.
    pub(crate) fn record(&mut self, at: Timestamp, kind: TraceKind, ids: [u64; 4]) {
        self.record_head(at, kind, ids);
        if self.events >= self.attention_at {
            self.attend(at, kind, ids, &[]);
        }
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
        let ids = [id, values.len() as u64, who, 0];
        self.record_head(at, kind, ids);
        for chunk in values.chunks(6) {
            let mut words = [0; 6];
            words.iter_mut().zip(chunk).for_each(|(word, value)| *word = *value);
            self.fold(words);
        }
        if self.events >= self.attention_at {
            self.attend(at, kind, ids, values);
        }
    }

    fn record_head(&mut self, at: Timestamp, kind: TraceKind, ids: [u64; 4]) {
        let [a, b, c, d] = ids;
        self.events += 1;
        self.fold([at.as_nanos(), kind as u64, a, b, c, d]);
    }

    fn fold(&mut self, words: [u64; 6]) {
        let mut bytes = [0; 48];
        for (out, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
        self.hash = xxh3_64_with_seed(&bytes, self.hash);
    }

    /// Takes a checkpoint, shows the event that was just added, or both.
    #[cold]
    fn attend(&mut self, at: Timestamp, kind: TraceKind, ids: [u64; 4], values: &[u64]) {
        self.checkpoints.take(self.events, self.hash);
        let number = self.events - 1;
        if let Some((numbers, show)) = &mut self.watch
            && numbers.contains(&number)
        {
            let kind = EventKind(kind);
            show(&TraceEvent { number, at, kind, ids, values, hash: self.hash });
        }
        self.pay_attention();
    }

    fn pay_attention(&mut self) {
        // The next event is the one that is counted next.
        let watched = self.watch.as_ref().filter(|(numbers, _)| self.events < numbers.end);
        let watched = watched.map_or(u64::MAX, |(numbers, _)| numbers.start.max(self.events) + 1);
        self.attention_at = self.checkpoints.next().min(watched);
    }
}

#[cfg(test)]
mod tests;
