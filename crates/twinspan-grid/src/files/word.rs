//! What viewers say about files.

use twinspan_circuit::Received;
use twinspan_lludp::messages::{
    AbortXfer, AssetUploadRequest, ConfirmXferPacket, CreateInventoryItem, EstateOwnerMessage,
    RequestTaskInventory, RequestXfer, SendXferPacket, TransferAbort, TransferRequest,
};
use twinspan_lludp::{Message, Uuid, Var1, Var2};

use crate::intake::{ItemAsk, UploadAsk};

/// The source of assets, and of what is in inventories.
const SOURCE_ASSET: i32 = 2;
const SOURCE_ITEM: i32 = 3;
/// How parameters of an asset and of an item are laid out: so many ids, and a type.
const ASSET_IDS: usize = 1;
const ITEM_IDS: usize = 6;

/// A wish for something, by `Transfer`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TransferAsk {
    pub(crate) id: Uuid,
    pub(crate) source: Source,
    /// As they came: they are told back.
    pub(crate) params: Vec<u8>,
}

/// What is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Asset {
        id: Uuid,
        kind: i32,
    },
    Item {
        /// Who asks, and his session.
        agent: (Uuid, Uuid),
        owner: Uuid,
        /// The object that has it; nil for the inventory of its owner.
        task: Uuid,
        item: Uuid,
        asset: Uuid,
        kind: i32,
    },
    /// Something that this grid has not.
    Unknown,
}

impl Source {
    fn read(source: i32, params: &[u8]) -> Self {
        match source {
            SOURCE_ASSET => match ids::<ASSET_IDS>(params) {
                Some(([id], kind)) => Self::Asset { id, kind },
                None => Self::Unknown,
            },
            SOURCE_ITEM => match ids::<ITEM_IDS>(params) {
                Some(([agent, session, owner, task, item, asset], kind)) => {
                    Self::Item { agent: (agent, session), owner, task, item, asset, kind }
                }
                None => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// Ids and the type behind them; what is longer or shorter is none.
fn ids<const N: usize>(params: &[u8]) -> Option<([Uuid; N], i32)> {
    let (head, tail) = params.split_last_chunk::<4>()?;
    let (chunks, rest) = head.as_chunks::<16>();
    let chunks: &[[u8; 16]; N] = chunks.try_into().ok()?;
    rest.is_empty().then(|| (chunks.map(Uuid::from_bytes), i32::from_le_bytes(*tail)))
}

/// What a viewer says about files.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FileWord {
    Transfer(Box<TransferAsk>),
    AbortTransfer(Uuid),
    /// What is in the thing with this number.
    Contents(u32),
    /// The ground as a file, and what the viewer calls it.
    Terrain {
        name: Var1,
    },
    Xfer {
        id: u64,
        name: String,
        delete: bool,
    },
    Confirm {
        id: u64,
        packet: u32,
    },
    AbortXfer(u64),
    /// An asset is to be uploaded.
    Upload(Box<UploadAsk>),
    /// A packet of one.
    Part {
        id: u64,
        packet: u32,
        data: Var2,
    },
    /// An item is to be made of one.
    Item(Box<ItemAsk>),
}

impl FileWord {
    /// Reads a message; `None` for others, and for those that speak for somebody else.
    pub(crate) fn read(message: &Received<'_>, who: (Uuid, Uuid)) -> Option<Self> {
        let body = message.body;
        // Most of them name no speaker: they are his whose circuit it is.
        let (speaker, word) = match message.id {
            TransferRequest::ID => {
                let info = TransferRequest::decode(body).ok()?.0.transfer_info;
                let params = info.params.into_bytes();
                let source = match info.channel_type {
                    super::CHANNEL_ASSET => Source::read(info.source_type, &params),
                    _ => Source::Unknown,
                };
                let ask = TransferAsk { id: info.transfer_id, source, params };
                (who, Self::Transfer(Box::new(ask)))
            }
            TransferAbort::ID => {
                let info = TransferAbort::decode(body).ok()?.0.transfer_info;
                (who, Self::AbortTransfer(info.transfer_id))
            }
            RequestTaskInventory::ID => {
                let (read, _) = RequestTaskInventory::decode(body).ok()?;
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::Contents(read.inventory_data.local_id))
            }
            EstateOwnerMessage::ID => {
                let (read, _) = EstateOwnerMessage::decode(body).ok()?;
                let mut params = read.param_list.into_iter().map(|param| param.parameter);
                let wants = read.method_data.method.to_text() == "terrain"
                    && params.next()?.to_text() == "download filename";
                let name = params.next().filter(|_| wants)?;
                let data = read.agent_data;
                ((data.agent_id, data.session_id), Self::Terrain { name })
            }
            RequestXfer::ID => {
                let xfer = RequestXfer::decode(body).ok()?.0.xfer_id;
                let (name, delete) = (xfer.filename.to_text(), xfer.delete_on_completion);
                (who, Self::Xfer { id: xfer.id, name, delete })
            }
            ConfirmXferPacket::ID => {
                let xfer = ConfirmXferPacket::decode(body).ok()?.0.xfer_id;
                (who, Self::Confirm { id: xfer.id, packet: xfer.packet })
            }
            AssetUploadRequest::ID => {
                let asset = AssetUploadRequest::decode(body).ok()?.0.asset_block;
                let (transaction_id, kind) = (asset.transaction_id, asset.r#type);
                let ask = UploadAsk { transaction_id, kind, data: asset.asset_data.into_bytes() };
                (who, Self::Upload(Box::new(ask)))
            }
            SendXferPacket::ID => {
                let (read, _) = SendXferPacket::decode(body).ok()?;
                let (id, packet) = (read.xfer_id.id, read.xfer_id.packet);
                (who, Self::Part { id, packet, data: read.data_packet.data })
            }
            CreateInventoryItem::ID => {
                let (read, _) = CreateInventoryItem::decode(body).ok()?;
                let (data, block) = (read.agent_data, read.inventory_block);
                let ask = ItemAsk {
                    transaction_id: block.transaction_id,
                    callback_id: block.callback_id,
                    kind: block.r#type,
                    folder_id: block.folder_id,
                    name: block.name.to_text(),
                    description: block.description.to_text(),
                };
                ((data.agent_id, data.session_id), Self::Item(Box::new(ask)))
            }
            AbortXfer::ID => (who, Self::AbortXfer(AbortXfer::decode(body).ok()?.0.xfer_id.id)),
            _ => return None,
        };
        (speaker == who).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_whole_or_not_at_all() {
        let asset = [[7; 16].as_slice(), &5_i32.to_le_bytes()].concat();
        let seven = Uuid::from_bytes([7; 16]);
        assert_eq!(Source::read(2, &asset), Source::Asset { id: seven, kind: 5 });
        assert_eq!(Source::read(3, &asset), Source::Unknown);
        assert_eq!(Source::read(2, &asset[1..]), Source::Unknown);
        assert_eq!(Source::read(2, &[]), Source::Unknown);
        assert_eq!(Source::read(4, &asset), Source::Unknown);
        let mut item: Vec<u8> = (1..=6).flat_map(|n| [n; 16]).collect();
        item.extend((-1_i32).to_le_bytes());
        let id = |n| Uuid::from_bytes([n; 16]);
        let wanted = Source::Item {
            agent: (id(1), id(2)),
            owner: id(3),
            task: id(4),
            item: id(5),
            asset: id(6),
            kind: -1,
        };
        assert_eq!(Source::read(3, &item), wanted);
        item.push(0);
        assert_eq!(Source::read(3, &item), Source::Unknown);
    }
}
