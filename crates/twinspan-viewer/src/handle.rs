//! Handles of a running client: `Send`, `Sync` and cheap to clone.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use twinspan_circuit::{
    CircuitStats, Destination, Outcome, Rates, SendError, SendOptions, TeleportError, TravelError,
};
use twinspan_core::time::Timestamp;
use twinspan_http::Bytes;
use twinspan_lludp::{AnyMessage, Uuid, Vector3};

use crate::assets::{Asset, AssetError, AssetKind, ByteRange};
use crate::bus::EventBus;
use crate::caps::Capabilities;
use crate::core::{AgentSession, InfoReply};
use crate::credentials::LoginCredentials;
use crate::event::{NetworkError, NetworkEvent, WorldEvent};
use crate::features::{FeaturesError, SimulatorFeatures};
use crate::grid::Grid;
use crate::handlers::HandlerRegistry;
use crate::inventory::{FetchError, Fetched, InventoryOwner};
use crate::login::{LoginError, MfaStore};
use crate::proxies::ProxyManager;
use crate::region::RegionInfo;
use crate::session_info::SessionInfo;
use crate::status::{Cause, NetworkStatus};
use crate::summary::SessionSummary;
use crate::transfer::{TransferError, TransferRequest};
use crate::upload::{NewFile, UploadError, UploadReply, UploadWay, UploadedFile};

/// Requests of users that wait for the core; who sends more waits.
pub const COMMANDS_MAX: usize = 1_024;

/// What the core and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) events: EventBus<NetworkEvent>,
    pub(crate) world: EventBus<WorldEvent>,
    pub(crate) registry: HandlerRegistry,
    pub(crate) proxies: ProxyManager,
    status: watch::Sender<NetworkStatus>,
    session: watch::Sender<Option<Arc<SessionInfo>>>,
    region: watch::Sender<Option<Arc<RegionInfo>>>,
    started: AtomicBool,
    /// What the last session did that ended.
    last: Mutex<Option<SessionSummary>>,
    mfa: Mutex<MfaStore>,
}

impl Shared {
    pub(crate) fn new(proxies: ProxyManager) -> Self {
        Self {
            events: EventBus::new(),
            world: EventBus::new(),
            registry: HandlerRegistry::new(),
            proxies,
            status: watch::Sender::new(NetworkStatus::Idle),
            session: watch::Sender::new(None),
            region: watch::Sender::new(None),
            started: AtomicBool::new(false),
            last: Mutex::new(None),
            mfa: Mutex::default(),
        }
    }

    /// What the last session did that ended.
    pub(crate) fn last_summary(&self) -> Option<SessionSummary> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_last_summary(&self, summary: SessionSummary) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
    }

    /// What second factors left.
    pub(crate) fn mfa(&self) -> MfaStore {
        self.mfa.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_mfa(&self, store: MfaStore) {
        *self.mfa.lock().unwrap_or_else(PoisonError::into_inner) = store;
    }

    /// Whether there is a core that takes commands, or was.
    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn set_started(&self) {
        // Alone it says nothing that must be seen at once.
        self.started.store(true, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> NetworkStatus {
        *self.status.borrow()
    }

    /// Moves to the next status, if the table allows it; the core alone calls this.
    pub(crate) fn step(&self, cause: Cause) -> bool {
        let old = self.status();
        let Some(new) = old.after(cause) else { return false };
        if old != new {
            self.status.send_replace(new);
            self.events.tell(NetworkEvent::StatusChanged { old, new });
        }
        true
    }

    pub(crate) fn set_session(&self, session: Option<Arc<SessionInfo>>) {
        self.session.send_replace(session);
    }

    pub(crate) fn set_region(&self, region: Option<Arc<RegionInfo>>) {
        self.region.send_replace(region);
    }

    pub(crate) fn tell_error(&self, error: NetworkError) {
        self.events.tell(NetworkEvent::Error { error });
    }
}

/// Why a client could not be connected.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The grid did not let the avatar in.
    #[error(transparent)]
    Login(#[from] Arc<LoginError>),
    /// The grid did, and its first region did not.
    #[error("the grid let the avatar in, its region did not: {0}")]
    Region(String),
    /// It is connected, or about to be.
    #[error("the client is {0} already, disconnect first")]
    Busy(NetworkStatus),
    /// The connection was given up before it was there.
    #[error("given up before the connection was there")]
    Cancelled,
    /// The client is not running.
    #[error("the client does not run, call `initialize` first")]
    NotRunning,
}

/// Why something was not sent, or is not known to have arrived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// There is no connection.
    #[error("the client is not connected")]
    NotConnected,
    /// It was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It was not acknowledged in its time. It may have arrived.
    #[error("it was not acknowledged in its time")]
    TimedOut {
        /// How often it left again; `None` when it never left.
        resends: Option<u32>,
    },
    /// The circuit ended before it was acknowledged. It may have arrived.
    #[error("the circuit ended before it was acknowledged")]
    Closed,
}

/// Why a journey was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JourneyError {
    /// There is no connection, or it ended on the way.
    #[error("the client is not connected")]
    NotConnected,
    /// It was not asked for.
    #[error(transparent)]
    Refused(#[from] TravelError),
    /// It came to nothing.
    #[error(transparent)]
    Failed(#[from] TeleportError),
}

/// Where a journey ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrived {
    /// The region's simulator.
    pub address: SocketAddr,
    /// Where in it, in metres.
    pub position: Vector3,
}

/// Something that is done with a session, on its own thread.
type Work = Box<dyn FnOnce(&mut AgentSession, Timestamp) + Send>;

/// What is asked of the core.
pub(crate) enum Command {
    Connect {
        credentials: Box<LoginCredentials>,
        reply: oneshot::Sender<Result<Arc<SessionInfo>, ConnectError>>,
    },
    Disconnect {
        done: oneshot::Sender<()>,
    },
    /// Ends the core, without waiting for anybody.
    Shutdown,
    /// Does something with the session, if there is one.
    With(Work),
    /// What a grid tells about itself, with a session or without.
    GridInfo {
        grid: Box<Grid>,
        reply: InfoReply,
    },
    Asset {
        kind: AssetKind,
        id: Uuid,
        range: Option<ByteRange>,
        reply: oneshot::Sender<Result<Asset, AssetError>>,
    },
    Features {
        reply: oneshot::Sender<Result<SimulatorFeatures, FeaturesError>>,
    },
    Folders {
        owner: InventoryOwner,
        folders: Vec<Uuid>,
        reply: oneshot::Sender<Result<Fetched, FetchError>>,
    },
    Upload {
        /// As the region has it where nobody says.
        way: Option<UploadWay>,
        file: NewFile,
        bytes: Bytes,
        reply: UploadReply,
    },
}

/// Sends, asks and travels on behalf of the avatar. Clones are the same core.
#[derive(Clone)]
pub struct CoreHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl fmt::Debug for CoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreHandle").field("status", &self.shared.status()).finish_non_exhaustive()
    }
}

impl CoreHandle {
    pub(crate) fn tell_error(&self, error: NetworkError) {
        self.shared.tell_error(error);
    }

    /// Where the client is in its life.
    pub fn status(&self) -> NetworkStatus {
        self.shared.status()
    }

    /// What the present login gave.
    pub fn session(&self) -> Option<Arc<SessionInfo>> {
        self.shared.session.borrow().clone()
    }

    /// The region that the avatar is in, once it said what it is.
    pub fn region(&self) -> Option<Arc<RegionInfo>> {
        self.shared.region.borrow().clone()
    }

    /// The circuit to a region.
    pub fn circuit(&self, address: SocketAddr) -> Circuit {
        Circuit { core: self.clone(), address: Some(address) }
    }

    /// The circuit to whatever region the avatar is in at the time.
    pub fn main_circuit(&self) -> Circuit {
        Circuit { core: self.clone(), address: None }
    }

    pub(crate) async fn send_command(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Does something with the session on the core's own thread; `None` without one.
    pub(crate) async fn with<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AgentSession, Timestamp) -> R + Send + 'static,
    ) -> Option<R> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |session: &mut AgentSession, now| {
            // Who asked may have gone.
            let _ = reply.send(work(session, now));
        });
        self.send_command(Command::With(work)).await;
        answer.await.ok()
    }

    /// Asks for a teleport and waits for what becomes of it. One that the grid makes of its own
    /// accord is told by [`NetworkEvent::RegionEntered`].
    ///
    /// # Errors
    /// [`JourneyError`]
    ///
    /// # Cancel safety
    /// Dropping the future cancels nothing; see [`cancel_teleport`](Self::cancel_teleport).
    pub async fn teleport(&self, to: Destination) -> Result<Arrived, JourneyError> {
        let (reply, arrived) = oneshot::channel();
        let asked = self.with(move |session, now| session.teleport(now, to, reply)).await;
        asked.ok_or(JourneyError::NotConnected)??;
        arrived.await.unwrap_or(Err(JourneyError::NotConnected))
    }

    /// Cancels the teleport that is under way. If the grid decided otherwise meanwhile, the avatar
    /// follows it.
    ///
    /// # Errors
    /// [`JourneyError`] when there is none.
    pub async fn cancel_teleport(&self) -> Result<(), JourneyError> {
        let cancelled = self.with(AgentSession::cancel_teleport).await;
        Ok(cancelled.ok_or(JourneyError::NotConnected)??)
    }

    /// Allows another sum of rates, in bits a second, and tells every region. False without a
    /// connection.
    pub async fn allow_rate(&self, bits_per_second: f32) -> bool {
        self.with(move |session, now| session.allow_rate(now, bits_per_second)).await.is_some()
    }

    /// Says that nothing will be said or heard for a while, or that this is over.
    ///
    /// # Errors
    /// [`DeliveryError`]
    pub async fn set_paused(&self, paused: bool) -> Result<(), DeliveryError> {
        let sent = self.with(move |session, now| session.set_paused(now, paused)).await;
        Ok(sent.ok_or(DeliveryError::NotConnected)??)
    }

    /// The capabilities of the region that the avatar is in, once they came.
    pub async fn capabilities(&self) -> Option<Arc<Capabilities>> {
        self.with(|session, _| session.capabilities()).await.flatten()
    }

    /// Fetches a texture, a mesh or another asset over HTTP, or a part of it.
    ///
    /// # Errors
    /// [`AssetError`]
    pub async fn fetch_asset(
        &self,
        kind: AssetKind,
        id: Uuid,
        range: Option<ByteRange>,
    ) -> Result<Asset, AssetError> {
        let (reply, answer) = oneshot::channel();
        self.send_command(Command::Asset { kind, id, range, reply }).await;
        answer.await.unwrap_or(Err(AssetError::NotConnected))
    }

    /// Asks the region that the avatar is in what its simulator can do.
    ///
    /// # Errors
    /// [`FeaturesError`]
    pub async fn simulator_features(&self) -> Result<SimulatorFeatures, FeaturesError> {
        let (reply, answer) = oneshot::channel();
        self.send_command(Command::Features { reply }).await;
        answer.await.unwrap_or(Err(FeaturesError::NotConnected))
    }

    /// Fetches what is in folders of the inventory or of the library.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn fetch_folders(
        &self,
        owner: InventoryOwner,
        folders: Vec<Uuid>,
    ) -> Result<Fetched, FetchError> {
        let (reply, answer) = oneshot::channel();
        self.send_command(Command::Folders { owner, folders, reply }).await;
        answer.await.unwrap_or(Err(FetchError::NotConnected))
    }

    /// Uploads an asset, which becomes an item of the inventory: by the capability for that where the
    /// region that the avatar is in offers it, else over UDP. [`UploadedFile::by`] tells which.
    ///
    /// # Errors
    /// [`UploadError`]; [`UploadError::NotConnected`] also where the region's capabilities are not
    /// known yet.
    ///
    /// # Cancel safety
    /// Dropping the future lets an upload by the capability go on, and ends one over UDP; the asset
    /// may be there.
    pub async fn upload(
        &self,
        file: NewFile,
        bytes: impl Into<Bytes>,
    ) -> Result<UploadedFile, UploadError> {
        self.upload_on(None, file, bytes.into()).await
    }

    /// As [`upload`](Self::upload), and in no other way than this.
    ///
    /// # Errors
    /// [`UploadError`]; [`UploadError::NoCapability`] where the region has none.
    ///
    /// # Cancel safety
    /// As [`upload`](Self::upload).
    pub async fn upload_by(
        &self,
        way: UploadWay,
        file: NewFile,
        bytes: impl Into<Bytes>,
    ) -> Result<UploadedFile, UploadError> {
        self.upload_on(Some(way), file, bytes.into()).await
    }

    async fn upload_on(
        &self,
        way: Option<UploadWay>,
        file: NewFile,
        bytes: Bytes,
    ) -> Result<UploadedFile, UploadError> {
        let (reply, answer) = oneshot::channel();
        self.send_command(Command::Upload { way, file, bytes, reply }).await;
        answer.await.unwrap_or(Err(UploadError::NotConnected))
    }

    /// Fetches something over UDP, by `Transfer` or `Xfer`, from the region that the avatar is in.
    ///
    /// # Errors
    /// [`TransferError`]
    ///
    /// # Cancel safety
    /// Dropping the future lets the transfer go on until its end or its time.
    pub async fn transfer(&self, request: TransferRequest) -> Result<Vec<u8>, TransferError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.with(move |session, now| session.transfer(now, request, reply)).await;
        asked.ok_or(TransferError::NotConnected)??;
        answer.await.unwrap_or(Err(TransferError::NotConnected))
    }

    /// The counters of all circuits that there are and were in this session.
    pub async fn circuit_stats(&self) -> Option<CircuitStats> {
        self.with(|session, _| session.circuit_stats()).await
    }
}

/// One circuit: to a region by its address, or to whatever region the avatar is in.
#[derive(Clone, Debug)]
pub struct Circuit {
    core: CoreHandle,
    address: Option<SocketAddr>,
}

impl Circuit {
    /// The region's simulator; `None` for whatever region the avatar is in.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Sends messages reliably, all of them or none, and waits until all are acknowledged: 5 s
    /// unless [`Config::delivery_timeout`](twinspan_circuit::Config::delivery_timeout) says
    /// otherwise. The answer is how long that took.
    ///
    /// # Errors
    /// [`DeliveryError`]
    ///
    /// # Cancel safety
    /// Dropping the future recalls nothing.
    pub async fn send_reliable(
        &self,
        messages: impl IntoIterator<Item = impl Into<AnyMessage>>,
    ) -> Result<Duration, DeliveryError> {
        self.send_reliable_with(messages, SendOptions::RELIABLE).await
    }

    /// As [`send_reliable`](Self::send_reliable), with other options.
    ///
    /// # Errors
    /// [`DeliveryError`]
    ///
    /// # Cancel safety
    /// Dropping the future recalls nothing.
    pub async fn send_reliable_with(
        &self,
        messages: impl IntoIterator<Item = impl Into<AnyMessage>>,
        options: SendOptions,
    ) -> Result<Duration, DeliveryError> {
        let (address, messages) = (self.address, messages.into_iter().map(Into::into).collect());
        let (reply, outcome) = oneshot::channel();
        let sent = self.core.with(move |session, now| {
            let messages: Vec<AnyMessage> = messages;
            session.send_tracked(now, address, &messages, options, reply)
        });
        sent.await.ok_or(DeliveryError::NotConnected)??;
        match outcome.await {
            Ok(Outcome::Acked { elapsed }) => Ok(elapsed),
            Ok(Outcome::TimedOut { resends }) => Err(DeliveryError::TimedOut { resends }),
            Ok(Outcome::Closed) | Err(_) => Err(DeliveryError::Closed),
        }
    }

    /// Sends a message once, without an ack.
    ///
    /// # Errors
    /// [`DeliveryError`]
    pub async fn send(&self, message: impl Into<AnyMessage>) -> Result<(), DeliveryError> {
        let (address, message) = (self.address, message.into());
        let sent = self.core.with(move |session, now| session.send(now, address, &message)).await;
        Ok(sent.ok_or(DeliveryError::NotConnected)??)
    }

    /// The counters of the circuit.
    pub async fn stats(&self) -> Option<CircuitStats> {
        let address = self.address;
        self.core.with(move |session, _| session.stats_of(address)).await.flatten()
    }

    /// The smoothed round trip, once a ping was answered.
    pub async fn rtt(&self) -> Option<Duration> {
        let address = self.address;
        self.core.with(move |session, _| session.rtt_of(address)).await.flatten()
    }

    /// Lets this end keep to rates, in bits a second; false when there is no such circuit.
    pub async fn set_rates(&self, rates: Rates) -> bool {
        let address = self.address;
        self.core.with(move |session, _| session.set_rates(address, &rates)).await.unwrap_or(false)
    }
}
