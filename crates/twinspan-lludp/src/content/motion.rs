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
    /// Bytes behind all that, from senders that know more.
    pub tail: &'a [u8],
}

impl<'a> TerseUpdate<'a> {
    /// Bytes of the field `Data` at most, without a tail.
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
        update.tail = reader.rest();
        if !texture_entry.is_empty() {
            // A length of four bytes stands before it, which says nothing that is not known.
            let mut reader = Reader::new(texture_entry);
            let what = "the texture entry of a terse update";
            let len = u32::read(&mut reader).map_err(within(what))?;
            update.texture_entry = reader.take(len as usize).map_err(within(what))?;
        }
        Ok(update)
    }

    /// Writes the field `Data`: 44 bytes, or 60 with a collision plane, and the tail.
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
        writer.array(&vector_to_u16(self.motion.angular_velocity, -64.0, 64.0))?;
        writer.put(self.tail)
    }

    /// A block of the message.
    ///
    /// # Errors
    /// [`TooLong`] when the texture entry or the tail does not fit its field.
    pub fn to_block(&self) -> Result<ImprovedTerseObjectUpdateObjectData, TooLong> {
        let mut space = [0; Var1::BYTES_MAX];
        let mut writer = Writer::new(&mut space);
        let count = Self::BYTES_MAX + self.tail.len();
        self.write(&mut writer).map_err(|_| TooLong { count, max: Var1::BYTES_MAX })?;
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
    Ok(TerseUpdate { local_id, state, motion, texture_entry: &[], tail: &[] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terse_update_has_its_golden_bytes() {
        let motion = Motion {
            collision_plane: Some(Vector4::new(0.0, 0.0, 1.0, 0.0)),
            position: Vector3::new(1.0, 0.0, 0.0),
            velocity: Vector3::new(128.0, -128.0, 0.0),
            ..Motion::default()
        };
        let update = TerseUpdate { local_id: 7, state: 1, motion, texture_entry: &[5], tail: &[9] };
        let block = update.to_block().unwrap();
        let mut golden = vec![7, 0, 0, 0, 1, 1];
        golden.extend([&[0; 8][..], &[0, 0, 0x80, 0x3F], &[0; 4]].concat());
        golden.extend([&[0, 0, 0x80, 0x3F], &[0; 8][..]].concat());
        golden.extend([0xFF, 0xFF, 0, 0, 0, 0x80]);
        golden.extend([0, 0x80].repeat(3));
        golden.extend([0, 0x80, 0, 0x80, 0, 0x80, 0xFF, 0xFF]);
        golden.extend([0, 0x80].repeat(3));
        golden.push(9);
        assert_eq!(block.data.bytes(), golden);
        assert_eq!(block.texture_entry.bytes(), [1, 0, 0, 0, 5]);
        let read = TerseUpdate::read_parts(&golden, block.texture_entry.bytes());
        assert_eq!(read, Ok(update));
        for cut in 0..golden.len() - 1 {
            assert!(TerseUpdate::read_parts(&golden[..cut], &[]).is_err(), "{cut}");
        }
        assert!(TerseUpdate::read_parts(&golden, &[2, 0, 0, 0, 5]).is_err());
        let long = TerseUpdate { tail: &[0; 200], ..update };
        assert!(long.to_block().is_err());
    }

    #[test]
    fn every_layout_of_a_full_update_is_read() {
        let words = [&[0xFF; 6][..], &[0; 12], &[0, 0x80, 0, 0x80, 0, 0x80, 0xFF, 0xFF], &[0; 6]];
        let motion = Motion::read_full(&words.concat()).unwrap();
        assert_eq!(motion.position, Vector3::new(384.0, 384.0, 4_096.0));
        assert_eq!(motion.velocity, Vector3::new(-256.0, -256.0, -256.0));
        assert!((motion.rotation.w() - 1.0).abs() < 1e-6);
        let small = Motion::read_full(&[0xFF; 16]).unwrap();
        assert_eq!(small.position, Vector3::new(384.0, 384.0, 4_096.0));
        let with_plane = [&[0; 12][..], &[0, 0, 0x80, 0x3F], &words.concat()].concat();
        let with_plane = Motion::read_full(&with_plane).unwrap();
        assert_eq!(with_plane.collision_plane, Some(Vector4::new(0.0, 0.0, 0.0, 1.0)));
        assert_eq!(Motion::read_full(&[]), Ok(Motion::default()));
        let wrong = ContentError::Length { what: "a motion", have: 61 };
        assert_eq!(Motion::read_full(&[0; 61]), Err(wrong));
    }
}
