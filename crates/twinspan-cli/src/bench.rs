//! `twinspan bench`: the ruler.

mod relay;

use std::io::{self, Write};

use twinspan_bench::{Options, floor, generator, server, world};

use crate::args::{BenchCommand, BenchWorldArgs, CipherName};
use crate::error::CommandError;

/// Runs a measurement, or one process of it, and returns the exit status.
///
/// # Errors
/// [`CommandError`] when nothing can be measured or told.
pub fn run(command: &BenchCommand) -> Result<u8, CommandError> {
    match command {
        BenchCommand::World(args) => world(args),
        BenchCommand::Relay(args) => relay::run(args),
        BenchCommand::WorldServer => Ok(server::run().map(|()| 0)?),
        BenchCommand::WorldGenerator => Ok(generator::run().map(|()| 0)?),
        BenchCommand::WorldFloor => Ok(floor::run().map(|()| 0)?),
    }
}

fn world(args: &BenchWorldArgs) -> Result<u8, CommandError> {
    let options = Options {
        players: args.players,
        seconds: args.seconds,
        flows: args.flows,
        cipher: args.cipher.map(CipherName::cipher),
        floor: !args.no_floor,
        realtime: !args.no_realtime,
    };
    let summary = world::run(&options)?;
    let mut out = io::stdout().lock();
    let told = if args.json {
        serde_json::to_writer(&mut out, &summary)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
    } else {
        out.write_all(summary.text().as_bytes())
    };
    told.map_err(CommandError::Output)?;
    for line in &summary.broken {
        // With the stream closed there is nobody to tell; the status still says it.
        let _ = writeln!(io::stderr(), "twinspan: {line}");
    }
    Ok(u8::from(!summary.broken.is_empty()))
}
