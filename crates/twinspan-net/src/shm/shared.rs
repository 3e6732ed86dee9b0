//! What the threads of one participant share, and what it knows of its peers.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;

use super::greet::{GreetingError, Identity, Policy};
use super::join::JoinError;
use super::layout::{CURSORS_AT, Geometry, HEAD_WORDS, PUBLISHED_AT, SUBSCRIBER_WORDS};
use super::line::{Look, NUMBER_MAX};
use super::map::{Seen, Segment, View};
use super::meet;
use super::wait::Barrier;
use crate::threads::lock;

/// Publishers that are gone and whose last messages nobody has taken yet; of more, those that went
/// first are forgotten.
const UNDRAINED_MAX: usize = 8;
/// Tasks that wait on one handle at most; a later one takes the place of the first, which is woken.
const TASKS_MAX: usize = 64;

/// What a cursor says before its subscriber has begun to read.
pub(super) const NOT_STARTED: u64 = u64::MAX;

/// A subscriber of another process, as its publisher sees it.
pub(super) struct ReaderPeer {
    pub(super) view: View,
    /// Which of its cursors is for us.
    pub(super) lane: usize,
    pub(super) policy: Policy,
    pub(super) bell: OwnedFd,
    pub(super) task_bell: OwnedFd,
}

impl ReaderPeer {
    /// A word of its segment; `at` is one of the constants of the layout.
    pub(super) fn word(&self, at: usize) -> Option<&Seen> {
        self.view.words(SUBSCRIBER_WORDS).get(at)
    }

    /// Which message it wants next, [`NOT_STARTED`] when it does not know yet.
    pub(super) fn cursor(&self) -> u64 {
        // The acquire pairs with the release of the subscriber's store: what it read before it has
        // been read.
        self.word(CURSORS_AT + self.lane * 8).map_or(0, |word| word.load(Ordering::Acquire))
    }
}

/// A publisher of another process, as its subscriber sees it.
pub(super) struct WriterPeer {
    pub(super) id: [u8; 16],
    pub(super) view: View,
    pub(super) geometry: Geometry,
    /// Which of our cursors is for it.
    pub(super) lane: usize,
    pub(super) bell: OwnedFd,
    /// The first message that is read.
    pub(super) start: u64,
    /// The first message whose loss is one: those before it were history.
    pub(super) joined_at: u64,
    pub(super) is_gone: AtomicBool,
}

impl WriterPeer {
    /// The words of its segment.
    #[inline]
    pub(super) fn words(&self) -> &[Seen] {
        self.view.words(self.geometry.words())
    }

    /// How many messages it has published, as it says.
    pub(super) fn published(&self) -> u64 {
        published(self.words())
    }
}

pub(super) fn published(words: &[Seen]) -> u64 {
    words.get(PUBLISHED_AT).map_or(0, |word| word.load(Ordering::Acquire)).min(NUMBER_MAX)
}

/// The head of another process's segment.
pub(super) fn head(view: &View) -> [u64; HEAD_WORDS] {
    let mut head = [0; HEAD_WORDS];
    for (to, from) in head.iter_mut().zip(view.words(HEAD_WORDS)) {
        *to = from.load(Ordering::Relaxed);
    }
    head
}

/// A list that one thread changes now and then and another reads often: the reader keeps a copy and
/// looks at the version.
pub(super) struct Registry<T> {
    version: AtomicU64,
    list: Mutex<Vec<Arc<T>>>,
}

impl<T> Registry<T> {
    fn new() -> Self {
        Self { version: AtomicU64::new(1), list: Mutex::new(Vec::new()) }
    }

    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn bump(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Adds an item unless there are `most`; false when there are.
    pub(super) fn add(&self, item: &Arc<T>, most: usize) -> bool {
        let mut list = lock(&self.list);
        if list.len() >= most {
            return false;
        }
        list.push(Arc::clone(item));
        self.bump();
        true
    }

    pub(super) fn remove(&self, item: &Arc<T>) -> bool {
        let mut list = lock(&self.list);
        let before = list.len();
        list.retain(|kept| !Arc::ptr_eq(kept, item));
        self.bump();
        list.len() < before
    }

    /// The list as it is now, in place of what `into` held.
    pub(super) fn copy(&self, into: &mut Vec<Arc<T>>) {
        into.clear();
        into.extend(lock(&self.list).iter().cloned());
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.list).len()
    }

    /// Items of which this holds.
    pub(super) fn count(&self, holds: impl Fn(&T) -> bool) -> usize {
        lock(&self.list).iter().filter(|item| holds(item)).count()
    }

    pub(super) fn any(&self, found: impl Fn(&T) -> bool) -> bool {
        lock(&self.list).iter().any(|item| found(item))
    }
}

/// How far joining is.
#[derive(Default)]
pub(super) struct Joining {
    pub(super) is_over: bool,
    pub(super) error: Option<JoinError>,
}

/// What the threads of a participant share.
pub(super) struct Shared {
    pub(super) id: [u8; 16],
    pub(super) identity: Identity,
    pub(super) policy: Policy,
    pub(super) history: u64,
    pub(super) barrier: Barrier,
    /// The segment that we publish in.
    pub(super) outbox: Option<(Arc<Segment>, Geometry)>,
    /// The segment with our cursors and holds.
    pub(super) inbox: Option<Arc<Segment>>,
    /// Rung for a subscriber that sleeps.
    pub(super) bell: OwnedFd,
    /// Rung for its tasks.
    pub(super) task_bell: OwnedFd,
    /// Rung for a publisher that waits for room.
    pub(super) room_bell: OwnedFd,
    /// Rung for the keeper.
    pub(super) keeper_bell: OwnedFd,
    pub(super) is_over: AtomicBool,
    pub(super) readers: Registry<ReaderPeer>,
    pub(super) writers: Registry<WriterPeer>,
    /// The cursors that are free, a bit each.
    pub(super) lanes: Mutex<u64>,
    pub(super) joining: Mutex<Joining>,
    pub(super) joined: Condvar,
    wakers: Mutex<Vec<Waker>>,
    tasks: AtomicUsize,
    /// Publishers that were forgotten before their last messages were taken.
    pub(super) forgotten: AtomicU64,
    /// Greetings that could not be read, and why the last of them.
    pub(super) refused: Mutex<(u64, Option<GreetingError>)>,
}

/// What a participant is made of.
pub(super) struct Parts {
    pub(super) id: [u8; 16],
    pub(super) identity: Identity,
    pub(super) policy: Policy,
    pub(super) history: u64,
    pub(super) outbox: Option<(Arc<Segment>, Geometry)>,
    pub(super) inbox: Option<Arc<Segment>>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> std::io::Result<Self> {
        let Parts { id, identity, policy, history, outbox, inbox } = parts;
        Ok(Self {
            id,
            identity,
            policy,
            history,
            barrier: Barrier::new(),
            outbox,
            inbox,
            bell: meet::bell()?,
            task_bell: meet::bell()?,
            room_bell: meet::bell()?,
            keeper_bell: meet::bell()?,
            is_over: AtomicBool::new(false),
            readers: Registry::new(),
            writers: Registry::new(),
            lanes: Mutex::new(u64::MAX),
            joining: Mutex::new(Joining::default()),
            joined: Condvar::new(),
            wakers: Mutex::new(Vec::new()),
            tasks: AtomicUsize::new(0),
            forgotten: AtomicU64::new(0),
            refused: Mutex::new((0, None)),
        })
    }

    /// Takes a free lane and marks it as not started.
    pub(super) fn take_lane(&self) -> Option<usize> {
        let mut free = lock(&self.lanes);
        let lane = free.trailing_zeros() as usize;
        if *free == 0 {
            return None;
        }
        *free &= *free - 1;
        drop(free);
        self.set_cursor(lane, NOT_STARTED);
        Some(lane)
    }

    pub(super) fn free_lane(&self, lane: usize) {
        *lock(&self.lanes) |= 1 << (lane % 64);
    }

    /// Says which message of a publisher is wanted next. The release orders what was read before it.
    pub(super) fn set_cursor(&self, lane: usize, next: u64) {
        let words = self.inbox.as_ref().map(|inbox| inbox.words(SUBSCRIBER_WORDS));
        if let Some(word) = words.and_then(|words| words.get(CURSORS_AT + lane * 8)) {
            word.store(next, Ordering::Release);
        }
    }

    /// Wakes whatever waits for messages here: something other than a message has changed.
    pub(super) fn stir(&self) {
        meet::ring(&self.bell);
        self.wake_tasks();
    }

    /// A publisher is gone: it stays until its last messages were taken, unless there are many such.
    pub(super) fn writer_gone(&self, writer: &Arc<WriterPeer>) {
        writer.is_gone.store(true, Ordering::Release);
        let mut list = lock(&self.writers.list);
        let gone = list.iter().filter(|writer| writer.is_gone.load(Ordering::Relaxed)).count();
        if gone > UNDRAINED_MAX {
            let first = list.iter().position(|writer| writer.is_gone.load(Ordering::Relaxed));
            if let Some(first) = first {
                let forgotten = list.remove(first);
                self.forgotten.fetch_add(1, Ordering::Relaxed);
                self.free_lane(forgotten.lane);
            }
        }
        drop(list);
        self.writers.bump();
        self.stir();
    }

    /// A publisher that is gone has nothing left.
    pub(super) fn writer_drained(&self, writer: &Arc<WriterPeer>) {
        // One that was forgotten meanwhile gave its lane back then.
        if self.writers.remove(writer) {
            self.free_lane(writer.lane);
        }
    }

    /// Leaves a waker for the next message.
    pub(super) fn leave_waker(&self, waker: &Waker) {
        let mut wakers = lock(&self.wakers);
        if !wakers.iter().any(|kept| kept.will_wake(waker)) {
            if wakers.len() >= TASKS_MAX {
                wakers.remove(0).wake();
            }
            wakers.push(waker.clone());
        }
        self.tasks.store(wakers.len(), Ordering::Release);
    }

    /// Whether tasks wait.
    pub(super) fn has_tasks(&self) -> bool {
        self.tasks.load(Ordering::Acquire) > 0
    }

    /// Wakes all tasks that wait.
    pub(super) fn wake_tasks(&self) {
        if !self.has_tasks() {
            return;
        }
        let mut wakers = lock(&self.wakers);
        self.tasks.store(0, Ordering::Release);
        wakers.drain(..).for_each(Waker::wake);
    }

    /// A greeting could not be read.
    pub(super) fn refuse(&self, error: GreetingError) {
        let mut refused = lock(&self.refused);
        *refused = (refused.0.saturating_add(1), Some(error));
    }

    /// Ends the joining.
    pub(super) fn end_joining(&self, error: Option<JoinError>) {
        let mut joining = lock(&self.joining);
        if !joining.is_over {
            joining.is_over = true;
            joining.error = error;
            self.joined.notify_all();
        }
    }
}
