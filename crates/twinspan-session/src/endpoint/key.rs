//! How the sessions of an endpoint are named.

use core::fmt;

/// A session of an [`Endpoint`](super::Endpoint): its slot and which of the slot's sessions it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(u64);

impl SessionKey {
    pub(super) const fn new(slot: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | slot as u64)
    }

    /// A key that was told of, put together again; for tests of who keeps sessions by their keys.
    #[doc(hidden)]
    pub const fn from_parts(slot: u32, generation: u32) -> Self {
        Self::new(slot, generation)
    }

    /// The slot: dense, from 0, and reused only after the session's `Closed`.
    pub const fn index(self) -> usize {
        self.slot() as usize
    }

    pub(super) const fn slot(self) -> u32 {
        self.0 as u32
    }

    pub(super) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({}.{})", self.slot(), self.generation())
    }
}
