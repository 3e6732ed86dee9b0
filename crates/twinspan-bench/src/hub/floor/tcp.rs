//! A bare TCP connection that gathers nothing.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use twinspan_net::shm::{End, sleep_on};

use super::{Bare, ByteCount, Plan, STREAM_BYTES, ends, patiently, wait_for};
use crate::error::BenchError;
use crate::hub::options::HubWait;
use crate::hub::peer::Counter;

pub(super) struct Stream {
    stream: TcpStream,
    wait: HubWait,
    room: Vec<u8>,
}

impl Stream {
    pub(super) fn meet(plan: &Plan, end: End) -> Result<Self, BenchError> {
        let [port, ..] = plan.ports;
        let (own, other) = ends(plan, end, [port, port]);
        let stream = match end {
            End::First => {
                let listener = TcpListener::bind(own)?;
                // The other process ends where this one does; one that never comes is not waited for.
                listener.set_nonblocking(true)?;
                patiently(|| listener.accept())?.0
            }
            End::Second => patiently(|| TcpStream::connect(other))?,
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, wait: plan.options.wait, room: vec![0; STREAM_BYTES] })
    }

    /// Writes all of it; looks again while there is no room.
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Bare for Stream {
    fn send(&mut self, message: &[u8]) -> Result<(), BenchError> {
        Ok(self.write(message)?)
    }

    fn take(&mut self, room: &mut [u8]) -> Result<bool, BenchError> {
        let mut stream = &self.stream;
        let fd = self.stream.as_fd();
        let mut at = 0;
        while at < room.len() {
            let rest = room.get_mut(at..).unwrap_or_default();
            let found = wait_for(self.wait, fd, || match stream.read(rest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                other => Some(other),
            });
            match found.transpose()? {
                None => return Ok(false),
                Some(0) => return Err(BenchError::Ended { name: "floor" }),
                Some(count) => at += count,
            }
        }
        Ok(true)
    }

    fn pour(&mut self, time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        let bytes = message.repeat(STREAM_BYTES.div_ceil(message.len().max(1)));
        let began = Instant::now();
        while began.elapsed() < time {
            self.write(&bytes)?;
        }
        Ok(())
    }

    fn count(&mut self, size: usize, counter: &mut Counter) -> Result<(), BenchError> {
        let mut counted = ByteCount::new();
        loop {
            match self.stream.read(&mut self.room) {
                Ok(0) => return Err(BenchError::Ended { name: "floor" }),
                Ok(count) => counted.came(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let patience = counted.patience();
                    if patience.is_zero() {
                        break;
                    }
                    if self.wait != HubWait::Spin {
                        sleep_on(self.stream.as_fd(), Some(patience));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        counted.tell(size, counter);
        Ok(())
    }
}
