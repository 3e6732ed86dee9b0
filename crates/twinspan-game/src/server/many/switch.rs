//! Datagrams that came to another shard than their own.

use std::fmt;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use twinspan_core::packet::{DatagramBatch, PACKET_BYTES_MAX};
use twinspan_core::steer::Steering;
use twinspan_net::{LaneReceiver, LaneSender, lane};

use super::letters::LinkStats;

/// Datagrams on their way from one shard to another.
const STRAYS_MAX: usize = 256;
/// Strays that a shard takes at a time from one other.
const STRAYS_PER_TURN: usize = 64;

/// A datagram on its way to its shard. Its bytes leave the buffers of the thread that received it.
pub(super) struct Stray {
    pub(super) peer: SocketAddr,
    len: u16,
    bytes: [u8; PACKET_BYTES_MAX],
}

impl Stray {
    fn new(peer: SocketAddr, packet: &[u8]) -> Self {
        let mut bytes = [0; PACKET_BYTES_MAX];
        bytes.iter_mut().zip(packet).for_each(|(to, from)| *to = *from);
        Self { peer, len: packet.len().min(PACKET_BYTES_MAX) as u16, bytes }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Debug for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stray").field("peer", &self.peer).field("len", &self.len).finish()
    }
}

/// The lanes from one shard to all others and back.
pub(super) struct Switch {
    steering: Steering,
    own: u16,
    /// By shard; none to itself.
    to: Vec<Option<LaneSender<Stray>>>,
    from: Vec<Option<LaneReceiver<Stray>>>,
    /// Lanes into which something was put since their shards were woken.
    unwoken: Vec<bool>,
    /// Whose strays are taken next, and how many more of them in this turn.
    turn: usize,
}

/// The switches of all shards of `steering`.
pub(super) fn switches(steering: Steering) -> Vec<Switch> {
    let shards = usize::from(steering.shards());
    let mut all: Vec<Switch> = (0..steering.shards())
        .map(|own| Switch {
            steering,
            own,
            to: (0..shards).map(|_| None).collect(),
            from: (0..shards).map(|_| None).collect(),
            unwoken: vec![false; shards],
            turn: 0,
        })
        .collect();
    for source in 0..shards {
        for target in (0..shards).filter(|target| *target != source) {
            let (sender, receiver) = lane(STRAYS_MAX);
            if let Some(place) = all.get_mut(source).and_then(|one| one.to.get_mut(target)) {
                *place = Some(sender);
            }
            if let Some(place) = all.get_mut(target).and_then(|one| one.from.get_mut(source)) {
                *place = Some(receiver);
            }
        }
    }
    all
}

impl Switch {
    /// Takes out of `batch` what belongs to other shards, and hands it on.
    pub(super) fn sort(&mut self, batch: &mut DatagramBatch, stats: &mut LinkStats) {
        let Self { steering, own, to, unwoken, .. } = self;
        batch.retain_from(0, |datagram| {
            let shard = steering.shard_of_packet(&datagram.packet);
            if shard == *own {
                return true;
            }
            let shard = usize::from(shard);
            let (Some(Some(lane)), Some(unwoken)) = (to.get_mut(shard), unwoken.get_mut(shard))
            else {
                return true;
            };
            if lane.room() == 0 {
                stats.strays_dropped += 1;
            } else if lane.push(Stray::new(datagram.peer, &datagram.packet)).is_ok() {
                stats.strays += 1;
                *unwoken = true;
            }
            false
        });
    }

    /// Wakes the shards to which something was handed on.
    pub(super) fn wake(&mut self) {
        for (lane, unwoken) in self.to.iter().zip(&mut self.unwoken) {
            if core::mem::take(unwoken)
                && let Some(lane) = lane
            {
                lane.wake();
            }
        }
    }

    /// Begins to take what others handed on, a share from each.
    pub(super) const fn begin(&mut self) {
        self.turn = 0;
    }

    /// The next datagram that another shard handed on.
    pub(super) fn next(&mut self) -> Option<Stray> {
        while let Some(from) = self.from.get_mut(self.turn / STRAYS_PER_TURN) {
            if let Some(stray) = from.as_mut().and_then(LaneReceiver::pop) {
                self.turn += 1;
                return Some(stray);
            }
            self.turn = (self.turn / STRAYS_PER_TURN + 1) * STRAYS_PER_TURN;
        }
        None
    }

    /// Whether somebody has handed something on.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ready = Poll::Pending;
        for from in self.from.iter_mut().flatten() {
            if from.is_abandoned() && from.is_empty() {
                continue;
            }
            if from.poll_ready(cx).is_ready() && !from.is_empty() {
                ready = Poll::Ready(());
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::packet::{Datagram, PacketPool};
    use twinspan_core::time::Timestamp;

    use super::*;

    /// A batch of packets with these connection ids.
    fn batch(pool: &PacketPool, ids: impl Iterator<Item = u32>) -> DatagramBatch {
        let mut batch = DatagramBatch::new(1_024);
        for id in ids {
            let mut packet = pool.take().unwrap();
            assert!(packet.fill(&[&id.to_le_bytes()[..], &[7; 40]].concat()));
            let peer = SocketAddr::from(([10, 0, 0, 1], id as u16));
            batch.push(Datagram { peer, at: Timestamp::START, packet }).unwrap();
        }
        batch
    }

    #[test]
    fn every_datagram_comes_to_its_shard_once() {
        let steering = Steering::new(5, 3);
        let pool = PacketPool::new(512);
        let mut all = switches(steering);
        let mut seen = vec![Vec::new(); 3];
        let mut stats = LinkStats::default();
        let mut batch = batch(&pool, 1..=120);
        all[1].sort(&mut batch, &mut stats);
        seen[1].extend(batch.iter().map(|datagram| u32::from(datagram.peer.port())));
        for (shard, switch) in all.iter_mut().enumerate() {
            loop {
                switch.begin();
                let Some(mut stray) = switch.next() else { break };
                let id = u32::from(stray.peer.port());
                assert_eq!(stray.bytes_mut(), &[&id.to_le_bytes()[..], &[7; 40]].concat()[..]);
                seen[shard].push(id);
            }
        }
        assert_eq!(stats.strays, 120 - seen[1].len() as u64);
        assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), 120);
        for (shard, ids) in (0..).zip(&seen) {
            assert!(!ids.is_empty());
            assert!(ids.iter().all(|id| steering.shard_of_id(*id) == shard));
        }
    }

    #[test]
    fn what_a_full_lane_does_not_take_is_dropped_and_counted() {
        let steering = Steering::new(5, 2);
        let pool = PacketPool::new(1_024);
        let mut all = switches(steering);
        let mut stats = LinkStats::default();
        let others = (1..).filter(|id| steering.shard_of_id(*id) == 1).take(STRAYS_MAX + 40);
        let mut batch = batch(&pool, others);
        all[0].sort(&mut batch, &mut stats);
        assert!(batch.is_empty());
        assert_eq!((stats.strays, stats.strays_dropped), (STRAYS_MAX as u64, 40));
        batch.clear();
        assert_eq!(pool.outstanding(), 0);
        all[1].begin();
        let taken = core::iter::from_fn(|| all[1].next()).count();
        assert_eq!(taken, STRAYS_PER_TURN, "a flood gets its share of a turn");
    }
}
