//! What `demo` and its bots' process say to each other: one JSON object a line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use twinspan_core::link::Conditions;

pub use twinspan_bench::lines::{LINE_BYTES_MAX, read_line};

/// The first line to the bots: whom to connect to, and as whom.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The server's address.
    pub server: SocketAddr,
    /// Where the server's clock starts, in nanoseconds of the machine's monotonic clock.
    pub epoch_nanos: u64,
    /// One connect token a bot, in its text form. Secret.
    pub tokens: Vec<String>,
    /// Conditions of the network from the start.
    pub conditions: Network,
}

/// Conditions of the network, in the units that people use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Share of datagrams lost, 0 to 1, each way.
    pub loss: f64,
    /// Delay in milliseconds, each way.
    pub delay_ms: f64,
    /// Further delay at most, in milliseconds.
    pub jitter_ms: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams that later ones overtake.
    pub reorder: f64,
    /// Bytes a second that one bot's link passes, each way; 0 for no limit.
    pub rate_bytes_per_s: u64,
    /// Bytes that wait for their turn on such a link.
    pub queue_bytes_max: u64,
}

impl From<Conditions> for Network {
    fn from(conditions: Conditions) -> Self {
        Self {
            loss: conditions.loss,
            delay_ms: conditions.delay.as_secs_f64() * 1_000.0,
            jitter_ms: conditions.jitter.as_secs_f64() * 1_000.0,
            duplicate: conditions.duplicate,
            reorder: conditions.reorder,
            rate_bytes_per_s: conditions.rate_bytes_per_s,
            queue_bytes_max: conditions.queue_bytes_max,
        }
    }
}

impl Network {
    /// The same for the link model, for a link that `bots` bots share.
    pub fn conditions(self, bots: usize) -> Conditions {
        let duration = |ms: f64| {
            let seconds = ms.clamp(0.0, 60_000.0) / 1_000.0;
            std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default()
        };
        Conditions {
            loss: self.loss,
            delay: duration(self.delay_ms),
            jitter: duration(self.jitter_ms),
            duplicate: self.duplicate,
            reorder: self.reorder,
            rate_bytes_per_s: self.rate_bytes_per_s.saturating_mul(bots as u64),
            queue_bytes_max: self.queue_bytes_max.saturating_mul(bots as u64),
        }
        .clamped()
    }
}

/// Further lines to the bots.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The network is like this from now on.
    Network(Network),
    /// Stand still and start nothing new.
    Rest,
}

/// Lines from the bots: what they have done and seen so far; once a second and at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Bots that stand or stood in the world.
    pub connected: u32,
    /// From the start of the first bot until the last of them stood in the world, in milliseconds.
    pub connect_ms_max: f64,
    /// Bots whose session has ended.
    pub ended: u32,
    /// Bots whose session ended for another reason than the server's drain.
    pub ended_badly: u32,
    /// Bots whose every action was answered.
    pub settled: u32,
    /// Input messages sent.
    pub inputs_sent: u64,
    /// State messages applied.
    pub states_applied: u64,
    /// State messages received that were older than what the replica had.
    pub states_stale: u64,
    /// State messages that the ticks of those received call for.
    pub states_expected: u64,
    /// State messages or events that could not be decoded.
    pub malformed: u64,
    /// Reliable messages sent.
    pub reliable_sent: u64,
    /// Reliable messages received.
    pub reliable_received: u64,
    /// Answers that came out of order or twice.
    pub out_of_order: u64,
    /// Entities in sight of the mean bot, itself left out.
    pub visible_mean: f64,
    /// One-way latency of states over the whole run.
    pub down: Quantiles,
    /// The same since the last report, if any came.
    pub down_recent: Option<Quantiles>,
    /// Age of states over the whole run.
    pub state_age: Quantiles,
    /// Whether the bots had been told to rest.
    pub resting: bool,
    /// Whether this is the last report.
    pub last: bool,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are no longer than this.
    pub p50_ms: f64,
    /// 99 % are no longer than this.
    pub p99_ms: f64,
    /// 99.9 % are no longer than this.
    pub p999_ms: f64,
}

impl From<twinspan_game::Percentiles> for Quantiles {
    fn from(seen: twinspan_game::Percentiles) -> Self {
        Self { p50_ms: seen.p50_ms, p99_ms: seen.p99_ms, p999_ms: seen.p999_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_survives_the_way_there() {
        for (_, conditions) in Conditions::PRESETS {
            let line = serde_json::to_string(&Order::Network(conditions.into())).unwrap();
            let Ok(Order::Network(network)) = serde_json::from_str(&line) else {
                panic!("{line} is no order")
            };
            assert_eq!(network.conditions(1), conditions.clamped());
        }
    }

    #[test]
    fn bots_on_one_link_share_the_sum_of_their_rates() {
        let network = Network::from(Conditions::MOBILE);
        let one = network.conditions(1);
        let all = network.conditions(64);
        assert_eq!(all.rate_bytes_per_s, 64 * one.rate_bytes_per_s);
        assert_eq!(all.queue_bytes_max, 64 * one.queue_bytes_max);
        assert_eq!(all.loss, one.loss);
    }
}
