//! What a publisher keeps: its last messages as frames, in one ring of bytes that all its links read.
//!
//! //= hub 9.4

use std::collections::VecDeque;

use super::wire::{HEAD_BYTES, Kind, head};

/// Bytes of the ring where the longest message is short.
const RING_BYTES_MIN: usize = 64 << 10;
/// Bytes beyond which the ring has room for two of the longest messages alone.
const RING_BYTES_USUAL: usize = 4 << 20;

/// One message in the ring.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its frame begins, counted from the first byte ever written.
    at: u64,
    /// Bytes of the frame.
    bytes: usize,
    /// Bytes of the message before it was packed.
    message: usize,
    is_packed: bool,
}

/// A message as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept<'a> {
    pub(crate) is_packed: bool,
    /// Its body, in two pieces.
    pub(crate) body: [&'a [u8]; 2],
}

impl Kept<'_> {
    /// Bytes of the body.
    pub(crate) const fn len(&self) -> usize {
        let [front, back] = self.body;
        front.len() + back.len()
    }
}

/// A ring of frames.
///
/// Places are counted from the first byte that was ever written, so that they never wrap; a link's
/// cursor is such a place.
#[derive(Debug)]
pub(crate) struct Log {
    ring: Vec<u8>,
    entries: VecDeque<Entry>,
    /// The number of the oldest message that is kept.
    first: u64,
    /// Where the next frame begins.
    end: u64,
    /// Messages that are kept at most.
    depth: usize,
}

impl Log {
    /// A log of at most `depth` messages, of which the longest has `message_bytes_max` bytes.
    pub(crate) fn new(depth: u32, message_bytes_max: usize) -> Self {
        let depth = depth.max(1) as usize;
        let frame = message_bytes_max + crate::compress::PACKED_HEAD_BYTES + HEAD_BYTES;
        let usual = frame.saturating_mul(depth).clamp(RING_BYTES_MIN, RING_BYTES_USUAL);
        let bytes = usual.max(2 * frame);
        // Zeroed memory that was never written is not there yet.
        Self { ring: vec![0; bytes], entries: VecDeque::new(), first: 0, end: 0, depth }
    }

    /// Whether a frame with such a body has room without losing an old one.
    pub(crate) fn has_room(&self, body: usize) -> bool {
        let held = self.entries.front().map_or(0, |oldest| (self.end - oldest.at) as usize);
        self.entries.len() < self.depth && held + HEAD_BYTES + body <= self.ring.len()
    }

    /// Appends a message, which has so many bytes when it is not packed, and gives its number. There
    /// must be room.
    pub(crate) fn push(&mut self, kind: Kind, body: &[u8], message: usize) -> u64 {
        let is_packed = kind == Kind::Packed;
        let entry = Entry { at: self.end, bytes: HEAD_BYTES + body.len(), message, is_packed };
        self.write(&head(kind, body.len()));
        self.write(body);
        self.entries.push_back(entry);
        self.next() - 1
    }

    fn write(&mut self, bytes: &[u8]) {
        let at = (self.end % self.ring.len() as u64) as usize;
        let (front, back) = bytes.split_at(bytes.len().min(self.ring.len() - at));
        if let Some(place) = self.ring.get_mut(at..at + front.len()) {
            place.copy_from_slice(front);
        }
        if let Some(place) = self.ring.get_mut(..back.len()) {
            place.copy_from_slice(back);
        }
        self.end += bytes.len() as u64;
    }

    /// Forgets the oldest message.
    pub(crate) fn drop_oldest(&mut self) {
        if self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// The number of the oldest message that is kept; that of the next one where none is.
    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next message gets.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// Where the frame of a message begins; the end for one that is not there yet, the oldest for one
    /// that is there no more.
    pub(crate) fn place(&self, number: u64) -> u64 {
        let index = self.index(number).unwrap_or(0);
        self.entries.get(index).map_or(self.end, |entry| entry.at)
    }

    /// A message; `None` where it is not there yet, or no more.
    pub(crate) fn message(&self, number: u64) -> Option<Kept<'_>> {
        let entry = self.entries.get(self.index(number)?)?;
        let body = self.bytes(entry.at + HEAD_BYTES as u64, entry.at + entry.bytes as u64);
        Some(Kept { is_packed: entry.is_packed, body })
    }

    /// The first message whose frame does not end before or at this place, and where its frame begins.
    pub(crate) fn at(&self, place: u64) -> (u64, u64) {
        let whole = self.entries.partition_point(|it| it.at + it.bytes as u64 <= place);
        let begins = self.entries.get(whole).map_or(self.end, |entry| entry.at);
        (self.first + whole as u64, begins)
    }

    /// Where the frames end that begin at or behind `place`, are of messages below `below`, and have
    /// no more than `bytes` together.
    pub(crate) fn limit(&self, place: u64, below: u64, bytes: u64) -> u64 {
        let most = place.saturating_add(bytes);
        if below >= self.next() && self.end <= most {
            // The usual case needs no search.
            return self.end;
        }
        let by_number = self.index(below).unwrap_or(0).min(self.entries.len());
        let by_bytes = self.entries.partition_point(|it| it.at + it.bytes as u64 <= most);
        let next = self.entries.get(by_number.min(by_bytes));
        next.map_or(self.end, |entry| entry.at).max(place)
    }

    /// The first message from `number` on that is longer than `longest`; the next one that is
    /// published where none is.
    pub(crate) fn longer(&self, number: u64, longest: usize) -> u64 {
        let index = self.index(number).unwrap_or(0);
        let rest = self.entries.iter().skip(index);
        let fitting = rest.take_while(|entry| entry.message <= longest).count();
        (self.first + index as u64 + fitting as u64).min(self.next())
    }

    /// The bytes between two places, in two pieces.
    pub(crate) fn bytes(&self, from: u64, to: u64) -> [&[u8]; 2] {
        let size = self.ring.len() as u64;
        let length = (to.saturating_sub(from)).min(size) as usize;
        let at = (from % size) as usize;
        let front = self.ring.get(at..(at + length).min(self.ring.len())).unwrap_or_default();
        let back = self.ring.get(..length - front.len()).unwrap_or_default();
        [front, back]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(log: &Log, from: u64, to: u64) -> Vec<u8> {
        log.bytes(from, to).concat()
    }

    #[test]
    fn frames_follow_one_another_and_are_found_by_number_and_place() {
        let mut log = Log::new(3, 100);
        assert_eq!((log.first(), log.next(), log.place(0)), (0, 0, 0));
        assert_eq!(log.push(Kind::Message, b"ab", 2), 0);
        assert_eq!(log.push(Kind::Packed, b"cde", 90), 1);
        assert_eq!(log.push(Kind::Message, b"", 0), 2);
        assert!(!log.has_room(0), "three are kept at most");
        assert_eq!(text(&log, 0, 6), b"\x02\0\0\0ab");
        assert_eq!([0, 1, 2, 3, 9].map(|number| log.place(number)), [0, 6, 13, 17, 17]);
        assert_eq!([0, 5, 6, 12, 13, 17].map(|place| log.at(place).0), [0, 0, 1, 1, 2, 3]);
        assert_eq!(log.at(12).1, 6, "where the frame that it is in begins");
        // By number, by bytes, whole frames alone.
        assert_eq!(log.limit(0, 9, 100), 17);
        assert_eq!(log.limit(0, 1, 100), 6);
        assert_eq!([5, 6, 12, 13].map(|bytes| log.limit(0, 9, bytes)), [0, 6, 6, 13]);
        assert_eq!(log.limit(6, 0, 100), 6, "never before the place");
        assert_eq!(
            [(0, 89), (0, 90), (2, 0)].map(|(from, most)| log.longer(from, most)),
            [1, 3, 3]
        );
        let kept = log.message(1).unwrap();
        assert_eq!((kept.is_packed, kept.body.concat(), kept.len()), (true, b"cde".to_vec(), 3));
        assert!(!log.message(0).unwrap().is_packed);
        assert_eq!(log.message(3), None, "it is not there yet");
        log.drop_oldest();
        assert_eq!(log.message(0), None, "it is there no more");
        assert!(log.has_room(100));
        assert_eq!((log.first(), log.next(), log.place(0)), (1, 3, 6));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_pushed_last(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3_000), 1..80),
        ) {
            // Small enough to wrap.
            let mut log = Log::new(16, 3_000);
            let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
            for (number, body) in bodies.iter().enumerate() {
                while !log.has_room(body.len()) {
                    log.drop_oldest();
                    kept.pop_front();
                }
                prop_assert_eq!(log.push(Kind::Message, body, body.len()), number as u64);
                kept.push_back(body.clone());
                prop_assert!(kept.len() <= 16);
                for (number, body) in (log.first()..).zip(&kept) {
                    let frame = [&head(Kind::Message, body.len())[..], body].concat();
                    let from = log.place(number);
                    prop_assert_eq!(text(&log, from, log.place(number + 1)), frame);
                    prop_assert_eq!(log.at(from), (number, from));
                }
                prop_assert_eq!(log.next(), log.first() + kept.len() as u64);
            }
        }
    }
}
