//! Tests of what comes in.

use proptest::prelude::*;

use super::super::wire::{EndReason, head};
use super::*;

const WINDOW: Window = Window { messages: 4, bytes: 1_000 };

fn inbound() -> Inbound {
    let mut inbound = Inbound::new(WINDOW);
    inbound.begin(inbound.fresh_credit());
    inbound
}

fn next(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Frame::Next(number).write(&mut out);
    out
}

fn message(body: &[u8]) -> Vec<u8> {
    [&head(Kind::Message, body.len())[..], body].concat()
}

/// Feeds bytes in pieces; the frames that were handed out.
fn feed(inbound: &mut Inbound, bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    for bytes in bytes.chunks(piece) {
        let space = inbound.space();
        space[..bytes.len()].copy_from_slice(bytes);
        inbound.filled(bytes.len());
        inbound.scan(|frame| {
            frames.push(frame);
            Ok(())
        })?;
    }
    Ok(frames)
}

fn take(inbound: &mut Inbound) -> Option<(u64, u64, Vec<u8>)> {
    let (message, body) = inbound.front()?;
    let taken = (message.number, message.lost, body.to_vec());
    inbound.pop();
    Some(taken)
}

#[test]
fn messages_stay_in_order_and_other_frames_make_room() {
    let mut bytes = next(7);
    bytes.extend(message(b"one"));
    Frame::Ping(1).write(&mut bytes);
    Frame::Ping(2).write(&mut bytes);
    bytes.extend(message(b""));
    bytes.extend(next(20));
    bytes.extend(message(b"three"));
    Frame::End(EndReason::Left).write(&mut bytes);
    for piece in [1, 3, 1_000] {
        let mut inbound = inbound();
        assert!(!inbound.has_begun());
        let frames = feed(&mut inbound, &bytes, piece).unwrap();
        assert_eq!(frames, [Frame::Ping(1), Frame::Ping(2), Frame::End(EndReason::Left)]);
        assert_eq!((inbound.wanted(), inbound.waiting()), (21, 3));
        assert_eq!(inbound.end - inbound.start, 20, "what is no message is gone");
        assert_eq!(take(&mut inbound), Some((7, 0, b"one".to_vec())));
        assert_eq!(take(&mut inbound), Some((8, 0, Vec::new())));
        assert_eq!(take(&mut inbound), Some((20, 11, b"three".to_vec())));
        assert_eq!(take(&mut inbound), None);
    }
}

#[test]
fn more_than_was_allowed_is_refused_at_its_head() {
    let mut five = next(0);
    for _ in 0..5 {
        five.extend(message(b"x"));
    }
    assert_eq!(feed(&mut inbound(), &five, 9), Err(FrameError::Credit));
    assert!(feed(&mut inbound(), &five[..five.len() - 5], 9).is_ok());
    // 4 + 996 bytes are the window; the head of one more is enough.
    let mut long = next(0);
    long.extend(head(Kind::Message, 997));
    assert_eq!(feed(&mut inbound(), &long, 9), Err(FrameError::Credit));
    let mut fits = next(0);
    fits.extend(message(&[1; 996]));
    assert!(feed(&mut inbound(), &fits, 100).is_ok());
}

#[test]
fn taking_allows_more_and_it_is_told_when_it_is_worth_it() {
    let mut inbound = inbound();
    let mut bytes = next(0);
    for _ in 0..4 {
        bytes.extend(message(b"x"));
    }
    feed(&mut inbound, &bytes, 100).unwrap();
    assert_eq!(inbound.credit(), Credit { received: 4, messages: 4, bytes: 1_000 });
    take(&mut inbound).unwrap();
    assert!(!inbound.is_worth_telling());
    take(&mut inbound).unwrap();
    assert!(inbound.is_worth_telling());
    assert_eq!(inbound.tell(), Credit { received: 4, messages: 6, bytes: 1_010 });
    assert!(!inbound.is_worth_telling());
    assert!(feed(&mut inbound, &message(b"y").repeat(2), 100).is_ok());
    assert_eq!(feed(&mut inbound, &message(b"z"), 100), Err(FrameError::Credit));
}

#[test]
fn a_broken_stream_leaves_whole_messages_and_the_next_one_goes_on() {
    let mut inbound = inbound();
    let mut bytes = next(3);
    bytes.extend(message(b"whole"));
    bytes.extend(message(b"lost on the way").split_at(9).0);
    feed(&mut inbound, &bytes, 7).unwrap();
    assert_eq!(inbound.wanted(), 4);
    let fresh = inbound.fresh_credit();
    assert_eq!(fresh, Credit { received: 4, messages: 3, bytes: 991 });
    inbound.begin(fresh);
    // No number is said: it goes on where it was.
    feed(&mut inbound, &message(b"again"), 100).unwrap();
    assert_eq!(take(&mut inbound), Some((3, 0, b"whole".to_vec())));
    assert_eq!(take(&mut inbound), Some((4, 0, b"again".to_vec())));
}

#[test]
fn what_breaks_the_rules_is_named() {
    let unnumbered = message(b"x");
    assert_eq!(feed(&mut inbound(), &unnumbered, 100), Err(FrameError::Place("message")));
    let back = [next(5), message(b"x"), next(5)].concat();
    assert_eq!(feed(&mut inbound(), &back, 100), Err(FrameError::Number));
    assert_eq!(feed(&mut inbound(), &next(u64::MAX), 100), Err(FrameError::Number));
    let hello = head(Kind::Hello, 100);
    assert_eq!(feed(&mut inbound(), &hello, 100), Err(FrameError::Place("hello")));
    let long = head(Kind::Ping, 1 << 20);
    assert_eq!(feed(&mut inbound(), &long, 100), Err(FrameError::Length("control")));
}

#[test]
fn memory_follows_what_came_and_not_what_was_said() {
    let window = Window { messages: 4, bytes: 64 << 20 };
    let mut inbound = Inbound::new(window);
    inbound.begin(inbound.fresh_credit());
    let mut bytes = next(0);
    bytes.extend(head(Kind::Message, 32 << 20));
    feed(&mut inbound, &bytes, 100).unwrap();
    assert!(inbound.capacity() <= 2 * READ_BYTES, "{}", inbound.capacity());
}

#[test]
fn a_flood_of_other_frames_behind_a_message_that_waits_costs_no_memory() {
    let mut inbound = inbound();
    feed(&mut inbound, &[next(0), message(b"waits")].concat(), 100).unwrap();
    let mut pings = Vec::new();
    for number in 0..5_000 {
        Frame::Ping(number).write(&mut pings);
    }
    for _ in 0..50 {
        assert_eq!(feed(&mut inbound, &pings, 50_000).unwrap().len(), 5_000);
    }
    assert!(inbound.capacity() <= 4 * READ_BYTES, "{}", inbound.capacity());
    assert_eq!(take(&mut inbound), Some((0, 0, b"waits".to_vec())));
}

proptest! {
    #[test]
    fn any_bytes_are_scanned_or_name_a_reason(
        data in prop::collection::vec(any::<u8>(), 0..600),
        kinds in prop::collection::vec((0_u32..8, 0_u32..40), 0..20),
        piece in 1_usize..100,
    ) {
        let _ = feed(&mut inbound(), &data, piece);
        // Heads that mean something, with bodies of those lengths.
        let mut bytes = next(0);
        for (kind, length) in kinds {
            bytes.extend((kind << 29 | length).to_le_bytes());
            bytes.extend(data.iter().cycle().take(length as usize));
        }
        let mut inbound = inbound();
        let _ = feed(&mut inbound, &bytes, piece);
        prop_assert!(inbound.waiting() <= 4 && inbound.waiting_bytes <= 1_000);
    }

    #[test]
    fn whatever_the_pieces_and_pauses_messages_come_as_they_were_sent(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..60),
        pieces in prop::collection::vec(1_usize..300, 1..20),
        pauses in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let window = Window { messages: 1_000, bytes: 1 << 20 };
        let mut inbound = Inbound::new(window);
        inbound.begin(inbound.fresh_credit());
        let mut bytes = next(0);
        for (number, body) in bodies.iter().enumerate() {
            bytes.extend(message(body));
            Frame::Pong(number as u64).write(&mut bytes);
        }
        let mut taken = Vec::new();
        let (mut pieces, mut pauses) = (pieces.iter().cycle(), pauses.iter().cycle());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (front, back) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
            feed(&mut inbound, front, 1_000).unwrap();
            rest = back;
            if *pauses.next().unwrap() {
                taken.extend(take(&mut inbound));
            }
        }
        taken.extend(std::iter::from_fn(|| take(&mut inbound)));
        let expected = bodies.into_iter().enumerate().map(|(at, body)| (at as u64, 0, body));
        prop_assert_eq!(taken, expected.collect::<Vec<_>>());
    }
}
