//! The bytes of messages: golden ones, any ones, hostile ones.

use proptest::prelude::*;
use twinspan_messages::planus::Builder;
use twinspan_messages::{Limits, Message, VerifyError, verify};

use crate::generated::town::{Chat, Content, Item, Mood, Parcel, Side, Spot, Trade};

fn write<T: Message>(message: &T) -> Vec<u8> {
    message.write(&mut Builder::new()).to_vec()
}

fn checked<T: Message>(bytes: &[u8]) -> Result<(), VerifyError> {
    verify(T::SCHEMA, &Limits::default(), bytes)
}

/// Every field of every kind.
pub(crate) fn full_trade() -> Trade {
    Trade {
        partner: 77,
        give: Some(vec![Item { kind: 1, count: 2, weight: 0.5 }, Item::default()]),
        want: Some(vec![]),
        note: Some("fünf Äpfel".into()),
        tags: Some(vec!["fresh".into(), String::new()]),
        spots: Some(vec![Spot { x: 1.0, z: -2.0, side: Side::West }]),
        raw: Some(vec![0, 255]),
        moods: Some(vec![Mood::Angry, Mood::Calm]),
        signed: true,
    }
}

fn spot() -> Spot {
    Spot { x: 3.5, z: 4.0, side: Side::Middle }
}

fn full_parcel() -> Parcel {
    let inner =
        Parcel { content: Some(Content::Trade(Box::new(full_trade()))), ..Parcel::default() };
    let chat = Chat { text: "hi".into(), mood: Mood::Cheerful, at: Some(spot()) };
    Parcel {
        content: Some(Content::Chat(Box::new(chat))),
        also: Some(Box::new(inner.clone())),
        within: Some(vec![inner, Parcel::default()]),
    }
}

/// What was verified is read to its end without an error: a verified message hides nothing.
fn read_whole(bytes: &[u8]) {
    macro_rules! read {
        ($($name:ty),*) => {$(
            if checked::<$name>(bytes).is_ok() {
                let read = <$name as Message>::read(bytes).expect("it was verified");
                let whole = <$name>::try_from(read);
                assert!(whole.is_ok(), "verified, and yet: {whole:?} in {bytes:02x?}");
            }
        )*};
    }
    read!(Chat, Item, Trade, Parcel);
}

#[test]
fn a_message_has_its_golden_bytes() {
    //= messages 2
    let golden = [
        4, 0, 0, 0, // The root, 4 on.
        0xf6, 0xff, 0xff, 0xff, // Its list of fields, 10 on.
        12, 0, 0, 0, // The text, 12 on.
        0, 0, // Padding.
        6, 0, 8, 0, 4, 0, // A list of 6 bytes, a table of 8, the text's offset 4 into it.
        2, 0, 0, 0, b'h', b'i', 0,
    ];
    let chat = Chat { text: "hi".into(), ..Chat::default() };
    assert_eq!(write(&chat), golden);
    assert_eq!(checked::<Chat>(&golden), Ok(()));
    assert_eq!(Chat::try_from(Chat::read(&golden).unwrap()).unwrap(), chat);
}

#[test]
fn another_writers_layout_is_read_too() {
    let golden = [
        12, 0, 0, 0, // The root, behind its list of fields.
        0, 0, // Padding.
        6, 0, 8, 0, 4, 0, // A list of 6 bytes, a table of 8, the text's offset 4 into it.
        6, 0, 0, 0, // The list is 6 bytes back.
        4, 0, 0, 0, // The text, 4 on.
        2, 0, 0, 0, b'h', b'i', 0, 0,
    ];
    assert_eq!(checked::<Chat>(&golden), Ok(()));
    let read = Chat::read(&golden).unwrap();
    assert_eq!((read.text().unwrap(), read.mood().unwrap()), ("hi", Mood::Calm));
}

#[test]
fn what_is_written_is_verified_and_read() {
    let (trade, parcel) = (full_trade(), full_parcel());
    let bytes = write(&trade);
    assert_eq!(checked::<Trade>(&bytes), Ok(()));
    assert_eq!(Trade::try_from(Trade::read(&bytes).unwrap()).unwrap(), trade);
    let bytes = write(&parcel);
    assert_eq!(checked::<Parcel>(&bytes), Ok(()));
    assert_eq!(Parcel::try_from(Parcel::read(&bytes).unwrap()).unwrap(), parcel);
}

#[test]
fn a_truncated_message_is_refused_at_every_length_and_panics_at_none() {
    let bytes = write(&full_parcel());
    for len in 0..bytes.len() {
        read_whole(&bytes[..len]);
    }
    assert_eq!(checked::<Parcel>(&[]), Err(VerifyError::Outside { table: "town.Parcel" }));
}

#[test]
fn a_message_reads_the_same_at_every_alignment() {
    let parcel = full_parcel();
    let bytes = write(&parcel);
    let mut space = vec![0; bytes.len() + 32];
    let aligned = space.as_ptr().align_offset(16);
    for shift in 0..16 {
        let at = aligned + shift;
        let place = &mut space[at..at + bytes.len()];
        place.copy_from_slice(&bytes);
        assert_eq!(place.as_ptr() as usize % 16, shift);
        assert_eq!(checked::<Parcel>(place), Ok(()));
        assert_eq!(Parcel::try_from(Parcel::read(place).unwrap()).unwrap(), parcel);
    }
}

/// Where two messages of one length differ.
fn difference(left: &[u8], right: &[u8]) -> usize {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).position(|(left, right)| left != right).unwrap()
}

#[test]
fn values_that_the_schema_does_not_name_are_refused() {
    let with = |mood| write(&Chat { text: "hi".into(), mood, at: Some(spot()) });
    let mut bytes = with(Mood::Angry);
    let at = difference(&bytes, &with(Mood::Cheerful));
    bytes[at] = 3;
    let wrong = VerifyError::Value { table: "town.Chat", field: "mood", value: 3 };
    assert_eq!(checked::<Chat>(&bytes), Err(wrong));
    let with = |side| {
        let at = Some(Spot { side, ..spot() });
        write(&Chat { text: "hi".into(), mood: Mood::Calm, at })
    };
    let mut bytes = with(Side::West);
    let at = difference(&bytes, &with(Side::East));
    bytes[at] = 7;
    let wrong = VerifyError::Value { table: "town.Chat", field: "at", value: 0xff07 };
    assert_eq!(checked::<Chat>(&bytes), Err(wrong));
}

#[test]
fn numbers_that_are_not_finite_are_refused_unless_allowed() {
    for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let spot = Spot { x: 0.0, z: x, side: Side::East };
        let bytes = write(&Chat { text: String::new(), mood: Mood::Calm, at: Some(spot) });
        let wrong = VerifyError::NotFinite { table: "town.Chat", field: "at" };
        assert_eq!(checked::<Chat>(&bytes), Err(wrong));
        let any = Limits { finite_floats: false, ..Limits::default() };
        assert_eq!(verify(Chat::SCHEMA, &any, &bytes), Ok(()));
    }
    let bytes = write(&Item { kind: 0, count: 1, weight: f64::NAN });
    let wrong = VerifyError::NotFinite { table: "town.Item", field: "weight" };
    assert_eq!(checked::<Item>(&bytes), Err(wrong));
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let mut bytes = write(&Chat { text: "hi".into(), ..Chat::default() });
    let at = bytes.iter().position(|byte| *byte == b'h').unwrap();
    bytes[at] = 0xff;
    let wrong = VerifyError::Text { table: "town.Chat", field: "text" };
    assert_eq!(checked::<Chat>(&bytes), Err(wrong));
}

#[test]
fn a_required_field_that_is_missing_is_named() {
    let bytes = write(&Item::default());
    let wrong = VerifyError::Missing { table: "town.Chat", field: "text" };
    assert_eq!(checked::<Chat>(&bytes), Err(wrong));
}

#[test]
fn depth_tables_and_length_are_limited() {
    let mut deep = Parcel::default();
    for _ in 0..15 {
        deep = Parcel { also: Some(Box::new(deep)), ..Parcel::default() };
    }
    assert_eq!(checked::<Parcel>(&write(&deep)), Ok(()));
    let deeper = Parcel { also: Some(Box::new(deep)), ..Parcel::default() };
    let wrong = VerifyError::TooDeep { table: "town.Parcel", limit: 16 };
    assert_eq!(checked::<Parcel>(&write(&deeper)), Err(wrong));

    let wide = Parcel { within: Some(vec![Parcel::default(); 1_024]), ..Parcel::default() };
    let wrong = VerifyError::TooManyTables { limit: 1_024 };
    assert_eq!(checked::<Parcel>(&write(&wide)), Err(wrong));

    let long = Chat { text: "x".repeat(17_000), ..Chat::default() };
    let bytes = write(&long);
    let wrong = VerifyError::TooLong { bytes: bytes.len(), limit: 16_384 };
    assert_eq!(checked::<Chat>(&bytes), Err(wrong));
}

/// A table whose `within` names the same table below many times, level by level: a few hundred
/// bytes that unfold to 30 to the power of the depth.
fn unfolding(levels: u32) -> Vec<u8> {
    const WIDTH: u32 = 30;
    // vtable: size 12, table of 8, content tag and value none, also none, within at 4.
    let mut bytes = vec![16, 0, 0, 0, 12, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    for level in 0..levels {
        let table = bytes.len() as u32;
        bytes.extend((table - 4).to_le_bytes());
        bytes.extend(4_u32.to_le_bytes());
        let count = if level + 1 < levels { WIDTH } else { 0 };
        bytes.extend(count.to_le_bytes());
        let next = table + 12 + 4 * count;
        for n in 0..count {
            bytes.extend((next - (table + 12 + 4 * n)).to_le_bytes());
        }
    }
    bytes
}

#[test]
fn a_message_that_unfolds_without_end_is_refused_at_the_limit() {
    assert_eq!(checked::<Parcel>(&unfolding(2)), Ok(()));
    let bomb = unfolding(12);
    assert!(bomb.len() < 2_000);
    let wrong = VerifyError::TooManyTables { limit: 1_024 };
    assert_eq!(checked::<Parcel>(&bomb), Err(wrong));
}

#[test]
fn one_long_text_named_many_times_is_refused_at_the_limit() {
    let tags = |count| Trade { tags: Some(vec!["x".repeat(4_000); count]), ..Trade::default() };
    let mut bytes = write(&tags(2));
    let from = bytes.windows(4).position(|four| four == [2, 0, 0, 0]).unwrap() + 4;
    // Both offsets lead to one text: the second offset stands 4 bytes on.
    let first = u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
    bytes[from + 4..from + 8].copy_from_slice(&(first - 4).to_le_bytes());
    assert_eq!(checked::<Trade>(&bytes), Ok(()));
    let limit = Limits { unfolded_bytes_max: 6_000, ..Limits::default() };
    let wrong = VerifyError::TooLarge { limit: 6_000 };
    assert_eq!(verify(Trade::SCHEMA, &limit, &bytes), Err(wrong));
    assert_eq!(verify(Trade::SCHEMA, &limit, &write(&tags(1))), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_verified_or_name_a_reason(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        read_whole(&bytes);
    }

    #[test]
    fn a_changed_message_is_refused_or_read_whole(
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for mut bytes in [write(&full_parcel()), write(&full_trade())] {
            for (at, byte) in &hits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            read_whole(&bytes);
        }
    }
}
