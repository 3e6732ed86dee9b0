//! What planned faults do to one datagram on its way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::{Arrival, FaultCounters, FaultKind};
use twinspan_core::packet::{Ecn, PacketBuf};
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::troubles::Carried;
use super::{Chaos, Strike};
use crate::network::{Flight, Odd};
use crate::plan::{Place, flow_key};
use crate::world::State;

/// Datagrams lost in a burst at most.
const BURST_MAX: u64 = 16;
/// How long a burst lasts at most. Without this bound one would take all retries of whoever sends twice
/// a second, which is a cut link and no burst.
const BURST_TIME_MAX: Duration = Duration::from_millis(300);
/// How far a reordered datagram lags, and a second copy.
const LAG: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));
/// How far a late second copy lags.
const LATE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(120));
/// How long a spike holds a flow.
const SPIKE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// Bytes that are changed in a row at most.
const RUN_BYTES_MAX: u64 = 16;
/// Datagrams of a flow that are kept to come again: the first ones, and the last ones.
const KEPT_FIRST: usize = 4;
const KEPT_LAST: usize = 4;
/// Outer addresses that are known of sockets; further ones are not made.
const REBINDS_MAX: usize = 1 << 16;
/// Outer ports that a box on the way gives: from the first on, so many.
const OUTER_PORTS: (u64, u64) = (20_000, 20_000);

/// A set of kinds of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u128);

const _: () = assert!(FaultKind::ALL.len() <= 128, "a kind is a bit of a set");

impl Kinds {
    pub(crate) fn add(&mut self, kind: FaultKind) {
        self.0 |= 1 << kind.index();
    }

    pub(crate) fn has(self, kind: FaultKind) -> bool {
        self.0 >> kind.index() & 1 == 1
    }

    pub(crate) fn remove(&mut self, kind: FaultKind) {
        self.0 &= !(1 << kind.index());
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Counts the effect of each.
    pub(crate) fn observe(self, faults: &mut FaultCounters) {
        let mut left = self.0;
        while left != 0 {
            if let Some(kind) = FaultKind::ALL.get(left.trailing_zeros() as usize) {
                faults.observe(*kind);
            }
            left &= left - 1;
        }
    }
}

/// What becomes of one datagram besides what its link does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// It is lost, because of this.
    pub(crate) lost: Option<FaultKind>,
    /// It comes this much later.
    pub(crate) later: Duration,
    /// It does not come before, because of this.
    not_before: [Option<(Timestamp, FaultKind)>; 2],
    /// What counts as an effect when it comes.
    pub(crate) marks: Kinds,
    /// From where it seems to come.
    pub(crate) from: Option<SocketAddr>,
    /// Whether its bytes are others.
    pub(crate) is_changed: bool,
}

impl Weather {
    /// When it arrives, and what counts then.
    pub(crate) fn bend(&self, at: Timestamp) -> (Timestamp, Kinds) {
        let (mut at, mut marks) = (at.after(self.later), self.marks);
        for (until, kind) in self.not_before.into_iter().flatten() {
            if at < until {
                at = until;
                marks.add(kind);
            }
        }
        (at, marks)
    }
}

/// What is remembered of a flow.
#[derive(Default)]
pub(super) struct FlowMemory {
    key: u64,
    /// Numbers below this are lost with a burst, until then.
    burst_end: u64,
    burst_until: Timestamp,
    /// Until when a spike holds it.
    held_until: Timestamp,
    /// One more than the highest number that came.
    arrived: u64,
    kept: Vec<Box<[u8]>>,
    kept_in_all: usize,
}

impl FlowMemory {
    /// Bursts and spikes are over for what is sent from now on.
    const fn heal(&mut self) {
        self.burst_until = Timestamp::START;
        self.held_until = Timestamp::START;
    }

    /// Keeps a datagram, so that it may come again.
    fn keep(&mut self, bytes: &[u8]) {
        if self.kept.len() < KEPT_FIRST + KEPT_LAST {
            self.kept.push(bytes.into());
        } else if let Some(slot) = self.kept.get_mut(KEPT_FIRST + self.kept_in_all % KEPT_LAST) {
            *slot = bytes.into();
        }
        self.kept_in_all += 1;
    }
}

impl Chaos {
    fn memory(&mut self, index: u32, (from, to): (SocketAddr, SocketAddr)) -> &mut FlowMemory {
        let index = index as usize;
        if self.flows.len() <= index {
            // As many as there are flows, which are limited.
            self.flows.resize_with(index + 1, FlowMemory::default);
        }
        // Grown to hold it the line before; the first stands in where nothing can.
        let memory = self.flows.get_mut(index);
        #[expect(clippy::unwrap_used, reason = "the table was grown to hold the index")]
        let memory = memory.unwrap();
        if memory.key == 0 {
            memory.key = flow_key(from, to);
        }
        memory
    }

    /// A flow was forgotten; its place may be another's.
    pub(crate) fn forget_flow(&mut self, index: u32) {
        if let Some(memory) = self.flows.get_mut(index as usize) {
            *memory = FlowMemory::default();
        }
    }

    /// What was begun with earlier datagrams befalls no later ones.
    pub(super) fn heal_flows(&mut self) {
        self.flows.iter_mut().for_each(FlowMemory::heal);
    }

    /// Gives the sockets of a host other outer ports.
    pub(super) fn rebind(&mut self, ip: IpAddr, key: u64) {
        self.rebinds.insert(ip, key);
    }

    /// The outer address of a socket, if a box gave it one.
    fn outer(&mut self, local: SocketAddr) -> Option<SocketAddr> {
        let key = self.rebinds.get(&local.ip())?;
        let (first, count) = OUTER_PORTS;
        let port = first + draw(*key, &[u64::from(local.port())]) % count;
        let outer = SocketAddr::new(local.ip(), u16::try_from(port).ok()?);
        if self.inner.len() < REBINDS_MAX || self.inner.contains_key(&outer) {
            // Of two sockets with one outer port the later has it, as after a collision.
            self.inner.insert(outer, local);
            return Some(outer);
        }
        None
    }

    /// The socket behind an outer address.
    pub(crate) fn inner(&self, to: SocketAddr) -> SocketAddr {
        self.inner.get(&to).copied().unwrap_or(to)
    }
}

/// A datagram on its way out.
#[derive(Clone, Copy)]
pub(crate) struct Leaving {
    /// The index of its flow, and its number there.
    pub(crate) flow: u32,
    pub(crate) number: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// The two hosts.
    pub(crate) way: (IpAddr, IpAddr),
    /// The link's own delay.
    pub(crate) delay: Duration,
    /// What the trace calls the flow.
    pub(crate) flow_key: u64,
    pub(crate) ecn: Ecn,
}

impl State {
    /// What befalls a datagram that leaves now. Its bytes may change; copies are on their way
    /// already.
    pub(crate) fn weather(
        &mut self,
        now: Timestamp,
        leaving: &Leaving,
        packet: &mut PacketBuf,
    ) -> Weather {
        let mut weather = Weather::default();
        let (from, to) = leaving.way;
        if let Some(kind) = self.chaos.troubles.blocked(now, from, to) {
            weather.lost = Some(kind);
        }
        if self.chaos.can(FaultKind::Replay) {
            self.chaos.memory(leaving.flow, (leaving.from, leaving.to)).keep(packet);
        }
        self.lose(now, leaving, &mut weather);
        match self.chaos.troubles.narrow(now, leaving.way, packet.len(), Carried::Datagram) {
            Some((kind, None)) => weather.lost = weather.lost.or(Some(kind)),
            Some((kind, Some(later))) => {
                weather.later += later;
                weather.marks.add(kind);
            }
            None => {}
        }
        weather.not_before[0] = self.chaos.troubles.send_clog(now, from);
        if let Some(outer) = self.chaos.outer(leaving.from) {
            weather.from = Some(outer);
            weather.marks.add(FaultKind::Rebind);
        }
        self.send_copies(now, leaving, packet);
        self.hold(now, leaving, &mut weather);
        self.damage(leaving, packet, &mut weather);
        if leaving.ecn.can_be_marked() && self.strike_flow(FaultKind::EcnMark, leaving).is_some() {
            weather.marks.add(FaultKind::EcnMark);
        }
        if let Some(kind) = weather.lost {
            self.faults.observe(kind);
        }
        weather
    }

    fn strike_flow(&mut self, kind: FaultKind, leaving: &Leaving) -> Option<Strike> {
        if !self.chaos.can(kind) {
            return None;
        }
        let ends = (leaving.from, leaving.to);
        let key = self.chaos.memory(leaving.flow, ends).key;
        self.strike((kind, key, leaving.number), || Place::Flow(ends.0, ends.1))
    }

    fn lose(&mut self, now: Timestamp, leaving: &Leaving, weather: &mut Weather) {
        let ends = (leaving.from, leaving.to);
        if self.strike_flow(FaultKind::Loss, leaving).is_some() {
            weather.lost = weather.lost.or(Some(FaultKind::Loss));
        }
        if let Some(strike) = self.strike_flow(FaultKind::LossBurst, leaving) {
            let end = leaving.number.saturating_add(2 + strike.below(0, BURST_MAX - 1));
            let memory = self.chaos.memory(leaving.flow, ends);
            memory.burst_end = memory.burst_end.max(end);
            memory.burst_until = now.after(BURST_TIME_MAX);
        }
        let memory = self.chaos.flows.get(leaving.flow as usize);
        let in_burst =
            |memory: &FlowMemory| leaving.number < memory.burst_end && now < memory.burst_until;
        if memory.is_some_and(in_burst) {
            weather.lost = weather.lost.or(Some(FaultKind::LossBurst));
        }
        if self.strike_flow(FaultKind::Unreachable, leaving).is_some() {
            weather.lost = weather.lost.or(Some(FaultKind::Unreachable));
        }
    }

    /// Sends copies on their way: second ones, late ones, of others and of earlier ones.
    fn send_copies(&mut self, now: Timestamp, leaving: &Leaving, packet: &PacketBuf) {
        let copies = [
            (FaultKind::Duplicate, LAG),
            (FaultKind::DuplicateLate, LATE),
            (FaultKind::Spoof, LAG),
            (FaultKind::Replay, LAG),
        ];
        for (kind, (least, most)) in copies {
            let Some(strike) = self.strike_flow(kind, leaving) else { continue };
            let from = (kind == FaultKind::Spoof).then(|| spoofed(leaving.from, strike));
            let earlier = if kind == FaultKind::Replay {
                let memory = self.chaos.flows.get(leaving.flow as usize);
                memory.and_then(|memory| {
                    let which = strike.below(1, memory.kept.len() as u64);
                    memory.kept.get(usize::try_from(which).unwrap_or_default()).cloned()
                })
            } else {
                None
            };
            let bytes: &[u8] = earlier.as_deref().unwrap_or(packet);
            let at = now.after(leaving.delay).after(strike.duration(0, least, most));
            let mut marks = Kinds::default();
            marks.add(kind);
            let flight = Flight {
                flow: leaving.flow,
                arrival: Arrival::plain(at, leaving.number),
                payload: self.network.store.copy(bytes),
                ecn: leaving.ecn,
                hash: xxh3_64(bytes),
                odd: Odd { marks, from }.boxed(),
            };
            self.launch(now, flight, leaving.flow_key);
        }
    }

    fn hold(&mut self, now: Timestamp, leaving: &Leaving, weather: &mut Weather) {
        let ends = (leaving.from, leaving.to);
        if let Some(strike) = self.strike_flow(FaultKind::DelaySpike, leaving) {
            let until = now.after(strike.duration(0, SPIKE.0, SPIKE.1));
            let memory = self.chaos.memory(leaving.flow, ends);
            memory.held_until = memory.held_until.max(until);
        }
        let memory = self.chaos.flows.get(leaving.flow as usize);
        let held = memory.map(|memory| memory.held_until).filter(|until| *until > now);
        weather.not_before[1] = held.map(|until| (until, FaultKind::DelaySpike));
        if let Some(strike) = self.strike_flow(FaultKind::Reorder, leaving) {
            weather.later += strike.duration(0, LAG.0, LAG.1);
            weather.marks.add(FaultKind::Reorder);
        }
    }

    fn damage(&mut self, leaving: &Leaving, packet: &mut PacketBuf, weather: &mut Weather) {
        let bits = packet.len() as u64 * 8;
        if bits == 0 {
            return;
        }
        if let Some(strike) = self.strike_flow(FaultKind::BitFlip, leaving) {
            let bit = strike.below(0, bits);
            if let Some(byte) = packet.get_mut(usize::try_from(bit / 8).unwrap_or_default()) {
                *byte ^= 1 << (bit % 8);
            }
            weather.changed_by(FaultKind::BitFlip);
        }
        if let Some(strike) = self.strike_flow(FaultKind::ByteRun, leaving) {
            let start = usize::try_from(strike.below(0, bits / 8)).unwrap_or_default();
            let len = usize::try_from(strike.below(1, RUN_BYTES_MAX) + 1).unwrap_or_default();
            for (step, byte) in packet.iter_mut().skip(start).take(len).enumerate() {
                // Never nothing, so that each byte is another one.
                *byte ^= (strike.below(2 + step as u64, 255) + 1) as u8;
            }
            weather.changed_by(FaultKind::ByteRun);
        }
        if let Some(strike) = self.strike_flow(FaultKind::Truncate, leaving) {
            packet.set_len(usize::try_from(strike.below(0, bits / 8)).unwrap_or_default());
            weather.changed_by(FaultKind::Truncate);
        }
    }

    /// What befalls a datagram that comes now: it is held until later, or it is dropped.
    pub(crate) fn weather_on_arrival(
        &mut self,
        now: Timestamp,
        flight: &mut Flight,
        (from, to): (IpAddr, IpAddr),
        ends: (SocketAddr, SocketAddr),
    ) -> OnArrival {
        if let Some(kind) = self.chaos.troubles.blocked(now, from, to) {
            return OnArrival::Lost(kind);
        }
        if let Some((until, kind)) = self.chaos.troubles.receive_clog(now, to) {
            flight.mark(kind);
            return OnArrival::Held(until);
        }
        let number = flight.arrival.number;
        if self.chaos.can(FaultKind::ReceiveDrop) {
            let key = self.chaos.memory(flight.flow, ends).key;
            let coordinates = (FaultKind::ReceiveDrop, key, number);
            if self.strike(coordinates, || Place::Flow(ends.0, ends.1)).is_some() {
                return OnArrival::Lost(FaultKind::ReceiveDrop);
            }
        }
        let memory = self.chaos.memory(flight.flow, ends);
        let is_late = memory.arrived > number;
        memory.arrived = memory.arrived.max(number.saturating_add(1));
        if !is_late {
            // It lagged, and nothing overtook it.
            flight.unmark(FaultKind::Reorder);
        }
        OnArrival::Comes
    }
}

impl Weather {
    fn changed_by(&mut self, kind: FaultKind) {
        self.is_changed = true;
        self.marks.add(kind);
    }
}

/// What becomes of a datagram where it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnArrival {
    Comes,
    Held(Timestamp),
    Lost(FaultKind),
}

/// An address that did not send it: another port of the host, or somebody else.
fn spoofed(from: SocketAddr, strike: Strike) -> SocketAddr {
    let port = 1 + strike.below(2, 65_535);
    let port = u16::try_from(port).unwrap_or(u16::MAX);
    match from {
        // 198.51.100.0/24 is nobody's, for documentation.
        SocketAddr::V4(_) if strike.below(3, 2) == 1 => {
            let last = u8::try_from(strike.below(4, 256)).unwrap_or_default();
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, last)), port)
        }
        _ => SocketAddr::new(from.ip(), if port == from.port() { port ^ 1 } else { port }),
    }
}
