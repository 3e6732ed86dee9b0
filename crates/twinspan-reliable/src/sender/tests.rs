mod given;

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{CONTROL_MESSAGES_QUEUED_MAX, Delivery, Knobs, StreamId};

const START: Timestamp = Timestamp::START;
const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);
const BULK: Channel = Channel::new(Delivery::Ordered, StreamId::BULK);
const CONTROL: Channel = Channel::new(Delivery::Ordered, StreamId::CONTROL);
const STATE: Channel = Channel::new(Delivery::Sequenced, StreamId::STATE);
const CHATTER: Channel = Channel::new(Delivery::Unreliable, StreamId::EVENTS);

fn config() -> Config {
    // The window and the pace have tests of their own.
    let knobs = Knobs { congestion: false, ..Knobs::default() };
    Config { jitter_fraction: 0.0, knobs, ..Config::default() }
}

fn sender(config: &Config) -> Sender {
    assert_eq!(config.check(), Ok(()));
    Sender::new(config, Stream::new(1, "jitter", 0))
}

fn at_ms(ms: u64) -> Timestamp {
    START.after(Duration::from_millis(ms))
}

/// Channel, message number, fragment and body of a frame that left.
type Left = (Channel, u64, Option<(u8, u8)>, Vec<u8>);

/// Polls one frame and sends it alone.
fn leave(sender: &mut Sender, now: Timestamp, number: u64) -> Option<Left> {
    let frame = sender.poll_frame(now, 1_200)?;
    let fragment = frame.fragment.map(|fragment| (fragment.index, fragment.last));
    let shown = (frame.channel, frame.number.unwrap_or(0), fragment, frame.body.to_vec());
    sender.on_sent(now, number, number as u32 + 100, 1_000, true);
    Some(shown)
}

fn ack(numbers: &[u64]) -> Ack {
    let largest = *numbers.iter().max().unwrap();
    let mut ack = Ack::single(largest, Duration::ZERO);
    for number in numbers.iter().filter(|number| **number < largest) {
        let bit = largest - 1 - number;
        ack.bits[(bit / 64) as usize] |= 1 << (bit % 64);
    }
    ack
}

fn acked(sender: &mut Sender, now: Timestamp, numbers: &[u64]) -> Vec<(u64, u32)> {
    let mut seen = Vec::new();
    sender.handle_ack(now, &ack(numbers), &mut |number, tag| seen.push((number, tag))).unwrap();
    seen
}

fn refused(sender: &mut Sender, numbers: &[u64]) -> AckError {
    sender.handle_ack(START, &ack(numbers), &mut |_, _| panic!("believed")).unwrap_err()
}

#[test]
fn an_acknowledged_message_is_done() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, b"one").unwrap();
    assert!(sender.wants_to_send(START));
    assert_eq!(leave(&mut sender, START, 1), Some((EVENTS, 0, None, b"one".to_vec())));
    assert!(!sender.wants_to_send(START));
    assert_eq!(sender.unacknowledged(), 1);
    assert_eq!(acked(&mut sender, at_ms(80), &[1]), [(1, 101)]);
    assert_eq!(sender.unacknowledged(), 0);
    assert_eq!(sender.rtt().latest(), Duration::from_millis(80));
    assert_eq!(sender.poll_timeout(), None);
    assert_eq!(acked(&mut sender, at_ms(90), &[1]), []);
}

#[test]
fn a_lost_frame_rides_again_under_a_fresh_number() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1);
    assert_eq!(sender.poll_timeout(), Some(at_ms(275)));
    assert!(sender.poll_frame(at_ms(274), 1_200).is_none());
    sender.handle_timeout(at_ms(275));
    assert_eq!(leave(&mut sender, at_ms(275), 2), Some((EVENTS, 0, None, b"one".to_vec())));
    assert_eq!(sender.stats().packets_lost, 1);
    acked(&mut sender, at_ms(300), &[2]);
    assert_eq!(sender.unacknowledged(), 0);
}

#[test]
fn a_late_ack_of_the_old_number_completes_the_message() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1);
    leave(&mut sender, at_ms(275), 2).unwrap();
    assert_eq!(acked(&mut sender, at_ms(400), &[1]), [(1, 101)]);
    assert_eq!(sender.unacknowledged(), 0);
    assert_eq!(sender.stats().spurious, 1);
    // The copy is in flight still; its ack is no news for the message, and nothing underflows.
    assert_eq!(acked(&mut sender, at_ms(410), &[2]), [(2, 102)]);
    assert_eq!(sender.stats().messages_acked, 1);
    assert_eq!(sender.poll_timeout(), None);
}

#[test]
fn a_late_ack_before_the_resend_leaves_saves_it() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1);
    sender.handle_timeout(at_ms(275));
    assert!(sender.wants_to_send(at_ms(275)));
    acked(&mut sender, at_ms(276), &[1]);
    assert!(!sender.wants_to_send(at_ms(276)));
    assert_eq!(leave(&mut sender, at_ms(276), 2), None);
}

#[test]
fn three_newer_acknowledged_numbers_mean_loss() {
    let mut sender = sender(&config());
    for number in 1..=5 {
        sender.send(START, EVENTS, &[number as u8]).unwrap();
        leave(&mut sender, START, number);
    }
    acked(&mut sender, at_ms(50), &[2, 3, 4]);
    assert_eq!(sender.stats().packets_lost, 1);
    assert_eq!(leave(&mut sender, at_ms(50), 6).unwrap().3, [1]);
    assert_eq!(leave(&mut sender, at_ms(50), 7), None);
}

#[test]
fn an_overtaken_packet_is_lost_after_nine_eighths_of_the_rtt() {
    let mut sender = sender(&config());
    for number in 1..=2 {
        sender.send(START, EVENTS, &[number as u8]).unwrap();
        leave(&mut sender, START, number);
    }
    acked(&mut sender, at_ms(80), &[2]);
    assert_eq!(sender.stats().packets_lost, 0);
    assert_eq!(sender.poll_timeout(), Some(at_ms(90)));
    assert_eq!(leave(&mut sender, at_ms(90), 3).unwrap().3, [1]);
}

#[test]
fn timeouts_double_until_an_ack_and_stop_at_the_limit() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, b"one").unwrap();
    let mut now = START;
    let mut waits = Vec::new();
    for number in 1..=6 {
        leave(&mut sender, now, number).unwrap();
        let at = sender.poll_timeout().unwrap();
        waits.push(at.since(now).as_millis());
        now = at;
    }
    assert_eq!(waits, [275, 550, 1_100, 2_200, 3_000, 3_000]);
    assert_eq!(sender.stats().timeouts, 5);
    acked(&mut sender, now, &[6]);
    sender.send(now, EVENTS, b"two").unwrap();
    leave(&mut sender, now, 7).unwrap();
    // The answer took 3 s: the RTT is known now, and the limit holds.
    assert_eq!(sender.shared.backoff_level, 0);
    assert_eq!(sender.poll_timeout().unwrap().since(now).as_millis(), 3_000);
}

#[test]
fn a_peer_that_acknowledges_nothing_is_dead_in_the_end() {
    let mut sender = sender(&Config { attempts_max: 3, ..config() });
    sender.send(START, EVENTS, b"one").unwrap();
    let mut now = START;
    for number in 1..=4 {
        assert!(!sender.is_dead());
        leave(&mut sender, now, number).unwrap();
        now = sender.poll_timeout().unwrap();
    }
    assert!(!sender.is_dead());
    leave(&mut sender, now, 5).unwrap();
    assert!(sender.is_dead());
    assert_eq!(sender.send(now, EVENTS, b"two"), Err(SendError::Dead));
}

#[test]
fn an_ack_of_a_skipped_number_is_never_sent() {
    let mut sender = sender(&config());
    for number in [1, 2, 5, 6] {
        sender.on_sent(START, number, 0, 100, true);
    }
    assert_eq!(refused(&mut sender, &[1, 4, 6]), AckError::NeverSent { number: 4 });
    assert_eq!(refused(&mut sender, &[3]), AckError::NeverSent { number: 3 });
    assert_eq!(refused(&mut sender, &[0, 1]), AckError::NeverSent { number: 0 });
    assert_eq!(refused(&mut sender, &[6, 7]), AckError::NeverSent { number: 7 });
    assert_eq!(refused(&mut sender, &[u64::MAX]), AckError::NeverSent { number: u64::MAX });
    assert_eq!(acked(&mut sender, START, &[1, 2, 5, 6]).len(), 4);
}

#[test]
fn an_ack_before_any_packet_is_never_sent() {
    let mut sender = sender(&config());
    assert_eq!(refused(&mut sender, &[0]), AckError::NeverSent { number: 0 });
}

#[test]
fn without_validation_an_ack_of_the_future_swallows_messages() {
    let knobs = Knobs { validate_acks: false, congestion: false, ..Knobs::default() };
    let mut sender = sender(&Config { knobs, ..config() });
    sender.on_sent(START, 1, 0, 100, true);
    sender.handle_ack(START, &ack(&[1, 5]), &mut |_, _| {}).unwrap();
    sender.send(START, EVENTS, b"gone").unwrap();
    leave(&mut sender, START, 2);
    assert_eq!(sender.unacknowledged(), 0);
}

#[test]
fn a_message_is_cut_and_done_when_every_piece_is_there() {
    let mut sender = sender(&config());
    let payload: Vec<u8> = (0..2_500_u32).map(|byte| byte as u8).collect();
    sender.send(START, BULK, &payload).unwrap();
    let mut joined = Vec::new();
    for number in 1..=3 {
        let (channel, message, fragment, body) = leave(&mut sender, START, number).unwrap();
        assert_eq!((channel, message, fragment), (BULK, 0, Some((number as u8 - 1, 2))));
        joined.extend(body);
    }
    assert_eq!(joined, payload);
    acked(&mut sender, START, &[1, 3]);
    assert_eq!(sender.unacknowledged(), 1);
    acked(&mut sender, START, &[2]);
    assert_eq!(sender.unacknowledged(), 0);
}

#[test]
fn only_the_lost_piece_leaves_again() {
    let mut sender = sender(&config());
    sender.send(START, BULK, &[7; 4 * 1_100]).unwrap();
    for number in 1..=4 {
        leave(&mut sender, START, number);
    }
    acked(&mut sender, at_ms(40), &[2, 3, 4]);
    assert_eq!(leave(&mut sender, at_ms(40), 5).unwrap().2, Some((0, 3)));
    assert_eq!(leave(&mut sender, at_ms(40), 6), None);
}

#[test]
fn a_packet_takes_what_fits_and_no_more() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, &[1; 100]).unwrap();
    sender.send(START, EVENTS, &[2; 100]).unwrap();
    assert_eq!(sender.poll_frame(START, 107), None);
    assert_eq!(sender.poll_frame(START, 108).unwrap().body, [1; 100]);
    assert_eq!(sender.poll_frame(START, 108).unwrap().body, [2; 100]);
    sender.on_sent(START, 1, 0, 250, true);
    acked(&mut sender, START, &[1]);
    assert_eq!(sender.unacknowledged(), 0);
}

#[test]
fn lost_frames_then_control_then_loose_then_the_rest_then_bulk() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, b"lost").unwrap();
    leave(&mut sender, START, 1);
    sender.send(START, BULK, b"bulk").unwrap();
    sender.send(START, EVENTS, b"event").unwrap();
    sender.send(START, STATE, b"state").unwrap();
    sender.send(START, CONTROL, b"control").unwrap();
    let order: Vec<Vec<u8>> =
        (2..=6).map(|number| leave(&mut sender, at_ms(275), number).unwrap().3).collect();
    assert_eq!(order, [&b"lost"[..], b"control", b"state", b"event", b"bulk"]);
}

#[test]
fn credit_holds_new_frames_back_but_neither_control_nor_resends() {
    let config = Config { credit_bytes: 200_000, message_bytes_max: 32_768, ..config() };
    let mut sender = sender(&config);
    // 198 frames of 880 + 128 bytes: 199,584 of 200,000.
    for number in 1..=198 {
        sender.send(START, EVENTS, &[0; 880]).unwrap();
        leave(&mut sender, START, number).unwrap();
    }
    assert_eq!(sender.credit_left(), 416);
    sender.send(START, EVENTS, &[0; 289]).unwrap();
    assert!(!sender.wants_to_send(START));
    assert_eq!(leave(&mut sender, START, 199), None);
    sender.send(START, CONTROL, b"credit").unwrap();
    assert!(sender.wants_to_send(START));
    assert_eq!(leave(&mut sender, START, 199).unwrap().0, CONTROL);
    assert_eq!(leave(&mut sender, at_ms(275), 200).unwrap().1, 0);
    sender.handle_credit(200_001);
    sender.handle_credit(7);
    let mut last = None;
    for number in 201.. {
        match leave(&mut sender, at_ms(275), number) {
            Some(left) => last = Some(left.3.len()),
            None => break,
        }
    }
    assert_eq!(last, Some(289));
    assert_eq!(sender.credit_left(), 0);
}

#[test]
fn the_limit_in_flight_holds_back_all_but_control() {
    let mut sender = sender(&Config { in_flight_frames_max: 2, ..config() });
    for body in 0..3 {
        sender.send(START, EVENTS, &[body]).unwrap();
    }
    sender.send(START, CONTROL, b"control").unwrap();
    let bodies: Vec<_> = (1..=4).map(|n| leave(&mut sender, START, n).map(|f| f.3)).collect();
    assert_eq!(bodies, [Some(b"control".to_vec()), Some(vec![0]), Some(vec![1]), None]);
    acked(&mut sender, START, &[2]);
    assert_eq!(leave(&mut sender, START, 5).unwrap().3, [2]);
}

#[test]
fn a_channel_goes_no_further_than_its_window() {
    let config = Config { queued_messages_max: 2_000, in_flight_frames_max: 1_024, ..config() };
    let mut sender = sender(&config);
    for _ in 0..1_026 {
        sender.send(START, EVENTS, b"").unwrap();
    }
    for _ in 0..1_024 {
        assert!(sender.poll_frame(START, 1_200).is_some());
    }
    sender.on_sent(START, 1, 0, 0, true);
    assert_eq!(leave(&mut sender, START, 2), None);
    acked(&mut sender, START, &[1]);
    assert_eq!(leave(&mut sender, START, 2).unwrap().1, 1_024);
    for _ in 0..66 {
        sender.send(START, CONTROL, b"").unwrap();
    }
    let left = (3..).map_while(|number| leave(&mut sender, START, number));
    assert_eq!(left.filter(|left| left.0 == CONTROL).count(), 64);
}

#[test]
fn full_queues_refuse_and_keep_what_they_have() {
    let config = Config { queued_messages_max: 2, queued_bytes_max: 100, ..config() };
    let mut sender = sender(&config);
    sender.send(START, EVENTS, &[0; 60]).unwrap();
    let full = SendError::Full { messages: 1, bytes: 60 };
    assert_eq!(sender.send(START, EVENTS, &[0; 41]), Err(full));
    sender.send(START, EVENTS, &[0; 40]).unwrap();
    let full = SendError::Full { messages: 2, bytes: 100 };
    assert_eq!(sender.send(START, EVENTS, &[]), Err(full));
    assert_eq!(sender.unacknowledged(), 2);
}

/// Else two ends whose queues wait for credit could not tell each other of any.
#[test]
fn a_full_queue_still_takes_control_messages() {
    for full in
        [Config { queued_messages_max: 2, ..config() }, Config { queued_bytes_max: 6, ..config() }]
    {
        let mut sender = sender(&full);
        sender.send(START, EVENTS, b"one").unwrap();
        sender.send(START, EVENTS, b"two").unwrap();
        assert!(matches!(sender.send(START, EVENTS, b"three"), Err(SendError::Full { .. })));
        for _ in 0..128 {
            assert_eq!(sender.send(START, CONTROL, b"credit"), Ok(()));
        }
        assert!(matches!(sender.send(START, CONTROL, b"credit"), Err(SendError::Full { .. })));
        for number in 1..=66 {
            assert!(leave(&mut sender, START, number).is_some());
        }
        acked(&mut sender, at_ms(80), &(1..=66).collect::<Vec<_>>());
        for number in 67..=130 {
            assert!(leave(&mut sender, at_ms(80), number).is_some());
        }
        acked(&mut sender, at_ms(160), &(67..=130).collect::<Vec<_>>());
        assert_eq!(sender.unacknowledged(), 0);
        assert_eq!(sender.send(START, CONTROL, b"credit"), Ok(()));
        assert_eq!(sender.send(START, EVENTS, b"three"), Ok(()));
    }
}

#[test]
fn each_channel_has_its_longest_message() {
    let mut sender = sender(&config());
    for (channel, max) in [(EVENTS, 65_536), (STATE, 65_536), (CHATTER, 1_100), (CONTROL, 512)] {
        assert_eq!(sender.send(START, channel, &vec![0; max]), Ok(()));
        let too_long = SendError::TooLong { len: max + 1, max };
        assert_eq!(sender.send(START, channel, &vec![0; max + 1]), Err(too_long));
    }
}

#[test]
fn a_newer_sequenced_message_replaces_one_that_waits() {
    let mut sender = sender(&config());
    sender.send(START, STATE, b"old").unwrap();
    sender.send(START, CHATTER, b"chatter").unwrap();
    sender.send(START, STATE, b"new").unwrap();
    assert_eq!(leave(&mut sender, START, 1).unwrap().3, b"chatter");
    assert_eq!(leave(&mut sender, START, 2), Some((STATE, 1, None, b"new".to_vec())));
    assert_eq!(leave(&mut sender, START, 3), None);
    assert_eq!(sender.stats().loose_replaced, 1);
    assert_eq!(sender.next_number(STATE), 2);
    assert_eq!(sender.next_number(CHATTER), 0);
}

#[test]
fn too_many_loose_messages_drop_the_oldest() {
    let mut sender = sender(&Config { loose_messages_max: 2, ..config() });
    for body in 0..5 {
        sender.send(START, CHATTER, &[body]).unwrap();
    }
    assert_eq!(leave(&mut sender, START, 1).unwrap().3, [3]);
    assert_eq!(leave(&mut sender, START, 2).unwrap().3, [4]);
    assert_eq!(leave(&mut sender, START, 3), None);
    assert_eq!(sender.stats().loose_dropped, 3);
    assert_eq!(sender.unacknowledged(), 0);
}

#[test]
fn a_packet_without_reliable_frames_gives_its_tag_back() {
    let mut sender = sender(&config());
    sender.on_sent(START, 1, 7, 500, true);
    sender.on_sent(START, 2, 8, 30, false);
    sender.on_sent(START, 3, 9, 500, true);
    assert_eq!(sender.poll_timeout(), None);
    assert_eq!(acked(&mut sender, at_ms(40), &[1, 2, 3]), [(1, 7), (2, 8), (3, 9)]);
}

#[test]
fn a_packet_that_falls_out_of_the_window_is_resent() {
    let mut sender = sender(&config());
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1);
    for number in 2..=1_024 {
        sender.on_sent(START, number, 0, 0, true);
    }
    assert!(!sender.wants_to_send(START));
    sender.on_sent(START, 1_025, 0, 0, true);
    assert_eq!(leave(&mut sender, START, 1_026).unwrap().3, b"one");
    // A jump past the whole window forgets everything in it.
    sender.on_sent(START, 1_000_000, 0, 0, true);
    assert_eq!(leave(&mut sender, START, 1_000_001).unwrap().3, b"one");
    acked(&mut sender, START, &[1_000_001]);
    assert_eq!(sender.unacknowledged(), 0);
}

#[test]
fn without_resend_a_lost_frame_stays_lost() {
    let knobs = Knobs { resend: false, ..Knobs::default() };
    let mut sender = sender(&Config { knobs, ..config() });
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1);
    sender.handle_timeout(at_ms(10_000));
    assert_eq!(leave(&mut sender, at_ms(10_000), 2), None);
    assert_eq!(sender.unacknowledged(), 1);
}

#[test]
fn the_jitter_is_a_function_of_the_stream() {
    let timeout = |instance| {
        let stream = Stream::new(1, "jitter", instance);
        let mut sender = Sender::new(&Config::default(), stream);
        sender.send(START, EVENTS, b"one").unwrap();
        leave(&mut sender, START, 1);
        sender.poll_timeout().unwrap()
    };
    assert_eq!(timeout(1), timeout(1));
    assert_ne!(timeout(1), timeout(2));
    assert!((275..=344).contains(&timeout(1).since(START).as_millis()));
}

fn same() -> Sender {
    let config =
        Config { identity: ResendIdentity::SameNumber, credit_bytes: u64::MAX, ..config() };
    sender(&config)
}

#[test]
fn the_same_number_is_used_again_and_alone() {
    let mut sender = same();
    sender.send(START, EVENTS, b"one").unwrap();
    sender.send(START, EVENTS, b"two").unwrap();
    assert_eq!(sender.poll_frame(START, 1_200).unwrap().resend_of, None);
    assert_eq!(sender.poll_frame(START, 1_200), None);
    sender.on_sent(START, 1, 0, 20, true);
    leave(&mut sender, START, 2).unwrap();
    assert_eq!(sender.handle_ack_one(at_ms(90), 2), Ok(true));
    assert_eq!(sender.handle_ack_one(at_ms(90), 2), Ok(false));
    assert_eq!(sender.rtt().samples(), 0);
    let frame = sender.poll_frame(at_ms(275), 1_200).unwrap();
    assert_eq!((frame.resend_of, frame.body), (Some(1), &b"one"[..]));
    assert_eq!(sender.poll_frame(at_ms(275), 1_200), None);
    sender.on_sent(at_ms(275), 1, 0, 20, true);
    assert_eq!(sender.poll_timeout(), Some(at_ms(275 + 550)));
    assert_eq!(sender.handle_ack_one(at_ms(290), 1), Ok(true));
    assert_eq!((sender.unacknowledged(), sender.poll_timeout()), (0, None));
}

#[test]
fn a_packet_given_up_leaves_no_more_and_frees_its_place() {
    let mut sender = same();
    for (number, body) in [(1, b"one"), (2, b"two"), (3, b"six")] {
        sender.send(START, EVENTS, body).unwrap();
        leave(&mut sender, START, number).unwrap();
    }
    sender.handle_timeout(at_ms(275));
    assert_eq!((sender.lost_waiting(), sender.oldest_in_flight()), (3, Some(1)));
    // One that waits for its resend, and one that is in flight again.
    assert_eq!(sender.abandon(1), Some(101));
    leave(&mut sender, at_ms(275), 2).unwrap();
    assert_eq!(sender.abandon(2), Some(102));
    assert_eq!((sender.abandon(2), sender.abandon(9)), (None, None));
    assert_eq!((sender.unacknowledged(), sender.lost_waiting()), (1, 1));
    let frame = sender.poll_frame(at_ms(276), 1_200).unwrap();
    assert_eq!((frame.resend_of, frame.body), (Some(3), &b"six"[..]));
    sender.on_sent(at_ms(276), 3, 0, 20, true);
    assert_eq!(sender.handle_ack_one(at_ms(280), 2), Ok(false));
    assert_eq!(sender.handle_ack_one(at_ms(280), 3), Ok(true));
    assert_eq!((sender.stats().messages_acked, sender.unacknowledged()), (1, 0));
}

#[test]
fn a_resend_can_be_hastened_and_held_back() {
    let mut sender = same();
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1).unwrap();
    assert_eq!(sender.resend_at(1), Some(at_ms(275)));
    sender.hasten_resend(1, at_ms(400));
    assert_eq!(sender.resend_at(1), Some(at_ms(275)));
    sender.hasten_resend(1, at_ms(100));
    assert_eq!(sender.poll_timeout(), Some(at_ms(100)));
    assert!(sender.would_leave(EVENTS, 3));
    sender.send(at_ms(100), EVENTS, b"two").unwrap();
    assert!(!sender.would_leave(EVENTS, 3), "another waits");
    let frame = sender.poll_new_frame(at_ms(100), 1_200).unwrap();
    assert_eq!((frame.resend_of, frame.body), (None, &b"two"[..]));
    sender.on_sent(at_ms(100), 2, 0, 20, true);
    assert_eq!((sender.resend_at(1), sender.lost_waiting()), (Some(Timestamp::NEVER), 1));
    assert_eq!(sender.poll_new_frame(at_ms(100), 1_200), None);
    assert_eq!(sender.poll_frame(at_ms(100), 1_200).unwrap().resend_of, Some(1));
}

#[test]
fn the_same_number_takes_its_rtt_from_pings() {
    let mut sender = same();
    sender.on_rtt_sample(START, Duration::from_millis(100), Duration::ZERO);
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1);
    assert_eq!(sender.poll_timeout(), Some(at_ms(325)));
}

#[test]
fn the_same_number_refuses_acks_of_what_was_never_sent() {
    let mut sender = same();
    sender.on_sent(START, 1, 0, 20, false);
    sender.on_sent(START, 3, 0, 20, false);
    assert_eq!(sender.handle_ack_one(START, 2), Err(AckError::NeverSent { number: 2 }));
    assert_eq!(sender.handle_ack_one(START, 4), Err(AckError::NeverSent { number: 4 }));
    assert_eq!(sender.handle_ack_one(START, 3), Ok(false));
    let mut news = Vec::new();
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 4);
    sender.handle_ack(START, &ack(&[1, 3, 4]), &mut |number, _| news.push(number)).unwrap();
    assert_eq!(news, [4]);
}

#[test]
fn the_same_number_survives_an_ack_between_poll_and_sending() {
    let mut sender = same();
    sender.send(START, EVENTS, b"one").unwrap();
    leave(&mut sender, START, 1);
    assert_eq!(sender.poll_frame(at_ms(275), 1_200).unwrap().resend_of, Some(1));
    assert_eq!(sender.handle_ack_one(at_ms(275), 1), Ok(true));
    sender.on_sent(at_ms(275), 1, 0, 20, true);
    assert_eq!((sender.unacknowledged(), sender.poll_timeout()), (0, None));
}

/// 10,000 of these live in a server.
#[test]
fn an_idle_connection_is_small() {
    let whole = size_of::<crate::ParkedSender>() + size_of::<crate::ParkedReceiver>();
    assert!(whole <= 128, "{whole} bytes");
    assert_eq!(sender(&config()).heap_bytes(), 0);
}

#[test]
fn a_parked_sender_goes_on_where_it_stopped() {
    let config = config();
    let mut sender = sender(&config);
    sender.send(at_ms(0), EVENTS, b"one").unwrap();
    assert!(!sender.is_quiet());
    leave(&mut sender, at_ms(0), 7);
    assert!(!sender.is_quiet(), "its ack is of interest");
    acked(&mut sender, at_ms(40), &[7]);
    assert!(sender.is_quiet());
    let mut parked = sender.park();
    assert_eq!((parked.next_packet(), parked.smoothed_rtt()), (8, Some(Duration::from_millis(40))));
    parked.on_sent_quiet(8);
    let mut again = Sender::resume(&config, Stream::new(1, "jitter", 0), &parked);
    assert_eq!(again.rtt().smoothed(), Duration::from_millis(40));
    assert_eq!(again.credit_left(), sender.credit_left());
    assert_eq!(refused(&mut again, &[9]), AckError::NeverSent { number: 9 });
    assert_eq!(acked(&mut again, at_ms(50), &[8]), [], "it wants no ack");
    again.send(at_ms(60), EVENTS, b"two").unwrap();
    let frame = again.poll_frame(at_ms(60), 1_200).unwrap();
    assert_eq!(frame.number, Some(1), "messages are numbered on");
    again.on_sent(at_ms(60), 10, 0, 60, true);
    assert_eq!(refused(&mut again, &[9]), AckError::NeverSent { number: 9 });
    assert_eq!(acked(&mut again, at_ms(90), &[10]), [(10, 0)]);
    assert!(again.is_quiet());
}

#[derive(Clone, Debug)]
enum Step {
    Send(u8, u16),
    Leave(u8, bool),
    Skip(u16),
    Ack(u8, u64),
    Wait(u16),
    Credit(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<u8>(), 0_u16..3_000).prop_map(|(channel, len)| Step::Send(channel, len)),
        4 => (0_u8..4, any::<bool>()).prop_map(|(frames, wants)| Step::Leave(frames, wants)),
        1 => (0_u16..1_500).prop_map(Step::Skip),
        3 => (0_u8..20, any::<u64>()).prop_map(|(back, bits)| Step::Ack(back, bits)),
        2 => (0_u16..2_000).prop_map(Step::Wait),
        1 => any::<u64>().prop_map(Step::Credit),
    ]
}

proptest! {
    #[test]
    fn no_order_of_calls_panics_or_grows(
        same: bool, validate_acks: bool, steps in prop::collection::vec(step(), 1..400),
    ) {
        let knobs = Knobs { validate_acks, ..Knobs::default() };
        let identity =
            if same { ResendIdentity::SameNumber } else { ResendIdentity::FreshNumber };
        let limits = Config { identity, knobs, queued_messages_max: 50, ..config() };
        let mut sender = sender(&limits);
        let (mut now, mut number) = (START, 0_u64);
        for step in steps {
            match step {
                Step::Send(channel, len) => {
                    let channel = Channel::from_byte(channel);
                    let _refusal = sender.send(now, channel, &vec![0; usize::from(len)]);
                }
                Step::Leave(frames, wants) => {
                    let mut leaves_as = None;
                    for _ in 0..frames {
                        if let Some(frame) = sender.poll_frame(now, 1_200) {
                            leaves_as = frame.resend_of;
                        }
                    }
                    number += u64::from(leaves_as.is_none());
                    sender.on_sent(now, leaves_as.unwrap_or(number), 0, 1_000, wants);
                }
                Step::Skip(count) => number += u64::from(count),
                Step::Ack(back, bits) => {
                    let largest = number.saturating_sub(u64::from(back));
                    let mut ack = Ack::single(largest, now.since(START));
                    ack.bits[0] = bits;
                    ack.bits[9] = bits;
                    let _refusal = sender.handle_ack(now, &ack, &mut |_, _| {});
                    let _refusal = sender.handle_ack_one(now, bits);
                }
                Step::Wait(ms) => {
                    now = now.after(Duration::from_millis(u64::from(ms)));
                    sender.handle_timeout(now);
                }
                Step::Credit(total) => sender.handle_credit(total),
            }
            let timeout = sender.poll_timeout();
            prop_assert!(timeout.is_none_or(|at| at > now || same || sender.wants_to_send(now)));
            prop_assert!(sender.unacknowledged() <= 50 + CONTROL_MESSAGES_QUEUED_MAX);
            prop_assert!(sender.heap_bytes() < 1 << 20, "{}", sender.heap_bytes());
        }
    }
}

fn paced() -> Sender {
    sender(&Config { jitter_fraction: 0.0, ..Config::default() })
}

#[test]
fn reliable_frames_wait_for_the_window_and_the_pace() {
    let mut sender = paced();
    (0..20).for_each(|_| sender.send(START, BULK, &[0; 1_100]).unwrap());
    let left = (1..=20).take_while(|number| leave(&mut sender, START, *number).is_some()).count();
    assert!((8..=11).contains(&left), "a burst: {left}");
    assert!(!sender.wants_to_send(START));
    let next = sender.poll_timeout().unwrap();
    assert!(next < at_ms(60), "the pace, not a timeout: {next}");
    assert!(sender.wants_to_send(next));
    sender.send(START, CONTROL, b"control").unwrap();
    sender.send(START, STATE, b"state").unwrap();
    assert_eq!(leave(&mut sender, START, 21).unwrap().3, b"control", "outside the window");
    assert_eq!(leave(&mut sender, START, 22).unwrap().3, b"state");
    acked(&mut sender, at_ms(50), &(1..=left as u64).collect::<Vec<_>>());
    assert!(leave(&mut sender, at_ms(80), 23).is_some());
    assert!(sender.budget_bytes_per_second() >= 200_000, "a window each 50 ms");
}

#[test]
fn a_window_full_of_loose_packets_lets_one_reliable_packet_through() {
    let mut sender = paced();
    for number in 1..=40 {
        sender.send(START, STATE, &[0; 1_000]).unwrap();
        leave(&mut sender, START, number).unwrap();
    }
    assert_eq!(sender.send_window(), 0);
    sender.send(at_ms(1), EVENTS, b"one").unwrap();
    assert_eq!(leave(&mut sender, at_ms(1), 41).unwrap().3, b"one");
    sender.send(at_ms(2), EVENTS, b"two").unwrap();
    assert_eq!(leave(&mut sender, at_ms(2), 42), None, "its timeout goes on from there");
    assert!(sender.poll_timeout().is_some());
}

#[test]
fn the_last_packet_is_asked_after_within_little_more_than_a_round_trip() {
    let mut sender = paced();
    for number in 1..=20 {
        sender.send(at_ms(100 * number), EVENTS, b"event").unwrap();
        leave(&mut sender, at_ms(100 * number), number).unwrap();
        acked(&mut sender, at_ms(100 * number + 40), &[number]);
    }
    sender.send(at_ms(3_000), EVENTS, b"last").unwrap();
    leave(&mut sender, at_ms(3_000), 21).unwrap();
    let at = sender.poll_timeout().unwrap().since(at_ms(3_000));
    let most = Duration::from_millis(40 + 2) + Config::default().ack_delay_max;
    assert!(at <= most, "{at:?}");
    let window = sender.congestion_window();
    sender.handle_timeout(at_ms(3_000).after(at));
    assert!(leave(&mut sender, at_ms(3_080), 22).is_some());
    assert_eq!(sender.congestion_window(), window, "a probe says nothing of the path");
    assert!(sender.loss() < 0.01);
}

const URGENT: Channel = Channel::new(Delivery::Unordered, StreamId::INPUT);

#[test]
fn urgent_messages_leave_first_and_nobody_waits_for_ever() {
    let priorities = crate::Priorities::default().with(StreamId::INPUT, 0);
    let mut sender = sender(&Config { priorities, ..config() });
    (0..3).for_each(|_| sender.send(START, BULK, b"bulk").unwrap());
    (0..3).for_each(|_| sender.send(START, EVENTS, b"event").unwrap());
    (0..60).for_each(|_| sender.send(START, URGENT, b"urgent").unwrap());
    let order: Vec<Vec<u8>> =
        (1..=66).map(|number| leave(&mut sender, START, number).unwrap().3).collect();
    let places = |what: &[u8]| -> Vec<usize> {
        order.iter().enumerate().filter(|(_, body)| *body == what).map(|(at, _)| at).collect()
    };
    assert_eq!(places(b"event"), [16, 34, 52], "one after each sixteen");
    assert_eq!(places(b"bulk"), [17, 35, 53], "and what waits behind it");
}

#[test]
fn two_cut_messages_are_half_way_at_once_and_no_more() {
    let mut sender = sender(&config());
    let streams = [StreamId::BULK, StreamId::new(9).unwrap(), StreamId::EVENTS];
    let channel = |stream| Channel::new(Delivery::Unordered, stream);
    let mut number = 0;
    let mut pass = |sender: &mut Sender| {
        number += 1;
        leave(sender, START, number).map(|(channel, ..)| channel.stream)
    };
    // Each is begun before the next, more urgent one is there.
    for stream in streams {
        sender.send(START, channel(stream), &[0; 5_000]).unwrap();
        let expected = if stream == StreamId::EVENTS { streams[1] } else { stream };
        assert_eq!(pass(&mut sender), Some(expected), "the third does not begin");
    }
    sender.send(START, channel(StreamId::INPUT), b"short").unwrap();
    let order: Vec<StreamId> = core::iter::from_fn(|| pass(&mut sender)).collect();
    assert_eq!(order.len(), 3 * 5 - 3 + 1);
    assert!(order.contains(&StreamId::INPUT));
}

#[test]
fn a_probe_sends_no_more_packets_again_than_it_may() {
    let config = Config { probe_packets_max: 2, probe_min: Duration::from_millis(1), ..config() };
    let mut sender = sender(&config);
    sender.send(START, EVENTS, b"first").unwrap();
    leave(&mut sender, START, 1).unwrap();
    acked(&mut sender, at_ms(2), &[1]);
    for number in 2..7 {
        sender.send(at_ms(10), EVENTS, b"more").unwrap();
        leave(&mut sender, at_ms(10), number).unwrap();
    }
    // A round trip of 2 ms, twice its variation of 1 ms, and the peer's 25 ms.
    assert_eq!(sender.poll_timeout(), Some(at_ms(10 + 2 + 2 + 25)));
    sender.handle_timeout(at_ms(39));
    assert_eq!(sender.lost_waiting(), 2);
    let again: Vec<_> = (7..12).map_while(|it| leave(&mut sender, at_ms(39), it)).collect();
    assert_eq!(again.len(), 2, "the rest waits for the answer, or for the next timeout");
    assert!(sender.poll_timeout().unwrap() > at_ms(60));
    sender.handle_timeout(at_ms(500));
    assert_eq!(sender.lost_waiting(), 5, "then all of them are taken for lost");
}
