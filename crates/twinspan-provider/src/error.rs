//! Errors of the seam, one enum per operation.

use std::io;
use std::net::SocketAddr;

use crate::IoPath;

/// Why a datagram socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    #[error("address {0} is taken; stop what listens there or choose another port")]
    Taken(SocketAddr),
    /// The port or address needs a privilege that this process lacks.
    #[error("not permitted to bind {0}; choose a port above 1023")]
    NotPermitted(SocketAddr),
    /// The address belongs to no interface of this machine.
    #[error("address {0} is not one of this machine's; choose one that is, or 0.0.0.0")]
    NotLocal(SocketAddr),
    /// The way asked for to move datagrams cannot be had here.
    #[error("cannot move datagrams of {address} by {path:?}: {source}; ask for another path")]
    Path {
        /// The address asked for.
        address: SocketAddr,
        /// The way asked for.
        path: IoPath,
        /// What the operating system, or this side of the seam, said.
        source: io::Error,
    },
    /// Anything else the operating system says.
    #[error("cannot bind {address}: {source}")]
    Os {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BindError {
    /// Sorts what the operating system said about binding `address`.
    pub fn from_io(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken(address),
            io::ErrorKind::PermissionDenied => Self::NotPermitted(address),
            io::ErrorKind::AddrNotAvailable => Self::NotLocal(address),
            _ => Self::Os { address, source },
        }
    }
}

/// Why a datagram socket is of no further use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UdpError {
    /// What the operating system said.
    #[error("datagram socket failed: {0}")]
    Os(#[from] io::Error),
    /// The host that the socket lives on was stopped.
    #[error("the host of the datagram socket was stopped")]
    HostStopped,
}
