//! The client's end: one session.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_core::bytes::{NoRoom, Writer};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketBuf, PacketPool};
use twinspan_core::prefetch;
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_reliable::{Backoff, Channel};

use crate::config::{Common, SessionConfig};
use crate::connection::{Connection, ConnectionParts, HOT_BYTES, Notice, Stir};
use crate::error::{ConfigError, SendError};
use crate::frames::{IdPair, SPARE_IDS};
use crate::header::{Form, Header, parse};
use crate::identity::KeyPair;
use crate::keys::Keys;
use crate::messages::{
    Accept, HELLO_BYTES, HelloBytes, HelloParts, PROLOGUE_BYTES, PublicMacs, VERSION,
    connection_id, hello_prologue, kind, parse_accept, parse_refuse, parse_retry,
};
use crate::noise::{Initiator, MESSAGE_1_BYTES};
use crate::protection::Role;
use crate::reason::{CloseReason, RefuseReason};
use crate::stats::{ClientStats, DropCause, DropCounts};
use crate::ticket::ResumeTicket;
use crate::token::ConnectToken;

mod comeback;
mod ids;

/// HELLOs that are sent with one cookie before another is asked for.
const HELLOS_PER_COOKIE: u32 = 4;
/// Most of a wait that jitter adds to it.
const JITTER_FRACTION: f64 = 0.25;

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientState {
    /// The handshake is under way.
    Connecting,
    /// The server proved its keys.
    Connected,
    /// CLOSE is on its way.
    Closing,
    /// Nothing more will come.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// What a [`ClientSession`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent<'a> {
    /// The server proved its keys: messages may be sent.
    Connected {
        /// How packets are protected.
        cipher: Cipher,
        /// What the server's clock showed when it accepted.
        server_time: Timestamp,
    },
    /// A message arrived.
    Message {
        /// The channel that it was sent on.
        channel: Channel,
        /// The message.
        bytes: &'a [u8],
    },
    /// The server has a packet that [`ClientSession::write_packet`] wrote with a tag other than 0.
    Acked {
        /// The packet's number.
        number: u64,
        /// The tag.
        tag: u32,
    },
    /// The session ended, whoever ended it: told exactly once, and the last event.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Waits for the server's answer to HELLO.
struct Connecting {
    initiator: Initiator,
    /// Of the server's key. They take more than all else of a session, so it has none once it is up.
    macs: PublicMacs,
    hello: HelloBytes,
    cookie: [u8; 16],
    /// HELLOs sent with this cookie.
    sent: u32,
    next_hello_at: Timestamp,
}

/// Has keys.
struct Connected {
    connection: Connection,
    cipher: Cipher,
    /// When the next PING for confirmation is due; `None` once the server was heard.
    confirm_at: Option<Timestamp>,
    /// Ids to go on under from another address; 0 for none.
    spare: [IdPair; SPARE_IDS],
    /// Own ids of before, newest first, that the server may still use; 0 for none.
    before: [u32; SPARE_IDS],
}

enum State {
    Connecting(Box<Connecting>),
    Connected(Box<Connected>),
    Closed { reason: CloseReason, told: bool },
}

/// A sealed session's client, as a machine.
///
/// After each `handle_*` call and after [`send`](Self::send) and [`close`](Self::close), drain
/// [`poll_transmit`](Self::poll_transmit), then read [`poll_timeout`](Self::poll_timeout). The first
/// `poll_transmit` begins the handshake.
pub struct ClientSession {
    common: Arc<Common>,
    token: ConnectToken,
    server: SocketAddr,
    secrets: Box<dyn SecretSource>,
    jitter: Stream,
    nonce: [u8; 16],
    id: u32,
    /// Somebody chose the id, who has to know it.
    is_id_chosen: bool,
    backoff: Backoff,
    /// When the handshake must be over; `None` before it began.
    deadline: Option<Timestamp>,
    state: State,
    /// What the server gave for coming back.
    ticket: Option<ResumeTicket>,
    /// The ticket with which this session is being set up, until the server was heard.
    entering: Option<Box<ResumeTicket>>,
    /// The server's clock and ours at one moment.
    clocks: Option<(Timestamp, Timestamp)>,
    stats: ClientStats,
}

impl ClientSession {
    /// A client that will connect to `server` with `token`.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot be.
    pub fn new(
        config: SessionConfig,
        suites: Arc<dyn AeadSuite>,
        token: &ConnectToken,
        server: SocketAddr,
        mut secrets: Box<dyn SecretSource>,
        jitter: Stream,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        if suites.ciphers().is_empty() {
            return Err(ConfigError::NoCipher);
        }
        let mut nonce = [0; 16];
        secrets.fill(&mut nonce);
        let id = draw_id(secrets.as_mut());
        let mut new = Self {
            token: token.clone(),
            server,
            secrets,
            jitter,
            nonce,
            id,
            is_id_chosen: false,
            backoff: Backoff::new(
                config.hello_interval,
                config.hello_interval_max,
                JITTER_FRACTION,
            ),
            deadline: None,
            state: State::Closed { reason: CloseReason::Normal, told: false },
            ticket: None,
            entering: None,
            clocks: None,
            stats: ClientStats::default(),
            common: Common::new(config, suites),
        };
        new.state = new.begin();
        Ok(new)
    }

    /// A client that will connect to `server` with the ticket of a session that was lost. It is a
    /// session of its own: what was queued in the lost one and not acknowledged is gone.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot be.
    pub fn resume(
        config: SessionConfig,
        suites: Arc<dyn AeadSuite>,
        ticket: &ResumeTicket,
        server: SocketAddr,
        secrets: Box<dyn SecretSource>,
        jitter: Stream,
    ) -> Result<Self, ConfigError> {
        Self::new(config, suites, ticket.as_token(), server, secrets, jitter)
    }

    /// What lets this client back in, once, when its session was lost: for
    /// [`resume`](Self::resume). Each session has its own, from when it is connected; it outlives
    /// the session. The server replaces it long before it expires, and then takes the one before no
    /// longer: who keeps a copy looks here from time to time.
    pub const fn ticket(&self) -> Option<&ResumeTicket> {
        self.ticket.as_ref()
    }

    /// Makes the server address this client by `id`, which a fleet behind one socket chooses so that
    /// no two of its clients share one. Before the first [`poll_transmit`](Self::poll_transmit); 0
    /// changes nothing.
    #[must_use]
    pub fn with_connection_id(mut self, id: u32) -> Self {
        if id != 0 && self.deadline.is_none() {
            self.id = id;
            self.is_id_chosen = true;
            self.state = self.begin();
        }
        self
    }

    /// Makes the HELLO, which stays the same but for its cookie.
    fn begin(&mut self) -> State {
        let prologue: [u8; PROLOGUE_BYTES] = hello_prologue(HelloParts {
            nonce: &self.nonce,
            connection: self.id,
            versions: &[VERSION],
            options: self.common.config.header_protection.to_options(),
            suites: self.common.suites.ciphers(),
            token_public: &self.token.public_part().to_bytes(),
            token_private: self.token.private_part(),
        });
        let ephemeral = KeyPair::generate(self.secrets.as_mut());
        let psk = self.token.psk().clone();
        let started = Initiator::start(&prologue, &self.token.server_key(), psk, ephemeral);
        let Ok((initiator, noise)): Result<(_, [u8; MESSAGE_1_BYTES]), _> = started else {
            // The token pins a server key with which nobody can agree on anything.
            let reason = CloseReason::Refused(RefuseReason::TokenInvalid);
            return State::Closed { reason, told: false };
        };
        let macs = PublicMacs::new(&self.token.server_key());
        State::Connecting(Box::new(Connecting {
            initiator,
            hello: HelloBytes::new(&prologue, &noise, &macs),
            macs,
            cookie: [0; 16],
            sent: 0,
            next_hello_at: Timestamp::START,
        }))
    }

    /// Wishes for the memory that the next packet needs, in either direction.
    pub fn prefetch(&self) {
        if let State::Connected(connected) = &self.state {
            prefetch::bytes(core::ptr::from_ref(&connected.connection).cast(), HOT_BYTES);
            connected.connection.prefetch_to_open(false);
            connected.connection.prefetch_to_seal();
        }
    }

    /// Takes a datagram from the server; its bytes are decrypted in place.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        bytes: &mut [u8],
        on_event: &mut dyn FnMut(ClientEvent<'_>),
    ) {
        self.stats.packets_in += 1;
        self.stats.bytes_in += bytes.len() as u64;
        if let State::Connected(connected) = &self.state
            && connection_id(bytes) != Some(0)
        {
            connected.connection.reveal(bytes);
        }
        let result = match parse(bytes) {
            Ok(Form::Handshake { kind }) => self.handle_handshake(now, kind, bytes, on_event),
            Ok(Form::Sealed(header)) => self.handle_sealed(now, &header, bytes, on_event),
            Err(cause) => Err(cause),
        };
        if let Err(cause) = result {
            self.stats.drops.count(cause);
        }
    }

    fn handle_handshake(
        &mut self,
        now: Timestamp,
        kind: u8,
        bytes: &[u8],
        on_event: &mut dyn FnMut(ClientEvent<'_>),
    ) -> Result<(), DropCause> {
        let State::Connecting(connecting) = &mut self.state else {
            return Err(DropCause::Unexpected);
        };
        match kind {
            kind::RETRY => {
                let cookie = parse_retry(bytes, &self.nonce, &connecting.macs)?;
                // A repeated RETRY must not call forth another HELLO.
                if cookie != connecting.cookie {
                    connecting.set_cookie(cookie);
                    connecting.next_hello_at = now;
                    self.backoff.reset();
                    self.stats.retries += 1;
                }
                Ok(())
            }
            kind::ACCEPT => self.handle_accept(now, bytes, on_event),
            kind::REFUSE => {
                let cookie = &connecting.cookie;
                let reason = parse_refuse(bytes, &self.nonce, cookie, &connecting.macs)?;
                let reason = CloseReason::Refused(reason);
                self.state = State::Closed { reason, told: true };
                on_event(ClientEvent::Closed { reason });
                Ok(())
            }
            _ => Err(DropCause::Unexpected),
        }
    }

    fn handle_accept(
        &mut self,
        now: Timestamp,
        bytes: &[u8],
        on_event: &mut dyn FnMut(ClientEvent<'_>),
    ) -> Result<(), DropCause> {
        let State::Connecting(connecting) = &self.state else { return Err(DropCause::Unexpected) };
        let message = parse_accept(bytes, &self.nonce)?;
        let (payload, split) =
            connecting.initiator.finish(message).map_err(|_| DropCause::AnswerBad)?;
        let (accept, ticket) = Accept::parse_payload(&payload).map_err(|_| DropCause::AnswerBad)?;
        let cipher = Cipher::from_wire(accept.suite)
            .filter(|cipher| self.common.suites.ciphers().contains(cipher))
            .filter(|_| accept.version == VERSION && accept.connection != 0)
            .filter(|_| self.common.config.header_protection.takes(accept.hidden))
            .ok_or(DropCause::AnswerBad)?;
        let keys = Keys::new(now, self.common.means(), cipher, &split, Role::Client);
        let mut keys = keys.ok_or(DropCause::AnswerBad)?;
        if accept.hidden {
            keys.hide_headers(self.common.means(), &split).ok_or(DropCause::AnswerBad)?;
        }
        let mut seed = [0; 8];
        self.secrets.fill(&mut seed);
        let parts = ConnectionParts {
            role: Role::Client,
            keys,
            peer_id: accept.connection,
            jitter: Stream::new(self.jitter.next_u64(), "session", 0),
            skips: Stream::new(u64::from_le_bytes(seed), "session skips", 0),
        };
        let mut connection = Connection::new(now, &self.common, parts);
        connection.probe();
        self.backoff.reset();
        let confirm_at = Some(now.after(self.backoff.next_delay(&mut self.jitter)));
        let (server_key, user) = (self.token.server_key(), self.token.user());
        let window = accept.resume_window;
        self.ticket = ResumeTicket::new(&ticket, self.server, server_key, user, window);
        self.clocks = Some((accept.server_time, now));
        self.state = State::Connected(Box::new(Connected {
            connection,
            cipher,
            confirm_at,
            spare: [IdPair::default(); SPARE_IDS],
            before: [0; SPARE_IDS],
        }));
        on_event(ClientEvent::Connected { cipher, server_time: accept.server_time });
        Ok(())
    }

    fn handle_sealed(
        &mut self,
        now: Timestamp,
        header: &Header,
        bytes: &mut [u8],
        on_event: &mut dyn FnMut(ClientEvent<'_>),
    ) -> Result<(), DropCause> {
        let State::Connected(connected) = &mut self.state else {
            return Err(DropCause::UnknownConnection);
        };
        if header.connection != self.id && !connected.before.contains(&header.connection) {
            return Err(DropCause::UnknownConnection);
        }
        let text = connected.connection.open(now, header, bytes)?;
        connected.confirm_at = None;
        connected.forget_before(header.connection);
        self.entering = None;
        let half_rtt = connected.connection.smoothed_rtt() / 2;
        let clocks = &mut self.clocks;
        let mut new_ids = None;
        let (server, user) = (self.server, self.token.user());
        let kept = &mut self.ticket;
        let _: Stir = connected.connection.process(now, header, text, &mut |notice| {
            if let Notice::NewIds { ids } = notice {
                new_ids = Some(ids);
                return;
            }
            if let Notice::Ticket { ticket, server_key } = notice {
                let window = kept.as_ref().map(ResumeTicket::window).unwrap_or_default();
                *kept = ResumeTicket::new(ticket, server, server_key, user, window).or(kept.take());
                return;
            }
            tell(notice, on_event, |nanos| {
                *clocks = Some((Timestamp::from_nanos(nanos).after(half_rtt), now));
            });
        });
        if let Some(ids) = new_ids {
            self.keep_ids(now, ids);
        }
        self.after(now);
        Ok(())
    }

    /// After anything was done to the connection.
    fn after(&mut self, now: Timestamp) {
        if let State::Connected(connected) = &mut self.state
            && connected.connection.wants_exchange(now)
        {
            connected.connection.exchange(now, self.secrets.as_mut());
        }
        if let State::Connected(connected) = &self.state
            && connected.connection.is_closed()
            && let Some(reason) = connected.connection.close_reason()
        {
            self.keep_traffic();
            self.state = State::Closed { reason, told: true };
        }
    }

    /// Does what is due: repeats, time-outs, keep-alives, the end.
    pub fn handle_timeout(&mut self, now: Timestamp, on_event: &mut dyn FnMut(ClientEvent<'_>)) {
        let overdue = self.deadline.is_some_and(|deadline| now >= deadline);
        match &mut self.state {
            State::Connecting(_) if overdue => {
                let reason = CloseReason::HandshakeTimeout;
                self.state = State::Closed { reason, told: true };
                on_event(ClientEvent::Closed { reason });
            }
            State::Connecting(_) | State::Closed { told: true, .. } => {}
            State::Connected(connected) => {
                if let Some(at) = connected.confirm_at.filter(|at| now >= *at) {
                    if overdue {
                        let reason = CloseReason::HandshakeTimeout;
                        self.keep_traffic();
                        self.state = State::Closed { reason, told: true };
                        on_event(ClientEvent::Closed { reason });
                        return;
                    }
                    connected.connection.probe();
                    let delay = self.backoff.next_delay(&mut self.jitter);
                    let next = now.max(at).after(delay);
                    connected.confirm_at =
                        Some(self.deadline.map_or(next, |deadline| next.min(deadline)));
                }
                connected.connection.handle_timeout(now, &mut |notice| {
                    tell(notice, on_event, |_| {});
                });
                self.after(now);
            }
            State::Closed { reason, told } => {
                *told = true;
                on_event(ClientEvent::Closed { reason: *reason });
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and then
    /// [`poll_transmit`](Self::poll_transmit), next; `None` when the session is over.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Connecting(connecting) => {
                let next = connecting.next_hello_at;
                Some(self.deadline.map_or(next, |deadline| next.min(deadline)))
            }
            State::Connected(connected) => {
                let deadline = connected.connection.deadline();
                Some(connected.confirm_at.map_or(deadline, |at| at.min(deadline)))
            }
            State::Closed { told: false, .. } => Some(Timestamp::START),
            State::Closed { told: true, .. } => None,
        }
    }

    /// Appends packets to send until `out` is full, `pool` is empty or nothing is left.
    pub fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let deadline = now.after(self.common.config.handshake_deadline);
        loop {
            match &self.state {
                State::Connecting(connecting) if now >= connecting.next_hello_at => {}
                State::Connected(connected) if connected.connection.wants_transmit(now) => {}
                _ => return,
            }
            let Some(mut packet) = pool.take().filter(|_| out.room() > 0) else { return };
            let room = packet.room_mut();
            let len = match &mut self.state {
                State::Connecting(connecting) => {
                    self.deadline.get_or_insert(deadline);
                    let delay = self.backoff.next_delay(&mut self.jitter);
                    self.stats.hellos += 1;
                    connecting.write_hello(now, delay, room)
                }
                State::Connected(connected) => connected.connection.build(now, room),
                State::Closed { .. } => None,
            };
            let Some(len) = len else { return };
            packet.set_len(len);
            self.count_out(len);
            if out.push(Datagram { peer: self.server, at: now, packet }).is_err() {
                return;
            }
        }
    }

    const fn count_out(&mut self, len: usize) {
        self.stats.packets_out += 1;
        self.stats.bytes_out += len as u64;
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`SendError`], and nothing is queued.
    pub fn send(
        &mut self,
        now: Timestamp,
        channel: Channel,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        self.connection_mut()?.send(now, channel, bytes)
    }

    /// Builds and seals one packet now: an ack block when one is wanted, the message that `write`
    /// writes straight into the packet, then queued frames in the room left. Returns where to send
    /// it. `channel` is unreliable or sequenced; a `tag` other than 0 comes back with
    /// [`ClientEvent::Acked`].
    ///
    /// # Errors
    /// [`SendError`], and there is no packet; [`SendError::NoRoom`] when `write` said so.
    pub fn write_packet(
        &mut self,
        now: Timestamp,
        channel: Channel,
        tag: u32,
        packet: &mut PacketBuf,
        write: &mut dyn FnMut(&mut Writer<'_>) -> Result<(), NoRoom>,
    ) -> Result<SocketAddr, SendError> {
        let room = packet.room_mut();
        let len = self.connection_mut()?.write_packet(now, channel, tag, room, write)?;
        packet.set_len(len);
        self.count_out(len);
        Ok(self.server)
    }

    fn connection_mut(&mut self) -> Result<&mut Connection, SendError> {
        match &mut self.state {
            State::Connecting(_) => Err(SendError::NotConnected),
            State::Connected(connected) => Ok(&mut connected.connection),
            State::Closed { reason, .. } => Err(SendError::Closed(*reason)),
        }
    }

    /// Ends the session. [`ClientEvent::Closed`] comes from [`handle_timeout`](Self::handle_timeout)
    /// once the server was told.
    pub fn close(&mut self, now: Timestamp, reason: CloseReason) {
        match &mut self.state {
            State::Connecting(_) => self.state = State::Closed { reason, told: false },
            State::Connected(connected) => connected.connection.close(now, reason),
            State::Closed { .. } => {}
        }
    }

    /// How far it is.
    pub const fn state(&self) -> ClientState {
        match &self.state {
            State::Connecting(_) => ClientState::Connecting,
            State::Connected(connected) => match connected.connection.close_reason() {
                None => ClientState::Connected,
                Some(_) => ClientState::Closing,
            },
            State::Closed { reason, .. } => ClientState::Closed { reason: *reason },
        }
    }

    /// Whether packet headers are hidden, while connected.
    pub const fn hides_headers(&self) -> bool {
        match &self.state {
            State::Connected(connected) => connected.connection.hides_headers(),
            _ => false,
        }
    }

    /// How packets are protected, while connected.
    pub const fn cipher(&self) -> Option<Cipher> {
        match &self.state {
            State::Connected(connected) => Some(connected.cipher),
            _ => None,
        }
    }

    /// Where the server is.
    pub const fn server_addr(&self) -> SocketAddr {
        self.server
    }

    /// The id by which the server addresses this client; another after [`migrate`](Self::migrate),
    /// unless [`with_connection_id`](Self::with_connection_id) chose it.
    pub const fn connection_id(&self) -> u32 {
        self.id
    }

    /// The nonce by which handshake answers name this client; see
    /// [`handshake_nonce`](crate::handshake_nonce).
    pub const fn handshake_nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// What the server's clock shows now, as far as the last word of it tells.
    pub fn server_time(&self, now: Timestamp) -> Option<Timestamp> {
        self.clocks.map(|(server, here)| server.after(now.since(here)))
    }

    /// What was counted so far.
    pub fn stats(&self) -> ClientStats {
        let mut stats = self.stats;
        if let State::Connected(connected) = &self.state {
            stats.rtt = connected.connection.smoothed_rtt();
            stats.path = connected.connection.path();
            stats.unacknowledged = connected.connection.unacknowledged();
            stats.packets_lost = connected.connection.packets_lost();
            stats.packets_late = connected.connection.packets_late();
            stats.loss_in = connected.connection.loss_in();
        }
        stats
    }

    /// Datagrams dropped, by cause.
    pub const fn drops(&self) -> &DropCounts {
        &self.stats.drops
    }

    /// Seals `text` as the next packet, whether the protocol allows it or not: what a client that
    /// holds a good token may send. For tests of the server; `None` before the session is set up.
    #[cfg(feature = "fuzz")]
    pub fn seal_text(&mut self, channel: u8, flags: u8, text: &[u8]) -> Option<Vec<u8>> {
        Some(self.connection_mut().ok()?.seal_raw(channel, flags, text))
    }

    /// The sealed connection, for tests that make it lie.
    #[cfg(test)]
    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.connection_mut().unwrap()
    }

    /// What a [`LoadClient`](crate::LoadClient) goes on with; the session itself while it is not
    /// connected.
    #[cfg(feature = "load")]
    pub(crate) fn into_load_parts(mut self) -> Result<crate::connection::LoadParts, Box<Self>> {
        let ended = State::Closed { reason: CloseReason::Normal, told: true };
        match core::mem::replace(&mut self.state, ended) {
            State::Connected(connected) if connected.confirm_at.is_none() => {
                Ok(connected.connection.into_load_parts())
            }
            state => {
                self.state = state;
                Err(Box::new(self))
            }
        }
    }

    /// What the connection counted outlives it.
    fn keep_traffic(&mut self) {
        self.stats = self.stats();
    }
}

impl Connecting {
    fn set_cookie(&mut self, cookie: [u8; 16]) {
        self.cookie = cookie;
        self.hello.set_cookie(&cookie);
        self.sent = 0;
    }

    /// Writes the next HELLO; a cookie that leads nowhere is forgotten first.
    fn write_hello(&mut self, now: Timestamp, delay: Duration, room: &mut [u8]) -> Option<usize> {
        if self.cookie != [0; 16] && self.sent >= HELLOS_PER_COOKIE {
            self.set_cookie([0; 16]);
        }
        self.sent += 1;
        self.next_hello_at = now.after(delay);
        self.hello.write(room).then_some(HELLO_BYTES)
    }
}

/// A connection id, not 0.
fn draw_id(secrets: &mut dyn SecretSource) -> u32 {
    loop {
        let mut bytes = [0; 4];
        secrets.fill(&mut bytes);
        let id = u32::from_le_bytes(bytes);
        if id != 0 {
            return id;
        }
    }
}

/// Turns what a connection says into what the client says.
fn tell(notice: Notice<'_>, on_event: &mut dyn FnMut(ClientEvent<'_>), on_time: impl FnOnce(u64)) {
    on_event(match notice {
        Notice::Message { channel, bytes } => ClientEvent::Message { channel, bytes },
        Notice::Acked { number, tag } => ClientEvent::Acked { number, tag },
        Notice::Closed { reason } => ClientEvent::Closed { reason },
        Notice::Time { nanos } => return on_time(nanos),
        // Kept before this; the others a client ignores or calls a violation.
        Notice::NewIds { .. }
        | Notice::OwnIds { .. }
        | Notice::Ticket { .. }
        | Notice::PathResponse { .. }
        | Notice::RetiredIds { .. } => return,
    });
}

impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSession")
            .field("server", &self.server)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
