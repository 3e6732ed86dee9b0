//! Runs simulations behind the fence, while a thread outside of it looks whether a task yields.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use twinspan_bench::process;
use twinspan_sim::{Meter, Polled};

use crate::error::CommandError;

/// Time of the processor that one poll may take; the slowest there is takes milliseconds.
const POLL_CPU_MAX: Duration = Duration::from_secs(20);
/// How often the thread outside looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs `body` behind the fence. When a task of a simulation in it never yields, nothing can end it
/// but the end of the process, which names it.
///
/// # Errors
/// [`CommandError::Fence`] when it called out.
pub(super) fn fenced<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, CommandError> {
    let meter = Meter::default();
    thread::scope(|scope| {
        // Dropped when the body has ended, whatever it came to.
        let (_ended, has_ended) = mpsc::channel();
        let watched = meter.clone();
        scope.spawn(move || watch(&watched, &has_ended));
        Ok(twinspan_fence::guard(|| meter.measure(body))?)
    })
}

fn watch(meter: &Meter, has_ended: &Receiver<()>) {
    let mut patience = Patience::default();
    while has_ended.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let Some(stuck) = patience.look(meter.polled(), process::cpu_time()) else { continue };
        let Polled { host, task, seed, .. } = stuck;
        // Without standard error the status says it.
        let _ = writeln!(
            std::io::stderr(),
            "twinspan: task \"{task}\" of host \"{host}\" has not yielded for {} s of processor \
             time (seed {seed}): it goes round without waiting for anything; give it an await",
            POLL_CPU_MAX.as_secs()
        );
        std::process::exit(1);
    }
}

/// For how long one poll has gone on.
#[derive(Default)]
struct Patience {
    /// The poll that was under way at the last look, and the time of the processor when it was first
    /// seen.
    since: Option<(u64, Duration)>,
}

impl Patience {
    /// Told what is polled; returns it when that has gone on for too long.
    fn look(&mut self, polled: Option<Polled>, cpu: Duration) -> Option<Polled> {
        let polled = match polled {
            Some(polled) => polled,
            None => {
                self.since = None;
                return None;
            }
        };
        match self.since {
            Some((poll, since)) if poll == polled.poll => {
                (cpu.saturating_sub(since) >= POLL_CPU_MAX).then_some(polled)
            }
            _ => {
                self.since = Some((polled.poll, cpu));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polled(poll: u64) -> Option<Polled> {
        Some(Polled { poll, seed: 7, host: "node".into(), task: "spin".into() })
    }

    #[test]
    fn only_one_poll_that_takes_processor_time_is_told() {
        let mut patience = Patience::default();
        let second = Duration::from_secs;
        assert_eq!(patience.look(polled(1), second(100)), None);
        assert_eq!(patience.look(polled(1), second(119)), None);
        assert_eq!(patience.look(polled(2), second(121)), None, "it is another poll");
        assert_eq!(patience.look(None, second(150)), None);
        assert_eq!(patience.look(polled(2), second(150)), None);
        assert_eq!(patience.look(polled(2), second(170)), polled(2));
    }
}
