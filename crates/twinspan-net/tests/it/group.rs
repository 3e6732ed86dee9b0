//! A group of sockets on one address, steered by the kernel.

use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsFd;
use std::task::Poll;

use twinspan_core::packet::DatagramBatch;
use twinspan_core::steer::Steering;
use twinspan_net::{BatchUdp, GroupMember, ReactorEnv, bind_beside, bind_group, steer};
use twinspan_provider::{BindError, IoPath, UdpOptions, UdpSocket};

const SHARDS: u16 = 5;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn short(id: u32) -> Vec<u8> {
    let mut packet = vec![0xa5; 30];
    packet[..4].copy_from_slice(&id.to_le_bytes());
    packet
}

fn hello(token: u32) -> Vec<u8> {
    let mut packet = vec![0; 1_200];
    packet[52..56].copy_from_slice(&token.to_le_bytes());
    packet
}

/// What has come to each member, in order.
async fn received(sockets: &mut [BatchUdp], wanted: usize) -> Vec<Vec<Vec<u8>>> {
    let mut came = vec![Vec::new(); sockets.len()];
    let mut left = wanted;
    while left > 0 {
        poll_fn(|cx| {
            let mut ready = false;
            for (socket, came) in sockets.iter_mut().zip(&mut came) {
                let mut batch = DatagramBatch::new(64);
                if let Poll::Ready(outcome) = socket.poll_recv(cx, &mut batch) {
                    left -= outcome.unwrap();
                    came.extend(batch.iter().map(|one| one.packet.to_vec()));
                    ready = true;
                }
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    came
}

#[test]
fn the_kernel_steers_by_connection_id_wherever_a_packet_comes_from() {
    let steering = Steering::new(0x0bad_cafe, SHARDS);
    let env = ReactorEnv::new(Some(1)).unwrap();
    env.block_on(async {
        let members = bind_group(loopback(), steering, &UdpOptions::default()).unwrap();
        assert!(members.iter().map(GroupMember::shard).eq(0..SHARDS));
        let mut sockets: Vec<BatchUdp> =
            members.into_iter().map(|member| env.adopt(member).unwrap()).collect();
        let address = sockets[0].local_addr();
        assert!(sockets.iter().all(|socket| socket.local_addr() == address));
        let mut packets: Vec<Vec<u8>> = (1..150_u32)
            .map(|number| short(number.wrapping_mul(0x9e37_79b9)))
            .chain((0..40_u32).map(|number| hello(number.wrapping_mul(0x0100_0193))))
            .collect();
        packets.extend([vec![], vec![1, 2, 3], vec![0; 4], vec![0; 55], vec![9; 4]]);
        // Three source addresses, as of clients that move: the place stays.
        let mut before = None;
        for _ in 0..3 {
            let source = StdSocket::bind(loopback()).unwrap();
            for packet in &packets {
                source.send_to(packet, address).unwrap();
            }
            let came = received(&mut sockets, packets.len()).await;
            for (shard, came) in (0..SHARDS).zip(&came) {
                let wanted = packets.iter().filter(|one| steering.shard_of_packet(one) == shard);
                assert!(came.iter().eq(wanted), "shard {shard}");
                assert!(came.len() > 10, "shard {shard} has its share");
            }
            assert!(before.is_none_or(|before| before == came));
            before = Some(came);
        }
    });
}

#[test]
fn a_group_takes_no_address_that_another_socket_or_group_has() {
    let steering = Steering::new(1, 3);
    let options = UdpOptions::default();
    let group = bind_group(loopback(), steering, &options).unwrap();
    let single = StdSocket::bind(loopback()).unwrap();
    for taken in [group[0].local_addr(), single.local_addr().unwrap()] {
        match bind_group(taken, steering, &options) {
            Err(BindError::Taken(address)) => assert_eq!(address, taken),
            Err(other) => panic!("a taken port is refused as taken, not: {other}"),
            Ok(_) => panic!("{taken} was bound twice"),
        }
    }
    assert!(StdSocket::bind(group[0].local_addr()).is_err());
}

#[test]
fn a_group_of_one_is_a_socket() {
    let options = UdpOptions { path: IoPath::Plain, ..UdpOptions::default() };
    let members = bind_group(loopback(), Steering::new(1, 1), &options).unwrap();
    assert_eq!(members.len(), 1);
    let env = ReactorEnv::new(Some(1)).unwrap();
    for member in members {
        let local = member.local_addr();
        let socket = env.adopt(member).unwrap();
        assert_eq!((socket.local_addr(), socket.report().path), (local, "recvfrom/sendto"));
    }
}

#[test]
fn two_protocols_share_a_port_and_the_kernel_tells_them_apart() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let first = StdSocket::bind(local).unwrap();
        // The byte at 0; over the next one unless it has the bit; place 1; place 0.
        let by_bit = |bit: u32| [(0x30, 0, 0, 0), (0x45, 0, 1, bit), (6, 0, 0, 1), (6, 0, 0, 0)];
        let nonsense = [(0xffff, 0, 0, 0)];
        assert!(bind_beside(first.as_fd(), &nonsense).is_err(), "no filter, no second socket");
        let second = bind_beside(first.as_fd(), &by_bit(0x20)).unwrap();
        steer(second.as_fd(), &by_bit(0x40)).unwrap();
        assert!(steer(first.as_fd(), &nonsense).is_err(), "the former one stays");
        let address = first.local_addr().unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        let taken = StdSocket::bind(address).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse, "it is nobody else's");
        first.set_nonblocking(true).unwrap();
        second.set_nonblocking(true).unwrap();
        let came = |socket: &StdSocket| {
            let mut room = [0; 2];
            let mut came = Vec::new();
            while let Ok(length) = socket.recv(&mut room) {
                came.push(room[..length].first().copied());
            }
            came
        };
        // From several addresses, which the kernel alone would spread by.
        for _ in 0..8 {
            let sender = StdSocket::bind(local).unwrap();
            for byte in 0..=u8::MAX {
                sender.send_to(&[byte, 7], address).unwrap();
                let (here, there) = (came(&first), came(&second));
                let (other, its_own) = if byte & 0x40 == 0 { (there, here) } else { (here, there) };
                assert_eq!((its_own, other), (vec![Some(byte)], vec![]), "{byte:#x}");
            }
            sender.send_to(&[], address).unwrap();
            assert_eq!((came(&first), came(&second)), (vec![None], vec![]));
        }
    }
}
