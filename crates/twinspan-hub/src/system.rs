//! What roads ask of the system before they begin: nodes with secrets of their own, addresses that it
//! chooses, and a clock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;
use twinspan_topic::{Inbox, Node, NodeConfig};

use crate::error::BuildError;

/// Any address of the family of another.
pub(crate) const fn any_like(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// Whether this machine speaks IPv6, as far as its settings say.
pub(crate) fn has_ipv6() -> bool {
    // Without the file there is no IPv6 in this kernel.
    let setting = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    setting.is_ok_and(|it| it.trim() == "0")
}

/// Which families come to who listens at an address, where that is not plain.
pub(crate) fn families(address: SocketAddr) -> Option<&'static str> {
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    is_any.then(|| match has_ipv6() {
        true => "at [::] it has peers of IPv6 and of IPv4",
        false => "IPv6 is off on this machine, so that at [::] it has peers of IPv4 alone",
    })
}

/// Bytes of the receive buffer of a socket that asks for nothing.
pub(crate) fn usual_receive_buffer() -> Option<usize> {
    let setting = std::fs::read_to_string("/proc/sys/net/core/rmem_default").ok()?;
    setting.trim().parse().ok()
}

/// The kernel's counters of this network namespace, as it writes them.
pub(crate) fn network_counters() -> Option<String> {
    std::fs::read_to_string("/proc/net/netstat").ok()
}

/// The time since some moment of this process.
pub(crate) fn stopwatch() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Randomness of the operating system.
struct SystemRandom {
    has_failed: bool,
}

impl SecretSource for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.has_failed |= getrandom::fill(bytes).is_err();
    }
}

/// A node, its secrets drawn from the system, and the inbox that it fills.
///
/// # Errors
/// A setting is out of its range, or the system has no randomness.
pub(crate) fn node(config: NodeConfig, now: Timestamp) -> Result<(Node, Inbox), BuildError> {
    config.check().map_err(|error| BuildError::Setting {
        setting: error.field,
        value: error.value.to_string(),
        range: "what its option says",
    })?;
    let inbox = Inbox::new(config.inbox_limits());
    let mut secrets = SystemRandom { has_failed: false };
    let node = Node::new(config, now, &mut secrets);
    if secrets.has_failed {
        return Err(BuildError::NoRandomness);
    }
    Ok((node, inbox))
}

#[cfg(test)]
mod tests {
    use twinspan_topic::NodeSide;

    use super::*;

    #[test]
    fn any_address_is_of_the_same_family() {
        for (address, any) in [("192.0.2.1:7", "0.0.0.0:0"), ("[2001:db8::1]:7", "[::]:0")] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(any_like(address).to_string(), any);
        }
    }

    #[test]
    fn a_setting_out_of_its_range_is_named() {
        let greeting = crate::stream::test_greeting(1, "t");
        let mut config = NodeConfig::new(greeting, NodeSide::Listen);
        assert!(node(config.clone(), Timestamp::START).is_ok());
        config.datagram_bytes_max = 100;
        let error = node(config, Timestamp::START).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("datagram_bytes_max") && error.contains("100"), "{error}");
    }
}
