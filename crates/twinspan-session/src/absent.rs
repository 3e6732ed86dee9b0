//! Whose sessions were lost and may come back: bounded, each for a while.

use std::collections::{BTreeMap, BTreeSet};

use twinspan_core::time::Timestamp;

/// Tickets of sessions that were lost, each until its holder was absent for too long.
#[derive(Debug)]
pub(crate) struct Absent {
    until: BTreeMap<[u8; 16], Timestamp>,
    by_time: BTreeSet<(Timestamp, [u8; 16])>,
    limit: usize,
}

impl Absent {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { until: BTreeMap::new(), by_time: BTreeSet::new(), limit }
    }

    /// Remembers a ticket until then; the one whose time is over first gives way when all places
    /// are taken.
    pub(crate) fn remember(&mut self, now: Timestamp, ticket: [u8; 16], until: Timestamp) {
        self.forget(&ticket);
        while let Some((first, id)) = self.by_time.first().copied() {
            if first > now && self.until.len() < self.limit {
                break;
            }
            self.forget(&id);
        }
        self.until.insert(ticket, until);
        self.by_time.insert((until, ticket));
    }

    /// Whether the ticket still lets its holder back in.
    pub(crate) fn contains(&self, now: Timestamp, ticket: &[u8; 16]) -> bool {
        self.until.get(ticket).is_some_and(|until| now <= *until)
    }

    pub(crate) fn forget(&mut self, ticket: &[u8; 16]) {
        if let Some(until) = self.until.remove(ticket) {
            self.by_time.remove(&(until, *ticket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_ticket_is_remembered_until_its_time_and_forgotten_once_used() {
        let mut absent = Absent::new(2);
        absent.remember(at(0), [1; 16], at(30));
        assert!(absent.contains(at(30), &[1; 16]));
        assert!(!absent.contains(at(31), &[1; 16]));
        assert!(!absent.contains(at(0), &[2; 16]));
        absent.forget(&[1; 16]);
        assert!(!absent.contains(at(0), &[1; 16]));
        assert!(absent.by_time.is_empty());
    }

    #[test]
    fn places_are_bounded_and_freed_by_time() {
        let mut absent = Absent::new(2);
        absent.remember(at(0), [1; 16], at(30));
        absent.remember(at(1), [2; 16], at(31));
        absent.remember(at(2), [3; 16], at(32));
        assert!(!absent.contains(at(2), &[1; 16]), "the first to run out gave way");
        assert!(absent.contains(at(2), &[2; 16]) && absent.contains(at(2), &[3; 16]));
        absent.remember(at(32), [4; 16], at(62));
        assert_eq!(absent.until.len(), 1);
        assert_eq!(absent.by_time.len(), 1);
        absent.remember(at(33), [4; 16], at(63));
        assert_eq!(absent.by_time.len(), 1);
        assert!(absent.contains(at(63), &[4; 16]));
    }
}
