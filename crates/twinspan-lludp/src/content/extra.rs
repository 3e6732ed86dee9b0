//! Extra parameters: what an object is besides its shape.

use uuid::Uuid;

use super::{ContentError, within};
use crate::field::{Field, Vector3};
use crate::wire::{EncodeError, Reader, Short, Writer};

/// Parameters of an object at most: what their count can tell.
pub const EXTRA_PARAMS_MAX: usize = 255;

/// Bytes of the material of a face.
const FACE_MATERIAL_BYTES: usize = 17;

/// A cloth that hangs from one end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flexible {
    /// 0 to 3.
    pub softness: u8,
    /// 0 to 12.7, steps of 0.1.
    pub tension: f32,
    /// 0 to 12.7, steps of 0.1.
    pub drag: f32,
    /// -10 to 15.5, steps of 0.1.
    pub gravity: f32,
    /// 0 to 25.5, steps of 0.1.
    pub wind: f32,
    /// A force of the user's own; old senders leave it out.
    pub force: Option<Vector3>,
}

/// A light.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Light {
    /// Red, green, blue, and how strong it is.
    pub color: [u8; 4],
    /// Metres.
    pub radius: f32,
    /// Unused.
    pub cutoff: f32,
    /// How fast it fades.
    pub falloff: f32,
}

/// A sculpture, or a mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sculpt {
    /// The texture's asset, or the mesh's.
    pub asset: Uuid,
    /// 1 sphere, 2 torus, 3 plane, 4 cylinder, 5 mesh; 64 is inverted, 128 mirrored.
    pub kind: u8,
}

/// A light that throws a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LightImage {
    /// The texture's asset.
    pub texture: Uuid,
    /// The angle of view, in radians.
    pub field_of_view: f32,
    /// How sharp it is.
    pub focus: f32,
    /// How much of it is everywhere.
    pub ambiance: f32,
}

/// A place where reflections are gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReflectionProbe {
    /// How much light is everywhere.
    pub ambiance: f32,
    /// Metres before which nothing is seen.
    pub clip_distance: f32,
    /// 1 is a box, 2 sees avatars, 4 is a mirror.
    pub flags: u8,
}

/// The material of one face.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaceMaterial {
    /// The face, counted from 0.
    pub face: u8,
    /// The material's asset.
    pub asset: Uuid,
}

/// Materials of faces, borrowed from the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaceMaterials<'a>(&'a [u8]);

impl FaceMaterials<'_> {
    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = FaceMaterial> {
        let (all, _) = self.0.as_chunks::<FACE_MATERIAL_BYTES>();
        all.iter()
            .map(|[face, asset @ ..]| FaceMaterial { face: *face, asset: Uuid::from_bytes(*asset) })
    }
}

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named as its type")]
pub enum ExtraParam<'a> {
    Flexible(Flexible),
    Light(Light),
    Sculpt(Sculpt),
    LightImage(LightImage),
    /// A mesh, where it does not come as a sculpture.
    Mesh(Sculpt),
    /// Flags of a mesh: 1 is animated.
    ExtendedMesh(u32),
    RenderMaterial(FaceMaterials<'a>),
    ReflectionProbe(ReflectionProbe),
    /// One that is not known, kept as it is.
    Other {
        /// Its number.
        kind: u16,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

impl<'a> ExtraParam<'a> {
    /// Its number on the wire.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Flexible(_) => 0x10,
            Self::Light(_) => 0x20,
            Self::Sculpt(_) => 0x30,
            Self::LightImage(_) => 0x40,
            Self::Mesh(_) => 0x60,
            Self::ExtendedMesh(_) => 0x70,
            Self::RenderMaterial(_) => 0x80,
            Self::ReflectionProbe(_) => 0x90,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Reads the bytes of a parameter of this number.
    ///
    /// # Errors
    /// [`ContentError`]
    pub fn read(kind: u16, bytes: &'a [u8]) -> Result<Self, ContentError> {
        let mut reader = Reader::new(bytes);
        let (what, param) = match kind {
            0x10 => ("a flexible", read_flexible(&mut reader).map(Self::Flexible)),
            0x20 => ("a light", read_light(&mut reader).map(Self::Light)),
            0x30 => ("a sculpture", read_sculpt(&mut reader).map(Self::Sculpt)),
            0x40 => ("the image of a light", read_light_image(&mut reader).map(Self::LightImage)),
            0x60 => ("a mesh", read_sculpt(&mut reader).map(Self::Mesh)),
            0x70 => ("an extended mesh", Field::read(&mut reader).map(Self::ExtendedMesh)),
            0x80 => ("materials", read_materials(&mut reader).map(Self::RenderMaterial)),
            0x90 => ("a reflection probe", read_probe(&mut reader).map(Self::ReflectionProbe)),
            kind => return Ok(Self::Other { kind, bytes }),
        };
        let param = param.map_err(within(what))?;
        match reader.rest() {
            [] => Ok(param),
            rest => Err(ContentError::Trailing { what, have: rest.len() }),
        }
    }

    /// Writes the bytes of the parameter, without its number and length. What is out of range is
    /// cut, and rounded to its steps.
    ///
    /// # Errors
    /// [`EncodeError`]
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Flexible(value) => write_flexible(value, writer),
            Self::Light(value) => {
                value.color.write(writer)?;
                value.radius.write(writer)?;
                value.cutoff.write(writer)?;
                value.falloff.write(writer)
            }
            Self::Sculpt(value) | Self::Mesh(value) => {
                value.asset.write(writer)?;
                value.kind.write(writer)
            }
            Self::LightImage(value) => {
                value.texture.write(writer)?;
                value.field_of_view.write(writer)?;
                value.focus.write(writer)?;
                value.ambiance.write(writer)
            }
            Self::ExtendedMesh(flags) => flags.write(writer),
            Self::RenderMaterial(materials) => {
                writer.array(&[materials.iter().len() as u8])?;
                writer.put(materials.0)
            }
            Self::ReflectionProbe(value) => {
                value.ambiance.write(writer)?;
                value.clip_distance.write(writer)?;
                value.flags.write(writer)
            }
            Self::Other { bytes, .. } => writer.put(bytes),
        }
    }
}

fn read_flexible(reader: &mut Reader<'_>) -> Result<Flexible, Short> {
    let [tension, drag, gravity, wind] = *reader.array()?;
    let tenth = |value: u8| f32::from(value) / 10.0;
    Ok(Flexible {
        // Two bits that were free in the bytes of others, the high one first.
        softness: (tension & 0x80) >> 6 | (drag & 0x80) >> 7,
        tension: tenth(tension & 0x7F),
        drag: tenth(drag & 0x7F),
        gravity: tenth(gravity) - 10.0,
        wind: tenth(wind),
        force: if reader.rest().is_empty() { None } else { Some(Field::read(reader)?) },
    })
}

fn write_flexible(value: &Flexible, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
    let tenths = |value: f32, max: u8| ((value * 10.0).round() as u8).min(max);
    writer.array(&[
        (value.softness & 2) << 6 | tenths(value.tension, 127),
        (value.softness & 1) << 7 | tenths(value.drag, 127),
        tenths(value.gravity + 10.0, 255),
        tenths(value.wind, 255),
    ])?;
    value.force.map_or(Ok(()), |force| force.write(writer))
}

fn read_light(reader: &mut Reader<'_>) -> Result<Light, Short> {
    Ok(Light {
        color: Field::read(reader)?,
        radius: Field::read(reader)?,
        cutoff: Field::read(reader)?,
        falloff: Field::read(reader)?,
    })
}

fn read_sculpt(reader: &mut Reader<'_>) -> Result<Sculpt, Short> {
    Ok(Sculpt { asset: Field::read(reader)?, kind: Field::read(reader)? })
}

fn read_light_image(reader: &mut Reader<'_>) -> Result<LightImage, Short> {
    Ok(LightImage {
        texture: Field::read(reader)?,
        field_of_view: Field::read(reader)?,
        focus: Field::read(reader)?,
        ambiance: Field::read(reader)?,
    })
}

fn read_probe(reader: &mut Reader<'_>) -> Result<ReflectionProbe, Short> {
    Ok(ReflectionProbe {
        ambiance: Field::read(reader)?,
        clip_distance: Field::read(reader)?,
        flags: Field::read(reader)?,
    })
}

fn read_materials<'a>(reader: &mut Reader<'a>) -> Result<FaceMaterials<'a>, Short> {
    let count = u8::read(reader)?;
    reader.take(usize::from(count) * FACE_MATERIAL_BYTES).map(FaceMaterials)
}

/// The parameters of an object, borrowed from the packet and read one after the other.
#[derive(Clone, Debug)]
pub struct ExtraParams<'a> {
    reader: Reader<'a>,
    left: u8,
}

impl<'a> ExtraParams<'a> {
    /// Reads a list: a count, then number, length and bytes of each. No bytes are no parameters.
    ///
    /// # Errors
    /// [`ContentError`] when the list is cut, or something follows it. What is wrong with one
    /// parameter comes when that is read.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ContentError> {
        let what = "the extra parameters";
        let mut reader = Reader::new(bytes);
        let left =
            if bytes.is_empty() { 0 } else { u8::read(&mut reader).map_err(within(what))? };
        let list = Self { reader: reader.clone(), left };
        for _ in 0..left {
            take_one(&mut reader).map_err(within(what))?;
        }
        match reader.rest() {
            [] => Ok(list),
            rest => Err(ContentError::Trailing { what, have: rest.len() }),
        }
    }
}

impl<'a> Iterator for ExtraParams<'a> {
    type Item = Result<ExtraParam<'a>, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (kind, bytes) = take_one(&mut self.reader).ok()?;
        Some(ExtraParam::read(kind, bytes))
    }
}

fn take_one<'a>(reader: &mut Reader<'a>) -> Result<(u16, &'a [u8]), Short> {
    let kind = u16::read(reader)?;
    let len = u32::read(reader)?;
    Ok((kind, reader.take(usize::try_from(len).map_err(|_| Short)?)?))
}

/// Writes a list of parameters.
///
/// # Errors
/// [`EncodeError`]
pub fn write_extra_params(
    params: &[ExtraParam<'_>],
    writer: &mut Writer<'_>,
) -> Result<(), EncodeError> {
    let count = params.len();
    let count = u8::try_from(count).map_err(|_| EncodeError::TooManyBlocks { count })?;
    count.write(writer)?;
    for param in params {
        // The longest, materials of 255 faces, has 4,336 bytes.
        let mut space = [0; 255 * FACE_MATERIAL_BYTES + 1];
        let bytes = match param {
            ExtraParam::Other { bytes, .. } => bytes,
            param => {
                let mut one = Writer::new(&mut space);
                param.write(&mut one)?;
                let len = one.len();
                space.get(..len).unwrap_or_default()
            }
        };
        param.kind().write(writer)?;
        (bytes.len() as u32).write(writer)?;
        writer.put(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_parameter_comes_back() {
        let ids = [&[3][..], &[1; 16], &[4], &[2; 16]].concat();
        let params = [
            ExtraParam::Flexible(Flexible {
                softness: 2,
                tension: 1.0,
                drag: 12.7,
                gravity: -0.5,
                wind: 25.5,
                force: Some(Vector3::new(1.0, 2.0, 3.0)),
            }),
            ExtraParam::Flexible(Flexible { softness: 1, ..Default::default() }),
            ExtraParam::Light(Light {
                color: [1, 2, 3, 4],
                radius: 10.0,
                cutoff: 0.0,
                falloff: 0.75,
            }),
            ExtraParam::Sculpt(Sculpt { asset: Uuid::from_u128(5), kind: 0x45 }),
            ExtraParam::LightImage(LightImage { field_of_view: 1.5, ..Default::default() }),
            ExtraParam::Mesh(Sculpt { asset: Uuid::from_u128(6), kind: 5 }),
            ExtraParam::ExtendedMesh(1),
            ExtraParam::RenderMaterial(FaceMaterials(&ids)),
            ExtraParam::ReflectionProbe(ReflectionProbe {
                ambiance: 0.5,
                clip_distance: 1.0,
                flags: 3,
            }),
            ExtraParam::Other { kind: 0x50, bytes: &[1, 2, 3] },
        ];
        let mut space = [0; 1_000];
        let mut writer = Writer::new(&mut space);
        write_extra_params(&params, &mut writer).unwrap();
        let len = writer.len();
        let read: Result<Vec<_>, _> = ExtraParams::new(&space[..len]).unwrap().collect();
        assert_eq!(read.unwrap(), params);
        for cut in 1..len {
            assert!(ExtraParams::new(&space[..cut]).is_err(), "{cut}");
        }
        assert!(ExtraParams::new(&space[..len + 1]).is_err());
        assert_eq!(ExtraParams::new(&[]).unwrap().count(), 0);
    }

    #[test]
    fn a_light_has_its_golden_bytes() {
        let light = Light { color: [255, 0, 0, 128], radius: 1.0, cutoff: 0.0, falloff: 2.0 };
        let mut space = [0; 64];
        let mut writer = Writer::new(&mut space);
        write_extra_params(&[ExtraParam::Light(light)], &mut writer).unwrap();
        let golden =
            [1, 0x20, 0, 16, 0, 0, 0, 255, 0, 0, 128, 0, 0, 0x80, 0x3F, 0, 0, 0, 0, 0, 0, 0, 0x40];
        assert_eq!(space[..23], golden);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parameters_or_name_a_reason(
            kind in prop::sample::select(vec![0x10_u16, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90]),
            bytes: Vec<u8>,
        ) {
            if let Ok(list) = ExtraParams::new(&bytes) {
                prop_assert!(list.count() <= EXTRA_PARAMS_MAX);
            }
            if let Ok(param) = ExtraParam::read(kind, &bytes) {
                let mut space = [0; 8_192];
                let mut writer = Writer::new(&mut space);
                param.write(&mut writer).unwrap();
                let len = writer.len();
                prop_assert_eq!(&space[..len], bytes.as_slice());
            }
        }
    }
}
