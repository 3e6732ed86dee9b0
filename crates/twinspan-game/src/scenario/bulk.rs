//! A sealed session that carries as much as its way lets it: both ends, for any environment.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::{Machine, RandomProvider};
use twinspan_reliable::{Channel, Delivery, StreamId};
use twinspan_session::{
    ClientEvent, ClientSession, ConfigError, Endpoint, EndpointEvent, ServerIdentity,
    SessionConfig, SessionKey, TokenIssuer, TokenKey, UserId,
};

/// What IPv4 and UDP put before a datagram.
const HEADER_BYTES: usize = 28;
/// Bytes of a message.
const PART_BYTES: usize = 8 << 10;
/// What both ends take for the wall clock at their start, in seconds since 1970.
const UNIX_AT_START: u64 = 1_767_225_600;

/// What came of a flow so far.
#[derive(Debug, Default)]
pub struct Delivered {
    wire: Cell<u64>,
    payload: Cell<u64>,
}

impl Delivered {
    /// Bytes that came, with the headers of IP and UDP.
    pub fn wire(&self) -> u64 {
        self.wire.get()
    }

    /// Bytes of messages that came.
    pub fn payload(&self) -> u64 {
        self.payload.get()
    }

    pub(super) fn add_payload(&self, bytes: usize) {
        self.payload.set(self.payload.get() + bytes as u64);
    }
}

/// The server's keys: made from a seed, for both ends to know.
fn keys(seed: u64) -> (ServerIdentity, TokenKey, Stream) {
    let mut secrets = Stream::new(seed, "bulk", 0);
    let identity = ServerIdentity::new(&mut secrets);
    let tokens = TokenKey::new(&mut secrets);
    (identity, tokens, secrets)
}

/// A server that has more for its one client than there is room for.
pub struct BulkSender {
    endpoint: Endpoint,
    session: Option<SessionKey>,
    part: Vec<u8>,
}

impl BulkSender {
    /// One for the client with the same seed.
    ///
    /// # Errors
    /// [`ConfigError`] when no endpoint can be made.
    pub fn new(
        env: &impl RandomProvider,
        suites: Arc<dyn AeadSuite>,
        seed: u64,
    ) -> Result<Self, ConfigError> {
        let (identity, tokens, mut secrets) = keys(seed);
        let (config, jitter) = (SessionConfig::default(), env.stream("jitter", 0));
        let endpoint =
            Endpoint::new(config, suites, identity, tokens, env.secrets(), jitter, UNIX_AT_START)?;
        // Nothing that compression makes smaller.
        let part = (0..PART_BYTES).map(|_| secrets.next_u32() as u8).collect();
        Ok(Self { endpoint, session: None, part })
    }
}

impl Machine for BulkSender {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while let Some(mut datagram) = received.pop() {
            let session = &mut self.session;
            self.endpoint.handle_datagram(now, datagram.peer, &mut datagram.packet, &mut |event| {
                match event {
                    EndpointEvent::Established { session: key, .. } => *session = Some(key),
                    EndpointEvent::Closed { .. } => *session = None,
                    _ => {}
                }
            });
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.endpoint.handle_timeout(now, &mut |_| {});
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        if let Some(session) = self.session {
            let channel = Channel::new(Delivery::Ordered, StreamId::BULK);
            // Until the queue is full.
            while self.endpoint.send(now, session, channel, &self.part).is_ok() {}
        }
        self.endpoint.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.endpoint.poll_timeout()
    }
}

/// A client that counts what it is told.
pub struct BulkReceiver {
    session: ClientSession,
    delivered: Rc<Delivered>,
}

impl BulkReceiver {
    /// One that connects to the server at an address, with the same seed.
    ///
    /// # Errors
    /// [`ConfigError`] when no session can be made.
    pub fn new(
        env: &impl RandomProvider,
        suites: Arc<dyn AeadSuite>,
        (seed, address): (u64, SocketAddr),
        delivered: Rc<Delivered>,
    ) -> Result<Self, ConfigError> {
        let (identity, tokens, mut secrets) = keys(seed);
        let issuer = TokenIssuer::new(tokens, identity.public_key());
        let token = issuer.issue(&mut secrets, UserId(1), address, UNIX_AT_START + 3_600);
        let (config, jitter) = (SessionConfig::default(), env.stream("jitter", 0));
        let session = ClientSession::new(config, suites, &token, address, env.secrets(), jitter)?;
        Ok(Self { session, delivered })
    }
}

impl Machine for BulkReceiver {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while let Some(mut datagram) = received.pop() {
            let delivered = &self.delivered;
            let bytes = (HEADER_BYTES + datagram.packet.len()) as u64;
            delivered.wire.set(delivered.wire.get() + bytes);
            self.session.handle_datagram(now, &mut datagram.packet, &mut |event| {
                if let ClientEvent::Message { bytes, .. } = event {
                    delivered.add_payload(bytes.len());
                }
            });
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.session.handle_timeout(now, &mut |_| {});
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.session.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.session.poll_timeout()
    }
}

impl std::fmt::Debug for BulkSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkSender").field("session", &self.session).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BulkReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BulkReceiver").field("delivered", &self.delivered).finish_non_exhaustive()
    }
}
