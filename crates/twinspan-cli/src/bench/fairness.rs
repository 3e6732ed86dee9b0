//! `twinspan bench sim --fairness`: a sealed session beside a TCP flow, and what each gets.

use std::time::Duration;

use serde::Serialize;
use twinspan_game::scenario::fairness::{FairnessConfig, share};
use twinspan_sim::topology::Queue;

use crate::args::BenchSimArgs;
use crate::error::CommandError;
use crate::output::print;

/// Delays of one way.
const DELAYS_MS: [u64; 3] = [10, 20, 40];
/// The queues in front of the bottleneck, in bytes: deep, shallow, and deep under CoDel.
const DEEP: u64 = 100_000;
const SHALLOW: u64 = 50_000;

/// One bottleneck.
#[derive(Debug, Serialize)]
struct Shared {
    delay_ms: u64,
    queue: &'static str,
    queue_bytes: u64,
    /// The session's share of all that came, 0 to 1.
    session_share: f64,
    /// What both together were of what there was room for.
    used: f64,
    trace_hash: String,
}

/// What is told.
#[derive(Debug, Serialize)]
struct Summary {
    /// On the bottleneck of ten megabits a second with 40 ms both ways and a deep queue.
    session_share: f64,
    used: f64,
    /// Over all of them.
    session_share_min: f64,
    session_share_max: f64,
    bottlenecks: Vec<Shared>,
}

/// Measures and tells.
pub(super) fn run(args: &BenchSimArgs) -> Result<u8, CommandError> {
    let usual = FairnessConfig::default();
    let mut bottlenecks = Vec::new();
    for delay_ms in DELAYS_MS {
        let shallow = Queue { bytes_max: SHALLOW, ..usual.queue };
        let deep = Queue { bytes_max: DEEP, ..usual.queue };
        let queues = [("deep", deep), ("shallow", shallow), ("codel", Queue::codel(DEEP))];
        for (name, queue) in queues {
            let delay = Duration::from_millis(delay_ms);
            let report = share(&FairnessConfig { delay, queue, ..usual })
                .map_err(|error| CommandError::BenchSim(error.to_string()))?;
            bottlenecks.push(Shared {
                delay_ms,
                queue: name,
                queue_bytes: queue.bytes_max,
                session_share: report.session_share(),
                used: report.used,
                trace_hash: format!("{:016x}", report.hash),
            });
        }
    }
    let summary = summary(bottlenecks);
    print(&summary, args.json, text)?;
    Ok(0)
}

fn summary(bottlenecks: Vec<Shared>) -> Summary {
    let usual = bottlenecks.iter().find(|one| one.delay_ms == 20 && one.queue == "deep");
    let shares = || bottlenecks.iter().map(|one| one.session_share);
    Summary {
        session_share: usual.map_or(0.0, |one| one.session_share),
        used: usual.map_or(0.0, |one| one.used),
        session_share_min: shares().fold(1.0, f64::min),
        session_share_max: shares().fold(0.0, f64::max),
        bottlenecks,
    }
}

fn text(summary: &Summary) -> String {
    let mut text = String::from("one way   queue               session   in use\n");
    for Shared { delay_ms, queue, queue_bytes, session_share, used, .. } in &summary.bottlenecks {
        text += &format!(
            "{delay_ms:>4} ms   {queue:<8} {queue_bytes:>7} B {:>8.1} % {:>6.1} %\n",
            session_share * 100.0,
            used * 100.0
        );
    }
    text
}
