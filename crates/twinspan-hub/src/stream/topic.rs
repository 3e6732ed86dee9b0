//! One topic over streams: its peers, what is published to them and taken from them, and how it goes
//! on after a stream broke.
//!
//! //= hub 9.3

use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_topic::{Disagreement, Greeting, Room, Taken, copy_to, publisher_of};

use super::inbound::{Inbound, Window};
use super::link::{Begin, Link, Pieces, Times};
use super::log::Log;
use super::wire::{EndReason, FrameError, Hello, Kind, Standing};
use crate::compress::{CompressionStats, Packer, Unpacker, Unpacks};
use crate::ends::{Ends, PairEnd};
use crate::seal::Declined;

/// Peers that a topic knows at a time, those whose streams broke included.
pub(crate) const PEERS_MAX: usize = 256;
/// How long a subscriber may keep to itself what it received.
const ACK_DELAY: Duration = Duration::from_millis(20);

/// What a topic is.
#[derive(Debug)]
pub(crate) struct TopicConfig {
    /// What this side says of itself.
    pub(crate) greeting: Greeting,
    pub(crate) publishes: bool,
    pub(crate) receives: bool,
    /// Whether publishing waits for subscribers instead of forgetting what they did not get.
    pub(crate) is_reliable: bool,
    pub(crate) message_bytes_max: usize,
    pub(crate) depth: u32,
    pub(crate) history: u32,
    /// How long it waits, when it is left, until the others have what it published.
    pub(crate) linger: Duration,
    pub(crate) times: Times,
}

/// A stream of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId {
    peer: usize,
    /// Which of all streams.
    generation: u64,
}

/// A peer.
#[derive(Debug)]
struct Peer {
    id: [u8; 16],
    inbound: Inbound,
    link: Option<Link>,
    /// Its last stream; 0 before the first.
    generation: u64,
    /// The number that all messages before were received by it; `None` for one that takes none, left,
    /// or was waited for in vain.
    acked: Option<u64>,
    /// Messages that its log keeps.
    depth: u64,
    /// When its stream broke.
    broke_at: Timestamp,
    /// It said that it left.
    has_left: bool,
}

impl Peer {
    /// Whether there is nothing left to know it for.
    fn is_spent(&self) -> bool {
        self.link.is_none() && self.has_left && self.inbound.is_empty()
    }

    /// Its stream ended.
    fn lost(&self) -> PairEnd {
        let (peer, expected) = (publisher_of(self.id), Some(self.inbound.wanted()));
        PairEnd { peer, reason: None, expected, published: None }
    }

    /// It is waited for no more; the next message has this number.
    fn given_up(&self, next: u64) -> PairEnd {
        let (peer, published) = (publisher_of(self.id), Some(next));
        PairEnd { peer, reason: None, expected: None, published }
    }
}

/// Why a stream is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The ends do not agree.
    Disagreement(Disagreement),
    /// One end packs with what the other cannot undo.
    Compression,
    /// There are too many peers.
    Full,
    /// It is this very hub.
    Oneself,
    /// Another stream brought messages since this one was greeted: it is greeted anew.
    Outdated,
    /// This side leaves, and owes the peer nothing.
    Leaving,
}

impl Refusal {
    /// What is told to the peer.
    pub(crate) const fn reason(&self) -> EndReason {
        match self {
            Self::Full => EndReason::Full,
            Self::Outdated => EndReason::Replaced,
            Self::Leaving => EndReason::Left,
            _ => EndReason::Disagreement,
        }
    }
}

/// The log is full of messages that a subscriber did not get yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogFull;

/// What a topic did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicStats {
    pub(crate) published: u64,
    pub(crate) taken: u64,
    /// Messages that publishers said and that did not come, or waited for too long.
    pub(crate) lost: u64,
    /// Messages that could not be unpacked, or had no room.
    pub(crate) corrupt: u64,
    /// Peers forgotten while they were waited for.
    pub(crate) forgotten: u64,
    /// Streams that ended without a goodbye.
    pub(crate) ended: u64,
    /// Streams that began where one of the same peer had broken.
    pub(crate) resumed: u64,
    /// Streams that were not let in because the ends do not agree, or there was no room.
    pub(crate) declined: u64,
}

/// A topic over streams.
///
/// For each stream: read into [`space`](Self::space), tell [`filled`](Self::filled), write what
/// [`transmit`](Self::transmit) gives and tell [`sent`](Self::sent), until [`over`](Self::over) or
/// until [`broke`](Self::broke) is told.
#[derive(Debug)]
pub(crate) struct Topic {
    config: TopicConfig,
    log: Log,
    packer: Packer,
    unpacker: Unpacker,
    unpacks: Unpacks,
    window: Window,
    peers: Vec<Option<Peer>>,
    /// Whose turn it is to be taken from.
    turn: usize,
    /// Messages that wait, of all peers.
    waiting: usize,
    /// Taking a message made room that a peer should hear of.
    has_words: bool,
    /// Streams that were let in.
    links: u64,
    is_leaving: bool,
    stats: TopicStats,
    /// Who was not let in last.
    declined: Option<Declined>,
    /// Streams that ended and peers that were given up, for scenarios.
    ends: Ends,
}

impl Topic {
    pub(crate) fn new(config: TopicConfig, packer: Packer, dictionary: Option<&[u8]>) -> Self {
        let log_depth = if config.publishes { config.depth } else { 1 };
        let log_bytes = if config.publishes { config.message_bytes_max } else { 0 };
        let window = if config.receives {
            Window::new(config.depth, config.message_bytes_max)
        } else {
            Window { messages: 0, bytes: 0 }
        };
        Self {
            log: Log::new(log_depth, log_bytes),
            unpacker: Unpacker::new(dictionary),
            unpacks: Unpacks::ours(dictionary),
            packer,
            window,
            config,
            peers: Vec::new(),
            turn: 0,
            waiting: 0,
            has_words: false,
            links: 0,
            is_leaving: false,
            stats: TopicStats::default(),
            declined: None,
            ends: Ends::default(),
        }
    }

    pub(crate) const fn config(&self) -> &TopicConfig {
        &self.config
    }

    /// The first frame for a peer: the one with this id where it is known who it will be.
    pub(crate) fn hello(&self, to: Option<[u8; 16]>) -> Hello {
        let known = to.and_then(|id| self.peers.iter().flatten().find(|peer| peer.id == id));
        let known = known.filter(|peer| peer.inbound.has_begun());
        let fresh = Inbound::new(self.window).fresh_credit();
        let standing = Standing {
            dictionary: self.unpacks.dictionary,
            depth: if self.config.publishes { self.config.depth } else { 0 },
            publisher: known.map_or([0; 16], |peer| peer.id),
            credit: known.map_or(fresh, |peer| peer.inbound.fresh_credit()),
        };
        Hello { greeting: self.config.greeting.clone(), standing }
    }

    /// Whether a peer that says this agrees.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub(crate) fn check(&self, theirs: &Hello) -> Result<(), Refusal> {
        let ours = &self.config.greeting;
        if theirs.greeting.id == ours.id {
            return Err(Refusal::Oneself);
        }
        // Who was told that nothing follows forgot this side, and would get history anew; who is owed
        // something may come back for it.
        let mut known = self.peers.iter().flatten().filter(|peer| peer.id == theirs.greeting.id);
        if self.is_leaving && !known.any(|peer| peer.acked.is_some()) {
            return Err(Refusal::Leaving);
        }
        ours.agrees_with(&theirs.greeting).map_err(Refusal::Disagreement)?;
        let undoes = Unpacks {
            codecs: theirs.greeting.compressions.0,
            dictionary: theirs.standing.dictionary,
        };
        let goes_out = self.config.publishes && theirs.greeting.receives;
        if goes_out && !undoes.undoes(self.packer.packs()) {
            return Err(Refusal::Compression);
        }
        Ok(())
    }

    /// Lets a stream in whose ends said this to each other.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub(crate) fn admit(
        &mut self,
        now: Timestamp,
        theirs: &Hello,
        ours: &Standing,
    ) -> Result<LinkId, Refusal> {
        let admitted = self.let_in(now, theirs, ours);
        if let Err(refusal) = &admitted {
            self.note(refusal);
        }
        admitted
    }

    /// Keeps what somebody has to mend, for who asks why nothing comes.
    fn note(&mut self, refusal: &Refusal) {
        let why = match refusal {
            Refusal::Disagreement(why) => Some(why.clone()),
            Refusal::Compression => Some(Disagreement::Compression),
            Refusal::Full => None,
            Refusal::Oneself | Refusal::Outdated | Refusal::Leaving => return,
        };
        self.stats.declined += 1;
        self.declined = Some(Declined { address: None, why });
    }

    /// Who was not let in last, and how many were not.
    pub(crate) fn declined(&self) -> (u64, Option<Declined>) {
        (self.stats.declined, self.declined.clone())
    }

    fn let_in(
        &mut self,
        now: Timestamp,
        theirs: &Hello,
        ours: &Standing,
    ) -> Result<LinkId, Refusal> {
        self.check(theirs)?;
        let id = theirs.greeting.id;
        let index = self.place_for(now, id)?;
        let goes_out = self.config.publishes && theirs.greeting.receives;
        let comes_in = self.config.receives && theirs.greeting.publishes;
        let known = self.peers.get(index).and_then(Option::as_ref);
        let is_outdated = known.is_some_and(|peer| {
            let said = (ours.publisher, ours.credit.received);
            comes_in && peer.inbound.has_begun() && said != (id, peer.inbound.wanted())
        });
        if is_outdated {
            return Err(Refusal::Outdated);
        }
        let acked = known.and_then(|peer| peer.acked);
        let begin = goes_out.then(|| self.begin(theirs, acked));
        let Some(Some(peer)) = self.peers.get_mut(index) else { return Err(Refusal::Full) };
        if peer.link.take().is_some() {
            // The kernel, or a thief of the id, may not have told that the other one is gone.
            self.stats.ended += 1;
            self.ends.note(peer.lost());
        }
        if peer.generation > 0 {
            self.stats.resumed += 1;
        }
        self.links += 1;
        peer.generation = self.links;
        peer.has_left = false;
        peer.acked = begin.map(|begin| begin.credit.received);
        peer.depth = u64::from(theirs.standing.depth.max(1));
        let told = if comes_in { ours.credit } else { Default::default() };
        peer.inbound.begin(told);
        let mut link = Link::new(now, begin, &self.log, self.config.times);
        if comes_in && ours.publisher != id {
            // It said less than it might have, or something else, when it did not know who we are.
            link.tell_credit();
        }
        if comes_in && peer.inbound.is_worth_telling() {
            // Messages were taken since this side said how much may come, and perhaps no other follows.
            link.tell_credit();
        }
        if self.is_leaving {
            link.finish(EndReason::Left);
        }
        peer.link = Some(link);
        Ok(LinkId { peer: index, generation: peer.generation })
    }

    /// Where messages to a peer begin, which acknowledged all below `acked` before.
    fn begin(&self, theirs: &Hello, acked: Option<u64>) -> Begin {
        let Standing { publisher, credit, .. } = theirs.standing;
        let longest = theirs.greeting.message_bytes_max as usize;
        // A message has its length before it was packed.
        let longest = if longest >= self.config.message_bytes_max { usize::MAX } else { longest };
        let is_known = publisher == self.config.greeting.id && credit.received <= self.log.next();
        if is_known {
            let number = credit.received.max(self.log.first());
            return Begin { credit, longest, expected: Some(credit.received), number };
        }
        let kept = self.log.next() - self.log.first();
        let history = theirs.greeting.history.min(self.config.history);
        // One that was met and does not know it gets what was for it.
        let number = acked.map_or_else(
            || self.log.next() - kept.min(u64::from(history)),
            |acked| acked.max(self.log.first()),
        );
        let credit = super::wire::Credit { received: number, ..credit };
        Begin { credit, longest, expected: None, number }
    }

    /// The place of a peer, a free one, or that of the one that has been gone longest.
    fn place_for(&mut self, now: Timestamp, id: [u8; 16]) -> Result<usize, Refusal> {
        let is_it = |it: &Option<Peer>| it.as_ref().is_some_and(|peer| peer.id == id);
        if let Some(index) = self.peers.iter().position(is_it) {
            return Ok(index);
        }
        let peer = Peer {
            id,
            inbound: Inbound::new(self.window),
            link: None,
            generation: 0,
            acked: None,
            depth: 1,
            broke_at: now,
            has_left: false,
        };
        if let Some(index) = self.peers.iter().position(Option::is_none) {
            if let Some(place) = self.peers.get_mut(index) {
                *place = Some(peer);
            }
            return Ok(index);
        }
        if self.peers.len() < PEERS_MAX {
            self.peers.push(Some(peer));
            return Ok(self.peers.len() - 1);
        }
        let gone = self.peers.iter_mut().enumerate().filter_map(|(index, place)| {
            let broke_at = place.as_ref().filter(|it| it.link.is_none())?.broke_at;
            Some((broke_at, index, place))
        });
        let (_, index, place) =
            gone.min_by_key(|(at, index, _)| (*at, *index)).ok_or(Refusal::Full)?;
        if let Some(old) = place.replace(peer) {
            self.waiting -= old.inbound.waiting();
            self.stats.forgotten += 1;
            self.ends.note(old.given_up(self.log.next()));
        }
        Ok(index)
    }

    /// Whether a stream with a peer is up.
    pub(crate) fn is_linked(&self, id: [u8; 16]) -> bool {
        self.peers.iter().flatten().any(|peer| peer.id == id && peer.link.is_some())
    }

    fn peer(&mut self, link: LinkId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(link.peer)?.as_mut()?;
        (peer.generation == link.generation && peer.link.is_some()).then_some(peer)
    }

    /// Where the next bytes of a stream belong; `None` for one that is of no more use.
    pub(crate) fn space(&mut self, link: LinkId) -> Option<&mut [u8]> {
        self.peer(link).map(|peer| peer.inbound.space())
    }

    /// So many bytes were put there. True when messages came.
    ///
    /// # Errors
    /// [`FrameError`] where the peer breaks the rules; its stream ends.
    pub(crate) fn filled(
        &mut self,
        now: Timestamp,
        id: LinkId,
        count: usize,
    ) -> Result<bool, FrameError> {
        let peer = self.peers.get_mut(id.peer).and_then(Option::as_mut);
        let peer = peer.filter(|peer| peer.generation == id.generation);
        let Some(peer) = peer else { return Ok(false) };
        let Peer { inbound, link: Some(link), .. } = peer else { return Ok(false) };
        link.on_bytes(now);
        inbound.filled(count);
        let before = inbound.waiting();
        let outcome = inbound.scan(|frame| link.on_frame(&frame));
        let came = inbound.waiting() - before;
        self.stats.lost = self.stats.lost.saturating_add(inbound.take_missed());
        if outcome.is_err() {
            link.finish(EndReason::Violation);
        }
        if came > 0 {
            let unsaid = inbound.wanted().saturating_sub(inbound.told().received);
            // A publisher that may keep few messages waits for this.
            if unsaid.saturating_mul(4) >= peer.depth {
                link.tell_credit();
            }
            link.ack_at = link.ack_at.min(now.after(ACK_DELAY));
        }
        if inbound.is_worth_telling() {
            // Messages that came too late make room at once.
            link.tell_credit();
        }
        if let Some(acked) = link.acked() {
            peer.acked = Some(acked);
        }
        if link.over() == Some(EndReason::Left) {
            peer.acked = None;
            peer.has_left = true;
        }
        self.waiting += came;
        outcome
    }

    /// Whether the peer said where its messages begin on this stream.
    pub(crate) fn has_begun(&mut self, link: LinkId) -> bool {
        self.peer(link).is_some_and(|peer| peer.inbound.has_begun())
    }

    /// A datagram beside a stream came, without the stream's index.
    ///
    /// # Errors
    /// [`FrameError`] where the peer breaks the rules; its stream ends.
    pub(crate) fn take_loose(
        &mut self,
        now: Timestamp,
        id: LinkId,
        rest: &[u8],
    ) -> Result<(), FrameError> {
        let is_reliable = self.config.is_reliable;
        let Some(peer) = self.peer(id) else { return Ok(()) };
        let Peer { inbound, link: Some(link), .. } = peer else { return Ok(()) };
        link.on_bytes(now);
        let before = inbound.waiting();
        let outcome =
            if is_reliable { Err(FrameError::Place("datagram")) } else { inbound.take_loose(rest) };
        let after = inbound.waiting();
        let missed = inbound.take_missed();
        if outcome.is_err() {
            link.finish(EndReason::Violation);
        }
        if inbound.is_worth_telling() {
            link.tell_credit();
        }
        // Some that waited may have made room.
        self.waiting = self.waiting + after - before;
        self.stats.lost = self.stats.lost.saturating_add(missed);
        outcome
    }

    /// Appends what goes to a peer beside its stream to a datagram that [begins](super::loose::begin)
    /// with the stream's index and has `max` bytes at most; false where nothing does. It is not said
    /// again. On a reliable topic all goes by the stream.
    pub(crate) fn loosen(
        &mut self,
        now: Timestamp,
        id: LinkId,
        max: usize,
        datagram: &mut Vec<u8>,
    ) -> bool {
        if self.config.is_reliable {
            return false;
        }
        let peer = self.peers.get_mut(id.peer).and_then(Option::as_mut);
        let peer = peer.filter(|peer| peer.generation == id.generation);
        let Some(Peer { link: Some(link), .. }) = peer else { return false };
        link.loosen(now, &self.log, max, datagram)
    }

    /// When a stream says how far messages beside it came, at the earliest.
    pub(crate) fn tail_at(&self) -> Timestamp {
        if self.config.is_reliable {
            return Timestamp::NEVER;
        }
        let links = self.peers.iter().flatten().filter_map(|peer| peer.link.as_ref());
        links.map(Link::tail_at).min().unwrap_or(Timestamp::NEVER)
    }

    /// Why a stream is of no more use; `None` while it is.
    pub(crate) fn over(&mut self, id: LinkId) -> Option<EndReason> {
        match self.peer(id) {
            None => Some(EndReason::Replaced),
            Some(peer) => {
                let link = peer.link.as_ref()?;
                let finished = link.is_finished().then_some(EndReason::Left);
                link.over().or(finished)
            }
        }
    }

    /// A stream ended, in whichever way.
    pub(crate) fn broke(&mut self, now: Timestamp, id: LinkId) {
        let Some(peer) = self.peer(id) else { return };
        let is_finished = peer.link.take().is_some_and(|link| link.is_finished());
        if is_finished {
            // It has all there is, and was told that nothing follows.
            peer.acked = None;
        }
        let is_goodbye = is_finished || peer.has_left;
        let lost = peer.lost();
        peer.broke_at = now;
        let is_spent = peer.is_spent();
        if is_spent && let Some(place) = self.peers.get_mut(id.peer) {
            *place = None;
        }
        self.stats.ended += u64::from(!is_goodbye);
        if !is_goodbye {
            self.ends.note(lost);
        }
    }

    /// What to write to a stream now; all empty when there is nothing.
    pub(crate) fn transmit(&mut self, now: Timestamp, id: LinkId) -> Pieces<'_> {
        let peer = self.peers.get_mut(id.peer).and_then(Option::as_mut);
        let peer = peer.filter(|peer| peer.generation == id.generation);
        let Some(Peer { inbound, link: Some(link), .. }) = peer else { return [&[]; 3] };
        link.transmit(now, &self.log, || inbound.tell())
    }

    /// So many of those bytes were written.
    pub(crate) fn sent(&mut self, now: Timestamp, id: LinkId, count: usize) {
        let peer = self.peers.get_mut(id.peer).and_then(Option::as_mut);
        let peer = peer.filter(|peer| peer.generation == id.generation);
        if let Some(Peer { link: Some(link), .. }) = peer {
            link.sent(now, &self.log, count);
        }
    }

    /// Publishes a message and gives its number.
    ///
    /// # Errors
    /// [`LogFull`] where a subscriber has not got what would have to be forgotten.
    pub(crate) fn publish(&mut self, message: &[u8]) -> Result<u64, LogFull> {
        // Room for it as it is, so that nothing is packed in vain.
        while !self.log.has_room(message.len()) {
            if self.log.is_empty() || (self.config.is_reliable && self.log.first() >= self.needed())
            {
                return Err(LogFull);
            }
            for link in self.peers.iter_mut().flatten().filter_map(|peer| peer.link.as_mut()) {
                link.forget_oldest(&self.log);
            }
            self.log.drop_oldest();
        }
        let number = match self.packer.pack(message) {
            Some(packed) => self.log.push(Kind::Packed, packed, message.len()),
            None => self.log.push(Kind::Message, message, message.len()),
        };
        self.stats.published += 1;
        Ok(number)
    }

    /// The number that all messages before were received by all who are waited for.
    fn needed(&self) -> u64 {
        let acked = self.peers.iter().flatten().filter_map(|peer| peer.acked);
        acked.min().unwrap_or(u64::MAX)
    }

    /// Whether all who are waited for have got all.
    pub(crate) fn is_delivered(&self) -> bool {
        self.needed() >= self.log.next()
    }

    /// Takes a message of a peer, each peer in turn.
    pub(crate) fn take(&mut self, room: &mut dyn Room) -> Option<Taken> {
        while self.waiting > 0 {
            let index = self.next_with_messages()?;
            if let Some(taken) = self.take_from(index, room) {
                return Some(taken);
            }
        }
        None
    }

    fn next_with_messages(&mut self) -> Option<usize> {
        let count = self.peers.len();
        let order = (0..count).map(|step| (self.turn + step) % count);
        let has = |index: &usize| {
            let peer = self.peers.get(*index).and_then(Option::as_ref);
            peer.is_some_and(|peer| !peer.inbound.is_empty())
        };
        let index = order.into_iter().find(has)?;
        self.turn = (index + 1) % count;
        Some(index)
    }

    /// One message of a peer; `None` where it could not be read, and was counted.
    fn take_from(&mut self, index: usize, room: &mut dyn Room) -> Option<Taken> {
        let peer = self.peers.get_mut(index)?.as_mut()?;
        let (message, body) = peer.inbound.front()?;
        let longest = self.config.message_bytes_max;
        let copied = if message.is_packed {
            self.unpacker.take(body, longest, room)
        } else if body.len() > longest {
            None
        } else {
            copy_to(body, room)
        };
        peer.inbound.pop();
        self.waiting -= 1;
        let publisher = publisher_of(peer.id);
        if peer.inbound.is_worth_telling()
            && let Some(link) = &mut peer.link
        {
            link.tell_credit();
            self.has_words = true;
        }
        if peer.is_spent()
            && let Some(place) = self.peers.get_mut(index)
        {
            *place = None;
        }
        let Some(bytes) = copied else {
            self.stats.corrupt += 1;
            return None;
        };
        self.stats.taken += 1;
        let (number, lost) = (message.number, message.lost);
        Some(Taken { publisher, number, lost, bytes })
    }

    /// Whether taking made room that a peer should hear of; asked once.
    pub(crate) fn take_words(&mut self) -> bool {
        std::mem::take(&mut self.has_words)
    }

    /// Whether messages wait.
    pub(crate) const fn has_messages(&self) -> bool {
        self.waiting > 0
    }

    /// What there was of ends since this was asked last.
    #[cfg(feature = "scenarios")]
    pub(crate) fn take_ends(&mut self) -> Vec<PairEnd> {
        self.ends.take()
    }

    /// Messages that wait, of all peers.
    #[cfg(feature = "scenarios")]
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Does what time brings: pings, links that are dead, subscribers that do not come back.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        let resume_timeout = self.config.times.resume_timeout;
        for peer in self.peers.iter_mut().flatten() {
            match &mut peer.link {
                Some(link) => link.handle_timeout(now),
                None if peer.acked.is_some() && now >= peer.broke_at.after(resume_timeout) => {
                    peer.acked = None;
                    self.stats.forgotten += 1;
                    self.ends.note(peer.given_up(self.log.next()));
                }
                None => {}
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        let times = self.peers.iter().flatten().map(|peer| match &peer.link {
            Some(link) => link.poll_timeout(),
            None if peer.acked.is_some() => peer.broke_at.after(self.config.times.resume_timeout),
            None => Timestamp::NEVER,
        });
        times.min().unwrap_or(Timestamp::NEVER)
    }

    /// Says to all that this side leaves, when they have got what was published.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
        for link in self.peers.iter_mut().flatten().filter_map(|peer| peer.link.as_mut()) {
            link.finish(EndReason::Left);
        }
    }

    /// Peers that take messages now.
    pub(crate) fn subscribers(&self) -> usize {
        let links = self.peers.iter().flatten().filter_map(|peer| peer.link.as_ref());
        links.filter(|link| link.is_receiving()).count()
    }

    /// Peers that publish now, and those that are gone but not heard out.
    pub(crate) fn publishers(&self) -> usize {
        let is_publisher = |peer: &&Peer| {
            peer.inbound.has_begun() && (peer.link.is_some() || !peer.inbound.is_empty())
        };
        self.peers.iter().flatten().filter(is_publisher).count()
    }

    pub(crate) const fn stats(&self) -> TopicStats {
        self.stats
    }

    pub(crate) const fn compression(&self) -> CompressionStats {
        self.packer.stats()
    }
}

#[cfg(test)]
mod tests;
