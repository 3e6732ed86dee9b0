//! The TCP road: sockets that carry the streams of topics.
//!
//! //= hub 9.1

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::Backoff;

use super::node::{Carrier, Member, Node, Seats};
use super::open::{self, Told};
use super::topic::{LinkId, PEERS_MAX, Topic};
use super::wire::{Door, EndReason, Frame, Opened as Opening, Standing};
use crate::error::BuildError;
use crate::road::{Opened, RoadConfig, Side};

/// Connections that have not greeted yet, beside those of peers.
const STRANGERS_MAX: usize = 64;
/// How long a stranger has to greet, and a connection to be made.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last words of a connection may take.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long no connection is accepted when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest wait before connecting again, and how much they are spread.
pub(crate) const RECONNECT_MIN: Duration = Duration::from_millis(10);
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(5);
pub(crate) const RECONNECT_JITTER: f64 = 0.5;
/// Connections that are looked at one by one; with more the kernel is asked which to look at.
const LOOKS_MAX: usize = 4;
/// Reads of one connection in a row, so that others have their turn.
const READS_MAX: usize = 4;
/// Connections accepted in a row.
const ACCEPTS_MAX: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// What is told of the listener; connections are told by their places behind it.
const LISTENER_KEY: u64 = 0;

/// One connection.
struct Conn {
    stream: TcpStream,
    stage: Stage,
    /// Words before those of a link, and how much of them left.
    out: Vec<u8>,
    out_sent: usize,
    /// Whether the kernel tells when there is room to write.
    is_out_told: bool,
}

enum Stage {
    /// It is being made.
    Connecting { until: Timestamp },
    /// The first frame is on its way.
    Greeting { door: Door, until: Timestamp, said: Option<Standing> },
    /// It is a link of a topic.
    Up { seat: usize, link: LinkId },
    /// The last words leave; what comes is not looked at.
    Closing { until: Timestamp, is_shut: bool },
}

/// Who goes to a listener, and again when the connection breaks.
struct Connector {
    seat: usize,
    addresses: Vec<SocketAddr>,
    attempt: usize,
    backoff: Backoff,
    next_at: Timestamp,
    conn: Option<usize>,
    /// Who was there last.
    last_peer: Option<[u8; 16]>,
    /// What the first answer was.
    told: Option<Told>,
}

impl Connector {
    fn new(seat: usize, addresses: Vec<SocketAddr>) -> Self {
        Self {
            seat,
            addresses,
            attempt: 0,
            backoff: Backoff::new(RECONNECT_MIN, RECONNECT_MAX, RECONNECT_JITTER),
            next_at: Timestamp::START,
            conn: None,
            last_peer: None,
            told: None,
        }
    }
}

/// Streams over TCP.
pub(crate) struct TcpCarrier {
    epoll: Arc<OwnedFd>,
    listener: Option<TcpListener>,
    /// Until when no connection is accepted; `None` while they are.
    accept_at: Option<Timestamp>,
    conns: Vec<Option<Conn>>,
    connector: Option<Connector>,
    random: Stream,
    now: Timestamp,
}

impl TcpCarrier {
    fn new(seed: u64) -> io::Result<Self> {
        Ok(Self {
            epoll: Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?),
            listener: None,
            accept_at: None,
            conns: Vec::new(),
            connector: None,
            random: Stream::new(seed, "hub-reconnect", 0),
            now: Timestamp::START,
        })
    }

    /// One that listens, and where.
    pub(crate) fn listening(
        seed: u64,
        address: SocketAddr,
    ) -> Result<(Self, SocketAddr), BuildError> {
        let mut carrier = Self::new(seed).map_err(BuildError::Os)?;
        let bound = carrier.listen(address);
        let bound = bound.map_err(|source| BuildError::Bind { address, source })?;
        Ok((carrier, bound))
    }

    /// One that goes to an address for a topic.
    pub(crate) fn calling(
        seed: u64,
        seat: usize,
        addresses: Vec<SocketAddr>,
    ) -> Result<Self, BuildError> {
        let mut carrier = Self::new(seed).map_err(BuildError::Os)?;
        carrier.connector = Some(Connector::new(seat, addresses));
        Ok(carrier)
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener: TcpListener = socket.into();
        let flags = epoll::EventFlags::IN;
        epoll::add(&self.epoll, &listener, epoll::EventData::new_u64(LISTENER_KEY), flags)?;
        let local = listener.local_addr()?;
        self.listener = Some(listener);
        Ok(local)
    }

    /// Keeps a connection; `None` where there are too many.
    fn keep(&mut self, stream: TcpStream, stage: Stage) -> Option<usize> {
        let index = self.conns.iter().position(Option::is_none).unwrap_or(self.conns.len());
        if index >= PEERS_MAX + STRANGERS_MAX {
            return None;
        }
        // Without it the kernel waits for the ack of the write before, up to 40 ms.
        let _ = stream.set_nodelay(true);
        let is_out_told = matches!(stage, Stage::Connecting { .. });
        let flags = if is_out_told { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        let key = epoll::EventData::new_u64(index as u64 + 1);
        epoll::add(&self.epoll, &stream, key, flags).ok()?;
        let conn = Conn { stream, stage, out: Vec::new(), out_sent: 0, is_out_told };
        if index == self.conns.len() {
            self.conns.push(None);
        }
        *self.conns.get_mut(index)? = Some(conn);
        Some(index)
    }

    /// Says what the kernel is to tell of a connection.
    fn tell_out(&mut self, index: usize, is_out_told: bool) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        if conn.is_out_told == is_out_told {
            return;
        }
        let mut flags = epoll::EventFlags::IN;
        if is_out_told {
            flags |= epoll::EventFlags::OUT;
        }
        let key = epoll::EventData::new_u64(index as u64 + 1);
        if epoll::modify(&self.epoll, &conn.stream, key, flags).is_ok() {
            conn.is_out_told = is_out_told;
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => {
                    if stream.set_nonblocking(true).is_err() {
                        continue;
                    }
                    let until = self.now.after(GREETING_TIMEOUT);
                    let stage = Stage::Greeting { door: Door::default(), until, said: None };
                    // Where there are too many, it is closed at once.
                    let _ = self.keep(stream, stage);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_about_one(&error) => {}
                Err(_) => {
                    // Without descriptors the connection stays in the queue and would wake us for ever.
                    self.accept_at = Some(self.now.after(ACCEPT_PAUSE));
                    self.tell_listener(epoll::EventFlags::empty());
                    return;
                }
            }
        }
    }

    fn tell_listener(&self, flags: epoll::EventFlags) {
        if let Some(listener) = &self.listener {
            let key = epoll::EventData::new_u64(LISTENER_KEY);
            // A failure leaves it as it was, which is asked again at the next turn.
            let _ = epoll::modify(&self.epoll, listener, key, flags);
        }
    }

    /// Begins the next attempt to connect.
    fn connect(&mut self, seats: &mut Seats) {
        let now = self.now;
        let Some(connector) = &mut self.connector else { return };
        if connector.conn.is_some() || now < connector.next_at {
            return;
        }
        let topic = seats.topic(connector.seat);
        let is_linked = |id| topic.is_some_and(|topic| topic.is_linked(id));
        if connector.last_peer.is_some_and(is_linked) {
            // It is spoken with in another way.
            connector.next_at = now.after(RECONNECT_MAX);
            return;
        }
        connector.next_at = now.after(connector.backoff.next_delay(&mut self.random));
        let count = connector.addresses.len().max(1);
        let address = connector.addresses.get(connector.attempt % count).copied();
        connector.attempt = connector.attempt.wrapping_add(1);
        let seat = connector.seat;
        let Some(address) = address.filter(|_| seats.topic(seat).is_some()) else { return };
        let Ok(stream) = begin_connecting(address) else { return };
        let conn = self.keep(stream, Stage::Connecting { until: now.after(GREETING_TIMEOUT) });
        if let Some(connector) = &mut self.connector {
            connector.conn = conn;
        }
    }

    /// Something may be done with a connection.
    fn on_ready(&mut self, index: usize, seats: &mut Seats) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        match &conn.stage {
            Stage::Connecting { .. } => self.on_connected(index, seats),
            Stage::Greeting { .. } => self.on_greeting(index, seats),
            Stage::Up { .. } => {
                self.read(index, seats);
                self.write(index, seats);
            }
            Stage::Closing { .. } => self.on_closing(index),
        }
    }

    fn on_connected(&mut self, index: usize, seats: &mut Seats) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        let failed = SockRef::from(&conn.stream).take_error().map_or(true, |it| it.is_some());
        if failed {
            return self.drop_conn(index);
        }
        if conn.stream.peer_addr().is_err() {
            // Not yet.
            return;
        }
        let Some(connector) = &self.connector else { return };
        let Some(topic) = seats.topic(connector.seat) else { return };
        let hello = topic.hello(connector.last_peer);
        hello.write(&mut conn.out);
        let until = self.now.after(GREETING_TIMEOUT);
        conn.stage = Stage::Greeting { door: Door::default(), until, said: Some(hello.standing) };
        self.write(index, seats);
    }

    /// Reads the first frame, which decides what the connection is.
    fn on_greeting(&mut self, index: usize, seats: &mut Seats) {
        let opening = loop {
            let Some(Some(conn)) = self.conns.get_mut(index) else { return };
            let Stage::Greeting { door, .. } = &mut conn.stage else { return };
            let Ok(space) = door.space() else { return self.drop_conn(index) };
            match conn.stream.read(space) {
                Ok(count) if count > 0 => match door.filled(count) {
                    Ok(Some(opening)) => break opening,
                    Ok(None) => {}
                    Err(_) => return self.drop_conn(index),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.write(index, seats);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return self.drop_conn(index),
            }
        };
        let now = self.now;
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        let Stage::Greeting { said, .. } = &conn.stage else { return };
        match (*said, opening) {
            (Some(said), opening) => self.on_answer(index, seats, said, opening),
            (None, Opening::Hello(theirs)) => {
                match open::welcome(now, &theirs, seats, &mut conn.out) {
                    Some((seat, link)) => {
                        conn.stage = Stage::Up { seat, link };
                        self.read(index, seats);
                        self.write(index, seats);
                    }
                    None => self.close_conn(index),
                }
            }
            (None, Opening::End(_)) => self.drop_conn(index),
        }
    }

    /// The listener answered.
    fn on_answer(&mut self, index: usize, seats: &mut Seats, said: Standing, opening: Opening) {
        let now = self.now;
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        let Some(connector) = &mut self.connector else { return };
        let Some(topic) = seats.topic(connector.seat) else { return };
        let told = match opening {
            Opening::End(reason) => Told::Refused(reason),
            Opening::Hello(theirs) => match topic.admit(now, &theirs, &said) {
                Ok(link) => {
                    connector.last_peer = Some(theirs.greeting.id);
                    connector.backoff.reset();
                    conn.stage = Stage::Up { seat: connector.seat, link };
                    Told::Welcome
                }
                Err(refusal) => {
                    connector.last_peer = Some(theirs.greeting.id);
                    Frame::End(refusal.reason()).write(&mut conn.out);
                    Told::Disagrees(refusal)
                }
            },
        };
        let is_up = told == Told::Welcome;
        connector.told.get_or_insert(told);
        if is_up {
            self.read(index, seats);
            self.write(index, seats);
        } else {
            self.close_conn(index);
        }
    }

    /// Reads a link; true when something came.
    fn read(&mut self, index: usize, seats: &mut Seats) -> bool {
        let mut has_come = false;
        for _ in 0..READS_MAX {
            let Some(Some(conn)) = self.conns.get_mut(index) else { return has_come };
            let Stage::Up { seat, link } = conn.stage else { return has_come };
            let Some(place) = seats.get(seat) else { return has_come };
            let Some(space) = place.topic.space(link) else {
                self.drop_conn(index);
                return has_come;
            };
            let asked = space.len();
            match conn.stream.read(space) {
                Ok(0) => {
                    self.lose(index, seats);
                    return true;
                }
                Ok(count) => {
                    has_come = true;
                    let outcome = place.topic.filled(self.now, link, count);
                    place.has_news |= place.topic.has_messages();
                    if outcome.is_err() {
                        // The last word says so.
                        self.write(index, seats);
                        self.lose(index, seats);
                        return true;
                    }
                    if count < asked {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.lose(index, seats);
                    return true;
                }
            }
        }
        has_come
    }

    /// Writes what a connection has to say.
    fn write(&mut self, index: usize, seats: &mut Seats) {
        loop {
            let Some(Some(conn)) = self.conns.get_mut(index) else { return };
            let first = conn.out.get(conn.out_sent..).unwrap_or_default();
            let written = if first.is_empty() {
                let Stage::Up { seat, link } = conn.stage else { break };
                let Some(topic) = seats.topic(seat) else { break };
                let pieces = topic.transmit(self.now, link);
                let length: usize = pieces.iter().map(|piece| piece.len()).sum();
                if length == 0 {
                    break;
                }
                let written = write_pieces(&mut conn.stream, &pieces);
                if let Ok(count) = written {
                    topic.sent(self.now, link, count);
                }
                written.map(|count| count == length)
            } else {
                let length = first.len();
                let written = conn.stream.write(first);
                if let Ok(count) = written {
                    conn.out_sent += count;
                }
                written.map(|count| count == length)
            };
            match written {
                Ok(true) => {}
                Ok(false) => return self.tell_out(index, true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.tell_out(index, true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came before the end is still to be read, which finds it too.
                Err(_) => return self.tell_out(index, false),
            }
        }
        self.tell_out(index, false);
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        if let Stage::Up { seat, link } = conn.stage {
            let over = seats.topic(seat).and_then(|topic| topic.over(link));
            match over {
                None => {}
                Some(EndReason::Silent | EndReason::Replaced) => {
                    self.forget(index, seats);
                    self.drop_conn(index);
                }
                Some(_) => self.lose(index, seats),
            }
        }
    }

    /// The link of a connection ends; its last words still leave.
    fn lose(&mut self, index: usize, seats: &mut Seats) {
        self.forget(index, seats);
        self.close_conn(index);
    }

    /// Tells the topic that a connection is no link any more.
    fn forget(&mut self, index: usize, seats: &mut Seats) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        if let Stage::Up { seat, link } = conn.stage
            && let Some(topic) = seats.topic(seat)
        {
            topic.broke(self.now, link);
        }
    }

    /// Closes a connection when its last words have left and the peer has closed it too.
    fn close_conn(&mut self, index: usize) {
        let until = self.now.after(CLOSING_TIMEOUT);
        if let Some(Some(conn)) = self.conns.get_mut(index) {
            conn.stage = Stage::Closing { until, is_shut: false };
        }
        self.retry(index);
        self.on_closing(index);
    }

    fn on_closing(&mut self, index: usize) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        let Stage::Closing { is_shut, .. } = &mut conn.stage else { return };
        while let Some(rest) = conn.out.get(conn.out_sent..).filter(|rest| !rest.is_empty()) {
            match conn.stream.write(rest) {
                Ok(count) if count > 0 => conn.out_sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.tell_out(index, true);
                }
                _ => return self.drop_conn(index),
            }
        }
        if !*is_shut {
            *is_shut = true;
            let _ = conn.stream.shutdown(Shutdown::Write);
        }
        // A close with unread bytes would reset the connection, and lose what is on its way.
        let mut waste = [0; 4_096];
        for _ in 0..READS_MAX {
            match conn.stream.read(&mut waste) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.tell_out(index, false);
                }
                _ => return self.drop_conn(index),
            }
        }
    }

    /// Ends a connection at once.
    fn drop_conn(&mut self, index: usize) {
        if let Some(place) = self.conns.get_mut(index) {
            *place = None;
        }
        self.retry(index);
    }

    /// The connector's connection is gone: another attempt follows.
    fn retry(&mut self, index: usize) {
        let now = self.now;
        if let Some(connector) = self.connector.as_mut().filter(|it| it.conn == Some(index)) {
            connector.conn = None;
            let delay = connector.backoff.next_delay(&mut self.random);
            connector.next_at = connector.next_at.max(now.after(delay));
        }
    }

    fn handle_timeouts(&mut self, seats: &mut Seats) {
        let now = self.now;
        for (_, seat) in seats.each() {
            if now >= seat.topic.poll_timeout() {
                seat.topic.handle_timeout(now);
            }
        }
        for index in 0..self.conns.len() {
            let Some(Some(conn)) = self.conns.get(index) else { continue };
            if now >= until(&conn.stage) {
                self.drop_conn(index);
            }
        }
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept_at = None;
            self.tell_listener(epoll::EventFlags::IN);
        }
        self.connect(seats);
    }
}

/// When a connection is given up.
fn until(stage: &Stage) -> Timestamp {
    match stage {
        Stage::Connecting { until }
        | Stage::Greeting { until, .. }
        | Stage::Closing { until, .. } => *until,
        Stage::Up { .. } => Timestamp::NEVER,
    }
}

/// Whether an error is about one connection that is gone, and others may be accepted.
fn is_about_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

fn begin_connecting(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        // The kernel goes on with it.
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// Writes pieces with one call.
fn write_pieces(stream: &mut TcpStream, pieces: &[&[u8]; 3]) -> io::Result<usize> {
    match pieces {
        [one, [], []] | [[], one, []] | [[], [], one] => stream.write(one),
        [one, two, three] => {
            stream.write_vectored(&[IoSlice::new(one), IoSlice::new(two), IoSlice::new(three)])
        }
    }
}

impl Carrier for TcpCarrier {
    fn look(&mut self, now: Timestamp, seats: &mut Seats) {
        if self.conns.len() > LOOKS_MAX {
            return self.turn(now, seats);
        }
        self.now = now;
        for index in 0..self.conns.len() {
            let is_up = matches!(self.conns.get(index), Some(Some(conn)) if matches!(conn.stage, Stage::Up { .. }));
            if is_up && self.read(index, seats) {
                self.write(index, seats);
            }
        }
    }

    fn turn(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        self.handle_timeouts(seats);
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 64];
        let found = epoll::wait(&self.epoll, &mut events[..], Some(&Timespec::default()));
        let found = found.unwrap_or(0);
        for event in events.iter().take(found) {
            match event.data.u64() {
                LISTENER_KEY => self.accept(),
                key => self.on_ready(usize::try_from(key - 1).unwrap_or(usize::MAX), seats),
            }
        }
        for index in 0..self.conns.len() {
            let is_up = matches!(self.conns.get(index), Some(Some(conn)) if matches!(conn.stage, Stage::Up { .. }) && !conn.is_out_told);
            if is_up {
                self.write(index, seats);
            }
        }
    }

    fn pump(&mut self, now: Timestamp, seats: &mut Seats, wanted: usize) {
        self.now = now;
        for index in 0..self.conns.len() {
            let is_it = matches!(
                self.conns.get(index),
                Some(Some(conn)) if !conn.is_out_told
                    && matches!(conn.stage, Stage::Up { seat, .. } if seat == wanted)
            );
            if is_it {
                self.write(index, seats);
            }
        }
    }

    fn poll_timeout(&self) -> Timestamp {
        let conns = self.conns.iter().flatten().map(|conn| until(&conn.stage)).min();
        let connector = self.connector.as_ref().filter(|it| it.conn.is_none());
        let connect_at = connector.map_or(Timestamp::NEVER, |it| it.next_at);
        let accept_at = self.accept_at.unwrap_or(Timestamp::NEVER);
        conns.unwrap_or(Timestamp::NEVER).min(connect_at).min(accept_at)
    }

    fn is_silent(&self, wanted: usize) -> bool {
        !self.conns.iter().flatten().any(|conn| match conn.stage {
            Stage::Up { seat, .. } => seat == wanted,
            // Their last words may be those of this topic.
            Stage::Closing { .. } => true,
            _ => false,
        })
    }

    fn vacate(&mut self, seats: &mut Seats, wanted: usize) {
        for index in 0..self.conns.len() {
            let is_it = matches!(self.conns.get(index), Some(Some(conn)) if matches!(conn.stage, Stage::Up { seat, .. } if seat == wanted));
            if is_it {
                self.forget(index, seats);
                self.drop_conn(index);
            }
        }
        if self.connector.as_ref().is_some_and(|connector| connector.seat == wanted) {
            self.connector = None;
        }
    }

    fn close(&mut self) {
        self.listener = None;
        self.conns.clear();
    }

    fn readiness(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    fn hang_up(&mut self) {
        self.connector = None;
    }

    fn told(&self, seat: usize) -> Option<Told> {
        self.connector.as_ref().filter(|it| it.seat == seat)?.told.clone()
    }
}

/// Listeners of this process, which several topics share.
static LISTENERS: Mutex<Vec<(SocketAddr, Weak<Node<TcpCarrier>>)>> = Mutex::new(Vec::new());

/// Opens the TCP road.
pub(crate) fn open(config: &RoadConfig) -> Result<Opened, BuildError> {
    let topic = open::topic(config)?;
    match config.side {
        Side::Listen => listen(config, topic),
        Side::Connect => connect(config, topic),
    }
}

fn listen(config: &RoadConfig, mut topic: Topic) -> Result<Opened, BuildError> {
    let address = config.first_address()?;
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|(_, node)| node.strong_count() > 0);
    let known = listeners.iter().find(|(known, _)| *known == address && address.port() != 0);
    if let Some(node) = known.and_then(|(_, node)| node.upgrade()) {
        match open::share(config, &node, address, topic)? {
            Ok(member) => return Ok(open::opened(config, &member, vec![])),
            // It was left by its last topic just now: its port is free.
            Err(back) => topic = back,
        }
    }
    let (carrier, bound) = TcpCarrier::listening(seed(config), address)?;
    let node = Node::start(carrier, Instant::now(), config.net.flush_interval, config.net.core);
    let node = node.map_err(BuildError::Os)?;
    let member = member_of(&node, topic)?;
    listeners.retain(|(known, _)| *known != bound);
    listeners.push((bound, Arc::downgrade(&node)));
    Ok(open::opened(config, &member, vec![format!("it listens at {bound}")]))
}

fn member_of(
    node: &Arc<Node<TcpCarrier>>,
    topic: Topic,
) -> Result<Arc<Member<TcpCarrier>>, BuildError> {
    let joined = node.join(topic).map_err(BuildError::Os)?;
    joined.map_err(|_| BuildError::Os(io::ErrorKind::NotConnected.into()))
}

/// A seed for waits that must not be those of other hubs.
pub(crate) fn seed(config: &RoadConfig) -> u64 {
    crate::road::publisher_of(config.id)
}

fn connect(config: &RoadConfig, topic: Topic) -> Result<Opened, BuildError> {
    let address = config.first_address()?;
    let carrier = TcpCarrier::new(seed(config)).map_err(BuildError::Os)?;
    let node = Node::start(carrier, Instant::now(), config.net.flush_interval, config.net.core);
    let node = node.map_err(BuildError::Os)?;
    let member = member_of(&node, topic)?;
    let seat = member.seat();
    let connector = Connector::new(seat, config.addresses.clone());
    node.with(|_, carrier, _| carrier.connector = Some(connector));
    node.drive_until(open::ANSWER_TIMEOUT, |carrier, _| carrier.told(seat).is_some());
    let told = node.with(|_, carrier, _| carrier.told(seat));
    let note = open::judge(config, address, told)?;
    Ok(open::opened(config, &member, vec![note]))
}
