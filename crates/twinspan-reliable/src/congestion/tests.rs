use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::START.after(Duration::from_millis(ms))
}

#[test]
fn cube_roots_are_rounded_down() {
    for root in [0_u64, 1, 2, 9, 1_000, 123_456] {
        let cube = u128::from(root) * u128::from(root) * u128::from(root);
        assert_eq!(cube_root(cube), root);
        assert_eq!(cube_root(cube + 1), if root == 0 { 1 } else { root });
    }
    assert_eq!(cube_root(7), 1);
}

/// A TCP Reno sender, to be compared with: it acts on acks alone and does not pace.
struct Reno {
    window: u64,
    threshold: u64,
    in_flight: u64,
    reduced_at: Timestamp,
}

enum Flow {
    Ours(Congestion),
    Reno(Reno),
}

impl Flow {
    fn reno() -> Self {
        let window = WINDOW_INITIAL;
        Self::Reno(Reno { window, threshold: WINDOW_MAX, in_flight: 0, reduced_at: at(0) })
    }

    fn may_leave(&self, now: Timestamp) -> bool {
        match self {
            Self::Ours(ours) => ours.may_leave(now),
            Self::Reno(reno) => reno.in_flight < reno.window,
        }
    }

    fn on_sent(&mut self, now: Timestamp, rtt: u64) {
        match self {
            Self::Ours(ours) => ours.on_sent(now, SEGMENT, true, rtt),
            Self::Reno(reno) => reno.in_flight += SEGMENT,
        }
    }

    fn on_acked(&mut self, now: Timestamp, sent_at: Timestamp, rtt: u64) {
        match self {
            Self::Ours(ours) => {
                ours.on_rtt(now, sent_at, now.since(sent_at).as_nanos() as u64);
                ours.on_acked(now, SEGMENT, sent_at, rtt);
            }
            Self::Reno(reno) => {
                reno.in_flight -= SEGMENT;
                let slow_start = reno.window < reno.threshold;
                reno.window += if slow_start { SEGMENT } else { SEGMENT * SEGMENT / reno.window };
            }
        }
    }

    fn on_lost(&mut self, now: Timestamp, sent_at: Timestamp) {
        match self {
            Self::Ours(ours) => ours.on_lost(now, SEGMENT, sent_at),
            Self::Reno(reno) => {
                reno.in_flight -= SEGMENT;
                if sent_at > reno.reduced_at {
                    reno.reduced_at = now;
                    reno.window = (reno.window / 2).max(2 * SEGMENT);
                    reno.threshold = reno.window;
                }
            }
        }
    }
}

/// Flows that always have something to send share a bottleneck with a tail-drop queue; what each
/// got through in the last half of the time, in bytes a second. Flow `i` begins `i` seconds late.
fn share(flows: &mut [Flow], rate: u64, queue: u64, delay_ms: u64, seconds: u64) -> Vec<u64> {
    const STEP_US: u64 = 100;
    let base = Duration::from_millis(2 * delay_ms);
    let nanos = SEGMENT * SECOND_NS / rate;
    let mut idle_at = Timestamp::START;
    // When the sender hears of a packet, which flow's it was, when it left, whether it got through.
    let mut heard = std::collections::BTreeSet::new();
    let (mut through, mut order, mut rtt) = (vec![0; flows.len()], 0_u64, vec![0; flows.len()]);
    for step in 0..seconds * 1_000_000 / STEP_US {
        let now = Timestamp::from_nanos(step * STEP_US * 1_000);
        while let Some((_, _, index, sent_at, arrived)) = heard.first().copied()
            && heard.first().is_some_and(|(when, ..)| *when <= now)
        {
            heard.pop_first();
            let flow: &mut Flow = &mut flows[index];
            if arrived {
                let sample = now.since(sent_at).as_nanos() as u64;
                rtt[index] = if rtt[index] == 0 { sample } else { (rtt[index] * 7 + sample) / 8 };
                flow.on_acked(now, sent_at, rtt[index]);
                through[index] += if step > seconds * 500_000 / STEP_US { SEGMENT } else { 0 };
            } else {
                flow.on_lost(now, sent_at);
            }
        }
        // Whoever comes first in one step is second in the next.
        for turn in 0..flows.len() {
            let index = (turn + step as usize) % flows.len();
            if now < at(1_000 * index as u64) {
                continue;
            }
            while flows[index].may_leave(now) {
                flows[index].on_sent(now, rtt[index]);
                order += 1;
                let waiting = idle_at.since(now).as_nanos() as u64 * rate / SECOND_NS;
                let fits = waiting + SEGMENT <= queue;
                if fits {
                    idle_at = idle_at.max(now).after(Duration::from_nanos(nanos));
                }
                let when = idle_at.max(now).after(base);
                heard.insert((when, order, index, now, fits));
            }
        }
    }
    through.iter().map(|bytes| bytes / (seconds - seconds / 2)).collect()
}

#[test]
fn one_flow_fills_a_bottleneck() {
    for (rate, delay) in [(1_250_000, 20), (1_250_000, 60), (250_000, 30), (5_000_000, 20)] {
        let queue = (rate * 2 * delay / 1_000).max(10 * SEGMENT);
        let got = share(&mut [Flow::Ours(Congestion::new())], rate, queue, delay, 20);
        assert!(got[0] * 100 >= rate * 90, "{got:?} of {rate}");
    }
}

#[test]
fn two_flows_share_a_bottleneck() {
    for (rate, delay) in [(1_250_000, 20), (2_500_000, 40)] {
        let queue = rate * 2 * delay / 1_000;
        let mut flows = [Flow::Ours(Congestion::new()), Flow::Ours(Congestion::new())];
        let got = share(&mut flows, rate, queue, delay, 80);
        let part = got[0] * 100 / (got[0] + got[1]);
        println!("rate {rate} delay {delay}: the first has {part} % of {got:?}");
        assert!((35..=65).contains(&part), "{got:?}");
    }
}

#[test]
fn a_flow_leaves_a_reno_flow_its_share() {
    for (rate, delay) in [(1_250_000, 10), (1_250_000, 20), (2_500_000, 20)] {
        let queue = rate * 2 * delay / 1_000;
        for ours_first in [true, false] {
            let ours = Flow::Ours(Congestion::new());
            let mut flows = if ours_first { [ours, Flow::reno()] } else { [Flow::reno(), ours] };
            let got = share(&mut flows, rate, queue, delay, 80);
            let place = usize::from(!ours_first);
            let part = got[place] * 100 / (got[0] + got[1]);
            println!("rate {rate} delay {delay}: ours has {part} % of {got:?}");
            assert!((30..=75).contains(&part), "{got:?}");
        }
    }
}

#[test]
fn small_messages_are_never_held_up() {
    let mut congestion = Congestion::new();
    // The worst path: everything but the acks that prove the losses is lost.
    for ms in 0..20_000 {
        let now = at(ms);
        if ms % 16 == 0 {
            assert!(congestion.has_room());
            congestion.on_sent(now, 110, false, 100_000_000);
            if ms >= 160 {
                congestion.on_lost(now, 110, at(ms - 160));
            }
        }
    }
    assert_eq!(congestion.window(), WINDOW_MIN);
    assert!(congestion.rate(100_000_000) >= 48_000);
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut congestion = Congestion::new();
    for ms in 1..5_000 {
        congestion.on_sent(at(ms), 100, false, 50_000_000);
        congestion.on_acked(at(ms), 100, at(ms - 1), 50_000_000);
    }
    assert_eq!(congestion.window(), WINDOW_INITIAL);
}

#[test]
fn losses_that_were_none_are_forgiven() {
    let mut congestion = Congestion::new();
    for _ in 0..10 {
        congestion.on_sent(at(10), SEGMENT, false, 50_000_000);
    }
    congestion.on_lost(at(60), SEGMENT, at(10));
    congestion.on_lost(at(60), SEGMENT, at(10));
    assert_eq!(congestion.window(), WINDOW_INITIAL * 7 / 10, "one reduction for both");
    congestion.on_spurious(at(10));
    assert_eq!(congestion.window(), WINDOW_INITIAL * 7 / 10);
    congestion.on_spurious(at(10));
    assert_eq!(congestion.window(), WINDOW_INITIAL);
}

#[test]
fn silence_closes_the_window_and_a_pause_makes_it_the_first_again() {
    let mut congestion = Congestion::new();
    for ms in 1..200 {
        (0..20).for_each(|_| congestion.on_sent(at(ms), SEGMENT, false, 1_000_000));
        (0..20).for_each(|_| congestion.on_acked(at(ms), SEGMENT, at(ms), 1_000_000));
    }
    assert!(congestion.window() > 2 * WINDOW_INITIAL);
    let mut choked = congestion.clone();
    (1..4).for_each(|level| choked.on_timeout(at(300), level));
    assert_eq!(choked.window(), WINDOW_MIN);
    congestion.on_sent(at(2_000), SEGMENT, false, 1_000_000);
    assert_eq!(congestion.window(), WINDOW_INITIAL);
}

#[test]
fn the_pace_spreads_a_window_over_a_round_trip() {
    let mut congestion = Congestion::new();
    let (mut times, rtt) = (Vec::new(), 100_000_000);
    for us in 0..100_000_u64 {
        let now = at(1_000).after(Duration::from_micros(us));
        while congestion.may_leave(now) {
            congestion.on_sent(now, SEGMENT, true, rtt);
            times.push(us);
        }
    }
    assert_eq!(times.len(), 10, "a window");
    assert!(times[7] == 0 && times[9] > 4_000, "a burst, then twice a window a round trip");
}

#[test]
fn a_collapsed_window_starts_slowly_and_stops_short_of_where_it_was() {
    let at = |ms: u64| Timestamp::START.after(Duration::from_millis(ms));
    let mut congestion = Congestion::new();
    congestion.on_collapse(at(1_000), 1_000);
    assert_eq!((congestion.window(), congestion.in_flight()), (1_000, 0));
    assert_eq!(congestion.threshold, WINDOW_INITIAL * 7 / 10);
    // What left before says nothing; what leaves at the same moment counts.
    congestion.on_sent(at(1_000), 1_000, false, 0);
    assert!(!congestion.has_room());
    congestion.on_acked(at(1_100), 1_000, at(1_000), 100_000_000);
    assert_eq!(congestion.window(), 2_000);
    // A second timeout in a row does not forget the first.
    congestion.on_collapse(at(2_000), 1_000);
    congestion.on_collapse(at(4_000), 1_000);
    assert_eq!(congestion.window(), 1_000);
    assert!(congestion.threshold >= WINDOW_MIN);
}

#[test]
fn bursts_are_what_the_pace_earns_in_a_quarter_of_a_millisecond_within_the_limit() {
    // A window of 12,000 bytes each round trip, and twice as much in slow start.
    let burst = |rtt_ns: u64, limit: u64| {
        let mut ours = Congestion::new().with_bursts(limit);
        ours.on_sent(at(1), 1, true, rtt_ns);
        let now = at(1_000);
        ours.refill(now);
        let mut left = 0;
        while ours.next_at() <= now {
            // The window is not asked here.
            ours.on_sent(now, 100, true, rtt_ns);
            ours.on_forgotten(100);
            left += 100;
        }
        left
    };
    assert_eq!(burst(100_000_000, 65_536), 9_600, "a slow pace has the least");
    assert_eq!(burst(200_000, 65_536), 30_000, "a quarter of a millisecond of 120 MB/s");
    assert_eq!(burst(20_000, 65_536), 65_600, "no more than the limit and what goes over it");
    assert_eq!(burst(20_000, 9_600), 9_600, "which is the least one unless set");
    let mut ours = Congestion::new().with_bursts(65_536);
    ours.restart();
    assert_eq!(ours.burst_max, 65_536, "a new path keeps the limit");
}

#[test]
fn what_was_spent_is_earned_in_parts_before_anything_leaves_where_bursts_are_long() {
    let nanos = |nanos| at(1_000).after(Duration::from_nanos(nanos));
    // In slow start two windows leave in a round trip of 0.2 ms.
    for (window, limit, earned, wait_ns) in [
        // 120 MB/s: a quarter of the window is less than half of the burst of 30,000 bytes.
        (12_000, 65_536, 3_000, 25_000),
        // 2.4 GB/s: half of the longest burst.
        (240_000, 65_536, 32_768, 13_654),
        // Bursts that are the least ones are earned byte by byte.
        (12_000, 9_600, 1, 9),
    ] {
        let mut ours = Congestion { window, ..Congestion::new().with_bursts(limit) };
        ours.on_sent(at(1), 1, true, 200_000);
        ours.refill(nanos(0));
        let left = u64::try_from(ours.tokens).unwrap();
        ours.on_sent(nanos(0), left - 1, true, 200_000);
        assert_eq!(ours.next_at(), at(0), "a byte is left to spend");
        ours.on_sent(nanos(0), 1, true, 200_000);
        assert_eq!(ours.next_at(), nanos(wait_ns), "{earned} bytes are to be earned");
        ours.refill(nanos(wait_ns));
        assert!(ours.tokens >= earned && ours.next_at() == at(0));
        // They are spent to their end, not packet by packet as they are earned.
        ours.on_sent(nanos(wait_ns), 100, true, 200_000);
        assert_eq!(ours.next_at() == at(0), earned > 100);
    }
}
