//! `twinspan bench world` and the processes that it starts.

use std::io::{self, Write};

use serde::Serialize;
use twinspan_bench::world::Scenario;
use twinspan_bench::{Options, loss, world};

use crate::args::{BenchScenario, BenchWorldArgs, CipherName, Switch};
use crate::error::CommandError;
use crate::output::print;

/// Measures and tells.
pub(super) fn run(args: &BenchWorldArgs) -> Result<u8, CommandError> {
    refuse_unused(args)?;
    let scenario = match args.scenario {
        BenchScenario::Uniform => Scenario::Uniform,
        BenchScenario::Login => Scenario::Login,
        BenchScenario::Flood => Scenario::Flood,
        BenchScenario::Loss => {
            let players = args.players.unwrap_or(loss::CLIENTS_MAX);
            let summary = loss::run(players, args.seconds, args.seed.unwrap_or(1))?;
            return tell(&summary, &summary.text(), &summary.broken, args.json);
        }
    };
    let options = Options {
        players: args.players.unwrap_or(1_000),
        seconds: args.seconds,
        world: args.world == Switch::On,
        scenario,
        flows: args.flows.unwrap_or(16),
        cipher: args.cipher.map(CipherName::cipher),
        state_bytes: args.state_bytes.unwrap_or(240),
        relay: args.relay,
        floor: !args.no_floor,
        realtime: !args.no_realtime,
    };
    let summary = world::run(&options)?;
    tell(&summary, &summary.text(), &summary.broken, args.json)
}

/// Refuses what the scenario has no use for: a figure must not look as if it had heeded it.
fn refuse_unused(args: &BenchWorldArgs) -> Result<(), CommandError> {
    let is_loss = args.scenario == BenchScenario::Loss;
    let has_world = args.world == Switch::On;
    let in_simulator = "with --scenario loss, which runs in the simulator";
    let unused = [
        (is_loss && args.relay, "--relay", in_simulator),
        (is_loss && args.flows.is_some(), "--flows", in_simulator),
        (is_loss && args.cipher.is_some(), "--cipher", in_simulator),
        (is_loss && !has_world, "--world off", in_simulator),
        (is_loss && args.no_floor, "--no-floor", in_simulator),
        (is_loss && args.state_bytes.is_some(), "--state-bytes", in_simulator),
        (!is_loss && args.seed.is_some(), "--seed", "but with --scenario loss"),
        (has_world && args.state_bytes.is_some(), "--state-bytes", "but with --world off"),
    ];
    match unused.into_iter().find(|(is_unused, ..)| *is_unused) {
        Some((_, flag, with)) => Err(CommandError::Unused { flag, with }),
        None => Ok(()),
    }
}

/// Prints a summary, and what a run must not show on standard error.
fn tell(
    summary: &impl Serialize,
    text: &str,
    broken: &[String],
    as_json: bool,
) -> Result<u8, CommandError> {
    print(summary, as_json, |_| text.to_owned())?;
    for line in broken {
        // With the stream closed there is nobody to tell; the status still says it.
        let _ = writeln!(io::stderr(), "twinspan: {line}");
    }
    Ok(u8::from(!broken.is_empty()))
}
