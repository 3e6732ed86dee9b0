//! `twinspan bench world` and the processes that it starts.

use std::io::{self, Write};

use serde::Serialize;
use twinspan_bench::world::Scenario;
use twinspan_bench::{Options, loss, world};

use crate::args::{BenchScenario, BenchWorldArgs, CipherName, Switch};
use crate::error::CommandError;

/// Measures and tells.
pub(super) fn run(args: &BenchWorldArgs) -> Result<u8, CommandError> {
    let scenario = match args.scenario {
        BenchScenario::Uniform => Scenario::Uniform,
        BenchScenario::Login => Scenario::Login,
        BenchScenario::Flood => Scenario::Flood,
        BenchScenario::Loss => {
            let summary = loss::run(args.players, args.seconds, args.seed)?;
            return tell(&summary, &summary.text(), &summary.broken, args.json);
        }
    };
    let options = Options {
        players: args.players,
        seconds: args.seconds,
        world: args.world == Switch::On,
        scenario,
        flows: args.flows,
        cipher: args.cipher.map(CipherName::cipher),
        state_bytes: args.state_bytes,
        relay: args.relay,
        floor: !args.no_floor,
        realtime: !args.no_realtime,
    };
    let summary = world::run(&options)?;
    tell(&summary, &summary.text(), &summary.broken, args.json)
}

/// Prints a summary, and what a run must not show on standard error.
fn tell(
    summary: &impl Serialize,
    text: &str,
    broken: &[String],
    as_json: bool,
) -> Result<u8, CommandError> {
    let mut out = io::stdout().lock();
    let told = if as_json {
        serde_json::to_writer(&mut out, summary)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
    } else {
        out.write_all(text.as_bytes())
    };
    told.map_err(CommandError::Output)?;
    for line in broken {
        // With the stream closed there is nobody to tell; the status still says it.
        let _ = writeln!(io::stderr(), "twinspan: {line}");
    }
    Ok(u8::from(!broken.is_empty()))
}
