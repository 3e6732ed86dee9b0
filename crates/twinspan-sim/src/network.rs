//! Sockets, flows and links between simulated hosts.

mod traffic;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use twinspan_core::link::{Arrival, Conditions, Link};
use twinspan_core::need::{Need, fit_ring};
use twinspan_core::packet::{Ecn, PacketStock};
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;
use twinspan_provider::{BindError, Offload, UdpOptions};

use crate::chaos::Kinds;
use crate::config::{LOOPBACK_DELAY, SOCKETS_MAX, SimConfig};
use crate::key_table::KeyTable;
use crate::slab::{Key, Slab};
use crate::store::{Payload, Store};
use crate::trace::TraceKind;
use crate::world::{EPHEMERAL_PORT_FIRST, HostId, State, ip_words};

/// Pairs of socket addresses of one simulation; datagrams of further pairs are dropped and counted.
pub const FLOWS_MAX: usize = 1 << 22;
/// A flow in which nothing was sent for so long, and of which nothing is on its way, may be forgotten:
/// should it begin again, its numbers begin again. Far longer than anything is on its way.
pub const FLOW_IDLE: Duration = Duration::from_mins(10);
/// Flows from which on idle ones are looked for.
const FLOWS_SWEPT_MIN: usize = 16;
/// The smallest receive buffer that a socket is granted.
const RECEIVE_BUFFER_BYTES_MIN: usize = 2_048;
/// The largest.
const RECEIVE_BUFFER_BYTES_MAX: usize = 64 << 20;
/// The longest that datagrams are let gather, whatever the options say.
pub(crate) const GATHER_MAX: Duration = Duration::from_millis(5);

/// Datagrams of one run, split or joined: the least limit of a kernel that does it.
pub(crate) const RUN_DATAGRAMS_MAX: usize = 64;
/// Bytes of one run: what a length field of 16 bits holds, less room for headers.
pub(crate) const RUN_BYTES_MAX: usize = 65_000;

const _: () = assert!(RUN_DATAGRAMS_MAX <= u8::MAX as usize);

/// A datagram as it leaves, whatever becomes of it on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentDatagram<'a> {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What every datagram is shown to.
pub(crate) type Tape = Box<dyn FnMut(&SentDatagram<'_>)>;

/// Changes a datagram's bytes and lets it arrive later: a hook for tests of the trace.
pub(crate) type Tamper = Box<dyn FnOnce(&mut [u8], &mut Duration)>;

pub(crate) struct Network {
    pub(crate) tape: Option<Tape>,
    seed: u64,
    /// What links between two hosts are like, unless one was set by itself.
    conditions: Conditions,
    in_flight: usize,
    in_flight_max: usize,
    queue_datagrams_max: usize,
    pub(crate) short_send: f64,
    pub(crate) send_stall: f64,
    pub(crate) sockets: Slab<Socket>,
    bound: BTreeMap<(HostId, u16, IpAddr), Key>,
    flows: Vec<Flow>,
    flow_by_key: KeyTable,
    /// Places of forgotten flows, to be taken again.
    free_flows: Vec<u32>,
    /// With so many flows idle ones are looked for, and at this time with any number of them.
    sweep_at: usize,
    sweep_due: Timestamp,
    pub(crate) links: Vec<LinkState>,
    link_by_ends: BTreeMap<(IpAddr, IpAddr), u32>,
    /// Places of forgotten links, to be taken again.
    free_links: Vec<u32>,
    pub(crate) store: Store,
    /// What the pools of all sockets draw from: hosts have their turns one after another, so few
    /// buffers are in use at once, and these are in the caches.
    pub(crate) stock: PacketStock,
}

pub(crate) struct Socket {
    pub(crate) host: HostId,
    pub(crate) local: SocketAddr,
    /// What its own draws are keyed by.
    pub(crate) key: u64,
    pub(crate) queue: VecDeque<Inbound>,
    queue_need: Need,
    /// Places that the queue takes: a run of joined datagrams has one.
    places: usize,
    /// Whether datagrams that come together are joined (GRO).
    joins: bool,
    /// Whether runs are left to the kernel to be split (GSO).
    pub(crate) segmentation: Offload,
    /// Whether routers may mark what it sends, and it hears of marks.
    pub(crate) ecn: bool,
    pub(crate) queued_bytes: usize,
    pub(crate) bytes_max: usize,
    pub(crate) receiver: Waiting,
    pub(crate) sender: Waiting,
    /// Until when it takes nothing.
    pub(crate) stalled_until: Timestamp,
    /// Whether a look after an empty pool is due.
    pub(crate) retry_due: bool,
    pub(crate) send_calls: u64,
    /// Whether the next send fails because of an ICMP answer.
    pub(crate) has_error: bool,
    /// Before when a slow consumer takes nothing.
    pub(crate) takes_at: Timestamp,
    /// How long datagrams gather once all that had come was taken.
    pub(crate) gather: Duration,
    /// Until when what comes wakes nobody, so that it gathers.
    pub(crate) gathers_until: Timestamp,
    last_flow: Option<(SocketAddr, u32)>,
}

/// Who waits for a socket.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) waker: Option<Waker>,
    /// Whether it still waits.
    pub(crate) is_armed: bool,
}

impl Waiting {
    pub(crate) fn wake(&mut self) {
        if std::mem::take(&mut self.is_armed)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }
}

/// A datagram that waits to be received.
pub(crate) struct Inbound {
    pub(crate) from: SocketAddr,
    pub(crate) at: Timestamp,
    pub(crate) payload: Payload,
    pub(crate) ecn: Ecn,
    /// The how-manyth of its run, from 0: one that was joined with none is a run of its own.
    run_index: u8,
}

/// All that one address ever sends to another, numbered through.
struct Flow {
    host: HostId,
    from: SocketAddr,
    to: SocketAddr,
    /// Made from the addresses: the same in every run, whatever else there is.
    key: u64,
    link: u32,
    next_number: u64,
    /// Who received last; looked up again when it is gone.
    receiver: Key,
    /// When something was sent last.
    sent_at: Timestamp,
    /// Datagrams of it that are on their way.
    in_flight: u32,
}

pub(crate) struct LinkState {
    /// The two hosts.
    pub(crate) way: (IpAddr, IpAddr),
    pub(crate) link: Link,
    pub(crate) is_cut: bool,
    pub(crate) is_loopback: bool,
    /// Whether it was made what it is by hand.
    is_set: bool,
    /// Datagrams sent over it.
    sent: u64,
    tampers: Vec<(u64, Tamper)>,
}

/// A datagram on its way. There are as many as wait in the queue of events, so it is small.
pub(crate) struct Flight {
    pub(crate) flow: u32,
    pub(crate) arrival: Arrival,
    pub(crate) payload: Payload,
    pub(crate) ecn: Ecn,
    pub(crate) hash: u64,
    /// What planned faults made of it, which is nothing but where they do.
    pub(crate) odd: Option<Box<Odd>>,
}

const _: () = assert!(size_of::<Flight>() <= 72);

/// What planned faults made of a datagram.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Odd {
    /// Those whose effect is that it comes.
    pub(crate) marks: Kinds,
    /// From where it seems to come, if not from where it does.
    pub(crate) from: Option<SocketAddr>,
}

impl Odd {
    /// Apart, where there is anything.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// Why a datagram was not sent.
pub(crate) struct Refused;

impl Network {
    pub(crate) fn new(config: &SimConfig) -> Self {
        Self {
            tape: None,
            seed: config.seed,
            conditions: config.conditions.clamped(),
            in_flight: 0,
            in_flight_max: config.in_flight_max,
            queue_datagrams_max: config.receive_queue_datagrams_max,
            short_send: config.short_send,
            send_stall: config.send_stall,
            sockets: Slab::new(SOCKETS_MAX),
            bound: BTreeMap::new(),
            flows: Vec::new(),
            flow_by_key: KeyTable::default(),
            free_flows: Vec::new(),
            sweep_at: FLOWS_SWEPT_MIN,
            sweep_due: Timestamp::START.after(FLOW_IDLE),
            links: Vec::new(),
            link_by_ends: BTreeMap::new(),
            free_links: Vec::new(),
            store: Store::default(),
            stock: PacketStock::default(),
        }
    }

    /// The two hosts of a link, unless they are one.
    pub(crate) fn way(&self, link: u32) -> Option<(IpAddr, IpAddr)> {
        let state = self.links.get(link as usize)?;
        (!state.is_loopback).then_some(state.way)
    }

    /// All ways from one host to another that were ever gone, in order.
    pub(crate) fn ways(&self) -> Vec<(IpAddr, IpAddr)> {
        self.link_by_ends.keys().copied().filter(|(from, to)| from != to).collect()
    }

    /// Wakes who waits for datagrams on a host's sockets; how many did.
    pub(crate) fn wake_for_nothing(&mut self, host: HostId) -> usize {
        let keys = self.sockets.keys(|socket| socket.host == host && socket.receiver.is_armed);
        for key in &keys {
            if let Some(socket) = self.sockets.get_mut(*key) {
                socket.receiver.wake();
            }
        }
        keys.len()
    }

    /// A period ended: what a rare burst made queues and stores take is given back.
    pub(crate) fn fit(&mut self) {
        for socket in self.sockets.values_mut() {
            fit_ring(&mut socket.queue, &mut socket.queue_need);
        }
        self.store.fit();
        self.stock.fit();
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A datagram of a flow is on its way.
    pub(crate) fn depart(&mut self, flow: u32) {
        self.in_flight += 1;
        if let Some(flow) = self.flows.get_mut(flow as usize) {
            flow.in_flight += 1;
        }
    }

    /// It is so no longer.
    pub(crate) fn land(&mut self, flow: u32) {
        self.in_flight -= 1;
        if let Some(flow) = self.flows.get_mut(flow as usize) {
            flow.in_flight -= 1;
        }
    }

    /// Whether anything was ever sent.
    pub(crate) fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Places in the table of flows, those of forgotten ones too.
    #[cfg(test)]
    pub(crate) fn places_of_flows(&self) -> usize {
        self.flows.len()
    }

    /// Links that are known.
    #[cfg(test)]
    pub(crate) fn links_known(&self) -> usize {
        self.link_by_ends.len()
    }

    /// From whom to whom each flow goes that is known, by its key.
    pub(crate) fn flow_ends(&self) -> BTreeMap<u64, (SocketAddr, SocketAddr)> {
        let known = self.flows.iter().filter(|flow| flow.host != HostId::NOBODY);
        known.map(|flow| (flow.key, (flow.from, flow.to))).collect()
    }

    /// What all links between two hosts are like from now on.
    pub(crate) fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions.clamped();
        for state in self.links.iter_mut().filter(|state| !state.is_loopback) {
            state.link.set_conditions(conditions);
        }
    }

    pub(crate) fn set_link(&mut self, from: IpAddr, to: IpAddr, conditions: Conditions) {
        let index = self.link(from, to);
        if let Some(state) = self.links.get_mut(index as usize) {
            state.link.set_conditions(conditions);
            state.is_set = true;
        }
    }

    /// Cuts the way from one host to another; false when it was cut already.
    pub(crate) fn cut(&mut self, from: IpAddr, to: IpAddr) -> bool {
        let index = self.link(from, to);
        let state = self.links.get_mut(index as usize);
        state.is_some_and(|state| !std::mem::replace(&mut state.is_cut, true))
    }

    pub(crate) fn heal_all(&mut self) {
        self.links.iter_mut().for_each(|state| state.is_cut = false);
    }

    /// Lets `tamper` at datagram `number` from one host to another.
    pub(crate) fn tamper(&mut self, from: IpAddr, to: IpAddr, number: u64, tamper: Tamper) {
        let index = self.link(from, to);
        if let Some(state) = self.links.get_mut(index as usize) {
            state.tampers.push((number, tamper));
        }
    }

    /// The link from one host to another, made on first use.
    pub(crate) fn link(&mut self, from: IpAddr, to: IpAddr) -> u32 {
        if let Some(index) = self.link_by_ends.get(&(from, to)) {
            return *index;
        }
        let ([a, b], [c, d]) = (ip_words(from), ip_words(to));
        let mut link = Link::new(self.seed, draw(0, &[a, b, c, d]));
        let is_loopback = from == to;
        link.set_conditions(if is_loopback {
            Conditions { delay: LOOPBACK_DELAY, ..Conditions::CLEAN }
        } else {
            self.conditions
        });
        // Links are made by flows and connections, which are bounded, and by the caller's own hand.
        let index = self.free_links.pop().unwrap_or(self.links.len() as u32);
        let (way, tampers) = ((from, to), Vec::new());
        let (is_cut, is_set) = (false, false);
        let state = LinkState { way, link, is_cut, is_loopback, is_set, sent: 0, tampers };
        match self.links.get_mut(index as usize) {
            Some(place) => *place = state,
            None => self.links.push(state),
        }
        self.link_by_ends.insert((from, to), index);
        index
    }

    /// Forgets the flows that were idle for long, when there are many or that was long ago; their places in
    /// the table.
    fn sweep_flows(&mut self, now: Timestamp) -> Vec<u32> {
        if self.flow_by_key.len() < self.sweep_at && now < self.sweep_due {
            return Vec::new();
        }
        let mut forgotten = Vec::new();
        for (flow, index) in self.flows.iter_mut().zip(0..) {
            let is_idle = flow.in_flight == 0 && now >= flow.sent_at.after(FLOW_IDLE);
            if flow.host == HostId::NOBODY || !is_idle {
                continue;
            }
            flow.host = HostId::NOBODY;
            self.flow_by_key.remove(flow.key);
            if let Some(state) = self.links.get_mut(flow.link as usize) {
                state.link.forget(flow.key);
            }
            forgotten.push(index);
        }
        self.free_flows.extend_from_slice(&forgotten);
        self.sweep_at = (2 * self.flow_by_key.len()).max(FLOWS_SWEPT_MIN);
        self.sweep_due = now.after(FLOW_IDLE);
        forgotten
    }

    /// Marks the links of flows that are known, by their places in the table.
    fn mark_links(&self, used: &mut [bool]) {
        for flow in self.flows.iter().filter(|flow| flow.host != HostId::NOBODY) {
            mark(used, flow.link);
        }
    }

    /// The flow from a socket of `host` to an address; `None` when there are too many.
    fn flow(
        &mut self,
        now: Timestamp,
        host: (HostId, IpAddr),
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<u32> {
        let (host, ip) = host;
        let ([a, b], [c, d], [e, f]) = (ip_words(ip), ip_words(from.ip()), ip_words(to.ip()));
        let ports = u64::from(from.port()) << 16 | u64::from(to.port());
        let mut key = draw(0, &[a, b, c, d, e, f, ports]);
        while let Some(index) = self.flow_by_key.get(key) {
            let flow = self.flows.get(index as usize)?;
            if (flow.host, flow.from, flow.to) == (host, from, to) {
                return Some(index);
            }
            key = draw(key, &[1]);
        }
        if self.flow_by_key.len() >= FLOWS_MAX {
            return None;
        }
        let far_ip = if to.ip().is_loopback() { ip } else { to.ip() };
        let link = self.link(ip, far_ip);
        let flow = Flow {
            host,
            from,
            to,
            key,
            link,
            next_number: 0,
            receiver: Key::NOWHERE,
            sent_at: now,
            in_flight: 0,
        };
        // The limit is below 2^32.
        let index = self.free_flows.pop().unwrap_or(self.flows.len() as u32);
        match self.flows.get_mut(index as usize) {
            Some(place) => *place = flow,
            None => self.flows.push(flow),
        }
        self.flow_by_key.insert(key, index);
        Some(index)
    }

    /// Which socket of a host a datagram for `to` belongs to.
    fn receiver(&self, host: HostId, to: SocketAddr) -> Option<Key> {
        let bound = |ip| self.bound.get(&(host, to.port(), ip)).copied();
        bound(to.ip()).or_else(|| bound(unspecified_like(to.ip())))
    }

    /// Whether a socket of the host stands in the way of another one at `local`.
    fn is_taken(&self, host: HostId, local: SocketAddr) -> bool {
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let highest = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));
        let range = (host, local.port(), lowest)..=(host, local.port(), highest);
        self.bound.range(range).any(|((_, _, ip), _)| {
            ip.is_ipv4() == local.is_ipv4()
                && (*ip == local.ip() || ip.is_unspecified() || local.ip().is_unspecified())
        })
    }

    /// Takes all sockets of the wanted hosts away.
    pub(crate) fn unbind_all(&mut self, wanted: impl Fn(HostId) -> bool) -> Vec<Socket> {
        let keys = self.sockets.keys(|socket| wanted(socket.host));
        keys.into_iter().filter_map(|key| self.unbind(key)).collect()
    }

    pub(crate) fn unbind(&mut self, key: Key) -> Option<Socket> {
        let mut socket = self.sockets.remove(key)?;
        self.bound.remove(&(socket.host, socket.local.port(), socket.local.ip()));
        for inbound in socket.queue.drain(..) {
            self.store.give(inbound.payload);
        }
        Some(socket)
    }
}

impl Socket {
    /// Wakes whoever waits for it, because it is gone.
    pub(crate) fn wake_all(&self) {
        let wakers = [&self.receiver.waker, &self.sender.waker];
        wakers.into_iter().flatten().for_each(Waker::wake_by_ref);
    }
}

/// Marks a link as one that is used.
pub(crate) fn mark(used: &mut [bool], link: u32) {
    if let Some(place) = used.get_mut(link as usize) {
        *place = true;
    }
}

/// The address of the same family that stands for all of a host's.
pub(crate) fn unspecified_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

impl State {
    /// Forgets the flows that were idle for long, when there are many, and then the links to addresses
    /// that no host has and over which nothing goes any more: those of forged addresses.
    fn forget_idle(&mut self, now: Timestamp) {
        let forgotten = self.network.sweep_flows(now);
        if forgotten.is_empty() {
            return;
        }
        forgotten.into_iter().for_each(|flow| self.chaos.forget_flow(flow));
        let mut used = vec![false; self.network.links.len()];
        self.network.mark_links(&mut used);
        self.streams.mark_links(&mut used);
        self.segments.mark_links(&mut used);
        let Network { links, link_by_ends, free_links, .. } = &mut self.network;
        for ((state, is_used), index) in links.iter_mut().zip(used).zip(0..) {
            let (from, to) = state.way;
            let is_plain = !state.is_cut && !state.is_set && state.tampers.is_empty();
            let is_strange = self.hosts.at(from).is_none() || self.hosts.at(to).is_none();
            // One that was forgotten before is in the table no more, or another's place is.
            let is_known = link_by_ends.get(&state.way) == Some(&index);
            if !is_used && is_plain && is_strange && is_known {
                link_by_ends.remove(&state.way);
                free_links.push(index);
            }
        }
    }

    pub(crate) fn bind(
        &mut self,
        now: Timestamp,
        host: (HostId, u32),
        local: SocketAddr,
        options: &UdpOptions,
    ) -> Result<(Key, SocketAddr, usize), BindError> {
        let refuse = |address, what: &str, kind| {
            let source = io::Error::new(kind, what);
            Err(BindError::Os { address, source })
        };
        let (id, incarnation) = host;
        if let Some(source) = self.no_descriptor(now, id) {
            return Err(BindError::Os { address: local, source });
        }
        let network = &mut self.network;
        let Some(host) = self.hosts.running(id, incarnation) else {
            return refuse(local, "the simulated host is stopped", io::ErrorKind::NetworkDown);
        };
        let [high, low] = ip_words(local.ip());
        let ids = [u64::from(id.0), high, low, u64::from(local.port())];
        let ip = local.ip();
        if !(ip.is_unspecified() || ip.is_loopback() || ip == host.ip) {
            self.trace.record(now, TraceKind::BindRefused, ids);
            return Err(BindError::NotLocal(local));
        }
        let bound = if local.port() == 0 {
            let ports = u32::from(u16::MAX - EPHEMERAL_PORT_FIRST) + 1;
            let mut found = None;
            for _ in 0..ports {
                let port = SocketAddr::new(ip, host.next_port);
                host.next_port = host.next_port.checked_add(1).unwrap_or(EPHEMERAL_PORT_FIRST);
                if !network.is_taken(id, port) {
                    found = Some(port);
                    break;
                }
            }
            found
        } else {
            (!network.is_taken(id, local)).then_some(local)
        };
        let Some(bound) = bound else {
            self.trace.record(now, TraceKind::BindRefused, ids);
            return Err(BindError::Taken(local));
        };
        let wanted = options.receive_buffer_bytes;
        let bytes_max = wanted.clamp(RECEIVE_BUFFER_BYTES_MIN, RECEIVE_BUFFER_BYTES_MAX);
        let socket = Socket {
            host: id,
            local: bound,
            key: draw(host.seed, &[high, low, u64::from(bound.port())]),
            queue: VecDeque::new(),
            queue_need: Need::new(),
            places: 0,
            joins: options.coalesce_receives,
            segmentation: if options.segment_sends { Offload::On } else { Offload::Off },
            ecn: options.ecn,
            queued_bytes: 0,
            bytes_max,
            receiver: Waiting::default(),
            sender: Waiting::default(),
            stalled_until: Timestamp::START,
            retry_due: false,
            send_calls: 0,
            has_error: false,
            takes_at: Timestamp::START,
            gather: options.gather.min(GATHER_MAX),
            gathers_until: Timestamp::START,
            last_flow: None,
        };
        let Some(key) = network.sockets.insert_with(|_| socket) else {
            return refuse(local, "the simulation has too many sockets", io::ErrorKind::Other);
        };
        network.bound.insert((id, bound.port(), ip), key);
        let [a, b, c, _] = ids;
        self.trace.record(now, TraceKind::Bind, [a, b, c, u64::from(bound.port())]);
        Ok((key, bound, bytes_max))
    }

    /// Takes a socket away, if its host was not stopped before.
    pub(crate) fn unbind(&mut self, now: Timestamp, key: Key) -> Option<Socket> {
        let socket = self.network.unbind(key)?;
        self.trace.record(now, TraceKind::Unbind, [u64::from(key.index), 0, 0, 0]);
        Some(socket)
    }
}
