//! Events to many subscribers: who is slow learns how many it missed, and goes on.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError as Missed, TryRecvError};

/// Something that can be told to many, and can say that some of it was missed.
pub trait Event: Clone + Send + 'static {
    /// Tells that this many events were missed.
    fn lagged(missed: u64) -> Self;

    /// Whether it is one of a stream of many, which are kept apart: a flood of them makes nobody
    /// miss the others.
    fn is_one_of_many(&self) -> bool {
        false
    }
}

/// Events that wait for one subscriber, apart from those that are one of many.
pub const EVENTS_KEPT: usize = 512;
/// Events of which there are many, that wait for one subscriber.
pub const MANY_EVENTS_KEPT: usize = 2_048;

/// There will be no more events: who sent them is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there will be no more events: the client is gone")]
pub struct EventsEnded;

/// Tells events to all who subscribed. Clones are the same bus.
///
/// Telling never waits: a subscriber that has not taken its events when [`EVENTS_KEPT`] or, of
/// those of which there are many, [`MANY_EVENTS_KEPT`] newer ones came is told how many it missed.
pub struct EventBus<T> {
    few: broadcast::Sender<T>,
    many: broadcast::Sender<T>,
}

impl<T: Event> EventBus<T> {
    /// A bus that nobody listens to.
    pub fn new() -> Self {
        Self {
            few: broadcast::Sender::new(EVENTS_KEPT),
            many: broadcast::Sender::new(MANY_EVENTS_KEPT),
        }
    }

    /// Listens to everything that is told from now on.
    pub fn subscribe(&self) -> Subscription<T> {
        Subscription { few: Some(self.few.subscribe()), many: Some(self.many.subscribe()) }
    }

    /// Tells an event.
    pub fn tell(&self, event: T) {
        let to = if event.is_one_of_many() { &self.many } else { &self.few };
        // Nobody may be listening.
        drop(to.send(event));
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.few.receiver_count()
    }
}

impl<T: Event> Default for EventBus<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for EventBus<T> {
    fn clone(&self) -> Self {
        Self { few: self.few.clone(), many: self.many.clone() }
    }
}

impl<T> fmt::Debug for EventBus<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("listeners", &self.few.receiver_count()).finish()
    }
}

/// What one ring has next; one that is over has nothing, ever.
async fn recv<T: Event>(receiver: Option<&mut broadcast::Receiver<T>>) -> Result<T, Missed> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => pending().await,
    }
}

/// One subscriber's events.
pub struct Subscription<T> {
    /// `None` once its sender is gone.
    few: Option<broadcast::Receiver<T>>,
    many: Option<broadcast::Receiver<T>>,
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
        loop {
            if self.few.is_none() && self.many.is_none() {
                return Err(EventsEnded);
            }
            let got = {
                let mut few = pin!(recv(self.few.as_mut()));
                let mut many = pin!(recv(self.many.as_mut()));
                let either = poll_fn(|cx| match few.as_mut().poll(cx) {
                    Poll::Ready(got) => Poll::Ready((got, true)),
                    Poll::Pending => many.as_mut().poll(cx).map(|got| (got, false)),
                });
                either.await
            };
            match got {
                (Ok(event), _) => return Ok(event),
                (Err(Missed::Lagged(missed)), _) => return Ok(T::lagged(missed)),
                (Err(Missed::Closed), true) => self.few = None,
                (Err(Missed::Closed), false) => self.many = None,
            }
        }
    }

    /// The next event, if one waits.
    pub fn try_recv(&mut self) -> Option<T> {
        for receiver in [&mut self.few, &mut self.many].into_iter().flatten() {
            match receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(missed)) => return Some(T::lagged(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => {}
            }
        }
        None
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
    use std::task::{Context, Waker};

    #[derive(Clone, Debug, PartialEq)]
    enum Told {
        Number(u64),
        Flood(u64),
        Lagged(u64),
    }

    impl Event for Told {
        fn lagged(missed: u64) -> Self {
            Self::Lagged(missed)
        }

        fn is_one_of_many(&self) -> bool {
            matches!(self, Self::Flood(_))
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
}
