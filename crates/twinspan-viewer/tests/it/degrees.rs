//! A program that looks away: what it finds when it looks again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use twinspan_circuit::Journey;
use twinspan_core::link::Conditions;
use twinspan_grid::GridServer;
use twinspan_lludp::messages::TestMessage;
use twinspan_lludp::{AnyMessage, Vector3};
use twinspan_provider::TaskProvider;
use twinspan_sim::SimEnv;
use twinspan_viewer::{EVENTS_KEPT, NetworkEvent, NetworkStatus, ViewerConfig};

use crate::rig::{GRID_IP, USER, World, credentials, grid_config, sleep, start_grid, start_viewer};

/// Sends the only visitor more messages than may wait for a subscriber.
async fn flood(env: &SimEnv, server: &GridServer<SimEnv>) {
    const BATCH: usize = 64;
    let batch: Vec<AnyMessage> = vec![TestMessage::default().into(); BATCH];
    for _ in 0..EVENTS_KEPT.div_ceil(BATCH) + 1 {
        server.act(|grid, now| {
            let code = grid.codes().next().expect("somebody is there");
            grid.send_reliable(now, code, &batch).expect("there is room");
        });
        sleep(env, Duration::from_millis(200)).await;
    }
}

/// What matters of events, in words.
fn word(event: &NetworkEvent) -> Option<String> {
    Some(match event {
        NetworkEvent::StatusChanged { new, .. } => new.to_string(),
        NetworkEvent::Connected { session } => format!("welcome, {}", session.first_name),
        NetworkEvent::RegionEntered { journey: Journey::Login, .. } => "began".into(),
        NetworkEvent::RegionEntered { journey, .. } => format!("arrived by {journey:?}"),
        NetworkEvent::Disconnected { .. } => "left".into(),
        _ => return None,
    })
}

#[test]
fn who_looks_away_misses_messages_and_no_journey_nor_end() {
    let mut world = World::new(71, Conditions { loss: 0.05, ..Conditions::WIFI });
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let server = start_grid(&grid, grid_config(GRID_IP)).await;
        let mut slow = start_viewer(&viewer, ViewerConfig::default());
        let manager = slow.handle.network_manager.clone();
        let mut quick = manager.subscribe();
        let told = Rc::new(Cell::new(0));
        let counted = Rc::clone(&told);
        let _counter = viewer.spawn("quick", async move {
            while let Ok(event) = quick.recv().await {
                assert!(!matches!(event, NetworkEvent::Lagged { .. }), "it is quick enough");
                counted.set(counted.get() + 1);
            }
        });
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        flood(&viewer, &server).await;
        let there = Vector3::new(128.0, 128.0, 25.0);
        slow.handle.bot().teleport_to("Gamma", there).await.expect("there");
        flood(&viewer, &server).await;
        manager.disconnect().await;
        assert_eq!(manager.status(), NetworkStatus::Disconnected);
        sleep(&viewer, Duration::from_secs(1)).await;
        let laggards = manager.laggards();
        let all: Vec<NetworkEvent> = std::iter::from_fn(|| slow.events.try_recv()).collect();
        let words: Vec<String> = all.iter().filter_map(word).collect();
        let wanted = [
            "authenticating",
            "connecting",
            "connected",
            "welcome, Ruth",
            "began",
            "arrived by Teleport",
            "disconnecting",
            "disconnected",
            "left",
        ];
        assert_eq!(words, wanted);
        let missed: Vec<u64> = all
            .iter()
            .filter_map(|event| match event {
                NetworkEvent::Lagged { missed } => Some(*missed),
                _ => None,
            })
            .collect();
        let [missed] = missed.try_into().expect("told once");
        assert!(missed > EVENTS_KEPT as u64, "{missed}");
        assert_eq!(all.len() - 1, EVENTS_KEPT, "all of the room was taken");
        assert_eq!(missed + EVENTS_KEPT as u64, told.get(), "each was kept or counted");
        assert_eq!(laggards.iter().map(|one| one.missed).collect::<Vec<_>>(), [missed]);
    });
}
