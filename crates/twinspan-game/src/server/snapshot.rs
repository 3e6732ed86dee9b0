//! What a page or a console shows of a server, copied out into reused memory.

use twinspan_admission::FilterStats;
use twinspan_core::aead::Cipher;
use twinspan_core::time::Timestamp;
use twinspan_relay::PortStats;
use twinspan_session::{EndpointStats, SessionKey, SessionStats};

use twinspan_world::World;

use super::many::LinkStats;
use super::players::PlayerStats;
use super::realm::Realm;
use super::shard::Shard;
use super::{Server, ServerStats};
use crate::measure::Latency;

/// One entity on the map.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntityRow {
    /// Its id.
    pub id: u32,
    /// 0 player, 1 NPC, 2 projectile.
    pub kind: u8,
    /// Metres east.
    pub x: f32,
    /// Metres north.
    pub z: f32,
    /// Degrees clockwise.
    pub yaw: f32,
    /// State flags; bit 0 is the timed effect.
    pub flags: u8,
    /// Health, 0 to 255.
    pub health: u8,
}

/// The cells that one player's client gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterestRow {
    /// The player's entity.
    pub id: u32,
    /// Column of the mask's first cell.
    pub base_x: i32,
    /// Row of the mask's first cell.
    pub base_z: i32,
    /// Bit `r * 7 + c`: the cell at column `base_x + c`, row `base_z + r`.
    pub mask: u64,
}

/// One session in the table.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The shard that has the session; 0 for a server on one core.
    pub shard: u16,
    /// The session: one of its shard's.
    pub session: SessionKey,
    /// The player's entity.
    pub entity: u32,
    /// The user, as the token named it.
    pub user: u64,
    /// What the session counted.
    pub stats: SessionStats,
}

/// The world at one moment.
#[derive(Clone, Debug, Default)]
pub struct WorldSnapshot {
    /// The tick that made it.
    pub tick: u32,
    /// Side of the world in metres.
    pub side: f64,
    /// Side of a cell in metres.
    pub cell: f64,
    /// All entities.
    pub entities: Vec<EntityRow>,
    /// All players' areas of interest.
    pub interests: Vec<InterestRow>,
}

/// What a server and its sessions counted up to one moment.
#[derive(Clone, Debug, Default)]
pub struct StatsSnapshot {
    /// When it was taken.
    pub at: Timestamp,
    /// How many sessions have a player in the world.
    pub session_count: usize,
    /// The first of them, at most [`ServerConfig::session_rows_max`](crate::ServerConfig) of each
    /// core.
    pub sessions: Vec<SessionRow>,
    /// What the server counted.
    pub stats: ServerStats,
    /// What players did.
    pub players: PlayerStats,
    /// What the sessions counted.
    pub endpoint: EndpointStats,
    /// Latency of inputs since the last snapshot.
    pub up_recent: Latency,
    /// How long ticks took since the last snapshot.
    pub tick_recent: Latency,
    /// Ticks from one state of a client to its next: 3, more while a core has too much to do; that of
    /// the core with the most.
    pub ticks_per_state: u8,
    /// The sessions' cipher, once there is one.
    pub cipher: Option<Cipher>,
    /// Reliable messages not yet acknowledged.
    pub unacknowledged: usize,
    /// What the admission filter counted, rule by rule.
    pub admission: FilterStats,
    /// What went between the cores.
    pub links: LinkStats,
    /// What the port towards relays counted, where there is one.
    pub relay: Option<PortStats>,
}

impl WorldSnapshot {
    /// Copies the world and its entities.
    pub(super) fn copy_world(&mut self, world: &World) {
        let Self { tick, side, cell, entities, .. } = self;
        *tick = world.tick();
        (*side, *cell) = (world.config().side, world.config().cell);
        entities.clear();
        entities.extend(world.entities().map(|entity| EntityRow {
            id: entity.id.to_bits(),
            kind: entity.kind as u8,
            x: entity.position.x as f32,
            z: entity.position.z as f32,
            yaw: entity.yaw,
            flags: entity.flags.bits(),
            health: entity.health,
        }));
    }

    /// Copies what the players of a shard see.
    pub(super) fn copy_interests(&mut self, shard: &Shard) {
        self.interests.clear();
        self.interests.extend(shard.players.rows().map(|(_, _, entity, subscriptions)| {
            let (base, mask) = subscriptions.base_and_mask();
            InterestRow { id: entity.to_bits(), base_x: base.x, base_z: base.z, mask }
        }));
    }
}

impl StatsSnapshot {
    /// Adds what another shard of the same server counted.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { at, sessions, stats, players, endpoint, up_recent, tick_recent, .. } = other;
        let Self { cipher, unacknowledged, admission, links, ticks_per_state, .. } = other;
        self.at = self.at.max(*at);
        self.ticks_per_state = self.ticks_per_state.max(*ticks_per_state);
        self.session_count += other.session_count;
        self.sessions.extend_from_slice(sessions);
        self.stats.add(stats);
        self.players.add(players);
        self.endpoint.add(endpoint);
        self.up_recent.add(up_recent);
        self.tick_recent.add(tick_recent);
        self.cipher = self.cipher.or(*cipher);
        self.unacknowledged += unacknowledged;
        self.admission.add(admission);
        self.links.add(links);
        // Relays come to one core alone.
        self.relay = self.relay.or(other.relay);
    }

    /// Becomes a copy of another, whose memory is reused.
    pub(crate) fn copy(&mut self, other: &Self) {
        let Self { at, sessions, stats, players, endpoint, up_recent, tick_recent, .. } = other;
        let Self { cipher, unacknowledged, admission, links, .. } = other;
        (self.at, self.cipher, self.unacknowledged) = (*at, *cipher, *unacknowledged);
        (self.endpoint, self.links) = (*endpoint, *links);
        self.ticks_per_state = other.ticks_per_state;
        self.relay = other.relay;
        self.session_count = other.session_count;
        self.sessions.clone_from(sessions);
        self.stats.clone_from(stats);
        self.players.clone_from(players);
        self.up_recent.clone_from(up_recent);
        self.tick_recent.clone_from(tick_recent);
        self.admission.clone_from(admission);
    }

    /// Copies what a shard counted, and begins new recent latencies.
    pub(super) fn copy_shard(&mut self, now: Timestamp, number: u16, shard: &mut Shard) {
        self.at = now;
        self.sessions.clear();
        self.session_count = shard.players.seated();
        for (session, user, entity, _) in shard.players.rows().take(shard.session_rows_max) {
            if let Some(stats) = shard.endpoint.session_stats(session) {
                let (entity, user) = (entity.to_bits(), user.0);
                self.sessions.push(SessionRow { shard: number, session, entity, user, stats });
            }
        }
        self.stats.clone_from(&shard.stats);
        self.players.clone_from(shard.players.stats());
        self.endpoint.clone_from(shard.endpoint.stats());
        shard.players.take_recent(&mut self.up_recent);
        self.cipher = shard.players.cipher();
        self.ticks_per_state = shard.pace.ticks_per_state();
        self.unacknowledged = shard.unacknowledged();
        shard.filter.copy_stats(&mut self.admission);
    }
}

impl Server {
    /// Copies the world into `out`, whose memory is reused.
    pub fn snapshot_world(&self, out: &mut WorldSnapshot) {
        out.copy_world(self.host.world());
        out.copy_interests(&self.shard);
    }

    /// Copies the counters into `out`, whose memory is reused, and begins new recent latencies.
    pub fn snapshot_stats(&mut self, now: Timestamp, out: &mut StatsSnapshot) {
        out.copy_shard(now, 0, &mut self.shard);
        out.tick_recent.clone_from(&self.tick_recent);
        self.tick_recent.clear();
    }
}
