//! A uniform grid over the world, rebuilt each tick by counting sort.

use core::cmp::Ordering;

use crate::config::WorldConfig;
use crate::entity::Position;
use crate::id::EntityId;

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

/// Which entities are in which cell, as of the last tick.
///
/// An entity that was spawned since is not in it yet; one that was despawned since still is, by an
/// id that finds nothing any more.
#[derive(Clone, Debug)]
pub struct Grid {
    side: f64,
    cell: f64,
    per_axis: u32,
    /// Where each cell's ids begin in `order`; one more at the end.
    starts: Vec<u32>,
    order: Vec<EntityId>,
    /// Entities with their cell's number, in slot order: filled by the pass that moves entities.
    unsorted: Vec<(u32, EntityId)>,
}

impl Grid {
    pub(crate) fn new(config: &WorldConfig) -> Self {
        let per_axis = config.cells_per_axis();
        let cells = (per_axis * per_axis) as usize;
        Self {
            side: config.side,
            cell: config.cell,
            per_axis,
            starts: vec![0; cells + 2],
            order: Vec::with_capacity(config.entities_max),
            unsorted: Vec::with_capacity(config.entities_max),
        }
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
        // max() before min(): a NaN becomes 0.
        let axis = |coordinate: f64| (coordinate / self.cell).floor().max(0.0).min(last) as i32;
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

    /// The entities in `cell`, in slot order; none for a cell that the world has not.
    pub fn cell(&self, cell: CellId) -> &[EntityId] {
        let Some(number) = self.number(cell) else { return &[] };
        let bounds = (self.starts.get(number), self.starts.get(number + 1));
        let (Some(start), Some(end)) = bounds else { return &[] };
        self.order.get(*start as usize..*end as usize).unwrap_or_default()
    }

    /// Every cell, row by row.
    pub fn cells(&self) -> impl Iterator<Item = CellId> + use<> {
        let per_axis = self.per_axis as i32;
        (0..per_axis).flat_map(move |z| (0..per_axis).map(move |x| CellId { x, z }))
    }

    /// Entities in the grid.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no entity is in the grid.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The number of `cell` in row order.
    pub(crate) fn number(&self, cell: CellId) -> Option<usize> {
        self.has(cell).then(|| self.number_inside(cell) as usize)
    }

    const fn number_inside(&self, cell: CellId) -> u32 {
        cell.z as u32 * self.per_axis + cell.x as u32
    }

    /// Sorts `entities`, which come in slot order, into cells.
    ///
    /// Counting sort: count, sum up, place. It is stable, takes two passes over the entities and
    /// one over the cells, and leaves no structure that a later change could corrupt.
    pub(crate) fn rebuild(&mut self, entities: impl Iterator<Item = (EntityId, Position)>) {
        self.unsorted.clear();
        self.starts.fill(0);
        for (id, position) in entities {
            let number = self.number_inside(self.cell_of(position));
            // Counted two places ahead, so that placing leaves each start where it belongs.
            if let Some(count) = self.starts.get_mut(number as usize + 2) {
                *count += 1;
            }
            self.unsorted.push((number, id));
        }
        let mut sum = 0;
        for start in &mut self.starts {
            sum += *start;
            *start = sum;
        }
        self.order.clear();
        let Some((_, any)) = self.unsorted.first() else { return };
        self.order.resize(self.unsorted.len(), *any);
        for (number, id) in &self.unsorted {
            let Some(next) = self.starts.get_mut(*number as usize + 1) else { continue };
            if let Some(place) = self.order.get_mut(*next as usize) {
                *place = *id;
            }
            *next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
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

    proptest! {
        #[test]
        fn every_cell_lists_what_a_scan_finds(
            places in proptest::collection::vec((0.0_f64..200.0, 0.0_f64..200.0), 0..150),
            again in proptest::collection::vec((0.0_f64..200.0, 0.0_f64..200.0), 0..150),
        ) {
            let mut grid = grid(200.0, 16.0);
            for places in [places, again] {
                let entities: Vec<_> = places
                    .iter()
                    .enumerate()
                    .map(|(index, (x, z))| {
                        (EntityId::new(index, 1).unwrap(), Position::ground(*x, *z))
                    })
                    .collect();
                grid.rebuild(entities.iter().copied());
                prop_assert_eq!(grid.len(), entities.len());
                for cell in grid.cells() {
                    let is_in = |at: &Position| {
                        ((at.x / 16.0) as i32, (at.z / 16.0) as i32) == (cell.x, cell.z)
                    };
                    let scanned: Vec<_> = entities
                        .iter()
                        .filter(|(_, at)| is_in(at))
                        .map(|(id, _)| *id)
                        .collect();
                    prop_assert_eq!(grid.cell(cell), scanned);
                }
            }
        }
    }
}
