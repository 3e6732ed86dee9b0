//! After its first turns a world, and each end of its states, runs without allocating.

use twinspan_core::bytes::Writer;
use twinspan_core::random::Stream;
use twinspan_world::{
    CellEncodings, INPUT_BUNDLE_BYTES_MAX, Input, InputBundle, InterestConfig, Kind, Position,
    Prediction, Replica, STATE_ROOM_MIN, World, WorldConfig,
};

use crate::counting;
use crate::feed::Feed;

struct Player {
    feed: Feed,
    prediction: Prediction,
    replica: Replica,
}

struct Scene {
    world: World,
    encodings: CellEncodings,
    players: Vec<Player>,
    random: Stream,
}

impl Scene {
    fn new() -> Self {
        let config = WorldConfig { side: 320.0, entities_max: 1_200, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(4, "world", 0)).unwrap();
        let players = (0..100)
            .map(|_| Player {
                feed: Feed::new(
                    world.spawn_anywhere(Kind::Player).unwrap(),
                    InterestConfig::default(),
                ),
                prediction: Prediction::new(),
                replica: Replica::new(),
            })
            .collect();
        for kind in [Kind::Npc, Kind::Projectile].repeat(400) {
            world.spawn_anywhere(kind).unwrap();
        }
        Self {
            encodings: CellEncodings::new(&world),
            world,
            players,
            random: Stream::new(4, "scene", 0),
        }
    }

    fn turn(&mut self) {
        let Self { world, encodings, players, random } = self;
        for player in &mut *players {
            let yaw = random.between(0.0, 360.0) as f32;
            player.prediction.predict(Input::toward(1.0, 0.0, yaw, 0.0));
            let bundle = InputBundle::of(&player.prediction, 0, 0).unwrap();
            let mut bytes = [0; INPUT_BUNDLE_BYTES_MAX];
            let mut out = Writer::new(&mut bytes);
            bundle.encode(&mut out).unwrap();
            for input in InputBundle::decode(out.written()).unwrap().inputs() {
                let _ = world.submit(player.feed.player, *input);
            }
        }
        // Comings and goings, and effects where they reach.
        let (actor, target) = (players[0].feed.player, players[1].feed.player);
        let _ = world.apply_effect(actor, target);
        let gone = world.spawn(Kind::Npc, Position::ground(10.0, 10.0)).unwrap();
        world.step();
        world.despawn(gone);
        encodings.update(world);
        for player in &mut *players {
            player.feed.plan(world, encodings);
            for part in 0..player.feed.plan.parts() {
                let mut packet = [0; STATE_ROOM_MIN];
                let mut out = Writer::new(&mut packet);
                player.feed.plan.write_part(part, &mut out).unwrap();
                // Every fifth message is lost.
                if random.chance(0.8) {
                    let applied = player.replica.apply(out.written()).unwrap();
                    let header = applied.header();
                    player.prediction.reconcile(header.last_input, header.own);
                    player.feed.baselines.on_acked(player.feed.plan.tag(part));
                }
            }
        }
    }
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = counting::calls();
    work();
    counting::calls() - before
}

#[test]
fn the_server_never_allocates_after_its_first_turn() {
    let mut scene = Scene::new();
    scene.turn();
    for player in &mut scene.players {
        // Replicas grow with what they have seen; here only the server's side counts.
        player.replica = Replica::new();
    }
    let server_turn = |scene: &mut Scene| {
        let Scene { world, encodings, players, .. } = scene;
        for player in &*players {
            let input = Input { sequence: world.tick() + 1, ..Input::toward(1.0, 0.0, 45.0, 0.0) };
            let _ = world.submit(player.feed.player, input);
        }
        let gone = world.spawn(Kind::Npc, Position::ground(10.0, 10.0)).unwrap();
        world.step();
        world.despawn(gone);
        world.check_invariants().unwrap();
        encodings.update(world);
        for player in players {
            player.feed.plan(world, encodings);
            for part in 0..player.feed.plan.parts() {
                let mut packet = [0; STATE_ROOM_MIN];
                player.feed.plan.write_part(part, &mut Writer::new(&mut packet)).unwrap();
                player.feed.baselines.on_acked(player.feed.plan.tag(part));
            }
        }
    };
    assert_eq!(allocations(|| (0..300).for_each(|_| server_turn(&mut scene))), 0);
}

#[test]
fn a_replica_stops_allocating_when_it_has_seen_its_fullest_view() {
    let mut scene = Scene::new();
    let warm_up = allocations(|| (0..600).for_each(|_| scene.turn()));
    assert!(warm_up > 0, "allocations are counted");
    let later = allocations(|| (0..600).for_each(|_| scene.turn()));
    // 60,000 states on; a cell fuller than any before may still grow one of its lists.
    assert!(later <= 400, "{later} allocations");
}
