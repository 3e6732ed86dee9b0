//! The world beyond sight at a glance: once a second, how many are in each region around, and where.
//!
//! A region's few bytes are made once a second and copied to all who are told of it. Who not all may
//! see is not counted.

use twinspan_core::bytes::Reader;

use crate::TICK_HZ;
use crate::entity::Position;
use crate::grid::{CellId, Grid};
use crate::header::push_varint;
use crate::interest::window_contains;
use crate::state::StateError;
use crate::store::Store;
use crate::world::World;

/// Cells along one side of a region.
pub const REGION_CELLS: i32 = 4;
/// The most regions to each side of the player's own that a client is told of.
pub const FAR_REACH_MAX: u8 = 3;
/// Ticks between two words about the regions around a client.
pub const FAR_TICKS: u32 = TICK_HZ;
/// Ticks after which the word goes before others.
pub(crate) const FAR_OVERDUE_TICKS: u32 = 5 * FAR_TICKS;

/// Regions of the widest square.
const REGIONS_MAX: usize = {
    let span = 2 * FAR_REACH_MAX as usize + 1;
    span * span
};
/// Bytes of one region: how many, and three coordinates.
const REGION_BYTES_MAX: usize = 5 + 3;
/// Bytes of the longest section's payload.
pub(crate) const FAR_BYTES_MAX: usize =
    1 + REGIONS_MAX.div_ceil(8) + REGIONS_MAX * REGION_BYTES_MAX;
/// Steps of a place along a region's side.
const STEPS: f64 = 256.0;
/// Metres of a step of height.
const HEIGHT_STEP: f64 = 2.0;
/// Regions that are kept made: as many as clients are likely to ask for in a second.
const KEPT_MIN: usize = 64;
const KEPT_MAX: usize = 65_536;

/// A region that a client was told of, with everybody in it whom all may see, those in sight included.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FarRegion {
    /// Its south-western cell; [`REGION_CELLS`] along each side are its own.
    pub corner: CellId,
    /// How many are in it, at least 1.
    pub count: u32,
    /// Where they are on the whole, to within half a 256th of the region's side, and a metre of height.
    pub middle: Position,
    /// How many of its cells are in sight: 0 for one that lies beyond it.
    pub cells_seen: u8,
}

/// One region's bytes.
#[derive(Clone, Copy, Debug)]
struct Made {
    region: CellId,
    /// The second in which they were made, counted from 1; 0 is never.
    second: u32,
    len: u8,
    bytes: [u8; REGION_BYTES_MAX],
}

impl Made {
    const NEVER: Self =
        Self { region: CellId { x: 0, z: 0 }, second: 0, len: 0, bytes: [0; REGION_BYTES_MAX] };

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// The regions of a world, made when first asked for in a second. Nothing is allocated after `new`.
#[derive(Clone, Debug)]
pub(crate) struct FarRegions {
    /// One place for many regions: one that finds its place taken is made anew. A power of two.
    kept: Vec<Made>,
    scratch: Vec<u8>,
}

impl FarRegions {
    pub(crate) fn new(entities_max: usize) -> Self {
        let kept = (entities_max / 8).next_power_of_two().clamp(KEPT_MIN, KEPT_MAX);
        Self { kept: vec![Made::NEVER; kept], scratch: Vec::with_capacity(REGION_BYTES_MAX) }
    }

    /// Appends what is said of the regions around the cell `own`.
    pub(crate) fn put(&mut self, world: &World, own: CellId, reach: u8, out: &mut Vec<u8>) {
        let reach = reach.min(FAR_REACH_MAX);
        out.push(reach);
        let mask_at = out.len();
        let regions = square(own, reach);
        out.resize(mask_at + mask_bytes(reach), 0);
        for (index, region) in regions.enumerate() {
            let made = self.made(world, region);
            if made.is_empty() {
                continue;
            }
            out.extend_from_slice(made);
            if let Some(byte) = out.get_mut(mask_at + index / 8) {
                *byte |= 1 << (index % 8);
            }
        }
    }

    /// The bytes of a region in this second; none for one in which nobody is.
    fn made(&mut self, world: &World, region: CellId) -> &[u8] {
        let mixed = (region.x as u32).wrapping_mul(0x9e37_79b1) ^ (region.z as u32).rotate_left(16);
        let hash = mixed.wrapping_mul(0x85eb_ca6b) ^ mixed >> 13;
        // Not all in the same tick.
        let second = 1 + world.tick().wrapping_add(hash % FAR_TICKS) / FAR_TICKS;
        let place = hash as usize & (self.kept.len() - 1);
        let Some(made) = self.kept.get_mut(place) else { return &[] };
        if (made.region, made.second) != (region, second) {
            self.scratch.clear();
            encode(world.grid(), world.store(), region, &mut self.scratch);
            let bytes = &mut made.bytes;
            bytes.iter_mut().zip(&self.scratch).for_each(|(to, from)| *to = *from);
            (made.region, made.second) = (region, second);
            made.len = self.scratch.len().min(REGION_BYTES_MAX) as u8;
        }
        made.bytes()
    }
}

/// Counts a region; nothing is written when nobody is in it.
fn encode(grid: &Grid, store: &Store, region: CellId, out: &mut Vec<u8>) {
    let side = grid.cell_side() * f64::from(REGION_CELLS);
    let (west, south) = (f64::from(region.x) * side, f64::from(region.z) * side);
    let (mut count, mut x, mut y, mut z) = (0_u32, 0.0, 0.0, 0.0);
    for cell in cells(region) {
        for id in grid.cell(cell) {
            let slot = id.index();
            let (Some(traits), Some(body)) = (store.traits.get(slot), store.bodies.get(slot))
            else {
                continue;
            };
            if traits.is_hidden() || store.ids.get(slot) != Some(&Some(*id)) {
                continue;
            }
            count += 1;
            x += body.position.x - west;
            y += body.position.y;
            z += body.position.z - south;
        }
    }
    if count == 0 {
        return;
    }
    push_varint(out, u64::from(count));
    let step = |sum: f64, size: f64| (sum / f64::from(count) / size) as u8;
    // A cast keeps to the range of a byte.
    out.extend([step(x, side / STEPS), step(z, side / STEPS), step(y, HEIGHT_STEP)]);
}

/// The last word about the regions around a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct FarView {
    tick: Option<u32>,
    regions: Vec<Told>,
}

/// A region as a message tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    corner: CellId,
    count: u32,
    at: [u8; 3],
}

impl FarView {
    /// Takes in what a state of `tick` says; false when newer is known.
    pub(crate) fn take(&mut self, tick: u32, regions: &[Told]) -> bool {
        if self.tick.is_some_and(|known| known >= tick) {
            return false;
        }
        self.tick = Some(tick);
        self.regions.clear();
        self.regions.extend_from_slice(regions);
        true
    }

    pub(crate) const fn tick(&self) -> Option<u32> {
        self.tick
    }

    /// What is known, for a client that sees this window of cells.
    pub(crate) fn regions(
        &self,
        cell_m: u8,
        (base, mask): (CellId, u64),
    ) -> impl Iterator<Item = FarRegion> {
        let side = f64::from(cell_m) * f64::from(REGION_CELLS);
        self.regions.iter().map(move |told| {
            let [x, z, y] = told.at.map(f64::from);
            let at = |cell: i32, step: f64| {
                f64::from(cell) * f64::from(cell_m) + (step + 0.5) * side / STEPS
            };
            let middle =
                Position { x: at(told.corner.x, x), y: y * HEIGHT_STEP, z: at(told.corner.z, z) };
            let region = region_of(told.corner);
            let seen = cells(region).filter(|cell| window_contains(base, mask, *cell)).count();
            FarRegion { corner: told.corner, count: told.count, middle, cells_seen: seen as u8 }
        })
    }
}

/// Reads a section's payload for a client whose player is in the cell `own`.
pub(crate) fn read(bytes: &[u8], own: CellId, out: &mut Vec<Told>) -> Result<(), StateError> {
    let mut reader = Reader::new(bytes);
    let reach = reader.u8()?;
    if reach == 0 || reach > FAR_REACH_MAX {
        return Err(StateError::Far);
    }
    let mask = reader.take(mask_bytes(reach))?;
    let mut regions = 0;
    for (index, region) in square(own, reach).enumerate() {
        regions += 1;
        if mask.get(index / 8).is_none_or(|byte| byte >> (index % 8) & 1 == 0) {
            continue;
        }
        let count = u32::try_from(reader.varint()?).map_err(|_| StateError::Far)?;
        let at = [reader.u8()?, reader.u8()?, reader.u8()?];
        if count == 0 || region.x < 0 || region.z < 0 {
            return Err(StateError::Far);
        }
        let corner = CellId { x: region.x * REGION_CELLS, z: region.z * REGION_CELLS };
        out.push(Told { corner, count, at });
    }
    let is_unused = |bit: usize| mask.get(bit / 8).is_none_or(|byte| byte >> (bit % 8) & 1 == 0);
    let fits = (regions..mask.len() * 8).all(is_unused);
    if reader.is_empty() && fits { Ok(()) } else { Err(StateError::Far) }
}

/// The region of a cell.
const fn region_of(cell: CellId) -> CellId {
    CellId { x: cell.x.div_euclid(REGION_CELLS), z: cell.z.div_euclid(REGION_CELLS) }
}

/// The regions around the cell `own`, row by row.
fn square(own: CellId, reach: u8) -> impl Iterator<Item = CellId> {
    let (middle, reach) = (region_of(own), i32::from(reach));
    let rows = middle.z - reach..=middle.z + reach;
    rows.flat_map(move |z| (middle.x - reach..=middle.x + reach).map(move |x| CellId { x, z }))
}

/// The cells of a region, row by row.
fn cells(region: CellId) -> impl Iterator<Item = CellId> {
    let (x, z) = (region.x * REGION_CELLS, region.z * REGION_CELLS);
    (z..z + REGION_CELLS).flat_map(move |z| (x..x + REGION_CELLS).map(move |x| CellId { x, z }))
}

/// Bytes of a mask with a bit for each region of a square.
const fn mask_bytes(reach: u8) -> usize {
    let span = 2 * reach as usize + 1;
    (span * span).div_ceil(8)
}

#[cfg(test)]
mod tests;
