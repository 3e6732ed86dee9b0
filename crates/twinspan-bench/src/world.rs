//! `twinspan bench world`: the world server on one core, its players on the other, the floor beside.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_session::CryptoSuite;

use crate::child::Child;
use crate::error::BenchError;
use crate::plan::{
    FloorPlan, FloorReady, FloorReport, GeneratorPlan, GeneratorReport, GeneratorWord, Opponent,
    Placement, ServerEnd, ServerPlan, ServerReady, ServerReport, Window,
};
use crate::stolen::StolenLog;
use crate::summary::{Facts, Summary};

/// How often stolen time is looked at.
const STOLEN_TURN: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Players.
    pub players: u32,
    /// Seconds of the window, after all players are in and a warm-up.
    pub seconds: u64,
    /// Sockets that the players share.
    pub flows: u32,
    /// The one cipher that players offer; `None` for their measured order.
    pub cipher: Option<Cipher>,
    /// Whether the floor is measured too.
    pub floor: bool,
    /// Whether to ask for real-time scheduling.
    pub realtime: bool,
}

/// The names of the hidden commands that the processes run.
pub const CHILDREN: [&str; 3] = ["world-server", "world-generator", "world-floor"];

/// Measures.
///
/// # Errors
/// [`BenchError`] when a process cannot be run or not all players came in.
pub fn run(options: &Options) -> Result<Summary, BenchError> {
    let _alone = Alone::wait();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let world = measure_world(options, cores)?;
    let floor = match options.floor {
        true => Some(measure_floor(options, cores, &world)?),
        false => None,
    };
    Ok(Summary::new(&Facts { options, cores, world: &world, floor: floor.as_ref() }))
}

/// Holds off other measurements on this machine: they would share the cores.
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

/// What came of the run with the world server.
pub(crate) struct World {
    pub(crate) ready: ServerReady,
    pub(crate) window: Window,
    pub(crate) server: ServerReport,
    pub(crate) generator: GeneratorReport,
    pub(crate) end: ServerEnd,
    pub(crate) stolen_ms: u64,
    pub(crate) late_ticks_stolen: u64,
}

/// What came of the run with the floor.
pub(crate) struct Floor {
    pub(crate) report: FloorReport,
    /// States that the players received.
    pub(crate) states: u64,
    pub(crate) window: Window,
}

/// Where the server runs, and where the generator: with one core they share it.
fn placements(options: &Options, cores: usize) -> (Placement, Placement) {
    let realtime = options.realtime && cores > 1;
    let on = |core| Placement { core: (cores > 1).then_some(core), realtime };
    (on(0), on(1))
}

fn measure_world(options: &Options, cores: usize) -> Result<World, BenchError> {
    let (server_place, generator_place) = placements(options, cores);
    let mut server = Child::start("world-server")?;
    server.tell(&ServerPlan { placement: server_place, players: options.players })?;
    let mut ready: ServerReady = server.hear()?;
    let stolen = StolenWatch::start(ready.epoch_nanos);
    let tokens = std::mem::take(&mut ready.tokens);
    let opponent = Opponent::World { tokens };
    let plan = generator_plan(options, generator_place, ready.address, ready.epoch_nanos, opponent);
    let mut generator = Child::start("world-generator")?;
    generator.tell(&plan)?;
    let window = hear_window(&mut generator)?;
    server.tell(&window)?;
    let server_report: ServerReport = server.hear()?;
    let generator_report = hear_report(&mut generator)?;
    server.tell(&window)?;
    let end: ServerEnd = server.hear()?;
    generator.tell(&window)?;
    let late_at = server_report.late_at_nanos.iter();
    let late_ticks_stolen = late_at.filter(|at| stolen.covers(**at)).count() as u64;
    Ok(World {
        ready,
        window,
        server: server_report,
        generator: generator_report,
        end,
        stolen_ms: stolen.total_ms(),
        late_ticks_stolen,
    })
}

fn measure_floor(options: &Options, cores: usize, world: &World) -> Result<Floor, BenchError> {
    let (floor_place, generator_place) = placements(options, cores);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| BenchError::Os(error.into()))?;
    let cipher = options.cipher.or_else(|| CryptoSuite::detect().ciphers().first().copied());
    let cipher = cipher.unwrap_or(Cipher::Aes128Gcm);
    let states = world.server.states.max(1) as f64;
    let mut floor = Child::start("world-floor")?;
    floor.tell(&FloorPlan {
        placement: floor_place,
        players: options.players,
        secret,
        cipher: cipher as u8,
        state_datagram_bytes: world.generator.state_datagram_bytes.clone(),
        datagrams_per_state: world.server.states_scheduled as f64 / states,
    })?;
    let ready: FloorReady = floor.hear()?;
    let options = Options { cipher: Some(cipher), ..options.clone() };
    let opponent = Opponent::Floor { secret };
    let plan =
        generator_plan(&options, generator_place, ready.address, ready.epoch_nanos, opponent);
    let mut generator = Child::start("world-generator")?;
    generator.tell(&plan)?;
    let window = hear_window(&mut generator)?;
    floor.tell(&window)?;
    let report: FloorReport = floor.hear()?;
    let generator_report = hear_report(&mut generator)?;
    generator.tell(&window)?;
    Ok(Floor { report, states: generator_report.states, window })
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
        seconds: options.seconds,
        opponent,
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
                watched.lock().unwrap_or_else(PoisonError::into_inner).sample();
                thread::sleep(STOLEN_TURN);
            }
        });
        Self { log, ended }
    }

    fn total_ms(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).total_ms()
    }

    fn covers(&self, nanos: u64) -> bool {
        let at = twinspan_core::time::Timestamp::from_nanos(nanos);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).covers(at)
    }
}

impl Drop for StolenWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
