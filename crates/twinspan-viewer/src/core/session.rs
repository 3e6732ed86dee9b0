//! One agent at work: its circuits, what is around it, and who waits for what.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use twinspan_circuit::{
    Agent, Body, CircuitStats, DeliveryId, Destination, Outcome, Rates, Received, SendError,
    SendOptions, Sink, Taken, TravelError,
};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_http::Bytes;
use twinspan_lludp::{AnyMessage, DecodeError, MessageId, Uuid, Vector3};
use twinspan_provider::Env;

use super::ViewerConfig;
use crate::caps::Capabilities;
use crate::event::{NetworkError, NetworkEvent};
use crate::handle::{Arrived, Command, CoreHandle, JourneyError, Shared};
use crate::handlers::{Dispatcher, HandlerContext};
use crate::inventory::InventoryOwner;
use crate::lookup::{LookupError, Lookups};
use crate::pilot::{Goal, Pilot, WalkError};
use crate::region::RegionInfo;
use crate::seat::{SeatError, SeatReply, SeatsWaitedFor};
use crate::session_info::SessionInfo;
use crate::summary::SessionSummary;
use crate::transfer::{Answers, TransferError, TransferRequest, Transfers};
use crate::upload::{NewFile, UdpUploads, UploadError, UploadReply};
use crate::world::{Surroundings, Told};

/// For words on whose arrival something longer depends.
const PATIENT: SendOptions = SendOptions::RELIABLE.within(Duration::from_secs(20));
/// For packets of assets, which leave anew where they are not confirmed.
const PART: SendOptions = SendOptions::RELIABLE;

/// Who waits for the end of a journey.
pub(crate) type JourneyReply = oneshot::Sender<Result<Arrived, JourneyError>>;

/// What hears messages, apart from the agent.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) shared: Arc<Shared>,
    sender: mpsc::WeakSender<Command>,
    pub(super) dispatcher: Dispatcher,
    pub(super) world: Surroundings,
    pub(super) transfers: Transfers,
    pub(super) uploads: UdpUploads,
    pub(super) lookups: Lookups,
    pub(super) seats: SeatsWaitedFor,
    /// What is to be sent because of what came.
    pub(super) out: Answers,
    pub(super) regions: BTreeMap<SocketAddr, Arc<RegionInfo>>,
    ids: (Uuid, Uuid),
    message_events: bool,
    track_world: bool,
    pub(super) messages_unknown: u64,
    pub(super) messages_broken: u64,
}

impl Sink for Ears {
    fn on_message(&mut self, now: Timestamp, message: Received<'_>) -> Taken {
        let (from, id, body) = (message.from, message.id, message.body);
        self.transfers.handle_message(now, from, id, body, &mut self.out);
        self.uploads.handle_message(now, (from, self.ids), id, body, &mut self.out);
        self.lookups.handle_message(id, body);
        self.seats.handle_message(id, body);
        if self.track_world {
            let shared = &self.shared;
            let mut tell = |event| shared.world.tell(event);
            let mut told = Told { tell: &mut tell, out: &mut self.out, ids: self.ids };
            self.world.handle_message(now, from, id, body, &mut told);
        }
        if self.message_events && self.shared.events.listeners() > 0 {
            self.tell_message(&message);
        }
        if self.dispatcher.wants(id)
            && let Some(commands) = self.sender.upgrade()
        {
            let core = CoreHandle { shared: Arc::clone(&self.shared), commands };
            self.dispatch(now, &message, core);
        }
        // Handlers have queues of their own: the ack may leave.
        Taken::Yes
    }
}

impl Ears {
    fn tell_message(&mut self, message: &Received<'_>) {
        match AnyMessage::decode(message.id, message.body) {
            Ok((packet, _)) => {
                let packet = Arc::new(packet);
                let from = message.from;
                self.shared.events.tell(NetworkEvent::MessageReceived { packet, from });
            }
            Err(error) => self.on_broken(message, error),
        }
    }

    fn on_broken(&mut self, message: &Received<'_>, error: DecodeError) {
        if let DecodeError::Unknown { .. } = error {
            self.messages_unknown += 1;
        } else {
            self.messages_broken += 1;
        }
        let (from, id) = (message.from, message.id);
        self.shared.tell_error(NetworkError::Decode { from, id, error });
    }

    fn dispatch(&mut self, now: Timestamp, message: &Received<'_>, core: CoreHandle) {
        let context = HandlerContext {
            core,
            from: message.from,
            region: self.regions.get(&message.from).cloned(),
            number: message.number,
            reliable: message.reliable,
            late: message.late,
        };
        match self.dispatcher.dispatch(now, message.id, message.body, &context) {
            Ok(done) if done.overruns > 0 => {
                let (handlers, id) = (done.overruns, message.id);
                self.shared.tell_error(NetworkError::HandlersBehind { handlers, id });
            }
            Ok(_) => {}
            // Told already where every message is read.
            Err(_) if self.message_events && self.shared.events.listeners() > 0 => {}
            Err(error) => self.on_broken(message, error),
        }
    }
}

/// One agent at work, from login's answer to its end.
#[derive(Debug)]
pub(crate) struct AgentSession {
    pub(super) agent: Agent,
    pub(super) ears: Ears,
    pub(super) info: Arc<SessionInfo>,
    pub(super) deliveries: BTreeMap<DeliveryId, oneshot::Sender<Outcome>>,
    pub(super) journey: Option<JourneyReply>,
    pub(super) caps: BTreeMap<SocketAddr, Arc<Capabilities>>,
    pub(super) pilot: Pilot,
    /// Messages whose order handlers want, and circuits keep.
    ordered: Vec<MessageId>,
    /// When which controls are let go of.
    release: (Timestamp, u32),
    /// Where the agent last arrived.
    pub(super) arrived_at: Vector3,
    pub(super) began: Timestamp,
    pub(super) arrived: Option<Timestamp>,
    pub(super) summary: SessionSummary,
}

impl AgentSession {
    pub(super) fn new<E: Env>(
        env: &E,
        config: &ViewerConfig,
        (shared, sender): (Arc<Shared>, mpsc::WeakSender<Command>),
        info: Arc<SessionInfo>,
        number: u64,
    ) -> Result<Self, String> {
        let random = ["viewer.agent", "viewer.transfers", "viewer.uploads"]
            .map(|name| env.stream(name, number));
        Self::begin(env.now(), config, (shared, sender), info, random)
    }

    /// As [`new`](Self::new), without a node: the random streams are those of the agent, of the
    /// transfers and of the uploads.
    pub(super) fn begin(
        now: Timestamp,
        config: &ViewerConfig,
        (shared, sender): (Arc<Shared>, mpsc::WeakSender<Command>),
        info: Arc<SessionInfo>,
        [agent_random, transfer_random, upload_random]: [Stream; 3],
    ) -> Result<Self, String> {
        let ids = info.ids();
        let agent = Agent::new(ids, config.agent.clone(), agent_random);
        let mut agent = agent.map_err(|error| error.to_string())?;
        let dispatcher = Dispatcher::new(shared.registry.clone());
        let mut ordered = Vec::new();
        keep_in_order(&mut agent, &mut ordered, shared.registry.ordered());
        agent.enter(now, info.simulator, info.region_handle).map_err(|error| error.to_string())?;
        let ears = Ears {
            dispatcher,
            shared,
            sender,
            world: Surroundings::default(),
            transfers: Transfers::new(transfer_random),
            uploads: UdpUploads::new(upload_random),
            lookups: Lookups::default(),
            seats: SeatsWaitedFor::default(),
            out: Vec::new(),
            regions: BTreeMap::new(),
            ids: (ids.agent_id, ids.session_id),
            message_events: config.message_events,
            track_world: config.track_world,
            messages_unknown: 0,
            messages_broken: 0,
        };
        Ok(Self {
            agent,
            ears,
            info,
            deliveries: BTreeMap::new(),
            journey: None,
            caps: BTreeMap::new(),
            pilot: Pilot::new(),
            ordered,
            release: (Timestamp::NEVER, 0),
            arrived_at: Vector3::new(128.0, 128.0, 25.0),
            began: now,
            arrived: None,
            summary: SessionSummary::default(),
        })
    }

    /// Takes a datagram.
    pub(super) fn handle_datagram(&mut self, now: Timestamp, from: SocketAddr, datagram: &[u8]) {
        self.agent.handle_datagram(now, from, datagram, &mut self.ears);
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.agent.handle_timeout(now, &mut self.ears);
        self.ears.dispatcher.handle_timeout(now);
        let ears = &mut self.ears;
        ears.transfers.handle_timeout(now, &mut ears.out);
        ears.uploads.handle_timeout(now, &mut ears.out);
        self.ears.lookups.handle_timeout(now);
        self.ears.seats.handle_timeout(now);
        self.pilot(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has work;
    /// [`Timestamp::START`] while there is something to send.
    pub(super) fn poll_timeout(&self) -> Timestamp {
        let ears = &self.ears;
        [
            self.agent.poll_timeout(),
            ears.dispatcher.poll_timeout(),
            ears.transfers.poll_timeout(),
            ears.uploads.poll_timeout(),
            ears.lookups.poll_timeout(),
            ears.seats.poll_timeout(),
            self.pilot_timeout(),
        ]
        .into_iter()
        .fold(Timestamp::NEVER, Timestamp::min)
    }

    /// Sends what is to be sent because of what came.
    pub(super) fn send_answers(&mut self, now: Timestamp) {
        for (to, message) in std::mem::take(&mut self.ears.out) {
            // A full queue: who asked in vain asks again, or its time is over.
            let circuits = self.agent.circuits_mut();
            let _ = circuits.send_any(now, to, &message, PATIENT);
        }
        for (to, part) in self.ears.uploads.take_parts() {
            // In a full queue it is lost, and leaves anew.
            let _ = self.agent.circuits_mut().send_any(now, to, &part, PART);
        }
    }

    /// What became of a message that somebody asked after.
    pub(super) fn on_delivery(&mut self, id: DeliveryId, outcome: Outcome) {
        if let Some(reply) = self.deliveries.remove(&id) {
            // Who asked may have gone.
            let _ = reply.send(outcome);
        }
    }

    /// A region has no circuit any more: nothing of it is kept.
    pub(super) fn on_region_gone(&mut self, address: SocketAddr) {
        self.caps.remove(&address);
        self.ears.regions.remove(&address);
        self.ears.transfers.on_region_gone(address);
        self.ears.uploads.on_region_gone(address);
        self.ears.world.on_region_gone(address);
    }

    /// Handlers came or went: those that want the order of sending get it from now on, and what
    /// nobody wants in order comes as it arrives.
    pub(super) fn refresh_handlers(&mut self) {
        if self.ears.dispatcher.refresh() {
            let wanted = self.ears.shared.registry.ordered();
            keep_in_order(&mut self.agent, &mut self.ordered, wanted);
        }
    }

    fn address(&self, address: Option<SocketAddr>) -> Result<SocketAddr, SendError> {
        address.or_else(|| self.agent.region()).ok_or(SendError::NoRegion)
    }

    pub(crate) fn teleport(
        &mut self,
        now: Timestamp,
        to: Destination,
        reply: JourneyReply,
    ) -> Result<(), TravelError> {
        self.agent.teleport(now, to)?;
        self.journey = Some(reply);
        Ok(())
    }

    pub(crate) fn cancel_teleport(&mut self, now: Timestamp) -> Result<(), TravelError> {
        self.agent.cancel_teleport(now)
    }

    pub(crate) fn allow_rate(&mut self, now: Timestamp, total: f32) {
        self.agent.allow_rate(now, total);
    }

    pub(crate) fn set_paused(&mut self, now: Timestamp, paused: bool) -> Result<(), SendError> {
        self.agent.set_paused(now, paused)
    }

    pub(crate) fn capabilities(&self) -> Option<Arc<Capabilities>> {
        self.caps.get(&self.agent.region()?).cloned()
    }

    pub(crate) fn transfer(
        &mut self,
        now: Timestamp,
        request: TransferRequest,
        reply: oneshot::Sender<Result<Vec<u8>, TransferError>>,
    ) -> Result<(), TransferError> {
        let from = self.address(None)?;
        let ids = *self.agent.ids();
        let message = self.ears.transfers.begin(now, from, &ids, request, reply)?;
        self.agent.circuits_mut().send_any(now, from, &message, PATIENT)?;
        Ok(())
    }

    /// Uploads something over UDP to the region that the avatar is in.
    pub(super) fn upload(
        &mut self,
        now: Timestamp,
        file: NewFile,
        bytes: Bytes,
        reply: UploadReply,
    ) {
        let to = self.address(None).map_err(UploadError::from);
        let checked = to.and_then(|to| self.ears.uploads.check(&file, &bytes).map(|()| to));
        match checked {
            Ok(to) => {
                let message = self.ears.uploads.begin(now, (to, &*self.info), (file, bytes), reply);
                self.ears.out.push((to, message));
            }
            Err(refusal) => {
                // Who asked may have gone.
                let _ = reply.send(Err(refusal));
            }
        }
    }

    pub(crate) fn send_tracked(
        &mut self,
        now: Timestamp,
        address: Option<SocketAddr>,
        messages: &[AnyMessage],
        options: SendOptions,
        reply: oneshot::Sender<Outcome>,
    ) -> Result<(), SendError> {
        let address = self.address(address)?;
        let id = self.agent.send_to(now, address, messages, options)?;
        self.deliveries.insert(id, reply);
        Ok(())
    }

    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        address: Option<SocketAddr>,
        message: &AnyMessage,
    ) -> Result<(), SendError> {
        let address = self.address(address)?;
        self.agent.circuits_mut().send_any(now, address, message, SendOptions::UNRELIABLE)
    }

    pub(crate) fn circuit_stats(&self) -> CircuitStats {
        self.agent.circuits().total()
    }

    pub(crate) fn stats_of(&self, address: Option<SocketAddr>) -> Option<CircuitStats> {
        self.agent.circuits().stats(self.address(address).ok()?)
    }

    pub(crate) fn rtt_of(&self, address: Option<SocketAddr>) -> Option<Duration> {
        self.agent.circuits().rtt(self.address(address).ok()?)
    }

    pub(crate) fn set_rates(&mut self, address: Option<SocketAddr>, rates: &Rates) -> bool {
        let address = self.address(address);
        address.is_ok_and(|address| self.agent.circuits_mut().set_rates(address, rates))
    }

    pub(crate) const fn world(&self) -> &Surroundings {
        &self.ears.world
    }

    pub(crate) const fn region(&self) -> Option<SocketAddr> {
        self.agent.region()
    }

    pub(crate) fn agent_id(&self) -> Uuid {
        self.info.agent_id
    }

    /// Whose folders these are.
    pub(super) fn owner_id(&self, owner: InventoryOwner) -> Uuid {
        match owner {
            InventoryOwner::Agent => self.info.agent_id,
            InventoryOwner::Library => self.info.library_owner.unwrap_or_default(),
        }
    }

    pub(crate) fn session_id(&self) -> Uuid {
        self.info.session_id
    }

    /// Where the avatar is in its region, as far as that is known.
    pub(crate) fn position(&self) -> Vector3 {
        let own = self.ears.world.object(self.info.agent_id);
        let own = own.filter(|(address, _)| Some(*address) == self.agent.region());
        own.map_or(self.arrived_at, |(address, object)| self.ears.world.place_of(address, object))
    }

    /// Which way the camera looks.
    pub(crate) const fn looks_at(&self) -> Vector3 {
        self.agent.body().camera_at
    }

    /// Changes stance, camera and controls.
    pub(crate) fn steer(&mut self, change: impl FnOnce(&mut Body)) {
        let mut body = *self.agent.body();
        change(&mut body);
        self.agent.set_body(body);
    }

    pub(crate) fn walk(
        &mut self,
        now: Timestamp,
        goal: Goal,
        within: f32,
        limit: Option<Duration>,
        reply: Option<oneshot::Sender<Result<(), WalkError>>>,
    ) {
        self.pilot.begin(now, goal, within, limit, reply);
    }

    /// Presses controls for a moment.
    pub(crate) fn tap(&mut self, now: Timestamp, controls: u32, moment: Duration) {
        // One word at a time: what was pressed before is let go of, or it would go before this one.
        let pressed = self.release.1;
        self.steer(|body| body.control_flags = (body.control_flags & !pressed) | controls);
        self.release = (now.after(moment), controls);
    }

    /// Waits for a seat on an object.
    pub(crate) fn wait_for_seat(
        &mut self,
        now: Timestamp,
        object: Uuid,
        reply: SeatReply,
    ) -> Result<(), SeatError> {
        self.ears.seats.begin(now, object, reply)
    }

    /// The place on the grid of a region, by its name.
    pub(crate) fn find_region(
        &mut self,
        now: Timestamp,
        name: &str,
        reply: oneshot::Sender<Result<u64, LookupError>>,
    ) -> Result<(), LookupError> {
        let known = self.ears.regions.values().find_map(|region| {
            let same = region.name.to_lowercase() == name.to_lowercase();
            self.agent.region_handle(region.address).filter(|_| same)
        });
        if let Some(handle) = known {
            // Who asked may have gone.
            let _ = reply.send(Ok(handle));
            return Ok(());
        }
        let to = self.address(None)?;
        let ids = (self.info.agent_id, self.info.session_id);
        let message = self.ears.lookups.begin(now, ids, name, reply)?;
        self.agent.circuits_mut().send_any(now, to, &message, SendOptions::RELIABLE)?;
        Ok(())
    }

    /// What login gave.
    pub(crate) fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// Ends a walk; true when there was one.
    pub(crate) fn stop_walking(&mut self) -> bool {
        self.pilot.end(Err(WalkError::Superseded))
    }

    /// When [`pilot`](Self::pilot) has work.
    fn pilot_timeout(&self) -> Timestamp {
        self.pilot.poll_timeout().min(self.release.0)
    }

    /// Looks where the avatar walks, and lets go of what was pressed, when it is time.
    fn pilot(&mut self, now: Timestamp) {
        if self.release.0 <= now {
            let (_, pressed) = std::mem::replace(&mut self.release, (Timestamp::NEVER, 0));
            self.steer(|body| body.control_flags &= !pressed);
        }
        if self.pilot.poll_timeout() > now {
            return;
        }
        let here = self.agent.region();
        let own = here.map(|_| self.position());
        let world = &self.ears.world;
        let place_of = |id| {
            let avatars = here.map(|here| world.avatars(here)).unwrap_or_default();
            let on_map = avatars.into_iter().find(|avatar| avatar.id == id);
            let object = || world.object(id).filter(|(region, _)| Some(*region) == here);
            on_map
                .map(|avatar| avatar.position)
                .or_else(|| object().map(|(region, object)| world.place_of(region, object)))
        };
        let body = self.pilot.handle_timeout(now, own, place_of, self.agent.body());
        if let Some(body) = body {
            self.agent.set_body(body);
        }
    }

    /// What happened so far.
    pub(crate) fn summary(&self, now: Timestamp) -> SessionSummary {
        let mut summary = self.summary.clone();
        summary.handshake = self.arrived.map(|at| at.since(self.began));
        let first = self.ears.world.first_object();
        summary.first_object = first.map(|at| at.since(self.began));
        summary.lasted = now.since(self.began);
        summary.circuits_now = self.agent.circuits().len();
        summary.stats = self.agent.circuits().total();
        summary.strangers = *self.agent.circuits().strangers();
        summary.rtt = self.agent.last_rtt();
        let agent = self.agent.stats();
        (summary.teleports, summary.crossings) = (agent.teleports, agent.crossings);
        summary.travel_failures = agent.failures;
        summary.stale_events = agent.stale;
        summary.messages_unknown = self.ears.messages_unknown;
        summary.decode_errors = self.ears.messages_broken + self.ears.world.broken();
        summary
    }
}

/// Keeps those messages in order that are wanted so, in place of those that were.
fn keep_in_order(agent: &mut Agent, kept: &mut Vec<MessageId>, wanted: Vec<MessageId>) {
    let circuits = agent.circuits_mut();
    kept.retain(|id| {
        let is_wanted = wanted.contains(id);
        if !is_wanted {
            circuits.forget_order(*id);
        }
        is_wanted
    });
    for id in wanted {
        // The registry lets in no more than there is room for.
        if !kept.contains(&id) && circuits.keep_in_order(id) {
            kept.push(id);
        }
    }
}

#[cfg(test)]
mod tests;
