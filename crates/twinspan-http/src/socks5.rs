//! SOCKS5 by hand: connections and datagrams through a proxy (RFC 1928, RFC 1929).
//!
//! [`connect`] gives a stream to any host that the proxy reaches. [`Socks5Udp`] is a datagram socket
//! whose datagrams go by way of the proxy; a machine that is driven over it notices nothing but the
//! room that headers take, [`HEADER_BYTES_MAX`] bytes at most.
//!
//! ```
//! use std::net::SocketAddr;
//! use twinspan_http::socks5::{Socks5Config, Socks5Error, Socks5Udp};
//! use twinspan_http::{Credentials, Target};
//! use twinspan_provider::{Env, Machine, UdpOptions, drive};
//!
//! /// Drives a machine whose peers are behind a proxy, until it is done or the proxy is lost.
//! async fn run<E: Env>(env: E, machine: &mut impl Machine) -> Result<(), Socks5Error> {
//!     let mut config = Socks5Config::new(Target::new("proxy.example", 1_080));
//!     config.auth = Some(Credentials::new("user", "password"));
//!     let local = SocketAddr::from(([0; 4], 0));
//!     let options = UdpOptions::default();
//!     let mut socket = Socks5Udp::associate(env.clone(), &config, local, &options).await?;
//!     // It ends with an error when the proxy drops the association; then associate again.
//!     let _ = drive(&env, &mut socket, machine).await;
//!     Ok(())
//! }
//! ```

mod udp;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, BindError, ConnectError, Env, ResolveError, TcpStream,
};

use crate::dial::{Dialed, dial};
use crate::target::{Credentials, Target};
use crate::until::until;
use wire::{Bound, Parsed};

pub use udp::{NAMES_MAX, Socks5Report, Socks5Udp};
pub use wire::{HEADER_BYTES_MAX, Reply};

/// The port that proxies listen on by custom.
pub const SOCKS5_PORT: u16 = 1_080;
/// How long a proxy may take until a connection or an association is made.
pub const SOCKS5_TIMEOUT: Duration = Duration::from_secs(15);

/// A proxy, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socks5Config {
    /// Where the proxy is.
    pub server: Target,
    /// User and password; none offers none.
    pub auth: Option<Credentials>,
    /// How long it may take until all is made, [`SOCKS5_TIMEOUT`] at first.
    pub timeout: Duration,
}

impl Socks5Config {
    /// A proxy that anybody may use.
    pub fn new(server: Target) -> Self {
        Self { server, auth: None, timeout: SOCKS5_TIMEOUT }
    }
}

/// Why a proxy did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Socks5Error {
    /// The proxy's name stands for no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// There is no connection to the proxy.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It took too long.
    #[error("the SOCKS5 proxy {0} was not done in time; allow more time or try another")]
    TimedOut(Target),
    /// The proxy ended the connection.
    #[error("the SOCKS5 proxy ended the connection before it answered; check its log")]
    Closed,
    /// It speaks another protocol.
    #[error("the answer begins with {0}, not with 5; check that it is a SOCKS5 proxy")]
    Version(u8),
    /// It takes none of the ways to say who asks.
    #[error("the SOCKS5 proxy takes no client such as this; check whether it wants a password")]
    NoMethod,
    /// It chose a way that was not offered.
    #[error("the SOCKS5 proxy wants method {0}, which was not offered")]
    Method(u8),
    /// User or password are wrong.
    #[error("the SOCKS5 proxy refuses user and password; check them")]
    Credentials,
    /// User or password cannot be said.
    #[error("user and password have 1 to 255 bytes each in SOCKS5")]
    CredentialsLength,
    /// The name of the target cannot be said.
    #[error("the name of a host has 1 to 255 bytes in SOCKS5")]
    Name,
    /// More names than datagrams can be sent to.
    #[error("datagrams go to at most {NAMES_MAX} names; send to addresses")]
    TooManyNames,
    /// It refuses what it was asked for.
    #[error("the SOCKS5 proxy refuses: {0}")]
    Refused(Reply),
    /// It names an address of an unknown kind.
    #[error("the SOCKS5 proxy answers with an address of kind {0}, which nobody knows")]
    AddressKind(u8),
    /// No socket for the datagrams can be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The socket for the datagrams cannot reach where the proxy takes them.
    #[error("the proxy takes datagrams at {relay}, which a socket at {local} cannot reach")]
    OtherFamily {
        /// Where the proxy takes datagrams.
        relay: SocketAddr,
        /// The socket's address.
        local: SocketAddr,
    },
}

impl Socks5Error {
    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::TimedOut(_)
                | Self::Resolve(ResolveError::TimedOut { .. })
                | Self::Connect(ConnectError::TimedOut(_))
        )
    }
}

impl From<Dialed> for Socks5Error {
    fn from(error: Dialed) -> Self {
        match error {
            Dialed::Resolve(error) => Self::Resolve(error),
            Dialed::Connect(error) => Self::Connect(error),
        }
    }
}

/// Connects to `target` through a proxy; a target by name is resolved there.
///
/// # Errors
/// [`Socks5Error`] names what the proxy said, or why it said nothing.
///
/// # Cancel safety
/// Dropping the future closes the connection to the proxy.
pub async fn connect<E: Env>(
    env: &E,
    config: &Socks5Config,
    target: Target,
) -> Result<E::Tcp, Socks5Error> {
    let made = async {
        let mut stream = greet(env, config).await?;
        ask(&mut stream, wire::CONNECT, &target).await?;
        Ok(stream)
    };
    within(env, config, made).await
}

/// What `made` ends with, in the time that the configuration allows.
async fn within<E: Env, T>(
    env: &E,
    config: &Socks5Config,
    made: impl Future<Output = Result<T, Socks5Error>>,
) -> Result<T, Socks5Error> {
    let deadline = env.now().after(config.timeout);
    match until(env, deadline, made).await {
        Some(outcome) => outcome,
        None => Err(Socks5Error::TimedOut(config.server.clone())),
    }
}

/// Connects to the proxy and says who asks.
async fn greet<E: Env>(env: &E, config: &Socks5Config) -> Result<E::Tcp, Socks5Error> {
    // What cannot be said is told before anybody is asked.
    let login = config.auth.as_ref().map(wire::login).transpose()?;
    let deadline = env.now().after(config.timeout);
    let mut stream = dial(env, &config.server, deadline).await?;
    send(&mut stream, wire::greeting(login.is_some())).await?;
    let method = wire::method(receive(&mut stream).await?)?;
    match (method, login) {
        (wire::NO_AUTHENTICATION, _) => {}
        (wire::BY_PASSWORD, Some(login)) => {
            send(&mut stream, &login).await?;
            wire::login_outcome(receive(&mut stream).await?)?;
        }
        (other, _) => return Err(Socks5Error::Method(other)),
    }
    Ok(stream)
}

/// Asks for something, and reads the answer and not a byte more.
async fn ask<S: TcpStream>(
    stream: &mut S,
    command: u8,
    target: &Target,
) -> Result<Bound, Socks5Error> {
    send(stream, &wire::request(command, target)?).await?;
    let mut came = [0; wire::REPLY_BYTES_MAX];
    let mut len = 0;
    loop {
        let needed = match wire::reply(came.get(..len).unwrap_or_default())? {
            Parsed::Whole(bound) => return Ok(bound),
            // No reply needs more room than there is.
            Parsed::Needs(needed) => needed.min(wire::REPLY_BYTES_MAX),
        };
        let room = came.get_mut(len..needed).unwrap_or_default();
        stream.read_exact(room).await.map_err(|_| Socks5Error::Closed)?;
        len = needed;
    }
}

async fn send<S: TcpStream>(stream: &mut S, bytes: &[u8]) -> Result<(), Socks5Error> {
    stream.write_all(bytes).await.map_err(|_| Socks5Error::Closed)
}

async fn receive<S: TcpStream>(stream: &mut S) -> Result<[u8; 2], Socks5Error> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).await.map_err(|_| Socks5Error::Closed)?;
    Ok(bytes)
}
