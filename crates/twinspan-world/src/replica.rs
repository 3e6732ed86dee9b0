//! What a client knows of the world: the entities of the cells that it sees.

mod coverage;
mod parse;
mod share;
mod view;

use std::cell::RefCell;

use twinspan_core::prefetch;

use crate::content::Content;
use crate::entity::{EntityState, Kind};
use crate::far::{FarRegion, FarView};
use crate::grid::CellId;
use crate::header::{Context, OwnState, StateHeader, TICKS_PER_STATE};
use crate::id::EntityId;
use crate::interest::{cell_at, window_bit, window_contains};
use crate::state::StateError;
use coverage::{Coverage, Scope, Spare};
use parse::{Scratch, Word};
pub use share::SharedKeyframes;
use view::Views;

/// The most entities that a replica holds.
pub const REPLICA_ENTITIES_MAX: usize = 16_384;
/// The list of entities grows to a multiple of this.
const ROOM_STEP: usize = 8;
/// Ticks by which a word about a cell at the edge of sight may be older than the newest state.
pub const EDGE_LAG_TICKS: u32 = 15;

thread_local! {
    /// Where messages are read. Replicas of one thread have their turns one after another, so one does
    /// for all of them, and stays in the caches.
    static WORKPLACE: RefCell<Workplace> = RefCell::default();
}

/// What a replica needs only while it reads a message.
#[derive(Debug, Default)]
struct Workplace {
    scratch: Scratch,
    fresh: Vec<Entry>,
    pieces: Spare,
}

/// The entities that a client sees, kept up to date by state messages in any order.
///
/// A record says all about one cell, or about one span of ids in it, at one tick. Newer words
/// replace older ones; an entity is where the newest word puts it; who is no longer listed where it
/// was is gone. Messages may be lost, doubled and late: when the newest record of every subscribed
/// cell has come, the replica is the server's truth for those cells.
///
/// A message is checked whole before anything changes.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// By ascending id.
    entities: Vec<Entry>,
    /// Entities of one record that were not known, before they are sorted in; without memory between
    /// messages.
    fresh: Vec<Entry>,
    coverage: Coverage,
    views: Views,
    far: FarView,
    context: Option<Context>,
    /// The header with the newest tick.
    newest: Option<StateHeader>,
    /// The tick of the newest private list.
    private_at: u32,
    /// Whether private lists told of anybody who may still be here.
    has_private: bool,
    unreadable: u64,
    mismatches: u64,
    wants_keyframes: bool,
}

/// One entity as it was told last. What that looks like is worked out when somebody asks: many more
/// words come than anybody looks at.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: EntityId,
    content: Content,
    /// The cell whose record listed it last.
    cell: CellId,
    /// The tick of that record.
    tick: u32,
    /// The side of a cell then.
    cell_m: u8,
    /// Whether a private list told of it last.
    is_private: bool,
}

impl Entry {
    fn state(&self) -> EntityState {
        self.content.show(self.id, self.cell, self.cell_m, self.tick)
    }
}

/// What became of a state message.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Applied {
    /// It told something new.
    New {
        /// Its header: tick, part, parts, own state.
        header: StateHeader,
    },
    /// All that it says was known already, or newer is: it came twice or too late.
    Stale {
        /// Its header.
        header: StateHeader,
    },
}

impl Applied {
    /// The message's header.
    pub const fn header(&self) -> &StateHeader {
        match self {
            Self::New { header } | Self::Stale { header } => header,
        }
    }
}

/// Why a state message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// It is no state.
    #[error(transparent)]
    Malformed(#[from] StateError),
    /// A section is about a cell that the header does not list.
    #[error("entities of cell {x}, {z}, which the client does not see")]
    Unsubscribed {
        /// The cell's column.
        x: i32,
        /// The cell's row.
        z: i32,
    },
    /// An entity is listed twice, or outside its span.
    #[error("entity {id} is listed twice or out of its span")]
    Order {
        /// The first such entity.
        id: EntityId,
    },
    /// More entities than a replica holds.
    #[error("more than {REPLICA_ENTITIES_MAX} entities in sight")]
    TooManyEntities,
}

impl Replica {
    /// A replica that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wishes for the memory that the next message needs, for who has something to do before it is
    /// read.
    pub fn prefetch(&self) {
        self.views.prefetch_heads();
        prefetch::value(self.entities.as_slice());
    }

    /// Takes in one state message.
    ///
    /// # Errors
    /// The [`ReplicaError`] that names what is wrong; the replica is then as before.
    pub fn apply(&mut self, message: &[u8]) -> Result<Applied, ReplicaError> {
        let (header, statuses, context, rest) = StateHeader::decode(message, self.context)?;
        let Workplace { mut scratch, fresh, pieces } = WORKPLACE.take();
        self.views.prefetch(&header, statuses);
        let parsed = scratch.parse(&header, &context, statuses, rest, &self.views);
        let fits = parsed.and_then(|()| self.check_room(&scratch));
        self.fresh = fresh;
        self.coverage.lend(pieces);
        let told = fits.map(|()| self.commit(&header, context, &scratch));
        let (fresh, pieces) = (core::mem::take(&mut self.fresh), self.coverage.give_back());
        WORKPLACE.set(Workplace { scratch, fresh, pieces });
        Ok(if told? { Applied::New { header } } else { Applied::Stale { header } })
    }

    fn check_room(&self, scratch: &Scratch) -> Result<(), ReplicaError> {
        // Counting who is new costs a search per entity: only near the limit.
        let listed = scratch.entities.len();
        let unknown = || scratch.entities.iter().filter(|told| self.find(told.id).is_err()).count();
        let known = self.entities.len();
        let fits =
            known + listed <= REPLICA_ENTITIES_MAX || known + unknown() <= REPLICA_ENTITIES_MAX;
        if fits { Ok(()) } else { Err(ReplicaError::TooManyEntities) }
    }

    /// Applies what was checked; true when it told something.
    fn commit(&mut self, header: &StateHeader, context: Context, scratch: &Scratch) -> bool {
        let is_newest = self.newest.is_none_or(|newest| header.tick > newest.tick);
        if is_newest || self.context.is_none() {
            self.context = Some(context);
        }
        if is_newest {
            self.move_window(header);
        }
        self.unreadable += scratch.unreadable;
        let mut told = is_newest;
        let mut listed = 0;
        for word in &scratch.words {
            told |= self.take_word(word, header, scratch, &mut listed);
        }
        if listed != 0 {
            self.remove_untold(header, listed);
        }
        if header.part == 0 {
            self.end_private(header.tick, scratch.has_private);
        }
        if let Some(far) = &scratch.far {
            let regions = scratch.regions.get(far.clone()).unwrap_or_default();
            told |= self.far.take(header.tick, regions);
        }
        self.check_digest(header);
        told
    }

    /// Makes `header` the newest: forgets the cells that it does not list.
    fn move_window(&mut self, header: &StateHeader) {
        let same = self.newest.is_some_and(|newest| {
            (newest.base, newest.mask, newest.cell_m) == (header.base, header.mask, header.cell_m)
        });
        if !same {
            self.coverage.move_window(header);
            self.views.move_window(header, self.newest.map(|newest| newest.cell_m));
            self.entities.retain(|entry| window_contains(header.base, header.mask, entry.cell));
        }
        self.newest = Some(*header);
    }

    /// Takes in a word; true when it told something. Of cells that are added to `listed_cells`, who was not
    /// told is still to be removed.
    fn take_word(
        &mut self,
        word: &Word,
        header: &StateHeader,
        scratch: &Scratch,
        listed_cells: &mut u64,
    ) -> bool {
        let tick = header.tick;
        match word {
            Word::Cell { cell, present, baseline } => {
                let listed = scratch.entities.get(present.clone()).unwrap_or_default();
                if let Some(key) = baseline {
                    let members = scratch.members.get(key.members.clone()).unwrap_or_default();
                    self.views.store(*cell, key, members);
                }
                let scope = Scope::whole(*cell);
                if !self.coverage.is_open(&scope, tick) {
                    return false;
                }
                match window_bit(header.base, *cell) {
                    // One look at all entities for all cells of the message.
                    Some(bit) if self.coverage.is_open_throughout(*cell, tick) => {
                        *listed_cells |= 1 << bit;
                        self.put_all(*cell, header, listed);
                    }
                    _ => self.take_list(&scope, header, listed),
                }
                self.coverage.close(&scope, tick);
                self.views.show(*cell, tick);
                true
            }
            Word::Span { scope, present } => {
                let listed = scratch.entities.get(present.clone()).unwrap_or_default();
                if !self.coverage.is_open(scope, tick) {
                    return false;
                }
                self.take_list(scope, header, listed);
                self.coverage.close(scope, tick);
                true
            }
            Word::Near { cell, at } => {
                let Some(told) = scratch.entities.get(*at) else { return false };
                let is_news = self.coverage.is_open_at(*cell, told.id.to_bits(), tick)
                    && self.get_entry(told.id).is_none_or(|known| known.tick < tick);
                if is_news {
                    self.put(told.id, &told.content, *cell, header, false);
                    self.sort_in();
                }
                is_news
            }
            Word::Private { cell, at } => {
                if tick < self.private_at {
                    return false;
                }
                let Some(told) = scratch.entities.get(*at) else { return false };
                self.private_at = tick;
                self.put(told.id, &told.content, *cell, header, true);
                self.sort_in();
                true
            }
        }
    }

    /// Takes in everybody in a cell of which nothing newer is known.
    fn put_all(&mut self, cell: CellId, header: &StateHeader, listed: &[parse::Told]) {
        for told in listed {
            self.put(told.id, &told.content, cell, header, false);
        }
        self.sort_in();
    }

    /// Takes in a list of everybody in `scope`, and removes who is not on it.
    fn take_list(&mut self, scope: &Scope, header: &StateHeader, listed: &[parse::Told]) {
        let tick = header.tick;
        for told in listed {
            if self.coverage.is_open_at(scope.cell, told.id.to_bits(), tick) {
                self.put(told.id, &told.content, scope.cell, header, false);
            }
        }
        let Self { entities, coverage, .. } = self;
        entities.retain(|entry| {
            let id = entry.id.to_bits();
            entry.cell != scope.cell
                || entry.is_private
                || entry.tick >= tick
                || !(scope.first..=scope.last).contains(&id)
                || !coverage.is_open_at(scope.cell, id, tick)
        });
        self.sort_in();
    }

    /// Removes who was last seen in one of the `listed` cells of the window and was not told of.
    fn remove_untold(&mut self, header: &StateHeader, listed: u64) {
        self.entities.retain(|entry| {
            entry.tick >= header.tick
                || entry.is_private
                || !window_contains(header.base, listed, entry.cell)
        });
    }

    /// Takes in what a record of `cell` says about one entity.
    fn put(
        &mut self,
        id: EntityId,
        content: &Content,
        cell: CellId,
        header: &StateHeader,
        is_private: bool,
    ) {
        let StateHeader { tick, cell_m, .. } = *header;
        let entry = Entry { id, content: *content, cell, tick, cell_m, is_private };
        self.has_private |= is_private;
        match self.find(id) {
            Ok(index) => {
                if let Some(known) = self.entities.get_mut(index).filter(|known| known.tick <= tick)
                {
                    *known = entry;
                }
            }
            Err(_) => self.fresh.push(entry),
        }
    }

    fn sort_in(&mut self) {
        if !self.fresh.is_empty() {
            let wanted = self.entities.len() + self.fresh.len();
            if wanted > self.entities.capacity() {
                // Not twice as much, as a vector would take: so many are in sight, and hardly ever more.
                let room = (wanted + wanted / 4).next_multiple_of(ROOM_STEP);
                self.entities.reserve_exact(room - self.entities.len());
            }
            self.entities.append(&mut self.fresh);
            self.entities.sort_unstable_by_key(|entry| entry.id);
        }
    }

    /// Removes whom no private list tells of any more.
    fn end_private(&mut self, tick: u32, was_told: bool) {
        if !was_told && tick < self.private_at {
            return;
        }
        self.private_at = self.private_at.max(tick);
        if self.has_private {
            let private_at = self.private_at;
            self.entities.retain(|entry| !entry.is_private || entry.tick >= private_at);
            self.has_private = self.entities.iter().any(|entry| entry.is_private);
        }
    }

    /// Compares what is held with what the server believes.
    fn check_digest(&mut self, header: &StateHeader) {
        // A late word is about what was replaced since.
        let is_newest = self.newest.is_some_and(|newest| newest.tick == header.tick);
        let Some(digest) = header.digest.filter(|_| is_newest) else { return };
        // Each cell must have been told by this very state.
        let mut cells = (0..u64::BITS).filter(|bit| digest.cells >> bit & 1 != 0);
        let is_told = cells.all(|bit| {
            self.views.shown_at(cell_at(header.base, bit as usize)) == Some(header.tick)
        });
        let sum = self.entities.iter().fold(0_u32, |sum, entry| {
            let counts = entry.tick == header.tick
                && !entry.is_private
                && window_contains(header.base, digest.cells, entry.cell);
            let more = if counts { entry.content.digest(entry.id, entry.cell_m) } else { 0 };
            sum.wrapping_add(more)
        });
        if !is_told || sum != digest.sum {
            self.mismatches += 1;
            self.wants_keyframes = true;
        }
    }

    /// Whether the replica was found to be wrong since the last call: the server must be asked for
    /// everything anew.
    pub const fn take_keyframe_wish(&mut self) -> bool {
        core::mem::replace(&mut self.wants_keyframes, false)
    }

    /// States after which the replica was not what the server believed.
    pub const fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Records that could not be read because the keyframe that they build on has not come.
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Spoils what the replica holds of one cell, so that tests see it repaired; false when it
    /// holds nothing that could be spoilt.
    #[doc(hidden)]
    pub fn spoil(&mut self) -> bool {
        self.views.spoil()
    }

    fn find(&self, id: EntityId) -> Result<usize, usize> {
        self.entities.binary_search_by_key(&id, |entry| entry.id)
    }

    fn get_entry(&self, id: EntityId) -> Option<&Entry> {
        self.entities.get(self.find(id).ok()?)
    }

    /// The entities in sight, by ascending id, the own player among them.
    pub fn entities(&self) -> impl Iterator<Item = EntityState> {
        self.entities.iter().map(Entry::state)
    }

    /// The entities in sight, each with the tick of the record that told of it last.
    pub fn entities_with_ticks(&self) -> impl Iterator<Item = (EntityState, u32)> {
        self.entities.iter().map(|entry| (entry.state(), entry.tick))
    }

    /// Who is in sight, by ascending id, each with its kind and the tick of the record that told of it
    /// last: cheaper than what it looks like.
    pub fn ids(&self) -> impl Iterator<Item = (EntityId, Kind, u32)> {
        self.entities.iter().map(|entry| (entry.id, entry.content.kind, entry.tick))
    }

    /// One entity, while it is in sight.
    pub fn get(&self, id: EntityId) -> Option<EntityState> {
        self.get_entry(id).map(Entry::state)
    }

    /// Entities in sight.
    pub fn len(&self) -> usize {
        self.entities.len()
    }

    /// Whether no entity is in sight.
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    /// The newest tick that was heard of; 0 before the first.
    pub fn tick(&self) -> u32 {
        self.newest.map_or(0, |newest| newest.tick)
    }

    /// The newest header.
    pub const fn newest(&self) -> Option<&StateHeader> {
        self.newest.as_ref()
    }

    /// The own player, as the newest state has it.
    pub fn own(&self) -> Option<OwnState> {
        self.newest.map(|newest| newest.own)
    }

    /// The cells in sight, row by row.
    pub fn cells(&self) -> impl Iterator<Item = CellId> + use<> {
        self.newest.into_iter().flat_map(|newest| newest.cells())
    }

    /// The cells in sight, each with the tick of the oldest word about anybody in it; `None` for
    /// one that was not told whole yet.
    pub fn cells_with_ticks(&self) -> impl Iterator<Item = (CellId, Option<u32>)> {
        self.cells().map(|cell| (cell, self.coverage.told_at(cell)))
    }

    /// The world around at a glance: the regions in which anybody is whom all may see, row by row, as
    /// told about once a second. Who draws a crowd far away draws those with
    /// [`cells_seen`](FarRegion::cells_seen) 0.
    pub fn far(&self) -> impl Iterator<Item = FarRegion> {
        let newest = self.newest.as_ref();
        let (cell_m, window) = newest.map_or((0, (CellId::default(), 0)), |newest| {
            (newest.cell_m, (newest.base, newest.mask))
        });
        self.far.regions(cell_m, window)
    }

    /// The tick of the state that told of them; `None` before the first.
    pub const fn far_tick(&self) -> Option<u32> {
        self.far.tick()
    }

    /// Whether the newest word about every cell in sight has come, so that the replica is the
    /// server's truth for them; at the edge of sight that of [`EDGE_LAG_TICKS`] ago.
    pub fn is_complete(&self) -> bool {
        self.newest.is_some_and(|newest| {
            let pace = u32::from(newest.ticks_per_state.max(TICKS_PER_STATE));
            let lag = EDGE_LAG_TICKS * pace / u32::from(TICKS_PER_STATE);
            self.coverage.is_told_since(newest.tick.saturating_sub(lag))
        })
    }
}

#[cfg(test)]
mod tests;
