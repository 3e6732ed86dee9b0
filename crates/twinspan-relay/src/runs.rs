//! Puts datagrams of equal length to one address side by side, so that they leave as one segment run.

use twinspan_core::packet::{Datagram, DatagramBatch};

/// A bounded collection of datagrams that come out by key, and by arrival among equal keys.
pub(crate) struct Runs {
    slots: Vec<Option<Datagram>>,
    /// Key in the high half, slot in the low one.
    order: Vec<u64>,
    /// Of `order`, those that came out already.
    taken: usize,
    limit: usize,
}

impl Runs {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(u32::MAX as usize);
        let (slots, order) = (Vec::with_capacity(limit), Vec::with_capacity(limit));
        Self { slots, order, taken: 0, limit }
    }

    /// The key by which trunk datagrams are sorted: by the trunk's other end, and long before short,
    /// because a segment run may only end with a shorter one.
    pub(crate) const fn key(peer: u16, len: usize) -> u32 {
        (peer as u32) << 16 | (u16::MAX - if len > 0xffff { u16::MAX } else { len as u16 }) as u32
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.order.len()
    }

    /// Adds a datagram; a full collection gives it back.
    pub(crate) fn push(&mut self, key: u32, datagram: Datagram) -> Result<(), Datagram> {
        if self.slots.len() == self.limit {
            return Err(datagram);
        }
        self.order.push(u64::from(key) << 32 | self.slots.len() as u64);
        self.slots.push(Some(datagram));
        Ok(())
    }

    /// Moves datagrams to `out` in order, as far as that has room.
    pub(crate) fn drain_into(&mut self, out: &mut DatagramBatch) {
        if let Some(left) = self.order.get_mut(self.taken..) {
            left.sort_unstable();
        }
        while out.room() > 0
            && let Some(next) = self.order.get(self.taken)
        {
            self.taken += 1;
            let slot = self.slots.get_mut(*next as u32 as usize);
            if let Some(datagram) = slot.and_then(Option::take) {
                // There was room.
                drop(out.push(datagram));
            }
        }
        if self.is_empty() {
            self.slots.clear();
            self.order.clear();
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use twinspan_core::packet::PacketPool;
    use twinspan_core::time::Timestamp;

    use super::*;

    #[test]
    fn they_come_out_by_peer_then_longest_first_then_as_they_came() {
        let pool = PacketPool::new(16);
        let mut runs = Runs::new(6);
        let datagram = |number: u16| Datagram {
            peer: ([127, 0, 0, 1], number).into(),
            at: Timestamp::START,
            packet: pool.take().unwrap(),
        };
        for (number, peer, len) in
            [(1, 1, 100), (2, 0, 60), (3, 0, 80), (4, 0, 60), (5, 1, 200), (6, 0, 80)]
        {
            assert!(runs.push(Runs::key(peer, len), datagram(number)).is_ok());
        }
        assert!(runs.push(0, datagram(7)).is_err(), "full");
        let mut order = Vec::new();
        let mut out = DatagramBatch::new(4);
        while !runs.is_empty() {
            runs.drain_into(&mut out);
            while let Some(datagram) = out.pop() {
                order.push(datagram.peer.port());
            }
        }
        assert_eq!(order, [3, 6, 2, 4, 5, 1]);
        assert!(runs.push(0, datagram(8)).is_ok(), "there is room again");
        assert_eq!(pool.outstanding(), 1);
    }
}
