//! The state message: what each client is told twenty times a second, in self-contained parts.

use twinspan_core::bytes::{NoRoom, ReadError, Reader, Writer};

use crate::config::{CELL_METRES_MAX, CELL_METRES_MIN, CELLS_PER_AXIS_MAX};
use crate::encode::{CellEncodings, RECORD_BYTES_MAX};
use crate::entity::{Flags, Position, Velocity};
use crate::grid::CellId;
use crate::id::EntityId;
use crate::interest::{Subscriptions, WINDOW_CELLS, window_cells};
use crate::world::World;

/// Bytes of an encoded [`StateHeader`].
pub const STATE_HEADER_BYTES: usize = 88;
/// The smallest room for a part: a header and the longest record.
pub const STATE_ROOM_MIN: usize = STATE_HEADER_BYTES + RECORD_BYTES_MAX;
/// The most parts of one state; records beyond them are left out and counted.
pub const STATE_PARTS_MAX: usize = 255;

/// The version of the state message, its first byte.
const VERSION: u8 = 1;
/// Farther from the origin than this is no place, in metres.
const COORDINATE_MAX: f64 = 1e9;

/// What a client is told about its own player, exactly, so that its prediction starts from the
/// server's very bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnState {
    /// The player's entity.
    pub id: EntityId,
    /// Where it is.
    pub position: Position,
    /// How it moves.
    pub velocity: Velocity,
    /// Where it faces, degrees in `[0, 360)`.
    pub yaw: f32,
    /// How far up it looks, degrees in `[-90, 90]`.
    pub pitch: f32,
    /// What holds for it.
    pub flags: Flags,
    /// 0 to 255.
    pub health: u8,
    /// The side of the world, in metres: where walking ends.
    pub side_m: u16,
}

/// What stands before the records in each part of a state.
///
/// On the wire, little-endian: version u8, 1; tick u32; made u32; slot u32; last input u32; own id
/// u32; own position 3 f64; velocity 3 f32; yaw f32; pitch f32; flags u8; health u8; world side u16
/// in metres; cell side u8 in metres; base x and z i32; mask u64; part u8; parts u8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateHeader {
    /// The tick that made this state.
    pub tick: u32,
    /// The low 32 bits of the microsecond at which that tick was made.
    pub made_us: u32,
    /// The low 32 bits of the microsecond for which the send was scheduled.
    pub slot_us: u32,
    /// The sequence of the last input that this state includes; 0 before the first.
    pub last_input: u32,
    /// The client's own player.
    pub own: OwnState,
    /// The side of a cell, in metres.
    pub cell_m: u8,
    /// South-western cell of the window of 7 by 7 cells in which the client's cells lie.
    pub base: CellId,
    /// Which cells of the window the client sees: bit `row * 7 + column`.
    pub mask: u64,
    /// Which part of the state this is, from 0.
    pub part: u8,
    /// How many parts the state has.
    pub parts: u8,
}

impl StateHeader {
    /// The header of a state for the client of `player`; `None` when the player is gone. Times are
    /// left to [`StateHeader::with_times`], parts to a [`StatePlan`].
    pub fn of(world: &World, player: EntityId, subscriptions: &Subscriptions) -> Option<Self> {
        let own = world.own_state(player)?;
        let (base, mask) = subscriptions.base_and_mask();
        Some(Self {
            tick: world.tick(),
            made_us: 0,
            slot_us: 0,
            last_input: world.standing(player).map_or(0, |standing| standing.last_input),
            own,
            cell_m: world.config().cell_metres(),
            base,
            mask,
            part: 0,
            parts: 1,
        })
    }

    /// This header with the low 32 bits of the microseconds at which the state was made and for
    /// which its send was scheduled.
    #[must_use]
    pub const fn with_times(self, made_us: u32, slot_us: u32) -> Self {
        Self { made_us, slot_us, ..self }
    }

    /// The cells that the client sees, row by row.
    pub fn cells(&self) -> impl Iterator<Item = CellId> + use<> {
        window_cells(self.base, self.mask)
    }

    /// Appends the header.
    ///
    /// # Errors
    /// [`NoRoom`] when fewer than [`STATE_HEADER_BYTES`] are left.
    pub fn encode(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        let OwnState { id, position, velocity, yaw, pitch, flags, health, side_m } = self.own;
        out.u8(VERSION)?;
        for number in [self.tick, self.made_us, self.slot_us, self.last_input, id.to_bits()] {
            out.u32(number)?;
        }
        for coordinate in [position.x, position.y, position.z] {
            out.u64(coordinate.to_bits())?;
        }
        for component in [velocity.x, velocity.y, velocity.z, yaw, pitch] {
            out.u32(component.to_bits())?;
        }
        out.u8(flags.bits())?;
        out.u8(health)?;
        out.u16(side_m)?;
        out.u8(self.cell_m)?;
        out.put(&self.base.x.to_le_bytes())?;
        out.put(&self.base.z.to_le_bytes())?;
        out.u64(self.mask)?;
        out.u8(self.part)?;
        out.u8(self.parts)
    }

    /// Reads a header from the front of `reader`.
    ///
    /// # Errors
    /// The [`StateError`] that names what is wrong.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let version = reader.u8()?;
        if version != VERSION {
            return Err(StateError::Version { version });
        }
        let (tick, made_us, slot_us) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let last_input = reader.u32()?;
        let own = OwnState::decode(reader)?;
        let cell_m = reader.u8()?;
        if !(CELL_METRES_MIN..=CELL_METRES_MAX).contains(&cell_m) {
            return Err(StateError::CellSide { metres: cell_m });
        }
        let x = i32::from_le_bytes(reader.array()?);
        let z = i32::from_le_bytes(reader.array()?);
        let mask = reader.u64()?;
        // A window's corner may lie three cells outside a world.
        let corner = -8..=CELLS_PER_AXIS_MAX as i32;
        if !(corner.contains(&x) && corner.contains(&z)) || mask >> WINDOW_CELLS != 0 {
            return Err(StateError::Window);
        }
        let (part, parts) = (reader.u8()?, reader.u8()?);
        if part >= parts {
            return Err(StateError::Part { part, parts });
        }
        let base = CellId { x, z };
        Ok(Self { tick, made_us, slot_us, last_input, own, cell_m, base, mask, part, parts })
    }
}

impl OwnState {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let bits = reader.u32()?;
        let id = EntityId::from_bits(bits).ok_or(StateError::EntityId { bits })?;
        let mut coordinate = || reader.u64().map(f64::from_bits);
        let (x, y, z) = (coordinate()?, coordinate()?, coordinate()?);
        // False for what is no number, too.
        if ![x, y, z].iter().all(|coordinate| coordinate.abs() <= COORDINATE_MAX) {
            return Err(StateError::OwnPosition);
        }
        let position = Position { x, y, z };
        let mut component = || reader.u32().map(f32::from_bits);
        let velocity = Velocity { x: component()?, y: component()?, z: component()? };
        if !velocity.is_finite() {
            return Err(StateError::OwnVelocity);
        }
        let (yaw, pitch) = (component()?, component()?);
        if !(0.0..360.0).contains(&yaw) || !(-90.0..=90.0).contains(&pitch) {
            return Err(StateError::Angle);
        }
        let wire_flags = reader.u8()?;
        let flags = Flags::from_bits(wire_flags).ok_or(StateError::Flags { bits: wire_flags })?;
        let (health, side_m) = (reader.u8()?, reader.u16()?);
        if side_m == 0 {
            return Err(StateError::WorldSide);
        }
        Ok(Self { id, position, velocity, yaw, pitch, flags, health, side_m })
    }
}

/// Why bytes are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The bytes end too soon, or a number is too large.
    #[error("state cut short: {0}")]
    Short(#[from] ReadError),
    /// The first byte is another version's.
    #[error("state version {version}: this end reads version {VERSION}")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// An id has generation 0.
    #[error("entity id {bits:#x} has no generation")]
    EntityId {
        /// The id.
        bits: u32,
    },
    /// No kind has this number.
    #[error("entity kind {number} is unknown")]
    Kind {
        /// The number.
        number: u8,
    },
    /// A flag without meaning is set.
    #[error("entity flags {bits:#x} are unknown")]
    Flags {
        /// All flags.
        bits: u8,
    },
    /// The own position is no place.
    #[error("own position is not finite or too far away")]
    OwnPosition,
    /// The own velocity is infinite or no number.
    #[error("own velocity is not finite")]
    OwnVelocity,
    /// A yaw or pitch is out of range.
    #[error("yaw or pitch is out of range")]
    Angle,
    /// The world has no extent.
    #[error("world side is zero")]
    WorldSide,
    /// The side of a cell is out of range.
    #[error("cell side of {metres} m is out of range")]
    CellSide {
        /// What it says.
        metres: u8,
    },
    /// The window lies outside every world, or a bit beyond its cells is set.
    #[error("window of cells is out of range")]
    Window,
    /// The part's number is not below the number of parts.
    #[error("part {part} of {parts} parts")]
    Part {
        /// Which part.
        part: u8,
        /// Of how many.
        parts: u8,
    },
    /// A record's ids are no span, or an unknown span bit is set.
    #[error("record's span of ids is malformed")]
    Span,
    /// No variant of records has this number.
    #[error("record variant {number} is unknown")]
    Variant {
        /// The number.
        number: u8,
    },
    /// A record holds too many entities.
    #[error("record of {count} entities is too long")]
    Count {
        /// How many.
        count: u8,
    },
}

/// Where the records of one part begin.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The cells that are not done yet, as bits of the window.
    cells: u64,
    /// Records of the first of these cells that are done.
    records: usize,
}

/// How one client's state is spread over packets. Reused from client to client: it does not
/// allocate.
///
/// Call [`StatePlan::plan`], then [`StatePlan::write_part`] for each of [`StatePlan::parts`], all
/// with the same encodings.
#[derive(Clone, Debug)]
pub struct StatePlan {
    room: usize,
    header: Option<StateHeader>,
    /// Where each part begins.
    starts: Vec<Cursor>,
    entities: usize,
    left_out: usize,
}

impl StatePlan {
    /// A plan for packets with `room` bytes each, at least [`STATE_ROOM_MIN`].
    pub fn new(room: usize) -> Self {
        Self {
            room: room.max(STATE_ROOM_MIN),
            header: None,
            starts: Vec::with_capacity(STATE_PARTS_MAX),
            entities: 0,
            left_out: 0,
        }
    }

    /// Spreads the records of all cells that `subscriptions` has over parts. The header's tick,
    /// window and parts are set from `encodings` and `subscriptions`.
    pub fn plan(
        &mut self,
        header: StateHeader,
        subscriptions: &Subscriptions,
        encodings: &CellEncodings,
    ) {
        let (base, mask) = subscriptions.base_and_mask();
        self.starts.clear();
        self.starts.push(Cursor { cells: mask, records: 0 });
        self.entities = 0;
        self.left_out = 0;
        let mut used = STATE_HEADER_BYTES;
        let mut rest = mask;
        for cell in window_cells(base, mask) {
            for (index, record) in encodings.cell_records(cell).enumerate() {
                if used + record.bytes.len() > self.room {
                    if self.starts.len() == STATE_PARTS_MAX {
                        // The last part is full: nothing more may join it, however short.
                        used = self.room;
                        self.left_out += 1;
                        continue;
                    }
                    self.starts.push(Cursor { cells: rest, records: index });
                    used = STATE_HEADER_BYTES;
                }
                used += record.bytes.len();
                self.entities += record.entities;
            }
            rest &= rest.wrapping_sub(1);
        }
        let parts = self.starts.len() as u8;
        let (tick, cell_m) = (encodings.tick(), encodings.cell_metres());
        self.header = Some(StateHeader { tick, cell_m, base, mask, part: 0, parts, ..header });
    }

    /// Packets that the state needs; 0 before the first plan.
    pub fn parts(&self) -> usize {
        self.header.map_or(0, |header| usize::from(header.parts))
    }

    /// Entities in all parts together.
    pub const fn entities(&self) -> usize {
        self.entities
    }

    /// Records that no part had room for.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Writes one part: its header and its records.
    ///
    /// # Errors
    /// [`NoRoom`] when `out` has less room than was planned for, when there is no such part, or
    /// when `encodings` are no longer those of the plan: `out` then holds no message.
    pub fn write_part(
        &self,
        index: usize,
        encodings: &CellEncodings,
        out: &mut Writer<'_>,
    ) -> Result<(), NoRoom> {
        let header = self.header.filter(|header| header.tick == encodings.tick()).ok_or(NoRoom)?;
        let start = *self.starts.get(index).ok_or(NoRoom)?;
        let end = self.starts.get(index + 1).copied();
        StateHeader { part: index as u8, ..header }.encode(out)?;
        let mut used = STATE_HEADER_BYTES;
        let mut rest = start.cells;
        for cell in window_cells(header.base, start.cells) {
            let done = if rest == start.cells { start.records } else { 0 };
            for (index, record) in encodings.cell_records(cell).enumerate().skip(done) {
                if end.is_some_and(|end| end.cells == rest && end.records == index)
                    || used + record.bytes.len() > self.room
                {
                    return Ok(());
                }
                out.put(record.bytes)?;
                used += record.bytes.len();
            }
            rest &= rest.wrapping_sub(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
