//! QUIC as a simulated road: streams of one connection over datagrams, which survives changes of
//! address, dies of silence and takes its streams along.
//!
//! It stands for what the hub needs of QUIC, not for its bytes: there are no keys here, and a word that
//! both ends know stands for them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_provider::{Machine, RandomProvider, TaskProvider, TimeProvider, drive};
use twinspan_reliable::{
    Ack, AckTracker, Channel, Config, Delivery, InFrame, Receiver, Sender, StreamId,
};
use twinspan_sim::{SimEnv, SimTask};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::datagrams::{CHECKSUM_BYTES, bind, opened};
use super::sockets::Woken;
use super::streams::Streams;
use super::{Bell, HubConfig, NAP_MIN};
use crate::stream::carrier::{Heed, Ready, Sockets};

/// Bytes of a datagram's body at most, and of a piece of a stream.
const BODY_BYTES_MAX: usize = 1_200;
const PIECE_BYTES_MAX: usize = 1_000;
/// Streams that a connection has in its life; then there is another connection.
const STREAMS_MAX: u8 = 56;
/// The channel of the first stream.
const STREAM_FIRST: u8 = 8;
/// Connections of a listener.
const CONNECTIONS_MAX: usize = 64;
/// Pieces of a connection that are on their way or wait at most.
const PIECES_MAX: usize = 128;
/// How long a connection may take to be made, and how often it is asked for meanwhile.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_INTERVAL: Duration = Duration::from_millis(200);
const CREDIT: Channel = Channel::new(Delivery::Ordered, StreamId::CONTROL);

const INITIAL: u8 = 0;
const ACCEPT: u8 = 1;
const DATA: u8 = 2;
const DATA_HEAD_BYTES: usize = 26;
const FRAME_HEAD_BYTES: usize = 5;
const PIECE_DATA: u8 = 0;
const PIECE_END: u8 = 1;

/// One stream of a connection.
struct Open {
    came: VecDeque<u8>,
    has_ended: bool,
    is_shut: bool,
    /// Wakes who has it.
    bell: Rc<Bell>,
}

/// A connection.
struct Connection {
    peer: SocketAddr,
    /// What the listener drew: packets of former connections mean nothing.
    word: Option<u64>,
    /// The other end knows the word.
    is_up: bool,
    is_lost: bool,
    began: Timestamp,
    asked_at: Timestamp,
    heard_at: Timestamp,
    said_at: Timestamp,
    sender: Sender,
    receiver: Receiver,
    tracker: AckTracker,
    next_packet: u64,
    largest_in: u64,
    streams: BTreeMap<u8, Open>,
    /// Streams that there were.
    next_stream: u8,
    seen: u64,
}

/// All connections of a socket.
pub(super) struct Connections {
    to: Option<SocketAddr>,
    idle_timeout: Duration,
    all: BTreeMap<u64, Connection>,
    /// Streams that came and were not taken.
    fresh: VecDeque<(u64, u8)>,
    listener: Rc<Bell>,
    /// Accepts that are to be sent.
    accepts: VecDeque<(SocketAddr, u64, u64)>,
    bell: Rc<Bell>,
    has_words: bool,
    draws: Stream,
    now: Timestamp,
}

fn engine() -> Config {
    Config {
        fragment_bytes_max: PIECE_BYTES_MAX + 1,
        frame_head_bytes: FRAME_HEAD_BYTES,
        message_bytes_max: PIECE_BYTES_MAX + 1,
        attempts_max: 1_000,
        ack_delay_max: Duration::from_millis(5),
        ..Config::default()
    }
}

fn channel(stream: u8) -> Option<Channel> {
    Some(Channel::new(Delivery::Ordered, StreamId::new(STREAM_FIRST + stream)?))
}

impl Connection {
    fn new(now: Timestamp, peer: SocketAddr, word: Option<u64>, id: u64) -> Self {
        let config = engine();
        Self {
            peer,
            word,
            is_up: false,
            is_lost: false,
            began: now,
            asked_at: Timestamp::NEVER,
            heard_at: now,
            said_at: now,
            sender: Sender::new(&config, Stream::new(id, "simulated quic", 0)),
            receiver: Receiver::new(&config),
            tracker: AckTracker::new(&config),
            next_packet: 0,
            largest_in: 0,
            streams: BTreeMap::new(),
            next_stream: 0,
            seen: 0,
        }
    }

    fn ring(&self) {
        self.streams.values().for_each(|stream| stream.bell.ring());
    }

    fn lose(&mut self) {
        if !self.is_lost {
            self.is_lost = true;
            twinspan_core::reachable!("a connection of streams was lost");
            self.ring();
        }
    }

    fn has_room(&self) -> bool {
        self.sender.unacknowledged() < PIECES_MAX
    }

    /// Writes a packet; the bytes of it.
    fn transmit(&mut self, now: Timestamp, id: u64, is_due: bool) -> Option<Vec<u8>> {
        let word = self.word.filter(|_| !self.is_lost)?;
        if let Some(credit) = self.receiver.poll_credit() {
            // A full queue of words ends the connection by silence.
            let _ = self.sender.send(now, CREDIT, &credit.to_le_bytes());
        }
        let ack_at = self.tracker.ack_due();
        let has_ack = ack_at.is_some_and(|at| at <= now);
        if !has_ack && !is_due && !self.sender.wants_to_send(now) {
            return None;
        }
        let mut rest = self.next_packet.to_le_bytes().to_vec();
        match ack_at.and_then(|_| self.tracker.build(now)) {
            Some(ack) => {
                rest.push(1);
                rest.extend(ack.largest.to_le_bytes());
                rest.extend((ack.delay.as_micros() as u32).to_le_bytes());
                // A bitmap has 128 bytes at most.
                rest.push(ack.bitmap_bytes() as u8);
                rest.extend((0..ack.bitmap_bytes()).map(|at| ack.bitmap_byte(at)));
                self.tracker.on_ack_sent(now);
            }
            None => rest.push(0),
        }
        let mut has_frames = false;
        while let Some(room) = (BODY_BYTES_MAX - DATA_HEAD_BYTES).checked_sub(rest.len())
            && let Some(frame) = self.sender.poll_frame(now, room)
        {
            rest.push(frame.channel.to_byte());
            rest.extend((frame.number.unwrap_or(0) as u16).to_le_bytes());
            rest.extend((frame.body.len() as u16).to_le_bytes());
            rest.extend_from_slice(frame.body);
            has_frames = true;
        }
        if !has_frames && !is_due && !has_ack {
            return None;
        }
        let mut body = vec![DATA];
        body.extend(id.to_le_bytes());
        body.extend(xxh3_64_with_seed(&rest, word).to_le_bytes());
        body.extend(rest);
        self.sender.on_sent(now, self.next_packet, 0, body.len(), false);
        self.next_packet += 1;
        self.said_at = now;
        Some(body)
    }

    /// Takes in a packet that is of this connection.
    fn handle(&mut self, now: Timestamp, from: SocketAddr, rest: &[u8]) -> Option<Vec<u8>> {
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let number = u64::from_le_bytes(*number);
        if number >= self.largest_in {
            twinspan_core::sometimes!(self.peer != from, "a connection went on from elsewhere");
            (self.peer, self.largest_in) = (from, number);
        }
        self.heard_at = now;
        self.is_up = true;
        let (has_ack, mut rest) = rest.split_first()?;
        if *has_ack == 1 {
            let (head, behind) = rest.split_first_chunk::<13>()?;
            let [largest @ .., d0, d1, d2, d3, bytes] = *head;
            let delay = Duration::from_micros(u64::from(u32::from_le_bytes([d0, d1, d2, d3])));
            let (bitmap, behind) = behind.split_at_checked(usize::from(bytes))?;
            let ack = Ack::from_bitmap(u64::from_le_bytes(largest), delay, bitmap)?;
            self.sender.handle_ack(now, &ack, &mut |_, _| {}).ok()?;
            rest = behind;
        }
        let is_eliciting = !rest.is_empty();
        let mut touched = Vec::new();
        while let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() {
            let [channel, n0, n1, b0, b1] = *head;
            let (body, behind) =
                behind.split_at_checked(usize::from(u16::from_le_bytes([b0, b1])))?;
            let number = u16::from_le_bytes([n0, n1]);
            let channel = Channel::from_byte(channel);
            let frame = InFrame { channel, number, fragment: None, body };
            let Self { receiver, sender, streams, .. } = self;
            let taken = receiver.handle_frame(now, frame, &mut |channel, bytes| {
                if channel == CREDIT {
                    let credit = bytes.try_into().map(u64::from_le_bytes);
                    sender.handle_credit(credit.unwrap_or(0));
                    return;
                }
                let stream = channel.stream.get().saturating_sub(STREAM_FIRST);
                touched.push(stream);
                if let (Some(open), Some((kind, bytes))) =
                    (streams.get_mut(&stream), bytes.split_first())
                {
                    open.came.extend(bytes);
                    open.has_ended |= *kind == PIECE_END;
                    open.bell.ring();
                }
            });
            taken.ok()?;
            rest = behind;
        }
        self.tracker.on_packet(now, number, is_eliciting, false);
        Some(touched)
    }

    /// Makes places for streams that a packet begins, before it is taken in.
    fn meet(&mut self, rest: &[u8], bell: &Rc<Bell>) -> Vec<u8> {
        let mut met = Vec::new();
        let mut frames = frames_of(rest).unwrap_or_default();
        while let Some((head, behind)) = frames.split_first_chunk::<FRAME_HEAD_BYTES>() {
            let [channel, _, _, b0, b1] = *head;
            let length = usize::from(u16::from_le_bytes([b0, b1]));
            let Some((_, behind)) = behind.split_at_checked(length) else { break };
            frames = behind;
            let channel = Channel::from_byte(channel);
            let Some(stream) = channel.stream.get().checked_sub(STREAM_FIRST) else { continue };
            if stream < STREAMS_MAX && self.seen & 1 << stream == 0 {
                self.seen |= 1 << stream;
                self.streams.insert(stream, Open::new(bell));
                met.push(stream);
            }
        }
        met
    }
}

/// What is behind number and ack.
fn frames_of(rest: &[u8]) -> Option<&[u8]> {
    let (_, rest) = rest.split_first_chunk::<8>()?;
    let (has_ack, rest) = rest.split_first()?;
    if *has_ack == 0 {
        return Some(rest);
    }
    let (head, behind) = rest.split_first_chunk::<13>()?;
    behind.get(usize::from(*head.last()?)..)
}

impl Open {
    fn new(bell: &Rc<Bell>) -> Self {
        Self { came: VecDeque::new(), has_ended: false, is_shut: false, bell: Rc::clone(bell) }
    }
}

impl Connections {
    fn handle(&mut self, now: Timestamp, from: SocketAddr, body: &[u8]) -> Option<()> {
        let (kind, rest) = body.split_first()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let id = u64::from_le_bytes(*id);
        match *kind {
            INITIAL if self.to.is_none() => {
                let is_known = self.all.contains_key(&id);
                if !is_known && self.all.len() >= CONNECTIONS_MAX {
                    return None;
                }
                let word = self.draws.next_u64();
                let made = || Connection::new(now, from, Some(word), id);
                let word = self.all.entry(id).or_insert_with(made).word?;
                self.accepts.push_back((from, id, word));
            }
            ACCEPT if self.to == Some(from) => {
                let word = u64::from_le_bytes(*rest.first_chunk::<8>()?);
                let connection = self.all.get_mut(&id)?;
                if connection.word.is_none() {
                    connection.word = Some(word);
                    connection.is_up = true;
                    connection.heard_at = now;
                    connection.ring();
                }
            }
            DATA => {
                let (tag, rest) = rest.split_first_chunk::<8>()?;
                let connection = self.all.get_mut(&id).filter(|it| !it.is_lost)?;
                let tag_is_good = connection
                    .word
                    .is_some_and(|word| xxh3_64_with_seed(rest, word).to_le_bytes() == *tag);
                if !tag_is_good {
                    return None;
                }
                if self.to.is_none() {
                    let met = connection.meet(rest, &self.listener);
                    self.fresh.extend(met.into_iter().map(|stream| (id, stream)));
                    self.listener.ring();
                }
                if connection.handle(now, from, rest).is_none() {
                    connection.lose();
                } else if connection.has_room() {
                    connection.ring();
                }
            }
            _ => {}
        }
        Some(())
    }

    /// What is overdue.
    fn look(&mut self, now: Timestamp) {
        for connection in self.all.values_mut() {
            if connection.sender.poll_timeout().is_some_and(|at| at <= now) {
                connection.sender.handle_timeout(now);
            }
            if now >= connection.ends_at(self.idle_timeout) || connection.sender.is_dead() {
                connection.lose();
            }
        }
        self.all.retain(|_, it| !it.is_lost || !it.streams.is_empty());
    }

    fn next_body(&mut self, now: Timestamp) -> Option<(SocketAddr, Vec<u8>)> {
        if let Some((to, id, word)) = self.accepts.pop_front() {
            let mut body = vec![ACCEPT];
            body.extend(id.to_le_bytes());
            body.extend(word.to_le_bytes());
            return Some((to, body));
        }
        let keepalive = self.idle_timeout / 6;
        for (id, connection) in &mut self.all {
            if connection.word.is_none() && !connection.is_lost {
                let asks = connection.asked_at == Timestamp::NEVER
                    || now >= connection.asked_at.after(HANDSHAKE_INTERVAL);
                if asks {
                    connection.asked_at = now;
                    let mut body = vec![INITIAL];
                    body.extend(id.to_le_bytes());
                    return Some((connection.peer, body));
                }
            }
            let is_due = connection.is_up && now >= connection.said_at.after(keepalive);
            if let Some(body) = connection.transmit(now, *id, is_due) {
                return Some((connection.peer, body));
            }
        }
        None
    }

    /// A stream to the other end, on the connection that there is or a new one.
    fn open(&mut self, now: Timestamp, peer: SocketAddr, bell: &Rc<Bell>) -> (u64, u8) {
        let usable = |it: &&mut Connection| !it.is_lost && it.next_stream < STREAMS_MAX;
        let found = self.all.iter_mut().find_map(|(id, it)| Some((*id, Some(it).filter(usable)?)));
        let (id, connection) = match found {
            Some(found) => found,
            None => {
                let id = self.draws.next_u64();
                let made = || Connection::new(now, peer, None, id);
                (id, self.all.entry(id).or_insert_with(made))
            }
        };
        let stream = connection.next_stream;
        connection.next_stream += 1;
        connection.streams.insert(stream, Open::new(bell));
        self.speak();
        (id, stream)
    }

    /// There may be something to send.
    fn speak(&mut self) {
        self.has_words = true;
        self.bell.ring();
    }
}

impl Connection {
    /// When it is given up.
    fn ends_at(&self, idle_timeout: Duration) -> Timestamp {
        let idle = self.heard_at.after(idle_timeout);
        if self.is_up { idle } else { idle.min(self.began.after(HANDSHAKE_TIMEOUT)) }
    }
}

impl Machine for Connections {
    fn handle_datagrams(&mut self, now: Timestamp, received: &mut DatagramBatch) {
        self.now = now;
        while let Some(datagram) = received.pop() {
            if let Some(body) = opened(&datagram.packet) {
                // What is of no connection, or of a former one, says nothing.
                let _ = self.handle(now, datagram.peer, body);
            }
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        self.look(now);
    }

    fn poll_transmit(&mut self, now: Timestamp, pool: &PacketPool, out: &mut DatagramBatch) {
        self.now = now;
        while out.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let Some((peer, body)) = self.next_body(now) else { return };
            let length = body.len() + CHECKSUM_BYTES;
            let Some(place) = packet.room_mut().get_mut(..length) else { return };
            let (place, sum) = place.split_at_mut(body.len());
            place.copy_from_slice(&body);
            sum.copy_from_slice(&xxh3_64(&body).to_le_bytes());
            packet.set_len(length);
            // There is room.
            drop(out.push(Datagram { peer, at: now, packet }));
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let keepalive = self.idle_timeout / 6;
        let dues = self.all.values().map(|it| {
            let mut due = it.ends_at(self.idle_timeout);
            if it.word.is_none() {
                let asked = it.asked_at != Timestamp::NEVER;
                due = due.min(if asked { it.asked_at.after(HANDSHAKE_INTERVAL) } else { self.now });
            } else if it.is_up {
                due = due.min(it.said_at.after(keepalive));
            }
            due.min(it.sender.poll_timeout().unwrap_or(Timestamp::NEVER))
                .min(it.tracker.ack_due().unwrap_or(Timestamp::NEVER))
        });
        // Nobody is called twice in one moment.
        dues.min().map(|due| due.max(self.now.after(NAP_MIN)))
    }

    fn poll_command(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.set(cx.waker());
        if std::mem::take(&mut self.has_words) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A simulated socket of QUIC.
pub(crate) struct Endpoint {
    env: SimEnv,
    connections: Rc<RefCell<Connections>>,
}

impl Endpoint {
    /// Binds, at a port or to go to `to`.
    pub(crate) async fn open(
        env: &SimEnv,
        (local, to): (SocketAddr, Option<SocketAddr>),
        config: &HubConfig,
    ) -> (Self, SimTask) {
        let mut socket = bind(env, local, config.pool).await;
        let connections = Connections {
            to,
            idle_timeout: config.idle_timeout,
            all: BTreeMap::new(),
            fresh: VecDeque::new(),
            listener: Rc::new(Bell::default()),
            accepts: VecDeque::new(),
            bell: Rc::new(Bell::default()),
            has_words: false,
            draws: Stream::new(env.now().as_nanos(), "simulated quic words", secret(env)),
            now: env.now(),
        };
        let connections = Rc::new(RefCell::new(connections));
        let (task_env, mut machine) = (env.clone(), Rc::clone(&connections));
        let task = env.spawn("quic", async move {
            // It ends with its host.
            let _ = drive(&task_env, &mut socket, &mut machine).await;
        });
        (Self { env: env.clone(), connections }, task)
    }

    /// What carries the streams of topics on it.
    pub(crate) fn streams(&self, seed: u64) -> (Rc<Streams<QuicSockets>>, SimTask) {
        let is_listener = self.connections.borrow().to.is_none();
        let bell = if is_listener {
            Rc::clone(&self.connections.borrow().listener)
        } else {
            Rc::new(Bell::default())
        };
        let sockets = QuicSockets {
            env: self.env.clone(),
            connections: Rc::clone(&self.connections),
            bell,
            places: 0,
            has_moved: Cell::new(false),
        };
        Streams::start(&self.env, sockets, seed)
    }
}

/// A number that no other start of a host has.
fn secret(env: &SimEnv) -> u64 {
    let mut bytes = [0; 8];
    env.secrets().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Streams of simulated connections, as the carrier has sockets of this machine.
pub(crate) struct QuicSockets {
    env: SimEnv,
    connections: Rc<RefCell<Connections>>,
    bell: Rc<Bell>,
    places: usize,
    has_moved: Cell<bool>,
}

/// One of them. Dropping it forgets what has not been read.
pub(crate) struct QuicStream {
    connections: Rc<RefCell<Connections>>,
    id: u64,
    stream: u8,
}

impl QuicStream {
    /// Does something with the stream; an error where its connection is lost.
    fn with<R>(&self, act: impl FnOnce(&mut Connection, u8) -> io::Result<R>) -> io::Result<R> {
        let mut connections = self.connections.borrow_mut();
        let connection = connections.all.get_mut(&self.id).filter(|it| !it.is_lost);
        let outcome = act(connection.ok_or(io::ErrorKind::ConnectionReset)?, self.stream)?;
        Ok(outcome)
    }
}

/// Says that a stream ends.
fn finish(now: Timestamp, connection: &mut Connection, stream: u8) {
    if let Some(open) = connection.streams.get_mut(&stream)
        && !std::mem::replace(&mut open.is_shut, true)
        && let Some(channel) = channel(stream)
    {
        // Without room for it the other end learns by silence.
        let _ = connection.sender.send(now, channel, &[PIECE_END]);
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        let mut connections = self.connections.borrow_mut();
        let now = connections.now;
        if let Some(connection) = connections.all.get_mut(&self.id) {
            finish(now, connection, self.stream);
            connection.streams.remove(&self.stream);
        }
        connections.speak();
    }
}

impl Woken for QuicSockets {
    fn bell(&self) -> &Rc<Bell> {
        &self.bell
    }

    fn take_progress(&mut self) -> bool {
        self.has_moved.take()
    }
}

impl Sockets for QuicSockets {
    type Stream = QuicStream;

    fn begin_connecting(&mut self, address: SocketAddr) -> io::Result<QuicStream> {
        let now = self.env.now();
        let (id, stream) = self.connections.borrow_mut().open(now, address, &self.bell);
        self.has_moved.set(true);
        Ok(QuicStream { connections: Rc::clone(&self.connections), id, stream })
    }

    fn is_made(&mut self, stream: &mut QuicStream) -> io::Result<bool> {
        stream.with(|connection, _| Ok(connection.is_up))
    }

    fn accept(&mut self) -> io::Result<QuicStream> {
        let fresh = self.connections.borrow_mut().fresh.pop_front();
        let (id, stream) = fresh.ok_or(io::ErrorKind::WouldBlock)?;
        self.has_moved.set(true);
        Ok(QuicStream { connections: Rc::clone(&self.connections), id, stream })
    }

    fn heed_listener(&mut self, _is_heeded: bool) {}

    fn watch(&mut self, place: usize, _stream: &QuicStream, _heed: Heed) -> io::Result<()> {
        self.places = self.places.max(place + 1);
        Ok(())
    }

    fn heed(&mut self, _place: usize, _stream: &QuicStream, _heed: Heed) -> io::Result<()> {
        Ok(())
    }

    fn ready(&mut self, ready: &mut Vec<Ready>) {
        ready.push(Ready::Listener);
        ready.extend((0..self.places).map(Ready::Stream));
    }

    fn read(&mut self, stream: &mut QuicStream, space: &mut [u8]) -> io::Result<usize> {
        let count = stream.with(|connection, number| {
            let open = connection.streams.get_mut(&number);
            let open = open.ok_or(io::ErrorKind::ConnectionReset)?;
            if open.came.is_empty() && !open.has_ended {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = open.came.len().min(space.len());
            for (place, byte) in space.iter_mut().zip(open.came.drain(..count)) {
                *place = byte;
            }
            Ok(count)
        })?;
        self.has_moved.set(true);
        Ok(count)
    }

    fn write(&mut self, stream: &mut QuicStream, pieces: &[&[u8]; 3]) -> io::Result<usize> {
        let now = self.env.now();
        let piece = pieces.iter().find(|piece| !piece.is_empty()).copied().unwrap_or_default();
        let piece = piece.get(..PIECE_BYTES_MAX).unwrap_or(piece);
        let count = stream.with(|connection, number| {
            let open = connection.streams.get(&number);
            if open.is_none_or(|open| open.is_shut) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if !connection.has_room() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut bytes = vec![PIECE_DATA];
            bytes.extend_from_slice(piece);
            let channel = channel(number).ok_or(io::ErrorKind::InvalidInput)?;
            let sent = connection.sender.send(now, channel, &bytes);
            sent.map_err(|_| io::ErrorKind::WouldBlock)?;
            Ok(piece.len())
        })?;
        self.connections.borrow_mut().speak();
        self.has_moved.set(true);
        Ok(count)
    }

    fn shut(&mut self, stream: &mut QuicStream) {
        let now = self.env.now();
        // Who is gone already hears nothing of it.
        let _ = stream.with(|connection, number| {
            finish(now, connection, number);
            Ok(())
        });
        self.connections.borrow_mut().speak();
    }

    fn close(&mut self) {}
}
