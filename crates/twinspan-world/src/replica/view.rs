//! What a replica keeps of each cell in sight: the keyframes that later records build on.

use twinspan_core::prefetch;

use super::parse::Key;
use crate::content::Content;
use crate::grid::CellId;
use crate::header::{StateHeader, Status, Statuses};
use crate::id::EntityId;
use crate::interest::{window_bit, window_contains};

/// Lists take memory for so many entities at a time: most cells have a few. Fuller ones get half as
/// much again, so that they seldom grow once they have been full.
const ROOM_STEP: usize = 8;
/// Keyframes kept of one cell: the server builds on its last two, and one may be under way.
const KEYFRAMES_MAX: usize = 3;

/// Somebody whom a keyframe lists; without content when he was gone as it came.
pub(super) type Member = Option<(EntityId, Content)>;

/// One keyframe.
#[derive(Clone, Debug, Default)]
struct Keyframe {
    tick: u32,
    members: Vec<Member>,
}

/// One cell in sight.
#[derive(Clone, Debug, Default)]
struct View {
    keyframes: Vec<Keyframe>,
    /// Keyframes to be used again.
    spare: Vec<Keyframe>,
    /// The tick of the newest record.
    shown_at: u32,
}

fn copy<T: Clone>(to: &mut Vec<T>, from: &[T]) {
    to.clear();
    if to.capacity() < from.len() {
        to.reserve_exact((from.len() + from.len() / 2).next_multiple_of(ROOM_STEP));
    }
    to.extend_from_slice(from);
}

/// The cells in sight of which anything was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Views {
    /// Of each view its cell, to be searched without looking at the others.
    cells: Vec<CellId>,
    views: Vec<View>,
    /// Cells that went out of sight, whose memory is used again.
    spare: Vec<View>,
}

impl Views {
    /// Wishes for what leads to the keyframes.
    pub(super) fn prefetch_heads(&self) {
        prefetch::value(self.cells.as_slice());
        prefetch::value(self.views.as_slice());
    }

    /// Wishes for the keyframes of the cells that a message tells of. They lie in as many places as
    /// there are cells, and waiting for one after another took most of the time of reading a message.
    pub(super) fn prefetch(&self, header: &StateHeader, statuses: Statuses) {
        let is_told = |cell: &CellId| {
            let bit = window_bit(header.base, *cell);
            let status = bit.map_or(Status::Absent, |bit| statuses.get(bit as u32));
            matches!(status, Status::Same | Status::Record)
        };
        let told = || self.cells.iter().zip(&self.views).filter(|(cell, _)| is_told(cell));
        told().for_each(|(_, view)| prefetch::value(view.keyframes.as_slice()));
        for (_, view) in told() {
            view.keyframes.iter().for_each(|key| prefetch::value(key.members.as_slice()));
        }
    }

    /// Keeps the cells that `header` lists.
    pub(super) fn move_window(&mut self, header: &StateHeader, cell_m: Option<u8>) {
        let keeps_any = cell_m == Some(header.cell_m);
        let mut at = 0;
        while let Some(cell) = self.cells.get(at) {
            if keeps_any && window_contains(header.base, header.mask, *cell) {
                at += 1;
            } else {
                self.cells.swap_remove(at);
                let mut view = self.views.swap_remove(at);
                view.spare.append(&mut view.keyframes);
                view.shown_at = 0;
                self.spare.push(view);
            }
        }
    }

    fn find(&self, cell: CellId) -> Option<&View> {
        self.views.get(self.cells.iter().position(|known| *known == cell)?)
    }

    fn find_or_add(&mut self, cell: CellId) -> Option<&mut View> {
        let index = match self.cells.iter().position(|known| *known == cell) {
            Some(index) => index,
            None => {
                self.cells.push(cell);
                self.views.push(self.spare.pop().unwrap_or_default());
                self.views.len() - 1
            }
        };
        self.views.get_mut(index)
    }

    /// Whom the keyframe of `tick` lists.
    pub(super) fn keyframe(&self, cell: CellId, tick: u32) -> Option<&[Member]> {
        let keyframes = &self.find(cell)?.keyframes;
        let found = keyframes.iter().find(|keyframe| keyframe.tick == tick)?;
        Some(&found.members)
    }

    /// Whom the newest keyframe up to `tick` lists.
    pub(super) fn newest_keyframe(&self, cell: CellId, tick: u32) -> Option<&[Member]> {
        let keyframes = self.find(cell)?.keyframes.iter();
        let newest =
            keyframes.filter(|keyframe| keyframe.tick <= tick).max_by_key(|key| key.tick)?;
        Some(&newest.members)
    }

    /// Keeps a keyframe in place of the oldest, unless it is kept already.
    pub(super) fn store(&mut self, cell: CellId, key: &Key, members: &[Member]) {
        let tick = key.tick;
        let Some(view) = self.find_or_add(cell) else { return };
        if let Some(known) = view.keyframes.iter_mut().find(|keyframe| keyframe.tick == tick) {
            if key.is_whole {
                copy(&mut known.members, members);
            }
            return;
        }
        let mut keyframe = if view.keyframes.len() < KEYFRAMES_MAX {
            view.spare.pop().unwrap_or_default()
        } else {
            let keyframes = view.keyframes.iter().enumerate();
            let oldest = keyframes.min_by_key(|(_, keyframe)| keyframe.tick);
            match oldest.map(|(index, keyframe)| (index, keyframe.tick)) {
                Some((index, oldest)) if oldest < tick => view.keyframes.swap_remove(index),
                _ => return,
            }
        };
        keyframe.tick = tick;
        copy(&mut keyframe.members, members);
        view.keyframes.push(keyframe);
    }

    /// Notes the tick of the newest record.
    pub(super) fn show(&mut self, cell: CellId, tick: u32) {
        if let Some(view) = self.find_or_add(cell) {
            view.shown_at = tick;
        }
    }

    /// The tick of the cell's newest record.
    pub(super) fn shown_at(&self, cell: CellId) -> Option<u32> {
        self.find(cell).map(|view| view.shown_at)
    }

    /// Changes something that is not told again until the entity moves.
    pub(super) fn spoil(&mut self) -> bool {
        let members = self.views.iter_mut().flat_map(|view| &mut view.keyframes);
        let mut members = members.flat_map(|keyframe| &mut keyframe.members).flatten().peekable();
        let any = members.peek().is_some();
        members.for_each(|(_, content)| content.path.x ^= 0x400);
        any
    }
}
