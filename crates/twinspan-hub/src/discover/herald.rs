//! Where hubs of one machine tell each other what they are: sockets with abstract names, which vanish
//! with their owners.
//!
//! //= hub 15.1

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, connect, listen, recv, send, socket_with,
};
use twinspan_core::time::Timestamp;
use twinspan_net::lock;
use twinspan_net::shm::{PARTICIPANTS_MAX, bell, quiet, ring};

use super::announcement::{ANNOUNCEMENT_BYTES_MAX, Announcement};
use super::roster::{Heard, Roster, Tally};
use crate::udp::core::now;

/// How long a hub that is built waits for the answers of those who are there.
const VISIT_TIMEOUT: Duration = Duration::from_millis(250);
/// Connections that wait to be taken.
const BACKLOG: i32 = 512;
/// Connections that are taken in one turn; others wait for the next, behind those who are heard.
const ACCEPTS_MAX: usize = 16;
/// How long nobody is let in when the system has no descriptors left, or no memory: a listener that is
/// ready and cannot be served would wake the thread for ever.
const REST: Duration = Duration::from_millis(100);
/// The stack of the thread, which calls little.
const STACK_BYTES: usize = 256 << 10;

/// Who hears of others.
pub(super) trait Ear: Send {
    /// A hub of the topic came, or is gone.
    fn hears(&mut self, heard: &Heard);
}

/// What a herald met that it did not speak with.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Words that were none, or of another machine.
    pub(super) malformed: AtomicU64,
    /// Hubs of other users, and the last of these users.
    pub(super) foreign: AtomicU64,
    foreign_user: AtomicU32,
}

impl Counts {
    /// A user whose hub was met and not spoken with.
    pub(super) fn foreign_user(&self) -> Option<u32> {
        let is_any = self.foreign.load(Ordering::Acquire) > 0;
        is_any.then(|| self.foreign_user.load(Ordering::Relaxed))
    }

    fn publish(&self, tally: Tally) {
        self.malformed.store(tally.malformed, Ordering::Relaxed);
        self.foreign_user.store(tally.foreign_user, Ordering::Relaxed);
        // Publishes the user above to who loads the count.
        self.foreign.store(tally.foreign, Ordering::Release);
    }
}

/// Why nobody can be found.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeraldError {
    #[error("all {PARTICIPANTS_MAX} places of the topic are taken")]
    Full,
    #[error(transparent)]
    Os(#[from] io::Error),
}

impl From<Errno> for HeraldError {
    fn from(error: Errno) -> Self {
        Self::Os(error.into())
    }
}

fn address(topic: &str, place: u8) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(format!("twinspan.road/{topic}#{place}").as_bytes())?)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Takes the first free place of a topic, and listens there.
fn take_place(topic: &str) -> Result<(u8, OwnedFd), HeraldError> {
    let listener = socket()?;
    for place in 0..PARTICIPANTS_MAX {
        match bind(&listener, &address(topic, place)?) {
            Ok(()) => {
                listen(&listener, BACKLOG)?;
                return Ok((place, listener));
            }
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(HeraldError::Full)
}

/// What a visit to a place found.
enum Visited {
    Met(OwnedFd),
    Nobody,
    /// Too many wait at the door.
    Busy,
}

/// Goes to the hub at a place.
fn visit(topic: &str, place: u8) -> io::Result<Visited> {
    let socket = socket()?;
    match connect(&socket, &address(topic, place)?) {
        Ok(()) => Ok(Visited::Met(socket)),
        Err(Errno::CONNREFUSED | Errno::CONNRESET) => Ok(Visited::Nobody),
        Err(Errno::AGAIN) => Ok(Visited::Busy),
        Err(error) => Err(error.into()),
    }
}

/// The user at the other end.
fn user_of(socket: &OwnedFd) -> Option<u32> {
    Some(socket_peercred(socket).ok()?.uid.as_raw())
}

/// What the herald's thread has.
struct State {
    topic: String,
    roster: Roster,
    listener: OwnedFd,
    /// The connections that are kept, by their numbers.
    sockets: Vec<(u64, OwnedFd)>,
    /// Until when nobody is let in, or visited.
    rests_until: Timestamp,
    counts: Arc<Counts>,
    ear: Box<dyn Ear>,
}

impl State {
    fn new(ours: Announcement, (place, listener): (u8, OwnedFd), ear: Box<dyn Ear>) -> Self {
        Self {
            topic: ours.greeting.topic.clone(),
            roster: Roster::new(now(), ours, place),
            listener,
            sockets: Vec::new(),
            rests_until: Timestamp::START,
            counts: Arc::default(),
            ear,
        }
    }

    /// Keeps a connection with a hub of this user, and tells it who we are.
    fn keep(&mut self, place: Option<u8>, socket: OwnedFd) {
        let now = now();
        let Some(key) = self.roster.handle_met(now, place, user_of(&socket)) else { return };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if send(&socket, self.roster.word(), flags).is_err() {
            return self.roster.handle_end(now, key);
        }
        self.sockets.push((key, socket));
    }

    /// Goes to the places whose time has come.
    ///
    /// # Errors
    /// The system makes no connection.
    fn visit(&mut self) -> io::Result<()> {
        while let Some(place) = self.roster.poll_visit(now()) {
            match visit(&self.topic, place) {
                Ok(Visited::Met(socket)) => self.keep(Some(place), socket),
                Ok(Visited::Nobody) => self.roster.handle_nobody(place),
                Ok(Visited::Busy) => self.roster.handle_busy(now(), place),
                Err(error) => {
                    self.roster.handle_busy(now(), place);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Lets in who waits, a few at a time.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        self.accept_by(|state| accept_with(&state.listener, flags));
    }

    fn accept_by(&mut self, mut next: impl FnMut(&Self) -> Result<OwnedFd, Errno>) {
        for _ in 0..ACCEPTS_MAX {
            match next(self) {
                Ok(socket) => self.keep(None, socket),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => {
                    self.rests_until = now().after(REST);
                    return;
                }
            }
        }
    }

    /// Hears a connection; false when it has ended.
    fn hear(&mut self, index: usize) -> bool {
        let mut bytes = [0; ANNOUNCEMENT_BYTES_MAX + 1];
        let Some((key, socket)) = self.sockets.get(index) else { return false };
        let count = match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        self.roster.handle_word(*key, bytes.get(..count).unwrap_or_default());
        true
    }

    /// Closes what is to be closed, and tells what there is to tell.
    fn settle(&mut self) {
        // Counted before it is told: who is told, or cut off, may ask.
        self.counts.publish(self.roster.tally());
        while let Some(key) = self.roster.poll_closed() {
            self.sockets.retain(|(other, _)| *other != key);
        }
        while let Some(heard) = self.roster.poll_heard() {
            self.ear.hears(&heard);
        }
    }

    /// Waits for something to happen, or for `limit`, and does what there is to do.
    fn turn(&mut self, bell: &OwnedFd, limit: Option<Duration>) {
        let is_resting = now() < self.rests_until;
        let listens = if is_resting { PollFlags::empty() } else { PollFlags::IN };
        let mut due = self.roster.poll_timeout();
        if is_resting {
            due = due.max(self.rests_until);
        }
        let due = (due != Timestamp::NEVER).then(|| due.since(now()));
        let limit = limit.into_iter().chain(due).min();
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let guests = self.sockets.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN));
        let own = [PollFd::new(bell, PollFlags::IN), PollFd::new(&self.listener, listens)];
        let mut fds: Vec<PollFd<'_>> = own.into_iter().chain(guests).collect();
        // Whatever ended the wait: all that is ready is looked at.
        let _ = poll(&mut fds, limit.as_ref());
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if is_ready.first() == Some(&true) {
            quiet(bell.as_fd());
        }
        for index in (0..self.sockets.len()).rev() {
            if is_ready.get(index + 2) == Some(&true) && !self.hear(index) {
                let (key, _) = self.sockets.swap_remove(index);
                self.roster.handle_end(now(), key);
            }
        }
        if now() >= self.rests_until {
            if is_ready.get(1) == Some(&true) {
                self.accept();
            }
            // Without descriptors those who are there are visited later.
            if self.visit().is_err() {
                self.rests_until = now().after(REST);
            }
        }
        self.roster.handle_timeout(now());
        self.settle();
    }
}

/// A hub's part in the finding of others; it ends when it is dropped.
pub(super) struct Herald {
    bell: Arc<OwnedFd>,
    is_over: Arc<AtomicBool>,
    pub(super) counts: Arc<Counts>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Herald {
    /// Announces a hub, and waits for the answers of those who are there.
    pub(super) fn start(ours: Announcement, ear: Box<dyn Ear>) -> Result<Self, HeraldError> {
        let topic = ours.greeting.topic.clone();
        // Bound before anybody is visited: of two who come at once at least one finds the other.
        let mut state = State::new(ours, take_place(&topic)?, ear);
        let counts = Arc::clone(&state.counts);
        state.visit()?;
        state.settle();
        let bell = Arc::new(bell()?);
        let end = Instant::now() + VISIT_TIMEOUT;
        while !state.roster.is_settled() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.turn(&bell, Some(left));
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let (rung, over) = (Arc::clone(&bell), Arc::clone(&is_over));
        let thread = thread::Builder::new().name("hub-herald".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || {
            while !over.load(Ordering::Acquire) {
                state.turn(&rung, None);
            }
        })?;
        Ok(Self { bell, is_over, counts, thread: Mutex::new(Some(thread)) })
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        ring(&*self.bell);
        if let Some(thread) = lock(&self.thread).take() {
            // One that panicked has let go of its place too.
            let _ = thread.join();
        }
    }
}

/// The hubs of this user that announce a topic on this machine now, without taking part in it; and
/// how many others there are.
pub(crate) fn announced(topic: &str) -> io::Result<(Vec<Announcement>, u64)> {
    let own = rustix::process::geteuid().as_raw();
    let (mut found, mut foreign) = (Vec::new(), 0);
    for place in 0..PARTICIPANTS_MAX {
        let Visited::Met(socket) = visit(topic, place)? else { continue };
        if user_of(&socket) != Some(own) {
            foreign += 1;
            continue;
        }
        let limit = Timespec::try_from(VISIT_TIMEOUT).ok();
        let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], limit.as_ref());
        let mut bytes = [0; ANNOUNCEMENT_BYTES_MAX + 1];
        let count =
            recv(&socket, &mut bytes[..], RecvFlags::DONTWAIT).map_or(0, |(count, _)| count);
        if let Some(Ok(who)) = bytes.get(..count).map(Announcement::parse)
            && who.user == own
            && who.greeting.topic == topic
        {
            found.push(who);
        }
    }
    Ok((found, foreign))
}

#[cfg(test)]
mod tests {
    use super::super::announcement::example;
    use super::super::host::Host;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A topic that no other test has.
    fn topic() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("test/herald/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn ours(topic: &str, id: u8) -> Announcement {
        let mut ours = example();
        ours.host = Host::own().unwrap();
        ours.user = rustix::process::geteuid().as_raw();
        ours.greeting.id = [id; 16];
        topic.clone_into(&mut ours.greeting.topic);
        ours
    }

    type HeardSoFar = Arc<Mutex<Vec<(u8, bool)>>>;

    struct Notes(HeardSoFar);

    impl Ear for Notes {
        fn hears(&mut self, heard: &Heard) {
            lock(&self.0).push(match heard {
                Heard::Came(who) => (who.greeting.id[0], true),
                Heard::Gone(who) => (who.greeting.id[0], false),
            });
        }
    }

    /// A connection with who is at a topic's first place.
    fn met(topic: &str) -> OwnedFd {
        match visit(topic, 0).unwrap() {
            Visited::Met(socket) => socket,
            Visited::Nobody | Visited::Busy => panic!("nobody is there"),
        }
    }

    fn herald(topic: &str, id: u8) -> (Herald, HeardSoFar) {
        let heard = HeardSoFar::default();
        let herald = Herald::start(ours(topic, id), Box::new(Notes(Arc::clone(&heard)))).unwrap();
        (herald, heard)
    }

    /// Waits until as much was heard, and gives it in order.
    fn wait(heard: &HeardSoFar, count: usize) -> Vec<(u8, bool)> {
        let end = Instant::now() + PATIENCE;
        while lock(heard).len() < count && Instant::now() < end {
            thread::yield_now();
        }
        let mut heard = lock(heard).clone();
        heard.sort_unstable();
        heard
    }

    #[test]
    fn who_comes_finds_those_who_are_there_and_is_found_and_missed() {
        let topic = topic();
        let (first, heard_first) = herald(&topic, 1);
        let (second, heard_second) = herald(&topic, 2);
        assert_eq!(*lock(&heard_second), [(1, true)], "known when it is built");
        assert_eq!(wait(&heard_first, 1), [(2, true)]);
        let found = announced(&topic).unwrap();
        assert_eq!(found, (vec![ours(&topic, 1), ours(&topic, 2)], 0));
        let (third, heard_third) = herald(&topic, 3);
        assert_eq!(wait(&heard_third, 2), [(1, true), (2, true)]);
        drop(second);
        assert_eq!(wait(&heard_first, 3), [(2, false), (2, true), (3, true)]);
        drop((first, third));
        assert_eq!(announced(&topic).unwrap().0, []);
    }

    #[test]
    fn many_that_come_at_once_all_find_each_other() {
        let topic = topic();
        let joined: Vec<_> = thread::scope(|scope| {
            let topic = &topic;
            let threads = (0..8).map(|id| scope.spawn(move || (id, herald(topic, id))));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (id, (_, heard)) in &joined {
            let others: Vec<_> =
                (0..8).filter(|other| other != id).map(|other| (other, true)).collect();
            assert_eq!(wait(heard, 7), others);
        }
    }

    #[test]
    fn strangers_and_liars_are_counted_and_not_heard() {
        let topic = topic();
        let (herald, heard) = herald(&topic, 1);
        let good = ours(&topic, 2);
        let mut liars = [good.clone(), good.clone(), good.clone(), good.clone()];
        liars[0].user += 1;
        liars[1].host.boot[0] ^= 1;
        liars[2].greeting.topic.push('x');
        liars[3].greeting.id = [1; 16];
        let mut words: Vec<Vec<u8>> = liars
            .iter()
            .map(|liar| {
                let mut word = Vec::new();
                liar.write(&mut word);
                word
            })
            .collect();
        words.push(b"nonsense".to_vec());
        words.push(vec![0; 4_000]);
        for word in &words {
            let socket = met(&topic);
            send(&socket, word, SendFlags::NOSIGNAL).unwrap();
            // It is cut off, behind the word that it was greeted with.
            let mut bytes = [0; 2_000];
            loop {
                let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], None);
                if !matches!(recv(&socket, &mut bytes[..], RecvFlags::empty()), Ok((1.., _))) {
                    break;
                }
            }
        }
        assert_eq!(herald.counts.malformed.load(Ordering::Relaxed), words.len() as u64);
        assert_eq!(*lock(&heard), []);
        // One that says nothing is let go too, and harms nobody else.
        let silent = met(&topic);
        let (_other, others) = self::herald(&topic, 3);
        assert_eq!(wait(&others, 1), [(1, true)]);
        drop(silent);
    }

    #[test]
    fn who_says_two_things_is_cut_off() {
        let topic = topic();
        let (_herald, heard) = herald(&topic, 1);
        let socket = met(&topic);
        let mut word = Vec::new();
        ours(&topic, 2).write(&mut word);
        send(&socket, &word, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(wait(&heard, 1), [(2, true)]);
        send(&socket, &word, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(wait(&heard, 2), [(2, false), (2, true)]);
    }

    #[test]
    fn who_stood_still_is_found_when_it_goes_on() {
        let topic = topic();
        let (_, still) = take_place(&topic).unwrap();
        let (_herald, heard) = herald(&topic, 1);
        let come = || {
            let _ = poll(&mut [PollFd::new(&still, PollFlags::IN)], None);
            accept_with(&still, SocketFlags::CLOEXEC).unwrap()
        };
        // It has no time for the first visit, which ends by itself.
        let first = come();
        let second = come();
        let mut word = Vec::new();
        ours(&topic, 2).write(&mut word);
        send(&second, &word, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(wait(&heard, 1), [(2, true)]);
        drop((first, second));
    }

    #[test]
    fn a_place_with_too_many_at_its_door_is_not_taken_for_an_empty_one() {
        let topic = topic();
        assert!(matches!(visit(&topic, 0), Ok(Visited::Nobody)));
        let listener = socket().unwrap();
        bind(&listener, &address(&topic, 0).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        let _waits = met(&topic);
        assert!(matches!(visit(&topic, 0), Ok(Visited::Busy)));
    }

    #[test]
    fn a_system_without_descriptors_gives_the_thread_a_rest() {
        let topic = topic();
        let taken = take_place(&topic).unwrap();
        let mut state = State::new(ours(&topic, 1), taken, Box::new(Notes(HeardSoFar::default())));
        state.visit().unwrap();
        let bell = bell().unwrap();
        let _waiting = met(&topic);
        let mut calls = 0;
        state.accept_by(|_| {
            calls += 1;
            Err(if calls < 3 { Errno::CONNABORTED } else { Errno::MFILE })
        });
        assert_eq!((calls, state.rests_until > now()), (3, true));
        // Somebody waits at the door; while the thread rests that is no reason to wake.
        state.rests_until = now().after(10 * PATIENCE);
        state.turn(&bell, Some(Duration::from_millis(1)));
        assert_eq!(state.sockets.len(), 0);
        state.rests_until = Timestamp::START;
        state.turn(&bell, None);
        assert_eq!(state.sockets.len(), 1);
        // However many are lost at the door, a turn ends.
        let mut calls = 0;
        state.accept_by(|_| {
            calls += 1;
            Err(Errno::CONNABORTED)
        });
        assert_eq!((calls, state.rests_until), (ACCEPTS_MAX, Timestamp::START));
        let many: Vec<_> = (0..20).map(|_| met(&topic)).collect();
        state.turn(&bell, None);
        assert_eq!(state.sockets.len(), 1 + ACCEPTS_MAX);
        drop(many);
    }

    #[test]
    fn places_are_bounded() {
        let topic = topic();
        let all: Vec<_> = (0..PARTICIPANTS_MAX).map(|_| take_place(&topic).unwrap()).collect();
        assert!(matches!(take_place(&topic), Err(HeraldError::Full)));
        drop(all);
        assert_eq!(take_place(&topic).unwrap().0, 0);
    }
}
