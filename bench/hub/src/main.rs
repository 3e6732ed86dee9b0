//! Runs one library between two processes on one machine, as `twinspan bench hub` runs the hub.

#[cfg(feature = "aeron")]
mod aeron;
mod iceoryx;
mod measure;
mod mqtt;
mod process;
mod table;
#[cfg(feature = "zenoh")]
mod zenoh_peer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::measure::{Counted, Figures};
use crate::process::{Guard, Other};

#[derive(Parser)]
#[command(about = "Other libraries measured as `twinspan bench hub` measures the hub")]
struct Args {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// One run between two processes; prints one JSON object.
    Run(Plan),
    /// The other process of a run; started by `run`.
    #[command(hide = true)]
    Other(Plan),
    /// Prints one table of ratios from the lines that hub.sh notes.
    Table {
        /// The file.
        file: PathBuf,
    },
}

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
struct Plan {
    /// Which library, and which of its ways.
    #[arg(long)]
    library: Library,
    /// Latency or throughput.
    #[arg(long, default_value = "latency")]
    mode: Mode,
    /// Bytes of a message.
    #[arg(long, default_value_t = 48)]
    size: usize,
    /// Microseconds between an answer and the next message.
    #[arg(long, default_value_t = 0)]
    gap_us: u64,
    /// How much of a message is written and read.
    #[arg(long, default_value = "all")]
    touch: Touch,
    /// Hold the kernel's request for the latency of processors at 0.
    #[arg(long)]
    guard: bool,
    /// Milliseconds to measure.
    #[arg(long, default_value_t = 2_000)]
    time_ms: u64,
    /// What both ends call what they share; given by `run`.
    #[arg(long, hide = true, default_value = "")]
    name: String,
    /// Where one end listens; given by `run`.
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
    /// The core of the other process; given by `run`, which has pinned itself by then.
    #[arg(long, hide = true, default_value_t = 0)]
    core: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Library {
    /// iceoryx2, both ends look again and again.
    Iceoryx2,
    /// iceoryx2 with an event beside each message, both ends sleep.
    Iceoryx2Event,
    /// Zenoh between two peers over TCP.
    ZenohTcp,
    /// Zenoh between two peers over UDP.
    ZenohUdp,
    /// Zenoh between two peers with shared memory.
    ZenohShm,
    /// MQTT through mosquitto, quality of service 0.
    Mqtt,
    /// Aeron in shared memory, both ends look again and again.
    AeronIpc,
    /// Aeron over UDP, both ends and the driver let each other run.
    AeronUdp,
}

impl Library {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it has no threads of its own: then each process has a core, as the hub's have. Others
    /// are faster when the kernel places them.
    const fn is_pinned(self) -> bool {
        matches!(self, Self::Iceoryx2 | Self::Iceoryx2Event | Self::AeronIpc)
    }

    /// How its ends wait.
    const fn wait(self) -> &'static str {
        match self {
            Self::Iceoryx2 | Self::AeronIpc => "spin",
            Self::AeronUdp => "yield",
            Self::Iceoryx2Event => "block",
            Self::ZenohTcp | Self::ZenohUdp | Self::ZenohShm => "own threads",
            Self::Mqtt => "async",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Latency,
    Throughput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Touch {
    /// All of it is written and read.
    All,
    /// All of it is written, the first word read.
    Written,
    /// The first word is written and read, where the library lets one do so.
    First,
}

impl Plan {
    const fn time(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }

    const fn gap(&self) -> Duration {
        Duration::from_micros(self.gap_us)
    }

    /// The same for the command line of the other process.
    fn to_args(&self) -> Vec<String> {
        let choice = |value: Option<clap::builder::PossibleValue>| {
            value.map_or_else(String::new, |value| value.get_name().to_owned())
        };
        let mut args = Vec::new();
        for (name, value) in [
            ("--library", self.library.name()),
            ("--mode", choice(self.mode.to_possible_value())),
            ("--size", self.size.to_string()),
            ("--touch", choice(self.touch.to_possible_value())),
            ("--time-ms", self.time_ms.to_string()),
            ("--name", self.name.clone()),
            ("--port", self.port.to_string()),
            ("--core", self.core.to_string()),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args
    }
}

fn main() -> Result<()> {
    match Args::parse().command {
        Do::Run(plan) => run(plan),
        Do::Other(plan) => other(&plan),
        Do::Table { file } => table::print(&file),
    }
}

/// The measuring process.
fn run(mut plan: Plan) -> Result<()> {
    if plan.size < measure::WORD {
        bail!("a message has {} bytes at least", measure::WORD);
    }
    let guard = plan.guard.then(Guard::request);
    plan.name = format!("twinspan-bench-{}", std::process::id());
    plan.port = process::free_port()?;
    let cores = process::cores()?;
    plan.core = *cores.last().unwrap_or(&0);
    if plan.library.is_pinned() {
        process::pin(*cores.first().unwrap_or(&0))?;
    }
    let began = (std::time::Instant::now(), process::machine_busy());
    let mut figures = Figures::default();
    let counted = match plan.library {
        Library::Iceoryx2 => iceoryx::run::<iceoryx::Polled>(&plan, &mut figures)?,
        Library::Iceoryx2Event => iceoryx::run::<iceoryx::Sleeping>(&plan, &mut figures)?,
        #[cfg(feature = "zenoh")]
        Library::ZenohTcp | Library::ZenohUdp | Library::ZenohShm => {
            zenoh_peer::run(&plan, &mut figures)?
        }
        Library::Mqtt => mqtt::run(&plan, &mut figures)?,
        #[cfg(feature = "aeron")]
        Library::AeronIpc | Library::AeronUdp => aeron::run(&plan, &mut figures)?,
        #[cfg(not(feature = "aeron"))]
        Library::AeronIpc | Library::AeronUdp => bail!("built without Aeron"),
        #[cfg(not(feature = "zenoh"))]
        Library::ZenohTcp | Library::ZenohUdp | Library::ZenohShm => bail!("built without Zenoh"),
    };
    let elapsed = began.0.elapsed().as_secs_f64();
    let busy = process::machine_busy().saturating_sub(began.1).as_secs_f64();
    let own = process::cpu_time() + process::children_cpu_time();
    let foreign = (busy - own.as_secs_f64()).max(0.0) / elapsed;
    let granted = guard.as_ref().map(Result::is_ok);
    println!("{}", summary(&plan, &mut figures, &counted, granted, foreign));
    Ok(())
}

/// The other process: it answers, or counts.
fn other(plan: &Plan) -> Result<()> {
    process::end_with_parent()?;
    if plan.library.is_pinned() {
        process::pin(plan.core)?;
    }
    let counted = match plan.library {
        Library::Iceoryx2 => iceoryx::serve::<iceoryx::Polled>(plan)?,
        Library::Iceoryx2Event => iceoryx::serve::<iceoryx::Sleeping>(plan)?,
        #[cfg(feature = "zenoh")]
        Library::ZenohTcp | Library::ZenohUdp | Library::ZenohShm => zenoh_peer::serve(plan)?,
        Library::Mqtt => mqtt::serve(plan)?,
        #[cfg(feature = "aeron")]
        Library::AeronIpc | Library::AeronUdp => aeron::serve(plan)?,
        #[cfg(not(feature = "aeron"))]
        Library::AeronIpc | Library::AeronUdp => bail!("built without Aeron"),
        #[cfg(not(feature = "zenoh"))]
        Library::ZenohTcp | Library::ZenohUdp | Library::ZenohShm => bail!("built without Zenoh"),
    };
    println!("{}", serde_json::to_string(&counted)?);
    Ok(())
}

/// The figures under the names that `twinspan bench hub` gives them.
fn summary(
    plan: &Plan,
    figures: &mut Figures,
    counted: &Counted,
    guard: Option<bool>,
    foreign: f64,
) -> serde_json::Value {
    let is_latency = plan.mode == Mode::Latency;
    let seconds = if counted.seconds > 0.0 { counted.seconds } else { figures.seconds };
    let rate = counted.messages as f64 / seconds.max(1e-9);
    let choice = plan.touch.to_possible_value();
    json!({
        "library": plan.library.name(),
        "mode": if is_latency { "latency" } else { "throughput" },
        "wait": plan.library.wait(),
        "guard": guard,
        "gap_us": plan.gap_us,
        "size_bytes": plan.size,
        "touched": choice.map(|value| value.get_name().to_owned()),
        "one_way_p50_ns": is_latency.then(|| figures.at(0.5)),
        "one_way_p99_ns": is_latency.then(|| figures.at(0.99)),
        "one_way_p999_ns": is_latency.then(|| figures.at(0.999)),
        "messages_per_second": rate,
        "gbit_per_second": rate * plan.size as f64 * 8.0 / 1e9,
        "lost": figures.sent.saturating_sub(counted.messages),
        "cpu_publisher": figures.cpu.as_secs_f64() / figures.seconds.max(1e-9),
        "cpu_subscriber": counted.cpu_seconds / figures.seconds.max(1e-9),
        "foreign_cpu": foreign,
    })
}

/// Starts the other process and waits until it is there.
fn start_other(plan: &Plan) -> Result<Other> {
    let mut other = Other::start(&plan.to_args())?;
    other.expect("ready")?;
    Ok(other)
}
