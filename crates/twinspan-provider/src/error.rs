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

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens there, or who does has no room and says so.
    #[error("{0} refused the connection; check that its server runs")]
    Refused(SocketAddr),
    /// No answer came in time.
    #[error("{0} did not answer in time; check the address and what filters the way")]
    TimedOut(SocketAddr),
    /// The other end broke off before the connection was made.
    #[error("{0} broke off the connection; try again")]
    Reset(SocketAddr),
    /// The network says that nobody has the address.
    #[error("no host has the address of {0}; check the address")]
    HostUnreachable(SocketAddr),
    /// This machine knows no way there.
    #[error("there is no route to {0}; check this machine's network")]
    NetworkUnreachable(SocketAddr),
    /// There is no address or port of this machine left to connect from.
    #[error("no local address is left to reach {0} from; close some connections")]
    NoLocalAddress(SocketAddr),
    /// Anything else the operating system says.
    #[error("cannot connect to {address}: {source}")]
    Os {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl ConnectError {
    /// Sorts what the operating system said about connecting to `address`.
    pub fn from_io(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused(address),
            io::ErrorKind::TimedOut => Self::TimedOut(address),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                Self::Reset(address)
            }
            io::ErrorKind::HostUnreachable => Self::HostUnreachable(address),
            io::ErrorKind::NetworkUnreachable => Self::NetworkUnreachable(address),
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => {
                Self::NoLocalAddress(address)
            }
            _ => Self::Os { address, source },
        }
    }

    /// The kind that the standard library would name.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Refused(_) => io::ErrorKind::ConnectionRefused,
            Self::TimedOut(_) => io::ErrorKind::TimedOut,
            Self::Reset(_) => io::ErrorKind::ConnectionReset,
            Self::HostUnreachable(_) => io::ErrorKind::HostUnreachable,
            Self::NetworkUnreachable(_) => io::ErrorKind::NetworkUnreachable,
            Self::NoLocalAddress(_) => io::ErrorKind::AddrNotAvailable,
            Self::Os { source, .. } => source.kind(),
        }
    }
}

/// Why no connection could be accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The process or the system has no descriptors or memory left. The connection still waits.
    #[error("cannot accept a connection: {0}; close some, then try again")]
    Exhausted(io::Error),
    /// The listener is of no further use.
    #[error("the listener failed: {0}; listen again")]
    Os(io::Error),
    /// The host that the listener lives on was stopped.
    #[error("the host of the listener was stopped")]
    HostStopped,
}

impl AcceptError {
    /// Sorts what one look at the operating system's queue came to; `None` when it is about a
    /// connection that has ended before it was accepted, and the next one may be tried.
    pub fn settle<T>(accepted: io::Result<T>) -> Option<Result<T, Self>> {
        match accepted {
            Ok(stream) => Some(Ok(stream)),
            Err(error) => Self::from_io(error).map(Err),
        }
    }

    fn from_io(source: io::Error) -> Option<Self> {
        // Descriptors of the process and of the system, buffers, memory: the same numbers on all
        // unixes but for the buffers.
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        const ENOBUFS: [i32; 2] = [105, 55];
        let is_exhausted = source.kind() == io::ErrorKind::OutOfMemory
            || source.raw_os_error().is_some_and(|number| {
                cfg!(unix) && ([EMFILE, ENFILE].contains(&number) || ENOBUFS.contains(&number))
            });
        match source.kind() {
            // What a connection went through before it was accepted is told by accept on Linux.
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => None,
            _ if is_exhausted => Some(Self::Exhausted(source)),
            _ => Some(Self::Os(source)),
        }
    }
}

/// Why a name stands for no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// It cannot be the name of a host.
    #[error("{name:?} cannot be the name of a host; use letters, digits, hyphens and dots")]
    NoName {
        /// What was asked for, cut to a name's length.
        name: String,
    },
    /// There is no such name (NXDOMAIN), or it has no addresses.
    #[error("there is no host named {name:?}; check the spelling")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The name servers failed (SERVFAIL).
    #[error("the name servers could not answer for {name:?}; try again later")]
    ServerFailure {
        /// The name.
        name: String,
    },
    /// No answer came in time.
    #[error("no answer for {name:?} came in time; check the name servers")]
    TimedOut {
        /// The name.
        name: String,
    },
    /// The resolver could not be asked.
    #[error("cannot ask for {name:?}: {source}")]
    Offload {
        /// The name.
        name: String,
        /// Why not.
        source: OffloadError,
    },
    /// Anything else the operating system says.
    #[error("cannot resolve {name:?}: {source}")]
    Os {
        /// The name.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why work off the thread gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OffloadError {
    /// As much work as is allowed is being done.
    #[error("too much work is under way off the thread; wait for some of it")]
    Full,
    /// The work panicked.
    #[error("the work off the thread panicked; its message went to standard error")]
    Panicked,
    /// The operating system gives no thread.
    #[error("the operating system gives no thread; raise its limit")]
    NoThread,
    /// The host that the work was to be done on was stopped.
    #[error("the host of the work was stopped")]
    HostStopped,
}
