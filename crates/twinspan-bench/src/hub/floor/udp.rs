//! Bare UDP sockets: one datagram for a message where latency is measured, trains where throughput is.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use twinspan_net::shm::End;
use twinspan_net::{TrainOptions, TrainSocket};

use super::{Bare, ByteCount, Plan, ends, wait_for};
use crate::error::BenchError;
use crate::hub::options::HubWait;
use crate::hub::peer::Counter;

/// Payload of a datagram of trains.
const DATAGRAM_BYTES: usize = 1_200;
/// The longest message that goes in one datagram.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_000;

pub(super) struct Datagrams {
    one: UdpSocket,
    many: TrainSocket,
    other: SocketAddr,
    wait: HubWait,
}

impl Datagrams {
    pub(super) fn new(plan: &Plan, end: End) -> Result<Self, BenchError> {
        let [a, b, c, d] = plan.ports;
        let (own, other) = ends(plan, end, [c, d]);
        let many = TrainSocket::bind(own, &train_options())?;
        Ok(Self { one: socket(plan, end, [a, b])?, many, other, wait: plan.options.wait })
    }
}

pub(super) fn train_options() -> TrainOptions {
    TrainOptions { batch_size: 64, ..TrainOptions::default() }
}

/// Writes as many datagrams to an address as a socket takes at once, and says how many.
pub(super) fn fill(many: &mut TrainSocket, to: SocketAddr, message: &[u8]) -> usize {
    let mut count = 0;
    while !many.is_full() {
        let room = many.room();
        if let Some(room) = room.get_mut(..message.len().min(DATAGRAM_BYTES)) {
            room.copy_from_slice(message.get(..room.len()).unwrap_or_default());
        }
        many.push(to, DATAGRAM_BYTES);
        count += 1;
    }
    count
}

/// A socket that does not wait, connected to the other end.
pub(super) fn socket(plan: &Plan, end: End, ports: [u16; 2]) -> Result<UdpSocket, BenchError> {
    let (own, other) = ends(plan, end, ports);
    let socket = UdpSocket::bind(own)?;
    socket.connect(other)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Bare for Datagrams {
    fn send(&mut self, message: &[u8]) -> Result<(), BenchError> {
        // What is longer than a datagram goes in several, and what finds no room is lost, as on any
        // network.
        for part in message.chunks(DATAGRAM_BYTES_MAX) {
            let _ = self.one.send(part);
        }
        Ok(())
    }

    fn take(&mut self, room: &mut [u8]) -> Result<bool, BenchError> {
        let Self { one, wait, .. } = self;
        for part in room.chunks_mut(DATAGRAM_BYTES_MAX) {
            if wait_for(*wait, one.as_fd(), || one.recv(part).ok()).is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        let Self { many, other, .. } = self;
        let began = Instant::now();
        while began.elapsed() < time {
            fill(many, *other, message);
            many.send()?;
        }
        Ok(())
    }

    fn count(&mut self, size: usize, counter: &mut Counter) -> Result<(), BenchError> {
        let mut counted = ByteCount::new();
        while !counted.patience().is_zero() {
            if self.many.receive()? {
                let mut bytes = 0;
                while let Some((_, datagram)) = self.many.take_next() {
                    bytes += datagram.len();
                }
                counted.came(bytes);
            }
        }
        counted.tell(size, counter);
        Ok(())
    }
}
