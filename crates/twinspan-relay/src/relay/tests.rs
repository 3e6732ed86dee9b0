//! One datagram at a time: what passes, to whom, and why the rest is dropped.

use core::time::Duration;

use twinspan_core::packet::PacketBuf;
use twinspan_core::random::Stream;
use twinspan_core::steer::Steering;

use super::*;
use crate::key::TrunkKey;
use crate::stats::RelayDrops;

const CLIENT: &str = "203.0.113.9:12345";

fn server(shard: u16) -> SocketAddr {
    ([10, 0, 0, 1], 7_800 + shard).into()
}

fn key() -> TrunkKey {
    TrunkKey::from_bytes([7; 32])
}

struct Bench {
    relay: Relay,
    pool: PacketPool,
}

impl Bench {
    fn new(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let mut config = RelayConfig::new(server(0), key());
        change(&mut config);
        let relay = Relay::new(config, &mut Stream::new(1, "secrets", 0)).unwrap();
        Self { relay, pool: PacketPool::new(64) }
    }

    fn take(&mut self, at_ms: u64, peer: SocketAddr, packet: PacketBuf) {
        let now = Timestamp::START.after(Duration::from_millis(at_ms));
        let mut batch = DatagramBatch::new(1);
        assert!(batch.push(Datagram { peer, at: now, packet }).is_ok());
        self.relay.handle_datagrams(now, &mut batch);
        assert!(batch.is_empty());
    }

    fn client_sends(&mut self, at_ms: u64, client: &str, bytes: &[u8]) {
        let mut packet = self.pool.take().unwrap();
        assert!(packet.fill(bytes));
        self.take(at_ms, client.parse().unwrap(), packet);
    }

    fn server_sends(&mut self, at_ms: u64, shard: u16, client: &str, bytes: &[u8]) {
        let mut packet = self.pool.take().unwrap();
        assert!(packet.fill(bytes));
        let tag = TrunkTags::new(&key(), None, Direction::ToRelay).present();
        assert!(encode(&mut packet, client.parse().unwrap(), 32, tag));
        self.take(at_ms, server(shard), packet);
    }

    /// What it has to send: to whom, and the bytes.
    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        let mut out = DatagramBatch::new(8);
        loop {
            self.relay.poll_transmit(Timestamp::START, &self.pool, &mut out);
            if out.is_empty() {
                return sent;
            }
            while let Some(datagram) = out.pop() {
                sent.push((datagram.peer, datagram.packet.to_vec()));
            }
        }
    }

    fn drops(&self) -> RelayDrops {
        self.relay.stats.drops
    }
}

fn sealed(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x42; len];
    bytes[5] = 0;
    bytes
}

fn hello() -> Vec<u8> {
    let mut bytes = vec![0; 1_200];
    bytes[4..7].copy_from_slice(&[1, 1, 1]);
    bytes
}

#[test]
fn a_datagram_gets_its_trailer_and_loses_it() {
    let mut bench = Bench::new(|_| {});
    bench.client_sends(0, CLIENT, &sealed(50));
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    let (peer, bytes) = &sent[0];
    assert_eq!((*peer, bytes.len()), (server(0), 64 + 16));
    let tags = TrunkTags::new(&key(), None, Direction::ToServer);
    assert_eq!(decode(bytes, &tags), Ok((CLIENT.parse().unwrap(), 50)));
    bench.server_sends(1, 0, CLIENT, &sealed(300));
    assert_eq!(bench.sent(), [(CLIENT.parse().unwrap(), sealed(300))]);
    assert_eq!(bench.pool.outstanding(), 0);
}

#[test]
fn what_no_client_sends_is_dropped_by_cause() {
    let mut bench = Bench::new(|_| {});
    bench.client_sends(0, CLIENT, &[]);
    bench.client_sends(0, CLIENT, &sealed(29));
    assert_eq!(bench.drops().short, 2);
    bench.client_sends(0, CLIENT, &sealed(1_501));
    assert_eq!(bench.drops().too_long, 1);
    bench.client_sends(0, CLIENT, &hello()[..1_199]);
    let mut flags = hello();
    flags[5] = 0x41;
    bench.client_sends(0, CLIENT, &flags);
    assert_eq!(bench.drops().bad_hello, 2, "a short request would be amplified");
    bench.client_sends(0, "[fe80::1%3]:99", &hello());
    assert_eq!(bench.drops().bad_client, 1);
    assert_eq!(bench.drops().total(), 6);
    assert_eq!(bench.sent(), []);
    bench.client_sends(0, CLIENT, &hello());
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn an_answer_to_a_handshake_makes_no_link() {
    let mut bench = Bench::new(|_| {});
    let now = Timestamp::START;
    bench.server_sends(0, 0, CLIENT, &hello()[..62]);
    assert_eq!(bench.relay.stats(now).links, 0);
    bench.server_sends(0, 0, CLIENT, &sealed(62));
    assert_eq!(bench.relay.stats(now).links, 1);
    assert_eq!(bench.sent().len(), 2, "both are handed on");
}

#[test]
fn a_link_that_is_not_answered_any_more_ends() {
    let mut bench = Bench::new(|config| config.link_idle = Duration::from_secs(5));
    bench.server_sends(0, 0, CLIENT, &sealed(62));
    bench.client_sends(4_900, CLIENT, &sealed(40));
    assert_eq!(bench.relay.stats.strays, 0);
    bench.client_sends(5_000, CLIENT, &sealed(40));
    assert_eq!(bench.relay.stats.strays, 1);
    let now = Timestamp::START.after(Duration::from_secs(5));
    assert_eq!(bench.relay.stats(now).links, 0);
}

#[test]
fn each_shard_gets_what_is_steered_to_it() {
    let steering = Steering::new(0x5eed, 4);
    let mut bench = Bench::new(|config| {
        config.servers = (0..4).map(server).collect();
        config.steering = Some(steering);
    });
    let mut by_shard = [0; 4];
    for id in 1_u32..=40 {
        let mut bytes = sealed(40);
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        bench.client_sends(0, CLIENT, &bytes);
        let sent = bench.sent();
        let shard = steering.shard_of_id(id);
        assert_eq!(sent[0].0, server(shard));
        by_shard[usize::from(shard)] += 1;
    }
    assert!(by_shard.iter().all(|count| *count > 0));
    // All shards' answers are taken.
    for shard in 0..4 {
        bench.server_sends(1, shard, CLIENT, &sealed(62));
    }
    assert_eq!(bench.sent().len(), 4);
}

#[test]
fn full_queues_drop_and_count() {
    let mut bench = Bench::new(|config| config.queue_max = 3);
    for _ in 0..5 {
        bench.client_sends(0, CLIENT, &sealed(40));
        bench.server_sends(0, 0, CLIENT, &sealed(40));
    }
    let drops = bench.drops();
    assert_eq!((drops.to_server_full, drops.to_clients_full), (2, 2));
    assert_eq!(bench.sent().len(), 6);
    assert_eq!(bench.pool.outstanding(), 0);
}

#[test]
fn a_trunk_datagram_of_another_key_or_form_is_dropped_by_cause() {
    let mut bench = Bench::new(|_| {});
    let tags = TrunkTags::new(&key(), None, Direction::ToServer);
    let mut packet = bench.pool.take().unwrap();
    assert!(packet.fill(&sealed(40)));
    assert!(encode(&mut packet, CLIENT.parse().unwrap(), 1, tags.present()));
    bench.take(0, server(0), packet);
    assert_eq!(bench.drops().bad_tag, 1, "that is the other direction's");
    let tags = TrunkTags::new(&key(), None, Direction::ToRelay);
    let mut packet = bench.pool.take().unwrap();
    assert!(packet.fill(&sealed(40)));
    assert!(encode(&mut packet, CLIENT.parse().unwrap(), 1, tags.present()));
    packet[40] = 224;
    bench.take(0, server(0), packet);
    assert_eq!(bench.drops().bad_frame, 1, "nobody is reached by multicast");
    assert_eq!(bench.sent(), []);
}

#[test]
fn replaced_keys_are_sent_and_the_one_before_is_still_taken() {
    let mut bench = Bench::new(|_| {});
    let present = TrunkKey::from_bytes([8; 32]);
    bench.relay.replace_keys(TrunkKeys { present: present.clone(), before: Some(key()) });
    bench.client_sends(0, CLIENT, &sealed(50));
    let sent = bench.sent();
    let tags = TrunkTags::new(&present, None, Direction::ToServer);
    assert_eq!(decode(&sent[0].1, &tags), Ok((CLIENT.parse().unwrap(), 50)));
    // The server has not changed yet.
    bench.server_sends(1, 0, CLIENT, &sealed(300));
    assert_eq!(bench.sent().len(), 1);
    bench.relay.replace_keys(present.into());
    bench.server_sends(2, 0, CLIENT, &sealed(300));
    assert_eq!((bench.sent().len(), bench.drops().bad_tag), (0, 1), "the old key has ended");
}
