//! Each kind of fault alone, on a victim whose run it changes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_provider::{NetworkProvider, TaskProvider, TimeProvider, UdpOptions, UdpSocket};

use crate::chaos::is_planned;
use crate::config::SimConfig;
use crate::plan::{FaultPlan, Rates};
use crate::scenario::{BOARD_KINDS, Board, Echo, Hosted, VAULT_KINDS, Vault};
use crate::segment::TcpMode;
use crate::sim::Sim;
use crate::swarm::Options;

/// Virtual time under the fault, and after it.
const UNDER: Duration = Duration::from_secs(6);
const AFTER: Duration = Duration::from_secs(4);
/// What every victim's run is drawn from.
const SEED: u64 = 1;

/// What a fault did to its victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The fault.
    pub kind: FaultKind,
    /// The victim.
    pub victim: &'static str,
    /// How the fault came about: `plan`, `conditions`, or `hand`.
    pub cause: &'static str,
    /// How often it was injected, and had an effect.
    pub injected: u64,
    /// Its effects.
    pub effect: u64,
    /// Injections and effects counted in the same run without it.
    pub absent: u64,
    /// Whether the run was another one than without it.
    pub changed: bool,
    /// Kinds that were injected beside it, because they follow from it.
    pub others: u64,
}

impl Proof {
    /// Whether the fault was there, had an effect and changed the run, and was not there else.
    pub fn holds(&self) -> bool {
        self.injected > 0 && self.effect > 0 && self.absent == 0 && self.changed
    }
}

/// How likely a kind is in its victim's run.
fn rate(kind: FaultKind) -> f64 {
    use FaultKind as K;
    match kind {
        K::Knob => 1.0,
        K::PartitionSplit | K::ClogSwizzle => 0.3,
        K::NameUnknown | K::NameFailure | K::NameTimeout | K::NameStale => 0.4,
        K::NameTruncated | K::NameForged => 0.4,
        K::ConnectHang | K::ConnectRefuse | K::BacklogFull | K::AcceptExhausted => 0.5,
        K::ShortRead | K::ShortWrite | K::ZeroWindow => 0.5,
        K::ProxyRefuse | K::TopicMemory | K::RunRefused => 0.5,
        _ => 0.1,
    }
}

/// Runs the victim with a fault and without, and compares.
pub fn prove(kind: FaultKind) -> Proof {
    prove_over(kind, TcpMode::Streams)
}

/// The same, where the victim's streams travel as asked for. Those of the scenario `vault` travel in
/// segments whatever is asked for.
pub fn prove_over(kind: FaultKind, tcp: TcpMode) -> Proof {
    let struck = run((scenario(kind), tcp), (kind, true));
    let clean = run((scenario(kind), tcp), (kind, false));
    let faults = struck.faults();
    let other = |(known, injected, _): &(FaultKind, u64, u64)| *known != kind && *injected > 0;
    let absent = clean.faults().injected(kind) + clean.faults().effect(kind);
    Proof {
        kind,
        victim: scenario(kind).name(),
        cause: cause(kind),
        injected: faults.injected(kind),
        effect: faults.effect(kind),
        absent,
        changed: struck.trace_hash() != clean.trace_hash(),
        others: faults.iter().filter(other).count() as u64,
    }
}

/// How a kind comes about.
fn cause(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Delay | FaultKind::Rate | FaultKind::QueueDrop => "conditions",
        kind if is_planned(kind) => "plan",
        _ => "hand",
    }
}

/// Whose run a fault changes.
fn scenario(kind: FaultKind) -> &'static dyn Hosted {
    if VAULT_KINDS.contains(&kind) {
        &Vault
    } else if BOARD_KINDS.contains(&kind) {
        &Board
    } else {
        &Echo
    }
}

/// The victim, two clients and what they use, with the fault or without.
fn run((scenario, tcp): (&dyn Hosted, TcpMode), (kind, is_struck): (FaultKind, bool)) -> Sim {
    if kind == FaultKind::Unbound {
        // What a visitor does is part of the victim, with the fault and without.
        return visited(is_struck);
    }
    let options = Options::plain(SEED).with_size("bytes_max", 40_000);
    let options = options.with_size("datagrams", 60).with_size("streams", 10);
    let options = options.with_size("segments", u64::from(tcp == TcpMode::Segments));
    // What befalls messages of DNS needs a name server.
    let asks = matches!(kind, FaultKind::NameTruncated | FaultKind::NameForged);
    let options = options.with_size("name_server", u64::from(asks));
    // Who waits between its requests sends none of them together.
    let options = match kind {
        FaultKind::RunRefused => options.with_size("spacing_us", 0),
        _ => options,
    };
    let kind = is_struck.then_some(kind);
    let mut config = SimConfig { seed: SEED, ..scenario.config(&options) };
    match kind {
        Some(FaultKind::Delay) => config.conditions.jitter = Duration::from_millis(20),
        Some(FaultKind::Rate) => config.conditions.rate_bytes_per_s = 50_000,
        Some(FaultKind::QueueDrop) => config.in_flight_max = 1,
        _ => {}
    }
    let mut sim = Sim::new(config);
    let planned = kind.filter(|kind| is_planned(*kind));
    let rates = planned.map(|kind| Rates::new().with(kind, rate(kind)));
    sim.plan_faults(FaultPlan::Drawn(rates.unwrap_or_default()));
    let running = scenario.start(&mut sim, &options);
    by_hand(&mut sim, kind);
    sim.run_for(UNDER);
    sim.heal_faults();
    sim.run_for(AFTER);
    drop(running);
    sim
}

/// What no plan can ask for.
fn by_hand(sim: &mut Sim, kind: Option<FaultKind>) {
    let [server, client] =
        [[10, 0, 0, 1], [10, 0, 1, 1]].map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    match kind {
        Some(FaultKind::Partition) => {
            sim.run_for(Duration::from_millis(50));
            sim.partition(server, client);
        }
        Some(FaultKind::HostStop) => {
            sim.run_for(Duration::from_millis(50));
            sim.stop_host(server);
        }
        Some(FaultKind::Panic) => {
            sim.run_for(Duration::from_millis(50));
            let env = sim.host("server", server);
            let failing = env.spawn("failing", fail());
            sim.run_for(Duration::from_millis(1));
            drop(failing);
        }
        _ => {}
    }
}

/// A task with a defect.
#[expect(clippy::panic, reason = "the defect is what the victim is for")]
async fn fail() {
    panic!("a defect on purpose");
}

/// Somebody sends to a port that nobody has, or to one that somebody has.
fn visited(is_struck: bool) -> Sim {
    let mut sim = Sim::new(Options::plain(SEED).config());
    let [from, to] = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 7)));
    let env = sim.host("here", to.ip());
    let local = if is_struck { SocketAddr::new(to.ip(), 8) } else { to };
    let (inner, visitor) = (env.clone(), sim.host("visitor", from.ip()));
    let here = env.spawn("here", async move {
        if let Ok(mut socket) = inner.bind_udp(local, &UdpOptions::default()).await {
            let mut received = DatagramBatch::new(1);
            // What comes is let go.
            let _ = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut received)).await;
        }
    });
    let away = visitor.clone().spawn("visit", async move {
        let Ok(mut socket) = visitor.bind_udp(from, &UdpOptions::default()).await else { return };
        let mut out = DatagramBatch::new(1);
        if let Some(mut packet) = socket.pool().take()
            && packet.fill(b"hello")
        {
            // An empty batch has room for one.
            let _ = out.push(Datagram { peer: to, at: visitor.now(), packet });
        }
        // It is sent or the run is over.
        let _ = std::future::poll_fn(|cx| socket.poll_send(cx, &mut out)).await;
    });
    sim.run_for(UNDER);
    drop((here, away));
    sim
}
