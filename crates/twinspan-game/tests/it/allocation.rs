//! Once warm, a server asks the allocator for nothing: on one core and on two, while players move and
//! act, states are sent and acknowledged, and its figures are read.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_game::{
    Bot, BotConfig, Client, ClientConfig, Server, ServerConfig, ServerKeys, ShardedServer,
    StatsSnapshot, WorldSnapshot,
};
use twinspan_provider::Machine;
use twinspan_session::{CryptoSuite, ServerIdentity, TokenIssuer, TokenKey, UserId};
use twinspan_world::SharedKeyframes;

use crate::counting::{calls, held_bytes};
use crate::rig::{SERVER, suites};

const PLAYERS: u16 = 32;
const TURN: Duration = Duration::from_millis(1);
/// Buffers of the pool: more than are ever out.
const BUFFERS: usize = 1_024;
/// How long the server is held up when it is, and from one time to the next.
const HELD_UP: u32 = 90;
const HELD_UP_EVERY: u32 = 700;

/// A server whose figures can be read.
trait Told: Machine {
    fn tell(&mut self, now: Timestamp, stats: &mut StatsSnapshot, world: &mut WorldSnapshot);
}

impl Told for Server {
    fn tell(&mut self, now: Timestamp, stats: &mut StatsSnapshot, world: &mut WorldSnapshot) {
        self.snapshot_stats(now, stats);
        self.snapshot_world(world);
    }
}

impl Told for ShardedServer {
    fn tell(&mut self, now: Timestamp, stats: &mut StatsSnapshot, _: &mut WorldSnapshot) {
        self.snapshot_stats(now, stats);
    }
}

/// A server and its players on one thread, with nothing between them.
struct Table<M> {
    server: M,
    bots: Vec<Bot>,
    pool: PacketPool,
    now: Timestamp,
    batch: DatagramBatch,
    /// What waits in front of a server that is held up.
    piled_up: VecDeque<Datagram>,
    /// Milliseconds since the server was held up first, if it is now and then.
    hold_up: Option<u32>,
    stats: StatsSnapshot,
    world: WorldSnapshot,
    /// How often the server asked for memory.
    asked: u64,
    /// Bytes that it asked for and did not give back.
    held: i64,
}

fn address(player: usize) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, 1], 1_000 + player as u16))
}

fn config() -> ServerConfig {
    let mut config = ServerConfig::for_players(u32::from(PLAYERS));
    config.world.effect_range = 200.0;
    config
}

fn keys() -> ServerKeys {
    let mut secrets = Stream::new(7, "keys", 0);
    let identity = ServerIdentity::new(&mut secrets);
    ServerKeys { identity, tokens: TokenKey::new(&mut secrets) }
}

fn secrets(instance: u64) -> Box<dyn SecretSource> {
    Box::new(Stream::new(7, "secrets", instance))
}

impl<M: Told> Table<M> {
    fn new(server: M) -> Self {
        Self::with(server, &suites(), PLAYERS)
    }

    fn with(server: M, suites: &Arc<dyn AeadSuite>, players: u16) -> Self {
        let ServerKeys { identity, tokens } = keys();
        let issuer = TokenIssuer::new(tokens, identity.public_key());
        let mut login = Stream::new(7, "login", 0);
        let mut bot = |player: u64| {
            let token = issuer.issue(&mut login, UserId(player), SERVER, u64::MAX);
            let random = Stream::new(7, "client", player);
            // Nobody here asks how old states were.
            let config = ClientConfig { samples_max: 0, ..ClientConfig::default() };
            let secrets = secrets(1_000 + player);
            let suites = Arc::clone(suites);
            let client = Client::new(config, suites, &token, SERVER, secrets, random).unwrap();
            Bot::new(client, BotConfig::default(), Stream::new(7, "bot", player))
        };
        let mut bots: Vec<_> = (0..u64::from(players)).map(&mut bot).collect();
        bots.iter_mut().for_each(|bot| bot.handle_timeout(Timestamp::START));
        let pool = PacketPool::new(BUFFERS);
        // Buffers are made on first need: all of them now.
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(all.len(), BUFFERS);
        drop(all);
        Self {
            server,
            bots,
            pool,
            now: Timestamp::START,
            batch: DatagramBatch::new(64),
            piled_up: VecDeque::new(),
            hold_up: None,
            stats: StatsSnapshot::default(),
            world: WorldSnapshot::default(),
            asked: 0,
            held: 0,
        }
    }

    /// Lets the server do something and counts what it asks for.
    fn serve(&mut self, work: impl FnOnce(&mut Self)) {
        let (before, held) = (calls(), held_bytes());
        work(self);
        self.held += held_bytes() - held;
        self.asked += calls() - before;
    }

    fn hand_over(&mut self) {
        self.serve(|table| table.server.handle_datagrams(table.now, &mut table.batch));
        self.batch.clear();
    }

    /// A millisecond: the players' turn, then the server's, then what it sends.
    fn turn(&mut self) {
        self.now = self.now.after(TURN);
        let now = self.now;
        let mut out = DatagramBatch::new(16);
        for player in 0..self.bots.len() {
            let bot = &mut self.bots[player];
            if bot.poll_timeout().is_some_and(|at| at <= now) {
                bot.handle_timeout(now);
            }
            bot.poll_transmit(now, &self.pool, &mut out);
            while let Some(mut datagram) = out.pop() {
                datagram.peer = address(player);
                self.piled_up.push_back(datagram);
            }
        }
        if let Some(millis) = &mut self.hold_up {
            *millis += 1;
            if *millis % HELD_UP_EVERY < HELD_UP {
                return;
            }
        }
        while let Some(datagram) = self.piled_up.pop_front() {
            assert!(self.batch.push(datagram).is_ok(), "it was emptied when it was full");
            if self.batch.room() == 0 {
                self.hand_over();
            }
        }
        if !self.batch.is_empty() {
            self.hand_over();
        }
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.serve(|table| {
                table.server.handle_timeout(now);
                table.server.on_elapsed(now, now);
            });
        }
        loop {
            self.serve(|table| table.server.poll_transmit(now, &table.pool, &mut table.batch));
            if self.batch.is_empty() {
                return;
            }
            while let Some(datagram) = self.batch.pop() {
                self.deliver(datagram);
            }
        }
    }

    fn deliver(&mut self, mut datagram: Datagram) {
        let player = usize::from(datagram.peer.port() - address(0).port());
        datagram.peer = SERVER;
        let mut one = DatagramBatch::new(1);
        assert!(one.push(datagram).is_ok());
        let bot = &mut self.bots[player];
        bot.handle_datagrams(self.now, &mut one);
    }

    /// Seconds of play, each of which ends with a look at the figures.
    fn play(&mut self, seconds: u32) {
        for _ in 0..seconds {
            (0..1_000).for_each(|_| self.turn());
            let now = self.now;
            self.serve(|table| table.server.tell(now, &mut table.stats, &mut table.world));
        }
    }

    /// What happened in the last seconds: inputs, states, reliable messages both ways.
    fn counts(&self) -> [u64; 4] {
        let (players, stats) = (&self.stats.players, &self.stats.stats);
        let (received, sent) = (players.reliable_received, players.reliable_sent);
        [players.inputs, stats.states_scheduled, received, sent]
    }

    /// Plays until warm, and then asserts that a window of play takes no memory, and neither does one
    /// in which the server is held up and finds everything piled up, which it never was before.
    fn assert_nothing_is_allocated(mut self) {
        self.play(20);
        self.play(20);
        let outside = self.bots.iter().filter(|bot| bot.connected_at().is_none()).count();
        assert_eq!(outside, 0, "{:?}", self.stats.endpoint);
        let before = self.counts();
        self.asked = 0;
        self.play(20);
        let asked = self.asked;
        let after = self.counts();
        let happened: Vec<_> =
            after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let players = u64::from(PLAYERS);
        for (count, least) in happened.iter().zip([60, 20, 1, 1]) {
            assert!(*count >= 19 * players * least, "{happened:?}");
        }
        assert_eq!(self.stats.stats.invariants_broken, 0);
        assert_eq!(asked, 0, "in a window in which happened: {happened:?}");
        self.hold_up = Some(0);
        let before = self.counts();
        self.play(20);
        let states = self.counts()[1] - before[1];
        assert!(states >= 15 * players * 20, "{states} states all the same");
        assert_eq!(self.asked, 0, "when inputs piled up");
    }
}

/// What 64 more players take of a server's memory, each: sessions and keys, and all that is kept for
/// their states. Tables that double are full in both servers.
#[test]
fn a_session_at_play_takes_at_most_6_kb() {
    let suites: Arc<dyn AeadSuite> = Arc::new(CryptoSuite::AES_FIRST);
    let [less, more] = [64, 128].map(|players| {
        let random = &mut |name| Stream::new(7, name, 0);
        let config = ServerConfig { session_rows_max: 16, ..ServerConfig::for_players(128) };
        let server = Server::new(config, Arc::clone(&suites), keys(), secrets(0), random).unwrap();
        let mut table = Table::with(server, &suites, players);
        table.play(8);
        assert_eq!(table.stats.session_count, usize::from(players));
        table.held
    });
    let each = (more - less) / 64;
    println!("{each} bytes for each player");
    assert!((3_000..=6_144).contains(&each), "{each}");
}

/// What 64 more clients of one thread take, each: the session with its keys, what it sees and what it
/// predicts.
#[test]
fn a_client_among_many_takes_at_most_13_kb() {
    let suites: Arc<dyn AeadSuite> = Arc::new(CryptoSuite::AES_FIRST);
    let _keyframes = SharedKeyframes::begin(128);
    let [less, more] = [64, 128].map(|players| {
        let random = &mut |name| Stream::new(7, name, 0);
        let server = Server::new(
            ServerConfig::for_players(128),
            Arc::clone(&suites),
            keys(),
            secrets(0),
            random,
        );
        let server = server.unwrap();
        let before = held_bytes();
        let mut table = Table::with(server, &suites, players);
        table.play(8);
        assert_eq!(table.stats.session_count, usize::from(players));
        held_bytes() - before - table.held
    });
    let each = (more - less) / 64;
    println!("{each} bytes for each client");
    assert!((3_000..=13_312).contains(&each), "{each}");
}

#[test]
fn a_warm_server_allocates_nothing() {
    let random = &mut |name| Stream::new(7, name, 0);
    let server = Server::new(config(), suites(), keys(), secrets(0), random).unwrap();
    Table::new(server).assert_nothing_is_allocated();
}

#[test]
fn a_warm_server_on_two_cores_allocates_nothing() {
    let suites: Arc<dyn AeadSuite> = suites();
    let mut instance = 0;
    let mut server = ShardedServer::new(
        &config(),
        2,
        &suites,
        &mut keys,
        &mut || {
            instance += 1;
            secrets(instance)
        },
        &mut |name, number| Stream::new(7, name, number),
    )
    .unwrap();
    // As where the kernel does not steer: some go from core to core.
    server.mislead_every(7);
    let table = Table::new(server);
    table.assert_nothing_is_allocated();
}
