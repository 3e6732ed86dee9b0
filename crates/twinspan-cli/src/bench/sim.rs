//! `twinspan bench sim`: what the simulator gets out of a second of processor time.

use twinspan_bench::sim::{SimOptions, SimSummary, run as measure};

use crate::args::{BenchSimArgs, SimPartName};
use crate::error::CommandError;
use crate::output::print;

/// Measures and tells.
pub(super) fn run(args: &BenchSimArgs) -> Result<u8, CommandError> {
    let summary = measure(SimOptions {
        world_clients: args.clients,
        world_seconds: args.seconds,
        echo_seconds: args.echo_seconds,
        part: args.part.map(SimPartName::part),
    })?;
    print(&summary, args.json, SimSummary::text)?;
    Ok(0)
}
