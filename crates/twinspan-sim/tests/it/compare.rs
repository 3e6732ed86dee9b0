//! Two runs beside each other: queues, checkpoints, and where they part.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use twinspan_sim::{
    CHECKPOINT_EVENTS, QueueKind, Sim, SimConfig, TraceCheckpoints, first_difference,
};

use crate::echo::{MS, World, ip, rough};

/// Six clients on a rough network, long enough for several checkpoints.
fn run(seed: u64, change: impl FnOnce(&mut Sim)) -> (u64, u64, TraceCheckpoints) {
    let config = SimConfig { seed, conditions: rough(), send_stall: 0.01, ..SimConfig::default() };
    let mut world = World::new(config, 6, 2_000);
    change(&mut world.sim);
    world.sim.run_for(300 * MS);
    world.sim.partition(ip(1), ip(2));
    world.sim.run_for(100 * MS);
    world.sim.heal_all();
    world.sim.run_for(Duration::from_secs(60));
    (world.sim.trace_hash(), world.sim.events(), world.sim.trace_checkpoints())
}

/// Changes the last byte of one datagram.
fn planted(sim: &mut Sim) {
    sim.tamper(ip(2), ip(1), 700, |bytes, _| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    });
}

#[test]
fn both_queues_give_the_same_run() {
    for seed in 0..8 {
        let wheel = run(seed, |_| {});
        assert_eq!(wheel, run(seed, |sim| sim.set_queue(QueueKind::Heap)), "seed {seed}");
    }
}

#[test]
fn the_first_event_that_differs_is_found() {
    let (hash, events, checkpoints) = run(3, |_| {});
    let (other_hash, _, other) = run(3, planted);
    assert_ne!(hash, other_hash);
    assert!(events > 2 * CHECKPOINT_EVENTS, "{events} events have too few checkpoints to bisect");
    let window = checkpoints.first_difference(&other);
    assert!(window.start > 0, "{window:?} begins before the change");
    let [left, right] = [false, true].map(|is_planted| {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&lines);
        let window = window.clone();
        run(3, move |sim| {
            if is_planted {
                planted(sim);
            }
            sim.watch_trace(window, move |event| told.borrow_mut().push(event.to_string()));
        });
        lines.take()
    });
    assert_eq!(left.len() as u64, window.end - window.start);
    let found = first_difference(left, right).expect("they differ in the window");
    // The datagram that was changed, as it leaves.
    let words = |line: &String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (one, other) = (words(&found.left[0]), words(&found.right[0]));
    assert_eq!(one[5], "send", "{found}");
    let differing: Vec<_> = one.iter().zip(&other).filter(|(a, b)| a != b).collect();
    assert_eq!(differing.len(), 2, "the rolling hash and the payload's: {found}");
    assert!(one.iter().any(|word| word == "number=2bc"), "{found}");
    assert_eq!(found.before.len(), twinspan_sim::EVENTS_BEFORE);
}

#[test]
fn events_are_told_in_words() {
    let config = SimConfig { seed: 1, ..SimConfig::default() };
    let mut world = World::new(config, 1, 5);
    let lines = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&lines);
    world.sim.watch_trace(0..u64::MAX, move |event| {
        told.borrow_mut().push((event.kind, event.ids, event.at, event.number, event.hash));
    });
    world.sim.note("said", &[7]);
    world.sim.run_for(Duration::from_secs(1));
    let legend = world.sim.trace_legend();
    let lines = lines.take();
    let (kind, ids, at, number, hash) =
        *lines.iter().find(|(kind, ..)| kind.to_string() == "send").expect("something was sent");
    let event = twinspan_sim::TraceEvent { number, at, kind, ids, values: &[], hash };
    let text = legend.describe(&event);
    assert!(text.contains(" send flow=10."), "{text}");
    assert!(text.contains(" > 10."), "{text}");
    assert!(text.contains(" number=0 "), "{text}");
    let note = lines.iter().find(|(kind, ..)| kind.to_string() == "note").expect("the note");
    assert_eq!(legend.word(note.1[0]), Some("said"));
    assert_eq!(lines.last().map(|last| last.4), Some(world.sim.trace_hash()));
    assert!(legend.entries().any(|(field, _, text)| field == "flow" && text.contains(" > ")));
}

#[test]
#[should_panic(expected = "before anything is under way")]
fn the_queue_is_chosen_before_anything_is_under_way() {
    let mut world = World::new(SimConfig::default(), 2, 5);
    world.sim.run_for(MS);
    world.sim.set_queue(QueueKind::Heap);
}
