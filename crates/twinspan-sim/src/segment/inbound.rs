//! The way into a connection: bytes put in order, the window, and when to acknowledge.

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_core::time::Timestamp;

use crate::store::part_of;

/// Ranges out of order that are kept; a segment that would need another is dropped and sent again.
pub(crate) const RANGES_MAX: usize = 64;
/// How long an acknowledgement may wait for company (RFC 9293, section 3.8.6.3, allows 500 ms).
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(40);
/// Full segments that are acknowledged together.
const ACK_EVERY: u32 = 2;

/// One direction of a stream, seen from who receives. Positions count as in
/// [`Outbound`](super::outbound::Outbound).
#[derive(Debug)]
pub(crate) struct Inbound {
    /// `ready` bytes to be read, and behind them what came out of order, with gaps.
    inbox: VecDeque<u8>,
    inbox_max: usize,
    ready: usize,
    /// What is wanted next.
    next: u64,
    /// What came out of order, in order of position, never touching.
    ranges: Vec<(u64, u64)>,
    /// Where the range is that came last.
    newest: u64,
    end_at: Option<u64>,
    /// Up to where the peer was told that it may send.
    advertised: u64,
    /// When the peer is to be told of what came.
    ack_at: Option<Timestamp>,
    unacked: u32,
}

/// What came of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// There is something to be read, or the stream has ended.
    pub(crate) is_news: bool,
    /// It had bytes that had not been taken before, wherever they belong.
    pub(crate) is_new: bool,
}

impl Inbound {
    pub(crate) fn new(inbox_max: usize) -> Self {
        Self {
            inbox: VecDeque::new(),
            inbox_max,
            ready: 0,
            next: 1,
            ranges: Vec::new(),
            newest: 0,
            end_at: None,
            advertised: 1 + inbox_max as u64,
            ack_at: None,
            unacked: 0,
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes to be read.
    pub(crate) fn ready(&self) -> usize {
        self.ready
    }

    /// Whether everything up to the end of the stream has come.
    pub(crate) fn has_ended(&self) -> bool {
        self.end_at.is_some_and(|at| self.next > at)
    }

    /// Forgets everything: nobody will read it.
    pub(crate) fn clear(&mut self) {
        self.inbox = VecDeque::new();
        self.ready = 0;
        self.ranges = Vec::new();
        self.ack_at = None;
    }

    /// Up to where bytes are accepted: what was once promised stays so.
    pub(crate) fn edge(&self) -> u64 {
        let room = self.inbox_max.saturating_sub(self.ready) as u64;
        (self.next + room).max(self.advertised)
    }

    /// The window to tell the peer, in units of `1 << scale` bytes.
    pub(crate) fn advertise(&mut self, scale: u8) -> u16 {
        let window = self.edge().saturating_sub(self.next) >> scale;
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        self.advertised = self.advertised.max(self.next + (u64::from(window) << scale));
        self.ack_at = None;
        self.unacked = 0;
        window
    }

    /// Whether the window has grown so much that the peer should hear of it.
    pub(crate) fn has_opened(&self, mss: usize) -> bool {
        let grown = self.edge().saturating_sub(self.advertised);
        let told = self.advertised.saturating_sub(self.next);
        let much = (self.inbox_max as u64 / 2).max(mss as u64);
        // A peer that may send a lot already will be told by an acknowledgement.
        !self.has_ended() && (grown >= much || (told < mss as u64 && grown >= mss as u64))
    }

    /// Takes bytes that belong at `from`; `is_end` when the stream ends behind them.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        from: u64,
        bytes: &[u8],
        is_end: bool,
        mss: usize,
    ) -> Taken {
        let before = self.next;
        let end = from + bytes.len() as u64;
        if is_end && end >= self.next {
            self.end_at.get_or_insert(end);
        }
        // What is there already, or beyond the window, is cut off.
        let first = from.max(self.next);
        let last = end.min(self.edge()).min(self.end_at.unwrap_or(u64::MAX));
        let mut is_new = false;
        if first < last {
            let start = usize::try_from(first - from).unwrap_or(usize::MAX);
            let len = usize::try_from(last - first).unwrap_or(usize::MAX);
            is_new = self.store(first, bytes.get(start..).and_then(|rest| rest.get(..len)));
        }
        if self.end_at == Some(self.next) {
            self.next += 1;
        }
        let is_news = self.next > before;
        self.unacked += u32::from(bytes.len() >= mss.max(1));
        let is_odd = !is_news || !self.ranges.is_empty() || self.has_ended();
        if is_odd || self.unacked >= ACK_EVERY {
            self.ack_at = Some(now);
        } else if self.ack_at.is_none() {
            self.ack_at = Some(now.after(ACK_DELAY));
        }
        Taken { is_news, is_new: is_new || is_news }
    }

    /// Puts bytes at a position from `next` on; false when they are there or there is no range left.
    fn store(&mut self, first: u64, bytes: Option<&[u8]>) -> bool {
        let Some(bytes) = bytes else { return false };
        let last = first + bytes.len() as u64;
        let known = self.ranges.iter().any(|(from, to)| *from <= first && *to >= last);
        let touches = |range: &(u64, u64)| range.0 <= last && range.1 >= first;
        let is_far = first > self.next && !self.ranges.iter().any(touches);
        if known || (is_far && self.ranges.len() >= RANGES_MAX) {
            return false;
        }
        let start = self.ready + usize::try_from(first - self.next).unwrap_or(usize::MAX);
        let until = start + bytes.len();
        if self.inbox.len() < until {
            self.inbox.resize(until, 0);
        }
        let slots = self.inbox.range_mut(start..until);
        slots.zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        // One range of all that touch.
        let (mut from, mut to) = (first, last);
        self.ranges.retain(|range| {
            let joins = touches(range);
            if joins {
                from = from.min(range.0);
                to = to.max(range.1);
            }
            !joins
        });
        if from <= self.next {
            self.ready += usize::try_from(to - self.next).unwrap_or(usize::MAX);
            self.next = to;
        } else {
            let at = self.ranges.partition_point(|range| range.0 < from);
            self.ranges.insert(at, (from, to));
            self.newest = from;
        }
        true
    }

    /// Reads into `out`; how many bytes.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> usize {
        let len = self.ready.min(out.len());
        let [first, second] = part_of(&self.inbox, 0, len).unwrap_or_default();
        if let Some((one, rest)) = out.split_at_mut_checked(first.len())
            && let Some(other) = rest.get_mut(..second.len())
        {
            one.copy_from_slice(first);
            other.copy_from_slice(second);
        }
        self.inbox.drain(..len);
        self.ready -= len;
        len
    }

    /// What came out of order, the newest first.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        let newest = self.newest;
        let is_newest = move |range: &&(u64, u64)| range.0 == newest;
        let first = self.ranges.iter().filter(is_newest);
        first.chain(self.ranges.iter().filter(move |range| range.0 != newest)).copied()
    }

    /// When the peer is to be told what came.
    pub(crate) fn ack_at(&self) -> Option<Timestamp> {
        self.ack_at
    }

    /// The peer is to be told at once.
    pub(crate) fn ack_now(&mut self, now: Timestamp) {
        self.ack_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::START;
    const MSS: usize = 10;

    fn read_all(inbound: &mut Inbound) -> Vec<u8> {
        let mut out = vec![0; inbound.ready()];
        inbound.read(&mut out);
        out
    }

    #[test]
    fn what_comes_out_of_order_is_put_in_order() {
        let mut inbound = Inbound::new(100);
        let took = |inbound: &mut Inbound, from, bytes: &[u8], is_end| {
            inbound.take(NOW, from, bytes, is_end, MSS).is_news
        };
        assert!(!took(&mut inbound, 4, b"def", false));
        assert!(!took(&mut inbound, 9, b"i", true));
        assert_eq!(inbound.ranges().collect::<Vec<_>>(), [(9, 10), (4, 7)]);
        assert!(took(&mut inbound, 1, b"abcd", false));
        assert_eq!(read_all(&mut inbound), b"abcdef");
        assert!(!inbound.has_ended());
        assert!(took(&mut inbound, 6, b"fgh", false));
        assert_eq!(read_all(&mut inbound), b"ghi");
        assert!(inbound.has_ended());
        assert_eq!(inbound.next(), 11);
    }

    #[test]
    fn the_window_closes_and_opens_and_is_never_taken_back() {
        let mut inbound = Inbound::new(20);
        assert_eq!(inbound.advertise(0), 20);
        inbound.take(NOW, 1, &[1; 30], false, MSS);
        assert_eq!((inbound.ready(), inbound.next()), (20, 21), "the rest is cut off");
        assert_eq!(inbound.advertise(0), 0);
        inbound.read(&mut [0; 5]);
        assert!(!inbound.has_opened(MSS));
        inbound.read(&mut [0; 5]);
        assert!(inbound.has_opened(MSS));
        assert_eq!(inbound.advertise(0), 10);
        // In units of eight bytes only eight of ten can be told; the edge stays.
        assert_eq!(inbound.advertise(3), 1);
        assert_eq!(inbound.edge(), 31);
    }

    #[test]
    fn acknowledgements_wait_for_a_second_full_segment_but_not_with_a_gap() {
        let mut inbound = Inbound::new(1_000);
        inbound.take(NOW, 1, &[1; MSS], false, MSS);
        assert_eq!(inbound.ack_at(), Some(NOW.after(ACK_DELAY)));
        inbound.take(NOW, 11, &[1; MSS], false, MSS);
        assert_eq!(inbound.ack_at(), Some(NOW));
        inbound.advertise(0);
        assert_eq!(inbound.ack_at(), None);
        inbound.take(NOW, 31, &[1; MSS], false, MSS);
        assert_eq!(inbound.ack_at(), Some(NOW));
        inbound.advertise(0);
        inbound.take(NOW, 1, &[1; MSS], false, MSS);
        assert_eq!(inbound.ack_at(), Some(NOW), "a copy says that an ack was lost");
    }

    #[test]
    fn ranges_are_bounded() {
        let mut inbound = Inbound::new(10_000);
        for gap in 0..200 {
            inbound.take(NOW, 3 + gap * 2, b"x", false, MSS);
        }
        assert_eq!(inbound.ranges().count(), RANGES_MAX);
    }

    proptest! {
        /// Pieces of one stream in any order, cut anywhere, come out as they were.
        #[test]
        fn pieces_in_any_order_come_out_in_order(
            pieces in proptest::collection::vec((0_usize..300, 1_usize..60), 1..200),
            reads in proptest::collection::vec(0_usize..50, 200),
        ) {
            let stream: Vec<u8> = (0..400_u32).map(|at| (at * 7) as u8).collect();
            let mut inbound = Inbound::new(128);
            let mut seen = Vec::new();
            // Everything in order at the end, so that it must be complete.
            let rest = (0..400).step_by(8).map(|at| (at, 8, 128));
            let pieces = pieces.into_iter().zip(reads).map(|((from, len), read)| (from, len, read));
            for (from, len, read) in pieces.chain(rest) {
                let to = (from + len).min(400);
                let edge = inbound.edge();
                inbound.take(NOW, from as u64 + 1, &stream[from..to], to == 400, MSS);
                prop_assert!(inbound.edge() >= edge);
                prop_assert!(inbound.inbox.len() <= 128);
                let mut out = vec![0; read];
                let len = inbound.read(&mut out);
                seen.extend_from_slice(&out[..len]);
            }
            seen.extend(read_all(&mut inbound));
            prop_assert!(seen == stream[..seen.len()]);
            prop_assert_eq!(seen.len(), 400);
            prop_assert!(inbound.has_ended());
        }
    }
}
