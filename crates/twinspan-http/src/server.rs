//! The server: requests of many connections handed to one service.

mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use twinspan_provider::{AcceptError, Env, TcpListener, TcpStream, Timer};

use crate::message::{ServerRequest, ServerResponse};
use crate::tls::{self, ServerTls};
use crate::transport::{Prefixed, Transport};
use crate::until::until;
use watch::{Watch, Watched};

/// How long a listener is left alone after the system had no room for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that a connection reads ahead at most, where heads are not allowed to be larger.
const BUFFER_BYTES: usize = 64 << 10;
/// What a head may be allowed.
const HEAD_BYTES: std::ops::RangeInclusive<usize> = 256..=1 << 20;

/// What answers requests.
pub trait Service: 'static {
    /// Answers one request. It may take its time: the connection waits, others go on. Where the
    /// client goes away meanwhile, the future is dropped.
    fn call(self: Rc<Self>, request: ServerRequest) -> impl Future<Output = ServerResponse>;
}

/// What a server is like.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Bytes that the body of a request may have, 1 MiB at first; more is answered with 413.
    pub body_bytes_max: usize,
    /// Connections at the same time, at least one, 1024 at first. Further ones wait to be accepted.
    pub connections_max: usize,
    /// How long the head of a request may take from its first byte on, and how long a new
    /// connection may take to send that and to shake hands for TLS; 10 s at first.
    pub head_timeout: Duration,
    /// Bytes that the head of a request may have, 256 B to 1 MiB, 16 KiB at first; more is answered
    /// with 431.
    pub head_bytes_max: usize,
    /// How long the body of a request may take, 60 s at first.
    pub body_timeout: Duration,
    /// How long a client may take to take a response, 5 min at first.
    pub response_timeout: Duration,
    /// How long a connection is kept without a request, 75 s at first.
    pub idle_timeout: Duration,
    /// Who the server is, for TLS; without it there is none.
    pub tls: Option<ServerTls>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            connections_max: 1_024,
            head_timeout: Duration::from_secs(10),
            head_bytes_max: 16 << 10,
            body_timeout: Duration::from_secs(60),
            response_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(75),
            tls: None,
        }
    }
}

/// Why a server does not serve, or not any longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A number in the configuration is out of its range.
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
    /// The listener failed.
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

impl ServerConfig {
    fn check(&self) -> Result<(), ServeError> {
        let ranges = [
            ("connections_max", self.connections_max, 1..=usize::MAX),
            ("head_bytes_max", self.head_bytes_max, HEAD_BYTES),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                let (min, max) = (*range.start(), *range.end());
                return Err(ServeError::Range { name, value, min, max });
            }
        }
        Ok(())
    }
}

/// Answers requests that come in at `listener` until it is dropped or the listener fails.
///
/// It speaks HTTP/1.1 with connections that are kept, and 1.0. What is no request is answered with
/// 400, what is too large with 413 or 431; who is too slow is cut off. Dropping it closes all
/// connections.
///
/// # Errors
/// [`ServeError`] for a configuration that cannot be, or a listener that failed.
///
/// # Cancel safety
/// Dropping the future ends the server; requests that were being answered stay without.
pub async fn serve<E: Env, S: Service>(
    env: E,
    mut listener: E::Listener,
    service: Rc<S>,
    config: ServerConfig,
) -> Result<(), ServeError> {
    config.check()?;
    let config = Rc::new(config);
    let places: Rc<Places<E>> = Rc::default();
    let mut pause = env.timer();
    loop {
        let number = poll_fn(|cx| places.poll_free(cx, config.connections_max)).await;
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(AcceptError::Exhausted(_)) => {
                pause.set(Some(env.now().after(EXHAUSTED_PAUSE)));
                poll_fn(|cx| pause.poll_expired(cx)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let leaving = Leaving { places: Rc::downgrade(&places), number };
        let attended = attend(env.clone(), stream, Rc::clone(&service), Rc::clone(&config));
        let task = env.spawn("http connection", async move {
            let _leaving = leaving;
            attended.await;
        });
        places.inner.borrow_mut().tasks.insert(number, task);
    }
}

/// The connections of a server.
struct Places<E: Env> {
    inner: RefCell<PlacesInner<E>>,
}

struct PlacesInner<E: Env> {
    tasks: BTreeMap<u64, E::Task>,
    /// Those of them that have ended.
    ended: Vec<u64>,
    next: u64,
    waker: Option<Waker>,
}

impl<E: Env> Default for Places<E> {
    fn default() -> Self {
        let inner = PlacesInner { tasks: BTreeMap::new(), ended: Vec::new(), next: 0, waker: None };
        Self { inner: RefCell::new(inner) }
    }
}

impl<E: Env> Places<E> {
    /// The number of the next connection, once there is a place for it.
    fn poll_free(&self, cx: &mut Context<'_>, limit: usize) -> Poll<u64> {
        // Tasks are dropped when the borrow has ended.
        let mut gone = Vec::new();
        let mut inner = self.inner.borrow_mut();
        while let Some(number) = inner.ended.pop() {
            gone.extend(inner.tasks.remove(&number));
        }
        let outcome = if inner.tasks.len() < limit {
            inner.next += 1;
            Poll::Ready(inner.next)
        } else {
            inner.waker = Some(cx.waker().clone());
            Poll::Pending
        };
        drop(inner);
        drop(gone);
        outcome
    }
}

/// Tells the server that a connection has ended, however it did.
struct Leaving<E: Env> {
    /// The server has its connections, and not the other way round: they end with it.
    places: Weak<Places<E>>,
    number: u64,
}

impl<E: Env> Drop for Leaving<E> {
    fn drop(&mut self) {
        let Some(places) = self.places.upgrade() else { return };
        let waker = {
            let mut inner = places.inner.borrow_mut();
            inner.ended.push(self.number);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Serves one connection until it ends or is too slow.
async fn attend<E: Env, S: Service>(
    env: E,
    stream: E::Tcp,
    service: Rc<S>,
    config: Rc<ServerConfig>,
) {
    let peer = stream.peer_addr();
    let watch = Rc::new(Watch::new(env.clone(), &config));
    let transport = match &config.tls {
        None => Transport::Plain(stream.into()),
        Some(identity) => {
            let name = peer.to_string();
            let stream = Prefixed::from(stream);
            let accepted = tls::accept(&env, identity.config(), &name, stream);
            match until(&env, env.now().after(config.head_timeout), accepted).await {
                Some(Ok(stream)) => Transport::Secure(Box::new(stream)),
                // It is no client of ours, or a slow one.
                Some(Err(_)) | None => return,
            }
        }
    };
    let answer = {
        let (watch, config) = (Rc::clone(&watch), Rc::clone(&config));
        service_fn(move |request| {
            answer(request, peer, Rc::clone(&service), Rc::clone(&watch), config.body_bytes_max)
        })
    };
    let io = TokioIo::new(Watched::new(transport, Rc::clone(&watch)));
    let mut builder = http1::Builder::new();
    builder
        // Both ask the system's clock; the watch and the answers ask the node's.
        .header_read_timeout(None)
        .auto_date_header(false)
        .max_header_size(config.head_bytes_max)
        .max_buf_size(config.head_bytes_max.max(BUFFER_BYTES));
    let mut connection = pin!(builder.serve_connection(io, answer));
    let mut timer = env.timer();
    poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        timer.set(watch.deadline());
        timer.poll_expired(cx)
    })
    .await;
}

/// Answers one request.
async fn answer<E: Env, S: Service>(
    request: http::Request<Incoming>,
    peer: SocketAddr,
    service: Rc<S>,
    watch: Rc<Watch<E>>,
    body_bytes_max: usize,
) -> Result<http::Response<Outgoing<E>>, hyper::Error> {
    watch.body_begins();
    let (head, body) = request.into_parts();
    let response = match collect(body, body_bytes_max).await? {
        Some(body) => {
            watch.service_begins();
            let path = match head.uri.path_and_query() {
                Some(path) => path.as_str().to_owned(),
                None => head.uri.path().to_owned(),
            };
            let (method, headers) = (head.method, head.headers);
            service.call(ServerRequest { method, path, headers, body, peer }).await
        }
        None => {
            let close = HeaderValue::from_static("close");
            ServerResponse::status(StatusCode::PAYLOAD_TOO_LARGE)
                .with_header(header::CONNECTION, close)
        }
    };
    watch.response_begins();
    let ServerResponse { status, mut headers, body } = response;
    // These follow from the body.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    if let Some(date) = watch.date() {
        headers.entry(header::DATE).or_insert(date);
    }
    let body = Outgoing { bytes: Full::new(body), watch };
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Reads a body; `None` when it has more than `bytes_max` bytes.
async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Option<Bytes>, hyper::Error> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Ok(None);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        // Trailers are not handed on.
        let Ok(part) = frame?.into_data() else { continue };
        if part.len() > bytes_max.saturating_sub(whole.len()) {
            return Ok(None);
        }
        whole.extend_from_slice(&part);
    }
    Ok(Some(whole.freeze()))
}

/// The body of a response, which tells when all of it was taken.
struct Outgoing<E: Env> {
    bytes: Full<Bytes>,
    watch: Rc<Watch<E>>,
}

impl<E: Env> Body for Outgoing<E> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.bytes).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes.size_hint()
    }
}

impl<E: Env> Drop for Outgoing<E> {
    fn drop(&mut self) {
        self.watch.response_taken();
    }
}

/// A moment as headers name it.
fn http_date(unix_seconds: u64) -> Option<HeaderValue> {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix_seconds))?;
    HeaderValue::try_from(httpdate::fmt_http_date(at)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_headers_name_them() {
        // The example of RFC 9110, section 5.6.7.
        assert_eq!(http_date(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
