//! Seeds of a small scenario one after the other, and the shrinking of a long run that fails.

use twinspan_sim::scenario::{Case, Echo, Planted};
use twinspan_sim::shrink::shrink;
use twinspan_sim::sweep::sweep;

use super::Measured;
use crate::error::BenchError;
use crate::process;

/// Seeds that are run: some seconds of processor time.
const SEEDS: u64 = 2_000;
/// A run in which about a thousand faults strike, and in which two of them make the planted defect
/// show.
const LONG_RUN: &str = "seed=2 loss=0.03 duplicate=0.3 reorder=0.3 spoof=0.3 messages=420";

/// Runs seeds of the scenario `echo`, faults and liveness phase included; counts them.
pub(super) fn run() -> Measured {
    let began = process::cpu_time();
    let report = sweep(&Echo, 1..=SEEDS, |_, _| true);
    let cpu = process::cpu_time().saturating_sub(began);
    Measured { count: report.seeds, events: report.events, ..Measured::default() }.taking(cpu)
}

/// Shrinks the long run; counts its faults before and after.
pub(super) fn shrink_long_run() -> Result<Measured, BenchError> {
    let began = process::cpu_time();
    let options = LONG_RUN.parse().map_err(|error| BenchError::Plan(format!("{error}")))?;
    let case = Case { options, faults: None };
    let shrunk = shrink(&Planted, &case).map_err(|error| BenchError::Plan(error.to_string()))?;
    let cpu = process::cpu_time().saturating_sub(began);
    let (before, count) = (shrunk.before as u64, shrunk.faults.len() as u64);
    Ok(Measured { before, count, ..Measured::default() }.taking(cpu))
}
