//! `twinspan sim`: scenarios in the deterministic simulator.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use twinspan_game::scenario::{WorldReport, WorldScenario};

use crate::args::{ScenarioName, SimRunArgs};
use crate::error::CommandError;
use crate::process;

/// What a run prints.
#[derive(Debug, Serialize)]
struct Outcome {
    scenario: &'static str,
    seed: u64,
    clients: u32,
    trace_hash: String,
    events: u64,
    virtual_seconds: f64,
    cpu_seconds: f64,
    clients_connected: u32,
    reliable_sent: u64,
    reliable_delivered: u64,
    states_checked: u64,
    faults: BTreeMap<&'static str, Fault>,
    broken: Vec<String>,
}

/// How often a fault was put in, and how often its effect was seen.
#[derive(Debug, Serialize)]
struct Fault {
    injected: u64,
    effect: u64,
}

/// Runs one scenario with one seed; the exit status is 1 when a promise was broken.
///
/// # Errors
/// [`CommandError`] when the scenario cannot be run or its result cannot be told.
pub fn run(args: &SimRunArgs) -> Result<u8, CommandError> {
    let ScenarioName::World = args.scenario;
    let before = process::cpu_time();
    let scenario = WorldScenario {
        clients: args.clients,
        duration: Duration::from_secs(args.seconds),
        seed: args.seed,
        ..WorldScenario::default()
    };
    let report = scenario.run()?;
    let cpu = process::cpu_time().saturating_sub(before);
    let status = u8::from(!report.broken.is_empty());
    let outcome = outcome(args, report, cpu);
    print(&outcome, args.json).map_err(CommandError::Output)?;
    Ok(status)
}

fn outcome(args: &SimRunArgs, report: WorldReport, cpu: Duration) -> Outcome {
    let faults = report.faults.iter();
    Outcome {
        scenario: "world",
        seed: args.seed,
        clients: args.clients,
        trace_hash: format!("{:016x}", report.trace_hash),
        events: report.events,
        virtual_seconds: report.virtual_time.as_secs_f64(),
        cpu_seconds: cpu.as_secs_f64(),
        clients_connected: report.connected,
        reliable_sent: report.reliable_sent,
        reliable_delivered: report.reliable_delivered,
        states_checked: report.states_checked,
        faults: faults
            .map(|(name, injected, effect)| (*name, Fault { injected: *injected, effect: *effect }))
            .collect(),
        broken: report.broken,
    }
}

fn print(outcome: &Outcome, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        serde_json::to_writer(&mut out, outcome)?;
        return writeln!(out);
    }
    let Outcome { scenario, seed, clients, trace_hash, events, .. } = outcome;
    writeln!(out, "scenario {scenario}, {clients} clients, seed {seed}")?;
    writeln!(
        out,
        "trace hash {trace_hash}, {events} events, {:.1} virtual seconds in {:.2} s of CPU",
        outcome.virtual_seconds, outcome.cpu_seconds,
    )?;
    writeln!(
        out,
        "{} connected, reliable messages {} sent and {} delivered, {} states checked",
        outcome.clients_connected,
        outcome.reliable_sent,
        outcome.reliable_delivered,
        outcome.states_checked,
    )?;
    for (name, Fault { injected, effect }) in &outcome.faults {
        writeln!(out, "fault {name}: {injected} injected, {effect} seen in effect")?;
    }
    for line in &outcome.broken {
        writeln!(out, "broken promise: {line}")?;
    }
    if !outcome.broken.is_empty() {
        writeln!(
            out,
            "replay: twinspan sim run --scenario {scenario} --clients {clients} --seed {seed}"
        )?;
    }
    Ok(())
}
