//! Memory that a completion ring sends trains of datagrams from, and what became of each.
//!
//! A request that was taken by the kernel may be read later: by its polling thread, when the socket has
//! room again, or, where nothing is copied, until the last of it has left. So there are several pieces
//! of memory in turn, and one is written to again when the last completion of its requests has come.

use std::io;
use std::mem;
use std::ptr;
use std::slice;

use io_uring::squeue::Entry;
use io_uring::types::Fixed;
use io_uring::{cqueue, opcode};

use super::lent::Memory;
use super::{Control, NAME_BYTES, Name, Names, Train};

/// Pieces of memory that are sent from in turn.
pub(super) const ARENAS: usize = 4;
/// Bytes of the shortest train that is sent without a copy: below, keeping track costs more.
const ZERO_COPY_BYTES_MIN: usize = 16 << 10;
/// Asks the kernel to say whether it copied after all.
const REPORT_USAGE: u16 = 1 << 3;
/// The kernel's answer, in the result of a notice.
const WAS_COPIED: u32 = 1 << 31;
/// What marks completions of sends; the place in the outbox is below it.
const IS_SEND: u64 = 1 << 32;

/// One request.
struct Row {
    header: libc::msghdr,
    slice: libc::iovec,
    name: Name,
    control: Control,
    train: Train,
    /// What keeps its memory from being used again: a result, a notice, a failure not looked at.
    holds: u8,
}

struct Arena {
    memory: Memory,
    rows: Box<[Row]>,
    /// Rows that hold it.
    held: usize,
}

/// A send that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailedSend {
    arena: usize,
    row: usize,
    pub(crate) errno: i32,
}

/// What was sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutboxStats {
    pub(crate) datagrams: u64,
    /// Trains that were sent without a copy, as far as this side asked for it.
    pub(crate) zero_copy: u64,
    /// Those of them that the kernel copied after all.
    pub(crate) copied: u64,
}

/// Memory to send from, and its requests.
pub(crate) struct Outbox {
    arenas: Vec<Arena>,
    /// The one that is written to.
    current: usize,
    /// Whether all others and this one are in use.
    is_blocked: bool,
    is_zero_copy: bool,
    failed: Vec<FailedSend>,
    stats: OutboxStats,
}

// SAFETY: the pointers in the rows lead to rows and memory of the same value, which move with it; they
// are followed by the kernel alone, between a request and its last completion, during which nothing
// here is freed or written: `TrainRing` sees to it. All else is plain data.
unsafe impl Send for Outbox {}

impl Outbox {
    pub(crate) fn new(
        batch_size: usize,
        datagram_bytes_max: usize,
        is_zero_copy: bool,
    ) -> io::Result<Self> {
        let arena = || {
            let memory = Memory::new(batch_size * datagram_bytes_max, 64)?;
            let rows = (0..batch_size).map(|_| Row::empty()).collect();
            Ok(Arena { memory, rows, held: 0 })
        };
        Ok(Self {
            arenas: (0..ARENAS).map(|_| arena()).collect::<io::Result<_>>()?,
            current: 0,
            is_blocked: false,
            is_zero_copy,
            failed: Vec::with_capacity(ARENAS * batch_size),
            stats: OutboxStats::default(),
        })
    }

    pub(crate) const fn stats(&self) -> OutboxStats {
        self.stats
    }

    /// Requests whose last completion has not come.
    pub(super) fn in_flight(&self) -> usize {
        self.arenas.iter().map(|arena| arena.held).sum()
    }

    /// Where datagrams are written; empty while all memory is in use.
    pub(crate) fn memory(&mut self) -> &mut [u8] {
        if self.is_blocked {
            return &mut [];
        }
        let Some(arena) = self.arenas.get_mut(self.current) else { return &mut [] };
        // SAFETY: the memory is of this length and zeroed at first. No request of this arena is under
        // way, or the outbox would be blocked, so nobody else looks at it; the borrow of `self` keeps
        // it so.
        unsafe { slice::from_raw_parts_mut(arena.memory.address(), arena.memory.bytes()) }
    }

    /// Whether there is memory to write to; a piece whose requests have ended is taken if need be.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.is_blocked
            && let Some(free) = self.arenas.iter().position(|arena| arena.held == 0)
        {
            self.current = free;
            self.is_blocked = false;
        }
        !self.is_blocked
    }

    /// Goes on to another piece of memory, if this one is in use.
    pub(super) fn turn(&mut self) {
        self.is_blocked = self.arenas.get(self.current).is_none_or(|arena| arena.held > 0);
        self.has_room();
    }

    /// Makes requests of trains that lie in the memory, and gives each to `push`, until one does not
    /// take it; how many did.
    ///
    /// # Safety
    /// What `push` takes is given to a ring in whose place 0 of files is a socket, and this value lives
    /// until their last completions were told to [`complete`](Self::complete), or for ever.
    pub(super) unsafe fn requests(
        &mut self,
        socket: Fixed,
        trains: &[Train],
        names: Names,
        mut push: impl FnMut(&Entry) -> bool,
    ) -> usize {
        let Self { arenas, current, is_zero_copy, stats, is_blocked, .. } = self;
        let Some(arena) = arenas.get_mut(*current).filter(|_| !*is_blocked) else { return 0 };
        let mut count = 0;
        for (at, (row, train)) in arena.rows.iter_mut().zip(trains).enumerate() {
            let end = train.from.saturating_add(train.bytes);
            if end > arena.memory.bytes() {
                break;
            }
            row.point(&arena.memory, *train, names);
            let header: *const libc::msghdr = &raw const row.header;
            let user_data = IS_SEND | (*current as u64) << 16 | at as u64;
            let flags = libc::MSG_NOSIGNAL as u32;
            let is_zero_copy = *is_zero_copy && train.bytes >= ZERO_COPY_BYTES_MIN;
            let request = if is_zero_copy {
                let request = opcode::SendMsgZc::new(socket, header);
                request.ioprio(REPORT_USAGE).flags(flags).build()
            } else {
                opcode::SendMsg::new(socket, header).flags(flags).build()
            };
            if !push(&request.user_data(user_data)) {
                break;
            }
            stats.zero_copy += u64::from(is_zero_copy);
            row.holds = 1;
            arena.held += 1;
            count += 1;
        }
        count
    }

    /// Takes a completion in, if it is one of a send.
    pub(super) fn complete(&mut self, completion: &cqueue::Entry) {
        let (data, flags) = (completion.user_data(), completion.flags());
        if data & IS_SEND == 0 {
            return;
        }
        let (arena, row) = ((data >> 16 & 0xffff) as usize, (data & 0xffff) as usize);
        let Some(place) = self.arenas.get_mut(arena).and_then(|it| it.rows.get_mut(row)) else {
            return;
        };
        if cqueue::notif(flags) {
            self.stats.copied += u64::from(completion.result() as u32 & WAS_COPIED != 0);
        } else {
            // The notice of a send without a copy comes behind its result, and holds the memory too.
            place.holds += u8::from(cqueue::more(flags));
            if completion.result() < 0 {
                place.holds += 1;
                self.failed.push(FailedSend { arena, row, errno: -completion.result() });
            } else {
                self.stats.datagrams += place.train.datagrams();
            }
        }
        self.let_go(arena, row);
    }

    fn let_go(&mut self, arena: usize, row: usize) {
        let Some(arena) = self.arenas.get_mut(arena) else { return };
        let Some(place) = arena.rows.get_mut(row) else { return };
        place.holds = place.holds.saturating_sub(1);
        if place.holds == 0 {
            arena.held = arena.held.saturating_sub(1);
        }
    }

    /// A send that was refused, its train and the memory in which that lies, to be sent otherwise, and
    /// then [forgotten](Self::forget).
    pub(crate) fn failed(&self) -> Option<(FailedSend, Train, &[u8])> {
        let failed = *self.failed.last()?;
        let arena = self.arenas.get(failed.arena)?;
        let train = arena.rows.get(failed.row)?.train;
        // SAFETY: the memory is of this length and was zeroed at first; the failure holds it, so it is
        // not written to before `forget`, which needs `&mut self`; the kernel at most reads it.
        let memory = unsafe { slice::from_raw_parts(arena.memory.address(), arena.memory.bytes()) };
        Some((failed, train, memory))
    }

    pub(crate) fn forget(&mut self, failed: FailedSend) {
        if self.failed.last() == Some(&failed) {
            self.failed.pop();
            self.let_go(failed.arena, failed.row);
        }
    }

    /// Forgets all that failed.
    pub(super) fn forget_all(&mut self) {
        while let Some(failed) = self.failed.last().copied() {
            self.forget(failed);
        }
    }
}

impl Row {
    fn empty() -> Self {
        // SAFETY: `msghdr` is a plain C struct of integers and pointers; all zeroes is a value of it
        // (null pointers with zero lengths).
        let header: libc::msghdr = unsafe { mem::zeroed() };
        // SAFETY: `cmsghdr` is a plain C struct of integers; all zeroes is a value of it.
        let control: libc::cmsghdr = unsafe { mem::zeroed() };
        Self {
            header,
            slice: libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
            name: Name::EMPTY,
            control: Control { header: control, data: [0; 8] },
            train: Train {
                to: std::net::SocketAddr::from(([0; 4], 0)),
                from: 0,
                bytes: 0,
                segment: 0,
            },
            holds: 0,
        }
    }

    /// Points the header at the row and at the train's bytes, which lie within the memory.
    fn point(&mut self, memory: &Memory, train: Train, names: Names) {
        self.train = train;
        self.slice.iov_base = memory.address().wrapping_add(train.from).cast();
        self.slice.iov_len = train.bytes;
        let header = &mut self.header;
        header.msg_flags = 0;
        header.msg_iov = &raw mut self.slice;
        header.msg_iovlen = 1;
        header.msg_name = ptr::null_mut();
        header.msg_namelen = 0;
        if let Some(to) = names.of(train.to) {
            self.name.set(to);
            header.msg_namelen = self.name.length() as libc::socklen_t;
            header.msg_name = ptr::from_mut(&mut self.name).cast();
        }
        header.msg_control = ptr::null_mut();
        header.msg_controllen = 0;
        if train.bytes > train.segment {
            // Segments are shorter than RUN_BYTES_MAX, which fits 16 bits.
            self.control.set_segment(train.segment as u16);
            header.msg_control = ptr::from_mut(&mut self.control).cast();
            header.msg_controllen = mem::size_of::<Control>() as _;
        }
    }
}

const _: () = assert!(NAME_BYTES <= libc::socklen_t::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn train(from: usize, bytes: usize) -> Train {
        Train { to: ([127, 0, 0, 1], 9).into(), from, bytes, segment: 100 }
    }

    /// Makes requests that no ring ever gets.
    fn request(outbox: &mut Outbox, trains: &[Train]) -> usize {
        // SAFETY: nothing is given to a ring: the requests are dropped.
        unsafe { outbox.requests(Fixed(0), trains, Names::Each, |_| true) }
    }

    #[test]
    fn memory_is_used_again_when_its_last_request_ended() {
        let mut outbox = Outbox::new(4, 200, false).unwrap();
        for round in 1..=ARENAS {
            assert_eq!(outbox.memory().len(), 800);
            assert_eq!(request(&mut outbox, &[train(0, 100), train(100, 300)]), 2);
            outbox.turn();
            assert_eq!(outbox.in_flight(), 2 * round);
        }
        assert!(!outbox.has_room() && outbox.memory().is_empty());
        assert_eq!(request(&mut outbox, &[train(0, 100)]), 0, "a blocked outbox sends nothing");
        outbox.let_go(2, 0);
        assert!(!outbox.has_room(), "one of two ended");
        outbox.let_go(2, 1);
        assert!(outbox.has_room() && outbox.current == 2);
    }

    #[test]
    fn trains_beyond_the_memory_are_not_sent() {
        let mut outbox = Outbox::new(2, 200, false).unwrap();
        assert_eq!(request(&mut outbox, &[train(0, 401)]), 0);
        assert_eq!(request(&mut outbox, &[train(usize::MAX, 1)]), 0);
        assert_eq!(request(&mut outbox, &[train(0, 400), train(0, 1), train(0, 1)]), 2);
    }
}
