//! `twinspan bench hub`: the hub beside a bare ring, and processes killed under it.

use std::time::Duration;

use twinspan_bench::hub::kill::{self, KillReport};
use twinspan_bench::hub::{self, HubOptions, HubRoad, HubSummary, HubWait, Mode};

use crate::args::{BenchHubArgs, HubMode, HubTouch, HubTransport, HubWaitName};
use crate::error::CommandError;
use crate::output::print;

/// Measures, or kills, and tells.
pub(super) fn run(args: &BenchHubArgs) -> Result<u8, CommandError> {
    if let Some(kills) = args.kill {
        return kill(args, kills);
    }
    refuse_unused(args)?;
    let options = HubOptions {
        road: match args.transport {
            HubTransport::Shm => HubRoad::Shm,
            HubTransport::Udp => HubRoad::Udp,
        },
        reliable: args.reliable,
        loss: f64::from(args.loss) / 100.0,
        mode: match args.mode {
            HubMode::Latency => Mode::Latency,
            HubMode::Throughput => Mode::Throughput,
        },
        size: usize::try_from(args.size).unwrap_or(usize::MAX),
        wait: match args.wait {
            HubWaitName::Spin => HubWait::Spin,
            HubWaitName::Adaptive => HubWait::Adaptive,
            HubWaitName::Block => HubWait::Block,
            HubWaitName::Async => HubWait::Async,
        },
        gap: Duration::from_micros(args.gap_us),
        batch: usize::try_from(args.batch).unwrap_or(1),
        guard: args.guard,
        loan: args.loan,
        touch_all: args.touch == HubTouch::All,
        time: Duration::from_millis(args.time_ms),
    };
    let summary = hub::run(&options)?;
    print(&summary, args.json, HubSummary::text)?;
    Ok(u8::from(options.loses_nothing() && summary.lost > 0))
}

/// Refuses what has no effect: a figure must not look as if it had heeded it.
fn refuse_unused(args: &BenchHubArgs) -> Result<(), CommandError> {
    let is_latency = args.mode == HubMode::Latency;
    let is_async = args.wait == HubWaitName::Async;
    let is_memory = args.transport == HubTransport::Shm;
    let unused = [
        (is_memory && args.reliable, "--reliable", "with --transport shm"),
        (is_memory && args.loss > 0, "--loss", "with --transport shm"),
        (!is_memory && args.loan, "--loan", "without --transport shm"),
        (args.seed.is_some(), "--seed", "without --kill"),
        (is_latency && args.batch > 1, "--batch", "with --mode latency"),
        (args.loan && args.batch > 1, "--batch", "with --loan"),
        (args.loan && is_async, "--loan", "with --wait async"),
        (!is_latency && args.gap_us > 0, "--gap-us", "with --mode throughput"),
    ];
    match unused.into_iter().find(|(is_unused, ..)| *is_unused) {
        Some((_, flag, with)) => Err(CommandError::Unused { flag, with }),
        None => Ok(()),
    }
}

fn kill(args: &BenchHubArgs, kills: u64) -> Result<u8, CommandError> {
    let report = kill::run(kills, args.seed.unwrap_or(1))?;
    let KillReport { seed, kills, checked, torn, hangs, leaked_segments, lost, .. } = &report;
    let mut text = format!("{kills} processes killed, seed {seed}: ");
    text += &format!("{hangs} hangs, {leaked_segments} leaked segments, {torn} torn messages of ");
    text += &format!("{checked} checked ({lost} more were overwritten, and told so)\n");
    let (p50, p99, max) = (report.rejoin_p50_ms, report.rejoin_p99_ms, report.rejoin_max_ms);
    text += &format!("joined in   p50 {p50:.2} ms, p99 {p99:.2} ms, at most {max:.2} ms\n");
    print(&report, args.json, |_| text)?;
    if let Some(first) = &report.first_torn {
        eprintln!("twinspan: {first}");
    }
    Ok(u8::from(!report.is_good()))
}
