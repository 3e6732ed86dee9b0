//! A thread's own executor: tasks, timers with nanosecond deadlines and batched sockets, around one
//! epoll wait.

mod letters;
mod offload;
mod sources;
mod tasks;
mod timers;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::event::EventfdFlags;
use rustix::time::ClockId;
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    BindError, ConnectError, NetworkProvider, OffloadError, OsSecrets, RandomProvider,
    ResolveError, Resolved, TaskProvider, TcpOptions, TimeProvider, Timer, UdpOptions, WallTime,
    resolve_by_system,
};

use crate::group::GroupMember;
use crate::port::{Calls, Port};
use crate::tcp::{ReactorListener, ReactorTcp};
use crate::udp::BatchUdp;

pub(crate) use sources::{Source, Wants};

/// Batches that one task may receive before the others get their turn: a flood on one socket must
/// hold back neither the timers nor the other sockets of its thread.
const BATCHES_PER_TURN: u32 = 16;

/// The state behind a [`ReactorEnv`].
pub(crate) struct Reactor {
    sources: sources::Sources,
    tasks: tasks::Tasks,
    timers: RefCell<timers::Timers>,
    offloads: offload::Offloads,
    pub(crate) calls: RefCell<Calls>,
    /// The moment of the monotonic clock, in nanoseconds, that is [`Timestamp::START`].
    epoch_ns: u64,
    seed: u64,
    running: Cell<bool>,
    batches_left: Cell<u32>,
    /// Until when a socket lets its datagrams gather.
    hold_until: Cell<Timestamp>,
    /// How often the thread may have slept.
    sleeps: Cell<u64>,
}

impl Reactor {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(ReactorEnv::clock_ns().saturating_sub(self.epoch_ns))
    }

    /// Takes one batch from the running task's share of this turn. When nothing is left, the task
    /// is queued behind the others and must return.
    pub(crate) fn may_receive(&self, cx: &Context<'_>) -> bool {
        let left = self.batches_left.get();
        if left == 0 {
            cx.waker().wake_by_ref();
            return false;
        }
        self.batches_left.set(left - 1);
        true
    }

    /// Lets the thread sleep until `until`, or its next deadline, whatever arrives meanwhile.
    pub(crate) fn hold(&self, until: Timestamp) {
        self.hold_until.set(self.hold_until.get().max(until));
    }

    /// Changes whenever the thread may have slept.
    pub(crate) const fn sleeps(&self) -> u64 {
        self.sleeps.get()
    }

    /// Sleeps while a socket lets datagrams gather; false when none does.
    ///
    /// A plain sleep, because each datagram that arrives during an epoll wait ends it: at 600,000
    /// of them a second leaving and entering the wait costs more than receiving.
    fn slept(&self) -> bool {
        let hold = self.hold_until.get();
        if hold <= self.now() {
            return false;
        }
        let until = self.timers.borrow().next().map_or(hold, |at| at.min(hold));
        let at = self.epoch_ns.saturating_add(until.as_nanos());
        let at = rustix::time::Timespec {
            tv_sec: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at % 1_000_000_000) as _,
        };
        // A signal ends it early, and then the loop looks at everything once more than needed.
        let _ = rustix::thread::clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &at);
        true
    }

    pub(crate) fn add_source(
        &self,
        socket: BorrowedFd<'_>,
        wants: Wants,
    ) -> io::Result<Rc<Source>> {
        self.sources.add(socket, wants)
    }

    pub(crate) fn remove_source(&self, socket: BorrowedFd<'_>, source: &Source) {
        self.sources.remove(socket, source);
    }

    pub(crate) fn send_blocked(&self, socket: BorrowedFd<'_>, source: &Source) -> io::Result<()> {
        self.sources.blocked(socket, source)
    }

    pub(crate) fn send_unblocked(&self, socket: BorrowedFd<'_>, source: &Source) -> io::Result<()> {
        self.sources.unblocked(socket, source)
    }

    /// Waits until something happens, or only looks when tasks are ready, then queues the tasks that
    /// it concerns.
    fn wait(&self) {
        let timeout = if self.tasks.ready_len() > 0 {
            Some(std::time::Duration::ZERO)
        } else {
            self.sleeps.set(self.sleeps.get() + 1);
            if self.slept() {
                Some(std::time::Duration::ZERO)
            } else {
                self.timers.borrow().next().map(|at| at.since(self.now()))
            }
        };
        let rang = self.sources.wait(timeout);
        assert!(rang.is_ok(), "the reactor's own epoll set failed: {rang:?}");
        if rang.is_ok_and(|rang| rang) {
            self.tasks.read_mailbox();
        }
        let next = self.timers.borrow().next();
        if next.is_none() {
            return;
        }
        let now = self.now();
        loop {
            // Not in the condition: who is woken may set timers.
            let waker = self.timers.borrow_mut().expire(now);
            let Some(waker) = waker else { break };
            waker.wake();
        }
    }
}

/// One shard of a node: everything that comes from it lives and runs on one thread.
///
/// Clones are the same shard. A task that holds a clone keeps the shard alive until it ends, so keep
/// the handle that [`TaskProvider::spawn`] returns outside of the task.
#[derive(Clone)]
pub struct ReactorEnv {
    pub(crate) reactor: Rc<Reactor>,
}

impl ReactorEnv {
    /// A shard whose time starts now. Without a seed the operating system draws one.
    ///
    /// # Errors
    /// What the operating system says when it gives no descriptors or no randomness.
    pub fn new(seed: Option<u64>) -> io::Result<Self> {
        Self::with_epoch(seed, Self::clock_ns())
    }

    /// A shard whose time starts at `epoch_ns` of [`clock_ns`](Self::clock_ns), so that several
    /// shards, or several processes of one machine, read the same time. Before that moment its clock
    /// stands at the start.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_epoch(seed: Option<u64>, epoch_ns: u64) -> io::Result<Self> {
        let seed = match seed {
            Some(seed) => seed,
            None => OsSecrets::seed()?,
        };
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let sources = sources::Sources::new()?;
        let tasks = tasks::Tasks::new(bell);
        sources.add_bell(tasks.bell())?;
        Ok(Self {
            reactor: Rc::new(Reactor {
                sources,
                tasks,
                timers: RefCell::default(),
                offloads: offload::Offloads::new(),
                calls: RefCell::new(Calls::new()),
                epoch_ns,
                seed,
                running: Cell::new(false),
                batches_left: Cell::new(BATCHES_PER_TURN),
                hold_until: Cell::new(Timestamp::START),
                sleeps: Cell::new(0),
            }),
        })
    }

    /// The clock that all processes of this machine share, in nanoseconds: the monotonic one.
    pub fn clock_ns() -> u64 {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
    }

    /// Puts one socket of a steered group under this reactor.
    ///
    /// # Errors
    /// [`BindError`] when the operating system refuses, or when the path that the group's options
    /// ask for cannot be had.
    pub fn adopt(&self, member: GroupMember) -> Result<BatchUdp, BindError> {
        let (socket, local, options) = member.into_parts();
        let port = Port::prepare(socket, local, &options)?;
        BatchUdp::wrap(Rc::clone(&self.reactor), port, &options)
            .map_err(|error| BindError::from_io(local, error))
    }

    /// The seed of this run's random streams.
    pub fn seed(&self) -> u64 {
        self.reactor.seed
    }

    /// Runs `future`, and beside it all tasks, until `future` ends. Tasks that have not ended stay
    /// and go on with the next call.
    ///
    /// While it runs, the thread's timer slack is one nanosecond, so that deadlines are not rounded
    /// by the kernel.
    ///
    /// # Panics
    /// When called from within itself.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let reactor = &*self.reactor;
        assert!(!reactor.running.get(), "block_on was called inside the block_on of its reactor");
        let _running = Running::begin(reactor);
        let main = reactor.tasks.main();
        let mut future = pin!(future);
        loop {
            // Those that become ready meanwhile wait for the next turn, after timers and sockets.
            for _ in 0..reactor.tasks.ready_len() {
                let Some(key) = reactor.tasks.next_ready() else { break };
                reactor.batches_left.set(BATCHES_PER_TURN);
                if key != tasks::TaskKey::MAIN {
                    reactor.tasks.run(key);
                } else if let Poll::Ready(output) = main.poll(future.as_mut()) {
                    return output;
                }
            }
            reactor.wait();
        }
    }
}

/// Runs `application` on a reactor on this thread until it ends, and returns what it ended with.
/// `run` of `twinspan-sim` starts the same application in a simulation.
///
/// # Errors
/// What the operating system says when it gives no descriptors or no randomness.
pub fn run<F: Future>(application: impl FnOnce(ReactorEnv) -> F) -> io::Result<F::Output> {
    let env = ReactorEnv::new(None)?;
    Ok(env.block_on(application(env.clone())))
}

impl fmt::Debug for ReactorEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorEnv")
            .field("seed", &self.reactor.seed)
            .field("tasks", &self.reactor.tasks.names())
            .finish_non_exhaustive()
    }
}

/// The state of a thread inside `block_on`, undone when dropped.
struct Running<'a> {
    reactor: &'a Reactor,
    slack: Option<NonZeroU64>,
    _entered: tasks::Entered,
}

impl<'a> Running<'a> {
    fn begin(reactor: &'a Reactor) -> Self {
        reactor.running.set(true);
        // By default a sleep ends up to 50 µs late so that the kernel can join wakes. A refusal
        // costs that precision and nothing else.
        let slack = rustix::thread::current_timer_slack().ok().and_then(NonZeroU64::new);
        let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
        Self { reactor, slack, _entered: reactor.tasks.enter() }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.reactor.running.set(false);
        if self.slack.is_some() {
            let _ = rustix::thread::set_current_timer_slack(self.slack);
        }
    }
}

impl TimeProvider for ReactorEnv {
    type Timer = ReactorTimer;

    fn now(&self) -> Timestamp {
        self.reactor.now()
    }

    fn wall(&self) -> WallTime {
        WallTime::of_system()
    }

    fn timer(&self) -> ReactorTimer {
        ReactorTimer::new(Rc::clone(&self.reactor))
    }
}

impl RandomProvider for ReactorEnv {
    fn stream(&self, name: &'static str, instance: u64) -> Stream {
        Stream::new(self.reactor.seed, name, instance)
    }

    fn secrets(&self) -> Box<dyn SecretSource> {
        Box::new(OsSecrets)
    }
}

impl TaskProvider for ReactorEnv {
    type Task = ReactorTask;

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) -> ReactorTask {
        let key = self.reactor.tasks.spawn(name, future);
        ReactorTask { reactor: Rc::clone(&self.reactor), key }
    }

    async fn offload<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OffloadError> {
        self.reactor.offloads.run(name, work).await
    }
}

impl NetworkProvider for ReactorEnv {
    type Udp = BatchUdp;
    type Tcp = ReactorTcp;
    type Listener = ReactorListener;

    async fn bind_udp(
        &self,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<BatchUdp, BindError> {
        BatchUdp::bind(Rc::clone(&self.reactor), local, options)
    }

    async fn connect(
        &self,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<ReactorTcp, ConnectError> {
        ReactorTcp::connect(&self.reactor, peer, options).await
    }

    async fn listen(
        &self,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<ReactorListener, BindError> {
        ReactorListener::bind(&self.reactor, local, options)
    }

    async fn resolve(&self, name: &str, port: u16) -> Result<Resolved, ResolveError> {
        resolve_by_system(self, name, port).await
    }
}

/// Stops its task when dropped.
#[must_use = "dropping the handle stops the task"]
pub struct ReactorTask {
    reactor: Rc<Reactor>,
    key: tasks::TaskKey,
}

impl Drop for ReactorTask {
    fn drop(&mut self) {
        self.reactor.tasks.cancel(self.key);
    }
}

impl fmt::Debug for ReactorTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorTask").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A deadline on a reactor's clock, kept to the microsecond on an idle machine.
pub struct ReactorTimer {
    reactor: Rc<Reactor>,
    slot: usize,
    at: Option<Timestamp>,
}

impl ReactorTimer {
    pub(crate) fn new(reactor: Rc<Reactor>) -> Self {
        let slot = reactor.timers.borrow_mut().insert();
        Self { reactor, slot, at: None }
    }
}

impl Timer for ReactorTimer {
    fn set(&mut self, at: Option<Timestamp>) {
        // A deadline enters the reactor's heap when somebody waits for it: a driver that is busy
        // moves its deadline often and waits seldom.
        self.at = at.filter(|at| *at != Timestamp::NEVER);
        if self.at.is_none() {
            self.reactor.timers.borrow_mut().clear(self.slot);
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= self.reactor.now() {
            return Poll::Ready(());
        }
        self.reactor.timers.borrow_mut().set(self.slot, at, cx.waker());
        Poll::Pending
    }
}

impl Drop for ReactorTimer {
    fn drop(&mut self) {
        let waker = self.reactor.timers.borrow_mut().remove(self.slot);
        drop(waker);
    }
}

impl fmt::Debug for ReactorTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorTimer").field("at", &self.at).finish_non_exhaustive()
    }
}
