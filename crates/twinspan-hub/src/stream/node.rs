//! Threads and waits around topics on streams: who receives drives the sockets, and a thread of the
//! road's own does so when nobody else does.
//!
//! //= hub 9.7

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use twinspan_core::time::Timestamp;
use twinspan_net::lock;
use twinspan_net::shm::{self, Room, Taken};

use super::core::{Bells, Carrier, Core, Gathering, Seats, ring};
use super::topic::{Topic, TopicStats};
use crate::compress::CompressionStats;
use crate::effect::{OwnThread, SettingReport};
use crate::error::PublishError;
use crate::road::{InStats, Incoming, More, OutStats, Outgoing, Peers};
use crate::seal::Declined;

/// Who drove the sockets so lately drives them again, and the road's own thread leaves them alone.
const LEASE: Duration = Duration::from_millis(2);
/// The longest nap of the road's own thread while others drive.
const LEASED_NAP_MAX: Duration = Duration::from_millis(64);
/// Looks that found nothing between two signs of life of a receiver that spins.
const LOOKS_PER_SIGN: u32 = 64;
/// Looks of the road's own thread that found nothing queued, until it stops looking.
const IDLE_WATCHES: u32 = 16;

/// A carrier whose sockets a thread can sleep on.
pub(crate) trait Waited: Carrier + Send + 'static {
    /// What becomes readable when there is something to do.
    fn readiness(&self) -> Arc<OwnedFd>;
}

/// A carrier, its topics, and its own thread.
pub(crate) struct Node<C: Waited> {
    core: Mutex<Core<C>>,
    readiness: Arc<OwnedFd>,
    /// Wakes the road's own thread.
    bell: OwnedFd,
    /// Users' threads that wait for the sockets just now.
    drivers: AtomicU32,
    /// When a user's thread drove last.
    driven_at: AtomicU64,
    /// Messages may be queued that have to be written in time.
    is_watching: AtomicBool,
    /// When the own thread looks though others drive: they may sleep, and not know of what is due.
    due_at: AtomicU64,
    is_over: AtomicBool,
    flush_interval: Duration,
    started: Instant,
    thread: Mutex<Option<JoinHandle<()>>>,
    own: OwnThread,
}

fn new_bell() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

fn quiet(bell: &OwnedFd) {
    // A failure says that it did not ring.
    let _ = rustix::io::read(bell, &mut [0; 8]);
}

/// Sleeps until one of two is readable, for at most `limit`.
fn sleep_on(one: &OwnedFd, other: &OwnedFd, limit: Option<Duration>) {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut both = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
    // Whatever ended it: the caller looks.
    let _ = poll(&mut both, limit.as_ref());
}

impl<C: Waited> Node<C> {
    /// A node around a carrier, with its thread, on a core of its own where one is named.
    pub(crate) fn start(
        carrier: C,
        started: Instant,
        flush_interval: Duration,
        core: Option<usize>,
    ) -> io::Result<Arc<Self>> {
        let readiness = carrier.readiness();
        let node = Arc::new(Self {
            core: Mutex::new(Core::new(carrier)),
            readiness,
            bell: new_bell()?,
            drivers: AtomicU32::new(0),
            driven_at: AtomicU64::new(0),
            is_watching: AtomicBool::new(false),
            due_at: AtomicU64::new(u64::MAX),
            is_over: AtomicBool::new(false),
            flush_interval,
            started,
            thread: Mutex::new(None),
            own: OwnThread::new(core),
        });
        let own = Arc::clone(&node);
        let thread = thread::Builder::new().name("hub-stream".into()).spawn(move || {
            own.own.settle();
            own.run();
        })?;
        *lock(&node.thread) = Some(thread);
        Ok(node)
    }

    fn now(&self) -> Timestamp {
        let nanos = self.started.elapsed().as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn due_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.due_at.load(Ordering::SeqCst))
    }

    fn core(&self) -> MutexGuard<'_, Core<C>> {
        lock(&self.core)
    }

    /// Does something with the carrier and its topics, and tells who waits.
    pub(crate) fn with<R>(&self, act: impl FnOnce(Timestamp, &mut C, &mut Seats) -> R) -> R {
        let mut core = self.core();
        let Core { carrier, seats, .. } = &mut *core;
        let result = act(self.now(), carrier, seats);
        core.announce(None);
        result
    }

    /// There is something new to do for a topic: who sleeps on it looks at when the next thing is due.
    pub(crate) fn nudge(&self, seat: usize) {
        self.with(|now, carrier, seats| {
            carrier.turn(now, seats);
            if let Some(seat) = seats.get(seat) {
                seat.has_news = true;
            }
        });
        ring(&self.bell);
    }

    /// Adds a topic; gives it back where the node was just left by its last one.
    pub(crate) fn join(
        self: &Arc<Self>,
        topic: Topic,
    ) -> io::Result<Result<Arc<Member<C>>, Topic>> {
        let (bell, room) = (Arc::new(new_bell()?), Arc::new(new_bell()?));
        let linger = topic.config().linger;
        let bells = Bells { news: Arc::clone(&bell), room: Arc::clone(&room) };
        let seat = self.core().join(topic, Some(bells)).map_err(|topic| *topic);
        let member = |seat| Member { node: Arc::clone(self), seat, bell, room, linger };
        Ok(seat.map(|seat| Arc::new(member(seat))))
    }

    /// Drives until this holds, or the time is over; the last answer. What is left to do then is the own
    /// thread's, which learns when that is due.
    pub(crate) fn drive_until(
        &self,
        limit: Duration,
        holds: impl FnMut(&mut Core<C>) -> bool,
    ) -> bool {
        let held = self.drive_for(limit, holds);
        ring(&self.bell);
        held
    }

    fn drive_for(&self, limit: Duration, mut holds: impl FnMut(&mut Core<C>) -> bool) -> bool {
        let end = self.now().after(limit);
        loop {
            let next = {
                let mut core = self.core();
                let now = self.now();
                core.turn(now);
                if holds(&mut core) {
                    return true;
                }
                if now >= end {
                    return false;
                }
                core.poll_timeout().min(end).since(now)
            };
            self.drivers.fetch_add(1, Ordering::SeqCst);
            // Another thread may do what is waited for: look again soon.
            let nap = next.clamp(Duration::from_micros(50), Duration::from_millis(5));
            sleep_on(&self.readiness, &self.readiness, Some(nap));
            self.drivers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Says that a user's thread drives.
    fn sign(&self, now: Timestamp) {
        self.driven_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Makes the own thread take over at once.
    fn hand_over(&self) {
        if self.driven_at.swap(0, Ordering::SeqCst) != 0 {
            ring(&self.bell);
        }
    }

    /// The road's own thread.
    fn run(&self) {
        let mut nap = LEASE;
        let mut idle_watches = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            if self.is_watching.load(Ordering::SeqCst) {
                sleep_on(&self.bell, &self.bell, Some(self.flush_interval));
                quiet(&self.bell);
                idle_watches = if self.flush_late() { 0 } else { idle_watches + 1 };
                if idle_watches >= IDLE_WATCHES {
                    self.is_watching.store(false, Ordering::SeqCst);
                    // What was queued before a publisher saw that.
                    self.flush_late();
                    idle_watches = 0;
                }
                continue;
            }
            let driven_at = Timestamp::from_nanos(self.driven_at.load(Ordering::SeqCst));
            let is_leased = driven_at > Timestamp::START && self.now() < driven_at.after(LEASE);
            if is_leased || self.drivers.load(Ordering::SeqCst) > 0 {
                let (due_at, now) = (self.due_at(), self.now());
                if now >= due_at {
                    self.turn(now);
                }
                // Who drives does it too: this thread does not compete, and is late by that much.
                let until_due = self.due_at().since(now).max(LEASE);
                sleep_on(&self.bell, &self.bell, Some(nap.min(until_due)));
                quiet(&self.bell);
                nap = (nap * 2).min(LEASED_NAP_MAX);
                continue;
            }
            nap = LEASE;
            let now = self.now();
            let limit = self.turn(now).since(now);
            // Not even an hour: a clock that is asked for more may refuse.
            let limit = limit.clamp(Duration::from_micros(50), Duration::from_secs(3_600));
            sleep_on(&self.readiness, &self.bell, Some(limit));
            quiet(&self.bell);
        }
    }

    /// Does everything that can be done now; when there is more to do though nothing comes.
    fn turn(&self, now: Timestamp) -> Timestamp {
        let mut core = self.core();
        core.turn(now);
        self.due_at.store(core.urgent_at().as_nanos(), Ordering::SeqCst);
        core.poll_timeout()
    }

    /// Writes what has been queued for long; true when something is queued.
    fn flush_late(&self) -> bool {
        self.core().flush_late(self.now())
    }

    /// Ends the thread and closes all.
    fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        ring(&self.bell);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // A thread that panicked has been reported.
            let _ = thread.join();
        }
    }
}

/// A hub's part in a node; leaves when the last handle is dropped.
pub(crate) struct Member<C: Waited> {
    node: Arc<Node<C>>,
    seat: usize,
    bell: Arc<OwnedFd>,
    room: Arc<OwnedFd>,
    /// How long a hub that is dropped waits until the others have what it published.
    linger: Duration,
}

impl<C: Waited> Member<C> {
    pub(crate) const fn seat(&self) -> usize {
        self.seat
    }

    fn stats(&self) -> TopicStats {
        let mut core = self.node.core();
        core.seats.topic(self.seat).map_or_else(TopicStats::default, |topic| topic.stats())
    }
}

impl<C: Waited> Drop for Member<C> {
    fn drop(&mut self) {
        let seat = self.seat;
        {
            let mut core = self.node.core();
            core.leave(self.node.now(), seat);
            core.announce(None);
        }
        self.node.drive_until(self.linger, |core| core.has_left(seat));
        let is_last = self.node.core().vacate(seat);
        if is_last {
            self.node.stop();
        }
    }
}

/// The publishing side.
pub(crate) struct StreamOut<C: Waited> {
    pub(crate) member: Arc<Member<C>>,
    pub(crate) message_bytes_max: usize,
    pub(crate) batch_size: u32,
    pub(crate) publish_timeout: Duration,
    pub(crate) next: u64,
}

impl<C: Waited> StreamOut<C> {
    /// Publishes where there is room; else waits for it.
    fn publish_waiting(&mut self, bytes: &[u8]) -> Result<u64, PublishError> {
        let node = Arc::clone(&self.member.node);
        let index = self.member.seat;
        let end = node.now().after(self.publish_timeout);
        loop {
            let left = {
                let mut core = node.core();
                let now = node.now();
                node.sign(now);
                // It looks itself now: nobody, and not this turn, has to ring for it.
                if let Some(seat) = core.seats.get(index) {
                    seat.is_waiting_for_room = false;
                }
                // What is queued must leave before anybody can get it.
                core.flush(now, index);
                core.turn(now);
                let next = core.poll_timeout();
                let Some(seat) = core.seats.get(index) else { return Err(closed()) };
                if let Ok(number) = seat.topic.publish(bytes) {
                    return Ok(number);
                }
                if now >= end {
                    let waited = self.publish_timeout;
                    return Err(PublishError::Road(shm::PublishError::Stalled { waited }));
                }
                seat.is_waiting_for_room = true;
                next.min(end).since(now)
            };
            node.drivers.fetch_add(1, Ordering::SeqCst);
            sleep_on(&node.readiness, &self.member.room, Some(left.max(Duration::from_micros(50))));
            quiet(&self.member.room);
            node.drivers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Writes now, or leaves it to the end of the burst.
    fn settle(&self, core: &mut Core<C>, published: (Timestamp, usize, More)) {
        let node = &*self.member.node;
        let gathering =
            Gathering { batch_size: self.batch_size, flush_interval: node.flush_interval };
        let is_left = core.settle(|| node.now(), self.member.seat, published, gathering);
        let urgent_at = core.urgent_at();
        // Under the lock of the core, as the own thread stores it.
        if urgent_at < node.due_at() {
            node.due_at.store(urgent_at.as_nanos(), Ordering::SeqCst);
            ring(&node.bell);
        }
        if is_left && !node.is_watching.swap(true, Ordering::SeqCst) {
            ring(&node.bell);
        }
    }
}

fn closed() -> PublishError {
    PublishError::Broken("its topic was left".to_owned())
}

impl<C: Waited> Outgoing for StreamOut<C> {
    fn publish(&mut self, bytes: &[u8], more: More) -> Result<u64, PublishError> {
        if bytes.len() > self.message_bytes_max {
            let (have, max) = (bytes.len(), self.message_bytes_max);
            return Err(PublishError::Road(shm::PublishError::TooLong { have, max }));
        }
        let member = Arc::clone(&self.member);
        let node = &*member.node;
        let published = (node.now(), bytes.len(), more);
        let number = {
            let mut core = node.core();
            match core.publish(member.seat, bytes).ok_or_else(closed)? {
                Ok(number) => {
                    self.settle(&mut core, published);
                    self.next = number + 1;
                    return Ok(number);
                }
                Err(_full) => {
                    drop(core);
                    self.publish_waiting(bytes)?
                }
            }
        };
        self.next = number + 1;
        let mut core = node.core();
        self.settle(&mut core, published);
        Ok(number)
    }

    fn flush(&mut self) -> Result<(), PublishError> {
        let node = &*self.member.node;
        node.core().flush(node.now(), self.member.seat);
        Ok(())
    }

    fn next_number(&self) -> u64 {
        self.next
    }

    fn stats(&self) -> OutStats {
        OutStats { published: self.member.stats().published, dropped: 0 }
    }
}

/// The receiving side.
pub(crate) struct StreamIn<C: Waited> {
    pub(crate) member: Arc<Member<C>>,
    misses: u32,
    naps: u64,
}

impl<C: Waited> StreamIn<C> {
    pub(crate) const fn new(member: Arc<Member<C>>) -> Self {
        Self { member, misses: 0, naps: 0 }
    }
}

impl<C: Waited> Incoming for StreamIn<C> {
    fn try_take(&mut self, room: &mut dyn Room) -> Option<Taken> {
        let node = &*self.member.node;
        let (taken, looked_at) = node.core().take(|| node.now(), self.member.seat, room);
        if let Some(now) = looked_at {
            self.misses += 1;
            if self.misses >= LOOKS_PER_SIGN {
                self.misses = 0;
                node.sign(now);
            }
        }
        taken
    }

    fn sleep(&mut self, limit: Option<Duration>) {
        let node = &*self.member.node;
        let index = self.member.seat;
        // Before the look: the own thread that takes a message behind it sees that somebody sleeps.
        node.drivers.fetch_add(1, Ordering::SeqCst);
        let left = {
            let mut core = node.core();
            let now = node.now();
            core.flush(now, index);
            let next = core.poll_timeout();
            let seat = core.seats.get(index);
            seat.filter(|seat| !seat.topic.has_messages()).map(|seat| {
                quiet(&self.member.bell);
                seat.is_sleeping = true;
                let due = next.since(now).max(Duration::from_micros(50));
                limit.map_or(due, |limit| limit.min(due))
            })
        };
        if let Some(left) = left {
            self.naps += 1;
            let left = left.min(Duration::from_secs(3_600));
            sleep_on(&node.readiness, &self.member.bell, Some(left));
        }
        let mut core = node.core();
        let now = node.now();
        if let Some(seat) = core.seats.get(index) {
            seat.is_sleeping = false;
        }
        core.look(now, index);
        let Core { carrier, seats, .. } = &mut *core;
        if seats.get(index).is_some_and(|seat| !seat.topic.has_messages()) {
            carrier.turn(now, seats);
        }
        core.announce(Some(index));
        drop(core);
        node.sign(now);
        node.drivers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&mut self, waker: &Waker) {
        let node = &*self.member.node;
        self.misses = 0;
        let mut core = node.core();
        core.flush(node.now(), self.member.seat);
        if let Some(seat) = core.seats.get(self.member.seat) {
            seat.leave(waker);
        }
        drop(core);
        node.hand_over();
    }

    fn arm(&mut self) -> bool {
        let node = &*self.member.node;
        let mut core = node.core();
        let now = node.now();
        core.flush(now, self.member.seat);
        let Core { carrier, seats, .. } = &mut *core;
        carrier.look(now, seats);
        core.announce(None);
        let Some(seat) = core.seats.get(self.member.seat) else { return false };
        if seat.topic.has_messages() {
            return false;
        }
        quiet(&self.member.bell);
        seat.is_armed = true;
        drop(core);
        node.hand_over();
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.member.bell.as_fd()
    }

    fn stats(&self) -> InStats {
        let TopicStats { taken, lost, corrupt, .. } = self.member.stats();
        InStats { taken, lost, corrupt, naps: self.naps }
    }
}

impl<C: Waited> Peers for Member<C> {
    fn subscribers(&self) -> usize {
        self.node.core().seats.topic(self.seat).map_or(0, |topic| topic.subscribers())
    }

    fn publishers(&self) -> usize {
        self.node.core().seats.topic(self.seat).map_or(0, |topic| topic.publishers())
    }

    fn ended(&self) -> u64 {
        self.stats().ended
    }

    fn declined(&self) -> (u64, Option<Declined>) {
        let mut core = self.node.core();
        core.seats.topic(self.seat).map_or((0, None), |topic| topic.declined())
    }

    fn compression(&self) -> Option<CompressionStats> {
        let mut core = self.node.core();
        core.seats.topic(self.seat).map(|topic| topic.compression())
    }

    fn settings(&self) -> Vec<SettingReport> {
        let mut settings = self.node.core().carrier.settings();
        settings.push(self.node.own.setting());
        settings
    }
}

impl<C: Waited> fmt::Debug for Member<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("seat", &self.seat).finish_non_exhaustive()
    }
}
