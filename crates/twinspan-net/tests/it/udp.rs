//! Sockets: batches, limits, refusals.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch, PACKET_BYTES_MAX};
use twinspan_core::time::Timestamp;
use twinspan_net::{BatchUdp, PLAIN_PATH_REASON, ReactorEnv};
use twinspan_provider::{
    BindError, IoPath, NetworkProvider, Offload, SocketReport, TaskProvider, TimeProvider, Timer,
    UdpOptions, UdpSocket,
};

fn env() -> ReactorEnv {
    ReactorEnv::new(Some(7)).unwrap()
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn bind(env: &ReactorEnv, pool_packets: usize) -> BatchUdp {
    let options = UdpOptions { pool_packets, ..UdpOptions::default() };
    env.bind_udp(loopback(), &options).await.unwrap()
}

fn datagram(socket: &BatchUdp, peer: SocketAddr, bytes: &[u8]) -> Datagram {
    let mut packet = socket.pool().take().unwrap();
    assert!(packet.fill(bytes));
    Datagram { peer, at: Timestamp::START, packet }
}

async fn send_all(socket: &mut BatchUdp, batch: &mut DatagramBatch) {
    while !batch.is_empty() {
        poll_fn(|cx| socket.poll_send(cx, batch)).await.unwrap();
    }
}

/// Sends everything back until its handle is dropped.
async fn echo(mut socket: BatchUdp, report: Rc<Cell<SocketReport>>) {
    let mut batch = DatagramBatch::new(64);
    loop {
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        send_all(&mut socket, &mut batch).await;
        report.set(socket.report());
    }
}

#[test]
fn ten_thousand_datagrams_are_echoed_in_batches() {
    const TOTAL: u32 = 10_000;
    let env = env();
    let report = env.block_on(async {
        let mut client = bind(&env, 256).await;
        let server = bind(&env, 256).await;
        let peer = server.local_addr();
        let served = Rc::new(Cell::new(SocketReport::default()));
        let task = env.spawn("echo", echo(server, Rc::clone(&served)));
        let (mut sent, mut seen) = (0_u32, 0_u32);
        let mut batch = DatagramBatch::new(64);
        while seen < TOTAL {
            // No more on the way than the smallest kernel buffer holds.
            while batch.room() > 0 && sent < TOTAL && sent - seen < 64 {
                let datagram = datagram(&client, peer, &sent.to_le_bytes());
                batch.push(datagram).unwrap();
                sent += 1;
            }
            send_all(&mut client, &mut batch).await;
            poll_fn(|cx| client.poll_recv(cx, &mut batch)).await.unwrap();
            for received in batch.iter() {
                assert_eq!(&*received.packet, seen.to_le_bytes(), "in order, each once");
                seen += 1;
            }
            batch.clear();
        }
        let served = served.get();
        assert_eq!((served.packets_in, served.packets_out), (u64::from(TOTAL), u64::from(TOTAL)));
        assert_eq!(client.pool().outstanding(), 0);
        drop(task);
        client.report()
    });
    assert_eq!((report.packets_in, report.packets_out), (10_000, 10_000));
    assert_eq!((report.bytes_in, report.bytes_out), (40_000, 40_000));
    assert_eq!((report.receive_errors, report.send_errors), (0, 0));
}

#[test]
fn the_report_names_the_path_and_the_granted_buffers() {
    let env = env();
    let wanted = UdpOptions {
        receive_buffer_bytes: 100_000,
        send_buffer_bytes: 50_000,
        ..UdpOptions::default()
    };
    let huge = UdpOptions {
        receive_buffer_bytes: usize::MAX,
        send_buffer_bytes: usize::MAX,
        ..UdpOptions::default()
    };
    env.block_on(async {
        let report = env.bind_udp(loopback(), &wanted).await.unwrap().report();
        assert_eq!((report.path, PLAIN_PATH_REASON), ("recvmmsg/sendmmsg", None));
        assert_eq!((report.path_reason, report.coalescing), ("the usual one", Offload::Off));
        assert!(report.receive_buffer_bytes >= 100_000, "{report:?}");
        assert!(report.send_buffer_bytes >= 50_000, "{report:?}");
        let report = env.bind_udp(loopback(), &huge).await.unwrap().report();
        assert!(report.receive_buffer_bytes >= 100_000, "{report:?}");
    });
}

#[test]
fn no_datagram_is_fragmented_on_any_path_and_in_either_family() {
    let env = env();
    env.block_on(async {
        for path in [IoPath::Plain, IoPath::Batch, IoPath::Ring] {
            for local in ["127.0.0.1:0", "[::1]:0"] {
                let options = UdpOptions { path, ..UdpOptions::default() };
                let socket = env.bind_udp(local.parse().unwrap(), &options).await.unwrap();
                assert!(socket.report().never_fragments, "{local} {:?}", socket.report());
            }
        }
    });
}

#[test]
fn a_datagram_too_long_for_a_packet_is_dropped_and_counted() {
    let env = env();
    env.block_on(async {
        let mut socket = bind(&env, 16).await;
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        for _ in 0..5 {
            sender.send_to(&[1; PACKET_BYTES_MAX + 1], socket.local_addr()).unwrap();
        }
        sender.send_to(&[2; PACKET_BYTES_MAX], socket.local_addr()).unwrap();
        let mut batch = DatagramBatch::new(2);
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        assert_eq!(count, 1);
        assert_eq!(&*batch.pop().unwrap().packet, &[2; PACKET_BYTES_MAX]);
        let report = socket.report();
        assert_eq!((report.packets_in, report.receive_errors), (1, 5));
        assert_eq!(socket.pool().outstanding(), 0);
    });
}

#[test]
fn refused_datagrams_are_counted_and_their_neighbours_sent() {
    let env = env();
    env.block_on(async {
        let mut socket = bind(&env, 16).await;
        let mut other = bind(&env, 16).await;
        let nowhere: [SocketAddr; 3] =
            ["127.0.0.1:0", "[::1]:7777", "255.255.255.255:9"].map(|text| text.parse().unwrap());
        let mut batch = DatagramBatch::new(16);
        for peer in nowhere {
            batch.push(datagram(&socket, peer, b"lost")).unwrap();
            batch.push(datagram(&socket, other.local_addr(), b"kept")).unwrap();
        }
        send_all(&mut socket, &mut batch).await;
        let report = socket.report();
        assert_eq!((report.packets_out, report.send_errors), (3, 3));
        while batch.len() < 3 {
            poll_fn(|cx| other.poll_recv(cx, &mut batch)).await.unwrap();
        }
        assert!(batch.iter().all(|datagram| &*datagram.packet == b"kept"));
    });
}

#[test]
fn an_answer_that_nobody_listens_does_not_end_the_socket() {
    let env = env();
    env.block_on(async {
        let mut socket = bind(&env, 16).await;
        let closed = bind(&env, 1).await.local_addr();
        let mut other = bind(&env, 16).await;
        let mut batch = DatagramBatch::new(16);
        for _ in 0..4 {
            batch.push(datagram(&socket, closed, b"anybody?")).unwrap();
            send_all(&mut socket, &mut batch).await;
        }
        batch.push(datagram(&socket, other.local_addr(), b"hello")).unwrap();
        send_all(&mut socket, &mut batch).await;
        poll_fn(|cx| other.poll_recv(cx, &mut batch)).await.unwrap();
        assert_eq!(&*batch.pop().unwrap().packet, b"hello");
    });
}

#[test]
fn a_flood_on_one_socket_leaves_turns_to_other_tasks() {
    const COUNT: usize = 100;
    let env = env();
    env.block_on(async {
        let mut socket = bind(&env, 16).await;
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        for _ in 0..COUNT {
            sender.send_to(b"flood", socket.local_addr()).unwrap();
        }
        let turns = Rc::new(Cell::new(0_usize));
        let counts = Rc::clone(&turns);
        let other = env.spawn("other", async move {
            poll_fn(|cx| {
                counts.set(counts.get() + 1);
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            })
            .await;
        });
        let mut batch = DatagramBatch::new(1);
        for _ in 0..COUNT {
            poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
            batch.clear();
        }
        assert!(turns.get() >= 3, "{} turns during {COUNT} batches", turns.get());
        drop(other);
    });
}

#[test]
fn an_empty_pool_holds_datagrams_back_and_loses_none() {
    let env = env();
    env.block_on(async {
        let mut socket = bind(&env, 1).await;
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        sender.send_to(b"first", socket.local_addr()).unwrap();
        sender.send_to(b"second", socket.local_addr()).unwrap();
        let mut batch = DatagramBatch::new(8);
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        let mut held = batch.pop();
        assert_eq!(&*held.as_ref().unwrap().packet, b"first");
        let mut waits = 0;
        poll_fn(|cx| {
            let polled = socket.poll_recv(cx, &mut batch);
            if polled.is_pending() {
                waits += 1;
                drop(held.take());
            }
            polled
        })
        .await
        .unwrap();
        assert!(waits > 0);
        assert_eq!(&*batch.pop().unwrap().packet, b"second");
    });
}

#[test]
fn a_batch_without_room_takes_nothing() {
    let env = env();
    env.block_on(async {
        let mut socket = bind(&env, 4).await;
        let mut none = DatagramBatch::new(0);
        assert_eq!(poll_fn(|cx| socket.poll_recv(cx, &mut none)).await.unwrap(), 0);
        assert_eq!(poll_fn(|cx| socket.poll_send(cx, &mut none)).await.unwrap(), 0);
    });
}

/// As a process of bots does: sockets come and go on one thread, and each gets its own datagrams.
#[test]
fn many_sockets_share_a_thread() {
    const SOCKETS: u32 = 200;
    let env = env();
    env.block_on(async {
        for _ in 0..3 {
            let server = bind(&env, 512).await;
            let peer = server.local_addr();
            let echo = env.spawn("echo", echo(server, Rc::default()));
            let left = Rc::new(Cell::new(SOCKETS));
            let mut tasks = Vec::new();
            for number in 0..SOCKETS {
                let mut socket = bind(&env, 8).await;
                let left = Rc::clone(&left);
                tasks.push(env.spawn("client", async move {
                    for round in 0..3_u32 {
                        let bytes = (number * 10 + round).to_le_bytes();
                        let mut batch = DatagramBatch::new(4);
                        batch.push(datagram(&socket, peer, &bytes)).unwrap();
                        send_all(&mut socket, &mut batch).await;
                        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
                        assert_eq!(&*batch.pop().unwrap().packet, bytes);
                    }
                    left.set(left.get() - 1);
                }));
            }
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if left.get() == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            drop((tasks, echo));
        }
    });
}

#[test]
fn a_privileged_port_is_not_permitted() {
    let env = env();
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    match env.block_on(env.bind_udp(address, &UdpOptions::default())) {
        Err(BindError::NotPermitted(refused)) => assert_eq!(refused, address),
        Ok(_) => println!("skipped: this user or system may bind port 1"),
        Err(other) => panic!("port 1 is refused as not permitted, not: {other}"),
    }
}

/// A quiet socket costs nothing of a task's share: the twentieth of twenty is heard, and none of
/// them keeps the task awake.
#[test]
fn many_quiet_sockets_in_one_task_let_it_sleep() {
    const SOCKETS: usize = 20;
    let env = env();
    env.block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            sockets.push(bind(&env, 4).await);
        }
        let last = sockets.last().unwrap().local_addr();
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        let mut timer = env.timer();
        timer.set(Some(env.now().after(Duration::from_millis(20))));
        let mut batch = DatagramBatch::new(4);
        let (mut turns, mut sent) = (0, false);
        poll_fn(|cx| {
            turns += 1;
            assert!(turns < 100, "quiet sockets keep their task awake");
            if !sent && timer.poll_expired(cx).is_ready() {
                sent = true;
                sender.send_to(b"heard", last).unwrap();
            }
            let ready = sockets.iter_mut().any(|one| one.poll_recv(cx, &mut batch).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(&*batch.pop().unwrap().packet, b"heard");
    });
}

/// What came while datagrams gather waits, deadlines do not, and a quiet socket is heard at once.
#[test]
fn datagrams_gather_while_deadlines_are_met() {
    const GATHER: Duration = Duration::from_millis(5);
    let env = env();
    env.block_on(async {
        let options = UdpOptions { gather: GATHER, ..UdpOptions::default() };
        let mut socket = env.bind_udp(loopback(), &options).await.unwrap();
        assert_eq!(socket.report().gather, GATHER);
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        let mut batch = DatagramBatch::new(64);
        sender.send_to(b"first", socket.local_addr()).unwrap();
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        for _ in 0..20 {
            sender.send_to(b"later", socket.local_addr()).unwrap();
        }
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        let (told, timer_env) = (Rc::clone(&order), env.clone());
        let task = env.spawn("deadline", async move {
            let mut timer = timer_env.timer();
            timer.set(Some(timer_env.now().after(Duration::from_millis(1))));
            poll_fn(|cx| timer.poll_expired(cx)).await;
            told.borrow_mut().push("deadline");
        });
        let mut gathered = DatagramBatch::new(64);
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut gathered)).await.unwrap();
        order.borrow_mut().push("datagrams");
        assert_eq!(count, 20, "all that had come meanwhile");
        assert_eq!(*order.borrow(), ["deadline", "datagrams"]);
        let (first, later) = (batch.pop().unwrap().at, gathered.pop().unwrap().at);
        assert!(later >= first.after(GATHER), "{first:?} and {later:?}");
        drop(task);
    });
}

/// Gathering saves wake-ups and nothing else: who is woken by a deadline takes what is there.
#[test]
fn who_is_awake_anyway_takes_what_has_gathered() {
    const GATHER: Duration = Duration::from_millis(5);
    let env = env();
    env.block_on(async {
        let options = UdpOptions { gather: GATHER, ..UdpOptions::default() };
        let mut socket = env.bind_udp(loopback(), &options).await.unwrap();
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        let mut batch = DatagramBatch::new(64);
        sender.send_to(b"first", socket.local_addr()).unwrap();
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        sender.send_to(b"later", socket.local_addr()).unwrap();
        let first = batch.pop().unwrap().at;
        let mut timer = env.timer();
        timer.set(Some(first.after(Duration::from_millis(1))));
        let mut woken = false;
        poll_fn(|cx| {
            woken |= timer.poll_expired(cx).is_ready();
            socket.poll_recv(cx, &mut batch)
        })
        .await
        .unwrap();
        assert!(woken, "it was not taken before the deadline");
        // A machine that stood still for so long says nothing; then the next round tells.
        let waited = batch.pop().unwrap().at.since(first);
        assert!(waited < GATHER || env.now().since(first) >= GATHER, "{waited:?}");
    });
}

/// More than one call receives comes without a pause: only an emptied queue lets gather.
#[test]
fn a_queue_is_emptied_before_datagrams_gather() {
    const COUNT: usize = 300;
    let env = env();
    env.block_on(async {
        let options = UdpOptions { gather: Duration::from_secs(1), ..UdpOptions::default() };
        let mut socket = env.bind_udp(loopback(), &options).await.unwrap();
        assert_eq!(socket.report().gather, Duration::from_millis(5), "the most that is granted");
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        for _ in 0..COUNT {
            sender.send_to(b"x", socket.local_addr()).unwrap();
        }
        let mut batch = DatagramBatch::new(COUNT);
        while batch.len() < COUNT {
            let mut part = DatagramBatch::new(32);
            let ready = poll_fn(|cx| Poll::Ready(socket.poll_recv(cx, &mut part))).await;
            assert!(ready.is_ready(), "it pauses after {} of {COUNT}", batch.len());
            while let Some(datagram) = part.pop() {
                batch.push(datagram).unwrap();
            }
            // Another turn, with a share of its own.
            let mut timer = env.timer();
            timer.set(Some(env.now()));
            poll_fn(|cx| timer.poll_expired(cx)).await;
        }
    });
}
