//! The way of a datagram: sent, carried by a link, delivered or dropped with a cause.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::link::{Arrival, Fate, FaultCounters, FaultKind};
use twinspan_core::packet::{Datagram, Ecn};
use twinspan_core::prefetch;
use twinspan_core::time::Timestamp;
use twinspan_core::wheel::Full;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Flight, Inbound, LinkState, Network, Odd, RUN_BYTES_MAX, RUN_DATAGRAMS_MAX, Refused,
    SentDatagram, Socket,
};
use crate::chaos::{Chaos, Leaving, OnArrival, Weather};
use crate::config::WIRE_DELAY_MIN;
use crate::slab::Key;
use crate::store::Payload;
use crate::trace::{Origin, TraceKind};
use crate::world::{Event, HostId, Hosts, State, ip_words};

impl State {
    /// Sends one datagram of a socket on its way.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        key: Key,
        datagram: &mut Datagram,
    ) -> Result<(), Refused> {
        let index = match self.flow_of(now, key, datagram.peer) {
            Ok(Some(index)) => index,
            Ok(None) => {
                self.faults.inject(FaultKind::QueueDrop);
                self.faults.observe(FaultKind::QueueDrop);
                self.record_unsent(now, key, datagram);
                return Ok(());
            }
            Err(refused) => {
                self.record_unsent(now, key, datagram);
                return Err(refused);
            }
        };
        let network = &mut self.network;
        let can_be_marked = network.sockets.get(key).is_some_and(|socket| socket.ecn);
        let ecn = if can_be_marked { Ecn::Capable } else { Ecn::Incapable };
        let flow = network.flows.get_mut(index as usize).ok_or(Refused)?;
        let link = flow.link as usize;
        let state = network.links.get_mut(link).ok_or(Refused)?;
        let (flow_key, number, ends) = (flow.key, flow.next_number, (flow.from, flow.to));
        flow.next_number += 1;
        flow.sent_at = now;
        let later = state.tamper(&mut datagram.packet);
        let bytes: &[u8] = &datagram.packet;
        if let Some(tape) = &mut network.tape {
            tape(&SentDatagram { at: now, from: flow.from, to: flow.to, bytes });
        }
        let mut hash = xxh3_64(bytes);
        self.trace.record(now, TraceKind::Send, [flow_key, number, bytes.len() as u64, hash]);
        let mut weather = Weather::default();
        if self.chaos.is_on && !state.is_loopback {
            let (way, delay) = (state.way, state.link.conditions().delay);
            let (flow, (from, to)) = (index, ends);
            let leaving = Leaving { flow, number, from, to, way, delay, flow_key, ecn };
            weather = self.weather(now, &leaving, &mut datagram.packet);
            if weather.is_changed {
                hash = xxh3_64(&datagram.packet);
            }
            if weather.lost == Some(FaultKind::Unreachable)
                && let Some(socket) = self.network.sockets.get_mut(key)
            {
                socket.has_error = true;
            }
        }
        let bytes: &[u8] = &datagram.packet;
        let state = self.network.links.get_mut(link).ok_or(Refused)?;
        let fate = if let Some(kind) = weather.lost {
            Fate::Lost(kind)
        } else if state.is_cut {
            self.faults.observe(FaultKind::Partition);
            Fate::Lost(FaultKind::Partition)
        } else {
            state.link.admit(now, flow_key, number, bytes.len(), &mut self.faults)
        };
        if let Fate::Lost(cause) = fate {
            self.trace.record(now, TraceKind::Drop, [flow_key, number, cause.index() as u64, hash]);
            return Ok(());
        }
        let earliest = now.after(WIRE_DELAY_MIN);
        for mut arrival in fate.arrivals() {
            let (at, marks) = weather.bend(arrival.at.after(later));
            arrival.at = at.max(earliest);
            let payload = self.network.store.copy(bytes);
            let odd = Odd { marks, from: weather.from }.boxed();
            let ecn = if weather.marks.has(FaultKind::EcnMark) { Ecn::Congested } else { ecn };
            let flight = Flight { flow: index, arrival, payload, ecn, hash, odd };
            self.launch(now, flight, flow_key);
        }
        Ok(())
    }

    /// A datagram that no link saw: it belongs to no flow, so the trace names its two ends.
    #[cold]
    fn record_unsent(&mut self, now: Timestamp, key: Key, datagram: &Datagram) {
        let socket = self.network.sockets.get(key);
        let who = socket.map_or(Origin::Outside, |socket| Origin::Host(socket.host));
        let [high, low] = ip_words(datagram.peer.ip());
        let bytes: &[u8] = &datagram.packet;
        let values =
            [high, low, u64::from(datagram.peer.port()), bytes.len() as u64, xxh3_64(bytes)];
        let what = (u64::from(key.index), who);
        self.trace.record_all(now, TraceKind::SendRefused, what, &values);
    }

    /// Puts a datagram on its way, or drops it when too many are.
    pub(crate) fn launch(&mut self, now: Timestamp, flight: Flight, flow_key: u64) {
        let (at, number, hash) = (flight.arrival.at, flight.arrival.number, flight.hash);
        let flow = flight.flow;
        let flight = if self.network.in_flight >= self.network.in_flight_max {
            flight
        } else {
            match self.wheel.insert(at, Event::Deliver(flight)) {
                // The wheel has room for all that may be in flight; a drop is the answer if not.
                Err(Full(Event::Deliver(flight))) => flight,
                Ok(_) | Err(_) => {
                    self.network.depart(flow);
                    return;
                }
            }
        };
        self.network.store.give(flight.payload);
        self.faults.inject(FaultKind::QueueDrop);
        self.faults.observe(FaultKind::QueueDrop);
        let cause = FaultKind::QueueDrop.index() as u64;
        self.trace.record(now, TraceKind::Drop, [flow_key, number, cause, hash]);
    }

    /// The flow from a socket to `peer`; `Ok(None)` when there are too many flows.
    fn flow_of(
        &mut self,
        now: Timestamp,
        key: Key,
        peer: SocketAddr,
    ) -> Result<Option<u32>, Refused> {
        let network = &mut self.network;
        let socket = network.sockets.get(key).ok_or(Refused)?;
        if let Some((known, flow)) = socket.last_flow
            && known == peer
            && let Some(known) = network.flows.get(flow as usize)
            // It may have been forgotten, and its place be another's.
            && (known.host, known.from.port(), known.to) == (socket.host, socket.local.port(), peer)
        {
            return Ok(Some(flow));
        }
        let (local, id) = (socket.local, socket.host);
        let host = self.hosts.get(id).ok_or(Refused)?;
        // As a kernel does: no other family, no port 0, and no way out of the loopback address.
        let is_near = peer.ip().is_loopback() || peer.ip() == host.ip;
        if peer.is_ipv4() != local.is_ipv4()
            || peer.port() == 0
            || peer.ip().is_unspecified()
            || (local.ip().is_loopback() && !is_near)
        {
            return Err(Refused);
        }
        let from = if !local.ip().is_unspecified() {
            local
        } else if peer.ip().is_loopback() {
            SocketAddr::new(peer.ip(), local.port())
        } else if host.ip.is_ipv4() == local.is_ipv4() {
            SocketAddr::new(host.ip, local.port())
        } else {
            return Err(Refused);
        };
        let host = (id, host.ip);
        self.forget_idle(now);
        let network = &mut self.network;
        let flow = network.flow(now, host, from, peer);
        if let (Some(socket), Some(flow)) = (network.sockets.get_mut(key), flow) {
            socket.last_flow = Some((peer, flow));
        }
        Ok(flow)
    }

    /// A datagram has come to where it was sent, or to where the topology takes over.
    pub(crate) fn deliver(&mut self, now: Timestamp, flight: Flight) {
        if let Some(flight) = self.divert(now, flight) {
            self.come(now, flight, None);
        }
    }

    /// A datagram has come to a host. `seen` are the two addresses on it where boxes may have
    /// changed them.
    pub(crate) fn come(
        &mut self,
        now: Timestamp,
        mut flight: Flight,
        seen: Option<(SocketAddr, SocketAddr)>,
    ) {
        self.network.land(flight.flow);
        let flow = self.network.flows.get(flight.flow as usize);
        let (flow_key, sent_from) = flow.map_or((0, None), |flow| (flow.key, Some(flow.from)));
        if self.chaos.is_on {
            if seen.is_some_and(|(from, _)| Some(from) != sent_from) {
                // A box on the way wrote its own address there.
                flight.forget_source();
            }
            match self.on_arrival(now, &mut flight) {
                OnArrival::Comes => {}
                OnArrival::Held(until) => {
                    flight.arrival.at = until;
                    self.hold_flight(now, flight, seen, flow_key);
                    return;
                }
                OnArrival::Lost(kind) => {
                    let (number, hash) = (flight.arrival.number, flight.hash);
                    self.network.store.give(flight.payload);
                    self.faults.observe(kind);
                    let ids = [flow_key, number, kind.index() as u64, hash];
                    self.trace.record(now, TraceKind::Drop, ids);
                    return;
                }
            }
        }
        let Flight { flow, arrival, payload, ecn, hash, odd } = flight;
        let Odd { marks, from } = odd.map_or_else(Odd::default, |odd| *odd);
        let what = (flow, arrival, (seen, from), ecn);
        let accepted =
            self.network.accept(now, what, payload, (&self.hosts, &self.chaos), &mut self.faults);
        if accepted.is_ok() && !marks.is_empty() {
            marks.observe(&mut self.faults);
        }
        let (kind, what) = match accepted {
            Ok(Accepted { key, gathers_until }) => {
                if ecn == Ecn::Congested {
                    let ids = [flow_key, arrival.number, u64::from(key.index), 0];
                    self.trace.record(now, TraceKind::Marked, ids);
                }
                if let Some(until) = gathers_until {
                    self.wake_later(key, until);
                }
                (TraceKind::Deliver, u64::from(key.index))
            }
            Err((cause, payload)) => {
                self.network.store.give(payload);
                // A cut is counted as injected when it is made.
                if cause != FaultKind::Partition {
                    self.faults.inject(cause);
                }
                self.faults.observe(cause);
                (TraceKind::Drop, cause.index() as u64)
            }
        };
        self.trace.record(now, kind, [flow_key, arrival.number, what, hash]);
    }

    /// Keeps a datagram where it came until later, or drops it when too many are on their way.
    fn hold_flight(
        &mut self,
        now: Timestamp,
        flight: Flight,
        seen: Option<(SocketAddr, SocketAddr)>,
        flow_key: u64,
    ) {
        let (at, number, hash) = (flight.arrival.at, flight.arrival.number, flight.hash);
        let flow = flight.flow;
        match self.wheel.insert(at, Event::Held(Box::new((flight, seen)))) {
            Ok(_) => self.network.depart(flow),
            Err(Full(event)) => {
                if let Event::Held(held) = event {
                    self.network.store.give(held.0.payload);
                }
                self.faults.inject(FaultKind::QueueDrop);
                self.faults.observe(FaultKind::QueueDrop);
                let cause = FaultKind::QueueDrop.index() as u64;
                self.trace.record(now, TraceKind::Drop, [flow_key, number, cause, hash]);
            }
        }
    }

    /// What planned faults do to a datagram that comes.
    fn on_arrival(&mut self, now: Timestamp, flight: &mut Flight) -> OnArrival {
        let Some(flow) = self.network.flows.get(flight.flow as usize) else {
            return OnArrival::Comes;
        };
        let (link, ends) = (flow.link, (flow.from, flow.to));
        match self.network.way(link) {
            Some(way) => self.weather_on_arrival(now, flight, way, ends),
            None => OnArrival::Comes,
        }
    }

    /// A socket that took nothing takes datagrams again.
    pub(crate) fn send_ready(&mut self, now: Timestamp, key: Key) {
        if let Some(socket) = self.network.sockets.get_mut(key) {
            self.trace.record(now, TraceKind::SendReady, [u64::from(key.index), 0, 0, 0]);
            socket.sender.wake();
        }
    }

    /// Wakes who waits for a socket's datagrams when enough have had time to gather.
    fn wake_later(&mut self, key: Key, at: Timestamp) {
        let Some(socket) = self.network.sockets.get_mut(key) else { return };
        if std::mem::replace(&mut socket.retry_due, true) {
            return;
        }
        // The wheel has room for one look of each socket; if not, there is no waiting.
        if self.wheel.insert(at, Event::ReceiveRetry(key)).is_err() {
            socket.retry_due = false;
            socket.receiver.wake();
        }
    }

    /// A socket looks again: its pool was empty, or its datagrams had time to gather.
    pub(crate) fn receive_retry(&mut self, now: Timestamp, key: Key) {
        let Some(socket) = self.network.sockets.get_mut(key) else { return };
        self.trace.record(now, TraceKind::ReceiveRetry, [u64::from(key.index), 0, 0, 0]);
        socket.retry_due = false;
        let until = socket.gathers_until;
        if until <= now {
            socket.receiver.wake();
        } else if !socket.queue.is_empty() {
            // Its task was awake meanwhile and took what there was: what came since gathers anew.
            self.wake_later(key, until);
        }
    }
}

impl LinkState {
    /// Counts a datagram that is sent, lets at it who asked to, and says how much later it comes.
    fn tamper(&mut self, bytes: &mut [u8]) -> Duration {
        let number = self.sent;
        self.sent += 1;
        let mut later = Duration::ZERO;
        while let Some(at) = self.tampers.iter().position(|(wanted, _)| *wanted == number) {
            let (_, tamper) = self.tampers.swap_remove(at);
            tamper(bytes, &mut later);
        }
        later
    }
}

impl Socket {
    /// The place of a datagram in the run at the end of the queue that it is joined with (GRO), or 0
    /// for one that begins a run: what follows in a run came at the same moment from the same peer,
    /// is as long as the first, or shorter and the last, and has the same marks.
    fn joined(&self, now: Timestamp, from: SocketAddr, (bytes, ecn): (usize, Ecn)) -> u8 {
        let Some(last) = self.queue.back().filter(|last| {
            self.joins && (last.at, last.from, last.ecn) == (now, from, ecn) && bytes > 0
        }) else {
            return 0;
        };
        let index = usize::from(last.run_index) + 1;
        let first = self.queue.len().checked_sub(index).and_then(|at| self.queue.get(at));
        let Some(segment) = first.map(|first| first.payload.as_slice().len()) else { return 0 };
        let is_like = last.payload.as_slice().len() == segment && bytes <= segment;
        let fits = index < RUN_DATAGRAMS_MAX && index * segment + bytes <= RUN_BYTES_MAX;
        // The limit is below 256.
        if is_like && fits { index as u8 } else { 0 }
    }

    /// The next datagram, with what is kept of the queue put right.
    pub(crate) fn take(&mut self) -> Option<Inbound> {
        let inbound = self.queue.pop_front()?;
        self.queued_bytes -= inbound.payload.as_slice().len();
        self.places -= usize::from(inbound.run_index == 0);
        Some(inbound)
    }
}

/// Into which socket a datagram went, and until when that lets others gather before it wakes anybody.
struct Accepted {
    key: Key,
    gathers_until: Option<Timestamp>,
}

/// What comes to a host: its flow, the arrival, whose it says to be, and what routers say.
type Coming = (u32, Arrival, Names, Ecn);

/// The addresses on a datagram where boxes may have changed them, and from where it seems to come if
/// a planned fault has it so.
type Names = (Option<(SocketAddr, SocketAddr)>, Option<SocketAddr>);

impl Flight {
    /// It seems to come from where it does.
    fn forget_source(&mut self) {
        if let Some(odd) = &mut self.odd {
            odd.from = None;
            odd.marks.remove(FaultKind::Spoof);
            odd.marks.remove(FaultKind::Rebind);
        }
    }

    /// That it comes is the effect of this too.
    pub(crate) fn mark(&mut self, kind: FaultKind) {
        self.odd.get_or_insert_default().marks.add(kind);
    }

    /// That it comes is no effect of this.
    pub(crate) fn unmark(&mut self, kind: FaultKind) {
        if let Some(odd) = &mut self.odd {
            odd.marks.remove(kind);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.payload.as_slice().len()
    }

    /// What tells it from all others of its flow, a copy of it included.
    pub(crate) fn coordinate(&self) -> u64 {
        self.arrival.number << 1 | u64::from(self.arrival.is_copy())
    }

    /// Turns one of its bits, if it has any.
    pub(crate) fn turn(&mut self, drawn: u64) {
        self.payload.turn_bit(drawn);
    }
}

impl Network {
    /// Whose flight it is, its two addresses and its flow's key.
    pub(crate) fn ends_of(&self, flight: &Flight) -> Option<(HostId, SocketAddr, SocketAddr, u64)> {
        let flow = self.flows.get(flight.flow as usize)?;
        Some((flow.host, flow.from, flow.to, flow.key))
    }

    /// Wishes for what is known of a flight's flow.
    pub(crate) fn prefetch_flow(&self, flight: &Flight) {
        if let Some(flow) = self.flows.get(flight.flow as usize) {
            prefetch::value(flow);
        }
        prefetch::value(flight.payload.as_slice());
    }

    /// Wishes for its link and for the socket that it comes to, after its flow.
    pub(crate) fn prefetch_ends(&self, flight: &Flight) {
        let Some(flow) = self.flows.get(flight.flow as usize) else { return };
        self.sockets.prefetch(flow.receiver);
        if let Some(link) = self.links.get(flow.link as usize) {
            prefetch::value(link);
        }
    }

    /// The socket that it will come to, as far as is known.
    pub(crate) fn receiver_of(&self, flight: &Flight) -> Option<&Socket> {
        self.sockets.get(self.flows.get(flight.flow as usize)?.receiver)
    }

    /// Wishes for who waits at the socket that it comes to, after that.
    pub(crate) fn prefetch_waker(&self, flight: &Flight) {
        let Some(socket) = self.receiver_of(flight) else { return };
        if let Some(waker) = &socket.receiver.waker {
            prefetch::bytes(waker.data().cast(), prefetch::LINE_BYTES);
        }
        let (queue, _) = socket.queue.as_slices();
        prefetch::bytes(queue.as_ptr().cast(), prefetch::LINE_BYTES);
    }

    /// Another of the same, in flight as well.
    pub(crate) fn copy_flight(&mut self, flight: &Flight) -> Flight {
        self.depart(flight.flow);
        let payload = self.store.copy(flight.payload.as_slice());
        let Flight { flow, arrival, ecn, hash, .. } = *flight;
        Flight { flow, arrival, payload, ecn, hash, odd: flight.odd.clone() }
    }

    /// It does not arrive anywhere.
    pub(crate) fn lose_flight(&mut self, flight: Flight) {
        self.land(flight.flow);
        self.store.give(flight.payload);
    }

    /// Puts a datagram into the queue of the socket that it is for, and names that, or gives it back
    /// with why nobody gets it.
    fn accept(
        &mut self,
        now: Timestamp,
        (flow, arrival, (seen, seems_from), ecn): Coming,
        payload: Payload,
        (hosts, chaos): (&Hosts, &Chaos),
        faults: &mut FaultCounters,
    ) -> Result<Accepted, (FaultKind, Payload)> {
        let Some(known) = self.flows.get(flow as usize) else {
            return Err((FaultKind::Unbound, payload));
        };
        let (mut from, mut to, link, mut key) = (known.from, known.to, known.link, known.receiver);
        if let Some(seen) = seen {
            (from, to) = seen;
            // What boxes do may change from one datagram of a flow to the next.
            key = Key::NOWHERE;
        }
        from = seems_from.unwrap_or(from);
        if self.links.get(link as usize).is_some_and(|state| state.is_cut) {
            return Err((FaultKind::Partition, payload));
        }
        if self.sockets.get(key).is_none() {
            let host = if to.ip().is_loopback() { Some(known.host) } else { hosts.at(to.ip()) };
            // A box on the way may have given the socket an outer address.
            let to = if chaos.is_on { chaos.inner(to) } else { to };
            let Some(found) = host.and_then(|host| self.receiver(host, to)) else {
                return Err((FaultKind::Unbound, payload));
            };
            key = found;
        }
        let Some(socket) = self.sockets.get_mut(key) else {
            return Err((FaultKind::Unbound, payload));
        };
        let bytes = payload.as_slice().len();
        let run_index = socket.joined(now, from, (bytes, ecn));
        if run_index == 0 && socket.places >= self.queue_datagrams_max
            || socket.queued_bytes + bytes > socket.bytes_max
        {
            return Err((FaultKind::ReceiveDrop, payload));
        }
        socket.queued_bytes += bytes;
        socket.places += usize::from(run_index == 0);
        let ecn = if socket.ecn { ecn } else { Ecn::Incapable };
        socket.queue.push_back(Inbound { from, at: now, payload, ecn, run_index });
        socket.queue_need.note(socket.queue.len());
        let gathers_until = Some(socket.gathers_until).filter(|until| now < *until);
        if gathers_until.is_none() {
            socket.receiver.wake();
        }
        if let Some(flow) = self.flows.get_mut(flow as usize) {
            flow.receiver = key;
            if let Some(state) = self.links.get_mut(link as usize) {
                state.link.arrived(flow.key, &arrival, faults);
            }
        }
        Ok(Accepted { key, gathers_until })
    }
}
