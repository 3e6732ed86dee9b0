//! Messages that wait or are in flight, in slots with recycled buffers.

use crate::Channel;
use crate::buffers::Buffers;
use crate::table::{NONE, Slot, Table};

/// A slot and the use of it that is meant: what points at a message that is done points at nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    generation: u32,
}

/// Messages for which there is room from the first one on: while acks are late, those of a few ticks.
const SLOTS_FIRST: usize = 4;
/// Bytes of a message that needs no buffer; most events have fewer.
const SHORT_BYTES: usize = 30;

/// The bytes of a message.
#[derive(Debug)]
pub(crate) enum Body {
    /// In place.
    Short { len: u8, bytes: [u8; SHORT_BYTES] },
    /// In a recycled buffer.
    Long(Vec<u8>),
    /// In the caller's own, which goes back to it.
    Given(Vec<u8>),
}

const _: () = assert!(size_of::<Body>() == 32);

impl Body {
    const EMPTY: Self = Self::Short { len: 0, bytes: [0; SHORT_BYTES] };

    fn new(payload: &[u8], buffers: &mut Buffers) -> Self {
        let mut bytes = [0; SHORT_BYTES];
        match bytes.get_mut(..payload.len()) {
            Some(room) => {
                room.copy_from_slice(payload);
                Self::Short { len: payload.len() as u8, bytes }
            }
            None => Self::Long(buffers.copy(payload)),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) | Self::Given(bytes) => bytes,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Short { len, .. } => *len as usize,
            Self::Long(bytes) | Self::Given(bytes) => bytes.len(),
        }
    }
}

/// Messages in a row, linked through their slots: a lane costs twelve bytes while it is empty.
#[derive(Debug)]
pub(crate) struct Queue {
    head: u32,
    tail: u32,
    len: u32,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// One message. The sets of fragments have bit `i` for fragment `i`.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) channel: Channel,
    /// Place of the channel among the sender's channels.
    pub(crate) place: u16,
    pub(crate) fragments: u8,
    /// Whether an entry of the resend lane points here.
    pub(crate) in_resend: bool,
    generation: u32,
    /// The slot after it in its queue.
    next: u32,
    /// How often frames of it left again.
    pub(crate) resends: u32,
    pub(crate) number: u64,
    /// Packet number of its first sending; only for resends under the same number.
    pub(crate) packet: u64,
    /// Fragments that never left.
    pub(crate) waiting: u64,
    /// Fragments that were lost and must leave again.
    pub(crate) lost: u64,
    /// Fragments that the peer has.
    pub(crate) acked: u64,
    pub(crate) body: Body,
}

impl Message {
    /// All its fragments as a set.
    pub(crate) fn whole(&self) -> u64 {
        u64::MAX.checked_shr(64 - u32::from(self.fragments)).unwrap_or(0)
    }
}

impl Slot for Message {
    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, link: u32) {
        self.next = link;
    }
}

/// Slots of messages.
#[derive(Debug)]
pub(crate) struct Store {
    slots: Table<Message>,
    /// No slot has this generation, nor had: slots come and go, so they cannot count their uses.
    generation: u32,
    buffers: Buffers,
    /// Buffers of the caller's whose messages are done; boxed, for most senders never see one.
    #[expect(clippy::box_collection, reason = "8 bytes of each of thousands of sessions, not 24")]
    given_back: Option<Box<Vec<Vec<u8>>>>,
}

impl Store {
    pub(crate) fn new(idle_bytes_max: usize) -> Self {
        let buffers = Buffers::new(idle_bytes_max);
        Self { slots: Table::new(), generation: 0, buffers, given_back: None }
    }

    /// The body of a message with a copy of `payload`.
    pub(crate) fn copy(&mut self, payload: &[u8]) -> Body {
        Body::new(payload, &mut self.buffers)
    }

    /// A buffer that was given with a message that is done since.
    pub(crate) fn take_back(&mut self) -> Option<Vec<u8>> {
        self.given_back.as_mut()?.pop()
    }

    /// Puts a message into a slot. The caller limits how many slots are in use.
    pub(crate) fn insert(
        &mut self,
        channel: Channel,
        place: u16,
        number: u64,
        fragments: u8,
        body: Body,
    ) -> Key {
        let mut message = Message {
            channel,
            place,
            fragments,
            in_resend: false,
            generation: self.next_generation(),
            next: NONE,
            resends: 0,
            number,
            packet: 0,
            waiting: 0,
            lost: 0,
            acked: 0,
            body,
        };
        message.waiting = message.whole();
        let generation = message.generation;
        let slot = self.slots.put(message, SLOTS_FIRST);
        Key { slot, generation }
    }

    const fn next_generation(&mut self) -> u32 {
        let generation = self.generation;
        self.generation = generation.wrapping_add(1);
        generation
    }

    /// Frees the slot, if the key is still current.
    pub(crate) fn release(&mut self, key: Key) {
        // Of a free slot nobody has the key.
        let generation = self.next_generation();
        let Some(message) = self.get_mut(key) else {
            return;
        };
        message.generation = generation;
        let body = core::mem::replace(&mut message.body, Body::EMPTY);
        match body {
            Body::Short { .. } => {}
            Body::Long(buffer) => self.buffers.put(buffer),
            Body::Given(buffer) => self.given_back.get_or_insert_default().push(buffer),
        }
        self.slots.release(key.slot);
    }

    /// A period ended: what was not needed is given back.
    pub(crate) fn fit(&mut self) {
        self.slots.fit(SLOTS_FIRST);
        self.buffers.fit();
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Message> {
        self.slots.get(key.slot).filter(|message| message.generation == key.generation)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Message> {
        self.slots.get_mut(key.slot).filter(|message| message.generation == key.generation)
    }

    fn key(&self, slot: u32) -> Option<Key> {
        self.slots.get(slot).map(|message| Key { slot, generation: message.generation })
    }

    /// Appends a message that is in no queue.
    pub(crate) fn push_back(&mut self, queue: &mut Queue, key: Key) {
        if let Some(message) = self.slots.get_mut(key.slot) {
            message.next = NONE;
        }
        match self.slots.get_mut(queue.tail) {
            Some(tail) => tail.next = key.slot,
            None => queue.head = key.slot,
        }
        queue.tail = key.slot;
        queue.len += 1;
    }

    /// The first message of a queue.
    pub(crate) fn front(&self, queue: &Queue) -> Option<Key> {
        self.key(queue.head)
    }

    /// Takes out the first message.
    pub(crate) fn pop_front(&mut self, queue: &mut Queue) {
        self.remove_after(queue, NONE);
    }

    /// Takes out the message after the slot `before`, or the first; returns its key.
    fn remove_after(&mut self, queue: &mut Queue, before: u32) -> Option<Key> {
        let slot = self.slots.get(before).map_or(queue.head, |message| message.next);
        let key = self.key(slot)?;
        let after = self.slots.get(slot).map_or(NONE, |message| message.next);
        match self.slots.get_mut(before) {
            Some(message) => message.next = after,
            None => queue.head = after,
        }
        if after == NONE {
            queue.tail = before;
        }
        queue.len -= 1;
        Some(key)
    }

    /// Takes out the first message of which `wanted` holds.
    pub(crate) fn remove_first(
        &mut self,
        queue: &mut Queue,
        mut wanted: impl FnMut(&Message) -> bool,
    ) -> Option<Key> {
        let (mut before, mut slot) = (NONE, queue.head);
        while let Some(message) = self.slots.get(slot) {
            if wanted(message) {
                return self.remove_after(queue, before);
            }
            before = slot;
            slot = message.next;
        }
        None
    }

    /// Bytes of the heap that it holds, for tests of the bounds.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        let bodies = self.slots.slots().iter().map(|message| match &message.body {
            Body::Short { .. } => 0,
            Body::Long(buffer) | Body::Given(buffer) => buffer.capacity(),
        });
        let bodies: usize = bodies.sum();
        let given_back = self.given_back.iter().flat_map(|buffers| buffers.iter());
        let given_back: usize = given_back.map(Vec::capacity).sum();
        self.slots.heap_bytes() + self.buffers.heap_bytes() + bodies + given_back
    }
}
