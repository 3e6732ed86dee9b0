//! Commands about Second Life UDP.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `twinspan decode`.
#[derive(Clone, Debug, Args)]
pub struct DecodeArgs {
    /// Which protocol.
    #[command(subcommand)]
    pub command: DecodeCommand,
}

/// What can be decoded.
#[derive(Clone, Debug, Subcommand)]
pub enum DecodeCommand {
    /// Second Life UDP: every packet of a capture with all fields of its message
    Lludp(DecodeLludpArgs),
}

/// `twinspan decode lludp`.
#[derive(Clone, Debug, Args)]
pub struct DecodeLludpArgs {
    /// The capture, pcap or pcapng
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only datagrams from or to this port, that of a simulator; without it all
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Write each packet again, and tell only of those that are not the same to the byte
    #[arg(long)]
    pub check: bool,
    /// Print one JSON object a packet, and one at the end
    #[arg(long)]
    pub json: bool,
}

/// `twinspan bench lludp`.
#[derive(Clone, Debug, Args)]
pub struct BenchLludpArgs {
    /// Milliseconds that each of five windows counts
    #[arg(long, value_name = "MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub window: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
