//! Datagrams over topologies: shared links, queues, boxes that translate, routes that change.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::link::{Conditions, FaultKind};
use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_provider::{NetworkProvider, TimeProvider, UdpOptions, UdpSocket};
use twinspan_sim::topology::{
    Latency, LinkSpec, LinkState, LossModel, NatConfig, Queue, Topology, TopologyError,
};
use twinspan_sim::{Sim, SimConfig, SimEnv, SimUdp};

use crate::echo::{MS, ip};

const PORT: u16 = 5_000;
/// Headers of IPv4 and UDP.
const HEADERS: u32 = 28;

/// A socket that is used from outside.
struct Post {
    env: SimEnv,
    socket: Rc<RefCell<SimUdp>>,
}

/// A datagram that came: when, from whom, what.
type Letter = (Timestamp, SocketAddr, Vec<u8>);

impl Post {
    fn new(sim: &mut Sim, ip: IpAddr) -> Self {
        let env = sim.host("post", ip);
        let inner = env.clone();
        let bound = sim.block_on(&env, MS, async move {
            inner.bind_udp(SocketAddr::new(ip, PORT), &UdpOptions::default()).await
        });
        let socket = Rc::new(RefCell::new(bound.unwrap().unwrap()));
        Self { env, socket }
    }

    fn send(&self, sim: &mut Sim, to: SocketAddr, bytes: &[u8]) {
        let (socket, bytes) = (Rc::clone(&self.socket), bytes.to_vec());
        let at = self.env.now();
        let sent = sim.block_on(&self.env, MS, async move {
            let mut batch = DatagramBatch::new(1);
            let mut packet = socket.borrow().pool().take().unwrap();
            assert!(packet.fill(&bytes));
            batch.push(Datagram { peer: to, at, packet }).unwrap();
            poll_fn(|cx| socket.borrow_mut().poll_send(cx, &mut batch)).await.unwrap()
        });
        assert_eq!(sent, Some(1));
    }

    fn received(&self, sim: &mut Sim) -> Vec<Letter> {
        let socket = Rc::clone(&self.socket);
        let taken = sim.block_on(&self.env, MS, async move {
            let mut batch = DatagramBatch::new(10_000);
            poll_fn(|cx| {
                while let Poll::Ready(Ok(1..)) = socket.borrow_mut().poll_recv(cx, &mut batch) {}
                Poll::Ready(())
            })
            .await;
            let mut letters = Vec::new();
            while let Some(datagram) = batch.pop() {
                letters.push((datagram.at, datagram.peer, datagram.packet.to_vec()));
            }
            letters
        });
        taken.unwrap()
    }
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::new(ip(last), PORT)
}

fn inner(last: u8) -> IpAddr {
    [192, 168, 0, last].into()
}

fn outer() -> IpAddr {
    [203, 0, 113, 7].into()
}

fn config() -> SimConfig {
    SimConfig { seed: 11, short_send: 0.0, ..SimConfig::default() }
}

/// Hosts 1 to 3 on a router, and host 9 behind a link that they share.
fn shared(spec: LinkSpec) -> Sim {
    let mut sim = Sim::new(config());
    let mut topology = Topology::new().router("hub").host("far", ip(9));
    for last in 1..4 {
        let name = format!("h{last}");
        topology = topology.host(&name, ip(last)).cable(&name, &name, "hub", LinkSpec::CLEAN);
    }
    let back = LinkSpec::CLEAN;
    sim.set_topology(topology.link("up", "hub", "far", spec).link("down", "far", "hub", back))
        .unwrap();
    sim
}

#[test]
fn a_datagram_takes_its_turn_and_the_latency_of_each_link() {
    let mut sim = shared(LinkSpec::rated(100_000, 5 * MS));
    let (one, far) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
    let sent_at = sim.now();
    for _ in 0..2 {
        one.send(&mut sim, at(9), &[7; 100]);
    }
    sim.run_for(20 * MS);
    let came: Vec<_> =
        far.received(&mut sim).iter().map(|letter| letter.0.since(sent_at)).collect();
    // 128 bytes at 100 kB/s are 1.28 ms each; a microsecond is what leaving a host takes.
    let turn = Duration::from_micros(1_280);
    let first = Duration::from_micros(1) + turn + 5 * MS;
    assert_eq!(came, [first, first + turn]);
    let report = sim.link_report("up").unwrap();
    assert_eq!((report.sent, report.sent_bytes, report.delivered), (2, 256, 2));
    assert_eq!((report.waited, report.waited_max), (turn, turn));
}

#[test]
fn hosts_that_share_a_link_share_its_rate_and_its_queue() {
    let queue = Queue { bytes_max: 4_096, ..Queue::DEFAULT };
    let mut sim = shared(LinkSpec { queue, ..LinkSpec::rated(100_000, MS) });
    let posts = [1, 2].map(|last| Post::new(&mut sim, ip(last)));
    let far = Post::new(&mut sim, ip(9));
    // Two hundred kilobytes a second where half fit.
    for _ in 0..100 {
        for post in &posts {
            post.send(&mut sim, at(9), &[1; 1_000 - HEADERS as usize]);
        }
        sim.run_for(10 * MS);
    }
    sim.run_for(100 * MS);
    let came = far.received(&mut sim);
    let from = |last| came.iter().filter(|letter| letter.1 == at(last)).count();
    assert!((100..=106).contains(&came.len()), "{}", came.len());
    assert_eq!(from(1) + from(2), came.len());
    let report = sim.link_report("up").unwrap();
    assert_eq!(report.queue_full as usize, 200 - came.len());
    assert_eq!(report.sent as usize, came.len());
    assert!(report.queue_bytes_high > 3_000 && report.queue_bytes_high <= 4_096);
    assert!(report.waited_max > 20 * MS && report.waited_max < 50 * MS);
    assert_eq!(sim.faults().effect(FaultKind::QueueDrop), report.queue_full);
    assert_eq!(sim.in_flight(), 0);
}

#[test]
fn codel_keeps_waits_short_where_tail_drop_does_not() {
    let waits = |queue| {
        let mut sim = shared(LinkSpec { queue, ..LinkSpec::rated(100_000, MS) });
        let (one, far) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
        // Four per cent too much.
        for _ in 0..3_000 {
            one.send(&mut sim, at(9), &[1; 1_040 - HEADERS as usize]);
            sim.run_for(10 * MS);
        }
        assert!(!far.received(&mut sim).is_empty());
        sim.link_report("up").unwrap()
    };
    let tail = waits(Queue { bytes_max: 64 << 10, ..Queue::DEFAULT });
    let early = waits(Queue::codel(64 << 10));
    assert!(tail.waited_max > 500 * MS && tail.queue_early == 0, "{tail:?}");
    assert!(early.queue_early > 50 && early.queue_full == 0, "{early:?}");
    assert!(early.waited_max < 200 * MS, "{early:?}");
}

#[test]
fn what_is_too_long_is_dropped_and_counted() {
    let mut sim = shared(LinkSpec { mtu: 1_280, ..LinkSpec::CLEAN });
    let (one, far) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
    for len in [1_280 - HEADERS, 1_281 - HEADERS] {
        one.send(&mut sim, at(9), &vec![0; len as usize]);
    }
    sim.run_for(10 * MS);
    assert_eq!(far.received(&mut sim).len(), 1);
    assert_eq!(sim.link_report("up").unwrap().too_long, 1);
}

#[test]
fn loss_copies_damage_and_lag_are_seen_where_they_are_counted() {
    let spec = LinkSpec {
        loss: LossModel::Independent(0.1),
        duplicate: 0.1,
        corrupt: 0.1,
        reorder: 0.1,
        latency: Latency::Uniform { least: MS, most: 5 * MS },
        ..LinkSpec::CLEAN
    };
    let mut sim = shared(spec);
    let (one, far) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
    for number in 0..500_u32 {
        one.send(&mut sim, at(9), &number.to_le_bytes().repeat(10));
        sim.run_for(10 * MS);
    }
    sim.run_for(Duration::from_secs(1));
    let came = far.received(&mut sim);
    let report = sim.link_report("up").unwrap();
    assert_eq!(came.len() as u64, 500 - report.lost + report.duplicated);
    assert_eq!(report.delivered, came.len() as u64);
    let damaged =
        came.iter().filter(|(_, _, bytes)| bytes.chunks(4).any(|chunk| chunk != &bytes[..4]));
    // A copy of what is damaged is damaged alike.
    assert!(damaged.count() as u64 >= report.corrupted);
    for count in [report.lost, report.duplicated, report.corrupted, report.reordered] {
        assert!((25..80).contains(&count), "{report:?}");
    }
    assert_eq!(sim.faults().effect(FaultKind::Loss), report.lost);
    assert_eq!(sim.faults().effect(FaultKind::Duplicate), report.duplicated);
    assert_eq!(sim.in_flight(), 0);
}

/// Hosts 1 and 9 with a short and a long way between.
fn ring() -> Sim {
    let mut sim = Sim::new(config());
    let topology = Topology::new()
        .host("near", ip(1))
        .host("far", ip(9))
        .router("r1")
        .router("r2")
        .router("r3")
        .cable("in", "near", "r1", LinkSpec::CLEAN)
        .cable("out", "r2", "far", LinkSpec::CLEAN)
        .cable("short", "r1", "r2", LinkSpec::delay(MS))
        .cable("long-1", "r1", "r3", LinkSpec::delay(10 * MS))
        .cable("long-2", "r3", "r2", LinkSpec::delay(10 * MS));
    sim.set_topology(topology).unwrap();
    sim
}

#[test]
fn a_cut_link_swallows_and_one_that_is_down_is_gone_around() {
    let mut sim = ring();
    let (near, far) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
    let took = |sim: &mut Sim| {
        let sent_at = sim.now();
        near.send(sim, at(9), b"x");
        sim.run_for(50 * MS);
        far.received(sim).first().map(|letter| letter.0.since(sent_at).as_millis())
    };
    assert_eq!(took(&mut sim), Some(1));
    sim.set_link_state("short", LinkState::Cut).unwrap();
    assert_eq!(took(&mut sim), None);
    sim.set_link_state("short", LinkState::Down).unwrap();
    assert_eq!(took(&mut sim), Some(20));
    sim.set_link_spec("long-1", LinkSpec::delay(3 * MS)).unwrap();
    assert_eq!(took(&mut sim), Some(13));
    sim.set_link_state("short", LinkState::Up).unwrap();
    assert_eq!(took(&mut sim), Some(1));
    assert_eq!(sim.link_report("short").unwrap().cut, 1);
    assert_eq!(sim.faults().effect(FaultKind::Partition), 1);
}

#[test]
fn what_is_on_a_link_when_it_is_cut_does_not_arrive() {
    let mut sim = shared(LinkSpec::delay(100 * MS));
    let (one, far) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
    one.send(&mut sim, at(9), b"x");
    sim.run_for(50 * MS);
    sim.set_link_state("up", LinkState::Cut).unwrap();
    sim.run_for(100 * MS);
    assert_eq!(far.received(&mut sim), []);
    assert_eq!(sim.in_flight(), 0);
}

#[test]
fn pairs_of_hosts_can_be_parted_and_made_worse_as_without_a_topology() {
    let mut sim = shared(LinkSpec::CLEAN);
    let (one, far) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
    sim.partition_one_way(ip(1), ip(9));
    one.send(&mut sim, at(9), b"x");
    sim.run_for(10 * MS);
    assert_eq!(far.received(&mut sim), []);
    sim.heal_all();
    sim.set_link(ip(1), ip(9), Conditions { delay: 30 * MS, ..Conditions::CLEAN });
    one.send(&mut sim, at(9), b"x");
    sim.run_for(10 * MS);
    assert_eq!(far.received(&mut sim), []);
    sim.run_for(30 * MS);
    assert_eq!(far.received(&mut sim).len(), 1);
}

#[test]
fn there_is_no_way_to_whom_the_topology_does_not_name() {
    let mut sim = shared(LinkSpec::CLEAN);
    let posts = [1, 50, 51].map(|last| Post::new(&mut sim, ip(last)));
    posts[0].send(&mut sim, at(50), b"x");
    posts[1].send(&mut sim, at(1), b"x");
    posts[1].send(&mut sim, at(51), b"x");
    sim.run_for(10 * MS);
    let came = posts.map(|post| post.received(&mut sim).len());
    assert_eq!(came, [0, 0, 1], "those outside still have links of their own");
    assert_eq!(sim.faults().effect(FaultKind::Unbound), 2);
}

#[test]
fn a_topology_comes_first_and_once() {
    let mut sim = shared(LinkSpec::CLEAN);
    assert_eq!(sim.set_topology(Topology::new()), Err(TopologyError::Begun));
    let mut sim = Sim::new(config());
    let posts = [1, 2].map(|last| Post::new(&mut sim, ip(last)));
    posts[0].send(&mut sim, at(2), b"x");
    assert_eq!(sim.set_topology(Topology::new()), Err(TopologyError::Begun));
    let unknown = TopologyError::Unknown { name: "x".into() };
    assert_eq!(sim.link_report("x"), Err(unknown.clone()));
    assert_eq!(sim.rebind_nat("x"), Err(unknown));
}

/// A server outside (9) and one more (8); hosts behind a box.
fn home(config_of_box: NatConfig) -> Sim {
    let mut sim = Sim::new(config());
    let topology = Topology::new()
        .host("desk", inner(2))
        .host("sofa", inner(3))
        .router("switch")
        .nat("home", outer(), &["switch"], config_of_box)
        .router("net")
        .host("server", ip(9))
        .host("other", ip(8))
        .cable("desk", "desk", "switch", LinkSpec::CLEAN)
        .cable("sofa", "sofa", "switch", LinkSpec::CLEAN)
        .cable("lan", "switch", "home", LinkSpec::CLEAN)
        .cable("dsl", "home", "net", LinkSpec::delay(10 * MS))
        .cable("server", "server", "net", LinkSpec::CLEAN)
        .cable("other", "other", "net", LinkSpec::CLEAN);
    sim.set_topology(topology).unwrap();
    sim
}

/// The only datagram that came.
fn only(post: &Post, sim: &mut Sim) -> SocketAddr {
    sim.run_for(50 * MS);
    let came = post.received(sim);
    assert_eq!(came.len(), 1, "{came:?}");
    came[0].1
}

#[test]
fn who_is_behind_a_nat_has_its_outer_address_outside() {
    let mut sim = home(NatConfig::default());
    let posts = [inner(2), inner(3), ip(9), ip(8)].map(|ip| Post::new(&mut sim, ip));
    let [desk, sofa, server, other] = &posts;
    desk.send(&mut sim, at(9), b"hello");
    let desk_outside = only(server, &mut sim);
    assert_eq!(desk_outside, SocketAddr::new(outer(), PORT));
    sofa.send(&mut sim, at(9), b"hello");
    let sofa_outside = only(server, &mut sim);
    assert_eq!(sofa_outside, SocketAddr::new(outer(), PORT + 1), "the port is taken");
    server.send(&mut sim, desk_outside, b"welcome");
    assert_eq!(only(desk, &mut sim), at(9));
    // Nobody asked the other server, and inner addresses mean nothing outside.
    other.send(&mut sim, desk_outside, b"spam");
    other.send(&mut sim, SocketAddr::new(inner(2), PORT), b"spam");
    sim.run_for(50 * MS);
    assert_eq!(desk.received(&mut sim), []);
    // At home they reach one another without the box.
    sofa.send(&mut sim, SocketAddr::new(inner(2), PORT), b"hello");
    assert_eq!(only(desk, &mut sim), SocketAddr::new(inner(3), PORT));
    let report = sim.nat_report("home").unwrap();
    assert_eq!((report.mappings, report.passed, report.unsolicited), (2, 3, 2));
}

#[test]
fn a_silent_mapping_ends_and_a_rebound_box_gives_another_port() {
    let mut sim = home(NatConfig::default());
    let (desk, server) = (Post::new(&mut sim, inner(2)), Post::new(&mut sim, ip(9)));
    desk.send(&mut sim, at(9), b"hello");
    let before = only(&server, &mut sim);
    sim.run_for(Duration::from_secs(29));
    server.send(&mut sim, before, b"still there?");
    assert_eq!(only(&desk, &mut sim), at(9));
    sim.run_for(Duration::from_secs(2));
    server.send(&mut sim, before, b"and now?");
    sim.run_for(50 * MS);
    assert_eq!(desk.received(&mut sim), []);
    assert_eq!(sim.nat_report("home").unwrap().expired, 1);
    desk.send(&mut sim, at(9), b"hello");
    assert_eq!(only(&server, &mut sim), before);
    sim.rebind_nat("home").unwrap();
    server.send(&mut sim, before, b"lost");
    sim.run_for(50 * MS);
    assert_eq!(desk.received(&mut sim), []);
    desk.send(&mut sim, at(9), b"me again");
    let after = only(&server, &mut sim);
    assert_eq!(after.ip(), before.ip());
    assert_ne!(after, before);
    server.send(&mut sim, after, b"welcome back");
    assert_eq!(only(&desk, &mut sim), at(9));
    let moved: IpAddr = [203, 0, 113, 8].into();
    sim.readdress_nat("home", moved).unwrap();
    desk.send(&mut sim, at(9), b"moved");
    assert_eq!(only(&server, &mut sim).ip(), moved);
    assert!(matches!(sim.readdress_nat("home", ip(9)), Err(TopologyError::Address { .. })));
}

#[test]
fn a_firewall_lets_in_what_was_asked_for() {
    let mut sim = Sim::new(config());
    let topology = Topology::new()
        .host("inside", ip(1))
        .firewall("wall", &["inside"], NatConfig::default())
        .host("outside", ip(9))
        .cable("in", "inside", "wall", LinkSpec::CLEAN)
        .cable("out", "wall", "outside", LinkSpec::CLEAN);
    sim.set_topology(topology).unwrap();
    let (inside, outside) = (Post::new(&mut sim, ip(1)), Post::new(&mut sim, ip(9)));
    outside.send(&mut sim, at(1), b"let me in");
    sim.run_for(10 * MS);
    assert_eq!(inside.received(&mut sim), []);
    inside.send(&mut sim, at(9), b"hello");
    assert_eq!(only(&outside, &mut sim), at(1));
    outside.send(&mut sim, at(1), b"thanks");
    assert_eq!(only(&inside, &mut sim), at(9));
}

/// The times at which host 1's datagrams came, among those of `others`, and the trace hash.
fn rough(seed: u64, others: u8) -> (Vec<Timestamp>, u64) {
    let spec = LinkSpec {
        loss: LossModel::GilbertElliott {
            good_mean: 300 * MS,
            bad_mean: 100 * MS,
            good_loss: 0.01,
            bad_loss: 0.5,
        },
        latency: Latency::Pareto { least: 5 * MS, shape: 2.0, most: 200 * MS },
        reorder: 0.02,
        duplicate: 0.02,
        ..LinkSpec::CLEAN
    };
    let mut sim = Sim::new(SimConfig { seed, ..config() });
    let mut topology = Topology::new().router("hub").host("far", ip(9));
    for last in 1..=3 {
        let name = format!("h{last}");
        topology = topology.host(&name, ip(last)).cable(&name, &name, "hub", LinkSpec::CLEAN);
    }
    sim.set_topology(topology.cable("up", "hub", "far", spec)).unwrap();
    let posts: Vec<_> = (1..=1 + others).map(|last| Post::new(&mut sim, ip(last))).collect();
    let far = Post::new(&mut sim, ip(9));
    for _ in 0..300 {
        for post in &posts {
            post.send(&mut sim, at(9), b"x");
        }
        sim.run_for(10 * MS);
    }
    sim.run_for(Duration::from_secs(1));
    let came = far.received(&mut sim);
    let of_first = came.iter().filter(|letter| letter.1 == at(1)).map(|letter| letter.0);
    (of_first.collect(), sim.trace_hash())
}

#[test]
fn a_run_over_a_topology_twice_has_one_hash_and_another_seed_another() {
    let (times, hash) = rough(1, 1);
    assert!((200..310).contains(&times.len()));
    assert_eq!(rough(1, 1), (times, hash));
    assert_ne!(rough(2, 1).1, hash);
}

#[test]
fn other_hosts_do_not_change_what_befalls_the_first_on_a_shared_link() {
    assert_eq!(rough(3, 0).0, rough(3, 2).0);
}
