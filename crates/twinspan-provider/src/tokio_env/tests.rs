use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::task::Waker;

use super::*;
use crate::conformance;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn env() -> TokioEnv {
    TokioEnv::new(Some(7)).unwrap()
}

fn datagram(socket: &TokioUdp, peer: SocketAddr, bytes: &[u8]) -> Datagram {
    let mut packet = socket.pool().take().unwrap();
    assert!(packet.fill(bytes));
    Datagram { peer, at: Timestamp::START, packet }
}

#[test]
fn dropping_the_handle_drops_the_future_at_once() {
    let env = env();
    let held = Rc::new(());
    let inside = Rc::clone(&held);
    let task = env.spawn("waits for ever", async move {
        std::future::pending::<()>().await;
        drop(inside);
    });
    env.block_on(async { tokio::task::yield_now().await });
    assert_eq!(Rc::strong_count(&held), 2);
    drop(task);
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn a_task_may_drop_its_own_handle() {
    let env = env();
    let slot: Rc<RefCell<Option<TokioTask>>> = Rc::default();
    let inside = Rc::clone(&slot);
    let task = env.spawn("drops itself", async move {
        drop(inside.borrow_mut().take());
        std::future::pending::<()>().await;
    });
    *slot.borrow_mut() = Some(task);
    env.block_on(async { tokio::task::yield_now().await });
    assert_eq!(Rc::strong_count(&slot), 1);
}

#[test]
fn an_environment_goes_with_its_last_handle() {
    let env = env();
    let weak = Rc::downgrade(&env.inner);
    let clone = env.clone();
    let task = env.spawn("holds the environment", async move {
        let _clone = clone;
        std::future::pending::<()>().await;
    });
    env.block_on(async { tokio::task::yield_now().await });
    drop(task);
    drop(env);
    assert_eq!(weak.strong_count(), 0);
}

#[test]
fn an_unset_timer_stays_silent_and_a_far_one_does_not_wrap() {
    let env = env();
    let mut timer = env.timer();
    let cx = &mut Context::from_waker(Waker::noop());
    for at in [None, Some(Timestamp::NEVER)] {
        timer.set(at);
        assert!(timer.poll_expired(cx).is_pending());
    }
    timer.set(Some(Timestamp::START));
    assert!(timer.poll_expired(cx).is_ready());
    assert!(timer.poll_expired(cx).is_ready(), "until it is set again");
    timer.set(None);
    assert!(timer.poll_expired(cx).is_pending());
}

#[test]
fn another_thread_can_wake_a_future() {
    let env = env();
    let flag = Arc::new(AtomicBool::new(false));
    let (send, wakers) = mpsc::channel::<Waker>();
    let set = Arc::clone(&flag);
    let thread = std::thread::spawn(move || {
        let waker = wakers.recv().unwrap();
        set.store(true, Ordering::Release);
        waker.wake();
    });
    env.block_on(poll_fn(|cx| {
        if flag.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        // The thread takes the first and may be gone by now.
        let _ = send.send(cx.waker().clone());
        Poll::Pending
    }));
    thread.join().unwrap();
}

#[test]
fn a_datagram_too_long_for_a_packet_is_dropped_and_counted() {
    let env = env();
    env.block_on(async {
        let mut socket = env.bind_udp(loopback(), &UdpOptions::default()).await.unwrap();
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        sender.send_to(&[1; PACKET_BYTES_MAX + 1], socket.local_addr()).unwrap();
        sender.send_to(&[2; PACKET_BYTES_MAX], socket.local_addr()).unwrap();
        let mut batch = DatagramBatch::new(8);
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        assert_eq!(count, 1);
        assert_eq!(&*batch.pop().unwrap().packet, &[2; PACKET_BYTES_MAX]);
        let report = socket.report();
        assert_eq!((report.packets_in, report.receive_errors), (1, 1));
        assert_eq!(report.bytes_in, PACKET_BYTES_MAX as u64);
    });
}

#[test]
fn a_refused_datagram_does_not_hold_those_behind_it() {
    let env = env();
    env.block_on(async {
        let mut socket = env.bind_udp(loopback(), &UdpOptions::default()).await.unwrap();
        let mut other = env.bind_udp(loopback(), &UdpOptions::default()).await.unwrap();
        let mut batch = DatagramBatch::new(8);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        batch.push(datagram(&socket, nowhere, b"to port 0")).unwrap();
        batch.push(datagram(&socket, other.local_addr(), b"behind it")).unwrap();
        assert_eq!(poll_fn(|cx| socket.poll_send(cx, &mut batch)).await.unwrap(), 2);
        let report = socket.report();
        assert_eq!((report.packets_out, report.send_errors), (1, 1));
        poll_fn(|cx| other.poll_recv(cx, &mut batch)).await.unwrap();
        assert_eq!(&*batch.pop().unwrap().packet, b"behind it");
    });
}

#[test]
fn an_empty_pool_holds_datagrams_back_and_loses_none() {
    let env = env();
    env.block_on(async {
        let options = UdpOptions { pool_packets: 1, ..UdpOptions::default() };
        let mut socket = env.bind_udp(loopback(), &options).await.unwrap();
        let sender = std::net::UdpSocket::bind(loopback()).unwrap();
        sender.send_to(b"first", socket.local_addr()).unwrap();
        sender.send_to(b"second", socket.local_addr()).unwrap();
        let mut batch = DatagramBatch::new(8);
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
        let first = batch.pop().unwrap();
        let mut waits = 0;
        let mut held = Some(first);
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
fn two_environments_with_one_epoch_read_one_time() {
    let epoch = TokioEnv::clock_ns().saturating_sub(5_000_000_000);
    let env = TokioEnv::with_epoch(Some(1), epoch).unwrap();
    assert!(env.now() >= Timestamp::from_nanos(5_000_000_000));
    let later = TokioEnv::with_epoch(Some(1), u64::MAX).unwrap();
    assert!(later.now() < env.now());
}

#[test]
fn a_seed_repeats_its_streams_and_no_two_runs_share_one() {
    assert_eq!(env().stream("walk", 0).next_u64(), env().stream("walk", 0).next_u64());
    assert_ne!(TokioEnv::new(None).unwrap().seed(), TokioEnv::new(None).unwrap().seed());
    let (mut first, mut second) = ([0_u8; 32], [0_u8; 32]);
    env().secrets().fill(&mut first);
    env().secrets().fill(&mut second);
    assert_ne!(first, second);
}

#[test]
fn more_work_off_the_thread_than_allowed_is_refused_until_some_has_ended() {
    let env = env();
    env.block_on(conformance::more_work_than_allowed_is_refused_until_some_has_ended(&env));
}
