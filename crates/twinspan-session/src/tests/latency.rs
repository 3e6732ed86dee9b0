//! How long events take on a bad line, and what a game may send.

use core::time::Duration;
use std::collections::BTreeMap;

use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;

const EVENTS: Channel = Channel::new(Delivery::Unordered, StreamId::EVENTS);
const ORDERED: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const INPUT: Channel = Channel::new(Delivery::Sequenced, StreamId::INPUT);
const STATE: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);

/// A minute of a game: inputs at 60 Hz, states at 20 Hz, ten events a second each way. How long each
/// event took.
fn a_minute(seed: u64, link: Link, channel: Channel) -> (Vec<Duration>, Duration) {
    let (mut rig, session) = Rig::connected(seed, link);
    let mut sent: [BTreeMap<u32, twinspan_core::time::Timestamp>; 2] = Default::default();
    let mut took = Vec::new();
    let mut next = 0_u32;
    for ms_passed in 0..60_000_u64 {
        if ms_passed % 16 == 0 {
            let _ = rig.clients[0].send(rig.now, INPUT, &[1; 48]);
        }
        if ms_passed % 50 == 25 {
            let _ = rig.endpoint.send(rig.now, session, STATE, &[2; 280]);
        }
        if ms_passed % 100 == 3 {
            next += 1;
            let word = next.to_le_bytes();
            rig.clients[0].send(rig.now, channel, &word).unwrap();
            rig.endpoint.send(rig.now, session, channel, &word).unwrap();
            sent.iter_mut().for_each(|sent| {
                sent.insert(next, rig.now);
            });
        }
        rig.run_for(ms(1));
        let arrived = [rig.messages(), rig.client_messages(0)];
        rig.told.clear();
        rig.client_told[0].clear();
        rig.sent.clear();
        for (sent, arrived) in sent.iter_mut().zip(arrived) {
            for (_, bytes) in arrived.iter().filter(|(at, _)| *at == channel) {
                let number = u32::from_le_bytes(bytes[..4].try_into().unwrap());
                took.push(rig.now.since(sent.remove(&number).expect("once")));
            }
        }
    }
    took.sort();
    (took, rig.clients[0].stats().rtt)
}

#[test]
fn an_event_takes_at_most_2_2_round_trips_99_times_in_100() {
    for (name, channel) in [("unordered", EVENTS), ("ordered", ORDERED)] {
        let mut worst = 0.0_f64;
        for seed in 1..=5 {
            let link = Link { delay: ms(35), ..Link::lossy(0.05) };
            let (took, _) = a_minute(seed, link, channel);
            // Both ways: the delay, and half of the jitter on average.
            let rtt = 2 * link.delay + link.jitter;
            let p99 = took[took.len() * 99 / 100];
            let ratio = p99.as_secs_f64() / rtt.as_secs_f64();
            println!("{name}, seed {seed}: p99 {p99:?}, {ratio:.2} of a round trip of {rtt:?}");
            worst = worst.max(ratio);
        }
        assert!(worst <= 2.2, "{name}: {worst:.2} round trips");
    }
}
