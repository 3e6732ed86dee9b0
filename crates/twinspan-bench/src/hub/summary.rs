//! What a measurement of the hub says.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinspan_hub::HubStats;
use twinspan_net::shm::INLINE_BYTES_MAX;

use super::options::{HubOptions, HubRoad, HubWait, Mode, Seal, Touch};
use super::{Road, Roads, Used};

/// What a floor may take beyond what it is made of, in percent.
const FLOOR_EXCESS_MAX: f64 = 25.0;
/// Bytes of a datagram at most: the hub's own over UDP, and what quinn's search for the path's limit
/// ends at.
const UDP_DATAGRAM_BYTES: usize = 1_200;
const QUIC_DATAGRAM_BYTES: usize = 1_452;

/// The figures of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HubSummary {
    /// The road.
    pub transport: HubRoad,
    /// What was measured.
    pub mode: Mode,
    /// How both ends waited.
    pub wait: HubWait,
    /// Whether the latency guard was granted; `None` when nobody asked.
    pub guard: Option<bool>,
    /// Microseconds between an answer and the next message.
    pub gap_us: u64,
    /// Bytes of a message.
    pub size_bytes: usize,
    /// Bytes of a datagram at most; `None` where there are none.
    pub datagram_bytes: Option<usize>,
    /// Whether the ends were in two network namespaces.
    pub netns: bool,
    /// Subscribers that each message went to.
    pub destinations: usize,
    /// Whether lost messages were sent again.
    pub reliable: bool,
    /// How datagrams were sealed; `None` for clear ones.
    pub seal: Option<Seal>,
    /// Percent of the datagrams that were dropped on purpose.
    pub loss_percent: f64,
    /// How much of a message was written and read.
    pub touched: Touch,
    /// Messages published and taken at once.
    pub batch: usize,
    /// Half a round trip, median, in nanoseconds.
    pub one_way_p50_ns: Option<u64>,
    /// The 99th percentile.
    pub one_way_p99_ns: Option<u64>,
    /// The 99.9th percentile.
    pub one_way_p999_ns: Option<u64>,
    /// Messages that arrived intact and in order, a second.
    pub messages_per_second: f64,
    /// The same in gigabits of payload.
    pub gbit_per_second: f64,
    /// Messages that did not arrive, or not in order.
    pub lost: u64,
    /// Cores that the measuring process used.
    pub cpu_publisher: f64,
    /// Cores that the other one used.
    pub cpu_subscriber: f64,
    /// Allocations of both processes in the hub's turns once they were warm.
    pub allocations_in_steady_state: u64,
    /// Copies of a message between the memory of the two applications.
    pub copies_per_message: u32,
    /// What waking a thread costs here, one way, in microseconds.
    pub wake_cost_us: Option<f64>,
    /// Cores that other programs used meanwhile.
    pub foreign_cpu: Option<f64>,
    /// The bare road's median.
    pub floor_one_way_p50_ns: Option<u64>,
    /// The bare road's messages a second.
    pub floor_messages_per_second: f64,
    /// Latency: ours over the floor's; throughput: the floor's over ours; 0 where there is no floor.
    pub ratio_to_floor: f64,
    /// What a message of the floor is made of, measured by itself: the same bytes in one place that both
    /// cores keep hot, or its share of the system calls, and a wake-up where single ones are slept for, or
    /// the way of its bytes from one core to the other where they are streamed.
    /// `None` for floors with a runtime of their own.
    pub floor_parts_ns: Option<f64>,
    /// Whether the floor took over a quarter more than that for a message, and says nothing then.
    pub floor_defective: Option<bool>,
}

/// Copies of a message on its way.
const fn copies(options: &HubOptions) -> u32 {
    let is_pooled = options.size > INLINE_BYTES_MAX;
    match options.road {
        HubRoad::Shm if options.loan && is_pooled => 0,
        HubRoad::Shm => 2,
        // To the datagram or the log, into the kernel, out of it, to the inbox, to the user.
        HubRoad::Udp | HubRoad::Uring | HubRoad::Tcp => 5,
        // To the log, to the stream, to the packet, into the kernel, out of it, to the inbox, to the
        // user.
        HubRoad::Quic => 7,
    }
}

/// What a message of the floor is made of, in nanoseconds.
fn parts_ns(options: &HubOptions, memory: &mut Road, used: &Used) -> Option<f64> {
    if options.mode == Mode::Idle {
        return None;
    }
    if options.road == HubRoad::Shm {
        return Some(memory.samples.at(0.5) as f64);
    }
    // Whoever sleeps in a stream of messages wakes once for many.
    let sleeps = matches!(options.wait, HubWait::Block | HubWait::Async) && options.is_latency();
    let wake = used.wake_cost.filter(|_| sleeps).unwrap_or_default();
    Some(used.calls_ns? + wake.as_nanos() as f64 + used.memory_ns.unwrap_or_default())
}

/// Whether a floor took over a quarter more for a message than what that is made of; one by which nothing
/// came did.
fn is_defective(floor_ns: f64, parts_ns: f64) -> bool {
    floor_ns * 100.0 > parts_ns * (100.0 + FLOOR_EXCESS_MAX)
}

pub(super) fn summarise(
    options: &HubOptions,
    roads: Roads,
    used: &Used,
    stats: HubStats,
) -> HubSummary {
    let Roads { mut ours, mut floor, mut memory } = roads;
    let rate = |road: &Road| road.counted.messages as f64 / road.seconds.max(1e-9);
    let is_latency = options.is_latency();
    let mut at = |part| is_latency.then(|| ours.samples.at(part));
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    let floor_p50 = is_latency.then(|| floor.samples.at(0.5));
    let (per_second, floor_per_second) = (rate(&ours), rate(&floor));
    let ratio = match (p50, floor_p50) {
        (Some(ours), Some(floor)) => ours as f64 / floor.max(1) as f64,
        _ => floor_per_second / per_second.max(1e-9),
    };
    let parts = parts_ns(options, &mut memory, used);
    let floor_ns = floor_p50.map_or(1e9 / floor_per_second, |it| it as f64);
    let cores = |time: Duration| time.as_secs_f64() / ours.seconds.max(1e-9);
    HubSummary {
        transport: options.road,
        mode: options.mode,
        wait: options.wait,
        guard: used.guard,
        gap_us: u64::try_from(options.gap.as_micros()).unwrap_or(u64::MAX),
        size_bytes: options.size,
        datagram_bytes: match options.road {
            HubRoad::Shm | HubRoad::Tcp => None,
            HubRoad::Udp | HubRoad::Uring => Some(UDP_DATAGRAM_BYTES),
            HubRoad::Quic => Some(QUIC_DATAGRAM_BYTES),
        },
        netns: options.netns,
        destinations: options.destinations.max(1),
        reliable: options.loses_nothing(),
        seal: options.seal,
        loss_percent: options.loss * 100.0,
        touched: options.touch,
        batch: options.batch,
        one_way_p50_ns: p50,
        one_way_p99_ns: p99,
        one_way_p999_ns: p999,
        messages_per_second: per_second,
        gbit_per_second: per_second * options.size as f64 * 8.0 / 1e9,
        lost: ours.counted.lost + stats.lost,
        cpu_publisher: cores(used.publisher),
        cpu_subscriber: cores(used.subscriber),
        allocations_in_steady_state: used.allocations,
        copies_per_message: copies(options),
        wake_cost_us: used.wake_cost.map(|cost| cost.as_secs_f64() * 1e6),
        foreign_cpu: used.foreign,
        floor_one_way_p50_ns: floor_p50,
        floor_messages_per_second: floor_per_second,
        ratio_to_floor: ratio,
        floor_parts_ns: parts,
        floor_defective: parts.map(|parts| is_defective(floor_ns, parts)),
    }
}

impl HubSummary {
    /// The figures for people.
    pub fn text(&self) -> String {
        let (transport, wait, touched) =
            (self.transport.name(), self.wait.name(), self.touched.name());
        let size_bytes = self.size_bytes;
        let mut text = format!("{transport}, {size_bytes} bytes, wait {wait}, touched {touched}\n");
        match self.mode {
            Mode::Latency => text += &self.latency(),
            Mode::Throughput => {
                let (rate, bits) = (self.messages_per_second / 1e6, self.gbit_per_second);
                text += &format!("throughput  {rate:.2} M messages/s, {bits:.1} Gbit/s\n");
                let (floor, ratio) = (self.floor_messages_per_second / 1e6, self.ratio_to_floor);
                text += &format!("floor       {floor:.2} M messages/s, ratio {ratio:.2}");
                text += &self.judged();
            }
            Mode::Idle => {
                text += &format!("silent      {:.3} % of a core\n", self.cpu_subscriber * 100.0);
            }
        }
        let Self { lost, cpu_publisher, cpu_subscriber, allocations_in_steady_state, .. } = self;
        text += &format!("lost {lost}, cores {cpu_publisher:.3} and {cpu_subscriber:.3}, ");
        text += &format!("allocations {allocations_in_steady_state}, ");
        text += &format!("copies {}\n", self.copies_per_message);
        if let Some(cost) = self.wake_cost_us {
            text += &format!("a wake-up costs {cost:.1} us here; ");
        }
        let foreign = self.foreign_cpu.unwrap_or(0.0);
        text + &format!("other programs used {foreign:.2} cores\n")
    }

    fn latency(&self) -> String {
        let [p50, p99, p999, floor] = [
            self.one_way_p50_ns,
            self.one_way_p99_ns,
            self.one_way_p999_ns,
            self.floor_one_way_p50_ns,
        ]
        .map(Option::unwrap_or_default);
        let text = format!("one way     p50 {p50} ns, p99 {p99} ns, p99.9 {p999} ns\n");
        let text = text + &format!("floor       p50 {floor} ns, ratio {:.2}", self.ratio_to_floor);
        text + &self.judged()
    }

    /// What is to be thought of the floor: the end of its line.
    fn judged(&self) -> String {
        let Some(parts) = self.floor_parts_ns else { return "\n".to_owned() };
        let is_defective = self.floor_defective == Some(true);
        let judged = if is_defective { ", so it is defective" } else { "" };
        format!("; what a message is made of takes {parts:.1} ns by itself{judged}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Samples;
    use crate::hub::options::Mode;
    use crate::hub::peer::Counted;

    fn options(road: HubRoad, mode: Mode, wait: HubWait) -> HubOptions {
        HubOptions {
            road,
            reliable: false,
            best_effort: false,
            loss: 0.0,
            seal: None,
            mode,
            size: 64,
            wait,
            gap: Duration::ZERO,
            batch: 1,
            guard: false,
            loan: false,
            touch: Touch::All,
            destinations: 0,
            netns: false,
            time: Duration::from_secs(1),
        }
    }

    /// A road by which so many messages came in a second, each in so many nanoseconds.
    fn road(messages: u64, sample: u64) -> Road {
        let counted = Counted { messages, seconds: 1.0, ..Counted::default() };
        Road { samples: Samples(vec![sample; 9]), counted, seconds: 1.0 }
    }

    fn judged(options: &HubOptions, floor: Road, memory: Road, used: &Used) -> HubSummary {
        let roads = Roads { ours: road(1, 1), floor, memory };
        summarise(options, roads, used, HubStats::default())
    }

    #[test]
    fn a_floor_s_throughput_is_judged_by_what_a_message_is_made_of() {
        let options = options(HubRoad::Udp, Mode::Throughput, HubWait::Block);
        // A message each 1,000 ns, of 800, and then of 799; a wake-up is shared by many.
        for (calls_ns, is_defective) in [(600.0, false), (599.0, true)] {
            let wake_cost = Some(Duration::from_millis(1));
            let (calls, memory_ns) = (Some(calls_ns), Some(200.0));
            let used = Used { calls_ns: calls, memory_ns, wake_cost, ..Used::default() };
            let summary = judged(&options, road(1_000_000, 0), Road::default(), &used);
            assert_eq!(summary.floor_parts_ns, Some(calls_ns + 200.0));
            assert_eq!(summary.floor_defective, Some(is_defective));
            assert_eq!(summary.text().contains("so it is defective"), is_defective);
        }
        let used = Used { calls_ns: Some(1e6), ..Used::default() };
        let summary = judged(&options, road(0, 0), Road::default(), &used);
        assert_eq!(summary.floor_defective, Some(true), "nothing came by it");
    }

    #[test]
    fn a_ring_s_throughput_is_judged_by_memory() {
        let options = options(HubRoad::Shm, Mode::Throughput, HubWait::Spin);
        for (sample, is_defective) in [(80, false), (79, true)] {
            let floor = road(10_000_000, 0);
            let summary = judged(&options, floor, road(0, sample), &Used::default());
            assert_eq!(summary.floor_defective, Some(is_defective), "{sample}");
        }
    }

    #[test]
    fn a_floor_s_latency_is_judged_with_a_wake_up_where_it_sleeps() {
        let used = Used {
            calls_ns: Some(1_000.0),
            wake_cost: Some(Duration::from_nanos(3_000)),
            ..Used::default()
        };
        for (wait, took, is_defective) in [
            (HubWait::Spin, 1_250, false),
            (HubWait::Spin, 1_251, true),
            (HubWait::Block, 5_000, false),
            (HubWait::Block, 5_001, true),
        ] {
            let options = options(HubRoad::Udp, Mode::Latency, wait);
            let summary = judged(&options, road(1, took), Road::default(), &used);
            assert_eq!(summary.floor_defective, Some(is_defective), "{wait:?}, {took}");
        }
    }

    #[test]
    fn floors_with_a_runtime_of_their_own_are_not_judged() {
        let options = options(HubRoad::Quic, Mode::Throughput, HubWait::Block);
        let summary = judged(&options, road(1, 1), Road::default(), &Used::default());
        assert_eq!((summary.floor_parts_ns, summary.floor_defective), (None, None));
    }
}
