//! `twinspan bench`: the ruler.

#[cfg(target_os = "linux")]
mod fairness;
#[cfg(target_os = "linux")]
mod hub;
mod lludp;
#[cfg(target_os = "linux")]
mod realism;
mod relay;
#[cfg(target_os = "linux")]
mod sim;
mod viewer;
#[cfg(target_os = "linux")]
mod world;

use crate::args::BenchCommand;
use crate::error::CommandError;

/// Runs a measurement, or one process of it, and returns the exit status.
///
/// # Errors
/// [`CommandError`] when nothing can be measured or told.
#[cfg(target_os = "linux")]
pub fn run(command: &BenchCommand) -> Result<u8, CommandError> {
    use twinspan_bench::{assembly, flood, floor, generator, server};

    match command {
        BenchCommand::World(args) => world::run(args),
        BenchCommand::Relay(args) => relay::run(args),
        BenchCommand::Lludp(args) => lludp::run(args),
        BenchCommand::Sim(args) if args.fairness => fairness::run(args),
        BenchCommand::Sim(args) if args.realism => realism::run(args),
        BenchCommand::Viewer(args) => viewer::run(args),
        BenchCommand::Sim(args) => sim::run(args),
        BenchCommand::Hub(args) => hub::run(args),
        BenchCommand::HubPeer => Ok(twinspan_bench::hub::peer::run().map(|()| 0)?),
        BenchCommand::HubInside => Ok(twinspan_bench::hub::inside::run_inside().map(|()| 0)?),
        BenchCommand::HubZero => Ok(twinspan_bench::hub::zero::run_peer().map(|()| 0)?),
        BenchCommand::HubVictim => Ok(twinspan_bench::hub::kill::run_victim().map(|()| 0)?),
        BenchCommand::RealismPart => Ok(twinspan_bench::realism::run_part().map(|()| 0)?),
        BenchCommand::SimPart => Ok(twinspan_bench::sim::run_part().map(|()| 0)?),
        BenchCommand::WorldServer => Ok(server::run().map(|()| 0)?),
        BenchCommand::WorldGenerator => Ok(generator::run().map(|()| 0)?),
        BenchCommand::WorldFloor => Ok(floor::run().map(|()| 0)?),
        BenchCommand::WorldFlood => Ok(flood::run().map(|()| 0)?),
        BenchCommand::WorldAssembly => Ok(assembly::run().map(|()| 0)?),
    }
}

/// There is nothing to measure with.
///
/// # Errors
/// [`CommandError`] says so.
#[cfg(not(target_os = "linux"))]
pub fn run(command: &BenchCommand) -> Result<u8, CommandError> {
    match command {
        BenchCommand::Relay(args) => relay::run(args),
        BenchCommand::Lludp(args) => lludp::run(args),
        _ => Err(twinspan_bench::BenchError::NotHere.into()),
    }
}
