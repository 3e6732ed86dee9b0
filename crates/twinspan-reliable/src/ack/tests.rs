use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::START;

fn tracker() -> AckTracker {
    AckTracker::new(&Config::default())
}

fn at_ms(ms: u64) -> Timestamp {
    START.after(Duration::from_millis(ms))
}

#[test]
fn before_the_first_packet_there_is_nothing_to_say() {
    assert_eq!(tracker().build(START), None);
    assert_eq!(tracker().ack_due(), None);
}

#[test]
fn bit_i_is_the_number_i_plus_1_before_the_largest() {
    let mut tracker = tracker();
    for number in [10, 12, 11, 7] {
        tracker.on_packet(START, number, true, false);
    }
    let ack = tracker.build(START).unwrap();
    assert_eq!((ack.largest, ack.bits[0]), (12, 0b1_0011));
    assert_eq!(ack.numbers().collect::<Vec<_>>(), [12, 11, 10, 7]);
    assert!(ack.contains(7) && !ack.contains(8) && !ack.contains(13));
}

#[test]
fn the_bitmap_has_golden_bytes_and_goes_both_ways() {
    let mut tracker = tracker();
    for number in [1, 2, 20, 21, 23] {
        tracker.on_packet(START, number, true, false);
    }
    let ack = tracker.build(at_ms(3)).unwrap();
    let bytes: Vec<u8> = (0..ack.bitmap_bytes()).map(|index| ack.bitmap_byte(index)).collect();
    assert_eq!(bytes, [0b0000_0110, 0, 0b0011_0000]);
    assert_eq!(Ack::from_bitmap(23, Duration::from_millis(3), &bytes), Some(ack));
    assert_eq!(Ack::from_bitmap(23, Duration::ZERO, &[0; 129]), None);
    assert_eq!(Ack::single(5, Duration::ZERO).bitmap_bytes(), 0);
}

#[test]
fn the_delay_counts_from_the_largest_number() {
    let mut tracker = tracker();
    tracker.on_packet(at_ms(10), 5, true, false);
    tracker.on_packet(at_ms(15), 4, true, false);
    assert_eq!(tracker.build(at_ms(18)).unwrap().delay, Duration::from_millis(8));
}

#[test]
fn an_ack_waits_no_longer_than_its_delay() {
    let mut tracker = tracker();
    tracker.on_packet(at_ms(10), 1, true, false);
    tracker.on_packet(at_ms(20), 2, true, false);
    assert_eq!(tracker.ack_due(), Some(at_ms(35)));
}

#[test]
fn a_probe_and_many_packets_are_acknowledged_at_once() {
    let mut probed = tracker();
    probed.on_packet(at_ms(10), 1, true, true);
    assert_eq!(probed.ack_due(), Some(at_ms(10)));
    let mut flooded = tracker();
    for number in 1..=16 {
        flooded.on_packet(at_ms(10), number, true, false);
    }
    assert_eq!(flooded.ack_due(), Some(at_ms(10)));
}

#[test]
fn an_ack_only_packet_elicits_nothing_but_is_recorded() {
    let mut tracker = tracker();
    tracker.on_packet(START, 3, false, false);
    assert_eq!(tracker.ack_due(), None);
    assert_eq!(tracker.build(START).unwrap().largest, 3);
}

#[test]
fn only_a_sent_ack_ends_the_wait() {
    let mut tracker = tracker();
    tracker.on_packet(START, 1, true, false);
    assert!(tracker.build(START).is_some());
    assert!(tracker.ack_due().is_some());
    tracker.on_ack_sent(START);
    assert_eq!(tracker.ack_due(), None);
    assert!(tracker.build(START).is_some());
}

#[test]
fn a_lying_tracker_acknowledges_ahead() {
    let knobs = Knobs { ack_ahead: 3, ..Knobs::default() };
    let mut tracker = AckTracker::new(&Config { knobs, ..Config::default() });
    tracker.on_packet(START, 10, true, false);
    tracker.on_packet(START, 8, true, false);
    let ack = tracker.build(START).unwrap();
    assert_eq!(ack.numbers().collect::<Vec<_>>(), [13, 12, 11, 10, 8]);
}

#[test]
fn extreme_numbers_do_no_harm() {
    let mut tracker = tracker();
    tracker.on_packet(START, u64::MAX, true, false);
    tracker.on_packet(START, 0, true, false);
    tracker.on_packet(START, u64::MAX - 1, true, false);
    tracker.on_packet(START, 5, true, false);
    let ack = tracker.build(START).unwrap();
    assert_eq!(ack.numbers().collect::<Vec<_>>(), [u64::MAX - 1]);
    let below_zero = Ack { bits: [!0; ACK_WORDS], ..Ack::single(2, Duration::ZERO) };
    assert_eq!(below_zero.numbers().collect::<Vec<_>>(), [2, 1, 0]);
}

proptest! {
    #[test]
    fn the_tracker_agrees_with_a_set(
        jumps in prop::collection::vec((0_u64..1_500, 0_u64..1_200), 1..120),
    ) {
        let mut tracker = tracker();
        let mut model = BTreeSet::new();
        for (up, back) in jumps {
            let largest = model.last().copied().unwrap_or(0);
            let number = (largest + up % 70 * (up % 30)).saturating_sub(back);
            tracker.on_packet(START, number, true, false);
            let oldest = largest.saturating_sub(ACK_BITS);
            if number >= oldest {
                model.insert(number);
            }
            let largest = *model.last().unwrap();
            let low = largest.saturating_sub(ACK_BITS);
            let expected: Vec<u64> = model.range(low..).rev().copied().collect();
            let ack = tracker.build(START).unwrap();
            prop_assert_eq!(ack.numbers().collect::<Vec<_>>(), expected);
        }
    }
}
