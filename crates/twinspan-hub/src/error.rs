//! Why a hub cannot be built, and why a message is not published or received.

use std::io;
use std::net::{IpAddr, SocketAddr};

use twinspan_net::shm::{self, JoinError, TooManyHeld};
use twinspan_topic::Sealing;

use crate::compress::CompressionError;
use crate::endpoint::{EndpointError, Scheme};
use crate::payload::{DecodeError, EncodeError};
use crate::quic::{CertificateError, Fingerprint};
use crate::report::Transport;
use crate::system::has_ipv6;

/// Why a hub cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The endpoint is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The road is not built yet.
    #[error(
        "the road {road} is not built yet: on one machine give a bare topic, which takes shared memory"
    )]
    NotBuilt {
        /// The road.
        road: Transport,
    },
    /// The road that was asked for does not lead there.
    #[error("{road} does not lead to {scheme}://: leave out one of the two")]
    Road {
        /// The road.
        road: Transport,
        /// What the endpoint says.
        scheme: Scheme,
    },
    /// A value's alignment is more than a page.
    #[error("values aligned to {0} bytes cannot lie in shared memory: 4096 are the most")]
    Align(usize),
    /// The topic cannot be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A road over the network needs a host.
    #[error("{road} needs to know where: give an endpoint with a host, as udp://host:port/topic")]
    NoHost {
        /// The road.
        road: Transport,
    },
    /// The host's name has no address.
    #[error("no address of `{host}` is known: {source}; give an address, or another name")]
    Resolve {
        /// The host.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// The address cannot be bound.
    #[error("cannot bind {address}: {source}; {}", bind_advice(*address, source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// Nothing gets from where the hub listens to a peer that was given.
    #[error(
        "{peer} cannot be reached from {bound}, where this hub listens: bind [::], or 0.0.0.0 where all peers \
         are of IPv4"
    )]
    Unreachable {
        /// The peer.
        peer: SocketAddr,
        /// Where the hub listens.
        bound: IpAddr,
    },
    /// A setting is out of its range.
    #[error("{setting} is {value}: set it to {range}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// The other end carries another type under this topic.
    #[error("topic `{topic}` carries {theirs} there, not {ours}: use one type, or another topic")]
    AnotherType {
        /// The topic.
        topic: String,
        /// What it carries.
        theirs: String,
        /// What this side means.
        ours: String,
    },
    /// The other end refuses for another reason.
    #[error("{address} refuses: {why}")]
    Refused {
        /// Who refuses.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The topic is sealed at one end alone, or with another key.
    #[error("{address} refuses: {what}")]
    Sealing {
        /// Who refuses.
        address: SocketAddr,
        /// How it is sealed there.
        what: Sealing,
    },
    /// Something was asked for that a multicast group does not have.
    #[error(
        "{host} is a multicast group, which is best effort and not sealed: leave out {what}, or take \
         the host of one machine"
    )]
    Multicast {
        /// The group.
        host: IpAddr,
        /// What it does not have.
        what: &'static str,
    },
    /// A topic's key was given for a road that is not sealed by one.
    #[error(
        "{road} is not sealed by a topic's key: leave it out, or take udp://; QUIC is sealed by itself, and \
         memory is its users'"
    )]
    Seal {
        /// The road.
        road: Transport,
    },
    /// The road that was asked for does not lead to who is there.
    #[error(
        "{road} does not lead to {address}: {why}; leave the choice to the hub, or ask for another"
    )]
    Impossible {
        /// The road.
        road: Transport,
        /// Where it should lead.
        address: SocketAddr,
        /// Why it does not.
        why: String,
    },
    /// Certificates or keys for QUIC cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Somebody else than before, or than was pinned, listens there.
    #[error(
        "{address} has the certificate {seen}, which is not the one that is trusted: if that is right, \
         pin it or forget the old one"
    )]
    Stranger {
        /// Who listens.
        address: SocketAddr,
        /// What stands for its certificate.
        seen: Fingerprint,
    },
    /// Compression cannot be set up.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// There is no completion ring.
    #[error("io_uring cannot be had: {source}; {advice}, or take batched UDP")]
    NoRing {
        /// What the operating system says.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The operating system has no randomness.
    #[error("the operating system gives no random numbers, without which no hub can be told apart")]
    NoRandomness,
    /// The operating system refuses something else.
    #[error("cannot open the road: {0}")]
    Os(#[source] io::Error),
}

/// What to do where an address cannot be bound.
fn bind_advice(address: SocketAddr, source: &io::Error) -> &'static str {
    // Address family not supported; where IPv6 is switched off, no address of it is there.
    let is_missing = source.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    let is_off = source.kind() == io::ErrorKind::AddrNotAvailable && !has_ipv6();
    if address.is_ipv6() && (is_missing || is_off) {
        return "IPv6 is off on this machine: choose an address of IPv4, or 0.0.0.0 for all of them";
    }
    "choose another port, or an address of this machine"
}

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The value cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The road did not take it.
    #[error(transparent)]
    Road(#[from] shm::PublishError),
    /// The socket is of no further use.
    #[error("the road is broken, build another hub: {0}")]
    Broken(String),
    /// The hub was built to receive only.
    #[error("this hub only receives: build it with both roles to publish")]
    NoPublisher,
}

/// Why no message was received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// What came is no value of the type.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// All samples that one handle can hold are held.
    #[error(transparent)]
    TooManyHeld(#[from] TooManyHeld),
    /// The hub was built to publish only.
    #[error("this hub only publishes: build it with both roles to receive")]
    NoSubscriber,
}
