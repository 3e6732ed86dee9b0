//! The hub between two processes, through its public handle, beside the bare road in the same run.

mod floor;
pub mod inside;
pub mod kill;
mod options;
pub mod peer;
mod summary;
pub mod zero;

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use twinspan_core::time::Timestamp;
use twinspan_hub::{Bytes, Hub, LatencyGuard, Policy, Reliability, TopicKey, wake_cost};
use twinspan_net::shm::{End, measure_wake_cost};
use twinspan_net::{ReactorEnv, allowed_cores, pin_to_core};

use crate::child::Child;
use crate::error::BenchError;
use crate::memory::{self, Memory};
use crate::process;
use floor::{Certificate, Floor};
pub use options::{HubOptions, HubRoad, HubWait, Mode, Seal, Touch};
use peer::{Arrived, Counted, Ear, Net, Plan, Ready, Turn, receive, send};
pub use summary::HubSummary;
pub use zero::ZeroRttSummary;

/// The hidden command of the other process.
const PEER: &str = "hub-peer";
/// Turns of the hub and of the floor each, one after the other.
const TURNS: u32 = 4;
/// The share of a turn that does not count.
const WARM_UP: u32 = 5;
/// Messages between two looks at the clock.
const MESSAGES_PER_CLOCK: u64 = 64;
/// How long a hub may take to know what a wake-up costs.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// How long ends may take to find each other.
const JOIN_MAX: Duration = Duration::from_secs(10);
/// Samples kept for percentiles, at most.
const SAMPLES_MAX: usize = 4_000_000;
/// The key of sealed topics: what is measured here is no secret.
const KEY: [u8; 32] = [7; 32];
/// Times that free ports are looked for.
const PORT_TRIES: usize = 64;
/// Messages that a stream has on the way: as many as a full window of the network holds.
const STREAM_DEPTH: u32 = 8_192;
/// Bytes that they have together at most.
const STREAM_DEPTH_BYTES: usize = 64 << 20;

/// Ports that were free a moment ago, for UDP and for TCP.
fn free_ports<const N: usize>(ip: IpAddr) -> std::io::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        for _ in 0..PORT_TRIES {
            let socket = UdpSocket::bind((ip, 0))?;
            let free = socket.local_addr()?.port();
            if let Ok(listener) = TcpListener::bind((ip, free)) {
                *port = free;
                held.push((socket, listener));
                break;
            }
        }
    }
    Ok(ports)
}

/// A hub as both processes build it.
fn build(plan: &Plan, end: End) -> Result<Hub<Bytes>, BenchError> {
    let options = &plan.options;
    let endpoint = match options.road {
        HubRoad::Shm => plan.name.clone(),
        road => format!("{}://{}:{}/bench", road.scheme(), plan.net.first, plan.port),
    };
    let builder = Hub::<Bytes>::builder(endpoint).transport(options.road.transport());
    let mut builder = builder.wait(options.wait.wait());
    if options.road != HubRoad::Shm {
        builder = if end == End::First { builder.listen() } else { builder.connect() };
    }
    match options.road {
        HubRoad::Shm => {}
        HubRoad::Udp | HubRoad::Uring => {
            builder = builder.injected_loss(options.loss);
            if options.destinations > 1 {
                // One datagram for each address and message, as the floor has it.
                builder = builder.flush_interval(Duration::ZERO);
            }
            if options.reliable {
                builder = builder.reliable();
            }
            if let Some(seal) = options.seal {
                builder = builder.seal(TopicKey::from_bytes(KEY)).seal_cipher(seal.cipher());
            }
        }
        HubRoad::Tcp | HubRoad::Quic => {
            let most = u32::try_from(STREAM_DEPTH_BYTES / options.size.max(1));
            builder = builder.depth(most.unwrap_or(STREAM_DEPTH).clamp(16, STREAM_DEPTH));
            if options.best_effort {
                builder = builder.reliability(Reliability::BestEffort);
            }
        }
    }
    let policy = match options.mode {
        Mode::Latency | Mode::Idle => Policy::Overwrite,
        Mode::Throughput => Policy::Block,
    };
    Ok(builder.policy(policy).message_bytes_max(options.size).build()?)
}

/// Waits until a hub that was just made is as it stays: an adaptive one measures, once.
fn settle(options: &HubOptions) {
    let began = Instant::now();
    let is_adaptive = options.wait == HubWait::Adaptive;
    while is_adaptive && wake_cost().is_none() && began.elapsed() < SETTLE_MAX {
        std::thread::sleep(Duration::from_millis(1));
    }
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

/// What was seen of the hub, of its floor, and of memory itself.
#[derive(Debug, Default)]
struct Roads {
    ours: Road,
    floor: Road,
    memory: Road,
}

/// Processor time and memory that was used in the hub's turns.
#[derive(Debug, Default)]
struct Used {
    publisher: Duration,
    subscriber: Duration,
    allocations: u64,
    foreign: Option<f64>,
    /// What a wake-up costs here, one way.
    wake_cost: Option<Duration>,
    /// What the floor's system calls take by themselves for a message, in nanoseconds.
    calls_ns: Option<f64>,
    /// What its bytes take between the cores, where messages of sockets are streamed.
    memory_ns: Option<f64>,
    guard: Option<bool>,
}

/// Measures.
///
/// # Errors
/// [`BenchError`] says what could not be had.
pub fn run(options: &HubOptions) -> Result<HubSummary, BenchError> {
    if options.netns {
        return inside::run(options);
    }
    measure_between(options, Net::loopback())
}

/// Measures between this process and another, which has the other end of `net`.
fn measure_between(options: &HubOptions, net: Net) -> Result<HubSummary, BenchError> {
    let cores = allowed_cores()?;
    let guard = if options.guard { Some(LatencyGuard::request()) } else { None };
    // Before this thread is pinned, for what it wakes would be pinned beside it.
    let wake_cost = measure_wake_cost().ok();
    let is_quic = options.road == HubRoad::Quic;
    let plan = Plan {
        name: format!("bench/{}", std::process::id()),
        core: cores.last().copied(),
        port: free_ports::<1>(net.first)?[0],
        ports: free_ports(net.first)?,
        net,
        certificate: is_quic.then(Certificate::new).transpose()?,
        options: *options,
    };
    let mut child = start_peer(&plan)?;
    if cores.len() > 1 {
        pin_to_core(cores.first().copied().unwrap_or(0))?;
    }
    let mut bare = Floor::meet(&plan, End::First)?;
    let hub = build(&plan, End::First)?;
    settle(options);
    let ready: Ready = child.hear()?;
    bare.aim(&ready.ports);
    if !hub.wait_for_subscribers(options.destinations.max(1), JOIN_MAX) {
        return Err(BenchError::Ended { name: PEER });
    }
    let mut used = Used { wake_cost, ..Used::default() };
    used.guard = guard.as_ref().map(Result::is_ok);
    used.calls_ns = floor::calls_ns(options, plan.net.first)?;
    used.memory_ns = floor::memory_ns(&plan)?;
    let mut roads = Roads::default();
    memory::begin();
    let began = (Instant::now(), machine_busy());
    let measured = measure(options, &mut child, &hub, &mut bare, &mut roads, &mut used)?;
    child.tell(&Turn::End)?;
    let elapsed = began.0.elapsed().as_secs_f64();
    let busy = machine_busy().zip(began.1).map(|(now, then)| now.saturating_sub(then));
    used.foreign = busy.map(|busy| busy.saturating_sub(measured).as_secs_f64() / elapsed);
    Ok(summary::summarise(options, roads, &used, hub.stats()))
}

/// Starts the other process, in a namespace of its own where that is asked for.
fn start_peer(plan: &Plan) -> Result<Child, BenchError> {
    let Some(device) = &plan.net.device else {
        let mut child = Child::start(PEER)?;
        child.tell(plan)?;
        return Ok(child);
    };
    let mut child = Child::start_in(PEER, &inside::UNSHARE)?;
    child.tell(plan)?;
    let pid: u32 = child.hear()?;
    inside::give_device(device, pid)?;
    child.tell(&())?;
    Ok(child)
}

/// Takes turns; returns the processor time of both processes.
fn measure(
    options: &HubOptions,
    child: &mut Child,
    hub: &Hub<Bytes>,
    bare: &mut Floor,
    roads: &mut Roads,
    used: &mut Used,
) -> Result<Duration, BenchError> {
    let ear = Ear::new(hub, options)?;
    let mut cpu_all = Duration::ZERO;
    let has_memory = options.road == HubRoad::Shm;
    let (turns, parts) = match options.mode {
        Mode::Latency | Mode::Throughput if has_memory => (TURNS, 3),
        Mode::Latency | Mode::Throughput => (TURNS, 2),
        Mode::Idle => (1, 1),
    };
    let time = options.time / (parts * turns);
    for _ in 0..turns {
        let before = process::cpu_time();
        let counted = turn(child, Turn::Hub(time), options, &mut roads.ours, |desk| {
            hub_turn((hub, &ear), options, time, desk)
        })?;
        let cpu = process::cpu_time().saturating_sub(before);
        used.publisher += cpu;
        used.subscriber += counted.cpu;
        used.allocations += counted.allocations;
        cpu_all += cpu + counted.cpu;
        if options.mode == Mode::Idle {
            continue;
        }
        let before = process::cpu_time();
        let counted = turn(child, Turn::Floor(time), options, &mut roads.floor, |desk| {
            floor_turn(bare, options, time, desk)
        })?;
        cpu_all += process::cpu_time().saturating_sub(before) + counted.cpu;
        if has_memory {
            let before = process::cpu_time();
            let counted = turn(child, Turn::Memory(time), options, &mut roads.memory, |desk| {
                memory_turn(bare, options, time, desk)
            })?;
            cpu_all += process::cpu_time().saturating_sub(before) + counted.cpu;
        }
    }
    Ok(cpu_all)
}

/// Allocations of this process so far.
fn allocations() -> u64 {
    Memory::now().map_or(0, |memory| memory.allocations)
}

/// What a turn works with: a message, samples, and the allocations since it was warm.
struct Desk<'a> {
    message: &'a mut [u8],
    samples: &'a mut Vec<u64>,
    steady: Steady,
}

/// Allocations from the moment on at which a turn is warm.
#[derive(Clone, Copy, Debug, Default)]
struct Steady {
    before: Option<u64>,
    counted: u64,
}

impl Steady {
    /// The turn is warm from now on.
    fn begin(&mut self) {
        self.before.get_or_insert_with(allocations);
    }

    /// The turn is over: what was counted.
    fn end(&mut self) -> u64 {
        if let Some(before) = self.before.take() {
            self.counted = allocations().saturating_sub(before);
        }
        self.counted
    }
}

/// One turn of one road, on both sides.
fn turn(
    child: &mut Child,
    turn: Turn,
    options: &HubOptions,
    road: &mut Road,
    measure: impl FnOnce(&mut Desk<'_>) -> Result<(), BenchError>,
) -> Result<Counted, BenchError> {
    child.tell(&turn)?;
    let () = child.hear()?;
    let mut message = vec![0; options.size];
    if road.samples.0.capacity() == 0 {
        road.samples.0.reserve_exact(SAMPLES_MAX);
    }
    let (samples, steady) = (&mut road.samples.0, Steady::default());
    let mut desk = Desk { message: &mut message, samples, steady };
    let began = Instant::now();
    measure(&mut desk)?;
    let seconds = began.elapsed().as_secs_f64();
    let here = desk.steady.end();
    let mut counted: Counted = child.hear()?;
    counted.allocations += here;
    road.seconds += if counted.seconds > 0.0 { counted.seconds } else { seconds };
    road.counted.add(&counted);
    Ok(counted)
}

/// Publishes for a while, plays ping-pong, or is silent; the last message of a turn says so.
fn hub_turn(
    (hub, ear): (&Hub<Bytes>, &Ear<'_>),
    options: &HubOptions,
    time: Duration,
    desk: &mut Desk<'_>,
) -> Result<(), BenchError> {
    let mut room = Bytes(Vec::with_capacity(options.size));
    match options.mode {
        Mode::Latency => ping_pong(time, options.gap, desk, |message| {
            let asked = peer::number_of(message);
            send(hub, options, message)?;
            // An answer that took too long comes behind the next question, and is none to that.
            while let Some(Arrived { number, is_intact }) = receive(ear, options, &mut room)? {
                if !is_intact {
                    return Err(BenchError::Spoilt { number });
                }
                if number >= asked {
                    return Ok(true);
                }
            }
            Ok(false)
        })?,
        Mode::Throughput => publish_for(hub, options, time, desk)?,
        Mode::Idle => {
            desk.steady.begin();
            std::thread::sleep(time);
            desk.steady.end();
        }
    }
    peer::number(desk.message, u64::MAX);
    send(hub, options, desk.message)?;
    hub.flush()?;
    Ok(())
}

/// Publishes messages one by one or in batches.
fn publish_for(
    hub: &Hub<Bytes>,
    options: &HubOptions,
    time: Duration,
    desk: &mut Desk<'_>,
) -> Result<(), BenchError> {
    let began = Instant::now();
    let mut number = 0_u64;
    let mut batch = vec![Bytes(desk.message.to_vec()); options.batch];
    loop {
        let elapsed = began.elapsed();
        if elapsed >= time {
            desk.steady.end();
            return Ok(());
        }
        if elapsed >= time / WARM_UP {
            desk.steady.begin();
        }
        if options.batch > 1 {
            for message in &mut batch {
                peer::number(message, number);
                number += 1;
            }
            hub.publish_all(&batch).map_err(|(_, error)| error)?;
            continue;
        }
        // The clock is looked at now and then: it costs as much as a message.
        for _ in 0..MESSAGES_PER_CLOCK {
            peer::number(desk.message, number);
            send(hub, options, desk.message)?;
            number += 1;
        }
    }
}

fn floor_turn(
    bare: &mut Floor,
    options: &HubOptions,
    time: Duration,
    desk: &mut Desk<'_>,
) -> Result<(), BenchError> {
    if !options.is_latency() {
        return bare.pour(time, desk.message);
    }
    let mut room = vec![0; options.size];
    ping_pong(time, options.gap, desk, |message| bare.trip(message, &mut room))?;
    bare.end(desk.message)
}

/// The same messages in one place that both cores keep hot: what the memory itself takes.
fn memory_turn(
    bare: &mut Floor,
    options: &HubOptions,
    time: Duration,
    desk: &mut Desk<'_>,
) -> Result<(), BenchError> {
    let mut room = vec![0; options.size];
    ping_pong(time, options.gap, desk, |message| {
        bare.memory_trip(message, &mut room);
        Ok(true)
    })?;
    bare.memory_end(desk.message);
    Ok(())
}

/// Round trips for a while; half of each that counts is a sample.
fn ping_pong(
    time: Duration,
    gap: Duration,
    desk: &mut Desk<'_>,
    mut trip: impl FnMut(&mut [u8]) -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    let began = Timestamp::from_nanos(ReactorEnv::clock_ns());
    let (warm, end) = (began.after(time / WARM_UP), began.after(time));
    let mut number = 0;
    loop {
        let sent = ReactorEnv::clock_ns();
        peer::number(desk.message, number);
        let is_back = trip(desk.message)?;
        let back = ReactorEnv::clock_ns();
        number += 1;
        let now = Timestamp::from_nanos(back);
        if now >= end {
            // Where others have the cores a turn may be over before it is warm.
            if desk.samples.is_empty() && is_back {
                desk.samples.push((back - sent) / 2);
            }
            desk.steady.end();
            return Ok(());
        }
        if is_back && now >= warm && desk.samples.len() < SAMPLES_MAX {
            desk.steady.begin();
            desk.samples.push((back - sent) / 2);
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
