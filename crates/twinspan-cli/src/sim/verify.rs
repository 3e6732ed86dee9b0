//! `twinspan sim verify`: the same seeds in several processes, builds and queues, which must all come
//! to the same; where they do not, the first event that differs is found.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde::Serialize;
use twinspan_fence::ENFORCEMENT;
use twinspan_sim::{Divergence, first_difference};

use super::worker::{LEGEND, SeedLine};
use crate::args::{CheckedName, QueueName, SimVerifyArgs};
use crate::error::CommandError;
use crate::output::print;

/// Clients of the world, and its virtual seconds under faults, when nobody says otherwise.
const CLIENTS: u32 = 3;
const SECONDS: u64 = 1;
/// Differences that are looked into; the others are counted.
const DIFFERENCES_TOLD_MAX: usize = 3;
/// Bytes of the environment of the process that has another one.
const ENVIRONMENT_BYTES: usize = 4_000;

/// Why seeds could not be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The other build is not there.
    #[error("{0} is no program; build it, or name another with --other")]
    NoProgram(PathBuf),
    /// A process could not be run.
    #[error("cannot run {program}: {error}")]
    Process {
        /// Which program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A process said something else than results.
    #[error(
        "the {variant} process did not run its seeds: {said}; is it a build of the same version?"
    )]
    Worker {
        /// Which.
        variant: &'static str,
        /// What it said.
        said: String,
    },
}

impl VerifyError {
    /// The exit status: 2 for what another command line can mend.
    pub const fn status(&self) -> u8 {
        match self {
            Self::NoProgram(_) => 2,
            Self::Process { .. } | Self::Worker { .. } => 1,
        }
    }
}

/// One way in which the seeds are run.
struct Variant {
    /// What is different from the first.
    name: &'static str,
    program: PathBuf,
    queue: QueueName,
    /// In another folder, with another environment.
    elsewhere: bool,
    /// The seed of which a datagram is changed.
    plant: Option<u64>,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Verified {
    scenario: &'static str,
    /// Of the world; the sizes of other scenarios are drawn from each seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    first_seed: u64,
    seeds: u64,
    differing: u64,
    events: u64,
    /// What kept the outside out of the runs.
    fence: &'static str,
    /// Each with how many seeds came to something else in it than in the first.
    variants: Vec<VariantOutcome>,
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct VariantOutcome {
    name: &'static str,
    program: String,
    queue: &'static str,
    differing: u64,
}

/// One seed that came to two things.
#[derive(Debug, Serialize)]
struct Difference {
    seed: u64,
    variant: &'static str,
    /// The number of the first event that differs, counted from 0.
    first_event: Option<u64>,
    before: Vec<String>,
    first: Vec<String>,
    other: Vec<String>,
}

/// Runs the seeds in every variant; the exit status is 1 when one came to two things.
///
/// # Errors
/// [`CommandError`] when a process cannot be run, or the result cannot be told.
pub fn verify(args: &SimVerifyArgs) -> Result<u8, CommandError> {
    if args.scenario != CheckedName::World {
        let unused = [(args.clients.is_some(), "--clients"), (args.seconds.is_some(), "--seconds")];
        if let Some((_, flag)) = unused.into_iter().find(|(is_unused, _)| *is_unused) {
            return Err(CommandError::Unused { flag, with: "where faults are planned" });
        }
    }
    let variants = variants(args)?;
    let outcomes = thread::scope(|scope| {
        let started: Vec<_> =
            variants.iter().map(|variant| scope.spawn(move || run_seeds(args, variant))).collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let verified = compare(args, &variants, &outcomes)?;
    print(&verified, args.json, text)?;
    Ok(u8::from(verified.differing > 0))
}

/// Two processes, two queues, and two builds where there are two.
fn variants(args: &SimVerifyArgs) -> Result<Vec<Variant>, VerifyError> {
    let program = std::env::current_exe()
        .map_err(|error| VerifyError::Process { program: "twinspan".into(), error })?;
    let other = match &args.other {
        Some(path) if !path.is_file() => return Err(VerifyError::NoProgram(path.clone())),
        Some(path) => Some(path.clone()),
        None => sibling(&program).filter(|path| path.is_file()),
    };
    let variant = |name, program: &Path, queue| Variant {
        name,
        program: program.into(),
        queue,
        elsewhere: false,
        plant: None,
    };
    let mut all = vec![
        variant("first", &program, QueueName::Wheel),
        Variant {
            elsewhere: true,
            plant: args.plant,
            ..variant("elsewhere", &program, QueueName::Wheel)
        },
        variant("heap", &program, QueueName::Heap),
    ];
    all.extend(other.map(|other| variant("build", &other, QueueName::Wheel)));
    Ok(all)
}

/// Where cargo puts the other profile's build of a program.
fn sibling(program: &Path) -> Option<PathBuf> {
    let (folder, name) = (program.parent()?, program.file_name()?);
    let other = match folder.file_name()?.to_str()? {
        "release" => "debug",
        "debug" => "release",
        _ => return None,
    };
    Some(folder.with_file_name(other).join(name))
}

/// Starts a worker for `seeds` seeds.
fn start(
    args: &SimVerifyArgs,
    variant: &Variant,
    (first_seed, seeds): (u64, u64),
    window: Option<(u64, u64)>,
) -> Result<Child, VerifyError> {
    let mut command = Command::new(&variant.program);
    command.args(["sim", "verify-worker"]);
    let mut numbers = vec![
        ("--first-seed", first_seed),
        ("--seeds", seeds),
        ("--clients", u64::from(args.clients.unwrap_or(CLIENTS))),
        ("--seconds", args.seconds.unwrap_or(SECONDS)),
    ];
    numbers.extend(variant.plant.map(|seed| ("--plant", seed)));
    if let Some((from, until)) = window {
        numbers.extend([("--from", from), ("--until", until)]);
    }
    for (name, value) in numbers {
        command.arg(name).arg(value.to_string());
    }
    command.args(["--queue", variant.queue.name(), "--scenario", args.scenario.name()]);
    if variant.elsewhere {
        command.env_clear().env("LANG", "tr_TR.UTF-8").env("TZ", "Asia/Kathmandu");
        command.env("UNRELATED", "x".repeat(ENVIRONMENT_BYTES)).current_dir(std::env::temp_dir());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = variant.program.clone();
    command.spawn().map_err(|error| VerifyError::Process { program, error })
}

/// Runs all seeds in one process.
fn run_seeds(args: &SimVerifyArgs, variant: &Variant) -> Result<Vec<SeedLine>, VerifyError> {
    let child = start(args, variant, (args.first_seed, args.seeds), None)?;
    let program = variant.program.clone();
    let output = child.wait_with_output();
    let output = output.map_err(|error| VerifyError::Process { program, error })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Option<Vec<_>> = text.lines().map(SeedLine::parse).collect();
    match lines {
        Some(lines) if output.status.success() && lines.len() as u64 == args.seeds => Ok(lines),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("nothing").to_owned();
            Err(VerifyError::Worker { variant: variant.name, said })
        }
    }
}

/// Counts the seeds that differ, and looks into the first of them.
fn compare(
    args: &SimVerifyArgs,
    variants: &[Variant],
    outcomes: &[Vec<SeedLine>],
) -> Result<Verified, VerifyError> {
    let is_world = args.scenario == CheckedName::World;
    let mut verified = Verified {
        scenario: args.scenario.name(),
        clients: is_world.then_some(args.clients.unwrap_or(CLIENTS)),
        seconds: is_world.then_some(args.seconds.unwrap_or(SECONDS)),
        first_seed: args.first_seed,
        seeds: args.seeds,
        differing: 0,
        events: 0,
        fence: ENFORCEMENT.name(),
        variants: Vec::new(),
        differences: Vec::new(),
    };
    let ([first, ..], [first_lines, ..]) = (variants, outcomes) else { return Ok(verified) };
    let mut counts = vec![0; variants.len()];
    for (index, line) in first_lines.iter().enumerate() {
        verified.events += line.events;
        let mut differs = false;
        for ((variant, lines), count) in variants.iter().zip(outcomes).zip(&mut counts) {
            let Some(other) = lines.get(index).filter(|other| *other != line) else { continue };
            *count += 1;
            differs = true;
            if verified.differences.len() < DIFFERENCES_TOLD_MAX {
                verified.differences.push(look_into(args, (first, line), (variant, other))?);
            }
        }
        verified.differing += u64::from(differs);
    }
    let outcome = |(variant, differing): (&Variant, u64)| VariantOutcome {
        name: variant.name,
        program: variant.program.display().to_string(),
        queue: variant.queue.name(),
        differing,
    };
    verified.variants = variants.iter().zip(counts).map(outcome).collect();
    Ok(verified)
}

/// Runs one seed again in both variants and finds the first event that differs.
fn look_into(
    args: &SimVerifyArgs,
    (first, line): (&Variant, &SeedLine),
    (variant, other): (&Variant, &SeedLine),
) -> Result<Difference, VerifyError> {
    let window = line.checkpoints.first_difference(&other.checkpoints);
    let (from, until) = (window.start, window.end);
    let mut left = Events::new(start(args, first, (line.seed, 1), Some((from, until)))?);
    let mut right = Events::new(start(args, variant, (line.seed, 1), Some((from, until)))?);
    let found = first_difference(&mut left, &mut right);
    let legend = left.legend().into_iter().chain(right.legend()).collect::<BTreeMap<_, _>>();
    let first_event = found.as_ref().map(|found| from + found.same);
    let none = Divergence { same: 0, before: Vec::new(), left: Vec::new(), right: Vec::new() };
    let Divergence { before, left, right, .. } = found.unwrap_or(none);
    let explained = |lines: Vec<String>| lines.iter().map(|line| explain(line, &legend)).collect();
    Ok(Difference {
        seed: line.seed,
        variant: variant.name,
        first_event,
        before: explained(before),
        first: explained(left),
        other: explained(right),
    })
}

/// The events that a worker writes, and then what their numbers stand for.
struct Events {
    child: Child,
    lines: Option<io::Lines<BufReader<std::process::ChildStdout>>>,
    legend: Vec<(String, String)>,
}

impl Events {
    fn new(mut child: Child) -> Self {
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        Self { child, lines, legend: Vec::new() }
    }

    fn next_line(&mut self) -> Option<String> {
        self.lines.as_mut()?.next()?.ok()
    }

    /// Reads to the end; a worker that failed before has said all that it will.
    fn legend(&mut self) -> Vec<(String, String)> {
        while self.next().is_some() {}
        // Its output has ended, so that it has.
        let _ = self.child.wait();
        std::mem::take(&mut self.legend)
    }
}

impl Iterator for Events {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let line = self.next_line()?;
            let Some(entry) = line.strip_prefix(LEGEND) else { return Some(line) };
            let mut words = entry.trim_start().splitn(3, ' ');
            if let (Some(field), Some(number), Some(text)) =
                (words.next(), words.next(), words.next())
            {
                self.legend.push((format!("{field}={number}"), format!("{field}={text}")));
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Nobody reads what it would still say; without effect when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line with names for numbers.
fn explain(line: &str, legend: &BTreeMap<String, String>) -> String {
    let words = line.split(' ').map(|word| legend.get(word).map_or(word, String::as_str));
    words.collect::<Vec<_>>().join(" ")
}

/// What was found, for people.
fn text(verified: &Verified) -> String {
    let Verified { scenario, seeds, first_seed, events, differing, fence, .. } = verified;
    let sizes = match (verified.clients, verified.seconds) {
        (Some(clients), Some(seconds)) => format!("{clients} clients, {seconds} s under faults"),
        _ => "sizes and faults of each seed".to_owned(),
    };
    let mut text = format!(
        "scenario   {scenario}: {sizes}\n\
         seeds      {seeds} from {first_seed} on, {events} events in each variant\n\
         fence      {}\n",
        match *fence {
            "kernel" => "the kernel refuses calls to the outside",
            _ => "none on this system: lints alone hold",
        }
    );
    for variant in &verified.variants {
        let VariantOutcome { name, program, queue, differing } = variant;
        text += &format!("{name:<10} {differing} differ ({program}, {queue})\n");
    }
    if !verified.variants.iter().any(|variant| variant.name == "build") {
        text += "build      one alone: name another with --other\n";
    }
    for difference in &verified.differences {
        let Difference { seed, variant, first_event, before, first, other } = difference;
        text += &match first_event {
            Some(number) => {
                format!("\nseed {seed} in {variant}: event {number} is the first to differ\n")
            }
            None => format!("\nseed {seed} in {variant}: did not differ when run again\n"),
        };
        let signs = [(' ', before), ('-', first), ('+', other)];
        for (sign, lines) in signs {
            lines.iter().for_each(|line| text += &format!("{sign} {line}\n"));
        }
    }
    text += &format!("differing  {differing}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_names() {
        let legend = [("flow=ab", "flow=10.0.0.1:7 > 10.0.0.2:7"), ("host=0", "host=server")];
        let legend = legend.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().collect();
        assert_eq!(
            explain("3 send flow=ab number=1", &legend),
            "3 send flow=10.0.0.1:7 > 10.0.0.2:7 number=1"
        );
        assert_eq!(explain("host=01", &legend), "host=01");
    }

    #[test]
    fn the_other_profile_lies_beside_this_one() {
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(sibling(&path("t/release/twinspan")), Some(path("t/debug/twinspan")));
        assert_eq!(sibling(&path("t/debug/twinspan")), Some(path("t/release/twinspan")));
        assert_eq!(sibling(&path("bin/twinspan")), None);
    }
}
