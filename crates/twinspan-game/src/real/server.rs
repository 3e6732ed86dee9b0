//! A server on a thread of its own, and the handle that its owner keeps.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use twinspan_admission::Rules;
use twinspan_core::aead::Cipher;
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;
use twinspan_net::{ReactorEnv, lock};
use twinspan_provider::{
    BindError, IoPath, RandomProvider, SocketReport, TimeProvider, UdpError, UdpOptions, UdpSocket,
    drive,
};
use twinspan_relay::{RelayConfigError, TrunkKeys};
use twinspan_session::{
    CipherOrderError, ConnectToken, PublicKey, ServerIdentity, TokenIssuer, TokenKey, UserId,
};

use super::door::{RelayDoor, ServerSocket};
use super::suite_of;
use super::tap::{ASK_DRAIN, ASK_STOP, Changes, Shared, Tap};
use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::server::{Server, ServerKeys, ServerMessages, StatsSnapshot, WorldSnapshot};

/// How long tokens from [`ServerHandle::token`] may be used.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] ServerError),
    /// The address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Relays cannot come in as was asked.
    #[error("for relays: {0}")]
    Relay(#[from] RelayConfigError),
    /// The address for relays cannot be had.
    #[error("for relays: {0}")]
    BindRelay(BindError),
    /// There are not as many cores as were asked for.
    #[error("asked for {asked} cores, and this process may use {have}: ask for no more than that")]
    Cores {
        /// How many were asked for.
        asked: usize,
        /// How many there are.
        have: usize,
    },
    /// The ciphers are in no order that can be.
    #[error(transparent)]
    Ciphers(#[from] CipherOrderError),
    /// Several cores and relays do not go together.
    #[error("relays come in on one core: ask for one core, or for no relays")]
    RelayCores,
    /// Several cores are to be had on Linux alone.
    #[error("several cores need sockets that share an address, which are used on Linux alone")]
    CoresUnsupported,
    /// The operating system refused what a server needs.
    #[error("cannot start the server's thread: {0}")]
    Os(#[from] std::io::Error),
}

/// Datagrams and their payload bytes at the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
}

/// A server's figures, to be read on any thread.
#[derive(Clone, Debug)]
pub struct ServerFigures {
    /// What each of the server's threads shares.
    shared: Arc<[Arc<Shared>]>,
    /// Where those of several threads are added up.
    sums: Arc<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    stats: Mutex<StatsSnapshot>,
    world: Mutex<WorldSnapshot>,
}

impl ServerFigures {
    fn new(shared: Vec<Arc<Shared>>) -> Self {
        Self { shared: shared.into(), sums: Arc::default() }
    }

    fn with_world<T>(&self, read: impl FnOnce(&WorldSnapshot) -> T) -> T {
        for shared in &*self.shared {
            shared.world_was_read.store(true, Ordering::Relaxed);
        }
        if let [only] = &*self.shared {
            return read(&lock(&only.world));
        }
        let mut sum = lock(&self.sums.world);
        sum.entities.clear();
        sum.interests.clear();
        for shared in &*self.shared {
            let one = lock(&shared.world);
            // The world itself is published by one of the threads.
            if !one.entities.is_empty() {
                (sum.tick, sum.side, sum.cell) = (one.tick, one.side, one.cell);
            }
            sum.entities.extend_from_slice(&one.entities);
            sum.interests.extend_from_slice(&one.interests);
        }
        read(&sum)
    }

    /// Runs `read` on the counters as last published, at most a second old; final after the end. The
    /// server never waits for it.
    pub fn with_stats<T>(&self, read: impl FnOnce(&StatsSnapshot) -> T) -> T {
        if let [only] = &*self.shared {
            return read(&lock(&only.stats));
        }
        let mut sum = lock(&self.sums.stats);
        for (number, shared) in self.shared.iter().enumerate() {
            let one = lock(&shared.stats);
            if number == 0 {
                sum.copy(&one);
            } else {
                sum.add(&one);
            }
        }
        read(&sum)
    }

    /// What went through the sockets so far.
    pub fn traffic(&self) -> Traffic {
        let mut sum = Traffic::default();
        for shared in &*self.shared {
            let Traffic { packets_in, packets_out, bytes_in, bytes_out } = shared.traffic();
            sum.packets_in += packets_in;
            sum.packets_out += packets_out;
            sum.bytes_in += bytes_in;
            sum.bytes_out += bytes_out;
        }
        sum
    }
}

/// How long datagrams may gather before the server takes them: a little more than the time from one
/// slot of sends to the next, so that the thread wakes once for both.
pub const GATHER: Duration = Duration::from_micros(1_100);
/// Packet buffers of a server's socket that are made at its start: all that it can have out, so that
/// the first moment in which datagrams pile up finds them made.
pub(super) const BUFFERS_MADE: usize = 1_024;

/// What the thread tells once it stands.
pub(super) struct Started {
    pub(super) address: SocketAddr,
    pub(super) relay_address: Option<SocketAddr>,
    pub(super) report: SocketReport,
    /// Of the socket towards relays, where clients come directly too.
    pub(super) relay_report: Option<SocketReport>,
    pub(super) public_key: PublicKey,
    pub(super) issuer: TokenIssuer,
    pub(super) secrets: Box<dyn SecretSource>,
    pub(super) epoch_nanos: u64,
}

/// A running server. Dropping it closes all sessions without a drain and waits for the end.
pub struct ServerHandle {
    figures: ServerFigures,
    address: SocketAddr,
    relay_address: Option<SocketAddr>,
    report: SocketReport,
    relay_report: Option<Box<SocketReport>>,
    /// Of the other cores.
    more_reports: Vec<SocketReport>,
    is_steered: bool,
    /// The present public key and who issues tokens that pin it; a rotation replaces both.
    issuer: Mutex<(PublicKey, TokenIssuer)>,
    secrets: Mutex<Box<dyn SecretSource>>,
    epoch_nanos: u64,
    threads: Vec<JoinHandle<Result<(), UdpError>>>,
}

/// What a server on a thread of its own is given.
pub struct ServeOptions {
    /// Where it listens; port 0 picks a free one.
    pub address: SocketAddr,
    /// How it is set up; `unix_at_start_s` is taken from the clock.
    pub config: ServerConfig,
    /// What it proves itself with and lets users in by; without them it makes fresh ones, and
    /// [`ServerHandle::token`] is the only way to its tokens.
    pub keys: Option<ServerKeys>,
    /// The keys that were in use before those: tokens under them are good too.
    pub previous_keys: Option<ServerKeys>,
    /// Typed messages of the application; their handlers run on the server's thread.
    pub messages: Option<ServerMessages>,
    /// Users that are let in no more, and until when, in seconds since the Unix epoch: bans of an
    /// earlier run. The later ones are in [`StatsSnapshot::admission`].
    pub bans: Vec<(UserId, u64)>,
    /// How relays come to it; `None` where clients come directly alone.
    pub relay: Option<RelayDoor>,
    /// Cores, each with a thread of its own that is bound to it: the world lives on the first,
    /// sessions on all. One thread that is bound to none when it is 1; several on Linux alone, no
    /// more than the process may use, and without relays.
    pub cores: usize,
    /// How its sockets move datagrams. Unmeasured unless asked for, so that figures of one run can be
    /// compared with those of the next; [`IoPath::Measured`] is for a server that shall serve.
    pub io_path: IoPath,
    /// The ciphers that sessions may have, the one that is liked best first; those of this machine by
    /// what they were measured to cost when empty.
    pub ciphers: Vec<Cipher>,
    /// Whether the kernel is asked to give each core its own datagrams. Without it, or where the
    /// kernel refuses, the cores hand them on.
    pub kernel_steers: bool,
}

impl ServeOptions {
    /// A server on one core with keys of its own, without messages of the application and without
    /// relays.
    pub const fn new(address: SocketAddr, config: ServerConfig) -> Self {
        Self {
            address,
            config,
            keys: None,
            previous_keys: None,
            messages: None,
            bans: Vec::new(),
            relay: None,
            cores: 1,
            io_path: IoPath::Usual,
            ciphers: Vec::new(),
            kernel_steers: true,
        }
    }
}

/// Starts a server at `address` with keys of its own on a thread of its own; port 0 picks a free
/// one.
///
/// # Errors
/// [`ServeError`] names the setting or the address that cannot be.
pub fn serve(address: SocketAddr, config: ServerConfig) -> Result<ServerHandle, ServeError> {
    serve_with(ServeOptions::new(address, config))
}

/// Starts a server on a thread of its own.
///
/// # Errors
/// [`ServeError`] names the setting or the address that cannot be.
pub fn serve_with(options: ServeOptions) -> Result<ServerHandle, ServeError> {
    if options.cores > 1 {
        return super::cores::serve(options);
    }
    let shared = Arc::new(Shared::default());
    let (started_tx, started_rx) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("twinspan-world".into()).spawn({
        let shared = Arc::clone(&shared);
        move || run(options, shared, &started_tx)
    })?;
    let started = match started_rx.recv() {
        Ok(started) => started?,
        Err(_) => return Err(ended_at_once()),
    };
    let steered = true;
    Ok(ServerHandle::new(started, vec![shared], vec![thread], Vec::new(), steered))
}

/// A thread ended without a word: it panicked, and the panic was printed.
pub(super) fn ended_at_once() -> ServeError {
    ServeError::Os(std::io::Error::other("the thread ended at once"))
}

/// The server's thread.
fn run(
    options: ServeOptions,
    shared: Arc<Shared>,
    started: &mpsc::SyncSender<Result<Started, ServeError>>,
) -> Result<(), UdpError> {
    let epoch_nanos = ReactorEnv::clock_ns();
    let env = match ReactorEnv::with_epoch(None, epoch_nanos) {
        Ok(env) => env,
        Err(error) => {
            // Whoever called `serve` waits for this; if it is gone nobody needs to know.
            let _ = started.send(Err(error.into()));
            return Ok(());
        }
    };
    env.clone().block_on(async {
        match start(&env, epoch_nanos, options).await {
            Ok((server, mut socket, facts)) => {
                let _ = started.send(Ok(facts));
                let mut tap = Tap::new(server, shared).with_relay(socket.relay_side());
                drive(&env, &mut socket, &mut tap).await
            }
            Err(error) => {
                let _ = started.send(Err(error));
                Ok(())
            }
        }
    })
}

async fn start(
    env: &ReactorEnv,
    epoch_nanos: u64,
    options: ServeOptions,
) -> Result<(Server, ServerSocket, Started), ServeError> {
    let ServeOptions { address, mut config, keys, previous_keys, messages, bans, .. } = options;
    let udp = UdpOptions { gather: GATHER, path: options.io_path, ..UdpOptions::default() };
    let socket = ServerSocket::bind(env, address, &udp, options.relay).await?;
    socket.pool().make(BUFFERS_MADE);
    config.unix_at_start_s = unix_at_start_s(env.now());
    let mut secrets = env.secrets();
    let keys = keys.unwrap_or_else(|| ServerKeys {
        identity: ServerIdentity::new(secrets.as_mut()),
        tokens: TokenKey::new(secrets.as_mut()),
    });
    let public_key = keys.identity.public_key();
    let issuer = TokenIssuer::new(keys.tokens.clone(), public_key);
    let facts = Started {
        address: socket.local_addr(),
        relay_address: socket.relay_addr(),
        report: socket.first_report(),
        relay_report: socket.relay_report(),
        public_key,
        issuer,
        secrets: env.secrets(),
        epoch_nanos,
    };
    let suites = Arc::new(suite_of(&options.ciphers)?);
    let (first, then) = in_order(keys, previous_keys);
    let random = &mut |name| env.stream(name, 0);
    let mut server = Server::new(config, suites, first, secrets, random)?;
    if let Some(present) = then {
        server.rotate_keys(present);
    }
    for (user, left) in bans_left(&bans) {
        server.ban(env.now(), user, left);
    }
    if let Some(messages) = messages {
        server.set_messages(messages);
    }
    Ok((server, socket, facts))
}

/// What the wall clock showed at the start of the run's clock, in seconds since 1970.
pub(super) fn unix_at_start_s(now: Timestamp) -> u64 {
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    unix_now.as_secs().saturating_sub(now.as_nanos() / 1_000_000_000)
}

/// Who is banned, and for how long from now.
pub(super) fn bans_left(bans: &[(UserId, u64)]) -> impl Iterator<Item = (UserId, Duration)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    bans.iter().map(move |(user, until)| (*user, Duration::from_secs(until.saturating_sub(now))))
}

/// The keys to begin with, and those to rotate to at once.
pub(super) fn in_order(
    keys: ServerKeys,
    previous: Option<ServerKeys>,
) -> (ServerKeys, Option<ServerKeys>) {
    match previous {
        Some(previous) => (previous, Some(keys)),
        None => (keys, None),
    }
}

impl ServerHandle {
    pub(super) fn new(
        started: Started,
        shared: Vec<Arc<Shared>>,
        threads: Vec<JoinHandle<Result<(), UdpError>>>,
        more_reports: Vec<SocketReport>,
        is_steered: bool,
    ) -> Self {
        Self {
            figures: ServerFigures::new(shared),
            address: started.address,
            relay_address: started.relay_address,
            report: started.report,
            relay_report: started.relay_report.map(Box::new),
            more_reports,
            is_steered,
            issuer: Mutex::new((started.public_key, started.issuer)),
            secrets: Mutex::new(started.secrets),
            epoch_nanos: started.epoch_nanos,
            threads,
        }
    }

    /// Where clients find it; where relays do, when they alone may come.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where relays find it.
    pub const fn relay_address(&self) -> Option<SocketAddr> {
        self.relay_address
    }

    /// How its socket moves datagrams and how large its buffers are; with several cores, that of the
    /// first.
    pub const fn socket(&self) -> &SocketReport {
        &self.report
    }

    /// The same for the socket towards relays, where clients come directly too; where they do not,
    /// [`ServerHandle::socket`] is about that one.
    pub fn relay_socket(&self) -> Option<&SocketReport> {
        self.relay_report.as_deref()
    }

    /// The same for every core's socket.
    pub fn sockets(&self) -> impl Iterator<Item = &SocketReport> {
        core::iter::once(&self.report).chain(&self.more_reports)
    }

    /// Cores that it runs on.
    pub const fn cores(&self) -> usize {
        1 + self.more_reports.len()
    }

    /// Whether every datagram comes to its core at once; else the cores hand them on.
    pub const fn is_steered(&self) -> bool {
        self.is_steered
    }

    /// The server's public key, as tokens pin it.
    pub fn public_key(&self) -> PublicKey {
        lock(&self.issuer).0
    }

    /// Where its clock starts, in nanoseconds of the machine's monotonic clock: a process that
    /// starts its own clock there can compare moments with the server's.
    pub const fn epoch_nanos(&self) -> u64 {
        self.epoch_nanos
    }

    /// A token with which `user` may connect once, within the hour.
    pub fn token(&self, user: UserId) -> ConnectToken {
        self.token_at(user, self.address)
    }

    /// The same for a client that finds the server at `address`, a relay's for instance.
    pub fn token_at(&self, user: UserId, address: SocketAddr) -> ConnectToken {
        let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires_at = unix_now + TOKEN_LIFETIME;
        let mut secrets = lock(&self.secrets);
        let issuer = lock(&self.issuer);
        issuer.1.issue(secrets.as_mut(), user, address, expires_at.as_secs())
    }

    /// Runs `read` on the world as last published: at most a tenth of a second old for whoever looks
    /// so often, at most a second old after a while in which nobody looked.
    pub fn with_world<T>(&self, read: impl FnOnce(&WorldSnapshot) -> T) -> T {
        self.figures.with_world(read)
    }

    /// Runs `read` on the counters as last published, at most a second old; final after the end.
    pub fn with_stats<T>(&self, read: impl FnOnce(&StatsSnapshot) -> T) -> T {
        self.figures.with_stats(read)
    }

    /// What went through the socket so far.
    pub fn traffic(&self) -> Traffic {
        self.figures.traffic()
    }

    /// The figures alone, for whoever shows them: it may outlive the server.
    pub fn figures(&self) -> ServerFigures {
        self.figures.clone()
    }

    /// Whether the server's threads have ended.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Gives the server other admission rules; it takes them within a tick.
    pub fn replace_rules(&self, rules: &Rules) {
        self.change(|changes| changes.rules = Some(rules.clone()));
    }

    /// Gives the server other keys; it takes them within a tick. Tokens under the ones before stay
    /// good until the next rotation; sessions do not notice.
    ///
    /// [`ServerHandle::token`] and [`ServerHandle::public_key`] follow: a token of this handle that is
    /// used within the tick in which the server takes the keys may be refused.
    pub fn rotate_keys(&self, keys: &ServerKeys) {
        self.change(|changes| changes.keys = Some(keys.clone()));
        let public_key = keys.identity.public_key();
        *lock(&self.issuer) = (public_key, TokenIssuer::new(keys.tokens.clone(), public_key));
    }

    /// Ends the overlap of a rotation: within a tick tokens under the keys before the present ones are
    /// refused. Sessions do not notice.
    pub fn retire_old_keys(&self) {
        self.change(|changes| changes.retire = true);
    }

    /// Gives the server other keys that it shares with relays; it takes them within a tick, sends with
    /// the present one and takes both. Sessions do not notice. Without relays it means nothing.
    pub fn replace_trunk_keys(&self, keys: &TrunkKeys) {
        self.change(|changes| changes.trunk = Some(keys.clone()));
    }

    /// Whether all rules and keys that were given are in use on each of its threads.
    pub fn has_taken_changes(&self) -> bool {
        // A thread holds the lock until it uses them.
        self.figures.shared.iter().all(|shared| lock(&shared.changes).is_empty())
    }

    fn change(&self, make: impl Fn(&mut Changes)) {
        for shared in &*self.figures.shared {
            make(&mut lock(&shared.changes));
            // Pairs with the load in `Tap::take_changes`; the changes themselves travel under the
            // lock.
            shared.has_changes.store(true, Ordering::Relaxed);
        }
    }

    fn ask(&self, what: u8) {
        for shared in &*self.figures.shared {
            // Pairs with the load in `Tap::obey`; the request carries no other data.
            shared.asked.fetch_max(what, Ordering::Relaxed);
        }
    }

    /// Asks the server to tell its clients, wait for their acknowledgements, and end.
    pub fn begin_drain(&self) {
        self.ask(ASK_DRAIN);
    }

    /// Drains and waits for the end.
    ///
    /// # Errors
    /// [`UdpError`] when a socket of the server had failed.
    pub fn drain(mut self) -> Result<(), UdpError> {
        self.begin_drain();
        self.join()
    }

    /// Waits for the end after [`ServerHandle::begin_drain`]; the last counters stay readable.
    ///
    /// # Errors
    /// [`UdpError`] when a socket of the server had failed.
    pub fn join(&mut self) -> Result<(), UdpError> {
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or(Err(UdpError::HostStopped));
            // The first failure is told: it is what made the others end.
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        outcome
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.ask(ASK_STOP);
        // The socket's last error has nobody left to tell.
        let _ = self.join();
    }
}
