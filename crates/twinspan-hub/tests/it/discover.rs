//! Hubs on a bare topic over a network find each other.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_hub::{
    BuildError, Bytes, Hub, HubBuilder, JoinError, Payload, Reliability, Roles, Transport, explain,
};

use crate::{free, there_and_back, topic};

const PATIENCE: Duration = Duration::from_secs(30);
const ROADS: [Transport; 3] = [Transport::BatchUdp, Transport::Tcp, Transport::Quic];

fn builder<T: Payload>(topic: &str, road: Transport) -> HubBuilder<T> {
    Hub::builder(topic).transport(road).reliable()
}

#[test]
fn two_on_a_bare_topic_find_each_other_on_every_road() {
    for road in ROADS {
        let topic = topic();
        let here = builder::<u64>(&topic, road).build().unwrap();
        let there = builder::<u64>(&topic, road).build().unwrap();
        assert_eq!(there.transport().transport, road);
        let text = there.transport().to_string();
        assert!(text.contains("it listens at 127.0.0.1:"), "{text}");
        assert!(text.contains("1 others of the topic were found"), "{text}");
        assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
        there_and_back(&here, there);
    }
}

#[test]
fn all_on_a_bare_topic_hear_each_other() {
    for road in ROADS {
        let topic = topic();
        let hubs: Vec<_> = (0..4).map(|_| builder::<u32>(&topic, road).build().unwrap()).collect();
        for hub in &hubs {
            assert!(hub.wait_for_subscribers(3, PATIENCE), "{road}");
        }
        for (value, hub) in (0..).zip(&hubs) {
            hub.publish(&value).unwrap();
        }
        for (own, hub) in (0..).zip(&hubs) {
            let mut heard: Vec<u32> =
                (0..3).map(|_| hub.recv_timeout(PATIENCE).unwrap().unwrap()).collect();
            heard.sort_unstable();
            let others: Vec<u32> = (0..4).filter(|value| *value != own).collect();
            assert_eq!(heard, others, "{road}");
        }
    }
}

#[test]
fn who_goes_is_missed_and_who_comes_again_is_found_again() {
    for road in ROADS {
        let topic = topic();
        let here = builder::<u64>(&topic, road).build().unwrap();
        for round in 0..3 {
            let there = builder::<u64>(&topic, road).build().unwrap();
            assert!(there.wait_for_subscribers(1, PATIENCE), "{road}");
            there.publish(&round).unwrap();
            assert_eq!(here.recv_timeout(PATIENCE).unwrap(), Some(round), "{road}");
            drop(there);
            let end = std::time::Instant::now() + PATIENCE;
            while here.subscribers() > 0 {
                assert!(std::time::Instant::now() < end, "{road}: it is still there");
                std::thread::yield_now();
            }
        }
    }
}

/// One that nobody finds.
fn alone<T: Payload>(topic: &str, road: Transport) -> HubBuilder<T> {
    builder(topic, road).peers_only()
}

#[test]
fn each_peer_that_is_given_is_judged_by_itself() {
    for road in ROADS {
        let topic = topic();
        let (at, own, other_at) = (free(), free(), free());
        let _here = alone::<u64>(&topic, road).bind(at).build().unwrap();
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent_at = silent.local_addr().unwrap();
        let there = alone::<u64>(&topic, road).bind(own).peers([at, own, silent_at]).build();
        let there = there.unwrap();
        let text = there.transport().to_string();
        let of = |address: SocketAddr| -> Vec<&str> {
            let address = address.to_string();
            let of = |line: &&str| line.contains(&address) && line.contains("answered yet");
            text.split(['\n', ';']).filter(of).collect()
        };
        assert_eq!((of(silent_at).len(), of(own).len()), (1, 0), "{road}: {text}");
        assert!(there.wait_for_subscribers(1, PATIENCE));
        // Who answers well hides nobody who refuses. A busy machine may answer too late to be told.
        let _other = alone::<Bytes>(&topic, road).bind(other_at).build().unwrap();
        let build = || alone::<u64>(&topic, road).peers([at, other_at]).build();
        let error = (0..20).find_map(|_| build().err());
        assert!(matches!(error, Some(BuildError::AnotherType { .. })), "{road}: {error:?}");
    }
}

#[test]
fn peers_of_both_families_are_gone_to_from_one_hub() {
    for road in ROADS {
        let topic = topic();
        let port = free().port();
        let [v4, v6] = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        let [v4, v6] = [v4, v6].map(|text| text.parse::<SocketAddr>().unwrap());
        let [here, there] =
            [v4, v6].map(|own| alone::<u64>(&topic, road).bind(own).build().unwrap());
        let any = "[::]:0".parse().unwrap();
        let both = alone::<u64>(&topic, road).bind(any).peers([v4, v6]).build().unwrap();
        assert!(both.wait_for_subscribers(2, PATIENCE), "{road}: {}", both.transport());
        both.publish(&7).unwrap();
        for hub in [here, there] {
            assert_eq!(hub.recv_timeout(PATIENCE).unwrap(), Some(7), "{road}");
        }
    }
}

#[test]
fn peers_on_other_machines_are_gone_to_from_a_socket_that_reaches_them() {
    let topic = topic();
    // An address that documents have, and nobody.
    let far = SocketAddr::from(([192, 0, 2, 1], 9));
    let hub = alone::<u64>(&topic, Transport::BatchUdp).peers([far]).build().unwrap();
    let text = hub.transport().to_string();
    assert!(text.contains("it listens at 0.0.0.0:"), "{text}");
    assert!(text.contains("nobody at 192.0.2.1:9 has answered yet"), "{text}");
    let bound = alone::<u64>(&topic, Transport::BatchUdp).bind(([127, 0, 0, 1], 0).into());
    let error = bound.peers([far]).build().map(|_| ()).unwrap_err();
    assert!(matches!(error, BuildError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("192.0.2.1:9 cannot be reached from 127.0.0.1"), "{error}");
}

#[test]
fn peers_that_are_given_are_gone_to() {
    for road in ROADS {
        let (topic, free) = (topic(), free());
        let here = alone(&topic, road).bind(free).build().unwrap();
        // Nobody would find it by its announcement.
        assert_eq!(explain(&topic.parse().unwrap()).unwrap().found, []);
        let there = alone(&topic, road).peers([free]).build().unwrap();
        let text = there.transport().to_string();
        assert!(text.contains("speaks with peers that are given alone"), "{text}");
        assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
        there_and_back(&here, there);
    }
}

#[test]
fn a_topic_that_carries_something_else_is_refused_with_both_named() {
    for road in ROADS {
        let topic = topic();
        let _here = builder::<u64>(&topic, road).build().unwrap();
        let error = builder::<Bytes>(&topic, road).build().map(|_| ()).unwrap_err();
        assert!(matches!(error, BuildError::AnotherType { .. }), "{road}: {error}");
        assert!(error.to_string().contains("u64 of 8 bytes"), "{error}");
        let other = builder::<u64>(&topic, road).reliability(Reliability::BestEffort);
        let error = other.build().map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("it is reliable"), "{road}: {error}");
    }
}

#[test]
fn who_is_on_another_road_is_told_of() {
    let topic = topic();
    let _here = builder::<u64>(&topic, Transport::Tcp).build().unwrap();
    let there = builder::<u64>(&topic, Transport::BatchUdp).build().unwrap();
    let text = there.transport().to_string();
    assert!(text.contains("1 on other roads, which it does not hear"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let topic = topic();
    let many = (1..100).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    let built = builder::<u64>(&topic, Transport::Tcp).peers(many).build();
    assert!(matches!(built, Err(BuildError::Setting { setting: "the number of peers", .. })));
    let built = builder::<u64>(&topic, Transport::Tcp).listen().build();
    assert!(matches!(built, Err(BuildError::Setting { setting: "listen or connect", .. })));
    let built = Hub::<u64>::builder("udp://127.0.0.1:9").peers([([10, 0, 0, 1], 1).into()]).build();
    assert!(matches!(built, Err(BuildError::Setting { setting: "peers or bind", .. })));
    let full = || builder::<u64>(&topic, Transport::Tcp).roles(Roles::Publisher).build().unwrap();
    let hubs: Vec<_> = (0..64).map(|_| full()).collect();
    let built = builder::<u64>(&topic, Transport::Tcp).build();
    assert!(matches!(built, Err(BuildError::Join(JoinError::Full(_)))));
    drop(hubs);
}
