//! The hub between two processes, through its public handle, beside a bare ring in the same run.

mod floor;
pub mod kill;
pub mod peer;
mod summary;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use twinspan_core::time::Timestamp;
use twinspan_hub::{Bytes, Hub, LatencyGuard, Policy, Wait, wake_cost};
use twinspan_net::shm::End;
use twinspan_net::{ReactorEnv, allowed_cores, pin_to_core};

use crate::child::Child;
use crate::error::BenchError;
use crate::memory::{self, Memory};
use crate::process;
use floor::Floor;
use peer::{Counted, Plan, Turn, receive, send};
pub use summary::HubSummary;

/// The hidden command of the other process.
const PEER: &str = "hub-peer";
/// Turns of the hub and of the floor each, one after the other.
const TURNS: u32 = 4;
/// The share of a turn that does not count.
const WARM_UP: u32 = 5;
/// Samples kept for percentiles, at most.
const SAMPLES_MAX: usize = 4_000_000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Half a round trip.
    Latency,
    /// Messages and bits a second.
    Throughput,
}

/// How both ends wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HubWait {
    /// They spin.
    Spin,
    /// They spin for a while, then sleep.
    Adaptive,
    /// They sleep.
    Block,
    /// As tasks.
    Async,
}

impl HubWait {
    /// As the summary says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
            Self::Block => "block",
            Self::Async => "async",
        }
    }

    const fn wait(self) -> Wait {
        match self {
            Self::Spin => Wait::Spin,
            Self::Adaptive => Wait::Adaptive,
            Self::Block | Self::Async => Wait::Block,
        }
    }
}

/// Which road is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HubRoad {
    /// Shared memory.
    Shm,
    /// UDP over loopback.
    Udp,
}

impl HubRoad {
    /// As the summary says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Udp => "udp",
        }
    }
}

/// What to measure and how.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HubOptions {
    /// The road.
    pub road: HubRoad,
    /// Whether lost messages are sent again, on roads over a network.
    pub reliable: bool,
    /// Share of the datagrams that are dropped at their arrival, 0 to 1.
    pub loss: f64,
    /// Latency or throughput.
    pub mode: Mode,
    /// Bytes of a message.
    pub size: usize,
    /// How both ends wait.
    pub wait: HubWait,
    /// Time between two messages; zero for none.
    pub gap: Duration,
    /// Messages published at once.
    pub batch: usize,
    /// Whether to ask for the latency guard.
    pub guard: bool,
    /// Whether messages are written and read in shared memory.
    pub loan: bool,
    /// Whether all of a message is written and read, or only its first word is read.
    pub touch_all: bool,
    /// How long to measure, hub and floor together.
    pub time: Duration,
}

impl HubOptions {
    /// Whether the road loses nothing.
    pub const fn loses_nothing(&self) -> bool {
        matches!(self.road, HubRoad::Shm) || self.reliable
    }
}

/// Ports of loopback that were free a moment ago.
fn free_ports<const N: usize>() -> std::io::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut sockets = Vec::new();
    for port in &mut ports {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        *port = socket.local_addr()?.port();
        sockets.push(socket);
    }
    Ok(ports)
}

/// A hub as both processes build it.
fn build(plan: &Plan, end: End) -> Result<Hub<Bytes>, BenchError> {
    let options = &plan.options;
    let endpoint = match options.road {
        HubRoad::Shm => plan.name.clone(),
        HubRoad::Udp => format!("udp://127.0.0.1:{}/bench", plan.port),
    };
    let mut builder = Hub::<Bytes>::builder(endpoint).wait(options.wait.wait());
    if options.road != HubRoad::Shm {
        builder = if end == End::First { builder.listen() } else { builder.connect() };
        builder = builder.injected_loss(options.loss);
        if options.reliable {
            builder = builder.reliable();
        }
    }
    let policy = match options.mode {
        Mode::Latency => Policy::Overwrite,
        Mode::Throughput => Policy::Block,
    };
    Ok(builder.policy(policy).message_bytes_max(options.size).build()?)
}

/// Latencies of one way in nanoseconds, sorted.
#[derive(Debug, Default)]
struct Samples(Vec<u64>);

impl Samples {
    fn at(&mut self, part: f64) -> u64 {
        self.0.sort_unstable();
        let index = (self.0.len() as f64 * part) as usize;
        self.0.get(index.min(self.0.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

/// What one road did in all its turns.
#[derive(Debug, Default)]
struct Road {
    samples: Samples,
    counted: Counted,
    seconds: f64,
}

/// Measures.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run(options: &HubOptions) -> Result<HubSummary, BenchError> {
    let cores = allowed_cores()?;
    let guard = if options.guard { Some(LatencyGuard::request()) } else { None };
    let name = format!("bench/{}", std::process::id());
    let (core, [port], ports) = (cores.last().copied(), free_ports()?, free_ports()?);
    let plan = Plan { name, core, port, ports, options: *options };
    let mut child = Child::start(PEER)?;
    child.tell(&plan)?;
    if cores.len() > 1 {
        pin_to_core(cores.first().copied().unwrap_or(0))?;
    }
    let mut bare = Floor::meet(&plan, End::First)?;
    let hub = build(&plan, End::First)?;
    let () = child.hear()?;
    if options.mode == Mode::Latency && !hub.wait_for_subscribers(1, Duration::from_secs(10)) {
        return Err(BenchError::Ended { name: PEER });
    }
    let (mut ours, mut floor) = (Road::default(), Road::default());
    let mut used = Used::default();
    let turn_time = options.time / (2 * TURNS);
    memory::begin();
    let began = (Instant::now(), machine_busy());
    let mut cpu_all = Duration::ZERO;
    for _ in 0..TURNS {
        let before = (process::cpu_time(), Memory::now());
        let counted =
            turn(&mut child, Turn::Hub(turn_time), options, &mut ours, |message, samples| {
                hub_turn(&hub, options, turn_time, message, samples)
            })?;
        let cpu = process::cpu_time().saturating_sub(before.0);
        used.publisher += cpu;
        used.subscriber += counted.cpu;
        used.allocations += allocations(before.1) + counted.allocations;
        cpu_all += cpu + counted.cpu;
        let before = process::cpu_time();
        let counted =
            turn(&mut child, Turn::Floor(turn_time), options, &mut floor, |message, samples| {
                floor_turn(&mut bare, options, turn_time, message, samples)
            })?;
        cpu_all += process::cpu_time().saturating_sub(before) + counted.cpu;
    }
    child.tell(&Turn::End)?;
    let elapsed = began.0.elapsed().as_secs_f64();
    let busy = machine_busy().zip(began.1).map(|(now, then)| now.saturating_sub(then));
    used.foreign = busy.map(|busy| busy.saturating_sub(cpu_all).as_secs_f64() / elapsed);
    let stats = hub.stats();
    let granted = guard.as_ref().map(Result::is_ok);
    Ok(summary::summarise(options, ours, floor, &used, stats, granted, wake_cost()))
}

/// Processor time and memory that was used in the hub's turns.
#[derive(Debug, Default)]
struct Used {
    publisher: Duration,
    subscriber: Duration,
    allocations: u64,
    foreign: Option<f64>,
}

fn allocations(before: Option<Memory>) -> u64 {
    let counted = |memory: Option<Memory>| memory.map_or(0, |memory| memory.allocations);
    counted(Memory::now()).saturating_sub(counted(before))
}

/// One turn of one road, on both sides.
fn turn(
    child: &mut Child,
    turn: Turn,
    options: &HubOptions,
    road: &mut Road,
    measure: impl FnOnce(&mut Vec<u8>, &mut Vec<u64>) -> Result<f64, BenchError>,
) -> Result<Counted, BenchError> {
    child.tell(&turn)?;
    let () = child.hear()?;
    let mut message = vec![0; options.size];
    if road.samples.0.capacity() == 0 {
        road.samples.0.reserve_exact(SAMPLES_MAX);
    }
    let seconds = measure(&mut message, &mut road.samples.0)?;
    let counted: Counted = child.hear()?;
    road.seconds += if counted.seconds > 0.0 { counted.seconds } else { seconds };
    road.counted.add(&counted);
    Ok(counted)
}

/// Publishes for a while, or plays ping-pong; the last message of a turn says so.
fn hub_turn(
    hub: &Hub<Bytes>,
    options: &HubOptions,
    time: Duration,
    message: &mut [u8],
    samples: &mut Vec<u64>,
) -> Result<f64, BenchError> {
    let began = Instant::now();
    let mut room = Bytes(Vec::with_capacity(options.size));
    let mut number = 0_u64;
    match options.mode {
        Mode::Latency => ping_pong(time, options.gap, message, samples, |message| {
            send(hub, options, message)?;
            Ok(receive(hub, options, &mut room)?.is_some())
        })?,
        Mode::Throughput if options.batch > 1 => {
            let mut batch = vec![Bytes(message.to_vec()); options.batch];
            while began.elapsed() < time {
                for message in &mut batch {
                    peer::number(message, number);
                    number += 1;
                }
                hub.publish_all(&batch).map_err(|(_, error)| error)?;
            }
        }
        Mode::Throughput => {
            while number & 63 != 0 || began.elapsed() < time {
                peer::number(message, number);
                send(hub, options, message)?;
                number += 1;
            }
        }
    }
    peer::number(message, u64::MAX);
    send(hub, options, message)?;
    hub.flush()?;
    Ok(began.elapsed().as_secs_f64())
}

fn floor_turn(
    bare: &mut Floor,
    options: &HubOptions,
    time: Duration,
    message: &mut [u8],
    samples: &mut Vec<u64>,
) -> Result<f64, BenchError> {
    let began = Instant::now();
    let mut room = vec![0; options.size];
    match options.mode {
        Mode::Latency => {
            ping_pong(time, options.gap, message, samples, |message| {
                Ok(bare.trip(message, &mut room))
            })?;
            bare.end(message);
        }
        Mode::Throughput => bare.pour(time, message)?,
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Round trips for a while; half of each that counts is a sample.
fn ping_pong(
    time: Duration,
    gap: Duration,
    message: &mut [u8],
    samples: &mut Vec<u64>,
    mut trip: impl FnMut(&mut [u8]) -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    let began = Timestamp::from_nanos(ReactorEnv::clock_ns());
    let (warm, end) = (began.after(time / WARM_UP), began.after(time));
    let mut number = 0;
    loop {
        let sent = ReactorEnv::clock_ns();
        peer::number(message, number);
        let is_back = trip(message)?;
        let back = ReactorEnv::clock_ns();
        number += 1;
        let now = Timestamp::from_nanos(back);
        if now >= end {
            return Ok(());
        }
        if is_back && now >= warm && samples.len() < SAMPLES_MAX {
            samples.push((back - sent) / 2);
        }
        if !gap.is_zero() {
            let next = Timestamp::from_nanos(back).after(gap);
            while Timestamp::from_nanos(ReactorEnv::clock_ns()) < next {
                std::hint::spin_loop();
            }
        }
    }
}

/// Processor time that the machine has spent on anything.
fn machine_busy() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().next()?.strip_prefix("cpu ")?.to_owned();
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // User, nice, system; then idle and waiting; then interrupts.
    let busy = ticks.iter().enumerate().filter(|(at, _)| matches!(at, 0..=2 | 5..=6));
    let busy: u64 = busy.map(|(_, ticks)| ticks).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(busy.saturating_mul(1_000) / per_second))
}
