//! The server under load, a process of its own: the world server as users run it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_core::aead::Cipher;
use twinspan_core::time::Timestamp;
use twinspan_game::{ServerConfig, ServerHandle, StatsSnapshot, Traffic, serve};
use twinspan_session::UserId;

use crate::clock::Clock;
use crate::error::BenchError;
use crate::lines::Parent;
use crate::plan::{ServerEnd, ServerPlan, ServerReady, ServerReport, Window};
use crate::process;

/// A little more than the time between two publications of a server's counters.
pub const COUNTERS_AGE_MAX: Duration = Duration::from_millis(1_050);

/// Runs the server as its parent says.
///
/// # Errors
/// [`BenchError`] when it cannot run or the parent is not to be understood.
pub fn run() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: ServerPlan = parent.hear()?;
    let priority = plan.placement.apply()?;
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = serve(local, ServerConfig::for_players(plan.players))?;
    plan.placement.go_first();
    let users = (0..plan.players).map(|user| UserId(u64::from(user)));
    parent.tell(&ServerReady {
        address: server.address(),
        epoch_nanos: server.epoch_nanos(),
        io_path: server.socket().path.to_owned(),
        priority,
        tokens: users.map(|user| server.token(user).to_text()).collect(),
        resident_bytes: process::resident_bytes().unwrap_or(0),
    })?;
    let window: Window = parent.hear()?;
    parent.tell(&measure(&server, &window))?;
    let _: Window = parent.hear()?;
    let end = server.with_stats(|stats| ServerEnd {
        reliable_sent: stats.players.reliable_sent,
        reliable_received: stats.players.reliable_received,
        out_of_order: stats.players.actions_out_of_order,
        closed: stats.endpoint.closed,
    });
    parent.tell(&end)
}

/// Counters at one edge of the window.
struct Edge {
    stats: StatsSnapshot,
    traffic: Traffic,
}

impl Edge {
    /// Waits for counters that were published after `at`.
    fn after(clock: &Clock, server: &ServerHandle, at: Timestamp) -> Self {
        clock.wait_until(at.after(COUNTERS_AGE_MAX));
        let stats = server.with_stats(Clone::clone);
        Self { stats, traffic: server.traffic() }
    }
}

fn measure(server: &ServerHandle, window: &Window) -> ServerReport {
    let clock = Clock::new(server.epoch_nanos());
    let from = Timestamp::from_nanos(window.from_nanos);
    let to = Timestamp::from_nanos(window.to_nanos);
    clock.wait_until(from);
    let cpu_before = process::cpu_time();
    let waited_before = process::waited_time().unwrap_or_default();
    let traffic_before = server.traffic();
    let mut first = Edge::after(&clock, server, from);
    first.traffic = traffic_before;
    clock.wait_until(to);
    let cpu = process::cpu_time().saturating_sub(cpu_before);
    let waited = process::waited_time().unwrap_or_default().saturating_sub(waited_before);
    let traffic = server.traffic();
    let resident_bytes = process::resident_bytes().unwrap_or(0);
    let mut last = Edge::after(&clock, server, to);
    last.traffic = traffic;
    let mut report = compare(&first, &last);
    report.cpu_nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
    report.waited_nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    report.resident_bytes = resident_bytes;
    report.resident_bytes_max = process::resident_bytes_max().unwrap_or(0);
    report
}

/// What happened between two edges.
fn compare(first: &Edge, last: &Edge) -> ServerReport {
    let (a, b) = (&first.stats, &last.stats);
    let mut up = b.players.up.clone();
    up.subtract(&a.players.up);
    let mut tick_time = b.stats.tick_time.clone();
    tick_time.subtract(&a.stats.tick_time);
    let late_at = b.stats.late_at.iter().filter(|at| **at >= a.at);
    ServerReport {
        cpu_nanos: 0,
        waited_nanos: 0,
        counted_seconds: b.at.since(a.at).as_secs_f64(),
        inputs: b.players.inputs - a.players.inputs,
        inputs_expected: b.players.inputs_expected - a.players.inputs_expected,
        states_scheduled: b.stats.states_scheduled - a.stats.states_scheduled,
        states_unsent: b.stats.states_unsent - a.stats.states_unsent,
        states: b.stats.visible_samples - a.stats.visible_samples,
        visible_entities: b.stats.visible_entities - a.stats.visible_entities,
        ticks: b.stats.ticks - a.stats.ticks,
        late_ticks: b.stats.late_ticks - a.stats.late_ticks,
        skipped_ticks: b.stats.skipped_ticks - a.stats.skipped_ticks,
        late_at_nanos: late_at.map(|at| at.as_nanos()).collect(),
        tick_p50_us: tick_time.micros_at(0.5),
        tick_p99_us: tick_time.micros_at(0.99),
        up: up.percentiles().into(),
        packets_in: last.traffic.packets_in - first.traffic.packets_in,
        packets_out: last.traffic.packets_out - first.traffic.packets_out,
        bytes_in: last.traffic.bytes_in - first.traffic.bytes_in,
        bytes_out: last.traffic.bytes_out - first.traffic.bytes_out,
        dropped: b.endpoint.drops.total() - a.endpoint.drops.total(),
        sessions: b.sessions.len() as u64,
        cipher: b.cipher.map_or("none", Cipher::name).to_owned(),
        encrypted: b.cipher.is_some_and(Cipher::encrypts),
        resident_bytes: 0,
        resident_bytes_max: 0,
        invariants_broken: b.stats.invariants_broken,
    }
}
