//! `twinspan bench world`: the world server on one core, its players on the other, the floor beside.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use twinspan_core::aead::Cipher;
use twinspan_net::lock;

use crate::assembly::{AssemblyPlan, AssemblyReport};
use crate::child::Child;
use crate::error::BenchError;
use crate::plan::{
    FloodPlan, FloodReport, FloorPlan, FloorReady, FloorReport, GeneratorPlan, GeneratorReport,
    GeneratorWord, Opponent, Placement, RelayPlan, ServerEnd, ServerOrder, ServerPlan, ServerReady,
    ServerReport, Window, WindowPlan,
};
use crate::stolen::StolenLog;
use crate::summary::{Facts, STATE_HZ, Summary};

/// How often stolen time is looked at.
const STOLEN_TURN: Duration = Duration::from_millis(100);

/// What happens beside the playing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing.
    Uniform,
    /// Others log in and leave.
    Login,
    /// HELLOs from made-up addresses.
    Flood,
}

impl Scenario {
    /// Players that log in, and leave, during the second window.
    pub(crate) const fn visitors(self) -> u32 {
        match self {
            Self::Uniform => 0,
            Self::Login => LOGINS,
            Self::Flood => FLOOD_LOGINS,
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Players.
    pub players: u32,
    /// Seconds of the window, after all players are in and a warm-up.
    pub seconds: u64,
    /// Whether there is a world, or sessions alone.
    pub world: bool,
    /// What happens beside the playing.
    pub scenario: Scenario,
    /// Sockets that the players share.
    pub flows: u32,
    /// The one cipher that players offer; `None` for their measured order.
    pub cipher: Option<Cipher>,
    /// Bytes of a state where there is no world.
    pub state_bytes: u32,
    /// Whether the flows speak as relays, and the server takes what they forward.
    pub relay: bool,
    /// Whether the floor is measured too, and the memory of idle sessions.
    pub floor: bool,
    /// Whether to ask for real-time scheduling.
    pub realtime: bool,
}

/// The ciphers that encrypt.
const CIPHERS: [Cipher; 3] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

/// Logins of the scenario of that name.
pub const LOGINS: u32 = 10_000;
/// HELLOs a second of the flood.
pub const FLOOD_PER_SECOND: u32 = 200_000;
/// HELLOs that the flood sends in turn.
const FLOOD_TOKENS: u32 = 64;
/// Newcomers during a flood.
const FLOOD_LOGINS: u32 = 100;
/// Relays that a server knows at most.
pub const RELAYS_MAX: u32 = 64;
/// Their port, and what they pad lengths to a multiple of.
const RELAY_PORT: u16 = 41_000;
const RELAY_PAD_TO: usize = 32;
/// Turns of the relay and of the bare forwarder beside it, and how long each is.
const RELAY_ROUNDS: u32 = 3;
const RELAY_WINDOW: Duration = Duration::from_millis(500);
/// Sessions with which the memory of an idle one is measured: what a server has whoever comes is in
/// both.
const IDLE_SESSIONS: [u32; 2] = [500, 2_500];

/// Measures.
///
/// # Errors
/// [`BenchError`] when a process cannot be run or nobody can log in.
pub fn run(options: &Options) -> Result<Summary, BenchError> {
    if options.relay && (!options.world || options.scenario != Scenario::Uniform) {
        return Err(BenchError::Relay);
    }
    if options.relay && options.flows > RELAYS_MAX {
        return Err(BenchError::Relays { flows: options.flows, max: RELAYS_MAX });
    }
    let _alone = options.realtime.then(Alone::wait);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let world = measure_world(options, cores)?;
    // Behind relays datagrams come coalesced: the floor's path is another.
    let has_floor = options.floor && options.scenario == Scenario::Uniform && !options.relay;
    let floor = match has_floor {
        true => Some(measure_floor(options, cores, &world)?),
        false => None,
    };
    let idle_bytes = match has_floor {
        true => measure_idle(options, cores)?,
        false => None,
    };
    let assembly = match has_floor && options.world {
        true => Some(measure_assembly(options, cores)?),
        false => None,
    };
    let floor = floor.as_ref();
    let relay_ratio = match options.relay && options.floor {
        true => Some(measure_relay(options, cores)?),
        false => None,
    };
    let facts = Facts { options, cores, world: &world, floor, idle_bytes, assembly, relay_ratio };
    Ok(Summary::new(&facts))
}

/// Holds off other measurements on this machine that ask for real-time scheduling: they would share
/// the cores.
struct Alone(Option<File>);

impl Alone {
    /// Waits for those that are under way. Where there is no place for the lock, nothing is held off.
    fn wait() -> Self {
        let path = std::env::temp_dir().join("twinspan-bench.lock");
        let file = File::options().create(true).append(true).open(path).ok();
        Self(file.filter(|file| file.lock().is_ok()))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // The lock goes with the file anyway.
        let _ = self.0.take().map(|file| file.unlock());
    }
}

/// What came of one window.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) window: Window,
    pub(crate) server: ServerReport,
    pub(crate) generator: GeneratorReport,
    pub(crate) flood: Option<FloodReport>,
}

/// What came of the run with the server.
pub(crate) struct World {
    pub(crate) ready: ServerReady,
    /// One window, or one without and one with what a scenario adds.
    pub(crate) parts: Vec<Part>,
    pub(crate) end: ServerEnd,
    pub(crate) stolen_ms: u64,
    pub(crate) late_ticks_stolen: u64,
}

/// What came of the run with the floor.
pub(crate) struct Floor {
    pub(crate) report: FloorReport,
    /// States that the players received.
    pub(crate) states: u64,
    pub(crate) generator_cpu_nanos: u64,
    pub(crate) window: Window,
}

/// Where the server runs, and where the generator: with one core they share it.
fn placements(options: &Options, cores: usize) -> (Placement, Placement) {
    let realtime = options.realtime && cores > 1;
    let on = |core| Placement { core: (cores > 1).then_some(core), realtime, last: false };
    (on(0), on(1))
}

fn measure_world(options: &Options, cores: usize) -> Result<World, BenchError> {
    let (server_place, generator_place) = placements(options, cores);
    let visitors = options.scenario.visitors();
    let flood_tokens = if options.scenario == Scenario::Flood { FLOOD_TOKENS } else { 0 };
    let relay = match options.relay {
        true => Some(relays(options.flows)?),
        false => None,
    };
    let mut server = Child::start("world-server")?;
    server.tell(&ServerPlan {
        placement: server_place,
        players: options.players,
        sessions_max: options.players.saturating_add(visitors.min(4_096)),
        tokens: options.players + visitors + flood_tokens,
        transport_state_bytes: (!options.world).then_some(options.state_bytes),
        relay: relay.clone(),
    })?;
    let mut ready: ServerReady = server.hear()?;
    let stolen = StolenWatch::start(ready.epoch_nanos);
    let mut tokens = std::mem::take(&mut ready.tokens);
    let flood_tokens = tokens.split_off((options.players + visitors) as usize);
    let visitor_tokens = tokens.split_off(options.players as usize);
    let opponent = match options.world {
        true => Opponent::World { tokens },
        false => Opponent::Transport { tokens },
    };
    let quiet = WindowPlan { seconds: options.seconds, visitors: 0 };
    let windows = match options.scenario {
        Scenario::Uniform => vec![quiet],
        Scenario::Login | Scenario::Flood => vec![quiet, WindowPlan { visitors, ..quiet }],
    };
    let mut plan =
        generator_plan(options, generator_place, ready.address, ready.epoch_nanos, opponent);
    plan.visitors = visitor_tokens;
    plan.relay = relay;
    plan.windows.clone_from(&windows);
    let mut generator = Child::start("world-generator")?;
    generator.tell(&plan)?;
    let mut parts = Vec::new();
    for index in 0..windows.len() {
        let window = hear_window(&mut generator)?;
        server.tell(&ServerOrder::Measure(window))?;
        let mut flood = None;
        if index == 1 && options.scenario == Scenario::Flood {
            let placement = Placement { last: true, ..generator_place };
            flood = Some(start_flood(placement, &ready, window, &flood_tokens)?);
        }
        parts.push(Part {
            window,
            server: server.hear()?,
            flood: flood.as_mut().map(Child::hear).transpose()?,
            generator: hear_report(&mut generator)?,
        });
    }
    server.tell(&ServerOrder::End)?;
    let end: ServerEnd = server.hear()?;
    generator.tell(&())?;
    let late_at = parts.last().into_iter().flat_map(|part| &part.server.late_at_nanos);
    let late_ticks_stolen = late_at.filter(|at| stolen.covers(**at)).count() as u64;
    Ok(World { ready, parts, end, stolen_ms: stolen.total_ms(), late_ticks_stolen })
}

/// One relay a flow. Their addresses are loopback ones that other runs of this program do not use.
fn relays(flows: u32) -> Result<RelayPlan, BenchError> {
    let [.., a, b] = std::process::id().to_be_bytes();
    let address =
        |flow: u32| SocketAddr::from((Ipv4Addr::new(127, a.max(1), b, flow as u8), RELAY_PORT));
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| BenchError::Os(error.into()))?;
    let addresses = (1..=flows).map(address).collect();
    Ok(RelayPlan { addresses, key, pad_to: RELAY_PAD_TO })
}

fn start_flood(
    placement: Placement,
    ready: &ServerReady,
    window: Window,
    tokens: &[String],
) -> Result<Child, BenchError> {
    let mut flood = Child::start("world-flood")?;
    flood.tell(&FloodPlan {
        placement,
        server: ready.address,
        epoch_nanos: ready.epoch_nanos,
        tokens: tokens.to_vec(),
        per_second: FLOOD_PER_SECOND,
        window,
    })?;
    Ok(flood)
}

fn measure_floor(options: &Options, cores: usize, world: &World) -> Result<Floor, BenchError> {
    let (floor_place, generator_place) = placements(options, cores);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| BenchError::Os(error.into()))?;
    let part = world.parts.last().ok_or(BenchError::NoLogin)?;
    // The floor uses what the sessions agreed on.
    let cipher = CIPHERS.into_iter().find(|cipher| cipher.name() == part.server.cipher);
    let cipher = cipher.or(options.cipher).unwrap_or(Cipher::Aes128Gcm);
    // The floor serves those who came in.
    let players = part.generator.joined.max(1);
    // As often as the server really made states, not as often as it should have.
    let periods = (part.server.counted.seconds() * STATE_HZ * f64::from(players)).max(1.0);
    let mut floor = Child::start("world-floor")?;
    floor.tell(&FloorPlan {
        placement: floor_place,
        players,
        secret,
        cipher: cipher as u8,
        state_datagram_bytes: part.generator.state_datagram_bytes.clone(),
        datagrams_per_state: part.server.states_scheduled as f64 / periods,
    })?;
    let ready: FloorReady = floor.hear()?;
    let options = Options { cipher: Some(cipher), players, ..options.clone() };
    let opponent = Opponent::Floor { secret };
    let plan =
        generator_plan(&options, generator_place, ready.address, ready.epoch_nanos, opponent);
    let mut generator = Child::start("world-generator")?;
    generator.tell(&plan)?;
    let window = hear_window(&mut generator)?;
    floor.tell(&window)?;
    let report: FloorReport = floor.hear()?;
    let seen = hear_report(&mut generator)?;
    generator.tell(&())?;
    Ok(Floor { report, states: seen.states, generator_cpu_nanos: seen.cpu_nanos, window })
}

/// What a relay forwards over what a bare forwarder does.
fn measure_relay(options: &Options, cores: usize) -> Result<f64, BenchError> {
    let apart = cores > 1;
    let options = twinspan_relay::bench::BenchOptions {
        rounds: RELAY_ROUNDS,
        window: RELAY_WINDOW,
        cores: apart.then_some((0, 1)),
        fifo: options.realtime && apart,
        offered_per_second: None,
    };
    twinspan_relay::bench::run(options, &mut |_, _| {})
        .map(|report| report.ratio_to_bare)
        .map_err(|error| BenchError::Os(std::io::Error::other(error.to_string())))
}

/// What putting states together costs, without sessions.
fn measure_assembly(options: &Options, cores: usize) -> Result<AssemblyReport, BenchError> {
    let (placement, _) = placements(options, cores);
    let mut assembly = Child::start("world-assembly")?;
    assembly.tell(&AssemblyPlan { placement, players: options.players })?;
    assembly.hear()
}

/// Bytes from the allocator that one more session takes which says nothing.
fn measure_idle(options: &Options, cores: usize) -> Result<Option<f64>, BenchError> {
    let [few, many] = IDLE_SESSIONS;
    let (Some(less), Some(more)) =
        (idle_bytes(options, cores, few)?, idle_bytes(options, cores, many)?)
    else {
        return Ok(None);
    };
    Ok(Some((more - less) as f64 / f64::from(many - few)))
}

/// Bytes from the allocator that so many sessions take which say nothing; `None` where nobody counts.
fn idle_bytes(options: &Options, cores: usize, players: u32) -> Result<Option<i64>, BenchError> {
    let (server_place, generator_place) = placements(options, cores);
    let mut server = Child::start("world-server")?;
    server.tell(&ServerPlan {
        placement: server_place,
        players,
        sessions_max: players,
        tokens: players,
        transport_state_bytes: Some(0),
        relay: None,
    })?;
    let mut ready: ServerReady = server.hear()?;
    let opponent = Opponent::Transport { tokens: std::mem::take(&mut ready.tokens) };
    let options = Options { players, ..options.clone() };
    let mut plan =
        generator_plan(&options, generator_place, ready.address, ready.epoch_nanos, opponent);
    plan.idle = true;
    plan.windows = vec![WindowPlan { seconds: 1, visitors: 0 }];
    let mut generator = Child::start("world-generator")?;
    generator.tell(&plan)?;
    let window = hear_window(&mut generator)?;
    server.tell(&ServerOrder::Measure(window))?;
    let report: ServerReport = server.hear()?;
    Ok(report.taken_bytes())
}

fn generator_plan(
    options: &Options,
    placement: Placement,
    server: SocketAddr,
    epoch_nanos: u64,
    opponent: Opponent,
) -> GeneratorPlan {
    GeneratorPlan {
        placement,
        server,
        epoch_nanos,
        players: options.players,
        flows: options.flows,
        cipher: options.cipher.map(|cipher| cipher as u8),
        idle: false,
        windows: vec![WindowPlan { seconds: options.seconds, visitors: 0 }],
        visitors: Vec::new(),
        opponent,
        relay: None,
    }
}

fn hear_window(generator: &mut Child) -> Result<Window, BenchError> {
    match generator.hear()? {
        GeneratorWord::Window(window) => Ok(window),
        GeneratorWord::Report(_) => Err(BenchError::Plan("a report before the window".into())),
    }
}

fn hear_report(generator: &mut Child) -> Result<GeneratorReport, BenchError> {
    match generator.hear()? {
        GeneratorWord::Report(report) => Ok(*report),
        GeneratorWord::Window(_) => Err(BenchError::Plan("two windows".into())),
    }
}

/// Looks for stolen time on a thread of its own.
struct StolenWatch {
    log: Arc<Mutex<StolenLog>>,
    ended: Arc<AtomicBool>,
}

impl StolenWatch {
    fn start(epoch_nanos: u64) -> Self {
        let log = Arc::new(Mutex::new(StolenLog::new(epoch_nanos)));
        let ended = Arc::new(AtomicBool::new(false));
        let (watched, stop) = (Arc::clone(&log), Arc::clone(&ended));
        // Without the thread nothing is known to be stolen, and late ticks count as our own.
        let _ = thread::Builder::new().name("stolen".into()).spawn(move || {
            // The flag carries no other data.
            while !stop.load(Ordering::Relaxed) {
                lock(&watched).sample();
                thread::sleep(STOLEN_TURN);
            }
        });
        Self { log, ended }
    }

    fn total_ms(&self) -> u64 {
        lock(&self.log).total_ms()
    }

    fn covers(&self, nanos: u64) -> bool {
        let at = twinspan_core::time::Timestamp::from_nanos(nanos);
        lock(&self.log).covers(at)
    }
}

impl Drop for StolenWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
