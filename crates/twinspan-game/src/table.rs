//! A server and its players at one table: datagrams arrive at once and none is lost. For unit tests.

use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::{CryptoSuite, ServerIdentity, TokenIssuer, TokenKey, UserId};

use crate::client::Client;
use crate::config::{ClientConfig, ServerConfig};
use crate::server::{Server, ServerKeys};

/// Datagrams that change hands at a time.
const BATCH: usize = 16;

/// Where player `number` sits.
pub(crate) fn seat(number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10_000 + number as u16))
}

/// A server and clients that have not begun; always the same for the same count.
pub(crate) fn world(clients: usize) -> (Server, Vec<Client>) {
    let suites: Arc<dyn AeadSuite> = Arc::new(CryptoSuite::CHACHA_FIRST);
    let mut secrets = Stream::new(1, "secrets", 0);
    let identity = ServerIdentity::new(&mut secrets);
    let tokens = TokenKey::new(&mut secrets);
    let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
    let server_at = SocketAddr::from(([127, 0, 0, 1], 7_000));
    let players = (0..clients as u64).map(|number| {
        let token = issuer.issue(&mut secrets, UserId(number + 1), server_at, u64::MAX);
        let own_secrets = Box::new(Stream::new(1, "client secrets", number));
        let random = Stream::new(1, "client", number);
        let (config, suites) = (ClientConfig::default(), Arc::clone(&suites));
        Client::new(config, suites, &token, server_at, own_secrets, random).unwrap()
    });
    let players = players.collect();
    let keys = ServerKeys { identity, tokens };
    let random = &mut |name: &'static str| Stream::new(1, name, 0);
    let server =
        Server::new(ServerConfig::default(), suites, keys, Box::new(secrets), random).unwrap();
    (server, players)
}

pub(crate) struct Table<M> {
    pub(crate) now: Timestamp,
    pub(crate) server: Server,
    /// By seat.
    pub(crate) players: Vec<M>,
    pool: PacketPool,
}

impl<M: Machine> Table<M> {
    pub(crate) fn new(server: Server, players: Vec<M>) -> Self {
        Self { now: Timestamp::START, server, players, pool: PacketPool::new(1_024) }
    }

    /// Lets all happen that is due up to `end`.
    pub(crate) fn run_until(&mut self, end: Timestamp) {
        loop {
            let players = self.players.iter().filter(|player| !player.is_done());
            let players = players.filter_map(Machine::poll_timeout).min();
            let next = players.min(self.server.poll_timeout()).or(players);
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
                self.server.handle_timeout(self.now);
            }
            for player in &mut self.players {
                if player.poll_timeout().is_some_and(|at| at <= self.now) {
                    player.handle_timeout(self.now);
                }
            }
            self.exchange();
        }
        self.now = end;
    }

    /// Hands datagrams to and fro until nobody has one.
    fn exchange(&mut self) {
        let Self { now, server, players, pool, .. } = self;
        let mut batch = DatagramBatch::new(BATCH);
        let mut one = DatagramBatch::new(1);
        loop {
            let mut quiet = true;
            for (number, player) in players.iter_mut().enumerate() {
                player.poll_transmit(*now, pool, &mut batch);
                quiet &= batch.is_empty();
                batch.iter_mut().for_each(|datagram| datagram.peer = seat(number));
                server.handle_datagrams(*now, &mut batch);
            }
            server.poll_transmit(*now, pool, &mut batch);
            quiet &= batch.is_empty();
            while let Some(datagram) = batch.pop() {
                let number = usize::from(datagram.peer.port() - 10_000);
                let from_server =
                    Datagram { peer: SocketAddr::from(([127, 0, 0, 1], 7_000)), ..datagram };
                one.push(from_server).unwrap();
                players[number].handle_datagrams(*now, &mut one);
            }
            if quiet {
                return;
            }
        }
    }
}
