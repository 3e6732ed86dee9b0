//! Sessions through a relay on good and bad networks, its restart, strangers and floods.

use std::time::Duration;

use twinspan_core::link::Conditions;
use twinspan_core::random::Stream;
use twinspan_relay::{RelayEvent, client_of};

use crate::parts::Echo;
use crate::rig::{DIRECT, PORT, RELAY, Rig, TRUNK, at};

const LOSSY: Conditions = Conditions {
    loss: 0.05,
    delay: Duration::from_millis(15),
    jitter: Duration::from_millis(10),
    duplicate: 0.02,
    ..Conditions::CLEAN
};

#[test]
fn players_behind_a_lossy_relay_are_served_as_if_it_were_not_there() {
    for seed in 1..=4 {
        let mut rig = Rig::new(seed, LOSSY, |_| {});
        for host in 0..8 {
            rig.add_player(at(100 + host, 5_000), RELAY, 60);
        }
        rig.add_player(at(120, 5_000), DIRECT, 60);
        rig.wait("all messages to come back", Rig::all_served);
        let (behind, direct) = rig.players.split_at(8);
        for player in behind {
            assert_eq!(player.borrow().heard_from, [RELAY], "the server is hidden");
        }
        assert_eq!(direct[0].borrow().heard_from, [DIRECT]);
        // The server knows each by its own address, and which relay it is behind.
        let server = rig.server.borrow();
        let known: Vec<_> = server.peers.iter().filter_map(|peer| client_of(*peer)).collect();
        assert_eq!(known.len(), 8);
        for host in 0..8 {
            assert!(known.contains(&(at(100 + host, 5_000), 1)), "{known:?}");
        }
        assert!(server.peers.contains(&at(120, 5_000)));
        let relay = rig.relay.borrow();
        let stats = relay.stats(rig.sim.now());
        assert_eq!((stats.links, stats.links_begun), (8, 8));
        assert_eq!(stats.drops.total(), 0, "{stats:?}");
        assert_eq!(stats.silences, 0);
        let port = rig.port.get();
        assert_eq!(port.bad_tag + port.bad_frame + port.unsendable, 0);
        assert!(port.relayed_in > 400 && port.relayed_out > 400, "{port:?}");
    }
}

#[test]
fn clients_behind_one_address_are_told_apart_by_port() {
    let mut rig = Rig::new(5, Conditions::CLEAN, |_| {});
    for port in 0..5 {
        rig.add_player(at(100, 5_000 + port), RELAY, 20);
    }
    rig.wait("all messages to come back", Rig::all_served);
    assert_eq!(rig.relay.borrow().stats(rig.sim.now()).links, 5);
}

#[test]
fn a_relay_that_starts_anew_goes_on_where_the_old_one_stopped() {
    let mut rig = Rig::new(6, LOSSY, |_| {});
    for host in 0..6 {
        rig.add_player(at(100 + host, 5_000), RELAY, 120);
    }
    let half = |rig: &Rig| rig.players.iter().all(|player| player.borrow().echoed.len() >= 40);
    rig.wait("the first messages", half);
    rig.restart_relay(Duration::from_millis(700));
    rig.wait("all messages to come back", Rig::all_served);
    assert_eq!(rig.server.borrow().closed, []);
    let stats = rig.relay.borrow().stats(rig.sim.now());
    assert_eq!(stats.hellos, 0, "nobody had to begin again");
    assert_eq!(stats.links, 6, "and the links were learned again: {stats:?}");
}

#[test]
fn a_silent_server_is_told_and_its_return_too() {
    let mut rig = Rig::new(7, Conditions::CLEAN, |_| {});
    rig.add_player(at(100, 5_000), RELAY, 1_000);
    rig.wait("the player", |rig| rig.players[0].borrow().echoed.len() > 10);
    rig.sim.partition(PORT.ip(), RELAY.ip());
    rig.wait("the silence", |rig| rig.relay.borrow_mut().poll_event() == Some(SILENT));
    rig.sim.heal_all();
    rig.wait("the return", |rig| rig.relay.borrow_mut().poll_event() == Some(BACK));
    assert_eq!(rig.relay.borrow().stats(rig.sim.now()).silences, 1);
    rig.wait("the player to go on", |rig| rig.players[0].borrow().echoed.len() > 100);
}
const SILENT: RelayEvent = RelayEvent::ServerSilent { server: PORT };
const BACK: RelayEvent = RelayEvent::ServerBack { server: PORT };

/// A client whose address was translated anew is another client to the relay; what the server makes
/// of that is the session's part.
#[test]
fn a_translated_address_passes_as_a_stranger_until_it_is_answered() {
    let mut rig = Rig::new(8, Conditions::CLEAN, |config| config.strays_per_source = 50);
    let mut sealed = vec![7; 60];
    sealed[5] = 0;
    let many = vec![(RELAY, sealed); 500];
    let injector = rig.inject(at(130, 4_000), many);
    rig.wait("the injector", |_| injector.borrow().is_done());
    rig.sim.run_for(Duration::from_millis(100));
    let stats = rig.relay.borrow().stats(rig.sim.now());
    assert!((50..60).contains(&stats.strays), "{stats:?}");
    assert_eq!(stats.strays + stats.drops.strays_source, 500);
    assert_eq!(rig.port.get().relayed_in, stats.strays);
    assert_eq!(injector.borrow().heard.len(), 0, "nobody answers a stranger's sealed datagrams");
}

#[test]
fn an_answered_client_is_served_through_a_flood_of_strangers() {
    let mut rig = Rig::new(9, Conditions::CLEAN, |config| {
        config.strays_per_second = 100;
        config.strays_per_source = 100;
        config.hellos_per_second = 100;
    });
    rig.add_player(at(100, 5_000), RELAY, 60);
    rig.wait("the player", |rig| rig.players[0].borrow().is_connected);
    let mut floods = Vec::new();
    for host in 0..8 {
        let sealed = vec![(RELAY, vec![0x55; 100]); 4_000];
        floods.push(rig.inject(at(140 + host, 4_000), sealed));
        let mut hello = vec![0; 1_200];
        hello[4..7].copy_from_slice(&[1, 1, 1]);
        floods.push(rig.inject(at(140 + host, 4_001), vec![(RELAY, hello); 4_000]));
    }
    rig.wait("the floods", |_| floods.iter().all(|flood| flood.borrow().is_done()));
    rig.wait("the player to be served", Rig::all_served);
    let stats = rig.relay.borrow().stats(rig.sim.now());
    assert!(stats.strays < 600, "{stats:?}");
    assert!(stats.drops.strays_source + stats.drops.strays_total > 30_000, "{stats:?}");
    assert!(stats.drops.hellos_total + stats.drops.hellos_source > 30_000, "{stats:?}");
    assert_eq!(stats.links, 1);
    // A HELLO that is not of this server is met with silence, through a relay too.
    assert!(floods.iter().all(|flood| flood.borrow().heard.is_empty()));
}

#[test]
fn a_flood_of_spoofed_sources_leaves_no_byte_and_gets_no_more_than_it_sent() {
    let mut rig = Rig::new(10, Conditions::CLEAN, |_| {});
    let table_bytes = rig.relay.borrow().table_bytes();
    // Real HELLOs, each sent once from another address, as if their senders had lied about it.
    let nobody = Conditions { loss: 1.0, ..Conditions::CLEAN };
    for host in 0..SPOOFED {
        let address = at(3 + host, 6_000 + u16::from(host));
        rig.add_player(address, RELAY, 0);
        rig.sim.set_link(RELAY.ip(), address.ip(), nobody);
    }
    rig.sim.run_for(Duration::from_secs(9));
    let relay = rig.relay.borrow();
    let stats = relay.stats(rig.sim.now());
    assert!(stats.hellos >= u64::from(SPOOFED), "{stats:?}");
    assert_eq!(stats.links_begun, 0, "no address was proven");
    assert_eq!(relay.table_bytes(), table_bytes);
    assert!(stats.to_clients > 0 && stats.to_clients_bytes * 16 < stats.to_server_bytes);
    let endpoint = rig.server.borrow();
    assert_eq!(endpoint.peers, []);
    assert_eq!(endpoint.endpoint.stats().accepted, 0);
}

const SPOOFED: u8 = 60;

#[test]
fn only_the_relay_is_heard_on_the_trunk() {
    let mut rig = Rig::new(11, Conditions::CLEAN, |_| {});
    // To the server's port for relays, and to the relay's trunk, from a stranger.
    let noise = |to| vec![(to, vec![0x33; 80]); 50];
    let stranger = rig.inject(at(150, 7_800), [noise(PORT), noise(TRUNK)].concat());
    rig.wait("the stranger", |_| stranger.borrow().is_done());
    rig.sim.run_for(Duration::from_millis(50));
    assert_eq!(rig.port.get().sides.strangers, 50);
    assert_eq!(rig.sides.get().strangers, 50);
    assert!(stranger.borrow().heard.is_empty());
    assert_eq!(rig.relay.borrow().stats(rig.sim.now()).to_clients, 0);
}

#[test]
fn a_datagram_from_the_relay_without_the_key_is_dropped() {
    let mut rig = Rig::new(12, Conditions::CLEAN, |config| {
        config.keys = twinspan_relay::TrunkKey::from_bytes([1; 32]).into();
    });
    rig.add_player(at(100, 5_000), RELAY, 1);
    rig.sim.run_for(Duration::from_secs(2));
    assert!(!rig.players[0].borrow().is_connected);
    assert!(rig.port.get().bad_tag > 2);
    assert_eq!(rig.port.get().relayed_in, 0);
}

/// Ten thousand mutated and random datagrams to each port: nothing panics, nothing grows, and who
/// plays goes on playing.
#[test]
fn hostile_datagrams_on_every_port_harm_nobody() {
    let mut rig = Rig::new(13, Conditions::CLEAN, |_| {});
    rig.add_player(at(100, 5_000), RELAY, 40);
    let mut random = Stream::new(13, "hostile", 0);
    let table_bytes = rig.relay.borrow().table_bytes();
    let mut hostile = Vec::new();
    for to in [RELAY, TRUNK, PORT, DIRECT] {
        for _ in 0..10_000 {
            let len = random.below(1_600) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| random.next_u64() as u8).collect();
            if random.chance(0.3) && len >= 6 {
                bytes[..6].copy_from_slice(&[0, 0, 0, 0, 1, 1]);
                bytes.resize(1_200, 0);
            }
            hostile.push((to, bytes));
        }
    }
    let injector = rig.inject(at(160, 4_000), hostile);
    rig.wait("the datagrams", |_| injector.borrow().is_done());
    rig.wait("the player to be served", Rig::all_served);
    assert_eq!(rig.relay.borrow().table_bytes(), table_bytes);
    assert!(injector.borrow().heard.is_empty());
    let Echo { peers, closed, .. } = &*rig.server.borrow();
    assert_eq!((peers.len(), closed.len()), (1, 0));
}

/// A NAT that gives the client another port: the session goes on, and the relay learns the new link
/// from the server's first datagram to it.
#[test]
fn a_session_moves_when_its_address_is_translated_anew() {
    let mut rig = Rig::new(14, LOSSY, |_| {});
    let (nat, second) = (at(170, 5_000), at(170, 5_001));
    rig.add_player(nat, RELAY, 200);
    rig.wait("the player", |rig| rig.players[0].borrow().echoed.len() >= 40);
    rig.rebind(0, second);
    rig.wait("all messages to come back", Rig::all_served);
    let server = rig.server.borrow();
    assert_eq!((server.peers.len(), server.closed.len()), (1, 0), "the same session");
    let stats = rig.relay.borrow().stats(rig.sim.now());
    assert_eq!(stats.links_begun, 2, "{stats:?}");
    assert!(stats.strays > 0 && stats.drops.total() == 0, "{stats:?}");
}
