//! A bot: a client that walks with random turns and puts the effect on whom it meets.

use core::time::Duration;

use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::Machine;
use twinspan_world::{EntityId, Kind};

use crate::client::{Client, Intent, Notice};

/// How a bot behaves.
#[derive(Clone, Copy, Debug)]
pub struct BotConfig {
    /// Time from one action to the next.
    pub action_interval: Duration,
    /// Mean time between two turns.
    pub turn_interval: Duration,
}

impl Default for BotConfig {
    fn default() -> Self {
        Self { action_interval: Duration::from_secs(1), turn_interval: Duration::from_secs(2) }
    }
}

/// What a bot does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Walks and acts.
    Active,
    /// Stands still and starts nothing new.
    Resting,
}

/// A client with a will of its own.
pub struct Bot {
    client: Client,
    config: BotConfig,
    random: Stream,
    mode: Mode,
    intent: Intent,
    turn_at: Timestamp,
    act_at: Timestamp,
    /// Whether it was called for the first time.
    has_begun: bool,
    connected_at: Option<Timestamp>,
    /// Actions that the session did not take.
    actions_refused: u64,
}

impl Bot {
    /// A bot that plays through `client`.
    pub const fn new(client: Client, config: BotConfig, random: Stream) -> Self {
        Self {
            client,
            config,
            random,
            mode: Mode::Active,
            intent: Intent { forward: 0.0, strafe: 0.0, yaw: 0.0, pitch: 0.0 },
            turn_at: Timestamp::START,
            act_at: Timestamp::START,
            has_begun: false,
            connected_at: None,
            actions_refused: 0,
        }
    }

    /// The client it plays through.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The client it plays through, to be told something.
    pub const fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// When it came to stand in the world.
    pub const fn connected_at(&self) -> Option<Timestamp> {
        self.connected_at
    }

    /// Actions that the session did not take, its queue being full.
    pub const fn actions_refused(&self) -> u64 {
        self.actions_refused
    }

    /// Stand still and start nothing new.
    pub fn rest(&mut self) {
        self.mode = Mode::Resting;
        self.client.set_intent(Intent { forward: 0.0, strafe: 0.0, ..self.intent });
    }

    /// Whether every action of this bot was answered.
    pub fn is_settled(&self) -> bool {
        let (sent, answered) = self.client.actions();
        sent == answered
    }

    fn think(&mut self, now: Timestamp) {
        while let Some(notice) = self.client.poll_notice() {
            if notice == Notice::Draining {
                self.rest();
            }
            if matches!(notice, Notice::Entered { .. }) {
                self.connected_at = Some(now);
                self.turn_at = now;
                // Bots that enter together do not act together.
                self.act_at = now.after(self.config.action_interval.mul_f64(self.random.unit()));
            }
        }
        if self.mode == Mode::Resting || self.client.own().is_none() {
            return;
        }
        if now >= self.turn_at {
            self.turn(now);
        }
        if now >= self.act_at {
            self.act_at = self.act_at.after(self.config.action_interval);
            self.act(now);
        }
    }

    fn turn(&mut self, now: Timestamp) {
        self.intent = Intent {
            // One in eight stands about for a while.
            forward: if self.random.chance(0.125) { 0.0 } else { 1.0 },
            strafe: 0.0,
            yaw: self.random.between(0.0, 360.0) as f32,
            pitch: self.random.between(-30.0, 30.0) as f32,
        };
        self.client.set_intent(self.intent);
        let interval = self.config.turn_interval.mul_f64(self.random.between(0.5, 1.5));
        self.turn_at = now.after(interval);
    }

    /// Puts the effect on one of the players in sight, or on itself when it is alone.
    fn act(&mut self, now: Timestamp) {
        let Some(own) = self.client.own() else { return };
        let target = self.pick_target(own).unwrap_or(own);
        if self.client.apply_effect(now, target).is_err() {
            self.actions_refused += 1;
        }
    }

    fn pick_target(&mut self, own: EntityId) -> Option<EntityId> {
        let players = || {
            let ids = self.client.replica().ids();
            ids.filter(|(id, kind, _)| *kind == Kind::Player && *id != own)
        };
        let count = players().count();
        let pick = self.random.clone().below(count as u64) as usize;
        let target = players().nth(pick).map(|(id, ..)| id);
        self.random.next_u64();
        target
    }
}

impl Machine for Bot {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.client.handle_datagrams(now, received);
        self.think(now);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.has_begun = true;
        if self.client.next_input_at().is_some_and(|at| now >= at) {
            self.think(now);
        }
        self.client.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.client.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        if self.has_begun { self.client.poll_timeout() } else { Some(Timestamp::START) }
    }

    fn prefetch(&self) {
        self.client.prefetch();
    }

    fn is_done(&self) -> bool {
        self.client.is_done()
    }
}

#[cfg(test)]
mod tests;
