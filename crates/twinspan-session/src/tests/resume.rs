//! Clients that were lost come back with their tickets, once and in time.

use core::time::Duration;
use std::sync::Arc;

use twinspan_core::random::Stream;
use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::{
    ClientSession, ClientState, CloseReason, CryptoSuite, RefuseReason, ResumeConfig, ResumeTicket,
    SessionConfig, TokenKey, UserId,
};

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);

fn refused(reason: RefuseReason) -> ClientState {
    ClientState::Closed { reason: CloseReason::Refused(reason) }
}

fn ticket(rig: &Rig, index: usize) -> ResumeTicket {
    rig.clients[index].ticket().unwrap().clone()
}

/// A client whose session the server lost to silence.
fn lost(seed: u64) -> (Rig, crate::SessionKey) {
    let (mut rig, session) = Rig::connected(seed, Link::CLEAN);
    rig.link.loss = 1.0;
    assert!(rig.run_until(ms(25_000), |rig| !rig.closes().is_empty()));
    assert_eq!(rig.closes(), [CloseReason::IdleTimeout]);
    rig.link.loss = 0.0;
    (rig, session)
}

/// The shortest that the default time-out and window allow.
const LIFETIME: Duration = ms(100_000);

/// A connected client whose tickets do not live long.
fn aging(seed: u64) -> Rig {
    let resume = ResumeConfig { lifetime: LIFETIME, ..ResumeConfig::default() };
    let config = SessionConfig { resume, packet_bytes_max: 1_200, ..SessionConfig::default() };
    let mut rig = Rig::with(seed, Link::CLEAN, config, aes());
    rig.add_client();
    rig.connect();
    rig
}

/// Loses whatever is sent until both ends have given up, and then some.
fn lose(rig: &mut Rig, after: Duration) {
    let before = rig.closes().len();
    rig.link.loss = 1.0;
    assert!(rig.run_until(ms(25_000), |rig| rig.closes().len() > before));
    rig.run_for(after);
    rig.link.loss = 0.0;
}

#[test]
fn a_lost_client_is_back_within_30_s_and_may_be_lost_again() {
    let (mut rig, _) = lost(1);
    rig.run_for(ms(29_000));
    let mut tickets = vec![ticket(&rig, 0)];
    for round in 1..4 {
        rig.resume_client(tickets.last().unwrap());
        rig.run_for(ms(1_000));
        let session = rig.endpoint.sessions().next().unwrap();
        let old = None;
        assert_eq!(rig.told.last(), Some(&Told::Resumed(session, UserId(100), old)), "{round}");
        rig.endpoint.send(rig.now, session, EVENTS, b"welcome back").unwrap();
        rig.run_for(ms(200));
        assert_eq!(rig.client_messages(round).len(), 1);
        tickets.push(ticket(&rig, round));
        rig.link.loss = 1.0;
        rig.run_for(ms(30_000));
        rig.link.loss = 0.0;
    }
    let expiries: Vec<u64> = tickets.iter().map(ResumeTicket::expires_at_unix_s).collect();
    assert!(expiries.is_sorted_by(|a, b| a < b), "each session brings a fresh ticket");
    assert_eq!(rig.endpoint.stats().resumed, 3);
    assert_eq!(tickets[0].window(), ms(30_000));
}

#[test]
fn a_client_that_is_back_before_it_was_missed_replaces_its_session() {
    let config = SessionConfig { sessions_max: 1, ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    rig.add_client();
    rig.connect();
    let old = rig.endpoint.sessions().next().unwrap();
    let ticket = ticket(&rig, 0);
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    let new = rig.endpoint.sessions().next().unwrap();
    assert_ne!(old, new);
    assert_eq!(
        rig.told[1..],
        [Told::Closed(old, CloseReason::Replaced), Told::Resumed(new, UserId(100), Some(old)),],
        "its own place is free for it on a full server"
    );
    assert_eq!(rig.endpoint.held(), (1, 0, 1, 0));
    assert_eq!(rig.clients[1].state(), ClientState::Connected);
    rig.run_for(ms(30_000));
    let reason = CloseReason::IdleTimeout;
    assert_eq!(rig.clients[0].state(), ClientState::Closed { reason }, "it hears no more");
}

#[test]
fn a_ticket_lets_in_once() {
    let (mut rig, _) = lost(1);
    let ticket = ticket(&rig, 0);
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[1].state(), ClientState::Connected);
    assert_eq!(rig.clients[2].state(), refused(RefuseReason::Ticket));
    assert_eq!((rig.endpoint.stats().resumed, rig.endpoint.stats().ticket_bad), (1, 1));
}

#[test]
fn of_two_handshakes_with_one_ticket_the_first_to_confirm_wins() {
    let (mut rig, _) = lost(1);
    let ticket = ticket(&rig, 0);
    rig.resume_client(&ticket);
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    let states: Vec<ClientState> = rig.clients[1..].iter().map(ClientSession::state).collect();
    assert_eq!(states, [ClientState::Connected, refused(RefuseReason::Ticket)]);
    assert_eq!(rig.endpoint.held(), (1, 0, 1, 0));
}

#[test]
fn who_was_absent_for_too_long_needs_a_token() {
    let (mut rig, _) = lost(1);
    rig.run_for(ms(30_500));
    let ticket = ticket(&rig, 0);
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[1].state(), refused(RefuseReason::Ticket));
}

#[test]
fn a_ticket_dies_of_age() {
    let mut rig = aging(1);
    let ticket = ticket(&rig, 0);
    rig.run_for(LIFETIME);
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[1].state(), refused(RefuseReason::TokenExpired));
}

#[test]
fn who_left_or_was_removed_cannot_resume() {
    for by_server in [true, false] {
        let (mut rig, session) = Rig::connected(1, Link::CLEAN);
        if by_server {
            rig.endpoint.close(rig.now, session, CloseReason::Kicked);
        } else {
            rig.clients[0].close(rig.now, CloseReason::Normal);
        }
        let ticket = ticket(&rig, 0);
        rig.run_for(ms(100));
        rig.resume_client(&ticket);
        rig.run_for(ms(2_000));
        assert_eq!(rig.clients[1].state(), refused(RefuseReason::Ticket));
    }
}

#[test]
fn a_server_that_was_restarted_with_its_keys_takes_tickets_of_before_for_30_s() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let ticket = ticket(&rig, 0);
    rig.restart_server();
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    let session = rig.endpoint.sessions().next().unwrap();
    assert_eq!(rig.told.last(), Some(&Told::Resumed(session, UserId(100), None)));
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[2].state(), refused(RefuseReason::TokenSpent));

    let (mut rig, _) = Rig::connected(2, Link::CLEAN);
    let ticket = self::ticket(&rig, 0);
    rig.clients.clear();
    rig.client_told.clear();
    rig.restart_server();
    rig.run_for(ms(31_000));
    rig.resume_client(&ticket);
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[0].state(), refused(RefuseReason::Ticket));
}

#[test]
fn tickets_outlive_one_rotation_of_the_token_key() {
    let mut secrets = Stream::new(7, "rotation", 0);
    for (rotations, state) in
        [(1, ClientState::Connected), (2, refused(RefuseReason::TokenInvalid))]
    {
        let (mut rig, _) = lost(1);
        (0..rotations).for_each(|_| {
            rig.endpoint.rotate_token_key(TokenKey::new(&mut secrets));
        });
        let ticket = ticket(&rig, 0);
        rig.resume_client(&ticket);
        rig.run_for(ms(1_000));
        assert_eq!(rig.clients[1].state(), state);
    }
}

#[test]
fn a_ticket_of_another_user_or_run_cannot_be_made_of_ones_own() {
    let (mut rig, _) = lost(1);
    let bytes = ticket(&rig, 0).as_token().to_bytes();
    // Public part and sealed private part, byte by byte; the checksum is for copying alone.
    for index in [96, 112, 120, 124, 128, 160, 168, 207] {
        let mut forged = *bytes;
        forged[index] ^= 1;
        let sum = crate::identity::sha256(&[&forged[..208]]);
        forged[208..].copy_from_slice(&sum[..10]);
        let token = crate::ConnectToken::from_bytes(&forged).unwrap();
        rig.add_client_with(&token, Arc::new(CryptoSuite::AES_FIRST));
    }
    rig.run_for(ms(1_000));
    assert_eq!(rig.endpoint.sessions().count(), 0);
    assert_eq!(rig.endpoint.stats().accepted, 1, "the first session's");
}

#[test]
fn resuming_completes_on_a_lossy_link() {
    for seed in 0..20 {
        let (mut rig, _) = lost(seed);
        rig.link = Link::lossy(0.3);
        let ticket = ticket(&rig, 0);
        rig.resume_client(&ticket);
        assert!(rig.run_until(ms(9_000), |rig| rig.endpoint.stats().resumed == 1));
    }
}

#[test]
fn a_session_that_outlives_its_tickets_may_be_lost_and_found_at_any_time() {
    for age in [30_000, 39_000, 45_000, 99_000, 101_000, 250_000, 437_000, 1_000_000] {
        let mut rig = aging(age);
        rig.run_for(ms(age));
        lose(&mut rig, ms(29_000));
        let ticket = ticket(&rig, 0);
        rig.resume_client(&ticket);
        rig.run_for(ms(1_000));
        assert_eq!(rig.clients[1].state(), ClientState::Connected, "lost after {age} ms");
        let renewed = rig.endpoint.stats().tickets_renewed;
        let (least, most) = (age * 16 / 7 / 100_000, age * 16 / 6 / 100_000);
        assert!((least..=most + 1).contains(&renewed), "{renewed} in {age} ms");
    }
}

#[test]
fn a_session_in_use_on_a_lossy_link_has_a_good_ticket_all_the_time() {
    let mut rig = aging(3);
    rig.link = Link::lossy(0.2);
    let mut seen = vec![ticket(&rig, 0)];
    for second in 0..350_u64 {
        let session = rig.endpoint.sessions().next().unwrap();
        rig.endpoint.send(rig.now, session, EVENTS, b"down").unwrap();
        rig.clients[0].send(rig.now, EVENTS, b"up").unwrap();
        rig.run_for(ms(1_000));
        let now = ticket(&rig, 0);
        let left = now.expires_at_unix_s() - (UNIX_AT_START + second);
        assert!(left > 50, "{left} s after {second} s");
        if seen.last().unwrap().as_token().to_bytes() != now.as_token().to_bytes() {
            seen.push(now);
        }
    }
    assert!((8..=10).contains(&seen.len()), "{}", seen.len());
    rig.link = Link::CLEAN;
    lose(&mut rig, ms(1_000));
    // None that was replaced lets in, though they have not all expired.
    let last = seen.pop().unwrap();
    for old in seen.iter().rev() {
        let index = rig.resume_client(old);
        rig.run_for(ms(1_000));
        let reason = match old.expires_at_unix_s() > UNIX_AT_START + 374 {
            true => RefuseReason::Ticket,
            false => RefuseReason::TokenExpired,
        };
        assert_eq!(rig.clients[index].state(), refused(reason));
    }
    let index = rig.resume_client(&last);
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[index].state(), ClientState::Connected);
}

/// A session at the moment when its server has just sent it another ticket.
fn at_renewal(seed: u64) -> (Rig, ResumeTicket) {
    let mut rig = aging(seed);
    let old = ticket(&rig, 0);
    assert!(rig.run_until(ms(50_000), |rig| rig.endpoint.stats().tickets_renewed == 1));
    (rig, old)
}

#[test]
fn a_ticket_that_was_lost_on_its_way_leaves_the_one_before_good() {
    let (mut rig, old) = at_renewal(1);
    lose(&mut rig, ms(29_000));
    assert_eq!(ticket(&rig, 0).expires_at_unix_s(), old.expires_at_unix_s(), "none arrived");
    for state in [ClientState::Connected, refused(RefuseReason::Ticket)] {
        let index = rig.resume_client(&old);
        rig.run_for(ms(1_000));
        assert_eq!(rig.clients[index].state(), state);
    }
}

#[test]
fn of_two_tickets_of_a_session_one_lets_in() {
    for newer_first in [true, false] {
        let (mut rig, old) = at_renewal(2);
        // It arrives, and its ack does not.
        rig.flush();
        let sent = rig.sent.last().unwrap().clone();
        assert_eq!(sent.to, Target::Client(0));
        rig.deliver_to_client(0, &sent.bytes);
        let new = ticket(&rig, 0);
        assert_ne!(new.expires_at_unix_s(), old.expires_at_unix_s());
        lose(&mut rig, ms(10_000));
        let (first, second) = if newer_first { (&new, &old) } else { (&old, &new) };
        let entered = rig.resume_client(first);
        rig.run_for(ms(1_000));
        assert_eq!(rig.clients[entered].state(), ClientState::Connected);
        let late = rig.resume_client(second);
        rig.run_for(ms(1_000));
        assert_eq!(rig.clients[late].state(), refused(RefuseReason::Ticket));
    }
}

#[test]
fn of_a_sessions_tickets_one_lets_in_after_a_restart_too() {
    // The rig's clock goes on at a restart: the window must outlast the first ticket.
    let resume = ResumeConfig { lifetime: ms(440_000), window: ms(200_000), absent_max: 1 };
    let config = SessionConfig { resume, ..SessionConfig::default() };
    let mut rig = Rig::with(3, Link::CLEAN, config, aes());
    rig.add_client();
    rig.connect();
    let old = ticket(&rig, 0);
    assert!(rig.run_until(ms(192_000), |rig| rig.endpoint.stats().tickets_renewed == 1));
    rig.run_for(ms(1_000));
    let new = ticket(&rig, 0);
    rig.restart_server();
    for (ticket, state) in
        [(&old, ClientState::Connected), (&new, refused(RefuseReason::TokenSpent))]
    {
        let index = rig.resume_client(ticket);
        rig.run_for(ms(1_000));
        assert_eq!(rig.clients[index].state(), state);
    }
}

#[test]
fn tickets_are_renewed_under_the_servers_present_keys() {
    let mut rig = aging(4);
    let mut secrets = Stream::new(7, "rotation", 0);
    for _ in 0..3 {
        rig.endpoint.rotate_identity(crate::ServerIdentity::new(&mut secrets));
        rig.endpoint.rotate_token_key(TokenKey::new(&mut secrets));
        rig.run_for(ms(50_000));
    }
    rig.link.loss = 1.0;
    rig.run_for(ms(25_000));
    rig.link.loss = 0.0;
    assert_eq!(rig.clients[0].come_back(), Ok(()));
    rig.run_for(ms(1_000));
    assert_eq!(rig.clients[0].state(), ClientState::Connected);
    assert_eq!(rig.endpoint.stats().resumed, 1);
}

#[test]
fn a_client_that_sends_a_ticket_is_at_fault() {
    let (mut rig, _) = Rig::connected(1, Link::CLEAN);
    let control = Channel::new(Delivery::Unordered, StreamId::CONTROL).to_byte();
    let text = [&[9, 0, 13][..], &[1; crate::ticket::RENEWAL_BYTES]].concat();
    let lie = rig.clients[0].connection().seal_raw(control, 0, &text);
    rig.deliver_to_server(client_addr(0), &lie);
    rig.run_for(ms(10));
    assert_eq!(rig.closes(), [CloseReason::ProtocolViolation]);
}
