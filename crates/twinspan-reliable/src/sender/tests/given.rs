//! Messages whose buffers are the caller's.

use super::*;

#[test]
fn a_given_buffer_leaves_as_it_is_and_comes_back_when_the_peer_has_its_message() {
    let mut sender = sender(&config());
    let bodies = [vec![1; 5], vec![2; 1_000]];
    let memory = bodies.each_ref().map(Vec::as_ptr);
    for body in bodies {
        sender.send_given(START, EVENTS, body).unwrap();
    }
    for (number, wanted) in [(0, vec![1; 5]), (1, vec![2; 1_000])] {
        assert_eq!(leave(&mut sender, START, number), Some((EVENTS, number, None, wanted)));
    }
    assert_eq!(sender.take_back(), None, "both are in flight");
    acked(&mut sender, START, &[1]);
    let back = sender.take_back();
    assert_eq!(back.as_ref().map(|body| (body.as_ptr(), body.len())), Some((memory[1], 1_000)));
    assert_eq!(sender.take_back(), None);
    // One that is lost leaves again from the same memory.
    acked(&mut sender, START, &[1]);
    assert!(leave(&mut sender, at_ms(1_000), 2).is_some_and(|left| left.3 == [1; 5]));
    acked(&mut sender, at_ms(1_000), &[2]);
    assert_eq!(sender.take_back().map(|body| body.as_ptr()), Some(memory[0]));
}

#[test]
fn a_given_buffer_that_finds_no_place_comes_back_at_once() {
    let config = Config { queued_messages_max: 1, ..config() };
    let mut sender = sender(&config);
    sender.send_given(START, EVENTS, vec![1]).unwrap();
    let full = SendError::Full { messages: 1, bytes: 1 };
    assert_eq!(sender.send_given(START, EVENTS, vec![2]), Err((full, vec![2])));
    let long = vec![3; config.message_bytes_max + 1];
    let too_long = SendError::TooLong { len: long.len(), max: config.message_bytes_max };
    assert_eq!(sender.send_given(START, EVENTS, long.clone()), Err((too_long, long)));
}

#[test]
fn given_and_copied_messages_keep_their_order_and_their_pieces() {
    let config = Config { fragment_bytes_max: 2, message_bytes_max: 128, ..config() };
    let mut sender = sender(&config);
    sender.send(START, EVENTS, b"ab").unwrap();
    sender.send_given(START, EVENTS, b"cde".to_vec()).unwrap();
    let left: Vec<_> = (0..3).filter_map(|number| leave(&mut sender, START, number)).collect();
    let wanted = [
        (EVENTS, 0, None, b"ab".to_vec()),
        (EVENTS, 1, Some((0, 1)), b"cd".to_vec()),
        (EVENTS, 1, Some((1, 1)), b"e".to_vec()),
    ];
    assert_eq!(left, wanted);
    acked(&mut sender, START, &[0, 1]);
    assert_eq!(sender.take_back(), None, "a piece is missing, and what was copied is nobody's");
    acked(&mut sender, START, &[2]);
    assert_eq!(sender.take_back().as_deref(), Some(&b"cde"[..]));
}
