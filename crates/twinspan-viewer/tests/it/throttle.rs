//! What a viewer asks a region for follows what the line bears, and the region obeys.

use std::time::Duration;

use twinspan_circuit::{Rates, ThrottleClass};
use twinspan_core::link::{Conditions, FaultKind};
use twinspan_grid::{GridConfig, GridServer, GridServerConfig, THINGS_MAX};
use twinspan_sim::SimEnv;
use twinspan_viewer::ViewerConfig;

use crate::rig::{
    GRID_IP, USER, Viewer, World, credentials, grid_config, sleep, start_grid, start_viewer,
};

/// How long rates are watched at a time: two looks of the viewer at its losses.
const WATCH: Duration = Duration::from_secs(10);

/// What the region was asked for, and what it sent meanwhile.
#[derive(Clone, Copy, Debug)]
struct Watched {
    rates: Rates,
    bits_per_second: f32,
}

async fn watch(env: &SimEnv, server: &GridServer<SimEnv>) -> Watched {
    let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
    let bytes = || server.with_grid(|grid| grid.stats_of(code)).expect("a circuit").bytes_out;
    let before = bytes();
    sleep(env, WATCH).await;
    let bits_per_second = (bytes() - before) as f32 * 8.0 / WATCH.as_secs_f32();
    let rates = server.with_grid(|grid| grid.rates(code)).expect("a circuit");
    Watched { rates, bits_per_second }
}

#[test]
fn rates_fall_where_packets_are_lost_and_rise_when_the_line_is_good_again() {
    let poor = Conditions { loss: 0.1, delay: Duration::from_millis(30), ..Conditions::CLEAN };
    let good = Conditions { loss: 0.0, ..poor };
    let mut world = World::new(91, good);
    let (grid_env, env) = (world.grid.clone(), world.viewer.clone());
    let mut config = ViewerConfig { message_events: false, ..ViewerConfig::default() };
    // Little enough that there are things to tell of until the end.
    config.agent.throttle_total = 1_024_000.0;
    // So many things that the region has something to send all the time.
    let grid = GridConfig { things: THINGS_MAX, ..GridConfig::default() };
    let asked = config.agent.throttle_total;
    let (server, viewer) = world.run({
        let env = env.clone();
        async move {
            let server =
                start_grid(&grid_env, GridServerConfig { grid, ..grid_config(GRID_IP) }).await;
            let viewer: Viewer<SimEnv> = start_viewer(&env, config);
            let manager = &viewer.handle.network_manager;
            manager.connect(credentials(USER, server.login_url())).await.expect("let in");
            (server, viewer)
        }
    });
    let server = std::rc::Rc::new(server);
    let look = |world: &mut World| {
        let (env, server) = (env.clone(), std::rc::Rc::clone(&server));
        world.run(async move { watch(&env, &server).await })
    };

    // On a good line it asks for all that its user allows, class by class.
    let at_first = look(&mut world);
    assert_eq!(at_first.rates, Rates::of_total(asked));

    // Each look at losses takes a tenth off.
    world.sim.set_conditions(poor);
    let mut former = at_first;
    for step in 1..=4 {
        let now = look(&mut world);
        assert!(now.rates.total() < 0.93 * former.rates.total(), "{step}: {former:?} {now:?}");
        for class in ThrottleClass::ALL {
            assert!(now.rates.get(class) <= former.rates.get(class), "{class:?}");
        }
        // All that it sends is objects, and what was lost of them.
        let allowed =
            former.rates.get(ThrottleClass::Task) + former.rates.get(ThrottleClass::Resend);
        assert!(now.bits_per_second < 1.1 * allowed, "{step}: {now:?} of {allowed}");
        former = now;
    }
    let lowest = former;
    assert!(world.sim.faults().effect(FaultKind::Loss) > 100);
    let (fast, slow) = (at_first.bits_per_second, lowest.bits_per_second);
    assert!(slow < 0.8 * fast, "the region sends less: {slow} of {fast}");

    // When nothing is lost any more, it asks for more again, up to what is allowed.
    world.sim.set_conditions(good);
    // What was lost before still counts at the first look.
    let mut last = look(&mut world);
    for _ in 0..7 {
        let now = look(&mut world);
        assert!(now.rates.total() >= last.rates.total(), "{last:?} {now:?}");
        assert!(
            now.bits_per_second > 0.5 * last.rates.get(ThrottleClass::Task),
            "{last:?} {now:?}"
        );
        last = now;
    }
    assert_eq!(last.rates, Rates::of_total(asked));
    let fast_again = last.bits_per_second;
    assert!(fast_again > 1.2 * slow, "the region sends more again: {fast_again} {slow}");
    drop(viewer);
}
