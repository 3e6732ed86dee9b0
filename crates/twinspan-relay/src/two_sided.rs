//! Two datagram sockets as one: an open side and a trunk that hears known peers alone.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_provider::{SocketReport, UdpError, UdpSocket};

/// Looks at the sockets by one call whose datagrams were all dropped.
const LOOKS_PER_CALL: usize = 4;
/// Datagrams of one side that wait for it while the other side's go on.
const HELD_DATAGRAMS: usize = 256;

/// Datagrams that a two-sided socket dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideDrops {
    /// Came to the open side under the address of a trunk peer: forged.
    pub forged: u64,
    /// Came to the trunk from somebody who is no peer of it.
    pub strangers: u64,
    /// Were for the open side, and there is none.
    pub unreachable: u64,
}

/// Two sockets in the place of one.
///
/// A datagram belongs to the trunk when its peer is one of the trunk's peers, whether it comes or
/// goes; nobody else is heard there, and nobody is heard under such an address on the open side.
pub struct TwoSided<U> {
    open: Option<U>,
    trunk: U,
    /// Sorted.
    peers: Box<[SocketAddr]>,
    /// Whether the trunk is received from first; the sides take turns.
    trunk_first: bool,
    /// What left the batch for one side and waits until that takes it.
    held: DatagramBatch,
    drops: Rc<Cell<SideDrops>>,
}

/// One of the sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    Trunk,
}

impl<U: UdpSocket> TwoSided<U> {
    /// An open side, which may be missing, and a trunk to `peers`.
    pub fn new(open: Option<U>, trunk: U, peers: &[SocketAddr]) -> Self {
        let mut peers: Box<[_]> = peers.into();
        peers.sort_unstable();
        let held = DatagramBatch::new(HELD_DATAGRAMS);
        Self { open, trunk, peers, trunk_first: true, held, drops: Rc::default() }
    }

    /// What was dropped; stays readable while the socket is driven.
    pub fn drops(&self) -> Rc<Cell<SideDrops>> {
        Rc::clone(&self.drops)
    }

    /// The same, now.
    pub(crate) fn dropped(&self) -> SideDrops {
        self.drops.get()
    }

    /// The address of the trunk's socket.
    pub fn trunk_addr(&self) -> SocketAddr {
        self.trunk.local_addr()
    }

    /// What the open side and the trunk got and did.
    pub fn reports(&self) -> (Option<SocketReport>, SocketReport) {
        (self.open.as_ref().map(U::report), self.trunk.report())
    }

    fn side_of(&self, peer: SocketAddr) -> Side {
        if self.peers.binary_search(&peer).is_ok() { Side::Trunk } else { Side::Open }
    }

    fn first_side(&self, batch: &DatagramBatch) -> Option<Side> {
        let first = batch.iter().next()?.peer;
        Some(self.side_of(first))
    }

    fn side_mut(&mut self, side: Side) -> Option<&mut U> {
        match side {
            Side::Open => self.open.as_mut(),
            Side::Trunk => Some(&mut self.trunk),
        }
    }

    /// Receives from one side and drops who may not come there; whether anything came.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        batch: &mut DatagramBatch,
    ) -> Result<bool, UdpError> {
        let before = batch.len();
        let Some(socket) = self.side_mut(side) else { return Ok(false) };
        let Poll::Ready(received) = socket.poll_recv(cx, batch) else { return Ok(false) };
        let received = received?;
        batch.retain_from(before, |datagram| self.side_of(datagram.peer) == side);
        let dropped = (before + received).saturating_sub(batch.len()) as u64;
        if dropped > 0 {
            let mut drops = self.drops.get();
            match side {
                Side::Open => drops.forged += dropped,
                Side::Trunk => drops.strangers += dropped,
            }
            self.drops.set(drops);
        }
        Ok(received > 0)
    }

    /// Sends what is held; pending until all of it has left.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UdpError>> {
        while let Some(side) = self.first_side(&self.held) {
            let socket = match side {
                Side::Open => self.open.as_mut(),
                Side::Trunk => Some(&mut self.trunk),
            };
            let Some(socket) = socket else {
                // Without an open side there is no way to anybody else.
                let mut drops = self.drops.get();
                drops.unreachable += self.held.len() as u64;
                self.drops.set(drops);
                self.held.clear();
                break;
            };
            match socket.poll_send(cx, &mut self.held) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => return Poll::Pending,
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl<U: UdpSocket> UdpSocket for TwoSided<U> {
    /// Where the open side is bound, or the trunk when there is none.
    fn local_addr(&self) -> SocketAddr {
        self.open.as_ref().unwrap_or(&self.trunk).local_addr()
    }

    fn pool(&self) -> &PacketPool {
        self.open.as_ref().unwrap_or(&self.trunk).pool()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        if batch.room() == 0 {
            return Poll::Ready(Ok(0));
        }
        let before = batch.len();
        self.trunk_first = !self.trunk_first;
        let mut sides = [Side::Open, Side::Trunk];
        if self.trunk_first {
            sides.reverse();
        }
        for _ in 0..LOOKS_PER_CALL {
            let mut any = false;
            for side in sides {
                if batch.room() > 0 {
                    any |= self.receive(cx, side, batch)?;
                }
            }
            if batch.len() > before {
                return Poll::Ready(Ok(batch.len() - before));
            }
            if !any {
                return Poll::Pending;
            }
        }
        // All were dropped: others get their turn before more are looked at.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let before = batch.len();
        if self.flush(cx)?.is_pending() {
            return Poll::Pending;
        }
        while let Some(side) = self.first_side(batch) {
            if batch.iter().all(|datagram| self.side_of(datagram.peer) == side)
                && let Some(socket) = self.side_mut(side)
            {
                return socket.poll_send(cx, batch).map_ok(|_| before - batch.len());
            }
            while self.held.room() > 0 && self.first_side(batch) == Some(side) {
                let Some(datagram) = batch.pop() else { break };
                // There was room.
                drop(self.held.push(datagram));
            }
            if self.flush(cx)?.is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(before - batch.len()))
    }

    /// Both sides together, under the name of the trunk's way to move datagrams.
    fn report(&self) -> SocketReport {
        let trunk = self.trunk.report();
        let Some(open) = self.open.as_ref().map(U::report) else { return trunk };
        SocketReport {
            never_fragments: open.never_fragments && trunk.never_fragments,
            ecn: open.ecn && trunk.ecn,
            receive_buffer_bytes: open.receive_buffer_bytes.min(trunk.receive_buffer_bytes),
            send_buffer_bytes: open.send_buffer_bytes.min(trunk.send_buffer_bytes),
            packets_in: open.packets_in + trunk.packets_in,
            packets_out: open.packets_out + trunk.packets_out,
            bytes_in: open.bytes_in + trunk.bytes_in,
            bytes_out: open.bytes_out + trunk.bytes_out,
            send_errors: open.send_errors + trunk.send_errors,
            receive_errors: open.receive_errors + trunk.receive_errors,
            ..trunk
        }
    }
}

impl<U: UdpSocket> std::fmt::Debug for TwoSided<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwoSided")
            .field("local", &self.local_addr())
            .field("trunk", &self.trunk_addr())
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
