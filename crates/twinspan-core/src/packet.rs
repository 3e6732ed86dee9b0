//! Packet buffers from a bounded pool, and the batches in which datagrams travel.
//!
//! ```
//! use twinspan_core::packet::{Datagram, DatagramBatch, PacketPool};
//! use twinspan_core::time::Timestamp;
//!
//! let pool = PacketPool::new(1);
//! let mut batch = DatagramBatch::new(8);
//! if let Some(mut packet) = pool.take() {
//!     assert!(packet.fill(b"hello"));
//!     let peer = ([127, 0, 0, 1], 7_777).into();
//!     assert!(batch.push(Datagram { peer, at: Timestamp::START, packet }).is_ok());
//! }
//! assert!(pool.take().is_none(), "the one buffer is in the batch");
//! batch.clear();
//! assert_eq!(pool.outstanding(), 0);
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::need::Idle;
use crate::time::Timestamp;

/// Room in one packet buffer, in bytes: an Ethernet frame's payload and to spare.
pub const PACKET_BYTES_MAX: usize = 2_048;

type Bytes = Box<[u8; PACKET_BYTES_MAX]>;

/// What the header of a packet says about congestion (ECN, RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Nothing: a router that meets a queue drops it (Not-ECT).
    #[default]
    Incapable = 0,
    /// Routers may mark it, by the meaning of L4S (ECT(1)).
    Capable1 = 1,
    /// Routers may mark it instead of dropping it (ECT(0)).
    Capable = 2,
    /// A router met a queue and marked it (CE).
    Congested = 3,
}

impl Ecn {
    /// What the two lowest bits say, of the traffic class of IPv6 and of the same byte of IPv4.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Incapable,
            1 => Self::Capable1,
            2 => Self::Capable,
            _ => Self::Congested,
        }
    }

    /// The two bits.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Whether a router may mark it.
    pub const fn can_be_marked(self) -> bool {
        matches!(self, Self::Capable | Self::Capable1)
    }
}

/// Free buffers of one thread, for any number of pools to draw from: with many pools that are rarely
/// busy at once there are as many buffers as are in use together, and those used last are used next.
#[derive(Clone, Default)]
pub struct PacketStock {
    free: Rc<RefCell<Idle<Bytes>>>,
}

impl PacketStock {
    /// A [period](crate::need::PERIOD) ended: buffers that nobody took in it are given back. For who has
    /// many pools of one stock; a pool of its own keeps what was made for its worst moment.
    pub fn fit(&self) {
        self.free.borrow_mut().fit();
    }
}

impl fmt::Debug for PacketStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketStock").field("free", &self.free.borrow().len()).finish()
    }
}

struct PoolShared {
    stock: PacketStock,
    /// Buffers that are out. One that comes back without having gone out makes it wrap, far beyond
    /// the limit.
    out: Cell<usize>,
    limit: usize,
}

/// A bounded pool of packet buffers that belongs to one thread.
///
/// Buffers are made on first need, or [ahead of it](PacketPool::make), up to the limit, and then
/// reused. A [`PacketBuf`] goes back when it is dropped, so it returns exactly once whatever fails.
#[derive(Clone)]
pub struct PacketPool {
    shared: Rc<PoolShared>,
}

impl PacketPool {
    /// A pool of at most `limit` buffers.
    pub fn new(limit: usize) -> Self {
        let free = Rc::new(RefCell::new(Idle::with_room(limit)));
        Self::of_stock(&PacketStock { free }, limit)
    }

    /// A pool of at most `limit` buffers out at once, that come from `stock` and go back there.
    pub fn of_stock(stock: &PacketStock, limit: usize) -> Self {
        Self { shared: Rc::new(PoolShared { stock: stock.clone(), out: Cell::new(0), limit }) }
    }

    /// Makes buffers now until there are `count`, or the limit: who has to be ready for the worst
    /// moment does not want to ask the allocator in it.
    pub fn make(&self, count: usize) {
        let mut free = self.shared.stock.free.borrow_mut();
        let there = free.len() + self.shared.out.get();
        let missing = count.min(self.shared.limit).saturating_sub(there);
        (0..missing).for_each(|_| free.give(Box::new([0; PACKET_BYTES_MAX])));
    }

    /// An empty buffer, or `None` when all are out.
    pub fn take(&self) -> Option<PacketBuf> {
        let out = self.shared.out.get();
        if out >= self.shared.limit {
            return None;
        }
        self.shared.out.set(out + 1);
        let reused = self.shared.stock.free.borrow_mut().take();
        let bytes = reused.unwrap_or_else(|| Box::new([0; PACKET_BYTES_MAX]));
        let pool = Rc::clone(&self.shared);
        Some(PacketBuf { bytes: Some(bytes), len: 0, ecn: Ecn::Incapable, pool })
    }

    /// Buffers that are out now.
    pub fn outstanding(&self) -> usize {
        self.shared.out.get()
    }

    /// Whether its accounts are right: no buffer came back that did not go out, and no more are out
    /// than may be.
    pub fn is_sound(&self) -> bool {
        self.shared.out.get() <= self.shared.limit
    }

    /// The most buffers that can be out at once.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }
}

impl fmt::Debug for PacketPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketPool")
            .field("outstanding", &self.outstanding())
            .field("limit", &self.limit())
            .finish()
    }
}

/// One packet's bytes, owned, from a [`PacketPool`]. Reads as a slice of its length.
pub struct PacketBuf {
    /// `None` only while dropping.
    bytes: Option<Bytes>,
    /// At most [`PACKET_BYTES_MAX`].
    len: u16,
    ecn: Ecn,
    pool: Rc<PoolShared>,
}

impl PacketBuf {
    fn storage(&self) -> &[u8] {
        self.bytes.as_deref().map(<[u8; PACKET_BYTES_MAX]>::as_slice).unwrap_or_default()
    }

    fn storage_mut(&mut self) -> &mut [u8] {
        self.bytes.as_deref_mut().map(<[u8; PACKET_BYTES_MAX]>::as_mut_slice).unwrap_or_default()
    }

    /// Sets the length; bytes past the old length hold whatever an earlier packet left there.
    ///
    /// A length past [`PACKET_BYTES_MAX`] is cut to it.
    pub fn set_len(&mut self, len: usize) {
        // It fits, as is asserted below.
        self.len = len.min(PACKET_BYTES_MAX) as u16;
    }

    /// What its header said about congestion when it was received, where the socket
    /// [reads that](Ecn); whoever sends says nothing here: it is a matter of the socket.
    pub const fn ecn(&self) -> Ecn {
        self.ecn
    }

    /// Says what its header said: for sockets that receive.
    pub const fn set_ecn(&mut self, ecn: Ecn) {
        self.ecn = ecn;
    }

    /// All of the room, whatever the length: for a kernel or a codec to write into before
    /// [`PacketBuf::set_len`].
    pub fn room_mut(&mut self) -> &mut [u8] {
        self.storage_mut()
    }

    /// Replaces the content; false, and no change, when `bytes` do not fit.
    #[must_use]
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        let Some(out) = self.storage_mut().get_mut(..bytes.len()) else { return false };
        out.copy_from_slice(bytes);
        self.set_len(bytes.len());
        true
    }
}

const _: () = assert!(PACKET_BYTES_MAX <= u16::MAX as usize);

impl Deref for PacketBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.storage().get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl DerefMut for PacketBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.len);
        self.storage_mut().get_mut(..len).unwrap_or_default()
    }
}

impl Drop for PacketBuf {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            self.pool.out.set(self.pool.out.get().wrapping_sub(1));
            self.pool.stock.free.borrow_mut().give(bytes);
        }
    }
}

impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads may be secret before sealing: the length alone is shown.
        f.debug_struct("PacketBuf").field("len", &self.len).finish()
    }
}

/// One datagram and whom it goes to or came from.
#[derive(Debug)]
pub struct Datagram {
    /// The other end: destination when sending, source when received.
    pub peer: SocketAddr,
    /// When it was received; when sending, when it was handed over.
    pub at: Timestamp,
    /// Its bytes.
    pub packet: PacketBuf,
}

/// A bounded batch of datagrams, first in, first out.
#[derive(Debug)]
pub struct DatagramBatch {
    items: VecDeque<Datagram>,
    limit: usize,
}

impl DatagramBatch {
    /// An empty batch of at most `limit` datagrams, with room for as many.
    pub fn new(limit: usize) -> Self {
        Self { items: VecDeque::with_capacity(limit), limit }
    }

    /// An empty batch of at most `limit` datagrams, with room for `room` at first: for who knows that
    /// there can hardly be more.
    pub fn with_room(limit: usize, room: usize) -> Self {
        Self { items: VecDeque::with_capacity(room.min(limit)), limit }
    }

    /// Appends a datagram.
    ///
    /// # Errors
    /// The datagram itself when the batch is full.
    pub fn push(&mut self, datagram: Datagram) -> Result<(), Datagram> {
        if self.items.len() == self.limit {
            return Err(datagram);
        }
        self.items.push_back(datagram);
        Ok(())
    }

    /// Takes the first datagram.
    pub fn pop(&mut self) -> Option<Datagram> {
        let first = self.items.pop_front();
        if self.items.is_empty() {
            // Begins at its first place again: a batch that mostly has a few touches the memory of a
            // few, not of all that it could have.
            self.items.clear();
        }
        first
    }

    /// Datagrams in the batch.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Datagrams that still fit.
    pub fn room(&self) -> usize {
        self.limit - self.items.len()
    }

    /// The datagrams, first to last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Datagram> {
        self.items.iter()
    }

    /// The datagrams, first to last, to be changed in place.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Datagram> {
        self.items.iter_mut()
    }

    /// Keeps of the datagrams from index `first` on those that `keep` says, which may change them;
    /// the others are dropped.
    pub fn retain_from(&mut self, first: usize, mut keep: impl FnMut(&mut Datagram) -> bool) {
        let mut index = 0;
        self.items.retain_mut(|datagram| {
            index += 1;
            index <= first || keep(datagram)
        });
    }

    /// Drops all datagrams; their buffers go back to their pool.
    pub fn clear(&mut self) {
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_returns_to_its_pool_when_dropped() {
        let pool = PacketPool::new(2);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert_eq!(pool.outstanding(), 2);
        drop(first);
        assert_eq!(pool.outstanding(), 1);
        drop(second);
        assert_eq!(pool.outstanding(), 0);
        assert!(pool.take().is_some());
    }

    #[test]
    fn buffers_that_were_made_ahead_are_the_ones_that_go_out() {
        let pool = PacketPool::new(4);
        let made = || pool.shared.stock.free.borrow().len() + pool.outstanding();
        let first = pool.take().unwrap();
        pool.make(3);
        assert_eq!((pool.outstanding(), made()), (1, 3));
        pool.make(2);
        assert_eq!(made(), 3, "fewer than there are");
        pool.make(100);
        assert_eq!(made(), 4, "no more than the limit");
        drop(first);
        let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((all.len(), made()), (4, 4));
        assert!(pool.is_sound());
    }

    #[test]
    fn a_buffer_that_is_used_again_says_nothing_about_congestion() {
        let pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        assert_eq!(packet.ecn(), Ecn::Incapable);
        for bits in 0..=255 {
            packet.set_ecn(Ecn::from_bits(bits));
            assert_eq!(packet.ecn().bits(), bits & 3);
        }
        assert_eq!(packet.ecn(), Ecn::Congested);
        drop(packet);
        assert_eq!(pool.take().unwrap().ecn(), Ecn::Incapable);
        assert_eq!(
            [0, 1, 2, 3].map(|bits| Ecn::from_bits(bits).can_be_marked()),
            [false, true, true, false]
        );
    }

    #[test]
    fn a_buffer_too_many_is_noticed() {
        let pool = PacketPool::new(2);
        drop(pool.take());
        assert!(pool.is_sound());
        let bytes = Some(Box::new([0; PACKET_BYTES_MAX]));
        let pool_shared = Rc::clone(&pool.shared);
        drop(PacketBuf { bytes, len: 0, ecn: Ecn::Incapable, pool: pool_shared });
        assert!(!pool.is_sound(), "one came back that never went out");
        pool.shared.out.set(2);
        assert!(pool.is_sound());
        pool.shared.out.set(3);
        assert!(!pool.is_sound(), "more than the limit");
    }

    #[test]
    fn pools_of_one_stock_share_buffers_and_keep_limits_of_their_own() {
        let stock = PacketStock::default();
        let pools = [(); 2].map(|()| PacketPool::of_stock(&stock, 1));
        let mut packet = pools[0].take().unwrap();
        assert!(packet.fill(b"mine"));
        assert!(pools[0].take().is_none(), "its limit");
        assert_eq!(pools[1].outstanding(), 0);
        drop(packet);
        let other = pools[1].take().unwrap();
        assert_eq!((other.len(), stock.free.borrow().len()), (0, 0), "the one buffer there is");
        drop(other);
        assert_eq!(stock.free.borrow().len(), 1);
        assert!(pools.iter().all(|pool| pool.is_sound() && pool.outstanding() == 0));
    }

    #[test]
    fn a_stock_gives_back_what_nobody_takes() {
        let stock = PacketStock::default();
        let pool = PacketPool::of_stock(&stock, 8);
        let all: Vec<_> = (0..8).filter_map(|_| pool.take()).collect();
        drop(all);
        stock.fit();
        for _ in 0..2 {
            drop([pool.take(), pool.take()]);
            stock.fit();
        }
        assert_eq!(stock.free.borrow().len(), 2);
        assert!(pool.is_sound());
    }

    #[test]
    fn a_batch_with_little_room_keeps_its_limit() {
        let pool = PacketPool::new(3);
        let mut batch = DatagramBatch::with_room(2, 1);
        assert_eq!(batch.room(), 2);
        assert!(batch.items.capacity() < DatagramBatch::new(64).items.capacity());
        for is_taken in [true, true, false] {
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let datagram = Datagram { peer, at: Timestamp::START, packet: pool.take().unwrap() };
            assert_eq!(batch.push(datagram).is_ok(), is_taken);
        }
    }

    #[test]
    fn a_buffer_outlives_the_handle_of_its_pool() {
        let pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        drop(pool);
        assert!(packet.fill(b"still here"));
        assert_eq!(&*packet, b"still here");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        assert!(!packet.fill(&[0; PACKET_BYTES_MAX + 1]));
        packet.set_len(usize::MAX);
        assert_eq!(packet.len(), PACKET_BYTES_MAX);
    }

    #[test]
    fn a_full_batch_gives_the_datagram_back() {
        let pool = PacketPool::new(2);
        let datagram = || Datagram {
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            at: Timestamp::START,
            packet: pool.take().unwrap(),
        };
        let mut batch = DatagramBatch::new(1);
        assert!(batch.push(datagram()).is_ok());
        assert!(batch.push(datagram()).is_err());
        assert_eq!(pool.outstanding(), 1);
        batch.clear();
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn only_what_came_last_is_looked_at_again() {
        let pool = PacketPool::new(4);
        let mut batch = DatagramBatch::new(4);
        for port in 1..=4 {
            let peer = SocketAddr::from(([127, 0, 0, 1], port));
            let packet = pool.take().unwrap();
            assert!(batch.push(Datagram { peer, at: Timestamp::START, packet }).is_ok());
        }
        batch.retain_from(2, |datagram| {
            let kept = datagram.peer.port() == 4;
            datagram.peer.set_port(40);
            kept
        });
        let ports: Vec<_> = batch.iter().map(|datagram| datagram.peer.port()).collect();
        assert_eq!(ports, [1, 2, 40]);
        assert_eq!(pool.outstanding(), 3);
    }

    #[test]
    fn debug_output_shows_no_payload() {
        let pool = PacketPool::new(1);
        let mut packet = pool.take().unwrap();
        assert!(packet.fill(b"secret"));
        assert_eq!(format!("{packet:?}"), "PacketBuf { len: 6 }");
    }
}
