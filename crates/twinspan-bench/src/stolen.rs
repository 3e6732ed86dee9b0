//! When the host took the processor away, so that late ticks are blamed on whom they are due.

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::ReactorEnv;

use crate::process;

/// Spans kept; older ones are forgotten, and late ticks in them count as our own.
const SPANS_MAX: usize = 4_096;
/// The kernel counts stolen time in steps of 10 ms and a tick may suffer a little after it.
const MARGIN: Duration = Duration::from_millis(50);

/// Spans of time in which the host stole processor time.
#[derive(Debug)]
pub struct StolenLog {
    /// Where the server's clock starts, in nanoseconds of the monotonic clock.
    epoch_nanos: u64,
    first: Option<Duration>,
    last: Option<Duration>,
    sampled_at: Timestamp,
    spans: VecDeque<(Timestamp, Timestamp)>,
}

impl StolenLog {
    /// A log by the clock that starts at this moment of the machine's monotonic clock.
    pub fn new(epoch_nanos: u64) -> Self {
        let stolen = process::stolen_time();
        let mut log = Self {
            epoch_nanos,
            first: stolen,
            last: stolen,
            sampled_at: Timestamp::START,
            spans: VecDeque::new(),
        };
        log.sampled_at = log.now();
        log
    }

    fn now(&self) -> Timestamp {
        let nanos = ReactorEnv::clock_ns().saturating_sub(self.epoch_nanos);
        Timestamp::from_nanos(nanos)
    }

    /// Looks whether time was stolen since the last call.
    pub fn sample(&mut self) {
        let now = self.now();
        let stolen = process::stolen_time();
        if stolen > self.last {
            if self.spans.len() == SPANS_MAX {
                self.spans.pop_front();
            }
            self.spans.push_back((self.sampled_at.before(MARGIN), now.after(MARGIN)));
        }
        self.last = stolen;
        self.sampled_at = now;
    }

    /// All time stolen since the start, in milliseconds, on all processors together.
    pub fn total_ms(&self) -> u64 {
        let stolen = self.last.unwrap_or_default().saturating_sub(self.first.unwrap_or_default());
        u64::try_from(stolen.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether `at` lies in a span in which time was stolen.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.spans.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }
}
