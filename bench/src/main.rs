//! Runs one library as server and clients in two pinned processes on the schedule of `twinspan bench world`.

mod clock;
#[cfg(feature = "enet")]
mod enet;
mod measure;
mod polled;
mod process;
mod quic;
mod renet_peer;
mod table;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

/// Inputs a player sends in a second.
const INPUTS_HZ: u64 = 60;
/// States a player is sent in a second.
const STATES_HZ: u64 = 20;
/// Bytes of an input.
const INPUT_BYTES: usize = 48;
/// How long all play before anything counts.
const WARM_UP: Duration = Duration::from_millis(1_500);

#[derive(Parser)]
#[command(about = "Other libraries on the schedule of `twinspan bench world`")]
struct Args {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// One run: a server pinned to core 0, all clients in a process pinned to core 1.
    Run(Plan),
    /// One end of a run; started by `run`.
    #[command(hide = true)]
    Server(Plan),
    /// One end of a run; started by `run`.
    #[command(hide = true)]
    Clients(Plan),
    /// Prints one table of ratios from the JSON lines of several runs.
    Table {
        /// Files with one JSON object a line.
        files: Vec<PathBuf>,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Plan {
    /// Which library.
    #[arg(long)]
    library: Library,
    /// Players, each with a connection of its own.
    #[arg(long, default_value_t = 1_000)]
    players: usize,
    /// Measured seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of a state.
    #[arg(long, default_value_t = 250)]
    state_bytes: usize,
    /// Microseconds between two polls of a server that is polled.
    #[arg(long, default_value_t = 1_000)]
    poll_us: u64,
    /// Where the server listens; given by `run`.
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Library {
    Renet,
    Enet,
    Quinn,
}

impl Library {
    const fn name(self) -> &'static str {
        match self {
            Self::Renet => "renet",
            Self::Enet => "enet",
            Self::Quinn => "quinn",
        }
    }
}

fn main() -> Result<()> {
    match Args::parse().command {
        Do::Run(plan) => run(&plan),
        Do::Server(plan) => {
            process::settle(0)?;
            match plan.library {
                Library::Renet => renet_peer::serve(&plan),
                Library::Enet => enet_serve(&plan),
                Library::Quinn => quic::serve(&plan),
            }
        }
        Do::Clients(plan) => {
            process::settle(1)?;
            match plan.library {
                Library::Renet => renet_peer::play(&plan),
                Library::Enet => enet_play(&plan),
                Library::Quinn => quic::play(&plan),
            }
        }
        Do::Table { files } => table::print(&files),
    }
}

#[cfg(feature = "enet")]
fn enet_serve(plan: &Plan) -> Result<()> {
    enet::serve(plan)
}

#[cfg(feature = "enet")]
fn enet_play(plan: &Plan) -> Result<()> {
    enet::play(plan)
}

#[cfg(not(feature = "enet"))]
fn enet_serve(_: &Plan) -> Result<()> {
    bail!("built without ENet: install libenet-dev and build with --features enet")
}

#[cfg(not(feature = "enet"))]
fn enet_play(_: &Plan) -> Result<()> {
    bail!("built without ENet: install libenet-dev and build with --features enet")
}

/// A child process and what it says.
struct End {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl End {
    fn start(plan: &Plan, side: &str, port: u16) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(side)
            .args(["--library", plan.library.name()])
            .args(["--players", &plan.players.to_string()])
            .args(["--seconds", &plan.seconds.to_string()])
            .args(["--state-bytes", &plan.state_bytes.to_string()])
            .args(["--poll-us", &plan.poll_us.to_string()])
            .args(["--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("the child has no output")?;
        Ok(Self { child, lines: BufReader::new(out).lines() })
    }

    fn line(&mut self) -> Result<String> {
        self.lines.next().context("the process ended early")?.context("its output broke")
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("the child has no input")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(plan: &Plan) -> Result<()> {
    let mut server = End::start(plan, "server", 0)?;
    let port = server.line()?.parse().context("the server did not say its port")?;
    let mut clients = End::start(plan, "clients", port)?;
    let ready = clients.line()?;
    if ready != "ready" {
        bail!("the clients did not connect: {ready}");
    }
    let begin = clock::now().saturating_add(u64::try_from(WARM_UP.as_nanos())?);
    server.tell(&begin.to_string())?;
    clients.tell(&begin.to_string())?;
    let down: Value = serde_json::from_str(&clients.line()?)?;
    let up: Value = serde_json::from_str(&server.line()?)?;
    let ratio = |got: &Value, sent: &Value| {
        got.as_f64().unwrap_or(0.0) / sent.as_f64().unwrap_or(0.0).max(1.0)
    };
    let (inputs, states) =
        (ratio(&up["messages"], &down["sent"]), ratio(&down["messages"], &up["sent"]));
    let late = |end: &Value| end["p99_ms"].as_f64().unwrap_or(f64::INFINITY) >= 50.0;
    let held = inputs >= 0.99 && states >= 0.99 && !late(&up) && !late(&down);
    let cpu = up["cpu_us"].as_f64().unwrap_or(0.0);
    println!(
        "{}",
        json!({
            "library": plan.library.name(), "players": plan.players, "seconds": plan.seconds,
            "state_bytes": plan.state_bytes, "poll_us": plan.poll_us, "held": held,
            "server_cpu_us_per_client_second": cpu / (plan.players as f64 * plan.seconds as f64),
            "server_share": cpu / 1e6 / plan.seconds as f64,
            "generator_share": down["cpu_us"].as_f64().unwrap_or(0.0) / 1e6 / plan.seconds as f64,
            "inputs_delivered": inputs, "states_delivered": states,
            "up_p50_ms": up["p50_ms"], "up_p99_ms": up["p99_ms"],
            "down_p50_ms": down["p50_ms"], "down_p99_ms": down["p99_ms"],
            "memory_per_connection_bytes":
                up["resident_bytes"].as_f64().unwrap_or(0.0) / plan.players as f64,
        })
    );
    Ok(())
}
