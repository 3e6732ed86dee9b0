//! The honest players: those that stay, and visitors that come and go during the attack.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::{CloseReason, TokenIssuer, UserId};

use super::network::Network;
use super::{SERVER, Truth};
use crate::bot::{Bot, BotConfig};
use crate::client::Client;
use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::server::Server;

/// A visitor comes so often.
const VISIT_INTERVAL: Duration = Duration::from_secs(5);
/// In this time it must stand in the world.
const ENTER_TIME_MAX: Duration = Duration::from_secs(2);
/// So long it stays.
const STAY_TIME: Duration = Duration::from_secs(3);
/// Datagrams that a player is handed or sends at a time.
const BATCH: usize = 16;
/// How long tokens are good, in seconds; short, so that the server forgets them.
pub(super) const TOKEN_LIFETIME_S: u64 = 60;

/// One player at its address.
struct Player {
    bot: Bot,
    address: SocketAddr,
    arrived_at: Timestamp,
}

/// All honest players.
pub(super) struct Honest {
    players: Vec<Player>,
    /// Players that stay; a visitor stands behind them.
    stay: usize,
    leaving: bool,
    seed: u64,
    issuer: TokenIssuer,
    suites: Arc<dyn AeadSuite>,
    login: Stream,
    visit_at: Timestamp,
    visitors: u64,
    late: Vec<String>,
    batch: DatagramBatch,
}

impl Honest {
    pub(super) fn new(
        players: u32,
        seed: u64,
        issuer: TokenIssuer,
        suites: Arc<dyn AeadSuite>,
    ) -> Result<Self, ClientError> {
        let mut new = Self {
            players: Vec::new(),
            stay: players as usize,
            leaving: false,
            seed,
            issuer,
            suites,
            login: Stream::new(seed, "login", 0),
            visit_at: Timestamp::START.after(VISIT_INTERVAL),
            visitors: 0,
            late: Vec::new(),
            batch: DatagramBatch::new(BATCH),
        };
        for number in 0..u64::from(players) {
            let player = new.player(Timestamp::START, number)?;
            new.players.push(player);
        }
        Ok(new)
    }

    /// User numbers count from 1, addresses from 10.1.0.1.
    fn player(&mut self, now: Timestamp, number: u64) -> Result<Player, ClientError> {
        let expires_at_s = now.as_nanos() / 1_000_000_000 + TOKEN_LIFETIME_S;
        let token = self.issuer.issue(&mut self.login, UserId(number + 1), SERVER, expires_at_s);
        let stream = |name| Stream::new(self.seed, name, number);
        let (secrets, random) = (Box::new(stream("client secrets")), stream("client"));
        let suites = Arc::clone(&self.suites);
        let client = Client::new(ClientConfig::default(), suites, &token, SERVER, secrets, random)?;
        let bot = Bot::new(client, BotConfig::default(), stream("bot"));
        let base = u32::from(Ipv4Addr::new(10, 1, 0, 1));
        let ip = Ipv4Addr::from(base.wrapping_add(number as u32 & 0xffff));
        Ok(Player { bot, address: (ip, 5_000).into(), arrived_at: now })
    }

    pub(super) fn len(&self) -> usize {
        self.players.len()
    }

    /// Sessions that honest players may hold at once: a visitor's last one lingers.
    pub(super) const fn sessions_max(&self) -> usize {
        self.stay + 2
    }

    pub(super) const fn visitors(&self) -> u64 {
        self.visitors
    }

    pub(super) fn is_here(&self, address: SocketAddr) -> bool {
        self.players.iter().any(|player| player.address == address)
    }

    pub(super) fn all_entered(&self) -> bool {
        self.players.iter().all(|player| player.bot.connected_at().is_some())
    }

    pub(super) fn step(&mut self, now: Timestamp, pool: &PacketPool, network: &mut Network) {
        let Self { players, batch, .. } = self;
        for player in players {
            let address = player.address;
            while let Some(datagram) =
                network.next_for_client(now, |datagram| datagram.peer == address)
            {
                // To the client the peer is the server.
                let _ = batch.push(Datagram { peer: SERVER, ..datagram });
                player.bot.handle_datagrams(now, batch);
            }
            if player.bot.poll_timeout().is_some_and(|at| at <= now) {
                player.bot.handle_timeout(now);
            }
            player.bot.poll_transmit(now, pool, batch);
            while let Some(datagram) = batch.pop() {
                network.send_to_server(now, Datagram { peer: address, ..datagram });
            }
        }
    }

    /// Lets a visitor come or go when it is time.
    pub(super) fn visit(&mut self, now: Timestamp) {
        if let Some(visitor) = self.players.get_mut(self.stay) {
            let has_entered = visitor.bot.connected_at().is_some();
            if !has_entered && now > visitor.arrived_at.after(ENTER_TIME_MAX) {
                let closed = visitor.bot.client().closed();
                self.late.push(format!("a visitor could not enter in 2 s: {closed:?}"));
            }
            if has_entered && now < visitor.arrived_at.after(STAY_TIME) && !self.leaving {
                return;
            }
            if has_entered && !self.leaving {
                visitor.bot.client_mut().close(now);
                self.leaving = true;
            }
            if visitor.bot.is_done() || now > visitor.arrived_at.after(2 * STAY_TIME) {
                self.players.truncate(self.stay);
                self.leaving = false;
            }
            return;
        }
        if now < self.visit_at {
            return;
        }
        self.visit_at = now.after(VISIT_INTERVAL);
        self.visitors += 1;
        let number = self.stay as u64 + self.visitors;
        if let Ok(player) = self.player(now, number) {
            self.players.push(player);
        }
    }

    /// Compares what those who stay see with the truth.
    pub(super) fn check(&mut self, now: Timestamp, truth: &mut Truth) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.late);
        for (number, player) in self.players.iter().take(self.stay).enumerate() {
            let client = player.bot.client();
            if let Err(line) = truth.check(client.replica()) {
                lines.push(format!("player {number} at {now:?}: {line}"));
            }
        }
        lines
    }

    pub(super) fn rest(&mut self) {
        self.players.truncate(self.stay);
        self.players.iter_mut().for_each(|player| player.bot.rest());
    }

    pub(super) fn is_settled(&self) -> bool {
        self.players.iter().all(|player| player.bot.is_settled())
    }

    /// Players whose session ended.
    pub(super) fn closed(&self) -> usize {
        let stay = self.players.iter().take(self.stay);
        stay.filter(|player| player.bot.client().closed().is_some()).count()
    }

    /// Reliable messages that arrived at players or from them.
    pub(super) fn reliable(&self) -> u64 {
        let all = self.players.iter().map(|player| player.bot.client().stats());
        all.map(|stats| stats.reliable_sent + stats.reliable_received).sum()
    }

    /// What was promised to those who stayed and is not so.
    pub(super) fn check_at_rest(&self, server: &Server, truth: &Truth) -> Vec<String> {
        let mut lines = Vec::new();
        for (number, player) in self.players.iter().take(self.stay).enumerate() {
            let (client, stats) = (player.bot.client(), player.bot.client().stats());
            let mut unless = |kept: bool, what: String| {
                if !kept {
                    lines.push(format!("player {number}: {what}"));
                }
            };
            let complete = truth.check_complete(client.replica());
            unless(complete.is_ok(), complete.err().unwrap_or_default());
            let closed = client.closed();
            unless(
                closed.is_none_or(|reason| reason == CloseReason::Normal),
                format!("{closed:?}"),
            );
            let counts = server.reliable_counts(UserId(number as u64 + 1)).unwrap_or_default();
            let kept =
                counts.sent == stats.reliable_received && counts.received == stats.reliable_sent;
            unless(kept, format!("{counts:?} at the server, {stats:?}"));
            let order = stats.results_out_of_order;
            unless(order == 0, format!("{order} answers out of order"));
            let malformed = stats.states_malformed + stats.events_malformed;
            unless(malformed == 0, format!("{malformed} messages could not be decoded"));
            // Nothing is lost on this network: the states came, all of them.
            let missing = stats.states_expected.saturating_sub(stats.states_applied);
            unless(missing * 100 <= stats.states_expected, format!("{missing} states are missing"));
        }
        lines
    }
}
