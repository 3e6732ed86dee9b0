//! Arguments of the commands that check and show that runs are functions of their seeds.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::CheckedName;

/// `twinspan sim trace`.
#[derive(Clone, Debug, Args)]
pub struct SimTraceArgs {
    /// Which scenario
    #[arg(long, value_enum, default_value_t = CheckedName::World)]
    pub scenario: CheckedName,
    /// Scenario world: clients, 3 unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: Option<u32>,
    /// Scenario world: virtual seconds under faults, 2 unless given
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: Option<u64>,
    /// The seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The options that a sweep printed, in place of the seed: that run under its planned faults
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["seed", "clients", "seconds"])]
    pub options: Option<String>,
    /// The first event that is shown, counted from 0
    #[arg(long, value_name = "EVENT", default_value_t = 0)]
    pub from: u64,
    /// Events that are shown
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=500_000))]
    pub events: u64,
    /// Write the page into this file
    #[arg(long, value_name = "FILE", required_unless_present = "pcap")]
    pub html: Option<PathBuf>,
    /// Write the datagrams of these events into this file, as pcapng
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// `twinspan sim verify`.
#[derive(Clone, Debug, Args)]
pub struct SimVerifyArgs {
    /// Seeds to run
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub first_seed: u64,
    /// Which scenario; those other than world have the faults that each seed draws
    #[arg(long, value_enum, default_value_t = CheckedName::World)]
    pub scenario: CheckedName,
    /// Scenario world: clients, 3 unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: Option<u32>,
    /// Scenario world: virtual seconds under faults, 1 unless given
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: Option<u64>,
    /// Another build of this program, as of the debug profile; without it the one that lies in the
    /// folder of the other profile, if there is one
    #[arg(long, value_name = "PATH")]
    pub other: Option<PathBuf>,
    /// Let one datagram of this seed differ in the second process, to see how it is found
    #[arg(long, value_name = "SEED", hide = true)]
    pub plant: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `twinspan sim verify-worker`.
#[derive(Clone, Debug, Args)]
pub struct SimVerifyWorkerArgs {
    /// The first seed
    #[arg(long)]
    pub first_seed: u64,
    /// How many
    #[arg(long)]
    pub seeds: u64,
    /// Which scenario
    #[arg(long, value_enum)]
    pub scenario: CheckedName,
    /// Clients of the world
    #[arg(long)]
    pub clients: u32,
    /// Virtual seconds under faults
    #[arg(long)]
    pub seconds: u64,
    /// The queue of events
    #[arg(long, value_enum, default_value_t = QueueName::Wheel)]
    pub queue: QueueName,
    /// A seed of which one datagram is changed
    #[arg(long)]
    pub plant: Option<u64>,
    /// Write the events from this number on
    #[arg(long, requires = "until")]
    pub from: Option<u64>,
    /// Up to this number
    #[arg(long, requires = "from")]
    pub until: Option<u64>,
}

/// `twinspan proxy`.
#[derive(Clone, Debug, Args)]
pub struct ProxyArgs {
    /// Where to listen, where that leads, and what each way is like, in TOML
    #[arg(long, value_name = "FILE")]
    pub conditions: PathBuf,
    /// Seconds to run; without it until Ctrl-C
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Print what came of it as one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// `twinspan bench sim`.
#[derive(Clone, Debug, Args)]
pub struct BenchSimArgs {
    /// Clients of the world, each with a host, a session and a replica of its own
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// Virtual seconds of the world that are measured, once all have come in
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Virtual seconds of each echo that are measured
    #[arg(long, value_name = "S", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub echo_seconds: u64,
    /// Measure this part alone
    #[arg(long, value_enum, value_name = "NAME", conflicts_with_all = ["fairness", "realism"])]
    pub part: Option<SimPartName>,
    /// Measure instead how a sealed session and a TCP flow share a bottleneck
    #[arg(long, conflicts_with_all = ["realism", "clients", "seconds", "echo_seconds"])]
    pub fairness: bool,
    /// Measure instead goodput and times of requests against network namespaces of this machine
    #[arg(long, conflicts_with_all = ["clients", "seconds", "echo_seconds"])]
    pub realism: bool,
    /// Seconds of each part of --realism, 20 unless given
    #[arg(long, value_name = "S", requires = "realism", value_parser = clap::value_parser!(u64).range(2..=3_600))]
    pub realism_seconds: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Parts of `bench sim` by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SimPartName {
    /// Machines under the drive loop
    Machines,
    /// Async functions on streams
    Streams,
    /// The world with the simulator's tag
    World,
    /// The world with real ciphers
    Sealed,
    /// Seeds of a small scenario
    Seeds,
    /// The shrinking of a long run
    Shrink,
}

impl SimPartName {
    /// The part.
    pub const fn part(self) -> twinspan_bench::sim::SimPart {
        use twinspan_bench::sim::SimPart;
        match self {
            Self::Machines => SimPart::Machines,
            Self::Streams => SimPart::Streams,
            Self::World => SimPart::World,
            Self::Sealed => SimPart::Sealed,
            Self::Seeds => SimPart::Seeds,
            Self::Shrink => SimPart::Shrink,
        }
    }
}

/// Queues of events by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueueName {
    /// The timing wheel
    Wheel,
    /// The plain heap
    Heap,
}

impl QueueName {
    /// The queue.
    pub const fn kind(self) -> twinspan_sim::QueueKind {
        match self {
            Self::Wheel => twinspan_sim::QueueKind::Wheel,
            Self::Heap => twinspan_sim::QueueKind::Heap,
        }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wheel => "wheel",
            Self::Heap => "heap",
        }
    }
}
