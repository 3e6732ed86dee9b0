//! Users that are let in no more until a time, in a list of fixed size.

use twinspan_core::time::Timestamp;

/// Bans that are remembered; past it the one that would end first is forgotten and counted.
pub const BANS_MAX: usize = 4_096;

/// Users and until when they are banned, by user.
pub(crate) struct Bans {
    entries: Vec<(u64, Timestamp)>,
    forgotten: u64,
}

impl Bans {
    /// An empty list; all of its memory is taken now.
    pub(crate) fn new() -> Self {
        Self { entries: Vec::with_capacity(BANS_MAX), forgotten: 0 }
    }

    /// Bans that are remembered, those that are over among them.
    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every user that is banned, and until when, by user.
    pub(crate) fn entries(&self) -> &[(u64, Timestamp)] {
        &self.entries
    }

    /// Bans that gave way before they were over.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Bans a user; of two bans the longer one stands.
    pub(crate) fn add(&mut self, now: Timestamp, user: u64, until: Timestamp) {
        if let Ok(known) = self.find(user) {
            if let Some((_, before)) = self.entries.get_mut(known) {
                *before = until.max(*before);
            }
            return;
        }
        if self.entries.len() == BANS_MAX {
            self.entries.retain(|(_, until)| *until > now);
        }
        if self.entries.len() == BANS_MAX {
            let ends = self.entries.iter().enumerate().map(|(at, (_, until))| (*until, at));
            // Should the new one end first, it is the one to be forgotten.
            match ends.min() {
                Some((first, at)) if first < until => _ = self.entries.remove(at),
                _ => {
                    self.forgotten += 1;
                    return;
                }
            }
            self.forgotten += 1;
        }
        if let Err(at) = self.find(user) {
            self.entries.insert(at, (user, until));
        }
    }

    /// Lets a user in again; false when it was not banned.
    pub(crate) fn lift(&mut self, user: u64) -> bool {
        let found = self.find(user);
        if let Ok(at) = found {
            self.entries.remove(at);
        }
        found.is_ok()
    }

    /// Until when a user is banned, if it is.
    pub(crate) fn until(&self, now: Timestamp, user: u64) -> Option<Timestamp> {
        let (_, until) = self.entries.get(self.find(user).ok()?)?;
        (*until > now).then_some(*until)
    }

    fn find(&self, user: u64) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&user, |(known, _)| *known)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn at(ns: u64) -> Timestamp {
        Timestamp::from_nanos(ns)
    }

    #[test]
    fn a_full_list_forgets_the_one_that_ends_first() {
        let mut bans = Bans::new();
        for user in 0..BANS_MAX as u64 {
            bans.add(at(0), user, at(1_000 + user));
        }
        bans.add(at(0), 1 << 40, at(5_000));
        assert_eq!((bans.len(), bans.forgotten()), (BANS_MAX, 1));
        assert_eq!(bans.until(at(0), 0), None);
        assert_eq!(bans.until(at(0), 1 << 40), Some(at(5_000)));
        bans.add(at(0), 1 << 41, at(1));
        assert_eq!((bans.until(at(0), 1 << 41), bans.forgotten()), (None, 2));
        // Those that are over make room for many.
        bans.add(at(3_000), 1 << 42, at(9_000));
        assert_eq!(bans.forgotten(), 2);
        assert!(bans.len() < BANS_MAX);
    }

    proptest! {
        #[test]
        fn a_list_with_room_is_a_map(
            steps in prop::collection::vec((0_u64..20, 0_u64..100, 0_u8..8), 1..200),
        ) {
            let mut bans = Bans::new();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            for (now, (user, length, what)) in (0_u64..).zip(steps) {
                if what == 0 {
                    prop_assert_eq!(bans.lift(user), model.remove(&user).is_some());
                } else {
                    bans.add(at(now), user, at(now + length));
                    let until = model.entry(user).or_default();
                    *until = (*until).max(now + length);
                }
                for user in 0..20 {
                    let wanted = model.get(&user).filter(|until| **until > now).map(|ns| at(*ns));
                    prop_assert_eq!(bans.until(at(now), user), wanted);
                }
            }
        }
    }
}
