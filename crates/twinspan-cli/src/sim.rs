//! `twinspan sim`: scenarios in the deterministic simulator.

mod circuit;
mod endure;
mod fenced;
mod file;
mod hostile;
mod pcapng;
mod planned;
mod tape;
mod trace;
mod verify;
mod worker;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use twinspan_game::scenario::{WorldReport, WorldScenario};

use crate::args::{ScenarioName, SimReplayArgs, SimRunArgs};
use crate::error::CommandError;
use crate::output::print;
use twinspan_bench::process;

use fenced::fenced;

pub use endure::endure;
pub(crate) use planned::shrink_advice;
pub use planned::{run_faults, run_shrink, run_sweep};
pub use tape::TapeError;
pub use trace::{TraceError, trace};
pub use verify::{VerifyError, verify};
pub use worker::verify_worker;

/// Virtual seconds under faults when nobody says otherwise.
const SECONDS: u64 = 10;

/// What a run prints.
#[derive(Debug, Serialize)]
struct Outcome {
    scenario: &'static str,
    seconds: u64,
    seed: u64,
    clients: u32,
    cores: u16,
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
    let planned = planned::planned(args);
    let is_planned = planned.is_some() || args.file.is_some();
    let world = args.scenario == ScenarioName::World && !is_planned;
    let hostile = args.scenario == ScenarioName::Hostile;
    let circuit = args.scenario == ScenarioName::Circuit && !is_planned;
    let with = match (is_planned, world) {
        (true, _) => "where faults are planned",
        (false, true) => "with --scenario world",
        (false, false) if circuit => "with --scenario circuit",
        (false, false) => "with --scenario hostile",
    };
    let unused = [
        (!hostile && args.datagrams.is_some(), "--datagrams", with),
        (!hostile && args.real_ciphers, "--real-ciphers", with),
        (!world && !circuit && args.seconds.is_some(), "--seconds", with),
        (!world && args.cores.is_some(), "--cores", with),
        ((is_planned || circuit) && args.record.is_some(), "--record", with),
        (hostile && args.options.is_some(), "--options", with),
    ];
    if let Some((_, flag, with)) = unused.into_iter().find(|(is_unused, ..)| *is_unused) {
        return Err(CommandError::Unused { flag, with });
    }
    if let Some(path) = &args.file {
        return planned::run_file(path, args.json);
    }
    match planned {
        Some(name) => planned::run(name, args),
        None if hostile => hostile::run(args),
        None if circuit => circuit::run(args),
        None => run_world(args),
    }
}

fn run_world(args: &SimRunArgs) -> Result<u8, CommandError> {
    let before = process::cpu_time();
    let scenario = WorldScenario {
        clients: args.clients,
        duration: Duration::from_secs(args.seconds.unwrap_or(SECONDS)),
        seed: args.seed,
        cores: args.cores.unwrap_or(1),
        ..WorldScenario::default()
    };
    let report = match &args.record {
        Some(file) => {
            tape::record(file, (args.clients, args.seconds.unwrap_or(SECONDS), args.seed))?
        }
        None => fenced(|| scenario.run())??,
    };
    let cpu = process::cpu_time().saturating_sub(before);
    let status = u8::from(!report.broken.is_empty());
    let outcome = outcome(args, report, cpu);
    print(&outcome, args.json, text)?;
    Ok(status)
}

/// Runs a recorded scenario again; the exit status is 1 when it is not as it was.
///
/// # Errors
/// [`CommandError`] when the file cannot be used or the result cannot be told.
pub fn replay(args: &SimReplayArgs) -> Result<u8, CommandError> {
    let found = tape::replay(&args.file)?;
    let is_same = found.difference.is_none() && found.same_trace != Some(false);
    print_replay(&found, args.json).map_err(CommandError::Output)?;
    Ok(u8::from(!is_same))
}

fn print_replay(found: &tape::Replay, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        serde_json::to_writer(&mut out, found)?;
        return writeln!(out);
    }
    let trace = match found.same_trace {
        Some(true) => "the same",
        Some(false) => "another one",
        None => "not in the file",
    };
    writeln!(out, "datagrams  {} the same, {} not in the file", found.same, found.missing)?;
    writeln!(out, "damaged    {} bytes of the file", found.damaged_bytes)?;
    writeln!(out, "trace      {trace}")?;
    match &found.difference {
        Some(difference) => writeln!(out, "difference {difference}"),
        None => Ok(()),
    }
}

fn outcome(args: &SimRunArgs, report: WorldReport, cpu: Duration) -> Outcome {
    Outcome {
        scenario: "world",
        seconds: args.seconds.unwrap_or(SECONDS),
        seed: args.seed,
        clients: args.clients,
        cores: args.cores.unwrap_or(1),
        trace_hash: format!("{:016x}", report.trace_hash),
        events: report.events,
        virtual_seconds: report.virtual_time.as_secs_f64(),
        cpu_seconds: cpu.as_secs_f64(),
        clients_connected: report.connected,
        reliable_sent: report.reliable_sent,
        reliable_delivered: report.reliable_delivered,
        states_checked: report.states_checked,
        faults: faults_of(&report.faults),
        broken: report.broken,
    }
}

/// What a report says of faults, by their names.
fn faults_of(counts: &[(&'static str, u64, u64)]) -> BTreeMap<&'static str, Fault> {
    let fault = |(name, injected, effect): &(_, _, _)| {
        (*name, Fault { injected: *injected, effect: *effect })
    };
    counts.iter().map(fault).collect()
}

/// A line for each fault that there was.
fn fault_lines(faults: &BTreeMap<&'static str, Fault>) -> String {
    let there = faults.iter().filter(|(_, fault)| fault.injected + fault.effect > 0);
    there
        .map(|(name, Fault { injected, effect })| format!("{injected:>19}{effect:>11}  {name}\n"))
        .collect()
}

/// The outcome for people.
fn text(outcome: &Outcome) -> String {
    let Outcome { scenario, seconds, seed, clients, trace_hash, events, .. } = outcome;
    let mut text = format!(
        "scenario   {scenario}: {clients} clients, {seconds} s under faults, seed {seed}\n\
         trace      hash {trace_hash} over {events} events\n\
         time       {:.1} virtual seconds in {:.2} s of CPU\n\
         players    {} of {clients} connected, {} states checked\n\
         reliable   {} messages sent, {} delivered\n\
         faults     injected  in effect\n",
        outcome.virtual_seconds,
        outcome.cpu_seconds,
        outcome.clients_connected,
        outcome.states_checked,
        outcome.reliable_sent,
        outcome.reliable_delivered,
    );
    text += &fault_lines(&outcome.faults);
    let mut replay = format!(
        "twinspan sim run --scenario {scenario} --clients {clients} --seconds {seconds} --seed {seed}"
    );
    if outcome.cores > 1 {
        replay += &format!(" --cores {}", outcome.cores);
    }
    text + &promise_lines(&outcome.broken, &replay)
}

/// What became of a run's promises, and the command that shows broken ones again.
fn promise_lines(broken: &[String], replay: &str) -> String {
    if broken.is_empty() {
        return "promises   all kept\n".to_owned();
    }
    let text: String = broken.iter().map(|line| format!("broken     {line}\n")).collect();
    text + &format!("replay     {replay}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            scenario: "world",
            seconds: 10,
            seed: 7,
            clients: 20,
            trace_hash: "00000000000000ab".into(),
            cores: 1,
            events: 92_369,
            virtual_seconds: 13.1,
            cpu_seconds: 0.05,
            clients_connected: 20,
            reliable_sent: 4_819,
            reliable_delivered: 4_819,
            states_checked: 77_545,
            faults: BTreeMap::from([
                ("loss", Fault { injected: 3_553, effect: 3_552 }),
                ("partition", Fault { injected: 0, effect: 0 }),
            ]),
            broken: Vec::new(),
        }
    }

    #[test]
    fn people_see_the_hash_and_the_faults_that_there_were() {
        assert_eq!(
            text(&outcome()),
            "scenario   world: 20 clients, 10 s under faults, seed 7\n\
             trace      hash 00000000000000ab over 92369 events\n\
             time       13.1 virtual seconds in 0.05 s of CPU\n\
             players    20 of 20 connected, 77545 states checked\n\
             reliable   4819 messages sent, 4819 delivered\n\
             faults     injected  in effect\n\
             \u{20}              3553       3552  loss\n\
             promises   all kept\n"
        );
    }

    #[test]
    fn a_broken_promise_comes_with_the_command_that_shows_it_again() {
        let text = text(&Outcome { broken: vec!["one lost".into()], ..outcome() });
        assert!(text.ends_with(
            "broken     one lost\n\
             replay     twinspan sim run --scenario world --clients 20 --seconds 10 --seed 7\n"
        ));
        let broken = vec!["one lost".into()];
        let on_three = super::text(&Outcome { broken, cores: 3, ..outcome() });
        assert!(on_three.ends_with(" --seed 7 --cores 3\n"), "{on_three}");
    }
}
