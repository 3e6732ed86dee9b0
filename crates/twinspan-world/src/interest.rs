//! Which cells a client sees: two radii, so that walking along an edge changes nothing.

use crate::TICK_HZ;
use crate::entity::Position;
use crate::far::FAR_REACH_MAX;
use crate::grid::{CellId, Grid};

/// Cells along one side of the window in which a client's cells lie.
pub const WINDOW_SPAN: i32 = 7;
/// Cells of the window; bits of its mask.
pub const WINDOW_CELLS: usize = (WINDOW_SPAN * WINDOW_SPAN) as usize;
/// Cells from the window's corner to its middle, where the player is.
pub(crate) const WINDOW_HALF: i32 = WINDOW_SPAN / 2;

/// When cells come into and go out of a client's sight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InterestConfig {
    /// A cell whose nearest point is this near is subscribed, in metres.
    pub enter: f64,
    /// A cell whose nearest point is farther than this is dropped, in metres; at least `enter`.
    pub leave: f64,
    /// A cell is kept for at least so many ticks, at most [`DWELL_TICKS_MAX`].
    pub dwell_ticks: u32,
    /// How many states pass from one word about a cell to the next, by its distance from the
    /// player's cell in cells, 0 to 3; at least 1 and at most [`RATE_STATES_MAX`].
    pub rates: [u8; 4],
    /// How many regions of 4 by 4 cells to each side of its own a client is told of once a second,
    /// how many are there and where on the whole; 0 for none, [`FAR_REACH_MAX`] at most.
    pub far_reach: u8,
}

/// The most that [`InterestConfig::dwell_ticks`] can be: nine minutes.
pub const DWELL_TICKS_MAX: u32 = 32_767;

/// The most that [`InterestConfig::rates`] can be.
pub const RATE_STATES_MAX: u8 = 20;

impl Default for InterestConfig {
    fn default() -> Self {
        Self {
            enter: 32.0,
            leave: 48.0,
            dwell_ticks: TICK_HZ / 2,
            rates: [1, 1, 2, 5],
            far_reach: 2,
        }
    }
}

impl InterestConfig {
    /// Checks the radii against each other and against cells of `cell` metres.
    ///
    /// # Errors
    /// The [`InterestError`] that names what does not fit.
    pub fn check(&self, cell: f64) -> Result<(), InterestError> {
        let Self { enter, leave, .. } = *self;
        if !(enter.is_finite() && leave.is_finite() && 0.0 < enter && enter <= leave) {
            return Err(InterestError::Order { enter, leave });
        }
        // Nothing nearer than that lies outside the window.
        let reach = f64::from(WINDOW_HALF) * cell;
        if leave > reach {
            return Err(InterestError::Reach { leave, reach });
        }
        if !self.rates.iter().all(|rate| (1..=RATE_STATES_MAX).contains(rate)) {
            return Err(InterestError::Rates { rates: self.rates });
        }
        if self.far_reach > FAR_REACH_MAX {
            return Err(InterestError::FarReach { far_reach: self.far_reach });
        }
        if self.dwell_ticks > DWELL_TICKS_MAX {
            return Err(InterestError::Dwell { dwell_ticks: self.dwell_ticks });
        }
        Ok(())
    }

    /// How many cells of `cell` metres a player who walks sees at most, wherever it is.
    pub fn cells_seen(&self, cell: f64) -> usize {
        let leave = self.leave * self.leave;
        let away = |at: u32, offset: i32| {
            let low = f64::from(offset) * cell;
            let at = f64::from(at) / f64::from(PLACES) * cell;
            let away = (low - at).max(at - (low + cell)).max(0.0);
            away * away
        };
        let seen = |x: u32, z: u32| {
            let offsets = -WINDOW_HALF..=WINDOW_HALF;
            let rows = offsets.clone().map(|row| {
                let near = |column: &i32| away(x, *column) + away(z, row) <= leave;
                offsets.clone().filter(near).count()
            });
            rows.sum()
        };
        let places = (0..PLACES).flat_map(|x| (0..PLACES).map(move |z| (x, z)));
        places.map(|(x, z)| seen(x, z)).max().unwrap_or(0)
    }
}

/// Places along each side of a cell from which it is counted what can be seen.
const PLACES: u32 = 16;

/// Why cells cannot be chosen by these radii.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InterestError {
    /// The radii are no lengths, or in the wrong order.
    #[error("enter radius {enter} m and leave radius {leave} m: choose 0 < enter <= leave")]
    Order {
        /// What was asked for.
        enter: f64,
        /// What was asked for.
        leave: f64,
    },
    /// A ring would be told never, or hardly ever.
    #[error("rates {rates:?}: choose 1 to {RATE_STATES_MAX} states for each ring")]
    Rates {
        /// What was asked for.
        rates: [u8; 4],
    },
    /// More of the world than anybody is told of.
    #[error("far reach of {far_reach} regions: choose 0 to {FAR_REACH_MAX}")]
    FarReach {
        /// What was asked for.
        far_reach: u8,
    },
    /// Cells would be kept for longer than is remembered.
    #[error("cells kept for {dwell_ticks} ticks: choose at most {DWELL_TICKS_MAX}")]
    Dwell {
        /// What was asked for.
        dwell_ticks: u32,
    },
    /// The window of cells is smaller than the radius.
    #[error("leave radius {leave} m: choose at most {reach} m, or larger cells")]
    Reach {
        /// What was asked for.
        leave: f64,
        /// Three cells.
        reach: f64,
    },
}

/// The cells that one client sees: a window of 7 by 7 around its player and a bit for each.
///
/// A cell that falls out of the window, as after a teleport, is dropped at once whatever its dwell.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    config: InterestConfig,
    base: CellId,
    mask: u64,
    /// Of these, the ones that were entered less than `dwell_ticks` ago.
    young: u64,
    /// The tick at which each young cell was entered, its lower half.
    since: [u16; WINDOW_CELLS],
    entered: u64,
    left: u64,
}

impl Subscriptions {
    /// No cells yet.
    pub const fn new(config: InterestConfig) -> Self {
        Self {
            config,
            base: CellId { x: 0, z: 0 },
            mask: 0,
            young: 0,
            since: [0; WINDOW_CELLS],
            entered: 0,
            left: 0,
        }
    }

    /// Chooses the cells for a player that is `at` a place at `tick`.
    pub fn update(&mut self, tick: u32, at: Position, grid: &Grid) {
        self.move_window(grid.cell_of(at));
        let (near, kept) = self.reach(at, grid);
        let entering = near & !self.mask;
        for bit in bits_of(entering) {
            if let Some(since) = self.since.get_mut(bit) {
                *since = tick as u16;
            }
        }
        self.young |= entering;
        let dwell = self.config.dwell_ticks.min(DWELL_TICKS_MAX);
        for bit in bits_of(self.young) {
            let since = self.since.get(bit).copied().unwrap_or_default();
            // Whoever is not updated for eighteen minutes keeps a cell a little longer.
            if u32::from((tick as u16).wrapping_sub(since)) >= dwell {
                self.young &= !(1 << bit);
            }
        }
        let leaving = self.mask & !kept & !self.young;
        self.mask = self.mask & !leaving | entering;
        self.entered += u64::from(entering.count_ones());
        self.left += u64::from(leaving.count_ones());
    }

    /// The cells of the world that are near enough to be entered, and those that are not so far
    /// that they are left.
    fn reach(&self, at: Position, grid: &Grid) -> (u64, u64) {
        let Self { config, base, .. } = self;
        let (enter, leave) = (config.enter * config.enter, config.leave * config.leave);
        let mut columns = [f64::INFINITY; WINDOW_SPAN as usize];
        let mut rows = columns;
        for (offset, (column, row)) in (0..).zip(columns.iter_mut().zip(&mut rows)) {
            *column = grid.axis_distance_squared(base.x + offset, at.x);
            *row = grid.axis_distance_squared(base.z + offset, at.z);
        }
        let (mut near, mut kept, mut bit) = (0, 0, 0);
        for row in rows {
            for column in columns {
                let distance = row + column;
                near |= u64::from(distance <= enter) << bit;
                // What lies outside the world is infinitely far.
                kept |= u64::from(distance <= leave) << bit;
                bit += 1;
            }
        }
        (near, kept)
    }

    /// Puts `middle` into the middle of the window and keeps what is still inside.
    fn move_window(&mut self, middle: CellId) {
        let base = CellId { x: middle.x - WINDOW_HALF, z: middle.z - WINDOW_HALF };
        if base == self.base {
            return;
        }
        let (old_mask, old_young, old_since) = (self.mask, self.young, self.since);
        let (dx, dz) = (self.base.x - base.x, self.base.z - base.z);
        (self.mask, self.young) = (0, 0);
        for index in bits_of(old_mask) {
            let Some(bit) = bit_at(cell_at(CellId { x: dx, z: dz }, index)) else {
                self.left += 1;
                continue;
            };
            self.mask |= 1 << bit;
            if old_young >> index & 1 != 0 {
                self.young |= 1 << bit;
                if let (Some(to), Some(since)) = (self.since.get_mut(bit), old_since.get(index)) {
                    *to = *since;
                }
            }
        }
        self.base = base;
    }

    /// Wishes for the memory that the next update needs.
    pub fn prefetch(&self) {
        twinspan_core::prefetch::value(self);
    }

    /// How often each ring of cells is told.
    pub(crate) const fn rates(&self) -> Rates {
        Rates(self.config.rates)
    }

    /// How many regions to each side the client is told of.
    pub(crate) const fn far_reach(&self) -> u8 {
        self.config.far_reach
    }

    /// The cell that the player is in.
    pub(crate) const fn own_cell(&self) -> CellId {
        CellId { x: self.base.x + WINDOW_HALF, z: self.base.z + WINDOW_HALF }
    }

    /// The subscribed cells, row by row.
    pub fn cells(&self) -> impl Iterator<Item = CellId> + use<> {
        window_cells(self.base, self.mask)
    }

    /// Whether `cell` is subscribed.
    pub fn contains(&self, cell: CellId) -> bool {
        window_contains(self.base, self.mask, cell)
    }

    /// The window's south-western cell, which may lie outside the world, and its mask: bit
    /// `row * 7 + column`.
    pub const fn base_and_mask(&self) -> (CellId, u64) {
        (self.base, self.mask)
    }

    /// How many cells are subscribed.
    pub const fn len(&self) -> usize {
        self.mask.count_ones() as usize
    }

    /// Whether no cell is subscribed.
    pub const fn is_empty(&self) -> bool {
        self.mask == 0
    }

    /// How many cells were ever subscribed.
    pub const fn entered(&self) -> u64 {
        self.entered
    }

    /// How many cells were ever dropped.
    pub const fn left(&self) -> u64 {
        self.left
    }
}

/// How often the rings of cells around a player are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates([u8; 4]);

/// The distance of each cell from the window's middle, in cells.
const RINGS: [u8; WINDOW_CELLS] = {
    let mut rings = [0; WINDOW_CELLS];
    let mut bit = 0;
    while bit < WINDOW_CELLS {
        let x = (bit as i32 % WINDOW_SPAN - WINDOW_HALF).unsigned_abs();
        let z = (bit as i32 / WINDOW_SPAN - WINDOW_HALF).unsigned_abs();
        rings[bit] = if x > z { x as u8 } else { z as u8 };
        bit += 1;
    }
    rings
};

impl Rates {
    fn ring(bit: u32) -> usize {
        RINGS.get(bit as usize).copied().map_or(0, usize::from)
    }

    /// Whether the cell is told in a state of this number.
    #[inline]
    pub(crate) fn is_turn(self, bit: u32, number: u32) -> bool {
        match self.0.get(Self::ring(bit)).copied().unwrap_or(1) {
            1 => true,
            // Quicker than a division.
            2 => number & 1 == 0,
            rate => number.is_multiple_of(u32::from(rate)),
        }
    }

    /// How much a state of waiting counts.
    pub(crate) fn weight_of_bit(self, bit: u32) -> u32 {
        [8, 4, 2, 1].get(Self::ring(bit)).copied().unwrap_or(1)
    }
}

/// The places of the bits that are set.
fn bits_of(mask: u64) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    core::iter::from_fn(move || {
        let bit = (rest != 0).then_some(rest.trailing_zeros() as usize);
        rest &= rest.wrapping_sub(1);
        bit
    })
}

/// The cells of a window whose bits are set, row by row.
pub(crate) fn window_cells(base: CellId, mask: u64) -> impl Iterator<Item = CellId> {
    let mut rest = mask;
    core::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let index = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(cell_at(base, index))
    })
}

/// Whether `cell` lies in the window and its bit is set.
pub(crate) fn window_contains(base: CellId, mask: u64, cell: CellId) -> bool {
    window_bit(base, cell).is_some_and(|bit| mask >> bit & 1 != 0)
}

/// The bit of `cell` in the window, if it lies there.
pub(crate) const fn window_bit(base: CellId, cell: CellId) -> Option<usize> {
    bit_at(CellId { x: cell.x.wrapping_sub(base.x), z: cell.z.wrapping_sub(base.z) })
}

pub(crate) const fn cell_at(base: CellId, index: usize) -> CellId {
    CellId { x: base.x + index as i32 % WINDOW_SPAN, z: base.z + index as i32 / WINDOW_SPAN }
}

pub(crate) const fn bit_at(offset: CellId) -> Option<usize> {
    let inside = 0 <= offset.x && offset.x < WINDOW_SPAN && 0 <= offset.z && offset.z < WINDOW_SPAN;
    if inside { Some((offset.z * WINDOW_SPAN + offset.x) as usize) } else { None }
}

#[cfg(test)]
mod tests;
