//! What the server's world was, tick by tick, and what replicas make of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use twinspan_world::{CellId, EntityId, EntityState, Replica, World};

/// Ticks that are remembered; replicas under faults lag by less.
const TICKS_MAX: usize = 600;
/// The promised error of positions, in metres.
const POSITION_ERROR_MAX: f64 = 0.01;
/// The promised error of angles, in degrees.
const ANGLE_ERROR_MAX: f32 = 1.0;

/// One tick of the world.
struct Moment {
    tick: u32,
    /// Each entity and the cell that it was in.
    entities: BTreeMap<EntityId, (EntityState, CellId)>,
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
        if self.moments.len() == TICKS_MAX {
            self.moments.pop_front();
        }
        let grid = world.grid();
        let entities = world.entities();
        let entities =
            entities.map(|entity| (entity.id, (entity, grid.cell_of(entity.position)))).collect();
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

    /// Compares every entity of the replica with what it was at the tick of its state.
    ///
    /// # Errors
    /// A line that says what is not as it was.
    pub fn check(&mut self, replica: &Replica) -> Result<(), String> {
        let mut checked = 0;
        for (seen, tick) in replica.entities_with_ticks() {
            let Some(moment) = self.at(tick) else { continue };
            let Some((real, _)) = moment.entities.get(&seen.id) else {
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

    /// Compares the set of entities in the replica with all that the server had in its cells.
    ///
    /// # Errors
    /// A line that says who is missing or too many.
    pub fn check_complete(&self, replica: &Replica) -> Result<(), String> {
        let Some(moment) = self.at(replica.tick()) else {
            return Err(format!("its newest state, tick {}, is too old", replica.tick()));
        };
        let seen: BTreeSet<_> = replica.entities().map(|entity| entity.id).collect();
        let cells: BTreeSet<_> = replica.cells().collect();
        let real = moment.entities.values();
        let real: BTreeSet<_> =
            real.filter(|(_, cell)| cells.contains(cell)).map(|(entity, _)| entity.id).collect();
        let own = replica.own().map(|own| own.id);
        if own.is_none_or(|own| !seen.contains(&own)) {
            return Err("it does not see its own player".into());
        }
        match seen.symmetric_difference(&real).next() {
            None => Ok(()),
            Some(id) => {
                let whose = if seen.contains(id) { "its replica alone" } else { "the world alone" };
                Err(format!("{id:?} is in {whose} at tick {}", replica.tick()))
            }
        }
    }
}

fn compare(seen: &EntityState, real: &EntityState) -> Result<(), String> {
    let position = [
        ("x", seen.position.x - real.position.x),
        ("y", seen.position.y - real.position.y),
        ("z", seen.position.z - real.position.z),
    ];
    for (axis, error) in position {
        if error.abs() > POSITION_ERROR_MAX {
            return Err(format!("{axis} is off by {error} m"));
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
