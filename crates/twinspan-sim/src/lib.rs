//! The other side of the seam: a seeded network, executor, faults and traces.
//!
//! A [`Sim`] owns virtual time, hosts and the links between them. [`Sim::host`] gives a [`SimEnv`],
//! which is what drivers and machines get in place of a real node; [`Sim::run_for`] lets time pass.
//! A run is a function of its [`SimConfig`] and of what is asked of it: [`Sim::trace_hash`] is the
//! same in any process, in debug and in release.
//!
//! To put a protocol of your own under it, write it as a [`Machine`](twinspan_provider::Machine),
//! write the function that binds and drives it for any [`Env`](twinspan_provider::Env), and give
//! that a simulated host. The same function runs on real sockets with an environment of
//! `twinspan-net`.
//!
//! ```
//! use std::cell::RefCell;
//! use std::net::SocketAddr;
//! use std::rc::Rc;
//! use std::time::Duration;
//! use twinspan_core::link::{Conditions, FaultKind};
//! use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
//! use twinspan_core::time::Timestamp;
//! use twinspan_provider::{Env, Machine, TaskProvider, UdpOptions, drive};
//! use twinspan_sim::{Sim, SimConfig};
//!
//! /// Sends numbers to `peer`, one every 20 ms; counts what it receives.
//! struct Counter {
//!     peer: Option<SocketAddr>,
//!     next_at: Timestamp,
//!     sent: u64,
//!     received: u64,
//! }
//!
//! impl Machine for Counter {
//!     fn handle_datagrams(&mut self, _now: Timestamp, received: &mut DatagramBatch) {
//!         self.received += received.len() as u64;
//!     }
//!
//!     fn handle_timeout(&mut self, _now: Timestamp) {}
//!
//!     fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
//!         let Some(peer) = self.peer.filter(|_| now >= self.next_at) else { return };
//!         self.next_at = now.after(Duration::from_millis(20));
//!         let Some(mut packet) = pool.take() else { return };
//!         if packet.fill(&self.sent.to_le_bytes())
//!             && out.push(Datagram { peer, at: now, packet }).is_ok()
//!         {
//!             self.sent += 1;
//!         }
//!     }
//!
//!     fn poll_timeout(&self) -> Option<Timestamp> {
//!         self.peer.is_some().then_some(self.next_at)
//!     }
//! }
//!
//! async fn run<E: Env>(env: E, local: SocketAddr, mut machine: impl Machine) {
//!     if let Ok(mut socket) = env.bind_udp(local, &UdpOptions::default()).await {
//!         // It ends when the host is stopped.
//!         let _ = drive(&env, &mut socket, &mut machine).await;
//!     }
//! }
//!
//! /// Ten seconds over a network that loses a fifth; what was received, and the trace hash.
//! fn simulate(seed: u64) -> (u64, u64) {
//!     let conditions = Conditions { loss: 0.2, ..Conditions::WIFI };
//!     let mut sim = Sim::new(SimConfig { seed, conditions, ..SimConfig::default() });
//!     let [from, to] = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 7)));
//!     let mut machines = Vec::new();
//!     let mut tasks = Vec::new();
//!     for (local, peer) in [(from, Some(to)), (to, None)] {
//!         let machine = Counter { peer, next_at: Timestamp::START, sent: 0, received: 0 };
//!         // Shared, so that it can be looked at while it is driven.
//!         let machine = Rc::new(RefCell::new(machine));
//!         let env = sim.host("counter", local.ip());
//!         // Dropping the task would stop it.
//!         tasks.push(env.spawn("run", run(env.clone(), local, Rc::clone(&machine))));
//!         machines.push(machine);
//!     }
//!     sim.run_for(Duration::from_secs(10));
//!     assert!(sim.faults().effect(FaultKind::Loss) > 0, "the fault was not only switched on");
//!     (machines[1].borrow().received, sim.trace_hash())
//! }
//!
//! let (received, hash) = simulate(7);
//! assert!((350..450).contains(&received));
//! assert_eq!(simulate(7), (received, hash));
//! assert_ne!(simulate(8).1, hash);
//! ```
//!
//! Streams and names work alike, and an application on one host needs no more than this:
//!
//! ```
//! use twinspan_provider::{AsyncReadExt, AsyncWriteExt, Env, TcpListener, TcpOptions};
//!
//! async fn hello<E: Env>(env: E) -> std::io::Result<String> {
//!     let options = TcpOptions::default();
//!     let local = ([127, 0, 0, 1], 0).into();
//!     let mut listener = env.listen(local, &options).await.expect("a free port");
//!     let mut client = env.connect(listener.local_addr(), &options).await.expect("it listens");
//!     client.write_all(b"hello").await?;
//!     client.shutdown().await?;
//!     let mut text = String::new();
//!     listener.accept().await.expect("it connected").read_to_string(&mut text).await?;
//!     Ok(text)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! assert_eq!(twinspan_sim::run(7, hello)??, "hello");
//! assert_eq!(twinspan_provider::run(hello)??, "hello"); // on tokio, on this machine
//! # Ok(())
//! # }
//! ```
//!
//! What may go wrong is in [`SimConfig`] (by share, keyed by the seed) and on [`Sim`] (by hand):
//! partitions, stopped hosts, failing names, wall clocks that step. [`script`] has peers that follow
//! a script, for unit tests.
//!
//! Much more goes wrong by a [`FaultPlan`]: every kind of fault that
//! [`is_planned`], by how likely each is or one by one. Hosts that [`Sim::boot`] starts come back
//! after a crash:
//!
//! ```
//! use std::time::Duration;
//! use twinspan_core::link::FaultKind;
//! use twinspan_provider::TaskProvider;
//! use twinspan_sim::{FaultPlan, Rates, Sim, SimConfig};
//!
//! /// Nodes that only wait, for ten seconds; the faults that struck, and the trace hash.
//! fn simulate(plan: FaultPlan) -> (Vec<twinspan_sim::Fault>, u64) {
//!     let mut sim = Sim::new(SimConfig { seed: 7, ..SimConfig::default() });
//!     sim.plan_faults(plan);
//!     for last in 1..4 {
//!         sim.boot("node", [10, 0, 0, last].into(), |env, _start| {
//!             vec![env.clone().spawn("wait", async move { env.asked_to_stop().await })]
//!         });
//!     }
//!     sim.run_for(Duration::from_secs(10));
//!     sim.heal_faults();
//!     (sim.struck(), sim.trace_hash())
//! }
//!
//! let rates = Rates::new().with(FaultKind::Crash, 0.01).with(FaultKind::GracefulStop, 0.02);
//! let (struck, hash) = simulate(FaultPlan::Drawn(rates));
//! assert!(!struck.is_empty());
//! // Given its own faults, it is the same run.
//! assert_eq!(simulate(FaultPlan::Listed(struck.clone())), (struck, hash));
//! ```
//!
//! Write a system as a [`scenario::Hosted`], and [`sweep`] runs it with seeds that each have other
//! faults and sizes, [`shrink`] finds the faults that a failing seed needs, and [`victims`] shows what
//! each kind does.
//!
//! [`guide`] goes through all of it with a protocol of your own.
#![forbid(unsafe_code)]

#[doc = include_str!("../../../docs/SIMULATOR.md")]
pub mod guide {}

mod ahead;
mod chaos;
mod config;
mod disk;
mod env;
mod executor;
mod key_table;
mod meter;
mod name_server;
mod names;
mod network;
pub mod plan;
pub mod proxy;
mod queue;
mod run;
pub mod scenario;
pub mod script;
mod segment;
pub mod shrink;
mod sim;
mod slab;
mod store;
mod streams;
mod suite;
pub mod swarm;
pub mod sweep;
mod tcp;
mod timer;
mod topic;
pub mod topology;
mod trace;
mod udp;
pub mod victims;
mod world;

pub use ahead::Wish;
pub use chaos::{HostPanic, Mark, MarkCount, SLOT, Start, TROUBLES_MAX, is_planned};
pub use config::{
    FullBacklog, HOSTS_MAX, LOOPBACK_DELAY, OnPanic, SOCKETS_MAX, SimConfig, TASKS_MAX, TIMERS_MAX,
    WIRE_DELAY_MIN,
};
pub use disk::{
    DISK_BYTES_MAX, DiskConditions, DiskReport, FILES_MAX, SECTOR_BYTES, SimDisk, SimFile,
};
pub use env::SimEnv;

/// The seam's networks in simulation, by the name that it has beside `TokioNetworkProvider`.
pub type SimNetworkProvider = SimEnv;
pub use executor::{POLLS_PER_MOMENT_MAX, SimTask};
pub use meter::{Meter, Polled};
pub use name_server::{NAME_STREAMS_MAX, serve_names};
pub use names::{NAMES_MAX, NameFailure};
pub use network::{FLOW_IDLE, FLOWS_MAX, SentDatagram};
pub use plan::{Fault, FaultPlan, Place, Rates};
pub use queue::QueueKind;
pub use run::{RUN_IP, RUN_LIMIT, RunError, run};
pub use segment::{TcpMode, TcpReport};
pub use sim::{HostLoad, Sim};
pub use streams::{LISTENERS_MAX, STREAM_ENDS_MAX, STREAM_PIECES_MAX};
pub use suite::SimSuite;
pub use tcp::{SimListener, SimTcp};
pub use timer::SimTimer;
pub use topic::{SimHeld, SimInbox, SimOutbox, TOPIC_MEMBERS_MAX, TOPICS_MAX};
pub use trace::{
    CHECKPOINT_EVENTS, CHECKPOINTS_MAX, Divergence, EVENTS_AFTER, EVENTS_BEFORE, EventKind,
    TraceCheckpoints, TraceEvent, TraceLegend, WORDS_MAX, first_difference,
};
pub use twinspan_core::{always, buggify, reachable, sometimes};
pub use udp::SimUdp;
