//! The executor: tasks, timers, wakes from other threads.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use twinspan_core::time::Timestamp;
use twinspan_net::{ReactorEnv, ReactorTask};
use twinspan_provider::{TaskProvider, TimeProvider, Timer, conformance};

fn env() -> ReactorEnv {
    ReactorEnv::new(Some(7)).unwrap()
}

/// Gives all other ready tasks a turn.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn sleep_until(env: &ReactorEnv, at: Timestamp) {
    let mut timer = env.timer();
    timer.set(Some(at));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

#[test]
fn deadlines_a_microsecond_apart_keep_their_order() {
    let env = env();
    let began = env.now();
    let order: Rc<RefCell<Vec<u64>>> = Rc::default();
    let tasks: Vec<ReactorTask> = (0..50_u64)
        .rev()
        .map(|number| {
            let (inside, order) = (env.clone(), Rc::clone(&order));
            env.spawn("timer", async move {
                let at = began.after(Duration::from_micros(3_000 + number));
                sleep_until(&inside, at).await;
                assert!(inside.now() >= at, "a timer is never early");
                order.borrow_mut().push(number);
            })
        })
        .collect();
    env.block_on(async {
        while order.borrow().len() < 50 {
            yield_once().await;
        }
    });
    assert!(order.borrow().is_sorted(), "{order:?}");
    drop(tasks);
}

#[test]
fn many_timers_share_one_wait() {
    let env = env();
    let began = env.now();
    let left = Rc::new(Cell::new(1_000_u32));
    let tasks: Vec<ReactorTask> = (0..1_000_u64)
        .map(|number| {
            let (inside, left) = (env.clone(), Rc::clone(&left));
            env.spawn("timer", async move {
                for turn in 1..=3 {
                    let at = began.after(Duration::from_micros(turn * 2_000 + number));
                    sleep_until(&inside, at).await;
                }
                left.set(left.get() - 1);
            })
        })
        .collect();
    env.block_on(async {
        while left.get() > 0 {
            sleep_until(&env, env.now().after(Duration::from_millis(1))).await;
        }
    });
    drop(tasks);
}

#[test]
fn a_task_may_drop_its_own_handle() {
    let env = env();
    let slot: Rc<RefCell<Option<ReactorTask>>> = Rc::default();
    let inside = Rc::clone(&slot);
    let task = env.spawn("drops itself", async move {
        drop(inside.borrow_mut().take());
        pending::<()>().await;
    });
    *slot.borrow_mut() = Some(task);
    env.block_on(yield_once());
    assert_eq!(Rc::strong_count(&slot), 1);
}

#[test]
fn a_task_may_end_another_and_start_more_while_it_is_dropped() {
    /// Spawns and drops a task when it is dropped itself.
    struct Restless(ReactorEnv, Rc<Cell<u32>>, Option<ReactorTask>);
    impl Drop for Restless {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            drop(self.2.take());
            drop(self.0.spawn("short", pending()));
        }
    }
    let env = env();
    let dropped = Rc::new(Cell::new(0));
    let inner = Restless(env.clone(), Rc::clone(&dropped), None);
    let inner = env.spawn("inner", async move {
        let _inner = inner;
        pending::<()>().await;
    });
    let outer = Restless(env.clone(), Rc::clone(&dropped), Some(inner));
    let outer = env.spawn("outer", async move {
        let _outer = outer;
        pending::<()>().await;
    });
    env.block_on(yield_once());
    drop(outer);
    assert_eq!(dropped.get(), 2);
}

#[test]
fn a_waker_of_an_ended_task_wakes_nobody_else() {
    let env = env();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let keeps = Rc::clone(&kept);
    let first = env.spawn("first", async move {
        poll_fn(|cx| {
            *keeps.borrow_mut() = Some(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
    });
    env.block_on(yield_once());
    drop(first);
    let polls = Rc::new(Cell::new(0));
    let counts = Rc::clone(&polls);
    // Takes the place that the first had.
    let second = env.spawn("second", async move {
        poll_fn(|_| {
            counts.set(counts.get() + 1);
            Poll::<()>::Pending
        })
        .await;
    });
    env.block_on(yield_once());
    kept.borrow().as_ref().unwrap().wake_by_ref();
    env.block_on(yield_once());
    assert_eq!(polls.get(), 1);
    drop(second);
}

#[test]
fn tasks_go_on_with_the_next_block_on() {
    let env = env();
    let steps = Rc::new(Cell::new(0));
    let inside = Rc::clone(&steps);
    let task = env.spawn("steps", async move {
        loop {
            inside.set(inside.get() + 1);
            yield_once().await;
        }
    });
    env.block_on(yield_once());
    let before = steps.get();
    env.block_on(async {
        yield_once().await;
        yield_once().await;
    });
    assert!(steps.get() > before);
    drop(task);
}

#[test]
fn another_thread_wakes_a_sleeping_reactor() {
    const ROUNDS: u64 = 200;
    let env = env();
    let (send, wakers) = mpsc::channel::<(u64, Waker)>();
    let reached = Arc::new(AtomicU64::new(0));
    let reaches = Arc::clone(&reached);
    let thread = std::thread::spawn(move || {
        for (round, waker) in wakers {
            reaches.store(round, Ordering::Release);
            waker.wake();
        }
    });
    env.block_on(async {
        for round in 1..=ROUNDS {
            let mut asked = false;
            poll_fn(|cx| {
                if reached.load(Ordering::Acquire) == round {
                    return Poll::Ready(());
                }
                if !asked {
                    asked = true;
                    send.send((round, cx.waker().clone())).unwrap();
                }
                Poll::Pending
            })
            .await;
        }
    });
    drop(send);
    thread.join().unwrap();
    assert_eq!(reached.load(Ordering::Acquire), ROUNDS);
}

#[test]
fn a_wake_between_two_runs_is_not_lost() {
    let env = env();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let done = Rc::new(Cell::new(false));
    let (keeps, sets) = (Rc::clone(&kept), Rc::clone(&done));
    let task = env.spawn("woken later", async move {
        let mut first = true;
        poll_fn(|cx: &mut Context<'_>| {
            *keeps.borrow_mut() = Some(cx.waker().clone());
            if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        sets.set(true);
    });
    env.block_on(yield_once());
    let waker = kept.borrow_mut().take().unwrap();
    waker.wake();
    env.block_on(async {
        while !done.get() {
            sleep_until(&env, env.now().after(Duration::from_millis(1))).await;
        }
    });
    drop(task);
}

#[test]
fn one_reactor_may_run_inside_another() {
    let (outer, inner) = (env(), env());
    let ran = Rc::new(Cell::new(0));
    let counts = Rc::clone(&ran);
    let task = outer.spawn("beside", async move {
        loop {
            counts.set(counts.get() + 1);
            yield_once().await;
        }
    });
    outer.block_on(async {
        yield_once().await;
        inner.block_on(yield_once());
        let before = ran.get();
        yield_once().await;
        assert!(ran.get() > before, "the outer one's wakes arrive again");
    });
    drop(task);
}

#[test]
#[should_panic(expected = "block_on was called inside")]
fn a_reactor_does_not_run_inside_itself() {
    let env = env();
    env.block_on(async { env.block_on(async {}) });
}

#[test]
fn shards_with_one_epoch_read_one_time() {
    let epoch = ReactorEnv::clock_ns();
    let first = ReactorEnv::with_epoch(Some(1), epoch).unwrap();
    let second = ReactorEnv::with_epoch(Some(2), epoch).unwrap();
    let moments = [first.now(), second.now(), first.now(), second.now()];
    assert!(moments.is_sorted(), "{moments:?}");
    let early = ReactorEnv::with_epoch(Some(1), u64::MAX).unwrap();
    assert_eq!(early.now(), Timestamp::START);
}

#[test]
fn without_a_seed_no_two_runs_are_alike() {
    assert_ne!(ReactorEnv::new(None).unwrap().seed(), ReactorEnv::new(None).unwrap().seed());
    assert_eq!(env().seed(), 7);
}

#[test]
fn more_work_off_the_thread_than_allowed_is_refused_until_some_has_ended() {
    let env = env();
    env.block_on(conformance::more_work_than_allowed_is_refused_until_some_has_ended(&env));
}
