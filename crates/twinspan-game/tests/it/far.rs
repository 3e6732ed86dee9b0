//! The world beyond sight, as players are told of it.

use std::time::Duration;

use twinspan_world::{FAR_TICKS, Position, REGION_CELLS};

use crate::rig::{NETWORK, Rig, SERVER};

/// A world of 8 by 8 regions with three players in it.
fn wide() -> Rig {
    let mut rig = Rig::empty(NETWORK, |config| {
        (config.npcs, config.projectiles) = (400, 0);
        config.world.side = 1_024.0;
    });
    for number in 1..=3 {
        rig.add_bot(number, SERVER);
    }
    rig.wait("the players to enter", Rig::all_entered);
    rig
}

#[test]
fn players_know_how_many_are_far_away_and_where_on_the_whole() {
    let mut rig = wide();
    rig.run_for(Duration::from_secs(4));
    let server = rig.server.borrow();
    let world = server.world();
    for bot in &rig.bots {
        let bot = bot.borrow();
        let replica = bot.client().replica();
        let told = replica.far_tick().unwrap();
        assert!(replica.tick() - told <= 2 * FAR_TICKS, "{told} at {}", replica.tick());
        let regions: Vec<_> = replica.far().collect();
        assert!(regions.iter().filter(|region| region.cells_seen == 0).count() >= 5);
        assert!(regions.iter().any(|region| region.cells_seen > 0), "its own");
        let mut off = 0;
        for region in &regions {
            let inside = world.entities().filter(|entity| {
                let cell = world.grid().cell_of(entity.position);
                let (x, z) = (cell.x - region.corner.x, cell.z - region.corner.z);
                (0..REGION_CELLS).contains(&x) && (0..REGION_CELLS).contains(&z)
            });
            let places: Vec<_> = inside.map(|entity| entity.position).collect();
            off += region.count.abs_diff(places.len() as u32);
            let mean = |of: fn(&Position) -> f64| {
                places.iter().map(of).sum::<f64>() / places.len().max(1) as f64
            };
            let (x, z) = (mean(|at| at.x), mean(|at| at.z));
            let (dx, dz) = (region.middle.x - x, region.middle.z - z);
            // Who left or came within the last two seconds moves the middle.
            assert!(dx.abs() < 30.0 && dz.abs() < 30.0, "{region:?} instead of {x}, {z}");
        }
        // They walk 4 m in two seconds: few pass from one region of 128 m to the next.
        let all: u32 = regions.iter().map(|region| region.count).sum();
        assert!(off * 10 <= all, "{off} of {all}");
    }
}

#[test]
fn a_server_that_tells_nothing_of_far_regions_tells_nothing() {
    let mut rig = Rig::empty(NETWORK, |config| config.interest.far_reach = 0);
    let bot = rig.add_bot(1, SERVER);
    rig.wait("the player to enter", Rig::all_entered);
    rig.run_for(Duration::from_secs(3));
    assert_eq!(bot.borrow().client().replica().far_tick(), None);
}
