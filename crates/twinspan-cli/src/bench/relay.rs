//! `twinspan bench relay`: what the relay forwards beside a forwarder that does nothing else.

use std::io::{self, Write};

use crate::args::BenchRelayArgs;
use crate::error::CommandError;

/// Measures and tells.
#[cfg(target_os = "linux")]
pub(super) fn run(args: &BenchRelayArgs) -> Result<u8, CommandError> {
    use std::time::Duration;
    use twinspan_relay::bench::{BenchOptions, run};

    let cores = twinspan_net::allowed_cores().unwrap_or_default();
    // The last core plays; with one core all share it, and the figures say so by their shares.
    let cores = cores.first().copied().zip(cores.last().copied());
    let options = BenchOptions {
        rounds: args.rounds,
        window: Duration::from_millis(args.window),
        cores,
        fifo: !args.no_realtime && cores.is_some_and(|(first, last)| first != last),
        offered_per_second: args.rate,
    };
    let report = run(options, &mut |name, one| {
        let line = format!(
            "{name}: {:.0} ns of processor time a datagram, {:.0} datagrams a second, {:.2} of a core",
            one.cpu_ns, one.per_second, one.core_share
        );
        // With the stream closed the report still comes.
        let _ = writeln!(io::stderr(), "{line}");
    });
    let report = report.map_err(|error| CommandError::BenchRelay(error.to_string()))?;
    let text = if args.json { json_of(&report, args) } else { text_of(&report) };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CommandError::Output)?;
    Ok(0)
}

/// There is nothing to measure with.
#[cfg(not(target_os = "linux"))]
pub(super) fn run(_: &BenchRelayArgs) -> Result<u8, CommandError> {
    let reason = twinspan_net::PLAIN_PATH_REASON.unwrap_or("this system has no batched calls");
    Err(CommandError::BenchRelay(reason.into()))
}

#[cfg(target_os = "linux")]
fn json_of(report: &twinspan_relay::bench::BenchReport, args: &BenchRelayArgs) -> String {
    let one = |one: twinspan_relay::bench::Forwarded| {
        serde_json::json!({
            "cpu_ns_per_datagram": one.cpu_ns,
            "datagrams_per_second": one.per_second,
            "core_share": one.core_share,
        })
    };
    serde_json::json!({
        "relay_ratio_to_bare_forwarder": report.ratio_to_bare,
        "relay_ratio_to_bare_forwarder_with_runs": report.ratio_to_bare_with_runs,
        "bare_forwarder": one(report.bare),
        "bare_forwarder_with_runs": one(report.bare_with_runs),
        "relay": one(report.relay),
        "offered_per_second": args.rate,
        "rounds": report.rounds,
        "window_ms": args.window,
        "priority": report.priority,
    })
    .to_string()
}

#[cfg(target_os = "linux")]
fn text_of(report: &twinspan_relay::bench::BenchReport) -> String {
    format!(
        "relay to bare forwarder: {:.2} (recvmmsg and sendmmsg), {:.2} (with the kernel's runs too); \
         medians of {} turns, priority {}",
        report.ratio_to_bare, report.ratio_to_bare_with_runs, report.rounds, report.priority
    )
}
