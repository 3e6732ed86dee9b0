//! The arguments of `twinspan sim`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{BOTS_MAX, CORES_MAX, SimTraceArgs, SimVerifyArgs, SimVerifyWorkerArgs};

/// `twinspan sim`.
#[derive(Clone, Debug, Args)]
pub struct SimArgs {
    /// What to do in the simulator.
    #[command(subcommand)]
    pub command: SimCommand,
}

/// What the simulator can do.
#[derive(Clone, Debug, Subcommand)]
pub enum SimCommand {
    /// Run one scenario with one seed
    Run(SimRunArgs),
    /// Run a recorded scenario again and compare every datagram
    Replay(SimReplayArgs),
    /// Write a page that steps through a run forward and back, or a capture of its datagrams
    Trace(SimTraceArgs),
    /// Check that runs are functions of their seeds: over processes, builds and queues of events
    Verify(SimVerifyArgs),
    /// The process that runs seeds for `verify`; its parent speaks to it
    #[command(hide = true)]
    VerifyWorker(SimVerifyWorkerArgs),
    /// Run a scenario with many seeds, each with other faults and sizes
    Sweep(SimSweepArgs),
    /// Find the few faults that a failing seed needs
    Shrink(SimShrinkArgs),
    /// List the faults there are, each with what it does to its victim
    Faults(SimFaultsArgs),
    /// Run the world for virtual hours under faults that never cease, and watch its memory
    Endure(SimEndureArgs),
}

/// `twinspan sim run`.
#[derive(Clone, Debug, Args)]
pub struct SimRunArgs {
    /// Which scenario
    #[arg(long, value_enum, default_value_t = ScenarioName::World)]
    pub scenario: ScenarioName,
    /// Scenarios world, hostile and circuit: clients, 20 unless given
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(BOTS_MAX)))]
    pub clients: u32,
    /// Scenario hostile: datagrams that the server is sent; a million unless given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000_000))]
    pub datagrams: Option<u64>,
    /// Scenario hostile: protect packets by the real ciphers, not by the simulator's tag
    #[arg(long)]
    pub real_ciphers: bool,
    /// Scenarios world and circuit: virtual seconds under faults, 10 unless given, 30 for circuit; the
    /// healing and the drain that follow are not counted
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: Option<u64>,
    /// Scenario world: cores of the simulated server, 1 unless given; every seventh datagram comes to
    /// a wrong one
    #[arg(long, value_name = "N", conflicts_with = "record", value_parser = clap::value_parser!(u16).range(1..=i64::from(CORES_MAX)))]
    pub cores: Option<u16>,
    /// Scenario world: record every datagram into this file, for `twinspan sim replay`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// The seed: the run is a function of it and of the other arguments
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// The options that a sweep printed, such as "seed=7 loss=0.01": that run again
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["seed", "file"])]
    pub options: Option<String>,
    /// A scenario file: its scenario, sizes and faults, in place of --scenario and --seed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "scenario"])]
    pub file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `twinspan sim replay`.
#[derive(Clone, Debug, Args)]
pub struct SimReplayArgs {
    /// A file that `twinspan sim run --record` wrote
    pub file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The scenarios there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// The world server, its clients and bots, under loss, jitter, duplication and reordering
    World,
    /// The world server under mutated datagrams of strangers and traitors, while players play
    Hostile,
    /// Second Life circuits: agents talk, travel and are cut off on a small grid
    Circuit,
    /// Clients of an echo server over datagrams and streams, under the faults that the seed draws
    Echo,
    /// Nodes that tell one another what they know, cut off from one another
    Partition,
    /// Clients behind a box that translates addresses pay into a journal on a server's disk
    Vault,
    /// Processes of one host that tell one another numbers over topics in shared memory
    Board,
    /// Hubs that publish and receive over UDP, TCP and a simulated QUIC
    #[cfg(target_os = "linux")]
    Hub,
    /// A sender with a defect on purpose, for `sweep` and `shrink` to find
    Planted,
}

/// The scenarios whose faults are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlannedName {
    /// Clients of an echo server over datagrams and streams
    Echo,
    /// Nodes that tell one another what they know, cut off from one another
    Partition,
    /// Clients behind a box that translates addresses pay into a journal on a server's disk
    Vault,
    /// Processes of one host that tell one another numbers over topics in shared memory
    Board,
    /// Hubs that publish and receive over UDP, TCP and a simulated QUIC
    #[cfg(target_os = "linux")]
    Hub,
    /// The world server, its clients and bots
    World,
    /// Agents that talk and travel on a small grid of Second Life regions
    Circuit,
    /// A sender with a defect on purpose
    Planted,
}

/// The scenarios whose runs are compared event by event, and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckedName {
    /// The world server, its clients and bots; with --options under planned faults
    World,
    /// Agents that talk and travel on a small grid of Second Life regions
    Circuit,
    /// Clients of an echo server over datagrams and streams
    Echo,
    /// Nodes that tell one another what they know, cut off from one another
    Partition,
    /// Clients behind a box that translates addresses pay into a journal on a server's disk
    Vault,
    /// Hubs that publish and receive over UDP, TCP and a simulated QUIC
    #[cfg(target_os = "linux")]
    Hub,
    /// A sender with a defect on purpose
    Planted,
}

impl CheckedName {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Circuit => "circuit",
            Self::Echo => "echo",
            Self::Partition => "partition",
            Self::Vault => "vault",
            #[cfg(target_os = "linux")]
            Self::Hub => "hub",
            Self::Planted => "planted",
        }
    }

    /// The same under planned faults.
    pub const fn planned(self) -> PlannedName {
        match self {
            Self::World => PlannedName::World,
            Self::Circuit => PlannedName::Circuit,
            Self::Echo => PlannedName::Echo,
            Self::Partition => PlannedName::Partition,
            Self::Vault => PlannedName::Vault,
            #[cfg(target_os = "linux")]
            Self::Hub => PlannedName::Hub,
            Self::Planted => PlannedName::Planted,
        }
    }
}

/// `twinspan sim sweep`.
#[derive(Clone, Debug, Args)]
pub struct SimSweepArgs {
    /// Which scenario
    #[arg(long, value_enum, default_value_t = PlannedName::Echo)]
    pub scenario: PlannedName,
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub first: u64,
    /// Stop after so many minutes, however many seeds are left
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub minutes: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `twinspan sim shrink`.
#[derive(Clone, Debug, Args)]
pub struct SimShrinkArgs {
    /// Which scenario
    #[arg(long, value_enum, default_value_t = PlannedName::Echo)]
    pub scenario: PlannedName,
    /// The seed that fails
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub seed: u64,
    /// The options that a sweep printed, in place of the seed
    #[arg(long, value_name = "TEXT", conflicts_with = "seed")]
    pub options: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `twinspan sim faults`.
#[derive(Clone, Debug, Args)]
pub struct SimFaultsArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `twinspan sim endure`.
#[derive(Clone, Debug, Args)]
pub struct SimEndureArgs {
    /// Clients of the world
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Virtual minutes under faults: a day unless given
    #[arg(long, value_name = "M", default_value_t = 1_440, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub minutes: u64,
    /// The seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
