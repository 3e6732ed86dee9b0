//! The attackers: strangers that change, cut, join, repeat and move what they captured, and traitors
//! whose packets are authentic.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use twinspan_core::aead::AeadSuite;
use twinspan_core::fuzz::Mutator;
use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_session::{
    ClientSession, ClientState, PACKET_BYTES_MAX, SessionConfig, TokenIssuer, UserId,
};

use super::SERVER;
use super::honest::TOKEN_LIFETIME_S;
use super::network::Network;
use crate::config::session_defaults;
use crate::wire::{EVENTS, INPUT};

/// How many kinds of hostile datagrams there are.
pub const KINDS: usize = 9;
/// Their names.
pub const KIND_NAMES: [&str; KINDS] =
    ["flipped", "cut", "joined", "repeated", "moved", "noise", "hello", "ill-formed", "violating"];
/// Shares of the kinds, of 1,024; what is left goes to the first. Authentic ones come while a
/// traitor is connected.
const SHARES: [u64; KINDS] = [0, 120, 120, 120, 100, 120, 24, 64, 3];
/// Captured datagrams that are kept, the newest.
const CAPTURED: usize = 512;
/// Captured handshake messages among them.
const CAPTURED_HELLOS: usize = 32;
/// Addresses in 172.16.0.0/12 from which strangers send.
const STRANGERS: u64 = 1 << 20;
/// What a traitor leaves of one session after so many packets.
const PACKETS_PER_SESSION: u32 = 4_000;
/// A traitor comes back after this pause.
const COME_BACK: Duration = Duration::from_millis(50);
/// The first user number of traitors.
const USER_FIRST: u64 = 1 << 32;

const FLIPPED: usize = 0;
const CUT: usize = 1;
const JOINED: usize = 2;
const REPEATED: usize = 3;
const MOVED: usize = 4;
const NOISE: usize = 5;
const HELLO: usize = 6;
const ILL_FORMED: usize = 7;
const VIOLATING: usize = 8;

/// A datagram that was overheard.
struct Captured {
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// A client with a good token.
struct Traitor {
    session: Option<ClientSession>,
    address: SocketAddr,
    packets: u32,
    back_at: Timestamp,
}

/// All attackers.
pub(super) struct Attack {
    mutator: Mutator,
    captured: Vec<Captured>,
    next: usize,
    hellos: Vec<Captured>,
    next_hello: usize,
    traitors: Vec<Traitor>,
    turn: usize,
    issuer: TokenIssuer,
    suites: Arc<dyn AeadSuite>,
    config: SessionConfig,
    login: Stream,
    seed: u64,
    sessions: u64,
    ended: bool,
    made: [u64; KINDS],
    answers: (u64, u64),
    stranger_bytes: u64,
    batch: DatagramBatch,
    text: Vec<u8>,
}

impl Attack {
    pub(super) fn new(
        traitors: u32,
        seed: u64,
        issuer: TokenIssuer,
        suites: Arc<dyn AeadSuite>,
    ) -> Self {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let traitor =
            |_| Traitor { session: None, address: nobody, packets: 0, back_at: Timestamp::START };
        Self {
            mutator: Mutator::new(seed, 0),
            captured: Vec::with_capacity(CAPTURED),
            next: 0,
            hellos: Vec::with_capacity(CAPTURED_HELLOS),
            next_hello: 0,
            traitors: (0..traitors).map(traitor).collect(),
            turn: 0,
            issuer,
            suites,
            config: session_defaults(),
            login: Stream::new(seed, "traitors' login", 0),
            seed,
            sessions: 0,
            ended: false,
            made: [0; KINDS],
            answers: (0, 0),
            stranger_bytes: 0,
            batch: DatagramBatch::new(16),
            text: Vec::new(),
        }
    }

    /// Overhears what a client sends.
    pub(super) fn capture(&mut self, datagram: &Datagram) {
        let is_hello = datagram.packet.starts_with(&[0; 4]);
        let (kept, next, most) = if is_hello {
            (&mut self.hellos, &mut self.next_hello, CAPTURED_HELLOS)
        } else {
            (&mut self.captured, &mut self.next, CAPTURED)
        };
        if kept.len() < most {
            let bytes = datagram.packet.to_vec();
            kept.push(Captured { from: datagram.peer, bytes });
        } else if let Some(place) = kept.get_mut(*next % most) {
            place.from = datagram.peer;
            place.bytes.clear();
            place.bytes.extend_from_slice(&datagram.packet);
            *next += 1;
        }
    }

    /// Makes hostile datagrams until `out` is full or `most` are made, and says how many.
    pub(super) fn fill(
        &mut self,
        now: Timestamp,
        pool: &PacketPool,
        out: &mut DatagramBatch,
        most: u64,
    ) -> u64 {
        let mut made = 0;
        while made < most && out.room() > 0 {
            let Some(mut packet) = pool.take() else { break };
            let kind = self.pick();
            let (kind, peer, len) = self.write(kind, packet.room_mut());
            packet.set_len(len);
            self.made[kind] += 1;
            if kind < ILL_FORMED {
                self.stranger_bytes += len as u64;
            }
            // There is room: the loop's condition says so.
            let _ = out.push(Datagram { peer, at: now, packet });
            made += 1;
        }
        made
    }

    fn pick(&mut self) -> usize {
        let mut draw = self.mutator.random().below(1_024);
        for (kind, share) in SHARES.iter().enumerate() {
            if draw < *share {
                return kind;
            }
            draw -= share;
        }
        FLIPPED
    }

    /// Writes a datagram of a kind, or of another where that one cannot be now.
    fn write(&mut self, kind: usize, room: &mut [u8]) -> (usize, SocketAddr, usize) {
        if kind >= ILL_FORMED
            && let Some((from, len)) = self.write_authentic(kind == VIOLATING, room)
        {
            return (kind, from, len);
        }
        let Self { mutator, captured, hellos, .. } = self;
        let random = mutator.random();
        let kind = if kind >= ILL_FORMED { FLIPPED } else { kind };
        let pool = if kind == HELLO && !hellos.is_empty() { hellos } else { captured };
        let [one, other] = [0; 2].map(|_| random.below(pool.len().max(1) as u64) as usize);
        let (Some(one), Some(other)) = (pool.get(one), pool.get(other)) else {
            let len = noise(random, &[], room);
            return (NOISE, stranger(random), len);
        };
        let from = if random.below(4) == 0 { stranger(random) } else { one.from };
        let mut len = copy(&one.bytes, room);
        match kind {
            CUT => len = random.below(len as u64 + 1) as usize,
            JOINED => {
                let (at, behind) =
                    (random.below(len as u64 + 1), random.below(other.bytes.len() as u64));
                let rest = other.bytes.get(behind as usize..).unwrap_or_default();
                len = at as usize + copy(rest, room.get_mut(at as usize..).unwrap_or_default());
            }
            REPEATED => return (kind, one.from, len),
            MOVED => {
                let to = if random.below(2) == 0 { other.from } else { stranger(random) };
                return (kind, to, len);
            }
            NOISE => len = noise(random, &one.bytes, room),
            _ => mutator.change(room.get_mut(..len).unwrap_or_default(), &other.bytes),
        }
        (kind, from, len)
    }

    /// Seals an ill-formed text with a traitor's key; `None` while none is connected.
    fn write_authentic(&mut self, violating: bool, room: &mut [u8]) -> Option<(SocketAddr, usize)> {
        let count = self.traitors.len().max(1);
        self.turn = (self.turn + 1) % count;
        let Self { traitors, mutator, text, turn, captured, .. } = self;
        let traitor = traitors.get_mut(*turn)?;
        let session = traitor.session.as_mut()?;
        let (channel, flags) = if violating {
            violating_text(mutator, text)
        } else {
            (ill_formed_text(mutator, captured, text), 0)
        };
        let packet = session.seal_text(channel, flags, text)?;
        traitor.packets += 1;
        Some((traitor.address, copy(&packet, room)))
    }

    /// Lets traitors whose session ended come back with another token, from another network.
    pub(super) fn replace_traitors(&mut self, now: Timestamp) {
        for index in 0..self.traitors.len() {
            let Some(traitor) = self.traitors.get_mut(index) else { return };
            let over = traitor.session.as_ref().is_none_or(|session| {
                matches!(session.state(), ClientState::Closing | ClientState::Closed { .. })
            });
            if !over && traitor.packets < PACKETS_PER_SESSION {
                continue;
            }
            if traitor.session.take().is_some() {
                traitor.back_at = now.after(COME_BACK);
            }
            if now >= traitor.back_at {
                self.come_back(index, now);
            }
        }
    }

    fn come_back(&mut self, index: usize, now: Timestamp) {
        let number = self.sessions;
        let user = UserId(USER_FIRST + number);
        let expires_at_s = now.as_nanos() / 1_000_000_000 + TOKEN_LIFETIME_S;
        let token = self.issuer.issue(&mut self.login, user, SERVER, expires_at_s);
        let stream = |name| Stream::new(self.seed, name, USER_FIRST + number);
        let (secrets, jitter) = (Box::new(stream("client secrets")), stream("client"));
        let (config, suites) = (self.config.clone(), Arc::clone(&self.suites));
        let session = ClientSession::new(config, suites, &token, SERVER, secrets, jitter);
        if let (Ok(session), Some(traitor)) = (session, self.traitors.get_mut(index)) {
            self.sessions += 1;
            traitor.session = Some(session);
            traitor.packets = 0;
            // A network of its own each time, so that no rule by source ends the attack.
            let base = u32::from(Ipv4Addr::new(11, 0, 0, 1));
            let ip = Ipv4Addr::from(base.wrapping_add((number as u32 & 0xffff) << 8));
            traitor.address = (ip, 6_000).into();
        }
    }

    /// Lets traitors' sessions speak the protocol between their ill-formed packets.
    pub(super) fn step(&mut self, now: Timestamp, pool: &PacketPool, network: &mut Network) {
        let Self { traitors, batch, .. } = self;
        for traitor in traitors {
            let Some(session) = &mut traitor.session else { continue };
            let address = traitor.address;
            while let Some(mut datagram) =
                network.next_for_client(now, |datagram| datagram.peer == address)
            {
                session.handle_datagram(now, &mut datagram.packet, &mut |_| {});
            }
            if session.poll_timeout().is_some_and(|at| at <= now) {
                session.handle_timeout(now, &mut |_| {});
            }
            session.poll_transmit(now, pool, batch);
            while let Some(datagram) = batch.pop() {
                if !self.ended {
                    network.send_to_server(now, Datagram { peer: address, ..datagram });
                }
            }
        }
        network.drop_due(now);
    }

    /// Traitors fall silent.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.traitors.iter_mut().for_each(|traitor| traitor.session = None);
    }

    pub(super) fn is_traitor(&self, address: SocketAddr) -> bool {
        self.traitors.iter().any(|traitor| traitor.address == address)
    }

    /// Sessions that traitors may hold at once: those they gave up end by their time-outs, those
    /// that were closed linger a few seconds.
    pub(super) fn sessions_max(&self) -> usize {
        let seconds = self.config.idle_timeout + self.config.close_linger_max;
        let each = seconds.as_millis() / COME_BACK.as_millis() + 2;
        self.traitors.len() * each as usize
    }

    pub(super) const fn sessions(&self) -> u64 {
        self.sessions
    }

    pub(super) const fn made(&self) -> [u64; KINDS] {
        self.made
    }

    pub(super) const fn count_answer(&mut self, bytes: usize) {
        self.answers.0 += 1;
        self.answers.1 += bytes as u64;
    }

    /// Packets and bytes that went to addresses of nobody, and the bytes that came from strangers.
    pub(super) const fn strangers(&self) -> ((u64, u64), u64) {
        (self.answers, self.stranger_bytes)
    }
}

fn copy(bytes: &[u8], room: &mut [u8]) -> usize {
    let len = bytes.len().min(room.len());
    room.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
    len
}

/// An address of nobody, in 172.16.0.0/12.
fn stranger(random: &mut Stream) -> SocketAddr {
    let base = u32::from(Ipv4Addr::new(172, 16, 0, 0));
    let ip = Ipv4Addr::from(base + random.below(STRANGERS) as u32);
    (ip, 1_024 + random.below(60_000) as u16).into()
}

/// Random bytes behind the first few of a captured datagram: an id that the server knows.
fn noise(random: &mut Stream, like: &[u8], room: &mut [u8]) -> usize {
    let len = random.below(160) as usize + 1;
    let known = random.below(15) as usize;
    for chunk in room.chunks_mut(8).take(len.div_ceil(8)) {
        let bytes = random.next_u64().to_le_bytes();
        copy(&bytes, chunk);
    }
    copy(like.get(..known.min(like.len())).unwrap_or_default(), room);
    len
}

/// A frame that the session takes and whose content the game refuses, most of the time.
fn ill_formed_text(mutator: &mut Mutator, captured: &[Captured], text: &mut Vec<u8>) -> u8 {
    let random = mutator.random();
    text.clear();
    let draw = random.next_u64();
    let channel = match draw & 3 {
        0 => EVENTS.to_byte(),
        1 => (draw >> 8) as u8 | 1,
        _ => INPUT.to_byte(),
    };
    if channel >> 6 != 0 {
        // A message number near what is expected; far ones are violations.
        text.extend([(draw >> 16 & 0x3f) as u8, 0]);
    }
    // An input in clear: what travelled in the same form, but for its first bytes.
    let like = captured.get((draw >> 32) as usize % captured.len().max(1));
    let len = (draw >> 24 & 0x7f) as usize;
    let body = like.map_or(&[][..], |like| like.bytes.as_slice());
    let from = text.len();
    text.extend(body.iter().copied().chain(std::iter::repeat(0)).take(len));
    mutator.change(text.get_mut(from..).unwrap_or_default(), body);
    channel
}

/// Any bytes under any flags.
fn violating_text(mutator: &mut Mutator, text: &mut Vec<u8>) -> (u8, u8) {
    let random = mutator.random();
    let draw = random.next_u64();
    let len = (draw >> 40) as usize % (PACKET_BYTES_MAX / 4);
    text.clear();
    text.extend((0..len).map(|_| random.next_u64() as u8));
    // Small numbers, as in honest frames, lead further into the decoders.
    for byte in text.iter_mut().take(12) {
        *byte &= 0x1f;
    }
    ((draw >> 8) as u8, (draw >> 16) as u8 & 0x7c)
}
