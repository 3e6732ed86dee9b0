use proptest::prelude::*;
use twinspan_core::random::Stream;

use super::*;
use crate::config::WorldConfig;
use crate::encode::RecordHead;
use crate::entity::Kind;
use crate::interest::InterestConfig;
use crate::quantise::ENTITY_BYTES;

pub(crate) fn header() -> StateHeader {
    StateHeader {
        tick: 0x0102_0304,
        made_us: 5,
        slot_us: 6,
        last_input: 7,
        own: OwnState {
            id: EntityId::from_bits(0x1001).unwrap(),
            position: Position { x: 1.0, y: 0.0, z: -2.0 },
            velocity: Velocity { x: 1.0, y: 0.0, z: -2.0 },
            yaw: 90.0,
            pitch: -90.0,
            flags: Flags::HASTE,
            health: 100,
            side_m: 512,
        },
        cell_m: 32,
        base: CellId { x: -3, z: 2 },
        mask: 1 << 48 | 1,
        part: 1,
        parts: 2,
    }
}

fn encoded(header: &StateHeader) -> Vec<u8> {
    let mut bytes = [0; STATE_HEADER_BYTES];
    let mut out = Writer::new(&mut bytes);
    header.encode(&mut out).unwrap();
    assert_eq!(out.room(), 0);
    bytes.to_vec()
}

fn decode(bytes: &[u8]) -> Result<StateHeader, StateError> {
    StateHeader::decode(&mut Reader::new(bytes))
}

#[test]
fn a_header_has_these_bytes() {
    let mut golden = vec![1, 4, 3, 2, 1, 5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 1, 0x10, 0, 0];
    golden.extend([0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0]);
    golden.extend([0, 0, 0, 0, 0, 0, 0, 0xc0]);
    golden
        .extend([0, 0, 0x80, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0xb4, 0x42, 0, 0, 0xb4, 0xc2]);
    golden.extend([1, 100, 0, 2, 32, 0xfd, 0xff, 0xff, 0xff, 2, 0, 0, 0]);
    golden.extend([1, 0, 0, 0, 0, 0, 1, 0, 1, 2]);
    assert_eq!(encoded(&header()), golden);
    assert_eq!(decode(&golden), Ok(header()));
}

#[test]
fn what_is_no_header_is_named() {
    let change = |offset: usize, bytes: &[u8]| {
        let mut header = encoded(&header());
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        decode(&header).unwrap_err()
    };
    assert_eq!(change(0, &[2]), StateError::Version { version: 2 });
    assert_eq!(change(17, &[0, 0x10]), StateError::EntityId { bits: 0x1000 });
    assert_eq!(change(21, &f64::NAN.to_le_bytes()), StateError::OwnPosition);
    assert_eq!(change(29, &2e9_f64.to_le_bytes()), StateError::OwnPosition);
    assert_eq!(change(45, &f32::INFINITY.to_le_bytes()), StateError::OwnVelocity);
    assert_eq!(change(57, &360_f32.to_le_bytes()), StateError::Angle);
    assert_eq!(change(61, &f32::NAN.to_le_bytes()), StateError::Angle);
    assert_eq!(change(65, &[4]), StateError::Flags { bits: 4 });
    assert_eq!(change(67, &[0, 0]), StateError::WorldSide);
    assert_eq!(change(69, &[7]), StateError::CellSide { metres: 7 });
    assert_eq!(change(70, &i32::MIN.to_le_bytes()), StateError::Window);
    assert_eq!(change(84, &[2]), StateError::Window);
    assert_eq!(change(86, &[2]), StateError::Part { part: 2, parts: 2 });
    assert!(matches!(decode(&encoded(&header())[..87]), Err(StateError::Short(_))));
}

/// A crowd around one player, and its subscriptions.
fn crowd(entities: usize) -> (World, EntityId, Subscriptions) {
    let config = WorldConfig { side: 256.0, entities_max: 40_000, ..WorldConfig::default() };
    let mut world = World::new(config, Stream::new(5, "world", 0)).unwrap();
    let at = Position::ground(128.0, 128.0);
    let player = world.spawn(Kind::Player, at).unwrap();
    for index in 1..entities {
        let spread = index as f64 % 60.0;
        world.spawn(Kind::Npc, Position::ground(100.0 + spread, 150.0 - spread)).unwrap();
    }
    world.step();
    let mut subscriptions = Subscriptions::new(InterestConfig::default());
    subscriptions.update(world.tick(), at, world.grid());
    (world, player, subscriptions)
}

#[test]
fn parts_hold_every_record_once_and_in_order() {
    for (entities, room) in [(1, 0), (100, 1_150), (1_000, 789), (3_000, 1_400)] {
        let (world, player, subscriptions) = crowd(entities);
        let mut encodings = CellEncodings::new();
        encodings.encode_all(&world);
        let mut plan = StatePlan::new(room);
        assert_eq!(plan.parts(), 0);
        let header = StateHeader::of(&world, player, &subscriptions).unwrap().with_times(8, 9);
        plan.plan(header, &subscriptions, &encodings);
        let mut written = Vec::new();
        for index in 0..plan.parts() {
            let mut packet = vec![0; room.max(STATE_ROOM_MIN)];
            let mut out = Writer::new(&mut packet);
            plan.write_part(index, &encodings, &mut out).unwrap();
            let mut reader = Reader::new(out.written());
            let read = StateHeader::decode(&mut reader).unwrap();
            let (part, parts) = (index as u8, plan.parts() as u8);
            assert_eq!(read, StateHeader { part, parts, ..header });
            assert!(index == 0 || !reader.is_empty(), "no part is sent for nothing");
            written.extend_from_slice(reader.rest());
        }
        let expected: Vec<u8> =
            subscriptions.cells().flat_map(|cell| encodings.cell(cell).to_vec()).collect();
        assert!(written == expected, "{entities} entities in {room} bytes");
        let mut out = [0; 2_000];
        assert_eq!(
            plan.write_part(plan.parts(), &encodings, &mut Writer::new(&mut out)),
            Err(NoRoom)
        );
        assert_eq!(plan.left_out(), 0);
        assert_eq!(plan.entities(), entities);
    }
}

#[test]
fn a_plan_is_good_for_its_own_encodings_only() {
    let (mut world, player, subscriptions) = crowd(10);
    let mut encodings = CellEncodings::new();
    encodings.encode_all(&world);
    let mut plan = StatePlan::new(STATE_ROOM_MIN);
    let header = StateHeader::of(&world, player, &subscriptions).unwrap();
    plan.plan(header, &subscriptions, &encodings);
    let mut packet = [0; 2_000];
    assert_eq!(plan.write_part(0, &encodings, &mut Writer::new(&mut packet)), Ok(()));
    world.step();
    encodings.encode_all(&world);
    assert_eq!(plan.write_part(0, &encodings, &mut Writer::new(&mut packet)), Err(NoRoom));
}

#[test]
fn what_exceeds_the_parts_is_left_out_and_counted() {
    let (world, player, subscriptions) = crowd(20_000);
    let mut encodings = CellEncodings::new();
    encodings.encode_all(&world);
    let mut plan = StatePlan::new(STATE_ROOM_MIN);
    let header = StateHeader::of(&world, player, &subscriptions).unwrap();
    plan.plan(header, &subscriptions, &encodings);
    assert_eq!(plan.parts(), STATE_PARTS_MAX);
    assert!(plan.left_out() > 0);
    let mut entities = 0;
    for index in 0..plan.parts() {
        let mut packet = [0; STATE_ROOM_MIN];
        let mut out = Writer::new(&mut packet);
        plan.write_part(index, &encodings, &mut out).unwrap();
        let mut reader = Reader::new(out.written());
        StateHeader::decode(&mut reader).unwrap();
        while !reader.is_empty() {
            let head = RecordHead::decode(&mut reader).unwrap();
            reader.take(usize::from(head.count) * ENTITY_BYTES).unwrap();
            entities += usize::from(head.count);
        }
    }
    assert_eq!(entities, plan.entities());
}

proptest! {
    #[test]
    fn any_bytes_are_a_header_or_name_a_reason(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        // The outcome is the value; that there is one is the property.
        let _ = decode(&bytes);
    }

    #[test]
    fn a_header_with_any_byte_changed_is_a_header_or_names_a_reason(
        offset in 0..STATE_HEADER_BYTES, value: u8,
    ) {
        let mut bytes = encoded(&header());
        bytes[offset] = value;
        if let Ok(header) = decode(&bytes) {
            prop_assert_eq!(encoded(&header), bytes);
        }
    }
}
