//! One player: outside, at the door, or in the world as a light or a full client.

use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_core::aead::AeadSuite;
use twinspan_core::bytes::Writer;
use twinspan_core::packet::{DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_game::{
    Bot, BotConfig, Client, ClientConfig, EVENTS, INPUT, Latency, session_defaults, wire_micros,
};
use twinspan_provider::OsSecrets;
use twinspan_session::{ClientEvent, ClientSession, ClientState, ConnectToken, LoadClient};
use twinspan_world::{ClaimedPosition, Input, InputBundle};

use super::FULL_EVERY;
use crate::error::BenchError;

/// Inputs in one message: with these a message has 51 bytes, the nearest to the schedule's 48 that
/// is no less.
const INPUTS_PER_MESSAGE: usize = 3;
/// Bytes of one input message.
pub(super) const INPUT_MESSAGE_BYTES: usize = 51;
/// Inputs between two turns, on average: two seconds.
const INPUTS_PER_TURN: u64 = 120;

/// A player.
pub(super) enum Player {
    /// At the door, to be a light client.
    Joining(Box<Joining>),
    Light(Box<Light>),
    Full(Box<Full>),
    /// The server closed the session.
    Gone,
}

/// What a player comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// To play as a full client.
    Full,
    /// To play as a light client.
    Light,
    /// To play as a light client where nobody says welcome.
    Session,
    /// To see the world and leave.
    Visit,
}

impl From<bool> for Goal {
    fn from(is_full: bool) -> Self {
        if is_full { Self::Full } else { Self::Light }
    }
}

/// What players are made with.
pub(super) struct Maker<'a> {
    pub(super) suite: &'a Arc<dyn AeadSuite>,
    pub(super) server: SocketAddr,
}

impl Maker<'_> {
    /// The player with this number, who stands outside with a token.
    pub(super) fn player(
        &self,
        index: u32,
        token: &str,
        goal: Goal,
        random: &mut Stream,
    ) -> Result<Player, BenchError> {
        let token = ConnectToken::from_text(token)?;
        let (suite, id) = (Arc::clone(self.suite), index + 1);
        let (server, secrets) = (self.server, Box::new(OsSecrets));
        let stream = Stream::new(random.next_u64(), "player", u64::from(index));
        if goal == Goal::Full {
            let config =
                ClientConfig { inputs_per_message: INPUTS_PER_MESSAGE, ..ClientConfig::default() };
            let client = Client::new(config, suite, &token, server, secrets, stream.clone())?
                .with_connection_id(id);
            let bot = Bot::new(client, BotConfig::default(), stream);
            return Ok(Player::Full(Box::new(Full::new(bot))));
        }
        let session =
            ClientSession::new(session_defaults(), suite, &token, server, secrets, stream)
                .map_err(|error| BenchError::Plan(error.to_string()))?
                .with_connection_id(id);
        Ok(Player::Joining(Box::new(Joining::again(session, goal))))
    }
}

/// A handshake under way.
pub(super) struct Joining {
    pub(super) session: ClientSession,
    pub(super) goal: Goal,
    /// When a visitor's first HELLO left.
    pub(super) began: Timestamp,
    /// Whether the server's welcome came.
    welcome: bool,
}

impl Joining {
    pub(super) const fn again(session: ClientSession, goal: Goal) -> Self {
        Self { session, goal, began: Timestamp::START, welcome: false }
    }

    /// Takes a datagram; says whether the player is in.
    pub(super) fn handle(&mut self, now: Timestamp, bytes: &mut [u8]) -> bool {
        let Self { session, welcome, .. } = self;
        session.handle_datagram(now, bytes, &mut |event| {
            *welcome |= matches!(event, ClientEvent::Message { channel: EVENTS, .. });
        });
        match self.goal {
            Goal::Session => self.session.state() == ClientState::Connected,
            _ => self.welcome,
        }
    }

    /// Does what is due and sends what there is to send.
    pub(super) fn poll(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now, &mut |_| {});
        }
        self.session.poll_transmit(now, pool, out);
    }
}

/// A player who walks about and sends inputs, and acknowledges what comes without reading it.
pub(super) struct Light {
    pub(super) client: LoadClient,
    message: [u8; INPUT_MESSAGE_BYTES],
    sequence: u32,
    /// The sequence at which the player turns.
    turn_at: u32,
}

impl Light {
    pub(super) fn new(client: LoadClient, random: &mut Stream) -> Self {
        let sequence = INPUTS_PER_MESSAGE as u32 - 1;
        let turn_at = sequence + 1 + random.below(INPUTS_PER_TURN) as u32;
        let mut new = Self { client, message: [0; INPUT_MESSAGE_BYTES], sequence, turn_at };
        new.turn(random);
        new
    }

    /// Whether this player decrypts states: only against the floor, where nobody else does.
    pub(super) const fn opens(&self, index: u32) -> bool {
        (index as usize).is_multiple_of(FULL_EVERY)
    }

    /// Writes the message anew, with another heading.
    fn turn(&mut self, random: &mut Stream) {
        let forward = if random.chance(0.125) { 0.0 } else { 1.0 };
        let heading = random.between(0.0, 360.0) as f32;
        let input =
            Input { claimed: ClaimedPosition::NONE, ..Input::toward(forward, 0.0, heading, 0.0) };
        let first = (self.sequence + 1).saturating_sub(INPUTS_PER_MESSAGE as u32).max(1);
        let inputs =
            (first..first + INPUTS_PER_MESSAGE as u32).map(|sequence| Input { sequence, ..input });
        if let Some(bundle) = InputBundle::new(0, inputs) {
            // A bundle of three has exactly this length.
            let _ = bundle.encode(&mut Writer::new(&mut self.message));
        }
    }

    /// Writes the next input's packet into `room` and returns its length.
    pub(super) fn input(
        &mut self,
        now: Timestamp,
        slot_at: Timestamp,
        random: &mut Stream,
        room: &mut [u8],
    ) -> Option<usize> {
        self.sequence += 1;
        if self.sequence >= self.turn_at {
            self.turn_at = self.sequence + 1 + random.below(2 * INPUTS_PER_TURN) as u32;
            self.turn(random);
        }
        // Walking straight, messages differ in number and slot alone.
        let numbers = self.sequence.to_le_bytes().into_iter();
        let numbers = numbers.chain(wire_micros(slot_at).to_le_bytes());
        self.message.iter_mut().zip(numbers).for_each(|(byte, new)| *byte = new);
        self.client.seal(now, INPUT, &self.message, room)
    }
}

/// A full client: decrypts, applies and measures every state, and acts once a second.
pub(super) struct Full {
    pub(super) bot: Bot,
    /// Whether its handshake was begun.
    pub(super) begun: bool,
    /// Whether it stands in the world.
    pub(super) entered: bool,
    pub(super) wake_at: Timestamp,
    /// The last action, and when it left.
    action: (u32, Timestamp),
}

impl Full {
    fn new(bot: Bot) -> Self {
        Self {
            bot,
            begun: false,
            entered: false,
            wake_at: Timestamp::START,
            action: (0, Timestamp::START),
        }
    }

    pub(super) fn nonce(&self) -> [u8; 16] {
        self.bot.client().session().handshake_nonce()
    }

    /// Whether it has just come in; its inputs then begin at `slot_at`.
    pub(super) fn enters(&mut self, slot_at: Timestamp) -> bool {
        let is_new = !self.entered && self.bot.client().own().is_some();
        if is_new {
            self.entered = true;
            self.bot.client_mut().align_inputs(slot_at);
        }
        is_new
    }

    /// Takes the time from an action to its answer.
    pub(super) fn time_actions(&mut self, now: Timestamp, round_trips: Option<&mut Latency>) {
        let (sent, answered) = self.bot.client().actions();
        let (timed, at) = self.action;
        if timed != 0 && answered >= timed {
            if let Some(round_trips) = round_trips {
                round_trips.record(now.since(at));
            }
            self.action = (0, now);
        }
        if sent > answered && self.action.0 == 0 {
            self.action = (sent, now);
        }
    }
}
