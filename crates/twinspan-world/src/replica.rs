//! What a client knows of the world: the entities of the cells that it sees.

mod coverage;

use twinspan_core::bytes::Reader;

use crate::encode::RecordHead;
use crate::entity::EntityState;
use crate::grid::CellId;
use crate::id::EntityId;
use crate::interest::window_contains;
use crate::quantise;
use crate::state::{OwnState, StateError, StateHeader};
use coverage::Coverage;

/// The most entities that a replica holds.
pub const REPLICA_ENTITIES_MAX: usize = 16_384;

/// The entities that a client sees, kept up to date by state messages in any order.
///
/// Every record says all about one span of ids in one cell at one tick. Newer words replace older
/// ones, per span; an entity is where the newest word puts it; who is no longer listed where it was
/// is gone. Messages may be lost, doubled and late: when the newest record of every subscribed
/// cell has come, the replica is the server's truth for those cells.
///
/// A message is checked whole before anything changes.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// By ascending id.
    entities: Vec<Entry>,
    /// Entities of one record that were not known, before they are sorted in.
    fresh: Vec<Entry>,
    coverage: Coverage,
    /// The header with the newest tick.
    newest: Option<StateHeader>,
    /// Numbers records, to tell whom the present one lists.
    stamp: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: EntityState,
    /// The cell whose record listed it last.
    cell: CellId,
    /// The tick of that record.
    tick: u32,
    /// The number of that record.
    stamp: u32,
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
    /// A record is about a cell that the header does not list.
    #[error("record of cell {x}, {z}, which the client does not see")]
    Unsubscribed {
        /// The cell's column.
        x: i32,
        /// The cell's row.
        z: i32,
    },
    /// A record's ids do not ascend or leave its span.
    #[error("record lists entity {id} out of order or out of its span")]
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

    /// Takes in one state message.
    ///
    /// # Errors
    /// The [`ReplicaError`] that names what is wrong; the replica is then as before.
    pub fn apply(&mut self, message: &[u8]) -> Result<Applied, ReplicaError> {
        let mut reader = Reader::new(message);
        let header = StateHeader::decode(&mut reader)?;
        self.check_records(&header, reader.rest())?;
        let is_newest = self.newest.is_none_or(|newest| header.tick > newest.tick);
        if is_newest {
            self.move_window(&header);
        }
        let told = self.apply_records(&header, reader.rest());
        Ok(if is_newest || told { Applied::New { header } } else { Applied::Stale { header } })
    }

    /// Reads all records without changing anything.
    fn check_records(&self, header: &StateHeader, records: &[u8]) -> Result<(), ReplicaError> {
        let mut listed = 0;
        for record in Records::new(records, header) {
            let (head, entities) = record?;
            let CellId { x, z } = head.cell;
            if !window_contains(header.base, header.mask, head.cell) {
                return Err(ReplicaError::Unsubscribed { x, z });
            }
            // After the largest id of all nothing may follow.
            let mut next = Some(head.first);
            for entity in entities {
                let id = entity?.id;
                let bits = id.to_bits();
                if bits > head.last || next.is_none_or(|next| bits < next) {
                    return Err(ReplicaError::Order { id });
                }
                next = bits.checked_add(1);
                listed += 1;
            }
        }
        // Counting who is new costs a search per entity: only near the limit.
        let fits = self.entities.len() + listed <= REPLICA_ENTITIES_MAX
            || self.entities.len() + self.count_unknown(header, records) <= REPLICA_ENTITIES_MAX;
        if fits { Ok(()) } else { Err(ReplicaError::TooManyEntities) }
    }

    fn count_unknown(&self, header: &StateHeader, records: &[u8]) -> usize {
        Records::new(records, header)
            .flatten()
            .flat_map(|(_, entities)| entities.flatten())
            .filter(|entity| self.find(entity.id).is_err())
            .count()
    }

    /// Makes `header` the newest: forgets the cells that it does not list.
    fn move_window(&mut self, header: &StateHeader) {
        let same = self.newest.is_some_and(|newest| {
            (newest.base, newest.mask, newest.cell_m) == (header.base, header.mask, header.cell_m)
        });
        if !same {
            self.coverage.move_window(header);
            self.entities.retain(|entry| window_contains(header.base, header.mask, entry.cell));
        }
        self.newest = Some(*header);
    }

    /// Applies records that were checked; true when one of them told something.
    fn apply_records(&mut self, header: &StateHeader, records: &[u8]) -> bool {
        let tick = header.tick;
        let mut told = false;
        for (head, entities) in Records::new(records, header).flatten() {
            if !self.coverage.is_open(&head, tick) {
                continue;
            }
            told = true;
            self.stamp = self.stamp.wrapping_add(1);
            entities.flatten().for_each(|state| self.put(state, head.cell, tick));
            self.remove_unlisted(&head, tick);
            if !self.fresh.is_empty() {
                self.entities.append(&mut self.fresh);
                self.entities.sort_unstable_by_key(|entry| entry.state.id);
            }
            self.coverage.close(&head, tick);
        }
        told
    }

    /// Takes in what a record of `cell` says about one entity.
    fn put(&mut self, state: EntityState, cell: CellId, tick: u32) {
        if !self.coverage.is_open_at(cell, state.id.to_bits(), tick) {
            return;
        }
        let entry = Entry { state, cell, tick, stamp: self.stamp };
        match self.find(state.id) {
            Ok(index) => {
                if let Some(known) = self.entities.get_mut(index).filter(|known| known.tick <= tick)
                {
                    *known = entry;
                }
            }
            Err(_) => self.fresh.push(entry),
        }
    }

    /// Removes who was last seen in the record's cell and span and is not in the record.
    fn remove_unlisted(&mut self, head: &RecordHead, tick: u32) {
        let Self { entities, coverage, stamp, .. } = self;
        entities.retain(|entry| {
            let id = entry.state.id.to_bits();
            entry.cell != head.cell
                || entry.stamp == *stamp
                || entry.tick >= tick
                || !(head.first..=head.last).contains(&id)
                || !coverage.is_open_at(head.cell, id, tick)
        });
    }

    fn find(&self, id: EntityId) -> Result<usize, usize> {
        self.entities.binary_search_by_key(&id, |entry| entry.state.id)
    }

    /// The entities in sight, by ascending id, the own player among them.
    pub fn entities(&self) -> impl Iterator<Item = EntityState> {
        self.entities.iter().map(|entry| entry.state)
    }

    /// The entities in sight, each with the tick of the record that told of it last.
    pub fn entities_with_ticks(&self) -> impl Iterator<Item = (EntityState, u32)> {
        self.entities.iter().map(|entry| (entry.state, entry.tick))
    }

    /// One entity, while it is in sight.
    pub fn get(&self, id: EntityId) -> Option<EntityState> {
        let index = self.find(id).ok()?;
        self.entities.get(index).map(|entry| entry.state)
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

    /// Whether every part of the newest state has come, so that the replica is the server's truth
    /// of that tick for the cells in sight.
    pub fn is_complete(&self) -> bool {
        self.newest.is_some_and(|newest| self.coverage.is_told_at(newest.tick))
    }
}

/// The records of a message, up to the first malformed one.
struct Records<'a> {
    reader: Reader<'a>,
    cell_m: u8,
    is_malformed: bool,
}

impl<'a> Records<'a> {
    const fn new(bytes: &'a [u8], header: &StateHeader) -> Self {
        Self { reader: Reader::new(bytes), cell_m: header.cell_m, is_malformed: false }
    }

    fn read(&mut self) -> Result<(RecordHead, Entities<'a>), StateError> {
        let head = RecordHead::decode(&mut self.reader)?;
        let bytes = self.reader.take(usize::from(head.count) * quantise::ENTITY_BYTES)?;
        let entities =
            Entities { reader: Reader::new(bytes), cell: head.cell, cell_m: self.cell_m };
        Ok((head, entities))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(RecordHead, Entities<'a>), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_malformed || self.reader.is_empty() {
            return None;
        }
        let record = self.read();
        self.is_malformed = record.is_err();
        Some(record)
    }
}

/// The entities of one record.
struct Entities<'a> {
    reader: Reader<'a>,
    cell: CellId,
    cell_m: u8,
}

impl Iterator for Entities<'_> {
    type Item = Result<EntityState, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        Some(quantise::decode(&mut self.reader, self.cell, self.cell_m))
    }
}

#[cfg(test)]
mod tests;
