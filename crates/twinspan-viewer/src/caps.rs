//! Capabilities: what a region lets an agent do over HTTP, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use twinspan_circuit::Seed;
use twinspan_http::{HttpClient, HttpError, Request, StatusCode, Url};
use twinspan_llsd::{Form, Limits, ParseError, Value};
use twinspan_provider::Env;

/// What is asked for.
pub const CAPABILITIES: &[&str] = &[
    "AgentPreferences",
    "AvatarPickerSearch",
    "ChatSessionRequest",
    "CopyInventoryFromNotecard",
    "CreateInventoryCategory",
    "DispatchRegionInfo",
    "EnvironmentSettings",
    "EstateChangeInfo",
    "EventQueueGet",
    "FetchInventory2",
    "FetchInventoryDescendents2",
    "FetchLib2",
    "FetchLibDescendents2",
    "GetDisplayNames",
    "GetMesh",
    "GetMesh2",
    "GetObjectCost",
    "GetObjectPhysicsData",
    "GetTexture",
    "GroupMemberData",
    "HomeLocation",
    "MapLayer",
    "NewFileAgentInventory",
    "ObjectMedia",
    "ObjectMediaNavigate",
    "ParcelPropertiesUpdate",
    "ReadOfflineMsgs",
    "RemoteParcelRequest",
    "RenderMaterials",
    "SendUserReport",
    "ServerReleaseNotes",
    "SetDisplayName",
    "SimConsoleAsync",
    "SimulatorFeatures",
    "UntrustedSimulatorMessage",
    "UpdateAgentInformation",
    "UpdateAgentLanguage",
    "ViewerAsset",
];

/// Capabilities of one region that are kept.
pub const CAPABILITIES_MAX: usize = 512;
/// Bytes of the answer to a seed.
pub const SEED_REPLY_BYTES_MAX: usize = 1 << 20;
/// How often a seed is asked at most.
pub const SEED_ATTEMPTS_MAX: u32 = 30;
/// How long to wait after the first failure; it doubles up to [`SEED_WAIT_MAX`].
pub const SEED_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between two attempts.
pub const SEED_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long an answer is waited for.
const SEED_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a seed gave no capabilities.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// The seed is no address.
    #[error("the seed of the region is no address of http or https")]
    Address,
    /// There was no answer.
    #[error("the seed of the region did not answer: {0}")]
    Http(#[from] HttpError),
    /// An answer without success.
    #[error("the seed of the region answered with status {status}")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The answer is no LLSD.
    #[error("the answer of the seed cannot be read: {0}")]
    Llsd(#[from] ParseError),
    /// The answer is no map of addresses.
    #[error("the answer of the seed is no map of addresses")]
    Shape,
    /// It names more than the limit.
    #[error("the seed names more than {CAPABILITIES_MAX} capabilities")]
    TooMany,
}

impl SeedError {
    /// Whether another attempt may go better.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Http(_) => true,
            // The region does not know the seed, or the agent, any more.
            Self::Status { status } => !matches!(status.as_u16(), 400 | 401 | 403 | 404 | 410),
            _ => false,
        }
    }
}

/// The capabilities of one region. Their addresses let others act for the agent: `Debug` shows
/// their names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeMap<String, Url>);

impl Capabilities {
    /// Reads the answer of a seed. What is no address of http or https is left out.
    ///
    /// # Errors
    /// [`SeedError`]
    pub fn read(bytes: &[u8]) -> Result<Self, SeedError> {
        let limits = Limits { bytes_max: SEED_REPLY_BYTES_MAX, ..Limits::DEFAULT };
        let Value::Map(map) = twinspan_llsd::parse_any(bytes, &limits)? else {
            return Err(SeedError::Shape);
        };
        if map.len() > CAPABILITIES_MAX {
            return Err(SeedError::TooMany);
        }
        let usable = map
            .into_iter()
            .filter_map(|(name, value)| Some((name, web_address(value.as_text()?)?)));
        Ok(Self(usable.collect()))
    }

    /// Where a capability is.
    pub fn get(&self, name: &str) -> Option<&Url> {
        self.0.get(name)
    }

    /// Their names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An address of http or https with a host.
pub(crate) fn web_address(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let known = matches!(url.scheme(), "http" | "https");
    (known && url.host_str().is_some_and(|host| !host.is_empty())).then_some(url)
}

/// Asks a seed once for these capabilities.
///
/// # Errors
/// [`SeedError`]
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn ask_seed<E: Env>(
    http: &HttpClient<E>,
    seed: &Seed,
    names: &[&str],
) -> Result<Capabilities, SeedError> {
    let url = web_address(seed.url()).ok_or(SeedError::Address)?;
    let names = names.iter().map(|name| Value::from(*name)).collect();
    // An array of texts can always be written.
    let body = Form::Xml.write(&Value::Array(names)).unwrap_or_default();
    let request = Request::post(url, Form::Xml.content_type(), body)
        .with_timeout(SEED_TIMEOUT)
        .with_response_bytes_max(SEED_REPLY_BYTES_MAX);
    let response = http.send(request).await?;
    if !response.status.is_success() {
        return Err(SeedError::Status { status: response.status });
    }
    Capabilities::read(&response.body)
}

/// How long to wait after this many failures in a row; `None` when it is enough.
pub(crate) fn seed_wait(failures: u32) -> Option<Duration> {
    let doubled = SEED_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10));
    (failures < SEED_ATTEMPTS_MAX).then(|| doubled.min(SEED_WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_addresses_and_the_rest_is_left_out() {
        let text =
            b"<llsd><map><key>EventQueueGet</key><string>http://10.0.0.2:9000/CE/secret</string>\
            <key>GetTexture</key><uri>https://cdn/t</uri><key>Bad</key><string>file:///x</string>\
            <key>Worse</key><integer>7</integer></map></llsd>";
        let caps = Capabilities::read(text).unwrap();
        assert_eq!(caps.names().collect::<Vec<_>>(), ["EventQueueGet", "GetTexture"]);
        assert_eq!(caps.get("GetTexture").unwrap().host_str(), Some("cdn"));
        assert!(!format!("{caps:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        assert!(matches!(Capabilities::read(b"<llsd><array/></llsd>"), Err(SeedError::Shape)));
        assert!(matches!(Capabilities::read(b"<html>"), Err(SeedError::Llsd(_))));
        let many: String = (0..=CAPABILITIES_MAX)
            .map(|number| format!("<key>c{number}</key><string>http://a/</string>"))
            .collect();
        let many = format!("<llsd><map>{many}</map></llsd>");
        assert!(matches!(Capabilities::read(many.as_bytes()), Err(SeedError::TooMany)));
    }

    #[test]
    fn waits_grow_up_to_a_limit_and_attempts_end() {
        let seconds = |failures| seed_wait(failures).map(|wait| wait.as_secs());
        assert_eq!([1, 2, 3, 4, 5, 29].map(seconds), [1, 2, 4, 8, 10, 10].map(Some));
        assert_eq!(seconds(30), None);
    }

    #[test]
    fn names_are_sorted_and_each_is_there_once() {
        assert!(CAPABILITIES.is_sorted_by(|one, other| one < other));
    }
}
