//! One world on two cores of this machine, over UDP on the loopback interface.
//!
//! Times given to `recv_timeout` are only for a test that would otherwise hang.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_game::{
    Bot, BotConfig, Client, ClientConfig, Fleet, ServeError, ServeOptions, ServerConfig,
    ServerHandle, connect, serve_with,
};
use twinspan_net::{ReactorEnv, allowed_cores};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, TimeProvider, UdpOptions, drive,
};
use twinspan_session::{CloseReason, ConnectToken, CryptoSuite, ResumeTicket, UserId};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const FLEETS: u64 = 4;
const BOTS_EACH: u64 = 16;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A server on two cores, whose world is so small that everybody sees everybody; none where this
/// machine has not got them, unless `TWINSPAN_REQUIRE_PEERS` is 1: then the test fails.
fn start(kernel_steers: bool) -> Option<ServerHandle> {
    if allowed_cores().unwrap().len() < 2 {
        let reason = "this process may use one core alone";
        assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
        println!("skipped: {reason}");
        return None;
    }
    let mut config = ServerConfig { npcs: 2, projectiles: 2, ..ServerConfig::default() };
    config.world.side = 2.0 * config.world.cell;
    config.world.effect_range = 200.0;
    let options = ServeOptions::new(loopback(), config);
    Some(serve_with(ServeOptions { cores: 2, kernel_steers, ..options }).unwrap())
}

/// What a fleet is asked.
enum Ask {
    /// What each bot sees.
    Look,
    /// To rest, and to answer when all actions are answered.
    Rest,
}

/// What a fleet answers.
enum Answer {
    /// Each bot's own entity, and all that it sees.
    Seen(Vec<(u32, Vec<u32>)>),
    /// Reliable messages that the bots sent and received, and answers out of order.
    Rested,
    /// The same counts at the end, and the reasons for it.
    Ended { sent: u64, received: u64, out_of_order: u64, reasons: Vec<Option<CloseReason>> },
}

/// A fleet that answers questions while it plays.
struct Watched {
    fleet: Fleet,
    asked: Receiver<Ask>,
    answers: Sender<Answer>,
    rests: bool,
}

impl Watched {
    fn answer(&mut self) {
        match self.asked.try_recv() {
            Ok(Ask::Look) => {
                let seen = self.fleet.bots().iter().filter_map(|bot| {
                    let own = bot.client().own()?.to_bits();
                    let all = bot.client().replica().entities().map(|entity| entity.id.to_bits());
                    Some((own, all.collect()))
                });
                self.answers.send(Answer::Seen(seen.collect())).unwrap();
            }
            Ok(Ask::Rest) => {
                self.fleet.rest();
                self.rests = true;
            }
            Err(_) => {}
        }
        if self.rests && self.fleet.bots().iter().all(Bot::is_settled) {
            self.rests = false;
            self.answers.send(Answer::Rested).unwrap();
        }
    }
}

impl Machine for Watched {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.fleet.handle_datagrams(now, received);
        self.answer();
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.fleet.handle_timeout(now);
        self.answer();
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.fleet.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.fleet.poll_timeout()
    }

    fn is_done(&self) -> bool {
        self.fleet.is_done()
    }
}

struct Played {
    asks: Sender<Ask>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
}

impl Played {
    fn ask(&self, what: Ask) -> Answer {
        self.asks.send(what).unwrap();
        self.answers.recv_timeout(PATIENCE).expect("a fleet that plays answers")
    }
}

/// Sixteen bots on a thread of their own, behind one socket.
fn play(server: &ServerHandle, fleet: u64) -> Played {
    let users = (0..BOTS_EACH).map(|bot| UserId(1 + fleet * BOTS_EACH + bot));
    let tokens: Vec<_> = users.map(|user| server.token(user)).collect();
    let (address, epoch) = (server.address(), server.epoch_nanos());
    let (asks, asked) = channel();
    let (answered, answers) = channel();
    let thread = thread::spawn(move || {
        let env = ReactorEnv::with_epoch(Some(fleet), epoch).unwrap();
        let action_interval = Duration::from_millis(200);
        let config = BotConfig { action_interval, ..BotConfig::default() };
        let bots = (0..).zip(&tokens).map(|(number, token)| {
            let client = client_of(&env, token, address, number);
            Bot::new(client, config, env.stream("bot", number))
        });
        let now = env.now();
        let fleet = Fleet::new(bots.collect(), |_| now);
        let mut watched = Watched { fleet, asked, answers: answered, rests: false };
        env.clone().block_on(async {
            let mut socket = env.bind_udp(loopback(), &UdpOptions::default()).await.unwrap();
            drive(&env, &mut socket, &mut watched).await.unwrap();
        });
        let stats = || watched.fleet.bots().iter().map(|bot| bot.client().stats());
        watched
            .answers
            .send(Answer::Ended {
                sent: stats().map(|stats| stats.reliable_sent).sum(),
                received: stats().map(|stats| stats.reliable_received).sum(),
                out_of_order: stats().map(|stats| stats.results_out_of_order).sum(),
                reasons: watched.fleet.bots().iter().map(|bot| bot.client().closed()).collect(),
            })
            .unwrap();
    });
    Played { asks, answers, thread }
}

fn client_of(env: &ReactorEnv, token: &ConnectToken, at: SocketAddr, number: u64) -> Client {
    let (suites, random) = (Arc::new(CryptoSuite::CHACHA_FIRST), env.stream("client", number));
    let config = ClientConfig::default();
    Client::new(config, suites, token, at, env.secrets(), random).unwrap()
}

/// The shard of each player, by entity, as last published.
fn shards(server: &ServerHandle) -> Vec<(u32, u16)> {
    server.with_stats(|stats| stats.sessions.iter().map(|row| (row.entity, row.shard)).collect())
}

/// Sixty-four players on two cores see each other, act on each other, and are told of the end.
fn a_small_world(kernel_steers: bool) {
    let Some(mut server) = start(kernel_steers) else { return };
    assert_eq!((server.cores(), server.sockets().count()), (2, 2));
    let fleets: Vec<_> = (0..FLEETS).map(|fleet| play(&server, fleet)).collect();
    let bots = (FLEETS * BOTS_EACH) as usize;
    // Whoever does not see a player of the other core yet soon will.
    let mut rounds = 0;
    loop {
        rounds += 1;
        assert!(rounds < 100_000, "somebody does not see the players of the other core");
        let mut seen = Vec::new();
        for fleet in &fleets {
            if let Answer::Seen(more) = fleet.ask(Ask::Look) {
                seen.extend(more);
            }
        }
        let shards = shards(&server);
        let shard_of = |id: &u32| shards.iter().find(|(entity, _)| entity == id).map(|row| row.1);
        let sees_other = |(own, all): &(u32, Vec<u32>)| {
            let own = shard_of(own);
            own.is_some() && all.iter().filter_map(shard_of).any(|shard| Some(shard) != own)
        };
        if seen.len() == bots && seen.iter().all(sees_other) {
            break;
        }
    }
    for fleet in &fleets {
        assert!(matches!(fleet.ask(Ask::Rest), Answer::Rested));
    }
    server.begin_drain();
    let (mut sent, mut received) = (0, 0);
    for fleet in fleets {
        let ended = fleet.answers.recv_timeout(PATIENCE).expect("the drain reaches all");
        let Answer::Ended { sent: more, received: told, out_of_order, reasons } = ended else {
            panic!("the fleet has more to say than that it has ended")
        };
        (sent, received) = (sent + more, received + told);
        assert_eq!(out_of_order, 0);
        assert!(reasons.iter().all(|reason| *reason == Some(CloseReason::ServerDraining)));
        fleet.thread.join().unwrap();
    }
    server.join().unwrap();
    server.with_stats(|stats| {
        let players = &stats.players;
        assert_eq!((players.joined, players.left), (64, 64));
        assert_eq!(players.reliable_received, sent, "to the server");
        assert_eq!(players.reliable_sent, received, "from the server");
        assert_eq!((players.actions_out_of_order, players.malformed), (0, 0));
        assert_eq!((stats.stats.undelivered_at_end, stats.stats.invariants_broken), (0, 0));
        let links = stats.links;
        assert_eq!(links.strays_dropped + links.words_dropped, 0, "{links:?}");
        if !kernel_steers {
            assert!(links.strays > 100, "the kernel does not know whose they are: {links:?}");
        }
    });
}

#[test]
fn players_on_two_cores_share_one_world_where_the_kernel_steers() {
    a_small_world(true);
}

#[test]
fn players_on_two_cores_share_one_world_where_the_cores_hand_datagrams_on() {
    a_small_world(false);
}

/// Runs a client until it stands in the world; returns its entity and its ticket. Its socket is then
/// gone without a word.
fn visit(client: impl FnOnce(&ReactorEnv) -> Client) -> (u32, ResumeTicket) {
    struct UntilIn(Client);
    impl Machine for UntilIn {
        fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
            self.0.handle_datagrams(now, received);
        }
        fn handle_timeout(&mut self, now: Timestamp) {
            self.0.handle_timeout(now);
        }
        fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
            self.0.poll_transmit(now, pool, out);
        }
        fn poll_timeout(&self) -> Option<Timestamp> {
            self.0.poll_timeout()
        }
        fn is_done(&self) -> bool {
            self.0.own().is_some() || self.0.is_done()
        }
    }
    let env = ReactorEnv::new(None).unwrap();
    let mut visitor = UntilIn(client(&env));
    env.clone().block_on(async {
        let mut socket = env.bind_udp(loopback(), &UdpOptions::default()).await.unwrap();
        drive(&env, &mut socket, &mut visitor).await.unwrap();
    });
    assert_eq!(visitor.0.closed(), None);
    (visitor.0.own().unwrap().to_bits(), visitor.0.ticket().unwrap().clone())
}

/// From ports of their own, which a kernel that does not steer gives to either core.
#[test]
fn who_comes_back_through_either_core_keeps_its_entity() {
    let Some(server) = start(false) else { return };
    let at = server.address();
    for user in 1..=8 {
        let token = server.token(UserId(user));
        let (own, ticket) = visit(|env| client_of(env, &token, at, user));
        let (again, _) = visit(|env| {
            let (suites, random) = (Arc::new(CryptoSuite::CHACHA_FIRST), env.stream("client", 1));
            let config = ClientConfig::default();
            Client::resume(config, suites, &ticket, at, env.secrets(), random).unwrap()
        });
        assert_eq!(again, own, "user {user}");
    }
    let figures = server.figures();
    drop(server);
    figures.with_stats(|stats| {
        assert_eq!((stats.players.returned, stats.players.joined), (8, 16));
        assert!(stats.links.strays > 0, "{:?}", stats.links);
    });
}

#[test]
fn a_server_that_is_dropped_ends_on_all_cores() {
    let Some(server) = start(true) else { return };
    let clients: Vec<_> =
        (1..=8).map(|user| connect(&server.token(UserId(user))).unwrap()).collect();
    drop(server);
    for client in clients {
        let view = client.wait_for(PATIENCE, |view| view.closed.is_some());
        assert_eq!(view.closed, Some(CloseReason::ServerDraining));
    }
}

#[test]
fn more_cores_than_there_are_is_an_error_that_says_so() {
    let have = allowed_cores().unwrap().len();
    let options = ServeOptions::new(loopback(), ServerConfig::default());
    let error = serve_with(ServeOptions { cores: have + 1, ..options }).map(drop).unwrap_err();
    assert!(matches!(error, ServeError::Cores { .. }), "{error}");
    let told = error.to_string();
    assert!(told.starts_with(&format!("asked for {} cores, and this", have + 1)), "{told}");
}
