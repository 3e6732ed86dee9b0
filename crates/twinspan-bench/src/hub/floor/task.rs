//! Bare UDP sockets of tokio, for floors of tasks.

use std::io;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use twinspan_net::shm::End;

use super::udp::socket;
use super::{Bare, Plan, SILENCE};
use crate::error::BenchError;
use crate::hub::peer::{Arrived, Counter};

pub(super) struct Tasks {
    runtime: Runtime,
    socket: UdpSocket,
}

/// What comes; false when nothing does for long.
async fn take(socket: &UdpSocket, room: &mut [u8]) -> io::Result<bool> {
    // A timer for each message would be part of the floor.
    if socket.try_recv(room).is_ok() {
        return Ok(true);
    }
    match timeout(4 * SILENCE, socket.recv(room)).await {
        Ok(came) => came.map(|_| true),
        Err(_) => Ok(false),
    }
}

impl Tasks {
    pub(super) fn new(plan: &Plan, end: End) -> Result<Self, BenchError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let [a, b, ..] = plan.ports;
        let socket = socket(plan, end, [a, b])?;
        let entered = runtime.enter();
        let socket = UdpSocket::from_std(socket)?;
        drop(entered);
        Ok(Self { runtime, socket })
    }
}

impl Bare for Tasks {
    fn send(&mut self, message: &[u8]) -> Result<(), BenchError> {
        let Self { runtime, socket } = self;
        // What finds no room is lost, as on any network.
        let _ = runtime.block_on(socket.send(message));
        Ok(())
    }

    fn take(&mut self, room: &mut [u8]) -> Result<bool, BenchError> {
        let Self { runtime, socket } = self;
        Ok(runtime.block_on(take(socket, room))?)
    }

    fn trip(&mut self, message: &[u8], room: &mut [u8]) -> Result<bool, BenchError> {
        let Self { runtime, socket } = self;
        Ok(runtime.block_on(async {
            let _ = socket.send(message).await;
            take(socket, room).await
        })?)
    }

    /// Tasks are measured for latency alone: `Floor::meet` gives streams of datagrams their trains.
    fn pour(&mut self, _time: Duration, message: &mut [u8]) -> Result<(), BenchError> {
        self.send(message)
    }

    fn count(&mut self, size: usize, counter: &mut Counter) -> Result<(), BenchError> {
        let mut room = vec![0; size];
        while self.take(&mut room)? {
            counter.count(Arrived::unread(super::number_of(&room)));
        }
        Ok(())
    }
}
