//! The client: a thread of its own with a core on it, and handles for everybody.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc as thread_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use twinspan_provider::TokioEnv;

use crate::bot::Bot;
use crate::bus::{EventBus, Laggard, Subscription};
use crate::core::{CoreError, ViewerConfig, ViewerCore};
use crate::credentials::LoginCredentials;
use crate::event::{NetworkEvent, WorldEvent};
use crate::grid::Grid;
use crate::grid_info::{GridInfo, GridInfoError};
use crate::handle::{COMMANDS_MAX, Command, ConnectError, CoreHandle, Shared};
use crate::handlers::{HandlerPool, HandlerRegistry};
use crate::login::MfaStore;
use crate::proxies::{ProxyManager, ProxyPool};
use crate::region::RegionInfo;
use crate::session_info::SessionInfo;
use crate::status::NetworkStatus;
use crate::summary::SessionSummary;

/// How long dropping a client waits for its thread: that ends at once, unless the operating system
/// holds it, for a name that it looks up.
const END_GRACE: Duration = Duration::from_secs(2);

/// The connection of a client: its status, its events, and what it is told to do. Clones are the
/// same connection.
#[derive(Clone, Debug)]
pub struct NetworkManager {
    core: CoreHandle,
}

impl NetworkManager {
    /// Listens to everything that happens on the network from now on. The subscriber is named after
    /// the place in the program that calls this.
    #[track_caller]
    pub fn subscribe(&self) -> Subscription<NetworkEvent> {
        self.core.shared.events.subscribe()
    }

    /// Listens to everything that happens on the network from now on, by this name in
    /// [`laggards`](Self::laggards).
    pub fn subscribe_named(&self, name: impl Into<Arc<str>>) -> Subscription<NetworkEvent> {
        self.core.shared.events.subscribe_named(name)
    }

    /// Who listens to the network or the world and was too slow at some time: they missed events,
    /// as [`NetworkEvent::Lagged`] and [`WorldEvent::Lagged`] told them.
    pub fn laggards(&self) -> Vec<Laggard> {
        let mut all = self.core.shared.events.laggards();
        all.extend(self.core.shared.world.laggards());
        all
    }

    /// Where the client is in its life.
    pub fn status(&self) -> NetworkStatus {
        self.core.status()
    }

    /// What the present login gave; `None` without a connection.
    pub fn session(&self) -> Option<Arc<SessionInfo>> {
        self.core.session()
    }

    /// The region that the avatar is in, once it said what it is.
    pub fn region(&self) -> Option<Arc<RegionInfo>> {
        self.core.region()
    }

    /// Logs in and waits until the avatar is in its first region. A connection that is lost later is
    /// tried again as [`ReconnectPolicy`](crate::ReconnectPolicy) has it.
    ///
    /// # Errors
    /// [`ConnectError`]
    ///
    /// # Cancel safety
    /// Dropping the future gives up nothing; see [`disconnect`](Self::disconnect).
    pub async fn connect(
        &self,
        credentials: LoginCredentials,
    ) -> Result<Arc<SessionInfo>, ConnectError> {
        if !self.core.shared.is_started() {
            return Err(ConnectError::NotRunning);
        }
        let (reply, answer) = oneshot::channel();
        let credentials = Box::new(credentials);
        self.core.send_command(Command::Connect { credentials, reply }).await;
        answer.await.unwrap_or(Err(ConnectError::NotRunning))
    }

    /// Logs out, or gives up a login, and waits until that is done: 6 s at most unless the
    /// configuration of the agent says otherwise.
    ///
    /// # Cancel safety
    /// Dropping the future does not stay connected.
    pub async fn disconnect(&self) {
        if !self.core.shared.is_started() {
            return;
        }
        let (done, over) = oneshot::channel();
        self.core.send_command(Command::Disconnect { done }).await;
        // It fails where the core is gone, and with it the connection.
        let _ = over.await;
    }

    /// What a grid tells about itself before anybody logs in: its name, pages for people, where one
    /// logs in. It is asked by way of the client's proxies; what it told is kept for
    /// [`GRID_INFO_KEPT`](crate::GRID_INFO_KEPT).
    ///
    /// # Errors
    /// [`GridInfoError`]
    ///
    /// # Cancel safety
    /// Dropping the future lets the question go on until its end.
    pub async fn grid_info(&self, grid: Grid) -> Result<Arc<GridInfo>, GridInfoError> {
        if !self.core.shared.is_started() {
            return Err(GridInfoError::NotRunning);
        }
        let (reply, answer) = oneshot::channel();
        self.core.send_command(Command::GridInfo { grid: Box::new(grid), reply }).await;
        answer.await.unwrap_or(Err(GridInfoError::NotRunning))
    }

    /// What second factors left for the next login, to be saved.
    pub fn mfa(&self) -> MfaStore {
        self.core.shared.mfa()
    }

    /// What the last session did that ended.
    pub fn last_summary(&self) -> Option<SessionSummary> {
        self.core.shared.last_summary()
    }

    /// What the present session did so far; `None` without one.
    pub async fn summary(&self) -> Option<SessionSummary> {
        self.core.with(|session, now| session.summary(now)).await
    }
}

/// Everything that a client gives to others: `Send`, `Sync` and cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientHandle {
    /// The connection.
    pub network_manager: NetworkManager,
    /// Handlers of messages.
    pub handler_registry: HandlerRegistry,
    /// What happens in the world.
    pub event_bus: EventBus<WorldEvent>,
    /// Proxies.
    pub proxy_manager: ProxyManager,
    core: CoreHandle,
}

impl ClientHandle {
    pub(crate) fn of(core: &CoreHandle) -> Self {
        Self {
            network_manager: NetworkManager { core: core.clone() },
            handler_registry: core.shared.registry.clone(),
            event_bus: core.shared.world.clone(),
            proxy_manager: core.shared.proxies.clone(),
            core: core.clone(),
        }
    }

    /// What sends, asks and travels on behalf of the avatar.
    pub const fn core(&self) -> &CoreHandle {
        &self.core
    }

    /// What an avatar can do, in words of every day.
    pub fn bot(&self) -> Bot {
        Bot::new(self.core.clone())
    }
}

/// Why a client could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitializeError {
    /// The operating system gives no thread or no descriptors.
    #[error("the client's threads could not be started: {0}")]
    Os(#[from] io::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The thread ended before it began.
    #[error("the client's thread ended before it began")]
    Ended,
}

struct Running {
    /// Gives nothing; it closes when the thread is through.
    through: thread_mpsc::Receiver<()>,
    thread: JoinHandle<()>,
    _handlers: HandlerPool,
}

/// A client for Second Life and OpenSimulator.
///
/// It has a thread of its own for the network, and others for handlers while these have work.
/// Dropping it says goodbye to the grid, waits for nobody's answer, and ends every task, thread and
/// socket. See the [crate] for an example.
pub struct Client {
    /// The connection.
    pub network_manager: NetworkManager,
    /// Handlers of messages.
    pub handler_registry: HandlerRegistry,
    /// What happens in the world.
    pub event_bus: EventBus<WorldEvent>,
    /// Proxies.
    pub proxy_manager: ProxyManager,
    handle: ClientHandle,
    /// What the thread gets.
    parked: Option<(ViewerConfig, mpsc::Receiver<Command>)>,
    running: Option<Running>,
}

impl Client {
    /// A client with the usual configuration. It does nothing before it is
    /// [`initialize`](Self::initialize)d.
    pub fn new() -> Self {
        Self::with_config(ViewerConfig::default())
    }

    /// A client with another configuration.
    pub fn with_config(config: ViewerConfig) -> Self {
        let manager = ProxyManager::new(config.proxies.clone());
        Self::behind(config, manager)
    }

    /// A client behind the same proxies as others: what the manager says counts, and not the
    /// configuration's proxies.
    pub fn behind(config: ViewerConfig, manager: ProxyManager) -> Self {
        let shared = Arc::new(Shared::new(manager));
        let (commands, parked) = mpsc::channel(COMMANDS_MAX);
        let handle = ClientHandle::of(&CoreHandle { shared, commands });
        Self {
            network_manager: handle.network_manager.clone(),
            handler_registry: handle.handler_registry.clone(),
            event_bus: handle.event_bus.clone(),
            proxy_manager: handle.proxy_manager.clone(),
            handle,
            parked: Some((config, parked)),
            running: None,
        }
    }

    /// Starts the client's threads. Called again, it does nothing.
    ///
    /// # Errors
    /// [`InitializeError`]; the client cannot be started then.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the client starting.
    pub async fn initialize(&mut self) -> Result<(), InitializeError> {
        let Some((config, commands)) = self.parked.take() else {
            return if self.running.is_some() { Ok(()) } else { Err(InitializeError::Ended) };
        };
        let handlers = HandlerPool::new()?;
        let (ready, started) = oneshot::channel();
        let (end, through) = thread_mpsc::channel();
        let (handle, starter) = (self.handle.clone(), handlers.starter());
        let network = move || {
            let _through: thread_mpsc::Sender<()> = end;
            let core = TokioEnv::new(None).map_err(InitializeError::Os).and_then(|env| {
                let manager = handle.proxy_manager.clone();
                let pool = ProxyPool::new(env.clone(), manager, config.http.clone());
                let mut core = ViewerCore::beside(env.clone(), config, &pool, (&handle, commands))?;
                core.start_jobs_with(Box::new(move |job| starter.start(job)));
                Ok((env, core))
            });
            // It keeps nobody waiting for commands.
            drop(handle);
            match core {
                Ok((env, core)) => {
                    // Who asked may have gone.
                    let _ = ready.send(Ok(()));
                    env.block_on(core.run());
                }
                Err(error) => {
                    // Who asked may have gone.
                    let _ = ready.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new().name("twinspan-viewer".into()).spawn(network)?;
        self.running = Some(Running { through, thread, _handlers: handlers });
        let outcome = started.await.unwrap_or(Err(InitializeError::Ended));
        if outcome.is_err() {
            self.running = None;
        }
        outcome
    }

    /// Logs in and waits until the avatar is in its first region; see [`NetworkManager::connect`].
    ///
    /// # Errors
    /// [`ConnectError`]
    ///
    /// # Cancel safety
    /// Dropping the future gives up nothing.
    pub async fn connect(
        &self,
        credentials: LoginCredentials,
    ) -> Result<Arc<SessionInfo>, ConnectError> {
        self.network_manager.connect(credentials).await
    }

    /// Logs out and waits until that is done; see [`NetworkManager::disconnect`].
    pub async fn disconnect(&self) {
        self.network_manager.disconnect().await;
    }

    /// Everything that this client gives to others.
    pub fn handle(&self) -> ClientHandle {
        self.handle.clone()
    }

    /// What an avatar can do, in words of every day.
    pub fn bot(&self) -> Bot {
        self.handle.bot()
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("status", &self.network_manager.status())
            .field("is_running", &self.running.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        let mut command = Command::Shutdown;
        // The thread takes what waits many times a second; a full queue has room soon.
        for _ in 0..END_GRACE.as_millis() {
            match self.handle.core.commands.try_send(command) {
                Err(TrySendError::Full(same)) => command = same,
                Ok(()) | Err(TrySendError::Closed(_)) => break,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let end = running.through.recv_timeout(END_GRACE);
        // Else the operating system holds it; it ends by itself then.
        if end == Err(thread_mpsc::RecvTimeoutError::Disconnected)
            && running.thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread was shown by it.
            let _ = running.thread.join();
        }
    }
}
