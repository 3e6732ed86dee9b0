//! Files over UDP and uploads, against the grid: all bytes, or a failure with a name.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_grid::{
    FILES_PER_VISITOR_MAX, GridConfig, GridServer, GridServerConfig, NOTECARD, TEXTURE,
};
use twinspan_lludp::{Uuid, Vector3};
use twinspan_provider::Env;
use twinspan_viewer::{
    AssetKind, BotError, ClientHandle, CoreHandle, InventoryOwner, NewFile, SeenObject,
    TransferError, TransferRequest, UploadError, UploadKind, UploadWay, UploadedFile, ViewerConfig,
};

use crate::rig::{
    GRID_IP, OTHER, USER, Visit, World, credentials, grid_config, sleep, start_grid, start_viewer,
    within,
};

/// Types as the protocol has them.
const TYPE_SOUND: i32 = 1;
const TYPE_NOTECARD: i32 = 7;
/// Bytes of a region's ground: 13 for each of 256 by 256 points.
const TERRAIN_BYTES: usize = 851_968;

/// Bytes that show what is missing or in the wrong place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

fn sound(name: &str) -> NewFile {
    let (name, description) = (name.to_owned(), "made by a test".to_owned());
    NewFile { kind: UploadKind::Sound, name, description, folder: None }
}

async fn upload<E: Env>(env: &E, core: &CoreHandle, len: usize) -> UploadedFile {
    while core.capabilities().await.is_none() {
        sleep(env, Duration::from_millis(100)).await;
    }
    core.upload(sound("Bell"), pattern(len)).await.expect("uploaded")
}

/// The thing of this text.
async fn thing<E: Env>(env: &E, handle: &ClientHandle, text: &str) -> SeenObject {
    loop {
        let near = handle.bot().objects_within(200.0).await.expect("connected");
        if let Some(found) = near.into_iter().find(|object| object.text == text) {
            return found;
        }
        sleep(env, Duration::from_millis(100)).await;
    }
}

/// The id after a word in a list of what is in an object.
fn id_after(list: &str, word: &str) -> Uuid {
    let rest = list.split(&format!("\t{word}\t")).nth(1).expect("the word is there");
    rest.split('\n').next().expect("a line").parse().expect("an id")
}

/// All bytes, or a failure that losses explain.
fn whole_or_late(got: &Result<Vec<u8>, TransferError>, wanted: &[u8]) -> bool {
    match got {
        Ok(bytes) => {
            assert!(bytes == wanted, "{} bytes of {}", bytes.len(), wanted.len());
            true
        }
        Err(TransferError::TimedOut | TransferError::Aborted { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

/// Fetches by every way that there is; how many of them gave all bytes.
async fn fetch_all<E: Env>(env: &E, handle: &ClientHandle, terrain: bool) -> (u32, u32) {
    let (core, bot) = (handle.core(), handle.bot());
    let me = handle.network_manager.session().expect("a session").agent_id;
    let (mut asked, mut whole) = (0, 0);
    let mut count = |is_whole: bool| {
        asked += 1;
        whole += u32::from(is_whole);
    };

    // An asset, by its id.
    let bytes = pattern(120_001);
    let uploaded = upload(env, core, bytes.len()).await;
    let asset = TransferRequest::Asset { id: uploaded.asset_id, kind: TYPE_SOUND };
    count(whole_or_late(&core.transfer(asset).await, &bytes));

    // The same, as an item of the inventory.
    let item = TransferRequest::InventoryItem {
        owner_id: me,
        task_id: Uuid::nil(),
        item_id: uploaded.item_id,
        asset_id: uploaded.asset_id,
        kind: TYPE_SOUND,
    };
    count(whole_or_late(&core.transfer(item).await, &bytes));

    // What is in a thing, and the notecard that is.
    let sign = thing(env, handle, "Sign").await;
    match bot.contents(sign.id).await {
        Ok(list) => {
            let list = String::from_utf8(list).expect("a text");
            assert!(list.contains("Read me") && list.ends_with('\0'), "{list}");
            count(true);
            let item = TransferRequest::InventoryItem {
                owner_id: Uuid::nil(),
                task_id: sign.id,
                item_id: id_after(&list, "item_id"),
                asset_id: id_after(&list, "asset_id"),
                kind: TYPE_NOTECARD,
            };
            let card = core.transfer(item).await;
            if let Ok(card) = &card {
                assert!(card.starts_with(b"Linden text version 2\n"), "{card:?}");
            }
            count(card.is_ok());
        }
        Err(BotError::Transfer(TransferError::TimedOut | TransferError::Aborted { .. })) => {
            count(false);
        }
        Err(other) => panic!("{other}"),
    }
    let bench = thing(env, handle, "Bench").await;
    assert_eq!(bot.contents(bench.id).await, Ok(Vec::new()), "nothing is in it");

    // The ground, a thousand packets that are confirmed one by one.
    if terrain {
        let ground = core.transfer(TransferRequest::Terrain).await;
        let wanted: Vec<u8> = [21, 128, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].repeat(256 * 256);
        assert_eq!(wanted.len(), TERRAIN_BYTES);
        count(whole_or_late(&ground, &wanted));
    }
    (asked, whole)
}

#[test]
fn files_come_whole_at_losses_up_to_30_percent() {
    for (seed, loss) in [(41, 0.0), (42, 0.1), (43, 0.2), (44, 0.3)] {
        let mut world = World::new(seed, Conditions { loss, ..Conditions::WIFI });
        let Visit { server, handle, task, .. } = world.log_in(ViewerConfig::default());
        let viewer = world.viewer.clone();
        let (asked, whole, left) = world.run(async move {
            let (asked, whole) = fetch_all(&viewer, &handle, loss < 0.2).await;
            sleep(&viewer, Duration::from_secs(10)).await;
            let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
            let left = server.with_grid(|grid| grid.files_of(code));
            handle.network_manager.disconnect().await;
            drop(task);
            (asked, whole, left)
        });
        assert_eq!(whole, asked, "at a loss of {loss}");
        assert_eq!(left, (0, 0), "the grid keeps nothing of what arrived");
        assert_eq!(world.sim.faults().effect(FaultKind::Loss) > 0, loss > 0.0);
    }
}

#[test]
fn files_come_whole_on_loopback() {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let counts = twinspan_provider::run(move |env| async move {
        let server = start_grid(&env, grid_config(ip)).await;
        let viewer = start_viewer(&env, ViewerConfig::default());
        let manager = viewer.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let counts = fetch_all(&env, &viewer.handle, false).await;
        manager.disconnect().await;
        counts
    });
    assert_eq!(counts.unwrap(), (4, 4));
}

fn asset(id: Uuid, kind: i32) -> TransferRequest {
    TransferRequest::Asset { id, kind }
}

#[test]
fn what_may_not_be_fetched_is_refused_by_name() {
    let mut world = World::new(45, Conditions::CLEAN);
    let Visit { server, handle, task, .. } = world.log_in(ViewerConfig::default());
    let viewer = world.viewer.clone();
    world.run(async move {
        let core = handle.core();
        let nothing = Uuid::from_u128(0x1234);
        let refused = |request| core.transfer(request);
        assert_eq!(refused(asset(nothing, 0)).await, Err(TransferError::NotFound));
        assert_eq!(refused(asset(TEXTURE, 99)).await, Err(TransferError::NotFound));
        // Notecards are given to those who have an item of them.
        let card = asset(NOTECARD, TYPE_NOTECARD);
        assert_eq!(refused(card).await, Err(TransferError::NotPermitted));
        let others = TransferRequest::InventoryItem {
            owner_id: nothing,
            task_id: Uuid::nil(),
            item_id: nothing,
            asset_id: NOTECARD,
            kind: TYPE_NOTECARD,
        };
        assert_eq!(refused(others).await, Err(TransferError::NotPermitted));
        let sign = thing(&viewer, &handle, "Sign").await;
        let forged = TransferRequest::InventoryItem {
            owner_id: Uuid::nil(),
            task_id: sign.id,
            item_id: nothing,
            asset_id: NOTECARD,
            kind: TYPE_NOTECARD,
        };
        assert_eq!(refused(forged).await, Err(TransferError::NotFound));
        let file = TransferRequest::File { name: "passwd".into(), delete: false };
        assert_eq!(refused(file).await, Err(TransferError::NotFound));
        assert_eq!(handle.bot().contents(nothing).await, Err(BotError::NoObject));
        drop((server, task));
    });
}

/// Begins to fetch the ground as often as asked, and waits until all of it is under way.
async fn many_grounds<E: Env>(
    env: &E,
    server: &GridServer<E>,
    core: &CoreHandle,
    count: usize,
) -> Vec<tokio::sync::oneshot::Receiver<Result<Vec<u8>, TransferError>>> {
    let mut answers = Vec::new();
    for _ in 0..count {
        let (tell, told) = tokio::sync::oneshot::channel();
        let core = core.clone();
        let work = env.spawn("fetch", async move {
            let file = TransferRequest::File { name: "terrain.raw".into(), delete: false };
            let _ = tell.send(core.transfer(file).await);
        });
        // It ends by itself.
        std::mem::forget(work);
        answers.push(told);
    }
    let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
    let wanted = count.min(FILES_PER_VISITOR_MAX);
    while server.with_grid(|grid| grid.files_of(code).0) < wanted {
        sleep(env, Duration::from_millis(10)).await;
    }
    answers
}

#[test]
fn a_region_sends_so_many_files_at_a_time_and_refuses_more() {
    let mut world =
        World::new(46, Conditions { delay: Duration::from_millis(50), ..Conditions::CLEAN });
    let Visit { server, handle, task, .. } = world.log_in(ViewerConfig::default());
    let viewer = world.viewer.clone();
    world.run(async move {
        let count = FILES_PER_VISITOR_MAX + 3;
        let answers = many_grounds(&viewer, &server, handle.core(), count).await;
        let (mut whole, mut refused) = (0, 0);
        for answer in answers {
            match answer.await.expect("an answer") {
                Ok(bytes) => {
                    assert_eq!(bytes.len(), TERRAIN_BYTES);
                    whole += 1;
                }
                Err(TransferError::Aborted { code: -1 }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((whole, refused), (FILES_PER_VISITOR_MAX, 3));
        drop(task);
    });
}

#[test]
fn a_region_that_gives_up_or_goes_away_ends_its_transfers() {
    let mut world =
        World::new(47, Conditions { delay: Duration::from_millis(50), ..Conditions::CLEAN });
    let Visit { server, handle, bot, task, .. } = world.log_in(ViewerConfig::default());
    let viewer = world.viewer.clone();
    world.run(async move {
        let answers = many_grounds(&viewer, &server, handle.core(), 3).await;
        server.act(|grid, now| {
            let code = grid.codes().next().expect("somebody");
            grid.abort_files(now, code);
        });
        for answer in answers {
            let outcome = answer.await.expect("an answer");
            assert!(matches!(outcome, Err(TransferError::Aborted { .. })), "{outcome:?}");
        }
        // The avatar leaves in the middle of it.
        let answers = many_grounds(&viewer, &server, handle.core(), 3).await;
        bot.teleport_to("Gamma", Vector3::new(100.0, 100.0, 25.0)).await.expect("arrived");
        for answer in answers {
            assert_eq!(answer.await.expect("an answer"), Err(TransferError::RegionLost));
        }
        let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
        assert_eq!(server.with_grid(|grid| grid.files_of(code)), (0, 0));
        drop(task);
    });
}

#[test]
fn what_is_uploaded_is_an_item_of_the_inventory_and_fetched_over_http() {
    let mut world = World::new(48, Conditions { loss: 0.1, ..Conditions::WIFI });
    let Visit { server, handle, task, .. } = world.log_in(ViewerConfig::default());
    let viewer = world.viewer.clone();
    world.run(async move {
        let core = handle.core();
        let uploaded = upload(&viewer, core, 50_000).await;
        let got = core.fetch_asset(AssetKind::Sound, uploaded.asset_id, None).await.expect("sent");
        assert!(got.bytes == pattern(50_000));
        let session = handle.network_manager.session().expect("a session");
        let sounds = session.inventory.iter().find(|folder| folder.name == "Sounds");
        let sounds = sounds.expect("the folder is there").folder_id;
        let owner = InventoryOwner::Agent;
        let fetched = core.fetch_folders(owner, vec![sounds]).await.expect("told");
        let item = &fetched.folders[0].items[0];
        assert_eq!((item.id, item.asset_id), (uploaded.item_id, uploaded.asset_id));
        assert_eq!((item.name.as_str(), item.description.as_str()), ("Bell", "made by a test"));

        // What cannot be is refused by name, before or by the grid.
        let empty = core.upload(sound("Nothing"), Vec::new()).await;
        assert!(matches!(empty, Err(UploadError::Length { bytes: 0 })), "{empty:?}");
        let nameless = core.upload(sound(" "), pattern(10)).await;
        assert!(
            matches!(&nameless, Err(UploadError::Refused { reason }) if reason == "it has no name"),
            "{nameless:?}"
        );
        let folder = NewFile { folder: Some(Uuid::from_u128(5)), ..sound("Bell") };
        let nowhere = core.upload(folder, pattern(10)).await;
        assert!(matches!(nowhere, Err(UploadError::Refused { .. })), "{nowhere:?}");
        handle.network_manager.disconnect().await;
        let gone = core.upload(sound("Bell"), pattern(10)).await;
        assert!(matches!(gone, Err(UploadError::NotConnected)), "{gone:?}");
        drop((server, task));
    });
}

/// Uploads over UDP what fits in a request, what fits just not, and more; fetches each again.
async fn upload_over_udp<E: Env>(env: &E, core: &CoreHandle) {
    while core.capabilities().await.is_none() {
        sleep(env, Duration::from_millis(100)).await;
    }
    let me = core.session().expect("a session").agent_id;
    for len in [1, 1_000, 1_001, 70_000] {
        let (name, bytes) = (format!("Bell of {len}"), pattern(len));
        let uploaded = core.upload_by(UploadWay::Udp, sound(&name), bytes.clone()).await;
        let uploaded = uploaded.unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        assert_eq!(uploaded.by, UploadWay::Udp);
        let item = TransferRequest::InventoryItem {
            owner_id: me,
            task_id: Uuid::nil(),
            item_id: uploaded.item_id,
            asset_id: uploaded.asset_id,
            kind: TYPE_SOUND,
        };
        assert_eq!(core.transfer(item).await.as_deref(), Ok(bytes.as_slice()), "{len} bytes");
        let fetched = core.fetch_asset(AssetKind::Sound, uploaded.asset_id, None).await;
        assert_eq!(fetched.expect("fetched").bytes, bytes);
    }
    // The items are where their kind belongs.
    let session = core.session().expect("a session");
    let folder = session.inventory.iter().find(|folder| folder.type_default == TYPE_SOUND);
    let folder = folder.expect("a folder of sounds").folder_id;
    let found = core.fetch_folders(InventoryOwner::Agent, vec![folder]).await.expect("fetched");
    let names: Vec<&str> = found.folders[0].items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["Bell of 1", "Bell of 1000", "Bell of 1001", "Bell of 70000"]);
}

#[test]
fn assets_go_over_udp_whole_at_losses_up_to_30_percent() {
    for (seed, loss) in [(51, 0.0), (52, 0.1), (53, 0.3)] {
        let mut world = World::new(seed, Conditions { loss, ..Conditions::WIFI });
        let Visit { server, handle, task, .. } = world.log_in(ViewerConfig::default());
        let viewer = world.viewer.clone();
        let left = world.run(async move {
            upload_over_udp(&viewer, handle.core()).await;
            let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
            let left = server.with_grid(|grid| grid.uploads_of(code));
            handle.network_manager.disconnect().await;
            drop(task);
            left
        });
        assert_eq!(left, (0, 0), "the grid keeps nothing of what became items");
        assert_eq!(world.sim.faults().effect(FaultKind::Loss) > 0, loss > 0.0);
    }
}

#[test]
fn assets_go_over_udp_on_loopback() {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let done = twinspan_provider::run(move |env| async move {
        let server = start_grid(&env, grid_config(ip)).await;
        let viewer = start_viewer(&env, ViewerConfig::default());
        let manager = viewer.handle.network_manager.clone();
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        upload_over_udp(&env, viewer.handle.core()).await;
        manager.disconnect().await;
    });
    done.unwrap();
}

#[test]
fn the_capability_is_used_where_it_is_there_and_what_the_grid_refuses_has_a_name() {
    let far = Conditions { delay: Duration::from_millis(20), ..Conditions::CLEAN };
    let mut world = World::new(54, far);
    let Visit { server, handle, task, .. } = world.log_in(ViewerConfig::default());
    let viewer = world.viewer.clone();
    world.run(async move {
        let core = handle.core();
        assert_eq!(upload(&viewer, core, 10).await.by, UploadWay::Capability);
        let udp = |file, len| core.upload_by(UploadWay::Udp, file, pattern(len));
        let empty = udp(sound("Nothing"), 0).await;
        assert!(matches!(empty, Err(UploadError::Length { bytes: 0 })), "{empty:?}");
        // More than the grid takes of one: it stops at the first packet.
        let long = udp(sound("Long"), (256 << 10) + 1).await;
        assert!(matches!(long, Err(UploadError::Aborted { .. })), "{long:?}");
        // It has the asset, and makes no item without a name.
        let nameless = udp(sound(" "), 10).await;
        assert!(matches!(nameless, Err(UploadError::TimedOut)), "{nameless:?}");
        // Whoever gives up leaves nothing behind.
        let limit = Duration::from_millis(500);
        let given_up = within(&viewer, limit, udp(sound("Long"), 200_000)).await;
        assert!(given_up.is_none(), "it takes longer");
        sleep(&viewer, Duration::from_secs(7)).await;
        let code = server.with_grid(|grid| grid.codes().next().expect("somebody"));
        assert_eq!(server.with_grid(|grid| grid.uploads_of(code).0), 0);
        let next = udp(sound("Bell"), 10).await;
        assert!(next.is_ok(), "{next:?}");
        handle.network_manager.disconnect().await;
        let gone = udp(sound("Bell"), 10).await;
        assert!(matches!(gone, Err(UploadError::NotConnected)), "{gone:?}");
        drop(task);
    });
}

#[test]
fn assets_go_over_udp_where_the_region_has_no_capability_for_them() {
    let mut world = World::new(55, Conditions { loss: 0.05, ..Conditions::WIFI });
    let (grid, viewer) = (world.grid.clone(), world.viewer.clone());
    world.run(async move {
        let without_capabilities = vec!["NewFileAgentInventory".to_owned()];
        let own = GridConfig { without_capabilities, ..GridConfig::default() };
        let config = GridServerConfig { grid: own, ..grid_config(GRID_IP) };
        let server = start_grid(&grid, config).await;
        let started = start_viewer(&viewer, ViewerConfig::default());
        let manager = &started.handle.network_manager;
        manager.connect(credentials(USER, server.login_url())).await.expect("let in");
        let core = started.handle.core();
        assert_eq!(upload(&viewer, core, 3_000).await.by, UploadWay::Udp);
        let refused = core.upload_by(UploadWay::Capability, sound("Bell"), pattern(10)).await;
        assert!(matches!(refused, Err(UploadError::NoCapability)), "{refused:?}");
        manager.disconnect().await;
    });
}

#[test]
fn an_avatar_does_not_see_what_another_uploaded() {
    let mut world = World::new(49, Conditions::CLEAN);
    let Visit { server, handle, task, .. } = world.log_in(ViewerConfig::default());
    let viewer = world.viewer.clone();
    world.run(async move {
        let uploaded = upload(&viewer, handle.core(), 10).await;
        let other = start_viewer(&viewer, ViewerConfig::default());
        let manager = &other.handle.network_manager;
        manager.connect(credentials(OTHER, server.login_url())).await.expect("let in");
        let me = handle.network_manager.session().expect("a session").agent_id;
        for owner_id in [me, manager.session().expect("a session").agent_id] {
            let item = TransferRequest::InventoryItem {
                owner_id,
                task_id: Uuid::nil(),
                item_id: uploaded.item_id,
                asset_id: uploaded.asset_id,
                kind: TYPE_SOUND,
            };
            let refused = other.handle.core().transfer(item).await;
            let wanted =
                if owner_id == me { TransferError::NotPermitted } else { TransferError::NotFound };
            assert_eq!(refused, Err(wanted));
        }
        drop(task);
    });
}
