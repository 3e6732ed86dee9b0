//! What subscribers get, however slow they are.

use std::future::Future;
use std::pin::pin;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Told {
    /// A change of state.
    Number(u64),
    /// Something of any degree.
    Of(Degree, u64),
    Fat(usize),
    Flood(u64),
    Lagged(u64),
}

impl Event for Told {
    fn lagged(missed: u64) -> Self {
        Self::Lagged(missed)
    }

    fn degree(&self) -> Degree {
        match self {
            Self::Number(_) => Degree::State,
            Self::Of(degree, _) => *degree,
            Self::Flood(_) | Self::Fat(_) | Self::Lagged(_) => Degree::Traffic,
        }
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
fn where_room_is_short_the_least_goes_first_and_order_stays() {
    let bus = EventBus::new();
    let mut slow = bus.subscribe();
    let of = |degree, count: usize, first: u64| {
        (0..count as u64).for_each(|number| bus.tell(Told::Of(degree, first + number)));
    };
    of(Degree::Report, 2, 0);
    of(Degree::Traffic, EVENTS_KEPT, 10);
    of(Degree::State, 1, 1);
    of(Degree::Outcome, 1, 2);
    assert_eq!(now(slow.recv()), Some(Ok(Told::Of(Degree::Report, 0))));
    assert_eq!(now(slow.recv()), Some(Ok(Told::Of(Degree::Report, 1))));
    assert_eq!(now(slow.recv()), Some(Ok(Told::Lagged(4))), "what is missing has its place");
    assert_eq!(now(slow.recv()), Some(Ok(Told::Of(Degree::Traffic, 14))));
    // Nothing that is worth more makes room: what is new goes itself.
    while slow.try_recv().is_some() {}
    of(Degree::Outcome, EVENTS_KEPT, 0);
    of(Degree::Traffic, 3, 0);
    of(Degree::Report, 1, 0);
    of(Degree::State, 1, 0);
    let kept: Vec<Told> = std::iter::from_fn(|| slow.try_recv()).collect();
    assert_eq!(kept[0], Told::Of(Degree::Outcome, 1));
    assert_eq!(kept[EVENTS_KEPT - 1..], [Told::Lagged(5), Told::Of(Degree::State, 0)]);
}

#[test]
fn long_events_wait_by_their_bytes() {
    let bus = EventBus::new();
    let mut slow = bus.subscribe();
    let fat = |bytes| Told::Fat(bytes);
    let bytes = |slow: &Subscription<Told>| lock(&slow.waiting).bytes;
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
    assert_eq!(now(late.recv()), Some(Ok(Told::Flood(1))));
    assert_eq!(now(late.recv()), Some(Ok(Told::Number(2))));
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
    let room = |slow: &Subscription<Told>| lock(&slow.waiting).rings[0].capacity();
    assert_eq!(room(&slow), 0, "nothing waits");
    (0..10_000).for_each(|number| bus.tell(Told::Flood(number)));
    assert!((EVENTS_KEPT..2 * EVENTS_KEPT).contains(&room(&slow)));
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
    let shown: Vec<_> = laggards.iter().map(|one| (&*one.name, one.missed, one.waiting)).collect();
    assert_eq!(shown[0], ("slow", 3, EVENTS_KEPT));
    assert!(shown[1].0.contains("tests.rs:"), "{shown:?}");
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

/// The obvious way to keep events: one list, looked through each time.
#[derive(Default)]
struct Slow {
    kept: Vec<(u64, Told)>,
    told: u64,
    /// Numbers that went and were not told yet.
    missed: Vec<u64>,
}

impl Slow {
    fn tell(&mut self, event: Told) {
        let number = self.told;
        self.told += 1;
        let (degree, bytes) = (event.degree(), event.bytes());
        self.kept.push((number, event));
        let is_full = |kept: &[(u64, Told)]| {
            let all: usize = kept.iter().map(|(_, event)| event.bytes()).sum();
            kept.len() > EVENTS_KEPT || all > EVENT_BYTES_KEPT
        };
        while is_full(&self.kept) {
            let goes = if bytes > EVENT_BYTES_KEPT {
                None
            } else {
                let older = self.kept.iter().filter(|(other, _)| *other < number);
                let least = older.map(|(number, event)| (event.degree(), *number)).min();
                least.filter(|(least, _)| *least <= degree).map(|(_, number)| number)
            };
            let goes = goes.unwrap_or(number);
            self.kept.retain(|(number, _)| *number != goes);
            self.missed.push(goes);
        }
    }

    fn take(&mut self) -> Option<Told> {
        let last = self.missed.iter().max().copied();
        let first = self.kept.first().map(|(number, _)| *number);
        if last.is_some_and(|last| first.is_none_or(|first| first > last)) {
            return Some(Told::Lagged(std::mem::take(&mut self.missed).len() as u64));
        }
        (!self.kept.is_empty()).then(|| self.kept.remove(0).1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn what_is_kept_and_told_is_what_a_list_would_keep_and_tell(
        turns in proptest::collection::vec((0_usize..6, 1_usize..1_200, 0_usize..400), 1..7)
    ) {
        let (bus, mut slow) = (EventBus::new(), Slow::default());
        let mut subscriber = bus.subscribe();
        let (mut told, mut got) = (0, 0);
        let degrees = [Degree::Traffic, Degree::Report, Degree::Outcome, Degree::State];
        for (kind, count, takes) in turns {
            for _ in 0..count {
                let event = match degrees.get(kind) {
                    Some(degree) => Told::Of(*degree, told),
                    // Of any length, some too long, and not so many.
                    None => Told::Fat(count * 15_000),
                };
                told += 1;
                bus.tell(event.clone());
                slow.tell(event);
            }
            for _ in 0..takes {
                let event = subscriber.try_recv();
                prop_assert_eq!(&event, &slow.take());
                got += match event {
                    Some(Told::Lagged(missed)) => missed,
                    event => u64::from(event.is_some()),
                };
            }
        }
        while let Some(event) = subscriber.try_recv() {
            let wanted = slow.take();
            prop_assert_eq!(Some(&event), wanted.as_ref());
            got += if let Told::Lagged(missed) = event { missed } else { 1 };
        }
        prop_assert_eq!(got, told, "each is told or counted once");
    }
}
