//! A server on a thread of its own, and the handle that its owner keeps.

use core::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use twinspan_admission::Rules;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;
use twinspan_net::ReactorEnv;
use twinspan_provider::{
    BindError, Machine, RandomProvider, SocketReport, TimeProvider, UdpError, UdpSocket, drive,
};
use twinspan_relay::RelayConfigError;
use twinspan_session::{ConnectToken, PublicKey, ServerIdentity, TokenIssuer, TokenKey, UserId};

use super::door::{RelayDoor, ServerSocket};
use super::measured_suite;
use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::server::{Server, ServerKeys, ServerMessages, StatsSnapshot, WorldSnapshot};

/// Time between two publications of the world.
const WORLD_INTERVAL: Duration = Duration::from_millis(100);
/// Time between two publications of the counters.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
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
    /// The operating system refused what a server needs.
    #[error("cannot start the server's thread: {0}")]
    Os(#[from] std::io::Error),
}

/// What is asked of the server's thread. Only ever raised.
const ASK_DRAIN: u8 = 1;
const ASK_STOP: u8 = 2;

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

/// Counters that the server's thread writes and handles read; each stands alone, so relaxed order
/// is enough.
#[derive(Debug, Default)]
struct SharedTraffic {
    packets_in: AtomicU64,
    packets_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// What the server is to take in its next tick.
#[derive(Default)]
struct Changes {
    rules: Option<Rules>,
    keys: Option<ServerKeys>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

/// What the server's thread and its handle share.
#[derive(Debug, Default)]
struct Shared {
    asked: AtomicU8,
    /// Whether `changes` holds some that the thread has not taken yet.
    has_changes: AtomicBool,
    /// Locked by the thread with `try_lock` alone.
    changes: Mutex<Changes>,
    traffic: SharedTraffic,
    /// Locked by the thread with `try_lock` alone, so that a slow reader delays no tick.
    world: Mutex<WorldSnapshot>,
    stats: Mutex<StatsSnapshot>,
}

impl Shared {
    fn traffic(&self) -> Traffic {
        let traffic = &self.traffic;
        Traffic {
            packets_in: traffic.packets_in.load(Ordering::Relaxed),
            packets_out: traffic.packets_out.load(Ordering::Relaxed),
            bytes_in: traffic.bytes_in.load(Ordering::Relaxed),
            bytes_out: traffic.bytes_out.load(Ordering::Relaxed),
        }
    }
}

/// A server's figures, to be read on any thread.
#[derive(Clone, Debug)]
pub struct ServerFigures {
    shared: Arc<Shared>,
}

impl ServerFigures {
    /// Runs `read` on the counters as last published, at most a second old; final after the end. The
    /// server never waits for it.
    pub fn with_stats<T>(&self, read: impl FnOnce(&StatsSnapshot) -> T) -> T {
        read(&lock(&self.shared.stats))
    }

    /// What went through the socket so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic()
    }
}

/// How long datagrams may gather before the server takes them: a little more than the time from one
/// slot of sends to the next, so that the thread wakes once for both.
pub const GATHER: Duration = Duration::from_micros(1_100);

/// What the thread tells once it stands.
struct Started {
    address: SocketAddr,
    relay_address: Option<SocketAddr>,
    report: SocketReport,
    public_key: PublicKey,
    issuer: TokenIssuer,
    secrets: Box<dyn SecretSource>,
    epoch_nanos: u64,
}

/// A running server. Dropping it closes all sessions without a drain and waits for the end.
pub struct ServerHandle {
    shared: Arc<Shared>,
    address: SocketAddr,
    relay_address: Option<SocketAddr>,
    report: SocketReport,
    public_key: PublicKey,
    issuer: TokenIssuer,
    secrets: Mutex<Box<dyn SecretSource>>,
    epoch_nanos: u64,
    thread: Option<JoinHandle<Result<(), UdpError>>>,
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
    /// How relays come to it; `None` where clients come directly alone.
    pub relay: Option<RelayDoor>,
}

impl ServeOptions {
    /// A server with keys of its own without messages of the application and without relays.
    pub const fn new(address: SocketAddr, config: ServerConfig) -> Self {
        Self { address, config, keys: None, previous_keys: None, messages: None, relay: None }
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
    let shared = Arc::new(Shared::default());
    let (started_tx, started_rx) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("twinspan-world".into()).spawn({
        let shared = Arc::clone(&shared);
        move || run(options, shared, &started_tx)
    })?;
    let started = match started_rx.recv() {
        Ok(started) => started?,
        // The thread ended without a word: it panicked, and the panic was printed.
        Err(_) => return Err(ServeError::Os(std::io::Error::other("the thread ended at once"))),
    };
    Ok(ServerHandle {
        shared,
        address: started.address,
        relay_address: started.relay_address,
        report: started.report,
        public_key: started.public_key,
        issuer: started.issuer,
        secrets: Mutex::new(started.secrets),
        epoch_nanos: started.epoch_nanos,
        thread: Some(thread),
    })
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
                let mut tap = Tap::new(server, shared);
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
    let ServeOptions { address, mut config, keys, previous_keys, messages, relay } = options;
    let socket = ServerSocket::bind(env, address, GATHER, relay).await?;
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    config.unix_at_start_s =
        unix_now.as_secs().saturating_sub(env.now().as_nanos() / 1_000_000_000);
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
        report: socket.report(),
        public_key,
        issuer,
        secrets: env.secrets(),
        epoch_nanos,
    };
    let suites = Arc::new(measured_suite());
    let (first, then) = match previous_keys {
        Some(previous) => (previous, Some(keys)),
        None => (keys, None),
    };
    let random = &mut |name| env.stream(name, 0);
    let mut server = Server::new(config, suites, first, secrets, random)?;
    if let Some(present) = then {
        server.rotate_keys(present);
    }
    if let Some(messages) = messages {
        server.set_messages(messages);
    }
    Ok((server, socket, facts))
}

impl ServerHandle {
    /// Where clients find it; where relays do, when they alone may come.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where relays find it.
    pub const fn relay_address(&self) -> Option<SocketAddr> {
        self.relay_address
    }

    /// How its socket moves datagrams and how large its buffers are.
    pub const fn socket(&self) -> &SocketReport {
        &self.report
    }

    /// The server's public key, as tokens pin it.
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
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
        self.issuer.issue(secrets.as_mut(), user, address, expires_at.as_secs())
    }

    /// Runs `read` on the world as last published, at most a tenth of a second old.
    pub fn with_world<T>(&self, read: impl FnOnce(&WorldSnapshot) -> T) -> T {
        read(&lock(&self.shared.world))
    }

    /// Runs `read` on the counters as last published, at most a second old; final after the end.
    pub fn with_stats<T>(&self, read: impl FnOnce(&StatsSnapshot) -> T) -> T {
        read(&lock(&self.shared.stats))
    }

    /// What went through the socket so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic()
    }

    /// The figures alone, for whoever shows them: it may outlive the server.
    pub fn figures(&self) -> ServerFigures {
        ServerFigures { shared: Arc::clone(&self.shared) }
    }

    /// Whether the server's thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Gives the server other admission rules; it takes them within a tick.
    pub fn replace_rules(&self, rules: Rules) {
        self.change(|changes| changes.rules = Some(rules));
    }

    /// Gives the server other keys; it takes them within a tick. Tokens under the ones before stay
    /// good until the next rotation; sessions do not notice.
    ///
    /// [`ServerHandle::token`] goes on with the keys that the server was started with.
    pub fn rotate_keys(&self, keys: ServerKeys) {
        self.change(|changes| changes.keys = Some(keys));
    }

    fn change(&self, make: impl FnOnce(&mut Changes)) {
        make(&mut lock(&self.shared.changes));
        // Pairs with the load in `Tap::take_changes`; the changes themselves travel under the lock.
        self.shared.has_changes.store(true, Ordering::Relaxed);
    }

    /// Asks the server to tell its clients, wait for their acknowledgements, and end.
    pub fn begin_drain(&self) {
        // Pairs with the load in `Tap::obey`; the request carries no other data.
        self.shared.asked.fetch_max(ASK_DRAIN, Ordering::Relaxed);
    }

    /// Drains and waits for the end.
    ///
    /// # Errors
    /// [`UdpError`] when the server's socket had failed.
    pub fn drain(mut self) -> Result<(), UdpError> {
        self.begin_drain();
        self.join()
    }

    /// Waits for the end after [`ServerHandle::begin_drain`]; the last counters stay readable.
    ///
    /// # Errors
    /// [`UdpError`] when the server's socket had failed.
    pub fn join(&mut self) -> Result<(), UdpError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(UdpError::HostStopped),
            None => Ok(()),
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.shared.asked.fetch_max(ASK_STOP, Ordering::Relaxed);
        // The socket's last error has nobody left to tell.
        let _ = self.join();
    }
}

/// A lock whose holder panicked still holds good values: each is replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The server as its thread runs it: obeys the handle, counts traffic, publishes.
struct Tap {
    server: Server,
    shared: Arc<Shared>,
    world_at: Timestamp,
    stats_at: Timestamp,
}

impl Tap {
    const fn new(server: Server, shared: Arc<Shared>) -> Self {
        let start = Timestamp::START;
        Self { server, shared, world_at: start, stats_at: start }
    }

    fn obey(&mut self, now: Timestamp) {
        match self.shared.asked.load(Ordering::Relaxed) {
            ASK_DRAIN => self.server.drain(now),
            ASK_STOP => self.server.stop(now),
            _ => {}
        }
    }

    fn take_changes(&mut self, now: Timestamp) {
        if !self.shared.has_changes.load(Ordering::Relaxed) {
            return;
        }
        // A lock that is held means newer changes: they are taken in the next tick.
        let Ok(mut waiting) = self.shared.changes.try_lock() else { return };
        self.shared.has_changes.store(false, Ordering::Relaxed);
        let Changes { rules, keys } = core::mem::take(&mut *waiting);
        if let Some(rules) = rules {
            self.server.replace_rules(now, &rules);
        }
        if let Some(keys) = keys {
            self.server.rotate_keys(keys);
        }
    }

    fn publish(&mut self, now: Timestamp) {
        let ended = self.server.is_done();
        if (now >= self.world_at || ended)
            && let Ok(mut world) = self.shared.world.try_lock()
        {
            self.server.snapshot_world(&mut world);
            self.world_at = now.after(WORLD_INTERVAL);
        }
        if ended {
            // Nothing is delayed any more: wait for the lock, so that the last word is kept.
            self.server.snapshot_stats(now, &mut lock(&self.shared.stats));
        } else if now >= self.stats_at
            && let Ok(mut stats) = self.shared.stats.try_lock()
        {
            self.server.snapshot_stats(now, &mut stats);
            self.stats_at = now.after(STATS_INTERVAL);
        }
    }
}

impl Machine for Tap {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let bytes: usize = received.iter().map(|datagram| datagram.packet.len()).sum();
        self.shared.traffic.packets_in.fetch_add(received.len() as u64, Ordering::Relaxed);
        self.shared.traffic.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.server.handle_datagrams(now, received);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.obey(now);
        self.take_changes(now);
        self.server.handle_timeout(now);
        self.publish(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        let before = out.len();
        self.server.poll_transmit(now, pool, out);
        let sent = out.len() - before;
        let bytes: usize = out.iter().skip(before).map(|datagram| datagram.packet.len()).sum();
        self.shared.traffic.packets_out.fetch_add(sent as u64, Ordering::Relaxed);
        self.shared.traffic.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.server.poll_timeout()
    }

    fn is_done(&self) -> bool {
        self.server.is_done()
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        self.server.on_elapsed(began, ended);
    }
}
