//! A client on a thread of its own, and the handle that the application keeps.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_messages::{Encoded, Encoder, Message, MessageBuf, Registry};
use twinspan_net::{ReactorEnv, lock};
use twinspan_provider::{
    BindError, Machine, NetworkProvider, RandomProvider, TimeProvider, UdpError, UdpOptions, drive,
};
use twinspan_reliable::{Channel, Delivery, SendError as QueueError};
use twinspan_session::{CloseReason, ConnectToken, Endpoint, SendError};
use twinspan_world::{EntityId, EntityState, FarRegion};

use super::measured_suite;
use crate::client::{Client, Intent, Notice};
use crate::config::ClientConfig;
use crate::error::{ClientError, SendMessageError};

/// Actions that wait for the client's thread; more are refused.
const ACTIONS_WAITING_MAX: usize = 64;
/// Typed messages that wait, each way: for the client's thread, which refuses more, and for the
/// application, beyond which they wait in the client.
const MESSAGES_WAITING_MAX: usize = 64;
/// How often a wait for a message looks whether the client has ended.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Packet buffers of one client: a window of states and a few inputs.
const POOL_PACKETS: usize = 128;

/// A socket that fails sooner than this has failed at once.
const SOCKET_LIFE_MIN: Duration = Duration::from_secs(1);
/// Sockets in a row that may fail at once before the client ends.
const SOCKET_FAILURES_MAX: u32 = 5;

type Udp = <ReactorEnv as NetworkProvider>::Udp;

/// Why a client could not connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The token or a setting cannot be used.
    #[error(transparent)]
    Config(#[from] ClientError),
    /// No local address could be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The operating system refused what a client needs.
    #[error("cannot start the client's thread: {0}")]
    Os(#[from] std::io::Error),
    /// The session ended before the player stood in the world.
    #[error("the session with {server} ended before it began: {reason:?}")]
    Closed {
        /// The server's address.
        server: SocketAddr,
        /// Why it ended.
        reason: CloseReason,
    },
}

/// What the application sees of its client: the newest state, and what happened.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The player's own entity.
    pub own: Option<EntityId>,
    /// All entities in sight, the player's own among them, by id.
    pub entities: Vec<EntityState>,
    /// How many are in the regions around, sight included; told about once a second.
    pub far: Vec<FarRegion>,
    /// The tick of the newest state.
    pub tick: u32,
    /// Whether the session was lost and the client tries to come back; what is seen is then as it was.
    pub away: bool,
    /// Why the session ended, once it has.
    pub closed: Option<CloseReason>,
}

#[derive(Debug, Default)]
struct Commands {
    intent: Option<Intent>,
    actions: VecDeque<EntityId>,
    messages: VecDeque<(Channel, Vec<u8>)>,
    rebind: bool,
    leave: bool,
}

#[derive(Debug, Default)]
struct Shared {
    commands: Mutex<Commands>,
    view: Mutex<View>,
    notices: Mutex<VecDeque<Notice>>,
    messages: Mutex<VecDeque<MessageBuf>>,
    arrived: Condvar,
    changed: Condvar,
}

/// A connected client. Dropping it leaves the world.
///
/// When its session is lost it comes back by itself to its entity, as long as the server keeps that, and
/// tells by [`Notice::Reconnecting`] and [`Notice::Resumed`].
pub struct ClientHandle {
    shared: Arc<Shared>,
    registry: Option<Arc<Registry>>,
    thread: Option<JoinHandle<Result<(), UdpError>>>,
}

/// Connects with `token` and waits until the player stands in the world.
///
/// # Errors
/// [`ConnectError`] says what is wrong with the token, the socket or the server.
pub fn connect(token: &ConnectToken) -> Result<ClientHandle, ConnectError> {
    connect_with(token, ClientConfig::default())
}

/// The same with other settings than the usual ones, types of messages among them.
///
/// # Errors
/// [`ConnectError`] says what is wrong with the token, the settings, the socket or the server.
pub fn connect_with(
    token: &ConnectToken,
    config: ClientConfig,
) -> Result<ClientHandle, ConnectError> {
    let registry = config.messages.clone();
    let shared = Arc::new(Shared::default());
    let (started_tx, started_rx) = mpsc::sync_channel(1);
    let server = token.server_addr();
    let thread = thread::Builder::new().name("twinspan-client".into()).spawn({
        let shared = Arc::clone(&shared);
        let token = token.clone();
        move || run(&token, config, shared, &started_tx)
    })?;
    match started_rx.recv() {
        Ok(started) => started?,
        Err(_) => return Err(ConnectError::Os(std::io::Error::other("the thread ended at once"))),
    }
    let handle = ClientHandle { shared, registry, thread: Some(thread) };
    // The session itself gives up after its handshake time-out, so this wait ends.
    let view = handle.wait(None, |view| view.own.is_some() || view.closed.is_some());
    match view.closed {
        Some(reason) => Err(ConnectError::Closed { server, reason }),
        None => Ok(handle),
    }
}

fn run(
    token: &ConnectToken,
    config: ClientConfig,
    shared: Arc<Shared>,
    started: &mpsc::SyncSender<Result<(), ConnectError>>,
) -> Result<(), UdpError> {
    let env = match ReactorEnv::new(None) {
        Ok(env) => env,
        Err(error) => {
            // Whoever called `connect` waits for this; if it is gone nobody needs to know.
            let _ = started.send(Err(error.into()));
            return Ok(());
        }
    };
    env.clone().block_on(async {
        match start(&env, token, config).await {
            Ok((client, mut socket)) => {
                let _ = started.send(Ok(()));
                let mut tap = Tap { client, shared, wants_socket: false };
                let ended = play(&env, &mut socket, &mut tap).await;
                tap.publish();
                ended
            }
            Err(error) => {
                let _ = started.send(Err(error));
                Ok(())
            }
        }
    })
}

/// Drives the client, over a fresh socket whenever it wants one or the one in use has failed.
async fn play(env: &ReactorEnv, socket: &mut Udp, tap: &mut Tap) -> Result<(), UdpError> {
    let mut failures = 0;
    loop {
        let began = env.now();
        let ended = drive(env, socket, tap).await;
        if tap.client.is_done() {
            return ended;
        }
        let is_short = env.now().since(began) < SOCKET_LIFE_MIN;
        failures = if ended.is_err() && is_short { failures + 1 } else { 0 };
        if failures == SOCKET_FAILURES_MAX {
            return ended;
        }
        match bind(env, tap.client.session().server_addr()).await {
            Ok(new) => {
                *socket = new;
                // Without an id in reserve the server follows as it does behind a NAT.
                let _ = tap.client.migrate(env.now());
            }
            // The one that has failed cannot be gone on with.
            Err(_) if ended.is_err() => return ended,
            Err(_) => {}
        }
        tap.wants_socket = false;
    }
}

async fn bind(env: &ReactorEnv, server: SocketAddr) -> Result<Udp, BindError> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let options = UdpOptions { pool_packets: POOL_PACKETS, ..UdpOptions::default() };
    env.bind_udp(local, &options).await
}

async fn start(
    env: &ReactorEnv,
    token: &ConnectToken,
    config: ClientConfig,
) -> Result<(Client, Udp), ConnectError> {
    let server = token.server_addr();
    let socket = bind(env, server).await?;
    let client = Client::new(
        config,
        Arc::new(measured_suite()),
        token,
        server,
        env.secrets(),
        env.stream("client", 0),
    )?;
    Ok((client, socket))
}

impl ClientHandle {
    /// What the player does from the next input on.
    pub fn set_intent(&self, intent: Intent) {
        lock(&self.shared.commands).intent = Some(intent);
    }

    /// Walks at full speed towards `yaw` degrees.
    pub fn walk(&self, yaw: f32) {
        self.set_intent(Intent { forward: 1.0, yaw, ..Intent::default() });
    }

    /// Puts the effect on `target`; what became of it comes as [`Notice::ActionResult`]. False when
    /// too many actions wait already.
    pub fn apply_effect(&self, target: EntityId) -> bool {
        let mut commands = lock(&self.shared.commands);
        let room = commands.actions.len() < ACTIONS_WAITING_MAX;
        if room {
            commands.actions.push_back(target);
        }
        room
    }

    /// Sends a typed message on the channel of its type. It leaves with the next input, in order
    /// with the others of its channel.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be, or too many wait already.
    pub fn send_message<T: Message>(&self, message: &T) -> Result<(), SendMessageError> {
        let registry = self.registry.as_ref().ok_or(SendMessageError::NoRegistry)?;
        let mut encoder = Encoder::new();
        let Encoded { channel, bytes } = registry.encode(message, &mut encoder)?;
        let is_one_packet = matches!(channel.delivery, Delivery::Unreliable);
        if is_one_packet && bytes.len() > Endpoint::message_room() {
            return Err(SendMessageError::Session(SendError::NoRoom));
        }
        let mut commands = lock(&self.shared.commands);
        if commands.messages.len() == MESSAGES_WAITING_MAX {
            return Err(SendMessageError::Full);
        }
        commands.messages.push_back((channel, bytes.to_vec()));
        Ok(())
    }

    /// The oldest typed message that was not read yet.
    pub fn poll_message(&self) -> Option<MessageBuf> {
        lock(&self.shared.messages).pop_front()
    }

    /// Waits for a typed message, `time_max` at most or until the session has ended.
    pub fn wait_message(&self, time_max: Duration) -> Option<MessageBuf> {
        // A time that no clock reaches is no limit.
        let until = Instant::now().checked_add(time_max);
        let mut messages = lock(&self.shared.messages);
        loop {
            if let Some(message) = messages.pop_front() {
                return Some(message);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let is_over = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if is_over || left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            let wait = left.unwrap_or(END_CHECK_INTERVAL).min(END_CHECK_INTERVAL);
            let waited = self.shared.arrived.wait_timeout(messages, wait);
            messages = waited.map_or_else(|poisoned| poisoned.into_inner().0, |waited| waited.0);
        }
    }

    /// The newest view.
    pub fn view(&self) -> View {
        lock(&self.shared.view).clone()
    }

    /// What happened since the last call, oldest first.
    pub fn poll_notice(&self) -> Option<Notice> {
        lock(&self.shared.notices).pop_front()
    }

    /// Waits until `fits` is true of the view, the session has ended or `time_max` has passed, and
    /// returns the view as it is then.
    pub fn wait_for(&self, time_max: Duration, fits: impl Fn(&View) -> bool) -> View {
        // A time that no clock reaches is no limit.
        self.wait(Instant::now().checked_add(time_max), fits)
    }

    fn wait(&self, until: Option<Instant>, fits: impl Fn(&View) -> bool) -> View {
        let mut view = lock(&self.shared.view);
        loop {
            if fits(&view) || view.closed.is_some() {
                return view.clone();
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return view.clone();
            }
            let waited = self.shared.changed.wait_timeout(view, left.unwrap_or(Duration::MAX));
            view = waited.map_or_else(|poisoned| poisoned.into_inner().0, |waited| waited.0);
        }
    }

    /// Goes on from another local address, under an id that nobody has seen: for when the network that
    /// the machine is in has changed. It is done within an input's time. A socket that fails is replaced
    /// without being asked, and a change of address behind a NAT needs nothing.
    pub fn rebind(&self) {
        lock(&self.shared.commands).rebind = true;
    }

    /// Leaves the world and waits for the end of the session.
    ///
    /// # Errors
    /// [`UdpError`] when the client's socket had failed.
    pub fn leave(mut self) -> Result<(), UdpError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), UdpError> {
        lock(&self.shared.commands).leave = true;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(UdpError::HostStopped),
            None => Ok(()),
        }
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        // The socket's last error has nobody left to tell.
        let _ = self.end();
    }
}

/// The client as its thread runs it: obeys the handle and publishes the view.
struct Tap {
    client: Client,
    shared: Arc<Shared>,
    /// The driver shall come back with another socket.
    wants_socket: bool,
}

impl Tap {
    fn obey(&mut self, now: Timestamp) {
        let mut commands = lock(&self.shared.commands);
        if let Some(intent) = commands.intent.take() {
            self.client.set_intent(intent);
        }
        while let Some(target) = commands.actions.pop_front() {
            if self.client.apply_effect(now, target).is_err() {
                // The session's queue is full: try again at the next input.
                commands.actions.push_front(target);
                break;
            }
        }
        while let Some((channel, bytes)) = commands.messages.pop_front() {
            match self.client.send_encoded(now, channel, &bytes) {
                Ok(()) => {}
                // The session's queue is full, or not there yet: try again at the next input.
                Err(SendError::NotConnected | SendError::Queue(QueueError::Full { .. })) => {
                    commands.messages.push_front((channel, bytes));
                    break;
                }
                // The session is over, and counted it.
                Err(_) => {}
            }
        }
        self.wants_socket |= core::mem::take(&mut commands.rebind);
        if commands.leave {
            self.client.close(now);
        }
    }

    fn publish(&mut self) {
        let mut message = MessageBuf::default();
        while lock(&self.shared.messages).len() < MESSAGES_WAITING_MAX
            && self.client.poll_message(&mut message)
        {
            lock(&self.shared.messages).push_back(core::mem::take(&mut message));
            self.shared.arrived.notify_all();
        }
        while let Some(notice) = self.client.poll_notice() {
            let mut notices = lock(&self.shared.notices);
            if notices.len() == ClientConfig::default().notices_max {
                notices.pop_front();
            }
            notices.push_back(notice);
        }
        let mut view = lock(&self.shared.view);
        view.own = self.client.own();
        view.tick = self.client.replica().tick();
        view.away = self.client.is_away();
        view.closed = self.client.closed();
        view.entities.clear();
        view.entities.extend(self.client.replica().entities());
        view.far.clear();
        view.far.extend(self.client.replica().far());
        self.shared.changed.notify_all();
    }
}

impl Machine for Tap {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.client.handle_datagrams(now, received);
        self.publish();
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.obey(now);
        self.client.handle_timeout(now);
        self.publish();
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.client.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.client.poll_timeout()
    }

    fn is_done(&self) -> bool {
        self.client.is_done() || self.wants_socket
    }
}
