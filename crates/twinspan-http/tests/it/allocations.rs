//! A warm association allocates nothing for each datagram.

use std::future::poll_fn;
use std::net::SocketAddr;

use twinspan_core::packet::{Datagram, DatagramBatch};
use twinspan_core::time::Timestamp;
use twinspan_http::socks5::{Socks5Config, Socks5Udp};
use twinspan_provider::{
    AsyncReadExt, AsyncWriteExt, NetworkProvider, TokioEnv, TokioUdp, UdpOptions, UdpSocket,
};

use crate::counting;
use crate::tools::{loopback, raw};

/// Sends a batch to a relay, which sends each of its datagrams back as it came.
async fn round(
    socket: &mut Socks5Udp<TokioEnv>,
    relay: &mut TokioUdp,
    batch: &mut DatagramBatch,
    echo: &mut DatagramBatch,
) {
    let peer = SocketAddr::from(([10, 0, 0, 1], 9));
    for number in 0..batch.room() {
        let mut packet = socket.pool().take().unwrap();
        packet.set_len(if number % 7 < 5 { 78 } else { 530 });
        batch.push(Datagram { peer, at: Timestamp::START, packet }).unwrap();
    }
    let wanted = batch.len();
    while !batch.is_empty() {
        poll_fn(|cx| socket.poll_send(cx, batch)).await.unwrap();
    }
    while echo.len() < wanted {
        poll_fn(|cx| relay.poll_recv(cx, echo)).await.unwrap();
    }
    while !echo.is_empty() {
        poll_fn(|cx| relay.poll_send(cx, echo)).await.unwrap();
    }
    while batch.len() < wanted {
        poll_fn(|cx| socket.poll_recv(cx, batch)).await.unwrap();
    }
    assert!(batch.iter().all(|datagram| datagram.peer == peer));
    batch.clear();
}

#[test]
fn a_warm_association_allocates_nothing_per_datagram() {
    let env = TokioEnv::new(Some(1)).unwrap();
    let options = UdpOptions { pool_packets: 128, ..UdpOptions::default() };
    let allocated = env.block_on(async {
        let mut relay = env.bind_udp(loopback(), &options).await.unwrap();
        let port = relay.local_addr().port();
        let (proxy, _task) = raw(&env, move |_, mut stream| async move {
            stream.read_exact(&mut [0; 3]).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            stream.read_exact(&mut [0; 10]).await.unwrap();
            let reply = [&[5, 0, 0, 1, 0, 0, 0, 0][..], &port.to_be_bytes()].concat();
            stream.write_all(&reply).await.unwrap();
            let _ = stream.read(&mut [0]).await;
        })
        .await;
        let config = Socks5Config::new(proxy.into());
        let mut socket =
            Socks5Udp::associate(env.clone(), &config, loopback(), &options).await.unwrap();
        // Buffers are made on first need, and how many are needed at once depends on the moment.
        for pool in [socket.pool(), relay.pool()] {
            drop(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>());
        }
        let (mut batch, mut echo) = (DatagramBatch::new(32), DatagramBatch::new(32));
        // The runtime too makes some room of its own when a task has been busy for the first time.
        for _ in 0..300 {
            round(&mut socket, &mut relay, &mut batch, &mut echo).await;
        }
        let before = counting::calls();
        for _ in 0..300 {
            round(&mut socket, &mut relay, &mut batch, &mut echo).await;
        }
        counting::calls() - before
    });
    assert_eq!(allocated, 0);
}
