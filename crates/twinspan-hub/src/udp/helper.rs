//! The thread that a UDP road has of its own: it does what is due while no thread of the user's does.

use std::os::fd::AsFd;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use twinspan_net::pin_to_core;
use twinspan_net::shm::{quiet, ring, sleep_on, sleep_on_either};

use super::Shared;
use super::core::now;

/// How often it looks whether the user's thread still drives the road: acks of what that left in the
/// socket wait for twice as long at most.
const LOOK_WHILE_DRIVEN: Duration = Duration::from_millis(4);
/// The same while that thread sleeps on the road itself.
const LOOK_WHILE_SLEPT_ON: Duration = Duration::from_millis(50);
/// The longest sleep.
const NAP_MAX: Duration = Duration::from_secs(1);
/// How long it goes on to watch for a task that waited.
const WATCH_FOR_TASKS: Duration = Duration::from_secs(1);
/// Looks without anything queued after which it no longer looks at each flush interval.
const CALM_LOOKS: u32 = 20;
/// How long it leaves the road to a thread that has it.
const STEP_ASIDE: Duration = Duration::from_micros(50);

/// Runs until the road is closed.
pub(super) fn run(shared: &Shared, core: Option<usize>) {
    if let Some(core) = core {
        // The report has said whether that is possible.
        let _ = pin_to_core(core);
    }
    let mut seen = 0;
    let mut calm = 0;
    let mut next = now();
    while !shared.is_over.load(Ordering::Acquire) {
        let drives = shared.drives.load(Ordering::Relaxed);
        let is_driven = drives != seen;
        seen = drives;
        let sleepers = shared.sleepers.load(Ordering::SeqCst);
        let now_ns = now().as_nanos();
        let wanted_ns = shared.wanted_ns.load(Ordering::SeqCst);
        let for_tasks =
            wanted_ns > 0 && now_ns.saturating_sub(wanted_ns) < WATCH_FOR_TASKS.as_nanos() as u64;
        let watches = for_tasks || !is_driven && sleepers == 0;
        let alert = shared.alert.load(Ordering::SeqCst);
        let until_next = next.since(now()).min(NAP_MAX);
        let limit = match (alert, watches, sleepers) {
            (true, ..) => shared.flush_interval,
            (false, true, _) => until_next,
            (false, false, 0) => LOOK_WHILE_DRIVEN,
            (false, false, _) => LOOK_WHILE_SLEPT_ON,
        };
        shared.watches.store(watches, Ordering::SeqCst);
        // Asked again behind the store: whoever set it before has rung.
        let is_rung = if watches {
            let [_, is_rung] =
                sleep_on_either([shared.socket.as_fd(), shared.helper_bell.as_fd()], Some(limit));
            is_rung
        } else {
            sleep_on(shared.helper_bell.as_fd(), Some(limit));
            true
        };
        if is_rung {
            quiet(&shared.helper_bell);
        }
        let mut road = match shared.core.try_lock() {
            Ok(road) => road,
            Err(TryLockError::Poisoned(road)) => road.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // Who publishes a burst has it most of the time, and flushes what waits itself.
                let pause = if alert && !watches { 2 * STEP_ASIDE } else { STEP_ASIDE };
                sleep_on(shared.helper_bell.as_fd(), Some(pause));
                continue;
            }
        };
        if alert {
            let now = now();
            let is_due = |since| now.since(since) >= shared.flush_interval;
            calm = if road.has_unsent() { 0 } else { calm + 1 };
            if road.queued_at.is_some_and(is_due) {
                road.flush(now);
            }
            if calm >= CALM_LOOKS {
                calm = 0;
                shared.alert.store(false, Ordering::SeqCst);
            }
        }
        if watches {
            road.drive(true);
            // What was left of the last look makes no descriptor readable.
            next = if road.may_wait() { road.node.poll_timeout() } else { now() };
            shared.tell(&mut road);
        } else if !is_driven && sleepers == 0 || road.node.poll_timeout() <= now() {
            next = road.settle();
        }
    }
    ring(&shared.bell);
}
