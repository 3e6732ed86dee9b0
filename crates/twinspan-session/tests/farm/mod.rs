//! A server with many sessions in one process, for tests and examples that measure what one costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_session::{
    ClientSession, ClientState, CryptoSuite, Endpoint, ServerIdentity, SessionConfig, TokenIssuer,
    TokenKey, UserId,
};

const UNIX_AT_START: u64 = 1_900_000_000;

/// A server and what is needed to let clients in.
pub(crate) struct Farm {
    /// What time it is.
    pub(crate) now: Timestamp,
    /// The server.
    pub(crate) endpoint: Endpoint,
    /// Buffers for everybody.
    pub(crate) pool: PacketPool,
    batch: DatagramBatch,
    issuer: TokenIssuer,
    secrets: Stream,
    config: SessionConfig,
}

/// Where client `index` is.
pub(crate) fn address(index: u64) -> SocketAddr {
    SocketAddr::from(([10, (index >> 16) as u8, (index >> 8) as u8, index as u8], 5_000))
}

fn server() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 7_700))
}

impl Farm {
    /// A server without sessions.
    pub(crate) fn new(config: SessionConfig) -> Self {
        let mut secrets = Stream::new(1, "farm", 0);
        let identity = ServerIdentity::new(&mut secrets);
        let token_key = TokenKey::new(&mut secrets);
        let issuer = TokenIssuer::new(token_key.clone(), identity.public_key());
        let endpoint = Endpoint::new(
            config.clone(),
            Arc::new(CryptoSuite::AES_FIRST),
            identity,
            token_key,
            Box::new(Stream::new(1, "server secrets", 0)),
            Stream::new(1, "server jitter", 0),
            UNIX_AT_START,
        )
        .unwrap();
        let now = Timestamp::START.after(Duration::from_secs(1));
        let (pool, batch) = (PacketPool::new(64), DatagramBatch::new(16));
        Self { now, endpoint, pool, batch, issuer, secrets, config }
    }

    /// Connects client `index` over a path that takes no time, up to the last ack.
    pub(crate) fn connect(&mut self, index: u64) -> ClientSession {
        let token =
            self.issuer.issue(&mut self.secrets, UserId(index), server(), UNIX_AT_START + 3_600);
        // No time passes here in which an ack could wait for company.
        let mut config = self.config.clone();
        config.reliable.ack_delay_max = Duration::ZERO;
        let mut client = ClientSession::new(
            config,
            Arc::new(CryptoSuite::AES_FIRST),
            &token,
            server(),
            Box::new(Stream::new(2, "client secrets", index)),
            Stream::new(2, "client jitter", index),
        )
        .unwrap();
        while self.exchange(index, &mut client) {}
        assert_eq!(client.state(), ClientState::Connected);
        client
    }

    /// Carries what the server and this client have to say to each other; whether there was any.
    pub(crate) fn exchange(&mut self, index: u64, client: &mut ClientSession) -> bool {
        let mut any = false;
        client.poll_transmit(self.now, &self.pool, &mut self.batch);
        while let Some(mut datagram) = self.batch.pop() {
            any = true;
            let from = address(index);
            self.endpoint.handle_datagram(self.now, from, &mut datagram.packet, &mut |_| {});
        }
        self.endpoint.poll_transmit(self.now, &self.pool, &mut self.batch);
        while let Some(mut datagram) = self.batch.pop() {
            any = true;
            client.handle_datagram(self.now, &mut datagram.packet, &mut |_| {});
        }
        any
    }

    /// Lets time pass for the server, and throws away what it sends.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now.after(time);
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now, &mut |_| {});
            self.discard();
        }
        self.now = until;
    }

    /// Throws away what the server sends.
    pub(crate) fn discard(&mut self) {
        loop {
            self.endpoint.poll_transmit(self.now, &self.pool, &mut self.batch);
            if self.batch.is_empty() {
                return;
            }
            self.batch.clear();
        }
    }
}

/// Bytes of this process in memory, what other libraries take included.
pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}
