//! Topics on streams and what carries these, moved on by whoever has them: a thread of the user's or
//! of the road's, or a simulation.
//!
//! //= hub 9.7

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::shm::{Room, Taken};

use super::open::Told;
use super::topic::{LogFull, Topic};
use crate::effect::SettingReport;
use crate::road::More;

/// Looks at streams between two at everything: connections that come, that end, time.
const LOOKS_PER_TURN: u32 = 256;
/// Messages are a burst where so little passes between the end of publishing one and the next call. What
/// publishing itself takes, or waiting for the lock, is no pause of the publisher's.
const BURST_GAP: Duration = Duration::from_micros(5);
/// Messages of a burst that leave one by one, before the burst is taken for one.
const BURST_FIRST: u32 = 16;
/// Bytes that are written at once in a burst.
const BURST_BYTES: usize = 64 << 10;
/// Tasks that wait for one hub's messages at a time; more than one is unusual.
const WAKERS_MAX: usize = 64;

/// What carries the streams of some topics.
pub(crate) trait Carrier {
    /// Reads and writes the streams that are up: as little work as finds a message.
    fn look(&mut self, now: Timestamp, seats: &mut Seats);

    /// Does everything that can be done now.
    fn turn(&mut self, now: Timestamp, seats: &mut Seats);

    /// Writes what a topic has to say.
    fn pump(&mut self, now: Timestamp, seats: &mut Seats, seat: usize);

    /// When [`turn`](Self::turn) has something to do though nothing came.
    fn poll_timeout(&self) -> Timestamp;

    /// Somebody is about to sleep until something comes: false where something has, and nobody would be
    /// woken. A kernel knows by itself who sleeps.
    fn arm(&mut self) -> bool {
        true
    }

    /// When it has something to do because of what was written: to send it again, or the rest of it. A
    /// kernel does that by itself.
    fn urgent_at(&self) -> Timestamp {
        Timestamp::NEVER
    }

    /// Whether all streams of a topic have ended.
    fn is_silent(&self, seat: usize) -> bool;

    /// A topic is left: what it had is closed.
    fn vacate(&mut self, seats: &mut Seats, seat: usize);

    /// The last topic was left: others may have the address.
    fn close(&mut self);

    /// It connects to nobody any more; the streams that it has live on.
    fn hang_up(&mut self) {}

    /// What became of the settings of its sockets.
    fn settings(&self) -> Vec<SettingReport> {
        Vec::new()
    }

    /// Who was met last by a connector of one topic.
    fn last_peer(&self) -> Option<[u8; 16]> {
        None
    }

    /// Whom a connector of one topic goes on with.
    fn set_last_peer(&mut self, _id: [u8; 16]) {}

    /// What the first answer to a connector was, for a topic.
    fn told(&self, _seat: usize) -> Option<Told> {
        None
    }
}

/// Descriptors that threads sleep on.
pub(crate) struct Bells {
    /// Readable with the next message, for who asked for that.
    pub(crate) news: Arc<OwnedFd>,
    /// Readable when there may be room, for a publisher that waits.
    pub(crate) room: Arc<OwnedFd>,
}

/// How messages of a burst are gathered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    /// Messages that are written at once at most.
    pub(crate) batch_size: u32,
    /// How long the first of them waits at most.
    pub(crate) flush_interval: Duration,
}

/// One topic and who waits for it.
pub(crate) struct Seat {
    pub(crate) topic: Topic,
    /// `None` in a simulation, where nobody sleeps.
    bells: Option<Bells>,
    pub(crate) is_armed: bool,
    pub(crate) is_sleeping: bool,
    pub(crate) is_waiting_for_room: bool,
    wakers: Vec<Waker>,
    /// Messages came since the last announcement.
    pub(crate) has_news: bool,
    /// Since when messages are queued and not written.
    queued_at: Option<Timestamp>,
    queued: u32,
    queued_bytes: usize,
    /// When publishing a message ended last.
    left_at: Timestamp,
    streak: u32,
}

impl Seat {
    fn new(topic: Topic, bells: Option<Bells>) -> Self {
        Self {
            topic,
            bells,
            is_armed: false,
            is_sleeping: false,
            is_waiting_for_room: false,
            wakers: Vec::with_capacity(4),
            has_news: false,
            queued_at: None,
            queued: 0,
            queued_bytes: 0,
            left_at: Timestamp::START,
            streak: 0,
        }
    }

    /// Leaves a waker for the next message.
    pub(crate) fn leave(&mut self, waker: &Waker) {
        if self.wakers.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        if self.wakers.len() >= WAKERS_MAX {
            // The oldest looks again, and waits anew if it still does.
            self.wakers.remove(0).wake();
        }
        self.wakers.push(waker.clone());
    }

    /// Tells who waits for messages or room; not the thread of this seat's receiver itself.
    fn announce(&mut self, is_own: bool) {
        if let Some(bells) = &self.bells
            && self.is_waiting_for_room
        {
            ring(&bells.room);
        }
        if !std::mem::take(&mut self.has_news) {
            return;
        }
        if self.is_armed || (self.is_sleeping && !is_own) {
            self.is_armed = false;
            if let Some(bells) = &self.bells {
                ring(&bells.news);
            }
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

pub(super) fn ring(bell: &OwnedFd) {
    // A bell that cannot be rung rings already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
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

    /// Tells who waits; not the thread of the receiver of the seat `own` itself.
    fn announce(&mut self, own: Option<usize>) {
        for (index, seat) in self.each() {
            seat.announce(own == Some(index));
        }
    }
}

/// A carrier and its topics.
pub(crate) struct Core<C> {
    pub(crate) carrier: C,
    pub(crate) seats: Seats,
    /// Looks at streams so far.
    looks: u32,
    /// The last topic was left: nobody may join any more.
    is_closed: bool,
}

impl<C: Carrier> Core<C> {
    pub(crate) fn new(carrier: C) -> Self {
        Self { carrier, seats: Seats::default(), looks: 0, is_closed: false }
    }

    /// Adds a topic and gives its seat; gives the topic back where the last one has left.
    pub(crate) fn join(&mut self, topic: Topic, bells: Option<Bells>) -> Result<usize, Box<Topic>> {
        if self.is_closed {
            return Err(Box::new(topic));
        }
        Ok(self.seats.add(Seat::new(topic, bells)))
    }

    /// Does everything that can be done now, and tells who waits.
    pub(crate) fn turn(&mut self, now: Timestamp) {
        self.carrier.turn(now, &mut self.seats);
        self.seats.announce(None);
    }

    /// As little work as finds a message of the seat `own`.
    pub(crate) fn look(&mut self, now: Timestamp, own: usize) {
        let Self { carrier, seats, .. } = self;
        if seats.get(own).is_some_and(|seat| !seat.topic.has_messages()) {
            carrier.look(now, seats);
        }
    }

    /// Tells who waits; not the thread of the receiver of the seat `own` itself.
    pub(crate) fn announce(&mut self, own: Option<usize>) {
        self.seats.announce(own);
    }

    /// When there is something to do though nothing comes, for who is about to sleep until then.
    pub(crate) fn poll_timeout(&mut self) -> Timestamp {
        if !self.carrier.arm() {
            return Timestamp::START;
        }
        let topics = self.seats.each().map(|(_, seat)| seat.topic.poll_timeout()).min();
        self.carrier.poll_timeout().min(topics.unwrap_or(Timestamp::NEVER))
    }

    /// When something is due that whoever sleeps on the sockets may not know of: publishing made it so.
    pub(crate) fn urgent_at(&mut self) -> Timestamp {
        let tails = self.seats.each().map(|(_, seat)| seat.topic.tail_at()).min();
        self.carrier.urgent_at().min(tails.unwrap_or(Timestamp::NEVER))
    }

    /// Publishes where there is room; `None` where the topic was left.
    pub(crate) fn publish(&mut self, seat: usize, bytes: &[u8]) -> Option<Result<u64, LogFull>> {
        Some(self.seats.get(seat)?.topic.publish(bytes))
    }

    /// A message of so many bytes was published, by a call that began at `called_at`: writes now, or leaves
    /// it to the end of the burst. True where somebody has to see to it that it leaves in time.
    pub(crate) fn settle(
        &mut self,
        clock: impl Fn() -> Timestamp,
        index: usize,
        (called_at, bytes, more): (Timestamp, usize, More),
        gathering: Gathering,
    ) -> bool {
        let Some(seat) = self.seats.get(index) else { return false };
        let is_close = called_at.since(seat.left_at) < BURST_GAP;
        let mut now = clock();
        seat.streak = if is_close { seat.streak.saturating_add(1) } else { 0 };
        seat.queued += 1;
        seat.queued_bytes += bytes;
        let since = *seat.queued_at.get_or_insert(now);
        let is_queued = (more == More::Follows || seat.streak >= BURST_FIRST)
            && seat.queued < gathering.batch_size
            && seat.queued_bytes < BURST_BYTES
            && now < since.after(gathering.flush_interval);
        if !is_queued {
            self.flush(now, index);
            now = clock();
        }
        if let Some(seat) = self.seats.get(index) {
            seat.left_at = now;
        }
        is_queued && more == More::Unknown
    }

    /// Writes what is queued.
    pub(crate) fn flush(&mut self, now: Timestamp, index: usize) {
        if let Some(seat) = self.seats.get(index) {
            (seat.queued_at, seat.queued, seat.queued_bytes) = (None, 0, 0);
        }
        self.carrier.pump(now, &mut self.seats, index);
    }

    /// Writes what has been queued for long; true when something was queued.
    pub(crate) fn flush_late(&mut self, now: Timestamp) -> bool {
        let mut was_queued = false;
        for index in 0..self.seats.seats.len() {
            if self.seats.get(index).is_some_and(|seat| seat.queued_at.is_some()) {
                self.flush(now, index);
                was_queued = true;
            }
        }
        self.seats.announce(None);
        was_queued
    }

    /// Takes a message, and looks for one where none is here; `clock` is asked only then, and what it
    /// said comes back.
    pub(crate) fn take(
        &mut self,
        clock: impl Fn() -> Timestamp,
        index: usize,
        room: &mut dyn Room,
    ) -> (Option<Taken>, Option<Timestamp>) {
        let mut looked_at = None;
        let Some(seat) = self.seats.get(index) else { return (None, None) };
        if !seat.topic.has_messages() {
            let now = clock();
            if seat.queued_at.is_some() {
                // Who publishes and then waits for an answer has ended its burst.
                self.flush(now, index);
            }
            self.looks = self.looks.wrapping_add(1);
            if self.looks.is_multiple_of(LOOKS_PER_TURN) {
                self.carrier.turn(now, &mut self.seats);
            } else {
                self.carrier.look(now, &mut self.seats);
            }
            self.seats.announce(Some(index));
            looked_at = Some(now);
        }
        let Some(seat) = self.seats.get(index) else { return (None, looked_at) };
        let taken = seat.topic.take(room);
        if seat.topic.take_words() {
            self.carrier.pump(clock(), &mut self.seats, index);
        }
        (taken, looked_at)
    }

    /// Begins to leave a topic: its last words are written.
    pub(crate) fn leave(&mut self, now: Timestamp, index: usize) {
        if let Some(topic) = self.seats.topic(index) {
            topic.leave();
        }
        self.flush(now, index);
    }

    /// Whether all streams of a topic that is left have ended, and on a reliable one all was delivered.
    pub(crate) fn has_left(&mut self, index: usize) -> bool {
        let topic = self.seats.topic(index);
        let is_delivered =
            topic.is_none_or(|topic| !topic.config().is_reliable || topic.is_delivered());
        self.carrier.is_silent(index) && is_delivered
    }

    /// Closes what a topic still has. True for the last one: the core is of no more use then.
    pub(crate) fn vacate(&mut self, index: usize) -> bool {
        self.carrier.vacate(&mut self.seats, index);
        if let Some(place) = self.seats.seats.get_mut(index) {
            *place = None;
        }
        self.is_closed = self.seats.seats.iter().all(Option::is_none);
        if self.is_closed {
            self.carrier.close();
        }
        self.is_closed
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::super::testing::Setup;
    use super::*;
    use crate::report::Compression;

    /// A carrier that takes its time to write, and counts how often it does.
    struct Slow {
        now: Rc<Cell<Timestamp>>,
        pumps: u32,
    }

    impl Carrier for Slow {
        fn look(&mut self, _: Timestamp, _: &mut Seats) {}

        fn turn(&mut self, _: Timestamp, _: &mut Seats) {}

        fn pump(&mut self, _: Timestamp, _: &mut Seats, _: usize) {
            self.now.set(self.now.get().after(2 * BURST_GAP));
            self.pumps += 1;
        }

        fn poll_timeout(&self) -> Timestamp {
            Timestamp::NEVER
        }

        fn is_silent(&self, _: usize) -> bool {
            true
        }

        fn vacate(&mut self, _: &mut Seats, _: usize) {}

        fn close(&mut self) {}
    }

    #[test]
    fn a_burst_gathers_whatever_writing_and_waiting_for_the_lock_take() {
        let start = Timestamp::START.after(Duration::from_secs(1));
        let now = Rc::new(Cell::new(start));
        let mut core = Core::new(Slow { now: Rc::clone(&now), pumps: 0 });
        let setup = Setup {
            id: 1,
            is_reliable: false,
            depth: 64,
            history: 0,
            longest: 100,
            compression: Compression::None,
        };
        let seat = core.join(setup.topic(), None).ok().unwrap();
        let gathering = Gathering { batch_size: 100, flush_interval: Duration::from_millis(1) };
        let mut publish = || {
            let called_at = now.get();
            // The lock is waited for.
            now.set(called_at.after(2 * BURST_GAP));
            core.settle(|| now.get(), seat, (called_at, 8, More::Unknown), gathering)
        };
        for number in 0..=BURST_FIRST {
            assert_eq!(publish(), number == BURST_FIRST, "message {number}");
        }
        assert!(publish(), "it waits for company too");
        now.set(now.get().after(BURST_GAP));
        assert!(!publish(), "the publisher paused");
        assert_eq!(core.carrier.pumps, BURST_FIRST + 1);
    }
}
