//! How sessions stay alive and how they end.

use twinspan_core::time::Timestamp;
use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::{ClientState, CloseReason, RefuseReason, SendError, SessionConfig};

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
        let sent = rig.sent_since(from, false).len();
        assert!((3..=6).contains(&sent), "three, and what the client asked for: {sent}");
    }
    assert!(learned >= 36, "three CLOSEs at 30 % loss reached {learned} of 40");
}

/// A client that goes on sending because every CLOSE so far was lost.
fn deaf(rig: &mut Rig, session: crate::SessionKey, millis: u64) -> Vec<(Timestamp, usize)> {
    rig.endpoint.close(rig.now, session, CloseReason::Kicked);
    let mut closes = Vec::new();
    for _ in 0..millis / 10 {
        let from = rig.sent.len();
        let mut packet = rig.pool.take().unwrap();
        let input = Channel::new(Delivery::Sequenced, StreamId::INPUT);
        let now = rig.now;
        rig.clients[0].write_packet(now, input, 0, &mut packet, &mut |out| out.put(&[1])).unwrap();
        let packet = packet.to_vec();
        rig.deliver_to_server(client_addr(0), &packet);
        rig.endpoint.handle_timeout(now, &mut |_| {});
        rig.flush();
        let sent = rig.sent_since(from, false);
        closes.extend(sent.iter().map(|bytes| (now, bytes.len())));
        rig.now = now.after(ms(10));
    }
    closes
}

#[test]
fn a_peer_that_goes_on_sending_is_told_again_at_a_bounded_rate() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    let closes = deaf(&mut rig, session, 6_000);
    assert!(closes.len() > 20, "3 unasked, then one each 100 ms: {}", closes.len());
    assert!(closes.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= ms(100)), "{closes:?}");
    let last = closes.last().unwrap().0.since(closes[0].0);
    assert!(ms(2_500) < last && last <= ms(3_000), "{last:?}");
    assert!(rig.endpoint.is_empty(), "the slot is free after the longest linger");
    let drops = rig.endpoint.stats().drops;
    assert!(drops.closing > 200 && drops.unknown_connection > 200, "{drops:?}");
}

#[test]
fn repeats_of_close_are_at_most_three_times_what_came() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.link.loss = 1.0;
    rig.endpoint.close(rig.now, session, CloseReason::Kicked);
    rig.run_for(ms(350));
    let from = rig.sent_since(0, false).len();
    let (mut came, mut packet) = (0, rig.pool.take().unwrap());
    for _ in 0..20 {
        let (now, input) = (rig.now, Channel::new(Delivery::Unreliable, StreamId::INPUT));
        rig.clients[0].write_packet(now, input, 0, &mut packet, &mut |_| Ok(())).unwrap();
        came += packet.len();
        let packet = packet.to_vec();
        rig.deliver_to_server(client_addr(0), &packet);
        rig.deliver_to_server(client_addr(0), &packet);
        rig.run_for(ms(50));
    }
    let sent: usize = rig.sent_since(0, false)[from..].iter().map(Vec::len).sum();
    assert!(sent > 0 && sent <= 3 * came, "{sent} for {came}");
    assert_eq!(rig.endpoint.stats().drops.replayed, 20, "a copy asks for nothing");
}

#[test]
fn a_closing_server_that_is_told_close_says_nothing_more() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.endpoint.close(rig.now, session, CloseReason::Kicked);
    rig.clients[0].close(rig.now, CloseReason::Normal);
    let from = rig.sent.len();
    rig.run_for(ms(1_000));
    assert_eq!(rig.sent_since(from, false).len(), 1, "the first crossed the client's");
    assert!(rig.endpoint.is_empty());
}

#[test]
fn an_endpoint_that_stops_admitting_refuses_before_any_key_exchange() {
    let (mut rig, session) = Rig::connected(1, Link::CLEAN);
    rig.endpoint.stop_admitting();
    rig.add_client();
    rig.run_for(ms(500));
    let reason = CloseReason::Refused(RefuseReason::Draining);
    assert_eq!(rig.clients[1].state(), ClientState::Closed { reason });
    assert_eq!((rig.endpoint.stats().draining, rig.endpoint.stats().accepted), (1, 1));
    assert_eq!(rig.endpoint.sessions().collect::<Vec<_>>(), [session], "who is in stays");
    assert_eq!(rig.endpoint.send(rig.now, session, EVENTS, b"still"), Ok(()));
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
