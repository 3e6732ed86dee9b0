//! A completion ring for trains: it receives what the kernel joined where it lies, and may send,
//! whichever thread calls.
//!
//! Unlike [`Ring`](super::Ring) it belongs to no thread. Completions are made by the thread that made the
//! request: when that enters the kernel, or sleeps there. It is not interrupted for them, which takes longer
//! than all else; a flag in shared memory says that there are some to be made. The ring's own descriptor is
//! readable while there are some that were.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::{CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::lent::Buffers;
use super::outbox::{ARENAS, Outbox};
use super::{NAME_BYTES, Name, Names, Train, control};

/// Buffers lent to the kernel: runs that can arrive between two looks without another request.
const BUFFERS: u16 = 64;
/// Completions of receiving that wait at most: one for each buffer, and those that end requests.
const CAME_MAX: usize = 2 * BUFFERS as usize;
/// Bytes before the name in a filled buffer: lengths of name, control data and payload, and flags.
const LENGTHS_BYTES: usize = 16;
/// Bytes of control data: a header, and how long joined datagrams are.
const CONTROL_BYTES: usize = mem::size_of::<super::Control>();
const CONTROL_AT: usize = LENGTHS_BYTES + NAME_BYTES;
/// Bytes before the payload in a filled buffer.
const PAYLOAD_AT: usize = CONTROL_AT + CONTROL_BYTES;
/// The longest run: what a length field of 16 bits holds.
const RUN_BYTES: usize = 65_536;
/// Bytes of one buffer.
const BUFFER_BYTES: usize = (PAYLOAD_AT + RUN_BYTES).next_multiple_of(64);
/// The buffers' group; a ring of ours has one.
const GROUP: u16 = 0;
/// The place of the socket in the ring's table of files.
const SOCKET: Fixed = Fixed(0);
/// What marks completions of receiving.
const RECEIVE: u64 = 1;
/// Runs taken by one look at most, as by one call on the other path.
const RUNS_MAX: u32 = 16;
/// Looks of another thread than the one whose request it is, after which that thread makes its own:
/// the kernel completes it on the thread that made it, wherever that is.
const STRANGE_LOOKS_MAX: u32 = 64;
/// How long a ring that ends waits for its last completions, and how often.
const LAST_WAIT: Timespec = Timespec::new().nsec(5_000_000);
const LAST_WAITS_MAX: usize = 200;

/// How a ring is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingShape {
    /// A thread of the kernel looks for requests: its core, and the milliseconds until it sleeps.
    pub(crate) poll: Option<(Option<u32>, u32)>,
    /// Requests to send that can be made at once; 0 where calls send.
    pub(crate) sends: u32,
}

/// What is shared with the kernel. It is freed after the kernel has let go of it, and leaked when
/// that cannot be known.
struct Lent {
    buffers: Buffers,
    /// The request's message header: how long names and control data may be.
    message: Box<libc::msghdr>,
    outbox: Option<Outbox>,
}

// SAFETY: the message header has null pointers and lengths alone, which the kernel reads; the rest goes
// to other threads by itself.
unsafe impl Send for Lent {}

/// A run that comes apart.
struct Held {
    buffer: u16,
    from: usize,
    to: usize,
    /// Bytes of each datagram but the last.
    segment: usize,
    peer: SocketAddr,
    is_done: bool,
}

/// A completion of receiving.
struct Came {
    result: i32,
    flags: u32,
}

/// One socket's completion ring for trains.
pub(crate) struct TrainRing {
    ring: IoUring,
    lent: mem::ManuallyDrop<Lent>,
    /// Whether the kernel has the request to receive.
    is_armed: bool,
    /// Requests may wait that the kernel did not take.
    is_unsubmitted: bool,
    /// Which thread made the request.
    armed_by: usize,
    strange_looks: u32,
    came: VecDeque<Came>,
    held: Option<Held>,
    runs_left: u32,
    lost: u64,
    trouble: Option<io::Error>,
    has_poller: bool,
}

/// What stands for the calling thread while it lives.
fn here() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}

impl TrainRing {
    /// A ring for `socket`, whose request the kernel has taken.
    pub(crate) fn new(
        socket: BorrowedFd<'_>,
        shape: RingShape,
        outbox: Option<Outbox>,
    ) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        // A send without a copy completes twice.
        builder.setup_cqsize((2 * CAME_MAX as u32 + 8 * shape.sends).next_power_of_two());
        if let Some((core, idle_ms)) = shape.poll {
            builder.setup_sqpoll(idle_ms);
            if let Some(core) = core {
                builder.setup_sqpoll_cpu(core);
            }
        } else {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        // All that memory allows to be under way, and the request to receive: a kernel that takes
        // them later, as its polling thread does, leaves no request without room.
        let requests = (ARENAS as u32 * shape.sends + 1).max(4);
        let ring = builder.build(requests.next_power_of_two())?;
        ring.submitter().register_files(&[socket.as_raw_fd()])?;
        // SAFETY: `msghdr` is a plain C struct of integers and pointers; all zeroes is a value of
        // it.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        message.msg_namelen = NAME_BYTES as libc::socklen_t;
        message.msg_controllen = CONTROL_BYTES as _;
        let mut lent = Lent { buffers: Buffers::new(BUFFERS, BUFFER_BYTES)?, message, outbox };
        // SAFETY: where this succeeds, what is lent lives until the group is forgotten or, where that
        // fails, for ever: see `drop`.
        unsafe { lent.buffers.register(&ring, GROUP)? };
        let mut ring = Self {
            ring,
            lent: mem::ManuallyDrop::new(lent),
            is_armed: false,
            is_unsubmitted: false,
            armed_by: 0,
            strange_looks: 0,
            came: VecDeque::with_capacity(CAME_MAX),
            held: None,
            runs_left: 0,
            lost: 0,
            trouble: None,
            has_poller: shape.poll.is_some(),
        };
        ring.arm()?;
        // A kernel that has rings but not this request says so at once.
        ring.reap();
        match ring.came.front() {
            Some(Came { result, .. }) if *result < 0 => Err(io::Error::from_raw_os_error(-result)),
            _ => Ok(ring),
        }
    }

    /// What is readable while there are completions.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring has its descriptor open for as long as it lives, which is longer than the
        // borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    pub(crate) fn outbox(&mut self) -> Option<&mut Outbox> {
        self.lent.outbox.as_mut()
    }

    pub(crate) fn outbox_ref(&self) -> Option<&Outbox> {
        self.lent.outbox.as_ref()
    }

    /// Runs that no datagram could be made of, told once.
    pub(crate) const fn take_lost(&mut self) -> u64 {
        mem::replace(&mut self.lost, 0)
    }

    /// Takes completions out of the ring.
    fn reap(&mut self) {
        loop {
            let next = self.ring.completion().next();
            let Some(completion) = next else { return };
            if completion.user_data() != RECEIVE {
                if let Some(outbox) = &mut self.lent.outbox {
                    outbox.complete(&completion);
                }
                continue;
            }
            if !cqueue::more(completion.flags()) {
                self.is_armed = false;
            }
            let came = Came { result: completion.result(), flags: completion.flags() };
            if self.came.len() < CAME_MAX {
                self.came.push_back(came);
            } else {
                self.lost += 1;
                self.recycle(&came);
            }
        }
    }

    /// Lends the buffer of a completion to the kernel again, if it had one.
    fn recycle(&mut self, came: &Came) {
        if let Some(buffer) = cqueue::buffer_select(came.flags) {
            self.lent.buffers.give(buffer);
        }
    }

    /// Hands requests to the kernel.
    fn submit(&mut self) -> io::Result<()> {
        self.is_unsubmitted = false;
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // It takes them later.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {
                    self.is_unsubmitted = true;
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Queues a request; false when there is no room for it.
    ///
    /// # Safety
    /// What the request points to is valid until its last completion came.
    unsafe fn push(&mut self, request: &squeue::Entry) -> bool {
        // SAFETY: as the caller promises.
        if unsafe { self.ring.submission().push(request) }.is_ok() {
            return true;
        }
        if self.submit().is_err() {
            return false;
        }
        // SAFETY: as the caller promises; the one before was not taken.
        unsafe { self.ring.submission().push(request) }.is_ok()
    }

    /// Makes sure that the kernel has the request to receive.
    fn arm(&mut self) -> io::Result<()> {
        if self.is_armed {
            return if self.is_unsubmitted { self.submit() } else { Ok(()) };
        }
        let message: *const libc::msghdr = &raw const *self.lent.message;
        let request = opcode::RecvMsgMulti::new(SOCKET, message, GROUP).build();
        // SAFETY: the message header lives in `lent` and the buffers are those of GROUP, both valid
        // until the kernel has let go of them: see `drop`.
        self.is_armed = unsafe { self.push(&request.user_data(RECEIVE)) };
        (self.armed_by, self.strange_looks) = (here(), 0);
        self.submit()
    }

    /// Where another thread looks all the time, the request becomes that one's.
    fn follow(&mut self) {
        if self.has_poller || !self.is_armed || self.armed_by == here() {
            self.strange_looks = 0;
            return;
        }
        self.strange_looks += 1;
        if self.strange_looks >= STRANGE_LOOKS_MAX {
            self.strange_looks = 0;
            // Its end is a completion, behind which it is made anew. A failure leaves it as it is.
            let which = CancelBuilder::user_data(RECEIVE);
            let _ = self.ring.submitter().register_sync_cancel(None, which);
        }
    }

    /// Whether what came was taken, and what comes from now on makes [`fd`](Self::fd) readable.
    ///
    /// # Errors
    /// The ring is of no further use.
    pub(crate) fn may_wait(&mut self) -> io::Result<bool> {
        self.arm()?;
        Ok(self.is_taken() && self.came.is_empty() && !self.is_unsubmitted)
    }

    /// Whether the run that came apart last is at its end.
    pub(crate) fn is_taken(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.is_done)
    }

    /// Gives back the buffer whose datagrams were taken.
    fn release(&mut self) {
        if let Some(held) = self.held.take_if(|held| held.is_done) {
            self.lent.buffers.give(held.buffer);
        }
    }

    /// Looks for a run, when all that came before was taken; whether there is one.
    ///
    /// # Errors
    /// What the kernel said of a datagram, or of the ring.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        if !self.is_taken() {
            return Ok(true);
        }
        self.release();
        self.runs_left = RUNS_MAX;
        self.reap();
        self.follow();
        if self.came.is_empty() {
            self.arm()?;
            if self.has_completions_to_make() {
                self.submit()?;
            }
            self.reap();
        }
        self.advance();
        match self.trouble.take() {
            Some(error) if self.held.is_none() => Err(error),
            trouble => {
                self.trouble = trouble;
                Ok(self.held.is_some())
            }
        }
    }

    /// Whether the kernel waits for a call to make completions.
    fn has_completions_to_make(&mut self) -> bool {
        let requests = self.ring.submission();
        requests.taskrun() || requests.cq_overflow()
    }

    /// Takes up the next run that came.
    fn advance(&mut self) {
        while self.held.is_none()
            && self.trouble.is_none()
            && let Some(came) = self.came.pop_front()
        {
            if came.result < 0 {
                self.recycle(&came);
                // Out of buffers, which come back as they are read; or its thread ended, or it was
                // another's. The request is made again.
                if !matches!(-came.result, libc::ENOBUFS | libc::ECANCELED) {
                    self.trouble = Some(io::Error::from_raw_os_error(-came.result));
                }
                continue;
            }
            let Some(buffer) = cqueue::buffer_select(came.flags) else { continue };
            // SAFETY: the kernel named the buffer in this completion, and it is given again when it
            // was read, or below.
            let bytes = unsafe { self.lent.buffers.bytes(buffer) };
            match filled(bytes, came.result as usize) {
                Some(Filled { bytes, segment, peer }) => {
                    let (from, to) = (PAYLOAD_AT, PAYLOAD_AT + bytes);
                    self.held = Some(Held { buffer, from, to, segment, peer, is_done: false });
                }
                None => {
                    self.lost += 1;
                    self.lent.buffers.give(buffer);
                }
            }
        }
    }

    /// The next datagram of those that came, and whom it came from.
    pub(crate) fn take_next(&mut self) -> Option<(SocketAddr, &[u8])> {
        if self.is_taken() {
            self.release();
            self.runs_left = self.runs_left.checked_sub(1)?;
            if self.came.is_empty() {
                self.reap();
            }
            self.advance();
        }
        let held = self.held.as_mut()?;
        let from = held.from;
        let end = held.to.min(from + held.segment);
        held.from = end;
        held.is_done = end >= held.to;
        let peer = held.peer;
        // SAFETY: the kernel named the buffer in a completion; it is given again by `release`, which
        // needs `&mut self`.
        let bytes = unsafe { self.lent.buffers.bytes(held.buffer) };
        Some((peer, bytes.get(from..end).unwrap_or_default()))
    }

    /// Sends trains that lie in the outbox's memory, and turns to its next piece.
    ///
    /// # Errors
    /// The ring is of no further use.
    pub(crate) fn send(&mut self, trains: &[Train], names: Names) -> io::Result<usize> {
        let Some(mut outbox) = self.lent.outbox.take() else { return Ok(0) };
        // SAFETY: place 0 of the ring's files is the socket. The outbox is put back below, and lives
        // until the last completions came, or for ever: see `drop`.
        let sent = unsafe {
            outbox.requests(SOCKET, trains, names, |request| {
                // SAFETY: see above: what the request points to lies in the outbox's own memory, which
                // does not move with it.
                self.push(request)
            })
        };
        let submitted = self.submit();
        self.lent.outbox = Some(outbox);
        self.reap();
        if let Some(outbox) = &mut self.lent.outbox {
            outbox.turn();
        }
        submitted.map(|()| sent)
    }

    /// Looks at what became of sends, and whether there is memory to write to.
    pub(crate) fn has_room(&mut self) -> io::Result<bool> {
        if self.is_unsubmitted {
            self.submit()?;
        }
        self.reap();
        Ok(self.lent.outbox.as_mut().is_none_or(Outbox::has_room))
    }

    /// Takes the requests back and waits until the kernel uses the memory no more.
    fn disarm(&mut self) -> io::Result<()> {
        match self.ring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
        for _ in 0..LAST_WAITS_MAX {
            self.reap();
            self.came.clear();
            let outbox = self.lent.outbox.as_mut().map_or(0, |outbox| {
                outbox.forget_all();
                outbox.in_flight()
            });
            if !self.is_armed && outbox == 0 {
                // Else the socket would stay open until the kernel cleans the ring up, later.
                self.ring.submitter().unregister_files()?;
                return Buffers::forget(&self.ring, GROUP);
            }
            // What is left completes on the thread that made it, or when a device has let go of it.
            let wait = SubmitArgs::new().timespec(&LAST_WAIT);
            let _ = self.ring.submitter().submit_with_args(1, &wait);
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Drop for TrainRing {
    fn drop(&mut self) {
        if self.disarm().is_ok() {
            // SAFETY: the kernel has confirmed that all requests ended and that it forgot the group
            // of buffers, so nobody else uses what was lent; it is dropped only here.
            unsafe { mem::ManuallyDrop::drop(&mut self.lent) };
        }
    }
}

/// What a filled buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filled {
    /// Bytes of the payload.
    bytes: usize,
    segment: usize,
    peer: SocketAddr,
}

/// What a filled buffer says; `None` where no datagram can be made of it. `length` is how many bytes
/// the kernel wrote.
fn filled(buffer: &[u8], length: usize) -> Option<Filled> {
    let written = buffer.get(..length)?;
    let field = |at: usize| {
        let bytes = written.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_ne_bytes(*bytes))
    };
    let (names, controls, said, flags) = (field(0)?, field(4)?, field(8)? as usize, field(12)?);
    let payload = written.get(PAYLOAD_AT..)?;
    if flags & libc::MSG_TRUNC as u32 != 0 || said > payload.len() || said > RUN_BYTES {
        return None;
    }
    let mut name = Name::EMPTY;
    name.0.copy_from_slice(written.get(LENGTHS_BYTES..CONTROL_AT)?);
    let peer = name.get(names as usize)?;
    let control = written.get(CONTROL_AT..PAYLOAD_AT)?;
    let segment = control::read(control.get(..controls as usize).unwrap_or(control)).segment;
    // An empty datagram is a run of one, whose only segment is empty.
    let segment = segment.filter(|bytes| *bytes < said).unwrap_or(said);
    Some(Filled { bytes: said, segment, peer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(payload: &[u8], joined: Option<i32>) -> Vec<u8> {
        let mut name = Name::EMPTY;
        name.set(([10, 1, 2, 3], 99).into());
        let mut bytes = vec![0; BUFFER_BYTES];
        bytes[..4].copy_from_slice(&16_u32.to_ne_bytes());
        if let Some(segment) = joined {
            bytes[4..8].copy_from_slice(&(CONTROL_BYTES as u32).to_ne_bytes());
            let length = mem::size_of::<libc::cmsghdr>() + 4;
            bytes[CONTROL_AT..][..8].copy_from_slice(&length.to_ne_bytes());
            bytes[CONTROL_AT + 8..][..4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
            bytes[CONTROL_AT + 12..][..4].copy_from_slice(&libc::UDP_GRO.to_ne_bytes());
            bytes[CONTROL_AT + 16..][..4].copy_from_slice(&segment.to_ne_bytes());
        }
        bytes[8..12].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        bytes[LENGTHS_BYTES..CONTROL_AT].copy_from_slice(&name.0);
        bytes[PAYLOAD_AT..PAYLOAD_AT + payload.len()].copy_from_slice(payload);
        bytes
    }

    #[test]
    fn a_filled_buffer_names_its_sender_and_how_it_comes_apart() {
        let peer = ([10, 1, 2, 3], 99).into();
        for (joined, segment) in [(None, 10), (Some(4), 4), (Some(10), 10), (Some(11), 10)] {
            let bytes = sample(b"0123456789", joined);
            let seen = filled(&bytes, PAYLOAD_AT + 10);
            assert_eq!(seen, Some(Filled { bytes: 10, segment, peer }), "{joined:?}");
        }
        let seen = filled(&sample(b"", None), PAYLOAD_AT);
        assert_eq!(seen, Some(Filled { bytes: 0, segment: 0, peer }));
        for joined in [0, -1] {
            let seen = filled(&sample(b"abc", Some(joined)), PAYLOAD_AT + 3).unwrap();
            assert_eq!(seen.segment, 3, "{joined} is no length");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_no_datagrams() {
        let mut bytes = sample(b"hello", None);
        for said in [6_u32, 70_000, u32::MAX] {
            bytes[8..12].copy_from_slice(&said.to_ne_bytes());
            assert_eq!(filled(&bytes, PAYLOAD_AT + 5), None, "{said} said, 5 written");
        }
        bytes[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        for length in [0, 3, 15, 20, PAYLOAD_AT - 1, usize::MAX] {
            assert_eq!(filled(&bytes, length), None, "{length}");
        }
        bytes[12..16].copy_from_slice(&(libc::MSG_TRUNC as u32).to_ne_bytes());
        assert_eq!(filled(&bytes, PAYLOAD_AT + 5), None, "cut");
    }

    #[test]
    fn there_is_room_for_every_request_that_memory_allows() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sends = 24;
        let outbox = Outbox::new(sends, 100, false).unwrap();
        let shape = RingShape { poll: None, sends: sends as u32 };
        let mut ring = match TrainRing::new(std::os::fd::AsFd::as_fd(&socket), shape, Some(outbox))
        {
            Ok(ring) => ring,
            Err(error) => {
                println!("skipped: no ring here: {error}");
                return;
            }
        };
        // The request to receive is with the kernel already, and may have to be made again.
        for number in 0..=ARENAS * sends {
            let request = opcode::Nop::new().build();
            // SAFETY: the request names no memory.
            let pushed = unsafe { ring.ring.submission().push(&request) };
            assert!(pushed.is_ok(), "{number}: the kernel took none meanwhile");
        }
    }
}
