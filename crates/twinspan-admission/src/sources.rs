//! Gauges of networks in a table of fixed size, whatever addresses attackers choose.

use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip128::{Hasher128, SipHasher13};
use twinspan_core::time::Timestamp;

use crate::gauge::Gauge;

/// Places in which one network may be kept.
const WAYS: usize = 8;
/// Fewest networks that a table remembers.
pub const SOURCES_MIN: usize = 64;
/// Most networks that a table can be asked to remember: 256 MiB of it.
pub const SOURCES_MAX: usize = 1 << 24;

/// What is counted about a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Counted {
    /// HELLOs with a right cookie: the address is proven, and a key exchange is about to be paid.
    Handshakes,
    /// Handshakes that came to nothing through the client's fault.
    Failures,
}

/// How much of an address names the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Network {
    /// One IPv4 address.
    V4Host,
    /// 256 neighbouring IPv4 addresses.
    V4Net24,
    /// What one household has of IPv6.
    V6Net56,
    /// What one site has of IPv6.
    V6Net48,
}

impl Network {
    /// All of them, by the names that rules use.
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("v4/32", Self::V4Host),
        ("v4/24", Self::V4Net24),
        ("v6/56", Self::V6Net56),
        ("v6/48", Self::V6Net48),
    ];

    /// The network of this kind that holds the address; `None` for an address of the other family.
    /// An IPv4 address in IPv6 form is an IPv4 address.
    pub(crate) const fn of(self, source: IpAddr) -> Option<u64> {
        match (self, source.to_canonical()) {
            (Self::V4Host, IpAddr::V4(address)) => Some(address.to_bits() as u64),
            (Self::V4Net24, IpAddr::V4(address)) => Some(address.to_bits() as u64 >> 8),
            (Self::V6Net56, IpAddr::V6(address)) => Some(upper_half(address) >> 8),
            (Self::V6Net48, IpAddr::V6(address)) => Some(upper_half(address) >> 16),
            _ => None,
        }
    }
}

const fn upper_half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

/// One network's gauge.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Half of the network's keyed hash; the other half chose the set.
    tag: u64,
    gauge: Gauge,
}

/// Where a network stands, or would.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    set: usize,
    tag: u64,
}

/// A set-associative table. A place whose gauge is idle is free; when all places of a set are busy,
/// the one that will be idle first gives way and is counted.
///
/// Which set a network falls into is decided by a keyed hash, so nobody outside can choose
/// addresses that share one.
pub(crate) struct Sources {
    key: [u8; 16],
    places: Box<[Place]>,
    evicted: u64,
}

impl Sources {
    /// A table for about `networks` networks, brought into its range; all of its memory is taken
    /// now.
    pub(crate) fn new(networks: usize, key: [u8; 16]) -> Self {
        let networks = networks.clamp(SOURCES_MIN, SOURCES_MAX).next_power_of_two();
        Self { key, places: vec![Place::default(); networks].into_boxed_slice(), evicted: 0 }
    }

    /// Networks that it remembers at most.
    pub(crate) const fn capacity(&self) -> usize {
        self.places.len()
    }

    /// Networks that gave way although something was owed.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) fn spot(&self, counted: Counted, network: Network, value: u64) -> Spot {
        use core::hash::Hasher;
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(counted as u8);
        hasher.write_u8(network as u8);
        hasher.write_u64(value);
        let hash = hasher.finish128();
        // The table's length is a power of two and a multiple of the ways.
        let sets = self.places.len() / WAYS;
        Spot { set: (hash.h1 as usize & (sets - 1)) * WAYS, tag: hash.h2 }
    }

    /// The network's gauge, idle when it has no place.
    pub(crate) fn gauge(&self, spot: Spot) -> Gauge {
        let set = self.places.iter().skip(spot.set).take(WAYS);
        set.filter(|place| place.tag == spot.tag)
            .map(|place| place.gauge)
            .next()
            .unwrap_or_default()
    }

    /// Keeps the network's gauge.
    pub(crate) fn keep(&mut self, now: Timestamp, spot: Spot, gauge: Gauge) {
        let mut first = None;
        for place in self.places.iter_mut().skip(spot.set).take(WAYS) {
            if place.tag == spot.tag {
                place.gauge = gauge;
                return;
            }
            let owed = place.gauge.owed(now);
            if first.as_ref().is_none_or(|(least, _)| owed < *least) {
                first = Some((owed, place));
            }
        }
        if let Some((_, place)) = first {
            self.evicted += u64::from(!place.gauge.is_idle(now));
            *place = Place { tag: spot.tag, gauge };
        }
    }

    /// Networks with something owed.
    #[cfg(test)]
    pub(crate) fn busy(&self, now: Timestamp) -> usize {
        self.places.iter().filter(|place| !place.gauge.is_idle(now)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::gauge::Allowance;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_share_a_network_and_families_do_not() {
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.200"));
        assert_ne!(Network::V4Host.of(a), Network::V4Host.of(b));
        assert_eq!(Network::V4Net24.of(a), Network::V4Net24.of(b));
        assert_ne!(Network::V4Net24.of(a), Network::V4Net24.of(ip("192.0.3.1")));
        assert_eq!(Network::V4Host.of(ip("::ffff:192.0.2.1")), Network::V4Host.of(a));
        assert_eq!(Network::V6Net56.of(a), None);
        assert_eq!(Network::V4Host.of(ip("2001:db8::1")), None);
        let (home, same, site) =
            (ip("2001:db8:0:1::1"), ip("2001:db8:0:ff::9"), ip("2001:db8:0:100::1"));
        assert_eq!(Network::V6Net56.of(home), Network::V6Net56.of(same));
        assert_ne!(Network::V6Net56.of(home), Network::V6Net56.of(site));
        assert_eq!(Network::V6Net48.of(home), Network::V6Net48.of(site));
        assert_ne!(Network::V6Net48.of(home), Network::V6Net48.of(ip("2001:db8:1::1")));
    }

    #[test]
    fn a_table_is_as_large_as_asked_within_its_range() {
        assert_eq!(Sources::new(0, [0; 16]).capacity(), SOURCES_MIN);
        assert_eq!(Sources::new(1_000, [0; 16]).capacity(), 1_024);
    }

    #[test]
    fn the_one_that_is_idle_first_gives_way() {
        let mut sources = Sources::new(64, [7; 16]);
        let now = Timestamp::from_nanos(1);
        let spots = |set: usize| {
            let sources = Sources::new(64, [7; 16]);
            (0..u64::MAX)
                .map(move |value| sources.spot(Counted::Handshakes, Network::V4Host, value))
                .filter(move |spot| spot.set == set * WAYS)
        };
        let mut debts = BTreeMap::new();
        for (index, spot) in spots(3).take(WAYS).enumerate() {
            let mut gauge = Gauge::default();
            (0..=index).for_each(|_| gauge.spend(now, Allowance::new(1.0, 100)));
            debts.insert(index, (spot, gauge));
            sources.keep(now, spot, gauge);
        }
        assert_eq!((sources.busy(now), sources.evicted()), (WAYS, 0));
        let ninth = spots(3).nth(WAYS).unwrap();
        let mut gauge = Gauge::default();
        gauge.spend(now, Allowance::new(0.01, 1));
        sources.keep(now, ninth, gauge);
        assert_eq!((sources.busy(now), sources.evicted()), (WAYS, 1));
        assert_eq!(sources.gauge(ninth), gauge);
        for (index, (spot, gauge)) in debts {
            let kept = if index == 0 { Gauge::default() } else { gauge };
            assert_eq!(sources.gauge(spot), kept, "{index}");
        }
    }

    proptest! {
        /// As long as fewer networks are busy than fit, the table is a map without a limit.
        #[test]
        fn a_table_with_room_forgets_nobody(
            steps in prop::collection::vec((0_u64..8, 0_u64..3_000), 1..300),
        ) {
            let mut sources = Sources::new(1_024, [9; 16]);
            let mut model: BTreeMap<u64, Gauge> = BTreeMap::new();
            let allowance = Allowance::new(2.0, 4);
            let mut now = Timestamp::START;
            for (network, wait_ms) in steps {
                now = now.after(core::time::Duration::from_millis(wait_ms));
                let spot = sources.spot(Counted::Failures, Network::V4Net24, network);
                let mut gauge = sources.gauge(spot);
                let passed = gauge.take(now, allowance);
                sources.keep(now, spot, gauge);
                let wanted = model.entry(network).or_default().take(now, allowance);
                prop_assert_eq!(passed, wanted);
            }
        }
    }
}
