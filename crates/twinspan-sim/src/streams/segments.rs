//! What travels on a stream: pieces, acknowledgements, resets, and what they do on arrival.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::random::{draw, unit};
use twinspan_core::time::Timestamp;
use twinspan_provider::ReadBuf;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Body, End, EndKey, RESEND_FIRST, STREAM_ENDS_MAX, Segment, Status, stopped};
use crate::config::{FullBacklog, WIRE_DELAY_MIN};
use crate::slab::Key;
use crate::store::part_of;
use crate::timer::keep_waker;
use crate::trace::TraceKind;
use crate::world::{Event, State};

/// Bytes that travel together at most.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// Pieces of one end on their way; more bytes wait to travel together.
const PIECES_IN_AIR_MAX: u32 = 64;
/// What a piece weighs on a link besides its bytes.
const OVERHEAD_BYTES: usize = 52;
/// The least time until a resend, and the most.
const RESEND_MIN: Duration = Duration::from_millis(200);
const RESEND_MAX: Duration = Duration::from_secs(10);

impl State {
    /// Sends a piece of the end `from` to its peer.
    pub(super) fn send_body(&mut self, now: Timestamp, from: Key, body: Body) {
        let Some(end) = self.streams.ends.get_mut(from) else { return };
        let (flow, number, link, to) = (end.key, end.next_number, end.link, end.far);
        end.next_number += 1;
        let mut hash = 0;
        if let Body::Bytes { offset, len, .. } = body {
            hash = end.hash(offset, len);
            end.pieces_in_air += 1;
        }
        if !self.launch_piece(now, (from, to), (link, flow, number), hash, body)
            && matches!(body, Body::Bytes { .. })
            && let Some(end) = self.streams.ends.get_mut(from)
        {
            end.pieces_in_air -= 1;
        }
    }

    /// Puts a piece on its way; false when it is lost at once.
    fn launch_piece(
        &mut self,
        now: Timestamp,
        (from, to): (Key, Key),
        (link, flow, number): (u32, u64, u64),
        hash: u64,
        body: Body,
    ) -> bool {
        let [kind, first, second] = body.words();
        self.trace.record(now, TraceKind::Piece, [flow, number << 8 | kind, first, second ^ hash]);
        let Some(state) = self.network.links.get_mut(link as usize) else { return false };
        if state.is_cut {
            self.faults.observe(FaultKind::Partition);
            self.trace.record(now, TraceKind::PieceLost, [flow, number, 0, 0]);
            return false;
        }
        if self.chaos.is_on && self.piece_blocked(now, link).is_some() {
            self.trace.record(now, TraceKind::PieceLost, [flow, number, 3, 0]);
            return false;
        }
        let Some(state) = self.network.links.get_mut(link as usize) else { return false };
        let bytes = OVERHEAD_BYTES + body.len();
        let mut admitted = state.link.admit_stream(now, flow, number, bytes, &mut self.faults);
        if self.chaos.is_on
            && let Some(arrival) = &mut admitted
        {
            match self.piece_later(now, link, bytes, arrival.at) {
                Ok(at) => arrival.at = at,
                Err(_) => {
                    self.trace.record(now, TraceKind::PieceLost, [flow, number, 3, 0]);
                    return false;
                }
            }
        }
        let placed = admitted.and_then(|arrival| {
            let at = arrival.at.max(now.after(WIRE_DELAY_MIN));
            let segment = Segment { from, to, link, flow, arrival, hash, body };
            let air = &mut self.streams.air;
            let key = air.insert_with(|_| segment)?;
            let placed = self.wheel.insert(at, Event::Piece(key)).is_ok();
            if !placed {
                air.remove(key);
            }
            placed.then_some(())
        });
        if admitted.is_some() && placed.is_none() {
            self.faults.inject(FaultKind::QueueDrop);
            self.faults.observe(FaultKind::QueueDrop);
        }
        if placed.is_none() {
            self.trace.record(now, TraceKind::PieceLost, [flow, number, 1, 0]);
        }
        placed.is_some()
    }

    /// A piece has come to where it was sent.
    pub(crate) fn piece_arrived(&mut self, now: Timestamp, key: Key) {
        let Some(segment) = self.streams.air.remove(key) else { return };
        let (flow, number) = (segment.flow, segment.arrival.number);
        let mut is_blocked = false;
        if self.chaos.is_on {
            is_blocked = self.piece_blocked(now, segment.link).is_some();
            if !is_blocked && let Some(until) = self.piece_held(now, segment.link) {
                self.hold_piece(until, segment);
                return;
            }
        }
        let state = self.network.links.get_mut(segment.link as usize);
        let is_cut = state.as_ref().is_some_and(|state| state.is_cut);
        if is_blocked {
            self.trace.record(now, TraceKind::PieceLost, [flow, number, 4, 0]);
        } else if is_cut {
            self.faults.observe(FaultKind::Partition);
            self.trace.record(now, TraceKind::PieceLost, [flow, number, 2, 0]);
        } else {
            if let Some(state) = state {
                state.link.arrived(flow, &segment.arrival, &mut self.faults);
            }
            self.trace.record(now, TraceKind::PieceArrived, [flow, number, segment.hash, 0]);
            self.take_piece(now, &segment);
        }
        if let Body::Bytes { .. } = segment.body
            && let Some(end) = self.streams.ends.get_mut(segment.from)
        {
            end.pieces_in_air -= 1;
            if end.status == Status::Ghost {
                self.streams.remove(segment.from);
            } else {
                self.pump(now, segment.from);
            }
        }
    }

    fn take_piece(&mut self, now: Timestamp, segment: &Segment) {
        if segment.body == Body::Open {
            self.take_open(now, segment);
            return;
        }
        if self.chaos.is_on && self.strike_piece(now, segment) {
            return;
        }
        if self.is_cut_midway(segment) {
            // As if a box on the way had cut both: each end hears it.
            let because = io::ErrorKind::ConnectionReset;
            self.take_reset(segment.to, because);
            self.take_reset(segment.from, because);
            return;
        }
        let known = self.streams.live(segment.to).map(|end| {
            end.alive_at = now;
            (end.status, end.orphan)
        });
        let takes_bytes = known.is_some_and(|(_, orphan)| !orphan);
        match segment.body {
            Body::Open => {}
            Body::Reset { because } => self.take_reset(segment.to, because),
            Body::Opened { window_end } if known.is_some() => {
                self.take_opened(now, segment.to, window_end);
            }
            Body::Bytes { offset, len, end } if takes_bytes => {
                self.take_bytes(now, segment, (offset, len, end));
            }
            // The end of the other's stream is heard by who has gone, too.
            Body::Bytes { len: 0, .. } if known.is_some() => {
                self.take_bytes(now, segment, segment.body.bytes());
            }
            Body::Ack { received, window_end } if known.is_some() => {
                self.take_ack(now, segment.to, received, window_end);
            }
            Body::Ack { .. } => {}
            Body::Opened { .. } | Body::Bytes { .. } => self.answer_with_reset(now, segment),
        }
    }

    /// Whether the reset that seeds inject befalls this piece.
    fn is_cut_midway(&mut self, segment: &Segment) -> bool {
        let share = self.config.stream_reset;
        let coordinates = [FaultKind::StreamReset.index() as u64, segment.arrival.number];
        if !matches!(segment.body, Body::Bytes { .. })
            || share <= 0.0
            || unit(draw(segment.flow, &coordinates)) >= share
        {
            return false;
        }
        self.faults.inject(FaultKind::StreamReset);
        if [segment.to, segment.from].iter().any(|key| self.streams.live(*key).is_some()) {
            self.faults.observe(FaultKind::StreamReset);
        }
        true
    }

    /// Nobody is there for a piece: a running host says so, a stopped one says nothing.
    fn answer_with_reset(&mut self, now: Timestamp, segment: &Segment) {
        let Some(from) = self.streams.live(segment.from) else { return };
        let (here, host) = (from.peer.ip(), from.host);
        let there = self.hosts.get(host).map(|host| host.ip);
        let id = if here.is_loopback() { Some(host) } else { self.hosts.at(here) };
        let runs = id.and_then(|id| self.hosts.get(id)).filter(|host| host.is_running);
        let (Some(host), Some(there)) = (runs, there) else { return };
        let link = self.network.link(host.ip, there);
        let flow = draw(segment.flow, &[1]);
        let refuses = matches!(segment.body, Body::Open);
        let because =
            if refuses { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::ConnectionReset };
        let what = (link, flow, segment.arrival.number);
        self.launch_piece(now, (segment.to, segment.from), what, 0, Body::Reset { because });
    }

    /// Somebody wants to connect.
    fn take_open(&mut self, now: Timestamp, segment: &Segment) {
        let Some(client) = self.streams.live(segment.from) else { return };
        if client.status != Status::Connecting {
            return;
        }
        let (near, far) = (client.local, client.peer);
        let (client_host, client_key, known) = (client.host, client.key, client.far);
        let wants = (client_key, (near, far));
        if self.streams.live(known).is_some() {
            // The answer was lost.
            self.send_opened(now, known);
            return;
        }
        let is_near = far.ip().is_loopback() || far.ip().is_unspecified();
        let id = if is_near { Some(client_host) } else { self.hosts.at(far.ip()) };
        let Some(id) = id else {
            // A router says so.
            self.take_reset(segment.from, io::ErrorKind::HostUnreachable);
            return;
        };
        let ips = (self.hosts.get(id), self.hosts.get(client_host));
        let (Some(host), Some(client_host)) = ips else { return };
        if !host.is_running {
            return;
        }
        let (host_ip, client_ip) = (host.ip, client_host.ip);
        let Some(listener) = self.streams.listener(id, far) else {
            self.answer_with_reset(now, segment);
            return;
        };
        let first = segment.from;
        if self.chaos.is_on {
            // Of the whole connection, not of one try.
            if self.strike_connect(FaultKind::ConnectHang, wants) {
                return;
            }
            if self.strike_connect(FaultKind::ConnectRefuse, wants) {
                self.answer_with_reset(now, segment);
                return;
            }
        }
        let refuse = FaultKind::ConnectRefuse;
        let share = self.config.connect_refuse;
        if share > 0.0 && unit(draw(client_key, &[refuse.index() as u64])) < share {
            self.faults.inject(refuse);
            self.faults.observe(refuse);
            self.answer_with_reset(now, segment);
            return;
        }
        let Some(open) = self.streams.listeners.get(listener) else { return };
        let sizes = open.sizes;
        let is_full = open.queue.len() >= open.backlog;
        let number = segment.arrival.number;
        let struck = !is_full
            && self.chaos.is_on
            && self.strike_end(FaultKind::BacklogFull, first, number).is_some();
        if is_full || struck {
            if is_full {
                self.faults.inject(FaultKind::BacklogFull);
            }
            self.faults.observe(FaultKind::BacklogFull);
            if self.config.full_backlog == FullBacklog::Refuse {
                self.answer_with_reset(now, segment);
            }
            return;
        }
        let link = self.network.link(host_ip, client_ip);
        let mut end = End::new(id, (far, near), draw(client_key, &[2]), link);
        end.sizes = sizes;
        end.status = Status::Open;
        end.far = segment.from;
        end.heard_at = now;
        end.advertised = end.window_end();
        // What the client said of its window with its first piece.
        end.window_end = self.streams.live(segment.from).map_or(0, |client| client.advertised);
        let Some(server) = self.streams.add(end) else {
            debug_assert!(self.streams.ends.keys(|_| true).len() >= STREAM_ENDS_MAX);
            return;
        };
        if let Some(client) = self.streams.live(segment.from) {
            client.far = server;
        }
        if let Some(open) = self.streams.listeners.get_mut(listener) {
            open.queue.push_back(EndKey::Pieces(server));
            open.waiting.wake();
        }
        self.begin_keepalive(now, server);
        self.send_opened(now, server);
    }

    fn send_opened(&mut self, now: Timestamp, server: Key) {
        let Some(end) = self.streams.live(server) else { return };
        let window_end = end.advertised;
        self.send_body(now, server, Body::Opened { window_end });
    }

    fn take_opened(&mut self, now: Timestamp, key: Key, window_end: u64) {
        let Some(end) = self.streams.live(key) else { return };
        if end.status == Status::Connecting {
            end.status = Status::Open;
            end.window_end = window_end;
            end.heard_at = now;
            end.resends = 0;
            end.wake_all();
            self.begin_keepalive(now, key);
        }
    }

    pub(crate) fn take_reset(&mut self, key: Key, because: io::ErrorKind) {
        let Some(end) = self.streams.live(key) else { return };
        if end.status == Status::Broken {
            return;
        }
        // Who has read the end of the stream learns of it by writing alone.
        let kind = match because {
            io::ErrorKind::ConnectionReset if end.ended => io::ErrorKind::BrokenPipe,
            because => because,
        };
        end.status = Status::Broken;
        end.error = Some(kind);
        end.outbox.clear();
        end.wake_all();
        if end.orphan {
            self.streams.remove(key);
        }
    }

    pub(crate) fn take_bytes(
        &mut self,
        now: Timestamp,
        segment: &Segment,
        body: (u64, usize, bool),
    ) {
        let (offset, len, ends) = body;
        let Some(end) = self.streams.live(segment.to) else { return };
        if end.status == Status::Broken {
            self.answer_with_reset(now, segment);
            return;
        }
        let room = end.sizes.inbox_max.saturating_sub(end.inbox.len());
        if end.received == offset && len <= room && !end.ended {
            let mut inbox = std::mem::take(&mut end.inbox);
            // A sender that was broken since no longer has them; one that has them in its outbox
            // has them where the acknowledged ones end.
            let from = self.streams.ends.get(segment.from);
            let bytes = from.and_then(|from| {
                let start = usize::try_from(offset.checked_sub(from.acked)?).ok()?;
                part_of(&from.outbox, start, len)
            });
            let is_there = bytes.is_some();
            // Whole slices: byte by byte it took two thirds of all that streams cost.
            bytes.into_iter().flatten().for_each(|bytes| inbox.extend(bytes));
            let Some(end) = self.streams.live(segment.to) else { return };
            end.inbox = inbox;
            if is_there {
                end.received += len as u64 + u64::from(ends);
                end.ended = ends;
                if len > 0 || ends {
                    end.reader.wake();
                }
            }
        }
        let Some(end) = self.streams.live(segment.to) else { return };
        end.heard_at = now;
        self.send_ack(now, segment.to);
    }

    fn send_ack(&mut self, now: Timestamp, key: Key) {
        let Some(end) = self.streams.live(key) else { return };
        end.advertised = end.window_end();
        let body = Body::Ack { received: end.received, window_end: end.advertised };
        self.send_body(now, key, body);
    }

    fn take_ack(&mut self, now: Timestamp, key: Key, received: u64, window_end: u64) {
        let Some(end) = self.streams.live(key) else { return };
        end.heard_at = now;
        end.resends = 0;
        end.window_end = end.window_end.max(window_end);
        if received > end.acked {
            let bytes = usize::try_from(received - end.acked).unwrap_or(usize::MAX);
            end.outbox.drain(..bytes.min(end.outbox.len()));
            end.acked = received;
            end.sent = end.sent.max(received);
            if let Some((offset, at)) = end.timed
                && received > offset
            {
                end.rto = (now.since(at) * 3).clamp(RESEND_MIN, RESEND_MAX);
                end.timed = None;
            }
            end.writer.wake();
        }
        self.pump(now, key);
        self.bury(key);
    }

    /// Takes an end away that its user dropped and whose peer has everything.
    pub(super) fn bury(&mut self, key: Key) {
        let Some(end) = self.streams.live(key) else { return };
        if end.orphan && end.end_at.is_some_and(|at| end.acked > at) {
            self.streams.remove(key);
        }
    }

    /// Sends what the peer has room for.
    pub(crate) fn pump(&mut self, now: Timestamp, key: Key) {
        loop {
            let Some(end) = self.streams.live(key) else { return };
            if end.status != Status::Open {
                return;
            }
            if end.acked == end.sent && end.resends == 0 {
                // Nothing is unanswered so far, the question for a window neither.
                end.heard_at = now;
            }
            let Some(body) = end.next_piece() else { break };
            if let Body::Bytes { offset, len, end: ends } = body {
                end.sent = offset + len as u64 + u64::from(ends);
                if end.timed.is_none() {
                    end.timed = Some((offset, now));
                }
            }
            self.send_body(now, key, body);
        }
        let Some(end) = self.streams.live(key) else { return };
        if end.is_unanswered() {
            let rto = end.rto;
            self.arm_stream_timer(now, key, rto);
        }
    }

    pub(super) fn arm_stream_timer(&mut self, now: Timestamp, key: Key, after: Duration) {
        let Some(end) = self.streams.live(key) else { return };
        // The wheel has room for one of each end.
        if !end.timer_due && self.wheel.insert(now.after(after), Event::StreamTimer(key)).is_ok() {
            end.timer_due = true;
        }
    }

    /// Time to see whether the peer was heard.
    pub(crate) fn stream_timer(&mut self, now: Timestamp, key: Key) {
        let usual = self.config.stream_give_up;
        let Some(end) = self.streams.live(key) else { return };
        let give_up = end.sizes.give_up.unwrap_or(usual);
        end.timer_due = false;
        if end.status == Status::Connecting {
            end.resends += 1;
            let again = RESEND_FIRST * (1 << end.resends.min(5));
            self.send_body(now, key, Body::Open);
            self.arm_stream_timer(now, key, again);
            return;
        }
        if end.status != Status::Open || !end.is_unanswered() {
            return;
        }
        let due = (end.rto * (1 << end.resends.min(6))).min(RESEND_MAX);
        let silence = now.since(end.heard_at);
        if silence < end.rto {
            let rest = end.rto.saturating_sub(silence);
            self.arm_stream_timer(now, key, rest);
            return;
        }
        self.trace.record(now, TraceKind::StreamTimer, [end.key, u64::from(end.resends), 0, 0]);
        if silence >= give_up {
            self.take_reset(key, io::ErrorKind::TimedOut);
            return;
        }
        end.resends += 1;
        let heard_at = end.heard_at;
        // All that is not acknowledged goes again; with no window, an empty piece asks for one.
        end.sent = end.acked;
        end.timed = None;
        if end.next_piece().is_none() && end.pieces_in_air < PIECES_IN_AIR_MAX {
            let offset = end.acked;
            self.send_body(now, key, Body::Bytes { offset, len: 0, end: false });
        }
        self.arm_stream_timer(now, key, due);
        self.pump(now, key);
        if let Some(end) = self.streams.live(key) {
            end.heard_at = heard_at;
        }
    }

    /// Reads what has come.
    pub(crate) fn read_stream(
        &mut self,
        now: Timestamp,
        key: Key,
        cx: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(end) = self.streams.live(key) else { return Poll::Ready(Err(stopped())) };
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let there = end.inbox.len().min(buffer.remaining());
        if there == 0 {
            // The end was told by the peer itself, before whatever befell the way out.
            if end.ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(kind) = end.error.take() {
                return Poll::Ready(Err(kind.into()));
            }
            if end.status == Status::Broken {
                return Poll::Ready(Ok(()));
            }
            keep_waker(&mut end.reader.waker, cx);
            end.reader.is_armed = true;
            return Poll::Pending;
        }
        let len = end.short(there, FaultKind::ShortRead, self.config.short_stream);
        let (calls, ends) = (end.calls, (end.local, end.peer));
        if len < there {
            self.faults.inject(FaultKind::ShortRead);
            self.faults.observe(FaultKind::ShortRead);
        }
        let len = if self.chaos.is_on {
            self.shorten(FaultKind::ShortRead, ends, (calls, len))
        } else {
            len
        };
        let Some(end) = self.streams.live(key) else { return Poll::Ready(Err(stopped())) };
        let (front, back) = end.inbox.as_slices();
        let front = front.get(..len.min(front.len())).unwrap_or_default();
        buffer.put_slice(front);
        buffer.put_slice(back.get(..len - front.len()).unwrap_or_default());
        end.inbox.drain(..len);
        let opened = end.window_end() - end.advertised;
        let (name, half) = (end.key, end.sizes.inbox_max as u64 / 2);
        let tells = opened >= half && end.status == Status::Open && !end.ended;
        self.trace.record(now, TraceKind::StreamRead, [name, len as u64, 0, 0]);
        if tells {
            self.send_ack(now, key);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes to be sent.
    pub(crate) fn write_stream(
        &mut self,
        now: Timestamp,
        key: Key,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(end) = self.streams.live(key) else { return Poll::Ready(Err(stopped())) };
        if let Some(kind) = end.error.take() {
            return Poll::Ready(Err(kind.into()));
        }
        if end.status == Status::Broken || end.end_at.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = end.sizes.outbox_max.saturating_sub(end.outbox.len()).min(bytes.len());
        if room == 0 {
            keep_waker(&mut end.writer.waker, cx);
            end.writer.is_armed = true;
            return Poll::Pending;
        }
        let len = end.short(room, FaultKind::ShortWrite, self.config.short_stream);
        let (calls, ends) = (end.calls, (end.local, end.peer));
        if len < room {
            self.faults.inject(FaultKind::ShortWrite);
            self.faults.observe(FaultKind::ShortWrite);
        }
        let len = if self.chaos.is_on {
            self.shorten(FaultKind::ShortWrite, ends, (calls, len))
        } else {
            len
        };
        let Some(end) = self.streams.live(key) else { return Poll::Ready(Err(stopped())) };
        end.outbox.extend(bytes.get(..len).unwrap_or_default());
        self.trace.record(now, TraceKind::StreamWrite, [end.key, len as u64, 0, 0]);
        self.pump(now, key);
        Poll::Ready(Ok(len))
    }

    /// Ends the way out.
    pub(crate) fn shut_stream(&mut self, now: Timestamp, key: Key) -> io::Result<()> {
        let Some(end) = self.streams.live(key) else { return Err(stopped()) };
        if end.shut() {
            self.trace.record(now, TraceKind::StreamShut, [end.key, 0, 0, 0]);
            self.pump(now, key);
        }
        Ok(())
    }
}

impl End {
    /// Marks where the stream ends; false when that was done before.
    pub(super) fn shut(&mut self) -> bool {
        let is_new = self.end_at.is_none();
        self.end_at.get_or_insert(self.acked + self.outbox.len() as u64);
        is_new
    }

    /// Whether the peer has something to take or to acknowledge.
    pub(super) fn is_unanswered(&self) -> bool {
        self.sent > self.acked
            || !self.outbox.is_empty()
            || self.end_at.is_some_and(|at| self.acked <= at)
    }

    /// What goes next, if the peer and the way have room for it.
    pub(super) fn next_piece(&self) -> Option<Body> {
        if self.pieces_in_air >= PIECES_IN_AIR_MAX || self.end_sent() || self.is_shut {
            return None;
        }
        let sent = usize::try_from(self.sent - self.acked).unwrap_or(usize::MAX);
        let unsent = self.outbox.len().saturating_sub(sent);
        let window = usize::try_from(self.window_end.saturating_sub(self.sent));
        let len = unsent.min(window.unwrap_or(usize::MAX)).min(PIECE_BYTES_MAX);
        let end = self.end_at.is_some() && len == unsent;
        (len > 0 || end).then_some(Body::Bytes { offset: self.sent, len, end })
    }

    /// Whether the end of the stream was sent.
    fn end_sent(&self) -> bool {
        self.end_at.is_some_and(|end| self.sent > end)
    }

    /// A hash of bytes of the outbox, wherever its ring is broken.
    fn hash(&self, offset: u64, len: usize) -> u64 {
        let start = usize::try_from(offset.saturating_sub(self.acked)).unwrap_or(usize::MAX);
        let there = self.outbox.len().saturating_sub(start).min(len);
        match part_of(&self.outbox, start, there) {
            // Most pieces lie in one place, and hash the same in one go.
            Some([whole, []]) => xxh3_64(whole),
            Some([first, second]) => {
                let mut hasher = Xxh3::new();
                hasher.update(first);
                hasher.update(second);
                hasher.digest()
            }
            None => xxh3_64(&[]),
        }
    }

    /// How much of `there` a call moves: seeds make some short.
    fn short(&mut self, there: usize, kind: FaultKind, share: f64) -> usize {
        self.calls += 1;
        let key = draw(self.key, &[kind.index() as u64, self.calls]);
        if there < 2 || share <= 0.0 || unit(key) >= share {
            return there;
        }
        // From one to all but one.
        1 + (draw(key, &[1]) % (there as u64 - 1)) as usize
    }
}

impl Body {
    /// Bytes that it carries.
    fn len(&self) -> usize {
        if let Self::Bytes { len, .. } = self { *len } else { 0 }
    }

    fn bytes(&self) -> (u64, usize, bool) {
        if let Self::Bytes { offset, len, end } = self {
            (*offset, *len, *end)
        } else {
            (0, 0, false)
        }
    }

    /// For the trace: a kind and what it says.
    fn words(&self) -> [u64; 3] {
        match *self {
            Self::Open => [0, 0, 0],
            Self::Opened { window_end } => [1, window_end, 0],
            Self::Bytes { offset, len, end } => [2 + u64::from(end), offset, len as u64],
            Self::Ack { received, window_end } => [4, received, window_end],
            Self::Reset { because } => {
                [5, u64::from(because == io::ErrorKind::ConnectionRefused), 0]
            }
        }
    }
}
