//! `twinspan sim run`, `sweep`, `shrink` and `faults` for scenarios whose faults are planned.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use twinspan_bench::process;
use twinspan_core::link::FaultKind;
use twinspan_game::scenario::PlannedWorld;
use twinspan_grid::scenario::PlannedCircuit;
#[cfg(target_os = "linux")]
use twinspan_hub::scenario::PlannedHub;
use twinspan_sim::scenario::{Board, Case, Echo, Partition, Planted, Scenario, Vault, Verdict};
use twinspan_sim::shrink::{ShrinkError, Shrunk, shrink};
use twinspan_sim::sweep::{COVERAGE_SEEDS_MIN, SweepReport, sweep, wilson};
use twinspan_sim::{is_planned, victims};

use super::fenced::fenced;
use super::{Fault, fault_lines, file, promise_lines};
use crate::args::{
    PlannedName, ScenarioName, SimFaultsArgs, SimRunArgs, SimShrinkArgs, SimSweepArgs,
};
use crate::error::CommandError;
use crate::output::print;

/// The scenario of a name, and what Rust calls it.
pub(super) fn scenario(name: PlannedName) -> (&'static dyn Scenario, &'static str) {
    match name {
        PlannedName::Echo => (&Echo, "twinspan_sim::scenario::Echo"),
        PlannedName::Partition => (&Partition, "twinspan_sim::scenario::Partition"),
        PlannedName::Vault => (&Vault, "twinspan_sim::scenario::Vault"),
        PlannedName::Board => (&Board, "twinspan_sim::scenario::Board"),
        #[cfg(target_os = "linux")]
        PlannedName::Hub => (&PlannedHub, "twinspan_hub::scenario::PlannedHub"),
        PlannedName::Planted => (&Planted, "twinspan_sim::scenario::Planted"),
        PlannedName::World => (&PlannedWorld, "twinspan_game::scenario::PlannedWorld"),
        PlannedName::Circuit => (&PlannedCircuit, "twinspan_grid::scenario::PlannedCircuit"),
    }
}

/// The scenario of a run, if its faults are planned.
pub(super) fn planned(args: &SimRunArgs) -> Option<PlannedName> {
    Some(match args.scenario {
        ScenarioName::Echo => PlannedName::Echo,
        ScenarioName::Partition => PlannedName::Partition,
        ScenarioName::Vault => PlannedName::Vault,
        ScenarioName::Board => PlannedName::Board,
        #[cfg(target_os = "linux")]
        ScenarioName::Hub => PlannedName::Hub,
        ScenarioName::Planted => PlannedName::Planted,
        ScenarioName::World if args.options.is_some() => PlannedName::World,
        ScenarioName::Circuit if args.options.is_some() => PlannedName::Circuit,
        ScenarioName::World | ScenarioName::Hostile | ScenarioName::Circuit => return None,
    })
}

/// The run of a seed, or the one whose options were printed.
pub(super) fn case(
    scenario: &dyn Scenario,
    seed: u64,
    options: Option<&str>,
) -> Result<Case, CommandError> {
    match options {
        Some(text) => {
            let options =
                text.parse().map_err(|error| CommandError::Options(format!("{error}")))?;
            Ok(Case { options, faults: None })
        }
        None => Ok(Case::drawn(scenario, seed)),
    }
}

/// The command that shows a run again.
fn replay(scenario: &str, options: &str) -> String {
    format!("twinspan sim run --scenario {scenario} --options \"{options}\"")
}

/// What a run prints.
#[derive(Debug, Serialize)]
struct Outcome {
    scenario: &'static str,
    options: String,
    trace_hash: String,
    events: u64,
    virtual_seconds: f64,
    settled_after_seconds: f64,
    cpu_seconds: f64,
    faults_struck: usize,
    faults: BTreeMap<&'static str, Fault>,
    broken: Vec<String>,
    replay: String,
}

/// Runs a planned scenario once; the exit status is 1 when a promise was broken.
pub(super) fn run(name: PlannedName, args: &SimRunArgs) -> Result<u8, CommandError> {
    let (scenario, _) = scenario(name);
    let case = case(scenario, args.seed, args.options.as_deref())?;
    run_case(scenario, case, args.json)
}

/// Runs what a file says.
pub(super) fn run_file(path: &std::path::Path, as_json: bool) -> Result<u8, CommandError> {
    let (name, case) = file::read(path)?;
    run_case(scenario(name).0, case, as_json)
}

fn run_case(scenario: &dyn Scenario, case: Case, as_json: bool) -> Result<u8, CommandError> {
    let before = process::cpu_time();
    let verdict = fenced(move || scenario.play(&case))?;
    let cpu = process::cpu_time().saturating_sub(before);
    let status = u8::from(!verdict.is_kept());
    let outcome = outcome(scenario.name(), verdict, cpu);
    print(&outcome, as_json, text)?;
    Ok(status)
}

fn outcome(scenario: &'static str, verdict: Verdict, cpu: Duration) -> Outcome {
    let shown = verdict.faults.iter().filter(|(_, injected, effect)| injected + effect > 0);
    Outcome {
        scenario,
        trace_hash: format!("{:016x}", verdict.trace_hash),
        events: verdict.events,
        virtual_seconds: verdict.virtual_time.as_secs_f64(),
        settled_after_seconds: verdict.settled_after.as_secs_f64(),
        cpu_seconds: cpu.as_secs_f64(),
        faults_struck: verdict.struck.len(),
        faults: shown
            .map(|(kind, injected, effect)| (kind.name(), Fault { injected, effect }))
            .collect(),
        broken: verdict.broken,
        replay: replay(scenario, &verdict.options),
        options: verdict.options,
    }
}

/// The outcome for people.
fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "scenario   {}\n\
         options    {}\n\
         trace      hash {} over {} events\n\
         time       {:.1} virtual seconds in {:.3} s of CPU, settled {:.1} s after the healing\n\
         faults     injected  in effect\n",
        outcome.scenario,
        outcome.options,
        outcome.trace_hash,
        outcome.events,
        outcome.virtual_seconds,
        outcome.cpu_seconds,
        outcome.settled_after_seconds,
    );
    text += &fault_lines(&outcome.faults);
    text + &promise_lines(&outcome.broken, &outcome.replay)
}

/// How a kind of fault showed.
#[derive(Debug, Serialize)]
struct Shown {
    name: &'static str,
    family: &'static str,
    runs_injected: u64,
    runs_effect: u64,
    injected: u64,
    effect: u64,
}

/// How two families showed together.
#[derive(Debug, Serialize)]
struct Together {
    families: [&'static str; 2],
    runs_effect: u64,
}

#[derive(Debug, Serialize)]
struct Failed {
    seed: u64,
    faults_struck: usize,
    broken: Vec<String>,
    replay: String,
}

/// A share with the bounds between which it lies with 95 % confidence.
#[derive(Debug, Serialize)]
struct Share {
    share: f64,
    low: f64,
    high: f64,
}

/// What a sweep prints.
#[derive(Debug, Serialize)]
struct Swept {
    scenario: &'static str,
    first: u64,
    seeds: u64,
    failed: u64,
    failure: Share,
    events: u64,
    settled_after_seconds_max: f64,
    cpu_seconds: f64,
    seeds_per_cpu_minute: f64,
    faults: Vec<Shown>,
    pairs: Vec<Together>,
    marks: BTreeMap<&'static str, [u64; 2]>,
    never: Vec<String>,
    coverage_judged: bool,
    failures: Vec<Failed>,
}

/// Runs many seeds; the exit status is 1 when a promise was broken or something never showed.
///
/// # Errors
/// [`CommandError`] when the result cannot be told.
pub fn run_sweep(args: &SimSweepArgs) -> Result<u8, CommandError> {
    let (scenario, _) = scenario(args.scenario);
    let before = process::cpu_time();
    let limit = args.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let seeds = args.first..args.first.saturating_add(args.seeds);
    let report = within(limit, |goes_on| {
        fenced(|| sweep(scenario, seeds, |_, _| goes_on.load(Ordering::Relaxed)))
    })?;
    let cpu = process::cpu_time().saturating_sub(before).as_secs_f64();
    let status = u8::from(!report.is_good());
    print(&swept(args.first, report, cpu), args.json, sweep_text)?;
    Ok(status)
}

/// Does something that looks at a flag now and then, which a clock outside of the fence puts out when
/// the time is over.
fn within<T>(limit: Option<Duration>, work: impl FnOnce(&AtomicBool) -> T) -> T {
    let goes_on = AtomicBool::new(true);
    let Some(limit) = limit else { return work(&goes_on) };
    thread::scope(|scope| {
        // Dropped when the work is done, whatever it came to.
        let (_done, is_done) = mpsc::channel::<()>();
        let flag = &goes_on;
        scope.spawn(move || {
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // It orders nothing: one run more or less is the same.
                flag.store(false, Ordering::Relaxed);
            }
        });
        work(flag)
    })
}

fn swept(first: u64, report: SweepReport, cpu_seconds: f64) -> Swept {
    let SweepReport { scenario, seeds, failed, .. } = report;
    let (low, high) = wilson(failed, seeds);
    let shown = |(kind, report): (&FaultKind, &twinspan_sim::sweep::KindReport)| Shown {
        name: kind.name(),
        family: kind.family().name(),
        runs_injected: report.runs_injected,
        runs_effect: report.runs_effect,
        injected: report.injected,
        effect: report.effect,
    };
    Swept {
        scenario,
        first,
        seeds,
        failed,
        failure: Share { share: failed as f64 / seeds.max(1) as f64, low, high },
        events: report.events,
        settled_after_seconds_max: report.settled_after_max.as_secs_f64(),
        cpu_seconds,
        seeds_per_cpu_minute: seeds as f64 * 60.0 / cpu_seconds.max(1e-3),
        faults: report.kinds.iter().map(shown).collect(),
        pairs: report
            .pairs
            .iter()
            .map(|((one, other), runs)| Together {
                families: [one.name(), other.name()],
                runs_effect: *runs,
            })
            .collect(),
        marks: report.marks.iter().map(|(name, (met, held))| (*name, [*met, *held])).collect(),
        never: report.never,
        coverage_judged: seeds >= COVERAGE_SEEDS_MIN,
        failures: report
            .failures
            .into_iter()
            .map(|failure| Failed {
                seed: failure.seed,
                faults_struck: failure.faults,
                broken: failure.broken,
                replay: replay(scenario, &failure.options),
            })
            .collect(),
    }
}

fn sweep_text(swept: &Swept) -> String {
    let Share { share, low, high } = swept.failure;
    let mut text = format!(
        "scenario   {}: {} seeds from {} on, {} events\n\
         time       {:.1} s of CPU, {:.0} seeds a CPU-minute; settled {:.1} s after the healing at \
         the latest\n\
         failed     {} runs: {:.3} %, between {:.3} % and {:.3} % with 95 % confidence\n\
         faults     in runs  with effect    injected   in effect\n",
        swept.scenario,
        swept.seeds,
        swept.first,
        swept.events,
        swept.cpu_seconds,
        swept.seeds_per_cpu_minute,
        swept.settled_after_seconds_max,
        swept.failed,
        share * 100.0,
        low * 100.0,
        high * 100.0,
    );
    for fault in &swept.faults {
        let Shown { name, runs_injected, runs_effect, injected, effect, .. } = fault;
        text +=
            &format!("{runs_injected:>18}{runs_effect:>13}{injected:>12}{effect:>12}  {name}\n");
    }
    text += "pairs      with effects in one run\n";
    for Together { families: [one, other], runs_effect } in &swept.pairs {
        text += &format!("{runs_effect:>18}  {one} and {other}\n");
    }
    for (name, [met, held]) in &swept.marks {
        text += &format!("mark       held {held} of {met} times  {name}\n");
    }
    for line in &swept.never {
        let kind = if swept.coverage_judged { "missing" } else { "unseen " };
        text += &format!("{kind}    {line}\n");
    }
    if !swept.never.is_empty() && !swept.coverage_judged {
        text += &format!(
            "           what was not seen is a failure from {COVERAGE_SEEDS_MIN} seeds on\n"
        );
    }
    for failure in &swept.failures {
        text += &format!("failure    seed {}, {} faults\n", failure.seed, failure.faults_struck);
        for line in &failure.broken {
            text += &format!("broken     {line}\n");
        }
        text += &format!("replay     {}\n", failure.replay);
    }
    text
}

/// What a shrink prints.
#[derive(Debug, Serialize)]
struct Least {
    scenario: &'static str,
    options: String,
    faults_before: usize,
    faults_after: usize,
    is_least: bool,
    runs: usize,
    cpu_seconds: f64,
    faults: Vec<String>,
    broken: Vec<String>,
    regression_test: String,
}

/// Shrinks a failing run; the exit status is 1 when there is one, as for other commands that find a
/// broken promise.
///
/// # Errors
/// [`CommandError`] when the run does not fail, or its result cannot be told.
pub fn run_shrink(args: &SimShrinkArgs) -> Result<u8, CommandError> {
    let (scenario, path) = scenario(args.scenario);
    let case = case(scenario, args.seed, args.options.as_deref())?;
    let before = process::cpu_time();
    let shrunk = fenced(move || shrink(scenario, &case))?.map_err(CommandError::Shrink)?;
    let cpu = process::cpu_time().saturating_sub(before);
    print(&least(shrunk, path, cpu), args.json, least_text)?;
    Ok(1)
}

fn least(shrunk: Shrunk, path: &str, cpu: Duration) -> Least {
    Least {
        scenario: shrunk.scenario,
        faults_before: shrunk.before,
        faults_after: shrunk.faults.len(),
        is_least: shrunk.is_least,
        runs: shrunk.runs,
        cpu_seconds: cpu.as_secs_f64(),
        faults: shrunk.faults.iter().map(ToString::to_string).collect(),
        regression_test: shrunk.regression_test(path),
        options: shrunk.options,
        broken: shrunk.broken,
    }
}

fn least_text(least: &Least) -> String {
    let need = if least.is_least { "each of them needed" } else { "perhaps not all needed" };
    let mut text = format!(
        "scenario   {}\n\
         options    {}\n\
         faults     {} of {} are left after {} runs in {:.2} s of CPU, {need}\n",
        least.scenario,
        least.options,
        least.faults_after,
        least.faults_before,
        least.runs,
        least.cpu_seconds,
    );
    for fault in &least.faults {
        text += &format!("fault      {fault}\n");
    }
    for line in &least.broken {
        text += &format!("broken     {line}\n");
    }
    text += "\n";
    text += &least.regression_test;
    text
}

/// A kind of fault and what it did to its victim.
#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    family: &'static str,
    description: &'static str,
    planned: bool,
    victim: &'static str,
    cause: &'static str,
    injected: u64,
    effect: u64,
    absent: u64,
    changed: bool,
}

/// All kinds.
#[derive(Debug, Serialize)]
struct Catalogue {
    count: usize,
    faults: Vec<Listed>,
}

/// Lists the faults, each with its victim; the exit status is 1 when one did nothing to it.
///
/// # Errors
/// [`CommandError`] when the list cannot be told.
pub fn run_faults(args: &SimFaultsArgs) -> Result<u8, CommandError> {
    let prove_all = || FaultKind::ALL.into_iter().map(victims::prove).collect();
    let proofs: Vec<_> = fenced(prove_all)?;
    let status = u8::from(!proofs.iter().all(victims::Proof::holds));
    let faults: Vec<_> = proofs
        .into_iter()
        .map(|proof| Listed {
            name: proof.kind.name(),
            family: proof.kind.family().name(),
            description: proof.kind.description(),
            planned: is_planned(proof.kind),
            victim: proof.victim,
            cause: proof.cause,
            injected: proof.injected,
            effect: proof.effect,
            absent: proof.absent,
            changed: proof.changed,
        })
        .collect();
    let catalogue = Catalogue { count: faults.len(), faults };
    print(&catalogue, args.json, catalogue_text)?;
    Ok(status)
}

fn catalogue_text(catalogue: &Catalogue) -> String {
    let mut text = String::new();
    let mut family = "";
    let mut faults: Vec<_> = catalogue.faults.iter().collect();
    faults.sort_by_key(|fault| fault.family);
    for fault in faults {
        if fault.family != family {
            family = fault.family;
            text += &format!("{family}\n");
        }
        text += &format!(
            "  {:<18} {:>6} injected {:>6} in effect   {}\n",
            fault.name, fault.injected, fault.effect, fault.description
        );
    }
    text += &format!("{} faults\n", catalogue.count);
    text
}

/// Why a run could not be shrunk, for the command line.
pub(crate) fn shrink_advice(error: &ShrinkError) -> &'static str {
    match error {
        ShrinkError::Kept => "; `twinspan sim sweep` finds seeds that fail",
        _ => "",
    }
}
