//! What circuits put on the wire, datagram by datagram: when, under which number, and how.

use std::time::Duration;

use twinspan_circuit::{Config, DeliveryId, Outcome, Rates, Retry, SendOptions};
use twinspan_lludp::messages::{
    ChatFromSimulator, ChatFromViewer, PacketAck, PacketAckRef, UseCircuitCode,
};
use twinspan_lludp::{
    AnyMessage, DATAGRAM_BYTES_SENT_MAX, Flags, Frame, Message, MessageId, MessageRef,
    PAYLOAD_BYTES_MAX, Sequence,
};

use crate::pair::{CLEAN, CODE, Departed, Pair, SIMULATOR, VIEWER, addr, chat_down, chat_up};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn configs() -> [Config; 2] {
    [Config::default(), Config { rates: Rates::UNLIMITED, ..Config::simulator() }]
}

fn frame(sent: &Departed) -> Frame<'_> {
    Frame::parse(&sent.bytes).unwrap()
}

/// The datagrams of an end with one kind of message, in the order in which they left.
fn sent(pair: &Pair, end: usize, id: MessageId) -> Vec<&Departed> {
    let of = |sent: &&Departed| sent.end == end && frame(sent).id() == Ok(id);
    pair.left.iter().filter(of).collect()
}

/// The times between them.
fn gaps(sent: &[&Departed]) -> Vec<Duration> {
    sent.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect()
}

/// A message that leaves as often as it may, into a line that is cut.
fn into_nothing(options: SendOptions) -> (Pair, DeliveryId) {
    let mut pair = Pair::connected(configs(), CLEAN, 1);
    pair.run_for(SECOND);
    pair.cut = true;
    let (now, chat) = (pair.now, chat_up(1, 40));
    let id = pair.ends[VIEWER].send_tracked(now, addr(SIMULATOR), &chat, options).unwrap();
    pair.run_for(59 * SECOND);
    (pair, id)
}

#[test]
fn a_handshake_leaves_again_each_half_second_at_first_and_less_often_later() {
    let mut pair = Pair::new(configs(), CLEAN, 2);
    pair.cut = true;
    pair.ends[VIEWER].open(pair.now, addr(SIMULATOR)).unwrap();
    let mut hello = UseCircuitCode::default();
    hello.circuit_code.code = CODE;
    let (now, options) = (pair.now, SendOptions::CRITICAL.within(59 * SECOND));
    let id = pair.ends[VIEWER].send_tracked(now, addr(SIMULATOR), &hello, options).unwrap();
    pair.run_for(59 * SECOND);
    let sent = sent(&pair, VIEWER, UseCircuitCode::ID);
    assert_eq!(sent[0].at, now, "it leaves at once");
    let gaps = gaps(&sent);
    assert_eq!(gaps[..6], [500 * MS; 6], "{gaps:?}");
    assert!(gaps[6..].iter().all(|gap| *gap > 500 * MS), "{gaps:?}");
    assert!(gaps[gaps.len() - 1] > SECOND, "{gaps:?}");
    // No more than its budget.
    assert_eq!(gaps.len(), 16);
    assert_eq!(pair.outcomes[VIEWER][&id], Outcome::TimedOut { resends: Some(16) });
}

#[test]
fn what_leaves_again_has_its_number_and_says_so() {
    let options = SendOptions::RELIABLE.within(59 * SECOND);
    let (pair, _) = into_nothing(options);
    let sent = sent(&pair, VIEWER, ChatFromViewer::ID);
    let first = frame(sent[0]);
    assert_eq!(first.flags.without(Flags::ZERO_CODED), Flags::RELIABLE);
    for again in &sent[1..] {
        let again = frame(again);
        assert_eq!(again.flags, first.flags.with(Flags::RESENT));
        assert_eq!((again.sequence, again.payload), (first.sequence, first.payload));
    }
}

#[test]
fn each_class_of_messages_has_its_budget_of_resends() {
    for (retry, resends) in [(Retry::Once, 0), (Retry::Ordinary, 8), (Retry::Critical, 16)] {
        let options = SendOptions { retry, ..SendOptions::RELIABLE }.within(59 * SECOND);
        let (pair, id) = into_nothing(options);
        assert_eq!(sent(&pair, VIEWER, ChatFromViewer::ID).len(), 1 + resends, "{retry:?}");
        let outcome = Outcome::TimedOut { resends: Some(resends as u32) };
        assert_eq!(pair.outcomes[VIEWER][&id], outcome, "{retry:?}");
        assert_eq!(pair.ends[VIEWER].unacknowledged(addr(SIMULATOR)), 0, "{retry:?}");
    }
    let mut pair = Pair::connected(configs(), CLEAN, 1);
    pair.cut = true;
    let (now, chat) = (pair.now, chat_up(1, 40));
    pair.ends[VIEWER].send(now, addr(SIMULATOR), &chat, SendOptions::UNRELIABLE).unwrap();
    pair.run_for(30 * SECOND);
    let sent = sent(&pair, VIEWER, ChatFromViewer::ID);
    assert_eq!(sent.len(), 1, "what is not reliable leaves once");
    assert!(!frame(sent[0]).flags.has(Flags::RELIABLE));
}

#[test]
fn waits_between_ordinary_resends_grow_and_differ() {
    let (pair, _) = into_nothing(SendOptions::RELIABLE.within(59 * SECOND));
    let gaps = gaps(&sent(&pair, VIEWER, ChatFromViewer::ID));
    // Round trip 40 ms: 500 ms that the peer may keep its acks, and a little.
    assert!((500 * MS..SECOND).contains(&gaps[0]), "{gaps:?}");
    assert!(gaps[2] > gaps[0] + 200 * MS, "{gaps:?}");
    // 1.5 s at most, and up to a quarter of jitter on top.
    assert!(gaps.iter().all(|gap| *gap <= 1_875 * MS), "{gaps:?}");
    let last = &gaps[3..];
    assert!(last.iter().any(|gap| *gap != last[0]), "no jitter: {gaps:?}");
}

#[test]
fn a_reliable_message_is_tried_for_five_seconds_unless_told_otherwise() {
    let mut pair = Pair::connected(configs(), CLEAN, 3);
    pair.run_for(SECOND);
    pair.cut = true;
    let (now, to) = (pair.now, addr(SIMULATOR));
    let chat = [AnyMessage::from(chat_up(1, 40)), AnyMessage::from(chat_up(2, 40))];
    let usual = pair.ends[VIEWER].send_reliable(now, to, &chat).unwrap();
    let longer = SendOptions::RELIABLE.within(7 * SECOND);
    let longer = pair.ends[VIEWER].send_reliable_with(now, to, &chat, longer).unwrap();
    pair.run_for(5 * SECOND - MS);
    assert!(pair.outcomes[VIEWER].is_empty(), "{:?}", pair.outcomes[VIEWER]);
    pair.run_for(MS);
    let outcome = pair.outcomes[VIEWER][&usual];
    assert!(matches!(outcome, Outcome::TimedOut { resends: Some(2..=8) }), "{outcome:?}");
    pair.run_for(2 * SECOND - MS);
    assert!(!pair.outcomes[VIEWER].contains_key(&longer));
    pair.run_for(MS);
    assert!(matches!(pair.outcomes[VIEWER][&longer], Outcome::TimedOut { .. }));
    // And nothing of it leaves any more.
    let count = sent(&pair, VIEWER, ChatFromViewer::ID).len();
    pair.run_for(20 * SECOND);
    assert_eq!(sent(&pair, VIEWER, ChatFromViewer::ID).len(), count);
}

#[test]
fn acks_of_a_burst_leave_255_in_a_packet() {
    let mut pair = Pair::connected(configs(), CLEAN, 4);
    pair.run_for(SECOND);
    let began = pair.now;
    for number in 0..600 {
        let (now, down) = (pair.now, chat_down(number, 10));
        pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
    }
    pair.settle(5 * SECOND);
    let mut counts = Vec::new();
    let mut numbers = Vec::new();
    for sent in sent(&pair, VIEWER, PacketAck::ID).iter().filter(|sent| sent.at > began) {
        assert!(sent.bytes.len() <= DATAGRAM_BYTES_SENT_MAX);
        let mut space = [0; PAYLOAD_BYTES_MAX];
        let payload = frame(sent).open(&mut space).unwrap();
        let (acks, _) = PacketAckRef::decode_ref(payload.body).unwrap();
        counts.push(acks.packets.len());
        numbers.extend(acks.packets.iter().map(|packet| packet.id));
    }
    assert_eq!(counts.iter().max(), Some(&255), "{counts:?}");
    assert!(counts.len() <= 4, "{counts:?}");
    let down: Vec<u32> = sent(&pair, SIMULATOR, ChatFromSimulator::ID)
        .iter()
        .map(|sent| frame(sent).sequence.0)
        .collect();
    assert_eq!(down.len(), 600, "none left twice");
    numbers.sort_unstable();
    numbers.dedup();
    let known = down.iter().filter(|number| numbers.binary_search(number).is_ok()).count();
    assert!(known >= 510, "{known} in packets of their own");
}

/// The number of a reliable packet that the simulator sends, and that has arrived.
fn number_of_next(pair: &mut Pair, number: u32) -> Sequence {
    let (now, down) = (pair.now, chat_down(number, 10));
    pair.ends[SIMULATOR].send(now, addr(VIEWER), &down, SendOptions::RELIABLE).unwrap();
    pair.run_for(21 * MS);
    let sent = sent(pair, SIMULATOR, ChatFromSimulator::ID);
    frame(sent[sent.len() - 1]).sequence
}

#[test]
fn acks_behind_packets_are_big_endian_and_those_in_packet_ack_little_endian() {
    let [viewer, simulator] = configs();
    let mut pair =
        Pair::connected([viewer, Config { first_number: 0x0001_0203, ..simulator }], CLEAN, 5);
    pair.run_for(SECOND);
    // One that finds a packet to ride in.
    let Sequence(number) = number_of_next(&mut pair, 1);
    assert!((0x0001_0203..0x0001_0300).contains(&number), "{number:x}");
    let (now, up) = (pair.now, chat_up(1, 10));
    pair.ends[VIEWER].send(now, addr(SIMULATOR), &up, SendOptions::UNRELIABLE).unwrap();
    pair.run_for(MS);
    let sent_up = sent(&pair, VIEWER, ChatFromViewer::ID);
    let bytes = &sent_up[0].bytes;
    let [.., a, b, c, d, 1] = bytes[..] else { panic!("no ack behind {bytes:x?}") };
    assert_eq!([a, b, c, d], number.to_be_bytes());
    assert!(frame(sent_up[0]).flags.has(Flags::ACKS));
    // One that does not.
    let Sequence(number) = number_of_next(&mut pair, 2);
    pair.run_for(SECOND);
    let alone = sent(&pair, VIEWER, PacketAck::ID);
    let bytes = &alone[alone.len() - 1].bytes;
    let [.., 0xFF, 0xFF, 0xFF, 0xFB, 1, a, b, c, d] = bytes[..] else {
        panic!("not one ack in {bytes:x?}");
    };
    assert_eq!([a, b, c, d], number.to_le_bytes());
    assert!(!frame(alone[alone.len() - 1]).flags.has(Flags::ACKS));
}
