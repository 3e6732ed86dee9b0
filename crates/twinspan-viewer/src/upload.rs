//! Uploads of assets, which become items of the avatar's inventory.

mod udp;

use std::time::Duration;

use twinspan_circuit::SendError;
use twinspan_http::{Bytes, HttpClient, HttpError, Request, StatusCode, Url};
use twinspan_llsd::{Form, Limits, Value, parse_any};
use twinspan_lludp::Uuid;
use twinspan_provider::Env;

pub use udp::{
    UDP_UPLOAD_IDLE_MAX, UDP_UPLOAD_INLINE_BYTES_MAX, UDP_UPLOAD_TIME_MAX, UDP_UPLOADS_MAX,
};
pub(crate) use udp::{UdpUploads, UploadReply};

use crate::caps::{Capabilities, web_address};

/// Bytes of one upload. Grids have limits of their own below that.
pub const UPLOAD_BYTES_MAX: usize = 16 << 20;
/// How long each of the two requests of an upload may take.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_mins(2);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Letters of what a grid says about a refusal that are kept.
const REASON_CHARS_MAX: usize = 256;
pub(crate) const CAPABILITY: &str = "NewFileAgentInventory";
/// What the next owner may do: all but copy, which is the usual.
const NEXT_OWNER: i32 = 0x0008_2000;

/// What an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UploadKind {
    /// A texture, JPEG 2000.
    Texture,
    /// A sound, Ogg Vorbis.
    Sound,
    /// An animation.
    Animation,
    /// A gesture.
    Gesture,
    /// A notecard.
    Notecard,
    /// A script.
    Script,
}

impl UploadKind {
    /// What it is called as an asset, and as an item.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Texture => ("texture", "texture"),
            Self::Sound => ("sound", "sound"),
            Self::Animation => ("animatn", "animation"),
            Self::Gesture => ("gesture", "gesture"),
            Self::Notecard => ("notecard", "notecard"),
            Self::Script => ("lsltext", "script"),
        }
    }

    /// Its number as an asset, and as an item.
    const fn numbers(self) -> (i8, i8) {
        match self {
            Self::Texture => (0, 0),
            Self::Sound => (1, 1),
            Self::Notecard => (7, 7),
            Self::Script => (10, 10),
            Self::Animation => (20, 19),
            Self::Gesture => (21, 20),
        }
    }
}

/// How an upload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UploadWay {
    /// Over HTTP, by the capability `NewFileAgentInventory`.
    Capability,
    /// Over UDP, by `AssetUploadRequest`: what grids took before they had capabilities. It takes a
    /// round trip for each 1,000 bytes.
    Udp,
}

/// Something that becomes an item of the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// What it is.
    pub kind: UploadKind,
    /// What the item is called.
    pub name: String,
    /// What stands below that.
    pub description: String,
    /// The folder that it goes to; `None` for the usual one of its kind.
    pub folder: Option<Uuid>,
}

/// Something that was uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadedFile {
    /// The asset.
    pub asset_id: Uuid,
    /// The item of the inventory.
    pub item_id: Uuid,
    /// How it went.
    pub by: UploadWay,
}

/// Why nothing was uploaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// There is no connection to ask over.
    #[error("the client is not connected")]
    NotConnected,
    /// As much is under way as may be at a time.
    #[error("too much is under way at the time, wait for some of it")]
    Busy,
    /// The region takes no uploads.
    #[error("the region offers no capability for uploads")]
    NoCapability,
    /// It is empty, or longer than can be.
    #[error("{bytes} bytes, upload 1 to {UPLOAD_BYTES_MAX}")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// Its name or description is longer than UDP has room for.
    #[error("a text of {bytes} bytes, use 254 at most")]
    Text {
        /// Its length.
        bytes: usize,
    },
    /// The grid refused it.
    #[error("the grid refused it: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The server answered with something else.
    #[error("the server answered with status {status}")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The answer means nothing.
    #[error("the server's answer means nothing")]
    Broken,
    /// There was no answer. The asset may be there.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The request could not be sent over UDP.
    #[error("the request could not be sent: {0}")]
    Send(#[from] SendError),
    /// The region stopped fetching it, with this number.
    #[error("the region stopped fetching it, code {code}")]
    Aborted {
        /// As the protocol has it.
        code: i32,
    },
    /// The region made no step for too long, or took too long in all. The asset may be there.
    #[error(
        "the region made no step for {UDP_UPLOAD_IDLE_MAX:?}, or took longer than \
         {UDP_UPLOAD_TIME_MAX:?}"
    )]
    TimedOut,
    /// The region that it went to is gone. The asset may be there.
    #[error("the region is gone")]
    RegionLost,
}

/// Uploads an asset.
///
/// # Errors
/// [`UploadError`]
///
/// # Cancel safety
/// Dropping the future closes the connection; the asset may be there.
pub async fn upload_file<E: Env>(
    http: &HttpClient<E>,
    caps: &Capabilities,
    file: &NewFile,
    bytes: Bytes,
) -> Result<UploadedFile, UploadError> {
    if !(1..=UPLOAD_BYTES_MAX).contains(&bytes.len()) {
        return Err(UploadError::Length { bytes: bytes.len() });
    }
    let to = caps.get(CAPABILITY).ok_or(UploadError::NoCapability)?;
    let body = Form::Xml.write(&announcement(file)).map_err(|_| UploadError::Broken)?;
    let answer = post(http, to.clone(), Form::Xml.content_type(), body.into()).await?;
    let Step::GoOn(uploader) = step(&answer)? else { return Err(UploadError::Broken) };
    let answer = post(http, uploader, "application/octet-stream", bytes).await?;
    match step(&answer)? {
        Step::Done(uploaded) => Ok(uploaded),
        Step::GoOn(_) => Err(UploadError::Broken),
    }
}

fn announcement(file: &NewFile) -> Value {
    let (asset_type, inventory_type) = file.kind.words();
    Value::map([
        ("folder_id", Value::from(file.folder.unwrap_or_default())),
        ("asset_type", asset_type.into()),
        ("inventory_type", inventory_type.into()),
        ("name", file.name.as_str().into()),
        ("description", file.description.as_str().into()),
        ("everyone_mask", 0.into()),
        ("group_mask", 0.into()),
        ("next_owner_mask", NEXT_OWNER.into()),
    ])
}

async fn post<E: Env>(
    http: &HttpClient<E>,
    to: Url,
    content_type: &str,
    body: Bytes,
) -> Result<Bytes, UploadError> {
    let request = Request::post(to, content_type, body)
        .with_timeout(UPLOAD_TIMEOUT)
        .with_response_bytes_max(ANSWER_BYTES_MAX);
    let response = http.send(request).await?;
    if response.status != StatusCode::OK {
        return Err(UploadError::Status { status: response.status });
    }
    Ok(response.body)
}

/// What an answer asks for, or tells.
#[derive(Debug, PartialEq)]
enum Step {
    GoOn(Url),
    Done(UploadedFile),
}

fn step(answer: &[u8]) -> Result<Step, UploadError> {
    let limits = Limits { bytes_max: ANSWER_BYTES_MAX, ..Limits::DEFAULT };
    let answer = parse_any(answer, &limits).map_err(|_| UploadError::Broken)?;
    let text = |key| answer.get(key).and_then(Value::as_text).unwrap_or_default();
    match text("state") {
        "upload" => web_address(text("uploader")).map(Step::GoOn).ok_or(UploadError::Broken),
        "complete" => {
            let id = |key| answer.get(key).and_then(Value::to_uuid).filter(|id| !id.is_nil());
            let asset_id = id("new_asset").ok_or(UploadError::Broken)?;
            let item_id = id("new_inventory_item").ok_or(UploadError::Broken)?;
            let by = UploadWay::Capability;
            Ok(Step::Done(UploadedFile { asset_id, item_id, by }))
        }
        _ => {
            let error = answer.get("error");
            let said = error.and_then(|error| error.get("message")).and_then(Value::as_text);
            let said = said.or_else(|| answer.get("message").and_then(Value::as_text));
            match said {
                Some(reason) => {
                    let reason = reason.chars().take(REASON_CHARS_MAX).collect();
                    Err(UploadError::Refused { reason })
                }
                None => Err(UploadError::Broken),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Step, UploadError> {
        step(text.as_bytes())
    }

    #[test]
    fn answers_go_on_end_or_refuse() {
        let go_on = read("{'state':'upload','uploader':'http://g/up/1'}").unwrap();
        assert_eq!(go_on, Step::GoOn(Url::parse("http://g/up/1").unwrap()));
        let [asset_id, item_id] = [1, 2].map(Uuid::from_u128);
        let done = read(&format!(
            "{{'state':'complete','new_asset':u{asset_id},'new_inventory_item':u{item_id}}}"
        ));
        let by = UploadWay::Capability;
        assert_eq!(done.unwrap(), Step::Done(UploadedFile { asset_id, item_id, by }));
        let refused = read("{'state':'error','error':{'message':'no room'}}");
        assert!(matches!(refused, Err(UploadError::Refused { reason }) if reason == "no room"));
        for broken in ["", "{}", "{'state':'upload','uploader':'file:///etc/passwd'}", "[]"] {
            assert!(matches!(read(broken), Err(UploadError::Broken)), "{broken}");
        }
    }

    #[test]
    fn a_file_is_announced_in_the_grids_words() {
        let file = NewFile {
            kind: UploadKind::Animation,
            name: "Wave".into(),
            description: String::new(),
            folder: None,
        };
        let told = announcement(&file);
        assert_eq!(told.get("asset_type").and_then(Value::as_text), Some("animatn"));
        assert_eq!(told.get("inventory_type").and_then(Value::as_text), Some("animation"));
        assert_eq!(told.get("folder_id").and_then(Value::to_uuid), Some(Uuid::nil()));
    }

    proptest! {
        #[test]
        fn any_answer_is_a_step_or_names_a_reason(bytes: Vec<u8>) {
            let _ = step(&bytes);
        }
    }
}
