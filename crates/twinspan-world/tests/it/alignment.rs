//! Every decoder reads the same at every alignment of its bytes.

use core::fmt::Debug;

use twinspan_core::bytes::Writer;
use twinspan_world::event::{ActionOutcome, ClientEvent, EVENT_BYTES_MAX, ServerEvent};
use twinspan_world::{
    CellEncodings, EntityId, INPUT_BUNDLE_BYTES_MAX, INPUT_BYTES, Input, InputBundle,
    InterestConfig, Kind, Replica, World, WorldConfig,
};

use crate::feed::Feed;

fn reads_alike<T: Debug>(bytes: &[u8], decode: impl Fn(&[u8]) -> T) {
    let expected = format!("{:?}", decode(bytes));
    assert!(expected.starts_with("Ok("), "{expected}");
    for shift in 0..16 {
        let room = [&vec![0x5a; shift], bytes].concat();
        assert_eq!(format!("{:?}", decode(&room[shift..])), expected, "shifted by {shift}");
    }
}

#[test]
fn decoders_read_the_same_at_sixteen_alignments() {
    let input = Input { sequence: 9, ..Input::toward(0.5, -1.0, 77.0, -3.0) };
    let mut bytes = [0; INPUT_BYTES];
    input.encode(&mut Writer::new(&mut bytes)).unwrap();
    reads_alike(&bytes, Input::decode);

    let inputs = (1..=8).map(|sequence| Input { sequence, ..input });
    let mut bytes = [0; INPUT_BUNDLE_BYTES_MAX];
    InputBundle::new(77, inputs).unwrap().encode(&mut Writer::new(&mut bytes)).unwrap();
    reads_alike(&bytes, InputBundle::decode);

    let target = EntityId::from_bits(0x5001).unwrap();
    let mut bytes = [0; EVENT_BYTES_MAX];
    let len = ClientEvent::ApplyEffect { action: 3, target }.encode(&mut bytes).unwrap();
    reads_alike(&bytes[..len], ClientEvent::decode);
    let outcome = ActionOutcome::Applied { until_tick: 8 };
    let len = ServerEvent::ActionResult { action: 3, outcome }.encode(&mut bytes).unwrap();
    reads_alike(&bytes[..len], ServerEvent::decode);
    let welcome = ServerEvent::Welcome {
        own: target,
        tick: 1,
        tick_hz: 60,
        state_hz: 20,
        side: 512.0,
        cell: 32.0,
    };
    let len = welcome.encode(&mut bytes).unwrap();
    reads_alike(&bytes[..len], ServerEvent::decode);

    let config = WorldConfig::default();
    let mut world = World::new(config, twinspan_core::random::Stream::new(1, "w", 0)).unwrap();
    let player = world.spawn_anywhere(Kind::Player).unwrap();
    (0..200).for_each(|_| assert!(world.spawn_anywhere(Kind::Projectile).is_ok()));
    let mut encodings = CellEncodings::new(&world);
    let mut feed = Feed::new(player, InterestConfig::default());
    let mut replica = Replica::new();
    for _ in 0..100 {
        world.step();
        encodings.update(&world);
        for (bytes, tag) in feed.packets(&world, &mut encodings) {
            let known = &replica;
            reads_alike(&bytes, |bytes| {
                let mut replica = known.clone();
                let applied = replica.apply(bytes);
                applied.map(|applied| (applied, replica.entities().collect::<Vec<_>>()))
            });
            replica.apply(&bytes).unwrap();
            feed.baselines.on_acked(tag);
        }
    }
}
