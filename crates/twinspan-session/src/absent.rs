//! Whose sessions were lost and may come back: bounded, each for a while.

use std::collections::{BTreeMap, BTreeSet};

use twinspan_core::time::Timestamp;

/// What names a session among the lost: its first ticket.
type Root = [u8; 16];
/// A lost session's tickets, any of which lets back in: the one that its client surely had, and the
/// one that was on its way; twice the same when none was.
type Tickets = [[u8; 16]; 2];

/// Sessions that were lost, each until its client was absent for too long.
#[derive(Debug)]
pub(crate) struct Absent {
    until: BTreeMap<Root, (Timestamp, Tickets)>,
    by_time: BTreeSet<(Timestamp, Root)>,
    limit: usize,
}

impl Absent {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { until: BTreeMap::new(), by_time: BTreeSet::new(), limit }
    }

    /// Remembers a session until then; the one whose time is over first gives way when all places
    /// are taken.
    pub(crate) fn remember(
        &mut self,
        now: Timestamp,
        root: Root,
        tickets: Tickets,
        until: Timestamp,
    ) {
        self.forget(&root);
        while let Some((first, id)) = self.by_time.first().copied() {
            if first > now && self.until.len() < self.limit {
                break;
            }
            self.forget(&id);
        }
        self.until.insert(root, (until, tickets));
        self.by_time.insert((until, root));
    }

    /// Whether the ticket still lets its holder back in.
    pub(crate) fn contains(&self, now: Timestamp, root: &Root, ticket: &[u8; 16]) -> bool {
        let found = self.until.get(root);
        found.is_some_and(|(until, tickets)| now <= *until && tickets.contains(ticket))
    }

    pub(crate) fn forget(&mut self, root: &Root) {
        if let Some((until, _)) = self.until.remove(root) {
            self.by_time.remove(&(until, *root));
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
        absent.remember(at(0), [1; 16], [[1; 16]; 2], at(30));
        assert!(absent.contains(at(30), &[1; 16], &[1; 16]));
        assert!(!absent.contains(at(31), &[1; 16], &[1; 16]));
        assert!(!absent.contains(at(0), &[2; 16], &[2; 16]));
        absent.forget(&[1; 16]);
        assert!(!absent.contains(at(0), &[1; 16], &[1; 16]));
        assert!(absent.by_time.is_empty());
    }

    #[test]
    fn places_are_bounded_and_freed_by_time() {
        let mut absent = Absent::new(2);
        absent.remember(at(0), [1; 16], [[1; 16]; 2], at(30));
        absent.remember(at(1), [2; 16], [[2; 16]; 2], at(31));
        absent.remember(at(2), [3; 16], [[3; 16]; 2], at(32));
        assert!(!absent.contains(at(2), &[1; 16], &[1; 16]), "the first to run out gave way");
        assert!(
            absent.contains(at(2), &[2; 16], &[2; 16])
                && absent.contains(at(2), &[3; 16], &[3; 16])
        );
        absent.remember(at(32), [4; 16], [[4; 16]; 2], at(62));
        assert_eq!(absent.until.len(), 1);
        assert_eq!(absent.by_time.len(), 1);
        absent.remember(at(33), [4; 16], [[4; 16]; 2], at(63));
        assert_eq!(absent.by_time.len(), 1);
        assert!(absent.contains(at(63), &[4; 16], &[4; 16]));
    }

    #[test]
    fn both_tickets_of_a_session_are_good_and_no_other_is() {
        let mut absent = Absent::new(2);
        absent.remember(at(0), [1; 16], [[2; 16], [3; 16]], at(30));
        assert!(absent.contains(at(0), &[1; 16], &[2; 16]));
        assert!(absent.contains(at(0), &[1; 16], &[3; 16]));
        assert!(!absent.contains(at(0), &[1; 16], &[1; 16]), "replaced long ago");
        absent.forget(&[1; 16]);
        assert!(!absent.contains(at(0), &[1; 16], &[3; 16]), "one for both");
    }
}
