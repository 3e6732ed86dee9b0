//! The load generator, a process of its own: every player's connection and keys, on an open-loop
//! schedule.
//!
//! One player in sixteen is a full client that decrypts, applies and measures every state; the
//! others are light: they acknowledge by the numbers in clear headers. Inputs leave at the slots of
//! a fixed schedule whatever the server does.

mod flow;
mod player;
mod quantiles;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::{AeadSuite, Cipher, HeaderKey, PacketKey, SECRET_BYTES};
use twinspan_core::bytes::Reader;
use twinspan_core::packet::{Datagram, DatagramBatch, PACKET_BYTES_MAX};
use twinspan_core::prefetch;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_game::{EVENTS, Latency, STATE, elapsed_since_wire};
use twinspan_provider::{Machine, OsSecrets};
use twinspan_session::{
    CloseReason, CryptoSuite, LoadClient, LoadNote, connection_id, handshake_nonce,
};
use twinspan_world::tick_duration;

use crate::clock::Clock;
use crate::error::BenchError;
use crate::lines::Parent;
use crate::plan::{
    GeneratorPlan, GeneratorReport, GeneratorWord, Opponent, Spread, Window, WindowPlan,
};
use crate::process;
use flow::{Flow, Trunk};
use player::{Goal, Joining, Light, Maker, Player};
use quantiles::quantiles;

/// Slots into which one input period is divided.
const SLOTS: usize = 16;
/// One player in this many is a full client.
pub const FULL_EVERY: usize = 16;
/// Datagrams taken from one flow before others have their turn.
const RECEIVED_PER_LOOK_MAX: usize = 1_024;
/// Input periods of which light players use one until all are in.
const INPUT_PERIODS_WHILE_LOGGING_IN: u64 = 4;
/// Handshakes under way at once.
const JOINING_MAX: usize = 32;
/// How long all players together may take to come in, beside 2 ms each.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Nobody came in for so long: nobody else will.
const LOGIN_STALL: Duration = Duration::from_secs(5);
/// From the last login to the window.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// From the end of the window until players rest, so that the server's counters are taken under load.
const TAIL: Duration = Duration::from_millis(1_200);
/// From there until the report: what is under way arrives and the server publishes it.
const REST: Duration = Duration::from_millis(1_500);
/// A slot that begins later than this counts as late.
const SLOT_LATE: Duration = Duration::from_millis(5);
/// A generator this late is not open-loop any more.
const TOO_LATE: Duration = Duration::from_millis(20);

/// Where a packet says its channel, session 1.2.
const CHANNEL_AT: usize = 4;

/// Runs the generator as its parent says.
///
/// # Errors
/// [`BenchError`] when it cannot run or the parent is not to be understood.
pub fn run() -> Result<(), BenchError> {
    let mut parent = Parent::default();
    let plan: GeneratorPlan = parent.hear()?;
    let priority = plan.placement.apply()?;
    let mut generator = Generator::new(&plan)?;
    generator.log_in()?;
    for (index, planned) in plan.windows.iter().enumerate() {
        generator.begin_window(planned, &priority);
        let window = generator.window(planned.seconds);
        parent.tell(&GeneratorWord::Window(window))?;
        generator.play(&window)?;
        if index + 1 == plan.windows.len() {
            generator.rest(&window)?;
        }
        parent.tell(&GeneratorWord::Report(Box::new(generator.report())))?;
    }
    // The sessions stay up until the parent has asked the server for its last counters.
    parent.hear::<()>()
}

/// A suite that offers one cipher only.
struct OneCipher([Cipher; 1]);

impl AeadSuite for OneCipher {
    fn ciphers(&self) -> &[Cipher] {
        &self.0
    }

    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>> {
        CryptoSuite::detect().key(cipher, secret)
    }

    fn header_key(
        &self,
        cipher: Cipher,
        secret: &[u8; SECRET_BYTES],
    ) -> Option<Box<dyn HeaderKey>> {
        CryptoSuite::detect().header_key(cipher, secret)
    }
}

/// The suite of the clients.
pub fn suite(cipher: Option<u8>) -> Arc<dyn AeadSuite> {
    match cipher.and_then(Cipher::from_wire) {
        Some(cipher) => Arc::new(OneCipher([cipher])),
        None => Arc::new(CryptoSuite::detect()),
    }
}

/// The secret of one player, made from that of the run.
pub fn player_secret(secret: &[u8; 32], player: u32) -> [u8; 32] {
    let mut own = *secret;
    own.iter_mut().zip(player.to_le_bytes()).for_each(|(byte, number)| *byte ^= number);
    own
}

/// Players, their sockets and what was seen of the server.
struct Generator {
    clock: Clock,
    flows: Vec<Flow>,
    players: Vec<Player>,
    /// Which players send in which slot.
    slots: Vec<Vec<u32>>,
    /// Flow of each player.
    flow_of: Vec<u32>,
    /// Players that are not in yet.
    outside: Vec<u32>,
    /// Players whose handshake is under way.
    joining: Vec<u32>,
    by_nonce: HashMap<[u8; 16], u32>,
    /// Full clients.
    full: Vec<u32>,
    /// Visitors that have not come yet.
    visitors: VecDeque<u32>,
    /// From one visitor to the next, in the present window.
    visit_interval: Option<Duration>,
    next_visit_at: Timestamp,
    visit_time: Latency,
    idle: bool,
    /// Whether players are still coming in.
    logging_in: bool,
    /// Whether states begin with the times that a transport server writes.
    reads_times: bool,
    players_wanted: u32,
    joined: u32,
    out: DatagramBatch,
    received: DatagramBatch,
    one: DatagramBatch,
    random: Stream,
    began: Timestamp,
    last_joined: Timestamp,
    /// Where the schedule starts.
    base: Timestamp,
    /// The next slot, counted from there.
    next_slot: u64,
    measuring: bool,
    sizes: Vec<u32>,
    down: Latency,
    state_age: Latency,
    reliable_rtt: Latency,
    seen: GeneratorReport,
}

impl Generator {
    fn new(plan: &GeneratorPlan) -> Result<Self, BenchError> {
        let clock = Clock::new(plan.epoch_nanos);
        let flow_count = plan.flows.clamp(1, plan.players.max(1));
        let trunk = plan.relay.as_ref().map(|relay| Trunk::new(relay.key, relay.pad_to));
        let flows: Result<Vec<_>, _> = (0..flow_count)
            .map(|flow| {
                let local = plan.relay.as_ref().and_then(|r| r.addresses.get(flow as usize));
                Flow::bind(plan.server, local.copied().zip(trunk))
            })
            .collect();
        let mut slots = vec![Vec::new(); SLOTS];
        let mut flow_of = Vec::new();
        for index in 0..plan.players {
            // Every sixteenth player is a full one: they spread over the slots like the others.
            let slot = (index as usize + index as usize / SLOTS) % SLOTS;
            if let Some(players) = slots.get_mut(slot) {
                // The players of one slot share few flows, so that their inputs leave in long runs.
                let flows_of_slot = flow_count.div_ceil(SLOTS as u32);
                let part = players.len() as u32 % flows_of_slot;
                flow_of.push((slot as u32 * flows_of_slot + part) % flow_count);
                players.push(index);
            }
        }
        let suite = suite(plan.cipher);
        let mut secrets = OsSecrets;
        let mut seed = [0; 8];
        twinspan_core::random::SecretSource::fill(&mut secrets, &mut seed);
        let mut random = Stream::new(u64::from_le_bytes(seed), "generator", 0);
        let mut players = Vec::with_capacity(plan.players as usize);
        for index in 0..plan.players {
            players.push(match &plan.opponent {
                Opponent::World { tokens } => {
                    let token = tokens.get(index as usize).map_or("", String::as_str);
                    let is_full = (index as usize).is_multiple_of(FULL_EVERY);
                    let maker = Maker { suite: &suite, server: plan.server };
                    maker.player(index, token, is_full.into(), &mut random)?
                }
                Opponent::Transport { tokens } => {
                    let token = tokens.get(index as usize).map_or("", String::as_str);
                    let maker = Maker { suite: &suite, server: plan.server };
                    maker.player(index, token, Goal::Session, &mut random)?
                }
                Opponent::Floor { secret } => {
                    let cipher = plan.cipher.and_then(Cipher::from_wire);
                    let cipher = cipher.unwrap_or(Cipher::Aes128Gcm);
                    let secret = player_secret(secret, index);
                    let id = index + 1;
                    LoadClient::with_secret(&suite, cipher, &secret, id, id)
                        .map(|client| Player::Light(Box::new(Light::new(client, &mut random))))
                        .ok_or_else(|| BenchError::Cipher(cipher.name().into()))?
                }
            });
        }
        for (index, token) in (plan.players..).zip(&plan.visitors) {
            let maker = Maker { suite: &suite, server: plan.server };
            players.push(maker.player(index, token, Goal::Visit, &mut random)?);
            flow_of.push(index % flow_count);
        }
        let mut new = Self {
            clock,
            flows: flows?,
            slots,
            flow_of,
            outside: Vec::new(),
            joining: Vec::new(),
            by_nonce: HashMap::new(),
            full: Vec::new(),
            visitors: VecDeque::new(),
            visit_interval: None,
            next_visit_at: Timestamp::START,
            visit_time: Latency::default(),
            idle: plan.idle,
            logging_in: false,
            reads_times: matches!(plan.opponent, Opponent::Transport { .. }),
            players_wanted: plan.players,
            joined: 0,
            out: DatagramBatch::new(64),
            received: DatagramBatch::new(RECEIVED_PER_LOOK_MAX),
            one: DatagramBatch::new(1),
            random,
            began: clock.now(),
            last_joined: clock.now(),
            base: clock.now(),
            next_slot: 0,
            measuring: false,
            sizes: vec![0; PACKET_BYTES_MAX + 1],
            down: Latency::default(),
            state_age: Latency::default(),
            reliable_rtt: Latency::default(),
            seen: GeneratorReport::default(),
            players,
        };
        for (index, player) in (0..).zip(&new.players) {
            match player {
                Player::Joining(joining) if joining.goal == Goal::Visit => {
                    new.by_nonce.insert(joining.session.handshake_nonce(), index);
                    new.visitors.push_back(index);
                }
                Player::Light(_) => new.joined += 1,
                Player::Joining(joining) => {
                    new.by_nonce.insert(joining.session.handshake_nonce(), index);
                    new.outside.push(index);
                }
                Player::Full(full) => {
                    new.by_nonce.insert(full.nonce(), index);
                    new.full.push(index);
                    new.outside.push(index);
                }
                Player::Gone => {}
            }
        }
        // In the order of their numbers every full client would get the same place in the server's
        // schedule of sends.
        for at in (1..new.outside.len()).rev() {
            new.outside.swap(at, new.random.below(at as u64 + 1) as usize);
        }
        Ok(new)
    }

    /// Brings the players in, a few handshakes at a time, until all are in or no more come.
    fn log_in(&mut self) -> Result<(), BenchError> {
        self.began = self.clock.now();
        self.base = self.began;
        self.last_joined = self.began;
        let players = self.players_wanted;
        let limit = LOGIN_TIME_MAX + Duration::from_millis(2) * players;
        let mut before = self.joined;
        self.logging_in = true;
        while self.joined < players {
            self.turn()?;
            let now = self.clock.now();
            if self.joined > before {
                before = self.joined;
                self.last_joined = now;
            }
            if now.since(self.last_joined) > LOGIN_STALL || now.since(self.began) > limit {
                break;
            }
        }
        self.logging_in = false;
        // Who is not in by now stays outside: the summary says how many those are.
        self.outside.clear();
        for index in std::mem::take(&mut self.joining) {
            if let Some(player) = self.players.get_mut(index as usize) {
                *player = Player::Gone;
            }
        }
        if self.joined == 0 { Err(BenchError::NoLogin) } else { Ok(()) }
    }

    /// Forgets what was seen, for the next window.
    fn begin_window(&mut self, planned: &WindowPlan, priority: &str) {
        self.seen = GeneratorReport {
            priority: priority.to_owned(),
            input_bytes: player::INPUT_MESSAGE_BYTES as u64,
            closed: self.seen.closed,
            ..GeneratorReport::default()
        };
        self.sizes.fill(0);
        for latency in
            [&mut self.down, &mut self.state_age, &mut self.reliable_rtt, &mut self.visit_time]
        {
            latency.clear();
        }
        let time = Duration::from_secs(planned.seconds);
        self.visit_interval = (planned.visitors > 0).then(|| time / planned.visitors);
        // They come when the window has begun.
        self.next_visit_at = Timestamp::NEVER;
    }

    fn window(&self, seconds: u64) -> Window {
        let from = self.clock.now().after(WARM_UP);
        let to = from.after(Duration::from_secs(seconds));
        Window { from_nanos: from.as_nanos(), to_nanos: to.as_nanos() }
    }

    /// Plays through the window and what follows it.
    fn play(&mut self, window: &Window) -> Result<(), BenchError> {
        let from = Timestamp::from_nanos(window.from_nanos);
        let to = Timestamp::from_nanos(window.to_nanos);
        while self.clock.now() < from {
            self.turn()?;
        }
        self.next_visit_at = from;
        if self.visit_interval.is_some() {
            let to_nanos = to.after(TAIL).as_nanos();
            self.seen.visitor_states = Spread::over(Window { to_nanos, ..*window });
        }
        let before = self.applied();
        let cpu_before = process::cpu_time();
        let waited_before = process::waited_time().unwrap_or_default();
        self.measuring = true;
        while self.clock.now() < to {
            self.turn()?;
        }
        self.measuring = false;
        let cpu = process::cpu_time().saturating_sub(cpu_before);
        let waited = process::waited_time().unwrap_or_default().saturating_sub(waited_before);
        self.seen.waited_nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.seen.cpu_nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let after = self.applied();
        self.seen.states_applied = after.0 - before.0;
        self.seen.states_applied_bytes = after.1 - before.1;
        self.play_until(to.after(TAIL))
    }

    /// Lets the players rest, so that all that is under way arrives.
    fn rest(&mut self, window: &Window) -> Result<(), BenchError> {
        for player in &mut self.players {
            if let Player::Full(full) = player {
                full.bot.rest();
            }
        }
        self.play_until(Timestamp::from_nanos(window.to_nanos).after(TAIL + REST))
    }

    fn play_until(&mut self, until: Timestamp) -> Result<(), BenchError> {
        while self.clock.now() < until {
            self.turn()?;
        }
        Ok(())
    }

    /// States that full clients received so far, and their bytes.
    fn applied(&self) -> (u64, u64) {
        let full = self.full.iter().filter_map(|index| match self.players.get(*index as usize) {
            Some(Player::Full(full)) => Some(full.bot.client().stats()),
            _ => None,
        });
        full.fold((0, 0), |(states, bytes), stats| {
            (states + stats.states_applied + stats.states_stale, bytes + stats.state_bytes)
        })
    }

    fn slot_at(&self, slot: u64) -> Timestamp {
        let tick = tick_duration();
        let (ticks, part) = (slot / SLOTS as u64, (slot % SLOTS as u64) as u32);
        let nanos = u64::try_from(tick.as_nanos()).unwrap_or(0);
        let at = self.base.after(Duration::from_nanos(nanos.saturating_mul(ticks)));
        at.after(tick / SLOTS as u32 * part)
    }

    /// One slot: what was due, then what came, then a look half a slot later.
    fn turn(&mut self) -> Result<(), BenchError> {
        let slot = self.next_slot;
        self.next_slot += 1;
        let slot_at = self.slot_at(slot);
        self.clock.wait_until(slot_at);
        let now = self.clock.now();
        self.note_lateness(now, slot_at);
        // A server that cannot bear them all at play would else never be seen with all of them.
        let pauses = self.logging_in
            && !(slot / SLOTS as u64).is_multiple_of(INPUT_PERIODS_WHILE_LOGGING_IN);
        if !self.idle && !pauses {
            self.send_light(now, slot_at, (slot % SLOTS as u64) as usize)?;
        }
        self.wake_full(now)?;
        self.join_more(now)?;
        self.flush_all()?;
        self.receive_all()?;
        let half = slot_at.after(tick_duration() / (2 * SLOTS as u32));
        if self.clock.now() < half {
            self.clock.wait_until(half);
            self.receive_all()?;
        }
        Ok(())
    }

    fn note_lateness(&mut self, now: Timestamp, slot_at: Timestamp) {
        let late = now.since(slot_at);
        if self.measuring && late > SLOT_LATE {
            self.seen.slots_late += 1;
        }
        if self.measuring && late > TOO_LATE && self.seen.late_at_nanos.is_none() {
            self.seen.late_at_nanos = Some(slot_at.as_nanos());
        }
        if self.measuring {
            self.seen.slot_late_ms_max =
                self.seen.slot_late_ms_max.max(late.as_secs_f64() * 1_000.0);
        }
    }

    /// Seals and sends the inputs of the light players of one slot.
    fn send_light(
        &mut self,
        now: Timestamp,
        slot_at: Timestamp,
        slot: usize,
    ) -> Result<(), BenchError> {
        let Self { players, slots, flows, flow_of, random, seen, .. } = self;
        let due = slots.get(slot).map(Vec::as_slice).unwrap_or_default();
        for (at, index) in due.iter().enumerate() {
            // With many players everything that belongs to one has left the caches by its turn.
            let ahead = |by: usize| match players.get(*due.get(at + by)? as usize)? {
                Player::Light(light) => Some(light),
                _ => None,
            };
            if let Some(light) = ahead(8) {
                prefetch::value(&**light);
            }
            if let Some(light) = ahead(4) {
                light.client.prefetch_to_seal();
            }
            let (player, index) = (*index, *index as usize);
            let Some(Player::Light(light)) = players.get_mut(index) else { continue };
            let Some(flow) = flow_of.get(index).and_then(|flow| flows.get_mut(*flow as usize))
            else {
                continue;
            };
            let Some(mut packet) = flow.pool().take() else {
                seen.inputs_unsent += 1;
                continue;
            };
            if let Some(len) = light.input(now, slot_at, random, packet.room_mut()) {
                packet.set_len(len);
                seen.inputs_unsent += flow.push(player, packet)?;
                if self.measuring {
                    seen.inputs_sent += 1;
                }
            }
        }
        Ok(())
    }

    /// Lets the full clients do what is due.
    fn wake_full(&mut self, now: Timestamp) -> Result<(), BenchError> {
        for at in 0..self.full.len() {
            let Some(index) = self.full.get(at).copied() else { break };
            let due = match self.players.get_mut(index as usize) {
                Some(Player::Full(full)) if full.begun && full.wake_at <= now => {
                    full.bot.handle_timeout(now);
                    true
                }
                _ => false,
            };
            if due {
                self.after_full(now, index)?;
            }
        }
        Ok(())
    }

    /// After a full client was called: sends what it has to send, and looks how it is.
    fn after_full(&mut self, now: Timestamp, index: u32) -> Result<(), BenchError> {
        let slot_at = self.next_slot_of(index);
        let Some(Player::Full(full)) = self.players.get_mut(index as usize) else { return Ok(()) };
        let flow = self.flow_of.get(index as usize).copied().unwrap_or(0);
        let Some(flow) = self.flows.get(flow as usize) else { return Ok(()) };
        full.bot.poll_transmit(now, flow.pool(), &mut self.out);
        if full.enters(slot_at) {
            self.joined += 1;
            self.joining.retain(|other| *other != index);
        }
        full.time_actions(now, self.measuring.then_some(&mut self.reliable_rtt));
        while let Some(sample) = full.bot.client_mut().poll_sample() {
            if self.measuring {
                self.down.record(sample.down);
                self.state_age.record(sample.age);
            }
        }
        full.wake_at = full.bot.poll_timeout().unwrap_or(Timestamp::NEVER);
        if full.bot.is_done() {
            self.lose(index);
        }
        self.send_out(index)
    }

    /// When the slot of a player comes next.
    fn next_slot_of(&self, index: u32) -> Timestamp {
        let wanted = (index as usize + index as usize / SLOTS) % SLOTS;
        let next = self.next_slot as usize % SLOTS;
        let ahead = (wanted + SLOTS - next) % SLOTS;
        self.slot_at(self.next_slot + ahead as u64)
    }

    /// Hands what `self.out` holds to the player's flow.
    fn send_out(&mut self, index: u32) -> Result<(), BenchError> {
        let flow = self.flow_of.get(index as usize).copied().unwrap_or(0);
        let Some(flow) = self.flows.get_mut(flow as usize) else { return Ok(()) };
        while let Some(datagram) = self.out.pop() {
            if self.measuring {
                self.seen.inputs_sent += 1;
            }
            self.seen.inputs_unsent += flow.push(index, datagram.packet)?;
        }
        Ok(())
    }

    fn lose(&mut self, index: u32) {
        if let Some(player) = self.players.get_mut(index as usize)
            && !matches!(player, Player::Gone)
        {
            *player = Player::Gone;
            self.seen.closed += 1;
        }
    }

    /// Starts handshakes while few are under way, and keeps those going.
    fn join_more(&mut self, now: Timestamp) -> Result<(), BenchError> {
        while self.joining.len() < JOINING_MAX
            && let Some(index) = self.outside.pop()
        {
            self.joining.push(index);
            if let Some(Player::Full(full)) = self.players.get_mut(index as usize) {
                full.begun = true;
                full.bot.handle_timeout(now);
                self.after_full(now, index)?;
            }
        }
        // Also after the window: on a busy machine the last ones are late, and all are to come.
        while now >= self.next_visit_at
            && let Some(interval) = self.visit_interval
            && let Some(index) = self.visitors.pop_front()
        {
            self.next_visit_at = self.next_visit_at.after(interval);
            if let Some(Player::Joining(visitor)) = self.players.get_mut(index as usize) {
                visitor.began = now;
            }
            self.joining.push(index);
        }
        for at in (0..self.joining.len()).rev() {
            let Some(index) = self.joining.get(at).copied() else { continue };
            self.poll_joining(now, index)?;
        }
        Ok(())
    }

    fn flush_all(&mut self) -> Result<(), BenchError> {
        for flow in &mut self.flows {
            self.seen.inputs_unsent += flow.flush()?;
        }
        Ok(())
    }

    /// Does what is due for a handshake under way.
    fn poll_joining(&mut self, now: Timestamp, index: u32) -> Result<(), BenchError> {
        let flow = self.flow_of.get(index as usize).copied().unwrap_or(0);
        let flow = self.flows.get(flow as usize);
        if let (Some(Player::Joining(joining)), Some(flow)) =
            (self.players.get_mut(index as usize), flow)
        {
            joining.poll(now, flow.pool(), &mut self.out);
            self.send_out(index)?;
        }
        Ok(())
    }

    /// Takes what has arrived, a bounded share of each flow.
    fn receive_all(&mut self) -> Result<(), BenchError> {
        for index in 0..self.flows.len() {
            let Some(flow) = self.flows.get_mut(index) else { break };
            flow.receive(&mut self.received)?;
            let now = self.clock.now();
            while let Some(datagram) = self.received.pop() {
                self.take(now, datagram)?;
            }
        }
        self.flush_all()
    }

    /// One datagram for one player.
    fn take(&mut self, now: Timestamp, mut datagram: Datagram) -> Result<(), BenchError> {
        let bytes = &mut *datagram.packet;
        let len = bytes.len();
        let player = match connection_id(bytes) {
            Some(0) => handshake_nonce(bytes).and_then(|nonce| self.by_nonce.get(&nonce).copied()),
            Some(id) => {
                self.note_visitor(now, id, bytes);
                id.checked_sub(1)
            }
            None => None,
        };
        let Some(index) = player else {
            self.seen.strays += 1;
            return Ok(());
        };
        match self.players.get_mut(index as usize) {
            Some(Player::Light(light)) => {
                let open = light.opens(index);
                let times = self.reads_times && self.measuring;
                let (down, state_age) = (&mut self.down, &mut self.state_age);
                let note = light.client.handle(now, bytes, open, &mut |channel, message| {
                    if times && channel == STATE {
                        note_times(now, message, down, state_age);
                    }
                });
                match note {
                    LoadNote::Noted(STATE) => self.note_state(len, false),
                    LoadNote::Opened => self.note_state(len, true),
                    LoadNote::Noted(_) => {}
                    LoadNote::Dropped => self.seen.strays += 1,
                    LoadNote::Closed(_) => self.lose(index),
                }
                Ok(())
            }
            Some(Player::Full(full)) => {
                // The batch is empty: it takes this one.
                let _ = self.one.push(datagram);
                full.bot.handle_datagrams(now, &mut self.one);
                self.one.clear();
                let is_in = full.entered;
                if is_in {
                    self.note_state(len, true);
                }
                self.after_full(now, index)
            }
            Some(Player::Joining(joining)) => {
                let is_in = joining.handle(now, bytes);
                if is_in && joining.goal == Goal::Visit {
                    self.visit_time.record(now.since(joining.began));
                    joining.session.close(now, CloseReason::Normal);
                }
                self.poll_joining(now, index)?;
                if is_in {
                    self.come_in(now, index);
                }
                Ok(())
            }
            Some(Player::Gone) | None => Ok(()),
        }
    }

    /// Counts the states of those who only look in: the server counts them among those that it was
    /// to send, also when its visitor has left by the time that they come.
    fn note_visitor(&mut self, now: Timestamp, id: u32, bytes: &[u8]) {
        if id > self.players_wanted && bytes.get(CHANNEL_AT) == Some(&STATE.to_byte()) {
            self.seen.visitor_states.note(now);
        }
    }

    fn note_state(&mut self, len: usize, opened: bool) {
        if self.measuring {
            self.seen.states += 1;
            self.seen.states_opened += u64::from(opened);
            if let Some(count) = self.sizes.get_mut(len) {
                *count += 1;
            }
        }
    }

    /// A handshake is over: from now on the player is a light one, and a visitor is gone.
    fn come_in(&mut self, now: Timestamp, index: u32) {
        let Some(player) = self.players.get_mut(index as usize) else { return };
        let Player::Joining(joining) = std::mem::replace(player, Player::Gone) else { return };
        if joining.goal == Goal::Visit {
            self.seen.visits += 1;
        } else {
            *player = match LoadClient::take_over(now, joining.session) {
                Ok(client) => Player::Light(Box::new(Light::new(client, &mut self.random))),
                // Not quite: the next packet will do.
                Err(session) => {
                    *player = Player::Joining(Box::new(Joining::again(*session, joining.goal)));
                    return;
                }
            };
            self.joined += 1;
        }
        self.joining.retain(|other| *other != index);
    }

    fn report(&mut self) -> GeneratorReport {
        let connect = self.last_joined.since(self.began);
        let mut report = GeneratorReport {
            joined: self.joined,
            connect_ms_max: connect.as_secs_f64() * 1_000.0,
            down: self.down.percentiles().into(),
            state_age: self.state_age.percentiles().into(),
            reliable_rtt: self.reliable_rtt.percentiles().into(),
            visit: self.visit_time.percentiles().into(),
            state_datagram_bytes: quantiles(&self.sizes),
            ..self.seen.clone()
        };
        for player in &self.players {
            match player {
                Player::Full(full) => {
                    let stats = full.bot.client().stats();
                    report.reliable_sent += stats.reliable_sent;
                    report.reliable_received += stats.reliable_received;
                    report.out_of_order += stats.results_out_of_order;
                    report.malformed += stats.states_malformed + stats.events_malformed;
                }
                // The world's welcome came before the session was taken over.
                Player::Light(light) => {
                    let welcome = u64::from(!self.full.is_empty());
                    report.reliable_received += light.client.reliable_seen(EVENTS).max(welcome);
                }
                Player::Joining(_) | Player::Gone => {}
            }
        }
        report
    }
}

/// Takes the times at the front of a transport server's state.
fn note_times(now: Timestamp, message: &[u8], down: &mut Latency, age: &mut Latency) {
    let mut reader = Reader::new(message);
    if let (Ok(slot_us), Ok(made_us)) = (reader.u32(), reader.u32()) {
        for (word, latency) in [(slot_us, down), (made_us, age)] {
            if let Some(passed) = elapsed_since_wire(now, word) {
                latency.record(passed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_have_secrets_of_their_own() {
        let secrets: Vec<_> = [0, 1, 256].map(|player| player_secret(&[7; 32], player)).into();
        assert!(secrets[0] != secrets[1] && secrets[1] != secrets[2]);
    }
}
