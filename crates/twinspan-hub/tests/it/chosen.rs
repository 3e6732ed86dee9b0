//! `hub://`: the road is chosen, left when it is blocked, and taken again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;
use twinspan_hub::{BuildError, ChangeReason, Hub, HubBuilder, Transport, Wait};
use twinspan_topic::{
    Compressions, Form, Greeting, Identity, Node, NodeConfig, NodeSide, Prober, ProberConfig,
};

use crate::{free, there_and_back, topic};

const PATIENCE: Duration = Duration::from_secs(60);

fn builder(address: SocketAddr, topic: &str) -> HubBuilder<u64> {
    Hub::builder(format!("hub://{address}/{topic}"))
}

#[test]
fn the_best_road_is_taken_and_the_report_says_why() {
    let (address, topic) = (free(), topic());
    let here = builder(address, &topic).listen().build().unwrap();
    let there = builder(address, &topic).connect().build().unwrap();
    let text = there.transport().to_string();
    assert_eq!(there.transport().transport, Transport::SharedMemory, "{text}");
    assert_eq!((there.road(), there.take_road_change()), (Transport::SharedMemory, None));
    for part in ["the same boot identity, and its memory opens", "batched UDP, QUIC, TCP"] {
        assert!(text.contains(part), "{text}");
    }
    let text = here.transport().to_string();
    for part in ["TCP", "QUIC", "UDP"].map(|road| format!("it listens at {address} for {road}")) {
        assert!(text.contains(&part), "{text}");
    }
    assert!(text.contains("who connects takes shared memory on this machine"), "{text}");
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    there_and_back(&here, there);
}

#[test]
fn a_road_that_is_asked_for_is_taken_alone() {
    for road in [Transport::SharedMemory, Transport::BatchUdp, Transport::Quic, Transport::Tcp] {
        let (address, topic) = (free(), topic());
        let here = builder(address, &topic).listen().build().unwrap();
        let there = builder(address, &topic).connect().transport(road).build().unwrap();
        assert_eq!((there.transport().transport, there.road()), (road, road));
        assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
        there_and_back(&here, there);
    }
}

#[test]
fn a_road_that_the_listener_has_not_is_an_error() {
    let (address, topic) = (free(), topic());
    let _here = builder(address, &topic).listen().transport(Transport::Tcp).build().unwrap();
    for road in [Transport::Quic, Transport::BatchUdp, Transport::SharedMemory] {
        let built = builder(address, &topic).connect().transport(road).build();
        let error = built.map(|_| ()).unwrap_err();
        assert!(matches!(error, BuildError::Impossible { .. }), "{error}");
        assert!(error.to_string().contains("not offer it"), "{error}");
    }
    let there = builder(address, &topic).connect().build().unwrap();
    assert_eq!(there.road(), Transport::Tcp);
}

/// Whether the listener lets in who greets it over datagrams as carriers of streams do, whatever it
/// offers. It answers in turn: what comes before the answer to a probe answers the greeting.
fn lets_in_by_datagrams(to: SocketAddr) -> bool {
    let greeting = Greeting {
        id: [9; 16],
        publishes: true,
        receives: true,
        reliable: true,
        message_bytes_max: 9_000,
        history: 0,
        compressions: Compressions::NONE,
        packs: Compressions::NONE,
        dictionary: 0,
        topic: "twinspan.streams".to_owned(),
        identity: Identity {
            form: Form::Bytes,
            bytes: 0,
            align: 1,
            version: 1,
            name: "streams".to_owned(),
        },
    };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let now = Timestamp::START.after(Duration::from_secs(1));
    let config = NodeConfig::new(greeting, NodeSide::Connect(to));
    let mut node = Node::new(config, now, &mut Stream::new(1, "secrets", 0));
    let mut prober = Prober::new(ProberConfig::BRIEF, now, 7);
    let (mut bytes, mut probe) = ([0; 2_000], Vec::new());
    node.handle_timeout(now);
    let sent = node.poll_transmit(now, &mut bytes).unwrap();
    socket.send(&bytes[..sent.bytes]).unwrap();
    assert!(prober.poll_transmit(now, &mut probe));
    socket.send(&probe).unwrap();
    let count = socket.recv(&mut bytes).unwrap();
    !prober.handle_datagram(now, &bytes[..count])
}

#[test]
fn a_listener_of_one_road_lets_nobody_in_by_another() {
    for (road, is_let_in) in
        [(Transport::BatchUdp, true), (Transport::Quic, false), (Transport::Tcp, false)]
    {
        let (address, topic) = (free(), topic());
        let here = builder(address, &topic).listen().transport(road).build().unwrap();
        assert_eq!(lets_in_by_datagrams(address), is_let_in, "{}", here.transport());
        let text = here.transport().to_string();
        assert_eq!(text.contains("lets nobody in by UDP"), !is_let_in, "{text}");
    }
}

#[test]
fn settings_of_datagrams_have_no_effect_where_none_are_sent_alone() {
    for road in [None, Some(Transport::BatchUdp), Some(Transport::Quic), Some(Transport::Tcp)] {
        let (address, topic) = (free(), topic());
        let set = || {
            let it = builder(address, &topic).datagram_bytes(1_400).busy_poll(Duration::ZERO);
            if let Some(road) = road { it.transport(road) } else { it }
        };
        let here = set().listen().build().unwrap();
        let there = set().connect().build().unwrap();
        let sends_none = matches!(road, Some(Transport::Quic | Transport::Tcp));
        for text in [here.transport().to_string(), there.transport().to_string()] {
            for name in ["datagram_bytes", "busy_poll"] {
                let is_told = text.contains(&format!("{name} has no effect on streams"));
                assert_eq!(is_told, sends_none, "{text}");
            }
        }
    }
}

#[test]
fn who_came_first_takes_the_road_that_the_listener_has_then() {
    for road in [Transport::Tcp, Transport::Quic, Transport::SharedMemory] {
        let (address, topic) = (free(), topic());
        let there = builder(address, &topic).connect().build().unwrap();
        assert_eq!(there.road(), Transport::BatchUdp, "{}", there.transport());
        let here = builder(address, &topic).listen().transport(road).build().unwrap();
        assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
        assert_eq!(there.road(), road);
        there_and_back(&here, there);
    }
}

#[test]
fn whoever_comes_first_waits_for_the_other() {
    let (address, topic) = (free(), topic());
    let there = builder(address, &topic).connect().build().unwrap();
    let text = there.transport().to_string();
    assert!(text.contains("nobody answers at") && text.contains("suggests batched UDP"), "{text}");
    let here = builder(address, &topic).listen().build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    there_and_back(&here, there);
}

#[test]
fn who_came_first_goes_over_to_memory_and_misses_nothing() {
    let (address, topic) = (free(), topic());
    let there = builder(address, &topic).connect().build().unwrap();
    let here = builder(address, &topic).listen().build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    assert_eq!(there.road(), Transport::BatchUdp);
    let end = Instant::now() + PATIENCE;
    let mut number = 0;
    // A hundred more once it has.
    let mut left = 100;
    while left > 0 {
        assert!(Instant::now() < end, "it stays on {}", there.road());
        here.publish(&number).unwrap();
        assert_eq!(there.recv_timeout(PATIENCE).unwrap(), Some(number), "by {}", there.road());
        there.publish(&number).unwrap();
        assert_eq!(here.recv_timeout(PATIENCE).unwrap(), Some(number));
        number += 1;
        if there.road() == Transport::SharedMemory {
            left -= 1;
        }
    }
    let change = there.take_road_change().unwrap();
    assert_eq!((change.from, change.to), (Transport::BatchUdp, Transport::SharedMemory));
    assert!(matches!(change.why, ChangeReason::Better(_)), "{change}");
}

#[test]
fn memory_serves_every_way_to_wait_and_many_at_once() {
    for wait in [Wait::Spin, Wait::Adaptive, Wait::Block] {
        let (address, topic) = (free(), topic());
        let wildcard = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        let here = builder(wildcard, &topic).listen().wait(wait).build().unwrap();
        let connect = || {
            let there = builder(address, &topic).connect().wait(wait).build().unwrap();
            assert_eq!(there.road(), Transport::SharedMemory);
            there
        };
        // More than are looked at one by one.
        let there: Vec<_> = (0..6).map(|_| connect()).collect();
        assert!(here.wait_for_subscribers(6, PATIENCE));
        for number in 0..50 {
            here.publish(&number).unwrap();
            for there in &there {
                assert_eq!(there.recv_timeout(PATIENCE).unwrap(), Some(number), "{wait:?}");
                there.publish(&number).unwrap();
            }
            for _ in &there {
                assert_eq!(here.recv_timeout(PATIENCE).unwrap(), Some(number), "{wait:?}");
            }
        }
        drop(there);
        there_and_back(&here, connect());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let there = connect();
        assert!(there.wait_for_subscribers(1, PATIENCE));
        for number in 0..50 {
            there.publish(&number).unwrap();
            assert_eq!(runtime.block_on(here.recv_async()).unwrap(), number);
        }
    }
}

#[test]
fn a_listener_that_comes_again_is_found_in_memory() {
    let (address, topic) = (free(), topic());
    let here = builder(address, &topic).listen().build().unwrap();
    let there = builder(address, &topic).connect().transport(Transport::SharedMemory);
    let there = there.build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    drop(here);
    let here = builder(address, &topic).listen().build().unwrap();
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    there_and_back(&here, there);
}

#[test]
fn long_messages_go_by_streams_over_datagrams_and_through_memory() {
    use twinspan_hub::Bytes;
    for road in [Transport::BatchUdp, Transport::SharedMemory] {
        long_messages_go_by(road);
    }

    fn long_messages_go_by(road: Transport) {
        let endpoint = format!("hub://{}/{}", free(), topic());
        let hub = || Hub::<Bytes>::builder(&endpoint).message_bytes_max(2 << 20);
        let here = hub().listen().build().unwrap();
        let there = hub().connect().transport(road).build().unwrap();
        assert!(here.wait_for_subscribers(1, PATIENCE));
        for length in [0, 1, 1_200, 70_000, 2 << 20] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            thread::scope(|scope| {
                scope.spawn(|| here.publish_bytes(&bytes).unwrap());
                assert_eq!(there.recv_timeout(PATIENCE).unwrap().unwrap().0, bytes, "{length}");
            });
        }
    }
}

/// A box on the way that can block UDP.
struct Blocker {
    address: SocketAddr,
    blocks: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Blocker {
    fn new(to: SocketAddr) -> Self {
        let address = free();
        let (blocks, is_over) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let front = Arc::new(UdpSocket::bind(address).unwrap());
        let listener = TcpListener::bind(address).unwrap();
        let tcp = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                for stream in listener.incoming() {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    if let (Ok(stream), Ok(back)) = (stream, TcpStream::connect(to)) {
                        copy_both(stream, back);
                    }
                }
            }
        });
        let udp = thread::spawn({
            let (blocks, is_over) = (Arc::clone(&blocks), Arc::clone(&is_over));
            move || forward(&front, to, &blocks, &is_over)
        });
        Self { address, blocks, is_over, threads: vec![tcp, udp] }
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Copies both ways until one of them ends.
fn copy_both(one: TcpStream, other: TcpStream) {
    for (mut from, mut to) in [(one.try_clone().unwrap(), other.try_clone().unwrap()), (other, one)]
    {
        thread::spawn(move || {
            let mut bytes = [0; 16 << 10];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
}

/// Passes datagrams on, from a socket of its own for each who sends, unless they are blocked.
fn forward(front: &Arc<UdpSocket>, to: SocketAddr, blocks: &Arc<AtomicBool>, is_over: &AtomicBool) {
    let nap = Some(Duration::from_millis(20));
    front.set_read_timeout(nap).unwrap();
    let mut backs: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
    let over = Arc::new(AtomicBool::new(false));
    let mut bytes = [0; 16 << 10];
    while !is_over.load(Ordering::Relaxed) {
        let Ok((count, from)) = front.recv_from(&mut bytes) else { continue };
        if blocks.load(Ordering::Relaxed) {
            continue;
        }
        let known =
            backs.iter().find(|(known, _)| *known == from).map(|(_, back)| Arc::clone(back));
        let back = known.unwrap_or_else(|| {
            let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
            back.connect(to).unwrap();
            back.set_read_timeout(nap).unwrap();
            let (own, front, over) = (Arc::clone(&back), Arc::clone(front), Arc::clone(&over));
            let blocks = Arc::clone(blocks);
            thread::spawn(move || {
                let mut bytes = [0; 16 << 10];
                while !over.load(Ordering::Relaxed) {
                    if let Ok(count) = own.recv(&mut bytes)
                        && !blocks.load(Ordering::Relaxed)
                    {
                        let _ = front.send_to(&bytes[..count], from);
                    }
                }
            });
            backs.push((from, Arc::clone(&back)));
            back
        });
        let _ = back.send(&bytes[..count]);
    }
    over.store(true, Ordering::Relaxed);
}

/// Publishes numbers at one hub and takes them at the other until this holds.
fn flow((from, to): (&Hub<u64>, &Hub<u64>), next: &mut u64, mut is_done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_done() {
        assert!(Instant::now() < end, "{next} came, by {} and {}", from.road(), to.road());
        from.publish(next).unwrap();
        let message = to.recv_timeout_message(PATIENCE).unwrap().unwrap();
        assert_eq!((message.value, message.lost), (*next, 0), "once and in order");
        *next += 1;
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_blocked_road_is_left_and_taken_again_and_no_message_is_lost_or_doubled() {
    let (address, topic) = (free(), topic());
    let here = builder(address, &topic).listen().build().unwrap();
    let blocker = Blocker::new(address);
    let there = builder(blocker.address, &topic).connect().build().unwrap();
    assert_eq!(there.road(), Transport::BatchUdp, "{}", there.transport());
    assert!(here.wait_for_subscribers(1, PATIENCE) && there.wait_for_subscribers(1, PATIENCE));
    let (mut down, mut up) = (0, 0);
    let mut count = 0;
    flow((&here, &there), &mut down, || {
        count += 1;
        count > 50
    });
    blocker.blocks.store(true, Ordering::Relaxed);
    let mut change = None;
    flow((&here, &there), &mut down, || {
        change = change.or_else(|| there.take_road_change());
        change.is_some()
    });
    let change = change.unwrap();
    assert_eq!((change.from, change.to), (Transport::BatchUdp, Transport::Quic), "{change}");
    assert!(matches!(change.why, ChangeReason::Loss(_) | ChangeReason::Dead(_)), "{change}");
    assert_eq!(there.road(), Transport::Quic);
    let mut count = 0;
    flow((&there, &here), &mut up, || {
        count += 1;
        count > 50
    });
    blocker.blocks.store(false, Ordering::Relaxed);
    let mut change = None;
    flow((&there, &here), &mut up, || {
        change = change.or_else(|| there.take_road_change());
        change.is_some()
    });
    let change = change.unwrap();
    assert_eq!((change.from, change.to), (Transport::Quic, Transport::BatchUdp), "{change}");
    assert!(matches!(change.why, ChangeReason::Better(_)), "{change}");
    let mut count = 0;
    flow((&here, &there), &mut down, || {
        count += 1;
        count > 50
    });
    assert_eq!((here.stats().lost, there.stats().lost), (0, 0));
    assert_eq!((here.stats().received, there.stats().received), (up, down));
}
