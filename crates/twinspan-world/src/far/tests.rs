use proptest::prelude::*;
use twinspan_core::random::Stream;

use super::*;
use crate::config::WorldConfig;
use crate::entity::Kind;
use crate::world::Stealth;

/// The player's cell in these tests: in region 2, 2.
const OWN: CellId = CellId { x: 9, z: 10 };

/// A world of 16 by 16 cells of 32 m: 4 by 4 regions.
fn world(at: &[(f64, f64)]) -> World {
    let config = WorldConfig { side: 512.0, entities_max: 200, ..WorldConfig::default() };
    let mut world = World::new(config, Stream::new(1, "world", 0)).unwrap();
    for (x, z) in at {
        world.spawn(Kind::Player, Position::ground(*x, *z)).unwrap();
    }
    world.step();
    world
}

fn bytes(regions: &mut FarRegions, world: &World, reach: u8) -> Vec<u8> {
    let mut out = Vec::new();
    regions.put(world, OWN, reach, &mut out);
    out
}

fn regions(bytes: &[u8]) -> Vec<FarRegion> {
    let (mut told, mut view) = (Vec::new(), FarView::default());
    read(bytes, OWN, &mut told).unwrap();
    assert!(view.take(60, &told) && !view.take(60, &[]) && !view.take(59, &[]));
    view.regions(32, (CellId { x: 6, z: 7 }, 1 << 24)).collect()
}

#[test]
fn regions_have_these_bytes() {
    // Two in region 1, 1, one in region 3, 2, and the player's own region 2, 2 is empty.
    let world = world(&[(130.0, 200.0), (150.0, 250.0), (511.0, 256.0)]);
    let golden = [1, 0b0010_0001, 0, 2, 24, 194, 0, 1, 254, 0, 0];
    let made = bytes(&mut FarRegions::new(200), &world, 1);
    assert_eq!(made, golden);
    let [near, far] = regions(&made)[..] else { panic!("two regions") };
    assert_eq!((near.corner, near.count), (CellId { x: 4, z: 4 }, 2));
    assert_eq!((far.corner, far.count), (CellId { x: 12, z: 8 }, 1));
    let step = 128.0 / STEPS;
    assert!((near.middle.x - 140.0).abs() <= step && (near.middle.z - 225.0).abs() <= step);
    assert_eq!((near.cells_seen, far.cells_seen), (0, 0));
}

#[test]
fn a_region_tells_how_many_of_its_cells_are_in_sight() {
    let world = world(&[(300.0, 330.0)]);
    let seen = regions(&bytes(&mut FarRegions::new(200), &world, 1));
    assert_eq!((seen.len(), seen[0].cells_seen), (1, 1));
}

#[test]
fn a_region_is_made_once_a_second_and_copied_to_all() {
    let mut world = world(&[(300.0, 330.0)]);
    let mut far = FarRegions::new(200);
    let first = bytes(&mut far, &world, 2);
    let mut changes = 0;
    let mut last = first.clone();
    for _ in 0..3 * FAR_TICKS {
        world.spawn(Kind::Npc, Position::ground(301.0, 331.0)).ok();
        world.step();
        let now = bytes(&mut far, &world, 2);
        assert_eq!(now, bytes(&mut far, &world, 2));
        changes += u32::from(now != last);
        last = now;
    }
    assert_eq!(changes, 3, "each second once, though somebody came in each tick");
}

#[test]
fn who_is_hidden_is_not_counted() {
    let mut one = world(&[(300.0, 330.0)]);
    let hidden = one.spawn(Kind::Player, Position::ground(310.0, 360.0)).unwrap();
    assert!(one.set_stealth(hidden, Stealth::Hidden));
    one.step();
    let mut other = world(&[(300.0, 330.0)]);
    other.step();
    let made = bytes(&mut FarRegions::new(200), &one, 3);
    assert_eq!(made, bytes(&mut FarRegions::new(200), &other, 3));
    assert_eq!(regions(&made)[0].count, 1);
}

#[test]
fn malformed_squares_are_named() {
    let good = [1, 0b0010_0001, 0, 2, 24, 194, 0, 1, 254, 0, 0];
    let mut told = Vec::new();
    for len in 0..good.len() {
        assert!(read(&good[..len], OWN, &mut told).is_err(), "{len} bytes");
    }
    let cases: [&[u8]; 5] = [&[0, 0], &[4, 0], &[1, 0, 2], &[1, 1, 0, 0, 1, 2, 3], &[1, 0, 0, 9]];
    for case in cases {
        assert_eq!(read(case, OWN, &mut told), Err(StateError::Far), "{case:?}");
    }
    // Beyond the edge of every world.
    let edge = read(&[1, 1, 0, 1, 2, 3, 4], CellId { x: 0, z: 0 }, &mut told);
    assert_eq!(edge, Err(StateError::Far));
}

proptest! {
    #[test]
    fn any_bytes_parse_or_name_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut told = Vec::new();
        let _ = read(&bytes, OWN, &mut told);
        prop_assert!(told.len() <= REGIONS_MAX);
    }
}
