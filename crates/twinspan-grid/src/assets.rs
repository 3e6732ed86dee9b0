//! What the grid's library has: a texture, a mesh and a notecard, made here.

use std::collections::BTreeMap;
use std::sync::Arc;

use twinspan_llsd::{Form, Value};
use twinspan_lludp::Uuid;

/// The texture of all things: plain grey.
pub const TEXTURE: Uuid = Uuid::from_u128(0x7e27_0000_0000_4000_8000_0000_0000_0001);
/// The mesh of a small pyramid.
pub const MESH: Uuid = Uuid::from_u128(0x3e58_0000_0000_4000_8000_0000_0000_0002);
/// A notecard that says where one is.
pub const NOTECARD: Uuid = Uuid::from_u128(0x207e_0000_0000_4000_8000_0000_0000_0003);

/// Assets that users may upload to one grid; further ones are refused.
pub const UPLOADS_MAX: usize = 1_024;
/// Assets that one user may upload.
pub const UPLOADS_PER_USER_MAX: usize = 64;
/// Bytes of all that users uploaded.
pub const UPLOADED_BYTES_MAX: usize = 64 << 20;

/// What an asset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AssetKind {
    Texture,
    Sound,
    Notecard,
    Script,
    Animation,
    Gesture,
    Mesh,
}

impl AssetKind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Texture,
        Self::Sound,
        Self::Notecard,
        Self::Script,
        Self::Animation,
        Self::Gesture,
        Self::Mesh,
    ];

    /// What its id is called in the query of a request for any asset.
    pub(crate) const fn query(self) -> &'static str {
        match self {
            Self::Texture => "texture_id",
            Self::Sound => "sound_id",
            Self::Notecard => "notecard_id",
            Self::Script => "lsltext_id",
            Self::Animation => "animatn_id",
            Self::Gesture => "gesture_id",
            Self::Mesh => "mesh_id",
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Texture => "image/x-j2c",
            Self::Sound => "audio/ogg",
            Self::Notecard => "application/vnd.ll.notecard",
            Self::Script => "application/vnd.ll.lsltext",
            Self::Animation => "application/vnd.ll.animation",
            Self::Gesture => "application/vnd.ll.gesture",
            Self::Mesh => "application/vnd.ll.mesh",
        }
    }

    /// Its number as an asset, and as an item of an inventory.
    pub(crate) const fn types(self) -> (i32, i32) {
        match self {
            Self::Texture => (0, 0),
            Self::Sound => (1, 1),
            Self::Notecard => (7, 7),
            Self::Script => (10, 10),
            Self::Animation => (20, 19),
            Self::Gesture => (21, 20),
            Self::Mesh => (49, 22),
        }
    }

    /// What uploads call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Texture => "texture",
            Self::Sound => "sound",
            Self::Notecard => "notecard",
            Self::Script => "lsltext",
            Self::Animation => "animatn",
            Self::Gesture => "gesture",
            Self::Mesh => "mesh",
        }
    }

    pub(crate) fn of_type(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.types().0 == number)
    }

    /// The kind of that name that users may upload.
    pub(crate) fn of_upload(name: &str) -> Option<Self> {
        let may = |kind: &Self| *kind != Self::Mesh && kind.name() == name;
        Self::ALL.into_iter().find(may)
    }

    /// The kind of that number that users may upload.
    pub(crate) fn of_upload_type(number: i8) -> Option<Self> {
        Self::of_type(number.into()).filter(|kind| *kind != Self::Mesh)
    }

    /// Whether only those are given it who have an item of it.
    pub(crate) const fn is_private(self) -> bool {
        matches!(self, Self::Notecard | Self::Script)
    }
}

/// An item that somebody uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uploaded {
    pub(crate) item_id: Uuid,
    pub(crate) asset_id: Uuid,
    pub(crate) folder_id: Uuid,
    pub(crate) kind: AssetKind,
    pub(crate) name: String,
    pub(crate) description: String,
}

/// All assets.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    assets: BTreeMap<Uuid, (AssetKind, Arc<[u8]>)>,
    uploads: BTreeMap<Uuid, Vec<Uploaded>>,
    uploaded: usize,
    uploaded_bytes: usize,
}

impl Library {
    pub(crate) fn new() -> Self {
        let assets = [
            (TEXTURE, AssetKind::Texture, texture()),
            (MESH, AssetKind::Mesh, mesh()),
            (NOTECARD, AssetKind::Notecard, notecard()),
        ];
        let assets = assets.map(|(id, kind, bytes)| (id, (kind, bytes.into())));
        Self {
            assets: assets.into_iter().collect(),
            uploads: BTreeMap::new(),
            uploaded: 0,
            uploaded_bytes: 0,
        }
    }

    /// The bytes of an asset of this kind.
    pub(crate) fn find(&self, kind: AssetKind, id: Uuid) -> Option<Arc<[u8]>> {
        let (is, bytes) = self.assets.get(&id)?;
        (*is == kind).then(|| Arc::clone(bytes))
    }

    /// Whether there is an asset of this id, of whatever kind.
    pub(crate) fn has(&self, id: Uuid) -> bool {
        self.assets.contains_key(&id)
    }

    /// What somebody uploaded.
    pub(crate) fn items_of(&self, owner: Uuid) -> &[Uploaded] {
        self.uploads.get(&owner).map_or(&[], Vec::as_slice)
    }

    /// Bytes of all that users uploaded.
    pub(crate) const fn uploaded_bytes(&self) -> usize {
        self.uploaded_bytes
    }

    /// Whether somebody may upload so many bytes more.
    pub(crate) fn has_room(&self, owner: Uuid, bytes: usize) -> bool {
        self.uploaded < UPLOADS_MAX
            && self.items_of(owner).len() < UPLOADS_PER_USER_MAX
            && bytes <= UPLOADED_BYTES_MAX - self.uploaded_bytes
    }

    /// Keeps what somebody uploaded; false when there is no room for it.
    pub(crate) fn keep(&mut self, owner: Uuid, item: Uploaded, bytes: &[u8]) -> bool {
        if !self.has_room(owner, bytes.len()) {
            return false;
        }
        self.uploaded += 1;
        self.uploaded_bytes += bytes.len();
        self.assets.insert(item.asset_id, (item.kind, bytes.into()));
        self.uploads.entry(owner).or_default().push(item);
        true
    }
}

/// Pixels along the texture's side, by whose logarithm it is resolved.
const SIDE: u32 = 64;
const LEVELS: u8 = 5;
/// Channels: red, green, blue.
const CHANNELS: u8 = 3;
/// Letters of the comment, which make the texture long enough to be asked for in parts.
const COMMENT_BYTES: usize = 3_000;

/// A JPEG 2000 codestream in which no wavelet has a coefficient: every pixel is the middle grey.
fn texture() -> Vec<u8> {
    let mut out = vec![0xFF, 0x4F];
    let mut segment = |marker: u8, body: &[u8]| {
        out.extend([0xFF, marker]);
        // Lengths count themselves; the longest segment has some 3,000 bytes.
        out.extend((body.len() as u16 + 2).to_be_bytes());
        out.extend(body);
    };
    // The image and its only tile, from the origin.
    let mut size = vec![0, 0];
    for value in [SIDE, SIDE, 0, 0, SIDE, SIDE, 0, 0] {
        size.extend(value.to_be_bytes());
    }
    size.extend([0, CHANNELS]);
    // Eight bits without a sign, in every pixel.
    size.extend([7, 1, 1].repeat(CHANNELS.into()));
    segment(0x51, &size);
    // By layers, of which there is one; channels are mixed; blocks of 64 by 64; whole numbers.
    segment(0x52, &[0, 0, 0, 1, 1, LEVELS, 4, 4, 0, 1]);
    // Two guard bits, and the bits of each band: one more for a difference, two for two.
    let mut bits = vec![2 << 5, 9 << 3];
    for _ in 0..LEVELS {
        bits.extend([10 << 3, 10 << 3, 11 << 3]);
    }
    segment(0x5C, &bits);
    let comment = "grey ".bytes().cycle().take(COMMENT_BYTES);
    segment(0x64, &[vec![0, 1], comment.collect()].concat());
    // A packet for each resolution of each channel, all of them empty.
    let packets = vec![0; (usize::from(LEVELS) + 1) * usize::from(CHANNELS)];
    let part = (12 + 2 + packets.len()) as u32;
    let mut tile = vec![0, 0];
    tile.extend(part.to_be_bytes());
    tile.extend([0, 1]);
    segment(0x90, &tile);
    out.extend([0xFF, 0x93]);
    out.extend(packets);
    out.extend([0xFF, 0xD9]);
    out
}

/// A pyramid, the same at every distance.
fn mesh() -> Vec<u8> {
    const POINTS: [[u16; 3]; 4] =
        [[0, 0, 0], [0xFFFF, 0, 0], [0x7FFF, 0xFFFF, 0], [0x7FFF, 0x7FFF, 0xFFFF]];
    const TRIANGLES: [[u16; 3]; 4] = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]];
    let words = |words: &[[u16; 3]]| -> Vec<u8> {
        words.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    };
    let span = |axes: usize, low: f64, high: f64| {
        let bound = |value: f64| Value::Array(vec![value.into(); axes]);
        Value::map([("Min", bound(low)), ("Max", bound(high))])
    };
    let flat: Vec<u8> =
        POINTS.iter().flat_map(|[x, y, _]| [*x, *y]).flat_map(u16::to_le_bytes).collect();
    let face = Value::map([
        ("Position", Value::Binary(words(&POINTS))),
        ("PositionDomain", span(3, -0.5, 0.5)),
        ("TexCoord0", Value::Binary(flat)),
        ("TexCoord0Domain", span(2, 0.0, 1.0)),
        ("TriangleList", Value::Binary(words(&TRIANGLES))),
    ]);
    let faces = stored(&binary(&Value::Array(vec![face])));
    let size = i32::try_from(faces.len()).unwrap_or_default();
    let block = Value::map([("offset", Value::Integer(0)), ("size", Value::Integer(size))]);
    let levels = ["lowest_lod", "low_lod", "medium_lod", "high_lod"];
    let head = Value::map(levels.map(|level| (level, block.clone())));
    [Form::Binary.header(), &binary(&head), &faces].concat()
}

fn binary(value: &Value) -> Vec<u8> {
    // Everything that a mesh has can be told in binary.
    Form::Binary.write(value).unwrap_or_default()
}

/// A zlib stream of one block that is not compressed.
fn stored(bytes: &[u8]) -> Vec<u8> {
    // The mesh has some 300 bytes.
    let len = bytes.len() as u16;
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(len.to_le_bytes());
    out.extend((!len).to_le_bytes());
    out.extend(bytes);
    const MODULUS: u32 = 65_521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % MODULUS;
        (low, (high + low) % MODULUS)
    });
    out.extend((high << 16 | low).to_be_bytes());
    out
}

fn notecard() -> Vec<u8> {
    let text = "This is a small grid to try viewers on.\n";
    format!(
        "Linden text version 2\n{{\nLLEmbeddedItems version 1\n{{\ncount 0\n}}\nText length {}\n\
         {text}}}\n",
        text.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan_llsd::{Limits, parse};

    #[test]
    fn the_texture_is_a_chain_of_segments_to_its_end() {
        let bytes = texture();
        let mut at = 2;
        let mut markers = Vec::new();
        loop {
            assert_eq!(bytes[at], 0xFF);
            markers.push(bytes[at + 1]);
            if bytes[at + 1] == 0x93 {
                break;
            }
            at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        }
        assert_eq!(markers, [0x51, 0x52, 0x5C, 0x64, 0x90, 0x93]);
        // The tile says how long it is, from its own marker on.
        assert_eq!(bytes.len() - (at - 12) - 2, 12 + 2 + 18);
        assert_eq!(bytes[bytes.len() - 2..], [0xFF, 0xD9]);
        assert!(bytes.len() > 3_000);
    }

    #[test]
    fn the_mesh_names_its_blocks() {
        let bytes = mesh();
        let header = Form::Binary.header().len();
        let head = (1..bytes.len() - header)
            .find_map(|len| {
                parse(&bytes[header..header + len], Form::Binary, &Limits::DEFAULT).ok()
            })
            .unwrap();
        let size = head.get("high_lod").unwrap().get("size").unwrap().to_i64().unwrap();
        let faces = &bytes[bytes.len() - size as usize..];
        assert_eq!(faces[..3], [0x78, 0x01, 0x01]);
        let faces = parse(&faces[7..faces.len() - 4], Form::Binary, &Limits::DEFAULT).unwrap();
        let triangles = faces.at(0).unwrap().get("TriangleList").unwrap().as_bytes().unwrap();
        assert_eq!(triangles.len(), 24);
    }

    #[test]
    fn a_stored_stream_has_its_golden_bytes() {
        assert_eq!(
            stored(b"abc"),
            [0x78, 1, 1, 3, 0, 0xFC, 0xFF, b'a', b'b', b'c', 0x02, 0x4D, 0x01, 0x27]
        );
    }

    #[test]
    fn an_asset_is_found_as_what_it_is() {
        let library = Library::new();
        assert!(library.find(AssetKind::Texture, TEXTURE).is_some());
        assert!(library.find(AssetKind::Mesh, TEXTURE).is_none());
        assert!(library.find(AssetKind::Texture, Uuid::nil()).is_none());
        assert_eq!(AssetKind::of_type(49), Some(AssetKind::Mesh));
        assert_eq!(AssetKind::of_type(-1), None);
    }

    #[test]
    fn uploads_are_kept_until_there_is_no_room() {
        let mut library = Library::new();
        let [owner, other] = [1, 2].map(Uuid::from_u128);
        let item = |number: usize| Uploaded {
            item_id: Uuid::from_u128(number as u128),
            asset_id: Uuid::from_u128(1 << 64 | number as u128),
            folder_id: Uuid::nil(),
            kind: AssetKind::Sound,
            name: "Bell".into(),
            description: String::new(),
        };
        for number in 0..UPLOADS_PER_USER_MAX {
            assert!(library.keep(owner, item(number), b"ding"));
        }
        assert!(!library.keep(owner, item(999), b"ding"));
        assert!(library.has_room(other, UPLOADED_BYTES_MAX - 4 * UPLOADS_PER_USER_MAX));
        assert!(!library.has_room(other, UPLOADED_BYTES_MAX));
        assert_eq!(library.items_of(owner).len(), UPLOADS_PER_USER_MAX);
        let found = library.find(AssetKind::Sound, item(3).asset_id);
        assert_eq!(found.as_deref(), Some(b"ding".as_slice()));
        assert_eq!(AssetKind::of_upload("mesh"), None);
        assert_eq!(AssetKind::of_upload("sound"), Some(AssetKind::Sound));
    }
}
