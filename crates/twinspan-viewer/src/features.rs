//! What a region's simulator says it can do: the capability `SimulatorFeatures`.

use std::time::Duration;

use twinspan_http::{HttpClient, HttpError, Request, StatusCode, Url};
use twinspan_llsd::{Limits, Map, ParseError, Value};
use twinspan_provider::Env;

use crate::caps::{Capabilities, web_address};

/// Bytes of what a simulator says.
pub const FEATURES_BYTES_MAX: usize = 256 << 10;
/// How long it may take to say it.
pub const FEATURES_TIMEOUT: Duration = Duration::from_secs(30);
/// How far chat is heard where a grid does not say otherwise, in metres: whispered, said, shouted.
pub const CHAT_RANGES: [f32; 3] = [10.0, 20.0, 100.0];

/// What a region's simulator says it can do. What it does not mention it cannot do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SimulatorFeatures {
    /// Meshes are shown.
    pub mesh_rez: bool,
    /// Meshes may be uploaded.
    pub mesh_upload: bool,
    /// Meshes are sent.
    pub mesh_transfer: bool,
    /// Things have materials for physics.
    pub physics_materials: bool,
    /// Avatars may hover at a height of their own.
    pub avatar_hover_height: bool,
    /// Baked textures may be put on meshes.
    pub bakes_on_mesh: bool,
    /// Materials of one request at most, where it says so.
    pub materials_per_request_max: Option<u32>,
    /// What grids of OpenSimulator add.
    pub opensim: Option<OpenSimFeatures>,
    /// All else, as it came.
    pub rest: Map,
}

/// What grids of OpenSimulator add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenSimFeatures {
    /// The grid's name.
    pub grid_name: Option<String>,
    /// Where the grid is.
    pub grid_url: Option<Url>,
    /// Where pictures of the map are.
    pub map_server_url: Option<Url>,
    /// Where the grid can be searched.
    pub search_server_url: Option<Url>,
    /// The sign of its money.
    pub currency: Option<String>,
    /// Where its money is kept.
    pub currency_url: Option<Url>,
    /// Whether things may leave the grid with those who own them.
    pub export: bool,
    /// How far a whisper is heard, in metres.
    pub whisper_range: Option<f32>,
    /// How far what is said is heard, in metres.
    pub say_range: Option<f32>,
    /// How far a shout is heard, in metres.
    pub shout_range: Option<f32>,
    /// All else, as it came.
    pub rest: Map,
}

/// Why a simulator did not say what it can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeaturesError {
    /// There is no connection.
    #[error("the client is not connected")]
    NotConnected,
    /// Too much is fetched at the moment.
    #[error("too much is fetched at the moment, wait for some of it")]
    Busy,
    /// The region has no such capability.
    #[error("the region offers no SimulatorFeatures")]
    NoCapability,
    /// There was no answer.
    #[error("the region did not say what it can do: {0}")]
    Http(#[from] HttpError),
    /// An answer without success.
    #[error("the region answered with status {status}")]
    Status {
        /// What it answered with.
        status: StatusCode,
    },
    /// The answer is no LLSD.
    #[error("what the region can do cannot be read: {0}")]
    Llsd(#[from] ParseError),
    /// The answer is no map.
    #[error("what the region can do is no map")]
    Shape,
}

/// Takes fields out of a map; those that are of no use stay.
struct Taken(Map);

impl Taken {
    fn take<T>(&mut self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = read(self.0.get(name)?)?;
        self.0.remove(name);
        Some(value)
    }

    fn is(&mut self, name: &str) -> bool {
        self.take(name, Value::to_bool).unwrap_or_default()
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let text = |value: &Value| value.to_text().map(std::borrow::Cow::into_owned);
        self.take(name, |value| text(value).filter(|text| !text.is_empty()))
    }

    fn url(&mut self, name: &str) -> Option<Url> {
        self.take(name, |value| web_address(&value.to_text()?))
    }

    /// Metres: more than none, and fewer than a grid has.
    fn metres(&mut self, name: &str) -> Option<f32> {
        let fits = |metres: &f64| (0.0..=16_777_216.0).contains(metres);
        self.take(name, |value| value.to_f64().filter(fits).map(|metres| metres as f32))
    }
}

impl SimulatorFeatures {
    /// Reads what a simulator says.
    ///
    /// # Errors
    /// [`FeaturesError::Llsd`], [`FeaturesError::Shape`]
    pub fn read(bytes: &[u8]) -> Result<Self, FeaturesError> {
        let limits = Limits { bytes_max: FEATURES_BYTES_MAX, ..Limits::DEFAULT };
        let Value::Map(map) = twinspan_llsd::parse_any(bytes, &limits)? else {
            return Err(FeaturesError::Shape);
        };
        let mut fields = Taken(map);
        let extras = match fields.0.remove("OpenSimExtras") {
            Some(Value::Map(extras)) => Some(OpenSimFeatures::of(extras)),
            _ => None,
        };
        Ok(Self {
            mesh_rez: fields.is("MeshRezEnabled"),
            mesh_upload: fields.is("MeshUploadEnabled"),
            mesh_transfer: fields.is("MeshXferEnabled"),
            physics_materials: fields.is("PhysicsMaterialsEnabled"),
            avatar_hover_height: fields.is("AvatarHoverHeightEnabled"),
            bakes_on_mesh: fields.is("BakesOnMeshEnabled"),
            materials_per_request_max: fields.take("MaxMaterialsPerTransaction", Value::to_u32),
            opensim: extras,
            rest: fields.0,
        })
    }

    /// How far chat is heard, in metres: whispered, said, shouted.
    pub fn chat_ranges(&self) -> [f32; 3] {
        let [whisper, say, shout] = CHAT_RANGES;
        let Some(told) = &self.opensim else { return CHAT_RANGES };
        [
            told.whisper_range.unwrap_or(whisper),
            told.say_range.unwrap_or(say),
            told.shout_range.unwrap_or(shout),
        ]
    }
}

impl OpenSimFeatures {
    fn of(map: Map) -> Self {
        let mut fields = Taken(map);
        Self {
            grid_name: fields.text("GridName"),
            grid_url: fields.url("GridURL"),
            map_server_url: fields.url("map-server-url"),
            search_server_url: fields.url("search-server-url"),
            currency: fields.text("currency"),
            currency_url: fields.url("currency-base-uri"),
            export: fields.is("ExportSupported"),
            whisper_range: fields.metres("whisper-range"),
            say_range: fields.metres("say-range"),
            shout_range: fields.metres("shout-range"),
            rest: fields.0,
        }
    }
}

/// Asks a region's simulator what it can do.
///
/// # Errors
/// [`FeaturesError`]
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn fetch_features<E: Env>(
    http: &HttpClient<E>,
    caps: &Capabilities,
) -> Result<SimulatorFeatures, FeaturesError> {
    let url = caps.get("SimulatorFeatures").ok_or(FeaturesError::NoCapability)?;
    let request = Request::get(url.clone())
        .with_timeout(FEATURES_TIMEOUT)
        .with_response_bytes_max(FEATURES_BYTES_MAX);
    let response = http.send(request).await?;
    if !response.status.is_success() {
        return Err(FeaturesError::Status { status: response.status });
    }
    SimulatorFeatures::read(&response.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OpenSimulator says it, numbers as texts and reals among them.
    const OPENSIM: &str = "<llsd><map><key>MeshRezEnabled</key><boolean>1</boolean>\
        <key>MeshUploadEnabled</key><boolean>true</boolean><key>MeshXferEnabled</key><integer>1</integer>\
        <key>PhysicsMaterialsEnabled</key><boolean>1</boolean>\
        <key>PhysicsShapeTypes</key><map><key>convex</key><boolean>1</boolean></map>\
        <key>MaxMaterialsPerTransaction</key><integer>50</integer>\
        <key>OpenSimExtras</key><map><key>GridName</key><string>The Grid</string>\
        <key>GridURL</key><string>http://grid.example:8002/</string>\
        <key>map-server-url</key><string/><key>currency</key><string>OS$</string>\
        <key>currency-base-uri</key><string>none</string>\
        <key>ExportSupported</key><boolean>1</boolean><key>say-range</key><integer>30</integer>\
        <key>shout-range</key><string>140.5</string><key>whisper-range</key><real>-1</real>\
        <key>MinSimHeight</key><real>-100</real></map></map></llsd>";

    #[test]
    fn a_simulator_of_opensimulator_is_read() {
        let features = SimulatorFeatures::read(OPENSIM.as_bytes()).unwrap();
        assert!(features.mesh_rez && features.mesh_upload && features.mesh_transfer);
        assert!(features.physics_materials && !features.bakes_on_mesh);
        assert_eq!(features.materials_per_request_max, Some(50));
        assert_eq!(features.chat_ranges(), [10.0, 30.0, 140.5]);
        assert_eq!(features.rest.keys().collect::<Vec<_>>(), ["PhysicsShapeTypes"]);
        let extras = features.opensim.unwrap();
        assert_eq!(extras.grid_name.as_deref(), Some("The Grid"));
        assert_eq!(extras.grid_url.unwrap().as_str(), "http://grid.example:8002/");
        assert_eq!((extras.currency.as_deref(), extras.export), (Some("OS$"), true));
        // What is of no use stays as it came.
        let rest = ["MinSimHeight", "currency-base-uri", "map-server-url", "whisper-range"];
        assert_eq!(extras.rest.keys().collect::<Vec<_>>(), rest);
    }

    #[test]
    fn a_simulator_that_says_little_can_do_little() {
        let features = SimulatorFeatures::read(b"<llsd><map/></llsd>").unwrap();
        assert_eq!(features, SimulatorFeatures::default());
        assert_eq!(features.chat_ranges(), CHAT_RANGES);
        let odd = b"<llsd><map><key>OpenSimExtras</key><string>x</string></map></llsd>";
        assert_eq!(SimulatorFeatures::read(odd).unwrap().opensim, None);
    }

    #[test]
    fn what_is_no_map_is_named() {
        let read = |text: &str| SimulatorFeatures::read(text.as_bytes()).unwrap_err();
        assert!(matches!(read("<llsd><array/></llsd>"), FeaturesError::Shape));
        assert!(matches!(read("<html>"), FeaturesError::Llsd(_)));
        assert!(matches!(read(&" ".repeat(FEATURES_BYTES_MAX + 1)), FeaturesError::Llsd(_)));
    }
}
