//! `twinspan sim trace`: one run as a page that steps through it forward and back, or as a capture of
//! its datagrams.

mod page;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::time::Timestamp;
use twinspan_game::scenario::WorldScenario;
use twinspan_sim::scenario::{Case, Watch};
use twinspan_sim::{EventKind, Sim, SimConfig, TraceEvent, TraceLegend};

use super::fenced::fenced;
use super::pcapng::{Capture, Captured};
use super::planned;
use crate::args::{CheckedName, SimTraceArgs};
use crate::error::CommandError;

/// Why a run could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A file cannot be written.
    #[error("{file} cannot be written: {error}")]
    Write {
        /// Its name.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// The run has no such event.
    #[error(
        "the run has {events} events, so that none has the number {from}; give a smaller --from"
    )]
    Beyond {
        /// How many it has.
        events: u64,
        /// The first that was asked for.
        from: u64,
    },
}

/// Clients of the world, and its virtual seconds under faults, when nobody says otherwise.
const CLIENTS: u32 = 3;
const SECONDS: u64 = 2;

/// An event that is shown.
struct Shown {
    number: u64,
    at: Timestamp,
    kind: EventKind,
    ids: [u64; 4],
    values: Vec<u64>,
    hash: u64,
    /// The number of the host that it happened on, where that is known.
    host: Option<u64>,
    /// The bytes of a datagram that is sent, by their place in `Run::sent`.
    sent: Option<usize>,
}

/// A datagram that was sent.
struct Sent {
    at: Timestamp,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
    /// Its flow and its number in there.
    coordinates: (u64, u64),
}

/// What is collected while the scenario runs.
#[derive(Default)]
struct Collected {
    /// Events so far.
    count: u64,
    events: Vec<Shown>,
    sent: Vec<Sent>,
    /// The datagram that the next event is about.
    leaving: Option<Sent>,
    /// On which host each task runs.
    tasks: BTreeMap<u64, u64>,
    /// From which event on the machine of a host is like this.
    states: Vec<(u64, IpAddr, String)>,
    latest: BTreeMap<IpAddr, String>,
}

/// A run, and what is shown of it.
struct Run {
    /// Which run, for people.
    about: String,
    collected: Collected,
    legend: TraceLegend,
    hash: u64,
    events: u64,
}

/// Runs the scenario and writes what was asked for.
///
/// # Errors
/// [`CommandError`] when the scenario cannot be run or a file cannot be written.
pub fn trace(args: &SimTraceArgs) -> Result<u8, CommandError> {
    if args.scenario != CheckedName::World {
        let unused = [(args.clients.is_some(), "--clients"), (args.seconds.is_some(), "--seconds")];
        if let Some((_, flag)) = unused.into_iter().find(|(is_unused, _)| *is_unused) {
            return Err(CommandError::Unused { flag, with: "where faults are planned" });
        }
    }
    let run = fenced(|| run(args))??;
    if args.from >= run.events {
        return Err(TraceError::Beyond { events: run.events, from: args.from }.into());
    }
    if let Some(file) = &args.pcap {
        write_file(file, |out| capture(&run, out))?;
    }
    if let Some(file) = &args.html {
        write_file(file, |mut out| {
            page::write(args, &run, &mut out)?;
            out.flush()
        })?;
    }
    let Run { collected, hash, events, .. } = &run;
    let shown = collected.events.len();
    let told = writeln!(
        io::stdout(),
        "trace      hash {hash:016x} over {events} events, {shown} of them shown, {} datagrams",
        collected.sent.len()
    );
    told.map_err(CommandError::Output)?;
    Ok(0)
}

fn write_file(
    file: &Path,
    write: impl FnOnce(BufWriter<File>) -> io::Result<()>,
) -> Result<(), TraceError> {
    let failed = |error| TraceError::Write { file: file.display().to_string(), error };
    write(BufWriter::new(File::create(file).map_err(failed)?)).map_err(failed)
}

fn run(args: &SimTraceArgs) -> Result<Run, CommandError> {
    let mut show = Show::new(args);
    let about = if args.scenario == CheckedName::World && args.options.is_none() {
        let (clients, seconds) = (args.clients.unwrap_or(CLIENTS), args.seconds.unwrap_or(SECONDS));
        let scenario = WorldScenario {
            clients,
            duration: Duration::from_secs(seconds),
            seed: args.seed,
            ..WorldScenario::default()
        };
        let collected = Rc::clone(&show.collected);
        let until = show.until;
        let look = move |hosts: &mut dyn Iterator<Item = (IpAddr, String)>| {
            Collected::look_at(&collected, hosts, (args.from, until));
        };
        let report = scenario.run_shown(|sim| show.begin(sim), Some(Box::new(look)))?;
        show.ended = Some((report.legend, report.trace_hash, report.events));
        let seed = args.seed;
        format!("world, seed {seed}: {clients} clients, {seconds} s under faults")
    } else {
        let (scenario, _) = planned::scenario(args.scenario.planned());
        let case: Case = planned::case(scenario, args.seed, args.options.as_deref())?;
        let verdict = scenario.play_watched(&case, &mut show);
        let broken = verdict.broken.iter().map(|line| format!("; broken: {line}"));
        format!("{}, {}{}", scenario.name(), verdict.options, broken.collect::<String>())
    };
    let Show { collected, ended, .. } = show;
    // A scenario that could not begin has told so as a broken promise.
    let (legend, hash, events) = ended.unwrap_or_default();
    Ok(Run { about, collected: collected.take(), legend, hash, events })
}

/// Collects what is shown of a run.
struct Show {
    collected: Rc<RefCell<Collected>>,
    from: u64,
    until: u64,
    ended: Option<(TraceLegend, u64, u64)>,
}

impl Show {
    fn new(args: &SimTraceArgs) -> Self {
        let until = args.from.saturating_add(args.events);
        Self { collected: Rc::default(), from: args.from, until, ended: None }
    }
}

impl Watch for Show {
    fn begin(&mut self, sim: &mut Sim) {
        let (from, until) = (self.from, self.until);
        let [watcher, tape] = [(); 2].map(|()| Rc::clone(&self.collected));
        sim.watch_trace(0..until, move |event| watcher.borrow_mut().event(event, from));
        sim.set_tape(move |datagram| {
            let mut collected = tape.borrow_mut();
            let shown = (from..until).contains(&collected.count);
            collected.leaving = shown.then(|| Sent {
                at: datagram.at,
                from: datagram.from,
                to: datagram.to,
                bytes: datagram.bytes.to_vec(),
                coordinates: (0, 0),
            });
        });
    }

    fn looks(&self) -> bool {
        true
    }

    fn look(&mut self, hosts: &mut dyn Iterator<Item = (IpAddr, String)>) {
        Collected::look_at(&self.collected, hosts, (self.from, self.until));
    }

    fn end(&mut self, sim: &Sim) {
        self.ended = Some((sim.trace_legend(), sim.trace_hash(), sim.events()));
    }
}

impl Collected {
    fn event(&mut self, event: &TraceEvent<'_>, from: u64) {
        let TraceEvent { number, at, kind, ids, values, hash } = *event;
        self.count = number + 1;
        let field = |name| {
            let fields = kind.fields();
            fields.iter().position(|field| *field == name).and_then(|at| ids.get(at)).copied()
        };
        let host = match (field("host"), field("task")) {
            (Some(host), Some(task)) => {
                self.tasks.insert(task, host);
                Some(host)
            }
            (Some(host), None) => Some(host),
            (None, Some(task)) => self.tasks.get(&task).copied(),
            (None, None) => field("origin").and_then(|origin| origin.checked_sub(1)),
        };
        let sent = self.leaving.take().and_then(|mut sent| {
            sent.coordinates = (field("flow")?, field("number")?);
            self.sent.push(sent);
            Some(self.sent.len() - 1)
        });
        if number >= from {
            let values = values.to_vec();
            self.events.push(Shown { number, at, kind, ids, values, hash, host, sent });
        }
    }

    /// Keeps what machines are like while events are shown.
    fn look_at(
        collected: &RefCell<Self>,
        hosts: &mut dyn Iterator<Item = (IpAddr, String)>,
        (from, until): (u64, u64),
    ) {
        let mut collected = collected.borrow_mut();
        if collected.count < until {
            hosts.for_each(|(ip, text)| collected.look(ip, text, from));
        }
    }

    /// Keeps what a machine is like, when that is something new.
    fn look(&mut self, ip: IpAddr, text: String, from: u64) {
        let latest = self.latest.entry(ip).or_default();
        if *latest != text {
            text.clone_into(latest);
            self.states.push((self.count.saturating_sub(from), ip, text));
        }
    }
}

/// Writes the datagrams that were sent, each with what became of it when it did not arrive.
fn capture(run: &Run, out: impl Write) -> io::Result<()> {
    let mut lost = BTreeMap::new();
    for event in &run.collected.events {
        if let ["flow", "number", "cause", _] = event.kind.fields() {
            let [flow, number, cause, _] = event.ids;
            let kind = FaultKind::ALL.iter().find(|kind| kind.index() as u64 == cause);
            lost.insert((flow, number), kind.map_or("lost", |kind| kind.name()));
        }
    }
    let mut capture = Capture::new(out, "simulated")?;
    let wall = SimConfig::default().wall_start;
    for sent in &run.collected.sent {
        let unix_nanos = wall.after(sent.at.since(Timestamp::START)).unix_nanos();
        let comment = lost.get(&sent.coordinates).copied();
        let Sent { from, to, bytes, .. } = sent;
        capture.add(Captured { unix_nanos, from: *from, to: *to, payload: bytes, comment })?;
    }
    capture.end()
}
