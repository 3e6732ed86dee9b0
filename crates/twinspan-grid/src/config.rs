//! What a grid is told: its regions, its times, and who comes.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::{AgentIds, Config, ConfigError};
use twinspan_lludp::Uuid;

/// Regions of one grid.
pub const REGIONS_MAX: usize = 256;
/// Sessions of one grid.
pub const SESSIONS_MAX: usize = 4_096;
/// Things of one region.
pub const THINGS_MAX: usize = 65_000;
/// Things told of in one datagram.
pub const THINGS_PER_MESSAGE_MAX: usize = 6;
/// Events that may wait for one session's event queues.
pub const QUEUE_EVENTS_MAX: usize = 256;
/// Metres along a region's side.
pub(crate) const REGION_METRES: u64 = 256;

/// A region of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub(crate) usize);

/// What a region is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    /// Its name.
    pub name: String,
    /// Its column on the grid, in regions.
    pub x: u32,
    /// Its row on the grid, in regions.
    pub y: u32,
    /// Where it hears, as viewers are told.
    pub addr: SocketAddr,
}

impl RegionConfig {
    /// Its place on the grid, as viewers know it: metres of its south-west corner.
    pub const fn handle(&self) -> u64 {
        (self.x as u64 * REGION_METRES) << 32 | (self.y as u64 * REGION_METRES)
    }
}

/// Somebody whom login let in. His sessions are shown by no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Guest {
    /// Who that is.
    pub ids: AgentIds,
    /// His session with services behind the grid: ids of what he uploads over UDP are made of it.
    pub secure_session_id: Uuid,
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
}

impl Guest {
    /// A guest for tests and scenarios; the number makes it unlike others.
    pub fn example(number: u32) -> Self {
        let ids = AgentIds {
            agent_id: Uuid::from_u128(0xa9e0_0000 + u128::from(number)),
            session_id: Uuid::from_u128(0x5e55_0000 + u128::from(number)),
            circuit_code: 100_000 + number,
        };
        let secure_session_id = Uuid::from_u128(0x5ec5_0000 + u128::from(number));
        let first_name = format!("Guest{number}");
        Self { ids, secure_session_id, first_name, last_name: "Resident".into() }
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("ids", &self.ids)
            .field("first_name", &self.first_name)
            .field("last_name", &self.last_name)
            .finish_non_exhaustive()
    }
}

/// Times of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct GridConfig {
    /// The circuits of each region.
    pub circuits: Config,
    /// How long somebody may take from login, or from the word to go, to his arrival.
    pub arrival_timeout: Duration,
    /// Silence that is borne of who said that he pauses.
    pub paused_silence_max: Duration,
    /// What the addresses of capabilities begin with, without a slash at its end: where viewers
    /// reach the grid's HTTP.
    pub caps_url: String,
    /// Things that each region has besides its bench, sign and stone, 0 at first; as many as fit in
    /// [`THINGS_MAX`] are there.
    pub things: usize,
    /// Things told of in one datagram, 1 to [`THINGS_PER_MESSAGE_MAX`].
    pub things_per_message: usize,
    /// Whether regions send as fast as they can, whatever viewers ask for: to see what these bear.
    pub ignores_throttles: bool,
    /// Names of capabilities that the grid has not, to see what viewers do without: none at first.
    pub without_capabilities: Vec<String>,
}

impl Default for GridConfig {
    fn default() -> Self {
        Self {
            circuits: Config::simulator(),
            arrival_timeout: Duration::from_secs(25),
            paused_silence_max: Duration::from_secs(300),
            caps_url: "http://127.0.0.1".into(),
            things: 0,
            things_per_message: THINGS_PER_MESSAGE_MAX,
            ignores_throttles: false,
            without_capabilities: Vec::new(),
        }
    }
}

/// Why a grid or a region of it cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// A field of the circuits' configuration is out of range.
    #[error("the regions' circuits cannot be: {0}")]
    Circuits(#[from] ConfigError),
    /// There are as many regions as a grid has.
    #[error("a grid has {REGIONS_MAX} regions at most")]
    TooManyRegions,
    /// Another region is there, or hears there.
    #[error("region {name} has the place or the address of {other}")]
    Taken {
        /// The one that was to be added.
        name: String,
        /// The one that is there.
        other: String,
    },
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The agent is on the grid.
    #[error("the agent is on the grid already, remove it first")]
    Present,
    /// The circuit code is somebody else's.
    #[error("the circuit code is taken, draw another")]
    CodeTaken,
    /// As many are on the grid as it takes.
    #[error("{SESSIONS_MAX} agents are on the grid, no more fit")]
    Full,
    /// There is no such region.
    #[error("there is no such region")]
    NoRegion,
}
