//! Journeys as transactions: each is asked for or announced, and ends with an arrival or a reason.

use core::net::SocketAddr;
use core::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_lludp::Vector3;
use twinspan_lludp::messages::{
    CompleteAgentMovement, TeleportCancel, TeleportLandmarkRequest, TeleportLocationRequest,
    TeleportLureRequest,
};

use super::event::{AgentEvent, Destination, EndReason, Journey, Seed, TeleportError, TravelError};
use super::step::Step;
use super::{Agent, Stage};
use crate::message::{CloseReason, DeliveryId, Outcome, SendError, SendOptions};

/// How many times [`AgentConfig::teleport_timeout`](super::AgentConfig::teleport_timeout) a
/// teleport may take in all that was asked for, whatever the region says of it meanwhile.
pub const TELEPORT_TIMEOUTS_MAX: u32 = 4;

/// A teleport that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    from: SocketAddr,
    delivery: DeliveryId,
    /// When it is given up; each sign of it prolongs that.
    until: Timestamp,
    /// When it is given up in any case.
    last: Timestamp,
}

impl Request {
    /// There was a sign of it.
    fn prolong(&mut self, until: Timestamp) {
        self.until = until.min(self.last);
    }

    pub(super) fn is_from(&self, addr: SocketAddr) -> bool {
        self.from == addr
    }
}

/// A region that is about to let the agent in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    to: SocketAddr,
    journey: Journey,
    until: Timestamp,
    /// Whether `CompleteAgentMovement` was sent.
    asked: bool,
}

impl Arrival {
    pub(super) const fn login(to: SocketAddr, until: Timestamp) -> Self {
        // The region is asked once it shows that it knows the agent.
        Self { to, journey: Journey::Login, until, asked: false }
    }

    pub(super) const fn to(&self) -> SocketAddr {
        self.to
    }
}

impl Agent {
    /// Asks for a teleport. What comes of it is told: [`AgentEvent::Arrived`],
    /// [`AgentEvent::TeleportedHere`] or [`AgentEvent::TravelFailed`].
    ///
    /// # Errors
    /// [`TravelError`], and nothing was asked for.
    pub fn teleport(&mut self, now: Timestamp, to: Destination) -> Result<(), TravelError> {
        let Some(from) = self.main.filter(|_| self.stage == Stage::InWorld) else {
            return Err(TravelError::NotInWorld);
        };
        if self.request.is_some() || self.arrival.is_some() {
            return Err(TravelError::Wrong("the agent is on its way already, wait or cancel"));
        }
        let delivery = self.ask_for_teleport(now, from, to)?;
        self.own.push(delivery);
        let until = now.after(self.config.teleport_timeout);
        let last = now.after(self.teleport_time_max());
        self.request = Some(Request { from, delivery, until, last });
        Ok(())
    }

    /// How long a teleport that was asked for may take in all.
    const fn teleport_time_max(&self) -> Duration {
        self.config.teleport_timeout.saturating_mul(TELEPORT_TIMEOUTS_MAX)
    }

    fn ask_for_teleport(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        to: Destination,
    ) -> Result<DeliveryId, SendError> {
        let options = SendOptions::CRITICAL.within(self.config.teleport_timeout);
        let (agent_id, session_id) = (self.ids.agent_id, self.ids.session_id);
        match to {
            Destination::Location { handle, position, look_at } => {
                let mut ask = TeleportLocationRequest::default();
                ask.agent_data.agent_id = agent_id;
                ask.agent_data.session_id = session_id;
                ask.info.region_handle = handle;
                ask.info.position = position;
                ask.info.look_at = look_at;
                self.circuits.send_tracked(now, from, &ask, options)
            }
            Destination::Landmark(landmark) => {
                let mut ask = TeleportLandmarkRequest::default();
                ask.info.agent_id = agent_id;
                ask.info.session_id = session_id;
                ask.info.landmark_id = landmark;
                self.circuits.send_tracked(now, from, &ask, options)
            }
            Destination::Lure { id, flags } => {
                let mut ask = TeleportLureRequest::default();
                ask.info.agent_id = agent_id;
                ask.info.session_id = session_id;
                ask.info.lure_id = id;
                ask.info.teleport_flags = flags;
                self.circuits.send_tracked(now, from, &ask, options)
            }
        }
    }

    /// Cancels the teleport that was asked for. If the grid decided otherwise meanwhile, the agent
    /// follows it: an arrival may be told all the same.
    ///
    /// # Errors
    /// [`TravelError::Wrong`] when there is none, or the agent is with its destination already.
    pub fn cancel_teleport(&mut self, now: Timestamp) -> Result<(), TravelError> {
        let Some(request) = self.request else {
            return Err(TravelError::Wrong("there is no teleport to cancel"));
        };
        let mut cancel = TeleportCancel::default();
        cancel.info.agent_id = self.ids.agent_id;
        cancel.info.session_id = self.ids.session_id;
        self.circuits.send(now, request.from, &cancel, SendOptions::CRITICAL)?;
        self.fail_request(TeleportError::Cancelled);
        Ok(())
    }

    /// Whether the agent is on its way to a region, otherwise than by login.
    pub(super) fn returns_to(&self, addr: SocketAddr) -> bool {
        let there = |arrival: &Arrival| arrival.to == addr && arrival.journey != Journey::Login;
        self.arrival.as_ref().is_some_and(there)
    }

    /// A region answered for the first time: if the agent logs in there, it asks to be let in.
    pub(super) fn on_heard(&mut self, now: Timestamp, addr: SocketAddr) {
        if self.arrival.is_some_and(|arrival| arrival.to == addr && !arrival.asked) {
            self.ask_to_arrive(now, addr);
        }
    }

    fn ask_to_arrive(&mut self, now: Timestamp, addr: SocketAddr) {
        let mut ask = CompleteAgentMovement::default();
        ask.agent_data.agent_id = self.ids.agent_id;
        ask.agent_data.session_id = self.ids.session_id;
        ask.agent_data.circuit_code = self.ids.circuit_code;
        let options = SendOptions::CRITICAL.within(self.config.arrival_timeout);
        if self.circuits.send(now, addr, &ask, options).is_err() {
            // The time for the arrival runs.
            self.stats.dropped += 1;
        }
        if let Some(arrival) = &mut self.arrival {
            arrival.asked = true;
        }
    }

    /// The outcome of something that was sent; false when it was not the agent's own.
    pub(super) fn on_delivery(&mut self, now: Timestamp, id: DeliveryId, outcome: Outcome) -> bool {
        let Some(index) = self.own.iter().position(|own| *own == id) else { return false };
        self.own.swap_remove(index);
        let Some(request) = self.request.as_mut().filter(|request| request.delivery == id) else {
            // Of a request that is over.
            return true;
        };
        match outcome {
            Outcome::Acked { .. } => request.prolong(now.after(self.config.teleport_timeout)),
            Outcome::TimedOut { .. } => self.fail_request(TeleportError::RequestLost),
            Outcome::Closed => self.fail_request(TeleportError::RegionLost),
        }
        true
    }

    /// Ends the teleport that was asked for with a reason.
    pub(super) fn fail_request(&mut self, error: TeleportError) {
        if self.request.take().is_some() {
            self.fail(Journey::Teleport, error);
        }
    }

    fn fail(&mut self, journey: Journey, error: TeleportError) {
        self.stats.failures += 1;
        self.tell(AgentEvent::TravelFailed { journey, error });
    }

    /// Ends every journey that is under way, for the agent's time on the grid is over.
    pub(super) fn fail_journeys(&mut self) {
        self.fail_request(TeleportError::RegionLost);
        if let Some(arrival) = self.arrival.take()
            && arrival.journey != Journey::Login
        {
            self.fail(arrival.journey, TeleportError::RegionLost);
        }
    }

    /// The destination does not let the agent in. Without the region it came from, that is the end.
    pub(super) fn fail_arrival(&mut self, error: TeleportError, reason: EndReason) {
        let Some(arrival) = self.arrival.take() else { return };
        if arrival.journey != Journey::Login {
            self.give_up(arrival, error);
        }
        if self.main.is_none() {
            self.end(reason);
        }
    }

    /// The agent waits for a region no longer. If that lets it in all the same, it follows.
    fn give_up(&mut self, arrival: Arrival, error: TeleportError) {
        if self.regions.contains_key(&arrival.to) {
            self.unanswered.insert(arrival.to, arrival.journey);
        }
        self.fail(arrival.journey, error);
    }

    /// A message about a teleport. They count from the region that the agent is in alone.
    pub(super) fn on_teleport_step(&mut self, now: Timestamp, from: SocketAddr, step: Step) {
        if self.main != Some(from) {
            self.stats.stale += 1;
            return;
        }
        if let Some(request) = &mut self.request {
            request.prolong(now.after(self.config.teleport_timeout));
        }
        match step {
            Step::TeleportStart => self.tell(AgentEvent::TeleportStarted),
            Step::TeleportProgress { text } => self.tell(AgentEvent::TeleportProgress { text }),
            Step::TeleportLocal { position } => {
                self.request = None;
                self.tell(AgentEvent::TeleportedHere { position });
            }
            Step::TeleportFailed { reason } => self.on_teleport_refused(reason),
            _ => {}
        }
    }

    pub(super) fn on_teleport_refused(&mut self, reason: String) {
        if self.request.is_some() {
            self.fail_request(TeleportError::Refused(reason));
        } else {
            self.stats.stale += 1;
        }
    }

    /// The agent walked over a border: the region beyond has a circuit already, as a rule.
    pub(super) fn on_crossed(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        to: (SocketAddr, u64),
        seed: Option<Seed>,
    ) {
        self.travel(now, from, to, seed, Journey::Crossing);
    }

    /// The grid moves the agent, asked or not.
    pub(super) fn on_teleport_finish(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        to: (SocketAddr, u64),
        seed: Option<Seed>,
    ) {
        if self.travel(now, from, to, seed, Journey::Teleport) {
            // From here on it is the destination's.
            self.request = None;
        }
    }

    /// Sets off for another region, or tells why not; false when there is no reason to.
    fn travel(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (addr, handle): (SocketAddr, u64),
        seed: Option<Seed>,
        journey: Journey,
    ) -> bool {
        let known = self.arrival.is_some_and(|arrival| arrival.to == addr);
        if self.main != Some(from) || known || self.main == Some(addr) {
            self.stats.stale += 1;
            return false;
        }
        if let Some(former) = self.arrival.take() {
            self.give_up(former, TeleportError::Superseded);
        }
        if let Err(error) = self.add_region(now, addr, handle) {
            self.fail(journey, TeleportError::NoCircuit(error));
            return true;
        }
        if let Some(seed) = seed {
            self.tell_seed(addr, seed);
        }
        let until = now.after(self.config.arrival_timeout);
        self.arrival = Some(Arrival { to: addr, journey, until, asked: false });
        self.ask_to_arrive(now, addr);
        true
    }

    /// A region let the agent in.
    pub(super) fn on_arrived(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        handle: u64,
        position: Vector3,
    ) {
        let expected = self.arrival.take_if(|arrival| arrival.to == from);
        let late = self.unanswered.remove(&from);
        let Some(journey) = expected.map(|arrival| arrival.journey).or(late) else {
            self.stats.stale += 1;
            return;
        };
        if let Some(region) = self.regions.get_mut(&from) {
            region.handle = handle;
        }
        self.former_rtt = self.last_rtt();
        (self.main, self.latest) = (Some(from), Some(from));
        self.main_heard_at = now;
        match journey {
            Journey::Login => self.adjust_at = now.after(crate::throttle::ADJUST_INTERVAL),
            Journey::Crossing => self.stats.crossings += 1,
            Journey::Teleport => self.stats.teleports += 1,
        }
        if self.stage == Stage::Entering {
            self.stage = Stage::InWorld;
        }
        // A loss measured on the way says nothing of this region.
        self.circuits.take_loss(from);
        if !matches!(self.stage, Stage::Leaving { .. }) {
            self.updates.begin(now);
            self.update(now);
        }
        self.tell(AgentEvent::Arrived { addr: from, handle, position, journey });
    }

    /// Gives up journeys that took too long.
    pub(super) fn expire_travel(&mut self, now: Timestamp) {
        if let Some(request) = self.request.filter(|request| request.until <= now) {
            let error = if request.last <= now {
                TeleportError::Endless(self.teleport_time_max())
            } else {
                TeleportError::TimedOut(self.config.teleport_timeout)
            };
            self.fail_request(error);
        }
        if let Some(arrival) = self.arrival.filter(|arrival| arrival.until <= now) {
            let after = self.config.arrival_timeout;
            let error = TeleportError::ArrivalTimedOut { addr: arrival.to, after };
            let reason = match arrival.journey {
                Journey::Login => EndReason::HandshakeTimedOut,
                Journey::Crossing | Journey::Teleport => EndReason::Lost(CloseReason::Silence),
            };
            self.fail_arrival(error, reason);
        }
    }

    /// When [`expire_travel`](Self::expire_travel) has work.
    pub(super) fn travel_timeout(&self) -> Timestamp {
        let request = self.request.map_or(Timestamp::NEVER, |request| request.until);
        request.min(self.arrival.map_or(Timestamp::NEVER, |arrival| arrival.until))
    }
}
