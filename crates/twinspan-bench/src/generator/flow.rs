//! One socket that many players share: sends of equal size leave in one call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use twinspan_core::packet::{Datagram, DatagramBatch, PacketBuf, PacketPool};
use twinspan_core::time::Timestamp;
use twinspan_net::BareSocket;
use twinspan_provider::UdpOptions;
use twinspan_relay::{Direction, TrunkKey, TrunkTag, TrunkTags, decode, encode, trunk_options};

use crate::error::BenchError;

/// Kernel buffers asked for, each way.
const BUFFER_BYTES: usize = 32 << 20;
/// Datagrams of one size that wait for each other at most: one segmented send.
const BUCKET_DATAGRAMS: usize = 64;
/// Sizes that wait for company at once.
const BUCKETS_MAX: usize = 8;
/// Further tries when the kernel has no room.
const TRIES: usize = 4;
/// Packet buffers of one socket: full buckets, what a receive call offers and what players hold.
const POOL_PACKETS: usize = 2 * BUCKETS_MAX * BUCKET_DATAGRAMS;

/// Datagrams of one size on their way.
struct Bucket {
    size: usize,
    batch: DatagramBatch,
}

/// What makes a flow a relay's trunk: every datagram names the player that it is from or for.
#[derive(Clone, Copy)]
pub(super) struct Trunk {
    out: TrunkTag,
    incoming: TrunkTags,
    pad_to: usize,
}

impl Trunk {
    /// The trunk of a relay that shares `key` with the server.
    pub(super) fn new(key: [u8; 32], pad_to: usize) -> Self {
        let key = TrunkKey::from_bytes(key);
        let out = TrunkTags::new(&key, None, Direction::ToServer).present();
        let incoming = TrunkTags::new(&key, None, Direction::ToRelay);
        Self { out, incoming, pad_to }
    }
}

/// The address under which the server knows a player behind a relay.
fn player_address(player: u32) -> SocketAddr {
    let [_, a, b, c] = player.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 4_000))
}

/// A socket and the datagrams that wait for others of their size.
pub(super) struct Flow {
    socket: BareSocket,
    server: SocketAddr,
    trunk: Option<Trunk>,
    buckets: Vec<Bucket>,
}

impl Flow {
    /// A flow to `server`; from `local` and as a relay, where that is given.
    pub(super) fn bind(
        server: SocketAddr,
        relay: Option<(SocketAddr, Trunk)>,
    ) -> Result<Self, BenchError> {
        let any: IpAddr = match (server.ip().is_loopback(), server) {
            (true, _) => server.ip(),
            (false, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            (false, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let options = UdpOptions {
            receive_buffer_bytes: BUFFER_BYTES,
            send_buffer_bytes: BUFFER_BYTES,
            pool_packets: POOL_PACKETS,
            ..if relay.is_some() { trunk_options() } else { UdpOptions::default() }
        };
        let local = relay.map_or((any, 0).into(), |(local, _)| local);
        let socket = BareSocket::bind(local, &options)?;
        let bucket = || Bucket { size: 0, batch: DatagramBatch::new(BUCKET_DATAGRAMS) };
        let buckets = (0..BUCKETS_MAX).map(|_| bucket()).collect();
        Ok(Self { socket, server, trunk: relay.map(|(_, trunk)| trunk), buckets })
    }

    /// Where the packets that it sends come from.
    pub(super) const fn pool(&self) -> &PacketPool {
        self.socket.pool()
    }

    /// Adds a player's packet to those that wait; says how many could not be sent to make room.
    pub(super) fn push(&mut self, player: u32, mut packet: PacketBuf) -> Result<u64, BenchError> {
        if let Some(Trunk { out, pad_to, .. }) = self.trunk
            && !encode(&mut packet, player_address(player), pad_to, out)
        {
            return Ok(1);
        }
        let size = packet.len();
        let Self { socket, server, buckets, .. } = self;
        let known = buckets.iter().position(|bucket| bucket.size == size);
        let free = || buckets.iter().position(|bucket| bucket.batch.is_empty());
        let mut lost = 0;
        let place = match known.or_else(free) {
            Some(place) => place,
            None => {
                for bucket in buckets.iter_mut() {
                    lost += bucket.send(socket)?;
                }
                0
            }
        };
        let Some(bucket) = buckets.get_mut(place) else { return Ok(lost + 1) };
        if bucket.batch.room() == 0 {
            lost += bucket.send(socket)?;
        }
        bucket.size = size;
        let datagram = Datagram { peer: *server, at: Timestamp::START, packet };
        // The bucket was emptied when it was full.
        Ok(lost + u64::from(bucket.batch.push(datagram).is_err()))
    }

    /// Sends all that waits; says how many the kernel had no room for.
    pub(super) fn flush(&mut self) -> Result<u64, BenchError> {
        let mut lost = 0;
        for bucket in &mut self.buckets {
            lost += bucket.send(&mut self.socket)?;
        }
        Ok(lost)
    }

    /// Appends what has come to `batch`; what is no trunk datagram on a trunk is empty then.
    pub(super) fn receive(&mut self, batch: &mut DatagramBatch) -> Result<usize, BenchError> {
        let count = self.socket.recv(batch).map_err(io::Error::other)?;
        if let Some(Trunk { incoming, .. }) = &self.trunk {
            for datagram in batch.iter_mut() {
                let inner = decode(&datagram.packet, incoming).map_or(0, |(_, length)| length);
                datagram.packet.set_len(inner);
            }
        }
        Ok(count)
    }
}

impl Bucket {
    fn send(&mut self, socket: &mut BareSocket) -> Result<u64, BenchError> {
        for _ in 0..TRIES {
            if self.batch.is_empty() {
                return Ok(0);
            }
            socket.send(&mut self.batch).map_err(io::Error::other)?;
        }
        let lost = self.batch.len() as u64;
        self.batch.clear();
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_all_sizes_arrive_whole() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = BareSocket::bind(any, &UdpOptions::default()).unwrap();
        let mut flow = Flow::bind(server.local_addr(), None).unwrap();
        let mut sizes: Vec<usize> = (0..100).map(|index| 30 + index % 11).collect();
        for size in &sizes {
            let mut packet = flow.pool().take().unwrap();
            assert!(packet.fill(&vec![*size as u8; *size]));
            assert_eq!(flow.push(0, packet).unwrap(), 0);
        }
        assert_eq!(flow.flush().unwrap(), 0);
        let mut batch = DatagramBatch::new(100);
        while batch.room() > 0 {
            assert!(server.wait(None).unwrap());
            server.recv(&mut batch).unwrap();
        }
        for datagram in batch.iter() {
            let len = datagram.packet.len();
            assert!(datagram.packet.iter().all(|byte| usize::from(*byte) == len));
        }
        let mut seen: Vec<_> = batch.iter().map(|datagram| datagram.packet.len()).collect();
        seen.sort_unstable();
        sizes.sort_unstable();
        assert_eq!(seen, sizes);
    }

    #[test]
    fn a_trunk_names_the_player_and_gives_back_what_was_sent() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let trunk = Trunk::new([7; 32], 32);
        let mut server = BareSocket::bind(any, &UdpOptions::default()).unwrap();
        let mut flow = Flow::bind(server.local_addr(), Some((any, trunk))).unwrap();
        let mut packet = flow.pool().take().unwrap();
        assert!(packet.fill(&[9; 77]));
        assert_eq!(flow.push(3, packet).unwrap(), 0);
        assert_eq!(flow.flush().unwrap(), 0);
        let mut batch = DatagramBatch::new(1);
        assert!(server.wait(None).unwrap());
        server.recv(&mut batch).unwrap();
        let datagram = batch.pop().unwrap();
        let key = TrunkKey::from_bytes([7; 32]);
        let tags = TrunkTags::new(&key, None, Direction::ToServer);
        assert_eq!(decode(&datagram.packet, &tags), Ok((player_address(3), 77)));
        // What comes back carries the other direction's tag.
        let mut answer = server.pool().take().unwrap();
        assert!(answer.fill(&[5; 40]));
        let tag = TrunkTags::new(&key, None, Direction::ToRelay).present();
        assert!(encode(&mut answer, player_address(3), 32, tag));
        let peer = datagram.peer;
        assert!(batch.push(Datagram { peer, at: Timestamp::START, packet: answer }).is_ok());
        server.send(&mut batch).unwrap();
        let mut back = DatagramBatch::new(1);
        while flow.receive(&mut back).unwrap() == 0 {}
        assert_eq!(&*back.pop().unwrap().packet, [5; 40]);
    }
}
