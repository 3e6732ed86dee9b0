//! The client: requests over connections that it keeps.

mod pool;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use http_body_util::Full;
use twinspan_core::time::Timestamp;
use twinspan_provider::{Env, OffloadError};
use url::{Host, Position, Url};

use crate::dial::{Dialed, dial};
use crate::error::{HttpError, Phase, ProxyError, UrlError};
use crate::link::{Failure, Link};
use crate::message::{Request, Response};
use crate::proxy::{Names, Proxy, ProxyUrlError, basic, is_refused_for_credentials, tunnel};
use crate::socks5::{self, Socks5Config, Socks5Error};
use crate::target::Target;
use crate::tls::{self, System, TlsError, Trust};
use crate::transport::{Prefixed, Transport};
use crate::until::until;
use pool::{Pool, Pooled, Taken};

/// Connections without a request that are kept for one server, unless a configuration says
/// otherwise.
pub const IDLE_PER_HOST_MAX: usize = 4;
/// Requests that may wait for a connection, unless a configuration says otherwise.
pub const REQUESTS_WAITING_MAX: usize = 1_024;
/// Connections that a client can be allowed at most.
const CONNECTIONS_MAX: usize = 4_096;
/// What a head may be allowed.
const HEAD_BYTES: std::ops::RangeInclusive<usize> = 256..=1 << 20;

/// What a client is like.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The proxy that everything goes through; none at first.
    pub proxy: Option<Proxy>,
    /// Whose certificates are taken; those of this machine at first.
    pub trust: Trust,
    /// Connections without a request that are kept for one server, [`IDLE_PER_HOST_MAX`] at first.
    pub idle_per_host_max: usize,
    /// Connections at the same time, 1 to 4096, 64 at first. Requests beyond wait.
    pub connections_max: usize,
    /// Requests that wait for a connection, [`REQUESTS_WAITING_MAX`] at first; further ones fail.
    pub requests_waiting_max: usize,
    /// How long a connection is kept without a request, 60 s at first.
    pub idle_timeout: Duration,
    /// How long it may take to make a connection, with name, proxy and TLS; 15 s at first.
    pub connect_timeout: Duration,
    /// How long the head of a response may take from when its request begins to leave; none at
    /// first: only the time of the whole request counts.
    pub head_timeout: Option<Duration>,
    /// Bytes that the head of a response may have, 256 B to 1 MiB, 64 KiB at first.
    pub head_bytes_max: usize,
    /// What it says it is, where a request does not say.
    pub user_agent: String,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            proxy: None,
            trust: Trust::system(),
            idle_per_host_max: IDLE_PER_HOST_MAX,
            connections_max: 64,
            requests_waiting_max: REQUESTS_WAITING_MAX,
            idle_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(15),
            head_timeout: None,
            head_bytes_max: 64 << 10,
            user_agent: concat!("Twinspan/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Why a client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The proxy is none.
    #[error(transparent)]
    Proxy(#[from] ProxyUrlError),
    /// A number is out of its range.
    #[error("{name} is {value}; it goes from {min} to {max}")]
    Range {
        /// Which.
        name: &'static str,
        /// What it is.
        value: usize,
        /// The smallest that it may be.
        min: usize,
        /// The largest that it may be.
        max: usize,
    },
    /// What it says it is can stand in no header.
    #[error("the user agent {0:?} can stand in no header; use plain letters")]
    UserAgent(String),
}

impl ClientConfig {
    fn check(&self) -> Result<HeaderValue, ClientError> {
        if let Some(proxy) = &self.proxy {
            proxy.check()?;
        }
        let ranges = [
            ("connections_max", self.connections_max, 1..=CONNECTIONS_MAX),
            ("head_bytes_max", self.head_bytes_max, HEAD_BYTES),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                let (min, max) = (*range.start(), *range.end());
                return Err(ClientError::Range { name, value, min, max });
            }
        }
        HeaderValue::from_str(&self.user_agent)
            .map_err(|_| ClientError::UserAgent(self.user_agent.clone()))
    }
}

/// An HTTP/1.1 client of one node.
///
/// Clones share connections. It stays on its thread, as all of the seam does; what it keeps is closed
/// when the last clone is dropped. Redirects are not followed, nothing is decompressed, and any
/// status is a response.
///
/// A request whose connection ends without a byte of an answer is sent once more, over a fresh
/// connection, when the first had been used before and to do it twice is to do it once (GET, HEAD,
/// PUT, DELETE, OPTIONS, TRACE), or nothing of it had left.
pub struct HttpClient<E: Env> {
    inner: Rc<Inner<E>>,
}

struct Inner<E: Env> {
    env: E,
    config: ClientConfig,
    user_agent: HeaderValue,
    pool: Rc<Pool<E>>,
    /// What TLS needs, once somebody needed it.
    tls: RefCell<Option<Arc<rustls::ClientConfig>>>,
    /// Looks after connections without a request.
    _keeper: E::Task,
}

impl<E: Env> Clone for HttpClient<E> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<E: Env> fmt::Debug for HttpClient<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl<E: Env> HttpClient<E> {
    /// A client without a connection. Where certificates are not checked it says so, once: as a
    /// warning to the program's logger ([`log`]), and on standard error where no logger takes it.
    ///
    /// # Errors
    /// [`ClientError`] names what in the configuration cannot be.
    pub fn new(env: E, config: ClientConfig) -> Result<Self, ClientError> {
        let user_agent = config.check()?;
        if !config.trust.is_checked() {
            warn_unchecked(&mut io::stderr());
        }
        let pool = Rc::new(Pool::new(pool::Limits {
            idle_per_host_max: config.idle_per_host_max,
            connections_max: config.connections_max,
            requests_waiting_max: config.requests_waiting_max,
        }));
        let keeper = env.spawn("http keeper", pool::keep(env.clone(), Rc::clone(&pool)));
        let tls = RefCell::new(None);
        let inner = Inner { env, config, user_agent, pool, tls, _keeper: keeper };
        Ok(Self { inner: Rc::new(inner) })
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// [`HttpError`] says why there is no response, and whether the server may have seen the
    /// request.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection that the request is on; the server may have seen
    /// it.
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let inner = &*self.inner;
        let phase = Cell::new(Phase::Place);
        let deadline = inner.env.now().after(request.timeout);
        match until(&inner.env, deadline, inner.exchange(&request, &phase)).await {
            Some(outcome) => outcome,
            None => Err(HttpError::TimedOut { phase: phase.get() }),
        }
    }

    /// Connections that are open, with a request or without.
    pub fn connections(&self) -> usize {
        self.inner.pool.open()
    }
}

/// What is said where certificates are not checked.
const UNCHECKED: &str = "certificates are NOT checked; anyone on the way may be the server";

/// Says that certificates are not checked. A program without a logger, or with one that takes no
/// warnings, is told all the same.
fn warn_unchecked(stderr: &mut dyn io::Write) {
    if log::log_enabled!(log::Level::Warn) {
        log::warn!("{UNCHECKED}");
    } else {
        // Where nobody can be told, nobody is.
        let _ = writeln!(stderr, "warning: {UNCHECKED}");
    }
}

/// Where a request goes and what it looks like on the way.
struct Route {
    /// What a connection for it can be used for.
    key: pool::Key,
    /// The server.
    target: Target,
    /// Whether it goes over TLS.
    is_secure: bool,
    /// What stands in the request line.
    uri: Uri,
    /// The server as the header names it.
    host: HeaderValue,
    /// Whether the proxy is handed the request itself.
    by_proxy: bool,
}

impl Route {
    fn of(request: &Request, proxy: Option<&Proxy>) -> Result<Self, UrlError> {
        let url = &request.url;
        let is_secure = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(UrlError::Scheme(other.to_owned())),
        };
        if request.method == Method::CONNECT {
            return Err(UrlError::Tunnel);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials);
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            _ => return Err(UrlError::NoHost),
        };
        let port = url.port_or_known_default().ok_or(UrlError::NoHost)?;
        let target = Target::new(host, port);
        let by_proxy = !is_secure && matches!(proxy, Some(Proxy::Http { .. }));
        Ok(Self {
            key: if by_proxy {
                pool::Key::Proxy
            } else {
                pool::Key::Server { is_secure, target: target.clone() }
            },
            uri: uri(url, by_proxy)?,
            host: host_header(url)?,
            target,
            is_secure,
            by_proxy,
        })
    }
}

/// The server's name, with its port where that is not the usual one.
fn host_header(url: &Url) -> Result<HeaderValue, UrlError> {
    let text = &url[Position::BeforeHost..Position::AfterPort];
    HeaderValue::from_str(text).map_err(|error| UrlError::Unusable(error.to_string()))
}

/// What stands in the request line: path and query, for a proxy all.
fn uri(url: &Url, whole: bool) -> Result<Uri, UrlError> {
    let from = if whole { Position::BeforeScheme } else { Position::BeforePath };
    let text = &url[from..Position::AfterQuery];
    text.parse().map_err(|error: http::uri::InvalidUri| UrlError::Unusable(error.to_string()))
}

impl<E: Env> Inner<E> {
    /// One request and its response, with a second attempt where that is safe.
    async fn exchange(
        &self,
        request: &Request,
        phase: &Cell<Phase>,
    ) -> Result<Response, HttpError> {
        let route = Route::of(request, self.config.proxy.as_ref())?;
        let mut is_second = false;
        loop {
            phase.set(Phase::Place);
            let taken = Pool::take(&self.pool, &route.key, !is_second).await?;
            let (mut pooled, is_used) = match taken {
                Taken::Idle(mut pooled) => {
                    if !pooled.link.is_usable().await {
                        continue;
                    }
                    (pooled, true)
                }
                Taken::Place(place) => {
                    phase.set(Phase::Connect);
                    let deadline = self.env.now().after(self.config.connect_timeout);
                    let connected = until(&self.env, deadline, self.connect(&route, deadline));
                    let link =
                        connected.await.ok_or(HttpError::TimedOut { phase: Phase::Connect })??;
                    (Pooled { link, _place: place }, false)
                }
            };
            phase.set(Phase::Head);
            match self.over(&mut pooled.link, &route, request, phase).await {
                Ok(response) => {
                    if pooled.link.is_usable().await {
                        let kept = kept_for(&response.headers, self.config.idle_timeout);
                        self.pool.put(route.key, pooled, self.env.now().after(kept));
                    }
                    if is_refused_for_credentials(self.config.proxy.as_ref(), response.status)
                        && route.by_proxy
                    {
                        return Err(ProxyError::Credentials.into());
                    }
                    return Ok(response);
                }
                Err(failure) if is_used && !is_second && may_repeat(&failure, &request.method) => {
                    is_second = true;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// The exchange over a connection.
    async fn over(
        &self,
        link: &mut Link<Transport<E>>,
        route: &Route,
        request: &Request,
        phase: &Cell<Phase>,
    ) -> Result<Response, Failure> {
        let asked = link.ask(self.written(route, request));
        let answer = match self.config.head_timeout {
            None => asked.await?,
            Some(timeout) => {
                let deadline = self.env.now().after(timeout);
                match until(&self.env, deadline, asked).await {
                    Some(outcome) => outcome?,
                    None => {
                        let error = HttpError::TimedOut { phase: Phase::Head };
                        return Err(Failure { error, was_sent: true, was_answered: true });
                    }
                }
            }
        };
        phase.set(Phase::Body);
        let read = link.read(answer, request.response_bytes_max).await;
        read.map_err(|error| Failure { error, was_sent: true, was_answered: true })
    }

    /// The request as it is sent.
    fn written(&self, route: &Route, request: &Request) -> http::Request<Full<Bytes>> {
        let mut written = http::Request::new(Full::new(request.body.clone()));
        *written.method_mut() = request.method.clone();
        *written.uri_mut() = route.uri.clone();
        let mut headers = request.headers.clone();
        // These follow from the body.
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        headers.entry(header::HOST).or_insert_with(|| route.host.clone());
        headers.entry(header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        if route.by_proxy
            && let Some(Proxy::Http { auth: Some(auth), .. }) = &self.config.proxy
            && let Some(value) = basic(auth)
        {
            headers.insert(header::PROXY_AUTHORIZATION, value);
        }
        *written.headers_mut() = headers;
        written
    }

    /// Makes a connection.
    async fn connect(
        &self,
        route: &Route,
        deadline: Timestamp,
    ) -> Result<Link<Transport<E>>, HttpError> {
        let env = &self.env;
        let stream = match &self.config.proxy {
            None => dial(env, &route.target, deadline).await.map(Prefixed::from)?,
            Some(Proxy::Http { server, auth }) => {
                let stream = dial(env, server, deadline).await.map_err(ProxyError::from)?;
                match route.is_secure {
                    true => tunnel(stream, &route.target, auth.as_ref()).await?,
                    false => stream.into(),
                }
            }
            Some(Proxy::Socks5 { config, names }) => {
                self.by_socks5(config, *names, &route.target).await?.into()
            }
        };
        let transport = if route.is_secure {
            let config = self.tls_config().await?;
            let stream = tls::connect(env, config, &route.target.host, stream).await?;
            Transport::Secure(Box::new(stream))
        } else {
            Transport::Plain(stream)
        };
        Link::open(transport, self.config.head_bytes_max).await
    }

    async fn by_socks5(
        &self,
        config: &Socks5Config,
        names: Names,
        target: &Target,
    ) -> Result<E::Tcp, HttpError> {
        // The time of the whole connection counts here too.
        let config = Socks5Config {
            timeout: config.timeout.min(self.config.connect_timeout),
            ..config.clone()
        };
        if names == Names::AtProxy || target.address().is_some() {
            let stream = socks5::connect(&self.env, &config, target.clone()).await;
            return stream.map_err(|error| ProxyError::from(error).into());
        }
        let mut refused = None;
        for address in self.env.resolve(&target.host, target.port).await?.addresses {
            match socks5::connect(&self.env, &config, address.into()).await {
                Ok(stream) => return Ok(stream),
                Err(error @ Socks5Error::Refused(_)) => refused = Some(error),
                Err(error) => return Err(ProxyError::from(error).into()),
            }
        }
        Err(ProxyError::from(refused.unwrap_or(Socks5Error::Closed)).into())
    }

    /// What TLS needs; the certificates of this machine are read once, when first needed.
    async fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, HttpError> {
        if let Some(config) = &*self.tls.borrow() {
            return Ok(Arc::clone(config));
        }
        let system = if self.config.trust.wants_system() {
            let read = self.env.offload("certificates", System::read).await;
            read.map_err(|error: OffloadError| TlsError::NoRoots { reason: error.to_string() })?
        } else {
            System::unused()
        };
        let config = self.config.trust.config(system)?;
        *self.tls.borrow_mut() = Some(Arc::clone(&config));
        Ok(config)
    }
}

impl From<Dialed> for HttpError {
    fn from(error: Dialed) -> Self {
        match error {
            Dialed::Resolve(error) => Self::Resolve(error),
            Dialed::Connect(error) => Self::Connect(error),
        }
    }
}

impl From<Dialed> for ProxyError {
    fn from(error: Dialed) -> Self {
        match error {
            Dialed::Resolve(error) => Self::Resolve(error),
            Dialed::Connect(error) => Self::Connect(error),
        }
    }
}

/// How long a connection is kept: `limit`, or less where the server says that it will close it. A
/// second is left for what is on the way then.
fn kept_for(headers: &HeaderMap, limit: Duration) -> Duration {
    let text = headers.get("keep-alive").and_then(|value| value.to_str().ok());
    let mut parts = text.unwrap_or_default().split(',').map(str::trim);
    let seconds = parts.find_map(|part| part.strip_prefix("timeout=")?.parse::<u32>().ok());
    match seconds {
        Some(seconds) => limit.min(Duration::from_secs(seconds.saturating_sub(1).into())),
        None => limit,
    }
}

/// Whether a request that failed over a used connection may be sent once more.
fn may_repeat(failure: &Failure, method: &Method) -> bool {
    let is_idempotent = method.is_idempotent();
    matches!(failure.error, HttpError::Closed { .. })
        && !failure.was_answered
        && (is_idempotent || !failure.was_sent)
}

#[cfg(test)]
mod tests;
