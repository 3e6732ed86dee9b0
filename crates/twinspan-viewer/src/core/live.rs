//! A session that is driven: the machine over its socket, with its commands and its regions' tasks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use twinspan_circuit::{AgentEvent, Journey, Seed};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_http::{Bytes, HttpClient};
use twinspan_provider::{Env, Machine, SocketReport};

use super::fetches::Fetches;
use super::infos::Infos;
use super::region_task::{self, Note, QueueState};
use super::seeds::Seeds;
use super::session::AgentSession;
use super::{SessionEnd, Starter, Waiting};
use crate::assets::{AssetError, fetch_asset};
use crate::caps::Capabilities;
use crate::event::{DisconnectReason, NetworkError, NetworkEvent};
use crate::features::{FeaturesError, fetch_features};
use crate::handle::{Arrived, Command, ConnectError, JourneyError, Shared};
use crate::inventory::{FetchError, fetch_folders};
use crate::queue::{QueueBody, QueueMessage, circuit_event};
use crate::region::RegionInfo;
use crate::status::Cause;
use crate::upload::{CAPABILITY, NewFile, UploadError, UploadReply, UploadWay, upload_file};

/// Commands and notes that are taken in one turn.
const COMMANDS_PER_TURN: usize = 64;
/// What regions' tasks found out that may wait; then they wait.
const NOTES_MAX: usize = 256;
/// Names of regions that a summary has.
const REGION_NAMES_MAX: usize = 256;
/// When to look again where no packet buffer was free.
const TURN: Duration = Duration::from_millis(25);

/// A region over HTTP.
struct RegionTask<E: Env> {
    seed: Seed,
    state: Rc<RefCell<QueueState>>,
    _task: E::Task,
}

/// See the module.
pub(super) struct Live<E: Env> {
    env: E,
    http: HttpClient<E>,
    infos: Rc<RefCell<Infos<E>>>,
    session: AgentSession,
    commands: mpsc::Receiver<Command>,
    handles_gone: bool,
    notes: mpsc::Receiver<(SocketAddr, Note)>,
    note_sender: mpsc::Sender<(SocketAddr, Note)>,
    tasks: BTreeMap<SocketAddr, RegionTask<E>>,
    seeds: Seeds,
    fetches: Fetches<E>,
    starter: Starter,
    waiting: Waiting,
    disconnected: Vec<oneshot::Sender<()>>,
    shutdown: bool,
    /// Why it is over, once it is.
    reason: Option<DisconnectReason>,
    turn_at: Timestamp,
}

/// What is left of a session.
pub(super) struct Parts {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) starter: Starter,
    pub(super) waiting: Waiting,
    pub(super) end: SessionEnd,
}

impl<E: Env> Live<E> {
    pub(super) fn new(
        env: E,
        (http, infos): (HttpClient<E>, Rc<RefCell<Infos<E>>>),
        session: AgentSession,
        commands: mpsc::Receiver<Command>,
        starter: Starter,
        waiting: Waiting,
    ) -> Self {
        let (note_sender, notes) = mpsc::channel(NOTES_MAX);
        let mut live = Self {
            fetches: Fetches::new(env.clone()),
            env,
            http,
            infos,
            session,
            commands,
            handles_gone: false,
            notes,
            note_sender,
            tasks: BTreeMap::new(),
            seeds: Seeds::default(),
            starter,
            waiting,
            disconnected: Vec::new(),
            shutdown: false,
            reason: None,
            turn_at: Timestamp::START,
        };
        let info = Arc::clone(&live.session.info);
        if let Some(seed) = info.seed() {
            live.begin_region(info.simulator, seed.clone());
        }
        live
    }

    /// Ends it, driven or not: what is left, and why it is over. `failure` is what stopped the
    /// socket.
    pub(super) fn end(self, failure: Option<String>) -> Parts {
        let Self {
            env, commands, starter, waiting, disconnected, shutdown, reason, session, ..
        } = self;
        let fallback = failure.map_or(DisconnectReason::Dropped, |why| {
            session.ears.shared.tell_error(NetworkError::Transport { reason: why.clone() });
            DisconnectReason::Transport(why)
        });
        let reason = reason.unwrap_or(fallback);
        session.ears.shared.set_region(None);
        session.ears.shared.set_last_summary(session.summary(env.now()));
        Parts { commands, starter, waiting, end: SessionEnd { reason, disconnected, shutdown } }
    }

    /// It has a socket.
    pub(super) fn on_socket(&mut self, local: SocketAddr, socket: SocketReport) {
        self.session.summary.receive_buffer_bytes = socket.receive_buffer_bytes;
        self.tell(NetworkEvent::SocketOpened { local, socket });
    }

    fn shared(&self) -> &Shared {
        &self.session.ears.shared
    }

    fn tell(&self, event: NetworkEvent) {
        self.shared().events.tell(event);
    }

    /// After the agent took something in: what it tells, and what is to be sent or begun for it.
    fn settle(&mut self, now: Timestamp) {
        self.session.send_answers(now);
        for job in self.session.ears.dispatcher.take_jobs() {
            (self.starter)(job);
        }
        while let Some(event) = self.session.agent.poll_event() {
            self.on_agent_event(now, event);
        }
    }

    fn on_agent_event(&mut self, now: Timestamp, event: AgentEvent) {
        match event {
            AgentEvent::CircuitUp { addr } => {
                self.session.summary.circuits += 1;
                self.tell(NetworkEvent::CircuitConnected { address: addr });
                if let Some(seed) = self.seeds.take(addr) {
                    self.begin_region(addr, seed);
                }
            }
            AgentEvent::Handshake { addr, name, region_id, flags } => {
                self.on_region(RegionInfo { address: addr, handle: 0, name, id: region_id, flags });
            }
            AgentEvent::Seed { addr, seed } => self.on_seed(now, addr, seed),
            AgentEvent::Arrived { addr, handle, position, journey } => {
                self.session.arrived_at = position;
                self.on_arrived(now, Arrived { address: addr, position }, handle, journey);
            }
            AgentEvent::TeleportStarted => self.tell(NetworkEvent::TeleportStarted),
            AgentEvent::TeleportProgress { text } => {
                self.tell(NetworkEvent::TeleportProgress { text });
            }
            AgentEvent::TeleportedHere { position } => {
                self.session.arrived_at = position;
                let arrived =
                    self.session.agent.region().map(|address| Arrived { address, position });
                self.answer_journey(arrived.ok_or(JourneyError::NotConnected));
                self.tell(NetworkEvent::TeleportedHere { position });
            }
            AgentEvent::TravelFailed { journey, error } => {
                if journey == Journey::Teleport {
                    self.answer_journey(Err(JourneyError::Failed(error.clone())));
                }
                self.tell(NetworkEvent::TravelFailed { journey, error });
            }
            AgentEvent::CircuitDown { addr, reason } => {
                self.on_region_gone(addr);
                self.tell(NetworkEvent::CircuitClosed { address: addr, reason });
            }
            AgentEvent::Delivery { id, outcome, .. } => self.session.on_delivery(id, outcome),
            AgentEvent::Ended { reason } => {
                self.reason.get_or_insert(DisconnectReason::Ended(reason));
            }
            // Rates alone are of little interest; they are in the counters.
            _ => {}
        }
    }

    fn answer_journey(&mut self, outcome: Result<Arrived, JourneyError>) {
        if let Some(reply) = self.session.journey.take() {
            // Who asked may have gone.
            let _ = reply.send(outcome);
        }
    }

    fn on_region(&mut self, info: RegionInfo) {
        let names = &mut self.session.summary.regions;
        if names.len() < REGION_NAMES_MAX && !names.contains(&info.name) {
            names.push(info.name.clone());
        }
        let known = self.session.ears.regions.get(&info.address);
        let handle = known.map_or(info.handle, |known| known.handle);
        self.put_region(RegionInfo { handle, ..info });
    }

    fn put_region(&mut self, info: RegionInfo) {
        let info = Arc::new(info);
        self.session.ears.regions.insert(info.address, Arc::clone(&info));
        if self.session.agent.region() == Some(info.address) {
            self.shared().set_region(Some(Arc::clone(&info)));
        }
        self.tell(NetworkEvent::RegionKnown { region: info });
    }

    fn on_arrived(&mut self, now: Timestamp, to: Arrived, handle: u64, journey: Journey) {
        let Arrived { address, position } = to;
        // A region says what it is before or after it lets somebody in.
        let known = self.session.ears.regions.get(&address).cloned();
        if let Some(known) = known.filter(|known| known.handle != handle) {
            let info = Arc::new(RegionInfo { handle, ..(*known).clone() });
            self.session.ears.regions.insert(address, info);
        }
        self.shared().set_region(self.session.ears.regions.get(&address).cloned());
        if journey == Journey::Login {
            self.session.arrived = Some(now);
            self.shared().step(Cause::Arrived);
            let session = Arc::clone(&self.session.info);
            self.shared().set_session(Some(Arc::clone(&session)));
            if let Some(waiting) = self.waiting.take() {
                // Who asked may have gone.
                let _ = waiting.send(Ok(Arc::clone(&session)));
            }
            self.tell(NetworkEvent::Connected { session });
        }
        if journey == Journey::Teleport {
            self.answer_journey(Ok(to));
        }
        self.session.pilot.end(Err(crate::pilot::WalkError::Superseded));
        self.tell(NetworkEvent::RegionEntered { address, handle, position, journey });
    }

    fn on_seed(&mut self, now: Timestamp, address: SocketAddr, seed: Seed) {
        if self.session.agent.circuits().contains(address) {
            self.begin_region(address, seed);
        } else {
            // It may come before the word that there is a neighbour.
            self.seeds.put(now, address, seed);
            self.session.summary.seeds_dropped = self.seeds.dropped();
        }
    }

    /// Asks a region for its capabilities and polls its event queue from now on.
    fn begin_region(&mut self, address: SocketAddr, seed: Seed) {
        if self.tasks.get(&address).is_some_and(|task| task.seed == seed) {
            return;
        }
        let state = Rc::new(RefCell::new(QueueState::default()));
        let work = region_task::run(
            self.env.clone(),
            self.http.clone(),
            (address, seed.clone()),
            self.note_sender.clone(),
            Rc::clone(&state),
        );
        // A former one of the same region ends here: its seed is not good any more.
        let task = self.env.spawn("viewer.region", work);
        self.tasks.insert(address, RegionTask { seed, state, _task: task });
    }

    fn on_region_gone(&mut self, address: SocketAddr) {
        self.tasks.remove(&address);
        self.seeds.forget(address);
        self.session.on_region_gone(address);
    }

    fn on_note(&mut self, now: Timestamp, address: SocketAddr, note: Note) {
        if !self.tasks.contains_key(&address) {
            // Of a region that is gone.
            return;
        }
        match note {
            Note::Caps(caps) => {
                if self.session.summary.caps == 0 {
                    self.session.summary.caps = caps.len();
                }
                let names = caps.names().map(str::to_owned).collect();
                self.session.caps.insert(address, Arc::new(caps));
                self.tell(NetworkEvent::CapabilitiesReceived { address, names });
            }
            Note::CapsFailed(reason) => {
                self.shared().tell_error(NetworkError::Capabilities { address, reason });
            }
            Note::Message(message) => self.on_queue_message(now, address, message),
            Note::Broken(count) => {
                let reason = format!("{count} entries that are no messages");
                self.shared().tell_error(NetworkError::Queue { address, reason });
            }
            Note::Failed(reason) => {
                self.session.summary.queue_failures += 1;
                self.shared().tell_error(NetworkError::Queue { address, reason });
            }
            Note::Gone => {}
            Note::GivenUp(last) => {
                let reason = format!("given up: {last}");
                self.shared().tell_error(NetworkError::Queue { address, reason });
                if self.session.agent.region() == Some(address) {
                    self.reason.get_or_insert(DisconnectReason::QueueGivenUp { last });
                    self.session.agent.logout(now);
                }
            }
        }
    }

    fn on_queue_message(&mut self, now: Timestamp, address: SocketAddr, message: QueueMessage) {
        self.session.summary.queue_messages += 1;
        match circuit_event(&message, self.session.info.agent_id) {
            Some(Ok(event)) => self.session.agent.handle_event(now, address, event),
            Some(Err(error)) => {
                let (name, reason) = (message.name.clone(), error.to_string());
                self.shared().tell_error(NetworkError::QueueMessage { address, name, reason });
            }
            None => {}
        }
        if self.shared().events.listeners() > 0 {
            let (name, body) = (Arc::from(message.name), QueueBody::new(message.body));
            self.tell(NetworkEvent::QueueMessage { address, name, body });
        }
    }

    fn on_command(&mut self, now: Timestamp, command: Command) {
        match command {
            Command::Connect { reply, .. } => {
                // Who asked may have gone.
                let _ = reply.send(Err(ConnectError::Busy(self.shared().status())));
            }
            Command::Disconnect { done } => {
                self.disconnected.push(done);
                self.log_out(now);
            }
            Command::Shutdown => {
                self.log_out(now);
                self.shutdown = true;
            }
            Command::With(work) => work(&mut self.session, now),
            Command::GridInfo { grid, reply } => {
                let http = Ok(self.http.clone());
                self.infos.borrow_mut().ask(http, *grid, reply);
            }
            Command::Asset { kind, id, range, reply } => {
                let Some(caps) = self.session.capabilities() else {
                    // Who asked may have gone.
                    let _ = reply.send(Err(AssetError::NotConnected));
                    return;
                };
                if !self.fetches.has_room() {
                    // Who asked may have gone.
                    let _ = reply.send(Err(AssetError::Busy));
                    return;
                }
                let http = self.http.clone();
                self.fetches.begin("viewer.asset", async move {
                    let outcome = fetch_asset(&http, &caps, kind, id, range).await;
                    // Who asked may have gone.
                    let _ = reply.send(outcome);
                });
            }
            Command::Features { reply } => {
                let Some(caps) = self.session.capabilities() else {
                    // Who asked may have gone.
                    let _ = reply.send(Err(FeaturesError::NotConnected));
                    return;
                };
                if !self.fetches.has_room() {
                    // Who asked may have gone.
                    let _ = reply.send(Err(FeaturesError::Busy));
                    return;
                }
                let http = self.http.clone();
                self.fetches.begin("viewer.features", async move {
                    let outcome = fetch_features(&http, &caps).await;
                    // Who asked may have gone.
                    let _ = reply.send(outcome);
                });
            }
            Command::Folders { owner, folders, reply } => {
                let Some(caps) = self.session.capabilities() else {
                    // Who asked may have gone.
                    let _ = reply.send(Err(FetchError::NotConnected));
                    return;
                };
                if !self.fetches.has_room() {
                    // Who asked may have gone.
                    let _ = reply.send(Err(FetchError::Busy));
                    return;
                }
                let (env, http) = (self.env.clone(), self.http.clone());
                let whose = (owner, self.session.owner_id(owner));
                self.fetches.begin("viewer.inventory", async move {
                    let outcome = fetch_folders(&env, &http, &caps, whose, &folders).await;
                    // Who asked may have gone.
                    let _ = reply.send(outcome);
                });
            }
            Command::Upload { way, file, bytes, reply } => {
                self.on_upload(now, way, (file, bytes), reply);
            }
        }
    }

    fn on_upload(
        &mut self,
        now: Timestamp,
        way: Option<UploadWay>,
        (file, bytes): (NewFile, Bytes),
        reply: UploadReply,
    ) {
        let caps = self.session.capabilities();
        let offers = |caps: &Arc<Capabilities>| caps.get(CAPABILITY).is_some();
        let way = way.or_else(|| {
            let offered = caps.as_ref().map(offers)?;
            Some(if offered { UploadWay::Capability } else { UploadWay::Udp })
        });
        let refusal = match (way, caps) {
            (Some(UploadWay::Udp), _) => return self.session.upload(now, file, bytes, reply),
            (_, None) => UploadError::NotConnected,
            (_, Some(_)) if !self.fetches.has_room() => UploadError::Busy,
            (_, Some(caps)) => {
                let http = self.http.clone();
                return self.fetches.begin("viewer.upload", async move {
                    let outcome = upload_file(&http, &caps, &file, bytes).await;
                    // Who asked may have gone.
                    let _ = reply.send(outcome);
                });
            }
        };
        // Who asked may have gone.
        let _ = reply.send(Err(refusal));
    }

    /// Whether somebody wants the end.
    pub(super) fn is_leaving(&self) -> bool {
        self.shutdown || !self.disconnected.is_empty()
    }

    /// Says goodbye to the region and to the event queues.
    fn log_out(&mut self, now: Timestamp) {
        if !self.shared().step(Cause::Logout) {
            return;
        }
        for task in std::mem::take(&mut self.tasks).into_values() {
            let state = Rc::clone(&task.state);
            // Its poll ends here.
            drop(task);
            let last = region_task::say_done(self.env.clone(), self.http.clone(), state);
            self.fetches.begin("viewer.queue_done", last);
        }
        self.session.agent.logout(now);
    }
}

impl<E: Env> Machine for Live<E> {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.session.refresh_handlers();
        while let Some(datagram) = received.pop() {
            self.session.handle_datagram(now, datagram.peer, &datagram.packet);
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.turn_at = now.after(TURN);
        self.session.handle_timeout(now);
        self.settle(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while out.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let agent = &mut self.session.agent;
            let Some((peer, len)) = agent.poll_transmit(now, packet.room_mut()) else { return };
            packet.set_len(len);
            // There is room.
            drop(out.push(Datagram { peer, at: now, packet }));
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let due = self.session.poll_timeout();
        // Where no buffer was free, something waits still: it is looked after a little later.
        let due = if due == Timestamp::START { self.turn_at } else { due };
        (due != Timestamp::NEVER).then_some(due)
    }

    fn poll_command(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.env.now();
        let mut took = false;
        for _ in 0..COMMANDS_PER_TURN {
            if self.handles_gone {
                break;
            }
            match self.commands.poll_recv(cx) {
                Poll::Ready(Some(command)) => self.on_command(now, command),
                Poll::Ready(None) => {
                    self.handles_gone = true;
                    self.on_command(now, Command::Shutdown);
                }
                Poll::Pending => break,
            }
            took = true;
        }
        for _ in 0..COMMANDS_PER_TURN {
            // This end of the channel has a sender of its own: it does not close.
            let Poll::Ready(Some((address, note))) = self.notes.poll_recv(cx) else { break };
            self.on_note(now, address, note);
            took = true;
        }
        if !took {
            return Poll::Pending;
        }
        self.settle(now);
        Poll::Ready(())
    }

    fn is_done(&self) -> bool {
        // The last words have left by now.
        self.shutdown || (self.reason.is_some() && self.session.agent.is_ended())
    }
}
