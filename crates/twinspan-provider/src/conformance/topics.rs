//! Topics in shared memory.

use std::future::poll_fn;
use std::time::Duration;

use super::{PATIENCE, patiently, sleep_until};
use crate::{
    Env, TopicInbox, TopicJoinError, TopicMessage, TopicOptions, TopicOutbox, TopicPolicy,
    TopicProvider, TopicPublishError, TopicTakeError, publish_patiently,
};

/// Messages that lie in a block.
const LONG: usize = 5_000;
const MS: Duration = Duration::from_millis(1);

/// Runs every test. `name` is the front of a topic's name that nobody else uses.
pub async fn all<E: Env, T: TopicProvider>(env: &E, topics: &T, name: &str) {
    what_is_no_topic_is_refused(topics);
    each_publisher_has_an_order_of_its_own(topics, &format!("{name}/order"));
    who_joins_late_gets_the_last_messages(topics, &format!("{name}/late"));
    what_was_overwritten_is_counted_exactly(topics, &format!("{name}/gaps"));
    who_drops_new_messages_keeps_the_old_ones(topics, &format!("{name}/drop"));
    who_blocks_has_no_room_until_it_takes(topics, &format!("{name}/block"));
    too_long_is_refused_and_skipped(topics, &format!("{name}/long"));
    a_held_sample_stays_as_it_is(topics, &format!("{name}/held"));
    blocks_that_are_all_held_are_exhausted(topics, &format!("{name}/blocks"));
    what_was_published_before_leaving_is_taken(topics, &format!("{name}/left"));
    who_leaves_holds_nobody_back(env, topics, &format!("{name}/gone")).await;
    a_patient_publisher_waits_for_room(env, topics, &format!("{name}/patient")).await;
    who_waits_is_woken(env, topics, &format!("{name}/woken")).await;
}

fn options(message_bytes: usize) -> TopicOptions {
    TopicOptions::new(message_bytes)
}

fn ends<T: TopicProvider>(topics: &T, name: &str, options: &TopicOptions) -> (T::Outbox, T::Inbox) {
    let outbox = topics.publish_to(name, options).expect("a topic can be published to");
    (outbox, topics.subscribe_to(name, options).expect("a topic can be subscribed to"))
}

/// Message `number`, whose bytes say so all over.
fn message(number: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (number.wrapping_mul(31) + at) as u8).collect()
}

/// All that is there.
fn take_all(inbox: &mut impl TopicInbox) -> Vec<(TopicMessage, Vec<u8>)> {
    let (mut all, mut room) = (Vec::new(), Vec::new());
    while let Some(taken) = inbox.try_take(&mut room).expect("it is there") {
        all.push((taken, room.clone()));
    }
    all
}

fn numbers(inbox: &mut impl TopicInbox) -> Vec<u64> {
    take_all(inbox).iter().map(|(taken, _)| taken.number).collect()
}

/// Names outside the rules are [`TopicJoinError::Name`].
pub fn what_is_no_topic_is_refused<T: TopicProvider>(topics: &T) {
    for name in ["", "a b", "a#1", "ä"] {
        let outcome = topics.subscribe_to(name, &options(8)).map(|_| ());
        assert!(matches!(outcome, Err(TopicJoinError::Name(_))), "{name:?}: {outcome:?}");
    }
    let huge = TopicOptions { history: 200, slots: 16, ..options(8) };
    let outcome = topics.publish_to("sizes", &huge).map(|_| ());
    assert!(matches!(outcome, Err(TopicJoinError::Sizes)), "{outcome:?}");
}

/// Two publishers, each numbered from 0, none of whose messages is missing or changed.
pub fn each_publisher_has_an_order_of_its_own<T: TopicProvider>(topics: &T, name: &str) {
    let (mut one, mut inbox) = ends(topics, name, &options(48));
    let mut other = topics.publish_to(name, &options(48)).expect("there is place for two");
    for number in 0..100 {
        assert_eq!(one.try_publish(&message(number, 48)), Ok(number));
        assert_eq!(other.try_publish(&message(number + 7, 9)), Ok(number));
    }
    let all = take_all(&mut inbox);
    assert_eq!(all.len(), 200);
    let first = all.first().map(|(taken, _)| taken.publisher);
    for is_first in [true, false] {
        let its: Vec<_> =
            all.iter().filter(|(it, _)| (Some(it.publisher) == first) == is_first).collect();
        assert_eq!(its.len(), 100);
        let (len, shift) =
            if its.first().is_some_and(|(_, bytes)| bytes.len() == 48) { (48, 0) } else { (9, 7) };
        for ((taken, bytes), number) in its.into_iter().zip(0..) {
            assert_eq!((taken.number, taken.lost), (number, 0));
            assert_eq!(*bytes, message(number + shift, len));
        }
    }
}

/// The history that a late subscriber asks for, and no loss; none where it asks for none.
pub fn who_joins_late_gets_the_last_messages<T: TopicProvider>(topics: &T, name: &str) {
    for len in [16, LONG] {
        let name = &format!("{name}-{len}");
        let kept = TopicOptions { history: 3, ..options(len) };
        let mut outbox = topics.publish_to(name, &kept).expect("it can be published to");
        for number in 0..20 {
            assert_eq!(outbox.try_publish(&message(number, len)), Ok(number));
        }
        let mut late = topics.subscribe_to(name, &kept).expect("it can be subscribed to");
        let mut uncurious = topics.subscribe_to(name, &options(len)).expect("and once more");
        assert_eq!(outbox.try_publish(&message(20, len)), Ok(20));
        let all = take_all(&mut late);
        let wanted: Vec<_> = (17..=20).map(|number| message(number, len)).collect();
        assert!(all.iter().map(|(_, bytes)| bytes).eq(&wanted), "the last ones, as they were");
        assert!(all.iter().all(|(taken, _)| taken.lost == 0), "nothing of it was lost");
        assert_eq!(numbers(&mut uncurious), [20]);
    }
}

/// A subscriber that lags is told of each gap, to the message.
pub fn what_was_overwritten_is_counted_exactly<T: TopicProvider>(topics: &T, name: &str) {
    let (mut outbox, mut inbox) = ends(topics, name, &TopicOptions { slots: 16, ..options(8) });
    let (mut next, mut expected, mut lost) = (0_u64, 0, 0);
    for burst in [3, 16, 17, 40, 1, 1_000, 15] {
        for _ in 0..burst {
            assert_eq!(outbox.try_publish(&next.to_le_bytes()), Ok(next));
            next += 1;
        }
        for (taken, bytes) in take_all(&mut inbox) {
            assert_eq!(bytes, taken.number.to_le_bytes());
            assert_eq!(taken.number, expected + taken.lost, "the gap is exact");
            expected = taken.number + 1;
            lost += taken.lost;
        }
        assert_eq!(expected, next, "the newest is never lost");
    }
    assert!(lost > 900, "{lost}");
}

/// [`TopicPublishError::Dropped`] while such a subscriber is full.
pub fn who_drops_new_messages_keeps_the_old_ones<T: TopicProvider>(topics: &T, name: &str) {
    let policy = TopicPolicy::DropNew;
    let (mut outbox, mut inbox) =
        ends(topics, name, &TopicOptions { slots: 8, policy, ..options(8) });
    for number in 0..20 {
        let wanted = if number < 8 { Ok(number) } else { Err(TopicPublishError::Dropped) };
        assert_eq!(outbox.try_publish(&message(number, 8)), wanted);
    }
    assert_eq!(numbers(&mut inbox), (0..8).collect::<Vec<_>>());
    assert_eq!(outbox.try_publish(&message(20, 8)), Ok(8));
}

/// [`TopicPublishError::Full`] while such a subscriber has taken nothing.
pub fn who_blocks_has_no_room_until_it_takes<T: TopicProvider>(topics: &T, name: &str) {
    for len in [8, LONG] {
        let policy = TopicPolicy::Block;
        let few = TopicOptions { slots: 4, blocks: 8, policy, ..options(len) };
        let (mut outbox, mut inbox) = ends(topics, &format!("{name}-{len}"), &few);
        for number in 0..4 {
            assert_eq!(outbox.try_publish(&message(number, len)), Ok(number));
        }
        assert_eq!(outbox.try_publish(&message(4, len)), Err(TopicPublishError::Full));
        assert_eq!(numbers(&mut inbox), [0, 1, 2, 3]);
        assert_eq!(outbox.try_publish(&message(4, len)), Ok(4));
        let all = take_all(&mut inbox);
        assert!(all.iter().all(|(taken, bytes)| taken.lost == 0 && *bytes == message(4, len)));
    }
}

/// [`TopicPublishError::TooLong`] where it is published; missed where it is longer than one takes.
pub fn too_long_is_refused_and_skipped<T: TopicProvider>(topics: &T, name: &str) {
    let mut outbox = topics.publish_to(name, &options(300)).expect("it can be published to");
    let mut inbox = topics.subscribe_to(name, &options(100)).expect("it can be subscribed to");
    // A side may round its sizes up to whole lines.
    match outbox.try_publish(&message(0, LONG)) {
        Err(TopicPublishError::TooLong { have: LONG, max: 300..=512 }) => {}
        other => panic!("too long is refused with both lengths, not: {other:?}"),
    }
    assert_eq!(outbox.try_publish(&message(0, 300)), Ok(0));
    assert_eq!(outbox.try_publish(&message(1, 100)), Ok(1));
    let all = take_all(&mut inbox);
    let lost: Vec<_> = all.iter().map(|(taken, _)| (taken.number, taken.lost)).collect();
    assert_eq!(lost, [(1, 1)]);
}

/// Samples that are held are not written over, and there are [`TOPIC_HOLDS_MAX`](crate::TOPIC_HOLDS_MAX)
/// at most.
pub fn a_held_sample_stays_as_it_is<T: TopicProvider>(topics: &T, name: &str) {
    let few = TopicOptions { slots: 4, blocks: 18, ..options(LONG) };
    let (mut outbox, mut inbox) = ends(topics, name, &few);
    let (mut held, mut room) = (Vec::new(), Vec::new());
    for number in 0..crate::TOPIC_HOLDS_MAX as u64 {
        assert_eq!(outbox.try_publish(&message(number, LONG)), Ok(number));
        let Ok(Some((taken, Some(sample)))) = inbox.try_hold(&mut room) else {
            panic!("a long message is held");
        };
        assert_eq!(taken.number, number);
        held.push(sample);
    }
    assert_eq!(outbox.try_publish(&message(15, LONG)), Ok(15));
    assert_eq!(inbox.try_hold(&mut room).map(|_| ()), Err(TopicTakeError::TooManyHeld));
    for number in 16..100 {
        assert_eq!(outbox.try_publish(&message(number, LONG)), Ok(number));
    }
    for (sample, number) in held.iter().zip(0..) {
        assert_eq!(sample.as_ref(), message(number, LONG));
    }
    held.truncate(3);
    assert!(matches!(inbox.try_hold(&mut room), Ok(Some((_, Some(_))))), "there is room again");
}

/// [`TopicPublishError::Exhausted`] until a sample is let go of.
pub fn blocks_that_are_all_held_are_exhausted<T: TopicProvider>(topics: &T, name: &str) {
    let (mut outbox, mut inbox) = ends(topics, name, &TopicOptions { blocks: 3, ..options(LONG) });
    let (mut held, mut room) = (Vec::new(), Vec::new());
    for number in 0..3 {
        assert_eq!(outbox.try_publish(&message(number, LONG)), Ok(number));
        held.push(inbox.try_hold(&mut room).expect("there is room"));
    }
    assert_eq!(outbox.try_publish(&message(3, LONG)), Err(TopicPublishError::Exhausted));
    assert_eq!(outbox.try_publish(&message(3, 8)), Ok(3), "short ones need no block");
    held.remove(0);
    assert_eq!(outbox.try_publish(&message(4, LONG)), Ok(4));
}

/// Those who were there get it all, those who come later nothing.
pub fn what_was_published_before_leaving_is_taken<T: TopicProvider>(topics: &T, name: &str) {
    let kept = TopicOptions { history: 2, ..options(LONG) };
    let (mut outbox, mut inbox) = ends(topics, name, &kept);
    for number in 0..5 {
        assert_eq!(outbox.try_publish(&message(number, 100)), Ok(number));
    }
    drop(outbox);
    assert_eq!(numbers(&mut inbox), [0, 1, 2, 3, 4]);
    let mut late = topics.subscribe_to(name, &kept).expect("it can be subscribed to");
    assert_eq!(numbers(&mut late), Vec::<u64>::new());
}

/// A subscriber that blocked or held samples is gone, and there is room soon.
pub async fn who_leaves_holds_nobody_back<E: Env, T: TopicProvider>(
    env: &E,
    topics: &T,
    name: &str,
) {
    let policy = TopicPolicy::Block;
    let few = TopicOptions { slots: 4, blocks: 4, policy, ..options(LONG) };
    let (mut outbox, mut inbox) = ends(topics, name, &few);
    let mut held = Vec::new();
    for number in 0..2 {
        assert_eq!(outbox.try_publish(&message(number, LONG)), Ok(number));
        held.push(inbox.try_hold(&mut Vec::new()).expect("it is held"));
    }
    while outbox.try_publish(&message(9, LONG)).is_ok() {}
    drop((held, inbox));
    let limit = env.now().after(PATIENCE);
    for number in 0..8 {
        while outbox.try_publish(&message(number, LONG)).is_err() {
            assert!(env.now() < limit, "who is gone holds the publisher back");
            sleep_until(env, env.now().after(MS)).await;
        }
    }
}

/// A publisher that waits goes on when there is room, and gives up when there is none in time.
pub async fn a_patient_publisher_waits_for_room<E: Env, T: TopicProvider>(
    env: &E,
    topics: &T,
    name: &str,
) where
    T::Inbox: 'static,
{
    let policy = TopicPolicy::Block;
    let (mut outbox, mut inbox) =
        ends(topics, name, &TopicOptions { slots: 4, policy, ..options(8) });
    for number in 0..4 {
        assert_eq!(outbox.try_publish(&message(number, 8)), Ok(number));
    }
    let outcome = publish_patiently(env, &mut outbox, &message(4, 8), 20 * MS).await;
    assert_eq!(outcome, Err(TopicPublishError::Full));
    let inner = env.clone();
    let task = env.spawn("takes later", async move {
        sleep_until(&inner, inner.now().after(20 * MS)).await;
        assert_eq!(numbers(&mut inbox), [0, 1, 2, 3]);
        // Kept, so that nobody has left.
        std::future::pending::<()>().await;
    });
    let outcome = publish_patiently(env, &mut outbox, &message(4, 8), PATIENCE).await;
    assert_eq!(outcome, Ok(4));
    drop(task);
}

/// A task that waits for a message is woken by it, by each one.
pub async fn who_waits_is_woken<E: Env, T: TopicProvider>(env: &E, topics: &T, name: &str) {
    let (mut outbox, mut inbox) = ends(topics, name, &options(8));
    let inner = env.clone();
    let task = env.spawn("publishes", async move {
        for number in 0..5_u64 {
            sleep_until(&inner, inner.now().after(5 * MS)).await;
            assert_eq!(outbox.try_publish(&number.to_le_bytes()), Ok(number));
        }
        std::future::pending::<()>().await;
    });
    let mut room = Vec::new();
    for number in 0..5_u64 {
        let taking = poll_fn(|cx| inbox.poll_take(cx, &mut room));
        let taken = patiently(env, "a message comes", taking).await.expect("it is there");
        assert_eq!((taken.number, taken.lost), (number, 0));
        assert_eq!(room, number.to_le_bytes());
    }
    drop(task);
}
