//! What everything in a simulation shares: time, events and who they are for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::link::{FaultCounters, FaultKind};
use twinspan_core::need::Periods;
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;

use crate::ahead::Turn;
use crate::chaos::{Chaos, Garbage};
use crate::config::{HOSTS_MAX, SOCKETS_MAX, SimConfig, TIMERS_MAX};
use crate::disk::HostDisk;
use crate::executor::{Executor, WakeQueue};
use crate::meter::Metered;
use crate::names::Names;
use crate::network::{Flight, Network};
use crate::queue::{Queue, QueueKind};
use crate::segment::{Conn, Segments, TcpMode};
use crate::slab::{Key, Slab};
use crate::streams::{End, Listener, STREAM_ENDS_MAX, STREAM_PIECES_MAX, Streams};
use crate::timer::TimerState;
use crate::topic::Topics;
use crate::topology::{Fabric, LINKS_MAX, PACKETS_MAX};
use crate::trace::{Trace, TraceKind};

/// The number of a host, dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostId(pub(crate) u32);

impl HostId {
    /// No host: there are never so many.
    pub(crate) const NOBODY: Self = Self(u32::MAX);
}

/// A simulation. No borrow of `state` is held while a task runs or a future is dropped.
pub(crate) struct World {
    pub(crate) config: SimConfig,
    pub(crate) now: Cell<Timestamp>,
    pub(crate) wake_queue: Arc<WakeQueue>,
    pub(crate) state: RefCell<State>,
}

/// What is to be dropped when the world is free, because wakers may hold tasks.
pub(crate) type Dead = (Vec<End>, Vec<Listener>, Vec<Conn>);

pub(crate) struct State {
    pub(crate) wheel: Queue<Event>,
    pub(crate) trace: Trace,
    pub(crate) faults: FaultCounters,
    pub(crate) hosts: Hosts,
    /// What is wished for before a host's turn, by its number.
    pub(crate) turns: Vec<Turn>,
    pub(crate) executor: Executor,
    pub(crate) timers: Slab<TimerState>,
    pub(crate) network: Network,
    /// When what was needed of late is looked at.
    periods: Periods,
    pub(crate) streams: Streams,
    pub(crate) segments: Segments,
    /// How streams travel between pairs of hosts, the smaller address first, unless as all do.
    pub(crate) tcp_modes: BTreeMap<(IpAddr, IpAddr), TcpMode>,
    pub(crate) names: Names,
    pub(crate) topics: Topics,
    pub(crate) disks: BTreeMap<HostId, HostDisk>,
    /// The topology, where there is one.
    pub(crate) fabric: Option<Box<Fabric>>,
    pub(crate) config: SimConfig,
    pub(crate) chaos: Chaos,
    /// Where it is told which task is polled, if anybody wants to know.
    pub(crate) metered: Option<Metered>,
}

/// What the wheel gives out.
pub(crate) enum Event {
    Timer(Key),
    Deliver(Flight),
    /// A datagram that was held where it came, and the addresses that are seen on it.
    Held(Box<(Flight, Option<(SocketAddr, SocketAddr)>)>),
    /// A socket that took nothing takes datagrams again.
    SendReady(Key),
    /// A socket whose pool was empty, or whose datagrams gathered, looks again.
    ReceiveRetry(Key),
    /// A piece of a stream has come.
    Piece(Key),
    /// An end of a stream looks whether its peer was heard.
    StreamTimer(Key),
    /// An end of a stream looks whether its silent peer is there.
    StreamAlive(Key),
    /// A segment has come over the link of two hosts; whether queues behind it may mark it.
    Segment(Key, bool),
    /// A connection by segments has something to do.
    SegmentTimer(Key),
    /// A packet has come to a node of the topology.
    Hop(Key),
    /// A link of the topology takes its next packet.
    LinkReady(u32),
}

/// All hosts that ever were, and which of them run.
pub(crate) struct Hosts {
    all: Vec<Host>,
    by_ip: BTreeMap<IpAddr, HostId>,
}

pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    /// The hash of its name.
    pub(crate) name_hash: u64,
    /// What the host's streams and its tasks' order are drawn from.
    pub(crate) seed: u64,
    /// Counts its starts; what belongs to an earlier one is dead.
    pub(crate) incarnation: u32,
    pub(crate) is_running: bool,
    pub(crate) spawned: u64,
    pub(crate) secrets: u64,
    /// Where the search for a free port goes on.
    pub(crate) next_port: u16,
    /// The same for streams.
    pub(crate) next_stream_port: u16,
    /// Connections that it began.
    pub(crate) connected: u64,
    /// Names that it asked for.
    pub(crate) lookups: u64,
    /// By how much its wall clock is ahead.
    pub(crate) wall_offset_ns: i64,
}

/// The first of the ports that are given out by the host.
pub(crate) const EPHEMERAL_PORT_FIRST: u16 = 49_152;

impl Hosts {
    fn new() -> Self {
        Self { all: Vec::new(), by_ip: BTreeMap::new() }
    }

    /// Address and hash of the name of each, by number.
    pub(crate) fn named(&self) -> Vec<(IpAddr, u64)> {
        self.all.iter().map(|host| (host.ip, host.name_hash)).collect()
    }

    pub(crate) fn at(&self, ip: IpAddr) -> Option<HostId> {
        self.by_ip.get(&ip).copied()
    }

    /// The addresses of all hosts, in order.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        self.by_ip.keys().copied().collect()
    }

    pub(crate) fn get(&self, id: HostId) -> Option<&Host> {
        self.all.get(id.0 as usize)
    }

    pub(crate) fn get_mut(&mut self, id: HostId) -> Option<&mut Host> {
        self.all.get_mut(id.0 as usize)
    }

    /// The host, unless this start of it is over.
    pub(crate) fn running(&mut self, id: HostId, incarnation: u32) -> Option<&mut Host> {
        let host = self.get_mut(id)?;
        (host.is_running && host.incarnation == incarnation).then_some(host)
    }
}

impl World {
    pub(crate) fn new(config: SimConfig) -> Rc<Self> {
        Rc::new(Self {
            config,
            now: Cell::new(Timestamp::START),
            wake_queue: Arc::new(WakeQueue::default()),
            state: RefCell::new(State {
                wheel: Queue::new(QueueKind::default(), events_max(&config)),
                trace: Trace::new(config.seed),
                faults: FaultCounters::default(),
                hosts: Hosts::new(),
                turns: Vec::new(),
                executor: Executor::new(),
                timers: Slab::new(TIMERS_MAX),
                network: Network::new(&config),
                periods: Periods::new(),
                streams: Streams::new(),
                segments: Segments::new(),
                tcp_modes: BTreeMap::new(),
                names: Names::default(),
                topics: Topics::default(),
                disks: BTreeMap::new(),
                fabric: None,
                config,
                chaos: Chaos::new(config.seed),
                metered: Metered::begin(config.seed),
            }),
        })
    }

    /// The host at `ip`, made or started again when it does not run.
    pub(crate) fn start_host(&self, name: &str, ip: IpAddr) -> (HostId, u32, u64) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let hosts = &mut state.hosts;
        let id = hosts.at(ip).unwrap_or_else(|| {
            assert!(hosts.all.len() < HOSTS_MAX, "a simulation holds {HOSTS_MAX} hosts at most");
            // The limit is below 2^32.
            let id = HostId(hosts.all.len() as u32);
            let [high, low] = ip_words(ip);
            hosts.by_ip.insert(ip, id);
            state.turns.push(Turn::NONE);
            hosts.all.push(Host {
                name: name.to_owned(),
                ip,
                name_hash: 0,
                seed: draw(self.config.seed, &[high, low]),
                incarnation: 0,
                is_running: false,
                spawned: 0,
                secrets: 0,
                next_port: EPHEMERAL_PORT_FIRST,
                next_stream_port: EPHEMERAL_PORT_FIRST,
                connected: 0,
                lookups: 0,
                wall_offset_ns: 0,
            });
            id
        });
        let Some(host) = hosts.get_mut(id) else { return (id, 0, 0) };
        if !host.is_running {
            host.is_running = true;
            host.incarnation = host.incarnation.wrapping_add(1);
            let [high, low] = ip_words(ip);
            host.name_hash = state.trace.words.hash(name);
            let ids = [u64::from(id.0), high, low, host.name_hash];
            state.trace.record(self.now.get(), TraceKind::HostStart, ids);
        }
        (id, host.incarnation, host.seed)
    }

    /// Ends a host as a power cut does: its tasks and sockets are gone; false when none runs there.
    pub(crate) fn stop_host(&self, ip: IpAddr) -> bool {
        let mut garbage = Garbage::default();
        let mut state = self.state.borrow_mut();
        let Some(lost) = state.take_host_down(self.now.get(), ip, &mut garbage) else {
            return false;
        };
        state.faults.inject(FaultKind::HostStop);
        (0..lost).for_each(|_| state.faults.observe(FaultKind::HostStop));
        // What the futures hold may use the world while they are dropped.
        drop(state);
        drop(garbage);
        true
    }

    /// Lets time pass until `end`, which is then the present.
    pub(crate) fn run_until(self: &Rc<Self>, end: Timestamp) {
        loop {
            self.run_ready();
            if !self.take_moment(end) {
                break;
            }
        }
        self.now.set(self.now.get().max(end));
    }

    /// Like [`World::run_until`], but stops as soon as `done` says so.
    pub(crate) fn run_until_done(self: &Rc<Self>, end: Timestamp, done: impl Fn() -> bool) {
        loop {
            self.run_ready();
            if done() {
                return;
            }
            if !self.take_moment(end) {
                break;
            }
        }
        self.now.set(self.now.get().max(end));
    }

    /// Moves to the next moment up to `end` and handles all its events; false when there is none.
    fn take_moment(self: &Rc<Self>, end: Timestamp) -> bool {
        let mut state = self.state.borrow_mut();
        // What the faults' engine has due goes before all else of its moment.
        let due = state.chaos.next_at().filter(|at| *at <= end);
        let limit = due.map_or(end, |at| at.before(Duration::from_nanos(1)));
        let Some((at, event)) = state.wheel.pop_before(limit) else {
            drop(state);
            return due.is_some_and(|at| {
                self.chaos_moment(at);
                true
            });
        };
        state.look_ahead();
        let now = self.now.get().max(at);
        self.now.set(now);
        if state.periods.has_ended(now) {
            state.network.fit();
        }
        self.handle(&mut state, event);
        while let Some((_, event)) = state.wheel.pop_before(now) {
            self.handle(&mut state, event);
        }
        let dead = state.take_dead();
        drop(state);
        drop(dead);
        true
    }

    fn handle(&self, state: &mut State, event: Event) {
        let now = self.now.get();
        match event {
            Event::Timer(key) => {
                let Some(timer) = state.timers.get_mut(key) else { return };
                timer.armed = None;
                let ids = [u64::from(key.index), u64::from(timer.host.0), 0, 0];
                state.trace.record(now, TraceKind::TimerFired, ids);
                if let Some(waker) = &timer.waker {
                    waker.wake_by_ref();
                }
            }
            Event::Deliver(flight) => state.deliver(now, flight),
            Event::Held(held) => state.come(now, held.0, held.1),
            Event::SendReady(key) => state.send_ready(now, key),
            Event::ReceiveRetry(key) => state.receive_retry(now, key),
            Event::Piece(key) => state.piece_arrived(now, key),
            Event::StreamTimer(key) => state.stream_timer(now, key),
            Event::StreamAlive(key) => state.keepalive_timer(now, key),
            Event::Segment(key, can_be_marked) => state.segment_arrived(now, key, can_be_marked),
            Event::SegmentTimer(key) => state.segment_timer(now, key),
            Event::Hop(key) => state.hop(now, key),
            Event::LinkReady(link) => state.link_ready(now, link),
        }
    }

    /// Stops every host, so that nothing keeps the world alive but who holds it.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        for host in &mut state.hosts.all {
            host.is_running = false;
        }
        let tasks = state.executor.take_tasks(|_| true);
        let sockets = state.network.unbind_all(|_| true);
        state.streams.stop(|_| true);
        state.stop_segments(|_| true);
        let dead = state.take_dead();
        let boots = state.chaos.boots.take_all();
        let turns = std::mem::take(&mut state.turns);
        // What the futures hold may use the world while they are dropped.
        drop(state);
        drop((tasks, sockets, dead, boots, turns));
    }
}

impl State {
    /// Ends and listeners that can be dropped now that the world is free.
    pub(crate) fn take_dead(&mut self) -> Dead {
        let (ends, listeners) = self.streams.take_dead();
        (ends, listeners, self.segments.take_dead())
    }
}

/// Every timer may be armed once, every socket and every end wait for two things.
pub(crate) fn events_max(config: &SimConfig) -> usize {
    let streams_max = 2 * STREAM_PIECES_MAX + 3 * STREAM_ENDS_MAX;
    let topology_max = PACKETS_MAX + LINKS_MAX;
    let sockets_max = TIMERS_MAX + 2 * SOCKETS_MAX + streams_max + topology_max;
    config.in_flight_max.saturating_add(sockets_max)
}

/// How long a socket that took nothing takes nothing.
pub(crate) const SEND_STALL: Duration = Duration::from_micros(50);
/// How long a socket whose pool is empty waits before it looks again.
pub(crate) const RECEIVE_RETRY: Duration = Duration::from_micros(100);

/// An address as two words, IPv4 as mapped into IPv6.
pub(crate) fn ip_words(ip: IpAddr) -> [u64; 2] {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bits = octets.to_bits();
    [(bits >> 64) as u64, bits as u64]
}
