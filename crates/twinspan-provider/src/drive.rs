//! The one loop that runs a datagram machine, on every side of the seam.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::time::Timestamp;

use crate::{Env, TimeProvider, Timer, UdpError, UdpSocket};

/// Datagrams handed to the machine in one turn of the loop: more than to the socket at once, because
/// they are the cheaper ones, and where there are servers there are several for each that is sent.
const RECEIVED_PER_TURN_MAX: usize = 256;
/// Datagrams handed to the socket at once.
const BATCH_DATAGRAMS: usize = 64;
/// Batches sent in one turn: more than a large server has for one deadline.
const BATCHES_SENT_PER_TURN: u32 = 64;
/// Turns that follow one another without a wait before the other tasks of the thread get theirs.
const TURNS_IN_A_ROW_MAX: u32 = 16;

/// A sans-I/O machine whose ins and outs are datagrams and time.
///
/// After each `handle_*` call the driver drains [`poll_transmit`](Self::poll_transmit) and then
/// reads [`poll_timeout`](Self::poll_timeout).
pub trait Machine {
    /// Takes datagrams, at least one; those left in `received` are dropped.
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch);

    /// A deadline that [`poll_timeout`](Self::poll_timeout) named has come.
    fn handle_timeout(&mut self, now: Timestamp);

    /// Appends datagrams to send until `out` is full or nothing is left, in buffers from `pool`.
    ///
    /// Nothing tells the driver that a buffer came back to an empty pool: a machine that found none
    /// names a moment a little later as its next deadline.
    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch);

    /// When to be called next without a datagram; `None` for never. A moment that has passed is at
    /// once; one that stays in the past keeps a processor busy.
    fn poll_timeout(&self) -> Option<Timestamp>;

    /// Takes what came from elsewhere than the network and the clock, a bounded share of it: what
    /// users ask for, what other tasks found out. Ready when there was something, so that the driver
    /// drains [`poll_transmit`](Self::poll_transmit) and reads the deadline anew; pending with the
    /// waker registered when there was not. A machine that has only datagrams and time leaves it out.
    fn poll_command(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// Wishes for the memory that its next turn needs, and changes nothing: for who has thousands of
    /// machines on one thread and knows whose turn is next.
    fn prefetch(&self) {}

    /// Whether the machine has ended and the driver shall return.
    fn is_done(&self) -> bool {
        false
    }

    /// Told after each [`handle_timeout`](Self::handle_timeout) and the sends that followed how long
    /// they took by the driver's clock; in simulation only a send that has to wait takes time.
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

    fn poll_command(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.borrow_mut().poll_command(cx)
    }

    fn prefetch(&self) {
        if let Ok(machine) = self.try_borrow() {
            machine.prefetch();
        }
    }

    fn is_done(&self) -> bool {
        self.borrow().is_done()
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        self.borrow_mut().on_elapsed(began, ended);
    }
}

/// Runs `machine` over `socket`, one of `env` or made of such, until it is done.
///
/// While the kernel takes no datagrams the machine waits: neither time nor receiving goes on.
/// Datagrams and deadlines take turns when both are always there, and a driver that never has to
/// wait gives the other tasks of its thread theirs: a machine that is always late or always has
/// something to send stops nothing but itself.
///
/// # Errors
/// [`UdpError`] when the socket is of no further use.
///
/// # Cancel safety
/// Dropping the future loses the datagrams of the turn in progress, as a network may.
pub async fn drive<E: Env, U: UdpSocket, M: Machine>(
    env: &E,
    socket: &mut U,
    machine: &mut M,
) -> Result<(), UdpError> {
    let mut timer = env.timer();
    // Ten thousand machines of a simulation have small pools, and nothing to fill large batches with.
    let room = socket.pool().limit();
    let mut received = DatagramBatch::with_room(RECEIVED_PER_TURN_MAX, room);
    let mut out = DatagramBatch::with_room(BATCH_DATAGRAMS, room);
    let mut turns = Turns { in_a_row: 0, prefers: Wake::Timeout };
    let mut sent = flush(env, socket, machine, &mut out).await?;
    while sent == Sent::Part || !machine.is_done() {
        timer.set(machine.poll_timeout());
        let wake = turns.wait(socket, machine, &mut timer, &mut received, sent).await?;
        let began = env.now();
        match wake {
            Wake::Received => {
                machine.handle_datagrams(began, &mut received);
                received.clear();
            }
            Wake::Timeout => machine.handle_timeout(began),
            Wake::Unsent => {}
        }
        sent = flush(env, socket, machine, &mut out).await?;
        if wake == Wake::Timeout {
            machine.on_elapsed(began, env.now());
        }
    }
    Ok(())
}

/// What woke the loop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    Received,
    Timeout,
    /// Nothing came, and the machine may have more to send.
    Unsent,
}

/// Whose turn it is.
struct Turns {
    /// Turns since the loop last waited or let other tasks run.
    in_a_row: u32,
    /// What goes first when there are both. A deadline, so that a flood cannot hold back time; but
    /// datagrams after a deadline, so that a machine that is late cannot hold back the network.
    prefers: Wake,
}

impl Turns {
    /// Waits for datagrams, the deadline or commands; with something left to send it only looks for
    /// them. Commands are taken with every turn, so that neither holds back the other.
    async fn wait<U: UdpSocket, M: Machine, T: Timer>(
        &mut self,
        socket: &mut U,
        machine: &mut M,
        timer: &mut T,
        received: &mut DatagramBatch,
        sent: Sent,
    ) -> Result<Wake, UdpError> {
        if self.in_a_row >= TURNS_IN_A_ROW_MAX {
            self.in_a_row = 0;
            yield_once().await;
        }
        let wake = poll_fn(|cx| {
            let commanded = machine.poll_command(cx).is_ready();
            let expired = timer.poll_expired(cx).is_ready();
            if expired && self.prefers == Wake::Timeout {
                return Poll::Ready(Ok(Wake::Timeout));
            }
            match socket.poll_recv(cx, received) {
                Poll::Ready(outcome) => Poll::Ready(outcome.map(|_| Wake::Received)),
                Poll::Pending if expired => Poll::Ready(Ok(Wake::Timeout)),
                Poll::Pending if commanded || sent == Sent::Part => Poll::Ready(Ok(Wake::Unsent)),
                Poll::Pending => {
                    self.in_a_row = 0;
                    Poll::Pending
                }
            }
        })
        .await?;
        self.in_a_row += 1;
        self.prefers = if wake == Wake::Timeout { Wake::Received } else { Wake::Timeout };
        Ok(wake)
    }
}

/// Lets the other ready tasks of the thread run.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How much of what the machine has to send was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// There may be more.
    Part,
}

/// Sends what the machine has to send, up to the share of one turn.
async fn flush<E: TimeProvider, U: UdpSocket, M: Machine>(
    env: &E,
    socket: &mut U,
    machine: &mut M,
    out: &mut DatagramBatch,
) -> Result<Sent, UdpError> {
    for _ in 0..BATCHES_SENT_PER_TURN {
        machine.poll_transmit(env.now(), socket.pool(), out);
        if out.is_empty() {
            return Ok(Sent::All);
        }
        while !out.is_empty() {
            poll_fn(|cx| socket.poll_send(cx, out)).await?;
        }
    }
    Ok(Sent::Part)
}
