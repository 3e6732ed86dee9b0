//! The world server as a machine: sessions on one side, the world on the other, sixty ticks a second.

mod admission;
mod away;
mod messages;
mod pace;
mod players;
mod schedule;
mod sight;
mod snapshot;

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use twinspan_admission::{Filter, Rules};
use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_messages::Message as TypedMessage;
use twinspan_provider::Machine;
use twinspan_session::{
    CloseReason, Endpoint, EndpointEvent, EndpointStats, RefuseReason, ServerIdentity, SessionKey,
    TokenKey, UserId,
};
use twinspan_world::{CellEncodings, Kind, PlanInput, StatePlan, TICK_HZ, World, tick_duration};

use crate::config::ServerConfig;
use crate::error::{SendMessageError, ServerError};
use crate::measure::{Latency, wire_micros};
use crate::wire::{EVENTS, STATE};
use admission::DoorGate;
use messages::Typed;
use pace::Pace;
use players::{Entry, Message, Players, Verdict};
use schedule::{Due, SendSchedule};
use sight::Sight;

pub use admission::MalformedCounts;
pub use messages::{MessageContext, MessageStats, ServerMessages};
pub use players::{PlayerStats, ReliableCounts};
pub use snapshot::{EntityRow, InterestRow, SessionRow, StatsSnapshot, WorldSnapshot};

/// Ticks that are made up for after a stall; more are skipped, so that a long stall is not followed
/// by a burst of work that causes the next one.
const CATCH_UP_TICKS_MAX: u32 = 4;
/// The tick at which a server drains by itself, after 828 days: ticks have 32 bits on the wire, and
/// a quarter of an hour is enough to say good-bye.
const TICK_LAST: u32 = u32::MAX - 15 * 60 * TICK_HZ;
/// A drain ends when all was acknowledged and clients sent nothing reliable for so long: what one of
/// them had under way, and must send again, is not cut off.
const DRAIN_QUIET: Duration = Duration::from_millis(300);
/// Ticks between two samples of the world's invariants.
const INVARIANT_TICKS: u32 = 600;
/// What a packet adds to a state's bytes: header, tag, acknowledgements, frame, IP and UDP.
const PACKET_OVERHEAD_BYTES: usize = 30 + 16 + 28;
/// Late ticks whose moment is kept for whoever asks why.
const LATE_TICKS_KEPT: usize = 1_024;

/// Datagrams that are handled together while memory for the next ones is on its way.
const AHEAD: usize = 8;

/// The sessions that some datagrams name.
type Addressed = [Option<SessionKey>; AHEAD];

/// What a server counted.
#[derive(Debug, Default)]
pub struct ServerStats {
    /// Ticks run.
    pub ticks: u64,
    /// Ticks that ended after the next one should have begun, or that were skipped.
    pub late_ticks: u64,
    /// Ticks left out after a stall.
    pub skipped_ticks: u64,
    /// How long ticks took, their sends in the first slot included.
    pub tick_time: Latency,
    /// When the last late ticks were scheduled.
    pub late_at: VecDeque<Timestamp>,
    /// State messages that the schedule asked for, those that were not sent among them.
    pub states_scheduled: u64,
    /// State messages that were not sent: their slot or their whole tick was missed. Of a state that
    /// was not begun nobody knows into how many messages it would have been cut: it counts as one.
    pub states_unsent: u64,
    /// Sum over all states of the entities in the client's area of interest, itself left out.
    pub visible_entities: u64,
    /// States over which `visible_entities` is summed.
    pub visible_samples: u64,
    /// Sampled checks of the world that failed; a defect of ours if ever above zero.
    pub invariants_broken: u64,
    /// Reliable messages that nobody had acknowledged when a drain closed the sessions.
    pub undelivered_at_end: u64,
}

impl Clone for ServerStats {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Copies without allocating, once there is room for the late ticks.
    fn clone_from(&mut self, source: &Self) {
        let mut tick_time = core::mem::replace(&mut self.tick_time, Latency::EMPTY);
        tick_time.clone_from(&source.tick_time);
        let mut late_at = core::mem::take(&mut self.late_at);
        late_at.clone_from(&source.late_at);
        let Self { ticks, late_ticks, skipped_ticks, states_scheduled, states_unsent, .. } =
            *source;
        let Self { visible_entities, visible_samples, invariants_broken, .. } = *source;
        let undelivered_at_end = source.undelivered_at_end;
        *self = Self {
            ticks,
            late_ticks,
            skipped_ticks,
            tick_time,
            late_at,
            states_scheduled,
            states_unsent,
            visible_entities,
            visible_samples,
            invariants_broken,
            undelivered_at_end,
        };
    }
}

/// How far a server is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Clients were told; waiting for their acknowledgements until the deadline, and for what they
    /// had under way themselves.
    Draining {
        until: Timestamp,
        quiet_at: Timestamp,
        received: u64,
    },
    /// Sessions are being closed.
    Closing {
        until: Timestamp,
    },
    Ended,
}

/// The world server.
///
/// A [`Machine`]: run it with [`twinspan_provider::drive`], over real sockets or simulated ones.
pub struct Server {
    config: ServerConfig,
    endpoint: Endpoint,
    world: World,
    encodings: CellEncodings,
    players: Players,
    /// Typed messages of the application, if it has any.
    typed: Option<Typed>,
    filter: Filter,
    schedule: SendSchedule,
    plan: StatePlan,
    phase: Phase,
    /// When tick 0 was scheduled; `None` until the first call.
    began_at: Option<Timestamp>,
    /// The tick to run next.
    next_tick: u32,
    /// Whether the due tick was held back in the last turn.
    is_tick_held: bool,
    /// When the last tick was made, as states carry it.
    made_at: Timestamp,
    /// The tick that the present call ran, for [`Machine::on_elapsed`].
    ran: Option<Ran>,
    pace: Pace,
    /// A state message whose further parts wait for buffers.
    part: Option<Part>,
    /// Room for the sessions that the datagrams of a call name.
    addressed: Vec<Option<SessionKey>>,
    stats: ServerStats,
    /// How long ticks took since it was last taken.
    tick_recent: Latency,
}

/// The last tick of a call.
#[derive(Clone, Copy)]
struct Ran {
    scheduled: Timestamp,
    /// Whether it was counted as late before it began.
    late: bool,
}

/// A state in progress: which part of it comes next.
#[derive(Clone, Copy)]
struct Part {
    due: Due,
    index: usize,
}

impl Server {
    /// A server that has not begun.
    ///
    /// `random` gives the named streams of this node.
    ///
    /// # Errors
    /// [`ServerError`] names the setting that cannot be.
    pub fn new(
        config: ServerConfig,
        suites: Arc<dyn AeadSuite>,
        keys: ServerKeys,
        mut secrets: Box<dyn SecretSource>,
        random: &mut dyn FnMut(&'static str) -> Stream,
    ) -> Result<Self, ServerError> {
        config.interest.check(config.world.cell)?;
        let mut filter_key = [0; 16];
        secrets.fill(&mut filter_key);
        let filter = Filter::new(config.admission.clone(), filter_key);
        let endpoint = Endpoint::new(
            config.session.clone(),
            suites,
            keys.identity,
            keys.tokens,
            secrets,
            random("session"),
            config.unix_at_start_s,
        )?;
        let mut world = World::new(config.world.clone(), random("world"))?;
        for (kind, count) in [(Kind::Npc, config.npcs), (Kind::Projectile, config.projectiles)] {
            for _ in 0..count {
                world.spawn_anywhere(kind)?;
            }
        }
        let plan = StatePlan::new(Endpoint::message_room());
        Ok(Self {
            endpoint,
            encodings: CellEncodings::new(&world),
            world,
            players: Players::new(&config),
            typed: None,
            filter,
            schedule: SendSchedule::new(tick_duration()),
            plan,
            phase: Phase::Serving,
            began_at: None,
            next_tick: 0,
            is_tick_held: false,
            made_at: Timestamp::START,
            ran: None,
            pace: Pace::new(),
            part: None,
            addressed: Vec::new(),
            stats: ServerStats::default(),
            tick_recent: Latency::default(),
            config,
        })
    }

    /// Gives the server typed messages of the application.
    pub fn set_messages(&mut self, messages: ServerMessages) {
        let mut typed = Typed::new(messages);
        for (session, user, _, _) in self.players.rows() {
            typed.join(user, session);
        }
        self.typed = Some(typed);
    }

    /// Sends a typed message to the player that is `user`.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent; it is promised nothing then.
    pub fn send_message<T: TypedMessage>(
        &mut self,
        now: Timestamp,
        user: UserId,
        message: &T,
    ) -> Result<(), SendMessageError> {
        let typed = self.typed.as_mut().ok_or(SendMessageError::NoRegistry)?;
        typed.send(now, user, message, &mut self.endpoint)
    }

    /// Sends a typed message to all players; whose queue is full is left out and counted.
    ///
    /// # Errors
    /// [`SendMessageError`] when it can be sent to nobody.
    pub fn send_message_to_all<T: TypedMessage>(
        &mut self,
        now: Timestamp,
        message: &T,
    ) -> Result<(), SendMessageError> {
        let typed = self.typed.as_mut().ok_or(SendMessageError::NoRegistry)?;
        typed.send_all(now, message, &mut self.endpoint)
    }

    /// Sessions, handshakes, ids and answers that the endpoint holds, for scenarios that look for
    /// growth.
    #[cfg(feature = "scenarios")]
    pub fn held(&self) -> (usize, usize, usize, usize) {
        self.endpoint.held()
    }

    /// What was counted of typed messages so far.
    pub fn message_stats(&self) -> MessageStats {
        self.typed.as_ref().map(|typed| *typed.stats()).unwrap_or_default()
    }

    /// What was counted so far.
    pub fn stats(&self) -> &ServerStats {
        &self.stats
    }

    /// What players did so far.
    pub fn player_stats(&self) -> &PlayerStats {
        self.players.stats()
    }

    /// What the sessions counted so far, drop causes among it.
    pub fn endpoint_stats(&self) -> &EndpointStats {
        self.endpoint.stats()
    }

    /// The world, to be looked at.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Sessions that are established.
    pub fn sessions(&self) -> usize {
        self.players.len()
    }

    /// Ticks from one state of a client to its next: 3, more while ticks overrun.
    pub fn ticks_per_state(&self) -> u8 {
        self.pace.ticks_per_state()
    }

    /// Reliable messages of the player that is `user`, while it is in the world.
    pub fn reliable_counts(&self, user: UserId) -> Option<ReliableCounts> {
        self.players.reliable_counts(user)
    }

    /// The cipher of the sessions, once there is one.
    pub fn cipher(&self) -> Option<Cipher> {
        self.players.cipher()
    }

    /// Reliable messages that no client has acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.endpoint
            .sessions()
            .filter_map(|session| self.endpoint.session_stats(session))
            .map(|stats| stats.unacknowledged)
            .sum()
    }

    /// Begins the end: lets nobody in any more, tells every client, waits for what is unacknowledged
    /// and for what clients have under way, closes, and is done.
    pub fn drain(&mut self, now: Timestamp) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Draining {
                until: now.after(self.config.drain_time_max),
                quiet_at: now.after(DRAIN_QUIET),
                received: self.players.stats().reliable_received,
            };
            self.players.tell_all_draining();
            self.send_events(now);
        }
    }

    /// Ends without waiting for what is unacknowledged: closes every session, and is done.
    pub fn stop(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Serving | Phase::Draining { .. }) {
            self.stats.undelivered_at_end = self.unacknowledged() as u64;
            self.endpoint.close_all(now, CloseReason::ServerDraining);
            self.phase = Phase::Closing { until: now.after(self.config.drain_time_max) };
        }
    }

    /// Sets how many bytes of state a client is sent a second, packets' headers and all; false when
    /// there is no such client.
    pub fn set_budget(&mut self, session: SessionKey, bytes_per_second: u32) -> bool {
        self.players.set_budget(session, bytes_per_second)
    }

    /// Closes one session.
    pub fn kick(&mut self, now: Timestamp, session: SessionKey) {
        self.endpoint.close(now, session, CloseReason::Kicked);
    }

    /// Makes these the server's present keys. Tokens under the ones before stay good until the next
    /// rotation: the overlap is as long as tokens live, or as the next rotation is away. Sessions do
    /// not notice. Keys that are present already change nothing.
    pub fn rotate_keys(&mut self, keys: ServerKeys) {
        let _ = self.endpoint.rotate_identity(keys.identity);
        let _ = self.endpoint.rotate_token_key(keys.tokens);
    }

    /// Takes other admission rules, and closes the sessions of users that they ban. What sources owe
    /// and what is held against players stays.
    pub fn replace_rules(&mut self, now: Timestamp, rules: &Rules) {
        self.filter.replace_rules(rules);
        if !rules.dry_run {
            let door = self.filter.door();
            self.players.expel(|user| door.is_banned(now, user.0));
            self.send_events(now);
        }
    }

    fn tick_at(&self, tick: u32) -> Timestamp {
        let began = self.began_at.unwrap_or_default();
        began.after(tick_duration().saturating_mul(tick))
    }

    /// Runs `work` on the endpoint with the players as its listener, then sends what they answer.
    fn with_endpoint(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut Endpoint, &mut DoorGate<'_>, &mut dyn FnMut(EndpointEvent<'_>)),
    ) {
        let Self { endpoint, players, typed, world, schedule, phase, filter, .. } = self;
        let (door, judge) = filter.split();
        work(endpoint, &mut DoorGate(door), &mut |event| match event {
            EndpointEvent::Established { session, .. } if *phase != Phase::Serving => {
                players.refuse(session, RefuseReason::Draining);
            }
            EndpointEvent::Established { session, user, cipher, resumed, .. } => {
                let entry = Entry { cipher, has_resumed: resumed.is_some() };
                let has_joined = players.join(session, user, entry, world);
                if has_joined {
                    if let Some(typed) = typed {
                        typed.join(user, session);
                    }
                    schedule.add(now, session);
                }
            }
            EndpointEvent::Message { session, channel, bytes } => {
                let message = Message { channel, bytes };
                let judges = (&mut *judge, typed.as_mut());
                players.handle_message(now, session, message, world, judges);
            }
            EndpointEvent::Closed { session, reason } => {
                schedule.remove(session);
                if let (Some(typed), Some(user)) = (typed.as_mut(), players.user_of(session)) {
                    typed.leave(user, session);
                }
                players.leave(now, session, reason, world);
            }
            EndpointEvent::Acked { session, tag, .. } => players.on_acked(session, tag),
            _ => {}
        });
        self.send_events(now);
    }

    /// Wishes for what the datagrams of the next two groups will need, the nearer first: with many
    /// players everything that belongs to one has left the caches by the time that its next input
    /// comes.
    fn look_ahead(&self, next: Option<&Addressed>, next_but_one: Option<&Addressed>) {
        for session in next.into_iter().flatten().flatten() {
            self.endpoint.prefetch_to_open(*session);
            if let Some(entity) = self.players.entity(*session) {
                self.world.prefetch(entity);
            }
        }
        for session in next_but_one.into_iter().flatten().flatten() {
            self.endpoint.prefetch(*session);
            self.players.prefetch(*session);
        }
    }

    /// The same for the states that are due next.
    fn look_ahead_to_states(&self) {
        if let Some(session) = self.schedule.upcoming(AHEAD) {
            self.endpoint.prefetch(session);
            self.players.prefetch_outlook(session);
        }
        if let Some(session) = self.schedule.upcoming(AHEAD / 2) {
            self.endpoint.prefetch_to_seal(session);
            self.players.prefetch_body(session, &self.world);
        }
    }

    /// Sends what the players' doings called for, and closes those who misbehaved.
    fn send_events(&mut self, now: Timestamp) {
        while let Some((session, bytes)) = self.players.next_event() {
            if self.endpoint.send(now, session, EVENTS, bytes).is_err() {
                self.endpoint.close(now, session, CloseReason::QueueOverflow);
            } else {
                self.players.count_sent(session);
            }
        }
        if let Some(typed) = &mut self.typed {
            typed.flush(now, &mut self.endpoint);
        }
        while let Some(Verdict { session, reason, ban }) = self.players.next_verdict() {
            if let Some((user, length)) = ban {
                self.filter.door().ban(now, user.0, length);
            }
            self.endpoint.close(now, session, reason);
        }
    }

    /// Whether the due tick waits for one turn: it replaces what states are made of, so those of the
    /// present tick that a late turn left over go out first.
    fn holds_tick(&mut self, now: Timestamp) -> bool {
        let is_due = now >= self.tick_at(self.next_tick);
        let leaves_states = self.part.is_some() || self.schedule.left_in_tick() > 0;
        self.is_tick_held = is_due && leaves_states && !self.is_tick_held;
        self.is_tick_held
    }

    fn run_due_ticks(&mut self, now: Timestamp) {
        let mut ran = 0;
        while now >= self.tick_at(self.next_tick) {
            let scheduled = self.tick_at(self.next_tick);
            // A tick that begins when the next one should is late however quick it is.
            let late = now >= scheduled.after(tick_duration());
            if late {
                self.count_late(scheduled);
            }
            if ran == CATCH_UP_TICKS_MAX {
                self.stats.skipped_ticks += 1;
                self.count_missed(self.schedule.states_in(self.next_tick));
            } else {
                self.run_tick(now, scheduled);
                self.ran = Some(Ran { scheduled, late });
                ran += 1;
            }
            self.next_tick = self.next_tick.wrapping_add(1);
            self.pace.on_tick();
            if self.next_tick >= TICK_LAST {
                self.drain(now);
            }
        }
    }

    /// Counts states that the schedule asked for and that were not even begun.
    fn count_missed(&mut self, states: u64) {
        // While states are made less often, that many of the slots are nobody's turn.
        let states = states / u64::from(self.pace.factor());
        self.stats.states_scheduled += states;
        self.stats.states_unsent += states;
    }

    fn count_late(&mut self, scheduled: Timestamp) {
        self.pace.on_late();
        self.stats.late_ticks += 1;
        if self.stats.late_at.len() == LATE_TICKS_KEPT {
            self.stats.late_at.pop_front();
        }
        self.stats.late_at.push_back(scheduled);
    }

    fn run_tick(&mut self, now: Timestamp, scheduled: Timestamp) {
        self.players.give_up_absent(now, &mut self.world);
        self.world.step();
        self.players.after_step(&self.world, self.filter.split().1);
        self.encodings.update(&self.world);
        self.made_at = now;
        self.stats.ticks += 1;
        if let Some(part) = self.part.take() {
            self.stats.states_unsent += self.plan.parts().saturating_sub(part.index) as u64;
        }
        let missed = self.schedule.begin_tick(self.next_tick, scheduled);
        self.count_missed(missed);
        if self.next_tick.is_multiple_of(INVARIANT_TICKS) && self.world.check_invariants().is_err()
        {
            self.stats.invariants_broken += 1;
        }
    }

    fn advance_phase(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Draining { until, .. } if now >= until || self.players.len() == 0 => {
                self.stop(now);
            }
            Phase::Draining { until, quiet_at, received } => {
                let newest = self.players.stats().reliable_received;
                if newest != received || self.unacknowledged() > 0 {
                    let quiet_at = now.after(DRAIN_QUIET);
                    self.phase = Phase::Draining { until, quiet_at, received: newest };
                } else if now >= quiet_at {
                    self.stop(now);
                }
            }
            Phase::Closing { until } if now >= until || self.endpoint.is_empty() => {
                self.phase = Phase::Ended;
            }
            _ => {}
        }
    }

    /// Writes states whose slot has come, until `out` is full or no buffer is left.
    fn send_states(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while out.room() > 0 {
            let Some(part) = self.part.take().or_else(|| self.begin_state(now)) else { return };
            let Some(mut packet) = pool.take() else {
                self.part = Some(part);
                return;
            };
            let Self { endpoint, plan, .. } = self;
            let written = endpoint.write_packet(
                now,
                part.due.session,
                STATE,
                plan.tag(part.index),
                &mut packet,
                &mut |out| plan.write_part(part.index, out),
            );
            let sent = written.is_ok_and(|peer| {
                // There is room: the loop's condition says so.
                out.push(Datagram { peer, at: now, packet }).is_ok()
            });
            self.stats.states_unsent += u64::from(!sent);
            let index = part.index + 1;
            if index < self.plan.parts() {
                self.part = Some(Part { index, ..part });
            }
        }
    }

    /// Plans the next due client's state.
    fn begin_state(&mut self, now: Timestamp) -> Option<Part> {
        while let Some(due) = self.schedule.next_due(now) {
            self.look_ahead_to_states();
            if !self.pace.is_turn(self.next_tick.wrapping_sub(1), due.session) {
                continue;
            }
            let Self { players, world, encodings, plan, made_at, pace, .. } = self;
            let times = (wire_micros(*made_at), wire_micros(due.slot_at));
            let is_planned = players.plan_state(due.session, world, |state| {
                let header = state.header.with_times(times.0, times.1);
                let header = header.with_pace(pace.ticks_per_state());
                let Sight { subscriptions, baselines, budget, .. } = state;
                plan.plan(PlanInput { header, subscriptions, baselines, encodings, world, budget });
                plan.len() + plan.parts() * PACKET_OVERHEAD_BYTES
            });
            if !is_planned {
                continue;
            }
            self.stats.states_scheduled += self.plan.parts() as u64;
            self.stats.visible_entities += self.plan.entities().saturating_sub(1) as u64;
            self.stats.visible_samples += 1;
            return Some(Part { due, index: 0 });
        }
        None
    }
}

impl Machine for Server {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let mut addressed = core::mem::take(&mut self.addressed);
        addressed.clear();
        addressed.extend(received.iter().map(|d| self.endpoint.addressed(&d.packet)));
        let groups: &[_] = addressed.as_chunks::<AHEAD>().0;
        self.look_ahead(groups.first(), groups.get(1));
        let mut group = 0;
        while !received.is_empty() {
            self.look_ahead(groups.get(group + 1), groups.get(group + 2));
            self.with_endpoint(now, |endpoint, gate, on_event| {
                for mut datagram in core::iter::from_fn(|| received.pop()).take(AHEAD) {
                    let (peer, bytes) = (datagram.peer, &mut datagram.packet);
                    endpoint.handle_datagram_gated(now, peer, bytes, gate, on_event);
                }
            });
            group += 1;
        }
        self.addressed = addressed;
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.began_at.get_or_insert(now);
        if !self.holds_tick(now) {
            self.run_due_ticks(now);
        }
        if self.endpoint.poll_timeout().is_some_and(|at| now >= at) {
            self.with_endpoint(now, |endpoint, _, on_event| endpoint.handle_timeout(now, on_event));
        } else {
            self.send_events(now);
        }
        self.advance_phase(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.endpoint.poll_transmit(now, pool, out);
        self.send_states(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let Some(_) = self.began_at else { return Some(Timestamp::START) };
        let mut at = self.tick_at(self.next_tick);
        if let Some(slot) = self.schedule.poll_timeout() {
            at = at.min(slot);
        }
        if let Some(session) = self.endpoint.poll_timeout() {
            at = at.min(session);
        }
        Some(at)
    }

    fn is_done(&self) -> bool {
        self.phase == Phase::Ended
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        let Some(Ran { scheduled, late }) = self.ran.take() else { return };
        self.stats.tick_time.record(ended.since(began));
        self.tick_recent.record(ended.since(began));
        if !late && ended > scheduled.after(tick_duration()) {
            self.count_late(scheduled);
        }
    }
}

/// What a server proves itself with.
pub struct ServerKeys {
    /// Its static key pair.
    pub identity: ServerIdentity,
    /// The key that it shares with the login service.
    pub tokens: TokenKey,
}

#[cfg(test)]
mod tests;
