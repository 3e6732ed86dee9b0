//! What a replica shows is within two millimetres and a degree of the truth, by the whole path.

use proptest::prelude::*;
use twinspan_core::random::Stream;
use twinspan_world::{
    CellEncodings, Flags, Input, InterestConfig, Kind, POSITION_ERROR, Position, Replica, World,
    WorldConfig,
};

use crate::feed::Feed;

/// How far apart two headings are, in degrees.
fn turn(a: f32, b: f32) -> f32 {
    let apart = (a - b).abs();
    apart.min(360.0 - apart)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_replica_is_within_two_millimetres_and_a_degree(
        cell in 8_u8..=64, seed: u64, ticks in 1_u32..200, health: u8,
        walks in proptest::collection::vec(
            (-1.0_f32..1.0, -1.0_f32..1.0, 0.0_f32..360.0, -90.0_f32..=90.0), 1..20),
    ) {
        let cell = f64::from(cell);
        let side = 6.0 * cell;
        let config = WorldConfig { side, cell, entities_max: 100, ..WorldConfig::default() };
        let mut world = World::new(config, Stream::new(seed, "world", 0)).unwrap();
        let middle = Position::ground(3.0 * cell, 3.0 * cell);
        let own = world.spawn(Kind::Player, middle).unwrap();
        prop_assert!(world.set_health(own, health));
        let mut places = Stream::new(seed, "places", 0);
        for kind in [Kind::Npc, Kind::Projectile].repeat(10) {
            let y = places.between(0.0, 300.0);
            let (x, z) = (places.unit() * 6.0 * cell, places.unit() * 6.0 * cell);
            world.spawn(kind, Position { x, y, z }).unwrap();
        }
        let walkers: Vec<_> =
            walks.iter().map(|_| world.spawn_anywhere(Kind::Player).unwrap()).collect();
        let mut encodings = CellEncodings::new(&world);
        for sequence in 1..=ticks {
            for (walker, (forward, strafe, yaw, pitch)) in walkers.iter().zip(&walks) {
                let input = Input { sequence, ..Input::toward(*forward, *strafe, *yaw, *pitch) };
                prop_assert!(world.submit(*walker, input).is_ok());
            }
            // Some are in range and some are not.
            let _ = world.apply_effect(own, walkers[0]);
            world.step();
            encodings.update(&world);
        }
        prop_assert_eq!(world.check_invariants(), Ok(()));

        let interest = InterestConfig {
            enter: 2.9 * cell, leave: 3.0 * cell, dwell_ticks: 0, ..InterestConfig::default()
        };
        prop_assert_eq!(interest.check(cell), Ok(()));
        let mut feed = Feed::new(own, interest);
        let mut replica = Replica::new();
        for (bytes, _) in feed.packets(&world, &mut encodings) {
            prop_assert!(replica.apply(&bytes).is_ok());
        }

        prop_assert!(replica.is_complete());
        let seen = |at| feed.subscriptions.contains(world.grid().cell_of(at));
        prop_assert_eq!(replica.len(), world.entities().filter(|e| seen(e.position)).count());
        for shown in replica.entities() {
            let truth = world.entity(shown.id).unwrap();
            for (shown, truth) in [
                (shown.position.x, truth.position.x),
                (shown.position.y, truth.position.y),
                (shown.position.z, truth.position.z),
            ] {
                prop_assert!((shown - truth).abs() <= POSITION_ERROR, "{shown} was {truth}");
            }
            prop_assert!(turn(shown.yaw, truth.yaw) <= 1.0);
            prop_assert!((shown.pitch - truth.pitch).abs() <= 1.0);
            prop_assert!((shown.velocity.x - truth.velocity.x).abs() <= 0.13);
            prop_assert!((shown.velocity.z - truth.velocity.z).abs() <= 0.13);
            prop_assert_eq!(
                (shown.kind, shown.flags, shown.health),
                (truth.kind, truth.flags, truth.health)
            );
            let cell_of = |at| world.grid().cell_of(at);
            prop_assert_eq!(cell_of(shown.position), cell_of(truth.position));
        }
        // The own player is told exactly.
        let exact = replica.own().unwrap();
        let truth = world.entity(own).unwrap();
        prop_assert_eq!((exact.id, exact.position, exact.health), (own, truth.position, health));
        prop_assert!(!exact.flags.contains(Flags::MOVING));
    }
}

/// Walks in a world ten thousand kilometres wide, five thousand from its origin.
#[test]
fn millimetres_are_kept_five_thousand_kilometres_from_the_origin() {
    let config = WorldConfig { side: 1e7, entities_max: 200, ..WorldConfig::default() };
    let mut world = World::new(config, Stream::new(1, "world", 0)).unwrap();
    let middle = 5e6;
    let own = world.spawn(Kind::Player, Position::ground(middle, middle)).unwrap();
    let walker = world.spawn(Kind::Player, Position::ground(middle + 7.0, middle - 9.0)).unwrap();
    for step in 0..50 {
        let around = Position::ground(middle + f64::from(step), middle - f64::from(step));
        world.spawn(Kind::Npc, around).unwrap();
    }
    let mut encodings = CellEncodings::new(&world);
    let mut feed = Feed::new(own, InterestConfig::default());
    let mut replica = Replica::new();
    let (mut worst, mut compared) = (0.0_f64, 0);
    for sequence in 1..=600 {
        let wish = Input::toward(1.0, 0.2, 33.0 + (sequence / 100) as f32, 0.0);
        let input = Input { sequence, claimed: twinspan_world::ClaimedPosition::NONE, ..wish };
        world.submit(walker, input).unwrap();
        world.step();
        encodings.update(&world);
        if sequence % 3 != 0 {
            continue;
        }
        for (bytes, tag) in feed.packets(&world, &mut encodings) {
            replica.apply(&bytes).unwrap();
            feed.baselines.on_acked(tag);
        }
        assert_eq!(replica.own().unwrap().position, world.entity(own).unwrap().position);
        let now = replica.entities_with_ticks().filter(|(_, tick)| *tick == world.tick());
        for (shown, _) in now {
            let real = world.entity(shown.id).unwrap().position;
            worst = worst.max((shown.position.x - real.x).abs());
            worst = worst.max((shown.position.z - real.z).abs());
            compared += 1;
        }
    }
    assert!(compared > 5_000, "{compared} places compared");
    assert!(worst <= 0.001, "off by {worst} m");
}
