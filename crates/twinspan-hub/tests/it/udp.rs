//! Hubs over UDP on loopback.

use std::time::Duration;

use futures_util::StreamExt;
use twinspan_hub::{
    BuildError, Bytes, Hub, HubBuilder, Payload, Policy, PublishError, Reliability, Roles, Serde,
    Transport, Wait,
};

use crate::topic;

const PATIENCE: Duration = Duration::from_secs(30);

/// An endpoint on loopback that no other test has.
fn endpoint() -> String {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("udp://127.0.0.1:{port}/{}", topic())
}

fn pair_of<T: Payload>(change: impl Fn(HubBuilder<T>) -> HubBuilder<T>) -> (Hub<T>, Hub<T>) {
    let endpoint = endpoint();
    let here = change(Hub::builder(&endpoint)).listen().build().unwrap();
    let there = change(Hub::builder(&endpoint)).connect().build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    (here, there)
}

fn next<T: Payload>(hub: &Hub<T>) -> T {
    hub.recv_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn messages_go_both_ways_in_all_forms() {
    for reliability in [Reliability::BestEffort, Reliability::Reliable] {
        let (here, there) = pair_of::<u64>(|hub| hub.reliability(reliability));
        here.publish(&7).unwrap();
        assert_eq!(next(&there), 7);
        there.publish(&8).unwrap();
        let message = here.recv_timeout_message(PATIENCE).unwrap().unwrap();
        assert_eq!((message.value, message.number, message.lost), (8, 0, 0));
        assert_eq!((here.subscribers(), here.publishers()), (1, 1));
        let (here, there) = pair_of::<Serde<String>>(|hub| hub.reliability(reliability));
        here.publish(&Serde("hello".into())).unwrap();
        assert_eq!(next(&there).0, "hello");
        let (here, there) = pair_of::<Bytes>(|hub| hub.reliability(reliability));
        for length in [0, 1, 1_160, 1_161, 5_000, 65_536] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            here.publish_bytes(&bytes).unwrap();
            assert_eq!(next(&there).0, bytes, "{length}");
        }
        let error = here.publish_bytes(&[0; 65_537]).unwrap_err();
        assert!(matches!(error, PublishError::Road(_)), "{error}");
        let mut loan = here.loan_bytes(20_000).unwrap();
        loan.fill(5);
        loan.publish().unwrap();
        assert_eq!(*there.recv_bytes().unwrap(), [5; 20_000][..]);
    }
}

#[test]
fn a_reliable_topic_loses_nothing_on_a_bad_network() {
    let (here, there) = pair_of::<u64>(|hub| hub.reliable().injected_loss(0.05));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..50_000 {
                here.publish(&value).unwrap();
            }
            here.flush().unwrap();
        });
        for value in 0..50_000 {
            assert_eq!(next(&there), value);
        }
    });
    assert_eq!((there.stats().lost, there.stats().received), (0, 50_000));
}

#[test]
fn best_effort_counts_what_it_loses_exactly() {
    let (here, there) = pair_of::<u64>(|hub| hub.injected_loss(0.1));
    let thread = std::thread::spawn(move || {
        for value in 0..20_000_u64 {
            here.publish(&value).unwrap();
        }
        here.flush().unwrap();
        here
    });
    let (mut taken, mut lost, mut newest) = (0, 0, None);
    while taken + there.stats().lost < 20_000 {
        if let Some(message) = there.recv_timeout_message(Duration::from_millis(5)).unwrap() {
            assert!(newest < Some(message.value), "in order, and none twice");
            newest = Some(message.value);
            taken += 1;
            lost += message.lost;
        }
    }
    assert_eq!(taken + there.stats().lost, 20_000);
    assert!(lost > 0 && lost <= there.stats().lost);
    drop(thread.join().unwrap());
}

#[test]
fn one_listener_serves_many() {
    let endpoint = endpoint();
    let here = Hub::<u32>::builder(&endpoint).reliable().listen().build().unwrap();
    let there: Vec<_> = (0..5)
        .map(|_| Hub::<u32>::builder(&endpoint).reliable().connect().build().unwrap())
        .collect();
    assert!(here.wait_for_subscribers(5, PATIENCE));
    let values: Vec<u32> = (0..1_000).collect();
    assert_eq!(here.publish_all(&values), Ok(1_000));
    for hub in &there {
        assert_eq!((0..1_000).map(|_| next(hub)).collect::<Vec<_>>(), values);
    }
    for hub in &there {
        hub.publish(&7).unwrap();
        assert_eq!(next(&here), 7);
    }
}

#[test]
fn who_joins_late_gets_the_last_messages() {
    for reliability in [Reliability::BestEffort, Reliability::Reliable] {
        let endpoint = endpoint();
        let hub = || Hub::<u64>::builder(&endpoint).history(3).reliability(reliability);
        let here = hub().listen().build().unwrap();
        for value in 0..10 {
            here.publish(&value).unwrap();
        }
        let there = hub().connect().build().unwrap();
        let first = there.recv_timeout_message(PATIENCE).unwrap().unwrap();
        assert_eq!((first.value, first.number, first.lost), (7, 7, 0));
        assert_eq!((next(&there), next(&there)), (8, 9));
        here.publish(&10).unwrap();
        assert_eq!(next(&there), 10);
    }
}

#[test]
fn what_was_published_last_is_delivered() {
    let (here, there) = pair_of::<u64>(|hub| hub.reliable().injected_loss(0.2));
    for value in 0..500 {
        here.publish(&value).unwrap();
    }
    let gone = std::thread::spawn(move || drop(here));
    for value in 0..500 {
        assert_eq!(next(&there), value);
    }
    gone.join().unwrap();
}

#[test]
fn a_restarted_listener_is_found_again() {
    let endpoint = endpoint();
    let hub = || Hub::<u64>::builder(&endpoint).reliable();
    let here = hub().listen().build().unwrap();
    let there = hub().connect().build().unwrap();
    assert!(there.wait_for_subscribers(1, PATIENCE));
    drop(here);
    while there.publishers() > 0 {
        assert_eq!(there.try_recv(), Ok(None));
    }
    assert_eq!(there.stats().ended, 0, "it said goodbye");
    let here = hub().listen().build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    here.publish(&3).unwrap();
    assert_eq!(next(&there), 3);
}

#[test]
fn whoever_comes_first_waits_for_the_other() {
    let endpoint = endpoint();
    let there = Hub::<u64>::builder(&endpoint).connect().build().unwrap();
    let text = there.transport().to_string();
    assert!(text.contains("has answered yet; it goes on trying"), "{text}");
    let here = Hub::<u64>::new(&endpoint).unwrap();
    assert!(here.transport().to_string().contains("it listens: the host is this machine"));
    assert!(there.wait_for_subscribers(1, PATIENCE));
    there.publish(&3).unwrap();
    assert_eq!(next(&here), 3);
    // Whoever says nothing connects where somebody listens.
    let third = Hub::<u64>::new(&endpoint).unwrap();
    assert!(third.transport().to_string().contains("somebody listens there already"));
    third.publish(&4).unwrap();
    assert_eq!(next(&here), 4);
}

#[test]
fn what_does_not_agree_is_refused_with_the_reason() {
    let endpoint = endpoint();
    let _here = Hub::<[f32; 4]>::builder(&endpoint).listen().build().unwrap();
    let error = Hub::<[f32; 3]>::builder(&endpoint).connect().build().unwrap_err();
    assert!(matches!(error, BuildError::AnotherType { .. }), "{error}");
    assert!(error.to_string().contains("carries [f32; 4] of 16 bytes aligned to 4"), "{error}");
    let error = Hub::<[f32; 4]>::builder(&endpoint).connect().reliable().build().unwrap_err();
    assert!(error.to_string().contains("it is best effort: say the same"), "{error}");
    let error = Hub::<[f32; 4]>::builder(format!("{endpoint}/x")).connect().build().unwrap_err();
    assert!(error.to_string().contains("use one topic at both ends"), "{error}");
    let error = Hub::<[f32; 4]>::builder(&endpoint).listen().build().unwrap_err();
    assert!(matches!(error, BuildError::Bind { .. }), "{error}");
    for (hub, part) in [
        (Hub::<u8>::builder(&endpoint).batch_size(0), "batch_size is 0: set it to 1 to 256"),
        (Hub::<u8>::builder(&endpoint).datagram_bytes(100), "datagram_bytes is 100"),
        (Hub::<u8>::builder(&endpoint).core(100_000), "core is 100000"),
        (Hub::<u8>::builder(&endpoint).injected_loss(2.0), "injected_loss is 2"),
        (Hub::<u8>::builder("udp://192.0.2.1:9").listen(), "cannot bind 192.0.2.1:9"),
    ] {
        let error = hub.build().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn every_wait_gets_messages() {
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Block] {
        let (here, there) = pair_of::<u64>(|hub| hub.wait(wait));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..300 {
                    let value = here.recv().unwrap();
                    here.publish(&(value + 1)).unwrap();
                }
            });
            for value in 0..300 {
                there.publish(&value).unwrap();
                assert_eq!(there.recv().unwrap(), value + 1);
            }
        });
    }
}

#[test]
fn tasks_wait_on_any_runtime() {
    let (here, there) = pair_of::<u64>(|hub| hub);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let echo = tokio::spawn(async move {
            for value in 0..200 {
                assert_eq!(there.recv_async().await, Ok(value));
                there.publish(&(value + 1_000)).unwrap();
            }
            there
        });
        let mut answers = here.stream();
        for value in 0..200 {
            here.publish(&value).unwrap();
            assert_eq!(answers.next().await, Some(Ok(value + 1_000)));
        }
        drop(echo.await.unwrap());
    });
}

#[test]
fn an_armed_descriptor_becomes_readable() {
    let (here, there) = pair_of::<u64>(|hub| hub);
    assert!(there.arm());
    here.publish(&9).unwrap();
    twinspan_net::shm::sleep_on(there.fd().unwrap(), None);
    assert_eq!(there.try_recv(), Ok(Some(9)));
}

#[test]
fn a_full_subscriber_holds_a_reliable_publisher_back() {
    let endpoint = endpoint();
    let hub = || Hub::<[u8; 1_000]>::builder(&endpoint).reliable();
    let timeout = Duration::from_millis(200);
    let here = hub().listen().publish_timeout(timeout).build().unwrap();
    let there = hub().connect().policy(Policy::Overwrite).build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE));
    let mut published = 0_u64;
    let error = loop {
        match here.publish(&[published as u8; 1_000]) {
            Ok(_) => published += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("has taken nothing for 200ms"), "{error}");
    assert!(published > 1_000, "{published}");
    for number in 0..published {
        assert_eq!(next(&there), [number as u8; 1_000]);
    }
    here.publish(&[7; 1_000]).unwrap();
    assert_eq!(next(&there), [7; 1_000]);
    assert_eq!(there.stats().lost, 0);
}

#[test]
fn the_end_of_a_burst_leaves_though_nothing_follows() {
    let (here, there) = pair_of::<u64>(|hub| hub.flush_interval(Duration::from_millis(1)));
    for round in 0..20 {
        for value in 0..100 {
            here.publish(&(round * 100 + value)).unwrap();
        }
        for value in 0..100 {
            assert_eq!(next(&there), round * 100 + value);
        }
    }
}

#[test]
fn roles_are_kept() {
    let endpoint = endpoint();
    let here = Hub::<u8>::builder(&endpoint).listen().roles(Roles::Publisher).build().unwrap();
    let there = Hub::<u8>::builder(&endpoint).connect().roles(Roles::Subscriber).build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE));
    assert!(there.publish(&1).is_err() && here.recv().is_err());
    here.publish(&5).unwrap();
    assert_eq!(next(&there), 5);
    assert_eq!((there.subscribers(), here.publishers()), (0, 0));
}

#[test]
fn the_report_says_what_took_effect() {
    let hub = Hub::<u8>::builder(endpoint()).batch_size(128).latency_guard().build().unwrap();
    let report = hub.transport();
    assert_eq!(report.transport, Transport::BatchUdp);
    let text = report.to_string();
    for part in ["4194304 bytes were asked for", "up to 128 datagrams", "busy polling", "guard was"]
    {
        assert!(text.contains(part), "{text}");
    }
}
