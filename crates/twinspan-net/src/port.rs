//! A UDP socket with the calls that move its datagrams, below any reactor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvFlags, SendFlags, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketBuf, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_provider::{
    BindError, IoPath, Offload, PathCosts, SocketReport, UdpError, UdpOptions,
};

use crate::coalesced::Coalesced;
use crate::ladder::{Ladder, RING_LOST};
use crate::sys::{self, CALL_MESSAGES_MAX, Headers, Ring, Runs};

/// Packets offered to the kernel by a receive call at least. A socket that gets little offers
/// little, so that a thousand quiet sockets do not each hold buffers for a flood.
pub(crate) const OFFER_MIN: usize = 2;
/// Refusals of runs, without one taken in between, after which no more are tried.
const REFUSALS_MAX: u32 = 64;

/// What the sockets of a thread share for their system calls.
pub(crate) struct Calls {
    headers: Headers,
    /// Packets on their way into a receive call; empty between calls.
    spares: Vec<PacketBuf>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self { headers: Headers::new(), spares: Vec::with_capacity(CALL_MESSAGES_MAX) }
    }
}

/// What one receive call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// Datagrams left the kernel, wanted or not.
    Datagrams(usize),
    /// The call failed and the socket lives.
    Trouble,
    /// Nothing is there.
    Nothing,
    /// The pool has no free buffer.
    NoBuffer,
}

/// What one send call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gave {
    /// Datagrams left the batch, or the call is worth repeating.
    Progress,
    /// The kernel has no room.
    NoRoom,
}

/// How datagrams come out of the kernel.
enum Way {
    Plain,
    Batch,
    Coalesced(Box<Coalesced>),
    Ring(Box<Ring>),
}

/// Why a path is that path which a caller named.
const ASKED_FOR: &str = "asked for";

impl Way {
    /// The way that a measurement chose, and why; batches where its ring cannot be had any more.
    fn on(ladder: Ladder, ring: impl FnOnce() -> io::Result<Ring>) -> (Self, &'static str) {
        match ladder.best {
            IoPath::Plain => (Self::Plain, ladder.reason),
            IoPath::Ring => match ring() {
                Ok(ring) => (Self::Ring(Box::new(ring)), ladder.reason),
                Err(_) => (Self::Batch, RING_LOST),
            },
            _ => (Self::Batch, ladder.reason),
        }
    }

    /// What it is called in reports.
    const fn name(&self) -> &'static str {
        match self {
            Self::Plain => "recvfrom/sendto",
            Self::Batch => "recvmmsg/sendmmsg",
            Self::Coalesced(_) => "recvmmsg with GRO/sendmmsg",
            Self::Ring(_) => "io_uring multishot recvmsg/sendmmsg",
        }
    }
}

/// A bound socket, its pool, its way of moving datagrams and its counters.
pub(crate) struct Port {
    socket: Socket,
    local: SocketAddr,
    pool: PacketPool,
    way: Way,
    /// Packets that the next receive call offers to the kernel.
    offer: usize,
    /// Datagrams received since the queue was last found empty.
    taken: usize,
    /// Whether the last receive call emptied the queue.
    drained: bool,
    /// Datagrams to send one by one before runs are tried again.
    singles_left: usize,
    refusals: u32,
    report: SocketReport,
}

impl Port {
    /// Binds a socket and prepares the way that `options` ask for.
    pub(crate) fn bind(local: SocketAddr, options: &UdpOptions) -> Result<Self, BindError> {
        let (socket, bound) =
            open(local, options).map_err(|error| BindError::from_io(local, error))?;
        Self::prepare(socket, bound, options)
    }

    /// Prepares the way that `options` ask for on a bound socket.
    pub(crate) fn prepare(
        socket: Socket,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<Self, BindError> {
        let refused = |source| BindError::Path { address: local, path: options.path, source };
        let mut costs = PathCosts::default();
        let ring = || Ring::new(socket.as_fd());
        let (way, path_reason) = match options.path {
            IoPath::Usual => (Way::Batch, "the usual one"),
            // A ring's datagrams are not joined, so whoever wants that has batches.
            IoPath::Measured if options.coalesce_receives => {
                (Way::Batch, "the one whose datagrams can be joined")
            }
            IoPath::Measured => {
                let ladder = Ladder::of_this_process();
                costs = ladder.costs;
                Way::on(ladder, ring)
            }
            IoPath::Plain => (Way::Plain, ASKED_FOR),
            IoPath::Batch => (Way::Batch, ASKED_FOR),
            IoPath::Ring => (Way::Ring(Box::new(ring().map_err(refused)?)), ASKED_FOR),
            _ => return Err(refused(io::ErrorKind::Unsupported.into())),
        };
        let path = way.name();
        let mut port = Self::with_way(socket, local, way, options);
        port.report = SocketReport { path, path_reason, path_costs: costs, ..port.report };
        if options.coalesce_receives {
            port.coalesce();
        }
        if options.ecn && matches!(port.way, Way::Batch | Way::Coalesced(_)) {
            // The other ways have no room for what comes beside a datagram.
            port.report.ecn = sys::tell_of_marks(port.fd(), local.is_ipv4()).is_ok();
        }
        Ok(port)
    }

    fn with_way(socket: Socket, local: SocketAddr, way: Way, options: &UdpOptions) -> Self {
        let segmentation = match (options.segment_sends, &way) {
            (false, _) | (true, Way::Plain) => Offload::Off,
            (true, _) if sys::can_segment(socket.as_fd()).is_ok() => Offload::On,
            (true, _) => Offload::Refused,
        };
        let report = SocketReport {
            segmentation,
            never_fragments: never_fragments(&socket, local),
            receive_buffer_bytes: socket.recv_buffer_size().unwrap_or(0),
            send_buffer_bytes: socket.send_buffer_size().unwrap_or(0),
            ..SocketReport::default()
        };
        Self {
            socket,
            local,
            pool: PacketPool::new(options.pool_packets),
            way,
            offer: OFFER_MIN,
            taken: 0,
            drained: false,
            singles_left: 0,
            refusals: 0,
            report,
        }
    }

    /// Lets the kernel join what it received, on a way that can take it apart.
    fn coalesce(&mut self) {
        self.report.coalescing = Offload::Refused;
        if matches!(self.way, Way::Batch) && sys::coalesce(self.socket.as_fd()).is_ok() {
            self.way = Way::Coalesced(Box::new(Coalesced::new()));
            self.report.coalescing = Offload::On;
            self.report.path = self.way.name();
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What becomes readable when there is something to receive.
    pub(crate) fn wait_fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Ring(ring) => ring.fd(),
            _ => self.socket.as_fd(),
        }
    }

    /// Whether [`wait_fd`](Self::wait_fd) is another one than the socket's.
    pub(crate) const fn waits_apart(&self) -> bool {
        matches!(self.way, Way::Ring(_))
    }

    /// Whether a wait on [`wait_fd`](Self::wait_fd) would be in vain: there may be something to
    /// receive that it does not tell of.
    pub(crate) fn must_not_wait(&mut self) -> bool {
        match &mut self.way {
            Way::Plain | Way::Batch => false,
            Way::Coalesced(runs) => !runs.is_empty(),
            Way::Ring(ring) => {
                ring.quiet();
                !ring.is_drained()
            }
        }
    }

    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) const fn pool(&self) -> &PacketPool {
        &self.pool
    }

    pub(crate) const fn report(&self) -> SocketReport {
        self.report
    }

    pub(crate) fn report_mut(&mut self) -> &mut SocketReport {
        &mut self.report
    }

    /// Packets that the next receive call offers to the kernel.
    #[cfg(test)]
    pub(crate) const fn offer(&self) -> usize {
        self.offer
    }

    /// Whether the last receive call left nothing in the kernel's queue.
    pub(crate) const fn drained(&self) -> bool {
        self.drained
    }

    /// One receive call for at most `room` datagrams, at least 1, which `batch` has room for.
    pub(crate) fn receive(
        &mut self,
        calls: &mut Calls,
        batch: &mut DatagramBatch,
        room: usize,
        now: impl Fn() -> Timestamp,
    ) -> Result<Took, UdpError> {
        self.drained = false;
        let outcome = match &mut self.way {
            Way::Plain => self.receive_one(batch, now),
            Way::Batch => self.receive_many(calls, batch, room, now),
            Way::Coalesced(_) => self.receive_runs(calls, batch, room, now),
            Way::Ring(_) => self.receive_completed(batch, room, now),
        };
        outcome.or_else(|error| self.receive_failed(error))
    }

    fn receive_one(
        &mut self,
        batch: &mut DatagramBatch,
        now: impl Fn() -> Timestamp,
    ) -> io::Result<Took> {
        let Some(mut packet) = self.pool.take() else { return Ok(Took::NoBuffer) };
        self.report.calls_in += 1;
        let room = packet.room_mut();
        let bytes = room.len();
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let (_, length, peer) = rustix::net::recvfrom(self.socket.as_fd(), room, flags)?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        match peer.filter(|_| length <= bytes) {
            Some(peer) => {
                packet.set_len(length);
                self.deliver(batch, Datagram { peer, at: now(), packet });
            }
            None => self.report.receive_errors += 1,
        }
        Ok(Took::Datagrams(1))
    }

    fn receive_many(
        &mut self,
        calls: &mut Calls,
        batch: &mut DatagramBatch,
        room: usize,
        now: impl Fn() -> Timestamp,
    ) -> io::Result<Took> {
        let Calls { headers, spares } = calls;
        let wanted = self.offer.min(room).min(CALL_MESSAGES_MAX);
        spares.extend(std::iter::from_fn(|| self.pool.take()).take(wanted));
        let offered = spares.len();
        if offered == 0 {
            return Ok(Took::NoBuffer);
        }
        self.report.calls_in += 1;
        let rooms = spares.iter_mut().map(PacketBuf::room_mut);
        let count = match headers.receive(self.socket.as_fd(), rooms) {
            Ok(count) => count,
            Err(error) => {
                spares.clear();
                return Err(error);
            }
        };
        let at = now();
        for (index, mut packet) in spares.drain(..).take(count).enumerate() {
            let received = headers.received(index).filter(|received| !received.cut);
            let Some((length, peer, ecn)) =
                received.and_then(|one| Some((one.length, one.peer?, one.ecn)))
            else {
                self.report.receive_errors += 1;
                continue;
            };
            packet.set_len(length);
            packet.set_ecn(ecn);
            self.deliver(batch, Datagram { peer, at, packet });
        }
        self.adapt(offered, count);
        Ok(Took::Datagrams(count))
    }

    fn receive_runs(
        &mut self,
        calls: &mut Calls,
        batch: &mut DatagramBatch,
        room: usize,
        now: impl Fn() -> Timestamp,
    ) -> io::Result<Took> {
        let Way::Coalesced(runs) = &mut self.way else { return Ok(Took::Nothing) };
        if runs.is_empty() {
            self.report.calls_in += 1;
            runs.fill(&mut calls.headers, self.socket.as_fd(), now())?;
            self.report.receive_errors += runs.take_lost();
        }
        let mut count = 0;
        while count < room {
            // Asked first: a datagram must not leave its run without a buffer to go to.
            let Some(mut packet) = self.pool.take() else {
                return Ok(if count == 0 { Took::NoBuffer } else { Took::Datagrams(count) });
            };
            let Some((peer, at, ecn, bytes)) = runs.take_next() else { break };
            packet.set_ecn(ecn);
            count += 1;
            if packet.fill(bytes) {
                self.report.packets_in += 1;
                self.report.bytes_in += bytes.len() as u64;
                let refused = batch.push(Datagram { peer, at, packet });
                debug_assert!(refused.is_ok(), "more datagrams than the batch has room for");
            } else {
                self.report.receive_errors += 1;
            }
        }
        self.drained = runs.is_empty() && runs.was_short();
        Ok(if count == 0 { Took::Trouble } else { Took::Datagrams(count) })
    }

    fn receive_completed(
        &mut self,
        batch: &mut DatagramBatch,
        room: usize,
        now: impl Fn() -> Timestamp,
    ) -> io::Result<Took> {
        let Way::Ring(ring) = &mut self.way else { return Ok(Took::Nothing) };
        if !ring.has_completions() {
            if ring.is_drained() {
                self.drained = true;
                return Ok(Took::Nothing);
            }
            self.report.calls_in += 1;
            ring.fetch()?;
        }
        let at = now();
        let mut count = 0;
        while count < room && ring.has_completions() {
            // Asked first: a datagram must not leave its buffer without another to go to.
            let Some(mut packet) = self.pool.take() else {
                return Ok(if count == 0 { Took::NoBuffer } else { Took::Datagrams(count) });
            };
            let copied = ring.take(|received, bytes| {
                received.peer.filter(|_| !received.cut && packet.fill(bytes))
            });
            match copied {
                Some(Ok(Some(peer))) => {
                    self.report.packets_in += 1;
                    self.report.bytes_in += packet.len() as u64;
                    let refused = batch.push(Datagram { peer, at, packet });
                    debug_assert!(refused.is_ok(), "more datagrams than the batch has room for");
                }
                Some(Ok(None)) => self.report.receive_errors += 1,
                Some(Err(error)) if count == 0 => return Err(error),
                Some(Err(error)) => {
                    // What came before it is handed over first; the news itself is counted.
                    let outcome = self.receive_failed(error);
                    return match outcome {
                        Err(UdpError::Os(error)) => Err(error),
                        _ => Ok(Took::Datagrams(count)),
                    };
                }
                None => break,
            }
            count += 1;
        }
        self.drained = ring.is_drained();
        Ok(match (count, self.drained) {
            (0, true) => Took::Nothing,
            (0, false) => Took::Trouble,
            _ => Took::Datagrams(count),
        })
    }

    fn deliver(&mut self, batch: &mut DatagramBatch, datagram: Datagram) {
        self.report.packets_in += 1;
        self.report.bytes_in += datagram.packet.len() as u64;
        let refused = batch.push(datagram);
        debug_assert!(refused.is_ok(), "more datagrams than the batch has room for");
    }

    /// Offers more after a call that filled all it was offered, less after an emptying that needed
    /// less than half.
    fn adapt(&mut self, offered: usize, count: usize) {
        self.taken = self.taken.saturating_add(count);
        if count < offered {
            // A short count means that the queue is empty: another call now would only say so. An
            // error that ended the batch early is read with what arrives next.
            self.drained = true;
            if self.taken * 2 < self.offer {
                self.offer = (self.offer / 2).max(OFFER_MIN);
            }
            self.taken = 0;
        } else if offered == self.offer {
            self.offer = (self.offer * 2).min(CALL_MESSAGES_MAX);
        }
    }

    fn receive_failed(&mut self, error: io::Error) -> Result<Took, UdpError> {
        match Failure::of_receive(&error) {
            Failure::Again => {
                self.drained = true;
                self.taken = 0;
                Ok(Took::Nothing)
            }
            Failure::Interrupted => Ok(Took::Trouble),
            Failure::Passing => {
                self.report.receive_errors += 1;
                Ok(Took::Trouble)
            }
            Failure::Fatal => Err(UdpError::Os(error)),
        }
    }

    /// One send call from the front of `batch`; what it sent or refused has left the batch then.
    pub(crate) fn send(
        &mut self,
        calls: &mut Calls,
        batch: &mut DatagramBatch,
    ) -> Result<Gave, UdpError> {
        self.report.calls_out += 1;
        let joins = self.report.segmentation == Offload::On && self.singles_left == 0;
        let outcome = match &self.way {
            Way::Plain => self.send_one(batch),
            Way::Batch | Way::Coalesced(_) | Way::Ring(_) if joins => {
                calls.headers.send(self.socket.as_fd(), batch.iter(), Runs::Joined)
            }
            Way::Batch | Way::Coalesced(_) | Way::Ring(_) => {
                let most = if self.singles_left > 0 { self.singles_left } else { usize::MAX };
                calls.headers.send(self.socket.as_fd(), batch.iter().take(most), Runs::Single)
            }
        };
        let error = match outcome {
            Ok(sent) => {
                self.sent(calls, batch, sent, joins);
                return Ok(Gave::Progress);
            }
            Err(error) => error,
        };
        match Failure::of_send(&error) {
            Failure::Again => return Ok(Gave::NoRoom),
            Failure::Interrupted => {}
            Failure::Passing if joins && calls.headers.first_run() > 1 => {
                // Which datagram of the run it is about, or whether the device cannot split: sent
                // one by one each gets its own answer.
                self.singles_left = calls.headers.first_run();
                self.run_refused(&error);
            }
            Failure::Passing => {
                // The error is about the first datagram; those behind it may go elsewhere.
                self.singles_left = self.singles_left.saturating_sub(1);
                self.report.send_errors += 1;
                drop(batch.pop());
            }
            Failure::Fatal => return Err(UdpError::Os(error)),
        }
        Ok(Gave::Progress)
    }

    fn send_one(&self, batch: &DatagramBatch) -> io::Result<usize> {
        let Some(datagram) = batch.iter().next() else { return Ok(0) };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::sendto(self.socket.as_fd(), &datagram.packet, flags, &datagram.peer)?;
        Ok(1)
    }

    /// Takes the first `sent` datagrams out of the batch.
    fn sent(&mut self, calls: &Calls, batch: &mut DatagramBatch, sent: usize, joined: bool) {
        for datagram in std::iter::from_fn(|| batch.pop()).take(sent) {
            self.report.packets_out += 1;
            self.report.bytes_out += datagram.packet.len() as u64;
        }
        self.singles_left = self.singles_left.saturating_sub(sent);
        if joined {
            let segmented = calls.headers.segmented(sent);
            self.report.packets_segmented += segmented as u64;
            if segmented > 0 {
                self.refusals = 0;
            }
        }
    }

    /// Gives runs up where they cannot work.
    fn run_refused(&mut self, error: &io::Error) {
        self.refusals += 1;
        // EIO: the way out has no checksums to offer. The others: no such option.
        let never =
            matches!(error.raw_os_error(), Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT));
        if never || self.refusals >= REFUSALS_MAX {
            self.report.segmentation = Offload::Refused;
        }
    }
}

/// What a failed call means for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing to receive, or no room to send, now.
    Again,
    /// A signal came first; the call is repeated.
    Interrupted,
    /// One datagram, or the news of one, was lost.
    Passing,
    /// The socket is of no further use.
    Fatal,
}

impl Failure {
    pub(crate) fn of_receive(error: &io::Error) -> Self {
        match error.raw_os_error() {
            // Repeating these would fail for ever.
            Some(libc::EINVAL | libc::ENOTCONN) => Self::Fatal,
            _ => Self::of_send(error),
        }
    }

    /// What the network or the other end can cause is passing: routes vanish, firewalls refuse,
    /// addresses are wrong, queues are full, a datagram is longer than the interface takes.
    pub(crate) fn of_send(error: &io::Error) -> Self {
        match error.raw_os_error() {
            // The same number as EWOULDBLOCK on Linux.
            Some(libc::EAGAIN) => Self::Again,
            Some(libc::EINTR) => Self::Interrupted,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::ENOSYS) | None => Self::Fatal,
            Some(_) => Self::Passing,
        }
    }
}

/// Opens, prepares and binds a socket, and says where it is bound.
pub(crate) fn open(local: SocketAddr, options: &UdpOptions) -> io::Result<(Socket, SocketAddr)> {
    let socket = unbound(local, options)?;
    socket.bind(&local.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(local);
    Ok((socket, bound))
}

/// The same at the wildcard of IPv6 for both families: peers of IPv4 have mapped addresses there.
pub(crate) fn open_for_both(
    local: SocketAddr,
    options: &UdpOptions,
) -> io::Result<(Socket, SocketAddr)> {
    let socket = unbound(local, options)?;
    take_both(&socket)?;
    socket.bind(&local.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(local);
    Ok((socket, bound))
}

/// Lets a socket of IPv6 that is not bound have datagrams of IPv4 too.
pub(crate) fn take_both(socket: &Socket) -> io::Result<()> {
    socket.set_only_v6(false)?;
    // As for one family: where the system refuses, datagrams may be fragmented.
    let _ = sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::PROBE);
    Ok(())
}

/// Opens and prepares a socket.
pub(crate) fn unbound(local: SocketAddr, options: &UdpOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        // An address means one family; who wants both binds both.
        socket.set_only_v6(true)?;
    }
    forbid_fragments(&socket, local);
    enlarge(&socket, options);
    Ok(socket)
}

/// Sets don't-fragment and ignores what ICMP says of the path's MTU, which anybody can forge. Where
/// the system refuses, datagrams may be fragmented, the report says so, and nothing else changes.
fn forbid_fragments(socket: &Socket, local: SocketAddr) {
    let _ = match local {
        SocketAddr::V4(_) => {
            sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::PROBE)
        }
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::PROBE)
        }
    };
}

/// What became of [`forbid_fragments`], as the kernel has it.
fn never_fragments(socket: &Socket, local: SocketAddr) -> bool {
    match local {
        SocketAddr::V4(_) => {
            sockopt::ip_mtu_discover(socket) == Ok(sockopt::Ipv4PathMtuDiscovery::PROBE)
        }
        SocketAddr::V6(_) => {
            sockopt::ipv6_mtu_discover(socket) == Ok(sockopt::Ipv6PathMtuDiscovery::PROBE)
        }
    }
}

/// Asks for the wanted buffers, past the system's limit where privileges allow it. What was granted
/// is read back for the report, so refusals need no handling here.
pub(crate) fn enlarge(socket: &Socket, options: &UdpOptions) {
    // The kernel takes an int and doubles it.
    const BYTES_MAX: usize = (i32::MAX / 2) as usize;
    let receive = options.receive_buffer_bytes.min(BYTES_MAX);
    if sockopt::set_socket_recv_buffer_size_force(socket, receive).is_err() {
        let _ = socket.set_recv_buffer_size(receive);
    }
    let send = options.send_buffer_bytes.min(BYTES_MAX);
    if sockopt::set_socket_send_buffer_size_force(socket, send).is_err() {
        let _ = socket.set_send_buffer_size(send);
    }
}

#[cfg(test)]
mod tests;
