//! A box that translates addresses, or only remembers who spoke first: NAT and stateful firewall.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;

/// Mappings of one box, unless its configuration says less.
pub const MAPPINGS_MAX: usize = 65_536;
/// Peers that a mapping remembers for its filter; the one that was longest silent is forgotten.
pub const PEERS_PER_MAPPING_MAX: usize = 64;

/// Which transport a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Segments of streams.
    Tcp,
}

/// What two packets must share so that a box treats them alike (RFC 4787, sections 4 and 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sameness {
    /// Only the inner address and port: any peer.
    #[default]
    EndpointIndependent,
    /// The peer's address too.
    AddressDependent,
    /// The peer's address and port too ("symmetric").
    AddressAndPortDependent,
}

/// Which outer port a mapping gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortChoice {
    /// The inner one where it is free, else the next one that is.
    #[default]
    Preserve,
    /// One after the other.
    Sequential,
    /// Drawn from the seed.
    Random,
}

/// How a box behaves. Hairpins (from the inside over the outer address back inside) are never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// Which packets from the inside share a mapping. A firewall translates nothing and has one for
    /// each inner address and port.
    pub mapping: Sameness,
    /// Which packets from the outside a mapping lets in: those of peers that were spoken to, as far
    /// as this says.
    pub filtering: Sameness,
    /// How long a mapping of datagrams lives without a packet from the inside, 30 s by default.
    pub udp_timeout: Duration,
    /// Whether packets from the outside keep a mapping alive as well.
    pub inbound_refreshes: bool,
    /// How long a mapping of a stream lives without a segment, 2 h 4 min by default (RFC 5382).
    pub tcp_timeout: Duration,
    /// The same while the stream begins or ends, 4 min by default.
    pub tcp_transitory_timeout: Duration,
    /// Which outer ports are given.
    pub ports: PortChoice,
    /// The first of the ports that may be given; the last is 65,535.
    pub port_first: u16,
    /// Mappings at the same time, up to [`MAPPINGS_MAX`]; what needs another is dropped and counted.
    pub mappings_max: usize,
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            mapping: Sameness::EndpointIndependent,
            filtering: Sameness::AddressAndPortDependent,
            udp_timeout: Duration::from_secs(30),
            inbound_refreshes: false,
            tcp_timeout: Duration::from_secs(2 * 3_600 + 4 * 60),
            tcp_transitory_timeout: Duration::from_secs(4 * 60),
            ports: PortChoice::Preserve,
            port_first: 1_024,
            mappings_max: MAPPINGS_MAX,
        }
    }
}

impl NatConfig {
    /// Any peer may answer a mapping ("full cone").
    pub fn open() -> Self {
        Self { filtering: Sameness::EndpointIndependent, ..Self::default() }
    }

    /// Another outer port for each peer ("symmetric").
    pub fn symmetric() -> Self {
        Self { mapping: Sameness::AddressAndPortDependent, ..Self::default() }
    }
}

/// What a box did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatReport {
    /// Mappings that live.
    pub mappings: usize,
    /// Mappings that were ever made.
    pub made: u64,
    /// Mappings that ended because nothing was said for too long.
    pub expired: u64,
    /// Packets that were let through, in both directions.
    pub passed: u64,
    /// Packets from the outside that nobody inside had asked for.
    pub unsolicited: u64,
    /// Packets from the inside for which there was no room in the table.
    pub table_full: u64,
    /// Packets from the inside for which there was no outer port.
    pub no_port: u64,
    /// Packets from the inside to the box's own outer address.
    pub hairpins: u64,
    /// How often all mappings were forgotten.
    pub rebinds: u64,
}

/// What a segment says of its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// It ends one direction, or breaks both off.
    pub(crate) is_end: bool,
}

/// The state of a box. Time is an argument; draws come from its key.
#[derive(Debug)]
pub(crate) struct Nat {
    config: NatConfig,
    key: u64,
    /// The address that the outside sees; none for a firewall.
    outer: Option<IpAddr>,
    mappings: BTreeMap<u64, Mapping>,
    next_id: u64,
    by_inner: BTreeMap<InnerKey, u64>,
    by_outer: BTreeMap<(Transport, SocketAddr), u64>,
    expiry: BTreeSet<(Timestamp, u64)>,
    next_port: u16,
    report: NatReport,
    /// Outer addresses that a fault made it forget, with the fault, as long as nobody has them again.
    forgotten: BTreeMap<(Transport, SocketAddr), FaultKind>,
    /// The outer addresses that the inside had before the box started again.
    former: BTreeMap<InnerKey, SocketAddr>,
    /// Effects of faults that are not counted yet.
    effects: Vec<FaultKind>,
}

/// What packets from the inside are told apart by: the peer as far as the mapping minds.
type InnerKey = (Transport, SocketAddr, Option<(IpAddr, u16)>);

#[derive(Debug)]
struct Mapping {
    inner_key: InnerKey,
    inner: SocketAddr,
    outer: SocketAddr,
    expires_at: Timestamp,
    /// Whom the inside spoke to, and when last.
    peers: BTreeMap<SocketAddr, Timestamp>,
    answered: bool,
    is_ending: bool,
}

impl Nat {
    pub(crate) fn new(config: NatConfig, key: u64, outer: Option<IpAddr>) -> Self {
        Self {
            config,
            key,
            outer,
            mappings: BTreeMap::new(),
            next_id: 0,
            by_inner: BTreeMap::new(),
            by_outer: BTreeMap::new(),
            expiry: BTreeSet::new(),
            next_port: config.port_first.max(1),
            report: NatReport::default(),
            forgotten: BTreeMap::new(),
            former: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    pub(crate) fn outer(&self) -> Option<IpAddr> {
        self.outer
    }

    pub(crate) fn report(&self) -> NatReport {
        NatReport { mappings: self.mappings.len(), ..self.report }
    }

    /// Remembers which mappings a fault is about to take.
    fn take_by_fault(&mut self, kind: FaultKind) {
        self.forgotten = self.by_outer.keys().map(|outer| (*outer, kind)).collect();
    }

    /// Forgets all mappings by a fault, as if nothing had been said for too long.
    pub(crate) fn time_out(&mut self) {
        self.take_by_fault(FaultKind::NatTimeout);
        self.report.expired += self.mappings.len() as u64;
        self.clear();
    }

    /// Starts again by a fault.
    pub(crate) fn restart(&mut self) {
        self.take_by_fault(FaultKind::NatRebind);
        let outer = |mapping: &Mapping| (mapping.inner_key, mapping.outer);
        self.former = self.mappings.values().map(outer).collect();
        self.rebind(None);
    }

    /// The next effect of a fault that is not counted yet.
    pub(crate) fn take_effect(&mut self) -> Option<FaultKind> {
        self.effects.pop()
    }

    fn clear(&mut self) {
        self.mappings.clear();
        self.by_inner.clear();
        self.by_outer.clear();
        self.expiry.clear();
    }

    /// Forgets all mappings, as a box does that starts again; inner ports are not preserved any
    /// more, so that what comes next from the inside has other outer ports.
    pub(crate) fn rebind(&mut self, outer: Option<IpAddr>) {
        self.outer = self.outer.map(|was| outer.unwrap_or(was));
        self.clear();
        self.report.rebinds += 1;
        let first = self.config.port_first.max(1);
        let choices = u64::from(u16::MAX - first) + 1;
        let offset = draw(self.key, &[1, self.report.rebinds]) % choices;
        // Below 2^16 - first.
        self.next_port = first.saturating_add(offset as u16);
    }

    /// A packet from the inside: the address that it has outside, or `None` when it is dropped and
    /// counted.
    pub(crate) fn outbound(
        &mut self,
        now: Timestamp,
        transport: Transport,
        (from, to): (SocketAddr, SocketAddr),
        ends: Ends,
    ) -> Option<SocketAddr> {
        self.expire(now);
        if self.outer == Some(to.ip()) {
            self.report.hairpins += 1;
            return None;
        }
        let peer = match self.config.mapping {
            _ if self.outer.is_none() => None,
            Sameness::EndpointIndependent => None,
            Sameness::AddressDependent => Some((to.ip(), 0)),
            Sameness::AddressAndPortDependent => Some((to.ip(), to.port())),
        };
        let inner_key = (transport, from, peer);
        let id = match self.by_inner.get(&inner_key) {
            Some(id) => *id,
            None => self.make(inner_key)?,
        };
        let mapping = self.mappings.get_mut(&id)?;
        mapping.peers.insert(to, now);
        if mapping.peers.len() > PEERS_PER_MAPPING_MAX {
            let silent = mapping.peers.iter().min_by_key(|(_, heard_at)| **heard_at);
            if let Some(silent) = silent.map(|(peer, _)| *peer) {
                mapping.peers.remove(&silent);
            }
        }
        mapping.is_ending |= ends.is_end;
        let outer = mapping.outer;
        self.refresh(now, id, transport);
        self.report.passed += 1;
        Some(outer)
    }

    /// A packet from the outside: the address that it is for inside, or `None` when it is dropped
    /// and counted.
    pub(crate) fn inbound(
        &mut self,
        now: Timestamp,
        transport: Transport,
        (from, to): (SocketAddr, SocketAddr),
        ends: Ends,
    ) -> Option<SocketAddr> {
        self.expire(now);
        let found = self.by_outer.get(&(transport, to)).copied();
        let allowed = found.filter(|id| {
            self.mappings.get(id).is_some_and(|mapping| match self.config.filtering {
                Sameness::EndpointIndependent => true,
                Sameness::AddressDependent => {
                    mapping.peers.keys().any(|peer| peer.ip() == from.ip())
                }
                Sameness::AddressAndPortDependent => mapping.peers.contains_key(&from),
            })
        });
        let Some(id) = allowed else {
            self.report.unsolicited += 1;
            self.effects.extend(self.forgotten.get(&(transport, to)));
            return None;
        };
        let mapping = self.mappings.get_mut(&id)?;
        mapping.answered = true;
        mapping.is_ending |= ends.is_end;
        let inner = mapping.inner;
        if transport == Transport::Tcp || self.config.inbound_refreshes {
            self.refresh(now, id, transport);
        }
        self.report.passed += 1;
        Some(inner)
    }

    /// Makes a mapping, if there is room and a port.
    fn make(&mut self, inner_key: InnerKey) -> Option<u64> {
        let (transport, inner, _) = inner_key;
        if self.mappings.len() >= self.config.mappings_max.min(MAPPINGS_MAX) {
            self.report.table_full += 1;
            return None;
        }
        let outer = match self.outer {
            None => inner,
            Some(ip) => {
                let Some(port) = self.port(transport, ip, inner.port()) else {
                    self.report.no_port += 1;
                    return None;
                };
                SocketAddr::new(ip, port)
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        self.by_inner.insert(inner_key, id);
        self.by_outer.insert((transport, outer), id);
        self.forgotten.remove(&(transport, outer));
        if self.former.remove(&inner_key).is_some_and(|former| former != outer) {
            self.effects.push(FaultKind::NatRebind);
        }
        let mapping = Mapping {
            inner_key,
            inner,
            outer,
            expires_at: Timestamp::NEVER,
            peers: BTreeMap::new(),
            answered: false,
            is_ending: false,
        };
        self.mappings.insert(id, mapping);
        self.expiry.insert((Timestamp::NEVER, id));
        self.report.made += 1;
        Some(id)
    }

    /// Counts a packet from the outside that is not for the box.
    pub(crate) fn refuse(&mut self) {
        self.report.unsolicited += 1;
    }

    /// A free outer port.
    fn port(&mut self, transport: Transport, ip: IpAddr, inner: u16) -> Option<u16> {
        let first = self.config.port_first.max(1);
        let is_free =
            |port: u16| !self.by_outer.contains_key(&(transport, SocketAddr::new(ip, port)));
        let choices = u32::from(u16::MAX - first) + 1;
        let begin = match self.config.ports {
            PortChoice::Preserve if self.report.rebinds == 0 && inner >= first => inner,
            PortChoice::Random => {
                let drawn = draw(self.key, &[2, self.report.rebinds, self.next_id]);
                // Below 2^16 - first.
                first + (drawn % u64::from(choices)) as u16
            }
            _ => self.next_port,
        };
        let after = |port: u16| port.checked_add(1).unwrap_or(first);
        let mut port = begin;
        for _ in 0..choices {
            if is_free(port) {
                self.next_port = after(port);
                return Some(port);
            }
            port = after(port);
        }
        None
    }

    /// Lets a mapping live on.
    fn refresh(&mut self, now: Timestamp, id: u64, transport: Transport) {
        let Some(mapping) = self.mappings.get_mut(&id) else { return };
        let timeout = match transport {
            Transport::Udp => self.config.udp_timeout,
            Transport::Tcp if mapping.answered && !mapping.is_ending => self.config.tcp_timeout,
            Transport::Tcp => self.config.tcp_transitory_timeout,
        };
        self.expiry.remove(&(mapping.expires_at, id));
        mapping.expires_at = now.after(timeout);
        self.expiry.insert((mapping.expires_at, id));
    }

    /// Forgets what has been silent for too long.
    fn expire(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.expiry.first().copied()
            && at <= now
        {
            self.expiry.remove(&(at, id));
            let Some(mapping) = self.mappings.remove(&id) else { continue };
            self.by_inner.remove(&mapping.inner_key);
            self.by_outer.remove(&(mapping.inner_key.0, mapping.outer));
            self.report.expired += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: Transport = Transport::Udp;
    const GOES_ON: Ends = Ends { is_end: false };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    fn inner(port: u16) -> SocketAddr {
        ([192, 168, 0, 2], port).into()
    }

    fn peer(last: u8, port: u16) -> SocketAddr {
        ([198, 51, 100, last], port).into()
    }

    fn outer(port: u16) -> SocketAddr {
        ([203, 0, 113, 1], port).into()
    }

    fn nat(config: NatConfig) -> Nat {
        Nat::new(config, 7, Some(outer(0).ip()))
    }

    fn out(nat: &mut Nat, second: u64, port: u16, to: SocketAddr) -> Option<SocketAddr> {
        nat.outbound(at(second), UDP, (inner(port), to), GOES_ON)
    }

    fn back(nat: &mut Nat, second: u64, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        nat.inbound(at(second), UDP, (from, outer(port)), GOES_ON)
    }

    #[test]
    fn a_mapping_is_shared_as_far_as_it_is_told() {
        let ports = |mapping| {
            let mut nat = nat(NatConfig { mapping, ..NatConfig::default() });
            let to = [peer(1, 80), peer(1, 81), peer(2, 80), peer(1, 80)];
            to.map(|to| out(&mut nat, 0, 5_000, to).unwrap().port())
        };
        assert_eq!(ports(Sameness::EndpointIndependent), [5_000; 4]);
        assert_eq!(ports(Sameness::AddressDependent), [5_000, 5_000, 5_001, 5_000]);
        assert_eq!(ports(Sameness::AddressAndPortDependent), [5_000, 5_001, 5_002, 5_000]);
    }

    #[test]
    fn only_who_was_spoken_to_gets_in() {
        let gets_in = |filtering| {
            let mut nat = nat(NatConfig { filtering, ..NatConfig::default() });
            out(&mut nat, 0, 5_000, peer(1, 80)).unwrap();
            let from = [peer(1, 80), peer(1, 81), peer(2, 80)];
            from.map(|from| back(&mut nat, 1, from, 5_000).is_some())
        };
        assert_eq!(gets_in(Sameness::EndpointIndependent), [true, true, true]);
        assert_eq!(gets_in(Sameness::AddressDependent), [true, true, false]);
        assert_eq!(gets_in(Sameness::AddressAndPortDependent), [true, false, false]);
    }

    #[test]
    fn what_nobody_asked_for_is_dropped_and_counted() {
        let mut nat = nat(NatConfig::open());
        assert_eq!(back(&mut nat, 0, peer(1, 80), 5_000), None);
        out(&mut nat, 0, 5_000, peer(1, 80)).unwrap();
        let of_streams = (peer(1, 80), outer(5_000));
        assert_eq!(nat.inbound(at(0), Transport::Tcp, of_streams, GOES_ON), None);
        assert_eq!(nat.report().unsolicited, 2);
    }

    #[test]
    fn silence_ends_a_mapping_and_only_the_inside_breaks_it() {
        for (inbound_refreshes, lives) in [(false, false), (true, true)] {
            let mut nat = nat(NatConfig { inbound_refreshes, ..NatConfig::default() });
            out(&mut nat, 0, 5_000, peer(1, 80)).unwrap();
            out(&mut nat, 20, 5_000, peer(1, 80)).unwrap();
            assert_eq!(back(&mut nat, 49, peer(1, 80), 5_000), Some(inner(5_000)));
            let answer = back(&mut nat, 51, peer(1, 80), 5_000);
            assert_eq!(answer.is_some(), lives);
            assert_eq!(nat.report().expired, u64::from(!lives));
        }
    }

    #[test]
    fn a_stream_that_began_lives_for_hours_and_one_that_ends_for_minutes() {
        let mut nat = nat(NatConfig::default());
        let (there, here) = ((inner(5_000), peer(1, 80)), (peer(1, 80), outer(5_000)));
        let tcp = Transport::Tcp;
        nat.outbound(at(0), tcp, there, GOES_ON).unwrap();
        assert_eq!(nat.inbound(at(250), tcp, here, GOES_ON), None, "never answered");
        nat.outbound(at(300), tcp, there, GOES_ON).unwrap();
        nat.inbound(at(301), tcp, here, GOES_ON).unwrap();
        assert!(nat.inbound(at(7_000), tcp, here, GOES_ON).is_some());
        nat.outbound(at(7_001), tcp, there, Ends { is_end: true }).unwrap();
        assert!(nat.inbound(at(7_200), tcp, here, GOES_ON).is_some());
        assert!(nat.inbound(at(7_441), tcp, here, GOES_ON).is_none());
    }

    #[test]
    fn a_full_table_drops_and_counts() {
        let mut nat = nat(NatConfig { mappings_max: 2, ..NatConfig::default() });
        for (port, wanted) in [(1_024, true), (1_025, true), (1_026, false), (1_024, true)] {
            assert_eq!(out(&mut nat, 0, port, peer(1, 80)).is_some(), wanted, "{port}");
        }
        assert_eq!((nat.report().table_full, nat.report().mappings), (1, 2));
        assert!(out(&mut nat, 40, 1_026, peer(1, 80)).is_some(), "the others have expired");
    }

    #[test]
    fn ports_run_out() {
        let config = NatConfig { port_first: 65_534, ..NatConfig::default() };
        let mut nat = nat(config);
        let ports: Vec<_> =
            (1..4).map(|port| out(&mut nat, 0, port, peer(1, 80)).map(|to| to.port())).collect();
        assert_eq!(ports, [Some(65_534), Some(65_535), None]);
        assert_eq!(nat.report().no_port, 1);
    }

    #[test]
    fn hairpins_are_not_made() {
        let mut nat = nat(NatConfig::open());
        out(&mut nat, 0, 5_000, peer(1, 80)).unwrap();
        assert_eq!(out(&mut nat, 0, 6_000, outer(5_000)), None);
        assert_eq!(nat.report().hairpins, 1);
    }

    #[test]
    fn a_rebound_box_has_forgotten_all_and_gives_other_ports() {
        for ports in [PortChoice::Preserve, PortChoice::Sequential, PortChoice::Random] {
            let mut nat = nat(NatConfig { ports, ..NatConfig::open() });
            let before = out(&mut nat, 0, 5_000, peer(1, 80)).unwrap();
            nat.rebind(None);
            assert_eq!(back(&mut nat, 1, peer(1, 80), before.port()), None);
            let after = out(&mut nat, 1, 5_000, peer(1, 80)).unwrap();
            assert_ne!(after, before, "{ports:?}");
            nat.rebind(Some([203, 0, 113, 9].into()));
            let moved = out(&mut nat, 2, 5_000, peer(1, 80)).unwrap();
            assert_eq!(moved.ip(), IpAddr::from([203, 0, 113, 9]));
            assert_eq!(nat.report().rebinds, 2);
        }
    }

    #[test]
    fn a_firewall_changes_no_address() {
        let mut wall = Nat::new(NatConfig::default(), 7, None);
        let host = inner(5_000);
        let asked = (host, peer(1, 80));
        assert_eq!(wall.inbound(at(0), UDP, (peer(1, 80), host), GOES_ON), None);
        assert_eq!(wall.outbound(at(0), UDP, asked, GOES_ON), Some(host));
        assert_eq!(wall.inbound(at(1), UDP, (peer(1, 80), host), GOES_ON), Some(host));
        assert_eq!(wall.inbound(at(1), UDP, (peer(2, 80), host), GOES_ON), None);
        assert_eq!(wall.inbound(at(31), UDP, (peer(1, 80), host), GOES_ON), None);
    }

    #[test]
    fn a_mapping_remembers_a_bounded_number_of_peers() {
        let mut nat = nat(NatConfig::default());
        for second in 0..100 {
            out(&mut nat, u64::from(second) / 10, 5_000, peer(second, 80)).unwrap();
        }
        let mapping = nat.mappings.values().next().unwrap();
        assert_eq!(mapping.peers.len(), PEERS_PER_MAPPING_MAX);
        assert!(back(&mut nat, 10, peer(99, 80), 5_000).is_some());
        assert!(back(&mut nat, 10, peer(0, 80), 5_000).is_none());
    }
}
