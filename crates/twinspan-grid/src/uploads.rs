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

/// What is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Announced {
    kind: AssetKind,
    folder_id: Uuid,
    name: String,
    description: String,
}

/// Uploads that were announced, by circuit code and number.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    announced: BTreeMap<(u32, u64), Announced>,
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
        let text = |key: &str, chars: usize| -> String {
            let text = request.get(key).and_then(Value::as_text).unwrap_or_default();
            text.chars().filter(|letter| !letter.is_control()).take(chars).collect()
        };
        let kind = request.get("asset_type")?.as_text()?;
        let Some(kind) = AssetKind::of_upload(kind) else {
            return Some(Err("assets of this type are not taken"));
        };
        let asked = request.get("folder_id").and_then(Value::to_uuid).filter(|id| !id.is_nil());
        let folder_id = asked.unwrap_or_else(|| inventory::usual_folder(owner, kind));
        if !inventory::skeleton(owner).iter().any(|folder| folder.folder_id == folder_id) {
            return Some(Err("there is no such folder"));
        }
        if !grid.library.has_room(owner, 0) {
            return Some(Err("the grid has no room for more"));
        }
        let name = text("name", NAME_CHARS_MAX);
        if name.trim().is_empty() {
            return Some(Err("it has no name"));
        }
        let description = text("description", DESCRIPTION_CHARS_MAX);
        while self.announced.range((code, 0)..=(code, u64::MAX)).count() >= ANNOUNCED_MAX
            && let Some((key, _)) = self.announced.range((code, 0)..).next()
        {
            let oldest = *key;
            self.announced.remove(&oldest);
        }
        self.made += 1;
        let announced = Announced { kind, folder_id, name, description };
        self.announced.insert((code, self.made), announced);
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
        let Announced { kind, folder_id, name, description } =
            self.announced.remove(&(code, number))?;
        if bytes.is_empty() {
            return Some(Err("it is empty"));
        }
        let (item_id, asset_id) = (grid.draw_id(), grid.draw_id());
        let item = Uploaded { item_id, asset_id, folder_id, kind, name, description };
        let kept = grid.library.keep(owner, item, bytes);
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
