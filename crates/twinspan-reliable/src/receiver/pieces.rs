//! Frames that wait for others: pieces of messages, and whole messages ahead of their turn.

use crate::buffers::{Buffers, make_room};
use crate::config::FRAME_CHARGE_BYTES;

/// The end of a list.
const NONE: u32 = u32::MAX;

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

/// Where an assembly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// What is held, in recycled slots and buffers.
///
/// Nothing is sized by what the wire says of lengths or counts: a piece takes the bytes that came.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    free_piece: u32,
    assemblies: Vec<Assembly>,
    free_assembly: u32,
    buffers: Buffers,
}

impl Pieces {
    pub(super) fn new(idle_bytes_max: usize) -> Self {
        Self {
            pieces: Vec::new(),
            free_piece: NONE,
            assemblies: Vec::new(),
            free_assembly: NONE,
            buffers: Buffers::new(idle_bytes_max),
        }
    }

    /// A message of which nothing has arrived.
    pub(super) fn open(&mut self, last: u8) -> Id {
        let assembly = Assembly { have: 0, head: NONE, bytes: 0, last };
        if let Some(old) = self.assemblies.get_mut(self.free_assembly as usize) {
            let id = Id(self.free_assembly);
            self.free_assembly = old.head;
            *old = assembly;
            return id;
        }
        make_room(&mut self.assemblies, 1);
        self.assemblies.push(assembly);
        Id((self.assemblies.len() - 1) as u32)
    }

    fn get(&self, id: Id) -> Option<&Assembly> {
        self.assemblies.get(id.0 as usize)
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
        let piece = self.take_piece(index, body);
        let Some(assembly) = self.assemblies.get_mut(id.0 as usize) else {
            return;
        };
        assembly.have |= 1 << index;
        assembly.bytes += body.len() as u32;
        // The list stays sorted, so that putting it together is one walk.
        let mut before = NONE;
        let mut after = assembly.head;
        while let Some(other) = self.pieces.get(after as usize)
            && other.index < index
        {
            before = after;
            after = other.next;
        }
        if let Some(new) = self.pieces.get_mut(piece as usize) {
            new.next = after;
        }
        match self.pieces.get_mut(before as usize) {
            Some(before) => before.next = piece,
            None => assembly.head = piece,
        }
    }

    fn take_piece(&mut self, index: u8, body: &[u8]) -> u32 {
        let new = Piece { body: self.buffers.copy(body), next: NONE, index };
        let place = self.free_piece;
        let Some(piece) = self.pieces.get_mut(place as usize) else {
            self.pieces.push(new);
            return (self.pieces.len() - 1) as u32;
        };
        self.free_piece = piece.next;
        *piece = new;
        place
    }

    /// Lends the whole message and frees it.
    pub(super) fn finish(&mut self, id: Id, lend: &mut dyn FnMut(&[u8])) {
        let head = self.get(id).map_or(NONE, |assembly| assembly.head);
        if let Some(first) = self.pieces.get(head as usize)
            && first.next == NONE
        {
            lend(&first.body);
        } else {
            let mut whole = self.buffers.take(self.bytes(id));
            let mut place = head;
            while let Some(piece) = self.pieces.get(place as usize) {
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
        let Some(assembly) = self.assemblies.get_mut(id.0 as usize) else {
            return;
        };
        let mut place = assembly.head;
        assembly.head = self.free_assembly;
        self.free_assembly = id.0;
        while let Some(piece) = self.pieces.get_mut(place as usize) {
            self.buffers.put(core::mem::take(&mut piece.body));
            let next = piece.next;
            piece.next = self.free_piece;
            self.free_piece = place;
            place = next;
        }
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let bodies: usize = self.pieces.iter().map(|piece| piece.body.capacity()).sum();
        self.pieces.capacity() * size_of::<Piece>()
            + self.assemblies.capacity() * size_of::<Assembly>()
            + self.buffers.heap_bytes()
            + bodies
    }
}
