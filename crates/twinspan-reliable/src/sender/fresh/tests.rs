use core::time::Duration;

use twinspan_core::random::Stream;
use twinspan_core::time::Timestamp;

use crate::{Ack, Channel, Config, Delivery, Knobs, Sender, StreamId};

const EVENTS: Channel = Channel::new(Delivery::Ordered, StreamId::EVENTS);

fn sender() -> Sender {
    let knobs = Knobs { congestion: false, ..Knobs::default() };
    let config = Config { jitter_fraction: 0.0, knobs, ..Config::default() };
    Sender::new(&config, Stream::new(1, "jitter", 0))
}

fn at_ms(ms: u64) -> Timestamp {
    Timestamp::START.after(Duration::from_millis(ms))
}

/// A packet without a reliable frame.
fn chatter(sender: &mut Sender, ms: u64, number: u64) {
    sender.on_sent(at_ms(ms), number, 0, 100, true);
}

fn event(sender: &mut Sender, ms: u64, number: u64) {
    sender.send(at_ms(ms), EVENTS, b"event").unwrap();
    assert!(sender.poll_frame(at_ms(ms), 1_200).is_some());
    sender.on_sent(at_ms(ms), number, 0, 100, true);
}

/// Acknowledges one number; how many packets were news.
fn acked(sender: &mut Sender, ms: u64, number: u64) -> usize {
    let mut news = 0;
    let ack = Ack::single(number, Duration::ZERO);
    sender.handle_ack(at_ms(ms), &ack, &mut |_, _| news += 1).unwrap();
    news
}

#[test]
fn a_lost_packet_keeps_no_records_of_those_after_it() {
    let mut sender = sender();
    chatter(&mut sender, 0, 1);
    for number in 2..=100 {
        chatter(&mut sender, 10 * number, number);
        assert_eq!(acked(&mut sender, 10 * number + 30, number), 1);
    }
    assert_eq!(sender.stats().packets_lost, 1);
    // Four of a VecDeque's first room, and four of what was put aside.
    assert!(sender.heap_bytes() <= 4 * (24 + 32), "{}", sender.heap_bytes());
    assert_eq!(acked(&mut sender, 1_900, 1), 1, "its late ack still counts");
    assert_eq!(sender.stats().spurious, 1);
}

#[test]
fn a_late_ack_is_of_no_interest_after_its_window() {
    let mut sender = sender();
    chatter(&mut sender, 0, 1);
    for number in 2..=6 {
        chatter(&mut sender, 10 * number, number);
        acked(&mut sender, 10 * number + 30, number);
    }
    assert_eq!(sender.stats().packets_lost, 1);
    chatter(&mut sender, 3_000, 7);
    assert_eq!(acked(&mut sender, 3_010, 1), 0);
    assert_eq!(sender.stats().spurious, 0);
}

#[test]
fn a_thousand_packets_in_flight_are_all_known() {
    let mut sender = sender();
    for number in 1..=1_024 {
        chatter(&mut sender, 0, number);
    }
    assert_eq!(sender.stats().packets_lost, 0);
    let ack = Ack { largest: 1_024, delay: Duration::ZERO, bits: [u64::MAX; 16] };
    let mut ack_first = ack;
    // 1,023 numbers are below the largest.
    ack_first.bits[15] >>= 1;
    let mut news = 0;
    sender.handle_ack(at_ms(50), &ack_first, &mut |_, _| news += 1).unwrap();
    assert_eq!((news, sender.stats().packets_lost), (1_024, 0));
    // One more than can be known: the oldest is given up.
    for number in 1_025..=1_025 + 1_024 {
        chatter(&mut sender, 60, number);
    }
    assert_eq!(sender.stats().packets_lost, 1);
}

#[test]
fn acks_are_asked_for_where_packets_are_lost_once_for_each_with_a_reliable_frame() {
    let mut sender = sender();
    // A round trip of 100 ms that varies by 10: packets may change places within 20.
    for (number, rtt) in (1..=40).zip([90, 110].into_iter().cycle()) {
        chatter(&mut sender, 200 * number, number);
        acked(&mut sender, 200 * number + rtt, number);
    }
    event(&mut sender, 10_000, 41);
    assert!(!sender.take_ask(at_ms(10_090)), "nothing was lost yet");
    acked(&mut sender, 10_100, 41);
    // 42 is lost.
    for number in 42..=46 {
        chatter(&mut sender, 10_110 + number, number);
    }
    acked(&mut sender, 10_260, 46);
    assert!(sender.loss() > 0.01, "{}", sender.loss());
    assert!(!sender.take_ask(at_ms(10_270)), "nothing with a reliable frame is in flight");
    event(&mut sender, 10_300, 47);
    event(&mut sender, 10_310, 48);
    assert!(!sender.take_ask(at_ms(10_310)), "too soon to tell from a change of places");
    assert!(sender.take_ask(at_ms(10_345)), "for both");
    assert!(!sender.take_ask(at_ms(10_400)), "once");
    event(&mut sender, 10_400, 49);
    assert!(sender.take_ask(at_ms(10_440)));
    event(&mut sender, 10_441, 50);
    assert!(!sender.take_ask(at_ms(10_464)), "not so soon again");
}
