//! A server, honest bots and whoever a test puts beside them, in one simulated network.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_game::scenario::Truth;
use twinspan_game::{
    Bot, BotConfig, Client, ClientConfig, Server, ServerConfig, ServerKeys, StatsSnapshot,
};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, UdpOptions, drive,
};
use twinspan_session::{
    ClientSession, ConnectToken, CryptoSuite, ResumeTicket, ServerIdentity, SessionConfig,
    TokenIssuer, TokenKey, UserId,
};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimTask};
use twinspan_world::tick_duration;

/// The server's address.
pub(crate) const SERVER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7_000);
/// What the network between honest players and the server is like.
pub(crate) const NETWORK: Conditions = Conditions {
    loss: 0.02,
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(10),
    duplicate: 0.01,
    ..Conditions::CLEAN
};
/// The longest that a state takes over that network from the slot it was scheduled for.
const DOWN_MAX: Duration = Duration::from_millis(21);
/// Honest players of a test.
pub(crate) const BOTS: u32 = 6;
/// Virtual time in which whatever a test waits for must come about.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) type Shared<M> = Rc<RefCell<M>>;

pub(crate) fn shared<M>(machine: M) -> Shared<M> {
    Rc::new(RefCell::new(machine))
}

/// The address of host `number`.
pub(crate) fn address(number: u32) -> SocketAddr {
    let base = u32::from(Ipv4Addr::new(10, 1, 0, 0));
    SocketAddr::from((Ipv4Addr::from(base + number), 5_000))
}

pub(crate) fn suites() -> Arc<dyn AeadSuite> {
    Arc::new(CryptoSuite::CHACHA_FIRST)
}

pub(crate) struct Rig {
    pub(crate) sim: Sim,
    pub(crate) server: Shared<Server>,
    /// The honest players, users 1 and on, on hosts 1 and on.
    pub(crate) bots: Vec<Shared<Bot>>,
    issuer: TokenIssuer,
    login: Stream,
    tasks: Vec<SimTask>,
    truth: Truth,
    /// The longest that a state took to an honest player, from its slot.
    down: Duration,
    /// Whether clients come back by themselves when they are lost.
    pub(crate) come_back: bool,
}

impl Rig {
    /// A small world, in which everybody reaches everybody, without players.
    pub(crate) fn empty(conditions: Conditions, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut sim = Sim::new(SimConfig { seed: 11, conditions, ..SimConfig::default() });
        let mut config = ServerConfig { npcs: 3, projectiles: 3, ..ServerConfig::default() };
        config.world.side = 96.0;
        config.world.effect_range = 200.0;
        change(&mut config);
        let env = sim.host("server", SERVER.ip());
        let mut secrets = env.secrets();
        let identity = ServerIdentity::new(secrets.as_mut());
        let tokens = TokenKey::new(secrets.as_mut());
        let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
        let keys = ServerKeys { identity, tokens };
        let random = &mut |name| env.stream(name, 0);
        let server = Server::new(config, suites(), keys, secrets, random).unwrap();
        let server = shared(server);
        let mut rig = Self {
            sim,
            server: Rc::clone(&server),
            bots: Vec::new(),
            issuer,
            login: Stream::new(11, "login", 0),
            tasks: Vec::new(),
            truth: Truth::default(),
            down: Duration::ZERO,
            come_back: true,
        };
        rig.launch(SERVER, server);
        rig
    }

    /// The same with [`BOTS`] honest players in it.
    pub(crate) fn new(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut rig = Self::empty(NETWORK, change);
        for number in 1..=BOTS {
            rig.add_bot(number, SERVER);
        }
        rig.wait("the honest players to enter", Self::all_entered);
        rig
    }

    /// Lets an honest player on host `number` join, which believes the server at `server`.
    pub(crate) fn add_bot(&mut self, number: u32, server: SocketAddr) -> Shared<Bot> {
        let client = self.client(number, server);
        let action_interval = Duration::from_millis(200);
        let config = BotConfig { action_interval, ..BotConfig::default() };
        let bot = Bot::new(client, config, Stream::new(11, "bot", u64::from(number)));
        let bot = shared(bot);
        self.bots.push(Rc::clone(&bot));
        self.launch(address(number), Rc::clone(&bot));
        bot
    }

    pub(crate) fn env(&mut self, number: u32) -> SimEnv {
        self.sim.host(&format!("host {number}"), address(number).ip())
    }

    pub(crate) fn token(&mut self, user: u32) -> ConnectToken {
        self.issuer.issue(&mut self.login, UserId(u64::from(user)), SERVER, u64::MAX)
    }

    /// A client for host `number` that believes the server at `server`.
    pub(crate) fn client(&mut self, number: u32, server: SocketAddr) -> Client {
        let (env, token) = (self.env(number), self.token(number));
        let (secrets, random) = (env.secrets(), env.stream("client", 0));
        let config = ClientConfig { comes_back: self.come_back, ..ClientConfig::default() };
        Client::new(config, suites(), &token, server, secrets, random).unwrap()
    }

    /// A client for host `number` that comes back with a ticket.
    pub(crate) fn resumed_client(&mut self, number: u32, ticket: &ResumeTicket) -> Client {
        let env = self.env(number);
        let (secrets, random) = (env.secrets(), env.stream("client", 0));
        let config = ClientConfig::default();
        Client::resume(config, suites(), ticket, SERVER, secrets, random).unwrap()
    }

    /// A bare session for host `number`.
    pub(crate) fn session(&mut self, number: u32, config: SessionConfig) -> ClientSession {
        let (env, token) = (self.env(number), self.token(number));
        let (secrets, random) = (env.secrets(), env.stream("client", 0));
        ClientSession::new(config, suites(), &token, SERVER, secrets, random).unwrap()
    }

    /// Drives `machine` over a socket at `address`.
    pub(crate) fn launch<M: Machine + 'static>(&mut self, address: SocketAddr, mut machine: M) {
        let env = self.sim.host(&format!("host at {address}"), address.ip());
        self.tasks.push(env.clone().spawn("machine", async move {
            let mut socket = env.bind_udp(address, &UdpOptions::default()).await.unwrap();
            drive(&env, &mut socket, &mut machine).await.unwrap();
        }));
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.sim.now()
    }

    /// Runs tick by tick and compares every replica with the truth after each.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now().after(time);
        while self.now() < until {
            self.sim.run_for(tick_duration());
            self.truth.record(self.server.borrow().world());
            for bot in &self.bots {
                let mut bot = bot.borrow_mut();
                self.truth.check(bot.client().replica()).unwrap();
                while let Some(sample) = bot.client_mut().poll_sample() {
                    self.down = self.down.max(sample.down);
                }
            }
        }
    }

    /// The same, and returns how old each player's states were when they were applied.
    pub(crate) fn ages_for(&mut self, time: Duration) -> Vec<Vec<Duration>> {
        let until = self.now().after(time);
        let mut ages = vec![Vec::new(); self.bots.len()];
        while self.now() < until {
            self.sim.run_for(tick_duration());
            self.truth.record(self.server.borrow().world());
            for (bot, ages) in self.bots.iter().zip(&mut ages) {
                let mut bot = bot.borrow_mut();
                self.truth.check(bot.client().replica()).unwrap();
                while let Some(sample) = bot.client_mut().poll_sample() {
                    ages.push(sample.age);
                }
            }
        }
        ages
    }

    /// The same without the comparison, where a replica is known to be wrong.
    pub(crate) fn run_unchecked_for(&mut self, time: Duration) {
        let until = self.now().after(time);
        while self.now() < until {
            self.sim.run_for(tick_duration());
            self.truth.record(self.server.borrow().world());
        }
    }

    /// Runs until `holds`, for [`LIMIT`] at most.
    pub(crate) fn wait(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.wait_for(LIMIT, what, holds);
    }

    pub(crate) fn wait_for(&mut self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = self.now().after(limit);
        while !holds(self) {
            assert!(self.now() < until, "waited {limit:?} for {what}");
            self.run_for(tick_duration());
        }
    }

    pub(crate) fn all_entered(&self) -> bool {
        self.bots.iter().all(|bot| bot.borrow().connected_at().is_some())
    }

    pub(crate) fn stats(&self) -> StatsSnapshot {
        let mut out = StatsSnapshot::default();
        self.server.borrow_mut().snapshot_stats(self.now(), &mut out);
        out
    }

    /// Lets the honest players go on for a while and come to rest, and asserts that every promise to
    /// them was kept and that they were served as if they had been alone.
    pub(crate) fn assert_honest_unharmed(&mut self) {
        self.run_for(Duration::from_secs(1));
        self.bots.iter().for_each(|bot| bot.borrow_mut().rest());
        self.wait("the honest players' messages to arrive", |rig| {
            let users = rig.users();
            let sessions = rig.stats().sessions;
            let mut honest = sessions.iter().filter(|row| users.contains(&UserId(row.user)));
            honest.all(|row| row.stats.unacknowledged == 0)
                && rig.bots.iter().all(|bot| bot.borrow().is_settled())
        });
        self.run_for(Duration::from_secs(1));
        assert!(self.truth.checked() > 1_000, "hardly any state was compared with the truth");
        assert!(self.down <= DOWN_MAX, "a state took {:?}", self.down);
        let server = self.server.borrow();
        for (user, bot) in self.users().into_iter().zip(&self.bots) {
            let bot = bot.borrow();
            let (client, stats) = (bot.client(), bot.client().stats());
            assert_eq!(client.closed(), None, "{user:?}");
            self.truth.check_complete(client.replica()).unwrap();
            let counts = server.reliable_counts(user).unwrap();
            assert_eq!(counts.sent, stats.reliable_received, "{user:?}: from the server");
            assert_eq!(counts.received, stats.reliable_sent, "{user:?}: to the server");
            assert!(stats.reliable_sent >= 4, "{user:?}: {stats:?}");
            assert_eq!(stats.results_out_of_order, 0, "{user:?}");
            assert_eq!(stats.states_malformed + stats.events_malformed, 0, "{user:?}");
            assert_eq!(stats.inputs_skipped + bot.actions_refused(), 0, "{user:?}");
            let applied = stats.states_applied as f64 / stats.states_expected as f64;
            assert!(applied > 0.8, "{user:?}: {applied} of the states under 2 % loss");
        }
        assert_eq!(server.stats().states_unsent, 0);
        assert_eq!(server.stats().invariants_broken, 0);
        assert_eq!(server.world().check_invariants(), Ok(()));
    }

    fn users(&self) -> Vec<UserId> {
        (1..=self.bots.len() as u64).map(UserId).collect()
    }
}
