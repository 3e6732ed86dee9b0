//! Headers are hidden where both ends agree on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use twinspan_core::aead::{AeadSuite, Cipher, HeaderKey, PacketKey, SECRET_BYTES};
use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::header::flag;
use crate::messages::PublicMacs;
use crate::suite::CryptoSuite;
use crate::{
    ClientState, CloseReason, HeaderProtection, KeyConfig, RefuseReason, SessionConfig, SessionKey,
};

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const INPUT: Channel = Channel::new(Delivery::Unreliable, StreamId::INPUT);

fn config(header_protection: HeaderProtection) -> SessionConfig {
    SessionConfig { header_protection, ..SessionConfig::default() }
}

fn hidden(seed: u64, link: Link, config: SessionConfig) -> (Rig, SessionKey) {
    let mut rig = Rig::with(seed, link, config, aes());
    rig.add_client();
    rig.connect();
    let session = rig.endpoint.sessions().next().unwrap();
    (rig, session)
}

#[test]
fn headers_are_hidden_where_one_end_requires_it_and_the_other_can() {
    use HeaderProtection::{Allow, Forbid, Require};
    for (client, server, agreed) in [
        (Forbid, Allow, Some(false)),
        (Forbid, Require, None),
        (Allow, Forbid, Some(false)),
        (Allow, Allow, Some(false)),
        (Allow, Require, Some(true)),
        (Require, Forbid, None),
        (Require, Allow, Some(true)),
    ] {
        let mut rig = Rig::with(1, Link::CLEAN, config(server), aes());
        let token = rig.token();
        rig.add_client_configured(&token, aes(), config(client));
        rig.run_for(ms(1_000));
        match agreed {
            Some(hidden) => {
                assert_eq!(rig.clients[0].state(), ClientState::Connected);
                assert_eq!(rig.clients[0].hides_headers(), hidden, "{client:?} {server:?}");
                assert_eq!(rig.endpoint.sessions().count(), 1);
            }
            None => {
                let reason = CloseReason::Refused(RefuseReason::Options);
                assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
                assert_eq!(rig.endpoint.stats().options_unmet, 1);
            }
        }
    }
}

#[test]
fn an_observer_sees_neither_flags_nor_numbers() {
    let (mut rig, session) = hidden(1, Link::CLEAN, config(HeaderProtection::Require));
    let from = rig.sent.len();
    for _ in 0..200 {
        rig.clients[0].send(rig.now, INPUT, b"input").unwrap();
        rig.endpoint.send(rig.now, session, INPUT, b"state").unwrap();
        rig.run_for(ms(16));
    }
    for to_server in [true, false] {
        let sent = rig.sent_since(from, to_server);
        assert!(sent.len() >= 200);
        assert!(sent.iter().all(|packet| packet[..4] == sent[0][..4]), "the id stays visible");
        let flags: std::collections::BTreeSet<u8> = sent.iter().map(|packet| packet[5]).collect();
        assert!(flags.len() > 90, "{} values of the flags byte", flags.len());
        let low = |packet: &Vec<u8>| u32::from_le_bytes(packet[6..10].try_into().unwrap());
        let grows = sent.windows(2).filter(|pair| low(&pair[0]) < low(&pair[1])).count();
        assert!((70..130).contains(&(grows * 200 / sent.len())), "{grows} of {}", sent.len());
        assert!(sent.iter().all(|packet| packet[10..14] == [0; 4]));
    }
    rig.run_for(ms(100));
    assert_eq!((rig.messages().len(), rig.client_messages(0).len()), (200, 200));
    assert_eq!(rig.endpoint.stats().drops.total(), 0);
}

#[test]
fn keys_change_under_hidden_headers_on_a_bad_link() {
    let keys = KeyConfig { rekey_packets: 4, exchange_interval: ms(1_000), ..KeyConfig::default() };
    let config = SessionConfig { keys, ..config(HeaderProtection::Require) };
    let (mut rig, session) = hidden(3, Link::lossy(0.2), config);
    for round in 0..300_u32 {
        rig.endpoint.send(rig.now, session, EVENTS, &round.to_le_bytes()).unwrap();
        rig.clients[0].send(rig.now, EVENTS, &round.to_le_bytes()).unwrap();
        rig.run_for(ms(20));
    }
    rig.run_for(ms(5_000));
    assert_eq!((rig.messages().len(), rig.client_messages(0).len()), (300, 300));
    assert_eq!(rig.closes(), []);
}

#[test]
fn a_changed_bit_of_a_hidden_packet_is_dropped_at_every_byte() {
    let (mut rig, _) = hidden(1, Link::CLEAN, config(HeaderProtection::Require));
    rig.clients[0].send(rig.now, INPUT, b"input").unwrap();
    rig.flush();
    let packet = rig.sent_since(0, true).pop().unwrap();
    let (told, before) = (rig.told.len(), rig.endpoint.stats().drops.total());
    for bit in 0..packet.len() * 8 {
        let mut forged = packet.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        rig.deliver_to_server(client_addr(0), &forged);
    }
    (0..packet.len()).for_each(|len| rig.deliver_to_server(client_addr(0), &packet[..len]));
    let drops = rig.endpoint.stats().drops.total() - before;
    assert_eq!((rig.told.len(), drops), (told, 9 * packet.len() as u64));
    rig.deliver_to_server(client_addr(0), &packet);
    assert_eq!(rig.messages().len(), 1);
}

#[test]
fn an_option_cleared_on_the_path_is_noticed() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let token = rig.token();
    rig.add_client_configured(&token, aes(), config(HeaderProtection::Require));
    assert!(rig.run_until(ms(500), |rig| rig.clients[0].stats().retries == 1));
    rig.flush();
    let mut forged = rig.sent_since(0, true).pop().unwrap();
    assert_eq!(forged[41..43], [3, 0]);
    forged[41] = 0;
    let mac1 = PublicMacs::new(&token.server_key()).mac1_of(&forged[..212]);
    forged[212..228].copy_from_slice(&mac1);
    rig.deliver_to_server(client_addr(0), &forged);
    assert_eq!(rig.endpoint.stats().drops.hello_bad, 1);
    rig.connect();
    assert!(rig.clients[0].hides_headers());
}

#[test]
fn a_refusal_after_the_confirmation_is_hidden_too() {
    let config = SessionConfig { sessions_max: 1, ..config(HeaderProtection::Require) };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    (0..2).for_each(|_| {
        rig.add_client();
    });
    rig.run_for(ms(1_000));
    let reason = CloseReason::Refused(RefuseReason::Full);
    assert_eq!(rig.clients[1].state(), ClientState::Closed { reason });
}

#[test]
fn a_simulators_suite_hides_headers_too() {
    let config = config(HeaderProtection::Require);
    let mut rig = Rig::with(1, Link::CLEAN, config.clone(), Arc::new(TagSuite));
    let token = rig.token();
    rig.add_client_configured(&token, Arc::new(TagSuite), config);
    rig.connect();
    let sent = rig.sent_since(0, true);
    let sealed = sent.iter().filter(|packet| packet[..4] != [0; 4]);
    assert!(sealed.clone().any(|packet| packet[5] & flag::RESERVED != 0));
}

/// A suite that counts the header keys that are made of it.
struct Counting {
    made: AtomicU32,
}

impl AeadSuite for Counting {
    fn ciphers(&self) -> &[Cipher] {
        CryptoSuite::AES_FIRST.ciphers()
    }

    fn key(&self, cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<dyn PacketKey>> {
        CryptoSuite::AES_FIRST.key(cipher, secret)
    }

    fn header_key(
        &self,
        cipher: Cipher,
        secret: &[u8; SECRET_BYTES],
    ) -> Option<Box<dyn HeaderKey>> {
        self.made.fetch_add(1, Ordering::Relaxed);
        CryptoSuite::AES_FIRST.header_key(cipher, secret)
    }
}

#[test]
fn a_confirmation_from_another_address_makes_no_header_key() {
    let suite = Arc::new(Counting { made: AtomicU32::new(0) });
    let mut rig = Rig::with(1, Link::CLEAN, config(HeaderProtection::Require), suite.clone());
    let token = rig.token();
    rig.add_client_with(&token, aes());
    assert!(rig.run_until(ms(5_000), |rig| rig.clients[0].state() == ClientState::Connected));
    rig.flush();
    let confirmation = rig.sent_since(0, true).pop().unwrap();
    assert_eq!(rig.endpoint.stats().established, 0);
    for _ in 0..100 {
        rig.deliver_to_server(client_addr(1), &confirmation);
    }
    assert_eq!(suite.made.load(Ordering::Relaxed), 0);
    rig.connect();
    assert_eq!(suite.made.load(Ordering::Relaxed), 3, "one to look with, two for the session");
}
