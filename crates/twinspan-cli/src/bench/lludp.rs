//! `twinspan bench lludp`: how quickly messages are decoded and encoded, on one core.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use twinspan_lludp::bench::Traffic;

use crate::args::BenchLludpArgs;
use crate::error::CommandError;

/// Windows of each part; the median one is told.
const WINDOWS: u32 = 5;

/// Measures and tells.
pub(super) fn run(args: &BenchLludpArgs) -> Result<u8, CommandError> {
    let unread = || CommandError::BenchLludp("the packets to measure with cannot be read".into());
    let mut traffic = Traffic::login().ok_or_else(unread)?;
    let window = Duration::from_millis(args.window);
    let decode = median(&mut traffic, window, Traffic::decode)?;
    let owned = median(&mut traffic, window, Traffic::decode_owned)?;
    let encode = median(&mut traffic, window, Traffic::encode)?;
    let text = if args.json {
        serde_json::json!({
            "decode_messages_per_second": decode,
            "encode_messages_per_second": encode,
            "decode_owned_messages_per_second": owned,
            "messages": traffic.len(),
            "bytes": traffic.bytes(),
            "windows": WINDOWS,
            "window_ms": args.window,
        })
        .to_string()
    } else {
        let millions = |rate: f64| rate / 1e6;
        format!(
            "{:.1} million messages a second decoded ({:.1} without borrowing), {:.1} encoded; the \
             {} packets of a login over and over, medians of {WINDOWS} windows",
            millions(decode),
            millions(owned),
            millions(encode),
            traffic.len()
        )
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CommandError::Output)?;
    Ok(0)
}

/// Messages a second, in the median of the windows.
fn median(
    traffic: &mut Traffic,
    window: Duration,
    part: fn(&mut Traffic) -> usize,
) -> Result<f64, CommandError> {
    let mut rates = Vec::with_capacity(WINDOWS as usize);
    for _ in 0..WINDOWS {
        let (began, mut messages) = (Instant::now(), 0);
        while began.elapsed() < window {
            let done = part(traffic);
            if done != traffic.len() {
                let what = format!("{done} of {} messages went through", traffic.len());
                return Err(CommandError::BenchLludp(what));
            }
            messages += done;
        }
        rates.push(messages as f64 / began.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates.get(rates.len() / 2).copied().unwrap_or_default())
}
