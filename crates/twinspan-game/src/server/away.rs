//! Entities whose players were lost: they keep their places while their players may come back.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use twinspan_core::time::Timestamp;
use twinspan_session::UserId;
use twinspan_world::EntityId;

/// Who is away, and until when their entities wait. As many as the world has entities at most.
#[derive(Debug)]
pub(super) struct Away {
    by_user: BTreeMap<UserId, (EntityId, Timestamp)>,
    /// The same users, by the end of their waiting.
    by_end: BTreeSet<(Timestamp, UserId)>,
    /// How long an entity waits.
    window: Duration,
}

impl Away {
    pub(super) const fn new(window: Duration) -> Self {
        Self { by_user: BTreeMap::new(), by_end: BTreeSet::new(), window }
    }

    /// A player was lost. Returns the entity that the same user left behind before, which waits no
    /// longer.
    pub(super) fn keep(
        &mut self,
        now: Timestamp,
        user: UserId,
        entity: EntityId,
    ) -> Option<EntityId> {
        let before = self.take(user);
        let until = now.after(self.window);
        self.by_user.insert(user, (entity, until));
        self.by_end.insert((until, user));
        before
    }

    /// The entity that waits for this user, which waits no longer.
    pub(super) fn take(&mut self, user: UserId) -> Option<EntityId> {
        let (entity, until) = self.by_user.remove(&user)?;
        self.by_end.remove(&(until, user));
        Some(entity)
    }

    /// An entity that has waited long enough; to be called until there is none.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<EntityId> {
        let (_, user) = self.by_end.first().copied().filter(|(until, _)| *until < now)?;
        self.take(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_core::random::Stream;
    use twinspan_world::{Kind, World, WorldConfig};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn an_entity_waits_for_its_window_and_for_its_user_alone() {
        let mut world = World::new(WorldConfig::default(), Stream::new(1, "world", 0)).unwrap();
        let [a, b, c] = [0; 3].map(|_| world.spawn_anywhere(Kind::Player).unwrap());
        let mut away = Away::new(Duration::from_secs(30));
        assert_eq!(away.keep(at(0), UserId(1), a), None);
        assert_eq!(away.keep(at(5), UserId(2), b), None);
        assert_eq!(away.pop_due(at(30)), None);
        assert_eq!(away.pop_due(at(31)), Some(a));
        assert_eq!(away.pop_due(at(31)), None);
        assert_eq!(away.take(UserId(1)), None);
        assert_eq!(away.keep(at(32), UserId(2), c), Some(b), "one place for each user");
        assert_eq!(away.pop_due(at(36)), None);
        assert_eq!(away.take(UserId(2)), Some(c));
        assert_eq!(away.pop_due(at(99)), None);
    }

    #[test]
    fn of_many_who_wait_all_that_are_due_go_in_their_order() {
        let mut world = World::new(WorldConfig::default(), Stream::new(1, "world", 0)).unwrap();
        let mut away = Away::new(Duration::from_secs(10));
        let all: Vec<_> = (0..50).map(|_| world.spawn_anywhere(Kind::Player).unwrap()).collect();
        for (entity, number) in all.iter().zip(0..) {
            assert_eq!(away.keep(at(number), UserId(99 - number), *entity), None);
        }
        let due: Vec<_> = core::iter::from_fn(|| away.pop_due(at(30))).collect();
        assert_eq!(due, all[..20]);
        assert_eq!((away.by_user.len(), away.by_end.len()), (30, 30));
    }
}
