//! The publishing side of a participant: it alone writes its ring, and waits for nobody unless a
//! subscriber asked for that.

use std::fmt;
use std::iter;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::greet::Policy;
use super::layout::{
    ASKS_AT, BLOCKS_MAX, Content, Geometry, HOLDS_AT, HOLDS_MAX, NAP_AT, PUBLISHED_AT, WAITING_AT,
};
use super::line::{self, Look};
use super::map::Segment;
use super::meet;
use super::pool::{Block, Pool};
use super::shared::{NOT_STARTED, ReaderPeer, Shared};
use super::subscriber::hold_mark;
use super::wait::{self, Wait};

/// The longest sleep while waiting for room: whoever holds back the publisher may stop to exist.
const ROOM_NAP_MAX: Duration = Duration::from_millis(20);
/// Groups of messages that a ring holds at least: a subscriber that was overtaken goes on an eighth of
/// the ring behind what is overwritten, and no group reaches so far.
const GROUPS_MIN: u64 = 8;

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It is longer than the topic's messages may be.
    #[error("a message of {have} bytes does not fit: this topic's have {max} at most")]
    TooLong {
        /// Bytes of the message.
        have: usize,
        /// The most that there may be.
        max: usize,
    },
    /// A subscriber whose policy is to drop new messages has no room.
    #[error(
        "dropped: a subscriber that wants the oldest messages is full; take more often, or let it overwrite"
    )]
    Dropped,
    /// A subscriber whose policy is to block had no room for too long.
    #[error(
        "a subscriber that blocks this topic has taken nothing for {waited:?}; stop it, or let it overwrite"
    )]
    Stalled {
        /// How long the publisher waited.
        waited: Duration,
    },
    /// All blocks are lent or held by subscribers.
    #[error(
        "all blocks of the pool are in use: drop samples and loans sooner, or ask for more blocks, up to \
         {BLOCKS_MAX}"
    )]
    Exhausted,
    /// The block is of another publisher.
    #[error("the loan is of another publisher: publish it with the hub that lent it")]
    Foreign,
}

/// What a publisher did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublisherStats {
    /// Messages published.
    pub published: u64,
    /// Messages dropped because a subscriber that drops new ones was full.
    pub dropped: u64,
    /// Times that it waited for room.
    pub waits: u64,
    /// Sleepers woken.
    pub wakes: u64,
}

struct Reader {
    peer: Arc<ReaderPeer>,
    /// The nap that it was woken from last.
    rung: u64,
}

/// The publishing side of a participant.
pub struct Publisher {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    geometry: Geometry,
    wait: Wait,
    room_wait: Duration,
    readers: Vec<Reader>,
    /// Room for the list of readers while it is looked at.
    copies: Vec<Arc<ReaderPeer>>,
    seen: u64,
    /// The number of the next message.
    next: u64,
    /// The first message that may not be written before the cursors have been looked at again.
    open_until: u64,
    pool: Pool,
    waits: u64,
    stats: PublisherStats,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, wait: Wait, room_wait: Duration) -> Option<Self> {
        let (segment, geometry) = shared.outbox.clone()?;
        let pool = Pool::new(&segment, geometry.blocks(), geometry.block_bytes());
        Some(Self {
            shared,
            segment,
            geometry,
            wait,
            room_wait,
            readers: Vec::new(),
            copies: Vec::new(),
            seen: 0,
            next: 0,
            open_until: 0,
            pool,
            waits: 0,
            stats: PublisherStats::default(),
        })
    }

    /// Sizes of the ring and the pool.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What was done so far.
    pub const fn stats(&self) -> PublisherStats {
        self.stats
    }

    /// The number of the next message.
    pub const fn next_number(&self) -> u64 {
        self.next
    }

    #[cfg(test)]
    pub(super) fn raw_words(&self) -> &[AtomicU64] {
        self.segment.words(self.geometry.words())
    }

    /// What the naps of the subscribers say.
    #[cfg(test)]
    pub(super) fn naps(&mut self) -> Vec<u64> {
        self.of_readers(NAP_AT)
    }

    /// What a word of each subscriber says.
    #[cfg(test)]
    pub(super) fn of_readers(&mut self, at: usize) -> Vec<u64> {
        self.refresh();
        let words = self.readers.iter().filter_map(|reader| reader.peer.word(at));
        words.map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// Waits for room of which `meanwhile` is all that makes any, after the look at who has none: how
    /// often it said that it sleeps.
    #[cfg(test)]
    pub(super) fn sleeps_behind(&mut self, meanwhile: impl FnOnce()) -> u64 {
        self.refresh();
        let (before, slept) = (self.marks(), self.waits);
        meanwhile();
        self.wait_for_cursors(Instant::now() + self.room_wait, before);
        self.waits - slept
    }

    /// Publishes a copy of `message` and returns its number, from 0.
    ///
    /// # Errors
    /// [`PublishError`] says why nobody gets it.
    #[inline]
    pub fn publish(&mut self, message: &[u8]) -> Result<u64, PublishError> {
        if message.len() > self.geometry.inline_bytes() {
            let mut block = self.loan(message.len())?;
            block.copy_from_slice(message);
            return self.publish_block(block);
        }
        let number = self.write_inline(message)?;
        self.tell();
        Ok(number)
    }

    /// Publishes copies of messages, and wakes who sleeps once, at the end. Returns how many were
    /// published, with the error that ended it.
    pub fn publish_all<'a>(
        &mut self,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) -> (usize, Option<PublishError>) {
        let mut messages = messages.into_iter().peekable();
        let inline_bytes = self.geometry.inline_bytes();
        let mut count = 0;
        let error = loop {
            let Some(first) = messages.next() else { break None };
            let published = if first.len() > inline_bytes {
                self.publish(first).map(|_| 1)
            } else {
                let next = || messages.next_if(|message| message.len() <= inline_bytes);
                self.write_group(first, iter::from_fn(next))
            };
            match published {
                Ok(more) => count += more,
                Err(error) => break Some(error),
            }
        };
        self.tell();
        (count, error)
    }

    /// Writes a message, and others that are there with it, as many as there is room for and a group
    /// may have. The first is written last: who waits for it looks at its slot alone, so the lines of
    /// the others go over to the reader once, and not again with each word that is written.
    #[inline]
    fn write_group<'a>(
        &mut self,
        first: &[u8],
        rest: impl Iterator<Item = &'a [u8]>,
    ) -> Result<usize, PublishError> {
        let number = self.room()?;
        let most = (self.geometry.slots() / GROUPS_MIN).min(self.open_until - number).max(1);
        let mut end = number + 1;
        for message in rest.take(most as usize - 1) {
            self.write_copy(end, message);
            end += 1;
        }
        self.write_copy(number, first);
        self.advance(end);
        Ok((end - number) as usize)
    }

    #[inline]
    fn write_inline(&mut self, message: &[u8]) -> Result<u64, PublishError> {
        let number = self.room()?;
        self.write_copy(number, message);
        self.advance(number + 1);
        Ok(number)
    }

    #[inline]
    fn write_copy(&mut self, number: u64, message: &[u8]) {
        let content = Content::Inline { length: message.len() }.to_word();
        self.write(number, content, |payload| line::store_bytes(payload, message));
    }

    /// Writes the slot of message `number`, which there is room for.
    #[inline]
    fn write(&mut self, number: u64, content: u64, fill: impl FnOnce(&[AtomicU64])) {
        if self.pool.is_used()
            && let Some(overwritten) = number.checked_sub(self.geometry.slots())
        {
            self.pool.loosen(overwritten);
        }
        let words = self.segment.words(self.geometry.words());
        let (first, count) = self.geometry.slot(number);
        let slot = words.get(first..first + count).unwrap_or_default();
        let [state, what, payload @ ..] = slot else { return };
        line::begin(state, number);
        what.store(content, Ordering::Relaxed);
        fill(payload);
        line::finish(state, number);
    }

    /// All messages below `next` are written.
    #[inline]
    fn advance(&mut self, next: u64) {
        self.stats.published += next - self.next;
        self.next = next;
        let words = self.segment.words(self.geometry.words());
        if let Some(published) = words.get(PUBLISHED_AT) {
            published.store(next, Ordering::Release);
        }
    }

    /// Wakes who sleeps. The barrier orders the message before the look at who does, and a fence where
    /// somebody sleeps often and asks for it.
    #[inline]
    fn tell(&mut self) {
        self.shared.barrier.light();
        let mut is_fenced = false;
        for reader in &mut self.readers {
            let words = reader.peer.word(ASKS_AT).zip(reader.peer.word(NAP_AT));
            let nap = words.map_or(0, |(asks, nap)| line::nap_of(asks, nap, &mut is_fenced));
            if nap & 3 != 0 && nap != reader.rung {
                reader.rung = nap;
                self.stats.wakes += 1;
                if nap & 1 != 0 {
                    meet::ring(&reader.peer.bell);
                }
                if nap & 2 != 0 {
                    meet::ring(&reader.peer.task_bell);
                }
            }
        }
    }

    /// Who listens now.
    #[inline]
    fn refresh(&mut self) {
        if self.shared.readers.version() != self.seen {
            self.refresh_readers();
        }
    }

    #[cold]
    fn refresh_readers(&mut self) {
        self.seen = self.shared.readers.version();
        self.shared.readers.copy(&mut self.copies);
        self.readers
            .retain(|reader| self.copies.iter().any(|peer| Arc::ptr_eq(peer, &reader.peer)));
        for peer in self.copies.drain(..) {
            if !self.readers.iter().any(|reader| Arc::ptr_eq(&peer, &reader.peer)) {
                self.readers.push(Reader { peer, rung: 0 });
            }
        }
        self.open_until = 0;
    }

    /// The number of the next message, when there is room for it.
    #[inline]
    fn room(&mut self) -> Result<u64, PublishError> {
        self.refresh();
        if self.next < self.open_until {
            return Ok(self.next);
        }
        self.find_room()
    }

    #[cold]
    fn find_room(&mut self) -> Result<u64, PublishError> {
        self.look_at_cursors();
        let mut began = None;
        while self.next >= self.open_until {
            // Seen before the look that decides: what a subscriber does behind it ends the wait.
            let before = self.marks();
            let slowest = self.look_at_cursors();
            if self.next >= self.open_until {
                self.hold_back(slowest, &mut began, before)?;
            }
        }
        Ok(self.next)
    }

    /// Sets how far may be written, and returns the policy of the subscriber that sets it.
    fn look_at_cursors(&mut self) -> Policy {
        let mut slowest = Policy::Overwrite;
        self.open_until = u64::MAX;
        for Reader { peer, .. } in &self.readers {
            if peer.policy == Policy::Overwrite {
                continue;
            }
            // One that has not begun holds back nothing, and is looked at again with each message.
            let open_until = match peer.cursor() {
                NOT_STARTED => self.next + 1,
                cursor => cursor.min(self.next) + self.geometry.slots(),
            };
            if open_until <= self.next || open_until < self.open_until {
                // Of several that are full, one that drops decides: nobody waits for nothing.
                let both = open_until <= self.next && self.open_until <= self.next;
                if !(both && slowest == Policy::DropNew) {
                    slowest = peer.policy;
                }
            }
            self.open_until = self.open_until.min(open_until);
        }
        slowest
    }

    /// A subscriber with this policy has no room, or had none after `before` was seen.
    fn hold_back(
        &mut self,
        policy: Policy,
        began: &mut Option<Instant>,
        before: u64,
    ) -> Result<(), PublishError> {
        if policy == Policy::DropNew {
            self.stats.dropped += 1;
            return Err(PublishError::Dropped);
        }
        // Wakes them: they are to make room.
        self.tell();
        let began = *began.get_or_insert_with(Instant::now);
        if began.elapsed() >= self.room_wait {
            return Err(PublishError::Stalled { waited: self.room_wait });
        }
        self.wait_for_cursors(began + self.room_wait, before);
        self.refresh();
        Ok(())
    }

    /// What subscribers say of how far they are and what they hold, as one number that changes with it.
    fn marks(&self) -> u64 {
        marks(&self.readers)
    }

    /// Waits until a subscriber has moved a cursor, or let go of a block, since `before` was seen, or
    /// for a while.
    fn wait_for_cursors(&mut self, deadline: Instant, before: u64) {
        self.stats.waits += 1;
        let limit = match self.wait {
            Wait::Spin => None,
            Wait::Adaptive => Some(wait::spin_limit()),
            Wait::Block => Some(Duration::ZERO),
        };
        // Even one that spins looks for new and gone subscribers now and then.
        let spin_end = deadline.min(Instant::now() + ROOM_NAP_MAX);
        let readers = &self.readers;
        let moved = || (marks(readers) != before).then_some(());
        if wait::spin(limit, Some(spin_end), moved).is_some() || self.wait == Wait::Spin {
            return;
        }
        let words = self.segment.words(self.geometry.words());
        let Some(waiting) = words.get(WAITING_AT) else { return };
        self.waits += 1;
        waiting.store(self.waits, Ordering::Relaxed);
        self.shared.barrier.heavy();
        if marks(readers) == before {
            let longest = self.shared.barrier.nap_max().unwrap_or(ROOM_NAP_MAX);
            let left = deadline.saturating_duration_since(Instant::now()).min(longest);
            wait::sleep_on(self.shared.room_bell.as_fd(), Some(left));
        }
        waiting.store(0, Ordering::Relaxed);
        meet::quiet(&self.shared.room_bell);
    }

    /// A block of shared memory for a message of `length`, to be filled and published without a
    /// copy. What it holds at first is left over from an earlier message.
    ///
    /// # Errors
    /// [`PublishError::TooLong`], also where all of a topic's messages lie in their slots;
    /// otherwise why there is no block.
    pub fn loan(&mut self, length: usize) -> Result<Block, PublishError> {
        if length > self.geometry.block_bytes() {
            let max = self.geometry.message_bytes();
            return Err(PublishError::TooLong { have: length, max });
        }
        self.refresh();
        let mut began = None;
        if let Some(index) = self.pool.take() {
            return Ok(self.lend(index, length));
        }
        loop {
            // Seen before the look that decides, as in `find_room`.
            let before = self.marks();
            self.reclaim();
            if let Some(index) = self.pool.take() {
                return Ok(self.lend(index, length));
            }
            match self.needs_blocks() {
                Some(policy) => self.hold_back(policy, &mut began, before)?,
                None if self.force() => {}
                None => return Err(PublishError::Exhausted),
            }
        }
    }

    /// A free block of the pool, for a message of `length`.
    fn lend(&mut self, index: u32, length: usize) -> Block {
        let offset = self.geometry.block(index).unwrap_or_default();
        self.pool.lend(index, offset, length)
    }

    /// Publishes a block that [`loan`](Self::loan) gave, and returns the message's number.
    ///
    /// # Errors
    /// [`PublishError`] says why nobody gets it.
    pub fn publish_block(&mut self, block: Block) -> Result<u64, PublishError> {
        if !self.pool.has(&block) {
            return Err(PublishError::Foreign);
        }
        let number = self.room()?;
        let content = Content::Pooled { length: block.len() }.to_word();
        let index = self.pool.publish(block, number);
        self.write(number, content, |payload| {
            if let Some(word) = payload.first() {
                word.store(u64::from(index), Ordering::Relaxed);
            }
        });
        self.advance(number + 1);
        self.tell();
        // Now, while the message is on its way, and not for each: a look at the words of who reads takes
        // their lines away.
        if self.pool.is_low() {
            self.reclaim();
        }
        Ok(number)
    }

    /// Takes back what everybody has read, and frees what nobody holds.
    fn reclaim(&mut self) {
        let kept = self.next.saturating_sub(self.shared.history);
        let oldest_wanted = self.readers.iter().map(|reader| match reader.peer.cursor() {
            NOT_STARTED => u64::MAX,
            cursor => cursor,
        });
        let end = oldest_wanted.min().unwrap_or(u64::MAX).min(kept);
        loop {
            let number = self.pool.published_below(end).next();
            let Some(number) = number else { break };
            self.take_back(number);
        }
        self.free_loose();
    }

    /// Takes a message back: nobody begins to read it any more.
    fn take_back(&mut self, number: u64) {
        let words = self.segment.words(self.geometry.words());
        let (first, _) = self.geometry.slot(number);
        // A published block's message is the last one in its slot: `write` loosens others.
        if let Some(state) = words.get(first) {
            line::retire(state, number);
        }
        self.pool.loosen(number);
    }

    /// Frees the loose blocks that nobody holds; returns how many.
    fn free_loose(&mut self) -> usize {
        if !self.pool.has_loose() {
            return 0;
        }
        line::settle::<AtomicU64>();
        // After the fence: a subscriber that came since may have begun to read before the message
        // was taken back, and stands in the list since before that.
        self.refresh();
        let readers = &self.readers;
        self.pool.free_loose(|number| {
            readers.iter().any(|Reader { peer, .. }| {
                let mark = hold_mark(peer.lane, number);
                let mut places = (HOLDS_AT..HOLDS_AT + HOLDS_MAX).filter_map(|at| peer.word(at));
                places.any(|place| line::is_held(place, mark))
            })
        })
    }

    /// The policy of a subscriber that may not lose the blocks that are published, if there is one.
    fn needs_blocks(&self) -> Option<Policy> {
        let strict = self.readers.iter().filter(|reader| reader.peer.policy != Policy::Overwrite);
        let mut policies = strict
            .filter(|reader| reader.peer.cursor() < self.next || self.pool.has_loose())
            .map(|reader| reader.peer.policy);
        let first = policies.next()?;
        Some(if policies.any(|policy| policy == Policy::DropNew) { Policy::DropNew } else { first })
    }

    /// Takes the oldest message back that nobody holds, though somebody has not read it; false when
    /// there is none.
    fn force(&mut self) -> bool {
        loop {
            let oldest = self.pool.published_below(u64::MAX).min();
            let Some(oldest) = oldest else { return false };
            self.take_back(oldest);
            if self.free_loose() > 0 {
                return true;
            }
        }
    }
}

/// The cursors and holds of all readers, folded into one number.
fn marks(readers: &[Reader]) -> u64 {
    readers.iter().fold(0, |sum, Reader { peer, .. }| {
        let mut sum = u64::rotate_left(sum, 7) ^ peer.cursor();
        for at in HOLDS_AT..HOLDS_AT + HOLDS_MAX {
            let held = peer.word(at).map_or(0, |word| word.load(Ordering::Acquire));
            sum = sum.rotate_left(1) ^ held;
        }
        sum
    })
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("next", &self.next).finish_non_exhaustive()
    }
}
