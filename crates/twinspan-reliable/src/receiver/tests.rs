use proptest::prelude::*;

use super::*;
use crate::{CREDIT_BYTES, Knobs};

const START: Timestamp = Timestamp::START;
const ORDERED: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const UNORDERED: Channel = Channel::new(Delivery::Unordered, StreamId::EVENTS);
const SEQUENCED: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);
const UNRELIABLE: Channel = Channel::new(Delivery::Unreliable, StreamId::STATE);
const CONTROL: Channel = Channel::new(Delivery::Ordered, StreamId::CONTROL);

fn receiver(config: &Config) -> Receiver {
    assert_eq!(config.check(), Ok(()));
    Receiver::new(config)
}

fn at_ms(ms: u64) -> Timestamp {
    START.after(Duration::from_millis(ms))
}

/// A window of 150,000 bytes, and messages short enough for it.
fn small() -> Config {
    Config { credit_bytes: 150_000, message_bytes_max: 32_768, ..Config::default() }
}

/// Hands a whole message over; returns what was delivered, as text.
fn whole(receiver: &mut Receiver, channel: Channel, number: u16, body: &str) -> Vec<String> {
    frame(receiver, START, channel, number, None, body.as_bytes()).unwrap()
}

fn piece(
    receiver: &mut Receiver,
    channel: Channel,
    number: u16,
    (index, last): (u8, u8),
    body: &str,
) -> Result<Vec<String>, FrameError> {
    let fragment = Some(Fragment { index, last });
    frame(receiver, START, channel, number, fragment, body.as_bytes())
}

fn frame(
    receiver: &mut Receiver,
    now: Timestamp,
    channel: Channel,
    number: u16,
    fragment: Option<Fragment>,
    body: &[u8],
) -> Result<Vec<String>, FrameError> {
    let mut got = Vec::new();
    let frame = InFrame { channel, number, fragment, body };
    receiver.handle_frame(now, frame, &mut |from, bytes| {
        assert_eq!(from, channel);
        got.push(String::from_utf8_lossy(bytes).into_owned());
    })?;
    Ok(got)
}

const NOTHING: [&str; 0] = [];

#[test]
fn ordered_messages_wait_for_their_turn() {
    let mut receiver = receiver(&Config::default());
    assert_eq!(whole(&mut receiver, ORDERED, 2, "c"), NOTHING);
    assert_eq!(whole(&mut receiver, ORDERED, 1, "b"), NOTHING);
    assert_eq!(receiver.held_bytes(), 2 * 129);
    assert_eq!(whole(&mut receiver, ORDERED, 0, "a"), ["a", "b", "c"]);
    assert_eq!(receiver.held_bytes(), 0);
    assert_eq!(whole(&mut receiver, ORDERED, 3, "d"), ["d"]);
    assert_eq!(receiver.stats().held, 2);
}

#[test]
fn unordered_messages_come_at_once_and_once() {
    let mut receiver = receiver(&Config::default());
    assert_eq!(whole(&mut receiver, UNORDERED, 2, "c"), ["c"]);
    assert_eq!(whole(&mut receiver, UNORDERED, 0, "a"), ["a"]);
    assert_eq!(whole(&mut receiver, UNORDERED, 2, "c"), NOTHING);
    assert_eq!(whole(&mut receiver, UNORDERED, 0, "a"), NOTHING);
    assert_eq!(whole(&mut receiver, UNORDERED, 1, "b"), ["b"]);
    assert_eq!(receiver.stats().duplicates, 2);
}

#[test]
fn channels_number_their_messages_apart() {
    let mut receiver = receiver(&Config::default());
    let other = Channel::new(Delivery::Ordered, StreamId::BULK);
    for channel in [ORDERED, UNORDERED, SEQUENCED, CONTROL, other] {
        assert_eq!(whole(&mut receiver, channel, 0, "first"), ["first"]);
    }
}

#[test]
fn sequenced_messages_come_only_when_newer() {
    let mut receiver = receiver(&Config::default());
    assert_eq!(whole(&mut receiver, SEQUENCED, 5, "five"), ["five"]);
    assert_eq!(whole(&mut receiver, SEQUENCED, 4, "four"), NOTHING);
    assert_eq!(whole(&mut receiver, SEQUENCED, 5, "five"), NOTHING);
    assert_eq!(whole(&mut receiver, SEQUENCED, 9, "nine"), ["nine"]);
    assert_eq!(receiver.stats().stale, 2);
}

#[test]
fn unreliable_messages_come_as_they_come() {
    let mut receiver = receiver(&Config::default());
    assert_eq!(whole(&mut receiver, UNRELIABLE, 0, "x"), ["x"]);
    assert_eq!(whole(&mut receiver, UNRELIABLE, 0, "x"), ["x"]);
}

#[test]
fn pieces_in_any_order_make_the_message() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        for channel in [ORDERED, UNORDERED, SEQUENCED] {
            let mut receiver = receiver(&Config::default());
            let mut got = Vec::new();
            for index in order {
                let body = ["ab", "cd", "e"][usize::from(index)];
                got.extend(piece(&mut receiver, channel, 0, (index, 2), body).unwrap());
                got.extend(piece(&mut receiver, channel, 0, (index, 2), body).unwrap());
            }
            assert_eq!(got, ["abcde"]);
            assert_eq!((receiver.held_bytes(), receiver.partial_charged), (0, 0));
        }
    }
}

#[test]
fn a_cut_ordered_message_holds_back_the_next() {
    let mut receiver = receiver(&Config::default());
    assert_eq!(piece(&mut receiver, ORDERED, 0, (1, 1), "b").unwrap(), NOTHING);
    assert_eq!(whole(&mut receiver, ORDERED, 1, "c"), NOTHING);
    assert_eq!(piece(&mut receiver, ORDERED, 0, (0, 1), "a").unwrap(), ["ab", "c"]);
}

#[test]
fn a_piece_of_a_delivered_message_is_a_duplicate() {
    let mut receiver = receiver(&Config::default());
    piece(&mut receiver, ORDERED, 0, (0, 1), "a").unwrap();
    piece(&mut receiver, ORDERED, 0, (1, 1), "b").unwrap();
    assert_eq!(piece(&mut receiver, ORDERED, 0, (1, 1), "b").unwrap(), NOTHING);
    assert_eq!(receiver.stats().duplicates, 1);
}

#[test]
fn impossible_pieces_are_named() {
    let mut receiver = receiver(&Config::default());
    for (channel, fragment) in [
        (ORDERED, (3, 2)),
        (ORDERED, (0, 64)),
        (SEQUENCED, (255, 255)),
        (UNRELIABLE, (0, 1)),
        (CONTROL, (0, 1)),
    ] {
        let (index, last) = fragment;
        assert_eq!(
            piece(&mut receiver, channel, 0, fragment, "x"),
            Err(FrameError::BadFragment { channel, index, last })
        );
    }
    for channel in [ORDERED, SEQUENCED] {
        piece(&mut receiver, channel, 0, (0, 2), "x").unwrap();
        let contradiction = piece(&mut receiver, channel, 0, (1, 3), "x");
        assert_eq!(contradiction, Err(FrameError::BadFragment { channel, index: 1, last: 3 }));
    }
    assert_eq!(receiver.stats().violations, 7);
}

#[test]
fn too_long_messages_are_named() {
    let limits = Config { message_bytes_max: 3_000, ..Config::default() };
    let mut receiver = receiver(&limits);
    let body = "x".repeat(1_001);
    for channel in [ORDERED, SEQUENCED] {
        piece(&mut receiver, channel, 0, (0, 2), &body).unwrap();
        piece(&mut receiver, channel, 0, (1, 2), &body).unwrap();
        assert_eq!(
            piece(&mut receiver, channel, 0, (2, 2), &body),
            Err(FrameError::TooLong { channel, len: 3_003, max: 3_000 })
        );
    }
    let control = frame(&mut receiver, START, CONTROL, 0, None, &[0; 513]);
    assert_eq!(control, Err(FrameError::TooLong { channel: CONTROL, len: 513, max: 512 }));
}

#[test]
fn numbers_widen_near_the_oldest_unfinished_one() {
    // As far back as 64,512, as far ahead as the window and no further.
    for (wire, oldest, number) in [
        (0, 0, 0),
        (1_023, 0, 1_023),
        (0, 65_536, 65_536),
        (0xffff, 65_536, 65_535),
        (5, 65_530, 65_541),
        (0, 64_000, 0),
        (100, 65_000, 65_636),
        (1_000, 65_000, 1_000),
        (1_024, 65_536, 66_560 - 65_536),
        (1_023, 65_536, 66_559),
    ] {
        assert_eq!(widen_reliable(wire, oldest), number, "{wire} near {oldest}");
    }
}

#[test]
fn numbers_go_on_past_16_bits() {
    let mut receiver = receiver(&Config::default());
    for number in 0..200_000_u64 {
        let [first, second] = [number, number + 1].map(|number| number as u16);
        if number % 2 == 0 {
            assert_eq!(whole(&mut receiver, ORDERED, second, "b"), NOTHING);
            assert_eq!(whole(&mut receiver, ORDERED, first, "a"), ["a", "b"]);
        }
        receiver.poll_credit();
    }
    assert_eq!(receiver.stats().reliable_delivered, 200_000);
}

#[test]
fn a_message_past_the_window_is_named() {
    let mut receiver = receiver(&Config::default());
    whole(&mut receiver, ORDERED, 1_023, "x");
    let ahead = frame(&mut receiver, START, ORDERED, 1_024, None, b"x");
    assert_eq!(ahead, Err(FrameError::TooFarAhead { channel: ORDERED, number: 1_024, oldest: 0 }));
    whole(&mut receiver, CONTROL, 63, "x");
    assert!(frame(&mut receiver, START, CONTROL, 64, None, b"x").is_err());
}

#[test]
fn more_than_the_credit_is_named() {
    let mut receiver = receiver(&small());
    // 132 frames of 1,000 + 128 bytes are 148,896.
    for number in 1..=132 {
        frame(&mut receiver, START, ORDERED, number, None, &[0; 1_000]).unwrap();
    }
    assert_eq!(
        frame(&mut receiver, START, ORDERED, 133, None, &[0; 977]),
        Err(FrameError::CreditExceeded { charged: 150_001, credit: 150_000 })
    );
    // What arrives again costs nothing, and control is outside credit.
    frame(&mut receiver, START, ORDERED, 1, None, &[0; 1_000]).unwrap();
    frame(&mut receiver, START, CONTROL, 0, None, &[0; 500]).unwrap();
    assert_eq!(receiver.poll_credit(), None);
    frame(&mut receiver, START, ORDERED, 0, None, &[0; 976]).unwrap();
    assert_eq!(receiver.held_bytes(), 0);
    assert_eq!(receiver.poll_credit(), Some(300_000));
    assert_eq!(receiver.poll_credit(), None);
}

#[test]
fn an_incomplete_sequenced_message_expires() {
    let mut receiver = receiver(&Config::default());
    let first = Some(Fragment { index: 0, last: 1 });
    frame(&mut receiver, at_ms(100), SEQUENCED, 0, first, b"a").unwrap();
    assert_eq!(receiver.poll_timeout(), Some(at_ms(2_100)));
    receiver.handle_timeout(at_ms(2_099));
    assert_eq!(receiver.stats().partial_expired, 0);
    receiver.handle_timeout(at_ms(2_100));
    assert_eq!((receiver.stats().partial_expired, receiver.poll_timeout()), (1, None));
    assert_eq!(receiver.partial_charged, 0);
}

#[test]
fn incomplete_sequenced_messages_are_few() {
    let mut receiver = receiver(&Config::default());
    for number in 0..5 {
        piece(&mut receiver, SEQUENCED, number, (0, 1), "a").unwrap();
    }
    assert_eq!((receiver.partials.len(), receiver.stats().partial_evicted), (4, 1));
    assert_eq!(piece(&mut receiver, SEQUENCED, 4, (1, 1), "b").unwrap(), ["ab"]);
    assert_eq!((receiver.partials.len(), receiver.partial_charged), (0, 0));
}

#[test]
fn incomplete_sequenced_messages_are_small() {
    let mut receiver = receiver(&Config { partial_bytes_max: 4_000, ..Config::default() });
    for number in 0..3 {
        frame(
            &mut receiver,
            START,
            SEQUENCED,
            number,
            Some(Fragment { index: 0, last: 1 }),
            &[0; 1_500],
        )
        .unwrap();
    }
    assert_eq!((receiver.partials.len(), receiver.partial_charged), (2, 2 * 1_628));
}

#[test]
fn without_suppression_duplicates_are_delivered() {
    let knobs = Knobs { suppress_duplicates: false, ..Knobs::default() };
    let mut receiver = receiver(&Config { knobs, ..Config::default() });
    for channel in [ORDERED, UNORDERED, SEQUENCED] {
        assert_eq!(whole(&mut receiver, channel, 0, "a"), ["a"]);
        assert_eq!(whole(&mut receiver, channel, 0, "a"), ["a"]);
    }
}

/// Slabs double, and small buffers have a least size; hence the factor.
const HEAP_BYTES_MAX: usize = 3 * (150_000 + 131_072 + 2 * 64 * 512 + 65_536) + 100_000;

proptest! {
    #[test]
    fn no_frames_panic_or_grow(
        frames in prop::collection::vec(
            (any::<u8>(), any::<u16>(), any::<Option<(u8, u8)>>(), 0_usize..1_500), 1..300,
        ),
        wild: bool,
    ) {
        let mut receiver = receiver(&small());
        let mut now = START;
        for (channel, number, fragment, len) in frames {
            let tame = |value: u16, below: u16| if wild { value } else { value % below };
            let number = tame(number, 40);
            let fragment = fragment.map(|(index, last)| {
                let last = tame(u16::from(last), 6) as u8;
                Fragment { index: tame(u16::from(index), u16::from(last) + 1) as u8, last }
            });
            let channel = Channel::from_byte(if wild { channel } else { channel & 0xc3 });
            let frame = InFrame { channel, number, fragment, body: &vec![0; len] };
            let _refusal = receiver.handle_frame(now, frame, &mut |_, _| {});
            now = now.after(Duration::from_millis(u64::from(number % 64)));
            receiver.handle_timeout(now);
            receiver.poll_credit();
            prop_assert!(receiver.held_bytes() <= 150_000);
            prop_assert!(receiver.partial_charged <= 131_072);
            prop_assert!(receiver.heap_bytes() <= HEAP_BYTES_MAX, "{}", receiver.heap_bytes());
        }
    }
}

#[test]
fn the_worst_peer_fills_its_credit_and_no_more() {
    let mut receiver = receiver(&small());
    let mut refused = 0;
    for stream in 0..64_u8 {
        for class in [1, 2, 3] {
            for number in (1..1_024).rev() {
                let channel = Channel::from_byte(class << 6 | stream);
                let fragment = (class != 3).then_some(Fragment { index: 1, last: 63 });
                let frame = InFrame { channel, number, fragment, body: &[1] };
                refused += u64::from(receiver.handle_frame(START, frame, &mut |_, _| {}).is_err());
            }
        }
    }
    assert!(refused > 100_000);
    assert_eq!(receiver.held_bytes(), 150_000 / 129 * 129);
    assert!(receiver.heap_bytes() <= HEAP_BYTES_MAX, "{}", receiver.heap_bytes());
}

/// Each channel's list of held messages grows to its longest, one channel after the other, and
/// shrinks to one.
#[test]
fn room_for_what_was_held_once_is_given_back() {
    let mut receiver = receiver(&Config::default());
    for stream in 1..64_u8 {
        let channel = Channel::from_byte(Delivery::Ordered.bits() << 6 | stream);
        for number in (0..1_024).rev().filter(|number| *number != 1_022) {
            let frame = InFrame { channel, number, fragment: None, body: &[1] };
            receiver.handle_frame(START, frame, &mut |_, _| {}).unwrap();
        }
        let _told = receiver.poll_credit();
        assert_eq!(receiver.held_bytes(), 129 * u64::from(stream));
    }
    // What is left: slots for as many pieces as credit allows, and some idle buffers.
    assert!(receiver.heap_bytes() <= 400_000, "{}", receiver.heap_bytes());
}

/// Two long messages, of which each is held for the sake of a few frames, leave so much of the
/// window that the rest of one of them may come: a sender without credit has nothing else to do.
#[test]
fn two_messages_half_way_do_not_use_up_all_credit() {
    let mut receiver = receiver(&Config::default());
    let (mut used, mut credit) = (0, CREDIT_BYTES);
    let mut take = |receiver: &mut Receiver, frame: InFrame<'_>| {
        let cost = FRAME_CHARGE_BYTES + frame.body.len() as u64;
        if used + cost > credit {
            return false;
        }
        used += cost;
        receiver.handle_frame(START, frame, &mut |_, _| {}).unwrap();
        credit = receiver.poll_credit().unwrap_or(credit);
        true
    };
    // Just short of the next word about credit, whatever share of the window calls for it.
    for number in 0..1_000 {
        let frame = InFrame { channel: ORDERED, number, fragment: None, body: &[0; 3] };
        assert!(take(&mut receiver, frame));
    }
    let channels = [2, 4].map(|stream| Channel::from_byte(Delivery::Ordered.bits() << 6 | stream));
    for channel in channels {
        for index in 0..59 {
            let fragment = Some(Fragment { index, last: 59 });
            let frame = InFrame { channel, number: 0, fragment, body: &[0; 1_100] };
            assert!(take(&mut receiver, frame), "{channel:?} stops at piece {index}");
        }
    }
}
