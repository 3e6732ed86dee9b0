//! The thread of a participant that greets others and notices when they are gone. It is no part of
//! the way of a message: it sleeps while nobody comes or goes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::greet::{Greeting, GreetingError, Kind, Policy, digest};
use super::join::{Echo, JoinError, Namesakes, SegmentError};
use super::layout::{Geometry, PEERS_MAX, SUBSCRIBER_WORDS, check_subscriber};
use super::map::View;
use super::meet::{self, Access, Heard, PARTICIPANTS_MAX};
use super::prompt::ShortTurns;
use super::shared::{ReaderPeer, Shared, WriterPeer, head, published};

/// Sockets that a keeper has open at most: for each participant what it attached to, who attached,
/// and what is being said.
const LINKS_MAX: usize = 4 * PARTICIPANTS_MAX as usize;
/// Visitors that are let in at once; others wait for the next turn, behind those who are heard.
const ADMITTED_MAX: usize = 64;
/// How long nobody is let in when the system has no descriptors left, or no memory, and a place with
/// too many at its door is left alone: who is ready and cannot be served would wake the thread for ever.
const REST: Duration = Duration::from_millis(100);
/// How often the start of a subscription is looked for before what there is has to do.
const STARTS_MAX: usize = 8;

/// What a keeper is made of.
pub(super) struct KeeperParts {
    pub(super) shared: Arc<Shared>,
    pub(super) listener: OwnedFd,
    pub(super) place: u8,
    pub(super) topic: String,
    pub(super) echo: Echo,
    pub(super) access: Access,
    pub(super) namesakes: Namesakes,
}

/// One socket and what it is for.
struct Link {
    socket: OwnedFd,
    state: State,
}

enum State {
    /// Accepted; it has said nothing yet.
    Fresh,
    /// We asked it for its messages; `call` is what answers to this.
    Attaching { lane: usize, serial: u64, is_first: bool },
    /// We hear it.
    Writer(Arc<WriterPeer>),
    /// It hears us.
    Reader(Arc<ReaderPeer>),
    /// We asked it to attach.
    Calling { is_first: bool },
    /// It asked us to attach, which attempt `serial` does.
    Called { serial: u64 },
    /// To be closed.
    Ended,
}

/// The thread's state.
pub(super) struct Keeper {
    parts: KeeperParts,
    links: Vec<Link>,
    serial: u64,
    /// Places that had too many at the door, to be visited again.
    busy: Vec<u8>,
    /// Until when nobody is let in, or visited again.
    rests_until: Option<Instant>,
}

/// What a wait has to say.
enum News {
    Over,
    Tasks,
    Visitor,
    Link(usize),
}

impl Keeper {
    pub(super) const fn new(parts: KeeperParts) -> Self {
        Self { parts, links: Vec::new(), serial: 0, busy: Vec::new(), rests_until: None }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.parts.shared
    }

    /// Greets until the participant leaves.
    pub(super) fn run(mut self) {
        // Whoever joins waits for it.
        let _turns = ShortTurns::take();
        if let Err(error) = self.introduce() {
            self.shared().end_joining(Some(error));
            return;
        }
        loop {
            self.links.retain(|link| !matches!(link.state, State::Ended));
            if !self.links.iter().any(|link| link.state.is_first()) {
                self.shared().end_joining(None);
            }
            for news in self.wait() {
                match news {
                    News::Over if self.shared().is_over.load(Ordering::Acquire) => return,
                    News::Over => meet::quiet(&self.shared().keeper_bell),
                    News::Tasks => {
                        meet::quiet(&self.shared().task_bell);
                        self.shared().wake_tasks();
                    }
                    News::Visitor => self.admit(),
                    News::Link(at) => self.listen(at),
                }
            }
            if self.rests_until.is_some_and(|until| Instant::now() >= until) {
                self.rests_until = None;
                self.visit_again();
            }
        }
    }

    fn rest(&mut self) {
        self.rests_until = Some(Instant::now() + REST);
    }

    /// Visits every place of the topic.
    fn introduce(&mut self) -> Result<(), JoinError> {
        let (mut stranger, mut is_met) = (None, false);
        for place in 0..PARTICIPANTS_MAX {
            let is_self = place == self.parts.place;
            match self.meet(place, true)? {
                Some(owner) if owner.is_welcome => is_met |= !is_self,
                Some(owner) => stranger = Some(owner.uid),
                None => {}
            }
        }
        match stranger {
            Some(uid) if !is_met && self.parts.namesakes == Namesakes::Refuse => {
                Err(JoinError::AnotherUser { topic: self.parts.topic.clone(), uid })
            }
            _ => Ok(()),
        }
    }

    /// Visits a place: who is there, if anybody.
    fn meet(&mut self, place: u8, is_first: bool) -> io::Result<Option<meet::Owner>> {
        let is_self = place == self.parts.place;
        if is_self && self.parts.echo == Echo::Off {
            return Ok(None);
        }
        let Some(socket) = self.visit(place)? else { return Ok(None) };
        let owner = meet::owner(socket.as_fd(), self.parts.access)?;
        if owner.is_welcome {
            if self.shared().inbox.is_some() {
                self.attach(socket, is_first);
            }
            if self.shared().outbox.is_some() && !is_self {
                self.call(place, is_first)?;
            }
        }
        Ok(Some(owner))
    }

    /// A connection to a place. One with too many at its door is remembered: whoever is there may have
    /// stood still, and goes on.
    fn visit(&mut self, place: u8) -> io::Result<Option<OwnedFd>> {
        match meet::visit(&self.parts.topic, place) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !self.busy.contains(&place) {
                    self.busy.push(place);
                }
                self.rest();
                Ok(None)
            }
            visited => visited,
        }
    }

    /// Visits the places that had too many at the door.
    fn visit_again(&mut self) {
        for place in std::mem::take(&mut self.busy) {
            // Without descriptors it is tried again later too.
            if self.meet(place, false).is_err() {
                self.busy.push(place);
                self.rest();
            }
        }
    }

    /// Asks a participant for its messages; returns the attempt's number, `None` when it failed.
    fn attach(&mut self, socket: OwnedFd, is_first: bool) -> Option<u64> {
        let shared = Arc::clone(self.shared());
        let inbox = shared.inbox.as_ref()?;
        let lane = shared.take_lane()?;
        let mut greeting = self.greeting(Kind::Attach);
        greeting.policy = shared.policy;
        greeting.lane = lane as u8;
        let with = [inbox.file(), shared.bell.as_fd(), shared.task_bell.as_fd()];
        if meet::send(socket.as_fd(), &greeting, &with).is_err() {
            shared.free_lane(lane);
            return None;
        }
        self.serial += 1;
        let state = State::Attaching { lane, serial: self.serial, is_first };
        self.links.push(Link { socket, state });
        Some(self.serial)
    }

    /// Asks a participant to attach to us.
    fn call(&mut self, place: u8, is_first: bool) -> io::Result<()> {
        let Some(socket) = self.visit(place)? else { return Ok(()) };
        let mut greeting = self.greeting(Kind::Call);
        greeting.place = self.parts.place;
        if meet::send(socket.as_fd(), &greeting, &[]).is_ok() {
            self.links.push(Link { socket, state: State::Calling { is_first } });
        }
        Ok(())
    }

    fn greeting(&self, kind: Kind) -> Greeting {
        Greeting::new(kind, self.shared().id, self.shared().identity.clone())
    }

    /// Sleeps until somebody has something to say.
    fn wait(&self) -> Vec<News> {
        let shared = self.shared();
        let mut wanted = Vec::with_capacity(self.links.len() + 3);
        let listens = if self.rests_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        wanted.push(PollFd::new(&shared.keeper_bell, PollFlags::IN));
        wanted.push(PollFd::new(&shared.task_bell, PollFlags::IN));
        wanted.push(PollFd::new(&self.parts.listener, listens));
        wanted.extend(self.links.iter().map(|link| PollFd::new(&link.socket, PollFlags::IN)));
        let left = self.rests_until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        if poll(&mut wanted, left.as_ref()).is_err() {
            return Vec::new();
        }
        let rung = wanted.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
        rung.map(|(at, _)| match at {
            0 => News::Over,
            1 => News::Tasks,
            2 => News::Visitor,
            _ => News::Link(at - 3),
        })
        .collect()
    }

    /// Lets visitors in, unless they belong to somebody who may not take part.
    fn admit(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        self.admit_by(|keeper| accept_with(&keeper.parts.listener, flags));
    }

    fn admit_by(&mut self, mut next: impl FnMut(&Self) -> Result<OwnedFd, Errno>) {
        for _ in 0..ADMITTED_MAX {
            let socket = match next(self) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(_) => return self.rest(),
            };
            let owner = meet::owner(socket.as_fd(), self.parts.access);
            let is_welcome = owner.is_ok_and(|owner| owner.is_welcome);
            // The visitor finds out by the end of the connection; it looked at our user itself.
            if is_welcome && self.links.len() < LINKS_MAX {
                self.links.push(Link { socket, state: State::Fresh });
            }
        }
    }

    /// Hears what a link has to say, all of it.
    fn listen(&mut self, at: usize) {
        while let Some(link) = self.links.get(at).filter(|link| !matches!(link.state, State::Ended))
        {
            match meet::receive(link.socket.as_fd()) {
                None => return,
                Some(Heard::Gone) => self.end(at),
                // Who speaks nonsense is treated as one that is gone.
                Some(Heard::Nonsense(error)) => {
                    self.shared().refuse(error);
                    self.tell_version(at, error);
                    self.end(at);
                }
                Some(Heard::Greeting(greeting, with)) => self.answer(at, &greeting, with),
            }
        }
    }

    /// Of two that speak different versions both learn it: who comes by the answer, whose version it
    /// cannot read either, and who is visited by what it could not read.
    fn tell_version(&self, at: usize, error: GreetingError) {
        let GreetingError::Version(_) = error else { return };
        match self.links.get(at).map(|link| &link.state) {
            Some(State::Fresh) => self.reply(at, Kind::Nothing),
            Some(state) if state.is_first() => {
                let topic = self.parts.topic.clone();
                self.shared().end_joining(Some(JoinError::AnotherVersion { topic, source: error }));
            }
            _ => {}
        }
    }

    /// A link is over: what hung on it is let go.
    fn end(&mut self, at: usize) {
        let Some(link) = self.links.get_mut(at) else { return };
        match std::mem::replace(&mut link.state, State::Ended) {
            State::Writer(writer) => self.shared().writer_gone(&writer),
            State::Reader(reader) => {
                self.shared().readers.remove(&reader);
                meet::ring(&self.shared().room_bell);
            }
            State::Attaching { lane, serial, .. } => {
                self.shared().free_lane(lane);
                self.resolve(serial);
            }
            State::Fresh | State::Calling { .. } | State::Called { .. } | State::Ended => {}
        }
    }

    /// An attempt to attach has ended, well or not: who called for it learns so.
    fn resolve(&mut self, ended: u64) {
        let done = self.greeting(Kind::Done);
        for link in &mut self.links {
            if matches!(link.state, State::Called { serial } if serial == ended) {
                // A caller that is gone needs no answer.
                let _ = meet::send(link.socket.as_fd(), &done, &[]);
                link.state = State::Ended;
            }
        }
    }

    fn answer(&mut self, at: usize, greeting: &Greeting, with: Vec<OwnedFd>) {
        let Some(link) = self.links.get(at) else { return };
        let is_same = greeting.identity == self.shared().identity;
        match (&link.state, greeting.kind) {
            (State::Fresh, Kind::Attach | Kind::Call) if !is_same => {
                self.reply(at, Kind::AnotherType);
                self.end(at);
            }
            (State::Fresh, Kind::Attach) => {
                if self.welcome(at, greeting, with).is_none() {
                    self.reply(at, Kind::Nothing);
                    self.end(at);
                }
            }
            (State::Fresh, Kind::Call) => self.called(at, greeting),
            (State::Attaching { lane, serial, is_first }, Kind::Welcome) if is_same => {
                let (lane, serial, is_first) = (*lane, *serial, *is_first);
                match self.hear(greeting, with, lane) {
                    Ok(Some(writer)) => self.set(at, State::Writer(writer)),
                    Ok(None) => {
                        self.shared().free_lane(lane);
                        self.set(at, State::Ended);
                    }
                    Err(source) => {
                        self.shared().free_lane(lane);
                        self.shared().refuse(GreetingError::Field("segment"));
                        if is_first {
                            let topic = self.parts.topic.clone();
                            let error = JoinError::Segment { topic, source };
                            self.shared().end_joining(Some(error));
                        }
                        self.set(at, State::Ended);
                    }
                }
                self.resolve(serial);
            }
            (State::Attaching { is_first, .. } | State::Calling { is_first }, _) if !is_same => {
                if *is_first {
                    let error = self.another_type(greeting);
                    self.shared().end_joining(Some(error));
                }
                self.end(at);
            }
            _ => self.end(at),
        }
    }

    fn set(&mut self, at: usize, state: State) {
        if let Some(link) = self.links.get_mut(at) {
            link.state = state;
        }
    }

    fn another_type(&self, theirs: &Greeting) -> JoinError {
        JoinError::AnotherType {
            topic: self.parts.topic.clone(),
            theirs: theirs.identity.to_string(),
            ours: self.shared().identity.to_string(),
        }
    }

    fn reply(&self, at: usize, kind: Kind) {
        if let Some(link) = self.links.get(at) {
            // Who does not take its answer finds the connection closed.
            let _ = meet::send(link.socket.as_fd(), &self.greeting(kind), &[]);
        }
    }

    /// A subscriber attaches to us. It stands in the list before it hears of it, so that no message
    /// after its start is published without regard for it.
    fn welcome(&mut self, at: usize, greeting: &Greeting, with: Vec<OwnedFd>) -> Option<()> {
        let shared = Arc::clone(self.shared());
        let (outbox, geometry) = shared.outbox.as_ref()?;
        let [file, bell, task_bell] = <[OwnedFd; 3]>::try_from(with).ok()?;
        let lane = usize::from(greeting.lane);
        let view = View::open(file.as_fd(), SUBSCRIBER_WORDS as u64 * 8).ok()?;
        check_subscriber(head(&view)).ok()?;
        if lane >= PEERS_MAX {
            return None;
        }
        let policy = greeting.policy;
        let reader = Arc::new(ReaderPeer { view, lane, policy, bell, task_bell });
        if !shared.readers.add(&reader, PEERS_MAX) {
            return None;
        }
        let mut answer = self.greeting(Kind::Welcome);
        answer.segment_bytes = geometry.bytes() as u64;
        let link = self.links.get_mut(at)?;
        let with: [BorrowedFd<'_>; 2] = [outbox.file(), shared.room_bell.as_fd()];
        let sent = meet::send(link.socket.as_fd(), &answer, &with);
        link.state = State::Reader(reader);
        if sent.is_err() {
            self.end(at);
        }
        Some(())
    }

    /// A publisher asks us to attach to it.
    fn called(&mut self, at: usize, greeting: &Greeting) {
        let shared = Arc::clone(self.shared());
        let is_heard = |writer: &WriterPeer| {
            writer.id == greeting.id && !writer.is_gone.load(Ordering::Relaxed)
        };
        let wants = shared.inbox.is_some() && !shared.writers.any(is_heard);
        let socket = if wants { meet::visit(&self.parts.topic, greeting.place) } else { Ok(None) };
        let socket = socket.ok().flatten().filter(|socket| {
            meet::owner(socket.as_fd(), self.parts.access).is_ok_and(|owner| owner.is_welcome)
        });
        match socket.and_then(|socket| self.attach(socket, false)) {
            Some(serial) => self.set(at, State::Called { serial }),
            None => {
                self.reply(at, Kind::Done);
                self.end(at);
            }
        }
    }

    /// A publisher welcomes us: its segment is looked at and read from now on. `None` where it is heard
    /// already, or there is no room.
    fn hear(
        &self,
        greeting: &Greeting,
        with: Vec<OwnedFd>,
        lane: usize,
    ) -> Result<Option<Arc<WriterPeer>>, SegmentError> {
        let shared = self.shared();
        let Ok([file, bell]) = <[OwnedFd; 2]>::try_from(with) else { return Ok(None) };
        if shared.writers.any(|writer| writer.id == greeting.id) {
            return Ok(None);
        }
        let view = View::open(file.as_fd(), greeting.segment_bytes)?;
        let geometry = Geometry::parse(head(&view), greeting.segment_bytes)?;
        if geometry.identity() != digest(&shared.identity) {
            return Err(SegmentError::Type);
        }
        let (start, joined_at) = self.start(&view, &geometry, lane);
        let is_gone = AtomicBool::new(false);
        let id = greeting.id;
        let writer =
            Arc::new(WriterPeer { id, view, geometry, lane, bell, start, joined_at, is_gone });
        if !shared.writers.add(&writer, PEERS_MAX) {
            return Ok(None);
        }
        shared.stir();
        Ok(Some(writer))
    }

    /// The message to begin with, and the first one that is new. The cursor is set when either the
    /// publisher regards it from now on, or no message that it names has been overwritten.
    fn start(&self, view: &View, geometry: &Geometry, lane: usize) -> (u64, u64) {
        let shared = self.shared();
        let words = view.words(geometry.words());
        let mut joined_at = published(words);
        let mut start = joined_at;
        for _ in 0..STARTS_MAX {
            start = joined_at.saturating_sub(shared.history.min(geometry.slots() / 2));
            shared.set_cursor(lane, start);
            shared.barrier.heavy();
            let now = published(words);
            if shared.policy == Policy::Overwrite || now - start.min(now) < geometry.slots() {
                break;
            }
            joined_at = now;
        }
        (start, joined_at)
    }
}

impl State {
    /// Whether joining waits for it.
    const fn is_first(&self) -> bool {
        matches!(self, Self::Attaching { is_first: true, .. } | Self::Calling { is_first: true })
    }
}

#[cfg(test)]
mod tests {
    use super::super::greet::{Form, Identity};
    use super::super::shared::Parts;
    use super::*;

    fn keeper(topic: &str) -> Keeper {
        let name = "test".to_owned();
        let identity = Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name };
        let policy = Policy::Overwrite;
        let parts = Parts { id: [1; 16], identity, policy, history: 0, outbox: None, inbox: None };
        let (place, listener) = meet::take_place(topic).unwrap().unwrap();
        Keeper::new(KeeperParts {
            shared: Arc::new(Shared::new(parts).unwrap()),
            listener,
            place,
            topic: topic.to_owned(),
            echo: Echo::Off,
            access: Access::User,
            namesakes: Namesakes::Refuse,
        })
    }

    #[test]
    fn a_system_without_descriptors_gives_the_thread_a_rest() {
        let topic = format!("test/keeper/rest/{}", std::process::id());
        let mut keeper = keeper(&topic);
        let _waiting = meet::visit(&topic, keeper.parts.place).unwrap().unwrap();
        let mut calls = 0;
        keeper.admit_by(|_| {
            calls += 1;
            Err(if calls < 3 { Errno::CONNABORTED } else { Errno::MFILE })
        });
        assert_eq!((calls, keeper.rests_until.is_some()), (3, true));
        // Somebody waits at the door; while the thread rests that is no news.
        assert!(keeper.wait().is_empty());
        keeper.rests_until = None;
        assert!(matches!(keeper.wait()[..], [News::Visitor]));
        keeper.admit();
        assert_eq!(keeper.links.len(), 1);
    }

    #[test]
    fn however_many_are_lost_at_the_door_a_turn_ends() {
        let mut keeper = keeper(&format!("test/keeper/turn/{}", std::process::id()));
        let mut calls = 0;
        keeper.admit_by(|_| {
            calls += 1;
            Err(Errno::CONNABORTED)
        });
        assert_eq!((calls, keeper.rests_until), (ADMITTED_MAX, None));
    }

    #[test]
    fn a_place_with_too_many_at_its_door_is_visited_again() {
        let topic = format!("test/keeper/busy/{}", std::process::id());
        let (place, door) = meet::take_place(&topic).unwrap().unwrap();
        rustix::net::listen(&door, 0).unwrap();
        let waits = meet::visit(&topic, place).unwrap().unwrap();
        let mut keeper = keeper(&topic);
        assert!(keeper.meet(place, true).unwrap().is_none());
        assert_eq!((&keeper.busy[..], keeper.rests_until.is_some()), (&[place][..], true));
        keeper.visit_again();
        assert_eq!(keeper.busy, [place], "it is full as before");
        drop((waits, accept_with(&door, SocketFlags::CLOEXEC).unwrap()));
        keeper.visit_again();
        assert_eq!(keeper.busy, []);
        assert!(accept_with(&door, SocketFlags::CLOEXEC).is_ok(), "it came");
    }
}
