//! The world's side of a server on several cores: hears the shards, makes ticks, publishes images.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use twinspan_core::random::Stream;
use twinspan_core::steer::Steering;
use twinspan_core::time::Timestamp;
use twinspan_net::{LaneReceiver, LaneSender, LatestSender, lane, latest};
use twinspan_session::{CloseReason, SessionKey, UserId};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{EntityId, World};

use super::super::admission::Places;
use super::super::clock::{Clock, DueTick};
use super::super::host::Host;
use super::super::messages::{Seat, ServerMessages, Typed, TypedGate};
use super::super::players::{Movement, STANDING_TICKS};
use super::super::realm::{Asked, Newcomer, Realm};
use super::super::snapshot::StatsSnapshot;
use super::super::stats::ServerStats;
use super::image::{Published, Ring};
use super::letters::{
    CALLS_MAX, Call, HELD_BANS_MAX, HELD_BYTES_MAX, HELD_MAX, Inputs, LinkStats, WORDS_MAX, Word,
    inputs_max, keep, letter,
};
use super::remote::{Lines, Remote};
use super::switch::{Switch, switches};
use crate::config::ServerConfig;
use crate::error::ServerError;
use crate::measure::Latency;

/// A player as the world knows it.
#[derive(Clone, Copy, Debug)]
struct Guest {
    session: SessionKey,
    user: UserId,
    entity: EntityId,
}

/// What the world keeps of one shard.
struct Desk {
    calls: LaneReceiver<Call>,
    inputs: LaneReceiver<Inputs>,
    words: LaneSender<Word>,
    images: LatestSender<Published>,
    /// Words that wait for room in the lane, in order.
    held: VecDeque<Word>,
    held_bytes: usize,
    /// Bans among them.
    held_bans: usize,
    /// By session slot.
    guests: Vec<Option<Guest>>,
    is_unwoken: bool,
}

impl Desk {
    fn guest(&self, session: SessionKey) -> Option<Guest> {
        let guest = self.guests.get(session.index()).copied().flatten();
        guest.filter(|guest| guest.session == session)
    }

    fn has_room(&self) -> bool {
        self.held.len() < HELD_MAX && self.held_bytes < HELD_BYTES_MAX
    }

    /// Says something, or keeps it until there is room. For what answers calls, which are not heard
    /// without room, and for what ends sessions, of which each ends once.
    fn say(&mut self, word: Word, stats: &mut LinkStats) {
        self.is_unwoken = true;
        let refused = if self.held.is_empty() {
            match self.words.push(word) {
                Ok(()) => return,
                Err(word) => word,
            }
        } else {
            word
        };
        stats.held += 1;
        self.held_bytes += bytes_of(&refused);
        self.held_bans += usize::from(matches!(refused, Word::Ban { .. }));
        self.held.push_back(refused);
    }

    /// Says who is banned, as long as not too many bans wait.
    fn say_ban(&mut self, user: UserId, length: Duration, stats: &mut LinkStats) {
        if self.held_bans < HELD_BANS_MAX {
            self.say(Word::Ban { user, length }, stats);
        } else {
            stats.bans_dropped += 1;
        }
    }

    /// The same for what a shard that is far behind goes without.
    fn say_or_drop(&mut self, word: Word, stats: &mut LinkStats) {
        if self.has_room() {
            self.say(word, stats);
        } else {
            stats.words_dropped += 1;
        }
    }

    fn retry(&mut self) {
        while let Some(word) = self.held.pop_front() {
            let (bytes, is_ban) = (bytes_of(&word), matches!(word, Word::Ban { .. }));
            if let Err(word) = self.words.push(word) {
                self.held.push_front(word);
                return;
            }
            self.held_bytes -= bytes;
            self.held_bans -= usize::from(is_ban);
            self.is_unwoken = true;
        }
    }
}

fn bytes_of(word: &Word) -> usize {
    match word {
        Word::Typed { letter, .. } => letter.len(),
        _ => 0,
    }
}

/// The world and what it says to the shards.
pub(crate) struct Office {
    host: Host,
    pub(super) clock: Clock,
    desks: Vec<Desk>,
    ring: Ring,
    /// By entity slot: the player whose it is.
    seats: Vec<Option<Seat>>,
    /// The one session that each user has.
    seat_of_user: BTreeMap<UserId, Seat>,
    players: usize,
    players_max: usize,
    /// The places for them that the shards take.
    pub(super) places: Arc<Places>,
    spare: Vec<Vec<u8>>,
    pub(super) stats: ServerStats,
    pub(super) links: LinkStats,
    pub(super) tick_recent: Latency,
}

/// One shard's ways to the world and to the other shards.
pub(crate) struct Outpost {
    pub(super) remote: Remote,
    pub(super) switch: Switch,
    pub(super) gate: Option<TypedGate>,
    pub(super) places: Arc<Places>,
}

/// A world for as many shards as `steering` has, and each shard's way to it.
///
/// # Errors
/// [`ServerError`] names the setting that cannot be.
pub(crate) fn connect(
    config: &ServerConfig,
    messages: Option<ServerMessages>,
    steering: Steering,
    random: Stream,
) -> Result<(Office, Vec<Outpost>), ServerError> {
    config.interest.check(config.world.cell)?;
    let mut host = Host::new(config, random)?;
    let gate = messages.map(|messages| {
        let typed = Typed::new(messages);
        let gate = typed.gate();
        host.set_typed(typed);
        gate
    });
    // A world of the same measures, so that the host is free to be copied from.
    let like = host.world().clone();
    let shards = usize::from(steering.shards());
    let (ring, first) = Ring::new(&like, shards, &mut host);
    let places = Arc::new(Places::new(config.session.sessions_max));
    let (mut desks, mut outposts) = (Vec::new(), Vec::new());
    for switch in switches(steering) {
        let (call_sender, calls) = lane(CALLS_MAX);
        let (input_sender, inputs) = lane(inputs_max(config.session.sessions_max));
        let (words, word_receiver) = lane(WORDS_MAX);
        let (images, image_receiver) = latest();
        desks.push(Desk {
            calls,
            inputs,
            words,
            images,
            held: VecDeque::new(),
            held_bytes: 0,
            held_bans: 0,
            guests: Vec::new(),
            is_unwoken: false,
        });
        let lines = Lines {
            calls: call_sender,
            inputs: input_sender,
            words: word_receiver,
            images: image_receiver,
        };
        let remote = Remote::new(lines, Arc::clone(&first));
        let (gate, places) = (gate.clone(), Arc::clone(&places));
        outposts.push(Outpost { remote, switch, gate, places });
    }
    let office = Office {
        host,
        clock: Clock::default(),
        desks,
        ring,
        seats: vec![None; config.world.entities_max],
        seat_of_user: BTreeMap::new(),
        players: 0,
        players_max: config.session.sessions_max,
        places,
        spare: Vec::new(),
        stats: ServerStats::default(),
        links: LinkStats::default(),
        tick_recent: Latency::default(),
    };
    Ok((office, outposts))
}

impl Office {
    pub(super) fn world(&self) -> &World {
        self.host.world()
    }

    /// Hears what the shards have to say, in their order, and answers.
    pub(super) fn hear(&mut self, now: Timestamp) {
        for shard in 0..self.desks.len() {
            let Some(desk) = self.desks.get_mut(shard) else { break };
            desk.retry();
            let (calls, gone) = (desk.calls.len(), desk.calls.is_abandoned());
            for _ in 0..calls {
                // A shard that does not listen is not heard either: its answers would have no room.
                let Some(desk) = self.desks.get_mut(shard).filter(|desk| desk.has_room()) else {
                    break;
                };
                let Some(call) = desk.calls.pop() else { break };
                self.answer(now, shard, call);
            }
            if gone && calls == 0 {
                self.see_off(now, shard);
            }
        }
        self.wake();
    }

    /// A shard is gone, and its players with it.
    fn see_off(&mut self, now: Timestamp, shard: usize) {
        let Some(desk) = self.desks.get_mut(shard) else { return };
        let guests = core::mem::take(&mut desk.guests);
        for guest in guests.into_iter().flatten() {
            self.let_go(now, shard, guest, false);
        }
    }

    fn answer(&mut self, now: Timestamp, shard: usize, call: Call) {
        match call {
            Call::Join(newcomer) => self.join(now, shard, newcomer),
            Call::Leave { session, may_resume } => self.leave(now, shard, session, may_resume),
            Call::Act { session, action, asked } => self.act(now, shard, session, (action, asked)),
            Call::Typed { session, channel, letter } => {
                if let Some(guest) = self.desks.get(shard).and_then(|desk| desk.guest(session)) {
                    let seat = Seat { shard: shard as u16, session };
                    let from = (seat, guest.user, guest.entity);
                    self.host.receive_bytes(now, from, (channel, &letter));
                    self.hand_out();
                }
                let Self { desks, links, .. } = self;
                if let Some(desk) = desks.get_mut(shard) {
                    desk.say(Word::Back(letter), links);
                }
            }
            Call::Ban { user, length } => {
                let Self { desks, links, .. } = self;
                let others = desks.iter_mut().enumerate().filter(|(other, _)| *other != shard);
                others.for_each(|(_, desk)| desk.say_ban(user, length, links));
            }
            Call::Back(letter) => keep(&mut self.spare, letter),
        }
    }

    fn join(&mut self, now: Timestamp, shard: usize, newcomer: Newcomer) {
        let Newcomer { session, user, has_resumed } = newcomer;
        // Its slot is free: who had it before left before.
        self.leave_slot(now, shard, session);
        if let Some(older) = self.seat_of_user.get(&user).copied() {
            self.end(now, older, has_resumed, CloseReason::Kicked);
        }
        let has_room = self.players < self.players_max;
        let place = if has_room { self.host.place_for(user, has_resumed) } else { None };
        let seat = Seat { shard: shard as u16, session };
        if let Some(place) = place {
            if let Some(at) = self.seats.get_mut(place.entity.index()) {
                *at = Some(seat);
            }
            if let Some(typed) = self.host.typed() {
                typed.join(user, seat);
            }
            self.seat_of_user.insert(user, seat);
            self.players += 1;
        } else {
            self.places.give_back();
        }
        let Self { desks, links, .. } = self;
        let Some(desk) = desks.get_mut(shard) else { return };
        if session.index() >= desk.guests.len() {
            desk.guests.resize(session.index() + 1, None);
        }
        if let Some(slot) = desk.guests.get_mut(session.index()) {
            *slot = place.map(|place| Guest { session, user, entity: place.entity });
        }
        desk.say(Word::Seated { session, place }, links);
    }

    /// Lets a player go whose shard does not know yet, and has its session closed.
    fn end(&mut self, now: Timestamp, seat: Seat, may_resume: bool, reason: CloseReason) {
        let Seat { shard, session } = seat;
        self.leave(now, usize::from(shard), session, may_resume);
        let Self { desks, links, .. } = self;
        if let Some(desk) = desks.get_mut(usize::from(shard)) {
            desk.say(Word::End { session, reason }, links);
        }
    }

    fn leave_slot(&mut self, now: Timestamp, shard: usize, session: SessionKey) {
        let guests = self.desks.get(shard).map(|desk| &desk.guests);
        let before = guests.and_then(|guests| guests.get(session.index()).copied().flatten());
        if let Some(before) = before {
            self.leave(now, shard, before.session, false);
        }
    }

    fn leave(&mut self, now: Timestamp, shard: usize, session: SessionKey, may_resume: bool) {
        let Some(desk) = self.desks.get_mut(shard) else { return };
        let Some(guest) = desk.guest(session) else { return };
        if let Some(slot) = desk.guests.get_mut(session.index()) {
            *slot = None;
        }
        self.let_go(now, shard, guest, may_resume);
    }

    fn let_go(&mut self, now: Timestamp, shard: usize, guest: Guest, may_resume: bool) {
        let Guest { session, user, entity } = guest;
        let seat = Seat { shard: shard as u16, session };
        if let Some(at) = self.seats.get_mut(entity.index()).filter(|at| **at == Some(seat)) {
            *at = None;
        }
        if self.seat_of_user.get(&user) == Some(&seat) {
            self.seat_of_user.remove(&user);
        }
        if let Some(typed) = self.host.typed() {
            typed.leave(user, seat);
        }
        self.players -= 1;
        self.places.give_back();
        self.host.let_go(now, user, entity, may_resume);
    }

    fn act(
        &mut self,
        now: Timestamp,
        shard: usize,
        session: SessionKey,
        (action, asked): (u32, Asked),
    ) {
        let Some(guest) = self.desks.get(shard).and_then(|desk| desk.guest(session)) else {
            return;
        };
        let (outcome, was_asked) = match asked {
            Asked::Known(outcome) => (outcome, false),
            Asked::Effect(target) => {
                let outcome = self.host.apply(guest.entity, target);
                if let ActionOutcome::Applied { until_tick } = outcome {
                    self.tell_target(now, target, guest.entity, until_tick);
                }
                (outcome, true)
            }
        };
        let Self { desks, links, .. } = self;
        if let Some(desk) = desks.get_mut(shard) {
            desk.say(Word::Acted { session, action, outcome, was_asked }, links);
        }
    }

    /// Tells a player what was done to it. One that there is no room to tell is let go, as a full
    /// queue lets go of it on one core: an effect is promised to arrive.
    fn tell_target(&mut self, now: Timestamp, target: EntityId, actor: EntityId, until_tick: u32) {
        let Self { desks, links, seats, .. } = self;
        let Some(seat) = seats.get(target.index()).copied().flatten() else { return };
        let Seat { shard, session } = seat;
        let Some(desk) = desks.get_mut(usize::from(shard)) else { return };
        if desk.guest(session).is_none_or(|guest| guest.entity != target) {
            return;
        }
        if desk.has_room() {
            desk.say(Word::Effect { session, actor, until_tick }, links);
        } else {
            links.sessions_given_up += 1;
            self.end(now, seat, false, CloseReason::QueueOverflow);
        }
    }

    /// Tells a target of an effect, and returns the target's session if it still has one, for tests.
    #[cfg(test)]
    pub(super) fn tell(
        &mut self,
        now: Timestamp,
        target: EntityId,
        actor: EntityId,
    ) -> Option<SessionKey> {
        self.tell_target(now, target, actor, 0);
        self.seats.get(target.index()).copied().flatten().map(|seat| seat.session)
    }

    /// Hands out what handlers of typed messages sent.
    fn hand_out(&mut self) {
        let Self { host, desks, links, spare, .. } = self;
        let Some(typed) = host.typed() else { return };
        typed.hand_out(|seat, channel, bytes| match seat {
            Some(Seat { shard, session }) => {
                if let Some(desk) = desks.get_mut(usize::from(shard)) {
                    let (to, letter) = (Some(session), letter(spare, bytes));
                    desk.say_or_drop(Word::Typed { to, channel, letter }, links);
                }
            }
            None => desks.iter_mut().for_each(|desk| {
                let letter = letter(spare, bytes);
                desk.say_or_drop(Word::Typed { to: None, channel, letter }, links);
            }),
        });
    }

    /// Hands the inputs that have come to the world, a share of each shard's.
    fn take_inputs(&mut self) {
        let Self { host, desks, .. } = self;
        for desk in desks {
            for _ in 0..desk.inputs.len() {
                let Some(Inputs { session, bundle }) = desk.inputs.pop() else { break };
                if let Some(guest) = desk.guest(session) {
                    host.submit_all(guest.entity, &bundle);
                }
            }
        }
    }

    /// Makes the ticks that are due, unless states of the present one are still to be sent by the
    /// shard on this thread.
    pub(super) fn run_due_ticks(&mut self, now: Timestamp, leaves_states: bool) {
        self.clock.begin(now);
        if self.clock.holds(now, leaves_states) {
            return;
        }
        while let Some(due) = self.clock.next_due(now) {
            if due.is_late {
                self.stats.count_late(due.scheduled);
            }
            if due.is_skipped {
                self.stats.skipped_ticks += 1;
            } else {
                self.run_tick(now, due);
            }
            if due.is_last {
                let Self { desks, links, .. } = self;
                desks.iter_mut().for_each(|desk| desk.say(Word::Drain, links));
            }
        }
    }

    fn run_tick(&mut self, now: Timestamp, due: DueTick) {
        self.hear(now);
        self.take_inputs();
        let is_sound = self.host.tick(now, due.tick);
        self.stats.ticks += 1;
        self.stats.invariants_broken += u64::from(!is_sound);
        self.look_at_movement();
        let Self { ring, host, desks, links, .. } = self;
        match ring.publish(now, due, host) {
            Some(image) => {
                for desk in desks {
                    // The image that it takes the place of is the one of the tick before, as a rule
                    // long since taken.
                    drop(desk.images.put(Arc::clone(&image)));
                    desk.is_unwoken = true;
                }
            }
            None => links.images_refused += 1,
        }
        self.wake();
    }

    /// Tells the shards what the tick showed of their players.
    fn look_at_movement(&mut self) {
        let Self { host, desks, links, .. } = self;
        let world = host.world();
        let turn = world.tick() as usize % STANDING_TICKS;
        for desk in desks {
            for slot in 0..desk.guests.len() {
                let Some(guest) = desk.guests.get(slot).copied().flatten() else { continue };
                let looks = slot % STANDING_TICKS == turn;
                if let Some(movement) = Movement::of(world, guest.entity, looks) {
                    let session = guest.session;
                    desk.say_or_drop(Word::Moved { session, movement }, links);
                }
            }
        }
    }

    fn wake(&mut self) {
        for desk in &mut self.desks {
            if core::mem::take(&mut desk.is_unwoken) {
                desk.words.wake();
            }
        }
    }

    /// Whether words wait for room.
    pub(super) fn is_held_up(&self) -> bool {
        self.desks.iter().any(|desk| !desk.held.is_empty())
    }

    /// Whether a shard has said something, or is gone.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ready = Poll::Pending;
        for desk in &mut self.desks {
            let was_seen_off = desk.calls.is_abandoned() && desk.calls.is_empty();
            if was_seen_off && desk.guests.is_empty() {
                continue;
            }
            // One that is not heard now is heard when it has listened: that is tried every
            // millisecond.
            if desk.has_room() && desk.calls.poll_ready(cx).is_ready() {
                ready = Poll::Ready(());
            }
        }
        ready
    }

    /// Whether all shards but the first, which is on this thread, are gone.
    pub(super) fn is_alone(&self) -> bool {
        self.desks.iter().skip(1).all(|desk| desk.calls.is_abandoned())
    }

    /// Adds what the world's side counted to what the shards counted, and begins new recent latencies.
    pub(super) fn add_to(&mut self, out: &mut StatsSnapshot) {
        out.stats.add(&self.stats);
        out.links.add(&self.links);
        out.tick_recent.add(&self.tick_recent);
        self.tick_recent.clear();
    }

    pub(super) fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        let Some(over) = self.clock.on_elapsed(ended) else { return };
        self.stats.tick_time.record(ended.since(began));
        self.tick_recent.record(ended.since(began));
        if let Some(scheduled) = over {
            self.stats.count_late(scheduled);
        }
    }
}
