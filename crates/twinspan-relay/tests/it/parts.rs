//! The two ends of a session as machines of a test: players that send, and a server that echoes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_reliable::{Channel, Delivery, StreamId};
use twinspan_session::{
    ClientEvent, ClientSession, CloseReason, ConnectToken, CryptoSuite, Endpoint, EndpointEvent,
    ServerIdentity, SessionConfig, TokenIssuer, TokenKey, UserId,
};

/// What the wall clock shows when a test begins.
pub(crate) const UNIX_AT_START: u64 = 1_900_000_000;
const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
/// Time between two messages of a player.
const INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn suites() -> Arc<dyn AeadSuite> {
    Arc::new(CryptoSuite::AES_FIRST)
}

/// Sends back every message.
pub(crate) struct Echo {
    pub(crate) endpoint: Endpoint,
    /// Where each session was set up from.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) closed: Vec<CloseReason>,
}

impl Echo {
    /// A server, and who issues tokens for it.
    pub(crate) fn new(seed: u64, secrets: Box<dyn SecretSource>) -> (Self, TokenIssuer) {
        let mut keys = Stream::new(seed, "keys", 0);
        let identity = ServerIdentity::new(&mut keys);
        let tokens = TokenKey::new(&mut keys);
        let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
        let config = SessionConfig::default();
        let jitter = Stream::new(seed, "jitter", 0);
        let endpoint =
            Endpoint::new(config, suites(), identity, tokens, secrets, jitter, UNIX_AT_START);
        (Self { endpoint: endpoint.unwrap(), peers: Vec::new(), closed: Vec::new() }, issuer)
    }
}

impl Machine for Echo {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let mut echoes = Vec::new();
        while let Some(mut datagram) = received.pop() {
            let (peers, closed) = (&mut self.peers, &mut self.closed);
            let peer = datagram.peer;
            self.endpoint.handle_datagram(
                now,
                peer,
                &mut datagram.packet,
                &mut |event| match event {
                    EndpointEvent::Established { peer, .. } => peers.push(peer),
                    EndpointEvent::Message { session, channel, bytes } => {
                        echoes.push((session, channel, bytes.to_vec()));
                    }
                    EndpointEvent::Closed { reason, .. } => closed.push(reason),
                    _ => {}
                },
            );
        }
        for (session, channel, bytes) in echoes {
            self.endpoint.send(now, session, channel, &bytes).unwrap();
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        let closed = &mut self.closed;
        self.endpoint.handle_timeout(now, &mut |event| {
            if let EndpointEvent::Closed { reason, .. } = event {
                closed.push(reason);
            }
        });
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.endpoint.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.endpoint.poll_timeout()
    }
}

/// Sends numbers as reliable, ordered messages and remembers which came back.
pub(crate) struct Player {
    session: ClientSession,
    next_at: Timestamp,
    pub(crate) sent: u64,
    /// Messages to send.
    pub(crate) count: u64,
    pub(crate) echoed: Vec<u64>,
    pub(crate) is_connected: bool,
    pub(crate) closed: Option<CloseReason>,
    /// Whom datagrams came from; more than one is a leak.
    pub(crate) heard_from: Vec<SocketAddr>,
}

impl Player {
    pub(crate) fn new(
        token: &ConnectToken,
        count: u64,
        secrets: Box<dyn SecretSource>,
        seed: u64,
    ) -> Self {
        let jitter = Stream::new(seed, "player", 0);
        let (config, server) = (SessionConfig::default(), token.server_addr());
        let session = ClientSession::new(config, suites(), token, server, secrets, jitter);
        Self {
            session: session.unwrap(),
            next_at: Timestamp::START,
            sent: 0,
            count,
            echoed: Vec::new(),
            is_connected: false,
            closed: None,
            heard_from: Vec::new(),
        }
    }

    /// Whether all that is to be sent came back, once and in order.
    pub(crate) fn is_served(&self) -> bool {
        self.echoed.iter().copied().eq(0..self.count)
    }

    fn note(
        &mut self,
        now: Timestamp,
        mut work: impl FnMut(&mut ClientSession, &mut dyn FnMut(ClientEvent<'_>)),
    ) {
        let (echoed, closed) = (&mut self.echoed, &mut self.closed);
        let mut connected = false;
        work(&mut self.session, &mut |event| match event {
            ClientEvent::Connected { .. } => connected = true,
            ClientEvent::Message { bytes, .. } => {
                echoed.push(u64::from_le_bytes(*bytes.first_chunk().unwrap()));
            }
            ClientEvent::Closed { reason } => *closed = Some(reason),
            _ => {}
        });
        if connected {
            self.is_connected = true;
            self.next_at = now;
        }
    }
}

impl Machine for Player {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while let Some(mut datagram) = received.pop() {
            if !self.heard_from.contains(&datagram.peer) {
                self.heard_from.push(datagram.peer);
            }
            self.note(now, |session, on_event| {
                session.handle_datagram(now, &mut datagram.packet, on_event);
            });
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.note(now, |session, on_event| session.handle_timeout(now, on_event));
        while self.is_connected && self.sent < self.count && now >= self.next_at {
            if self.session.send(now, EVENTS, &self.sent.to_le_bytes()).is_err() {
                break;
            }
            self.sent += 1;
            self.next_at = self.next_at.after(INTERVAL);
        }
        self.next_at = self.next_at.max(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.session.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let wants = self.is_connected && self.sent < self.count && self.closed.is_none();
        let next = wants.then_some(self.next_at);
        match (next, self.session.poll_timeout()) {
            (Some(next), Some(session)) => Some(next.min(session)),
            (next, session) => next.or(session),
        }
    }
}

/// A token for `user` that names `server`, good for an hour.
pub(crate) fn token(issuer: &TokenIssuer, user: u64, server: SocketAddr) -> ConnectToken {
    let mut login = Stream::new(user, "login", 0);
    issuer.issue(&mut login, UserId(user), server, UNIX_AT_START + 3_600)
}
