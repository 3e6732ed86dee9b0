//! What one client holds, as far as its acknowledgements say: a few bytes per cell.

use twinspan_core::prefetch;

use crate::grid::CellId;
use crate::interest::{WINDOW_CELLS, bit_at, cell_at};

/// The most parts of one state.
pub const STATE_PARTS_MAX: usize = 64;
/// States after which a keyframe that was not acknowledged is sent again, the first time.
const RESEND_STATES_FIRST: u32 = 4;
/// The same from then on.
const RESEND_STATES: u32 = 8;
/// What of a [`Baselines`] a state surely touches: its head and the entries of some fifteen cells.
const WISHED_BYTES: usize = 384;
/// Bits of a part in a tag.
const PART_BITS: u32 = 8;
const _: () = assert!(STATE_PARTS_MAX < 1 << PART_BITS);
/// States are counted modulo this, so that tags have 32 bits.
const COUNT_LIMIT: u32 = 1 << (32 - PART_BITS);

/// Of one subscribed cell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// The tick of the newest keyframe that the client acknowledged; 0 is none.
    pub(crate) held: u32,
    /// The tick of the keyframe that was sent last; 0 is none.
    sent: u32,
    /// The tags of the last two packets that it was sent in, the newer one first.
    tags: [u32; 2],
    /// The state in which the cell was told last; 0 is never.
    pub(crate) told: u32,
}

/// What one client was sent and what it acknowledged.
///
/// [`Baselines::on_acked`] with the tag of each acknowledged packet, see
/// [`StatePlan::tag`](crate::StatePlan::tag). It does not allocate.
#[derive(Clone, Debug)]
pub struct Baselines {
    base: CellId,
    mask: u64,
    /// Counts states from 1.
    count: u32,
    pub(crate) has_context: bool,
    /// The tick of the last digest.
    pub(crate) digest_at: u32,
    /// The tick of the last word about far regions.
    pub(crate) far_at: u32,
    /// Where the round through crowds goes on: a cell and the lowest id.
    pub(crate) sweep: (CellId, u32),
    /// Of the cells of `mask`, row by row.
    entries: [Entry; WINDOW_CELLS],
}

impl Default for Baselines {
    fn default() -> Self {
        Self::new()
    }
}

impl Baselines {
    /// Of a client that was told nothing yet.
    pub const fn new() -> Self {
        const NOTHING: Entry = Entry { held: 0, sent: 0, tags: [0; 2], told: 0 };
        Self {
            base: CellId { x: 0, z: 0 },
            mask: 0,
            count: 0,
            has_context: false,
            digest_at: 0,
            far_at: 0,
            sweep: (CellId { x: 0, z: 0 }, 0),
            entries: [NOTHING; WINDOW_CELLS],
        }
    }

    /// Forgets what the client holds: everything is sent whole again.
    pub const fn forget(&mut self) {
        let count = self.count;
        *self = Self { count, ..Self::new() };
    }

    /// Wishes for the memory that a client's next state needs.
    pub fn prefetch(&self) {
        prefetch::bytes(core::ptr::from_ref(self).cast(), WISHED_BYTES);
    }

    /// The client has the packet with this tag.
    pub fn on_acked(&mut self, tag: u32) {
        if tag == 0 {
            return;
        }
        // Until the first acknowledgement every packet has everything in its header.
        self.has_context = true;
        let len = self.mask.count_ones() as usize;
        for entry in self.entries.iter_mut().take(len) {
            if entry.tags.contains(&tag) {
                entry.held = entry.sent;
            }
        }
    }

    /// Begins a state for a client that sees these cells.
    pub(crate) fn begin(&mut self, base: CellId, mask: u64) {
        self.count = if self.count + 1 == COUNT_LIMIT { 1 } else { self.count + 1 };
        if (self.base, self.mask) != (base, mask) {
            self.move_window(base, mask);
        }
    }

    fn move_window(&mut self, base: CellId, mask: u64) {
        let old = self.entries;
        let (old_base, old_mask) = (self.base, self.mask);
        (self.base, self.mask) = (base, mask);
        let mut rest = mask;
        for place in &mut self.entries {
            if rest == 0 {
                break;
            }
            let cell = cell_at(base, rest.trailing_zeros() as usize);
            rest &= rest - 1;
            let offset =
                CellId { x: cell.x.wrapping_sub(old_base.x), z: cell.z.wrapping_sub(old_base.z) };
            let bit = bit_at(offset).filter(|bit| old_mask >> bit & 1 != 0);
            let index = bit.map(|bit| (old_mask & ((1 << bit) - 1)).count_ones() as usize);
            *place = index.and_then(|index| old.get(index)).copied().unwrap_or_default();
        }
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn entry_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    pub(crate) const fn tag(&self, part: usize) -> u32 {
        self.count << PART_BITS | (part as u32 + 1)
    }

    /// States since `count`.
    pub(crate) const fn states_since(&self, count: u32) -> u32 {
        self.count.wrapping_sub(count) & (COUNT_LIMIT - 1)
    }
}

impl Entry {
    /// Whether the keyframe of `tick` should be sent in state `count`: for the first time, or again
    /// after a while without acknowledgement.
    pub(crate) const fn is_due(&self, tick: u32, count: u32) -> bool {
        if self.sent != tick {
            return true;
        }
        let [last, before] = self.tags;
        let wait = if before == 0 { RESEND_STATES_FIRST } else { RESEND_STATES };
        count.wrapping_sub(last >> PART_BITS) & (COUNT_LIMIT - 1) >= wait
    }

    /// The keyframe of `tick` is sent in the packet with this tag.
    pub(crate) const fn on_sent(&mut self, tick: u32, tag: u32) {
        let [last, _] = self.tags;
        self.tags = [tag, if self.sent == tick { last } else { 0 }];
        self.sent = tick;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: CellId = CellId { x: 10, z: 20 };

    #[test]
    fn an_acknowledged_keyframe_is_held_and_an_older_tag_counts_too() {
        let mut baselines = Baselines::new();
        baselines.begin(BASE, 0b11);
        let tag = baselines.tag(0);
        let count = baselines.count();
        let entry = baselines.entry_mut(1).unwrap();
        assert!(entry.is_due(7, count));
        entry.on_sent(7, tag);
        assert!(!entry.is_due(7, count + 3) && entry.is_due(7, count + 4));
        entry.on_sent(7, tag + 0x400);
        assert!(!entry.is_due(7, count + 11) && entry.is_due(7, count + 12));
        baselines.on_acked(tag + 5);
        assert_eq!(baselines.entry_mut(1).unwrap().held, 0);
        baselines.on_acked(tag);
        assert_eq!(baselines.entry_mut(1).unwrap().held, 7);
        assert_eq!(baselines.entry_mut(0).unwrap().held, 0);
    }

    #[test]
    fn what_is_held_moves_with_the_window() {
        let mut baselines = Baselines::new();
        // Cells (10, 20) and (12, 21).
        baselines.begin(BASE, 1 | 1 << 9);
        for index in 0..2 {
            let tag = baselines.tag(index);
            baselines.entry_mut(index).unwrap().on_sent(5 + index as u32, tag);
            baselines.on_acked(tag);
        }
        // One column further east, and a new cell before them.
        baselines.begin(CellId { x: 11, z: 20 }, 1 | 1 << 8);
        assert_eq!(baselines.entry_mut(0).unwrap().held, 0);
        assert_eq!(baselines.entry_mut(1).unwrap().held, 6);
    }

    #[test]
    fn a_client_takes_little_memory() {
        assert!(size_of::<Baselines>() <= 1_100, "{}", size_of::<Baselines>());
    }
}
