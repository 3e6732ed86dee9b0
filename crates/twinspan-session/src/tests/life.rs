//! How sessions stay alive and how they end.

use twinspan_core::time::Timestamp;
use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::{ClientState, CloseReason, SendError, SessionConfig};

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);

#[test]
fn an_idle_session_lives_on_a_packet_every_few_seconds() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let from = rig.sent.len();
    rig.run_for(ms(300_000));
    assert_eq!(rig.endpoint.sessions().collect::<Vec<_>>(), [session]);
    let (up, down) = (rig.sent_since(from, true).len(), rig.sent_since(from, false).len());
    // A keep-alive every 4 to 6 s; its ack is the other end's sign of life.
    assert!((50..=80).contains(&up) && (50..=80).contains(&down), "{up} up, {down} down");
    let rtt = rig.endpoint.session_stats(session).unwrap().rtt;
    assert_eq!(rtt.as_millis(), 40);
    assert_eq!(rig.clients[0].stats().rtt.as_millis(), 40);
}

#[test]
fn a_client_knows_the_servers_clock() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    rig.run_for(ms(60_000));
    let told = rig.clients[0].server_time(rig.now).unwrap();
    let error = told.since(rig.now).max(rig.now.since(told));
    assert!(error < ms(1), "{error:?}");
}

#[test]
fn silence_ends_both_ends_with_idle_timeout() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.link.loss = 1.0;
    let began = rig.now;
    rig.run_for(ms(25_000));
    assert!(rig.told.contains(&Told::Closed(session, CloseReason::IdleTimeout)));
    let reason = CloseReason::IdleTimeout;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    assert_eq!(rig.endpoint.stats().idle_timeouts, 1);
    assert!(rig.endpoint.is_empty());
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0));
    let sent = rig.sent.len();
    rig.run_for(ms(60_000));
    assert_eq!(rig.sent.len(), sent, "the dead say nothing, {began}");
    assert_eq!((rig.endpoint.poll_timeout(), rig.clients[0].poll_timeout()), (None, None));
}

#[test]
fn a_peer_that_acknowledges_nothing_is_unresponsive() {
    let mut config = SessionConfig::default();
    config.reliable.attempts_max = 5;
    config.reliable.rto_max = ms(500);
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    rig.add_client();
    rig.connect();
    let session = rig.endpoint.sessions().next().unwrap();
    rig.endpoint.send(rig.now, session, EVENTS, b"event").unwrap();
    rig.link.loss = 1.0;
    rig.run_for(ms(15_000));
    assert_eq!(rig.closes(), [CloseReason::PeerUnresponsive]);
}

#[test]
fn the_server_closes_and_the_client_learns_why() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.endpoint.close(rig.now, session, CloseReason::Kicked);
    assert_eq!(rig.endpoint.poll_timeout(), Some(Timestamp::START), "due at once");
    rig.run_for(ms(1));
    assert_eq!(rig.closes(), [CloseReason::Kicked]);
    assert_eq!(rig.endpoint.sessions().count(), 0);
    assert!(!rig.endpoint.is_empty(), "the slot lingers");
    let closed = SendError::Closed(CloseReason::Kicked);
    assert_eq!(rig.endpoint.send(rig.now, session, EVENTS, b"late"), Err(closed));
    rig.run_for(ms(1_000));
    assert_eq!(rig.closes(), [CloseReason::Kicked], "told once");
    let reason = CloseReason::Kicked;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    assert_eq!(rig.client_told[0].last(), Some(&ClientTold::Closed(reason)));
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0));
    assert_eq!(rig.endpoint.send(rig.now, session, EVENTS, b""), Err(SendError::NotConnected));
}

#[test]
fn the_client_closes_and_the_server_learns_why() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.clients[0].close(rig.now, CloseReason::Normal);
    assert_eq!(rig.clients[0].state(), ClientState::Closing);
    rig.run_for(ms(1_000));
    assert_eq!(rig.told.last(), Some(&Told::Closed(session, CloseReason::Normal)));
    let reason = CloseReason::Normal;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    let closes = rig.client_told[0].iter().filter(|told| matches!(told, ClientTold::Closed(_)));
    assert_eq!(closes.count(), 1);
    assert!(rig.endpoint.is_empty());
}

#[test]
fn a_close_survives_loss() {
    let mut learned = 0;
    for seed in 0..40 {
        let (mut rig, session) = Rig::connected(seed, Link::lossy(0.3));
        rig.endpoint.close(rig.now, session, CloseReason::Kicked);
        let from = rig.sent.len();
        rig.run_for(ms(1_000));
        let reason = CloseReason::Kicked;
        learned += u32::from(rig.clients[0].state() == ClientState::Closed { reason });
        assert_eq!(rig.sent_since(from, false).len(), 3);
    }
    assert!(learned >= 36, "three CLOSEs at 30 % loss reached {learned} of 40");
}

#[test]
fn a_client_that_closes_while_connecting_says_so_once() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    rig.run_for(ms(25));
    rig.clients[0].close(rig.now, CloseReason::Normal);
    rig.run_for(ms(1_000));
    assert_eq!(rig.client_told[0], [ClientTold::Closed(CloseReason::Normal)]);
    assert_eq!(
        rig.clients[0].send(rig.now, EVENTS, b""),
        Err(SendError::Closed(CloseReason::Normal))
    );
}

#[test]
fn draining_tells_everybody_and_ends_empty() {
    let mut rig = Rig::new(1, Link::CLEAN);
    (0..20).for_each(|_| {
        rig.add_client();
    });
    rig.connect();
    rig.endpoint.close_all(rig.now, CloseReason::ServerDraining);
    rig.run_for(ms(1_000));
    assert_eq!(rig.closes(), [CloseReason::ServerDraining; 20]);
    assert!(rig.endpoint.is_empty());
    let reason = CloseReason::ServerDraining;
    assert!(rig.clients.iter().all(|c| c.state() == ClientState::Closed { reason }));
}

#[test]
fn a_slot_is_used_again_under_another_key() {
    let (mut rig, first) = Rig::connected(1, Link::CLEAN);
    rig.endpoint.close(rig.now, first, CloseReason::Kicked);
    rig.run_for(ms(1_000));
    rig.add_client();
    rig.run_for(ms(500));
    let second = rig.endpoint.sessions().next().unwrap();
    assert_eq!(second.index(), first.index());
    assert_ne!(second, first);
    assert!(rig.endpoint.session_stats(first).is_none());
    rig.endpoint.close(rig.now, first, CloseReason::Kicked);
    assert_eq!(rig.endpoint.sessions().count(), 1, "an old key closes nobody");
}

#[test]
fn every_established_session_is_closed_exactly_once() {
    for seed in 0..10 {
        let mut rig = Rig::new(seed, Link::lossy(0.2));
        (0..6).for_each(|_| {
            rig.add_client();
        });
        rig.run_for(ms(5_000));
        rig.clients[0].close(rig.now, CloseReason::Normal);
        let kicked = rig.endpoint.sessions().last();
        kicked.into_iter().for_each(|key| rig.endpoint.close(rig.now, key, CloseReason::Kicked));
        rig.run_for(ms(2_000));
        rig.link.loss = 1.0;
        rig.run_for(ms(60_000));
        assert!(rig.endpoint.is_empty());
        let stats = rig.endpoint.stats();
        assert_eq!(stats.established, stats.closed);
        let mut open = Vec::new();
        for told in &rig.told {
            match told {
                Told::Established(key, ..) => open.push(*key),
                Told::Closed(key, _) => {
                    assert!(open.contains(key), "closed without being open");
                    open.retain(|other| other != key);
                }
                _ => {}
            }
        }
        assert!(open.is_empty());
    }
}

#[test]
fn a_quiet_endpoint_visits_only_who_is_due() {
    let mut rig = Rig::new(1, Link::CLEAN);
    (0..50).for_each(|_| {
        rig.add_client();
    });
    rig.connect();
    rig.run_for(ms(500));
    let next = rig.endpoint.poll_timeout().unwrap();
    assert!(next > rig.now, "nothing is due, and nothing says it is");
    let session = rig.endpoint.sessions().nth(7).unwrap();
    rig.endpoint.send(rig.now, session, EVENTS, b"one").unwrap();
    let from = rig.sent.len();
    rig.flush();
    let sent = rig.sent[from..].iter().filter(|sent| sent.to != Target::Server);
    assert_eq!(sent.count(), 1);
}
