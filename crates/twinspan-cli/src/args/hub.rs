//! The command line of the hub.

use clap::{Args, Subcommand, ValueEnum};

/// `twinspan hub`.
#[derive(Clone, Debug, Args)]
pub struct HubArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: HubCommand,
}

/// What can be done with topics.
#[derive(Clone, Debug, Subcommand)]
pub enum HubCommand {
    /// Tell which road leads to an endpoint, and why
    Explain(HubExplainArgs),
}

/// `twinspan hub explain`.
#[derive(Clone, Debug, Args)]
pub struct HubExplainArgs {
    /// A topic, or shm://, udp://, tcp:// or quic:// with host, port and topic
    #[arg(value_name = "ENDPOINT")]
    pub endpoint: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Roads that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HubTransport {
    /// Shared memory
    Shm,
    /// UDP in batches
    Udp,
    /// UDP over a completion ring
    Uring,
    /// TCP
    Tcp,
    /// QUIC
    Quic,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HubMode {
    /// Half a round trip
    Latency,
    /// Messages a second
    Throughput,
}

/// How both ends wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HubWaitName {
    /// Look again and again
    Spin,
    /// Spin for twice what a wake-up costs, then sleep
    Adaptive,
    /// Sleep
    Block,
    /// Sleep as a task
    Async,
}

/// How much of a message is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HubTouch {
    /// All of it is written and read
    All,
    /// All of it is written, the first word read
    Written,
    /// The first word is written and read
    First,
}

/// How datagrams are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HubSeal {
    /// With AES-128-GCM
    Aes,
    /// With ChaCha20-Poly1305
    Chacha,
}

/// `twinspan bench hub`.
#[derive(Clone, Debug, Args)]
pub struct BenchHubArgs {
    /// The road
    #[arg(long, value_enum, default_value_t = HubTransport::Shm)]
    pub transport: HubTransport,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 48, value_parser = clap::value_parser!(u64).range(8..=(64 << 20)))]
    pub size: u64,
    /// Latency or throughput
    #[arg(long, value_enum, default_value_t = HubMode::Latency)]
    pub mode: HubMode,
    /// How both ends wait
    #[arg(long, value_enum, default_value_t = HubWaitName::Spin)]
    pub wait: HubWaitName,
    /// Microseconds between an answer and the next message
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub gap_us: u64,
    /// Messages published at once and taken at once, for throughput
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=4_096))]
    pub batch: u64,
    /// Ask for the latency guard
    #[arg(long)]
    pub guard: bool,
    /// Send lost messages again, on udp and uring, which do not unless told to
    #[arg(long)]
    pub reliable: bool,
    /// Send messages in datagrams beside the stream, on quic, which loses none unless told that it may
    #[arg(long)]
    pub best_effort: bool,
    /// Percent of the datagrams that are dropped at their arrival
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub loss: u8,
    /// Seal datagrams with a topic's key
    #[arg(long, value_enum)]
    pub seal: Option<HubSeal>,
    /// Write and read messages in shared memory where they do not fit a slot
    #[arg(long)]
    pub loan: bool,
    /// How much of a message is written and read
    #[arg(long, value_enum, default_value_t = HubTouch::All)]
    pub touch: HubTouch,
    /// Subscribers at addresses of their own that each message goes to, beside a bare sendmmsg
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub destinations: u8,
    /// Put the ends into two network namespaces with a veth pair between; needs root
    #[arg(long)]
    pub netns: bool,
    /// Instead of a measurement, the first answer over QUIC on a link of 20 ms, with and without words
    /// before the handshake's end
    #[arg(long, conflicts_with_all = ["size", "mode", "wait", "gap_us", "batch", "guard", "reliable", "loss", "seal", "loan", "touch", "destinations", "netns", "idle", "time_ms"])]
    pub zero_rtt: bool,
    /// Publish nothing: what does a subscriber cost that hears nothing?
    #[arg(long, conflicts_with_all = ["mode", "gap_us", "batch", "loss", "loan", "touch", "destinations"])]
    pub idle: bool,
    /// Milliseconds to measure, hub and floor together
    #[arg(long, value_name = "MS", default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub time_ms: u64,
    /// Instead of a measurement, kill so many processes and check that nobody is harmed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000), conflicts_with_all = ["transport", "size", "mode", "wait", "gap_us", "batch", "guard", "reliable", "best_effort", "loss", "seal", "loan", "touch", "destinations", "netns", "zero_rtt", "idle", "time_ms"])]
    pub kill: Option<u64>,
    /// Seed of the instants at which processes are killed; 1 unless given
    #[arg(long)]
    pub seed: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
