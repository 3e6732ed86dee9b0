//! A completion ring for the streams of one thread: it connects, accepts, receives and sends, and owns
//! all that the kernel was lent until the kernel has let go of it.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::EventfdFlags;
use socket2::{SockAddr, SockRef};

/// Operations of one ring that are under way at the same time; a further one is refused.
pub(crate) const OPERATIONS_MAX: usize = 1 << 16;
/// Requests that wait for the next call into the kernel: each call takes them all.
const SUBMISSIONS: u32 = 64;
/// Completions that fit; the kernel keeps those beyond them.
const COMPLETIONS: u32 = 1_024;
/// Looks for the end of an operation that was taken back, before it is left to end by itself.
const CANCEL_LOOKS_MAX: u32 = 16;
/// What a request to take another one back is known by.
const NOBODY: u64 = u64::MAX;

/// One operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpKey(u32);

/// What an operation came to.
#[derive(Debug)]
pub(crate) enum Done {
    /// A connection is made.
    Connected,
    /// A connection was accepted.
    Accepted(OwnedFd),
    /// So many bytes were moved, to or from this memory.
    Moved(Box<[u8]>, usize),
}

/// What the kernel was lent.
enum Lent {
    Nothing,
    #[expect(dead_code, reason = "it is the kernel that reads it")]
    Name(Box<SockAddr>),
    Bytes(Box<[u8]>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    Accept,
    Receive,
    /// All of so many bytes.
    Send(u32),
}

struct Operation {
    kind: Kind,
    /// Open for as long as the kernel may use it.
    socket: Rc<OwnedFd>,
    lent: Lent,
    waker: Option<Waker>,
    result: Option<i32>,
    /// Whether nobody asks for the result any more.
    is_orphan: bool,
}

/// The ring, what the kernel was lent, and who waits.
pub(crate) struct StreamRing {
    ring: RefCell<IoUring>,
    /// Written by the kernel when there may be something to complete.
    bell: OwnedFd,
    operations: RefCell<Vec<Option<Operation>>>,
    free: RefCell<Vec<u32>>,
}

impl StreamRing {
    /// A ring of this thread.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS)?;
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        let (operations, free) = (RefCell::default(), RefCell::default());
        Ok(Self { ring: RefCell::new(ring), bell, operations, free })
    }

    /// What becomes readable when there may be something to complete, until [`quiet`](Self::quiet).
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Takes the news away that [`fd`](Self::fd) holds.
    pub(crate) fn quiet(&self) {
        // A failure says that there is no news.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Begins to connect a socket.
    pub(crate) fn connect(&self, socket: &Rc<OwnedFd>, peer: SocketAddr) -> io::Result<OpKey> {
        let name = Box::new(SockAddr::from(peer));
        let fd = Fd(socket.as_raw_fd());
        let entry = opcode::Connect::new(fd, name.as_ptr().cast(), name.len()).build();
        self.begin((Kind::Connect, socket), Lent::Name(name), &entry)
    }

    /// Begins to wait for a connection to a socket that listens.
    pub(crate) fn accept(&self, socket: &Rc<OwnedFd>) -> io::Result<OpKey> {
        let (fd, nobody) = (Fd(socket.as_raw_fd()), std::ptr::null_mut());
        let accept = opcode::Accept::new(fd, nobody, std::ptr::null_mut());
        let entry = accept.flags(libc::SOCK_CLOEXEC).build();
        self.begin((Kind::Accept, socket), Lent::Nothing, &entry)
    }

    /// Begins to receive into memory that is lent.
    pub(crate) fn receive(&self, socket: &Rc<OwnedFd>, mut bytes: Box<[u8]>) -> io::Result<OpKey> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), bytes.as_mut_ptr(), length).build();
        self.begin((Kind::Receive, socket), Lent::Bytes(bytes), &entry)
    }

    /// Begins to send the first `length` bytes of memory that is lent, all of them.
    pub(crate) fn send(
        &self,
        socket: &Rc<OwnedFd>,
        bytes: Box<[u8]>,
        length: usize,
    ) -> io::Result<OpKey> {
        let length = u32::try_from(length.min(bytes.len())).unwrap_or(u32::MAX);
        let send = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), length);
        let entry = send.flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build();
        self.begin((Kind::Send(length), socket), Lent::Bytes(bytes), &entry)
    }

    fn begin(
        &self,
        (kind, socket): (Kind, &Rc<OwnedFd>),
        lent: Lent,
        entry: &squeue::Entry,
    ) -> io::Result<OpKey> {
        let index = {
            let mut operations = self.operations.borrow_mut();
            let socket = Rc::clone(socket);
            let operation =
                Operation { kind, socket, lent, waker: None, result: None, is_orphan: false };
            let index = match self.free.borrow_mut().pop() {
                Some(index) => index,
                None if operations.len() < OPERATIONS_MAX => {
                    operations.push(None);
                    // The limit is below 2^32.
                    (operations.len() - 1) as u32
                }
                None => return Err(io::ErrorKind::OutOfMemory.into()),
            };
            if let Some(place) = operations.get_mut(index as usize) {
                *place = Some(operation);
            }
            index
        };
        let entry = entry.clone().user_data(u64::from(index));
        // SAFETY: the memory and the descriptor that the entry names belong to the operation, which
        // stays in the table until its completion was taken, or for ever: see `forget` and `drop`.
        let pushed = unsafe { self.push(&entry) };
        if let Err(error) = pushed {
            self.forget(index);
            return Err(error);
        }
        self.look();
        Ok(OpKey(index))
    }

    /// Hands a request to the kernel.
    ///
    /// # Safety
    /// What the entry names must stay valid until its completion was taken.
    unsafe fn push(&self, entry: &squeue::Entry) -> io::Result<()> {
        let mut ring = self.ring.borrow_mut();
        for _ in 0..2 {
            // SAFETY: the caller promises it.
            if unsafe { ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            ring.submit()?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Lets the kernel take and complete what it can, and wakes who waits for that.
    pub(crate) fn look(&self) {
        // A kernel that has no room for completions now has when these were taken: the bell rings.
        let _ = self.ring.borrow_mut().submit();
        loop {
            let completion = self.ring.borrow_mut().completion().next();
            let Some(completion) = completion else { return };
            self.complete(&completion);
        }
    }

    fn complete(&self, completion: &cqueue::Entry) {
        let Ok(index) = u32::try_from(completion.user_data()) else { return };
        let (waker, is_orphan) = {
            let mut operations = self.operations.borrow_mut();
            let operation = operations.get_mut(index as usize).and_then(Option::as_mut);
            let Some(operation) = operation else { return };
            operation.result = Some(completion.result());
            (operation.waker.take(), operation.is_orphan)
        };
        // With nothing borrowed: who is woken, or dropped, may come back here.
        if let Some(waker) = waker {
            waker.wake();
        }
        if is_orphan {
            self.forget(index);
        }
    }

    /// What an operation came to; once it is ready, its key stands for nothing.
    pub(crate) fn poll(&self, OpKey(index): OpKey, cx: &Context<'_>) -> Poll<io::Result<Done>> {
        {
            let mut operations = self.operations.borrow_mut();
            let operation = operations.get_mut(index as usize).and_then(Option::as_mut);
            let Some(operation) = operation else {
                return Poll::Ready(Err(io::ErrorKind::NotFound.into()));
            };
            if operation.result.is_none() {
                match &mut operation.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(self.take(index))
    }

    /// Whether an operation has come to something.
    pub(crate) fn is_done(&self, OpKey(index): OpKey) -> bool {
        let operations = self.operations.borrow();
        let operation = operations.get(index as usize).and_then(Option::as_ref);
        operation.is_some_and(|operation| operation.result.is_some())
    }

    /// Takes a completed operation out of the table.
    fn take(&self, index: u32) -> io::Result<Done> {
        let operation = {
            let mut operations = self.operations.borrow_mut();
            let operation = operations.get_mut(index as usize).and_then(Option::take);
            self.free.borrow_mut().push(index);
            operation.ok_or(io::ErrorKind::NotFound)?
        };
        let result = operation.result.unwrap_or(-libc::EINVAL);
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(match (operation.kind, operation.lent) {
            (Kind::Connect, _) => Done::Connected,
            (Kind::Accept, _) => {
                // SAFETY: the kernel has just made this descriptor for this very operation, and
                // nobody else knows it.
                Done::Accepted(unsafe { OwnedFd::from_raw_fd(result) })
            }
            (_, Lent::Bytes(bytes)) => {
                let length = (result as usize).min(bytes.len());
                Done::Moved(bytes, length)
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    /// Takes an operation out of the table that nobody asks for, or that the kernel never got.
    fn forget(&self, index: u32) {
        let operation = {
            let mut operations = self.operations.borrow_mut();
            let operation = operations.get_mut(index as usize).and_then(Option::take);
            self.free.borrow_mut().push(index);
            operation
        };
        let Some(operation) = operation else { return };
        match (operation.kind, operation.result) {
            // A connection that nobody takes is broken off, as where it waits to be accepted.
            (Kind::Accept, Some(result @ 0..)) => {
                // SAFETY: as in `take`: the kernel has just made it, and nobody else knows it.
                let accepted = unsafe { OwnedFd::from_raw_fd(result) };
                break_off(&accepted);
            }
            // Bytes that came and were never read: who closes then breaks off, as TCP demands.
            (Kind::Receive, Some(1..)) => break_off(&operation.socket),
            // What was written and is lost: the peer must not take this for the end of the stream.
            (Kind::Send(wanted), Some(sent))
                if !u32::try_from(sent).is_ok_and(|it| it >= wanted) =>
            {
                break_off(&operation.socket);
            }
            _ => {}
        }
    }

    /// Nobody asks for an operation any more. One that sends goes on; others are taken back.
    pub(crate) fn abandon(&self, OpKey(index): OpKey) {
        let state = {
            let mut operations = self.operations.borrow_mut();
            let operation = operations.get_mut(index as usize).and_then(Option::as_mut);
            operation.map(|operation| {
                operation.is_orphan = true;
                // Its task has gone or goes on without it.
                (operation.kind, operation.result.is_some(), operation.waker.take())
            })
        };
        let Some((kind, is_done, waker)) = state else { return };
        drop(waker);
        if is_done {
            self.forget(index);
            return;
        }
        if matches!(kind, Kind::Send(_)) {
            return;
        }
        let cancel = opcode::AsyncCancel::new(u64::from(index)).build().user_data(NOBODY);
        // SAFETY: the entry names another request and no memory.
        let _ = unsafe { self.push(&cancel) };
        for _ in 0..CANCEL_LOOKS_MAX {
            self.look();
            // Another operation that took its place already is not an orphan.
            let operations = self.operations.borrow();
            let place = operations.get(index as usize).and_then(Option::as_ref);
            if place.is_none_or(|operation| !operation.is_orphan) {
                return;
            }
        }
    }

    /// Takes all operations back and waits until the kernel has let go of everything.
    fn disarm(&self) -> io::Result<()> {
        for _ in 0..=COMPLETIONS {
            self.look();
            if self.operations.borrow().iter().flatten().all(|one| one.result.is_some()) {
                return Ok(());
            }
            let ring = self.ring.borrow();
            match ring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Lets a socket that is closed next break its connection off.
fn break_off(socket: &OwnedFd) {
    // Where the system refuses, the connection ends in the usual way.
    let _ = SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
}

impl Drop for StreamRing {
    fn drop(&mut self) {
        let left = self.disarm();
        let operations = mem::take(&mut *self.operations.borrow_mut());
        if left.is_err() {
            // The kernel may still write to what it was lent: leaked, as that cannot be known.
            mem::forget(operations);
        }
    }
}
