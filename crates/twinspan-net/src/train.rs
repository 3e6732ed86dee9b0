//! A UDP socket for trains: datagrams that lie behind each other in one piece of memory, so that they
//! are written where the kernel reads them, and read where it wrote them.

mod costs;
mod multicast;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::Socket;
use twinspan_core::time::Timestamp;
use twinspan_provider::{Offload, UdpOptions};

use crate::coalesced::{Coalesced, RUNS_MAX};
use crate::port::{Failure, enlarge, open, open_for_both};
use crate::sys::{
    self, CALL_MESSAGES_MAX, Headers, Names, Outbox, RUN_BYTES_MAX, RUN_DATAGRAMS_MAX, RingShape,
    Train, TrainRing,
};

pub use costs::{TrainCosts, poller_costs, train_costs};
pub use multicast::{Multicast, MulticastInterface};

/// The longest datagram that is written.
const DATAGRAM_BYTES_MAX: usize = 9_216;
/// Datagrams that wait to be sent at most.
const BATCH_MAX: usize = 256;
/// Receive calls that found something between two looks at how much waits, beside those that found more
/// than they had room for.
const FINDS_PER_LOOK: u64 = 64;
/// Runs taken by a receive call while little comes.
const RUNS_AT_FIRST: usize = 1;

/// What is asked of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainOptions {
    /// Bytes of either of the kernel's buffers.
    pub buffer_bytes: usize,
    /// For how long the kernel polls the device when the socket is empty.
    pub busy_poll: Option<Duration>,
    /// The one address that is spoken with, if there is one.
    pub connect: Option<SocketAddr>,
    /// Datagrams that wait to be sent at most, 1 to 256.
    pub batch_size: usize,
    /// The longest datagram that is sent, in bytes, at most 9,216.
    pub datagram_bytes_max: usize,
    /// How a group is joined, where the address that is bound is one.
    pub multicast: Option<Multicast>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            buffer_bytes: 4 << 20,
            busy_poll: None,
            connect: None,
            batch_size: 64,
            datagram_bytes_max: 1_200,
            multicast: None,
        }
    }
}

impl TrainOptions {
    fn batch_size(&self) -> usize {
        self.batch_size.clamp(1, BATCH_MAX)
    }

    fn datagram_bytes(&self) -> usize {
        self.datagram_bytes_max.clamp(1, DATAGRAM_BYTES_MAX)
    }

    fn memory_bytes(&self) -> usize {
        self.batch_size() * self.datagram_bytes()
    }
}

/// Who sends on a completion ring's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingSends {
    /// Batched calls, as without a ring.
    #[default]
    Calls,
    /// Requests on the ring.
    Requests,
    /// Requests on the ring, and long trains without a copy where the kernel can.
    ZeroCopy,
}

/// A thread of the kernel that looks for requests, so that making one is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPoller {
    /// The core that it runs on; any without one.
    pub core: Option<usize>,
    /// For how long it looks before it sleeps; whole milliseconds, 1 at least.
    pub idle: Duration,
}

/// What is asked of a completion ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingOptions {
    /// A thread of the kernel that looks for requests; it takes a core.
    pub poller: Option<RingPoller>,
    /// Who sends.
    pub sends: RingSends,
}

/// Why there is no socket on a completion ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The socket itself cannot be had.
    #[error("the socket cannot be had: {0}")]
    Socket(#[source] io::Error),
    /// The ring cannot be had.
    #[error("no completion ring can be had: {0}")]
    Ring(#[source] io::Error),
}

impl From<RingError> for io::Error {
    fn from(error: RingError) -> Self {
        match error {
            RingError::Socket(error) | RingError::Ring(error) => error,
        }
    }
}

/// What a socket got and did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainReport {
    /// Bytes of the kernel's receive buffer, as it says.
    pub receive_buffer_bytes: usize,
    /// Bytes of the kernel's send buffer, as it says.
    pub send_buffer_bytes: usize,
    /// Whether the kernel splits trains.
    pub segmentation: Offload,
    /// Whether the kernel joins what came.
    pub coalescing: Offload,
    /// Whether busy polling was set.
    pub busy_poll: Offload,
    /// Why it was not, where the system refuses: its error number.
    pub busy_poll_errno: Option<i32>,
    /// The number of the device's queue that brought the last datagram; 0 where there is none to poll.
    pub napi_id: u32,
    /// The most bytes of the kernel's memory that were seen to wait: before full receive calls, and each
    /// so many that found something.
    pub queued_bytes_max: usize,
    /// Datagrams for which the receive buffer had no room.
    pub dropped: u64,
    /// Receive calls that found something.
    pub finds: u64,
    /// Times that the kernel had no room to send.
    pub full_sends: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Receive calls, those that found nothing included.
    pub calls_in: u64,
    /// Send calls.
    pub calls_out: u64,
    /// Datagrams that the kernel refused for good.
    pub send_errors: u64,
    /// Messages that no datagram could be made of, and passing errors.
    pub receive_errors: u64,
    /// Trains that were sent without a copy, as far as this side asked for it.
    pub zero_copy: u64,
    /// Those of them that the kernel copied after all.
    pub zero_copy_copied: u64,
}

/// How datagrams come out of the kernel, and where they lie that go to it.
enum Way {
    Calls {
        incoming: Box<Coalesced>,
        /// Runs that the next receive call takes.
        runs: usize,
        /// Where datagrams are written before they are sent.
        memory: Vec<u8>,
    },
    Ring {
        ring: Box<TrainRing>,
        /// The same where calls send; empty where the ring does.
        memory: Vec<u8>,
    },
}

/// What is asked of the socket itself.
fn buffers(options: &TrainOptions) -> UdpOptions {
    UdpOptions {
        receive_buffer_bytes: options.buffer_bytes,
        send_buffer_bytes: options.buffer_bytes,
        ..UdpOptions::default()
    }
}

/// Binds a socket, and connects it where that is asked for.
fn bound(local: SocketAddr, options: &TrainOptions) -> io::Result<(Socket, SocketAddr)> {
    let udp = buffers(options);
    if let Some(multicast) = &options.multicast {
        return Ok((multicast::open(local, &udp, multicast)?, local));
    }
    let is_any = local.is_ipv6() && local.ip().is_unspecified() && options.connect.is_none();
    let (socket, bound) = if is_any { open_for_both(local, &udp)? } else { open(local, &udp)? };
    let Some(peer) = options.connect else { return Ok((socket, bound)) };
    socket.connect(&peer.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(bound);
    Ok((socket, bound))
}

/// Prepares a socket that somebody bound.
fn given(socket: UdpSocket, options: &TrainOptions) -> io::Result<(Socket, SocketAddr)> {
    let local = socket.local_addr()?;
    socket.set_nonblocking(true)?;
    let socket = Socket::from(socket);
    enlarge(&socket, &buffers(options));
    Ok((socket, local))
}

/// A UDP socket for trains of datagrams. It never waits.
///
/// ```
/// use twinspan_net::{TrainOptions, TrainSocket};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let loopback = "127.0.0.1:0".parse()?;
/// let mut left = TrainSocket::bind(loopback, &TrainOptions::default())?;
/// let mut right = TrainSocket::bind(loopback, &TrainOptions::default())?;
/// for word in [b"one", b"two"] {
///     left.room()[..3].copy_from_slice(word);
///     left.push(right.local_addr(), 3);
/// }
/// assert!(left.send()?);
/// let mut words = Vec::new();
/// while words.len() < 2 {
///     right.receive()?;
///     while let Some((_, bytes)) = right.take_next() {
///         words.push(bytes.to_vec());
///     }
/// }
/// assert_eq!(words, [b"one", b"two"]);
/// # Ok(())
/// # }
/// ```
pub struct TrainSocket {
    socket: Socket,
    local: SocketAddr,
    names: Names,
    headers: Headers,
    way: Way,
    datagram_bytes_max: usize,
    batch_size: usize,
    /// Bytes of the memory that are filled.
    filled: usize,
    trains: Vec<Train>,
    /// Trains that were sent already.
    gone: usize,
    datagrams: usize,
    /// Whether all memory of a ring that sends is in use.
    is_blocked: bool,
    report: TrainReport,
}

impl TrainSocket {
    /// Binds a socket; port 0 asks for any free one. At the wildcard of IPv6 it has datagrams of both
    /// families, unless it is connected or of a group; addresses of IPv4 are such on either side.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn bind(local: SocketAddr, options: &TrainOptions) -> io::Result<Self> {
        Self::by_calls(bound(local, options)?, options)
    }

    /// A socket around one that is bound, of which nobody else receives. What binds in `options` has no
    /// effect.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn around(socket: UdpSocket, options: &TrainOptions) -> io::Result<Self> {
        Self::by_calls(given(socket, options)?, options)
    }

    fn by_calls(bound: (Socket, SocketAddr), options: &TrainOptions) -> io::Result<Self> {
        let memory = vec![0; options.memory_bytes()];
        let way = |_: &Socket| -> Result<Way, RingError> {
            Ok(Way::Calls { incoming: Box::new(Coalesced::new()), runs: RUNS_AT_FIRST, memory })
        };
        Ok(Self::prepare(bound, options, way)?)
    }

    /// Binds a socket whose datagrams come by a completion ring; port 0 asks for any free one.
    ///
    /// The ring is no thread's: whoever calls receives. The kernel completes on the thread that looks,
    /// which a wait on [`fd`](Self::fd) does not disturb.
    ///
    /// # Errors
    /// [`RingError`] tells the socket's troubles from those of the ring.
    pub fn bind_on_ring(
        local: SocketAddr,
        options: &TrainOptions,
        ring: &RingOptions,
    ) -> Result<Self, RingError> {
        Self::by_ring(bound(local, options).map_err(RingError::Socket)?, options, ring)
    }

    /// The same around a socket that is bound, of which nobody else receives. What binds in `options`
    /// has no effect.
    ///
    /// # Errors
    /// [`RingError`] tells the socket's troubles from those of the ring.
    pub fn around_on_ring(
        socket: UdpSocket,
        options: &TrainOptions,
        ring: &RingOptions,
    ) -> Result<Self, RingError> {
        Self::by_ring(given(socket, options).map_err(RingError::Socket)?, options, ring)
    }

    fn by_ring(
        bound: (Socket, SocketAddr),
        options: &TrainOptions,
        ring: &RingOptions,
    ) -> Result<Self, RingError> {
        Self::prepare(bound, options, |socket| {
            let (way, poller) = (ring.sends, ring.poller);
            let ring = || {
                let mut shape = RingShape::default();
                let mut outbox = None;
                if way != RingSends::Calls {
                    let zero_copy = way == RingSends::ZeroCopy;
                    let (batch_size, bytes) = (options.batch_size(), options.datagram_bytes());
                    outbox = Some(Outbox::new(batch_size, bytes, zero_copy)?);
                    // At most 256.
                    shape.sends = batch_size as u32;
                }
                if poller.is_some() {
                    // Only one without a poller says at once whether the kernel knows the request.
                    drop(TrainRing::new(socket.as_fd(), RingShape::default(), None)?);
                }
                shape.poll = poller.map(|RingPoller { core, idle }| {
                    let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX).max(1);
                    (core.and_then(|core| u32::try_from(core).ok()), idle)
                });
                TrainRing::new(socket.as_fd(), shape, outbox)
            };
            let ring = Box::new(ring().map_err(RingError::Ring)?);
            let bytes = if way == RingSends::Calls { options.memory_bytes() } else { 0 };
            Ok(Way::Ring { ring, memory: vec![0; bytes] })
        })
    }

    /// Prepares the socket, and then what moves its datagrams.
    fn prepare(
        (socket, local): (Socket, SocketAddr),
        options: &TrainOptions,
        way: impl FnOnce(&Socket) -> Result<Way, RingError>,
    ) -> Result<Self, RingError> {
        // Of a socket that somebody else bound too.
        let has_both = local.is_ipv6() && !socket.only_v6().map_err(RingError::Socket)?;
        let offload =
            |done: io::Result<()>| if done.is_ok() { Offload::On } else { Offload::Refused };
        let busy_poll = options.busy_poll.map(|time| {
            let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
            sys::busy_poll(socket.as_fd(), micros)
        });
        let busy_poll_errno = match &busy_poll {
            Some(Err(error)) => error.raw_os_error(),
            _ => None,
        };
        let report = TrainReport {
            receive_buffer_bytes: socket.recv_buffer_size().unwrap_or(0),
            send_buffer_bytes: socket.send_buffer_size().unwrap_or(0),
            segmentation: offload(sys::can_segment(socket.as_fd())),
            coalescing: offload(sys::coalesce(socket.as_fd())),
            busy_poll: busy_poll.map_or(Offload::Off, offload),
            busy_poll_errno,
            ..TrainReport::default()
        };
        let way = way(&socket)?;
        let batch_size = options.batch_size();
        Ok(Self {
            socket,
            local,
            names: match options.connect {
                Some(_) => Names::None,
                None if has_both => Names::Mapped,
                None => Names::Each,
            },
            headers: Headers::new(),
            way,
            datagram_bytes_max: options.datagram_bytes(),
            batch_size,
            filled: 0,
            trains: Vec::with_capacity(batch_size),
            gone: 0,
            datagrams: 0,
            is_blocked: false,
            report,
        })
    }

    /// The address it is bound to.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The socket itself, with or without a ring.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What becomes readable when there is something to receive; on a ring, after
    /// [`may_wait`](Self::may_wait) said so.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Calls { .. } => self.socket.as_fd(),
            Way::Ring { ring, .. } => ring.fd(),
        }
    }

    /// What it got and did so far.
    pub fn report(&self) -> TrainReport {
        let mut report = self.report;
        // What a kernel does not tell is 0.
        let [queued, dropped] = sys::queue(self.socket.as_fd()).unwrap_or_default();
        report.queued_bytes_max = report.queued_bytes_max.max(queued as usize);
        report.dropped = dropped.into();
        report.napi_id = sys::napi_id(self.socket.as_fd()).unwrap_or_default();
        if let Way::Ring { ring, .. } = &self.way
            && let Some(outbox) = ring.outbox_ref()
        {
            let stats = outbox.stats();
            report.datagrams_out += stats.datagrams;
            (report.zero_copy, report.zero_copy_copied) = (stats.zero_copy, stats.copied);
        }
        report
    }

    /// Datagrams that wait to be sent, or for the memory of those before them.
    pub const fn waiting(&self) -> usize {
        if self.is_blocked { 1 } else { self.datagrams }
    }

    /// Whether no more datagrams can be pushed before some are sent.
    pub const fn is_full(&self) -> bool {
        self.is_blocked || self.datagrams >= self.batch_size
    }

    /// Where the next datagram is written; empty when the batch is full.
    pub fn room(&mut self) -> &mut [u8] {
        let bytes = if self.is_full() { 0 } else { self.datagram_bytes_max };
        let memory: &mut [u8] = match &mut self.way {
            Way::Calls { memory, .. } => memory,
            Way::Ring { ring, memory } => match ring.outbox() {
                Some(outbox) => outbox.memory(),
                None => memory,
            },
        };
        memory.get_mut(self.filled..self.filled + bytes).unwrap_or_default()
    }

    /// Appends the datagram whose `bytes` were written to the [`room`](Self::room).
    pub fn push(&mut self, to: SocketAddr, bytes: usize) {
        let bytes = bytes.min(self.room().len());
        let from = self.filled;
        self.filled += bytes;
        self.datagrams += 1;
        if self.report.segmentation == Offload::On
            && let Some(train) = self.trains.get_mut(self.gone..).and_then(<[Train]>::last_mut)
            && train.to == to
            && bytes > 0
            && bytes <= train.segment
            && train.bytes.is_multiple_of(train.segment)
            && train.bytes / train.segment < RUN_DATAGRAMS_MAX
            && train.bytes + bytes <= RUN_BYTES_MAX
        {
            train.bytes += bytes;
            return;
        }
        self.trains.push(Train { to, from, bytes, segment: bytes });
    }

    /// Sends what waits; false when the kernel has no room for the rest, which goes on waiting. What
    /// the kernel refuses for good is dropped and counted.
    ///
    /// # Errors
    /// The socket is of no further use.
    pub fn send(&mut self) -> io::Result<bool> {
        if let Way::Ring { ring, .. } = &mut self.way
            && ring.outbox().is_some()
        {
            return self.send_by_ring();
        }
        let Self { way: Way::Calls { memory, .. } | Way::Ring { memory, .. }, .. } = self;
        let memory = std::mem::take(memory);
        let sent = self.send_by_calls(&memory);
        let Self {
            way: Way::Calls { memory: place, .. } | Way::Ring { memory: place, .. }, ..
        } = self;
        *place = memory;
        sent
    }

    fn send_by_calls(&mut self, memory: &[u8]) -> io::Result<bool> {
        while let Some(trains) = self.trains.get(self.gone..).filter(|trains| !trains.is_empty()) {
            let trains = trains.get(..CALL_MESSAGES_MAX).unwrap_or(trains);
            self.report.calls_out += 1;
            let fd = self.socket.as_fd();
            match self.headers.send_trains(fd, memory, trains, self.names) {
                Ok(count) => self.has_gone(count, true),
                Err(error) => match Failure::of_send(&error) {
                    Failure::Again => {
                        self.report.full_sends += 1;
                        return Ok(false);
                    }
                    Failure::Interrupted => {}
                    Failure::Passing => self.first_refused(&error),
                    Failure::Fatal => return Err(error),
                },
            }
        }
        self.trains.clear();
        (self.gone, self.filled, self.datagrams) = (0, 0, 0);
        Ok(true)
    }

    fn send_by_ring(&mut self) -> io::Result<bool> {
        self.look_at_sends()?;
        let Way::Ring { ring, .. } = &mut self.way else { return Ok(true) };
        if self.is_blocked || self.trains.is_empty() {
            self.is_blocked = !ring.has_room()?;
            return Ok(!self.is_blocked);
        }
        self.report.calls_out += 1;
        let sent = ring.send(&self.trains, self.names)?;
        let unsent = self.trains.get(sent..).unwrap_or_default();
        self.report.send_errors += unsent.iter().map(Train::datagrams).sum::<u64>();
        self.trains.clear();
        (self.gone, self.filled, self.datagrams) = (0, 0, 0);
        self.look_at_sends()?;
        let Way::Ring { ring, .. } = &mut self.way else { return Ok(true) };
        self.is_blocked = !ring.has_room()?;
        Ok(!self.is_blocked)
    }

    /// What the ring could not send goes by calls; what the kernel then refuses is dropped.
    fn look_at_sends(&mut self) -> io::Result<()> {
        let Self { way: Way::Ring { ring, .. }, headers, socket, names, report, .. } = self else {
            return Ok(());
        };
        ring.has_room()?;
        let Some(outbox) = ring.outbox() else { return Ok(()) };
        while let Some((failed, train, memory)) = outbox.failed() {
            let error = io::Error::from_raw_os_error(failed.errno);
            let is_joined = train.bytes > train.segment;
            let may_again = match Failure::of_send(&error) {
                Failure::Fatal => return Err(error),
                Failure::Again | Failure::Interrupted => true,
                Failure::Passing => is_joined || failed.errno == libc::ECANCELED,
            };
            if is_joined && is_no_splitter(&error) {
                report.segmentation = Offload::Refused;
            }
            for single in train.singles().filter(|_| may_again) {
                match headers.send_trains(socket.as_fd(), memory, &[single], *names) {
                    Ok(count) => report.datagrams_out += count as u64,
                    Err(_) => report.send_errors += 1,
                }
            }
            report.send_errors += if may_again { 0 } else { train.datagrams() };
            outbox.forget(failed);
        }
        Ok(())
    }

    fn has_gone(&mut self, count: usize, is_sent: bool) {
        let gone = self.trains.get(self.gone..).unwrap_or_default().iter().take(count);
        let datagrams: u64 = gone.map(Train::datagrams).sum();
        self.gone += count;
        if is_sent {
            self.report.datagrams_out += datagrams;
        } else {
            self.report.send_errors += datagrams;
        }
    }

    /// The kernel refuses the first train: a single datagram is dropped, and of a longer one the
    /// datagrams are sent one by one, from now on if it cannot split any.
    fn first_refused(&mut self, error: &io::Error) {
        let Some(train) = self.trains.get(self.gone).copied() else { return };
        if train.bytes <= train.segment {
            return self.has_gone(1, false);
        }
        if is_no_splitter(error) {
            self.report.segmentation = Offload::Refused;
        }
        self.trains.splice(self.gone..=self.gone, train.singles());
    }

    /// One receive call, when all that came before was taken; whether anything came.
    ///
    /// # Errors
    /// The socket is of no further use.
    pub fn receive(&mut self) -> io::Result<bool> {
        if !self.is_taken() {
            return Ok(true);
        }
        let Self { way, headers, socket, report, .. } = self;
        report.calls_in += 1;
        let mut was_full = false;
        let received = match way {
            Way::Calls { incoming, runs, .. } => {
                // When they came is the caller's to know.
                let filled = incoming.fill_some(headers, socket.as_fd(), Timestamp::START, *runs);
                // Headers are prepared for each run that is asked for: few while little comes.
                was_full = filled.is_ok() && *runs == RUNS_MAX && !incoming.was_short();
                let is_more = filled.is_ok() && !incoming.was_short();
                *runs = if is_more { RUNS_MAX } else { RUNS_AT_FIRST };
                report.receive_errors += incoming.take_lost();
                filled.map(|()| !incoming.is_empty())
            }
            Way::Ring { ring, .. } => {
                let received = ring.receive();
                report.receive_errors += ring.take_lost();
                received
            }
        };
        if let Ok(true) = received {
            report.finds += 1;
            if was_full || report.finds.is_multiple_of(FINDS_PER_LOOK) {
                let [queued, _] = sys::queue(socket.as_fd()).unwrap_or_default();
                report.queued_bytes_max = report.queued_bytes_max.max(queued as usize);
            }
        }
        received.or_else(|error| match Failure::of_receive(&error) {
            Failure::Again | Failure::Interrupted => Ok(false),
            Failure::Passing => {
                report.receive_errors += 1;
                Ok(false)
            }
            Failure::Fatal => Err(error),
        })
    }

    /// Whether what the last [`receive`](Self::receive) brought has been taken.
    pub fn is_taken(&self) -> bool {
        match &self.way {
            Way::Calls { incoming, .. } => incoming.is_empty(),
            Way::Ring { ring, .. } => ring.is_taken(),
        }
    }

    /// Whether all that came was taken, and what comes from now on makes [`fd`](Self::fd) readable.
    ///
    /// # Errors
    /// The socket is of no further use.
    pub fn may_wait(&mut self) -> io::Result<bool> {
        match &mut self.way {
            Way::Calls { incoming, .. } => Ok(incoming.is_empty()),
            Way::Ring { ring, .. } => ring.may_wait(),
        }
    }

    /// The next datagram of those that came, and whom it came from.
    pub fn take_next(&mut self) -> Option<(SocketAddr, &[u8])> {
        let (peer, bytes) = match &mut self.way {
            Way::Calls { incoming, .. } => {
                let (peer, _, _, bytes) = incoming.take_next()?;
                (peer, bytes)
            }
            Way::Ring { ring, .. } => ring.take_next()?,
        };
        self.report.datagrams_in += 1;
        Some((peer, bytes))
    }
}

/// Datagrams for which a socket's receive buffer had no room.
///
/// # Errors
/// What the operating system says.
pub fn datagrams_dropped(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let [_, dropped] = sys::queue(socket)?;
    Ok(dropped.into())
}

/// Whether the kernel or the device cannot split trains at all.
fn is_no_splitter(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT))
}

impl fmt::Debug for TrainSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainSocket").field("local", &self.local).finish_non_exhaustive()
    }
}
