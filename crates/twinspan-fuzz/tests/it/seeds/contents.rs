//! What fields of Second Life's messages hold.

use twinspan_lludp::content::{
    ExtraParam, Face, GroupInvitation, GroupNotice, InventoryOffer, LayerKind, LayerWriter, Light,
    Motion, ObjectView, ParticleGlow, ParticleSystem, PatchPlace, PatchSize, Sculpt, Shape, Sound,
    TerseUpdate, TextureAnimation, TextureEntry, write_extra_params,
};
use twinspan_lludp::{Uuid, Vector3, Writer};

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut space = vec![0; 4_096];
    let mut writer = Writer::new(&mut space);
    write(&mut writer);
    let len = writer.len();
    space.truncate(len);
    space
}

fn entry() -> Vec<u8> {
    let mut faces = [Face::default(); 9];
    faces[2].color = [1, 2, 3, 4];
    faces[8].texture = Uuid::from_u128(5);
    faces[8].material_id = Uuid::from_u128(6);
    TextureEntry::from_faces(&faces).unwrap().write()
}

fn params() -> Vec<u8> {
    let params = [
        ExtraParam::Light(Light { radius: 10.0, ..Default::default() }),
        ExtraParam::Sculpt(Sculpt { asset: Uuid::from_u128(3), kind: 5 }),
    ];
    written(|writer| write_extra_params(&params, writer).unwrap())
}

fn particles(glow: Option<ParticleGlow>) -> Vec<u8> {
    let system = ParticleSystem { pattern: 2, burst_rate: 0.5, glow, ..Default::default() };
    written(|writer| system.write(writer).unwrap())
}

/// Compressed objects with few parts and with all.
pub(super) fn objects() -> Vec<Vec<u8>> {
    let (entry, params, animation) = (entry(), params(), TextureAnimation::default().write());
    let plain = ObjectView {
        local_id: 7,
        p_code: 9,
        shape: Shape::BOX,
        texture_entry: &entry,
        ..Default::default()
    };
    let (old, new) = (particles(None), particles(Some(ParticleGlow { start: 1, end: 2 })));
    let full = ObjectView {
        motion: Motion { angular_velocity: Vector3::new(0.0, 0.0, 1.0), ..Default::default() },
        parent_id: 5,
        text: b"Hello",
        media_url: b"http://localhost",
        particles: &old,
        extra_params: &params,
        sound: Sound { id: Uuid::from_u128(9), gain: 1.0, flags: 1, radius: 20.0 },
        name_values: b"AttachItemID STRING RW SV x",
        texture_animation: &animation,
        ..plain
    };
    let tree = ObjectView { p_code: 255, data: &[3], ..plain };
    let all = [plain, full, ObjectView { particles: &new, ..full }, tree];
    all.iter().map(|object| object.to_compressed().unwrap().data.into_bytes()).collect()
}

/// One of each kind, behind its number.
pub(super) fn contents() -> Vec<Vec<u8>> {
    let moved = TerseUpdate { local_id: 7, ..Default::default() };
    let moved = written(|writer| moved.write(writer).unwrap());
    let full = written(|writer| Motion::default().write_full(writer).unwrap());
    let notice =
        GroupNotice { asset_type: Some(7), group: Uuid::from_u128(4), item_name: "A note".into() };
    let offer = InventoryOffer { asset_type: 8, id: Uuid::from_u128(1) };
    let invitation = GroupInvitation { fee: 5, role: Uuid::from_u128(2) };
    let kinds = [
        (0, entry()),
        (1, particles(None)),
        (1, particles(Some(ParticleGlow { start: 1, end: 2 }))),
        (2, params()),
        (3, b"FirstName STRING RW SV Test\nLastName STRING RW SV User\0".to_vec()),
        (4, [&moved[..], &[0; 44]].concat()),
        (5, full),
        (5, vec![0x80; 32]),
        (5, TextureAnimation::default().write().to_vec()),
        (6, invitation.to_bucket()),
        (6, notice.to_bucket().unwrap()),
        (7, InventoryOffer::to_bucket(&[offer; 3]).unwrap().into_bytes()),
    ];
    kinds.into_iter().map(|(kind, bytes)| [&[kind], &bytes[..]].concat()).collect()
}

/// Layers of both sizes.
pub(super) fn layers() -> Vec<Vec<u8>> {
    let layer = |kind, size: PatchSize, is_large| {
        let mut writer = LayerWriter::new(kind, size, is_large);
        for x in 0..3 {
            let heights: Vec<f32> =
                (0..size.heights()).map(|at| (at % 16) as f32 * 0.5 + 20.0).collect();
            writer.push(PatchPlace { x, y: 1 }, &heights).unwrap();
        }
        writer.finish()
    };
    vec![
        layer(LayerKind::Land, PatchSize::P16, false),
        layer(LayerKind::Land, PatchSize::P32, true),
        layer(LayerKind::Wind, PatchSize::P16, false),
    ]
}
