use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// Ends a test early for lack of what it needs, unless `TWINSPAN_REQUIRE_PEERS` is 1: then it fails.
fn skip(reason: &str) {
    assert!(std::env::var("TWINSPAN_REQUIRE_PEERS").as_deref() != Ok("1"), "{reason}");
    println!("skipped: {reason}");
}

/// Every way in which datagrams move: calls, and rings of all kinds.
fn ways() -> Vec<Option<RingOptions>> {
    let poller = RingPoller { core: None, idle: Duration::from_millis(1) };
    let rings = [
        RingOptions::default(),
        RingOptions { sends: RingSends::Requests, poller: None },
        RingOptions { sends: RingSends::ZeroCopy, poller: None },
        RingOptions { sends: RingSends::Requests, poller: Some(poller) },
        RingOptions { sends: RingSends::ZeroCopy, poller: Some(poller) },
    ];
    let mut ways = vec![None];
    for ring in rings {
        match TrainSocket::bind_on_ring(local(), &TrainOptions::default(), &ring) {
            Ok(_) => ways.push(Some(ring)),
            Err(error) => skip(&format!("{ring:?}: {error}")),
        }
    }
    ways
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn bind(way: Option<RingOptions>, options: &TrainOptions) -> TrainSocket {
    match way {
        None => TrainSocket::bind(local(), options).unwrap(),
        Some(ring) => TrainSocket::bind_on_ring(local(), options, &ring).unwrap(),
    }
}

fn pair(way: Option<RingOptions>, options: &TrainOptions) -> (TrainSocket, TrainSocket) {
    let right = bind(way, options);
    let options = TrainOptions { connect: Some(right.local_addr()), ..*options };
    (bind(way, &options), right)
}

fn push(socket: &mut TrainSocket, to: SocketAddr, bytes: &[u8]) {
    socket.room()[..bytes.len()].copy_from_slice(bytes);
    socket.push(to, bytes.len());
}

/// Sends until all has left and there is room again.
fn send(socket: &mut TrainSocket) {
    while !socket.send().unwrap() {
        let _ = socket.receive().unwrap();
    }
}

/// Waits as a program does: only where it may.
fn wait(socket: &mut TrainSocket) {
    if socket.may_wait().unwrap() {
        let mut wanted = [PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN)];
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        assert!(poll(&mut wanted, Some(&limit)) != Ok(0), "nothing came for 20 s");
    }
}

fn take(socket: &mut TrainSocket, count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < count {
        if socket.is_taken() && !socket.receive().unwrap() {
            wait(socket);
        }
        all.extend(std::iter::from_fn(|| socket.take_next().map(|(_, it)| it.to_vec())));
    }
    all
}

#[test]
fn datagrams_of_all_lengths_arrive_as_they_were_written() {
    for way in ways() {
        let (mut left, mut right) = pair(way, &TrainOptions::default());
        let to = right.local_addr();
        let lengths = [100, 100, 100, 40, 1_200, 1_200, 7, 0, 100, 200];
        let sent: Vec<_> =
            lengths.iter().enumerate().map(|(at, len)| vec![at as u8; *len]).collect();
        sent.iter().for_each(|bytes| push(&mut left, to, bytes));
        assert_eq!(left.waiting(), 10);
        send(&mut left);
        assert_eq!(take(&mut right, 10), sent, "{way:?}");
        while left.report().datagrams_out < 10 {
            left.send().unwrap();
        }
        assert_eq!((left.report().datagrams_out, right.report().datagrams_in), (10, 10));
        assert_eq!(left.report().send_errors, 0);
        if left.report().segmentation == Offload::On {
            assert_eq!(left.report().calls_out, 1);
        }
    }
}

#[test]
fn many_trains_come_whole_and_in_order_on_every_way() {
    for way in ways() {
        let options = TrainOptions { batch_size: 32, ..TrainOptions::default() };
        let (mut left, mut right) = pair(way, &options);
        let to = right.local_addr();
        // Far more than there are buffers, so that each is used again.
        for round in 0..300_u32 {
            for number in 0..32_u32 {
                let length = if round % 3 == 0 { 1_200 } else { 30 + number as usize };
                let mut bytes = vec![round as u8; length];
                bytes[..4].copy_from_slice(&(round * 32 + number).to_le_bytes());
                push(&mut left, to, &bytes);
            }
            send(&mut left);
            for (number, bytes) in (0..32_u32).zip(take(&mut right, 32)) {
                let head = u32::from_le_bytes(*bytes.first_chunk().unwrap());
                assert_eq!(head, round * 32 + number, "{way:?}");
                assert!(bytes[4..].iter().all(|byte| *byte == round as u8), "{way:?}");
            }
        }
        let report = left.report();
        assert_eq!((report.send_errors, right.report().receive_errors), (0, 0), "{way:?}");
        if way.is_some_and(|ring| ring.sends == RingSends::ZeroCopy)
            && report.segmentation == Offload::On
        {
            assert!(report.zero_copy >= 100, "{report:?}");
            assert!(report.zero_copy_copied <= report.zero_copy, "each is told once: {report:?}");
        }
    }
}

#[test]
fn a_receiver_that_is_late_loses_what_finds_no_room_and_goes_on() {
    for way in ways() {
        let options = TrainOptions { buffer_bytes: 64 << 10, ..TrainOptions::default() };
        let (mut left, mut right) = pair(way, &options);
        let to = right.local_addr();
        // More than the ring's buffers and the kernel's queue hold.
        for round in 0..40_u8 {
            for _ in 0..64 {
                push(&mut left, to, &[round; 1_200]);
            }
            send(&mut left);
        }
        let mut came = 0;
        // A thread of the kernel's may not have sent anything yet.
        while came == 0 {
            while right.receive().unwrap() {
                while right.take_next().is_some() {
                    came += 1;
                }
            }
        }
        assert!(came <= 40 * 64, "{way:?}: {came}");
        // It may find the queue full as well, of what a thread of the kernel's sends late.
        let mut is_there = false;
        while !is_there {
            push(&mut left, to, b"the last");
            send(&mut left);
            while right.receive().unwrap() {
                while let Some((_, bytes)) = right.take_next() {
                    is_there |= bytes == b"the last";
                }
            }
        }
    }
}

#[test]
fn a_batch_has_its_size_and_no_more() {
    for way in ways() {
        let options = TrainOptions { batch_size: 3, ..TrainOptions::default() };
        let (mut left, mut right) = pair(way, &options);
        let to = right.local_addr();
        for _ in 0..3 {
            assert!(!left.is_full());
            push(&mut left, to, b"x");
        }
        assert!(left.is_full() && left.room().is_empty());
        send(&mut left);
        assert!(!left.is_full());
        assert_eq!(take(&mut right, 3).len(), 3);
    }
}

#[test]
fn what_the_kernel_refuses_harms_nothing_behind_it() {
    for way in ways() {
        let (_, mut right) = pair(way, &TrainOptions::default());
        let mut left = bind(way, &TrainOptions::default());
        // Another family: refused at once.
        push(&mut left, "[2001:db8::1]:9".parse().unwrap(), b"a");
        push(&mut left, "[2001:db8::1]:9".parse().unwrap(), b"b");
        push(&mut left, right.local_addr(), b"c");
        send(&mut left);
        assert_eq!(take(&mut right, 1), [b"c"], "{way:?}");
        while left.report().send_errors < 2 {
            left.send().unwrap();
        }
        assert_eq!(left.report().send_errors, 2, "{way:?}");
    }
}

#[test]
fn a_socket_goes_to_another_thread() {
    for way in ways() {
        let (mut left, right) = pair(way, &TrainOptions::default());
        let to = right.local_addr();
        let thread = std::thread::spawn(move || {
            let mut right = right;
            // The request of a ring is the other thread's at first, and this one's after a while.
            let all = take(&mut right, 200);
            (all.len(), right)
        });
        for _ in 0..200 {
            push(&mut left, to, b"hello");
            send(&mut left);
        }
        let (count, mut right) = thread.join().unwrap();
        assert_eq!(count, 200, "{way:?}");
        // The thread whose request it was has ended.
        push(&mut left, to, b"again");
        send(&mut left);
        assert_eq!(take(&mut right, 1), [b"again"], "{way:?}");
    }
}

#[test]
fn a_socket_ends_with_datagrams_under_way_on_every_way() {
    for way in ways() {
        for _ in 0..5 {
            let (mut left, right) = pair(way, &TrainOptions::default());
            for _ in 0..32 {
                push(&mut left, right.local_addr(), &[7; 1_200]);
            }
            left.send().unwrap();
            drop(left);
            drop(right);
        }
    }
}

#[test]
fn what_is_no_ring_is_told_apart_from_what_is_no_socket() {
    let taken = TrainSocket::bind(local(), &TrainOptions::default()).unwrap();
    let again = TrainSocket::bind_on_ring(
        taken.local_addr(),
        &TrainOptions::default(),
        &RingOptions::default(),
    );
    assert!(matches!(again, Err(RingError::Socket(_))), "{again:?}");
}
