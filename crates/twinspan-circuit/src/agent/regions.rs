//! The regions that an agent has circuits to, and their handshakes.

use core::net::SocketAddr;

use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{AgentThrottle, RegionHandshakeReply, UseCircuitCode};
use twinspan_lludp::{Uuid, Var1};

use super::event::{AgentEvent, EndReason, QueueEvent, Seed};
use super::{Agent, Stage};
use crate::circuits::Farewell;
use crate::message::{CloseReason, OpenCircuitError, SendOptions};

/// One region with a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Its place on the grid; 0 while unknown.
    pub(super) handle: u64,
    /// How far its handshake is.
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was asked to open a circuit and has not said what it is.
    Asked { until: Timestamp },
    /// It said what it is, and was answered.
    Known,
}

impl Agent {
    /// Opens a circuit to a region, or asks an open one again.
    pub(super) fn add_region(
        &mut self,
        now: Timestamp,
        addr: SocketAddr,
        handle: u64,
    ) -> Result<(), OpenCircuitError> {
        if let Some(region) = self.regions.get_mut(&addr) {
            if handle != 0 {
                region.handle = handle;
            }
        } else {
            self.circuits.open(now, addr)?;
            let until = now.after(self.config.handshake_timeout);
            self.regions.insert(addr, Region { handle, state: State::Asked { until } });
        }
        let mut ask = UseCircuitCode::default();
        ask.circuit_code.code = self.ids.circuit_code;
        ask.circuit_code.session_id = self.ids.session_id;
        ask.circuit_code.id = self.ids.agent_id;
        let options = SendOptions::CRITICAL.within(self.config.handshake_timeout);
        if self.circuits.send(now, addr, &ask, options).is_err() {
            // Its queue is full of other things; the time for the handshake runs.
            self.stats.dropped += 1;
        }
        Ok(())
    }

    /// Takes what the event queue of the region `from` says. Events of regions without a circuit
    /// count as stale.
    pub fn handle_event(&mut self, now: Timestamp, from: SocketAddr, event: QueueEvent) {
        // The end of a circuit that a step closed must not be taken for that of a new one.
        self.follow_circuits(now);
        let living = matches!(self.stage, Stage::Entering | Stage::InWorld);
        if !living || !self.regions.contains_key(&from) {
            self.stats.stale += 1;
            return;
        }
        match event {
            QueueEvent::EnableSimulator { addr, handle } => {
                if self.regions.contains_key(&addr) {
                    self.stats.stale += 1;
                } else if self.add_region(now, addr, handle).is_err() {
                    self.stats.dropped += 1;
                }
            }
            QueueEvent::EstablishAgentCommunication { addr, seed } => self.tell_seed(addr, seed),
            QueueEvent::CrossedRegion { addr, handle, seed } => {
                self.on_crossed(now, from, (addr, handle), seed);
            }
            QueueEvent::TeleportFinish { addr, handle, seed } => {
                self.on_teleport_finish(now, from, (addr, handle), seed);
            }
            QueueEvent::TeleportFailed { reason } => self.on_teleport_refused(reason),
        }
        self.follow(now);
    }

    pub(super) fn tell_seed(&mut self, addr: SocketAddr, seed: Seed) {
        self.tell(AgentEvent::Seed { addr, seed });
    }

    /// A region says what it is: each time it is answered, for the answer may have been lost with
    /// the region's memory of us.
    pub(super) fn on_handshake(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (name, region_id, flags): (String, Uuid, u32),
    ) {
        let Some(region) = self.regions.get_mut(&from) else {
            self.stats.stale += 1;
            return;
        };
        let first = region.state != State::Known;
        region.state = State::Known;
        let mut reply = RegionHandshakeReply::default();
        reply.agent_data.agent_id = self.ids.agent_id;
        reply.agent_data.session_id = self.ids.session_id;
        reply.region_info.flags = self.config.handshake_flags;
        if self.circuits.send(now, from, &reply, SendOptions::CRITICAL).is_err() {
            self.stats.dropped += 1;
        }
        if first {
            self.tell_rates_to(now, from);
            self.tell(AgentEvent::Handshake { addr: from, name, region_id, flags });
        }
    }

    /// Asks every region for the rates of now.
    pub(super) fn tell_rates(&mut self, now: Timestamp) {
        self.generation = self.generation.wrapping_add(1);
        let addresses: Vec<SocketAddr> = self.regions.keys().copied().collect();
        for addr in addresses {
            self.tell_rates_to(now, addr);
        }
        self.tell(AgentEvent::Throttled { total: self.throttle.total() });
    }

    fn tell_rates_to(&mut self, now: Timestamp, addr: SocketAddr) {
        let mut ask = AgentThrottle::default();
        ask.agent_data.agent_id = self.ids.agent_id;
        ask.agent_data.session_id = self.ids.session_id;
        ask.agent_data.circuit_code = self.ids.circuit_code;
        ask.throttle.gen_counter = self.generation;
        ask.throttle.throttles = Var1::new(self.throttle.rates().to_bytes()).unwrap_or_default();
        if self.circuits.send(now, addr, &ask, SendOptions::CRITICAL).is_err() {
            self.stats.dropped += 1;
        }
    }

    /// A region sends the agent away.
    pub(super) fn on_disabled(&mut self, from: SocketAddr) {
        if self.returns_to(from) {
            // It is about a former visit, and was under way when the grid sent the agent back. A
            // region that does not let it in does not answer, and that has its time.
            self.stats.stale += 1;
            return;
        }
        if self.regions.remove(&from).is_none() {
            self.stats.stale += 1;
            return;
        }
        self.circuits.close(from, Farewell::Silent);
        self.tell(AgentEvent::CircuitDown { addr: from, reason: None });
        self.on_region_gone(from, EndReason::Disabled);
    }

    /// A circuit ended.
    pub(super) fn on_closed(&mut self, _now: Timestamp, addr: SocketAddr, reason: CloseReason) {
        // Those that this end closed were told about already.
        if self.regions.remove(&addr).is_some() {
            self.tell(AgentEvent::CircuitDown { addr, reason: Some(reason) });
            self.on_region_gone(addr, EndReason::Lost(reason));
        }
    }

    /// What the loss of a region means for where the agent is and goes.
    fn on_region_gone(&mut self, addr: SocketAddr, reason: EndReason) {
        self.unanswered.remove(&addr);
        let was_main = self.main == Some(addr);
        if was_main {
            self.main = None;
            self.updates.end();
        }
        if let Stage::Leaving { reason, .. } = &self.stage {
            // It went without an answer.
            let reason = reason.clone();
            if was_main || self.regions.is_empty() {
                self.end(reason);
            }
            return;
        }
        if self.request.as_ref().is_some_and(|request| request.is_from(addr)) {
            self.fail_request(super::TeleportError::RegionLost);
        }
        match &self.arrival {
            // The old region may go before the new one has let the agent in.
            Some(arrival) if arrival.to() != addr => {}
            Some(_) => self.fail_arrival(super::TeleportError::RegionLost, reason),
            None if was_main => self.end(reason),
            None => {}
        }
    }

    /// Gives up regions that never said what they are.
    pub(super) fn expire_regions(&mut self, now: Timestamp) {
        let overdue =
            |region: &Region| matches!(region.state, State::Asked { until } if until <= now);
        while let Some((addr, _)) = self.regions.iter().find(|(_, region)| overdue(region)) {
            let addr = *addr;
            self.regions.remove(&addr);
            self.circuits.close(addr, Farewell::CloseCircuit);
            let reason = Some(CloseReason::Local);
            self.tell(AgentEvent::CircuitDown { addr, reason });
            self.on_region_gone(addr, EndReason::HandshakeTimedOut);
            if self.stage == Stage::Ended {
                return;
            }
        }
    }

    /// When [`expire_regions`](Self::expire_regions) has work.
    pub(super) fn regions_timeout(&self) -> Timestamp {
        let asked = self.regions.values().filter_map(|region| match region.state {
            State::Asked { until } => Some(until),
            State::Known => None,
        });
        asked.min().unwrap_or(Timestamp::NEVER)
    }
}
