//! What OpenSimulator answers: grid information, features, event queues in its words.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::QueueEvent;
use twinspan_core::link::Conditions;
use twinspan_lludp::Uuid;
use twinspan_viewer::{
    Batch, Capabilities, FeaturesError, GRID_INFO_KEPT, Grid, GridInfoError, ViewerConfig,
    circuit_event,
};

use crate::rig::{GRID_IP, USER, World, credentials, grid_config, sleep, start_grid, start_viewer};

#[test]
fn a_grid_tells_about_itself_once_an_hour_with_a_session_and_without() {
    let mut world = World::new(51, Conditions { loss: 0.1, ..Conditions::WIFI });
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let mut config = grid_config(GRID_IP);
        config.name = "Ours & <yours>".into();
        let server = start_grid(&grid, config).await;
        let started = start_viewer(&viewer, ViewerConfig::default());
        let manager = started.handle.network_manager.clone();
        let here = Grid::OpenSim(server.login_url().to_owned());
        let requests = || server.http_stats().requests;

        let info = manager.grid_info(here.clone()).await.expect("told");
        assert_eq!(info.name.as_deref(), Some("Ours & <yours>"));
        assert_eq!(info.platform.as_deref(), Some("Twinspan"));
        let login = info.login_grid().expect("a login").login_uri().expect("an address");
        assert_eq!(login.as_str(), server.login_url());
        let asked = requests();
        assert_eq!(manager.grid_info(here.clone()).await.expect("known"), info);
        assert_eq!(requests(), asked);

        // With a session the same is known, and what is too old is asked for again.
        manager.connect(credentials(USER, login.as_str())).await.expect("let in");
        assert_eq!(manager.grid_info(here.clone()).await.expect("known"), info);
        let features = loop {
            match started.handle.core().simulator_features().await {
                Ok(features) => break features,
                // The seed has not answered yet.
                Err(FeaturesError::NotConnected) => sleep(&viewer, Duration::from_secs(1)).await,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(features.mesh_rez && !features.mesh_upload);
        assert_eq!(features.chat_ranges(), [10.0, 20.0, 100.0]);
        let extras = features.opensim.expect("a grid such as OpenSimulator's");
        assert_eq!(extras.grid_name.as_deref(), Some("Ours & <yours>"));
        manager.disconnect().await;

        let asked = requests();
        sleep(&viewer, GRID_INFO_KEPT / 4).await;
        manager.grid_info(here.clone()).await.expect("known");
        assert_eq!(requests(), asked);
    });
}

#[test]
fn what_was_told_an_hour_ago_is_asked_for_again() {
    let mut world = World::new(52, Conditions::CLEAN);
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    let started = start_viewer(&viewer, ViewerConfig::default());
    let manager = started.handle.network_manager.clone();
    let (first, config) = (manager.clone(), grid_config(GRID_IP));
    let (server, here) = world.run(async move {
        let server = start_grid(&grid, config).await;
        let here = Grid::OpenSim(server.login_url().to_owned());
        first.grid_info(here.clone()).await.expect("told");
        (server, here)
    });
    let asked = server.http_stats().requests;
    world.sim.run_for(GRID_INFO_KEPT);
    world.run(async move {
        manager.grid_info(here).await.expect("told again");
        assert_eq!(server.http_stats().requests, asked + 1);
    });
}

#[test]
fn a_grid_that_does_not_tell_is_a_reason() {
    let mut world = World::new(53, Conditions::CLEAN);
    let viewer = world.viewer.clone();
    world.run(async move {
        let started = start_viewer(&viewer, ViewerConfig::default());
        let manager = started.handle.network_manager.clone();
        let none = manager.grid_info(Grid::SecondLifeMain).await;
        assert!(matches!(&none, Err(GridInfoError::NotTold { grid }) if grid == "Second Life"));
        let nobody = Grid::OpenSim(format!("http://{GRID_IP}:9/"));
        let failed = manager.grid_info(nobody).await;
        assert!(matches!(failed, Err(GridInfoError::Http(_))), "{failed:?}");
        let wrong = manager.grid_info(Grid::OpenSim("ftp://a/".into())).await;
        assert!(matches!(wrong, Err(GridInfoError::Address(_))), "{wrong:?}");
        let core = started.handle.core();
        assert!(matches!(core.simulator_features().await, Err(FeaturesError::NotConnected)));
    });
}

/// An answer of an event queue as OpenSimulator writes it: without a declaration, handles and
/// addresses as bytes, sizes of regions as numbers here and as bytes there.
const QUEUE: &str = "<llsd><map><key>events</key><array>\
    <map><key>message</key><string>EnableSimulator</string><key>body</key><map>\
    <key>SimulatorInfo</key><array><map><key>Handle</key><binary>AAPoAAAD6QA=</binary>\
    <key>IP</key><binary>CgAAAg==</binary><key>Port</key><integer>9001</integer>\
    <key>RegionSizeX</key><integer>512</integer><key>RegionSizeY</key><binary>AAACAA==</binary>\
    </map></array></map></map>\
    <map><key>message</key><string>EstablishAgentCommunication</string><key>body</key><map>\
    <key>agent-id</key><uuid>00000000-0000-0000-0000-000000000007</uuid>\
    <key>sim-ip-and-port</key><string>10.0.0.2:9001</string>\
    <key>seed-capability</key><string>http://10.0.0.2:9001/CAPS/b7/</string>\
    <key>region-handle</key><binary>AAPoAAAD6QA=</binary>\
    <key>region-size-x</key><integer>512</integer><key>region-size-y</key><integer>512</integer>\
    </map></map>\
    <map><key>message</key><string>TeleportFinish</string><key>body</key><map><key>Info</key>\
    <array><map><key>AgentID</key><uuid>00000000-0000-0000-0000-000000000007</uuid>\
    <key>LocationID</key><integer>4</integer><key>RegionHandle</key><binary>AAPoAAAD6QA=</binary>\
    <key>SeedCapability</key><string>http://10.0.0.2:9001/CAPS/b7/</string>\
    <key>SimAccess</key><integer>13</integer><key>SimIP</key><binary>CgAAAg==</binary>\
    <key>SimPort</key><integer>9001</integer><key>TeleportFlags</key><integer>16</integer>\
    <key>RegionSizeX</key><integer>512</integer><key>RegionSizeY</key><integer>512</integer>\
    </map></array></map></map>\
    <map><key>message</key><string>CrossedRegion</string><key>body</key><map>\
    <key>Info</key><array><map><key>LookAt</key><array><real>1</real><real>0</real><real/></array>\
    <key>Position</key><array><real>0.5</real><real>128</real><real>25</real></array></map></array>\
    <key>AgentData</key><array><map>\
    <key>AgentID</key><uuid>00000000-0000-0000-0000-000000000007</uuid>\
    <key>SessionID</key><uuid/></map></array>\
    <key>RegionData</key><array><map><key>RegionHandle</key><binary>AAPoAAAD6QA=</binary>\
    <key>SeedCapability</key><string>http://10.0.0.2:9001/CAPS/b7/</string>\
    <key>SimIP</key><binary>CgAAAg==</binary><key>SimPort</key><integer>9001</integer>\
    <key>RegionSizeX</key><integer>512</integer></map></array></map></map>\
    <map><key>message</key><string>ParcelProperties</string><key>body</key><map>\
    <key>ParcelData</key><array><map><key>Area</key><integer>65536</integer></map></array></map></map>\
    </array><key>id</key><integer>11405770</integer></map></llsd>";

#[test]
fn an_event_queue_of_opensimulator_is_understood() {
    let batch = Batch::read(QUEUE.as_bytes()).unwrap();
    assert_eq!((batch.messages.len(), batch.broken), (5, 0));
    assert_eq!(batch.id.to_i64(), Some(11_405_770));
    let addr: SocketAddr = ([10, 0, 0, 2], 9_001).into();
    // Metres of its corner: 256,000 and 256,256.
    let handle = (256_000_u64 << 32) | 256_256;
    let seed = twinspan_circuit::Seed::new("http://10.0.0.2:9001/CAPS/b7/");
    let told: Vec<_> = batch
        .messages
        .iter()
        .filter_map(|message| circuit_event(message, Uuid::from_u128(7)))
        .collect();
    let wanted = [
        QueueEvent::EnableSimulator { addr, handle },
        QueueEvent::EstablishAgentCommunication { addr, seed: seed.clone().unwrap() },
        QueueEvent::TeleportFinish { addr, handle, seed: seed.clone() },
        QueueEvent::CrossedRegion { addr, handle, seed },
    ];
    assert_eq!(told, wanted.map(Ok));
}

#[test]
fn a_seed_of_opensimulator_is_understood_whatever_it_says_it_is() {
    // It comes as text/html, and without a declaration.
    let seed = "<llsd><map><key>EventQueueGet</key><string>http://10.0.0.2:9000/CE/1</string>\
        <key>SimulatorFeatures</key><string>http://10.0.0.2:9000/CAPS/2</string>\
        <key>UploadBakedTexture</key><string></string></map></llsd>";
    let caps = Capabilities::read(seed.as_bytes()).unwrap();
    assert_eq!(caps.names().collect::<Vec<_>>(), ["EventQueueGet", "SimulatorFeatures"]);
}
