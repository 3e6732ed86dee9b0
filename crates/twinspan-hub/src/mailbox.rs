//! Messages that a thread of the road received for the user's thread to take.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use twinspan_net::lock;
use twinspan_net::shm::{Room, Taken, bell, quiet, ring, sleep_on};
use twinspan_topic::{Inbox, InboxLimits};

use crate::road::{InStats, Incoming};

/// Tasks that wait at once; with more, all are woken and look again.
const WAKERS_MAX: usize = 64;

/// Tasks that wait for the next message.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    pub(crate) fn leave(&mut self, waker: &Waker) {
        if self.0.iter().any(|other| other.will_wake(waker)) {
            return;
        }
        if self.0.len() >= WAKERS_MAX {
            self.wake();
        }
        self.0.push(waker.clone());
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

struct Held {
    inbox: Inbox,
    wakers: Wakers,
}

/// Messages that came, and who waits for them.
pub(crate) struct Mailbox {
    held: Mutex<Held>,
    bell: OwnedFd,
    /// Whether somebody sleeps on the bell, or gave it to an epoll. Set before the inbox is looked
    /// at, and read behind a push, both under the lock.
    sleeps: AtomicBool,
}

impl Mailbox {
    pub(crate) fn new(limits: InboxLimits) -> io::Result<Self> {
        let held = Held { inbox: Inbox::new(limits), wakers: Wakers::default() };
        Ok(Self { held: Mutex::new(held), bell: bell()?, sleeps: AtomicBool::new(false) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    /// Changes the inbox, and wakes who waits if something is in it then.
    pub(crate) fn fill<R>(&self, work: impl FnOnce(&mut Inbox) -> R) -> R {
        let mut held = self.held();
        let result = work(&mut held.inbox);
        if !held.inbox.is_empty() {
            held.wakers.wake();
            if self.sleeps.swap(false, Ordering::Relaxed) {
                ring(&self.bell);
            }
        }
        result
    }

    /// Whether the inbox is at its limits: the road stops to read then.
    pub(crate) fn is_full(&self) -> bool {
        self.held().inbox.is_full()
    }
}

/// The user's end of a mailbox. `on_room` is called when there is room again in a mailbox that was
/// full.
pub(crate) struct MailboxReader<F> {
    mailbox: Arc<Mailbox>,
    on_room: F,
    naps: u64,
}

impl<F: FnMut() + Send> MailboxReader<F> {
    pub(crate) const fn new(mailbox: Arc<Mailbox>, on_room: F) -> Self {
        Self { mailbox, on_room, naps: 0 }
    }
}

impl<F: FnMut() + Send> Incoming for MailboxReader<F> {
    fn try_take(&mut self, room: &mut dyn Room) -> Option<Taken> {
        let mut held = self.mailbox.held();
        let was_full = held.inbox.is_full();
        let found = held.inbox.take(room);
        let has_room = was_full && !held.inbox.is_full();
        drop(held);
        if has_room {
            (self.on_room)();
        }
        found
    }

    fn sleep(&mut self, limit: Option<Duration>) {
        {
            let held = self.mailbox.held();
            if !held.inbox.is_empty() {
                return;
            }
            self.mailbox.sleeps.store(true, Ordering::Relaxed);
        }
        self.naps += 1;
        sleep_on(self.mailbox.bell.as_fd(), limit);
        quiet(&self.mailbox.bell);
    }

    fn wake(&mut self, waker: &Waker) {
        self.mailbox.held().wakers.leave(waker);
    }

    fn arm(&mut self) -> bool {
        let held = self.mailbox.held();
        quiet(&self.mailbox.bell);
        self.mailbox.sleeps.store(true, Ordering::Relaxed);
        held.inbox.is_empty()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.mailbox.bell.as_fd()
    }

    fn stats(&self) -> InStats {
        let stats = self.mailbox.held().inbox.stats();
        let twinspan_topic::InboxStats { taken, lost, corrupt } = stats;
        InStats { taken, lost, corrupt, naps: self.naps }
    }
}

#[cfg(test)]
mod tests {
    use twinspan_topic::Overflow;

    use super::*;

    #[test]
    fn a_message_wakes_sleepers_tasks_and_who_armed() {
        let limits = InboxLimits { messages_max: 2, bytes_max: 100, overflow: Overflow::Keep };
        let mailbox = Arc::new(Mailbox::new(limits).unwrap());
        let rooms = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&rooms);
        let on_room = move || told.store(true, Ordering::Relaxed);
        let mut reader = MailboxReader::new(Arc::clone(&mailbox), on_room);
        let mut message = Vec::new();
        assert_eq!(reader.try_take(&mut message), None);
        assert!(reader.arm());
        let other = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            other.fill(|inbox| inbox.push_message(7, 0, 0, b"a"));
            other.fill(|inbox| inbox.push_message(7, 1, 0, b"b"));
        });
        reader.sleep(None);
        thread.join().unwrap();
        assert!(mailbox.is_full() && !reader.arm());
        assert_eq!(
            reader.try_take(&mut message),
            Some(Taken { publisher: 7, number: 0, lost: 0, bytes: 1 })
        );
        assert!(rooms.load(Ordering::Relaxed));
        assert_eq!(
            reader.try_take(&mut message),
            Some(Taken { publisher: 7, number: 1, lost: 0, bytes: 1 })
        );
        assert_eq!(reader.stats().taken, 2);
        struct Flag(AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        reader.wake(&Waker::from(Arc::clone(&flag)));
        mailbox.fill(|inbox| inbox.push_message(7, 2, 0, b"c"));
        assert!(flag.0.load(Ordering::Relaxed));
    }
}
