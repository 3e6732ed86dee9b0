use std::future::poll_fn;
use std::io::Read;
use std::net::{TcpListener, TcpStream};

use twinspan_core::packet::Datagram;
use twinspan_provider::{Offload, TimeProvider};

use super::*;
use crate::ReactorEnv;
use crate::port::OFFER_MIN;
use crate::sys::CALL_MESSAGES_MAX;

fn datagram(pool: &PacketPool, bytes: usize) -> Datagram {
    let mut packet = pool.take().unwrap();
    packet.set_len(bytes);
    Datagram { peer: SocketAddr::from(([127, 0, 0, 1], 9)), at: Timestamp::START, packet }
}

/// A stream socket stands in for a UDP one: the loopback interface never lets a UDP socket run out
/// of room, and streams do, with the same calls and the same events.
#[test]
fn a_sender_without_room_sleeps_until_there_is_some() {
    const BATCH: usize = 100;
    let env = ReactorEnv::new(Some(1)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    sender.set_nonblocking(true).unwrap();
    receiver.set_nonblocking(true).unwrap();
    let local = sender.local_addr().unwrap();
    let reactor = Rc::clone(&env.reactor);
    let options = UdpOptions { pool_packets: BATCH, ..UdpOptions::default() };
    let port = Port::prepare(sender.into(), local, &options).unwrap();
    assert_eq!(port.report().segmentation, Offload::Refused, "a stream has no datagrams to join");
    let mut socket = BatchUdp::wrap(reactor, port, &options).unwrap();
    let mut batch = DatagramBatch::new(BATCH);
    let mut waits = 0;
    env.block_on(async {
        while waits < 3 {
            while batch.room() > 0 {
                batch.push(datagram(socket.pool(), 1_200)).unwrap();
            }
            poll_fn(|cx| {
                let polled = socket.poll_send(cx, &mut batch);
                if polled.is_pending() {
                    waits += 1;
                    assert!(!socket.source.writable() && socket.source.awaits_room());
                    // The other end reads all, and nothing but the kernel's word wakes this task.
                    let mut sink = [0; 65_536];
                    while receiver.read(&mut sink).is_ok_and(|bytes| bytes > 0) {}
                }
                polled
            })
            .await
            .unwrap();
        }
    });
    assert!(!socket.source.awaits_room(), "sending again takes the interest back");
    drop(batch);
    assert_eq!(socket.pool().outstanding(), 0);
}

#[test]
fn a_quiet_socket_offers_few_buffers_and_a_busy_one_many() {
    let env = ReactorEnv::new(Some(1)).unwrap();
    let reactor = Rc::clone(&env.reactor);
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut socket = BatchUdp::bind(reactor, local, &UdpOptions::default()).unwrap();
    let sender = std::net::UdpSocket::bind(local).unwrap();
    let mut batch = DatagramBatch::new(200);
    let mut receive = |socket: &mut BatchUdp, count: usize| {
        for _ in 0..count {
            sender.send_to(b"x", socket.local_addr()).unwrap();
        }
        let mut seen = 0;
        env.block_on(async {
            while seen < count {
                seen += poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await.unwrap();
                batch.clear();
            }
        });
    };
    assert_eq!(socket.port.offer(), OFFER_MIN);
    // Just what the offers from 2 to 64 sum up to.
    receive(&mut socket, 126);
    assert_eq!(socket.port.offer(), CALL_MESSAGES_MAX);
    for _ in 0..20 {
        receive(&mut socket, 1);
    }
    assert_eq!(socket.port.offer(), OFFER_MIN);
    assert!(env.now() > Timestamp::START);
}
