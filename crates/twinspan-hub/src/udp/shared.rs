//! What the threads of a UDP road share, and how they tell each other of what came and of what is due.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::lock;
use twinspan_net::shm::{quiet, ring, watch};

use super::core::{Core, Left, now};
use super::vigil;

/// What the threads of a road share.
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    /// The socket once more, to sleep on without the lock.
    pub(super) socket: OwnedFd,
    /// Rung when somebody else put something into the inbox.
    pub(super) bell: OwnedFd,
    /// Readable while the bell was rung, and from the first arming on while the socket is.
    pub(super) either: OwnedFd,
    /// Whether the system lets that watch the socket. Before the first arming no datagram pays for it.
    pub(super) watches_socket: OnceLock<bool>,
    pub(super) helper_bell: OwnedFd,
    pub(super) flush_interval: Duration,
    /// Counts how often the user's threads drove the road.
    pub(super) drives: AtomicU64,
    /// The user's threads that sleep on the road.
    pub(super) sleepers: AtomicU32,
    /// Until when the last of them does, in nanoseconds.
    pub(super) slept_until: AtomicU64,
    /// When the helper looks next if nobody wakes it, in nanoseconds; 0 while it is awake, or waits a
    /// moment for the lock. Any other value is written and read under that.
    pub(super) looks_at: AtomicU64,
    /// When a task was left waiting; 0 for never.
    pub(super) wanted_ns: AtomicU64,
    /// Whether the helper watches the socket.
    pub(super) watches: AtomicBool,
    /// Whether the helper looks at each flush interval.
    pub(super) alert: AtomicU8,
    /// Whether somebody gave the descriptor to an epoll: the bell is to be rung for it, which ends this.
    /// Written under the road's lock.
    pub(super) is_armed: AtomicBool,
    pub(super) is_over: AtomicBool,
}

impl Shared {
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Wakes who waits, if something is there.
    pub(super) fn tell(&self, core: &mut Core) {
        if !core.inbox.is_empty() {
            self.wake_all(core);
        }
    }

    /// A message was taken: what came with it makes the socket readable for nobody else who waits.
    #[inline]
    pub(super) fn pass_on(&self, core: &mut Core) {
        if core.has_more() && (self.is_armed() || !core.wakers.is_empty()) {
            self.wake_all(core);
        }
    }

    pub(super) fn wake_all(&self, core: &mut Core) {
        core.wakers.wake();
        if self.sleepers.load(Ordering::SeqCst) > 0 || self.is_armed.swap(false, Ordering::SeqCst) {
            ring(&self.bell);
        }
    }

    /// Lets the helper watch the socket for somebody who does not do so himself.
    pub(super) fn want(&self) {
        self.wanted_ns.store(now().as_nanos().max(1), Ordering::SeqCst);
        if !self.watches.load(Ordering::SeqCst) {
            ring(&self.helper_bell);
        }
    }

    /// Gets ready to wait on the descriptor: whoever puts something into the inbox rings from now on.
    pub(super) fn arm(&self) {
        let watch = || watch(&self.either, &self.socket).is_ok();
        if !*self.watches_socket.get_or_init(watch) {
            // The helper does, and rings.
            self.want();
        }
        if !self.is_armed.swap(true, Ordering::SeqCst) {
            quiet(&self.bell);
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.is_armed.load(Ordering::SeqCst)
    }

    /// When a task was left waiting, if ever.
    pub(super) fn wanted_at(&self) -> Option<Timestamp> {
        let wanted_ns = self.wanted_ns.load(Ordering::SeqCst);
        (wanted_ns > 0).then(|| Timestamp::from_nanos(wanted_ns))
    }

    /// Until when somebody sleeps on the road, if anybody does: an epoll has no end.
    pub(super) fn slept_until(&self) -> Option<Timestamp> {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            return Some(Timestamp::from_nanos(self.slept_until.load(Ordering::SeqCst)));
        }
        let watches = || self.watches_socket.get() == Some(&true);
        (self.is_armed() && watches()).then_some(Timestamp::NEVER)
    }

    /// A user's thread is about to let go of the road. Wakes the helper if something is due long before
    /// anybody looks.
    pub(super) fn hand_over(&self, core: &Core) {
        let looks_at = Timestamp::from_nanos(self.looks_at.load(Ordering::SeqCst));
        if vigil::is_overslept(looks_at, self.slept_until(), core.node.poll_timeout()) {
            self.wake_helper();
        }
    }

    /// The same behind a look, whose thread may not come back: a helper that sleeps for as long as
    /// that one did is woken in any case.
    #[inline]
    pub(super) fn hand_over_look(&self, core: &Core, found: bool) {
        if self.looks_at.load(Ordering::Relaxed) == Timestamp::NEVER.as_nanos() {
            self.wake_helper();
        } else if found {
            self.hand_over(core);
        }
    }

    pub(super) fn wake_helper(&self) {
        self.looks_at.store(0, Ordering::SeqCst);
        ring(&self.helper_bell);
    }

    /// A user's thread has published, and may not come back: what is left is for the helper to do in
    /// time.
    pub(super) fn leave(&self, core: &Core) {
        match core.left() {
            Left::Nothing => self.hand_over(core),
            left => self.alert(left),
        }
    }

    /// Lets the helper do what is left, should nobody else do so in time.
    pub(super) fn alert(&self, left: Left) {
        let left = left as u8;
        if self.alert.load(Ordering::Relaxed) < left
            && self.alert.fetch_max(left, Ordering::SeqCst) < left
        {
            ring(&self.helper_bell);
        }
    }
}
