//! One reliability engine: acks, RTT, resend, duplicates, channels and fragments.
//!
//! The engine knows no header, no socket and no key. A protocol crate owns the wire; it asks a
//! [`Sender`] for frames, tells it under which packet number they left, feeds it the peer's acks,
//! and hands arriving frames to a [`Receiver`], which delivers messages in the order that their
//! [`Delivery`] class promises. An [`AckTracker`] remembers which packets arrived.
//!
//! There are two levels of numbers. *Packet numbers* belong to the protocol; *message numbers*
//! belong to a [`Channel`]. Packet numbers point at messages, so with
//! [`ResendIdentity::FreshNumber`] a lost frame rides again under another packet number while the
//! old number still completes the message should its ack come late. With
//! [`ResendIdentity::SameNumber`] a packet is sent again under the number it had.
//!
//! ```
//! use twinspan_core::{random::Stream, time::Timestamp};
//! use twinspan_reliable::{
//!     Ack, AckTracker, Channel, Config, Delivery, InFrame, Receiver, Sender, StreamId,
//! };
//!
//! let config = Config::default();
//! let now = Timestamp::START;
//! let mut sender = Sender::new(&config, Stream::new(1, "jitter", 0));
//! let mut receiver = Receiver::new(&config);
//! let mut tracker = AckTracker::new(&config);
//! let channel = Channel { delivery: Delivery::Ordered, stream: StreamId::EVENTS };
//!
//! sender.send(now, channel, b"hello").unwrap();
//! let frame = sender.poll_frame(now, 1_200).unwrap();
//! let (number, body) = (frame.number.unwrap() as u16, frame.body.to_vec());
//! sender.on_sent(now, 1, 0, 60, true);
//!
//! tracker.on_packet(now, 1, true, false);
//! let mut delivered = Vec::new();
//! let frame = InFrame { channel, number, fragment: None, body: &body };
//! receiver.handle_frame(now, frame, &mut |_, bytes| delivered.push(bytes.to_vec())).unwrap();
//! assert_eq!(delivered, [b"hello"]);
//!
//! let ack: Ack = tracker.build(now).unwrap();
//! tracker.on_ack_sent(now);
//! sender.handle_ack(now, &ack, &mut |number, _tag| assert_eq!(number, 1)).unwrap();
//! assert_eq!(sender.unacknowledged(), 0);
//! ```
#![forbid(unsafe_code)]

mod ack;
mod backoff;
mod bits;
mod buffers;
mod channel;
mod config;
mod congestion;
mod duplicate;
mod error;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod receiver;
mod rtt;
mod sender;
mod stats;
mod table;

pub use ack::{ACK_BITS, ACK_WORDS, Ack, AckClock, AckNumbers, AckTracker};
pub use backoff::Backoff;
pub use channel::{Channel, Delivery, StreamId};
pub use config::{
    BURST_BYTES_MIN, CONTROL_MESSAGE_BYTES_MAX, CONTROL_MESSAGES_AHEAD_MAX,
    CONTROL_MESSAGES_QUEUED_MAX, CREDIT_BYTES, Config, ConfigError, FRAGMENTS_PER_MESSAGE_MAX,
    FRAME_CHARGE_BYTES, Knobs, MESSAGES_AHEAD_MAX, PRIORITIES, Priorities, ResendIdentity,
};
pub use congestion::Congestion;
pub use duplicate::DuplicateFilter;
pub use error::{AckError, FrameError, SendError};
pub use frame::{Fragment, InFrame, OutFrame};
pub use receiver::{ParkedReceiver, Receiver};
pub use rtt::RttEstimator;
pub use sender::{LONG_PACKET_BYTES, ParkedSender, Sender};
pub use stats::{ReceiverStats, SenderStats};
