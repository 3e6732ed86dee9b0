//! The two-sided socket and the server's port as sockets: order, mixed batches, slow kernels.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{NetworkProvider, TaskProvider, UdpOptions, UdpSocket};
use twinspan_relay::{
    Direction, PortConfig, RelayPort, TrunkKey, TrunkKeys, TrunkTags, TwoSided, decode, encode,
    relayed_address,
};
use twinspan_sim::{Sim, SimConfig, SimTask};

use crate::rig::{at, key};

type Heard = Rc<RefCell<Vec<(SocketAddr, Vec<u8>)>>>;

/// Keeps what comes to `local`, as long as the task is.
fn listen(sim: &mut Sim, local: SocketAddr) -> (Heard, SimTask) {
    let heard = Heard::default();
    let (tell, env) = (Rc::clone(&heard), sim.host("listener", local.ip()));
    let task = env.clone().spawn("listener", async move {
        let mut socket = env.bind_udp(local, &UdpOptions::default()).await.unwrap();
        let mut batch = DatagramBatch::new(16);
        while poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.is_ok() {
            let mut heard = tell.borrow_mut();
            while let Some(datagram) = batch.pop() {
                heard.push((datagram.peer, datagram.packet.to_vec()));
            }
        }
    });
    (heard, task)
}

fn sim() -> Sim {
    Sim::new(SimConfig { seed: 3, short_send: 0.5, send_stall: 0.2, ..SimConfig::default() })
}

fn datagram(socket: &impl UdpSocket, peer: SocketAddr, bytes: &[u8]) -> Datagram {
    let mut packet = socket.pool().take().unwrap();
    assert!(packet.fill(bytes));
    Datagram { peer, at: Timestamp::START, packet }
}

#[test]
fn a_mixed_batch_goes_out_on_both_sides_each_in_order() {
    let mut sim = sim();
    let (client, server) = (at(50, 5_000), at(60, 6_000));
    let (at_client, _client) = listen(&mut sim, client);
    let (at_server, _server) = listen(&mut sim, server);
    let env = sim.host("relay", at(2, 1).ip());
    let inner = env.clone();
    let sending = async move {
        let env = inner;
        let options = UdpOptions { pool_packets: 600, ..UdpOptions::default() };
        let open = env.bind_udp(at(2, 1), &options).await.unwrap();
        let trunk = env.bind_udp(at(2, 2), &options).await.unwrap();
        let mut socket = TwoSided::new(Some(open), trunk, &[server]);
        let mut batch = DatagramBatch::new(500);
        for number in 0..500_u16 {
            let peer = if number % 7 < 3 { client } else { server };
            let one = datagram(&socket, peer, &number.to_le_bytes());
            assert!(batch.push(one).is_ok());
        }
        while !batch.is_empty() {
            poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap();
        }
        assert_eq!(socket.report().packets_out, 500, "none is left behind");
        assert_eq!(socket.pool().outstanding(), 0);
    };
    sim.block_on(&env, Duration::from_secs(20), sending).unwrap();
    sim.run_for(Duration::from_secs(1));
    let numbers = |heard: &Heard| -> Vec<u16> {
        let number = |bytes: &[u8]| u16::from_le_bytes(*bytes.first_chunk().unwrap());
        heard.borrow().iter().map(|(_, bytes)| number(bytes)).collect()
    };
    let is_client = |number: &u16| number % 7 < 3;
    assert!(numbers(&at_client).into_iter().eq((0..500).filter(is_client)));
    assert!(numbers(&at_server).into_iter().eq((0..500).filter(|number| !is_client(number))));
    let from = |heard: &Heard| heard.borrow()[0].0;
    assert_eq!((from(&at_client), from(&at_server)), (at(2, 1), at(2, 2)));
}

#[test]
fn a_port_groups_by_length_and_drops_what_it_cannot_send() {
    let mut sim = sim();
    let relay = at(70, 7_000);
    let (at_relay, _relay) = listen(&mut sim, relay);
    let (at_client, _client) = listen(&mut sim, at(50, 5_000));
    let env = sim.host("server", at(1, 1).ip());
    let inner = env.clone();
    let sending = async move {
        let env = inner;
        let options = UdpOptions::default();
        let direct = env.bind_udp(at(1, 1), &options).await.unwrap();
        let trunk = env.bind_udp(at(1, 2), &options).await.unwrap();
        let config = PortConfig { pad_to: 32, ..PortConfig::new(vec![relay], key()) };
        let mut port = RelayPort::new(Some(direct), trunk, &config).unwrap();
        let mut batch = DatagramBatch::new(64);
        let player = |last| relayed_address(at(last, 9_000), 0);
        for (peer, len) in [
            (player(80), 300),
            (player(81), 90),
            (at(50, 5_000), 40),
            (player(82), 310),
            (player(83), 65),
            (player(80), 1_200),
            // A relay that nobody named, and a datagram that no session makes.
            (relayed_address(at(84, 1), 1), 100),
            (player(84), 10),
        ] {
            let one = datagram(&port, peer, &vec![len as u8; len]);
            assert!(batch.push(one).is_ok());
        }
        while !batch.is_empty() {
            poll_fn(|cx| port.poll_send(cx, &mut batch)).await.unwrap();
        }
        let stats = port.stats().get();
        assert_eq!((stats.relayed_out, stats.unsendable), (5, 2));
        assert_eq!(port.pool().outstanding(), 0);
    };
    sim.block_on(&env, Duration::from_secs(20), sending).unwrap();
    sim.run_for(Duration::from_secs(1));
    let tags = TrunkTags::new(&key(), None, Direction::ToRelay);
    let told: Vec<_> = at_relay
        .borrow()
        .iter()
        .map(|(from, bytes)| {
            assert_eq!(*from, at(1, 2));
            let (client, len) = decode(bytes, &tags).unwrap();
            assert_eq!(bytes[..len], vec![len as u8; len]);
            (client, len, bytes.len())
        })
        .collect();
    let player = |last| at(last, 9_000);
    let wanted = [
        (player(80), 1_200, 1_232),
        (player(80), 300, 336),
        (player(82), 310, 336),
        (player(81), 90, 112),
        (player(83), 65, 112),
    ];
    assert_eq!(told, wanted);
    assert_eq!(at_client.borrow().as_slice(), [(at(1, 1), vec![40; 40])]);
}

#[test]
fn who_borrows_a_trunk_address_is_not_heard() {
    let mut sim = sim();
    // The trunk's peer sends to the open side, a client to the trunk: each to the wrong door.
    let (client, server) = (at(50, 5_000), at(60, 6_000));
    let env = sim.host("relay", at(2, 1).ip());
    let hosts = [(client, at(2, 2)), (server, at(2, 1)), (client, at(2, 1)), (server, at(2, 2))];
    let senders: Vec<_> = hosts.map(|(from, to)| (sim.host("sender", from.ip()), from, to)).into();
    let inner = env.clone();
    let receiving = async move {
        let options = UdpOptions::default();
        let open = inner.bind_udp(at(2, 1), &options).await.unwrap();
        let trunk = inner.bind_udp(at(2, 2), &options).await.unwrap();
        let mut socket = TwoSided::new(Some(open), trunk, &[server]);
        for (env, from, to) in senders {
            let mut sender = env.bind_udp(from, &options).await.unwrap();
            let mut batch = DatagramBatch::new(1);
            let one = datagram(&sender, to, &[1; 40]);
            assert!(batch.push(one).is_ok());
            poll_fn(|cx| sender.poll_send(cx, &mut batch)).await.unwrap();
        }
        let mut heard = DatagramBatch::new(8);
        while heard.len() < 2 {
            poll_fn(|cx| socket.poll_recv(cx, &mut heard)).await.unwrap();
        }
        let mut peers: Vec<_> = heard.iter().map(|datagram| datagram.peer).collect();
        peers.sort_unstable();
        assert_eq!(peers, [client, server]);
        let drops = socket.drops().get();
        assert_eq!((drops.forged, drops.strangers), (1, 1));
    };
    sim.block_on(&env, Duration::from_secs(20), receiving).unwrap();
}

#[test]
fn without_an_open_side_what_is_not_for_the_trunk_is_counted_and_dropped() {
    let mut sim = sim();
    let env = sim.host("server", at(1, 1).ip());
    let inner = env.clone();
    let sending = async move {
        let trunk = inner.bind_udp(at(1, 2), &UdpOptions::default()).await.unwrap();
        let mut socket = TwoSided::new(None, trunk, &[at(70, 7_000)]);
        let mut batch = DatagramBatch::new(4);
        let one = datagram(&socket, at(50, 5_000), &[1; 40]);
        assert!(batch.push(one).is_ok());
        poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap();
        assert!(batch.is_empty());
        assert_eq!(socket.drops().get().unreachable, 1);
        assert_eq!(socket.local_addr(), at(1, 2));
    };
    sim.block_on(&env, Duration::from_secs(20), sending).unwrap();
}

#[test]
fn a_port_takes_other_keys_while_it_is_driven() {
    let mut sim = sim();
    let relay = at(70, 7_000);
    let (at_relay, _relay) = listen(&mut sim, relay);
    let env = sim.host("server", at(1, 1).ip());
    let inner = env.clone();
    let other = TrunkKey::from_bytes([200; 32]);
    let present = other.clone();
    let sending = async move {
        let trunk = inner.bind_udp(at(1, 2), &UdpOptions::default()).await.unwrap();
        let config = PortConfig::new(vec![relay], key());
        let mut port = RelayPort::new(None, trunk, &config).unwrap();
        let keys = port.keys();
        let mut batch = DatagramBatch::new(1);
        for change in [None, Some(TrunkKeys { present, before: Some(key()) })] {
            if let Some(other) = change {
                keys.replace(&other);
            }
            let one = datagram(&port, relayed_address(at(80, 9_000), 0), &[1; 40]);
            assert!(batch.push(one).is_ok());
            while !batch.is_empty() {
                poll_fn(|cx| port.poll_send(cx, &mut batch)).await.unwrap();
            }
        }
    };
    sim.block_on(&env, Duration::from_secs(20), sending).unwrap();
    sim.run_for(Duration::from_secs(1));
    let heard = at_relay.borrow();
    let decodes = |key: &TrunkKey| -> Vec<bool> {
        let tags = TrunkTags::new(key, None, Direction::ToRelay);
        heard.iter().map(|(_, bytes)| decode(bytes, &tags).is_ok()).collect()
    };
    assert_eq!(decodes(&key()), [true, false]);
    assert_eq!(decodes(&other), [false, true]);
}

#[test]
fn a_relay_has_the_number_of_its_place_in_the_servers_list() {
    let mut sim = sim();
    let (relay, other, client) = (at(70, 7_000), at(71, 7_000), at(80, 9_000));
    // The server starts anew with its relays in another order: to it their players are others.
    let starts = [(vec![relay, other], 0), (vec![relay, other], 0), (vec![other, relay], 1)];
    let sender = sim.host("relay", relay.ip());
    for (start, (relays, number)) in starts.into_iter().enumerate() {
        let trunk = at(1, 2 + start as u16);
        let env = sim.host("server", trunk.ip());
        let (inner, sender) = (env.clone(), sender.clone());
        let receiving = async move {
            let options = UdpOptions::default();
            let mut from = sender.bind_udp(relay, &options).await.unwrap();
            let socket = inner.bind_udp(trunk, &options).await.unwrap();
            let config = PortConfig::new(relays, key());
            let mut port = RelayPort::new(None, socket, &config).unwrap();
            let tag = TrunkTags::new(&key(), None, Direction::ToServer).present();
            let mut one = datagram(&from, trunk, &[1; 40]);
            assert!(encode(&mut one.packet, client, 1, tag));
            let mut batch = DatagramBatch::new(1);
            assert!(batch.push(one).is_ok());
            poll_fn(|cx| from.poll_send(cx, &mut batch)).await.unwrap();
            let mut heard = DatagramBatch::new(1);
            while heard.is_empty() {
                poll_fn(|cx| port.poll_recv(cx, &mut heard)).await.unwrap();
            }
            assert_eq!(heard.pop().unwrap().peer, relayed_address(client, number));
        };
        sim.block_on(&env, Duration::from_secs(20), receiving).unwrap();
    }
}
