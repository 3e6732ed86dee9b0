//! An inventory: its folders as login tells them, and what is in them as capabilities do.

use std::collections::BTreeMap;
use std::time::Duration;

use twinspan_http::{HttpClient, HttpError, Request, StatusCode};
use twinspan_llsd::{Form, Limits, ParseError, Value};
use twinspan_lludp::Uuid;
use twinspan_provider::{Env, OffloadError};
use twinspan_xmlrpc::login::InventoryFolder;

use crate::caps::Capabilities;
use crate::xmlrpc::read_off;

/// Folders of one inventory that are kept.
pub const FOLDERS_MAX: usize = 100_000;
/// Items of one inventory that are kept.
pub const ITEMS_MAX: usize = 500_000;
/// Folders that one request asks for.
pub const FOLDERS_PER_FETCH_MAX: usize = 64;
/// Bytes of the answer to one.
pub const FETCH_BYTES_MAX: usize = 16 << 20;
/// How long one may take.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of a name or a description that are kept.
const TEXT_CHARS_MAX: usize = 1_024;

/// Whose inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InventoryOwner {
    /// The avatar's.
    Agent,
    /// The grid's library, which is everybody's.
    Library,
}

impl InventoryOwner {
    const fn capability(self) -> &'static str {
        match self {
            Self::Agent => "FetchInventoryDescendents2",
            Self::Library => "FetchLibDescendents2",
        }
    }
}

/// An item of an inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryItem {
    /// The item.
    pub id: Uuid,
    /// The folder that it is in.
    pub parent_id: Uuid,
    /// The asset that it stands for; nil where the grid does not tell.
    pub asset_id: Uuid,
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub description: String,
    /// The type of the asset; -1 where the grid does not tell.
    pub asset_type: i32,
    /// The type of the item; -1 where the grid does not tell.
    pub inventory_type: i32,
    /// As the protocol has them.
    pub flags: u32,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
}

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderContents {
    /// The folder.
    pub folder_id: Uuid,
    /// Its version.
    pub version: i32,
    /// The folders in it.
    pub folders: Vec<InventoryFolder>,
    /// The items in it.
    pub items: Vec<InventoryItem>,
    /// Entries that could not be read.
    pub broken: usize,
}

/// What an answer has in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The folders that are there.
    pub folders: Vec<FolderContents>,
    /// Those that the grid does not give out, and why.
    pub refused: Vec<(Uuid, String)>,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The region has no capability for it.
    #[error("the region offers no capability {name}")]
    NoCapability {
        /// Which.
        name: &'static str,
    },
    /// No folders, or more than one request asks for.
    #[error("{count} folders at a time, ask for 1 to {FOLDERS_PER_FETCH_MAX}")]
    Count {
        /// How many.
        count: usize,
    },
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An answer without success.
    #[error("the server answered with status {status}")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The answer is no LLSD.
    #[error("the answer cannot be read: {0}")]
    Llsd(#[from] ParseError),
    /// The answer is no map with folders.
    #[error("the answer is no map with `folders`")]
    Shape,
    /// It could not be read off the thread.
    #[error("the answer could not be read: {0}")]
    Offload(#[from] OffloadError),
    /// As much is fetched as may be at a time.
    #[error("too much is fetched at the time, wait for some of it")]
    Busy,
    /// There is no connection to ask over.
    #[error("the client is not connected")]
    NotConnected,
}

/// The body that asks for folders.
fn fetch_body(owner_id: Uuid, folders: &[Uuid]) -> Value {
    let folder = |id: &Uuid| {
        Value::map([
            ("folder_id", Value::Uuid(*id)),
            ("owner_id", Value::Uuid(owner_id)),
            ("fetch_folders", true.into()),
            ("fetch_items", true.into()),
            ("sort_order", 1.into()),
        ])
    };
    Value::map([("folders", Value::Array(folders.iter().map(folder).collect()))])
}

/// Fetches what is in these folders.
///
/// # Errors
/// [`FetchError`]
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn fetch_folders<E: Env>(
    env: &E,
    http: &HttpClient<E>,
    caps: &Capabilities,
    (owner, owner_id): (InventoryOwner, Uuid),
    folders: &[Uuid],
) -> Result<Fetched, FetchError> {
    let count = folders.len();
    if !(1..=FOLDERS_PER_FETCH_MAX).contains(&count) {
        return Err(FetchError::Count { count });
    }
    let name = owner.capability();
    let url = caps.get(name).ok_or(FetchError::NoCapability { name })?.clone();
    // Ids, numbers and booleans can always be written.
    let body = Form::Xml.write(&fetch_body(owner_id, folders)).unwrap_or_default();
    let request = Request::post(url, Form::Xml.content_type(), body)
        .with_timeout(FETCH_TIMEOUT)
        .with_response_bytes_max(FETCH_BYTES_MAX);
    let response = http.send(request).await?;
    if !response.status.is_success() {
        return Err(FetchError::Status { status: response.status });
    }
    let body = response.body;
    let bytes = body.len();
    read_off(env, bytes, move || Fetched::read(&body)).await?
}

impl Fetched {
    /// Reads an answer. Entries that cannot be read are left out and counted.
    ///
    /// # Errors
    /// [`FetchError::Llsd`] and [`FetchError::Shape`]
    pub fn read(bytes: &[u8]) -> Result<Self, FetchError> {
        let limits =
            Limits { bytes_max: FETCH_BYTES_MAX, elements_max: 2_000_000, ..Limits::DEFAULT };
        let value = twinspan_llsd::parse_any(bytes, &limits)?;
        let folders = value.get("folders").and_then(Value::as_array);
        let refused = value.get("bad_folders").and_then(Value::as_array);
        if folders.is_none() && refused.is_none() {
            return Err(FetchError::Shape);
        }
        let refusal =
            |entry: &Value| Some((entry.get("folder_id")?.to_uuid()?, text(entry.get("error"))));
        Ok(Self {
            folders: folders.unwrap_or_default().iter().filter_map(contents).collect(),
            refused: refused.unwrap_or_default().iter().filter_map(refusal).collect(),
        })
    }
}

fn text(value: Option<&Value>) -> String {
    let text = value.and_then(Value::to_text).unwrap_or_default();
    text.chars().take(TEXT_CHARS_MAX).collect()
}

fn number(value: Option<&Value>, missing: i32) -> i32 {
    value.and_then(Value::to_i64).and_then(|number| number.try_into().ok()).unwrap_or(missing)
}

fn contents(value: &Value) -> Option<FolderContents> {
    let folder_id = value.get("folder_id")?.to_uuid()?;
    let list = |name| value.get(name).and_then(Value::as_array).unwrap_or_default();
    let (categories, entries) = (list("categories"), list("items"));
    let folders: Vec<_> = categories.iter().filter_map(|entry| folder(entry, folder_id)).collect();
    let items: Vec<_> = entries.iter().filter_map(|entry| item(entry, folder_id)).collect();
    let broken = categories.len() + entries.len() - folders.len() - items.len();
    let version = number(value.get("version"), -1);
    Some(FolderContents { folder_id, version, folders, items, broken })
}

fn folder(entry: &Value, parent: Uuid) -> Option<InventoryFolder> {
    let id = entry.get("category_id").or_else(|| entry.get("folder_id"))?;
    Some(InventoryFolder {
        folder_id: id.to_uuid().filter(|id| !id.is_nil())?,
        parent_id: entry.get("parent_id").and_then(Value::to_uuid).unwrap_or(parent),
        name: text(entry.get("name")),
        type_default: number(entry.get("type_default").or_else(|| entry.get("type")), -1),
        version: number(entry.get("version"), -1),
    })
}

fn item(entry: &Value, parent: Uuid) -> Option<InventoryItem> {
    let id_of = |name| entry.get(name).and_then(Value::to_uuid);
    Some(InventoryItem {
        id: id_of("item_id").filter(|id| !id.is_nil())?,
        parent_id: id_of("parent_id").unwrap_or(parent),
        asset_id: id_of("asset_id").unwrap_or_default(),
        name: text(entry.get("name")),
        description: text(entry.get("desc")),
        asset_type: number(entry.get("type"), -1),
        inventory_type: number(entry.get("inv_type"), -1),
        flags: entry.get("flags").and_then(Value::to_u32).unwrap_or_default(),
        created_at: entry.get("created_at").and_then(Value::to_i64).unwrap_or_default(),
    })
}

/// A folder as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFolder {
    /// What it is.
    pub folder: InventoryFolder,
    /// Whether what is in it was fetched, in its present version.
    pub is_fetched: bool,
}

/// An inventory as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    folders: BTreeMap<Uuid, KnownFolder>,
    items: BTreeMap<Uuid, InventoryItem>,
    root: Option<Uuid>,
    dropped: u64,
}

impl Inventory {
    /// An inventory whose folders are these; nothing is known of what is in them.
    pub fn of_skeleton(root: Option<Uuid>, skeleton: &[InventoryFolder]) -> Self {
        let mut inventory = Self { root, ..Self::default() };
        skeleton.iter().for_each(|folder| inventory.put_folder(folder.clone(), false));
        inventory
    }

    fn put_folder(&mut self, folder: InventoryFolder, is_fetched: bool) {
        let id = folder.folder_id;
        let known = self.folders.get(&id);
        if known.is_none() && self.folders.len() >= FOLDERS_MAX {
            self.dropped += 1;
            return;
        }
        let same =
            known.is_some_and(|known| known.is_fetched && known.folder.version == folder.version);
        self.folders.insert(id, KnownFolder { folder, is_fetched: is_fetched || same });
    }

    /// Takes in what was fetched of a folder: it has what is told, and nothing else.
    pub fn apply(&mut self, contents: &FolderContents) {
        let id = contents.folder_id;
        let known = self.folders.get(&id).map(|known| known.folder.clone());
        let folder = known.unwrap_or_else(|| InventoryFolder {
            folder_id: id,
            parent_id: Uuid::nil(),
            name: String::new(),
            type_default: -1,
            version: contents.version,
        });
        let version = contents.version;
        self.items.retain(|_, item| item.parent_id != id);
        let there = |folder: &Uuid| contents.folders.iter().any(|one| one.folder_id == *folder);
        self.folders.retain(|folder, known| known.folder.parent_id != id || there(folder));
        self.put_folder(InventoryFolder { version, ..folder }, true);
        for folder in &contents.folders {
            self.put_folder(InventoryFolder { parent_id: id, ..folder.clone() }, false);
        }
        for item in &contents.items {
            if self.items.len() >= ITEMS_MAX && !self.items.contains_key(&item.id) {
                self.dropped += 1;
                continue;
            }
            self.items.insert(item.id, InventoryItem { parent_id: id, ..item.clone() });
        }
    }

    /// Its root.
    pub const fn root(&self) -> Option<Uuid> {
        self.root
    }

    /// A folder.
    pub fn folder(&self, id: Uuid) -> Option<&KnownFolder> {
        self.folders.get(&id)
    }

    /// All folders, by id.
    pub fn folders(&self) -> impl ExactSizeIterator<Item = &KnownFolder> {
        self.folders.values()
    }

    /// An item.
    pub fn item(&self, id: Uuid) -> Option<&InventoryItem> {
        self.items.get(&id)
    }

    /// All items that are known, by id.
    pub fn items(&self) -> impl ExactSizeIterator<Item = &InventoryItem> {
        self.items.values()
    }

    /// Folders of which it is not known what is in them, by id; what the next fetches ask for.
    pub fn unfetched(&self) -> impl Iterator<Item = Uuid> {
        self.folders.values().filter(|known| !known.is_fetched).map(|known| known.folder.folder_id)
    }

    /// Folders and items that were told and not kept, because there are too many.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Uuid = Uuid::from_u128(1);

    fn folder_of(id: u128, parent: u128, version: i32) -> InventoryFolder {
        InventoryFolder {
            folder_id: Uuid::from_u128(id),
            parent_id: Uuid::from_u128(parent),
            name: format!("f{id}"),
            type_default: -1,
            version,
        }
    }

    const REPLY: &str = "{'folders':[{'folder_id':u00000000-0000-0000-0000-000000000001,\
        'version':i5,'descendents':i2,'categories':[\
        {'category_id':u00000000-0000-0000-0000-000000000002,'name':'Objects','type_default':i6,'version':i1},\
        {'name':'no id'}],'items':[{'item_id':'00000000-0000-0000-0000-000000000009',\
        'asset_id':u00000000-0000-0000-0000-000000000008,'name':'Hat','desc':'red','type':i5,'inv_type':i18,\
        'flags':i0,'created_at':i1700000000}]}],'bad_folders':[{'folder_id':\
        u00000000-0000-0000-0000-000000000007,'error':'Unknown'}]}";

    #[test]
    fn an_answer_tells_folders_and_items() {
        let fetched = Fetched::read(REPLY.as_bytes()).unwrap();
        let [contents] = fetched.folders.as_slice() else { panic!("one folder") };
        assert_eq!((contents.version, contents.broken), (5, 1));
        assert_eq!(contents.folders[0].name, "Objects");
        assert_eq!(contents.items[0].name, "Hat");
        assert_eq!(contents.items[0].parent_id, ROOT);
        assert_eq!(fetched.refused, [(Uuid::from_u128(7), "Unknown".to_owned())]);
        assert!(matches!(Fetched::read(b"{}"), Err(FetchError::Shape)));
    }

    #[test]
    fn a_folder_has_what_was_fetched_and_nothing_else() {
        let skeleton = [folder_of(1, 0, 4), folder_of(3, 1, 1)];
        let mut inventory = Inventory::of_skeleton(Some(ROOT), &skeleton);
        assert_eq!(inventory.unfetched().count(), 2);
        let fetched = Fetched::read(REPLY.as_bytes()).unwrap();
        inventory.apply(&fetched.folders[0]);
        assert!(inventory.folder(ROOT).unwrap().is_fetched);
        assert_eq!(inventory.folder(ROOT).unwrap().folder.version, 5);
        assert!(inventory.folder(Uuid::from_u128(3)).is_none(), "it is there no more");
        assert_eq!(inventory.unfetched().collect::<Vec<_>>(), [Uuid::from_u128(2)]);
        assert_eq!(inventory.items().count(), 1);
        inventory.apply(&FolderContents {
            folder_id: ROOT,
            version: 6,
            ..FolderContents::default()
        });
        assert_eq!((inventory.items().count(), inventory.folders().count()), (0, 1));
    }

    #[test]
    fn a_request_names_its_folders() {
        let body = fetch_body(Uuid::from_u128(5), &[ROOT]);
        let folder = body.get("folders").unwrap().at(0).unwrap();
        assert_eq!(folder.get("folder_id"), Some(&Value::Uuid(ROOT)));
        assert_eq!(folder.get("owner_id"), Some(&Value::Uuid(Uuid::from_u128(5))));
    }
}
