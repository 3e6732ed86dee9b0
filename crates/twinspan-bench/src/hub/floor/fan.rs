//! The bare way to send each datagram to another address: one `sendmmsg` for many.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_net::BareSocket;
use twinspan_net::shm::End;
use twinspan_provider::{UdpError, UdpOptions};

use super::{Bare, ByteCount, Plan};
use crate::error::BenchError;
use crate::hub::peer::Counter;

/// Datagrams of one system call.
pub(super) const BATCH_DATAGRAMS: usize = 64;

pub(super) struct Fan {
    /// One for who sends; as many as there are destinations for who receives.
    sockets: Vec<BareSocket>,
    batch: DatagramBatch,
    host: std::net::IpAddr,
    destinations: Vec<SocketAddr>,
}

fn ended(error: UdpError) -> BenchError {
    BenchError::Os(std::io::Error::other(error))
}

impl Fan {
    pub(super) fn new(plan: &Plan, end: End) -> Result<Self, BenchError> {
        let (own, host, count) = match end {
            End::First => (plan.net.first, plan.net.second, 1),
            End::Second => (plan.net.second, plan.net.first, plan.options.destinations),
        };
        let bound = (0..count).map(|_| BareSocket::bind((own, 0).into(), &socket_options()));
        let sockets: Vec<_> = bound.collect::<Result<_, _>>()?;
        let batch = DatagramBatch::new(BATCH_DATAGRAMS);
        Ok(Self { sockets, batch, host, destinations: Vec::new() })
    }
}

pub(super) fn socket_options() -> UdpOptions {
    UdpOptions { segment_sends: false, ..UdpOptions::default() }
}

/// Fills a batch with a datagram for each of the next addresses.
pub(super) fn fill<'a>(
    batch: &mut DatagramBatch,
    socket: &BareSocket,
    next: &mut impl Iterator<Item = &'a SocketAddr>,
    message: &[u8],
) {
    while batch.room() > 0 {
        let (Some(peer), Some(mut packet)) = (next.next(), socket.pool().take()) else {
            break;
        };
        // A message of this road fits: its length was refused else.
        let _ = packet.fill(message);
        let datagram = Datagram { peer: *peer, at: Timestamp::START, packet };
        if batch.push(datagram).is_err() {
            break;
        }
    }
}

impl Bare for Fan {
    /// It is measured for throughput alone; this is the end of a turn, which is told by silence.
    fn send(&mut self, _message: &[u8]) -> Result<(), BenchError> {
        Ok(())
    }

    fn take(&mut self, _room: &mut [u8]) -> Result<bool, BenchError> {
        Ok(false)
    }

    fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        let Self { sockets, batch, destinations, .. } = self;
        let Some(socket) = sockets.first_mut() else { return Ok(()) };
        let began = Instant::now();
        let mut next = destinations.iter().cycle();
        while began.elapsed() < time {
            fill(batch, socket, &mut next, message);
            socket.send(batch).map_err(ended)?;
        }
        batch.clear();
        Ok(())
    }

    fn count(&mut self, size: usize, counter: &mut Counter) -> Result<(), BenchError> {
        let mut counted = ByteCount::new();
        let Self { sockets, batch, .. } = self;
        while !counted.patience().is_zero() {
            for socket in &mut *sockets {
                let count = socket.recv(batch).map_err(ended)?;
                if count > 0 {
                    counted.came(count * size);
                    batch.clear();
                }
            }
        }
        counted.tell(size, counter);
        Ok(())
    }

    fn ports(&self) -> Result<Vec<u16>, BenchError> {
        Ok(self.sockets.iter().map(|socket| socket.local_addr().port()).collect())
    }

    fn aim(&mut self, ports: &[u16]) {
        self.destinations = ports.iter().map(|port| SocketAddr::new(self.host, *port)).collect();
    }
}
