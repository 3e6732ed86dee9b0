//! A uniform grid over the world, rebuilt each tick by counting sort.
//!
//! Only cells that someone is in, or was in of late, take memory: a world may be ten thousand
//! kilometres wide.

use core::cmp::Ordering;

use crate::config::WorldConfig;
use crate::entity::Position;
use crate::id::EntityId;

/// No cell has this number.
pub(crate) const NO_CELL: u32 = u32::MAX;
/// The most cells of a world for which each has a place in a table; beyond it cells are hashed.
const DIRECT_CELLS_MAX: u64 = 1 << 18;
/// Rebuilds for which a cell without entities keeps its number.
const LINGER_TICKS: u32 = 600;
/// Cells that can linger in a world of few entities.
const CELLS_SPARE: usize = 64;

/// Names a cell: its column and row, counted from the world's origin.
///
/// Cells order by rows: the next after a cell is its eastern neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CellId {
    /// Column, from west to east.
    pub x: i32,
    /// Row, from south to north.
    pub z: i32,
}

impl CellId {
    /// Of a number that no cell has at present.
    const NOWHERE: Self = Self { x: i32::MIN, z: i32::MIN };
}

impl Ord for CellId {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.z, self.x).cmp(&(other.z, other.x))
    }
}

impl PartialOrd for CellId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One cell that has a number.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    id: CellId,
    /// Where its ids begin in `order`.
    start: u32,
    /// How many they are.
    len: u32,
    /// Where the next id goes while the grid is being rebuilt.
    next: u32,
    /// Rebuilds since somebody was in it.
    empty_ticks: u32,
    /// Tells the cell from others that had the number before.
    serial: u32,
}

/// Where an entity was at the last rebuild; by slot.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: Option<EntityId>,
    cell: CellId,
    number: u32,
}

/// From cells to numbers.
#[derive(Clone, Debug)]
enum Index {
    /// The number of each cell, row by row.
    Direct(Vec<u32>),
    /// Open addressing with linear probing; the length is a power of two.
    Hashed(Vec<u32>),
}

/// Which entities are in which cell, as of the last tick.
///
/// An entity that was spawned since is not in it yet; one that was despawned since still is, by an
/// id that finds nothing any more.
#[derive(Clone, Debug)]
pub struct Grid {
    side: f64,
    cell: f64,
    per_axis: u32,
    cells: Vec<Numbered>,
    cells_max: usize,
    free: Vec<u32>,
    index: Index,
    /// Where the search for a number to be taken back goes on.
    hand: usize,
    serial: u32,
    order: Vec<EntityId>,
    /// Entities with their cell's number, in slot order: filled by the pass that moves entities.
    unsorted: Vec<(u32, EntityId)>,
    places: Vec<Place>,
}

impl Grid {
    pub(crate) fn new(config: &WorldConfig) -> Self {
        let per_axis = config.cells_per_axis();
        let all = u64::from(per_axis) * u64::from(per_axis);
        let wanted = config.entities_max * 2 + CELLS_SPARE;
        let cells_max = usize::try_from(all).unwrap_or(wanted).min(wanted);
        let index = if all <= DIRECT_CELLS_MAX {
            Index::Direct(vec![NO_CELL; all as usize])
        } else {
            Index::Hashed(vec![NO_CELL; (cells_max * 2).next_power_of_two()])
        };
        Self {
            side: config.side,
            cell: config.cell,
            per_axis,
            cells: Vec::with_capacity(cells_max),
            cells_max,
            free: Vec::with_capacity(cells_max),
            index,
            hand: 0,
            serial: 0,
            order: Vec::with_capacity(config.entities_max),
            unsorted: Vec::with_capacity(config.entities_max),
            places: vec![
                Place { id: None, cell: CellId::NOWHERE, number: NO_CELL };
                config.entities_max
            ],
        }
    }

    /// Copies which entities are in which cell, without allocating, for who looks and never sorts.
    pub(crate) fn copy_seen(&mut self, from: &Self) {
        self.cells.clone_from(&from.cells);
        self.order.clone_from(&from.order);
        self.serial = from.serial;
        let (Index::Direct(to) | Index::Hashed(to)) = &mut self.index;
        let (Index::Direct(from) | Index::Hashed(from)) = &from.index;
        to.clone_from(from);
    }

    /// Cells along one side of the world.
    pub const fn cells_per_axis(&self) -> u32 {
        self.per_axis
    }

    /// The side of a cell in metres.
    pub const fn cell_side(&self) -> f64 {
        self.cell
    }

    /// The side of the world in metres.
    pub const fn world_side(&self) -> f64 {
        self.side
    }

    /// Whether the world has this cell.
    pub const fn has(&self, cell: CellId) -> bool {
        // A negative number is a huge unsigned one.
        (cell.x as u32) < self.per_axis && (cell.z as u32) < self.per_axis
    }

    /// The cell at `position`; the nearest one for a position outside the world.
    pub fn cell_of(&self, position: Position) -> CellId {
        let last = f64::from(self.per_axis - 1);
        // max() before min(): a NaN becomes 0. The cast rounds down what is not negative.
        let axis = |coordinate: f64| (coordinate / self.cell).max(0.0).min(last) as i32;
        CellId { x: axis(position.x), z: axis(position.z) }
    }

    /// The square of the distance over the ground from `position` to the nearest point of `cell`,
    /// in square metres.
    pub fn distance_squared(&self, cell: CellId, position: Position) -> f64 {
        let axis = |number: i32, coordinate: f64| {
            let low = f64::from(number) * self.cell;
            (low - coordinate).max(coordinate - (low + self.cell)).max(0.0)
        };
        let (dx, dz) = (axis(cell.x, position.x), axis(cell.z, position.z));
        dx * dx + dz * dz
    }

    /// The square of the distance along one axis from `coordinate` to the cells of one row or
    /// column; infinite for one that the world has not.
    pub(crate) fn axis_distance_squared(&self, number: i32, coordinate: f64) -> f64 {
        if number as u32 >= self.per_axis {
            return f64::INFINITY;
        }
        let low = f64::from(number) * self.cell;
        let away = (low - coordinate).max(coordinate - (low + self.cell)).max(0.0);
        away * away
    }

    /// The entities in `cell`, in slot order; none for a cell that the world has not.
    pub fn cell(&self, cell: CellId) -> &[EntityId] {
        self.number(cell).map_or(&[], |number| self.listed(number))
    }

    /// Every cell that an entity is in, in no order that means anything; the same on every run.
    pub fn cells(&self) -> impl Iterator<Item = CellId> {
        self.cells.iter().filter(|cell| cell.len > 0).map(|cell| cell.id)
    }

    /// Entities in the grid.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no entity is in the grid.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The most cells that have a number at once; numbers lie below it.
    pub(crate) const fn numbers_max(&self) -> usize {
        self.cells_max
    }

    /// The number of `cell`, while it has one: when someone is in it or was of late.
    pub(crate) fn number(&self, cell: CellId) -> Option<u32> {
        if !self.has(cell) {
            return None;
        }
        let number = match &self.index {
            Index::Direct(numbers) => *numbers.get(self.place_of(cell))?,
            Index::Hashed(table) => *table.get(self.find(table, cell)?)?,
        };
        (number != NO_CELL).then_some(number)
    }

    /// Tells this use of a number from earlier ones.
    pub(crate) fn serial(&self, number: u32) -> u32 {
        self.cells.get(number as usize).map_or(0, |cell| cell.serial)
    }

    /// The cell that has this number.
    pub(crate) fn id_of(&self, number: u32) -> CellId {
        self.cells.get(number as usize).map_or(CellId::NOWHERE, |cell| cell.id)
    }

    /// The entities in the cell with this number, in slot order.
    pub(crate) fn listed(&self, number: u32) -> &[EntityId] {
        let Some(cell) = self.cells.get(number as usize) else { return &[] };
        let start = cell.start as usize;
        self.order.get(start..start + cell.len as usize).unwrap_or_default()
    }

    /// The number of the cell in which the entity was at the last rebuild; [`NO_CELL`] when it was
    /// not there.
    pub(crate) fn number_at(&self, id: EntityId) -> u32 {
        let place = self.places.get(id.index()).filter(|place| place.id == Some(id));
        place.map_or(NO_CELL, |place| place.number)
    }

    fn place_of(&self, cell: CellId) -> usize {
        cell.z as usize * self.per_axis as usize + cell.x as usize
    }

    /// Where in the hash table `cell` is, or the free place at which the search ended.
    fn find(&self, table: &[u32], cell: CellId) -> Option<usize> {
        let mask = table.len() - 1;
        let mut at = hash(cell) as usize & mask;
        for _ in 0..table.len() {
            let number = *table.get(at)?;
            if number == NO_CELL || self.id_of(number) == cell {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn set_index(&mut self, cell: CellId, number: u32) {
        let at = match &self.index {
            Index::Direct(_) => Some(self.place_of(cell)),
            Index::Hashed(table) => self.find(table, cell),
        };
        let (Index::Direct(table) | Index::Hashed(table)) = &mut self.index;
        if let Some(place) = at.and_then(|at| table.get_mut(at)) {
            *place = number;
        }
    }

    fn clear_index(&mut self, cell: CellId) {
        if matches!(self.index, Index::Direct(_)) {
            return self.set_index(cell, NO_CELL);
        }
        let Index::Hashed(table) = &self.index else { return };
        let Some(mut hole) = self.find(table, cell) else { return };
        let mask = table.len() - 1;
        // Whoever was pushed past the hole moves up, so that no search ends too soon.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Index::Hashed(table) = &self.index else { return };
            let number = table.get(at).copied().unwrap_or(NO_CELL);
            let home = hash(self.id_of(number)) as usize & mask;
            let Index::Hashed(table) = &mut self.index else { return };
            if number != NO_CELL && (at.wrapping_sub(home) & mask) < (at.wrapping_sub(hole) & mask)
            {
                continue;
            }
            if let Some(place) = table.get_mut(hole) {
                *place = number;
            }
            if number == NO_CELL {
                return;
            }
            hole = at;
        }
    }

    /// The number of `cell`, given to it now if it has none.
    fn obtain(&mut self, cell: CellId) -> u32 {
        if let Some(number) = self.number(cell) {
            return number;
        }
        self.serial = self.serial.wrapping_add(1);
        let (id, serial) = (cell, self.serial);
        let fresh = Numbered { id, start: 0, len: 0, next: 0, empty_ticks: 0, serial };
        let number = if let Some(number) = self.free.pop() {
            number
        } else if self.cells.len() < self.cells_max {
            self.cells.push(fresh);
            self.cells.len() as u32 - 1
        } else {
            self.take_back()
        };
        if let Some(place) = self.cells.get_mut(number as usize) {
            *place = fresh;
        }
        self.set_index(cell, number);
        number
    }

    /// Takes the number of a cell back that nobody was found in so far. There are more numbers than
    /// entities, or one for each cell of the world.
    fn take_back(&mut self) -> u32 {
        for _ in 0..self.cells.len() {
            self.hand = (self.hand + 1) % self.cells.len().max(1);
            if self.cells.get(self.hand).is_some_and(|cell| cell.len == 0) {
                self.release(self.hand as u32);
                self.free.pop();
                return self.hand as u32;
            }
        }
        NO_CELL
    }

    fn release(&mut self, number: u32) {
        let id = self.id_of(number);
        if id == CellId::NOWHERE {
            return;
        }
        self.clear_index(id);
        if let Some(cell) = self.cells.get_mut(number as usize) {
            cell.id = CellId::NOWHERE;
        }
        self.free.push(number);
    }

    /// Sorts `entities`, which come in slot order, into cells.
    ///
    /// Counting sort: count, sum up, place. It is stable and takes two passes over the entities and
    /// one over the cells that have a number.
    pub(crate) fn rebuild(&mut self, entities: impl Iterator<Item = (EntityId, Position)>) {
        self.unsorted.clear();
        self.cells.iter_mut().for_each(|cell| cell.len = 0);
        for (id, position) in entities {
            let cell = self.cell_of(position);
            let mut number = match self.places.get(id.index()) {
                Some(place) if place.cell == cell && place.id == Some(id) => place.number,
                _ => NO_CELL,
            };
            // A number may have been given to another cell since.
            if self.id_of(number) != cell {
                number = self.obtain(cell);
                if let Some(place) = self.places.get_mut(id.index()) {
                    *place = Place { id: Some(id), cell, number };
                }
            }
            if let Some(cell) = self.cells.get_mut(number as usize) {
                cell.len += 1;
                self.unsorted.push((number, id));
            }
        }
        let mut sum = 0;
        for number in 0..self.cells.len() {
            let Some(cell) = self.cells.get_mut(number) else { continue };
            (cell.start, cell.next) = (sum, sum);
            sum += cell.len;
            cell.empty_ticks = if cell.len == 0 { cell.empty_ticks.saturating_add(1) } else { 0 };
            if cell.empty_ticks == LINGER_TICKS {
                self.release(number as u32);
            }
        }
        self.order.clear();
        let Some((_, any)) = self.unsorted.first() else { return };
        self.order.resize(self.unsorted.len(), *any);
        for (number, id) in &self.unsorted {
            let Some(cell) = self.cells.get_mut(*number as usize) else { continue };
            if let Some(place) = self.order.get_mut(cell.next as usize) {
                *place = *id;
            }
            cell.next += 1;
        }
    }
}

/// Spreads cells over a table; any odd multipliers without pattern do.
const fn hash(cell: CellId) -> u32 {
    let mixed =
        (cell.x as u32).wrapping_mul(0x9e37_79b1) ^ (cell.z as u32).wrapping_mul(0x85eb_ca77);
    mixed ^ mixed >> 15
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn grid(side: f64, cell: f64) -> Grid {
        Grid::new(&WorldConfig { side, cell, entities_max: 200, ..WorldConfig::default() })
    }

    #[test]
    fn a_position_outside_belongs_to_the_nearest_cell() {
        let grid = grid(100.0, 32.0);
        assert_eq!(grid.cells_per_axis(), 4);
        let cell = |x, z| grid.cell_of(Position::ground(x, z));
        assert_eq!(cell(31.999, 32.0), CellId { x: 0, z: 1 });
        assert_eq!(cell(-5.0, 1e18), CellId { x: 0, z: 3 });
        assert_eq!(cell(f64::NAN, f64::INFINITY), CellId { x: 0, z: 3 });
        assert!(grid.has(CellId { x: 3, z: 3 }) && !grid.has(CellId { x: 4, z: 0 }));
        assert!(!grid.has(CellId { x: 0, z: -1 }));
        assert!(grid.cell(CellId { x: i32::MIN, z: i32::MAX }).is_empty());
    }

    #[test]
    fn distance_is_to_the_nearest_point_of_the_cell() {
        let grid = grid(128.0, 32.0);
        let at = Position::ground(40.0, 10.0);
        assert_eq!(grid.distance_squared(CellId { x: 1, z: 0 }, at), 0.0);
        assert_eq!(grid.distance_squared(CellId { x: 0, z: 0 }, at), 64.0);
        assert_eq!(grid.distance_squared(CellId { x: 3, z: 2 }, at), 56.0 * 56.0 + 54.0 * 54.0);
    }

    #[test]
    fn a_wide_world_takes_memory_for_its_entities_alone() {
        let mut grid = grid(10_000_000.0, 32.0);
        let mut random = twinspan_core::random::Stream::new(3, "grid", 0);
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let places: Vec<_> = (0..200)
                .map(|slot| {
                    let at = Position::ground(random.unit() * 1e7, random.unit() * 1e7);
                    (EntityId::new(slot, 1).unwrap(), at)
                })
                .collect();
            grid.rebuild(places.iter().copied());
            for (id, at) in &places {
                assert_eq!(grid.cell(grid.cell_of(*at)), [*id]);
                seen.insert(grid.cell_of(*at));
            }
            assert_eq!(grid.cells().count(), 200);
        }
        assert!(seen.len() > 5_000, "more cells were visited than can be kept");
        assert!(grid.cells.len() <= 464 && grid.free.capacity() <= 464);
        let Index::Hashed(table) = &grid.index else { panic!("a wide world is hashed") };
        assert_eq!(table.len(), 1_024);
        assert!(table.iter().filter(|number| **number != NO_CELL).count() <= 464);
    }

    #[test]
    fn a_cell_keeps_its_number_for_a_while() {
        let mut grid = grid(320.0, 32.0);
        let id = EntityId::new(0, 1).unwrap();
        let (here, there) = (Position::ground(10.0, 10.0), Position::ground(200.0, 200.0));
        grid.rebuild([(id, here)].into_iter());
        let (number, serial) = (grid.number(CellId::default()), grid.serial(0));
        assert_eq!(number, Some(0));
        for _ in 1..LINGER_TICKS {
            grid.rebuild([(id, there)].into_iter());
        }
        assert_eq!((grid.number(CellId::default()), grid.serial(0)), (number, serial));
        grid.rebuild([(id, there)].into_iter());
        assert_eq!(grid.number(CellId::default()), None);
        grid.rebuild([(id, here)].into_iter());
        assert!(grid.serial(0) != serial);
    }

    proptest! {
        #[test]
        fn every_cell_lists_what_a_scan_finds(
            wide: bool,
            rounds in proptest::collection::vec(
                proptest::collection::vec((0.0_f64..200.0, 0.0_f64..200.0), 0..150), 1..6),
        ) {
            // Wide worlds hash their cells: few entities, so that they collide and are taken back.
            let side = if wide { 16_000.0 } else { 200.0 };
            let mut grid = grid(side, 16.0);
            for places in rounds {
                let entities: Vec<_> = places
                    .iter()
                    .enumerate()
                    .map(|(index, (x, z))| {
                        let at = Position::ground(x * side / 200.0, z * side / 200.0);
                        (EntityId::new(index, 1).unwrap(), at)
                    })
                    .collect();
                grid.rebuild(entities.iter().copied());
                prop_assert_eq!(grid.len(), entities.len());
                let mut scanned: BTreeMap<CellId, Vec<EntityId>> = BTreeMap::new();
                for (id, at) in &entities {
                    let cell = CellId { x: (at.x / 16.0) as i32, z: (at.z / 16.0) as i32 };
                    scanned.entry(cell).or_default().push(*id);
                }
                let cells: BTreeSet<_> = grid.cells().collect();
                prop_assert!(cells.iter().eq(scanned.keys()));
                for (cell, ids) in scanned {
                    prop_assert_eq!(grid.cell(cell), ids);
                }
            }
        }
    }
}
