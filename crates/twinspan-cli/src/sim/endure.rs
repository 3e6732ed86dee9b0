//! `twinspan sim endure`: the world for virtual hours under faults that never cease.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use twinspan_bench::memory::{self, Memory};
use twinspan_bench::process;
use twinspan_game::scenario::{Protection, WorldReport, WorldScenario};

use super::{Fault, fault_lines, faults_of};
use crate::args::SimEndureArgs;
use crate::error::CommandError;
use crate::output::print;

/// Parts of a run whose memory is compared.
const PARTS: usize = 10;
/// By how much the mean of the last part may be above that of the second, in percent: what is under
/// way differs from one minute to the next.
const GROWTH_PERCENT_MAX: f64 = 1.0;
/// Virtual minutes from which on growth is judged: in the first hours what is bounded still fills up,
/// such as links to those from whom forged datagrams seem to come.
const JUDGED_MINUTES: u64 = 1_200;

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
    times_real_time: f64,
    clients_connected: u32,
    reliable_sent: u64,
    reliable_delivered: u64,
    states_checked: u64,
    /// Bytes that were out at the allocator, the mean of each tenth of the run.
    live_bytes_by_tenth: Vec<u64>,
    /// From the second tenth, when everything has been as full as it gets, to the last.
    live_growth_percent: f64,
    resident_bytes_max: Option<u64>,
    faults: BTreeMap<&'static str, Fault>,
    broken: Vec<String>,
}

/// Runs the world; the exit status is 1 when a promise was broken or memory grew.
///
/// # Errors
/// [`CommandError`] when the scenario cannot be run or its result cannot be told.
pub fn endure(args: &SimEndureArgs) -> Result<u8, CommandError> {
    memory::begin();
    let before = process::cpu_time();
    let scenario = WorldScenario {
        clients: args.clients,
        duration: Duration::from_secs(60 * args.minutes),
        seed: args.seed,
        protection: Protection::Tag,
        ..WorldScenario::default()
    };
    let mut live = Vec::with_capacity(usize::try_from(args.minutes).unwrap_or(0));
    let report = twinspan_fence::guard(|| {
        scenario.run_long(|_| live.extend(Memory::now().map(|now| now.live_bytes)))
    })??;
    let cpu = process::cpu_time().saturating_sub(before);
    let outcome = outcome(args, report, &live, cpu);
    let status = u8::from(!outcome.broken.is_empty());
    print(&outcome, args.json, text)?;
    Ok(status)
}

fn outcome(args: &SimEndureArgs, report: WorldReport, live: &[i64], cpu: Duration) -> Outcome {
    let parts = means(live);
    let growth = match (parts.get(1), parts.last()) {
        (Some(first), Some(last)) if *first > 0 => {
            (*last as f64 - *first as f64) * 100.0 / *first as f64
        }
        _ => 0.0,
    };
    let mut broken = report.broken;
    if args.minutes >= JUDGED_MINUTES && growth > GROWTH_PERCENT_MAX {
        broken.push(format!("memory grew by {growth:.2} % after the second tenth"));
    }
    let (virtual_time, cpu) = (report.virtual_time.as_secs_f64(), cpu.as_secs_f64());
    Outcome {
        scenario: "endure",
        seed: args.seed,
        clients: args.clients,
        trace_hash: format!("{:016x}", report.trace_hash),
        events: report.events,
        virtual_seconds: virtual_time,
        cpu_seconds: cpu,
        times_real_time: virtual_time / cpu.max(1e-3),
        clients_connected: report.connected,
        reliable_sent: report.reliable_sent,
        reliable_delivered: report.reliable_delivered,
        states_checked: report.states_checked,
        live_bytes_by_tenth: parts,
        live_growth_percent: growth,
        resident_bytes_max: process::resident_bytes_max(),
        faults: faults_of(&report.faults),
        broken,
    }
}

/// The mean of each tenth; nothing where nobody counts.
fn means(live: &[i64]) -> Vec<u64> {
    let size = (live.len() / PARTS).max(1);
    let mean = |part: &[i64]| {
        let sum: i64 = part.iter().sum();
        u64::try_from(sum / part.len() as i64).unwrap_or(0)
    };
    live.chunks_exact(size).take(PARTS).map(mean).collect()
}

/// The outcome for people.
fn text(outcome: &Outcome) -> String {
    let Outcome { seed, clients, trace_hash, events, .. } = outcome;
    let mut text = format!(
        "scenario   world: {clients} clients, faults without an end, seed {seed}\n\
         trace      hash {trace_hash} over {events} events\n\
         time       {:.0} virtual seconds in {:.1} s of CPU: {:.0} times real time\n\
         players    {} of {clients} connected, {} states checked\n\
         reliable   {} messages sent, {} delivered\n",
        outcome.virtual_seconds,
        outcome.cpu_seconds,
        outcome.times_real_time,
        outcome.clients_connected,
        outcome.states_checked,
        outcome.reliable_sent,
        outcome.reliable_delivered,
    );
    if !outcome.live_bytes_by_tenth.is_empty() {
        let parts = outcome.live_bytes_by_tenth.iter().map(|bytes| format!(" {}", bytes / 1_024));
        text += &format!(
            "memory    {} KiB, tenth by tenth; {:+.2} % from the second to the last\n",
            parts.collect::<String>(),
            outcome.live_growth_percent,
        );
    }
    text += "faults     injected  in effect\n";
    text += &fault_lines(&outcome.faults);
    if outcome.broken.is_empty() {
        text += "promises   all kept\n";
    }
    for line in &outcome.broken {
        text += &format!("broken     {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> SimEndureArgs {
        SimEndureArgs { clients: 2, minutes: 1_440, seed: 3, json: false }
    }

    #[test]
    fn memory_that_grows_is_a_broken_promise() {
        let scenario = WorldScenario {
            clients: 2,
            duration: Duration::from_secs(70),
            ..WorldScenario::default()
        };
        let mut minutes = Vec::new();
        let report = scenario.run_long(|passed| minutes.push(passed.as_secs())).unwrap();
        assert_eq!(minutes, [60, 70]);
        assert_eq!(report.broken, Vec::<String>::new());
        let cpu = Duration::from_secs(1);
        let flat = outcome(&args(), report.clone(), &[900, 1_000, 1_005, 1_009], cpu);
        assert_eq!(flat.broken, Vec::<String>::new());
        assert!(text(&flat).ends_with("promises   all kept\n"));
        let short = SimEndureArgs { minutes: 60, ..args() };
        let early = outcome(&short, report.clone(), &[900, 1_000, 1_005, 1_011], cpu);
        assert_eq!(early.broken, Vec::<String>::new(), "what is bounded still fills up");
        let grown = outcome(&args(), report, &[900, 1_000, 1_005, 1_011], cpu);
        assert_eq!(grown.broken, ["memory grew by 1.10 % after the second tenth"]);
        assert!(text(&grown).contains("memory     0 0 0 0 KiB, tenth by tenth; +1.10 % from"));
    }

    #[test]
    fn each_tenth_has_its_mean() {
        let minutes: Vec<i64> = (0..25).collect();
        assert_eq!(means(&minutes), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
        assert_eq!(means(&[]), [0; 0]);
    }
}
