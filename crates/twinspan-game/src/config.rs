//! What a server and a client are asked for, with ranges and defaults.

use core::time::Duration;
use std::sync::Arc;

use twinspan_admission::FilterConfig;
use twinspan_messages::Registry;
use twinspan_session::SessionConfig;
use twinspan_world::{INPUTS_PER_BUNDLE_MAX, InterestConfig, WorldConfig};

/// How a world server is set up.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Sessions: limits, time-outs, reliability.
    pub session: SessionConfig,
    /// The world: its size, its cells, how many entities it holds.
    pub world: WorldConfig,
    /// How far a player sees.
    pub interest: InterestConfig,
    /// Non-player characters that wander about.
    pub npcs: u32,
    /// Projectiles that fly about.
    pub projectiles: u32,
    /// Who may come in, how much a client may send, and what follows from misconduct.
    pub admission: FilterConfig,
    /// Bytes of state that one client is sent per second, packets' headers and all, until
    /// [`Server::set_budget`](crate::Server::set_budget) says otherwise. What does not fit waits and
    /// grows in importance as it does.
    pub state_bytes_per_second: u32,
    /// Sessions that a [`StatsSnapshot`](crate::StatsSnapshot) has a row of, the first ones of each
    /// core; the others are counted alone.
    pub session_rows_max: usize,
    /// How long a drain waits for reliable messages to be acknowledged.
    pub drain_time_max: Duration,
    /// Seconds since the Unix epoch at the start of the run's clock: tokens expire by it.
    pub unix_at_start_s: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            session: session_defaults(),
            world: WorldConfig::default(),
            interest: InterestConfig::default(),
            npcs: 20,
            projectiles: 20,
            admission: FilterConfig::default(),
            state_bytes_per_second: 64 * 1_024,
            session_rows_max: 256,
            drain_time_max: Duration::from_secs(5),
            unix_at_start_s: 0,
        }
    }
}

impl ServerConfig {
    /// A world in which `players` players and a tenth as many NPCs and projectiles each see about
    /// forty others, whatever their number.
    pub fn for_players(players: u32) -> Self {
        let npcs = players / 10;
        let population = players + 2 * npcs;
        let mut config = Self { npcs, projectiles: npcs, ..Self::default() };
        config.world.side = side_for(population, config.world.cell);
        config.world.entities_max = (population as usize * 2).max(1_024);
        config.session.sessions_max = (players as usize + players as usize / 8).max(1_024);
        config
    }
}

/// Entities per square metre at which the cells around a player hold about forty.
const DENSITY: f64 = 0.0042;

/// The side of a square world for `population` entities: whole cells, at least one. A few
/// players share one cell and see each other; in two by two cells the corners are too far apart.
fn side_for(population: u32, cell: f64) -> f64 {
    let cells = libm::ceil(libm::sqrt(f64::from(population) / DENSITY) / cell);
    cells.max(1.0) * cell
}

/// Session defaults of a game: acknowledgements may wait for the next state packet.
pub fn session_defaults() -> SessionConfig {
    let mut session = SessionConfig::default();
    // One state period and a little: acknowledgements then ride in state packets instead of
    // doubling the server's packets.
    session.reliable.ack_delay_max = Duration::from_millis(55);
    // A handshake is two round trips. At 20 % loss each way one try in three fails: seven tries, as
    // ten seconds of two-second waits give, lose one client in a hundred; twenty lose none in a
    // million.
    session.hello_interval_max = Duration::from_secs(1);
    session.handshake_deadline = Duration::from_secs(20);
    session
}

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The session: time-outs, reliability. Must fit the server's.
    pub session: SessionConfig,
    /// Notices kept for the application; the oldest are dropped and counted beyond it.
    pub notices_max: usize,
    /// [Ages of states](crate::Client::poll_sample) kept for whoever measures; further ones are dropped
    /// and counted. 0 where nobody does.
    pub samples_max: usize,
    /// The types of messages that the application sends and receives, if any.
    pub messages: Option<Arc<Registry>>,
    /// Inputs in one message, 1 to 8: the newest and the few before it, so that a lost message loses
    /// none.
    pub inputs_per_message: usize,
    /// Whether a client whose session was lost comes back by itself while the server keeps its entity,
    /// see [`Notice::Reconnecting`](crate::Notice::Reconnecting); else it has ended.
    pub comes_back: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            session: session_defaults(),
            notices_max: 1_024,
            samples_max: 64,
            messages: None,
            inputs_per_message: INPUTS_PER_BUNDLE_MAX,
            comes_back: true,
        }
    }
}
