//! A shard with its ways to the world and to the other shards, as its thread runs it.

use std::sync::Arc;
use std::task::{Context, Poll};

use core::time::Duration;

use twinspan_admission::Rules;
use twinspan_core::aead::AeadSuite;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::steer::Steering;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_session::UserId;

use super::super::ServerKeys;
use super::super::shard::{Phase, Shard};
use super::super::snapshot::{StatsSnapshot, WorldSnapshot};
use super::letters::LinkStats;
use super::office::{Office, Outpost};
use super::remote::Remote;
use super::switch::Switch;
use crate::config::ServerConfig;
use crate::error::ServerError;

/// When to try again what found a lane full.
const RETRY: Duration = Duration::from_millis(1);

/// One shard of a server on several cores.
pub(crate) struct Member {
    number: u16,
    pub(super) shard: Shard,
    remote: Remote,
    switch: Switch,
    /// The moment of the last turn.
    now: Timestamp,
}

impl Member {
    /// Shard `number` of `steering`.
    ///
    /// # Errors
    /// [`ServerError`] names the setting that cannot be.
    pub(crate) fn new(
        mut config: ServerConfig,
        (steering, number): (Steering, u16),
        suites: Arc<dyn AeadSuite>,
        keys: ServerKeys,
        secrets: Box<dyn SecretSource>,
        jitter: Stream,
        outpost: Outpost,
    ) -> Result<Self, ServerError> {
        config.session.steering = Some((steering, number));
        let mut shard = Shard::new(config, suites, keys, secrets, jitter)?;
        let Outpost { remote, switch, gate, places } = outpost;
        (shard.typed, shard.places) = (gate, Some(places));
        Ok(Self { number, shard, remote, switch, now: Timestamp::START })
    }

    pub(crate) fn drain(&mut self, now: Timestamp) {
        self.shard.drain(now, &mut self.remote);
        self.remote.wake();
    }

    pub(crate) fn stop(&mut self, now: Timestamp) {
        self.shard.stop(now);
    }

    pub(crate) fn rotate_keys(&mut self, keys: ServerKeys) {
        self.shard.rotate_keys(keys);
    }

    pub(crate) fn retire_old_keys(&mut self) {
        self.shard.retire_old_keys();
    }

    pub(crate) fn ban(&mut self, now: Timestamp, user: UserId, length: Duration) {
        self.shard.ban(now, user, length);
        self.shard.send_events(now, &mut self.remote);
    }

    pub(crate) fn replace_rules(&mut self, now: Timestamp, rules: &Rules) {
        self.shard.replace_rules(now, rules, &mut self.remote);
    }

    /// Hears the world, and takes the datagrams that came to other shards.
    pub(super) fn listen(&mut self, now: Timestamp) {
        self.now = now;
        self.switch.begin();
        while let Some(mut stray) = self.switch.next() {
            let peer = stray.peer;
            self.shard.handle_stray(now, peer, stray.bytes_mut(), &mut self.remote);
        }
        self.remote.absorb(now, &mut self.shard);
        self.remote.wake();
    }

    pub(super) fn links(&self) -> LinkStats {
        self.remote.stats
    }

    /// Whether the world or another shard has said something.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Both, so that both know whom to wake.
        let world = self.remote.poll_ready(cx);
        let others = self.switch.poll_ready(cx);
        if world.is_ready() { world } else { others }
    }

    /// Copies the counters into `out`, whose memory is reused, and begins new recent latencies.
    pub(crate) fn snapshot_stats(&mut self, now: Timestamp, out: &mut StatsSnapshot) {
        out.copy_shard(now, self.number, &mut self.shard);
        out.tick_recent.clear();
        out.links = self.remote.stats;
    }

    /// Copies what its players see.
    pub(crate) fn snapshot_world(&self, out: &mut WorldSnapshot) {
        out.entities.clear();
        out.copy_interests(&self.shard);
    }
}

impl Machine for Member {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.shard.on_call(now, received);
        self.switch.sort(received, &mut self.remote.stats);
        self.switch.wake();
        if !received.is_empty() {
            self.shard.handle_datagrams(now, received, &mut self.remote);
        }
        self.listen(now);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.listen(now);
        self.shard.handle_timeout(now, &mut self.remote);
        self.remote.wake();
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.shard.poll_transmit(now, pool, out, &mut self.remote);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let shard = self.shard.poll_timeout();
        if self.remote.has_next() {
            return Some(self.now);
        }
        if self.remote.is_held_up() {
            let retry = self.now.after(RETRY);
            return Some(shard.map_or(retry, |at| at.min(retry)));
        }
        shard
    }

    fn is_done(&self) -> bool {
        self.shard.phase == Phase::Ended
    }
}

/// The first shard together with the world, which live on one thread.
pub(crate) struct Front {
    pub(crate) office: Office,
    pub(crate) member: Member,
    now: Timestamp,
}

impl Front {
    pub(crate) const fn new(office: Office, member: Member) -> Self {
        Self { office, member, now: Timestamp::START }
    }

    /// Hears the shards, and lets the one on this thread hear the answers.
    fn confer(&mut self, now: Timestamp) {
        self.now = now;
        self.office.hear(now);
        self.member.listen(now);
    }

    /// Whether a shard or the world has said something.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let office = self.office.poll_ready(cx);
        let member = self.member.poll_ready(cx);
        if office.is_ready() { office } else { member }
    }

    /// Copies the counters into `out`, whose memory is reused, and begins new recent latencies.
    pub(crate) fn snapshot_stats(&mut self, now: Timestamp, out: &mut StatsSnapshot) {
        self.member.snapshot_stats(now, out);
        self.office.add_to(out);
    }

    /// Copies the world and what the first shard's players see.
    pub(crate) fn snapshot_world(&self, out: &mut WorldSnapshot) {
        out.copy_world(self.office.world());
        out.copy_interests(&self.member.shard);
    }
}

impl Machine for Front {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.member.handle_datagrams(now, received);
        self.confer(now);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.office.run_due_ticks(now, self.member.shard.leaves_states());
        self.confer(now);
        self.member.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.member.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let mut at = self.office.clock.next_at().unwrap_or_default();
        if let Some(member) = self.member.poll_timeout() {
            at = at.min(member);
        }
        if self.office.is_held_up() {
            at = at.min(self.now.after(RETRY));
        }
        Some(at)
    }

    /// The world goes on until all other shards are gone.
    fn is_done(&self) -> bool {
        self.member.is_done() && self.office.is_alone()
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        self.office.on_elapsed(began, ended);
    }
}
