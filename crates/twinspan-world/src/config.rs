//! The measures of a world and their limits.

use crate::id::EntityId;

/// Cells along one side of the largest world; only those that somebody is in take memory.
pub const CELLS_PER_AXIS_MAX: u32 = 1 << 20;
/// The smallest side of a cell, in metres.
pub const CELL_METRES_MIN: u8 = 8;
/// The largest side of a cell, in metres: a 16-bit step of it stays under a millimetre.
pub const CELL_METRES_MAX: u8 = 64;
/// Entities of the largest world.
pub const ENTITIES_LIMIT: usize = EntityId::INDEX_LIMIT;

/// The measures of a [`World`](crate::World).
#[derive(Clone, Debug, PartialEq)]
pub struct WorldConfig {
    /// The side of the world: it is the square `[0, side)` by `[0, side)`. Whole metres, at least
    /// one cell and at most [`CELLS_PER_AXIS_MAX`] cells.
    pub side: f64,
    /// The side of a cell: whole metres, [`CELL_METRES_MIN`] to [`CELL_METRES_MAX`].
    pub cell: f64,
    /// Entities that can live at once, 1 to [`ENTITIES_LIMIT`]. Room for all is taken at the start.
    pub entities_max: usize,
    /// How long the timed effect lasts, in ticks, at least 1.
    pub effect_ticks: u32,
    /// How far the timed effect reaches over the ground, in metres, finite and above 0.
    pub effect_range: f64,
    /// Ticks between two effects by one actor.
    pub effect_cooldown_ticks: u32,
    /// How far a client's claimed position may be from the server's before it counts against the
    /// client, in metres, 0.01 to 100.
    pub claim_tolerance: f64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            side: 512.0,
            cell: 32.0,
            entities_max: 4_096,
            effect_ticks: 3 * crate::TICK_HZ,
            effect_range: 20.0,
            effect_cooldown_ticks: crate::TICK_HZ / 2,
            claim_tolerance: 0.25,
        }
    }
}

impl WorldConfig {
    /// Checks every measure against its documented range.
    ///
    /// # Errors
    /// The [`ConfigError`] that names the first measure out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let cell_range = f64::from(CELL_METRES_MIN)..=f64::from(CELL_METRES_MAX);
        if !cell_range.contains(&self.cell) || self.cell.trunc() != self.cell {
            return Err(ConfigError::Cell { cell: self.cell });
        }
        let side_max = self.cell * f64::from(CELLS_PER_AXIS_MAX);
        if !(self.cell..=side_max).contains(&self.side) || self.side.trunc() != self.side {
            return Err(ConfigError::Side { side: self.side, min: self.cell, max: side_max });
        }
        if !(1..=ENTITIES_LIMIT).contains(&self.entities_max) {
            return Err(ConfigError::Entities { entities_max: self.entities_max });
        }
        if self.effect_ticks == 0 {
            return Err(ConfigError::EffectTicks);
        }
        if !self.effect_range.is_finite() || self.effect_range <= 0.0 {
            return Err(ConfigError::EffectRange { range: self.effect_range });
        }
        if !(0.01..=100.0).contains(&self.claim_tolerance) {
            return Err(ConfigError::ClaimTolerance { tolerance: self.claim_tolerance });
        }
        Ok(())
    }

    /// Cells along one side; the last one may reach past the edge.
    pub(crate) fn cells_per_axis(&self) -> u32 {
        (self.side / self.cell).ceil() as u32
    }

    /// The side of the world as the wire carries it; exact after [`WorldConfig::check`].
    pub(crate) fn side_metres(&self) -> u32 {
        self.side as u32
    }

    /// The side of a cell as the wire carries it; exact after [`WorldConfig::check`].
    pub(crate) fn cell_metres(&self) -> u8 {
        self.cell as u8
    }
}

/// Why a world cannot have these measures.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The cell is no whole number of metres in range.
    #[error("cell of {cell} m: choose whole metres from {CELL_METRES_MIN} to {CELL_METRES_MAX}")]
    Cell {
        /// What was asked for.
        cell: f64,
    },
    /// The world is smaller than a cell, too large, or no whole number of metres.
    #[error("world side of {side} m: choose whole metres from {min} to {max}")]
    Side {
        /// What was asked for.
        side: f64,
        /// One cell.
        min: f64,
        /// The most cells.
        max: f64,
    },
    /// No entity, or more than ids can name.
    #[error("{entities_max} entities: choose 1 to {ENTITIES_LIMIT}")]
    Entities {
        /// What was asked for.
        entities_max: usize,
    },
    /// The effect would end before it began.
    #[error("effect of 0 ticks: choose at least 1")]
    EffectTicks,
    /// The effect reaches nobody, or no number.
    #[error("effect range of {range} m: choose a finite length above 0")]
    EffectRange {
        /// What was asked for.
        range: f64,
    },
    /// The tolerance would accuse everybody or nobody.
    #[error("claim tolerance of {tolerance} m: choose 0.01 to 100")]
    ClaimTolerance {
        /// What was asked for.
        tolerance: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_out_of_range_are_named() {
        let with = |change: fn(&mut WorldConfig)| {
            let mut config = WorldConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(with(|c| c.cell = 32.5), "cell of 32.5 m: choose whole metres from 8 to 64");
        assert_eq!(with(|c| c.cell = f64::NAN), "cell of NaN m: choose whole metres from 8 to 64");
        assert_eq!(
            with(|c| c.side = 31.0),
            "world side of 31 m: choose whole metres from 32 to 33554432"
        );
        assert_eq!(
            with(|c| c.side = f64::NAN),
            "world side of NaN m: choose whole metres from 32 to 33554432"
        );
        assert_eq!(with(|c| c.entities_max = 0), "0 entities: choose 1 to 1048576");
        assert_eq!(with(|c| c.effect_ticks = 0), "effect of 0 ticks: choose at least 1");
        assert_eq!(
            with(|c| c.effect_range = 0.0),
            "effect range of 0 m: choose a finite length above 0"
        );
        assert_eq!(with(|c| c.claim_tolerance = 0.0), "claim tolerance of 0 m: choose 0.01 to 100");
        assert_eq!(WorldConfig::default().check(), Ok(()));
    }
}
