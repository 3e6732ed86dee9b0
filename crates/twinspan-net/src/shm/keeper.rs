//! The thread of a participant that greets others and notices when they are gone. It is no part of
//! the way of a message: it sleeps while nobody comes or goes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};

use super::greet::{Greeting, Kind, Policy, digest};
use super::join::{Echo, JoinError, Namesakes};
use super::layout::{Geometry, PEERS_MAX, SUBSCRIBER_WORDS, check_subscriber};
use super::map::View;
use super::meet::{self, Access, Heard, PARTICIPANTS_MAX};
use super::shared::{ReaderPeer, Shared, WriterPeer, head, published};

/// Sockets that a keeper has open at most: for each participant what it attached to, who attached,
/// and what is being said.
const LINKS_MAX: usize = 4 * PARTICIPANTS_MAX as usize;
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
        Self { parts, links: Vec::new(), serial: 0 }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.parts.shared
    }

    /// Greets until the participant leaves.
    pub(super) fn run(mut self) {
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
        }
    }

    /// Visits every place of the topic.
    fn introduce(&mut self) -> Result<(), JoinError> {
        let (mut stranger, mut is_met) = (None, false);
        for place in 0..PARTICIPANTS_MAX {
            let is_self = place == self.parts.place;
            if is_self && self.parts.echo == Echo::Off {
                continue;
            }
            let Some(socket) = meet::visit(&self.parts.topic, place)? else { continue };
            let owner = meet::owner(socket.as_fd(), self.parts.access)?;
            if !owner.is_welcome {
                stranger = Some(owner.uid);
                continue;
            }
            is_met |= !is_self;
            if self.shared().inbox.is_some() {
                self.attach(socket, true);
            }
            if self.shared().outbox.is_some() && !is_self {
                self.call(place)?;
            }
        }
        match stranger {
            Some(uid) if !is_met && self.parts.namesakes == Namesakes::Refuse => {
                Err(JoinError::AnotherUser { topic: self.parts.topic.clone(), uid })
            }
            _ => Ok(()),
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
    fn call(&mut self, place: u8) -> io::Result<()> {
        let Some(socket) = meet::visit(&self.parts.topic, place)? else { return Ok(()) };
        let mut greeting = self.greeting(Kind::Call);
        greeting.place = self.parts.place;
        if meet::send(socket.as_fd(), &greeting, &[]).is_ok() {
            self.links.push(Link { socket, state: State::Calling { is_first: true } });
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
        let fixed = [&shared.keeper_bell, &shared.task_bell, &self.parts.listener];
        wanted.extend(fixed.map(|fd| PollFd::new(fd, PollFlags::IN)));
        wanted.extend(self.links.iter().map(|link| PollFd::new(&link.socket, PollFlags::IN)));
        if poll(&mut wanted, None).is_err() {
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

    /// Accepts a visitor, unless it belongs to somebody who may not take part.
    fn admit(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = accept_with(&self.parts.listener, flags) {
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
                    self.end(at);
                }
                Some(Heard::Greeting(greeting, with)) => self.answer(at, &greeting, with),
            }
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
            (State::Attaching { lane, serial, .. }, Kind::Welcome) if is_same => {
                let (lane, serial) = (*lane, *serial);
                match self.hear(greeting, with, lane) {
                    Some(writer) => self.set(at, State::Writer(writer)),
                    None => {
                        self.shared().free_lane(lane);
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

    /// A publisher welcomes us: its segment is looked at and read from now on.
    fn hear(
        &self,
        greeting: &Greeting,
        with: Vec<OwnedFd>,
        lane: usize,
    ) -> Option<Arc<WriterPeer>> {
        let shared = self.shared();
        let [file, bell] = <[OwnedFd; 2]>::try_from(with).ok()?;
        if shared.writers.any(|writer| writer.id == greeting.id) {
            return None;
        }
        let view = View::open(file.as_fd(), greeting.segment_bytes).ok()?;
        let geometry = Geometry::parse(head(&view), greeting.segment_bytes).ok()?;
        if geometry.identity() != digest(&shared.identity) {
            return None;
        }
        let (start, joined_at) = self.start(&view, &geometry, lane);
        let is_gone = AtomicBool::new(false);
        let id = greeting.id;
        let writer =
            Arc::new(WriterPeer { id, view, geometry, lane, bell, start, joined_at, is_gone });
        if !shared.writers.add(&writer, PEERS_MAX) {
            return None;
        }
        shared.stir();
        Some(writer)
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
