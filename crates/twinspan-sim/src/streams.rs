//! Streams between simulated hosts: who listens, which connections there are, how they begin and end.
//!
//! It is TCP without its packets: pieces of up to 16 KiB travel, in order, with acknowledgements
//! that open the window again; a handshake begins and resets break off. What a link loses comes
//! later. What a cut link swallows is sent again until the sender gives up.

mod alive;
mod segments;
mod troubled;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_core::link::Arrival;
use twinspan_core::random::draw;
use twinspan_core::time::Timestamp;
use twinspan_provider::{AcceptError, BindError, ConnectError, TcpOptions};

use crate::network::{Waiting, mark, unspecified_like};
use crate::segment::{Conn, TcpMode};
use crate::slab::{Key, Slab};
use crate::timer::keep_waker;
use crate::trace::TraceKind;
use crate::world::{EPHEMERAL_PORT_FIRST, HostId, State, ip_words};

/// Ends of connections that live at the same time; further connections find no local address.
pub const STREAM_ENDS_MAX: usize = 1 << 18;
/// Listeners at the same time.
pub const LISTENERS_MAX: usize = 1 << 16;
/// Pieces of streams that are on their way at the same time; further ones are lost and sent again.
pub const STREAM_PIECES_MAX: usize = 1 << 19;
/// The buffer of an end in each direction, unless it is asked for another.
const BUFFER_BYTES: usize = 256 << 10;
/// The least and the most that is granted.
const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// The least patience that a connection may be asked to have.
const PATIENCE_MIN: Duration = Duration::from_millis(1);
/// The time until a connection's first resend, and the least of later ones.
const RESEND_FIRST: Duration = Duration::from_secs(1);

pub(crate) struct Streams {
    pub(crate) listeners: Slab<Listener>,
    listening: BTreeMap<(HostId, u16, IpAddr), Key>,
    pub(crate) ends: Slab<End>,
    /// How many ends have a port of a host.
    ports: BTreeMap<(HostId, u16), u32>,
    air: Slab<Segment>,
    /// What is to be dropped when the world is free, because wakers may hold tasks.
    dead: Vec<End>,
    dead_listeners: Vec<Listener>,
}

pub(crate) struct Listener {
    host: HostId,
    pub(crate) local: SocketAddr,
    backlog: usize,
    sizes: Sizes,
    queue: VecDeque<EndKey>,
    /// Connections by segments whose handshake is not done.
    pending: usize,
    waiting: Waiting,
    /// Connections that somebody began to accept.
    accepts: u64,
}

/// Names an end, however its stream travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndKey {
    Pieces(Key),
    Segments(Key),
}

/// What an end was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) inbox_max: usize,
    pub(crate) outbox_max: usize,
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) give_up: Option<Duration>,
}

impl Sizes {
    fn of(options: &TcpOptions) -> Self {
        let granted = |wanted: usize| {
            let wanted = if wanted == 0 { BUFFER_BYTES } else { wanted };
            wanted.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX)
        };
        Self {
            inbox_max: granted(options.receive_buffer_bytes),
            outbox_max: granted(options.send_buffer_bytes),
            nodelay: options.nodelay,
            // What is no time at all would ask without end.
            keepalive: options.keepalive.map(|after| after.max(PATIENCE_MIN)),
            give_up: options.give_up.map(|limit| limit.max(PATIENCE_MIN)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Connecting,
    Open,
    /// Reset, timed out or refused; `End::error` says which until it was told.
    Broken,
    /// Nobody has it any more, but pieces of it are on their way.
    Ghost,
}

/// One end of a connection.
pub(crate) struct End {
    host: HostId,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// What its pieces and draws are keyed by.
    key: u64,
    /// The way to the peer.
    link: u32,
    /// The other end, once it is known.
    far: Key,
    status: Status,
    /// Whether its user has dropped it, so that it goes when all was delivered.
    orphan: bool,
    error: Option<io::ErrorKind>,
    sizes: Sizes,

    /// What the peer has not acknowledged, from offset `acked` on.
    outbox: VecDeque<u8>,
    acked: u64,
    /// Up to where it was sent, the end of the stream counted as one byte.
    sent: u64,
    /// Up to where the peer lets it send.
    window_end: u64,
    /// Where the stream ends, once that is known.
    end_at: Option<u64>,
    next_number: u64,
    /// Pieces with bytes in them that are on their way.
    pieces_in_air: u32,

    inbox: VecDeque<u8>,
    received: u64,
    /// Up to where the peer was told that it may send.
    advertised: u64,
    ended: bool,

    timer_due: bool,
    /// When the peer was last heard, or something was first sent after that.
    heard_at: Timestamp,
    resends: u32,
    rto: Duration,
    /// What is timed to know the round trip.
    timed: Option<(u64, Timestamp)>,
    calls: u64,
    /// When anything came from the peer last.
    alive_at: Timestamp,
    /// Questions whether it is there since then.
    asked: u32,
    /// A planned fault: nothing to or from it comes any more.
    is_silenced: bool,
    /// A planned fault: the peer's window is shut.
    is_shut: bool,
    reader: Waiting,
    writer: Waiting,
}

/// What travels between two ends.
pub(crate) struct Segment {
    pub(crate) from: Key,
    pub(crate) to: Key,
    link: u32,
    flow: u64,
    pub(crate) arrival: Arrival,
    hash: u64,
    pub(crate) body: Body,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Open,
    Opened { window_end: u64 },
    Bytes { offset: u64, len: usize, end: bool },
    Ack { received: u64, window_end: u64 },
    Reset { because: io::ErrorKind },
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self {
            listeners: Slab::new(LISTENERS_MAX),
            listening: BTreeMap::new(),
            ends: Slab::new(STREAM_ENDS_MAX),
            ports: BTreeMap::new(),
            air: Slab::new(STREAM_PIECES_MAX),
            dead: Vec::new(),
            dead_listeners: Vec::new(),
        }
    }

    /// Whether there are connections.
    pub(crate) fn has_any(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Marks the links that connections and their pieces go over.
    pub(crate) fn mark_links(&self, used: &mut [bool]) {
        // None of the keys is wanted.
        self.ends.keys(|end| {
            mark(used, end.link);
            false
        });
        self.air.keys(|piece| {
            mark(used, piece.link);
            false
        });
    }

    /// What can be dropped now that the world is free.
    pub(crate) fn take_dead(&mut self) -> (Vec<End>, Vec<Listener>) {
        (std::mem::take(&mut self.dead), std::mem::take(&mut self.dead_listeners))
    }

    fn is_taken(&self, host: HostId, local: SocketAddr) -> bool {
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let highest = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));
        let range = (host, local.port(), lowest)..=(host, local.port(), highest);
        self.listening.range(range).any(|((_, _, ip), _)| {
            ip.is_ipv4() == local.is_ipv4()
                && (*ip == local.ip() || ip.is_unspecified() || local.ip().is_unspecified())
        })
    }

    pub(crate) fn listener(&self, host: HostId, to: SocketAddr) -> Option<Key> {
        let at = |ip| self.listening.get(&(host, to.port(), ip)).copied();
        at(to.ip()).or_else(|| at(unspecified_like(to.ip())))
    }

    /// Adds an end and counts its port.
    fn add(&mut self, end: End) -> Option<Key> {
        let port = (end.host, end.local.port());
        let key = self.ends.insert_with(|_| end)?;
        self.count_port(port);
        Some(key)
    }

    /// One more end has the port.
    pub(crate) fn count_port(&mut self, port: (HostId, u16)) {
        *self.ports.entry(port).or_default() += 1;
    }

    /// One end less has the port.
    pub(crate) fn release_port(&mut self, port: (HostId, u16)) {
        if let Some(count) = self.ports.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.ports.remove(&port);
            }
        }
    }

    /// Room for a connection whose handshake begins, and what its listener grants it; `None` when
    /// as many wait to be accepted, or are being made, as the listener keeps.
    pub(crate) fn begin_pending(&mut self, key: Key) -> Option<Sizes> {
        let listener = self.listeners.get_mut(key)?;
        if listener.queue.len() >= listener.backlog || listener.pending >= listener.backlog {
            return None;
        }
        listener.pending += 1;
        Some(listener.sizes)
    }

    /// A handshake is over, however it ended.
    pub(crate) fn end_pending(&mut self, key: Option<Key>) {
        if let Some(listener) = key.and_then(|key| self.listeners.get_mut(key)) {
            listener.pending = listener.pending.saturating_sub(1);
        }
    }

    /// Lets a connection wait to be accepted; false when nobody listens any more. As handshakes are
    /// bounded, so is the queue: by twice the backlog.
    pub(crate) fn queue(&mut self, key: Option<Key>, end: EndKey) -> bool {
        let Some(listener) = key.and_then(|key| self.listeners.get_mut(key)) else { return false };
        listener.queue.push_back(end);
        listener.waiting.wake();
        true
    }

    /// Takes an end away, or leaves a ghost while pieces of it are on their way.
    fn remove(&mut self, key: Key) {
        let Some(end) = self.ends.get_mut(key) else { return };
        if end.status != Status::Ghost {
            let port = (end.host, end.local.port());
            end.status = Status::Ghost;
            end.wake_all();
            self.release_port(port);
        }
        if self.ends.get(key).is_some_and(|end| end.pieces_in_air == 0) {
            self.dead.extend(self.ends.remove(key));
        }
    }

    /// A port of the host that no end has and nobody listens on.
    fn free_port(&self, next: &mut u16, host: HostId, ip: IpAddr) -> Option<SocketAddr> {
        for _ in EPHEMERAL_PORT_FIRST..=u16::MAX {
            let local = SocketAddr::new(ip, *next);
            *next = next.checked_add(1).unwrap_or(EPHEMERAL_PORT_FIRST);
            if !self.ports.contains_key(&(host, local.port())) && !self.is_taken(host, local) {
                return Some(local);
            }
        }
        None
    }

    /// The keys of a stopped host's ends and listeners go; how many there were.
    pub(crate) fn stop(&mut self, wanted: impl Fn(HostId) -> bool) -> usize {
        let ends = self.ends.keys(|end| wanted(end.host) && end.status != Status::Ghost);
        let listeners = self.listeners.keys(|listener| wanted(listener.host));
        ends.iter().for_each(|key| self.remove(*key));
        listeners.iter().for_each(|key| self.close_listener(*key));
        ends.len() + listeners.len()
    }

    fn close_listener(&mut self, key: Key) {
        let Some(mut listener) = self.listeners.remove(key) else { return };
        let local = listener.local;
        self.listening.remove(&(listener.host, local.port(), local.ip()));
        listener.waiting.wake();
        self.dead_listeners.push(listener);
    }
}

impl End {
    fn new(host: HostId, (local, peer): (SocketAddr, SocketAddr), key: u64, link: u32) -> Self {
        Self {
            host,
            local,
            peer,
            key,
            link,
            far: Key::NOWHERE,
            status: Status::Connecting,
            orphan: false,
            error: None,
            sizes: Sizes::of(&TcpOptions::default()),
            outbox: VecDeque::new(),
            acked: 0,
            sent: 0,
            window_end: 0,
            end_at: None,
            next_number: 0,
            pieces_in_air: 0,
            inbox: VecDeque::new(),
            received: 0,
            advertised: 0,
            ended: false,
            timer_due: false,
            heard_at: Timestamp::START,
            resends: 0,
            rto: RESEND_FIRST,
            timed: None,
            calls: 0,
            alive_at: Timestamp::START,
            asked: 0,
            is_silenced: false,
            is_shut: false,
            reader: Waiting::default(),
            writer: Waiting::default(),
        }
    }

    fn wake_all(&mut self) {
        self.reader.wake();
        self.writer.wake();
    }

    /// Up to where the peer may send.
    fn window_end(&self) -> u64 {
        self.received + self.sizes.inbox_max.saturating_sub(self.inbox.len()) as u64
    }
}

impl State {
    pub(crate) fn listen(
        &mut self,
        now: Timestamp,
        (id, incarnation): (HostId, u32),
        local: SocketAddr,
        options: &TcpOptions,
    ) -> Result<(Key, SocketAddr), BindError> {
        let refuse = |what: &str, kind| {
            Err(BindError::Os { address: local, source: io::Error::new(kind, what) })
        };
        if let Some(source) = self.no_descriptor(now, id) {
            return Err(BindError::Os { address: local, source });
        }
        let Some(host) = self.hosts.running(id, incarnation) else {
            return refuse("the simulated host is stopped", io::ErrorKind::NetworkDown);
        };
        let [high, low] = ip_words(local.ip());
        let ip = local.ip();
        let ids = |port| [u64::from(id.0), high, low, u64::from(port)];
        if !(ip.is_unspecified() || ip.is_loopback() || ip == host.ip) {
            self.trace.record(now, TraceKind::ListenRefused, ids(local.port()));
            return Err(BindError::NotLocal(local));
        }
        let streams = &mut self.streams;
        let bound = if local.port() == 0 {
            streams.free_port(&mut host.next_stream_port, id, ip)
        } else {
            (!streams.is_taken(id, local)).then_some(local)
        };
        let Some(bound) = bound else {
            self.trace.record(now, TraceKind::ListenRefused, ids(local.port()));
            return Err(BindError::Taken(local));
        };
        let listener = Listener {
            host: id,
            local: bound,
            backlog: options.backlog.max(1) as usize,
            sizes: Sizes::of(options),
            queue: VecDeque::new(),
            pending: 0,
            waiting: Waiting::default(),
            accepts: 0,
        };
        let Some(key) = streams.listeners.insert_with(|_| listener) else {
            return refuse("the simulation has too many listeners", io::ErrorKind::Other);
        };
        streams.listening.insert((id, bound.port(), ip), key);
        self.trace.record(now, TraceKind::Listen, ids(bound.port()));
        Ok((key, bound))
    }

    /// Ends a listener; connections that nobody accepted are reset.
    pub(crate) fn unlisten(&mut self, now: Timestamp, key: Key) {
        let Some(listener) = self.streams.listeners.get_mut(key) else { return };
        let waiting = std::mem::take(&mut listener.queue);
        self.trace.record(now, TraceKind::Unlisten, [u64::from(key.index), 0, 0, 0]);
        for end in waiting {
            match end {
                EndKey::Pieces(end) => self.abort_stream(now, end),
                EndKey::Segments(end) => self.abort_segments(now, end),
            }
        }
        self.streams.close_listener(key);
    }

    /// The connection that has waited longest, with its two addresses.
    pub(crate) fn accept(
        &mut self,
        now: Timestamp,
        key: Key,
        cx: &Context<'_>,
    ) -> Poll<Result<(EndKey, SocketAddr, SocketAddr), AcceptError>> {
        if self.chaos.is_on
            && let Some(error) = self.strike_accept(now, key)
        {
            return Poll::Ready(Err(AcceptError::Exhausted(error)));
        }
        let streams = &mut self.streams;
        let Some(listener) = streams.listeners.get_mut(key) else {
            return Poll::Ready(Err(AcceptError::HostStopped));
        };
        while let Some(accepted) = listener.queue.pop_front() {
            let known = match accepted {
                EndKey::Pieces(end) => {
                    streams.ends.get(end).map(|end| (end.local, end.peer, end.key))
                }
                EndKey::Segments(end) => self.segments.conns.get(end).map(Conn::ends),
            };
            if let Some((local, peer, name)) = known {
                let ids = [name, u64::from(key.index), 0, 0];
                self.trace.record(now, TraceKind::Accept, ids);
                return Poll::Ready(Ok((accepted, local, peer)));
            }
        }
        keep_waker(&mut listener.waiting.waker, cx);
        listener.waiting.is_armed = true;
        Poll::Pending
    }

    /// Begins to connect and names the end and its address.
    pub(crate) fn connect(
        &mut self,
        now: Timestamp,
        (id, incarnation): (HostId, u32),
        peer: SocketAddr,
        options: &TcpOptions,
    ) -> Result<(EndKey, SocketAddr), ConnectError> {
        if let Some(source) = self.no_descriptor(now, id) {
            return Err(ConnectError::Os { address: peer, source });
        }
        let Some(host) = self.hosts.running(id, incarnation) else {
            let what = "the simulated host is stopped";
            let source = io::Error::new(io::ErrorKind::NetworkDown, what);
            return Err(ConnectError::Os { address: peer, source });
        };
        let ip = if peer.ip().is_loopback() {
            peer.ip()
        } else if host.ip.is_ipv4() == peer.is_ipv4() {
            host.ip
        } else {
            return Err(ConnectError::NetworkUnreachable(peer));
        };
        let local = self.streams.free_port(&mut host.next_stream_port, id, ip);
        let local = local.ok_or(ConnectError::NoLocalAddress(peer))?;
        host.connected += 1;
        let [high, low] = ip_words(peer.ip());
        let ports = u64::from(local.port()) << 16 | u64::from(peer.port());
        let key = draw(host.seed, &[high, low, ports, host.connected]);
        let near = host.ip;
        let far_ip = if peer.ip().is_loopback() { near } else { peer.ip() };
        if self.tcp_mode(near, far_ip) == TcpMode::Segments {
            self.trace.record(now, TraceKind::Connect, [key, high, low, ports]);
            let (ends, what) = ((local, peer), (key, Sizes::of(options)));
            let begun = self.connect_by_segments(now, (id, (near, far_ip)), ends, what);
            let begun = begun.ok_or(ConnectError::NoLocalAddress(peer))?;
            return Ok((EndKey::Segments(begun), local));
        }
        let link = self.network.link(near, far_ip);
        let mut end = End::new(id, (local, peer), key, link);
        end.sizes = Sizes::of(options);
        end.advertised = end.window_end();
        end.heard_at = now;
        let end = self.streams.add(end).ok_or(ConnectError::NoLocalAddress(peer))?;
        self.trace.record(now, TraceKind::Connect, [key, high, low, ports]);
        self.send_body(now, end, Body::Open);
        self.arm_stream_timer(now, end, RESEND_FIRST);
        Ok((EndKey::Pieces(end), local))
    }

    /// Whether a connection was made.
    pub(crate) fn poll_connected(
        &mut self,
        key: Key,
        cx: &Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        let Some(end) = self.streams.live(key) else { return Poll::Ready(Err(stopped())) };
        if let Some(kind) = end.error.take() {
            return Poll::Ready(Err(kind.into()));
        }
        if end.status != Status::Connecting {
            return Poll::Ready(Ok(()));
        }
        keep_waker(&mut end.writer.waker, cx);
        end.writer.is_armed = true;
        Poll::Pending
    }

    /// The user lets go of an end: what was written is still delivered, unless bytes that came
    /// were not read.
    pub(crate) fn close_stream(&mut self, now: Timestamp, key: Key) {
        let Some(end) = self.streams.live(key) else { return };
        self.trace.record(now, TraceKind::StreamClosed, [end.key, 0, 0, 0]);
        if end.status != Status::Open {
            self.streams.remove(key);
        } else if !end.inbox.is_empty() {
            self.abort_stream(now, key);
        } else {
            end.orphan = true;
            end.shut();
            self.pump(now, key);
            self.bury(key);
        }
    }

    /// Ends a connection at once, with a reset.
    pub(crate) fn abort_stream(&mut self, now: Timestamp, key: Key) {
        let Some(end) = self.streams.live(key) else { return };
        if end.status == Status::Open {
            self.send_body(now, key, Body::Reset { because: io::ErrorKind::ConnectionReset });
        }
        self.streams.remove(key);
    }
}

impl Streams {
    /// An end that somebody has or that still delivers.
    fn live(&mut self, key: Key) -> Option<&mut End> {
        self.ends.get_mut(key).filter(|end| end.status != Status::Ghost)
    }
}

/// What a stream says whose host was stopped.
pub(crate) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkDown, "the simulated host of the stream is stopped")
}
