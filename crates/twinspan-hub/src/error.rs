//! Why a hub cannot be built, and why a message is not published or received.

use twinspan_net::shm::{self, JoinError, TooManyHeld};

use crate::endpoint::{EndpointError, Scheme};
use crate::payload::{DecodeError, EncodeError};
use crate::report::Transport;

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
