//! Files over UDP: `Transfer`, which sends all at once, and `Xfer`, packet by packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use twinspan_circuit::AgentIds;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_lludp::messages::{
    AbortXfer, ConfirmXferPacket, EstateOwnerMessage, EstateOwnerMessageParamList,
    InitiateDownload, ReplyTaskInventory, RequestTaskInventory, RequestXfer, SendXferPacket,
    TransferAbort, TransferInfo, TransferPacket, TransferRequest as AskTransfer,
};
use twinspan_lludp::{AnyMessage, Message, MessageId, Uuid, Var1, Var2};

/// Transfers of one client at a time.
pub const TRANSFERS_MAX: usize = 64;
/// Bytes of one.
pub const TRANSFER_BYTES_MAX: usize = 16 << 20;
/// How long nothing may come of one.
pub const TRANSFER_IDLE_MAX: Duration = Duration::from_secs(30);
/// How long one may take in all.
pub const TRANSFER_TIME_MAX: Duration = Duration::from_mins(30);
/// Packets of one that may come before older ones: a region goes on while it sends one again.
const AHEAD_PACKETS_MAX: usize = 8_192;

/// The channel of assets.
const CHANNEL_ASSET: i32 = 2;
/// The source of assets.
const SOURCE_ASSET: i32 = 2;
/// The source of what is in inventories.
const SOURCE_INVENTORY: i32 = 3;
/// Marks the last packet of an `Xfer`.
const LAST_PACKET: u32 = 0x8000_0000;
/// What an `AbortXfer` of ours says.
const RESULT_GIVEN_UP: i32 = -1;
/// How a region's ground is called at this end.
const TERRAIN_NAME: &str = "terrain.raw";

/// What is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferRequest {
    /// An asset, by `Transfer`.
    Asset {
        /// Which.
        id: Uuid,
        /// Its type, as the protocol has it.
        kind: i32,
    },
    /// The asset of an item in an inventory, by `Transfer`: notecards and scripts are only given
    /// out so.
    InventoryItem {
        /// Whose inventory.
        owner_id: Uuid,
        /// The object that has it; nil for the avatar's inventory.
        task_id: Uuid,
        /// The item.
        item_id: Uuid,
        /// Its asset.
        asset_id: Uuid,
        /// Its type, as the protocol has it.
        kind: i32,
    },
    /// A file that the region named, by `Xfer`: what is in an object, for one.
    File {
        /// Its name, 1 to 254 bytes.
        name: String,
        /// Whether the region may forget it then.
        delete: bool,
    },
    /// The list of what is in an object, as the region writes it; no bytes when nothing is in it.
    Contents {
        /// The object.
        object: Uuid,
        /// Its number in the region.
        local_id: u32,
    },
    /// The region's ground as a file, 13 bytes for each point. Regions give it to the owners of
    /// their estate alone.
    Terrain,
}

/// Why nothing was fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// There is no connection, or it ended.
    #[error("the client is not connected")]
    NotConnected,
    /// As many are under way as there may be.
    #[error("{TRANSFERS_MAX} transfers are under way, wait for some")]
    Full,
    /// The name of a file is empty, or longer than the protocol has room for.
    #[error("a name of {bytes} bytes, use 1 to 254")]
    Name {
        /// Its length.
        bytes: usize,
    },
    /// The request could not be sent.
    #[error("the request could not be sent: {0}")]
    Send(#[from] twinspan_circuit::SendError),
    /// There is no such thing.
    #[error("there is no such thing")]
    NotFound,
    /// The avatar may not have it.
    #[error("the avatar may not have it")]
    NotPermitted,
    /// The region gave up, with this number.
    #[error("the region gave up, code {code}")]
    Aborted {
        /// As the protocol has it.
        code: i32,
    },
    /// The same is being fetched.
    #[error("the same is being fetched, wait for it")]
    Twice,
    /// It ended before it had the length that the region told.
    #[error("it ended after {have} of {need} bytes")]
    Short {
        /// Bytes that came.
        have: usize,
        /// Bytes that it should have.
        need: usize,
    },
    /// The region sent something that is none of its packets.
    #[error("the region sent a packet that means nothing")]
    Broken,
    /// It is longer than the limit, or than it said.
    #[error("more than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// Nothing came of it for too long, or it never came to its end.
    #[error(
        "nothing came of it for {TRANSFER_IDLE_MAX:?}, or not all of it in {TRANSFER_TIME_MAX:?}"
    )]
    TimedOut,
    /// The region that it came from is gone.
    #[error("the region is gone")]
    RegionLost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Transfer(Uuid),
    Xfer(u64),
    /// The name of the file that lists what is in an object is waited for.
    Contents(Uuid),
    /// The name of the file that has the ground is waited for.
    Terrain,
}

#[derive(Debug)]
struct Active {
    from: SocketAddr,
    bytes: Vec<u8>,
    /// What came before older packets, by number, and whether it is the last.
    ahead: BTreeMap<u32, (Vec<u8>, bool)>,
    ahead_bytes: usize,
    next: u32,
    /// How long it is to be, once that is known.
    size: Option<usize>,
    until: Timestamp,
    /// When it is over, whatever still comes.
    over: Timestamp,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Vec<u8>, TransferError>>;

impl Active {
    /// Takes a packet; true when all of it is there.
    fn put(&mut self, number: u32, data: Vec<u8>, last: bool) -> Result<bool, TransferError> {
        if number < self.next || self.ahead.contains_key(&number) {
            return Ok(false);
        }
        let max = self.size.unwrap_or(TRANSFER_BYTES_MAX).min(TRANSFER_BYTES_MAX);
        self.ahead_bytes += data.len();
        let all = self.bytes.len() + self.ahead_bytes;
        if all > max || self.ahead.len() >= AHEAD_PACKETS_MAX {
            return Err(TransferError::TooLong { max });
        }
        self.ahead.insert(number, (data, last));
        while let Some((data, last)) = self.ahead.remove(&self.next) {
            self.ahead_bytes -= data.len();
            self.bytes.extend_from_slice(&data);
            self.next = self.next.saturating_add(1);
            if last {
                let have = self.bytes.len();
                let whole = self.size.filter(|need| *need != have);
                return whole.map_or(Ok(true), |need| Err(TransferError::Short { have, need }));
            }
        }
        Ok(false)
    }

    fn heard(&mut self, now: Timestamp) {
        self.until = now.after(TRANSFER_IDLE_MAX).min(self.over);
    }
}

/// Messages that answer what came.
pub(crate) type Answers = Vec<(SocketAddr, AnyMessage)>;

/// All transfers of a client.
#[derive(Debug)]
pub(crate) struct Transfers {
    active: BTreeMap<Key, Active>,
    random: Stream,
}

impl Transfers {
    pub(crate) const fn new(random: Stream) -> Self {
        Self { active: BTreeMap::new(), random }
    }

    /// Begins one: what is to be sent to the region.
    pub(crate) fn begin(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        ids: &AgentIds,
        request: TransferRequest,
        reply: Reply,
    ) -> Result<AnyMessage, TransferError> {
        if self.active.len() >= TRANSFERS_MAX {
            return Err(TransferError::Full);
        }
        let (key, message) = match request {
            TransferRequest::File { name, delete } => {
                let key = self.random.next_u64();
                (Key::Xfer(key), ask_xfer(key, &name, delete)?)
            }
            TransferRequest::Asset { id, kind } => {
                let params = [id.as_bytes().as_slice(), &kind.to_le_bytes()].concat();
                self.ask_transfer(SOURCE_ASSET, params)
            }
            TransferRequest::InventoryItem { owner_id, task_id, item_id, asset_id, kind } => {
                let parts = [ids.agent_id, ids.session_id, owner_id, task_id, item_id, asset_id];
                let mut params = parts.map(Uuid::into_bytes).concat();
                params.extend_from_slice(&kind.to_le_bytes());
                self.ask_transfer(SOURCE_INVENTORY, params)
            }
            TransferRequest::Contents { object, local_id } => {
                let mut ask = RequestTaskInventory::default();
                ask.agent_data.agent_id = ids.agent_id;
                ask.agent_data.session_id = ids.session_id;
                ask.inventory_data.local_id = local_id;
                (Key::Contents(object), ask.into())
            }
            TransferRequest::Terrain => (Key::Terrain, ask_terrain(ids)),
        };
        if self.active.contains_key(&key) {
            return Err(TransferError::Twice);
        }
        let until = now.after(TRANSFER_IDLE_MAX);
        let active = Active {
            from,
            bytes: Vec::new(),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            next: 0,
            size: None,
            until,
            over: now.after(TRANSFER_TIME_MAX),
            reply,
        };
        self.active.insert(key, active);
        Ok(message)
    }

    fn ask_transfer(&mut self, source: i32, params: Vec<u8>) -> (Key, AnyMessage) {
        let id = Uuid::from_u64_pair(self.random.next_u64(), self.random.next_u64());
        let mut ask = AskTransfer::default();
        let info = &mut ask.transfer_info;
        info.transfer_id = id;
        info.channel_type = CHANNEL_ASSET;
        info.source_type = source;
        info.priority = 101.0;
        // About a hundred bytes.
        info.params = Var2::new(params).unwrap_or_default();
        (Key::Transfer(id), ask.into())
    }

    /// Takes a message, if it is of a transfer; answers go to `out`.
    pub(crate) fn handle_message(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        id: MessageId,
        body: &[u8],
        out: &mut Answers,
    ) {
        if self.active.is_empty() {
            return;
        }
        match id {
            TransferInfo::ID => {
                if let Ok((read, _)) = TransferInfo::decode(body) {
                    let info = read.transfer_info;
                    let told = (info.transfer_id, info.status, info.size);
                    self.on_info(now, from, told, out);
                }
            }
            TransferPacket::ID => {
                if let Ok((read, _)) = TransferPacket::decode(body) {
                    let data = read.transfer_data;
                    let key = Key::Transfer(data.transfer_id);
                    let number = u32::try_from(data.packet).unwrap_or(u32::MAX);
                    match data.status {
                        0 | 1 => {
                            let part = (number, data.data.into_bytes(), data.status == 1);
                            self.on_packet(now, from, key, part, out);
                        }
                        code => self.end(from, key, Err(refusal(code))),
                    }
                }
            }
            TransferAbort::ID => {
                if let Ok((read, _)) = TransferAbort::decode(body) {
                    let key = Key::Transfer(read.transfer_info.transfer_id);
                    self.end(from, key, Err(TransferError::Aborted { code: 3 }));
                }
            }
            SendXferPacket::ID => {
                if let Ok((read, _)) = SendXferPacket::decode(body) {
                    self.on_xfer_packet(now, from, read, out);
                }
            }
            AbortXfer::ID => {
                if let Ok((read, _)) = AbortXfer::decode(body) {
                    let code = read.xfer_id.result;
                    self.end(from, Key::Xfer(read.xfer_id.id), Err(xfer_refusal(code)));
                }
            }
            ReplyTaskInventory::ID => {
                if let Ok((read, _)) = ReplyTaskInventory::decode(body) {
                    let data = read.inventory_data;
                    let key = Key::Contents(data.task_id);
                    self.on_named(now, from, key, &data.filename, out);
                }
            }
            InitiateDownload::ID => {
                if let Ok((read, _)) = InitiateDownload::decode(body) {
                    let name = read.file_data.sim_filename;
                    self.on_named(now, from, Key::Terrain, &name, out);
                }
            }
            _ => {}
        }
    }

    /// The region names the file of what was asked for: it is asked for that.
    fn on_named(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        key: Key,
        name: &Var1,
        out: &mut Answers,
    ) {
        let of_region = self.active.get(&key).is_some_and(|active| active.from == from);
        if !of_region {
            return;
        }
        let name = name.to_text();
        if name.is_empty() {
            // There is nothing in it.
            return self.end(from, key, Ok(Vec::new()));
        }
        let id = self.random.next_u64();
        match ask_xfer(id, &name, true) {
            Ok(ask) => {
                if let Some(mut active) = self.active.remove(&key) {
                    active.heard(now);
                    self.active.insert(Key::Xfer(id), active);
                    out.push((from, ask));
                }
            }
            Err(error) => self.end(from, key, Err(error)),
        }
    }

    fn on_info(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        (id, status, size): (Uuid, i32, i32),
        out: &mut Answers,
    ) {
        let key = Key::Transfer(id);
        if !matches!(status, 0 | 1) {
            return self.end(from, key, Err(refusal(status)));
        }
        let Some(active) = self.active.get_mut(&key).filter(|active| active.from == from) else {
            return;
        };
        active.heard(now);
        let size = usize::try_from(size).ok().filter(|size| *size > 0);
        active.size = size;
        if size.is_some_and(|size| size > TRANSFER_BYTES_MAX) {
            let error = TransferError::TooLong { max: TRANSFER_BYTES_MAX };
            self.give_up(from, key, error, out);
        }
    }

    /// Ends one, and tells the region that nothing more of it is wanted.
    fn give_up(&mut self, from: SocketAddr, key: Key, error: TransferError, out: &mut Answers) {
        out.extend(abort(key).map(|message| (from, message)));
        self.end(from, key, Err(error));
    }

    fn on_packet(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        key: Key,
        (number, data, last): (u32, Vec<u8>, bool),
        out: &mut Answers,
    ) {
        let Some(active) = self.active.get_mut(&key).filter(|active| active.from == from) else {
            return;
        };
        active.heard(now);
        match active.put(number, data, last) {
            Ok(false) => {}
            Ok(true) => {
                let bytes = std::mem::take(&mut active.bytes);
                self.end(from, key, Ok(bytes));
            }
            Err(error) => self.give_up(from, key, error, out),
        }
    }

    fn on_xfer_packet(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        packet: SendXferPacket,
        out: &mut Answers,
    ) {
        let key = Key::Xfer(packet.xfer_id.id);
        let Some(active) = self.active.get_mut(&key).filter(|active| active.from == from) else {
            return;
        };
        let number = packet.xfer_id.packet & !LAST_PACKET;
        let last = packet.xfer_id.packet & LAST_PACKET != 0;
        let mut data = packet.data_packet.data.into_bytes();
        if number == 0 {
            // The length of the whole stands before the first packet's bytes.
            let Some((size, rest)) = data.split_first_chunk() else {
                return self.give_up(from, key, TransferError::Broken, out);
            };
            let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
            if size > TRANSFER_BYTES_MAX {
                let error = TransferError::TooLong { max: TRANSFER_BYTES_MAX };
                return self.give_up(from, key, error, out);
            }
            active.size = Some(size).filter(|size| *size > 0);
            data = rest.to_vec();
        }
        // Also what came again: its confirmation was lost.
        let mut confirm = ConfirmXferPacket::default();
        confirm.xfer_id.id = packet.xfer_id.id;
        confirm.xfer_id.packet = number;
        out.push((from, confirm.into()));
        self.on_packet(now, from, key, (number, data, last), out);
    }

    fn end(&mut self, from: SocketAddr, key: Key, outcome: Result<Vec<u8>, TransferError>) {
        let of_region = self.active.get(&key).is_some_and(|active| active.from == from);
        if of_region && let Some(active) = self.active.remove(&key) {
            // Who asked may have gone.
            let _ = active.reply.send(outcome);
        }
    }

    /// A region is gone, and with it what it was sending.
    pub(crate) fn on_region_gone(&mut self, from: SocketAddr) {
        while let Some((key, from)) = self.first_where(|active| active.from == from) {
            self.end(from, key, Err(TransferError::RegionLost));
        }
    }

    /// Ends those of which nothing came for too long.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, out: &mut Answers) {
        while let Some((key, from)) = self.first_where(|active| active.until <= now) {
            self.give_up(from, key, TransferError::TimedOut, out);
        }
    }

    fn first_where(&self, over: impl Fn(&Active) -> bool) -> Option<(Key, SocketAddr)> {
        let found = self.active.iter().find(|(_, active)| over(active));
        found.map(|(key, active)| (*key, active.from))
    }

    /// When [`handle_timeout`](Self::handle_timeout) has work.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        self.active.values().map(|active| active.until).min().unwrap_or(Timestamp::NEVER)
    }
}

fn ask_xfer(id: u64, name: &str, delete: bool) -> Result<AnyMessage, TransferError> {
    let bytes = name.len();
    let wrong = TransferError::Name { bytes };
    let mut ask = RequestXfer::default();
    ask.xfer_id.id = id;
    ask.xfer_id.filename = match Var1::text(name) {
        Ok(name) if bytes > 0 => name,
        _ => return Err(wrong),
    };
    ask.xfer_id.delete_on_completion = delete;
    Ok(ask.into())
}

/// Owners of an estate fetch its ground by one of the words that they have for it.
fn ask_terrain(ids: &AgentIds) -> AnyMessage {
    let mut ask = EstateOwnerMessage::default();
    ask.agent_data.agent_id = ids.agent_id;
    ask.agent_data.session_id = ids.session_id;
    let text = |text| Var1::text(text).unwrap_or_default();
    ask.method_data.method = text("terrain");
    let parameters = [text("download filename"), text(TERRAIN_NAME)];
    ask.param_list =
        parameters.map(|parameter| EstateOwnerMessageParamList { parameter }).into_iter().collect();
    ask.into()
}

/// What tells a region that no more is wanted; nothing where nothing is under way yet.
fn abort(key: Key) -> Option<AnyMessage> {
    Some(match key {
        Key::Transfer(id) => {
            let mut abort = TransferAbort::default();
            abort.transfer_info.transfer_id = id;
            abort.transfer_info.channel_type = CHANNEL_ASSET;
            abort.into()
        }
        Key::Xfer(id) => {
            let mut abort = AbortXfer::default();
            abort.xfer_id.id = id;
            abort.xfer_id.result = RESULT_GIVEN_UP;
            abort.into()
        }
        Key::Contents(_) | Key::Terrain => return None,
    })
}

const fn refusal(code: i32) -> TransferError {
    match code {
        -2 => TransferError::NotFound,
        -3 => TransferError::NotPermitted,
        code => TransferError::Aborted { code },
    }
}

const fn xfer_refusal(code: i32) -> TransferError {
    match code {
        // Of the file system: no such file.
        -43 | -42_003 => TransferError::NotFound,
        code => TransferError::Aborted { code },
    }
}

#[cfg(test)]
mod tests;
