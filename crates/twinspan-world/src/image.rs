//! A world as it was after one tick, for threads that make states beside the one that runs it.

use crate::encode::CellEncodings;
use crate::world::World;

/// What states are made of, copied out after a tick: entities, grid, and the tables from which the
/// records of cells are written.
///
/// All memory is taken by [`WorldImage::new`]; [`WorldImage::take`] copies in straight runs. Who
/// reads one makes its records in encodings of its own, which [`CellEncodings::follow`] it.
///
/// The world in it is to be looked at: inputs, verdicts and standings of players are not copied.
#[derive(Clone, Debug)]
pub struct WorldImage {
    world: World,
    encodings: CellEncodings,
}

impl WorldImage {
    /// An image with room for any tick of `world`.
    pub fn new(world: &World) -> Self {
        Self { world: world.empty_alike(), encodings: CellEncodings::new(world) }
    }

    /// Becomes what `world` is now; `encodings` were updated at this tick. Keyframes that are due are
    /// made first, for all who read the image alike.
    pub fn take(&mut self, world: &World, encodings: &mut CellEncodings) {
        encodings.make_due_keyframes(world.grid());
        self.world.copy_seen(world);
        self.encodings.copy_tables(encodings, world.slots());
    }

    /// The world at that tick.
    pub const fn world(&self) -> &World {
        &self.world
    }

    pub(crate) const fn encodings(&self) -> &CellEncodings {
        &self.encodings
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::bytes::Writer;
    use twinspan_core::random::Stream;

    use super::*;
    use crate::{
        Baselines, EntityId, Input, InterestConfig, Kind, PlanInput, Position, Replica,
        STATE_ROOM_MIN, StateHeader, StatePlan, Subscriptions, WorldConfig,
    };

    /// Somebody who is told of the world by states made of images.
    struct Reader {
        own: EntityId,
        encodings: CellEncodings,
        plan: StatePlan,
        subscriptions: Subscriptions,
        baselines: Baselines,
        replica: Replica,
    }

    impl Reader {
        fn new(world: &World, own: EntityId) -> Self {
            Self {
                own,
                encodings: CellEncodings::new(world),
                plan: StatePlan::new(STATE_ROOM_MIN),
                subscriptions: Subscriptions::new(InterestConfig::default()),
                baselines: Baselines::new(),
                replica: Replica::new(),
            }
        }

        fn read(&mut self, image: &WorldImage) {
            let Self { own, encodings, plan, subscriptions, baselines, replica } = self;
            encodings.follow(image);
            let world = image.world();
            let at = world.entity(*own).unwrap().position;
            subscriptions.update(world.tick(), at, world.grid());
            let header = StateHeader::of(world, *own, subscriptions).unwrap();
            let budget = usize::MAX;
            plan.plan(PlanInput { header, subscriptions, baselines, encodings, world, budget });
            for part in 0..plan.parts() {
                let mut packet = [0; STATE_ROOM_MIN];
                let mut out = Writer::new(&mut packet);
                plan.write_part(part, &mut out).unwrap();
                replica.apply(out.written()).unwrap();
                baselines.on_acked(plan.tag(part));
            }
        }
    }

    /// Readers who miss images, each others, hold what the world has; also when the image that one
    /// reads was used before for an earlier tick.
    #[test]
    fn who_reads_some_images_alone_is_told_the_truth() {
        let config = WorldConfig { side: 128.0, entities_max: 200, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(4, "world", 0)).unwrap();
        let owns = [(); 3].map(|()| {
            let at = Position::ground(60.0, 60.0);
            world.spawn(Kind::Player, at).unwrap()
        });
        let mut others: Vec<_> =
            (0..60).map(|_| world.spawn_anywhere(Kind::Npc).unwrap()).collect();
        let mut encodings = CellEncodings::new(&world);
        let mut images = [WorldImage::new(&world), WorldImage::new(&world)];
        let mut readers = owns.map(|own| Reader::new(&world, own));
        for tick in 1..400_u32 {
            let wish = Input::toward(0.5, 0.0, tick as f32, 0.0);
            world.submit(owns[0], Input { sequence: tick, ..wish }).unwrap();
            if tick % 50 == 0 {
                // Slots are used again by others.
                world.despawn(others.remove(0));
                others.push(world.spawn_anywhere(Kind::Projectile).unwrap());
            }
            world.step();
            encodings.update(&world);
            let image = &mut images[tick as usize % 2];
            image.take(&world, &mut encodings);
            for (reader, every) in readers.iter_mut().zip([1, 3, 7]) {
                if tick % every == 0 {
                    reader.read(image);
                    let told = reader.replica.entities().count();
                    let (base, mask) = reader.subscriptions.base_and_mask();
                    let seen = world
                        .entities()
                        .filter(|entity| {
                            let cell = world.grid().cell_of(entity.position);
                            let bit = (cell.z - base.z) * 7 + (cell.x - base.x);
                            mask >> bit & 1 == 1 && entity.id != reader.own
                        })
                        .count();
                    assert!(told >= seen, "tick {tick}: {told} of {seen}");
                }
            }
        }
        for (reader, own) in readers.iter().zip(owns) {
            assert!(reader.replica.len() > 20, "{own}: {}", reader.replica.len());
        }
    }

    /// What a reader tells is what the thread of the world would have told itself.
    #[test]
    fn records_made_of_an_image_are_those_of_the_world() {
        let config = WorldConfig { side: 96.0, entities_max: 100, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(4, "world", 0)).unwrap();
        (0..40).for_each(|_| assert!(world.spawn_anywhere(Kind::Npc).is_ok()));
        let mut encodings = CellEncodings::new(&world);
        let mut image = WorldImage::new(&world);
        let mut reader = CellEncodings::new(&world);
        let mut compared = 0;
        for _ in 0..200 {
            world.step();
            encodings.update(&world);
            image.take(&world, &mut encodings);
            reader.follow(&image);
            for cell in world.grid().cells().collect::<Vec<_>>() {
                let theirs = reader.shared_bytes(cell, image.world().grid());
                assert_eq!(theirs, encodings.shared_bytes(cell, world.grid()));
                compared += theirs.len();
            }
        }
        assert!(compared > 2_000, "{compared} records");
    }
}
