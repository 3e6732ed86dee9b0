//! Topics of one process, and protocols, at one port.

use std::io;
use std::net::SocketAddr;

use twinspan_hub::{BuildError, Hub, HubBuilder, TopicKey, Transport};

use crate::{free, met, there_and_back};

fn builder(address: SocketAddr, scheme: &str, topic: &str) -> HubBuilder<u64> {
    Hub::<u64>::builder(format!("{scheme}://{address}/{topic}"))
}

/// Two hubs of a topic, one at each end of the road, both told what a builder is told.
struct Pair {
    here: Hub<u64>,
    there: Hub<u64>,
}

impl Pair {
    fn new(builder: impl Fn() -> HubBuilder<u64>) -> Self {
        let here = builder().listen().build().unwrap();
        let there = builder().connect().build().unwrap();
        met(&here, 1);
        met(&there, 1);
        Self { here, there }
    }

    /// Numbers there and back, and the listener.
    fn used(self) -> Hub<u64> {
        there_and_back(&self.here, self.there);
        self.here
    }
}

fn shares_with(hub: &Hub<u64>, others: usize) {
    let text = hub.transport().to_string();
    let told = format!("it shares the port with {others} more of this process");
    assert_eq!(text.contains(&told), others > 0, "{text}");
}

/// Whether building fails because the port, or the topic at it, is taken.
fn is_taken(built: Result<Hub<u64>, BuildError>) -> bool {
    matches!(built, Err(BuildError::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrInUse)
}

#[test]
fn topics_and_protocols_share_a_port_and_each_hears_its_own() {
    let address = free();
    let key = TopicKey::from_bytes([7; 32]);
    let imu = Pair::new(|| builder(address, "udp", "imu"));
    let joints = Pair::new(|| builder(address, "udp", "joints").reliable());
    let secret = Pair::new(|| builder(address, "udp", "secret").seal(key.clone()));
    let camera = Pair::new(|| builder(address, "quic", "camera"));
    let map = Pair::new(|| builder(address, "quic", "map"));
    let state = Pair::new(|| builder(address, "tcp", "state"));
    for (pair, others) in [(&imu, 0), (&joints, 1), (&secret, 2), (&camera, 3), (&map, 0)] {
        shares_with(&pair.here, others);
    }
    assert!(is_taken(builder(address, "udp", "imu").listen().build()));
    assert!(is_taken(builder(address, "quic", "map").listen().build()));
    let imu = imu.used();
    let others = [joints, secret, camera, map, state].map(Pair::used);
    // The first one goes, and with it the place that all others were bound beside.
    drop(imu);
    let mut hubs: Vec<_> = others.into();
    for topic in ["imu", "odometry"] {
        hubs.push(Pair::new(|| builder(address, "udp", topic)).used());
    }
    let names = ["joints", "secret", "camera", "map", "state", "imu", "odometry"];
    let schemes = ["udp", "udp", "quic", "quic", "tcp", "udp", "udp"];
    for ((hub, scheme), topic) in hubs.iter().zip(schemes).zip(names) {
        let again = match topic {
            "joints" => builder(address, scheme, topic).reliable(),
            "secret" => builder(address, scheme, topic).seal(key.clone()),
            _ => builder(address, scheme, topic),
        };
        let there = again.connect().build().unwrap();
        met(hub, 1);
        met(&there, 1);
        there_and_back(hub, there);
    }
    drop(hubs);
    // All have left: the port is as if nobody had ever been there.
    shares_with(&Pair::new(|| builder(address, "udp", "map")).used(), 0);
}

#[test]
fn a_completion_ring_has_a_place_at_a_port_too() {
    let address = free();
    let by = |road: Transport, topic: &'static str| {
        move || builder(address, "udp", topic).transport(road)
    };
    if let Err(error @ BuildError::NoRing { .. }) = by(Transport::IoUring, "a")().listen().build() {
        println!("skipped: {error}");
        return;
    }
    let first = Pair::new(by(Transport::IoUring, "a"));
    let second = Pair::new(by(Transport::BatchUdp, "b"));
    let third = Pair::new(by(Transport::IoUring, "c"));
    let hubs = [first, second, third].map(Pair::used);
    let [first, second, third] = hubs;
    drop(first);
    let fourth = Pair::new(by(Transport::BatchUdp, "d"));
    let hubs = [
        Pair { here: second, there: by(Transport::BatchUdp, "b")().connect().build().unwrap() },
        fourth,
    ];
    for Pair { here, there } in hubs {
        met(&here, 1);
        met(&there, 1);
        there_and_back(&here, there);
    }
    drop(third);
}

#[test]
fn topics_of_every_road_share_a_listener() {
    for road in [None, Some(Transport::BatchUdp), Some(Transport::Quic), Some(Transport::Tcp)] {
        let address = free();
        let by = |topic: &'static str| {
            move || match road {
                Some(road) => builder(address, "hub", topic).transport(road),
                None => builder(address, "hub", topic),
            }
        };
        let first = Pair::new(by("imu"));
        let second = Pair::new(by("camera"));
        let text = second.here.transport().to_string();
        assert!(text.contains(&format!("it shares the listener at {address}")), "{text}");
        let udp = Pair::new(|| builder(address, "udp", "plain"));
        assert!(is_taken(by("imu")().listen().build()));
        drop(first.used());
        second.used();
        udp.used();
    }
}

#[test]
fn who_asks_for_a_topic_that_is_not_there_is_told_what_is() {
    let address = free();
    let _imu = builder(address, "udp", "imu").listen().build().unwrap();
    let _joints = builder(address, "udp", "joints").listen().build().unwrap();
    let error = builder(address, "udp", "camera").connect().build().map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("imu") || text.contains("joints"), "{text}");
}
