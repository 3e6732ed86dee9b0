//! Textures, meshes and other assets over HTTP, whole or in part.

use std::time::Duration;

use twinspan_http::{Bytes, HttpClient, HttpError, Request, StatusCode, Url, header};
use twinspan_lludp::Uuid;
use twinspan_provider::Env;

use crate::caps::{Capabilities, web_address};

/// Bytes of one asset, or of the part of one that is asked for.
pub const ASSET_BYTES_MAX: usize = 32 << 20;
/// Redirects that are followed for one asset.
pub const ASSET_REDIRECTS_MAX: u32 = 3;
/// How long an asset may take.
pub const ASSET_TIMEOUT: Duration = Duration::from_secs(60);

/// What kind of thing an asset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AssetKind {
    /// A texture, JPEG 2000.
    Texture,
    /// A mesh.
    Mesh,
    /// A sound.
    Sound,
    /// A landmark.
    Landmark,
    /// A piece of clothing.
    Clothing,
    /// A body part.
    BodyPart,
    /// An animation.
    Animation,
    /// A gesture.
    Gesture,
    /// Settings of the environment.
    Settings,
    /// A material.
    Material,
}

impl AssetKind {
    /// Its name where assets are asked for.
    const fn word(self) -> &'static str {
        match self {
            Self::Texture => "texture",
            Self::Mesh => "mesh",
            Self::Sound => "sound",
            Self::Landmark => "landmark",
            Self::Clothing => "clothing",
            Self::BodyPart => "bodypart",
            Self::Animation => "animatn",
            Self::Gesture => "gesture",
            Self::Settings => "settings",
            Self::Material => "material",
        }
    }

    /// The capabilities that have it, best first.
    const fn capabilities(self) -> &'static [&'static str] {
        match self {
            Self::Texture => &["ViewerAsset", "GetTexture"],
            Self::Mesh => &["ViewerAsset", "GetMesh2", "GetMesh"],
            _ => &["ViewerAsset"],
        }
    }
}

/// A part of an asset, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// The first byte.
    pub from: u64,
    /// The last byte; `None` for the end.
    pub to: Option<u64>,
}

/// An asset, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its bytes.
    pub bytes: Bytes,
    /// The first of them in the whole.
    pub from: u64,
    /// Bytes of the whole, where the server said so.
    pub total: Option<u64>,
}

/// Why there is no asset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssetError {
    /// The region has no capability for it.
    #[error("the region offers no capability for a {kind}")]
    NoCapability {
        /// What was asked for.
        kind: &'static str,
    },
    /// There is no such asset.
    #[error("there is no such asset")]
    NotFound,
    /// The asset has no such part.
    #[error("the asset ends before byte {from}")]
    BeyondEnd {
        /// The first byte that was asked for.
        from: u64,
    },
    /// The range is none.
    #[error("a range from {from} to {to}, which has nothing in it")]
    EmptyRange {
        /// The first byte.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The server answered with something else.
    #[error("the server answered with status {status}")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The server answered with another part than was asked for.
    #[error("the server sent another part than was asked for")]
    WrongRange,
    /// One redirect after another, or one to no address.
    #[error("redirects that lead nowhere")]
    Redirects,
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// As much is fetched as may be at a time.
    #[error("too much is fetched at the time, wait for some of it")]
    Busy,
    /// There is no connection to ask over.
    #[error("the client is not connected")]
    NotConnected,
}

/// The address of an asset.
fn address(caps: &Capabilities, kind: AssetKind, id: Uuid) -> Result<Url, AssetError> {
    let cap = kind.capabilities().iter().find_map(|name| caps.get(name));
    let mut url = cap.ok_or(AssetError::NoCapability { kind: kind.word() })?.clone();
    url.query_pairs_mut().append_pair(&format!("{}_id", kind.word()), &id.to_string());
    Ok(url)
}

/// Fetches an asset or a part of it.
///
/// # Errors
/// [`AssetError`]
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn fetch_asset<E: Env>(
    http: &HttpClient<E>,
    caps: &Capabilities,
    kind: AssetKind,
    id: Uuid,
    range: Option<ByteRange>,
) -> Result<Asset, AssetError> {
    if let Some(ByteRange { from, to: Some(to) }) = range
        && to < from
    {
        return Err(AssetError::EmptyRange { from, to });
    }
    let mut url = address(caps, kind, id)?;
    for _ in 0..=ASSET_REDIRECTS_MAX {
        let mut request = Request::get(url.clone())
            .with_timeout(ASSET_TIMEOUT)
            .with_response_bytes_max(ASSET_BYTES_MAX);
        if let Some(range) = range {
            request = request.with_range(range.from, range.to);
        }
        let response = http.send(request).await?;
        if let 301 | 302 | 307 | 308 = response.status.as_u16() {
            let to = response.headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url.join(to).ok()).and_then(|to| web_address(to.as_str()));
            url = to.ok_or(AssetError::Redirects)?;
            continue;
        }
        let part = response.headers.get(header::CONTENT_RANGE).and_then(|part| part.to_str().ok());
        return taken(response.status, part, response.body, range);
    }
    Err(AssetError::Redirects)
}

/// What an answer is.
pub(crate) fn taken(
    status: StatusCode,
    part: Option<&str>,
    bytes: Bytes,
    range: Option<ByteRange>,
) -> Result<Asset, AssetError> {
    match (status.as_u16(), range) {
        // A server may send the whole where a part was asked for.
        (200, Some(range)) => {
            let total = bytes.len();
            let from = usize::try_from(range.from).unwrap_or(usize::MAX);
            if from >= total {
                return Err(AssetError::BeyondEnd { from: range.from });
            }
            let last = range.to.and_then(|to| usize::try_from(to).ok()).unwrap_or(usize::MAX);
            let end = last.saturating_add(1).min(total);
            let bytes = bytes.slice(from..end.max(from));
            Ok(Asset { bytes, from: range.from, total: Some(total as u64) })
        }
        (200, None) => Ok(Asset { from: 0, total: Some(bytes.len() as u64), bytes }),
        (206, Some(range)) => {
            let (from, to, total) = part.and_then(content_range).ok_or(AssetError::WrongRange)?;
            let fits = to.checked_sub(from).and_then(|span| span.checked_add(1));
            if from != range.from || fits != Some(bytes.len() as u64) {
                return Err(AssetError::WrongRange);
            }
            Ok(Asset { bytes, from, total })
        }
        (206, None) => Err(AssetError::WrongRange),
        (404 | 410, _) => Err(AssetError::NotFound),
        (416, Some(range)) => Err(AssetError::BeyondEnd { from: range.from }),
        _ => Err(AssetError::Status { status }),
    }
}

/// `bytes 0-9/100`, with `*` for an unknown length.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (part, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = part.trim().split_once('-')?;
    let total = total.trim();
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Option<ByteRange> = Some(ByteRange { from: 2, to: Some(4) });

    fn ok(status: u16) -> StatusCode {
        StatusCode::from_u16(status).unwrap()
    }

    #[test]
    fn assets_are_asked_for_by_the_best_capability() {
        let caps = |text: &str| Capabilities::read(text.as_bytes()).unwrap();
        let both = caps("{'ViewerAsset':'http://a/va','GetTexture':'http://a/gt/'}");
        let id = Uuid::from_u128(1);
        let url = address(&both, AssetKind::Texture, id).unwrap();
        assert_eq!(url.as_str(), format!("http://a/va?texture_id={id}"));
        let old = caps("{'GetTexture':'http://a/gt/?x=1'}");
        let url = address(&old, AssetKind::Texture, id).unwrap();
        assert_eq!(url.as_str(), format!("http://a/gt/?x=1&texture_id={id}"));
        let none = address(&old, AssetKind::Sound, id);
        assert!(matches!(none, Err(AssetError::NoCapability { kind: "sound" })));
    }

    #[test]
    fn a_part_is_the_part_that_was_asked_for() {
        let body = Bytes::from_static(b"cde");
        let part = taken(ok(206), Some("bytes 2-4/26"), body.clone(), PART).unwrap();
        assert_eq!((part.from, part.total, part.bytes), (2, Some(26), body.clone()));
        for wrong in
            [None, Some("bytes 3-5/26"), Some("bytes 2-5/26"), Some("bytes 4-2/26"), Some("x")]
        {
            let part = taken(ok(206), wrong, body.clone(), PART);
            assert!(matches!(part, Err(AssetError::WrongRange)), "{wrong:?}");
        }
    }

    #[test]
    fn a_whole_where_a_part_was_asked_for_is_cut() {
        let whole = Bytes::from_static(b"abcdefgh");
        let part = taken(ok(200), None, whole.clone(), PART).unwrap();
        assert_eq!(part.bytes.as_ref(), b"cde");
        let beyond = Some(ByteRange { from: 8, to: None });
        let none = taken(ok(200), None, whole, beyond);
        assert!(matches!(none, Err(AssetError::BeyondEnd { from: 8 })));
    }

    #[test]
    fn failures_have_their_types() {
        let failed = |status, range| taken(ok(status), None, Bytes::new(), range).unwrap_err();
        assert!(matches!(failed(404, None), AssetError::NotFound));
        assert!(matches!(failed(416, PART), AssetError::BeyondEnd { from: 2 }));
        assert!(matches!(failed(503, PART), AssetError::Status { .. }));
    }
}
