//! The floor of each road: what it is made of, with nothing around it.

mod fan;
mod parts;
mod quic;
mod task;
mod tcp;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use twinspan_net::shm::{BareRing, End, sleep_on, spin, spin_limit};

use super::options::{HubOptions, HubRoad, HubWait, Mode};
use super::peer::{Arrived, Counter, Plan, number, number_of};
use crate::error::BenchError;
pub(super) use parts::{calls_ns, memory_ns};
pub(super) use quic::Certificate;

/// How long nothing comes before a turn over a network is over.
pub(super) const SILENCE: Duration = Duration::from_millis(250);
/// How long the first message of a turn may take.
const FIRST_MAX: Duration = Duration::from_secs(2);
/// How long one end waits for the other.
const MEET_MAX: Duration = Duration::from_secs(10);
/// Messages between two looks at the clock.
const MESSAGES_PER_CLOCK: u64 = 64;
/// Bytes that a stream is given at once: where throughput is measured, messages are what they come to.
const STREAM_BYTES: usize = 64 << 10;

/// What stands on both sides of a road and moves bytes.
pub(super) trait Bare {
    /// Hands a message over.
    fn send(&mut self, message: &[u8]) -> Result<(), BenchError>;

    /// Waits for a message; false when none came for long.
    fn take(&mut self, room: &mut [u8]) -> Result<bool, BenchError>;

    /// There and back; whether it came back.
    fn trip(&mut self, message: &[u8], room: &mut [u8]) -> Result<bool, BenchError> {
        self.send(message)?;
        self.take(room)
    }

    /// Sends for a while, as much as goes.
    fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError>;

    /// Counts what comes until nothing does, in messages of `size` bytes.
    fn count(&mut self, size: usize, counter: &mut Counter) -> Result<(), BenchError>;

    /// The ports of this end that the other one has to know.
    fn ports(&self) -> Result<Vec<u16>, BenchError> {
        Ok(Vec::new())
    }

    /// Learns the other end's ports.
    fn aim(&mut self, _ports: &[u16]) {}
}

/// The floor of a road.
pub(super) enum Floor {
    /// A bare ring in shared memory.
    Ring(BareRing),
    /// Sockets.
    Sockets(Box<dyn Bare>),
}

impl Floor {
    /// One end of it.
    pub(super) fn meet(plan: &Plan, end: End) -> Result<Self, BenchError> {
        let options = &plan.options;
        let sockets: Box<dyn Bare> = match options.road {
            HubRoad::Shm => {
                return Ok(Self::Ring(BareRing::meet(&plan.floor_name(), end, options.size)?));
            }
            HubRoad::Udp | HubRoad::Uring if options.destinations > 1 => {
                Box::new(fan::Fan::new(plan, end)?)
            }
            HubRoad::Udp | HubRoad::Uring
                if options.wait == HubWait::Async && options.mode == Mode::Latency =>
            {
                Box::new(task::Tasks::new(plan, end)?)
            }
            HubRoad::Udp | HubRoad::Uring => Box::new(udp::Datagrams::new(plan, end)?),
            HubRoad::Tcp => Box::new(tcp::Stream::meet(plan, end)?),
            HubRoad::Quic if options.best_effort => {
                Box::new(quic::QuinnDatagrams::new(quic::Quinn::meet(plan, end)?)?)
            }
            HubRoad::Quic => Box::new(quic::Quinn::meet(plan, end)?),
        };
        Ok(Self::Sockets(sockets))
    }

    /// The ports of this end that the other one has to know.
    pub(super) fn ports(&self) -> Result<Vec<u16>, BenchError> {
        match self {
            Self::Ring(_) => Ok(Vec::new()),
            Self::Sockets(sockets) => sockets.ports(),
        }
    }

    /// Learns the other end's ports.
    pub(super) fn aim(&mut self, ports: &[u16]) {
        if let Self::Sockets(sockets) = self {
            sockets.aim(ports);
        }
    }

    /// There and back; whether it came back.
    #[inline]
    pub(super) fn trip(&mut self, message: &[u8], room: &mut [u8]) -> Result<bool, BenchError> {
        match self {
            Self::Ring(ring) => {
                send_on(ring, message);
                take_from(ring, room);
                Ok(true)
            }
            Self::Sockets(sockets) => sockets.trip(message, room),
        }
    }

    /// Sends for a while; the last message of a ring says so, sockets fall silent.
    pub(super) fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        let ring = match self {
            Self::Ring(ring) => ring,
            Self::Sockets(sockets) => return sockets.pour(time, message),
        };
        let began = Instant::now();
        let mut next = 0_u64;
        while !next.is_multiple_of(MESSAGES_PER_CLOCK) || began.elapsed() < time {
            number(message, next);
            send_on(ring, message);
            next += 1;
        }
        self.end(message)
    }

    /// Says that a turn of single messages is over.
    pub(super) fn end(&mut self, message: &mut [u8]) -> Result<(), BenchError> {
        number(message, u64::MAX);
        match self {
            Self::Ring(ring) => {
                send_on(ring, message);
                Ok(())
            }
            Self::Sockets(sockets) => sockets.send(message),
        }
    }

    /// The other side of a turn: sends back what comes, or counts it.
    pub(super) fn answer(
        &mut self,
        options: &HubOptions,
        room: &mut [u8],
        counter: &mut Counter,
    ) -> Result<(), BenchError> {
        match self {
            Self::Ring(ring) => loop {
                take_from(ring, room);
                if !counter.count(Arrived::unread(number_of(room))) {
                    return Ok(());
                }
                if options.is_latency() {
                    send_on(ring, room);
                }
            },
            Self::Sockets(sockets) if options.is_latency() => {
                while sockets.take(room)? && counter.count(Arrived::unread(number_of(room))) {
                    sockets.send(room)?;
                }
                Ok(())
            }
            Self::Sockets(sockets) => sockets.count(options.size, counter),
        }
    }

    /// The same bytes through one place that both cores keep hot, there and back; nothing where there
    /// is no such place.
    pub(super) fn memory_trip(&mut self, message: &[u8], room: &mut [u8]) {
        if let Self::Ring(ring) = self {
            ring.hand(message);
            while !ring.try_grasp(room) {
                std::hint::spin_loop();
            }
        }
    }

    /// Says that such a turn is over.
    pub(super) fn memory_end(&mut self, message: &mut [u8]) {
        number(message, u64::MAX);
        if let Self::Ring(ring) = self {
            ring.hand(message);
        }
    }

    /// The other side of it.
    pub(super) fn memory_answer(&mut self, room: &mut [u8], counter: &mut Counter) {
        let Self::Ring(ring) = self else { return };
        loop {
            while !ring.try_grasp(room) {
                std::hint::spin_loop();
            }
            if !counter.count(Arrived::unread(number_of(room))) {
                return;
            }
            ring.hand(room);
        }
    }
}

#[inline]
fn send_on(ring: &mut BareRing, message: &[u8]) {
    while !ring.try_send(message) {
        std::hint::spin_loop();
    }
}

#[inline]
fn take_from(ring: &mut BareRing, room: &mut [u8]) {
    while !ring.try_take(room) {
        std::hint::spin_loop();
    }
}

/// Looks as the ends of a hub do: it spins, spins for a while and sleeps, or sleeps. `None` when
/// nothing was found for long.
fn wait_for<R>(
    wait: HubWait,
    fd: BorrowedFd<'_>,
    mut look: impl FnMut() -> Option<R>,
) -> Option<R> {
    // The clock is asked for only when the first look found nothing.
    if let Some(found) = look() {
        return Some(found);
    }
    let end = Instant::now() + 4 * SILENCE;
    loop {
        let limit = match wait {
            HubWait::Spin => None,
            HubWait::Adaptive => Some(spin_limit()),
            HubWait::Block | HubWait::Async => Some(Duration::ZERO),
        };
        let found =
            if limit == Some(Duration::ZERO) { look() } else { spin(limit, Some(end), &mut look) };
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        if limit.is_some() {
            sleep_on(fd, Some(SILENCE));
        }
    }
}

/// Counts bytes until none come, as messages of `size`.
struct ByteCount {
    bytes: u64,
    began: Option<Instant>,
    last: Instant,
}

impl ByteCount {
    fn new() -> Self {
        Self { bytes: 0, began: None, last: Instant::now() }
    }

    /// So many came.
    fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.last = Instant::now();
        self.began.get_or_insert(self.last);
    }

    /// How long is still waited for more; zero when it is over.
    fn patience(&self) -> Duration {
        let patience = if self.began.is_some() { SILENCE } else { FIRST_MAX };
        patience.saturating_sub(self.last.elapsed())
    }

    fn tell(&self, size: usize, counter: &mut Counter) {
        let seconds = self.began.map_or(0.0, |began| self.last.duration_since(began).as_secs_f64());
        counter.of_bytes(self.bytes / size.max(1) as u64, seconds);
    }
}

/// Where both ends of something are, seen from one of them: its own address, and the other's.
fn ends(plan: &Plan, end: End, ports: [u16; 2]) -> (SocketAddr, SocketAddr) {
    let first = SocketAddr::new(plan.net.first, ports[0]);
    let second = SocketAddr::new(plan.net.second, ports[1]);
    match end {
        End::First => (first, second),
        End::Second => (second, first),
    }
}

/// Does something again and again until it works, for as long as one end waits for the other.
fn patiently<R>(mut work: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    let began = Instant::now();
    loop {
        match work() {
            Err(_) if began.elapsed() < MEET_MAX => std::thread::sleep(Duration::from_millis(5)),
            done => return done,
        }
    }
}
