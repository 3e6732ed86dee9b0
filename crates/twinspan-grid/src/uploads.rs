//! Uploads: a request says what comes, and a second one brings it.

use std::collections::BTreeMap;

use twinspan_llsd::Value;
use twinspan_lludp::Uuid;

use crate::assets::{AssetKind, Uploaded};
use crate::grid::Grid;
use crate::inventory;

/// Uploads of one user that may be announced at a time; past it the oldest is forgotten.
pub(crate) const ANNOUNCED_MAX: usize = 4;
/// Letters of a name and of a description that are kept.
const NAME_CHARS_MAX: usize = 63;
const DESCRIPTION_CHARS_MAX: usize = 127;

/// An item that somebody wants to be made of what he uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) kind: AssetKind,
    /// The folder that it goes to; nil for the usual one of its kind.
    pub(crate) folder_id: Uuid,
    pub(crate) name: String,
    pub(crate) description: String,
}

impl Wish {
    /// The wish as it can be granted, or why it cannot.
    pub(crate) fn check(self, grid: &Grid, owner: Uuid) -> Result<Self, &'static str> {
        let text = |text: &str, chars: usize| -> String {
            text.chars().filter(|letter| !letter.is_control()).take(chars).collect()
        };
        let asked = Some(self.folder_id).filter(|id| !id.is_nil());
        let folder_id = asked.unwrap_or_else(|| inventory::usual_folder(owner, self.kind));
        if !inventory::skeleton(owner).iter().any(|folder| folder.folder_id == folder_id) {
            return Err("there is no such folder");
        }
        if !grid.library.has_room(owner, 0) {
            return Err("the grid has no room for more");
        }
        let name = text(&self.name, NAME_CHARS_MAX);
        if name.trim().is_empty() {
            return Err("it has no name");
        }
        let description = text(&self.description, DESCRIPTION_CHARS_MAX);
        Ok(Self { kind: self.kind, folder_id, name, description })
    }

    /// The item.
    pub(crate) fn item(self, item_id: Uuid, asset_id: Uuid) -> Uploaded {
        let Self { kind, folder_id, name, description } = self;
        Uploaded { item_id, asset_id, folder_id, kind, name, description }
    }
}

/// Uploads that were announced, by circuit code and number.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    announced: BTreeMap<(u32, u64), Wish>,
    made: u64,
}

impl Uploads {
    /// Somebody says what is to come: the number under which it may, or why it may not. `None` when
    /// that is no request.
    pub(crate) fn announce(
        &mut self,
        grid: &Grid,
        (code, owner): (u32, Uuid),
        request: &Value,
    ) -> Option<Result<u64, &'static str>> {
        let text = |key| request.get(key).and_then(Value::as_text).unwrap_or_default().to_owned();
        let kind = request.get("asset_type")?.as_text()?;
        let Some(kind) = AssetKind::of_upload(kind) else {
            return Some(Err("assets of this type are not taken"));
        };
        let folder_id = request.get("folder_id").and_then(Value::to_uuid).unwrap_or_default();
        let (name, description) = (text("name"), text("description"));
        let wish = match (Wish { kind, folder_id, name, description }).check(grid, owner) {
            Ok(wish) => wish,
            Err(refusal) => return Some(Err(refusal)),
        };
        while self.announced.range((code, 0)..=(code, u64::MAX)).count() >= ANNOUNCED_MAX
            && let Some((key, _)) = self.announced.range((code, 0)..).next()
        {
            let oldest = *key;
            self.announced.remove(&oldest);
        }
        self.made += 1;
        self.announced.insert((code, self.made), wish);
        Some(Ok(self.made))
    }

    /// What was announced comes: its asset and item, or why it is not kept; `None` when nothing was
    /// announced under this number.
    pub(crate) fn bring(
        &mut self,
        grid: &mut Grid,
        (code, owner): (u32, Uuid),
        number: u64,
        bytes: &[u8],
    ) -> Option<Result<(Uuid, Uuid), &'static str>> {
        let wish = self.announced.remove(&(code, number))?;
        if bytes.is_empty() {
            return Some(Err("it is empty"));
        }
        let (item_id, asset_id) = (grid.draw_id(), grid.draw_id());
        let kept = grid.library.keep(owner, wish.item(item_id, asset_id), bytes);
        Some(if kept { Ok((asset_id, item_id)) } else { Err("the grid has no room for more") })
    }

    /// Nothing comes any more from those who are gone.
    pub(crate) fn retain(&mut self, is_here: impl Fn(u32) -> bool) {
        self.announced.retain(|(code, _), _| is_here(*code));
    }
}

/// Where the bytes are to be sent.
pub(crate) fn go_on(uploader: String) -> Value {
    Value::map([("state", "upload".into()), ("uploader", uploader.into())])
}

/// All is there.
pub(crate) fn complete((asset_id, item_id): (Uuid, Uuid)) -> Value {
    Value::map([
        ("state", "complete".into()),
        ("success", true.into()),
        ("new_asset", asset_id.into()),
        ("new_inventory_item", item_id.into()),
    ])
}

/// It is not taken.
pub(crate) fn refused(reason: &str) -> Value {
    let error =
        Value::map([("identifier", Value::from("UploadRefused")), ("message", reason.into())]);
    Value::map([("state", "error".into()), ("error", error)])
}
