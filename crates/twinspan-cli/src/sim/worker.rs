//! The process that runs seeds for `twinspan sim verify`: a line for each, or the events of one.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use twinspan_game::scenario::WorldScenario;
use twinspan_sim::scenario::{Case, Watch};
use twinspan_sim::{Sim, TraceCheckpoints, TraceLegend};

use super::fenced::fenced;
use super::planned::scenario;
use crate::args::{CheckedName, SimVerifyWorkerArgs};
use crate::error::CommandError;

/// Whose datagram is changed where a difference is planted, to whom, and which.
fn planted(scenario: CheckedName) -> (IpAddr, IpAddr, u64) {
    let (from, to, number) = match scenario {
        CheckedName::World => ([10, 1, 0, 1], [10, 0, 0, 1], 40),
        CheckedName::Circuit => ([10, 1, 0, 1], [10, 0, 0, 1], 4),
        CheckedName::Echo => ([10, 0, 1, 1], [10, 0, 0, 1], 0),
        CheckedName::Vault => ([192, 168, 0, 2], [198, 51, 100, 1], 0),
        #[cfg(target_os = "linux")]
        CheckedName::Hub => ([10, 0, 0, 2], [10, 0, 0, 1], 0),
        CheckedName::Partition => ([10, 0, 2, 1], [10, 0, 2, 2], 0),
        CheckedName::Planted => ([10, 0, 3, 1], [10, 0, 3, 2], 0),
    };
    (Ipv4Addr::from(from).into(), Ipv4Addr::from(to).into(), number)
}

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
    fenced(|| {
        for seed in args.first_seed..args.first_seed.saturating_add(args.seeds) {
            let Seen { line, legend } = run(args, seed)?;
            let told = match (line, legend) {
                (_, Some(legend)) => legend.entries().try_for_each(|(field, number, text)| {
                    writeln!(io::stdout(), "{LEGEND} {field} {number:x} {text}")
                }),
                (Some(line), None) => line.write(&mut io::stdout().lock()),
                (None, None) => Ok(()),
            };
            told.map_err(CommandError::Output)?;
        }
        Ok(0)
    })?
}

/// What came of a run: a line, or what the numbers in its events stand for where those are wanted.
#[derive(Default)]
struct Seen {
    line: Option<SeedLine>,
    legend: Option<TraceLegend>,
}

/// Prepares a run and takes down what came of it.
struct Worker<'a> {
    args: &'a SimVerifyWorkerArgs,
    seed: u64,
    seen: Seen,
}

fn run(args: &SimVerifyWorkerArgs, seed: u64) -> Result<Seen, CommandError> {
    let mut worker = Worker { args, seed, seen: Seen::default() };
    if args.scenario == CheckedName::World {
        let scenario = WorldScenario {
            clients: args.clients,
            duration: Duration::from_secs(args.seconds),
            seed,
            ..WorldScenario::default()
        };
        let report = scenario.run_tampered(|sim| worker.begin(sim))?;
        let (hash, events, checkpoints) = (report.trace_hash, report.events, report.checkpoints);
        worker.take_down(SeedLine { seed, hash, events, checkpoints }, report.legend);
    } else {
        let (scenario, _) = scenario(args.scenario.planned());
        // Whether promises were kept is for sweeps.
        let _ = scenario.play_watched(&Case::drawn(scenario, seed), &mut worker);
    }
    Ok(worker.seen)
}

impl Worker<'_> {
    fn take_down(&mut self, line: SeedLine, legend: TraceLegend) {
        let legend = self.args.from.is_some().then_some(legend);
        self.seen = Seen { line: Some(line), legend };
    }
}

impl Watch for Worker<'_> {
    fn begin(&mut self, sim: &mut Sim) {
        let args = self.args;
        sim.set_queue(args.queue.kind());
        if args.plant == Some(self.seed) {
            let (from, to, number) = planted(args.scenario);
            sim.tamper(from, to, number, |bytes, _| {
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

    fn end(&mut self, sim: &Sim) {
        let (seed, hash, events) = (self.seed, sim.trace_hash(), sim.events());
        let line = SeedLine { seed, hash, events, checkpoints: sim.trace_checkpoints() };
        self.take_down(line, sim.trace_legend());
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
