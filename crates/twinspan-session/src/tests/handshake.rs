//! Who gets in, who does not, and what it costs the server to find out.

use std::collections::BTreeMap;
use std::sync::Arc;

use twinspan_core::aead::Cipher;
use twinspan_core::random::Stream;
use twinspan_core::steer::Steering;

use super::rig::*;
use crate::messages::PublicMacs;
use crate::{
    ClientState, CloseReason, CryptoSuite, PublicKey, RefuseReason, ServerIdentity, SessionConfig,
    TokenIssuer, TokenKey, UserId, handshake_nonce,
};

fn refused(reason: RefuseReason) -> ClientState {
    ClientState::Closed { reason: CloseReason::Refused(reason) }
}

#[test]
fn a_client_gets_in_and_both_ends_agree() {
    let (rig, session) = Rig::connected(1, Link::CLEAN);
    let cipher = Cipher::Aes128Gcm;
    assert_eq!(rig.told, [Told::Established(session, UserId(100), client_addr(0), cipher)]);
    assert_eq!(rig.client_told[0], [ClientTold::Connected(cipher)]);
    assert_eq!(rig.clients[0].cipher(), Some(cipher));
    let stats = rig.endpoint.stats();
    assert_eq!((stats.cookie_missing, stats.accepted, stats.established), (1, 1, 1));
    assert_eq!(stats.drops.total(), 0);
    assert_eq!(rig.endpoint.held(), (1, 0, 4, 0));
}

#[test]
fn the_handshake_takes_two_round_trips_and_small_answers() {
    let (rig, _) = Rig::connected(1, Link::CLEAN);
    let lens: Vec<usize> = rig.sent.iter().map(|sent| sent.bytes.len()).take(4).collect();
    assert_eq!(lens, [1_200, 62, 1_200, 246]);
    let sealed = rig.sent_since(4, true);
    assert_eq!(sealed[0].len(), 14 + 1 + 16, "the confirming PING");
}

#[test]
fn it_completes_at_30_percent_loss() {
    for seed in 0..60 {
        let mut rig = Rig::new(seed, Link::lossy(0.3));
        (0..3).for_each(|_| {
            rig.add_client();
        });
        rig.connect();
    }
}

#[test]
fn a_lost_confirmation_is_repeated() {
    let mut rig = Rig::new(3, Link::CLEAN);
    rig.add_client();
    assert!(rig.run_until(ms(5_000), |rig| rig.clients[0].state() == ClientState::Connected));
    rig.link.loss = 1.0;
    rig.run_for(ms(1_000));
    assert_eq!(rig.endpoint.sessions().count(), 0, "no slot before the keys are confirmed");
    assert_eq!(rig.endpoint.held().1, 1);
    rig.link.loss = 0.0;
    rig.connect();
}

#[test]
fn a_client_that_is_never_heard_gives_up() {
    let mut rig = Rig::new(3, Link { loss: 1.0, ..Link::CLEAN });
    rig.add_client();
    rig.run_for(ms(11_000));
    let reason = CloseReason::HandshakeTimeout;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    assert_eq!(rig.client_told[0], [ClientTold::Closed(reason)]);
    assert_eq!(rig.clients[0].poll_timeout(), None);
    let hellos = rig.clients[0].stats().hellos;
    assert!((15..=25).contains(&hellos), "backed off to {hellos}");
}

#[test]
fn a_client_whose_confirmation_never_arrives_gives_up() {
    let mut rig = Rig::new(3, Link::CLEAN);
    rig.add_client();
    assert!(rig.run_until(ms(5_000), |rig| rig.clients[0].state() == ClientState::Connected));
    rig.link.loss = 1.0;
    rig.run_for(ms(11_000));
    let reason = CloseReason::HandshakeTimeout;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0), "and the server has forgotten it");
    assert_eq!(rig.endpoint.stats().handshakes_lost, 1);
}

#[test]
fn the_servers_ids_lead_to_its_shard() {
    let steering = Steering::new(0x5eed, 7);
    for shard in [0, 3, 6] {
        let config =
            SessionConfig { steering: Some((steering, shard)), ..SessionConfig::default() };
        let mut rig = Rig::with(u64::from(shard), Link::CLEAN, config, aes());
        (0..10).for_each(|_| {
            rig.add_client();
        });
        rig.connect();
        let sealed = rig.sent.iter().filter(|sent| sent.to == Target::Server);
        let sealed = sealed.filter(|sent| sent.bytes[..4] != [0; 4]);
        let shards: Vec<u16> = sealed.map(|sent| steering.shard_of_packet(&sent.bytes)).collect();
        assert!(shards.len() >= 10 && shards.iter().all(|other| *other == shard), "{shards:?}");
    }
}

#[test]
fn the_cipher_that_costs_both_ends_least_is_chosen() {
    let (aes, cha) = (CryptoSuite::AES_FIRST, CryptoSuite::CHACHA_FIRST);
    for (server, client, chosen) in [
        (aes, cha, Cipher::Aes128Gcm),
        (cha, aes, Cipher::Aes128Gcm),
        (cha, cha, Cipher::ChaCha20Poly1305),
    ] {
        let mut rig = Rig::with(1, Link::CLEAN, SessionConfig::default(), Arc::new(server));
        let token = rig.token();
        rig.add_client_with(&token, Arc::new(client));
        rig.connect();
        assert_eq!(rig.clients[0].cipher(), Some(chosen));
    }
}

/// Someone on the path who knows the server's public key, and so can make a right mac1, leaves only
/// the dearest cipher in the offer.
#[test]
fn an_offer_changed_on_the_path_is_dropped() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    assert!(rig.run_until(ms(500), |rig| rig.clients[0].stats().retries == 1));
    rig.flush();
    let hello = rig.sent_since(0, true).pop().unwrap();
    let macs = PublicMacs::new(&rig.token().server_key());
    let mut forged = hello.clone();
    forged[43..52].copy_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0]);
    rig.deliver_to_server(client_addr(0), &forged);
    assert_eq!(rig.endpoint.stats().drops.bad_mac1, 1);
    let mac1 = macs.mac1_of(&forged[..212]);
    forged[212..228].copy_from_slice(&mac1);
    rig.deliver_to_server(client_addr(0), &forged);
    assert_eq!(rig.endpoint.stats().drops.hello_bad, 1);
    assert_eq!(rig.endpoint.stats().accepted, 0);
    rig.connect();
    assert_eq!(rig.clients[0].cipher(), Some(Cipher::Aes128Gcm));
}

#[test]
fn tokens_of_the_key_before_are_good_until_the_next_rotation() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let mut secrets = Stream::new(7, "rotation", 0);
    let old = rig.token();
    let (identity, key) = (ServerIdentity::new(&mut secrets), TokenKey::new(&mut secrets));
    let issuer = TokenIssuer::new(key.clone(), identity.public_key());
    let new = issuer.issue(&mut secrets, UserId(2), server_addr(), EXPIRES);
    assert_eq!(rig.endpoint.rotate_identity(identity), None);
    assert_eq!(rig.endpoint.rotate_token_key(key), None);
    rig.add_client_with(&old, aes());
    rig.add_client_with(&new, aes());
    rig.connect();

    let old = rig.token();
    let (identity, key) = (ServerIdentity::new(&mut secrets), TokenKey::new(&mut secrets));
    assert_eq!(rig.endpoint.rotate_identity(identity), Some(old.server_key()));
    assert!(rig.endpoint.rotate_token_key(key).is_some());
    rig.add_client_with(&old, aes());
    let new = issuer.issue(&mut secrets, UserId(3), server_addr(), EXPIRES);
    rig.add_client_with(&new, aes());
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[2].state(), ClientState::Connecting, "its key is gone: silence");
    assert_eq!(rig.clients[3].state(), ClientState::Connected);

    rig.endpoint.retire_old_keys();
    let new = issuer.issue(&mut secrets, UserId(4), server_addr(), EXPIRES);
    rig.add_client_with(&new, aes());
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[4].state(), ClientState::Connecting);
    assert_eq!(rig.clients[3].state(), ClientState::Connected, "sessions do not notice");
    assert!(rig.endpoint.stats().drops.bad_mac1 > 0);
}

#[test]
fn a_token_key_that_is_gone_is_refused() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let mut secrets = Stream::new(7, "rotation", 0);
    rig.endpoint.rotate_token_key(TokenKey::new(&mut secrets));
    rig.endpoint.retire_old_keys();
    rig.add_client();
    rig.run_for(ms(500));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::TokenInvalid));
}

#[test]
fn a_simulators_tag_stands_in_for_a_cipher() {
    let mut rig = Rig::with(1, Link::lossy(0.1), SessionConfig::default(), Arc::new(TagSuite));
    let token = rig.token();
    rig.add_client_with(&token, Arc::new(TagSuite));
    rig.connect();
    assert_eq!(rig.clients[0].cipher(), Some(Cipher::SimulatorTag));
}

#[test]
fn without_a_common_cipher_the_client_is_refused() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let token = rig.token();
    rig.add_client_with(&token, Arc::new(TagSuite));
    rig.run_for(ms(500));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::Suite));
    assert_eq!(rig.endpoint.stats().suite_unknown, 1);
}

#[test]
fn an_expired_token_is_refused() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let mut secrets = Stream::new(1, "other", 0);
    let issuer = rig.issuer.clone();
    let token = issuer.issue(&mut secrets, UserId(1), server_addr(), UNIX_AT_START);
    rig.add_client_with(&token, aes());
    rig.run_for(ms(500));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::TokenExpired));
    assert_eq!(rig.endpoint.stats().token_expired, 1);
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0));
}

#[test]
fn a_token_expires_while_the_server_runs() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let mut secrets = Stream::new(1, "other", 0);
    let issuer = rig.issuer.clone();
    let token = issuer.issue(&mut secrets, UserId(1), server_addr(), UNIX_AT_START + 30);
    rig.run_for(ms(30_000));
    rig.add_client_with(&token, aes());
    rig.run_for(ms(500));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::TokenExpired));
}

#[test]
fn a_token_of_another_login_service_is_refused() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let mut secrets = Stream::new(1, "other", 0);
    let server_key = rig.token().server_key();
    let issuer = TokenIssuer::new(TokenKey::new(&mut secrets), server_key);
    let token = issuer.issue(&mut secrets, UserId(1), server_addr(), EXPIRES);
    rig.add_client_with(&token, aes());
    rig.run_for(ms(500));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::TokenInvalid));
    assert_eq!(rig.endpoint.stats().token_bad, 1);
}

#[test]
fn who_does_not_know_the_servers_key_hears_silence() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let mut secrets = Stream::new(1, "other", 0);
    let other = ServerIdentity::new(&mut secrets).public_key();
    let issuer = TokenIssuer::new(TokenKey::new(&mut secrets), other);
    let token = issuer.issue(&mut secrets, UserId(1), server_addr(), EXPIRES);
    rig.add_client_with(&token, aes());
    rig.run_for(ms(11_000));
    let reason = CloseReason::HandshakeTimeout;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason });
    let stats = rig.endpoint.stats();
    assert_eq!(stats.packets_out, 0);
    assert_eq!(stats.drops.bad_mac1, stats.packets_in);
}

#[test]
fn a_server_key_of_small_order_closes_the_client_without_a_packet() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let mut secrets = Stream::new(1, "other", 0);
    let issuer = TokenIssuer::new(TokenKey::new(&mut secrets), PublicKey::from_bytes([0; 32]));
    let token = issuer.issue(&mut secrets, UserId(1), server_addr(), EXPIRES);
    rig.add_client_with(&token, aes());
    rig.run_for(ms(100));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::TokenInvalid));
    assert!(rig.sent.is_empty());
}

#[test]
fn a_spent_token_is_refused() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let token = rig.token();
    rig.add_client_with(&token, aes());
    rig.connect();
    rig.add_client_with(&token, aes());
    rig.run_for(ms(500));
    assert_eq!(rig.clients[1].state(), refused(RefuseReason::TokenSpent));
    assert_eq!(rig.endpoint.stats().token_spent, 1);
    assert_eq!(rig.endpoint.sessions().count(), 1, "the first session does not notice");
}

#[test]
fn of_two_handshakes_with_one_token_the_first_to_confirm_wins() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let token = rig.token();
    rig.add_client_with(&token, aes());
    rig.add_client_with(&token, aes());
    rig.run_for(ms(1_000));
    let states: Vec<ClientState> = rig.clients.iter().map(crate::ClientSession::state).collect();
    assert_eq!(states, [ClientState::Connected, refused(RefuseReason::TokenSpent)]);
    assert_eq!(rig.endpoint.held(), (1, 0, 1, 0));
}

#[test]
fn a_full_server_refuses() {
    let config = SessionConfig { sessions_max: 2, ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    (0..2).for_each(|_| {
        rig.add_client();
    });
    rig.connect();
    rig.add_client();
    rig.run_for(ms(500));
    assert_eq!(rig.clients[2].state(), refused(RefuseReason::Full));
    let session = rig.endpoint.sessions().next().unwrap();
    rig.endpoint.close(rig.now, session, CloseReason::Kicked);
    rig.run_for(ms(1_000));
    rig.add_client();
    rig.run_for(ms(500));
    assert_eq!(rig.clients[3].state(), ClientState::Connected, "a free slot is used again");
}

#[test]
fn slots_that_fill_during_handshakes_refuse_at_confirmation() {
    let config = SessionConfig { sessions_max: 1, ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    (0..3).for_each(|_| {
        rig.add_client();
    });
    rig.run_for(ms(1_000));
    let full = rig.clients.iter().filter(|c| c.state() == refused(RefuseReason::Full)).count();
    assert_eq!((full, rig.endpoint.stats().full), (2, 2));
    assert_eq!(rig.endpoint.held(), (1, 0, 1, 0));
}

#[test]
fn when_no_more_spent_tokens_can_be_remembered_new_sessions_are_refused() {
    let config = SessionConfig { spent_tokens_max: 1, ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    rig.add_client();
    rig.connect();
    rig.add_client();
    rig.run_for(ms(500));
    assert_eq!(rig.clients[1].state(), refused(RefuseReason::Full));
}

#[test]
fn a_draining_server_refuses() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.endpoint.close_all(rig.now, CloseReason::ServerDraining);
    rig.add_client();
    rig.run_for(ms(500));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::Draining));
}

/// The datagram of the client's HELLO with a cookie, the handshake being that far and no further.
fn hello_with_cookie(rig: &mut Rig) -> Vec<u8> {
    rig.add_client();
    assert!(rig.run_until(ms(500), |rig| rig.endpoint.stats().accepted == 1));
    rig.sent_since(0, true).pop().unwrap()
}

#[test]
fn a_copied_hello_gets_the_cached_accept_and_burns_nothing() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let hello = hello_with_cookie(&mut rig);
    let held = rig.endpoint.held();
    let from = rig.sent.len();
    for _ in 0..5 {
        rig.deliver_to_server(client_addr(0), &hello);
    }
    rig.flush();
    let answers = rig.sent_since(from, false);
    assert_eq!(answers.len(), 6);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "the same ACCEPT, byte for byte");
    assert_eq!(rig.endpoint.held(), (held.0, held.1, held.2, 0));
    assert_eq!(rig.endpoint.stats().accepted_again, 5);
    rig.connect();
    assert_eq!(rig.endpoint.stats().drops.unexpected, 0);
}

#[test]
fn a_cookie_of_another_address_is_dropped() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let hello = hello_with_cookie(&mut rig);
    rig.flush();
    let out = rig.endpoint.stats().packets_out;
    rig.deliver_to_server(client_addr(9), &hello);
    let mut other_port = client_addr(0);
    other_port.set_port(5_001);
    rig.deliver_to_server(other_port, &hello);
    rig.flush();
    assert_eq!(rig.endpoint.stats().drops.cookie_bad, 2);
    assert_eq!(rig.endpoint.stats().packets_out, out);
}

#[test]
fn a_wrong_or_old_cookie_is_dropped() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let hello = hello_with_cookie(&mut rig);
    let mut forged = hello.clone();
    forged[228] ^= 1;
    rig.deliver_to_server(client_addr(0), &forged);
    assert_eq!(rig.endpoint.stats().drops.cookie_bad, 1);
    rig.clients.clear();
    rig.client_told.clear();
    rig.run_for(ms(125_000));
    rig.deliver_to_server(client_addr(0), &hello);
    assert_eq!(rig.endpoint.stats().drops.cookie_bad, 2);
}

#[test]
fn a_server_that_forgot_its_cookie_secrets_is_asked_anew() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    assert!(rig.run_until(ms(500), |rig| rig.clients[0].stats().retries == 1));
    rig.restart_server();
    rig.connect();
    assert_eq!(rig.endpoint.stats().drops.cookie_bad, 4);
}

#[test]
fn handshakes_in_progress_are_bounded() {
    let config = SessionConfig { handshakes_max: 8, ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    (0..40).for_each(|_| {
        rig.add_client();
    });
    rig.run_until(ms(500), |rig| rig.endpoint.stats().accepted == 40);
    assert_eq!(rig.endpoint.held().1, 8);
    assert_eq!(rig.endpoint.stats().handshakes_lost, 32);
}

#[test]
fn a_forged_answer_does_not_disturb_a_handshake() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    assert!(rig.run_until(ms(500), |rig| rig.endpoint.stats().accepted == 1));
    rig.flush();
    let answers = rig.sent_since(0, false);
    assert_eq!(answers.len(), 2, "RETRY and ACCEPT");
    for answer in &answers {
        for index in 0..answer.len() {
            let mut forged = answer.clone();
            forged[index] ^= 0x10;
            rig.deliver_to_client(0, &forged);
        }
        for len in 0..answer.len() {
            rig.deliver_to_client(0, &answer[..len]);
        }
    }
    assert_eq!(rig.clients[0].state(), ClientState::Connecting);
    assert_eq!(rig.clients[0].drops().total(), 2 * (62 + 246));
    rig.connect();
}

#[test]
fn a_repeated_retry_calls_forth_no_further_hello() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    assert!(rig.run_until(ms(500), |rig| rig.clients[0].stats().retries == 1));
    rig.flush();
    let retry = rig.sent_since(0, false).pop().unwrap();
    let hellos = rig.clients[0].stats().hellos;
    (0..9).for_each(|_| rig.deliver_to_client(0, &retry));
    rig.flush();
    assert_eq!(rig.clients[0].stats().hellos, hellos);
}

#[test]
fn answers_name_their_client_by_nonce_and_packets_by_id() {
    let mut rig = Rig::new(1, Link::CLEAN);
    rig.add_client();
    let token = rig.token();
    let client = crate::ClientSession::new(
        SessionConfig::default(),
        aes(),
        &token,
        server_addr(),
        Box::new(Stream::new(9, "secrets", 0)),
        Stream::new(9, "jitter", 0),
    );
    rig.clients.push(client.unwrap().with_connection_id(0x0102_0304));
    rig.client_told.push(Vec::new());
    rig.connect();
    assert_eq!(rig.clients[1].connection_id(), 0x0102_0304);
    let by_nonce: BTreeMap<[u8; 16], usize> =
        rig.clients.iter().enumerate().map(|(i, c)| (c.handshake_nonce(), i)).collect();
    for sent in rig.sent.iter().filter(|sent| sent.to != Target::Server) {
        let Target::Client(index) = sent.to else { unreachable!() };
        match crate::connection_id(&sent.bytes) {
            Some(0) => {
                let nonce = handshake_nonce(&sent.bytes).unwrap();
                assert_eq!(by_nonce.get(&nonce), Some(&index));
            }
            id => assert_eq!(id, Some(rig.clients[index].connection_id())),
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut rig = Rig::new(seed, Link::lossy(0.2));
        (0..3).for_each(|_| {
            rig.add_client();
        });
        rig.run_for(ms(12_000));
        rig.sent.into_iter().map(|sent| sent.bytes).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
