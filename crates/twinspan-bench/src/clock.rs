//! A clock that several processes of one machine share, and waiting by it.

use std::time::Duration;

use rustix::thread::{ClockId, NanosleepRelativeResult};
use twinspan_core::time::Timestamp;
use twinspan_net::ReactorEnv;

/// The machine's monotonic clock, from a moment that is told from process to process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch_nanos: u64,
}

impl Clock {
    /// The clock that starts at this moment of the machine's monotonic clock.
    pub const fn new(epoch_nanos: u64) -> Self {
        Self { epoch_nanos }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(ReactorEnv::clock_ns().saturating_sub(self.epoch_nanos))
    }

    /// Waits until `at`; at once when it has passed.
    pub fn wait_until(&self, at: Timestamp) {
        loop {
            let left = at.since(self.now());
            if left.is_zero() {
                return;
            }
            let wanted = rustix::thread::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let outcome = rustix::thread::clock_nanosleep_relative(ClockId::Monotonic, &wanted);
            if let NanosleepRelativeResult::Err(_) = outcome {
                std::thread::sleep(left.min(Duration::from_millis(1)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_at_or_after_the_moment() {
        let clock = Clock::new(ReactorEnv::clock_ns());
        let at = clock.now().after(Duration::from_millis(2));
        clock.wait_until(at);
        assert!(clock.now() >= at);
        clock.wait_until(Timestamp::START);
    }
}
