//! Streams of topics over datagrams: each link of a node carries one stream, in order and without
//! gaps, as a connection of TCP does.
//!
//! //= hub 16.2

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll;
use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_net::{TrainOptions, TrainSocket};
use twinspan_reliable::Backoff;
use twinspan_topic::{
    Compressions, Door as TopicDoor, Event, Form, Greeting, Identity, Inbox, Node, NodeConfig,
    NodeSide, Offer, OfferedRoads, publisher_of,
};

use super::carrier::{GREETING_TIMEOUT, RECONNECT_JITTER, RECONNECT_MAX, RECONNECT_MIN};
use super::core::{Carrier, Seats};
use super::node::Waited;
use super::open::{self, Told};
use super::topic::LinkId;
use super::wire::{Door, Frame, Opened as Opening, Standing};
use crate::effect::{Asked, SettingReport};
use crate::error::BuildError;
use crate::port::{self, Place, Tenant};
use crate::road::NetOptions;
use crate::system::{self, any_like};

/// What the node's greeting says in place of a topic: nothing but streams is spoken here.
pub(crate) const TOPIC: &str = "twinspan.streams";
/// Bytes of a stream in one datagram at most are those of a chunk, and this is above them.
const PIECE_BYTES_MAX: usize = 9_000;
/// Datagrams that wait to be sent.
const BATCH: usize = 64;
/// Calls that take datagrams in, in a row: whoever floods the socket keeps nobody else from the topics.
const RECEIVES_MAX: usize = 16;
/// How long a stream's last words may take.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// One stream.
struct Conn {
    /// What stands for the node at the other end.
    peer: u64,
    stage: Stage,
    /// Words before those of a link, and how much of them left.
    out: Vec<u8>,
    out_sent: usize,
}

enum Stage {
    /// The first frame is on its way; a connector said this.
    Greeting { door: Door, until: Timestamp, said: Option<Standing> },
    /// It is a link of a topic.
    Up { seat: usize, link: LinkId },
    /// The last words leave.
    Closing { until: Timestamp },
}

/// Who goes to a listener.
struct Connector {
    seat: usize,
    address: SocketAddr,
    backoff: Backoff,
    /// When it is gone to again; `None` while it is.
    next_at: Option<Timestamp>,
    last_peer: Option<[u8; 16]>,
    told: Option<Told>,
}

/// Streams over datagrams.
pub(crate) struct DatagramCarrier {
    epoll: Arc<OwnedFd>,
    socket: TrainSocket,
    node: Node,
    inbox: Inbox,
    conns: Vec<Conn>,
    connector: Option<Connector>,
    random: Stream,
    message: Vec<u8>,
    piece: Vec<u8>,
    asked: Asked,
    now: Timestamp,
    /// At the port of who listens, until the socket is closed.
    _place: Option<Place>,
}

impl DatagramCarrier {
    /// One that listens, and where. `offer` is what it tells who probes; where UDP is not in it, it does
    /// nothing else, and begins no stream.
    pub(crate) fn listening(
        id: [u8; 16],
        address: SocketAddr,
        net: &NetOptions,
        offer: Offer,
    ) -> Result<(Self, SocketAddr), BuildError> {
        let carrier = Self::new(id, (address, None), net, offer)?;
        let bound = carrier.socket.local_addr();
        Ok((carrier, bound))
    }

    /// What it tells who probes from now on.
    pub(crate) const fn set_offer(&mut self, offer: Offer) {
        self.node.set_offer(offer);
    }

    /// One that goes to an address for a topic.
    pub(crate) fn calling(
        id: [u8; 16],
        seat: usize,
        address: SocketAddr,
        net: &NetOptions,
    ) -> Result<Self, BuildError> {
        let mut carrier = Self::new(id, (any_like(address), Some(address)), net, Offer::NONE)?;
        carrier.connector = Some(Connector {
            seat,
            address,
            backoff: Backoff::new(RECONNECT_MIN, RECONNECT_MAX, RECONNECT_JITTER),
            next_at: None,
            last_peer: None,
            told: None,
        });
        Ok(carrier)
    }

    fn new(
        id: [u8; 16],
        (local, connect): (SocketAddr, Option<SocketAddr>),
        net: &NetOptions,
        offer: Offer,
    ) -> Result<Self, BuildError> {
        let options = TrainOptions {
            buffer_bytes: net.socket_buffer_bytes,
            busy_poll: net.busy_poll,
            connect,
            batch_size: BATCH,
            datagram_bytes_max: net.datagram_bytes,
            ..TrainOptions::default()
        };
        let open = |given| {
            let socket = match given {
                Some(socket) => TrainSocket::around(socket, &options),
                None => TrainSocket::bind(local, &options),
            };
            socket.map_err(|source| BuildError::Bind { address: local, source })
        };
        let (socket, place) = if connect.is_none() {
            let tenant = Tenant::Topic(TopicDoor::of(TOPIC));
            let (socket, place) = port::bind(local, tenant, open, TrainSocket::socket)?;
            (socket, Some(place))
        } else {
            (open(None)?, None)
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from);
        let epoll = epoll.map_err(BuildError::Os)?;
        let data = epoll::EventData::new_u64(0);
        let added = epoll::add(&epoll, socket.fd(), data, epoll::EventFlags::IN);
        added.map_err(|error| BuildError::Os(error.into()))?;
        let greeting = Greeting {
            id,
            publishes: true,
            receives: true,
            reliable: true,
            message_bytes_max: PIECE_BYTES_MAX as u32,
            history: 0,
            compressions: Compressions::NONE,
            packs: Compressions::NONE,
            dictionary: 0,
            topic: TOPIC.to_owned(),
            identity: Identity {
                form: Form::Bytes,
                bytes: 0,
                align: 1,
                version: 1,
                name: "streams".to_owned(),
            },
        };
        let side = match connect {
            Some(address) => NodeSide::Connect(address),
            None if offer.roads.contain(OfferedRoads::UDP) => NodeSide::Listen,
            None => NodeSide::ProbesOnly,
        };
        let config = NodeConfig {
            datagram_bytes_max: net.datagram_bytes,
            chunks_max: BATCH,
            offer,
            is_piped: true,
            ..NodeConfig::new(greeting, side)
        };
        let (node, inbox) = system::node(config, Timestamp::START)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            socket,
            node,
            inbox,
            conns: Vec::new(),
            connector: None,
            random: Stream::new(publisher_of(id), "hub-reconnect", 1),
            message: Vec::new(),
            piece: Vec::with_capacity(PIECE_BYTES_MAX),
            asked: Asked::new(net, BATCH),
            now: Timestamp::START,
            _place: place,
        })
    }

    fn index(&self, peer: u64) -> Option<usize> {
        self.conns.iter().position(|conn| conn.peer == peer)
    }

    /// Takes in what came, or a part of it: the rest keeps the socket readable, and is taken in next.
    fn receive(&mut self, seats: &mut Seats) {
        for _ in 0..RECEIVES_MAX {
            if self.socket.is_taken() && !self.socket.receive().unwrap_or(false) {
                // A socket that fails for good is seen by links that go silent.
                return;
            }
            while let Some((from, bytes)) = self.socket.take_next() {
                self.node.handle_datagram(self.now, from, bytes, &mut self.inbox);
                self.look_at_events(seats);
                self.deliver(seats);
            }
        }
    }

    fn look_at_events(&mut self, seats: &mut Seats) {
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Joined { publisher, .. } => self.meet(publisher, seats),
                Event::Ended(ended) => {
                    // What it said before it went is still heard.
                    self.deliver(seats);
                    if let Some(index) = self.index(ended.publisher) {
                        self.lose(index, seats);
                        self.conns.swap_remove(index);
                    }
                    self.retry();
                }
                _ => self.retry(),
            }
        }
    }

    /// There is a link with a node: its stream begins.
    fn meet(&mut self, peer: u64, seats: &mut Seats) {
        if let Some(index) = self.index(peer) {
            self.lose(index, seats);
            self.conns.swap_remove(index);
        }
        let (mut out, mut said) = (Vec::new(), None);
        if let Some(connector) = &self.connector {
            let Some(topic) = seats.topic(connector.seat) else {
                return;
            };
            if connector.last_peer.is_some_and(|id| topic.is_linked(id)) {
                // It is spoken with in another way.
                return self.node.drop_link(self.now, peer);
            }
            let hello = topic.hello(connector.last_peer);
            hello.write(&mut out);
            said = Some(hello.standing);
        }
        let until = self.now.after(GREETING_TIMEOUT);
        let stage = Stage::Greeting { door: Door::default(), until, said };
        self.conns.push(Conn { peer, stage, out, out_sent: 0 });
        self.write(self.conns.len() - 1, seats);
    }

    /// Hands bytes that came to their streams.
    fn deliver(&mut self, seats: &mut Seats) {
        let mut message = std::mem::take(&mut self.message);
        while let Some(taken) = self.inbox.take(&mut message) {
            let Some(index) = self.index(taken.publisher) else {
                continue;
            };
            if taken.lost > 0 || !self.feed(index, &message, seats) {
                // A stream with a gap is none.
                self.close_conn(index, seats);
            }
        }
        self.message = message;
    }

    /// Takes bytes of a stream; false where it is of no more use.
    fn feed(&mut self, index: usize, mut bytes: &[u8], seats: &mut Seats) -> bool {
        while !bytes.is_empty() {
            let Some(conn) = self.conns.get_mut(index) else {
                return false;
            };
            match &mut conn.stage {
                Stage::Greeting { door, .. } => {
                    let Ok(space) = door.space() else {
                        return false;
                    };
                    let count = space.len().min(bytes.len());
                    let (front, rest) = bytes.split_at(count);
                    for (place, byte) in space.iter_mut().zip(front) {
                        *place = *byte;
                    }
                    bytes = rest;
                    match door.filled(count) {
                        Ok(Some(opening)) => {
                            if !self.on_opening(index, opening, seats) {
                                return false;
                            }
                        }
                        Ok(None) => {}
                        Err(_) => return false,
                    }
                }
                Stage::Up { seat, link } => {
                    let Some(place) = seats.get(*seat) else {
                        return false;
                    };
                    let Some(space) = place.topic.space(*link) else {
                        return false;
                    };
                    let count = space.len().min(bytes.len());
                    let (front, rest) = bytes.split_at(count);
                    if let Some(space) = space.get_mut(..count) {
                        space.copy_from_slice(front);
                    }
                    bytes = rest;
                    let outcome = place.topic.filled(self.now, *link, count);
                    place.has_news |= place.topic.has_messages();
                    if outcome.is_err() {
                        return false;
                    }
                }
                Stage::Closing { .. } => return true,
            }
        }
        true
    }

    /// The first frame is whole; false where the stream ends with it.
    fn on_opening(&mut self, index: usize, opening: Opening, seats: &mut Seats) -> bool {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(index) else {
            return false;
        };
        let Stage::Greeting { said, .. } = &conn.stage else {
            return false;
        };
        let (theirs, said) = match (opening, *said) {
            (Opening::End(_), None) => return false,
            (Opening::End(reason), Some(_)) => {
                if let Some(connector) = &mut self.connector {
                    connector.told.get_or_insert(Told::Refused(reason));
                }
                return false;
            }
            (Opening::Hello(theirs), said) => (theirs, said),
        };
        let Some(said) = said else {
            let Some((seat, link)) = open::welcome(now, &theirs, seats, &mut conn.out) else {
                return false;
            };
            conn.stage = Stage::Up { seat, link };
            return true;
        };
        let Some(connector) = &mut self.connector else {
            return false;
        };
        let Some(topic) = seats.topic(connector.seat) else {
            return false;
        };
        connector.last_peer = Some(theirs.greeting.id);
        match topic.admit(now, &theirs, &said) {
            Ok(link) => {
                conn.stage = Stage::Up { seat: connector.seat, link };
                connector.told.get_or_insert(Told::Welcome);
                connector.backoff.reset();
                true
            }
            Err(refusal) => {
                Frame::End(refusal.reason()).write(&mut conn.out);
                connector.told.get_or_insert(Told::Disagrees(refusal));
                false
            }
        }
    }

    /// Queues what a stream has to say, as far as there is room.
    fn write(&mut self, index: usize, seats: &mut Seats) {
        let now = self.now;
        loop {
            let Some(conn) = self.conns.get_mut(index) else {
                return;
            };
            let room = self.node.room_to(conn.peer).min(PIECE_BYTES_MAX);
            if room == 0 {
                return;
            }
            self.piece.clear();
            let first = conn.out.get(conn.out_sent..).unwrap_or_default();
            if !first.is_empty() {
                let count = first.len().min(room);
                self.piece.extend(first.iter().take(count));
                conn.out_sent += count;
            } else if let Stage::Up { seat, link } = conn.stage {
                let Some(topic) = seats.topic(seat) else {
                    return;
                };
                for piece in topic.transmit(now, link) {
                    let count = piece.len().min(room - self.piece.len());
                    self.piece.extend_from_slice(piece.get(..count).unwrap_or_default());
                }
                if self.piece.is_empty() {
                    if topic.over(link).is_some() {
                        self.close_conn(index, seats);
                    }
                    return;
                }
                topic.sent(now, link, self.piece.len());
            } else {
                return;
            }
            if !self.node.send_to(now, conn.peer, &self.piece) {
                // There was room just now: the link is over, which its end tells.
                return;
            }
        }
    }

    /// Sends what the node has to say.
    fn transmit(&mut self) {
        loop {
            if self.socket.is_full() && !self.socket.send().unwrap_or(false) {
                return;
            }
            let room = self.socket.room();
            let Some(sent) = self.node.poll_transmit(self.now, room) else {
                break;
            };
            self.socket.push(sent.to, sent.bytes);
        }
        if self.socket.waiting() > 0 {
            // What the kernel does not take now stays, or is lost, as datagrams are.
            let _ = self.socket.send();
        }
    }

    /// A stream's link of its topic is over.
    fn lose(&mut self, index: usize, seats: &mut Seats) {
        let Some(conn) = self.conns.get(index) else {
            return;
        };
        if let Stage::Up { seat, link } = conn.stage
            && let Some(topic) = seats.topic(seat)
        {
            topic.broke(self.now, link);
        }
    }

    /// A stream ends when its last words have left.
    fn close_conn(&mut self, index: usize, seats: &mut Seats) {
        self.lose(index, seats);
        let until = self.now.after(CLOSING_TIMEOUT);
        if let Some(conn) = self.conns.get_mut(index)
            && !matches!(conn.stage, Stage::Closing { .. })
        {
            conn.stage = Stage::Closing { until };
        }
    }

    /// The connector's stream is over: another attempt follows.
    fn retry(&mut self) {
        let Some(connector) = &mut self.connector else {
            return;
        };
        if connector.next_at.is_none() {
            self.node.hang_up(connector.address);
            let delay = connector.backoff.next_delay(&mut self.random);
            connector.next_at = Some(self.now.after(delay));
        }
    }

    /// Streams that ended, that never began, and the next attempt.
    fn handle_timeouts(&mut self, seats: &mut Seats) {
        let now = self.now;
        if self.node.poll_timeout() <= now {
            self.node.handle_timeout(now);
            self.look_at_events(seats);
        }
        let mut index = 0;
        while let Some(conn) = self.conns.get(index) {
            let is_over = match &conn.stage {
                Stage::Up { .. } => false,
                Stage::Greeting { until, .. } => now >= *until,
                Stage::Closing { until } => {
                    let has_left = conn.out_sent == conn.out.len();
                    now >= *until || has_left && self.node.unacknowledged_by(conn.peer) == 0
                }
            };
            if !is_over {
                index += 1;
                continue;
            }
            let peer = conn.peer;
            self.conns.swap_remove(index);
            self.node.drop_link(now, peer);
            self.look_at_events(seats);
        }
        if let Some(connector) = &mut self.connector
            && connector.next_at.is_some_and(|at| now >= at)
        {
            connector.next_at = None;
            self.node.call(now, connector.address);
        }
    }

    fn write_all(&mut self, seats: &mut Seats) {
        for index in 0..self.conns.len() {
            self.write(index, seats);
        }
    }
}

impl Carrier for DatagramCarrier {
    fn look(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        self.receive(seats);
        self.write_all(seats);
        self.transmit();
    }

    fn turn(&mut self, now: Timestamp, seats: &mut Seats) {
        self.now = now;
        for (_, seat) in seats.each() {
            if now >= seat.topic.poll_timeout() {
                seat.topic.handle_timeout(now);
            }
        }
        self.receive(seats);
        self.handle_timeouts(seats);
        self.write_all(seats);
        self.transmit();
    }

    fn pump(&mut self, now: Timestamp, seats: &mut Seats, wanted: usize) {
        self.now = now;
        for index in 0..self.conns.len() {
            let is_it = matches!(
                self.conns.get(index),
                Some(Conn { stage: Stage::Up { seat, .. }, .. }) if *seat == wanted
            );
            if is_it {
                self.write(index, seats);
            }
        }
        self.transmit();
    }

    fn poll_timeout(&self) -> Timestamp {
        let until = |conn: &Conn| match &conn.stage {
            Stage::Up { .. } => Timestamp::NEVER,
            Stage::Greeting { until, .. } | Stage::Closing { until } => *until,
        };
        let conns = self.conns.iter().map(until).min().unwrap_or(Timestamp::NEVER);
        let next_at = self.connector.as_ref().and_then(|it| it.next_at);
        self.node.poll_timeout().min(conns).min(next_at.unwrap_or(Timestamp::NEVER))
    }

    fn urgent_at(&self) -> Timestamp {
        self.node.poll_timeout()
    }

    fn is_silent(&self, wanted: usize) -> bool {
        !self.conns.iter().any(|conn| match conn.stage {
            Stage::Up { seat, .. } => seat == wanted,
            Stage::Closing { .. } => true,
            Stage::Greeting { .. } => false,
        })
    }

    fn vacate(&mut self, seats: &mut Seats, wanted: usize) {
        for index in 0..self.conns.len() {
            let is_it = matches!(
                self.conns.get(index),
                Some(Conn { stage: Stage::Up { seat, .. }, .. }) if *seat == wanted
            );
            if is_it {
                self.lose(index, seats);
                if let Some(conn) = self.conns.get_mut(index) {
                    conn.stage = Stage::Closing { until: self.now };
                }
            }
        }
        if self.connector.as_ref().is_some_and(|it| it.seat == wanted) {
            self.hang_up();
        }
    }

    fn close(&mut self) {
        self.conns.clear();
        self.connector = None;
        self.node.close(self.now);
        self.transmit();
        // The address is free for others: from here on the socket is another, that nobody knows.
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = TrainOptions { buffer_bytes: 0, batch_size: 1, ..TrainOptions::default() };
        if let Ok(socket) = TrainSocket::bind(local, &options) {
            self.socket = socket;
        }
    }

    fn hang_up(&mut self) {
        if let Some(connector) = self.connector.take() {
            self.node.hang_up(connector.address);
        }
    }

    fn settings(&self) -> Vec<SettingReport> {
        self.asked.settings(&self.socket.report())
    }

    fn told(&self, seat: usize) -> Option<Told> {
        self.connector.as_ref().filter(|it| it.seat == seat)?.told.clone()
    }

    fn last_peer(&self) -> Option<[u8; 16]> {
        self.connector.as_ref()?.last_peer
    }

    fn set_last_peer(&mut self, id: [u8; 16]) {
        if let Some(connector) = &mut self.connector {
            connector.last_peer = Some(id);
        }
    }
}

impl Waited for DatagramCarrier {
    fn readiness(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn a_flood_is_taken_in_by_parts_and_the_rest_keeps_the_socket_readable() {
        // The most that one call brings from who sends single datagrams.
        const MOST: u64 = 16 * RECEIVES_MAX as u64;
        let offer = Offer { roads: OfferedRoads::UDP, ..Offer::NONE };
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = DatagramCarrier::listening([1; 16], local, &NetOptions::default(), offer);
        let (mut carrier, address) = listening.unwrap();
        let other = UdpSocket::bind(local).unwrap();
        // What does not fit the kernel's buffer is lost; more fits than one turn takes.
        for _ in 0..4 * MOST {
            other.send_to(b"flood", address).unwrap();
        }
        let (mut seats, mut counts) = (Seats::default(), Vec::new());
        loop {
            let mut readiness = [PollFd::new(&carrier.epoll, PollFlags::IN)];
            let is_readable = poll(&mut readiness, Some(&Timespec::default())).unwrap() == 1;
            let before = carrier.node.stats().datagrams_in;
            carrier.turn(Timestamp::START.after(Duration::from_secs(1)), &mut seats);
            let count = carrier.node.stats().datagrams_in - before;
            assert_eq!(is_readable, count > 0, "{counts:?}");
            if count == 0 {
                break;
            }
            assert!(count <= MOST, "{count}");
            counts.push(count);
        }
        assert!(counts.len() > 1, "{counts:?}");
    }
}
