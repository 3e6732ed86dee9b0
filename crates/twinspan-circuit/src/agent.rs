//! An agent's way through a grid: login region, neighbours, crossings, teleports, logout.

mod body;
mod event;
mod regions;
mod step;
mod travel;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{AgentPause, AgentResume, LogoutRequest};
use twinspan_lludp::{AnyMessage, Message};

pub use body::Body;
pub use event::{
    AgentEvent, AgentIds, Destination, EndReason, Journey, QueueEvent, SEED_BYTES_MAX, Seed,
    TeleportError, TravelError,
};
pub use travel::TELEPORT_TIMEOUTS_MAX;

use crate::circuits::{Circuits, Farewell};
use crate::config::{Config, ConfigError, EVENTS_WAITING_MAX, Role};
use crate::message::{
    CircuitEvent, CloseReason, DeliveryId, OpenCircuitError, SendError, SendOptions, Sink,
};
use crate::throttle::{ADJUST_INTERVAL, ThrottleControl};
use body::Updates;
use regions::Region;
use step::{Intercept, Step};
use travel::{Arrival, Request};

/// Times and limits of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Its circuits. [`Config::silence_max`] is how long the silence of a neighbour is borne; that
    /// of the agent's own region see [`lost_after`](Self::lost_after).
    pub circuits: Config,
    /// How long a region may take to answer at all.
    pub handshake_timeout: Duration,
    /// How long a region may take to let the agent in once it asked.
    pub arrival_timeout: Duration,
    /// How long nothing may be heard of a teleport that was asked for. It takes no longer than
    /// [`TELEPORT_TIMEOUTS_MAX`] of these in all.
    pub teleport_timeout: Duration,
    /// How long the confirmation of a logout is waited for.
    pub logout_timeout: Duration,
    /// Silence of the agent's region after which it is given up: the agent logs out, for what it
    /// is worth, so that the next login is not refused. Shorter than the circuits' silence.
    pub lost_after: Duration,
    /// Longest time between two updates of stance and camera. One may leave after a quarter of it
    /// to take acks along.
    pub update_idle: Duration,
    /// Shortest time between two of them, when something changes.
    pub update_active: Duration,
    /// Bits a second that the user allows in all.
    pub throttle_total: f32,
    /// Flags of `RegionHandshakeReply`: 1 asks for all objects, 2 says that none are cached, 4 that
    /// this end does its own appearance.
    pub handshake_flags: u32,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            circuits: Config { silence_max: Duration::from_secs(70), ..Config::default() },
            handshake_timeout: Duration::from_secs(20),
            arrival_timeout: Duration::from_secs(30),
            teleport_timeout: Duration::from_secs(30),
            logout_timeout: Duration::from_secs(6),
            lost_after: Duration::from_secs(60),
            update_idle: Duration::from_secs(1),
            update_active: Duration::from_millis(50),
            throttle_total: 3_072_000.0,
            handshake_flags: 1 | 2 | 4,
        }
    }
}

impl AgentConfig {
    /// Checks every field that has a range.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.circuits.check()?;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let silence = ms(self.circuits.silence_max);
        let hour = 3_600_000;
        for (field, value, min, max) in [
            ("role", u64::from(self.circuits.role == Role::Simulator), 0, 0),
            ("handshake_timeout", ms(self.handshake_timeout), 100, hour),
            ("arrival_timeout", ms(self.arrival_timeout), 100, hour),
            ("teleport_timeout", ms(self.teleport_timeout), 100, hour),
            ("logout_timeout", ms(self.logout_timeout), 100, hour),
            // Its last words need a circuit.
            ("lost_after", ms(self.lost_after) + ms(self.logout_timeout), 200, silence),
            ("update_idle", ms(self.update_idle), 8, hour),
            ("update_active", ms(self.update_active), 8, ms(self.update_idle)),
        ] {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::OutOfRange { field, value, min, max });
            }
        }
        Ok(())
    }
}

/// Where an agent is in its life on a grid.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Login gave a region; the agent is not in it yet.
    Entering,
    InWorld,
    /// It asked to leave, or its region fell silent; `reason` is what it ends with.
    Leaving {
        until: Timestamp,
        reason: EndReason,
    },
    Ended,
}

/// Counters of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentStats {
    /// Regions that the agent came to by teleport.
    pub teleports: u64,
    /// Regions that it crossed to.
    pub crossings: u64,
    /// Journeys that came to nothing.
    pub failures: u64,
    /// Events and messages that came at a wrong time, from a wrong region or for somebody else.
    pub stale: u64,
    /// Events dropped because too many waited to be taken.
    pub dropped: u64,
}

/// Events of peers that may wait to be taken.
const PEER_EVENTS_MAX: usize = 1_024;

/// One agent and its circuits, from login's answer to the end.
///
/// Login gives ids and a first region: [`new`](Self::new), [`enter`](Self::enter). Then feed it
/// [`handle_datagram`](Self::handle_datagram), [`handle_event`](Self::handle_event) with what the
/// regions' event queues say, and [`handle_timeout`](Self::handle_timeout) at
/// [`poll_timeout`](Self::poll_timeout); after each, drain
/// [`poll_transmit`](Self::poll_transmit), then [`poll_event`](Self::poll_event).
///
/// It does by itself what every viewer does: opens circuits, answers handshakes, asks for rates
/// and adjusts them to losses, tells stance and camera. Every step has a time limit; what fails is
/// told with its reason.
#[derive(Debug)]
pub struct Agent {
    ids: AgentIds,
    config: AgentConfig,
    circuits: Circuits,
    stage: Stage,
    regions: BTreeMap<SocketAddr, Region>,
    /// The region that the agent is in.
    main: Option<SocketAddr>,
    /// The region that it is in, or was in last.
    latest: Option<SocketAddr>,
    /// How far away the regions before that one were.
    former_rtt: Option<Duration>,
    /// When anything last came from it.
    main_heard_at: Timestamp,
    /// Where it is about to be.
    arrival: Option<Arrival>,
    /// Regions that were given up while they could still let the agent in.
    unanswered: BTreeMap<SocketAddr, Journey>,
    /// The teleport that was asked for.
    request: Option<Request>,
    /// What the agent itself sent with a result, and has no outcome yet.
    own: Vec<DeliveryId>,
    updates: Updates,
    throttle: ThrottleControl,
    adjust_at: Timestamp,
    generation: u32,
    pauses: u32,
    events: VecDeque<AgentEvent>,
    steps: Vec<(SocketAddr, Step)>,
    stats: AgentStats,
}

impl Agent {
    /// An agent that login let in, in no region yet.
    ///
    /// # Errors
    /// [`ConfigError`] names the field that is out of range.
    pub fn new(ids: AgentIds, config: AgentConfig, random: Stream) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            ids,
            circuits: Circuits::new(config.circuits.clone(), random)?,
            stage: Stage::Entering,
            regions: BTreeMap::new(),
            main: None,
            latest: None,
            former_rtt: None,
            main_heard_at: Timestamp::START,
            arrival: None,
            unanswered: BTreeMap::new(),
            request: None,
            own: Vec::new(),
            updates: Updates::new(config.update_idle, config.update_active),
            throttle: ThrottleControl::new(config.throttle_total),
            adjust_at: Timestamp::NEVER,
            generation: 0,
            pauses: 0,
            events: VecDeque::new(),
            steps: Vec::new(),
            stats: AgentStats::default(),
            config,
        })
    }

    /// Goes to the region that login named. `handle` is its place on the grid, 0 if unknown.
    ///
    /// # Errors
    /// [`OpenCircuitError`] when it was called before.
    pub fn enter(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        handle: u64,
    ) -> Result<(), OpenCircuitError> {
        if !self.regions.is_empty() {
            return Err(OpenCircuitError::Exists { addr });
        }
        self.add_region(now, addr, handle)?;
        self.arrival = Some(Arrival::login(addr, now.after(self.config.arrival_timeout)));
        Ok(())
    }

    /// Takes a datagram; messages go to `sink`, those that the agent itself needs as well.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        datagram: &[u8],
        sink: &mut dyn Sink,
    ) {
        if self.main == Some(from) {
            self.main_heard_at = now;
        }
        let mut intercept = Intercept { user: sink, steps: &mut self.steps };
        self.circuits.handle_datagram(now, from, datagram, &mut intercept);
        self.follow(now);
    }

    /// Does what is due. Messages that waited for older ones may come to `sink`.
    pub fn handle_timeout(&mut self, now: Timestamp, sink: &mut dyn Sink) {
        let mut intercept = Intercept { user: sink, steps: &mut self.steps };
        self.circuits.handle_timeout(now, &mut intercept);
        self.follow(now);
        self.expire(now);
        self.adjust(now);
        self.update(now);
    }

    /// Takes in what came: events of circuits, then messages in their order.
    fn follow(&mut self, now: Timestamp) {
        self.follow_circuits(now);
        let mut steps = core::mem::take(&mut self.steps);
        for (from, step) in steps.drain(..) {
            self.on_step(now, from, step);
        }
        self.steps = steps;
    }

    fn follow_circuits(&mut self, now: Timestamp) {
        while let Some(event) = self.circuits.poll_event() {
            self.on_circuit_event(now, event);
        }
    }

    fn on_circuit_event(&mut self, now: Timestamp, event: CircuitEvent) {
        match event {
            CircuitEvent::Heard { addr } => {
                self.tell(AgentEvent::CircuitUp { addr });
                self.on_heard(now, addr);
            }
            CircuitEvent::Delivery { addr, id, outcome } => {
                if !self.on_delivery(now, id, outcome) {
                    // As many as the agent's user sent, and no more.
                    self.events.push_back(AgentEvent::Delivery { addr, id, outcome });
                }
            }
            CircuitEvent::Closed { addr, reason } => self.on_closed(now, addr, reason),
        }
    }

    fn on_step(&mut self, now: Timestamp, from: SocketAddr, step: Step) {
        if self.stage == Stage::Ended {
            return;
        }
        match step {
            Step::Handshake { name, region_id, flags } => {
                self.on_handshake(now, from, (name, region_id, flags));
            }
            Step::MovementComplete { agent_id, session_id, handle, position } => {
                if agent_id == self.ids.agent_id && session_id == self.ids.session_id {
                    self.on_arrived(now, from, handle, position);
                } else {
                    self.stats.stale += 1;
                }
            }
            Step::Disable => self.on_disabled(from),
            Step::Kick { reason } => self.end(EndReason::Kicked { reason }),
            Step::LogoutReply => self.on_logout_reply(from),
            Step::TeleportStart
            | Step::TeleportProgress { .. }
            | Step::TeleportLocal { .. }
            | Step::TeleportFailed { .. } => self.on_teleport_step(now, from, step),
        }
    }

    /// Asks to leave the grid. The end is told by [`AgentEvent::Ended`], after
    /// [`AgentConfig::logout_timeout`] at the latest. Without a region there is nobody to ask, and
    /// it ends at once.
    pub fn logout(&mut self, now: Timestamp) {
        if matches!(self.stage, Stage::Entering | Stage::InWorld) {
            self.leave(now, EndReason::LoggedOut { confirmed: false });
        }
    }

    /// Says goodbye and waits a little for the answer, whatever state the circuit is in.
    fn leave(&mut self, now: Timestamp, reason: EndReason) {
        let target = self.main.or(self.arrival.as_ref().map(Arrival::to));
        let mut request = LogoutRequest::default();
        request.agent_data.agent_id = self.ids.agent_id;
        request.agent_data.session_id = self.ids.session_id;
        let options = SendOptions::CRITICAL.within(self.config.logout_timeout);
        let sent = target.map(|addr| self.circuits.send(now, addr, &request, options));
        self.updates.end();
        if matches!(sent, Some(Ok(()))) {
            let until = now.after(self.config.logout_timeout);
            self.stage = Stage::Leaving { until, reason };
        } else {
            self.end(reason);
        }
    }

    fn on_logout_reply(&mut self, from: SocketAddr) {
        match &self.stage {
            Stage::Leaving { reason, .. } if self.regions.contains_key(&from) => {
                let reason = match reason {
                    EndReason::LoggedOut { .. } => EndReason::LoggedOut { confirmed: true },
                    other => other.clone(),
                };
                self.end(reason);
            }
            _ => self.stats.stale += 1,
        }
    }

    /// It is over: every circuit ends and every outcome is told.
    fn end(&mut self, reason: EndReason) {
        if self.stage == Stage::Ended {
            return;
        }
        self.stage = Stage::Ended;
        self.fail_journeys();
        self.main = None;
        self.updates.end();
        self.adjust_at = Timestamp::NEVER;
        let addresses: Vec<SocketAddr> = self.circuits.addresses().collect();
        for addr in addresses {
            self.circuits.close(addr, Farewell::CloseCircuit);
        }
        self.regions.clear();
        while let Some(event) = self.circuits.poll_event() {
            if let CircuitEvent::Delivery { addr, id, outcome } = event
                && !self.own.contains(&id)
            {
                self.events.push_back(AgentEvent::Delivery { addr, id, outcome });
            }
        }
        self.own.clear();
        self.events.push_back(AgentEvent::Ended { reason });
    }

    /// Gives up what took too long.
    fn expire(&mut self, now: Timestamp) {
        match &self.stage {
            Stage::Leaving { until, reason } if *until <= now => {
                let reason = reason.clone();
                return self.end(reason);
            }
            Stage::InWorld if self.lost_at() <= now => {
                return self.leave(now, EndReason::Lost(CloseReason::Silence));
            }
            Stage::Ended | Stage::Leaving { .. } => return,
            Stage::Entering | Stage::InWorld => {}
        }
        self.expire_regions(now);
        self.expire_travel(now);
    }

    /// When its region counts as lost. While another one is about to let it in, that decides.
    fn lost_at(&self) -> Timestamp {
        if self.main.is_none() || self.arrival.is_some() {
            return Timestamp::NEVER;
        }
        self.main_heard_at.after(self.config.lost_after)
    }

    /// Asks for less or more where losses say so.
    fn adjust(&mut self, now: Timestamp) {
        if self.adjust_at > now {
            return;
        }
        self.adjust_at = now.after(ADJUST_INTERVAL);
        let loss = self.main.and_then(|main| self.circuits.take_loss(main));
        if loss.is_some_and(|loss| self.throttle.on_interval(loss)) {
            self.tell_rates(now);
        }
    }

    /// Allows another sum of rates, in bits a second, and tells every region.
    pub fn allow_rate(&mut self, now: Timestamp, total: f32) {
        self.throttle.allow(total);
        if self.stage != Stage::Ended {
            self.tell_rates(now);
        }
    }

    /// Tells stance and camera where it is time for it, or acks are about to leave alone.
    fn update(&mut self, now: Timestamp) {
        let Some(main) = self.main else { return };
        if self.circuits.acks_due(main) <= now {
            self.updates.carry(now);
        }
        let Some((update, first)) = self.updates.take(now, &self.ids) else { return };
        let options = if first { SendOptions::CRITICAL } else { SendOptions::UNRELIABLE };
        if self.circuits.send(now, main, &update, options).is_err() {
            // A full queue: the next one comes soon, and says more.
            self.stats.dropped += 1;
        }
    }

    /// Stands, looks and steers like this from now on.
    pub fn set_body(&mut self, body: Body) {
        self.updates.set(body);
    }

    /// How it stands, looks and steers.
    pub const fn body(&self) -> &Body {
        self.updates.body()
    }

    /// Tells its region that nothing will be said or heard for a while, or that this is over.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn set_paused(&mut self, now: Timestamp, paused: bool) -> Result<(), SendError> {
        self.pauses = self.pauses.wrapping_add(1);
        if paused {
            let mut message = AgentPause::default();
            message.agent_data.agent_id = self.ids.agent_id;
            message.agent_data.session_id = self.ids.session_id;
            message.agent_data.serial_num = self.pauses;
            self.send(now, &message, SendOptions::RELIABLE)
        } else {
            let mut message = AgentResume::default();
            message.agent_data.agent_id = self.ids.agent_id;
            message.agent_data.session_id = self.ids.session_id;
            message.agent_data.serial_num = self.pauses;
            self.send(now, &message, SendOptions::RELIABLE)
        }
    }

    /// Where a message to the agent's region goes.
    fn home(&self) -> Result<SocketAddr, SendError> {
        let waiting = self.events.len();
        if waiting >= EVENTS_WAITING_MAX {
            return Err(SendError::EventsWaiting { waiting });
        }
        self.main.ok_or(SendError::NoRegion)
    }

    /// Sends a message to the region that the agent is in; what becomes of it is not told.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NoRegion`] while it is in none.
    pub fn send<M: Message>(
        &mut self,
        now: Timestamp,
        message: &M,
        options: SendOptions,
    ) -> Result<(), SendError> {
        let addr = self.home()?;
        self.circuits.send(now, addr, message, options)
    }

    /// Sends messages reliably to the region that the agent is in, all of them or none;
    /// [`AgentEvent::Delivery`] tells what becomes of them together.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NoRegion`] while it is in none.
    pub fn send_reliable(
        &mut self,
        now: Timestamp,
        messages: &[AnyMessage],
    ) -> Result<DeliveryId, SendError> {
        let addr = self.home()?;
        self.circuits.send_reliable(now, addr, messages)
    }

    /// Sends messages as [`send_reliable`](Self::send_reliable) does, to any region with a circuit
    /// and with other options.
    ///
    /// # Errors
    /// [`SendError`]
    pub fn send_to(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        messages: &[AnyMessage],
        options: SendOptions,
    ) -> Result<DeliveryId, SendError> {
        let waiting = self.events.len();
        if waiting >= EVENTS_WAITING_MAX {
            return Err(SendError::EventsWaiting { waiting });
        }
        self.circuits.send_reliable_with(now, addr, messages, options)
    }

    /// Tells something that a peer may make happen at will: bounded.
    fn tell(&mut self, event: AgentEvent) {
        if self.events.len() < PEER_EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.stats.dropped += 1;
        }
    }

    /// Writes the next datagram into `out` as [`Circuits::poll_transmit`] does.
    pub fn poll_transmit(&mut self, now: Timestamp, out: &mut [u8]) -> Option<(SocketAddr, usize)> {
        self.update(now);
        self.circuits.poll_transmit(now, out)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Timestamp {
        let own = match &self.stage {
            Stage::Ended => Timestamp::NEVER,
            Stage::Leaving { until, .. } => *until,
            Stage::Entering | Stage::InWorld => {
                self.lost_at().min(self.regions_timeout()).min(self.travel_timeout())
            }
        };
        own.min(self.circuits.poll_timeout()).min(self.updates.due()).min(self.adjust_at)
    }

    /// What there is to tell, oldest first.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// Whether it is over and said so to everybody.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended && self.circuits.poll_timeout() == Timestamp::NEVER
    }

    /// The region that the agent is in.
    pub const fn region(&self) -> Option<SocketAddr> {
        self.main
    }

    /// The smoothed round trip to the region that the agent is in or was in last, or to the one
    /// before while no ping was answered in it; `None` when none ever was.
    pub fn last_rtt(&self) -> Option<Duration> {
        let latest = self.latest.and_then(|addr| self.circuits.last_rtt(addr));
        latest.or(self.former_rtt)
    }

    /// The place on the grid of a region with a circuit, once it is known.
    pub fn region_handle(&self, addr: SocketAddr) -> Option<u64> {
        self.regions.get(&addr).map(|region| region.handle).filter(|handle| *handle != 0)
    }

    /// Whether a journey was asked for or announced and has no outcome yet.
    pub const fn is_travelling(&self) -> bool {
        self.request.is_some() || self.arrival.is_some()
    }

    /// The regions that it has circuits to.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = SocketAddr> {
        self.regions.keys().copied()
    }

    /// Its circuits, to look at.
    pub const fn circuits(&self) -> &Circuits {
        &self.circuits
    }

    /// Its circuits, to keep messages in order and the like.
    pub const fn circuits_mut(&mut self) -> &mut Circuits {
        &mut self.circuits
    }

    /// Its counters.
    pub const fn stats(&self) -> &AgentStats {
        &self.stats
    }

    /// Who it is.
    pub const fn ids(&self) -> &AgentIds {
        &self.ids
    }
}

#[cfg(test)]
mod tests;
