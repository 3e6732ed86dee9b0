use super::*;

/// Bytes a second that a client would get on a path without limits.
const MOST: u32 = 64 * 1_024;
/// Ticks from one state to the next.
const STATE_TICKS: u32 = 3;

/// A path with a queue before its narrowest place.
struct Path {
    rate: u64,
    /// Milliseconds.
    rtt: u64,
    queue: u64,
    /// Drops what finds so many bytes waiting.
    queue_max: u64,
    seen: FlowStats,
    smoothed_us: u64,
}

impl Path {
    fn new(rate: u64, rtt: u64) -> Self {
        let mut seen = FlowStats::default();
        seen.rtt = Duration::from_millis(rtt);
        seen.rtt_min = seen.rtt;
        seen.budget_bytes_per_s = 12_000 * 1_000 / rtt;
        Self { rate, rtt, queue: 0, queue_max: u64::MAX, seen, smoothed_us: rtt * 1_000 }
    }

    fn wait_ms(&self) -> u64 {
        self.queue * 1_000 / self.rate
    }

    /// One state of so many bytes, and what passed until the next.
    fn carry(&mut self, bytes: u64) {
        if self.queue + bytes > self.queue_max {
            self.seen.packets_lost += 1;
        } else {
            self.queue += bytes;
            self.seen.packets_acked += 1;
        }
        let passed = (self.rate * u64::from(STATE_TICKS) / 60).min(self.queue);
        self.queue -= passed;
        self.seen.bytes_acked += passed;
        let rtt_us = (self.rtt + self.wait_ms()) * 1_000;
        self.smoothed_us = (self.smoothed_us * 5 + rtt_us * 3) / 8;
        self.seen.rtt = Duration::from_micros(self.smoothed_us);
        self.seen.budget_bytes_per_s = 12_000 * 1_000 / (self.rtt + self.wait_ms());
    }
}

/// Sends all that is allowed for so many seconds; how long each state waited, in milliseconds, and
/// the limit at the end.
fn run(flow: &mut Flow, path: &mut Path, from: u32, seconds: u32) -> Vec<u64> {
    let mut waits = Vec::new();
    for tick in (from..from + seconds * 60).step_by(STATE_TICKS as usize) {
        if flow.is_due(tick) {
            flow.look(tick, &path.seen, MOST);
        }
        let bytes = u64::from(flow.limit().min(MOST)) * u64::from(STATE_TICKS) / 60;
        path.carry(bytes);
        waits.push(path.wait_ms());
    }
    waits
}

#[test]
fn a_narrow_path_is_filled_and_its_queue_stays_short() {
    for (rate, rtt) in [(12_500, 400), (12_500, 40), (25_000, 100), (40_000, 250)] {
        let (mut flow, mut path) = (Flow::new(), Path::new(rate, rtt));
        run(&mut flow, &mut path, 60, 10);
        let before = path.seen.bytes_acked;
        let mut waits = run(&mut flow, &mut path, 660, 60);
        waits.sort_unstable();
        let p99 = waits[waits.len() * 99 / 100];
        assert!(p99 <= 150, "{rate} B/s, {rtt} ms: {p99} ms in queues");
        let used = (path.seen.bytes_acked - before) * 100 / (rate * 60);
        assert!(used >= 75, "{rate} B/s, {rtt} ms: {used} % used");
    }
}

#[test]
fn a_wide_path_is_not_limited() {
    let (mut flow, mut path) = (Flow::new(), Path::new(1_000_000, 20));
    run(&mut flow, &mut path, 60, 30);
    assert_eq!(flow.limit(), u32::MAX);
    // Nor one on which packets are lost by chance.
    for second in 0..30 {
        path.seen.packets_lost += 1;
        run(&mut flow, &mut path, 2_000 + second * 60, 1);
    }
    assert_eq!(flow.limit(), u32::MAX, "5 % of losses");
}

#[test]
fn losses_without_a_queue_are_believed_as_far_as_congestion_control_does() {
    let (mut flow, mut path) = (Flow::new(), Path::new(20_000, 40));
    path.queue_max = 1_000;
    run(&mut flow, &mut path, 60, 20);
    let (lost, acked) = (path.seen.packets_lost, path.seen.packets_acked);
    assert!(lost > acked, "states of 3 kB never fit this queue");
    path.seen.budget_bytes_per_s = 9_000;
    flow.looked_at = 0;
    path.seen.packets_lost += 50;
    flow.look(60_000, &path.seen, MOST);
    assert!(flow.limit() >= 9_000);
}

#[test]
fn a_path_that_widens_is_found_wide_again() {
    let (mut flow, mut path) = (Flow::new(), Path::new(12_500, 200));
    run(&mut flow, &mut path, 60, 20);
    assert!(flow.limit() < 20_000);
    path.rate = 1_000_000;
    run(&mut flow, &mut path, 1_500, 30);
    assert_eq!(flow.limit(), u32::MAX);
}

#[test]
fn a_path_that_becomes_longer_is_not_taken_for_a_queue_for_ever() {
    let (mut flow, mut path) = (Flow::new(), Path::new(1_000_000, 20));
    run(&mut flow, &mut path, 60, 20);
    path.rtt = 180;
    run(&mut flow, &mut path, 1_500, 60);
    assert_eq!(flow.limit(), u32::MAX);
    assert!(run(&mut flow, &mut path, 6_000, 1).iter().all(|wait| *wait < 50));
}

#[test]
fn whoever_moved_begins_anew() {
    let (mut flow, mut path) = (Flow::new(), Path::new(12_500, 200));
    run(&mut flow, &mut path, 60, 20);
    assert_ne!(flow.limit(), u32::MAX);
    flow.forget();
    assert_eq!(flow.limit(), u32::MAX);
}

#[test]
fn a_limit_that_headers_use_up_does_not_stay() {
    // The first round trip took seconds, for reasons that are over.
    let (mut flow, mut path) = (Flow::new(), Path::new(1_000_000, 20));
    path.seen.budget_bytes_per_s = 2_060;
    flow.look(60, &path.seen, MOST);
    assert_eq!(u64::from(flow.limit()), LEAST_PER_SECOND);
    // Twenty packets a second with little in them are all that it allows.
    let header = PACKET_OVERHEAD_BYTES as u64;
    for tick in (75..60 * 20).step_by(STATE_TICKS as usize) {
        if flow.is_due(tick) {
            flow.look(tick, &path.seen, MOST);
        }
        let bytes = u64::from(flow.limit().min(MOST)) * u64::from(STATE_TICKS) / 60;
        path.carry(bytes.saturating_sub(header).max(64));
    }
    assert_eq!(flow.limit(), u32::MAX);
}
