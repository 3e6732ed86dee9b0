//! A server, clients and the link between them, in virtual time.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_core::aead::{
    AeadSuite, Cipher, HeaderKey, MASK_BYTES, OpenError, PacketKey, SAMPLE_BYTES, SECRET_BYTES,
    TAG_BYTES,
};
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{Stream, draw};
use twinspan_core::time::Timestamp;
use twinspan_reliable::{Channel, Delivery, StreamId};

use crate::{
    ClientEvent, ClientSession, ClientState, CloseReason, ConnectToken, CryptoSuite, Endpoint,
    EndpointEvent, Gate, OpenGate, ResumeTicket, ServerIdentity, SessionConfig, SessionKey,
    TokenIssuer, TokenKey, UserId,
};

/// What the wall clock shows when a test begins.
pub(super) const UNIX_AT_START: u64 = 1_900_000_000;
/// When tokens of tests expire.
pub(super) const EXPIRES: u64 = UNIX_AT_START + 3_600;

pub(super) fn server_addr() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 7_700))
}

pub(super) fn client_addr(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 5_000))
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How the link treats datagrams, the same both ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
}

impl Link {
    pub(super) const CLEAN: Self = Self::lossy(0.0);

    pub(super) const fn lossy(loss: f64) -> Self {
        let duplicate = if loss > 0.0 { 0.05 } else { 0.0 };
        let jitter = if loss > 0.0 { Duration::from_millis(30) } else { Duration::ZERO };
        Self { loss, duplicate, delay: Duration::from_millis(20), jitter }
    }
}

/// What the server told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Established(SessionKey, UserId, SocketAddr, Cipher),
    Resumed(SessionKey, UserId, Option<SessionKey>),
    Message(SessionKey, Channel, Vec<u8>),
    Acked(SessionKey, u32),
    Moved(SessionKey, SocketAddr),
    Closed(SessionKey, CloseReason),
}

/// What a client told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ClientTold {
    Connected(Cipher),
    Message(Channel, Vec<u8>),
    Acked(u32),
    Closed(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Server,
    Client(usize),
}

/// A datagram under way or passed.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) to: Target,
    pub(super) client: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Rig {
    pub(super) now: Timestamp,
    pub(super) link: Link,
    /// Bytes of the longest datagram that the link carries.
    pub(super) mtu: usize,
    pub(super) config: SessionConfig,
    pub(super) endpoint: Endpoint,
    pub(super) clients: Vec<ClientSession>,
    pub(super) told: Vec<Told>,
    pub(super) client_told: Vec<Vec<ClientTold>>,
    /// All that was sent, lost or not.
    pub(super) sent: Vec<Sent>,
    pub(super) issuer: TokenIssuer,
    pub(super) pool: PacketPool,
    /// Who has a say in who is let in.
    pub(super) gate: Box<dyn Gate>,
    /// Clients that are no longer where they were.
    pub(super) homes: BTreeMap<usize, SocketAddr>,
    wire: BTreeMap<(Timestamp, u64), Sent>,
    order: u64,
    random: Stream,
    secrets: Stream,
    seed: u64,
}

pub(super) fn aes() -> Arc<dyn AeadSuite> {
    Arc::new(CryptoSuite::AES_FIRST)
}

impl Rig {
    /// Without probes of the path's longest packet, so that packets can be counted.
    pub(super) fn new(seed: u64, link: Link) -> Self {
        let config = SessionConfig { packet_bytes_max: 1_200, ..SessionConfig::default() };
        Self::with(seed, link, config, aes())
    }

    pub(super) fn with(
        seed: u64,
        link: Link,
        config: SessionConfig,
        suites: Arc<dyn AeadSuite>,
    ) -> Self {
        let mut secrets = Stream::new(seed, "secrets", 0);
        let (identity, token_key) = keys(seed);
        let issuer = TokenIssuer::new(token_key.clone(), identity.public_key());
        let endpoint = Endpoint::new(
            config.clone(),
            suites,
            identity,
            token_key,
            Box::new(Stream::new(seed, "server secrets", 0)),
            Stream::new(seed, "server jitter", 0),
            UNIX_AT_START,
        )
        .unwrap();
        secrets.next_u64();
        Self {
            now: Timestamp::START,
            link,
            mtu: usize::MAX,
            config,
            endpoint,
            clients: Vec::new(),
            told: Vec::new(),
            client_told: Vec::new(),
            sent: Vec::new(),
            issuer,
            pool: PacketPool::new(256),
            gate: Box::new(OpenGate),
            homes: BTreeMap::new(),
            wire: BTreeMap::new(),
            order: 0,
            random: Stream::new(seed, "link", 0),
            secrets,
            seed,
        }
    }

    /// A second server with the same keys, as after a restart: it knows nothing of the first.
    pub(super) fn restart_server(&mut self) {
        let (identity, token_key) = keys(self.seed);
        self.endpoint = Endpoint::new(
            self.config.clone(),
            aes(),
            identity,
            token_key,
            Box::new(Stream::new(self.seed, "server secrets", 1)),
            Stream::new(self.seed, "server jitter", 1),
            UNIX_AT_START,
        )
        .unwrap();
    }

    pub(super) fn token(&mut self) -> ConnectToken {
        let user = UserId(100 + self.clients.len() as u64);
        self.issuer.issue(&mut self.secrets, user, server_addr(), EXPIRES)
    }

    pub(super) fn add_client(&mut self) -> usize {
        let token = self.token();
        self.add_client_with(&token, aes())
    }

    pub(super) fn add_client_with(
        &mut self,
        token: &ConnectToken,
        suites: Arc<dyn AeadSuite>,
    ) -> usize {
        let config = self.config.clone();
        self.add_client_configured(token, suites, config)
    }

    pub(super) fn add_client_configured(
        &mut self,
        token: &ConnectToken,
        suites: Arc<dyn AeadSuite>,
        config: SessionConfig,
    ) -> usize {
        let index = self.clients.len();
        let client = ClientSession::new(
            config,
            suites,
            token,
            server_addr(),
            Box::new(Stream::new(self.seed, "client secrets", index as u64)),
            Stream::new(self.seed, "client jitter", index as u64),
        );
        self.clients.push(client.unwrap());
        self.client_told.push(Vec::new());
        index
    }

    /// A client that comes back with a ticket.
    pub(super) fn resume_client(&mut self, ticket: &ResumeTicket) -> usize {
        let index = self.clients.len();
        let client = ClientSession::resume(
            self.config.clone(),
            aes(),
            ticket,
            server_addr(),
            Box::new(Stream::new(self.seed, "client secrets", index as u64)),
            Stream::new(self.seed, "client jitter", index as u64),
        );
        self.clients.push(client.unwrap());
        self.client_told.push(Vec::new());
        index
    }

    /// Puts a datagram on the wire as the link treats it.
    pub(super) fn send(&mut self, to: Target, client: SocketAddr, bytes: Vec<u8>) {
        let copies = 1 + u32::from(self.random.chance(self.link.duplicate));
        let lost = self.random.chance(self.link.loss) || bytes.len() > self.mtu;
        let sent = Sent { to, client, bytes };
        self.sent.push(sent.clone());
        for _ in 0..if lost { 0 } else { copies } {
            let at =
                self.now.after(self.link.delay).after(self.link.jitter.mul_f64(self.random.unit()));
            self.order += 1;
            self.wire.insert((at, self.order), sent.clone());
        }
    }

    /// Sends what everybody has to send.
    pub(super) fn flush(&mut self) {
        let mut out = DatagramBatch::new(64);
        loop {
            self.endpoint.poll_transmit(self.now, &self.pool, &mut out);
            let mut batch = Vec::new();
            while let Some(datagram) = out.pop() {
                let target = self.client_at(datagram.peer);
                batch.push((target, datagram.peer, datagram.packet.to_vec()));
            }
            for index in 0..self.clients.len() {
                self.clients[index].poll_transmit(self.now, &self.pool, &mut out);
                while let Some(datagram) = out.pop() {
                    assert_eq!(datagram.peer, server_addr());
                    batch.push((Target::Server, self.home(index), datagram.packet.to_vec()));
                }
            }
            if batch.is_empty() {
                return;
            }
            for (to, client, bytes) in batch {
                self.send(to, client, bytes);
            }
        }
    }

    /// Where a client is now.
    pub(super) fn home(&self, index: usize) -> SocketAddr {
        self.homes.get(&index).copied().unwrap_or_else(|| client_addr(index))
    }

    fn client_at(&self, peer: SocketAddr) -> Target {
        let found = (0..self.clients.len()).find(|index| self.home(*index) == peer);
        Target::Client(found.unwrap_or(usize::MAX))
    }

    /// Hands a datagram to the server at once.
    pub(super) fn deliver_to_server(&mut self, from: SocketAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let Self { endpoint, told, gate, now, .. } = self;
        endpoint.handle_datagram_gated(*now, from, &mut bytes, gate.as_mut(), &mut |event| {
            told.push(note(&event));
        });
    }

    /// Hands a datagram to a client at once.
    pub(super) fn deliver_to_client(&mut self, index: usize, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let told = &mut self.client_told[index];
        self.clients[index]
            .handle_datagram(self.now, &mut bytes, &mut |event| told.push(client_note(&event)));
    }

    fn next_event(&self) -> Option<Timestamp> {
        let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
        let clients = self.clients.iter().filter_map(ClientSession::poll_timeout);
        clients.chain(wire).chain(self.endpoint.poll_timeout()).min()
    }

    /// One step: everything that happens at the next moment something does.
    pub(super) fn step(&mut self, until: Timestamp) -> bool {
        self.flush();
        let Some(at) = self.next_event().filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let sent = entry.remove();
            match sent.to {
                Target::Server => self.deliver_to_server(sent.client, &sent.bytes),
                Target::Client(usize::MAX) => {}
                // It left while the packet was on its way.
                Target::Client(index) if self.home(index) != sent.client => {}
                Target::Client(index) => self.deliver_to_client(index, &sent.bytes),
            }
        }
        let (now, told) = (self.now, &mut self.told);
        self.endpoint.handle_timeout(now, &mut |event| told.push(note(&event)));
        for (client, told) in self.clients.iter_mut().zip(&mut self.client_told) {
            client.handle_timeout(now, &mut |event| told.push(client_note(&event)));
        }
        true
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        let until = self.now.after(duration);
        let mut steps = 0_u64;
        while self.step(until) {
            steps += 1;
            assert!(steps < 1_000_000, "time stands still at {}", self.now);
        }
        self.flush();
    }

    /// Runs until `done` holds; says whether it did within `limit`.
    pub(super) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.now.after(limit);
        let mut steps = 0_u64;
        while !done(self) {
            steps += 1;
            assert!(steps < 1_000_000, "time stands still at {}", self.now);
            if !self.step(until) {
                return done(self);
            }
        }
        true
    }

    /// Runs until all clients and the server know of one another.
    pub(super) fn connect(&mut self) {
        let connected = self.run_until(ms(9_000), |rig| {
            let clients = rig.clients.iter().all(|c| c.state() == ClientState::Connected);
            clients && rig.endpoint.sessions().count() == rig.clients.len()
        });
        assert!(connected, "{:?} {:?}", self.clients, self.endpoint);
        // The server's answer to the confirming PING.
        self.run_for(ms(300));
    }

    /// A connected client and its session, which was used, so that the client has ids in reserve.
    pub(super) fn connected(seed: u64, link: Link) -> (Self, SessionKey) {
        Self::new(seed, link).used()
    }

    /// The same on a path whose longest packet is found out.
    pub(super) fn searching(seed: u64, mtu: usize) -> (Self, SessionKey) {
        let mut rig = Self::with(seed, Link::CLEAN, SessionConfig::default(), aes());
        rig.mtu = mtu;
        rig.used()
    }

    fn used(self) -> (Self, SessionKey) {
        let mut rig = self;
        rig.add_client();
        rig.connect();
        let greeting = Channel::new(Delivery::Unordered, StreamId::new(63).unwrap());
        rig.clients[0].send(rig.now, greeting, b"hello").unwrap();
        rig.run_for(ms(2_000));
        rig.told.retain(|told| !matches!(told, Told::Message(..)));
        let session = rig.endpoint.sessions().next().unwrap();
        (rig, session)
    }

    /// What was sent to the server, or to clients, since `from` things were sent.
    pub(super) fn sent_since(&self, from: usize, to_server: bool) -> Vec<Vec<u8>> {
        let sent = self.sent[from..].iter();
        sent.filter(|sent| (sent.to == Target::Server) == to_server)
            .map(|sent| sent.bytes.clone())
            .collect()
    }

    pub(super) fn messages(&self) -> Vec<(Channel, Vec<u8>)> {
        let messages = self.told.iter().filter_map(|told| match told {
            Told::Message(_, channel, bytes) => Some((*channel, bytes.clone())),
            _ => None,
        });
        messages.collect()
    }

    pub(super) fn client_messages(&self, index: usize) -> Vec<(Channel, Vec<u8>)> {
        let messages = self.client_told[index].iter().filter_map(|told| match told {
            ClientTold::Message(channel, bytes) => Some((*channel, bytes.clone())),
            _ => None,
        });
        messages.collect()
    }

    pub(super) fn closes(&self) -> Vec<CloseReason> {
        let closes = self.told.iter().filter_map(|told| match told {
            Told::Closed(_, reason) => Some(*reason),
            _ => None,
        });
        closes.collect()
    }
}

fn keys(seed: u64) -> (ServerIdentity, TokenKey) {
    let mut secrets = Stream::new(seed, "keys", 0);
    let identity = ServerIdentity::new(&mut secrets);
    (identity, TokenKey::new(&mut secrets))
}

fn note(event: &EndpointEvent<'_>) -> Told {
    match *event {
        EndpointEvent::Established { session, user, resumed: Some(resumed), .. } => {
            Told::Resumed(session, user, resumed.old)
        }
        EndpointEvent::Established { session, user, peer, cipher, .. } => {
            Told::Established(session, user, peer, cipher)
        }
        EndpointEvent::Message { session, channel, bytes } => {
            Told::Message(session, channel, bytes.to_vec())
        }
        EndpointEvent::Acked { session, tag, .. } => Told::Acked(session, tag),
        EndpointEvent::Moved { session, peer } => Told::Moved(session, peer),
        EndpointEvent::Closed { session, reason } => Told::Closed(session, reason),
    }
}

fn client_note(event: &ClientEvent<'_>) -> ClientTold {
    match *event {
        ClientEvent::Connected { cipher, .. } => ClientTold::Connected(cipher),
        ClientEvent::Message { channel, bytes } => ClientTold::Message(channel, bytes.to_vec()),
        ClientEvent::Acked { tag, .. } => ClientTold::Acked(tag),
        ClientEvent::Closed { reason } => ClientTold::Closed(reason),
    }
}

/// A suite as a simulator has it: a keyed tag of the right size, no encryption.
pub(super) struct TagSuite;

struct TagKey(u64);

impl TagKey {
    fn tag(&self, nonce: [u8; 12], associated: &[u8], text: &[u8]) -> [u8; TAG_BYTES] {
        let mut state = self.0;
        for part in [&nonce[..], associated, text] {
            state = draw(state, &[part.len() as u64]);
            for chunk in part.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                state = draw(state, &[u64::from_le_bytes(word)]);
            }
        }
        let mut tag = [0; TAG_BYTES];
        tag[..8].copy_from_slice(&state.to_le_bytes());
        tag[8..].copy_from_slice(&draw(state, &[1]).to_le_bytes());
        tag
    }
}

impl PacketKey for TagKey {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], buffer: &mut [u8]) {
        let (text, room) = buffer.split_at_mut(buffer.len() - TAG_BYTES);
        room.copy_from_slice(&self.tag(nonce, associated, text));
    }

    fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize, OpenError> {
        let len = buffer.len().checked_sub(TAG_BYTES).ok_or(OpenError)?;
        let (text, tag) = buffer.split_at(len);
        if self.tag(nonce, associated, text) == tag { Ok(len) } else { Err(OpenError) }
    }
}

struct MaskKey(u64);

impl HeaderKey for MaskKey {
    fn mask(&self, sample: [u8; SAMPLE_BYTES]) -> [u8; MASK_BYTES] {
        let words = sample.map(u64::from);
        *draw(self.0, &words).to_le_bytes().first_chunk().unwrap()
    }
}

impl AeadSuite for TagSuite {
    fn header_key(
        &self,
        cipher: Cipher,
        secret: &[u8; SECRET_BYTES],
    ) -> Option<Box<dyn HeaderKey>> {
        let key = MaskKey(u64::from_le_bytes(*secret.first_chunk()?));
        (cipher == Cipher::SimulatorTag).then(|| Box::new(key) as Box<dyn HeaderKey>)
    }

    fn ciphers(&self) -> &[Cipher] {
        &[Cipher::SimulatorTag]
    }

    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>> {
        let key = u64::from_le_bytes(*secret.first_chunk()?);
        (cipher == Cipher::SimulatorTag).then(|| Box::new(TagKey(key)) as Box<dyn PacketKey>)
    }
}
