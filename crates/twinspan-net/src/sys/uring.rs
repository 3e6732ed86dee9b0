//! A completion ring whose kernel side receives into buffers that it was lent, one request for all
//! datagrams of a socket.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::types::{CancelBuilder, Fixed};
use io_uring::{IoUring, cqueue, opcode};
use rustix::event::EventfdFlags;
use twinspan_core::packet::PACKET_BYTES_MAX;

use super::lent::Buffers;
use super::{Ecn, NAME_BYTES, Name, Received};

/// Buffers lent to the kernel: what can arrive between two looks without another request. A power
/// of two, as the kernel wants it.
const BUFFERS: u16 = 256;
/// Completions that fit: one for each buffer, and those that end requests.
const COMPLETIONS: u32 = 512;
/// Bytes before the name in a filled buffer: lengths of name, control data and payload, and flags.
const LENGTHS_BYTES: usize = 16;
/// Bytes before the payload in a filled buffer.
const PAYLOAD_AT: usize = LENGTHS_BYTES + NAME_BYTES;
/// Bytes of one buffer, so that payloads begin aligned.
const BUFFER_BYTES: usize = (PAYLOAD_AT + PACKET_BYTES_MAX).next_multiple_of(64);
/// The buffers' group; a ring of ours has one.
const GROUP: u16 = 0;
/// The place of the socket in the ring's table of files.
const SOCKET: Fixed = Fixed(0);

const _: () = assert!(BUFFERS.is_power_of_two() && COMPLETIONS > BUFFERS as u32);

/// What is shared with the kernel. It is freed after the kernel has let go of it, and leaked when
/// that cannot be known.
struct Lent {
    buffers: Buffers,
    /// The request's message header: how long names and control data may be.
    message: Box<libc::msghdr>,
}

/// One socket's completion ring.
///
/// Completions are made when this thread asks for them and not in between, so a thread that sleeps
/// is not disturbed by what arrives.
pub(crate) struct Ring {
    ring: IoUring,
    /// Written by the kernel when something arrives that waits to be completed. The ring's own
    /// descriptor does not do: a ring that completes on demand wakes nobody who polls it.
    bell: OwnedFd,
    lent: mem::ManuallyDrop<Lent>,
    /// Whether the kernel has the request.
    armed: bool,
    /// A completion that was looked at and not taken.
    first: Option<cqueue::Entry>,
}

impl Ring {
    /// A ring for `socket`, whose request the kernel has taken.
    pub(crate) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(4)?;
        ring.submitter().register_files(&[socket.as_raw_fd()])?;
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        // SAFETY: `msghdr` is a plain C struct of integers and pointers; all zeroes is a value of
        // it.
        let mut message: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        message.msg_namelen = NAME_BYTES as libc::socklen_t;
        let buffers = Buffers::new(BUFFERS, BUFFER_BYTES)?;
        let mut lent = Lent { buffers, message };
        // SAFETY: where this succeeds, what is lent lives until the group is forgotten or, where that
        // fails, for ever: see `drop`.
        unsafe { lent.buffers.register(&ring, GROUP)? };
        let lent = mem::ManuallyDrop::new(lent);
        let mut ring = Self { ring, bell, lent, armed: false, first: None };
        ring.fetch()?;
        // A kernel that has rings but not this request says so at once.
        ring.first = ring.next();
        match ring.first.as_ref().map(cqueue::Entry::result) {
            Some(result) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
            _ => Ok(ring),
        }
    }

    /// The next completion.
    fn next(&mut self) -> Option<cqueue::Entry> {
        let completion = self.first.take().or_else(|| self.ring.completion().next())?;
        if !cqueue::more(completion.flags()) {
            self.armed = false;
        }
        Some(completion)
    }

    /// What becomes readable when there may be something to fetch, and stays so until
    /// [`quiet`](Self::quiet).
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Takes the news away that [`fd`](Self::fd) holds. Who waits for more looks at
    /// [`is_drained`](Self::is_drained) after it and before the wait.
    pub(crate) fn quiet(&self) {
        // A failure says that there is no news.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Whether there is nothing to take and nothing to fetch. What arrives from now on makes
    /// [`fd`](Self::fd) readable.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.armed && !self.has_completions() && !self.ring.submission().taskrun()
    }

    /// Whether completions can be taken without asking the kernel.
    pub(crate) fn has_completions(&mut self) -> bool {
        self.first.is_some() || !self.ring.completion().is_empty()
    }

    /// Makes sure that the kernel has the request, and lets it complete what arrived.
    pub(crate) fn fetch(&mut self) -> io::Result<()> {
        if !self.armed {
            let message: *const libc::msghdr = &raw const *self.lent.message;
            let request = opcode::RecvMsgMulti::new(SOCKET, message, GROUP).build();
            // SAFETY: the message header lives in `lent` and the buffers are those of GROUP, both
            // valid until the kernel has let go of them: see `drop`.
            let pushed = unsafe { self.ring.submission().push(&request) };
            pushed.map_err(|_| io::ErrorKind::WouldBlock)?;
            self.armed = true;
        }
        self.ring.submit().map(|_| ())
    }

    /// Takes the next completed datagram: what the kernel says about it, and its bytes, which `put`
    /// copies out. `None` when there is none.
    pub(crate) fn take<R>(
        &mut self,
        put: impl FnOnce(Received, &[u8]) -> R,
    ) -> Option<io::Result<R>> {
        loop {
            let completion = self.next()?;
            let result = completion.result();
            if result < 0 {
                self.recycle(&completion);
                // Out of buffers, which come back as they are read: the request is made again.
                if result == -libc::ENOBUFS {
                    continue;
                }
                return Some(Err(io::Error::from_raw_os_error(-result)));
            }
            let buffer = cqueue::buffer_select(completion.flags());
            let Some(buffer) = buffer.filter(|buffer| *buffer < BUFFERS) else { continue };
            // SAFETY: the kernel named the buffer in this completion, and it is given again below.
            let bytes = unsafe { self.lent.buffers.bytes(buffer) };
            let (received, bytes) = filled(bytes, result as usize);
            let outcome = put(received, bytes);
            self.lent.buffers.give(buffer);
            return Some(Ok(outcome));
        }
    }

    /// Lends the buffer of a completion to the kernel again, if it had one.
    fn recycle(&mut self, completion: &cqueue::Entry) {
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            self.lent.buffers.give(buffer);
        }
    }

    /// Takes the request back and waits until the kernel writes to the buffers no more.
    fn disarm(&mut self) -> io::Result<()> {
        if self.armed {
            match self.ring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
        // Each round takes what is there; the request's last completion says that it is the last.
        for _ in 0..=COMPLETIONS {
            while self.next().is_some() {}
            if !self.armed {
                // Else the socket would stay open until the kernel cleans the ring up, later.
                self.ring.submitter().unregister_files()?;
                return Buffers::forget(&self.ring, GROUP);
            }
            self.ring.submit()?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.disarm().is_ok() {
            // SAFETY: the kernel has confirmed that the request ended and that it forgot the group
            // of buffers, so nobody else uses what was lent; it is dropped only here.
            unsafe { mem::ManuallyDrop::drop(&mut self.lent) };
        }
    }
}

/// What a filled buffer says, and its payload. `length` is how many bytes the kernel wrote.
fn filled(buffer: &[u8], length: usize) -> (Received, &[u8]) {
    let written = buffer.get(..length).unwrap_or(buffer);
    let field = |at: usize| {
        let bytes = written.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    };
    let payload = written.get(PAYLOAD_AT..).unwrap_or_default();
    let mut name = Name::EMPTY;
    if let Some(bytes) = written.get(LENGTHS_BYTES..PAYLOAD_AT) {
        name.0.copy_from_slice(bytes);
    }
    let (said, flags) = (field(8) as usize, field(12));
    let cut = flags & libc::MSG_TRUNC as u32 != 0
        || said > payload.len()
        || payload.len() > PACKET_BYTES_MAX;
    let peer = name.get(field(0) as usize);
    let payload = payload.get(..said).unwrap_or(payload);
    // The request has no room for control messages.
    (Received { length: payload.len(), segment: None, peer, cut, ecn: Ecn::Incapable }, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(payload: &[u8]) -> Vec<u8> {
        let mut name = Name::EMPTY;
        name.set(([10, 1, 2, 3], 99).into());
        let mut bytes = vec![0; BUFFER_BYTES];
        bytes[..4].copy_from_slice(&16_u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        bytes[LENGTHS_BYTES..PAYLOAD_AT].copy_from_slice(&name.0);
        bytes[PAYLOAD_AT..PAYLOAD_AT + payload.len()].copy_from_slice(payload);
        bytes
    }

    #[test]
    fn a_filled_buffer_names_its_sender_and_payload() {
        let bytes = sample(b"hello");
        let (received, payload) = filled(&bytes, PAYLOAD_AT + 5);
        assert_eq!((payload, received.cut), (b"hello".as_slice(), false));
        assert_eq!(received.peer, Some(([10, 1, 2, 3], 99).into()));
    }

    #[test]
    fn lengths_that_do_not_fit_are_cut_datagrams() {
        let mut bytes = sample(b"hello");
        for said in [6_u32, 70_000, u32::MAX] {
            bytes[8..12].copy_from_slice(&said.to_ne_bytes());
            assert!(filled(&bytes, PAYLOAD_AT + 5).0.cut, "{said} said, 5 written");
        }
        for length in [0, 3, 15, 20, PAYLOAD_AT - 1] {
            let (received, payload) = filled(&bytes, length);
            assert_eq!((payload.len(), received.length), (0, 0));
            assert!(received.cut || received.peer.is_none());
        }
        assert!(filled(&bytes, usize::MAX).0.cut);
    }
}
