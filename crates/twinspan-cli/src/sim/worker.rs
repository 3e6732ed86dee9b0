//! The process that runs seeds for `twinspan sim verify`: a line for each, or the events of one.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use twinspan_game::scenario::{ScenarioError, WorldReport, WorldScenario};
use twinspan_sim::{Sim, TraceCheckpoints};

use crate::args::SimVerifyWorkerArgs;
use crate::error::CommandError;

/// Whose datagram is changed where a difference is planted, and which.
const PLANTED_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
const PLANTED_TO: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PLANTED_NUMBER: u64 = 40;
/// What a line begins with that says what a number stands for.
pub(super) const LEGEND: &str = "=";

/// What one seed came to, as a worker says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeedLine {
    pub(super) seed: u64,
    pub(super) hash: u64,
    pub(super) events: u64,
    pub(super) checkpoints: TraceCheckpoints,
}

impl SeedLine {
    /// As one line: seed, hash, events, distance of checkpoints, checkpoints.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { seed, hash, events, checkpoints } = self;
        write!(out, "{seed} {hash:x} {events} {}", checkpoints.every())?;
        checkpoints.hashes().iter().try_for_each(|hash| write!(out, " {hash:x}"))?;
        writeln!(out)
    }

    /// Reads such a line; `None` when it is none.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let hex = |word: &str| u64::from_str_radix(word, 16).ok();
        let mut words = line.split_whitespace();
        let seed = words.next()?.parse().ok()?;
        let hash = hex(words.next()?)?;
        let events = words.next()?.parse().ok()?;
        let every = words.next()?.parse().ok()?;
        let hashes = words.map(hex).collect::<Option<_>>()?;
        let checkpoints = TraceCheckpoints::from_parts(every, hashes)?;
        Some(Self { seed, hash, events, checkpoints })
    }
}

/// Runs the seeds behind the fence and writes what they come to.
///
/// # Errors
/// [`CommandError`] when the scenario cannot be run, calls out, or its result cannot be told.
pub fn verify_worker(args: &SimVerifyWorkerArgs) -> Result<u8, CommandError> {
    twinspan_fence::guard(|| {
        for seed in args.first_seed..args.first_seed.saturating_add(args.seeds) {
            let report = run(args, seed)?;
            let WorldReport { trace_hash: hash, events, checkpoints, .. } = report;
            let told = if args.from.is_some() {
                report.legend.entries().try_for_each(|(field, number, text)| {
                    writeln!(io::stdout(), "{LEGEND} {field} {number:x} {text}")
                })
            } else {
                SeedLine { seed, hash, events, checkpoints }.write(&mut io::stdout().lock())
            };
            told.map_err(CommandError::Output)?;
        }
        Ok(0)
    })?
}

fn run(args: &SimVerifyWorkerArgs, seed: u64) -> Result<WorldReport, ScenarioError> {
    let scenario = WorldScenario {
        clients: args.clients,
        duration: Duration::from_secs(args.seconds),
        seed,
        ..WorldScenario::default()
    };
    scenario.run_tampered(|sim| prepare(args, seed, sim))
}

fn prepare(args: &SimVerifyWorkerArgs, seed: u64, sim: &mut Sim) {
    sim.set_queue(args.queue.kind());
    if args.plant == Some(seed) {
        sim.tamper(PLANTED_FROM, PLANTED_TO, PLANTED_NUMBER, |bytes, _| {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        });
    }
    if let (Some(from), Some(until)) = (args.from, args.until) {
        sim.watch_trace(from..until, |event| {
            // A parent that has seen enough is gone.
            let _ = writeln!(io::stdout(), "{event}");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_seed_came_to() {
        let checkpoints = TraceCheckpoints::from_parts(1 << 15, vec![1, 0xff]).unwrap();
        let line = SeedLine { seed: 7, hash: 0xab, events: 70_000, checkpoints };
        let mut text = Vec::new();
        line.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "7 ab 70000 32768 1 ff\n");
        assert_eq!(SeedLine::parse(&text), Some(line));
        for bad in ["", "7", "7 ab x 32768", "7 ab 1 5", "7 ab 1 32768 zz", "= host 0 server"] {
            assert_eq!(SeedLine::parse(bad), None, "{bad}");
        }
    }
}
