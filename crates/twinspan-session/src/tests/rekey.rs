//! Keys change while messages travel, on good links and bad ones.

use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::header::flag;
use crate::{ClientState, CloseReason, KeyConfig, SessionConfig, SessionKey};

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const INPUT: Channel = Channel::new(Delivery::Unreliable, StreamId::INPUT);

fn config(keys: KeyConfig) -> SessionConfig {
    SessionConfig { keys, ..SessionConfig::default() }
}

/// Changes keys as often as the acks let it.
fn quick() -> SessionConfig {
    config(KeyConfig {
        rekey_packets: 4,
        packets_max: 1 << 16,
        exchange_interval: ms(1_000),
        ..KeyConfig::default()
    })
}

fn connected(seed: u64, link: Link, config: SessionConfig) -> (Rig, SessionKey) {
    let mut rig = Rig::with(seed, link, config, aes());
    rig.add_client();
    rig.connect();
    let session = rig.endpoint.sessions().next().unwrap();
    (rig, session)
}

/// How often the PHASE bit of the sealed packets to one end changed.
fn phases(rig: &Rig, to_server: bool) -> usize {
    let sent = rig.sent_since(0, to_server);
    let sealed = sent.iter().filter(|packet| packet[..4] != [0; 4]);
    let bits: Vec<bool> = sealed.map(|packet| packet[5] & flag::PHASE != 0).collect();
    bits.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Both ends send ordered messages and one-time ones for 20 s.
fn chatter(rig: &mut Rig, session: SessionKey) {
    for round in 0..1_000_u32 {
        let event = round.to_le_bytes();
        rig.endpoint.send(rig.now, session, EVENTS, &event).unwrap();
        rig.clients[0].send(rig.now, EVENTS, &event).unwrap();
        rig.clients[0].send(rig.now, INPUT, &event).unwrap();
        rig.run_for(ms(20));
    }
    rig.run_for(ms(5_000));
}

#[test]
fn messages_arrive_while_keys_change_on_a_link_that_loses_and_reorders() {
    for seed in 0..4 {
        let (mut rig, session) = connected(seed, Link::lossy(0.2), quick());
        chatter(&mut rig, session);
        let events: Vec<Vec<u8>> =
            (0..1_000_u32).map(|round| round.to_le_bytes().to_vec()).collect();
        let up = rig.messages().into_iter().filter(|(channel, _)| *channel == EVENTS);
        assert_eq!(up.map(|(_, bytes)| bytes).collect::<Vec<_>>(), events);
        let down = rig.client_messages(0).into_iter().map(|(_, bytes)| bytes);
        assert_eq!(down.collect::<Vec<_>>(), events);
        assert!(rig.closes().is_empty());
        assert!(phases(&rig, true) > 50 && phases(&rig, false) > 50);
        assert_eq!(
            rig.endpoint.stats().drops.not_authentic,
            0,
            "no honest packet is lost to a key"
        );
    }
}

#[test]
fn an_idle_session_changes_its_keys_by_age() {
    let (mut rig, _) = connected(1, Link::CLEAN, SessionConfig::default());
    rig.run_for(ms(3_600_000));
    assert_eq!(rig.closes(), []);
    // Every 120 to 132 s, and a mixed phase every ten minutes.
    assert!((27..=38).contains(&phases(&rig, true)), "{}", phases(&rig, true));
    assert!((27..=38).contains(&phases(&rig, false)), "{}", phases(&rig, false));
    assert_eq!(rig.endpoint.stats().drops.total(), 0);
}

#[test]
fn a_flipped_phase_bit_costs_one_open_and_moves_nothing() {
    let (mut rig, session) = connected(1, Link::CLEAN, SessionConfig::default());
    rig.clients[0].send(rig.now, EVENTS, b"event").unwrap();
    rig.flush();
    let packet = rig.sent_since(0, true).pop().unwrap();
    let mut forged = packet.clone();
    forged[5] ^= flag::PHASE;
    for number in 0..3 {
        rig.deliver_to_server(client_addr(0), &forged);
        assert_eq!(rig.endpoint.stats().drops.not_authentic, number + 1);
    }
    rig.run_for(ms(1_000));
    assert_eq!(rig.messages().len(), 1);
    rig.endpoint.send(rig.now, session, EVENTS, b"event").unwrap();
    rig.run_for(ms(1_000));
    assert_eq!(rig.client_messages(0).len(), 1);
    assert_eq!((phases(&rig, true), phases(&rig, false)), (0, 0));
}

#[test]
fn an_end_that_hears_no_ack_stops_at_its_keys_limit() {
    let keys = KeyConfig { rekey_packets: 16, packets_max: 40, ..KeyConfig::default() };
    let (mut rig, _) = connected(1, Link::CLEAN, config(keys));
    rig.link.loss = 1.0;
    let before = rig.sent.len();
    for _ in 0..60 {
        // It is refused once the key is worn out.
        let _ = rig.clients[0].send(rig.now, INPUT, b"input");
        rig.flush();
    }
    rig.run_for(ms(2_000));
    let reason = CloseReason::KeyWornOut;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    let sent = rig.sent_since(before, true).len();
    assert_eq!(phases(&rig, true), 1, "one step was earned before");
    assert!((50..=60).contains(&sent), "up to 16 packets, then 40, then three CLOSEs: {sent}");
}

#[test]
fn an_offer_of_the_server_and_an_answer_of_the_client_are_violations() {
    let (mut rig, session) = connected(1, Link::CLEAN, SessionConfig::default());
    let mut offer = vec![0, 0, 9, 1];
    offer.extend([7; 32]);
    let packet = rig.endpoint.connection(session).seal_raw(0x80, 0, &offer);
    rig.deliver_to_client(0, &packet);
    assert_eq!(
        rig.client_told[0].last(),
        Some(&ClientTold::Closed(CloseReason::ProtocolViolation))
    );
    let (mut rig, _) = connected(1, Link::CLEAN, SessionConfig::default());
    offer[3] = 2;
    let packet = rig.clients[0].connection().seal_raw(0x80, 0, &offer);
    rig.deliver_to_server(client_addr(0), &packet);
    assert_eq!(rig.closes(), [CloseReason::ProtocolViolation]);
}

#[test]
fn an_offer_of_small_order_closes_the_session() {
    let (mut rig, _) = connected(1, Link::CLEAN, SessionConfig::default());
    let mut offer = vec![0, 0, 9, 1];
    offer.extend([0; 32]);
    let packet = rig.clients[0].connection().seal_raw(0x80, 0, &offer);
    rig.deliver_to_server(client_addr(0), &packet);
    rig.run_for(ms(1_000));
    assert_eq!(rig.closes(), [CloseReason::ProtocolViolation]);
}

#[test]
fn a_client_that_offers_keys_sooner_than_a_second_after_its_last_offer_is_closed() {
    for (wait, closes) in [(900, vec![CloseReason::ProtocolViolation]), (1_000, vec![])] {
        let (mut rig, session) = connected(1, Link::CLEAN, SessionConfig::default());
        let mut random = twinspan_core::random::Stream::new(9, "fresh keys", 0);
        for _ in 0..2 {
            assert_eq!(rig.closes(), []);
            let now = rig.now;
            rig.clients[0].connection().exchange(now, &mut random);
            let end = now.after(ms(wait));
            // What travels in the meantime lets the exchange end.
            for _ in 0..wait / 50 {
                let _ = rig.clients[0].send(rig.now, EVENTS, b"event");
                let _ = rig.endpoint.send(rig.now, session, EVENTS, b"event");
                rig.run_for(ms(50));
            }
            assert_eq!(rig.now, end);
        }
        assert_eq!(rig.closes(), closes, "{wait} ms apart");
        assert!(phases(&rig, false) >= 1, "the first exchange was done");
    }
}
