//! What resends under the same number promise over a bad line.

use std::time::Duration;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_reliable::{AckError, Config, Knobs};

use crate::line::{Conditions, Line};
use crate::lludp::{Circuit, Circuits, RELIABLE, RESENT, config, parse};

const MESSAGES: u32 = 150;

fn conditions(seed: u64) -> Conditions {
    let mut random = Stream::new(seed, "conditions", 1);
    Conditions {
        loss: random.between(0.2, 0.4),
        duplicate: random.between(0.0, 0.2),
        delay_ms: random.between(1.0, 60.0),
        jitter_ms: random.between(0.0, 200.0),
    }
}

fn converse(config: &Config, conditions: Conditions, seed: u64, drain_s: u64) -> Circuits {
    let mut circuits = Circuits::new(config, conditions, seed);
    for value in 0..MESSAGES {
        let now = circuits.now;
        for end in &mut circuits.ends {
            end.send(now, value);
        }
        circuits.run_until(now.after(Duration::from_millis(10)));
    }
    let end = circuits.now.after(Duration::from_secs(drain_s));
    while !circuits.is_settled() && circuits.now < end {
        circuits.run_until(circuits.now.after(Duration::from_millis(100)));
    }
    circuits
}

fn is_faithful(circuits: &Circuits) -> bool {
    circuits.ends.iter().all(|end| {
        let mut got = end.got.clone();
        got.sort_unstable();
        got == (0..MESSAGES).collect::<Vec<u32>>()
    })
}

#[test]
fn every_message_arrives_exactly_once() {
    for seed in 0..200 {
        let circuits = converse(&config(), conditions(seed), seed, 120);
        assert!(is_faithful(&circuits) && circuits.is_settled(), "seed {seed}");
        for end in &circuits.ends {
            assert_eq!(end.failure, None, "seed {seed}");
            assert!(end.resent_received > 0, "seed {seed}");
            assert!(end.sender.rtt().samples() > 0, "seed {seed}");
        }
    }
}

#[test]
fn without_resend_messages_are_missing() {
    let knobs = Knobs { resend: false, ..Knobs::default() };
    for seed in 0..5 {
        let circuits = converse(&Config { knobs, ..config() }, conditions(seed), seed, 20);
        assert!(!is_faithful(&circuits) && !circuits.is_settled(), "seed {seed}");
    }
}

#[test]
fn without_duplicate_suppression_messages_come_twice() {
    let knobs = Knobs { suppress_duplicates: false, ..Knobs::default() };
    for seed in 0..5 {
        let circuits = converse(&Config { knobs, ..config() }, conditions(seed), seed, 120);
        assert!(circuits.ends[0].got.len() > MESSAGES as usize, "seed {seed}");
    }
}

#[test]
fn a_packet_and_its_resend_have_golden_bytes() {
    let clean = Conditions { loss: 0.0, duplicate: 0.0, delay_ms: 1.0, jitter_ms: 0.0 };
    let mut line = Line::new(clean, Stream::new(1, "line", 0));
    let config = Config { jitter_fraction: 0.0, ..config() };
    let mut circuit = Circuit::new(&config, 1, 0);
    let start = Timestamp::START;
    let mut other = Line::new(clean, Stream::new(1, "line", 1));
    // An unreliable ping first, so that the message is number 2; then two acks to append.
    circuit.transmit(start, &mut other);
    for sequence in [7, 300] {
        let [s0, s1] = u16::to_be_bytes(sequence);
        circuit.receive(start, &[RELIABLE, 0, 0, s0, s1, 9], &mut other);
    }
    circuit.send(start, 0xdead_beef);
    circuit.transmit(start, &mut line);
    let at = start.after(Duration::from_millis(275));
    circuit.transmit(at, &mut line);
    let first = line.receive(at).unwrap();
    #[rustfmt::skip]
    let golden = [
        0x50, 0, 0, 0, 2, 0, 0xde, 0xad, 0xbe, 0xef,
        0, 0, 0, 7, 0, 0, 0x01, 0x2c, 2,
    ];
    assert_eq!(first, golden);
    assert_eq!(parse(&golden).unwrap().acks, [7, 300]);
    let again = line.receive(at.after(Duration::from_millis(2))).unwrap();
    assert_eq!(again, [RELIABLE | RESENT, 0, 0, 0, 2, 0, 0xde, 0xad, 0xbe, 0xef]);
}

#[test]
fn a_forged_ack_is_refused() {
    let clean = Conditions { loss: 0.0, duplicate: 0.0, delay_ms: 1.0, jitter_ms: 0.0 };
    let mut line = Line::new(clean, Stream::new(1, "line", 0));
    let mut circuit = Circuit::new(&config(), 1, 0);
    circuit.receive(Timestamp::START, &[0x10, 0, 0, 0, 1, 9, 0, 0, 0, 5, 1], &mut line);
    assert_eq!(circuit.failure, Some(AckError::NeverSent { number: 5 }));
}
