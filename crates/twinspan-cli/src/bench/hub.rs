//! `twinspan bench hub`: the hub beside the bare road, and processes killed under it.

use std::time::Duration;

use twinspan_bench::hub::kill::{self, KillReport};
use twinspan_bench::hub::zero;
use twinspan_bench::hub::{
    self, HubOptions, HubRoad, HubSummary, HubWait, Mode, Seal, Touch, ZeroRttSummary,
};

use crate::args::{BenchHubArgs, HubMode, HubSeal, HubTouch, HubTransport, HubWaitName};
use crate::error::CommandError;
use crate::output::print;

/// The longest message that is sure to be one datagram with its head.
const DATAGRAM_MESSAGE_MAX: u64 = 1_000;

/// Measures, or kills, and tells.
pub(super) fn run(args: &BenchHubArgs) -> Result<u8, CommandError> {
    if let Some(kills) = args.kill {
        return kill(args, kills);
    }
    refuse_unused(args)?;
    if args.zero_rtt {
        let summary = zero::run()?;
        print(&summary, args.json, ZeroRttSummary::text)?;
        return Ok(u8::from(!summary.is_good()));
    }
    let options = options(args);
    let summary = hub::run(&options)?;
    print(&summary, args.json, HubSummary::text)?;
    Ok(u8::from(options.loses_nothing() && summary.lost > 0))
}

fn options(args: &BenchHubArgs) -> HubOptions {
    HubOptions {
        road: match args.transport {
            HubTransport::Shm => HubRoad::Shm,
            HubTransport::Udp => HubRoad::Udp,
            HubTransport::Uring => HubRoad::Uring,
            HubTransport::Tcp => HubRoad::Tcp,
            HubTransport::Quic => HubRoad::Quic,
        },
        reliable: args.reliable,
        best_effort: args.best_effort,
        loss: f64::from(args.loss) / 100.0,
        seal: args.seal.map(|seal| match seal {
            HubSeal::Aes => Seal::Aes,
            HubSeal::Chacha => Seal::Chacha,
        }),
        mode: match args.mode {
            _ if args.idle => Mode::Idle,
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
        touch: match args.touch {
            HubTouch::All => Touch::All,
            HubTouch::Written => Touch::Written,
            HubTouch::First => Touch::First,
        },
        destinations: usize::from(args.destinations),
        netns: args.netns,
        time: Duration::from_millis(args.time_ms),
    }
}

/// Refuses what has no effect: a figure must not look as if it had heeded it.
fn refuse_unused(args: &BenchHubArgs) -> Result<(), CommandError> {
    let is_latency = args.mode == HubMode::Latency;
    let is_async = args.wait == HubWaitName::Async;
    let is_memory = args.transport == HubTransport::Shm;
    let is_udp = matches!(args.transport, HubTransport::Udp | HubTransport::Uring);
    let is_fan = args.destinations > 1;
    let is_batch = args.batch > 1;
    let unused = [
        (args.seed.is_some(), "--seed", "without --kill"),
        (
            args.zero_rtt && args.transport != HubTransport::Quic,
            "--zero-rtt",
            "without --transport quic",
        ),
        (
            !is_udp && args.reliable,
            "--reliable",
            "where nothing is lost, as on all roads but udp and uring",
        ),
        (
            is_udp && args.best_effort,
            "--best-effort",
            "on udp and uring, which are without --reliable",
        ),
        (
            args.best_effort && args.transport != HubTransport::Quic,
            "--best-effort",
            "without --transport quic: no other road has both streams and datagrams",
        ),
        (args.best_effort && args.zero_rtt, "--best-effort", "with --zero-rtt"),
        (
            args.best_effort && args.size > DATAGRAM_MESSAGE_MAX,
            "--size",
            "above 1000 with --best-effort: what fits no datagram goes by the stream",
        ),
        (!is_udp && args.loss > 0, "--loss", "without --transport udp or uring"),
        (!is_udp && args.seal.is_some(), "--seal", "without --transport udp or uring"),
        (!is_udp && is_fan, "--destinations", "without --transport udp or uring"),
        (is_fan && is_latency, "--destinations", "without --mode throughput"),
        (is_fan && args.reliable, "--reliable", "with --destinations: each datagram goes once"),
        (is_fan && is_batch, "--batch", "with --destinations: each message has its own datagram"),
        (is_fan && args.size > DATAGRAM_MESSAGE_MAX, "--size", "above 1000 with --destinations"),
        (is_fan && is_async, "--wait async", "with --destinations"),
        (is_memory && args.netns, "--netns", "with --transport shm"),
        (!is_memory && args.loan, "--loan", "without --transport shm"),
        (is_latency && is_batch, "--batch", "with --mode latency"),
        (args.loan && is_batch, "--batch", "with --loan"),
        (is_async && is_batch, "--batch", "with --wait async: tasks take one at a time"),
        (args.loan && is_async, "--loan", "with --wait async"),
        (
            is_latency && args.touch != HubTouch::All && !args.loan,
            "--touch",
            "with --mode latency and without --loan: all of a message is copied",
        ),
        (
            args.touch == HubTouch::First && !args.loan,
            "--touch first",
            "without --loan: all of a message is copied, so ask for `written`",
        ),
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
