//! Tasks run in an order drawn from the seed, and timers to the nanosecond.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_provider::{TaskProvider, TimeProvider, Timer};
use twinspan_sim::{Sim, SimConfig, SimEnv};

use crate::echo::{MS, ip};

/// The order in which tasks that become ready at one moment run, the first `wanted` of `count`.
fn order(seed: u64, count: u32) -> Vec<u32> {
    let mut sim = Sim::new(SimConfig { seed, ..SimConfig::default() });
    let env = sim.host("node", ip(1));
    let ran = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let ran = Rc::clone(&ran);
            env.spawn("one of many", async move { ran.borrow_mut().push(number) })
        })
        .collect();
    sim.run_for(MS);
    assert!(tasks.iter().all(twinspan_sim::SimTask::is_finished));
    ran.take()
}

#[test]
fn ready_tasks_run_in_an_order_drawn_from_the_seed() {
    assert_eq!(order(1, 10), order(1, 10));
    let mut orders: Vec<_> = (0..24).map(|seed| order(seed, 10)).collect();
    orders.sort_unstable();
    orders.dedup();
    assert_eq!(orders.len(), 24);
}

#[test]
fn each_of_two_tasks_goes_first_for_some_seeds() {
    let first = (0..100).filter(|seed| order(*seed, 2) == [0, 1]).count();
    assert!((25..75).contains(&first), "{first} of 100");
}

#[test]
fn one_more_task_does_not_reorder_the_others() {
    for seed in 0..20 {
        let mut more = order(seed, 11);
        more.retain(|number| *number != 10);
        assert_eq!(order(seed, 10), more);
    }
}

async fn sleep_until(env: &SimEnv, at: Timestamp) {
    let mut timer = env.timer();
    timer.set(Some(at));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

#[test]
fn timers_expire_to_the_nanosecond() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let expired = Rc::new(RefCell::new(Vec::new()));
    let deadlines = [1_000_000_007, 5, 1_000_000_006, 3_600_000_000_000, 16_384, 16_383];
    let tasks: Vec<_> = deadlines
        .into_iter()
        .map(|nanos| {
            let (inner, expired) = (env.clone(), Rc::clone(&expired));
            env.spawn("sleeper", async move {
                sleep_until(&inner, Timestamp::from_nanos(nanos)).await;
                expired.borrow_mut().push((nanos, inner.now().as_nanos()));
            })
        })
        .collect();
    sim.run_until(Timestamp::from_nanos(1_000_000_006));
    let mut sorted: Vec<_> = deadlines.into_iter().map(|nanos| (nanos, nanos)).collect();
    sorted.sort_unstable();
    assert_eq!(*expired.borrow(), sorted[..4]);
    sim.run_for(Duration::from_secs(3_600));
    assert_eq!(*expired.borrow(), sorted);
    drop(tasks);
}

#[test]
fn a_moved_timer_wakes_only_at_its_new_deadline() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let inner = env.clone();
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    let ended = sim.block_on(&env, Duration::from_secs(1), async move {
        let mut timer = inner.timer();
        timer.set(Some(Timestamp::from_nanos(100)));
        let mut first = true;
        poll_fn(|cx| {
            counted.set(counted.get() + 1);
            let polled = timer.poll_expired(cx);
            if std::mem::take(&mut first) {
                timer.set(Some(Timestamp::from_nanos(5_000)));
                return timer.poll_expired(cx);
            }
            polled
        })
        .await;
        inner.now().as_nanos()
    });
    assert_eq!(ended, Some(5_000));
    assert_eq!(polls.get(), 2);
}

#[test]
fn block_on_stops_where_the_future_ended_or_at_the_limit() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let inner = env.clone();
    let ended = sim.block_on(&env, Duration::from_secs(1), async move {
        sleep_until(&inner, Timestamp::from_nanos(123)).await;
        "ended"
    });
    assert_eq!((ended, sim.now().as_nanos()), (Some("ended"), 123));
    assert_eq!(sim.block_on(&env, MS, pending::<()>()), None);
    assert_eq!(sim.now().as_nanos(), 1_000_123);
}

#[test]
fn a_task_may_spawn_and_stop_others_and_itself() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let inner = env.clone();
    let slot = Rc::new(RefCell::new(None));
    let (own, ran) = (Rc::clone(&slot), Rc::new(Cell::new(0)));
    let counted = Rc::clone(&ran);
    let task = env.spawn("parent", async move {
        let child = inner.spawn("child", pending());
        drop(child);
        counted.set(1);
        // Its own handle: it runs on to where it waits next, and no further.
        drop(own.take());
        counted.set(2);
        sleep_until(&inner, inner.now().after(MS)).await;
        counted.set(3);
    });
    *slot.borrow_mut() = Some(task);
    sim.run_for(10 * MS);
    assert_eq!(ran.get(), 2);
    assert_eq!(Rc::strong_count(&ran), 1);
}

#[test]
fn a_task_that_wakes_itself_many_times_lets_others_run() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let done = Rc::new(Cell::new(false));
    let seen = Rc::clone(&done);
    let _busy = env.spawn(
        "busy",
        poll_fn(move |cx| {
            if seen.get() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }),
    );
    let told = Rc::clone(&done);
    let _other = env.spawn("other", async move { told.set(true) });
    sim.run_for(MS);
    assert!(done.get());
}

#[test]
#[should_panic(expected = "time cannot move on; the last was \"busy\" of host \"node\" (seed 0)")]
fn tasks_that_wake_themselves_for_ever_are_named() {
    let mut sim = Sim::new(SimConfig::default());
    let env = sim.host("node", ip(1));
    let _busy = env.spawn(
        "busy",
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }),
    );
    sim.run_for(MS);
}
