//! `twinspan bench sim`: what the simulator gets out of a second of processor time.

use std::io::{self, Write};

use twinspan_bench::sim::{SimOptions, run as measure};

use crate::args::BenchSimArgs;
use crate::error::CommandError;

/// Measures and tells.
pub(super) fn run(args: &BenchSimArgs) -> Result<u8, CommandError> {
    let summary = measure(SimOptions {
        world_clients: args.clients,
        world_seconds: args.seconds,
        echo_seconds: args.echo_seconds,
    })?;
    let mut out = io::stdout().lock();
    let told = if args.json {
        serde_json::to_string(&summary)
            .map_err(io::Error::from)
            .and_then(|line| writeln!(out, "{line}"))
    } else {
        out.write_all(summary.text().as_bytes())
    };
    told.and_then(|()| out.flush()).map_err(CommandError::Output)?;
    Ok(0)
}
