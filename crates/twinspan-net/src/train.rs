//! A UDP socket for trains: datagrams that lie behind each other in one piece of memory, so that they
//! are written where the kernel reads them, and read where it wrote them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::Socket;
use twinspan_core::time::Timestamp;
use twinspan_provider::{Offload, UdpOptions};

use crate::coalesced::{Coalesced, RUNS_MAX};
use crate::port::{Failure, open};
use crate::sys::{
    self, CALL_MESSAGES_MAX, Headers, Names, RUN_BYTES_MAX, RUN_DATAGRAMS_MAX, Train,
};

/// The longest datagram that is written.
const DATAGRAM_BYTES_MAX: usize = 9_216;
/// Datagrams that wait to be sent at most.
const BATCH_MAX: usize = 256;
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
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            buffer_bytes: 4 << 20,
            busy_poll: None,
            connect: None,
            batch_size: 64,
            datagram_bytes_max: 1_200,
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
    incoming: Coalesced,
    /// Runs that the next receive call takes.
    runs: usize,
    /// Where datagrams are written before they are sent.
    memory: Vec<u8>,
    datagram_bytes_max: usize,
    batch_size: usize,
    /// Bytes of the memory that are filled.
    filled: usize,
    trains: Vec<Train>,
    /// Trains that were sent already.
    gone: usize,
    datagrams: usize,
    report: TrainReport,
}

impl TrainSocket {
    /// Binds a socket; port 0 asks for any free one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn bind(local: SocketAddr, options: &TrainOptions) -> io::Result<Self> {
        let udp = UdpOptions {
            receive_buffer_bytes: options.buffer_bytes,
            send_buffer_bytes: options.buffer_bytes,
            ..UdpOptions::default()
        };
        let (socket, bound) = open(local, &udp)?;
        if let Some(peer) = options.connect {
            socket.connect(&peer.into())?;
        }
        let bound = if options.connect.is_some() {
            socket.local_addr()?.as_socket().unwrap_or(bound)
        } else {
            bound
        };
        let offload =
            |done: io::Result<()>| if done.is_ok() { Offload::On } else { Offload::Refused };
        let busy_poll = options.busy_poll.map_or(Offload::Off, |time| {
            let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
            offload(sys::busy_poll(socket.as_fd(), micros))
        });
        let report = TrainReport {
            receive_buffer_bytes: socket.recv_buffer_size().unwrap_or(0),
            send_buffer_bytes: socket.send_buffer_size().unwrap_or(0),
            segmentation: offload(sys::can_segment(socket.as_fd())),
            coalescing: offload(sys::coalesce(socket.as_fd())),
            busy_poll,
            ..TrainReport::default()
        };
        let datagram_bytes_max = options.datagram_bytes_max.clamp(1, DATAGRAM_BYTES_MAX);
        let batch_size = options.batch_size.clamp(1, BATCH_MAX);
        Ok(Self {
            socket,
            local: bound,
            names: if options.connect.is_some() { Names::None } else { Names::Each },
            headers: Headers::new(),
            incoming: Coalesced::new(),
            runs: RUNS_AT_FIRST,
            memory: vec![0; batch_size * datagram_bytes_max],
            datagram_bytes_max,
            batch_size,
            filled: 0,
            trains: Vec::with_capacity(batch_size),
            gone: 0,
            datagrams: 0,
            report,
        })
    }

    /// The address it is bound to.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What becomes readable when there is something to receive.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What it got and did so far.
    pub const fn report(&self) -> TrainReport {
        self.report
    }

    /// Datagrams that wait to be sent.
    pub const fn waiting(&self) -> usize {
        self.datagrams
    }

    /// Whether no more datagrams can be pushed before some are sent.
    pub const fn is_full(&self) -> bool {
        self.datagrams >= self.batch_size
    }

    /// Where the next datagram is written; empty when the batch is full.
    pub fn room(&mut self) -> &mut [u8] {
        let bytes = if self.is_full() { 0 } else { self.datagram_bytes_max };
        self.memory.get_mut(self.filled..self.filled + bytes).unwrap_or_default()
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
        while let Some(trains) = self.trains.get(self.gone..).filter(|trains| !trains.is_empty()) {
            let trains = trains.get(..CALL_MESSAGES_MAX).unwrap_or(trains);
            self.report.calls_out += 1;
            let sent =
                self.headers.send_trains(self.socket.as_fd(), &self.memory, trains, self.names);
            match sent {
                Ok(count) => self.has_gone(count, true),
                Err(error) => match Failure::of_send(&error) {
                    Failure::Again => return Ok(false),
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

    fn has_gone(&mut self, count: usize, is_sent: bool) {
        let gone = self.trains.get(self.gone..).unwrap_or_default().iter().take(count);
        let datagrams: usize =
            gone.map(|train| train.bytes.div_ceil(train.segment.max(1)).max(1)).sum();
        self.gone += count;
        if is_sent {
            self.report.datagrams_out += datagrams as u64;
        } else {
            self.report.send_errors += datagrams as u64;
        }
    }

    /// The kernel refuses the first train: a single datagram is dropped, and of a longer one the
    /// datagrams are sent one by one, from now on if it cannot split any.
    fn first_refused(&mut self, error: &io::Error) {
        let Some(train) = self.trains.get(self.gone).copied() else { return };
        if train.bytes <= train.segment {
            return self.has_gone(1, false);
        }
        if matches!(error.raw_os_error(), Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT)) {
            self.report.segmentation = Offload::Refused;
        }
        let end = train.from + train.bytes;
        let singles = (train.from..end).step_by(train.segment).map(|from| {
            let bytes = train.segment.min(end - from);
            Train { to: train.to, from, bytes, segment: bytes }
        });
        self.trains.splice(self.gone..=self.gone, singles);
    }

    /// One receive call, when all that came before was taken; whether anything came.
    ///
    /// # Errors
    /// The socket is of no further use.
    pub fn receive(&mut self) -> io::Result<bool> {
        if !self.incoming.is_empty() {
            return Ok(true);
        }
        self.report.calls_in += 1;
        let fd = self.socket.as_fd();
        // When they came is the caller's to know.
        let now = Timestamp::START;
        let filled = self.incoming.fill_some(&mut self.headers, fd, now, self.runs);
        match filled {
            Ok(()) => {
                self.report.receive_errors += self.incoming.take_lost();
                // Headers are prepared for each run that is asked for: few while little comes.
                self.runs = if self.incoming.was_short() { RUNS_AT_FIRST } else { RUNS_MAX };
                Ok(!self.incoming.is_empty())
            }
            Err(error) => match Failure::of_receive(&error) {
                Failure::Again | Failure::Interrupted => {
                    self.runs = RUNS_AT_FIRST;
                    Ok(false)
                }
                Failure::Passing => {
                    self.report.receive_errors += 1;
                    Ok(false)
                }
                Failure::Fatal => Err(error),
            },
        }
    }

    /// Whether what the last [`receive`](Self::receive) brought has been taken.
    pub fn is_taken(&self) -> bool {
        self.incoming.is_empty()
    }

    /// The next datagram of those that came, and whom it came from.
    pub fn take_next(&mut self) -> Option<(SocketAddr, &[u8])> {
        let (peer, _, bytes) = self.incoming.take_next()?;
        self.report.datagrams_in += 1;
        Some((peer, bytes))
    }
}

impl fmt::Debug for TrainSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainSocket").field("local", &self.local).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(options: &TrainOptions) -> (TrainSocket, TrainSocket) {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let right = TrainSocket::bind(loopback, options).unwrap();
        let options = TrainOptions { connect: Some(right.local_addr()), ..*options };
        (TrainSocket::bind(loopback, &options).unwrap(), right)
    }

    fn push(socket: &mut TrainSocket, to: SocketAddr, bytes: &[u8]) {
        socket.room()[..bytes.len()].copy_from_slice(bytes);
        socket.push(to, bytes.len());
    }

    fn take(socket: &mut TrainSocket, count: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while all.len() < count {
            if socket.is_taken() {
                socket.receive().unwrap();
            }
            all.extend(std::iter::from_fn(|| socket.take_next().map(|(_, it)| it.to_vec())));
        }
        all
    }

    #[test]
    fn datagrams_of_all_lengths_arrive_as_they_were_written() {
        let (mut left, mut right) = pair(&TrainOptions::default());
        let to = right.local_addr();
        let lengths = [100, 100, 100, 40, 1_200, 1_200, 7, 0, 100, 200];
        let sent: Vec<_> =
            lengths.iter().enumerate().map(|(at, len)| vec![at as u8; *len]).collect();
        sent.iter().for_each(|bytes| push(&mut left, to, bytes));
        assert_eq!(left.waiting(), 10);
        assert!(left.send().unwrap());
        assert_eq!(take(&mut right, 10), sent);
        assert_eq!((left.report().datagrams_out, right.report().datagrams_in), (10, 10));
        if left.report().segmentation == Offload::On {
            assert_eq!(left.report().calls_out, 1);
        }
    }

    #[test]
    fn a_batch_has_its_size_and_no_more() {
        let options = TrainOptions { batch_size: 3, ..TrainOptions::default() };
        let (mut left, mut right) = pair(&options);
        let to = right.local_addr();
        for _ in 0..3 {
            assert!(!left.is_full());
            push(&mut left, to, b"x");
        }
        assert!(left.is_full() && left.room().is_empty());
        assert!(left.send().unwrap() && !left.is_full());
        assert_eq!(take(&mut right, 3).len(), 3);
    }

    #[test]
    fn what_the_kernel_refuses_harms_nothing_behind_it() {
        let (_, mut right) = pair(&TrainOptions::default());
        let loopback = "127.0.0.1:0".parse().unwrap();
        let mut left = TrainSocket::bind(loopback, &TrainOptions::default()).unwrap();
        // Another family: refused at once.
        push(&mut left, "[2001:db8::1]:9".parse().unwrap(), b"a");
        push(&mut left, "[2001:db8::1]:9".parse().unwrap(), b"b");
        push(&mut left, right.local_addr(), b"c");
        assert!(left.send().unwrap());
        assert_eq!(take(&mut right, 1), [b"c"]);
        assert_eq!(left.report().send_errors, 2);
    }

    #[test]
    fn a_socket_goes_to_another_thread() {
        let (mut left, right) = pair(&TrainOptions::default());
        let to = right.local_addr();
        let thread = std::thread::spawn(move || {
            let mut right = right;
            take(&mut right, 1)
        });
        push(&mut left, to, b"hello");
        assert!(left.send().unwrap());
        assert_eq!(thread.join().unwrap(), [b"hello"]);
    }
}
