//! Lost connections, borders, proxies that go away: what a client does about each.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use twinspan_circuit::Journey;
use twinspan_core::link::{Conditions, FaultKind};
use twinspan_grid::GridEvent;
use twinspan_lludp::Vector3;
use twinspan_lludp::messages::ChatFromSimulator;
use twinspan_sim::proxy::{SocksConfig, SocksProxy};
use twinspan_viewer::{
    CONTROL_AHEAD, DisconnectReason, HandlerContext, HandlerError, NetworkError, NetworkEvent,
    NetworkStatus, ProxySettings, ReconnectPolicy, TypedPacketHandler, ViewerConfig,
};

use crate::rig::{
    GRID_IP, PROXY_IP, USER, VIEWER_IP, World, credentials, grid_config, next, sleep, start_grid,
    start_viewer,
};

fn quick() -> ViewerConfig {
    let reconnect = ReconnectPolicy { wait: Duration::from_secs(2), ..ReconnectPolicy::default() };
    ViewerConfig { reconnect, ..ViewerConfig::default() }
}

#[test]
fn a_connection_that_was_lost_comes_back() {
    let World { mut sim, grid, viewer } = World::new(21, Conditions::CLEAN);
    let log = Rc::new(RefCell::new(Vec::new()));
    let (written, viewer_env) = (Rc::clone(&log), viewer.clone());
    let server = sim
        .block_on(&viewer, Duration::from_secs(60), {
            let grid = grid.clone();
            async move { start_grid(&grid, grid_config(GRID_IP)).await }
        })
        .unwrap();
    let url = server.login_url().to_owned();
    let task = {
        use twinspan_provider::TaskProvider;
        let env = viewer_env.clone();
        viewer_env.spawn("test", async move {
            let mut started = start_viewer(&env, quick());
            started.handle.network_manager.connect(credentials(USER, &url)).await.expect("in");
            while let Ok(event) = started.events.recv().await {
                if let NetworkEvent::StatusChanged { new, .. } = event {
                    written.borrow_mut().push(new);
                }
            }
        })
    };
    sim.run_for(Duration::from_secs(20));
    assert_eq!(log.borrow().last(), Some(&NetworkStatus::Connected));
    sim.partition(GRID_IP, VIEWER_IP);
    sim.run_for(Duration::from_secs(120));
    assert_eq!(log.borrow().last(), Some(&NetworkStatus::Reconnecting));
    sim.heal_all();
    sim.run_for(Duration::from_secs(300));
    assert_eq!(
        *log.borrow(),
        [
            NetworkStatus::Authenticating,
            NetworkStatus::Connecting,
            NetworkStatus::Connected,
            NetworkStatus::Reconnecting,
            NetworkStatus::Connected,
        ]
    );
    assert!(sim.faults().effect(FaultKind::Partition) > 0);
    drop(task);
}

#[test]
fn who_was_kicked_stays_away() {
    let mut world = World::new(22, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let mut started = start_viewer(&viewer, quick());
        let manager = started.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        server.act(|grid, now| {
            let codes: Vec<u32> = grid.codes().collect();
            codes.iter().for_each(|code| grid.kick(now, *code, "the party is over"));
        });
        let reason = next(&mut started.events, |event| match event {
            NetworkEvent::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        });
        assert_eq!(reason.await.to_string(), "kicked: the party is over");
        sleep(&viewer, Duration::from_secs(60)).await;
        assert_eq!(manager.status(), NetworkStatus::Disconnected);
    });
}

#[test]
fn a_border_is_crossed_on_foot() {
    let mut world = World::new(23, Conditions { loss: 0.05, ..Conditions::WIFI });
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let mut started = start_viewer(&viewer, quick());
        let manager = started.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let bot = started.handle.bot();
        // To the east, where Beta is.
        let here = bot.position().await.unwrap();
        bot.turn_to(Vector3::new(here.x + 50.0, here.y, here.z)).await.unwrap();
        bot.press(CONTROL_AHEAD).await.unwrap();
        let journey = next(&mut started.events, |event| match event {
            NetworkEvent::RegionEntered { journey: Journey::Login, .. } => None,
            NetworkEvent::RegionEntered { journey, .. } => Some(*journey),
            _ => None,
        });
        assert_eq!(journey.await, Journey::Crossing);
        bot.stop().await.unwrap();
        sleep(&viewer, Duration::from_secs(2)).await;
        assert_eq!(manager.region().expect("known").name, "Beta");
        assert_eq!(manager.summary().await.unwrap().crossings, 1);
        manager.disconnect().await;
    });
}

#[test]
fn a_session_goes_through_a_proxy_and_outlives_its_association() {
    let mut world = World::new(24, Conditions::CLEAN);
    let proxy_env = world.sim.host("proxy", PROXY_IP);
    let proxy = Rc::new(SocksProxy::start(&proxy_env, SocksConfig::default()));
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let lost = Rc::clone(&proxy);
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let url = format!("socks5://{}", lost.address());
        let proxies = ProxySettings::parse(&url).unwrap();
        let mut started = start_viewer(&viewer, ViewerConfig { proxies, ..quick() });
        let manager = started.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let bot = started.handle.bot();
        bot.say("through the proxy").await.expect("said");
        assert_eq!(started.handle.proxy_manager.report().associations, 1);
        lost.drop_associations();
        next(&mut started.events, |event| {
            let lost = |error: &NetworkError| matches!(error, NetworkError::ProxyLost { .. });
            matches!(event, NetworkEvent::Error { error } if lost(error)).then_some(())
        })
        .await;
        next(&mut started.events, |event| {
            matches!(event, NetworkEvent::ProxyRestored).then_some(())
        })
        .await;
        let report = started.handle.proxy_manager.report();
        assert_eq!((report.associations, report.lost), (2, 1));
        // The grid knows agents by their addresses: it is lost in the end, and comes back.
        loop {
            let connected = next(&mut started.events, |event| match event {
                NetworkEvent::Connected { session } => Some(session.first_name.clone()),
                _ => None,
            });
            if connected.await == "Ruth" && manager.status() == NetworkStatus::Connected {
                break;
            }
        }
        manager.disconnect().await;
    });
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
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let started = start_viewer(&viewer, quick());
        let registry = &started.handle.handler_registry;
        registry.register_handler::<ChatFromSimulator, _>(Stuck).await.id().unwrap();
        let manager = started.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let bot = started.handle.bot();
        for number in 0..20 {
            bot.say(&format!("word {number}")).await.expect("said");
        }
        sleep(&viewer, Duration::from_secs(120)).await;
        assert_eq!(manager.status(), NetworkStatus::Connected);
        let [report] = registry.reports().try_into().unwrap();
        assert!(report.waiting > 10, "{report:?}");
        manager.disconnect().await;
    });
}

#[test]
fn a_handle_that_is_dropped_says_goodbye() {
    let mut world = World::new(26, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let started = start_viewer(&viewer, quick());
        let manager = started.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let crate::rig::Viewer { handle, events, task } = started;
        drop((handle, manager));
        let mut events = events;
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
