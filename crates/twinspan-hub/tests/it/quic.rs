//! The QUIC road, on the loopback of this machine.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use twinspan_hub::{
    BuildError, Bytes, Compression, Fingerprint, Hub, HubBuilder, Idempotent, Payload, Reliability,
    Serde, Transport, Trust, Wait,
};

use crate::met;

fn listening<T: Payload>(
    topic: &str,
    options: impl FnOnce(HubBuilder<T>) -> HubBuilder<T>,
) -> (Hub<T>, u16) {
    crate::listening("quic", topic, |builder| options(builder.wait(Wait::Block)))
}

fn builder<T: Payload>(port: u16, topic: &str) -> HubBuilder<T> {
    Hub::<T>::builder(format!("quic://127.0.0.1:{port}/{topic}")).connect().wait(Wait::Block)
}

fn connected<T: Payload>(port: u16, topic: &str) -> Hub<T> {
    builder(port, topic).build().unwrap()
}

/// The fingerprint in a report.
fn fingerprint<T: Payload>(hub: &Hub<T>) -> Fingerprint {
    let text = hub.transport().to_string();
    let (_, rest) = text.split_once("has the fingerprint ").unwrap();
    rest[..64].parse().unwrap()
}

#[test]
fn messages_go_both_ways_and_many_connect() {
    let (listener, port) = listening::<[u64; 2]>("a", |it| it);
    let others: Vec<_> = (0..3).map(|_| connected::<[u64; 2]>(port, "a")).collect();
    assert_eq!(listener.transport().transport, Transport::Quic);
    met(&listener, 3);
    listener.publish(&[7, 8]).unwrap();
    for (at, other) in others.iter().enumerate() {
        assert_eq!(other.recv().unwrap(), [7, 8]);
        other.publish(&[at as u64, 9]).unwrap();
    }
    let mut got: Vec<_> = (0..3).map(|_| listener.recv().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, [[0, 9], [1, 9], [2, 9]]);
}

#[test]
fn every_way_to_wait_receives() {
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Block] {
        let (here, port) = listening::<u64>("waits", |it| it.wait(wait));
        let there = builder::<u64>(port, "waits").wait(wait).build().unwrap();
        met(&here, 1);
        crate::there_and_back(&here, there);
    }
}

#[test]
fn many_messages_of_all_lengths_come_in_order() {
    const COUNT: u64 = 10_000;
    let (here, port) = listening::<Bytes>("many", |it| it.message_bytes_max(1 << 20));
    let there = builder::<Bytes>(port, "many").message_bytes_max(1 << 20).build().unwrap();
    met(&there, 1);
    let body = |number: u64| {
        let length = [0, 1, 63, 64, 1_000, 1_200, 9_000][(number % 7) as usize];
        let length = if number % 1_000 == 999 { 1_000_000 } else { length };
        let mut body = number.to_le_bytes().to_vec();
        body.resize(8 + length, number as u8);
        body
    };
    let publisher = thread::spawn(move || {
        for number in 0..COUNT {
            assert_eq!(there.publish(&Bytes(body(number))).unwrap(), number);
        }
        // Dropped with messages on their way.
    });
    for number in 0..COUNT {
        let message = here.recv_message().unwrap();
        assert_eq!((message.number, message.lost), (number, 0));
        assert!(message.value.0 == body(number), "message {number}");
    }
    publisher.join().unwrap();
}

#[test]
fn topics_share_a_listener_and_a_connection() {
    let (first, port) = listening::<u32>("one", |it| it);
    let second = Hub::<u64>::builder(format!("quic://127.0.0.1:{port}/two")).listen();
    let second = second.wait(Wait::Block).build().unwrap();
    let (to_first, to_second) = (connected::<u32>(port, "one"), connected::<u64>(port, "two"));
    let report = to_second.transport().to_string();
    assert!(report.contains("it shares a connection"), "{report}");
    met(&to_first, 1);
    met(&to_second, 1);
    to_first.publish(&1).unwrap();
    to_second.publish(&2).unwrap();
    assert_eq!((first.recv().unwrap(), second.recv().unwrap()), (1, 2));
    drop(to_first);
    to_second.publish(&3).unwrap();
    assert_eq!(second.recv().unwrap(), 3);
}

#[test]
fn ends_that_differ_are_refused_with_both_named() {
    let (_here, port) = listening::<[f32; 4]>("typed", |it| it);
    let error = builder::<[f32; 3]>(port, "typed").build().unwrap_err();
    assert!(matches!(error, BuildError::AnotherType { .. }), "{error}");
    let error = builder::<[f32; 4]>(port, "elsewhere").build().unwrap_err();
    assert!(error.to_string().contains("nobody there has the topic"), "{error}");
    let best_effort = builder::<[f32; 4]>(port, "typed").reliability(Reliability::BestEffort);
    assert!(best_effort.build().unwrap_err().to_string().contains("it is reliable"));
}

#[test]
fn who_is_pinned_is_believed_and_nobody_else() {
    let (here, port) = listening::<u8>("pinned", |it| it);
    let pin = fingerprint(&here);
    let there = builder::<u8>(port, "pinned").trust(Trust::Pinned(pin)).build().unwrap();
    assert_eq!(fingerprint(&there), pin);
    let mut wrong = pin;
    wrong.0[0] ^= 1;
    let error = builder::<u8>(port, "pinned").trust(Trust::Pinned(wrong)).build().unwrap_err();
    let BuildError::Stranger { seen, .. } = error else { panic!("{error}") };
    assert_eq!(seen, pin);
}

#[test]
fn what_is_kept_in_a_folder_is_believed_again_by_another_process() {
    let folder = std::env::temp_dir().join(format!("twinspan-quic-{}", std::process::id()));
    let (server, client) = (folder.join("server"), folder.join("client"));
    let (here, port) = listening::<u8>("kept", |it| it.state_folder(&server));
    let pin = fingerprint(&here);
    let there = builder::<u8>(port, "kept").state_folder(&client).build().unwrap();
    assert_eq!(fingerprint(&there), pin);
    let pins = std::fs::read_to_string(client.join("quic.pins")).unwrap();
    assert_eq!(pins, format!("127.0.0.1:{port} {pin}\n"));
    drop((there, here));
    // The same key after a restart; another one is a stranger.
    let again = Hub::<u8>::builder(format!("quic://127.0.0.1:{port}/kept")).listen();
    let again = again.state_folder(&server).build().unwrap();
    assert_eq!(fingerprint(&again), pin);
    drop(again);
    let stranger = Hub::<u8>::builder(format!("quic://127.0.0.1:{port}/kept")).listen();
    let _stranger = stranger.build().unwrap();
    let error = builder::<u8>(port, "kept").state_folder(&client).build().unwrap_err();
    assert!(matches!(error, BuildError::Stranger { .. }), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn certificates_that_an_authority_signed_are_believed_for_their_host() {
    let (chain, key) = (
        include_bytes!("../../../twinspan-http/tests/it/certificates/server.pem"),
        include_bytes!("../../../twinspan-http/tests/it/certificates/server.key"),
    );
    let authority = include_bytes!("../../../twinspan-http/tests/it/certificates/ca.pem");
    let (here, port) = listening::<u8>("signed", |it| it.certificate(*chain, *key));
    let trust = Trust::Authorities(authority.to_vec());
    let there = builder::<u8>(port, "signed").trust(trust.clone()).build().unwrap();
    met(&here, 1);
    there.publish(&9).unwrap();
    assert_eq!(here.recv().unwrap(), 9);
    // Somebody else's certificate is refused: the connection never comes to be.
    let (_other, port) = listening::<u8>("signed2", |it| it);
    let there = builder::<u8>(port, "signed2").trust(trust).build().unwrap();
    assert_eq!(there.subscribers(), 0);
    let report = there.transport().to_string();
    assert!(report.contains("the last connection was lost"), "{report}");
    let wrong = Hub::<u8>::builder("quic://127.0.0.1:0/x").listen().certificate("", "").build();
    assert!(matches!(wrong, Err(BuildError::Certificate(_))));
}

#[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
struct Reading(u32);

// A reading that comes twice is the same reading.
impl Idempotent for Reading {}

#[test]
fn a_known_listener_is_spoken_to_before_the_handshake_where_the_type_allows_it() {
    let (here, port) = listening::<Serde<Reading>>("early", HubBuilder::zero_rtt);
    let again = || builder::<Serde<Reading>>(port, "early").zero_rtt().build().unwrap();
    let first = again();
    assert!(first.transport().to_string().contains("no session is known yet"));
    met(&here, 1);
    first.publish(&Serde(Reading(1))).unwrap();
    assert_eq!(here.recv().unwrap().0, Reading(1));
    drop(first);
    let second = again();
    let report = second.transport().to_string();
    assert!(report.contains("it spoke before the handshake"), "{report}");
    met(&second, 1);
    second.publish(&Serde(Reading(2))).unwrap();
    assert_eq!(here.recv().unwrap().0, Reading(2));
}

#[test]
fn packed_messages_arrive() {
    let (here, port) = listening::<Bytes>("packed", |it| it.compression(Compression::Lz4));
    let there = builder::<Bytes>(port, "packed").compression(Compression::Lz4).build().unwrap();
    met(&there, 1);
    for at in 0..10_u8 {
        there.publish(&Bytes(vec![at; 2_000])).unwrap();
        assert_eq!(here.recv().unwrap().0, vec![at; 2_000]);
    }
    assert_eq!(there.compression().unwrap().packed, 10);
}

/// Passes datagrams on between a connector and a listener, loses some, and changes its address.
struct Between {
    port: u16,
    lost: Arc<AtomicU64>,
    moves: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Between {
    /// Loses each datagram of that number, and speaks to the listener from another socket after so
    /// many.
    fn new(to: u16, lose_each: u64, move_each: u64) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = front.local_addr().unwrap().port();
        let (lost, moves) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let is_over = Arc::new(AtomicBool::new(false));
        let (own_lost, own_moves, over) =
            (Arc::clone(&lost), Arc::clone(&moves), Arc::clone(&is_over));
        thread::spawn(move || {
            let to = SocketAddr::from(([127, 0, 0, 1], to));
            let tick = Some(Duration::from_millis(1));
            let back_socket = || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            };
            front.set_read_timeout(tick).unwrap();
            let (mut back, mut client) = (back_socket(), None);
            let (mut bytes, mut count) = ([0; 65_536], 0_u64);
            while !over.load(Ordering::SeqCst) {
                if let Ok((length, from)) = front.recv_from(&mut bytes) {
                    client = Some(from);
                    count += 1;
                    if count.is_multiple_of(move_each) {
                        back = back_socket();
                        own_moves.fetch_add(1, Ordering::SeqCst);
                    }
                    if count.is_multiple_of(lose_each) {
                        own_lost.fetch_add(1, Ordering::SeqCst);
                    } else {
                        let _ = back.send_to(&bytes[..length], to);
                    }
                }
                while let (Ok((length, _)), Some(client)) = (back.recv_from(&mut bytes), client) {
                    let _ = front.send_to(&bytes[..length], client);
                }
            }
        });
        Self { port, lost, moves, is_over }
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

#[test]
fn losses_and_changes_of_address_harm_no_message() {
    const COUNT: u64 = 2_000;
    let (here, port) = listening::<[u64; 20]>("moved", |it| it);
    let between = Between::new(port, 20, 150);
    let there = connected::<[u64; 20]>(between.port, "moved");
    met(&there, 1);
    let publisher = thread::spawn(move || {
        for number in 0..COUNT {
            there.publish(&[number; 20]).unwrap();
        }
        there
    });
    for number in 0..COUNT {
        let message = here.recv_message().unwrap();
        assert_eq!((message.number, message.lost, message.value), (number, 0, [number; 20]));
    }
    let there = publisher.join().unwrap();
    assert!(between.lost.load(Ordering::SeqCst) > 0, "datagrams were lost");
    assert!(between.moves.load(Ordering::SeqCst) > 0, "the address changed");
    assert_eq!(here.stats().ended + there.stats().ended, 0, "by one connection");
}

fn best_effort(builder: HubBuilder<[u64; 20]>) -> HubBuilder<[u64; 20]> {
    // So that neither end forgets anything for want of room.
    builder.reliability(Reliability::BestEffort).depth(8_192)
}

/// Publishes so many, and receives until all are accounted for: how many were missed.
fn missed_of(count: u64, there: Hub<[u64; 20]>, here: &Hub<[u64; 20]>) -> u64 {
    let publisher = thread::spawn(move || {
        for number in 0..count {
            there.publish(&[number; 20]).unwrap();
        }
        there
    });
    let (mut wanted, mut missed) = (0, 0);
    while here.stats().received + here.stats().lost < count {
        let Some(message) = here.recv_timeout_message(Duration::from_millis(50)).unwrap() else {
            continue;
        };
        assert_eq!(message.number, wanted + message.lost, "each gap is told");
        assert_eq!(message.value, [message.number; 20]);
        (wanted, missed) = (message.number + 1, missed + message.lost);
    }
    let there = publisher.join().unwrap();
    // The last ones belong to no message that follows.
    missed += count - wanted;
    assert_eq!(here.stats().lost, missed);
    assert_eq!(here.stats().ended + there.stats().ended, 0);
    missed
}

#[test]
fn best_effort_misses_what_the_way_loses_and_counts_it_exactly() {
    const COUNT: u64 = 4_000;
    let (here, port) = listening("thrown", best_effort);
    let report = here.transport().to_string();
    assert!(report.contains("best effort goes by datagrams where"), "{report}");
    let between = Between::new(port, 10, u64::MAX);
    let there = best_effort(builder(between.port, "thrown")).build().unwrap();
    let report = there.transport().to_string();
    assert!(report.contains("best effort goes by datagrams, messages above 1"), "{report}");
    met(&there, 1);
    let missed = missed_of(COUNT, there, &here);
    assert!(between.lost.load(Ordering::SeqCst) > 0, "datagrams were lost");
    assert!((1..COUNT).contains(&missed), "{missed} of {COUNT}");
}

#[test]
fn best_effort_loses_nothing_where_the_way_does_not() {
    let (here, port) = listening("kept", best_effort);
    let there = best_effort(builder(port, "kept")).build().unwrap();
    met(&there, 1);
    for number in 0..200 {
        there.publish(&[number; 20]).unwrap();
        let message = here.recv_message().unwrap();
        assert_eq!((message.number, message.lost, message.value), (number, 0, [number; 20]));
    }
}

#[test]
fn best_effort_messages_of_all_lengths_come_in_order() {
    const COUNT: u64 = 400;
    let options = |it: HubBuilder<Bytes>| {
        it.reliability(Reliability::BestEffort).depth(1_024).message_bytes_max(100_000)
    };
    let (here, port) = listening::<Bytes>("lengths", options);
    let there = options(builder(port, "lengths")).build().unwrap();
    met(&there, 1);
    let publisher = thread::spawn(move || {
        for number in 0..COUNT {
            // Most fit a datagram, and those behind one that does not wait for it.
            let length = if number % 50 == 49 { 90_000 } else { 100 };
            there.publish(&Bytes(vec![number as u8; length])).unwrap();
            if number % 5 == 0 {
                thread::yield_now();
            }
        }
        there
    });
    let mut wanted = 0;
    while wanted < COUNT {
        let Some(message) = here.recv_timeout_message(crate::LONG).unwrap() else {
            panic!("{wanted}")
        };
        assert_eq!(message.number, wanted + message.lost);
        let length = if message.number % 50 == 49 { 90_000 } else { 100 };
        assert!(message.value.0 == vec![message.number as u8; length], "{}", message.number);
        wanted = message.number + 1;
    }
    drop(publisher.join().unwrap());
    assert_eq!(here.stats().lost, 0, "the loopback loses nothing");
}

#[test]
fn strangers_harm_nobody() {
    let (here, port) = listening::<u64>("strangers", |it| it);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..200_u8 {
        let datagram: Vec<u8> = (0..=255).map(|at| round.wrapping_mul(at) ^ 0xc3).collect();
        socket.send_to(&datagram[..usize::from(round)], ("127.0.0.1", port)).unwrap();
    }
    let there = connected::<u64>(port, "strangers");
    met(&there, 1);
    there.publish(&1).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
}

#[test]
fn a_listener_that_comes_again_with_its_key_is_found_again() {
    let folder = std::env::temp_dir().join(format!("twinspan-again-{}", std::process::id()));
    let (first, port) = listening::<u64>("again", |it| it.state_folder(&folder));
    let there = connected::<u64>(port, "again");
    met(&first, 1);
    first.publish(&1).unwrap();
    assert_eq!(there.recv().unwrap(), 1);
    drop(first);
    let second = Hub::<u64>::builder(format!("quic://127.0.0.1:{port}/again")).listen();
    let second = second.wait(Wait::Block).state_folder(&folder).build().unwrap();
    met(&second, 1);
    second.publish(&2).unwrap();
    assert_eq!(there.recv().unwrap(), 2);
    std::fs::remove_dir_all(folder).unwrap();
}
