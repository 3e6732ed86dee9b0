//! What the echoes of all simulators have in common: its numbers, a count of messages, the clock of
//! processor time and the line at the end.

#![forbid(unsafe_code)]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Hosts that talk to the one that answers.
pub const CLIENTS: u8 = 100;
/// Bytes of a message, there and back.
pub const MESSAGE_BYTES: usize = 1_024;
/// The least time on the way, in one direction.
pub const DELAY_MIN: Duration = Duration::from_millis(1);
/// The most.
pub const DELAY_MAX: Duration = Duration::from_millis(10);
/// Virtual time before it is measured: all have connected by then.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// Where the server listens.
pub const PORT: u16 = 4_000;
/// The seed of every run.
pub const SEED: u64 = 1;

/// What a run may end with.
pub type Outcome = Result<(), Box<dyn Error>>;

/// Messages so far, there and back.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// One went there and one came back.
    pub fn add_round_trip(&self) {
        // Everything runs on one thread.
        self.0.fetch_add(2, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A measurement that has begun.
pub struct Meter {
    count: Count,
    before: u64,
    began: Duration,
}

impl Meter {
    /// Begins to measure.
    pub fn begin(count: &Count) -> Self {
        Self { count: count.clone(), before: count.get(), began: cpu_time() }
    }

    /// Prints what came of it as one line of JSON. `passed` is virtual time.
    ///
    /// # Errors
    /// When no message came: then something else than the simulator was measured.
    pub fn end(self, simulator: &str, passed: Duration) -> Outcome {
        let cpu = cpu_time().saturating_sub(self.began).as_secs_f64();
        let messages = self.count.get() - self.before;
        if messages == 0 {
            return Err(format!("{simulator}: no message came back").into());
        }
        println!(
            "{{\"simulator\":\"{simulator}\",\"messages\":{messages},\"virtual_seconds\":{},\
             \"cpu_seconds\":{cpu}}}",
            passed.as_secs_f64(),
        );
        Ok(())
    }
}

/// Virtual seconds to measure, the first argument.
///
/// # Errors
/// When it is no number.
pub fn seconds() -> Result<Duration, Box<dyn Error>> {
    let given = std::env::args().nth(1).ok_or("say how many virtual seconds to measure")?;
    Ok(Duration::from_secs(given.parse()?))
}

/// Processor time of this process. By the system call itself: one of the simulators puts its own
/// clock in place of that of the C library.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
