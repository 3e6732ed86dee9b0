//! What an object sprays, and how its texture moves.

use uuid::Uuid;

use super::quant::{from_fixed, to_fixed};
use super::{ContentError, within};
use crate::field::{Field, Vector3};
use crate::wire::{EncodeError, Reader, Short, Writer};

/// Bytes of the part that tells of the source.
const SYSTEM_BYTES: usize = 68;
/// Bytes of the part that tells of a particle, without its options.
const PARTICLE_BYTES: usize = 18;
/// Bytes in the old layout, which has no options.
pub(super) const LEGACY_BYTES: usize = SYSTEM_BYTES + PARTICLE_BYTES;
/// Bytes in the layout with options, at most.
pub const PARTICLES_BYTES_MAX: usize = LEGACY_BYTES + 4 + 8;

/// The flag of a particle that says that glows follow.
const GLOW: u32 = 0x1_0000;
/// The flag of a particle that says that blend functions follow.
const BLEND: u32 = 0x2_0000;

/// How particles glow: 0 to 255 at their beginning and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the type says it")]
pub struct ParticleGlow {
    pub start: u8,
    pub end: u8,
}

/// How particles are drawn over what is behind them: numbers of blend functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the type says it")]
pub struct ParticleBlend {
    pub source: u8,
    pub destination: u8,
}

/// A source of particles. Every number is one of its fixed-point steps, so that what was read is
/// written to the same bytes; what is written is rounded to them, and cut to their range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ParticleSystem {
    /// Changes when anything does.
    pub crc: u32,
    /// 1: places are relative to the object; 2: angles are of the new kind.
    pub flags: u32,
    /// 1 drops, 2 explodes, 4 is an angle, 8 a cone, 16 an empty cone.
    pub pattern: u8,
    /// Seconds that it sprays: 0 to 255.996, steps of 1/256; 0 is for ever.
    pub age_max: f32,
    /// Its age at first: as above.
    pub age_start: f32,
    /// Radians, 0 to 7.969, steps of 1/32.
    pub angle_inner: f32,
    /// Radians, as above.
    pub angle_outer: f32,
    /// Seconds between bursts: 0 to 255.996.
    pub burst_rate: f32,
    /// Metres: 0 to 255.996.
    pub burst_radius: f32,
    /// Metres per second: 0 to 255.996.
    pub burst_speed_min: f32,
    /// Metres per second: 0 to 255.996.
    pub burst_speed_max: f32,
    /// Particles of a burst.
    pub burst_particles: u8,
    /// Radians per second around each axis: -256 to 255.99, steps of 1/128.
    pub angular_velocity: Vector3,
    /// Metres per second squared: as above.
    pub acceleration: Vector3,
    /// The texture's asset.
    pub texture: Uuid,
    /// The object that they fly to.
    pub target: Uuid,
    /// Flags of each particle; those that say what follows are set when it is written.
    pub particle_flags: u32,
    /// Seconds that a particle lives: 0 to 255.996.
    pub particle_age_max: f32,
    /// Red, green, blue, alpha at its beginning.
    pub color_start: [u8; 4],
    /// And at its end.
    pub color_end: [u8; 4],
    /// Metres, 0 to 7.969, steps of 1/32.
    pub scale_start: [f32; 2],
    /// And at its end.
    pub scale_end: [f32; 2],
    /// How it glows.
    pub glow: Option<ParticleGlow>,
    /// How it is drawn.
    pub blend: Option<ParticleBlend>,
}

impl ParticleSystem {
    /// Reads either layout; `None` when there are no bytes: nothing is sprayed.
    ///
    /// # Errors
    /// [`ContentError`]
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ContentError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let short = within("a particle system");
        let mut system = Self::default();
        let (mut source, mut particle) = if bytes.len() == LEGACY_BYTES {
            let mut reader = Reader::new(bytes);
            let source = reader.take(SYSTEM_BYTES).map_err(&short)?;
            (Reader::new(source), reader)
        } else {
            let mut reader = Reader::new(bytes);
            let source = take_counted(&mut reader).map_err(&short)?;
            let particle = take_counted(&mut reader).map_err(&short)?;
            let rest = reader.rest();
            if !rest.is_empty() {
                let what = "a particle system";
                return Err(ContentError::Trailing { what, have: rest.len() });
            }
            (Reader::new(source), Reader::new(particle))
        };
        system.read_source(&mut source).map_err(&short)?;
        system.read_particle(&mut particle).map_err(&short)?;
        for (what, rest) in [("a source", source.rest()), ("a particle", particle.rest())] {
            if !rest.is_empty() {
                return Err(ContentError::Trailing { what, have: rest.len() });
            }
        }
        Ok(Some(system))
    }

    fn read_source(&mut self, reader: &mut Reader<'_>) -> Result<(), Short> {
        self.crc = Field::read(reader)?;
        self.flags = Field::read(reader)?;
        self.pattern = Field::read(reader)?;
        self.age_max = word(reader)?;
        self.age_start = word(reader)?;
        self.angle_inner = byte(reader)?;
        self.angle_outer = byte(reader)?;
        self.burst_rate = word(reader)?;
        self.burst_radius = word(reader)?;
        self.burst_speed_min = word(reader)?;
        self.burst_speed_max = word(reader)?;
        self.burst_particles = Field::read(reader)?;
        self.angular_velocity = vector(reader)?;
        self.acceleration = vector(reader)?;
        self.texture = Field::read(reader)?;
        self.target = Field::read(reader)?;
        Ok(())
    }

    fn read_particle(&mut self, reader: &mut Reader<'_>) -> Result<(), Short> {
        self.particle_flags = Field::read(reader)?;
        self.particle_age_max = word(reader)?;
        self.color_start = Field::read(reader)?;
        self.color_end = Field::read(reader)?;
        self.scale_start = [byte(reader)?, byte(reader)?];
        self.scale_end = [byte(reader)?, byte(reader)?];
        if self.particle_flags & GLOW != 0 {
            let (start, end) = (Field::read(reader)?, Field::read(reader)?);
            self.glow = Some(ParticleGlow { start, end });
        }
        if self.particle_flags & BLEND != 0 {
            let (source, destination) = (Field::read(reader)?, Field::read(reader)?);
            self.blend = Some(ParticleBlend { source, destination });
        }
        Ok(())
    }

    /// Writes it: in the old layout, which all viewers know, unless it has a glow or a blend.
    ///
    /// # Errors
    /// [`EncodeError::NoRoom`]
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        if self.glow.is_none() && self.blend.is_none() {
            self.write_source(writer)?;
            return self.write_particle(writer);
        }
        let options = 2 * (usize::from(self.glow.is_some()) + usize::from(self.blend.is_some()));
        (SYSTEM_BYTES as u32).write(writer)?;
        self.write_source(writer)?;
        ((PARTICLE_BYTES + options) as u32).write(writer)?;
        self.write_particle(writer)
    }

    fn write_source(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.crc.write(writer)?;
        self.flags.write(writer)?;
        self.pattern.write(writer)?;
        put_word(writer, self.age_max)?;
        put_word(writer, self.age_start)?;
        put_byte(writer, self.angle_inner)?;
        put_byte(writer, self.angle_outer)?;
        put_word(writer, self.burst_rate)?;
        put_word(writer, self.burst_radius)?;
        put_word(writer, self.burst_speed_min)?;
        put_word(writer, self.burst_speed_max)?;
        self.burst_particles.write(writer)?;
        put_vector(writer, self.angular_velocity)?;
        put_vector(writer, self.acceleration)?;
        self.texture.write(writer)?;
        self.target.write(writer)
    }

    fn write_particle(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        let glow = if self.glow.is_some() { GLOW } else { 0 };
        let blend = if self.blend.is_some() { BLEND } else { 0 };
        (self.particle_flags & !(GLOW | BLEND) | glow | blend).write(writer)?;
        put_word(writer, self.particle_age_max)?;
        self.color_start.write(writer)?;
        self.color_end.write(writer)?;
        for part in [self.scale_start, self.scale_end].into_iter().flatten() {
            put_byte(writer, part)?;
        }
        if let Some(glow) = self.glow {
            writer.array(&[glow.start, glow.end])?;
        }
        if let Some(blend) = self.blend {
            writer.array(&[blend.source, blend.destination])?;
        }
        Ok(())
    }
}

fn take_counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let len = i32::read(reader)?;
    reader.take(usize::try_from(len).map_err(|_| Short)?)
}

/// Eight bits before the point, eight behind it.
fn word(reader: &mut Reader<'_>) -> Result<f32, Short> {
    u16::read(reader).map(|value| from_fixed(value, 8))
}

fn put_word(writer: &mut Writer<'_>, value: f32) -> Result<(), EncodeError> {
    to_fixed(value, 8, u16::MAX).write(writer)
}

/// Three bits before the point, five behind it.
fn byte(reader: &mut Reader<'_>) -> Result<f32, Short> {
    u8::read(reader).map(|value| from_fixed(value.into(), 5))
}

fn put_byte(writer: &mut Writer<'_>, value: f32) -> Result<(), EncodeError> {
    (to_fixed(value, 5, u8::MAX.into()) as u8).write(writer)
}

/// Nine bits before the point, seven behind it, and 256 less.
fn vector(reader: &mut Reader<'_>) -> Result<Vector3, Short> {
    let mut part = || u16::read(reader).map(|value| from_fixed(value, 7) - 256.0);
    Ok(Vector3::new(part()?, part()?, part()?))
}

fn put_vector(writer: &mut Writer<'_>, vector: Vector3) -> Result<(), EncodeError> {
    for part in [vector.x, vector.y, vector.z] {
        to_fixed(part + 256.0, 7, u16::MAX).write(writer)?;
    }
    Ok(())
}

/// How the texture of an object moves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextureAnimation {
    /// 1 is on, 2 loops, 4 is reverse, 8 goes back and forth, 16 is smooth, 32 turns, 64 scales.
    pub mode: u8,
    /// The face; -1 is all of them.
    pub face: i8,
    /// Frames across.
    pub size_x: u8,
    /// Frames along.
    pub size_y: u8,
    /// The first frame, or an angle in radians, or a scale.
    pub start: f32,
    /// So many frames, radians, or so much scale.
    pub length: f32,
    /// Frames per second, or radians.
    pub rate: f32,
}

impl TextureAnimation {
    /// Bytes that it has.
    pub const BYTES: usize = 16;

    /// Reads it.
    ///
    /// # Errors
    /// [`ContentError::Length`]
    pub fn read(bytes: &[u8]) -> Result<Self, ContentError> {
        let wrong = ContentError::Length { what: "a texture animation", have: bytes.len() };
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| wrong)?;
        let mut reader = Reader::new(bytes);
        let mut read = || -> Result<Self, Short> {
            Ok(Self {
                mode: Field::read(&mut reader)?,
                face: Field::read(&mut reader)?,
                size_x: Field::read(&mut reader)?,
                size_y: Field::read(&mut reader)?,
                start: Field::read(&mut reader)?,
                length: Field::read(&mut reader)?,
                rate: Field::read(&mut reader)?,
            })
        };
        read().map_err(|Short| wrong)
    }

    /// Its bytes.
    pub fn write(&self) -> [u8; Self::BYTES] {
        let [a, b, c, d] = self.start.to_le_bytes();
        let [e, f, g, h] = self.length.to_le_bytes();
        let [i, j, k, l] = self.rate.to_le_bytes();
        let [face] = self.face.to_le_bytes();
        [self.mode, face, self.size_x, self.size_y, a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(system: &ParticleSystem) -> Vec<u8> {
        let mut space = [0; PARTICLES_BYTES_MAX];
        let mut writer = Writer::new(&mut space);
        system.write(&mut writer).unwrap();
        let len = writer.len();
        space[..len].to_vec()
    }

    #[test]
    fn both_layouts_come_back() {
        let mut system = ParticleSystem {
            crc: 1,
            pattern: 8,
            age_max: 2.5,
            angle_outer: 3.125,
            burst_speed_max: 255.5,
            angular_velocity: Vector3::new(-256.0, 0.0, 255.5),
            acceleration: Vector3::new(0.0, 0.0, -9.8125),
            texture: Uuid::from_u128(7),
            particle_flags: 0x101,
            color_end: [1, 2, 3, 4],
            scale_start: [0.5, 7.968_75],
            ..Default::default()
        };
        let bytes = written(&system);
        assert_eq!(bytes.len(), LEGACY_BYTES);
        assert_eq!(ParticleSystem::read(&bytes), Ok(Some(system)));
        system.glow = Some(ParticleGlow { start: 255, end: 0 });
        system.blend = Some(ParticleBlend { source: 7, destination: 9 });
        let bytes = written(&system);
        assert_eq!(bytes.len(), PARTICLES_BYTES_MAX);
        system.particle_flags |= GLOW | BLEND;
        assert_eq!(ParticleSystem::read(&bytes), Ok(Some(system)));
        assert_eq!(ParticleSystem::read(&[]), Ok(None));
        for cut in 1..bytes.len() {
            assert!(ParticleSystem::read(&bytes[..cut]).is_err() || cut == LEGACY_BYTES);
        }
    }

    #[test]
    fn an_animation_comes_back() {
        let animation = TextureAnimation {
            mode: 3,
            face: -1,
            size_x: 4,
            size_y: 2,
            start: 0.5,
            length: 8.0,
            rate: -1.0,
        };
        assert_eq!(TextureAnimation::read(&animation.write()), Ok(animation));
        assert!(TextureAnimation::read(&[0; 15]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_particles_or_name_a_reason(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..120),
                prop::collection::vec(any::<u8>(), LEGACY_BYTES),
            ],
        ) {
            if let Ok(Some(system)) = ParticleSystem::read(&bytes) {
                prop_assert_eq!(ParticleSystem::read(&written(&system)), Ok(Some(system)));
            }
        }
    }
}
