//! The floor of each road: what it is made of, with nothing around it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use twinspan_net::shm::{BareRing, End, sleep_on};
use twinspan_net::{TrainOptions, TrainSocket};

use super::peer::{Counter, number, number_of};
use super::{HubOptions, HubRoad, HubWait, Mode, Plan};
use crate::error::BenchError;

/// How long nothing comes before a turn over a network is over.
pub(super) const SILENCE: Duration = Duration::from_millis(250);
/// Payload of a datagram of the floor.
const DATAGRAM_BYTES: usize = 1_200;

/// The floor of a road.
pub(super) enum Floor {
    /// A bare ring in shared memory.
    Ring(BareRing),
    /// A bare UDP socket: one datagram for a message where latency is measured, trains where
    /// throughput is.
    Udp { one: UdpSocket, many: Box<TrainSocket>, other: SocketAddr, sleeps: bool },
}

/// A socket that does not wait, connected to the other end.
fn socket(own: u16, other: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, own))?;
    socket.connect((Ipv4Addr::LOCALHOST, other))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Floor {
    /// One end of it.
    pub(super) fn meet(plan: &Plan, end: End) -> Result<Self, BenchError> {
        let options = &plan.options;
        if options.road == HubRoad::Shm {
            return Ok(Self::Ring(BareRing::meet(&plan.floor_name(), end, options.size)?));
        }
        let [a, b, c, d] = plan.ports;
        let (one, many) = match end {
            End::First => ((a, b), (c, d)),
            End::Second => ((b, a), (d, c)),
        };
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let trains = TrainOptions { batch_size: 64, ..TrainOptions::default() };
        Ok(Self::Udp {
            one: socket(one.0, one.1)?,
            many: Box::new(TrainSocket::bind(local(many.0), &trains)?),
            other: local(many.1),
            sleeps: matches!(options.wait, HubWait::Block | HubWait::Async),
        })
    }

    fn send(&mut self, message: &[u8]) {
        match self {
            Self::Ring(ring) => {
                while !ring.try_send(message) {
                    std::hint::spin_loop();
                }
            }
            // What finds no room is lost, as on any network.
            Self::Udp { one, .. } => drop(one.send(message)),
        }
    }

    /// Waits for a message; false when none came for long.
    fn take(&mut self, room: &mut [u8]) -> bool {
        match self {
            Self::Ring(ring) => {
                while !ring.try_take(room) {
                    std::hint::spin_loop();
                }
                true
            }
            Self::Udp { one, sleeps, .. } => {
                let mut began = None;
                loop {
                    for _ in 0..64 {
                        if one.recv(room).is_ok() {
                            return true;
                        }
                        if *sleeps {
                            sleep_on(one.as_fd(), Some(SILENCE));
                        }
                    }
                    if began.get_or_insert_with(Instant::now).elapsed() >= 4 * SILENCE {
                        return false;
                    }
                }
            }
        }
    }

    /// There and back; whether it came back.
    pub(super) fn trip(&mut self, message: &[u8], room: &mut [u8]) -> bool {
        self.send(message);
        self.take(room)
    }

    /// Sends for a while; the last message says so.
    pub(super) fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        let began = Instant::now();
        if let Self::Udp { many, other, .. } = self {
            while began.elapsed() < time {
                while !many.is_full() {
                    let room = many.room();
                    if let Some(room) = room.get_mut(..message.len().min(DATAGRAM_BYTES)) {
                        room.copy_from_slice(message.get(..room.len()).unwrap_or_default());
                    }
                    many.push(*other, DATAGRAM_BYTES);
                }
                many.send()?;
            }
            return Ok(());
        }
        let mut next = 0_u64;
        while next & 63 != 0 || began.elapsed() < time {
            number(message, next);
            self.send(message);
            next += 1;
        }
        self.end(message);
        Ok(())
    }

    /// Says that a turn is over.
    pub(super) fn end(&mut self, message: &mut [u8]) {
        number(message, u64::MAX);
        self.send(message);
    }

    /// The other side of a turn: sends back what comes, or counts it.
    pub(super) fn answer(
        &mut self,
        options: &HubOptions,
        room: &mut [u8],
    ) -> Result<Counter, BenchError> {
        let mut counter = Counter::new();
        if let (Self::Udp { many, .. }, Mode::Throughput) = (&mut *self, options.mode) {
            count_bytes(many, options.size, &mut counter)?;
            return Ok(counter);
        }
        while self.take(room) && counter.count(number_of(room), 0) {
            if options.mode == Mode::Latency {
                self.send(room);
            }
        }
        Ok(counter)
    }
}

/// Counts what comes until nothing does, in messages of `size` bytes.
fn count_bytes(
    socket: &mut TrainSocket,
    size: usize,
    counter: &mut Counter,
) -> Result<(), BenchError> {
    let (mut bytes, mut began, mut last) = (0, None, Instant::now());
    loop {
        if socket.receive()? {
            while let Some((_, datagram)) = socket.take_next() {
                bytes += datagram.len() as u64;
            }
            last = Instant::now();
            began.get_or_insert(last);
        } else if last.elapsed() >= if began.is_some() { SILENCE } else { 8 * SILENCE } {
            break;
        }
    }
    let seconds = began.map_or(0.0, |began| last.duration_since(began).as_secs_f64());
    counter.of_bytes(bytes / size as u64, seconds);
    Ok(())
}
