//! A user has one session: the newest, whichever core each of them came to.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_game::{ServerConfig, ServerKeys, ShardedServer};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TaskProvider, UdpOptions, drive,
};
use twinspan_session::{
    ClientSession, CloseReason, ConnectToken, CryptoSuite, RefuseReason, ServerIdentity,
    SessionConfig, TokenIssuer, TokenKey, UserId,
};
use twinspan_sim::{Sim, SimConfig, SimTask};
use twinspan_world::Kind;

use crate::rig::{Rig, SERVER, Shared, address, shared};
use crate::rogue::Rogue;

const USER: UserId = UserId(7);

/// A server on some cores and whoever a test lets in.
struct Cores {
    sim: Sim,
    server: Rc<RefCell<ShardedServer>>,
    issuer: TokenIssuer,
    login: Stream,
    tasks: Vec<SimTask>,
}

impl Cores {
    fn new(cores: u16, sessions_max: usize) -> Self {
        let conditions = Conditions { delay: Duration::from_millis(20), ..Conditions::CLEAN };
        let mut sim = Sim::new(SimConfig { seed: 5, conditions, ..SimConfig::default() });
        let mut config = ServerConfig::default();
        config.session.sessions_max = sessions_max;
        let env = sim.host("server", SERVER.ip());
        let mut secrets = env.secrets();
        let identity = ServerIdentity::new(secrets.as_mut());
        let tokens = TokenKey::new(secrets.as_mut());
        let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
        let keys = ServerKeys { identity, tokens };
        let suites: Arc<dyn AeadSuite> = Arc::new(CryptoSuite::CHACHA_FIRST);
        let server = ShardedServer::new(
            &config,
            cores,
            &suites,
            &mut || keys.clone(),
            &mut || env.secrets(),
            &mut |name, number| env.stream(name, number),
        );
        let server = Rc::new(RefCell::new(server.unwrap()));
        let login = Stream::new(5, "login", 0);
        let mut all = Self { sim, server: Rc::clone(&server), issuer, login, tasks: Vec::new() };
        all.launch(SERVER, server);
        all
    }

    fn launch<M: Machine + 'static>(&mut self, at: SocketAddr, mut machine: M) {
        let env = self.sim.host(&format!("host at {at}"), at.ip());
        self.tasks.push(env.clone().spawn("machine", async move {
            let mut socket = env.bind_udp(at, &UdpOptions::default()).await.unwrap();
            drive(&env, &mut socket, &mut machine).await.unwrap();
        }));
    }

    fn token(&mut self, user: UserId) -> ConnectToken {
        self.issuer.issue(&mut self.login, user, SERVER, u64::MAX)
    }

    /// A session of `user` from a host of its own, which has come in or was refused.
    fn enter(&mut self, host: u8, user: UserId) -> Shared<Rogue> {
        let token = self.token(user);
        self.enter_with(host, &token)
    }

    fn enter_with(&mut self, host: u8, token: &ConnectToken) -> Shared<Rogue> {
        let rogue = self.begin(host, token);
        self.settle(std::slice::from_ref(&rogue));
        rogue
    }

    /// A session from a host of its own that has not begun.
    fn begin(&mut self, host: u8, token: &ConnectToken) -> Shared<Rogue> {
        let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, host)), 5_000);
        let env = self.sim.host(&format!("host {host}"), at.ip());
        let secrets = env.secrets();
        let (config, suites) = (SessionConfig::default(), Arc::new(CryptoSuite::CHACHA_FIRST));
        let random = env.stream("client", 0);
        let session = ClientSession::new(config, suites, token, SERVER, secrets, random).unwrap();
        let rogue = shared(Rogue::new(session, 1, |_| {}));
        self.launch(at, rogue.clone());
        rogue
    }

    /// Waits until all of these have come in or were refused.
    fn settle(&mut self, rogues: &[Shared<Rogue>]) {
        let is_settled = |rogue: &Shared<Rogue>| {
            rogue.borrow().own().is_some() || rogue.borrow().closed().is_some()
        };
        for _ in 0..200 {
            self.sim.run_for(Duration::from_millis(20));
            if rogues.iter().all(is_settled) {
                return;
            }
        }
        panic!("somebody waits");
    }

    fn players(&self) -> usize {
        let server = self.server.borrow();
        server.world().entities().filter(|entity| entity.kind == Kind::Player).count()
    }
}

#[test]
fn the_newest_session_of_a_user_is_the_one_that_stays() {
    for cores in [1, 3] {
        let mut all = Cores::new(cores, 100);
        let other = all.enter(100, UserId(8));
        let mut shards = std::collections::BTreeSet::new();
        let mut before: Option<Shared<Rogue>> = None;
        for host in 1..=8 {
            let newest = all.enter(host, USER);
            all.sim.run_for(Duration::from_millis(500));
            assert_eq!(newest.borrow().closed(), None, "{cores} cores, session {host}");
            if let Some(before) = before.replace(newest) {
                assert_eq!(before.borrow().closed(), Some(CloseReason::Kicked));
            }
            let server = all.server.borrow();
            assert_eq!((server.sessions(), all.players()), (2, 2), "{cores} cores");
            assert!(server.reliable_counts(USER).is_some());
            shards.insert(server.sessions_by_shard());
        }
        assert_eq!(shards.len() > 1, cores > 1, "they came to several cores: {shards:?}");
        assert_eq!(other.borrow().closed(), None);
        let server = all.server.borrow();
        assert_eq!(server.endpoint_stats().closings.of(CloseReason::Kicked), 7);
        assert_eq!(server.stats().invariants_broken, 0);
    }
}

#[test]
fn a_ban_ends_the_session_that_the_user_has() {
    let mut rig = Rig::new(|_| {});
    let host = crate::rig::BOTS + 1;
    let session = rig.session(host, SessionConfig::default());
    let rogue = shared(Rogue::new(session, 1, |_| {}));
    rig.launch(address(host), rogue.clone());
    rig.wait("it to enter", |_| rogue.borrow().own().is_some());
    let now = rig.now();
    rig.server.borrow_mut().ban(now, UserId(u64::from(host)), Duration::from_secs(60));
    rig.wait("it to be closed", |_| rogue.borrow().closed().is_some());
    assert_eq!(rogue.borrow().closed(), Some(CloseReason::Kicked));
    let session = rig.session(host, SessionConfig::default());
    let again = shared(Rogue::new(session, 1, |_| {}));
    rig.launch(SocketAddr::new(address(host).ip(), 5_001), again.clone());
    rig.wait("it to be refused", |_| again.borrow().closed().is_some());
    let refused = CloseReason::Refused(RefuseReason::Banned);
    assert_eq!(again.borrow().closed(), Some(refused));
    rig.assert_honest_unharmed();
}

const FULL: CloseReason = CloseReason::Refused(RefuseReason::Full);

#[test]
fn a_full_server_spends_no_token_and_a_place_that_was_left_is_had_with_it() {
    for cores in [1, 3] {
        let mut all = Cores::new(cores, 3);
        let inside: Vec<_> = (1..=3).map(|host| all.enter(host, UserId(host.into()))).collect();
        let token = all.token(UserId(50));
        for host in 10..16 {
            let refused = all.enter_with(host, &token);
            assert_eq!(refused.borrow().closed(), Some(FULL), "{cores} cores");
        }
        let now = all.sim.now();
        inside[0].borrow_mut().leave(now);
        all.sim.run_for(Duration::from_secs(5));
        let came = all.enter_with(20, &token);
        assert_eq!(came.borrow().closed(), None, "{cores} cores");
        assert_eq!((all.server.borrow().sessions(), all.players()), (3, 3));
        let stats = all.server.borrow().endpoint_stats();
        assert_eq!((stats.full, stats.token_spent, stats.established), (6, 0, 4));
    }
}

#[test]
fn of_many_who_come_at_once_as_many_get_in_as_there_are_places_and_the_others_keep_their_tokens() {
    const PLACES: usize = 5;
    for cores in [1, 3] {
        let mut all = Cores::new(cores, PLACES);
        let tokens: Vec<_> = (1..=20).map(|user| all.token(UserId(user))).collect();
        let hosts = tokens.iter().zip(1..);
        let crowd: Vec<_> = hosts.map(|(token, host)| all.begin(host, token)).collect();
        all.settle(&crowd);
        let is_in = |rogue: &Shared<Rogue>| rogue.borrow().closed().is_none();
        assert_eq!(crowd.iter().filter(|rogue| is_in(rogue)).count(), PLACES, "{cores} cores");
        assert_eq!(all.server.borrow().endpoint_stats().established, PLACES as u64);
        let now = all.sim.now();
        let mut waiting = Vec::new();
        for (rogue, token) in crowd.iter().zip(&tokens) {
            if is_in(rogue) {
                rogue.borrow_mut().leave(now);
            } else {
                assert_eq!(rogue.borrow().closed(), Some(FULL), "{cores} cores");
                waiting.push(token);
            }
        }
        all.sim.run_for(Duration::from_secs(5));
        for (host, token) in (100..).zip(waiting.into_iter().take(PLACES)) {
            let came = all.enter_with(host, token);
            assert!(came.borrow().own().is_some(), "{cores} cores: its token was spent");
        }
        assert_eq!(all.server.borrow().stats().invariants_broken, 0);
    }
}
