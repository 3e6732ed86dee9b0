//! Received runs: large buffers that the kernel fills with joined datagrams, and how they come
//! apart again.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use twinspan_core::packet::Ecn;
use twinspan_core::time::Timestamp;

use crate::sys::Headers;

/// Runs taken by one receive call at most.
pub(crate) const RUNS_MAX: usize = 16;
/// Room of one run, in bytes: what a length field of 16 bits holds.
const ROOM_BYTES: usize = 65_536;

/// One run that has not come apart yet.
#[derive(Clone, Copy)]
struct Run {
    room: usize,
    /// The part of the room that is left.
    from: usize,
    to: usize,
    /// Bytes of each datagram but the last.
    segment: usize,
    peer: SocketAddr,
    /// The kernel joins none that differ in it.
    ecn: Ecn,
}

/// Large buffers of one socket, about a mebibyte, and the runs in them.
///
/// The buffers belong to the socket, because runs stay in them while their reader has no room.
pub(crate) struct Coalesced {
    memory: Box<[u8]>,
    /// The runs of the last call, the next one last.
    runs: Vec<Run>,
    at: Timestamp,
    short: bool,
    lost: u64,
}

impl Coalesced {
    pub(crate) fn new() -> Self {
        Self {
            memory: vec![0; RUNS_MAX * ROOM_BYTES].into_boxed_slice(),
            runs: Vec::with_capacity(RUNS_MAX),
            at: Timestamp::START,
            short: false,
            lost: 0,
        }
    }

    /// Whether all that was received has been handed on.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether the last call found fewer runs than it had room for.
    pub(crate) const fn was_short(&self) -> bool {
        self.short
    }

    /// Messages of the last call that no datagram could be made of, told once.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// One receive call; the runs of the last one must have been handed on.
    pub(crate) fn fill(
        &mut self,
        headers: &mut Headers,
        socket: BorrowedFd<'_>,
        now: Timestamp,
    ) -> io::Result<()> {
        self.fill_some(headers, socket, now, RUNS_MAX)
    }

    /// The same for at most so many runs.
    pub(crate) fn fill_some(
        &mut self,
        headers: &mut Headers,
        socket: BorrowedFd<'_>,
        now: Timestamp,
        runs_max: usize,
    ) -> io::Result<()> {
        self.runs.clear();
        let rooms = self.memory.chunks_exact_mut(ROOM_BYTES).take(runs_max);
        let count = headers.receive(socket, rooms)?;
        self.at = now;
        self.short = count < runs_max.min(RUNS_MAX);
        for room in (0..count).rev() {
            let received = headers.received(room).filter(|received| !received.cut);
            let Some((length, segment, peer, ecn)) =
                received.and_then(|one| Some((one.length, one.segment, one.peer?, one.ecn)))
            else {
                self.lost += 1;
                continue;
            };
            // An empty datagram is a run of one, whose only segment is empty.
            let segment = segment.unwrap_or(length);
            let to = length.min(ROOM_BYTES);
            self.runs.push(Run { room, from: 0, to, segment, peer, ecn });
        }
        Ok(())
    }

    /// The next datagram of the runs: whom it came from, when, its marks and its bytes.
    pub(crate) fn take_next(&mut self) -> Option<(SocketAddr, Timestamp, Ecn, &[u8])> {
        let run = self.runs.last_mut()?;
        let Run { room, from, to, segment, peer, ecn } = *run;
        let end = to.min(from + segment);
        run.from = end;
        if end >= to {
            self.runs.pop();
        }
        let start = room * ROOM_BYTES;
        let bytes = self.memory.get(start + from..start + end).unwrap_or_default();
        Some((peer, self.at, ecn, bytes))
    }
}
