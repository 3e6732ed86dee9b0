//! What travels about one entity: a path that both ends follow, quantised, and what rarely changes.
//!
//! A path says where an entity was at one tick and how it goes on from there. Nobody needs to be
//! told anything more until it leaves its path: the server compares the two each tick.

use crate::bits::{BitReader, Packed, signed, unsigned};
use crate::entity::{EntityState, Flags, HEALTH_FULL, Kind, Position, Velocity};
use crate::grid::CellId;
use crate::id::EntityId;
use crate::movement::{self, TICK_SECONDS};
use crate::roam;
use crate::state::StateError;

/// How far a shown entity can be from where it is, along each axis, in metres.
pub const POSITION_ERROR: f64 = 0.002;
/// The largest step in which places over the ground are told, in metres.
const GROUND_STEP: f64 = 1.0 / 1_024.0;
/// Steps of one metre of height.
const HEIGHT_STEPS: f64 = 1_000.0;
const HEIGHT_BITS: u32 = 19;
/// Steps of one metre per second over the ground; below 32 m/s either way.
const SPEED_STEPS: f32 = 2_048.0;
const SPEED_BITS: u32 = 17;
/// Steps of one metre per second upwards; below 32 m/s either way.
const RISE_STEPS: f32 = 1_024.0;
const RISE_BITS: u32 = 16;
/// The low bits of the tick at which a path began.
const BEGAN_BITS: u32 = 8;
/// A path older than this is told anew, so that its low bits say when it began, in ticks.
pub(crate) const PATH_TICKS_MAX: u32 = (1 << BEGAN_BITS) - 16;
const HEADING_BITS: u32 = 16;
const YAW_BITS: u32 = 8;
/// Steps from level to straight up.
const PITCH_STEPS: f32 = 63.0;
const PITCH_BITS: u32 = 7;
/// Ticks by which an entity can be ahead of its path or behind it.
const SLIP_BITS: u32 = 4;
const KIND_BITS: u32 = 2;
const FLAG_BITS: u32 = 2;
const GENERATION_BITS: u32 = 12;
const YOUNG_BITS: u32 = 4;

/// Bits of a place along one axis of a cell.
pub(crate) const fn axis_bits(cell_m: u8) -> u32 {
    10 + (cell_m as u32).next_power_of_two().trailing_zeros()
}

// A place is never coarser than the step that is promised.
const _: () = assert!(64.0 / (1_u32 << axis_bits(64)) as f64 <= GROUND_STEP);

/// How an entity goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Not at all. Yaw in 256ths of a turn.
    Still { yaw: u8 },
    /// Ahead with the speed of its kind; the heading in 65,536ths of a turn.
    Ahead { heading: u16 },
    /// Over the ground.
    Ground { x: i32, z: i32, yaw: u8 },
    /// Through the air: what it rises by falls.
    Air { x: i32, z: i32, rise: i32, yaw: u8 },
}

/// Where an entity was at one tick and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Steps from the corner of its cell.
    pub(crate) x: u16,
    pub(crate) z: u16,
    /// Millimetres.
    pub(crate) y: u32,
    /// The tick at which it was there.
    pub(crate) began: u32,
    pub(crate) course: Course,
    pub(crate) pitch: i8,
}

/// All that a client is told about one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) kind: Kind,
    /// Without [`Flags::MOVING`], which the path says.
    pub(crate) flags: Flags,
    pub(crate) health: u8,
    pub(crate) path: Path,
    /// Ticks by which it is behind its path.
    pub(crate) slip: i8,
}

/// Where an entity is by its path, and how it moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Motion {
    pub(crate) position: Position,
    /// What moves it over the ground, in metres per second: what it shows, but for haste.
    pub(crate) rate_x: f64,
    pub(crate) rate_z: f64,
    pub(crate) velocity: Velocity,
}

/// The velocity of somebody who goes ahead.
fn ahead(kind: Kind, flags: Flags, heading: u16) -> Velocity {
    let speed = match kind {
        Kind::Player => movement::speed(flags),
        Kind::Npc => roam::NPC_SPEED,
        Kind::Projectile => roam::PROJECTILE_SPEED,
    };
    let (sin, cos) = libm::sincos(heading_degrees(heading).to_radians());
    Velocity { x: (sin * speed) as f32, y: 0.0, z: (cos * speed) as f32 }
}

fn heading_degrees(heading: u16) -> f64 {
    f64::from(heading) * (360.0 / 65_536.0)
}

impl Course {
    /// The course of a body with this velocity and yaw.
    fn of(kind: Kind, flags: Flags, velocity: Velocity, yaw: f32) -> Self {
        // What rounds up to a full turn is 0 by the cast.
        let turn = |steps: f32| (yaw * (steps / 360.0)).round() as u32;
        let yaw8 = turn(256.0) as u8;
        if velocity == Velocity::ZERO {
            return Self::Still { yaw: yaw8 };
        }
        let steps = |speed: f32, steps: f32, bits: u32| {
            let most = ((1 << (bits - 1)) - 1) as f32;
            (speed * steps).round().clamp(-most, most) as i32
        };
        let x = steps(velocity.x, SPEED_STEPS, SPEED_BITS);
        let z = steps(velocity.z, SPEED_STEPS, SPEED_BITS);
        if velocity.y != 0.0 || kind == Kind::Projectile {
            let rise = steps(velocity.y, RISE_STEPS, RISE_BITS);
            return Self::Air { x, z, rise, yaw: yaw8 };
        }
        let heading = turn(65_536.0) as u16;
        let guess = ahead(kind, flags, heading);
        let near = |a: f32, b: f32| (a - b).abs() <= 1.0 / SPEED_STEPS;
        if near(guess.x, velocity.x) && near(guess.z, velocity.z) {
            return Self::Ahead { heading };
        }
        Self::Ground { x, z, yaw: yaw8 }
    }

    /// The velocity at first.
    fn velocity(self, kind: Kind, flags: Flags) -> Velocity {
        let speed = |steps: i32| steps as f32 / SPEED_STEPS;
        match self {
            Self::Still { .. } => Velocity::ZERO,
            Self::Ahead { heading } => ahead(kind, flags, heading),
            Self::Ground { x, z, .. } => Velocity { x: speed(x), y: 0.0, z: speed(z) },
            Self::Air { x, z, rise, .. } => {
                Velocity { x: speed(x), y: rise as f32 / RISE_STEPS, z: speed(z) }
            }
        }
    }

    fn yaw(self) -> f32 {
        match self {
            Self::Ahead { heading } => heading_degrees(heading) as f32,
            Self::Still { yaw } | Self::Ground { yaw, .. } | Self::Air { yaw, .. } => {
                f32::from(yaw) * (360.0 / 256.0)
            }
        }
    }

    pub(crate) const fn is_still(self) -> bool {
        matches!(self, Self::Still { .. })
    }
}

impl Path {
    /// The path on which `entity` sets out at `tick` in its cell.
    pub(crate) fn of(entity: &EntityState, cell: CellId, cell_m: u8, tick: u32) -> Self {
        let side = f64::from(cell_m);
        let steps = f64::from(1_u32 << axis_bits(cell_m));
        // Rounded down, so that a step never leaves the cell; the decoder adds the half step.
        let along = |coordinate: f64, number: i32| {
            ((coordinate - f64::from(number) * side) * (steps / side)).min(steps - 1.0) as u16
        };
        let Position { x, y, z } = entity.position;
        let course = Course::of(entity.kind, entity.flags, entity.velocity, entity.yaw);
        Self {
            x: along(x, cell.x),
            z: along(z, cell.z),
            y: (y * HEIGHT_STEPS).round() as u32,
            // Who stands still stands there since ever.
            began: if course.is_still() { 0 } else { tick },
            course,
            pitch: (entity.pitch * (PITCH_STEPS / 90.0)).round() as i8,
        }
    }

    /// Where it began.
    fn start(&self, cell: CellId, cell_m: u8) -> Position {
        let side = f64::from(cell_m);
        let step = side / f64::from(1_u32 << axis_bits(cell_m));
        let along =
            |steps: u16, number: i32| f64::from(number) * side + (f64::from(steps) + 0.5) * step;
        let y = f64::from(self.y) / HEIGHT_STEPS;
        Position { x: along(self.x, cell.x), y, z: along(self.z, cell.z) }
    }

    fn push(&self, out: &mut Packed, cell_m: u8) {
        let mode = match self.course {
            Course::Still { .. } => 0,
            Course::Ahead { .. } => 1,
            Course::Ground { .. } => 2,
            Course::Air { .. } => 3,
        };
        out.push(mode, 2);
        let bits = axis_bits(cell_m);
        out.push(u64::from(self.x), bits);
        out.push(u64::from(self.z), bits);
        out.push(u64::from(self.y != 0), 1);
        if self.y != 0 {
            out.push(u64::from(self.y), HEIGHT_BITS);
        }
        out.push(u64::from(self.pitch != 0), 1);
        if self.pitch != 0 {
            out.push(unsigned(i64::from(self.pitch), PITCH_BITS), PITCH_BITS);
        }
        if !self.course.is_still() {
            out.push(u64::from(self.began & 0xff), BEGAN_BITS);
        }
        let mut speed = |steps: i32| out.push(unsigned(i64::from(steps), SPEED_BITS), SPEED_BITS);
        match self.course {
            Course::Still { yaw } => out.push(u64::from(yaw), YAW_BITS),
            Course::Ahead { heading } => out.push(u64::from(heading), HEADING_BITS),
            Course::Ground { x, z, yaw } => {
                speed(x);
                speed(z);
                out.push(u64::from(yaw), YAW_BITS);
            }
            Course::Air { x, z, rise, yaw } => {
                speed(x);
                speed(z);
                out.push(unsigned(i64::from(rise), RISE_BITS), RISE_BITS);
                out.push(u64::from(yaw), YAW_BITS);
            }
        }
    }

    /// Reads a path told at `tick`.
    fn read(reader: &mut BitReader<'_>, cell_m: u8, tick: u32) -> Result<Self, StateError> {
        let mode = reader.read(2)?;
        let bits = axis_bits(cell_m);
        let (x, z) = (reader.read(bits)? as u16, reader.read(bits)? as u16);
        let y = if reader.flag()? { reader.read(HEIGHT_BITS)? as u32 } else { 0 };
        let pitch =
            if reader.flag()? { signed(reader.read(PITCH_BITS)?, PITCH_BITS) as i8 } else { 0 };
        // -64 would be below straight down.
        if f32::from(pitch) < -PITCH_STEPS {
            return Err(StateError::Angle);
        }
        let mut began = 0;
        if mode != 0 {
            let low = reader.read(BEGAN_BITS)? as u32;
            began = tick.wrapping_sub(tick.wrapping_sub(low) & 0xff);
        }
        let mut number = |bits: u32| reader.read(bits).map(|value| signed(value, bits) as i32);
        let course = match mode {
            0 => Course::Still { yaw: reader.read(YAW_BITS)? as u8 },
            1 => Course::Ahead { heading: reader.read(HEADING_BITS)? as u16 },
            2 => {
                let (x, z) = (number(SPEED_BITS)?, number(SPEED_BITS)?);
                Course::Ground { x, z, yaw: reader.read(YAW_BITS)? as u8 }
            }
            _ => {
                let (x, z, rise) = (number(SPEED_BITS)?, number(SPEED_BITS)?, number(RISE_BITS)?);
                Course::Air { x, z, rise, yaw: reader.read(YAW_BITS)? as u8 }
            }
        };
        Ok(Self { x, z, y, began, course, pitch })
    }
}

impl Content {
    /// What is told of `entity`, which sets out on a new path at `tick`.
    pub(crate) fn of(entity: &EntityState, cell: CellId, cell_m: u8, tick: u32) -> Self {
        Self {
            kind: entity.kind,
            flags: entity.flags.with(Flags::MOVING, false),
            health: entity.health,
            path: Path::of(entity, cell, cell_m, tick),
            slip: 0,
        }
    }

    /// Where the entity is at `tick`, by its path.
    pub(crate) fn motion(&self, cell: CellId, cell_m: u8, tick: u32) -> Motion {
        let mut position = self.path.start(cell, cell_m);
        let mut velocity = self.path.course.velocity(self.kind, self.flags);
        // An NPC's haste shows in its steps alone.
        let hasty = self.kind == Kind::Npc;
        let factor = if hasty { movement::speed(self.flags) / movement::WALK_SPEED } else { 1.0 };
        let rate_x = f64::from(velocity.x) * factor;
        let rate_z = f64::from(velocity.z) * factor;
        if !self.path.course.is_still() {
            let ticks = ticks_since(tick, self.path.began) - f64::from(self.slip);
            let time = ticks * TICK_SECONDS;
            position.x += rate_x * time;
            position.z += rate_z * time;
            if let Course::Air { .. } = self.path.course {
                // The sum of steps, each with the velocity after the fall of the one before.
                let rise = f64::from(velocity.y);
                let fallen = 0.5 * roam::GRAVITY * time * (time - TICK_SECONDS);
                position.y = movement::cut(position.y + rise * time - fallen, movement::HEIGHT_MAX);
                velocity.y = (rise - roam::GRAVITY * time) as f32;
            }
        }
        Motion { position, rate_x, rate_z, velocity }
    }

    /// The entity as a client shows it at `tick`.
    pub(crate) fn show(&self, id: EntityId, cell: CellId, cell_m: u8, tick: u32) -> EntityState {
        let Motion { mut position, velocity, .. } = self.motion(cell, cell_m, tick);
        // It is in this cell, whatever the last millimetre says.
        let side = f64::from(cell_m);
        let inside = |coordinate: f64, number: i32| {
            let low = f64::from(number) * side;
            coordinate.clamp(low, low + side - GROUND_STEP / 2.0)
        };
        position.x = inside(position.x, cell.x);
        position.z = inside(position.z, cell.z);
        EntityState {
            id,
            kind: self.kind,
            position,
            velocity,
            yaw: self.path.course.yaw(),
            pitch: f32::from(self.path.pitch) * (90.0 / PITCH_STEPS),
            flags: self.flags.with(Flags::MOVING, !self.path.course.is_still()),
            health: self.health,
        }
    }

    /// The bits of the path alone.
    pub(crate) fn path_bits(&self, cell_m: u8) -> Packed {
        let mut out = Packed::default();
        self.path.push(&mut out, cell_m);
        out
    }

    /// The bits of kind, flags and health.
    pub(crate) fn trait_bits(&self) -> Packed {
        let mut out = Packed::default();
        out.push(self.kind as u64, KIND_BITS);
        out.push(u64::from(self.flags.bits()), FLAG_BITS);
        out.push(u64::from(self.health != HEALTH_FULL), 1);
        if self.health != HEALTH_FULL {
            out.push(u64::from(self.health), 8);
        }
        out
    }

    /// Reads what [`Content::trait_bits`], [`Content::path_bits`] and [`slip_bits`] say.
    pub(crate) fn read(
        reader: &mut BitReader<'_>,
        cell_m: u8,
        tick: u32,
    ) -> Result<Self, StateError> {
        let number = reader.read(KIND_BITS)? as u8;
        let kind = Kind::from_wire(number).ok_or(StateError::Kind { number })?;
        let bits = reader.read(FLAG_BITS)? as u8;
        let flags = Flags::from_bits(bits)
            .filter(|flags| !flags.contains(Flags::MOVING))
            .ok_or(StateError::Flags { bits })?;
        let health = if reader.flag()? { reader.read(8)? as u8 } else { HEALTH_FULL };
        let path = Path::read(reader, cell_m, tick)?;
        let slip = read_slip_flagged(reader)?;
        Ok(Self { kind, flags, health, path, slip })
    }

    /// This content with a new path.
    pub(crate) fn with_path(
        self,
        reader: &mut BitReader<'_>,
        cell_m: u8,
        tick: u32,
    ) -> Result<Self, StateError> {
        let path = Path::read(reader, cell_m, tick)?;
        Ok(Self { path, slip: read_slip_flagged(reader)?, ..self })
    }

    /// This content, so many ticks behind its path as the reader says.
    pub(crate) fn with_slip(self, reader: &mut BitReader<'_>) -> Result<Self, StateError> {
        Ok(Self { slip: read_slip(reader)?, ..self })
    }

    /// A number that differs, nearly always, when anything does; the same at both ends.
    pub(crate) fn digest(&self, id: EntityId, cell_m: u8) -> u32 {
        let Packed { bits, count } = self.path_bits(cell_m);
        let traits = self.trait_bits();
        let mut mixed = u64::from(id.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for word in [
            bits as u64,
            (bits >> 64) as u64,
            traits.bits as u64,
            u64::from(count) << 8 | u64::from(self.slip as u8),
        ] {
            mixed = (mixed ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            mixed ^= mixed >> 32;
        }
        mixed as u32
    }
}

/// Ticks from `began` to `tick`; below zero when a word comes late.
fn ticks_since(tick: u32, began: u32) -> f64 {
    f64::from(tick.wrapping_sub(began) as i32)
}

/// Whether `slip` can be told.
pub(crate) const fn is_slip(slip: i64) -> bool {
    let half = 1 << (SLIP_BITS - 1);
    -half <= slip && slip < half
}

/// The bits of a slip that may be none.
pub(crate) fn slip_bits(slip: i8) -> Packed {
    let mut out = Packed::default();
    out.push(u64::from(slip != 0), 1);
    if slip != 0 {
        out.push(unsigned(i64::from(slip), SLIP_BITS), SLIP_BITS);
    }
    out
}

/// The bits of a slip and nothing else.
pub(crate) const fn bare_slip_bits(slip: i8) -> (u64, u32) {
    (unsigned(slip as i64, SLIP_BITS), SLIP_BITS)
}

fn read_slip_flagged(reader: &mut BitReader<'_>) -> Result<i8, StateError> {
    if reader.flag()? { read_slip(reader) } else { Ok(0) }
}

fn read_slip(reader: &mut BitReader<'_>) -> Result<i8, StateError> {
    Ok(signed(reader.read(SLIP_BITS)?, SLIP_BITS) as i8)
}

/// The bits of an id: its slot in `slot_bits`, then four bits of generation or all of it.
pub(crate) fn id_bits(id: EntityId, slot_bits: u32) -> Packed {
    let mut out = Packed::default();
    out.push(id.index() as u64, slot_bits);
    let generation = u64::from(id.generation());
    let is_old = generation >> YOUNG_BITS != 0;
    out.push(u64::from(is_old), 1);
    out.push(generation, if is_old { GENERATION_BITS } else { YOUNG_BITS });
    out
}

/// Reads what [`id_bits`] wrote.
pub(crate) fn read_id(reader: &mut BitReader<'_>, slot_bits: u32) -> Result<EntityId, StateError> {
    let slot = reader.read(slot_bits)? as u32;
    let bits = if reader.flag()? { GENERATION_BITS } else { YOUNG_BITS };
    let bits = slot << GENERATION_BITS | reader.read(bits)? as u32;
    EntityId::from_bits(bits).ok_or(StateError::EntityId { bits })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bits::BitWriter;

    const CELL: CellId = CellId { x: -2, z: 3 };

    fn entity() -> EntityState {
        EntityState {
            id: EntityId::from_bits(0x0000_3004).unwrap(),
            kind: Kind::Player,
            position: Position { x: -48.0, y: 0.0, z: 96.0 + 0.25 },
            velocity: Velocity { x: 5.0, y: 0.0, z: 0.0 },
            yaw: 90.0,
            pitch: 0.0,
            flags: Flags::MOVING,
            health: 100,
        }
    }

    fn whole(content: &Content, cell_m: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = BitWriter::new(&mut out);
        let slip = slip_bits(content.slip);
        for packed in [content.trait_bits(), content.path_bits(cell_m), slip] {
            writer.push_wide(packed.bits, packed.count);
        }
        writer.finish();
        out
    }

    #[test]
    fn a_walker_has_these_bytes() {
        let content = Content::of(&entity(), CELL, 32, 0x1234);
        assert_eq!(content.path.course, Course::Ahead { heading: 0x4000 });
        let bytes = whole(&content, 32);
        // Kind 0, flags 0, full health; mode 1, x 16,384, z 256, level; began 0x34, heading.
        assert_eq!(bytes, [0x20, 0x00, 0x20, 0x40, 0x00, 0x1a, 0x00, 0x20]);
        let read = Content::read(&mut BitReader::new(&bytes), 32, 0x1240).unwrap();
        assert_eq!(read, content);
        assert_eq!(read.motion(CELL, 32, 0x1234 + 60).position.x, -43.0 + GROUND_STEP / 2.0);
    }

    #[test]
    fn what_is_no_content_is_named() {
        let read = |bytes: &[u8]| Content::read(&mut BitReader::new(bytes), 32, 9);
        assert_eq!(read(&[0xff; 20]), Err(StateError::Kind { number: 3 }));
        assert_eq!(read(&[0x08; 20]), Err(StateError::Flags { bits: 2 }));
        assert!(matches!(read(&[0; 4]), Err(StateError::Short(_))));
        let down = Content {
            path: Path { pitch: -64, ..Content::of(&entity(), CELL, 32, 0).path },
            ..Content::of(&entity(), CELL, 32, 0)
        };
        assert_eq!(read(&whole(&down, 32)), Err(StateError::Angle));
    }

    #[test]
    fn ids_keep_their_slot_and_generation() {
        for id in [0x3004, 0x3fff, 0x0fff_f001] {
            let id = EntityId::from_bits(id).unwrap();
            let packed = id_bits(id, 20);
            let bytes = packed.bits.to_le_bytes();
            assert_eq!(read_id(&mut BitReader::new(&bytes), 20), Ok(id));
        }
        let none = [0; 4];
        let error = StateError::EntityId { bits: 0 };
        assert_eq!(read_id(&mut BitReader::new(&none), 15), Err(error));
    }

    proptest! {
        #[test]
        fn any_bytes_are_content_or_name_a_reason(
            bytes in proptest::collection::vec(any::<u8>(), 0..24), cell_m in 8_u8..=64, tick: u32,
        ) {
            if let Ok(content) = Content::read(&mut BitReader::new(&bytes), cell_m, tick) {
                let again = whole(&content, cell_m);
                let read = Content::read(&mut BitReader::new(&again), cell_m, tick);
                prop_assert_eq!(read, Ok(content));
            }
        }

        #[test]
        fn quantised_values_stay_near_in_any_cell(
            x in -1_000_000_i32..1_000_000, z in -1_000_000_i32..1_000_000, cell_m in 8_u8..=64,
            dx in 0.0_f64..0.9999, dz in 0.0_f64..0.9999, y in 0.0_f64..300.0,
            yaw in 0.0_f32..360.0, pitch in -90.0_f32..=90.0, speed in -31.75_f32..31.75,
            kind in 0_u8..3, still: bool,
        ) {
            let (cell, side) = (CellId { x, z }, f64::from(cell_m));
            let position = Position {
                x: (f64::from(x) + dx) * side, y, z: (f64::from(z) + dz) * side,
            };
            let velocity =
                if still { Velocity::ZERO } else { Velocity { x: speed, y: -speed, z: 0.5 } };
            let kind = Kind::from_wire(kind).unwrap();
            let entity = EntityState { kind, position, velocity, yaw, pitch, ..entity() };
            let content = Content::of(&entity, cell, cell_m, 77);
            let bytes = whole(&content, cell_m);
            prop_assert_eq!(Content::read(&mut BitReader::new(&bytes), cell_m, 80), Ok(content));
            let read = content.show(entity.id, cell, cell_m, 77);
            for (read, real) in [
                (read.position.x, position.x), (read.position.y, y), (read.position.z, position.z),
            ] {
                prop_assert!((read - real).abs() <= 0.0005 + 1e-9);
            }
            let turn = (read.yaw - yaw).abs();
            prop_assert!(turn.min(360.0 - turn) <= 0.71);
            prop_assert!((read.pitch - pitch).abs() <= 0.72);
            prop_assert!((read.velocity.x - velocity.x).abs() <= 0.001);
            prop_assert!((read.velocity.y - velocity.y).abs() <= 0.001);
            prop_assert!((read.velocity.z - velocity.z).abs() <= 0.001);
        }
    }
}
