use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

#[derive(Clone, Debug)]
enum Step {
    /// Insert this much after the present (or before it, when negative).
    Insert(i64),
    InsertFar(u64),
    /// Cancel the nth of all handles ever given.
    Cancel(usize),
    /// Move time on and take what is due.
    Advance(u64),
    Peek,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (-1_000_i64..40_000).prop_map(Step::Insert),
        3 => (0_i64..300_000_000_000).prop_map(Step::Insert),
        1 => any::<u64>().prop_map(Step::InsertFar),
        2 => any::<prop::sample::Index>().prop_map(|index| Step::Cancel(index.index(400))),
        2 => (0_u64..60_000).prop_map(Step::Advance),
        1 => (0_u64..100_000_000_000).prop_map(Step::Advance),
        1 => Just(Step::Peek),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_wheel_does_what_a_sorted_map_does(steps in prop::collection::vec(step(), 1..400)) {
        let mut wheel = TimerWheel::new(100);
        let mut model = BTreeMap::new();
        let mut handles = Vec::new();
        let mut now = 0_u64;
        let mut sequence = 0_u64;
        for step in steps {
            match step {
                Step::Insert(_) | Step::InsertFar(_) => {
                    let due = match step {
                        Step::Insert(offset) => now.saturating_add_signed(offset),
                        Step::InsertFar(due) => due,
                        _ => unreachable!(),
                    };
                    let result = wheel.insert(at(due), sequence);
                    prop_assert_eq!(result.is_err(), model.len() == 100);
                    if let Ok(handle) = result {
                        model.insert((due, sequence), ());
                        handles.push((handle, due, sequence));
                        sequence += 1;
                    }
                }
                Step::Cancel(nth) => {
                    if let Some((handle, due, sequence)) = handles.get(nth) {
                        let there = model.remove(&(*due, *sequence)).is_some();
                        prop_assert_eq!(wheel.cancel(*handle), there.then_some(*sequence));
                    }
                }
                Step::Advance(by) => {
                    now += by;
                    while let Some((due, value)) = wheel.pop_before(at(now)) {
                        let ((expected, sequence), ()) = model.pop_first().unwrap();
                        prop_assert_eq!((due.as_nanos(), value), (expected, sequence));
                        prop_assert!(expected <= now);
                    }
                    prop_assert!(model.first_key_value().is_none_or(|((due, _), ())| *due > now));
                }
                Step::Peek => {
                    let first = model.first_key_value().map(|((due, _), ())| at(*due));
                    prop_assert_eq!(wheel.peek_time(), first);
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
        }
        while let Some((due, value)) = wheel.pop_before(Timestamp::NEVER) {
            let (key, ()) = model.pop_first().unwrap();
            prop_assert_eq!((due.as_nanos(), value), key);
        }
        prop_assert!(model.is_empty());
    }
}

#[test]
fn equal_times_leave_in_the_order_of_insertion() {
    let mut wheel = TimerWheel::new(100);
    for value in 0..50 {
        wheel.insert(at(1_000_000_000), value).unwrap();
    }
    // Once the slot is current, more of the same moment queue behind.
    assert_eq!(wheel.pop_before(at(1_000_000_000)), Some((at(1_000_000_000), 0)));
    wheel.insert(at(1_000_000_000), 50).unwrap();
    for value in 1..=50 {
        assert_eq!(wheel.pop_before(at(1_000_000_000)), Some((at(1_000_000_000), value)));
    }
    assert!(wheel.is_empty());
}

#[test]
fn neighbouring_nanoseconds_are_kept_apart() {
    let mut wheel = TimerWheel::new(2);
    wheel.insert(at(5_000_001), 'b').unwrap();
    wheel.insert(at(5_000_000), 'a').unwrap();
    assert_eq!(wheel.pop_before(at(4_999_999)), None);
    assert_eq!(wheel.pop_before(at(5_000_000)), Some((at(5_000_000), 'a')));
    assert_eq!(wheel.pop_before(at(5_000_000)), None);
    assert_eq!(wheel.peek_time(), Some(at(5_000_001)));
}

#[test]
fn a_handle_of_a_former_entry_cancels_nothing() {
    let mut wheel = TimerWheel::new(1);
    let old = wheel.insert(at(5), 1).unwrap();
    assert_eq!(wheel.cancel(old), Some(1));
    let new = wheel.insert(at(5), 2).unwrap();
    assert_eq!(wheel.cancel(old), None);
    assert_eq!(wheel.cancel(new), Some(2));
    assert_eq!(wheel.cancel(new), None);
}

#[test]
fn a_full_wheel_gives_the_value_back() {
    let mut wheel = TimerWheel::new(1);
    wheel.insert(at(1), "first").unwrap();
    assert_eq!(wheel.insert(at(1), "second"), Err(Full("second")));
    assert_eq!(wheel.limit(), 1);
}

#[test]
fn setting_and_cancelling_at_one_moment_for_ever_stays_small() {
    let mut wheel = TimerWheel::new(10);
    wheel.insert(at(3), 0).unwrap();
    for _ in 0..100_000 {
        let handle = wheel.insert(at(3), 1).unwrap();
        assert_eq!(wheel.cancel(handle), Some(1));
    }
    assert!(wheel.sorted.len() + wheel.early.len() <= 2 * STALE_MIN);
    assert!(wheel.entries.len() <= 2);
    assert_eq!(wheel.pop_before(at(3)), Some((at(3), 0)));
    assert_eq!(wheel.pop_before(at(3)), None);
}

#[test]
fn the_last_moment_of_all_is_reached() {
    let mut wheel = TimerWheel::new(2);
    wheel.insert(Timestamp::NEVER, 'z').unwrap();
    wheel.insert(at(1), 'a').unwrap();
    assert_eq!(wheel.pop_before(Timestamp::NEVER), Some((at(1), 'a')));
    assert_eq!(wheel.pop_before(Timestamp::NEVER), Some((Timestamp::NEVER, 'z')));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_heap_and_the_wheel_agree(steps in prop::collection::vec(step(), 1..400)) {
        let mut queues: [Box<dyn TimerQueue<usize>>; 2] =
            [Box::new(TimerWheel::new(100)), Box::new(TimerHeap::new(100))];
        let mut handles: [Vec<TimerHandle>; 2] = [Vec::new(), Vec::new()];
        let mut now = 0_u64;
        for (number, step) in steps.into_iter().enumerate() {
            if let Step::Advance(by) = step {
                now += by;
            }
            let did = [0, 1].map(|which| {
                let (queue, handles) = (&mut queues[which], &mut handles[which]);
                let mut left = Vec::new();
                match step {
                    Step::Insert(_) | Step::InsertFar(_) => {
                        let due = match step {
                            Step::Insert(offset) => now.saturating_add_signed(offset),
                            Step::InsertFar(due) => due,
                            _ => unreachable!(),
                        };
                        handles.extend(queue.insert(at(due), number));
                    }
                    Step::Cancel(nth) => {
                        left.extend(handles.get(nth).map(|handle| (at(0), queue.cancel(*handle))));
                    }
                    Step::Advance(_) => {
                        while let Some((due, value)) = queue.pop_before(at(now)) {
                            left.push((due, Some(value)));
                        }
                    }
                    Step::Peek => {}
                }
                (left, queue.len(), queue.is_empty(), handles.len())
            });
            prop_assert_eq!(&did[0], &did[1]);
        }
    }
}
