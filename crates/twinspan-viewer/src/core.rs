//! The core of a client: one node's thread, on which login, circuits and event queues meet.

mod fetches;
#[cfg(feature = "fuzz")]
mod fuzz;
mod infos;
mod live;
mod region_task;
mod seeds;
mod session;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use twinspan_circuit::AgentConfig;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_http::{ClientConfig, ClientError, HttpClient};
use twinspan_provider::{Env, Machine, Timer, UdpOptions, UdpSocket, drive};

#[cfg(feature = "fuzz")]
pub(crate) use fuzz::fuzz_region;
pub(crate) use infos::InfoReply;
pub(crate) use session::AgentSession;

use crate::client::ClientHandle;
use crate::credentials::LoginCredentials;
use crate::event::{DisconnectReason, NetworkError, NetworkEvent};
use crate::handle::{COMMANDS_MAX, Command, ConnectError, CoreHandle, Shared};
use crate::handlers::Job;
use crate::login::{AuthenticationService, LoginConfig, LoginError, MfaStore};
use crate::proxies::{ASSOCIATIONS_MAX, ProxyManager, ProxyPool, ProxySettings};
use crate::session_info::SessionInfo;
use crate::status::Cause;
use crate::transport::{PROXY_HEADER_BYTES_MAX, UdpTransport};
use crate::wait::sleep;
use infos::Infos;
use live::Live;

/// When and how often a connection that was lost is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// Attempts in a row; 0 for none.
    pub attempts_max: u32,
    /// The wait before the first one. It doubles from one to the next; a random fifth is added or
    /// taken off.
    pub wait: Duration,
    /// The longest wait.
    pub wait_max: Duration,
    /// Attempts count anew after a connection of this length.
    pub stable_after: Duration,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 8,
            // A grid takes a moment to notice that the avatar is gone.
            wait: Duration::from_secs(5),
            wait_max: Duration::from_mins(2),
            stable_after: Duration::from_mins(1),
        }
    }
}

impl ReconnectPolicy {
    /// Nothing is tried again.
    pub const NEVER: Self = Self {
        attempts_max: 0,
        wait: Duration::ZERO,
        wait_max: Duration::ZERO,
        stable_after: Duration::ZERO,
    };

    /// The wait before an attempt, counted from 1.
    fn wait_before(&self, attempt: u32, random: &mut Stream) -> Duration {
        let doubled = self.wait.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        let wait = doubled.min(self.wait_max);
        // 80 to 120 percent.
        let share = 80 + u32::try_from(random.next_u64() % 41).unwrap_or(20);
        wait.saturating_mul(share) / 100
    }
}

/// What a client is like.
#[derive(Clone, Debug)]
pub struct ViewerConfig {
    /// Its agent and circuits.
    pub agent: AgentConfig,
    /// Its logins.
    pub login: LoginConfig,
    /// What is tried again.
    pub reconnect: ReconnectPolicy,
    /// Its HTTP: whom it trusts, above all. Its proxy counts where [`proxies`](Self::proxies) name
    /// none.
    pub http: ClientConfig,
    /// Its proxies at first.
    pub proxies: ProxySettings,
    /// What second factors left for the next login.
    pub mfa: MfaStore,
    /// Whether each message is told to subscribers as
    /// [`MessageReceived`](crate::NetworkEvent::MessageReceived).
    pub message_events: bool,
    /// Whether objects and avatars are kept track of.
    pub track_world: bool,
    /// Packet buffers of its socket.
    pub pool_packets: usize,
}

impl Default for ViewerConfig {
    fn default() -> Self {
        Self {
            agent: AgentConfig::default(),
            login: LoginConfig::default(),
            reconnect: ReconnectPolicy::default(),
            http: ClientConfig::default(),
            proxies: ProxySettings::NONE,
            mfa: MfaStore::default(),
            message_events: true,
            track_world: true,
            // A region's first burst is read in turns of 256.
            pool_packets: 1_024,
        }
    }
}

/// Why there is no core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// A field of the agent's configuration is out of range.
    #[error(transparent)]
    Agent(#[from] twinspan_circuit::ConfigError),
    /// The configuration of HTTP cannot be used.
    #[error(transparent)]
    Http(#[from] ClientError),
}

/// Begins a handler's work.
pub(crate) type Starter = Box<dyn Fn(Job)>;

/// The core of a client on one node, on either side of the seam.
///
/// [`Client`](crate::Client) runs one on a thread of its own. In a simulation, or on a thread that
/// is there already, [`run`](Self::run) it as a task; the handle does all that a client does.
pub struct ViewerCore<E: Env> {
    env: E,
    config: ViewerConfig,
    shared: Arc<Shared>,
    pool: ProxyPool<E>,
    /// Whether it was told that certificates are not checked.
    told_unchecked: bool,
    /// Shared with the session.
    infos: Rc<RefCell<Infos<E>>>,
    /// `None` while a session has it.
    commands: Option<mpsc::Receiver<Command>>,
    /// For contexts of handlers; it keeps nobody waiting for commands.
    sender: mpsc::WeakSender<Command>,
    starter: Option<Starter>,
    random: Stream,
    sessions: u64,
    mfa: MfaStore,
}

/// How a session ended.
struct SessionEnd {
    reason: DisconnectReason,
    /// Who asked for it.
    disconnected: Vec<oneshot::Sender<()>>,
    /// Whether the core ends with it.
    shutdown: bool,
}

impl SessionEnd {
    const fn failed(why: String) -> Self {
        Self { reason: DisconnectReason::Transport(why), disconnected: Vec::new(), shutdown: false }
    }
}

/// How waiting was cut short.
enum Interrupt {
    Disconnect(oneshot::Sender<()>),
    Shutdown,
}

/// What a connection came to.
enum Over {
    /// More commands are taken.
    Idle,
    Shutdown,
}

/// Who waits for a connection.
type Waiting = Option<oneshot::Sender<Result<Arc<SessionInfo>, ConnectError>>>;

impl<E: Env> ViewerCore<E> {
    /// A core and its handle. It does nothing until it is [`run`](Self::run).
    ///
    /// # Errors
    /// [`CoreError`] names what of the configuration is wrong.
    pub fn new(env: E, config: ViewerConfig) -> Result<(Self, ClientHandle), CoreError> {
        let manager = ProxyManager::new(config.proxies.clone());
        let pool = ProxyPool::new(env.clone(), manager, config.http.clone());
        Self::pooled(env, config, &pool)
    }

    /// As [`new`](Self::new), with what other cores on the same node share: the pool's proxies and
    /// HTTP count, and not those of the configuration.
    ///
    /// # Errors
    /// [`CoreError`] names what of the configuration is wrong.
    pub fn pooled(
        env: E,
        config: ViewerConfig,
        pool: &ProxyPool<E>,
    ) -> Result<(Self, ClientHandle), CoreError> {
        let shared = Arc::new(Shared::new(pool.manager().clone()));
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let handle = ClientHandle::of(&CoreHandle { shared, commands: sender });
        let core = Self::beside(env, config, pool, (&handle, commands))?;
        Ok((core, handle))
    }

    /// A core for a handle that is there already.
    pub(crate) fn beside(
        env: E,
        config: ViewerConfig,
        pool: &ProxyPool<E>,
        (handle, commands): (&ClientHandle, mpsc::Receiver<Command>),
    ) -> Result<Self, CoreError> {
        config.agent.check()?;
        // What is wrong with it shows here, and not with the first login.
        pool.through(pool.manager().settings().http.as_ref())?;
        handle.core().shared.set_started();
        handle.core().shared.set_mfa(config.mfa.clone());
        Ok(Self {
            random: env.stream("viewer.reconnect", 0),
            pool: pool.clone(),
            told_unchecked: false,
            infos: Rc::new(RefCell::new(Infos::new(env.clone()))),
            shared: Arc::clone(&handle.core().shared),
            sender: handle.core().commands.downgrade(),
            commands: Some(commands),
            starter: None,
            sessions: 0,
            mfa: config.mfa.clone(),
            config,
            env,
        })
    }

    /// Lets handlers work elsewhere than in tasks of this node.
    pub(crate) fn start_jobs_with(&mut self, starter: Starter) {
        self.starter = Some(starter);
    }

    /// Runs until every handle is gone, or one says that it is over.
    pub async fn run(mut self) {
        if self.starter.is_none() {
            self.starter = Some(tasks_of(&self.env));
        }
        while let Some(commands) = &mut self.commands {
            match commands.recv().await {
                None | Some(Command::Shutdown) => break,
                Some(Command::Connect { credentials, reply }) => {
                    if let Over::Shutdown = self.connect(*credentials, reply).await {
                        break;
                    }
                }
                Some(Command::Disconnect { done }) => {
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Some(Command::GridInfo { grid, reply }) => {
                    let http = self.http();
                    self.infos.borrow_mut().ask(http, *grid, reply);
                }
                // Who waits for an answer learns that there is no session.
                Some(
                    Command::With(_)
                    | Command::Asset { .. }
                    | Command::Features { .. }
                    | Command::Folders { .. }
                    | Command::Upload { .. },
                ) => {}
            }
        }
        if self.shared.status().is_active() {
            self.over(DisconnectReason::Dropped);
        }
        self.shared.registry.clear();
    }

    /// One connection, with all its attempts.
    async fn connect(
        &mut self,
        mut credentials: LoginCredentials,
        reply: oneshot::Sender<Result<Arc<SessionInfo>, ConnectError>>,
    ) -> Over {
        if !self.pool.checks_certificates() && !std::mem::replace(&mut self.told_unchecked, true) {
            self.shared.events.tell(NetworkEvent::CertificatesUnchecked);
        }
        self.shared.step(Cause::Login);
        let mut waiting = Some(reply);
        let mut attempt = 0;
        loop {
            let reason = match self.login(&credentials).await {
                Err(interrupt) => return self.give_up(interrupt, &mut waiting),
                Ok(Err(error)) => {
                    let error = Arc::new(error);
                    self.shared.tell_error(NetworkError::Login(Arc::clone(&error)));
                    DisconnectReason::Login(error)
                }
                Ok(Ok(session)) => {
                    credentials.for_another_login();
                    self.shared.step(Cause::LoginAccepted);
                    let began = self.env.now();
                    let end = self.session(session, &mut waiting).await;
                    if end.shutdown {
                        return Over::Shutdown;
                    }
                    if self.env.now().since(began) >= self.config.reconnect.stable_after {
                        attempt = 0;
                    }
                    if !end.disconnected.is_empty() {
                        refuse(&mut waiting, &end.reason);
                        self.over(end.reason);
                        end.disconnected.into_iter().for_each(|done| {
                            // Who asked may have gone.
                            let _ = done.send(());
                        });
                        return Over::Idle;
                    }
                    end.reason
                }
            };
            // Who was never in is told so, and decides; who was is brought back.
            let was_in = waiting.is_none();
            attempt += 1;
            let again =
                was_in && reason.is_passing() && attempt <= self.config.reconnect.attempts_max;
            if !again {
                refuse(&mut waiting, &reason);
                self.over(reason);
                return Over::Idle;
            }
            self.shared.step(Cause::Lost);
            let after = self.config.reconnect.wait_before(attempt, &mut self.random);
            self.shared.events.tell(NetworkEvent::ReconnectPlanned { attempt, after });
            let env = self.env.clone();
            if let Err(interrupt) = self.unless_interrupted(sleep(&env, after)).await {
                return self.give_up(interrupt, &mut waiting);
            }
        }
    }

    /// The way to grids that the present settings name.
    fn http(&self) -> Result<HttpClient<E>, ClientError> {
        let settings = self.shared.proxies.settings();
        self.pool.through(settings.http.as_ref())
    }

    async fn login(
        &mut self,
        credentials: &LoginCredentials,
    ) -> Result<Result<SessionInfo, LoginError>, Interrupt> {
        let http = match self.http() {
            Ok(http) => http,
            Err(error) => return Ok(Err(LoginError::Client(error))),
        };
        let (env, config) = (self.env.clone(), self.config.login.clone());
        let service = AuthenticationService::new(env, http, config, self.mfa.clone());
        let outcome = self.unless_interrupted(service.login(credentials)).await?;
        self.mfa = service.mfa();
        self.shared.set_mfa(self.mfa.clone());
        Ok(outcome)
    }

    /// What a future gives, unless somebody wants the end before that.
    async fn unless_interrupted<F: Future>(&mut self, future: F) -> Result<F::Output, Interrupt> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(interrupt) = self.poll_interrupt(cx) {
                return Poll::Ready(Err(interrupt));
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        loop {
            let Some(commands) = &mut self.commands else { return Poll::Pending };
            match std::task::ready!(commands.poll_recv(cx)) {
                None | Some(Command::Shutdown) => return Poll::Ready(Interrupt::Shutdown),
                Some(Command::Disconnect { done }) => {
                    return Poll::Ready(Interrupt::Disconnect(done));
                }
                Some(Command::Connect { reply, .. }) => {
                    // Who asked may have gone.
                    let _ = reply.send(Err(ConnectError::Busy(self.shared.status())));
                }
                Some(Command::GridInfo { grid, reply }) => {
                    let http = self.http();
                    self.infos.borrow_mut().ask(http, *grid, reply);
                }
                Some(
                    Command::With(_)
                    | Command::Asset { .. }
                    | Command::Features { .. }
                    | Command::Folders { .. }
                    | Command::Upload { .. },
                ) => {}
            }
        }
    }

    fn give_up(&mut self, interrupt: Interrupt, waiting: &mut Waiting) -> Over {
        self.shared.step(Cause::Logout);
        refuse(waiting, &DisconnectReason::Cancelled);
        match interrupt {
            Interrupt::Disconnect(done) => {
                self.over(DisconnectReason::Cancelled);
                // Who asked may have gone.
                let _ = done.send(());
                Over::Idle
            }
            Interrupt::Shutdown => {
                self.over(DisconnectReason::Dropped);
                Over::Shutdown
            }
        }
    }

    /// The connection is over for good.
    fn over(&self, reason: DisconnectReason) {
        self.shared.step(Cause::Ended);
        self.shared.set_session(None);
        self.shared.set_region(None);
        self.shared.events.tell(NetworkEvent::Disconnected { reason });
    }

    /// One session, from login's answer to its end; and whether the core ends with it.
    async fn session(&mut self, session: SessionInfo, waiting: &mut Waiting) -> SessionEnd {
        let settings = self.shared.proxies.settings();
        let http = match self.pool.through(settings.http.as_ref()) {
            Ok(http) => http,
            Err(error) => return SessionEnd::failed(error.to_string()),
        };
        let (Some(commands), Some(starter)) = (self.commands.take(), self.starter.take()) else {
            // They are lent to one session at a time.
            return SessionEnd { shutdown: true, ..SessionEnd::failed(String::new()) };
        };
        self.sessions += 1;
        let mut config = self.config.clone();
        if settings.datagrams.is_some() {
            config.agent.circuits.datagram_bytes_max =
                config.agent.circuits.datagram_bytes_max.saturating_sub(PROXY_HEADER_BYTES_MAX);
        }
        let session = AgentSession::new(
            &self.env,
            &config,
            (Arc::clone(&self.shared), self.sender.clone()),
            Arc::new(session),
            self.sessions,
        );
        let session = match session {
            Ok(session) => session,
            Err(why) => {
                (self.commands, self.starter) = (Some(commands), Some(starter));
                return SessionEnd::failed(why);
            }
        };
        let (infos, waiting_now) = (Rc::clone(&self.infos), waiting.take());
        let mut live =
            Live::new(self.env.clone(), (http, infos), session, commands, starter, waiting_now);
        let failure = self.drive(&mut live, &settings).await;
        let parts = live.end(failure);
        *waiting = parts.waiting;
        (self.commands, self.starter) = (Some(parts.commands), Some(parts.starter));
        parts.end
    }

    /// Drives a session over sockets until it ends; what stopped it before that.
    async fn drive(&self, live: &mut Live<E>, settings: &ProxySettings) -> Option<String> {
        let mut attempts = 0;
        let mut was_lost = false;
        let options =
            UdpOptions { pool_packets: self.config.pool_packets, ..UdpOptions::default() };
        let proxy = settings.datagrams.as_ref();
        let place = proxy.map(|_| self.shared.proxies.place());
        if let Some(None) = place {
            self.shared.proxies.on_failed();
            return Some(format!("{ASSOCIATIONS_MAX} associations are open, close some"));
        }
        loop {
            let opening = UdpTransport::open(&self.env, proxy, &options);
            // Somebody may want the end while the proxy takes its time.
            let meanwhile = if was_lost { Meanwhile::Cut } else { Meanwhile::NotBegun };
            let why = match unless_over(&self.env, live, meanwhile, opening).await? {
                Ok(mut socket) => {
                    if let Some(relay) = socket.relay() {
                        self.shared.proxies.on_associated(relay);
                    }
                    if std::mem::take(&mut was_lost) {
                        self.shared.events.tell(NetworkEvent::ProxyRestored);
                    }
                    live.on_socket(socket.local_addr(), socket.report());
                    let opened = self.env.now();
                    match drive(&self.env, &mut socket, live).await {
                        Ok(()) => {
                            self.shared.proxies.on_closed();
                            return None;
                        }
                        Err(error) if proxy.is_none() => return Some(error.to_string()),
                        Err(error) => {
                            self.shared.proxies.on_lost();
                            was_lost = true;
                            if self.env.now().since(opened) >= ASSOCIATION_STABLE {
                                attempts = 0;
                            }
                            let reason = error.to_string();
                            self.shared
                                .tell_error(NetworkError::ProxyLost { reason: reason.clone() });
                            reason
                        }
                    }
                }
                Err(error) => {
                    if proxy.is_some() {
                        self.shared.proxies.on_failed();
                    }
                    error.to_string()
                }
            };
            attempts += 1;
            if proxy.is_none() || attempts > ASSOCIATION_ATTEMPTS_MAX {
                return Some(why);
            }
            let pause = sleep(&self.env, ASSOCIATION_WAIT * attempts);
            let meanwhile = if was_lost { Meanwhile::Cut } else { Meanwhile::NotBegun };
            unless_over(&self.env, live, meanwhile, pause).await?;
        }
    }
}

/// What a session without a socket is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// It has sent nothing yet, and its first words wait for the socket.
    NotBegun,
    /// Its time goes on, or it would not notice that its region is lost; what it sends is lost.
    Cut,
}

/// What a future gives, unless the session is over before that; its commands are taken meanwhile.
async fn unless_over<E: Env, F: Future>(
    env: &E,
    live: &mut Live<E>,
    meanwhile: Meanwhile,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = env.timer();
    let (pool, mut lost) = (PacketPool::new(LOST_BATCH), DatagramBatch::new(LOST_BATCH));
    poll_fn(|cx| {
        while live.poll_command(cx).is_ready() {}
        for _ in 0..TURNS_IN_A_ROW_MAX {
            if live.is_leaving() || live.is_done() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if meanwhile == Meanwhile::NotBegun {
                return Poll::Pending;
            }
            let now = env.now();
            live.poll_transmit(now, &pool, &mut lost);
            if lost.is_empty() {
                timer.set(live.poll_timeout());
                std::task::ready!(timer.poll_expired(cx));
                live.handle_timeout(now);
            }
            lost.clear();
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Datagrams without a socket that are lost at once.
const LOST_BATCH: usize = 64;
/// Turns of a session without a socket before the other tasks of its thread have theirs.
const TURNS_IN_A_ROW_MAX: u32 = 16;

/// How often an association is tried in a row.
const ASSOCIATION_ATTEMPTS_MAX: u32 = 5;
/// The wait before the second attempt; it grows by as much with each further one.
const ASSOCIATION_WAIT: Duration = Duration::from_millis(500);
/// Attempts count anew after an association of this length.
const ASSOCIATION_STABLE: Duration = Duration::from_secs(30);

/// Tells who waits for a connection that there will be none.
fn refuse(waiting: &mut Waiting, reason: &DisconnectReason) {
    let Some(reply) = waiting.take() else { return };
    let error = match reason {
        DisconnectReason::Login(error) => ConnectError::Login(Arc::clone(error)),
        DisconnectReason::Cancelled | DisconnectReason::Dropped => ConnectError::Cancelled,
        other => ConnectError::Region(other.to_string()),
    };
    // Who asked may have gone.
    let _ = reply.send(Err(error));
}

/// Begins handlers' work as tasks of a node, each in the place of its former one.
fn tasks_of<E: Env>(env: &E) -> Starter {
    let env = env.clone();
    let tasks = std::cell::RefCell::new(std::collections::BTreeMap::new());
    Box::new(move |job: Job| {
        let task = env.spawn("viewer.handler", job.work);
        let former = tasks.borrow_mut().insert(job.id, task);
        drop(former);
    })
}

impl<E: Env> std::fmt::Debug for ViewerCore<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViewerCore").field("status", &self.shared.status()).finish_non_exhaustive()
    }
}
