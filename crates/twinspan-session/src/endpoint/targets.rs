//! What connection ids lead to.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

/// What a connection id leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Session(u32),
    Handshake(u64),
}

// not iterated: ids are looked up alone, so that their order reaches nothing.
type Map<V> = HashMap<u32, V, BuildHasherDefault<IdHasher>>;

/// Connection ids that are known, to be looked up and never iterated: their order reaches nothing.
///
/// Sessions have a table of their own, whose entries are half as large: each has four ids.
#[derive(Default)]
pub(super) struct Targets {
    sessions: Map<u32>,
    handshakes: Map<u64>,
}

impl Targets {
    pub(super) fn get(&self, id: u32) -> Option<Target> {
        let session = self.sessions.get(&id).map(|slot| Target::Session(*slot));
        session.or_else(|| self.handshakes.get(&id).map(|order| Target::Handshake(*order)))
    }

    pub(super) fn insert(&mut self, id: u32, target: Target) {
        match target {
            Target::Session(slot) => {
                self.sessions.insert(id, slot);
            }
            Target::Handshake(order) => {
                self.handshakes.insert(id, order);
            }
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.sessions.remove(&id);
        self.handshakes.remove(&id);
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.get(id).is_some()
    }

    /// Ids that are known, for tests of the bounds.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn len(&self) -> usize {
        self.sessions.len() + self.handshakes.len()
    }
}

/// Spreads ids that are random already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
