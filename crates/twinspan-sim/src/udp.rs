//! Datagram sockets of simulated hosts.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use twinspan_core::link::FaultKind;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::{draw, unit};
use twinspan_provider::{Offload, SocketReport, UdpError, UdpOptions, UdpSocket};

use crate::chaos::{SendStrikes, Supply};
use crate::network::{GATHER_MAX, RUN_BYTES_MAX, RUN_DATAGRAMS_MAX};
use crate::slab::Key;
use crate::timer::keep_waker;
use crate::trace::TraceKind;
use crate::world::{Event, RECEIVE_RETRY, SEND_STALL, World};

/// A datagram socket of a simulated host.
///
/// It takes and gives batches as a real one does: a send may take only a part of the batch, and
/// when the pool is empty, received datagrams wait until it is not, or are dropped when too many
/// do. Where the options say so, datagrams gather as they do at a real one.
pub struct SimUdp {
    world: Rc<World>,
    key: Key,
    local: SocketAddr,
    pool: PacketPool,
    report: SocketReport,
}

impl SimUdp {
    pub(crate) fn new(
        world: &Rc<World>,
        (key, local, receive_buffer_bytes): (Key, SocketAddr, usize),
        options: &UdpOptions,
    ) -> Self {
        let stock = world.state.borrow().network.stock.clone();
        Self {
            world: Rc::clone(world),
            key,
            local,
            pool: PacketPool::of_stock(&stock, options.pool_packets),
            report: SocketReport {
                path: "simulated",
                never_fragments: true,
                segmentation: if options.segment_sends { Offload::On } else { Offload::Off },
                coalescing: if options.coalesce_receives { Offload::On } else { Offload::Off },
                ecn: options.ecn,
                gather: options.gather.min(GATHER_MAX),
                receive_buffer_bytes,
                send_buffer_bytes: options.send_buffer_bytes,
                ..SocketReport::default()
            },
        }
    }
}

/// Datagrams to one peer that follow one another, all but the last of one length: what a kernel takes
/// as one and splits (GSO).
#[derive(Default)]
struct Run {
    peer: Option<SocketAddr>,
    segment: usize,
    bytes: usize,
    count: usize,
}

impl Run {
    /// Goes on with a datagram, or begins anew with it; how many more travel in runs then.
    fn add(&mut self, datagram: &Datagram) -> u64 {
        let bytes = datagram.packet.len();
        let follows = self.peer == Some(datagram.peer)
            && bytes > 0
            && bytes <= self.segment
            && self.bytes == self.segment * self.count
            && self.count < RUN_DATAGRAMS_MAX
            && self.bytes + bytes <= RUN_BYTES_MAX;
        if !follows {
            *self = Self { peer: Some(datagram.peer), segment: bytes, bytes, count: 1 };
            return 0;
        }
        self.bytes += bytes;
        self.count += 1;
        // With the second one the first is in a run, too.
        if self.count == 2 { 2 } else { 1 }
    }
}

/// How many datagrams come before the first run of a batch; `None` where there is no run.
pub(crate) fn before_first_run(batch: &DatagramBatch) -> Option<usize> {
    let mut run = Run::default();
    let second = batch.iter().position(|datagram| run.add(datagram) > 0)?;
    Some(second - 1)
}

impl UdpSocket for SimUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn pool(&self) -> &PacketPool {
        &self.pool
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let now = self.world.now.get();
        let mut state = self.world.state.borrow_mut();
        let state = &mut *state;
        let supply = if state.chaos.is_on { state.supply(now, self.key) } else { Supply::All };
        let network = &mut state.network;
        let Some(socket) = network.sockets.get_mut(self.key) else {
            return Poll::Ready(Err(UdpError::HostStopped));
        };
        if batch.room() == 0 {
            return Poll::Ready(Ok(0));
        }
        let most = match supply {
            Supply::All => usize::MAX,
            Supply::One(pace) => {
                socket.takes_at = now.after(pace);
                1
            }
            Supply::None => 0,
        };
        let mut received = 0;
        while received < most && batch.room() > 0 && !socket.queue.is_empty() {
            let Some(mut packet) = self.pool.take() else { break };
            let Some(inbound) = socket.take() else { break };
            let bytes = inbound.payload.as_slice();
            packet.set_ecn(inbound.ecn);
            // What was sent came out of a packet buffer, so it fits one, and the batch has room.
            if packet.fill(bytes)
                && batch.push(Datagram { peer: inbound.from, at: inbound.at, packet }).is_ok()
            {
                received += 1;
                self.report.packets_in += 1;
                self.report.bytes_in += bytes.len() as u64;
            }
            network.store.give(inbound.payload);
        }
        if received > 0 {
            if !socket.gather.is_zero() && socket.queue.is_empty() {
                socket.gathers_until = now.after(socket.gather);
            }
            return Poll::Ready(Ok(received));
        }
        keep_waker(&mut socket.receiver.waker, cx);
        socket.receiver.is_armed = true;
        // A pool tells nobody that a buffer came back: the socket looks again by itself.
        if !socket.queue.is_empty() && !std::mem::replace(&mut socket.retry_due, true) {
            let at = now.after(RECEIVE_RETRY).max(socket.takes_at);
            if state.wheel.insert(at, Event::ReceiveRetry(self.key)).is_err() {
                socket.retry_due = false;
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let now = self.world.now.get();
        let mut state = self.world.state.borrow_mut();
        let state = &mut *state;
        let struck = if state.chaos.is_on && !batch.is_empty() {
            state.strike_send(now, self.key, batch)
        } else {
            SendStrikes::default()
        };
        let network = &mut state.network;
        let Some(socket) = network.sockets.get_mut(self.key) else {
            return Poll::Ready(Err(UdpError::HostStopped));
        };
        if batch.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let is_stalled = now < socket.stalled_until;
        let mut take = batch.len();
        if !is_stalled {
            socket.send_calls += 1;
            let key = draw(socket.key, &[socket.send_calls]);
            let chance = |kind: FaultKind, share: f64| {
                share > 0.0 && unit(draw(key, &[kind.index() as u64])) < share
            };
            if chance(FaultKind::SendStall, network.send_stall) {
                let ready_at = now.after(SEND_STALL);
                if state.wheel.insert(ready_at, Event::SendReady(self.key)).is_ok() {
                    socket.stalled_until = ready_at;
                    state.faults.inject(FaultKind::SendStall);
                    state.faults.observe(FaultKind::SendStall);
                }
            }
            if take > 1 && chance(FaultKind::ShortSend, network.short_send) {
                // From one to all but one.
                let few = draw(key, &[u64::MAX]) % (take as u64 - 1);
                take = few as usize + 1;
                state.faults.inject(FaultKind::ShortSend);
            }
        }
        take = take.min(struck.take_max.unwrap_or(usize::MAX)).max(1);
        if struck.stalls
            && now >= socket.stalled_until
            && state.wheel.insert(now.after(SEND_STALL), Event::SendReady(self.key)).is_ok()
        {
            socket.stalled_until = now.after(SEND_STALL);
            state.faults.observe(FaultKind::SendStall);
        }
        if now < socket.stalled_until {
            keep_waker(&mut socket.sender.waker, cx);
            socket.sender.is_armed = true;
            return Poll::Pending;
        }
        if take < batch.len() {
            state.faults.observe(FaultKind::ShortSend);
        }
        if let Some(before) = struck.refused_run {
            // The call sends what comes before the run, or its first datagram by itself.
            take = take.min(before.max(1));
            socket.segmentation = Offload::Refused;
            self.report.segmentation = Offload::Refused;
            state.faults.observe(FaultKind::RunRefused);
            let ids = [u64::from(self.key.index), socket.send_calls, 0, 0];
            state.trace.record(now, TraceKind::RunRefused, ids);
        }
        let splits = self.report.segmentation == Offload::On && take > 1;
        let (mut taken, mut run) = (0, Run::default());
        while taken < take {
            let Some(mut datagram) = batch.pop() else { break };
            taken += 1;
            if splits {
                self.report.packets_segmented += run.add(&datagram);
            }
            if state.chaos.is_on && (struck.fails && taken == 1 || state.take_error(self.key)) {
                self.report.send_errors += 1;
            } else if state.send(now, self.key, &mut datagram).is_ok() {
                self.report.packets_out += 1;
                self.report.bytes_out += datagram.packet.len() as u64;
            } else {
                self.report.send_errors += 1;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn report(&self) -> SocketReport {
        self.report
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.world.state.borrow_mut();
            state.unbind(self.world.now.get(), self.key)
        };
        // Its wakers may hold the last of a task: dropped with the world free.
        drop(removed);
    }
}

impl std::fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimUdp").field("local", &self.local).finish_non_exhaustive()
    }
}
