//! Connections that carry the streams of topics: made, greeted, read, written and closed.
//!
//! //= hub 9.1

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::Backoff;

use super::core::{Carrier, Seats};
use super::open::{self, Told};
use super::topic::{LinkId, PEERS_MAX};
use super::wire::{Door, EndReason, Frame, Opened as Opening, Standing};

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
/// What is told at once of what there is to do.
pub(crate) const READY_MAX: usize = 64;

/// Sockets of streams. They never wait: what cannot be done now is
/// [`WouldBlock`](io::ErrorKind::WouldBlock).
pub(crate) trait Sockets {
    /// One connection.
    type Stream;

    /// Begins to make a connection, which [`is_made`](Self::is_made) tells of.
    fn begin_connecting(&mut self, address: SocketAddr) -> io::Result<Self::Stream>;

    /// Whether a connection is made; an error when it cannot be.
    fn is_made(&mut self, stream: &mut Self::Stream) -> io::Result<bool>;

    /// Takes a connection that came.
    fn accept(&mut self) -> io::Result<Self::Stream>;

    /// Says whether [`ready`](Self::ready) is to tell of connections that came.
    fn heed_listener(&mut self, is_heeded: bool);

    /// Lets [`ready`](Self::ready) tell of a new stream, under its place.
    fn watch(&mut self, place: usize, stream: &Self::Stream, heed: Heed) -> io::Result<()>;

    /// Changes what is told of a stream.
    fn heed(&mut self, place: usize, stream: &Self::Stream, heed: Heed) -> io::Result<()>;

    /// Appends what there is to do something with.
    fn ready(&mut self, ready: &mut Vec<Ready>);

    /// Somebody is about to sleep until [`ready`](Self::ready) has something to tell: false where it has.
    fn arm(&mut self) -> bool {
        true
    }

    fn read(&mut self, stream: &mut Self::Stream, space: &mut [u8]) -> io::Result<usize>;

    /// Writes pieces at once, at least one of them not empty.
    fn write(&mut self, stream: &mut Self::Stream, pieces: &[&[u8]; 3]) -> io::Result<usize>;

    /// Says that nothing more is written.
    fn shut(&mut self, stream: &mut Self::Stream);

    /// Others may listen at the address.
    fn close(&mut self);
}

/// What is told of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heed {
    /// That there is room, or that it is made.
    Out,
    /// That something came.
    In,
    /// Both.
    Both,
}

/// What there is to do something with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Somebody came.
    Listener,
    /// The stream at this place.
    Stream(usize),
}

/// One connection.
struct Conn<T> {
    stream: T,
    stage: Stage,
    /// Words before those of a link, and how much of them left.
    out: Vec<u8>,
    out_sent: usize,
    /// Whether the kernel tells when there is room to write.
    is_out_told: bool,
    /// Nothing can be written any more: what came is read, and then it ends.
    is_cut: bool,
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
pub(crate) struct Connector {
    seat: usize,
    addresses: Vec<SocketAddr>,
    attempt: usize,
    backoff: Backoff,
    pub(super) next_at: Timestamp,
    conn: Option<usize>,
    /// Who was there last.
    last_peer: Option<[u8; 16]>,
    /// What the first answer was.
    told: Option<Told>,
}

impl Connector {
    /// Goes to these addresses in turn for the topic of a seat.
    pub(crate) fn new(seat: usize, addresses: Vec<SocketAddr>) -> Self {
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

/// Streams over sockets.
pub(crate) struct StreamCarrier<S: Sockets> {
    pub(crate) sockets: S,
    /// Until when no connection is accepted; `None` while they are.
    accept_at: Option<Timestamp>,
    conns: Vec<Option<Conn<S::Stream>>>,
    pub(crate) connector: Option<Connector>,
    random: Stream,
    ready: Vec<Ready>,
    now: Timestamp,
}

impl<S: Sockets> StreamCarrier<S> {
    /// `seed` is for waits that must not be those of other hubs.
    pub(crate) fn new(sockets: S, seed: u64) -> Self {
        Self {
            sockets,
            accept_at: None,
            conns: Vec::new(),
            connector: None,
            random: Stream::new(seed, "hub-reconnect", 0),
            ready: Vec::with_capacity(READY_MAX),
            now: Timestamp::START,
        }
    }

    /// Keeps a connection; `None` where there are too many.
    fn keep(&mut self, stream: S::Stream, stage: Stage) -> Option<usize> {
        let index = self.conns.iter().position(Option::is_none).unwrap_or(self.conns.len());
        if index >= PEERS_MAX + STRANGERS_MAX {
            return None;
        }
        let is_out_told = matches!(stage, Stage::Connecting { .. });
        let heed = if is_out_told { Heed::Out } else { Heed::In };
        self.sockets.watch(index, &stream, heed).ok()?;
        let (out, out_sent, is_cut) = (Vec::new(), 0, false);
        let conn = Conn { stream, stage, out, out_sent, is_out_told, is_cut };
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
        let heed = if is_out_told { Heed::Both } else { Heed::In };
        if self.sockets.heed(index, &conn.stream, heed).is_ok() {
            conn.is_out_told = is_out_told;
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            match self.sockets.accept() {
                Ok(stream) => {
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
                    self.sockets.heed_listener(false);
                    return;
                }
            }
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
        let Ok(stream) = self.sockets.begin_connecting(address) else { return };
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
        match self.sockets.is_made(&mut conn.stream) {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.drop_conn(index),
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
            match self.sockets.read(&mut conn.stream, space) {
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
            match self.sockets.read(&mut conn.stream, space) {
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !conn.is_cut => break,
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
            if conn.is_cut {
                return;
            }
            let first = conn.out.get(conn.out_sent..).unwrap_or_default();
            let written = if first.is_empty() {
                let Stage::Up { seat, link } = conn.stage else { break };
                let Some(topic) = seats.topic(seat) else { break };
                let pieces = topic.transmit(self.now, link);
                let length: usize = pieces.iter().map(|piece| piece.len()).sum();
                if length == 0 {
                    break;
                }
                let written = self.sockets.write(&mut conn.stream, &pieces);
                if let Ok(count) = written {
                    topic.sent(self.now, link, count);
                }
                written.map(|count| count == length)
            } else {
                let length = first.len();
                let written = self.sockets.write(&mut conn.stream, &[first, &[], &[]]);
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
                Err(_) => {
                    // What came before the end is still to be read, which may not find it: one way
                    // can end alone.
                    conn.is_cut = true;
                    return self.tell_out(index, false);
                }
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
            match self.sockets.write(&mut conn.stream, &[rest, &[], &[]]) {
                Ok(count) if count > 0 => conn.out_sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.tell_out(index, true);
                }
                _ => return self.drop_conn(index),
            }
        }
        if !*is_shut {
            *is_shut = true;
            self.sockets.shut(&mut conn.stream);
        }
        // A close with unread bytes would reset the connection, and lose what is on its way.
        let mut waste = [0; 4_096];
        for _ in 0..READS_MAX {
            match self.sockets.read(&mut conn.stream, &mut waste) {
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
            self.sockets.heed_listener(true);
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

impl<S: Sockets> Carrier for StreamCarrier<S> {
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
        let mut ready = std::mem::take(&mut self.ready);
        self.sockets.ready(&mut ready);
        for ready in ready.drain(..) {
            match ready {
                Ready::Listener => self.accept(),
                Ready::Stream(place) => self.on_ready(place, seats),
            }
        }
        self.ready = ready;
        for index in 0..self.conns.len() {
            let is_up = matches!(self.conns.get(index), Some(Some(conn)) if matches!(conn.stage, Stage::Up { .. }) && !conn.is_out_told);
            if is_up {
                self.write(index, seats);
            }
            if matches!(self.conns.get(index), Some(Some(conn)) if conn.is_cut) {
                self.read(index, seats);
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

    fn arm(&mut self) -> bool {
        self.sockets.arm()
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
        self.sockets.close();
        self.conns.clear();
    }

    fn hang_up(&mut self) {
        self.connector = None;
    }

    fn last_peer(&self) -> Option<[u8; 16]> {
        self.connector.as_ref()?.last_peer
    }

    fn set_last_peer(&mut self, id: [u8; 16]) {
        if let Some(connector) = &mut self.connector {
            connector.last_peer = Some(id);
        }
    }

    fn told(&self, seat: usize) -> Option<Told> {
        self.connector.as_ref().filter(|it| it.seat == seat)?.told.clone()
    }
}
