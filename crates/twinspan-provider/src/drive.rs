//! The one loop that runs a datagram machine, on every side of the seam.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;

use crate::{Env, TimeProvider, Timer, UdpError, UdpSocket};

/// Datagrams handled in one turn of the loop.
const BATCH_DATAGRAMS: usize = 64;

/// A sans-I/O machine whose ins and outs are datagrams and time.
///
/// After each `handle_*` call the driver drains [`poll_transmit`](Self::poll_transmit) and then
/// reads [`poll_timeout`](Self::poll_timeout).
pub trait Machine {
    /// Takes datagrams; those left in `received` are dropped.
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch);

    /// A deadline that [`poll_timeout`](Self::poll_timeout) named has come.
    fn handle_timeout(&mut self, now: Timestamp);

    /// Appends datagrams to send until `out` is full or nothing is left, in buffers from `pool`.
    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch);

    /// When to be called next without a datagram; `None` for never.
    fn poll_timeout(&self) -> Option<Timestamp>;

    /// Whether the machine has ended and the driver shall return.
    fn is_done(&self) -> bool {
        false
    }

    /// Told after each [`handle_timeout`](Self::handle_timeout) and the sends that followed how long
    /// they took by the driver's clock; in simulation `began` equals `ended`.
    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        let _ = (began, ended);
    }
}

/// A shared machine, for a test or a scenario that looks at it while it is driven.
impl<M: Machine> Machine for Rc<RefCell<M>> {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.borrow_mut().handle_datagrams(now, received);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.borrow_mut().handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.borrow_mut().poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.borrow().poll_timeout()
    }

    fn is_done(&self) -> bool {
        self.borrow().is_done()
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        self.borrow_mut().on_elapsed(began, ended);
    }
}

/// What woke the loop.
enum Wake {
    Received,
    Timeout,
}

/// Runs `machine` over `socket` until it is done.
///
/// # Errors
/// [`UdpError`] when the socket is of no further use.
///
/// # Cancel safety
/// Dropping the future loses the datagrams of the turn in progress, as a network may.
pub async fn drive<E: Env, M: Machine>(
    env: &E,
    socket: &mut E::Udp,
    machine: &mut M,
) -> Result<(), UdpError> {
    let mut timer = env.timer();
    let mut received = DatagramBatch::new(BATCH_DATAGRAMS);
    let mut out = DatagramBatch::new(BATCH_DATAGRAMS);
    flush(env, socket, machine, &mut out).await?;
    while !machine.is_done() {
        timer.set(machine.poll_timeout());
        match wait(socket, &mut timer, &mut received).await? {
            Wake::Received => {
                machine.handle_datagrams(env.now(), &mut received);
                received.clear();
                flush(env, socket, machine, &mut out).await?;
            }
            Wake::Timeout => {
                let began = env.now();
                machine.handle_timeout(began);
                flush(env, socket, machine, &mut out).await?;
                machine.on_elapsed(began, env.now());
            }
        }
    }
    Ok(())
}

/// Waits for datagrams or the deadline; a deadline that has come goes first, so that a flood cannot
/// hold back time.
async fn wait<U: UdpSocket, T: Timer>(
    socket: &mut U,
    timer: &mut T,
    received: &mut DatagramBatch,
) -> Result<Wake, UdpError> {
    poll_fn(|cx| {
        if timer.poll_expired(cx).is_ready() {
            return Poll::Ready(Ok(Wake::Timeout));
        }
        socket.poll_recv(cx, received).map_ok(|_| Wake::Received)
    })
    .await
}

/// Sends all that the machine has to send.
async fn flush<E: TimeProvider, U: UdpSocket, M: Machine>(
    env: &E,
    socket: &mut U,
    machine: &mut M,
    out: &mut DatagramBatch,
) -> Result<(), UdpError> {
    loop {
        machine.poll_transmit(env.now(), socket.pool(), out);
        if out.is_empty() {
            return Ok(());
        }
        while !out.is_empty() {
            poll_fn(|cx| socket.poll_send(cx, out)).await?;
        }
    }
}
