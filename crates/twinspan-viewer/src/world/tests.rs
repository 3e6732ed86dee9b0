//! What is around, from messages.

use super::*;
use twinspan_lludp::messages::{
    CoarseLocationUpdateAgentData, CoarseLocationUpdateLocation, KillObjectObjectData,
    ObjectUpdate, ObjectUpdateCached, ObjectUpdateCachedObjectData,
};

fn region() -> SocketAddr {
    ([10, 0, 0, 2], 9_000).into()
}

#[derive(Default)]
struct Bench {
    world: Surroundings,
    told: Vec<WorldEvent>,
    out: Answers,
}

impl Bench {
    fn give<M: Message>(&mut self, message: &M) {
        let mut body = vec![0; 16_384];
        let len = message.encode(&mut body).unwrap();
        let events = &mut self.told;
        let mut tell = |event| events.push(event);
        let ids = (Uuid::nil(), Uuid::nil());
        let mut told = Told { tell: &mut tell, out: &mut self.out, ids };
        self.world.handle_message(Timestamp::START, region(), M::ID, &body[..len], &mut told);
    }
}

fn object(local_id: u32, kind: PCode, x: f32) -> ObjectUpdate {
    let view = ObjectView {
        local_id,
        full_id: Uuid::from_u128(u128::from(local_id)),
        p_code: kind.wire(),
        motion: twinspan_lludp::content::Motion {
            position: Vector3::new(x, 20.0, 25.0),
            ..Default::default()
        },
        name_values: b"FirstName STRING RW SV Ruth\nLastName STRING RW SV Resident\0",
        ..Default::default()
    };
    let mut update = ObjectUpdate::default();
    update.object_data.push(view.to_full().unwrap());
    update
}

#[test]
fn avatars_appear_with_their_names_and_leave() {
    let mut bench = Bench::default();
    bench.give(&object(7, PCode::Avatar, 10.0));
    bench.give(&object(7, PCode::Avatar, 12.0));
    bench.give(&object(8, PCode::Primitive, 10.0));
    let [WorldEvent::AvatarAppeared(avatar)] = bench.told.as_slice() else {
        panic!("{:?}", bench.told)
    };
    assert_eq!((avatar.name.as_str(), avatar.local_id), ("Ruth Resident", Some(7)));
    assert_eq!(bench.world.avatars(region())[0].position.x, 12.0);
    assert_eq!((bench.world.len(), bench.world.objects(region()).count()), (2, 2));
    let kill = KillObject { object_data: vec![KillObjectObjectData { id: 7 }] };
    bench.give(&kill);
    bench.give(&kill);
    assert_eq!(bench.told.last(), Some(&WorldEvent::AvatarLeft { id: Uuid::from_u128(7) }));
    assert_eq!((bench.told.len(), bench.world.len()), (2, 1));
    bench.world.on_region_gone(region());
    assert!(bench.world.is_empty());
}

#[test]
fn the_map_shows_who_is_too_far_to_see() {
    let mut bench = Bench::default();
    bench.give(&object(7, PCode::Avatar, 10.0));
    let map = |ids: &[u128]| {
        let mut map = CoarseLocationUpdate::default();
        for id in ids {
            map.location.push(CoarseLocationUpdateLocation { x: 9, y: 8, z: 5 });
            let agent_id = Uuid::from_u128(*id);
            map.agent_data.push(CoarseLocationUpdateAgentData { agent_id });
        }
        map
    };
    bench.give(&map(&[7, 99]));
    assert_eq!(bench.told.len(), 2, "one was seen before");
    assert_eq!(bench.world.avatars(region()).len(), 2);
    bench.give(&map(&[7]));
    assert_eq!(bench.told.last(), Some(&WorldEvent::AvatarLeft { id: Uuid::from_u128(99) }));
}

#[test]
fn objects_that_a_cache_might_have_are_asked_for_once_they_are_missing() {
    let mut bench = Bench::default();
    bench.give(&object(1, PCode::Primitive, 10.0));
    let cached = |id| ObjectUpdateCachedObjectData { id, crc: 0, update_flags: 0 };
    let mut update = ObjectUpdateCached::default();
    update.object_data.extend([cached(1), cached(2), cached(3)]);
    bench.give(&update);
    let [(_, AnyMessage::RequestMultipleObjects(ask))] = bench.out.as_slice() else {
        panic!("{:?}", bench.out)
    };
    let ids: Vec<u32> = ask.object_data.iter().map(|block| block.id).collect();
    assert_eq!(ids, [2, 3]);
}

#[test]
fn what_is_said_is_told() {
    let mut bench = Bench::default();
    let mut chat = ChatFromSimulator::default();
    chat.chat_data.message = twinspan_lludp::Var2::text("hello").unwrap();
    chat.chat_data.source_type = 1;
    bench.give(&chat);
    let [WorldEvent::Chat(chat)] = bench.told.as_slice() else { panic!("{:?}", bench.told) };
    assert_eq!((chat.text.as_str(), chat.source), ("hello", ChatSource::Agent));
}

proptest::proptest! {
    #[test]
    fn any_bodies_are_taken_without_a_panic(
        body in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
    ) {
        let mut world = Surroundings::default();
        let mut out = Vec::new();
        for id in [
            ObjectUpdate::ID, ObjectUpdateCached::ID, KillObject::ID, CoarseLocationUpdate::ID,
            ChatFromSimulator::ID, ImprovedInstantMessage::ID, AlertMessage::ID,
        ] {
            let ids = (Uuid::nil(), Uuid::nil());
            let mut told = Told { tell: &mut |_| {}, out: &mut out, ids };
            world.handle_message(Timestamp::START, region(), id, &body, &mut told);
        }
        assert!(world.len() <= 255);
    }
}
