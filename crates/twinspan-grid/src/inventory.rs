//! What every agent owns: folders of the usual types, and an item in some of them.

use twinspan_llsd::Value;
use twinspan_lludp::messages::{UpdateCreateInventoryItem, UpdateCreateInventoryItemInventoryData};
use twinspan_lludp::{Uuid, Var1};
use twinspan_xmlrpc::login::InventoryFolder;

use crate::assets::{self, AssetKind, Uploaded};

/// Folders, or items, of one request.
pub(crate) const FETCHED_MAX: usize = 64;
/// The type of the root.
const ROOT: i32 = 8;
/// The version of every folder: nothing changes.
const VERSION: i32 = 1;
/// All that may be done with an item.
const ALL: i32 = 0x7FFF_FFFF;

/// Folders below the root, by type and name.
const FOLDERS: [(i32, &str); 15] = [
    (0, "Textures"),
    (1, "Sounds"),
    (2, "Calling Cards"),
    (3, "Landmarks"),
    (5, "Clothing"),
    (6, "Objects"),
    (7, "Notecards"),
    (10, "Scripts"),
    (13, "Body Parts"),
    (14, "Trash"),
    (15, "Photo Album"),
    (16, "Lost And Found"),
    (20, "Animations"),
    (21, "Gestures"),
    (46, "Current Outfit"),
];

/// Items: the type of their folder, what they are, their asset and name.
const ITEMS: [(i32, AssetKind, Uuid, &str); 3] = [
    (0, AssetKind::Texture, assets::TEXTURE, "Grey"),
    (6, AssetKind::Mesh, assets::MESH, "Pyramid"),
    (7, AssetKind::Notecard, assets::NOTECARD, "Welcome"),
];

/// What stands for a folder in its owner's id, and what for an item.
const FOLDER_MARK: u128 = 0xF01D << 64;
const ITEM_MARK: u128 = 0x17E3 << 64;

/// The id of somebody's folder of a type.
fn folder_id(owner: Uuid, kind: i32) -> Uuid {
    Uuid::from_u128(owner.as_u128() ^ FOLDER_MARK ^ u128::from(kind.unsigned_abs()))
}

/// The folder of somebody where items of a kind go, unless he says otherwise.
pub(crate) fn usual_folder(owner: Uuid, kind: AssetKind) -> Uuid {
    folder_id(owner, if kind == AssetKind::Mesh { 6 } else { kind.types().0 })
}

/// Whether somebody has an item with this asset.
pub(crate) fn has(owner: Uuid, uploads: &[Uploaded], item: Uuid, asset: Uuid) -> bool {
    let (mut given, mut uploaded) = (ITEMS.iter(), uploads.iter());
    given.any(|(_, kind, of, _)| (item_id(owner, *kind), *of) == (item, asset))
        || uploaded.any(|one| (one.item_id, one.asset_id) == (item, asset))
}

fn item_id(owner: Uuid, kind: AssetKind) -> Uuid {
    Uuid::from_u128(owner.as_u128() ^ ITEM_MARK ^ u128::from(kind.types().0.unsigned_abs()))
}

/// The folder that all others are in.
pub(crate) fn root(owner: Uuid) -> Uuid {
    folder_id(owner, ROOT)
}

/// All folders, the root first.
pub(crate) fn skeleton(owner: Uuid) -> Vec<InventoryFolder> {
    let folder = |kind, name: &str, parent_id| InventoryFolder {
        folder_id: folder_id(owner, kind),
        parent_id,
        name: name.into(),
        type_default: kind,
        version: VERSION,
    };
    let root_folder = folder(ROOT, "My Inventory", Uuid::nil());
    let others = FOLDERS.iter().map(|(kind, name)| folder(*kind, name, root(owner)));
    std::iter::once(root_folder).chain(others).collect()
}

/// Answers `FetchInventoryDescendents2`: what is in folders. `None` when that is no request.
pub(crate) fn descendents(owner: Uuid, uploads: &[Uploaded], request: &Value) -> Option<Value> {
    let asked = request.get("folders")?.as_array()?;
    let (mut folders, mut bad) = (Vec::new(), Vec::new());
    for folder in asked.iter().take(FETCHED_MAX) {
        let id = folder.get("folder_id")?.to_uuid()?;
        let wants = |key| folder.get(key).and_then(Value::to_bool).unwrap_or(true);
        match contents((owner, uploads), id, wants("fetch_folders"), wants("fetch_items")) {
            Some(contents) => folders.push(contents),
            None => bad.push(Value::map([
                ("folder_id", Value::from(id)),
                ("error", "there is no such folder".into()),
            ])),
        }
    }
    let mut reply = vec![("folders".to_owned(), Value::Array(folders))];
    if !bad.is_empty() {
        reply.push(("bad_folders".to_owned(), Value::Array(bad)));
    }
    Some(Value::Map(reply.into_iter().collect()))
}

fn contents(
    (owner, uploads): (Uuid, &[Uploaded]),
    id: Uuid,
    wants_folders: bool,
    wants_items: bool,
) -> Option<Value> {
    let all = skeleton(owner);
    let folder = all.iter().find(|folder| folder.folder_id == id)?;
    let folders: Vec<Value> = all
        .iter()
        .filter(|inner| inner.parent_id == id)
        .map(|inner| {
            Value::map([
                ("category_id", Value::from(inner.folder_id)),
                ("folder_id", inner.folder_id.into()),
                ("parent_id", id.into()),
                ("name", inner.name.as_str().into()),
                ("type_default", inner.type_default.into()),
                ("version", inner.version.into()),
            ])
        })
        .collect();
    let items: Vec<Value> = ITEMS
        .iter()
        .filter(|(kind, ..)| *kind == folder.type_default)
        .map(|i| item(owner, &given(owner, i)))
        .chain(uploads.iter().filter(|one| one.folder_id == id).map(|one| item(owner, one)))
        .collect();
    let count = i32::try_from(folders.len() + items.len()).unwrap_or(i32::MAX);
    let some = |wanted, values| Value::Array(if wanted { values } else { Vec::new() });
    Some(Value::map([
        ("folder_id", Value::from(id)),
        ("agent_id", owner.into()),
        ("owner_id", owner.into()),
        ("version", folder.version.into()),
        ("descendents", count.into()),
        ("categories", some(wants_folders, folders)),
        ("items", some(wants_items, items)),
    ]))
}

/// Answers `FetchInventory2`: items by their ids. `None` when that is no request.
pub(crate) fn items(owner: Uuid, uploads: &[Uploaded], request: &Value) -> Option<Value> {
    let mut found = Vec::new();
    for asked in request.get("items")?.as_array()?.iter().take(FETCHED_MAX) {
        let id = asked.get("item_id")?.to_uuid()?;
        let one = ITEMS.iter().find(|(_, kind, ..)| item_id(owner, *kind) == id);
        found.extend(one.map(|one| item(owner, &given(owner, one))));
        let uploaded = uploads.iter().find(|one| one.item_id == id);
        found.extend(uploaded.map(|one| item(owner, one)));
    }
    Some(Value::map([("agent_id", Value::from(owner)), ("items", Value::Array(found))]))
}

/// An item that everybody has.
fn given(owner: Uuid, (folder, kind, asset, name): &(i32, AssetKind, Uuid, &str)) -> Uploaded {
    Uploaded {
        item_id: item_id(owner, *kind),
        asset_id: *asset,
        folder_id: folder_id(owner, *folder),
        kind: *kind,
        name: (*name).to_owned(),
        description: String::new(),
    }
}

fn item(owner: Uuid, item: &Uploaded) -> Value {
    let (asset_type, inventory_type) = item.kind.types();
    let permissions = Value::map([
        ("creator_id", Value::from(owner)),
        ("owner_id", owner.into()),
        ("last_owner_id", owner.into()),
        ("group_id", Uuid::nil().into()),
        ("is_owner_group", false.into()),
        ("base_mask", ALL.into()),
        ("owner_mask", ALL.into()),
        ("group_mask", 0.into()),
        ("everyone_mask", 0.into()),
        ("next_owner_mask", ALL.into()),
    ]);
    Value::map([
        ("item_id", Value::from(item.item_id)),
        ("parent_id", item.folder_id.into()),
        ("asset_id", item.asset_id.into()),
        ("agent_id", owner.into()),
        ("name", item.name.as_str().into()),
        ("desc", item.description.as_str().into()),
        ("type", asset_type.into()),
        ("inv_type", inventory_type.into()),
        ("flags", 0.into()),
        ("created_at", 0.into()),
        ("permissions", permissions),
        ("sale_info", Value::map([("sale_type", Value::from(0)), ("sale_price", 0.into())])),
    ])
}

/// Tells somebody over UDP of an item that was made for him.
pub(crate) fn told(
    owner: Uuid,
    item: &Uploaded,
    (transaction_id, callback_id): (Uuid, u32),
) -> UpdateCreateInventoryItem {
    let (asset_type, inventory_type) = item.kind.types();
    let number = |number| i8::try_from(number).unwrap_or(-1);
    let mut data = UpdateCreateInventoryItemInventoryData {
        item_id: item.item_id,
        folder_id: item.folder_id,
        callback_id,
        creator_id: owner,
        owner_id: owner,
        base_mask: ALL.unsigned_abs(),
        owner_mask: ALL.unsigned_abs(),
        next_owner_mask: ALL.unsigned_abs(),
        asset_id: item.asset_id,
        r#type: number(asset_type),
        inv_type: number(inventory_type),
        name: Var1::text(&item.name).unwrap_or_default(),
        description: Var1::text(&item.description).unwrap_or_default(),
        ..UpdateCreateInventoryItemInventoryData::default()
    };
    data.crc = checksum(&data);
    let mut message = UpdateCreateInventoryItem::default();
    message.agent_data.agent_id = owner;
    message.agent_data.sim_approved = true;
    message.agent_data.transaction_id = transaction_id;
    message.inventory_data = vec![data];
    message
}

/// The checksum of an item, by which viewers see that it came whole: the sum of its fields, ids as
/// four words of which the first byte is the lowest.
///
/// Some have the mask of the next owner in it, others the base mask: this grid keeps them equal.
fn checksum(item: &UpdateCreateInventoryItemInventoryData) -> u32 {
    /// What a kind of sale counts.
    const SALE: u32 = 0x0707_3096;
    let ids = [
        item.item_id,
        item.folder_id,
        item.creator_id,
        item.owner_id,
        item.group_id,
        item.asset_id,
    ];
    let words = ids.into_iter().flat_map(|id| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = id.into_bytes();
        [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_le_bytes)
    });
    let masks = [item.base_mask, item.owner_mask, item.group_mask, item.everyone_mask];
    let numbers = [
        i32::from(item.r#type).cast_unsigned(),
        i32::from(item.inv_type).cast_unsigned(),
        item.flags,
        item.sale_price.cast_unsigned(),
        u32::from(item.sale_type).wrapping_mul(SALE),
        item.creation_date.cast_unsigned(),
    ];
    words.chain(masks).chain(numbers).fold(0, u32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_told_over_udp_has_the_checksum_of_its_fields() {
        let item = Uploaded {
            item_id: Uuid::from_u128(0x0100_0000_0200_0000_0300_0000_0400_0000),
            asset_id: Uuid::from_u128(0x0000_0010 << 96),
            folder_id: Uuid::from_u128(5),
            kind: AssetKind::Gesture,
            name: "Wave".into(),
            description: String::new(),
        };
        let message = told(OWNER, &item, (Uuid::nil(), 7));
        let data = &message.inventory_data[0];
        assert_eq!((data.callback_id, data.r#type, data.inv_type), (7, 21, 20));
        // 1 + 2 + 3 + 4; the asset; the folder; the owner twice; two masks; the types.
        let wanted = 10_u32
            .wrapping_add(0x1000_0000)
            .wrapping_add(0x0500_0000)
            .wrapping_add(2 * 0x0100_E0A9)
            .wrapping_add(2_u32.wrapping_mul(0x7FFF_FFFF))
            .wrapping_add(41);
        assert_eq!(data.crc, wanted);
        let sold =
            UpdateCreateInventoryItemInventoryData { sale_type: 2, sale_price: 10, ..data.clone() };
        assert_eq!(checksum(&sold), wanted.wrapping_add(10 + 2 * 0x0707_3096));
    }

    const OWNER: Uuid = Uuid::from_u128(0xA9E0_0001);

    fn fetch(folder: Uuid, extra: &[(&str, Value)]) -> Value {
        let mut asked = twinspan_llsd::Map::from([("folder_id".to_owned(), Value::from(folder))]);
        asked.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let request = Value::map([("folders", Value::Array(vec![asked.into()]))]);
        descendents(OWNER, &[], &request).unwrap()
    }

    #[test]
    fn every_folder_has_an_id_of_its_own_below_the_root() {
        let all = skeleton(OWNER);
        assert_eq!(all[0].folder_id, root(OWNER));
        let ids: std::collections::BTreeSet<Uuid> = all.iter().map(|one| one.folder_id).collect();
        assert_eq!(ids.len(), 16);
        assert!(all[1..].iter().all(|folder| folder.parent_id == root(OWNER)));
        assert_ne!(root(OWNER), root(Uuid::from_u128(2)));
    }

    #[test]
    fn a_folder_tells_what_is_in_it() {
        let reply = fetch(root(OWNER), &[("fetch_items", false.into())]);
        let folder = reply.get("folders").unwrap().at(0).unwrap();
        assert_eq!(folder.get("descendents"), Some(&Value::Integer(15)));
        assert_eq!(folder.get("categories").unwrap().as_array().unwrap().len(), 15);
        let notecards = skeleton(OWNER).into_iter().find(|one| one.type_default == 7).unwrap();
        let reply = fetch(notecards.folder_id, &[]);
        let item =
            reply.get("folders").unwrap().at(0).unwrap().get("items").unwrap().at(0).unwrap();
        assert_eq!(item.get("asset_id"), Some(&Value::Uuid(assets::NOTECARD)));
        let request = Value::map([("items", Value::Array(vec![item.clone()]))]);
        assert_eq!(items(OWNER, &[], &request).unwrap().get("items").unwrap().at(0), Some(item));
    }

    #[test]
    fn other_folders_are_named_as_bad_and_other_requests_are_none() {
        let reply = fetch(Uuid::from_u128(5), &[]);
        assert_eq!(reply.get("bad_folders").unwrap().as_array().unwrap().len(), 1);
        for request in [Value::Undef, Value::map([("folders", Value::Integer(1))])] {
            assert_eq!(descendents(OWNER, &[], &request), None);
            assert_eq!(items(OWNER, &[], &request), None);
        }
    }
}
