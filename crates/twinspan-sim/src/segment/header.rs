//! What a segment says besides its bytes, and numbers that wrap (RFC 9293, sections 3.1 and 3.4).

/// The header of TCP without options.
const HEADER_BYTES: usize = 20;
/// Ranges of bytes that one segment can acknowledge out of order (RFC 2018).
pub(crate) const SACK_RANGES_MAX: usize = 3;

/// A set of control bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) const FIN: Self = Self(0x01);
    pub(crate) const SYN: Self = Self(0x02);
    pub(crate) const RST: Self = Self(0x04);
    pub(crate) const ACK: Self = Self(0x10);
    /// The receiver saw a congestion mark (RFC 3168).
    pub(crate) const ECE: Self = Self(0x40);
    /// The sender has slowed down.
    pub(crate) const CWR: Self = Self(0x80);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub(crate) const fn with_if(self, wanted: bool, other: Self) -> Self {
        if wanted { self.with(other) } else { self }
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    /// Of meaning with [`Flags::ACK`].
    pub(crate) ack: u32,
    /// In units of the scale that was agreed on; of bytes with [`Flags::SYN`].
    pub(crate) window: u16,
    /// The options of a segment with [`Flags::SYN`].
    pub(crate) opening: Option<Opening>,
    pub(crate) sack: Sack,
}

/// What an end says of itself when a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The most bytes that a segment to it may carry.
    pub(crate) mss: u16,
    /// By how many bits its windows are shifted, up to 14 (RFC 7323).
    pub(crate) scale: u8,
}

/// Ranges that arrived out of order, the newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sack {
    ranges: [(u32, u32); SACK_RANGES_MAX],
    len: u8,
}

impl Sack {
    /// Adds one, if there is room.
    pub(crate) fn push(&mut self, from: u32, to: u32) {
        if let Some(slot) = self.ranges.get_mut(usize::from(self.len)) {
            *slot = (from, to);
            self.len += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.ranges.into_iter().take(usize::from(self.len))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Header {
    /// Its length with options, padded to whole words.
    pub(crate) fn bytes(&self) -> usize {
        // Longest segment 4, SACK permitted 2, window scale 3; a list of ranges 2 and 8 each.
        let opening = if self.opening.is_some() { 12 } else { 0 };
        let sack = if self.sack.is_empty() { 0 } else { 4 + 8 * usize::from(self.sack.len) };
        HEADER_BYTES + opening + sack
    }

    /// For the trace: all that it says.
    pub(crate) fn words(&self) -> [u64; 2] {
        let ranges = self.sack.iter().fold(0_u64, |sum, (from, to)| {
            sum.rotate_left(16) ^ (u64::from(from) << 32 | u64::from(to))
        });
        let opening = self.opening.map_or(0, |it| u64::from(it.mss) << 8 | u64::from(it.scale));
        let numbers = u64::from(self.seq) << 32 | u64::from(self.ack);
        let rest = u64::from(self.flags.bits()) << 56 | opening << 16 | u64::from(self.window);
        [numbers, rest ^ ranges]
    }
}

/// The position nearest to `near` whose lower 32 bits are `low`: what a number on the wire stands
/// for, given that it cannot be further away than half of all numbers.
pub(crate) fn widen(low: u32, near: u64) -> u64 {
    const HALF: u64 = 1 << 31;
    let apart = u64::from(low.wrapping_sub(near as u32));
    if apart < HALF {
        return near.saturating_add(apart);
    }
    // Behind: two to the 32nd less than it looks, if there is as much.
    (near + apart).checked_sub(1 << 32).unwrap_or(apart.wrapping_add(near))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_found_again_from_anywhere_near(
            position in (1_u64 << 33)..(1 << 60), off in -(1_i64 << 31) + 1..(1 << 31),
        ) {
            let near = position.checked_add_signed(off).unwrap();
            prop_assert_eq!(widen(position as u32, near), position);
        }

        #[test]
        fn any_number_stands_for_something(low: u32, near in 0..u64::MAX / 2) {
            prop_assert_eq!(widen(low, near) as u32, low);
        }
    }

    #[test]
    fn options_take_their_bytes() {
        let mut header = Header::default();
        assert_eq!(header.bytes(), 20);
        for len in [32, 40, 48, 48] {
            header.sack.push(1, 2);
            assert_eq!(header.bytes(), len);
        }
        let opening = Some(Opening { mss: 1_460, scale: 7 });
        assert_eq!(Header { opening, ..Header::default() }.bytes(), 32);
    }
}
