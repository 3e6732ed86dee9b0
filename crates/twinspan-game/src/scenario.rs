//! The world in the simulator: the same server, clients and bots as on real sockets, under loss,
//! jitter, duplication and reordering, with every promise checked.

pub mod bulk;
pub mod fairness;
pub mod hostile;
mod long;
mod planned;
mod server;
mod truth;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, TimeProvider, Timer, UdpOptions, drive,
};
use twinspan_reliable::Knobs;
use twinspan_session::{CloseReason, CryptoSuite, ServerIdentity, TokenIssuer, TokenKey, UserId};
use twinspan_sim::scenario::{Case, Verdict, Watch};
use twinspan_sim::{
    Sim, SimConfig, SimEnv, SimSuite, SimTask, TraceCheckpoints, TraceLegend, Wish,
};
use twinspan_world::{SharedKeyframes, tick_duration};

use crate::bot::{Bot, BotConfig};
use crate::client::Client;
use crate::config::{ClientConfig, ServerConfig};
use crate::error::{ClientError, ServerError};
use crate::server::{LinkStats, Server, ServerKeys, ShardedServer};
use server::AnyServer;

pub use planned::PlannedWorld;
pub use truth::Truth;

/// The server's address in the simulated network.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7_000);
/// Virtual time after the faults were healed in which everything must settle.
const LIVENESS_TIME_MAX: Duration = Duration::from_secs(15);
/// Virtual time in which all clients must connect under faults.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// Time over which clients start.
const START_SPACING: Duration = Duration::from_millis(3);
/// Cells along the world's side at least.
const WORLD_CELLS_MIN: f64 = 6.0;
/// How far the acknowledgements of the cheating client run ahead of what it received.
const CHEAT_ACKS_AHEAD: u64 = 40;
/// How far a player at rest may be from where its client predicts it, in metres.
const PREDICTION_ERROR_MAX: f64 = 0.01;
/// Which datagrams a server on several cores gets at a wrong one.
const MISLED_EVERY: u64 = 7;
/// Broken promises that are told; the rest is counted.
const BROKEN_TOLD_MAX: usize = 20;

/// How packets are protected in the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// By the real ciphers.
    Real,
    /// By a tag of the same size: cheaper, and the same code around it.
    Tag,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The server cannot be set up.
    #[error("the scenario's server cannot be: {0}")]
    Server(#[from] ServerError),
    /// A client cannot be set up.
    #[error("the scenario's client cannot be: {0}")]
    Client(#[from] ClientError),
}

/// The scenario's settings. A run is a function of them.
#[derive(Clone, Debug)]
pub struct WorldScenario {
    /// Honest clients, each on a host of its own.
    pub clients: u32,
    /// Virtual time under faults.
    pub duration: Duration,
    /// The seed.
    pub seed: u64,
    /// What every link is like until it is healed.
    pub conditions: Conditions,
    /// How bots behave.
    pub bots: BotConfig,
    /// How packets are protected.
    pub protection: Protection,
    /// Mechanisms switched off, on both ends, to show that they are needed.
    pub knobs: Knobs,
    /// Cores of the server, at least 1: with more, every seventh datagram is given to a wrong one.
    pub cores: u16,
}

impl Default for WorldScenario {
    fn default() -> Self {
        Self {
            clients: 20,
            duration: Duration::from_secs(10),
            seed: 1,
            conditions: Conditions {
                loss: 0.2,
                delay: Duration::from_millis(20),
                jitter: Duration::from_millis(200),
                duplicate: 0.05,
                reorder: 0.1,
                ..Conditions::CLEAN
            },
            // More than a hundred reliable messages each way and client in ten seconds.
            bots: BotConfig { action_interval: Duration::from_millis(80), ..BotConfig::default() },
            protection: Protection::Real,
            knobs: Knobs::default(),
            cores: 1,
        }
    }
}

/// What a run was like.
#[derive(Clone, Debug)]
pub struct WorldReport {
    /// Hash over every event: the same for the same settings.
    pub trace_hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// The hash on the way, to find where two runs part.
    pub checkpoints: TraceCheckpoints,
    /// What the numbers in the trace stand for.
    pub legend: TraceLegend,
    /// Virtual time that passed, healing and drain included.
    pub virtual_time: Duration,
    /// Honest clients that came to stand in the world.
    pub connected: u32,
    /// Reliable messages sent, both ways together.
    pub reliable_sent: u64,
    /// Reliable messages delivered, both ways together.
    pub reliable_delivered: u64,
    /// Fewest reliable messages of one client, each way.
    pub reliable_per_client_min: u64,
    /// Entities in replicas that were compared with the server's truth.
    pub states_checked: u64,
    /// Each fault with how often it was put in and how often its effect was seen.
    pub faults: Vec<(&'static str, u64, u64)>,
    /// What went between the server's cores.
    pub links: LinkStats,
    /// Promises that were not kept; empty when all is well.
    pub broken: Vec<String>,
}

impl WorldScenario {
    /// Runs the scenario to its end.
    ///
    /// # Errors
    /// [`ScenarioError`] when the settings cannot be.
    pub fn run(&self) -> Result<WorldReport, ScenarioError> {
        self.run_tampered(|_| {})
    }

    /// The same after `tamper` changed something of the simulation before anything happened in it, for
    /// tests of the trace.
    ///
    /// # Errors
    /// [`ScenarioError`] when the settings cannot be.
    pub fn run_tampered(
        &self,
        tamper: impl FnOnce(&mut Sim),
    ) -> Result<WorldReport, ScenarioError> {
        self.run_shown(tamper, None)
    }

    /// The same, and `look` is shown what the machines are like after each tick of the world.
    ///
    /// # Errors
    /// [`ScenarioError`] when the settings cannot be.
    pub fn run_shown(
        &self,
        tamper: impl FnOnce(&mut Sim),
        look: Option<Look<'_>>,
    ) -> Result<WorldReport, ScenarioError> {
        let mut run = Run::new(self, tamper)?;
        run.look = look;
        run.play_out(self.duration);
        Ok(run.report())
    }

    /// The same under the planned faults of `case`. One may befall what another has lost, so none
    /// needs an effect.
    fn run_planned(&self, case: &Case, watch: &mut dyn Watch) -> Result<Verdict, ScenarioError> {
        let mut run = Run::new(self, |sim| watch.begin(sim))?;
        run.faults_expected = false;
        run.sim.plan_faults(case.plan());
        if watch.looks() {
            run.look = Some(Box::new(|hosts| watch.look(hosts)));
        }
        run.play_out(self.duration);
        // The tasks stay until all is told: their end is an event, too.
        let (sim, _tasks, settled_after, broken) = run.into_parts();
        watch.end(&sim);
        Ok(Verdict::of(&sim, case, settled_after, broken))
    }
}

/// Is shown what the machine of each host is like, in words.
pub type Look<'a> = Box<dyn FnMut(&mut dyn Iterator<Item = (IpAddr, String)>) + 'a>;

type Shared<M> = Rc<RefCell<M>>;

/// A run in progress.
struct Run<'a> {
    sim: Sim,
    /// What drives the machines; dropping it would stop them.
    tasks: Vec<SimTask>,
    server: Shared<AnyServer>,
    bots: Vec<Shared<Bot>>,
    /// The client that acknowledges what it never received.
    cheat: Shared<Bot>,
    truth: Truth,
    /// States that each bot had received when its replica was last found to be true.
    states_compared: Vec<Option<u64>>,
    broken: Broken,
    faults_expected: bool,
    /// How long after the healing all had settled.
    settled_after: Duration,
    reliable_sent: u64,
    reliable_delivered: u64,
    look: Option<Look<'a>>,
    /// All replicas are on this thread.
    _keyframes: SharedKeyframes,
}

/// Promises that were not kept.
#[derive(Default)]
struct Broken {
    told: Vec<String>,
    untold: usize,
}

impl Broken {
    fn add(&mut self, line: impl FnOnce() -> String) {
        if self.told.len() < BROKEN_TOLD_MAX {
            self.told.push(line());
        } else {
            self.untold += 1;
        }
    }

    fn unless(&mut self, kept: bool, line: impl FnOnce() -> String) {
        if !kept {
            self.add(line);
        }
    }
}

impl Run<'_> {
    /// `prepare` is given the simulation before anything has happened in it.
    fn new(
        scenario: &WorldScenario,
        prepare: impl FnOnce(&mut Sim),
    ) -> Result<Self, ScenarioError> {
        let mut sim = Sim::new(SimConfig {
            seed: scenario.seed,
            conditions: scenario.conditions,
            ..SimConfig::default()
        });
        prepare(&mut sim);
        let suites: Arc<dyn AeadSuite> = match scenario.protection {
            // A fixed order: the run must not depend on the processor.
            Protection::Real => Arc::new(CryptoSuite::CHACHA_FIRST),
            Protection::Tag => Arc::new(SimSuite),
        };
        let mut config = ServerConfig::for_players(scenario.clients + 1);
        config.session.reliable.knobs = scenario.knobs;
        // Wide enough that nobody sees everything: areas of interest must matter.
        config.world.side = config.world.side.max(WORLD_CELLS_MIN * config.world.cell);
        let env = sim.host("server", SERVER.ip());
        let mut secrets = env.secrets();
        let identity = ServerIdentity::new(secrets.as_mut());
        let tokens = TokenKey::new(secrets.as_mut());
        let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
        let mut keys = || ServerKeys { identity: identity.clone(), tokens: tokens.clone() };
        let server = if scenario.cores <= 1 {
            let random = &mut |name| env.stream(name, 0);
            let server = Server::new(config, Arc::clone(&suites), keys(), secrets, random)?;
            AnyServer::One(Box::new(server))
        } else {
            let random = &mut |name, shard| env.stream(name, shard);
            let secrets = &mut || env.secrets();
            let cores = scenario.cores;
            let mut server =
                ShardedServer::new(&config, cores, &suites, &mut keys, secrets, random)?;
            server.mislead_every(MISLED_EVERY);
            AnyServer::Many(Box::new(server))
        };
        let server = Rc::new(RefCell::new(server));
        let mut tasks = vec![launch(&env, SERVER, Timestamp::START, Rc::clone(&server))];
        let mut login = Stream::new(scenario.seed, "login", 0);
        let mut bots = Vec::new();
        for number in 0..=scenario.clients {
            let mut config = ClientConfig { samples_max: 0, ..ClientConfig::default() };
            config.session.reliable.knobs = scenario.knobs;
            if number == scenario.clients {
                config.session.reliable.knobs.ack_ahead = CHEAT_ACKS_AHEAD;
            }
            let address = client_address(number);
            let env = sim.host(&format!("client {number}"), address.ip());
            let user = UserId(u64::from(number) + 1);
            let token = issuer.issue(&mut login, user, SERVER, u64::MAX);
            let (secrets, random) = (env.secrets(), env.stream("client", 0));
            let client = Client::new(config, Arc::clone(&suites), &token, SERVER, secrets, random)?;
            let bot = Bot::new(client, scenario.bots, env.stream("bot", 0));
            let bot = Rc::new(RefCell::new(bot));
            let start_at = Timestamp::START.after(START_SPACING * number);
            tasks.push(launch(&env, address, start_at, Rc::clone(&bot)));
            sim.set_wish(address.ip(), Rc::clone(&bot) as Rc<dyn Wish>);
            bots.push(bot);
        }
        // The loop above made one more than the honest ones.
        let cheat = bots.split_off(scenario.clients as usize).remove(0);
        let faults_expected = scenario.conditions != Conditions::CLEAN;
        let (truth, broken) = (Truth::default(), Broken::default());
        let states_compared = vec![None; bots.len()];
        Ok(Self {
            sim,
            tasks,
            server,
            bots,
            cheat,
            truth,
            states_compared,
            broken,
            faults_expected,
            settled_after: Duration::ZERO,
            reliable_sent: 0,
            reliable_delivered: 0,
            look: None,
            _keyframes: SharedKeyframes::begin(scenario.clients as usize),
        })
    }

    fn into_parts(self) -> (Sim, Vec<SimTask>, Duration, Vec<String>) {
        (self.sim, self.tasks, self.settled_after, self.broken.told)
    }

    fn play_out(&mut self, duration: Duration) {
        self.under_faults(duration);
        self.play_end();
    }

    /// Heals everything and sees to it that all settles, is true and ends.
    fn play_end(&mut self) {
        self.heal_and_settle();
        self.compare_at_rest();
        self.drain();
    }

    /// Runs for `time`, tick by tick, comparing every replica with the truth after each.
    fn run_for(&mut self, time: Duration) {
        let until = self.sim.now().after(time);
        while self.sim.now() < until {
            self.sim.run_for(tick_duration());
            self.truth.record(self.server.borrow().world());
            for (bot, states) in self.bots.iter().zip(&mut self.states_compared) {
                let bot = bot.borrow();
                let (replica, applied) = (bot.client().replica(), bot.client().stats());
                let received = applied.states_applied + applied.states_stale;
                let outcome = if *states == Some(received) {
                    self.truth.check_ages(replica)
                } else {
                    self.truth.check(replica)
                };
                *states = outcome.is_ok().then_some(received);
                if let Err(line) = outcome {
                    self.broken.add(|| line);
                }
            }
            self.look();
        }
    }

    /// Shows what the machines are like, to whom wants to see it.
    fn look(&mut self) {
        let Some(look) = &mut self.look else { return };
        let server = self.server.borrow();
        let sessions: usize = server.sessions_by_shard().iter().sum();
        let (open, endpoint) = (server.unacknowledged(), server.endpoint_stats());
        let text = format!(
            "{sessions} sessions, {} packets in, {} out, {open} reliable messages not acknowledged",
            endpoint.packets_in, endpoint.packets_out,
        );
        let clients = self.bots.iter().chain([&self.cheat]).zip(0_u32..);
        let clients =
            clients.map(|(bot, number)| (client_address(number).ip(), client_state(&bot.borrow())));
        look(&mut std::iter::once((SERVER.ip(), text)).chain(clients));
    }

    /// The faults are there from the first datagram on; their time counts from when all have
    /// connected.
    fn under_faults(&mut self, duration: Duration) {
        let deadline = self.sim.now().after(CONNECT_TIME_MAX);
        while self.sim.now() < deadline && self.connected() < self.bots.len() {
            self.run_for(Duration::from_millis(100));
        }
        self.run_for(duration);
        // Whoever shall be caught has to get in first.
        while self.sim.now() < deadline && !self.is_cheat_judged() {
            self.run_for(Duration::from_millis(100));
        }
        let connected = self.connected();
        self.broken.unless(connected == self.bots.len(), || {
            format!("{connected} of {} clients connected under faults", self.bots.len())
        });
    }

    fn connected(&self) -> usize {
        self.bots.iter().filter(|bot| bot.borrow().connected_at().is_some()).count()
    }

    fn is_cheat_judged(&self) -> bool {
        let caught = self.server.borrow().endpoint_stats().ack_of_unsent;
        caught > 0 || self.cheat.borrow().client().closed().is_some()
    }

    /// Heals the network; everything under way must arrive within a stated time.
    fn heal_and_settle(&mut self) {
        for bot in self.bots.iter().chain([&self.cheat]) {
            bot.borrow_mut().rest();
        }
        self.sim.set_conditions(Conditions::CLEAN);
        self.sim.heal_faults();
        let healed_at = self.sim.now();
        let deadline = healed_at.after(LIVENESS_TIME_MAX);
        while self.sim.now() < deadline && !self.is_settled() {
            self.run_for(Duration::from_millis(100));
        }
        self.settled_after = self.sim.now().since(healed_at);
        let settled = self.is_settled();
        self.broken.unless(settled, || {
            format!(
                "{} reliable messages of the server and the actions of {} clients still open {:?} after the healing",
                self.server.borrow().unacknowledged(),
                self.bots.iter().filter(|bot| !bot.borrow().is_settled()).count(),
                LIVENESS_TIME_MAX,
            )
        });
        // Long enough for the leave margin's dwell time and for the newest state of every cell, unless a
        // path has been so slow that its states are still short.
        self.run_for(Duration::from_secs(1));
        while self.sim.now() < deadline && !self.are_complete() {
            self.run_for(Duration::from_millis(100));
        }
    }

    fn are_complete(&self) -> bool {
        self.bots.iter().all(|bot| bot.borrow().client().replica().is_complete())
    }

    fn is_settled(&self) -> bool {
        let open = self.server.borrow().unacknowledged();
        open == 0 && self.bots.iter().all(|bot| bot.borrow().is_settled())
    }

    /// With healed links every replica must hold exactly what the server has in the client's area,
    /// and every count of messages must match.
    fn compare_at_rest(&mut self) {
        for (number, bot) in self.bots.iter().enumerate() {
            let bot = bot.borrow();
            let client = bot.client();
            let stats = client.stats();
            if let Err(line) = self.truth.check_complete(client.replica()) {
                self.broken.add(|| format!("client {number}: {line}"));
            }
            // Everybody has stood still for a second: what was predicted is what became of it.
            let own = client.replica().own().map(|own| own.position).unwrap_or_default();
            let off = client.prediction().position().distance(own);
            self.broken.unless(off < PREDICTION_ERROR_MAX, || {
                format!("client {number}: predicts its player {off} m from where it is")
            });
            self.broken.unless(stats.results_out_of_order == 0, || {
                format!("client {number}: {} answers out of order", stats.results_out_of_order)
            });
            let malformed = stats.states_malformed + stats.events_malformed;
            self.broken.unless(malformed == 0, || {
                format!("client {number}: {malformed} messages could not be decoded")
            });
            self.broken.unless(client.closed().is_none(), || {
                format!("client {number}: closed, {:?}", client.closed())
            });
        }
        self.check_counts();
    }

    fn check_counts(&mut self) {
        self.count_reliable();
        let server = self.server.borrow();
        let players = server.player_stats();
        self.broken.unless(players.actions_out_of_order == 0, || {
            format!("{} actions out of order or twice", players.actions_out_of_order)
        });
        self.broken.unless(players.lying == 0, || {
            format!("{} honest players taken for liars", players.lying)
        });
        self.broken.unless(server.stats().invariants_broken == 0, || {
            "an invariant of the world does not hold".into()
        });
        // The server's own word counts: the notice of the end may be lost like any other packet.
        let caught = server.endpoint_stats().ack_of_unsent;
        let cheat = UserId(self.bots.len() as u64 + 1);
        let gone = server.reliable_counts(cheat).is_none();
        self.broken.unless(caught == 1 && gone, || {
            format!("{caught} clients closed for acknowledging what was never sent, want one")
        });
        let by_shard = server.sessions_by_shard();
        let all: usize = by_shard.iter().sum();
        self.broken.unless(all == self.bots.len(), || {
            format!("{by_shard:?} sessions by shard, want {} together", self.bots.len())
        });
    }

    /// Reliable messages sent and delivered between the server and the honest clients, both ways.
    fn count_reliable(&mut self) {
        let server = self.server.borrow();
        for (number, bot) in self.bots.iter().enumerate() {
            let bot = bot.borrow();
            let client = bot.client().stats();
            let user = UserId(number as u64 + 1);
            let counts = server.reliable_counts(user).unwrap_or_default();
            self.reliable_sent += counts.sent + client.reliable_sent;
            self.reliable_delivered += counts.received + client.reliable_received;
            let kept =
                counts.sent == client.reliable_received && counts.received == client.reliable_sent;
            self.broken.unless(kept, || {
                format!(
                    "client {number}: {} of {} reliable messages arrived, {} of {} at the server",
                    client.reliable_received, counts.sent, counts.received, client.reliable_sent,
                )
            });
        }
    }

    /// The server's end: every client is told and closes with that reason.
    fn drain(&mut self) {
        let now = self.sim.now();
        self.server.borrow_mut().drain(now);
        let deadline = now.after(LIVENESS_TIME_MAX);
        while self.sim.now() < deadline && !self.has_ended() {
            self.sim.run_for(Duration::from_millis(100));
        }
        let ended = self.server.borrow().is_done();
        self.broken.unless(ended, || format!("the server's drain took over {LIVENESS_TIME_MAX:?}"));
        for (number, bot) in self.bots.iter().enumerate() {
            let closed = bot.borrow().client().closed();
            self.broken.unless(closed == Some(CloseReason::ServerDraining), || {
                format!("client {number}: ended the drain with {closed:?}")
            });
        }
    }

    fn has_ended(&self) -> bool {
        let closed = |bot: &Shared<Bot>| bot.borrow().client().closed().is_some();
        self.server.borrow().is_done() && self.bots.iter().all(closed)
    }

    fn report(mut self) -> WorldReport {
        let faults = self.sim.faults();
        let faults: Vec<_> =
            faults.iter().map(|(kind, injected, effect)| (kind.name(), injected, effect)).collect();
        if self.faults_expected {
            for (name, injected, effect) in &faults {
                self.broken.unless(*injected == 0 || *effect > 0, || {
                    format!("fault {name}: put in {injected} times, no effect seen")
                });
            }
        }
        if self.broken.untold > 0 {
            let untold = self.broken.untold;
            self.broken.told.push(format!("and {untold} more"));
        }
        let links = self.server.borrow().links();
        let per_client = self.bots.iter().map(|bot| {
            let bot = bot.borrow();
            let stats = bot.client().stats();
            stats.reliable_sent.min(stats.reliable_received)
        });
        WorldReport {
            trace_hash: self.sim.trace_hash(),
            checkpoints: self.sim.trace_checkpoints(),
            legend: self.sim.trace_legend(),
            events: self.sim.events(),
            virtual_time: self.sim.now().since(Timestamp::START),
            connected: u32::try_from(self.connected()).unwrap_or(u32::MAX),
            reliable_sent: self.reliable_sent,
            reliable_delivered: self.reliable_delivered,
            reliable_per_client_min: per_client.min().unwrap_or(0),
            states_checked: self.truth.checked(),
            faults,
            links,
            broken: self.broken.told,
        }
    }
}

/// What a client is like, in words.
fn client_state(bot: &Bot) -> String {
    let client = bot.client();
    let (stats, replica) = (client.stats(), client.replica());
    let place = replica.own().map_or_else(
        || "not in the world".to_owned(),
        |own| format!("at {:.1}, {:.1}", own.position.x, own.position.z),
    );
    let closed = client.closed().map_or(String::new(), |reason| format!(", closed: {reason:?}"));
    format!(
        "{:?}, {place}, {} entities in its replica, {} states applied, {} inputs sent, {} reliable \
         messages sent, {} received{closed}",
        client.session().state(),
        replica.len(),
        stats.states_applied,
        stats.inputs_sent,
        stats.reliable_sent,
        stats.reliable_received,
    )
}

/// The address of client `number`: 10.1.0.0 and on.
fn client_address(number: u32) -> SocketAddr {
    let base = u32::from(Ipv4Addr::new(10, 1, 0, 0));
    SocketAddr::from((Ipv4Addr::from(base + number + 1), 5_000))
}

/// Binds a socket on the host and drives `machine` over it from `start_at` on.
fn launch<M: Machine + 'static>(
    env: &SimEnv,
    address: SocketAddr,
    start_at: Timestamp,
    mut machine: M,
) -> SimTask {
    let task_env = env.clone();
    env.spawn("machine", async move {
        let mut timer = task_env.timer();
        timer.set(Some(start_at));
        std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
        // A host of the simulator has every port free; without a socket the machine would not
        // connect, which the scenario checks.
        if let Ok(mut socket) = task_env.bind_udp(address, &UdpOptions::default()).await {
            let _ = drive(&task_env, &mut socket, &mut machine).await;
        }
    })
}
