//! Real transports: batched UDP and the reactor that drives it.
//!
//! On Linux [`ReactorEnv`] runs one shard of a node on one thread: its tasks, its timers and its
//! sockets, which move datagrams in batches, and its streams. Elsewhere the same names stand for tokio's side of the
//! seam, and [`PLAIN_PATH_REASON`] says why.
//!
//! A socket's path is one of a ladder ([`IoPath`](twinspan_provider::IoPath)): plain calls, batches,
//! a completion ring; `UdpOptions` ask, and the report tells. `UringEnv` moves streams by a ring too. On Linux alone there are also groups
//! of sockets that the kernel steers to their cores, a bare socket for floors and benchmarks, and
//! the places of threads. [`lane`](lane()) carries values between the reactors of a node, and
//! [`latest`](latest()) the newest of a kind.
//!
//! ```
//! use std::future::poll_fn;
//! use twinspan_core::packet::{Datagram, DatagramBatch};
//! use twinspan_net::ReactorEnv;
//! use twinspan_provider::{NetworkProvider, TimeProvider, UdpOptions, UdpSocket};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let env = ReactorEnv::new(None)?;
//! let text = env.block_on(async {
//!     let loopback = "127.0.0.1:0".parse()?;
//!     let mut left = env.bind_udp(loopback, &UdpOptions::default()).await?;
//!     let mut right = env.bind_udp(loopback, &UdpOptions::default()).await?;
//!     let mut batch = DatagramBatch::new(8);
//!     let mut packet = left.pool().take().ok_or("no packet buffer is free")?;
//!     assert!(packet.fill(b"hello"));
//!     let datagram = Datagram { peer: right.local_addr(), at: env.now(), packet };
//!     assert!(batch.push(datagram).is_ok());
//!     poll_fn(|cx| left.poll_send(cx, &mut batch)).await?;
//!     poll_fn(|cx| right.poll_recv(cx, &mut batch)).await?;
//!     let received = batch.pop().ok_or("nothing came")?;
//!     Ok::<_, Box<dyn std::error::Error>>(received.packet.to_vec())
//! })?;
//! assert_eq!(text, b"hello");
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
mod coalesced;
#[cfg(target_os = "linux")]
mod cores;
#[cfg(target_os = "linux")]
mod group;
#[cfg(target_os = "linux")]
mod ladder;
mod lane;
mod latest;
#[cfg(target_os = "linux")]
mod port;
#[cfg(target_os = "linux")]
mod reactor;
#[cfg(target_os = "linux")]
pub mod shm;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod tcp;
mod threads;
#[cfg(target_os = "linux")]
mod train;
#[cfg(target_os = "linux")]
mod tun;
#[cfg(target_os = "linux")]
mod udp;
#[cfg(target_os = "linux")]
mod uring;

#[cfg(target_os = "linux")]
pub use bare::BareSocket;
#[cfg(target_os = "linux")]
pub use cores::{
    FifoError, SchedulingClass, allowed_cores, pin_to_core, request_fifo, request_fifo_inherited,
    scheduling_class,
};
#[cfg(target_os = "linux")]
pub use group::{
    GroupMember, bind_beside, bind_group, bind_unsteered_group, steer, steering_program,
};
pub use lane::{LaneReceiver, LaneSender, lane};
pub use latest::{LatestReceiver, LatestSender, latest};
#[cfg(target_os = "linux")]
pub use reactor::{ReactorEnv, ReactorTask, ReactorTimer, run};
#[cfg(target_os = "linux")]
pub use tcp::{ReactorListener, ReactorTcp};
pub use threads::{lock, thread_cpu_time};
#[cfg(target_os = "linux")]
pub use train::{
    Multicast, MulticastInterface, RingError, RingOptions, RingPoller, RingSends, TrainCosts,
    TrainOptions, TrainReport, TrainSocket, datagrams_dropped, poller_costs, train_costs,
};
#[cfg(target_os = "linux")]
pub use tun::{TUN_PACKET_BYTES_MAX, Tun};
#[cfg(target_os = "linux")]
pub use udp::BatchUdp;
#[cfg(target_os = "linux")]
pub use uring::{UringEnv, UringError, UringListener, UringTcp};

#[cfg(not(target_os = "linux"))]
pub use twinspan_provider::{
    TokioEnv as ReactorEnv, TokioListener as ReactorListener, TokioTask as ReactorTask,
    TokioTcp as ReactorTcp, TokioTimer as ReactorTimer, TokioUdp as BatchUdp, run,
};

/// Why this build moves datagrams one by one; `None` where it moves them in batches.
pub const PLAIN_PATH_REASON: Option<&str> = if cfg!(target_os = "linux") {
    None
} else {
    Some("batched datagram calls exist on Linux only; this system uses recvfrom/sendto")
};
