//! The sockets of one reactor in its epoll set, and what is known of their readiness.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::sys::EventRoom;

/// Events taken from the kernel by one wait; more wait for the next one.
const EVENTS_PER_WAIT: usize = 256;

/// The token of what other threads ring.
const BELL: u64 = u64::MAX;

/// What a reactor is told about a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// That there may be something to receive; and that there is room to send, while a send waits.
    Datagrams,
    /// That there is room to send, while a send waits.
    Room,
}

impl Wants {
    fn edges(self) -> EventFlags {
        match self {
            Self::Datagrams => EventFlags::IN | EventFlags::ET,
            Self::Room => EventFlags::ET,
        }
    }
}

/// Readiness of one socket, shared by the socket and the reactor.
///
/// The set is edge-triggered: an event says that something changed, and readiness holds until a call
/// on the socket finds nothing more. A driver that does not read therefore costs no wakes.
pub(crate) struct Source {
    token: u64,
    wants: Wants,
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// Whether the kernel was asked to say when there is room to send.
    awaits_room: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Source {
    /// Whether a receive call may find something.
    pub(crate) fn readable(&self) -> bool {
        self.readable.get()
    }

    /// Whether a send call may find room.
    pub(crate) fn writable(&self) -> bool {
        self.writable.get()
    }

    /// Whether the kernel was asked to say when there is room to send.
    pub(crate) fn awaits_room(&self) -> bool {
        self.awaits_room.get()
    }

    /// A receive call found nothing more.
    pub(crate) fn drained(&self) {
        self.readable.set(false);
    }

    /// Wakes `waker` when the socket becomes readable.
    pub(crate) fn await_readable(&self, waker: &Waker) {
        keep(&mut self.reader.borrow_mut(), waker);
    }

    /// Wakes `waker` when the socket becomes writable.
    pub(crate) fn await_writable(&self, waker: &Waker) {
        keep(&mut self.writer.borrow_mut(), waker);
    }
}

fn keep(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(kept) => kept.clone_from(waker),
        none => *none = Some(waker.clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    let waker = slot.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A reactor's epoll set.
pub(super) struct Sources {
    epoll: OwnedFd,
    /// By the low half of the token; the high half is a generation, since an event of a closed
    /// socket may still be on its way when its place has a new owner.
    list: RefCell<Vec<Option<Rc<Source>>>>,
    free: RefCell<Vec<u32>>,
    generation: Cell<u32>,
    events: RefCell<EventRoom>,
}

impl Sources {
    /// An empty set.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            list: RefCell::default(),
            free: RefCell::default(),
            generation: Cell::new(0),
            events: RefCell::new(EventRoom::new(EVENTS_PER_WAIT)),
        })
    }

    /// Adds what other threads ring.
    pub(super) fn add_bell(&self, bell: &OwnedFd) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(&self.epoll, bell, EventData::new_u64(BELL), flags)?)
    }

    /// Adds a socket, which counts as ready both ways until a call on it says otherwise.
    pub(super) fn add(&self, socket: BorrowedFd<'_>, wants: Wants) -> io::Result<Rc<Source>> {
        let generation = self.generation.get().wrapping_add(1);
        let mut list = self.list.borrow_mut();
        let mut free = self.free.borrow_mut();
        let fresh = u32::try_from(list.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let index = free.last().copied().unwrap_or(fresh);
        // The token of the bell stays out of reach: descriptors are fewer than 2^31.
        let token = u64::from(generation) << 32 | u64::from(index);
        // Interest in room to send is added only while a send waits: with it, each datagram that
        // leaves the kernel would count as an edge and wake the reactor for nothing.
        epoll::add(&self.epoll, socket, EventData::new_u64(token), wants.edges())?;
        self.generation.set(generation);
        let source = Rc::new(Source {
            token,
            wants,
            readable: Cell::new(true),
            writable: Cell::new(true),
            awaits_room: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
        });
        match free.pop().and_then(|index| list.get_mut(index as usize)) {
            Some(place) => *place = Some(Rc::clone(&source)),
            None => list.push(Some(Rc::clone(&source))),
        }
        Ok(source)
    }

    /// Takes a socket out of the set.
    pub(super) fn remove(&self, socket: BorrowedFd<'_>, source: &Source) {
        // A failure leaves an entry that the closing of the descriptor removes anyway.
        let _ = epoll::delete(&self.epoll, socket);
        let index = source.token as u32;
        if let Some(place) = self.list.borrow_mut().get_mut(index as usize) {
            *place = None;
            self.free.borrow_mut().push(index);
        }
    }

    /// A send call found no room: asks the kernel to say when there is some.
    pub(super) fn blocked(&self, socket: BorrowedFd<'_>, source: &Source) -> io::Result<()> {
        source.writable.set(false);
        source.awaits_room.set(true);
        let token = EventData::new_u64(source.token);
        Ok(epoll::modify(&self.epoll, socket, token, source.wants.edges() | EventFlags::OUT)?)
    }

    /// There is room again: no more edges for it.
    pub(super) fn unblocked(&self, socket: BorrowedFd<'_>, source: &Source) -> io::Result<()> {
        source.awaits_room.set(false);
        let token = EventData::new_u64(source.token);
        Ok(epoll::modify(&self.epoll, socket, token, source.wants.edges())?)
    }

    /// Waits for at most `timeout` (`None`: for ever), wakes who waits for what came, and returns
    /// whether the bell rang.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let count = match self.events.borrow_mut().wait(self.epoll.as_fd(), timeout) {
            Ok(count) => count,
            // A signal: the loop looks at everything and waits again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        let mut rang = false;
        for index in 0..count {
            // Copied out: who is woken may come back here.
            let Some(event) = self.events.borrow().event(index) else { break };
            if event.token == BELL {
                rang = true;
                continue;
            }
            let Some(source) = self.source(event.token) else { continue };
            if event.readable {
                source.readable.set(true);
                wake(&source.reader);
            }
            if event.writable {
                source.writable.set(true);
                wake(&source.writer);
            }
        }
        Ok(rang)
    }

    fn source(&self, token: u64) -> Option<Rc<Source>> {
        let list = self.list.borrow();
        let source = list.get(token as u32 as usize)?.as_ref()?;
        (source.token == token).then(|| Rc::clone(source))
    }
}
