//! What circuits promise over a bad line.

use std::collections::BTreeMap;
use std::time::Duration;

use twinspan_circuit::{
    Circuits, Config, DeliveryId, ORDERED_MESSAGES_MAX, Outcome, Rates, SendError, SendOptions,
    ThrottleClass,
};
use twinspan_core::random::Stream;
use twinspan_lludp::messages::{ChatFromSimulator, UseCircuitCode};
use twinspan_lludp::{AnyMessage, Message, MessageId};

use crate::pair::{CLEAN, CODE, Conditions, Pair, SIMULATOR, VIEWER, addr, chat_down, chat_up};

const SECOND: Duration = Duration::from_secs(1);

fn configs() -> [Config; 2] {
    [Config::default(), Config { rates: Rates::UNLIMITED, ..Config::simulator() }]
}

fn conditions(seed: u64) -> Conditions {
    let mut random = Stream::new(seed, "conditions", 1);
    Conditions {
        loss: random.between(0.0, 0.3),
        duplicate: random.between(0.0, 0.2),
        delay_ms: random.between(1.0, 80.0),
        jitter_ms: random.between(0.0, 200.0),
    }
}

/// Sends `count` messages each way; which delivery is which number.
fn converse(pair: &mut Pair, count: u32) -> [BTreeMap<DeliveryId, u32>; 2] {
    let mut ids = [BTreeMap::new(), BTreeMap::new()];
    for number in 0..count {
        let now = pair.now;
        let up = AnyMessage::from(chat_up(number, 40));
        let down = AnyMessage::from(chat_down(number, 200));
        let id = pair.ends[VIEWER].send_reliable(now, addr(SIMULATOR), &[up]).unwrap();
        ids[VIEWER].insert(id, number);
        let id = pair.ends[SIMULATOR].send_reliable(now, addr(VIEWER), &[down]).unwrap();
        ids[SIMULATOR].insert(id, number);
        pair.run_for(Duration::from_millis(20));
    }
    pair.settle(30 * SECOND);
    ids
}

/// Each message came at most once, and exactly once where that was told.
fn check(pair: &Pair, ids: &[BTreeMap<DeliveryId, u32>; 2], seed: u64) -> u32 {
    let mut failed = 0;
    for end in [VIEWER, SIMULATOR] {
        let inbox = &pair.inboxes[1 - end];
        assert!(inbox.numbers.values().all(|times| *times == 1), "seed {seed}: one came twice");
        for (id, number) in &ids[end] {
            match pair.outcomes[end].get(id) {
                Some(Outcome::Acked { .. }) => {
                    assert!(inbox.numbers.contains_key(number), "seed {seed}: {number} is missing");
                }
                Some(Outcome::TimedOut { resends }) => {
                    failed += 1;
                    assert!(resends.unwrap_or(0) <= Config::default().resends_max, "seed {seed}");
                }
                other => panic!("seed {seed}: {number} has the outcome {other:?}"),
            }
        }
        assert_eq!(pair.ends[end].unacknowledged(addr(1 - end)), 0, "seed {seed}");
    }
    failed
}

#[test]
fn each_message_arrives_once_or_its_failure_is_told() {
    let mut failed = 0;
    for seed in 0..60 {
        let mut pair = Pair::connected(configs(), conditions(seed), seed);
        let ids = converse(&mut pair, 100);
        failed += check(&pair, &ids, seed);
    }
    // In 5 s a message leaves four times or so, and at 30 % loss half of them are acknowledged.
    assert!(failed < 60 * 200 / 50, "{failed} of 12000");
    println!("{failed} of 12000 timed out");
}

#[test]
fn numbers_wrap_without_a_trace() {
    for seed in 0..10 {
        let wrap = |config: Config| Config { first_number: (1 << 24) - 40, ..config };
        let mut pair = Pair::connected(configs().map(wrap), conditions(seed), seed);
        let ids = converse(&mut pair, 100);
        check(&pair, &ids, seed);
        assert!(pair.ends.iter().all(|end| end.total().acks_unknown == 0), "seed {seed}");
        assert!(pair.ends.iter().all(|end| end.total().too_old_in == 0), "seed {seed}");
    }
}

#[test]
fn a_partition_ends_in_failures_and_healing_in_deliveries() {
    let mut pair = Pair::connected(configs(), CLEAN, 1);
    pair.cut = true;
    let lost = converse(&mut pair, 20);
    assert_eq!(check(&pair, &lost, 1), 40);
    let resends = pair.ends[VIEWER].total().resends_out;
    assert!((20..=20 * 8).contains(&resends), "{resends}");
    pair.run_for(5 * SECOND);
    assert_eq!(pair.ends[VIEWER].total().resends_out, resends, "what is given up is left alone");
    pair.cut = false;
    let healed = converse(&mut pair, 20);
    assert_eq!(check(&pair, &healed, 1), 0);
    pair.cut = true;
    pair.run_for(61 * SECOND);
    assert_eq!((pair.closed, pair.ends[VIEWER].len()), ([1, 1], 0), "silence ends circuits");
}

#[test]
fn a_burst_of_5000_datagrams_loses_nothing() {
    let mut pair = Pair::connected(configs(), CLEAN, 3);
    pair.run_for(SECOND);
    let before = pair.ends[VIEWER].total();
    for number in 0..5_000 {
        while pair.ends[SIMULATOR].waiting(addr(VIEWER)) > 1_000 {
            pair.run_for(Duration::from_millis(1));
        }
        let down = chat_down(number, 200);
        let now = pair.now;
        pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
    }
    pair.settle(30 * SECOND);
    let inbox = &pair.inboxes[VIEWER];
    assert_eq!((inbox.numbers.len(), inbox.order.len()), (5_000, 5_000));
    let simulator = pair.ends[SIMULATOR].total();
    assert_eq!((simulator.given_up, simulator.resends_out), (0, 0));
    let viewer = pair.ends[VIEWER].total();
    let packets = viewer.packet_acks_out - before.packet_acks_out;
    assert!(packets <= 5_000 * 15 / 100, "{packets}");
}

#[test]
fn few_acks_travel_alone() {
    // What a viewer sends anyway while a region sends it ten messages a second.
    let mut pair = Pair::connected(configs(), CLEAN, 4);
    for number in 0..300 {
        let now = pair.now;
        if number % 2 == 0 {
            let bundle = [0, 1].map(|part| AnyMessage::from(chat_down(2 * number + part, 100)));
            pair.ends[SIMULATOR].send_reliable(now, addr(VIEWER), &bundle).unwrap();
        }
        let update = twinspan_lludp::messages::AgentUpdate::default();
        pair.ends[VIEWER].send(now, addr(SIMULATOR), &update, SendOptions::UNRELIABLE).unwrap();
        pair.run_for(Duration::from_millis(100));
    }
    let viewer = pair.ends[VIEWER].total();
    assert!(viewer.reliable_in >= 300);
    let share = 100 * viewer.packet_acks_out / viewer.reliable_in;
    assert!(share <= 15, "{share} PacketAck packets for 100 reliable ones");
    assert!(viewer.acks_piggybacked > 200);
}

/// The simulator says a word each 60 ms, 40 ms away, to a viewer that says nothing. Returns the
/// viewer's counters and how often the simulator sent again.
fn sparse_words(simulator: Config) -> (twinspan_circuit::CircuitStats, u64) {
    let conditions = Conditions { delay_ms: 40.0, ..CLEAN };
    let mut pair = Pair::connected([Config::default(), simulator], conditions, 4);
    pair.run_for(SECOND);
    for number in 0..300 {
        let (now, down) = (pair.now, chat_down(number, 100));
        pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
        pair.run_for(Duration::from_millis(60));
    }
    pair.settle(5 * SECOND);
    assert_eq!(pair.inboxes[VIEWER].order.len(), 300);
    (pair.ends[VIEWER].total(), pair.ends[SIMULATOR].total().resends_out)
}

#[test]
fn acks_of_sparse_traffic_leave_together_and_before_anything_is_sent_again() {
    let (viewer, resends) = sparse_words(configs()[SIMULATOR].clone());
    let share = 100 * viewer.packet_acks_out / viewer.reliable_in;
    assert!(share <= 25, "{share} PacketAck packets for 100 reliable ones");
    assert_eq!((resends, viewer.duplicates_in), (0, 0));
}

#[test]
fn a_peer_that_sends_again_soon_is_answered_sooner() {
    let impatient = Config { peer_ack_delay: Duration::ZERO, ..configs()[SIMULATOR].clone() };
    let (viewer, resends) = sparse_words(impatient);
    assert!((1..=10).contains(&viewer.duplicates_in), "{} duplicates", viewer.duplicates_in);
    assert_eq!(resends, viewer.duplicates_in, "nothing was lost");
}

#[test]
fn what_came_is_acknowledged_even_where_the_circuit_ends() {
    for farewell in [twinspan_circuit::Farewell::Silent, twinspan_circuit::Farewell::CloseCircuit] {
        let mut pair = Pair::connected(configs(), CLEAN, 11);
        pair.run_for(SECOND);
        let (now, down) = (pair.now, AnyMessage::from(chat_down(1, 10)));
        let id = pair.ends[SIMULATOR].send_reliable(now, addr(VIEWER), &[down]).unwrap();
        pair.run_for(Duration::from_millis(21));
        assert_eq!(pair.inboxes[VIEWER].numbers[&1], 1);
        pair.ends[VIEWER].close(addr(SIMULATOR), farewell);
        pair.run_for(SECOND);
        let outcome = pair.outcomes[SIMULATOR].get(&id);
        assert!(matches!(outcome, Some(Outcome::Acked { .. })), "{farewell:?}: {outcome:?}");
        assert_eq!(pair.ends[SIMULATOR].total().resends_out, 0);
    }
}

#[test]
fn acks_due_find_their_way_past_full_packets() {
    let mut pair = Pair::connected(configs(), CLEAN, 5);
    // Packets so long that no ack fits behind them, in both directions.
    for number in 0..400 {
        let (now, long) = (pair.now, 1_100);
        let down = chat_down(number, long);
        pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
        for part in 0..8 {
            let up = chat_up(number * 8 + part, long);
            pair.ends[VIEWER].send(now, addr(SIMULATOR), &up, SendOptions::UNRELIABLE).unwrap();
        }
        pair.run_for(Duration::from_millis(5));
    }
    pair.settle(5 * SECOND);
    assert_eq!(pair.inboxes[VIEWER].numbers.len(), 400);
    assert_eq!(pair.ends[SIMULATOR].total().resends_out, 0);
}

#[test]
fn a_handshake_takes_less_than_3_seconds_at_20_percent_loss() {
    let mut took = Vec::new();
    for seed in 0..100 {
        let conditions = Conditions { loss: 0.2, jitter_ms: 20.0, ..CLEAN };
        let mut pair = Pair::new(configs(), conditions, seed);
        let start = pair.now;
        pair.connect();
        took.push(pair.now.since(start));
    }
    took.sort();
    assert!(took[95] < Duration::from_secs(3), "{:?}", took[95]);
    assert!(took[50] < Duration::from_millis(600), "{:?}", took[50]);
}

#[test]
fn messages_in_order_wait_for_older_ones() {
    for seed in 0..10 {
        let conditions = Conditions { jitter_ms: 60.0, ..CLEAN };
        let mut pair = Pair::connected(configs(), conditions, seed);
        assert!(pair.ends[VIEWER].keep_in_order(ChatFromSimulator::ID));
        for number in 0..200 {
            let (now, down) = (pair.now, chat_down(number, 10));
            pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
            pair.run_for(Duration::from_millis(5));
        }
        pair.settle(5 * SECOND);
        pair.run_for(SECOND);
        assert_eq!(pair.inboxes[VIEWER].order, (0..200).collect::<Vec<u32>>(), "seed {seed}");
        assert!(pair.ends[VIEWER].total().held > 20, "seed {seed}");
    }
}

#[test]
fn an_order_is_kept_as_long_as_somebody_wants_it() {
    let ids: Vec<MessageId> =
        (1..=ORDERED_MESSAGES_MAX as u16 + 1).map(|id| MessageId::low(id).unwrap()).collect();
    let (last, others) = ids.split_last().unwrap();
    let mut circuits = Circuits::new(Config::default(), Stream::new(1, "order", 0)).unwrap();
    assert!(others.iter().all(|id| circuits.keep_in_order(*id)));
    assert!(circuits.keep_in_order(others[0]), "a second who wants it");
    assert!(!circuits.keep_in_order(*last) && !circuits.is_in_order(*last));
    assert!(circuits.forget_order(others[0]) && circuits.is_in_order(others[0]));
    assert!(!circuits.keep_in_order(*last), "there is one left who wants it");
    assert!(circuits.forget_order(others[0]) && !circuits.is_in_order(others[0]));
    assert!(!circuits.forget_order(others[0]), "nobody does");
    assert!(circuits.keep_in_order(*last) && circuits.is_in_order(*last));
}

#[test]
fn messages_in_order_are_held_no_longer_than_their_deadline() {
    let conditions = Conditions { loss: 0.2, ..CLEAN };
    let mut pair = Pair::connected(configs(), conditions, 9);
    assert!(pair.ends[VIEWER].keep_in_order(ChatFromSimulator::ID));
    for number in 0..300 {
        let (now, down) = (pair.now, chat_down(number, 10));
        let options = SendOptions::RELIABLE.within(30 * SECOND);
        pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, options).unwrap();
        pair.run_for(Duration::from_millis(10));
    }
    pair.settle(30 * SECOND);
    pair.run_for(SECOND);
    let inbox = &pair.inboxes[VIEWER];
    assert_eq!(inbox.order.len(), 300, "what comes late comes all the same");
    assert!(pair.ends[VIEWER].total().out_of_order > 0);
}

#[test]
fn what_finds_no_room_is_not_acknowledged_and_comes_again() {
    let mut pair = Pair::connected(configs(), CLEAN, 6);
    pair.inboxes[SIMULATOR].refuse = 3;
    let ids = converse(&mut pair, 5);
    assert_eq!(check(&pair, &ids, 6), 0);
    assert_eq!(pair.ends[SIMULATOR].total().no_room_in, 3);
}

#[test]
fn rates_hold_back_bulk_and_not_handshakes() {
    let config = Config { rates: Rates::new([9_600.0; 7]), ..Config::simulator() };
    let mut pair = Pair::connected([Config::default(), config], CLEAN, 7);
    let texture = SendOptions::UNRELIABLE.at_rate_of(ThrottleClass::Texture);
    let now = pair.now;
    for number in 0..100 {
        let down = chat_down(number, 1_000);
        pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, texture).unwrap();
    }
    let urgent = chat_down(1_000, 10);
    pair.ends[SIMULATOR].send(now, addr(VIEWER), &urgent, SendOptions::CRITICAL).unwrap();
    pair.run_for(Duration::from_millis(50));
    assert!(pair.inboxes[VIEWER].numbers.contains_key(&1_000));
    pair.run_for(10 * SECOND);
    // 1,200 bytes a second, and 3,000 at once.
    let came = pair.inboxes[VIEWER].numbers.len();
    assert!((12..=17).contains(&came), "{came}");
}

#[test]
fn a_group_has_one_outcome_and_limits_are_values() {
    let mut pair = Pair::connected(configs(), CLEAN, 8);
    let (now, to) = (pair.now, addr(SIMULATOR));
    let viewer = &mut pair.ends[VIEWER];
    assert_eq!(viewer.send_reliable(now, to, &[]), Err(SendError::Count { count: 0 }));
    let stranger = addr(7);
    let chat = AnyMessage::from(chat_up(1, 10));
    let error = viewer.send_reliable(now, stranger, std::slice::from_ref(&chat)).unwrap_err();
    assert_eq!(error, SendError::NoCircuit { addr: stranger });
    let long = AnyMessage::from(chat_up(1, 3_000));
    let error = viewer.send_reliable(now, to, &[chat, long]).unwrap_err();
    assert_eq!(error, SendError::TooLong { max: 1_194 });
    assert_eq!(viewer.waiting(to), 0);
    let three: Vec<AnyMessage> = (0..3).map(|number| chat_up(number, 10).into()).collect();
    let id = viewer.send_reliable(now, to, &three).unwrap();
    pair.settle(5 * SECOND);
    assert!(matches!(pair.outcomes[VIEWER][&id], Outcome::Acked { .. }));
    let mut refused = 0;
    for number in 0..3_000 {
        let chat = chat_up(number, 10);
        let sent = pair.ends[VIEWER].send(pair.now, to, &chat, SendOptions::RELIABLE);
        refused += u32::from(matches!(sent, Err(SendError::Full { messages: 2_048, .. })));
    }
    assert_eq!(refused, 3_000 - 2_048);
    pair.ends[VIEWER].close(to, twinspan_circuit::Farewell::CloseCircuit);
    pair.run_for(SECOND);
    assert_eq!((pair.closed, pair.ends[SIMULATOR].len()), ([1, 1], 0));
}

#[test]
fn a_code_that_is_wrong_opens_nothing_and_is_not_answered() {
    let mut pair = Pair::new(configs(), CLEAN, 1);
    pair.ends[VIEWER].open(pair.now, addr(SIMULATOR)).unwrap();
    let mut hello = UseCircuitCode::default();
    hello.circuit_code.code = CODE + 1;
    let now = pair.now;
    let options = SendOptions::CRITICAL;
    let id = pair.ends[VIEWER].send_tracked(now, addr(SIMULATOR), &hello, options).unwrap();
    pair.run_for(10 * SECOND);
    assert!(matches!(pair.outcomes[VIEWER][&id], Outcome::TimedOut { resends: Some(1..=16) }));
    let simulator = &pair.ends[SIMULATOR];
    assert_eq!((simulator.len(), simulator.total().packets_out), (0, 0));
    assert!(simulator.strangers().refused > 5);
}

#[test]
fn a_circuit_that_is_opened_again_goes_on_with_its_numbers() {
    let mut pair = Pair::connected(configs(), CLEAN, 10);
    let ids = converse(&mut pair, 20);
    assert_eq!(check(&pair, &ids, 10), 0);
    // The simulator does not hear that the circuit ended.
    pair.ends[VIEWER].close(addr(SIMULATOR), twinspan_circuit::Farewell::Silent);
    pair.run_for(SECOND);
    assert_eq!((pair.closed, pair.ends[SIMULATOR].len()), ([1, 0], 1));
    // Nor what it resends into the next one be taken twice.
    let now = pair.now;
    pair.ends[SIMULATOR]
        .send(now, addr(VIEWER), &chat_down(90, 10), SendOptions::RELIABLE)
        .unwrap();
    pair.run_for(SECOND);
    pair.connect();
    let before = pair.inboxes[SIMULATOR].order.len();
    for number in 100..110 {
        let (now, up) = (pair.now, chat_up(number, 10));
        pair.ends[VIEWER].send(now, addr(SIMULATOR), &up, SendOptions::RELIABLE).unwrap();
    }
    pair.settle(5 * SECOND);
    assert_eq!(pair.inboxes[SIMULATOR].order.len() - before, 10);
    assert_eq!(pair.inboxes[VIEWER].numbers[&90], 1);
}
