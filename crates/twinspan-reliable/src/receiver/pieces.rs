//! Frames that wait for others: pieces of messages, and whole messages ahead of their turn.

use crate::buffers::Buffers;
use crate::config::FRAME_CHARGE_BYTES;
use crate::table::{NONE, Slot, Table};

/// Pieces for which there is room from the first one on.
const PIECES_FIRST: usize = 4;

/// The body of one frame.
#[derive(Debug)]
struct Piece {
    body: Vec<u8>,
    /// The piece after it in its message, or the next free one.
    next: u32,
    index: u8,
}

/// One message as far as it has arrived.
#[derive(Clone, Copy, Debug)]
struct Assembly {
    /// Bit `i` for fragment `i`.
    have: u64,
    /// Its pieces in order of index, or the next free assembly.
    head: u32,
    bytes: u32,
    last: u8,
}

impl Slot for Piece {
    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, link: u32) {
        self.next = link;
    }
}

impl Slot for Assembly {
    fn link(&self) -> u32 {
        self.head
    }

    fn set_link(&mut self, link: u32) {
        self.head = link;
    }
}

/// Where an assembly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// What is held, in recycled slots and buffers.
///
/// Nothing is sized by what the wire says of lengths or counts: a piece takes the bytes that came.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Table<Piece>,
    assemblies: Table<Assembly>,
    buffers: Buffers,
}

impl Pieces {
    pub(super) fn new(idle_bytes_max: usize) -> Self {
        let buffers = Buffers::new(idle_bytes_max);
        Self { pieces: Table::new(), assemblies: Table::new(), buffers }
    }

    /// A message of which nothing has arrived.
    pub(super) fn open(&mut self, last: u8) -> Id {
        Id(self.assemblies.put(Assembly { have: 0, head: NONE, bytes: 0, last }, 1))
    }

    fn get(&self, id: Id) -> Option<&Assembly> {
        self.assemblies.get(id.0)
    }

    /// Index of the last fragment of the message.
    pub(super) fn last(&self, id: Id) -> Option<u8> {
        self.get(id).map(|assembly| assembly.last)
    }

    pub(super) fn has(&self, id: Id, index: u8) -> bool {
        self.get(id).is_some_and(|assembly| assembly.have >> index & 1 == 1)
    }

    pub(super) fn is_whole(&self, id: Id) -> bool {
        let whole = |last: u8| u64::MAX >> (63 - u32::from(last.min(63)));
        self.get(id).is_some_and(|assembly| assembly.have == whole(assembly.last))
    }

    /// Bytes of the message so far.
    pub(super) fn bytes(&self, id: Id) -> usize {
        self.get(id).map_or(0, |assembly| assembly.bytes as usize)
    }

    /// What the message so far costs of credit.
    pub(super) fn charged(&self, id: Id) -> u64 {
        self.get(id).map_or(0, |assembly| {
            u64::from(assembly.bytes) + FRAME_CHARGE_BYTES * u64::from(assembly.have.count_ones())
        })
    }

    /// Adds a piece that the message does not have yet.
    pub(super) fn add(&mut self, id: Id, index: u8, body: &[u8]) {
        let new = Piece { body: self.buffers.copy(body), next: NONE, index };
        let piece = self.pieces.put(new, PIECES_FIRST);
        let Some(assembly) = self.assemblies.get_mut(id.0) else {
            return;
        };
        assembly.have |= 1 << index;
        assembly.bytes += body.len() as u32;
        // The list stays sorted, so that putting it together is one walk.
        let mut before = NONE;
        let mut after = assembly.head;
        while let Some(other) = self.pieces.get(after)
            && other.index < index
        {
            before = after;
            after = other.next;
        }
        if let Some(new) = self.pieces.get_mut(piece) {
            new.next = after;
        }
        match self.pieces.get_mut(before) {
            Some(before) => before.next = piece,
            None => assembly.head = piece,
        }
    }

    /// Lends the whole message and frees it.
    pub(super) fn finish(&mut self, id: Id, lend: &mut dyn FnMut(&[u8])) {
        let head = self.get(id).map_or(NONE, |assembly| assembly.head);
        if let Some(first) = self.pieces.get(head)
            && first.next == NONE
        {
            lend(&first.body);
        } else {
            let mut whole = self.buffers.take(self.bytes(id));
            let mut place = head;
            while let Some(piece) = self.pieces.get(place) {
                whole.extend_from_slice(&piece.body);
                place = piece.next;
            }
            lend(&whole);
            self.buffers.put(whole);
        }
        self.release(id);
    }

    /// Frees a message and its pieces.
    pub(super) fn release(&mut self, id: Id) {
        let Some(assembly) = self.assemblies.get(id.0) else {
            return;
        };
        let mut place = assembly.head;
        self.assemblies.release(id.0);
        while let Some(piece) = self.pieces.get_mut(place) {
            self.buffers.put(core::mem::take(&mut piece.body));
            let next = piece.next;
            self.pieces.release(place);
            place = next;
        }
    }

    /// A period ended: what was not needed is given back.
    pub(super) fn fit(&mut self) {
        self.pieces.fit(PIECES_FIRST);
        self.assemblies.fit(1);
        self.buffers.fit();
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let bodies: usize = self.pieces.slots().iter().map(|piece| piece.body.capacity()).sum();
        self.pieces.heap_bytes() + self.assemblies.heap_bytes() + self.buffers.heap_bytes() + bodies
    }
}
