//! The `twinspan` command.
#![deny(unsafe_code)]

mod allocator;

use std::io::Write;
use std::process::ExitCode;

use twinspan_cli::args::{Command, SimCommand, parse};
use twinspan_cli::{bench, bots, decode, demo, grid, keys, proxy, relay, serve, sim, viewer};

fn main() -> ExitCode {
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(refusal) => return say(&refusal.text, refusal.status),
    };
    if matches!(cli.command, Command::Sim(_)) {
        allocator::keep_memory();
    }
    let ended = match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Bots(args) => bots::run(args),
        Command::Token(args) => keys::token(args),
        Command::Keys(args) => keys::run(args),
        Command::Relay(args) => relay::run(args),
        Command::Grid(args) => grid::run(args),
        Command::Viewer(args) => viewer::run(args),
        Command::Proxy(args) => proxy::run(args),
        Command::Decode(args) => decode::run(&args.command),
        #[cfg(target_os = "linux")]
        Command::Hub(args) => twinspan_cli::hub::run(&args.command),
        #[cfg(not(target_os = "linux"))]
        Command::Hub(_) => Err(twinspan_bench::BenchError::NotHere.into()),
        Command::Bench(args) => bench::run(&args.command),
        Command::Sim(args) => match &args.command {
            SimCommand::Run(args) => sim::run(args),
            SimCommand::Replay(args) => sim::replay(args),
            SimCommand::Sweep(args) => sim::run_sweep(args),
            SimCommand::Shrink(args) => sim::run_shrink(args),
            SimCommand::Faults(args) => sim::run_faults(args),
            SimCommand::Endure(args) => sim::endure(args),
            SimCommand::Trace(args) => sim::trace(args),
            SimCommand::Verify(args) => sim::verify(args),
            SimCommand::VerifyWorker(args) => sim::verify_worker(args),
        },
    };
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is_silent() => ExitCode::from(error.status()),
        Err(error) => say(&format!("twinspan: {error}\n"), error.status()),
    }
}

/// Prints what a refused command line calls for.
fn say(text: &str, status: u8) -> ExitCode {
    // With the stream closed there is nobody to tell; the status still says it.
    let _ = if status == 0 {
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::io::stderr().write_all(text.as_bytes())
    };
    ExitCode::from(status)
}
