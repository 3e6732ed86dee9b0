//! A SOCKS5 proxy on a simulated host, for tests of clients that go through one (RFC 1928, RFC 1929).
//!
//! It connects (CONNECT) and relays datagrams (UDP ASSOCIATE), wants user and password where it is
//! told to, refuses by code and drops its associations on command.
//!
//! ```
//! use std::time::Duration;
//! use twinspan_provider::{AsyncReadExt, AsyncWriteExt, NetworkProvider, TcpOptions};
//! use twinspan_sim::proxy::{SocksConfig, SocksProxy, SocksReply};
//! use twinspan_sim::{Sim, SimConfig};
//!
//! let mut sim = Sim::new(SimConfig::default());
//! let proxy = SocksProxy::start(&sim.host("proxy", [10, 0, 0, 9].into()), SocksConfig::default());
//! proxy.refuse(Some(SocksReply::NotAllowed));
//! let client = sim.host("client", [10, 0, 0, 1].into());
//! let (env, address) = (client.clone(), proxy.address());
//! let answer = sim.block_on(&client, Duration::from_secs(9), async move {
//!     let mut stream = env.connect(address, &TcpOptions::default()).await.ok()?;
//!     stream.write_all(&[5, 1, 0]).await.ok()?; // version 5, one method: none
//!     stream.read_exact(&mut [0; 2]).await.ok()?;
//!     stream.write_all(&[5, 1, 0, 1, 10, 0, 0, 2, 0, 80]).await.ok()?; // connect to 10.0.0.2:80
//!     let mut reply = [0; 10];
//!     stream.read_exact(&mut reply).await.ok()?;
//!     Some(reply[1])
//! });
//! assert_eq!(answer, Some(Some(2)));
//! assert_eq!(proxy.report().refused, 1);
//! ```

mod relay;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_provider::{
    AcceptError, AsyncReadExt, AsyncWriteExt, ConnectError, NetworkProvider, TaskProvider,
    TcpListener, TcpOptions, TcpStream, TimeProvider, Timer,
};

use crate::env::SimEnv;
use crate::executor::SimTask;
use crate::tcp::SimTcp;
use wire::Target;

/// The port that proxies listen on by custom.
pub const SOCKS_PORT: u16 = 1_080;
/// Connections of one proxy at the same time, unless its configuration says less; further ones are
/// closed and counted.
pub const CONNECTIONS_MAX: usize = 1_024;
/// How long a client may take to say what it wants.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proxy waits that could not accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Peers of one association whose answers are relayed; what goes to further ones is dropped and
/// counted.
pub const PEERS_PER_ASSOCIATION_MAX: usize = 256;

/// What a proxy is like.
#[derive(Clone, PartialEq, Eq)]
pub struct SocksConfig {
    /// Where it listens.
    pub port: u16,
    /// User and password that it wants; none where anybody may use it.
    pub credentials: Option<(String, String)>,
    /// Whether it relays datagrams.
    pub relays_datagrams: bool,
    /// Connections at the same time, up to [`CONNECTIONS_MAX`].
    pub connections_max: usize,
}

impl Default for SocksConfig {
    fn default() -> Self {
        Self {
            port: SOCKS_PORT,
            credentials: None,
            relays_datagrams: true,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

impl std::fmt::Debug for SocksConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whether there is a password, and not which.
        let wants_password = self.credentials.is_some();
        f.debug_struct("SocksConfig")
            .field("port", &self.port)
            .field("wants_password", &wants_password)
            .field("relays_datagrams", &self.relays_datagrams)
            .field("connections_max", &self.connections_max)
            .finish()
    }
}

/// What a proxy answers to a request (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SocksReply {
    /// It was done.
    Succeeded = 0,
    /// The proxy failed.
    GeneralFailure = 1,
    /// Its rules do not allow it.
    NotAllowed = 2,
    /// There is no way to the network.
    NetworkUnreachable = 3,
    /// There is no way to the host, or no such name.
    HostUnreachable = 4,
    /// The host refused.
    ConnectionRefused = 5,
    /// It took too long.
    TtlExpired = 6,
    /// The proxy does not know the command, or not that.
    CommandNotSupported = 7,
    /// It does not know the kind of address.
    AddressNotSupported = 8,
}

impl SocksReply {
    /// Those that refuse.
    const REFUSALS: [Self; 8] = [
        Self::GeneralFailure,
        Self::NotAllowed,
        Self::NetworkUnreachable,
        Self::HostUnreachable,
        Self::ConnectionRefused,
        Self::TtlExpired,
        Self::CommandNotSupported,
        Self::AddressNotSupported,
    ];
}

/// What a proxy did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocksReport {
    /// Connections that came.
    pub connections: u64,
    /// Of those, closed because there were too many.
    pub too_many: u64,
    /// Clients that said something else than the protocol, or nothing in time.
    pub garbled: u64,
    /// Clients with a wrong user or password, or with none where one is wanted.
    pub unauthorized: u64,
    /// Requests that were refused, on command or because of what they wanted.
    pub refused: u64,
    /// Connections that were made for clients.
    pub connected: u64,
    /// Associations that were made for clients.
    pub associated: u64,
    /// Associations that were dropped on command.
    pub dropped: u64,
    /// Datagrams from clients that were sent on.
    pub datagrams_out: u64,
    /// Datagrams to clients that were sent on.
    pub datagrams_in: u64,
    /// Datagrams that were dropped: fragments, of strangers, without a header, to too many peers.
    pub datagrams_dropped: u64,
}

/// What a proxy and who holds it share.
struct Shared {
    env: SimEnv,
    config: SocksConfig,
    refusal: Cell<Option<SocksReply>>,
    /// Requests so far, which planned refusals are numbered by.
    requests: Cell<u64>,
    /// How often associations were dropped; one that began before the last time ends.
    drops: Cell<u64>,
    /// Who waits for its associations, by their numbers.
    wakers: RefCell<BTreeMap<u64, Waker>>,
    report: Cell<SocksReport>,
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut SocksReport)) {
        let mut report = self.report.get();
        change(&mut report);
        self.report.set(report);
    }

    /// The code that this request is refused with, on command or by a planned fault.
    fn refusal_of_request(&self) -> Option<SocksReply> {
        let number = self.requests.replace(self.requests.get() + 1);
        let local = SocketAddr::new(self.env.ip(), self.config.port);
        let strike = self.env.strike_service(FaultKind::ProxyRefuse, local, number);
        let drawn = strike.map(|strike| {
            let which = strike.below(0, SocksReply::REFUSALS.len() as u64);
            let code = usize::try_from(which).ok().and_then(|at| SocksReply::REFUSALS.get(at));
            code.copied().unwrap_or(SocksReply::GeneralFailure)
        });
        self.refusal.get().or(drawn)
    }
}

/// A proxy at work; it ends when this is dropped.
pub struct SocksProxy {
    address: SocketAddr,
    shared: Rc<Shared>,
    _task: SimTask,
}

impl SocksProxy {
    /// Starts a proxy on the host of `env`. It listens at [`SocksProxy::address`] as soon as the
    /// simulation runs; where another listener has the port it does nothing.
    pub fn start(env: &SimEnv, config: SocksConfig) -> Self {
        let address = SocketAddr::new(env.ip(), config.port);
        let shared = Rc::new(Shared {
            env: env.clone(),
            config,
            refusal: Cell::new(None),
            requests: Cell::new(0),
            drops: Cell::new(0),
            wakers: RefCell::new(BTreeMap::new()),
            report: Cell::new(SocksReport::default()),
        });
        let task = env.spawn("socks", serve(Rc::clone(&shared), address));
        Self { address, shared, _task: task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses every request from now on with this code, or none on command any more. Clients are
    /// still greeted.
    pub fn refuse(&self, with: Option<SocksReply>) {
        self.shared.refusal.set(with);
    }

    /// Drops all associations: their datagrams are not relayed any more, and the connections that
    /// keep them are closed.
    pub fn drop_associations(&self) {
        self.shared.drops.set(self.shared.drops.get() + 1);
        self.shared.wakers.borrow().values().for_each(Waker::wake_by_ref);
    }

    /// What it did so far.
    pub fn report(&self) -> SocksReport {
        self.shared.report.get()
    }
}

impl std::fmt::Debug for SocksProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocksProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Accepts connections until the host is stopped.
async fn serve(shared: Rc<Shared>, address: SocketAddr) {
    let env = shared.env.clone();
    let Ok(mut listener) = env.listen(address, &TcpOptions::default()).await else { return };
    let mut tasks: Vec<SimTask> = Vec::new();
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(AcceptError::HostStopped) => return,
            Err(_) => {
                // Descriptors come back; the connection waits.
                let mut timer = env.timer();
                timer.set(Some(env.now().after(ACCEPT_RETRY)));
                poll_fn(|cx| timer.poll_expired(cx)).await;
                continue;
            }
        };
        shared.count(|report| report.connections += 1);
        tasks.retain(|task| !task.is_finished());
        if tasks.len() >= shared.config.connections_max.min(CONNECTIONS_MAX) {
            shared.count(|report| report.too_many += 1);
            continue;
        }
        tasks.push(env.spawn("socks client", attend(Rc::clone(&shared), stream)));
    }
}

/// What ends a client's connection before it was given anything.
enum Refusal {
    Garbled,
    Unauthorized,
    /// The client has gone.
    Gone,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Garbled,
            _ => Self::Gone,
        }
    }
}

/// Greets a client, and does what it wants.
async fn attend(shared: Rc<Shared>, mut stream: SimTcp) {
    let env = shared.env.clone();
    let greeting = greet(&shared, &mut stream);
    let request = match within(&env, HANDSHAKE_TIMEOUT, greeting).await {
        Some(Ok(request)) => request,
        Some(Err(Refusal::Unauthorized)) => {
            shared.count(|report| report.unauthorized += 1);
            return;
        }
        Some(Err(Refusal::Gone)) => return,
        Some(Err(Refusal::Garbled)) | None => {
            shared.count(|report| report.garbled += 1);
            return;
        }
    };
    let outcome = match (shared.refusal_of_request(), request) {
        (Some(code), _) => Err(code),
        (None, Request { command: wire::CONNECT, target: Some(target) }) => {
            connect(&shared, &mut stream, target).await
        }
        (None, Request { command: wire::ASSOCIATE, target: Some(target) })
            if shared.config.relays_datagrams =>
        {
            relay::associate(&shared, &mut stream, &target).await
        }
        (None, Request { target: None, .. }) => Err(SocksReply::AddressNotSupported),
        (None, _) => Err(SocksReply::CommandNotSupported),
    };
    if let Err(code) = outcome {
        shared.count(|report| report.refused += 1);
        let nowhere = SocketAddr::from(([0; 4], 0));
        // The client may have gone.
        let _ = stream.write_all(&wire::reply(code, nowhere)).await;
        let _ = stream.shutdown().await;
    }
}

/// What a client wants; no target where the kind of its address is not known.
struct Request {
    command: u8,
    target: Option<Target>,
}

async fn greet(shared: &Shared, stream: &mut SimTcp) -> Result<Request, Refusal> {
    let [version, count] = read(stream).await?;
    if version != wire::VERSION {
        return Err(Refusal::Garbled);
    }
    let mut methods = vec![0; usize::from(count)];
    stream.read_exact(&mut methods).await?;
    let wanted = match shared.config.credentials {
        Some(_) => wire::BY_PASSWORD,
        None => wire::NO_AUTHENTICATION,
    };
    if !methods.contains(&wanted) {
        stream.write_all(&[wire::VERSION, wire::NO_METHOD]).await?;
        stream.shutdown().await?;
        return Err(Refusal::Unauthorized);
    }
    stream.write_all(&[wire::VERSION, wanted]).await?;
    if let Some((user, password)) = &shared.config.credentials {
        let [version] = read(stream).await?;
        if version != wire::PASSWORD_VERSION {
            return Err(Refusal::Garbled);
        }
        let is_user = read_counted(stream).await? == user.as_bytes();
        let is_password = read_counted(stream).await? == password.as_bytes();
        let is_right = is_user && is_password;
        stream.write_all(&[wire::PASSWORD_VERSION, u8::from(!is_right)]).await?;
        if !is_right {
            stream.shutdown().await?;
            return Err(Refusal::Unauthorized);
        }
    }
    let [version, command, _, kind] = read(stream).await?;
    if version != wire::VERSION {
        return Err(Refusal::Garbled);
    }
    let target = match kind {
        wire::IPV4 => {
            let ip: [u8; 4] = read(stream).await?;
            Target::Address(SocketAddr::new(ip.into(), u16::from_be_bytes(read(stream).await?)))
        }
        wire::IPV6 => {
            let ip: [u8; 16] = read(stream).await?;
            Target::Address(SocketAddr::new(ip.into(), u16::from_be_bytes(read(stream).await?)))
        }
        wire::NAME => {
            let name = read_counted(stream).await?;
            let name = String::from_utf8(name).map_err(|_| Refusal::Garbled)?;
            Target::Name(name, u16::from_be_bytes(read(stream).await?))
        }
        _ => return Ok(Request { command, target: None }),
    };
    Ok(Request { command, target: Some(target) })
}

async fn read<const N: usize>(stream: &mut SimTcp) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Bytes behind a byte that says how many.
async fn read_counted(stream: &mut SimTcp) -> io::Result<Vec<u8>> {
    let [len] = read(stream).await?;
    let mut bytes = vec![0; usize::from(len)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The addresses that a target stands for.
async fn resolve(shared: &Shared, target: Target) -> Result<Vec<SocketAddr>, SocksReply> {
    match target {
        Target::Address(address) => Ok(vec![address]),
        Target::Name(name, port) => {
            let resolved = shared.env.resolve(&name, port).await;
            Ok(resolved.map_err(|_| SocksReply::HostUnreachable)?.addresses)
        }
    }
}

async fn connect(shared: &Shared, stream: &mut SimTcp, target: Target) -> Result<(), SocksReply> {
    let mut outcome = Err(SocksReply::HostUnreachable);
    for address in resolve(shared, target).await? {
        match shared.env.connect(address, &TcpOptions::default()).await {
            Ok(far) => {
                outcome = Ok(far);
                break;
            }
            Err(error) => outcome = Err(code_of(&error)),
        }
    }
    let mut far = outcome?;
    shared.count(|report| report.connected += 1);
    let told = stream.write_all(&wire::reply(SocksReply::Succeeded, far.local_addr())).await;
    if told.is_ok() {
        relay::both_ways(stream, &mut far).await;
    }
    Ok(())
}

fn code_of(error: &ConnectError) -> SocksReply {
    match error {
        ConnectError::Refused(_) | ConnectError::Reset(_) => SocksReply::ConnectionRefused,
        ConnectError::TimedOut(_) => SocksReply::TtlExpired,
        ConnectError::HostUnreachable(_) => SocksReply::HostUnreachable,
        ConnectError::NetworkUnreachable(_) => SocksReply::NetworkUnreachable,
        _ => SocksReply::GeneralFailure,
    }
}

/// What `future` ends with, unless that takes longer.
async fn within<F: Future>(env: &SimEnv, limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = env.timer();
    timer.set(Some(env.now().after(limit)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll_expired(cx).map(|()| None),
    })
    .await
}
