//! Uploads over UDP: the region is told of an asset and takes it, or fetches it packet by packet; an
//! item is made of it then.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_http::Bytes;
use twinspan_lludp::messages::{
    AbortXfer, AssetUploadComplete, AssetUploadRequest, ConfirmXferPacket, CreateInventoryItem,
    RequestXfer, SendXferPacket, UpdateCreateInventoryItem,
};
use twinspan_lludp::{AnyMessage, Message, MessageId, Uuid, Var1, Var2};
use twinspan_xmlrpc::login::combined_id;

use super::{NEXT_OWNER, NewFile, UPLOAD_BYTES_MAX, UploadError, UploadWay, UploadedFile};
use crate::session_info::SessionInfo;
use crate::transfer::Answers;

/// Uploads over UDP of one client at a time.
pub const UDP_UPLOADS_MAX: usize = 8;
/// Bytes of an asset that goes in the request itself; longer ones are fetched by the region.
pub const UDP_UPLOAD_INLINE_BYTES_MAX: usize = 1_000;
/// How long a region may make no step of an upload.
pub const UDP_UPLOAD_IDLE_MAX: Duration = Duration::from_secs(45);
/// How long an upload over UDP may take in all.
pub const UDP_UPLOAD_TIME_MAX: Duration = Duration::from_mins(30);
/// Bytes of an asset in one packet.
const PART_BYTES: usize = 1_000;
/// How long a confirmation is waited for: longer than a packet is tried.
const CONFIRM_WAIT: Duration = Duration::from_secs(6);
/// How often a packet leaves anew that is not confirmed.
const CONFIRM_RESENDS_MAX: u32 = 6;
/// Marks the last packet of an `Xfer`.
const LAST_PACKET: u32 = 0x8000_0000;
/// What an `AbortXfer` of ours says.
const RESULT_GIVEN_UP: i32 = -1;
/// What an item is that nobody wears.
const NO_WEARABLE: u8 = 0xFF;

pub(crate) type UploadReply = oneshot::Sender<Result<UploadedFile, UploadError>>;

/// How far an upload is.
#[derive(Debug)]
enum Step {
    /// The region was told of it, and is to fetch it where it has not got it yet.
    Told,
    /// The region fetches it.
    Fetched {
        xfer: u64,
        /// The packet that is to be confirmed next.
        number: u32,
        again_at: Timestamp,
        resends: u32,
    },
    /// The region has it, and is to make an item of it.
    Kept,
}

#[derive(Debug)]
struct Active {
    to: SocketAddr,
    file: NewFile,
    folder_id: Uuid,
    transaction_id: Uuid,
    asset_id: Uuid,
    /// By which the region names the item when it is made.
    callback_id: u32,
    bytes: Bytes,
    step: Step,
    until: Timestamp,
    /// When it is over, whatever still comes.
    over: Timestamp,
    reply: UploadReply,
}

impl Active {
    fn parts(&self) -> u32 {
        // 16 MiB have some 17,000 parts.
        u32::try_from(self.bytes.len().div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
    }

    const fn is_inline(&self) -> bool {
        self.bytes.len() <= UDP_UPLOAD_INLINE_BYTES_MAX
    }

    /// Whether the region can have all of it, as far as this end knows.
    fn is_sent(&self) -> bool {
        match self.step {
            Step::Told => self.is_inline(),
            // The word that all is there may overtake the last confirmation.
            Step::Fetched { number, .. } => number + 1 >= self.parts(),
            Step::Kept => true,
        }
    }

    fn moved(&mut self, now: Timestamp) {
        self.until = now.after(UDP_UPLOAD_IDLE_MAX).min(self.over);
    }

    /// The packet that is to be confirmed next, if there is one.
    fn part(&self) -> Option<AnyMessage> {
        let Step::Fetched { xfer, number, .. } = self.step else { return None };
        let part = self.bytes.chunks(PART_BYTES).nth(number as usize)?;
        let mut data = Vec::with_capacity(4 + part.len());
        if number == 0 {
            // The length of the whole stands before the first packet's bytes.
            data.extend(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        data.extend_from_slice(part);
        let mut message = SendXferPacket::default();
        message.xfer_id.id = xfer;
        message.xfer_id.packet = number | if number + 1 == self.parts() { LAST_PACKET } else { 0 };
        message.data_packet.data = Var2::new(data).unwrap_or_default();
        Some(message.into())
    }

    /// What ends the region's fetching, if it fetches.
    fn abort(&self) -> Option<AnyMessage> {
        let Step::Fetched { xfer, .. } = self.step else { return None };
        let mut abort = AbortXfer::default();
        (abort.xfer_id.id, abort.xfer_id.result) = (xfer, RESULT_GIVEN_UP);
        Some(abort.into())
    }

    /// Asks for an item of the asset.
    fn ask_item(&self, ids: (Uuid, Uuid)) -> AnyMessage {
        let mut ask = CreateInventoryItem::default();
        (ask.agent_data.agent_id, ask.agent_data.session_id) = ids;
        let block = &mut ask.inventory_block;
        (block.callback_id, block.folder_id) = (self.callback_id, self.folder_id);
        block.transaction_id = self.transaction_id;
        block.next_owner_mask = NEXT_OWNER.unsigned_abs();
        (block.r#type, block.inv_type) = self.file.kind.numbers();
        block.wearable_type = NO_WEARABLE;
        // They were looked at when it began.
        block.name = Var1::text(&self.file.name).unwrap_or_default();
        block.description = Var1::text(&self.file.description).unwrap_or_default();
        ask.into()
    }
}

/// Uploads over UDP of one client.
#[derive(Debug)]
pub(crate) struct UdpUploads {
    active: Vec<Active>,
    /// Packets of assets that are to be sent.
    parts: Answers,
    random: Stream,
}

impl UdpUploads {
    pub(crate) const fn new(random: Stream) -> Self {
        Self { active: Vec::new(), parts: Vec::new(), random }
    }

    /// Whether one may begin.
    pub(crate) fn check(&self, file: &NewFile, bytes: &[u8]) -> Result<(), UploadError> {
        if !(1..=UPLOAD_BYTES_MAX).contains(&bytes.len()) {
            return Err(UploadError::Length { bytes: bytes.len() });
        }
        for text in [&file.name, &file.description] {
            if Var1::text(text).is_err() {
                return Err(UploadError::Text { bytes: text.len() });
            }
        }
        if self.active.len() >= UDP_UPLOADS_MAX {
            return Err(UploadError::Busy);
        }
        Ok(())
    }

    /// Begins one that may: what is to be sent to the region.
    pub(crate) fn begin(
        &mut self,
        now: Timestamp,
        (to, info): (SocketAddr, &SessionInfo),
        (file, bytes): (NewFile, Bytes),
        reply: UploadReply,
    ) -> AnyMessage {
        let transaction_id = Uuid::from_u64_pair(self.random.next_u64(), self.random.next_u64());
        let (kind, _) = file.kind.numbers();
        let usual = info.inventory.iter().find(|one| one.type_default == i32::from(kind));
        let folder_id = file.folder.or_else(|| usual.map(|one| one.folder_id)).unwrap_or_default();
        let active = Active {
            to,
            file,
            folder_id,
            transaction_id,
            asset_id: combined_id(transaction_id, info.secure_session_id),
            // Nobody asked where it is 0.
            callback_id: (self.random.next_u64() >> 32) as u32 | 1,
            bytes,
            step: Step::Told,
            until: now.after(UDP_UPLOAD_IDLE_MAX),
            over: now.after(UDP_UPLOAD_TIME_MAX),
            reply,
        };
        let mut ask = AssetUploadRequest::default();
        let block = &mut ask.asset_block;
        (block.transaction_id, block.r#type) = (transaction_id, kind);
        if active.is_inline() {
            block.asset_data = Var2::new(active.bytes.to_vec()).unwrap_or_default();
        }
        self.active.push(active);
        ask.into()
    }

    /// Takes a message, if it is of an upload; answers go to `out`.
    pub(crate) fn handle_message(
        &mut self,
        now: Timestamp,
        (from, ids): (SocketAddr, (Uuid, Uuid)),
        id: MessageId,
        body: &[u8],
        out: &mut Answers,
    ) {
        if self.active.is_empty() {
            return;
        }
        self.end_abandoned(out);
        match id {
            RequestXfer::ID => {
                if let Ok((read, _)) = RequestXfer::decode(body) {
                    let asked = read.xfer_id;
                    let kind = i8::try_from(asked.v_file_type).ok();
                    self.on_fetch(now, from, (asked.id, asked.v_file_id, kind));
                }
            }
            ConfirmXferPacket::ID => {
                if let Ok((read, _)) = ConfirmXferPacket::decode(body) {
                    self.on_confirm(now, from, (read.xfer_id.id, read.xfer_id.packet));
                }
            }
            AbortXfer::ID => {
                if let Ok((read, _)) = AbortXfer::decode(body) {
                    let (id, code) = (read.xfer_id.id, read.xfer_id.result);
                    let error = UploadError::Aborted { code };
                    let is_it =
                        |step: &Step| matches!(step, Step::Fetched { xfer, .. } if *xfer == id);
                    let index =
                        self.active.iter().position(|one| one.to == from && is_it(&one.step));
                    self.end(index, Err(error));
                }
            }
            AssetUploadComplete::ID => {
                if let Ok((read, _)) = AssetUploadComplete::decode(body) {
                    let told = read.asset_block;
                    self.on_complete(now, (from, ids), (told.uuid, told.success), out);
                }
            }
            UpdateCreateInventoryItem::ID => {
                if let Ok((read, _)) = UpdateCreateInventoryItem::decode(body) {
                    for item in read.inventory_data {
                        let made = (item.callback_id, item.item_id, item.asset_id);
                        self.on_item(from, made);
                    }
                }
            }
            _ => {}
        }
    }

    /// The region fetches an asset, or begins anew to.
    fn on_fetch(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (xfer, asset_id, kind): (u64, Uuid, Option<i8>),
    ) {
        let mut active = self.active.iter_mut();
        let Some(active) = active.find(|one| {
            let waits = matches!(one.step, Step::Told | Step::Fetched { .. }) && !one.is_inline();
            let is_it = (one.to, one.asset_id) == (from, asset_id);
            waits && is_it && kind == Some(one.file.kind.numbers().0)
        }) else {
            return;
        };
        if matches!(active.step, Step::Fetched { xfer: former, .. } if former == xfer) {
            return;
        }
        let again_at = now.after(CONFIRM_WAIT);
        active.step = Step::Fetched { xfer, number: 0, again_at, resends: 0 };
        active.moved(now);
        self.parts.extend(active.part().map(|part| (from, part)));
    }

    fn on_confirm(&mut self, now: Timestamp, from: SocketAddr, (id, packet): (u64, u32)) {
        for active in self.active.iter_mut().filter(|one| one.to == from) {
            let parts = active.parts();
            let Step::Fetched { xfer, number, again_at, resends } = &mut active.step else {
                continue;
            };
            // What was confirmed before, or never left, changes nothing.
            if *xfer != id || packet & !LAST_PACKET != *number || *number >= parts {
                continue;
            }
            *number += 1;
            *resends = 0;
            *again_at = if *number < parts { now.after(CONFIRM_WAIT) } else { Timestamp::NEVER };
            active.moved(now);
            self.parts.extend(active.part().map(|part| (from, part)));
        }
    }

    /// The region says that it has an asset, or that it does not take it.
    fn on_complete(
        &mut self,
        now: Timestamp,
        (from, ids): (SocketAddr, (Uuid, Uuid)),
        (asset_id, success): (Uuid, bool),
        out: &mut Answers,
    ) {
        let index = self.active.iter().position(|one| {
            (one.to, one.asset_id) == (from, asset_id) && !matches!(one.step, Step::Kept)
        });
        let Some(active) = index.and_then(|index| self.active.get_mut(index)) else { return };
        if !success {
            let reason = "the region does not keep the asset".to_owned();
            return self.end(index, Err(UploadError::Refused { reason }));
        }
        if !active.is_sent() {
            // It cannot have what it was never sent.
            out.extend(active.abort().map(|message| (from, message)));
            return self.end(index, Err(UploadError::Broken));
        }
        active.step = Step::Kept;
        active.moved(now);
        out.push((from, active.ask_item(ids)));
    }

    /// The region made an item.
    fn on_item(&mut self, from: SocketAddr, (callback, item_id, asset_id): (u32, Uuid, Uuid)) {
        let index = self.active.iter().position(|one| {
            (one.to, one.callback_id) == (from, callback) && matches!(one.step, Step::Kept)
        });
        let Some(active) = index.and_then(|index| self.active.get(index)) else { return };
        let is_it = active.asset_id == asset_id && !item_id.is_nil();
        let by = UploadWay::Udp;
        let done = is_it.then_some(UploadedFile { asset_id, item_id, by });
        self.end(index, done.ok_or(UploadError::Broken));
    }

    fn end(&mut self, index: Option<usize>, outcome: Result<UploadedFile, UploadError>) {
        if let Some(index) = index.filter(|index| *index < self.active.len()) {
            // Who asked may have gone.
            let _ = self.active.swap_remove(index).reply.send(outcome);
        }
    }

    /// Ends those that nobody waits for any more.
    fn end_abandoned(&mut self, out: &mut Answers) {
        self.active.retain(|one| {
            let goes_on = !one.reply.is_closed();
            if !goes_on {
                out.extend(one.abort().map(|message| (one.to, message)));
            }
            goes_on
        });
    }

    /// A region is gone, and what it was sent with it.
    pub(crate) fn on_region_gone(&mut self, address: SocketAddr) {
        while let Some(index) = self.active.iter().position(|one| one.to == address) {
            self.end(Some(index), Err(UploadError::RegionLost));
        }
    }

    /// Sends again what is not confirmed, and ends what makes no step.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, out: &mut Answers) {
        self.end_abandoned(out);
        let parts = &mut self.parts;
        for active in &mut self.active {
            let Step::Fetched { again_at, resends, .. } = &mut active.step else { continue };
            if *again_at > now {
                continue;
            }
            *again_at = now.after(CONFIRM_WAIT);
            *resends += 1;
            if *resends > CONFIRM_RESENDS_MAX {
                active.until = now;
            } else {
                parts.extend(active.part().map(|part| (active.to, part)));
            }
        }
        while let Some(index) = self.active.iter().position(|one| one.until <= now) {
            if let Some(one) = self.active.get(index) {
                out.extend(one.abort().map(|message| (one.to, message)));
            }
            self.end(Some(index), Err(UploadError::TimedOut));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has work.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        let due = |one: &Active| match one.step {
            Step::Fetched { again_at, .. } => again_at.min(one.until),
            Step::Told | Step::Kept => one.until,
        };
        self.active.iter().map(due).min().unwrap_or(Timestamp::NEVER)
    }

    /// Packets of assets that are to be sent.
    pub(crate) fn take_parts(&mut self) -> Answers {
        std::mem::take(&mut self.parts)
    }
}

#[cfg(test)]
mod tests;
