//! Hubs over UDP on loopback, by batched calls, and once more by a completion ring: see `main.rs`.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use twinspan_hub::{
    BuildError, Bytes, Compression, Hub, HubBuilder, Payload, Policy, PublishError, Reliability,
    Roles, Serde, TopicKey, Transport, Wait,
};

use crate::udp_endpoint;

const PATIENCE: Duration = Duration::from_secs(30);

/// Which road this copy of the suite takes.
fn road() -> Transport {
    if module_path!().contains("uring") { Transport::IoUring } else { Transport::BatchUdp }
}

/// Whether the road can be had; a skipped test says why.
fn has_road() -> bool {
    let built = builder::<u8>(udp_endpoint()).build();
    let Err(error) = built else { return true };
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{error}");
    assert!(matches!(error, BuildError::NoRing { .. }), "{error}");
    println!("skipped: {error}");
    false
}

/// Options of a hub on this road.
fn builder<T: Payload>(endpoint: impl AsRef<str>) -> HubBuilder<T> {
    Hub::builder(endpoint).transport(road())
}

fn pair_of<T: Payload>(change: impl Fn(HubBuilder<T>) -> HubBuilder<T>) -> (Hub<T>, Hub<T>) {
    let endpoint = udp_endpoint();
    let here = change(builder(&endpoint)).listen().build().unwrap();
    let there = change(builder(&endpoint)).connect().build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    (here, there)
}

fn next<T: Payload>(hub: &Hub<T>) -> T {
    hub.recv_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn messages_go_both_ways_in_all_forms() {
    if !has_road() {
        return;
    }
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
    if !has_road() {
        return;
    }
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
    if !has_road() {
        return;
    }
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
    if !has_road() {
        return;
    }
    let endpoint = udp_endpoint();
    let here = builder::<u32>(&endpoint).reliable().listen().build().unwrap();
    let there: Vec<_> =
        (0..5).map(|_| builder::<u32>(&endpoint).reliable().connect().build().unwrap()).collect();
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
    if !has_road() {
        return;
    }
    for reliability in [Reliability::BestEffort, Reliability::Reliable] {
        let endpoint = udp_endpoint();
        let hub = || builder::<u64>(&endpoint).history(3).reliability(reliability);
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
    if !has_road() {
        return;
    }
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
    if !has_road() {
        return;
    }
    let endpoint = udp_endpoint();
    let hub = || builder::<u64>(&endpoint).reliable();
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
    if !has_road() {
        return;
    }
    let endpoint = udp_endpoint();
    let there = builder::<u64>(&endpoint).connect().build().unwrap();
    let text = there.transport().to_string();
    assert!(text.contains("has answered yet; it goes on trying"), "{text}");
    let here = builder::<u64>(&endpoint).build().unwrap();
    assert!(here.transport().to_string().contains("it listens: the host is this machine"));
    assert!(there.wait_for_subscribers(1, PATIENCE));
    there.publish(&3).unwrap();
    assert_eq!(next(&here), 3);
    // Whoever says nothing connects where somebody listens.
    let third = builder::<u64>(&endpoint).build().unwrap();
    assert!(third.transport().to_string().contains("somebody listens there already"));
    third.publish(&4).unwrap();
    assert_eq!(next(&here), 4);
}

#[test]
fn what_does_not_agree_is_refused_with_the_reason() {
    if !has_road() {
        return;
    }
    let endpoint = udp_endpoint();
    let _here = builder::<[f32; 4]>(&endpoint).listen().build().unwrap();
    let error = builder::<[f32; 3]>(&endpoint).connect().build().unwrap_err();
    assert!(matches!(error, BuildError::AnotherType { .. }), "{error}");
    assert!(error.to_string().contains("carries [f32; 4] of 16 bytes aligned to 4"), "{error}");
    let error = builder::<[f32; 4]>(&endpoint).connect().reliable().build().unwrap_err();
    assert!(error.to_string().contains("it is best effort: say the same"), "{error}");
    let error = builder::<[f32; 4]>(format!("{endpoint}/x")).connect().build().unwrap_err();
    assert!(error.to_string().contains("use one topic at both ends"), "{error}");
    let error = builder::<[f32; 4]>(&endpoint).listen().build().unwrap_err();
    assert!(matches!(error, BuildError::Bind { .. }), "{error}");
    for (hub, part) in [
        (builder::<u8>(&endpoint).batch_size(0), "batch_size is 0: set it to 1 to 256"),
        (builder::<u8>(&endpoint).datagram_bytes(100), "datagram_bytes is 100"),
        (builder::<u8>(&endpoint).core(100_000), "core is 100000"),
        (builder::<u8>(&endpoint).injected_loss(2.0), "injected_loss is 2"),
        (builder::<u8>("udp://192.0.2.1:9").listen(), "cannot bind 192.0.2.1:9"),
    ] {
        let error = hub.build().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn every_wait_gets_messages() {
    if !has_road() {
        return;
    }
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
    if !has_road() {
        return;
    }
    let (here, there) = pair_of::<u64>(|hub| hub);
    runtime().block_on(async {
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

/// What a runtime watches the road by.
#[expect(deprecated, reason = "sound for descriptors that Rust owns; what replaces it is unsafe")]
pub(crate) fn watched(hub: &Hub<u64>) -> AsyncFd<OwnedFd> {
    let fd = hub.fd().unwrap().try_clone_to_owned().unwrap();
    AsyncFd::with_interest(fd, Interest::READABLE).unwrap()
}

pub(crate) async fn hear(hub: &Hub<u64>, fd: &AsyncFd<OwnedFd>) -> u64 {
    fd.async_io(Interest::READABLE, |_| hub.recv_nonblocking()).await.unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn tasks_that_watch_the_road_get_each_message_once_and_dropped_ones_take_none() {
    const EACH: u64 = 200;
    const TASKS: u64 = 6;
    if !has_road() {
        return;
    }
    let (here, there) = pair_of::<u64>(HubBuilder::reliable);
    // Two runtimes, each of which has one descriptor for its three tasks.
    let mut heard = std::thread::scope(|scope| {
        let three = || {
            runtime().block_on(async {
                let fd = watched(&there);
                let task = async || {
                    let mut heard = Vec::new();
                    while (heard.len() as u64) < EACH {
                        let dropped = hear(&there, &fd).now_or_never();
                        heard.extend(dropped);
                        if dropped.is_none() {
                            heard.push(hear(&there, &fd).await);
                        }
                        tokio::task::yield_now().await;
                    }
                    heard
                };
                let all = futures_util::future::join3(task(), task(), task());
                let (a, b, c) = tokio::time::timeout(PATIENCE, all).await.unwrap();
                [a, b, c].concat()
            })
        };
        let (one, other) = (scope.spawn(three), scope.spawn(three));
        let values: Vec<u64> = (0..EACH * TASKS).collect();
        // In trains, which one look takes in, and one by one.
        for values in values.chunks(40) {
            let (many, single) = values.split_at(37);
            here.publish_all(many).unwrap();
            for value in single {
                here.publish(value).unwrap();
            }
        }
        [one.join().unwrap(), other.join().unwrap()].concat()
    });
    heard.sort_unstable();
    assert_eq!(heard, (0..EACH * TASKS).collect::<Vec<_>>());
}

#[test]
fn a_task_and_a_thread_that_wait_at_once_get_one_message_each() {
    if !has_road() {
        return;
    }
    let (here, there) = pair_of::<u64>(HubBuilder::reliable);
    let mut heard = std::thread::scope(|scope| {
        let thread = scope.spawn(|| next(&there));
        let task = scope.spawn(|| {
            runtime().block_on(async {
                let fd = watched(&there);
                tokio::time::timeout(PATIENCE, hear(&there, &fd)).await.unwrap()
            })
        });
        here.publish_all(&[1, 2]).unwrap();
        [thread.join().unwrap(), task.join().unwrap()]
    });
    heard.sort_unstable();
    assert_eq!(heard, [1, 2]);
}

#[test]
fn a_task_that_a_sleeping_thread_kept_out_is_woken_for_what_that_leaves() {
    if !has_road() {
        return;
    }
    let (here, there) = pair_of::<u64>(|it| it.reliable().wait(Wait::Block));
    let pause = Duration::from_millis(50);
    let mut heard = std::thread::scope(|scope| {
        let thread = scope.spawn(|| next(&there));
        let task = runtime().block_on(async {
            let fd = watched(&there);
            std::thread::sleep(pause);
            let kept_out = tokio::time::timeout(pause, hear(&there, &fd)).await;
            assert!(kept_out.is_err(), "nothing was published");
            // The thread hears that somebody was there, which the runtime does not see meanwhile.
            std::thread::sleep(pause);
            here.publish_all(&[1, 2]).unwrap();
            tokio::time::timeout(PATIENCE, hear(&there, &fd)).await.unwrap()
        });
        [thread.join().unwrap(), task]
    });
    heard.sort_unstable();
    assert_eq!(heard, [1, 2]);
}

#[test]
fn what_a_stopped_runtime_watched_is_heard_by_the_next() {
    if !has_road() {
        return;
    }
    let (here, there) = pair_of::<u64>(HubBuilder::reliable);
    for value in 0..3 {
        let stopped = runtime();
        stopped.block_on(async {
            let fd = watched(&there);
            assert_eq!(hear(&there, &fd).now_or_never(), None, "nothing was published");
        });
        drop(stopped);
        here.publish(&value).unwrap();
        let came = runtime().block_on(async {
            let fd = watched(&there);
            tokio::time::timeout(PATIENCE, hear(&there, &fd)).await.unwrap()
        });
        assert_eq!(came, value);
    }
}

#[test]
fn the_descriptor_is_readable_while_there_is_something_and_no_longer() {
    if !has_road() {
        return;
    }
    let (here, there) = pair_of::<u64>(HubBuilder::reliable);
    for value in 0..20 {
        while !there.arm() {}
        here.publish_all(&[value, value]).unwrap();
        twinspan_net::shm::sleep_on(there.fd().unwrap(), Some(PATIENCE));
        for _ in 0..2 {
            assert_eq!(next(&there), value);
        }
        assert_eq!(there.recv_nonblocking().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn an_armed_descriptor_becomes_readable() {
    if !has_road() {
        return;
    }
    let (here, there) = pair_of::<u64>(|hub| hub);
    assert!(there.arm());
    here.publish(&9).unwrap();
    twinspan_net::shm::sleep_on(there.fd().unwrap(), None);
    assert_eq!(there.try_recv(), Ok(Some(9)));
}

#[test]
fn a_full_subscriber_holds_a_reliable_publisher_back() {
    if !has_road() {
        return;
    }
    let endpoint = udp_endpoint();
    let hub = || builder::<[u8; 1_000]>(&endpoint).reliable();
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
    if !has_road() {
        return;
    }
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
    if !has_road() {
        return;
    }
    let endpoint = udp_endpoint();
    let here = builder::<u8>(&endpoint).listen().roles(Roles::Publisher).build().unwrap();
    let there = builder::<u8>(&endpoint).connect().roles(Roles::Subscriber).build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE));
    assert!(there.publish(&1).is_err() && here.recv().is_err());
    here.publish(&5).unwrap();
    assert_eq!(next(&there), 5);
    assert_eq!((there.subscribers(), here.publishers()), (0, 0));
}

#[test]
fn the_report_says_what_took_effect() {
    if !has_road() {
        return;
    }
    let hub = builder::<u8>(udp_endpoint()).batch_size(128).latency_guard().build().unwrap();
    let report = hub.transport();
    assert_eq!(report.transport, road());
    let text = report.to_string();
    for part in ["4194304 bytes were asked for", "up to 128 datagrams", "busy polling", "guard was"]
    {
        assert!(text.contains(part), "{text}");
    }
}

/// What packs well, a few pieces long at most.
fn text(at: usize) -> Vec<u8> {
    format!("temperature of the left wheel {}, ", at % 3).repeat(1 + at * 40).into_bytes()
}

#[test]
fn messages_are_packed_by_who_asks_for_it() {
    if !has_road() {
        return;
    }
    let dictionary = b"temperature of the left wheel".repeat(4);
    for (compression, dictionary, reliability) in [
        (Compression::Lz4, None, Reliability::BestEffort),
        (Compression::Zstd, None, Reliability::Reliable),
        (Compression::Zstd, Some(dictionary), Reliability::Reliable),
    ] {
        let endpoint = udp_endpoint();
        let builder = || builder::<Bytes>(&endpoint).reliability(reliability).wait(Wait::Block);
        // Who publishes plainly undoes what others pack, if no dictionary is needed.
        let here = builder().listen();
        let here = match &dictionary {
            Some(words) => here.compression(compression).dictionary(words.clone()),
            None => here,
        };
        let there = builder().connect().compression(compression);
        let there = match &dictionary {
            Some(words) => there.dictionary(words.clone()),
            None => there,
        };
        let (here, there) = (here.build().unwrap(), there.build().unwrap());
        assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
        for at in 0..20 {
            there.publish_bytes(&text(at)).unwrap();
            assert_eq!(next(&here).0, text(at));
            here.publish_bytes(b"short").unwrap();
            assert_eq!(next(&there).0, b"short");
        }
        // Longer than the topic's messages are, packed or not.
        let error = there.publish_bytes(&vec![b'a'; (64 << 10) + 1]).unwrap_err();
        assert!(error.to_string().contains("this topic's have 65536 at most"), "{error}");
        let stats = there.compression().unwrap();
        assert_eq!((stats.compression, here.stats().lost), (compression, 0), "{stats}");
        assert!(stats.packed >= 19 && stats.bytes_after * 4 < stats.bytes_before, "{stats}");
        let report = there.transport().to_string();
        assert!(report.contains("messages are packed where that pays"), "{report}");
    }
}

#[test]
fn ends_that_cannot_undo_each_others_packing_refuse_each_other() {
    if !has_road() {
        return;
    }
    let zstd =
        |it: HubBuilder<u64>, words: &[u8]| it.compression(Compression::Zstd).dictionary(words);
    let endpoint = udp_endpoint();
    let sealed = |it: HubBuilder<u64>| it.seal(TopicKey::from_bytes([7; 32]));
    for seals in [false, true] {
        let seal = |it| if seals { sealed(it) } else { it };
        let here = zstd(seal(builder::<u64>(&endpoint)), b"one").listen().build().unwrap();
        let there = zstd(seal(builder::<u64>(&endpoint)), b"two").connect();
        let error = there.build().unwrap_err().to_string();
        assert!(error.contains("the same dictionary"), "{error}");
        assert!(here.declined().is_some());
    }
    let wrong = builder::<u64>(&endpoint).listen().dictionary(b"x").build();
    assert!(matches!(wrong, Err(BuildError::Compression(_))));
}
