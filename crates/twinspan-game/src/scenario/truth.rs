//! What the server's world was, tick by tick, and what replicas make of it.

use std::collections::{BTreeMap, VecDeque};

use twinspan_world::{
    CellId, EntityId, EntityState, InterestConfig, POSITION_ERROR, Replica, World,
};

/// Ticks that are remembered; replicas under faults lag by less.
const TICKS_MAX: usize = 600;
/// How many ticks a replica may lag that is to be complete: ten states.
const LAG_TICKS_MAX: u32 = 30;
/// The promised error of angles, in degrees.
const ANGLE_ERROR_MAX: f32 = 1.0;

/// The promised error of velocities, in metres per second for each axis.
const VELOCITY_ERROR_MAX: f32 = 0.125_1;

/// One tick of the world.
#[derive(Default)]
struct Moment {
    tick: u32,
    /// Each entity and the cell that it was in, by ascending id.
    entities: Vec<(EntityState, CellId)>,
}

impl Moment {
    fn get(&self, id: EntityId) -> Option<&(EntityState, CellId)> {
        let place = self.entities.binary_search_by_key(&id, |(real, _)| real.id).ok()?;
        self.entities.get(place)
    }
}

/// The last ticks of the world, to compare replicas with.
#[derive(Default)]
pub struct Truth {
    moments: VecDeque<Moment>,
    checked: u64,
}

impl Truth {
    /// Remembers the world as it is now.
    pub fn record(&mut self, world: &World) {
        if self.moments.back().is_some_and(|moment| moment.tick == world.tick()) {
            return;
        }
        let is_full = self.moments.len() == TICKS_MAX;
        // The room of what is remembered no longer is used again.
        let oldest = if is_full { self.moments.pop_front() } else { None };
        let Moment { mut entities, .. } = oldest.unwrap_or_default();
        let grid = world.grid();
        entities.clear();
        entities.extend(world.entities().map(|entity| (entity, grid.cell_of(entity.position))));
        entities.sort_unstable_by_key(|(entity, _)| entity.id);
        self.moments.push_back(Moment { tick: world.tick(), entities });
    }

    /// Entities that were compared.
    pub const fn checked(&self) -> u64 {
        self.checked
    }

    fn at(&self, tick: u32) -> Option<&Moment> {
        let place = self.moments.binary_search_by_key(&tick, |moment| moment.tick).ok()?;
        self.moments.get(place)
    }

    /// Whether the world was not looked at between this tick and the next: a server that was held up
    /// makes up for it with several at once.
    fn was_passed_over(&self, tick: u32) -> bool {
        let (first, last) = (self.moments.front(), self.moments.back());
        first.is_some_and(|first| first.tick < tick) && last.is_some_and(|last| tick < last.tick)
    }

    /// Checks of a replica that [`check`](Self::check) found true, and that was told nothing since,
    /// that nobody in it has become too old; it counts as compared, for the outcome is the same.
    ///
    /// # Errors
    /// A line that says who is.
    pub fn check_ages(&mut self, replica: &Replica) -> Result<(), String> {
        let mut checked = 0;
        for (id, _, tick) in replica.ids() {
            match (self.at(tick).is_some(), self.was_passed_over(tick)) {
                (true, _) => checked += 1,
                (false, true) => {}
                (false, false) => return Err(too_old(id, tick)),
            }
        }
        self.checked += checked;
        Ok(())
    }

    /// Compares every entity of the replica with what it was at the tick of its state.
    ///
    /// # Errors
    /// A line that says what is not as it was.
    pub fn check(&mut self, replica: &Replica) -> Result<(), String> {
        let mut checked = 0;
        for (seen, tick) in replica.entities_with_ticks() {
            let Some(moment) = self.at(tick) else {
                if self.was_passed_over(tick) {
                    continue;
                }
                return Err(too_old(seen.id, tick));
            };
            let Some((real, _)) = moment.get(seen.id) else {
                // Whoever leaves in the very moment of a tick is in that tick's states all the same.
                let before = tick.checked_sub(1).and_then(|before| self.at(before));
                if before.is_some_and(|before| before.get(seen.id).is_some()) {
                    continue;
                }
                return Err(format!(
                    "{:?} is in a replica at tick {tick} but was not there",
                    seen.id
                ));
            };
            compare(&seen, real).map_err(|what| format!("{:?} at tick {tick}: {what}", seen.id))?;
            checked += 1;
        }
        self.checked += checked;
        Ok(())
    }

    /// Checks that the replica is up to date and that it holds exactly what the server had in its
    /// cells, each at the tick of the newest word about it, everybody as near as the default
    /// interest promises, and its own player to the bit.
    ///
    /// # Errors
    /// A line that says what is old, or who is missing or too many.
    pub fn check_complete(&self, replica: &Replica) -> Result<(), String> {
        let tick = replica.tick();
        let newest = self.moments.back().map_or(0, |moment| moment.tick);
        let Some(moment) = self.at(tick).filter(|_| newest - tick <= LAG_TICKS_MAX) else {
            return Err(format!("its newest state is of tick {tick}, the world's of {newest}"));
        };
        if !replica.is_complete() {
            return Err(format!("cells of its newest state, of tick {tick}, were not told"));
        }
        let seen: BTreeMap<_, _> =
            replica.entities_with_ticks().map(|(seen, at)| (seen.id, at)).collect();
        let Some(own) = replica.own().filter(|own| seen.contains_key(&own.id)) else {
            return Err("it does not see its own player".into());
        };
        if moment.get(own.id).is_none_or(|(real, _)| real.position != own.position) {
            return Err(format!("its own player is not where the world had it at tick {tick}"));
        }
        let cells: BTreeMap<_, _> = replica.cells_with_ticks().collect();
        for (cell, told) in &cells {
            let Some(moment) = told.and_then(|told| self.at(told)) else {
                return Err(format!("{cell:?} was told at {told:?}"));
            };
            let here = moment.entities.iter().filter(|(_, at)| at == cell);
            // A newer word may have put somebody elsewhere since, or told of his end.
            let missing = here.map(|(real, _)| real.id).find(|id| {
                let now = self.at(tick).and_then(|moment| moment.get(*id));
                !seen.contains_key(id) && now.is_some_and(|(_, now)| now == cell)
            });
            if let Some(id) = missing {
                return Err(format!("{id:?} is in the world alone at {told:?}"));
            }
        }
        for (id, at) in &seen {
            let real = self.at(*at).and_then(|moment| moment.get(*id));
            if real.is_none_or(|(_, cell)| !cells.contains_key(cell)) {
                return Err(format!("{id:?} is in its replica alone at tick {at}"));
            }
        }
        let InterestConfig { enter, .. } = InterestConfig::default();
        for (real, cell) in &moment.entities {
            let is_near = real.position.ground_distance_squared(own.position) <= enter * enter;
            if is_near && !cells.contains_key(cell) {
                return Err(format!("{:?} is in the world alone at tick {tick}", real.id));
            }
        }
        Ok(())
    }
}

fn too_old(id: EntityId, tick: u32) -> String {
    format!("{id:?} is as of tick {tick}: ten seconds old or never")
}

fn compare(seen: &EntityState, real: &EntityState) -> Result<(), String> {
    let position = [
        ("x", seen.position.x - real.position.x),
        ("y", seen.position.y - real.position.y),
        ("z", seen.position.z - real.position.z),
    ];
    for (axis, error) in position {
        if error.abs() > POSITION_ERROR {
            return Err(format!("{axis} is off by {error} m"));
        }
    }
    let velocity = [
        ("x", seen.velocity.x - real.velocity.x),
        ("y", seen.velocity.y - real.velocity.y),
        ("z", seen.velocity.z - real.velocity.z),
    ];
    for (axis, error) in velocity {
        if error.abs() > VELOCITY_ERROR_MAX {
            return Err(format!("its velocity along {axis} is off by {error} m/s"));
        }
    }
    let yaw = (seen.yaw - real.yaw + 540.0).rem_euclid(360.0) - 180.0;
    for (angle, error) in [("yaw", yaw), ("pitch", seen.pitch - real.pitch)] {
        if error.abs() > ANGLE_ERROR_MAX {
            return Err(format!("{angle} is off by {error} degrees"));
        }
    }
    let same = (seen.kind, seen.flags, seen.health) == (real.kind, real.flags, real.health);
    if same { Ok(()) } else { Err(format!("{seen:?} was {real:?}")) }
}

#[cfg(test)]
mod tests {
    use twinspan_core::random::Stream;
    use twinspan_world::{
        Baselines, CellEncodings, Kind, PlanInput, STATE_ROOM_MIN, StateHeader, StatePlan,
        Subscriptions, WorldConfig,
    };

    use super::*;

    /// A world with one player and some NPCs after `ticks` ticks.
    fn world(seed: u64, ticks: u32) -> (World, EntityId) {
        let config = WorldConfig { side: 256.0, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(seed, "world", 0)).unwrap();
        let own = world.spawn_anywhere(Kind::Player).unwrap();
        (0..300).for_each(|_| assert!(world.spawn_anywhere(Kind::Npc).is_ok()));
        (0..ticks).for_each(|_| world.step());
        (world, own)
    }

    /// What a client of `own` makes of the world, seeing as far as `interest` says.
    fn replica((world, own): &(World, EntityId), interest: InterestConfig) -> Replica {
        let mut encodings = CellEncodings::new(world);
        encodings.update(world);
        let mut subscriptions = Subscriptions::new(interest);
        let at = world.entity(*own).unwrap().position;
        subscriptions.update(world.tick(), at, world.grid());
        let mut plan = StatePlan::new(STATE_ROOM_MIN);
        plan.plan(PlanInput {
            header: StateHeader::of(world, *own, &subscriptions).unwrap(),
            subscriptions: &subscriptions,
            baselines: &mut Baselines::new(),
            encodings: &mut encodings,
            world,
            budget: usize::MAX,
        });
        let mut replica = Replica::new();
        for part in 0..plan.parts() {
            replica.apply(plan.part(part).unwrap()).unwrap();
        }
        replica
    }

    fn truth_of(world: &World) -> Truth {
        let mut truth = Truth::default();
        truth.record(world);
        truth
    }

    #[test]
    fn a_replica_of_the_world_is_true_and_complete() {
        let world = world(1, 40);
        let mut truth = truth_of(&world.0);
        let replica = replica(&world, InterestConfig::default());
        assert_eq!(truth.check(&replica), Ok(()));
        assert_eq!(truth.check_complete(&replica), Ok(()));
        assert_eq!(truth.checked(), replica.len() as u64);
    }

    #[test]
    fn a_replica_that_stands_still_is_not_complete() {
        let mut world = world(1, 40);
        let replica = replica(&world, InterestConfig::default());
        let mut truth = truth_of(&world.0);
        for _ in 0..=LAG_TICKS_MAX {
            world.0.step();
            truth.record(&world.0);
        }
        let line = truth.check_complete(&replica).unwrap_err();
        assert_eq!(line, "its newest state is of tick 40, the world's of 71");
    }

    #[test]
    fn a_tick_that_is_not_known_is_no_excuse() {
        let (before, after) = (world(1, 40), world(1, 41));
        let replica = replica(&before, InterestConfig::default());
        assert!(truth_of(&after.0).check(&replica).unwrap_err().contains("as of tick 40"));
    }

    #[test]
    fn a_replica_of_another_world_is_false() {
        let (here, elsewhere) = (world(1, 40), world(2, 40));
        let replica = replica(&elsewhere, InterestConfig::default());
        assert!(truth_of(&here.0).check(&replica).is_err());
        assert!(truth_of(&here.0).check_complete(&replica).is_err());
    }

    #[test]
    fn a_replica_that_sees_less_than_promised_is_not_complete() {
        let world = world(1, 40);
        let blinkered = InterestConfig { enter: 0.5, ..InterestConfig::default() };
        let mut truth = truth_of(&world.0);
        let replica = replica(&world, blinkered);
        assert_eq!(truth.check(&replica), Ok(()));
        assert!(truth.check_complete(&replica).unwrap_err().contains("the world alone"));
    }
}
