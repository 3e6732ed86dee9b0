//! Generation-checked names of entities.

use core::fmt;
use core::num::NonZeroU32;

/// Bits of an id that say which use of the slot is meant.
const GENERATION_BITS: u32 = 12;
/// The largest generation; 0 is none, so that no id is 0.
const GENERATION_MAX: u16 = (1 << GENERATION_BITS) - 1;

/// Names one entity for as long as it lives.
///
/// The upper 20 bits are the slot's index, the lower 12 its generation, which is never 0: an id of
/// an entity that is gone finds nothing even after its slot was given to another. Ids order like
/// their slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(NonZeroU32);

impl EntityId {
    /// The first use of the first slot.
    pub(crate) const FIRST: Self = Self(NonZeroU32::MIN);
    /// Slots that ids can tell apart.
    pub const INDEX_LIMIT: usize = 1 << (32 - GENERATION_BITS);

    /// The slot's index, from 0.
    pub const fn index(self) -> usize {
        (self.0.get() >> GENERATION_BITS) as usize
    }

    /// Which use of the slot is meant, 1 to 4,095.
    pub const fn generation(self) -> u16 {
        (self.0.get() & GENERATION_MAX as u32) as u16
    }

    /// The id as the number that goes over the wire; never 0.
    pub const fn to_bits(self) -> u32 {
        self.0.get()
    }

    /// The id with these bits; `None` when their generation is 0.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & GENERATION_MAX as u32 == 0 {
            return None;
        }
        match NonZeroU32::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// The id of this slot and generation; `None` when either is out of range.
    pub(crate) const fn new(index: usize, generation: u16) -> Option<Self> {
        if index >= Self::INDEX_LIMIT || generation > GENERATION_MAX {
            return None;
        }
        Self::from_bits(((index as u32) << GENERATION_BITS) | generation as u32)
    }

    /// The generation that follows `generation`: 1 after none and after the largest.
    pub(crate) const fn generation_after(generation: u16) -> u16 {
        if generation >= GENERATION_MAX { 1 } else { generation + 1 }
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityId({}v{})", self.index(), self.generation())
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_index_and_generation() {
        let id = EntityId::new(1_048_575, 4_095).unwrap();
        assert_eq!(id.to_bits(), u32::MAX);
        assert_eq!((id.index(), id.generation()), (1_048_575, 4_095));
        assert_eq!(EntityId::new(3, 2).unwrap().to_bits(), 0x3002);
        assert_eq!(EntityId::from_bits(0x3002), EntityId::new(3, 2));
    }

    #[test]
    fn no_id_has_generation_zero() {
        assert_eq!(EntityId::from_bits(0), None);
        assert_eq!(EntityId::from_bits(0x5000), None);
        assert_eq!(EntityId::new(1_048_576, 1), None);
        assert_eq!(EntityId::new(0, 4_096), None);
        assert_eq!(EntityId::generation_after(4_095), 1);
        assert_eq!(EntityId::generation_after(0), 1);
    }
}
