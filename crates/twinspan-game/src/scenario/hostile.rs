//! A live server under mutated datagrams, while honest players play: no panic, no growth, and every
//! promise to the players kept.
//!
//! The machines are those of every other run, in virtual time, with a network of constant delay
//! between them: so simple that most of the time goes into what is tried. A run is a function of
//! its settings.

mod attack;
mod honest;
mod network;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::{CryptoSuite, ServerIdentity, TokenIssuer, TokenKey};
use twinspan_sim::SimSuite;

use super::{Broken, Protection, ScenarioError, Truth};
use crate::config::ServerConfig;
use crate::server::{Server, ServerKeys};
use attack::Attack;
use honest::Honest;
use network::Network;

pub use attack::{KIND_NAMES, KINDS};

/// The server's address.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7_000);
/// The step of the run's clock.
const STEP: Duration = Duration::from_millis(1);
/// Datagrams that the server is handed at a time.
const BATCH: usize = 64;
/// Buffers of the whole run.
const POOL_PACKETS: usize = 16_384;
/// Virtual time in which all players must enter, before the attack begins.
const ENTER_TIME_MAX: Duration = Duration::from_secs(10);
/// Virtual time after the attack in which everything must settle.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(15);
/// Virtual time after which a session of which nothing is heard has ended.
const SILENCE_TIME: Duration = Duration::from_secs(30);
/// Replicas are compared with the truth so often.
const COMPARE_INTERVAL: Duration = Duration::from_millis(50);
/// Connection ids that a session may hold: the one in use, three in reserve, and two that are being
/// retired. A handshake holds one.
const IDS_PER_SESSION: usize = 6;

/// The scenario's settings. A run is a function of them.
#[derive(Clone, Debug)]
pub struct HostileScenario {
    /// Honest players that are there from the beginning to the end.
    pub players: u32,
    /// Clients with good tokens and keys whose packets are authentic and ill-formed.
    pub traitors: u32,
    /// Hostile datagrams in all.
    pub datagrams: u64,
    /// Hostile datagrams in a virtual second.
    pub per_second: u32,
    /// The seed.
    pub seed: u64,
    /// How packets are protected.
    pub protection: Protection,
}

impl Default for HostileScenario {
    fn default() -> Self {
        Self {
            players: 6,
            traitors: 16,
            datagrams: 1_000_000,
            per_second: 300_000,
            seed: 1,
            protection: Protection::Tag,
        }
    }
}

/// What a run was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostileReport {
    /// Hostile datagrams by kind, in the order of [`KIND_NAMES`].
    pub datagrams: [u64; KINDS],
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// What the server dropped, by cause.
    pub drops: Vec<(&'static str, u64)>,
    /// Messages that authentic clients sent and the game could not decode.
    pub malformed: u64,
    /// Sessions that were closed because of a violation of the protocol.
    pub violations: u64,
    /// Sessions set up by clients that then sent ill-formed packets.
    pub traitor_sessions: u64,
    /// Honest players that came and went during the attack.
    pub visitors: u64,
    /// Most sessions, handshakes, ids and answers that were held at once.
    pub held_max: [usize; 4],
    /// Packets that the server sent to addresses of nobody, and their bytes.
    pub to_strangers: (u64, u64),
    /// Bytes of datagrams from these addresses.
    pub stranger_bytes: u64,
    /// Entities in replicas that were compared with the server's truth.
    pub states_checked: u64,
    /// Reliable messages of the honest players, both ways.
    pub reliable: u64,
    /// Promises that were not kept; empty when all is well.
    pub broken: Vec<String>,
}

impl HostileScenario {
    /// Runs the scenario to its end. `progress` is called now and then with the hostile datagrams
    /// so far.
    ///
    /// # Errors
    /// [`ScenarioError`] when the settings cannot be.
    pub fn run(&self, progress: &mut dyn FnMut(u64)) -> Result<HostileReport, ScenarioError> {
        let mut run = Run::new(self)?;
        run.enter();
        run.attack(self, progress);
        run.settle();
        run.fall_silent();
        Ok(run.report())
    }
}

/// A run in progress.
struct Run {
    now: Timestamp,
    pool: PacketPool,
    server: Server,
    honest: Honest,
    attack: Attack,
    network: Network,
    received: DatagramBatch,
    sent: DatagramBatch,
    truth: Truth,
    broken: Broken,
    compare_at: Timestamp,
    held_max: [usize; 4],
    handshakes_max: usize,
}

impl Run {
    fn new(scenario: &HostileScenario) -> Result<Self, ScenarioError> {
        let suites: Arc<dyn AeadSuite> = match scenario.protection {
            Protection::Real => Arc::new(CryptoSuite::CHACHA_FIRST),
            Protection::Tag => Arc::new(SimSuite),
        };
        let config = ServerConfig::for_players(scenario.players + scenario.traitors + 2);
        let handshakes_max = config.session.handshakes_max;
        let mut secrets = Stream::new(scenario.seed, "server secrets", 0);
        let identity = ServerIdentity::new(&mut secrets);
        let tokens = TokenKey::new(&mut secrets);
        let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
        let keys = ServerKeys { identity, tokens };
        let random = &mut |name| Stream::new(scenario.seed, name, 0);
        let server = Server::new(config, Arc::clone(&suites), keys, Box::new(secrets), random)?;
        let honest =
            Honest::new(scenario.players, scenario.seed, issuer.clone(), Arc::clone(&suites))?;
        let attack = Attack::new(scenario.traitors, scenario.seed, issuer, suites);
        Ok(Self {
            now: Timestamp::START,
            pool: PacketPool::new(POOL_PACKETS),
            server,
            honest,
            attack,
            network: Network::default(),
            received: DatagramBatch::new(BATCH),
            sent: DatagramBatch::new(BATCH),
            truth: Truth::default(),
            broken: Broken::default(),
            compare_at: Timestamp::START,
            held_max: [0; 4],
            handshakes_max,
        })
    }

    /// One step of the clock, with so many hostile datagrams in it.
    fn step(&mut self, hostile: u64) {
        self.now = self.now.after(STEP);
        let now = self.now;
        while let Some(datagram) = self.network.next_for_server(now) {
            self.attack.capture(&datagram);
            if let Err(datagram) = self.received.push(datagram) {
                self.server.handle_datagrams(now, &mut self.received);
                // The batch was emptied just now.
                let _ = self.received.push(datagram);
            }
        }
        self.server.handle_datagrams(now, &mut self.received);
        let mut left = hostile;
        while left > 0 {
            let made = self.attack.fill(now, &self.pool, &mut self.received, left);
            if made == 0 {
                self.broken.add(|| "the pool ran out of buffers".into());
                break;
            }
            left -= made;
            self.server.handle_datagrams(now, &mut self.received);
            self.server_sends();
        }
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
        }
        self.server_sends();
        self.honest.step(now, &self.pool, &mut self.network);
        self.attack.step(now, &self.pool, &mut self.network);
        self.watch();
    }

    fn server_sends(&mut self) {
        let now = self.now;
        loop {
            self.server.poll_transmit(now, &self.pool, &mut self.sent);
            if self.sent.is_empty() {
                return;
            }
            while let Some(datagram) = self.sent.pop() {
                let peer = datagram.peer;
                if self.honest.is_here(peer) || self.attack.is_traitor(peer) {
                    self.network.send_to_client(now, datagram);
                } else {
                    self.attack.count_answer(datagram.packet.len());
                }
            }
        }
    }

    /// Looks for growth after every step, and compares replicas now and then.
    fn watch(&mut self) {
        let (sessions, handshakes, ids, answers) = self.server.held();
        let held = [sessions, handshakes, ids, answers];
        for (most, now) in self.held_max.iter_mut().zip(held) {
            *most = (*most).max(now);
        }
        self.truth.record(self.server.world());
        if self.now < self.compare_at {
            return;
        }
        self.compare_at = self.now.after(COMPARE_INTERVAL);
        for line in self.honest.check(self.now, &mut self.truth) {
            self.broken.add(|| line);
        }
    }

    fn enter(&mut self) {
        let deadline = self.now.after(ENTER_TIME_MAX);
        while self.now < deadline && !self.honest.all_entered() {
            self.step(0);
        }
        let entered = self.honest.all_entered();
        self.broken.unless(entered, || "not all players entered before the attack".into());
    }

    fn attack(&mut self, scenario: &HostileScenario, progress: &mut dyn FnMut(u64)) {
        let steps_per_second = Duration::from_secs(1).as_millis() / STEP.as_millis();
        let per_step = u64::from(scenario.per_second) / steps_per_second as u64;
        let mut done = 0;
        while done < scenario.datagrams {
            let now = per_step.max(1).min(scenario.datagrams - done);
            self.honest.visit(self.now);
            self.attack.replace_traitors(self.now);
            self.step(now);
            done += now;
            progress(done);
        }
    }

    /// The attack is over; what is under way must arrive, and every count must match.
    fn settle(&mut self) {
        self.honest.rest();
        self.attack.end();
        let deadline = self.now.after(SETTLE_TIME_MAX);
        while self.now < deadline
            && !(self.honest.is_settled() && self.server.unacknowledged() == 0)
        {
            self.step(0);
        }
        let settled = self.honest.is_settled();
        self.broken.unless(settled, || "actions of players stayed without an answer".into());
        let until = self.now.after(Duration::from_secs(1));
        while self.now < until {
            self.step(0);
        }
        for line in self.honest.check_at_rest(&self.server, &self.truth) {
            self.broken.add(|| line);
        }
    }

    /// With nobody left who attacks, the server holds what it held before.
    fn fall_silent(&mut self) {
        let until = self.now.after(SILENCE_TIME);
        while self.now < until {
            self.step(0);
        }
        let (players, held) = (self.honest.len(), self.server.held());
        self.broken.unless(held.0 == players && held.1 == 0 && held.3 == 0, || {
            format!("{players} players are left, and held are {held:?}")
        });
        let [sessions, handshakes, ids, _] = self.held_max;
        let sessions_max = self.honest.sessions_max() + self.attack.sessions_max();
        let ids_max = IDS_PER_SESSION * sessions + handshakes;
        let bounded =
            sessions <= sessions_max && handshakes <= self.handshakes_max && ids <= ids_max;
        let held_max = self.held_max;
        self.broken.unless(bounded, || {
            format!("held at most: {held_max:?}, where {sessions_max} sessions were asked for")
        });
        let ((_, answered), asked) = self.attack.strangers();
        self.broken.unless(answered <= asked, || {
            format!("{answered} bytes went to strangers, who sent {asked}")
        });
        let lying = self.server.player_stats().lying;
        let honest_gone = self.honest.closed();
        self.broken.unless(honest_gone == 0, || {
            format!("{honest_gone} honest sessions ended, {lying} players taken for liars")
        });
    }

    fn report(mut self) -> HostileReport {
        if self.broken.untold > 0 {
            let untold = self.broken.untold;
            self.broken.told.push(format!("and {untold} more"));
        }
        let endpoint = self.server.endpoint_stats();
        let (to_strangers, stranger_bytes) = self.attack.strangers();
        HostileReport {
            datagrams: self.attack.made(),
            virtual_time: self.now.since(Timestamp::START),
            drops: endpoint.drops.by_name().filter(|(_, count)| *count > 0).collect(),
            malformed: self.server.player_stats().malformed,
            violations: endpoint.violations,
            traitor_sessions: self.attack.sessions(),
            visitors: self.honest.visitors(),
            held_max: self.held_max,
            to_strangers,
            stranger_bytes,
            states_checked: self.truth.checked(),
            reliable: self.honest.reliable(),
            broken: self.broken.told,
        }
    }
}
