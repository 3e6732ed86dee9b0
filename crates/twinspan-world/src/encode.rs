//! Every cell of a world encoded once, to be copied to all who see it.

use twinspan_core::bytes::{ReadError, Reader, zigzag};

use crate::grid::CellId;
use crate::id::EntityId;
use crate::quantise::{self, ENTITY_BYTES};
use crate::state::StateError;
use crate::store::state_of;
use crate::world::World;

/// The most entities in one record; a cell with more is split into several.
pub const ENTITIES_PER_RECORD_MAX: usize = 40;
/// Bytes of the longest record.
pub const RECORD_BYTES_MAX: usize = RECORD_HEAD_BYTES_MAX + ENTITIES_PER_RECORD_MAX * ENTITY_BYTES;
/// The most records of one cell; entities beyond them are left out and counted.
pub const RECORDS_PER_CELL_MAX: usize = 256;

/// Two varints of 32 bits, span, first id, last id, variant, count.
const RECORD_HEAD_BYTES_MAX: usize = 5 + 5 + 1 + 4 + 4 + 1 + 1;
/// The variant that lists every entity whole.
const KEYFRAME: u8 = 0;
/// Span bit: the record begins at an id that follows.
const SPAN_FIRST: u8 = 1;
/// Span bit: the record ends with an id that follows.
const SPAN_LAST: u8 = 2;

/// Where a record lies in the arena.
#[derive(Clone, Copy, Debug)]
struct RecordAt {
    offset: u32,
    bytes: u16,
    entities: u8,
}

/// One record for a client: its bytes and how many entities they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) entities: usize,
}

/// Every cell of one world at one tick, as bytes.
///
/// A record says everything about the entities of one cell whose ids are in one span: those that it
/// does not list are not in the cell. A cell with few entities has one record, an empty cell one
/// without entities. In bytes, little-endian: cell x and z as zigzag varints; span u8; the first id
/// of the span u32 if span bit 0 is set, else it begins at 0; the last id u32 if span bit 1 is set,
/// else it ends at 2^32 - 1; variant u8, 0; count u8; the entities by ascending id, see
/// [`ENTITY_BYTES`].
#[derive(Clone, Debug, Default)]
pub struct CellEncodings {
    tick: u32,
    cell_m: u8,
    per_axis: u32,
    arena: Vec<u8>,
    records: Vec<RecordAt>,
    /// Where each cell's records begin in `records`; one more at the end.
    firsts: Vec<u32>,
    left_out: usize,
}

impl CellEncodings {
    /// No cells yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes every cell of `world` in place of what was there. The first call takes the room that
    /// the fullest state of this world needs, later ones none.
    pub fn encode_all(&mut self, world: &World) {
        self.reserve(world);
        self.tick = world.tick();
        self.cell_m = world.config().cell_metres();
        self.per_axis = world.grid().cells_per_axis();
        self.left_out = 0;
        self.arena.clear();
        self.records.clear();
        self.firsts.clear();
        for cell in world.grid().cells() {
            self.firsts.push(self.records.len() as u32);
            self.encode_cell(world, cell);
        }
        self.firsts.push(self.records.len() as u32);
    }

    fn reserve(&mut self, world: &World) {
        let cells = (world.grid().cells_per_axis() as usize).pow(2);
        let entities = world.config().entities_max;
        let records = cells + entities / ENTITIES_PER_RECORD_MAX;
        let bytes = records * RECORD_HEAD_BYTES_MAX + entities * ENTITY_BYTES;
        self.arena.clear();
        self.records.clear();
        self.firsts.clear();
        self.arena.reserve_exact(bytes);
        self.records.reserve_exact(records);
        self.firsts.reserve_exact(cells + 1);
    }

    fn encode_cell(&mut self, world: &World, cell: CellId) {
        let all = world.grid().cell(cell);
        let listed = all.len().min(RECORDS_PER_CELL_MAX * ENTITIES_PER_RECORD_MAX);
        self.left_out += all.len() - listed;
        let ids = all.get(..listed).unwrap_or_default();
        if ids.is_empty() {
            return self.encode_record(world, cell, None, None, ids);
        }
        let mut first = None;
        let mut chunks = ids.chunks(ENTITIES_PER_RECORD_MAX).peekable();
        while let Some(chunk) = chunks.next() {
            let next = chunks.peek().and_then(|chunk| chunk.first()).map(|id| id.to_bits());
            self.encode_record(world, cell, first, next.map(|next| next - 1), chunk);
            first = next;
        }
    }

    /// Encodes the entities of `cell` with ids from `first` to `last`.
    fn encode_record(
        &mut self,
        world: &World,
        cell: CellId,
        first: Option<u32>,
        last: Option<u32>,
        ids: &[EntityId],
    ) {
        let start = self.arena.len();
        push_varint(&mut self.arena, zigzag(i64::from(cell.x)));
        push_varint(&mut self.arena, zigzag(i64::from(cell.z)));
        let span = if first.is_some() { SPAN_FIRST } else { 0 };
        self.arena.push(span | if last.is_some() { SPAN_LAST } else { 0 });
        for bound in first.into_iter().chain(last) {
            self.arena.extend_from_slice(&bound.to_le_bytes());
        }
        let count_at = self.arena.len() + 1;
        self.arena.extend_from_slice(&[KEYFRAME, 0]);
        let store = world.store();
        let mut entities = 0;
        for id in ids {
            // The grid is as old as the last step: who was despawned since is passed over.
            let Some(traits) = store.traits(*id) else { continue };
            let Some(body) = store.bodies.get(id.index()) else { continue };
            let entity = state_of(*id, body, traits);
            self.arena.extend_from_slice(&quantise::encode(&entity, cell, self.cell_m));
            entities += 1;
        }
        if let Some(count) = self.arena.get_mut(count_at) {
            *count = entities;
        }
        let bytes = (self.arena.len() - start) as u16;
        self.records.push(RecordAt { offset: start as u32, bytes, entities });
    }

    /// The tick of the world that was encoded.
    pub const fn tick(&self) -> u32 {
        self.tick
    }

    /// The side of a cell in whole metres.
    pub const fn cell_metres(&self) -> u8 {
        self.cell_m
    }

    /// Entities that were left out because their cell held too many.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// All records of a cell, one after another; empty for a cell that the world has not.
    pub fn cell(&self, cell: CellId) -> &[u8] {
        let records = self.records_of(cell);
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return &[] };
        let end = last.offset as usize + usize::from(last.bytes);
        self.arena.get(first.offset as usize..end).unwrap_or_default()
    }

    /// The records of a cell, each at most [`RECORD_BYTES_MAX`] long.
    pub fn cell_parts(&self, cell: CellId) -> impl Iterator<Item = &[u8]> {
        self.cell_records(cell).map(|record| record.bytes)
    }

    pub(crate) fn cell_records(&self, cell: CellId) -> impl Iterator<Item = Record<'_>> {
        self.records_of(cell).iter().filter_map(|at| {
            let start = at.offset as usize;
            let bytes = self.arena.get(start..start + usize::from(at.bytes))?;
            Some(Record { bytes, entities: usize::from(at.entities) })
        })
    }

    fn records_of(&self, cell: CellId) -> &[RecordAt] {
        let (x, z) = (cell.x as u32, cell.z as u32);
        if x >= self.per_axis || z >= self.per_axis {
            return &[];
        }
        let number = (z * self.per_axis + x) as usize;
        let bounds = (self.firsts.get(number), self.firsts.get(number + 1));
        let (Some(first), Some(end)) = bounds else { return &[] };
        self.records.get(*first as usize..*end as usize).unwrap_or_default()
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The head of a record: of which cell and which ids it says everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) cell: CellId,
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) count: u8,
}

impl RecordHead {
    /// Reads a head; `count` entities follow it.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let cell = CellId { x: read_coordinate(reader)?, z: read_coordinate(reader)? };
        let span = reader.u8()?;
        if span & !(SPAN_FIRST | SPAN_LAST) != 0 {
            return Err(StateError::Span);
        }
        let first = if span & SPAN_FIRST == 0 { 0 } else { reader.u32()? };
        let last = if span & SPAN_LAST == 0 { u32::MAX } else { reader.u32()? };
        if first > last {
            return Err(StateError::Span);
        }
        let variant = reader.u8()?;
        if variant != KEYFRAME {
            return Err(StateError::Variant { number: variant });
        }
        let count = reader.u8()?;
        if usize::from(count) > ENTITIES_PER_RECORD_MAX {
            return Err(StateError::Count { count });
        }
        Ok(Self { cell, first, last, count })
    }
}

fn read_coordinate(reader: &mut Reader<'_>) -> Result<i32, StateError> {
    let value = twinspan_core::bytes::unzigzag(reader.varint()?);
    i32::try_from(value).map_err(|_| StateError::Short(ReadError::VarintTooLong))
}

#[cfg(test)]
mod tests {
    use twinspan_core::random::Stream;

    use super::*;
    use crate::config::WorldConfig;
    use crate::entity::{Kind, Position};

    fn world(entities_max: usize) -> World {
        let config = WorldConfig { side: 64.0, entities_max, ..WorldConfig::default() };
        World::new(config, Stream::new(1, "world", 0)).unwrap()
    }

    #[test]
    fn cells_have_these_bytes() {
        let mut world = world(10);
        let id = world.spawn(Kind::Player, Position::ground(48.0, 16.25)).unwrap();
        world.step();
        let mut encodings = CellEncodings::new();
        encodings.encode_all(&world);
        assert_eq!((encodings.tick(), encodings.cell_metres()), (1, 32));
        assert_eq!(encodings.cell(CellId { x: 0, z: 1 }), [0, 2, 0, 0, 0]);
        let mut golden = vec![2, 0, 0, 0, 1, 0x01, 0x00, 0x00, 0x00, 0x00];
        golden.extend([0x00, 0x80, 0x00, 0x82, 0, 0, 0, 0, 0, 0, 0, 100]);
        assert_eq!(encodings.cell(CellId { x: 1, z: 0 }), golden);
        assert_eq!(encodings.cell(CellId { x: 2, z: 0 }), [] as [u8; 0]);
        // Who is gone since the last step is not told.
        assert!(world.despawn(id));
        encodings.encode_all(&world);
        assert_eq!(encodings.cell(CellId { x: 1, z: 0 }), [2, 0, 0, 0, 0]);
    }

    #[test]
    fn a_crowd_is_split_into_spans_without_a_gap() {
        let mut world = world(100);
        let ids: Vec<_> = (0..100)
            .map(|_| world.spawn(Kind::Npc, Position::ground(10.0, 10.0)).unwrap().to_bits())
            .collect();
        world.step();
        let mut encodings = CellEncodings::new();
        encodings.encode_all(&world);
        let heads: Vec<_> = encodings
            .cell_parts(CellId { x: 0, z: 0 })
            .map(|bytes| {
                assert!(bytes.len() <= RECORD_BYTES_MAX);
                RecordHead::decode(&mut Reader::new(bytes)).unwrap()
            })
            .collect();
        let spans: Vec<_> = heads.iter().map(|head| (head.first, head.last, head.count)).collect();
        let expected = [(0, ids[40] - 1, 40), (ids[40], ids[80] - 1, 40), (ids[80], u32::MAX, 20)];
        assert_eq!(spans, expected);
    }

    #[test]
    fn heads_that_say_nothing_are_named() {
        let head = |bytes: &[u8]| RecordHead::decode(&mut Reader::new(bytes)).unwrap_err();
        assert_eq!(head(&[0, 0, 4, 0, 0]), StateError::Span);
        assert_eq!(head(&[0, 0, 3, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0]), StateError::Span);
        assert_eq!(head(&[0, 0, 0, 1, 0]), StateError::Variant { number: 1 });
        assert_eq!(head(&[0, 0, 0, 0, 41]), StateError::Count { count: 41 });
        let far = [0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
        assert_eq!(head(&far), StateError::Short(ReadError::VarintTooLong));
        assert!(matches!(head(&[0, 0, 0, 0]), StateError::Short(ReadError::Short { .. })));
    }

    #[test]
    fn a_full_world_fits_the_room_taken_at_first() {
        let mut world = world(2_000);
        let mut encodings = CellEncodings::new();
        encodings.encode_all(&world);
        let room = encodings.arena.capacity();
        (0..2_000).for_each(|_| assert!(world.spawn_anywhere(Kind::Npc).is_ok()));
        world.step();
        encodings.encode_all(&world);
        assert_eq!(encodings.arena.capacity(), room);
    }
}
