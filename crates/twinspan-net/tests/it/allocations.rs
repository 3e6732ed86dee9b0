//! After its first rounds no path of a socket, and no lane, allocates.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_net::{BatchUdp, ReactorEnv, lane};
use twinspan_provider::{
    BindError, IoPath, NetworkProvider, TimeProvider, Timer, UdpOptions, UdpSocket,
};

use crate::{counting, skip};

/// Sends a batch from one socket to the other, runs among them, waits a moment and receives it.
async fn round(
    env: &ReactorEnv,
    from: &mut BatchUdp,
    to: &mut BatchUdp,
    timer: &mut impl Timer,
    batch: &mut DatagramBatch,
) {
    let peer = to.local_addr();
    for number in 0..batch.room() {
        let mut packet = from.pool().take().unwrap();
        packet.set_len(if number % 7 < 5 { 78 } else { 530 });
        batch.push(Datagram { peer, at: Timestamp::START, packet }).unwrap();
    }
    let wanted = batch.len();
    while !batch.is_empty() {
        poll_fn(|cx| from.poll_send(cx, batch)).await.unwrap();
    }
    timer.set(Some(env.now().after(Duration::from_micros(50))));
    poll_fn(|cx| timer.poll_expired(cx)).await;
    while batch.len() < wanted {
        poll_fn(|cx| to.poll_recv(cx, batch)).await.unwrap();
    }
    batch.clear();
}

fn allocations(options: &UdpOptions) -> u64 {
    let env = ReactorEnv::new(Some(1)).unwrap();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    env.block_on(async {
        let mut left = match env.bind_udp(local, options).await {
            Ok(socket) => socket,
            Err(BindError::Path { source, .. }) => {
                skip(&source.to_string());
                return 0;
            }
            Err(error) => panic!("a free port can be bound: {error}"),
        };
        let mut right = env.bind_udp(local, options).await.unwrap();
        let mut timer = env.timer();
        let mut batch = DatagramBatch::new(64);
        for _ in 0..20 {
            round(&env, &mut left, &mut right, &mut timer, &mut batch).await;
            round(&env, &mut right, &mut left, &mut timer, &mut batch).await;
        }
        let before = counting::calls();
        for _ in 0..100 {
            round(&env, &mut left, &mut right, &mut timer, &mut batch).await;
            round(&env, &mut right, &mut left, &mut timer, &mut batch).await;
        }
        counting::calls() - before
    })
}

#[test]
fn no_path_allocates_per_datagram() {
    let usual = UdpOptions::default();
    for options in [
        usual,
        UdpOptions { path: IoPath::Plain, ..usual },
        UdpOptions { path: IoPath::Ring, ..usual },
        UdpOptions { coalesce_receives: true, ..usual },
        UdpOptions { segment_sends: false, ..usual },
        UdpOptions { gather: Duration::from_micros(100), ..usual },
    ] {
        assert_eq!(allocations(&options), 0, "{options:?}");
    }
    let before = counting::calls();
    drop(std::hint::black_box(Box::new(1_u64)));
    assert!(counting::calls() > before, "the counter counts");
}

#[test]
fn a_lane_allocates_nothing_per_value() {
    let (mut sender, mut receiver) = lane(16);
    ReactorEnv::new(Some(1)).unwrap().block_on(async {
        let mut before = 0;
        for turn in 0..100_u32 {
            if turn == 10 {
                before = counting::calls();
            }
            let pending = poll_fn(|cx| std::task::Poll::Ready(receiver.poll_pop(cx))).await;
            assert!(pending.is_pending());
            for value in 0..16 {
                sender.push(value).unwrap();
            }
            assert!(sender.push(16).is_err());
            sender.wake();
            for value in 0..16 {
                assert_eq!(poll_fn(|cx| receiver.poll_pop(cx)).await, Some(value));
            }
        }
        assert_eq!(counting::calls(), before);
    });
}
