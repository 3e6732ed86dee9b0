//! Messages that borrow from their packet say what owned ones say, whatever the body.

use proptest::prelude::*;
use twinspan_core::random::Stream;
use twinspan_lludp::messages::{
    ImprovedTerseObjectUpdateRef, LayerDataRef, ObjectUpdateCachedRef, ObjectUpdateCompressedRef,
    ObjectUpdateRef, PacketAckRef,
};
use twinspan_lludp::{
    AgentUpdateRef, DecodeError, Message, MessageLayout, MessageRef, Quantity, Tail, Uuid,
};

use crate::random::{self, Growth};

/// Compares what a body says to a message that borrows with what it says to one that owns.
type Compare = fn(&[u8]) -> Told;

/// What a body says: the message, written again, and how it ends; or why it is none.
type Told = Result<(Vec<u8>, Ending), DecodeError>;

/// A [`Tail`] without its loan.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    Exact,
    Extra(Vec<u8>),
    Absent(u8),
}

/// Each message that has a borrowed variant.
const VARIANTS: &[(MessageLayout, Compare)] = &[
    (<AgentUpdateRef as MessageRef<'_>>::Owned::LAYOUT, |body| agree::<AgentUpdateRef>(body)),
    (<ImprovedTerseObjectUpdateRef<'_> as MessageRef<'_>>::Owned::LAYOUT, |body| {
        agree::<ImprovedTerseObjectUpdateRef<'_>>(body)
    }),
    (<LayerDataRef<'_> as MessageRef<'_>>::Owned::LAYOUT, |body| agree::<LayerDataRef<'_>>(body)),
    (<ObjectUpdateRef<'_> as MessageRef<'_>>::Owned::LAYOUT, |body| {
        agree::<ObjectUpdateRef<'_>>(body)
    }),
    (<ObjectUpdateCachedRef<'_> as MessageRef<'_>>::Owned::LAYOUT, |body| {
        agree::<ObjectUpdateCachedRef<'_>>(body)
    }),
    (<ObjectUpdateCompressedRef<'_> as MessageRef<'_>>::Owned::LAYOUT, |body| {
        agree::<ObjectUpdateCompressedRef<'_>>(body)
    }),
    (<PacketAckRef<'_> as MessageRef<'_>>::Owned::LAYOUT, |body| agree::<PacketAckRef<'_>>(body)),
];

/// Asserts that both variants read the same, and returns it. Messages are compared by their bytes,
/// for a float that is no number is not equal to itself.
fn agree<'a, M: MessageRef<'a>>(body: &'a [u8]) -> Told {
    let owned = M::Owned::decode(body).map(|(message, tail)| told(&message, tail, body));
    let borrowed = M::decode_ref(body).map(|(message, tail)| told(&message.owned(), tail, body));
    assert_eq!(borrowed, owned, "{} of {body:x?}", M::Owned::NAME);
    borrowed
}

fn told(message: &impl Message, tail: Tail<'_>, body: &[u8]) -> (Vec<u8>, Ending) {
    // Counts of blocks that were absent are written before they are taken back.
    let mut out = vec![0; body.len() + 256];
    let len = message.encode_with(tail, &mut out).unwrap();
    out.truncate(len);
    let ending = match tail {
        Tail::Exact => Ending::Exact,
        Tail::Extra(bytes) => Ending::Extra(bytes.to_vec()),
        Tail::Absent(count) => Ending::Absent(count),
    };
    (out, ending)
}

proptest! {
    #[test]
    fn random_instances_say_the_same(seed: u64) {
        let mut random = Stream::new(seed, "borrowed", 0);
        for (layout, compare) in VARIANTS {
            let body = random::body(layout, &mut random);
            prop_assert_eq!(compare(&body), Ok((body, Ending::Exact)), "{}", layout.name);
        }
    }

    #[test]
    fn bytes_behind_a_message_are_the_same(
        seed: u64,
        extra in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut random = Stream::new(seed, "borrowed", 1);
        for (layout, compare) in VARIANTS {
            let body = [random::body(layout, &mut random), extra.clone()].concat();
            let wanted = Ok((body.clone(), Ending::Extra(extra.clone())));
            prop_assert_eq!(compare(&body), wanted, "{}", layout.name);
        }
    }

    #[test]
    fn variable_blocks_that_are_missing_are_missing_for_both(seed: u64) {
        let mut random = Stream::new(seed, "borrowed", 2);
        let mut absent = 0;
        for (layout, compare) in VARIANTS {
            let Some(last) = layout.blocks.last() else { continue };
            if last.quantity != Quantity::Variable {
                continue;
            }
            // Without items the block is a count of 0 alone, and that is cut off.
            let mut shorter = layout.clone();
            shorter.blocks.to_mut().pop();
            let body = random::body(&shorter, &mut random);
            prop_assert_eq!(compare(&body), Ok((body, Ending::Absent(1))), "{}", layout.name);
            absent += 1;
        }
        prop_assert_eq!(absent, 5);
    }

    #[test]
    fn a_body_cut_anywhere_is_cut_for_both(seed: u64, share in 0.0..1.0) {
        let mut random = Stream::new(seed, "borrowed", 3);
        for (layout, compare) in VARIANTS {
            let body = random::body(layout, &mut random);
            let cut = (body.len() as f64 * share) as usize;
            if let Ok((again, ending)) = compare(&body[..cut]) {
                prop_assert_eq!(&again[..], &body[..cut], "{}", layout.name);
                prop_assert_eq!(ending, Ending::Absent(1), "{}", layout.name);
            }
        }
    }

    #[test]
    fn any_bytes_say_the_same(
        body in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..400),
    ) {
        for (_, compare) in VARIANTS {
            let _: Told = compare(&body);
        }
    }
}

#[test]
fn the_longest_bodies_say_the_same() {
    let mut random = Stream::new(5, "borrowed", 0);
    let (mut blocks, mut bytes) = (0, 0);
    for (layout, compare) in VARIANTS {
        for growth in random::growths(layout) {
            let (body, grown) = random::long_body(layout, growth, 200_000, &mut random);
            match growth {
                Growth::Blocks(_) => blocks = grown.max(blocks),
                Growth::Field(..) => bytes = grown.max(bytes),
            }
            assert_eq!(compare(&body), Ok((body, Ending::Exact)), "{}: {growth:?}", layout.name);
        }
    }
    assert_eq!((blocks, bytes), (255, 65_535));
}

#[test]
fn blocks_are_read_one_after_the_other_without_a_copy() {
    let mut random = Stream::new(6, "borrowed", 0);
    for _ in 0..50 {
        let layout = &<ObjectUpdateRef<'_> as MessageRef<'_>>::Owned::LAYOUT;
        let body = random::body(layout, &mut random);
        let (borrowed, _) = ObjectUpdateRef::decode_ref(&body).unwrap();
        let owned = borrowed.owned();
        assert_eq!(borrowed.object_data.len(), owned.object_data.len());
        assert_eq!(borrowed.object_data.is_empty(), owned.object_data.is_empty());
        for (ours, theirs) in borrowed.object_data.iter().zip(&owned.object_data) {
            let entry = ours.texture_entry.bytes();
            assert_eq!(entry, theirs.texture_entry.bytes());
            let lent = body.as_ptr_range();
            assert!(lent.contains(&entry.as_ptr()) || lent.end == entry.as_ptr(), "a copy");
        }
    }
    let (acks, _) = PacketAckRef::decode_ref(&[1, 7, 0, 0, 0]).unwrap();
    assert_eq!(acks.packets.into_iter().map(|packet| packet.id).sum::<u32>(), 7);
    let (update, _) = AgentUpdateRef::decode_ref(&[7; 114]).unwrap();
    assert_eq!(update.agent_data.agent_id, Uuid::from_bytes([7; 16]));
}
