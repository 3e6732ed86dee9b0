//! The command line: what can be asked, and what is said of what cannot.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use twinspan_core::aead::Cipher;

mod determinism;
mod grid;
mod hub;
mod lludp;
mod service;
mod sim;
mod viewer;

pub use determinism::{
    BenchSimArgs, ProxyArgs, QueueName, SimPartName, SimTraceArgs, SimVerifyArgs,
    SimVerifyWorkerArgs,
};
pub use grid::{GivenUser, GridArgs};
pub use hub::{
    BenchHubArgs, HubArgs, HubCommand, HubExplainArgs, HubMode, HubSeal, HubTouch, HubTransport,
    HubWaitName,
};
pub use lludp::{BenchLludpArgs, DecodeArgs, DecodeCommand, DecodeLludpArgs};
pub use service::{BotsArgs, KeysArgs, KeysCommand, RelayArgs, ServeArgs, TokenArgs};
pub use sim::{
    CheckedName, PlannedName, ScenarioName, SimArgs, SimCommand, SimEndureArgs, SimFaultsArgs,
    SimReplayArgs, SimRunArgs, SimShrinkArgs, SimSweepArgs,
};
pub use viewer::{
    BenchViewerArgs, PlaceArg, ViewerArgs, ViewerCommand, ViewerInfoArgs, ViewerLoginArgs,
};

/// The most bots that a demo runs, and the most clients of a scenario.
pub const BOTS_MAX: u32 = 20_000;
/// The most cores that a server can be asked to run on.
pub const CORES_MAX: u16 = 256;

/// One real-time networking stack for shared worlds.
#[derive(Debug, Parser)]
#[command(name = "twinspan", bin_name = "twinspan", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a world server with bots and a live page on this machine
    Demo(DemoArgs),
    /// Run a world server until it is told to stop
    Serve(ServeArgs),
    /// Run a relay that hides a server's address, until it is told to stop
    Relay(RelayArgs),
    /// Let bots play on a server
    Bots(BotsArgs),
    /// Print a connect token that lets a user in at a server
    Token(TokenArgs),
    /// Make and look at key files
    Keys(KeysArgs),
    /// Run the same server and clients in the deterministic simulator
    Sim(SimArgs),
    /// Run a small Second Life grid to try viewers on, until it is told to stop
    Grid(GridArgs),
    /// Be somebody on a Second Life or OpenSimulator grid
    Viewer(ViewerArgs),
    /// Stand between real programs with the simulator's network conditions
    Proxy(ProxyArgs),
    /// Tell what captured packets say
    Decode(DecodeArgs),
    /// Look at topics of the hub
    Hub(HubArgs),
    /// Measure
    Bench(BenchArgs),
}

/// `twinspan demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Bots, each with a sealed session of its own
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=i64::from(BOTS_MAX)))]
    pub bots: u32,
    /// Seconds to run; without it until Ctrl-C on a terminal, else 60
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Where the world server listens for datagrams
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = address)]
    pub listen: SocketAddr,
    /// Where the live page is served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7777", value_parser = address)]
    pub http: SocketAddr,
    /// Serve no page
    #[arg(long, conflicts_with = "http")]
    pub no_http: bool,
    /// Print the summary as one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// More than 1 % of late ticks, beyond those hit by stolen time, is an error
    #[arg(long)]
    pub strict: bool,
    /// Cores for the server, each with a thread of its own; no more than there are
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(CORES_MAX)))]
    pub cores: u16,
    /// Network conditions between bots and server at the start
    #[arg(long, value_enum, default_value_t = Preset::Clean)]
    pub conditions: Preset,
}

/// Named network conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Nothing is lost and nothing takes time
    Clean,
    /// A home network at a busy hour
    Wifi,
    /// A telephone on the move
    Mobile,
}

impl Preset {
    /// The name that the link model knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Wifi => "wifi",
            Self::Mobile => "mobile",
        }
    }
}

/// `twinspan bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// The world server on one core under open-loop load from another, beside a bare floor
    World(BenchWorldArgs),
    /// The relay beside a bare forwarder, in one run
    Relay(BenchRelayArgs),
    /// The codec of Second Life UDP, on one core
    Lludp(BenchLludpArgs),
    /// A Second Life viewer: its acks, its first object over a lossy network, its memory
    Viewer(BenchViewerArgs),
    /// The simulator: events for each second of processor time, and a world against real time
    Sim(BenchSimArgs),
    /// The hub on each of its roads, beside the bare road; or processes killed under it
    Hub(BenchHubArgs),
    /// The other process of `hub`; its parent speaks to it
    #[command(hide = true)]
    HubPeer,
    /// The first end of `hub --netns` in a namespace of its own; its parent speaks to it
    #[command(hide = true)]
    HubInside,
    /// The process that `hub --zero-rtt` asks; its parent speaks to it
    #[command(hide = true)]
    HubZero,
    /// A process that `hub --kill` kills; its parent speaks to it
    #[command(hide = true)]
    HubVictim,
    /// One part of `sim` in a process of its own; its parent speaks to it
    #[command(hide = true)]
    SimPart,
    /// One end of `sim --realism` in a namespace of its own; its parent speaks to it
    #[command(hide = true)]
    RealismPart,
    /// The server's process; its parent speaks to it
    #[command(hide = true)]
    WorldServer,
    /// The generator's process; its parent speaks to it
    #[command(hide = true)]
    WorldGenerator,
    /// The floor's process; its parent speaks to it
    #[command(hide = true)]
    WorldFloor,
    /// The flood's process; its parent speaks to it
    #[command(hide = true)]
    WorldFlood,
    /// The process that puts states together; its parent speaks to it
    #[command(hide = true)]
    WorldAssembly,
}

/// `twinspan bench world`.
#[derive(Clone, Debug, Args)]
pub struct BenchWorldArgs {
    /// Players, each with a connection and keys of its own; 1,000 unless given, 100 in the simulator
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(BOTS_MAX)))]
    pub players: Option<u32>,
    /// Seconds to measure, after all players are in and a warm-up
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// The world, or sessions alone with states of one size
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub world: Switch,
    /// What happens beside the playing; loss runs in the simulator
    #[arg(long, value_enum, default_value_t = BenchScenario::Uniform)]
    pub scenario: BenchScenario,
    /// Let the players' sockets speak as relays do, and the server take what relays forward
    #[arg(long)]
    pub relay: bool,
    /// Bytes of a state where there is no world; 240 unless given
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(8..=1_000))]
    pub state_bytes: Option<u32>,
    /// Seed of the scenario in the simulator; 1 unless given
    #[arg(long)]
    pub seed: Option<u64>,
    /// Sockets that the players share, 16 unless given; with --relay each is a relay, 64 at most
    #[arg(long, value_name = "F", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub flows: Option<u32>,
    /// The one cipher that players offer; without it their own order
    #[arg(long, value_enum, value_name = "C")]
    pub cipher: Option<CipherName>,
    /// Measure neither the floor nor the memory of idle sessions
    #[arg(long)]
    pub no_floor: bool,
    /// Do not ask for real-time scheduling
    #[arg(long)]
    pub no_realtime: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `twinspan bench relay`.
#[derive(Clone, Debug, Args)]
pub struct BenchRelayArgs {
    /// Turns of each forwarder
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Milliseconds that a turn counts
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub window: u64,
    /// Datagrams offered a second; without it as many as can be sent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..))]
    pub rate: Option<u32>,
    /// Do not ask for real-time scheduling
    #[arg(long)]
    pub no_realtime: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// What a measurement adds to players who play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchScenario {
    /// Nothing
    Uniform,
    /// 10,000 others log in and leave
    Login,
    /// 200,000 hellos a second from made-up addresses
    Flood,
    /// 5 % loss, 30 ms of jitter and reordering, in the simulator
    Loss,
}

/// Ciphers by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CipherName {
    /// AES-128-GCM
    Aes128,
    /// AES-256-GCM
    Aes256,
    /// ChaCha20-Poly1305
    Chacha20,
}

impl CipherName {
    /// The cipher.
    pub const fn cipher(self) -> Cipher {
        match self {
            Self::Aes128 => Cipher::Aes128Gcm,
            Self::Aes256 => Cipher::Aes256Gcm,
            Self::Chacha20 => Cipher::ChaCha20Poly1305,
        }
    }
}

impl DemoArgs {
    /// How long to run: `None` until somebody says so.
    pub fn run_time(&self, on_terminal: bool) -> Option<Duration> {
        match self.seconds {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None if on_terminal => None,
            None => Some(Duration::from_secs(60)),
        }
    }
}

/// Reads an address with a port.
///
/// # Errors
/// What to write, with an example.
pub fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    address(text)
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "give an address and a port, as in 127.0.0.1:7777 or [::1]:7777")
}

/// Reads the command line.
///
/// # Errors
/// What to print, and with which exit status: help and version end with 0 on standard output, bad
/// input with 2 and one line on standard error.
pub fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, Refusal> {
    Cli::try_parse_from(args).map_err(|error| {
        if !error.use_stderr() {
            return Refusal { text: error.to_string(), status: 0 };
        }
        Refusal { text: one_line(&error), status: 2 }
    })
}

/// Why the command line was not taken.
#[derive(Debug)]
pub struct Refusal {
    /// What to print.
    pub text: String,
    /// The exit status.
    pub status: u8,
}

/// The parser's message on one line, with where to read more.
fn one_line(error: &clap::Error) -> String {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    let text = error.to_string();
    if matches!(error.kind(), DisplayHelpOnMissingArgumentOrSubcommand | MissingSubcommand) {
        return if text.contains("Usage: twinspan sim") {
            "twinspan: no command given after `sim`; try `twinspan sim run`\n".into()
        } else if text.contains("Usage: twinspan keys") {
            "twinspan: no command given after `keys`; try `twinspan keys new`\n".into()
        } else if text.contains("Usage: twinspan hub") {
            "twinspan: no command given after `hub`; try `twinspan hub explain sensor/imu`\n".into()
        } else if text.contains("Usage: twinspan bench") {
            "twinspan: no command given after `bench`; try `twinspan bench world`\n".into()
        } else if text.contains("Usage: twinspan viewer") {
            "twinspan: no command given after `viewer`; try `twinspan viewer login`\n".into()
        } else {
            "twinspan: no command given; try `twinspan demo`, or `twinspan --help`\n".into()
        };
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let kept: Vec<_> = lines
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(|line| line.trim_start_matches("error: "))
        .collect();
    format!("twinspan: {}; see `twinspan --help`\n", kept.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &[&str]) -> Refusal {
        parse(args.iter().map(Into::into)).map(|cli| format!("{cli:?}")).unwrap_err()
    }

    #[test]
    fn bad_input_gets_one_line_and_status_2() {
        for args in [
            &["twinspan"][..],
            &["twinspan", "dance"],
            &["twinspan", "demo", "--bogus"],
            &["twinspan", "demo", "--bots", "0"],
            &["twinspan", "demo", "--bots", "many"],
            &["twinspan", "demo", "--http", "nowhere"],
            &["twinspan", "demo", "--no-http", "--http", "127.0.0.1:1"],
            &["twinspan", "sim"],
            &["twinspan", "sim", "run", "--scenario", "moon"],
            &["twinspan", "sim", "run", "--seed", "-1"],
            &["twinspan", "keys"],
            &["twinspan", "token"],
            &["twinspan", "token", "--server", "127.0.0.1:1", "--user", "bob"],
            &["twinspan", "serve"],
            &["twinspan", "bots", "--server", "127.0.0.1:1"],
            &["twinspan", "bots", "--bots", "5"],
            &["twinspan", "bots", "--token-file", "a", "--keys", "b", "--server", "127.0.0.1:1"],
            &["twinspan", "bench"],
            &["twinspan", "bench", "world", "--players", "0"],
            &["twinspan", "bench", "relay", "--rounds", "0"],
            &["twinspan", "bench", "hub", "--size", "7"],
            &["twinspan", "bench", "hub", "--transport", "pigeon"],
            &["twinspan", "hub"],
            &["twinspan", "bench", "world", "--cipher", "rot13"],
        ] {
            let refusal = refused(args);
            assert_eq!(refusal.status, 2, "{args:?}");
            assert_eq!(refusal.text.lines().count(), 1, "{args:?}: {}", refusal.text);
        }
        assert!(refused(&["twinspan", "demo", "--bogus"]).text.contains("--bogus"));
        let text = refused(&["twinspan", "demo", "--http", "nowhere"]).text;
        assert_eq!(
            text,
            "twinspan: invalid value 'nowhere' for '--http <ADDR>': give an address and a port, as \
             in 127.0.0.1:7777 or [::1]:7777; see `twinspan --help`\n"
        );
        assert!(refused(&["twinspan"]).text.contains("twinspan demo"));
        assert!(refused(&["twinspan", "sim"]).text.contains("twinspan sim run"));
        assert!(refused(&["twinspan", "bench"]).text.contains("twinspan bench world"));
    }

    #[test]
    fn help_is_no_error() {
        assert_eq!(refused(&["twinspan", "--help"]).status, 0);
        assert_eq!(refused(&["twinspan", "--version"]).status, 0);
    }

    #[test]
    fn without_a_terminal_a_demo_ends_by_itself() {
        let args = ["twinspan", "demo"].map(Into::into);
        let Ok(Cli { command: Command::Demo(demo) }) = parse(args) else { panic!("not taken") };
        assert_eq!(demo.run_time(false), Some(Duration::from_secs(60)));
        assert_eq!(demo.run_time(true), None);
    }
}
