//! Sockets that behave as if the path to their peers were worse than it is, by the link model that
//! the simulator uses.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use twinspan_core::link::{
    Arrival, Conditions, ConditionsError, FLOWS_MAX, FaultCounters, FaultKind, Link,
};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;

use crate::{
    Around, BindError, ConnectError, Env, NetworkProvider, ResolveError, Resolved, SocketReport,
    TcpOptions, TimeProvider, Timer, UdpError, UdpOptions, UdpSocket,
};

/// Datagrams handed to or taken from the inner socket at once.
const BATCH_DATAGRAMS: usize = 64;
/// Batches taken from the inner socket by one call, before others get their turn.
const BATCHES_PER_CALL: usize = 4;

/// What conditioned sockets are like, to be changed at any time, and what that did to them.
///
/// Clones are the same control: one stays with whoever turns the knobs.
#[derive(Clone, Debug, Default)]
pub struct LinkControl {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    conditions: Cell<Conditions>,
    faults: RefCell<FaultCounters>,
    /// Links that were given an id.
    links: Cell<u64>,
}

impl LinkControl {
    /// A control that is clean until told otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// What each direction of the sockets is like now.
    pub fn conditions(&self) -> Conditions {
        self.shared.conditions.get()
    }

    /// Changes what each direction of the sockets is like, from the next datagram on; those on the
    /// way arrive as decided.
    ///
    /// # Errors
    /// [`ConditionsError`] names the field that is out of its range, and nothing changes.
    pub fn set(&self, conditions: Conditions) -> Result<(), ConditionsError> {
        conditions.check()?;
        self.shared.conditions.set(conditions);
        Ok(())
    }

    /// What was injected into all sockets of this control, and what of it had an effect.
    pub fn faults(&self) -> FaultCounters {
        *self.shared.faults.borrow()
    }

    /// An id for one more link.
    fn link_id(&self) -> u64 {
        let id = self.shared.links.get();
        self.shared.links.set(id + 1);
        id
    }
}

/// A datagram on the way through a link.
struct Delayed {
    /// When it arrives, and its turn among those of the same moment.
    order: (Timestamp, u64),
    flow: u64,
    arrival: Arrival,
    datagram: Datagram,
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Delayed {}

/// One direction of a conditioned socket.
struct Direction {
    link: Link,
    /// Datagrams that were admitted so far, by flow: no flow's fate hangs on another. Those of the
    /// flows beyond [`FLOWS_MAX`] are counted together.
    admitted: BTreeMap<Option<u64>, u64>,
    /// Datagrams that were queued so far, copies included.
    queued: u64,
    /// The earliest on top. A heap and not a timer wheel: it is small when the socket is quiet, and
    /// there may be a thousand sockets.
    queue: BinaryHeap<Reverse<Delayed>>,
    queue_max: usize,
}

impl Direction {
    fn new(key: u64, id: u64, queue_max: usize) -> Self {
        let link = Link::new(key, id);
        Self { link, admitted: BTreeMap::new(), queued: 0, queue: BinaryHeap::new(), queue_max }
    }

    /// Whether a datagram may pass by the link: it would arrive at once, and none is before it.
    fn is_open(&self, conditions: &Conditions) -> bool {
        self.queue.is_empty() && *conditions == Conditions::CLEAN
    }

    /// Sends a datagram on its way; what is lost or finds no room is dropped and counted.
    fn admit(
        &mut self,
        now: Timestamp,
        datagram: Datagram,
        pool: &PacketPool,
        faults: &mut FaultCounters,
    ) {
        let flow = flow_of(datagram.peer);
        let number = self.number(flow);
        let fate = self.link.admit(now, flow, number, datagram.packet.len(), faults);
        let mut arrivals = fate.arrivals();
        let Some(first) = arrivals.next() else { return };
        let copy = arrivals.next().and_then(|arrival| Some((arrival, copy(&datagram, pool)?)));
        self.queue(flow, first, datagram, faults);
        if let Some((arrival, datagram)) = copy {
            self.queue(flow, arrival, datagram, faults);
        }
    }

    /// The next number of a flow.
    fn number(&mut self, flow: u64) -> u64 {
        let is_counted = self.admitted.len() < FLOWS_MAX || self.admitted.contains_key(&Some(flow));
        let next = self.admitted.entry(is_counted.then_some(flow)).or_default();
        *next += 1;
        *next - 1
    }

    fn queue(
        &mut self,
        flow: u64,
        arrival: Arrival,
        datagram: Datagram,
        faults: &mut FaultCounters,
    ) {
        if self.queue.len() >= self.queue_max {
            faults.inject(FaultKind::QueueDrop);
            faults.observe(FaultKind::QueueDrop);
            return;
        }
        self.queued += 1;
        let order = (arrival.at, self.queued);
        self.queue.push(Reverse(Delayed { order, flow, arrival, datagram }));
    }

    /// When the next datagram arrives.
    fn next(&self) -> Option<Timestamp> {
        self.queue.peek().map(|Reverse(delayed)| delayed.order.0)
    }

    /// Moves what has arrived to `batch`, as far as that has room.
    fn release(&mut self, now: Timestamp, batch: &mut DatagramBatch, faults: &mut FaultCounters) {
        while batch.room() > 0 && self.next().is_some_and(|at| at <= now) {
            let Some(Reverse(delayed)) = self.queue.pop() else { return };
            self.link.arrived(delayed.flow, &delayed.arrival, faults);
            let refused = batch.push(Datagram { at: now, ..delayed.datagram });
            debug_assert!(refused.is_ok(), "the batch had room");
        }
    }
}

/// A second copy of a datagram; `None` when the pool has no free buffer.
fn copy(datagram: &Datagram, pool: &PacketPool) -> Option<Datagram> {
    let mut packet = pool.take()?;
    packet.set_ecn(datagram.packet.ecn());
    packet.fill(&datagram.packet).then_some(Datagram {
        peer: datagram.peer,
        at: datagram.at,
        packet,
    })
}

/// The flow that datagrams from or to `peer` belong to.
fn flow_of(peer: SocketAddr) -> u64 {
    let ip = match peer.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    draw(u64::from(peer.port()), &[ip as u64, (ip >> 64) as u64])
}

/// A datagram socket whose datagrams pass a [`Link`] in each direction.
///
/// Delayed datagrams leave and arrive while [`poll_recv`](UdpSocket::poll_recv) is polled, as a
/// driver does that waits; a socket that only sends must be polled for receiving all the same.
/// While the control is clean and nothing is on the way, datagrams go straight through. What is on
/// the way when it is dropped is lost.
pub struct Conditioned<U, T: TimeProvider> {
    inner: U,
    time: T,
    timer: T::Timer,
    control: LinkControl,
    outward: Direction,
    inward: Direction,
    /// Left the outward link, on the way into the inner socket.
    leaving: DatagramBatch,
    /// Out of the inner socket, on the way into the inward link.
    coming: DatagramBatch,
}

impl<U: UdpSocket, T: TimeProvider> Conditioned<U, T> {
    /// Puts links around `inner` that `control` rules, with fates drawn from `key`. At most
    /// `delayed_max` datagrams are on the way in each direction; what comes on top is dropped and
    /// counted as [`FaultKind::QueueDrop`].
    ///
    /// Datagrams on the way are buffers of the inner socket's pool, which should be larger than
    /// twice `delayed_max`.
    pub fn new(inner: U, time: T, control: LinkControl, key: u64, delayed_max: usize) -> Self {
        Self {
            inner,
            timer: time.timer(),
            time,
            outward: Direction::new(key, control.link_id(), delayed_max),
            inward: Direction::new(key, control.link_id(), delayed_max),
            control,
            leaving: DatagramBatch::new(BATCH_DATAGRAMS),
            coming: DatagramBatch::new(BATCH_DATAGRAMS),
        }
    }

    /// What rules this socket.
    pub fn control(&self) -> &LinkControl {
        &self.control
    }

    /// Datagrams on the way, in both directions together.
    pub fn delayed(&self) -> usize {
        self.outward.queue.len() + self.leaving.len() + self.inward.queue.len()
    }

    /// Hands what has passed the outward link to the inner socket.
    fn pump_out(&mut self, cx: &mut Context<'_>) -> Result<(), UdpError> {
        loop {
            let now = self.time.now();
            {
                let faults = &mut self.control.shared.faults.borrow_mut();
                self.outward.release(now, &mut self.leaving, faults);
            }
            if self.leaving.is_empty() || self.inner.poll_send(cx, &mut self.leaving)?.is_pending()
            {
                return Ok(());
            }
        }
    }

    /// Takes what the inner socket has and sends it through the inward link.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<(), UdpError> {
        for _ in 0..BATCHES_PER_CALL {
            if self.inner.poll_recv(cx, &mut self.coming)?.is_pending() {
                return Ok(());
            }
            let now = self.time.now();
            let faults = &mut self.control.shared.faults.borrow_mut();
            while let Some(datagram) = self.coming.pop() {
                self.inward.admit(now, datagram, self.inner.pool(), faults);
            }
        }
        // There may be more, for the next turn.
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Waits for the next datagram that leaves a link; ready when one has left it already.
    fn poll_links(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // With the inner socket blocked, it is room and not time that is waited for.
        let outward = self.outward.next().filter(|_| self.leaving.is_empty());
        let next = [outward, self.inward.next()].into_iter().flatten().min();
        self.timer.set(next);
        if next.is_none() {
            return Poll::Pending;
        }
        self.timer.poll_expired(cx)
    }
}

impl<U: UdpSocket, T: TimeProvider + 'static> UdpSocket for Conditioned<U, T> {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn pool(&self) -> &PacketPool {
        self.inner.pool()
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        if batch.room() == 0 {
            return Poll::Ready(Ok(0));
        }
        let conditions = self.control.conditions();
        self.inward.link.set_conditions(conditions);
        loop {
            self.pump_out(cx)?;
            if self.inward.is_open(&conditions) {
                let received = self.inner.poll_recv(cx, batch);
                if received.is_ready() {
                    return received;
                }
            } else {
                let before = batch.len();
                self.take_in(cx)?;
                let now = self.time.now();
                let faults = &mut self.control.shared.faults.borrow_mut();
                self.inward.release(now, batch, faults);
                if batch.len() > before {
                    return Poll::Ready(Ok(batch.len() - before));
                }
            }
            if self.poll_links(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut DatagramBatch,
    ) -> Poll<Result<usize, UdpError>> {
        let conditions = self.control.conditions();
        self.outward.link.set_conditions(conditions);
        if self.outward.is_open(&conditions) && self.leaving.is_empty() {
            return self.inner.poll_send(cx, batch);
        }
        let count = batch.len();
        let now = self.time.now();
        {
            let faults = &mut self.control.shared.faults.borrow_mut();
            while let Some(datagram) = batch.pop() {
                self.outward.admit(now, datagram, self.inner.pool(), faults);
            }
        }
        self.pump_out(cx)?;
        Poll::Ready(Ok(count))
    }

    fn report(&self) -> SocketReport {
        self.inner.report()
    }
}

impl<U: fmt::Debug, T: TimeProvider> fmt::Debug for Conditioned<U, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conditioned")
            .field("inner", &self.inner)
            .field("conditions", &self.control.conditions())
            .field("outward", &self.outward.queue.len())
            .field("inward", &self.inward.queue.len())
            .finish_non_exhaustive()
    }
}

/// An [`Env`] whose datagram sockets are [`Conditioned`], so that a driver need not know. Streams and
/// names are those of the environment underneath.
#[derive(Clone, Debug)]
pub struct ConditionedEnv<E> {
    env: E,
    control: LinkControl,
}

impl<E: Env> ConditionedEnv<E> {
    /// Puts all sockets that are bound through it under `control`.
    pub fn new(env: E, control: LinkControl) -> Self {
        Self { env, control }
    }

    /// What rules the sockets.
    pub fn control(&self) -> &LinkControl {
        &self.control
    }

    /// The environment underneath.
    pub fn inner(&self) -> &E {
        &self.env
    }
}

impl<E: Env> Around for ConditionedEnv<E> {
    type Inner = E;

    fn env(&self) -> &E {
        &self.env
    }
}

impl<E: Env> NetworkProvider for ConditionedEnv<E> {
    type Udp = Conditioned<E::Udp, E>;
    type Tcp = E::Tcp;
    type Listener = E::Listener;

    /// Besides the packets asked for, the pool holds as many again for each direction, for those on
    /// the way.
    async fn bind_udp(
        &self,
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<Self::Udp, BindError> {
        let delayed_max = options.pool_packets;
        let pool_packets = options.pool_packets.saturating_mul(3);
        let inner = self.env.bind_udp(local, &UdpOptions { pool_packets, ..*options }).await?;
        let key = self.env.stream("conditioned", 0).next_u64();
        Ok(Conditioned::new(inner, self.env.clone(), self.control.clone(), key, delayed_max))
    }

    async fn connect(
        &self,
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<E::Tcp, ConnectError> {
        self.env.connect(peer, options).await
    }

    async fn listen(
        &self,
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<E::Listener, BindError> {
        self.env.listen(local, options).await
    }

    async fn resolve(&self, name: &str, port: u16) -> Result<Resolved, ResolveError> {
        self.env.resolve(name, port).await
    }
}

#[cfg(test)]
mod tests;
