//! What a measurement of the hub says.

use std::time::Duration;

use serde::Serialize;
use twinspan_hub::HubStats;
use twinspan_net::shm::INLINE_BYTES_MAX;

use super::{HubOptions, HubRoad, Mode, Road, Used};

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct HubSummary {
    /// The road.
    pub transport: &'static str,
    /// Latency or throughput.
    pub mode: &'static str,
    /// How both ends waited.
    pub wait: &'static str,
    /// Whether the latency guard was granted; `None` when nobody asked.
    pub guard: Option<bool>,
    /// Bytes of a message.
    pub size_bytes: usize,
    /// Bytes of a datagram at most; `None` where there are none.
    pub datagram_bytes: Option<usize>,
    /// Whether lost messages were sent again.
    pub reliable: bool,
    /// Percent of the datagrams that were dropped on purpose.
    pub loss_percent: f64,
    /// How much of a message was written and read.
    pub touched: &'static str,
    /// Messages published at once.
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
    /// Allocations of both processes in the hub's turns; a few for each turn are the measurement's.
    pub allocations_in_steady_state: u64,
    /// Copies of a message between the memory of the two applications.
    pub copies_per_message: u32,
    /// What waking a thread costs here, one way, in microseconds.
    pub wake_cost_us: Option<f64>,
    /// Cores that other programs used meanwhile.
    pub foreign_cpu: Option<f64>,
    /// The bare ring's median.
    pub floor_one_way_p50_ns: Option<u64>,
    /// The bare ring's messages a second.
    pub floor_messages_per_second: f64,
    /// Latency: ours over the floor's; throughput: the floor's over ours.
    pub ratio_to_floor: f64,
}

pub(super) fn summarise(
    options: &HubOptions,
    mut ours: Road,
    mut floor: Road,
    used: &Used,
    stats: HubStats,
    guard: Option<bool>,
    wake_cost: Option<Duration>,
) -> HubSummary {
    let rate = |road: &Road| road.counted.messages as f64 / road.seconds.max(1e-9);
    let is_latency = options.mode == Mode::Latency;
    let mut at = |part| is_latency.then(|| ours.samples.at(part));
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    let floor_p50 = is_latency.then(|| floor.samples.at(0.5));
    let (per_second, floor_per_second) = (rate(&ours), rate(&floor));
    let ratio = match (p50, floor_p50) {
        (Some(ours), Some(floor)) => ours as f64 / floor.max(1) as f64,
        _ => floor_per_second / per_second.max(1e-9),
    };
    let is_pooled = options.size > INLINE_BYTES_MAX;
    let is_memory = options.road == HubRoad::Shm;
    let cores = |time: Duration| time.as_secs_f64() / ours.seconds.max(1e-9);
    HubSummary {
        transport: options.road.name(),
        mode: if is_latency { "latency" } else { "throughput" },
        wait: options.wait.name(),
        guard,
        size_bytes: options.size,
        datagram_bytes: (!is_memory).then_some(1_200),
        reliable: options.loses_nothing(),
        loss_percent: options.loss * 100.0,
        touched: if options.touch_all { "all" } else { "first" },
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
        copies_per_message: match (is_memory, options.loan && is_pooled) {
            (true, true) => 0,
            (true, false) => 2,
            // To the datagram, into the kernel, out of it, to the inbox, to the user.
            (false, _) => 5,
        },
        wake_cost_us: wake_cost.map(|cost| cost.as_secs_f64() * 1e6),
        foreign_cpu: used.foreign,
        floor_one_way_p50_ns: floor_p50,
        floor_messages_per_second: floor_per_second,
        ratio_to_floor: ratio,
    }
}

impl HubSummary {
    /// The figures for people.
    pub fn text(&self) -> String {
        let Self { size_bytes, wait, touched, transport, .. } = self;
        let mut text = format!("{transport}, {size_bytes} bytes, wait {wait}, touched {touched}\n");
        if let (Some(p50), Some(p99), Some(p999)) =
            (self.one_way_p50_ns, self.one_way_p99_ns, self.one_way_p999_ns)
        {
            text += &format!("one way     p50 {p50} ns, p99 {p99} ns, p99.9 {p999} ns\n");
            let floor = self.floor_one_way_p50_ns.unwrap_or(0);
            text += &format!("floor       p50 {floor} ns, ratio {:.2}\n", self.ratio_to_floor);
        } else {
            let (rate, bits) = (self.messages_per_second / 1e6, self.gbit_per_second);
            text += &format!("throughput  {rate:.2} M messages/s, {bits:.1} Gbit/s\n");
            let floor = self.floor_messages_per_second / 1e6;
            text +=
                &format!("floor       {floor:.2} M messages/s, ratio {:.2}\n", self.ratio_to_floor);
        }
        let Self { lost, cpu_publisher, cpu_subscriber, allocations_in_steady_state, .. } = self;
        text += &format!("lost {lost}, cores {cpu_publisher:.2} and {cpu_subscriber:.2}, ");
        text += &format!("allocations {allocations_in_steady_state}, ");
        text += &format!("copies {}\n", self.copies_per_message);
        if let Some(cost) = self.wake_cost_us {
            text += &format!("a wake-up costs {cost:.1} us here; ");
        }
        let foreign = self.foreign_cpu.unwrap_or(0.0);
        text + &format!("other programs used {foreign:.2} cores\n")
    }
}
