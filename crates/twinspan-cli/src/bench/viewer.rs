//! `twinspan bench viewer`: what a viewer costs, and how soon it sees something.

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_bench::memory::{self, Memory};
use twinspan_circuit::{Circuits, Config, Sink, Taken};
use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_grid::{Account, GridServer, GridServerConfig};
use twinspan_lludp::Var2;
use twinspan_lludp::messages::{ChatFromSimulator, UseCircuitCode};
use twinspan_provider::{TaskProvider, TimeProvider, Timer};
use twinspan_sim::{Sim, SimConfig, SimEnv};
use twinspan_viewer::{
    AccountName, ClientHandle, Grid, LoginCredentials, SessionSummary, ViewerConfig, ViewerCore,
};

use crate::args::BenchViewerArgs;
use crate::error::CommandError;

/// Virtual time that one run may take.
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// Words that the other avatar says in the run that counts acks.
const WORDS: u32 = 300;
/// Words a second.
const WORD_INTERVAL: Duration = Duration::from_millis(100);
/// Circuits whose memory is measured.
const CIRCUITS: usize = 500;
/// Clients whose memory is measured.
const CLIENTS: usize = 100;

const GRID_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const NAMES: [&str; 2] = ["Ruth Resident", "Max Miller"];
const PASSWORD: &str = "secret";

/// Measures and tells.
pub(super) fn run(args: &BenchViewerArgs) -> Result<u8, CommandError> {
    let mut first_objects = Vec::new();
    for seed in 1..=u64::from(args.runs) {
        let summary = session(seed, 0.2, 0)?;
        let first = summary.first_object.ok_or_else(|| failed(seed, "no object was told of"))?;
        first_objects.push(first);
    }
    first_objects.sort();
    let acks = session(0, 0.0, WORDS)?.stats;
    if acks.reliable_in < u64::from(WORDS) {
        return Err(failed(0, "too few reliable messages came"));
    }
    let per_100 = acks.packet_acks_out as f64 * 100.0 / acks.reliable_in as f64;
    let (p50, p95) = (share(&first_objects, 50), share(&first_objects, 95));
    let (bytes, client_bytes) = (idle_circuit()?, idle_client()?);
    let text = if args.json {
        serde_json::json!({
            "packet_acks_per_100_reliable": per_100,
            "reliable_in": acks.reliable_in,
            "packet_acks_out": acks.packet_acks_out,
            "acks_piggybacked": acks.acks_piggybacked,
            // On a network that loses nothing: what the grid sent again for want of an ack.
            "duplicates_in": acks.duplicates_in,
            "packets_out": acks.packets_out,
            "first_object_update_p50_ms": p50.as_secs_f64() * 1e3,
            "first_object_update_p95_ms": p95.as_secs_f64() * 1e3,
            "first_object_update_runs": args.runs,
            "memory_per_idle_circuit_bytes": bytes,
            "memory_per_client_bytes": client_bytes,
        })
        .to_string()
    } else {
        format!(
            "{per_100:.1} PacketAcks for 100 reliable messages; at 20 % loss the first object after \
             {:.0} ms (p50) and {:.0} ms (p95 of {} runs); {bytes} bytes for each idle circuit, \
             {client_bytes} for each idle client",
            p50.as_secs_f64() * 1e3,
            p95.as_secs_f64() * 1e3,
            args.runs,
        )
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CommandError::Output)?;
    Ok(0)
}

fn failed(seed: u64, what: &str) -> CommandError {
    CommandError::BenchViewer(format!("the run with seed {seed} failed: {what}"))
}

/// The value that this share of all, in percent, does not exceed.
fn share(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

/// One session in the simulator: an avatar that listens while another says so many words.
fn session(seed: u64, loss: f64, words: u32) -> Result<SessionSummary, CommandError> {
    let conditions = Conditions {
        loss,
        delay: Duration::from_millis(40),
        jitter: Duration::from_millis(5),
        ..Conditions::CLEAN
    };
    let mut sim = Sim::new(SimConfig { seed, conditions, ..SimConfig::default() });
    let grid = sim.host("grid", GRID_IP.into());
    let viewer = sim.host("viewer", Ipv4Addr::new(10, 0, 0, 1).into());
    let env = viewer.clone();
    let outcome = sim.block_on(&viewer, RUN_LIMIT, listen(grid, env, words));
    outcome.ok_or_else(|| failed(seed, "it did not end"))?.map_err(|what| failed(seed, &what))
}

async fn listen(grid: SimEnv, viewer: SimEnv, words: u32) -> Result<SessionSummary, String> {
    let account = |name| {
        let name = AccountName::parse(name).map_err(|error| error.to_string())?;
        Ok::<_, String>(Account::new(name, PASSWORD))
    };
    let config = GridServerConfig {
        listen: SocketAddr::new(IpAddr::V4(GRID_IP), 0),
        accounts: NAMES.into_iter().map(account).collect::<Result<_, _>>()?,
        ..GridServerConfig::default()
    };
    let server = GridServer::start(grid, config).await.map_err(|error| error.to_string())?;
    let url = server.login_url().to_owned();
    let (listener, _listening) = start(&viewer)?;
    connect(&listener, 0, &url).await?;
    if words > 0 {
        let (talker, _talking) = start(&viewer)?;
        connect(&talker, 1, &url).await?;
        for number in 0..words {
            let said = talker.bot().say(&format!("word {number}")).await;
            said.map_err(|error| error.to_string())?;
            sleep(&viewer, WORD_INTERVAL).await;
        }
    }
    loop {
        let summary = listener.network_manager.summary().await.ok_or("the connection was lost")?;
        if summary.first_object.is_some() {
            return Ok(summary);
        }
        sleep(&viewer, Duration::from_millis(10)).await;
    }
}

type Task = <SimEnv as TaskProvider>::Task;

fn start(env: &SimEnv) -> Result<(ClientHandle, Task), String> {
    let core = ViewerCore::new(env.clone(), ViewerConfig::default());
    let (core, handle) = core.map_err(|error| error.to_string())?;
    Ok((handle, env.spawn("viewer", core.run())))
}

async fn connect(handle: &ClientHandle, who: usize, url: &str) -> Result<(), String> {
    let name = NAMES.get(who).copied().unwrap_or_default();
    let credentials = LoginCredentials::new(name, PASSWORD).with_grid(Grid::OpenSim(url.into()));
    let connected = handle.network_manager.connect(credentials).await;
    connected.map(|_| ()).map_err(|error| error.to_string())
}

async fn sleep(env: &SimEnv, duration: Duration) {
    let mut timer = env.timer();
    timer.set(Some(env.now().after(duration)));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// Takes everything and keeps nothing.
struct Nobody;

impl Sink for Nobody {
    fn on_message(&mut self, _: Timestamp, _: twinspan_circuit::Received<'_>) -> Taken {
        Taken::Yes
    }

    fn on_stranger(
        &mut self,
        _: Timestamp,
        _: SocketAddr,
        _: &UseCircuitCode,
    ) -> twinspan_circuit::Admission {
        twinspan_circuit::Admission::Open
    }
}

/// Bytes of memory that a circuit holds which was in use and is idle.
fn idle_circuit() -> Result<i64, CommandError> {
    let broken = |error: &dyn std::fmt::Display| CommandError::BenchViewer(error.to_string());
    memory::begin();
    let config = Config { circuits_max: CIRCUITS, ..Config::default() };
    let mut viewer =
        Circuits::new(config, Stream::new(1, "viewer", 0)).map_err(|error| broken(&error))?;
    for index in 0..CIRCUITS {
        let from = Timestamp::START.after(Duration::from_millis(20 * index as u64));
        use_circuit(&mut viewer, index, from).map_err(|error| broken(&error))?;
    }
    let uncounted = || broken(&"this program's allocator does not count");
    let before = Memory::now().ok_or_else(uncounted)?;
    drop(viewer);
    let after = Memory::now().ok_or_else(uncounted)?;
    Ok((before.live_bytes - after.live_bytes) / CIRCUITS as i64)
}

/// Bytes of memory that a client holds which is not connected, with somebody who listens.
fn idle_client() -> Result<i64, CommandError> {
    let broken = |error: &dyn std::fmt::Display| CommandError::BenchViewer(error.to_string());
    memory::begin();
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("viewer", Ipv4Addr::new(10, 0, 0, 1).into());
    let client = |_| {
        let (core, handle) = ViewerCore::new(env.clone(), ViewerConfig::default())?;
        let listens = (handle.network_manager.subscribe(), handle.event_bus.subscribe());
        Ok::<_, twinspan_viewer::CoreError>((core, handle, listens))
    };
    let clients = (0..CLIENTS).map(client).collect::<Result<Vec<_>, _>>();
    let clients = clients.map_err(|error| broken(&error))?;
    let uncounted = || broken(&"this program's allocator does not count");
    let before = Memory::now().ok_or_else(uncounted)?;
    drop(clients);
    let after = Memory::now().ok_or_else(uncounted)?;
    Ok((before.live_bytes - after.live_bytes) / CLIENTS as i64)
}

/// Opens a circuit and exchanges twenty messages each way.
fn use_circuit(
    viewer: &mut Circuits,
    index: usize,
    from: Timestamp,
) -> Result<(), Box<dyn std::error::Error>> {
    let to = SocketAddr::from(([10, 1, (index / 250) as u8, (index % 250) as u8], 9_000));
    let own = SocketAddr::from(([10, 0, 0, 1], 9_000));
    let mut far = Circuits::new(Config::simulator(), Stream::new(1, "far", index as u64))?;
    viewer.open(from, to)?;
    let hello = UseCircuitCode::default();
    viewer.send(from, to, &hello, twinspan_circuit::SendOptions::CRITICAL)?;
    let mut chat = ChatFromSimulator::default();
    chat.chat_data.message = Var2::text(&"x".repeat(200))?;
    let mut out = [0; 1_500];
    for step in 0..40 {
        let now = from.after(Duration::from_millis(10 * step));
        if (1..=20).contains(&step) {
            let options = twinspan_circuit::SendOptions::RELIABLE;
            far.send(now, own, &chat, options)?;
            viewer.send(now, to, &hello, options)?;
        }
        viewer.handle_timeout(now, &mut Nobody);
        while let Some((peer, len)) = viewer.poll_transmit(now, &mut out) {
            if peer == to {
                far.handle_datagram(now, own, out.get(..len).unwrap_or_default(), &mut Nobody);
            }
        }
        far.handle_timeout(now, &mut Nobody);
        while let Some((_, len)) = far.poll_transmit(now, &mut out) {
            viewer.handle_datagram(now, to, out.get(..len).unwrap_or_default(), &mut Nobody);
        }
        while viewer.poll_event().is_some() {}
    }
    Ok(())
}
