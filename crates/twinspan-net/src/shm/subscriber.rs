//! The receiving side of a participant: it reads the rings of all publishers, each in order, and
//! believes nothing that stands in them.
#![expect(unsafe_code, reason = "blocks that are held are slices of shared memory")]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use twinspan_core::taken::{Room, Taken};

use super::greet::Policy;
use super::join::Keeping;
use super::layout::{ASKS_AT, Content, HOLDS_AT, HOLDS_MAX, NAP_AT, SUBSCRIBER_WORDS, WAITING_AT};
use super::line::{self, Look, Slot};
use super::map::{Seen, Segment};
use super::meet;
use super::shared::{Shared, WriterPeer};
use super::sleeper::{SleepWords, Sleeper};
use super::wait::{self, Wait};

/// The place among the holds that copies of long messages use.
const COPY_PLACE: usize = HOLDS_MAX - 1;
/// Messages skipped at a time: a publisher that makes up states cannot keep its reader busy.
const SKIPS_MAX: usize = 64;

/// What a hold says: the lane of the publisher, and the number of the message.
pub(super) const fn hold_mark(lane: usize, number: u64) -> u64 {
    ((lane as u64 & 0x7f) + 1) << 56 | (number & 0x00ff_ffff_ffff_ffff)
}

/// What a subscriber did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriberStats {
    /// Messages taken.
    pub taken: u64,
    /// Messages missed because they were overwritten first, or their publisher took them back.
    pub lost: u64,
    /// Messages that no publisher of this version writes, or longer than this side takes: skipped.
    pub corrupt: u64,
    /// Times that it slept.
    pub naps: u64,
}

/// A message, copied or held.
#[derive(Debug)]
pub enum Got {
    /// It was copied to the room.
    Copied(Taken),
    /// It is long, and lies where its publisher wrote it.
    Held(Taken, Held),
}

/// All places for holds are taken by samples that live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{COPY_PLACE} samples are held already, the most that one handle can: drop some")]
pub struct TooManyHeld;

/// The places for holds in a subscriber's segment.
fn places(segment: &Segment) -> &[AtomicU64] {
    segment.words(SUBSCRIBER_WORDS).get(HOLDS_AT..HOLDS_AT + HOLDS_MAX).unwrap_or_default()
}

/// A place that no sample has; the subscriber alone takes one. The acquire pairs with the release of
/// [`line::release`], by whichever thread had the sample.
fn free_place(segment: &Segment) -> Option<usize> {
    let mut places = places(segment).iter().take(COPY_PLACE);
    places.position(|place| place.load(Ordering::Acquire) == 0)
}

/// What samples of one publisher keep alive, all in one: to count references takes its time.
struct Source {
    writer: Arc<WriterPeer>,
    keeping: Arc<Keeping>,
    /// The segment with our holds.
    segment: Arc<Segment>,
}

/// A long message that its publisher keeps for as long as this lives.
pub struct Held {
    source: Arc<Source>,
    place: usize,
    offset: usize,
    length: usize,
}

impl Held {
    /// The message. A publisher of the same user that breaks the protocol can change it while it is
    /// looked at: plain data, of which any value is good.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the hold was confirmed, so a publisher that keeps to the protocol does not write
        // to the block before it ends, which it does in `drop`.
        unsafe { self.source.writer.view.slice(self.offset, self.length) }.unwrap_or_default()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Source { writer, keeping, segment } = &*self.source;
        if let Some(place) = places(segment).get(self.place) {
            line::release(place);
        }
        // The barrier orders the release before the look at who waits for it.
        keeping.shared.barrier.light();
        if waiting(writer.words()) != 0 {
            meet::ring(&writer.bell);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("len", &self.length).finish_non_exhaustive()
    }
}

/// The words of a subscriber's own segment that say how it sleeps.
fn sleep_words(segment: &Segment) -> Option<SleepWords<'_, AtomicU64>> {
    let words = segment.words(SUBSCRIBER_WORDS);
    Some(SleepWords { nap: words.get(NAP_AT)?, asks: words.get(ASKS_AT)? })
}

fn waiting(words: &[Seen]) -> u64 {
    words.get(WAITING_AT).map_or(0, |word| word.load(Ordering::Relaxed))
}

/// One publisher.
struct Lane {
    writer: Arc<WriterPeer>,
    source: Arc<Source>,
    next: u64,
    /// The cursor as it was told last.
    told: u64,
    /// The wait of the publisher that it was woken from last.
    rung: u64,
    /// Messages missed since the last one that was taken.
    lost: u64,
}

/// How taking from one publisher ended.
enum Outcome<T> {
    None,
    Some(T),
    Full,
}

/// The receiving side of a participant.
pub struct Subscriber {
    shared: Arc<Shared>,
    keeping: Arc<Keeping>,
    message_bytes_max: usize,
    segment: Arc<Segment>,
    wait: Wait,
    lanes: Vec<Lane>,
    /// Room for the list of publishers while it is looked at.
    copies: Vec<Arc<WriterPeer>>,
    seen: u64,
    /// The lane that is looked at first.
    turn: usize,
    sleeper: Sleeper,
    /// The bell may have been rung since it was quieted last.
    may_ring: bool,
    stats: SubscriberStats,
}

impl Subscriber {
    pub(super) fn new(keeping: Arc<Keeping>, wait: Wait, message_bytes_max: usize) -> Option<Self> {
        let shared = Arc::clone(&keeping.shared);
        let segment = shared.inbox.clone()?;
        Some(Self {
            shared,
            keeping,
            message_bytes_max,
            segment,
            wait,
            lanes: Vec::new(),
            copies: Vec::new(),
            seen: 0,
            turn: 0,
            sleeper: Sleeper::new(),
            may_ring: false,
            stats: SubscriberStats::default(),
        })
    }

    /// What was done so far.
    pub const fn stats(&self) -> SubscriberStats {
        self.stats
    }

    #[cfg(test)]
    pub(super) fn raw_words(&self) -> &[AtomicU64] {
        self.segment.words(SUBSCRIBER_WORDS)
    }

    /// Takes a message, without waiting: each publisher's in order, publishers in turn.
    #[inline]
    pub fn try_take(&mut self, room: &mut impl Room) -> Option<Taken> {
        match self.poll(room, false) {
            Outcome::Some(Got::Copied(taken)) => Some(taken),
            // Nothing is held when it is not asked for.
            _ => None,
        }
    }

    /// The same, but a long message is left where it is.
    ///
    /// # Errors
    /// [`TooManyHeld`] when it would have to be held and all places are taken.
    pub fn try_get(&mut self, room: &mut impl Room) -> Result<Option<Got>, TooManyHeld> {
        match self.poll(room, true) {
            Outcome::Some(got) => Ok(Some(got)),
            Outcome::None => Ok(None),
            Outcome::Full => Err(TooManyHeld),
        }
    }

    /// Takes a message; waits for one until the deadline, for ever without one.
    pub fn take(&mut self, room: &mut impl Room, deadline: Option<Instant>) -> Option<Taken> {
        self.wait_for(deadline, |this| this.try_take(room))
    }

    /// Looks until something is found; waits in between, until the deadline, for ever without one.
    pub fn wait_for<R>(
        &mut self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut Self) -> Option<R>,
    ) -> Option<R> {
        loop {
            let limit = match self.wait {
                Wait::Spin => None,
                Wait::Adaptive => Some(wait::spin_limit()),
                Wait::Block => Some(Duration::ZERO),
            };
            if let Some(found) = wait::spin(limit, deadline, || look(self)) {
                return Some(found);
            }
            let left = match deadline {
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return None,
                },
                None => None,
            };
            if let Some(found) = self.nap(left, &mut look) {
                return Some(found);
            }
        }
    }

    /// Sleeps, unless something is found after it was said that we do.
    fn nap<R>(
        &mut self,
        left: Option<Duration>,
        look: &mut impl FnMut(&mut Self) -> Option<R>,
    ) -> Option<R> {
        // Rings for an earlier sleep: taken away only now, for who was woken first looks what for.
        if self.may_ring {
            meet::quiet(&self.shared.bell);
        }
        let tasks = if self.shared.has_tasks() { 2 } else { 0 };
        self.say_nap(1 | tasks);
        self.may_ring = true;
        let mut found = look(self);
        if found.is_none() {
            self.stats.naps += 1;
            let longest = self.shared.barrier.nap_max();
            let left = left.map_or(longest, |left| Some(longest.map_or(left, |max| max.min(left))));
            wait::sleep_on(self.shared.bell.as_fd(), left);
            found = look(self);
        }
        // Tasks that wait are still to be woken.
        if let Some(words) = sleep_words(&self.segment) {
            self.sleeper.say_awake(&words, tasks);
        }
        found
    }

    /// Says that we sleep: bit 0 for the bell, bit 1 for the one of tasks.
    fn say_nap(&mut self, how: u64) {
        let Some(words) = sleep_words(&self.segment) else { return };
        let barrier = self.shared.barrier;
        self.sleeper.say(&words, how, self.stats.taken, || barrier.heavy());
    }

    /// Publishers were asked for fences, for sleeps that there are not any more.
    #[cold]
    fn ask_no_more(&mut self) {
        if let Some(words) = sleep_words(&self.segment) {
            self.sleeper.ask_no_more(&words);
        }
    }

    /// Leaves a waker for the next message. Who calls it looks once more before it waits, and leaves
    /// it again after each wake.
    pub fn wake(&mut self, waker: &Waker) {
        self.shared.leave_waker(waker);
        self.say_nap(2);
    }

    /// What becomes readable with the next message after [`arm`](Self::arm), and stays so until the
    /// next `arm`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// Makes sure that [`fd`](Self::fd) becomes readable with the next message; false when there is
    /// one already, and no need to wait.
    pub fn arm(&mut self) -> bool {
        meet::quiet(&self.shared.bell);
        let tasks = if self.shared.has_tasks() { 2 } else { 0 };
        self.say_nap(1 | tasks);
        self.may_ring = true;
        !self.is_ready()
    }

    /// Whether there is something to take, or to skip.
    pub fn is_ready(&mut self) -> bool {
        self.refresh();
        self.lanes.iter().any(|lane| {
            let (first, _) = lane.writer.geometry.slot(lane.next);
            let state = lane.writer.words().get(first);
            state.is_some_and(|state| line::look(state, lane.next) != Slot::Early)
        })
    }

    #[inline]
    fn refresh(&mut self) {
        if self.shared.writers.version() != self.seen {
            self.refresh_lanes();
        }
    }

    #[cold]
    fn refresh_lanes(&mut self) {
        self.seen = self.shared.writers.version();
        self.shared.writers.copy(&mut self.copies);
        let copies = &self.copies;
        self.lanes.retain(|lane| copies.iter().any(|writer| Arc::ptr_eq(writer, &lane.writer)));
        for writer in self.copies.drain(..) {
            if !self.lanes.iter().any(|lane| Arc::ptr_eq(&writer, &lane.writer)) {
                let next = writer.start;
                let source = Arc::new(Source {
                    writer: Arc::clone(&writer),
                    keeping: Arc::clone(&self.keeping),
                    segment: Arc::clone(&self.segment),
                });
                self.lanes.push(Lane { writer, source, next, told: next, rung: 0, lost: 0 });
            }
        }
    }

    #[inline]
    fn poll(&mut self, room: &mut impl Room, holds: bool) -> Outcome<Got> {
        self.refresh();
        let count = self.lanes.len();
        let mut is_full = false;
        for step in 0..count {
            let at = self.turn + step;
            let at = if at >= count { at - count } else { at };
            match self.take_from(at, room, holds) {
                Outcome::None => {}
                Outcome::Full => is_full = true,
                Outcome::Some(got) => {
                    self.turn = if at + 1 >= count { 0 } else { at + 1 };
                    return Outcome::Some(got);
                }
            }
        }
        if is_full { Outcome::Full } else { Outcome::None }
    }

    #[inline]
    fn take_from(&mut self, at: usize, room: &mut impl Room, holds: bool) -> Outcome<Got> {
        for _ in 0..SKIPS_MAX {
            let Some(lane) = self.lanes.get_mut(at) else { return Outcome::None };
            let (first, count) = lane.writer.geometry.slot(lane.next);
            let words = lane.writer.words();
            let slot = words.get(first..first + count).unwrap_or_default();
            let [state, what, payload @ ..] = slot else { return Outcome::None };
            match line::look(state, lane.next) {
                Slot::Early => {
                    self.rest(at);
                    return Outcome::None;
                }
                Slot::Retired => lane.skip(1, &mut self.stats),
                Slot::Overtaken => lane.jump(&mut self.stats),
                Slot::Ready => {
                    let content =
                        Content::parse(what.load(Ordering::Relaxed), &lane.writer.geometry);
                    // Another process does not decide how much memory is taken here.
                    let content = content.filter(|it| it.length() <= self.message_bytes_max);
                    let copied = match content {
                        Some(Content::Inline { length }) => room.room(length).map(|room| {
                            line::load_bytes(payload, room);
                            length
                        }),
                        Some(Content::Pooled { length }) => {
                            let outcome = self.take_block(at, length, room, holds);
                            match outcome {
                                Some(outcome) => return outcome,
                                None => continue,
                            }
                        }
                        None => None,
                    };
                    // What was read means something only if it is still there.
                    if !line::is_whole(state, lane.next) {
                        continue;
                    }
                    match copied {
                        Some(bytes) => return Outcome::Some(Got::Copied(self.taken(at, bytes))),
                        None => {
                            self.stats.corrupt += 1;
                            lane.skip(1, &mut self.stats);
                        }
                    }
                }
            }
        }
        Outcome::None
    }

    /// Takes a message that lies in a block; `None` when it was taken back meanwhile, or is none.
    fn take_block(
        &mut self,
        at: usize,
        length: usize,
        room: &mut impl Room,
        holds: bool,
    ) -> Option<Outcome<Got>> {
        let lane = self.lanes.get_mut(at)?;
        let writer = &lane.writer;
        let (first, count) = writer.geometry.slot(lane.next);
        let [state, _, index, ..] = writer.words().get(first..first + count)? else { return None };
        let index = u32::try_from(index.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let offset = writer.geometry.block(index);
        // Its first line comes while the hold is made, which is what lets it be read.
        if let Some(offset) = offset {
            writer.view.fetch(offset);
        }
        let place = if holds { free_place(&self.segment) } else { Some(COPY_PLACE) };
        let Some(place) = place else { return Some(Outcome::Full) };
        let word = places(&self.segment).get(place)?;
        // The hold is confirmed by the slot's state, which covers the index and the length too.
        if !line::hold(word, hold_mark(writer.lane, lane.next), state, lane.next) {
            return None;
        }
        let result = match (offset, holds) {
            (Some(offset), true) => {
                let held = Held { source: Arc::clone(&lane.source), place, offset, length };
                return Some(Outcome::Some(Got::Held(self.taken(at, length), held)));
            }
            (Some(offset), false) => {
                // SAFETY: the hold was just confirmed, so a publisher that keeps to the protocol
                // does not write to the block before it is released below.
                let bytes = unsafe { writer.view.slice(offset, length) };
                let room = room.room(length);
                bytes.zip(room).map(|(bytes, room)| room.copy_from_slice(bytes))
            }
            (None, _) => None,
        };
        line::release(word);
        if result.is_none() {
            self.stats.corrupt += 1;
            self.lanes.get_mut(at)?.skip(1, &mut self.stats);
            return None;
        }
        Some(Outcome::Some(Got::Copied(self.taken(at, length))))
    }

    /// Message `next` of a lane was taken.
    #[inline]
    fn taken(&mut self, at: usize, bytes: usize) -> Taken {
        self.stats.taken += 1;
        if self.sleeper.is_awake(self.stats.taken) {
            self.ask_no_more();
        }
        let Some(lane) = self.lanes.get_mut(at) else {
            return Taken { publisher: 0, number: 0, lost: 0, bytes };
        };
        let [i0, i1, i2, i3, i4, i5, i6, i7, ..] = lane.writer.id;
        let publisher = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
        let taken = Taken { publisher, number: lane.next, lost: lane.lost, bytes };
        lane.lost = 0;
        lane.next += 1;
        let geometry = &lane.writer.geometry;
        let is_strict = self.shared.policy != Policy::Overwrite;
        let is_due = if geometry.blocks() > 0 {
            true
        } else {
            is_strict && lane.next.wrapping_sub(lane.told) >= geometry.slots() / 4
        };
        if is_due {
            lane.tell(&self.shared);
        }
        taken
    }

    /// There is nothing more of a publisher for now.
    #[inline]
    fn rest(&mut self, at: usize) {
        let is_strict = self.shared.policy != Policy::Overwrite;
        let Some(lane) = self.lanes.get_mut(at) else { return };
        if lane.told != lane.next && (is_strict || lane.writer.geometry.blocks() > 0) {
            lane.tell(&self.shared);
        }
        if lane.writer.is_gone.load(Ordering::Acquire) {
            self.leave(at);
        }
    }

    /// A publisher is gone; when it left nothing, its lane goes too.
    #[cold]
    fn leave(&mut self, at: usize) {
        let Some(lane) = self.lanes.get(at) else { return };
        let (first, _) = lane.writer.geometry.slot(lane.next);
        let state = lane.writer.words().get(first);
        // Once more, after it was seen to be gone: it may have published last thing.
        if state.is_none_or(|state| line::look(state, lane.next) == Slot::Early) {
            self.shared.writer_drained(&lane.writer);
            // The list's version has changed: the next look leaves the lane out.
        }
    }
}

impl Lane {
    /// Leaves messages out.
    fn skip(&mut self, count: u64, stats: &mut SubscriberStats) {
        // What was published before we joined is history: some of it may be missing.
        let from = self.next.max(self.writer.joined_at);
        self.next += count;
        let lost = self.next.saturating_sub(from);
        self.lost += lost;
        stats.lost += lost;
    }

    /// The publisher is more than a round ahead: goes on with what it will not overwrite at once.
    #[cold]
    fn jump(&mut self, stats: &mut SubscriberStats) {
        let slots = self.writer.geometry.slots();
        let kept = slots - slots / 8 - 1;
        let oldest = self.writer.published().saturating_sub(kept);
        self.skip(oldest.max(self.next + 1) - self.next, stats);
    }

    /// Tells the publisher how far we are, and wakes it if it waits for that.
    fn tell(&mut self, shared: &Shared) {
        self.told = self.next;
        shared.set_cursor(self.writer.lane, self.next);
        shared.barrier.light();
        let waiting = waiting(self.writer.words());
        if waiting != 0 && waiting != self.rung {
            self.rung = waiting;
            meet::ring(&self.writer.bell);
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}
