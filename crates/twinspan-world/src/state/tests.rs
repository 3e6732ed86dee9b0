use twinspan_core::random::Stream;

use super::*;
use crate::config::WorldConfig;
use crate::entity::{Kind, Position};
use crate::id::EntityId;
use crate::interest::InterestConfig;
use crate::replica::Replica;
use crate::world::{HealthPrivacy, Stealth};

/// A crowd around one player, and what makes its states.
struct Scene {
    world: World,
    encodings: CellEncodings,
    subscriptions: Subscriptions,
    baselines: Baselines,
    player: EntityId,
}

impl Scene {
    fn new(entities: usize) -> Self {
        let config = WorldConfig { side: 256.0, entities_max: 40_000, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(5, "world", 0)).unwrap();
        let player = world.spawn(Kind::Player, Position::ground(128.0, 128.0)).unwrap();
        for index in 1..entities {
            let spread = index as f64 % 60.0;
            world.spawn(Kind::Npc, Position::ground(100.0 + spread, 150.0 - spread)).unwrap();
        }
        let encodings = CellEncodings::new(&world);
        let subscriptions = Subscriptions::new(InterestConfig::default());
        Self { world, encodings, subscriptions, baselines: Baselines::new(), player }
    }

    fn tick(&mut self) {
        self.world.step();
        self.encodings.update(&self.world);
    }

    fn plan(&mut self, plan: &mut StatePlan, budget: usize) {
        let Self { world, encodings, subscriptions, baselines, player } = self;
        let at = world.entity(*player).unwrap().position;
        subscriptions.update(world.tick(), at, world.grid());
        let header = StateHeader::of(world, *player, subscriptions).unwrap().with_times(8, 9);
        plan.plan(PlanInput { header, subscriptions, baselines, encodings, world, budget });
    }
}

fn apply(replica: &mut Replica, plan: &StatePlan) {
    for part in 0..plan.parts() {
        replica.apply(plan.part(part).unwrap()).unwrap();
    }
}

#[test]
fn parts_hold_everybody_and_fit_their_packets() {
    for (entities, room) in [(1, 0), (100, 1_150), (1_000, 789), (3_000, 1_400)] {
        let mut scene = Scene::new(entities);
        scene.tick();
        let mut plan = StatePlan::new(room);
        assert_eq!(plan.parts(), 0);
        scene.plan(&mut plan, usize::MAX);
        assert_eq!((plan.left_out(), plan.entities()), (0, entities));
        let room = room.max(STATE_ROOM_MIN);
        assert!((0..plan.parts()).all(|part| plan.part(part).unwrap().len() <= room));
        let mut replica = Replica::new();
        apply(&mut replica, &plan);
        assert!(replica.is_complete());
        assert_eq!(replica.len(), entities);
        let newest = replica.newest().unwrap();
        assert_eq!((newest.made_us, newest.slot_us), (8, 9));
        let mut out = [0; 2_000];
        assert_eq!(plan.write_part(plan.parts(), &mut Writer::new(&mut out)), Err(NoRoom));
        let mut short = [0; 10];
        assert_eq!(plan.write_part(0, &mut Writer::new(&mut short)), Err(NoRoom));
    }
}

#[test]
fn what_exceeds_the_parts_is_left_out_and_counted() {
    let mut scene = Scene::new(15_000);
    scene.tick();
    let mut plan = StatePlan::new(STATE_ROOM_MIN);
    scene.plan(&mut plan, usize::MAX);
    assert_eq!(plan.parts(), STATE_PARTS_MAX);
    assert!(plan.left_out() > 0);
    let mut replica = Replica::new();
    for _ in 0..40 {
        scene.tick();
        scene.plan(&mut plan, usize::MAX);
        apply(&mut replica, &plan);
    }
    // Rounds go on where they were broken off.
    assert!(replica.len() > 14_000, "{}", replica.len());
}

#[test]
fn the_context_travels_until_a_packet_with_it_is_acknowledged() {
    let mut scene = Scene::new(1);
    let mut plan = StatePlan::new(0);
    let mut lens = Vec::new();
    let mut tag = 0;
    for state in 0..4 {
        scene.tick();
        scene.plan(&mut plan, usize::MAX);
        lens.push(plan.shares().headers);
        if state == 1 {
            tag = plan.tag(0);
        }
        if state == 2 {
            scene.baselines.on_acked(tag);
        }
    }
    assert_eq!((lens[1], lens[2]), (lens[0], lens[0]));
    assert_eq!(lens[3] + 14, lens[0]);
    assert!(tag != 0);
}

#[test]
fn a_cell_that_rests_takes_two_bits() {
    let mut scene = Scene::new(1);
    for x in 0..30 {
        let at = Position::ground(110.0 + f64::from(x), 120.0);
        scene.world.spawn(Kind::Player, at).unwrap();
    }
    let mut plan = StatePlan::new(0);
    for _ in 0..10 {
        scene.tick();
        scene.plan(&mut plan, usize::MAX);
        scene.baselines.on_acked(plan.tag(0));
    }
    assert_eq!(plan.entities(), 31);
    let shares = plan.shares();
    assert_eq!((shares.deltas, shares.keyframes, shares.sections), (0, 0, 0));
    assert!(shares.headers <= 34, "{} bytes", shares.headers);
}

#[test]
fn a_budget_bounds_the_bytes_and_the_nearest_come_first() {
    // Two thousand in a block of three by three cells, and a client in its middle.
    let mut scene = Scene::new(1);
    let mut random = Stream::new(9, "crowd", 0);
    for _ in 0..2_000 {
        let at = Position::ground(random.between(80.0, 176.0), random.between(80.0, 176.0));
        scene.world.spawn(Kind::Npc, at).unwrap();
    }
    let mut plan = StatePlan::new(1_100);
    let mut replica = Replica::new();
    let budget = 64 * 1_024 / 20;
    let own = Position::ground(128.0, 128.0);
    let mut compared = 0;
    for state in 0..100 {
        (0..3).for_each(|_| scene.tick());
        scene.plan(&mut plan, budget);
        assert!(plan.len() <= budget, "{} bytes", plan.len());
        for part in 0..plan.parts() {
            replica.apply(plan.part(part).unwrap()).unwrap();
            scene.baselines.on_acked(plan.tag(part));
        }
        if state < 20 {
            continue;
        }
        let (now, world) = (scene.world.tick(), &scene.world);
        let near =
            |entity: &crate::EntityState| entity.position.ground_distance_squared(own) <= 64.0;
        for real in world.entities().filter(near) {
            let seen = replica.entities_with_ticks().find(|(seen, _)| seen.id == real.id);
            let age = seen.map(|(_, tick)| now - tick);
            assert!(age.is_some_and(|age| age <= 6), "{:?} is {age:?} ticks old", real.id);
            compared += 1;
        }
        // The rest comes round: nobody is older than two seconds.
        assert!(replica.entities_with_ticks().all(|(_, tick)| now - tick <= 120));
        // Who crosses to a cell whose turn was just over is missing until it comes again.
        assert!(replica.len() > 1_700, "{} in sight", replica.len());
    }
    assert!(compared > 1_000, "{compared}");
}

#[test]
fn who_is_hidden_is_told_to_its_team_alone() {
    let mut scene = Scene::new(1);
    let own = scene.player;
    let at = Position::ground(130.0, 130.0);
    let [friend, foe] = [0; 2].map(|_| scene.world.spawn(Kind::Player, at).unwrap());
    let wounded = scene.world.spawn(Kind::Player, at).unwrap();
    for id in [own, friend, wounded] {
        assert!(scene.world.set_team(id, 1));
    }
    assert!(scene.world.set_team(foe, 2));
    for id in [own, friend, foe] {
        assert!(scene.world.set_stealth(id, Stealth::Hidden));
    }
    assert!(scene.world.set_health(wounded, 5));
    assert!(scene.world.set_health_privacy(wounded, HealthPrivacy::Private));
    let mut plan = StatePlan::new(0);
    let mut replica = Replica::new();
    let mut look = |scene: &mut Scene| {
        scene.tick();
        scene.plan(&mut plan, usize::MAX);
        apply(&mut replica, &plan);
        replica.entities().map(|entity| (entity.id, entity.health)).collect::<Vec<_>>()
    };
    for _ in 0..5 {
        assert_eq!(look(&mut scene), [(own, 100), (friend, 100), (wounded, 5)]);
    }
    // Now it is the foe's client that looks.
    scene.player = foe;
    scene.baselines.forget();
    let mut replica = Replica::new();
    scene.tick();
    scene.plan(&mut plan, usize::MAX);
    apply(&mut replica, &plan);
    let seen: Vec<_> = replica.entities().map(|entity| (entity.id, entity.health)).collect();
    assert_eq!(seen, [(foe, 100), (wounded, 100)]);
}
