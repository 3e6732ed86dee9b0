use super::*;

fn trace_of(events: u64, changed: Option<u64>) -> Trace {
    let mut trace = Trace::new(7);
    for number in 0..events {
        let what = if changed == Some(number) { u64::MAX } else { number };
        trace.record(Timestamp::from_nanos(number), TraceKind::Poll, [what, 0, 0, 0]);
    }
    trace
}

#[test]
fn checkpoints_are_taken_every_so_many_events() {
    let trace = trace_of(3 * CHECKPOINT_EVENTS - 1, None);
    assert_eq!(trace.checkpoints().hashes().len(), 2);
    assert_eq!(trace.checkpoints().every(), CHECKPOINT_EVENTS);
    let short = trace_of(CHECKPOINT_EVENTS, None);
    assert_eq!(trace.checkpoints().hashes()[0], short.hash());
}

#[test]
fn many_checkpoints_are_thinned_by_doubling() {
    let mut checkpoints = TraceCheckpoints::default();
    // The hash after n events is n here.
    let mut taken = 0;
    for events in (0..).step_by(CHECKPOINT_EVENTS as usize).take(5 * CHECKPOINTS_MAX) {
        checkpoints.take(events, events);
        assert!(checkpoints.hashes().len() < CHECKPOINTS_MAX);
        taken = events;
    }
    let every = checkpoints.every();
    assert_eq!(every, 8 * CHECKPOINT_EVENTS);
    let wanted: Vec<_> = (1..=taken / every).map(|number| number * every).collect();
    assert_eq!(checkpoints.hashes(), wanted);
}

#[test]
fn the_first_difference_lies_between_two_checkpoints() {
    const E: u64 = CHECKPOINT_EVENTS;
    let whole = trace_of(5 * E + 9, None);
    for changed in [0, 1, E - 1, E, 3 * E + 5, 5 * E - 1, 5 * E, 5 * E + 8] {
        let other = trace_of(5 * E + 9, Some(changed));
        assert_ne!(whole.hash(), other.hash());
        let range = whole.checkpoints().first_difference(other.checkpoints());
        assert!(range.contains(&changed), "{changed} is not in {range:?}");
        assert_eq!(range.end - range.start, E);
    }
    // One that ends early differs where it ends.
    let short = trace_of(2 * E + 3, None);
    assert_eq!(short.checkpoints().first_difference(whole.checkpoints()), 2 * E..3 * E);
}

#[test]
fn checkpoints_of_different_distances_are_compared_where_both_have_one() {
    let coarse = TraceCheckpoints::from_parts(2 * CHECKPOINT_EVENTS, vec![2, 4, 7]).unwrap();
    let fine = TraceCheckpoints::from_parts(CHECKPOINT_EVENTS, vec![1, 2, 3, 4, 5, 6]).unwrap();
    let wanted = 4 * CHECKPOINT_EVENTS..6 * CHECKPOINT_EVENTS;
    assert_eq!(coarse.first_difference(&fine), wanted);
    assert_eq!(fine.first_difference(&coarse), wanted);
    assert_eq!(TraceCheckpoints::from_parts(CHECKPOINT_EVENTS + 1, Vec::new()), None);
    assert_eq!(TraceCheckpoints::from_parts(CHECKPOINT_EVENTS / 2, Vec::new()), None);
    let many = vec![0; CHECKPOINTS_MAX + 1];
    assert_eq!(TraceCheckpoints::from_parts(CHECKPOINT_EVENTS, many), None);
}

#[test]
fn who_watches_sees_the_events_asked_for_and_changes_nothing() {
    use std::cell::RefCell;
    use std::rc::Rc;

    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut trace = Trace::new(7);
    let told = Rc::clone(&seen);
    trace.watch(
        3..6,
        Box::new(move |event| told.borrow_mut().push((event.number, event.ids[0], event.hash))),
    );
    let mut plain = Trace::new(7);
    let mut hashes = Vec::new();
    for number in 0..10 {
        for trace in [&mut trace, &mut plain] {
            trace.record(Timestamp::START, TraceKind::Poll, [number + 100, 0, 0, 0]);
        }
        hashes.push(plain.hash());
    }
    assert_eq!(trace.hash(), plain.hash());
    assert_eq!(*seen.borrow(), [(3, 103, hashes[3]), (4, 104, hashes[4]), (5, 105, hashes[5])]);
}

#[test]
fn an_event_is_one_line_with_everything_in_it() {
    let event = TraceEvent {
        number: 7,
        at: Timestamp::from_nanos(1_500),
        kind: EventKind(TraceKind::TimerFired),
        ids: [3, 255, 0, 0],
        values: &[16],
        hash: 0xab,
    };
    assert_eq!(event.to_string(), "7 at 1500 ns 00000000000000ab timer fired timer=3 host=ff 10");
}

#[test]
fn two_traces_part_where_they_differ_first() {
    let lines = |changed: Option<usize>| {
        (0..100).map(move |number| {
            format!("{number}{}", if changed == Some(number) { "!" } else { "" })
        })
    };
    assert_eq!(first_difference(lines(None), lines(None)), None);
    let found = first_difference(lines(None), lines(Some(40))).unwrap();
    assert_eq!(found.same, 40);
    assert_eq!((found.before.len(), found.before.last().unwrap().as_str()), (EVENTS_BEFORE, "39"));
    assert_eq!(found.left, ["40", "41", "42", "43"]);
    assert_eq!(found.right, ["40!", "41", "42", "43"]);
    let short = first_difference(lines(None).take(2), lines(None)).unwrap();
    assert_eq!((short.same, short.left.len(), short.right[0].as_str()), (2, 0, "2"));
    assert!(short.to_string().contains("- the trace ends here\n+ 2\n"));
}
