//! The way out of a connection: what is unacknowledged, what is lost, what may leave now.

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_reliable::{Congestion, RttEstimator};

/// Time until the first resend before a round trip is known (RFC 6298).
pub(crate) const RTO_INITIAL: Duration = Duration::from_secs(1);
/// The least time until a resend, as Linux has it; RFC 6298 would have a second.
const RTO_MIN: Duration = Duration::from_millis(200);
/// The most (RFC 6298, section 2.5).
pub(crate) const RTO_MAX: Duration = Duration::from_secs(60);
/// Segments acknowledged out of order above one that is then taken for lost (RFC 6675).
const OVERTAKEN_MAX: u32 = 3;

/// One direction of a stream, seen from who sends. Positions count from the SYN at 0; the first
/// byte is at 1, the FIN after the last.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// What is not acknowledged, from `una` on.
    outbox: VecDeque<u8>,
    outbox_max: usize,
    una: u64,
    /// Where what was never sent begins.
    next: u64,
    /// Where the stream ends, once that is known.
    end_at: Option<u64>,
    /// Up to where the peer lets it send.
    edge: u64,
    /// The largest window that the peer ever gave.
    window_max: u64,
    sent: VecDeque<Sent>,
    /// How many of those are acknowledged out of order, and how many are to go again.
    sacked: usize,
    lost: usize,
    congestion: Congestion,
    rtt: RttEstimator,
    rto_max: Duration,
    mss: usize,
    pub(crate) nodelay: bool,
    /// Whether the peer's window counts as shut, whatever it says.
    pub(crate) is_held: bool,
    /// Timeouts in a row.
    pub(crate) backoff: u32,
    /// When all counts as lost, or the peer's window is asked for.
    timeout_at: Option<Timestamp>,
    /// When the newest of what was delivered had been sent.
    delivered_at: Timestamp,
    pub(crate) counts: OutboundCounts,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutboundCounts {
    pub(crate) resent: u64,
    pub(crate) timeouts: u64,
    pub(crate) probes: u64,
    pub(crate) reductions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    from: u64,
    to: u64,
    at: Timestamp,
    state: SentState,
    /// Whether it was sent more than once, so that its ack tells no round trip (Karn).
    is_again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentState {
    InFlight,
    /// Acknowledged out of order.
    Sacked,
    Lost,
}

/// What leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) from: u64,
    pub(crate) len: usize,
    pub(crate) is_end: bool,
    pub(crate) is_new: bool,
}

/// What a timeout asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    Nothing,
    /// All that was in flight goes again.
    Resend,
    /// The peer is asked whether it has room.
    Probe,
}

impl Outbound {
    /// One that waits no longer than `rto_max` until it tries again.
    pub(crate) fn new(outbox_max: usize, mss: usize, rto_max: Duration) -> Self {
        let rto_max = rto_max.clamp(RTO_MIN, RTO_MAX);
        Self {
            outbox: VecDeque::new(),
            outbox_max,
            una: 1,
            next: 1,
            end_at: None,
            edge: 1,
            window_max: 0,
            sent: VecDeque::new(),
            sacked: 0,
            lost: 0,
            congestion: Congestion::new(),
            rtt: RttEstimator::new(RTO_INITIAL, RTO_MIN, RTO_MAX),
            rto_max,
            mss,
            nodelay: true,
            is_held: false,
            backoff: 0,
            timeout_at: None,
            delivered_at: Timestamp::START,
            counts: OutboundCounts::default(),
        }
    }

    pub(crate) fn una(&self) -> u64 {
        self.una
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn set_mss(&mut self, mss: usize) {
        self.mss = mss.max(1);
    }

    pub(crate) fn mss(&self) -> usize {
        self.mss
    }

    /// What there is room for.
    pub(crate) fn room(&self) -> usize {
        self.outbox_max.saturating_sub(self.outbox.len())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.outbox.extend(bytes);
    }

    /// Marks where the stream ends; false when that was done before.
    pub(crate) fn shut(&mut self) -> bool {
        let is_new = self.end_at.is_none();
        self.end_at.get_or_insert(self.una + self.outbox.len() as u64);
        is_new
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.end_at.is_some()
    }

    pub(crate) fn end_is_sent(&self) -> bool {
        self.end_at.is_some_and(|at| self.next > at)
    }

    pub(crate) fn end_is_acked(&self) -> bool {
        self.end_at.is_some_and(|at| self.una > at)
    }

    /// Whether the peer has something to take or to acknowledge.
    pub(crate) fn is_unanswered(&self) -> bool {
        !self.outbox.is_empty() || self.end_at.is_some_and(|at| self.una <= at)
    }

    /// Whether there is what was never sent.
    pub(crate) fn has_unsent(&self) -> bool {
        let written = self.una + self.outbox.len() as u64;
        !self.end_is_sent() && (self.next < written || self.end_at.is_some())
    }

    /// Forgets what was written and never sent.
    pub(crate) fn forget_unsent(&mut self) {
        let sent = usize::try_from(self.next - self.una).unwrap_or(usize::MAX);
        self.outbox.truncate(sent);
    }

    /// Forgets everything: nobody will ask for it.
    pub(crate) fn clear(&mut self) {
        self.outbox = VecDeque::new();
        self.sent = VecDeque::new();
        (self.sacked, self.lost) = (0, 0);
        self.timeout_at = None;
    }

    /// A round trip that was measured otherwise: by the handshake.
    pub(crate) fn on_rtt(&mut self, rtt: Duration) {
        self.rtt.on_sample(rtt, Duration::ZERO);
    }

    /// Until where the peer lets it send.
    pub(crate) fn on_window(&mut self, edge: u64, window: u64) {
        if edge > self.edge && self.sent.is_empty() {
            // It was closed, and asking for it is over.
            self.backoff = 0;
            self.timeout_at = None;
        }
        self.edge = self.edge.max(edge);
        self.window_max = self.window_max.max(window);
    }

    /// What leaves next, if the window, the path and the peer have room for it.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Option<Piece> {
        let resends = self.lost > 0 && self.congestion.has_room();
        let piece = if resends { self.lost_piece(now) } else { None };
        let piece = piece.or_else(|| self.new_piece(now));
        if self.is_unanswered() && self.timeout_at.is_none() {
            // Also where nothing left because the window is closed: then it is asked for.
            self.timeout_at = Some(now.after(self.rto_backed_off()));
        }
        piece
    }

    fn lost_piece(&mut self, now: Timestamp) -> Option<Piece> {
        let index = self.sent.iter().position(|sent| sent.state == SentState::Lost)?;
        self.split(index);
        let lost = self.sent.get_mut(index)?;
        lost.state = SentState::InFlight;
        lost.at = now;
        lost.is_again = true;
        let sent = *lost;
        self.lost -= 1;
        self.congestion.on_sent(now, sent.to - sent.from, false, nanos(self.rtt.smoothed()));
        self.counts.resent += 1;
        Some(self.piece(sent.from, sent.to, false))
    }

    /// Cuts what goes again in two where it is longer than a segment may be by now.
    fn split(&mut self, index: usize) {
        let Some(sent) = self.sent.get_mut(index) else { return };
        let until = sent.from + self.mss as u64;
        if sent.to > until + 1 {
            let rest = Sent { from: until, ..*sent };
            sent.to = until;
            self.sent.insert(index + 1, rest);
            self.lost += 1;
        }
    }

    fn new_piece(&mut self, now: Timestamp) -> Option<Piece> {
        if self.end_is_sent() || self.is_held || !self.congestion.has_room() {
            return None;
        }
        let sent = usize::try_from(self.next - self.una).unwrap_or(usize::MAX);
        let unsent = self.outbox.len().saturating_sub(sent);
        let window = self.edge.saturating_sub(self.next);
        let len = unsent.min(self.mss).min(usize::try_from(window).unwrap_or(usize::MAX));
        let ends = self.end_at.is_some() && len == unsent && window > len as u64;
        if len == 0 && !ends {
            return None;
        }
        let is_idle = self.sent.is_empty();
        // No crumbs because of a small window (RFC 1122, section 4.2.3.4).
        if len < self.mss && len < unsent && !is_idle && (len as u64) * 2 < self.window_max {
            return None;
        }
        // Nor because of small writes, where that is wanted (Nagle).
        if len < self.mss && len == unsent && !ends && !self.nodelay && !is_idle {
            return None;
        }
        let (from, to) = (self.next, self.next + len as u64 + u64::from(ends));
        self.next = to;
        let state = SentState::InFlight;
        self.sent.push_back(Sent { from, to, at: now, state, is_again: false });
        self.congestion.on_sent(now, to - from, false, nanos(self.rtt.smoothed()));
        Some(self.piece(from, to, true))
    }

    fn piece(&self, from: u64, to: u64, is_new: bool) -> Piece {
        let is_end = self.end_at.is_some_and(|at| to > at);
        let len = usize::try_from(to - from - u64::from(is_end)).unwrap_or(usize::MAX);
        Piece { from, len, is_end, is_new }
    }

    /// Copies the bytes of a piece; how many there are.
    pub(crate) fn copy(&self, piece: &Piece, out: &mut [u8]) -> usize {
        let start = usize::try_from(piece.from.saturating_sub(self.una)).unwrap_or(usize::MAX);
        let (front, back) = self.outbox.as_slices();
        let from_front = front.get(start..).unwrap_or_default();
        let from_back = back.get(start.saturating_sub(front.len())..).unwrap_or_default();
        let mut copied = 0;
        for part in [from_front, from_back] {
            let len = part.len().min(piece.len - copied).min(out.len() - copied);
            if let (Some(to), Some(from)) = (out.get_mut(copied..copied + len), part.get(..len)) {
                to.copy_from_slice(from);
                copied += len;
            }
        }
        copied
    }

    /// The peer has everything before `acked`, and the ranges `sacked` besides. Says whether that
    /// was news.
    pub(crate) fn handle_ack(
        &mut self,
        now: Timestamp,
        acked: u64,
        sacked: impl Iterator<Item = (u64, u64)>,
    ) -> bool {
        let before = self.una;
        let mut newest = None;
        while let Some(first) = self.sent.front_mut()
            && first.from < acked
        {
            if first.to > acked {
                // Some of it: the rest is as it was.
                first.from = acked;
                break;
            }
            let sent = *first;
            self.sent.pop_front();
            self.sacked -= usize::from(sent.state == SentState::Sacked);
            self.lost -= usize::from(sent.state == SentState::Lost);
            self.deliver(now, &sent, &mut newest);
        }
        if acked > self.una {
            let bytes = usize::try_from(acked - self.una).unwrap_or(usize::MAX);
            self.outbox.drain(..bytes.min(self.outbox.len()));
            self.una = acked;
            self.next = self.next.max(acked);
            self.backoff = 0;
        }
        for (from, to) in sacked {
            for index in 0..self.sent.len() {
                let Some(sent) = self.sent.get_mut(index) else { break };
                if sent.from < from || sent.to > to || sent.state == SentState::Sacked {
                    continue;
                }
                let was = *sent;
                sent.state = SentState::Sacked;
                self.sacked += 1;
                self.lost -= usize::from(was.state == SentState::Lost);
                self.deliver(now, &was, &mut newest);
            }
        }
        if let Some(at) = newest {
            self.delivered_at = self.delivered_at.max(at);
            if self.sacked > 0 {
                self.find_losses(now);
            }
        }
        if self.una > before || newest.is_some() {
            let waits = self.is_unanswered();
            self.timeout_at = waits.then(|| now.after(self.rto_backed_off()));
        }
        self.una > before
    }

    /// A piece is with the peer.
    fn deliver(&mut self, now: Timestamp, sent: &Sent, newest: &mut Option<Timestamp>) {
        let rtt = now.since(sent.at);
        match sent.state {
            SentState::Sacked => return,
            SentState::InFlight => {
                let smoothed = nanos(self.rtt.smoothed());
                self.congestion.on_acked(now, sent.to - sent.from, sent.at, smoothed);
            }
            SentState::Lost if !sent.is_again => self.congestion.on_spurious(sent.at),
            SentState::Lost => {}
        }
        if !sent.is_again {
            self.rtt.on_sample(rtt, Duration::ZERO);
            self.congestion.on_rtt(now, sent.at, nanos(rtt));
        }
        *newest = (*newest).max(Some(sent.at));
    }

    /// Takes for lost what enough that was sent later has overtaken.
    fn find_losses(&mut self, now: Timestamp) {
        let window = self.congestion.window();
        let mut above = 0;
        let lag = self.rtt.smoothed() / 4;
        for sent in self.sent.iter_mut().rev() {
            match sent.state {
                SentState::Sacked => above += 1,
                SentState::InFlight => {
                    // One that was sent again is overtaken by time: those above it were there before.
                    let is_lost = if sent.is_again {
                        above > 0 && sent.at.after(lag) < self.delivered_at
                    } else {
                        above >= OVERTAKEN_MAX
                    };
                    if is_lost {
                        sent.state = SentState::Lost;
                        self.lost += 1;
                        self.congestion.on_lost(now, sent.to - sent.from, sent.at);
                    }
                }
                SentState::Lost => {}
            }
        }
        self.counts.reductions += u64::from(self.congestion.window() < window);
    }

    /// The peer saw a congestion mark: the window shrinks, once in a round trip. Says whether.
    pub(crate) fn on_mark(&mut self, now: Timestamp) -> bool {
        let window = self.congestion.window();
        self.congestion.on_lost(now, 0, self.delivered_at);
        let shrank = self.congestion.window() < window;
        self.counts.reductions += u64::from(shrank);
        shrank
    }

    /// When [`Outbound::handle_timeout`] is due.
    pub(crate) fn timeout_at(&self) -> Option<Timestamp> {
        self.timeout_at
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Timeout {
        if self.timeout_at.is_none_or(|at| now < at) {
            return Timeout::Nothing;
        }
        self.timeout_at = None;
        if !self.is_unanswered() {
            return Timeout::Nothing;
        }
        self.backoff = self.backoff.saturating_add(1);
        self.timeout_at = Some(now.after(self.rto_backed_off()));
        if self.sent.iter().all(|sent| sent.state == SentState::Sacked) {
            self.counts.probes += 1;
            return Timeout::Probe;
        }
        self.counts.timeouts += 1;
        for sent in self.sent.iter_mut().filter(|sent| sent.state == SentState::InFlight) {
            sent.state = SentState::Lost;
            self.lost += 1;
        }
        self.congestion.on_collapse(now, self.mss as u64);
        Timeout::Resend
    }

    fn rto_backed_off(&self) -> Duration {
        (self.rtt.rto() * (1 << self.backoff.min(10))).min(self.rto_max)
    }

    #[cfg(test)]
    pub(crate) fn window(&self) -> u64 {
        self.congestion.window()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
