//! How much may be in flight and how fast it leaves: CUBIC (RFC 9438) in bytes, with a slow start
//! that ends when the round trip grows (after HyStart++, RFC 9406) and with pacing.
//!
//! It behaves as the TCP flows that it meets at a bottleneck do, so that they share it. Windows are
//! bytes, not packets: a flow of small messages, whose packets are far from filling the least window,
//! is never held up, and a window grows only while the flow uses it.

use core::time::Duration;

use twinspan_core::time::Timestamp;

use crate::config::BURST_BYTES_MIN;

/// A full packet, in bytes: the unit of the windows below.
const SEGMENT: u64 = 1_200;
/// Window at the start and after a pause.
pub(crate) const WINDOW_INITIAL: u64 = 10 * SEGMENT;
/// Least window: enough for what a player says in a round trip.
pub(crate) const WINDOW_MIN: u64 = 4 * SEGMENT;
/// Largest window.
pub(crate) const WINDOW_MAX: u64 = 4 << 20;
/// What may leave at once, ahead of the pace, however slow that is.
const BURST: u64 = BURST_BYTES_MIN;
/// And where the pace earns more in this part of a second, that, up to a limit: a call to the kernel
/// costs less for each datagram the more there are of them.
const BURSTS_PER_SECOND: u64 = 4_000;
/// The window after a loss, in tenths (RFC 9438, section 4.6).
const BETA_TENTHS: u64 = 7;
/// Timeouts in a row, each of them without any ack, after which the path is taken for choked.
const CHOKED_TIMEOUTS: u32 = 3;
/// Samples of a round before its least round trip says anything.
const ROUND_SAMPLES: u32 = 8;
/// By how much the least round trip of a round must grow to end slow start: an eighth, within this.
const GROWTH_MIN_NS: u64 = 4_000_000;
const GROWTH_MAX_NS: u64 = 16_000_000;
/// Round trip that is assumed before the first is known.
const RTT_ASSUMED_NS: u64 = 250_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// What is restored when all losses of a reduction turn out to be none.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    window: u64,
    threshold: u64,
    peak: u64,
}

/// The controller of one direction of one path: how many bytes may be in flight.
///
/// Its owner counts nothing itself: it says what left ([`on_sent`](Self::on_sent)), and what was
/// acknowledged, lost or forgotten, with the moment at which that left. Bytes are payload with or
/// without headers, as the owner likes. Round trips are in nanoseconds.
// What every packet touches comes first.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Congestion {
    window: u64,
    /// Slow start below.
    threshold: u64,
    in_flight: u64,
    sent_at: Timestamp,
    /// Packets sent up to then were sent before the last reduction and cause no other.
    reduced_at: Timestamp,
    /// When the growth since the last reduction began; never while it did not.
    epoch_at: Timestamp,
    /// The slow-start round ends with the ack of a packet sent after this.
    round_at: Timestamp,
    round_min_ns: u64,
    last_round_min_ns: u64,
    round_samples: u32,
    /// Losses since the last reduction's first, and how many of them turned out to be none.
    event_losses: u32,
    event_spurious: u32,
    /// Bytes that may leave ahead of the pace, as of `paced_at`; below zero is a debt.
    tokens: i64,
    paced_at: Timestamp,
    /// The pace, in bytes a second.
    pace: u64,
    /// Window at the last reduction, the plateau of the cubic.
    peak: u64,
    /// How long from there to the plateau, in milliseconds.
    plateau_ms: u64,
    /// The window that a TCP Reno flow would have now.
    reno: u64,
    before: Before,
    burst_max: u64,
    /// All that may leave ahead of the pace has left, and not enough was earned since.
    is_spent: bool,
}

impl Congestion {
    /// One that knows nothing of its path yet.
    pub const fn new() -> Self {
        Self {
            window: WINDOW_INITIAL,
            threshold: WINDOW_MAX,
            in_flight: 0,
            peak: 0,
            epoch_at: Timestamp::NEVER,
            plateau_ms: 0,
            reno: 0,
            reduced_at: Timestamp::START,
            event_losses: 0,
            event_spurious: 0,
            before: Before { window: 0, threshold: 0, peak: 0 },
            round_at: Timestamp::START,
            round_min_ns: u64::MAX,
            round_samples: 0,
            last_round_min_ns: u64::MAX,
            tokens: BURST as i64,
            paced_at: Timestamp::START,
            pace: 1,
            sent_at: Timestamp::START,
            burst_max: BURST,
            is_spent: false,
        }
    }

    /// The same with bursts of up to `bytes` where the pace is fast, see
    /// [`Config::burst_bytes_max`](crate::Config::burst_bytes_max).
    #[must_use]
    pub const fn with_bursts(self, bytes: u64) -> Self {
        // Far more would overflow what is earned in it.
        Self { burst_max: if bytes > 1 << 30 { 1 << 30 } else { bytes }, ..self }
    }

    /// What may leave at once.
    fn burst(&self) -> i64 {
        let burst = (self.pace / BURSTS_PER_SECOND).min(self.burst_max).max(BURST);
        // At most a gigabyte.
        burst as i64
    }

    /// What must be earned before anything leaves again when all was spent: half a burst where that is
    /// long, so that trains are, but no more than a small part of the window; else a byte.
    fn quantum(&self) -> i64 {
        let burst = self.burst();
        // At most a mebibyte.
        let part = (self.window / 4) as i64;
        if burst > BURST as i64 { part.min(burst / 2) } else { 1 }
    }

    /// Bytes that may be in flight.
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// Bytes in flight.
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether the window has room, pace aside.
    pub const fn has_room(&self) -> bool {
        self.in_flight < self.window
    }

    /// Whether a paced packet may leave now.
    #[cfg(test)]
    pub(crate) fn may_leave(&self, now: Timestamp) -> bool {
        self.has_room() && self.next_at() <= now
    }

    /// When the pace allows the next packet.
    pub(crate) fn next_at(&self) -> Timestamp {
        let needed = if self.is_spent { self.quantum() } else { 1 };
        let missing = needed - self.tokens;
        if missing <= 0 {
            return Timestamp::START;
        }
        let nanos = missing.unsigned_abs().saturating_mul(SECOND_NS).div_ceil(self.pace);
        self.paced_at.after(Duration::from_nanos(nanos))
    }

    /// Bytes a second that the path bears, as far as is known.
    pub(crate) const fn rate(&self, smoothed_ns: u64) -> u64 {
        let rtt = if smoothed_ns == 0 { RTT_ASSUMED_NS } else { smoothed_ns };
        // The window is at most 4 MiB: no overflow.
        self.window * SECOND_NS / rtt
    }

    /// A packet that wants an ack left. `paced`: it carries frames that wait for the pace.
    pub fn on_sent(&mut self, now: Timestamp, bytes: u64, paced: bool, smoothed_ns: u64) {
        if self.in_flight == 0 && now.since(self.sent_at) > pause(smoothed_ns) {
            // What was known of the path is old.
            self.window = self.window.min(WINDOW_INITIAL);
            self.epoch_at = Timestamp::NEVER;
        }
        self.in_flight += bytes;
        self.sent_at = now;
        if paced {
            // Somewhat faster than a window each round trip, so that the pace is not the limit.
            let slow_start = self.window < self.threshold;
            let (gain, of) = if slow_start { (2, 1) } else { (5, 4) };
            self.refill(now);
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 4);
            self.tokens = self.tokens.saturating_sub(bytes);
            self.is_spent |= self.tokens <= 0;
            self.pace = (self.rate(smoothed_ns) / of * gain).max(1);
        }
    }

    /// Counts what the pace has earned by now.
    pub(crate) fn refill(&mut self, now: Timestamp) {
        let elapsed = now.since(self.paced_at).as_nanos();
        let earned = elapsed * u128::from(self.pace) / u128::from(SECOND_NS);
        // Less than a byte is not lost: it is counted when it is one.
        if earned > 0 {
            let burst = self.burst();
            let earned = i64::try_from(earned.min(1 << 32)).unwrap_or(burst);
            self.tokens = (self.tokens + earned).min(burst);
            self.paced_at = now;
            self.is_spent &= self.tokens < self.quantum();
        }
    }

    /// A packet is no longer in flight and says nothing of the path.
    pub const fn on_forgotten(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// A packet in flight was acknowledged.
    pub fn on_acked(&mut self, now: Timestamp, bytes: u64, sent_at: Timestamp, smoothed_ns: u64) {
        // Twice what is in flight in slow start, where bursts use the window half of the time.
        let used = match self.window < self.threshold {
            true => 2 * self.in_flight,
            false => self.in_flight + 3 * SEGMENT,
        };
        let is_used = used >= self.window;
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if sent_at <= self.reduced_at && self.reduced_at != Timestamp::START {
            return;
        }
        if !is_used {
            // A window that nobody fills proves nothing; its growth goes on when it is used.
            self.epoch_at = Timestamp::NEVER;
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + bytes).min(WINDOW_MAX);
        } else {
            self.grow(now, bytes, smoothed_ns);
        }
    }

    /// The cubic, and never slower than Reno.
    fn grow(&mut self, now: Timestamp, bytes: u64, smoothed_ns: u64) {
        if self.epoch_at == Timestamp::NEVER {
            self.epoch_at = now;
            self.peak = self.peak.max(self.window);
            // K = cbrt((peak - window) / C) seconds, C = 0.4 segments.
            let missing = u128::from(self.peak - self.window) * 2_500_000_000;
            self.plateau_ms = cube_root(missing / u128::from(SEGMENT));
            self.reno = self.window;
        }
        let ahead = now.since(self.epoch_at).as_nanos() + u128::from(smoothed_ns);
        let off =
            i128::try_from(ahead / 1_000_000).unwrap_or(i128::MAX) - i128::from(self.plateau_ms);
        // A minute from the plateau is far past every window.
        let off = off.clamp(-60_000, 60_000);
        let cubic = i128::from(self.peak) + off.pow(3) * i128::from(SEGMENT) * 4 / 10_000_000_000;
        let most = self.window + self.window / 2;
        let target = u64::try_from(cubic).unwrap_or(0).clamp(self.window, most);
        let window = u128::from(self.window);
        let share = |amount: u64| {
            let grown = u128::from(amount) * u128::from(bytes) / window;
            u64::try_from(grown).unwrap_or(0)
        };
        // alpha = 3 (1 - beta) / (1 + beta) = 9 / 17 of a segment each window.
        self.reno += share(SEGMENT) * 9 / 17;
        self.window = (self.window + share(target - self.window)).max(self.reno).min(WINDOW_MAX);
    }

    /// A round trip was measured: slow start ends where queues begin.
    pub fn on_rtt(&mut self, now: Timestamp, sent_at: Timestamp, rtt_ns: u64) {
        if self.window >= self.threshold {
            return;
        }
        if sent_at >= self.round_at {
            self.last_round_min_ns = self.round_min_ns;
            self.round_min_ns = u64::MAX;
            self.round_samples = 0;
            self.round_at = now;
        }
        self.round_min_ns = self.round_min_ns.min(rtt_ns);
        self.round_samples += 1;
        if self.last_round_min_ns == u64::MAX || self.round_samples < ROUND_SAMPLES {
            return;
        }
        let growth = (self.last_round_min_ns / 8).clamp(GROWTH_MIN_NS, GROWTH_MAX_NS);
        if self.round_min_ns >= self.last_round_min_ns.saturating_add(growth) {
            self.threshold = self.window;
        }
    }

    /// A packet in flight was lost.
    pub fn on_lost(&mut self, now: Timestamp, bytes: u64, sent_at: Timestamp) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.event_losses = self.event_losses.saturating_add(1);
        if sent_at <= self.reduced_at && self.reduced_at != Timestamp::START {
            return;
        }
        self.before = Before { window: self.window, threshold: self.threshold, peak: self.peak };
        self.event_losses = 1;
        self.event_spurious = 0;
        self.reduced_at = now;
        // One that did not get back to its last plateau leaves room for others.
        self.peak = if self.window < self.peak {
            self.window * (10 + BETA_TENTHS) / 20
        } else {
            self.window
        };
        self.window = (self.window * BETA_TENTHS / 10).max(WINDOW_MIN);
        self.threshold = self.window;
        self.epoch_at = Timestamp::NEVER;
    }

    /// A packet that was taken for lost arrived after all.
    pub fn on_spurious(&mut self, sent_at: Timestamp) {
        if sent_at > self.reduced_at || self.before.window == 0 {
            return;
        }
        self.event_spurious = self.event_spurious.saturating_add(1);
        if self.event_spurious >= self.event_losses {
            let Before { window, threshold, peak } = core::mem::take(&mut self.before);
            self.window = self.window.max(window);
            self.threshold = self.threshold.max(threshold);
            self.peak = peak;
            self.epoch_at = Timestamp::NEVER;
        }
    }

    /// Nothing was acknowledged for the `level`-th timeout in a row.
    pub(crate) fn on_timeout(&mut self, now: Timestamp, level: u32) {
        if level == CHOKED_TIMEOUTS {
            self.threshold = (self.window / 2).max(WINDOW_MIN);
            self.window = WINDOW_MIN;
            self.reduced_at = now;
            self.epoch_at = Timestamp::NEVER;
            self.before = Before::default();
        }
    }

    /// Nothing was acknowledged for a whole timeout: all that was in flight counts as forgotten, and
    /// the window is one segment of `segment` bytes until acks come (RFC 5681, section 3.1). For
    /// protocols that take every timeout so, as TCP does.
    pub fn on_collapse(&mut self, now: Timestamp, segment: u64) {
        if self.window > segment {
            self.peak = self.window;
            self.threshold = (self.window * BETA_TENTHS / 10).max(WINDOW_MIN);
        }
        self.window = segment;
        self.in_flight = 0;
        // What leaves at this very moment is sent after the reduction.
        self.reduced_at = now.before(Duration::from_nanos(1));
        self.epoch_at = Timestamp::NEVER;
        self.before = Before::default();
    }

    /// Another path: nothing is known of it.
    pub(crate) fn restart(&mut self) {
        let Self { in_flight, burst_max, .. } = *self;
        *self = Self { in_flight, burst_max, ..Self::new() };
    }
}

impl Default for Congestion {
    fn default() -> Self {
        Self::new()
    }
}

/// How long nothing must have left for the window to be old news.
fn pause(smoothed_ns: u64) -> Duration {
    Duration::from_nanos(smoothed_ns.saturating_mul(4).max(SECOND_NS / 2))
}

/// The cube root, rounded down.
fn cube_root(of: u128) -> u64 {
    let (mut low, mut high) = (0_u128, 1_u128 << 42);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if middle * middle * middle <= of { low = middle } else { high = middle }
    }
    low as u64
}

#[cfg(test)]
mod tests;
