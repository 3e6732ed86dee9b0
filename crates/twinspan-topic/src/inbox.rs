//! Messages that came and were not taken yet: bounded, first in, first out.

use std::collections::VecDeque;

use twinspan_core::taken::{Room, Taken};

use crate::chunk::next_record;

/// Idle buffers of either size that are kept.
const IDLE_MAX: usize = 4_096;
/// Bytes of idle buffers that are kept.
const IDLE_BYTES_MAX: usize = 16 << 20;
/// Longer buffers are for long messages.
const SHORT_BYTES_MAX: usize = 16 << 10;
/// Publishers whose losses are remembered until their next message.
const OWED_MAX: usize = 64;

/// What happens to messages that find the inbox full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest give way, and count as lost.
    DropOldest,
    /// They are dropped, and count as lost.
    DropNew,
    /// They are kept: for roads that hold their publishers back by other means, which are the bound.
    Keep,
}

/// How much an inbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Messages.
    pub messages_max: u64,
    /// Their bytes.
    pub bytes_max: usize,
    /// What happens to more.
    pub overflow: Overflow,
}

/// What an inbox saw so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxStats {
    /// Messages taken.
    pub taken: u64,
    /// Messages missed.
    pub lost: u64,
    /// Messages of a length that the type does not have.
    pub corrupt: u64,
}

/// One message, or some behind each other with their lengths before them.
#[derive(Debug)]
struct Slot {
    publisher: u64,
    /// The number of the next message to take.
    number: u64,
    /// Messages left.
    count: u64,
    /// Missed before the next one.
    lost: u64,
    /// Where the next record is; a whole message has no records.
    at: usize,
    is_whole: bool,
    /// Whether each begins with a byte that says how it is packed.
    is_packed: bool,
    bytes: Vec<u8>,
}

impl Slot {
    /// One message.
    const fn whole(
        (publisher, is_packed): (u64, bool),
        number: u64,
        lost: u64,
        bytes: Vec<u8>,
    ) -> Self {
        Self { publisher, number, count: 1, lost, at: 0, is_whole: true, is_packed, bytes }
    }
}

/// Copies a message to a place of its own length: its length, or nothing where there is no such place.
#[inline]
pub fn copy_to(message: &[u8], room: &mut (impl Room + ?Sized)) -> Option<usize> {
    let place = room.room(message.len()).filter(|place| place.len() == message.len())?;
    place.copy_from_slice(message);
    Some(message.len())
}

/// Messages that came and were not taken yet.
#[derive(Debug)]
pub struct Inbox {
    limits: InboxLimits,
    slots: VecDeque<Slot>,
    messages: u64,
    bytes: usize,
    short: Vec<Vec<u8>>,
    long: Vec<Vec<u8>>,
    idle_bytes: usize,
    /// Losses of publishers of whom nothing is here.
    owed: Vec<(u64, u64)>,
    stats: InboxStats,
}

impl Inbox {
    /// An empty one.
    pub fn new(limits: InboxLimits) -> Self {
        Self {
            limits,
            slots: VecDeque::new(),
            messages: 0,
            bytes: 0,
            short: Vec::new(),
            long: Vec::new(),
            idle_bytes: 0,
            owed: Vec::new(),
            stats: InboxStats::default(),
        }
    }

    /// Whether nothing is here.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Messages that are here.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether the limits are reached.
    pub const fn is_full(&self) -> bool {
        self.messages >= self.limits.messages_max || self.bytes >= self.limits.bytes_max
    }

    /// What was seen so far.
    pub const fn stats(&self) -> InboxStats {
        self.stats
    }

    /// Appends the messages of a chunk that was walked through, packed ones if `is_packed`.
    pub(crate) fn push_records(
        &mut self,
        (publisher, is_packed): (u64, bool),
        lost: u64,
        (number, count): (u64, u64),
        records: &[u8],
    ) {
        if self.makes_room(publisher, lost, count) {
            let mut bytes = self.spare(records.len());
            bytes.extend_from_slice(records);
            let (at, is_whole) = (0, false);
            self.push(Slot { publisher, number, count, lost, at, is_whole, is_packed, bytes });
        }
    }

    /// Appends a message. `lost`: messages of its publisher missed before it.
    pub fn push_message(&mut self, publisher: u64, number: u64, lost: u64, message: &[u8]) {
        if self.makes_room(publisher, lost, 1) {
            let mut bytes = self.spare(message.len());
            bytes.extend_from_slice(message);
            self.push(Slot::whole((publisher, false), number, lost, bytes));
        }
    }

    /// The same with memory that the inbox keeps; [`spare`](Self::spare) gives some of it.
    pub fn push_owned(&mut self, publisher: u64, number: u64, lost: u64, bytes: Vec<u8>) {
        self.push_assembled((publisher, false), number, lost, bytes);
    }

    /// The same, packed if the second of the pair says so.
    pub(crate) fn push_assembled(
        &mut self,
        of: (u64, bool),
        number: u64,
        lost: u64,
        bytes: Vec<u8>,
    ) {
        if self.makes_room(of.0, lost, 1) {
            self.push(Slot::whole(of, number, lost, bytes));
        } else {
            self.recycle(bytes);
        }
    }

    /// Counts messages that were missed; the next one of their publisher tells.
    pub fn push_lost(&mut self, publisher: u64, lost: u64) {
        self.stats.lost = self.stats.lost.saturating_add(lost);
        self.owe(publisher, lost);
    }

    /// Whether messages may be appended; where not, they have been counted.
    fn makes_room(&mut self, publisher: u64, lost: u64, count: u64) -> bool {
        match self.limits.overflow {
            Overflow::Keep => {}
            Overflow::DropNew if self.is_full() => {
                self.push_lost(publisher, lost.saturating_add(count));
                return false;
            }
            Overflow::DropNew => {}
            Overflow::DropOldest => {
                while self.is_full() && !self.slots.is_empty() {
                    self.drop_oldest();
                }
            }
        }
        true
    }

    fn push(&mut self, mut slot: Slot) {
        self.stats.lost = self.stats.lost.saturating_add(slot.lost);
        if !self.owed.is_empty()
            && let Some(at) = self.owed.iter().position(|(of, _)| *of == slot.publisher)
        {
            slot.lost = slot.lost.saturating_add(self.owed.swap_remove(at).1);
        }
        self.messages += slot.count;
        self.bytes += slot.bytes.len();
        self.slots.push_back(slot);
    }

    #[cold]
    fn drop_oldest(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        self.messages -= slot.count;
        self.bytes -= slot.bytes.len();
        self.stats.lost = self.stats.lost.saturating_add(slot.count);
        self.pass_on(slot.publisher, slot.lost.saturating_add(slot.count));
        self.recycle(slot.bytes);
    }

    /// Lets the next message of a publisher tell of losses.
    fn pass_on(&mut self, publisher: u64, lost: u64) {
        match self.slots.iter_mut().find(|next| next.publisher == publisher) {
            Some(next) => next.lost = next.lost.saturating_add(lost),
            None => self.owe(publisher, lost),
        }
    }

    fn owe(&mut self, publisher: u64, lost: u64) {
        if lost == 0 {
            return;
        }
        match self.owed.iter_mut().find(|(of, _)| *of == publisher) {
            Some((_, owed)) => *owed = owed.saturating_add(lost),
            None => {
                // The total counts them in any case; it is the oldest publisher's gap that is not told.
                if self.owed.len() >= OWED_MAX {
                    self.owed.remove(0);
                }
                self.owed.push((publisher, lost));
            }
        }
    }

    /// Takes the oldest message. Packed ones count as corrupt: who may meet some takes them by
    /// [`take_by`](Self::take_by).
    #[inline]
    pub fn take(&mut self, room: &mut (impl Room + ?Sized)) -> Option<Taken> {
        self.take_by(|message, is_packed| if is_packed { None } else { copy_to(message, room) })
    }

    /// Takes the oldest message that `copy` copies to where it belongs, which says how long it is there.
    /// `copy` is told whether the message begins with a byte that says how it is packed; what it refuses is
    /// corrupt.
    #[inline]
    pub fn take_by(&mut self, mut copy: impl FnMut(&[u8], bool) -> Option<usize>) -> Option<Taken> {
        loop {
            let slot = self.slots.front_mut()?;
            let (publisher, number, lost) = (slot.publisher, slot.number, slot.lost);
            let message = if slot.is_whole {
                slot.bytes.as_slice()
            } else {
                let left = slot.bytes.get(slot.at..).unwrap_or_default();
                // The records were walked through before they came here.
                let (message, _) = next_record(left).unwrap_or_default();
                slot.at += message.len() + crate::chunk::RECORD_BYTES;
                message
            };
            let copied = copy(message, slot.is_packed);
            slot.number += 1;
            slot.count -= 1;
            slot.lost = if copied.is_some() { 0 } else { lost.saturating_add(1) };
            self.messages -= 1;
            if slot.count == 0 {
                let carried = slot.lost;
                self.finish_front();
                if carried > 0 {
                    self.pass_on(publisher, carried);
                }
            }
            if let Some(bytes) = copied {
                self.stats.taken += 1;
                return Some(Taken { publisher, number, lost, bytes });
            }
            self.stats.corrupt += 1;
        }
    }

    fn finish_front(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.bytes -= slot.bytes.len();
            self.recycle(slot.bytes);
        }
    }

    /// An empty buffer for `length` bytes, used before if there is one.
    pub fn spare(&mut self, length: usize) -> Vec<u8> {
        let kind = if length > SHORT_BYTES_MAX { &mut self.long } else { &mut self.short };
        let Some(bytes) = kind.pop() else { return Vec::with_capacity(length) };
        self.idle_bytes -= bytes.capacity();
        bytes
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        let capacity = bytes.capacity();
        let kind = if capacity > SHORT_BYTES_MAX { &mut self.long } else { &mut self.short };
        if capacity > 0 && kind.len() < IDLE_MAX && self.idle_bytes + capacity <= IDLE_BYTES_MAX {
            bytes.clear();
            self.idle_bytes += capacity;
            kind.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(messages_max: u64, overflow: Overflow) -> Inbox {
        Inbox::new(InboxLimits { messages_max, bytes_max: 1_000, overflow })
    }

    fn take(inbox: &mut Inbox) -> Option<(u64, u64, u64, Vec<u8>)> {
        let mut bytes = Vec::new();
        let Taken { publisher, number, lost, .. } = inbox.take(&mut bytes)?;
        Some((publisher, number, lost, bytes))
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let mut inbox = inbox(10, Overflow::DropOldest);
        inbox.push_records((1, false), 2, (5, 2), b"\x01\0a\x02\0bc");
        inbox.push_message(2, 0, 0, b"whole");
        assert_eq!(inbox.messages(), 3);
        assert_eq!(take(&mut inbox), Some((1, 5, 2, b"a".to_vec())));
        assert_eq!(take(&mut inbox), Some((1, 6, 0, b"bc".to_vec())));
        assert_eq!(take(&mut inbox), Some((2, 0, 0, b"whole".to_vec())));
        assert_eq!(take(&mut inbox), None);
        assert_eq!(inbox.stats(), InboxStats { taken: 3, lost: 2, corrupt: 0 });
    }

    #[test]
    fn what_gives_way_is_told_by_the_next_of_its_publisher() {
        let mut inbox = inbox(2, Overflow::DropOldest);
        inbox.push_message(1, 0, 0, b"a");
        inbox.push_message(2, 0, 0, b"b");
        inbox.push_message(2, 1, 0, b"c");
        inbox.push_message(1, 1, 0, b"d");
        assert_eq!(take(&mut inbox), Some((2, 1, 1, b"c".to_vec())));
        assert_eq!(take(&mut inbox), Some((1, 1, 1, b"d".to_vec())));
        assert_eq!(inbox.stats(), InboxStats { taken: 2, lost: 2, corrupt: 0 });
    }

    #[test]
    fn what_finds_no_room_is_told_by_the_next_that_does() {
        let mut inbox = inbox(1, Overflow::DropNew);
        inbox.push_message(1, 0, 0, b"a");
        inbox.push_records((1, false), 0, (1, 2), b"\0\0\0\0");
        assert_eq!(take(&mut inbox), Some((1, 0, 0, b"a".to_vec())));
        inbox.push_message(1, 3, 0, b"b");
        assert_eq!(take(&mut inbox), Some((1, 3, 2, b"b".to_vec())));
        assert_eq!(inbox.stats(), InboxStats { taken: 2, lost: 2, corrupt: 0 });
    }

    #[test]
    fn a_message_of_another_length_is_corrupt_and_missed() {
        struct Four([u8; 4]);
        impl Room for Four {
            fn room(&mut self, length: usize) -> Option<&mut [u8]> {
                (length == 4).then_some(&mut self.0[..])
            }
        }
        let mut inbox = inbox(9, Overflow::Keep);
        inbox.push_message(1, 0, 0, b"abc");
        inbox.push_message(1, 1, 0, b"abcd");
        let mut four = Four([0; 4]);
        let taken = inbox.take(&mut four);
        assert_eq!(taken, Some(Taken { publisher: 1, number: 1, lost: 1, bytes: 4 }));
        inbox.push_message(1, 2, 0, b"abc");
        assert_eq!(inbox.take(&mut four), None);
        inbox.push_message(1, 3, 0, b"efgh");
        assert_eq!(inbox.take(&mut four).map(|taken| taken.lost), Some(1));
        assert_eq!((inbox.stats().corrupt, inbox.stats().lost), (2, 0));
    }

    #[test]
    fn what_is_packed_is_said_to_who_copies() {
        let mut inbox = inbox(9, Overflow::Keep);
        inbox.push_records((1, true), 0, (0, 2), b"\x02\0\0a\x01\0b");
        inbox.push_message(2, 0, 0, b"plain");
        inbox.push_assembled((1, true), 2, 0, b"\0long".to_vec());
        let mut seen = Vec::new();
        let mut look = |message: &[u8], is_packed: bool| {
            seen.push((message.to_vec(), is_packed));
            message.strip_prefix(&[0]).or((!is_packed).then_some(message)).map(<[u8]>::len)
        };
        let taken: Vec<_> = std::iter::from_fn(|| inbox.take_by(&mut look))
            .map(|taken| (taken.publisher, taken.number, taken.lost, taken.bytes))
            .collect();
        // The second of the packed ones is refused, and the next of its publisher tells of it.
        assert_eq!(taken, [(1, 0, 0, 1), (2, 0, 0, 5), (1, 2, 1, 4)]);
        let packed: Vec<_> = seen.iter().map(|(_, is_packed)| *is_packed).collect();
        assert_eq!((packed.as_slice(), inbox.stats().corrupt), (&[true, true, false, true][..], 1));
        inbox.push_assembled((1, true), 3, 0, b"\0a".to_vec());
        assert_eq!((take(&mut inbox), inbox.stats().corrupt), (None, 2));
    }

    #[test]
    fn buffers_are_used_again() {
        let mut inbox = inbox(9, Overflow::Keep);
        let mut bytes = Vec::new();
        inbox.push_message(1, 0, 0, &[1; 100]);
        inbox.take(&mut bytes);
        let idle = inbox.short.first().map(Vec::as_ptr);
        inbox.push_message(1, 1, 0, &[2; 90]);
        assert_eq!(inbox.slots.front().map(|slot| slot.bytes.as_ptr()), idle);
    }
}
