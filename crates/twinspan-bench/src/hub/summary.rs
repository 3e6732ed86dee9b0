//! What a measurement of the hub says.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinspan_hub::HubStats;
use twinspan_net::shm::INLINE_BYTES_MAX;

use super::options::{HubOptions, HubRoad, HubWait, Mode, Seal, Touch};
use super::{Road, Roads, Used};

/// What a floor may take beyond what it is made of, in percent.
const FLOOR_EXCESS_MAX: u64 = 25;
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
    /// What the floor is made of, measured by itself: the same bytes in one place that both cores keep
    /// hot, or its system calls and a wake-up. `None` for floors with a runtime of their own.
    pub floor_parts_ns: Option<u64>,
    /// Whether the floor took over a quarter more than that, and says nothing then.
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

/// What the floor is made of.
fn parts(options: &HubOptions, memory: &mut Road, used: &Used) -> Option<u64> {
    if !options.is_latency() {
        return None;
    }
    if options.road == HubRoad::Shm {
        return Some(memory.samples.at(0.5));
    }
    let sleeps = matches!(options.wait, HubWait::Block | HubWait::Async);
    let wake = used.wake_cost.filter(|_| sleeps).unwrap_or_default();
    let sum = used.calls? + wake;
    Some(u64::try_from(sum.as_nanos()).unwrap_or(u64::MAX))
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
    let parts = parts(options, &mut memory, used);
    let is_over = |(floor, parts): (u64, u64)| floor * 100 > parts * (100 + FLOOR_EXCESS_MAX);
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
        floor_defective: floor_p50.zip(parts).map(is_over),
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
                text += &format!("floor       {floor:.2} M messages/s, ratio {ratio:.2}\n");
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
        let mut text = format!("one way     p50 {p50} ns, p99 {p99} ns, p99.9 {p999} ns\n");
        text += &format!("floor       p50 {floor} ns, ratio {:.2}", self.ratio_to_floor);
        if let Some(parts) = self.floor_parts_ns {
            let is_defective = self.floor_defective == Some(true);
            let judged = if is_defective { ", so it is defective" } else { "" };
            text += &format!("; what it is made of takes {parts} ns by itself{judged}");
        }
        text + "\n"
    }
}
