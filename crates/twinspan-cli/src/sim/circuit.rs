//! `twinspan sim run --scenario circuit`: agents on a small grid over a bad network.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use twinspan_bench::process;
use twinspan_grid::scenario::{CircuitReport, CircuitScenario};

use super::fenced::fenced;
use super::{Fault, fault_lines, faults_of, promise_lines};
use crate::args::SimRunArgs;
use crate::error::CommandError;
use crate::output::print;

/// Virtual seconds under faults when nobody says otherwise: time for journeys to fail.
const SECONDS: u64 = 30;

/// What one side's circuits did.
#[derive(Debug, Serialize)]
struct Side {
    messages_in: u64,
    messages_out: u64,
    reliable_in: u64,
    reliable_out: u64,
    resends_out: u64,
    duplicates_in: u64,
    given_up: u64,
    packet_acks_out: u64,
    acks_piggybacked: u64,
}

/// What a run prints.
#[derive(Debug, Serialize)]
struct Outcome {
    scenario: &'static str,
    seconds: u64,
    seed: u64,
    clients: u32,
    trace_hash: String,
    events: u64,
    virtual_seconds: f64,
    cpu_seconds: f64,
    clients_connected: u32,
    logins: u32,
    reliable_sent: u64,
    reliable_acknowledged: u64,
    reliable_failed: u64,
    teleports: u64,
    crossings: u64,
    travel_failures: u64,
    proxied: u32,
    associations: u64,
    associations_lost: u64,
    wraps: u64,
    first_object_p95_ms: Option<f64>,
    viewers: Side,
    regions: Side,
    faults: BTreeMap<&'static str, Fault>,
    broken: Vec<String>,
}

/// Runs the scenario with one seed; the exit status is 1 when a promise was broken.
pub(super) fn run(args: &SimRunArgs) -> Result<u8, CommandError> {
    let seconds = args.seconds.unwrap_or(SECONDS);
    let before = process::cpu_time();
    let scenario = CircuitScenario {
        clients: args.clients,
        duration: Duration::from_secs(seconds),
        seed: args.seed,
        ..CircuitScenario::default()
    };
    let report = fenced(|| scenario.run())??;
    let cpu = process::cpu_time().saturating_sub(before);
    let status = u8::from(!report.broken.is_empty());
    print(&outcome(args, seconds, report, cpu), args.json, text)?;
    Ok(status)
}

fn outcome(args: &SimRunArgs, seconds: u64, report: CircuitReport, cpu: Duration) -> Outcome {
    let side = |stats: &twinspan_grid::CircuitStats| Side {
        messages_in: stats.messages_in,
        messages_out: stats.messages_out,
        reliable_in: stats.reliable_in,
        reliable_out: stats.reliable_out,
        resends_out: stats.resends_out,
        duplicates_in: stats.duplicates_in,
        given_up: stats.given_up,
        packet_acks_out: stats.packet_acks_out,
        acks_piggybacked: stats.acks_piggybacked,
    };
    let slow = report.first_object.get(report.first_object.len() * 95 / 100);
    Outcome {
        scenario: "circuit",
        seconds,
        seed: args.seed,
        clients: args.clients,
        trace_hash: format!("{:016x}", report.trace_hash),
        events: report.events,
        virtual_seconds: report.virtual_time.as_secs_f64(),
        cpu_seconds: cpu.as_secs_f64(),
        clients_connected: report.connected,
        logins: report.logins,
        reliable_sent: report.reliable_sent,
        reliable_acknowledged: report.reliable_acked,
        reliable_failed: report.reliable_failed,
        teleports: report.teleports,
        crossings: report.crossings,
        travel_failures: report.travel_failures,
        proxied: report.proxied,
        associations: report.associations,
        associations_lost: report.associations_lost,
        wraps: report.wraps,
        first_object_p95_ms: slow.map(|time| time.as_secs_f64() * 1e3),
        viewers: side(&report.viewers),
        regions: side(&report.regions),
        faults: faults_of(&report.faults),
        broken: report.broken,
    }
}

/// The outcome for people.
fn text(outcome: &Outcome) -> String {
    let Outcome { seconds, seed, clients, trace_hash, events, .. } = outcome;
    let mut text = format!(
        "scenario   circuit: {clients} clients, {seconds} s under faults, seed {seed}\n\
         trace      hash {trace_hash} over {events} events\n\
         time       {:.1} virtual seconds in {:.2} s of CPU\n\
         agents     {} of {clients} in the world after {} logins\n\
         journeys   {} teleports, {} crossings, {} that came to nothing\n\
         reliable   {} messages, {} acknowledged, {} failures told\n\
         resends    {} of viewers, {} of regions\n\
         proxy      {} agents behind it, {} associations, {} of them lost\n\
         numbers    began anew in {} circuits\n\
         faults     injected  in effect\n",
        outcome.virtual_seconds,
        outcome.cpu_seconds,
        outcome.clients_connected,
        outcome.logins,
        outcome.teleports,
        outcome.crossings,
        outcome.travel_failures,
        outcome.reliable_sent,
        outcome.reliable_acknowledged,
        outcome.reliable_failed,
        outcome.viewers.resends_out,
        outcome.regions.resends_out,
        outcome.proxied,
        outcome.associations,
        outcome.associations_lost,
        outcome.wraps,
    );
    text += &fault_lines(&outcome.faults);
    let replay = format!(
        "twinspan sim run --scenario circuit --clients {clients} --seconds {seconds} --seed {seed}"
    );
    text + &promise_lines(&outcome.broken, &replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_comes_with_the_command_that_shows_it_again() {
        let args = SimRunArgs {
            cores: None,
            scenario: crate::args::ScenarioName::Circuit,
            clients: 2,
            datagrams: None,
            real_ciphers: false,
            record: None,
            seconds: Some(5),
            options: None,
            file: None,
            seed: 9,
            json: false,
        };
        let duration = Duration::from_secs(5);
        let scenario =
            CircuitScenario { clients: 2, duration, seed: 9, ..CircuitScenario::default() };
        let report = scenario.run().unwrap();
        let mut outcome = outcome(&args, 5, report, Duration::from_secs(1));
        assert_eq!((outcome.clients_connected, outcome.scenario), (2, "circuit"));
        assert!(text(&outcome).ends_with("promises   all kept\n"));
        outcome.broken.push("one came twice".into());
        assert!(text(&outcome).ends_with(
            "broken     one came twice\n\
             replay     twinspan sim run --scenario circuit --clients 2 --seconds 5 --seed 9\n"
        ));
    }
}
