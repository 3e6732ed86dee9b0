//! Several ends of a topic in one process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SocketFlags, accept_with};
use twinspan_core::random::Stream;

use super::layout::{ASKS_AT, HOLDS_AT, PUBLISHED_AT, SUBSCRIBER_WORDS};
use super::*;

/// A topic that no other test has.
fn topic() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn identity(name: &str) -> Identity {
    Identity { form: Form::Bytes, bytes: 0, align: 1, version: 0, name: name.into() }
}

fn config(topic: &str, message_bytes: usize) -> TopicConfig {
    TopicConfig::new(topic, identity("test"), message_bytes)
}

fn publisher(config: &TopicConfig) -> (Member, Publisher) {
    let config = TopicConfig { roles: Roles::Publisher, ..config.clone() };
    let joined = join(&config).unwrap();
    (joined.member, joined.publisher.unwrap())
}

fn subscriber(config: &TopicConfig) -> (Member, Subscriber) {
    let config = TopicConfig { roles: Roles::Subscriber, ..config.clone() };
    let joined = join(&config).unwrap();
    (joined.member, joined.subscriber.unwrap())
}

/// Message `number`, whose bytes say so all over.
fn message(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (number.wrapping_mul(31) + at) as u8).collect()
}

fn texts(inbox: &mut Subscriber) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut room = Vec::new();
    while inbox.try_take(&mut room).is_some() {
        all.push(room.clone());
    }
    all
}

/// Waits for what other threads bring about.
fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "what was waited for did not come");
        thread::yield_now();
    }
}

#[test]
fn messages_go_both_ways_in_order_and_nobody_hears_oneself() {
    let config = config(&topic(), 48);
    let (left, right) = (join(&config).unwrap(), join(&config).unwrap());
    let (mut left_out, mut left_in) = (left.publisher.unwrap(), left.subscriber.unwrap());
    let (mut right_out, mut right_in) = (right.publisher.unwrap(), right.subscriber.unwrap());
    for number in 0..100 {
        assert_eq!(left_out.publish(&message(number, 48)), Ok(number));
        assert_eq!(right_out.publish(&message(number, 7)), Ok(number));
    }
    let expected: Vec<_> = (0..100).map(|number| message(number, 48)).collect();
    assert_eq!(texts(&mut right_in), expected);
    let expected: Vec<_> = (0..100).map(|number| message(number, 7)).collect();
    assert_eq!(texts(&mut left_in), expected);
    assert_eq!((left.member.place(), right.member.place()), (0, 1));
    assert_eq!((left.member.subscribers(), left.member.publishers()), (1, 1));
}

#[test]
fn who_is_counted_as_a_subscriber_gets_the_next_message() {
    for _ in 0..100 {
        let config = config(&topic(), 8);
        let (there, mut outbox) = publisher(&config);
        thread::scope(|scope| {
            scope.spawn(|| {
                // It is joined by a keeper that goes on when it has answered.
                until(|| there.subscribers() == 1);
                outbox.publish(&message(0, 8)).unwrap();
            });
            let (_here, mut inbox) = subscriber(&config);
            let mut room = Vec::new();
            let deadline = Some(Instant::now() + Duration::from_secs(30));
            let taken = inbox.take(&mut room, deadline).expect("it was counted, so it hears");
            assert_eq!((taken.number, room), (0, message(0, 8)));
        });
    }
}

#[test]
fn messages_published_together_are_there_together() {
    let config = TopicConfig { slots: 64, ..config(&topic(), 8) };
    let ((_there, mut outbox), (_here, mut inbox)) = (publisher(&config), subscriber(&config));
    let all: Vec<_> = (0..20).map(|number| message(number, 8)).collect();
    let (mut taken, mut seen) = (Vec::new(), Vec::new());
    let looked_at = all.iter().map(|message| {
        taken.append(&mut texts(&mut inbox));
        seen.push(taken.len());
        message.as_slice()
    });
    assert_eq!(outbox.publish_all(looked_at), (20, None));
    let before_each = [[0; 8].as_slice(), &[8; 8], &[16; 4]].concat();
    assert_eq!(seen, before_each, "an eighth of the ring at a time");
    taken.append(&mut texts(&mut inbox));
    assert_eq!(taken, all);
}

#[test]
fn a_group_is_no_larger_than_the_room_that_there_is() {
    let room_wait = Duration::from_millis(1);
    let config = TopicConfig { policy: Policy::Block, slots: 64, room_wait, ..config(&topic(), 8) };
    let ((_there, mut outbox), (_here, mut inbox)) = (publisher(&config), subscriber(&config));
    until(|| outbox.naps().len() == 1);
    let all: Vec<_> = (0..100).map(|number| message(number, 8)).collect();
    let (count, error) = outbox.publish_all(all[..3].iter().map(Vec::as_slice));
    assert_eq!((count, error), (3, None));
    let (count, error) = outbox.publish_all(all[3..].iter().map(Vec::as_slice));
    assert_eq!((count, error), (61, Some(PublishError::Stalled { waited: room_wait })));
    assert_eq!(texts(&mut inbox), all[..64]);
}

#[test]
fn room_made_before_the_wait_for_it_is_not_slept_on() {
    let config =
        TopicConfig { policy: Policy::Block, wait: Wait::Block, slots: 4, ..config(&topic(), 8) };
    let ((_there, mut outbox), (_here, mut inbox)) = (publisher(&config), subscriber(&config));
    until(|| outbox.naps().len() == 1);
    for number in 0..4 {
        outbox.publish(&message(number, 8)).unwrap();
    }
    assert_eq!(outbox.sleeps_behind(|| assert_eq!(texts(&mut inbox).len(), 4)), 0);
}

#[test]
fn one_hears_oneself_when_asked_to() {
    let config = TopicConfig { echo: Echo::On, ..config(&topic(), 8) };
    let joined = join(&config).unwrap();
    joined.publisher.unwrap().publish(b"echo").unwrap();
    assert_eq!(texts(&mut joined.subscriber.unwrap()), [b"echo"]);
}

#[test]
fn another_type_is_refused_and_both_are_named() {
    let ours = config(&topic(), 8);
    let _first = join(&ours).unwrap();
    for roles in [Roles::Both, Roles::Publisher, Roles::Subscriber] {
        let theirs = TopicConfig { identity: identity("other"), roles, ..ours.clone() };
        let theirs =
            TopicConfig { identity: Identity { version: 2, ..theirs.identity.clone() }, ..theirs };
        let error = join(&theirs).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, JoinError::AnotherType { .. }), "{text}");
        assert!(text.contains("bytes, version 2"), "{text}");
    }
    let same = join(&ours).unwrap();
    assert_eq!(same.member.subscribers(), 1, "those who were refused are gone");
}

#[test]
fn what_is_no_topic_or_no_size_is_refused() {
    for topic in ["", "a b", "a#1", "ä", &"x".repeat(TOPIC_BYTES_MAX + 1)] {
        assert!(matches!(join(&config(topic, 8)), Err(JoinError::Topic(_))), "{topic}");
    }
    let sizes = |change: &dyn Fn(&mut TopicConfig)| {
        let mut config = config(&topic(), 100_000);
        change(&mut config);
        join(&config).map(|_| ()).unwrap_err()
    };
    for error in [
        sizes(&|config| config.message_bytes = MESSAGE_BYTES_MAX + 1),
        sizes(&|config| config.slots = SLOTS_MAX + 1),
        sizes(&|config| config.blocks = Some(BLOCKS_MAX + 1)),
        sizes(&|config| config.history = 256),
        sizes(&|config| (config.blocks, config.history) = (Some(4), 3)),
    ] {
        assert!(matches!(error, JoinError::Sizes), "{error}");
    }
}

#[test]
fn a_late_joiner_gets_the_last_messages_and_counts_no_loss() {
    for bytes in [16, 10_000] {
        let config = TopicConfig { history: 3, ..config(&topic(), bytes) };
        let (_member, mut out) = publisher(&config);
        for number in 0..20 {
            out.publish(&message(number, bytes)).unwrap();
        }
        let (_other, mut inbox) = subscriber(&config);
        out.publish(&message(20, bytes)).unwrap();
        let expected: Vec<_> = (17..=20).map(|number| message(number, bytes)).collect();
        assert_eq!(texts(&mut inbox), expected);
        assert_eq!(inbox.stats().lost, 0);
        let none = TopicConfig { history: 0, ..config.clone() };
        assert_eq!(texts(&mut subscriber(&none).1), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn what_was_overwritten_is_counted_exactly() {
    let config = TopicConfig { slots: 16, ..config(&topic(), 8) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    let mut room = Vec::new();
    let (mut expected, mut lost) = (0, 0);
    for burst in [3, 16, 17, 40, 1, 1_000, 15] {
        for _ in 0..burst {
            out.publish(&out.next_number().to_le_bytes()).unwrap();
        }
        while let Some(taken) = inbox.try_take(&mut room) {
            assert_eq!(room, taken.number.to_le_bytes());
            assert_eq!(taken.number, expected + taken.lost, "the gap is exact");
            expected = taken.number + 1;
            lost += taken.lost;
        }
        assert_eq!(expected, out.next_number(), "the newest is never lost");
    }
    assert_eq!((inbox.stats().lost, inbox.stats().taken), (lost, out.next_number() - lost));
    assert!(lost > 900);
}

#[test]
fn a_subscriber_that_blocks_loses_nothing() {
    for (bytes, wait) in [(8, Wait::Spin), (8, Wait::Block), (5_000, Wait::Adaptive)] {
        let config =
            TopicConfig { slots: 8, policy: Policy::Block, wait, ..config(&topic(), bytes) };
        let (_member, mut out) = publisher(&config);
        let (_other, mut inbox) = subscriber(&config);
        let writer = thread::spawn(move || {
            for number in 0..5_000 {
                out.publish(&message(number, bytes)).unwrap();
            }
        });
        let mut room = Vec::new();
        for number in 0..5_000 {
            let taken = inbox.take(&mut room, None).unwrap();
            assert_eq!((taken.number, taken.lost), (number, 0));
            assert_eq!(room, message(number, bytes));
        }
        writer.join().unwrap();
    }
}

#[test]
fn a_subscriber_that_blocks_for_ever_is_an_error_after_the_time_that_was_set() {
    for bytes in [8, 5_000] {
        let room_wait = Duration::from_millis(5);
        let policy = Policy::Block;
        let config = TopicConfig { slots: 4, policy, room_wait, ..config(&topic(), bytes) };
        let (_member, mut out) = publisher(&config);
        let (other, inbox) = subscriber(&config);
        let error = loop {
            if let Err(error) = out.publish(&message(0, bytes)) {
                break error;
            }
        };
        assert_eq!(error, PublishError::Stalled { waited: room_wait });
        drop((other, inbox));
        until(|| out.publish(&message(0, bytes)).is_ok());
    }
}

#[test]
fn a_subscriber_that_drops_new_messages_keeps_the_old_ones() {
    let config = TopicConfig { slots: 8, policy: Policy::DropNew, ..config(&topic(), 8) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    let published = (0..20).filter(|number| out.publish(&message(*number, 8)).is_ok()).count();
    assert_eq!((published, out.stats().dropped), (8, 12));
    let expected: Vec<_> = (0..8).map(|number| message(number, 8)).collect();
    assert_eq!(texts(&mut inbox), expected);
    assert_eq!(out.publish(&message(20, 8)), Ok(8));
}

#[test]
fn long_messages_take_blocks_in_turn_and_loans_need_no_copy() {
    let bytes = 100_000;
    let config = TopicConfig { blocks: Some(4), ..config(&topic(), bytes) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    let mut room = Vec::new();
    let mut places = std::collections::BTreeSet::new();
    for number in 0..100 {
        let mut block = out.loan(bytes).unwrap();
        block.copy_from_slice(&message(number, bytes));
        places.insert(block.as_ptr() as usize);
        out.publish_block(block).unwrap();
        let taken = inbox.try_take(&mut room).unwrap();
        assert_eq!((taken.number, taken.lost, taken.bytes), (number, 0, bytes));
        assert_eq!(room, message(number, bytes));
    }
    assert_eq!(places.len(), 4, "each in its turn");
    assert_eq!(
        out.loan(bytes.next_multiple_of(4_096) + 1).map(|_| ()),
        Err(PublishError::TooLong { have: 102_401, max: 102_400 })
    );
    assert_eq!(texts(&mut inbox), Vec::<Vec<u8>>::new());
}

#[test]
fn a_held_sample_stays_as_it_is_and_holds_are_bounded() {
    let bytes = 5_000;
    let config = TopicConfig { blocks: Some(18), slots: 4, ..config(&topic(), bytes) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    let mut held = Vec::new();
    let mut room = Vec::new();
    for number in 0..HOLDS_MAX as u64 - 1 {
        out.publish(&message(number, bytes)).unwrap();
        let Ok(Some(Got::Held(taken, sample))) = inbox.try_get(&mut room) else { panic!("held") };
        assert_eq!(taken.number, number);
        held.push(sample);
    }
    out.publish(&message(15, bytes)).unwrap();
    assert_eq!(inbox.try_get(&mut room).map(|_| ()), Err(TooManyHeld));
    // The others are used again and again; those that are held are not.
    for number in 16..200 {
        out.publish(&message(number, bytes)).unwrap();
    }
    for (number, sample) in held.iter().enumerate() {
        assert_eq!(sample.bytes(), message(number as u64, bytes));
    }
    held.truncate(3);
    let Ok(Some(Got::Held(taken, sample))) = inbox.try_get(&mut room) else { panic!("held") };
    assert_eq!(sample.bytes(), message(taken.number, bytes));
}

#[test]
fn a_sample_outlives_the_handles_that_it_came_from() {
    let config = TopicConfig { blocks: Some(3), ..config(&topic(), 5_000) };
    let (publishing, mut out) = publisher(&config);
    let (member, mut inbox) = subscriber(&config);
    out.publish(&message(0, 5_000)).unwrap();
    let Ok(Some(Got::Held(_, sample))) = inbox.try_get(&mut Vec::new()) else { panic!("held") };
    drop((member, inbox));
    for number in 1..100 {
        out.publish(&message(number, 5_000)).unwrap();
    }
    assert_eq!((sample.bytes(), publishing.subscribers()), (message(0, 5_000).as_slice(), 1));
    drop(sample);
    until(|| publishing.subscribers() == 0);
}

#[test]
fn a_message_longer_than_one_takes_is_skipped_and_counted() {
    for long in [300, 9_000] {
        let config = config(&topic(), long);
        let (_member, mut out) = publisher(&config);
        let short = TopicConfig { message_bytes: 100, ..config };
        let (_other, mut inbox) = subscriber(&short);
        out.publish(&message(0, long)).unwrap();
        out.publish(&message(1, 100)).unwrap();
        assert_eq!(texts(&mut inbox), [message(1, 100)]);
        assert_eq!((inbox.stats().corrupt, inbox.stats().lost), (1, 1));
    }
}

#[test]
fn a_pool_whose_blocks_are_all_in_use_is_an_error_until_one_comes_back() {
    let config = TopicConfig { blocks: Some(3), ..config(&topic(), 5_000) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    let mut room = Vec::new();
    let mut held = Vec::new();
    for number in 0..2 {
        out.publish(&message(number, 5_000)).unwrap();
        held.push(inbox.try_get(&mut room).unwrap());
    }
    let loan = out.loan(5_000).unwrap();
    assert_eq!(out.loan(1).map(|_| ()), Err(PublishError::Exhausted));
    drop(loan);
    drop(out.loan(1).unwrap());
    let loan = out.loan(1).unwrap();
    held.pop();
    assert!(out.loan(1).is_ok());
    let (_third, mut other) = publisher(&config);
    assert_eq!(other.publish_block(loan), Err(PublishError::Foreign));
}

#[test]
fn a_burst_of_long_messages_loses_the_oldest_unless_somebody_holds_them() {
    let config = TopicConfig { blocks: Some(4), ..config(&topic(), 5_000) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    for number in 0..10 {
        out.publish(&message(number, 5_000)).unwrap();
    }
    let expected: Vec<_> = (6..10).map(|number| message(number, 5_000)).collect();
    assert_eq!(texts(&mut inbox), expected);
    assert_eq!(inbox.stats().lost, 6);
}

#[test]
fn the_last_messages_of_a_publisher_that_is_gone_are_taken() {
    let config = config(&topic(), 8);
    let (other, mut inbox) = subscriber(&config);
    let (member, mut out) = publisher(&config);
    for number in 0..5 {
        out.publish(&message(number, 8)).unwrap();
    }
    drop((member, out));
    let expected: Vec<_> = (0..5).map(|number| message(number, 8)).collect();
    assert_eq!(texts(&mut inbox), expected);
    until(|| {
        assert_eq!(texts(&mut inbox), Vec::<Vec<u8>>::new());
        other.publishers() == 0
    });
}

#[test]
fn who_comes_and_goes_leaves_nothing_behind() {
    let config = config(&topic(), 8);
    let (left, right) = (join(&config).unwrap(), join(&config).unwrap());
    let mut inbox = left.subscriber.unwrap();
    for round in 0..150 {
        let (member, mut out) = publisher(&config);
        out.publish(&message(round, 8)).unwrap();
        drop((member, out));
        assert_eq!(texts(&mut inbox), [message(round, 8)]);
    }
    // The other one has taken nothing: it forgot those that went first.
    until(|| texts(&mut inbox).is_empty() && left.member.publishers() == 1);
    until(|| right.member.publishers() <= 9);
    assert!(right.member.forgotten() > 100);
    drop((left.member, inbox, right.member, right.subscriber));
    assert!(!is_topic_taken(&config.topic).unwrap());
}

#[test]
fn a_topic_has_room_for_so_many_and_no_more() {
    let config = config(&topic(), 8);
    let mut all: Vec<_> = (0..PARTICIPANTS_MAX).map(|_| publisher(&config)).collect();
    assert!(matches!(join(&config), Err(JoinError::Full(_))));
    all.pop();
    let (member, mut inbox) = subscriber(&config);
    assert_eq!(member.publishers(), 63);
    for (number, (_, out)) in all.iter_mut().enumerate() {
        out.publish(&message(number as u64, 8)).unwrap();
    }
    assert_eq!(texts(&mut inbox).len(), 63);
}

struct Flag(AtomicU64);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn sleepers_of_all_kinds_are_woken() {
    let config = TopicConfig { wait: Wait::Block, ..config(&topic(), 8) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    // A task.
    let flag = Arc::new(Flag(AtomicU64::new(0)));
    inbox.wake(&Waker::from(Arc::clone(&flag)));
    assert!(!inbox.is_ready());
    out.publish(b"1").unwrap();
    until(|| flag.0.load(Ordering::SeqCst) == 1);
    assert_eq!(texts(&mut inbox).len(), 1);
    // A descriptor.
    assert!(inbox.arm());
    out.publish(b"2").unwrap();
    super::wait::sleep_on(inbox.fd(), None);
    assert!(!inbox.arm(), "there is something already");
    assert_eq!(texts(&mut inbox).len(), 1);
    // A thread, beside a task.
    inbox.wake(&Waker::from(Arc::clone(&flag)));
    let ready = thread::spawn(move || {
        let mut room = Vec::new();
        // Who said that it sleeps looks once more, and may find the message then.
        while inbox.stats().naps == 0 {
            assert!(inbox.take(&mut room, None).is_some());
        }
        inbox
    });
    while !ready.is_finished() {
        until(|| ready.is_finished() || out.naps().first().is_some_and(|nap| nap & 3 == 3));
        out.publish(b"3").unwrap();
    }
    let mut inbox = ready.join().unwrap();
    texts(&mut inbox);
    until(|| flag.0.load(Ordering::SeqCst) == 2);
    let past = Instant::now() + Duration::from_millis(1);
    assert_eq!(inbox.take(&mut Vec::new(), Some(past)), None);
    assert!(Instant::now() >= past);
}

#[test]
fn who_sleeps_often_asks_for_fences_until_it_stays_awake_or_is_gone() {
    if !super::wait::Barrier::new().heavy() {
        println!("skipped: this kernel has no barrier for all cores");
        return;
    }
    let config = config(&topic(), 8);
    let (_member, mut out) = publisher(&config);
    let (other, mut inbox) = subscriber(&config);
    let sleep_and_wake = |out: &mut Publisher, inbox: &mut Subscriber| {
        assert!(inbox.arm());
        out.publish(b"1").unwrap();
        super::wait::sleep_on(inbox.fd(), None);
        assert_eq!(texts(inbox).len(), 1);
    };
    for asks in [0, 0, 0, 1, 1, 1] {
        sleep_and_wake(&mut out, &mut inbox);
        assert_eq!(out.of_readers(ASKS_AT), [asks]);
    }
    for _ in 0..20 {
        out.publish(b"2").unwrap();
    }
    assert_eq!((texts(&mut inbox).len(), out.of_readers(ASKS_AT)), (20, vec![0]));
    for _ in 0..5 {
        sleep_and_wake(&mut out, &mut inbox);
    }
    assert_eq!(out.of_readers(ASKS_AT), [1]);
    drop((other, inbox));
    // Its wish went with it.
    until(|| out.of_readers(ASKS_AT).is_empty());
}

#[test]
fn two_that_sleep_wake_each_other_many_times() {
    for wait in [Wait::Block, Wait::Adaptive, Wait::Spin] {
        let config = TopicConfig { wait, ..config(&topic(), 8) };
        let (left, right) = (join(&config).unwrap(), join(&config).unwrap());
        let echo = thread::spawn(move || {
            let (mut out, mut inbox) = (right.publisher.unwrap(), right.subscriber.unwrap());
            let mut room = Vec::new();
            for _ in 0..3_000 {
                inbox.take(&mut room, None).unwrap();
                out.publish(&room).unwrap();
            }
        });
        let (mut out, mut inbox) = (left.publisher.unwrap(), left.subscriber.unwrap());
        let mut room = Vec::new();
        for number in 0..3_000 {
            out.publish(&message(number, 8)).unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            assert!(inbox.take(&mut room, Some(deadline)).is_some(), "{wait:?}: a wake was lost");
            assert_eq!(room, message(number, 8));
        }
        echo.join().unwrap();
    }
}

#[test]
fn whole_messages_or_none_under_a_publisher_that_overtakes() {
    let config = TopicConfig { slots: 4, ..config(&topic(), 1_000) };
    let (_member, mut out) = publisher(&config);
    let (_other, mut inbox) = subscriber(&config);
    let writer = thread::spawn(move || {
        for number in 0..60_000 {
            out.publish(&message(number, 1_000)).unwrap();
        }
    });
    let mut room = Vec::new();
    let mut next = 0;
    while next < 60_000 {
        let Some(taken) = inbox.try_take(&mut room) else { continue };
        assert_eq!(room, message(taken.number, 1_000), "message {} is torn", taken.number);
        assert_eq!(taken.number, next + taken.lost);
        next = taken.number + 1;
    }
    writer.join().unwrap();
}

#[test]
fn a_visitor_that_speaks_nonsense_harms_nobody() {
    let config = config(&topic(), 8);
    let (member, mut out) = publisher(&config);
    let mut visitors = Vec::new();
    for length in [1, 64, 192, 4_000] {
        let visitor = super::meet::visit(&config.topic, 0).unwrap().unwrap();
        rustix::net::send(&visitor, &vec![7; length], rustix::net::SendFlags::empty()).unwrap();
        visitors.push(visitor);
    }
    // One that attaches with files that are no segments.
    let visitor = super::meet::visit(&config.topic, 0).unwrap().unwrap();
    let attach = super::greet::Greeting::new(super::greet::Kind::Attach, [1; 16], identity("test"));
    let null = std::fs::File::open("/dev/null").unwrap();
    super::meet::send(visitor.as_fd(), &attach, &[null.as_fd(); 3]).unwrap();
    until(|| member.refused().0 == 4);
    let (_other, mut inbox) = subscriber(&config);
    out.publish(b"good").unwrap();
    assert_eq!(texts(&mut inbox), [b"good"]);
    assert_eq!(member.subscribers(), 1);
}

/// Where a made-up participant of a topic meets others.
fn made_up(topic: &str) -> OwnedFd {
    super::meet::take_place(topic).unwrap().unwrap().1
}

/// The next that comes to a made-up participant.
fn visitor_of(door: &OwnedFd) -> OwnedFd {
    let _ = poll(&mut [PollFd::new(door, PollFlags::IN)], None);
    accept_with(door, SocketFlags::CLOEXEC).unwrap()
}

/// What comes to a visitor next.
fn answer_to(visitor: &OwnedFd) -> super::meet::Heard {
    loop {
        let _ = poll(&mut [PollFd::new(visitor, PollFlags::IN)], None);
        if let Some(heard) = super::meet::receive(visitor.as_fd()) {
            return heard;
        }
    }
}

#[test]
fn two_that_speak_other_versions_both_learn_it() {
    use super::greet::{Greeting, GreetingError, Kind};
    use super::meet::Heard;
    let other_version = |kind| {
        let mut bytes = Greeting::new(kind, [1; 16], identity("test")).to_bytes();
        bytes[4] = 9;
        bytes
    };
    let say = move |socket: &OwnedFd, kind| {
        rustix::net::send(socket, &other_version(kind), rustix::net::SendFlags::NOSIGNAL)
    };
    // One of another version comes.
    let config = config(&topic(), 8);
    let (member, _out) = publisher(&config);
    let visitor = super::meet::visit(&config.topic, 0).unwrap().unwrap();
    say(&visitor, Kind::Attach).unwrap();
    let Heard::Greeting(answer, _) = answer_to(&visitor) else { panic!("no answer") };
    assert_eq!(answer.kind, Kind::Nothing, "in this version, which it cannot read");
    assert!(matches!(answer_to(&visitor), Heard::Gone));
    assert_eq!(member.refused(), (1, Some(GreetingError::Version(9))));
    // One of another version is there, and answers in its own.
    for (roles, visits) in [(Roles::Publisher, 2), (Roles::Subscriber, 1)] {
        let config = TopicConfig { topic: topic(), roles, ..config.clone() };
        let door = made_up(&config.topic);
        let there = thread::spawn(move || {
            let visitors: Vec<_> = (0..visits).map(|_| visitor_of(&door)).collect();
            // Who publishes looks who is there, and hangs up, before it calls.
            let told = visitors.iter().filter(|it| say(it, Kind::Nothing).is_ok()).count();
            assert!(told > 0);
            (door, visitors)
        });
        let error = join(&config).map(|_| ()).unwrap_err();
        assert!(matches!(error, JoinError::AnotherVersion { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("has version 9, this program 1: use one version"), "{text}");
        there.join().unwrap();
    }
}

#[test]
fn a_publisher_whose_memory_cannot_be_read_is_named() {
    use super::greet::{Greeting, Kind};
    use super::map::Segment;
    let config = TopicConfig { roles: Roles::Subscriber, ..config(&topic(), 8) };
    let geometry = Geometry::new(8, 0, 64, 0, super::greet::digest(&config.identity)).unwrap();
    let good = geometry.to_words();
    let changed = |at: usize, word: u64| {
        let mut words = good;
        words[at] = word;
        words
    };
    let bytes = geometry.bytes();
    for (words, announced, part) in [
        (changed(0, 1), bytes, "the memory is no segment of a hub"),
        (changed(1, good[1] + 1), bytes, "has layout 3, this program 2: use one version"),
        (changed(1, good[1] + (1 << 32)), bytes, "the segment is of another kind"),
        (changed(3, good[3] + 1), bytes, "the segment's sizes are impossible"),
        (changed(5, good[5] ^ 1), bytes, "another type than its owner said"),
        (good, 2 * bytes, "where "),
    ] {
        let config = TopicConfig { topic: topic(), ..config.clone() };
        let door = made_up(&config.topic);
        let identity = config.identity.clone();
        let there = thread::spawn(move || {
            let visitor = visitor_of(&door);
            let segment = Segment::create("made up", bytes).unwrap();
            for (word, value) in segment.words(8).iter().zip(words) {
                word.store(value, Ordering::Relaxed);
            }
            let mut welcome = Greeting::new(Kind::Welcome, [1; 16], identity);
            welcome.segment_bytes = announced as u64;
            let bell = super::meet::bell().unwrap();
            let with = [segment.file(), bell.as_fd()];
            super::meet::send(visitor.as_fd(), &welcome, &with).unwrap();
            (door, visitor)
        });
        let error = join(&config).map(|_| ()).unwrap_err();
        assert!(matches!(error, JoinError::Segment { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("choose another topic"), "{text}");
        there.join().unwrap();
    }
}

/// Writes made-up values over a segment, as a process might that has gone wrong.
fn scribble(words: &[AtomicU64], from: usize, random: &mut Stream, next: u64) {
    let at = from + random.below((words.len() - from) as u64) as usize;
    let value = match random.below(5) {
        0 => random.next_u64(),
        1 => u64::MAX,
        2 => 4 * (next + random.below(9)) + random.below(4),
        3 => random.below(1 << 34),
        _ => 1 << 32 | random.below(200),
    };
    words[at].store(value, Ordering::Relaxed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever stands in a publisher's segment behind its head, its reader neither panics nor
    /// stays in it for ever.
    #[test]
    fn a_segment_gone_wrong_harms_no_subscriber(seed in any::<u64>(), long in any::<bool>()) {
        let bytes = if long { 5_000 } else { 40 };
        let config = TopicConfig { slots: 8, blocks: Some(3), ..config(&topic(), bytes) };
        let (_member, mut out) = publisher(&config);
        let (_other, mut inbox) = subscriber(&config);
        let mut random = Stream::new(seed, "scribble", 0);
        let mut room = Vec::new();
        for _ in 0..300 {
            let next = out.next_number();
            scribble(out.raw_words(), PUBLISHED_AT, &mut random, next);
            let _ = out.publish(&message(next, bytes));
            let _ = inbox.try_get(&mut room);
            if let Some(taken) = inbox.try_take(&mut room) {
                prop_assert!(taken.bytes <= out.geometry().message_bytes());
            }
            prop_assert!(inbox.is_ready() || !inbox.is_ready());
        }
    }

    /// The same the other way round.
    #[test]
    fn cursors_and_holds_gone_wrong_harm_no_publisher(seed in any::<u64>(), strict in any::<bool>()) {
        let policy = if strict { Policy::DropNew } else { Policy::Overwrite };
        let config = TopicConfig { slots: 8, blocks: Some(3), policy, ..config(&topic(), 5_000) };
        let (_member, mut out) = publisher(&config);
        let (_other, mut inbox) = subscriber(&config);
        let mut random = Stream::new(seed, "scribble", 0);
        for _ in 0..200 {
            let from = if random.below(2) == 0 { HOLDS_AT } else { 8 };
            scribble(inbox.raw_words(), from, &mut random, out.next_number());
            let length = [8, 5_000][random.below(2) as usize];
            if let Err(error) = out.publish(&message(0, length)) {
                prop_assert!(matches!(error, PublishError::Dropped | PublishError::Exhausted));
            }
            let _ = inbox.try_take(&mut Vec::new());
        }
        prop_assert_eq!(inbox.raw_words().len(), SUBSCRIBER_WORDS);
    }
}

#[test]
fn participants_that_join_at_once_all_find_each_other() {
    for _ in 0..20 {
        let config = config(&topic(), 8);
        let all: Vec<_> = thread::scope(|scope| {
            let joins: Vec<_> = (0..6).map(|_| scope.spawn(|| join(&config).unwrap())).collect();
            joins.into_iter().map(|join| join.join().unwrap()).collect()
        });
        until(|| all.iter().all(|it| it.member.subscribers() == 5 && it.member.publishers() == 5));
        let (mut out, mut inboxes) = (Vec::new(), Vec::new());
        let mut members = Vec::new();
        for joined in all {
            out.extend(joined.publisher);
            inboxes.extend(joined.subscriber);
            members.push(joined.member);
        }
        for out in &mut out {
            out.publish(b"once").unwrap();
        }
        for inbox in &mut inboxes {
            assert_eq!(texts(inbox).len(), 5, "each is heard once");
        }
    }
}
