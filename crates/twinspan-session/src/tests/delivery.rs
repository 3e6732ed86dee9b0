//! Messages of every class over clean and lossy links, and how they travel.

use std::collections::BTreeSet;

use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::header::flag;
use crate::{Endpoint, SendError, SessionConfig};

const INPUT: Channel = Channel::new(Delivery::Unreliable, StreamId::INPUT);
const STATE: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);
const LOOSE_ORDER: Channel = Channel::new(Delivery::Unordered, StreamId::EVENTS);
const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const BULK: Channel = Channel::new(Delivery::Ordered, StreamId::BULK);

/// A message that says its number and has a length of its own.
fn message(number: u32) -> Vec<u8> {
    let mut bytes = vec![number as u8; 4 + (number as usize * 37) % 300];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn numbers(messages: &[(Channel, Vec<u8>)], channel: Channel) -> Vec<u32> {
    let own = messages.iter().filter(|(of, _)| *of == channel);
    own.map(|(_, bytes)| {
        let number = u32::from_le_bytes(*bytes.first_chunk().unwrap());
        assert_eq!(*bytes, message(number));
        number
    })
    .collect()
}

#[test]
fn messages_of_all_classes_keep_their_promises_on_a_lossy_link() {
    for seed in 0..20 {
        let (mut rig, session) = Rig::connected(seed, Link::lossy(0.2));
        for number in 0..150 {
            for channel in [INPUT, STATE, LOOSE_ORDER, EVENTS] {
                rig.endpoint.send(rig.now, session, channel, &message(number)).unwrap();
                rig.clients[0].send(rig.now, channel, &message(number)).unwrap();
            }
            rig.run_for(ms(20));
        }
        let done = rig.run_until(ms(20_000), |rig| {
            rig.endpoint.session_stats(session).unwrap().unacknowledged == 0
                && rig.clients[0].stats().unacknowledged == 0
        });
        assert!(done, "seed {seed}");
        rig.run_for(ms(500));
        for got in [rig.messages(), rig.client_messages(0)] {
            assert_eq!(numbers(&got, EVENTS), (0..150).collect::<Vec<_>>(), "seed {seed}");
            let unordered = numbers(&got, LOOSE_ORDER);
            assert_eq!(unordered.len(), 150, "exactly once, seed {seed}");
            assert_eq!(unordered.iter().collect::<BTreeSet<_>>().len(), 150);
            let sequenced = numbers(&got, STATE);
            assert!(sequenced.is_sorted_by(|a, b| a < b), "never back, seed {seed}");
            assert!(sequenced.len() > 60 && numbers(&got, INPUT).len() > 90);
        }
    }
}

#[test]
fn large_messages_travel_in_fragments() {
    for seed in 0..6 {
        let (mut rig, session) = Rig::connected(seed, Link::lossy(0.1));
        let large: Vec<u8> = (0..65_536_u32).map(|byte| (byte * 7) as u8).collect();
        rig.endpoint.send(rig.now, session, BULK, &large).unwrap();
        rig.clients[0].send(rig.now, EVENTS, &large).unwrap();
        assert!(matches!(
            rig.clients[0].send(rig.now, EVENTS, &[0; 65_537]),
            Err(SendError::Queue(twinspan_reliable::SendError::TooLong { .. }))
        ));
        rig.run_for(ms(6_000));
        assert!(rig.messages() == [(EVENTS, large.clone())], "seed {seed}");
        assert!(rig.client_messages(0) == [(BULK, large)], "seed {seed}");
        assert!(rig.sent.iter().all(|sent| sent.bytes.len() <= 1_200));
        assert!(rig.sent.iter().any(|sent| sent.bytes[5] & flag::FRAG != 0));
    }
}

#[test]
fn a_sequenced_message_of_several_fragments_arrives() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let state = vec![7; 5_000];
    rig.endpoint.send(rig.now, session, STATE, &state).unwrap();
    rig.run_for(ms(100));
    assert_eq!(rig.client_messages(0), [(STATE, state)]);
}

#[test]
fn small_messages_share_a_packet() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let from = rig.sent.len();
    for number in 0..10 {
        rig.endpoint.send(rig.now, session, EVENTS, &[number; 20]).unwrap();
    }
    rig.flush();
    let sent = rig.sent_since(from, false);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][5] & flag::BUNDLE, flag::BUNDLE);
    assert_eq!(sent[0].len(), 14 + 10 * (2 + 2 + 20) + 16);
    rig.run_for(ms(100));
    assert_eq!(rig.client_messages(0).len(), 10);
}

#[test]
fn a_written_packet_carries_acks_the_message_and_what_waits() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.clients[0].send(rig.now, EVENTS, b"hello").unwrap();
    rig.run_for(ms(21));
    let mut packet = rig.pool.take().unwrap();
    rig.endpoint.send(rig.now, session, EVENTS, b"welcome").unwrap();
    let peer = rig
        .endpoint
        .write_packet(rig.now, session, STATE, 77, &mut packet, &mut |out| {
            assert!(out.room() >= Endpoint::message_room());
            out.put(b"state")
        })
        .unwrap();
    assert_eq!(peer, client_addr(0));
    assert_eq!(packet[5], flag::ACK | flag::BUNDLE);
    assert_eq!(rig.clients[0].stats().unacknowledged, 1);
    let bytes = packet.to_vec();
    drop(packet);
    rig.send(Target::Client(0), peer, bytes);
    rig.run_for(ms(200));
    let expected = [(STATE, b"state".to_vec()), (EVENTS, b"welcome".to_vec())];
    assert_eq!(rig.client_messages(0), expected);
    assert_eq!(rig.clients[0].stats().unacknowledged, 0, "the ack rode along");
    assert!(rig.told.contains(&Told::Acked(session, 77)));
    assert_eq!(rig.endpoint.session_stats(session).unwrap().unacknowledged, 0);
}

#[test]
fn a_written_packet_that_does_not_fit_is_refused() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let mut packet = rig.pool.take().unwrap();
    let mut write = |rig: &mut Rig, channel, len: usize| {
        let body = vec![1; len];
        rig.endpoint
            .write_packet(rig.now, session, channel, 0, &mut packet, &mut |out| out.put(&body))
            .map(|_| ())
    };
    assert_eq!(write(&mut rig, STATE, 1_200), Err(SendError::NoRoom));
    assert_eq!(write(&mut rig, STATE, Endpoint::message_room()), Ok(()));
    assert_eq!(write(&mut rig, EVENTS, 1), Err(SendError::NotOneTime));
    let control = Channel::new(Delivery::Unreliable, StreamId::CONTROL);
    assert_eq!(write(&mut rig, control, 1), Err(SendError::ControlStream));
    assert_eq!(rig.endpoint.send(rig.now, session, control, b""), Err(SendError::ControlStream));
}

#[test]
fn credit_is_renewed_in_both_directions_at_once() {
    let (mut rig, session) = Rig::connected(1, Link::lossy(0.05));
    let body = vec![5; 20_000];
    let (mut sent, mut received) = ([0; 2], 0);
    while received < 2 * 60 {
        assert!(rig.now.as_nanos() < 120_000_000_000, "stalled at {sent:?} {received}");
        sent[0] += u32::from(rig.endpoint.send(rig.now, session, BULK, &body).is_ok());
        sent[1] += u32::from(rig.clients[0].send(rig.now, BULK, &body).is_ok());
        rig.run_for(ms(50));
        received = rig.messages().len() + rig.client_messages(0).len();
        let unended = rig.closes().is_empty();
        assert!(unended);
    }
}

#[test]
fn acks_stay_short_in_a_long_session() {
    let (mut rig, session) = Rig::connected(1, Link::lossy(0.02));
    for _ in 0..2_000 {
        rig.endpoint.send(rig.now, session, STATE, b"state").unwrap();
        rig.clients[0].send(rig.now, INPUT, b"input").unwrap();
        rig.run_for(ms(16));
    }
    let late = rig.sent.len() - 1_000;
    let bytes: usize = rig.sent[late..].iter().map(|sent| sent.bytes.len()).sum();
    let mean = bytes as f64 / 1_000.0;
    assert!(mean < 50.0, "14 + 5 + 16 and some bytes of ack, not {mean}");
}

#[test]
fn one_time_messages_do_not_make_ack_packets_of_their_own() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let from = rig.sent.len();
    for step in 0..120 {
        rig.clients[0].send(rig.now, INPUT, b"input").unwrap();
        if step % 3 == 0 {
            rig.endpoint.send(rig.now, session, STATE, b"state").unwrap();
        }
        rig.run_for(ms(16));
    }
    assert_eq!(rig.sent_since(from, true).len(), 120);
    assert_eq!(rig.sent_since(from, false).len(), 40);
}

#[test]
fn a_full_queue_is_a_value() {
    let mut config = SessionConfig::default();
    config.reliable.queued_messages_max = 10;
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    rig.add_client();
    rig.connect();
    let session = rig.endpoint.sessions().next().unwrap();
    let results: Vec<bool> =
        (0..12).map(|_| rig.endpoint.send(rig.now, session, EVENTS, b"event").is_ok()).collect();
    assert_eq!(results.iter().filter(|ok| **ok).count(), 10);
    rig.run_for(ms(500));
    assert_eq!(rig.client_messages(0).len(), 10);
}

#[test]
fn messages_wait_for_company_no_longer_than_the_flush_delay() {
    let config = SessionConfig { flush_delay: ms(10), ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    rig.add_client();
    rig.connect();
    let session = rig.endpoint.sessions().next().unwrap();
    let from = rig.sent.len();
    for _ in 0..4 {
        rig.endpoint.send(rig.now, session, EVENTS, &[1; 20]).unwrap();
        rig.run_for(ms(2));
    }
    assert_eq!(rig.sent_since(from, false).len(), 0, "8 ms: they wait");
    rig.run_for(ms(2));
    let sent = rig.sent_since(from, false);
    assert_eq!(sent.len(), 1, "one packet after 10 ms");
    assert_eq!(sent[0][5] & flag::BUNDLE, flag::BUNDLE);
    rig.run_for(ms(100));
    let from = rig.sent.len();
    for _ in 0..3 {
        rig.endpoint.send(rig.now, session, EVENTS, &[2; 500]).unwrap();
    }
    rig.flush();
    assert!(!rig.sent_since(from, false).is_empty(), "a full packet does not wait");
    rig.run_for(ms(200));
    assert_eq!(rig.client_messages(0).len(), 7);
}

#[test]
fn bulk_messages_are_compressed_and_others_are_not() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let text = b"all work and no play makes jack a dull boy. ".repeat(400);
    for (channel, least, most) in [(BULK, 100, 2_000), (EVENTS, 17_600, 25_000)] {
        let from = rig.sent.len();
        rig.endpoint.send(rig.now, session, channel, &text).unwrap();
        rig.run_for(ms(1_000));
        let bytes: usize = rig.sent_since(from, false).iter().map(Vec::len).sum();
        assert!((least..most).contains(&bytes), "{bytes}");
        assert_eq!(rig.client_messages(0).pop(), Some((channel, text.clone())));
    }
    let loose = Channel::new(Delivery::Unreliable, StreamId::BULK);
    rig.endpoint.send(rig.now, session, loose, &[3; 900]).unwrap();
    let mut packet = rig.pool.take().unwrap();
    let (now, mut write) = (rig.now, |out: &mut twinspan_core::bytes::Writer<'_>| out.put(b"raw"));
    let to = rig.endpoint.write_packet(now, session, loose, 0, &mut packet, &mut write).unwrap();
    let bytes = packet.to_vec();
    drop(packet);
    rig.send(Target::Client(0), to, bytes);
    rig.run_for(ms(100));
    let got: Vec<Vec<u8>> =
        rig.client_messages(0).into_iter().filter(|(at, _)| *at == loose).map(|(_, b)| b).collect();
    assert_eq!(got, [b"raw".to_vec(), vec![3; 900]]);
}

#[test]
fn a_bulk_message_that_claims_what_it_is_not_closes_the_session() {
    for text in [&[0x80, 0x80, 0x08, 1, 2][..], &[5, 0xff, 0xff], &[0xff]] {
        let (mut rig, _) = Rig::connected(1, Link::CLEAN);
        let loose = Channel::new(Delivery::Unreliable, StreamId::BULK).to_byte();
        let lie = rig.clients[0].connection().seal_raw(loose, 0, text);
        rig.deliver_to_server(client_addr(0), &lie);
        assert_eq!(rig.closes(), [crate::CloseReason::ProtocolViolation]);
    }
}

/// A game of small messages goes on for so long.
fn chat(rig: &mut Rig, session: crate::SessionKey, millis: u64) {
    for _ in 0..millis / 50 {
        rig.endpoint.send(rig.now, session, EVENTS, &[1; 100]).unwrap();
        rig.clients[0].send(rig.now, EVENTS, &[2; 100]).unwrap();
        rig.run_for(ms(50));
    }
}

#[test]
fn the_longest_packet_of_a_path_is_found_and_used() {
    for carries in [1_250, 1_372, 1_500] {
        let (mut rig, session) = Rig::searching(1, carries);
        assert_eq!(rig.endpoint.message_room_of(session), Some(Endpoint::message_room()));
        chat(&mut rig, session, 30_000);
        let more = rig.endpoint.message_room_of(session).unwrap() - Endpoint::message_room();
        let found = 1_200 + more;
        assert!(found <= carries && found + 20 > carries.min(1_452), "{found} of {carries}");
        let from = rig.sent.len();
        (0..40).for_each(|_| rig.endpoint.send(rig.now, session, EVENTS, &[3; 100]).unwrap());
        rig.flush();
        let longest = rig.sent_since(from, false).iter().map(Vec::len).max().unwrap();
        assert!(longest > found - 110 && longest <= found, "{longest} of {found}");
        rig.run_for(ms(1_000));
        let stats = rig.endpoint.session_stats(session).unwrap();
        assert_eq!(stats.unacknowledged, 0);
        assert!(stats.path.loss_out < 0.001, "a lost probe is no loss: {}", stats.path.loss_out);
    }
}

#[test]
fn a_path_that_becomes_narrow_is_noticed_and_nothing_is_lost() {
    let (mut rig, session) = Rig::searching(1, 1_500);
    chat(&mut rig, session, 5_000);
    assert!(rig.endpoint.message_room_of(session) > Some(Endpoint::message_room()));
    rig.mtu = 1_200;
    let before = rig.client_messages(0).len();
    for _ in 0..40 {
        (0..20).for_each(|_| rig.endpoint.send(rig.now, session, EVENTS, &[3; 100]).unwrap());
        rig.run_for(ms(250));
    }
    assert_eq!(rig.endpoint.message_room_of(session), Some(Endpoint::message_room()));
    rig.run_for(ms(10_000));
    assert_eq!(rig.client_messages(0).len() - before, 800);
    assert!(rig.closes().is_empty());
}

#[test]
fn an_idle_session_and_one_that_shall_not_send_no_probes() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    chat(&mut rig, session, 5_000);
    assert!(rig.sent.iter().all(|sent| sent.bytes.len() <= 1_200));
    let (mut rig, _) = Rig::searching(1, 1_500);
    rig.run_for(ms(60_000));
    assert!(rig.sent.iter().all(|sent| sent.bytes.len() <= 1_200));
}
