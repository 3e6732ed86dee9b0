//! The hub: publish and receive typed messages on the fastest road there is.
//!
//! One process publishes, another receives:
//!
//! ```no_run
//! use twinspan_hub::Hub;
//! use twinspan_hub::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[zerocopy(crate = "twinspan_hub::zerocopy")]
//! #[repr(C)]
//! struct Imu {
//!     acceleration: [f64; 3],
//!     rotation: [f64; 3],
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::<Imu>::new("sensor/imu")?; // this machine: shared memory
//! hub.publish(&Imu { acceleration: [0.0, 0.0, 9.8], rotation: [0.0; 3] })?;
//! let data = hub.recv()?; // another process's; one hears oneself only when asked to
//! println!("{:?} by {}", data.acceleration, hub.transport());
//! # Ok(())
//! # }
//! ```
//!
//! The same with both ends in one process, which runs:
//!
//! ```
//! use twinspan_hub::Hub;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let topic = format!("doc/hub/{}", std::process::id());
//! let (here, there) = (Hub::<[f64; 3]>::new(&topic)?, Hub::<[f64; 3]>::new(&topic)?);
//! here.publish(&[0.0, 0.0, 9.8])?;
//! assert_eq!(there.recv()?, [0.0, 0.0, 9.8]);
//! # Ok(())
//! # }
//! ```
//!
//! Over a network, with both ends in one process again. A host that is this machine's or a wildcard
//! listens; who comes second to it, and whose host is another machine's, connects:
//!
//! ```no_run
//! use twinspan_hub::Hub;
//!
//! # type SensorData = [f64; 3];
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let data = [0.0; 3];
//! let hub = Hub::<SensorData>::new("udp://192.168.1.100:9000")?; // the topic is the type's name
//! hub.publish(&data)?;
//! let data = hub.recv()?;
//! # let _ = data;
//! # Ok(())
//! # }
//! ```
//!
//! ```
//! use twinspan_hub::{Hub, Transport};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let port = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
//! let endpoint = format!("udp://127.0.0.1:{port}/sensor/imu");
//! let here = Hub::<[f64; 3]>::builder(&endpoint).reliable().listen().build()?;
//! let there = Hub::<[f64; 3]>::builder(&endpoint).reliable().connect().batch_size(128).build()?;
//! there.publish(&[0.0, 0.0, 9.8])?;
//! assert_eq!(here.recv()?, [0.0, 0.0, 9.8]);
//! let road = here.transport().transport; // and why, and what took effect
//! assert!(matches!(road, Transport::BatchUdp | Transport::IoUring));
//! # Ok(())
//! # }
//! ```
//!
//! With options, on a bare topic whose hubs find each other by announcements on the machine:
//!
//! ```no_run
//! use twinspan_hub::{Compression, Hub, Transport};
//!
//! # type Imu = [f64; 6];
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::<Imu>::builder("sensor/imu")
//!     .transport(Transport::IoUring)
//!     .batch_size(128)
//!     .compression(Compression::Lz4)
//!     .build()?;
//! println!("{}", hub.transport()); // which road, and why
//! # Ok(())
//! # }
//! ```
//!
//! ```
//! use twinspan_hub::{BuildError, Compression, Hub, Transport};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let topic = format!("doc/ring/{}", std::process::id());
//! let build = |road| {
//!     let builder = Hub::<[f64; 6]>::builder(&topic).transport(road).batch_size(128);
//!     builder.compression(Compression::Lz4).build()
//! };
//! let road = match build(Transport::IoUring) {
//!     Err(BuildError::NoRing { .. }) => Transport::BatchUdp, // an old kernel, or a container
//!     built => built?.transport().transport,
//! };
//! let (here, there) = (build(road)?, build(road)?);
//! assert!(here.wait_for_subscribers(1, std::time::Duration::from_secs(30)));
//! here.publish(&[0.0, 0.0, 9.8, 0.0, 0.0, 0.0])?;
//! assert_eq!(there.recv()?[2], 9.8);
//! # Ok(())
//! # }
//! ```
//!
//! TCP and QUIC are `tcp://` and `quic://`. On all roads over a network but groups messages can be compressed:
//!
//! ```
//! use twinspan_hub::{Bytes, Compression, Hub};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
//! let endpoint = format!("tcp://127.0.0.1:{port}/log");
//! let here = Hub::<Bytes>::builder(&endpoint).listen().build()?;
//! let there = Hub::<Bytes>::builder(&endpoint).connect().compression(Compression::Lz4).build()?;
//! # there.wait_for_subscribers(1, std::time::Duration::from_secs(30));
//! there.publish(&Bytes(b"all is well; ".repeat(100)))?;
//! assert_eq!(here.recv()?.len(), 1_300);
//! assert!(there.compression().is_some_and(|it| it.bytes_after < it.bytes_before));
//! # Ok(())
//! # }
//! ```
//!
//! What a message can be: plain data, any type with zerocopy's traits, which travels as it lies in
//! memory; [`Serde`] around any type of serde's; [`Bytes`].
//!
//! Linux alone has this crate's roads today; elsewhere it is empty.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

/// Compiles and runs what the guide shows.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/HUB.md")]
struct Guide;

mod auto;
mod builder;
mod choose;
mod compress;
mod discover;
mod effect;
mod endpoint;
mod ends;
mod error;
mod explain;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod hub;
mod loan;
#[allow(dead_code, reason = "for the roads with a thread of their own")]
mod mailbox;
mod measure;
mod payload;
mod port;
mod quic;
mod receive;
mod report;
mod road;
#[cfg(feature = "scenarios")]
pub mod scenario;
mod seal;
mod select;
mod side;
mod stream;
mod system;
mod udp;

pub use builder::HubBuilder;
pub use compress::{CompressionError, CompressionStats, DICTIONARY_BYTES_MAX};
pub use effect::{Helped, SettingReport};
pub use endpoint::{ENDPOINT_BYTES_MAX, Endpoint, EndpointError, Scheme};
pub use error::{BuildError, PublishError, RecvError};
pub use explain::{Explained, FoundHub, explain};
pub use hub::{Hub, HubStats};
pub use loan::{BytesLoan, BytesSample, Loan, Sample};
pub use measure::Measured;
pub use payload::{Bytes, DecodeError, EncodeError, Payload, Plain, Serde};
pub use quic::{CertificateError, Fingerprint, FingerprintError, Idempotent, Trust};
pub use receive::{Iter, Message, Messages, Recv, RecvInto};
pub use report::{Compression, Transport, TransportReport};
pub use road::Reliability;
pub use seal::{Declined, SealCipher, TopicKey, TopicKeyError};
pub use select::AddressClass;
pub use stream::chooser::ChangeReason;
pub use stream::roads::RoadChange;
pub use twinspan_net::shm::{
    Access, Echo, GuardError, JoinError, LatencyGuard, Namesakes, Policy, Roles, SegmentError,
    Wait, wake_cost,
};
pub use twinspan_topic::{Disagreement, Sealing};
pub use zerocopy;
