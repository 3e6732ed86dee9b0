//! Streams of topics over QUIC connections: quinn's protocol machine on a socket of our own.
//!
//! //= hub 11.1

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, Incoming,
    ServerConfig, StreamEvent, StreamId, Transmit, VarInt, WriteError,
};
use rustix::event::epoll;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use super::parts::{
    CLOSING_TIMEOUT, CONNECTIONS_MAX, Conn, Connector, REBIND_AFTER, RECEIVES_MAX, SENDS_MAX, Slot,
    Stage, Wanted, ZeroRtt, read_door, read_link, until,
};
use super::socket::{Came, Socket};
use crate::stream::carrier::{GREETING_TIMEOUT, RECONNECT_MAX};
use crate::stream::core::{Carrier, Seats};
use crate::stream::open::{self, Told};
use crate::stream::wire::{Door, Frame, Opened as Opening, Standing};
use crate::system::any_like;

/// Streams over QUIC.
pub(crate) struct QuicCarrier {
    pub(super) epoll: Arc<OwnedFd>,
    socket: Socket,
    endpoint: Endpoint,
    started: Instant,
    conns: BTreeMap<usize, Conn>,
    pub(super) connector: Option<Connector>,
    /// Topics of a listener whose first words may come before the handshake ended.
    pub(super) idempotent: Vec<usize>,
    random: Stream,
    /// Where packets are written.
    buffer: Vec<u8>,
    /// A run that found no room, with its bytes.
    waiting: Option<(Transmit, Vec<u8>)>,
    /// When a datagram came last, or another socket was taken.
    heard_at: Timestamp,
    socket_buffer_bytes: usize,
    now: Timestamp,
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
        let config = Arc::new(EndpointConfig::default());
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
            waiting: None,
            heard_at: Timestamp::START,
            socket_buffer_bytes,
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
                self.heard_at.after(REBIND_AFTER)
            }
            _ => Timestamp::NEVER,
        }
    }

    /// A topic of a connector joins.
    pub(super) fn want(&mut self, seat: usize, is_idempotent: bool) {
        let Some(connector) = &mut self.connector else { return };
        connector.wanted.push(Wanted::new(seat, is_idempotent));
    }

    fn instant(&self) -> Instant {
        self.started + std::time::Duration::from_nanos(self.now.as_nanos())
    }

    /// The moment as the machine above counts it; a moment late rather than early.
    fn timestamp(&self, at: Instant) -> Timestamp {
        let nanos = at.saturating_duration_since(self.started).as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn receive(&mut self) {
        let now = self.instant();
        let mut answer = Vec::new();
        for _ in 0..RECEIVES_MAX {
            let heard = self.now;
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
            if !received.unwrap_or(false) {
                return;
            }
        }
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

    fn keep(&mut self, handle: ConnectionHandle, connection: Connection) {
        let conn = Conn {
            connection,
            slots: Vec::new(),
            timeout: Timestamp::START,
            is_lost: false,
            is_dirty: true,
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
            let Some(address) = address else { return };
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
        self.write_all(index, seats);
        if let Some(conn) = self.conns.get_mut(&index) {
            conn.is_dirty = false;
        }
        self.send(index);
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

    fn slot(&mut self, index: usize, id: StreamId) -> Option<&mut Slot> {
        self.conns.get_mut(&index)?.slots.iter_mut().find(|slot| slot.id == id)
    }

    fn remove_slot(&mut self, index: usize, id: StreamId) {
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(&index) {
            conn.slots.retain(|slot| slot.id != id);
        }
        let Some(connector) = self.connector.as_mut().filter(|it| it.conn == Some(index)) else {
            return;
        };
        for wanted in connector.wanted.iter_mut().filter(|it| it.stream == Some(id)) {
            wanted.stream = None;
            wanted.next_at = now.after(wanted.backoff.next_delay(&mut self.random));
        }
    }

    /// Reads a stream as far as it goes.
    fn read(&mut self, index: usize, id: StreamId, seats: &mut Seats) {
        let Some(conn) = self.conns.get_mut(&index) else { return };
        let Some(at) = conn.slots.iter().position(|slot| slot.id == id) else { return };
        conn.is_dirty = true;
        let Some(slot) = conn.slots.get_mut(at) else { return };
        match &mut slot.stage {
            Stage::Greeting { door, said, .. } => match read_door(&mut conn.connection, id, door) {
                Ok(Some(opening)) => {
                    let said = *said;
                    self.on_opening(index, id, said, opening, seats);
                }
                Ok(None) => {}
                Err(()) => self.break_stream(index, id),
            },
            Stage::Up { seat, link } => {
                let (seat, link) = (*seat, *link);
                let Some(place) = seats.get(seat) else { return };
                let is_over = read_link(&mut conn.connection, id, place, link, self.now);
                if is_over {
                    self.write(index, id, seats);
                    self.close_slot(index, id, seats);
                }
            }
            Stage::Closing { .. } => {}
        }
    }

    /// The first frame came.
    fn on_opening(
        &mut self,
        index: usize,
        id: StreamId,
        said: Option<(usize, Standing)>,
        opening: Opening,
        seats: &mut Seats,
    ) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&index) else { return };
        let is_early = conn.connection.is_handshaking();
        let Some(slot) = conn.slots.iter_mut().find(|slot| slot.id == id) else { return };
        let mut is_up = false;
        match (said, opening) {
            (None, Opening::Hello(theirs)) => {
                let seat = seats.named(&theirs.greeting.topic).map(|(seat, _)| seat);
                if is_early && seat.is_some_and(|seat| !self.idempotent.contains(&seat)) {
                    // Who may not say so early is not heard.
                    return self.break_stream(index, id);
                }
                if let Some((seat, link)) = open::welcome(now, &theirs, seats, &mut slot.out) {
                    slot.stage = Stage::Up { seat, link };
                    is_up = true;
                }
            }
            (Some((seat, said)), opening) => {
                let Some(connector) = &mut self.connector else { return };
                let wanted = connector.wanted.iter_mut().find(|it| it.seat == seat);
                let (Some(wanted), Some(topic)) = (wanted, seats.topic(seat)) else { return };
                let told = match opening {
                    Opening::End(reason) => Told::Refused(reason),
                    Opening::Hello(theirs) => match topic.admit(now, &theirs, &said) {
                        Ok(link) => {
                            wanted.last_peer = Some(theirs.greeting.id);
                            wanted.backoff.reset();
                            slot.stage = Stage::Up { seat, link };
                            is_up = true;
                            Told::Welcome
                        }
                        Err(refusal) => {
                            wanted.last_peer = Some(theirs.greeting.id);
                            Frame::End(refusal.reason()).write(&mut slot.out);
                            Told::Disagrees(refusal)
                        }
                    },
                };
                wanted.told.get_or_insert(told);
            }
            (None, Opening::End(_)) => {}
        }
        if is_up {
            self.read(index, id, seats);
        } else {
            self.close_slot(index, id, seats);
        }
    }

    /// Ends a stream of a peer that does not keep the rules.
    fn break_stream(&mut self, index: usize, id: StreamId) {
        if let Some(conn) = self.conns.get_mut(&index) {
            // One that is closed already is as good.
            let _ = conn.connection.recv_stream(id).stop(VarInt::from_u32(1));
            let _ = conn.connection.send_stream(id).reset(VarInt::from_u32(1));
        }
        self.remove_slot(index, id);
    }

    /// A stream's link ends, and its last words leave.
    fn close_slot(&mut self, index: usize, id: StreamId, seats: &mut Seats) {
        let (now, until) = (self.now, self.now.after(CLOSING_TIMEOUT));
        let Some(slot) = self.slot(index, id) else { return };
        if let Stage::Up { seat, link } = slot.stage
            && let Some(topic) = seats.topic(seat)
        {
            topic.broke(now, link);
        }
        if !matches!(slot.stage, Stage::Closing { .. }) {
            slot.stage = Stage::Closing { until, is_finished: false };
        }
    }

    fn write_all(&mut self, index: usize, seats: &mut Seats) {
        let mut at = 0;
        while let Some(id) = self.conns.get(&index).and_then(|conn| Some(conn.slots.get(at)?.id)) {
            self.write(index, id, seats);
            at += 1;
        }
    }

    /// Writes what a stream has to say, as far as there is room.
    fn write(&mut self, index: usize, id: StreamId, seats: &mut Seats) {
        let now = self.now;
        loop {
            let Some(conn) = self.conns.get_mut(&index) else { return };
            if conn.is_lost {
                return;
            }
            let Some(slot) = conn.slots.iter_mut().find(|slot| slot.id == id) else { return };
            if slot.is_blocked {
                return;
            }
            let mut stream = conn.connection.send_stream(id);
            let first = slot.out.get(slot.out_sent..).unwrap_or_default();
            if !first.is_empty() {
                match stream.write(first) {
                    Ok(count) => slot.out_sent += count,
                    Err(error) => {
                        slot.is_blocked = true;
                        return self.on_write_error(index, id, &error, seats);
                    }
                }
                continue;
            }
            match &mut slot.stage {
                Stage::Up { seat, link } => {
                    let (seat, link) = (*seat, *link);
                    let Some(topic) = seats.topic(seat) else { return };
                    let pieces = topic.transmit(now, link);
                    let Some(piece) = pieces.iter().find(|piece| !piece.is_empty()) else {
                        if topic.over(link).is_some() {
                            self.close_slot(index, id, seats);
                            continue;
                        }
                        return;
                    };
                    match stream.write(piece) {
                        Ok(count) => topic.sent(now, link, count),
                        Err(error) => {
                            slot.is_blocked = true;
                            return self.on_write_error(index, id, &error, seats);
                        }
                    }
                }
                Stage::Closing { is_finished, .. } => {
                    if !*is_finished {
                        *is_finished = true;
                        // One that was stopped needs no end.
                        let _ = stream.finish();
                    }
                    return;
                }
                Stage::Greeting { .. } => return,
            }
        }
    }

    fn on_write_error(
        &mut self,
        index: usize,
        id: StreamId,
        error: &WriteError,
        seats: &mut Seats,
    ) {
        // A peer that hears no more may still say its last words, which are longer than one read.
        if matches!(error, WriteError::Blocked | WriteError::Stopped(_)) {
            return;
        }
        // It is gone.
        if let Some(slot) = self.slot(index, id)
            && let Stage::Up { seat, link } = slot.stage
            && let Some(topic) = seats.topic(seat)
        {
            topic.broke(self.now, link);
        }
        self.remove_slot(index, id);
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
        let run_max = self.socket.run_max();
        for _ in 0..SENDS_MAX {
            let Some(conn) = self.conns.get_mut(&index) else { return };
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
        self.receive();
        self.drive_all(seats, false);
    }

    fn turn(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        for (_, seat) in seats.each() {
            if now >= seat.topic.poll_timeout() {
                seat.topic.handle_timeout(now);
            }
        }
        self.receive();
        self.end_slow();
        self.heal();
        self.connect(seats);
        self.drive_all(seats, true);
    }

    fn pump(&mut self, now: Timestamp, seats: &mut Seats, wanted: usize) {
        self.now = now;
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
            // What is dirty is due at once, unless it waits for room in the socket.
            let own = if conn.is_dirty && self.waiting.is_none() { self.now } else { conn.timeout };
            own.min(slots.unwrap_or(Timestamp::NEVER))
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

    fn told(&self, seat: usize) -> Option<Told> {
        let wanted = self.connector.as_ref()?.wanted.iter().find(|it| it.seat == seat)?;
        wanted.told.clone()
    }
}
