//! Assets that viewers upload over UDP: taken in the request itself, or fetched packet by packet; an
//! item is made of them when its owner asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use twinspan_circuit::SendOptions;
use twinspan_core::time::Timestamp;
use twinspan_lludp::Uuid;
use twinspan_lludp::messages::{AssetUploadComplete, ConfirmXferPacket, RequestXfer};
use twinspan_xmlrpc::login::combined_id;

use crate::assets::{AssetKind, UPLOADED_BYTES_MAX};
use crate::config::RegionId;
use crate::files::{LAST_PACKET, SILENCE, TOO_MANY};
use crate::grid::Grid;
use crate::inventory;
use crate::uploads::Wish;

/// Bytes of an asset that is uploaded over UDP.
pub const UDP_UPLOAD_BYTES_MAX: usize = 256 << 10;
/// Assets that somebody may be uploading over UDP, or that wait for him to ask for their items.
pub const UDP_UPLOADS_PER_USER_MAX: usize = 4;
/// How long the next packet of an upload is waited for.
pub const UDP_UPLOAD_IDLE_MAX: Duration = Duration::from_secs(60);
/// How long an upload may take in all, and wait for its item.
pub const UDP_UPLOAD_TIME_MAX: Duration = Duration::from_mins(10);
/// Words about uploads are tried for longer than others.
const OPTIONS: SendOptions = SendOptions::RELIABLE.within(Duration::from_secs(20));

/// How far an upload is.
#[derive(Debug)]
enum Stage {
    /// Its packets come one by one.
    Coming {
        xfer: u64,
        bytes: Vec<u8>,
        /// How long it is to be, once that is known.
        size: Option<usize>,
        /// The packet that comes next.
        next: u32,
    },
    /// All of it is there, and its owner is to say what its item is called.
    Ready(Arc<[u8]>),
}

#[derive(Debug)]
struct Upload {
    region: RegionId,
    kind: AssetKind,
    asset_id: Uuid,
    stage: Stage,
    until: Timestamp,
    /// When it is over, whatever still comes.
    over: Timestamp,
}

impl Upload {
    /// Bytes that it takes, or is to take.
    fn room(&self) -> usize {
        match &self.stage {
            Stage::Coming { size, .. } => size.unwrap_or(0),
            Stage::Ready(bytes) => bytes.len(),
        }
    }
}

/// A viewer's word that an asset is to be uploaded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UploadAsk {
    pub(crate) transaction_id: Uuid,
    pub(crate) kind: i8,
    /// The asset, where it is short.
    pub(crate) data: Vec<u8>,
}

/// A viewer's word on what an item of an upload is to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ItemAsk {
    pub(crate) transaction_id: Uuid,
    pub(crate) callback_id: u32,
    pub(crate) kind: i8,
    pub(crate) folder_id: Uuid,
    pub(crate) name: String,
    pub(crate) description: String,
}

/// What came of a packet.
enum Step {
    /// There are more to come.
    More,
    /// It was the last one.
    All(Arc<[u8]>),
    /// It is none of a good upload.
    Broken,
}

/// Uploads over UDP, by circuit code and transaction.
#[derive(Debug, Default)]
pub(crate) struct Intake(BTreeMap<(u32, Uuid), Upload>);

impl Intake {
    fn of(&self, code: u32) -> impl Iterator<Item = (&(u32, Uuid), &Upload)> {
        self.0.range((code, Uuid::nil())..=(code, Uuid::max()))
    }

    fn find(&self, region: RegionId, code: u32, xfer: u64) -> Option<(u32, Uuid)> {
        let mut mine = self.of(code);
        let is_it = |stage: &Stage| matches!(stage, Stage::Coming { xfer: id, .. } if *id == xfer);
        let found = mine.find(|(_, one)| one.region == region && is_it(&one.stage));
        found.map(|(key, _)| *key)
    }

    /// How many of somebody's come, and how many wait for their items.
    pub(crate) fn count(&self, code: u32) -> (usize, usize) {
        let all = self.of(code).count();
        let coming = self.of(code).filter(|(_, one)| matches!(one.stage, Stage::Coming { .. }));
        let coming = coming.count();
        (coming, all - coming)
    }

    /// Somebody is no more in a region: what he was uploading there ends.
    pub(crate) fn leave(&mut self, region: RegionId, code: u32) {
        let ends = |one: &Upload| one.region == region && matches!(one.stage, Stage::Coming { .. });
        self.0.retain(|key, one| key.0 != code || !ends(one));
    }

    /// Somebody is no more on the grid.
    pub(crate) fn forget(&mut self, code: u32) {
        self.0.retain(|key, _| key.0 != code);
    }

    /// When uploads to a region are to be looked after.
    pub(crate) fn poll_timeout(&self, region: RegionId) -> Timestamp {
        let here = self.0.values().filter(|one| one.region == region);
        here.map(|one| one.until).min().unwrap_or(Timestamp::NEVER)
    }

    /// Takes a packet: its place among all is known by now.
    fn put(&mut self, key: (u32, Uuid), number: u32, last: bool, data: &[u8], room: usize) -> Step {
        let Some(upload) = self.0.get_mut(&key) else { return Step::Broken };
        let Stage::Coming { bytes, size, next, .. } = &mut upload.stage else {
            return Step::Broken;
        };
        let mut data = data;
        if number == 0 {
            // The length of the whole stands before the first packet's bytes.
            let Some((told, rest)) = data.split_first_chunk() else { return Step::Broken };
            let told = usize::try_from(u32::from_le_bytes(*told)).unwrap_or(usize::MAX);
            if told == 0 || told > UDP_UPLOAD_BYTES_MAX || told > room {
                return Step::Broken;
            }
            *size = Some(told);
            data = rest;
        }
        let whole = size.unwrap_or(0);
        // A packet of nothing would let it go on for ever.
        if data.is_empty() || bytes.len() + data.len() > whole {
            return Step::Broken;
        }
        bytes.extend_from_slice(data);
        *next += 1;
        match (last, bytes.len() == whole) {
            (false, false) => Step::More,
            (true, true) => Step::All(std::mem::take(bytes).into()),
            _ => Step::Broken,
        }
    }
}

impl Grid {
    /// Bytes that may still be uploaded.
    fn room_for_uploads(&self) -> usize {
        let taken: usize = self.intake.0.values().map(Upload::room).sum();
        UPLOADED_BYTES_MAX.saturating_sub(self.library.uploaded_bytes() + taken)
    }

    /// Somebody wants to upload an asset.
    pub(crate) fn on_upload_asked(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        ask: UploadAsk,
    ) {
        let Some(guest) = self.guest(code) else { return };
        let owner = guest.ids.agent_id;
        let asset_id = combined_id(ask.transaction_id, guest.secure_session_id);
        let key = (code, ask.transaction_id);
        if self.intake.0.contains_key(&key) {
            self.stats.stale += 1;
            return;
        }
        let len = ask.data.len();
        let kind = AssetKind::of_upload_type(ask.kind).filter(|_| {
            !ask.transaction_id.is_nil()
                && !self.library.has(asset_id)
                && self.library.has_room(owner, len)
                && self.intake.of(code).count() < UDP_UPLOADS_PER_USER_MAX
                && len <= self.room_for_uploads()
        });
        let Some(kind) = kind else {
            return self.tell_upload(now, (region, code), (asset_id, ask.kind), false);
        };
        let over = now.after(UDP_UPLOAD_TIME_MAX);
        if len > 0 {
            let stage = Stage::Ready(ask.data.into());
            let upload = Upload { region, kind, asset_id, stage, until: over, over };
            self.intake.0.insert(key, upload);
            return self.tell_upload(now, (region, code), (asset_id, ask.kind), true);
        }
        let xfer = self.draw_number();
        let stage = Stage::Coming { xfer, bytes: Vec::new(), size: None, next: 0 };
        let until = now.after(UDP_UPLOAD_IDLE_MAX);
        self.intake.0.insert(key, Upload { region, kind, asset_id, stage, until, over });
        let mut fetch = RequestXfer::default();
        (fetch.xfer_id.id, fetch.xfer_id.v_file_id) = (xfer, asset_id);
        fetch.xfer_id.v_file_type = ask.kind.into();
        self.send_to(now, region, code, &fetch, OPTIONS);
    }

    /// Tells somebody what came of an upload.
    fn tell_upload(
        &mut self,
        now: Timestamp,
        (region, code): (RegionId, u32),
        (asset_id, kind): (Uuid, i8),
        success: bool,
    ) {
        let mut told = AssetUploadComplete::default();
        let block = &mut told.asset_block;
        (block.uuid, block.r#type, block.success) = (asset_id, kind, success);
        self.send_to(now, region, code, &told, OPTIONS);
    }

    /// A packet of an upload came.
    pub(crate) fn on_part(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (xfer, packet, data): (u64, u32, &[u8]),
    ) {
        let Some(key) = self.intake.find(region, code, xfer) else {
            self.stats.stale += 1;
            return;
        };
        let (number, last) = (packet & !LAST_PACKET, packet & LAST_PACKET != 0);
        let Some(upload) = self.intake.0.get_mut(&key) else { return };
        let Stage::Coming { next, .. } = upload.stage else { return };
        if number > next {
            // It sends one at a time.
            self.stats.stale += 1;
            return;
        }
        let mut confirm = ConfirmXferPacket::default();
        (confirm.xfer_id.id, confirm.xfer_id.packet) = (xfer, number);
        if number < next {
            // Its confirmation was lost.
            return self.send_to(now, region, code, &confirm, OPTIONS);
        }
        let (asset_id, kind) = (upload.asset_id, upload.kind);
        upload.until = now.after(UDP_UPLOAD_IDLE_MAX).min(upload.over);
        let room = self.room_for_uploads();
        match self.intake.put(key, number, last, data, room) {
            Step::More => self.send_to(now, region, code, &confirm, OPTIONS),
            Step::All(bytes) => {
                if let Some(upload) = self.intake.0.get_mut(&key) {
                    (upload.stage, upload.until) = (Stage::Ready(bytes), upload.over);
                }
                self.send_to(now, region, code, &confirm, OPTIONS);
                self.tell_upload(now, (region, code), (asset_id, number_of(kind)), true);
            }
            Step::Broken => self.refuse_upload(now, region, key, TOO_MANY),
        }
    }

    /// Ends an upload, and tells who made it.
    fn refuse_upload(&mut self, now: Timestamp, region: RegionId, key: (u32, Uuid), code: i32) {
        let Some(upload) = self.intake.0.remove(&key) else { return };
        if let Stage::Coming { xfer, .. } = upload.stage {
            self.abort_xfer(now, (region, key.0, xfer), code);
            let told = (upload.asset_id, number_of(upload.kind));
            self.tell_upload(now, (region, key.0), told, false);
        }
    }

    /// Somebody sends no more of an upload; false where he sends none of that number.
    pub(crate) fn end_upload(&mut self, region: RegionId, code: u32, xfer: u64) -> bool {
        let key = self.intake.find(region, code, xfer);
        key.is_some_and(|key| self.intake.0.remove(&key).is_some())
    }

    /// Somebody asks for an item of what he uploaded.
    pub(crate) fn on_item_asked(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        ask: ItemAsk,
    ) {
        let Some(owner) = self.guest(code).map(|guest| guest.ids.agent_id) else { return };
        let key = (code, ask.transaction_id);
        let found = self.intake.0.get(&key).and_then(|upload| match &upload.stage {
            Stage::Ready(bytes) => Some((upload.kind, upload.asset_id, Arc::clone(bytes))),
            Stage::Coming { .. } => None,
        });
        let Some((kind, asset_id, bytes)) =
            found.filter(|(kind, ..)| AssetKind::of_upload_type(ask.kind) == Some(*kind))
        else {
            self.stats.stale += 1;
            return;
        };
        let ItemAsk { folder_id, name, description, callback_id, .. } = ask;
        let wish = Wish { kind, folder_id, name, description };
        let kept = wish.check(self, owner).and_then(|wish| {
            let item = wish.item(self.draw_id(), asset_id);
            // Its room is its own from now on.
            self.intake.0.remove(&key);
            let kept = self.library.keep(owner, item.clone(), &bytes);
            kept.then_some(item).ok_or("the grid has no room for more")
        });
        match kept {
            Ok(item) => {
                let told = inventory::told(owner, &item, (key.1, callback_id));
                self.send_to(now, region, code, &told, OPTIONS);
            }
            Err(refusal) => {
                let text = format!("No item was made of what you uploaded: {refusal}.");
                self.alert(now, region, code, &text, "");
            }
        }
    }

    /// Ends uploads to a region of which nothing comes.
    pub(crate) fn expire_uploads(&mut self, now: Timestamp, region: RegionId) {
        loop {
            let mut here = self.intake.0.iter().filter(|(_, one)| one.region == region);
            let Some(key) = here.find(|(_, one)| one.until <= now).map(|(key, _)| *key) else {
                return;
            };
            self.refuse_upload(now, region, key, SILENCE);
        }
    }

    /// Uploads of somebody over UDP that are under way, and those that wait for their items.
    pub fn uploads_of(&self, code: u32) -> (usize, usize) {
        self.intake.count(code)
    }
}

fn number_of(kind: AssetKind) -> i8 {
    // All of them are below 50.
    i8::try_from(kind.types().0).unwrap_or(-1)
}

#[cfg(test)]
mod tests;
