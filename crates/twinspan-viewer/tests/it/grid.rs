//! A whole session on a good grid: the same test in the simulator and on this machine's loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use twinspan_circuit::Journey;
use twinspan_core::link::Conditions;
use twinspan_grid::TEXTURE;
use twinspan_lludp::Vector3;
use twinspan_provider::Env;
use twinspan_viewer::{
    AssetError, AssetKind, Bot, ByteRange, DisconnectReason, NetworkEvent, NetworkStatus,
    SessionSummary, ViewerConfig, WorldEvent,
};

use crate::rig::{
    GRID_IP, OTHER, USER, World, credentials, grid_config, next, sleep, start_grid, start_viewer,
};

/// Logs in two avatars; one talks, walks, teleports and logs out.
pub(crate) async fn whole_session<E: Env>(
    grid_env: E,
    viewer_env: E,
    ip: IpAddr,
    config: ViewerConfig,
) -> SessionSummary {
    let server = start_grid(&grid_env, grid_config(ip)).await;
    let url = server.login_url().to_owned();
    let mut viewer = start_viewer(&viewer_env, config);
    let other = start_viewer(&viewer_env, ViewerConfig::default());
    let mut heard = other.handle.bot().listen();

    let manager = viewer.handle.network_manager.clone();
    assert_eq!(manager.status(), NetworkStatus::Idle);
    let session = manager.connect(credentials(USER, &url)).await.expect("let in");
    assert_eq!(session.first_name, "Ruth");
    assert_eq!(manager.status(), NetworkStatus::Connected);
    let connected = next(&mut viewer.events, |event| match event {
        NetworkEvent::Connected { session } => Some(session.first_name.clone()),
        _ => None,
    });
    assert_eq!(connected.await, "Ruth");
    other.handle.network_manager.connect(credentials(OTHER, &url)).await.expect("let in");

    // What is said is heard by the other.
    let bot = viewer.handle.bot();
    bot.say("hello").await.expect("said");
    loop {
        if let WorldEvent::Chat(chat) = heard.recv().await.expect("events")
            && chat.text == "hello"
        {
            assert_eq!(chat.from_name, "Ruth Resident");
            break;
        }
    }

    // Both see each other.
    while bot.avatars().await.expect("connected").len() < 2 {
        sleep(&viewer_env, Duration::from_millis(100)).await;
    }

    // A message for the other alone.
    let other_id = other.handle.network_manager.session().expect("a session").agent_id;
    bot.instant_message(other_id, "psst").await.expect("sent");
    loop {
        if let WorldEvent::InstantMessage(message) = heard.recv().await.expect("events") {
            assert_eq!(message.text, "psst");
            assert_eq!(message.from_name, "Ruth Resident");
            break;
        }
    }

    sit(&viewer_env, &bot).await;
    fetch(&viewer.handle).await;

    // Walks.
    let here = bot.position().await.expect("connected");
    let there = Vector3::new(here.x + 8.0, here.y, here.z);
    bot.walk_to(there, Duration::from_secs(60)).await.expect("walked");
    let now = bot.position().await.expect("connected");
    assert!((now.x - there.x).abs() < 2.5, "{now:?} is near {there:?}");

    // Teleports to a region far away, and crosses nothing on the way.
    let before = manager.region().expect("a region").name.clone();
    assert_eq!(before, "Alpha");
    let arrived = bot.teleport_to("Gamma", Vector3::new(100.0, 100.0, 25.0)).await;
    let arrived = arrived.expect("arrived");
    assert_eq!(viewer.handle.core().main_circuit().stats().await.map(|_| ()), Some(()));
    let journey = next(&mut viewer.events, |event| match event {
        NetworkEvent::RegionEntered { address, journey, .. } if *address == arrived.address => {
            Some(*journey)
        }
        _ => None,
    });
    assert_eq!(journey.await, Journey::Teleport);

    let summary = manager.summary().await.expect("a session");
    manager.disconnect().await;
    assert_eq!(manager.status(), NetworkStatus::Disconnected);
    let reason = next(&mut viewer.events, |event| match event {
        NetworkEvent::Disconnected { reason } => Some(reason.clone()),
        _ => None,
    });
    let reason = reason.await;
    assert!(matches!(&reason, DisconnectReason::Ended(end) if end.to_string() == "logged out"));
    other.handle.network_manager.disconnect().await;
    summary
}

/// Sits down on the nearest thing, and stands up.
async fn sit<E: Env>(env: &E, bot: &Bot) {
    let mut told = bot.listen();
    let thing = loop {
        let near = bot.objects_within(200.0).await.expect("connected");
        if let Some(thing) = near.first() {
            break thing.id;
        }
        sleep(env, Duration::from_millis(100)).await;
    };
    bot.sit_on(thing).await.expect("asked");
    loop {
        if let WorldEvent::Sat { on } = told.recv().await.expect("events") {
            assert_eq!(on, thing);
            break;
        }
    }
    bot.stand().await.expect("asked");
}

/// Fetches the inventory and an asset.
async fn fetch(handle: &twinspan_viewer::ClientHandle) {
    let session = handle.network_manager.session().expect("a session");
    let root = session.inventory_root.expect("a root");
    let core = handle.core();
    while core.capabilities().await.is_none() {
        core.circuit_stats().await;
    }
    let fetched =
        core.fetch_folders(twinspan_viewer::InventoryOwner::Agent, vec![root]).await.expect("told");
    assert_eq!(fetched.folders.len(), 1);
    let part = Some(ByteRange { from: 2, to: Some(9) });
    let texture = core.fetch_asset(AssetKind::Texture, TEXTURE, part).await.expect("sent");
    assert_eq!((texture.from, texture.bytes.len()), (2, 8));
    assert!(texture.total.is_some_and(|total| total > 10), "{:?}", texture.total);
    let id = twinspan_lludp::Uuid::from_u128(0x1234);
    let none = core.fetch_asset(AssetKind::Texture, id, part).await;
    assert!(matches!(none, Err(AssetError::NotFound)), "{none:?}");
}

#[test]
fn a_whole_session_in_the_simulator() {
    let mut world = World::new(7, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let summary = world.run(whole_session(grid, viewer, GRID_IP, ViewerConfig::default()));
    assert_eq!((summary.teleports, summary.decode_errors), (1, 0));
    assert!(summary.caps > 3 && summary.queue_messages > 0, "{summary:?}");
    assert_eq!(summary.regions.first().map(String::as_str), Some("Alpha"));
}

#[test]
fn a_whole_session_on_loopback() {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let summary =
        twinspan_provider::run(|env| whole_session(env.clone(), env, ip, ViewerConfig::default()))
            .unwrap();
    assert_eq!((summary.teleports, summary.decode_errors), (1, 0));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let hash = |seed| {
        let mut world = World::new(seed, Conditions { loss: 0.1, ..Conditions::WIFI });
        let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
        world.run(whole_session(grid, viewer, GRID_IP, ViewerConfig::default()));
        world.sim.trace_hash()
    };
    assert_eq!(hash(3), hash(3));
    assert_ne!(hash(3), hash(4));
}

#[test]
fn losses_up_to_30_percent_are_borne() {
    for (seed, loss) in [(1, 0.1), (2, 0.2), (3, 0.3)] {
        let mut world = World::new(seed, Conditions { loss, ..Conditions::WIFI });
        let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
        let summary = world.run(whole_session(grid, viewer, GRID_IP, ViewerConfig::default()));
        assert_eq!(summary.teleports, 1, "at {loss}");
        assert!(summary.stats.resends_out > 0, "the fault was not only switched on");
        let handshake = summary.handshake.expect("it arrived");
        assert!(handshake < Duration::from_secs(10), "{handshake:?} at {loss}");
    }
}
