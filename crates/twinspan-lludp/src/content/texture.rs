//! The faces of an object: textures, colours, and how they lie.

use core::f32::consts::TAU;

use uuid::Uuid;

use super::{ContentError, within};
use crate::field::Field;
use crate::wire::{Reader, Short};

/// Faces of an object at most: as many as a mask has bits.
pub const FACES_MAX: usize = 64;
/// Faces that one property can tell apart.
pub const EXCEPTIONS_MAX: usize = FACES_MAX;

/// The most bytes of a mask: seven bits each.
const MASK_BYTES_MAX: usize = 10;

/// One face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// The texture's asset.
    pub texture: Uuid,
    /// Red, green, blue, alpha; white is `[255; 4]`.
    pub color: [u8; 4],
    /// How often the texture repeats, across and along.
    pub scale: [f32; 2],
    /// How far it is moved, -1 to 1; a step is 1/32,767.
    pub offset: [f32; 2],
    /// How far it is turned, in radians; a step is 2π/32,768.
    pub rotation: f32,
    /// Bump in the low five bits, then full-bright, then two bits of shine.
    pub material: u8,
    /// Bit 0: a page of the web; bits 1 and 2: how the texture is laid on.
    pub media: u8,
    /// 0 to 1; a step is 1/255.
    pub glow: f32,
    /// The material's asset; nil without one.
    pub material_id: Uuid,
}

impl Default for Face {
    /// White, plain, with no texture.
    fn default() -> Self {
        Self {
            texture: Uuid::nil(),
            color: [255; 4],
            scale: [1.0; 2],
            offset: [0.0; 2],
            rotation: 0.0,
            material: 0,
            media: 0,
            glow: 0.0,
            material_id: Uuid::nil(),
        }
    }
}

/// A property of all faces: what most have, and what others have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faces<T> {
    /// What all faces have that no exception names.
    pub default: T,
    /// Masks of faces, bit 0 for the first, with what they have; a later one counts more.
    pub exceptions: Vec<(u64, T)>,
}

impl<T: Copy + PartialEq> Faces<T> {
    /// The same for all.
    pub const fn all(default: T) -> Self {
        Self { default, exceptions: Vec::new() }
    }

    /// What a face has, counted from 0.
    pub fn of(&self, face: usize) -> T {
        let bit = u32::try_from(face).ok().and_then(|face| 1_u64.checked_shl(face));
        let has = |mask: &u64| bit.is_some_and(|bit| mask & bit != 0);
        let exception = self.exceptions.iter().rev().find(|(mask, _)| has(mask));
        exception.map_or(self.default, |(_, value)| *value)
    }

    /// The shortest way to tell it: what the most faces have is what all have.
    fn gather(faces: &[Face], part: impl Fn(&Face) -> T) -> Option<Self> {
        let mut groups: Vec<(u64, T)> = Vec::new();
        for (index, face) in faces.iter().enumerate() {
            let (value, bit) = (part(face), 1_u64 << index);
            match groups.iter_mut().find(|(_, other)| *other == value) {
                Some((mask, _)) => *mask |= bit,
                None => groups.push((bit, value)),
            }
        }
        // Of equal groups the one with the first face.
        let most = groups.iter().map(|(mask, _)| mask.count_ones()).max()?;
        let at = groups.iter().position(|(mask, _)| mask.count_ones() == most)?;
        let (_, default) = groups.remove(at);
        Some(Self { default, exceptions: groups })
    }
}

/// The faces of an object, as they travel: a property at a time.
///
/// Numbers keep the steps in which they travel, so that what was read is written to the same bytes;
/// [`face`](Self::face) tells what they mean.
#[derive(Clone, Debug, PartialEq)]
pub struct TextureEntry {
    /// Textures.
    pub textures: Faces<Uuid>,
    /// Colours: red, green, blue, alpha.
    pub colors: Faces<[u8; 4]>,
    /// How often the texture repeats across.
    pub scales_s: Faces<f32>,
    /// How often it repeats along.
    pub scales_t: Faces<f32>,
    /// How far it is moved across, in steps.
    pub offsets_s: Faces<i16>,
    /// How far it is moved along, in steps.
    pub offsets_t: Faces<i16>,
    /// How far it is turned, in steps.
    pub rotations: Faces<i16>,
    /// Bump, full-bright and shine.
    pub materials: Faces<u8>,
    /// Media and how the texture is laid on.
    pub media: Faces<u8>,
    /// Glow, in steps.
    pub glows: Faces<u8>,
    /// Materials' assets; old senders have none.
    pub material_ids: Option<Faces<Uuid>>,
}

impl Default for TextureEntry {
    fn default() -> Self {
        Self {
            textures: Faces::default(),
            colors: Faces::all([255; 4]),
            scales_s: Faces::all(1.0),
            scales_t: Faces::all(1.0),
            offsets_s: Faces::default(),
            offsets_t: Faces::default(),
            rotations: Faces::default(),
            materials: Faces::default(),
            media: Faces::default(),
            glows: Faces::default(),
            material_ids: None,
        }
    }
}

/// A value of a property, as it travels.
trait Part: Copy {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short>;
    fn write(self, out: &mut Vec<u8>);
}

macro_rules! parts {
    ($($type:ty)*) => { $(
        impl Part for $type {
            fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
                Field::read(reader)
            }

            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )* };
}

parts! { u8 i16 f32 }

impl Part for Uuid {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Field::read(reader)
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

/// A colour travels upside down, so that white is zeros, which zero-coding makes short.
impl Part for [u8; 4] {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(reader.array::<4>()?.map(|part| 255 - part))
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.map(|part| 255 - part));
    }
}

impl TextureEntry {
    /// Reads the bytes of an entry. Properties that are missing at its end have their defaults, but
    /// the texture; no bytes at all are an entry of defaults.
    ///
    /// # Errors
    /// [`ContentError`]
    pub fn read(bytes: &[u8]) -> Result<Self, ContentError> {
        let mut entry = Self::default();
        let mut reader = Reader::new(bytes);
        read_part(&mut reader, "textures", &mut entry.textures)?;
        read_part(&mut reader, "colours", &mut entry.colors)?;
        read_part(&mut reader, "scales across", &mut entry.scales_s)?;
        read_part(&mut reader, "scales along", &mut entry.scales_t)?;
        read_part(&mut reader, "offsets across", &mut entry.offsets_s)?;
        read_part(&mut reader, "offsets along", &mut entry.offsets_t)?;
        read_part(&mut reader, "rotations", &mut entry.rotations)?;
        read_part(&mut reader, "bumps", &mut entry.materials)?;
        read_part(&mut reader, "media", &mut entry.media)?;
        read_part(&mut reader, "glows", &mut entry.glows)?;
        if !reader.rest().is_empty() {
            let mut ids = Faces::default();
            read_part(&mut reader, "materials", &mut ids)?;
            entry.material_ids = Some(ids);
        }
        match reader.rest() {
            [] => Ok(entry),
            rest => Err(ContentError::Trailing { what: "a texture entry", have: rest.len() }),
        }
    }

    /// The bytes of the entry.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_part(&self.textures, &mut out);
        write_next(&self.colors, &mut out);
        write_next(&self.scales_s, &mut out);
        write_next(&self.scales_t, &mut out);
        write_next(&self.offsets_s, &mut out);
        write_next(&self.offsets_t, &mut out);
        write_next(&self.rotations, &mut out);
        write_next(&self.materials, &mut out);
        write_next(&self.media, &mut out);
        write_next(&self.glows, &mut out);
        if let Some(ids) = &self.material_ids {
            write_next(ids, &mut out);
        }
        out
    }

    /// One face, counted from 0.
    pub fn face(&self, face: usize) -> Face {
        let offset = |steps: i16| f32::from(steps) / 32_767.0;
        Face {
            texture: self.textures.of(face),
            color: self.colors.of(face),
            scale: [self.scales_s.of(face), self.scales_t.of(face)],
            offset: [offset(self.offsets_s.of(face)), offset(self.offsets_t.of(face))],
            rotation: f32::from(self.rotations.of(face)) * (TAU / 32_768.0),
            material: self.materials.of(face),
            media: self.media.of(face),
            glow: f32::from(self.glows.of(face)) / 255.0,
            material_id: self.material_ids.as_ref().map_or(Uuid::nil(), |ids| ids.of(face)),
        }
    }

    /// The entry of these faces, in as few bytes as there are. Offsets, rotations and glows are
    /// rounded to their steps; what is out of range is cut, rotations are taken modulo 2π.
    ///
    /// # Errors
    /// [`ContentError::TooMany`] for more than [`FACES_MAX`] faces.
    pub fn from_faces(faces: &[Face]) -> Result<Self, ContentError> {
        if faces.len() > FACES_MAX {
            return Err(ContentError::TooMany { what: "faces", max: FACES_MAX });
        }
        let offset = |value: f32| (value * 32_767.0).round() as i16;
        let rotation = |value: f32| ((value % TAU) * (32_768.0 / TAU)).round() as i16;
        let or = |found: Option<Faces<u8>>| found.unwrap_or_default();
        let default = Self::default();
        let has_ids = faces.iter().any(|face| !face.material_id.is_nil());
        let ids = Faces::gather(faces, |face| face.material_id);
        Ok(Self {
            textures: Faces::gather(faces, |face| face.texture).unwrap_or(default.textures),
            colors: Faces::gather(faces, |face| face.color).unwrap_or(default.colors),
            scales_s: Faces::gather(faces, |face| face.scale[0]).unwrap_or(default.scales_s),
            scales_t: Faces::gather(faces, |face| face.scale[1]).unwrap_or(default.scales_t),
            offsets_s: Faces::gather(faces, |face| offset(face.offset[0])).unwrap_or_default(),
            offsets_t: Faces::gather(faces, |face| offset(face.offset[1])).unwrap_or_default(),
            rotations: Faces::gather(faces, |face| rotation(face.rotation)).unwrap_or_default(),
            materials: or(Faces::gather(faces, |face| face.material)),
            media: or(Faces::gather(faces, |face| face.media)),
            glows: or(Faces::gather(faces, |face| (face.glow * 255.0).round() as u8)),
            material_ids: ids.filter(|_| has_ids),
        })
    }
}

/// Reads a property: its default, and exceptions until a mask of zero or the end.
fn read_part<T: Part>(
    reader: &mut Reader<'_>,
    what: &'static str,
    faces: &mut Faces<T>,
) -> Result<(), ContentError> {
    if reader.rest().is_empty() {
        return Ok(());
    }
    faces.default = T::read(reader).map_err(within(what))?;
    while !reader.rest().is_empty() {
        let mask = read_mask(reader)?;
        if mask == 0 {
            break;
        }
        if faces.exceptions.len() == EXCEPTIONS_MAX {
            return Err(ContentError::TooMany { what, max: EXCEPTIONS_MAX });
        }
        faces.exceptions.push((mask, T::read(reader).map_err(within(what))?));
    }
    Ok(())
}

/// A mask of faces: seven bits a byte, the high ones first; bit 7 says that more follow.
fn read_mask(reader: &mut Reader<'_>) -> Result<u64, ContentError> {
    let mut mask = 0_u64;
    for _ in 0..MASK_BYTES_MAX {
        let byte = <u8 as Part>::read(reader).map_err(within("a mask of faces"))?;
        if mask >> (u64::BITS - 7) != 0 {
            return Err(ContentError::TooMany { what: "faces", max: FACES_MAX });
        }
        mask = mask << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Ok(mask);
        }
    }
    Err(ContentError::TooMany { what: "bytes of a mask of faces", max: MASK_BYTES_MAX })
}

fn write_mask(mask: u64, out: &mut Vec<u8>) {
    let bits = u64::BITS - mask.leading_zeros();
    let count = bits.div_ceil(7).max(1);
    for index in (0..count).rev() {
        let more = if index > 0 { 0x80 } else { 0 };
        out.push((mask >> (7 * index)) as u8 & 0x7F | more);
    }
}

fn write_part<T: Part>(faces: &Faces<T>, out: &mut Vec<u8>) {
    faces.default.write(out);
    // A mask of nothing would end the property.
    for (mask, value) in faces.exceptions.iter().filter(|(mask, _)| *mask != 0) {
        write_mask(*mask, out);
        value.write(out);
    }
}

fn write_next<T: Part>(faces: &Faces<T>, out: &mut Vec<u8>) {
    out.push(0);
    write_part(faces, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_have_their_golden_bytes() {
        for (mask, bytes) in [
            (1, &[0x01][..]),
            (0x7F, &[0x7F]),
            (0x80, &[0x81, 0x00]),
            (0x4001, &[0x81, 0x80, 0x01]),
            (u64::MAX, &[0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            write_mask(mask, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read_mask(&mut Reader::new(bytes)), Ok(mask));
        }
        assert!(read_mask(&mut Reader::new(&[0x82; 10])).is_err());
        assert!(read_mask(&mut Reader::new(&[0x80; 11])).is_err());
        assert!(read_mask(&mut Reader::new(&[0x80])).is_err());
    }

    #[test]
    fn a_plain_entry_has_its_golden_bytes() {
        let texture = Uuid::from_u128(0x0102);
        let entry = TextureEntry { textures: Faces::all(texture), ..Default::default() };
        let bytes = entry.write();
        // 16 of the texture, then nine properties behind a zero each.
        let mut golden = [&[0; 14][..], &[1, 2], &[0], &[0; 4]].concat();
        golden.extend_from_slice(&[0, 0, 0, 0x80, 0x3F, 0, 0, 0, 0x80, 0x3F]);
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, golden);
        assert_eq!(TextureEntry::read(&bytes), Ok(entry));
    }

    #[test]
    fn the_most_common_value_is_the_default() {
        let mut faces = [Face::default(); 6];
        faces[2].color = [1, 2, 3, 4];
        faces[5].color = [1, 2, 3, 4];
        faces[0].rotation = -TAU / 4.0;
        faces[1].offset = [1.0, -1.0];
        faces[3].glow = 1.0;
        faces[4].material_id = Uuid::from_u128(9);
        let entry = TextureEntry::from_faces(&faces).unwrap();
        assert_eq!(entry.colors.default, [255; 4]);
        assert_eq!(entry.colors.exceptions, [(0b10_0100, [1, 2, 3, 4])]);
        for (index, face) in faces.iter().enumerate() {
            assert_eq!(entry.face(index), *face, "face {index}");
        }
        assert_eq!(TextureEntry::read(&entry.write()), Ok(entry));
        assert!(TextureEntry::from_faces(&[Face::default(); 65]).is_err());
        assert_eq!(TextureEntry::from_faces(&[]), Ok(TextureEntry::default()));
    }

    #[test]
    fn an_entry_may_end_behind_a_property_but_not_within_one() {
        let full = TextureEntry::default().write();
        assert_eq!(TextureEntry::read(&full[..16]), Ok(TextureEntry::default()));
        assert_eq!(TextureEntry::read(&full[..21]), Ok(TextureEntry::default()));
        assert_eq!(TextureEntry::read(&full[..20]), Err(ContentError::Short { what: "colours" }));
        assert_eq!(TextureEntry::read(&full[..15]), Err(ContentError::Short { what: "textures" }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_name_a_reason(bytes: Vec<u8>) {
            if let Ok(entry) = TextureEntry::read(&bytes) {
                let again = TextureEntry::read(&entry.write());
                prop_assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, ()>(entry)));
            }
        }

        #[test]
        fn entries_come_back(
            masks in prop::collection::vec((1_u64.., any::<[u8; 4]>()), 0..8),
            ids in prop::option::of(any::<u128>()),
            offset: i16,
        ) {
            let entry = TextureEntry {
                colors: Faces { default: [9; 4], exceptions: masks },
                offsets_t: Faces { default: offset, exceptions: vec![(5, !offset)] },
                material_ids: ids.map(|id| Faces::all(Uuid::from_u128(id))),
                ..Default::default()
            };
            prop_assert_eq!(TextureEntry::read(&entry.write()), Ok(entry));
        }
    }
}
