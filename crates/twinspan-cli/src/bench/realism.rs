//! `twinspan bench sim --realism`: the simulator against network namespaces.

use std::io::{self, Write};

use twinspan_bench::realism::{RealismOptions, run as measure};

use crate::args::BenchSimArgs;
use crate::error::CommandError;

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
