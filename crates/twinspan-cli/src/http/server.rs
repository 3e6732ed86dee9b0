//! The HTTP server: its socket, its thread and how it ends.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use twinspan_core::link::Conditions;

use super::board::Board;
use super::metrics::{self, Figures};
use super::patience::Patience;
use super::routes;

/// Connections served at once; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 256;

/// How long a connection may take to send the head of its next request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a reader may let a write stand still before it loses its place.
const WRITE_STALL_MAX: Duration = Duration::from_secs(20);

/// How long open replies may run on after the stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Kernel bytes kept for a reader. Small, so that a slow one skips frames instead of seeing old
/// ones: what the kernel has taken cannot be taken back.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// The same limit for the buffer between hyper and the kernel.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// Why the web side could not start; the text is one line that names the address.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Another program listens on the address.
    #[error("http address {addr} is taken by another program")]
    Taken {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The system does not let this user listen there.
    #[error("no permission to listen on http address {addr}, as ports below 1024 need")]
    NotPermitted {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The address belongs to no interface of this machine.
    #[error("http address {addr} is not an address of this machine, as 127.0.0.1 always is")]
    NotLocal {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// Listening failed otherwise.
    #[error("cannot listen on http address {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The thread of the web side could not be started.
    #[error("cannot start the web side's thread: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

impl HttpError {
    fn listen(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { addr },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { addr },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { addr },
            _ => Self::Listen { addr, source },
        }
    }
}

/// The running web side: a listener and its thread, ended by [`stop`](Self::stop) or by drop.
#[derive(Debug)]
pub struct HttpServer {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Listens on `addr` and serves `board` from a thread of its own.
    ///
    /// `on_conditions` is called on that thread with conditions that passed their check, each time
    /// a page sets some; it should only hand them on, because the pages wait for it.
    ///
    /// # Errors
    ///
    /// [`HttpError`] says why the address or the thread could not be had.
    pub fn start(
        addr: SocketAddr,
        board: Arc<Board>,
        on_conditions: Box<dyn Fn(Conditions) + Send + Sync>,
    ) -> Result<Self, HttpError> {
        Self::listen(addr, |bound, stopped| routes::router(bound, board, on_conditions, stopped))
    }

    /// Listens on `addr` and serves a server's figures at `/metrics`, made by `figures` on a thread
    /// of its own each time somebody asks. `hosts` are names under which they may be asked for,
    /// besides addresses and `localhost`.
    ///
    /// # Errors
    ///
    /// [`HttpError`] says why the address or the thread could not be had.
    pub fn start_metrics(
        addr: SocketAddr,
        hosts: Vec<String>,
        figures: Figures,
    ) -> Result<Self, HttpError> {
        Self::listen(addr, |bound, _| metrics::router(bound, hosts, figures))
    }

    /// Listens on `addr` and serves what `routes` makes of the address that was bound.
    fn listen(
        addr: SocketAddr,
        routes: impl FnOnce(SocketAddr, watch::Receiver<bool>) -> Router,
    ) -> Result<Self, HttpError> {
        let listener = TcpListener::bind(addr).map_err(|source| HttpError::listen(addr, source))?;
        let bound = listener.local_addr().map_err(|source| HttpError::listen(addr, source))?;
        listener.set_nonblocking(true).map_err(|source| HttpError::listen(addr, source))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|source| HttpError::Thread { source })?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)
                .map_err(|source| HttpError::listen(addr, source))?
        };
        let (stop, stopped) = watch::channel(false);
        let router = routes(bound, stopped.clone());
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(serve(listener, router, stopped)))
            .map_err(|source| HttpError::Thread { source })?;
        Ok(Self { addr: bound, stop, thread: Some(thread) })
    }

    /// The address in use; its port is the real one also where port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends every feed, closes the listener and waits for the thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Accepts until the stop, then lets open replies end.
async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = stop(&mut stopped) => break,
        };
        // Finished tasks leave the set here, so that it holds no more than the places.
        while connections.try_join_next().is_some() {}
        if let Some((stream, place)) = accepted {
            let (router, stopped) = (router.clone(), stopped.clone());
            connections.spawn(async move {
                converse(stream, router, stopped).await;
                drop(place);
            });
        }
    }
    drop(listener);
    // Whoever is not done by then is cut off by the end of the set.
    let _ = tokio::time::timeout(DRAIN_TIME_MAX, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

/// The next connection with its place, or nothing after a failure worth a pause.
async fn accept(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The place comes first: without one nobody is accepted.
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(_) => {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves one connection to its end.
async fn converse(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    // Both are improvements only: a connection works without them.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
    let io = TokioIo::new(Patience::new(stream, WRITE_STALL_MAX));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(WRITE_BUFFER_BYTES)
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How a connection ended is the page's affair: it reconnects.
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop(&mut stopped) => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Waits for the word to stop, or for the end of the one who could give it.
pub(super) async fn stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}
