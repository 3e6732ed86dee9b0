//! UDP ports of this process: topics, and QUIC beside them, share one, and the kernel tells them apart.
//!
//! //= hub 8.15

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

use twinspan_net::{bind_beside, lock, steer};
use twinspan_topic::{Door, Places, steering_program};

use crate::error::BuildError;

/// Sockets of one port at most.
const TENANTS_MAX: usize = 256;

/// Who listens at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tenant {
    /// The hub of a topic.
    Topic(Door),
    /// What speaks QUIC.
    Quic,
}

impl Tenant {
    /// Whether a socket that was prepared for one does for the other.
    const fn is_like(self, other: Self) -> bool {
        matches!((self, other), (Self::Topic(_), Self::Topic(_)) | (Self::Quic, Self::Quic))
    }
}

/// A socket of a port. It stays while the port does: the kernel knows sockets by their places, and
/// closing one would move another.
struct Seat {
    socket: OwnedFd,
    tenant: Tenant,
    /// Whether the tenant lives.
    is_taken: bool,
}

/// A port of this process.
struct Port {
    local: SocketAddr,
    seats: Mutex<Vec<Seat>>,
}

/// The ports that somebody has.
static PORTS: Mutex<Vec<Weak<Port>>> = Mutex::new(Vec::new());

/// A place at a port; dropped when the socket is closed.
pub(crate) struct Place {
    port: Arc<Port>,
    at: usize,
}

impl Place {
    /// How many others there are at the port.
    pub(crate) fn others(&self) -> usize {
        lock(&self.port.seats).iter().filter(|seat| seat.is_taken).count().saturating_sub(1)
    }
}

/// What there is to say of others at a port.
pub(crate) fn shared(others: usize) -> Option<String> {
    (others > 0).then(|| format!("it shares the port with {others} more of this process"))
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = lock(&self.port.seats);
        if let Some(seat) = seats.get_mut(self.at) {
            seat.is_taken = false;
        }
        if let Some(first) = seats.first().filter(|_| seats.len() > 1) {
            // Should the kernel refuse, what comes for this one waits in a socket that nobody reads.
            let _ = steer(first.socket.as_fd(), &program(&seats));
        }
    }
}

/// Which of the sockets a datagram goes to. What is of no topic that is here goes to the one whose
/// answer tells who asks of all roads, and else to the first.
fn program(seats: &[Seat]) -> Vec<(u16, u8, u8, u32)> {
    let taken = || (0..).zip(seats).filter(|(_, seat)| seat.is_taken);
    let doors: Vec<_> = taken()
        .filter_map(|(at, seat)| match seat.tenant {
            Tenant::Topic(door) => Some((door, at)),
            Tenant::Quic => None,
        })
        .collect();
    let streams = Door::of(crate::stream::datagrams::TOPIC);
    let of_streams = doors.iter().find(|(door, _)| *door == streams);
    let quic = taken().find(|(_, seat)| seat.tenant == Tenant::Quic).map(|(at, _)| at);
    let other = of_streams.or(doors.first()).map(|(_, at)| *at).or(quic).unwrap_or(0);
    steering_program(&Places { doors: &doors, quic: quic.unwrap_or(other), other })
}

impl Port {
    /// A place beside those that are there, and a socket for it.
    fn join(self: Arc<Self>, tenant: Tenant) -> io::Result<(UdpSocket, Place)> {
        let mut seats = lock(&self.seats);
        if seats.iter().any(|seat| seat.is_taken && seat.tenant == tenant) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let Some(first) = seats.first() else { return Err(io::ErrorKind::AddrInUse.into()) };
        let first = first.socket.try_clone()?;
        let is_free = |seat: &Seat| !seat.is_taken && seat.tenant.is_like(tenant);
        let (at, socket) = if let Some(at) = seats.iter().position(is_free)
            && let Some(seat) = seats.get_mut(at)
        {
            let socket = seat.socket.try_clone()?;
            (seat.tenant, seat.is_taken) = (tenant, true);
            if let Err(error) = steer(first.as_fd(), &program(&seats)) {
                if let Some(seat) = seats.get_mut(at) {
                    seat.is_taken = false;
                }
                return Err(refused(&error));
            }
            (at, UdpSocket::from(socket))
        } else {
            if seats.len() >= TENANTS_MAX {
                let why = format!("{TENANTS_MAX} topics share a port already: take another");
                return Err(io::Error::other(why));
            }
            let socket = first.try_clone()?;
            seats.push(Seat { socket, tenant, is_taken: true });
            let at = seats.len() - 1;
            let bound = bind_beside(first.as_fd(), &program(&seats));
            let bound = bound.and_then(|bound| Ok((OwnedFd::from(bound.try_clone()?), bound)));
            match (bound, seats.last_mut()) {
                (Ok((kept, bound)), Some(seat)) => {
                    seat.socket = kept;
                    (at, bound)
                }
                (bound, _) => {
                    seats.pop();
                    return Err(bound.err().map_or(io::ErrorKind::Other.into(), |it| refused(&it)));
                }
            }
        };
        drop(seats);
        Ok((socket, Place { port: self, at }))
    }
}

/// Why a port is not shared, and what to do.
fn refused(why: &io::Error) -> io::Error {
    let what = "the kernel refuses the filter that tells them apart";
    let advice = "allow setsockopt(SO_ATTACH_REUSEPORT_CBPF), or give each a port of its own";
    io::Error::new(why.kind(), format!("{what} ({why}); {advice}"))
}

/// Binds a port for somebody, or takes a place at it where others of this process have it: `open` is
/// then given the socket. `fd` says which socket it came to be.
///
/// # Errors
/// [`BuildError::Bind`], of kind `AddrInUse` where another process has the port, or the same topic is
/// there.
pub(crate) fn bind<S>(
    address: SocketAddr,
    tenant: Tenant,
    open: impl FnOnce(Option<UdpSocket>) -> Result<S, BuildError>,
    fd: impl FnOnce(&S) -> BorrowedFd<'_>,
) -> Result<(S, Place), BuildError> {
    let failed = |source| BuildError::Bind { address, source };
    // Held until the port is known: two that come at once do not both bind it alone.
    let mut ports = lock(&PORTS);
    ports.retain(|port| port.strong_count() > 0);
    let known = ports.iter().filter_map(Weak::upgrade).find(|port| port.local == address);
    if let Some(port) = known {
        let (socket, place) = port.join(tenant).map_err(failed)?;
        return Ok((open(Some(socket))?, place));
    }
    let opened = open(None)?;
    let socket = fd(&opened).try_clone_to_owned().map_err(failed)?;
    let socket = UdpSocket::from(socket);
    let local = socket.local_addr().map_err(failed)?;
    let seats = Mutex::new(vec![Seat { socket: socket.into(), tenant, is_taken: true }]);
    let port = Arc::new(Port { local, seats });
    ports.push(Arc::downgrade(&port));
    Ok((opened, Place { port, at: 0 }))
}
