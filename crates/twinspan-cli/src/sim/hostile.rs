//! `twinspan sim run --scenario hostile`: a live server under mutated datagrams.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use serde::Serialize;
use twinspan_bench::process;
use twinspan_game::scenario::Protection;
use twinspan_game::scenario::hostile::{HostileReport, HostileScenario, KIND_NAMES};

use super::fenced::fenced;
use super::promise_lines;
use crate::args::SimRunArgs;
use crate::error::CommandError;
use crate::output::print;

/// Datagrams that the server is sent when nobody says otherwise.
const DATAGRAMS: u64 = 1_000_000;

/// Most sessions, handshakes, connection ids and answers that the server held at once.
#[derive(Debug, Serialize)]
struct Held {
    sessions: usize,
    handshakes: usize,
    ids: usize,
    answers: usize,
}

/// What a run prints.
#[derive(Debug, Serialize)]
struct Outcome {
    scenario: &'static str,
    seed: u64,
    clients: u32,
    ciphers: &'static str,
    datagrams: u64,
    datagrams_by_kind: BTreeMap<&'static str, u64>,
    virtual_seconds: f64,
    cpu_seconds: f64,
    datagrams_per_cpu_second: f64,
    drops: BTreeMap<&'static str, u64>,
    messages_malformed: u64,
    sessions_closed_for_violations: u64,
    traitor_sessions: u64,
    visitors: u64,
    held_max: Held,
    bytes_from_strangers: u64,
    bytes_to_strangers: u64,
    /// The process's memory when a tenth of the datagrams had been sent, and at the end.
    resident_bytes_at_a_tenth: Option<u64>,
    resident_bytes_at_the_end: Option<u64>,
    reliable_messages: u64,
    states_checked: u64,
    broken: Vec<String>,
}

/// Runs the scenario with one seed; the exit status is 1 when a promise was broken.
pub(super) fn run(args: &SimRunArgs) -> Result<u8, CommandError> {
    if args.record.is_some() {
        return Err(super::TapeError::OnlyWorld.into());
    }
    let datagrams = args.datagrams.unwrap_or(DATAGRAMS);
    let protection = if args.real_ciphers { Protection::Real } else { Protection::Tag };
    let scenario = HostileScenario {
        players: args.clients,
        datagrams,
        seed: args.seed,
        protection,
        ..HostileScenario::default()
    };
    let before = process::cpu_time();
    let (report, at_a_tenth) = play(&scenario, datagrams)?;
    let cpu_seconds = process::cpu_time().saturating_sub(before).as_secs_f64();
    let status = u8::from(!report.broken.is_empty());
    let outcome = outcome(args, report, cpu_seconds, at_a_tenth);
    print(&outcome, args.json, text)?;
    Ok(status)
}

/// Runs the scenario behind the fence. What memory the process has at a tenth is read outside of it, by
/// a thread that the run waits for: it must not have gone on meanwhile.
fn play(
    scenario: &HostileScenario,
    datagrams: u64,
) -> Result<(HostileReport, Option<u64>), CommandError> {
    let ((ask, asked), (tell, told)) = (mpsc::channel(), mpsc::channel());
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            // Without an asker the run ended before a tenth.
            let resident = asked.recv().ok().and_then(|()| process::resident_bytes());
            // An asker that is gone does not wait.
            let _ = tell.send(());
            resident
        });
        let report = fenced(move || {
            let mut ask = Some(ask);
            scenario.run(&mut |done| {
                if done >= datagrams / 10
                    && let Some(ask) = ask.take()
                    && ask.send(()).is_ok()
                {
                    // It fails when the reader is gone, who then has read.
                    let _ = told.recv();
                }
            })
        })??;
        let resident = match reader.join() {
            Ok(resident) => resident,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((report, resident))
    })
}

fn outcome(
    args: &SimRunArgs,
    report: HostileReport,
    cpu_seconds: f64,
    resident_bytes_at_a_tenth: Option<u64>,
) -> Outcome {
    let datagrams: u64 = report.datagrams.iter().sum();
    let [sessions, handshakes, ids, answers] = report.held_max;
    Outcome {
        scenario: "hostile",
        seed: args.seed,
        clients: args.clients,
        ciphers: if args.real_ciphers { "real" } else { "tag" },
        datagrams,
        datagrams_by_kind: KIND_NAMES.into_iter().zip(report.datagrams).collect(),
        virtual_seconds: report.virtual_time.as_secs_f64(),
        cpu_seconds,
        datagrams_per_cpu_second: datagrams as f64 / cpu_seconds.max(1e-3),
        drops: report.drops.into_iter().collect(),
        messages_malformed: report.malformed,
        sessions_closed_for_violations: report.violations,
        traitor_sessions: report.traitor_sessions,
        visitors: report.visitors,
        held_max: Held { sessions, handshakes, ids, answers },
        bytes_from_strangers: report.stranger_bytes,
        bytes_to_strangers: report.to_strangers.1,
        resident_bytes_at_a_tenth,
        resident_bytes_at_the_end: process::resident_bytes(),
        reliable_messages: report.reliable,
        states_checked: report.states_checked,
        broken: report.broken,
    }
}

/// The outcome for people.
fn text(outcome: &Outcome) -> String {
    let Outcome { seed, clients, ciphers, datagrams, held_max, .. } = outcome;
    let mut text = format!(
        "scenario   hostile: {datagrams} datagrams, {clients} clients, ciphers {ciphers}, seed {seed}\n\
         time       {:.1} virtual seconds in {:.1} s of CPU, {:.0} datagrams a second\n\
         held       {} sessions, {} handshakes, {} ids at most\n\
         traitors   {} sessions, {} closed for violations, {} messages refused\n\
         strangers  sent {} bytes and got {}\n\
         players    {} visitors, {} reliable messages, {} states checked\n",
        outcome.virtual_seconds,
        outcome.cpu_seconds,
        outcome.datagrams_per_cpu_second,
        held_max.sessions,
        held_max.handshakes,
        held_max.ids,
        outcome.traitor_sessions,
        outcome.sessions_closed_for_violations,
        outcome.messages_malformed,
        outcome.bytes_from_strangers,
        outcome.bytes_to_strangers,
        outcome.visitors,
        outcome.reliable_messages,
        outcome.states_checked,
    );
    if let (Some(tenth), Some(end)) =
        (outcome.resident_bytes_at_a_tenth, outcome.resident_bytes_at_the_end)
    {
        text += &format!("memory     {tenth} bytes after a tenth, {end} at the end\n");
    }
    for (cause, count) in &outcome.drops {
        text += &format!("dropped    {count:>12}  {cause}\n");
    }
    let ciphers = if *ciphers == "real" { " --real-ciphers" } else { "" };
    let replay = format!(
        "twinspan sim run --scenario hostile --clients {clients} --datagrams {datagrams} \
         --seed {seed}{ciphers}"
    );
    text + &promise_lines(&outcome.broken, &replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_comes_with_the_command_that_shows_it_again() {
        let scenario =
            HostileScenario { datagrams: 3_000, players: 2, ..HostileScenario::default() };
        let report = scenario.run(&mut |_| {}).unwrap();
        let args = SimRunArgs {
            cores: None,
            scenario: crate::args::ScenarioName::Hostile,
            clients: 2,
            datagrams: Some(3_000),
            real_ciphers: true,
            record: None,
            seconds: None,
            seed: 9,
            options: None,
            file: None,
            json: false,
        };
        let mut outcome = outcome(&args, report, 0.5, Some(7));
        assert_eq!(outcome.datagrams_per_cpu_second, 6_000.0);
        assert!(text(&outcome).ends_with("promises   all kept\n"));
        outcome.broken.push("one lost".into());
        assert!(text(&outcome).ends_with(
            "broken     one lost\n\
             replay     twinspan sim run --scenario hostile --clients 2 --datagrams 3000 --seed 9 \
             --real-ciphers\n"
        ));
    }
}
