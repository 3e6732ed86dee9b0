//! The world server as a machine: sessions on one side, the world on the other, sixty ticks a second.

mod admission;
mod away;
mod clock;
mod flow;
mod host;
mod many;
mod messages;
mod pace;
mod players;
mod realm;
mod schedule;
mod shard;
mod sight;
mod snapshot;
mod stats;
mod watch;

use std::sync::Arc;

use twinspan_admission::Rules;
use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_messages::Message as TypedMessage;
use twinspan_provider::Machine;
use twinspan_session::{
    CloseReason, EndpointStats, SendError, ServerIdentity, SessionKey, TokenKey, UserId,
};
use twinspan_world::World;

use crate::config::ServerConfig;
use crate::error::{SendMessageError, ServerError};
use crate::measure::Latency;
use clock::{Clock, DueTick};
use host::Host;
use messages::{Seat, Typed};
use realm::Realm;
use shard::{Phase, Shard};

pub use admission::MalformedCounts;
pub(crate) use many::{Front, Member};
pub use many::{LinkStats, ShardedServer};
#[cfg(target_os = "linux")]
pub(crate) use many::{Office, Outpost, connect};
pub use messages::{MessageContext, MessageStats, ServerMessages};
pub use players::{PlayerStats, ReliableCounts};
pub use snapshot::{EntityRow, InterestRow, SessionRow, StatsSnapshot, WorldSnapshot};
pub use stats::ServerStats;

/// The world server on one thread: a world and one shard of sessions that is answered at once.
///
/// A [`Machine`]: run it with [`twinspan_provider::drive`], over real sockets or simulated ones.
pub struct Server {
    host: Host,
    shard: Shard,
    clock: Clock,
    /// How long ticks took since it was last taken.
    tick_recent: Latency,
}

impl Server {
    /// A server that has not begun.
    ///
    /// `random` gives the named streams of this node.
    ///
    /// # Errors
    /// [`ServerError`] names the setting that cannot be.
    pub fn new(
        config: ServerConfig,
        suites: Arc<dyn AeadSuite>,
        keys: ServerKeys,
        secrets: Box<dyn SecretSource>,
        random: &mut dyn FnMut(&'static str) -> Stream,
    ) -> Result<Self, ServerError> {
        let host = Host::new(&config, random("world"))?;
        let shard = Shard::new(config, suites, keys, secrets, random("session"))?;
        let (clock, tick_recent) = (Clock::default(), Latency::default());
        Ok(Self { host, shard, clock, tick_recent })
    }

    /// Gives the server typed messages of the application.
    pub fn set_messages(&mut self, messages: ServerMessages) {
        let mut typed = Typed::new(messages);
        for (session, user, _, _) in self.shard.players.rows() {
            typed.join(user, Seat::alone(session));
        }
        self.shard.typed = Some(typed.gate());
        self.host.set_typed(typed);
    }

    /// Sends a typed message to the player that is `user`.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent; it is promised nothing then.
    pub fn send_message<T: TypedMessage>(
        &mut self,
        now: Timestamp,
        user: UserId,
        message: &T,
    ) -> Result<(), SendMessageError> {
        let (typed, gate) = (self.host.typed(), self.shard.typed.as_mut());
        let (typed, gate) = typed.zip(gate).ok_or(SendMessageError::NoRegistry)?;
        let (seat, encoded) = typed.address(user, message)?;
        match self.shard.endpoint.send(now, seat.session, encoded.channel, encoded.bytes) {
            Ok(()) => {
                gate.count_sent(true);
                Ok(())
            }
            Err(SendError::NotConnected) => Err(SendMessageError::NotHere { user }),
            Err(error) => Err(SendMessageError::Session(error)),
        }
    }

    /// Sends a typed message to all players; whose queue is full is left out and counted.
    ///
    /// # Errors
    /// [`SendMessageError`] when it can be sent to nobody.
    pub fn send_message_to_all<T: TypedMessage>(
        &mut self,
        now: Timestamp,
        message: &T,
    ) -> Result<(), SendMessageError> {
        let (typed, gate) = (self.host.typed(), self.shard.typed.as_mut());
        let (typed, gate) = typed.zip(gate).ok_or(SendMessageError::NoRegistry)?;
        typed.address_all(message)?;
        let endpoint = &mut self.shard.endpoint;
        self.host.deliver(&mut |session, channel, bytes| {
            gate.count_sent(endpoint.send(now, session, channel, bytes).is_ok());
        });
        Ok(())
    }

    /// Sessions, handshakes, ids and answers that the endpoint holds, for scenarios that look for
    /// growth.
    #[cfg(feature = "scenarios")]
    pub fn held(&self) -> (usize, usize, usize, usize) {
        self.shard.endpoint.held()
    }

    /// What was counted of typed messages so far.
    pub fn message_stats(&self) -> MessageStats {
        self.shard.typed.as_ref().map(|typed| *typed.stats()).unwrap_or_default()
    }

    /// What was counted so far.
    pub const fn stats(&self) -> &ServerStats {
        &self.shard.stats
    }

    /// What players did so far.
    pub const fn player_stats(&self) -> &PlayerStats {
        self.shard.players.stats()
    }

    /// What the sessions counted so far, drop causes among it.
    pub const fn endpoint_stats(&self) -> &EndpointStats {
        self.shard.endpoint.stats()
    }

    /// The world, to be looked at.
    pub fn world(&self) -> &World {
        self.host.world()
    }

    /// Sessions that are established.
    pub const fn sessions(&self) -> usize {
        self.shard.players.len()
    }

    /// Ticks from one state of a client to its next: 3, more while ticks overrun.
    pub const fn ticks_per_state(&self) -> u8 {
        self.shard.pace.ticks_per_state()
    }

    /// Reliable messages of the player that is `user`, while it is in the world.
    pub fn reliable_counts(&self, user: UserId) -> Option<ReliableCounts> {
        self.shard.players.reliable_counts(user)
    }

    /// The cipher of the sessions, once there is one.
    pub const fn cipher(&self) -> Option<Cipher> {
        self.shard.players.cipher()
    }

    /// Reliable messages that no client has acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.shard.unacknowledged()
    }

    /// Begins the end: lets nobody in any more, tells every client, waits for what is unacknowledged
    /// and for what clients have under way, closes, and is done.
    pub fn drain(&mut self, now: Timestamp) {
        self.shard.drain(now, &mut self.host);
    }

    /// Ends without waiting for what is unacknowledged: closes every session, and is done.
    pub fn stop(&mut self, now: Timestamp) {
        self.shard.stop(now);
    }

    /// Sets how many bytes of state a client is sent a second, packets' headers and all; false when
    /// there is no such client.
    pub fn set_budget(&mut self, session: SessionKey, bytes_per_second: u32) -> bool {
        self.shard.players.set_budget(session, bytes_per_second)
    }

    /// Closes one session.
    pub fn kick(&mut self, now: Timestamp, session: SessionKey) {
        self.shard.endpoint.close(now, session, CloseReason::Kicked);
    }

    /// Makes these the server's present keys. Tokens under the ones before stay good until the next
    /// rotation: the overlap is as long as tokens live, or as the next rotation is away. Sessions do
    /// not notice. Keys that are present already change nothing.
    pub fn rotate_keys(&mut self, keys: ServerKeys) {
        self.shard.rotate_keys(keys);
    }

    /// Ends the overlap of a rotation: tokens under the keys before the present ones are refused from
    /// now on. Sessions do not notice.
    pub fn retire_old_keys(&mut self) {
        self.shard.retire_old_keys();
    }

    /// Lets a user in no more for so long, and closes the session that it has as
    /// [`CloseReason::Kicked`].
    pub fn ban(&mut self, now: Timestamp, user: UserId, length: core::time::Duration) {
        self.shard.ban(now, user, length);
        self.shard.send_events(now, &mut self.host);
    }

    /// Takes other admission rules, and closes the sessions of users that they ban. What sources owe
    /// and what is held against players stays.
    pub fn replace_rules(&mut self, now: Timestamp, rules: &Rules) {
        self.shard.replace_rules(now, rules, &mut self.host);
    }

    fn run_due_ticks(&mut self, now: Timestamp) {
        while let Some(due) = self.clock.next_due(now) {
            if due.is_late {
                self.shard.count_late(due.scheduled);
            }
            if due.is_skipped {
                self.shard.stats.skipped_ticks += 1;
                self.shard.skip_tick(due.tick);
            } else {
                self.run_tick(now, &due);
            }
            self.shard.pace.on_tick();
            if due.is_last {
                self.drain(now);
            }
        }
    }

    fn run_tick(&mut self, now: Timestamp, due: &DueTick) {
        let is_sound = self.host.tick(now, due.tick);
        self.shard.stats.ticks += 1;
        self.shard.stats.invariants_broken += u64::from(!is_sound);
        let judge = self.shard.filter.split().1;
        self.shard.players.after_step(self.host.world(), judge);
        self.shard.begin_tick(now, due);
    }
}

impl Machine for Server {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.shard.on_call(now, received);
        self.shard.handle_datagrams(now, received, &mut self.host);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.clock.begin(now);
        if !self.clock.holds(now, self.shard.leaves_states()) {
            self.run_due_ticks(now);
        }
        self.shard.handle_timeout(now, &mut self.host);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.shard.poll_transmit(now, pool, out, &mut self.host);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let Some(tick) = self.clock.next_at() else { return Some(Timestamp::START) };
        Some(self.shard.poll_timeout().map_or(tick, |at| at.min(tick)))
    }

    fn is_done(&self) -> bool {
        self.shard.phase == Phase::Ended
    }

    fn on_elapsed(&mut self, began: Timestamp, ended: Timestamp) {
        let Some(over) = self.clock.on_elapsed(ended) else { return };
        self.shard.stats.tick_time.record(ended.since(began));
        self.tick_recent.record(ended.since(began));
        if let Some(scheduled) = over {
            self.shard.count_late(scheduled);
        }
    }
}

/// What a server proves itself with.
#[derive(Clone)]
pub struct ServerKeys {
    /// Its static key pair.
    pub identity: ServerIdentity,
    /// The key that it shares with the login service.
    pub tokens: TokenKey,
}

#[cfg(test)]
mod tests;
