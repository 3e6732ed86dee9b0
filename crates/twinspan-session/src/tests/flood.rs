//! Hellos from made-up addresses, far more than a server answers, and newcomers among them.

use core::time::Duration;
use std::net::SocketAddr;

use twinspan_core::packet::DatagramBatch;
use twinspan_core::random::Stream;
use twinspan_reliable::{Channel, Delivery, StreamId};

use super::rig::*;
use crate::messages::PublicMacs;
use crate::{ClientState, EndpointStats, SessionConfig};

/// The first HELLO of a client that nobody hears of again.
fn hello(rig: &mut Rig) -> Vec<u8> {
    rig.add_client();
    rig.flush();
    let hello = rig.sent_since(0, true).pop().unwrap();
    rig.clients.clear();
    rig.client_told.clear();
    // Its answer finds nobody: who comes next has the same nonce.
    rig.run_for(ms(100));
    hello
}

/// The same with a token that was never issued.
fn made_up(rig: &mut Rig, hello: &[u8], number: u64) -> Vec<u8> {
    let mut hello = hello.to_vec();
    hello[52..60].copy_from_slice(&number.to_le_bytes());
    let mac1 = PublicMacs::new(&rig.token().server_key()).mac1_of(&hello[..212]);
    hello[212..228].copy_from_slice(&mac1);
    hello
}

fn made_up_addr(random: &mut Stream) -> SocketAddr {
    let [a, b, c, p0, p1, ..] = random.next_u64().to_le_bytes();
    SocketAddr::from(([172, a, b, c], u16::from_le_bytes([p0, p1])))
}

/// Datagrams come one by one, strangers' among those of newcomers.
const LINK: Link = Link { jitter: ms(3), ..Link::CLEAN };

/// Lets newcomers in while a flood of 200,000 hellos a second goes on, and says when the last of
/// them was in, counted from when all came.
fn last_in(rig: &mut Rig, hellos: &[Vec<u8>], newcomers: usize) -> Option<Duration> {
    const PER_MS: usize = 200;
    let mut random = Stream::new(7, "flood", 0);
    // The flood has used up what a server saved before they come.
    let began = rig.now;
    for at_ms in 0..10_200 {
        if at_ms == 200 {
            (0..newcomers).for_each(|_| {
                rig.add_client();
            });
        }
        for index in 0..PER_MS {
            let hello = &hellos[(at_ms * PER_MS + index) % hellos.len()];
            rig.send(Target::Server, made_up_addr(&mut random), hello.clone());
        }
        rig.run_for(ms(1));
        rig.sent.clear();
        let sessions = rig.endpoint.sessions().count();
        let connected = rig.clients.iter().all(|c| c.state() == ClientState::Connected);
        if at_ms > 200 && connected && sessions == newcomers {
            return Some(rig.now.since(began.after(ms(200))));
        }
    }
    None
}

/// Hellos answered since `before`, of which there were that many.
fn answered(rig: &Rig, before: &EndpointStats) -> f64 {
    let stats = rig.endpoint.stats();
    let answered = stats.cookie_missing - before.cookie_missing;
    let hellos = answered + stats.drops.shed - before.drops.shed;
    assert!(hellos > 50_000, "{hellos}");
    answered as f64 / hellos as f64
}

#[test]
fn newcomers_do_not_notice_a_flood_with_a_few_good_tokens() {
    let mut rig = Rig::new(1, LINK);
    let hellos: Vec<_> = (0..64).map(|_| hello(&mut rig)).collect();
    let before = *rig.endpoint.stats();
    let last = last_in(&mut rig, &hellos, 50).unwrap();
    // Two round trips of 40 ms, and once what a client waits before it says its hello again.
    assert!(last <= ms(500), "{last:?}");
    let answered = answered(&rig, &before);
    assert!(answered < 0.06, "{answered}");
}

#[test]
fn newcomers_come_in_through_a_flood_with_made_up_tokens() {
    let mut rig = Rig::new(1, LINK);
    let pattern = hello(&mut rig);
    let hellos: Vec<_> = (0..64).map(|number| made_up(&mut rig, &pattern, number)).collect();
    let before = *rig.endpoint.stats();
    let last = last_in(&mut rig, &hellos, 50).unwrap();
    assert!(last <= ms(6_000), "{last:?}");
    let answered = answered(&rig, &before);
    assert!(answered < 0.04, "{answered}");
}

#[test]
fn a_client_with_a_cookie_passes_before_those_without() {
    let config = SessionConfig { hello_answers_per_second: 16, ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    let pattern = hello(&mut rig);
    rig.add_client();
    assert!(rig.run_until(ms(5_000), |rig| rig.clients[0].stats().retries == 1));
    let mut random = Stream::new(7, "flood", 0);
    for _ in 0..10_000 {
        rig.deliver_to_server(made_up_addr(&mut random), &pattern);
    }
    let at = rig.now;
    rig.connect();
    assert!(rig.now.since(at) < ms(500), "no hello of it was dropped");
}

#[test]
fn a_flood_of_hellos_leaves_nothing_behind() {
    let config = SessionConfig { answers_max: 64, ..SessionConfig::default() };
    let mut rig = Rig::with(1, Link::CLEAN, config, aes());
    let hello = hello(&mut rig);
    let before = *rig.endpoint.stats();
    for index in 0..20_000 {
        rig.deliver_to_server(client_addr(index), &hello);
    }
    let stats = *rig.endpoint.stats();
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 64), "answers wait in a bounded queue");
    assert_eq!(stats.cookie_missing - before.cookie_missing, 64);
    // A sixteenth of a second's unasked answers, and those of one token.
    assert_eq!((stats.drops.answers_full, stats.drops.shed), (250 + 16 - 64, 20_000 - 266));
    rig.flush();
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0));
    assert_eq!(rig.endpoint.stats().bytes_out - before.bytes_out, 64 * 62);
}

#[test]
fn hellos_of_another_length_are_dropped_before_anything_is_computed() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let hello = hello(&mut rig);
    for len in [14, 244, 1_199, 1_201] {
        let mut other = hello.clone();
        other.resize(len, 0);
        rig.deliver_to_server(client_addr(0), &other);
    }
    assert_eq!(rig.endpoint.stats().drops.malformed, 4);
    assert_eq!(rig.endpoint.held(), (0, 0, 0, 0));
}

#[test]
fn answers_leave_although_sessions_fill_every_batch() {
    let mut rig = Rig::new(1, Link::CLEAN);
    let hello = hello(&mut rig);
    rig.add_client();
    rig.connect();
    let session = rig.endpoint.sessions().next().unwrap();
    rig.deliver_to_server(client_addr(9), &hello);
    let events = Channel::new(Delivery::Ordered, StreamId::EVENTS);
    for _ in 0..8 {
        rig.endpoint.send(rig.now, session, events, &[1; 1_000]).unwrap();
    }
    let mut out = DatagramBatch::new(2);
    rig.endpoint.poll_transmit(rig.now, &rig.pool, &mut out);
    let peers: Vec<_> = out.iter().map(|datagram| datagram.peer).collect();
    assert_eq!(peers, [client_addr(0), client_addr(9)]);
    out.clear();
    rig.endpoint.poll_transmit(rig.now, &rig.pool, &mut out);
    assert!(out.iter().all(|datagram| datagram.peer == client_addr(0)) && out.room() == 0);
}
