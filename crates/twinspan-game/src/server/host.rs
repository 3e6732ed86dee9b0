//! The world's side of a server: the world, its cells as bytes, who may come back, and what becomes
//! of typed messages.

use core::time::Duration;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_messages::Incoming;
use twinspan_reliable::Channel;
use twinspan_session::{SessionKey, UserId};
use twinspan_world::event::ActionOutcome;
use twinspan_world::{
    ActionRefused, CellEncodings, EntityId, InputBundle, Kind, World, WorldImage,
};

#[cfg(test)]
use twinspan_world::SpoiltPart;

use super::away::Away;
use super::messages::{Seat, Typed};
use super::realm::{Answer, Asked, From, Leaver, Newcomer, Place, Realm};
use crate::config::ServerConfig;
use crate::error::ServerError;

/// Ticks between two samples of the world's invariants: ten seconds.
const INVARIANT_TICKS: u32 = 600;

/// The world and all that belongs to it alone.
pub(super) struct Host {
    world: World,
    encodings: CellEncodings,
    /// Who may come back.
    away: Away,
    /// Typed messages of the application, if it has any.
    typed: Option<Typed>,
}

impl Host {
    /// A world with the characters that `config` asks for.
    pub(super) fn new(config: &ServerConfig, random: Stream) -> Result<Self, ServerError> {
        let mut world = World::new(config.world.clone(), random)?;
        for (kind, count) in [(Kind::Npc, config.npcs), (Kind::Projectile, config.projectiles)] {
            for _ in 0..count {
                world.spawn_anywhere(kind)?;
            }
        }
        let encodings = CellEncodings::new(&world);
        let away = Away::new(config.session.resume.window);
        Ok(Self { world, encodings, away, typed: None })
    }

    pub(super) fn set_typed(&mut self, typed: Typed) {
        self.typed = Some(typed);
    }

    pub(super) const fn typed(&mut self) -> Option<&mut Typed> {
        self.typed.as_mut()
    }

    /// Hands a typed message that a shard has checked to its handler.
    pub(super) fn receive_bytes(
        &mut self,
        now: Timestamp,
        from: (Seat, UserId, EntityId),
        (channel, bytes): (Channel, &[u8]),
    ) {
        let Self { typed, world, .. } = self;
        if let Some(typed) = typed {
            typed.receive_bytes(now, from, (channel, bytes), world);
        }
    }

    /// Copies what states are made of into `image`.
    pub(super) fn copy_into(&mut self, image: &mut WorldImage) {
        image.take(&self.world, &mut self.encodings);
    }

    /// Makes one tick; false when a sampled check of the world failed.
    pub(super) fn tick(&mut self, now: Timestamp, tick: u32) -> bool {
        while let Some(entity) = self.away.pop_due(now) {
            self.world.despawn(entity);
        }
        self.world.step();
        self.encodings.update(&self.world);
        self.is_sound_at(tick)
    }

    /// Whether the world is as it must be, in the ticks in which that is looked at.
    fn is_sound_at(&self, tick: u32) -> bool {
        !tick.is_multiple_of(INVARIANT_TICKS) || self.world.check_invariants().is_ok()
    }

    /// Spoils the world, for tests of who notices.
    #[cfg(test)]
    pub(super) fn spoil(&mut self, part: SpoiltPart) {
        self.world.spoil(part);
    }

    /// The entity that waited for who comes, or a new one; none when the world has no room.
    pub(super) fn place_for(&mut self, user: UserId, has_resumed: bool) -> Option<Place> {
        if let Some(entity) = self.away.take(user) {
            if has_resumed {
                self.world.restart_inputs(entity);
                return Some(Place { entity, has_waited: true });
            }
            // Whoever comes with a token begins anew.
            self.world.despawn(entity);
        }
        let entity = self.world.spawn_anywhere(Kind::Player).ok()?;
        Some(Place { entity, has_waited: false })
    }

    /// Lets go of a player's entity, at once or when it has waited in vain.
    pub(super) fn let_go(
        &mut self,
        now: Timestamp,
        user: UserId,
        entity: EntityId,
        may_resume: bool,
    ) {
        let gone = if may_resume { self.away.keep(now, user, entity) } else { Some(entity) };
        if let Some(entity) = gone {
            self.world.despawn(entity);
        }
    }

    pub(super) fn apply(&mut self, actor: EntityId, target: EntityId) -> ActionOutcome {
        match self.world.apply_effect(actor, target) {
            Ok(applied) => ActionOutcome::Applied { until_tick: applied.until_tick },
            Err(refused) => ActionOutcome::Refused(refused),
        }
    }

    pub(super) fn submit_all(&mut self, entity: EntityId, bundle: &InputBundle) {
        for input in bundle.inputs() {
            // The world keeps what is new and ignores what it already has.
            let _ = self.world.submit(entity, *input);
        }
    }
}

/// The only shard is on the same thread, and is answered at once.
impl Realm for Host {
    fn world(&self) -> &World {
        &self.world
    }

    fn sight(&mut self) -> (&World, &mut CellEncodings) {
        (&self.world, &mut self.encodings)
    }

    fn join(&mut self, newcomer: Newcomer) -> Answer<Option<Place>> {
        let Newcomer { session, user, has_resumed } = newcomer;
        let place = self.place_for(user, has_resumed);
        if let (Some(_), Some(typed)) = (place, &mut self.typed) {
            typed.join(user, Seat::alone(session));
        }
        Answer::Now(place)
    }

    fn leave(&mut self, now: Timestamp, leaver: Leaver) {
        let Leaver { session, user, entity, may_resume } = leaver;
        if let Some(typed) = &mut self.typed {
            typed.leave(user, Seat::alone(session));
        }
        if let Some(entity) = entity {
            self.let_go(now, user, entity, may_resume);
        }
    }

    fn submit(&mut self, from: From, bundle: &InputBundle) {
        if let Some(entity) = from.entity {
            self.submit_all(entity, bundle);
        }
    }

    fn act(&mut self, from: From, _: u32, asked: Asked) -> Answer<ActionOutcome> {
        Answer::Now(match (asked, from.entity) {
            (Asked::Known(outcome), _) => outcome,
            (Asked::Effect(target), Some(actor)) => self.apply(actor, target),
            (Asked::Effect(_), None) => ActionOutcome::Refused(ActionRefused::NoActor),
        })
    }

    fn receive(
        &mut self,
        now: Timestamp,
        from: From,
        incoming: &Incoming<'_>,
        _: (Channel, &[u8]),
    ) -> bool {
        let Self { typed, world, .. } = self;
        if let (Some(typed), Some(entity)) = (typed, from.entity) {
            let From { session, user, .. } = from;
            typed.receive(now, (Seat::alone(session), user, entity), incoming, world);
        }
        true
    }

    fn ban(&mut self, _: UserId, _: Duration) {}

    fn deliver(&mut self, send: &mut dyn FnMut(SessionKey, Channel, &[u8])) {
        if let Some(typed) = &mut self.typed {
            typed.deliver(send);
        }
    }

    fn prefetch(&self, entity: EntityId) {
        self.world.prefetch(entity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_noticed_in_the_ticks_that_look() {
        for part in [SpoiltPart::Store, SpoiltPart::Grid] {
            let config = ServerConfig::for_players(20);
            let mut host = Host::new(&config, Stream::new(1, "world", 0)).unwrap();
            assert!(host.tick(Timestamp::START, INVARIANT_TICKS));
            host.spoil(part);
            assert!(host.is_sound_at(INVARIANT_TICKS + 1), "this tick does not look");
            assert!(!host.is_sound_at(2 * INVARIANT_TICKS), "{part:?}");
        }
    }
}
