use twinspan_core::random::Stream;

use super::*;
use crate::config::WorldConfig;
use crate::entity::Position;
use crate::grid::CellId;
use crate::input::{ClaimedPosition, Input};
use crate::world::{HealthPrivacy, Stealth};

const CELL: CellId = CellId { x: 1, z: 0 };

fn world(entities_max: usize) -> World {
    let config = WorldConfig { side: 64.0, entities_max, ..WorldConfig::default() };
    World::new(config, Stream::new(1, "world", 0)).unwrap()
}

/// A world of a few ticks, followed.
struct Scene {
    world: World,
    encodings: CellEncodings,
}

impl Scene {
    fn new(entities_max: usize) -> Self {
        let world = world(entities_max);
        let encodings = CellEncodings::new(&world);
        Self { world, encodings }
    }

    fn tick(&mut self) {
        self.world.step();
        self.encodings.update(&self.world);
    }

    fn state(&mut self) -> CellState {
        let grid = self.world.grid();
        self.encodings.cell_state(grid.number(CELL).unwrap(), grid)
    }

    fn record(&mut self, variant: Variant) -> Vec<u8> {
        let grid = self.world.grid();
        let number = grid.number(CELL).unwrap();
        let span = self.encodings.record(number, variant, grid).unwrap();
        self.encodings.bytes(span).to_vec()
    }
}

#[test]
fn records_have_these_bytes() {
    let mut scene = Scene::new(10);
    let id = scene.world.spawn(Kind::Player, Position::ground(48.0, 16.0)).unwrap();
    scene.tick();
    assert_eq!(scene.state(), CellState::Keyed { changed: 1, newer: 1, older: 0 });
    // Length 9 and form 2, age 0; one member, here, slot 0 of 4 bits, generation 1; kind, flags,
    // health; still, x and z in the middle, level, yaw 0; no slip, nobody else.
    let full = [0x26, 0, 0x41, 0x10, 0x00, 0x00, 0x20, 0x00, 0x10, 0x00, 0x00];
    assert_eq!(scene.record(Variant::Full), full);
    // One bit for the member, one for the end.
    assert_eq!(scene.record(Variant::Delta), [0x04, 0, 0x00]);
    scene.tick();
    assert!(scene.world.despawn(id));
    let other = scene.world.spawn(Kind::Player, Position::ground(48.0, 16.0)).unwrap();
    scene.tick();
    assert!(other != id);
    assert_eq!(scene.state(), CellState::Keyed { changed: 3, newer: 1, older: 0 });
    // Gone; one more, in slot 1.
    let delta = scene.record(Variant::Delta);
    assert_eq!(delta[..3], [8 << 2, 2, 0b1_1111 | 0b001 << 5], "{delta:02x?}");
}

#[test]
fn who_goes_straight_takes_one_bit_and_who_rests_none() {
    let mut scene = Scene::new(100);
    let walkers: Vec<_> = (0..20)
        .map(|index| {
            let at = Position::ground(34.0 + f64::from(index) * 0.1, 2.0);
            scene.world.spawn(Kind::Player, at).unwrap()
        })
        .collect();
    let walk = |scene: &mut Scene, sequence| {
        for walker in &walkers {
            let claimed = ClaimedPosition::NONE;
            let wish = Input::toward(1.0, 0.0, 45.0, 0.0);
            scene.world.submit(*walker, Input { sequence, claimed, ..wish }).unwrap();
        }
        scene.tick();
    };
    walk(&mut scene, 1);
    scene.state();
    for sequence in 2..100 {
        walk(&mut scene, sequence);
        assert_eq!(scene.state(), CellState::Keyed { changed: 1, newer: 1, older: 0 });
    }
    assert_eq!(scene.record(Variant::Delta).len(), 2 + 21_usize.div_ceil(8));
    // All stop: each is told once more, and from then on the cell rests.
    for _ in 0..200 {
        scene.tick();
        scene.state();
    }
    let CellState::Keyed { changed, newer, .. } = scene.state() else { panic!("not keyed") };
    assert!(changed <= newer, "nothing is left to be told");
}

#[test]
fn uneven_inputs_cost_half_a_byte() {
    let mut scene = Scene::new(10);
    let walker = scene.world.spawn(Kind::Player, Position::ground(34.0, 2.0)).unwrap();
    let mut sequence = 0;
    let mut walk = |scene: &mut Scene, inputs| {
        for _ in 0..inputs {
            sequence += 1;
            let claimed = ClaimedPosition::NONE;
            let wish = Input::toward(1.0, 0.0, 45.0, 0.0);
            scene.world.submit(walker, Input { sequence, claimed, ..wish }).unwrap();
        }
        scene.tick();
    };
    (0..10).for_each(|_| walk(&mut scene, 1));
    scene.state();
    walk(&mut scene, 0);
    // Mark, slip, end: one byte.
    assert_eq!(scene.record(Variant::Delta).len(), 3);
    walk(&mut scene, 2);
    assert_eq!(scene.record(Variant::Delta).len(), 3);
}

#[test]
fn a_crowd_is_no_matter_for_records() {
    let mut scene = Scene::new(100);
    let spawn = |scene: &mut Scene, count| {
        let at = Position::ground(40.0, 10.0);
        for _ in 0..count {
            scene.world.spawn(Kind::Player, at).unwrap();
        }
        scene.tick();
        scene.state()
    };
    assert_eq!(spawn(&mut scene, MEMBERS_MAX), CellState::Keyed { changed: 1, newer: 1, older: 0 });
    assert_eq!(spawn(&mut scene, 1), CellState::Crowd);
    let first = scene.world.entities().next().unwrap().id;
    scene.world.despawn(first);
    scene.tick();
    assert_eq!(scene.state(), CellState::Keyed { changed: 3, newer: 1, older: 0 });
}

#[test]
fn no_shared_byte_depends_on_who_is_hidden() {
    // Two worlds, alike but for what only some may know.
    let run = |hidden_walks: bool, health: u8| {
        let mut scene = Scene::new(100);
        let at = |x: f64| Position::ground(x, 10.0);
        let open: Vec<_> = (0..5)
            .map(|x| scene.world.spawn(Kind::Player, at(40.0 + f64::from(x))).unwrap())
            .collect();
        let hidden = scene.world.spawn(Kind::Player, at(50.0)).unwrap();
        assert!(scene.world.set_stealth(hidden, Stealth::Hidden));
        assert!(scene.world.set_health_privacy(open[0], HealthPrivacy::Private));
        let mut seen = Vec::new();
        for sequence in 1..120 {
            let claimed = ClaimedPosition::NONE;
            let wish = Input::toward(1.0, 0.0, f32::from(sequence as u8), 0.0);
            let input = Input { sequence, claimed, ..wish };
            scene.world.submit(open[1], input).unwrap();
            if hidden_walks {
                scene.world.submit(hidden, input).unwrap();
                scene.world.set_health(hidden, health);
            }
            scene.world.set_health(open[0], health);
            scene.tick();
            let Scene { world, encodings } = &mut scene;
            seen.push((encodings.shared_bytes(CELL, world.grid()), encodings.shared(0)));
        }
        seen
    };
    let quiet = run(false, 7);
    assert!(quiet.iter().all(|(records, _)| records.len() == 4));
    assert_eq!(quiet, run(true, 99));
}

#[test]
fn the_room_taken_at_first_is_enough_for_every_variant_of_a_full_world() {
    let mut scene = Scene::new(150);
    (0..150).for_each(|_| assert!(scene.world.spawn_anywhere(Kind::Projectile).is_ok()));
    let room = scene.encodings.arena.capacity();
    for _ in 0..100 {
        scene.tick();
        for cell in scene.world.grid().cells().collect::<Vec<_>>() {
            scene.encodings.shared_bytes(cell, scene.world.grid());
        }
        assert_eq!((scene.encodings.arena.capacity(), scene.encodings.refused()), (room, 0));
    }
}
