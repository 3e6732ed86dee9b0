//! What fields hold: in a real login, and in agreement with another implementation.

use serde_json::{Value as Json, json};
use twinspan_core::random::Stream;
use twinspan_lludp::content::{
    ExtraParam, Face, Flexible, LayerKind, LayerReader, LayerWriter, Light, Motion, NameValues,
    ObjectView, ObjectWriteError, ParticleGlow, ParticleSystem, PatchSize, Sculpt, Shape, Sound,
    TerseUpdate, TextureAnimation, TextureEntry, UpdateKind, object_updates, write_extra_params,
};
use twinspan_lludp::messages::{LayerData, LayerDataRef, ObjectUpdateCompressedRef};
use twinspan_lludp::{
    Frame, Message, MessageId, MessageRef, PAYLOAD_BYTES_MAX, Quaternion, Uuid, Vector3, Writer,
    messages,
};

use crate::login::datagrams;
use crate::peer::{Peer, hex};

/// The payloads of the captured login.
fn payloads() -> Vec<(MessageId, Vec<u8>)> {
    let payload = |datagram: Vec<u8>| {
        let mut space = [0; PAYLOAD_BYTES_MAX];
        let payload = Frame::parse(&datagram).unwrap().open(&mut space).unwrap();
        (payload.id, payload.body.to_vec())
    };
    datagrams().into_iter().map(payload).collect()
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut space = vec![0; 8_192];
    let mut writer = Writer::new(&mut space);
    write(&mut writer);
    let len = writer.len();
    space.truncate(len);
    space
}

#[test]
fn the_objects_of_a_login_are_read_and_written_again() {
    let (mut whole, mut moved, mut avatars) = (0, 0, 0);
    for (id, body) in payloads() {
        object_updates(id, &body, |handle, update| {
            assert_eq!(handle, 256_000 << 32 | 256_000);
            match update.unwrap() {
                UpdateKind::Whole(object) => {
                    whole += 1;
                    let block = object.to_full().unwrap();
                    let message =
                        messages::ObjectUpdate { object_data: vec![block], ..Default::default() };
                    let mut out = vec![0; PAYLOAD_BYTES_MAX];
                    let len = message.encode(&mut out).unwrap();
                    object_updates(messages::ObjectUpdate::ID, &out[..len], |_, again| {
                        assert_eq!(again, Ok(UpdateKind::Whole(object)));
                    });
                    if object.p_code == 47 {
                        avatars += 1;
                        let names = NameValues::new(object.name_values).unwrap();
                        assert!(names.value("FirstName").is_some(), "{object:?}");
                    }
                    TextureEntry::read(object.texture_entry).unwrap();
                }
                UpdateKind::Moved(update) => {
                    moved += 1;
                    let block = update.to_block().unwrap();
                    let again =
                        TerseUpdate::read_parts(block.data.bytes(), block.texture_entry.bytes());
                    // Twice quantised is once quantised.
                    let again = again.unwrap();
                    assert_eq!(again.motion.velocity, update.motion.velocity);
                    assert_eq!(again.motion.position, update.motion.position);
                    assert!(update.motion.collision_plane.is_some());
                }
                UpdateKind::Cached(_) => {}
            }
        });
    }
    assert!(whole > 0 && avatars > 0 && moved >= 26, "{whole} {avatars} {moved}");
}

#[test]
fn the_ground_of_a_login_is_read_and_written_again() {
    let (mut heights, mut land, mut others) = ([0.0; PatchSize::HEIGHTS_MAX], 0, 0);
    for (id, body) in payloads() {
        if id != LayerData::ID {
            continue;
        }
        let (message, _) = LayerDataRef::decode_ref(&body).unwrap();
        let mut reader = LayerReader::new(message.layer_data.data.bytes()).unwrap();
        assert_eq!(reader.size(), PatchSize::P16);
        let mut writer = LayerWriter::new(reader.kind(), reader.size(), reader.is_large());
        let mut patches = Vec::new();
        while let Some(place) = reader.next_patch(&mut heights).unwrap() {
            patches.push((place, heights[..256].to_vec()));
            writer.push(place, &heights[..256]).unwrap();
        }
        match reader.kind() {
            LayerKind::Land => {
                land += patches.len();
                // A region of OpenSimulator begins as a small island in 20 m of water.
                let all = patches.iter().flat_map(|(_, heights)| heights);
                assert!(all.clone().all(|height| (-5.0..60.0).contains(height)));
            }
            _ => others += patches.len(),
        }
        let bytes = writer.finish();
        let mut again = LayerReader::new(&bytes).unwrap();
        for (place, before) in &patches {
            assert_eq!(again.next_patch(&mut heights).unwrap(), Some(*place));
            for (one, other) in before.iter().zip(&heights) {
                assert!((one - other).abs() < 0.1, "{place:?}: {one} {other}");
            }
        }
    }
    assert!(land == 256 && others > 0, "{land} patches of land, {others} others");
}

fn vector(random: &mut Stream) -> Vector3 {
    let mut part = || (random.below(20_000) as f32 - 10_000.0) / 64.0;
    Vector3::new(part(), part(), part())
}

fn id(random: &mut Stream) -> Uuid {
    Uuid::from_u64_pair(random.next_u64(), random.next_u64())
}

fn entry(random: &mut Stream) -> TextureEntry {
    let mut faces = [Face::default(); 20];
    for face in &mut faces {
        if random.below(3) == 0 {
            face.texture = id(random);
            face.color = (random.next_u64() as u32).to_be_bytes();
            face.scale = [random.below(100) as f32 / 8.0, 1.0];
            face.offset = [random.below(200) as f32 / 100.0 - 1.0, 0.25];
            face.rotation = random.below(600) as f32 / 100.0 - 3.0;
            face.material = random.below(256) as u8;
            face.glow = random.below(256) as f32 / 255.0;
        }
        if random.below(8) == 0 {
            face.material_id = id(random);
        }
    }
    TextureEntry::from_faces(&faces).unwrap()
}

fn particles(random: &mut Stream, has_glow: bool) -> Vec<u8> {
    let system = ParticleSystem {
        crc: random.next_u64() as u32,
        pattern: 4,
        age_max: random.below(60_000) as f32 / 256.0,
        angle_inner: random.below(256) as f32 / 32.0,
        burst_rate: 0.5,
        burst_particles: 7,
        acceleration: Vector3::new(0.0, 0.0, -9.8125),
        texture: id(random),
        particle_age_max: 2.5,
        color_start: [1, 2, 3, 4],
        scale_end: [1.0, 0.5],
        glow: has_glow.then_some(ParticleGlow { start: 51, end: 255 }),
        ..Default::default()
    };
    written(|writer| system.write(writer).unwrap())
}

fn params(random: &mut Stream) -> Vec<u8> {
    let params = [
        ExtraParam::Flexible(Flexible {
            softness: 2,
            tension: 1.0,
            force: Some(vector(random)),
            ..Default::default()
        }),
        ExtraParam::Light(Light { color: [9, 8, 7, 6], radius: 10.0, cutoff: 0.0, falloff: 0.75 }),
        ExtraParam::Sculpt(Sculpt { asset: id(random), kind: 5 }),
        ExtraParam::ExtendedMesh(1),
    ];
    let count = random.below(params.len() as u64 + 1) as usize;
    written(|writer| write_extra_params(&params[..count], writer).unwrap())
}

fn floats(vector: Vector3) -> Json {
    json!([f64::from(vector.x), f64::from(vector.y), f64::from(vector.z)])
}

#[test]
fn what_newer_senders_add_to_an_object_is_kept() {
    let object = ObjectView {
        p_code: 9,
        shape: Shape::BOX,
        particles: &[1, 0, 0, 0, 7, 2, 0, 0, 0, 8, 9],
        unknown_flags: 0x1000,
        tail: &[1, 2, 3],
        ..Default::default()
    };
    let block = object.to_compressed().unwrap();
    let read = ObjectView::read_compressed_parts(block.update_flags, block.data.bytes());
    assert_eq!(read, Ok(object));
    // Where the particles end must be found.
    let cut = ObjectView { particles: &[1, 0, 0, 0, 7], ..object };
    assert_eq!(
        cut.to_compressed(),
        Err(ObjectWriteError::NotCompressible { part: "particles of an unknown layout" })
    );
}

#[test]
fn another_implementation_reads_and_writes_the_same_objects() {
    let Some(mut peer) = Peer::open("contents.py") else { return };
    let mut random = Stream::new(5, "objects", 0);
    for round in 0..40 {
        let (entry, params) = (entry(&mut random).write(), params(&mut random));
        let particles = particles(&mut random, round % 2 == 0);
        let animation = TextureAnimation { mode: 3, face: -1, ..Default::default() }.write();
        let mut maybe = |bytes| if random.below(2) == 0 { bytes } else { &[][..] };
        let mut object = ObjectView {
            p_code: 9,
            state: 3,
            texture_entry: &entry,
            texture_animation: maybe(&animation),
            particles: maybe(&particles),
            name_values: maybe(b"AttachItemID STRING RW SV x\nTitle STRING RW DSV a b"),
            text: maybe("Tür".as_bytes()),
            media_url: maybe(b"http://localhost"),
            extra_params: &params,
            shape: Shape { path_shear_x: 206, path_twist: -50, profile_hollow: 9, ..Shape::BOX },
            ..Default::default()
        };
        if params.as_slice() == [0] {
            object.extra_params = &[];
        }
        if !object.text.is_empty() {
            object.text_color = [1, 2, 3, 4];
        }
        object.local_id = random.next_u64() as u32;
        object.crc = random.next_u64() as u32;
        object.full_id = id(&mut random);
        object.owner_id = id(&mut random);
        object.scale = vector(&mut random);
        object.motion.position = vector(&mut random);
        object.motion.rotation = Quaternion::new(0.5, -0.5, 0.5);
        if random.below(2) == 0 {
            object.parent_id = 77;
            object.motion.angular_velocity = vector(&mut random);
            object.sound = Sound { id: id(&mut random), gain: 0.5, flags: 1, radius: 20.0 };
        }
        if random.below(4) == 0 {
            (object.p_code, object.data) = (255, &[4]);
        }
        let block = object.to_compressed().unwrap();
        let ours = hex(block.data.bytes());
        let answer = peer.ask(&format!("compressed {ours}"));
        assert_eq!(answer["again"], ours, "{object:?}");
        let told = &answer["told"];
        assert_eq!(told["FullID"], object.full_id.to_string());
        assert_eq!(told["ID"], object.local_id);
        assert_eq!(told["CRC"], object.crc);
        assert_eq!(told["PCode"], object.p_code);
        assert_eq!(told["Scale"], floats(object.scale));
        assert_eq!(told["Position"], floats(object.motion.position));
        // It reads the curve of the profile behind that of the path; the viewer and all others read
        // it behind the whole path. The bytes are the same.
        if object.parent_id != 0 {
            assert_eq!(told["ParentID"], 77);
            assert_eq!(told["Sound"], object.sound.id.to_string());
        }
        if !object.text.is_empty() {
            assert_eq!((&told["Text"], &told["TextColor"]), (&"Tür".into(), &"01020304".into()));
        }
        let message =
            messages::ObjectUpdateCompressed { object_data: vec![block], ..Default::default() };
        let mut body = vec![0; PAYLOAD_BYTES_MAX];
        let len = message.encode(&mut body).unwrap();
        let (message, _) = ObjectUpdateCompressedRef::decode_ref(&body[..len]).unwrap();
        let read = ObjectView::read_compressed(&message.object_data.iter().next().unwrap());
        assert_eq!(read, Ok(object));
    }
}

#[test]
fn another_implementation_reads_and_writes_the_same_parts() {
    let Some(mut peer) = Peer::open("contents.py") else { return };
    let mut random = Stream::new(6, "parts", 0);
    for round in 0..40 {
        let entry = entry(&mut random);
        let ours = hex(&entry.write());
        let answer = peer.ask(&format!("texture {ours}"));
        assert_eq!(answer["again"], ours);
        assert_eq!(answer["told"]["Textures"]["None"], entry.textures.default.to_string());
        assert_eq!(answer["told"]["Color"]["None"], hex(&entry.colors.default));
        let exceptions = answer["told"]["Color"].as_object().unwrap().len() - 1;
        assert_eq!(exceptions, entry.colors.exceptions.len());

        let ours = hex(&particles(&mut random, round % 2 == 0));
        let answer = peer.ask(&format!("particles {ours}"));
        assert_eq!(answer["again"], ours);
        assert_eq!(answer["told"]["PSys"]["BurstRate"], 0.5);
        assert_eq!(answer["told"]["PData"]["PDataMaxAge"], 2.5);

        let ours = hex(&params(&mut random));
        assert_eq!(peer.ask(&format!("extra {ours}"))["again"], ours);

        let motion = Motion {
            position: vector(&mut random),
            velocity: Vector3::new(1.0, -2.0, 127.9),
            rotation: Quaternion::from_parts(0.1, 0.7, -0.1, 0.7),
            ..Default::default()
        };
        let update = TerseUpdate { local_id: 7, state: 4, motion, ..Default::default() };
        let data = update.to_block().unwrap().data;
        let answer = peer.ask(&format!("terse {}", hex(data.bytes())));
        assert_eq!(answer["told"]["Position"], floats(motion.position));
        let velocity = answer["told"]["Velocity"].as_array().unwrap();
        for (theirs, ours) in velocity.iter().zip([1.0, -2.0, 127.9]) {
            assert!((theirs.as_f64().unwrap() - ours).abs() < 0.002, "{velocity:?}");
        }
    }
    let animation =
        TextureAnimation { mode: 19, face: -1, size_x: 4, length: 8.0, ..Default::default() };
    let answer = peer.ask(&format!("animation {}", hex(&animation.write())));
    assert_eq!(answer["again"], hex(&animation.write()));
    assert_eq!((&answer["told"]["Face"], &answer["told"]["Length"]), (&json!(-1), &json!(8.0)));
}
