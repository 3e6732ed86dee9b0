//! The arguments of what runs a service: keys, tokens, the server, bots that visit it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::{BOTS_MAX, CORES_MAX, address};

/// Where keys are when nobody says otherwise.
const KEY_FILE: &str = "twinspan-keys.toml";

/// Where the key shared by a server and its relays is when nobody says otherwise.
const TRUNK_KEY_FILE: &str = "twinspan-trunk.toml";

/// `twinspan keys`.
#[derive(Clone, Debug, Args)]
pub struct KeysArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What can be done with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Make fresh keys for a server, in a file that only its owner can read
    New {
        /// The file to write
        #[arg(value_name = "FILE", default_value = KEY_FILE)]
        file: PathBuf,
    },
    /// Write what a login service needs of a server's keys: enough to issue tokens, not to be the
    /// server
    Login {
        /// The server's file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The file to write
        #[arg(value_name = "OUT")]
        out: PathBuf,
    },
    /// Make a fresh key for a server and its relays, in a file that only its owner can read
    Trunk {
        /// The file to write
        #[arg(value_name = "FILE", default_value = TRUNK_KEY_FILE)]
        file: PathBuf,
    },
    /// Say which keys a file has, without showing them
    Show {
        /// The file
        #[arg(value_name = "FILE", default_value = KEY_FILE)]
        file: PathBuf,
    },
}

/// `twinspan token`.
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
    /// Where the server is, as clients reach it
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub server: SocketAddr,
    /// The user to let in
    #[arg(long, value_name = "N")]
    pub user: u64,
    /// The server's keys, or the login service's part of them
    #[arg(long, value_name = "FILE", default_value = KEY_FILE)]
    pub key_file: PathBuf,
    /// Seconds that the token can be used for
    #[arg(long, value_name = "S", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub expires: u64,
    /// Print so many tokens, for this user and the ones that follow
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(BOTS_MAX)))]
    pub count: u32,
}

/// `twinspan serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Cores to run on, instead of what the configuration says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(CORES_MAX)))]
    pub cores: Option<u16>,
    /// Print the configuration as it takes effect, and end
    #[arg(long)]
    pub print_config: bool,
}

/// `twinspan bots`.
#[derive(Clone, Debug, Default, Args)]
#[command(group(ArgGroup::new("visit").args(["token_file", "keys"])))]
pub struct BotsArgs {
    /// Tokens, one a line as `twinspan token` prints them; `-` reads them from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keys", "server", "bots", "first_user"])]
    pub token_file: Option<PathBuf>,
    /// Keys with which to make tokens for the bots
    #[arg(long, value_name = "FILE", requires = "server")]
    pub keys: Option<PathBuf>,
    /// Where the server is
    #[arg(long, value_name = "ADDR", value_parser = address, requires = "keys")]
    pub server: Option<SocketAddr>,
    /// Bots, each with a sealed session of its own; 10 unless given
    #[arg(long, value_name = "N", requires = "keys", value_parser = clap::value_parser!(u32).range(1..=i64::from(BOTS_MAX)))]
    pub bots: Option<u32>,
    /// The first bot's user; the others follow. 1 unless given
    #[arg(long, value_name = "N", requires = "keys")]
    pub first_user: Option<u64>,
    /// Seconds to play; without it until Ctrl-C or until the server ends
    #[arg(long, value_name = "S", requires = "visit", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
}

impl BotsArgs {
    /// Whether somebody at a terminal asks, not a demo through a pipe.
    pub const fn is_visit(&self) -> bool {
        self.token_file.is_some() || self.keys.is_some()
    }
}

/// `twinspan relay`.
#[derive(Clone, Debug, Args)]
pub struct RelayArgs {
    /// Where clients find the relay: what their tokens name
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: SocketAddr,
    /// From where the relay speaks to the server: what the server's `relays` must name
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub trunk: SocketAddr,
    /// Where the server takes relays
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub server: SocketAddr,
    /// The key shared with the server, as `twinspan keys trunk` makes it
    #[arg(long, value_name = "FILE", default_value = TRUNK_KEY_FILE)]
    pub key_file: PathBuf,
    /// The key before it, which the server may still send with while keys change
    #[arg(long, value_name = "FILE")]
    pub previous_key_file: Option<PathBuf>,
    /// Clients whose answered addresses are remembered
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1 << 22))]
    pub links: u32,
    /// Handshakes a second from one network
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub hellos_per_source: u32,
    /// Run on this core alone
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
    /// Run ahead of other programs, at this priority of the first-in-first-out class
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub fifo: Option<u8>,
    /// Seconds to run; without it until it is told to stop
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub seconds: Option<u64>,
    /// Print the summary at the end as one JSON object, and nothing else, on standard output
    #[arg(long)]
    pub json: bool,
}
