//! The other side of the seam: a seeded network, executor, faults and traces.
//!
//! A [`Sim`] owns virtual time, hosts and the links between them. [`Sim::host`] gives a [`SimEnv`],
//! which is what drivers and machines get in place of a real node; [`Sim::run_for`] lets time pass.
//! A run is a function of its [`SimConfig`] and of what is asked of it: [`Sim::trace_hash`] is the
//! same in any process, in debug and in release.
//!
//! ```
//! use std::time::Duration;
//! use twinspan_provider::{TaskProvider, TimeProvider, Timer};
//! use twinspan_sim::{Sim, SimConfig};
//!
//! let mut sim = Sim::new(SimConfig { seed: 7, ..SimConfig::default() });
//! let env = sim.host("alone", [10, 0, 0, 1].into());
//! let task = env.spawn("wait", {
//!     let env = env.clone();
//!     async move {
//!         let mut timer = env.timer();
//!         timer.set(Some(env.now().after(Duration::from_millis(5))));
//!         std::future::poll_fn(|cx| timer.poll_expired(cx)).await;
//!     }
//! });
//! sim.run_for(Duration::from_secs(1));
//! assert!(task.is_finished());
//! ```
#![forbid(unsafe_code)]

mod config;
mod env;
mod executor;
mod network;
mod sim;
mod slab;
mod store;
mod suite;
mod timer;
mod trace;
mod udp;
mod world;

pub use config::{
    HOSTS_MAX, LOOPBACK_DELAY, SOCKETS_MAX, SimConfig, TASKS_MAX, TIMERS_MAX, WIRE_DELAY_MIN,
};
pub use env::SimEnv;
pub use executor::{POLLS_PER_MOMENT_MAX, SimTask};
pub use network::FLOWS_MAX;
pub use sim::Sim;
pub use suite::SimSuite;
pub use timer::SimTimer;
pub use udp::SimUdp;
