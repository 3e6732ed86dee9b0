//! Seeds that came before the circuits of their regions.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use twinspan_circuit::Seed;
use twinspan_core::time::Timestamp;

/// Seeds that wait for their circuits; past it the oldest is dropped.
const SEEDS_WAITING_MAX: usize = 64;
/// How long a seed waits for its circuit: longer than any region may take to answer.
const SEED_AGE_MAX: Duration = Duration::from_mins(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    /// The oldest first.
    waiting: VecDeque<(Timestamp, SocketAddr, Seed)>,
    dropped: u64,
}

impl Seeds {
    /// Keeps the seed of a region until its circuit is there. A former one of it is forgotten.
    pub(super) fn put(&mut self, now: Timestamp, address: SocketAddr, seed: Seed) {
        self.forget(address);
        while self.waiting.pop_front_if(|(at, ..)| at.after(SEED_AGE_MAX) <= now).is_some() {
            self.dropped += 1;
        }
        if self.waiting.len() >= SEEDS_WAITING_MAX && self.waiting.pop_front().is_some() {
            self.dropped += 1;
        }
        self.waiting.push_back((now, address, seed));
    }

    /// The seed of a region whose circuit is there now.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<Seed> {
        let index = self.waiting.iter().position(|(_, of, _)| *of == address)?;
        self.waiting.remove(index).map(|(.., seed)| seed)
    }

    /// The region is gone: what it had is good for nothing.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.waiting.retain(|(_, of, _)| *of != address);
    }

    /// Seeds that were dropped, for their circuits did not come or there were too many.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::START;

    fn at(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn seed(number: u16) -> Seed {
        Seed::new(format!("http://10.0.0.1/{number}")).unwrap()
    }

    #[test]
    fn seeds_wait_for_their_circuits_and_go_with_their_regions() {
        let mut seeds = Seeds::default();
        seeds.put(START, at(1), seed(1));
        seeds.put(START, at(1), seed(2));
        seeds.put(START, at(2), seed(3));
        assert_eq!(seeds.take(at(1)), Some(seed(2)), "the newer one");
        assert_eq!(seeds.take(at(1)), None);
        seeds.forget(at(2));
        assert_eq!((seeds.take(at(2)), seeds.dropped()), (None, 0));
    }

    #[test]
    fn a_seed_whose_circuit_never_comes_makes_room() {
        let mut seeds = Seeds::default();
        let max = SEEDS_WAITING_MAX as u16;
        // A region names neighbours that are not there, again and again.
        for number in 0..max * 3 {
            seeds.put(START, at(number), seed(number));
            assert!(seeds.waiting.len() <= SEEDS_WAITING_MAX);
        }
        assert_eq!(seeds.dropped(), u64::from(max) * 2);
        assert_eq!(seeds.take(at(0)), None, "the oldest went");
        assert_eq!(seeds.take(at(max * 3 - 1)), Some(seed(max * 3 - 1)));
    }

    #[test]
    fn seeds_are_dropped_by_age() {
        let mut seeds = Seeds::default();
        seeds.put(START, at(1), seed(1));
        seeds.put(START.after(SEED_AGE_MAX / 2), at(2), seed(2));
        seeds.put(START.after(SEED_AGE_MAX), at(3), seed(3));
        assert_eq!((seeds.waiting.len(), seeds.dropped()), (2, 1));
        assert_eq!((seeds.take(at(1)), seeds.take(at(2))), (None, Some(seed(2))));
    }
}
