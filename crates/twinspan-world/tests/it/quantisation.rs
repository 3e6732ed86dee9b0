//! What a replica shows is within a centimetre and a degree of the truth, by the whole path.

use proptest::prelude::*;
use twinspan_core::bytes::Writer;
use twinspan_core::random::Stream;
use twinspan_world::{
    CellEncodings, Flags, Input, InterestConfig, Kind, Position, Replica, STATE_ROOM_MIN,
    StateHeader, StatePlan, Subscriptions, World, WorldConfig,
};

/// How far apart two headings are, in degrees.
fn turn(a: f32, b: f32) -> f32 {
    let apart = (a - b).abs();
    apart.min(360.0 - apart)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_replica_is_within_a_centimetre_and_a_degree(
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
        for sequence in 1..=ticks {
            for (walker, (forward, strafe, yaw, pitch)) in walkers.iter().zip(&walks) {
                let input = Input { sequence, ..Input::toward(*forward, *strafe, *yaw, *pitch) };
                prop_assert!(world.submit(*walker, input).is_ok());
            }
            // Some are in range and some are not.
            let _ = world.apply_effect(own, walkers[0]);
            world.step();
        }
        prop_assert_eq!(world.check_invariants(), Ok(()));

        let interest = InterestConfig { enter: 2.9 * cell, leave: 3.0 * cell, dwell_ticks: 0 };
        prop_assert_eq!(interest.check(cell), Ok(()));
        let mut subscriptions = Subscriptions::new(interest);
        subscriptions.update(world.tick(), middle, world.grid());
        let mut encodings = CellEncodings::new();
        encodings.encode_all(&world);
        let mut plan = StatePlan::new(STATE_ROOM_MIN);
        let header = StateHeader::of(&world, own, &subscriptions).unwrap();
        plan.plan(header, &subscriptions, &encodings);
        let mut replica = Replica::new();
        for part in 0..plan.parts() {
            let mut packet = [0; STATE_ROOM_MIN];
            let mut out = Writer::new(&mut packet);
            prop_assert!(plan.write_part(part, &encodings, &mut out).is_ok());
            prop_assert!(replica.apply(out.written()).is_ok());
        }

        prop_assert!(replica.is_complete());
        let seen = |at| subscriptions.contains(world.grid().cell_of(at));
        prop_assert_eq!(replica.len(), world.entities().filter(|e| seen(e.position)).count());
        for shown in replica.entities() {
            let truth = world.entity(shown.id).unwrap();
            prop_assert!(shown.position.distance(truth.position) <= 0.01);
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
