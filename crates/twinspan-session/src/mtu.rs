//! How long the packets of a path may be, found out by asking (RFC 8899): session 1.8.

use core::time::Duration;

use twinspan_core::time::Timestamp;

use crate::header::PACKET_BYTES_MAX;

/// What every path must carry.
pub(crate) const BASE: u16 = PACKET_BYTES_MAX as u16;
/// Probes of one length before it counts as too long.
const TRIES: u8 = 3;
/// How long the ack of a probe is waited for.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How long after the start of a path the first probe leaves.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// Between the end of a search and the next.
const SEARCH_INTERVAL: Duration = Duration::from_secs(600);
/// A search ends when it could win no more than this.
const STEP: u16 = 20;
/// Long packets lost in a row, without one that arrived, that mean that the path got narrower.
pub(crate) const BLACK_HOLE_LOSSES: u32 = 6;

/// The search for the longest packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mtu {
    /// Proven.
    current: u16,
    /// Longer ones do not arrive, as far as is known.
    top: u16,
    max: u16,
    /// What is being tried; 0 between tries.
    probing: u16,
    tries: u8,
    /// The packet that carries the probe.
    number: u64,
    /// When the next probe leaves, or the present one counts as lost.
    next_at: Timestamp,
}

impl Mtu {
    /// A new path that may carry up to `max` bytes; no search when that is the base.
    pub(crate) fn new(now: Timestamp, max: u16) -> Self {
        let max = max.max(BASE);
        let next_at = if max > BASE { now.after(FIRST_AFTER) } else { Timestamp::NEVER };
        Self { current: BASE, top: max, max, probing: 0, tries: 0, number: 0, next_at }
    }

    /// Bytes of the longest packet that is known to arrive.
    pub(crate) const fn current(&self) -> u16 {
        self.current
    }

    /// When [`poll`](Self::poll) has something.
    pub(crate) const fn next_at(&self) -> Timestamp {
        self.next_at
    }

    /// The length of the probe that is due; [`on_probe`](Self::on_probe) follows.
    pub(crate) fn poll(&mut self, now: Timestamp) -> Option<u16> {
        if now < self.next_at {
            return None;
        }
        if self.probing != 0 {
            self.tries += 1;
            if self.tries < TRIES {
                return Some(self.probing);
            }
            self.top = self.probing - 1;
        } else if self.top < self.max && self.top < self.current + STEP {
            // The last search is long ago: the path may have widened.
            self.top = self.max;
        }
        self.tries = 0;
        self.next(now)
    }

    fn next(&mut self, now: Timestamp) -> Option<u16> {
        self.probing = 0;
        if self.top < self.current + STEP {
            self.next_at = if self.current == self.max {
                Timestamp::NEVER
            } else {
                now.after(SEARCH_INTERVAL)
            };
            return None;
        }
        // Most paths carry the most.
        let whole = self.top == self.max;
        let size = if whole { self.max } else { self.current + (self.top - self.current) / 2 };
        self.probing = size;
        Some(size)
    }

    /// The probe left.
    pub(crate) const fn on_probe(&mut self, now: Timestamp, number: u64) {
        self.number = number;
        self.next_at = now.after(PROBE_WAIT);
    }

    /// A packet was acknowledged.
    pub(crate) fn on_acked(&mut self, now: Timestamp, number: u64) {
        if self.probing != 0 && number == self.number {
            self.current = self.probing;
            self.probing = 0;
            self.tries = 0;
            let done = self.top < self.current + STEP;
            self.next_at = match (done, self.current == self.max) {
                (_, true) => Timestamp::NEVER,
                (true, false) => now.after(SEARCH_INTERVAL),
                (false, false) => now,
            };
        }
    }

    /// Long packets do not arrive any more: back to what every path carries, and another search
    /// later.
    pub(crate) fn on_black_hole(&mut self, now: Timestamp) {
        let next_at = now.after(SEARCH_INTERVAL);
        *self = Self { next_at, ..Self::new(now, self.max) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a path that carries `carries` bytes; what was found and how many probes it took.
    fn search(carries: u16, max: u16) -> (u16, u32, Mtu) {
        let mut mtu = Mtu::new(Timestamp::START, max);
        let (mut probes, mut number) = (0, 0);
        for _ in 0..100 {
            let now = mtu.next_at();
            if now > Timestamp::START.after(Duration::from_secs(120)) {
                break;
            }
            let Some(size) = mtu.poll(now) else { continue };
            assert!(size > mtu.current() && size <= max);
            number += 1;
            probes += 1;
            mtu.on_probe(now, number);
            mtu.on_acked(now, number - 1);
            if size <= carries {
                mtu.on_acked(now.after(Duration::from_millis(40)), number);
            }
        }
        (mtu.current(), probes, mtu)
    }

    #[test]
    fn a_wide_path_is_found_with_one_probe() {
        let (found, probes, mtu) = search(1_500, 1_452);
        assert_eq!((found, probes, mtu.next_at()), (1_452, 1, Timestamp::NEVER));
    }

    #[test]
    fn every_width_is_found_to_a_few_bytes() {
        for carries in (BASE..1_452).step_by(7) {
            let (found, probes, _) = search(carries, 1_452);
            assert!(found <= carries && found + STEP > carries, "{found} of {carries}");
            assert!(probes <= 15, "{probes}");
        }
    }

    #[test]
    fn without_a_longer_packet_there_is_no_search() {
        let mut mtu = Mtu::new(Timestamp::START, BASE);
        assert_eq!(
            (mtu.next_at(), mtu.poll(Timestamp::from_nanos(1 << 60))),
            (Timestamp::NEVER, None)
        );
    }

    #[test]
    fn a_path_is_searched_again_after_a_while() {
        let (_, _, mut mtu) = search(1_300, 1_452);
        let again = mtu.next_at();
        assert!(again >= Timestamp::START.after(SEARCH_INTERVAL));
        assert_eq!(mtu.poll(again), Some(1_452));
        mtu.on_black_hole(again);
        assert_eq!((mtu.current(), mtu.next_at()), (BASE, again.after(SEARCH_INTERVAL)));
    }
}
