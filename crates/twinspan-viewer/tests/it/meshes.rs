//! Meshes by each capability that grids have for them, whole and in parts.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_grid::{GridConfig, GridServerConfig, MESH, TEXTURE};
use twinspan_provider::Env;
use twinspan_viewer::{AssetError, AssetKind, ByteRange, ViewerConfig};

use crate::rig::{GRID_IP, USER, World, credentials, grid_config, sleep, start_grid, start_viewer};

/// Capabilities by which a mesh is fetched, and what the grid has not, so that it is by this one.
const WAYS: [(&str, &[&str]); 3] = [
    ("ViewerAsset", &[]),
    ("GetMesh2", &["ViewerAsset"]),
    ("GetMesh", &["ViewerAsset", "GetMesh2"]),
];

/// A session in which a mesh is fetched by each way.
async fn fetch<E: Env>(grid: E, env: E, ip: IpAddr) {
    let mut whole = None;
    for (way, without) in WAYS {
        let without_capabilities = without.iter().map(|name| (*name).to_owned()).collect();
        let own = GridConfig { without_capabilities, ..GridConfig::default() };
        let config = GridServerConfig { grid: own, ..grid_config(ip) };
        let server = start_grid(&grid, config).await;
        let viewer = start_viewer(&env, ViewerConfig::default());
        let manager = &viewer.handle.network_manager;
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let core = viewer.handle.core();
        let caps = loop {
            match core.capabilities().await {
                Some(caps) => break caps,
                None => sleep(&env, Duration::from_millis(50)).await,
            }
        };
        assert!(caps.get(way).is_some() && without.iter().all(|name| caps.get(name).is_none()));
        let mesh = |range| core.fetch_asset(AssetKind::Mesh, MESH, range);
        let all = mesh(None).await.expect("sent");
        assert_eq!((all.from, all.total), (0, Some(all.bytes.len() as u64)), "{way}");
        assert!(all.bytes.starts_with(b"<? LLSD/Binary ?>"), "{way}");
        // A header, a level of detail in the middle, and the last bytes.
        let last = all.bytes.len() as u64 - 1;
        for (from, to) in [(0, Some(99)), (100, Some(300)), (last, Some(last)), (last - 40, None)] {
            let part = mesh(Some(ByteRange { from, to })).await.expect("sent");
            let end = to.unwrap_or(last) as usize + 1;
            assert_eq!(part.bytes, all.bytes[from as usize..end], "{way} {from} {to:?}");
            assert_eq!((part.from, part.total), (from, all.total), "{way}");
        }
        let beyond = mesh(Some(ByteRange { from: last + 1, to: None })).await;
        let wanted = last + 1;
        assert!(matches!(beyond, Err(AssetError::BeyondEnd { from }) if from == wanted), "{way}");
        let empty = mesh(Some(ByteRange { from: 5, to: Some(4) })).await;
        assert!(matches!(empty, Err(AssetError::EmptyRange { from: 5, to: 4 })), "{way}");
        let texture = core.fetch_asset(AssetKind::Mesh, TEXTURE, None).await;
        if way != "ViewerAsset" {
            assert!(matches!(texture, Err(AssetError::NotFound)), "{way}: {texture:?}");
        }
        let sound = core.fetch_asset(AssetKind::Sound, MESH, None).await;
        if way != "ViewerAsset" {
            assert!(matches!(sound, Err(AssetError::NoCapability { .. })), "{way}: {sound:?}");
        }
        assert_eq!(whole.get_or_insert(all.bytes.clone()), &all.bytes, "{way} gives the same");
        manager.disconnect().await;
    }
}

#[test]
fn a_mesh_comes_by_each_capability_whole_and_in_parts_at_20_percent_loss() {
    let mut world = World::new(81, Conditions { loss: 0.2, ..Conditions::WIFI });
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(fetch(grid, viewer, GRID_IP));
    assert!(world.sim.faults().effect(FaultKind::Loss) > 0);
}

#[test]
fn a_mesh_comes_by_each_capability_whole_and_in_parts_on_loopback() {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    twinspan_provider::run(|env| fetch(env.clone(), env, ip)).unwrap();
}
