//! What a relay and a server's port are told.

use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::steer::Steering;

use crate::error::RelayConfigError;
use crate::key::{Direction, TrunkKey, TrunkTags};
use crate::links::LINKS_LIMIT;

/// The most addresses at the other end of a trunk: shards of a relay's server, or a server's relays.
pub const PEERS_MAX: usize = 64;
/// The widest padding.
pub const PADDING_MAX: usize = 128;

/// The keys of a trunk.
#[derive(Clone, Debug)]
pub struct TrunkKeys {
    /// The key to send with.
    pub present: TrunkKey,
    /// The key of the other end while it has not changed its own yet.
    pub before: Option<TrunkKey>,
}

impl TrunkKeys {
    /// The tags that are taken on one direction, and the one that is sent.
    pub(crate) fn tags(&self, direction: Direction) -> TrunkTags {
        TrunkTags::new(&self.present, self.before.as_ref(), direction)
    }

    /// Whether these are the same keys in the same places.
    pub fn are_same(&self, other: &Self) -> bool {
        let before = match (&self.before, &other.before) {
            (Some(before), Some(other)) => before.is_same(other),
            (None, None) => true,
            _ => false,
        };
        before && self.present.is_same(&other.present)
    }
}

impl From<TrunkKey> for TrunkKeys {
    fn from(present: TrunkKey) -> Self {
        Self { present, before: None }
    }
}

/// What a relay is told.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// The trunk addresses of the server's shards, in their order; one for a server on one core.
    pub servers: Vec<SocketAddr>,
    /// Which shard takes what; needed with several shards.
    pub steering: Option<Steering>,
    /// The secret shared with the server.
    pub keys: TrunkKeys,
    /// Clients that the relay knows to be answered; beyond them some are treated as strangers for a
    /// moment. 1 to 2^22; a link takes 48 to 96 bytes of memory, from the start.
    pub links_max: usize,
    /// How long a client counts as answered after the server's last datagram to it; at least 1 s.
    pub link_idle: Duration,
    /// Handshake datagrams a second from one network (/24 of IPv4, /56 of IPv6).
    pub hellos_per_source: u32,
    /// Handshake datagrams a second in all.
    pub hellos_per_second: u32,
    /// Sealed datagrams a second from unanswered addresses of one network.
    pub strays_per_source: u32,
    /// Sealed datagrams a second from unanswered addresses in all.
    pub strays_per_second: u32,
    /// Trunk datagrams are padded to a multiple of this, so that more of them are of equal length
    /// and leave in one run; 1 pads nothing. 1 to [`PADDING_MAX`].
    pub pad_to: usize,
    /// How long a server that is spoken to may say nothing before it counts as silent; at least 1 s.
    pub silence_max: Duration,
    /// Datagrams that may wait to be sent on each side; more are dropped and counted.
    pub queue_max: usize,
}

impl RelayConfig {
    /// The usual settings for a server on one core at `server`.
    pub fn new(server: SocketAddr, keys: impl Into<TrunkKeys>) -> Self {
        Self {
            servers: vec![server],
            steering: None,
            keys: keys.into(),
            links_max: 16_384,
            link_idle: Duration::from_secs(30),
            hellos_per_source: 500,
            hellos_per_second: 200_000,
            strays_per_source: 2_000,
            strays_per_second: 100_000,
            pad_to: 16,
            silence_max: Duration::from_secs(3),
            queue_max: 4_096,
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`RelayConfigError`] names the setting that cannot be.
    pub fn check(&self) -> Result<(), RelayConfigError> {
        check_peers(&self.servers)?;
        let steered = self.steering.map_or(0, Steering::shards);
        let shards = self.servers.len();
        if (shards > 1 || steered > 0) && usize::from(steered) != shards {
            return Err(RelayConfigError::Steering { shards, steered });
        }
        if !(1..=LINKS_LIMIT).contains(&self.links_max) {
            return Err(RelayConfigError::Links(self.links_max));
        }
        check_padding(self.pad_to)?;
        for (rate, name) in [
            (self.hellos_per_source, "hellos_per_source"),
            (self.hellos_per_second, "hellos_per_second"),
            (self.strays_per_source, "strays_per_source"),
            (self.strays_per_second, "strays_per_second"),
            (u32::try_from(self.queue_max).unwrap_or(u32::MAX), "queue_max"),
        ] {
            if rate == 0 {
                return Err(RelayConfigError::Rate(name));
            }
        }
        for (time, name) in [(self.link_idle, "link_idle"), (self.silence_max, "silence_max")] {
            if time < Duration::from_secs(1) {
                return Err(RelayConfigError::Time(name));
            }
        }
        Ok(())
    }
}

/// What a server's port towards relays is told.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The relays that may speak, by the addresses of their trunk sockets. A relay's place in the
    /// list is part of its clients' addresses: keep it when the list grows.
    pub relays: Vec<SocketAddr>,
    /// The secret shared with the relays.
    pub keys: TrunkKeys,
    /// As [`RelayConfig::pad_to`].
    pub pad_to: usize,
}

impl PortConfig {
    /// The usual settings for these relays.
    pub fn new(relays: Vec<SocketAddr>, keys: impl Into<TrunkKeys>) -> Self {
        Self { relays, keys: keys.into(), pad_to: 32 }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`RelayConfigError`] names the setting that cannot be.
    pub fn check(&self) -> Result<(), RelayConfigError> {
        check_peers(&self.relays)?;
        check_padding(self.pad_to)
    }
}

fn check_padding(pad_to: usize) -> Result<(), RelayConfigError> {
    if (1..=PADDING_MAX).contains(&pad_to) {
        return Ok(());
    }
    Err(RelayConfigError::Padding(pad_to))
}

fn check_peers(peers: &[SocketAddr]) -> Result<(), RelayConfigError> {
    if peers.is_empty() {
        return Err(RelayConfigError::NoPeer);
    }
    if peers.len() > PEERS_MAX {
        return Err(RelayConfigError::ManyPeers { have: peers.len() });
    }
    for (index, peer) in peers.iter().enumerate() {
        let ip = peer.ip();
        if peer.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(RelayConfigError::NotAPeer(*peer));
        }
        if peers.iter().take(index).any(|other| other == peer) {
            return Err(RelayConfigError::TwicePeer(*peer));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RelayConfig {
        RelayConfig::new(([10, 0, 0, 1], 7_700).into(), TrunkKey::from_bytes([1; 32]))
    }

    fn refused(change: impl FnOnce(&mut RelayConfig)) -> String {
        let mut config = config();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_usual_settings_can_be() {
        assert_eq!(config().check(), Ok(()));
        let mut sharded = config();
        sharded.servers.push(([10, 0, 0, 1], 7_701).into());
        sharded.steering = Some(Steering::new(1, 2));
        assert_eq!(sharded.check(), Ok(()));
    }

    #[test]
    fn each_bad_setting_is_named() {
        assert!(refused(|c| c.servers.clear()).contains("at least one"));
        assert!(refused(|c| c.servers.push(c.servers[0])).contains("10.0.0.1:7700 is named twice"));
        assert!(refused(|c| c.servers[0].set_port(0)).contains("no address of one host"));
        let many = |c: &mut RelayConfig| {
            c.servers = (1..=65).map(|port| ([10, 0, 0, 1], port).into()).collect();
        };
        assert!(refused(many).contains("65 addresses"));
        let two = |c: &mut RelayConfig| c.servers.push(([10, 0, 0, 2], 1).into());
        assert!(refused(two).contains("2 shards"));
        assert!(refused(|c| c.steering = Some(Steering::new(1, 2))).contains("it has 2"));
        assert!(refused(|c| c.links_max = 0).contains("links_max is 0"));
        assert!(refused(|c| c.pad_to = 0).contains("pad_to is 0"));
        assert!(refused(|c| c.strays_per_source = 0).contains("strays_per_source"));
        assert!(refused(|c| c.link_idle = Duration::ZERO).contains("link_idle"));
    }
}
