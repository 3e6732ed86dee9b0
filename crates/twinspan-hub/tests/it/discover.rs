//! Hubs on a bare topic over a network find each other.

use std::net::SocketAddr;
use std::time::Duration;

use twinspan_hub::{
    BuildError, Bytes, Hub, HubBuilder, JoinError, Payload, Reliability, Roles, Transport,
};

use crate::{there_and_back, topic};

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

#[test]
fn peers_that_are_given_are_gone_to() {
    for road in ROADS {
        // Topics with one name in two places of the machine would find each other anyway: here it is
        // one alone that is given, and which has another topic's name on the machine.
        let topic = topic();
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let here = builder::<u64>(&topic, road).bind(free).build().unwrap();
        let there = builder::<u64>(&topic, road).peers([free]).build().unwrap();
        let text = there.transport().to_string();
        assert!(!text.contains("refuses"), "{text}");
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
