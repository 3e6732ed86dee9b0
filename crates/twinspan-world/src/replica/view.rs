//! What a replica keeps of each cell in sight: the keyframes that later records build on.

use std::sync::Arc;

use twinspan_core::prefetch;

use super::parse::Key;
use super::share;
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

/// Whom a keyframe lists.
#[derive(Clone, Debug)]
enum Members {
    /// In memory of its own, which is used again.
    Own(Vec<Member>),
    /// In memory that other replicas of the thread have, too.
    Shared(Arc<[Member]>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Members {
    fn as_slice(&self) -> &[Member] {
        match self {
            Self::Own(members) => members,
            Self::Shared(members) => members,
        }
    }

    /// Lists these from now on.
    fn set(&mut self, cell: CellId, tick: u32, members: &[Member]) {
        if let Some(shared) = share::find(cell, tick, members) {
            *self = Self::Shared(shared);
            return;
        }
        match self {
            Self::Own(own) => copy(own, members),
            Self::Shared(_) => {
                let mut own = Vec::new();
                copy(&mut own, members);
                *self = Self::Own(own);
            }
        }
    }

    /// Lists nobody; memory of its own is kept.
    fn clear(&mut self) {
        match self {
            Self::Own(own) => own.clear(),
            Self::Shared(_) => *self = Self::default(),
        }
    }

    /// The same in memory of its own, to be changed.
    fn own(&mut self) -> &mut [Member] {
        if let Self::Shared(shared) = self {
            *self = Self::Own(shared.to_vec());
        }
        match self {
            Self::Own(own) => own,
            Self::Shared(_) => &mut [],
        }
    }
}

/// One keyframe, or room for one.
#[derive(Clone, Debug, Default)]
struct Keyframe {
    /// `None` while there is only room.
    tick: Option<u32>,
    members: Members,
}

/// One cell in sight.
#[derive(Clone, Debug, Default)]
struct View {
    keyframes: [Keyframe; KEYFRAMES_MAX],
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
        for (_, view) in self.cells.iter().zip(&self.views).filter(|(cell, _)| is_told(cell)) {
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
                for keyframe in &mut view.keyframes {
                    keyframe.tick = None;
                    keyframe.members.clear();
                }
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
        let found = keyframes.iter().find(|keyframe| keyframe.tick == Some(tick))?;
        Some(found.members.as_slice())
    }

    /// Whom the newest keyframe up to `tick` lists.
    pub(super) fn newest_keyframe(&self, cell: CellId, tick: u32) -> Option<&[Member]> {
        let keyframes = self.find(cell)?.keyframes.iter();
        let known = keyframes.filter(|keyframe| keyframe.tick.is_some_and(|of| of <= tick));
        Some(known.max_by_key(|keyframe| keyframe.tick)?.members.as_slice())
    }

    /// Keeps a keyframe in place of the oldest, unless it is kept already.
    pub(super) fn store(&mut self, cell: CellId, key: &Key, members: &[Member]) {
        let tick = key.tick;
        let Some(view) = self.find_or_add(cell) else { return };
        let keyframes = &mut view.keyframes;
        if let Some(known) = keyframes.iter_mut().find(|keyframe| keyframe.tick == Some(tick)) {
            if key.is_whole {
                known.members.set(cell, tick, members);
            }
            return;
        }
        // Mere room comes before any tick.
        let Some(oldest) = keyframes.iter_mut().min_by_key(|keyframe| keyframe.tick) else {
            return;
        };
        if oldest.tick < Some(tick) {
            oldest.tick = Some(tick);
            oldest.members.set(cell, tick, members);
        }
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

    /// Keyframes that are in memory of several.
    #[cfg(test)]
    pub(super) fn shared(&self) -> usize {
        let keyframes = self.views.iter().flat_map(|view| &view.keyframes);
        keyframes.filter(|key| matches!(key.members, Members::Shared(_))).count()
    }

    /// Changes something that is not told again until the entity moves.
    pub(super) fn spoil(&mut self) -> bool {
        let keyframes = self.views.iter_mut().flat_map(|view| &mut view.keyframes);
        let members = keyframes.flat_map(|keyframe| keyframe.members.own());
        let mut members = members.flatten().peekable();
        let any = members.peek().is_some();
        members.for_each(|(_, content)| content.path.x ^= 0x400);
        any
    }
}
