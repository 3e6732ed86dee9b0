//! One end of a connection by segments: a machine with time as an argument (RFC 9293).

use std::io::ErrorKind;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_provider::KEEPALIVE_PROBES_MAX;

use super::header::{Flags, Header, Opening, Sack, widen};
use super::inbound::Inbound;
use super::outbound::{Outbound, OutboundCounts, Piece, RTO_INITIAL, RTO_MAX, Timeout};

/// The most bytes that a segment carries: what fits a packet buffer and an Ethernet frame.
pub(crate) const SEGMENT_BYTES_MAX: usize = 1_460;
/// How often who was asked to connect answers again before it forgets the asker.
const OPENED_RESENDS_MAX: u32 = 5;
/// How long an end that closed first remembers the connection: twice the longest that a segment
/// may be on its way.
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(60);
/// How long an end whose user has gone waits for the peer to close its way as well.
const ORPHAN_WAIT: Duration = Duration::from_secs(60);
/// Answers to segments that are not in order (RFC 5961) within a second.
const CHALLENGES_PER_SECOND_MAX: u32 = 10;
/// Window scales go up to this (RFC 7323).
const SCALE_MAX: u8 = 14;

/// What an end is told when it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The number of its first segment.
    pub(crate) first_seq: u32,
    pub(crate) inbox_max: usize,
    pub(crate) outbox_max: usize,
    /// The most bytes in a segment to it.
    pub(crate) mss: u16,
    pub(crate) nodelay: bool,
    pub(crate) has_ecn: bool,
    /// How long silence may last before the peer is asked whether it is there.
    pub(crate) keepalive: Option<Duration>,
    /// How long a peer that owes an answer may be silent.
    pub(crate) give_up: Duration,
}

/// The states of RFC 9293, section 3.3.2; a listener is not a connection here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// Who has to be told that something changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wakes {
    pub(crate) reader: bool,
    pub(crate) writer: bool,
    /// The handshake is done.
    pub(crate) opened: bool,
}

/// A connection's end. After each `handle_*` call, drain [`Connection::poll_transmit`], then read
/// [`Connection::poll_timeout`].
#[derive(Debug)]
pub(crate) struct Connection {
    settings: Settings,
    phase: Phase,
    error: Option<ErrorKind>,
    outbound: Outbound,
    inbound: Inbound,
    peer_seq: u32,
    /// By how many bits the windows of the two are shifted.
    scale_in: u8,
    scale_out: u8,
    /// Whether the user has gone: nobody reads.
    is_orphan: bool,
    /// Whether this end closed before it heard that the other did.
    closed_first: bool,
    /// When the peer was last heard, or began to owe an answer.
    heard_at: Timestamp,
    owes: bool,
    // The handshake.
    opening_due: bool,
    opening_at: Option<Timestamp>,
    opening_sent_at: Timestamp,
    opening_resends: u32,
    // What is to be said.
    reset_due: Option<Header>,
    probe_due: bool,
    keepalive_at: Option<Timestamp>,
    keepalive_probes: u32,
    /// When the end forgets the connection.
    forget_at: Option<Timestamp>,
    challenges: u32,
    challenges_since: Timestamp,
    // Congestion marks.
    has_ecn: bool,
    echoes_mark: bool,
    slowed_due: bool,
    pub(crate) challenged: u64,
}

impl Connection {
    /// An end that begins to connect.
    pub(crate) fn connect(now: Timestamp, settings: Settings) -> Self {
        Self::new(now, settings, Phase::SynSent)
    }

    /// An end that was asked to connect by `opening`, a segment with SYN and without ACK.
    pub(crate) fn accept(now: Timestamp, settings: Settings, opening: &Header) -> Self {
        let mut connection = Self::new(now, settings, Phase::SynReceived);
        connection.take_opening(opening);
        let wants = Flags::ECE.with(Flags::CWR);
        connection.has_ecn = settings.has_ecn && opening.flags.has(wants);
        connection
    }

    fn new(now: Timestamp, settings: Settings, phase: Phase) -> Self {
        // So that a peer that comes back in time is asked before it is given up.
        let rto_max = settings.give_up / 4;
        let mut outbound = Outbound::new(settings.outbox_max, SEGMENT_BYTES_MAX, rto_max);
        outbound.nodelay = settings.nodelay;
        let wanted = (0..SCALE_MAX).find(|scale| settings.inbox_max >> scale <= 0xffff);
        Self {
            settings,
            phase,
            error: None,
            outbound,
            inbound: Inbound::new(settings.inbox_max),
            peer_seq: 0,
            scale_in: 0,
            scale_out: wanted.unwrap_or(SCALE_MAX),
            is_orphan: false,
            closed_first: false,
            heard_at: now,
            owes: true,
            opening_due: true,
            opening_at: Some(now.after(RTO_INITIAL)),
            opening_sent_at: now,
            opening_resends: 0,
            reset_due: None,
            probe_due: false,
            keepalive_at: None,
            keepalive_probes: 0,
            forget_at: None,
            challenges: 0,
            challenges_since: now,
            has_ecn: false,
            echoes_mark: false,
            slowed_due: false,
            challenged: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::SynSent | Phase::SynReceived | Phase::Closed)
    }

    /// Why it broke, once.
    pub(crate) fn take_error(&mut self) -> Option<ErrorKind> {
        self.error.take()
    }

    /// Bytes to be read.
    pub(crate) fn ready(&self) -> usize {
        self.inbound.ready()
    }

    /// Whether the peer has closed its way, and all of it has come.
    pub(crate) fn peer_has_ended(&self) -> bool {
        self.inbound.has_ended()
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.outbound.is_shut()
    }

    pub(crate) fn room(&self) -> usize {
        self.outbound.room()
    }

    pub(crate) fn counts(&self) -> OutboundCounts {
        self.outbound.counts
    }

    pub(crate) fn set_nodelay(&mut self, nodelay: bool) {
        self.outbound.nodelay = nodelay;
    }

    /// Takes bytes to be sent, [`Connection::room`] at most.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.outbound.write(bytes);
    }

    /// Reads; how many bytes.
    pub(crate) fn read(&mut self, now: Timestamp, out: &mut [u8]) -> usize {
        let len = self.inbound.read(out);
        if len > 0 && self.is_open() && self.inbound.has_opened(self.outbound.mss()) {
            self.inbound.ack_now(now);
        }
        len
    }

    /// Closes the way out; false when that was done before.
    pub(crate) fn shut(&mut self) -> bool {
        let is_new = self.outbound.shut();
        self.closed_first |= is_new && !self.inbound.has_ended();
        is_new
    }

    /// The user has gone: what was written is still delivered, and what comes now is answered with a
    /// reset.
    pub(crate) fn abandon(&mut self, now: Timestamp) {
        self.shut();
        self.is_orphan = true;
        self.inbound.clear();
        if self.phase == Phase::FinWait2 {
            self.forget_at = Some(now.after(ORPHAN_WAIT));
        }
    }

    /// Breaks off with a reset.
    pub(crate) fn abort(&mut self) {
        if !matches!(self.phase, Phase::SynSent | Phase::Closed | Phase::TimeWait) {
            self.reset_due = Some(Header {
                flags: Flags::RST.with(Flags::ACK),
                seq: self.seq(self.outbound.next()),
                ack: self.ack(),
                ..Header::default()
            });
        }
        self.close(None);
    }

    /// Ends it because of what others say: no way there, or a router on the way.
    pub(crate) fn fail(&mut self, error: ErrorKind) -> Wakes {
        self.close(Some(error));
        Wakes { reader: true, writer: true, opened: false }
    }

    /// Whether a segment's bytes are those that are wanted next, and somebody may read them.
    pub(crate) fn takes_next(&self, header: &Header) -> bool {
        let receives = matches!(self.phase, Phase::Established | Phase::FinWait1 | Phase::FinWait2);
        receives
            && !self.is_orphan
            && !self.inbound.has_ended()
            && self.peer_position(header.seq) == self.inbound.next()
    }

    /// The way out ends with what was sent, and what was written beyond it is lost; false when it was
    /// shut already.
    pub(crate) fn cut_short(&mut self) -> bool {
        if !self.is_open() || self.outbound.is_shut() {
            return false;
        }
        self.outbound.forget_unsent();
        self.shut()
    }

    /// The peer's window is shut from now on, whatever it says; false when it is already.
    pub(crate) fn shut_window(&mut self) -> bool {
        self.is_open() && !std::mem::replace(&mut self.outbound.is_held, true)
    }

    /// It is what the peer says again; whether something waited for that.
    pub(crate) fn open_window(&mut self) -> bool {
        self.outbound.is_held = false;
        self.is_open() && self.outbound.has_unsent()
    }

    /// A router on the way takes no packet with more than `mss` bytes in it.
    pub(crate) fn handle_too_long(&mut self, mss: usize) {
        if mss < self.outbound.mss() {
            self.outbound.set_mss(mss);
        }
    }

    fn close(&mut self, error: Option<ErrorKind>) {
        self.phase = Phase::Closed;
        self.error = error;
        self.outbound.clear();
        self.opening_at = None;
        self.opening_due = false;
        self.keepalive_at = None;
        self.forget_at = None;
        self.probe_due = false;
    }

    fn seq(&self, position: u64) -> u32 {
        // The lower half is what goes on the wire.
        self.settings.first_seq.wrapping_add(position as u32)
    }

    fn ack(&self) -> u32 {
        self.peer_seq.wrapping_add(self.inbound.next() as u32)
    }

    /// What a number of the peer's stream stands for.
    fn peer_position(&self, seq: u32) -> u64 {
        widen(seq.wrapping_sub(self.peer_seq), self.inbound.next())
    }

    /// What a number of this end's stream stands for.
    fn own_position(&self, seq: u32) -> u64 {
        widen(seq.wrapping_sub(self.settings.first_seq), self.outbound.next())
    }

    fn take_opening(&mut self, header: &Header) {
        self.peer_seq = header.seq;
        let (mss, scale) = header.opening.map_or((536, 0), |it| (it.mss, it.scale));
        self.outbound.set_mss(usize::from(mss.min(self.settings.mss)));
        self.scale_in = scale.min(SCALE_MAX);
        // The window of a first segment is in bytes.
        self.outbound.on_window(1 + u64::from(header.window), u64::from(header.window));
    }

    /// A segment has come; `is_marked` when it met congestion on its way.
    pub(crate) fn handle_segment(
        &mut self,
        now: Timestamp,
        header: &Header,
        bytes: &[u8],
        is_marked: bool,
    ) -> Wakes {
        match self.phase {
            Phase::Closed => Wakes::default(),
            Phase::SynSent => self.handle_while_connecting(now, header),
            _ => self.handle_in_order(now, header, bytes, is_marked),
        }
    }

    /// RFC 9293, section 3.10.7.3.
    fn handle_while_connecting(&mut self, now: Timestamp, header: &Header) -> Wakes {
        let flags = header.flags;
        let acks_us = flags.has(Flags::ACK) && header.ack == self.seq(1);
        if flags.has(Flags::ACK) && !acks_us {
            if !flags.has(Flags::RST) {
                let (flags, seq) = (Flags::RST, header.ack);
                self.reset_due = Some(Header { flags, seq, ..Header::default() });
            }
            return Wakes::default();
        }
        if flags.has(Flags::RST) {
            return if acks_us {
                self.fail(ErrorKind::ConnectionRefused)
            } else {
                Wakes::default()
            };
        }
        if !flags.has(Flags::SYN) {
            return Wakes::default();
        }
        self.take_opening(header);
        if !acks_us {
            // Both began at the same time.
            self.phase = Phase::SynReceived;
            self.opening_due = true;
            return Wakes::default();
        }
        self.has_ecn = self.settings.has_ecn && flags.has(Flags::ECE) && !flags.has(Flags::CWR);
        self.inbound.ack_now(now);
        self.open(now)
    }

    fn open(&mut self, now: Timestamp) -> Wakes {
        self.phase = Phase::Established;
        self.opening_at = None;
        self.opening_due = false;
        self.heard_at = now;
        self.owes = false;
        if self.opening_resends == 0 {
            self.outbound.on_rtt(now.since(self.opening_sent_at));
        }
        self.keepalive_at = self.settings.keepalive.map(|after| now.after(after));
        Wakes { reader: true, writer: true, opened: true }
    }

    /// RFC 9293, section 3.10.7.4.
    fn handle_in_order(
        &mut self,
        now: Timestamp,
        header: &Header,
        bytes: &[u8],
        is_marked: bool,
    ) -> Wakes {
        let flags = header.flags;
        let from = self.peer_position(header.seq);
        let (is_syn, is_fin) = (flags.has(Flags::SYN), flags.has(Flags::FIN));
        // A SYN stands before the first byte.
        let first = from + u64::from(is_syn);
        let until = first + bytes.len() as u64 + u64::from(is_fin);
        if !self.is_acceptable(from, until) {
            if is_syn && self.phase == Phase::SynReceived && from == 0 {
                if flags.has(Flags::ACK) {
                    // Both began at the same time.
                    self.inbound.ack_now(now);
                    return self.take_ack(now, header).1;
                }
                // Our answer was lost.
                self.opening_due = true;
            } else if !flags.has(Flags::RST) {
                self.inbound.ack_now(now);
                if self.phase == Phase::TimeWait && is_fin {
                    self.forget_at = Some(now.after(TIME_WAIT));
                }
            }
            // A peer that asks is there, whatever of its segment is old.
            if !flags.has(Flags::RST) && from <= self.inbound.next() {
                self.hear(now);
            }
            return Wakes::default();
        }
        if flags.has(Flags::RST) {
            return self.take_reset(now, from);
        }
        if is_syn && self.phase != Phase::SynReceived {
            self.challenge(now);
            return Wakes::default();
        }
        if !flags.has(Flags::ACK) {
            return Wakes::default();
        }
        self.hear(now);
        let (goes_on, mut wakes) = self.take_ack(now, header);
        if !goes_on {
            return wakes;
        }
        if is_marked {
            self.echoes_mark = true;
        }
        if flags.has(Flags::CWR) {
            self.echoes_mark = is_marked;
        }
        if !bytes.is_empty() || is_fin {
            wakes = self.take_bytes(now, first, bytes, is_fin, wakes);
        }
        self.step_phase(now);
        wakes
    }

    /// RFC 9293, section 3.10.7.4, first check.
    fn is_acceptable(&self, from: u64, until: u64) -> bool {
        let (next, edge) = (self.inbound.next(), self.inbound.edge());
        if until == from {
            return from >= next && from <= edge.max(next);
        }
        from <= edge && until > next && (edge > next || from == next)
    }

    fn hear(&mut self, now: Timestamp) {
        self.heard_at = now;
        self.keepalive_probes = 0;
        if self.is_open() {
            self.keepalive_at = self.settings.keepalive.map(|after| now.after(after));
        }
    }

    /// A reset counts only where it is exactly in order (RFC 5961); else it is asked about.
    fn take_reset(&mut self, now: Timestamp, from: u64) -> Wakes {
        if from != self.inbound.next() {
            self.challenge(now);
            return Wakes::default();
        }
        if self.phase == Phase::TimeWait {
            self.close(None);
            return Wakes::default();
        }
        // Who has read the end of the stream learns of it by writing alone.
        let kind = match self.phase {
            Phase::SynReceived => ErrorKind::ConnectionRefused,
            _ if self.inbound.has_ended() => ErrorKind::BrokenPipe,
            _ => ErrorKind::ConnectionReset,
        };
        self.fail(kind)
    }

    /// An answer that tells the peer where this end is; not more than a few a second.
    fn challenge(&mut self, now: Timestamp) {
        if now.since(self.challenges_since) >= Duration::from_secs(1) {
            self.challenges_since = now;
            self.challenges = 0;
        }
        if self.challenges < CHALLENGES_PER_SECOND_MAX {
            self.challenges += 1;
            self.challenged += 1;
            self.inbound.ack_now(now);
        }
    }

    /// What the peer says of this end's stream; whether the rest of its segment counts.
    fn take_ack(&mut self, now: Timestamp, header: &Header) -> (bool, Wakes) {
        let mut wakes = Wakes::default();
        let acked = self.own_position(header.ack);
        let scale = if header.flags.has(Flags::SYN) { 0 } else { self.scale_in };
        let window = u64::from(header.window) << scale;
        if self.phase == Phase::SynReceived {
            if acked == 0 || acked > self.outbound.next() {
                let (flags, seq) = (Flags::RST, header.ack);
                self.reset_due = Some(Header { flags, seq, ..Header::default() });
                return (false, wakes);
            }
            wakes = self.open(now);
        }
        if acked > self.outbound.next() {
            self.challenge(now);
            return (false, wakes);
        }
        self.outbound.on_window(acked + window, window);
        let base = self.settings.first_seq;
        let near = self.outbound.next();
        let wide = move |seq: u32| widen(seq.wrapping_sub(base), near);
        let sacked = header.sack.iter().map(move |(from, to)| (wide(from), wide(to)));
        wakes.writer |= self.outbound.handle_ack(now, acked, sacked);
        self.owes &= self.outbound.is_unanswered();
        if self.has_ecn && header.flags.has(Flags::ECE) && !header.flags.has(Flags::SYN) {
            self.slowed_due |= self.outbound.on_mark(now);
        }
        self.step_phase(now);
        (true, wakes)
    }

    fn take_bytes(
        &mut self,
        now: Timestamp,
        first: u64,
        bytes: &[u8],
        is_fin: bool,
        mut wakes: Wakes,
    ) -> Wakes {
        if self.is_orphan && first + bytes.len() as u64 > self.inbound.next() && !bytes.is_empty() {
            // Nobody will read it, and the peer should know.
            self.abort();
            return wakes;
        }
        let mss = self.outbound.mss();
        let taken = self.inbound.take(now, first, bytes, is_fin, mss);
        wakes.reader |= taken.is_news;
        wakes
    }

    /// Which state the two ways make together.
    fn step_phase(&mut self, now: Timestamp) {
        if !self.is_open() || self.phase == Phase::TimeWait {
            return;
        }
        let out = (self.outbound.end_is_sent(), self.outbound.end_is_acked());
        let was = self.phase;
        self.phase = match (out, self.inbound.has_ended()) {
            ((false, _), false) => Phase::Established,
            ((false, _), true) => Phase::CloseWait,
            ((true, false), false) => Phase::FinWait1,
            ((true, true), false) => Phase::FinWait2,
            ((true, false), true) if self.closed_first => Phase::Closing,
            ((true, false), true) => Phase::LastAck,
            ((true, true), true) if self.closed_first => Phase::TimeWait,
            ((true, true), true) => Phase::Closed,
        };
        if self.phase == was {
            return;
        }
        match self.phase {
            Phase::FinWait2 if self.is_orphan => self.forget_at = Some(now.after(ORPHAN_WAIT)),
            Phase::TimeWait => {
                self.forget_at = Some(now.after(TIME_WAIT));
                self.keepalive_at = None;
                self.outbound.clear();
            }
            // Nothing broke: whoever reads finds the end.
            Phase::Closed => self.close(None),
            _ => {}
        }
    }

    /// When [`Connection::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let ack_at = if self.is_open() { self.inbound.ack_at() } else { None };
        let resend_at = if self.is_open() { self.outbound.timeout_at() } else { None };
        let all = [self.opening_at, ack_at, resend_at, self.keepalive_at, self.forget_at];
        all.into_iter().flatten().min()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Wakes {
        if self.forget_at.is_some_and(|at| at <= now) {
            self.close(None);
            return Wakes::default();
        }
        if self.opening_at.is_some_and(|at| at <= now) {
            return self.opening_timeout(now);
        }
        if !self.is_open() {
            return Wakes::default();
        }
        let silence = now.since(self.heard_at);
        if self.keepalive_at.is_some_and(|at| at <= now) {
            let every = self.settings.keepalive.unwrap_or(TIME_WAIT) / 4;
            self.keepalive_at = Some(now.after(every.max(Duration::from_millis(1))));
            // Where something is unanswered that is asked after anyway.
            if !self.outbound.is_unanswered() {
                if self.keepalive_probes >= KEEPALIVE_PROBES_MAX {
                    return self.fail(ErrorKind::TimedOut);
                }
                self.keepalive_probes += 1;
                self.probe_due = true;
            }
        }
        match self.outbound.handle_timeout(now) {
            Timeout::Nothing => {}
            _ if silence >= self.settings.give_up => return self.fail(ErrorKind::TimedOut),
            Timeout::Resend => {}
            Timeout::Probe => self.probe_due = true,
        }
        Wakes::default()
    }

    fn opening_timeout(&mut self, now: Timestamp) -> Wakes {
        self.opening_resends += 1;
        if self.phase == Phase::SynReceived && self.opening_resends > OPENED_RESENDS_MAX {
            return self.fail(ErrorKind::TimedOut);
        }
        let wait = (RTO_INITIAL * (1 << self.opening_resends.min(6))).min(RTO_MAX);
        self.opening_at = Some(now.after(wait));
        self.opening_due = true;
        Wakes::default()
    }

    /// The next segment to be sent; its bytes are put into `out`, and how many there are is said.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Timestamp,
        out: &mut [u8],
    ) -> Option<(Header, usize)> {
        if let Some(reset) = self.reset_due.take() {
            return Some((reset, 0));
        }
        if std::mem::take(&mut self.opening_due) {
            return Some((self.opening(now), 0));
        }
        if !self.is_open() {
            return None;
        }
        if self.phase != Phase::TimeWait {
            if !self.owes && self.outbound.is_unanswered() {
                // Nothing was owed so far.
                self.owes = true;
                self.heard_at = now;
            }
            if let Some(piece) = self.outbound.poll(now) {
                return Some(self.segment(now, piece, out));
            }
            if std::mem::take(&mut self.probe_due) {
                // Before what is wanted, so that the peer has to say where it is.
                let seq = self.seq(self.outbound.una()).wrapping_sub(1);
                let header = self.header(Flags::ACK, seq);
                return Some((header, 0));
            }
        }
        if self.inbound.ack_at().is_some_and(|at| at <= now) {
            let header = self.header(Flags::ACK, self.seq(self.outbound.next()));
            return Some((header, 0));
        }
        None
    }

    fn opening(&mut self, now: Timestamp) -> Header {
        self.opening_sent_at = now;
        let is_answer = self.phase == Phase::SynReceived;
        let flags = if is_answer {
            Flags::SYN.with(Flags::ACK).with_if(self.has_ecn, Flags::ECE)
        } else {
            Flags::SYN.with_if(self.settings.has_ecn, Flags::ECE.with(Flags::CWR))
        };
        let window = self.settings.inbox_max.min(usize::from(u16::MAX));
        Header {
            flags,
            seq: self.seq(0),
            ack: if is_answer { self.ack() } else { 0 },
            // Held to what it can say.
            window: window as u16,
            opening: Some(Opening { mss: self.settings.mss, scale: self.scale_out }),
            sack: Sack::default(),
        }
    }

    fn segment(&mut self, now: Timestamp, piece: Piece, out: &mut [u8]) -> (Header, usize) {
        let len = self.outbound.copy(&piece, out);
        let slowed = piece.is_new && std::mem::take(&mut self.slowed_due);
        let flags = Flags::ACK.with_if(piece.is_end, Flags::FIN).with_if(slowed, Flags::CWR);
        let header = self.header(flags, self.seq(piece.from));
        self.step_phase(now);
        (header, len)
    }

    fn header(&mut self, flags: Flags, seq: u32) -> Header {
        let flags = flags.with_if(self.has_ecn && self.echoes_mark, Flags::ECE);
        let mut sack = Sack::default();
        for (from, to) in self.inbound.ranges() {
            let wire = |position: u64| self.peer_seq.wrapping_add(position as u32);
            sack.push(wire(from), wire(to));
        }
        let window = self.inbound.advertise(self.scale_out);
        Header { flags, seq, ack: self.ack(), window, opening: None, sack }
    }

    /// Whether segments with bytes may be marked by queues on the way.
    pub(crate) fn can_be_marked(&self) -> bool {
        self.has_ecn
    }

    #[cfg(test)]
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }
}
