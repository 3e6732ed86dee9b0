//! What the fields of messages hold: objects, faces, particles, terrain, chat, places on the map.
//!
//! Messages carry much of their content as bytes with layouts of their own. These modules read and
//! write them. Readers borrow where they can; none of them allocates for an object that moves.

mod chat;
mod coarse;
mod extra;
mod motion;
mod names;
mod object;
mod particles;
mod quant;
mod shape;
mod terrain;
mod texture;

pub use chat::{
    Audible, ChatSource, ChatType, Dialog, GROUP_NOTICE_NAME_BYTES_MAX, GroupInvitation,
    GroupNotice, InventoryOffer, Offline,
};
pub use coarse::{COARSE_Z_STEP, CoarseLocation, coarse_locations};
pub use extra::{
    EXTRA_PARAMS_MAX, ExtraParam, ExtraParams, FaceMaterial, FaceMaterials, Flexible, Light,
    LightImage, ReflectionProbe, Sculpt, write_extra_params,
};
pub use motion::{Motion, TerseUpdate};
pub use names::{Access, NameValue, NameValues, SendTo, ValueKind};
pub use object::{
    CachedObject, CompressedFlags, Joint, OBJECT_BYTES_MAX, ObjectView, ObjectWriteError, PCode,
    Sound, UpdateKind, object_updates,
};
pub use particles::{
    PARTICLES_BYTES_MAX, ParticleBlend, ParticleGlow, ParticleSystem, TextureAnimation,
};
pub use shape::{Shape, ShapeFloats};
pub use terrain::{
    LayerKind, LayerReader, LayerWriter, PATCHES_MAX, PatchPlace, PatchSize, TerrainError,
    TerrainWriteError,
};
pub use texture::{EXCEPTIONS_MAX, FACES_MAX, Face, Faces, TextureEntry};

use crate::wire::Short;

/// Why the bytes of a field are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The bytes end within it.
    #[error("the bytes end within {what}")]
    Short {
        /// What they end within.
        what: &'static str,
    },
    /// There is no such thing of this length.
    #[error("{what} of {have} bytes, which has no meaning")]
    Length {
        /// What it is.
        what: &'static str,
        /// Bytes that it has.
        have: usize,
    },
    /// Bytes are left where it should be over.
    #[error("{have} bytes behind the end of {what}")]
    Trailing {
        /// What it is.
        what: &'static str,
        /// Bytes that are left.
        have: usize,
    },
    /// More of something than its limit.
    #[error("more than {max} {what}")]
    TooMany {
        /// What it is.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A value that has no meaning.
    #[error("{what} without a meaning")]
    Invalid {
        /// What it is.
        what: &'static str,
    },
}

/// Names what the bytes end within.
fn within(what: &'static str) -> impl Fn(Short) -> ContentError {
    move |Short| ContentError::Short { what }
}
