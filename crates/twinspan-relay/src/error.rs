//! Why a relay or a port cannot be as it was asked to be.

use std::net::SocketAddr;

use twinspan_provider::BindError;

use crate::config::{PADDING_MAX, PEERS_MAX};
use crate::links::LINKS_LIMIT;

/// A setting that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayConfigError {
    /// Nobody is named at the other end of the trunk.
    #[error("nobody is at the trunk's other end; name at least one address")]
    NoPeer,
    /// Too many are named.
    #[error("{have} addresses at the trunk's other end are more than {PEERS_MAX}")]
    ManyPeers {
        /// How many were named.
        have: usize,
    },
    /// One is named twice.
    #[error("{0} is named twice at the trunk's other end")]
    TwicePeer(SocketAddr),
    /// One is no address to send to.
    #[error("{0} is no address of one host and port")]
    NotAPeer(SocketAddr),
    /// Several shards of a server, and no rule which takes what.
    #[error("{shards} shards of a server need a steering rule for as many; it has {steered}")]
    Steering {
        /// Shards that were named.
        shards: usize,
        /// Shards of the rule; 0 for none.
        steered: u16,
    },
    /// A table that large is a mistake.
    #[error("links_max is {0}; give 1 to {LINKS_LIMIT}")]
    Links(usize),
    /// Padding that wide is a mistake.
    #[error("pad_to is {0}; give 1 to {PADDING_MAX}")]
    Padding(usize),
    /// A rate of nothing.
    #[error("{0} is 0 a second, which lets nobody in; give at least 1")]
    Rate(&'static str),
    /// A time too short to measure.
    #[error("{0} is under one second; give at least 1 s")]
    Time(&'static str),
}

/// Why a relay could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] RelayConfigError),
    /// The address for clients cannot be had.
    #[error("for clients: {0}")]
    Listen(BindError),
    /// The address for the trunk cannot be had.
    #[error("for the trunk: {0}")]
    Trunk(BindError),
    /// The operating system refused what a relay needs.
    #[error("cannot start the relay's thread: {0}")]
    Os(#[from] std::io::Error),
}
