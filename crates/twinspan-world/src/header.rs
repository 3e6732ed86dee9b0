//! What stands before the records in each part of a state.

use twinspan_core::bytes::{Reader, unzigzag, zigzag};

use crate::bits::{BitReader, BitWriter};
use crate::config::{CELL_METRES_MAX, CELL_METRES_MIN, CELLS_PER_AXIS_MAX};
use crate::entity::{Flags, HEALTH_FULL, Position};
use crate::grid::CellId;
use crate::id::EntityId;
use crate::interest::{Subscriptions, WINDOW_CELLS, WINDOW_HALF, WINDOW_SPAN, window_cells};
use crate::movement::PLACES_PER_METRE_BITS;
use crate::state::StateError;
use crate::world::World;

/// Bytes of the longest encoded [`StateHeader`].
pub const STATE_HEADER_BYTES_MAX: usize = 84;
/// Ticks between two states of a server that keeps up.
pub const TICKS_PER_STATE: u8 = 3;
/// The most ticks between two states.
pub const TICKS_PER_STATE_MAX: u8 = 60;

/// The version of the state message, the low bits of its first byte.
pub(crate) const VERSION: u8 = 2;
const VERSION_BITS: u32 = 3;
const HAS_CONTEXT: u8 = 0x08;
const HAS_PARTS: u8 = 0x10;
const HAS_DIGEST: u8 = 0x20;
const IS_STRETCHED: u8 = 0x40;
const RESERVED: u8 = 0x80;
/// Farther up than this is no place, in metres.
const HEIGHT_BITS: u32 = 9 + PLACES_PER_METRE_BITS;
/// Columns and rows of the window's middle, whose cells have a short mask.
const MIDDLE_SPAN: i32 = 5;

/// What a client is told about its own player, exactly, so that its prediction starts from the
/// server's very bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnState {
    /// The player's entity.
    pub id: EntityId,
    /// Where it is.
    pub position: Position,
    /// What holds for it.
    pub flags: Flags,
    /// 0 to 255.
    pub health: u8,
    /// The side of the world, in metres: where walking ends.
    pub side_m: u32,
}

/// What changes never, or can be told by its low bits once it was told whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) own: EntityId,
    pub(crate) side_m: u32,
    pub(crate) cell_m: u8,
    pub(crate) slot_bits: u8,
    /// The newest tick and the newest input that were told.
    pub(crate) tick: u32,
    pub(crate) last_input: u32,
}

/// What a client's replica must hold, by the server's belief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The cells that it covers, as bits of the window.
    pub cells: u64,
    /// The sum over all entities in them.
    pub sum: u32,
}

/// What stands before the records in each part of a state; docs/spec/world.md has the bytes.
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
    /// Ticks from one state to the next, at most [`TICKS_PER_STATE_MAX`]: [`TICKS_PER_STATE`],
    /// more while the server cannot keep up.
    pub ticks_per_state: u8,
    /// South-western cell of the window of 7 by 7 cells in which the client's cells lie.
    pub base: CellId,
    /// Which cells of the window the client sees: bit `row * 7 + column`.
    pub mask: u64,
    /// Which part of the state this is, from 0.
    pub part: u8,
    /// How many parts the state has.
    pub parts: u8,
    /// What the replica must hold after this state, now and then.
    pub digest: Option<Digest>,
}

/// What of a cell a part tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// Nothing.
    Absent = 0,
    /// It is as at the newest keyframe that the client has.
    Same = 1,
    /// Nobody is in it whom all may see.
    Empty = 2,
    /// A record follows.
    Record = 3,
}

/// Two bits for each cell of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statuses(u128);

impl Statuses {
    pub(crate) const fn set(&mut self, bit: u32, status: Status) {
        self.0 |= (status as u128) << (2 * bit);
    }

    pub(crate) const fn get(self, bit: u32) -> Status {
        match (self.0 >> (2 * bit)) & 3 {
            0 => Status::Absent,
            1 => Status::Same,
            2 => Status::Empty,
            _ => Status::Record,
        }
    }
}

impl StateHeader {
    /// The header of a state for the client of `player`; `None` when the player is gone. Times are
    /// left to [`StateHeader::with_times`], parts to a [`StatePlan`](crate::StatePlan).
    pub fn of(world: &World, player: EntityId, subscriptions: &Subscriptions) -> Option<Self> {
        let own = world.own_state(player)?;
        let (base, mask) = subscriptions.base_and_mask();
        Some(Self {
            tick: world.tick(),
            made_us: 0,
            slot_us: 0,
            last_input: world.last_input(player),
            own,
            cell_m: world.config().cell_metres(),
            ticks_per_state: TICKS_PER_STATE,
            base,
            mask,
            part: 0,
            parts: 1,
            digest: None,
        })
    }

    /// This header with the low 32 bits of the microseconds at which the state was made and for
    /// which its send was scheduled.
    #[must_use]
    pub const fn with_times(self, made_us: u32, slot_us: u32) -> Self {
        Self { made_us, slot_us, ..self }
    }

    /// This header of a server that makes a state every `ticks_per_state` ticks, at least 1 and at
    /// most [`TICKS_PER_STATE_MAX`].
    #[must_use]
    pub const fn with_pace(self, ticks_per_state: u8) -> Self {
        Self { ticks_per_state, ..self }
    }

    /// The cell that the client's player is in.
    pub(crate) const fn own_cell(&self) -> CellId {
        CellId { x: self.base.x + WINDOW_HALF, z: self.base.z + WINDOW_HALF }
    }

    /// The cells that the client sees, row by row.
    pub fn cells(&self) -> impl Iterator<Item = CellId> + use<> {
        window_cells(self.base, self.mask)
    }

    /// Appends the header; with everything in it when `slot_bits` are given, else for a client that
    /// was told before.
    pub(crate) fn encode(&self, slot_bits: Option<u32>, statuses: Statuses, out: &mut Vec<u8>) {
        let mut first = VERSION;
        for (flag, is_set) in [
            (HAS_CONTEXT, slot_bits.is_some()),
            (HAS_PARTS, self.parts != 1),
            (HAS_DIGEST, self.digest.is_some()),
            (IS_STRETCHED, self.ticks_per_state != TICKS_PER_STATE),
        ] {
            first |= if is_set { flag } else { 0 };
        }
        out.push(first);
        let OwnState { id, position, flags, health, side_m } = self.own;
        if let Some(slot_bits) = slot_bits {
            for number in [self.tick, self.last_input, id.to_bits(), side_m] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&[self.cell_m, slot_bits as u8]);
        } else {
            out.extend_from_slice(&(self.tick as u16).to_le_bytes());
            out.extend_from_slice(&(self.last_input as u16).to_le_bytes());
        }
        out.extend_from_slice(&self.made_us.to_le_bytes());
        let late = self.slot_us.wrapping_sub(self.made_us) as i32;
        push_varint(out, zigzag(i64::from(late)));
        if self.parts != 1 {
            out.extend_from_slice(&[self.part, self.parts]);
        }
        if self.ticks_per_state != TICKS_PER_STATE {
            out.push(self.ticks_per_state);
        }
        if let Some(digest) = self.digest {
            out.extend_from_slice(&digest.sum.to_le_bytes());
        }
        push_varint(out, zigzag(i64::from(self.base.x) + i64::from(WINDOW_HALF)));
        push_varint(out, zigzag(i64::from(self.base.z) + i64::from(WINDOW_HALF)));
        let mut bits = BitWriter::new(out);
        self.encode_own(position, flags, health, &mut bits);
        encode_mask(self.mask, &mut bits);
        let (mut word, mut count) = (0_u64, 0);
        let mut rest = self.mask;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            word |= (statuses.get(bit) as u64) << count;
            count += 2;
            if let Some(digest) = self.digest {
                word |= (digest.cells >> bit & 1) << count;
                count += 1;
            }
            if count > 60 {
                bits.push(word, count);
                (word, count) = (0, 0);
            }
        }
        bits.push(word, count);
        bits.finish();
    }

    /// The player's place from the corner of the window's middle cell.
    fn encode_own(&self, at: Position, flags: Flags, health: u8, bits: &mut BitWriter<'_>) {
        let side = f64::from(self.cell_m);
        let scale = f64::from(1_u32 << PLACES_PER_METRE_BITS);
        let axis_bits = own_bits(self.cell_m);
        for (coordinate, number) in [(at.x, self.base.x), (at.z, self.base.z)] {
            let corner = f64::from(number + WINDOW_HALF) * side;
            // Exact: both are multiples of the same small power of two.
            bits.push(((coordinate - corner) * scale) as u64 & ((1 << axis_bits) - 1), axis_bits);
        }
        let is_up = at.y != 0.0;
        bits.push(u64::from(is_up), 1);
        if is_up {
            bits.push((at.y * scale) as u64, HEIGHT_BITS);
        }
        bits.push(u64::from(flags.bits()), 2);
        let is_hurt = health != HEALTH_FULL;
        bits.push(u64::from(is_hurt), 1);
        if is_hurt {
            bits.push(u64::from(health), 8);
        }
    }

    /// Reads a header from the front of `bytes` and returns what follows it. Without `known`, only
    /// one with everything in it can be read.
    ///
    /// # Errors
    /// The [`StateError`] that names what is wrong.
    pub(crate) fn decode(
        bytes: &[u8],
        known: Option<Context>,
    ) -> Result<(Self, Statuses, Context, &[u8]), StateError> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8()?;
        let version = first & ((1 << VERSION_BITS) - 1);
        if version != VERSION || first & RESERVED != 0 {
            return Err(StateError::Version { version: first });
        }
        let context = if first & HAS_CONTEXT != 0 {
            Context::decode(&mut reader)?
        } else {
            let known = known.ok_or(StateError::NoContext)?;
            let widen = |low: u16, near: u32| {
                near.wrapping_add(i32::from(low.wrapping_sub(near as u16) as i16) as u32)
            };
            let tick = widen(reader.u16()?, known.tick);
            Context { tick, last_input: widen(reader.u16()?, known.last_input), ..known }
        };
        let made_us = reader.u32()?;
        let late = unzigzag(reader.varint()?);
        let late = i32::try_from(late).map_err(|_| StateError::Slot)?;
        let (part, parts) =
            if first & HAS_PARTS != 0 { (reader.u8()?, reader.u8()?) } else { (0, 1) };
        if part >= parts {
            return Err(StateError::Part { part, parts });
        }
        let ticks_per_state =
            if first & IS_STRETCHED != 0 { reader.u8()? } else { TICKS_PER_STATE };
        if !(1..=TICKS_PER_STATE_MAX).contains(&ticks_per_state) {
            return Err(StateError::Pace { ticks_per_state });
        }
        let sum = if first & HAS_DIGEST != 0 { Some(reader.u32()?) } else { None };
        let base = CellId { x: read_corner(&mut reader)?, z: read_corner(&mut reader)? };
        let mut bits = BitReader::new(reader.rest());
        let own = decode_own(&mut bits, base, &context)?;
        let mask = decode_mask(&mut bits)?;
        let mut statuses = Statuses::default();
        let mut cells = 0;
        let mut rest = mask;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            statuses.set(bit, STATUSES[bits.read(2)? as usize & 3]);
            if sum.is_some() && bits.flag()? {
                cells |= 1 << bit;
            }
        }
        let header = Self {
            tick: context.tick,
            made_us,
            slot_us: made_us.wrapping_add(late as u32),
            last_input: context.last_input,
            own,
            cell_m: context.cell_m,
            ticks_per_state,
            base,
            mask,
            part,
            parts,
            digest: sum.map(|sum| Digest { cells, sum }),
        };
        Ok((header, statuses, context, bits.rest()))
    }
}

const STATUSES: [Status; 4] = [Status::Absent, Status::Same, Status::Empty, Status::Record];

impl Context {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, StateError> {
        let (tick, last_input) = (reader.u32()?, reader.u32()?);
        let bits = reader.u32()?;
        let own = EntityId::from_bits(bits).ok_or(StateError::EntityId { bits })?;
        let side_m = reader.u32()?;
        if side_m == 0 {
            return Err(StateError::WorldSide);
        }
        let (cell_m, slot_bits) = (reader.u8()?, reader.u8()?);
        if !(CELL_METRES_MIN..=CELL_METRES_MAX).contains(&cell_m) {
            return Err(StateError::CellSide { metres: cell_m });
        }
        if EntityId::INDEX_LIMIT >> slot_bits.min(31) == 0 {
            return Err(StateError::SlotBits { bits: slot_bits });
        }
        Ok(Self { own, side_m, cell_m, slot_bits, tick, last_input })
    }
}

fn decode_own(
    bits: &mut BitReader<'_>,
    base: CellId,
    context: &Context,
) -> Result<OwnState, StateError> {
    let side = f64::from(context.cell_m);
    let scale = f64::from(1_u32 << PLACES_PER_METRE_BITS);
    let axis_bits = own_bits(context.cell_m);
    let mut axis = |number: i32| {
        let steps = bits.read(axis_bits)? as f64;
        Ok::<_, StateError>(f64::from(number + WINDOW_HALF) * side + steps / scale)
    };
    let (x, z) = (axis(base.x)?, axis(base.z)?);
    let y = if bits.flag()? { bits.read(HEIGHT_BITS)? as f64 / scale } else { 0.0 };
    let wire_flags = bits.read(2)? as u8;
    let flags = Flags::from_bits(wire_flags).ok_or(StateError::Flags { bits: wire_flags })?;
    let health = if bits.flag()? { bits.read(8)? as u8 } else { HEALTH_FULL };
    let position = Position { x, y, z };
    Ok(OwnState { id: context.own, position, flags, health, side_m: context.side_m })
}

/// Bits of the player's place along one axis of its cell.
const fn own_bits(cell_m: u8) -> u32 {
    PLACES_PER_METRE_BITS + (cell_m as u32).next_power_of_two().trailing_zeros()
}

/// The bits of the window's middle, row by row.
fn middle() -> impl Iterator<Item = u32> {
    let margin = (WINDOW_SPAN - MIDDLE_SPAN) / 2;
    let span = margin..margin + MIDDLE_SPAN;
    span.clone()
        .flat_map(move |row| span.clone().map(move |column| (row * WINDOW_SPAN + column) as u32))
}

fn encode_mask(mask: u64, bits: &mut BitWriter<'_>) {
    let short = mask & !MIDDLE_MASK == 0;
    bits.push(u64::from(!short), 1);
    if !short {
        return bits.push(mask, WINDOW_CELLS as u32);
    }
    let margin = ((WINDOW_SPAN - MIDDLE_SPAN) / 2) as u32;
    let span = MIDDLE_SPAN as u32;
    let mut word = 0;
    for row in 0..span {
        let from = mask >> ((row + margin) * WINDOW_SPAN as u32 + margin);
        word |= (from & ((1 << span) - 1)) << (row * span);
    }
    bits.push(word, span * span);
}

fn decode_mask(bits: &mut BitReader<'_>) -> Result<u64, StateError> {
    if bits.flag()? {
        return Ok(bits.read(WINDOW_CELLS as u32)?);
    }
    let mut mask = 0;
    for bit in middle() {
        mask |= bits.read(1)? << bit;
    }
    Ok(mask)
}

/// The mask of the window's middle.
const MIDDLE_MASK: u64 = {
    let margin = (WINDOW_SPAN - MIDDLE_SPAN) / 2;
    let mut mask = 0;
    let mut row = margin;
    while row < margin + MIDDLE_SPAN {
        mask |= ((1 << MIDDLE_SPAN) - 1) << (row * WINDOW_SPAN + margin);
        row += 1;
    }
    mask
};

/// Reads the window's middle and returns its corner.
fn read_corner(reader: &mut Reader<'_>) -> Result<i32, StateError> {
    let middle = unzigzag(reader.varint()?);
    if !(0..i64::from(CELLS_PER_AXIS_MAX)).contains(&middle) {
        return Err(StateError::Window);
    }
    Ok(middle as i32 - WINDOW_HALF)
}

pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
pub(crate) mod tests;
