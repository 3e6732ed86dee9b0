//! Events to many subscribers: who is slow learns how many it missed, and goes on.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// Something that can be told to many, and can say that some of it was missed.
pub trait Event: Clone + Send + 'static {
    /// Tells that this many events were missed.
    fn lagged(missed: u64) -> Self;

    /// Whether it is one of a stream of many, which are kept apart: a flood of them makes nobody
    /// miss the others.
    fn is_one_of_many(&self) -> bool {
        false
    }

    /// Bytes of memory that it keeps, where these may be many.
    fn bytes(&self) -> usize {
        0
    }
}

/// Events that wait for one subscriber, apart from those that are one of many.
pub const EVENTS_KEPT: usize = 512;
/// Events of which there are many, that wait for one subscriber.
pub const MANY_EVENTS_KEPT: usize = 2_048;
/// Bytes that events may keep that wait for one subscriber, of each of both kinds: contents of
/// event queues may be long, and many.
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
/// Telling never waits: a subscriber that has not taken its events when [`EVENTS_KEPT`] or, of
/// those of which there are many, [`MANY_EVENTS_KEPT`] newer ones came, or ones that keep more than
/// [`EVENT_BYTES_KEPT`] together, is told how many it missed.
/// Only events that wait take room: a subscriber that keeps up has little.
pub struct EventBus<T>(Arc<Bus<T>>);

/// All subscribers; a change makes a new list, so that nobody holds the lock while telling.
struct Bus<T>(Mutex<Arc<[Subscriber<T>]>>);

/// What waits for one of them, for both ends.
type Subscriber<T> = Arc<Mutex<Waiting<T>>>;

/// Events of one kind that wait, at most so many.
struct Ring<T> {
    events: VecDeque<T>,
    kept: usize,
    /// What they keep together.
    bytes: usize,
    /// Events that went unseen and were not told yet.
    missed: u64,
    /// Events that ever went unseen.
    lost: u64,
}

/// What waits for one subscriber.
struct Waiting<T> {
    name: Arc<str>,
    few: Ring<T>,
    many: Ring<T>,
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
        let waiting = Arc::new(Mutex::new(Waiting {
            name: name.into(),
            few: Ring::new(EVENTS_KEPT),
            many: Ring::new(MANY_EVENTS_KEPT),
            over: false,
            waker: None,
        }));
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
    let ring = if event.is_one_of_many() { &mut waiting.many } else { &mut waiting.few };
    ring.push(event);
    let waker = waiting.waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T> Ring<T> {
    const fn new(kept: usize) -> Self {
        Self { events: VecDeque::new(), kept, bytes: 0, missed: 0, lost: 0 }
    }
}

impl<T: Event> Ring<T> {
    /// Adds an event. The oldest make room for it; who asked for it is told how many they were.
    fn push(&mut self, event: T) {
        let bytes = event.bytes();
        if bytes > EVENT_BYTES_KEPT {
            self.miss();
            return;
        }
        while self.events.len() >= self.kept || self.bytes + bytes > EVENT_BYTES_KEPT {
            if self.take().is_none() {
                break;
            }
            self.miss();
        }
        self.bytes += bytes;
        self.events.push_back(event);
    }

    /// An event goes unseen.
    const fn miss(&mut self) {
        self.missed = self.missed.saturating_add(1);
        self.lost = self.lost.saturating_add(1);
    }

    /// The oldest event.
    fn take(&mut self) -> Option<T> {
        let event = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(event.bytes());
        Some(event)
    }

    fn pop(&mut self) -> Option<T> {
        if self.missed > 0 {
            return Some(T::lagged(std::mem::take(&mut self.missed)));
        }
        let event = self.take();
        if self.events.is_empty() && self.events.capacity() > ROOM_MAX {
            self.events.shrink_to(ROOM_LEFT);
        }
        event
    }
}

impl<T> Waiting<T> {
    /// What there is to say of the subscriber, if it missed any.
    fn laggard(&self) -> Option<Laggard> {
        let missed = self.few.lost.saturating_add(self.many.lost);
        let waiting = self.few.events.len() + self.many.events.len();
        (missed > 0).then(|| Laggard { name: Arc::clone(&self.name), missed, waiting })
    }
}

impl<T: Event> Waiting<T> {
    fn pop(&mut self) -> Option<T> {
        self.few.pop().or_else(|| self.many.pop())
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
    /// The next event. Those of which there are many come behind the others that wait; each kind
    /// comes in the order in which it was told.
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
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;

    #[derive(Clone, Debug, PartialEq)]
    enum Told {
        Number(u64),
        Fat(usize),
        Flood(u64),
        Lagged(u64),
    }

    impl Event for Told {
        fn lagged(missed: u64) -> Self {
            Self::Lagged(missed)
        }

        fn is_one_of_many(&self) -> bool {
            matches!(self, Self::Flood(_) | Self::Fat(_))
        }

        fn bytes(&self) -> usize {
            if let Self::Fat(bytes) = self { *bytes } else { 0 }
        }
    }

    fn now<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn each_subscriber_gets_each_event() {
        let bus = EventBus::new();
        bus.tell(Told::Number(0));
        let mut all = [bus.subscribe(), bus.subscribe()];
        bus.tell(Told::Number(1));
        for one in &mut all {
            assert_eq!(now(one.recv()), Some(Ok(Told::Number(1))));
            assert_eq!(now(one.recv()), None);
        }
    }

    #[test]
    fn who_is_slow_is_told_what_it_missed_and_goes_on() {
        let bus = EventBus::new();
        let mut slow = bus.subscribe();
        let told = EVENTS_KEPT as u64 + 10;
        (0..told).for_each(|number| bus.tell(Told::Number(number)));
        assert_eq!(now(slow.recv()), Some(Ok(Told::Lagged(10))));
        assert_eq!(now(slow.recv()), Some(Ok(Told::Number(10))));
        assert_eq!(slow.try_recv(), Some(Told::Number(11)));
    }

    #[test]
    fn a_flood_hides_nothing_else() {
        let bus = EventBus::new();
        let mut slow = bus.subscribe();
        bus.tell(Told::Number(7));
        (0..MANY_EVENTS_KEPT as u64 * 2).for_each(|number| bus.tell(Told::Flood(number)));
        assert_eq!(now(slow.recv()), Some(Ok(Told::Number(7))));
        assert_eq!(now(slow.recv()), Some(Ok(Told::Lagged(MANY_EVENTS_KEPT as u64))));
    }

    #[test]
    fn long_events_wait_by_their_bytes() {
        let bus = EventBus::new();
        let mut slow = bus.subscribe();
        let fat = |bytes| Told::Fat(bytes);
        let bytes = |slow: &Subscription<Told>| lock(&slow.waiting).many.bytes;
        bus.tell(fat(EVENT_BYTES_KEPT + 1));
        assert_eq!(bytes(&slow), 0, "it alone is more than what is kept");
        for _ in 0..100 {
            bus.tell(fat(EVENT_BYTES_KEPT / 4));
            assert!(bytes(&slow) <= EVENT_BYTES_KEPT);
        }
        bus.tell(Told::Flood(7));
        assert_eq!(now(slow.recv()), Some(Ok(Told::Lagged(97))));
        for _ in 0..4 {
            assert_eq!(now(slow.recv()), Some(Ok(fat(EVENT_BYTES_KEPT / 4))));
        }
        assert_eq!(now(slow.recv()), Some(Ok(Told::Flood(7))));
        assert_eq!(bytes(&slow), 0);
        bus.tell(fat(EVENT_BYTES_KEPT));
        assert_eq!(now(slow.recv()), Some(Ok(fat(EVENT_BYTES_KEPT))));
    }

    #[test]
    fn what_was_told_before_the_end_comes_before_it() {
        let bus = EventBus::new();
        let mut late = bus.subscribe();
        bus.tell(Told::Flood(1));
        bus.tell(Told::Number(2));
        drop(bus);
        assert_eq!(now(late.recv()), Some(Ok(Told::Number(2))));
        assert_eq!(now(late.recv()), Some(Ok(Told::Flood(1))));
        assert_eq!(now(late.recv()), Some(Err(EventsEnded)));
    }

    #[test]
    fn who_waits_is_woken_by_an_event_and_by_the_end() {
        struct Count(std::sync::atomic::AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let bus = EventBus::new();
        let mut waits = bus.subscribe();
        let count = Arc::new(Count(std::sync::atomic::AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let poll = |waits: &mut Subscription<Told>| {
            pin!(waits.recv()).poll(&mut Context::from_waker(&waker)).map(Result::ok)
        };
        let woken = || count.0.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(poll(&mut waits), Poll::Pending);
        bus.tell(Told::Number(1));
        bus.tell(Told::Number(2));
        assert_eq!(woken(), 1);
        for number in [1, 2] {
            assert_eq!(poll(&mut waits), Poll::Ready(Some(Told::Number(number))));
        }
        assert_eq!(poll(&mut waits), Poll::Pending);
        drop(bus);
        assert_eq!((woken(), poll(&mut waits)), (2, Poll::Ready(None)));
    }

    #[test]
    fn room_is_taken_by_what_waits_and_given_back() {
        let bus = EventBus::new();
        let mut slow = bus.subscribe();
        let room = |slow: &Subscription<Told>| lock(&slow.waiting).many.events.capacity();
        assert_eq!(room(&slow), 0, "nothing waits");
        (0..10_000).for_each(|number| bus.tell(Told::Flood(number)));
        assert!((MANY_EVENTS_KEPT..2 * MANY_EVENTS_KEPT).contains(&room(&slow)));
        while slow.try_recv().is_some() {}
        assert!(room(&slow) <= ROOM_MAX);
    }

    #[test]
    fn who_lags_is_named() {
        let bus = EventBus::new();
        let [mut slow, mut quick] = ["slow", "quick"].map(|name| bus.subscribe_named(name));
        let nameless = bus.subscribe();
        let told = EVENTS_KEPT as u64 + 3;
        for number in 0..told {
            bus.tell(Told::Number(number));
            assert_eq!(quick.try_recv(), Some(Told::Number(number)));
        }
        let laggards = bus.laggards();
        let shown: Vec<_> =
            laggards.iter().map(|one| (&*one.name, one.missed, one.waiting)).collect();
        assert_eq!(shown[0], ("slow", 3, EVENTS_KEPT));
        assert!(shown[1].0.contains("bus.rs:"), "{shown:?}");
        assert_eq!(shown.len(), 2);
        // Who learned of it and goes on has lagged all the same; who went is none.
        while slow.try_recv().is_some() {}
        drop(nameless);
        let [left] = bus.laggards().try_into().unwrap();
        assert_eq!((&*left.name, left.missed, left.waiting), ("slow", 3, 0));
    }

    #[test]
    fn who_goes_listens_no_more() {
        let bus = EventBus::<Told>::new();
        let [one, other] = [bus.subscribe(), bus.subscribe()];
        drop(one);
        assert_eq!(bus.listeners(), 1);
        drop(other);
        assert_eq!(bus.listeners(), 0);
    }
}
