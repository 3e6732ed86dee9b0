//! What fresh numbers promise over a bad line, and that each mechanism is needed for it.

use std::time::Duration;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::{AckError, Channel, Config, InFrame, Knobs, Receiver, SendError, Sender};

use crate::fresh::{BULK, Failure, ORDERED, Pair, STATE, UNORDERED};
use crate::line::Conditions;

/// Messages of each kind that each end sends.
const MESSAGES: u32 = 100;
const LONG_MESSAGES: u32 = 8;

/// A bad line of its own for each seed: loss 20 to 40 %, duplicates, jitter up to 200 ms.
fn conditions(seed: u64) -> Conditions {
    let mut random = Stream::new(seed, "conditions", 0);
    Conditions {
        loss: random.between(0.2, 0.4),
        duplicate: random.between(0.0, 0.2),
        delay_ms: random.between(1.0, 60.0),
        jitter_ms: random.between(0.0, 200.0),
    }
}

fn long(index: u32) -> Vec<u8> {
    let len = 1_500 + index * 3_000;
    (0..len).map(|byte| (byte ^ byte >> 8 ^ index) as u8).collect()
}

/// Sends a second of traffic both ways, then lets the line drain; returns the pair.
fn converse(knobs: [Knobs; 2], conditions: Conditions, seed: u64, drain_s: u64) -> Pair {
    let [a, b] = knobs.map(|knobs| Config { knobs, ..Config::default() });
    let mut pair = Pair::new([&a, &b], conditions, seed);
    for index in 0..MESSAGES {
        let now = pair.now;
        for side in [0, 1] {
            let end = &mut pair.ends[side];
            let bytes = index.to_le_bytes();
            end.sender.send(now, ORDERED, &bytes).unwrap();
            end.sender.send(now, UNORDERED, &bytes).unwrap();
            if index % (MESSAGES / LONG_MESSAGES) == 0 && index / 12 < LONG_MESSAGES {
                end.sender.send(now, BULK, &long(index / 12)).unwrap();
            }
            if end.failure.is_none() && index % 5 == 0 {
                end.send_state(now, index + 1, &mut pair.lines[side]);
            }
        }
        pair.run_until(now.after(Duration::from_millis(10)));
    }
    let end = pair.now.after(Duration::from_secs(drain_s));
    while !pair.is_settled() && pair.now < end && pair.ends.iter().all(|end| end.failure.is_none())
    {
        pair.run_until(pair.now.after(Duration::from_millis(100)));
    }
    pair
}

fn received(pair: &Pair, side: usize, channel: Channel) -> Vec<Vec<u8>> {
    let got = pair.ends[side].got.iter();
    got.filter(|(from, _)| *from == channel).map(|(_, bytes)| bytes.clone()).collect()
}

fn numbers(messages: &[Vec<u8>]) -> Vec<u32> {
    messages.iter().map(|bytes| u32::from_le_bytes(bytes[..4].try_into().unwrap())).collect()
}

/// Whether everything reliable came exactly once and in order where that is promised.
fn is_faithful(pair: &Pair) -> bool {
    let all: Vec<u32> = (0..MESSAGES).collect();
    let longs: Vec<Vec<u8>> = (0..LONG_MESSAGES).map(long).collect();
    [0, 1].into_iter().all(|side| {
        let mut unordered = numbers(&received(pair, side, UNORDERED));
        unordered.sort_unstable();
        numbers(&received(pair, side, ORDERED)) == all
            && unordered == all
            && received(pair, side, BULK) == longs
    })
}

#[test]
fn every_reliable_message_arrives_exactly_once_and_in_order() {
    let mut spurious = 0;
    for seed in 0..200 {
        let pair = converse([Knobs::default(); 2], conditions(seed), seed, 120);
        assert!(is_faithful(&pair), "seed {seed}");
        assert!(pair.is_settled(), "seed {seed}");
        for end in &pair.ends {
            assert_eq!(end.failure, None, "seed {seed}");
            assert_eq!(end.receiver.held_bytes(), 0, "seed {seed}");
            spurious += end.sender.stats().spurious;
        }
    }
    assert!(spurious > 100, "late acks of old numbers were hardly tried: {spurious}");
}

#[test]
fn sequenced_messages_arrive_rising_and_tags_come_back_once() {
    for seed in 0..20 {
        let pair = converse([Knobs::default(); 2], conditions(seed), seed, 120);
        for side in [0, 1] {
            let states: Vec<u64> = received(&pair, side, STATE)
                .iter()
                .map(|bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()))
                .collect();
            assert!(states.is_sorted_by(|a, b| a < b), "seed {seed}: {states:?}");
            assert!(!states.is_empty());
            let mut tags: Vec<u32> =
                pair.ends[side].tags.iter().copied().filter(|tag| *tag > 0).collect();
            let count = tags.len();
            assert!(count > 0);
            tags.sort_unstable();
            tags.dedup();
            assert_eq!(tags.len(), count, "seed {seed}");
        }
    }
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let run = |seed| {
        let pair = converse([Knobs::default(); 2], conditions(seed), seed, 120);
        (pair.now, pair.ends.map(|end| (*end.sender.stats(), *end.receiver.stats(), end.got)))
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}

#[test]
fn a_clean_line_loses_and_resends_nothing() {
    let clean = Conditions { loss: 0.0, duplicate: 0.0, delay_ms: 20.0, jitter_ms: 0.0 };
    let pair = converse([Knobs::default(); 2], clean, 1, 10);
    assert!(is_faithful(&pair));
    for end in &pair.ends {
        let stats = end.sender.stats();
        assert_eq!((stats.packets_lost, stats.frames_resent, stats.timeouts), (0, 0, 0));
        assert!(end.sender.rtt().min() >= Duration::from_millis(40));
        assert!(end.sender.rtt().min() <= Duration::from_millis(42));
    }
}

#[test]
fn without_resend_messages_are_missing() {
    let knobs = Knobs { resend: false, ..Knobs::default() };
    for seed in 0..5 {
        let pair = converse([knobs; 2], conditions(seed), seed, 20);
        assert!(!is_faithful(&pair) && !pair.is_settled(), "seed {seed}");
    }
}

#[test]
fn without_duplicate_suppression_messages_come_twice() {
    let knobs = Knobs { suppress_duplicates: false, ..Knobs::default() };
    for seed in 0..5 {
        let conditions = Conditions { jitter_ms: 150.0, ..conditions(seed) };
        let pair = converse([knobs; 2], conditions, seed, 120);
        assert!(!is_faithful(&pair), "seed {seed}");
        assert!(received(&pair, 0, UNORDERED).len() > MESSAGES as usize, "seed {seed}");
    }
}

#[test]
fn without_ack_validation_a_liar_makes_messages_vanish() {
    let lies = Knobs { ack_ahead: 3, ..Knobs::default() };
    let believes = Knobs { validate_acks: false, ..Knobs::default() };
    for seed in 0..5 {
        let pair = converse([believes, lies], conditions(seed), seed, 20);
        let missing = MESSAGES as usize - received(&pair, 1, ORDERED).len();
        assert!(missing > 0, "seed {seed}");
        assert_eq!(pair.ends[0].failure, None, "seed {seed}");
    }
}

#[test]
fn with_ack_validation_a_liar_is_caught() {
    let lies = Knobs { ack_ahead: 3, ..Knobs::default() };
    for seed in 0..5 {
        let pair = converse([Knobs::default(), lies], conditions(seed), seed, 20);
        let failure = pair.ends[0].failure;
        assert!(
            matches!(failure, Some(Failure::Ack(AckError::NeverSent { .. }))),
            "seed {seed}: {failure:?}"
        );
    }
}

#[test]
fn a_line_that_is_cut_is_dead_in_the_end() {
    let cut = Conditions { loss: 1.0, duplicate: 0.0, delay_ms: 1.0, jitter_ms: 0.0 };
    let pair = converse([Knobs::default(); 2], cut, 1, 600);
    assert!(pair.ends.iter().any(|end| end.failure == Some(Failure::Dead)));
    assert!(pair.now < Timestamp::START.after(Duration::from_secs(180)));
}

#[test]
fn credit_carries_more_than_its_window_and_both_ways() {
    let conditions = Conditions { loss: 0.2, duplicate: 0.1, delay_ms: 20.0, jitter_ms: 30.0 };
    let config = Config::default();
    let mut pair = Pair::new([&config, &config], conditions, 9);
    let message = vec![7; 40_000];
    let mut sent = [0; 2];
    while sent != [40; 2] || !pair.is_settled() {
        for (end, sent) in pair.ends.iter_mut().zip(&mut sent) {
            while *sent < 40 {
                match end.sender.send(pair.now, BULK, &message) {
                    Ok(()) => *sent += 1,
                    Err(SendError::Full { .. }) => break,
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(end.failure, None);
        }
        pair.run_until(pair.now.after(Duration::from_millis(50)));
        assert!(pair.now < Timestamp::START.after(Duration::from_secs(300)));
    }
    for side in [0, 1] {
        let got = received(&pair, side, BULK);
        assert_eq!(got.len(), 40);
        assert!(got.iter().all(|bytes| *bytes == message));
    }
}

/// A long bulk message is half-way when a long urgent one overtakes it, and credit ends in both.
#[test]
fn a_bulk_message_that_is_overtaken_half_way_still_arrives() {
    // All of it happens at one moment.
    let knobs = Knobs { congestion: false, ..Knobs::default() };
    let config = Config { knobs, ..Config::default() };
    let (mut sender, mut receiver) =
        (Sender::new(&config, Stream::new(1, "jitter", 0)), Receiver::new(&config));
    let (mut number, mut got, now) = (0, Vec::new(), Timestamp::START);
    let mut pass = |sender: &mut Sender, frames: usize| {
        for _ in 0..frames {
            let Some(frame) = sender.poll_frame(now, 1_200) else { break };
            let (channel, wire, fragment) = (frame.channel, frame.number, frame.fragment);
            let body = frame.body.to_vec();
            number += 1;
            sender.on_sent(now, number, 0, 1_200, true);
            let frame = InFrame { channel, number: wire.unwrap() as u16, fragment, body: &body };
            let deliver = &mut |_, bytes: &[u8]| got.push(bytes.len());
            receiver.handle_frame(now, frame, deliver).unwrap();
            sender.handle_ack_one(now, number).unwrap();
            if let Some(total) = receiver.poll_credit() {
                sender.handle_credit(total);
            }
        }
        got.len()
    };
    // All but 72 bytes of the half of the window.
    for _ in 0..1_000 {
        sender.send(now, ORDERED, &[0; 3]).unwrap();
        pass(&mut sender, 1);
    }
    sender.send(now, BULK, &[0; 65_536]).unwrap();
    assert_eq!(pass(&mut sender, 55), 1_000);
    sender.send(now, ORDERED, &[0; 65_536]).unwrap();
    assert_eq!(pass(&mut sender, 1_000), 1_002);
    assert_eq!(sender.unacknowledged(), 0);
}
