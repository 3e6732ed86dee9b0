//! Roads over the network: what each of them takes and gives, and the wait that they share.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use twinspan_net::allowed_cores;
use twinspan_net::shm::{Echo, Identity, Policy, Roles, Room, Taken, Wait, ring, spin, spin_limit};
use twinspan_topic::{HISTORY_MAX, Seal, TOPIC_BYTES_MAX};

use crate::choose::occupant;
use crate::compress::CompressionStats;
use crate::effect::SettingReport;
use crate::error::{BuildError, PublishError};
use crate::quic::{Fingerprint, QuicOptions};
use crate::report::{Compression, Transport};
use crate::seal::Declined;
use crate::stream::MESSAGE_BYTES_MAX;
use crate::stream::roads::RoadChange;
use crate::system::families;

/// Datagrams, or messages of a stream, that leave together at most, unless set.
pub(crate) const BATCH_DEFAULT: u32 = 64;

/// Which end of a road this hub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It is bound to the endpoint's port, and others come to it.
    Listen,
    /// It goes to the endpoint.
    Connect,
}

/// Whether messages of a topic are sent again until they arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reliability {
    /// What is lost is counted, and not sent again.
    BestEffort,
    /// Every subscriber gets every message, in order; a slow one holds the publisher back.
    Reliable,
}

/// Settings of sockets and batches; each road says what became of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NetOptions {
    pub(crate) flush_interval: Duration,
    pub(crate) socket_buffer_bytes: usize,
    pub(crate) busy_poll: Option<Duration>,
    pub(crate) core: Option<usize>,
    pub(crate) datagram_bytes: usize,
    pub(crate) injected_loss: f64,
    /// How long a thread of the kernel looks for requests of a completion ring.
    pub(crate) sqpoll: Option<Duration>,
    pub(crate) sqpoll_core: Option<usize>,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_micros(100),
            socket_buffer_bytes: 4 << 20,
            busy_poll: Some(Duration::from_micros(50)),
            core: None,
            datagram_bytes: 1_200,
            injected_loss: 0.0,
            sqpoll: None,
            sqpoll_core: None,
        }
    }
}

/// How a multicast group is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MulticastOptions {
    /// The interface's name or IPv4 address; the system's choice without one.
    pub(crate) interface: Option<String>,
    pub(crate) ttl: u8,
}

impl Default for MulticastOptions {
    fn default() -> Self {
        Self { interface: None, ttl: 1 }
    }
}

impl MulticastOptions {
    /// What was asked for of a group.
    pub(crate) fn named(&self) -> impl Iterator<Item = &'static str> + use<> {
        let usual = Self::default();
        let interface = (self.interface != usual.interface).then_some("multicast_interface");
        let ttl = (self.ttl != usual.ttl).then_some("multicast_ttl");
        [interface, ttl].into_iter().flatten()
    }
}

/// What a road is opened with.
#[derive(Clone, Debug)]
pub(crate) struct RoadConfig {
    pub(crate) topic: String,
    pub(crate) identity: Identity,
    /// 1 to 8 addresses that the endpoint's host has.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) side: Side,
    pub(crate) message_bytes_max: usize,
    pub(crate) depth: u32,
    pub(crate) history: u32,
    pub(crate) policy: Policy,
    pub(crate) publish_timeout: Duration,
    pub(crate) roles: Roles,
    pub(crate) echo: Echo,
    /// `None`: the road's own default.
    pub(crate) reliability: Option<Reliability>,
    pub(crate) compression: Compression,
    /// What both ends know of messages before they come, for compression.
    pub(crate) dictionary: Option<Vec<u8>>,
    /// The host as the endpoint has it.
    pub(crate) host: String,
    pub(crate) quic: QuicOptions,
    pub(crate) batch_size: Option<u32>,
    pub(crate) net: NetOptions,
    /// What the topic is sealed with; UDP alone.
    pub(crate) seal: Option<Seal>,
    /// How a multicast group is joined, where the address is one.
    pub(crate) multicast: MulticastOptions,
    /// A random number that stands for this hub.
    pub(crate) id: [u8; 16],
}

impl RoadConfig {
    /// Refuses settings that no road over a network has.
    ///
    /// # Errors
    /// [`BuildError::Setting`] names the first, and its range.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let net = &self.net;
        let cores = allowed_cores().unwrap_or_default();
        let core = net.core.filter(|core| !cores.contains(core));
        let batch_size = self.batch_size.unwrap_or(BATCH_DEFAULT);
        for (is_wrong, setting, value, range) in [
            (!(1..=256).contains(&batch_size), "batch_size", batch_size.to_string(), "1 to 256"),
            (
                !(512..=9_000).contains(&net.datagram_bytes),
                "datagram_bytes",
                net.datagram_bytes.to_string(),
                "512 to 9000",
            ),
            (
                !(0.0..=1.0).contains(&net.injected_loss),
                "injected_loss",
                net.injected_loss.to_string(),
                "0 to 1",
            ),
            (
                net.flush_interval > Duration::from_secs(1),
                "flush_interval",
                format!("{:?}", net.flush_interval),
                "1 s at most",
            ),
            (
                self.message_bytes_max > MESSAGE_BYTES_MAX,
                "message_bytes_max",
                self.message_bytes_max.to_string(),
                "256 MiB at most",
            ),
            (!(1..=65_536).contains(&self.depth), "depth", self.depth.to_string(), "1 to 65536"),
            (self.history > HISTORY_MAX, "history", self.history.to_string(), "65536 at most"),
            (
                self.topic.len() > TOPIC_BYTES_MAX,
                "topic",
                self.topic.clone(),
                "a name of 80 letters at most",
            ),
            (
                core.is_some(),
                "core",
                core.map(|core| core.to_string()).unwrap_or_default(),
                "one that this process may use",
            ),
        ] {
            if is_wrong {
                return Err(BuildError::Setting { setting, value, range });
            }
        }
        Ok(())
    }

    /// Goes to who listens at the address already, on a road or on any. A wildcard is none to send to:
    /// answers come from another.
    pub(crate) fn go_there(&mut self, road: Option<Transport>) {
        self.side = Side::Connect;
        for address in &mut self.addresses {
            *address = occupant(*address, road);
        }
    }

    /// Which families come to it, where it listens and that is not plain.
    pub(crate) fn families(&self) -> Option<String> {
        let first = self.addresses.first().filter(|_| self.side == Side::Listen)?;
        families(*first).map(str::to_owned)
    }

    pub(crate) fn publishes(&self) -> bool {
        self.roles != Roles::Subscriber
    }

    pub(crate) fn receives(&self) -> bool {
        self.roles != Roles::Publisher
    }

    /// Where a road made of streams begins or leads.
    pub(crate) fn first_address(&self) -> Result<SocketAddr, BuildError> {
        let first = self.addresses.first().copied();
        first.ok_or_else(|| BuildError::Os(io::ErrorKind::AddrNotAvailable.into()))
    }
}

/// The first eight bytes of a hub's id, which stand for it in messages.
pub(crate) fn publisher_of(id: [u8; 16]) -> u64 {
    twinspan_topic::publisher_of(id)
}

/// A road that was opened.
pub(crate) struct Opened {
    /// `None` where nothing is published.
    pub(crate) out: Option<Box<dyn Outgoing>>,
    /// `None` where nothing is received.
    pub(crate) inlet: Option<Box<dyn Incoming>>,
    pub(crate) peers: Arc<dyn Peers>,
    /// How it is led to more places; `None` for a road that leads to one.
    pub(crate) ways: Option<Arc<dyn Ways>>,
    /// What took effect of what was asked for.
    pub(crate) notes: Vec<String>,
}

/// Another hub that is gone to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Callee {
    /// Who it is, where that is known.
    pub(crate) id: Option<[u8; 16]>,
    pub(crate) address: SocketAddr,
    /// What its certificate is to be.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// A road that listens, and goes to others too.
pub(crate) trait Ways: Send + Sync {
    /// Where it listens, and what stands for its certificate.
    fn bound(&self) -> (SocketAddr, Option<Fingerprint>);

    /// Goes to another hub, again and again while that is not there.
    fn call(&self, to: &Callee) -> Result<(), BuildError>;

    /// Goes there no more; what is connected stays until it ends.
    fn hang_up(&self, to: &Callee);

    /// Waits a moment for the first answers, and says what was refused, or who has not answered.
    fn settle(&self) -> Result<Vec<String>, BuildError>;
}

/// Whether another message follows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    /// It does: nothing has to be sent before it.
    Follows,
    /// Nothing is known of one.
    Unknown,
}

/// What the publishing side did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutStats {
    pub(crate) published: u64,
    pub(crate) dropped: u64,
}

/// What the receiving side did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InStats {
    pub(crate) taken: u64,
    pub(crate) lost: u64,
    pub(crate) corrupt: u64,
    pub(crate) naps: u64,
}

/// The publishing side of a road.
pub(crate) trait Outgoing: Send {
    /// Sends a message, or queues it for a moment; waits for room as long as the hub was told to.
    /// Returns its number, from 0.
    fn publish(&mut self, bytes: &[u8], more: More) -> Result<u64, PublishError>;

    /// Sends what is queued.
    fn flush(&mut self) -> Result<(), PublishError>;

    /// The last of some messages of which others [followed](More::Follows) was published: they leave,
    /// at once where nothing was published just before them.
    fn end_of_many(&mut self) -> Result<(), PublishError> {
        self.flush()
    }

    /// The number of the next message.
    fn next_number(&self) -> u64;

    fn stats(&self) -> OutStats;
}

/// The receiving side of a road.
pub(crate) trait Incoming: Send {
    /// Takes a message without waiting. It drives a road that has no thread of its own.
    fn try_take(&mut self, room: &mut dyn Room) -> Option<Taken>;

    /// Sleeps until there may be a message, at most so long; a message that came before is noticed.
    fn sleep(&mut self, limit: Option<Duration>);

    /// Leaves a waker for the next message. Who calls it looks once more before it waits.
    fn wake(&mut self, waker: &Waker);

    /// Makes [`fd`](Self::fd) readable with the next message; false when there is one already.
    fn arm(&mut self) -> bool;

    /// Takes a message, or [arms](Self::arm) where there is none.
    fn take_or_arm(&mut self, room: &mut dyn Room) -> Option<Taken> {
        let found = self.try_take(room);
        if found.is_some() || self.arm() {
            return found;
        }
        // Arming quieted what others may wait for.
        ring(self.bell());
        self.try_take(room)
    }

    /// What becomes readable.
    fn fd(&self) -> BorrowedFd<'_>;

    /// What is rung to make that readable.
    fn bell(&self) -> BorrowedFd<'_> {
        self.fd()
    }

    fn stats(&self) -> InStats;
}

/// Who else is there.
pub(crate) trait Peers: Send + Sync {
    /// Subscribers that hear this hub now.
    fn subscribers(&self) -> usize;

    /// Publishers that this hub hears now.
    fn publishers(&self) -> usize;

    /// Peers that went without a goodbye, or broke the protocol.
    fn ended(&self) -> u64;

    /// Who was refused, or refused this hub, last, and how many were.
    fn declined(&self) -> (u64, Option<Declined>) {
        (0, None)
    }

    /// What compression did; `None` on a road that has none.
    fn compression(&self) -> Option<CompressionStats> {
        None
    }

    /// What became of the road's settings.
    fn settings(&self) -> Vec<SettingReport> {
        Vec::new()
    }

    /// The road that is used now, where that may change.
    fn road(&self) -> Option<Transport> {
        None
    }

    /// The oldest change of the road that was not told.
    fn take_change(&self) -> Option<RoadChange> {
        None
    }
}

/// A nap of so long behind which nothing is found says that the topic is quiet.
const QUIET_NAP: Duration = Duration::from_millis(10);

/// How a road's messages are waited for.
#[derive(Debug)]
pub(crate) struct Patience {
    wait: Wait,
    /// Whether the last nap was long and in vain, of this wait or of the one before.
    is_quiet: bool,
}

impl Patience {
    pub(crate) const fn new(wait: Wait) -> Self {
        Self { wait, is_quiet: false }
    }
}

/// Looks until something is found; waits in between as `patience` says, until the deadline, for ever
/// without one.
pub(crate) fn wait_for<R>(
    inlet: &mut dyn Incoming,
    patience: &mut Patience,
    deadline: Option<Instant>,
    mut look: impl FnMut(&mut dyn Incoming) -> Option<R>,
) -> Option<R> {
    loop {
        let found = match patience.wait {
            Wait::Spin => spin(None, deadline, || look(inlet)),
            // Each look is a call to the kernel: one is enough.
            Wait::Block => look(inlet),
            _ if patience.is_quiet => look(inlet),
            _ => spin(Some(spin_limit()), deadline, || look(inlet)),
        };
        if found.is_some() {
            patience.is_quiet = false;
            return found;
        }
        let left = match deadline {
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return None,
            },
            None => None,
        };
        let began = Instant::now();
        inlet.sleep(left);
        patience.is_quiet = began.elapsed() >= QUIET_NAP;
    }
}
