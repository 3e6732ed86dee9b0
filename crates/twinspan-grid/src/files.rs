//! Files over UDP: `Transfer`, whose packets follow one another, and `Xfer`, each packet of which is
//! confirmed before the next one leaves.

mod word;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use twinspan_circuit::{SendOptions, ThrottleClass};
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{
    AbortXfer, InitiateDownload, ReplyTaskInventory, SendXferPacket, TransferAbort, TransferInfo,
    TransferPacket,
};
use twinspan_lludp::{Uuid, Var1, Var2};

use crate::assets::AssetKind;
use crate::avatar::GROUND;
use crate::config::RegionId;
use crate::grid::Grid;
use crate::inventory;
use crate::reply::WATER;
use crate::scene::Thing;

pub(crate) use word::FileWord;
use word::{Source, TransferAsk};

/// Files that somebody may be sent by one region at a time; further ones are refused.
pub const FILES_PER_VISITOR_MAX: usize = 16;
/// Files with names that wait for somebody to ask for them; past it the oldest is forgotten.
pub const NAMED_FILES_MAX: usize = 16;
/// Bytes of a file in one packet.
const PART_BYTES: usize = 1_000;
/// Packets that may wait in a circuit before a transfer adds to them.
const WAITING_MAX: usize = 32;
/// Time between two looks at how much waits.
pub(crate) const FEED_INTERVAL: Duration = Duration::from_millis(25);
/// How long a packet of a transfer is tried.
const PART_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a confirmation is waited for: longer than a packet is tried.
const CONFIRM_WAIT: Duration = Duration::from_secs(6);
/// How often a packet leaves anew that is not confirmed.
const CONFIRM_RESENDS_MAX: u32 = 6;

/// The channel of assets.
const CHANNEL_ASSET: i32 = 2;
/// How transfers and their packets stand.
mod status {
    pub(super) const OK: i32 = 0;
    pub(super) const DONE: i32 = 1;
    pub(super) const ERROR: i32 = -1;
    pub(super) const UNKNOWN_SOURCE: i32 = -2;
    pub(super) const NOT_PERMITTED: i32 = -3;
}
/// Marks the last packet of an `Xfer`.
pub(crate) const LAST_PACKET: u32 = 0x8000_0000;
/// Why an `Xfer` ends: no such file, too many at a time, no confirmation.
const NO_FILE: i32 = -43;
pub(crate) const TOO_MANY: i32 = -1;
pub(crate) const SILENCE: i32 = -23_016;
/// The name of the region's ground as a file.
const TERRAIN: &str = "terrain.raw";
/// Points along the side of a region's ground, and bytes of each point.
const TERRAIN_POINTS: usize = 256;
const TERRAIN_CHANNELS: usize = 13;

/// A transfer whose packets follow one another.
#[derive(Debug)]
struct Transfer {
    bytes: Arc<[u8]>,
    /// The part that leaves next.
    next: usize,
}

/// A transfer of which one packet is under way.
#[derive(Debug)]
struct Xfer {
    bytes: Arc<[u8]>,
    number: u32,
    again_at: Timestamp,
    resends: u32,
    /// What is forgotten when it has arrived.
    delete: Option<String>,
}

/// A file that somebody may ask for by its name.
#[derive(Debug)]
struct Named {
    code: u32,
    name: String,
    bytes: Arc<[u8]>,
}

/// What regions send, and to whom.
#[derive(Debug, Default)]
pub(crate) struct Files {
    transfers: BTreeMap<(RegionId, u32, Uuid), Transfer>,
    xfers: BTreeMap<(RegionId, u32, u64), Xfer>,
    /// Oldest first.
    named: Vec<Named>,
    terrain: Option<Arc<[u8]>>,
    made: u64,
}

fn parts(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(PART_BYTES).max(1)
}

fn part(bytes: &[u8], number: usize) -> &[u8] {
    bytes.chunks(PART_BYTES).nth(number).unwrap_or_default()
}

impl Files {
    fn is_full(&self, region: RegionId, code: u32) -> bool {
        let transfers =
            self.transfers.range((region, code, Uuid::nil())..=(region, code, Uuid::max()));
        let xfers = self.xfers.range((region, code, 0)..=(region, code, u64::MAX));
        transfers.count() + xfers.count() >= FILES_PER_VISITOR_MAX
    }

    /// Keeps a file for somebody, and gives it a name that is not used again.
    fn keep(&mut self, code: u32, bytes: Arc<[u8]>) -> String {
        self.made += 1;
        let name = format!("inventory_{:016x}.tmp", self.made);
        let mine = |named: &Named| named.code == code;
        if self.named.iter().filter(|named| mine(named)).count() >= NAMED_FILES_MAX
            && let Some(oldest) = self.named.iter().position(mine)
        {
            self.named.remove(oldest);
        }
        self.named.push(Named { code, name: name.clone(), bytes });
        name
    }

    fn find(&mut self, code: u32, name: &str) -> Option<Arc<[u8]>> {
        if name == TERRAIN {
            return Some(Arc::clone(self.terrain.get_or_insert_with(|| terrain().into())));
        }
        let named = self.named.iter().find(|named| named.code == code && named.name == name)?;
        Some(Arc::clone(&named.bytes))
    }

    fn delete(&mut self, code: u32, name: &str) {
        self.named.retain(|named| named.code != code || named.name != name);
    }

    /// Somebody is no more in a region: nothing is sent to him from there.
    pub(crate) fn leave(&mut self, region: RegionId, code: u32) {
        self.transfers.retain(|key, _| (key.0, key.1) != (region, code));
        self.xfers.retain(|key, _| (key.0, key.1) != (region, code));
    }

    /// Somebody is no more on the grid.
    pub(crate) fn forget(&mut self, code: u32) {
        self.transfers.retain(|key, _| key.1 != code);
        self.xfers.retain(|key, _| key.1 != code);
        self.named.retain(|named| named.code != code);
    }

    /// When a region has something to send or to send again.
    pub(crate) fn poll_timeout(&self, region: RegionId, fed_at: Timestamp) -> Timestamp {
        let sends = self.transfers.range((region, 0, Uuid::nil())..).next();
        let sends = sends.is_some_and(|((at, ..), _)| *at == region);
        let feed = if sends { fed_at.after(FEED_INTERVAL) } else { Timestamp::NEVER };
        let again = self.xfers.range((region, 0, 0)..).take_while(|((at, ..), _)| *at == region);
        again.map(|(_, xfer)| xfer.again_at).fold(feed, Timestamp::min)
    }
}

/// A region's flat ground as it is kept in files: heights in two bytes, water, and what is of no
/// use here.
fn terrain() -> Vec<u8> {
    let mut point = [0; TERRAIN_CHANNELS];
    // The second byte scales the first: 128 leaves it as it is.
    (point[0], point[1], point[2]) = (GROUND as u8, 128, WATER as u8);
    point.repeat(TERRAIN_POINTS * TERRAIN_POINTS)
}

/// The list of what is in a thing, as viewers read it; empty where nothing is.
fn contents(thing: &Thing) -> Vec<u8> {
    let Some(note) = &thing.note else { return Vec::new() };
    let (task, nil) = (thing.id, Uuid::nil());
    let (item, asset, name) = (note.item_id, note.asset_id, note.name);
    format!(
        "\tinv_object\t0\n\t{{\n\t\tobj_id\t{task}\n\t\tparent_id\t{nil}\n\t\ttype\tcategory\n\
         \t\tname\tContents|\n\t}}\n\tinv_item\t0\n\t{{\n\t\titem_id\t{item}\n\
         \t\tparent_id\t{task}\n\tpermissions 0\n\t{{\n\t\tbase_mask\t7fffffff\n\
         \t\towner_mask\t7fffffff\n\t\tgroup_mask\t00000000\n\t\teveryone_mask\t00008000\n\
         \t\tnext_owner_mask\t7fffffff\n\t\tcreator_id\t{nil}\n\t\towner_id\t{nil}\n\
         \t\tlast_owner_id\t{nil}\n\t\tgroup_id\t{nil}\n\t}}\n\t\tasset_id\t{asset}\n\
         \t\ttype\tnotecard\n\t\tinv_type\tnotecard\n\t\tflags\t00000000\n\tsale_info\t0\n\t{{\n\
         \t\tsale_type\tnot\n\t\tsale_price\t0\n\t}}\n\t\tname\t{name}|\n\t\tdesc\t|\n\
         \t\tcreation_date\t0\n\t}}\n\0"
    )
    .into_bytes()
}

/// Files keep to the rate of assets, and are tried for longer than words are.
const OPTIONS: SendOptions =
    SendOptions::RELIABLE.at_rate_of(ThrottleClass::Asset).within(PART_TIMEOUT);

impl Grid {
    pub(crate) fn on_file_word(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        word: FileWord,
    ) {
        if self.home(code) != Some(region) {
            self.stats.stale += 1;
            return;
        }
        match word {
            FileWord::Transfer(ask) => self.on_transfer_asked(now, region, code, &ask),
            FileWord::AbortTransfer(id) => {
                self.stats.stale +=
                    u64::from(self.files.transfers.remove(&(region, code, id)).is_none());
            }
            FileWord::Contents(local_id) => self.on_contents_asked(now, region, code, local_id),
            FileWord::Terrain { name } => {
                let mut message = InitiateDownload::default();
                message.agent_data.agent_id =
                    self.guest(code).map_or(Uuid::nil(), |guest| guest.ids.agent_id);
                message.file_data.sim_filename = Var1::text(TERRAIN).unwrap_or_default();
                message.file_data.viewer_filename = name;
                self.send_to(now, region, code, &message, OPTIONS);
            }
            FileWord::Xfer { id, name, delete } => {
                self.on_xfer_asked(now, region, code, (id, name, delete));
            }
            FileWord::Confirm { id, packet } => self.on_confirm(now, region, code, (id, packet)),
            FileWord::AbortXfer(id) => {
                let ended = self.files.xfers.remove(&(region, code, id)).is_some()
                    || self.end_upload(region, code, id);
                self.stats.stale += u64::from(!ended);
            }
            FileWord::Upload(ask) => self.on_upload_asked(now, region, code, *ask),
            FileWord::Part { id, packet, data } => {
                self.on_part(now, region, code, (id, packet, data.bytes()));
            }
            FileWord::Item(ask) => self.on_item_asked(now, region, code, *ask),
        }
    }

    fn on_transfer_asked(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        ask: &TransferAsk,
    ) {
        let key = (region, code, ask.id);
        if self.files.transfers.contains_key(&key) {
            self.stats.stale += 1;
            return;
        }
        let found = if self.files.is_full(region, code) {
            Err(status::ERROR)
        } else {
            self.source_of(region, code, &ask.source)
        };
        let mut info = TransferInfo::default();
        let told = &mut info.transfer_info;
        (told.transfer_id, told.channel_type) = (ask.id, CHANNEL_ASSET);
        told.params = Var2::new(ask.params.clone()).unwrap_or_default();
        match found {
            Ok(bytes) => {
                told.status = status::OK;
                told.size = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                self.files.transfers.insert(key, Transfer { bytes, next: 0 });
            }
            Err(refusal) => told.status = refusal,
        }
        self.send_to(now, region, code, &info, OPTIONS);
    }

    /// What somebody asks for, if he may have it.
    fn source_of(&self, region: RegionId, code: u32, source: &Source) -> Result<Arc<[u8]>, i32> {
        let ids = self.guest(code).ok_or(status::UNKNOWN_SOURCE)?.ids;
        match *source {
            Source::Asset { id, kind } => {
                let kind = AssetKind::of_type(kind).ok_or(status::UNKNOWN_SOURCE)?;
                if kind.is_private() {
                    // Who has an item of it may have it, by that item.
                    return Err(status::NOT_PERMITTED);
                }
                self.library.find(kind, id).ok_or(status::UNKNOWN_SOURCE)
            }
            Source::Item { agent, owner, task, item, asset, kind } => {
                if agent != (ids.agent_id, ids.session_id) {
                    return Err(status::NOT_PERMITTED);
                }
                let kind = AssetKind::of_type(kind).ok_or(status::UNKNOWN_SOURCE)?;
                let has_it = if task.is_nil() {
                    if owner != ids.agent_id {
                        return Err(status::NOT_PERMITTED);
                    }
                    inventory::has(owner, self.library.items_of(owner), item, asset)
                } else {
                    let things = self.regions.get(region.0).map(|place| &place.things);
                    let thing = things.and_then(|all| all.iter().find(|thing| thing.id == task));
                    let note = thing.and_then(|thing| thing.note.as_ref());
                    note.is_some_and(|note| (note.item_id, note.asset_id) == (item, asset))
                };
                let bytes = self.library.find(kind, asset).filter(|_| has_it);
                bytes.ok_or(status::UNKNOWN_SOURCE)
            }
            Source::Unknown => Err(status::UNKNOWN_SOURCE),
        }
    }

    fn on_contents_asked(&mut self, now: Timestamp, region: RegionId, code: u32, local_id: u32) {
        let things = self.regions.get(region.0).map(|place| &place.things);
        let thing = things.and_then(|all| all.iter().find(|thing| thing.local_id == local_id));
        let Some(thing) = thing else {
            self.stats.stale += 1;
            return;
        };
        let (task_id, list) = (thing.id, contents(thing));
        let mut message = ReplyTaskInventory::default();
        message.inventory_data.task_id = task_id;
        message.inventory_data.serial = i16::from(!list.is_empty());
        // A thing with nothing in it has no file.
        if !list.is_empty() {
            let name = self.files.keep(code, list.into());
            message.inventory_data.filename = Var1::text(&name).unwrap_or_default();
        }
        self.send_to(now, region, code, &message, OPTIONS);
    }

    fn on_xfer_asked(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (id, name, delete): (u64, String, bool),
    ) {
        let key = (region, code, id);
        if self.files.xfers.contains_key(&key) {
            self.stats.stale += 1;
            return;
        }
        if self.files.is_full(region, code) {
            return self.abort_xfer(now, key, TOO_MANY);
        }
        let Some(bytes) = self.files.find(code, &name) else {
            return self.abort_xfer(now, key, NO_FILE);
        };
        let delete = delete.then_some(name);
        let xfer = Xfer { bytes, number: 0, again_at: now, resends: 0, delete };
        self.files.xfers.insert(key, xfer);
        self.send_part(now, key);
    }

    /// Sends the packet of an `Xfer` that is to be confirmed next.
    fn send_part(&mut self, now: Timestamp, key: (RegionId, u32, u64)) {
        let (region, code, id) = key;
        let Some(xfer) = self.files.xfers.get_mut(&key) else { return };
        xfer.again_at = now.after(CONFIRM_WAIT);
        let number = xfer.number as usize;
        let is_last = number + 1 >= parts(&xfer.bytes);
        let mut data = Vec::with_capacity(4 + PART_BYTES);
        if number == 0 {
            // The length of the whole stands before the first packet's bytes.
            data.extend(u32::try_from(xfer.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        data.extend_from_slice(part(&xfer.bytes, number));
        let mut message = SendXferPacket::default();
        message.xfer_id.id = id;
        message.xfer_id.packet = xfer.number | if is_last { LAST_PACKET } else { 0 };
        message.data_packet.data = Var2::new(data).unwrap_or_default();
        let options = SendOptions::RELIABLE.at_rate_of(ThrottleClass::Asset);
        self.send_to(now, region, code, &message, options);
    }

    fn on_confirm(
        &mut self,
        now: Timestamp,
        region: RegionId,
        code: u32,
        (id, packet): (u64, u32),
    ) {
        let key = (region, code, id);
        let Some(xfer) = self.files.xfers.get_mut(&key) else {
            self.stats.stale += 1;
            return;
        };
        if packet & !LAST_PACKET != xfer.number {
            // Of a packet that was confirmed before.
            return;
        }
        xfer.number += 1;
        xfer.resends = 0;
        if (xfer.number as usize) < parts(&xfer.bytes) {
            return self.send_part(now, key);
        }
        let delete = self.files.xfers.remove(&key).and_then(|xfer| xfer.delete);
        if let Some(name) = delete {
            self.files.delete(code, &name);
        }
    }

    pub(crate) fn abort_xfer(
        &mut self,
        now: Timestamp,
        (region, code, id): (RegionId, u32, u64),
        result: i32,
    ) {
        let mut message = AbortXfer::default();
        (message.xfer_id.id, message.xfer_id.result) = (id, result);
        self.send_to(now, region, code, &message, OPTIONS);
    }

    /// Hands circuits as much of the files under way as they have room for, and sends again what
    /// was not confirmed.
    pub(crate) fn feed_files(&mut self, now: Timestamp, region: RegionId) {
        let mut files = std::mem::take(&mut self.files);
        let from_here = files.transfers.range_mut((region, 0, Uuid::nil())..);
        for ((_, code, id), transfer) in from_here.take_while(|((at, ..), _)| *at == region) {
            self.feed_transfer(now, region, (*code, *id), transfer);
        }
        files.transfers.retain(|_, transfer| transfer.next < parts(&transfer.bytes));
        self.files = files;
        while let Some(key) = self.next_overdue(now, region) {
            let xfer = self.files.xfers.get_mut(&key);
            let goes_on = xfer.is_some_and(|xfer| {
                xfer.resends += 1;
                xfer.resends <= CONFIRM_RESENDS_MAX
            });
            if goes_on {
                self.send_part(now, key);
            } else {
                self.files.xfers.remove(&key);
                self.abort_xfer(now, key, SILENCE);
            }
        }
    }

    fn next_overdue(&self, now: Timestamp, region: RegionId) -> Option<(RegionId, u32, u64)> {
        let here = self.files.xfers.range((region, 0, 0)..);
        let mut here = here.take_while(|((at, ..), _)| *at == region);
        here.find(|(_, xfer)| xfer.again_at <= now).map(|(key, _)| *key)
    }

    fn feed_transfer(
        &mut self,
        now: Timestamp,
        region: RegionId,
        (code, id): (u32, Uuid),
        transfer: &mut Transfer,
    ) {
        let Some(addr) = self.addr_of(region, code) else { return };
        let Some(place) = self.regions.get_mut(region.0) else { return };
        let all = parts(&transfer.bytes);
        while transfer.next < all && place.circuits.waiting(addr) < WAITING_MAX {
            let mut message = TransferPacket::default();
            let told = &mut message.transfer_data;
            (told.transfer_id, told.channel_type) = (id, CHANNEL_ASSET);
            told.packet = i32::try_from(transfer.next).unwrap_or(i32::MAX);
            told.status = if transfer.next + 1 == all { status::DONE } else { status::OK };
            told.data = Var2::new(part(&transfer.bytes, transfer.next)).unwrap_or_default();
            if place.circuits.send(now, addr, &message, OPTIONS).is_err() {
                break;
            }
            transfer.next += 1;
        }
    }

    /// Ends everything that a region sends to somebody, and says so: for tests of viewers.
    pub fn abort_files(&mut self, now: Timestamp, code: u32) {
        let Some(home) = self.home(code) else { return };
        let transfers: Vec<Uuid> =
            self.files.transfers.keys().filter(|key| key.1 == code).map(|key| key.2).collect();
        let xfers: Vec<u64> =
            self.files.xfers.keys().filter(|key| key.1 == code).map(|key| key.2).collect();
        self.files.leave(home, code);
        for id in transfers {
            let mut message = TransferAbort::default();
            message.transfer_info.transfer_id = id;
            message.transfer_info.channel_type = CHANNEL_ASSET;
            self.send_to(now, home, code, &message, OPTIONS);
        }
        for id in xfers {
            self.abort_xfer(now, (home, code, id), TOO_MANY);
        }
    }

    /// Files that are being sent to somebody, and files that wait for him to ask for them.
    pub fn files_of(&self, code: u32) -> (usize, usize) {
        let transfers = self.files.transfers.keys().filter(|key| key.1 == code).count();
        let xfers = self.files.xfers.keys().filter(|key| key.1 == code).count();
        let named = self.files.named.iter().filter(|named| named.code == code).count();
        (transfers + xfers, named)
    }
}

#[cfg(test)]
mod tests;
