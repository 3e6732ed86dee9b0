//! The relay as a machine: clients on one side, a server's trunk on the other.

use std::net::SocketAddr;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::SecretSource;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;

use crate::config::{RelayConfig, TrunkKeys};
use crate::error::RelayConfigError;
use crate::frame::{FrameError, INNER_BYTES_MAX, INNER_BYTES_MIN, decode, encode};
use crate::gate::{Closed, Gate};
use crate::key::{Direction, TrunkTags};
use crate::links::{Answered, Links};
use crate::runs::Runs;
use crate::stats::RelayStats;

/// Bytes of a HELLO, session 3.3: what begins a handshake and is not as long is amplification.
const HELLO_BYTES: usize = 1_200;
/// The flags byte of the handshake form, session 1.3, and where it is.
const LONG: u8 = 0x01;
const FLAGS_AT: usize = 5;

/// What a relay tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayEvent {
    /// A shard of the server that is spoken to says nothing any more.
    ServerSilent {
        /// Its trunk address.
        server: SocketAddr,
    },
    /// A shard that was silent speaks again.
    ServerBack {
        /// Its trunk address.
        server: SocketAddr,
    },
}

/// One shard of the server, as the relay hears it.
#[derive(Clone, Copy, Debug)]
struct Shard {
    address: SocketAddr,
    /// When an answered client's datagram was first handed to it since it last spoke.
    unanswered_since: Option<Timestamp>,
    is_silent: bool,
    /// Whether the change was told.
    told: bool,
}

/// The relay, as a [`Machine`]: run it with [`twinspan_provider::drive`] over a
/// [`TwoSided`](crate::TwoSided) socket whose trunk side hears the servers alone.
///
/// It keeps nothing that a client or the server could miss: what names a client travels with each
/// datagram, so a relay that starts anew goes on where the old one stopped. Its table of answered
/// addresses only says whom a flood must not displace.
pub struct Relay {
    config: RelayConfig,
    shards: Vec<Shard>,
    to_server_tags: TrunkTags,
    to_relay_tags: TrunkTags,
    links: Links,
    hellos: Gate,
    strays: Gate,
    /// What waits to be sent to the server.
    up: Runs,
    /// What waits to be sent to clients.
    down: DatagramBatch,
    /// When the shards' silence is looked at next.
    check_at: Timestamp,
    is_stopped: bool,
    stats: RelayStats,
}

impl Relay {
    /// A relay that has not begun. `secrets` keys its tables against chosen addresses.
    ///
    /// # Errors
    /// [`RelayConfigError`] names the setting that cannot be.
    pub fn new(
        config: RelayConfig,
        secrets: &mut dyn SecretSource,
    ) -> Result<Self, RelayConfigError> {
        config.check()?;
        let mut key = || {
            let mut bytes = [0; 8];
            secrets.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        let shard = |address: &SocketAddr| Shard {
            address: *address,
            unanswered_since: None,
            is_silent: false,
            told: true,
        };
        Ok(Self {
            shards: config.servers.iter().map(shard).collect(),
            to_server_tags: config.keys.tags(Direction::ToServer),
            to_relay_tags: config.keys.tags(Direction::ToRelay),
            links: Links::new(config.links_max, config.link_idle, key()),
            hellos: Gate::new(config.hellos_per_source, config.hellos_per_second, key()),
            strays: Gate::new(config.strays_per_source, config.strays_per_second, key()),
            up: Runs::new(config.queue_max),
            down: DatagramBatch::new(config.queue_max),
            check_at: Timestamp::START,
            is_stopped: false,
            stats: RelayStats::default(),
            config,
        })
    }

    /// Takes other keys of the trunk: it sends with the present one and takes both. Clients do not
    /// notice.
    pub fn replace_keys(&mut self, keys: TrunkKeys) {
        self.to_server_tags = keys.tags(Direction::ToServer);
        self.to_relay_tags = keys.tags(Direction::ToRelay);
        self.config.keys = keys;
    }

    /// What was counted, and the links there are now.
    pub fn stats(&self, now: Timestamp) -> RelayStats {
        RelayStats { links: self.links.count(now) as u64, ..self.stats }
    }

    /// Bytes that its tables take: the same from start to end.
    pub fn table_bytes(&self) -> usize {
        self.links.bytes() + self.hellos.bytes() + self.strays.bytes()
    }

    /// What happened and was not told yet.
    pub fn poll_event(&mut self) -> Option<RelayEvent> {
        let shard = self.shards.iter_mut().find(|shard| !shard.told)?;
        shard.told = true;
        let server = shard.address;
        Some(if shard.is_silent {
            RelayEvent::ServerSilent { server }
        } else {
            RelayEvent::ServerBack { server }
        })
    }

    /// Makes the driver return after what waits was sent.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Judges a client's datagram and makes it one of the trunk.
    fn handle_client(&mut self, now: Timestamp, mut datagram: Datagram) {
        let client = datagram.peer;
        let len = datagram.packet.len();
        let drops = &mut self.stats.drops;
        if len < INNER_BYTES_MIN {
            drops.short += 1;
            return;
        }
        if len > INNER_BYTES_MAX {
            drops.too_long += 1;
            return;
        }
        let is_handshake = datagram.packet.first_chunk() == Some(&[0; 4]);
        if is_handshake {
            if len != HELLO_BYTES || datagram.packet.get(FLAGS_AT) != Some(&LONG) {
                drops.bad_hello += 1;
                return;
            }
            match self.hellos.pass(now, client) {
                Ok(()) => {}
                Err(Closed::Source) => return drops.hellos_source += 1,
                Err(Closed::Total) => return drops.hellos_total += 1,
            }
        }
        let is_stray = !is_handshake && !self.links.contains(now, client);
        if is_stray {
            match self.strays.pass(now, client) {
                Ok(()) => {}
                Err(Closed::Source) => return drops.strays_source += 1,
                Err(Closed::Total) => return drops.strays_total += 1,
            }
        }
        let steering = self.config.steering;
        let index = steering.map_or(0, |steering| steering.shard_of_packet(&datagram.packet));
        let Some(shard) = self.shards.get_mut(usize::from(index)) else { return };
        let tag = self.to_server_tags.present();
        if !encode(&mut datagram.packet, client, self.config.pad_to, tag) {
            drops.bad_client += 1;
            return;
        }
        datagram.peer = shard.address;
        let key = Runs::key(index, datagram.packet.len());
        if self.up.push(key, datagram).is_err() {
            drops.to_server_full += 1;
            return;
        }
        if !is_handshake && !is_stray && shard.unanswered_since.is_none() {
            shard.unanswered_since = Some(now);
        }
        self.stats.hellos += u64::from(is_handshake);
        self.stats.strays += u64::from(is_stray);
        self.stats.to_server += 1;
        self.stats.to_server_bytes += len as u64;
    }

    /// Takes the trailer off a datagram of the trunk and readies it for the client that it names.
    fn handle_server(&mut self, now: Timestamp, shard: usize, mut datagram: Datagram) {
        let drops = &mut self.stats.drops;
        let (client, len) = match decode(&datagram.packet, &self.to_relay_tags) {
            Ok(frame) => frame,
            Err(FrameError::Tag) => return drops.bad_tag += 1,
            Err(_) => return drops.bad_frame += 1,
        };
        self.hear(shard);
        datagram.packet.set_len(len);
        datagram.peer = client;
        // An answer to a handshake proves nothing yet: RETRY goes to whoever was named.
        if datagram.packet.first_chunk() != Some(&[0; 4]) {
            match self.links.answer(now, client) {
                Answered::Known => {}
                Answered::New => self.stats.links_begun += 1,
                Answered::Instead => {
                    self.stats.links_begun += 1;
                    self.stats.links_crowded_out += 1;
                }
            }
        }
        if self.down.push(datagram).is_err() {
            self.stats.drops.to_clients_full += 1;
            return;
        }
        self.stats.to_clients += 1;
        self.stats.to_clients_bytes += len as u64;
    }

    fn hear(&mut self, shard: usize) {
        let Some(shard) = self.shards.get_mut(shard) else { return };
        shard.unanswered_since = None;
        if shard.is_silent {
            shard.is_silent = false;
            shard.told = false;
        }
    }

    fn shard_at(&self, peer: SocketAddr) -> Option<usize> {
        self.shards.iter().position(|shard| shard.address == peer)
    }
}

impl Machine for Relay {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while let Some(datagram) = received.pop() {
            match self.shard_at(datagram.peer) {
                Some(shard) => self.handle_server(now, shard, datagram),
                None => self.handle_client(now, datagram),
            }
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if now < self.check_at {
            return;
        }
        self.check_at = now.after(self.config.silence_max / 4);
        for shard in &mut self.shards {
            let waited = shard.unanswered_since.map(|since| now.since(since));
            if !shard.is_silent && waited.is_some_and(|waited| waited > self.config.silence_max) {
                shard.is_silent = true;
                shard.told = false;
                self.stats.silences += 1;
            }
        }
    }

    /// One side at a time, so that a batch goes whole to one socket.
    fn poll_transmit(&mut self, _now: Timestamp, _pool: &PacketPool, out: &mut DatagramBatch) {
        if !self.up.is_empty() {
            return self.up.drain_into(out);
        }
        while out.room() > 0 {
            let Some(datagram) = self.down.pop() else { return };
            // There was room.
            drop(out.push(datagram));
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        Some(self.check_at)
    }

    fn is_done(&self) -> bool {
        self.is_stopped
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("shards", &self.shards)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
