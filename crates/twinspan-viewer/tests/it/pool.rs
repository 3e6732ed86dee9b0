//! Clients behind one manager of proxies: what they share, and what each has for itself.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_http::{ClientConfig, Trust};
use twinspan_sim::proxy::{SocksConfig, SocksProxy};
use twinspan_sim::{SimEnv, SimTask};
use twinspan_viewer::{
    Bot, ClientHandle, NetworkError, NetworkEvent, NetworkManager, NetworkStatus, ProxyManager,
    ProxyPool, ProxySettings, ReconnectPolicy, Subscription, ViewerConfig, ViewerCore,
};

use crate::rig::{
    GRID_IP, OTHER, PROXY_IP, USER, VIEWER_IP, World, credentials, grid_config, next, sleep,
    start_grid,
};

struct Pooled {
    handle: ClientHandle,
    manager: NetworkManager,
    bot: Bot,
    events: Subscription<NetworkEvent>,
    _task: SimTask,
}

fn start(env: &SimEnv, pool: &ProxyPool<SimEnv>) -> Pooled {
    let reconnect = ReconnectPolicy { wait: Duration::from_secs(2), ..ReconnectPolicy::default() };
    let config = ViewerConfig { reconnect, message_events: false, ..ViewerConfig::default() };
    let (core, handle) = ViewerCore::pooled(env.clone(), config, pool).unwrap();
    let (manager, bot) = (handle.network_manager.clone(), handle.bot());
    let events = manager.subscribe();
    let task = twinspan_provider::TaskProvider::spawn(env, "core", core.run());
    Pooled { handle, manager, bot, events, _task: task }
}

/// A proxy, and a pool whose clients go through it.
fn pool(world: &mut World) -> (SocksProxy, ProxyPool<SimEnv>) {
    let proxy = SocksProxy::start(&world.sim.host("proxy", PROXY_IP), SocksConfig::default());
    let settings = ProxySettings::parse(&format!("socks5://{}", proxy.address())).unwrap();
    let manager = ProxyManager::new(settings);
    let pool = ProxyPool::new(world.viewer.clone(), manager, ClientConfig::default());
    (proxy, pool)
}

#[test]
fn two_clients_behind_one_manager_share_http_clients_and_have_an_association_each() {
    let mut world = World::new(111, Conditions::CLEAN);
    let (proxy, pool) = pool(&mut world);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let [one, other] = [start(&viewer, &pool), start(&viewer, &pool)];
        for (client, user) in [(&one, USER), (&other, OTHER)] {
            client.manager.connect(credentials(user, server.login_url())).await.expect("let in");
        }
        assert_eq!(pool.http_clients(), 1);
        let report = pool.manager().report();
        assert_eq!((report.associations, report.open), (2, 2));
        assert_eq!(one.handle.proxy_manager.report(), report, "it is the same manager");
        // Connections to the proxy: an association each, and what polls of event queues hold.
        sleep(&viewer, Duration::from_secs(5)).await;
        let http = pool.http_connections() as u64;
        assert!(proxy.report().connections <= 2 + http + 1, "{:?} {http}", proxy.report());

        // They meet through it.
        while one.bot.avatars().await.expect("connected").len() < 2 {
            sleep(&viewer, Duration::from_millis(100)).await;
        }

        // One leaves, and the other stays.
        one.manager.disconnect().await;
        assert_eq!(pool.manager().report().open, 1);
        other.bot.say("still here").await.expect("said");
        // It comes back, by another association and the same HTTP client.
        one.manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let report = pool.manager().report();
        assert_eq!((report.associations, report.open, pool.http_clients()), (3, 2, 1));
        one.manager.disconnect().await;
        other.manager.disconnect().await;
        assert_eq!(pool.manager().report().open, 0);
        drop(server);
    });
}

#[test]
fn all_clients_behind_a_manager_get_their_associations_again() {
    let mut world = World::new(112, Conditions::CLEAN);
    let (proxy, pool) = pool(&mut world);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let mut both = [start(&viewer, &pool), start(&viewer, &pool)];
        for (client, user) in both.iter().zip([USER, OTHER]) {
            client.manager.connect(credentials(user, server.login_url())).await.expect("let in");
        }
        proxy.drop_associations();
        for client in &mut both {
            let lost = |error: &NetworkError| matches!(error, NetworkError::ProxyLost { .. });
            next(&mut client.events, |event| {
                matches!(event, NetworkEvent::Error { error } if lost(error)).then_some(())
            })
            .await;
            next(&mut client.events, |event| {
                matches!(event, NetworkEvent::ProxyRestored).then_some(())
            })
            .await;
        }
        let report = pool.manager().report();
        assert_eq!((report.associations, report.lost, report.open), (4, 2, 2));
        drop(server);
    });
}

#[test]
fn time_goes_on_for_all_clients_while_a_proxy_does_not_answer() {
    let mut world = World::new(113, Conditions::CLEAN);
    let (proxy, pool) = pool(&mut world);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let (server, both) = world.run({
        let pool = pool.clone();
        async move {
            let server = start_grid(&grid, grid_config(GRID_IP)).await;
            let both = [start(&viewer, &pool), start(&viewer, &pool)];
            for (client, user) in both.iter().zip([USER, OTHER]) {
                let entered = client.manager.connect(credentials(user, server.login_url()));
                entered.await.expect("let in");
            }
            (server, both)
        }
    });
    // The associations end, and whoever asks for others hears nothing.
    proxy.drop_associations();
    world.sim.run_for(Duration::from_millis(300));
    world.sim.partition(PROXY_IP, VIEWER_IP);
    world.sim.run_for(Duration::from_secs(100));
    // Regions that are silent for a minute are lost all the same.
    for client in &both {
        assert_ne!(client.manager.status(), NetworkStatus::Connected);
    }
    world.sim.heal_all();
    world.sim.run_for(Duration::from_secs(400));
    for client in &both {
        assert_eq!(client.manager.status(), NetworkStatus::Connected);
    }
    assert_eq!(pool.manager().report().open, 2);
    drop((server, both));
    world.sim.run_for(Duration::from_secs(20));
    assert_eq!(pool.manager().report().open, 0);
}

#[test]
fn a_client_that_checks_no_certificates_tells_it_once() {
    let mut world = World::new(114, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        for (trust, wanted) in [(Trust::without_checks(), 1), (Trust::nobody(), 0)] {
            let http = ClientConfig { trust, ..ClientConfig::default() };
            let config = ViewerConfig { http, message_events: false, ..ViewerConfig::default() };
            let mut core = crate::rig::start_viewer(&viewer, config);
            let manager = core.handle.network_manager.clone();
            for _ in 0..2 {
                let entered = manager.connect(credentials(USER, server.login_url()));
                entered.await.expect("let in");
                manager.disconnect().await;
            }
            let told = std::iter::from_fn(|| core.events.try_recv());
            let warnings =
                told.filter(|event| matches!(event, NetworkEvent::CertificatesUnchecked));
            assert_eq!(warnings.count(), wanted);
        }
    });
}
