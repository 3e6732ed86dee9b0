//! The thread that a UDP road has of its own: it does what is due while no thread of the user's does.

use std::os::fd::AsFd;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::shm::{quiet, ring, sleep_on, sleep_on_either};

use super::Shared;
use super::core::{Core, Left, now};
use super::vigil::{LOOK_INTERVAL, Plan, Seen, Vigil, is_for_tasks};
use crate::effect::OwnThread;

/// The longest sleep: a clock that is asked for more may refuse.
const NAP_MAX: Duration = Duration::from_secs(3_600);
/// How often it looks whether somebody still takes in the acks of many chunks.
const LOOK_FOR_ACKS: Duration = Duration::from_millis(1);
/// Looks without anything queued after which it no longer looks at each flush interval.
const CALM_LOOKS: u32 = 20;
/// How long it leaves the road to a thread that has it.
const STEP_ASIDE: Duration = Duration::from_micros(50);
/// The same where that has it all the time, and nobody waits for what comes.
const STEP_ASIDE_MAX: Duration = Duration::from_millis(1);

/// Runs until the road is closed.
pub(super) fn run(shared: &Shared, own: &OwnThread) {
    own.settle();
    let mut vigil = Vigil::new(shared.core().is_reliable);
    let mut calm = 0;
    let mut watches = false;
    let mut step = STEP_ASIDE;
    while !shared.is_over.load(Ordering::Acquire) {
        let alert = Left::from_number(shared.alert.load(Ordering::SeqCst));
        let mut road = match shared.core.try_lock() {
            Ok(road) => road,
            Err(TryLockError::Poisoned(road)) => road.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // Until there is a plan again. Before it is asked who wanted it, as below.
                shared.watches.store(false, Ordering::SeqCst);
                let drives = shared.drives.load(Ordering::SeqCst);
                let pause = match alert {
                    // Who publishes a burst has it most of the time, and flushes what waits itself.
                    Left::Queued if !watches => 2 * STEP_ASIDE,
                    Left::Queued => STEP_ASIDE,
                    _ if is_for_tasks(now(), shared.wanted_at()) => STEP_ASIDE,
                    _ if !vigil.is_driven(drives) => step,
                    Left::Acks => LOOK_FOR_ACKS,
                    Left::Nothing => LOOK_INTERVAL,
                };
                step = (2 * step).min(STEP_ASIDE_MAX);
                sleep_on(shared.helper_bell.as_fd(), Some(pause));
                quiet(&shared.helper_bell);
                continue;
            }
        };
        step = STEP_ASIDE;
        if alert > Left::Nothing {
            let now = now();
            let is_due = |since| now.since(since) >= shared.flush_interval;
            calm = if road.left() >= alert { 0 } else { calm + 1 };
            if road.queued_at.is_some_and(is_due) {
                road.flush(now);
            }
            if calm >= CALM_LOOKS {
                calm = 0;
                shared.alert.store(road.left() as u8, Ordering::SeqCst);
            }
        }
        // Who gave the descriptor to an epoll may have been dropped meanwhile, or its runtime stopped.
        let stands_in = shared.is_armed() && !vigil.is_driven(shared.drives.load(Ordering::SeqCst));
        if watches || stands_in {
            road.drive(true);
            shared.tell(&mut road);
        } else if road.node.poll_timeout() <= now() {
            road.settle();
        }
        let wanted_at = shared.wanted_at();
        let plan = plan(shared, &mut vigil, &mut road, (wanted_at, stands_in));
        watches = plan.watches;
        shared.watches.store(watches, Ordering::SeqCst);
        shared.looks_at.store(plan.looks_at.as_nanos(), Ordering::SeqCst);
        drop(road);
        // Asked again behind the store: who wanted it before found that it watched, and did not ring.
        if watches || shared.wanted_at() == wanted_at {
            sleep(shared, plan);
        }
        // Awake: nobody has to ring.
        shared.looks_at.store(0, Ordering::SeqCst);
    }
    ring(&shared.bell);
}

/// What is done next, with the road's lock held.
fn plan(
    shared: &Shared,
    vigil: &mut Vigil,
    road: &mut Core,
    (wanted_at, stood_in): (Option<Timestamp>, bool),
) -> Plan {
    let now = now();
    let mut plan = vigil.plan(&Seen {
        now,
        due_at: road.node.poll_timeout(),
        wanted_at,
        slept_until: shared.slept_until(),
        is_kept_waiting: !road.inbox.is_empty(),
        drives: shared.drives.load(Ordering::SeqCst),
        taken: road.inbox.stats().taken,
    });
    let look = match Left::from_number(shared.alert.load(Ordering::SeqCst)) {
        Left::Queued => Some(shared.flush_interval),
        Left::Acks => Some(LOOK_FOR_ACKS),
        Left::Nothing => None,
    };
    plan.looks_at = look.map_or(plan.looks_at, |look| plan.looks_at.min(now.after(look)));
    if (plan.watches || stood_in) && !road.may_wait() {
        // What was left of the last look makes no descriptor readable.
        plan.looks_at = now;
    }
    plan
}

/// Sleeps until it is time to look, or somebody rings.
fn sleep(shared: &Shared, plan: Plan) {
    let limit = Some(plan.looks_at.since(now()).min(NAP_MAX));
    let is_rung = if plan.watches {
        let [_, is_rung] =
            sleep_on_either([shared.socket.as_fd(), shared.helper_bell.as_fd()], limit);
        is_rung
    } else {
        sleep_on(shared.helper_bell.as_fd(), limit);
        true
    };
    if is_rung {
        quiet(&shared.helper_bell);
    }
}
