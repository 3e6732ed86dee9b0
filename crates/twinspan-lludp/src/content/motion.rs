//! Where an object is and how it moves.

use super::quant::{from_u8, from_u16, rotation_to_u16, rotation_u16, vector_to_u16, vector_u16};
use super::{ContentError, within};
use crate::field::{Field, Quaternion, TooLong, Var1, Var2, Vector3, Vector4};
use crate::messages::{
    ImprovedTerseObjectUpdateObjectData, ImprovedTerseObjectUpdateObjectDataRef,
};
use crate::wire::{EncodeError, Reader, Short, Writer};

/// The size of a region in metres, which bounds quantised velocities and places of full updates.
const REGION_SIZE: f32 = 256.0;
/// The lowest and the highest place of full updates with quantised places.
const HEIGHTS: (f32, f32) = (-REGION_SIZE, 4_096.0);

/// Where an object is and how it moves. Metres and seconds; places are relative to the region's
/// south-west corner, or to the parent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Motion {
    /// The plane that an avatar's feet stand on; only avatars have one.
    pub collision_plane: Option<Vector4>,
    /// Where it is, in metres.
    pub position: Vector3,
    /// In metres per second.
    pub velocity: Vector3,
    /// In metres per second squared.
    pub acceleration: Vector3,
    /// How it is turned.
    pub rotation: Quaternion,
    /// In radians per second, around each axis.
    pub angular_velocity: Vector3,
}

impl Motion {
    /// Bytes that [`write_full`](Self::write_full) writes at most.
    pub const BYTES_MAX: usize = 76;

    /// Reads the field `ObjectData` of an `ObjectUpdate`. Its length tells its layout: 76, 60, 48,
    /// 32 or 16 bytes. An empty one, which trees of some servers have, is motion that is all zero.
    ///
    /// # Errors
    /// [`ContentError::Length`] for other lengths.
    pub fn read_full(bytes: &[u8]) -> Result<Self, ContentError> {
        let wrong = ContentError::Length { what: "a motion", have: bytes.len() };
        let mut reader = Reader::new(bytes);
        let motion = match bytes.len() {
            0 => Ok(Self::default()),
            76 => plane(&mut reader).and_then(|plane| floats(&mut reader, plane)),
            60 => floats(&mut reader, None),
            48 => plane(&mut reader).and_then(|plane| words(&mut reader, plane)),
            32 => words(&mut reader, None),
            16 => small(&mut reader),
            _ => return Err(wrong),
        };
        motion.map_err(|Short| wrong)
    }

    /// Writes it as the field `ObjectData` of an `ObjectUpdate`, in floats: nothing is lost. 60
    /// bytes, or 76 with a collision plane.
    ///
    /// # Errors
    /// [`EncodeError::NoRoom`]
    pub fn write_full(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        if let Some(plane) = self.collision_plane {
            plane.write(writer)?;
        }
        self.position.write(writer)?;
        self.velocity.write(writer)?;
        self.acceleration.write(writer)?;
        self.rotation.write(writer)?;
        self.angular_velocity.write(writer)
    }
}

fn plane(reader: &mut Reader<'_>) -> Result<Option<Vector4>, Short> {
    Vector4::read(reader).map(Some)
}

fn floats(reader: &mut Reader<'_>, collision_plane: Option<Vector4>) -> Result<Motion, Short> {
    Ok(Motion {
        collision_plane,
        position: Vector3::read(reader)?,
        velocity: Vector3::read(reader)?,
        acceleration: Vector3::read(reader)?,
        rotation: Quaternion::read(reader)?,
        angular_velocity: Vector3::read(reader)?,
    })
}

fn words(reader: &mut Reader<'_>, collision_plane: Option<Vector4>) -> Result<Motion, Short> {
    let across = (-0.5 * REGION_SIZE, 1.5 * REGION_SIZE);
    let mut place = |(low, high)| u16::read(reader).map(|value| from_u16(value, low, high));
    let position = Vector3::new(place(across)?, place(across)?, place(HEIGHTS)?);
    Ok(Motion {
        collision_plane,
        position,
        velocity: vector_u16(reader.array()?, -REGION_SIZE, REGION_SIZE),
        acceleration: vector_u16(reader.array()?, -REGION_SIZE, REGION_SIZE),
        rotation: rotation_u16(reader.array()?),
        angular_velocity: vector_u16(reader.array()?, -REGION_SIZE, REGION_SIZE),
    })
}

fn small(reader: &mut Reader<'_>) -> Result<Motion, Short> {
    let across = (-0.5 * REGION_SIZE, 1.5 * REGION_SIZE);
    let speed = (-REGION_SIZE, REGION_SIZE);
    let mut part = |(low, high)| u8::read(reader).map(|value| from_u8(value, low, high));
    Ok(Motion {
        collision_plane: None,
        position: Vector3::new(part(across)?, part(across)?, part(HEIGHTS)?),
        velocity: Vector3::new(part(speed)?, part(speed)?, part(speed)?),
        acceleration: Vector3::new(part(speed)?, part(speed)?, part(speed)?),
        rotation: Quaternion::from_parts(
            part((-1.0, 1.0))?,
            part((-1.0, 1.0))?,
            part((-1.0, 1.0))?,
            part((-1.0, 1.0))?,
        ),
        angular_velocity: Vector3::new(part(speed)?, part(speed)?, part(speed)?),
    })
}

/// An object that moved, from a block of an `ImprovedTerseObjectUpdate`.
///
/// What is quantised there is off by half a step at most: velocities (±128 m/s) by 0.002 m/s,
/// accelerations and angular velocities (±64) by 0.001, parts of rotations (±1) by 0.000 016.
/// Places are exact. What is closer to zero than a step is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TerseUpdate<'a> {
    /// The number of the object in its region.
    pub local_id: u32,
    /// The state: of an avatar, what it does; of an attachment, where it is.
    pub state: u8,
    /// Where it is and how it moves.
    pub motion: Motion,
    /// A texture entry, if it changed; else no bytes.
    pub texture_entry: &'a [u8],
}

impl<'a> TerseUpdate<'a> {
    /// Bytes of the field `Data` at most.
    pub const BYTES_MAX: usize = 60;

    /// Reads a block.
    ///
    /// # Errors
    /// [`ContentError`]
    pub fn read(block: &ImprovedTerseObjectUpdateObjectDataRef<'a>) -> Result<Self, ContentError> {
        Self::read_parts(block.data.bytes(), block.texture_entry.bytes())
    }

    /// Reads the two fields of a block.
    ///
    /// # Errors
    /// [`ContentError`]
    pub fn read_parts(data: &'a [u8], texture_entry: &'a [u8]) -> Result<Self, ContentError> {
        let mut reader = Reader::new(data);
        let mut update = read_terse(&mut reader).map_err(within("a terse update"))?;
        if !reader.rest().is_empty() {
            let have = reader.rest().len();
            return Err(ContentError::Trailing { what: "a terse update", have });
        }
        if !texture_entry.is_empty() {
            // A length of four bytes stands before it, which says nothing that is not known.
            let mut reader = Reader::new(texture_entry);
            let what = "the texture entry of a terse update";
            let len = u32::read(&mut reader).map_err(within(what))?;
            update.texture_entry = reader.take(len as usize).map_err(within(what))?;
        }
        Ok(update)
    }

    /// Writes the field `Data`: 44 bytes, or 60 with a collision plane.
    ///
    /// # Errors
    /// [`EncodeError::NoRoom`]
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.local_id.write(writer)?;
        self.state.write(writer)?;
        self.motion.collision_plane.is_some().write(writer)?;
        if let Some(plane) = self.motion.collision_plane {
            plane.write(writer)?;
        }
        self.motion.position.write(writer)?;
        writer.array(&vector_to_u16(self.motion.velocity, -128.0, 128.0))?;
        writer.array(&vector_to_u16(self.motion.acceleration, -64.0, 64.0))?;
        writer.array(&rotation_to_u16(self.motion.rotation))?;
        writer.array(&vector_to_u16(self.motion.angular_velocity, -64.0, 64.0))
    }

    /// A block of the message.
    ///
    /// # Errors
    /// [`TooLong`] when the texture entry does not fit its field.
    pub fn to_block(&self) -> Result<ImprovedTerseObjectUpdateObjectData, TooLong> {
        let mut space = [0; Self::BYTES_MAX];
        let mut writer = Writer::new(&mut space);
        // The space is what the layout needs.
        let written = self.write(&mut writer);
        debug_assert_eq!(written, Ok(()));
        let len = writer.len();
        let texture_entry = match self.texture_entry {
            [] => Vec::new(),
            entry => [&(entry.len() as u32).to_le_bytes(), entry].concat(),
        };
        Ok(ImprovedTerseObjectUpdateObjectData {
            data: Var1::new(space.get(..len).unwrap_or_default())?,
            texture_entry: Var2::new(texture_entry)?,
        })
    }
}

fn read_terse<'a>(reader: &mut Reader<'a>) -> Result<TerseUpdate<'a>, Short> {
    let local_id = u32::read(reader)?;
    let state = u8::read(reader)?;
    let collision_plane = if bool::read(reader)? { plane(reader)? } else { None };
    let motion = Motion {
        collision_plane,
        position: Vector3::read(reader)?,
        velocity: vector_u16(reader.array()?, -128.0, 128.0),
        acceleration: vector_u16(reader.array()?, -64.0, 64.0),
        rotation: rotation_u16(reader.array()?),
        angular_velocity: vector_u16(reader.array()?, -64.0, 64.0),
    };
    Ok(TerseUpdate { local_id, state, motion, texture_entry: &[] })
}
