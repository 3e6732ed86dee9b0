//! Tokio's side of the seam: works on every operating system, moves datagrams one by one.

mod tcp;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use twinspan_core::packet::{Datagram, DatagramBatch, PACKET_BYTES_MAX, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;

use crate::{
    BindError, ConnectError, IoPath, NetworkProvider, OFFLOADS_MAX, OffloadError, RandomProvider,
    ResolveError, Resolved, SocketReport, TaskProvider, TcpOptions, TimeProvider, Timer, UdpError,
    UdpOptions, UdpSocket, WallTime, resolve_by_system,
};

pub use tcp::{TokioListener, TokioTcp};

/// How far ahead a sleep is aimed that nobody waits for yet.
const IDLE_SLEEP: Duration = Duration::from_secs(3_600);
/// When to look again after the pool had no free buffer: nothing announces that one came back.
const POOL_RETRY: Duration = Duration::from_millis(1);
/// Passing errors that one call on a socket reads away before it lets others run.
const ERRORS_PER_CALL_MAX: usize = 16;

/// Key material from the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsSecrets;

impl OsSecrets {
    /// A run seed from the operating system.
    ///
    /// # Errors
    /// What the operating system says when it has no randomness.
    pub fn seed() -> io::Result<u64> {
        Ok(getrandom::u64()?)
    }
}

impl SecretSource for OsSecrets {
    /// # Panics
    /// When the operating system has no randomness: to go on with guessable keys would be worse.
    fn fill(&mut self, out: &mut [u8]) {
        let outcome = getrandom::fill(out);
        assert!(outcome.is_ok(), "the operating system gives no randomness: {outcome:?}");
    }
}

/// The state behind a [`TokioEnv`].
struct Inner {
    runtime: LocalRuntime,
    seed: u64,
    /// The clock's reading at [`Inner::anchor`].
    anchored: Timestamp,
    anchor: Instant,
    /// One for each piece of work under way off the thread, and one here.
    offloads: Arc<()>,
}

/// One node or one shard of a node on a tokio runtime of its own thread.
///
/// Tokio keeps deadlines to the millisecond. Clones are the same node; a task that holds a clone
/// keeps it alive until the task ends, so keep the handle that [`TaskProvider::spawn`] returns
/// outside of the task.
#[derive(Clone)]
pub struct TokioEnv {
    inner: Rc<Inner>,
}

impl TokioEnv {
    /// A node whose time starts now. Without a seed the operating system draws one.
    ///
    /// # Errors
    /// What the operating system says when it gives no descriptors or no randomness.
    pub fn new(seed: Option<u64>) -> io::Result<Self> {
        Self::with_epoch(seed, Self::clock_ns())
    }

    /// A node whose time starts at `epoch_ns` of [`clock_ns`](Self::clock_ns), so that several
    /// nodes, or several processes of one machine, read the same time. Before that moment its clock
    /// starts at the start.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_epoch(seed: Option<u64>, epoch_ns: u64) -> io::Result<Self> {
        let seed = match seed {
            Some(seed) => seed,
            None => OsSecrets::seed()?,
        };
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        // The system clock is read this once; from here on time is monotonic.
        let anchored = Timestamp::from_nanos(Self::clock_ns().saturating_sub(epoch_ns));
        let inner =
            Inner { runtime, seed, anchored, anchor: Instant::now(), offloads: Arc::new(()) };
        Ok(Self { inner: Rc::new(inner) })
    }

    /// The clock that all processes of this machine share, in nanoseconds: the system's, since the
    /// standard library hands out no other one that two processes can compare.
    pub fn clock_ns() -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The seed of this run's random streams.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// Runs `future`, and beside it all tasks, until `future` ends. Tasks that have not ended stay
    /// and go on with the next call.
    ///
    /// # Panics
    /// When called from within a tokio runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.inner.runtime.block_on(future)
    }

    /// The moment as tokio names it; `None` beyond what it can name.
    fn instant(&self, at: Timestamp) -> Option<tokio::time::Instant> {
        let since = at.since(self.inner.anchored);
        self.inner.anchor.checked_add(since).map(tokio::time::Instant::from_std)
    }

    /// A sleep that has not been aimed at anything yet.
    fn sleep(&self) -> Pin<Box<Sleep>> {
        let _context = self.inner.runtime.enter();
        Box::pin(tokio::time::sleep(IDLE_SLEEP))
    }
}

/// Runs `application` on tokio on this thread until it ends, and returns what it ended with; tasks
/// that it left behind end with it. `run` of `twinspan-sim` starts the same application in a
/// simulation.
///
/// # Errors
/// What the operating system says when it gives no descriptors or no randomness.
///
/// # Panics
/// When called from within a tokio runtime, and when `application` does.
pub fn run<F: Future>(application: impl FnOnce(TokioEnv) -> F) -> io::Result<F::Output> {
    let env = TokioEnv::new(None)?;
    Ok(env.block_on(application(env.clone())))
}

impl fmt::Debug for TokioEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioEnv").field("seed", &self.inner.seed).finish_non_exhaustive()
    }
}

impl TimeProvider for TokioEnv {
    type Timer = TokioTimer;

    fn now(&self) -> Timestamp {
        self.inner.anchored.after(self.inner.anchor.elapsed())
    }

    fn wall(&self) -> WallTime {
        WallTime::of_system()
    }

    fn timer(&self) -> TokioTimer {
        TokioTimer { env: self.clone(), sleep: self.sleep(), at: None }
    }
}

impl RandomProvider for TokioEnv {
    fn stream(&self, name: &'static str, instance: u64) -> Stream {
        Stream::new(self.inner.seed, name, instance)
    }

    fn secrets(&self) -> Box<dyn SecretSource> {
        Box::new(OsSecrets)
    }
}

impl TaskProvider for TokioEnv {
    type Task = TokioTask;

    fn spawn(&self, _name: &'static str, future: impl Future<Output = ()> + 'static) -> TokioTask {
        let job = Rc::new(Job {
            future: RefCell::new(Some(Box::pin(future))),
            stopped: Cell::new(false),
        });
        let polled = Rc::clone(&job);
        let handle = self.inner.runtime.spawn_local(poll_fn(move |cx| polled.poll(cx)));
        TokioTask { job, handle }
    }

    async fn offload<T: Send + 'static>(
        &self,
        _name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OffloadError> {
        let under_way = Arc::clone(&self.inner.offloads);
        // This one and the one at home count too.
        if Arc::strong_count(&under_way) > OFFLOADS_MAX + 1 {
            return Err(OffloadError::Full);
        }
        let work = self.inner.runtime.spawn_blocking(move || {
            let outcome = work();
            drop(under_way);
            outcome
        });
        work.await.map_err(|_| OffloadError::Panicked)
    }
}

impl NetworkProvider for TokioEnv {
    type Udp = TokioUdp;
    type Tcp = TokioTcp;
    type Listener = TokioListener;

    async fn bind_udp(
        &self,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<TokioUdp, BindError> {
        if let IoPath::Batch | IoPath::Ring = options.path {
            let source = io::Error::new(
                io::ErrorKind::Unsupported,
                "tokio's side moves datagrams one by one",
            );
            return Err(BindError::Path { address: local, path: options.path, source });
        }
        TokioUdp::bind(self, local, options).map_err(|error| BindError::from_io(local, error))
    }

    async fn connect(
        &self,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<TokioTcp, ConnectError> {
        TokioTcp::connect(self, peer, options).await
    }

    async fn listen(
        &self,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<TokioListener, BindError> {
        TokioListener::bind(self, local, options).map_err(|error| BindError::from_io(local, error))
    }

    async fn resolve(&self, name: &str, port: u16) -> Result<Resolved, ResolveError> {
        resolve_by_system(self, name, port).await
    }
}

/// A deadline on tokio's clock.
pub struct TokioTimer {
    env: TokioEnv,
    sleep: Pin<Box<Sleep>>,
    at: Option<Timestamp>,
}

impl Timer for TokioTimer {
    fn set(&mut self, at: Option<Timestamp>) {
        if self.at == at {
            return;
        }
        self.at = at;
        // A moment past what the clock can name does not come.
        match at.map(|at| self.env.instant(at)) {
            Some(Some(instant)) => self.sleep.as_mut().reset(instant),
            Some(None) => self.at = None,
            None => {}
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.at {
            None => Poll::Pending,
            Some(at) if at <= self.env.now() => Poll::Ready(()),
            Some(_) => self.sleep.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for TokioTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioTimer").field("at", &self.at).finish_non_exhaustive()
    }
}

/// A task's future, within reach of the runtime and of the handle that stops it: tokio itself drops
/// an aborted future at its next turn only, which may never come.
struct Job {
    /// `None` while it is polled and when it has ended.
    future: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    stopped: Cell<bool>,
}

impl Job {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let future = self.future.borrow_mut().take();
        let Some(mut future) = future else { return Poll::Ready(()) };
        if future.as_mut().poll(cx).is_ready() || self.stopped.get() {
            return Poll::Ready(());
        }
        *self.future.borrow_mut() = Some(future);
        Poll::Pending
    }
}

/// Stops its task when dropped.
#[must_use = "dropping the handle stops the task"]
pub struct TokioTask {
    job: Rc<Job>,
    handle: JoinHandle<()>,
}

impl Drop for TokioTask {
    fn drop(&mut self) {
        self.job.stopped.set(true);
        let future = self.job.future.borrow_mut().take();
        drop(future);
        self.handle.abort();
    }
}

impl fmt::Debug for TokioTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioTask").finish_non_exhaustive()
    }
}

/// A UDP socket on tokio: one system call per datagram.
pub struct TokioUdp {
    socket: tokio::net::UdpSocket,
    env: TokioEnv,
    local: SocketAddr,
    pool: PacketPool,
    /// Where datagrams arrive: one byte more than a packet has, to tell a full one from a cut one.
    arrival: Box<[u8]>,
    pool_retry: TokioTimer,
    report: SocketReport,
}

impl TokioUdp {
    fn bind(env: &TokioEnv, local: SocketAddr, options: &UdpOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if local.is_ipv6() {
            // An address means one family; who wants both binds both.
            socket.set_only_v6(true)?;
        }
        // Refusals show in the sizes that are read back.
        let _ = socket.set_recv_buffer_size(options.receive_buffer_bytes);
        let _ = socket.set_send_buffer_size(options.send_buffer_bytes);
        socket.bind(&local.into())?;
        let report = SocketReport {
            path: "recvfrom/sendto",
            path_reason: "the only one of tokio's side",
            receive_buffer_bytes: socket.recv_buffer_size().unwrap_or(0),
            send_buffer_bytes: socket.send_buffer_size().unwrap_or(0),
            ..SocketReport::default()
        };
        let _context = env.inner.runtime.enter();
        let socket = tokio::net::UdpSocket::from_std(socket.into())?;
        Ok(Self {
            local: socket.local_addr()?,
            socket,
            env: env.clone(),
            pool: PacketPool::new(options.pool_packets),
            arrival: vec![0; PACKET_BYTES_MAX + 1].into_boxed_slice(),
            pool_retry: env.timer(),
            report,
        })
    }

    /// Receives while something is there and the batch has room.
    fn receive(&mut self, batch: &mut DatagramBatch) -> Result<Took, UdpError> {
        // What is received and dropped counts against this call too: a flood must not hold it.
        let mut left = batch.room();
        let mut errors_left = ERRORS_PER_CALL_MAX;
        while left > 0 && errors_left > 0 {
            let Some(mut packet) = self.pool.take() else { return Ok(Took::NoBuffer) };
            let (bytes, peer) = match self.socket.try_recv_from(&mut self.arrival) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Took::All);
                }
                Err(error) if is_fatal(&error) => return Err(UdpError::Os(error)),
                // An ICMP answer, or, where the system says so by an error, a cut datagram.
                Err(_) => {
                    self.report.receive_errors += 1;
                    errors_left -= 1;
                    continue;
                }
            };
            left -= 1;
            if !packet.fill(self.arrival.get(..bytes).unwrap_or_default()) {
                self.report.receive_errors += 1;
                continue;
            }
            self.report.packets_in += 1;
            self.report.bytes_in += bytes as u64;
            let refused = batch.push(Datagram { peer, at: self.env.now(), packet });
            debug_assert!(refused.is_ok(), "more datagrams than the batch has room for");
        }
        Ok(Took::Enough)
    }
}

/// How a round of receiving ended.
enum Took {
    /// Nothing more is there.
    All,
    /// There may be more.
    Enough,
    /// The pool has no free buffer.
    NoBuffer,
}

impl UdpSocket for TokioUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn pool(&self) -> &PacketPool {
        &self.pool
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        if batch.room() == 0 {
            return Poll::Ready(Ok(0));
        }
        let before = batch.len();
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let took = self.receive(batch)?;
            if batch.len() > before {
                return Poll::Ready(Ok(batch.len() - before));
            }
            match took {
                // Tokio has noted that nothing is there: the next look registers the waker.
                Took::All => {}
                Took::Enough => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Took::NoBuffer => {
                    self.pool_retry.set(Some(self.env.now().after(POOL_RETRY)));
                    if self.pool_retry.poll_expired(cx).is_ready() {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        loop {
            let sent = match batch.iter().next() {
                Some(datagram) => self.socket.try_send_to(&datagram.packet, datagram.peer),
                None => break,
            };
            match sent {
                Ok(bytes) => {
                    self.report.packets_out += 1;
                    self.report.bytes_out += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if batch.len() < before {
                        break;
                    }
                    // Tokio has noted that there is no room: this registers the waker.
                    ready!(self.socket.poll_send_ready(cx))?;
                    continue;
                }
                Err(error) if is_fatal(&error) => return Poll::Ready(Err(UdpError::Os(error))),
                Err(_) => self.report.send_errors += 1,
            }
            drop(batch.pop());
        }
        Poll::Ready(Ok(before - batch.len()))
    }

    fn report(&self) -> SocketReport {
        self.report
    }
}

impl fmt::Debug for TokioUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioUdp")
            .field("local", &self.local)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// Whether an error means that the socket is gone, and not that one datagram is: those come from
/// the operating system and concern routes, peers and queues. Tokio's own errors are about its
/// runtime and carry no number.
fn is_fatal(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

#[cfg(test)]
mod tests;
