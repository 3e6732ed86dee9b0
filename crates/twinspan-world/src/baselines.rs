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
/// Cells of which a [`Baselines`] keeps note beside itself without a box: as many as anybody sees with
/// the default radii and cells.
const NEAR_CELLS: usize = 16;
/// The others of the window.
const FAR_CELLS: usize = WINDOW_CELLS - NEAR_CELLS;
/// Bits of a part in a tag.
const PART_BITS: u32 = 8;
const _: () = assert!(STATE_PARTS_MAX < 1 << PART_BITS);
/// States are counted modulo this, so that tags have 32 bits.
const COUNT_LIMIT: u32 = 1 << (32 - PART_BITS);

/// Of one subscribed cell, in a quarter of a line of the processor's memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// The tick of the keyframe that was sent last; 0 is none.
    sent: u32,
    /// The tag of the last packet that it was sent in.
    tag: u32,
    /// The state in which the cell was told last; 0 is never.
    pub(crate) told: u32,
    /// By one more, how many ticks older the newest keyframe is that the client acknowledged; 0 is
    /// none. One that is eighteen minutes older counts as none, and is told whole again.
    held_back: u16,
    /// The packet before in which the same keyframe was sent: how many states before, and which part;
    /// 0 is none.
    before: u8,
    before_part: u8,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// What one client was sent and what it acknowledged.
///
/// [`Baselines::on_acked`] with the tag of each acknowledged packet, see
/// [`StatePlan::tag`](crate::StatePlan::tag). It allocates once, when its client first sees more than
/// 16 cells, or not at all when it was made for [as many](Baselines::for_cells).
#[derive(Clone, Debug)]
#[repr(C)]
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
    /// Of the cells of `mask`, row by row: the first of them.
    near: [Entry; NEAR_CELLS],
    /// And the others.
    far: Option<Box<[Entry; FAR_CELLS]>>,
}

impl Default for Baselines {
    fn default() -> Self {
        Self::new()
    }
}

impl Baselines {
    /// Of a client that was told nothing yet.
    pub const fn new() -> Self {
        Self {
            base: CellId { x: 0, z: 0 },
            mask: 0,
            count: 0,
            has_context: false,
            digest_at: 0,
            far_at: 0,
            sweep: (CellId { x: 0, z: 0 }, 0),
            near: [Entry::NOTHING; NEAR_CELLS],
            far: None,
        }
    }

    /// The same with room from the start for a client that sees so many cells, see
    /// [`InterestConfig::cells_seen`](crate::InterestConfig::cells_seen).
    pub fn for_cells(cells: usize) -> Self {
        let mut new = Self::new();
        new.make_room(cells);
        new
    }

    fn make_room(&mut self, cells: usize) {
        if cells > NEAR_CELLS && self.far.is_none() {
            self.far = Some(Box::new([Entry::NOTHING; FAR_CELLS]));
        }
    }

    /// Forgets what the client holds: everything is sent whole again.
    pub fn forget(&mut self) {
        let mut far = self.far.take();
        if let Some(far) = &mut far {
            **far = [Entry::NOTHING; FAR_CELLS];
        }
        *self = Self { count: self.count, far, ..Self::new() };
    }

    /// Wishes for the memory that a client's next state needs.
    pub fn prefetch(&self) {
        prefetch::value(self);
    }

    /// The client has the packet with this tag.
    pub fn on_acked(&mut self, tag: u32) {
        if tag == 0 {
            return;
        }
        // Until the first acknowledgement every packet has everything in its header.
        self.has_context = true;
        let len = self.mask.count_ones() as usize;
        let far = self.far.iter_mut().flat_map(|far| far.iter_mut());
        for entry in self.near.iter_mut().chain(far).take(len) {
            if entry.was_sent_in(tag) {
                entry.held_back = 1;
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
        self.make_room(mask.count_ones() as usize);
        let (near, far) = (self.near, self.far.as_deref().copied());
        let old = |index: usize| match index.checked_sub(NEAR_CELLS) {
            None => near.get(index).copied(),
            Some(index) => far.as_ref().and_then(|far| far.get(index).copied()),
        };
        let (old_base, old_mask) = (self.base, self.mask);
        (self.base, self.mask) = (base, mask);
        let mut rest = mask;
        let places = self.far.iter_mut().flat_map(|far| far.iter_mut());
        for place in self.near.iter_mut().chain(places) {
            if rest == 0 {
                break;
            }
            let cell = cell_at(base, rest.trailing_zeros() as usize);
            rest &= rest - 1;
            let offset =
                CellId { x: cell.x.wrapping_sub(old_base.x), z: cell.z.wrapping_sub(old_base.z) };
            let bit = bit_at(offset).filter(|bit| old_mask >> bit & 1 != 0);
            let index = bit.map(|bit| (old_mask & ((1 << bit) - 1)).count_ones() as usize);
            *place = index.and_then(old).unwrap_or_default();
        }
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn entry_mut(&mut self, index: usize) -> Option<&mut Entry> {
        match index.checked_sub(NEAR_CELLS) {
            None => self.near.get_mut(index),
            Some(index) => self.far.as_deref_mut()?.get_mut(index),
        }
    }

    pub(crate) const fn tag(&self, part: usize) -> u32 {
        self.count << PART_BITS | (part as u32 + 1)
    }

    /// States since `count`.
    pub(crate) const fn states_since(&self, count: u32) -> u32 {
        self.count.wrapping_sub(count) & (COUNT_LIMIT - 1)
    }
}

/// The part of a tag.
const fn part_of(tag: u32) -> u8 {
    (tag & ((1 << PART_BITS) - 1)) as u8
}

/// How many states the packet of `tag` comes after the one of `earlier`.
const fn states_between(earlier: u32, tag: u32) -> u32 {
    (tag >> PART_BITS).wrapping_sub(earlier >> PART_BITS) & (COUNT_LIMIT - 1)
}

impl Entry {
    const NOTHING: Self =
        Self { sent: 0, tag: 0, told: 0, held_back: 0, before: 0, before_part: 0 };

    /// The tick of the newest keyframe that the client acknowledged; 0 is none.
    #[inline]
    pub(crate) const fn held(&self) -> u32 {
        match self.held_back {
            0 => 0,
            back => self.sent.wrapping_sub(back as u32 - 1),
        }
    }

    /// Whether the keyframe that was sent last was in the packet with this tag.
    const fn was_sent_in(&self, tag: u32) -> bool {
        let is_before = self.before != 0
            && self.before_part == part_of(tag)
            && self.before as u32 == states_between(tag, self.tag);
        self.tag == tag || is_before
    }

    /// Whether the keyframe of `tick` should be sent in state `count`: for the first time, or again
    /// after a while without acknowledgement.
    pub(crate) const fn is_due(&self, tick: u32, count: u32) -> bool {
        if self.sent != tick {
            return true;
        }
        let wait = if self.before == 0 { RESEND_STATES_FIRST } else { RESEND_STATES };
        count.wrapping_sub(self.tag >> PART_BITS) & (COUNT_LIMIT - 1) >= wait
    }

    /// The keyframe of `tick` is sent in the packet with this tag.
    pub(crate) fn on_sent(&mut self, tick: u32, tag: u32) {
        (self.before, self.before_part) = (0, 0);
        if self.sent == tick {
            // One that was sent so long ago was lost, or its acknowledgement was.
            let states = u8::try_from(states_between(self.tag, tag)).unwrap_or(0);
            (self.before, self.before_part) = (states, part_of(self.tag));
        } else {
            let held = self.held();
            let back = if held == 0 { u32::MAX } else { tick.wrapping_sub(held) };
            self.held_back = u16::try_from(back.saturating_add(1)).unwrap_or(0);
        }
        (self.sent, self.tag) = (tick, tag);
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
        assert_eq!(baselines.entry_mut(1).unwrap().held(), 0);
        baselines.on_acked(tag);
        assert_eq!(baselines.entry_mut(1).unwrap().held(), 7);
        assert_eq!(baselines.entry_mut(0).unwrap().held(), 0);
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
        assert_eq!(baselines.entry_mut(0).unwrap().held(), 0);
        assert_eq!(baselines.entry_mut(1).unwrap().held(), 6);
    }

    #[test]
    fn what_is_held_outlives_newer_keyframes_for_eighteen_minutes() {
        let mut entry = Entry::default();
        entry.on_sent(1_000, 0x101);
        entry.held_back = 1;
        entry.on_sent(1_030, 0x201);
        assert_eq!(entry.held(), 1_000);
        entry.on_sent(1_000 + 65_534, 0x301);
        assert_eq!(entry.held(), 1_000);
        entry.on_sent(1_000 + 65_535, 0x401);
        assert_eq!(entry.held(), 0);
        entry.on_sent(1_000 + 65_600, 0x501);
        assert_eq!(entry.held(), 0);
    }

    #[test]
    fn a_packet_of_255_states_ago_counts_and_an_older_one_does_not() {
        for (states, counts) in [(1, true), (255, true), (256, false), (1_000, false)] {
            let mut entry = Entry::default();
            entry.on_sent(9, 0x1203);
            entry.on_sent(9, 0x1201 + (states << 8));
            assert_eq!(entry.was_sent_in(0x1203), counts, "{states}");
            assert!(entry.was_sent_in(0x1201 + (states << 8)));
            assert!(!entry.was_sent_in(0x1201) && !entry.was_sent_in(0x1303 + (states << 8)));
        }
    }

    #[test]
    fn a_client_that_sees_the_whole_window_is_told_of_all_of_it() {
        let whole = (1 << WINDOW_CELLS) - 1;
        for mut baselines in [Baselines::new(), Baselines::for_cells(WINDOW_CELLS)] {
            baselines.begin(BASE, whole);
            let tag = baselines.tag(0);
            for index in 0..WINDOW_CELLS {
                baselines.entry_mut(index).unwrap().on_sent(index as u32 + 1, tag);
            }
            baselines.on_acked(tag);
            // One row further north.
            baselines.begin(CellId { x: 10, z: 21 }, whole);
            for index in 0..WINDOW_CELLS {
                let expected = if index < 42 { index as u32 + 8 } else { 0 };
                assert_eq!(baselines.entry_mut(index).unwrap().held(), expected);
            }
            assert!(baselines.entry_mut(WINDOW_CELLS).is_none());
            baselines.forget();
            baselines.begin(BASE, whole);
            assert_eq!(baselines.entry_mut(40).unwrap().held(), 0);
        }
    }

    #[test]
    fn a_client_takes_little_memory() {
        assert!(size_of::<Baselines>() <= 320, "{}", size_of::<Baselines>());
    }
}
