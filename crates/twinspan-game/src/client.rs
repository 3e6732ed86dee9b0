//! The world's client as a machine: sends inputs on an open-loop schedule, keeps the replica.

mod comeback;
mod messages;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_messages::{Message, MessageBuf, Registry};
use twinspan_provider::Machine;
use twinspan_reliable::Channel;
use twinspan_session::{
    ClientEvent as SessionEvent, ClientSession, CloseReason, ConnectToken, ResumeTicket, SendError,
};
use twinspan_world::event::{ActionOutcome, ClientEvent, EVENT_BYTES_MAX, ServerEvent};
use twinspan_world::{
    Applied, EntityId, INPUTS_PER_BUNDLE_MAX, Input, InputBundle, Prediction, Replica, StateHeader,
    tick_duration,
};

use crate::config::ClientConfig;
use crate::error::{ClientError, SendMessageError};
use crate::measure::{elapsed_since_wire, wire_micros};
use crate::wire::{EVENTS, INPUT, STATE};

pub use messages::ClientMessageStats;
use messages::Typed;

/// Input slots that are made up for after a stall; older ones are skipped and counted.
const INPUT_SLOTS_MAX: usize = 8;
/// Time between two wishes for everything anew: an answer takes a round trip.
const WISH_INTERVAL: Duration = Duration::from_millis(750);

/// What the player wants to do until told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Intent {
    /// Forward speed as a fraction of full speed, -1 to 1.
    pub forward: f32,
    /// Speed to the right as a fraction of full speed, -1 to 1.
    pub strafe: f32,
    /// Where the player faces, degrees clockwise seen from above, 0 along +z.
    pub yaw: f32,
    /// How far the player looks up, -90 to 90 degrees.
    pub pitch: f32,
}

/// What happened, for the application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The session is up; packets are protected by this cipher.
    Connected {
        /// The cipher that both ends agreed on.
        cipher: Cipher,
    },
    /// The player stands in the world as this entity.
    Entered {
        /// The player's entity.
        own: EntityId,
    },
    /// What became of an action.
    ActionResult {
        /// The number that [`Client::apply_effect`] returned.
        action: u32,
        /// What the server made of it.
        outcome: ActionOutcome,
    },
    /// Somebody put the effect on this player.
    EffectOn {
        /// Who did.
        actor: EntityId,
        /// The tick at which it ends.
        until_tick: u32,
    },
    /// The session was lost, and the client tries to come back while the server keeps its entity; what
    /// was under way is lost, actions and their results among it. [`Notice::Resumed`] or
    /// [`Notice::Closed`] follows.
    Reconnecting {
        /// Why it was lost.
        reason: CloseReason,
    },
    /// The client is back, and begins anew with what it knows of the world.
    Resumed {
        /// The player's entity: the one that it had, where it was.
        own: EntityId,
    },
    /// The server is about to end.
    Draining,
    /// The session ended.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// What a client counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientStats {
    /// Input messages sent.
    pub inputs_sent: u64,
    /// Input slots left out after a stall.
    pub inputs_skipped: u64,
    /// State messages applied to the replica.
    pub states_applied: u64,
    /// State messages older than what the replica has: received, of no use.
    pub states_stale: u64,
    /// State messages that the ticks of those received call for: what is missing was lost or is
    /// late.
    pub states_expected: u64,
    /// State messages that could not be decoded.
    pub states_malformed: u64,
    /// Bytes of all state messages received, their own headers included.
    pub state_bytes: u64,
    /// States after which the replica was not what the server believed; see
    /// [`Replica::mismatches`].
    pub replica_mismatches: u64,
    /// Times that the server was asked for everything anew.
    pub keyframes_wanted: u64,
    /// Reliable messages handed to the session.
    pub reliable_sent: u64,
    /// Reliable messages received.
    pub reliable_received: u64,
    /// Action results whose number was not the one after the last: a broken promise.
    pub results_out_of_order: u64,
    /// Reliable messages that could not be decoded.
    pub events_malformed: u64,
    /// Effects on this player that were told.
    pub effects_told: u64,
    /// Notices dropped because the application did not fetch them.
    pub notices_lost: u64,
    /// Samples dropped because nobody fetched them; none where none is kept.
    pub samples_lost: u64,
}

/// How old one applied state was, on a clock that server and client share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSample {
    /// One-way latency, from the slot that the state was scheduled for.
    pub down: Duration,
    /// From the tick that made the state.
    pub age: Duration,
}

/// One player's client.
///
/// A [`Machine`]: run it with [`twinspan_provider::drive`].
pub struct Client {
    session: ClientSession,
    replica: Replica,
    prediction: Prediction,
    intent: Intent,
    own: Option<EntityId>,
    /// When the next input is scheduled; `None` before the player stands in the world.
    next_input_at: Option<Timestamp>,
    /// Inputs whose slot came and whose packet has not left.
    due: VecDeque<Timestamp>,
    /// How far into the tick this client's slots lie, so that clients do not send all at once.
    phase: Duration,
    inputs_per_message: usize,
    last_action: u32,
    last_result: u32,
    /// When the server may be asked for everything anew again.
    wish_at: Timestamp,
    notices: VecDeque<Notice>,
    notices_max: usize,
    samples: VecDeque<StateSample>,
    samples_max: usize,
    closed: Option<CloseReason>,
    comes_back: bool,
    /// Until when the client tries to come back; `None` while it is not away.
    away_until: Option<Timestamp>,
    /// Typed messages of the application, if it has any.
    typed: Option<Typed>,
    stats: ClientStats,
}

impl Client {
    /// A client that will connect to `server` with `token`.
    ///
    /// # Errors
    /// [`ClientError`] names the setting or the token that cannot be.
    pub fn new(
        config: ClientConfig,
        suites: Arc<dyn AeadSuite>,
        token: &ConnectToken,
        server: SocketAddr,
        secrets: Box<dyn SecretSource>,
        mut random: Stream,
    ) -> Result<Self, ClientError> {
        let phase = tick_duration().mul_f64(random.unit());
        let settings = config.session.clone();
        let session = ClientSession::new(settings, suites, token, server, secrets, random)?;
        Ok(Self::of_session(config, session, phase))
    }

    /// A client that comes back to the entity of a session that was lost, with its
    /// [`ticket`](Self::ticket), while the server keeps that: 30 s, if it is not configured.
    ///
    /// # Errors
    /// [`ClientError`] names the setting that cannot be.
    pub fn resume(
        config: ClientConfig,
        suites: Arc<dyn AeadSuite>,
        ticket: &ResumeTicket,
        server: SocketAddr,
        secrets: Box<dyn SecretSource>,
        mut random: Stream,
    ) -> Result<Self, ClientError> {
        let phase = tick_duration().mul_f64(random.unit());
        let settings = config.session.clone();
        let session = ClientSession::resume(settings, suites, ticket, server, secrets, random)?;
        Ok(Self::of_session(config, session, phase))
    }

    fn of_session(config: ClientConfig, session: ClientSession, phase: Duration) -> Self {
        Self {
            session,
            replica: Replica::new(),
            prediction: Prediction::new(),
            intent: Intent::default(),
            own: None,
            next_input_at: None,
            due: VecDeque::with_capacity(INPUT_SLOTS_MAX),
            phase,
            inputs_per_message: config.inputs_per_message.clamp(1, INPUTS_PER_BUNDLE_MAX),
            last_action: 0,
            last_result: 0,
            wish_at: Timestamp::START,
            notices: VecDeque::new(),
            notices_max: config.notices_max.max(1),
            samples: VecDeque::new(),
            samples_max: config.samples_max,
            closed: None,
            comes_back: config.comes_back,
            away_until: None,
            typed: config.messages.map(Typed::new),
            stats: ClientStats::default(),
        }
    }

    /// What lets this client back in, once, when it was lost: for [`resume`](Self::resume).
    pub const fn ticket(&self) -> Option<&ResumeTicket> {
        self.session.ticket()
    }

    /// Makes the server address this client by `id`, see [`ClientSession::with_connection_id`].
    #[must_use]
    pub fn with_connection_id(mut self, id: u32) -> Self {
        self.session = self.session.with_connection_id(id);
        self
    }

    /// Moves the schedule of inputs, once it has begun, so that the next one is at `at`; for whoever
    /// runs many clients in step.
    pub const fn align_inputs(&mut self, at: Timestamp) {
        if self.next_input_at.is_some() {
            self.next_input_at = Some(at);
        }
    }

    /// What the player does from the next input on.
    pub const fn set_intent(&mut self, intent: Intent) {
        self.intent = intent;
    }

    /// Asks the server to put the effect on `target` and returns the action's number.
    ///
    /// # Errors
    /// [`SendError`] when the session takes no more messages now.
    pub fn apply_effect(&mut self, now: Timestamp, target: EntityId) -> Result<u32, SendError> {
        let action = self.last_action.wrapping_add(1);
        let mut bytes = [0; EVENT_BYTES_MAX];
        let len = ClientEvent::ApplyEffect { action, target }.encode(&mut bytes).unwrap_or(0);
        self.session.send(now, EVENTS, bytes.get(..len).unwrap_or_default())?;
        self.last_action = action;
        self.stats.reliable_sent += 1;
        Ok(action)
    }

    /// Sends a typed message on the channel of its type.
    ///
    /// # Errors
    /// [`SendMessageError`] when it cannot be sent now; it is promised nothing then.
    pub fn send_message<T: Message>(
        &mut self,
        now: Timestamp,
        message: &T,
    ) -> Result<(), SendMessageError> {
        let Self { typed, session, .. } = self;
        let typed = typed.as_mut().ok_or(SendMessageError::NoRegistry)?;
        let encoded = typed.registry.encode(message, &mut typed.encoder)?;
        let sent = session.send(now, encoded.channel, encoded.bytes);
        typed.stats.sent += u64::from(sent.is_ok());
        typed.stats.unsent += u64::from(sent.is_err());
        Ok(sent?)
    }

    /// Sends a message that the registry encoded already.
    pub(crate) fn send_encoded(
        &mut self,
        now: Timestamp,
        channel: Channel,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let sent = self.session.send(now, channel, bytes);
        if let Some(typed) = &mut self.typed {
            typed.stats.sent += u64::from(sent.is_ok());
            typed.stats.unsent += u64::from(sent.is_err());
        }
        sent
    }

    /// Puts the oldest typed message that was not read yet into `out`; false when there is none.
    pub fn poll_message(&mut self, out: &mut MessageBuf) -> bool {
        self.typed.as_mut().is_some_and(|typed| typed.poll(out))
    }

    /// What was counted of typed messages so far.
    pub fn message_stats(&self) -> ClientMessageStats {
        self.typed.as_ref().map(|typed| typed.stats).unwrap_or_default()
    }

    /// What happened since the last call, oldest first.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// How old a state was when it was applied, oldest first.
    pub fn poll_sample(&mut self) -> Option<StateSample> {
        self.samples.pop_front()
    }

    /// What the player sees.
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The player's own predicted movement.
    pub const fn prediction(&self) -> &Prediction {
        &self.prediction
    }

    /// The player's entity, once it stands in the world.
    pub const fn own(&self) -> Option<EntityId> {
        self.own
    }

    /// The session below.
    pub const fn session(&self) -> &ClientSession {
        &self.session
    }

    /// Why the session ended, once it has.
    pub const fn closed(&self) -> Option<CloseReason> {
        self.closed
    }

    /// What was counted so far.
    pub const fn stats(&self) -> &ClientStats {
        &self.stats
    }

    /// Actions sent and results received, by number: equal when nothing is under way.
    pub const fn actions(&self) -> (u32, u32) {
        (self.last_action, self.last_result)
    }

    /// Leaves the world.
    pub fn close(&mut self, now: Timestamp) {
        self.session.close(now, CloseReason::Normal);
    }

    /// When the next input is scheduled, for whoever decides what it shall be.
    pub const fn next_input_at(&self) -> Option<Timestamp> {
        self.next_input_at
    }

    /// Hands one datagram's bytes to the session.
    pub fn handle_datagram(&mut self, now: Timestamp, bytes: &mut [u8]) {
        self.with_session(now, |session, on_event| session.handle_datagram(now, bytes, on_event));
        self.stats.replica_mismatches = self.replica.mismatches();
        if now >= self.wish_at && self.replica.take_keyframe_wish() {
            self.want_keyframes(now);
        }
    }

    /// Asks the server for everything anew. A wish that the session does not take now comes again
    /// with the next digest.
    fn want_keyframes(&mut self, now: Timestamp) {
        let mut bytes = [0; EVENT_BYTES_MAX];
        let wish = ClientEvent::WantKeyframes { tick: self.replica.tick() };
        let len = wish.encode(&mut bytes).unwrap_or(0);
        if self.session.send(now, EVENTS, bytes.get(..len).unwrap_or_default()).is_ok() {
            self.stats.reliable_sent += 1;
            self.stats.keyframes_wanted += 1;
            self.wish_at = now.after(WISH_INTERVAL);
        }
    }

    /// Spoils the replica, for tests of its repair; false when there is nothing to spoil.
    #[doc(hidden)]
    pub fn spoil_replica(&mut self) -> bool {
        self.replica.spoil()
    }

    fn with_session(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut ClientSession, &mut dyn FnMut(SessionEvent<'_>)),
    ) {
        let Self { session, replica, prediction, notices, samples, typed, stats, .. } = self;
        let mut inner = Listener {
            now,
            replica,
            prediction,
            notices,
            samples,
            samples_max: self.samples_max,
            notices_max: self.notices_max,
            own: &mut self.own,
            next_input_at: &mut self.next_input_at,
            phase: self.phase,
            last_result: &mut self.last_result,
            away_until: &mut self.away_until,
            ended: None,
            typed,
            stats,
        };
        work(session, &mut |event| inner.on_event(&event));
        if let Some(reason) = inner.ended {
            self.on_ended(now, reason);
        }
    }

    /// Makes the inputs whose slots have come.
    fn run_due_inputs(&mut self, now: Timestamp) {
        if self.closed.is_some() {
            self.next_input_at = None;
            return;
        }
        while let Some(slot_at) = self.next_input_at.filter(|at| now >= *at) {
            self.next_input_at = Some(slot_at.after(tick_duration()));
            if self.due.len() == INPUT_SLOTS_MAX {
                self.due.pop_front();
                self.stats.inputs_skipped += 1;
            }
            let Intent { forward, strafe, yaw, pitch } = self.intent;
            self.prediction.predict(Input::toward(forward, strafe, yaw, pitch));
            self.due.push_back(slot_at);
        }
    }

    /// Writes one due input packet.
    fn send_input(&mut self, now: Timestamp, pool: &PacketPool) -> Option<Datagram> {
        let slot_at = *self.due.front()?;
        let mut packet = pool.take()?;
        self.due.pop_front();
        // After a stall the older slots' inputs travel with the newest: it repeats the last few.
        let behind = self.due.len();
        let bundle = InputBundle::of(&self.prediction, behind, wire_micros(slot_at))?;
        let bundle = bundle.newest_only(self.inputs_per_message);
        let written =
            self.session.write_packet(now, INPUT, 0, &mut packet, &mut |out| bundle.encode(out));
        written.ok()?;
        self.stats.inputs_sent += 1;
        Some(Datagram { peer: self.session.server_addr(), at: now, packet })
    }
}

impl Machine for Client {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        // Of use where many clients have their turns on one thread.
        self.session.prefetch();
        self.replica.prefetch();
        while let Some(mut datagram) = received.pop() {
            if datagram.peer == self.session.server_addr() {
                self.handle_datagram(now, &mut datagram.packet);
            }
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.session.prefetch();
        self.run_due_inputs(now);
        if self.session.poll_timeout().is_some_and(|at| now >= at) {
            self.with_session(now, |session, on_event| session.handle_timeout(now, on_event));
        }
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while out.room() > 0 {
            let Some(datagram) = self.send_input(now, pool) else { break };
            if out.push(datagram).is_err() {
                break;
            }
        }
        self.session.poll_transmit(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        match (self.next_input_at, self.session.poll_timeout()) {
            (Some(input), Some(session)) => Some(input.min(session)),
            (input, session) => input.or(session),
        }
    }

    fn prefetch(&self) {
        self.session.prefetch();
        self.replica.prefetch();
        self.prediction.prefetch();
    }

    fn is_done(&self) -> bool {
        self.closed.is_some()
    }
}

/// What a session's events change: all of the client but the session.
struct Listener<'a> {
    now: Timestamp,
    replica: &'a mut Replica,
    prediction: &'a mut Prediction,
    notices: &'a mut VecDeque<Notice>,
    samples: &'a mut VecDeque<StateSample>,
    samples_max: usize,
    notices_max: usize,
    own: &'a mut Option<EntityId>,
    next_input_at: &'a mut Option<Timestamp>,
    phase: Duration,
    last_result: &'a mut u32,
    away_until: &'a mut Option<Timestamp>,
    /// Why the session ended, if it did.
    ended: Option<CloseReason>,
    typed: &'a mut Option<Typed>,
    stats: &'a mut ClientStats,
}

impl Listener<'_> {
    fn notice(&mut self, notice: Notice) {
        if self.notices.len() == self.notices_max {
            self.notices.pop_front();
            self.stats.notices_lost += 1;
        }
        self.notices.push_back(notice);
    }

    fn sample(&mut self, sample: StateSample) {
        if self.samples_max == 0 {
            return;
        }
        if self.samples.len() >= self.samples_max {
            self.samples.pop_front();
            self.stats.samples_lost += 1;
        }
        self.samples.push_back(sample);
    }

    fn on_event(&mut self, event: &SessionEvent<'_>) {
        match *event {
            SessionEvent::Connected { cipher, .. } => {
                if self.away_until.is_some() {
                    // The server may be another run of itself, whose ticks are others.
                    *self.replica = Replica::new();
                    *self.prediction = Prediction::new();
                }
                self.notice(Notice::Connected { cipher });
            }
            SessionEvent::Message { channel: STATE, bytes } => self.on_state(bytes),
            SessionEvent::Message { channel: EVENTS, bytes } => self.on_server_event(bytes),
            SessionEvent::Message { channel, bytes } => match self.typed.as_mut() {
                Some(typed) if Registry::is_user_stream(channel.stream) => {
                    typed.receive(channel, bytes);
                }
                _ => self.stats.events_malformed += 1,
            },
            SessionEvent::Closed { reason } => self.ended = Some(reason),
            _ => {}
        }
    }

    /// Counts what a state's tick says of those before it, before the replica takes it in.
    fn expect_states(&mut self, newest: Option<(u32, u8)>, header: &StateHeader) {
        let parts = u64::from(header.parts);
        self.stats.states_expected += match newest {
            None => parts,
            Some((tick, _)) if header.tick <= tick => 0,
            Some((tick, parts_before)) => {
                let pace = u32::from(header.ticks_per_state);
                let states = u64::from((header.tick - tick) / pace).max(1);
                (states - 1) * u64::from(parts_before) + parts
            }
        };
    }

    fn on_state(&mut self, bytes: &[u8]) {
        self.stats.state_bytes += bytes.len() as u64;
        let newest = self.replica.newest().map(|newest| (newest.tick, newest.parts));
        let applied = self.replica.apply(bytes);
        if let Ok(applied) = &applied {
            self.expect_states(newest, applied.header());
        }
        match applied {
            Ok(Applied::New { header }) => {
                self.stats.states_applied += 1;
                if let Some(down) = elapsed_since_wire(self.now, header.slot_us)
                    && let Some(age) = elapsed_since_wire(self.now, header.made_us)
                {
                    self.sample(StateSample { down, age });
                }
                self.prediction.reconcile(header.last_input, header.own);
            }
            Ok(_) => self.stats.states_stale += 1,
            Err(_) => self.stats.states_malformed += 1,
        }
    }

    fn on_server_event(&mut self, bytes: &[u8]) {
        self.stats.reliable_received += 1;
        match ServerEvent::decode(bytes) {
            Ok(ServerEvent::Welcome { own, .. }) => {
                *self.own = Some(own);
                *self.next_input_at = Some(self.now.after(self.phase));
                let is_back = self.away_until.take().is_some();
                let notice =
                    if is_back { Notice::Resumed { own } } else { Notice::Entered { own } };
                self.notice(notice);
            }
            Ok(ServerEvent::ActionResult { action, outcome }) => {
                if action != self.last_result.wrapping_add(1) {
                    self.stats.results_out_of_order += 1;
                }
                *self.last_result = action;
                self.notice(Notice::ActionResult { action, outcome });
            }
            Ok(ServerEvent::EffectOn { actor, until_tick }) => {
                self.stats.effects_told += 1;
                self.notice(Notice::EffectOn { actor, until_tick });
            }
            Ok(ServerEvent::Draining) => self.notice(Notice::Draining),
            _ => self.stats.events_malformed += 1,
        }
    }
}

#[cfg(test)]
mod tests;
