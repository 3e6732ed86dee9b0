//! Clients whose address changes, and those who would like it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use twinspan_core::time::Timestamp;
use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::{ClientState, CloseReason, MigrateError, SessionKey};

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const INPUT: Channel = Channel::new(Delivery::Sequenced, StreamId::INPUT);
const STATE: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);

fn elsewhere(last: u8) -> SocketAddr {
    SocketAddr::from(([172, 16, 0, last], 40_000))
}

/// A game goes on for so long, from `tick` on; when the client heard of the server.
fn play(rig: &mut Rig, session: SessionKey, millis: u64) -> Vec<Timestamp> {
    let mut heard = Vec::new();
    for step in 0..millis {
        if step % 16 == 0 {
            let _ = rig.clients[0].send(rig.now, INPUT, &[1; 48]);
        }
        if step % 50 == 0 {
            let _ = rig.endpoint.send(rig.now, session, STATE, &[2; 250]);
        }
        let before = rig.client_told[0].len();
        rig.run_for(ms(1));
        if rig.client_told[0].len() > before {
            heard.push(rig.now);
        }
    }
    heard
}

fn peer(rig: &Rig, session: SessionKey) -> SocketAddr {
    rig.endpoint.session_stats(session).unwrap().peer
}

#[test]
fn a_rebound_address_is_followed_and_the_game_goes_on_within_a_round_trip() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    play(&mut rig, session, 1_000);
    rig.homes.insert(0, elsewhere(1));
    let moved_at = rig.now;
    let heard = play(&mut rig, session, 1_000);
    // A round trip of 40 ms from the first input, and a state every 50 ms.
    let gap = heard[0].since(moved_at);
    assert!(gap <= ms(40 + 16 + 50), "{gap:?}");
    assert_eq!(peer(&rig, session), elsewhere(1));
    assert!(rig.told.contains(&Told::Moved(session, elsewhere(1))));
    let stats = rig.endpoint.stats();
    assert_eq!((stats.moves_begun, stats.moves_done, stats.moves_failed), (1, 1, 0));
    assert!(heard.len() >= 15, "{}", heard.len());
    rig.endpoint.send(rig.now, session, EVENTS, b"still there").unwrap();
    rig.clients[0].send(rig.now, EVENTS, b"me too").unwrap();
    rig.run_for(ms(200));
    assert_eq!(rig.client_messages(0).last(), Some(&(EVENTS, b"still there".to_vec())));
    assert_eq!(rig.messages().last(), Some(&(EVENTS, b"me too".to_vec())));
}

#[test]
fn a_move_survives_loss() {
    for seed in 0..10 {
        let (mut rig, session) = Rig::connected(seed, Link::lossy(0.2));
        for stop in 1..=3 {
            rig.homes.insert(0, elsewhere(stop));
            play(&mut rig, session, 4_000);
            assert_eq!(peer(&rig, session), elsewhere(stop), "seed {seed}");
        }
        assert!(rig.endpoint.stats().moves_done >= 3);
        assert_eq!(rig.clients[0].state(), ClientState::Connected);
    }
}

#[test]
fn an_idle_client_is_followed_at_its_next_keep_alive() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.run_for(ms(10_000));
    rig.homes.insert(0, elsewhere(1));
    rig.run_for(ms(15_000));
    assert_eq!(peer(&rig, session), elsewhere(1));
    assert_eq!(rig.clients[0].state(), ClientState::Connected);
}

#[test]
fn a_copied_packet_moves_nobody() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let from = rig.sent.len();
    play(&mut rig, session, 500);
    rig.run_for(ms(100));
    for packet in rig.sent_since(from, true) {
        rig.deliver_to_server(elsewhere(9), &packet);
    }
    assert_eq!(peer(&rig, session), client_addr(0));
    assert_eq!(rig.endpoint.stats().moves_begun, 0);
    assert!(rig.endpoint.stats().drops.replayed > 20);
}

/// Someone on the path copies each packet of the client and is always faster than the original.
#[test]
fn a_racer_gets_little_and_holds_nobody_up() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let (mut came, mut went, mut states) = (0, 0, 0);
    for step in 0..10_000_u64 {
        if step % 16 == 0 {
            rig.clients[0].send(rig.now, INPUT, &[1; 48]).unwrap();
        }
        if step % 50 == 0 {
            let _ = rig.endpoint.send(rig.now, session, STATE, &[2; 250]);
        }
        let from = rig.sent.len();
        rig.flush();
        let new: Vec<Sent> = rig.sent[from..].to_vec();
        for sent in new {
            if sent.to == Target::Server {
                came += sent.bytes.len();
                rig.deliver_to_server(elsewhere(9), &sent.bytes);
            } else if sent.client == elsewhere(9) {
                went += sent.bytes.len();
            }
        }
        let before = rig.client_told[0].len();
        rig.run_for(ms(1));
        states += rig.client_told[0].len() - before;
    }
    assert!(
        went <= 3 * came / 10,
        "{went} bytes for {came}: hardly any, and far below three times"
    );
    assert!(states >= 180, "{states} of 200 states reached the client");
    assert_eq!(rig.clients[0].state(), ClientState::Connected);
    assert_eq!(peer(&rig, session), client_addr(0));
    let stats = rig.endpoint.stats();
    assert_eq!(stats.moves_done, 0, "nobody there can answer");
    assert!((2..=8).contains(&stats.moves_failed), "{}", stats.moves_failed);
}

#[test]
fn an_address_that_does_not_answer_gets_three_times_what_it_sent() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    // One stolen packet that never arrives from the client itself.
    rig.clients[0].send(rig.now, INPUT, &[1; 48]).unwrap();
    rig.link.loss = 1.0;
    rig.flush();
    let stolen = rig.sent.last().unwrap().bytes.clone();
    rig.link.loss = 0.0;
    let from = rig.sent.len();
    rig.deliver_to_server(elsewhere(9), &stolen);
    assert_eq!(peer(&rig, session), elsewhere(9));
    for _ in 0..40 {
        let _ = rig.endpoint.send(rig.now, session, STATE, &[2; 250]);
        rig.run_for(ms(25));
    }
    let there = rig.sent[from..].iter().filter(|sent| sent.client == elsewhere(9));
    let bytes: usize = there.map(|sent| sent.bytes.len()).sum();
    assert!(bytes > 0 && bytes <= 3 * stolen.len(), "{bytes} for {}", stolen.len());
    assert_eq!(peer(&rig, session), client_addr(0), "back where it is proven");
    let got = rig.client_messages(0).len();
    assert!(got >= 36, "{got} of 40 states: what exceeds the limit goes to the old address");
}

#[test]
fn a_deliberate_move_uses_an_id_that_nobody_has_seen() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let mut seen = std::collections::BTreeSet::new();
    for stop in 1..=10 {
        seen.extend(rig.sent_since(0, true).iter().map(|bytes| bytes[..4].to_vec()));
        rig.clients[0].migrate(rig.now).unwrap();
        rig.homes.insert(0, elsewhere(stop));
        let from = rig.sent.len();
        play(&mut rig, session, 1_000);
        assert_eq!(peer(&rig, session), elsewhere(stop));
        let after = rig.sent_since(from, true);
        assert!(after.iter().all(|bytes| !seen.contains(&bytes[..4])), "stop {stop}");
    }
    assert_eq!(rig.endpoint.stats().moves_done, 10);
    assert_eq!(rig.endpoint.held().2, 4, "as many ids as at the start");
    rig.clients[0].close(rig.now, CloseReason::Normal);
    rig.run_for(ms(5_000));
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0));
}

#[test]
fn a_client_without_an_id_in_reserve_is_told() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    for _ in 0..3 {
        assert_eq!(rig.clients[0].migrate(rig.now), Ok(()));
    }
    assert_eq!(rig.clients[0].migrate(rig.now), Err(MigrateError::NoSpareId));
    rig.run_for(ms(500));
    assert_eq!(rig.clients[0].migrate(rig.now), Ok(()));
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    assert_eq!(rig.clients[0].migrate(rig.now), Err(MigrateError::NotConnected));
    rig.connect();
    assert_eq!(rig.clients[0].migrate(rig.now), Err(MigrateError::NoSpareId), "not in use yet");
}

#[test]
fn retiring_an_id_that_is_in_use_or_unknown_closes_the_session() {
    for own in [true, false] {
        let (mut rig, session) = Rig::connected(1, Link::CLEAN);
        let id = rig.endpoint.connection_id(session);
        let id = if own { id } else { id ^ 1 };
        let mut text = vec![9, 0, 8];
        text.extend(id.to_le_bytes());
        let control = Channel::new(Delivery::Unordered, StreamId::CONTROL).to_byte();
        let lie = rig.clients[0].connection().seal_raw(control, 0, &text);
        rig.deliver_to_server(client_addr(0), &lie);
        rig.run_for(ms(10));
        assert_eq!(rig.closes(), [CloseReason::ProtocolViolation]);
    }
}

/// The ids of sealed packets are each seen at one address alone.
fn assert_unlinked(sent: &[Sent]) {
    let mut seen = BTreeMap::new();
    for sent in sent.iter().filter(|sent| sent.bytes[..4] != [0; 4]) {
        let id = (sent.to == Target::Server, sent.bytes[..4].to_vec());
        let at = *seen.entry(id.clone()).or_insert(sent.client);
        assert_eq!(at, sent.client, "{id:?} is seen on two paths");
    }
}

#[test]
fn no_id_of_either_end_is_seen_on_two_paths() {
    for (seed, loss) in (0..12).map(|seed| (seed, if seed < 2 { 0.0 } else { 0.2 })) {
        let (mut rig, session) = Rig::connected(seed, Link::lossy(loss));
        for stop in 1..=8 {
            rig.clients[0].migrate(rig.now).unwrap();
            rig.homes.insert(0, elsewhere(stop));
            play(&mut rig, session, 3_000);
            assert_eq!(peer(&rig, session), elsewhere(stop), "seed {seed}");
        }
        assert_unlinked(&rig.sent);
        assert_eq!(rig.endpoint.held().2, 4, "as many ids as at the start");
    }
}

#[test]
fn several_moves_in_a_row_link_nothing() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    for round in 0..5 {
        for stop in 1..=3 {
            rig.clients[0].migrate(rig.now).unwrap();
            rig.homes.insert(0, elsewhere(3 * round + stop));
            // One input leaves from each; what the server answers comes too late.
            rig.clients[0].send(rig.now, INPUT, &[1; 48]).unwrap();
            rig.run_for(ms(5));
        }
        play(&mut rig, session, 2_000);
        assert_eq!(peer(&rig, session), elsewhere(3 * round + 3));
    }
    assert_unlinked(&rig.sent);
    assert_eq!(rig.endpoint.held().2, 4);
}

#[test]
fn the_old_ids_are_dead_once_the_move_is_proven() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let old = (rig.endpoint.connection_id(session), rig.clients[0].connection_id());
    rig.clients[0].migrate(rig.now).unwrap();
    rig.homes.insert(0, elsewhere(1));
    play(&mut rig, session, 1_000);
    assert!(rig.told.contains(&Told::Moved(session, elsewhere(1))));
    let new = (rig.endpoint.connection_id(session), rig.clients[0].connection_id());
    assert!(old.0 != new.0 && old.1 != new.1);
    let packet =
        |id: u32| [&id.to_le_bytes()[..], &[0, 0, 1, 0, 1, 0, 0, 0, 0, 0], &[7; 20]].concat();
    let before = rig.endpoint.stats().drops.unknown_connection;
    rig.deliver_to_server(elsewhere(1), &packet(old.0));
    assert_eq!(rig.endpoint.stats().drops.unknown_connection, before + 1);
    let before = rig.clients[0].drops().unknown_connection;
    rig.deliver_to_client(0, &packet(old.1));
    assert_eq!(rig.clients[0].drops().unknown_connection, before + 1);
    rig.deliver_to_client(0, &packet(new.1));
    assert_eq!(rig.clients[0].drops().unknown_connection, before + 1, "it knows its new id");
}

#[test]
fn an_address_that_never_answers_costs_the_client_no_id_that_it_needs() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    // It tries another network, which carries its packets to the server and nothing back.
    rig.clients[0].migrate(rig.now).unwrap();
    rig.homes.insert(0, elsewhere(1));
    rig.clients[0].send(rig.now, INPUT, &[1; 48]).unwrap();
    rig.flush();
    rig.homes.clear();
    play(&mut rig, session, 3_000);
    assert_eq!(peer(&rig, session), client_addr(0));
    let heard = play(&mut rig, session, 1_000);
    assert!(heard.len() >= 15, "{}", heard.len());
    assert_eq!(rig.clients[0].state(), ClientState::Connected);
}

#[test]
fn a_client_whose_id_was_chosen_keeps_it() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    let client = rig.clients.pop().unwrap();
    rig.clients.push(client.with_connection_id(77));
    rig.connect();
    rig.clients[0].send(rig.now, EVENTS, b"hello").unwrap();
    rig.run_for(ms(1_000));
    let session = rig.endpoint.sessions().next().unwrap();
    rig.clients[0].migrate(rig.now).unwrap();
    rig.homes.insert(0, elsewhere(1));
    play(&mut rig, session, 1_000);
    assert_eq!((peer(&rig, session), rig.clients[0].connection_id()), (elsewhere(1), 77));
    rig.endpoint.send(rig.now, session, EVENTS, b"still there").unwrap();
    rig.run_for(ms(200));
    assert_eq!(rig.client_messages(0).last(), Some(&(EVENTS, b"still there".to_vec())));
}

#[test]
fn ids_of_the_client_that_fit_nothing_are_left_and_a_server_that_sends_some_is_at_fault() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let control = Channel::new(Delivery::Unordered, StreamId::CONTROL).to_byte();
    let text = [&[9, 0, 14][..], &[5; 24]].concat();
    let odd = rig.clients[0].connection().seal_raw(control, 0, &text);
    rig.deliver_to_server(client_addr(0), &odd);
    rig.run_for(ms(10));
    assert_eq!(rig.closes(), []);
    let lie = rig.endpoint.connection(session).seal_raw(control, 0, &text);
    rig.deliver_to_client(0, &lie);
    rig.run_for(ms(2_000));
    assert_eq!(rig.closes(), [CloseReason::ProtocolViolation]);
}
