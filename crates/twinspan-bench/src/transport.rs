//! A server of sessions without a world: states of one size, on the world server's schedule.
//!
//! What it costs above the floor is what sessions cost; what the world server costs above it is the
//! world.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use twinspan_core::aead::{AeadSuite, Cipher};
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::{SecretSource, Stream};
use twinspan_core::time::Timestamp;
use twinspan_game::{EVENTS, GATHER, INPUT, Latency, STATE, elapsed_since_wire, wire_micros};
use twinspan_net::{ReactorEnv, lock};
use twinspan_provider::{
    Machine, NetworkProvider, RandomProvider, SocketReport, TimeProvider, UdpError, UdpOptions,
    UdpSocket, drive,
};
use twinspan_session::{
    Addressed, ConfigError, CryptoSuite, Endpoint, EndpointEvent, ServerIdentity, SessionConfig,
    SessionKey, TokenIssuer, TokenKey, UserId,
};
use twinspan_world::tick_duration;

use crate::error::BenchError;

/// Slots of one tick and ticks of one state period, as the world server has them.
const SLOTS_PER_TICK: u32 = 16;
const TICKS_PER_STATE: u32 = 3;
const SLOTS: usize = (SLOTS_PER_TICK * TICKS_PER_STATE) as usize;
/// How far ahead memory is wished for.
const AHEAD: usize = 8;
/// Time between two publications of the counters.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// How long tokens may be used.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// What a transport server counted.
#[derive(Debug, Default)]
pub struct TransportCounts {
    /// When.
    pub at: Timestamp,
    /// Input messages.
    pub inputs: u64,
    /// Their one-way latency.
    pub up: Latency,
    /// States that the schedule asked for.
    pub states: u64,
    /// States that were not sent.
    pub unsent: u64,
    /// Slots that were served over a tick late.
    pub late: u64,
    /// Reliable messages taken.
    pub events: u64,
    /// Their one-way latency.
    pub event_latency: Latency,
    /// Sessions that are up.
    pub sessions: u64,
    /// Datagrams that were dropped.
    pub dropped: u64,
    /// Sessions that ended.
    pub closed: u64,
    /// Their cipher.
    pub cipher: Option<Cipher>,
}

impl TransportCounts {
    /// Copies without allocating.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { at, inputs, states, unsent, late, .. } = *other;
        let Self { events, sessions, dropped, closed, cipher, .. } = *other;
        self.up.clone_from(&other.up);
        self.event_latency.clone_from(&other.event_latency);
        (self.at, self.inputs, self.states, self.unsent) = (at, inputs, states, unsent);
        (self.late, self.events, self.sessions) = (late, events, sessions);
        (self.dropped, self.closed, self.cipher) = (dropped, closed, cipher);
    }
}

/// What a server proves itself with.
pub struct TransportKeys {
    /// Its static key pair.
    pub identity: ServerIdentity,
    /// The key that it shares with the login service.
    pub tokens: TokenKey,
}

/// The machine.
pub struct TransportServer {
    endpoint: Endpoint,
    state_bytes: usize,
    /// Sessions by the slot of the state period in which theirs are sent.
    slots: Vec<Vec<SessionKey>>,
    joined: usize,
    addressed: Vec<Option<Addressed>>,
    base: Option<Timestamp>,
    /// The slot in progress, counted from the start, and how many of it are served.
    slot: u64,
    position: usize,
    published_at: Timestamp,
    counts: TransportCounts,
    shared: Arc<Mutex<TransportCounts>>,
}

impl TransportServer {
    /// A server whose states have `state_bytes` bytes; 0 for none.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting that cannot be.
    pub fn new(
        config: SessionConfig,
        suites: Arc<dyn AeadSuite>,
        keys: TransportKeys,
        secrets: Box<dyn SecretSource>,
        random: Stream,
        unix_at_start_s: u64,
        state_bytes: usize,
    ) -> Result<Self, ConfigError> {
        let TransportKeys { identity, tokens } = keys;
        Ok(Self {
            endpoint: Endpoint::new(
                config,
                suites,
                identity,
                tokens,
                secrets,
                random,
                unix_at_start_s,
            )?,
            state_bytes: state_bytes.min(Endpoint::message_room()),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            joined: 0,
            addressed: Vec::new(),
            base: None,
            slot: 0,
            position: 0,
            published_at: Timestamp::START,
            counts: TransportCounts::default(),
            shared: Arc::default(),
        })
    }

    /// What it publishes once a second.
    pub fn shared(&self) -> Arc<Mutex<TransportCounts>> {
        Arc::clone(&self.shared)
    }

    /// What it counted so far.
    pub const fn counts(&self) -> &TransportCounts {
        &self.counts
    }

    /// Packets that were declared lost, and those of them that had arrived.
    pub fn losses(&self) -> (u64, u64) {
        let stats = self.endpoint.sessions().filter_map(|key| self.endpoint.session_stats(key));
        stats.fold((0, 0), |(lost, late), stats| {
            (lost + stats.packets_lost, late + stats.packets_late)
        })
    }

    /// Sends a message that must arrive to every session.
    pub fn tell_all(&mut self, now: Timestamp, bytes: &[u8]) {
        for slot in 0..self.slots.len() {
            for index in 0..self.slots.get(slot).map_or(0, Vec::len) {
                let session = self.slots.get(slot).and_then(|slot| slot.get(index)).copied();
                if let Some(session) = session {
                    // A full queue loses it, which the receiver's count shows.
                    let _ = self.endpoint.send(now, session, EVENTS, bytes);
                }
            }
        }
    }

    fn with_endpoint(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut Endpoint, &mut dyn FnMut(EndpointEvent<'_>)),
    ) {
        let Self { endpoint, slots, joined, counts, .. } = self;
        work(endpoint, &mut |event| match event {
            EndpointEvent::Established { session, cipher, .. } => {
                if let Some(slot) = slots.get_mut(*joined % SLOTS) {
                    slot.push(session);
                }
                *joined += 1;
                counts.sessions += 1;
                counts.cipher = Some(cipher);
            }
            EndpointEvent::Message { channel: INPUT, bytes, .. } => {
                counts.inputs += 1;
                if let Some(latency) =
                    slot_of_input(bytes).and_then(|slot_us| elapsed_since_wire(now, slot_us))
                {
                    counts.up.record(latency);
                }
            }
            EndpointEvent::Message { channel: EVENTS, bytes, .. } => {
                counts.events += 1;
                if let Some(sent_at) = sent_at(bytes) {
                    counts.event_latency.record(now.since(sent_at));
                }
            }
            EndpointEvent::Closed { session, .. } => {
                for slot in slots.iter_mut() {
                    slot.retain(|other| *other != session);
                }
                counts.sessions -= 1;
                counts.closed += 1;
            }
            _ => {}
        });
    }

    fn slot_at(&self, slot: u64) -> Timestamp {
        let (ticks, part) = (slot / u64::from(SLOTS_PER_TICK), slot % u64::from(SLOTS_PER_TICK));
        let tick = tick_duration();
        let nanos = u64::try_from(tick.as_nanos()).unwrap_or(0).saturating_mul(ticks);
        let at = self.base.unwrap_or_default().after(Duration::from_nanos(nanos));
        at.after(tick / SLOTS_PER_TICK * part as u32)
    }

    fn sessions_of(&self, slot: u64) -> &[SessionKey] {
        self.slots.get((slot % SLOTS as u64) as usize).map(Vec::as_slice).unwrap_or_default()
    }

    /// Sends states whose slot has come, until `out` is full or no buffer is left.
    fn send_states(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        while self.base.is_some() && self.state_bytes > 0 && out.room() > 0 {
            let slot_at = self.slot_at(self.slot);
            if now < slot_at {
                return;
            }
            let sessions = self.sessions_of(self.slot);
            let Some(session) = sessions.get(self.position).copied() else {
                self.counts.late += u64::from(now.since(slot_at) > tick_duration());
                self.slot += 1;
                self.position = 0;
                continue;
            };
            if let Some(next) = sessions.get(self.position + AHEAD) {
                self.endpoint.prefetch(*next);
            }
            if let Some(next) = sessions.get(self.position + AHEAD / 2) {
                self.endpoint.prefetch_to_seal(*next);
            }
            if let Some(next) = sessions.get(self.position + AHEAD / 4) {
                self.endpoint.prefetch_records(*next);
            }
            let Some(mut packet) = pool.take() else { return };
            self.position += 1;
            self.counts.states += 1;
            let times = [wire_micros(slot_at), wire_micros(now)];
            let state_bytes = self.state_bytes;
            let written =
                self.endpoint.write_packet(now, session, STATE, 0, &mut packet, &mut |text| {
                    text.u32(times[0])?;
                    text.u32(times[1])?;
                    text.put(FILLING.get(..state_bytes.saturating_sub(8)).unwrap_or_default())
                });
            let sent = written.is_ok_and(|peer| {
                // There is room: the loop's condition says so.
                out.push(Datagram { peer, at: now, packet }).is_ok()
            });
            self.counts.unsent += u64::from(!sent);
        }
    }

    fn publish(&mut self, now: Timestamp) {
        if now >= self.published_at.after(COUNTERS_INTERVAL)
            && let Ok(mut shared) = self.shared.try_lock()
        {
            self.counts.at = now;
            self.counts.dropped = self.endpoint.stats().drops.total();
            shared.copy_from(&self.counts);
            self.published_at = now;
        }
    }
}

/// What states are filled with: it is sealed, so what it is does not matter.
static FILLING: [u8; 1_200] = [0x5a; 1_200];

/// When an input was scheduled: the second word of its message.
fn slot_of_input(message: &[u8]) -> Option<u32> {
    message.get(4..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// When a reliable message was sent, as [`event_bytes`] wrote it.
pub fn sent_at(message: &[u8]) -> Option<Timestamp> {
    message.first_chunk().map(|nanos| Timestamp::from_nanos(u64::from_le_bytes(*nanos)))
}

/// A reliable message that says when it was sent.
pub fn event_bytes(now: Timestamp) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(now.as_nanos().to_le_bytes()).for_each(|(out, byte)| *out = byte);
    bytes
}

impl Machine for TransportServer {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        let mut addressed = std::mem::take(&mut self.addressed);
        addressed.clear();
        addressed.extend(received.iter().map(|d| self.endpoint.addressed(&d.packet)));
        let wish = |endpoint: &Endpoint, at: usize| {
            let named = |ahead: usize| addressed.get(at + ahead).copied().flatten();
            if let Some(Addressed { session, .. }) = named(AHEAD) {
                endpoint.prefetch(session);
            }
            if let Some(addressed) = named(AHEAD / 2) {
                endpoint.prefetch_to_open(addressed);
            }
            if let Some(Addressed { session, .. }) = named(AHEAD / 4).filter(|named| named.acks) {
                endpoint.prefetch_records(session);
            }
        };
        self.with_endpoint(now, |endpoint, on_event| {
            let mut at = 0;
            while let Some(mut datagram) = received.pop() {
                wish(endpoint, at);
                let (peer, bytes) = (datagram.peer, &mut datagram.packet);
                endpoint.handle_datagram(now, peer, bytes, on_event);
                at += 1;
            }
        });
        self.addressed = addressed;
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.base.get_or_insert(now);
        if self.endpoint.poll_timeout().is_some_and(|at| now >= at) {
            self.with_endpoint(now, |endpoint, on_event| endpoint.handle_timeout(now, on_event));
        }
        self.publish(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.endpoint.poll_transmit(now, pool, out);
        self.send_states(now, pool, out);
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let Some(_) = self.base else { return Some(Timestamp::START) };
        let mut at = self.published_at.after(COUNTERS_INTERVAL);
        if self.state_bytes > 0 {
            at = at.min(self.slot_at(self.slot));
        }
        Some(self.endpoint.poll_timeout().map_or(at, |session| at.min(session)))
    }
}

/// A transport server on a thread of its own. It ends with the process.
pub struct TransportHandle {
    address: SocketAddr,
    report: SocketReport,
    epoch_nanos: u64,
    issuer: TokenIssuer,
    shared: Arc<Mutex<TransportCounts>>,
    thread: JoinHandle<Result<(), UdpError>>,
}

struct Started {
    address: SocketAddr,
    report: SocketReport,
    issuer: TokenIssuer,
    shared: Arc<Mutex<TransportCounts>>,
}

impl TransportHandle {
    /// Starts one at `address`.
    ///
    /// # Errors
    /// [`BenchError`] names what cannot be.
    pub fn start(
        address: SocketAddr,
        config: SessionConfig,
        state_bytes: usize,
    ) -> Result<Self, BenchError> {
        let epoch_nanos = ReactorEnv::clock_ns();
        let (tx, rx) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("transport".into()).spawn(move || {
            let env = match ReactorEnv::with_epoch(None, epoch_nanos) {
                Ok(env) => env,
                Err(error) => {
                    let _ = tx.send(Err(error.into()));
                    return Ok(());
                }
            };
            env.clone().block_on(async {
                match begin(&env, address, config, state_bytes).await {
                    Ok((mut server, mut socket, started)) => {
                        let _ = tx.send(Ok(started));
                        drive(&env, &mut socket, &mut server).await
                    }
                    Err(error) => {
                        let _ = tx.send(Err(error));
                        Ok(())
                    }
                }
            })
        })?;
        let ended = || std::io::Error::other("the server's thread ended at once");
        let Started { address, report, issuer, shared } = rx.recv().map_err(|_| ended())??;
        Ok(Self { address, report, epoch_nanos, issuer, shared, thread })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How its socket moves datagrams.
    pub const fn socket(&self) -> &SocketReport {
        &self.report
    }

    /// Where its clock starts.
    pub const fn epoch_nanos(&self) -> u64 {
        self.epoch_nanos
    }

    /// A token for `user`, as text.
    pub fn token(&self, user: UserId) -> String {
        let expires = SystemTime::now() + TOKEN_LIFETIME;
        let unix_s = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut secrets = twinspan_provider::OsSecrets;
        self.issuer.issue(&mut secrets, user, self.address, unix_s).to_text()
    }

    /// Copies the counters as last published.
    pub fn counts(&self, out: &mut TransportCounts) {
        out.copy_from(&lock(&self.shared));
    }

    /// Whether its thread has ended, which it does by a failure alone.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

async fn begin(
    env: &ReactorEnv,
    address: SocketAddr,
    config: SessionConfig,
    state_bytes: usize,
) -> Result<(TransportServer, <ReactorEnv as NetworkProvider>::Udp, Started), BenchError> {
    let options = UdpOptions { gather: GATHER, ..UdpOptions::default() };
    let socket = env.bind_udp(address, &options).await?;
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let unix_at_start_s = unix_now.saturating_sub(env.now().as_nanos() / 1_000_000_000);
    let mut secrets = env.secrets();
    let identity = ServerIdentity::new(secrets.as_mut());
    let tokens = TokenKey::new(secrets.as_mut());
    let issuer = TokenIssuer::new(tokens.clone(), identity.public_key());
    let server = TransportServer::new(
        config,
        Arc::new(CryptoSuite::detect()),
        TransportKeys { identity, tokens },
        secrets,
        env.stream("session", 0),
        unix_at_start_s,
        state_bytes,
    )
    .map_err(|error| BenchError::Plan(error.to_string()))?;
    let started = Started {
        address: socket.local_addr(),
        report: socket.report(),
        issuer,
        shared: server.shared(),
    };
    Ok((server, socket, started))
}
