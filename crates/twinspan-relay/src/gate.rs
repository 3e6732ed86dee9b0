//! How much of what strangers send is let through, by source and in all, in fixed memory.

use std::net::{IpAddr, SocketAddr};

use twinspan_core::time::Timestamp;

use crate::links::hash;

/// Counters by source; sources that meet in one share its allowance.
const SOURCES: usize = 1 << 14;

/// So many a second, in bursts of up to a second's worth.
///
/// The generic cell rate algorithm: one word says when the allowance is whole again.
#[derive(Clone, Copy, Debug)]
struct Rate {
    interval_ns: u64,
}

impl Rate {
    const BURST_NS: u64 = 1_000_000_000;

    const fn new(per_second: u32) -> Self {
        Self { interval_ns: Self::BURST_NS / if per_second == 0 { 1 } else { per_second as u64 } }
    }

    /// Takes one, when there is one.
    const fn take(self, whole_at: &mut u64, now_ns: u64) -> bool {
        let from = if *whole_at > now_ns { *whole_at } else { now_ns };
        let used_ns = from + self.interval_ns - now_ns;
        let allowed = used_ns <= Self::BURST_NS;
        if allowed {
            *whole_at = from + self.interval_ns;
        }
        allowed
    }
}

/// Why a gate stays closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The source's network sent too much of this.
    Source,
    /// All together sent too much of this.
    Total,
}

/// Limits one kind of datagram by source network (/24 of IPv4, /56 of IPv6) and in all.
pub(crate) struct Gate {
    source: Rate,
    total: Rate,
    total_whole_at: u64,
    sources: Box<[u64]>,
    key: u64,
}

impl Gate {
    pub(crate) fn new(per_source_per_second: u32, per_second: u32, key: u64) -> Self {
        Self {
            source: Rate::new(per_source_per_second),
            total: Rate::new(per_second),
            total_whole_at: 0,
            sources: vec![0; SOURCES].into_boxed_slice(),
            key,
        }
    }

    /// Lets a datagram from `client` through, or says why not.
    pub(crate) fn pass(&mut self, now: Timestamp, client: SocketAddr) -> Result<(), Closed> {
        let now_ns = now.as_nanos();
        let at = (hash(self.key, network(client.ip()), 0) % SOURCES as u64) as usize;
        let Some(source) = self.sources.get_mut(at) else { return Err(Closed::Source) };
        if !self.source.take(source, now_ns) {
            return Err(Closed::Source);
        }
        if !self.total.take(&mut self.total_whole_at, now_ns) {
            return Err(Closed::Total);
        }
        Ok(())
    }

    /// Bytes of its counters, which never change.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.sources)
    }
}

/// The network that one owner is likely to have.
fn network(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        // The highest bit set, so that no IPv6 network is taken for one of IPv4.
        IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_millis(millis))
    }

    fn passed(gate: &mut Gate, at: Timestamp, client: &str, tries: u32) -> usize {
        let client = client.parse().unwrap();
        (0..tries).filter(|_| gate.pass(at, client).is_ok()).count()
    }

    #[test]
    fn a_source_has_its_burst_and_then_its_rate() {
        let mut gate = Gate::new(100, 1_000_000, 1);
        assert_eq!(passed(&mut gate, at(5_000), "10.0.0.1:1", 300), 100);
        assert_eq!(passed(&mut gate, at(5_000), "10.0.0.9:2", 300), 0, "the same /24");
        assert_eq!(passed(&mut gate, at(5_000), "10.0.1.1:1", 300), 100, "another /24");
        assert_eq!(passed(&mut gate, at(5_500), "10.0.0.1:1", 300), 50);
        assert_eq!(passed(&mut gate, at(60_000), "10.0.0.1:1", 300), 100, "bursts do not add up");
        let client = "10.0.0.1:1".parse().unwrap();
        assert_eq!(gate.pass(at(60_000), client), Err(Closed::Source));
    }

    #[test]
    fn all_sources_together_have_a_limit() {
        let mut gate = Gate::new(100, 150, 1);
        assert_eq!(passed(&mut gate, at(0), "10.0.0.1:1", 300), 100);
        assert_eq!(passed(&mut gate, at(0), "10.0.1.1:1", 300), 50);
        let client = "10.0.2.1:1".parse().unwrap();
        assert_eq!(gate.pass(at(0), client), Err(Closed::Total));
        assert_eq!(passed(&mut gate, at(1_000), "10.0.2.1:1", 300), 100);
    }

    #[test]
    fn networks_of_ipv6_are_56_bits_long() {
        let mut gate = Gate::new(10, 1_000, 1);
        assert_eq!(passed(&mut gate, at(0), "[2001:db8:0:1::1]:1", 30), 10);
        assert_eq!(passed(&mut gate, at(0), "[2001:db8:0:ff::1]:1", 30), 0);
        assert_eq!(passed(&mut gate, at(0), "[2001:db8:0:100::1]:1", 30), 10);
    }

    #[test]
    fn ten_million_sources_leave_no_byte() {
        let mut gate = Gate::new(100, 1_000, 1);
        let bytes = gate.bytes();
        for number in 0..10_000_000_u32 {
            let client = SocketAddr::from((number.to_be_bytes(), 1));
            let _: Result<(), Closed> = gate.pass(at(u64::from(number) / 1_000), client);
        }
        assert_eq!(gate.bytes(), bytes);
    }
}
