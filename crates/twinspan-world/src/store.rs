//! The arrays that hold all entities, by slot.

use std::collections::VecDeque;

use crate::entity::{EntityState, Flags, HEALTH_FULL, Kind};
use crate::id::EntityId;
use crate::movement::Body;

/// Free slots kept back before one is used again, while unused ones are left: an id then comes
/// round after some 260,000 uses instead of 4,095.
const FREE_SLOTS_RESTING: usize = 64;

/// What changes rarely about an entity.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traits {
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    pub(crate) health: u8,
    /// The tick at which [`Flags::HASTE`] ends, while it is set.
    pub(crate) effect_until: u32,
    /// The first tick at which this entity may act again.
    pub(crate) ready_at: u32,
    /// Whose side it is on; 0 is nobody's.
    pub(crate) team: u8,
    /// Only itself and its team see it.
    pub(crate) is_stealthy: bool,
    /// Only itself and its team know its health.
    pub(crate) has_private_health: bool,
}

impl Traits {
    /// Whether it is left out of what all are told.
    pub(crate) const fn is_hidden(&self) -> bool {
        self.is_stealthy
    }

    /// Whether some are told more of it than others.
    pub(crate) const fn has_rule(&self) -> bool {
        self.is_stealthy || self.has_private_health
    }
}

/// All entities, one array per group of fields that are used together; a slot's index is the same
/// in each. All room is taken at the start.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// Who lives in each slot; its length is one past the highest slot ever used.
    pub(crate) ids: Vec<Option<EntityId>>,
    pub(crate) bodies: Vec<Body>,
    pub(crate) traits: Vec<Traits>,
    /// The generation that each slot was last given.
    generations: Vec<u16>,
    free: VecDeque<u32>,
    len: usize,
    limit: usize,
}

impl Store {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            ids: Vec::with_capacity(limit),
            bodies: Vec::with_capacity(limit),
            traits: Vec::with_capacity(limit),
            generations: Vec::with_capacity(limit),
            free: VecDeque::with_capacity(limit),
            len: 0,
            limit,
        }
    }

    /// Copies who lives where and what is seen of them, without allocating: not which slots are free.
    pub(crate) fn copy_seen(&mut self, from: &Self) {
        self.ids.clone_from(&from.ids);
        self.bodies.clone_from(&from.bodies);
        self.traits.clone_from(&from.traits);
        self.len = from.len;
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Gives a slot to a new entity; `None` when all are taken.
    pub(crate) fn insert(&mut self, kind: Kind, body: Body) -> Option<EntityId> {
        let unused = self.ids.len() < self.limit;
        let slot = if self.free.len() > FREE_SLOTS_RESTING || !unused {
            self.free.pop_front()? as usize
        } else {
            self.ids.push(None);
            self.bodies.push(Body::default());
            self.traits.push(Traits::default());
            self.generations.push(0);
            self.ids.len() - 1
        };
        let generation = self.generations.get_mut(slot)?;
        *generation = EntityId::generation_after(*generation);
        let id = EntityId::new(slot, *generation)?;
        *self.ids.get_mut(slot)? = Some(id);
        *self.bodies.get_mut(slot)? = body;
        let traits = Traits { kind, health: HEALTH_FULL, ..Traits::default() };
        *self.traits.get_mut(slot)? = traits;
        self.len += 1;
        Some(id)
    }

    /// Frees the entity's slot; false when the entity is gone.
    pub(crate) fn remove(&mut self, id: EntityId) -> bool {
        let Some(slot) = self.ids.get_mut(id.index()).filter(|slot| **slot == Some(id)) else {
            return false;
        };
        *slot = None;
        self.free.push_back(id.index() as u32);
        self.len -= 1;
        true
    }

    pub(crate) fn contains(&self, id: EntityId) -> bool {
        self.ids.get(id.index()) == Some(&Some(id))
    }

    pub(crate) fn body_mut(&mut self, id: EntityId) -> Option<&mut Body> {
        if !self.contains(id) {
            return None;
        }
        self.bodies.get_mut(id.index())
    }

    pub(crate) fn traits(&self, id: EntityId) -> Option<&Traits> {
        if !self.contains(id) {
            return None;
        }
        self.traits.get(id.index())
    }

    pub(crate) fn traits_mut(&mut self, id: EntityId) -> Option<&mut Traits> {
        if !self.contains(id) {
            return None;
        }
        self.traits.get_mut(id.index())
    }

    pub(crate) fn state(&self, id: EntityId) -> Option<EntityState> {
        let traits = self.traits(id)?;
        let body = self.bodies.get(id.index())?;
        Some(state_of(id, body, traits))
    }

    /// Every entity with its body and traits, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (EntityId, &Body, &Traits)> {
        self.ids
            .iter()
            .zip(&self.bodies)
            .zip(&self.traits)
            .filter_map(|((id, body), traits)| id.map(|id| (id, body, traits)))
    }

    /// Whether lengths, free list and count agree: each slot is either lived in or free once.
    pub(crate) fn is_consistent(&self) -> bool {
        let slots = self.ids.len();
        let same_length = self.bodies.len() == slots
            && self.traits.len() == slots
            && self.generations.len() == slots;
        let lived_in = self.ids.iter().flatten().count();
        let own_slots = self.ids.iter().enumerate().all(|(slot, id)| {
            id.is_none_or(|id| {
                id.index() == slot && self.generations.get(slot) == Some(&id.generation())
            })
        });
        let free_is_free = self.free.iter().all(|slot| self.ids.get(*slot as usize) == Some(&None));
        same_length
            && own_slots
            && free_is_free
            && lived_in == self.len
            && lived_in + self.free.len() == slots
            && slots <= self.limit
    }
}

impl Store {
    /// Spoils the count of the living, for tests of who notices.
    pub(crate) const fn spoil(&mut self) {
        self.len += 1;
    }
}

pub(crate) fn state_of(id: EntityId, body: &Body, traits: &Traits) -> EntityState {
    let moving = body.velocity != crate::entity::Velocity::ZERO;
    EntityState {
        id,
        kind: traits.kind,
        position: body.position,
        velocity: body.velocity,
        yaw: body.yaw,
        pitch: body.pitch,
        flags: traits.flags.with(Flags::MOVING, moving),
        health: traits.health,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_of_the_gone_finds_nothing_when_its_slot_is_used_again() {
        let mut store = Store::new(1);
        let mut gone = Vec::new();
        for _ in 0..5_000 {
            let id = store.insert(Kind::Npc, Body::default()).unwrap();
            assert!(store.insert(Kind::Npc, Body::default()).is_none(), "one slot only");
            let recent = gone.len().saturating_sub(4_000);
            assert!(gone[recent..].iter().all(|old| !store.contains(*old)));
            assert!(store.remove(id) && !store.remove(id));
            gone.push(id);
        }
        assert!(store.is_consistent());
    }

    #[test]
    fn a_freed_slot_rests_while_unused_ones_are_left() {
        let mut store = Store::new(1_000);
        let first = store.insert(Kind::Npc, Body::default()).unwrap();
        store.remove(first);
        for _ in 0..FREE_SLOTS_RESTING {
            let id = store.insert(Kind::Npc, Body::default()).unwrap();
            assert_ne!(id.index(), first.index());
            store.remove(id);
        }
        let again = store.insert(Kind::Npc, Body::default()).unwrap();
        assert_eq!((again.index(), again.generation()), (first.index(), 2));
    }

    proptest! {
        #[test]
        fn a_store_does_what_a_map_does(
            steps in proptest::collection::vec((any::<bool>(), any::<u16>()), 1..400),
        ) {
            let mut store = Store::new(100);
            let mut model = BTreeMap::new();
            for (insert, number) in steps {
                let pick = usize::from(number) % model.len().max(1);
                if insert {
                    let health = number as u8;
                    match store.insert(Kind::Npc, Body::default()) {
                        Some(id) => {
                            store.traits_mut(id).unwrap().health = health;
                            prop_assert_eq!(model.insert(id, health), None);
                        }
                        None => prop_assert_eq!(model.len(), 100),
                    }
                } else if let Some(id) = model.keys().nth(pick).copied() {
                    model.remove(&id);
                    prop_assert!(store.remove(id));
                    prop_assert!(store.traits(id).is_none());
                }
                prop_assert!(store.is_consistent());
                prop_assert_eq!(store.len(), model.len());
                let listed: BTreeMap<_, _> =
                    store.iter().map(|(id, _, traits)| (id, traits.health)).collect();
                prop_assert_eq!(&listed, &model);
            }
        }
    }
}
