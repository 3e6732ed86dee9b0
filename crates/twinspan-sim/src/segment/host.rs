//! Connections by segments on simulated hosts: ports, listeners, links, timers and who waits.

mod troubled;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::{Arrival, Fate, FaultKind};
use twinspan_core::random::{draw, unit};
use twinspan_core::time::Timestamp;
use twinspan_core::wheel::TimerHandle;
use xxhash_rust::xxh3::xxh3_64;

use super::connection::{Connection, Phase, SEGMENT_BYTES_MAX, Settings, Wakes};
use super::header::{Flags, Header};
use super::{TcpMode, TcpReport};
use crate::chaos::{Kinds, SegmentStrikes};
use crate::config::{FullBacklog, WIRE_DELAY_MIN};
use crate::network::{Waiting, mark};
use crate::slab::{Key, Slab};
use crate::store::Payload;
use crate::streams::{EndKey, STREAM_ENDS_MAX, STREAM_PIECES_MAX, Sizes};
use crate::topology::{Cargo, Ends, Fabric, MTU_DEFAULT, Transit, Transport};
use crate::trace::TraceKind;
use crate::world::{Event, HostId, State};

/// Headers of IP and TCP without options.
const HEADER_BYTES: [u32; 2] = [40, 60];
/// The header of IP alone.
const IP_BYTES: [usize; 2] = [20, 40];

/// All connections by segments, and what of them is on links between two hosts.
pub(crate) struct Segments {
    pub(crate) conns: Slab<Conn>,
    by_ends: BTreeMap<(HostId, SocketAddr, SocketAddr), Key>,
    air: Slab<Wire>,
    /// Room for one segment's bytes.
    scratch: Box<[u8]>,
    /// What is to be dropped when the world is free, because wakers may hold tasks.
    dead: Vec<Conn>,
    report: TcpReport,
}

/// One end and what its host keeps of it.
pub(crate) struct Conn {
    host: HostId,
    local: SocketAddr,
    peer: SocketAddr,
    /// What its segments and draws are keyed by.
    pub(super) key: u64,
    /// The way to the peer.
    link: u32,
    next_number: u64,
    /// One more than the highest number of its segments that came.
    arrived: u64,
    pub(super) machine: Connection,
    timer: Option<(Timestamp, TimerHandle)>,
    /// Where it waits to be accepted, or will.
    listener: Option<Key>,
    /// Whether somebody holds it, or will once it is accepted.
    pub(super) is_held: bool,
    pub(super) calls: u64,
    /// A planned fault: nothing to or from it comes any more.
    is_silenced: bool,
    pub(super) reader: Waiting,
    pub(super) writer: Waiting,
}

/// A segment on its way.
pub(crate) struct Wire {
    /// Who sent it; its host, where the connection has gone.
    origin: Key,
    host: HostId,
    from: SocketAddr,
    to: SocketAddr,
    link: u32,
    flow: u64,
    arrival: Arrival,
    header: Header,
    payload: Payload,
    hash: u64,
    /// A bit was turned on the way, which the checksum tells.
    is_damaged: bool,
    /// Planned faults that count when it comes.
    marks: Kinds,
}

/// Between whom a segment goes, and what its draws are keyed by.
#[derive(Clone, Copy)]
struct Course {
    origin: Key,
    host: HostId,
    from: SocketAddr,
    to: SocketAddr,
    link: u32,
    flow: u64,
    number: u64,
}

impl Segments {
    pub(crate) fn new() -> Self {
        Self {
            conns: Slab::new(STREAM_ENDS_MAX),
            by_ends: BTreeMap::new(),
            air: Slab::new(STREAM_PIECES_MAX),
            scratch: vec![0; SEGMENT_BYTES_MAX].into_boxed_slice(),
            dead: Vec::new(),
            report: TcpReport::default(),
        }
    }

    /// What can be dropped now that the world is free.
    pub(crate) fn take_dead(&mut self) -> Vec<Conn> {
        std::mem::take(&mut self.dead)
    }

    /// Marks the links that connections and their segments go over.
    pub(crate) fn mark_links(&self, used: &mut [bool]) {
        // None of the keys is wanted.
        self.conns.keys(|conn| {
            mark(used, conn.link);
            false
        });
        self.air.keys(|wire| {
            mark(used, wire.link);
            false
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.conns.keys(|_| true).len()
    }

    /// Totals of those that were and those that are.
    pub(crate) fn report(&self) -> TcpReport {
        let mut report = self.report;
        for key in self.conns.keys(|_| true) {
            if let Some(conn) = self.conns.get(key) {
                report.add(conn);
            }
        }
        report
    }
}

impl TcpReport {
    fn add(&mut self, conn: &Conn) {
        let counts = conn.machine.counts();
        self.resent += counts.resent;
        self.timeouts += counts.timeouts;
        self.probes += counts.probes;
        self.reductions += counts.reductions;
        self.challenges += conn.machine.challenged;
    }
}

impl Wire {
    pub(crate) fn turn(&mut self) {
        self.is_damaged = true;
    }

    pub(crate) fn into_payload(self) -> Payload {
        self.payload
    }
}

impl State {
    /// How the streams between two hosts travel.
    pub(crate) fn tcp_mode(&self, one: IpAddr, other: IpAddr) -> TcpMode {
        let is_routed = |fabric: &Fabric| {
            one != other && (fabric.node(one).is_some() || fabric.node(other).is_some())
        };
        if self.fabric.as_deref().is_some_and(is_routed) {
            return TcpMode::Segments;
        }
        let pair = (one.min(other), one.max(other));
        self.tcp_modes.get(&pair).copied().unwrap_or(self.config.tcp)
    }

    fn settings(&mut self, key: u64, sizes: Sizes, ends: (IpAddr, IpAddr)) -> Settings {
        let fabric = self.fabric.as_deref_mut();
        let mtu = fabric.map_or(MTU_DEFAULT, |fabric| fabric.mtu(ends.0, ends.1));
        let header = HEADER_BYTES[usize::from(ends.1.is_ipv6())];
        let most = mtu.saturating_sub(header).clamp(1, SEGMENT_BYTES_MAX as u32);
        Settings {
            // Its lower half is as good a draw as all of it.
            first_seq: draw(key, &[3]) as u32,
            inbox_max: sizes.inbox_max,
            outbox_max: sizes.outbox_max,
            // Held to what a packet buffer takes.
            mss: most as u16,
            nodelay: sizes.nodelay,
            has_ecn: self.config.tcp_ecn,
            keepalive: sizes.keepalive.or(self.config.tcp_keepalive),
            give_up: sizes.give_up.unwrap_or(self.config.stream_give_up),
        }
    }

    /// Begins to connect; `None` when there are too many connections.
    pub(crate) fn connect_by_segments(
        &mut self,
        now: Timestamp,
        (host, ips): (HostId, (IpAddr, IpAddr)),
        (local, peer): (SocketAddr, SocketAddr),
        (key, sizes): (u64, Sizes),
    ) -> Option<Key> {
        let link = self.network.link(ips.0, ips.1);
        let settings = self.settings(key, sizes, ips);
        let machine = Connection::connect(now, settings);
        let conn = Conn::new(host, (local, peer), (key, link), machine);
        let key = self.add_conn(Conn { is_held: true, ..conn })?;
        self.flush(now, key);
        Some(key)
    }

    fn add_conn(&mut self, conn: Conn) -> Option<Key> {
        let (ends, port) = ((conn.host, conn.local, conn.peer), (conn.host, conn.local.port()));
        let key = self.segments.conns.insert_with(|_| conn)?;
        self.segments.by_ends.insert(ends, key);
        self.streams.count_port(port);
        Some(key)
    }

    fn remove_conn(&mut self, key: Key) {
        let Some(mut conn) = self.segments.conns.remove(key) else { return };
        let ends = (conn.host, conn.local, conn.peer);
        if self.segments.by_ends.get(&ends) == Some(&key) {
            self.segments.by_ends.remove(&ends);
        }
        self.streams.release_port((conn.host, conn.local.port()));
        if let Some((_, handle)) = conn.timer.take() {
            self.wheel.cancel(handle);
        }
        if conn.machine.phase() == Phase::SynReceived {
            self.streams.end_pending(conn.listener);
        }
        self.segments.report.add(&conn);
        conn.reader.wake();
        conn.writer.wake();
        self.segments.dead.push(conn);
    }

    /// The connections of a stopped host go; how many somebody held.
    pub(crate) fn stop_segments(&mut self, wanted: impl Fn(HostId) -> bool) -> usize {
        let keys = self.segments.conns.keys(|conn| wanted(conn.host));
        let held = |key: &&Key| self.segments.conns.get(**key).is_some_and(|conn| conn.is_held);
        let count = keys.iter().filter(held).count();
        keys.into_iter().for_each(|key| self.remove_conn(key));
        count
    }

    /// Sends what the connection has to send, sets its timer, and forgets it when it is over.
    pub(super) fn flush(&mut self, now: Timestamp, key: Key) {
        let mut scratch = std::mem::take(&mut self.segments.scratch);
        while let Some(conn) = self.segments.conns.get_mut(key)
            && let Some((header, len)) = conn.machine.poll_transmit(now, &mut scratch)
        {
            let course = conn.course(key);
            conn.next_number += 1;
            let can_be_marked = conn.machine.can_be_marked() && len > 0;
            let bytes = scratch.get(..len).unwrap_or_default();
            self.launch_segment(now, course, header, bytes, can_be_marked);
        }
        self.segments.scratch = scratch;
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        if conn.machine.phase() == Phase::Closed && !conn.is_held {
            self.remove_conn(key);
            return;
        }
        let Some(wanted) = conn.machine.poll_timeout() else { return };
        if let Some((armed, handle)) = conn.timer {
            if armed <= wanted {
                return;
            }
            self.wheel.cancel(handle);
        }
        let at = wanted.max(now);
        // The wheel has room for one of each connection.
        let handle = self.wheel.insert(at, Event::SegmentTimer(key)).ok();
        conn.timer = handle.map(|handle| (at, handle));
    }

    /// Time to look after a connection.
    pub(crate) fn segment_timer(&mut self, now: Timestamp, key: Key) {
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        conn.timer = None;
        let before = conn.machine.phase();
        if conn.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.trace.record(now, TraceKind::SegmentTimer, [conn.key, before as u64, 0, 0]);
            let wakes = conn.machine.handle_timeout(now);
            conn.tell(wakes);
            self.settle(before, key);
        }
        self.flush(now, key);
    }

    /// A connection that was being made is not any more: its listener has room again.
    fn settle(&mut self, before: Phase, key: Key) {
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        if before != Phase::SynReceived || conn.machine.phase() == Phase::SynReceived {
            return;
        }
        let listener = conn.listener;
        self.streams.end_pending(listener);
        let is_open = conn.machine.is_open();
        if is_open && self.streams.queue(listener, EndKey::Segments(key)) {
            conn.is_held = true;
        } else {
            // Nobody listens any more.
            conn.machine.abort();
        }
    }

    /// Puts a segment on its way.
    fn launch_segment(
        &mut self,
        now: Timestamp,
        course: Course,
        header: Header,
        bytes: &[u8],
        can_be_marked: bool,
    ) {
        let Course { origin, host, from, to, link, flow, number } = course;
        let [numbers, rest] = header.words();
        let hash = xxh3_64(bytes) ^ numbers ^ rest;
        self.segments.report.segments += 1;
        self.trace.record(now, TraceKind::Segment, [flow, number, bytes.len() as u64, hash]);
        if self.chaos.is_on
            && let Some(cause) = self.piece_blocked(now, link)
        {
            self.lose_segment(now, flow, number, cause.index() as u64);
            return;
        }
        let Some(state) = self.network.links.get_mut(link as usize) else { return };
        let len = IP_BYTES[usize::from(to.is_ipv6())] + header.bytes() + bytes.len();
        let fate = if state.is_cut {
            self.faults.observe(FaultKind::Partition);
            Fate::Lost(FaultKind::Partition)
        } else {
            state.link.admit(now, flow, number, len, &mut self.faults)
        };
        if let Fate::Lost(cause) = fate {
            self.lose_segment(now, flow, number, cause.index() as u64);
            return;
        }
        let strikes = if self.chaos.is_on && origin != Key::NOWHERE {
            self.strike_segment((from, to), number, can_be_marked)
        } else {
            SegmentStrikes::default()
        };
        if strikes.is_lost {
            self.lose_segment(now, flow, number, FaultKind::SegmentLoss.index() as u64);
            return;
        }
        let wire = |arrival, payload, marks| Wire {
            origin,
            host,
            from,
            to,
            link,
            flow,
            arrival,
            header,
            payload,
            hash,
            is_damaged: false,
            marks,
        };
        let mut later = strikes.later;
        let mut marks = strikes.marks;
        let mut copy_at = None;
        for mut arrival in fate.arrivals() {
            arrival.at = arrival.at.after(later).max(now.after(WIRE_DELAY_MIN));
            if self.chaos.is_on {
                match self.piece_later(now, link, len, arrival.at) {
                    Ok(at) => arrival.at = at,
                    Err(cause) => {
                        self.lose_segment(now, flow, number, cause.index() as u64);
                        continue;
                    }
                }
            }
            copy_at = copy_at.or(strikes.copy_later.map(|lag| arrival.at.after(lag)));
            let payload = self.network.store.copy(bytes);
            // What is planned befalls the first of two.
            let wire = wire(arrival, payload, std::mem::take(&mut marks));
            later = Duration::ZERO;
            self.place_segment(now, wire, can_be_marked);
        }
        if let Some(at) = copy_at {
            let payload = self.network.store.copy(bytes);
            let mut marks = Kinds::default();
            marks.add(FaultKind::SegmentDuplicate);
            let wire = wire(Arrival::plain(at, number), payload, marks);
            self.place_segment(now, wire, can_be_marked);
        }
    }

    /// Lets a segment come when its time is.
    fn place_segment(&mut self, now: Timestamp, wire: Wire, can_be_marked: bool) {
        let (flow, number, at) = (wire.flow, wire.arrival.number, wire.arrival.at);
        let mut is_placed = false;
        if self.segments.air.is_full() {
            self.network.store.give(wire.payload);
        } else if let Some(key) = self.segments.air.insert_with(|_| wire) {
            is_placed = self.wheel.insert(at, Event::Segment(key, can_be_marked)).is_ok();
            if !is_placed && let Some(wire) = self.segments.air.remove(key) {
                self.network.store.give(wire.payload);
            }
        }
        if !is_placed {
            self.faults.inject(FaultKind::QueueDrop);
            self.faults.observe(FaultKind::QueueDrop);
            self.lose_segment(now, flow, number, FaultKind::QueueDrop.index() as u64);
        }
    }

    fn lose_segment(&mut self, now: Timestamp, flow: u64, number: u64, why: u64) {
        self.trace.record(now, TraceKind::SegmentLost, [flow, number, why, 0]);
    }

    /// A segment has come over the link of two hosts, to where it was sent or where the topology
    /// takes over.
    pub(crate) fn segment_arrived(&mut self, now: Timestamp, key: Key, can_be_marked: bool) {
        let Some(mut wire) = self.segments.air.remove(key) else { return };
        let (flow, number) = (wire.flow, wire.arrival.number);
        if self.chaos.is_on {
            if let Some(cause) = self.piece_blocked(now, wire.link) {
                self.lose_segment(now, flow, number, cause.index() as u64);
                self.network.store.give(wire.payload);
                return;
            }
            if let Some(until) = self.piece_held(now, wire.link) {
                wire.arrival.at = until;
                self.place_segment(now, wire, can_be_marked);
                return;
            }
        }
        let Some(state) = self.network.links.get_mut(wire.link as usize) else { return };
        if state.is_cut {
            self.faults.observe(FaultKind::Partition);
            self.lose_segment(now, flow, number, FaultKind::Partition.index() as u64);
            self.network.store.give(wire.payload);
            return;
        }
        state.link.arrived(flow, &wire.arrival, &mut self.faults);
        if let Some(wire) = self.divert_segment(now, wire, can_be_marked) {
            self.segment_came(now, wire, false);
        }
    }

    /// Takes a segment whose way is the topology's; gives back any other.
    fn divert_segment(&mut self, now: Timestamp, wire: Wire, can_be_marked: bool) -> Option<Wire> {
        let Some(fabric) = &self.fabric else { return Some(wire) };
        let Some(host) = self.hosts.get(wire.host) else { return Some(wire) };
        let (here, to) = (host.ip, wire.to);
        if to.ip().is_loopback() || to.ip().is_unspecified() || to.ip() == here {
            return Some(wire);
        }
        let node = fabric.node(here);
        if node.is_none() && fabric.node(to.ip()).is_none() {
            return Some(wire);
        }
        let bytes = IP_BYTES[usize::from(to.is_ipv6())]
            + wire.header.bytes()
            + wire.payload.as_slice().len();
        let flags = wire.header.flags;
        let transit = Transit {
            transport: Transport::Tcp,
            from: wire.from,
            to,
            // A segment holds far less than 2^32 bytes.
            bytes: bytes as u32,
            flow: wire.flow,
            number: wire.arrival.number << 1 | u64::from(wire.arrival.is_copy()),
            ends: Ends { is_end: flags.has(Flags::FIN) || flags.has(Flags::RST) },
            can_be_marked,
            is_marked: false,
            hops: 0,
            link: u32::MAX,
            cargo: Cargo::Segment(wire),
        };
        self.enter_fabric(now, node, transit);
        None
    }

    /// A segment came out of the topology, with the addresses that it has by now.
    pub(crate) fn segment_out(
        &mut self,
        now: Timestamp,
        wire: Wire,
        (from, to): (SocketAddr, SocketAddr),
        is_marked: bool,
    ) {
        self.segment_came(now, Wire { from, to, ..wire }, is_marked);
    }

    /// A segment found no way: a router says so to who sent it.
    pub(crate) fn segment_unreachable(&mut self, now: Timestamp, wire: Wire) {
        let is_opening = wire.header.flags.has(Flags::SYN);
        let origin = wire.origin;
        self.network.store.give(wire.payload);
        if is_opening {
            self.fail_conn(now, origin, io::ErrorKind::HostUnreachable);
        }
    }

    /// A segment was longer than a link's longest packet: a router says so to who sent it.
    pub(crate) fn segment_too_long(&mut self, now: Timestamp, wire: Wire, mtu: u32) {
        let header = HEADER_BYTES[usize::from(wire.to.is_ipv6())];
        let origin = wire.origin;
        self.network.store.give(wire.payload);
        if let Some(conn) = self.segments.conns.get_mut(origin) {
            // At most the length of a packet.
            conn.machine.handle_too_long(mtu.saturating_sub(header).max(1) as usize);
            self.flush(now, origin);
        }
    }

    pub(crate) fn copy_wire(&mut self, wire: &Wire) -> Wire {
        Wire { payload: self.network.store.copy(wire.payload.as_slice()), ..*wire }
    }

    fn fail_conn(&mut self, now: Timestamp, key: Key, kind: io::ErrorKind) -> bool {
        let Some(conn) = self.segments.conns.get_mut(key) else { return false };
        let before = conn.machine.phase();
        if before == Phase::Closed {
            return false;
        }
        let wakes = conn.machine.fail(kind);
        conn.tell(wakes);
        self.settle(before, key);
        self.flush(now, key);
        true
    }

    fn segment_came(&mut self, now: Timestamp, mut wire: Wire, is_marked: bool) {
        let mut is_marked = is_marked;
        if !wire.marks.is_empty() {
            is_marked |= wire.marks.has(FaultKind::EcnMark);
            wire.is_damaged |= wire.marks.has(FaultKind::SegmentDamage);
            let sender = self.segments.conns.get(wire.origin);
            if sender.is_none_or(|sender| sender.arrived <= wire.arrival.number) {
                // It lagged, and nothing overtook it.
                wire.marks.remove(FaultKind::SegmentReorder);
            }
            wire.marks.observe(&mut self.faults);
        }
        if let Some(sender) = self.segments.conns.get_mut(wire.origin) {
            sender.arrived = sender.arrived.max(wire.arrival.number.saturating_add(1));
        }
        let ids = [wire.flow, wire.arrival.number, wire.hash, u64::from(is_marked)];
        self.trace.record(now, TraceKind::SegmentArrived, ids);
        if wire.is_damaged {
            self.segments.report.damaged += 1;
        } else {
            self.take_segment(now, &wire, is_marked);
        }
        self.network.store.give(wire.payload);
    }

    fn take_segment(&mut self, now: Timestamp, wire: &Wire, is_marked: bool) {
        let to = wire.to;
        let is_near = to.ip().is_loopback() || to.ip().is_unspecified();
        let id = if is_near { Some(wire.host) } else { self.hosts.at(to.ip()) };
        let Some(id) = id else {
            // A router says so.
            if wire.header.flags.has(Flags::SYN) {
                self.fail_conn(now, wire.origin, io::ErrorKind::HostUnreachable);
            }
            return;
        };
        if !self.hosts.get(id).is_some_and(|host| host.is_running) {
            return;
        }
        let known = self.segments.by_ends.get(&(id, to, wire.from)).copied();
        if self.is_segment_cut_midway(wire) {
            let ends = [Some(wire.origin), known].into_iter().flatten();
            let mut told = false;
            for key in ends {
                told |= self.fail_conn(now, key, io::ErrorKind::ConnectionReset);
            }
            if told {
                self.faults.observe(FaultKind::StreamReset);
            }
            return;
        }
        if self.chaos.is_on && self.strike_wire(now, wire, known) {
            return;
        }
        let flags = wire.header.flags;
        let opens = flags.has(Flags::SYN) && !flags.has(Flags::ACK);
        let known = known.filter(|key| {
            let conn = self.segments.conns.get(*key);
            let is_over = conn
                .is_none_or(|conn| matches!(conn.machine.phase(), Phase::TimeWait | Phase::Closed));
            // A new connection may take the place of one that is over.
            !(opens && is_over)
        });
        let Some(key) = known else {
            if opens {
                self.take_opening(now, wire, id);
            } else {
                self.refuse_segment(now, wire, id);
            }
            return;
        };
        let Some(conn) = self.segments.conns.get_mut(key) else { return };
        let before = conn.machine.phase();
        if before == Phase::Closed {
            self.refuse_segment(now, wire, id);
            return;
        }
        let bytes = wire.payload.as_slice();
        let wakes = conn.machine.handle_segment(now, &wire.header, bytes, is_marked);
        conn.tell(wakes);
        self.settle(before, key);
        self.flush(now, key);
    }

    /// Whether the reset that seeds inject befalls this segment.
    fn is_segment_cut_midway(&mut self, wire: &Wire) -> bool {
        let share = self.config.stream_reset;
        let coordinates = [FaultKind::StreamReset.index() as u64, wire.arrival.number];
        let is_cut = !wire.payload.as_slice().is_empty()
            && share > 0.0
            && unit(draw(wire.flow, &coordinates)) < share;
        if is_cut {
            self.faults.inject(FaultKind::StreamReset);
        }
        is_cut || self.is_reset_planned(wire)
    }

    /// Whether a planned reset befalls this segment.
    fn is_reset_planned(&mut self, wire: &Wire) -> bool {
        if !self.chaos.is_on || wire.payload.as_slice().is_empty() {
            return false;
        }
        // The addresses as its sender knows them, whatever boxes wrote on it.
        let sender = self.segments.conns.get(wire.origin);
        let ends = sender.map(|sender| (sender.local, sender.peer));
        ends.is_some_and(|ends| self.strikes_reset(ends, wire.arrival.number))
    }

    /// Nobody is there for a segment: the host says so (RFC 9293, section 3.10.7.1).
    fn refuse_segment(&mut self, now: Timestamp, wire: &Wire, id: HostId) {
        let Header { flags, seq, ack, .. } = wire.header;
        if flags.has(Flags::RST) {
            return;
        }
        self.segments.report.refused += 1;
        let header = if flags.has(Flags::ACK) {
            Header { flags: Flags::RST, seq: ack, ..Header::default() }
        } else {
            let len = u32::from(flags.has(Flags::SYN)) + wire.payload.as_slice().len() as u32;
            let flags = Flags::RST.with(Flags::ACK);
            Header { flags, ack: seq.wrapping_add(len), ..Header::default() }
        };
        let Some(host) = self.hosts.get(id) else { return };
        let near = wire.from.ip().is_loopback();
        let (here, there) = (host.ip, if near { host.ip } else { wire.from.ip() });
        let course = Course {
            origin: Key::NOWHERE,
            host: id,
            from: wire.to,
            to: wire.from,
            link: self.network.link(here, there),
            flow: draw(wire.flow, &[1]),
            number: wire.arrival.number,
        };
        self.launch_segment(now, course, header, &[], false);
    }

    /// Somebody wants to connect.
    fn take_opening(&mut self, now: Timestamp, wire: &Wire, id: HostId) {
        let Some(listener) = self.streams.listener(id, wire.to) else {
            self.refuse_segment(now, wire, id);
            return;
        };
        if self.chaos.is_on && self.strike_opening(now, wire, id) {
            return;
        }
        let refuse = FaultKind::ConnectRefuse;
        let share = self.config.connect_refuse;
        if share > 0.0 && unit(draw(wire.flow, &[refuse.index() as u64])) < share {
            self.faults.inject(refuse);
            self.faults.observe(refuse);
            self.refuse_segment(now, wire, id);
            return;
        }
        let Some(sizes) = self.streams.begin_pending(listener) else {
            self.faults.inject(FaultKind::BacklogFull);
            self.faults.observe(FaultKind::BacklogFull);
            if self.config.full_backlog == FullBacklog::Refuse {
                self.refuse_segment(now, wire, id);
            }
            return;
        };
        let Some(host) = self.hosts.get(id) else { return };
        let near = wire.from.ip().is_loopback();
        let ips = (host.ip, if near { host.ip } else { wire.from.ip() });
        // The number tells a new connection from one before with the same ports.
        let key = draw(wire.flow, &[2, u64::from(wire.header.seq)]);
        let link = self.network.link(ips.0, ips.1);
        let settings = self.settings(key, sizes, ips);
        let machine = Connection::accept(now, settings, &wire.header);
        let conn = Conn::new(id, (wire.to, wire.from), (key, link), machine);
        let added = self.add_conn(Conn { listener: Some(listener), ..conn });
        match added {
            Some(key) => self.flush(now, key),
            None => self.streams.end_pending(Some(listener)),
        }
    }
}

impl Conn {
    fn new(
        host: HostId,
        (local, peer): (SocketAddr, SocketAddr),
        (key, link): (u64, u32),
        machine: Connection,
    ) -> Self {
        Self {
            host,
            local,
            peer,
            key,
            link,
            next_number: 0,
            arrived: 0,
            machine,
            timer: None,
            listener: None,
            is_held: false,
            calls: 0,
            is_silenced: false,
            reader: Waiting::default(),
            writer: Waiting::default(),
        }
    }

    fn course(&self, origin: Key) -> Course {
        Course {
            origin,
            host: self.host,
            from: self.local,
            to: self.peer,
            link: self.link,
            flow: self.key,
            number: self.next_number,
        }
    }

    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr, u64) {
        (self.local, self.peer, self.key)
    }

    fn tell(&mut self, wakes: Wakes) {
        if wakes.reader || wakes.opened {
            self.reader.wake();
        }
        if wakes.writer || wakes.opened {
            self.writer.wake();
        }
    }

    /// How much of `there` a call moves: seeds make some short.
    pub(super) fn short(&mut self, there: usize, kind: FaultKind, share: f64) -> usize {
        self.calls += 1;
        let key = draw(self.key, &[kind.index() as u64, self.calls]);
        if there < 2 || share <= 0.0 || unit(key) >= share {
            return there;
        }
        // From one to all but one.
        1 + (draw(key, &[1]) % (there as u64 - 1)) as usize
    }
}
