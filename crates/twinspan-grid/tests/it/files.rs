//! Viewers that ask for files and misbehave: the grid keeps its limits and ends what leads nowhere.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_grid::{FILES_PER_VISITOR_MAX, NAMED_FILES_MAX};
use twinspan_lludp::messages::{
    AbortXfer, ConfirmXferPacket, ReplyTaskInventory, RequestTaskInventory, RequestXfer,
    SendXferPacket, TransferInfo, TransferRequest,
};
use twinspan_lludp::{Uuid, Var1, Var2};
use twinspan_provider::Env;

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
