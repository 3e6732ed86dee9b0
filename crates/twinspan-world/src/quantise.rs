//! One entity in 17 bytes, relative to its cell.

use twinspan_core::bytes::Reader;

use crate::entity::{EntityState, Flags, Kind, Position, Velocity};
use crate::grid::CellId;
use crate::id::EntityId;
use crate::state::StateError;

/// Bytes of one encoded entity.
///
/// Little-endian: id u32; kind in bits 0-1 and flags in bits 2-7; x and z u16 in 65,536ths of the
/// cell; y i16 in centimetres; velocity x, y, z i8 in quarters of a metre per second; yaw u8 in
/// 256ths of a turn; pitch i8, 127 for 90 degrees; health u8.
pub const ENTITY_BYTES: usize = 17;

/// Bits of the kind in the byte that it shares with the flags.
const KIND_BITS: u32 = 2;
/// Steps of a cell's side.
const CELL_STEPS: f64 = 65_536.0;
/// Steps of one metre per second.
const VELOCITY_STEPS: f32 = 4.0;
/// Steps of a full turn.
const YAW_STEPS: f32 = 256.0;
/// Steps from level to straight up.
const PITCH_STEPS: f32 = 127.0;

/// The entity's bytes, relative to `cell`, which is `cell_m` metres wide and in which it lies.
pub(crate) fn encode(entity: &EntityState, cell: CellId, cell_m: u8) -> [u8; ENTITY_BYTES] {
    let side = f64::from(cell_m);
    // Rounded down, so that a step never leaves the cell; the decoder adds the half step.
    let along = |coordinate: f64, number: i32| {
        ((coordinate - f64::from(number) * side) * (CELL_STEPS / side)) as u16
    };
    let [i0, i1, i2, i3] = entity.id.to_bits().to_le_bytes();
    let kind = entity.kind as u8 | entity.flags.bits() << KIND_BITS;
    let [x0, x1] = along(entity.position.x, cell.x).to_le_bytes();
    let [z0, z1] = along(entity.position.z, cell.z).to_le_bytes();
    let [y0, y1] = ((entity.position.y * 100.0).round() as i16).to_le_bytes();
    let speed =
        |component: f32| (component * VELOCITY_STEPS).round().clamp(-127.0, 127.0) as i8 as u8;
    let Velocity { x, y, z } = entity.velocity;
    // The last step before a full turn rounds up to 256, which is 0.
    let yaw = (entity.yaw * (YAW_STEPS / 360.0)).round() as u16 as u8;
    let pitch = (entity.pitch * (PITCH_STEPS / 90.0)).round() as i8 as u8;
    let (vx, vy, vz) = (speed(x), speed(y), speed(z));
    [i0, i1, i2, i3, kind, x0, x1, z0, z1, y0, y1, vx, vy, vz, yaw, pitch, entity.health]
}

/// Reads one entity of `cell`.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    cell: CellId,
    cell_m: u8,
) -> Result<EntityState, StateError> {
    let bytes = reader.array::<ENTITY_BYTES>()?;
    let [i0, i1, i2, i3, kind, x0, x1, z0, z1, y0, y1, vx, vy, vz, yaw, pitch, health] = bytes;
    let bits = u32::from_le_bytes([i0, i1, i2, i3]);
    let id = EntityId::from_bits(bits).ok_or(StateError::EntityId { bits })?;
    let wire_kind = kind & ((1 << KIND_BITS) - 1);
    let wire_flags = kind >> KIND_BITS;
    let side = f64::from(cell_m);
    let along = |steps: u16, number: i32| {
        f64::from(number) * side + (f64::from(steps) + 0.5) * (side / CELL_STEPS)
    };
    let speed = |steps: u8| f32::from(steps as i8) / VELOCITY_STEPS;
    let pitch = pitch as i8;
    // -128 has no positive twin and would be below straight down.
    if pitch == i8::MIN {
        return Err(StateError::Angle);
    }
    Ok(EntityState {
        id,
        kind: Kind::from_wire(wire_kind).ok_or(StateError::Kind { number: wire_kind })?,
        flags: Flags::from_bits(wire_flags).ok_or(StateError::Flags { bits: wire_flags })?,
        position: Position {
            x: along(u16::from_le_bytes([x0, x1]), cell.x),
            y: f64::from(i16::from_le_bytes([y0, y1])) * 0.01,
            z: along(u16::from_le_bytes([z0, z1]), cell.z),
        },
        velocity: Velocity { x: speed(vx), y: speed(vy), z: speed(vz) },
        yaw: f32::from(yaw) * (360.0 / YAW_STEPS),
        pitch: f32::from(pitch) * (90.0 / PITCH_STEPS),
        health,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CELL: CellId = CellId { x: -2, z: 3 };

    fn entity() -> EntityState {
        EntityState {
            id: EntityId::from_bits(0x0102_3004).unwrap(),
            kind: Kind::Projectile,
            position: Position { x: -48.0, y: 1.5, z: 96.0 + 0.25 },
            velocity: Velocity { x: 1.0, y: -0.5, z: 31.75 },
            yaw: 90.0,
            pitch: -90.0,
            flags: Flags::HASTE | Flags::MOVING,
            health: 99,
        }
    }

    const GOLDEN: [u8; 17] =
        [0x04, 0x30, 0x02, 0x01, 0x0e, 0x00, 0x80, 0x00, 0x02, 150, 0, 4, 0xfe, 127, 64, 0x81, 99];

    fn read(bytes: &[u8]) -> Result<EntityState, StateError> {
        decode(&mut Reader::new(bytes), CELL, 32)
    }

    #[test]
    fn an_entity_has_these_bytes() {
        assert_eq!(encode(&entity(), CELL, 32), GOLDEN);
        let half_step = 0.5 * 32.0 / 65_536.0;
        let at = Position { x: -48.0 + half_step, y: 1.5, z: 96.25 + half_step };
        assert_eq!(read(&GOLDEN), Ok(EntityState { position: at, ..entity() }));
    }

    #[test]
    fn what_is_no_entity_is_named() {
        let change = |offset: usize, value: u8| {
            let mut bytes = GOLDEN;
            bytes[offset] = value;
            read(&bytes)
        };
        assert_eq!(change(4, 3), Err(StateError::Kind { number: 3 }));
        assert_eq!(change(4, 0xf0), Err(StateError::Flags { bits: 60 }));
        assert_eq!(change(15, 0x80), Err(StateError::Angle));
        let mut none = GOLDEN;
        none[..2].copy_from_slice(&[0, 0x40]);
        assert_eq!(read(&none), Err(StateError::EntityId { bits: 0x0102_4000 }));
        assert!(matches!(read(&GOLDEN[..16]), Err(StateError::Short(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entity_or_name_a_reason(bytes in any::<[u8; 17]>()) {
            if let Ok(entity) = read(&bytes) {
                let again = encode(&entity, CELL, 32);
                // A velocity of -128 steps reads as -32 m/s and is written as -31.75.
                let alike = |(a, b): (&u8, u8)| *a == b || (b == 0x80 && *a == 0x81);
                let same = again.iter().zip(bytes).all(alike);
                prop_assert!(same, "{bytes:?} became {again:?}");
            }
        }

        #[test]
        fn quantised_values_stay_near_in_any_cell(
            x in -1_000_000_i32..1_000_000, z in -1_000_000_i32..1_000_000, cell_m in 8_u8..=64,
            dx in 0.0_f64..1.0, dz in 0.0_f64..1.0, y in -300.0_f64..300.0,
            yaw in 0.0_f32..360.0, pitch in -90.0_f32..=90.0, speed in -31.75_f32..31.75,
        ) {
            let (cell, side) = (CellId { x, z }, f64::from(cell_m));
            let position = Position {
                x: (f64::from(x) + dx) * side, y, z: (f64::from(z) + dz) * side,
            };
            let velocity = Velocity { x: speed, y: -speed, z: 0.0 };
            let entity = EntityState { position, velocity, yaw, pitch, ..entity() };
            let bytes = encode(&entity, cell, cell_m);
            let read = decode(&mut Reader::new(&bytes), cell, cell_m).unwrap();
            prop_assert!(read.position.distance(position) <= 0.01);
            let turn = (read.yaw - yaw).abs();
            prop_assert!(turn.min(360.0 - turn) <= 1.0);
            prop_assert!((read.pitch - pitch).abs() <= 1.0);
            prop_assert!((read.velocity.x - speed).abs() <= 0.125);
            prop_assert!((read.velocity.y + speed).abs() <= 0.125);
        }
    }
}
