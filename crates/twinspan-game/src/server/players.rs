//! The players behind the sessions: their entities, their inputs, their actions, what they see.

mod inbox;
mod outlooks;
mod stats;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use twinspan_admission::{Conduct, Judge, Ruling, Signal};
use twinspan_core::aead::Cipher;
use twinspan_core::prefetch;
use twinspan_core::time::Timestamp;
use twinspan_session::{CloseReason, RefuseReason, SessionKey, UserId};
use twinspan_world::event::{EVENT_BYTES_MAX, ServerEvent};
use twinspan_world::{
    Baselines, EntityId, InterestConfig, Subscriptions, TICK_HZ, Verdict as WorldVerdict, World,
};

use super::admission::reason_of;
use super::flow::Flow;
use super::messages::Used;
use super::realm::{Answer, From, Leaver, Newcomer, Place, Realm};
use super::sight::{Allowance, Outlook};
use crate::config::ServerConfig;
use crate::measure::Latency;
use crate::wire::TICKS_PER_STATE;

pub(super) use inbox::Message;
pub use stats::PlayerStats;

/// Ticks in which every player's movement is looked at once, whatever the world says of it.
pub(super) const STANDING_TICKS: usize = TICK_HZ as usize;

/// What a tick showed of a player's movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Movement {
    pub(super) is_corrected: bool,
    /// Held against it, in whole points.
    pub(super) points: u32,
}

impl Movement {
    /// None of an honest player whose turn it is not to be looked at.
    pub(super) fn of(world: &World, entity: EntityId, looks: bool) -> Option<Self> {
        let verdict = world.verdict(entity);
        if verdict == WorldVerdict::Honest && !looks {
            return None;
        }
        // In tenths of a point; the scale has whole ones.
        let points = world.standing(entity).map_or(0, |standing| standing.score / 10);
        Some(Self { is_corrected: verdict == WorldVerdict::Corrected, points })
    }
}

/// How a session becomes a player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    Done,
    /// Its place comes from another thread.
    Later,
    /// There is no room, and the session is closed.
    Refused,
}

/// Events that wait to be handed to the sessions; each handled message adds at most two.
const EVENTS_WAITING_MAX: usize = 65_536;

/// Reliable messages of one player.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReliableCounts {
    /// Handed to the session.
    pub sent: u64,
    /// Taken from the session.
    pub received: u64,
}

/// How somebody came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) cipher: Cipher,
    /// With the ticket of a session that was lost.
    pub(super) has_resumed: bool,
}

/// One player in the world.
struct Player {
    session: SessionKey,
    user: UserId,
    /// None until its place is known.
    entity: Option<EntityId>,
    /// What it owes the filter's rules, and what is held against it.
    conduct: Conduct,
    /// What it used up of the rate of typed messages.
    used: Used,
    /// Number of the last action taken; actions are numbered from 1.
    last_action: u32,
    /// Number of the newest input heard of.
    newest_input: u32,
    /// Reliable messages handed to this player's session, and taken from it.
    reliable: ReliableCounts,
    closing: bool,
}

impl Player {
    fn new(session: SessionKey, user: UserId) -> Self {
        Self {
            session,
            user,
            entity: None,
            conduct: Conduct::default(),
            used: Used::default(),
            last_action: 0,
            newest_input: 0,
            reliable: ReliableCounts::default(),
            closing: false,
        }
    }

    const fn origin(&self) -> From {
        From { session: self.session, user: self.user, entity: self.entity }
    }

    /// What a ruling calls for beyond the message that it was about: once, the end.
    fn end(&mut self, ruling: Ruling) -> Option<Verdict> {
        let (cause, ban) = match ruling {
            Ruling::Disconnect { cause } => (cause, None),
            Ruling::Ban { cause, length } => (cause, Some((self.user, length))),
            _ => return None,
        };
        let first = !core::mem::replace(&mut self.closing, true);
        first.then_some(Verdict { session: self.session, reason: reason_of(cause), ban })
    }
}

/// A session to be closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) session: SessionKey,
    pub(super) reason: CloseReason,
    /// Whom to let in no more, and for how long.
    pub(super) ban: Option<(UserId, Duration)>,
}

/// All players, by session slot.
pub(super) struct Players {
    /// Index: [`SessionKey::index`].
    slots: Vec<Option<Player>>,
    /// What states are made of, apart: inputs do not touch it. Someone is in both or in none.
    outlooks: Vec<Option<Outlook>>,
    /// Session slot of each player entity; index: [`EntityId::index`].
    slot_of_entity: Vec<Option<u32>>,
    /// The one session that each user has here.
    session_of_user: BTreeMap<UserId, SessionKey>,
    count: usize,
    interest: InterestConfig,
    /// Cells that a player who walks sees at most.
    cells_seen: usize,
    world_side: f64,
    world_cell: f64,
    effect_ticks: u32,
    state_bytes_per_second: u32,
    events: VecDeque<(SessionKey, ServerEvent)>,
    encoded: [u8; EVENT_BYTES_MAX],
    verdicts: VecDeque<Verdict>,
    cipher: Option<Cipher>,
    stats: PlayerStats,
    /// Latency of inputs since it was last taken.
    up_recent: Latency,
}

impl Players {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            slots: Vec::new(),
            outlooks: Vec::new(),
            slot_of_entity: vec![None; config.world.entities_max],
            session_of_user: BTreeMap::new(),
            count: 0,
            interest: config.interest,
            cells_seen: config.interest.cells_seen(config.world.cell),
            world_side: config.world.side,
            world_cell: config.world.cell,
            effect_ticks: config.world.effect_ticks,
            state_bytes_per_second: config.state_bytes_per_second,
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

    /// Players who are in the world.
    pub(super) const fn seated(&self) -> usize {
        (self.stats.joined - self.stats.left) as usize
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

    /// Wishes for a player's own memory.
    pub(super) fn prefetch(&self, session: SessionKey) {
        if let Some(place) = self.slots.get(session.index()) {
            prefetch::value(place);
        }
    }

    /// Who has a slot, and how many slots there are.
    pub(super) fn at(&self, slot: usize) -> (Option<SessionKey>, usize) {
        let player = self.slots.get(slot).and_then(Option::as_ref);
        (player.map(|player| player.session), self.slots.len())
    }

    /// The entity of a session's player.
    pub(super) fn entity(&self, session: SessionKey) -> Option<EntityId> {
        self.player(session)?.entity
    }

    fn player(&self, session: SessionKey) -> Option<&Player> {
        let player = self.slots.get(session.index())?.as_ref()?;
        (player.session == session).then_some(player)
    }

    /// Every player's session, user, entity and subscriptions, in slot order.
    pub(super) fn rows(
        &self,
    ) -> impl Iterator<Item = (SessionKey, UserId, EntityId, &Subscriptions)> {
        self.slots.iter().zip(&self.outlooks).filter_map(|(player, outlook)| {
            let (player, outlook) = (player.as_ref()?, outlook.as_ref()?);
            Some((player.session, player.user, outlook.entity, &outlook.subscriptions))
        })
    }

    /// Asks the world to let a player in. An older session of the same user is over.
    pub(super) fn join(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        user: UserId,
        entry: Entry,
        realm: &mut impl Realm,
    ) -> Joining {
        let Entry { cipher, has_resumed } = entry;
        if let Some(older) = self.session_of_user.get(&user).copied() {
            self.make_way(now, older, has_resumed, realm);
        }
        let place = match realm.join(Newcomer { session, user, has_resumed }) {
            Answer::Now(Some(place)) => Some(place),
            Answer::Later => None,
            Answer::Now(None) | Answer::Full => {
                self.refuse(session, RefuseReason::Full);
                return Joining::Refused;
            }
        };
        self.cipher = Some(cipher);
        let slot = session.index();
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
            self.outlooks.resize_with(slot + 1, || None);
        }
        if let Some(free) = self.slots.get_mut(slot) {
            *free = Some(Player::new(session, user));
            self.session_of_user.insert(user, session);
            self.count += 1;
        }
        match place {
            Some(place) if self.seat(session, place, realm.world()) => Joining::Done,
            _ => Joining::Later,
        }
    }

    /// Gives a player its place; false when it has left meanwhile.
    pub(super) fn seat(&mut self, session: SessionKey, place: Place, world: &World) -> bool {
        let Some(player) = slot_mut(&mut self.slots, session) else { return false };
        let Place { entity, has_waited } = place;
        player.entity = Some(entity);
        self.stats.returned += u64::from(has_waited);
        let mut subscriptions = Subscriptions::new(self.interest);
        if let Some(state) = world.entity(entity) {
            subscriptions.update(world.tick(), state.position, world.grid());
        }
        let slot = session.index();
        if let Some(place) = self.slot_of_entity.get_mut(entity.index()) {
            *place = u32::try_from(slot).ok();
        }
        if let Some(place) = self.outlooks.get_mut(slot) {
            let allowance = Allowance::new(self.state_bytes_per_second);
            let (flow, baselines) = (Flow::new(), Baselines::for_cells(self.cells_seen));
            *place = Some(Outlook { session, entity, allowance, flow, subscriptions, baselines });
        }
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
        let reason = CloseReason::Refused(reason);
        self.verdicts.push_back(Verdict { session, reason, ban: None });
    }

    /// Lets a player go at once whose user has come again: its session is closed, and its entity
    /// waits for the newer session if that one resumes.
    fn make_way(
        &mut self,
        now: Timestamp,
        older: SessionKey,
        has_resumed: bool,
        realm: &mut impl Realm,
    ) {
        let reason = if has_resumed { CloseReason::Replaced } else { CloseReason::Kicked };
        self.leave(now, older, reason, realm);
        self.end(older, CloseReason::Kicked);
    }

    /// Closes a session because of what was decided elsewhere.
    pub(super) fn end(&mut self, session: SessionKey, reason: CloseReason) {
        if let Some(player) = slot_mut(&mut self.slots, session) {
            player.closing = true;
        }
        self.verdicts.push_back(Verdict { session, reason, ban: None });
    }

    pub(super) fn leave(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        reason: CloseReason,
        realm: &mut impl Realm,
    ) {
        if self.player(session).is_none() {
            return;
        }
        let Some(player) = self.slots.get_mut(session.index()).and_then(Option::take) else {
            return;
        };
        if let Some(place) = self.outlooks.get_mut(session.index()) {
            *place = None;
        }
        let Player { user, entity, .. } = player;
        if self.session_of_user.get(&user) == Some(&session) {
            self.session_of_user.remove(&user);
        }
        if let Some(place) = entity.and_then(|entity| self.slot_of_entity.get_mut(entity.index())) {
            *place = None;
        }
        realm.leave(now, Leaver { session, user, entity, may_resume: reason.may_resume() });
        self.count -= 1;
        self.stats.left += u64::from(entity.is_some());
        self.stats.lying += u64::from(reason == CloseReason::PositionLie);
    }

    fn tell_target(&mut self, target: EntityId, actor: EntityId, until_tick: u32) {
        let slot = self.slot_of_entity.get(target.index()).copied().flatten();
        let Some(player) = slot.and_then(|slot| self.slots.get(slot as usize)?.as_ref()) else {
            return;
        };
        if player.entity == Some(target) {
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
            self.give_up(session);
        }
    }

    /// Closes a session whose messages find no room.
    fn give_up(&mut self, session: SessionKey) {
        let reason = CloseReason::QueueOverflow;
        self.verdicts.push_back(Verdict { session, reason, ban: None });
    }

    /// Something is held against a player, which may end its session.
    fn hold_against(
        &mut self,
        now: Timestamp,
        session: SessionKey,
        signal: Signal,
        judge: &mut Judge,
    ) {
        let Some(player) = slot_mut(&mut self.slots, session) else { return };
        let ruling = judge.on_signal(now, &mut player.conduct, signal, 1);
        self.obey(session, ruling);
    }

    fn obey(&mut self, session: SessionKey, ruling: Ruling) {
        let Some(player) = slot_mut(&mut self.slots, session) else { return };
        self.verdicts.extend(player.end(ruling));
    }

    /// Closes the sessions of users that are not wanted any more.
    pub(super) fn expel(&mut self, is_unwanted: impl Fn(UserId) -> bool) {
        let Self { slots, verdicts, .. } = self;
        for player in slots.iter_mut().flatten().filter(|player| is_unwanted(player.user)) {
            if !core::mem::replace(&mut player.closing, true) {
                let (session, reason) = (player.session, CloseReason::Kicked);
                verdicts.push_back(Verdict { session, reason, ban: None });
            }
        }
    }

    /// Closes the session of one user who is not wanted any more.
    pub(super) fn expel_user(&mut self, user: UserId) {
        let session = self.session_of_user.get(&user).copied();
        let Some(player) = session.and_then(|session| slot_mut(&mut self.slots, session)) else {
            return;
        };
        if !core::mem::replace(&mut player.closing, true) {
            let (session, reason) = (player.session, CloseReason::Kicked);
            self.verdicts.push_back(Verdict { session, reason, ban: None });
        }
    }

    /// After a tick: who lied in it.
    pub(super) fn after_step(&mut self, world: &World, judge: &mut Judge) {
        let turn = world.tick() as usize % STANDING_TICKS;
        for (slot, player) in self.slots.iter_mut().enumerate() {
            let Some(player) = player else { continue };
            let Some(entity) = player.entity else { continue };
            let looks = slot % STANDING_TICKS == turn;
            let Some(movement) = Movement::of(world, entity, looks) else { continue };
            self.stats.corrected += u64::from(movement.is_corrected);
            let ruling = judge.on_movement(&mut player.conduct, movement.points);
            self.verdicts.extend(player.end(ruling));
        }
    }

    /// What a tick showed of one player, from another thread.
    pub(super) fn on_movement(
        &mut self,
        session: SessionKey,
        movement: Movement,
        judge: &mut Judge,
    ) {
        let Some(player) = slot_mut(&mut self.slots, session) else { return };
        self.stats.corrected += u64::from(movement.is_corrected);
        let ruling = judge.on_movement(&mut player.conduct, movement.points);
        self.verdicts.extend(player.end(ruling));
    }

    /// All players' sessions, in slot order.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        self.slots.iter().flatten().map(|player| player.session)
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
        let session = self.session_of_user.get(&user)?;
        self.player(*session).map(|player| player.reliable)
    }

    /// The next session to be closed.
    pub(super) fn next_verdict(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }
}

/// The player of a session, to be changed; a function of the slots alone, so that the counters stay
/// free to change beside it.
fn slot_mut(slots: &mut [Option<Player>], session: SessionKey) -> Option<&mut Player> {
    slots.get_mut(session.index())?.as_mut().filter(|player| player.session == session)
}
