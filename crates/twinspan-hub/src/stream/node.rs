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
use twinspan_net::shm::{self, Room, Taken};
use twinspan_net::{lock, pin_to_core};

use super::topic::{Topic, TopicStats};
use crate::compress::CompressionStats;
use crate::error::PublishError;
use crate::road::{InStats, Incoming, More, OutStats, Outgoing, Peers};

/// Who drove the sockets so lately drives them again, and the road's own thread leaves them alone.
const LEASE: Duration = Duration::from_millis(2);
/// The longest nap of the road's own thread while others drive.
const LEASED_NAP_MAX: Duration = Duration::from_millis(64);
/// Looks that found nothing between two signs of life of a receiver that spins.
const LOOKS_PER_SIGN: u32 = 64;
/// Looks at streams between two at everything: connections that come, that end, time.
const LOOKS_PER_TURN: u32 = 256;
/// Messages that follow each other so closely are a burst.
const BURST_GAP: Duration = Duration::from_micros(5);
/// Messages of a burst that leave one by one, before the burst is taken for one.
const BURST_FIRST: u32 = 16;
/// Bytes that are written at once in a burst.
const BURST_BYTES: usize = 64 << 10;
/// Looks of the road's own thread that found nothing queued, until it stops looking.
const IDLE_WATCHES: u32 = 16;
/// Tasks that wait for one hub's messages at a time; more than one is unusual.
const WAKERS_MAX: usize = 64;

/// What carries the streams of some topics.
pub(crate) trait Carrier: Send + 'static {
    /// Reads and writes the streams that are up: as little work as finds a message.
    fn look(&mut self, now: Timestamp, seats: &mut Seats);

    /// Does everything that can be done now.
    fn turn(&mut self, now: Timestamp, seats: &mut Seats);

    /// Writes what a topic has to say.
    fn pump(&mut self, now: Timestamp, seats: &mut Seats, seat: usize);

    /// When [`turn`](Self::turn) has something to do though nothing came.
    fn poll_timeout(&self) -> Timestamp;

    /// Whether all streams of a topic have ended.
    fn is_silent(&self, seat: usize) -> bool;

    /// A topic is left: what it had is closed.
    fn vacate(&mut self, seats: &mut Seats, seat: usize);

    /// The last topic was left: others may have the address.
    fn close(&mut self);

    /// What becomes readable when there is something to do.
    fn readiness(&self) -> Arc<OwnedFd>;

    /// It connects to nobody any more; the streams that it has live on.
    fn hang_up(&mut self) {}

    /// What the first answer to a connector was, for a topic.
    fn told(&self, _seat: usize) -> Option<super::open::Told> {
        None
    }
}

/// One topic and who waits for it.
pub(crate) struct Seat {
    pub(crate) topic: Topic,
    /// Readable with the next message, for who asked for that.
    bell: Arc<OwnedFd>,
    /// Readable when there may be room, for a publisher that waits.
    room: Arc<OwnedFd>,
    is_armed: bool,
    is_sleeping: bool,
    is_waiting_for_room: bool,
    wakers: Vec<Waker>,
    /// Messages came since the last announcement.
    pub(crate) has_news: bool,
    /// Since when messages are queued and not written.
    queued_at: Option<Timestamp>,
    queued: u32,
    queued_bytes: usize,
    published_at: Timestamp,
    streak: u32,
}

/// The topics of a carrier.
#[derive(Default)]
pub(crate) struct Seats {
    seats: Vec<Option<Seat>>,
}

impl Seats {
    pub(crate) fn get(&mut self, seat: usize) -> Option<&mut Seat> {
        self.seats.get_mut(seat)?.as_mut()
    }

    pub(crate) fn topic(&mut self, seat: usize) -> Option<&mut Topic> {
        self.get(seat).map(|seat| &mut seat.topic)
    }

    /// The topic with this name.
    pub(crate) fn named(&mut self, name: &str) -> Option<(usize, &mut Topic)> {
        let mut seats = self.seats.iter_mut().enumerate();
        seats.find_map(|(index, seat)| {
            let topic = &mut seat.as_mut()?.topic;
            (topic.config().greeting.topic == name).then_some((index, topic))
        })
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = (usize, &mut Seat)> {
        let seats = self.seats.iter_mut().enumerate();
        seats.filter_map(|(index, seat)| Some((index, seat.as_mut()?)))
    }

    fn add(&mut self, seat: Seat) -> usize {
        let index = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        if index == self.seats.len() {
            self.seats.push(None);
        }
        if let Some(place) = self.seats.get_mut(index) {
            *place = Some(seat);
        }
        index
    }
}

struct Core<C> {
    carrier: C,
    seats: Seats,
    /// Looks at streams so far.
    looks: u32,
    /// The last topic was left: nobody may join any more.
    is_closed: bool,
}

/// A carrier, its topics, and its own thread.
pub(crate) struct Node<C: Carrier> {
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
    is_over: AtomicBool,
    flush_interval: Duration,
    started: Instant,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn new_bell() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

fn ring(bell: &OwnedFd) {
    // A bell that cannot be rung rings already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
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

impl<C: Carrier> Node<C> {
    /// A node around a carrier, with its thread, on a core of its own where one is named.
    pub(crate) fn start(
        carrier: C,
        started: Instant,
        flush_interval: Duration,
        core: Option<usize>,
    ) -> io::Result<Arc<Self>> {
        let readiness = carrier.readiness();
        let node = Arc::new(Self {
            core: Mutex::new(Core { carrier, seats: Seats::default(), looks: 0, is_closed: false }),
            readiness,
            bell: new_bell()?,
            drivers: AtomicU32::new(0),
            driven_at: AtomicU64::new(0),
            is_watching: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            flush_interval,
            started,
            thread: Mutex::new(None),
        });
        let own = Arc::clone(&node);
        let thread = thread::Builder::new().name("hub-stream".into()).spawn(move || {
            if let Some(core) = core {
                // The report has said whether that is possible.
                let _ = pin_to_core(core);
            }
            own.run();
        })?;
        *lock(&node.thread) = Some(thread);
        Ok(node)
    }

    fn now(&self) -> Timestamp {
        let nanos = self.started.elapsed().as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn core(&self) -> MutexGuard<'_, Core<C>> {
        lock(&self.core)
    }

    /// Does something with the carrier and its topics, and tells who waits.
    pub(crate) fn with<R>(&self, act: impl FnOnce(Timestamp, &mut C, &mut Seats) -> R) -> R {
        let mut core = self.core();
        let Core { carrier, seats, .. } = &mut *core;
        let result = act(self.now(), carrier, seats);
        announce(seats, None);
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
        let mut core = self.core();
        if core.is_closed {
            return Ok(Err(topic));
        }
        let seat = Seat {
            topic,
            bell: Arc::clone(&bell),
            room: Arc::clone(&room),
            is_armed: false,
            is_sleeping: false,
            is_waiting_for_room: false,
            wakers: Vec::with_capacity(4),
            has_news: false,
            queued_at: None,
            queued: 0,
            queued_bytes: 0,
            published_at: Timestamp::START,
            streak: 0,
        };
        let seat = core.seats.add(seat);
        Ok(Ok(Arc::new(Member { node: Arc::clone(self), seat, bell, room, linger })))
    }

    /// Drives until this holds, or the time is over; the last answer.
    pub(crate) fn drive_until(
        &self,
        limit: Duration,
        mut holds: impl FnMut(&mut C, &mut Seats) -> bool,
    ) -> bool {
        let end = self.now().after(limit);
        loop {
            let next = {
                let mut core = self.core();
                let Core { carrier, seats, .. } = &mut *core;
                let now = self.now();
                carrier.turn(now, seats);
                announce(seats, None);
                if holds(carrier, seats) {
                    return true;
                }
                if now >= end {
                    return false;
                }
                next_timeout(carrier, seats).min(end).since(now)
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
                sleep_on(&self.bell, &self.bell, Some(nap));
                quiet(&self.bell);
                nap = (nap * 2).min(LEASED_NAP_MAX);
                continue;
            }
            nap = LEASE;
            let limit = {
                let mut core = self.core();
                let Core { carrier, seats, .. } = &mut *core;
                let now = self.now();
                carrier.turn(now, seats);
                announce(seats, None);
                next_timeout(carrier, seats).since(now)
            };
            // Not even an hour: a clock that is asked for more may refuse.
            let limit = limit.clamp(Duration::from_micros(50), Duration::from_secs(3_600));
            sleep_on(&self.readiness, &self.bell, Some(limit));
            quiet(&self.bell);
        }
    }

    /// Writes what has been queued for long; true when something is queued.
    fn flush_late(&self) -> bool {
        let mut core = self.core();
        let Core { carrier, seats, .. } = &mut *core;
        let now = self.now();
        let mut was_queued = false;
        for index in 0..seats.seats.len() {
            if seats.get(index).is_some_and(|seat| seat.queued_at.is_some()) {
                flush(carrier, seats, index, now);
                was_queued = true;
            }
        }
        announce(seats, None);
        was_queued
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

/// When there is something to do though nothing comes.
fn next_timeout<C: Carrier>(carrier: &C, seats: &mut Seats) -> Timestamp {
    let topics = seats.each().map(|(_, seat)| seat.topic.poll_timeout()).min();
    carrier.poll_timeout().min(topics.unwrap_or(Timestamp::NEVER))
}

/// Writes what is queued.
fn flush<C: Carrier>(carrier: &mut C, seats: &mut Seats, index: usize, now: Timestamp) {
    if let Some(seat) = seats.get(index) {
        (seat.queued_at, seat.queued, seat.queued_bytes) = (None, 0, 0);
    }
    carrier.pump(now, seats, index);
}

/// Tells who waits for messages or room; not the thread of this seat's receiver itself.
fn announce(seats: &mut Seats, own: Option<usize>) {
    for (index, seat) in seats.each() {
        if seat.is_waiting_for_room {
            ring(&seat.room);
        }
        if !std::mem::take(&mut seat.has_news) {
            continue;
        }
        if seat.is_armed || (seat.is_sleeping && own != Some(index)) {
            seat.is_armed = false;
            ring(&seat.bell);
        }
        for waker in seat.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// A hub's part in a node; leaves when the last handle is dropped.
pub(crate) struct Member<C: Carrier> {
    node: Arc<Node<C>>,
    seat: usize,
    bell: Arc<OwnedFd>,
    room: Arc<OwnedFd>,
    /// How long a hub that is dropped waits until the others have what it published.
    linger: Duration,
}

impl<C: Carrier> Member<C> {
    pub(crate) const fn seat(&self) -> usize {
        self.seat
    }

    fn stats(&self) -> TopicStats {
        let mut core = self.node.core();
        core.seats.topic(self.seat).map_or_else(TopicStats::default, |topic| topic.stats())
    }
}

impl<C: Carrier> Drop for Member<C> {
    fn drop(&mut self) {
        let seat = self.seat;
        self.node.with(|now, carrier, seats| {
            if let Some(topic) = seats.topic(seat) {
                topic.leave();
            }
            flush(carrier, seats, seat, now);
        });
        self.node.drive_until(self.linger, |carrier, seats| {
            let topic = seats.topic(seat);
            let is_delivered =
                topic.is_none_or(|topic| !topic.config().is_reliable || topic.is_delivered());
            carrier.is_silent(seat) && is_delivered
        });
        let is_last = {
            let mut core = self.node.core();
            let Core { carrier, seats, is_closed, .. } = &mut *core;
            carrier.vacate(seats, seat);
            if let Some(place) = seats.seats.get_mut(seat) {
                *place = None;
            }
            *is_closed = seats.seats.iter().all(Option::is_none);
            if *is_closed {
                carrier.close();
            }
            *is_closed
        };
        if is_last {
            self.node.stop();
        }
    }
}

/// The publishing side.
pub(crate) struct StreamOut<C: Carrier> {
    pub(crate) member: Arc<Member<C>>,
    pub(crate) message_bytes_max: usize,
    pub(crate) batch_size: u32,
    pub(crate) publish_timeout: Duration,
    pub(crate) next: u64,
}

impl<C: Carrier> StreamOut<C> {
    /// Publishes where there is room; else waits for it.
    fn publish_waiting(&mut self, bytes: &[u8]) -> Result<u64, PublishError> {
        let node = Arc::clone(&self.member.node);
        let index = self.member.seat;
        let end = node.now().after(self.publish_timeout);
        loop {
            let left = {
                let mut core = node.core();
                let Core { carrier, seats, .. } = &mut *core;
                let now = node.now();
                node.sign(now);
                // What is queued must leave before anybody can get it.
                flush(carrier, seats, index, now);
                carrier.turn(now, seats);
                announce(seats, None);
                let next = next_timeout(carrier, seats);
                let Some(seat) = seats.get(index) else { return Err(closed()) };
                if let Ok(number) = seat.topic.publish(bytes) {
                    seat.is_waiting_for_room = false;
                    return Ok(number);
                }
                if now >= end {
                    seat.is_waiting_for_room = false;
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
    fn settle(&self, core: &mut Core<C>, now: Timestamp, bytes: usize, more: More) {
        let node = &*self.member.node;
        let Core { carrier, seats, .. } = core;
        let Some(seat) = seats.get(self.member.seat) else { return };
        let is_close = now.since(seat.published_at) < BURST_GAP;
        seat.published_at = now;
        seat.streak = if is_close { seat.streak.saturating_add(1) } else { 0 };
        seat.queued += 1;
        seat.queued_bytes += bytes;
        let since = *seat.queued_at.get_or_insert(now);
        let is_queued = (more == More::Follows || seat.streak >= BURST_FIRST)
            && seat.queued < self.batch_size
            && seat.queued_bytes < BURST_BYTES
            && now < since.after(node.flush_interval);
        if !is_queued {
            flush(carrier, seats, self.member.seat, now);
        } else if more == More::Unknown && !node.is_watching.swap(true, Ordering::SeqCst) {
            ring(&node.bell);
        }
    }
}

fn closed() -> PublishError {
    PublishError::Broken("its topic was left".to_owned())
}

impl<C: Carrier> Outgoing for StreamOut<C> {
    fn publish(&mut self, bytes: &[u8], more: More) -> Result<u64, PublishError> {
        if bytes.len() > self.message_bytes_max {
            let (have, max) = (bytes.len(), self.message_bytes_max);
            return Err(PublishError::Road(shm::PublishError::TooLong { have, max }));
        }
        let member = Arc::clone(&self.member);
        let node = &*member.node;
        let number = {
            let mut core = node.core();
            let Some(seat) = core.seats.get(member.seat) else { return Err(closed()) };
            match seat.topic.publish(bytes) {
                Ok(number) => {
                    self.settle(&mut core, node.now(), bytes.len(), more);
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
        self.settle(&mut core, node.now(), bytes.len(), more);
        Ok(number)
    }

    fn flush(&mut self) -> Result<(), PublishError> {
        let node = &*self.member.node;
        let mut core = node.core();
        let Core { carrier, seats, .. } = &mut *core;
        let now = node.now();
        flush(carrier, seats, self.member.seat, now);
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
pub(crate) struct StreamIn<C: Carrier> {
    pub(crate) member: Arc<Member<C>>,
    misses: u32,
    naps: u64,
}

impl<C: Carrier> StreamIn<C> {
    pub(crate) const fn new(member: Arc<Member<C>>) -> Self {
        Self { member, misses: 0, naps: 0 }
    }
}

impl<C: Carrier> Incoming for StreamIn<C> {
    fn try_take(&mut self, room: &mut dyn Room) -> Option<Taken> {
        let node = &*self.member.node;
        let index = self.member.seat;
        let mut core = node.core();
        let Core { carrier, seats, looks, .. } = &mut *core;
        let seat = seats.get(index)?;
        if !seat.topic.has_messages() {
            let now = node.now();
            if seat.queued_at.is_some() {
                // Who publishes and then waits for an answer has ended its burst.
                flush(carrier, seats, index, now);
            }
            *looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_PER_TURN) {
                carrier.turn(now, seats);
            } else {
                carrier.look(now, seats);
            }
            announce(seats, Some(index));
            self.misses += 1;
            if self.misses >= LOOKS_PER_SIGN {
                self.misses = 0;
                node.sign(now);
            }
        }
        let seat = seats.get(index)?;
        let taken = seat.topic.take(room);
        if seat.topic.take_words() {
            let now = node.now();
            carrier.pump(now, seats, index);
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
            let Core { carrier, seats, .. } = &mut *core;
            let now = node.now();
            flush(carrier, seats, index, now);
            let next = next_timeout(carrier, seats);
            let seat = seats.get(index);
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
        let Core { carrier, seats, .. } = &mut *core;
        let now = node.now();
        if let Some(seat) = seats.get(index) {
            seat.is_sleeping = false;
            if !seat.topic.has_messages() {
                carrier.look(now, seats);
            }
        }
        if seats.get(index).is_some_and(|seat| !seat.topic.has_messages()) {
            carrier.turn(now, seats);
        }
        announce(seats, Some(index));
        drop(core);
        node.sign(now);
        node.drivers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&mut self, waker: &Waker) {
        let node = &*self.member.node;
        self.misses = 0;
        let mut core = node.core();
        let Core { carrier, seats, .. } = &mut *core;
        let now = node.now();
        flush(carrier, seats, self.member.seat, now);
        if let Some(seat) = seats.get(self.member.seat)
            && !seat.wakers.iter().any(|known| known.will_wake(waker))
        {
            if seat.wakers.len() >= WAKERS_MAX {
                // The oldest looks again, and waits anew if it still does.
                seat.wakers.remove(0).wake();
            }
            seat.wakers.push(waker.clone());
        }
        drop(core);
        node.hand_over();
    }

    fn arm(&mut self) -> bool {
        let node = &*self.member.node;
        let mut core = node.core();
        let Core { carrier, seats, .. } = &mut *core;
        let now = node.now();
        flush(carrier, seats, self.member.seat, now);
        carrier.look(now, seats);
        announce(seats, None);
        let Some(seat) = seats.get(self.member.seat) else { return false };
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

impl<C: Carrier> Peers for Member<C> {
    fn subscribers(&self) -> usize {
        self.node.core().seats.topic(self.seat).map_or(0, |topic| topic.subscribers())
    }

    fn publishers(&self) -> usize {
        self.node.core().seats.topic(self.seat).map_or(0, |topic| topic.publishers())
    }

    fn ended(&self) -> u64 {
        self.stats().ended
    }

    fn compression(&self) -> Option<CompressionStats> {
        let mut core = self.node.core();
        core.seats.topic(self.seat).map(|topic| topic.compression())
    }
}

impl<C: Carrier> fmt::Debug for Member<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("seat", &self.seat).finish_non_exhaustive()
    }
}
