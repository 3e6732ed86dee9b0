//! One hub's side of a topic over datagrams: it meets others, and speaks with them over links.
//!
//! //= hub 8

mod calls;
mod chunks;
mod group;
mod history;
mod pipe;
mod seal;
mod told;

use std::collections::VecDeque;
use std::net::SocketAddr;

use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;

use crate::calling::{Callings, Due};
use crate::chunk::{Packer, fits};
use crate::config::{LINKS_MAX, NodeConfig, NodeSide};
use crate::cookie::Secret;
use crate::door::{Door, both};
use crate::greet::{Greeting, Sealing};
use crate::inbox::Inbox;
use crate::link::{Link, LinkParts, Proved};
use crate::probe::Offer;
use crate::wire::{COOKIE_BYTES, Data, EndReason, Packet, RefusedFor};

use self::chunks::Long;
use self::group::Group;
use self::seal::Sealer;
pub use self::told::{Ended, Event, NodeStats, Refusal, Sent};

/// Answers that wait to be sent; more are dropped, and asked for again.
const REPLIES_MAX: usize = 64;
/// Things that happened and were not asked for; older ones are forgotten.
const EVENTS_MAX: usize = 64;
/// Publishers that went and are remembered, so that what was missed in between is counted.
const DEPARTED_MAX: usize = 64;
/// Chunks of history that a link gets at most.
const BACKLOG_CHUNKS_MAX: usize = 1_024;
/// How often a goodbye is said to each.
const GOODBYES: usize = 3;

/// One hub's side of a topic over datagrams.
///
/// After each `handle_*` and each flush, drain [`poll_transmit`](Self::poll_transmit); call
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says so.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    chunk_bytes_max: usize,
    secret: Secret,
    sealer: Option<Box<Sealer>>,
    group: Option<Box<Group>>,
    links: Vec<Link>,
    /// The link that spoke last.
    last: usize,
    /// The link whose turn it is to send.
    turn: usize,
    callings: Callings,
    replies: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
    departed: VecDeque<(u64, u64)>,
    packer: Packer,
    /// Chunks that are full, for all links.
    chunks: VecDeque<Vec<u8>>,
    spares: Vec<Vec<u8>>,
    long: Long,
    /// The last messages, with their numbers behind each other.
    kept: VecDeque<Vec<u8>>,
    stats: NodeStats,
    is_closed: bool,
}

impl Node {
    /// A node that has met nobody. `config` passed [`NodeConfig::check`].
    pub fn new(config: NodeConfig, now: Timestamp, secrets: &mut dyn SecretSource) -> Self {
        let mut secret = Secret::new(secrets, Door::of(&config.greeting.topic));
        let mut callings = Callings::new(config.hello_interval);
        if let NodeSide::Connect(to) = config.side {
            callings.add(now, to, secret.token(), false);
        }
        let group = match config.side {
            NodeSide::Group(address) => Some(Group::new(address, &config.greeting, now)),
            _ => None,
        };
        let sealer = config.seal.clone().map(|seal| Sealer::new(seal, secrets));
        Self {
            chunk_bytes_max: config.chunk_bytes_max(),
            config,
            secret,
            sealer,
            group,
            links: Vec::new(),
            last: 0,
            turn: 0,
            callings,
            replies: VecDeque::new(),
            events: VecDeque::new(),
            departed: VecDeque::new(),
            packer: Packer::default(),
            chunks: VecDeque::new(),
            spares: Vec::new(),
            long: Long::default(),
            kept: VecDeque::new(),
            stats: NodeStats::default(),
            is_closed: false,
        }
    }

    /// The token with which the other end of a link speaks.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn token_of(&self, link: usize) -> Option<u64> {
        self.links.get(link).map(|link| link.token_in)
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.config.greeting.topic
    }

    /// What it tells who probes from now on.
    pub const fn set_offer(&mut self, offer: Offer) {
        self.config.offer = offer;
    }

    /// Messages published so far, which is the number of the next one.
    pub const fn published(&self) -> u64 {
        self.stats.published
    }

    /// Hubs that hear this one.
    pub fn subscribers(&self) -> usize {
        let links = self.links.iter().filter(|link| link.is_heard).count();
        let publishes = self.config.greeting.publishes;
        let group = self.group.as_ref().filter(|_| publishes);
        links + group.map_or(0, |group| group.subscribers())
    }

    /// Hubs that this one hears.
    pub fn publishers(&self) -> usize {
        let receives = self.config.greeting.receives;
        let links = self.links.iter().filter(|link| receives && link.peer.publishes).count();
        links + self.group.as_ref().filter(|_| receives).map_or(0, |group| group.publishers())
    }

    /// What was done so far.
    pub fn stats(&self) -> NodeStats {
        let mut stats = self.stats;
        for link in &self.links {
            stats.stale += link.stats().stale;
            stats.too_long += link.stats().too_long;
        }
        stats
    }

    /// Chunks that are full and wait to be sent.
    pub fn chunks_waiting(&self) -> usize {
        self.chunks.len()
    }

    /// Whether a chunk is open, or a message is not cut to its end: what [`flush`](Self::flush) sends.
    pub const fn is_open(&self) -> bool {
        self.packer.count > 0 || self.long.is_open
    }

    /// Whether a message of `len` bytes is cut into pieces, which are chunks of their own: no later
    /// message shares one with it.
    pub const fn is_cut(&self, len: usize) -> bool {
        !fits(len, self.chunk_bytes_max)
    }

    /// Reliable chunks that somebody may not have got yet, those that are not full included.
    pub fn unacknowledged(&self) -> usize {
        let links = self.links.iter().filter(|link| link.is_heard);
        links.map(Link::unacknowledged).sum::<usize>()
            + self.chunks.len()
            + usize::from(self.is_open())
    }

    /// Publishes a message, and returns its number, from 0. It leaves with its chunk, when that is
    /// full or flushed.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was published then.
    pub fn publish(&mut self, message: &[u8]) -> Result<u64, Refusal> {
        let max = self.config.greeting.longest(self.config.greeting.is_packed());
        if message.len() > max {
            return Err(Refusal::TooLong { have: message.len(), max });
        }
        if !self.has_room() {
            return Err(Refusal::Full);
        }
        let number = self.stats.published;
        if self.group.is_some() || self.links.iter().any(|link| link.is_heard) {
            if fits(message.len(), self.chunk_bytes_max) {
                if !self.packer.push(number, message, self.chunk_bytes_max) {
                    self.seal();
                    self.packer.push(number, message, self.chunk_bytes_max);
                }
            } else {
                self.seal();
                self.begin_long(number, message);
            }
        }
        self.keep(message);
        self.stats.published += 1;
        Ok(number)
    }

    /// Whether a message can be published now, if it is not too long.
    pub fn has_room(&self) -> bool {
        !self.long.is_open && self.chunks.len() < self.config.chunks_max
    }

    /// Lets the open chunk leave.
    pub fn flush(&mut self) {
        self.seal();
    }

    /// The oldest thing that happened and was not told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn reply(&mut self, to: SocketAddr, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.write(&mut bytes);
        self.reply_bytes(to, bytes);
    }

    fn reply_bytes(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        if self.replies.len() >= REPLIES_MAX {
            self.stats.replies_dropped += 1;
            return;
        }
        self.replies.push_back((to, bytes));
    }

    /// Takes in a datagram that came from `from`; messages go to `inbox`.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        bytes: &[u8],
        inbox: &mut Inbox,
    ) {
        self.stats.datagrams_in += 1;
        let Ok(packet) = Packet::parse(bytes) else {
            self.stats.malformed += 1;
            return;
        };
        match packet {
            Packet::Data(data) => self.handle_data(now, from, &data, inbox),
            Packet::Hello { token, cookie, greeting } => {
                self.handle_hello(now, from, (token, cookie), greeting);
            }
            Packet::Cookie { token, cookie } => self.handle_cookie(now, from, token, cookie),
            Packet::Welcome { token, own_token, greeting } => {
                self.handle_welcome(now, from, (token, own_token), greeting);
            }
            Packet::Refused { token, reason, greeting } => {
                self.handle_refused(now, from, token, (reason, greeting));
            }
            Packet::End { token, reason, next } => {
                let is_right = |link: &Link| link.token_in == token && !link.is_sealed();
                if let Some(at) = self.find(from, is_right) {
                    if let Some(link) = self.links.get_mut(at) {
                        link.handle_end(next, inbox);
                    }
                    let reason =
                        if reason == EndReason::Closed { reason } else { EndReason::Forgotten };
                    self.end(now, at, reason);
                }
            }
            // Nothing is kept for it, and the answer is shorter than it.
            Packet::Probe { token } if self.answers_probes() => {
                self.reply(from, &Packet::Here { token, offer: self.config.offer });
            }
            // Who probes has a socket for it.
            Packet::Probe { .. } | Packet::Here { .. } => {}
            Packet::Reset { token } => {
                if let Some(at) = self.find(from, |link| link.token_out == token) {
                    match self.links.get_mut(at).filter(|link| link.is_sealed()) {
                        // Anybody who sees the token can say so: who lives is heard soon.
                        Some(link) => link.doubt(now),
                        None => self.end(now, at, EndReason::Forgotten),
                    }
                }
            }
            Packet::Sealed { token, bytes } => self.handle_sealed(now, from, (token, bytes), inbox),
            Packet::SealedHello { token, cookie, cipher, message } => {
                self.handle_sealed_hello(now, from, (token, cookie), (cipher, message));
            }
            Packet::SealedWelcome { token, message } => {
                self.handle_sealed_welcome(now, from, token, message);
            }
            Packet::Mismatch { token, what } => self.handle_mismatch(now, from, token, what),
            Packet::Grouped(grouped) => self.handle_grouped(now, from, &grouped, inbox),
        }
    }

    const fn answers_probes(&self) -> bool {
        matches!(self.config.side, NodeSide::Listen | NodeSide::ProbesOnly) && !self.is_closed
    }

    /// The link with an address, if it is the right one.
    #[inline]
    fn find(&mut self, from: SocketAddr, is_right: impl Fn(&Link) -> bool) -> Option<usize> {
        let matches = |link: &Link| link.address == from;
        if !self.links.get(self.last).is_some_and(matches) {
            self.last = self.links.iter().position(matches)?;
        }
        self.links.get(self.last).is_some_and(is_right).then_some(self.last)
    }

    #[inline]
    fn handle_data(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        data: &Data<'_>,
        inbox: &mut Inbox,
    ) {
        let is_right = |link: &Link| link.token_in == data.token && !link.is_sealed();
        let Some(at) = self.find(from, is_right) else { return self.forgot(from, data.token) };
        let Some(link) = self.links.get_mut(at) else { return };
        if let Err(reason) = link.handle_data(now, data, &mut self.departed, inbox) {
            self.end(now, at, reason);
        }
    }

    /// Somebody speaks to one that was here before, and learns that it has to begin anew. It is shorter
    /// than any data.
    fn forgot(&mut self, from: SocketAddr, token: u64) {
        self.stats.unknown += 1;
        // Whoever sends to a group is not answered.
        if !self.is_closed && self.group.is_none() {
            self.reply(from, &Packet::Reset { token });
        }
    }

    fn handle_hello(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (token, cookie): (u64, [u8; COOKIE_BYTES]),
        greeting: Greeting,
    ) {
        if self.config.side != NodeSide::Listen || self.is_closed {
            return;
        }
        if !self.secret.is_good(now, from, token, &cookie) {
            let cookie = self.secret.cookie(now, from, token);
            self.reply(from, &Packet::Cookie { token, cookie });
            return;
        }
        if self.sealer.is_some() {
            return self.decline(from, token, Sealing::Sealed);
        }
        let ours = self.config.greeting.clone();
        // Both draws are in the token out: the other one tells a hello that was sent again.
        if let Some(at) = self.find(from, |link| both(link.token_out, link.token_in) == token)
            && let Some(link) = self.links.get(at)
        {
            let own_token = link.token_in;
            self.reply(from, &Packet::Welcome { token, own_token, greeting: ours });
            return;
        }
        let is_full = self.links.len() >= LINKS_MAX;
        let same = |link: &Link| link.address == from || link.peer.id == greeting.id;
        let before = self.links.iter().position(same);
        let is_kept = self.keeps_call(from, &greeting);
        let agreed = ours.agrees_with(&greeting);
        let reason = match &agreed {
            Err(_) => Some(RefusedFor::Disagreement),
            Ok(()) if is_full && before.is_none() || greeting.id == ours.id || is_kept => {
                Some(RefusedFor::Full)
            }
            Ok(()) => None,
        };
        if let Some(reason) = reason {
            self.stats.refused += 1;
            self.reply(from, &Packet::Refused { token, reason, greeting: ours });
            return self.tell(Event::Declined { address: from, why: agreed.err() });
        }
        if let Some(at) = before {
            self.end(now, at, EndReason::Replaced);
        }
        let own_token = self.secret.token();
        // What the caller hears has both draws in it: one hello may make several links, of which the
        // last is welcomed, and what a former one had said means nothing to it.
        let tokens = (own_token, both(token, own_token));
        self.join(now, from, tokens, Proved { peer: greeting, keys: None });
        self.reply(from, &Packet::Welcome { token, own_token, greeting: ours });
    }

    fn handle_cookie(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        token: u64,
        cookie: [u8; COOKIE_BYTES],
    ) {
        if self.callings.is_answer(from, token) {
            self.callings.on_cookie(now, from, cookie);
        }
    }

    fn handle_welcome(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (token, own_token): (u64, u64),
        greeting: Greeting,
    ) {
        let is_known = |link: &Link| link.address == from || link.peer.id == greeting.id;
        let is_full = self.links.len() >= LINKS_MAX && !self.links.iter().any(is_known);
        // A sealed node takes no answer that anybody could have written.
        if self.sealer.is_some() || !self.callings.is_answer(from, token) || is_full {
            return;
        }
        if let Err(why) = self.config.greeting.agrees_with(&greeting) {
            self.stats.refused += 1;
            self.tell(Event::Refused { address: from, why: Some(why) });
            return self.callings.on_refused(now, from);
        }
        let tokens = (both(token, own_token), own_token);
        self.welcomed(now, from, tokens, Proved { peer: greeting, keys: None });
    }

    /// Who was called lets this node in.
    fn welcomed(&mut self, now: Timestamp, from: SocketAddr, tokens: (u64, u64), proved: Proved) {
        let id = proved.peer.id;
        if let Some(at) = self.links.iter().position(|link| link.peer.id == id) {
            // It called too, and was heard first. Both ends know whose call it is that stays.
            if id > self.config.greeting.id {
                return self.callings.on_link(from, id);
            }
            self.end(now, at, EndReason::Replaced);
        }
        if self.links.len() < LINKS_MAX {
            self.join(now, from, tokens, proved);
        }
    }

    fn handle_refused(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        token: u64,
        (reason, greeting): (RefusedFor, Greeting),
    ) {
        if self.sealer.is_some() || !self.callings.is_answer(from, token) {
            return;
        }
        self.stats.refused += 1;
        let why = match reason {
            RefusedFor::Full => None,
            RefusedFor::Disagreement => self.config.greeting.agrees_with(&greeting).err(),
        };
        self.tell(Event::Refused { address: from, why });
        self.callings.on_refused(now, from);
    }

    fn join(
        &mut self,
        now: Timestamp,
        address: SocketAddr,
        (token_in, token_out): (u64, u64),
        Proved { peer, keys }: Proved,
    ) {
        // What was published before is for those who were here.
        self.seal();
        let publisher = peer.publisher();
        let next = self.stats.published;
        let (start, backlog) =
            if peer.receives { self.backlog(peer.history) } else { Default::default() };
        let start = if backlog.is_empty() { next } else { start };
        self.callings.on_link(address, peer.id);
        let proved = Proved { peer, keys };
        let parts = LinkParts { address, token_in, token_out, proved, next, backlog, start };
        self.links.push(Link::new(&self.config, parts, now));
        self.stats.joined += 1;
        self.tell(Event::Joined { address, publisher });
    }

    /// A link is over.
    fn end(&mut self, now: Timestamp, at: usize, reason: EndReason) {
        let mut link = self.links.swap_remove(at);
        (self.last, self.turn) = (0, 0);
        let expected = link.ended_at();
        // A pipe begins anew.
        if let Some(known) = link.expects().filter(|_| !self.config.is_piped) {
            if self.departed.len() >= DEPARTED_MAX {
                self.departed.pop_front();
            }
            self.departed.push_back(known);
        }
        self.stats.stale += link.stats().stale;
        self.stats.too_long += link.stats().too_long;
        let is_told = !matches!(reason, EndReason::Closed | EndReason::Forgotten);
        // Who lives and was given up learns it, and begins anew.
        if is_told && let Some(end) = link.goodbye(now, reason, self.stats.published) {
            self.reply_bytes(link.address, end);
        }
        match reason {
            EndReason::Closed | EndReason::Replaced => self.stats.left += 1,
            _ => self.stats.ended += 1,
        }
        let unacknowledged = if link.is_heard { link.unacknowledged() } else { 0 };
        let (address, publisher) = (link.address, link.peer.publisher());
        self.tell(Event::Ended(Ended { address, publisher, reason, unacknowledged, expected }));
        let secret = &mut self.secret;
        self.callings.on_end(now, (link.address, link.peer.id), || secret.token());
    }

    /// Says goodbye to all; nothing is published or taken in after it.
    pub fn close(&mut self, now: Timestamp) {
        self.is_closed = true;
        if let Some(group) = &mut self.group {
            group.close();
        }
        self.callings.clear();
        let next = self.stats.published;
        let mut links = core::mem::take(&mut self.links);
        // Nobody answers it: it is said more than once.
        for _ in 0..GOODBYES {
            for link in &mut links {
                let bytes = link.goodbye(now, EndReason::Closed, next);
                self.replies.extend(bytes.map(|bytes| (link.address, bytes)));
            }
        }
    }

    /// Looks at what is overdue.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if let Some(sealer) = &mut self.sealer {
            sealer.handle_timeout(now);
        }
        if let Some(group) = &mut self.group {
            let silence_max = self.config.silence_max;
            self.stats.ended += group.handle_timeout(now, silence_max, &mut self.departed);
        }
        let mut at = 0;
        while let Some(link) = self.links.get_mut(at) {
            if link.poll_timeout() > now {
                at += 1;
                continue;
            }
            match link.handle_timeout(now) {
                Ok(()) => at += 1,
                Err(reason) => self.end(now, at, reason),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next and a datagram may be due.
    pub fn poll_timeout(&self) -> Timestamp {
        let call = self.callings.next_at();
        let call = self.sealer.as_ref().map_or(call, |sealer| call.min(sealer.poll_timeout()));
        let silence_max = self.config.silence_max;
        let group = self.group.as_ref().map(|group| group.poll_timeout(silence_max));
        let call = group.map_or(call, |group| call.min(group));
        self.links.iter().map(Link::poll_timeout).fold(call, Timestamp::min)
    }

    /// Writes the next datagram into `out`, which has room for
    /// [`datagram_bytes_max`](NodeConfig::datagram_bytes_max); `None` when there is none now. Those of
    /// one link come behind each other.
    pub fn poll_transmit(&mut self, now: Timestamp, out: &mut [u8]) -> Option<Sent> {
        self.poll_transmit_to(now, out, true)
    }

    /// The same, and `credits` says whether others may send more than they were told they may.
    pub fn poll_transmit_to(
        &mut self,
        now: Timestamp,
        out: &mut [u8],
        credits: bool,
    ) -> Option<Sent> {
        let sent = self.next_datagram(now, out, credits);
        self.stats.datagrams_out += u64::from(sent.is_some());
        sent
    }

    fn next_datagram(&mut self, now: Timestamp, out: &mut [u8], credits: bool) -> Option<Sent> {
        if let Some((to, bytes)) = self.replies.pop_front() {
            out.get_mut(..bytes.len())?.copy_from_slice(&bytes);
            return Some(Sent { to, bytes: bytes.len() });
        }
        if let Some(sent) = self.hello(now, out) {
            return Some(sent);
        }
        let bytes_max = self.config.datagram_bytes_max.min(out.len());
        let out = out.get_mut(..bytes_max)?;
        loop {
            if let Some(sent) = self.transmit_grouped(now, out) {
                return Some(sent);
            }
            if self.config.greeting.reliable {
                self.pump(now);
            }
            let next = self.stats.published;
            for _ in 0..self.links.len() {
                let Some(link) = self.links.get_mut(self.turn) else { break };
                let sent = link.poll_transmit(now, &self.chunks, next, credits, out);
                if let Some(bytes) = sent {
                    return Some(Sent { to: link.address, bytes });
                }
                self.turn = if self.turn + 1 >= self.links.len() { 0 } else { self.turn + 1 };
            }
            if self.config.greeting.reliable || !self.finish_chunks() {
                return None;
            }
        }
    }

    fn hello(&mut self, now: Timestamp, out: &mut [u8]) -> Option<Sent> {
        let Due { to, token, cookie } = self.callings.due(now)?;
        let mut bytes = Vec::new();
        match &mut self.sealer {
            None => {
                let greeting = self.config.greeting.clone();
                Packet::Hello { token, cookie, greeting }.write(&mut bytes);
            }
            Some(sealer) if cookie == [0; COOKIE_BYTES] => bytes = sealer.knock(token),
            Some(sealer) => {
                bytes.extend_from_slice(sealer.hello(&self.config.greeting, token, cookie)?);
            }
        }
        out.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(Sent { to, bytes: bytes.len() })
    }
}
