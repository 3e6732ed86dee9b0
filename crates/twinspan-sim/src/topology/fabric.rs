//! A topology at work: packets from node to node, queues in front of rates, boxes on the way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::packet::Ecn;
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::channel::{Channel, Passage};
use super::nat::{Ends, Nat, Transport};
use super::queue::PacketQueue;
use super::routes::{CoreTooLarge, Routes, Way};
use super::{
    HOPS_MAX, LinkReport, LinkSpec, LinkState, MTU_DEFAULT, Node, PACKETS_MAX, Topology,
    TopologyError,
};
use crate::network::Flight;
use crate::segment::Wire;
use crate::slab::{Key, Slab};
use crate::trace::TraceKind;
use crate::world::{Event, State};

/// Headers of IP and UDP.
const UDP_HEADER_BYTES: [u32; 2] = [28, 48];
/// Apart from packets' own numbers: the flow of a copy.
const COPY: u64 = 0xc0;
/// What the trace calls a fault at a box, beside what is done to the topology by hand.
const TOPOLOGY_STRUCK: u64 = 9;

pub(crate) struct Fabric {
    pub(super) nodes: Vec<Place>,
    node_by_ip: BTreeMap<IpAddr, u32>,
    pub(super) node_by_name: BTreeMap<String, u32>,
    pub(super) links: Vec<Pipe>,
    pub(super) link_by_name: BTreeMap<String, u32>,
    routes: Routes,
    air: Slab<Transit>,
}

/// What stands at a node.
pub(super) enum Place {
    Host(IpAddr),
    Router,
    /// With the nodes next to it that are behind it.
    Guard {
        nat: Box<Nat>,
        inside: Vec<u32>,
    },
}

/// One link at work.
pub(super) struct Pipe {
    name: u64,
    from: u32,
    to: u32,
    pub(super) spec: LinkSpec,
    pub(super) state: LinkState,
    queue: PacketQueue<Key>,
    /// What is being sent at the link's rate.
    sending: Option<Key>,
    channel: Channel,
    report: LinkReport,
}

/// A packet between two nodes.
pub(crate) struct Transit {
    pub(crate) transport: Transport,
    /// The addresses that are written on it; boxes change them.
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// With all headers.
    pub(crate) bytes: u32,
    /// What its draws are keyed by.
    pub(crate) flow: u64,
    pub(crate) number: u64,
    pub(crate) ends: Ends,
    pub(crate) can_be_marked: bool,
    pub(crate) is_marked: bool,
    pub(crate) hops: u8,
    /// The link that it is on.
    pub(crate) link: u32,
    pub(crate) cargo: Cargo,
}

/// What a packet carries.
pub(crate) enum Cargo {
    Datagram(Flight),
    Segment(Wire),
}

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Cause {
    NoRoute = 1,
    TooManyHops = 2,
    Box = 3,
    Cut = 4,
    TooLong = 5,
    QueueFull = 6,
    QueueEarly = 7,
    Lost = 8,
    TooManyPackets = 9,
}

impl Cause {
    /// The fault that it is an effect of; not all are faults.
    fn fault(self) -> FaultKind {
        match self {
            Self::NoRoute | Self::TooManyHops | Self::Box => FaultKind::Unbound,
            Self::Cut => FaultKind::Partition,
            Self::Lost => FaultKind::Loss,
            Self::TooLong | Self::QueueFull | Self::QueueEarly | Self::TooManyPackets => {
                FaultKind::QueueDrop
            }
        }
    }
}

/// What became of a packet at a node.
enum Step {
    /// It waits, or is on its way.
    Moves,
    /// It is where it was sent.
    Out(Transit),
    Lost(Transit, Cause),
}

impl Fabric {
    pub(super) fn new(seed: u64, topology: Topology) -> Result<Self, TopologyError> {
        topology.check()?;
        let Topology { nodes, links } = topology;
        let mut node_by_name = BTreeMap::new();
        for (index, (name, _)) in (0..).zip(&nodes) {
            node_by_name.insert(name.clone(), index);
        }
        let at = |name: &str| node_by_name.get(name).copied().unwrap_or(u32::MAX);
        let mut pipes = Vec::with_capacity(links.len());
        let mut link_by_name = BTreeMap::new();
        for (index, cable) in (0..).zip(links) {
            let name = xxh3_64(cable.name.as_bytes());
            link_by_name.insert(cable.name, index);
            pipes.push(Pipe {
                name,
                from: at(&cable.from),
                to: at(&cable.to),
                queue: PacketQueue::new(cable.spec.queue),
                spec: cable.spec,
                state: LinkState::Up,
                sending: None,
                channel: Channel::new(draw(seed, &[name])),
                report: LinkReport::default(),
            });
        }
        let mut node_by_ip = BTreeMap::new();
        let mut places = Vec::with_capacity(nodes.len());
        for (index, (name, node)) in (0..).zip(nodes) {
            let (place, ip) = match node {
                Node::Host(ip) => (Place::Host(ip), Some(ip)),
                Node::Router => (Place::Router, None),
                Node::Box { outer, inside, config } => {
                    let key = draw(seed, &[xxh3_64(name.as_bytes()), 1]);
                    let nat = Box::new(Nat::new(config, key, outer));
                    let inside = inside.iter().map(|name| at(name)).collect();
                    (Place::Guard { nat, inside }, outer)
                }
            };
            places.push(place);
            if let Some(ip) = ip {
                node_by_ip.insert(ip, index);
            }
        }
        let routes = routes(places.len(), &pipes)?;
        Ok(Self {
            nodes: places,
            node_by_ip,
            node_by_name,
            links: pipes,
            link_by_name,
            routes,
            air: Slab::new(PACKETS_MAX),
        })
    }

    /// The node of this name, if it is a box.
    fn boxed(&self, name: &str) -> Option<u32> {
        let node = *self.node_by_name.get(name)?;
        let place = self.nodes.get(node as usize)?;
        matches!(place, Place::Guard { .. }).then_some(node)
    }

    /// The node that has an address.
    pub(crate) fn node(&self, ip: IpAddr) -> Option<u32> {
        self.node_by_ip.get(&ip).copied()
    }

    /// The longest packet that goes from one address towards another, as far as routes say: up to
    /// the box that has the address.
    pub(crate) fn mtu(&mut self, from: IpAddr, to: IpAddr) -> u32 {
        let (Some(mut node), Some(to)) = (self.node(from), self.node(to)) else {
            return MTU_DEFAULT;
        };
        let mut mtu = u32::MAX;
        for _ in 0..HOPS_MAX {
            let Some(link) = self.routes.next(node, to) else { break };
            let Some(pipe) = self.links.get(link as usize) else { break };
            mtu = mtu.min(pipe.spec.mtu);
            node = pipe.to;
        }
        if mtu == u32::MAX { MTU_DEFAULT } else { mtu }
    }

    fn mtu_of(&self, link: u32) -> u32 {
        self.links.get(link as usize).map_or(0, |pipe| pipe.spec.mtu)
    }

    /// Lets routes be found anew after links went up or down.
    pub(super) fn reroute(&mut self) -> Result<(), TopologyError> {
        self.routes = routes(self.nodes.len(), &self.links)?;
        Ok(())
    }

    pub(super) fn set_spec(&mut self, link: u32, spec: LinkSpec) {
        if let Some(pipe) = self.links.get_mut(link as usize) {
            pipe.queue.set_spec(spec.queue);
            pipe.spec = spec;
        }
    }

    /// Lets a box forget its mappings, and perhaps have another outer address.
    pub(super) fn rebind(&mut self, node: u32, outer: Option<IpAddr>) {
        let Some(Place::Guard { nat, .. }) = self.nodes.get_mut(node as usize) else { return };
        let before = nat.outer();
        nat.rebind(outer);
        if let (Some(before), Some(after)) = (before, nat.outer()) {
            self.node_by_ip.remove(&before);
            self.node_by_ip.insert(after, node);
        }
    }

    pub(super) fn report(&self, link: u32) -> LinkReport {
        self.links.get(link as usize).map_or_else(LinkReport::default, |pipe| LinkReport {
            queue_bytes_high: pipe.queue.bytes_high(),
            ..pipe.report
        })
    }
}

fn routes(nodes: usize, links: &[Pipe]) -> Result<Routes, TopologyError> {
    let ways: Vec<_> = links
        .iter()
        .map(|pipe| Way {
            from: pipe.from,
            to: pipe.to,
            cost: pipe.spec.cost,
            is_up: pipe.state != LinkState::Down,
        })
        .collect();
    let too_large = |CoreTooLarge(nodes)| TopologyError::CoreTooLarge { nodes };
    Routes::new(nodes, &ways).map_err(too_large)
}

impl State {
    /// The boxes of the topology, in order.
    pub(crate) fn box_names(&self) -> Vec<String> {
        let Some(fabric) = &self.fabric else { return Vec::new() };
        let names = fabric.node_by_name.keys();
        names.filter(|name| fabric.boxed(name).is_some()).cloned().collect()
    }

    /// Whether there is a box of this name.
    pub(crate) fn is_box(&self, name: &str) -> bool {
        self.fabric.as_ref().is_some_and(|fabric| fabric.boxed(name).is_some())
    }

    /// Strikes a box: it forgets its mappings, or starts again.
    pub(crate) fn strike_box(&mut self, now: Timestamp, kind: FaultKind, name: &str) {
        let Some(node) = self.fabric.as_ref().and_then(|fabric| fabric.boxed(name)) else { return };
        let place = self.fabric.as_mut().and_then(|fabric| fabric.nodes.get_mut(node as usize));
        let Some(Place::Guard { nat, .. }) = place else { return };
        match kind {
            FaultKind::NatRebind => nat.restart(),
            _ => nat.time_out(),
        }
        let ids = [TOPOLOGY_STRUCK, xxh3_64(name.as_bytes()), kind.index() as u64, 0];
        self.trace.record(now, TraceKind::Topology, ids);
    }

    /// Takes a datagram whose way is the topology's; gives back any other.
    pub(crate) fn divert(&mut self, now: Timestamp, flight: Flight) -> Option<Flight> {
        let Some(fabric) = &self.fabric else { return Some(flight) };
        let Some((host, from, to, flow)) = self.network.ends_of(&flight) else {
            return Some(flight);
        };
        let Some(host) = self.hosts.get(host) else { return Some(flight) };
        if to.ip().is_loopback() || to.ip() == host.ip {
            return Some(flight);
        }
        let node = fabric.node(host.ip);
        if node.is_none() && fabric.node(to.ip()).is_none() {
            return Some(flight);
        }
        let header = if to.is_ipv4() { UDP_HEADER_BYTES[0] } else { UDP_HEADER_BYTES[1] };
        let transit = Transit {
            transport: Transport::Udp,
            from,
            to,
            // A packet buffer holds far less than 2^32 bytes.
            bytes: header + flight.len() as u32,
            flow,
            number: flight.coordinate(),
            ends: Ends::default(),
            can_be_marked: flight.ecn.can_be_marked(),
            is_marked: false,
            hops: 0,
            link: u32::MAX,
            cargo: Cargo::Datagram(flight),
        };
        self.enter_fabric(now, node, transit);
        None
    }

    /// Lets a packet begin its way at a node; one that stands nowhere has none.
    pub(crate) fn enter_fabric(&mut self, now: Timestamp, node: Option<u32>, transit: Transit) {
        let Some(mut fabric) = self.fabric.take() else { return };
        let step = match node {
            Some(node) => self.forward(now, &mut fabric, node, transit),
            None => Step::Lost(transit, Cause::NoRoute),
        };
        self.fabric = Some(fabric);
        self.finish(now, step);
    }

    /// A packet has come over a link.
    pub(crate) fn hop(&mut self, now: Timestamp, key: Key) {
        let Some(mut fabric) = self.fabric.take() else { return };
        let step = match fabric.air.remove(key) {
            Some(transit) => self.arrive(now, &mut fabric, transit),
            None => Step::Moves,
        };
        self.fabric = Some(fabric);
        self.finish(now, step);
    }

    /// A link has sent a packet at its rate and takes the next one.
    pub(crate) fn link_ready(&mut self, now: Timestamp, link: u32) {
        let Some(mut fabric) = self.fabric.take() else { return };
        let mut lost = Vec::new();
        if let Some(pipe) = fabric.links.get_mut(link as usize)
            && let Some(key) = pipe.sending.take()
            && let Some(transit) = fabric.air.remove(key)
        {
            if let Step::Lost(transit, cause) = self.propagate(now, &mut fabric, link, transit) {
                lost.push((transit, cause));
            }
            self.send_next(now, &mut fabric, link, &mut lost);
        }
        self.fabric = Some(fabric);
        for (transit, cause) in lost {
            self.finish(now, Step::Lost(transit, cause));
        }
    }

    fn arrive(&mut self, now: Timestamp, fabric: &mut Fabric, transit: Transit) -> Step {
        let Some(pipe) = fabric.links.get_mut(transit.link as usize) else {
            return Step::Lost(transit, Cause::NoRoute);
        };
        if pipe.state == LinkState::Cut {
            pipe.report.cut += 1;
            return Step::Lost(transit, Cause::Cut);
        }
        pipe.report.delivered += 1;
        pipe.report.delivered_bytes += u64::from(transit.bytes);
        let (node, name) = (pipe.to, pipe.name);
        let ids = [name, transit.flow, transit.number, 0];
        self.trace.record(now, TraceKind::Hop, ids);
        self.forward(now, fabric, node, transit)
    }

    /// What a node does with a packet.
    fn forward(
        &mut self,
        now: Timestamp,
        fabric: &mut Fabric,
        node: u32,
        mut transit: Transit,
    ) -> Step {
        let came_from = fabric.links.get(transit.link as usize).map(|pipe| pipe.from);
        let mut to = fabric.node_by_ip.get(&transit.to.ip()).copied();
        let mut next = to.and_then(|to| fabric.routes.next(node, to));
        let next_node = next.and_then(|link| fabric.links.get(link as usize)).map(|pipe| pipe.to);
        match fabric.nodes.get_mut(node as usize) {
            Some(Place::Host(ip)) if *ip == transit.to.ip() => return Step::Out(transit),
            // A host sends what is its own and forwards nothing.
            Some(Place::Host(_)) if came_from.is_some() => {
                return Step::Lost(transit, Cause::NoRoute);
            }
            Some(Place::Guard { nat, inside }) => {
                let is_inner = came_from.is_some_and(|from| inside.contains(&from));
                // What goes from the inside to the inside is not the box's business.
                if !(is_inner && next_node.is_some_and(|node| inside.contains(&node))) {
                    let passed = guard(now, nat, is_inner, to == Some(node), &mut transit);
                    while let Some(kind) = nat.take_effect() {
                        self.faults.observe(kind);
                    }
                    if let Err(cause) = passed {
                        return Step::Lost(transit, cause);
                    }
                    to = fabric.node_by_ip.get(&transit.to.ip()).copied();
                    next = to.and_then(|to| fabric.routes.next(node, to));
                }
            }
            Some(_) => {}
            None => return Step::Lost(transit, Cause::NoRoute),
        }
        transit.hops += 1;
        if transit.hops > HOPS_MAX {
            return Step::Lost(transit, Cause::TooManyHops);
        }
        let Some(link) = next else { return Step::Lost(transit, Cause::NoRoute) };
        self.offer(now, fabric, link, transit)
    }

    /// Gives a packet to a link.
    fn offer(
        &mut self,
        now: Timestamp,
        fabric: &mut Fabric,
        link: u32,
        mut transit: Transit,
    ) -> Step {
        let Some(pipe) = fabric.links.get_mut(link as usize) else {
            return Step::Lost(transit, Cause::NoRoute);
        };
        transit.link = link;
        if pipe.state != LinkState::Up {
            pipe.report.cut += 1;
            return Step::Lost(transit, Cause::Cut);
        }
        if transit.bytes > pipe.spec.mtu {
            pipe.report.too_long += 1;
            return Step::Lost(transit, Cause::TooLong);
        }
        let bytes = u64::from(transit.bytes);
        if pipe.spec.rate_bytes_per_s == 0 && pipe.sending.is_none() {
            pipe.report.sent += 1;
            pipe.report.sent_bytes += bytes;
            return self.propagate(now, fabric, link, transit);
        }
        if fabric.air.is_full() {
            return Step::Lost(transit, Cause::TooManyPackets);
        }
        let can_be_marked = transit.can_be_marked;
        let Some(key) = fabric.air.insert_with(|_| transit) else { return Step::Moves };
        if pipe.queue.push(now, key, bytes, can_be_marked).is_err() {
            pipe.report.queue_full += 1;
            return match fabric.air.remove(key) {
                Some(transit) => Step::Lost(transit, Cause::QueueFull),
                None => Step::Moves,
            };
        }
        pipe.report.sent += 1;
        pipe.report.sent_bytes += bytes;
        if pipe.sending.is_some() {
            return Step::Moves;
        }
        let mut lost = Vec::new();
        self.send_next(now, fabric, link, &mut lost);
        // An idle link drops nothing early: only this packet waits, and no time at all.
        debug_assert!(lost.is_empty());
        Step::Moves
    }

    /// Lets a link send the next of its queue.
    fn send_next(
        &mut self,
        now: Timestamp,
        fabric: &mut Fabric,
        link: u32,
        lost: &mut Vec<(Transit, Cause)>,
    ) {
        let Some(pipe) = fabric.links.get_mut(link as usize) else { return };
        let (air, report) = (&mut fabric.air, &mut pipe.report);
        let next = pipe.queue.pop(now, |key| {
            report.queue_early += 1;
            lost.extend(air.remove(key).map(|transit| (transit, Cause::QueueEarly)));
        });
        let Some(next) = next else { return };
        report.waited += next.waited;
        report.waited_max = report.waited_max.max(next.waited);
        if let Some(transit) = air.get_mut(next.value)
            && next.is_marked
        {
            report.marked += 1;
            transit.is_marked = true;
        }
        let rate = u128::from(pipe.spec.rate_bytes_per_s);
        // Without a rate any more, what waits leaves at once, one after the other.
        let nanos = (u128::from(next.bytes) * 1_000_000_000).checked_div(rate).unwrap_or(0);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        if nanos > 0 {
            self.faults.inject(FaultKind::Rate);
            self.faults.observe(FaultKind::Rate);
        }
        let at = now.after(Duration::from_nanos(nanos.max(1)));
        pipe.sending = Some(next.value);
        if self.wheel.insert(at, Event::LinkReady(link)).is_err() {
            // The wheel has room for one of each link.
            pipe.sending = None;
            lost.extend(air.remove(next.value).map(|transit| (transit, Cause::TooManyPackets)));
        }
    }

    /// What befalls a packet behind the queue of a link.
    fn propagate(
        &mut self,
        now: Timestamp,
        fabric: &mut Fabric,
        link: u32,
        mut transit: Transit,
    ) -> Step {
        let Some(pipe) = fabric.links.get_mut(link as usize) else {
            return Step::Lost(transit, Cause::NoRoute);
        };
        if pipe.state != LinkState::Up {
            pipe.report.cut += 1;
            return Step::Lost(transit, Cause::Cut);
        }
        let passage = pipe.channel.pass(now, &pipe.spec, transit.flow, transit.number);
        let Passage::Arrives { at, copy_at, is_reordered, turned_bit } = passage else {
            pipe.report.lost += 1;
            return Step::Lost(transit, Cause::Lost);
        };
        pipe.report.reordered += u64::from(is_reordered);
        if let Some(bit) = turned_bit {
            pipe.report.corrupted += 1;
            transit.cargo.turn(bit);
        }
        if let Some(copy_at) = copy_at {
            pipe.report.duplicated += 1;
            let copy = self.copy(&transit);
            self.faults.inject(FaultKind::Duplicate);
            match self.travel(now, fabric, copy_at, copy) {
                Step::Lost(copy, _) => self.give_back(copy.cargo),
                _ => self.faults.observe(FaultKind::Duplicate),
            }
        }
        self.travel(now, fabric, at, transit)
    }

    fn travel(
        &mut self,
        now: Timestamp,
        fabric: &mut Fabric,
        at: Timestamp,
        transit: Transit,
    ) -> Step {
        let ids = [u64::from(transit.link), transit.flow, transit.number, u64::from(transit.bytes)];
        self.trace.record(now, TraceKind::HopSend, ids);
        if fabric.air.is_full() {
            return Step::Lost(transit, Cause::TooManyPackets);
        }
        let Some(key) = fabric.air.insert_with(|_| transit) else { return Step::Moves };
        if self.wheel.insert(at, Event::Hop(key)).is_err() {
            let transit = fabric.air.remove(key);
            return transit.map_or(Step::Moves, |one| Step::Lost(one, Cause::TooManyPackets));
        }
        Step::Moves
    }

    fn finish(&mut self, now: Timestamp, step: Step) {
        match step {
            Step::Moves => {}
            Step::Out(transit) => {
                let ends = (transit.from, transit.to);
                match transit.cargo {
                    Cargo::Datagram(mut flight) => {
                        if transit.is_marked {
                            flight.ecn = Ecn::Congested;
                        }
                        self.come(now, flight, Some(ends));
                    }
                    Cargo::Segment(wire) => self.segment_out(now, wire, ends, transit.is_marked),
                }
            }
            Step::Lost(transit, cause) => {
                let kind = cause.fault();
                if kind != FaultKind::Partition {
                    self.faults.inject(kind);
                }
                self.faults.observe(kind);
                let Transit { link, flow, number, .. } = transit;
                let ids = [u64::from(link) << 8 | cause as u64, flow, number, 0];
                self.trace.record(now, TraceKind::HopDrop, ids);
                self.tell_why(now, transit.cargo, link, cause);
            }
        }
    }

    fn copy(&mut self, transit: &Transit) -> Transit {
        let cargo = match &transit.cargo {
            Cargo::Datagram(flight) => Cargo::Datagram(self.network.copy_flight(flight)),
            Cargo::Segment(wire) => Cargo::Segment(self.copy_wire(wire)),
        };
        Transit { flow: draw(transit.flow, &[COPY]), cargo, ..*transit }
    }

    /// Drops what was carried; routers tell senders of segments that cannot go on.
    fn tell_why(&mut self, now: Timestamp, cargo: Cargo, link: u32, cause: Cause) {
        match (cargo, cause) {
            (Cargo::Segment(wire), Cause::NoRoute) => self.segment_unreachable(now, wire),
            (Cargo::Segment(wire), Cause::TooLong) => {
                let mtu = self.fabric.as_deref().map_or(0, |fabric| fabric.mtu_of(link));
                self.segment_too_long(now, wire, mtu);
            }
            (cargo, _) => self.give_back(cargo),
        }
    }

    fn give_back(&mut self, cargo: Cargo) {
        match cargo {
            Cargo::Datagram(flight) => self.network.lose_flight(flight),
            Cargo::Segment(wire) => self.network.store.give(wire.into_payload()),
        }
    }
}

impl Cargo {
    /// Turns one bit of what is carried, if anything is.
    fn turn(&mut self, drawn: u64) {
        match self {
            Self::Datagram(flight) => flight.turn(drawn),
            Self::Segment(wire) => wire.turn(),
        }
    }
}

/// Lets a box decide about a packet, and write other addresses on it.
fn guard(
    now: Timestamp,
    nat: &mut Nat,
    is_inner: bool,
    is_for_box: bool,
    transit: &mut Transit,
) -> Result<(), Cause> {
    let (transport, ends) = (transit.transport, (transit.from, transit.to));
    if is_inner {
        transit.from = nat.outbound(now, transport, ends, transit.ends).ok_or(Cause::Box)?;
    } else if is_for_box || nat.outer().is_none() {
        transit.to = nat.inbound(now, transport, ends, transit.ends).ok_or(Cause::Box)?;
    } else {
        // Addresses behind a translating box mean nothing outside.
        nat.refuse();
        return Err(Cause::Box);
    }
    Ok(())
}
