//! Objects, whichever of the four messages tells of them.

use core::ops::{BitOr, BitOrAssign};

use uuid::Uuid;

use super::motion::{Motion, TerseUpdate};
use super::particles::{LEGACY_BYTES, TextureAnimation};
use super::shape::Shape;
use super::{ContentError, within};
use crate::borrowed::MessageRef;
use crate::field::{Field, FieldRef, Quaternion, TooLong, Var1, Var2, Vector3};
use crate::message::DecodeError;
use crate::messages::{
    ImprovedTerseObjectUpdateRef, ObjectUpdateCachedObjectData, ObjectUpdateCachedRef,
    ObjectUpdateCompressedObjectData, ObjectUpdateCompressedObjectDataRef,
    ObjectUpdateCompressedRef, ObjectUpdateObjectData, ObjectUpdateObjectDataRef, ObjectUpdateRef,
};
use crate::wire::{EncodeError, Reader, Short, Writer};

/// Bytes of a compressed object at most: what its field can hold.
pub const OBJECT_BYTES_MAX: usize = 65_535;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PCode {
    /// Nothing that is known.
    None,
    /// A primitive, a sculpture or a mesh.
    Primitive,
    /// Somebody.
    Avatar,
    /// Grass.
    Grass,
    /// A tree of the newer kind.
    NewTree,
    /// Particles alone.
    ParticleSystem,
    /// A tree.
    Tree,
    /// Another code.
    Other(u8),
}

impl PCode {
    /// What a code means.
    pub const fn from_wire(code: u8) -> Self {
        match code {
            0 => Self::None,
            9 => Self::Primitive,
            47 => Self::Avatar,
            95 => Self::Grass,
            111 => Self::NewTree,
            143 => Self::ParticleSystem,
            255 => Self::Tree,
            code => Self::Other(code),
        }
    }

    /// Its code.
    pub const fn wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Primitive => 9,
            Self::Avatar => 47,
            Self::Grass => 95,
            Self::NewTree => 111,
            Self::ParticleSystem => 143,
            Self::Tree => 255,
            Self::Other(code) => code,
        }
    }
}

/// Which parts a compressed object has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompressedFlags(pub u32);

impl CompressedFlags {
    /// Bytes of a script.
    pub const SCRATCH_PAD: Self = Self(0x001);
    /// The species of a tree.
    pub const TREE: Self = Self(0x002);
    /// A text above the object.
    pub const TEXT: Self = Self(0x004);
    /// Particles in the old layout.
    pub const PARTICLES: Self = Self(0x008);
    /// A sound.
    pub const SOUND: Self = Self(0x010);
    /// A parent.
    pub const PARENT: Self = Self(0x020);
    /// A texture that moves.
    pub const TEXTURE_ANIMATION: Self = Self(0x040);
    /// It turns.
    pub const ANGULAR_VELOCITY: Self = Self(0x080);
    /// Name-value lines.
    pub const NAME_VALUES: Self = Self(0x100);
    /// An address of media.
    pub const MEDIA_URL: Self = Self(0x200);
    /// Particles in the layout that can grow.
    pub const PARTICLES_NEW: Self = Self(0x400);
    /// All of these.
    pub const KNOWN: Self = Self(0x7FF);

    /// Whether it has all of these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for CompressedFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for CompressedFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A sound that an object makes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sound {
    /// The asset; nil when there is none.
    pub id: Uuid,
    /// How loud it is: 0 to 1.
    pub gain: f32,
    /// 1 loops, 2 leads, 4 follows, 8 queues, 16 stops.
    pub flags: u8,
    /// Metres within which it is heard.
    pub radius: f32,
}

/// Three fields of old hinges, which nothing uses and full updates carry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "they mean nothing any more")]
pub struct Joint {
    pub kind: u8,
    pub pivot: Vector3,
    pub axis_or_anchor: Vector3,
}

/// An object with all that there is to tell of it, borrowed from its packet.
///
/// Texts come without the zero that ends them. What no form tells is empty or zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObjectView<'a> {
    /// The number of the object in its region.
    pub local_id: u32,
    /// Its id everywhere.
    pub full_id: Uuid,
    /// Changes when anything does; a viewer's cache compares it.
    pub crc: u32,
    /// What it is, see [`PCode::from_wire`].
    pub p_code: u8,
    /// The state; of a tree its species, of an attachment where it is.
    pub state: u8,
    /// Stone, metal, glass, wood, flesh, plastic, rubber: 0 to 6.
    pub material: u8,
    /// What a click does.
    pub click_action: u8,
    /// Its size in metres.
    pub scale: Vector3,
    /// Where it is and how it moves. Compressed objects do not move, but may turn.
    pub motion: Motion,
    /// The number of its parent; 0 without one.
    pub parent_id: u32,
    /// What one may do with it, and what it has.
    pub update_flags: u32,
    /// Its shape.
    pub shape: Shape,
    /// Its faces, see [`TextureEntry`](super::TextureEntry).
    pub texture_entry: &'a [u8],
    /// How its texture moves, see [`TextureAnimation`].
    pub texture_animation: &'a [u8],
    /// Lines with names and values, see [`NameValues`](super::NameValues).
    pub name_values: &'a [u8],
    /// Bytes of a tree or of a script.
    pub data: &'a [u8],
    /// The text above it.
    pub text: &'a [u8],
    /// The colour of the text: red, green, blue, and 255 - alpha.
    pub text_color: [u8; 4],
    /// Where its media are.
    pub media_url: &'a [u8],
    /// What it sprays, see [`ParticleSystem`](super::ParticleSystem).
    pub particles: &'a [u8],
    /// What else it is, see [`ExtraParams`](super::ExtraParams).
    pub extra_params: &'a [u8],
    /// What it sounds like.
    pub sound: Sound,
    /// Who owns the sound's object; nil when the form does not tell it.
    pub owner_id: Uuid,
    /// Old hinges.
    pub joint: Joint,
    /// Flags of a compressed update that are not known; full updates cannot tell them.
    pub unknown_flags: u32,
    /// Bytes behind a compressed update, from senders that know more; full updates cannot tell them.
    pub tail: &'a [u8],
}

/// Why an object cannot be written in a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectWriteError {
    /// It does not fit the space, or the field.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A part of it does not fit its field.
    #[error("{part} of the object is too long: {error}")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// How long it is.
        error: TooLong,
    },
    /// A text with a zero in it, which would end it there.
    #[error("{part} of the object has a zero in it, which ends it in a compressed update")]
    Zero {
        /// Which part.
        part: &'static str,
    },
    /// A compressed object cannot move, has no plane, no joint, and one byte of data at most when
    /// it is a tree.
    #[error("a compressed update cannot tell {part}; send a full one")]
    NotCompressible {
        /// What it cannot tell.
        part: &'static str,
    },
}

impl<'a> ObjectView<'a> {
    /// Reads a block of an `ObjectUpdate`.
    ///
    /// # Errors
    /// [`ContentError::Length`] when the motion has a length that means nothing.
    pub fn read_full(block: &ObjectUpdateObjectDataRef<'a>) -> Result<Self, ContentError> {
        let sound =
            Sound { id: block.sound, gain: block.gain, flags: block.flags, radius: block.radius };
        Ok(Self {
            local_id: block.id,
            full_id: block.full_id,
            crc: block.crc,
            p_code: block.p_code,
            state: block.state,
            material: block.material,
            click_action: block.click_action,
            scale: block.scale,
            motion: Motion::read_full(block.object_data.bytes())?,
            parent_id: block.parent_id,
            update_flags: block.update_flags,
            shape: shape_of(block),
            texture_entry: block.texture_entry.bytes(),
            texture_animation: block.texture_anim.bytes(),
            name_values: without_end(block.name_value.bytes()),
            data: block.data.bytes(),
            text: without_end(block.text.bytes()),
            text_color: block.text_color,
            media_url: without_end(block.media_url.bytes()),
            particles: block.ps_block.bytes(),
            extra_params: block.extra_params.bytes(),
            sound,
            owner_id: block.owner_id,
            joint: Joint {
                kind: block.joint_type,
                pivot: block.joint_pivot,
                axis_or_anchor: block.joint_axis_or_anchor,
            },
            unknown_flags: 0,
            tail: &[],
        })
    }

    /// Reads a block of an `ObjectUpdateCompressed`.
    ///
    /// # Errors
    /// [`ContentError`]
    pub fn read_compressed(
        block: &ObjectUpdateCompressedObjectDataRef<'a>,
    ) -> Result<Self, ContentError> {
        Self::read_compressed_parts(block.update_flags, block.data.bytes())
    }

    /// Reads the fields of a block of an `ObjectUpdateCompressed`.
    ///
    /// # Errors
    /// [`ContentError`]
    pub fn read_compressed_parts(update_flags: u32, data: &'a [u8]) -> Result<Self, ContentError> {
        let mut reader = Reader::new(data);
        let mut object = Self { update_flags, ..Self::default() };
        let flags = object.read_head(&mut reader).map_err(within("the head of an object"))?;
        object.read_texts(&mut reader, flags).map_err(within("the texts of an object"))?;
        if flags.has(CompressedFlags::PARTICLES) {
            let what = "the particles of an object";
            object.particles = reader.take(LEGACY_BYTES).map_err(within(what))?;
        }
        let what = "the extra parameters of an object";
        object.extra_params = take_extra_params(&mut reader).map_err(within(what))?;
        object.read_tail(&mut reader, flags).map_err(within("the tail of an object"))?;
        if flags.has(CompressedFlags::PARTICLES_NEW) {
            let what = "the particles of an object";
            object.particles = take_particles(&mut reader).map_err(within(what))?;
        }
        object.unknown_flags = flags.0 & !CompressedFlags::KNOWN.0;
        object.tail = reader.rest();
        Ok(object)
    }

    fn read_head(&mut self, reader: &mut Reader<'a>) -> Result<CompressedFlags, Short> {
        self.full_id = Field::read(reader)?;
        self.local_id = Field::read(reader)?;
        self.p_code = Field::read(reader)?;
        self.state = Field::read(reader)?;
        self.crc = Field::read(reader)?;
        self.material = Field::read(reader)?;
        self.click_action = Field::read(reader)?;
        self.scale = Field::read(reader)?;
        self.motion.position = Field::read(reader)?;
        self.motion.rotation = Quaternion::read(reader)?;
        let flags = CompressedFlags(Field::read(reader)?);
        self.owner_id = Field::read(reader)?;
        if flags.has(CompressedFlags::ANGULAR_VELOCITY) {
            self.motion.angular_velocity = Field::read(reader)?;
        }
        if flags.has(CompressedFlags::PARENT) {
            self.parent_id = Field::read(reader)?;
        }
        if flags.has(CompressedFlags::TREE) {
            self.data = reader.take(1)?;
        } else if flags.has(CompressedFlags::SCRATCH_PAD) {
            self.data = take_counted(reader)?;
        }
        Ok(flags)
    }

    fn read_texts(&mut self, reader: &mut Reader<'a>, flags: CompressedFlags) -> Result<(), Short> {
        if flags.has(CompressedFlags::TEXT) {
            self.text = take_text(reader)?;
            self.text_color = Field::read(reader)?;
        }
        if flags.has(CompressedFlags::MEDIA_URL) {
            self.media_url = take_text(reader)?;
        }
        Ok(())
    }

    fn read_tail(&mut self, reader: &mut Reader<'a>, flags: CompressedFlags) -> Result<(), Short> {
        if flags.has(CompressedFlags::SOUND) {
            self.sound = Sound {
                id: Field::read(reader)?,
                gain: Field::read(reader)?,
                flags: Field::read(reader)?,
                radius: Field::read(reader)?,
            };
        }
        if flags.has(CompressedFlags::NAME_VALUES) {
            self.name_values = take_text(reader)?;
        }
        self.shape = Shape::read(reader)?;
        self.texture_entry = take_counted(reader)?;
        if flags.has(CompressedFlags::TEXTURE_ANIMATION) {
            self.texture_animation = take_counted(reader)?;
        }
        Ok(())
    }

    /// The flags that a compressed update of it has.
    pub fn compressed_flags(&self) -> CompressedFlags {
        let mut flags = CompressedFlags(self.unknown_flags & !CompressedFlags::KNOWN.0);
        let has_particles = !self.particles.is_empty();
        for (part, is_there) in [
            (CompressedFlags::TREE, self.is_tree()),
            (CompressedFlags::SCRATCH_PAD, !self.is_tree() && !self.data.is_empty()),
            (CompressedFlags::TEXT, !self.text.is_empty()),
            (CompressedFlags::PARTICLES, has_particles && self.particles.len() == LEGACY_BYTES),
            (CompressedFlags::PARTICLES_NEW, has_particles && self.particles.len() != LEGACY_BYTES),
            (CompressedFlags::SOUND, !self.sound.id.is_nil()),
            (CompressedFlags::PARENT, self.parent_id != 0),
            (CompressedFlags::TEXTURE_ANIMATION, !self.texture_animation.is_empty()),
            (CompressedFlags::ANGULAR_VELOCITY, self.motion.angular_velocity != Vector3::EMPTY),
            (CompressedFlags::NAME_VALUES, !self.name_values.is_empty()),
            (CompressedFlags::MEDIA_URL, !self.media_url.is_empty()),
        ] {
            if is_there {
                flags |= part;
            }
        }
        flags
    }

    fn is_tree(&self) -> bool {
        let is_plant =
            matches!(PCode::from_wire(self.p_code), PCode::Tree | PCode::NewTree | PCode::Grass);
        is_plant && self.data.len() == 1
    }

    /// Whether a reader of a compressed update finds the end of its particles.
    fn has_known_particles(&self) -> bool {
        let mut reader = Reader::new(self.particles);
        let mut is_whole = || take_particles(&mut reader).is_ok() && reader.rest().is_empty();
        matches!(self.particles.len(), 0 | LEGACY_BYTES) || is_whole()
    }

    /// Whether a compressed update can tell all of it.
    ///
    /// # Errors
    /// [`ObjectWriteError::NotCompressible`], [`ObjectWriteError::Zero`]
    pub fn check_compressible(&self) -> Result<(), ObjectWriteError> {
        let motion = &self.motion;
        for (part, is_there) in [
            ("a velocity", motion.velocity != Vector3::EMPTY),
            ("an acceleration", motion.acceleration != Vector3::EMPTY),
            ("a collision plane", motion.collision_plane.is_some()),
            ("a joint", self.joint != Joint::default()),
            ("a sound without an asset", self.sound.id.is_nil() && self.sound != Sound::default()),
            ("particles of an unknown layout", !self.has_known_particles()),
            ("a colour of no text", self.text.is_empty() && self.text_color != [0; 4]),
        ] {
            if is_there {
                return Err(ObjectWriteError::NotCompressible { part });
            }
        }
        for (part, text) in [
            ("the text", self.text),
            ("the address of media", self.media_url),
            ("the name-value lines", self.name_values),
        ] {
            if text.contains(&0) {
                return Err(ObjectWriteError::Zero { part });
            }
        }
        Ok(())
    }

    /// Writes the field `Data` of an `ObjectUpdateCompressed`. Nothing that it tells is quantised.
    ///
    /// # Errors
    /// [`ObjectWriteError`]
    pub fn write_compressed(&self, writer: &mut Writer<'_>) -> Result<(), ObjectWriteError> {
        self.check_compressible()?;
        let flags = self.compressed_flags();
        self.write_head(writer, flags)?;
        if flags.has(CompressedFlags::TEXT) {
            put_text(writer, self.text)?;
            self.text_color.write(writer)?;
        }
        if flags.has(CompressedFlags::MEDIA_URL) {
            put_text(writer, self.media_url)?;
        }
        if flags.has(CompressedFlags::PARTICLES) {
            writer.put(self.particles)?;
        }
        writer.put(if self.extra_params.is_empty() { &[0] } else { self.extra_params })?;
        if flags.has(CompressedFlags::SOUND) {
            self.sound.id.write(writer)?;
            self.sound.gain.write(writer)?;
            self.sound.flags.write(writer)?;
            self.sound.radius.write(writer)?;
        }
        if flags.has(CompressedFlags::NAME_VALUES) {
            put_text(writer, self.name_values)?;
        }
        self.shape.write(writer)?;
        put_counted(writer, self.texture_entry)?;
        if flags.has(CompressedFlags::TEXTURE_ANIMATION) {
            put_counted(writer, self.texture_animation)?;
        }
        if flags.has(CompressedFlags::PARTICLES_NEW) {
            writer.put(self.particles)?;
        }
        writer.put(self.tail)?;
        Ok(())
    }

    fn write_head(
        &self,
        writer: &mut Writer<'_>,
        flags: CompressedFlags,
    ) -> Result<(), EncodeError> {
        self.full_id.write(writer)?;
        self.local_id.write(writer)?;
        self.p_code.write(writer)?;
        self.state.write(writer)?;
        self.crc.write(writer)?;
        self.material.write(writer)?;
        self.click_action.write(writer)?;
        self.scale.write(writer)?;
        self.motion.position.write(writer)?;
        self.motion.rotation.write(writer)?;
        flags.0.write(writer)?;
        self.owner_id.write(writer)?;
        if flags.has(CompressedFlags::ANGULAR_VELOCITY) {
            self.motion.angular_velocity.write(writer)?;
        }
        if flags.has(CompressedFlags::PARENT) {
            self.parent_id.write(writer)?;
        }
        if flags.has(CompressedFlags::TREE) {
            writer.put(self.data)?;
        } else if flags.has(CompressedFlags::SCRATCH_PAD) {
            put_counted(writer, self.data)?;
        }
        Ok(())
    }

    /// A block of an `ObjectUpdateCompressed`.
    ///
    /// # Errors
    /// [`ObjectWriteError`]
    pub fn to_compressed(&self) -> Result<ObjectUpdateCompressedObjectData, ObjectWriteError> {
        let mut space = vec![0; OBJECT_BYTES_MAX];
        let mut writer = Writer::new(&mut space);
        self.write_compressed(&mut writer)?;
        let len = writer.len();
        space.truncate(len);
        space.shrink_to_fit();
        let data = Var2::new(space);
        let data = data.map_err(|error| ObjectWriteError::TooLong { part: "all", error })?;
        Ok(ObjectUpdateCompressedObjectData { update_flags: self.update_flags, data })
    }

    /// A block of an `ObjectUpdate`. Nothing of it is quantised; what only compressed updates have,
    /// unknown flags and what is behind them, is left out.
    ///
    /// # Errors
    /// [`ObjectWriteError::TooLong`] names the part that does not fit its field.
    pub fn to_full(&self) -> Result<ObjectUpdateObjectData, ObjectWriteError> {
        fn whole<const MAX: usize>(
            part: &'static str,
            bytes: impl Into<Vec<u8>>,
        ) -> Result<crate::field::Variable<MAX>, ObjectWriteError> {
            let field = crate::field::Variable::new(bytes);
            field.map_err(|error| ObjectWriteError::TooLong { part, error })
        }
        let ended = |text: &[u8]| if text.is_empty() { Vec::new() } else { [text, &[0]].concat() };
        let mut motion = [0; Motion::BYTES_MAX];
        let mut writer = Writer::new(&mut motion);
        self.motion.write_full(&mut writer)?;
        let len = writer.len();
        let shape = self.shape;
        Ok(ObjectUpdateObjectData {
            id: self.local_id,
            state: self.state,
            full_id: self.full_id,
            crc: self.crc,
            p_code: self.p_code,
            material: self.material,
            click_action: self.click_action,
            scale: self.scale,
            object_data: whole("the motion", motion.get(..len).unwrap_or_default())?,
            parent_id: self.parent_id,
            update_flags: self.update_flags,
            path_curve: shape.path_curve,
            profile_curve: shape.profile_curve,
            path_begin: shape.path_begin,
            path_end: shape.path_end,
            path_scale_x: shape.path_scale_x,
            path_scale_y: shape.path_scale_y,
            path_shear_x: shape.path_shear_x,
            path_shear_y: shape.path_shear_y,
            path_twist: shape.path_twist,
            path_twist_begin: shape.path_twist_begin,
            path_radius_offset: shape.path_radius_offset,
            path_taper_x: shape.path_taper_x,
            path_taper_y: shape.path_taper_y,
            path_revolutions: shape.path_revolutions,
            path_skew: shape.path_skew,
            profile_begin: shape.profile_begin,
            profile_end: shape.profile_end,
            profile_hollow: shape.profile_hollow,
            texture_entry: whole("the texture entry", self.texture_entry)?,
            texture_anim: whole("the texture animation", self.texture_animation)?,
            name_value: whole("the name-value lines", ended(self.name_values))?,
            data: whole("the data", self.data)?,
            text: whole("the text", ended(self.text))?,
            text_color: self.text_color,
            media_url: whole("the address of media", ended(self.media_url))?,
            ps_block: whole("the particles", self.particles)?,
            extra_params: whole("the extra parameters", self.extra_params)?,
            sound: self.sound.id,
            owner_id: self.owner_id,
            gain: self.sound.gain,
            flags: self.sound.flags,
            radius: self.sound.radius,
            joint_type: self.joint.kind,
            joint_pivot: self.joint.pivot,
            joint_axis_or_anchor: self.joint.axis_or_anchor,
        })
    }

    /// How its texture moves, if it does.
    ///
    /// # Errors
    /// [`ContentError::Length`]
    pub fn animation(&self) -> Result<Option<TextureAnimation>, ContentError> {
        match self.texture_animation {
            [] => Ok(None),
            bytes => TextureAnimation::read(bytes).map(Some),
        }
    }
}

fn shape_of(block: &ObjectUpdateObjectDataRef<'_>) -> Shape {
    Shape {
        path_curve: block.path_curve,
        path_begin: block.path_begin,
        path_end: block.path_end,
        path_scale_x: block.path_scale_x,
        path_scale_y: block.path_scale_y,
        path_shear_x: block.path_shear_x,
        path_shear_y: block.path_shear_y,
        path_twist: block.path_twist,
        path_twist_begin: block.path_twist_begin,
        path_radius_offset: block.path_radius_offset,
        path_taper_x: block.path_taper_x,
        path_taper_y: block.path_taper_y,
        path_revolutions: block.path_revolutions,
        path_skew: block.path_skew,
        profile_curve: block.profile_curve,
        profile_begin: block.profile_begin,
        profile_end: block.profile_end,
        profile_hollow: block.profile_hollow,
    }
}

fn without_end(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(&[0]).unwrap_or(bytes)
}

/// Bytes up to the zero that ends them, which is stepped over.
fn take_text<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let len = memchr::memchr(0, reader.rest()).ok_or(Short)?;
    let text = reader.take(len)?;
    reader.take(1)?;
    Ok(text)
}

/// Bytes behind a length of four bytes.
fn take_counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let len = u32::read_ref(reader)?;
    reader.take(usize::try_from(len).map_err(|_| Short)?)
}

/// Particles in the layout that can grow: two parts, each behind its length.
fn take_particles<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let from = reader.rest();
    take_counted(reader)?;
    take_counted(reader)?;
    Ok(from.get(..from.len() - reader.rest().len()).unwrap_or_default())
}

/// The list of extra parameters as it stands; an empty one is no bytes.
fn take_extra_params<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let from = reader.rest();
    let count = u8::read(reader)?;
    for _ in 0..count {
        u16::read(reader)?;
        take_counted(reader)?;
    }
    let len = from.len() - reader.rest().len();
    Ok(if count == 0 { &[] } else { from.get(..len).unwrap_or_default() })
}

fn put_text(writer: &mut Writer<'_>, text: &[u8]) -> Result<(), EncodeError> {
    writer.put(text)?;
    writer.array(&[0])
}

fn put_counted(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), EncodeError> {
    let count = bytes.len();
    let too_many = EncodeError::TooManyBytes { count, max: OBJECT_BYTES_MAX };
    u32::try_from(count).map_err(|_| too_many)?.write(writer)?;
    writer.put(bytes)
}

/// An object that the viewer may have in its cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedObject {
    /// The number of the object in its region.
    pub local_id: u32,
    /// The cache's entry is good if its own is the same.
    pub crc: u32,
    /// What one may do with it, and what it has.
    pub update_flags: u32,
}

impl From<ObjectUpdateCachedObjectData> for CachedObject {
    fn from(block: ObjectUpdateCachedObjectData) -> Self {
        Self { local_id: block.id, crc: block.crc, update_flags: block.update_flags }
    }
}

impl From<CachedObject> for ObjectUpdateCachedObjectData {
    fn from(object: CachedObject) -> Self {
        Self { id: object.local_id, crc: object.crc, update_flags: object.update_flags }
    }
}

/// What one block of one of the four messages tells.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it lives for one call and is never stored")]
pub enum UpdateKind<'a> {
    /// All of an object: `ObjectUpdate` or `ObjectUpdateCompressed`.
    Whole(ObjectView<'a>),
    /// How it moves: `ImprovedTerseObjectUpdate`.
    Moved(TerseUpdate<'a>),
    /// That it has not changed since some time: `ObjectUpdateCached`.
    Cached(CachedObject),
}

impl UpdateKind<'_> {
    /// The number of the object in its region.
    pub const fn local_id(&self) -> u32 {
        match self {
            Self::Whole(object) => object.local_id,
            Self::Moved(update) => update.local_id,
            Self::Cached(object) => object.local_id,
        }
    }
}

/// Hands every object of a message to `sink`, with the region's handle; `None` when the message is
/// none of the four. Blocks that cannot be read come as their errors and stop nothing.
///
/// # Errors
/// [`DecodeError`] when the message itself cannot be read.
pub fn object_updates<'a>(
    id: crate::number::MessageId,
    body: &'a [u8],
    mut sink: impl FnMut(u64, Result<UpdateKind<'a>, ContentError>),
) -> Option<Result<(), DecodeError>> {
    use crate::message::Message;
    use crate::messages;

    if id == messages::ImprovedTerseObjectUpdate::ID {
        Some(ImprovedTerseObjectUpdateRef::decode_ref(body).map(|(message, _)| {
            for block in message.object_data {
                let update = TerseUpdate::read(&block).map(UpdateKind::Moved);
                sink(message.region_data.region_handle, update);
            }
        }))
    } else if id == messages::ObjectUpdate::ID {
        Some(ObjectUpdateRef::decode_ref(body).map(|(message, _)| {
            for block in message.object_data {
                let object = ObjectView::read_full(&block).map(UpdateKind::Whole);
                sink(message.region_data.region_handle, object);
            }
        }))
    } else if id == messages::ObjectUpdateCompressed::ID {
        Some(ObjectUpdateCompressedRef::decode_ref(body).map(|(message, _)| {
            for block in message.object_data {
                let object = ObjectView::read_compressed(&block).map(UpdateKind::Whole);
                sink(message.region_data.region_handle, object);
            }
        }))
    } else if id == messages::ObjectUpdateCached::ID {
        Some(ObjectUpdateCachedRef::decode_ref(body).map(|(message, _)| {
            for block in message.object_data {
                sink(message.region_data.region_handle, Ok(UpdateKind::Cached(block.into())));
            }
        }))
    } else {
        None
    }
}

// A motion fits its field.
const _: () = assert!(Motion::BYTES_MAX <= Var1::BYTES_MAX);
