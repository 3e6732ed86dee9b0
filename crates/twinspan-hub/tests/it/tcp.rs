//! The TCP road, on the loopback of this machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use twinspan_hub::{
    BuildError, Bytes, Compression, Echo, Hub, HubBuilder, Payload, Policy, PublishError,
    Reliability, Serde, Transport, Wait,
};

use crate::{LONG, free, met};

fn listening<T: Payload>(
    topic: &str,
    options: impl FnOnce(HubBuilder<T>) -> HubBuilder<T>,
) -> (Hub<T>, u16) {
    crate::listening("tcp", topic, options)
}

fn connected<T: Payload>(
    port: u16,
    topic: &str,
    options: impl FnOnce(HubBuilder<T>) -> HubBuilder<T>,
) -> Hub<T> {
    let builder = Hub::<T>::builder(format!("tcp://127.0.0.1:{port}/{topic}")).connect();
    options(builder).build().unwrap()
}

fn blocking<T: Payload>(builder: HubBuilder<T>) -> HubBuilder<T> {
    builder.wait(Wait::Block)
}

#[test]
fn messages_go_both_ways_between_a_listener_and_many_connectors() {
    let (listener, port) = listening::<[u64; 2]>("a", blocking);
    let others: Vec<_> = (0..3).map(|_| connected::<[u64; 2]>(port, "a", blocking)).collect();
    assert_eq!(listener.transport().transport, Transport::Tcp);
    met(&listener, 3);
    listener.publish(&[7, 8]).unwrap();
    for (at, other) in others.iter().enumerate() {
        assert_eq!(other.recv().unwrap(), [7, 8]);
        other.publish(&[at as u64, 9]).unwrap();
    }
    let mut got: Vec<_> = (0..3).map(|_| listener.recv().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, [[0, 9], [1, 9], [2, 9]]);
    assert_eq!(listener.publishers(), 3);
}

#[test]
fn every_way_to_wait_receives() {
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Block] {
        let (here, port) = listening::<u64>("waits", |it| it.wait(wait));
        let there = connected::<u64>(port, "waits", |it| it.wait(wait));
        met(&here, 1);
        crate::there_and_back(&here, there);
        assert_eq!(here.recv_timeout(Duration::from_millis(1)).unwrap(), None);
        assert_eq!(here.try_recv().unwrap(), None);
    }
}

#[test]
fn tasks_and_event_loops_are_woken() {
    let (here, port) = listening::<u64>("woken", blocking);
    let there = connected::<u64>(port, "woken", blocking);
    met(&here, 1);
    let echo = thread::spawn(move || {
        for _ in 0..100 {
            let number = there.recv().unwrap();
            there.publish(&number).unwrap();
        }
        there
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..50 {
        here.publish(&number).unwrap();
        assert_eq!(runtime.block_on(here.recv_async()).unwrap(), number);
    }
    for number in 50..100 {
        here.publish(&number).unwrap();
        if here.arm() {
            readable(here.fd().unwrap());
        }
        assert_eq!(here.try_recv().unwrap(), Some(number));
    }
    echo.join().unwrap();
}

/// Waits until a descriptor is readable.
fn readable(fd: BorrowedFd<'_>) {
    let mut wanted = [PollFd::new(&fd, PollFlags::IN)];
    assert_eq!(poll(&mut wanted, None), Ok(1));
}

#[test]
fn many_messages_of_all_lengths_come_in_order() {
    const COUNT: u64 = 20_000;
    let (here, port) = listening::<Bytes>("many", blocking);
    let there = connected::<Bytes>(port, "many", blocking);
    met(&there, 1);
    let body = |number: u64| {
        let length = [0, 1, 63, 64, 1_000, 1_200, 9_000][(number % 7) as usize];
        let mut body = number.to_le_bytes().to_vec();
        body.resize(8 + length, number as u8);
        body
    };
    let publisher = thread::spawn(move || {
        for number in 0..COUNT {
            assert_eq!(there.publish(&Bytes(body(number))).unwrap(), number);
        }
        there
    });
    for number in 0..COUNT {
        let message = here.recv_message().unwrap();
        assert_eq!((message.number, message.lost), (number, 0));
        assert_eq!(message.value.0, body(number));
    }
    let there = publisher.join().unwrap();
    assert_eq!(there.stats().published, COUNT);
    assert_eq!(here.stats().received, COUNT);
}

#[test]
fn long_messages_arrive_whole() {
    let options = |it: HubBuilder<Bytes>| it.message_bytes_max(20 << 20).wait(Wait::Block);
    let (here, port) = listening::<Bytes>("long", options);
    let there = connected::<Bytes>(port, "long", options);
    met(&there, 1);
    let publisher = thread::spawn(move || {
        for number in 0..4_u8 {
            there.publish(&Bytes(vec![number; (20 << 20) - usize::from(number)])).unwrap();
        }
        let error = there.publish(&Bytes(vec![0; (20 << 20) + 1])).unwrap_err();
        assert!(error.to_string().contains("does not fit"), "{error}");
        there
    });
    for number in 0..4_u8 {
        let Bytes(message) = here.recv().unwrap();
        assert!(message.len() == (20 << 20) - usize::from(number), "{}", message.len());
        assert!(message.iter().all(|byte| *byte == number));
    }
    publisher.join().unwrap();
}

#[test]
fn one_port_serves_many_topics() {
    let (first, port) = listening::<u32>("one", blocking);
    // The same process already listens there: it shares the port.
    let second = Hub::<u64>::builder(format!("tcp://127.0.0.1:{port}/two")).listen();
    let second = second.wait(Wait::Block).build().unwrap();
    let (to_first, to_second) =
        (connected::<u32>(port, "one", blocking), connected::<u64>(port, "two", blocking));
    met(&to_first, 1);
    met(&to_second, 1);
    to_first.publish(&1).unwrap();
    to_second.publish(&2).unwrap();
    assert_eq!((first.recv().unwrap(), second.recv().unwrap()), (1, 2));
    drop(first);
    to_second.publish(&3).unwrap();
    assert_eq!(second.recv().unwrap(), 3);
    // The port is free when the last topic has been left.
    drop(second);
    assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
}

#[test]
fn who_says_nothing_listens_or_connects_as_there_is_need() {
    let port = free().port();
    let endpoint = format!("tcp://127.0.0.1:{port}/either");
    let one = Hub::<u8>::builder(&endpoint).wait(Wait::Block).build().unwrap();
    let other = Hub::<u8>::builder(&endpoint).wait(Wait::Block).build().unwrap();
    assert!(one.transport().to_string().contains("it listens"), "{}", one.transport());
    assert!(other.transport().to_string().contains("it connects"), "{}", other.transport());
    met(&one, 1);
    one.publish(&5).unwrap();
    assert_eq!(other.recv().unwrap(), 5);
}

#[test]
fn ends_that_differ_are_refused_with_both_named() {
    let (_here, port) = listening::<[f32; 4]>("typed", blocking);
    let endpoint = format!("tcp://127.0.0.1:{port}/typed");
    let error = Hub::<[f32; 3]>::builder(&endpoint).connect().build().unwrap_err();
    assert!(matches!(error, BuildError::AnotherType { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("carries [f32; 4] of 16 bytes") && text.contains("[f32; 3]"), "{text}");
    let best_effort = Hub::<[f32; 4]>::builder(&endpoint).connect();
    let error = best_effort.reliability(Reliability::BestEffort).build().unwrap_err();
    assert!(error.to_string().contains("it is reliable"), "{error}");
    let elsewhere = format!("tcp://127.0.0.1:{port}/elsewhere");
    let error = Hub::<[f32; 4]>::builder(elsewhere).connect().build().unwrap_err();
    assert!(error.to_string().contains("nobody there has the topic"), "{error}");
}

#[test]
fn who_connects_before_anybody_listens_gets_through_later() {
    let port = free().port();
    let early = connected::<u32>(port, "later", blocking);
    let report = early.transport().to_string();
    assert!(report.contains("has not answered yet"), "{report}");
    early.publish(&1).unwrap();
    let late = Hub::<u32>::builder(format!("tcp://127.0.0.1:{port}/later")).listen();
    let late = late.wait(Wait::Block).build().unwrap();
    met(&early, 1);
    early.publish(&2).unwrap();
    assert_eq!(late.recv().unwrap(), 2, "without history nothing is kept for who comes late");
}

#[test]
fn what_was_published_last_arrives_though_its_hub_is_dropped() {
    let (here, port) = listening::<Bytes>("last", blocking);
    let there = connected::<Bytes>(port, "last", blocking);
    met(&there, 1);
    for number in 0..100_u8 {
        there.publish(&Bytes(vec![number; 60_000])).unwrap();
        if number == 50 {
            // So that the publisher need not wait for a reader that is this same thread.
            for number in 0..50 {
                assert_eq!(here.recv().unwrap().0[0], number);
            }
        }
        if number > 50 {
            assert_eq!(here.recv().unwrap().0[0], number - 1);
        }
    }
    drop(there);
    assert_eq!(here.recv().unwrap().0, vec![99; 60_000]);
    assert_eq!(here.recv_timeout(Duration::from_millis(1)).unwrap(), None);
}

#[test]
fn a_subscriber_that_takes_nothing_is_an_error_after_the_time_that_was_set() {
    let (_here, port) = listening::<Bytes>("stalled", |it| it.wait(Wait::Block).depth(8));
    let there = connected::<Bytes>(port, "stalled", |it| {
        it.depth(8).publish_timeout(Duration::from_millis(50)).wait(Wait::Block)
    });
    met(&there, 1);
    let error = (0..100).find_map(|_| there.publish(&Bytes(vec![0; 100])).err()).unwrap();
    assert!(matches!(error, PublishError::Road(_)), "{error}");
    assert!(error.to_string().contains("taken nothing for 50ms"), "{error}");
}

#[test]
fn packed_messages_arrive_and_the_figures_are_told() {
    #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq, Clone)]
    struct Reading {
        name: String,
        values: Vec<u32>,
    }
    let reading = |at: u32| {
        let values = (0..50).map(|it| at + it % 3).collect();
        Serde(Reading { name: "temperature of the left wheel".into(), values })
    };
    let dictionary = b"temperature of the left wheel".repeat(4);
    for (compression, dictionary) in
        [(Compression::Lz4, None), (Compression::Zstd, None), (Compression::Zstd, Some(dictionary))]
    {
        let options = |it: HubBuilder<Serde<Reading>>| {
            let it = it.compression(compression).wait(Wait::Block);
            match &dictionary {
                Some(dictionary) => it.dictionary(dictionary.clone()),
                None => it,
            }
        };
        let (here, port) = listening("packed", options);
        let there = connected(port, "packed", options);
        met(&there, 1);
        for at in 0..10 {
            there.publish(&reading(at)).unwrap();
            assert_eq!(here.recv().unwrap(), reading(at));
        }
        let stats = there.compression().unwrap();
        assert_eq!((stats.compression, stats.packed), (compression, 10), "{stats}");
        assert!(stats.bytes_after < stats.bytes_before, "{stats}");
    }
}

#[test]
fn ends_with_other_dictionaries_refuse_each_other() {
    let zstd = |it: HubBuilder<u64>, dictionary: &[u8]| {
        it.compression(Compression::Zstd).dictionary(dictionary)
    };
    let (_here, port) = listening::<u64>("dictionaries", |it| zstd(it, b"one"));
    let there = Hub::<u64>::builder(format!("tcp://127.0.0.1:{port}/dictionaries")).connect();
    let error = zstd(there, b"two").build().unwrap_err();
    assert!(error.to_string().contains("the same dictionary"), "{error}");
    let wrong = Hub::<u64>::builder("tcp://127.0.0.1:0/x").listen().dictionary(b"x").build();
    assert!(matches!(wrong, Err(BuildError::Compression(_))));
}

#[test]
fn strangers_harm_nobody() {
    let (here, port) = listening::<u64>("strangers", blocking);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut silent = Vec::new();
    for round in 0..100_u8 {
        let mut stranger = TcpStream::connect(address).unwrap();
        match round % 4 {
            0 => silent.push(stranger),
            1 => stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap(),
            // A greeting that is longer than any.
            2 => stranger.write_all(&[0xff; 64]).unwrap(),
            // Half a greeting.
            _ => stranger.write_all(&[60, 0, 0, 0xe0, b'T', b'w']).unwrap(),
        }
    }
    let there = connected::<u64>(port, "strangers", blocking);
    met(&there, 1);
    there.publish(&1).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    // Who breaks the rules at the door is shut out at once.
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.set_read_timeout(Some(LONG)).unwrap();
    stranger.write_all(&[0; 16]).unwrap();
    let mut rest = Vec::new();
    // Closed, or reset because what it wrote was not read.
    let _ = stranger.read_to_end(&mut rest);
    assert_eq!(rest, []);
}

/// Passes bytes on between a connector and a listener, and cuts connections.
struct Cutter {
    port: u16,
    cuts: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Cutter {
    /// Cuts each connection after so many bytes and more each time, for so many times.
    fn new(to: u16, times: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (made, over) = (Arc::clone(&cuts), Arc::clone(&is_over));
        thread::spawn(move || {
            for left in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (left, right) = (left.unwrap(), TcpStream::connect(("127.0.0.1", to)).unwrap());
                let number = made.load(Ordering::SeqCst);
                let limit = if number < times { 2_000 + 1_777 * number } else { u64::MAX };
                let back = (right.try_clone().unwrap(), left.try_clone().unwrap());
                thread::spawn(move || pass(back.0, back.1, u64::MAX));
                pass(left, right, limit);
                made.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { port, cuts, is_over }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Passes so many bytes on, then cuts both connections.
fn pass(mut from: TcpStream, mut to: TcpStream, limit: u64) {
    let mut bytes = [0; 700];
    let mut passed = 0;
    while passed < limit {
        match from.read(&mut bytes) {
            Ok(count) if count > 0 => {
                passed += count as u64;
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn reliable_messages_are_neither_lost_nor_doubled_when_connections_are_cut() {
    const COUNT: u64 = 3_000;
    const CUTS: u64 = 8;
    let (here, port) = listening::<[u64; 16]>("cut", blocking);
    let cutter = Cutter::new(port, CUTS);
    let there = connected::<[u64; 16]>(cutter.port, "cut", blocking);
    met(&there, 1);
    let answers = thread::spawn(move || {
        for number in 0..COUNT {
            there.publish(&[number; 16]).unwrap();
        }
        let mut got = Vec::new();
        while got.len() < 100 {
            got.push(there.recv_message().unwrap());
        }
        (there, got)
    });
    for number in 0..COUNT {
        let message = here.recv_message().unwrap();
        assert_eq!((message.number, message.lost, message.value), (number, 0, [number; 16]));
    }
    for number in 0..100 {
        here.publish(&[number; 16]).unwrap();
    }
    let (there, got) = answers.join().unwrap();
    for (number, message) in got.into_iter().enumerate() {
        assert_eq!((message.number, message.lost), (number as u64, 0));
    }
    assert_eq!(cutter.cuts.load(Ordering::SeqCst), CUTS, "each cut had its effect");
    assert_eq!(here.stats().lost + there.stats().lost, 0);
}

#[test]
fn a_listener_that_comes_again_is_found_again() {
    let (first, port) = listening::<u64>("again", blocking);
    let there = connected::<u64>(port, "again", blocking);
    met(&first, 1);
    first.publish(&1).unwrap();
    let message = there.recv_message().unwrap();
    drop(first);
    let second = Hub::<u64>::builder(format!("tcp://127.0.0.1:{port}/again")).listen();
    let second = second.wait(Wait::Block).build().unwrap();
    met(&second, 1);
    second.publish(&2).unwrap();
    let again = there.recv_message().unwrap();
    assert_eq!((again.value, again.number, again.lost), (2, 0, 0));
    assert_ne!(again.publisher, message.publisher, "it is another publisher");
}

#[test]
fn options_without_effect_are_named_or_refused() {
    let (hub, _) = listening::<u64>("idle", |it| it.policy(Policy::DropNew));
    let text = hub.transport().to_string();
    assert!(text.contains("policy has no effect on streams"), "{text}");
    assert!(!text.contains("busy_poll"), "{text}");
    let core = twinspan_net::allowed_cores().unwrap()[0];
    let (hub, _) = listening::<u64>("core", |it| it.core(core));
    let text = hub.transport().to_string();
    assert!(text.contains(&format!("its thread runs on core {core}")), "{text}");
    for endpoint in ["tcp://127.0.0.1:0/core", "quic://127.0.0.1:0/core"] {
        let error = Hub::<u64>::builder(endpoint).listen().core(100_000).build().unwrap_err();
        assert!(error.to_string().contains("core is 100000"), "{error}");
    }
    for builder in [
        Hub::<u64>::builder("tcp://127.0.0.1:0/idle").echo(Echo::On),
        Hub::<u64>::builder("quic://127.0.0.1:0/idle").injected_loss(0.1),
    ] {
        let error = builder.listen().build().unwrap_err().to_string();
        assert!(error.contains("udp:// alone"), "{error}");
    }
}

#[test]
fn types_whose_names_are_cut_are_still_equal() {
    type Twice<T> = Vec<Option<Vec<Option<Vec<Option<T>>>>>>;
    type Long = Serde<Twice<Twice<Twice<Twice<Twice<Twice<u64>>>>>>>;
    let (here, port) = listening::<Long>("long", blocking);
    let there = connected::<Long>(port, "long", blocking);
    met(&here, 1);
    here.publish(&Serde(vec![None])).unwrap();
    assert_eq!(there.recv().unwrap().0, [None]);
}
