//! The server's end: many sessions behind one socket.

use core::fmt;
use core::mem::offset_of;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_core::bytes::{NoRoom, Writer};
use twinspan_core::packet::PacketBuf;
use twinspan_core::prefetch;
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_reliable::Channel;

use crate::config::{Common, SessionConfig};
use crate::connection::{self, Connection, ConnectionParts, Notice, Stir};
use crate::error::{ConfigError, SendError};
use crate::frames::{IdPair, SPARE_IDS};
use crate::gate::{Gate, OpenGate};
use crate::handshakes::HalfOpen;
use crate::header::{FLAGS_AT, Form, Header, PACKET_BYTES_LIMIT, PACKET_BYTES_MAX, flag, parse};
use crate::header_protection::header_key;
use crate::identity::{ServerIdentity, TokenKey, UserId};
use crate::keys::Keys;
use crate::protection::{DirectionKey, Role};
use crate::reason::{CloseReason, RefuseReason};
use crate::route::Route;
use crate::stats::{DropCause, EndpointStats, FlowStats, PacketNumbers, SessionStats};
use crate::timers::Timers;

mod door;
mod hidden;
mod key;
mod moves;
mod renewal;
mod resume;
mod rotation;
mod sending;
mod targets;

use door::{Answer, Door};
pub use key::SessionKey;
use moves::PathNews;
use renewal::Renewed;
pub(crate) use resume::Entry;
pub use resume::Resumed;
use resume::replaces;
use targets::{Target, Targets};

/// What an [`Endpoint`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum EndpointEvent<'a> {
    /// A client proved its keys: the session exists.
    Established {
        /// The session.
        session: SessionKey,
        /// Whom the token named.
        user: UserId,
        /// Where the client is.
        peer: SocketAddr,
        /// How its packets are protected.
        cipher: Cipher,
        /// That the client came back with a ticket; `None` when it brought a token.
        resumed: Option<Resumed>,
    },
    /// A message arrived.
    Message {
        /// The session.
        session: SessionKey,
        /// The channel that it was sent on.
        channel: Channel,
        /// The message.
        bytes: &'a [u8],
    },
    /// The client has a packet that [`Endpoint::write_packet`] wrote with a tag other than 0.
    Acked {
        /// The session.
        session: SessionKey,
        /// The packet's number.
        number: u64,
        /// The tag.
        tag: u32,
    },
    /// The client has another address, which answered.
    Moved {
        /// The session.
        session: SessionKey,
        /// Where the client is now.
        peer: SocketAddr,
    },
    /// The session ended: told exactly once for each [`EndpointEvent::Established`].
    Closed {
        /// The session.
        session: SessionKey,
        /// Why.
        reason: CloseReason,
    },
}

/// A session and what it stands for. What every packet touches comes first.
#[repr(C)]
struct Session {
    /// The id that the client puts into its packets.
    id: u32,
    /// The client's id that goes with it; 0 for none.
    client_id: u32,
    /// Whether it stands in the queue of those that want to send.
    queued: bool,
    /// Whether it was given ids in reserve.
    has_ids: bool,
    /// When it is due another ticket; never while one is on its way.
    renew_at: Timestamp,
    /// The ticket that is on its way.
    renewal: Option<Box<Renewed>>,
    route: Route,
    connection: Connection,
    user: UserId,
    /// The id of its first resume ticket.
    root: [u8; 16],
    /// The id of the resume ticket that its client surely has.
    ticket: [u8; 16],
    /// The ids that it has in reserve; 0 for none.
    spare: [IdPair; SPARE_IDS],
}

/// Bytes of a [`Session`] that every packet touches.
const HOT_BYTES: usize = offset_of!(Session, connection) + connection::HOT_BYTES;

/// A session that a datagram names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// The session.
    pub session: SessionKey,
    /// Whether the datagram says that it acknowledges packets.
    pub acks: bool,
}

impl Session {
    fn wants_transmit(&self, now: Timestamp) -> bool {
        self.connection.wants_transmit(now) || self.route.wants_challenge(now)
    }

    fn deadline(&self) -> Timestamp {
        self.connection.deadline().min(self.route.deadline()).min(self.renew_at)
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    session: Option<Box<Session>>,
}

/// The server's end of all its sessions, as a machine.
///
/// After each `handle_*` call and after [`send`](Self::send) and [`close`](Self::close), drain
/// [`poll_transmit`](Self::poll_transmit), then read [`poll_timeout`](Self::poll_timeout). Sessions
/// that have nothing to do are not visited.
pub struct Endpoint {
    common: Arc<Common>,
    jitter: Stream,
    door: Door,
    targets: Targets,
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
    timers: Timers,
    /// Sessions that want to send, in the order in which they began to.
    dirty: VecDeque<u32>,
    answers: VecDeque<Answer>,
    stats: EndpointStats,
    /// Some session hides, or hid, its headers: packets are looked at twice.
    hiding: bool,
}

impl Endpoint {
    /// A server's endpoint. `unix_at_start_s` says what the wall clock showed at
    /// [`Timestamp::START`], in seconds since 1970: tokens expire by it.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot be.
    pub fn new(
        config: SessionConfig,
        suites: Arc<dyn AeadSuite>,
        identity: ServerIdentity,
        token_key: TokenKey,
        secrets: Box<dyn SecretSource>,
        jitter: Stream,
        unix_at_start_s: u64,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        if suites.ciphers().is_empty() {
            return Err(ConfigError::NoCipher);
        }
        let door = Door::new(&config, identity, token_key, secrets, unix_at_start_s);
        Ok(Self {
            jitter,
            door,
            targets: Targets::default(),
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            timers: Timers::default(),
            dirty: VecDeque::new(),
            // All of it now: what a flood makes wait must not grow anything.
            answers: VecDeque::with_capacity(config.answers_max),
            stats: EndpointStats::default(),
            hiding: false,
            common: Common::new(config, suites),
        })
    }

    /// The session that a datagram names, whoever sent it. With many sessions a packet finds its own
    /// outside the caches: whoever has several datagrams at hand looks some ahead with this, then
    /// wishes for what they will need, first [`prefetch`](Self::prefetch), a few later
    /// [`prefetch_to_open`](Self::prefetch_to_open).
    pub fn addressed(&self, datagram: &[u8]) -> Option<Addressed> {
        let id = u32::from_le_bytes(*datagram.first_chunk()?);
        let Target::Session(slot) = self.targets.get(id)? else { return None };
        let place = self.slots.get(slot as usize)?;
        let acks = datagram.get(FLAGS_AT).is_some_and(|flags| flags & flag::ACK != 0);
        Some(Addressed { session: SessionKey::new(slot, place.generation), acks })
    }

    /// Wishes for a session's own memory.
    pub fn prefetch(&self, session: SessionKey) {
        if let Some(found) = self.find(session) {
            prefetch::bytes(core::ptr::from_ref(found).cast(), HOT_BYTES);
        }
    }

    /// Wishes for what a packet of a session needs beside [`prefetch`](Self::prefetch), which was
    /// called before.
    pub fn prefetch_to_open(&self, addressed: Addressed) {
        if let Some(found) = self.find(addressed.session) {
            found.connection.prefetch_to_open(addressed.acks);
        }
    }

    /// Wishes for what a packet to a session needs beside [`prefetch`](Self::prefetch), which was
    /// called before.
    pub fn prefetch_to_seal(&self, session: SessionKey) {
        if let Some(found) = self.find(session) {
            found.connection.prefetch_to_seal();
        }
    }

    /// Wishes for what is remembered of a session's packets in flight: for those that a packet
    /// acknowledges, and for the next. [`prefetch_to_open`](Self::prefetch_to_open) or
    /// [`prefetch_to_seal`](Self::prefetch_to_seal) was called before.
    pub fn prefetch_records(&self, session: SessionKey) {
        if let Some(found) = self.find(session) {
            found.connection.prefetch_records();
        }
    }

    /// Takes a datagram from `peer`; its bytes are decrypted in place.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        bytes: &mut [u8],
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) {
        self.handle_datagram_gated(now, peer, bytes, &mut OpenGate, on_event);
    }

    /// The same, with a say for `gate` in who is let in.
    pub fn handle_datagram_gated(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        bytes: &mut [u8],
        gate: &mut dyn Gate,
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) {
        self.stats.packets_in += 1;
        self.stats.bytes_in += bytes.len() as u64;
        if self.hiding {
            self.reveal(peer, bytes);
        }
        let result = match parse(bytes) {
            Ok(Form::Handshake { kind }) => self.handle_handshake(now, peer, kind, bytes, gate),
            Ok(Form::Sealed(header)) => {
                self.handle_sealed(now, peer, &header, bytes, gate, on_event)
            }
            Err(cause) => Err(cause),
        };
        if let Err(cause) = result {
            self.stats.drops.count(cause);
        }
    }

    fn handle_sealed(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        header: &Header,
        bytes: &mut [u8],
        gate: &mut dyn Gate,
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) -> Result<(), DropCause> {
        match self.targets.get(header.connection) {
            None => Err(DropCause::UnknownConnection),
            Some(Target::Session(slot)) => {
                let (key, session) = self.at(slot).ok_or(DropCause::UnknownConnection)?;
                let len = bytes.len();
                match session.connection.open(now, header, bytes) {
                    Ok(text) => {
                        if !session.route.is_settled_at(peer) || session.id != header.connection {
                            self.on_path(now, key, peer, (header.connection, len), on_event);
                        }
                        self.process(now, key, header, text, on_event);
                    }
                    Err(cause) => {
                        if cause == DropCause::Closing {
                            // It may want to repeat its CLOSE.
                            self.after(now, slot, None);
                        }
                        return Err(cause);
                    }
                }
                Ok(())
            }
            Some(Target::Handshake(order)) => {
                self.handle_confirmation(now, (peer, order), header, bytes, gate, on_event)
            }
        }
    }

    fn process(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        header: &Header,
        text: &[u8],
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) {
        let slot = key.slot();
        let Some((_, session)) = self.at(slot) else { return };
        let (mut closed, mut news, mut in_use) = (None, None, false);
        let stir = session.connection.process(now, header, text, &mut |notice| match notice {
            Notice::PathResponse { token } => {
                news.get_or_insert_with(PathNews::default).response = Some(token);
            }
            Notice::RetiredIds { ids } => {
                news.get_or_insert_with(PathNews::default).retired = ids;
            }
            Notice::OwnIds { pairs } => {
                news.get_or_insert_with(PathNews::default).pairs.extend(pairs);
            }
            notice => {
                in_use |= matches!(notice, Notice::Message { .. });
                tell(key, notice, &mut closed, on_event);
            }
        });
        if in_use && !session.has_ids {
            self.give_ids(now, key);
        }
        if let Some(news) = news {
            self.on_path_news(now, key, &news, on_event);
        }
        if stir == Stir::Perhaps {
            self.after(now, slot, closed);
        }
    }

    /// The first sealed packet of a handshake, session 3.9.
    fn handle_confirmation(
        &mut self,
        now: Timestamp,
        (peer, order): (SocketAddr, u64),
        header: &Header,
        bytes: &mut [u8],
        gate: &mut dyn Gate,
        on_event: &mut dyn FnMut(EndpointEvent<'_>),
    ) -> Result<(), DropCause> {
        let half_open = self.door.handshakes.get(order).ok_or(DropCause::UnknownConnection)?;
        if half_open.peer != peer {
            return Err(DropCause::OtherAddress);
        }
        if header.flags & flag::PHASE != 0 {
            return Err(DropCause::NotAuthentic);
        }
        let common = Arc::clone(&self.common);
        let (suites, cipher) = (common.suites.as_ref(), half_open.cipher);
        let len = bytes.len() as u64;
        // Only the key for this direction, before it is known that the packet is worth more.
        let open = DirectionKey::new(suites, cipher, &half_open.split.client_to_server);
        let open = open.ok_or(DropCause::NotAuthentic)?;
        let text = open.open(header.number, bytes).ok_or(DropCause::NotAuthentic)?;
        let half_open = self.door.handshakes.remove(order).ok_or(DropCause::UnknownConnection)?;
        self.targets.remove(half_open.server_id);
        // The gate may have changed its mind since HELLO.
        let entry = if gate.allow_user(now, half_open.user) {
            self.check_entry(now, half_open.entry, &half_open.token_id)
        } else {
            Err(RefuseReason::Banned)
        };
        let resumed = match entry {
            Ok(resumed) => resumed,
            Err(reason) => return self.refuse_confirmed(&half_open, reason),
        };
        let (means, split) = (common.means(), &half_open.split);
        let mut keys = Keys::with_open(now, means, cipher, split, Role::Server, open);
        if half_open.hidden {
            keys.hide_headers(means, split).ok_or(DropCause::NotAuthentic)?;
        }
        // From here on nothing can fail: what is taken and spent belongs to a session.
        if !gate.take_room(replaces(resumed)) {
            return self.refuse_confirmed(&half_open, RefuseReason::Full);
        }
        self.spend_entry(&half_open, resumed, on_event);
        let key = self.establish(now, &half_open, keys);
        if let Some((_, session)) = self.at(key.slot()) {
            session.connection.on_authentic(now, header, len);
        }
        let HalfOpen { user, cipher, .. } = half_open;
        self.stats.resumed += u64::from(resumed.is_some());
        on_event(EndpointEvent::Established { session: key, user, peer, cipher, resumed });
        self.process(now, key, header, text, on_event);
        Ok(())
    }

    /// Tells a client that confirmed why it gets no session.
    fn refuse_confirmed(
        &mut self,
        half_open: &HalfOpen,
        reason: RefuseReason,
    ) -> Result<(), DropCause> {
        self.count_refusal(reason);
        let common = Arc::clone(&self.common);
        let (suites, cipher) = (common.suites.as_ref(), half_open.cipher);
        let seal = DirectionKey::new(suites, cipher, &half_open.split.server_to_client);
        let seal = seal.ok_or(DropCause::NotAuthentic)?;
        let hide = half_open.hidden.then_some(&half_open.split.server_to_client);
        let hide = hide.and_then(|secret| header_key(suites, cipher, secret));
        let answer = Answer::unborn(half_open, &seal, hide.as_deref(), reason);
        self.answer(answer)
    }

    fn establish(&mut self, now: Timestamp, half_open: &HalfOpen, keys: Keys) -> SessionKey {
        let mut seed = [0; 8];
        self.door.secrets.fill(&mut seed);
        let parts = ConnectionParts {
            role: Role::Server,
            keys,
            peer_id: half_open.client_id,
            jitter: Stream::new(self.jitter.next_u64(), "session", 0),
            skips: Stream::new(u64::from_le_bytes(seed), "session skips", 0),
        };
        let session = Box::new(Session {
            connection: Connection::new(now, &self.common, parts),
            user: half_open.user,
            root: half_open.ticket,
            ticket: half_open.ticket,
            renew_at: renewal::due(now, self.common.config.resume.lifetime, &half_open.ticket),
            renewal: None,
            route: Route::new(half_open.peer, half_open.client_id),
            id: half_open.server_id,
            client_id: half_open.client_id,
            spare: [IdPair::default(); SPARE_IDS],
            has_ids: false,
            queued: false,
        });
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let generation = self.slots.get_mut(slot as usize).map_or(0, |place| {
            place.session = Some(session);
            place.generation
        });
        self.targets.insert(half_open.server_id, Target::Session(slot));
        self.live += 1;
        self.stats.established += 1;
        let key = SessionKey::new(slot, generation);
        self.door.tickets.add(half_open.ticket, key);
        key
    }

    fn at(&mut self, slot: u32) -> Option<(SessionKey, &mut Session)> {
        let place = self.slots.get_mut(slot as usize)?;
        let session = place.session.as_deref_mut()?;
        Some((SessionKey::new(slot, place.generation), session))
    }

    fn find(&self, key: SessionKey) -> Option<&Session> {
        let place = self.slots.get(key.index())?;
        place.session.as_deref().filter(|_| place.generation == key.generation())
    }

    fn find_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let place = self.slots.get_mut(key.index())?;
        place.session.as_deref_mut().filter(|_| place.generation == key.generation())
    }

    /// After anything was done to a session: counts its end, frees or arms it, queues its sends.
    fn after(&mut self, now: Timestamp, slot: u32, closed: Option<CloseReason>) {
        if let Some(reason) = closed {
            self.count_closed(reason);
            self.keep_ticket(now, slot, reason);
        }
        let Some(session) =
            self.slots.get_mut(slot as usize).and_then(|p| p.session.as_deref_mut())
        else {
            return;
        };
        if session.connection.is_closed() {
            return self.free(slot);
        }
        if session.renewal.is_some() {
            session.settle_renewal();
        }
        if session.connection.wants_exchange(now) {
            session.connection.exchange(now, self.door.secrets.as_mut());
        }
        self.timers.arm(slot, session.deadline());
        if !session.queued && session.wants_transmit(now) {
            session.queued = true;
            self.dirty.push_back(slot);
        }
    }

    fn count_closed(&mut self, reason: CloseReason) {
        self.stats.closed += 1;
        self.stats.closings.count(reason);
        match reason {
            CloseReason::AckOfUnsent => self.stats.ack_of_unsent += 1,
            CloseReason::ProtocolViolation => self.stats.violations += 1,
            CloseReason::IdleTimeout => self.stats.idle_timeouts += 1,
            _ => {}
        }
    }

    fn free(&mut self, slot: u32) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        if let Some(session) = place.session.take() {
            place.generation = place.generation.wrapping_add(1);
            for id in session.spare.iter().map(|pair| pair.server).chain([session.id]) {
                self.targets.remove(id);
            }
            self.door.tickets.forget(&session.root);
            self.timers.disarm(slot);
            self.free.push(slot);
            self.live -= 1;
        }
    }

    /// Does what is due: resends, time-outs, keep-alives, ends.
    pub fn handle_timeout(&mut self, now: Timestamp, on_event: &mut dyn FnMut(EndpointEvent<'_>)) {
        while let Some(order) = self.door.handshakes.expired(now) {
            self.forget_handshake(order);
        }
        // Each slot at most once: a deadline that stayed in the past must not keep this loop turning.
        for _ in 0..self.timers.len() {
            let Some(slot) = self.timers.pop_due(now) else { break };
            let Some((key, session)) = self.at(slot) else { continue };
            let mut closed = None;
            session.connection.handle_timeout(now, &mut |notice| {
                tell(key, notice, &mut closed, on_event);
            });
            let outcome = session.route.handle_timeout(now);
            self.on_outcome(now, key, outcome, on_event);
            self.renew_ticket(now, key);
            self.after(now, slot, closed);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let sessions = self.timers.first().map(|(at, _)| at);
        match (sessions, self.door.handshakes.poll_timeout()) {
            (Some(sessions), Some(handshakes)) => Some(sessions.min(handshakes)),
            (sessions, handshakes) => sessions.or(handshakes),
        }
    }

    /// Queues a message for a session.
    ///
    /// # Errors
    /// [`SendError`], and nothing is queued.
    pub fn send(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        channel: Channel,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let found = self.find_mut(session).ok_or(SendError::NotConnected)?;
        found.connection.send(now, channel, bytes)?;
        self.after(now, session.slot(), None);
        Ok(())
    }

    /// Builds and seals one packet now: an ack block when one is wanted, the message that `write`
    /// writes straight into the packet, then queued frames in the room left. Returns where to send
    /// it. `channel` is unreliable or sequenced; a `tag` other than 0 comes back with
    /// [`EndpointEvent::Acked`].
    ///
    /// # Errors
    /// [`SendError`], and there is no packet; [`SendError::NoRoom`] when `write` said so.
    pub fn write_packet(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        channel: Channel,
        tag: u32,
        packet: &mut PacketBuf,
        write: &mut dyn FnMut(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<SocketAddr, SendError> {
        let found = self.find_mut(session).ok_or(SendError::NotConnected)?;
        let room = packet.room_mut();
        found.connection.aim(found.route.aim());
        let len = found.connection.write_packet(now, channel, tag, room, write)?;
        let peer = found.route.destination(len);
        packet.set_len(len);
        self.stats.packets_out += 1;
        self.stats.bytes_out += len as u64;
        self.after(now, session.slot(), None);
        Ok(peer)
    }

    /// Bytes that the writer of [`write_packet`](Self::write_packet) can surely use.
    pub const fn message_room() -> usize {
        crate::connection::message_room()
    }

    /// Bytes that the writer of [`write_packet`](Self::write_packet) can use at most, on whatever path.
    pub const fn message_room_max() -> usize {
        crate::connection::message_room() + PACKET_BYTES_LIMIT - PACKET_BYTES_MAX
    }

    /// Bytes that the writer of [`write_packet`](Self::write_packet) can surely use for this session:
    /// more than [`message_room`](Self::message_room) where the path was found to carry longer
    /// packets. `None` when the session is gone.
    pub fn message_room_of(&self, session: SessionKey) -> Option<usize> {
        Some(self.find(session)?.connection.message_room())
    }

    /// Ends a session. Its [`EndpointEvent::Closed`] comes with the next
    /// [`handle_timeout`](Self::handle_timeout), which is due at once.
    pub fn close(&mut self, now: Timestamp, session: SessionKey, reason: CloseReason) {
        if let Some(found) = self.find_mut(session) {
            found.connection.close(now, reason);
            self.after(now, session.slot(), None);
        }
    }

    /// Lets nobody in any more, before anything is computed for them; sessions go on. For a drain
    /// that ends them one by one.
    pub const fn stop_admitting(&mut self) {
        self.door.draining = true;
    }

    /// Ends all sessions and lets nobody in any more. Done when [`is_empty`](Self::is_empty).
    pub fn close_all(&mut self, now: Timestamp, reason: CloseReason) {
        self.door.draining = true;
        for slot in 0..self.slots.len() as u32 {
            if let Some((key, _)) = self.at(slot) {
                self.close(now, key, reason);
            }
        }
    }

    /// Whether there is no session, not even one that is closing.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The open sessions, in slot order.
    pub fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| {
            let session = place.session.as_deref()?;
            let open = session.connection.close_reason().is_none();
            open.then(|| SessionKey::new(slot as u32, place.generation))
        })
    }

    /// Reliable messages of all open sessions that are queued or not yet acknowledged.
    pub fn unacknowledged(&self) -> usize {
        let sessions = self.slots.iter().filter_map(|place| place.session.as_deref());
        let open = sessions.filter(|session| session.connection.close_reason().is_none());
        open.map(|session| session.connection.unacknowledged()).sum()
    }

    /// What a session counted; `None` when it is gone.
    pub fn session_stats(&self, session: SessionKey) -> Option<SessionStats> {
        let found = self.find(session)?;
        let traffic = found.connection.traffic();
        Some(SessionStats {
            user: found.user,
            peer: found.route.peer(),
            rtt: found.connection.smoothed_rtt(),
            path: found.connection.path(),
            loss_in: found.connection.loss_in(),
            packets_in: traffic.packets_in,
            packets_out: traffic.packets_out,
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
            packets_lost: found.connection.packets_lost(),
            packets_late: found.connection.packets_late(),
            unacknowledged: found.connection.unacknowledged(),
        })
    }

    /// How the packets to a session's client fare: for who sends states, a few times a second.
    /// `None` when the session is gone.
    pub fn flow(&self, session: SessionKey) -> Option<FlowStats> {
        Some(self.find(session)?.connection.flow())
    }

    /// The packet numbers of a session, for who watches that they only grow.
    pub fn packet_numbers(&self, session: SessionKey) -> Option<PacketNumbers> {
        Some(self.find(session)?.connection.packet_numbers())
    }

    /// Sessions, handshakes, ids and answers that are held, for tests of the bounds.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn held(&self) -> (usize, usize, usize, usize) {
        (self.live, self.door.handshakes.len(), self.targets.len(), self.answers.len())
    }

    /// The id that a session's client uses, for tests that lie about it.
    #[cfg(test)]
    pub(crate) fn connection_id(&self, session: SessionKey) -> u32 {
        self.find(session).unwrap().id
    }

    /// The sealed connection of a session, for tests that make it lie.
    #[cfg(test)]
    pub(crate) fn connection(&mut self, session: SessionKey) -> &mut Connection {
        &mut self.find_mut(session).unwrap().connection
    }

    /// What was counted so far.
    pub const fn stats(&self) -> &EndpointStats {
        &self.stats
    }
}

/// Turns what a connection says into what the endpoint says.
fn tell(
    session: SessionKey,
    notice: Notice<'_>,
    closed: &mut Option<CloseReason>,
    on_event: &mut dyn FnMut(EndpointEvent<'_>),
) {
    on_event(match notice {
        Notice::Message { channel, bytes } => EndpointEvent::Message { session, channel, bytes },
        Notice::Acked { number, tag } => EndpointEvent::Acked { session, number, tag },
        Notice::Closed { reason } => {
            *closed = Some(reason);
            EndpointEvent::Closed { session, reason }
        }
        // Only a server sends TIME, ids and tickets; the others are taken before this.
        Notice::Time { .. }
        | Notice::NewIds { .. }
        | Notice::OwnIds { .. }
        | Notice::Ticket { .. }
        | Notice::PathResponse { .. }
        | Notice::RetiredIds { .. } => return,
    });
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("sessions", &self.live)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
