//! The players behind the sessions: their entities, their inputs, their actions, what they see.

use std::collections::VecDeque;

use twinspan_core::aead::Cipher;
use twinspan_core::time::Timestamp;
use twinspan_reliable::Channel;
use twinspan_session::{CloseReason, RefuseReason, SessionKey, UserId};
use twinspan_world::event::{ActionOutcome, ClientEvent, EVENT_BYTES_MAX, ServerEvent};
use twinspan_world::{
    EntityId, InputBundle, InterestConfig, Kind, StateHeader, Subscriptions, TICK_HZ, Verdict,
    World,
};

use crate::config::ServerConfig;
use crate::limit::Bucket;
use crate::measure::{Latency, elapsed_since_wire};
use crate::wire::{EVENTS, INPUT, TICKS_PER_STATE};

/// Input messages that a client may send per second: twice the schedule, for what a burst of delay
/// delivers at once.
const INPUTS_PER_SECOND_MAX: u32 = 2 * TICK_HZ;
/// Messages over a limit, or that cannot be decoded, that are forgiven per second; a second's worth
/// may come at once, as after a stall of the network. Beyond it the client is closed.
const OFFENCES_PER_SECOND_MAX: u32 = 100;
/// Events that wait to be handed to the sessions; each handled message adds at most two.
const EVENTS_WAITING_MAX: usize = 65_536;
/// Inputs that a client may leave out before it counts as new: 20 seconds of them, in which a
/// silent session ends. Without it one false number would spoil what is counted as expected.
const INPUT_GAP_MAX: u32 = 20 * TICK_HZ;

/// What players did and what became of it.
#[derive(Debug, Default)]
pub struct PlayerStats {
    /// Players that entered the world.
    pub joined: u64,
    /// Players that left it.
    pub left: u64,
    /// Input messages taken.
    pub inputs: u64,
    /// Input messages that the numbers of those taken call for: what is missing was lost, or
    /// overtaken and of no more use.
    pub inputs_expected: u64,
    /// Input messages over the rate limit.
    pub inputs_flooding: u64,
    /// Messages that could not be decoded or came on a channel that clients do not use.
    pub malformed: u64,
    /// Ticks in which a player's claimed position was not where authority put it.
    pub corrected: u64,
    /// Players closed for claims that no honest client makes.
    pub lying: u64,
    /// Reliable messages taken from clients.
    pub reliable_received: u64,
    /// Reliable messages handed to sessions.
    pub reliable_sent: u64,
    /// Actions whose number was not the one after the last: a broken promise of the channel.
    pub actions_out_of_order: u64,
    /// Actions over the rate limit.
    pub actions_flooding: u64,
    /// Actions that took effect.
    pub actions_applied: u64,
    /// Actions that the rules refused.
    pub actions_refused: u64,
    /// One-way latency of inputs, from the slot they were scheduled for.
    pub up: Latency,
}

impl Clone for PlayerStats {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Copies without allocating.
    fn clone_from(&mut self, source: &Self) {
        let mut up = core::mem::replace(&mut self.up, Latency::EMPTY);
        up.clone_from(&source.up);
        let Self { joined, left, inputs, inputs_expected, inputs_flooding, .. } = *source;
        let Self { malformed, corrected, lying, reliable_received, reliable_sent, .. } = *source;
        let Self { actions_out_of_order, actions_flooding, .. } = *source;
        let Self { actions_applied, actions_refused, .. } = *source;
        *self = Self {
            joined,
            left,
            inputs,
            inputs_expected,
            inputs_flooding,
            malformed,
            corrected,
            lying,
            reliable_received,
            reliable_sent,
            actions_out_of_order,
            actions_flooding,
            actions_applied,
            actions_refused,
            up,
        };
    }
}

/// Reliable messages of one player.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReliableCounts {
    /// Handed to the session.
    pub sent: u64,
    /// Taken from the session.
    pub received: u64,
}

/// One player in the world.
struct Player {
    session: SessionKey,
    user: UserId,
    entity: EntityId,
    subscriptions: Subscriptions,
    inputs: Bucket,
    events: Bucket,
    offences: Bucket,
    /// Number of the last action taken; actions are numbered from 1.
    last_action: u32,
    /// Number of the newest input heard of.
    newest_input: u32,
    /// Reliable messages handed to this player's session, and taken from it.
    reliable: ReliableCounts,
    closing: bool,
}

/// All players, by session slot.
pub(super) struct Players {
    /// Index: [`SessionKey::index`].
    slots: Vec<Option<Player>>,
    /// Session slot of each player entity; index: [`EntityId::index`].
    slot_of_entity: Vec<Option<u32>>,
    count: usize,
    interest: InterestConfig,
    world_side: f64,
    world_cell: f64,
    events_per_second_max: u32,
    events: VecDeque<(SessionKey, ServerEvent)>,
    encoded: [u8; EVENT_BYTES_MAX],
    verdicts: VecDeque<(SessionKey, CloseReason)>,
    cipher: Option<Cipher>,
    stats: PlayerStats,
    /// Latency of inputs since it was last taken.
    up_recent: Latency,
}

impl Players {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            slots: Vec::new(),
            slot_of_entity: vec![None; config.world.entities_max],
            count: 0,
            interest: config.interest,
            world_side: config.world.side,
            world_cell: config.world.cell,
            events_per_second_max: config.events_per_second_max,
            events: VecDeque::new(),
            encoded: [0; EVENT_BYTES_MAX],
            verdicts: VecDeque::new(),
            cipher: None,
            stats: PlayerStats::default(),
            up_recent: Latency::default(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) const fn stats(&self) -> &PlayerStats {
        &self.stats
    }

    /// Copies the latency of inputs since the last call into `out` and begins anew.
    pub(super) fn take_recent(&mut self, out: &mut Latency) {
        out.clone_from(&self.up_recent);
        self.up_recent.clear();
    }

    pub(super) const fn cipher(&self) -> Option<Cipher> {
        self.cipher
    }

    fn player(&self, session: SessionKey) -> Option<&Player> {
        let player = self.slots.get(session.index())?.as_ref()?;
        (player.session == session).then_some(player)
    }

    pub(super) fn subscriptions(&self, session: SessionKey) -> Option<&Subscriptions> {
        self.player(session).map(|player| &player.subscriptions)
    }

    /// Every player's session, user, entity and subscriptions, in slot order.
    pub(super) fn rows(
        &self,
    ) -> impl Iterator<Item = (SessionKey, UserId, EntityId, &Subscriptions)> {
        self.slots
            .iter()
            .flatten()
            .map(|player| (player.session, player.user, player.entity, &player.subscriptions))
    }

    /// Puts a player into the world; false when the world has no room, and the session is closed.
    pub(super) fn join(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        user: UserId,
        cipher: Cipher,
        world: &mut World,
    ) -> bool {
        let Ok(entity) = world.spawn_anywhere(Kind::Player) else {
            self.refuse(session, RefuseReason::Full);
            return false;
        };
        let mut subscriptions = Subscriptions::new(self.interest);
        if let Some(state) = world.entity(entity) {
            subscriptions.update(world.tick(), state.position, world.grid());
        }
        let slot = session.index();
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.slot_of_entity.get_mut(entity.index()) {
            *place = u32::try_from(slot).ok();
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Player {
                session,
                user,
                entity,
                subscriptions,
                inputs: Bucket::new(now, INPUTS_PER_SECOND_MAX),
                events: Bucket::new(now, self.events_per_second_max),
                offences: Bucket::new(now, OFFENCES_PER_SECOND_MAX),
                last_action: 0,
                newest_input: 0,
                reliable: ReliableCounts::default(),
                closing: false,
            });
            self.count += 1;
        }
        self.cipher = Some(cipher);
        self.stats.joined += 1;
        let welcome = ServerEvent::Welcome {
            own: entity,
            tick: world.tick(),
            tick_hz: TICK_HZ,
            state_hz: TICK_HZ / TICKS_PER_STATE,
            side: self.world_side,
            cell: self.world_cell,
        };
        self.tell(session, welcome);
        true
    }

    /// Lets a session go before anybody joined with it.
    pub(super) fn refuse(&mut self, session: SessionKey, reason: RefuseReason) {
        self.verdicts.push_back((session, CloseReason::Refused(reason)));
    }

    pub(super) fn leave(&mut self, session: SessionKey, reason: CloseReason, world: &mut World) {
        if self.player(session).is_none() {
            return;
        }
        let Some(player) = self.slots.get_mut(session.index()).and_then(Option::take) else {
            return;
        };
        if let Some(place) = self.slot_of_entity.get_mut(player.entity.index()) {
            *place = None;
        }
        world.despawn(player.entity);
        self.count -= 1;
        self.stats.left += 1;
        self.stats.lying += u64::from(reason == CloseReason::PositionLie);
    }

    pub(super) fn handle_message(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        channel: Channel,
        bytes: &[u8],
        world: &mut World,
    ) {
        match channel {
            INPUT => self.handle_input(now, session, bytes, world),
            EVENTS => self.handle_event(now, session, bytes, world),
            _ => {
                self.stats.malformed += 1;
                self.offend(now, session, CloseReason::ProtocolViolation);
            }
        }
    }

    fn handle_input(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        bytes: &[u8],
        world: &mut World,
    ) {
        let Some(player) = slot_mut(&mut self.slots, session) else { return };
        if !player.inputs.take(now) {
            self.stats.inputs_flooding += 1;
            self.offend(now, session, CloseReason::Flooding);
            return;
        }
        let Ok(bundle) = InputBundle::decode(bytes) else {
            self.stats.malformed += 1;
            self.offend(now, session, CloseReason::ProtocolViolation);
            return;
        };
        self.stats.inputs += 1;
        let newest = bundle.newest();
        let gap = newest.saturating_sub(player.newest_input).min(INPUT_GAP_MAX);
        self.stats.inputs_expected += u64::from(gap);
        player.newest_input = player.newest_input.max(newest);
        if let Some(latency) = elapsed_since_wire(now, bundle.slot_us) {
            self.stats.up.record(latency);
            self.up_recent.record(latency);
        }
        for input in bundle.inputs() {
            // The world keeps what is new and ignores what it already has.
            let _ = world.submit(player.entity, *input);
        }
    }

    fn handle_event(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        bytes: &[u8],
        world: &mut World,
    ) {
        self.stats.reliable_received += 1;
        let Some(player) = slot_mut(&mut self.slots, session) else { return };
        player.reliable.received += 1;
        let Ok(ClientEvent::ApplyEffect { action, target }) = ClientEvent::decode(bytes) else {
            self.stats.malformed += 1;
            self.offend(now, session, CloseReason::ProtocolViolation);
            return;
        };
        if action != player.last_action.wrapping_add(1) {
            self.stats.actions_out_of_order += 1;
        }
        player.last_action = action;
        let actor = player.entity;
        if !player.events.take(now) {
            self.stats.actions_flooding += 1;
            self.tell(
                session,
                ServerEvent::ActionResult { action, outcome: ActionOutcome::TooFast },
            );
            self.offend(now, session, CloseReason::Flooding);
            return;
        }
        let outcome = match world.apply_effect(actor, target) {
            Ok(applied) => {
                self.stats.actions_applied += 1;
                self.tell_target(target, actor, applied.until_tick);
                ActionOutcome::Applied { until_tick: applied.until_tick }
            }
            Err(refused) => {
                self.stats.actions_refused += 1;
                ActionOutcome::Refused(refused)
            }
        };
        self.tell(session, ServerEvent::ActionResult { action, outcome });
    }

    fn tell_target(&mut self, target: EntityId, actor: EntityId, until_tick: u32) {
        let slot = self.slot_of_entity.get(target.index()).copied().flatten();
        let Some(player) = slot.and_then(|slot| self.slots.get(slot as usize)?.as_ref()) else {
            return;
        };
        if player.entity == target {
            self.tell(player.session, ServerEvent::EffectOn { actor, until_tick });
        }
    }

    pub(super) fn tell_all_draining(&mut self) {
        for slot in 0..self.slots.len() {
            let Some(session) = self.slots.get(slot).and_then(|p| p.as_ref().map(|p| p.session))
            else {
                continue;
            };
            self.tell(session, ServerEvent::Draining);
        }
    }

    /// Queues an event; a queue that is full although it is emptied after every call closes whom it
    /// cannot serve.
    fn tell(&mut self, session: SessionKey, event: ServerEvent) {
        if self.events.len() < EVENTS_WAITING_MAX {
            self.events.push_back((session, event));
        } else {
            self.verdicts.push_back((session, CloseReason::QueueOverflow));
        }
    }

    fn offend(&mut self, now: Timestamp, session: SessionKey, reason: CloseReason) {
        let Some(player) = slot_mut(&mut self.slots, session) else { return };
        if !player.offences.take(now) && !player.closing {
            player.closing = true;
            self.verdicts.push_back((session, reason));
        }
    }

    /// After a tick: who sees what now, and who lied in it.
    pub(super) fn after_step(&mut self, world: &World) {
        for player in self.slots.iter_mut().flatten() {
            let Some(state) = world.entity(player.entity) else { continue };
            player.subscriptions.update(world.tick(), state.position, world.grid());
            match world.verdict(player.entity) {
                Verdict::Honest => {}
                Verdict::Corrected => self.stats.corrected += 1,
                Verdict::Lying if !player.closing => {
                    player.closing = true;
                    self.verdicts.push_back((player.session, CloseReason::PositionLie));
                }
                Verdict::Lying => {}
            }
        }
    }

    pub(super) fn state_header(&self, session: SessionKey, world: &World) -> Option<StateHeader> {
        let player = self.player(session)?;
        StateHeader::of(world, player.entity, &player.subscriptions)
    }

    /// The next event to be sent, encoded.
    pub(super) fn next_event(&mut self) -> Option<(SessionKey, &[u8])> {
        let (session, event) = self.events.pop_front()?;
        let len = event.encode(&mut self.encoded).unwrap_or(0);
        Some((session, self.encoded.get(..len).unwrap_or_default()))
    }

    pub(super) fn count_sent(&mut self, session: SessionKey) {
        self.stats.reliable_sent += 1;
        if let Some(player) = slot_mut(&mut self.slots, session) {
            player.reliable.sent += 1;
        }
    }

    /// Reliable messages of the player that is `user`, while it is in the world.
    pub(super) fn reliable_counts(&self, user: UserId) -> Option<ReliableCounts> {
        let mut players = self.slots.iter().flatten();
        players.find(|player| player.user == user).map(|player| player.reliable)
    }

    /// The next session to be closed.
    pub(super) fn next_verdict(&mut self) -> Option<(SessionKey, CloseReason)> {
        self.verdicts.pop_front()
    }
}

/// The player of a session, to be changed; a function of the slots alone, so that the counters stay
/// free to change beside it.
fn slot_mut(slots: &mut [Option<Player>], session: SessionKey) -> Option<&mut Player> {
    slots.get_mut(session.index())?.as_mut().filter(|player| player.session == session)
}
