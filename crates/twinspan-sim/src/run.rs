//! Starts an application in a simulation of its own.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::config::SimConfig;
use crate::env::SimEnv;
use crate::sim::Sim;

/// The address of the host that an application is given.
pub const RUN_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// Virtual time that an application may take.
pub const RUN_LIMIT: Duration = Duration::from_secs(24 * 3_600);

/// Why an application did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// It was still waiting when [`RUN_LIMIT`] had passed, perhaps for something that never comes.
    Unfinished {
        /// The seed that shows it again.
        seed: u64,
    },
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Unfinished { seed } = self;
        let hours = RUN_LIMIT.as_secs() / 3_600;
        write!(f, "the application did not end within {hours} virtual hours (seed {seed}); ")?;
        f.write_str("look for what it waits for")
    }
}

impl std::error::Error for RunError {}

/// Runs `application` on one simulated host, [`RUN_IP`], until it ends, and returns what it ended
/// with. The same seed gives the same run. `run` of `twinspan-provider` and of `twinspan-net` start
/// the same application on this machine.
///
/// For several hosts, rough networks and faults, see [`Sim`].
///
/// # Errors
/// [`RunError`] when it does not end.
///
/// # Panics
/// When a task of the application does.
pub fn run<F, A>(seed: u64, application: A) -> Result<F::Output, RunError>
where
    F: Future + 'static,
    F::Output: 'static,
    A: FnOnce(SimEnv) -> F,
{
    let mut sim = Sim::new(SimConfig { seed, ..SimConfig::default() });
    let env = sim.host("application", RUN_IP);
    let future = application(env.clone());
    sim.block_on(&env, RUN_LIMIT, future).ok_or(RunError::Unfinished { seed })
}
