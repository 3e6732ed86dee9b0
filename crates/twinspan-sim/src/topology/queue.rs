//! A packet queue in front of a limited rate: tail drop, or controlled delay (RFC 8289).

use std::collections::VecDeque;
use std::time::Duration;

use twinspan_core::time::Timestamp;

use super::spec::{Discipline, Queue};

/// Bytes that may wait without CoDel minding: one long packet.
const UNMINDED_BYTES: u64 = 1_514;

/// Packets that wait, first in, first out.
#[derive(Debug)]
pub(crate) struct PacketQueue<T> {
    spec: Queue,
    items: VecDeque<Item<T>>,
    bytes: u64,
    /// The most that ever waited.
    bytes_high: u64,
    codel: CoDel,
}

#[derive(Debug)]
struct Item<T> {
    value: T,
    bytes: u64,
    came_at: Timestamp,
    can_be_marked: bool,
}

/// What leaves a queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leaving<T> {
    pub(crate) value: T,
    pub(crate) bytes: u64,
    pub(crate) waited: Duration,
    /// Whether it is to carry a congestion mark from here on.
    pub(crate) is_marked: bool,
}

/// The state that RFC 8289, section 5, names.
#[derive(Debug)]
struct CoDel {
    /// When the wait will have been too long for too long; none while it is not too long.
    first_above: Option<Timestamp>,
    drop_next: Timestamp,
    count: u32,
    last_count: u32,
    is_dropping: bool,
}

impl<T> PacketQueue<T> {
    pub(crate) fn new(spec: Queue) -> Self {
        Self {
            spec,
            items: VecDeque::new(),
            bytes: 0,
            bytes_high: 0,
            codel: CoDel {
                first_above: None,
                drop_next: Timestamp::START,
                count: 0,
                last_count: 0,
                is_dropping: false,
            },
        }
    }

    /// Bounds and discipline from now on; what waits stays.
    pub(crate) fn set_spec(&mut self, spec: Queue) {
        self.spec = spec;
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes that ever waited.
    pub(crate) fn bytes_high(&self) -> u64 {
        self.bytes_high
    }

    /// Adds a packet, or gives it back when there is no room.
    pub(crate) fn push(
        &mut self,
        now: Timestamp,
        value: T,
        bytes: u64,
        can_be_marked: bool,
    ) -> Result<(), T> {
        if self.bytes + bytes > self.spec.bytes_max {
            return Err(value);
        }
        self.bytes += bytes;
        self.bytes_high = self.bytes_high.max(self.bytes);
        self.items.push_back(Item { value, bytes, came_at: now, can_be_marked });
        Ok(())
    }

    /// Takes the packet whose turn it is; `drop` is given those that the discipline drops.
    pub(crate) fn pop(&mut self, now: Timestamp, mut drop: impl FnMut(T)) -> Option<Leaving<T>> {
        let Discipline::CoDel { target, interval, marks } = self.spec.discipline else {
            return self.take().map(|item| item.leaves(now, false));
        };
        let (mut item, mut is_late) = self.take_judged(now, target, interval)?;
        if self.codel.is_dropping {
            if !is_late {
                self.codel.is_dropping = false;
            }
            while self.codel.is_dropping && now >= self.codel.drop_next {
                self.codel.count = self.codel.count.saturating_add(1);
                let next = self.codel.drop_next.after(self.codel.spacing(interval));
                if marks && item.can_be_marked {
                    self.codel.drop_next = next;
                    return Some(item.leaves(now, true));
                }
                drop(item.value);
                let Some((following, late)) = self.take_judged(now, target, interval) else {
                    self.codel.is_dropping = false;
                    return None;
                };
                (item, is_late) = (following, late);
                if is_late {
                    self.codel.drop_next = next;
                } else {
                    self.codel.is_dropping = false;
                }
            }
        } else if is_late {
            // The first of a row. Where the last row was not long ago, its pace goes on.
            self.codel.begin(now, interval);
            if marks && item.can_be_marked {
                return Some(item.leaves(now, true));
            }
            drop(item.value);
            let Some((following, _)) = self.take_judged(now, target, interval) else {
                self.codel.is_dropping = false;
                return None;
            };
            item = following;
        }
        Some(item.leaves(now, false))
    }

    fn take(&mut self) -> Option<Item<T>> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes;
        Some(item)
    }

    /// The first packet, and whether waits have been too long for too long.
    fn take_judged(
        &mut self,
        now: Timestamp,
        target: Duration,
        interval: Duration,
    ) -> Option<(Item<T>, bool)> {
        let Some(item) = self.take() else {
            self.codel.first_above = None;
            return None;
        };
        let waited = now.since(item.came_at);
        if waited < target || self.bytes <= UNMINDED_BYTES {
            self.codel.first_above = None;
            return Some((item, false));
        }
        let first_above = *self.codel.first_above.get_or_insert(now.after(interval));
        Some((item, now >= first_above))
    }
}

impl<T> Item<T> {
    fn leaves(self, now: Timestamp, is_marked: bool) -> Leaving<T> {
        let waited = now.since(self.came_at);
        Leaving { value: self.value, bytes: self.bytes, waited, is_marked }
    }
}

impl CoDel {
    fn begin(&mut self, now: Timestamp, interval: Duration) {
        self.is_dropping = true;
        let delta = self.count.saturating_sub(self.last_count);
        let is_recent = now.since(self.drop_next) < interval * 16;
        self.count = if delta > 1 && is_recent { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = now.after(self.spacing(interval));
    }

    /// How far drops are apart: the interval by the square root of how many there were.
    fn spacing(&self, interval: Duration) -> Duration {
        // The square root of a float is exact, so it is the same on every machine.
        let nanos = interval.as_nanos() as f64 / f64::from(self.count.max(1)).sqrt();
        Duration::from_nanos(nanos as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const PACKET: u64 = 1_000;

    fn at(ms: u32) -> Timestamp {
        Timestamp::START.after(MS * ms)
    }

    #[test]
    fn a_full_queue_gives_the_packet_back_and_keeps_its_order() {
        let mut queue = PacketQueue::new(Queue { bytes_max: 2_500, ..Queue::DEFAULT });
        assert_eq!(queue.push(at(0), 1, PACKET, false), Ok(()));
        assert_eq!(queue.push(at(1), 2, PACKET, false), Ok(()));
        assert_eq!(queue.push(at(1), 3, PACKET, false), Err(3));
        assert_eq!(queue.push(at(1), 4, 500, false), Ok(()));
        let mut left = Vec::new();
        while let Some(one) = queue.pop(at(9), |_| panic!("nothing is dropped")) {
            left.push((one.value, one.waited.as_millis(), one.is_marked));
        }
        assert_eq!(left, [(1, 9, false), (2, 8, false), (4, 8, false)]);
        assert_eq!((queue.bytes(), queue.bytes_high()), (0, 2_500));
    }

    /// Offers a packet each `every` ms, takes one each ms; who was dropped and marked when.
    fn run(mut every: impl FnMut(u32) -> bool, ms: u32, can_be_marked: bool) -> Run {
        let mut queue = PacketQueue::new(Queue::codel(64 << 20));
        let mut seen = Run::default();
        for now in 0..ms {
            for _ in 0..1 + u32::from(every(now)) {
                queue.push(at(now), now, PACKET, can_be_marked).unwrap();
            }
            let left = queue.pop(at(now), |_| seen.drops.push(now));
            if let Some(left) = left {
                seen.last_wait = left.waited;
                if left.is_marked {
                    seen.marks.push(now);
                }
            }
        }
        seen
    }

    #[derive(Default)]
    struct Run {
        drops: Vec<u32>,
        marks: Vec<u32>,
        last_wait: Duration,
    }

    #[test]
    fn short_waits_are_left_alone() {
        // One burst that is gone in time.
        let seen = run(|now| now < 4, 1_000, false);
        assert_eq!(seen.drops, []);
    }

    #[test]
    fn a_standing_queue_is_dropped_from_ever_faster() {
        // A tenth too much for ever.
        let seen = run(|now| now % 10 == 0, 3_000, false);
        let first = seen.drops[0];
        // Above the target from about 50 ms on, and an interval later.
        assert!((120..200).contains(&first), "{first}");
        // 100 ms, then 100 / sqrt 2, 100 / sqrt 3, each at the next whole one.
        let gaps: Vec<_> = seen.drops.windows(2).take(3).map(|two| two[1] - two[0]).collect();
        assert_eq!(gaps, [100, 71, 58]);
    }

    #[test]
    fn what_can_be_marked_is_marked_instead() {
        let dropped = run(|now| now % 10 == 0, 1_000, false);
        let marked = run(|now| now % 10 == 0, 1_000, true);
        assert_eq!(marked.drops, []);
        assert_eq!(marked.marks.first(), dropped.drops.first());
        assert!(marked.marks.len() >= dropped.drops.len());
        assert!(marked.last_wait > dropped.last_wait);
    }

    #[test]
    fn dropping_ends_when_waits_are_short_again() {
        // What came too much has to be dropped, as what comes later is just what leaves.
        let seen = run(|now| now < 300, 4_000, false);
        let last = *seen.drops.last().unwrap();
        assert!(seen.drops.len() > 3 && last < 3_500, "{:?}", seen.drops);
        assert!(seen.last_wait < 6 * MS, "{:?}", seen.last_wait);
    }
}
