//! Viewers that ask for files and misbehave: the grid keeps its limits and ends what leads nowhere.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_grid::{
    FILES_PER_VISITOR_MAX, MESH, NAMED_FILES_MAX, UDP_UPLOAD_IDLE_MAX, UDP_UPLOADS_PER_USER_MAX,
};
use twinspan_lludp::messages::{
    AbortXfer, AssetUploadComplete, AssetUploadRequest, ConfirmXferPacket, CreateInventoryItem,
    ReplyTaskInventory, RequestTaskInventory, RequestXfer, SendXferPacket, TransferInfo,
    TransferRequest, UpdateCreateInventoryItem,
};
use twinspan_lludp::{Uuid, Var1, Var2};
use twinspan_provider::Env;
use twinspan_xmlrpc::login::combined_id;

use crate::served::{Stage, near, simulated};
use crate::visitor::{Visitor, sleep};

fn ask_file<E: Env>(visitor: &Visitor<E>, id: u64, name: &str) {
    let mut ask = RequestXfer::default();
    (ask.xfer_id.id, ask.xfer_id.filename) = (id, Var1::text(name).unwrap());
    visitor.send(&ask);
}

fn confirm<E: Env>(visitor: &Visitor<E>, id: u64, packet: u32) {
    let mut confirm = ConfirmXferPacket::default();
    (confirm.xfer_id.id, confirm.xfer_id.packet) = (id, packet);
    visitor.send(&confirm);
}

#[test]
fn files_that_are_never_confirmed_end_and_are_bounded() {
    simulated(31, near(), |grid, env, ips| async move {
        let stage = Stage::set(grid, env.clone(), ips).await;
        let ruth = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
        let code = ruth.login.circuit_code;
        for id in 0..40 {
            ask_file(&ruth, id, "terrain.raw");
        }
        // Those beyond the limit are refused at once.
        let aborted = |ruth: &Visitor<_>, result| {
            let all = ruth.heard::<AbortXfer>();
            all.iter().filter(|(_, abort)| abort.xfer_id.result == result).count()
        };
        ruth.until("refusals", |ruth| aborted(ruth, -1) == 40 - FILES_PER_VISITOR_MAX).await;
        let files = || stage.server.with_grid(|grid| grid.files_of(code));
        assert_eq!(files(), (FILES_PER_VISITOR_MAX, 0));
        // Confirmations of what was never sent, of what comes later, and of somebody else's.
        for packet in [5, 900, u32::MAX] {
            confirm(&ruth, 0, packet);
        }
        confirm(&ruth, 77, 0);
        sleep(&env, Duration::from_secs(30)).await;
        let parts = ruth.heard::<SendXferPacket>();
        assert!(parts.iter().all(|(_, part)| part.xfer_id.packet == 0), "none was confirmed");
        ruth.until("the end", |ruth| aborted(ruth, -23_016) == FILES_PER_VISITOR_MAX).await;
        assert_eq!(files(), (0, 0));
        ruth.leave().await;
    });
}

#[test]
fn requests_that_mean_nothing_are_refused_and_keep_nothing() {
    simulated(32, near(), |grid, env, ips| async move {
        let stage = Stage::set(grid, env.clone(), ips).await;
        let ruth = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
        let code = ruth.login.circuit_code;
        let mut asked = 0;
        for (channel, source, len) in
            [(2, 2, 0), (2, 2, 19), (2, 2, 21), (2, 3, 99), (2, 3, 101), (2, 4, 20), (3, 2, 20)]
        {
            asked += 1;
            let mut ask = TransferRequest::default();
            let info = &mut ask.transfer_info;
            info.transfer_id = Uuid::from_u128(asked);
            (info.channel_type, info.source_type) = (channel, source);
            info.params = Var2::new(vec![7; len]).unwrap();
            ruth.send(&ask);
        }
        ruth.until("refusals", |ruth| ruth.heard::<TransferInfo>().len() as u128 == asked).await;
        let refused = ruth.heard::<TransferInfo>();
        assert!(refused.iter().all(|(_, info)| info.transfer_info.status == -2), "{refused:?}");
        assert_eq!(stage.server.with_grid(|grid| grid.files_of(code)), (0, 0));

        // A thing is asked for its list again and again: old lists are forgotten.
        for _ in 0..3 * NAMED_FILES_MAX {
            let mut ask = RequestTaskInventory::default();
            (ask.agent_data.agent_id, ask.agent_data.session_id) = ruth.ids();
            // The sign.
            ask.inventory_data.local_id = 2;
            ruth.send(&ask);
        }
        let wanted = 3 * NAMED_FILES_MAX;
        ruth.until("lists", |ruth| ruth.heard::<ReplyTaskInventory>().len() == wanted).await;
        assert_eq!(stage.server.with_grid(|grid| grid.files_of(code)), (0, NAMED_FILES_MAX));
        // Nobody else may have them.
        let max = stage.enter("Max Tester", "Alpha", [130, 128, 22]).await;
        let name =
            ruth.heard::<ReplyTaskInventory>()[wanted - 1].1.inventory_data.filename.to_text();
        ask_file(&max, 1, &name);
        max.until("a refusal", |max| {
            max.heard::<AbortXfer>().iter().any(|(_, abort)| abort.xfer_id.result == -43)
        })
        .await;
        ruth.leave().await;
        assert_eq!(stage.server.with_grid(|grid| grid.files_of(code)), (0, 0));
        max.leave().await;
    });
}

#[test]
fn losses_do_not_end_a_file_that_is_confirmed() {
    let poor = Conditions { loss: 0.3, ..near() };
    simulated(33, poor, |grid, env, ips| async move {
        let stage = Stage::set(grid, env.clone(), ips).await;
        let ruth = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
        ask_file(&ruth, 9, "terrain.raw");
        for packet in 0..60 {
            let is = |part: &SendXferPacket| part.xfer_id.packet == packet;
            ruth.until("a part", |ruth| {
                ruth.heard::<SendXferPacket>().iter().any(|(_, part)| is(part))
            })
            .await;
            confirm(&ruth, 9, packet);
        }
        ruth.leave().await;
    });
}

/// The type of sounds.
const SOUND: i8 = 1;

fn upload<E: Env>(visitor: &Visitor<E>, transaction: u128, kind: i8, data: &[u8]) -> Uuid {
    let mut ask = AssetUploadRequest::default();
    let block = &mut ask.asset_block;
    (block.transaction_id, block.r#type) = (Uuid::from_u128(transaction), kind);
    block.asset_data = Var2::new(data).unwrap();
    visitor.send(&ask);
    combined_id(Uuid::from_u128(transaction), visitor.login.secure_session_id)
}

fn part<E: Env>(visitor: &Visitor<E>, id: u64, packet: u32, data: &[u8]) {
    let mut part = SendXferPacket::default();
    (part.xfer_id.id, part.xfer_id.packet) = (id, packet);
    part.data_packet.data = Var2::new(data).unwrap();
    visitor.send(&part);
}

fn ask_item<E: Env>(visitor: &Visitor<E>, transaction: u128, kind: i8, callback_id: u32) {
    let mut ask = CreateInventoryItem::default();
    (ask.agent_data.agent_id, ask.agent_data.session_id) = visitor.ids();
    let block = &mut ask.inventory_block;
    block.transaction_id = Uuid::from_u128(transaction);
    (block.r#type, block.inv_type, block.callback_id) = (kind, kind, callback_id);
    block.name = Var1::text("Bell").unwrap();
    visitor.send(&ask);
}

/// What the grid said of an asset.
fn said<E: Env>(visitor: &Visitor<E>, asset: Uuid) -> Option<bool> {
    let all = visitor.heard::<AssetUploadComplete>();
    let mut all = all.iter().map(|(_, told)| told.asset_block);
    all.find(|told| told.uuid == asset).map(|told| told.success)
}

/// The number by which the grid fetches an asset.
async fn fetched<E: Env>(visitor: &Visitor<E>, asset: Uuid) -> u64 {
    let find = |visitor: &Visitor<E>| {
        let all = visitor.heard::<RequestXfer>();
        all.iter().find(|(_, ask)| ask.xfer_id.v_file_id == asset).map(|(_, ask)| ask.xfer_id.id)
    };
    visitor.until("a fetch", |visitor| find(visitor).is_some()).await;
    find(visitor).unwrap()
}

#[test]
fn uploads_that_mean_nothing_are_refused_and_keep_nothing() {
    simulated(34, near(), |grid, env, ips| async move {
        let stage = Stage::set(grid, env.clone(), ips).await;
        let ruth = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
        let code = ruth.login.circuit_code;
        let kept = || stage.server.with_grid(|grid| grid.uploads_of(code));
        // Types that are none or not taken, and no transaction.
        for (transaction, kind) in [(1, -1), (2, 49), (3, 99), (0, SOUND)] {
            let asset = upload(&ruth, transaction, kind, b"ding");
            ruth.until("a refusal", |ruth| said(ruth, asset) == Some(false)).await;
        }
        assert_eq!(kept(), (0, 0));
        // One that says it is longer than any, and one that is longer than it says.
        for (transaction, size) in [(10, 300_000_u32), (11, 2)] {
            let asset = upload(&ruth, transaction, SOUND, b"");
            let id = fetched(&ruth, asset).await;
            part(&ruth, id, 0, &[&size.to_le_bytes()[..], b"ding"].concat());
            ruth.until("a refusal", |ruth| said(ruth, asset) == Some(false)).await;
        }
        // One whose packets have wrong numbers: they are not heard, and nothing is confirmed.
        let asset = upload(&ruth, 12, SOUND, b"");
        let id = fetched(&ruth, asset).await;
        for packet in [1, 7, 0x8000_0001, u32::MAX] {
            part(&ruth, id, packet, b"ding");
        }
        part(&ruth, id ^ 1, 0, &[4, 0, 0, 0, b'd']);
        sleep(&env, UDP_UPLOAD_IDLE_MAX - Duration::from_secs(5)).await;
        assert_eq!((kept(), said(&ruth, asset)), ((1, 0), None));
        assert!(ruth.heard::<ConfirmXferPacket>().is_empty());
        // Nobody waits for it for ever.
        ruth.until("the end", |ruth| said(ruth, asset) == Some(false)).await;
        assert_eq!(kept(), (0, 0));
        ruth.leave().await;
    });
}

#[test]
fn uploads_are_bounded_and_their_items_are_their_owners() {
    simulated(35, near(), |grid, env, ips| async move {
        let stage = Stage::set(grid, env.clone(), ips).await;
        let ruth = stage.enter("Ruth Tester", "Alpha", [128, 128, 22]).await;
        let max = stage.enter("Max Tester", "Alpha", [130, 128, 22]).await;
        let code = ruth.login.circuit_code;
        let kept = || stage.server.with_grid(|grid| grid.uploads_of(code));
        let room = UDP_UPLOADS_PER_USER_MAX as u128;
        for transaction in 1..=room {
            let asset = upload(&ruth, transaction, SOUND, b"ding");
            ruth.until("a yes", |ruth| said(ruth, asset) == Some(true)).await;
        }
        let more = upload(&ruth, 99, SOUND, b"ding");
        ruth.until("a refusal", |ruth| said(ruth, more) == Some(false)).await;
        assert_eq!(kept(), (0, UDP_UPLOADS_PER_USER_MAX));
        // Others, other types and other transactions get no item of them.
        ask_item(&max, 1, SOUND, 5);
        ask_item(&ruth, 1, 0, 5);
        ask_item(&ruth, 77, SOUND, 5);
        ask_item(&ruth, 1, SOUND, 6);
        ask_item(&ruth, 1, SOUND, 6);
        let items = |ruth: &Visitor<_>| ruth.heard::<UpdateCreateInventoryItem>();
        ruth.until("an item", |ruth| !items(ruth).is_empty()).await;
        sleep(&env, Duration::from_secs(2)).await;
        let [(_, told)] = items(&ruth).try_into().unwrap();
        let item = &told.inventory_data[0];
        assert_eq!((item.callback_id, item.owner_id), (6, ruth.login.agent_id));
        assert_eq!(told.agent_data.transaction_id, Uuid::from_u128(1));
        assert_ne!((item.crc, item.asset_id), (0, MESH));
        assert!(max.heard::<UpdateCreateInventoryItem>().is_empty());
        assert_eq!(kept(), (0, UDP_UPLOADS_PER_USER_MAX - 1));
        // The same transaction makes the same id, and that is taken.
        let again = upload(&ruth, 1, SOUND, b"dong");
        ruth.until("a refusal", |ruth| said(ruth, again).is_some()).await;
        sleep(&env, Duration::from_secs(2)).await;
        let last = ruth.heard::<AssetUploadComplete>().last().unwrap().1.asset_block;
        assert_eq!((last.uuid, last.success), (again, false));
        // One that is fetched ends when its maker says so.
        let asset = upload(&ruth, 50, SOUND, b"");
        let id = fetched(&ruth, asset).await;
        assert_eq!(kept().0, 1);
        let mut abort = AbortXfer::default();
        abort.xfer_id.id = id;
        ruth.send(&abort);
        ruth.until("nothing", |_| kept().0 == 0).await;
        ruth.leave().await;
        assert_eq!(kept(), (0, 0));
        max.leave().await;
    });
}
