//! Streams of topics over QUIC connections: quinn's protocol machine on a socket of our own.
//!
//! //= hub 11.1

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, Incoming,
    ServerConfig, StreamEvent, StreamId, Transmit, VarInt,
};
use rustix::event::epoll;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use super::parts::{
    Beside, CONNECTIONS_MAX, Conn, Connector, FILLS_MAX, REBIND_AFTER, RECEIVES_MAX, SENDS_MAX,
    Slot, Stage, Wanted, ZeroRtt, until,
};
use super::socket::{Came, Socket, folded};
use crate::effect::SettingReport;
use crate::stream::carrier::{GREETING_TIMEOUT, RECONNECT_MAX};
use crate::stream::core::{Carrier, Seats};
use crate::stream::loose;
use crate::stream::open::Told;
use crate::stream::wire::Door;
use crate::system::any_like;

/// Streams over QUIC.
pub(crate) struct QuicCarrier {
    pub(super) epoll: Arc<OwnedFd>,
    pub(super) socket: Socket,
    endpoint: Endpoint,
    started: Instant,
    pub(super) conns: BTreeMap<usize, Conn>,
    pub(super) connector: Option<Connector>,
    /// Topics of a listener whose first words may come before the handshake ended.
    pub(super) idempotent: Vec<usize>,
    pub(super) random: Stream,
    /// Where packets are written.
    buffer: Vec<u8>,
    /// Where what goes beside a stream is put together.
    pub(super) datagram: Vec<u8>,
    /// A run that found no room, with its bytes.
    waiting: Option<(Transmit, Vec<u8>)>,
    /// When a datagram came last, or another socket was taken.
    heard_at: Timestamp,
    socket_buffer_bytes: usize,
    /// After so much silence a connector goes on from another socket.
    pub(super) rebind_after: Duration,
    pub(super) now: Timestamp,
}

impl QuicCarrier {
    pub(super) fn new(
        socket: Socket,
        server: Option<Arc<ServerConfig>>,
        seed: u64,
        started: Instant,
        socket_buffer_bytes: usize,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        let mut config = EndpointConfig::default();
        // A listener may share its port with datagrams of our own, which lack the bit that others would
        // leave out too if they were told that they may (RFC 9443, RFC 9287).
        config.grease_quic_bit(server.is_none());
        let config = Arc::new(config);
        let endpoint = Endpoint::new(config, server, !socket.may_fragment(), None);
        Ok(Self {
            epoll: Arc::new(epoll),
            socket,
            endpoint,
            started,
            conns: BTreeMap::new(),
            connector: None,
            idempotent: Vec::new(),
            random: Stream::new(seed, "hub-reconnect", 0),
            buffer: Vec::with_capacity(64 << 10),
            datagram: Vec::with_capacity(2 << 10),
            waiting: None,
            heard_at: Timestamp::START,
            socket_buffer_bytes,
            rebind_after: REBIND_AFTER,
            now: Timestamp::START,
        })
    }

    /// Goes on from another socket: the old one's address or way may be gone.
    pub(super) fn rebind(&mut self) -> io::Result<()> {
        let old = self.socket.local_addr()?;
        let (socket, _) = Socket::bind(any_like(old), self.socket_buffer_bytes)?;
        // The old one leaves the set when it is closed.
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        self.socket = socket;
        self.waiting = None;
        for conn in self.conns.values_mut() {
            conn.connection.local_address_changed();
            conn.is_dirty = true;
        }
        Ok(())
    }

    /// A connector that has heard nothing for long tries from another socket.
    fn heal(&mut self) {
        let now = self.now;
        if now < self.rebind_at() {
            return;
        }
        self.heard_at = now;
        // Without another socket the old one stays, and the connection ends by its own time.
        let _ = self.rebind();
    }

    /// When a connector tries from another socket.
    fn rebind_at(&self) -> Timestamp {
        let conn = self.connector.as_ref().and_then(|it| it.conn);
        match conn.and_then(|index| self.conns.get(&index)) {
            Some(conn) if !conn.connection.is_handshaking() && !conn.is_lost => {
                self.heard_at.after(self.rebind_after)
            }
            _ => Timestamp::NEVER,
        }
    }

    /// A topic of a connector joins.
    pub(super) fn want(&mut self, seat: usize, is_idempotent: bool) {
        let Some(connector) = &mut self.connector else { return };
        connector.wanted.push(Wanted::new(seat, is_idempotent));
    }

    /// When a connection has something to do. What is dirty is due at once, unless it waits for room
    /// in the socket.
    fn due_at(&self, conn: &Conn) -> Timestamp {
        if conn.is_dirty && self.waiting.is_none() { self.now } else { conn.timeout }
    }

    /// What goes beside the streams of a connector's connection; `None` while there is none.
    pub(super) fn beside(&mut self) -> Option<Beside> {
        let conn = self.conns.get_mut(&self.connector.as_ref()?.conn?)?;
        if conn.connection.is_handshaking() {
            return None;
        }
        let max = conn.connection.datagrams().max_size();
        let body = max.and_then(|max| max.checked_sub(loose::HEAD_BYTES + loose::LENGTH_BYTES));
        Some(body.map_or(Beside::Nothing, Beside::UpTo))
    }

    fn instant(&self) -> Instant {
        self.started + Duration::from_nanos(self.now.as_nanos())
    }

    /// The moment as the machine above counts it; a moment late rather than early.
    fn timestamp(&self, at: Instant) -> Timestamp {
        let nanos = at.saturating_duration_since(self.started).as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes in what came. Who sent much hears of it before all of it was looked at.
    fn receive(&mut self, seats: &mut Seats) {
        for _ in 1..RECEIVES_MAX {
            if !self.receive_some() {
                return;
            }
            self.drive_all(seats, false);
        }
    }

    /// Receives with one call; true when more may be there.
    fn receive_some(&mut self) -> bool {
        let (now, heard) = (self.instant(), self.now);
        let mut answer = Vec::new();
        let Self { socket, endpoint, conns, heard_at, .. } = self;
        let (mut answers, mut strangers) = (Vec::new(), Vec::new());
        let received = socket.receive(|Came { from, to, ecn, bytes }| {
            answer.clear();
            match endpoint.handle(now, from, to, ecn, bytes, &mut answer) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(conn) = conns.get_mut(&handle.0) {
                        *heard_at = heard;
                        conn.connection.handle_event(event);
                        conn.is_dirty = true;
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => strangers.push(incoming),
                Some(DatagramEvent::Response(transmit)) => {
                    answers.push((transmit, answer.clone()));
                }
                None => {}
            }
        });
        for (transmit, bytes) in answers {
            // Like any datagram it may be lost.
            let _ = self.socket.send(&transmit, &bytes);
        }
        for incoming in strangers {
            self.meet(incoming);
        }
        // A socket that fails for good is seen by connections that go silent.
        received.unwrap_or(false)
    }

    /// Somebody wants a connection.
    fn meet(&mut self, incoming: Incoming) {
        let now = self.instant();
        let mut bytes = Vec::new();
        // Nothing is kept for an address that did not prove that it receives.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut bytes) {
                let _ = self.socket.send(&transmit, &bytes);
            }
            return;
        }
        if self.conns.len() >= CONNECTIONS_MAX {
            let transmit = self.endpoint.refuse(incoming, &mut bytes);
            let _ = self.socket.send(&transmit, &bytes);
            return;
        }
        match self.endpoint.accept(incoming, now, &mut bytes, None) {
            Ok((handle, connection)) => self.keep(handle, connection),
            Err(error) => {
                if let Some(transmit) = error.response {
                    let _ = self.socket.send(&transmit, &bytes);
                }
            }
        }
    }

    fn keep(&mut self, handle: ConnectionHandle, mut connection: Connection) {
        let room_beside = connection.datagrams().send_buffer_space();
        let conn = Conn {
            connection,
            slots: Vec::new(),
            timeout: Timestamp::START,
            is_lost: false,
            is_dirty: true,
            is_crowded: false,
            is_held: false,
            room_beside,
        };
        self.conns.insert(handle.0, conn);
    }

    /// Makes the connection of a connector, where it has none.
    fn connect(&mut self, seats: &mut Seats) {
        let (now, instant) = (self.now, self.instant());
        let Some(connector) = &mut self.connector else { return };
        if connector.conn.is_none() && now >= connector.next_at && !connector.wanted.is_empty() {
            connector.next_at = now.after(connector.backoff.next_delay(&mut self.random));
            let count = connector.addresses.len().max(1);
            let address = connector.addresses.get(connector.attempt % count).copied();
            connector.attempt = connector.attempt.wrapping_add(1);
            let Some(address) = address.map(folded) else { return };
            let config = connector.config.clone();
            let made = self.endpoint.connect(instant, config, address, &connector.server_name);
            match made {
                Ok((handle, connection)) => {
                    connector.conn = Some(handle.0);
                    let may = connection.has_0rtt();
                    connector.zero_rtt = if may { ZeroRtt::Sent } else { ZeroRtt::Unused };
                    self.keep(handle, connection);
                }
                Err(error) => connector.lost = Some(error.to_string()),
            }
        }
        self.open_streams(seats);
    }

    /// Opens a stream for each topic that has none.
    fn open_streams(&mut self, seats: &mut Seats) {
        let now = self.now;
        let Some(connector) = &mut self.connector else { return };
        let Some(conn) = connector.conn.and_then(|index| self.conns.get_mut(&index)) else {
            return;
        };
        let is_early = conn.connection.is_handshaking();
        if conn.is_lost || (is_early && connector.zero_rtt != ZeroRtt::Sent) {
            return;
        }
        for wanted in &mut connector.wanted {
            let may = wanted.stream.is_none()
                && now >= wanted.next_at
                && (!is_early || wanted.is_idempotent);
            if !may {
                continue;
            }
            let Some(topic) = seats.topic(wanted.seat) else { continue };
            if wanted.last_peer.is_some_and(|peer| topic.is_linked(peer)) {
                // It is spoken with in another way.
                wanted.next_at = now.after(RECONNECT_MAX);
                continue;
            }
            let Some(id) = conn.connection.streams().open(Dir::Bi) else { return };
            wanted.stream = Some(id);
            let hello = topic.hello(wanted.last_peer);
            let mut out = Vec::new();
            hello.write(&mut out);
            let said = Some((wanted.seat, hello.standing));
            let until = now.after(GREETING_TIMEOUT);
            let stage = Stage::Greeting { door: Door::default(), until, said };
            conn.slots.push(Slot { id, stage, out, out_sent: 0, is_blocked: false });
            conn.is_dirty = true;
        }
    }

    /// Handles what a connection has to tell, until it tells nothing.
    fn drive(&mut self, index: usize, seats: &mut Seats) {
        let (now, instant) = (self.now, self.instant());
        let Some(conn) = self.conns.get_mut(&index) else { return };
        if now >= conn.timeout {
            conn.connection.handle_timeout(instant);
        }
        // Before the streams: no message of these overtook them on the way.
        let early = self.read_beside(index, seats);
        loop {
            let Some(conn) = self.conns.get_mut(&index) else { return };
            while let Some(event) = conn.connection.poll_endpoint_events() {
                let answer = self.endpoint.handle_event(ConnectionHandle(index), event);
                if let Some(answer) = answer {
                    conn.connection.handle_event(answer);
                }
            }
            let Some(event) = conn.connection.poll() else { break };
            self.on_event(index, event, seats);
        }
        for datagram in early {
            // Its stream has said where it begins now, or it is missed.
            let _ = self.take_beside(index, &datagram, seats);
        }
        for fill in 1..=FILLS_MAX {
            self.write_all(index, seats);
            if let Some(conn) = self.conns.get_mut(&index) {
                conn.is_dirty = false;
            }
            self.send(index);
            let Some(conn) = self.conns.get_mut(&index) else { return };
            if !conn.may_go_on() {
                break;
            }
            conn.is_dirty |= fill == FILLS_MAX;
        }
        let Some(conn) = self.conns.get_mut(&index) else { return };
        let timeout = conn.connection.poll_timeout();
        let is_drained = conn.connection.is_drained();
        let timeout = timeout.map_or(Timestamp::NEVER, |at| self.timestamp(at));
        if let Some(conn) = self.conns.get_mut(&index) {
            conn.timeout = timeout;
        }
        if is_drained {
            while let Some(conn) = self.conns.get_mut(&index) {
                let Some(event) = conn.connection.poll_endpoint_events() else { break };
                let _ = self.endpoint.handle_event(ConnectionHandle(index), event);
            }
            self.conns.remove(&index);
        }
    }

    fn on_event(&mut self, index: usize, event: Event, seats: &mut Seats) {
        match event {
            Event::Connected => self.on_connected(index, seats),
            Event::ConnectionLost { reason } => self.on_lost(index, &reason.to_string(), seats),
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                let until = self.now.after(GREETING_TIMEOUT);
                let Some(conn) = self.conns.get_mut(&index) else { return };
                let mut opened = Vec::new();
                while let Some(id) = conn.connection.streams().accept(Dir::Bi) {
                    let stage = Stage::Greeting { door: Door::default(), until, said: None };
                    let (out, out_sent) = (Vec::new(), 0);
                    conn.slots.push(Slot { id, stage, out, out_sent, is_blocked: false });
                    opened.push(id);
                }
                for id in opened {
                    self.read(index, id, seats);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(index, id, seats),
            Event::Stream(StreamEvent::Writable { id }) => {
                if let Some(slot) = self.slot(index, id) {
                    slot.is_blocked = false;
                }
            }
            Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                if let Some(Stage::Closing { .. }) = self.slot(index, id).map(|slot| &slot.stage) {
                    // Whatever else comes is not looked at.
                    if let Some(conn) = self.conns.get_mut(&index) {
                        let _ = conn.connection.recv_stream(id).stop(VarInt::from_u32(0));
                    }
                    self.remove_slot(index, id);
                }
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, index: usize, seats: &mut Seats) {
        let Some(conn) = self.conns.get_mut(&index) else { return };
        let was_taken = conn.connection.accepted_0rtt();
        let ids: Vec<StreamId> = conn.slots.iter().map(|slot| slot.id).collect();
        if let Some(connector) = self.connector.as_mut().filter(|it| it.conn == Some(index)) {
            connector.backoff.reset();
            connector.lost = None;
            if connector.zero_rtt == ZeroRtt::Sent {
                if was_taken {
                    connector.zero_rtt = ZeroRtt::Taken;
                } else {
                    // The streams are gone with the words: they begin again.
                    connector.zero_rtt = ZeroRtt::Refused;
                    conn.slots.clear();
                    for wanted in &mut connector.wanted {
                        wanted.stream = None;
                    }
                }
            }
            self.open_streams(seats);
        } else {
            // What waited for the end of the handshake.
            for id in ids {
                self.read(index, id, seats);
            }
        }
    }

    fn on_lost(&mut self, index: usize, why: &str, seats: &mut Seats) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&index) else { return };
        conn.is_lost = true;
        for slot in std::mem::take(&mut conn.slots) {
            if let Stage::Up { seat, link } = slot.stage
                && let Some(topic) = seats.topic(seat)
            {
                topic.broke(now, link);
            }
        }
        if let Some(connector) = self.connector.as_mut().filter(|it| it.conn == Some(index)) {
            connector.conn = None;
            connector.lost = Some(why.to_owned());
            let delay = connector.backoff.next_delay(&mut self.random);
            connector.next_at = connector.next_at.max(now.after(delay));
            for wanted in &mut connector.wanted {
                wanted.stream = None;
            }
        }
    }

    /// Sends the packets of a connection.
    fn send(&mut self, index: usize) {
        let instant = self.instant();
        if let Some((transmit, bytes)) = &self.waiting {
            if !self.socket.send(transmit, bytes) {
                return;
            }
            self.waiting = None;
            self.tell_out(false);
        }
        for _ in 0..SENDS_MAX {
            let Some(conn) = self.conns.get_mut(&index) else { return };
            let run_max = self.socket.run_max(conn.connection.current_mtu());
            self.buffer.clear();
            let Some(transmit) = conn.connection.poll_transmit(instant, run_max, &mut self.buffer)
            else {
                return;
            };
            if !self.socket.send(&transmit, &self.buffer) {
                self.waiting = Some((transmit, self.buffer.clone()));
                self.tell_out(true);
                return;
            }
        }
        // There is more: at the next turn, which is at once.
        if let Some(conn) = self.conns.get_mut(&index) {
            conn.is_dirty = true;
        }
    }

    fn tell_out(&self, is_told: bool) {
        let mut flags = epoll::EventFlags::IN;
        if is_told {
            flags |= epoll::EventFlags::OUT;
        }
        // A failure leaves the run to the next turn.
        let _ = epoll::modify(&self.epoll, &self.socket, epoll::EventData::new_u64(0), flags);
    }

    fn drive_all(&mut self, seats: &mut Seats, is_all: bool) {
        let mut next = self.conns.keys().next().copied();
        while let Some(index) = next {
            next = self.conns.range(index + 1..).next().map(|(index, _)| *index);
            let Some(conn) = self.conns.get(&index) else { continue };
            if is_all || conn.is_dirty || self.now >= conn.timeout {
                self.drive(index, seats);
            }
        }
    }

    /// Streams that said nothing, or whose last words take too long.
    fn end_slow(&mut self) {
        let now = self.now;
        let late: Vec<(usize, StreamId)> = {
            let slots = self
                .conns
                .iter()
                .flat_map(|(index, conn)| conn.slots.iter().map(move |slot| (*index, slot)));
            let late = slots.filter(|(_, slot)| now >= until(&slot.stage));
            late.map(|(index, slot)| (index, slot.id)).collect()
        };
        for (index, id) in late {
            self.break_stream(index, id);
        }
    }
}

impl Carrier for QuicCarrier {
    fn look(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        for _ in 0..RECEIVES_MAX {
            let is_more = self.receive_some();
            self.drive_all(seats, false);
            // Messages are taken before more of them come.
            if !is_more || seats.each().any(|(_, seat)| seat.topic.has_messages()) {
                return;
            }
        }
    }

    fn turn(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        for (_, seat) in seats.each() {
            if now >= seat.topic.poll_timeout() {
                seat.topic.handle_timeout(now);
            }
        }
        self.receive(seats);
        self.end_slow();
        self.heal();
        self.connect(seats);
        self.drive_all(seats, true);
    }

    fn pump(&mut self, now: Timestamp, seats: &mut Seats, wanted: usize) {
        self.now = now;
        if self.conns.values().any(|conn| conn.is_crowded && conn.carries(wanted)) {
            // Room comes with acks, and who publishes without end looks for nothing else.
            self.receive_some();
        }
        let mut next = self.conns.keys().next().copied();
        while let Some(index) = next {
            next = self.conns.range(index + 1..).next().map(|(index, _)| *index);
            if self.conns.get(&index).is_some_and(|conn| conn.carries(wanted)) {
                self.drive(index, seats);
            }
        }
    }

    fn poll_timeout(&self) -> Timestamp {
        let of = |conn: &Conn| {
            let slots = conn.slots.iter().map(|slot| until(&slot.stage)).min();
            self.due_at(conn).min(slots.unwrap_or(Timestamp::NEVER))
        };
        let conns = self.conns.values().map(of).min().unwrap_or(Timestamp::NEVER);
        let conns = conns.min(self.rebind_at());
        let Some(connector) = &self.connector else { return conns };
        let Some(conn) = connector.conn else {
            return if connector.wanted.is_empty() { conns } else { conns.min(connector.next_at) };
        };
        let is_early = self.conns.get(&conn).is_none_or(|conn| conn.connection.is_handshaking());
        let streams = connector.wanted.iter().filter(|it| it.stream.is_none() && !is_early);
        conns.min(streams.map(|it| it.next_at).min().unwrap_or(Timestamp::NEVER))
    }

    fn urgent_at(&self) -> Timestamp {
        self.conns.values().map(|conn| self.due_at(conn)).min().unwrap_or(Timestamp::NEVER)
    }

    fn is_silent(&self, wanted: usize) -> bool {
        !self.conns.values().flat_map(|conn| &conn.slots).any(|slot| match slot.stage {
            Stage::Up { seat, .. } => seat == wanted,
            Stage::Closing { .. } => true,
            Stage::Greeting { .. } => false,
        })
    }

    fn vacate(&mut self, seats: &mut Seats, wanted: usize) {
        let now = self.now;
        let mut gone = Vec::new();
        for (index, conn) in &self.conns {
            for slot in &conn.slots {
                if let Stage::Up { seat, link } = slot.stage
                    && seat == wanted
                {
                    if let Some(topic) = seats.topic(seat) {
                        topic.broke(now, link);
                    }
                    gone.push((*index, slot.id));
                }
            }
        }
        for (index, id) in gone {
            self.break_stream(index, id);
        }
        if let Some(connector) = &mut self.connector {
            connector.wanted.retain(|it| it.seat != wanted);
        }
        self.idempotent.retain(|seat| *seat != wanted);
    }

    fn close(&mut self) {
        let instant = self.instant();
        let indices: Vec<usize> = self.conns.keys().copied().collect();
        for index in indices {
            if let Some(conn) = self.conns.get_mut(&index) {
                conn.connection.close(instant, VarInt::from_u32(0), Bytes::new());
            }
            self.send(index);
        }
        self.conns.clear();
        // The address is free for others: from here on the socket is another, that nobody knows.
        let unspecified = SocketAddr::from(([127, 0, 0, 1], 0));
        if let Ok((socket, _)) = Socket::bind(unspecified, 0) {
            self.socket = socket;
        }
    }

    fn hang_up(&mut self) {
        self.connector = None;
    }

    fn last_peer(&self) -> Option<[u8; 16]> {
        self.connector.as_ref()?.wanted.first()?.last_peer
    }

    fn set_last_peer(&mut self, id: [u8; 16]) {
        let wanted = self.connector.as_mut().and_then(|it| it.wanted.first_mut());
        wanted.into_iter().for_each(|it| it.last_peer = Some(id));
    }

    fn settings(&self) -> Vec<SettingReport> {
        vec![self.socket.buffers(self.socket_buffer_bytes)]
    }

    fn told(&self, seat: usize) -> Option<Told> {
        let wanted = self.connector.as_ref()?.wanted.iter().find(|it| it.seat == seat)?;
        wanted.told.clone()
    }
}
