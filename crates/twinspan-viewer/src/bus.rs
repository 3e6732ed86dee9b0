//! Events to many subscribers: who is slow learns how many it missed, and goes on.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// What an event is worth to who is slow: where room is short, those of the least go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Degree {
    /// One of many, as messages are.
    Traffic,
    /// News of something that goes on without the program.
    Report,
    /// How something ended that the program or its user waits for, as a journey.
    Outcome,
    /// A change of state that no program may miss. Nothing that others can bring about at will is
    /// of this degree.
    State,
}

impl Degree {
    /// How many there are.
    const COUNT: usize = Self::State as usize + 1;
}

/// Something that can be told to many, and can say that some of it was missed.
pub trait Event: Clone + Send + 'static {
    /// Tells that this many events were missed.
    fn lagged(missed: u64) -> Self;

    /// What it is worth to who is slow.
    fn degree(&self) -> Degree;

    /// Bytes of memory that it keeps, where these may be many.
    fn bytes(&self) -> usize {
        0
    }
}

/// Events that wait for one subscriber.
pub const EVENTS_KEPT: usize = 2_560;
/// Bytes that events may keep that wait for one subscriber: contents of event queues may be long,
/// and many.
pub const EVENT_BYTES_KEPT: usize = 16 << 20;
/// Room for events above which it is given back once nothing waits, and what is left of it then.
const ROOM_MAX: usize = 256;
const ROOM_LEFT: usize = 32;

/// There will be no more events: who sent them is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there will be no more events: the client is gone")]
pub struct EventsEnded;

/// A subscriber that was too slow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Laggard {
    /// Its name, or the place in the program where it subscribed.
    pub name: Arc<str>,
    /// Events that it missed since it subscribed.
    pub missed: u64,
    /// Events that wait for it.
    pub waiting: usize,
}

/// Tells events to all who subscribed. Clones are the same bus.
///
/// Telling never waits. Where [`EVENTS_KEPT`] events wait for a subscriber, or such as keep more
/// than [`EVENT_BYTES_KEPT`] together, the oldest of the least [`Degree`] makes room, at most of
/// that of the new one; the subscriber is told how many it missed.
/// Only events that wait take room: a subscriber that keeps up has little.
pub struct EventBus<T>(Arc<Bus<T>>);

/// All subscribers; a change makes a new list, so that nobody holds the lock while telling.
struct Bus<T>(Mutex<Arc<[Subscriber<T>]>>);

/// What waits for one of them, for both ends.
type Subscriber<T> = Arc<Mutex<Waiting<T>>>;

/// What waits for one subscriber.
struct Waiting<T> {
    name: Arc<str>,
    /// Events and their numbers, by degree.
    rings: [VecDeque<(u64, T)>; Degree::COUNT],
    /// The number of the next event.
    next: u64,
    /// How many wait, and what they keep together.
    len: usize,
    bytes: usize,
    /// Events that went unseen and were not told yet, and the number of the newest of them.
    missed: u64,
    missed_last: u64,
    /// Events that ever went unseen.
    lost: u64,
    /// Whether nobody is left who could tell any.
    over: bool,
    waker: Option<Waker>,
}

/// Each change under a lock is whole, so what a panic left is good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Event> EventBus<T> {
    /// A bus that nobody listens to.
    pub fn new() -> Self {
        Self(Arc::new(Bus(Mutex::new(Arc::new([])))))
    }

    /// Listens to everything that is told from now on. The subscriber is named after the place in
    /// the program that calls this.
    #[track_caller]
    pub fn subscribe(&self) -> Subscription<T> {
        let place = Location::caller();
        self.subscribe_named(format!("{}:{}", place.file(), place.line()))
    }

    /// Listens to everything that is told from now on, by this name in
    /// [`laggards`](Self::laggards).
    pub fn subscribe_named(&self, name: impl Into<Arc<str>>) -> Subscription<T> {
        let waiting = Arc::new(Mutex::new(Waiting::new(name.into())));
        let mut all = lock(&self.0.0);
        *all = all.iter().chain([&waiting]).cloned().collect();
        Subscription { waiting, bus: Arc::downgrade(&self.0) }
    }

    /// Tells an event.
    pub fn tell(&self, event: T) {
        let all = Arc::clone(&lock(&self.0.0));
        let Some((last, others)) = all.split_last() else { return };
        for waiting in others {
            tell_one(waiting, event.clone());
        }
        tell_one(last, event);
    }

    /// Who listens and was too slow at some time, in the order in which they subscribed.
    pub fn laggards(&self) -> Vec<Laggard> {
        let all = Arc::clone(&lock(&self.0.0));
        all.iter().filter_map(|waiting| lock(waiting).laggard()).collect()
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        lock(&self.0.0).len()
    }
}

fn tell_one<T: Event>(waiting: &Mutex<Waiting<T>>, event: T) {
    let mut waiting = lock(waiting);
    waiting.push(event);
    let waker = waiting.waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T> Waiting<T> {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            rings: [const { VecDeque::new() }; Degree::COUNT],
            next: 0,
            len: 0,
            bytes: 0,
            missed: 0,
            missed_last: 0,
            lost: 0,
            over: false,
            waker: None,
        }
    }

    /// What there is to say of the subscriber, if it missed any.
    fn laggard(&self) -> Option<Laggard> {
        let (missed, waiting) = (self.lost, self.len);
        (missed > 0).then(|| Laggard { name: Arc::clone(&self.name), missed, waiting })
    }

    /// The event of this number goes unseen.
    fn miss(&mut self, number: u64) {
        self.missed = self.missed.saturating_add(1);
        self.missed_last = self.missed_last.max(number);
        self.lost = self.lost.saturating_add(1);
    }
}

impl<T: Event> Waiting<T> {
    /// Adds an event, where there is or can be made room for it.
    fn push(&mut self, event: T) {
        let number = self.next;
        self.next += 1;
        let (degree, bytes) = (event.degree() as usize, event.bytes());
        if bytes > EVENT_BYTES_KEPT {
            return self.miss(number);
        }
        while self.len >= EVENTS_KEPT || self.bytes + bytes > EVENT_BYTES_KEPT {
            // The oldest of the least degree, and none that is worth more than this one.
            let least = (0..=degree).find_map(|degree| self.take(degree));
            match least {
                Some((former, _)) => self.miss(former),
                None => return self.miss(number),
            }
        }
        self.len += 1;
        self.bytes += bytes;
        if let Some(ring) = self.rings.get_mut(degree) {
            ring.push_back((number, event));
        }
    }

    /// The oldest event of a degree, and its number.
    fn take(&mut self, degree: usize) -> Option<(u64, T)> {
        let (number, event) = self.rings.get_mut(degree)?.pop_front()?;
        self.len -= 1;
        self.bytes = self.bytes.saturating_sub(event.bytes());
        Some((number, event))
    }

    /// The oldest event of all. What is missing is told where it would have ended: all that follows
    /// is whole, as far as it was told by now.
    fn pop(&mut self) -> Option<T> {
        let fronts = self.rings.iter().enumerate();
        let fronts = fronts.filter_map(|(degree, ring)| Some((ring.front()?.0, degree)));
        let oldest = fronts.min();
        if self.missed > 0 && oldest.is_none_or(|(number, _)| number > self.missed_last) {
            return Some(T::lagged(std::mem::take(&mut self.missed)));
        }
        let (_, degree) = oldest?;
        let (_, event) = self.take(degree)?;
        let ring = self.rings.get_mut(degree)?;
        if ring.is_empty() && ring.capacity() > ROOM_MAX {
            ring.shrink_to(ROOM_LEFT);
        }
        Some(event)
    }
}

impl<T> Drop for Bus<T> {
    fn drop(&mut self) {
        for waiting in lock(&self.0).iter() {
            let mut waiting = lock(waiting);
            waiting.over = true;
            let waker = waiting.waker.take();
            drop(waiting);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T: Event> Default for EventBus<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for EventBus<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for EventBus<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("listeners", &lock(&self.0.0).len()).finish()
    }
}

/// One subscriber's events.
pub struct Subscription<T> {
    waiting: Subscriber<T>,
    bus: Weak<Bus<T>>,
}

impl<T: Event> Subscription<T> {
    /// The next event, in the order in which they were told.
    ///
    /// # Errors
    /// [`EventsEnded`] when nobody is left who could tell any.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn recv(&mut self) -> Result<T, EventsEnded> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Result<T, EventsEnded>> {
        let mut waiting = lock(&self.waiting);
        if let Some(event) = waiting.pop() {
            return Poll::Ready(Ok(event));
        }
        if waiting.over {
            return Poll::Ready(Err(EventsEnded));
        }
        let former = waiting.waker.replace(cx.waker().clone());
        // It may be the last of a task that has a subscription itself.
        drop(waiting);
        drop(former);
        Poll::Pending
    }

    /// The next event, if one waits.
    pub fn try_recv(&mut self) -> Option<T> {
        lock(&self.waiting).pop()
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let Some(bus) = self.bus.upgrade() else { return };
        let mut all = lock(&bus.0);
        let others = all.iter().filter(|waiting| !Arc::ptr_eq(waiting, &self.waiting));
        let others = others.cloned().collect();
        let former = std::mem::replace(&mut *all, others);
        // What waited is dropped without the lock.
        drop(all);
        drop(former);
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
