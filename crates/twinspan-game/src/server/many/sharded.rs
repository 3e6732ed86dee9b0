//! A server on several cores, all of it on one thread and in a fixed order.

use std::sync::Arc;

use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::steer::Steering;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::{EndpointStats, UserId};
use twinspan_world::World;

use super::super::ServerKeys;
use super::super::messages::{MessageStats, ServerMessages, TypedGate};
use super::super::players::{PlayerStats, ReliableCounts};
use super::super::snapshot::StatsSnapshot;
use super::super::stats::ServerStats;
use super::letters::LinkStats;
use super::member::Member;
use super::office::{Office, connect};
use crate::config::ServerConfig;
use crate::error::ServerError;

/// Datagrams of one shard that are handled at a time.
const BATCH: usize = 64;

/// The world server as it is on several cores, each shard with its own sessions and lanes between
/// them, as one [`Machine`] on one thread: what happens is a function of the calls alone.
///
/// Datagrams are given to their shards as the kernel would steer them.
pub struct ShardedServer {
    office: Office,
    members: Vec<Member>,
    steering: Steering,
    batches: Vec<DatagramBatch>,
    /// Datagrams so far.
    received: u64,
    /// Every so many-th datagram is given to a wrong shard.
    misled_every: Option<u64>,
    now: Timestamp,
    /// What one shard counted, while all are added up.
    one: StatsSnapshot,
}

impl ShardedServer {
    /// A server of `cores` shards, at least 1, that has not begun.
    ///
    /// `keys` gives each shard the server's keys, `secrets` and `random` each its own.
    ///
    /// # Errors
    /// [`ServerError`] names the setting that cannot be.
    pub fn new(
        config: &ServerConfig,
        cores: u16,
        suites: &Arc<dyn AeadSuite>,
        keys: &mut dyn FnMut() -> ServerKeys,
        secrets: &mut dyn FnMut() -> Box<dyn SecretSource>,
        random: &mut dyn FnMut(&'static str, u64) -> Stream,
    ) -> Result<Self, ServerError> {
        Self::with_messages(config, cores, None, suites, keys, secrets, random)
    }

    /// The same with typed messages of the application.
    ///
    /// # Errors
    /// [`ServerError`] names the setting that cannot be.
    pub fn with_messages(
        config: &ServerConfig,
        cores: u16,
        messages: Option<ServerMessages>,
        suites: &Arc<dyn AeadSuite>,
        keys: &mut dyn FnMut() -> ServerKeys,
        secrets: &mut dyn FnMut() -> Box<dyn SecretSource>,
        random: &mut dyn FnMut(&'static str, u64) -> Stream,
    ) -> Result<Self, ServerError> {
        let mut key = [0; 4];
        secrets().fill(&mut key);
        let steering = Steering::new(u32::from_le_bytes(key), cores);
        let (office, outposts) = connect(config, messages, steering, random("world", 0))?;
        let mut members = Vec::new();
        for (number, outpost) in (0..).zip(outposts) {
            let jitter = random("session", u64::from(number));
            let (suites, place) = (Arc::clone(suites), (steering, number));
            let config = config.clone();
            members.push(Member::new(config, place, suites, keys(), secrets(), jitter, outpost)?);
        }
        let batches = members.iter().map(|_| DatagramBatch::new(BATCH)).collect();
        let (received, misled_every, now) = (0, None, Timestamp::START);
        let one = StatsSnapshot::default();
        Ok(Self { office, members, steering, batches, received, misled_every, now, one })
    }

    /// Gives every `count`-th datagram to a wrong shard, as a kernel does that may not steer.
    pub const fn mislead_every(&mut self, count: u64) {
        self.misled_every = if count == 0 { None } else { Some(count) };
    }

    /// The world, to be looked at.
    pub fn world(&self) -> &World {
        self.office.world()
    }

    /// Sessions that are established.
    pub fn sessions(&self) -> usize {
        self.members.iter().map(|member| member.shard.players.len()).sum()
    }

    /// Sessions of each shard.
    pub fn sessions_by_shard(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.shard.players.len()).collect()
    }

    /// Reliable messages that no client has acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.members.iter().map(|member| member.shard.unacknowledged()).sum()
    }

    /// Reliable messages of the player that is `user`, while it is in the world.
    pub fn reliable_counts(&self, user: UserId) -> Option<ReliableCounts> {
        self.members.iter().find_map(|member| member.shard.players.reliable_counts(user))
    }

    /// What was counted so far.
    pub fn stats(&self) -> ServerStats {
        let mut sum = self.office.stats.clone();
        self.members.iter().for_each(|member| sum.add(&member.shard.stats));
        sum
    }

    /// What players did so far.
    pub fn player_stats(&self) -> PlayerStats {
        let mut sum = PlayerStats::default();
        self.members.iter().for_each(|member| sum.add(member.shard.players.stats()));
        sum
    }

    /// What the sessions counted so far, drop causes among it.
    pub fn endpoint_stats(&self) -> EndpointStats {
        let mut sum = EndpointStats::default();
        self.members.iter().for_each(|member| sum.add(member.shard.endpoint.stats()));
        sum
    }

    /// What was counted of typed messages so far.
    pub fn message_stats(&self) -> MessageStats {
        let mut sum = MessageStats::default();
        let gates = self.members.iter().filter_map(|member| member.shard.typed.as_ref());
        gates.map(TypedGate::stats).for_each(|stats| sum.add(stats));
        sum
    }

    /// What went between the shards.
    pub fn links(&self) -> LinkStats {
        let mut sum = self.office.links;
        self.members.iter().for_each(|member| sum.add(&member.links()));
        sum
    }

    /// Copies the counters into `out`, whose memory is reused, and begins new recent latencies.
    pub fn snapshot_stats(&mut self, now: Timestamp, out: &mut StatsSnapshot) {
        let Self { members, one, .. } = self;
        for (number, member) in members.iter_mut().enumerate() {
            member.snapshot_stats(now, one);
            if number == 0 {
                out.copy(one);
            } else {
                out.add(one);
            }
        }
        self.office.add_to(out);
    }

    /// Begins the end, as [`Server::drain`](crate::Server::drain) does, of all shards.
    pub fn drain(&mut self, now: Timestamp) {
        self.members.iter_mut().for_each(|member| member.drain(now));
    }

    /// Ends without waiting for what is unacknowledged: closes every session, and is done.
    pub fn stop(&mut self, now: Timestamp) {
        self.members.iter_mut().for_each(|member| member.stop(now));
    }

    /// Lets the world and the shards hear one another: what was asked in this call is answered in it.
    fn confer(&mut self, now: Timestamp) {
        self.now = now;
        // Strays first: what they ask is heard with the rest.
        self.members.iter_mut().for_each(|member| member.listen(now));
        self.office.hear(now);
        self.members.iter_mut().for_each(|member| member.listen(now));
    }

    /// The shard that the kernel gives a packet to.
    fn steer(&mut self, packet: &[u8]) -> usize {
        self.received += 1;
        let shard = usize::from(self.steering.shard_of_packet(packet));
        match self.misled_every {
            Some(count) if self.received.is_multiple_of(count) => {
                (shard + 1) % self.members.len().max(1)
            }
            _ => shard,
        }
    }
}

impl Machine for ShardedServer {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        while !received.is_empty() {
            for datagram in core::iter::from_fn(|| received.pop()).take(BATCH) {
                let shard = self.steer(&datagram.packet);
                if let Some(batch) = self.batches.get_mut(shard) {
                    // At most as many as one batch takes were taken.
                    let _ = batch.push(datagram);
                }
            }
            for (member, batch) in self.members.iter_mut().zip(&mut self.batches) {
                member.handle_datagrams(now, batch);
                batch.clear();
            }
        }
        self.confer(now);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        let leaves_states = self.members.iter().any(|member| member.shard.leaves_states());
        self.office.run_due_ticks(now, leaves_states);
        self.confer(now);
        self.members.iter_mut().for_each(|member| member.handle_timeout(now));
        self.confer(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        for member in &mut self.members {
            member.poll_transmit(now, pool, out);
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let at = self.office.clock.next_at().unwrap_or_default();
        let members = self.members.iter().filter_map(Machine::poll_timeout).min();
        Some(members.map_or(at, |member| at.min(member)))
    }

    fn is_done(&self) -> bool {
        self.members.iter().all(Machine::is_done)
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        self.office.on_elapsed(began, ended);
    }
}
