//! Lost connections, borders, proxies that go away: what a client does about each.

use std::time::Duration;

use twinspan_circuit::Journey;
use twinspan_core::link::{Conditions, FaultKind};
use twinspan_grid::GridEvent;
use twinspan_lludp::Vector3;
use twinspan_lludp::messages::ChatFromSimulator;
use twinspan_provider::TimeProvider;
use twinspan_sim::proxy::{SocksConfig, SocksProxy};
use twinspan_viewer::{
    CONTROL_AHEAD, DisconnectReason, HandlerContext, HandlerError, NetworkError, NetworkEvent,
    NetworkStatus, ProxySettings, ReconnectPolicy, Subscription, TypedPacketHandler, ViewerConfig,
};

use crate::rig::{GRID_IP, PROXY_IP, VIEWER_IP, Visit, World, next, sleep};

fn quick() -> ViewerConfig {
    let reconnect = ReconnectPolicy { wait: Duration::from_secs(2), ..ReconnectPolicy::default() };
    ViewerConfig { reconnect, ..ViewerConfig::default() }
}

/// The states that the client came to, as far as they were not asked for before.
fn statuses(events: &mut Subscription<NetworkEvent>) -> Vec<NetworkStatus> {
    let told = std::iter::from_fn(|| events.try_recv());
    told.filter_map(|event| match event {
        NetworkEvent::StatusChanged { new, .. } => Some(new),
        _ => None,
    })
    .collect()
}

#[test]
fn a_connection_that_was_lost_comes_back() {
    let mut world = World::new(21, Conditions::CLEAN);
    let mut visit = world.log_in(quick());
    world.sim.run_for(Duration::from_secs(20));
    assert_eq!(
        statuses(&mut visit.events),
        [NetworkStatus::Authenticating, NetworkStatus::Connecting, NetworkStatus::Connected]
    );
    world.sim.partition(GRID_IP, VIEWER_IP);
    world.sim.run_for(Duration::from_secs(120));
    assert_eq!(statuses(&mut visit.events), [NetworkStatus::Reconnecting]);
    world.sim.heal_all();
    world.sim.run_for(Duration::from_secs(300));
    assert_eq!(statuses(&mut visit.events), [NetworkStatus::Connected]);
    assert!(world.sim.faults().effect(FaultKind::Partition) > 0);
}

#[test]
fn attempts_to_come_back_wait_longer_each_time_and_end() {
    let mut world = World::new(28, Conditions::CLEAN);
    let reconnect = ReconnectPolicy {
        attempts_max: 5,
        wait: Duration::from_secs(2),
        wait_max: Duration::from_secs(20),
        ..ReconnectPolicy::default()
    };
    let mut visit = world.log_in(ViewerConfig { reconnect, ..ViewerConfig::default() });
    world.sim.stop_host(GRID_IP);
    world.sim.run_for(Duration::from_secs(1_500));
    let told: Vec<NetworkEvent> = std::iter::from_fn(|| visit.events.try_recv()).collect();
    let planned: Vec<(u32, Duration)> = told
        .iter()
        .filter_map(|event| match event {
            NetworkEvent::ReconnectPlanned { attempt, after } => Some((*attempt, *after)),
            _ => None,
        })
        .collect();
    assert_eq!(planned.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for ((_, after), seconds) in planned.iter().zip([2, 4, 8, 16, 20]) {
        let wait = Duration::from_secs(seconds);
        assert!((wait * 4 / 5..=wait * 6 / 5).contains(after), "{after:?} for {wait:?}");
    }
    assert!(planned.windows(2).any(|two| two[0].1 * 2 != two[1].1), "some of it is chance");
    assert!(matches!(told.last(), Some(NetworkEvent::Disconnected { .. })), "{:?}", told.last());
    assert_eq!(visit.manager.status(), NetworkStatus::Disconnected);
}

#[test]
fn a_goodbye_that_nobody_hears_is_not_waited_for_long() {
    let mut world = World::new(29, Conditions::CLEAN);
    let visit = world.log_in(quick());
    world.sim.partition(GRID_IP, VIEWER_IP);
    let viewer = world.viewer.clone();
    let took = world.run(async move {
        let began = viewer.now();
        visit.manager.disconnect().await;
        assert_eq!(visit.manager.status(), NetworkStatus::Disconnected);
        viewer.now().since(began)
    });
    let limit = ViewerConfig::default().agent.logout_timeout;
    assert!((limit / 2..=limit + Duration::from_secs(1)).contains(&took), "{took:?} of {limit:?}");
}

#[test]
fn who_was_kicked_stays_away() {
    let mut world = World::new(22, Conditions::CLEAN);
    let Visit { server, manager, mut events, task, .. } = world.log_in(quick());
    let viewer = world.viewer.clone();
    world.run(async move {
        server.act(|grid, now| {
            let codes: Vec<u32> = grid.codes().collect();
            codes.iter().for_each(|code| grid.kick(now, *code, "the party is over"));
        });
        let reason = next(&mut events, |event| match event {
            NetworkEvent::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        });
        assert_eq!(reason.await.to_string(), "kicked: the party is over");
        sleep(&viewer, Duration::from_secs(60)).await;
        assert_eq!(manager.status(), NetworkStatus::Disconnected);
        drop(task);
    });
}

#[test]
fn a_border_is_crossed_on_foot() {
    let mut world = World::new(23, Conditions { loss: 0.05, ..Conditions::WIFI });
    let mut visit = world.log_in(quick());
    let viewer = world.viewer.clone();
    world.run(async move {
        // To the east, where Beta is.
        let here = visit.bot.position().await.unwrap();
        visit.bot.turn_to(Vector3::new(here.x + 50.0, here.y, here.z)).await.unwrap();
        visit.bot.press(CONTROL_AHEAD).await.unwrap();
        let journey = next(&mut visit.events, |event| match event {
            NetworkEvent::RegionEntered { journey: Journey::Login, .. } => None,
            NetworkEvent::RegionEntered { journey, .. } => Some(*journey),
            _ => None,
        });
        assert_eq!(journey.await, Journey::Crossing);
        visit.bot.stop().await.unwrap();
        sleep(&viewer, Duration::from_secs(2)).await;
        assert_eq!(visit.manager.region().expect("known").name, "Beta");
        assert_eq!(visit.manager.summary().await.unwrap().crossings, 1);
        visit.manager.disconnect().await;
    });
}

/// A proxy, and settings that go through it.
fn proxied(world: &mut World, timeout: Duration) -> (SocksProxy, ViewerConfig) {
    let proxy = SocksProxy::start(&world.sim.host("proxy", PROXY_IP), SocksConfig::default());
    let mut proxies = ProxySettings::parse(&format!("socks5://{}", proxy.address())).unwrap();
    if let Some(datagrams) = &mut proxies.datagrams {
        datagrams.timeout = timeout;
    }
    (proxy, ViewerConfig { proxies, ..quick() })
}

#[test]
fn a_session_goes_through_a_proxy_and_outlives_its_association() {
    let mut world = World::new(24, Conditions::CLEAN);
    let (proxy, config) = proxied(&mut world, Duration::from_secs(10));
    let mut visit = world.log_in(config);
    world.run(async move {
        visit.bot.say("through the proxy").await.expect("said");
        let report = || visit.handle.proxy_manager.report();
        assert_eq!(report().associations, 1);
        proxy.drop_associations();
        next(&mut visit.events, |event| {
            let lost = |error: &NetworkError| matches!(error, NetworkError::ProxyLost { .. });
            matches!(event, NetworkEvent::Error { error } if lost(error)).then_some(())
        })
        .await;
        next(&mut visit.events, |event| matches!(event, NetworkEvent::ProxyRestored).then_some(()))
            .await;
        assert_eq!((report().associations, report().lost), (2, 1));
        // The grid knows agents by their addresses: it is lost in the end, and comes back.
        let connected = next(&mut visit.events, |event| match event {
            NetworkEvent::Connected { session } => Some(session.first_name.clone()),
            _ => None,
        });
        assert_eq!(connected.await, "Ruth");
        visit.manager.disconnect().await;
    });
}

#[test]
fn time_goes_on_while_a_proxy_does_not_answer() {
    let mut world = World::new(27, Conditions::CLEAN);
    let (proxy, config) = proxied(&mut world, Duration::from_secs(600));
    let mut visit = world.log_in(config);
    world.sim.run_for(Duration::from_secs(20));
    assert_eq!(statuses(&mut visit.events).last(), Some(&NetworkStatus::Connected));
    // The association ends, and whoever asks for another one hears nothing.
    proxy.drop_associations();
    world.sim.run_for(Duration::from_millis(300));
    world.sim.partition(PROXY_IP, VIEWER_IP);
    world.sim.run_for(Duration::from_secs(40));
    assert_eq!(statuses(&mut visit.events), []);
    assert_eq!(visit.handle.proxy_manager.report().lost, 1);
    // A region that is silent for a minute is lost all the same.
    world.sim.run_for(Duration::from_secs(35));
    assert_eq!(statuses(&mut visit.events), [NetworkStatus::Reconnecting]);
}

/// Waits for ever at each message.
struct Stuck;

impl TypedPacketHandler<ChatFromSimulator> for Stuck {
    async fn handle(
        &self,
        _packet: &ChatFromSimulator,
        _context: &HandlerContext,
    ) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

#[test]
fn acks_and_pings_wait_for_no_handler() {
    let mut world = World::new(25, Conditions::CLEAN);
    let visit = world.log_in(quick());
    let viewer = world.viewer.clone();
    world.run(async move {
        let registry = &visit.handle.handler_registry;
        registry.register_handler::<ChatFromSimulator, _>(Stuck).await.id().unwrap();
        for number in 0..20 {
            visit.bot.say(&format!("word {number}")).await.expect("said");
        }
        sleep(&viewer, Duration::from_secs(120)).await;
        assert_eq!(visit.manager.status(), NetworkStatus::Connected);
        let [report] = registry.reports().try_into().unwrap();
        assert!(report.waiting > 10, "{report:?}");
        visit.manager.disconnect().await;
    });
}

#[test]
fn a_handle_that_is_dropped_says_goodbye() {
    let mut world = World::new(26, Conditions::CLEAN);
    let Visit { server, manager, bot, handle, mut events, task } = world.log_in(quick());
    let grid = world.grid.clone();
    world.run(async move {
        drop((handle, manager, bot));
        let reason = next(&mut events, |event| match event {
            NetworkEvent::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        });
        assert!(matches!(reason.await, DisconnectReason::Dropped));
        sleep(&grid, Duration::from_secs(1)).await;
        let mut left = false;
        while let Some(event) = server.poll_event() {
            left |= matches!(event, GridEvent::Left { asked: true, .. });
        }
        assert!(left, "the grid was told");
        drop(task);
    });
}
