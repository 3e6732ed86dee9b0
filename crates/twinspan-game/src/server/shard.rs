//! A shard of a server: sessions and the players behind them, who is let in, what each is told and
//! when. What the world says to it comes through its [`Realm`].

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_admission::{Filter, Rules};
use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_reliable::Channel;
use twinspan_session::{
    Addressed, CloseReason, Endpoint, EndpointEvent, RefuseReason, SessionKey, UserId,
};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{PlanInput, StatePlan, World, tick_duration};

use super::ServerKeys;
use super::admission::{DoorGate, Places};
use super::clock::DueTick;
use super::messages::TypedGate;
use super::pace::{Pace, Press};
use super::players::{Entry, Joining, Message, Movement, Players, Verdict};
use super::realm::{Place, Realm};
use super::schedule::{Due, SendSchedule};
use super::sight::Sight;
use super::stats::ServerStats;
use super::watch::Watch;
use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::measure::wire_micros;
use crate::wire::{EVENTS, STATE};

/// A drain ends when all was acknowledged and clients sent nothing reliable for so long: what one of
/// them had under way, and must send again, is not cut off.
const DRAIN_QUIET: Duration = Duration::from_millis(300);
/// What a packet adds to a state's bytes: header, tag, acknowledgements, frame, IP and UDP.
pub(super) const PACKET_OVERHEAD_BYTES: usize = 30 + 16 + 28;

/// States that are sent before what clients sent has its turn. They send three datagrams for each state
/// that they get, and a state costs more than any of these: a shard with more to send than there is
/// time for would else hardly hear them any more, newcomers among them.
const STATES_PER_TURN_MAX: usize = 64;

/// Datagrams of one call for which there is room from the start: as many as a driver hands over.
const CALL_DATAGRAMS: usize = 256;

/// Datagrams that are handled together while memory for the next ones is on its way.
const AHEAD: usize = 8;

/// The sessions that some datagrams name.
type Named = [Option<Addressed>; AHEAD];

/// How far a shard is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
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

/// A state in progress: which part of it comes next.
#[derive(Clone, Copy)]
struct Part {
    due: Due,
    index: usize,
}

/// Sessions and players of one thread.
pub(super) struct Shard {
    pub(super) endpoint: Endpoint,
    pub(super) players: Players,
    /// Typed messages of the application, if it has any.
    pub(super) typed: Option<TypedGate>,
    pub(super) filter: Filter,
    /// What it shares with other shards of places for players.
    pub(super) places: Option<Arc<Places>>,
    schedule: SendSchedule,
    plan: StatePlan,
    pub(super) phase: Phase,
    drain_time_max: Duration,
    /// Sessions of which whoever looks on is shown a row.
    pub(super) session_rows_max: usize,
    pub(super) pace: Pace,
    press: Press,
    /// The tick whose states are being sent.
    tick: u32,
    /// When it was made, as states carry it.
    made_at: Timestamp,
    /// A state message whose further parts wait for buffers.
    part: Option<Part>,
    /// States that may be sent in the present turn.
    turn_left: usize,
    /// Room for the sessions that the datagrams of a call name.
    addressed: Vec<Option<Addressed>>,
    watch: Watch,
    /// Whether the pool's accounts are looked at with the next packets.
    looks_at_pool: bool,
    pub(super) stats: ServerStats,
}

impl Shard {
    pub(super) fn new(
        config: ServerConfig,
        suites: Arc<dyn AeadSuite>,
        keys: ServerKeys,
        mut secrets: Box<dyn SecretSource>,
        jitter: Stream,
    ) -> Result<Self, ServerError> {
        config.interest.check(config.world.cell)?;
        let mut filter_key = [0; 16];
        secrets.fill(&mut filter_key);
        let players = Players::new(&config);
        let filter = Filter::new(config.admission, filter_key);
        let endpoint = Endpoint::new(
            config.session,
            suites,
            keys.identity,
            keys.tokens,
            secrets,
            jitter,
            config.unix_at_start_s,
        )?;
        Ok(Self {
            endpoint,
            players,
            typed: None,
            filter,
            places: None,
            schedule: SendSchedule::new(tick_duration()),
            plan: StatePlan::new(Endpoint::message_room_max()),
            phase: Phase::Serving,
            drain_time_max: config.drain_time_max,
            session_rows_max: config.session_rows_max,
            pace: Pace::new(),
            press: Press::default(),
            tick: u32::MAX,
            made_at: Timestamp::START,
            part: None,
            turn_left: 0,
            addressed: Vec::with_capacity(CALL_DATAGRAMS),
            watch: Watch::default(),
            looks_at_pool: false,
            stats: ServerStats::default(),
        })
    }

    /// Reliable messages that no client has acknowledged yet.
    pub(super) fn unacknowledged(&self) -> usize {
        self.endpoint.unacknowledged()
    }

    /// Begins the end: lets nobody in any more, tells every client, waits for what is unacknowledged
    /// and for what clients have under way, closes, and is done.
    pub(super) fn drain(&mut self, now: Timestamp, realm: &mut impl Realm) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Draining {
                until: now.after(self.drain_time_max),
                quiet_at: now.after(DRAIN_QUIET),
                received: self.players.stats().reliable_received,
            };
            self.players.tell_all_draining();
            self.send_events(now, realm);
        }
    }

    /// Ends without waiting for what is unacknowledged: closes every session, and is done.
    pub(super) fn stop(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Serving | Phase::Draining { .. }) {
            self.stats.undelivered_at_end = self.unacknowledged() as u64;
            self.endpoint.close_all(now, CloseReason::ServerDraining);
            self.phase = Phase::Closing { until: now.after(self.drain_time_max) };
        }
    }

    pub(super) fn rotate_keys(&mut self, keys: ServerKeys) {
        let _ = self.endpoint.rotate_identity(keys.identity);
        let _ = self.endpoint.rotate_token_key(keys.tokens);
    }

    /// The present keys alone are good from now on.
    pub(super) fn retire_old_keys(&mut self) {
        self.endpoint.retire_old_keys();
    }

    /// Lets a user in no more, and ends the session that it has with the next
    /// [`send_events`](Self::send_events).
    pub(super) fn ban(&mut self, now: Timestamp, user: UserId, length: Duration) {
        self.filter.door().ban(now, user.0, length);
        self.players.expel_user(user);
    }

    /// Takes other admission rules, and closes the sessions of users that they ban.
    pub(super) fn replace_rules(&mut self, now: Timestamp, rules: &Rules, realm: &mut impl Realm) {
        self.filter.replace_rules(rules);
        if !rules.dry_run {
            let door = self.filter.door();
            self.players.expel(|user| door.is_banned(now, user.0));
            self.send_events(now, realm);
        }
    }

    /// A call brought datagrams, as many as fit or fewer; before those of other shards are sorted out.
    pub(super) fn on_call(&mut self, now: Timestamp, received: &DatagramBatch) {
        self.press.on_call(now, received.room() == 0);
    }

    /// Takes datagrams from the socket, after [`on_call`](Self::on_call).
    pub(super) fn handle_datagrams(
        &mut self,
        now: Timestamp,
        received: &mut DatagramBatch,
        realm: &mut impl Realm,
    ) {
        self.turn_left = STATES_PER_TURN_MAX;
        let mut addressed = core::mem::take(&mut self.addressed);
        addressed.clear();
        addressed.extend(received.iter().map(|d| self.endpoint.addressed(&d.packet)));
        let groups: &[_] = addressed.as_chunks::<AHEAD>().0;
        self.look_ahead_first(groups);
        let mut group = 0;
        while !received.is_empty() {
            self.look_ahead(groups, group, realm);
            self.with_endpoint(now, realm, |endpoint, gate, on_event| {
                for mut datagram in core::iter::from_fn(|| received.pop()).take(AHEAD) {
                    let (peer, bytes) = (datagram.peer, &mut datagram.packet);
                    endpoint.handle_datagram_gated(now, peer, bytes, gate, on_event);
                }
            });
            group += 1;
        }
        self.addressed = addressed;
    }

    /// Does what is due of the sessions, and goes on with the end.
    pub(super) fn handle_timeout(&mut self, now: Timestamp, realm: &mut impl Realm) {
        self.turn_left = STATES_PER_TURN_MAX;
        if self.endpoint.poll_timeout().is_some_and(|at| now >= at) {
            self.with_endpoint(now, realm, |endpoint, _, on_event| {
                endpoint.handle_timeout(now, on_event);
            });
        } else {
            self.send_events(now, realm);
        }
        self.advance_phase(now);
    }

    /// Hands out packets, those of sessions first, then states whose slot has come.
    pub(super) fn poll_transmit(
        &mut self,
        now: Timestamp,
        pool: &PacketPool,
        out: &mut DatagramBatch,
        realm: &mut impl Realm,
    ) {
        if core::mem::take(&mut self.looks_at_pool) {
            self.stats.invariants_broken += u64::from(!pool.is_sound());
        }
        self.endpoint.poll_transmit(now, pool, out);
        self.send_states(now, pool, out, realm);
    }

    /// When the next state or session is due.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let (slot, session) = (self.schedule.poll_timeout(), self.endpoint.poll_timeout());
        match (slot, session) {
            (Some(slot), Some(session)) => Some(slot.min(session)),
            (slot, session) => slot.or(session),
        }
    }

    /// The world's answer to a newcomer; without a place there is no room.
    pub(super) fn seat(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        place: Option<Place>,
        world: &World,
    ) {
        let Some(place) = place else {
            return self.players.refuse(session, RefuseReason::Full);
        };
        if self.players.seat(session, place, world) {
            self.schedule.add(now, session);
        }
    }

    /// The world's answer to an action.
    pub(super) fn on_acted(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        answer: (u32, ActionOutcome),
        was_asked: bool,
    ) {
        self.players.answer_action(session, answer, was_asked);
        let judge = self.filter.split().1;
        self.players.hold_refusal_against(now, session, answer.1, judge);
    }

    /// What the last tick showed of a player's movement.
    pub(super) fn on_movement(&mut self, session: SessionKey, movement: Movement) {
        self.players.on_movement(session, movement, self.filter.split().1);
    }

    /// Sends a typed message to a player of this shard, or to all of them.
    pub(super) fn send_typed(
        &mut self,
        now: Timestamp,
        to: Option<SessionKey>,
        channel: Channel,
        bytes: &[u8],
    ) {
        let Self { endpoint, players, typed, .. } = self;
        let Some(typed) = typed else { return };
        let mut send = |session| {
            typed.count_sent(endpoint.send(now, session, channel, bytes).is_ok());
        };
        match to {
            Some(session) => send(session),
            None => players.sessions().for_each(send),
        }
    }

    /// Takes a datagram that came to another shard.
    pub(super) fn handle_stray(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        bytes: &mut [u8],
        realm: &mut impl Realm,
    ) {
        self.with_endpoint(now, realm, |endpoint, gate, on_event| {
            endpoint.handle_datagram_gated(now, peer, bytes, gate, on_event);
        });
    }

    /// Runs `work` on the endpoint with the players as its listener, then sends what they answer.
    fn with_endpoint(
        &mut self,
        now: Timestamp,
        realm: &mut impl Realm,
        work: impl FnOnce(&mut Endpoint, &mut DoorGate<'_>, &mut dyn FnMut(EndpointEvent<'_>)),
    ) {
        let Self { endpoint, players, typed, schedule, phase, filter, places, .. } = self;
        let (door, judge) = filter.split();
        let places = places.as_deref();
        // The world never hears of whoever is not let in here.
        let give_back = || {
            if let Some(places) = places {
                places.give_back();
            }
        };
        work(endpoint, &mut DoorGate { door, places }, &mut |event| match event {
            EndpointEvent::Established { session, .. } if *phase != Phase::Serving => {
                players.refuse(session, RefuseReason::Draining);
                give_back();
            }
            EndpointEvent::Established { session, user, cipher, resumed, .. } => {
                let entry = Entry { cipher, has_resumed: resumed.is_some() };
                match players.join(now, session, user, entry, realm) {
                    Joining::Done => schedule.add(now, session),
                    Joining::Later => {}
                    Joining::Refused => give_back(),
                }
            }
            EndpointEvent::Message { session, channel, bytes } => {
                let message = Message { channel, bytes };
                let judges = (&mut *judge, typed.as_mut());
                players.handle_message(now, session, message, realm, judges);
            }
            EndpointEvent::Closed { session, reason } => {
                schedule.remove(session);
                players.leave(now, session, reason, realm);
            }
            EndpointEvent::Acked { session, tag, .. } => players.on_acked(session, tag),
            EndpointEvent::Moved { session, .. } => players.on_moved(session),
            _ => {}
        });
        self.send_events(now, realm);
    }

    /// Wishes for what the datagrams of a group and of the next two will need, one step of what leads
    /// to what for each: with many players everything that belongs to one has left the caches by the
    /// time that its next input comes.
    fn look_ahead(&self, groups: &[Named], group: usize, realm: &impl Realm) {
        for Addressed { session, .. } in of_group(groups, group).filter(|named| named.acks) {
            self.endpoint.prefetch_records(*session);
        }
        for addressed in of_group(groups, group + 1) {
            self.endpoint.prefetch_to_open(*addressed);
            if let Some(entity) = self.players.entity(addressed.session) {
                realm.prefetch(entity);
            }
        }
        for Addressed { session, .. } in of_group(groups, group + 2) {
            self.endpoint.prefetch(*session);
            self.players.prefetch(*session);
        }
    }

    /// The same before the first group, of which nothing is on its way.
    fn look_ahead_first(&self, groups: &[Named]) {
        for Addressed { session, .. } in of_group(groups, 0).chain(of_group(groups, 1)) {
            self.endpoint.prefetch(*session);
            self.players.prefetch(*session);
        }
        of_group(groups, 0).for_each(|addressed| self.endpoint.prefetch_to_open(*addressed));
    }

    /// The same for the states that are due next.
    fn look_ahead_to_states(&self, world: &World) {
        if let Some(session) = self.schedule.upcoming(AHEAD) {
            self.endpoint.prefetch(session);
            self.players.prefetch_outlook(session);
        }
        if let Some(session) = self.schedule.upcoming(AHEAD / 2) {
            self.endpoint.prefetch_to_seal(session);
            self.players.prefetch_body(session, world);
        }
        if let Some(session) = self.schedule.upcoming(AHEAD / 4) {
            self.endpoint.prefetch_records(session);
        }
    }

    /// Sends what the players' doings called for, and closes those who misbehaved.
    pub(super) fn send_events(&mut self, now: Timestamp, realm: &mut impl Realm) {
        while let Some((session, bytes)) = self.players.next_event() {
            if self.endpoint.send(now, session, EVENTS, bytes).is_err() {
                self.endpoint.close(now, session, CloseReason::QueueOverflow);
            } else {
                self.players.count_sent(session);
            }
        }
        if let Some(typed) = &mut self.typed {
            let endpoint = &mut self.endpoint;
            realm.deliver(&mut |session, channel, bytes| {
                typed.count_sent(endpoint.send(now, session, channel, bytes).is_ok());
            });
        }
        while let Some(Verdict { session, reason, ban }) = self.players.next_verdict() {
            if let Some((user, length)) = ban {
                self.ban(now, user, length);
                realm.ban(user, length);
            }
            self.endpoint.close(now, session, reason);
        }
    }

    /// Whether states of the present tick are still to be sent.
    pub(super) fn leaves_states(&self) -> bool {
        self.part.is_some() || self.schedule.left_in_tick() > 0
    }

    /// Begins the sends of a tick that the world has made.
    pub(super) fn begin_tick(&mut self, made_at: Timestamp, due: &DueTick) {
        self.tick = due.tick;
        self.made_at = made_at;
        self.looks_at_pool = true;
        let Self { watch, players, endpoint, .. } = self;
        let is_sound = watch.look(|slot| players.at(slot), |key| endpoint.packet_numbers(key));
        self.stats.invariants_broken += u64::from(!is_sound);
        if let Some(part) = self.part.take() {
            self.stats.states_unsent += self.plan.parts().saturating_sub(part.index) as u64;
        }
        let missed = self.schedule.begin_tick(due.tick, due.scheduled);
        self.count_missed(missed);
        if self.press.is_on(made_at) {
            self.pace.on_late();
        }
    }

    /// A tick was left out, and its states with it.
    pub(super) fn skip_tick(&mut self, tick: u32) {
        self.tick = tick;
        self.count_missed(self.schedule.states_in(tick));
    }

    /// Counts states that the schedule asked for and that were not even begun.
    fn count_missed(&mut self, states: u64) {
        // While states are made less often, that many of the slots are nobody's turn.
        let states = states / u64::from(self.pace.factor());
        self.stats.states_scheduled += states;
        self.stats.states_unsent += states;
    }

    /// A tick that was scheduled for this moment was late, or took too long.
    pub(super) fn count_late(&mut self, scheduled: Timestamp) {
        self.pace.on_late();
        self.stats.count_late(scheduled);
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

    /// Writes states whose slot has come, until `out` is full, no buffer is left or enough were sent
    /// in this turn.
    fn send_states(
        &mut self,
        now: Timestamp,
        pool: &PacketPool,
        out: &mut DatagramBatch,
        realm: &mut impl Realm,
    ) {
        while out.room() > 0 && self.turn_left > 0 {
            let Some(part) = self.part.take().or_else(|| self.begin_state(now, realm)) else {
                return;
            };
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
            self.turn_left -= 1;
            let index = part.index + 1;
            if index < self.plan.parts() {
                self.part = Some(Part { index, ..part });
            }
        }
    }

    /// Plans the next due client's state.
    fn begin_state(&mut self, now: Timestamp, realm: &mut impl Realm) -> Option<Part> {
        while let Some(due) = self.schedule.next_due(now) {
            let (world, encodings) = realm.sight();
            self.look_ahead_to_states(world);
            if !self.pace.is_turn(self.tick, due.session) {
                continue;
            }
            let Self { endpoint, players, plan, made_at, pace, .. } = self;
            if players.is_look_due(due.session, world.tick())
                && let Some(seen) = endpoint.flow(due.session)
            {
                players.look(due.session, world.tick(), &seen);
            }
            plan.set_room(endpoint.message_room_of(due.session).unwrap_or(0));
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

/// The sessions that the datagrams of a group name.
fn of_group(groups: &[Named], group: usize) -> impl Iterator<Item = &Addressed> {
    groups.get(group).into_iter().flatten().flatten()
}
