use std::collections::BTreeMap;

use proptest::prelude::*;
use twinspan_core::random::Stream;

use super::*;
use crate::config::WorldConfig;

fn grid() -> Grid {
    Grid::new(&WorldConfig { side: 640.0, ..WorldConfig::default() })
}

#[test]
fn radii_that_do_not_fit_are_named() {
    let check = |enter, leave| {
        InterestConfig { enter, leave, ..InterestConfig::default() }
            .check(32.0)
            .map_err(|e| e.to_string())
    };
    assert_eq!(check(32.0, 96.0), Ok(()));
    let reach = "leave radius 97 m: choose at most 96 m, or larger cells";
    assert_eq!(check(32.0, 97.0), Err(reach.into()));
    let order = "enter radius 50 m and leave radius 40 m: choose 0 < enter <= leave";
    assert_eq!(check(50.0, 40.0), Err(order.into()));
    assert!(check(f64::NAN, 40.0).is_err());
}

#[test]
fn walking_along_an_edge_changes_nothing() {
    let grid = grid();
    let mut subscriptions = Subscriptions::new(InterestConfig::default());
    // Both coordinates sway over the corner of four cells, where enter radii begin and end.
    let at = |tick: u32| {
        let sway = f64::from(tick % 40) * 0.1 - 2.0;
        Position::ground(320.0 + sway, 320.0 - sway)
    };
    (0..200).for_each(|tick| subscriptions.update(tick, at(tick), &grid));
    let (entered, left) = (subscriptions.entered(), subscriptions.left());
    (200..20_000).for_each(|tick| subscriptions.update(tick, at(tick), &grid));
    assert_eq!((subscriptions.entered(), subscriptions.left()), (entered, left));
    assert!(subscriptions.len() >= 12, "four cells and those around them");
}

#[test]
fn a_cell_dwells_half_a_second() {
    let grid = grid();
    let mut subscriptions = Subscriptions::new(InterestConfig::default());
    // Three cells away: inside the window, farther than the leave radius.
    let (there, here) = (Position::ground(330.0, 330.0), Position::ground(410.0, 330.0));
    subscriptions.update(100, there, &grid);
    let seen: Vec<_> = subscriptions.cells().collect();
    subscriptions.update(129, here, &grid);
    let in_window = |cell: &CellId| cell.x >= 9;
    assert!(seen.iter().filter(|cell| in_window(cell)).all(|cell| subscriptions.contains(*cell)));
    subscriptions.update(130, here, &grid);
    assert!(!subscriptions.contains(CellId { x: 9, z: 10 }));
}

#[test]
fn a_teleport_drops_all_at_once() {
    let grid = grid();
    let mut subscriptions = Subscriptions::new(InterestConfig::default());
    subscriptions.update(1, Position::ground(16.0, 16.0), &grid);
    let before: Vec<_> = subscriptions.cells().collect();
    assert!(before.iter().all(|cell| grid.has(*cell)), "cells outside the world are left out");
    subscriptions.update(2, Position::ground(600.0, 600.0), &grid);
    assert!(before.iter().all(|cell| !subscriptions.contains(*cell)));
    assert_eq!(subscriptions.left(), before.len() as u64);
}

#[test]
fn cells_that_are_seen_are_counted_from_anywhere() {
    let config = InterestConfig::default();
    assert_eq!([32.0, 24.0, 16.0].map(|cell| config.cells_seen(cell)), [16, 24, 45]);
    let grid = grid();
    let mut random = Stream::new(1, "places", 0);
    for _ in 0..2_000 {
        let mut subscriptions = Subscriptions::new(config);
        let at = Position::ground(random.between(100.0, 500.0), random.between(100.0, 500.0));
        subscriptions.update(1, at, &grid);
        assert!(subscriptions.len() <= config.cells_seen(grid.cell_side()));
    }
}

#[test]
fn a_dwell_longer_than_is_remembered_is_refused() {
    let config = InterestConfig { dwell_ticks: DWELL_TICKS_MAX, ..InterestConfig::default() };
    assert_eq!(config.check(32.0), Ok(()));
    let config = InterestConfig { dwell_ticks: DWELL_TICKS_MAX + 1, ..config };
    assert_eq!(
        config.check(32.0).unwrap_err().to_string(),
        "cells kept for 32768 ticks: choose at most 32767"
    );
}

proptest! {
    /// The definition, spelled out over all cells of the world and without a window.
    #[test]
    fn cells_follow_their_definition(
        steps in proptest::collection::vec((-30.0_f64..30.0, -30.0_f64..30.0, 1_u32..30), 1..120),
        x in 0.0_f64..640.0, z in 0.0_f64..640.0,
    ) {
        let grid = grid();
        let config = InterestConfig::default();
        let mut subscriptions = Subscriptions::new(config);
        let mut model: BTreeMap<CellId, u32> = BTreeMap::new();
        let (mut at, mut tick) = (Position::ground(x, z), 0);
        for (dx, dz, ticks) in steps {
            at = Position::ground((at.x + dx).clamp(0.0, 639.0), (at.z + dz).clamp(0.0, 639.0));
            tick += ticks;
            subscriptions.update(tick, at, &grid);
            let middle = grid.cell_of(at);
            let all = (0..20).flat_map(|z| (0..20).map(move |x| CellId { x, z }));
            for cell in all {
                let distance = grid.distance_squared(cell, at).sqrt();
                let far = (cell.x - middle.x).abs() > 3 || (cell.z - middle.z).abs() > 3;
                if distance <= config.enter {
                    model.entry(cell).or_insert(tick);
                } else if let Some(since) = model.get(&cell)
                    && (far || (distance > config.leave && tick - since >= config.dwell_ticks))
                {
                    model.remove(&cell);
                }
            }
            let cells: Vec<_> = subscriptions.cells().collect();
            let expected: Vec<_> = model.keys().copied().collect();
            prop_assert_eq!(cells, expected);
        }
        prop_assert_eq!(subscriptions.entered() - subscriptions.left(), model.len() as u64);
    }
}
