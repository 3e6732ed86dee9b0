//! `twinspan bench sim --realism`: the simulator against network namespaces.

use twinspan_bench::realism::{RealismOptions, RealismSummary, run as measure};

use crate::args::BenchSimArgs;
use crate::error::CommandError;
use crate::output::print;

/// Seconds of each part, and what either way is like.
const SECONDS: u64 = 20;
const DELAY_MS: u64 = 20;
const JITTER_MS: u64 = 5;
const LOSS: f64 = 0.01;
const RATE_BYTES_PER_S: u64 = 1_000_000;

/// Measures and tells.
pub(super) fn run(args: &BenchSimArgs) -> Result<u8, CommandError> {
    let summary = measure(RealismOptions {
        seconds: args.realism_seconds.unwrap_or(SECONDS),
        delay_ms: DELAY_MS,
        jitter_ms: JITTER_MS,
        loss: LOSS,
        rate_bytes_per_s: RATE_BYTES_PER_S,
    })?;
    print(&summary, args.json, RealismSummary::text)?;
    Ok(0)
}
